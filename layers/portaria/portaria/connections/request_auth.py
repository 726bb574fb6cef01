"""How a connection's credentials go onto a call: in the headers that its kind says, and nowhere else.

RFC 6750 (bearer tokens), RFC 7617 (basic authentication, in UTF-8). A platform whose API wants more than the credential,
such as a version, says so in `call_headers` of its `tokens` part, and in `TOKEN_HEADER` where it wants the bare token in a
header of its own.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from portaria import platforms
from portaria.core.entities import Connection
from portaria.core.errors import NoCredentials

if TYPE_CHECKING:
    from portaria.connections.tokens.cache import Token
    from portaria.connections.vault import Credentials

# Kinds whose credential is a token, and its name among the credentials that the supply hands out.
_TOKENS = {
    "bearer": "token",
    "oauth2": "access_token",
    "client_credentials": "access_token",
    "password": "access_token",
}


def headers(connection: Connection, token: Token) -> dict[str, str]:
    """The headers that carry the credential, and those that the platform asks for with every call.

    Raises `Rejected` (`no_credentials`) where the vault holds something else than the connection's kind needs.
    """
    return credential_headers(connection, token.credentials) | _platform_headers(connection)


def credential_headers(connection: Connection, credentials: Credentials) -> dict[str, str]:
    """Only the headers that carry the credential: what must not follow a redirect to another host. Raises as `headers`."""
    try:
        match connection.kind:
            case "api_key":
                return {connection.fields["header_name"]: credentials["key"].reveal()}
            case "basic":
                pair = f"{credentials['username'].reveal()}:{credentials['password'].reveal()}"
                return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
            case kind:
                token = credentials[_TOKENS[kind]].reveal()
    except KeyError:
        raise NoCredentials(
            f"the connection {connection.name} has no credentials of its kind, {connection.kind}"
        ) from None
    headers = platforms.load(connection.platform).api_headers
    if headers and headers.TOKEN_HEADER:
        return {headers.TOKEN_HEADER: token}
    return {"Authorization": f"Bearer {token}"}


def _platform_headers(connection: Connection) -> dict[str, str]:
    headers = platforms.load(connection.platform).api_headers
    return headers.call_headers(connection) if headers else {}
