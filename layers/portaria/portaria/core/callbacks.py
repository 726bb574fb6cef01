"""The values that the install webhook needs: secrets, OAuth clients and callbacks.

They are named tuples and not in `entities`, because the webhook has three seconds from a cold start: importing `dataclasses`
and creating one class costs more than this whole module.
"""

from __future__ import annotations

import re

from portaria.core.cold_path.named_tuples import NamedTuple
from portaria.core.error_roots import Rejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

MAX_STATE_LENGTH = 200
# What may stand in a path as the name of an OAuth client, before it becomes part of a key.
CLIENT_IN_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


class Secret:
    """A credential. Printing, formatting, logging or comparing it shows nothing; `reveal()` is the one way to its text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised; call reveal() where it is meant to leave")


class OAuthCallback(NamedTuple):
    """An authorization code that has just come in, as a platform's `install.parse_callback` reads it.

    `account_host` is the bare host of the account that installs (`acme.kommo.com`): the client secret will be posted to
    it, so a platform returns only hosts of its own; empty if the OAuth client names the host. `source` is `widget` (the
    marketplace's hook, no `state`) or `browser` (the customer's return from the consent page, always with `state`).
    """

    code: Secret
    account_host: str
    source: str
    state: Secret | None = None


class Refusal(NamedTuple):
    """The customer said no on the consent page."""

    error: str
    state: Secret | None = None


class OAuthClient(NamedTuple):
    """The application registered with a platform. `name` is fixed; `redirect_uri` must equal the registered one exactly.

    The rest is for providers that the platform does not know by itself: `authorize_url` and `token_url`, `grant`
    (`authorization_code` or `client_credentials`) and `token_auth`, how the client proves itself to the token endpoint:
    `basic` or `post` (RFC 6749, 2.3.1). `scopes` are separated by spaces, and so are `api_domains`: the domains that the
    client's connections may have, and so the only ones that its tokens are sent to; and `return_urls`, see `core.return_urls`.
    The rest is what the hosted pages show: `colour` is `#rrggbb`, and `logo` is the version of the stored logo (`core.logos`).
    """

    platform: str
    name: str
    client_id: str
    redirect_uri: str
    scopes: str = ""
    authorize_url: str = ""
    token_url: str = ""
    grant: str = "authorization_code"
    token_auth: str = "basic"  # noqa: S105 - a way to prove itself, not a token
    api_domains: str = ""
    return_urls: str = ""
    display_name: str = ""
    logo: str = ""
    colour: str = ""
    support_email: str = ""
    support_url: str = ""
    privacy_url: str = ""
    terms_url: str = ""


class Record(NamedTuple):
    """One source object on its way: `key` identifies it within its source, `updated_at` (epoch seconds) orders versions.

    Where `is_partial`, a key that `data` lacks is unknown, not empty: the source may have a value for it.
    """

    key: str
    updated_at: int
    data: dict[str, Any]
    is_partial: bool = False


# How far a platform's clock may be ahead of this one, and the year 2286: a larger number counts milliseconds.
MAX_AHEAD_S = 5 * 60
MOST_SECONDS = 10_000_000_000


def time_of_change(told: int, seen_at: int) -> int:
    """When an object was changed (epoch seconds), as its platform tells it and as far as that is possible.

    A platform's users and their integrations may set the time. A change cannot be newer than the moment at which it was
    seen (`seen_at`, epoch seconds), and one time in the future would shut out every later change: such a time is replaced by
    `seen_at`. Milliseconds are read as such.
    """
    seconds = told // 1_000 if told > MOST_SECONDS else told
    return seconds if seconds <= seen_at + MAX_AHEAD_S else seen_at


class WebhookDelivery(NamedTuple):
    """One call with events, as it came: header names in lower case, the raw body, the time of arrival (epoch seconds).

    `ed25519(public_key, signature, message)` says whether a signature is good; a platform has nothing but the standard library.
    """

    headers: dict[str, str]
    body: bytes
    received_at: int
    ed25519: Callable[[bytes, bytes, bytes], bool]


class EventAddress(NamedTuple):
    """The address that events come to: the account they must name, and the SHA-256 of the secret that a header must carry,
    where the platform's events come with one."""

    account_id: str
    header_hash: str = ""


class Events(NamedTuple):
    """A delivery, read: records by source object, and how many events were left out for which reason.

    `delivery` is the platform's id for it, by which a second one of the same is known; empty if it has none. `mended` says
    that its text was not UTF-8 everywhere: what could not be read became U+FFFD.
    """

    records: dict[str, list[Record]]
    left: dict[str, int]
    delivery: str = ""
    mended: bool = False


class ConsentReturn(NamedTuple):
    """What every consent page sends a browser back with; the install hook's call has no `state`."""

    code: Secret
    state: Secret | None


def read_return(query: dict[str, list[str]], *, max_code_length: int) -> ConsentReturn | Refusal:
    """Read `code`, `state` and `error` of a call to a redirect URI (RFC 6749, 4.1.2).

    Raises `Rejected` that names the parameter and its rule.
    """
    state_text = read_one(query, "state")
    if len(state_text) > MAX_STATE_LENGTH:
        raise Rejected(
            "bad_state", f"state may have {MAX_STATE_LENGTH} characters; this has {len(state_text)}", field="state"
        )
    state = Secret(state_text) if state_text else None
    if error := read_one(query, "error"):
        return Refusal(error if re.fullmatch(r"[a-z_]{1,64}", error) else "other", state)
    code = read_one(query, "code")
    if not code:
        raise Rejected("missing_code", "the parameter code is missing or empty", field="code")
    if len(code) > max_code_length:
        raise Rejected(
            "code_too_long", f"code may have {max_code_length} characters; this has {len(code)}", field="code"
        )
    if not _PRINTABLE.fullmatch(code):
        raise Rejected("bad_code", "code may hold only printable ASCII characters without spaces", field="code")
    return ConsentReturn(Secret(code), state)


def domain_inside(domain: str, registered: tuple[str, ...]) -> bool:
    """Whether an allowed domain lies inside one of those registered. `*.example.com` holds `example.com`, every name below
    it, and their wildcards; a name without a wildcard holds itself alone."""
    name = domain.removeprefix("*.")
    for each in registered:
        if domain == each:
            return True
        if each.startswith("*.") and (name == each[2:] or name.endswith(each[1:])):
            return True
    return False


def read_one(query: dict[str, list[str]], name: str) -> str:
    """A parameter that may come once, empty if it did not. Raises `Rejected` (`…_repeated`)."""
    values = query.get(name, [])
    if len(values) > 1:
        raise Rejected(
            f"{name}_repeated", f"the parameter {name} came {len(values)} times; once is allowed", field=name
        )
    return values[0] if values else ""
