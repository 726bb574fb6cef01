"""HttpRequest from both event shapes: API Gateway's REST proxy event, and payload format 2.0."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

import pytest

from portaria.core.errors import Rejected
from portaria.core.http.request import Headers, HttpRequest
from tests.fakes.aws import gateway
from tests.fakes.aws.functions import sample
from tests.fakes.paths import ROOT

PATH = "/hooks/one"
SECRETS = ("canary-code", "canary-cookie", "canary-header", "canary-body", "canary-ticket")


def rest(**changes: Any) -> dict[str, Any]:
    return gateway.proxy_event("POST", "/hooks/{name}", PATH, path_parameters={"name": "one"}) | changes


def format_2(**changes: Any) -> dict[str, Any]:
    """As in Lambda's documentation (urls-invocation). A function URL omits what a request lacks."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": PATH,
        "rawQueryString": "",
        "headers": {"host": "abc.lambda-url.us-east-1.on.aws", "user-agent": "portaria"},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abc",
            "domainName": "abc.lambda-url.us-east-1.on.aws",
            "domainPrefix": "abc",
            "http": {
                "method": "POST",
                "path": PATH,
                "protocol": "HTTP/1.1",
                "sourceIp": gateway.SOURCE_IP,
                "userAgent": "portaria",
            },
            "requestId": gateway.REQUEST_ID,
            "routeKey": "$default",
            "stage": "$default",
            "time": gateway.REQUEST_TIME,
            "timeEpoch": gateway.REQUEST_TIME_EPOCH,
        },
        "isBase64Encoded": False,
        **changes,
    }


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/hooks/one", {"name": "one"}),
        ("/hooks/one/", {"name": "one"}),
        ("/hooks/a%2Fb", {"name": "a%2Fb"}),
        ("/hooks", {}),
        ("/hooks/one/two", {}),
        ("/other/one", {}),
        ("/", {}),
        ("", {}),
    ],
)
def test_http_request_function_url_path_is_matched_to_route(path: str, parameters: dict[str, str]) -> None:
    request = HttpRequest.from_event(format_2(rawPath=path)).matched("/hooks/{name}")
    assert request.path_parameters == parameters
    assert request.resource == ("/hooks/{name}" if parameters else "")


def test_http_request_route_of_api_gateway_is_not_matched_again() -> None:
    request = HttpRequest.from_event(rest())
    assert request.matched("/hooks/{other}") is request


@dataclass(frozen=True)
class Case:
    """One request in both shapes, and the expected value of one field."""

    name: str
    rest: dict[str, Any]
    format_2: dict[str, Any]
    expected: Any


def context_of(event: dict[str, Any], **changes: Any) -> dict[str, Any]:
    context: dict[str, Any] = event["requestContext"] | changes
    return context


def cases(*given: Case) -> pytest.MarkDecorator:
    events = [(case.rest, case.expected) for case in given] + [(case.format_2, case.expected) for case in given]
    ids = [f"{case.name}, {shape}" for shape in ("REST", "format 2.0") for case in given]
    return pytest.mark.parametrize(("event", "expected"), events, ids=ids)


@cases(
    Case("given", rest(), format_2(), "POST"),
    Case("missing", rest(httpMethod=None), format_2(requestContext=context_of(format_2(), http=None)), ""),
)
def test_method_is_that_of_the_request(event: dict[str, Any], expected: str) -> None:
    assert HttpRequest.from_event(event).method == expected


@cases(
    Case("matched", rest(), format_2(routeKey="POST /hooks/{name}"), "/hooks/{name}"),
    Case("missing", rest(resource=None), format_2(), ""),
)
def test_resource_is_the_matched_route(event: dict[str, Any], expected: str) -> None:
    assert HttpRequest.from_event(event).resource == expected


@cases(
    Case("given", rest(requestContext={}), format_2(), PATH),
    Case("with a stage", rest(), format_2(rawPath=f"/live{PATH}"), f"/live{PATH}"),
    Case("with a slash", rest(requestContext={"path": "/a/"}), format_2(rawPath="/a/"), "/a/"),
    Case("not UTF-8", rest(requestContext={"path": "/%FF%C3"}), format_2(rawPath="/%FF%C3"), "/%FF%C3"),
    Case("half a pair", rest(requestContext={"path": "/\ud800"}), format_2(rawPath="/\ud800"), "/\ud800"),
    Case("missing", rest(path=None, requestContext=None), format_2(rawPath=None), ""),
)
def test_path_is_as_sent(event: dict[str, Any], expected: str) -> None:
    assert HttpRequest.from_event(event).path == expected


