"""Authenticated calls: what is sent, what is returned, and what is refused before anything is sent."""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import requests
import responses
import trustme

from portaria.access import audit
from portaria.api.resources.connections import calls as shown
from portaria.aws import service_clients
from portaria.connections import proxy_call
from portaria.connections.tokens.provider import TokenProvider
from portaria.core import clock
from portaria.core.errors import AnswerLost, AnswerTooLarge, Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client, http_exchange
from tests.fakes.api.calling import CREDENTIALS, HOST, KEY, Calling
from tests.fakes.api.manage import REQUEST_ID, proxy_event, read
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import TABLE, cloud
from tests.fakes.internet import ADDRESS, OK, Server, answering, internet, redirect

URL = f"https://{HOST}/v1/things"


@pytest.fixture(scope="module")
def calling() -> Iterator[Calling]:
    with cloud() as stack:
        calling = Calling(stack)
        calling.connect("keyed")
        calling.connect("everywhere", allowed_domain="*.example.com")
        for kind in ("basic", "bearer", "oauth2"):
            calling.connect(kind, kind)
        calling.connect("hosted", "bearer", allowed_domain="*.example.com", fields={"host": "eu.example.com"})
        calling.connect("astray", "bearer", allowed_domain="*.example.com", fields={"host": "evil.example"})
        yield calling


@pytest.fixture
def api() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def sent(api: responses.RequestsMock, number: int = -1) -> requests.PreparedRequest:
    request = api.calls[number].request
    assert isinstance(request, requests.PreparedRequest)
    return request


# ----------------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("name", "header", "value"),
    [
        ("keyed", "X-Api-Key", KEY),
        ("basic", "Authorization", f"Basic {b64encode(b'someone:canary-password').decode()}"),
        ("bearer", "Authorization", "Bearer canary-token"),
        ("oauth2", "Authorization", "Bearer canary-access"),
    ],
)
def test_call_connection_credential_is_applied_by_its_kind(
    calling: Calling, api: responses.RequestsMock, name: str, header: str, value: str
) -> None:
    api.get(URL, body="fine")
    answer = calling.call({"method": "GET", "path": "/v1/things"}, name)
    assert (answer.status, answer.content["body"]) == (200, "fine")
    assert sent(api).headers[header] == value


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_call_connection_every_method_is_sent(calling: Calling, api: responses.RequestsMock, method: str) -> None:
    api.add(method, URL, status=202)
    assert calling.call({"method": method, "path": "/v1/things"}).content["status"] == 202
    assert sent(api).method == method


