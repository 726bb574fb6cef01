"""A mask that was copied from a page or a log is refused wherever a secret is expected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from portaria.connections import connection_store
from portaria.connections.vault import Vault
from tests.fakes.api.manage import Answer, Manage, watched
from tests.fakes.aws.moto_cloud import PREFIX, Cloud

ERP = {
    "platform": "http",
    "name": "erp",
    "kind": "api_key",
    "allowed_domain": "api.example.com",
    "fields": {"header_name": "X-Api-Key"},
    "credentials": {"key": "canary-key"},
}
CLIENT = {"platform": "kommo", "name": "acme", "client_id": "client-1", "client_secret": "canary-secret"}
MASKS = ("*****", "***", " ***** ", "********")


@pytest.fixture
def manage(stack: Cloud) -> Iterator[Manage]:
    with watched(stack) as manage:
        yield manage


def assert_masked(answer: Answer, field: str) -> None:
    assert (answer.status, answer.content["type"]) == (400, "urn:portaria:problem:masked_secret")
    assert answer.content["field"] == field
    assert "is a mask, not a secret" in answer.content["detail"]


def stored(stack: Cloud, name: str) -> dict[str, Any]:
    connection = connection_store.get(stack.table, name)
    found = Vault(PREFIX).read(connection.secret_id, connection.version_id)
    assert found
    return {key: value.reveal() for key, value in found.items()}


@pytest.mark.parametrize("mask", MASKS)
def test_create_connection_masked_credential_is_refused(manage: Manage, mask: str) -> None:
    assert_masked(manage.call("POST", "/connections", {**ERP, "credentials": {"key": mask}}), "credentials.key")
    assert manage.call("GET", "/connections").content["items"] == []


@pytest.mark.parametrize(("method", "path"), [("PUT", "/credentials"), ("POST", "/rotate")])
def test_replace_credentials_masked_credential_keeps_the_stored_one(
    manage: Manage, stack: Cloud, method: str, path: str
) -> None:
    assert manage.call("POST", "/connections", ERP).status == 201
    assert_masked(manage.call(method, f"/connections/erp{path}", {"credentials": {"key": "*****"}}), "credentials.key")
    assert stored(stack, "erp") == {"key": "canary-key"}
    assert manage.call("GET", "/connections/erp").content["generation"] == 1


def test_oauth_client_masked_secret_is_refused(manage: Manage) -> None:
    assert_masked(manage.call("POST", "/oauth-clients", {**CLIENT, "client_secret": "*****"}), "client_secret")
    assert manage.call("POST", "/oauth-clients", CLIENT).status == 201
    sent = {"client_id": "client-1", "client_secret": "*****"}
    assert_masked(manage.call("PUT", "/oauth-clients/kommo/acme", sent), "client_secret")
    kept = Vault(PREFIX).read(Vault(PREFIX).client_secret_id("kommo", "acme"))
    assert kept
    assert kept["client_secret"].reveal() == "canary-secret"


def test_oauth_client_masked_secret_among_other_errors_sets_the_reason(manage: Manage) -> None:
    """As if a client sends back what `GET` returned: its other fields are unknown as well."""
    answer = manage.call("POST", "/oauth-clients", {**CLIENT, "client_secret": "*****", "warnings": []})
    assert_masked(answer, "client_secret")
    assert [error["field"] for error in answer.content["errors"]] == ["client_secret", "warnings"]


def test_show_connection_and_client_list_stored_credentials_without_mask(manage: Manage) -> None:
    manage.call("POST", "/connections", ERP)
    manage.call("POST", "/oauth-clients", CLIENT)
    shown = manage.call("GET", "/connections/erp")
    assert shown.content["credentials_set"] == ["key"]
    assert "credentials" not in shown.content
    client = manage.call("GET", "/oauth-clients/kommo/acme")
    assert client.content["credentials_set"] == ["client_secret"]
    assert "*" not in shown.text + client.text.replace("*.kommo.com", "")
