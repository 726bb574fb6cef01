"""How the administrators' functions answer: JSON, or a problem document (RFC 9457), and neither may be cached."""

from __future__ import annotations

import json
import re
import traceback
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError

from portaria.administration import inputs, problems
from portaria.contract import Rejected, Retryable

PREFIX = "/admin/v1"
MAX_PATH_LENGTH = 300
# Where whoever puts a call off does not say for how long.
RETRY_AFTER_S = 5


def new_app(logger: Logger) -> APIGatewayRestResolver:
    """A resolver without routes, which makes a problem document of every error."""
    # A custom domain's base path comes before the API's own.
    app = APIGatewayRestResolver(strip_prefixes=[re.compile(rf"^/.+?(?={PREFIX}/)")])

    def ask_to_retry(later: Retryable) -> Response[str]:
        logger.warning("a call was put off", reason=later.reason, detail=later.detail)
        return put_off(later, later.detail)

    def fail(error: Exception) -> Response[str]:
        # Its text may quote what was sent, so only its kind and place are told, and those only to the log.
        logger.error("a call failed", error=type(error).__name__, at=traceback.format_tb(error.__traceback__))
        request_id = app.lambda_context.aws_request_id
        detail = f"something failed here; the function's log tells more under the request {request_id}"
        return problem(problems.problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail))

    def unknown_path(_: NotFoundError) -> Response[str]:
        return problem(problems.problem(HTTPStatus.NOT_FOUND, "unknown_path", "there is nothing at this path"))

    app.exception_handler(Rejected)(refuse)
    app.exception_handler(Retryable)(ask_to_retry)
    app.exception_handler(Exception)(fail)
    app.not_found(unknown_path)
    return app


def resolve(app: APIGatewayRestResolver, event: dict[str, Any], context: Any) -> dict[str, Any]:
    if len(event["path"]) > MAX_PATH_LENGTH:
        # No name is that long, nor would DynamoDB take it for a key.
        event["path"] = "/"
    return app.resolve(event, context)


def answer(status: int, content: dict[str, Any] | None = None) -> Response[str]:
    body = "" if content is None else json.dumps(content, ensure_ascii=False)
    return Response(status, "application/json", body, headers={"Cache-Control": "no-store"})


def page(items: list[dict[str, Any]], next_cursor: str | None) -> Response[str]:
    return answer(HTTPStatus.OK, {"items": items, "next_cursor": next_cursor})


def problem(document: problems.Problem) -> Response[str]:
    body = json.dumps(document, ensure_ascii=False)
    return Response(document["status"], problems.CONTENT_TYPE, body, headers={"Cache-Control": "no-store"})


def refuse(rejected: Rejected) -> Response[str]:
    document = problems.problem(rejected.status, rejected.reason, rejected.detail, field=rejected.field)
    if isinstance(rejected, inputs.InvalidInput) and len(rejected.errors) > 1:
        document["errors"] = [{"field": field, "detail": detail} for field, detail in rejected.errors]
    return problem(document)


def put_off(later: Retryable, detail: str) -> Response[str]:
    """503, with the wait that was asked for."""
    found = problem(problems.problem(HTTPStatus.SERVICE_UNAVAILABLE, later.reason, detail))
    found.headers["Retry-After"] = str(round(later.after_s or RETRY_AFTER_S))
    return found