def test_call_connection_url_and_query_are_combined(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(URL)
    calling.call({"method": "GET", "url": f"{URL}?a=1", "query": {"b": "x y&z", "ü": ["1", "2"]}})
    assert sent(api).url == f"{URL}?a=1&b=x+y%26z&%C3%BC=1&%C3%BC=2"
    calling.call({"method": "GET", "path": "/v1/things", "query": {"limit": "5"}})
    assert sent(api).url == f"{URL}?limit=5"


@pytest.mark.parametrize(
    ("body", "bytes_sent", "content_type"),
    [
        ({"json": {"a": ["ü", None, 1.5]}}, '{"a": ["ü", null, 1.5]}'.encode(), "application/json"),
        ({"json": None}, b"null", "application/json"),
        ({"json": [], "headers": {"content-type": "application/vnd.api+json"}}, b"[]", "application/vnd.api+json"),
        ({"body": "text ü"}, "text ü".encode(), None),
        ({"body": ""}, b"", None),
        ({"body_base64": "AP/+"}, b"\x00\xff\xfe", None),
        ({}, None, None),
    ],
)
def test_call_connection_body_is_sent_as_given(
    calling: Calling, api: responses.RequestsMock, body: dict[str, Any], bytes_sent: bytes | None, content_type: str | None
) -> None:  # fmt: skip
    api.post(URL)
    assert calling.call({"method": "POST", "path": "/v1/things", **body}).status == 200
    assert (sent(api).body or None) == (bytes_sent or None)
    assert sent(api).headers.get("Content-Type") == content_type


def test_call_connection_caller_headers_are_sent(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(URL)
    headers = {"Accept": "text/csv", "If-Match": '"7"', "Idempotency-Key": "a b", "Prefer": ""}
    assert calling.call({"method": "GET", "path": "/v1/things", "headers": headers}).status == 200
    assert headers.items() <= dict(sent(api).headers).items()
    assert sent(api).headers["User-Agent"] == http_exchange.USER_AGENT


def test_call_connection_wildcard_domain_requires_url_or_default_host(
    calling: Calling, api: responses.RequestsMock
) -> None:
    api.get("https://files.example.com/x")
    api.get("https://eu.example.com/x")
    refused = calling.call({"method": "GET", "path": "/x"}, "everywhere")
    assert (refused.status, refused.content["field"]) == (400, "path")
    assert "give a whole URL" in refused.content["detail"]
    assert len(api.calls) == 0
    assert calling.call({"method": "GET", "url": "https://files.example.com/x"}, "everywhere").status == 200
    assert calling.call({"method": "GET", "path": "/x"}, "hosted").status == 200
    assert sent(api).url == "https://eu.example.com/x"
    assert calling.call({"method": "GET", "path": "/x"}, "astray").content["type"].endswith(":host_not_allowed")


def test_call_connection_slow_token_leaves_rest_of_twenty_seconds(
    calling: Calling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a token that took time to obtain, then the request has the rest of the deadline."""
    requested: list[Request] = []
    supply_token, now = TokenProvider.token, clock.now
    waited = timedelta(0)

    def late_token(self: TokenProvider, connection: Any) -> Any:
        nonlocal waited
        token = supply_token(self, connection)
        waited += timedelta(seconds=8)
        return token

    def send(request: Request, **_: Any) -> Response:
        requested.append(request)
        return Response(200, {}, b"")

    monkeypatch.setattr(TokenProvider, "token", late_token)
    monkeypatch.setattr(clock, "now", lambda: now() + waited)
    monkeypatch.setattr(http_client, "send", send)
    assert calling.call({"method": "GET", "path": "/v1/things"}).status == 200
    (request,) = requested
    assert request.total_timeout_s is not None
    assert 11 < request.total_timeout_s <= 12
    assert request.max_response_bytes == proxy_call.MAX_ANSWER_BYTES
    assert request.credential_headers == ("X-Api-Key",)


# -------------------------------------------------------------------------------------------------------------- responses


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 429, 500, 503])
def test_call_connection_answer_of_any_status_is_passed_on(
    calling: Calling, api: responses.RequestsMock, status: int
) -> None:
    said = "" if status == 204 else "said"
    api.get(URL, status=status, body=said, headers={"X-Request-Id": "7"})
    answer = calling.call({"method": "GET", "path": "/v1/things"})
    assert answer.status == 200
    assert (answer.content["status"], answer.content["body"]) == (status, said or None)
    assert answer.content["headers"]["x-request-id"] == "7"


def test_call_connection_binary_answer_is_returned_in_base64(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(URL, body=b"\x89PNG\xff", content_type="image/png")
    content = calling.call({"method": "GET", "path": "/v1/things"}).content
    assert b64decode(content["body_base64"]) == b"\x89PNG\xff"
    assert content["body"] is None


def test_call_connection_session_and_hop_by_hop_headers_are_removed(
    calling: Calling, api: responses.RequestsMock
) -> None:
    kept_back = {name: "canary" for name in sorted(proxy_call._KEPT_BACK - {"content-encoding", "content-length"})}
    api.get(URL, headers={**kept_back, "Connection": "close, X-Hop", "X-Hop": "canary", "ETag": '"7"'})
    headers = calling.call({"method": "GET", "path": "/v1/things"}).content["headers"]
    assert set(headers) == {"content-type", "etag", "date"}


@pytest.mark.parametrize(
    "echo",
    [
        KEY,
        f'{{"sent": {{"X-Api-Key": "{KEY}"}}}}',
        KEY.replace("/", "\\/"),
        KEY.replace("+", "\\u002B"),
        KEY.replace("/", "&#x2F;"),
        "canary-key%2Fwith%2Bsigns",
        "canary-key%252fwith%252bsigns",
        b64encode(b"x" + KEY.encode()).decode(),
        KEY.encode().hex(),
        json.dumps(json.dumps({"key": KEY})),
    ],
)
def test_call_connection_body_that_repeats_key_is_withheld(
    calling: Calling, api: responses.RequestsMock, echo: str
) -> None:
    """Given an API that echoes its request, then the caller does not receive the credential, and is told why."""
    api.get(URL, body=f"you sent {echo}.", headers={"X-Echo": echo, "X-Other": "kept"}, status=418)
    content = calling.call({"method": "GET", "path": "/v1/things"}).content
    assert echo not in json.dumps(content)
    assert "canary" not in json.dumps(content)
    assert (content["status"], content["body"]) == (418, None)
    assert "contains the connection's credential" in content["withheld"]
    assert content["headers"]["x-echo"] == "***"
    assert content["headers"]["x-other"] == "kept"


def test_call_connection_header_name_that_repeats_key_is_removed(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(URL, body="fine", headers={f"X-{KEY.encode().hex()}": "yes"})
    content = calling.call({"method": "GET", "path": "/v1/things"}).content
    assert content["body"] == "fine"
    assert content["withheld"] is None
    assert KEY.encode().hex() not in json.dumps(content)


@pytest.mark.parametrize("name", ["basic", "bearer", "oauth2"])
def test_call_connection_body_that_repeats_any_credential_is_withheld(
    calling: Calling, api: responses.RequestsMock, name: str
) -> None:
    secrets = [text for text in CREDENTIALS[name].values() if "canary" in text]
    pair = b64encode(b"someone:canary-password").decode()
    for told in [*secrets, *([f"Basic {pair}"] if name == "basic" else [])]:
        api.upsert(responses.GET, URL, body=f"sent: {told}")
        assert "withheld" in calling.call({"method": "GET", "path": "/v1/things"}, name).content
    # Fields that are not secret are returned.
    api.upsert(responses.GET, URL, body="someone bearer 2099-01-01")
    content = calling.call({"method": "GET", "path": "/v1/things"}, name).content
    assert content["body"] == "someone bearer 2099-01-01"


@pytest.mark.parametrize("body", [b"\xffcanary-key/with+signs\xff", b"\xff" + KEY.encode() * 3, KEY.encode("utf-16")])
def test_call_connection_binary_body_that_repeats_key_is_withheld(
    calling: Calling, api: responses.RequestsMock, body: bytes
) -> None:
    api.get(URL, body=body)
    content = calling.call({"method": "GET", "path": "/v1/things"}).content
    assert content["body"] is None
    assert content["withheld"]


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip"])
def test_call_connection_undecodable_body_is_withheld(
    calling: Calling, api: responses.RequestsMock, coding: str
) -> None:
    """A body in an unrequested encoding, or a truncated one, cannot be searched for credentials."""
    api.get(URL, body=b"\x1f\x8b\x08cut", headers={"Content-Encoding": coding}, auto_calculate_content_length=True)
    content = calling.call({"method": "GET", "path": "/v1/things"}).content
    assert (content["status"], content["body"]) == (200, None)
    assert "encoding" in content["withheld"]


@pytest.mark.parametrize(("size", "status"), [(4_000_000, 200), (4_000_001, 502)])
def test_call_connection_answer_over_4000000_bytes_is_refused(
    calling: Calling, api: responses.RequestsMock, size: int, status: int
) -> None:
    api.get(URL, body=b"\xff" * size)
    answer = calling.call({"method": "GET", "path": "/v1/things"})
    assert answer.status == status
    if status == 200:
        assert b64decode(answer.content["body_base64"]) == b"\xff" * size
    else:
        assert answer.content["type"] == "urn:portaria:problem:answer_too_large"


@pytest.mark.parametrize("text", ['"' * 3_900_000, "\x01" * 3_900_000, "ü" * 1_950_000])
def test_show_call_answer_text_that_grows_when_escaped_is_in_base64(text: str) -> None:
    """Given text that is escaped twice, as JSON in JSON, then the response still fits into Lambda's 6 MB."""
    content = shown.show(proxy_call.Answered(Response(200, {}, text.encode())))
    assert b64decode(content["body_base64"]) == text.encode()
    assert len(json.dumps({"body": json.dumps(content)})) < 6_291_556


def test_show_call_answer_headers_too_large_are_refused() -> None:
    with pytest.raises(Rejected, match="answer_too_large"):
        shown.show(proxy_call.Answered(Response(200, {"x": '"' * 4_000_000}, b"")))


# ----------------------------------------------------------------------------------------------------------------- refusals


def refused(calling: Calling, body: Any, name: str = "keyed") -> dict[str, Any]:
    """A call that is refused before a name is looked up or an address dialled."""
    with internet() as outside:
        answer = calling.call(body, name)
    assert (outside.looked_up, outside.dialled) == ([], [])
    assert 400 <= answer.status < 500
    return answer.content


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "name",
    [
        *sorted(proxy_call.FORBIDDEN_HEADERS), "Authorization", "AUTHORIZATION", "HOST", "Cookie", "X-Amz-Security-Token",
        "X-Amzn-Trace-Id", "X-Forwarded-For", "X-Forwarded-Host", "X-Zis-Anything", "Proxy-Anything", "Transfer-Encoding",
        "X-Api-Key", "x-api-key", "X-API-KEY", "X_Api_Key", "X_Forwarded_For", "Transfer_Encoding", "If_Range",
    ],
)  # fmt: skip
def test_call_connection_forbidden_header_is_refused_by_name(calling: Calling, name: str) -> None:
    content = refused(calling, {"method": "GET", "path": "/", "headers": {name: "canary"}})
    assert content["type"] == "urn:portaria:problem:forbidden_header"
    assert name.lower() in content["detail"]


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", "canary\r\nHost", "a\n", "ä", "(a)", "a\x00", "canary, b", "\u212aey"]
)
def test_call_connection_invalid_header_name_is_refused(calling: Calling, name: str) -> None:
    assert refused(calling, {"method": "GET", "path": "/", "headers": {name: "x"}})["field"] == "headers"


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "value",
    [
        "canary\r\nHost: evil.example", "a\n", "\r", "a\x00b", "\x7f", "ä", "\u2028", "\x1b[0m", "a\r\n\r\nGET / HTTP/1.1",
        " a", "a ", "\ta", "\u560a\u560d", "a\x85b",
    ],
)  # fmt: skip
def test_call_connection_header_value_with_control_character_is_refused(calling: Calling, value: str) -> None:
    content = refused(calling, {"method": "GET", "path": "/", "headers": {"X-Good": value}})
    assert (content["type"], content["field"]) == ("urn:portaria:problem:bad_header", "headers")
    assert "X-Good" in content["detail"]


