"""Proxied calls: a caller's own request to a connection's API, sent with the connection's credential.

The caller gives the method, a path or URL, headers and a body, and never sees the credential. It is added just before
`http_client` sends the request. Headers that would replace it are refused, and a response that repeats it is withheld.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from datetime import timedelta
from urllib.parse import unquote, urlsplit

from portaria.connections import request_auth
from portaria.connections.connection_store import STATIC_KINDS
from portaria.connections.credential_echoes import Echoes
from portaria.connections.tokens import cache, provider, static_credentials, usability
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import ConnectionRemoved, NeedsReconnect, NotAuthorized, Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.core.redaction import MASK, masked_text
from portaria.outbound import http_client

logger = logging.getLogger(__name__)

# API Gateway waits 29 seconds. The whole call must fit into this time, including the wait for a token.
TIME = timedelta(seconds=20)
FOLLOWED_REDIRECTS = 5
MAX_URL_LENGTH = 8_000
MAX_HEADERS = 50
MAX_HEADER_BYTES = 8_192
MAX_BODY_BYTES = 1_000_000
# Lambda returns at most 6 MB, and the response is JSON within JSON.
MAX_ANSWER_BYTES = 4_000_000

# Headers that identify the caller, which the connection sets, and hop-by-hop headers. Responses are decoded, so the caller
# cannot choose their encoding, and complete, because a part of a credential cannot be recognized.
FORBIDDEN_HEADERS = http_client.FORBIDDEN_HEADERS | {
    *("accept-encoding", "authorization", "date", "from", "if-range", "keep-alive", "max-forwards", "proxy-connection"),
    *("range", "referer", "server", "user-agent", "warning", "www-authenticate"),
}
FORBIDDEN_PREFIXES = (*http_client.FORBIDDEN_PREFIXES, "proxy-", "x-zis-")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")

# Response headers that are not passed on: hop-by-hop headers, those of the decoded encoding, and cookies.
_KEPT_BACK = frozenset(
    {
        *("connection", "content-encoding", "content-length", "keep-alive", "proxy-authenticate", "proxy-connection"),
        *("set-cookie", "set-cookie2", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)

# The members of a connection's credentials that are not secret.
_NO_SECRETS = frozenset({"client", "client_id", "expires_at", "given_at", "scopes", "token_type", "username"})
MAX_PATH_SHOWN = 300


@dataclass(frozen=True)
class Call:
    """A caller's request. `target` is a path that begins with `/`, or a whole URL.

    With `replaces_headers`, the connection's credential replaces the caller's, and another header that the connection sets,
    such as an API version, is used if the caller sends none. Otherwise the caller's are refused.
    """

    method: str
    target: str = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    replaces_headers: bool = False


@dataclass(frozen=True)
class Answered:
    """The response for the caller. `withheld` says why the body is withheld; empty if it is not."""

    response: Response
    withheld: str = ""


def send(token_provider: provider.TokenProvider, connection: Connection, call: Call) -> Answered:
    """Send a call and return its response, of any status, without the credential.

    Raises `Rejected` if the call may not be sent or the connection is not connected, and `Retryable` if no complete
    response came: with `answer_lost` the API may have processed the call.
    """
    ends_at = clock.now() + TIME
    plain = _request(connection, call)
    told = {"connection": connection.name, "method": call.method, **whereabouts(plain.url)}
    secrets: set[str] = set()
    left = False

    def build(token: cache.Token) -> Request:
        nonlocal left
        time_left_s = (ends_at - clock.now()).total_seconds()
        if time_left_s < 1:
            raise Retryable("token_late", "the token could not be renewed in time", after_s=2)
        credential_headers = request_auth.credential_headers(connection, token.credentials)
        headers = _merged(call, request_auth.headers(connection, token), credential_headers)
        secrets.update(secret.reveal() for name, secret in token.credentials.items() if name not in _NO_SECRETS)
        secrets.update(value.rpartition(" ")[2] for value in credential_headers.values())
        left = True
        return with_changes(
            plain,
            headers=headers,
            total_timeout_s=time_left_s,
            credential_headers=tuple(credential_headers),
        )

    try:
        usability.check_usable(connection)
        response = token_provider.send(connection, build, follow_redirects=FOLLOWED_REDIRECTS)
    except Rejected as rejected:
        logger.info("connection_called", extra={**told, "reason": rejected.reason})
        raise with_advice(rejected, connection) from None
    except Retryable as later:
        logger.info("connection_called", extra={**told, "reason": later.reason, "answer_lost": later.answer_lost})
        if later.answer_lost and not left:
            # The answer to a token refresh was lost; the call itself was not sent.
            raise later.replaced(answer_lost=False) from None
        raise
    answered = _shown(response, Echoes(secrets))
    withheld = bool(answered.withheld)
    logger.info("connection_called", extra={**told, "status": response.status, "withheld": withheld})
    return answered


def whereabouts(target: str) -> dict[str, str]:
    """The host (if the target names one) and path of a call, for logs and the audit trail, without its query.

    A part of the path that looks like a credential is masked.
    """
    try:
        parts = urlsplit(target if "://" in target else f"//-{target}")
    except ValueError:
        return {"path": "?"}
    host = parts.hostname or ""
    path = masked_text(unquote(parts.path)).encode("ascii", "backslashreplace").decode()[:MAX_PATH_SHOWN]
    return {"path": path} if host == "-" else {"host": host[:MAX_PATH_SHOWN], "path": path}


def _request(connection: Connection, call: Call) -> Request:
    """The call without its credential, after all checks that do not need it. Raises `Rejected`."""
    if call.body is not None:
        if call.method in ("GET", "HEAD"):
            raise Rejected("body_not_allowed", f"a {call.method} request cannot have a body", field="body")
        if len(call.body) > MAX_BODY_BYTES:
            raise Rejected(
                "body_too_large",
                f"the body may have {MAX_BODY_BYTES:,} bytes; this has {len(call.body):,}",
                field="body",
                status=413,
            )
    _check_headers(call)
    url = call.target
    if call.target.startswith("/"):
        host = connection.allowed_domain
        if host.startswith("*."):
            host = connection.fields.get("host", "")
        if not host:
            detail = f"the allowed_domain is {connection.allowed_domain}, so a path has no host: give a whole URL"
            raise Rejected("url_needed", detail, field="path")
        url = f"https://{host}{call.target}"
    if len(url) > MAX_URL_LENGTH:
        raise Rejected(
            "bad_url", f"the URL may have at most {MAX_URL_LENGTH:,} characters; this one has {len(url):,}", field="url"
        )
    if "#" in url:
        raise Rejected("bad_url", "the URL must not have a fragment (#…)", field="url")
    request = Request(
        call.method,
        url,
        call.headers,
        call.body,
        read_timeout_s=TIME.total_seconds(),
        max_response_bytes=MAX_ANSWER_BYTES,
    )
    http_client.check(request, connection.allowed_domain)
    return request


def _check_headers(call: Call) -> None:
    if len(call.headers) > MAX_HEADERS:
        raise Rejected(
            "too_many_headers",
            f"a call may have at most {MAX_HEADERS} headers; this one has {len(call.headers)}",
            field="headers",
        )
    for name, value in call.headers.items():
        if not _HEADER_NAME.fullmatch(name):
            detail = f"a header's name, of {len(name)} characters, has characters that HTTP does not allow"
            raise Rejected("bad_header", detail, field="headers")
        size = len(name) + len(value)
        if size > MAX_HEADER_BYTES:
            detail = f"a header's name and value may have at most {MAX_HEADER_BYTES:,} bytes together; one has {size:,}"
            raise Rejected("header_too_large", detail, field="headers")
        if not _HEADER_VALUE.fullmatch(value) or value != value.strip():
            detail = f"the header {name} must be printable ASCII without spaces at its beginning or end"
            raise Rejected("bad_header", detail, field="headers")
        if is_forbidden(name):
            raise Rejected("forbidden_header", f"the header {name.lower()} cannot be set by a call", field="headers")
    if len({http_client.canonical(name) for name in call.headers}) < len(call.headers):
        detail = "two headers have the same name, apart from case, hyphens and underscores"
        raise Rejected("bad_header", detail, field="headers")


def is_forbidden(header_name: str) -> bool:
    """Whether a call cannot set this header, under any name that a server takes for it."""
    known_as = http_client.canonical(header_name)
    return known_as in FORBIDDEN_HEADERS or known_as.startswith(FORBIDDEN_PREFIXES)


def _merged(call: Call, applied: dict[str, str], credential: dict[str, str]) -> dict[str, str]:
    """The caller's headers and those that the connection sets. Raises `Rejected` unless the call `replaces_headers`."""
    of_connection = {http_client.canonical(name) for name in applied}
    repeated = next((name for name in call.headers if http_client.canonical(name) in of_connection), "")
    if repeated and not call.replaces_headers:
        detail = f"the connection sets the header {repeated.lower()} itself: leave it out"
        raise Rejected("forbidden_header", detail, field="headers")
    with_credential = {http_client.canonical(name) for name in credential}
    kept = {name: value for name, value in call.headers.items() if http_client.canonical(name) not in with_credential}
    given = {http_client.canonical(name) for name in kept}
    return kept | {name: value for name, value in applied.items() if http_client.canonical(name) not in given}


