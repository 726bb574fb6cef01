"""The function `manage`, called as API Gateway calls it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.secretsmanager.models import secretsmanager_backends

from portaria.api.openapi import document as api_document
from portaria.api.openapi import operation_errors
from portaria.api.openapi.paths import operation_items
from portaria.api.operation import Operation
from portaria.api.operations import OPERATIONS
from portaria.aws import service_clients
from portaria.core.item_keys import install_key, install_lists, install_places
from tests.fakes.aws import functions, gateway
from tests.fakes.aws.moto_cloud import TABLE, Cloud

REGION = "us-east-1"
API_HOST = gateway.API_HOST
API_URL = f"https://{API_HOST}/live"
BY_RESOURCE = {(each.method, prefix + each.path): each for each in OPERATIONS for prefix in ("/v1", "/admin/v1")}
REQUEST_ID = gateway.REQUEST_ID

# What an OAuth client shows that has no branding and no return URLs.
NO_BRANDING: dict[str, Any] = {
    "return_urls": [],
    **dict.fromkeys(("display_name", "logo_url", "colour", "support_email", "support_url", "privacy_url", "terms_url")),
}

# Headers of every response, which the document does not repeat for each.
UNDOCUMENTED = {"Content-Type", "Cache-Control", "X-Content-Type-Options"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str = field(repr=False)

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.text)
        return content


class Manage:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.module = functions.load("manage", cloud.environment)
        self.log = io.StringIO()
        functions.log_to(self.log)

    def call(self, method: str, path: str, body: Any = None, **changes: Any) -> Answer:
        """`path` is below /admin/v1, with its query; a `body` that is text is sent unchanged."""
        return self.answer(proxy_event(method, path, body) | changes)

    def program(self, token: str, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """The same below /v1, by a program with a token. `more`: `headers`, `source`."""
        return self.answer(with_token(proxy_event(method, path, body, prefix="/v1"), token, **more))

    def create_integration(self, *scopes: str, **more: Any) -> tuple[str, str]:
        """The id and the token of a private integration."""
        made = self.call("POST", "/private-integrations", {"name": "BI", "scopes": list(scopes), **more})
        assert made.status == 201, made.text
        return made.content["id"], made.content["token"]

    def answer(self, event: dict[str, Any]) -> Answer:
        return read(event, self.module.handler(event, functions.Context()))


@contextmanager
def watched(cloud: Cloud, canary: str = "canary") -> Iterator[Manage]:
    """At the end, no response and no log line contains a secret."""
    manage = Manage(cloud)
    answers: list[str] = []
    answer_of = manage.answer

    def kept(event: dict[str, Any]) -> Answer:
        answer = answer_of(event)
        answers.append(answer.text + json.dumps(answer.headers))
        return answer

    manage.answer = kept  # type: ignore[method-assign]
    yield manage
    assert canary not in manage.log.getvalue()
    assert not [answer for answer in answers if canary in answer]


def read(event: dict[str, Any], result: dict[str, Any]) -> Answer:
    """A function's response, which must match the API's document."""
    headers = {name: ", ".join(values) for name, values in result["multiValueHeaders"].items()}
    if "X-Portaria-Request-Id" in headers:
        return Answer(result["statusCode"], headers, result["body"])
    answer = Answer(result["statusCode"], headers, result["body"] or "")
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Request-Id"]
    operation = BY_RESOURCE.get((event["httpMethod"], event["resource"]))
    if operation:
        undocumented = {gateway.arrived(name) for name in headers} - UNDOCUMENTED - documented(operation, answer.status)
        assert undocumented == set(), f"{operation.id} sends headers that the API's document does not name"
    if answer.status >= 400:
        assert headers["Content-Type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "request_id"} <= set(answer.content)
        assert answer.content["status"] == answer.status
    elif operation and operation.output:
        shown = answer.content["items"] if operation.listing else [answer.content]
        for each in shown:
            operation.output.model_validate(each, strict=True)
    elif operation:
        assert answer.text == ""
    if operation:
        assert answer.status in operation_items.statuses(operation), f"{operation.id} may not answer {answer.status}"
    if operation and answer.status >= 400:
        reason = answer.content["type"].rpartition(":")[2]
        documented_reasons = operation_errors.reasons(operation).get(HTTPStatus(answer.status), ())
        assert reason in documented_reasons, f"{operation.id} may not answer {answer.status} {reason}"
    return answer


def documented(operation: Operation, status: int) -> set[str]:
    """The headers that the API's document names for a response."""
    document = api_document.build()
    path = operation_items.PREFIX + operation.document_path
    response = document["paths"][path][operation.method.lower()]["responses"].get(str(status), {})
    if reference := response.get("$ref"):
        response = document["components"]["responses"][reference.rpartition("/")[2]]
    return set(response.get("headers", {}))


