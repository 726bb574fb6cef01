"""The transparent proxy: what reaches the connection's API, what comes back, and how Portaria's own errors are recognized."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import responses

from portaria.access import audit
from portaria.api.idempotency import keys as idempotency
from portaria.api.resources.connections import proxied
from tests.fakes.api.calling import HOST, KEY, Calling
from tests.fakes.api.manage import REQUEST_ID, Manage, proxy_event, with_headers, with_token
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import cloud

URL = f"https://{HOST}/v1/things"


@pytest.fixture(scope="module")
def calling() -> Iterator[Calling]:
    with cloud() as stack:
        calling = Calling(stack)
        calling.connect("keyed")
        calling.connect("bearer", "bearer")
        yield calling


@pytest.fixture
def api() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def event_of(method: str, path: str, body: Any = None, *, name: str = "keyed", **headers: str) -> dict[str, Any]:
    return with_headers(proxy_event(method, f"/connections/{name}/proxy{path}", body), **headers)


def answer_to(calling: Calling, event: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """What API Gateway returns for the function's response."""
    result = calling.module.handler(event, functions.Context())
    headers = {name: ", ".join(values) for name, values in result["multiValueHeaders"].items()}
    body = b64decode(result["body"]) if result["isBase64Encoded"] else result["body"].encode()
    assert b"canary" not in body
    assert "canary" not in str(headers) + calling.log.getvalue()
    return result["statusCode"], headers, body


def sent(api: responses.RequestsMock) -> requests.PreparedRequest:
    request = api.calls[-1].request
    assert isinstance(request, requests.PreparedRequest)
    return request


@pytest.mark.parametrize("method", proxied.METHODS)
def test_proxy_each_method_reaches_the_api_with_the_credential(
    calling: Calling, api: responses.RequestsMock, method: str
) -> None:
    api.add(method, f"{URL}/7", status=418, body="" if method == "HEAD" else "teapot")
    status, headers, body = answer_to(calling, event_of(method, "/v1/things/7"))
    assert (status, body) == (418, b"" if method == "HEAD" else b"teapot")
    assert sent(api).method == method
    assert sent(api).headers["X-Api-Key"] == KEY
    assert "X-Portaria-Error" not in headers
    assert headers["X-Portaria-Request-Id"] == REQUEST_ID


