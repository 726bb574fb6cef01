"""Any OAuth 2.0 provider: the URL of its consent page, and the callback from there.

https://www.rfc-editor.org/rfc/rfc6749#section-4.1 (authorization code) and https://www.rfc-editor.org/rfc/rfc7636 (PKCE).
The callback does not name the account and does not decide where a secret is sent, because the OAuth client names the token
endpoint. Each client has its own redirect URI, so one provider's code is never sent to another (RFC 9700, 4.4.2.2). `iss`
(RFC 9207) and other parameters that providers add are therefore not needed.
The callback must be answered quickly, so this module imports as little as possible.
"""

from __future__ import annotations

from portaria.core.callbacks import OAuthCallback, OAuthClient, Refusal, Secret, read_return
from portaria.core.error_roots import Rejected

MAX_CODE_LENGTH = 4_000
# RFC 6749, 4.1.1 and RFC 7636, 4.3. `authorization_url` sets these, so an authorize_url must not.
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
    """Return the code or the refusal. Raises `Rejected` that names the parameter and its rule."""
    returned = read_return(query, max_code_length=MAX_CODE_LENGTH)
    if isinstance(returned, Refusal):
        return returned
    code, state = returned
    if not state:
        raise Rejected("missing_state", "the redirect from the consent page has no state", field="state")
    return OAuthCallback(code, "", "browser", state)


def authorization_url(client: OAuthClient, state: Secret, code_challenge: str, scopes: str) -> str:
    """Return the URL of the consent page. The query of the client's authorize_url is kept (RFC 6749, 3.1)."""
    from urllib.parse import quote, urlencode  # noqa: PLC0415 - the callback does not use it

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
