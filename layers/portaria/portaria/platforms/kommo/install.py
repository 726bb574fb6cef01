"""Kommo's three arrivals at the redirect URI, and the way to its consent page.

https://developers.kommo.com/docs/authorization-public and https://developers.kommo.com/docs/button-on-site
This part is on the path of the install hook, which has three seconds: it imports as little as it can.
"""

from __future__ import annotations

import re

from portaria.intake import Arrival, Refusal, Rejected, Secret

# The client secret is posted to the host that `referer` names, and the hook is unauthenticated: exactly one label under
# one of Kommo's own domains, nothing else.
_ACCOUNT_HOST = re.compile(
    r"(?!www\.|..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.(?:kommo\.com|amocrm\.com|amocrm\.ru)", re.ASCII
)
# Kommo's own names, where no account lives.
_RESERVED = frozenset({"www", "api", "auth", "oauth", "developers", "support", "help", "mail", "static", "cdn"})
MAX_CODE_LENGTH = 2_000
MAX_STATE_LENGTH = 200
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


def parse_arrival(query: dict[str, list[str]]) -> Arrival | Refusal:
    """Read the query of a call to the redirect URI. Raises `Rejected` that names the parameter and its rule."""
    state_text = _one(query, "state")
    if len(state_text) > MAX_STATE_LENGTH:
        raise Rejected(
            "bad_state", f"state may have {MAX_STATE_LENGTH} characters; this has {len(state_text)}", field="state"
        )
    state = Secret(state_text) if state_text else None
    if error := _one(query, "error"):
        return Refusal(error if re.fullmatch(r"[a-z_]{1,64}", error) else "other", state)
    code = _one(query, "code")
    if not code:
        raise Rejected("missing_code", "the parameter code is missing or empty", field="code")
    if len(code) > MAX_CODE_LENGTH:
        raise Rejected(
            "code_too_long", f"code may have {MAX_CODE_LENGTH} characters; this has {len(code)}", field="code"
        )
    if not _PRINTABLE.fullmatch(code):
        raise Rejected("bad_code", "code may hold only printable ASCII characters without spaces", field="code")
    # One page of Kommo's spells it `referrer`.
    host = _one(query, "referer") or _one(query, "referrer")
    check_account_host(host)
    from_widget = _one(query, "from_widget") not in ("", "0")
    if not state and not from_widget:
        raise Rejected(
            "missing_state", "a return from the consent page must carry the state it was given", field="state"
        )
    return Arrival(Secret(code), host.lower(), "browser" if state else "widget", state)


def check_account_host(host: str) -> None:
    """Raises `Rejected` (`bad_referer`) unless the host is an account's: one label under kommo.com, amocrm.com or .ru."""
    lowered = host.lower() if host.isascii() else host
    if not _ACCOUNT_HOST.fullmatch(lowered) or lowered.partition(".")[0] in _RESERVED:
        raise Rejected(
            "bad_referer",
            f"referer must be the account's host, one name under kommo.com or amocrm.com (got {len(host)} characters)",
            field="referer",
        )


def consent_url(client_id: str, state: Secret) -> str:
    """Where a browser asks the customer for consent, in the main window."""
    from urllib.parse import urlencode  # noqa: PLC0415 - the hook does not need it

    query = urlencode({"client_id": client_id, "state": state.reveal(), "mode": "popup"})
    return f"https://www.kommo.com/oauth?{query}"


def button(client_id: str, state: Secret, language: str) -> dict[str, str]:
    """The attributes of Kommo's button script, which opens the same consent page."""
    return {
        "class": "kommo_oauth",
        "charset": "utf-8",
        "data-client-id": client_id,
        "data-title": {"pt": "Conectar ao Kommo", "es": "Conectar con Kommo"}.get(language, "Connect to Kommo"),
        "data-compact": "false",
        "data-theme": "light",
        "data-locale": language,
        "data-state": state.reveal(),
        "data-mode": "popup",
        "src": "https://www.kommo.com/auth/button.js",
    }


def _one(query: dict[str, list[str]], name: str) -> str:
    values = query.get(name, [])
    if len(values) > 1:
        raise Rejected(
            f"{name}_repeated", f"the parameter {name} came {len(values)} times; once is allowed", field=name
        )
    return values[0] if values else ""
