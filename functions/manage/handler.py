"""The administrators' API: OAuth clients, connections, routes and installs. AWS IAM has decided who may call it."""

import os
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.administration import answers, authorizations, connections, inputs, installs, oauth_clients, routes
from portaria.administration.answers import PREFIX
from portaria.settings import ManageSettings
from portaria.table import Table
from portaria.vault import Vault

logger = Logger()
settings = ManageSettings.from_env()
table = Table(settings.table_name)
vault = Vault(settings.secrets_prefix)

app = answers.new_app(logger)
router = Router()  # type: ignore[no-untyped-call]


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return answers.resolve(app, event, context)


@router.get("/oauth-clients")
def list_oauth_clients() -> Response[str]:
    limit, cursor, _ = _listing()
    return answers.page(*oauth_clients.list_page(table, cursor, limit))


@router.post("/oauth-clients")
def create_oauth_client() -> Response[str]:
    return answers.answer(HTTPStatus.CREATED, oauth_clients.create(table, vault, _body(), _api_url()))


@router.get("/oauth-clients/<platform>/<name>")
def show_oauth_client(platform: str, name: str) -> Response[str]:
    return answers.answer(HTTPStatus.OK, oauth_clients.get(table, platform, name, _api_url()))


@router.put("/oauth-clients/<platform>/<name>")
def replace_oauth_client(platform: str, name: str) -> Response[str]:
    return answers.answer(HTTPStatus.OK, oauth_clients.replace(table, vault, platform, name, _body(), _api_url()))


@router.delete("/oauth-clients/<platform>/<name>")
def delete_oauth_client(platform: str, name: str) -> Response[str]:
    oauth_clients.delete(table, vault, platform, name)
    return answers.answer(HTTPStatus.NO_CONTENT)


@router.get("/connections")
def list_connections() -> Response[str]:
    limit, cursor, _ = _listing()
    return answers.page(*connections.list_page(table, cursor, limit))


@router.post("/connections")
def create_connection() -> Response[str]:
    return answers.answer(HTTPStatus.CREATED, connections.create(table, vault, _body()))


@router.get("/connections/<name>")
def show_connection(name: str) -> Response[str]:
    return answers.answer(HTTPStatus.OK, connections.get(table, name))


@router.put("/connections/<name>")
def replace_connection(name: str) -> Response[str]:
    return answers.answer(HTTPStatus.OK, connections.replace(table, vault, name, _body()))


@router.delete("/connections/<name>")
def delete_connection(name: str) -> Response[str]:
    connections.delete(table, settings.uninstalls_queue_url, name)
    return answers.answer(HTTPStatus.NO_CONTENT)


@router.post("/connections/<name>/rotate")
def rotate_connection(name: str) -> Response[str]:
    return answers.answer(HTTPStatus.OK, connections.rotate(table, vault, name, _body()))


@router.post("/connections/<name>/rotate/expire")
def expire_rotation(name: str) -> Response[str]:
    return answers.answer(HTTPStatus.OK, connections.expire(table, vault, name))


@router.get("/connections/<name>/authorize")
def authorize_connection(name: str) -> Response[str]:
    return answers.answer(HTTPStatus.OK, authorizations.begin(table, name))


@router.get("/routes")
def list_routes() -> Response[str]:
    limit, cursor, _ = _listing()
    return answers.page(*routes.list_page(table, cursor, limit))


@router.post("/routes")
def create_route() -> Response[str]:
    return answers.answer(HTTPStatus.CREATED, routes.create(table, _body()))


@router.get("/routes/<name>")
def show_route(name: str) -> Response[str]:
    return answers.answer(HTTPStatus.OK, routes.get(table, name))


@router.put("/routes/<name>")
def replace_route(name: str) -> Response[str]:
    return answers.answer(HTTPStatus.OK, routes.replace(table, name, _body()))


@router.delete("/routes/<name>")
def delete_route(name: str) -> Response[str]:
    routes.delete(table, name)
    return answers.answer(HTTPStatus.NO_CONTENT)


@router.get("/installs")
def list_installs() -> Response[str]:
    limit, cursor, given = _listing("state")
    return answers.page(*installs.list_page(table, cursor, limit, given.get("state")))


@router.get("/installs/<install>")
def show_install(install: str) -> Response[str]:
    return answers.answer(HTTPStatus.OK, installs.get(table, install))


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


app.include_router(router, prefix=PREFIX)