def with_advice(rejected: Rejected, connection: Connection) -> Rejected:
    """The error with advice on what to do, where the connection cannot be used."""
    at = f"/connections/{connection.name}"
    match rejected:
        case NotAuthorized():
            advice = f"open the link that POST {at}/authorizations returns"
        case ConnectionRemoved():
            advice = "create another connection"
        case NeedsReconnect() if connection.kind in (*STATIC_KINDS, *static_credentials.LOG_IN_KINDS):
            advice = f"replace its credentials with PUT {at}/credentials"
        case NeedsReconnect():
            advice = f"install its application again, or open the link that POST {at}/authorizations returns"
        case _:
            return rejected
    return rejected.replaced(detail=f"{rejected.detail}: {advice}")


def _shown(response: Response, echoes: Echoes) -> Answered:
    """The response as the caller may see it: a header that repeats the credential is masked, such a body is withheld."""
    dropped = _KEPT_BACK | {name.strip().lower() for name in response.headers.get("connection", "").split(",")}
    headers = {
        name: MASK if echoes.are_in(value) else value
        for name, value in response.headers.items()
        if name not in dropped and not echoes.are_in(name)
    }
    withheld = ""
    if echoes.are_in(response.body):
        withheld = "the body is withheld: it contains the connection's credential, or a part of it"
    elif response.body and "content-encoding" in response.headers:
        withheld = "the body is withheld: its encoding was not requested, or it could not be decoded"
    return Answered(Response(response.status, headers, b"" if withheld else response.body), withheld)