def proxy_event(method: str, path: str, body: Any = None, prefix: str = "/admin/v1") -> dict[str, Any]:
    """A call by an administrator. `path` is below the prefix, with its query, percent-encoded."""
    parts = urlsplit(path)
    resource, parameters = _resource(parts.path)
    return gateway.proxy_event(
        method,
        prefix + resource,
        prefix + parts.path,
        path_parameters=parameters,
        query=parse_qs(parts.query, keep_blank_values=True),
        headers={"Content-Type": "application/json"},
        body=body if body is None or isinstance(body, str | bytes) else json.dumps(body),
        user_arn="arn:aws:iam::123456789012:user/administrator",
    )


def with_headers(event: dict[str, Any], **headers: str) -> dict[str, Any]:
    """An event with more headers; `if_match` stands for If-Match."""
    for name, value in headers.items():
        event["headers"][name.replace("_", "-")] = value
        event["multiValueHeaders"][name.replace("_", "-")] = [value]
    return event


def with_token(
    event: dict[str, Any], token: str, *, headers: dict[str, str] | None = None, source: str = "198.51.100.7"
) -> dict[str, Any]:
    """The event of a program with a token, or with an empty text for none."""
    signer = dict.fromkeys(("accessKey", "accountId", "caller", "user", "userArn"))
    event["requestContext"]["identity"] |= {**signer, "sourceIp": source}
    with_headers(event, **{"X-Forwarded-For": source})
    return with_headers(event, **({"authorization": f"Bearer {token}"} if token else {}) | (headers or {}))


def _resource(path: str) -> tuple[str, dict[str, str]]:
    """The resource that API Gateway matches with a path: literal segments before parameters."""
    steps = path.split("/")
    best: tuple[list[bool], str, dict[str, str]] | None = None
    for each in {operation.path for operation in OPERATIONS}:
        wanted, given_steps = each.split("/"), steps
        if wanted[-1].endswith("+}") and len(steps) > len(wanted):
            given_steps = [*steps[: len(wanted) - 1], "/".join(steps[len(wanted) - 1 :])]
        literal = [not step.startswith("{") for step in wanted]
        if len(wanted) == len(given_steps) and all(
            step == want or (not fixed and step) for step, want, fixed in zip(given_steps, wanted, literal, strict=True)
        ):
            given = {
                want[1:-1].rstrip("+"): step
                for step, want, fixed in zip(given_steps, wanted, literal, strict=True)
                if not fixed
            }
            best = max(best, (literal, each, given), key=lambda found: found[0]) if best else (literal, each, given)
    return (best[1], best[2]) if best else (path, {})


def secrets_stored() -> list[str]:
    answer = service_clients.client("secretsmanager").list_secrets(IncludePlannedDeletion=True)
    return [entry["Name"] for entry in answer["SecretList"]]


def empty() -> None:
    """Remove all items and secrets: creating another stack takes longer than a test."""
    dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables[TABLE].items.clear()
    secretsmanager_backends[DEFAULT_ACCOUNT_ID][REGION].secrets.clear()


TOKEN_URL = "https://123-abc-456.mktorest.com/identity/oauth/token"


CANARY = "canary-secret-5f2c"


def add_install(stack: Cloud, number: int, state: str = "connected", **fields: Any) -> str:
    install_id = f"{number:026d}"
    pk, sk = install_key(install_id)
    received_at = f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}.000Z"
    stack.table.put(
        {
            "pk": pk, "sk": sk, "state": state, "platform": "kommo", "client": "acme", "attempts": 1,
            "account_host": f"a{number}.kommo.com", "received_at": received_at,
            **install_lists(state, "kommo", fields.get("client", "acme")), **install_places(install_id, received_at), **fields,
        }
    )  # fmt: skip
    return install_id
