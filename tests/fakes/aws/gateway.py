"""API Gateway's REST API in front of a function: the whole proxy event, and the rules for a response.

The members of an event and the effect of a response are as recorded from AWS: `tests/aws/recorded/apigateway.py`.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

Event = dict[str, Any]
Answer = dict[str, Any]

API_ID = "abc123"
API_HOST = f"{API_ID}.execute-api.us-east-1.amazonaws.com"
STAGE = "live"
REQUEST_ID = "00000000-0000-4000-8000-000000000001"
SOURCE_IP = "192.0.2.1"
USER_AGENT = "portaria"
# The time of a request if a test does not set one.
REQUEST_TIME, REQUEST_TIME_EPOCH = "09/Apr/2026:12:34:56 +0000", 1_775_738_096_000
IDENTITY = (
    "accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType",
    "cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "sourceIp", "user", "userAgent", "userArn",
)  # fmt: skip
# Lambda's limit for a response.
MAX_ANSWER_BYTES = 6_291_556

# Headers of a response that API Gateway renames, and those that it drops:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
# The recording is test_apigateway_integrations::TestApiGatewayHeaderRemapping::test_apigateway_header_remapping_aws.
REMAPPED = frozenset(
    {
        "authorization", "connection", "content-length", "content-md5", "date", "expect", "host", "max-forwards",
        "proxy-authenticate", "server", "trailer", "upgrade", "user-agent", "www-authenticate",
    }
)  # fmt: skip
# Headers of the same page that were recorded as passed or dropped. No function may rely on one of them.
UNRELIABLE = frozenset({"te", "transfer-encoding", "via", "warn", "content-encoding"})


def proxy_event(
    method: str,
    resource: str,
    path: str,
    *,
    path_parameters: dict[str, str] | None = None,
    query: dict[str, list[str]] | None = None,
    headers: dict[str, str] | None = None,
    body: str | bytes | None = None,
    user_arn: str | None = None,
) -> Event:
    """An event as a regional REST API hands it over. `path` is percent-encoded, as it stays on its way to the function.

    Every media type is binary (`BinaryMediaTypes` in template.yaml), so a body arrives in base64. `user_arn` is the AWS
    principal that signed the call.
    """
    given = {
        "Host": API_HOST,
        "User-Agent": USER_AGENT,
        "X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678",
        "X-Forwarded-For": SOURCE_IP,
        "X-Forwarded-Port": "443",
        "X-Forwarded-Proto": "https",
        **(headers or {}),
    }
    return {
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": given,
        "multiValueHeaders": {name: [value] for name, value in given.items()},
        "queryStringParameters": {name: values[-1] for name, values in (query or {}).items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": path_parameters or None,
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": API_ID,
            "deploymentId": "d1e2f3",
            "domainName": API_HOST,
            "domainPrefix": API_ID,
            "extendedRequestId": "JKJaXmPLvHcESHA=",
            "httpMethod": method,
            "identity": dict.fromkeys(IDENTITY) | {"sourceIp": SOURCE_IP, "userAgent": USER_AGENT} | _signed(user_arn),
            "path": f"/{STAGE}{path}",
            "protocol": "HTTP/1.1",
            "requestId": REQUEST_ID,
            "requestTime": REQUEST_TIME,
            "requestTimeEpoch": REQUEST_TIME_EPOCH,
            "resourceId": "123456",
            "resourcePath": resource,
            "stage": STAGE,
        },
        "body": b64encode(body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body).decode()
        if body
        else None,
        "isBase64Encoded": bool(body),
    }


def _signed(user_arn: str | None) -> dict[str, str]:
    if user_arn is None:
        return {}
    user = "AIDAEXAMPLEUSER"
    account = user_arn.split(":")[4]
    return {"accessKey": "ASIAEXAMPLE", "accountId": account, "caller": user, "user": user, "userArn": user_arn}


def malformations(answer: Any) -> list[str]:
    """Why API Gateway would answer 502 instead of a function's response; empty if it accepts it."""
    if not isinstance(answer, dict):
        return ["the answer is no object"]
    found = [
        f"unknown member {name}"
        for name in answer.keys() - {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}
    ]
    status = answer.get("statusCode", 200)
    if isinstance(status, bool) or not (isinstance(status, int) or (isinstance(status, str) and status.isdecimal())):
        found.append(f"statusCode is {status!r}")
    for name, value in _members(answer, "headers", found).items():
        if not isinstance(value, str | bool | int | float):
            found.append(f"the header {name} is {type(value).__name__}")
    for name, values in _members(answer, "multiValueHeaders", found).items():
        if not isinstance(values, list):
            found.append(f"the multi-value header {name} is {type(values).__name__}")
        elif not all(isinstance(value, str | bool | int | float) for value in values):
            found.append(f"a value of the multi-value header {name} is no text")
    if not isinstance(answer.get("body", ""), str | None):
        found.append(f"body is {type(answer['body']).__name__}")
    if not isinstance(answer.get("isBase64Encoded", False), bool):
        found.append("isBase64Encoded is no boolean")
    return found


def unreliable_headers(answer: Answer) -> set[str]:
    """Names of a response's headers that do not arrive unchanged, except the one that the API's document explains."""
    names = {name.lower() for name in {**(answer.get("headers") or {}), **(answer.get("multiValueHeaders") or {})}}
    return (names & (REMAPPED | UNRELIABLE)) - {"www-authenticate"}


def arrived(name: str) -> str:
    """The name under which a response's header reaches the caller."""
    return f"x-amzn-Remapped-{name}" if name.lower() in REMAPPED else name


def _members(answer: Answer, name: str, found: list[str]) -> dict[Any, Any]:
    members = answer.get(name)
    if members is None:
        return {}
    if isinstance(members, dict):
        return members
    found.append(f"{name} is {type(members).__name__}")
    return {}