@pytest.mark.parametrize(("count", "status"), [(50, 200), (51, 400)])
def test_call_connection_more_than_50_headers_are_refused(
    calling: Calling, api: responses.RequestsMock, count: int, status: int
) -> None:
    api.get(URL)
    headers = {f"x-{number}": "y" for number in range(count)}
    assert calling.call({"method": "GET", "path": "/v1/things", "headers": headers}).status == status


@pytest.mark.parametrize(("size", "status"), [(8_192, 200), (8_193, 400)])
def test_call_connection_header_over_8192_bytes_is_refused(
    calling: Calling, api: responses.RequestsMock, size: int, status: int
) -> None:
    api.get(URL)
    answer = calling.call({"method": "GET", "path": "/v1/things", "headers": {"x": "y" * (size - 1)}})
    assert answer.status == status


@pytest.mark.parametrize(("size", "status"), [(1_000_000, 200), (1_000_001, 413)])
@pytest.mark.parametrize("how", ["body", "body_base64", "json"])
def test_call_connection_body_over_1000000_bytes_is_refused(
    calling: Calling, api: responses.RequestsMock, how: str, size: int, status: int
) -> None:
    api.post(URL)
    body = {"body": "\n" * size, "body_base64": b64encode(bytes(size)).decode(), "json": "y" * (size - 2)}[how]
    answer = calling.call({"method": "POST", "path": "/v1/things", how: body})
    assert answer.status == status
    assert len(api.calls) == (status == 200)


