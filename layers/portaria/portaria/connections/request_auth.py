"""Adding a connection's credentials to a request: only in headers, which the connection's kind decides.

RFC 6750 (bearer tokens), RFC 7617 (basic authentication, in UTF-8). A platform whose API needs other headers, such as a
version, has `api_headers`: `call_headers`, and `TOKEN_HEADER` if the bare token belongs in another header.
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

# Kinds whose credential is a token, and its name among the credentials that the token provider returns.
_TOKENS = {
    "bearer": "token",
    "oauth2": "access_token",
    "client_credentials": "access_token",
    "password": "access_token",
}


def headers(connection: Connection, token: Token) -> dict[str, str]:
    """The headers with the credential, and those that the platform needs with every request.

    Raises `Rejected` (`no_credentials`) if the vault lacks a credential that the connection's kind needs.
    """
    return credential_headers(connection, token.credentials) | _platform_headers(connection)


def credential_headers(connection: Connection, credentials: Credentials) -> dict[str, str]:
    """Only the headers with the credential, which must not follow a redirect to another host. Raises as `headers`."""
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
