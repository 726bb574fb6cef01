"""API Gateway's REST API with Lambda proxy integration: the event that a function receives, and the responses it may return."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from tests.aws import functions
from tests.aws.expectations import MEMORY, MINISTACK, MOTO, Expectation
from tests.aws.stand_ins import Aws

NO_GATEWAY = {
    MOTO: "it has no data plane for REST APIs with functions",
    MEMORY: "the simulation calls the workers, not the API",
}
STAGE = "live"


def proxy(test: str) -> str:
    return f"test_apigateway_lambda::{test}"


EVENTS = proxy("test_lambda_aws_proxy_integration")
ANSWERS = proxy("test_aws_proxy_response_payload_format_validation")


class Api:
    """A REST API with the resources `/hooks` and `/hooks/{name}`, whose function answers as the header X-Answer says."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.function = functions.shared(aws)
        gateway = aws.client("apigateway")
        self.id = gateway.create_rest_api(name=aws.fresh("api"))["id"]
        parent = gateway.get_resources(restApiId=self.id)["items"][0]["id"]
        uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{self.function.arn}/invocations"
        for part in ("hooks", "{name}"):
            parent = gateway.create_resource(restApiId=self.id, parentId=parent, pathPart=part)["id"]
            how = {"restApiId": self.id, "resourceId": parent, "httpMethod": "ANY"}
            gateway.put_method(**how, authorizationType="NONE")
            gateway.put_integration(**how, type="AWS_PROXY", integrationHttpMethod="POST", uri=uri)
        gateway.create_deployment(restApiId=self.id, stageName=STAGE)
        self.url = f"{aws.endpoint}/restapis/{self.id}/{STAGE}/_user_request_"

    def call(
        self, path: str = "/hooks/one", answer: Any = None, body: str | None = None, **headers: str
    ) -> requests.Response:
        asked = {"answer": {"statusCode": 200} if answer is None else answer}
        with requests.Session() as session:
            session.trust_env = False
            given = {"X-Answer": json.dumps(asked), **headers}
            return session.request("POST" if body else "GET", f"{self.url}{path}", headers=given, data=body, timeout=30)

    def event(self, path: str = "/hooks/one", body: str | None = None, **headers: str) -> dict[str, Any]:
        """The event that the function receives for a call."""
        case = self.aws.fresh("case")
        self.call(path, body=body, **headers, **{"X-Case": case})
        return self.of(case)

    def of(self, case: str) -> dict[str, Any]:
        """The event of the request with the header X-Case."""
        return self.function.events(lambda event: case in (event.get("headers") or {}).values())[0]


def _api(aws: Aws) -> Api:
    if "api" not in aws.shared:
        aws.shared["api"] = Api(aws)
    api: Api = aws.shared["api"]
    return api


def _event(aws: Aws, path: str, *members: str) -> Any:
    event = _api(aws).event(path)
    return tuple(event[name] for name in members)


def _context(aws: Aws) -> Any:
    context = _api(aws).event("/hooks/one")["requestContext"]
    return set(context), set(context["identity"])


def _path_in_context(aws: Aws, path: str) -> Any:
    event = _api(aws).event(path)
    return event["requestContext"]["path"], event["requestContext"]["resourcePath"]


def _header_case(aws: Aws) -> Any:
    """A header whose case only a client that does not normalise names can send."""
    api, case = _api(aws), aws.fresh("case")
    where = urlsplit(api.url)
    asked = json.dumps({"answer": {"statusCode": 200}})
    request = (
        f"GET {where.path}/hooks/one HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n"
        f"X-Answer: {asked}\r\nX-Case: {case}\r\ntEsT-HEADeR: aValUE\r\n\r\n"
    )
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as connection:
        connection.sendall(request.encode())
        while connection.recv(65_536):
            pass
    headers = api.of(case)["headers"]
    return [name for name in headers if name.lower() == "test-header"]


def _body(aws: Aws) -> Any:
    event = _api(aws).event("/hooks/one", body='{"message": "hello world"}')
    return event["body"], event["isBase64Encoded"], event["httpMethod"]


def _answered(aws: Aws, answer: Any) -> Any:
    response = _api(aws).call(answer=answer)
    return response.status_code


def _headers(aws: Aws, answer: Any, *names: str) -> Any:
    response = _api(aws).call(answer=answer)
    return (response.status_code, *(response.headers.get(name) for name in names))


def _error_body(aws: Aws) -> Any:
    response = _api(aws).call(answer={"statusCode": "test"})
    found = "json" in response.headers.get("Content-Type", "")
    return response.status_code, response.json() if found else {}


def _not_found(aws: Aws, path: str) -> Any:
    response = _api(aws).call(path)
    return response.status_code, response.json().get("message"), response.headers.get("x-amzn-ErrorType")