@cases(
    Case("given", rest(), format_2(pathParameters={"name": "one"}), "one"),
    Case("not UTF-8", rest(pathParameters={"name": "%FF"}), format_2(pathParameters={"name": "%FF"}), "%FF"),
    Case("another", rest(pathParameters={"x": "1"}), format_2(pathParameters={"x": "1"}), ""),
    Case("null", rest(pathParameters=None), format_2(pathParameters=None), ""),
)
def test_path_parameter_missing_is_empty(event: dict[str, Any], expected: str) -> None:
    assert HttpRequest.from_event(event).path_parameter("name") == expected


@cases(
    Case(
        "one value",
        rest(multiValueQueryStringParameters={"code": ["a b"]}),
        format_2(rawQueryString="code=a+b"),
        {"code": ["a b"]},
    ),
    Case(
        "several values",
        rest(multiValueQueryStringParameters={"code": ["1", "2,3"], "x": ["4"]}),
        # `queryStringParameters` has "1,2,3" here, which cannot be split reliably.
        format_2(rawQueryString="code=1&code=2%2C3&x=4", queryStringParameters={"code": "1,2,3", "x": "4"}),
        {"code": ["1", "2,3"], "x": ["4"]},
    ),
    Case(
        "empty value",
        rest(multiValueQueryStringParameters={"code": [""]}),
        format_2(rawQueryString="code="),
        {"code": [""]},
    ),
    Case(
        "not UTF-8",
        rest(multiValueQueryStringParameters={"code": ["\udcff"]}),
        format_2(rawQueryString="code=%FF"),
        {"code": ["\udcff"]},
    ),
    Case("null", rest(multiValueQueryStringParameters=None), format_2(rawQueryString=None), {}),
    Case(
        "malformed",
        rest(multiValueQueryStringParameters={"code": None}),
        format_2(rawQueryString="code=&&%"),
        None,
    ),
)
def test_query_has_every_value(event: dict[str, Any], expected: dict[str, list[str]] | None) -> None:
    query = HttpRequest.from_event(event).query
    if expected is None:
        assert query["code"] in ([], [""])
    else:
        assert query == expected


@cases(
    Case("given", rest(multiValueHeaders={"X-Case": ["1"]}), format_2(headers={"x-case": "1"}), "1"),
    Case("other case", rest(multiValueHeaders={"x-cAsE": ["1"]}), format_2(headers={"X-Case": "1"}), "1"),
    Case("twice", rest(multiValueHeaders={"X-Case": ["1", "2"]}), format_2(headers={"x-case": "1, 2"}), "1, 2"),
    Case("empty", rest(multiValueHeaders={"X-Case": [""]}), format_2(headers={"x-case": ""}), ""),
    Case("no values", rest(multiValueHeaders={"X-Case": None}), format_2(headers={}), ""),
    Case("null", rest(multiValueHeaders=None, headers=None), format_2(headers=None), ""),
    Case("a list", rest(multiValueHeaders=["X-Case"]), format_2(headers=["x-case"]), ""),
)
def test_header_is_found_whatever_its_case(event: dict[str, Any], expected: str) -> None:
    headers = HttpRequest.from_event(event).headers
    assert headers.get("X-Case") == headers.get("x-case") == expected
    assert headers.joined().get("x-case", "") == expected


def test_headers_name_in_two_cases_has_the_values_of_both() -> None:
    headers = Headers({"X-Case": ["1"], "x-case": ["2"], "X-CASE": []})
    assert headers.values("X-cAsE") == ["1", "2"]
    assert headers.joined() == {"x-case": "1, 2"}


