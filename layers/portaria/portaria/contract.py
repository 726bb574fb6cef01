"""What the parts of Portaria say to one another: values, the two errors, and what a platform must offer.

Everything here is plain data. Platforms build a `Request` and read a `Response`; only `egress` carries them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


class Rejected(Exception):
    """The input is wrong, or the other side refused for good: doing the same again cannot help.

    `reason` is a stable word for programs (`code_expired`); `detail` is a sentence for the person who must act: it names
    the field, the limit and the size of what came, never the value of a secret. `field` is the input's field, if any.
    """

    def __init__(self, reason: str, detail: str, *, field: str | None = None, status: int = 400) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.field = field
        self.status = status


class Retryable(Exception):
    """It did not work now and may work later: the work goes back to its queue.

    `after_s` is the wait in seconds that the other side asked for, or None where the queue's own back-off should decide.
    `answer_lost` says that a request left and no answer came: the other side may have done the work.
    """

    def __init__(self, reason: str, detail: str, *, after_s: float | None = None, answer_lost: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.after_s = after_s
        self.answer_lost = answer_lost


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

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not serialised; call reveal() where it is meant to leave")


@dataclass(frozen=True)
class Arrival:
    """An authorization code that has just come in, as a platform's `install.parse_arrival` reads it.

    `account_host` is the bare host of the account that installs (`acme.kommo.com`): the client secret will be posted to
    it, so a platform returns only hosts of its own. `source` is `widget` (the marketplace's hook, no `state`) or
    `browser` (the customer's return from the consent page, always with `state`).
    """

    code: Secret
    account_host: str
    source: str
    state: Secret | None = None


@dataclass(frozen=True)
class Refusal:
    """The customer said no on the consent page."""

    error: str
    state: Secret | None = None


@dataclass(frozen=True)
class OAuthClient:
    """The application registered with a platform. `name` is fixed; `redirect_uri` must equal the registered one exactly."""

    platform: str
    name: str
    client_id: str
    redirect_uri: str
    scopes: str = ""


@dataclass(frozen=True)
class Grant:
    """What a token endpoint gave. Times are aware datetimes in UTC; `refresh_token` is None where there is none."""

    access_token: Secret
    expires_at: datetime
    refresh_token: Secret | None = None
    token_type: str = "bearer"  # noqa: S105 - a kind of token, not a token
    scopes: str = ""


@dataclass(frozen=True)
class Account:
    """The account behind a grant, as the platform's API tells it. `host` is where its API answers."""

    id: str
    name: str
    host: str


@dataclass(frozen=True)
class Connection:
    """Stored credentials for one account of one platform; the credentials themselves are in the vault under `secret_id`.

    `name` is the key (3–64 of A–Z a–z 0–9 _ -) and never changes, nor do `platform`, `kind` and `allowed_domain`.
    `generation` grows each time the tokens change. `fields` holds what only this platform knows (`munchkin_id`).
    `state` is `connected`, `needs_reconnect` or `removed`.
    """

    name: str
    platform: str
    kind: str
    allowed_domain: str
    state: str
    generation: int
    secret_id: str
    label: str = ""
    client: str = ""
    account_id: str = ""
    scopes: str = ""
    created_at: str = ""
    updated_at: str = ""
    granted_at: str = ""
    notes: tuple[str, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """source + object → destination + mapping. `source` is `connection:{name}` or `client:{platform}/{client}`.

    A client as source stands for every account that installs it, also the ones still to come. `mapping` gives each
    destination attribute a JMESPath expression over the source's record; empty means the platform's default.
    `dedupe_fields` are one or two destination attributes; `priority` is `normal` or `high`.
    """

    name: str
    source: str
    object: str
    destination: str
    mapping: dict[str, str] = field(default_factory=dict)
    dedupe_fields: tuple[str, ...] = ("email",)
    priority: str = "normal"
    partition: str = ""


@dataclass(frozen=True)
class Record:
    """One source object on its way: `key` identifies it within its source, `updated_at` (epoch seconds) orders versions."""

    key: str
    updated_at: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Page:
    """One page of a platform's listing. `next_page` is None on the last."""

    records: list[Record]
    next_page: int | None


@dataclass(frozen=True)
class Request:
    """An outgoing call that a platform built. Headers and body may hold credentials, so neither is ever printed.

    `connect_timeout_s` and `read_timeout_s` are seconds; `max_response_bytes` bounds what is read of the answer.
    """

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 10.0
    max_response_bytes: int = 10_000_000


@dataclass(frozen=True)
class Response:
    """An answer. Header names are lower case. The body may hold credentials and is not printed."""

    status: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
