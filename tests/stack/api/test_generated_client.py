"""The generated client as a program uses it: an administrator connects an API, and the program calls it with its token."""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import httpx
import pytest

from tests.fakes.api.generated_client import PACKAGE, generated
from tests.fakes.local_cloud.scenes import secret
from tests.fakes.local_cloud.session import LocalCloud


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


@pytest.fixture
def client(stack: LocalCloud, package: str, erp: str) -> Iterator[Any]:
    """With a token that may list connections and call one."""
    scopes = ["connections:list", "connections:show", f"connections:call@{erp}"]
    token = administrator(stack, "private-integrations", {"name": "BI", "scopes": scopes})["token"]
    made = import_module(f"{package}.client").AuthenticatedClient(
        base_url=stack.public_url,
        token=token,
        raise_on_unexpected_status=True,
        verify_ssl=ssl.create_default_context(cafile=stack.stack.ca_bundle),
        timeout=httpx.Timeout(30),
        httpx_args={"proxy": stack.stack.proxy_url, "trust_env": False},
    )
    with made as client:
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
