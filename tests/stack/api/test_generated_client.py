"""The generated client as a program uses it: an administrator connects an API, and the program calls it with its token."""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Generator, Iterator
from importlib import import_module
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.fakes.api.generated_client import PACKAGE, generated
from tests.fakes.local_cloud.scenes import secret, wait_for
from tests.fakes.local_cloud.session import LocalCloud


class Signed(httpx.Auth):
    """AWS Signature Version 4, as an administrator's client signs."""

    requires_request_body = True

    def __init__(self, stack: LocalCloud) -> None:
        credentials = Credentials(stack.stack.access_key_id, stack.stack.secret_access_key)
        self.signer = SigV4Auth(credentials, "execute-api", stack.stack.region)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        headers = {name: value for name, value in request.headers.items() if name == "content-type"}
        signed = AWSRequest(method=request.method, url=str(request.url), data=request.content, headers=headers)
        self.signer.add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        yield request


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with generated(tmp_path_factory.mktemp("client")):
        yield PACKAGE


def operation(package: str, tag: str, name: str) -> Any:
    return import_module(f"{package}.api.{tag}.{name}")


def model(package: str, name: str) -> Any:
    return getattr(import_module(f"{package}.models"), name)


def administrator(stack: LocalCloud, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = stack.admin.request("POST", f"{stack.public_url}/admin/v1/{path}", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.fixture
def erp(stack: LocalCloud) -> str:
    """The name of a connection to an API with a key."""
    name, key = f"t{secrets.token_hex(4)}", secret()
    host = stack.control.add_oauth2_provider(name, name, key)["host"]
    connection = {"name": name, "platform": "http", "kind": "api_key", "allowed_domain": host}
    administrator(
        stack, "connections", {**connection, "fields": {"header_name": "X-Api-Key"}, "credentials": {"key": key}}
    )
    return name


def settings(stack: LocalCloud, **more: Any) -> dict[str, Any]:
    return {
        "raise_on_unexpected_status": True,
        "verify_ssl": ssl.create_default_context(cafile=stack.stack.ca_bundle),
        "timeout": httpx.Timeout(30),
        "httpx_args": {"proxy": stack.stack.proxy_url, "trust_env": False, **more},
    }


def program(stack: LocalCloud, package: str, token: str) -> Any:
    """A client with a private integration's token."""
    made = import_module(f"{package}.client").AuthenticatedClient
    return made(base_url=stack.public_url, token=token, **settings(stack))


@pytest.fixture
def client(stack: LocalCloud, package: str, erp: str) -> Iterator[Any]:
    """With a token that may list connections and call one."""
    scopes = ["connections:list", "connections:show", f"connections:call@{erp}"]
    token = administrator(stack, "private-integrations", {"name": "BI", "scopes": scopes})["token"]
    with program(stack, package, token) as client:
        yield client


@pytest.fixture
def root(stack: LocalCloud, package: str) -> Iterator[Any]:
    """An administrator's client."""
    made = import_module(f"{package}.client").Client
    with made(base_url=f"{stack.public_url}/admin", **settings(stack, auth=Signed(stack))) as client:
        yield client


def test_generated_client_call_returns_the_api_answer(package: str, client: Any, erp: str) -> None:
    request = model(package, "CallRequest").from_dict({"method": "GET", "path": "/api/me"})
    answer = operation(package, "connections", "call_connection").sync(erp, client=client, body=request)
    assert answer.status == 200
    assert json.loads(answer.body) == {"sub": erp}


def test_generated_client_listing_pages_until_the_cursor_is_null(package: str, client: Any, erp: str) -> None:
    listing = operation(package, "connections", "list_connections")
    names: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = listing.sync(client=client, limit=2, **cursor)
        names += [item.name for item in page.items]
        if page.next_cursor is None:
            break
        cursor = {"cursor": page.next_cursor}
    assert erp in names
    assert len(names) == len(set(names))


def test_generated_client_unknown_connection_is_a_problem(package: str, client: Any) -> None:
    answer = operation(package, "connections", "show_connection").sync_detailed("nobody", client=client)
    assert answer.status_code == 404
    assert isinstance(answer.parsed, model(package, "Problem"))
    assert answer.parsed.type_ == "urn:portaria:problem:unknown_connection"


def test_generated_client_scope_that_the_token_lacks_is_a_problem(package: str, client: Any) -> None:
    answer = operation(package, "audit", "list_audit").sync_detailed(client=client)
    assert answer.status_code == 403
    assert answer.parsed.type_ == "urn:portaria:problem:missing_scope"


class Caller:
    """One caller's operations by name: `caller.routes.create_route(...)` returns the model of the response."""

    def __init__(self, package: str, client: Any, tag: str = "") -> None:
        self.package, self.client, self.tag = package, client, tag

    def __getattr__(self, name: str) -> Any:
        if not self.tag:
            return Caller(self.package, self.client, name)

        def call(*path: str, body: dict[str, Any] | None = None, **query: Any) -> Any:
            module = operation(self.package, self.tag, name)
            if body is not None:
                query["body"] = module.sync.__annotations__["body"].from_dict(body)
            answer = module.sync(*path, client=self.client, **query)
            assert not isinstance(answer, model(self.package, "Problem")), answer
            return answer

        return call


def test_generated_client_runs_the_quickstart(stack: LocalCloud, package: str, root: Any, erp: str) -> None:
    """The API's part of docs/quickstart.md: connect, install, route, change, send, find the outcome, and call an API."""
    name = f"t{secrets.token_hex(4)}"
    destination, route, key = f"marketo-{name}", f"route-{name}", secret()
    install_url = f"{stack.public_url}/install/kommo/{name}"
    stack.control.add_kommo_client(f"id-{name}", key, install_url)
    munchkin = f"{secrets.randbelow(1000):03d}-QST-{secrets.randbelow(1000):03d}"
    stack.control.add_marketo_instance(munchkin, destination, key)
    host = str(stack.control.add_kommo_account(name, contacts=20, without_email=0.5)["host"])
    admin = Caller(package, root)

    admin.o_auth_clients.create_oauth_client(
        body={
            "platform": "kommo",
            "name": name,
            "client_id": f"id-{name}",
            "client_secret": key,
            "redirect_uri": install_url,
        }
    )
    made = admin.connections.create_connection(
        body={
            "name": destination,
            "platform": "marketo",
            "fields": {"munchkin_id": munchkin},
            "credentials": {"client_id": destination, "client_secret": key},
        }
    )
    assert (made.state, made.credentials_set) == ("connected", ["client_id", "client_secret"])
    planned = {"source": f"client:kommo/{name}", "object": "contacts", "destination": destination}
    admin.routes.create_route(body={"name": route, **planned})

    code = stack.control.issue_code(f"id-{name}", host).code
    query = {"code": code, "referer": host, "from_widget": "1"}
    assert stack.web.get(install_url, params=query, allow_redirects=False).status_code == 200
    (install,) = wait_for(
        lambda: [each for each in admin.installs.list_installs(limit=50).items if each.client == name],
        lambda found: bool(found) and found[0].state == "connected",
    )
    source = admin.installs.show_install(install.id).connection
    wait_for(
        lambda: admin.receipts.list_receipts(destination=destination).items,
        lambda found: any(each.state == "accepted" for each in found),
    )
    found = wait_for(
        lambda: admin.dead_letters.list_dead_letters(connection=source, reason="no_dedupe_value").items, bool
    )
    assert admin.dead_letters.show_dead_letter(found[0].id).content
    assert route in [each.name for each in admin.routes.list_routes(destination=destination).items]

    mapping = {"email": "custom_fields_values[?field_code=='EMAIL'].values[].value | [0]", "firstName": "first_name"}
    changed = admin.routes.replace_route(route, body={**planned, "mapping": mapping})
    assert changed.mapping.additional_properties == mapping
    assert [each.route for each in admin.connections.start_backfill(source, body={"route": route}).runs] == [route]
    assert [each.route for each in admin.connections.list_backfills(source).runs] == [route]

    scopes = [f"records:create@{destination}", "receipts:list", "receipts:show", f"connections:call@{erp}"]
    token = admin.private_integrations.create_private_integration(body={"name": "Website", "scopes": scopes}).token
    with program(stack, package, token) as client:
        website = Caller(package, client)
        assert sorted(website.discovery.show_caller().scopes) == sorted(scopes)
        value = {"field_code": "EMAIL", "values": [{"value": "maria@example.com"}]}
        record = {"key": "7", "data": {"first_name": "Maria", "custom_fields_values": [value]}}
        sent = website.routes.send_records(body={"route": route, "connection": source, "records": [record]})
        assert sent.record_count == 1
        (receipt,) = wait_for(
            lambda: website.receipts.list_receipts(request=sent.id).items,
            lambda found: bool(found) and found[0].state == "accepted",
        )
        assert website.receipts.show_receipt(receipt.id).destination == destination
        called = website.connections.call_connection(erp, body={"method": "GET", "path": "/api/me"})
        assert json.loads(called.body) == {"sub": erp}
    assert stack.control.marketo_persons(munchkin, "maria@example.com")
    done = [each.operation for each in admin.audit.list_audit(limit=20).items]
    assert {"send_records", "create_private_integration", "replace_route"} <= set(done)