def test_once_repeated_header_is_refused() -> None:
    headers = HttpRequest.from_event(rest(multiValueHeaders={"X-One": [" 1 "], "X-Two": ["1"], "x-two": ["1"]})).headers
    assert (headers.once("x-one"), headers.once("X-None")) == ("1", "")
    with pytest.raises(Rejected) as refused:
        headers.once("X-Two")
    assert (refused.value.reason, refused.value.field) == ("header_repeated", "X-Two")


@cases(
    Case("given", rest(multiValueHeaders={"Cookie": ["s=a"]}), format_2(cookies=["s=a"]), "a"),
    Case("among others", rest(multiValueHeaders={"cookie": ["x=1; s=a=b; y"]}), format_2(cookies=["x=1", "s=a=b", "y"]), "a=b"),
    Case("in the second header", rest(multiValueHeaders={"Cookie": ["x=1", "s=a"]}), format_2(cookies=["x=1", "s=a"]), "a"),
    Case("in joined headers", rest(multiValueHeaders={"Cookie": ["x=1, s=a"]}), format_2(cookies=["x=1, s=a"]), "a"),
    Case("twice", rest(multiValueHeaders={"Cookie": ["s=a; s=b"]}), format_2(cookies=["s=a", "s=b"]), ""),
    Case("a longer name", rest(multiValueHeaders={"Cookie": ["ss=a"]}), format_2(cookies=["ss=a"]), ""),
    Case("no value", rest(multiValueHeaders={"Cookie": ["s"]}), format_2(cookies=["s"]), ""),
    Case("missing", rest(), format_2(), ""),
    Case("null", rest(multiValueHeaders=None), format_2(cookies=None), ""),
)  # fmt: skip
def test_cookie_missing_or_repeated_is_empty(event: dict[str, Any], expected: str) -> None:
    assert HttpRequest.from_event(event).cookie("s") == expected


BYTES = b"\xff\x00caf\xc3\xa9"
ENCODED = {"body": base64.b64encode(BYTES).decode(), "isBase64Encoded": True}


@cases(
    Case("text", rest(body="café"), format_2(body="café"), "café".encode()),
    Case("base64", rest(**ENCODED), format_2(**ENCODED), BYTES),
    Case("empty", rest(body=""), format_2(body=""), b""),
    Case("null", rest(body=None), format_2(), b""),
    Case("null in base64", rest(body=None, isBase64Encoded=True), format_2(isBase64Encoded=True), b""),
    Case("no base64", rest(body="é", isBase64Encoded=True), format_2(body="é", isBase64Encoded=True), None),
    Case("cut base64", rest(body="YWJ", isBase64Encoded=True), format_2(body="YWJ", isBase64Encoded=True), None),
    Case("base64 with spaces", rest(body="YW Jj", isBase64Encoded=True), format_2(body="YW Jj", isBase64Encoded=True), None),
    Case("half a pair", rest(body="\ud800"), format_2(body="\ud800"), None),
)  # fmt: skip
def test_body_that_cannot_be_decoded_is_none(event: dict[str, Any], expected: bytes | None) -> None:
    assert HttpRequest.from_event(event).body == expected


FORGED = {"X-Forwarded-For": ["10.0.0.1"], "Forwarded": ["for=10.0.0.1"], "X-Real-IP": ["10.0.0.1"]}


@cases(
    Case("given", rest(), format_2(), gateway.SOURCE_IP),
    Case(
        "claimed in headers",
        rest(multiValueHeaders=FORGED),
        format_2(headers={name: values[0] for name, values in FORGED.items()}),
        gateway.SOURCE_IP,
    ),
    Case("missing", rest(requestContext={"identity": None}), format_2(requestContext={"http": {}}), ""),
    Case("without a context", rest(requestContext=None), format_2(requestContext=None), ""),
)
def test_source_address_is_not_read_from_headers(event: dict[str, Any], expected: str) -> None:
    assert HttpRequest.from_event(event).source_address == expected


@cases(
    Case("given", rest(), format_2(), gateway.REQUEST_ID),
    Case("missing", rest(requestContext={}), format_2(requestContext={}), ""),
)
def test_request_id_is_that_of_the_context(event: dict[str, Any], expected: str) -> None:
    assert HttpRequest.from_event(event).request_id == expected


