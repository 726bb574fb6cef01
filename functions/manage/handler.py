"""The administrators' API: OAuth clients, connections, routes and installs. AWS IAM has decided who may call it."""

import json
import os
import re
import traceback
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.administration import connections, inputs, installs, oauth_clients, problems, routes
from portaria.contract import Rejected, Retryable
from portaria.settings import ManageSettings
from portaria.table import Table
from portaria.vault import Vault

PREFIX = "/admin/v1"
MAX_PATH_LENGTH = 300

logger = Logger()
settings = ManageSettings.from_env()
table = Table(settings.table_name)
vault = Vault(settings.secrets_prefix)

# A custom domain's base path comes before the API's own.
app = APIGatewayRestResolver(strip_prefixes=[re.compile(rf"^/.+?(?={PREFIX}/)")])
router = Router()  # type: ignore[no-untyped-call]


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    if len(event["path"]) > MAX_PATH_LENGTH:
        # No name is that long, nor would DynamoDB take it for a key.
        event["path"] = "/"
    return app.resolve(event, context)


@router.get("/oauth-clients")
def list_oauth_clients() -> Response[str]:
    limit, cursor, _ = _listing()
    return _page(*oauth_clients.list_page(table, cursor, limit))


@router.post("/oauth-clients")
def create_oauth_client() -> Response[str]:
    return _answer(HTTPStatus.CREATED, oauth_clients.create(table, vault, _body(), _api_url()))


@router.get("/oauth-clients/<platform>/<name>")
def show_oauth_client(platform: str, name: str) -> Response[str]:
    return _answer(HTTPStatus.OK, oauth_clients.get(table, platform, name, _api_url()))


@router.put("/oauth-clients/<platform>/<name>")
def replace_oauth_client(platform: str, name: str) -> Response[str]:
    return _answer(HTTPStatus.OK, oauth_clients.replace(table, vault, platform, name, _body(), _api_url()))


@router.delete("/oauth-clients/<platform>/<name>")
def delete_oauth_client(platform: str, name: str) -> Response[str]:
    oauth_clients.delete(table, vault, platform, name)
    return _answer(HTTPStatus.NO_CONTENT)


@router.get("/connections")
def list_connections() -> Response[str]:
    limit, cursor, _ = _listing()
    return _page(*connections.list_page(table, cursor, limit))


@router.post("/connections")
def create_connection() -> Response[str]:
    return _answer(HTTPStatus.CREATED, connections.create(table, vault, _body()))


@router.get("/connections/<name>")
def show_connection(name: str) -> Response[str]:
    return _answer(HTTPStatus.OK, connections.get(table, name))


@router.put("/connections/<name>")
def replace_connection(name: str) -> Response[str]:
    return _answer(HTTPStatus.OK, connections.replace(table, vault, name, _body()))


@router.delete("/connections/<name>")
def delete_connection(name: str) -> Response[str]:
    connections.delete(table, vault, name)
    return _answer(HTTPStatus.NO_CONTENT)


@router.get("/routes")
def list_routes() -> Response[str]:
    limit, cursor, _ = _listing()
    return _page(*routes.list_page(table, cursor, limit))


@router.post("/routes")
def create_route() -> Response[str]:
    return _answer(HTTPStatus.CREATED, routes.create(table, _body()))


@router.get("/routes/<name>")
def show_route(name: str) -> Response[str]:
    return _answer(HTTPStatus.OK, routes.get(table, name))


@router.put("/routes/<name>")
def replace_route(name: str) -> Response[str]:
    return _answer(HTTPStatus.OK, routes.replace(table, name, _body()))


@router.delete("/routes/<name>")
def delete_route(name: str) -> Response[str]:
    routes.delete(table, name)
    return _answer(HTTPStatus.NO_CONTENT)


@router.get("/installs")
def list_installs() -> Response[str]:
    limit, cursor, given = _listing("state")
    return _page(*installs.list_page(table, cursor, limit, given.get("state")))


@router.get("/installs/<install>")
def show_install(install: str) -> Response[str]:
    return _answer(HTTPStatus.OK, installs.get(table, install))


@app.exception_handler(Rejected)  # type: ignore[untyped-decorator]
def refuse(rejected: Rejected) -> Response[str]:
    problem = problems.problem(rejected.status, rejected.reason, rejected.detail, field=rejected.field)
    if isinstance(rejected, inputs.InvalidInput) and len(rejected.errors) > 1:
        problem["errors"] = [{"field": field, "detail": detail} for field, detail in rejected.errors]
    return _problem(problem)


@app.exception_handler(Retryable)  # type: ignore[untyped-decorator]
def ask_to_retry(later: Retryable) -> Response[str]:
    logger.warning("a call was put off", reason=later.reason, detail=later.detail)
    answer = _problem(problems.problem(HTTPStatus.SERVICE_UNAVAILABLE, later.reason, later.detail))
    answer.headers["Retry-After"] = str(round(later.after_s or 5))
    return answer


@app.exception_handler(Exception)  # type: ignore[untyped-decorator]
def fail(error: Exception) -> Response[str]:
    # Its text may quote what was sent, so only its kind and place are told, and those only to the log.
    logger.error("a call failed", error=type(error).__name__, at=traceback.format_tb(error.__traceback__))
    request_id = app.lambda_context.aws_request_id
    detail = f"something failed here; the function's log tells more under the request {request_id}"
    return _problem(problems.problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail))


@app.not_found
def unknown_path(_: NotFoundError) -> Response[str]:
    return _problem(problems.problem(HTTPStatus.NOT_FOUND, "unknown_path", "there is nothing at this path"))


def _body() -> dict[str, Any]:
    return inputs.read_body(app.current_event.body, bool(app.current_event.is_base64_encoded))


def _listing(*allowed: str) -> tuple[int, str | None, dict[str, str]]:
    return inputs.read_listing(app.current_event.resolved_query_string_parameters, *allowed)


def _api_url() -> str:
    """Where this call reached the API, without the part of the path that is its own: a custom domain's, if it has one."""
    request = app.current_event["requestContext"]
    base_path = request["path"].partition(f"{PREFIX}/")[0]
    host = request.get("domainName") or f"{request['apiId']}.execute-api.{os.environ['AWS_REGION']}.amazonaws.com"
    return f"https://{host}{base_path}"


def _page(items: list[dict[str, Any]], next_cursor: str | None) -> Response[str]:
    return _answer(HTTPStatus.OK, {"items": items, "next_cursor": next_cursor})


def _answer(status: int, content: dict[str, Any] | None = None) -> Response[str]:
    body = "" if content is None else json.dumps(content, ensure_ascii=False)
    return Response(status, "application/json", body, headers={"Cache-Control": "no-store"})


def _problem(problem: problems.Problem) -> Response[str]:
    body = json.dumps(problem, ensure_ascii=False)
    return Response(problem["status"], problems.CONTENT_TYPE, body, headers={"Cache-Control": "no-store"})


app.include_router(router, prefix=PREFIX)