@pytest.mark.enable_socket
def test_call_connection_request_over_total_size_is_refused(calling: Calling) -> None:
    assert refused(calling, {"method": "POST", "path": "/", "body": "x" * 2_100_001})["status"] == 413


@pytest.mark.enable_socket
@pytest.mark.parametrize(("length", "good"), [(8_000, True), (8_001, False)])
def test_call_connection_url_over_8000_characters_is_refused(calling: Calling, length: int, good: bool) -> None:
    path = "/" + "x" * (length - len(f"https://{HOST}/"))
    if good:
        with responses.RequestsMock() as mock:
            mock.get(f"https://{HOST}{path}")
            assert calling.call({"method": "GET", "path": path}).status == 200
    else:
        assert refused(calling, {"method": "GET", "path": path})["field"] == "url"


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "method"),
        ({"method": "GET"}, "path"),
        ({"method": "GET", "path": "/", "url": URL}, "path"),
        ({"method": "get", "path": "/"}, "method"),
        ({"method": "CONNECT", "path": "/"}, "method"),
        ({"method": "TRACE", "path": "/"}, "method"),
        ({"method": "GET /\r\nHost: evil.example\r\n", "path": "/"}, "method"),
        ({"method": 1, "path": "/"}, "method"),
        ({"method": "GET", "path": 1}, "path"),
        ({"method": "GET", "path": ""}, "path"),
        ({"method": "GET", "path": "v1/things"}, "path"),
        ({"method": "GET", "path": URL}, "path"),
        ({"method": "GET", "url": "/v1/things"}, "url"),
        ({"method": "GET", "url": "//api.example.com/"}, "url"),
        ({"method": "GET", "path": "/#part"}, "url"),
        ({"method": "GET", "path": "/", "body": "x"}, "body"),
        ({"method": "HEAD", "path": "/", "json": {}}, "body"),
        ({"method": "POST", "path": "/", "body": "x", "json": {}}, "body"),
        ({"method": "POST", "path": "/", "body": "x", "body_base64": "eA=="}, "body"),
        ({"method": "POST", "path": "/", "body_base64": "canary!"}, "body_base64"),
        ({"method": "POST", "path": "/", "body_base64": "ä"}, "body_base64"),
        ({"method": "POST", "path": "/", "body": {"a": 1}}, "body"),
        ({"method": "POST", "path": "/", "json": "\ud800"}, "json"),
        ({"method": "POST", "path": "/", "query": {"a": 1}}, "query.a"),
        ({"method": "POST", "path": "/", "query": {"a": [1]}}, "query.a.0"),
        ({"method": "POST", "path": "/", "headers": {"a": 1}}, "headers.a"),
        ({"method": "POST", "path": "/", "headers": []}, "headers"),
        ({"method": "GET", "path": "/", "headers": {"X-A": "1", "x-a": "2"}}, "headers"),
        ({"method": "GET", "path": "/", "follow": True}, "follow"),
        ({"method": "GET", "path": "/", "content": {}}, "content"),
    ],
)
def test_call_connection_invalid_body_is_refused_by_field(calling: Calling, body: dict[str, Any], field: str) -> None:
    assert refused(calling, body)["field"] == field


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "body", ["", "null", "[]", "{", '{"method": "GET", "method": "POST"}', '{"json": NaN}', '{"a":' * 100_000]
)
def test_call_connection_body_not_a_json_object_is_refused(calling: Calling, body: str) -> None:
    assert refused(calling, body)["type"] == "urn:portaria:problem:bad_json"