def test_host_and_principal_are_those_of_the_context() -> None:
    arn = "arn:aws:iam::123456789012:user/ada"
    event = gateway.proxy_event("GET", "/admin/v1/routes", "/admin/v1/routes", user_arn=arn)
    request = HttpRequest.from_event(event)
    assert (request.host, request.api_id, request.principal) == (gateway.API_HOST, gateway.API_ID, arn)
    event["requestContext"]["identity"] |= {"userArn": None, "caller": "AIDA1"}
    assert HttpRequest.from_event(event).principal == "AIDA1"
    assert HttpRequest.from_event(rest()).principal == ""
    assert HttpRequest.from_event(format_2()).host == "abc.lambda-url.us-east-1.on.aws"


@pytest.mark.parametrize(
    ("ago_s", "expected"), [(0.5, 0.5), (9.0, 9.0), (60.0, 0.0), (-60.0, 0.0), (None, 0.0), ("text", 0.0)]
)
@pytest.mark.parametrize(("make", "name"), [(rest, "requestTimeEpoch"), (format_2, "timeEpoch")])
def test_elapsed_s_of_clocks_that_disagree_is_0(
    monkeypatch: pytest.MonkeyPatch, make: Any, name: str, ago_s: Any, expected: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    epoch_ms = int((1_800_000_000 - ago_s) * 1000) if isinstance(ago_s, float) else ago_s
    event = make(requestContext=context_of(make(), **{name: epoch_ms}))
    assert HttpRequest.from_event(event).elapsed_s() == pytest.approx(expected)


@pytest.mark.parametrize("make", [rest, format_2])
def test_received_at_is_in_epoch_seconds(make: Any) -> None:
    assert HttpRequest.from_event(make()).received_at == gateway.REQUEST_TIME_EPOCH / 1000


@pytest.mark.parametrize(
    "event", [{}, {"version": "2.0"}, {"requestContext": "x", "headers": 1, "cookies": 1, "body": 1}]
)
def test_from_event_without_members_has_empty_fields(event: dict[str, Any]) -> None:
    request = HttpRequest.from_event(event)
    assert (request.method, request.path, request.query, request.cookies, request.path_parameters) == (
        "",
        "",
        {},
        {},
        {},
    )
    assert request.headers.joined() == {}
    assert request.elapsed_s() == 0


def test_request_is_frozen() -> None:
    with pytest.raises(AttributeError):
        HttpRequest.from_event(rest()).method = "GET"  # type: ignore[misc]


@pytest.mark.parametrize(
    "event",
    [
        rest(
            multiValueQueryStringParameters={"code": ["canary-code"]},
            multiValueHeaders={"Cookie": ["s=canary-cookie"], "X-Secret": ["canary-header"]},
            pathParameters={"ticket": "canary-ticket"},
            path="/hooks/canary-ticket",
            body="canary-body",
        ),
        format_2(
            rawQueryString="code=canary-code",
            cookies=["s=canary-cookie"],
            headers={"x-secret": "canary-header"},
            rawPath="/hooks/canary-ticket",
            body="canary-body",
        ),
    ],
    ids=["REST", "format 2.0"],
)
def test_repr_shows_no_secret(event: dict[str, Any]) -> None:
    request = HttpRequest.from_event(event)
    shown = f"{request!r} {request} {request.headers!r}"
    assert gateway.REQUEST_ID in shown
    assert not any(secret in shown for secret in SECRETS)


EVENT_FILES = sorted(
    (path.parent.name, path.stem)
    for path in (ROOT / "events").glob("*/*.json")
    if "httpMethod" in sample(path.parent.name, path.stem)
)


@pytest.mark.parametrize(("function", "name"), EVENT_FILES, ids=str)
def test_from_event_of_an_event_file_has_every_field(function: str, name: str) -> None:
    event = sample(function, name)
    request = HttpRequest.from_event(event)
    assert request.method == event["httpMethod"]
    assert request.resource == event["resource"]
    assert request.path.endswith(event["path"])
    assert request.path_parameters == (event["pathParameters"] or {})
    assert request.query == (event["multiValueQueryStringParameters"] or {})
    assert {name: request.headers.values(name) for name in event["multiValueHeaders"]} == event["multiValueHeaders"]
    assert request.body is not None
    assert request.source_address
    assert request.request_id
    assert request.received_at > 0
