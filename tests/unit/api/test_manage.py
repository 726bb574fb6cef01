"""The administrators' API: the life of each resource, with platforms faked at the edge of `requests`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from botocore.exceptions import ClientError

from portaria.aws import queues, service_clients
from portaria.aws.table import Conflict
from portaria.connections import connection_store, oauth_clients
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.entities import Connection
from tests.fakes.api.manage import (
    API_HOST,
    API_URL,
    CANARY,
    NO_BRANDING,
    REQUEST_ID,
    TOKEN_URL,
    Manage,
    add_install,
    proxy_event,
    secrets_stored,
    watched,
)
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.paths import ROOT
from tests.fakes.template import document

EVENTS = ROOT / "events" / "manage"

CLIENT = {"platform": "kommo", "name": "acme", "client_id": "client-1", "client_secret": f"{CANARY}-client"}
CONNECTION = {
    "name": "marketo-main",
    "platform": "marketo",
    "fields": {"munchkin_id": "123-ABC-456"},
    "credentials": {"client_id": "marketo-1", "client_secret": f"{CANARY}-marketo"},
}
ROUTE = {"name": "people", "source": "client:kommo/acme", "object": "contacts", "destination": "marketo-main"}


@pytest.fixture
def manage(stack: Cloud, capsys: pytest.CaptureFixture[str]) -> Iterator[Manage]:
    """In every test, no response and no log line contains a secret."""
    with watched(stack, CANARY) as manage:
        yield manage
    printed = capsys.readouterr()
    assert CANARY not in printed.out + printed.err


@pytest.fixture
def marketo() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        token = {
            "access_token": f"{CANARY}-token",
            "token_type": "bearer",
            "expires_in": 3599,
            "scope": "a@example.com",
        }
        mock.post(TOKEN_URL, json=token)
        yield mock


@pytest.fixture
def furnished(manage: Manage, marketo: responses.RequestsMock) -> Manage:
    assert manage.call("POST", "/oauth-clients", CLIENT).status == 201
    assert manage.call("POST", "/connections", CONNECTION).status == 201
    return manage


def secret(name: str) -> dict[str, Any] | None:
    try:
        answer = service_clients.client("secretsmanager").get_secret_value(SecretId=f"{PREFIX}/{name}")
    except ClientError:
        return None
    content: dict[str, Any] = json.loads(answer["SecretString"])
    return content


def credentials_of(stack: Cloud, name: str) -> dict[str, Any] | None:
    """The vault's content of the version that a connection points to."""
    connection = connection_store.get(stack.table, name)
    stored = Vault(PREFIX).read(connection.secret_id, connection.version_id)
    return stored and {name: value.reveal() for name, value in stored.items()}


class TestPaths:
    def test_manage_answers_every_path_of_the_template(self, manage: Manage) -> None:
        (function,) = [function for function in document.functions() if function.name == "manage"]
        told = set(function.methods)
        assert told
        for method, path in told:
            event = proxy_event(method.upper(), "/routes", "{}") | {"resource": path, "path": path}
            answer = manage.module.handler(event, functions.Context())
            # The reference page names every problem type.
            assert answer["statusCode"] == 200 or "unknown_path" not in answer["body"], (method, path)
        assert manage.call("GET", "/nothing").content["type"] == "urn:portaria:problem:unknown_path"

    def test_create_oauth_client_custom_domain_base_path_is_in_redirect_uri(self, manage: Manage) -> None:
        event = proxy_event("POST", "/oauth-clients", CLIENT)
        event["path"] = "/portaria/admin/v1/oauth-clients"
        event["requestContext"] |= {"path": "/portaria/admin/v1/oauth-clients", "domainName": "api.example.com"}
        answer = manage.answer(event)
        assert answer.status == 201
        assert answer.content["redirect_uri"] == "https://api.example.com/portaria/install/kommo/acme"

    @pytest.mark.parametrize("sent", ["/live/admin/v1/oauth-clients/", "/live//admin/v1/oauth-clients"])
    def test_create_oauth_client_path_with_extra_slashes_keeps_redirect_uri(self, manage: Manage, sent: str) -> None:
        # Recorded in tests/aws/recorded/apigateway.py, `apigateway_trailing_slash_matches_the_same_resource`.
        event = proxy_event("POST", "/oauth-clients", CLIENT)
        event["requestContext"]["path"] = sent
        answer = manage.answer(event)
        assert answer.content["redirect_uri"] == f"{API_URL}/install/kommo/acme"

    @pytest.mark.parametrize("name", ["acme%2Fcrm", "acme%20crm", "acme%2Dcrm", "%2e%2e"])
    def test_show_connection_percent_encoded_name_is_unknown_path(self, manage: Manage, name: str) -> None:
        # A path parameter stays percent-encoded: tests/aws/recorded/apigateway.py, `apigateway_path_stays_percent_encoded`.
        answer = manage.call("GET", f"/connections/{name}")
        assert (answer.status, answer.content["type"]) == (404, "urn:portaria:problem:unknown_path")

    def test_create_oauth_client_without_domain_name_uses_api_host(self, manage: Manage) -> None:
        event = proxy_event("POST", "/oauth-clients", CLIENT)
        del event["requestContext"]["domainName"]
        assert manage.answer(event).content["redirect_uri"] == f"{API_URL}/install/kommo/acme"

    @pytest.mark.parametrize("file", sorted(EVENTS.glob("*.json")), ids=lambda file: file.stem)
    def test_manage_sample_event_is_answered(self, manage: Manage, marketo: responses.RequestsMock, file: Path) -> None:
        answer = manage.answer(json.loads(file.read_text()))
        assert answer.status in (200, 201, 400, 404)
        assert "unknown_path" not in answer.text