@pytest.mark.enable_socket
def test_call_connection_number_outside_json_range_is_refused(calling: Calling) -> None:
    assert refused(calling, '{"method": "POST", "path": "/", "json": 1e999}')["field"] == "json"


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("state", "kind", "reason", "advice"),
    [
        ("pending", "oauth2", "not_authorised", "/connections/{name}/authorizations"),
        ("removed", "bearer", "connection_removed", "create another connection"),
        ("needs_reconnect", "oauth2", "needs_reconnect", "/connections/{name}/authorizations"),
        ("needs_reconnect", "bearer", "needs_reconnect", "PUT /connections/{name}/credentials"),
    ],
)
def test_call_connection_unusable_connection_is_refused_with_advice(
    calling: Calling, state: str, kind: str, reason: str, advice: str
) -> None:
    name = f"{kind}-{state}"
    calling.connect(name, kind, state=state)
    content = refused(calling, {"method": "GET", "path": "/"}, name)
    assert (content["status"], content["type"]) == (409, f"urn:portaria:problem:{reason}")
    assert advice.format(name=name) in content["detail"]


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    "url", ["https://evil.example/", "http://api.example.com/", "https://api.example.com@evil.example/"]
)
def test_call_connection_forbidden_url_is_refused_without_token_request(calling: Calling, url: str) -> None:
    """Given a token that is due for renewal, then a hostile call does not start it."""
    with patch.object(TokenProvider, "token", side_effect=AssertionError("a token was asked for")):
        assert refused(calling, {"method": "GET", "url": url})["field"] == "url"


@pytest.mark.enable_socket
def test_call_connection_unknown_connection_is_not_found(calling: Calling) -> None:
    assert refused(calling, {"method": "GET", "path": "/"}, "nobody")["status"] == 404
    assert refused(calling, {"method": "GET", "path": "/"}, "x" * 400)["status"] == 404


