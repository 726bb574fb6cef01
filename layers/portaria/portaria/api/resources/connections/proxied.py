"""The transparent proxy: a request to `/connections/{name}/proxy/{path}` goes to the same path of the connection's API, and one
to `/connections/{name}/proxy` to its root.

Status, headers and body come back as the API sent them, so that a vendor's client library works with another base URL. The
guards are those of `calls`. Headers that a call cannot set are left out here instead of being refused, because client libraries
and API Gateway add them.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from portaria.api.operation import ApiRequest, Reply
from portaria.api.resources.connections import calls
from portaria.connections import connection_store, proxy_call
from portaria.connections.proxy_call import Call
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.request import HttpRequest
from portaria.outbound import http_client

DESCRIPTION = (
    "The request goes to the connection's API with its method, query, headers and body, and with the connection's credential "
    "instead of the caller's. `path` may contain slashes. The response is the API's own; Portaria's has `X-Portaria-Error`."
)
ROOT_DESCRIPTION = f"A greedy path parameter is never empty, so the path `/` has operations of its own. {DESCRIPTION}"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
OWN_PREFIX = "x-portaria-"
# Request headers that CloudFront adds.
_DROPPED_PREFIXES = (OWN_PREFIX, "cloudfront-")
# Response headers that API Gateway sets itself, renames or drops, and those that would apply to Portaria's host.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
_KEPT_BACK = frozenset(
    {
        *(
            "authorization",
            "content-md5",
            "date",
            "expect",
            "host",
            "max-forwards",
            "server",
            "user-agent",
            "via",
            "warn",
        ),
        *("alt-svc", "clear-site-data", "nel", "public-key-pins", "report-to", "reporting-endpoints"),
        *("strict-transport-security", "x-content-type-options"),
    }
)
# What follows the connection's name in a path that has the base path or stage before it.
_BELOW = re.compile(r".*?/v1/+connections/+[^/]+/+proxy(?:/(.*))?", re.DOTALL)
# A path as it was sent keeps its percent-encoding.
_PATH_CHARACTERS = "%/~:@!$&'()*+,;="


@dataclass(frozen=True)
class ProxiedRequest:
    call: Call

    def changes(self) -> bool:
        """Whether it may change something at the API (RFC 9110, 9.2.1)."""
        return self.call.method not in ("GET", "HEAD")

    def audited(self) -> dict[str, Any]:
        """Where it goes, without the query, which may hold anything."""
        return {"method": self.call.method, **proxy_call.whereabouts(self.call.target)}

    def fingerprint(self) -> str:
        return json.dumps([self.call.target, b64encode(self.call.body or b"").decode()])


def read(http: HttpRequest) -> ProxiedRequest:
    """Raises `Rejected` for a body that cannot be decoded, and 413 where it is too large."""
    found = _BELOW.fullmatch(http.path)
    if not found:
        raise Rejected("unknown_path", "this path does not exist in the API", status=404)
    target = "/" + quote(found[1] or "", safe=_PATH_CHARACTERS)
    if http.query:
        target += "?" + urlencode(http.query, doseq=True, quote_via=quote, errors="surrogateescape")
    if http.body is None:
        raise Rejected("bad_body", "the body cannot be decoded", field="body")
    return ProxiedRequest(Call(http.method, target, _headers(http), http.body or None, replaces_headers=True))


def send(asked: ApiRequest) -> Reply:
    """Raises as `calls.call` does."""
    sent: ProxiedRequest = asked.sent
    connection = connection_store.get(asked.context.table, asked.path["name"])
    try:
        answered = proxy_call.send(asked.context.tokens, connection, sent.call)
    except Retryable as later:
        raise calls.what_became(later) from None
    headers = {
        name: value
        for name, value in answered.response.headers.items()
        if name not in _KEPT_BACK and not name.startswith(OWN_PREFIX)
    }
    return Reply(
        {
            "status": answered.response.status,
            "headers": headers,
            "body_base64": b64encode(answered.response.body).decode(),
            "withheld": answered.withheld,
        }
    )


def _headers(http: HttpRequest) -> dict[str, str]:
    """The caller's headers, without those between it and Portaria: its credential, hop-by-hop headers, proxies' headers."""
    hop_by_hop = {name.strip().lower() for name in http.headers.get("connection").split(",")}
    return {
        name: value
        for name, value in http.headers.joined().items()
        if name not in hop_by_hop
        and not proxy_call.is_forbidden(name)
        and not http_client.canonical(name).startswith(_DROPPED_PREFIXES)
    }
