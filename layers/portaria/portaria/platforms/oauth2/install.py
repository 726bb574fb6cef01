"""Any OAuth 2.0 provider: the way to its consent page and the return from there.

https://www.rfc-editor.org/rfc/rfc6749#section-4.1 (authorization code) and https://www.rfc-editor.org/rfc/rfc7636 (PKCE).
The return says nothing about the account, and nothing in it decides where a secret goes: the token endpoint is the OAuth
client's. Each client has a redirect URI of its own, which is what keeps one provider's code from being sent to another
(RFC 9700, 4.4.2.2); an `iss` (RFC 9207) is therefore not needed, nor is any other parameter that a provider adds.
This part is on accept_install's path: it imports as little as it can.
"""

from __future__ import annotations

import re

from portaria.intake import Arrival, OAuthClient, Refusal, Rejected, Secret

MAX_CODE_LENGTH = 4_000
MAX_STATE_LENGTH = 200
# RFC 6749, 4.1.1 and RFC 7636, 4.3: these are set here, so an authorize_url may not bring its own.
OWN_PARAMETERS = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
)
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


def parse_arrival(query: dict[str, list[str]]) -> Arrival | Refusal:
    """Read the query of a browser's return. Raises `Rejected` that names the parameter and its rule."""
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
    if not state:
        raise Rejected(
            "missing_state", "a return from the consent page must carry the state it was given", field="state"
        )
    return Arrival(Secret(code), "", "browser", state)


def authorization_url(client: OAuthClient, state: Secret, code_challenge: str, scopes: str) -> str:
    """Where a browser asks for consent. What the client's authorize_url has for a query is kept (RFC 6749, 3.1)."""
    from urllib.parse import quote, urlencode  # noqa: PLC0415 - the return does not need it

    values = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": client.redirect_uri,
        **({"scope": scopes} if scopes else {}),
        "state": state.reveal(),
        "code_challenge": code_challenge,
        "code_challenge_method": "S256",
    }
    joint = "&" if "?" in client.authorize_url else "?"
    return f"{client.authorize_url}{joint}{urlencode(values, quote_via=quote)}"


def _one(query: dict[str, list[str]], name: str) -> str:
    values = query.get(name, [])
    if len(values) > 1:
        raise Rejected(
            f"{name}_repeated", f"the parameter {name} came {len(values)} times; once is allowed", field=name
        )
    return values[0] if values else ""