# ---------------------------------------------------------------------------------------------------------------- outcomes


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (requests.exceptions.ReadTimeout("canary"), 504, "the request may have been processed"),
        (requests.exceptions.ConnectionError("canary"), 504, "the request may have been processed"),
        (requests.exceptions.ChunkedEncodingError("canary"), 504, "the request may have been processed"),
        (requests.exceptions.ConnectTimeout("canary"), 502, "nothing was sent"),
        (requests.exceptions.ProxyError("canary"), 502, "nothing was sent"),
    ],
)
def test_call_connection_lost_answer_says_whether_request_may_be_processed(
    calling: Calling, api: responses.RequestsMock, error: Exception, status: int, says: str
) -> None:
    api.post(URL, body=error)
    answer = calling.call({"method": "POST", "path": "/v1/things"})
    assert answer.status == status
    assert says in answer.content["detail"]
    # A caller that repeats a call which may have been processed does so at its own risk.
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize(
    "error",
    [
        Retryable("renewal_in_progress", "another worker renews the token", after_s=7),
        Retryable("vault_unavailable", "the vault did not answer", after_s=7),
        AnswerLost("the answer to a renewal was lost", after_s=7),
    ],
)
def test_call_connection_without_token_answers_503_and_sends_nothing(calling: Calling, error: Retryable) -> None:
    """Given a token that cannot be obtained now, even because its response was lost, then the call was not sent."""
    with patch.object(TokenProvider, "token", side_effect=error):
        answer = calling.call({"method": "POST", "path": "/v1/things"})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
    assert "the request was not sent" in answer.content["detail"]


def test_call_connection_token_too_late_answers_503_and_sends_nothing(
    calling: Calling, api: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, supply_token = clock.now, TokenProvider.token
    waited = timedelta(0)

    def late_token(self: TokenProvider, connection: Any) -> Any:
        nonlocal waited
        waited = timedelta(seconds=19.5)
        return supply_token(self, connection)

    monkeypatch.setattr(TokenProvider, "token", late_token)
    monkeypatch.setattr(clock, "now", lambda: now() + waited)
    assert calling.call({"method": "POST", "path": "/v1/things"}).status == 503
    assert len(api.calls) == 0


def test_call_connection_unexpected_error_is_answered_without_its_text(calling: Calling) -> None:
    with patch.object(http_client, "send", side_effect=RuntimeError(KEY)):
        answer = calling.call({"method": "POST", "path": "/v1/things"})
    assert answer.status == 500
    assert REQUEST_ID in answer.content["detail"]


# ---------------------------------------------------------------------------------------------------------------- audit log


def entries(calling: Calling) -> list[audit.Entry]:
    found, _ = audit.list_page(calling.cloud.table, None, 100)
    return found


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_call_connection_write_method_has_audit_entry(
    calling: Calling, api: responses.RequestsMock, method: str
) -> None:
    before = len(entries(calling))
    api.add(method, URL, status=404)
    calling.call({"method": method, "url": f"{URL}?token=canary", "body": "canary" if method == "POST" else None})
    entry = entries(calling)[0]
    assert len(entries(calling)) == before + 1
    assert (entry.operation, entry.target, entry.outcome) == ("call_connection", "keyed", "done")
    assert entry.by.startswith("arn:aws:iam::")
    assert entry.asked == {"method": method, "host": HOST, "path": "/v1/things"}


@pytest.mark.parametrize(
    ("path", "body", "operation", "asked"),
    [
        ("contacts", {"contacts": [{"email": "canary@example.com"}]}, "upsert_contacts",
         {"contacts": 1, "overwrite_tags": False}),
        ("identifiers", {"users": [{"user_login": "canary", "identifier": "canary-1"}]}, "register_identifiers", {"users": 1}),
    ],
)  # fmt: skip
def test_call_connection_function_write_has_audit_entry_without_data(
    calling: Calling, path: str, body: dict[str, Any], operation: str, asked: dict[str, Any]
) -> None:
    event = proxy_event("POST", f"/connections/keyed/{path}", body)
    assert read(event, calling.module.handler(event, functions.Context())).status == 409
    entry = entries(calling)[0]
    assert (entry.operation, entry.outcome, entry.asked) == (operation, "refused", asked)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_call_connection_read_method_has_no_audit_entry(
    calling: Calling, api: responses.RequestsMock, method: str
) -> None:
    before = len(entries(calling))
    api.add(method, URL)
    calling.call({"method": method, "path": "/v1/things"})
    assert len(entries(calling)) == before


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (AnswerLost("it gave no answer"), "failed"),
        (AnswerTooLarge("too large"), "failed"),
        (Rejected("host_not_allowed", "not there"), "refused"),
    ],
)
def test_call_connection_lost_answer_is_audited_as_failed_not_refused(
    calling: Calling, error: Exception, outcome: str
) -> None:
    """Given a call that may have been processed, then its audit entry does not say that nothing was changed."""
    with patch.object(http_client, "send", side_effect=error):
        calling.call({"method": "POST", "path": "/v1/things"})
    assert entries(calling)[0].outcome == outcome