MEMBERS = {
    "accountId", "apiId", "deploymentId", "domainName", "domainPrefix", "extendedRequestId", "httpMethod", "identity",
    "path", "protocol", "requestId", "requestTime", "requestTimeEpoch", "resourceId", "resourcePath", "stage",
}  # fmt: skip
IDENTITY = {
    "accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType",
    "cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "sourceIp", "user", "userAgent", "userArn",
}  # fmt: skip
MALFORMED = 502


def _expect(name: str, source: str, run: Any, answer: Any, **differs: Any) -> Expectation:
    other = {MINISTACK: differs["ministack"]} if differs else {}
    return Expectation(f"apigateway_{name}", source, run, answer, differs=other, lacks=NO_GATEWAY)


class AnswerRule(NamedTuple):
    """A function's response and the status that the caller gets; `ministack` is MiniStack's status, if it differs."""

    name: str
    step: str
    answer: Any
    status: int
    ministack: int | None = None


ANSWER_RULES = (
    AnswerRule("answer_without_a_body_is_accepted", "invoke-api-no-body", {"statusCode": 200}, 200),
    AnswerRule(
        "answer_with_null_headers_is_accepted",
        "invoke-api-with-headers-null",
        {"statusCode": 200, "headers": None},
        200,
    ),
    AnswerRule(
        "answer_with_headers_alone_is_a_200", "invoke-api-only-headers", {"headers": {"test-header": "value"}}, 200
    ),
    AnswerRule(
        "answer_with_a_numeric_text_as_status_is_accepted", "invoke-api-status-code-str", {"statusCode": "201"}, 201
    ),
    AnswerRule(
        "answer_with_a_word_as_status_is_malformed",
        "invoke-api-invalid-status-code",
        {"statusCode": "test"},
        MALFORMED,
        ministack=500,
    ),
    AnswerRule(
        "answer_with_an_unknown_member_is_malformed",
        "invoke-api-wrong-format",
        {"statusCode": 200, "wrongValue": "value"},
        MALFORMED,
        ministack=200,
    ),
    AnswerRule("answer_that_is_a_text_is_malformed", "invoke-api-just-string", "justAString", MALFORMED, ministack=200),
    AnswerRule(
        "answer_with_a_text_for_multi_value_headers_is_malformed",
        "invoke-api-multi-headers-invalid",
        {"statusCode": 200, "multiValueHeaders": {"test-multi-invalid": "value1"}},
        MALFORMED,
        ministack=200,
    ),
)


def _accepted(rule: AnswerRule) -> Expectation:
    differs = {} if rule.ministack is None else {"ministack": rule.ministack}
    source = f"{ANSWERS}::{rule.step}"
    return _expect(rule.name, source, lambda aws: _answered(aws, rule.answer), rule.status, **differs)


