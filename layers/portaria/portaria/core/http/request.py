"""HTTP requests as Lambda receives them, parsed once.

Two shapes of event are read: API Gateway's REST proxy events, and payload format 2.0 of function URLs and HTTP APIs. In format
2.0 a repeated header or query parameter arrives joined with commas, so its query is read from `rawQueryString`; cookies are not
among its headers.

https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html

This module is on the webhooks' cold path: the standard library only, and no dataclasses.
"""

from __future__ import annotations

import base64
import time

from portaria.core.cold_path.named_tuples import NamedTuple
from portaria.core.error_roots import Rejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A longer time between API Gateway and this process means that their clocks disagree.
MAX_ELAPSED_S = 10.0


class Headers:
    """Header values by name, whatever the case of the name."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, list[str]]) -> None:
        """A name may occur several times in different cases."""
        found: dict[str, list[str]] = {}
        for name, several in values.items():
            if several:
                found.setdefault(name.lower(), []).extend(several)
        self._values = found

    def values(self, name: str) -> list[str]:
        """Every value of a header, in the order of arrival. Format 2.0 has joined them already."""
        return self._values.get(name.lower(), [])

    def get(self, name: str) -> str:
        """All values of a header, joined as RFC 9110, 5.3, allows; empty if the header is missing."""
        return ", ".join(self.values(name))

    def once(self, name: str) -> str:
        """The value of a header that may be sent once, without surrounding spaces. Raises `Rejected` (`header_repeated`)."""
        values = self.values(name)
        if len(values) > 1:
            raise Rejected(
                "header_repeated", f"the header {name} was sent {len(values)} times: send it once", field=name
            )
        return values[0].strip() if values else ""

    def joined(self) -> dict[str, str]:
        """All headers by name in lower case, repeated ones joined."""
        return {name: ", ".join(several) for name, several in self._values.items()}


class HttpRequest(NamedTuple):
    """One HTTP request.

    `resource` is the route that API Gateway matched (`/install/{platform}/{client}`), empty for a function URL, which has none.
    `path` is percent-encoded, as the caller sent it, with a stage or base path. `query` holds every value of each parameter,
    decoded; bytes that are not UTF-8 are surrogate escapes. `body` is None if the event's body cannot be decoded, and empty
    where the request has none. `source_address` is the address that AWS saw, not one that a header claims. `received_at`
    (epoch seconds) is 0 where the event has no time. `host` is the domain name that was called, `api_id` the REST API's id, and
    `principal` the ARN of the AWS principal that API Gateway authenticated; each is empty if the event has none. `session`
    names the console session behind the call where the console has invoked the function. No client can set it: API Gateway
    makes the event's context itself.

    The representation omits everything that may hold a secret.
    """

    method: str
    resource: str
    path: str
    path_parameters: dict[str, str]
    query: dict[str, list[str]]
    headers: Headers
    cookies: dict[str, list[str]]
    body: bytes | None
    source_address: str
    request_id: str
    received_at: float
    host: str
    api_id: str
    principal: str
    session: str = ""

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> HttpRequest:
        """Never raises: a member that is missing or malformed is empty."""
        context = _object(event.get("requestContext"))
        if event.get("version") == "2.0":
            http = _object(context.get("http"))
            joined = {name: [str(value)] for name, value in _object(event.get("headers")).items()}
            return cls(
                method=_text(http.get("method")),
                resource=_text(event.get("routeKey")).partition(" ")[2],
                path=_text(event.get("rawPath")),
                path_parameters=_texts(event.get("pathParameters")),
                query=_parse_query(_text(event.get("rawQueryString"))),
                headers=Headers(joined),
                cookies=_parse_cookies(_list(event.get("cookies"))),
                body=_decode_body(event),
                source_address=_text(http.get("sourceIp")),
                request_id=_text(context.get("requestId")),
                received_at=_seconds(context.get("timeEpoch")),
                host=_text(context.get("domainName")),
                api_id=_text(context.get("apiId")),
                principal="",
            )
        headers = Headers({name: _list(several) for name, several in _object(event.get("multiValueHeaders")).items()})
        query = _object(event.get("multiValueQueryStringParameters"))
        identity = _object(context.get("identity"))
        return cls(
            method=_text(event.get("httpMethod")),
            resource=_text(event.get("resource")),
            path=_text(context.get("path") or event.get("path")),
            path_parameters=_texts(event.get("pathParameters")),
            query={name: _list(several) for name, several in query.items()},
            headers=headers,
            cookies=_parse_cookies(headers.values("cookie")),
            body=_decode_body(event),
            source_address=_text(identity.get("sourceIp")),
            request_id=_text(context.get("requestId")),
            received_at=_seconds(context.get("requestTimeEpoch")),
            host=_text(context.get("domainName")),
            api_id=_text(context.get("apiId")),
            principal=_text(identity.get("userArn") or identity.get("caller")),
            session=_text(context.get("consoleSession")),
        )

    def matched(self, route: str) -> HttpRequest:
        """This request with the path parameters of `route` (`/events/{platform}`), if AWS matched no route and the path fits.

        Values stay percent-encoded. A function URL matches no route: its events have no path parameters.
        """
        if self.resource:
            return self
        names, steps = route.strip("/").split("/"), self.path.strip("/").split("/")
        if len(names) != len(steps):
            return self
        found: dict[str, str] = {}
        for name, step in zip(names, steps, strict=True):
            if name.startswith("{"):
                found[name[1:-1]] = step
            elif name != step:
                return self
        return self._replace(resource=route, path_parameters=found)

    def elapsed_s(self) -> float:
        """Seconds since AWS received the request, a cold start included; 0 where the two clocks disagree."""
        elapsed_s = time.time() - self.received_at
        return elapsed_s if 0 < elapsed_s < MAX_ELAPSED_S else 0.0

    def path_parameter(self, name: str) -> str:
        """Empty where the route has no such parameter."""
        return self.path_parameters.get(name, "")

    def cookie(self, name: str) -> str:
        """The value of a cookie; empty if it is missing or was sent more than once."""
        values = self.cookies.get(name, [])
        return values[0] if len(values) == 1 else ""

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.resource}, request_id={self.request_id})"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return str(value) if value else ""


def _texts(value: Any) -> dict[str, str]:
    return {name: str(text) for name, text in _object(value).items()}


def _seconds(milliseconds: Any) -> float:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) else 0.0


def _parse_query(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if text:
        from urllib.parse import parse_qsl  # noqa: PLC0415 - REST proxy events, which webhooks arrive as, need no parsing

        for name, value in parse_qsl(text, keep_blank_values=True, errors="surrogateescape"):
            found.setdefault(name, []).append(value)
    return found


def _parse_cookies(texts: list[str]) -> dict[str, list[str]]:
    """Commas separate cookies too: several `Cookie` headers may have been joined with them, and no value holds one."""
    found: dict[str, list[str]] = {}
    for text in texts:
        for pair in text.replace(",", ";").split(";"):
            name, equals, value = pair.partition("=")
            if equals:
                found.setdefault(name.strip(), []).append(value.strip())
    return found


def _decode_body(event: dict[str, Any]) -> bytes | None:
    text = _text(event.get("body"))
    try:
        return base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode()
    except ValueError:
        return None
