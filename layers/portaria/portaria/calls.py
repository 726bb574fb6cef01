"""The authenticated call: somebody's own request to a connection's API, with the connection's credential applied.

The caller says method, path or URL, headers and body, and never sees the credential: it is put on just before the request
leaves through `egress`, headers that would speak in its place are refused, and an answer that echoes it is masked.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from datetime import timedelta
from urllib.parse import quote, quote_plus

from portaria import authorization, clock, egress, tokens
from portaria.connections import STATIC_KINDS
from portaria.contract import Connection, Rejected, Request, Response, Retryable

# API Gateway waits 29 seconds: everything must fit, the wait for a token included.
TIME = timedelta(seconds=20)
FOLLOWED_REDIRECTS = 5
MAX_URL_LENGTH = 8_000
MAX_HEADERS = 50
MAX_HEADER_BYTES = 8_192
MAX_BODY_BYTES = 1_000_000
# Lambda answers with 6 MB at most, of JSON within JSON.
MAX_ANSWER_BYTES = 4_000_000

# What the connection itself says about who calls, and what belongs to the one connection that HTTP makes. Answers come
# decoded, so their encoding is not the caller's to choose.
FORBIDDEN_HEADERS = egress.FORBIDDEN_HEADERS | {
    *("accept-encoding", "authorization", "date", "from", "keep-alive", "max-forwards", "proxy-connection", "referer"),
    *("server", "user-agent", "warning", "www-authenticate"),
}
FORBIDDEN_PREFIXES = (*egress.FORBIDDEN_PREFIXES, "proxy-", "x-zis-")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")

# Of an answer's headers: those of the one connection, of the encoding that has been undone, and sessions.
_KEPT_BACK = frozenset(
    {
        *("connection", "content-encoding", "content-length", "keep-alive", "proxy-authenticate", "proxy-connection"),
        *("set-cookie", "set-cookie2", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)

# Among a connection's credentials, what may be seen.
_NO_SECRETS = frozenset({"client", "client_id", "expires_at", "given_at", "scopes", "token_type", "username"})
# Shorter ones would mask half of an answer, and hide nothing.
_SHORTEST_MASKED = 4
MASK = "***"


@dataclass(frozen=True)
class Call:
    """What a caller wants sent. `target` is a path that begins with `/`, or a whole URL."""

    method: str
    target: str = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)


def send(supply: tokens.Supply, connection: Connection, call: Call) -> Response:
    """Carry a call and bring its answer, whatever its status, with every echo of the credential masked.

    Raises `Rejected` where the call may not leave or the connection is not connected, and `Retryable` where no whole answer
    came: with `answer_lost` the call may have been carried out.
    """
    ends_at = clock.now() + TIME
    plain = _request(connection, call)
    secrets: set[str] = set()
    left = False

    def build(token: tokens.Token) -> Request:
        nonlocal left
        time_left_s = (ends_at - clock.now()).total_seconds()
        if time_left_s < 1:
            raise Retryable("token_late", "the connection's token came too late for the call to be sent", after_s=2)
        applied = authorization.headers(connection, token)
        _refuse_headers(call, {name.lower() for name in applied})
        credential_headers = authorization.credential_headers(connection, token.credentials)
        secrets.update(secret.reveal() for name, secret in token.credentials.items() if name not in _NO_SECRETS)
        secrets.update(value.rpartition(" ")[2] for value in credential_headers.values())
        left = True
        return with_changes(
            plain,
            headers={**plain.headers, **applied},
            total_timeout_s=time_left_s,
            credential_headers=tuple(credential_headers),
        )

    try:
        tokens.check_usable(connection)
        response = supply.send(connection, build, follow_redirects=FOLLOWED_REDIRECTS)
    except Rejected as rejected:
        raise with_advice(rejected, connection) from None
    except Retryable as later:
        if later.answer_lost and not left:
            # The answer to a renewal of the token was lost, and the call waits for another.
            raise Retryable(later.reason, later.detail, after_s=later.after_s) from None
        raise
    return _masked(response, secrets)


def _request(connection: Connection, call: Call) -> Request:
    """The call without its credential, checked as far as it can be. Raises `Rejected`."""
    if call.body is not None:
        if call.method in ("GET", "HEAD"):
            raise Rejected("body_not_allowed", f"a {call.method} has no body", field="body")
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
            detail = f"this connection covers all of {connection.allowed_domain}: give the whole url, with the host"
            raise Rejected("url_needed", detail, field="path")
        url = f"https://{host}{call.target}"
    if len(url) > MAX_URL_LENGTH:
        raise Rejected("bad_url", f"the URL may have {MAX_URL_LENGTH:,} characters; this has {len(url):,}", field="url")
    if "#" in url:
        raise Rejected("bad_url", "a URL that is called has no fragment (#…)", field="url")
    request = Request(
        call.method,
        url,
        call.headers,
        call.body,
        read_timeout_s=TIME.total_seconds(),
        max_response_bytes=MAX_ANSWER_BYTES,
    )
    egress.check(request, connection.allowed_domain)
    return request


def _check_headers(call: Call) -> None:
    if len(call.headers) > MAX_HEADERS:
        raise Rejected(
            "too_many_headers",
            f"a call may have {MAX_HEADERS} headers; this has {len(call.headers)}",
            field="headers",
        )
    for name, value in call.headers.items():
        if not _HEADER_NAME.fullmatch(name):
            detail = f"a header's name, of {len(name)} characters, holds some that HTTP does not allow"
            raise Rejected("bad_header", detail, field="headers")
        size = len(name) + len(value)
        if size > MAX_HEADER_BYTES:
            detail = f"a header's name and value may have {MAX_HEADER_BYTES:,} bytes; one has {size:,}"
            raise Rejected("header_too_large", detail, field="headers")
        if not _HEADER_VALUE.fullmatch(value) or value != value.strip():
            detail = f"the header {name} may hold printable ASCII, without spaces around it"
            raise Rejected("bad_header", detail, field="headers")
        lowered = name.lower()
        if lowered in FORBIDDEN_HEADERS or lowered.startswith(FORBIDDEN_PREFIXES):
            raise Rejected("forbidden_header", f"the header {lowered} may not be set by a call", field="headers")
    if len({name.lower() for name in call.headers}) < len(call.headers):
        raise Rejected("bad_header", "two of the headers differ only in their letters' case", field="headers")


def _refuse_headers(call: Call, applied: set[str]) -> None:
    """The headers that the connection sets are its own."""
    for name in call.headers:
        if name.lower() in applied:
            detail = f"the connection itself sets the header {name.lower()}"
            raise Rejected("forbidden_header", detail, field="headers")


def with_advice(rejected: Rejected, connection: Connection) -> Rejected:
    """A connection that cannot be used says what to do about it."""
    at = f"/connections/{connection.name}"
    advice = {
        "not_authorised": f"open the link that GET {at}/authorize gives",
        "connection_removed": "make another connection",
        "needs_reconnect": f"hand in new credentials with PUT {at}"
        if connection.kind in (*STATIC_KINDS, *tokens.LOG_IN_KINDS)
        else f"install its application again, or open the link that GET {at}/authorize gives",
    }.get(rejected.reason)
    if not advice:
        return rejected
    return Rejected(rejected.reason, f"{rejected.detail}: {advice}", field=rejected.field, status=rejected.status)


def _masked(response: Response, secrets: set[str]) -> Response:
    forms = {form for secret in secrets if len(secret) >= _SHORTEST_MASKED for form in _forms(secret)}
    longest_first = sorted(forms, key=len, reverse=True)
    dropped = _KEPT_BACK | {name.strip().lower() for name in response.headers.get("connection", "").split(",")}
    headers = {name: value for name, value in response.headers.items() if name not in dropped}
    body = response.body
    for form in longest_first:
        body = body.replace(form.encode(), MASK.encode())
        headers = {name: value.replace(form, MASK) for name, value in headers.items()}
    return Response(response.status, headers, body)


def _forms(secret: str) -> set[str]:
    """A secret as an answer may quote it: as it is, in JSON, in a URL, in HTML."""
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    in_url = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    return {
        secret,
        *in_json,
        *(text.replace("/", "\\/") for text in in_json),
        *in_url,
        *(re.sub(r"%[0-9A-F]{2}", lambda escape: escape[0].lower(), text) for text in in_url),
        html.escape(secret),
        html.escape(secret, quote=False),
    }