EXPECTATIONS = (
    _expect(
        "event_without_parameters_has_nulls",
        f"{EVENTS}::invocation-hardcoded",
        lambda aws: _event(
            aws,
            "/hooks",
            "queryStringParameters",
            "multiValueQueryStringParameters",
            "pathParameters",
            "stageVariables",
            "body",
            "isBase64Encoded",
        ),
        (None, None, None, None, None, False),
    ),
    _expect(
        "event_has_the_matched_resource_and_the_path_that_was_sent",
        f"{EVENTS}::invocation-payload-without-trailing-slash",
        lambda aws: _event(aws, "/hooks/one", "resource", "path", "pathParameters"),
        ("/hooks/{name}", "/hooks/one", {"name": "one"}),
    ),
    _expect(
        "trailing_slash_matches_the_same_resource",
        f"{EVENTS}::invocation-payload-with-trailing-slash",
        lambda aws: _event(aws, "/hooks/one/", "resource", "path", "pathParameters"),
        ("/hooks/{name}", "/hooks/one/", {"name": "one"}),
    ),
    _expect(
        "context_path_has_the_stage_and_the_trailing_slash",
        f"{EVENTS}::invocation-payload-with-trailing-slash",
        lambda aws: _path_in_context(aws, "/hooks/one/"),
        (f"/{STAGE}/hooks/one/", "/hooks/{name}"),
    ),
    _expect(
        "leading_slashes_are_one_in_the_path_but_stay_in_the_context",
        f"{EVENTS}::invocation-payload-with-prepended-slash",
        lambda aws: (_event(aws, "//hooks/one", "resource", "path"), _path_in_context(aws, "//hooks/one")[0]),
        (("/hooks/{name}", "/hooks/one"), f"/{STAGE}//hooks/one"),
        ministack=(("/hooks/{name}", "//hooks/one"), f"/{STAGE}//hooks/one"),
    ),
    _expect(
        "path_stays_percent_encoded",
        f"{EVENTS}::invocation-payload-with-path-encoded-email",
        lambda aws: _event(aws, "/hooks/test%2Balias@gmail.com", "path", "pathParameters"),
        ("/hooks/test%2Balias@gmail.com", {"name": "test%2Balias@gmail.com"}),
        ministack=("/hooks/test+alias@gmail.com", {"name": "test+alias@gmail.com"}),
    ),
    _expect(
        "query_is_decoded_and_a_plus_is_a_space",
        f"{EVENTS}::invocation-payload-with-params-encoding",
        lambda aws: _event(aws, "/hooks?email=test%2Balias@gmail.com&plus=a+b&white=a%20b", "queryStringParameters"),
        ({"email": "test+alias@gmail.com", "plus": "a b", "white": "a b"},),
    ),
    _expect(
        "repeated_query_parameter_has_its_last_value_and_all",
        f"{EVENTS}::invocation-payload-with-params-encoding-multi",
        lambda aws: _event(aws, "/hooks?price=10&price=20", "queryStringParameters", "multiValueQueryStringParameters"),
        ({"price": "20"}, {"price": ["10", "20"]}),
        ministack=({"price": "10"}, {"price": ["10", "20"]}),
    ),
    _expect(
        "context_has_every_member",
        f"{EVENTS}::invocation-payload-without-trailing-slash",
        _context,
        (MEMBERS, IDENTITY),
        ministack=(MEMBERS - {"deploymentId", "domainName", "domainPrefix"}, {"sourceIp", "userAgent"}),
    ),
    _expect(
        "header_names_keep_their_case",
        f"{EVENTS}::invocation-payload-without-trailing-slash",
        _header_case,
        ["tEsT-HEADeR"],
        ministack=["test-header"],
    ),
    _expect(
        "body_is_text",
        f"{EVENTS}::invocation-payload-with-params-encoding-multi",
        _body,
        ('{"message": "hello world"}', False, "POST"),
    ),
    *(_accepted(rule) for rule in ANSWER_RULES),
    _expect(
        "malformed_answer_becomes_an_internal_server_error",
        f"{ANSWERS}::invoke-api-invalid-status-code",
        _error_body,
        (MALFORMED, {"message": "Internal server error"}),
        ministack=(500, {}),
    ),
    _expect(
        "answer_without_a_content_type_becomes_json",
        f"{ANSWERS}::invoke-api-with-headers",
        lambda aws: _headers(
            aws, {"statusCode": 200, "headers": {"test-header": "value"}}, "Content-Type", "test-header"
        ),
        (200, "application/json", "value"),
    ),
    _expect(
        "boolean_header_arrives_as_text",
        f"{ANSWERS}::invoke-api-with-headers",
        lambda aws: _headers(aws, {"statusCode": 200, "headers": {"header-bool": True}}, "header-bool"),
        (200, "true"),
        ministack=(200, "True"),
    ),
    _expect(
        "values_of_a_multi_value_header_arrive_in_order",
        f"{ANSWERS}::invoke-api-multi-headers-valid",
        lambda aws: _headers(
            aws, {"statusCode": 200, "multiValueHeaders": {"test-multi": ["value1", "value2"]}}, "test-multi"
        ),
        (200, "value1, value2"),
    ),
    _expect(
        "header_given_twice_has_both_values",
        f"{ANSWERS}::invoke-api-multi-headers-overwrite",
        lambda aws: _headers(
            aws,
            {
                "statusCode": 200,
                "multiValueHeaders": {"test-multi": ["value-multi"]},
                "headers": {"test-multi": "value-solo"},
            },
            "test-multi",
        ),
        (200, "value-multi, value-solo"),
        ministack=(200, "value-multi"),
    ),
    _expect(
        "base64_body_stays_as_it_is_without_binary_media_types",
        f"{ANSWERS}::invoke-api-b64-encoded-true",
        lambda aws: _api(aws).call(answer={"statusCode": 200, "body": "dGVzdC1kYXRh", "isBase64Encoded": True}).text,
        "dGVzdC1kYXRh",
    ),
    _expect(
        "unknown_path_is_a_403_about_a_token",
        "test_apigateway_common::TestApigatewayRouting::test_routing_not_found::not-found",
        lambda aws: _not_found(aws, "/nowhere"),
        (403, "Missing Authentication Token", "MissingAuthenticationTokenException"),
    ),
    _expect(
        "www_authenticate_arrives_remapped",
        "https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html",
        lambda aws: _headers(
            aws,
            {"statusCode": 401, "headers": {"WWW-Authenticate": "Bearer"}},
            "WWW-Authenticate",
            "x-amzn-Remapped-WWW-Authenticate",
        ),
        (401, None, "Bearer"),
        ministack=(401, "Bearer", None),
    ),
    _expect(
        "retry_after_arrives_as_it_is",
        "https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html",
        lambda aws: _headers(aws, {"statusCode": 503, "headers": {"Retry-After": "5"}}, "Retry-After"),
        (503, "5"),
    ),
)