class TestOAuthClients:
    def test_create_oauth_client_is_stored_and_shown_with_redirect_uri(self, manage: Manage) -> None:
        created = manage.call("POST", "/oauth-clients", CLIENT)
        assert created.status == 201
        assert created.content == {
            "platform": "kommo",
            "name": "acme",
            "client_id": "client-1",
            "credentials_set": ["client_secret"],
            "redirect_uri": f"https://{API_HOST}/live/install/kommo/acme",
            "scopes": None,
            "api_domains": ["*.kommo.com"],
            "install_page_url": f"https://{API_HOST}/live/install/kommo/acme/start",
            "grant": None,
            "authorize_url": None,
            "token_url": None,
            "token_auth": None,
            **NO_BRANDING,
            "warnings": [],
        }
        assert secret("oauth-clients/kommo/acme") == {"client_secret": f"{CANARY}-client"}
        assert manage.call("GET", "/oauth-clients/kommo/acme").content == created.content
        assert [item["name"] for item in manage.call("GET", "/oauth-clients").content["items"]] == ["acme"]

    def test_create_oauth_client_redirect_uri_is_kept_unchanged(self, manage: Manage, stack: Cloud) -> None:
        uri = "https://Hooks.example.com/install/kommo/acme/"
        answer = manage.call("POST", "/oauth-clients", {**CLIENT, "redirect_uri": uri})
        assert answer.content["redirect_uri"] == uri
        assert answer.content["install_page_url"] == "https://Hooks.example.com/install/kommo/acme/start"
        assert answer.content["warnings"] == []
        assert oauth_clients.get(stack.table, "kommo", "acme").redirect_uri == uri

    def test_create_oauth_client_foreign_redirect_uri_is_warned_about(self, manage: Manage) -> None:
        answer = manage.call("POST", "/oauth-clients", {**CLIENT, "redirect_uri": "https://example.com/kommo"})
        assert answer.status == 201
        assert f"{API_URL}/install/kommo/acme" in answer.content["warnings"][0]

    def test_create_oauth_client_existing_name_is_refused_and_keeps_secret(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        again = manage.call("POST", "/oauth-clients", {**CLIENT, "client_secret": f"{CANARY}-other"})
        assert (again.status, again.content["field"]) == (409, "name")
        assert secret("oauth-clients/kommo/acme") == {"client_secret": f"{CANARY}-client"}

    def test_create_oauth_client_killed_after_secret_write_can_be_repeated(
        self, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(oauth_clients, "put", _die)
            assert manage.call("POST", "/oauth-clients", CLIENT).status == 500
        again = manage.call("POST", "/oauth-clients", {**CLIENT, "client_secret": f"{CANARY}-second"})
        assert again.status == 201
        assert secret("oauth-clients/kommo/acme") == {"client_secret": f"{CANARY}-second"}

    def test_replace_oauth_client_without_secret_keeps_it(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        answer = manage.call("PUT", "/oauth-clients/kommo/acme", {"client_id": "client-2", "scopes": "crm"})
        assert (answer.status, answer.content["client_id"], answer.content["scopes"]) == (200, "client-2", "crm")
        assert secret("oauth-clients/kommo/acme") == {"client_secret": f"{CANARY}-client"}
        manage.call("PUT", "/oauth-clients/kommo/acme", {"client_id": "client-2", "client_secret": f"{CANARY}-new"})
        assert secret("oauth-clients/kommo/acme") == {"client_secret": f"{CANARY}-new"}

    def test_replace_oauth_client_unknown_is_not_found(self, manage: Manage) -> None:
        answer = manage.call("PUT", "/oauth-clients/kommo/none", {"client_id": "x", "client_secret": CANARY})
        assert answer.status == 404
        assert secrets_stored() == []

    def test_delete_oauth_client_removes_secret_and_name_can_be_reused(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        deleted = manage.call("DELETE", "/oauth-clients/kommo/acme")
        assert (deleted.status, deleted.text) == (204, "")
        assert secrets_stored() == []
        assert manage.call("GET", "/oauth-clients/kommo/acme").status == 404
        assert manage.call("DELETE", "/oauth-clients/kommo/acme").status == 404
        assert manage.call("POST", "/oauth-clients", CLIENT).status == 201

    def test_delete_oauth_client_repeated_after_kill_removes_left_secret(
        self, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        with monkeypatch.context() as patch:
            patch.setattr(Vault, "remove", _die)
            assert manage.call("DELETE", "/oauth-clients/kommo/acme").status == 500
        assert manage.call("DELETE", "/oauth-clients/kommo/acme").status == 404
        assert secrets_stored() == []

    def test_delete_oauth_client_used_by_route_is_refused(self, furnished: Manage) -> None:
        furnished.call("POST", "/routes", ROUTE)
        answer = furnished.call("DELETE", "/oauth-clients/kommo/acme")
        assert answer.status == 409
        assert "people" in answer.content["detail"]
        assert secret("oauth-clients/kommo/acme")

    def test_delete_oauth_client_used_by_connection_is_refused(self, manage: Manage, stack: Cloud) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        manage.call("POST", "/oauth-clients", {**CLIENT, "name": "acme-two"})
        connection_store.create(stack.table, kommo_connection("kommo-acme-two-7", client="acme-two"))
        assert manage.call("DELETE", "/oauth-clients/kommo/acme-two").status == 409
        assert manage.call("DELETE", "/oauth-clients/kommo/acme").status == 204

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": "A"}, "name"),
            ({"name": "Acme"}, "name"),
            ({"name": "a"}, "name"),
            ({"name": "-acme"}, "name"),
            ({"name": "a" * 33}, "name"),
            ({"name": "a/b"}, "name"),
            ({"name": "acme\n"}, "name"),
            ({"name": 12}, "name"),
            ({"name": None}, "name"),
            ({"platform": "marketo"}, "platform"),
            ({"platform": "unknown"}, "platform"),
            ({"platform": "../kommo"}, "platform"),
            ({"platform": "os"}, "platform"),
            ({"client_id": ""}, "client_id"),
            ({"client_id": "a b"}, "client_id"),
            ({"client_id": "ação"}, "client_id"),
            ({"client_id": "a" * 256}, "client_id"),
            ({"client_id": "\ud800"}, "client_id"),
            ({"client_secret": ""}, "client_secret"),
            ({"client_secret": f"{CANARY}\n"}, "client_secret"),
            ({"client_secret": f" {CANARY}"}, "client_secret"),
            ({"client_secret": CANARY * 500}, "client_secret"),
            ({"client_secret": [CANARY]}, "client_secret"),
            ({"client_secret": {"env": CANARY}}, "client_secret"),
            ({"client_secret": None}, "client_secret"),
            ({"redirect_uri": "http://example.com/install/kommo/acme"}, "redirect_uri"),
            ({"redirect_uri": "https:///install"}, "redirect_uri"),
            ({"redirect_uri": "https://user@example.com/"}, "redirect_uri"),
            ({"redirect_uri": "https://example.com/?a=1"}, "redirect_uri"),
            ({"redirect_uri": "https://example.com/#a"}, "redirect_uri"),
            ({"redirect_uri": "https://example.com:99999/"}, "redirect_uri"),
            ({"redirect_uri": "https://[bad/"}, "redirect_uri"),
            ({"redirect_uri": "https://example.com/a b"}, "redirect_uri"),
            ({"redirect_uri": "https://example.com/" + "a" * 500}, "redirect_uri"),
            ({"redirect_uri": 1}, "redirect_uri"),
            ({"scopes": "a" * 1001}, "scopes"),
            ({"scopes": "a\nb"}, "scopes"),
            ({"scopes": ["a"]}, "scopes"),
            ({"clientSecret": CANARY}, "clientSecret"),
            ({f"{CANARY} x": 1}, f"(a name of {len(CANARY) + 2} characters)"),
        ],
        ids=repr,
    )
    def test_create_oauth_client_invalid_field_is_refused_and_nothing_stored(
        self, manage: Manage, change: dict[str, Any], field: str
    ) -> None:
        answer = manage.call("POST", "/oauth-clients", {**CLIENT, **change})
        assert (answer.status, answer.content["field"]) == (400, field)
        assert secrets_stored() == []
        assert manage.call("GET", "/oauth-clients").content["items"] == []

    @pytest.mark.parametrize("field", ["platform", "name", "client_id", "client_secret"])
    def test_create_oauth_client_missing_field_is_named(self, manage: Manage, field: str) -> None:
        answer = manage.call("POST", "/oauth-clients", {name: CLIENT[name] for name in CLIENT if name != field})
        assert (answer.status, answer.content["detail"]) == (400, f"{field} is missing")

    def test_create_oauth_client_all_invalid_fields_are_reported(self, manage: Manage) -> None:
        answer = manage.call("POST", "/oauth-clients", {"platform": "kommo", "extra": 1, "client_secret": CANARY})
        assert [error["field"] for error in answer.content["errors"]] == ["client_id", "name", "extra"]

    def test_replace_oauth_client_with_name_in_body_is_refused(self, manage: Manage) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        answer = manage.call("PUT", "/oauth-clients/kommo/acme", CLIENT)
        assert (answer.status, answer.content["field"]) == (400, "platform")

    def test_create_oauth_client_vault_failure_answers_503_and_stores_nothing(
        self, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _break_vault(monkeypatch)
        answer = manage.call("POST", "/oauth-clients", CLIENT)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert manage.call("GET", "/oauth-clients").content["items"] == []

    def test_replace_oauth_client_vault_failure_answers_503(
        self, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manage.call("POST", "/oauth-clients", CLIENT)
        _break_vault(monkeypatch, "PutSecretValue")
        replacement = {"client_id": "client-1", "client_secret": CANARY}
        assert manage.call("PUT", "/oauth-clients/kommo/acme", replacement).status == 503


class TestConnections:
    def test_create_connection_valid_credentials_are_tested_and_stored(
        self, manage: Manage, stack: Cloud, marketo: responses.RequestsMock
    ) -> None:
        answer = manage.call("POST", "/connections", CONNECTION)
        assert answer.status == 201
        assert answer.content["state"] == "connected"
        assert answer.content["kind"] == "client_credentials"
        assert answer.content["allowed_domain"] == "mkto-ingestion-api.adobe.io"
        assert answer.content["fields"] == {"munchkin_id": "123-ABC-456"}
        assert answer.content["credentials_set"] == ["client_id", "client_secret"]
        assert answer.content["created_at"]
        assert len(marketo.calls) == 1
        stored = connection_store.get(stack.table, "marketo-main")
        assert stored.secret_id.startswith(f"{PREFIX}/grants/marketo-main-")
        assert credentials_of(stack, "marketo-main") == CONNECTION["credentials"]
        assert manage.call("GET", "/connections/marketo-main").content == answer.content
        assert manage.call("GET", "/connections").content == {"items": [answer.content], "next_cursor": None}

    def test_create_connection_refused_credentials_are_not_stored(
        self, manage: Manage, marketo: responses.RequestsMock
    ) -> None:
        marketo.replace("POST", TOKEN_URL, status=401, json={"error": "invalid_client", "error_description": CANARY})
        answer = manage.call("POST", "/connections", CONNECTION)
        assert (answer.status, answer.content["field"]) == (400, "credentials")
        assert "refused the client id or the client secret" in answer.content["detail"]
        assert secrets_stored() == []
        assert manage.call("GET", "/connections").content["items"] == []

    def test_create_connection_unknown_marketo_instance_names_munchkin_id(
        self, manage: Manage, marketo: responses.RequestsMock
    ) -> None:
        marketo.replace("POST", TOKEN_URL, status=404, body="Not Found")
        answer = manage.call("POST", "/connections", CONNECTION)
        assert (answer.status, answer.content["field"]) == (400, "fields.munchkin_id")
        assert (
            "there is no Marketo instance at 123-abc-456.mktorest.com: check fields.munchkin_id"
            in answer.content["detail"]
        )
        assert "Retry-After" not in answer.headers
        assert secrets_stored() == []

    @pytest.mark.parametrize(
        "silence",
        [
            {"status": 500, "body": CANARY},
            {"status": 200, "body": f"<html>{CANARY}"},
            {"status": 302, "headers": {"Location": "https://evil.example/"}},
            {"body": requests.exceptions.ConnectTimeout(CANARY)},
            {"body": requests.exceptions.ReadTimeout(CANARY)},
            {"body": requests.exceptions.ConnectionError(CANARY)},
        ],
        ids=repr,
    )
    def test_create_connection_platform_without_usable_answer_answers_503(
        self, manage: Manage, marketo: responses.RequestsMock, silence: dict[str, Any]
    ) -> None:
        marketo.replace("POST", TOKEN_URL, **silence)
        answer = manage.call("POST", "/connections", CONNECTION)
        assert answer.status == 503
        assert answer.headers["Retry-After"]
        assert secrets_stored() == []
        assert manage.call("GET", "/connections").content["items"] == []

    def test_create_connection_name_of_another_platform_is_refused(
        self, manage: Manage, stack: Cloud, marketo: responses.RequestsMock
    ) -> None:
        connection_store.create(stack.table, kommo_connection("taken"))
        answer = manage.call("POST", "/connections", {**CONNECTION, "name": "taken"})
        assert (answer.status, answer.content["field"]) == (409, "name")
        assert connection_store.get(stack.table, "taken").platform == "kommo"
        assert secrets_stored() == []

    def test_create_connection_concurrent_creation_keeps_the_first(
        self, manage: Manage, marketo: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lose(*_: Any) -> None:
            raise Conflict

        monkeypatch.setattr(connection_store, "create", lose)
        assert manage.call("POST", "/connections", CONNECTION).status == 409
        assert secrets_stored() == []

    def test_replace_connection_valid_credentials_are_stored_and_refused_ones_are_not(
        self, furnished: Manage, stack: Cloud, marketo: responses.RequestsMock
    ) -> None:
        before = connection_store.get(stack.table, "marketo-main")
        fresh = {"client_id": "marketo-2", "client_secret": f"{CANARY}-fresh"}
        body = {"platform": "marketo", "fields": CONNECTION["fields"], "credentials": fresh}
        answer = furnished.call("PUT", "/connections/marketo-main/credentials", body)
        assert (answer.status, answer.content["generation"]) == (200, 2)
        after = connection_store.get(stack.table, "marketo-main")
        assert (after.secret_id, after.created_at) == (before.secret_id, before.created_at)
        assert credentials_of(stack, "marketo-main") == fresh
        marketo.replace("POST", TOKEN_URL, status=401, json={})
        refused = furnished.call(
            "PUT", "/connections/marketo-main/credentials", {**body, "credentials": CONNECTION["credentials"]}
        )
        assert refused.status == 400
        assert credentials_of(stack, "marketo-main") == fresh
        assert connection_store.get(stack.table, "marketo-main") == after

    def test_replace_connection_with_other_account_is_refused(self, furnished: Manage) -> None:
        body = {name: value for name, value in CONNECTION.items() if name != "name"}
        answer = furnished.call(
            "PUT", "/connections/marketo-main/credentials", {**body, "fields": {"munchkin_id": "999-XYZ-999"}}
        )
        assert (answer.status, answer.content["field"]) == (409, "fields.munchkin_id")
        assert furnished.call("PUT", "/connections/none/credentials", body).status == 404

    def test_delete_connection_is_removed_and_its_cleanup_queued(self, furnished: Manage, stack: Cloud) -> None:
        secret_id = connection_store.get(stack.table, "marketo-main").secret_id
        stack.receive("uninstalls")
        assert furnished.call("DELETE", "/connections/marketo-main").status == 200
        assert furnished.call("GET", "/connections/marketo-main").status == 404
        assert furnished.call("GET", "/connections").content["items"] == []
        assert connection_store.get(stack.table, "marketo-main").state == "removed"
        (message,) = stack.receive("uninstalls")
        assert json.loads(message) == {"connection": "marketo-main", "why": "deleted", "secret_id": secret_id}

    def test_create_connection_during_removal_of_old_one_uses_new_secret(self, furnished: Manage, stack: Cloud) -> None:
        old = connection_store.get(stack.table, "marketo-main")
        furnished.call("DELETE", "/connections/marketo-main")
        assert furnished.call("POST", "/connections", CONNECTION).status == 201
        assert furnished.call("GET", "/connections/marketo-main").content["state"] == "connected"
        assert connection_store.get(stack.table, "marketo-main").secret_id != old.secret_id

    def test_delete_connection_repeated_after_queue_failure_queues_cleanup(
        self, furnished: Manage, stack: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stack.receive("uninstalls")
        with monkeypatch.context() as patch:
            patch.setattr(queues, "send", _die)
            assert furnished.call("DELETE", "/connections/marketo-main").status == 500
        assert connection_store.get(stack.table, "marketo-main").state == "removed"
        assert furnished.call("DELETE", "/connections/marketo-main").status == 200
        assert len(stack.receive("uninstalls")) == 1

    def test_show_connection_uninstalled_is_removed_with_reason(self, manage: Manage, stack: Cloud) -> None:
        gone = replace(kommo_connection("kommo-acme-7"), state="removed", reason="uninstalled")
        connection_store.create(stack.table, gone)
        shown = manage.call("GET", "/connections/kommo-acme-7").content
        assert (shown["state"], shown["reason"]) == ("removed", "uninstalled")
        assert [item["name"] for item in manage.call("GET", "/connections").content["items"]] == ["kommo-acme-7"]

    @pytest.mark.parametrize("source", ["client:kommo/acme", "connection:kommo-acme-7"])
    def test_delete_connection_used_by_route_is_refused(self, furnished: Manage, stack: Cloud, source: str) -> None:
        connection_store.create(stack.table, kommo_connection("kommo-acme-7"))
        assert furnished.call("POST", "/routes", {**ROUTE, "source": source}).status == 201
        for name in {"marketo-main", source.removeprefix("connection:")} - {"client:kommo/acme"}:
            answer = furnished.call("DELETE", f"/connections/{name}")
            assert (answer.status, "people" in answer.content["detail"]) == (409, True)
        assert furnished.call("DELETE", "/routes/people").status == 204
        assert furnished.call("DELETE", "/connections/marketo-main").status == 200

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": "ab"}, "name"),
            ({"name": "a" * 65}, "name"),
            ({"name": "a b c"}, "name"),
            ({"name": "naïve"}, "name"),
            ({"name": "kommo-acme-7"}, "name"),
            ({"platform": "kommo"}, "platform"),
            ({"platform": "unknown"}, "platform"),
            ({"fields": {}}, "fields.munchkin_id"),
            ({"fields": {"munchkin_id": "123-abc-456"}}, "fields.munchkin_id"),
            ({"fields": {"munchkin_id": "123-ABC-456\n"}}, "fields.munchkin_id"),
            ({"fields": {"munchkin_id": "x.evil.example/?"}}, "fields.munchkin_id"),
            ({"fields": {"munchkin_id": 1}}, "fields.munchkin_id"),
            ({"fields": {"munchkin_id": "123-ABC-456", CANARY: "x"}}, "fields"),
            ({"fields": "x"}, "fields"),
            ({"credentials": {}}, "credentials.client_id"),
            ({"credentials": {"client_id": "a"}}, "credentials.client_secret"),
            ({"credentials": {"client_id": "a", "client_secret": f"{CANARY} "}}, "credentials.client_secret"),
            ({"credentials": {"client_id": "a", "client_secret": 5}}, "credentials.client_secret"),
            ({"credentials": {"client_id": "a", "client_secret": "b", CANARY: "c"}}, "credentials"),
            ({"credentials": CANARY}, "credentials"),
            ({"credentials": None}, "credentials"),
            ({"state": "connected"}, "state"),
            ({"secret_id": "other"}, "secret_id"),
        ],
        ids=repr,
    )
    def test_create_connection_invalid_field_is_refused_without_request(
        self, manage: Manage, marketo: responses.RequestsMock, change: dict[str, Any], field: str
    ) -> None:
        answer = manage.call("POST", "/connections", {**CONNECTION, **change})
        assert (answer.status, answer.content["field"]) == (400, field)
        assert len(marketo.calls) == 0
        assert secrets_stored() == []


class TestRoutes:
    def test_route_is_created_shown_replaced_and_deleted(self, furnished: Manage) -> None:
        mapping = {"email": "custom_fields_values[?field_code=='EMAIL'].values[].value | [0]", "firstName": "name"}
        created = furnished.call("POST", "/routes", {**ROUTE, "mapping": mapping, "priority": "high"})
        assert created.status == 201
        expected: dict[str, Any] = {**ROUTE, "mapping": mapping, "priority": "high", "dedupe_fields": ["email"]}
        expected |= {"target": None, "options": {}, "keep_newest": "events", "weight": 1}
        assert created.content == {**expected, "warnings": []}
        assert furnished.call("GET", "/routes/people").content == expected
        assert furnished.call("POST", "/routes", ROUTE).status == 409
        change = {name: value for name, value in ROUTE.items() if name != "name"}
        replaced = furnished.call("PUT", "/routes/people", {**change, "options": {"partition": "EMEA"}})
        assert (replaced.status, replaced.content["mapping"], replaced.content["options"]) == (
            200,
            {},
            {"partition": "EMEA"},
        )
        assert furnished.call("DELETE", "/routes/people").status == 204
        for method, body in (("GET", None), ("PUT", change), ("DELETE", None)):
            assert furnished.call(method, "/routes/people", body).status == 404

    def test_create_route_unlisted_dedupe_field_is_created_with_warning(self, furnished: Manage) -> None:
        answer = furnished.call("POST", "/routes", {**ROUTE, "dedupe_fields": ["email", "firstName"]})
        assert answer.status == 201
        assert len(answer.content["warnings"]) == 1
        assert "firstName" in answer.content["warnings"][0]

    def test_create_route_largest_mapping_is_created(self, furnished: Manage) -> None:
        mapping = {f"{'a' * 90}{number:03d}": "name" + " " * 996 for number in range(199)} | {"email": "name"}
        answer = furnished.call("POST", "/routes", {**ROUTE, "mapping": mapping})
        assert answer.status == 201
        assert len(furnished.call("GET", "/routes/people").content["mapping"]) == 200

    @pytest.mark.parametrize(
        ("change", "field", "words"),
        [
            ({"name": "ab"}, "name", "3 to 64"),
            ({"source": "client:kommo/none"}, "source", "kommo/none"),
            ({"source": "connection:none"}, "source", "none"),
            ({"source": "kommo/acme"}, "source", "connection:NAME or client:PLATFORM/CLIENT"),
            ({"source": "client:kommo/acme/x"}, "source", "connection:NAME"),
            ({"source": "connection:marketo-main"}, "object", "marketo connections have no contacts"),
            ({"destination": "none"}, "destination", "none"),
            ({"object": "leads"}, "object", "takes companies, contacts"),
            ({"object": "tokens"}, "object", "takes companies, contacts"),
            ({"object": "../x"}, "object", "object's name"),
            ({"mapping": {"email": "a b"}}, "mapping.email", "'b' at position 3"),
            ({"mapping": {"email": "a["}}, "mapping.email", "ends too early"),
            ({"mapping": {"email": "a ^ b"}}, "mapping.email", "position 3"),
            ({"mapping": {"email": "'unclosed"}}, "mapping.email", "position 1"),
            ({"mapping": {"email": ""}}, "mapping.email", "is empty"),
            ({"mapping": {"email": "   "}}, "mapping.email", "is empty"),
            ({"mapping": {"email": "evil(a)"}}, "mapping.email", "evil()"),
            ({"mapping": {"email": "a[?evil(b)]"}}, "mapping.email", "evil()"),
            ({"mapping": {"email": "(" * 1000}}, "mapping.email", "is not JMESPath"),
            ({"mapping": {"email": "a||" * 61 + "a"}}, "mapping.email", "60 levels deep"),
            ({"mapping": {"email": "[@,@][]" + " | [@,@][]" * 18}}, "mapping.email", "multiplies its input"),
            ({"mapping": {"email": "a" * 1001}}, "mapping.email", "1,000"),
            ({"mapping": {"email": 1}}, "mapping.email", "must be text"),
            ({"mapping": {"e mail": "a"}}, None, "API name"),
            ({"mapping": {"": "a"}}, None, "API name"),
            ({"mapping": {f"a{number}": "a" for number in range(201)}}, "mapping", "200"),
            ({"mapping": ["email"]}, "mapping", "object"),
            ({"mapping": {"firstName": "name"}}, "dedupe_fields", "email is not in the mapping"),
            ({"dedupe_fields": ["mobile"]}, "dedupe_fields", "mobile is not in the mapping"),
            ({"dedupe_fields": ["email", "phone", "company"]}, "dedupe_fields", "2 entries"),
            ({"dedupe_fields": ["email", "email"]}, "dedupe_fields", "twice"),
            ({"dedupe_fields": "email"}, "dedupe_fields", "list"),
            ({"dedupe_fields": [1]}, "dedupe_fields.0", "text"),
            ({"priority": "urgent"}, "priority", "'normal' or 'high'"),
            ({"options": {"partition": "a" * 256}}, "options.partition", "255"),
            ({"options": {"partition": "a\x00"}}, "options.partition", "255"),
            (
                {"options": {"colour": "red"}},
                "options",
                "colour is not an option of the destination: it has action, dedupe_by, partition",
            ),
            ({"options": {"dedupe_by": "name"}}, "options.dedupe_by", "dedupeFields, marketoGUID or idField"),
            ({"target": "opportunities"}, "target", "persons, companies or customobjects/"),
            ({"target": "customobjects/car_c"}, "mapping", "there is no default mapping to customobjects/car_c"),
            ({"keep_newest": "sometimes"}, "keep_newest", "'events', 'all' or 'none'"),
            ({"weight": 0}, "weight", "must be at least 1"),
            ({"weight": 101}, "weight", "must be at most 100"),
            ({"weight": "much"}, "weight", "must be a whole number"),
            ({"enabled": True}, "enabled", "is not a known field"),
        ],
        ids=lambda value: repr(value)[:60],
    )
    def test_create_route_invalid_field_is_refused_by_field(
        self, furnished: Manage, change: dict[str, Any], field: str | None, words: str
    ) -> None:
        answer = furnished.call("POST", "/routes", {**ROUTE, **change})
        assert answer.status == 400, answer.text
        assert words in answer.content["detail"]
        if field:
            assert answer.content["field"] == field
        assert furnished.call("GET", "/routes").content["items"] == []

    def test_create_route_several_invalid_expressions_are_all_reported(self, furnished: Manage) -> None:
        answer = furnished.call("POST", "/routes", {**ROUTE, "mapping": {"email": "a b", "phone": "]"}})
        assert [error["field"] for error in answer.content["errors"]] == ["mapping.email", "mapping.phone"]

    def test_create_route_to_kommo_destination_is_refused(self, furnished: Manage, stack: Cloud) -> None:
        connection_store.create(stack.table, kommo_connection("kommo-acme-7"))
        answer = furnished.call("POST", "/routes", {**ROUTE, "destination": "kommo-acme-7"})
        assert (answer.status, answer.content["field"]) == (400, "destination")


class TestInstalls:
    def test_list_installs_is_newest_first_in_pages(self, manage: Manage, stack: Cloud) -> None:
        expected = [add_install(stack, number) for number in range(7)][::-1]
        assert _ids(manage, "limit=3") == [expected[:3], expected[3:6], expected[6:]]

    def test_list_installs_by_state_fills_pages(self, manage: Manage, stack: Cloud) -> None:
        for number in range(20):
            add_install(stack, number, "failed" if number % 3 == 0 else "connected")
        failed = [f"{number:026d}" for number in range(18, -1, -3)]
        assert _ids(manage, "state=failed&limit=3") == [failed[:3], failed[3:6], failed[6:]]
        assert _ids(manage, "state=received") == [[]]

    def test_show_install_failed_has_reason_and_reconnect_url(self, furnished: Manage, stack: Cloud) -> None:
        install = add_install(
            stack, 1, "failed", reason="code_expired", detail="too late", failed_at=clock.to_iso(clock.now())
        )
        shown = furnished.call("GET", f"/installs/{install}").content
        assert shown["reconnect_url"] == f"{API_URL}/install/kommo/acme/start"
        assert (shown["id"], shown["reason"], shown["account_host"]) == (install, "code_expired", "a1.kommo.com")
        assert (shown["attempt_count"], shown["connection"]) == (1, None)

    def test_show_install_failed_without_client_has_no_reconnect_url(self, manage: Manage, stack: Cloud) -> None:
        assert manage.call("GET", f"/installs/{add_install(stack, 1, 'failed')}").content["reconnect_url"] is None

    def test_show_install_connected_has_no_reconnect_url(self, furnished: Manage, stack: Cloud) -> None:
        assert furnished.call("GET", f"/installs/{add_install(stack, 1)}").content["reconnect_url"] is None

    def test_show_install_exposes_only_documented_fields(self, manage: Manage, stack: Cloud) -> None:
        # Sealed, so no canary is in the table.
        install = add_install(stack, 1, sealed_grant="not-for-anyone", body="not-for-anyone")
        assert "not-for-anyone" not in manage.call("GET", f"/installs/{install}").text

    def test_show_install_unknown_is_not_found(self, manage: Manage) -> None:
        assert manage.call("GET", "/installs/none").status == 404


class TestRequests:
    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (None, 400),
            ("", 400),
            ("  ", 400),
            ("{", 400),
            ("[]", 400),
            ("null", 400),
            ('"text"', 400),
            (f'{{"client_secret": "{CANARY}"', 400),
            (f'{{"name": NaN, "client_secret": "{CANARY}"}}', 400),
            ('{"name": "a", "name": "b"}', 400),
            ("[" * 100_000, 400),
            ('{"a":' * 100_000, 413),
            ('{"a":' * 50_000, 400),
            (json.dumps({"name": "a" * 300_000}), 413),
            ('{"a": ' + "9" * 5000 + "}", 400),
        ],
        ids=lambda value: repr(value)[:40],
    )
    def test_create_body_not_a_json_object_is_refused(self, manage: Manage, body: str | None, status: int) -> None:
        for method, path in (("POST", "/oauth-clients"), ("POST", "/connections"), ("POST", "/routes")):
            assert manage.call(method, path, body).status == status

    def test_create_oauth_client_base64_body_is_decoded_or_refused(self, manage: Manage) -> None:
        encoded = base64.b64encode(json.dumps(CLIENT).encode()).decode()
        assert (
            manage.answer(proxy_event("POST", "/oauth-clients") | {"body": encoded, "isBase64Encoded": True}).status
            == 201
        )
        for bad in ("%%%", base64.b64encode(b"\xff\xfe").decode()):
            event = proxy_event("POST", "/oauth-clients") | {"body": bad, "isBase64Encoded": True}
            assert manage.answer(event).status == 400

    @pytest.mark.parametrize("resource", ["oauth-clients", "connections", "routes", "installs"])
    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=-1", "limit"),
            ("limit=ten", "limit"),
            ("limit=", "limit"),
            ("limit=1.5", "limit"),
            ("limit=%D9%A1", "limit"),
            ("limit=1&limit=2", "limit"),
            ("cursor=", "cursor"),
            ("cursor=%00", "cursor"),
            ("cursor=bm90IGpzb24", "cursor"),
            ("cursor=W10", "cursor"),
            ("cursor=" + "W1tb" * 200, "cursor"),
            ("cursor=" + "a" * 2000, "cursor"),
            ("cursor=á", "cursor"),
            ("order=asc", "order"),
            (f"{CANARY}%20=1", f"(a name of {len(CANARY) + 1} characters)"),
        ],
    )
    def test_list_invalid_limit_or_cursor_is_refused(
        self, manage: Manage, resource: str, query: str, field: str
    ) -> None:
        answer = manage.call("GET", f"/{resource}?{query}")
        assert (answer.status, answer.content["field"]) == (400, field)

    def test_list_installs_unknown_state_is_refused(self, manage: Manage) -> None:
        answer = manage.call("GET", "/installs?state=lost")
        assert (answer.status, answer.content["field"]) == (400, "state")

    def test_list_routes_cursor_of_another_list_is_refused(
        self, furnished: Manage, stack: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(**_: Any) -> None:
            raise ClientError(
                {"Error": {"Code": "ValidationException", "Message": "outside query boundaries"}}, "Query"
            )

        for number in range(2):
            add_install(stack, number)
        cursor = furnished.call("GET", "/installs?limit=1").content["next_cursor"]
        monkeypatch.setattr(service_clients.client("dynamodb"), "query", refuse)
        answer = furnished.call("GET", f"/routes?cursor={cursor}")
        assert (answer.status, answer.content["field"]) == (400, "cursor")

    def test_list_pages_of_every_resource_are_complete_and_unique(self, furnished: Manage, stack: Cloud) -> None:
        for number in range(3):
            furnished.call("POST", "/oauth-clients", {**CLIENT, "name": f"client-{number}"})
            furnished.call("POST", "/connections", {**CONNECTION, "name": f"marketo-{number}"})
            furnished.call("POST", "/routes", {**ROUTE, "name": f"route-{number}"})
        for resource, count in (("oauth-clients", 4), ("connections", 4), ("routes", 3)):
            names: list[str] = []
            cursor = ""
            while True:
                page = furnished.call("GET", f"/{resource}?limit=2{cursor}").content
                assert len(page["items"]) <= 2
                names += [item["name"] for item in page["items"]]
                if not page["next_cursor"]:
                    break
                cursor = f"&cursor={page['next_cursor']}"
            assert len(names) == len(set(names)) == count

    @pytest.mark.parametrize(
        "path", ["/oauth-clients/kommo/" + "a" * 5000, "/connections/" + "a" * 5000, "/routes/" + "á" * 2000]
    )
    def test_show_and_delete_overlong_name_are_not_found(self, manage: Manage, path: str) -> None:
        for method in ("GET", "DELETE"):
            assert manage.call(method, path).status == 404

    def test_create_oauth_client_unexpected_error_is_answered_without_its_text(
        self, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"{CANARY} at line 7")

        monkeypatch.setattr(oauth_clients, "put", fail)
        answer = manage.call("POST", "/oauth-clients", CLIENT)
        assert answer.status == 500
        assert REQUEST_ID in answer.content["detail"]
        assert "RuntimeError" not in answer.text
        assert "RuntimeError" in manage.log.getvalue()


def _ids(manage: Manage, query: str) -> list[list[str]]:
    pages, cursor = [], ""
    while True:
        page = manage.call("GET", f"/installs?{query}{cursor}").content
        pages.append([item["id"] for item in page["items"]])
        if not page["next_cursor"]:
            return pages
        cursor = f"&cursor={page['next_cursor']}"


def kommo_connection(name: str, client: str = "acme") -> Connection:
    return Connection(
        name=name,
        platform="kommo",
        kind="oauth2",
        allowed_domain="acme.kommo.com",
        state="connected",
        generation=1,
        secret_id=f"{PREFIX}/grants/{name}",
        client=client,
    )


def _die(*_: Any, **__: Any) -> None:
    raise RuntimeError("killed")


def _break_vault(monkeypatch: pytest.MonkeyPatch, *operations: str) -> None:
    manager = service_clients.client("secretsmanager")
    call = manager._make_api_call

    def fail(operation: str, parameters: dict[str, Any]) -> Any:
        if not operations or operation in operations:
            raise ClientError({"Error": {"Code": "InternalServiceError", "Message": json.dumps(parameters)}}, operation)
        return call(operation, parameters)

    monkeypatch.setattr(manager, "_make_api_call", fail)