def logged(calling: Calling) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in calling.log.getvalue().splitlines()]
    return [line for line in lines if line["message"] == "connection_called"]


def test_call_connection_log_line_has_host_path_and_status(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(URL, status=503)
    before = len(logged(calling))
    calling.call({"method": "GET", "path": "/v1/things", "query": {"password": "canary"}})
    (line,) = logged(calling)[before:]
    assert {name: line[name] for name in ("connection", "method", "host", "path", "status", "withheld")} == {
        "connection": "keyed", "method": "GET", "host": HOST, "path": "/v1/things", "status": 503, "withheld": False,
    }  # fmt: skip


def test_call_connection_failure_log_line_has_reason(calling: Calling) -> None:
    with patch.object(http_client, "send", side_effect=AnswerLost("none")):
        calling.call({"method": "DELETE", "path": "/v1/things/7"})
    line = logged(calling)[-1]
    assert (line["method"], line["path"], line["reason"], line["answer_lost"]) == (
        "DELETE", "/v1/things/7", "no_answer", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v1/things?token=canary#x", {"path": "/v1/things"}),
        ("https://API.example.com/v1?x", {"host": "api.example.com", "path": "/v1"}),
        ("https://user:canary@api.example.com/v1", {"host": "api.example.com", "path": "/v1"}),
        ("/lists/eyJhbGciOiJIUzI1NiJ9.canary.canary", {"path": "/lists/***"}),
        ("/lists/%65yJhbGciOiJIUzI1NiJ9.canary.canary", {"path": "/lists/***"}),
        ("/\ud800/\u00fc", {"path": "/\\ud800/\\xfc"}),
        ("/" + "x" * 5_000, {"path": "/" + "x" * (proxy_call.MAX_PATH_SHOWN - 1)}),
        ("https://[", {"path": "?"}),
    ],
)
def test_whereabouts_exclude_query_and_credential(target: str, shown: dict[str, str]) -> None:
    assert proxy_call.whereabouts(target) == shown


# ------------------------------------------------------------------------------------------------------------------- TLS


