"""Any OAuth 2.0 provider: the way to its consent page and the return from there.

https://www.rfc-editor.org/rfc/rfc6749#section-4.1 (authorization code) and https://www.rfc-editor.org/rfc/rfc7636 (PKCE).
The return says nothing about the account, and nothing in it decides where a secret goes: the token endpoint is the OAuth
client's. Each client has a redirect URI of its own, which is what keeps one provider's code from being sent to another
(RFC 9700, 4.4.2.2); an `iss` (RFC 9207) is therefore not needed, nor is any other parameter that a provider adds.
This part is on accept_install's path: it imports as little as it can.
"""

from __future__ import annotations

from portaria.core.callbacks import OAuthCallback, OAuthClient, Refusal, Rejected, Secret, read_return

MAX_CODE_LENGTH = 4_000
# RFC 6749, 4.1.1 and RFC 7636, 4.3: these are set here, so an authorize_url may not bring its own.
OWN_PARAMETERS: tuple[str, ...] = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
)


def parse_callback(query: dict[str, list[str]]) -> OAuthCallback | Refusal:
    """Read the query of a browser's return. Raises `Rejected` that names the parameter and its rule."""
    returned = read_return(query, max_code_length=MAX_CODE_LENGTH)
    if isinstance(returned, Refusal):
        return returned
    code, state = returned
    if not state:
        raise Rejected("missing_state", "the redirect from the consent page has no state", field="state")
    return OAuthCallback(code, "", "browser", state)


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