def test_proxy_path_and_query_keep_their_encoding(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(f"https://{HOST}/a%2Fb/c%20d/")
    answer_to(calling, event_of("GET", "/a%2Fb/c%20d/?q=x%20y%26z&b=1&b=2&empty="))
    assert sent(api).url == f"https://{HOST}/a%2Fb/c%20d/?q=x%20y%26z&b=1&b=2&empty="


@pytest.mark.parametrize("prefix", ["", "/v1", "/api/v1"])
def test_proxy_path_below_a_base_path_is_the_apis_path(
    calling: Calling, api: responses.RequestsMock, prefix: str
) -> None:
    api.get(URL)
    event = event_of("GET", "/v1/things")
    event["requestContext"]["path"] = f"{prefix}/admin/v1/connections/keyed/proxy/v1/things"
    assert answer_to(calling, event)[0] == 200
    assert sent(api).url == URL


@pytest.mark.parametrize("method", proxied.METHODS)
@pytest.mark.parametrize(("path", "target"), [("", "/"), ("/", "/"), ("?a=1", "/?a=1"), ("/?a=1", "/?a=1")])
def test_proxy_without_a_path_reaches_the_apis_root(
    calling: Calling, api: responses.RequestsMock, method: str, path: str, target: str
) -> None:
    """API Gateway matches the resource without the greedy parameter, with and without a slash at the end of the path."""
    api.add(method, f"https://{HOST}/", body="" if method == "HEAD" else "root")
    event = event_of(method, path)
    event["resource"] = "/admin/v1/connections/{name}/proxy"
    event["pathParameters"] = {"name": "keyed"}
    event["requestContext"]["resourcePath"] = event["resource"]
    assert answer_to(calling, event)[0] == 200
    assert sent(api).url == f"https://{HOST}{target}"
    assert sent(api).headers["X-Api-Key"] == KEY


def test_proxy_root_takes_the_scope_of_the_connection(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(f"https://{HOST}/")
    _, token = Manage(calling.cloud).create_integration("connections:call@bearer")
    for name, expected in (("bearer", 200), ("keyed", 403)):
        event = with_token(proxy_event("GET", f"/connections/{name}/proxy", prefix="/v1"), token)
        assert answer_to(calling, event)[0] == expected
    assert len(api.calls) == 1


@pytest.mark.parametrize("content", [b"\x00\xff\xfe\x89PNG", "text ü".encode(), b'{"a": 1}', b""])
def test_proxy_body_of_any_bytes_goes_out_and_comes_back(
    calling: Calling, api: responses.RequestsMock, content: bytes
) -> None:
    api.post(URL, body=content, content_type="image/png")
    event = event_of("POST", "/v1/things", content, **{"Content-Type": "image/png"})
    status, headers, body = answer_to(calling, event)
    assert (status, body, headers["content-type"]) == (200, content, "image/png")
    assert (sent(api).body or b"") == content
    assert sent(api).headers["Content-Type"] == "image/png"


def test_proxy_text_that_json_makes_longer_than_lambda_allows_is_returned(
    calling: Calling, api: responses.RequestsMock
) -> None:
    api.get(URL, body=b"\x01" * 2_000_000)
    assert answer_to(calling, event_of("GET", "/v1/things"))[2] == b"\x01" * 2_000_000


def test_proxy_request_headers_of_the_client_are_sent_but_for_those_of_the_transport(
    calling: Calling, api: responses.RequestsMock
) -> None:
    api.get(URL)
    kept = {"Accept": "application/vnd.api+json", "X-Trace": "1", "Idempotency-Key": "k-1", "If-None-Match": '"7"'}
    dropped = {
        "Authorization": "Bearer portaria_of-the-caller", "Connection": "close, X-Hop", "X-Hop": "1", "Keep-Alive": "5",
        "Cookie": "session=1", "X-Forwarded-Host": "evil.example", "X_Forwarded_For": "192.0.2.9", "Range": "bytes=0-9",
        "X-Amz-Date": "20260101T000000Z", "CloudFront-Viewer-Country": "BR", "X-Api-Key": "placeholder", "TE": "trailers",
        "Proxy-Authorization": "Basic x", "X-Portaria-Anything": "1", "Via": "1.1 proxy",
    }  # fmt: skip
    assert answer_to(calling, event_of("GET", "/v1/things", **kept, **dropped))[0] == 200
    out = sent(api).headers
    assert {name: out[name] for name in kept} == kept
    assert out["X-Api-Key"] == KEY
    assert not {name.lower() for name in dropped} - {"x-api-key", "connection"} & {name.lower() for name in out}
    assert "close" not in out.get("Connection", "")
    assert "of-the-caller" not in str(out)


@pytest.mark.parametrize(("sent_version", "expected"), [("v3", "v3"), (None, "2021-07-28")])
def test_proxy_api_version_of_the_client_replaces_the_platforms_default(
    calling: Calling, api: responses.RequestsMock, sent_version: str | None, expected: str
) -> None:
    """A client library is made for one version of its API. The connection's version is for callers that send none."""
    name = f"lead-{expected}"
    fields = {"platform": "leadconnector", "fields": {"location_id": "abc"}}
    calling.connect(name, "bearer", **fields)
    api.get(URL)
    headers = {"version": sent_version} if sent_version else {}
    event = event_of("GET", "/v1/things", name=name, **headers, authorization="Bearer of-the-caller")
    assert answer_to(calling, event)[0] == 200
    assert sent(api).headers["Version"] == expected
    assert sent(api).headers["Authorization"] == "Bearer canary-token"


def test_proxy_token_of_a_private_integration_is_not_sent_to_the_api(
    calling: Calling, api: responses.RequestsMock
) -> None:
    api.get(URL)
    identity, token = Manage(calling.cloud).create_integration("connections:call@bearer")
    assert identity
    event = proxy_event("GET", "/connections/bearer/proxy/v1/things", prefix="/v1")
    assert answer_to(calling, with_token(event, token))[0] == 200
    assert sent(api).headers["Authorization"] == "Bearer canary-token"
    other = with_token(proxy_event("GET", "/connections/keyed/proxy/v1/things", prefix="/v1"), token)
    status, headers, body = answer_to(calling, other)
    assert (status, headers["X-Portaria-Error"]) == (403, "true")
    assert "connections:call" in json.loads(body)["detail"]


def test_proxy_response_headers_come_back_but_for_hop_by_hop_and_host_wide_ones(
    calling: Calling, api: responses.RequestsMock
) -> None:
    kept = {
        "etag": '"1"',
        "x-request-id": "theirs",
        "retry-after": "7",
        "cache-control": "max-age=5",
        "link": "<a>; rel=next",
    }
    dropped = {
        "Set-Cookie": "a=1", "Connection": "X-Hop", "X-Hop": "1", "Transfer-Encoding": "identity", "Server": "nginx",
        "Strict-Transport-Security": "max-age=1", "Alt-Svc": 'h3=":443"', "Clear-Site-Data": "*", "X-Portaria-Error": "true",
    }  # fmt: skip
    api.get(URL, status=429, headers=kept | dropped, body="slow down")
    status, headers, body = answer_to(calling, event_of("GET", "/v1/things"))
    assert (status, body) == (429, b"slow down")
    assert {name: headers[name] for name in kept} == kept
    assert not {name.lower() for name in dropped} & {name.lower() for name in headers}


def test_proxy_own_errors_are_problem_documents_with_the_mark(calling: Calling, api: responses.RequestsMock) -> None:
    for error, status, text in (
        (requests.exceptions.ConnectTimeout(), 502, "nothing was sent"),
        (requests.exceptions.ReadTimeout(), 504, "may have been processed"),
    ):
        api.post(URL, body=error)
        got, headers, body = answer_to(calling, event_of("POST", "/v1/things", "{}"))
        assert (got, headers["X-Portaria-Error"]) == (status, "true")
        assert headers["Content-Type"] == "application/problem+json"
        assert text in json.loads(body)["detail"]
        api.reset()


def test_proxy_redirect_to_another_domain_is_refused(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(URL, status=302, headers={"Location": "https://evil.example/"})
    status, headers, body = answer_to(calling, event_of("GET", "/v1/things"))
    assert (status, headers["X-Portaria-Error"]) == (502, "true")
    assert json.loads(body)["type"].endswith("redirect_not_allowed")
    assert len(api.calls) == 1


@pytest.mark.parametrize("path", ["//evil.example/", "/@evil.example/", "/v1/../../x", "/%2f%2fevil.example"])
def test_proxy_path_never_chooses_the_host(calling: Calling, api: responses.RequestsMock, path: str) -> None:
    api.add(responses.GET, re.compile(r"https://.*"), body="reached")
    answer_to(calling, event_of("GET", path))
    assert str(sent(api).url).startswith(f"https://{HOST}/")


def test_proxy_body_with_the_credential_is_withheld(calling: Calling, api: responses.RequestsMock) -> None:
    api.post(URL, status=201, body=f"your key is {KEY}")
    status, headers, body = answer_to(calling, event_of("POST", "/v1/things", "{}"))
    assert (status, headers["X-Portaria-Error"]) == (502, "true")
    problem = json.loads(body)
    assert problem["type"].endswith("body_withheld")
    assert "201" in problem["detail"]


def test_proxy_body_too_large_is_refused_before_it_is_sent(calling: Calling, api: responses.RequestsMock) -> None:
    status, headers, _ = answer_to(calling, event_of("POST", "/v1/things", b"x" * 1_000_001))
    assert (status, headers["X-Portaria-Error"]) == (413, "true")
    assert len(api.calls) == 0


def test_proxy_idempotency_key_of_portaria_sends_once_and_replays_the_response(
    calling: Calling, api: responses.RequestsMock
) -> None:
    api.post(URL, status=201, body=b"\xff\x00", headers={"etag": '"9"'})
    key = {idempotency.PROXY_HEADER: "p-1"}
    first = answer_to(calling, event_of("POST", "/v1/things?a=1", b"\x01", **key))
    again = answer_to(calling, event_of("POST", "/v1/things?a=1", b"\x01", **key))
    assert first == again
    assert (first[0], first[2], len(api.calls)) == (201, b"\xff\x00", 1)
    assert idempotency.PROXY_HEADER not in sent(api).headers
    other = answer_to(calling, event_of("POST", "/v1/things?a=2", b"\x01", **key))
    assert (other[0], len(api.calls)) == (422, 1)


def test_proxy_idempotency_key_after_a_lost_answer_does_not_send_again(
    calling: Calling, api: responses.RequestsMock
) -> None:
    api.post(URL, body=requests.exceptions.ReadTimeout())
    key = {idempotency.PROXY_HEADER: "p-2"}
    for _ in range(2):
        assert answer_to(calling, event_of("POST", "/v1/things", b"\x01", **key))[0] == 504
    assert len(api.calls) == 1


def test_proxy_change_is_in_the_audit_trail_and_a_reading_is_not(calling: Calling, api: responses.RequestsMock) -> None:
    api.patch(URL)
    api.get(URL)
    answer_to(calling, event_of("PATCH", "/v1/things?secret=1", b"{}"))
    answer_to(calling, event_of("GET", "/v1/things?secret=1"))
    newest = audit.list_page(calling.cloud.table, None, 100)[0][0]
    assert (newest.operation, newest.target, newest.outcome) == ("proxy_patch", "keyed", "done")
    assert newest.asked == {"method": "PATCH", "path": "/v1/things"}
