"""The console as a client of the API: each call is an event as API Gateway hands it over, answered in this process.

So a click passes the same checks as a request: scopes, validation, ETags, idempotency keys and the audit trail. Operations of
the function `call_connection`, which has the right to use credentials, are carried out by that function. It is invoked as API
Gateway invokes it, after the session's scopes have been checked here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from portaria.api.authentication import ADMIN_PREFIX, Caller
from portaria.api.operation import Operation
from portaria.api.router import Service
from portaria.core.errors import Rejected
from portaria.core.http.request import HttpRequest
from portaria.web.console.sections import BY_ID

Content = dict[str, Any]
Invoke = Callable[[Content], Content]
Query = dict[str, str]
HERE = "manage"


@dataclass(frozen=True)
class Problem(Exception):
    """The API's refusal: its problem document."""

    status: int
    reason: str
    detail: str
    field: str
    errors: tuple[tuple[str, str], ...] = ()
    request_id: str = ""


@dataclass(frozen=True)
class Answer:
    content: Content
    etag: str = ""


@dataclass
class ApiCalls:
    """`invoke` carries out an event in the function `call_connection`. `base_path` is what precedes the API's own paths in
    the URL: the stage."""

    service: Service
    caller: Caller
    request: HttpRequest
    context: Any
    invoke: Invoke
    base_path: str = ""

    def allows(self, operation: str, path: dict[str, str] | None = None) -> bool:
        """Whether the session may do this, so that a page shows only what works."""
        try:
            self.service.require_scope(BY_ID[operation], self.caller, path or {})
        except Rejected:
            return False
        return True

    def call(
        self,
        operation_id: str,
        path: dict[str, str] | None = None,
        *,
        query: Query | None = None,
        body: Content | None = None,
        key: str = "",
        etag: str = "",
    ) -> Answer:
        """Raises `Problem`."""
        operation = BY_ID[operation_id]
        event = self._event(operation, path or {}, query or {}, body, key, etag)
        if operation.function == HERE:
            answer = self.service.answer(HttpRequest.from_event(event), self.context, self.caller)
        else:
            self.service.require_scope(operation, self.caller, path or {})
            answer = self.invoke(event)
        return _read(answer)

    def _event(
        self, operation: Operation, path: dict[str, str], query: Query, body: Content | None, key: str, etag: str
    ) -> Content:
        resource = ADMIN_PREFIX + operation.path
        filled = resource
        for name, value in path.items():
            filled = filled.replace(f"{{{name}}}", quote(value, safe=""))
        headers = {"Content-Type": ["application/json"]} if body is not None else {}
        if key and operation.creates:
            headers["Idempotency-Key"] = [key]
        if etag and operation.edits:
            headers["If-Match"] = [f'"{etag}"']
        return {
            "httpMethod": operation.method,
            "resource": resource,
            "path": filled,
            "pathParameters": path or None,
            "multiValueQueryStringParameters": {name: [value] for name, value in query.items() if value} or None,
            "multiValueHeaders": headers,
            "body": None if body is None else json.dumps(body),
            "isBase64Encoded": False,
            "requestContext": {
                "requestId": self.request.request_id,
                "domainName": self.request.host,
                "path": self.base_path + filled,
                "resourcePath": resource,
                "consoleSession": self.caller.name,
                "identity": {"userArn": self.caller.id, "sourceIp": self.request.source_address},
            },
        }


def _read(answer: Content) -> Answer:
    headers = answer.get("multiValueHeaders") or {}
    text = str(answer.get("body") or "")
    content = json.loads(text) if text else {}
    status = int(answer["statusCode"])
    if status >= 400:
        errors = tuple((str(each["field"]), str(each["detail"])) for each in content.get("errors", []))
        raise Problem(
            status,
            str(content.get("type", "")).rpartition(":")[2],
            str(content.get("detail", "")),
            str(content.get("field") or ""),
            errors,
            str(content.get("request_id", "")),
        )
    return Answer(content, str((headers.get("ETag") or [""])[0]).strip('"'))