@pytest.mark.enable_socket
def test_call_connection_redirect_to_another_host_does_not_send_key(
    calling: Calling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    first, second = Server(authority, HOST), Server(authority, "files.example.com")
    first.scripts = [answering(redirect(302, "https://files.example.com/there"))]
    second.scripts = [answering(OK)]
    with internet() as outside:
        outside.names = {HOST: [ADDRESS], "files.example.com": ["1.1.1.1"]}
        outside.routes = {ADDRESS: first.port, "1.1.1.1": second.port}
        call = {"method": "GET", "url": f"https://{HOST}/v1/things", "headers": {"Accept": "text/csv"}}
        answer = calling.call(call, "everywhere")
        http_exchange.transport.close()
    first.close()
    second.close()
    assert (answer.content["status"], answer.content["body"]) == (200, "ok")
    assert f"X-Api-Key: {KEY}".encode() in first.requests[0]
    assert b"canary" not in second.requests[0]
    assert b"Accept: text/csv" in second.requests[0]


@pytest.mark.enable_socket
def test_call_connection_slowly_sent_answer_ends_at_time_limit(
    calling: Calling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(proxy_call, "TIME", timedelta(seconds=1.5))

    def drip(tls: Any) -> bool:
        for _ in range(250):
            tls.sendall(b"H")
            time.sleep(0.02)
        return False

    server = Server(authority, HOST)
    server.scripts = [drip]
    http_exchange.transport.close()
    began = time.monotonic()
    with internet() as outside:
        outside.names, outside.routes = {HOST: [ADDRESS]}, {ADDRESS: server.port}
        answer = calling.call({"method": "POST", "path": "/v1/things"})
        http_exchange.transport.close()
    server.close()
    assert answer.status == 504
    assert time.monotonic() - began < 4


# ------------------------------------------------------------------------------------------------------------ sample events


@pytest.mark.parametrize("sample", ["get_a_path", "post_json"])
def test_call_connection_sample_event_is_sent(calling: Calling, api: responses.RequestsMock, sample: str) -> None:
    api.get(f"https://{HOST}/api/v4/account", body="{}")
    api.post(f"https://{HOST}/v1/contacts", status=201)
    event = functions.sample("call_connection", sample)
    event["pathParameters"] = {"name": "keyed"}
    answer = calling.module.handler(event, functions.Context())
    assert answer["statusCode"] == 200
    assert len(api.calls) == 1


# --------------------------------------------------------------------------------------------------------- idempotency keys


def test_call_repeated_with_its_key_sends_one_request(calling: Calling, api: responses.RequestsMock) -> None:
    api.post(URL, body="made", status=201)
    body = {"method": "POST", "path": "/v1/things", "json": {"a": 1}}
    first, again = (calling.call(body, idempotency_key="once") for _ in range(2))
    assert (first.status, first.content["status"], again.content) == (200, 201, first.content)
    assert len(api.calls) == 1
    other = calling.call({**body, "json": {"a": 2}}, idempotency_key="once")
    assert (other.status, other.content["type"]) == (422, "urn:portaria:problem:idempotency_key_reused")
    items = str(service_clients.client("dynamodb").scan(TableName=TABLE)["Items"])
    assert "made" not in items.replace("made_by", "")


def test_call_with_a_lost_answer_is_not_sent_again_with_its_key(calling: Calling, api: responses.RequestsMock) -> None:
    api.post(URL, body=requests.exceptions.ReadTimeout("canary"))
    body = {"method": "POST", "path": "/v1/things"}
    first, again = (calling.call(body, idempotency_key="lost") for _ in range(2))
    assert (first.status, again.status) == (504, 504)
    assert "use another Idempotency-Key" in again.content["detail"]
    assert len(api.calls) == 1


def test_call_that_was_stopped_is_not_sent_again_with_its_key(calling: Calling, api: responses.RequestsMock) -> None:
    def die(request: requests.PreparedRequest) -> Any:
        raise SystemExit

    api.add_callback("POST", URL, die)
    body = {"method": "POST", "path": "/v1/things"}
    with pytest.raises(SystemExit):
        calling.call(body, idempotency_key="stopped")
    answer = calling.call(body, idempotency_key="stopped")
    assert (answer.status, answer.content["type"]) == (409, "urn:portaria:problem:request_in_progress")
    assert answer.headers["Retry-After"]
    assert len(api.calls) <= 1


def test_call_that_was_not_sent_can_be_sent_with_its_key(calling: Calling, api: responses.RequestsMock) -> None:
    body = {"method": "POST", "path": "/v1/things"}
    api.post(URL, body=requests.exceptions.ConnectTimeout("canary"))
    assert calling.call(body, idempotency_key="again").status == 502
    api.replace("POST", URL, body="made")
    assert calling.call(body, idempotency_key="again").status == 200


def test_call_with_a_large_answer_does_not_keep_it(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(URL, body="x" * 300_000)
    body = {"method": "GET", "path": "/v1/things"}
    first, again = (calling.call(body, idempotency_key="large") for _ in range(2))
    assert first.status == 200
    assert (again.status, again.content["type"]) == (409, "urn:portaria:problem:answer_not_kept")
    assert len(api.calls) == 1


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        ({"body": b"\xff" * 4_000_001}, "answer_too_large"),
        ({"status": 303, "headers": {"Location": "https://evil.example/"}}, "redirect_not_allowed"),
        ({"status": 307, "headers": {"Location": "https://192.0.2.1/"}}, "redirect_not_allowed"),
        ({"status": 303, "headers": {"Location": URL}}, "too_many_redirects"),
    ],
)
def test_call_whose_response_cannot_be_returned_is_not_sent_again_with_its_key(
    calling: Calling, api: responses.RequestsMock, response: dict[str, Any], problem: str
) -> None:
    """The API has received the request, so a repetition would send it twice."""
    api.post(URL, **response)
    api.get(URL, **response)
    body = {"method": "POST", "path": "/v1/things"}
    key = f"{problem}-{response.get('status', 200)}"
    answers = [calling.call(body, idempotency_key=key) for _ in range(2)]
    assert [(each.status, each.content["type"]) for each in answers] == [(502, f"urn:portaria:problem:{problem}")] * 2
    assert "use another Idempotency-Key" in answers[1].content["detail"]
    assert [call.request.method for call in api.calls].count("POST") == 1
