"""Authorizations with a generic OAuth 2.0 provider: the link, and the code exchange after the callback."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, parse_qsl, urlsplit

import boto3
import pytest
import requests
import responses

from portaria.aws.table import Table
from portaria.connections import connection_store, oauth_clients
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection
from portaria.core.errors import Retryable
from portaria.core.item_keys import install_link_id, install_link_key
from portaria.installs import code_exchange
from portaria.installs.exchange_outcomes import ExchangeOutcome
from portaria.installs.install_messages import read_message
from portaria.webhooks.install_receiver import install_id
from tests.fakes.api.manage import Manage, empty
from tests.fakes.aws import functions
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.virtual_time import VirtualClock

TOKEN_URL = "https://login.example.com/token"
CLIENT = OAuthClient(
    "oauth2",
    "erp",
    "client-1",
    "https://api.example.com/live/install/oauth2/erp",
    "read write",
    authorize_url="https://login.example.com/authorize",
    token_url=TOKEN_URL,
    api_domains="api.erp.example.com",
)
CONNECTION = Connection("main", "oauth2", "oauth2", "api.erp.example.com", "pending", 0, "", client="erp")
ANSWER = {"access_token": "canary-access-1", "refresh_token": "canary-refresh-1", "expires_in": 3600, "scope": "read"}


class Provider:
    """A token endpoint. It gives `answers` in turn, then `ANSWER`. A code works once."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.calls: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[tuple[int, dict[str, str], str] | Exception] = []
        self.codes: set[str] = set()
        mock.add_callback("POST", TOKEN_URL, self.answer)

    def answer(self, request: requests.PreparedRequest) -> tuple[int, dict[str, str], str] | Exception:
        sent = dict(parse_qsl(str(request.body.decode() if isinstance(request.body, bytes) else request.body)))
        self.calls.append(sent)
        self.headers.append(dict(request.headers))
        if self.answers:
            return self.answers.pop(0)
        if sent["code"] in self.codes:
            return 400, {}, '{"error": "invalid_grant"}'
        self.codes.add(sent["code"])
        return 200, {}, json.dumps(ANSWER)


class Harness:
    def __init__(self, stack: Cloud, provider: Provider, time: VirtualClock) -> None:
        self.stack, self.provider, self.time = stack, provider, time

    def message(self, code: str = "canary-code", **changes: Any) -> str:
        fields = {
            "version": 1,
            "install_id": install_id("oauth2", "erp", Secret(code)),
            "platform": "oauth2",
            "client": "erp",
            "account_host": "login.example.com",
            "source": "browser",
            "connection": "main",
            "code_verifier": "canary-verifier",
            "code": code,
            "received_at": clock.to_iso(clock.now()),
        }
        return json.dumps(fields | changes)

    def turn(self, body: str, time_left_s: float = 40.0) -> ExchangeOutcome:
        return code_exchange.exchange(read_message(body), fakes.settings(self.stack), lambda: time_left_s)

    def connection(self, name: str = "main") -> Connection:
        return connection_store.get(self.stack.table, name)

    def change(self, **changes: Any) -> None:
        self.stack.table.put(connection_store.to_item(replace(self.connection(), **changes)))

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return fakes.events(self.stack)

    def grants(self) -> list[str]:
        listed = boto3.client("secretsmanager").list_secrets(IncludePlannedDeletion=False)["SecretList"]
        return [entry["Name"] for entry in listed if "/grants/" in entry["Name"]]


@pytest.fixture
def harness(shared: Cloud) -> Iterator[Harness]:
    time = VirtualClock()
    with (
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        time.installed(),
    ):
        oauth_clients.put(shared.table, CLIENT, new=True)
        vault = Vault(PREFIX)
        vault.create(
            vault.client_secret_id("oauth2", "erp"), {"client_secret": Secret("canary-client-secret")}, "1" * 32
        )
        connection_store.create(shared.table, CONNECTION)
        yield Harness(shared, Provider(mock), time)
    shared.receive("heard")
    empty()


class TestCallback:
    def test_exchange_code_oauth2_connects_the_connection_of_its_link(self, harness: Harness) -> None:
        assert harness.turn(harness.message()).state == "connected"

        assert harness.provider.calls == [
            {
                "grant_type": "authorization_code",
                "code": "canary-code",
                "redirect_uri": CLIENT.redirect_uri,
                "code_verifier": "canary-verifier",
            }
        ]
        proof = base64.b64decode(harness.provider.headers[0]["Authorization"].removeprefix("Basic ")).decode()
        assert proof == "client-1:canary-client-secret"
        connection = harness.connection()
        assert (connection.state, connection.generation, connection.kind) == ("connected", 1, "oauth2")
        assert (connection.allowed_domain, connection.client) == ("api.erp.example.com", "erp")
        assert connection.scopes == "read"
        assert 3_500 < (clock.from_iso(connection.token_ends_at) - clock.now()).total_seconds() <= 3_600
        credentials = Vault(PREFIX).read(connection.secret_id, connection.version_id)
        assert credentials is not None
        assert credentials.keys() > {"expires_at", "given_at"}
        assert {name: secret.reveal() for name, secret in credentials.items() if not name.endswith("_at")} == {
            "access_token": "canary-access-1",
            "refresh_token": "canary-refresh-1",
            "token_type": "bearer",
            "scopes": "read",
            "client_id": "client-1",
        }
        assert harness.events() == [
            (
                "connection.ready",
                {"connection": "main", "platform": "oauth2", "client": "erp", "generation": 1, "tags": {}},
            )
        ]

    def test_exchange_code_oauth2_calls_only_the_token_endpoint(self, harness: Harness) -> None:
        """No account is read and no webhook is subscribed, because the provider's API is unknown."""
        harness.turn(harness.message())
        assert len(harness.provider.calls) == 1

    def test_exchange_code_oauth2_items_and_reprs_hold_no_secret(self, harness: Harness) -> None:
        harness.turn(harness.message())
        items = json.dumps(boto3.client("dynamodb").scan(TableName=harness.stack.table.name)["Items"], default=str)
        assert "login.example.com" in items
        assert "canary" not in items
        assert "canary" not in repr(read_message(harness.message()))

    @pytest.mark.parametrize(
        ("own", "clients", "scopes"),
        [
            ("", "read write", "read write"),
            ("own", "read write", "own"),
            ("", "", ""),
            ("a" * 250 + " bcdef", "", "a" * 250 + " bcdef"),
        ],
    )
    def test_exchange_code_answer_without_scopes_grants_the_requested_scopes(
        self, harness: Harness, own: str, clients: str, scopes: str
    ) -> None:
        harness.change(fields={"scopes": own})
        oauth_clients.put(harness.stack.table, CLIENT._replace(scopes=clients), new=False)
        harness.provider.answers = [(200, {}, json.dumps({"access_token": "canary-access", "expires_in": 60}))]
        harness.turn(harness.message())
        assert harness.connection().scopes == scopes

    def test_exchange_code_token_without_expiry_is_not_due_for_renewal(self, harness: Harness) -> None:
        harness.provider.answers = [(200, {}, json.dumps({"access_token": "canary-access"}))]
        harness.turn(harness.message())
        item = connection_store.get_item(harness.stack.table, "main")
        assert item["token_ends_at"].startswith("9999-")
        assert item.get("due_at", "9999") > "3000"

    def test_exchange_code_duplicate_delivery_is_one_exchange(self, harness: Harness) -> None:
        body = harness.message()
        assert [harness.turn(body).state for _ in range(3)] == ["connected"] * 3
        assert len(harness.provider.calls) == 1
        assert len(harness.events()) == 1

    def test_exchange_code_authorized_again_replaces_grant_and_deletes_old_secret(self, harness: Harness) -> None:
        harness.turn(harness.message())
        first = harness.connection()
        harness.time.advance(5)
        assert harness.turn(harness.message("canary-other")).state == "connected"

        second = harness.connection()
        assert (second.generation, second.created_at) == (2, first.created_at)
        assert second.secret_id != first.secret_id
        assert Vault(PREFIX).read(first.secret_id) is None
        assert [kind for kind, _ in harness.events()] == ["connection.ready"] * 2

    def test_exchange_code_connection_needing_reconnect_recovers(self, harness: Harness) -> None:
        harness.turn(harness.message())
        harness.change(state="needs_reconnect", reason="grant_revoked")
        harness.time.advance(5)
        harness.turn(harness.message("canary-other"))

        connection = harness.connection()
        assert (connection.state, connection.reason, connection.generation) == ("connected", "", 2)
        assert connection_store.get_item(harness.stack.table, "main")["announce"] == "connection.recovered"

    def test_exchange_code_older_consent_exchanged_later_does_not_replace_newer(self, harness: Harness) -> None:
        early = harness.message("canary-early")
        harness.time.advance(10)
        harness.turn(harness.message("canary-late"))
        standing = harness.connection()

        assert harness.turn(early).state == "connected"
        assert harness.connection() == standing
        assert harness.grants() == [standing.secret_id]

    @pytest.mark.parametrize(
        "changes",
        [{"state": "removed"}, {"client": "other"}, {"kind": "client_credentials"}, {"platform": "http"}],
        ids=lambda changes: next(iter(changes)),
    )
    def test_exchange_code_connection_changed_since_link_fails_as_connection_gone(
        self, harness: Harness, changes: dict[str, str]
    ) -> None:
        harness.change(**changes)
        before = harness.connection()

        outcome = harness.turn(harness.message())

        assert (outcome.state, outcome.reason) == ("failed", "connection_gone")
        assert harness.connection() == before
        assert harness.provider.calls == []
        [(kind, detail)] = harness.events()
        assert (kind, detail["reason"]) == ("install.failed", "connection_gone")
        assert detail["reconnect_url"] == "https://api.example.com/live/admin/v1/connections/main/authorizations"

    def test_exchange_code_connection_deleted_fails_as_connection_gone(self, harness: Harness) -> None:
        harness.stack.table.delete(*connection_store.key("main"))
        assert harness.turn(harness.message()).reason == "connection_gone"
        assert connection_store.find(harness.stack.table, "main") is None

    def test_exchange_code_connection_removed_during_exchange_stays_removed(self, harness: Harness) -> None:
        """Given a connection that is deleted between the worker's read and its write, then the grant is dropped."""
        write = Table.write_all

        def late(table: Any, writes: Any) -> None:
            harness.change(state="removed")
            write(table, writes)

        body = harness.message()
        with patch.object(Table, "write_all", late), pytest.raises(Retryable, match="connection_changed"):
            harness.turn(body)
        assert harness.turn(body).reason == "connection_gone"
        assert harness.connection().state == "removed"
        assert harness.grants() == []
        assert len(harness.provider.calls) == 1

    def test_exchange_code_client_token_url_changed_fails_without_request(self, harness: Harness) -> None:
        oauth_clients.put(harness.stack.table, CLIENT._replace(token_url="https://evil.example.com/token"), new=False)
        outcome = harness.turn(harness.message())
        assert (outcome.state, outcome.reason) == ("failed", "client_changed")
        assert harness.provider.calls == []

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "", "login.example.com.evil.example"])
    def test_exchange_code_message_with_foreign_host_fails_without_request(self, harness: Harness, host: str) -> None:
        assert harness.turn(harness.message(account_host=host)).state == "failed"
        assert harness.provider.calls == []

    @pytest.mark.parametrize(
        ("status", "error", "reason"),
        [
            (400, "invalid_grant", "code_refused"),
            (401, "invalid_client", "wrong_client"),
            (400, "invalid_scope", "bad_scopes"),
            (200, "bad_verification_code", "code_refused"),
            (404, "", "wrong_token_url"),
        ],
    )
    def test_exchange_code_provider_refusal_fails_with_reason_and_leaves_connection(
        self, harness: Harness, status: int, error: str, reason: str
    ) -> None:
        harness.provider.answers = [(status, {}, json.dumps({"error": error, "error_description": "canary-code"}))]
        outcome = harness.turn(harness.message())
        assert (outcome.state, outcome.reason) == ("failed", reason)
        assert "canary" not in outcome.detail
        assert harness.connection().state == "pending"

    def test_exchange_code_lost_answer_fails_install_as_answer_lost(self, harness: Harness) -> None:
        harness.provider.answers = [requests.exceptions.ReadTimeout("canary")]
        body = harness.message()
        with pytest.raises(Retryable):
            harness.turn(body)
        harness.provider.codes.add("canary-code")
        outcome = harness.turn(body)
        assert (outcome.state, outcome.reason) == ("failed", "answer_lost")

    def test_exchange_code_provider_unavailable_is_retried_for_ten_minutes(self, harness: Harness) -> None:
        harness.provider.answers = [(503, {}, "")] * 2
        body = harness.message()
        for _ in range(2):
            with pytest.raises(Retryable):
                harness.turn(body)
        assert harness.turn(body).state == "connected"
        assert harness.turn(harness.message("canary-old", received_at=clock.to_iso(clock.now()))).state == "connected"
        late = harness.message("canary-late")
        harness.time.advance(601)
        assert harness.turn(late).reason == "code_expired"

    def test_exchange_code_vault_failure_keeps_grant_and_stores_it_on_retry(self, harness: Harness) -> None:
        body = harness.message()
        with refusing("CreateSecret"), pytest.raises(Retryable):
            harness.turn(body)
        assert harness.connection().state == "pending"
        harness.time.advance(5)
        assert harness.turn(body).state == "connected"
        assert len(harness.provider.calls) == 1
        credentials = Vault(PREFIX).read(harness.connection().secret_id)
        assert credentials is not None
        assert credentials["refresh_token"].reveal() == "canary-refresh-1"


class TestAuthorizationLink:
    @pytest.fixture
    def manage(self, harness: Harness) -> Manage:
        return Manage(harness.stack)

    def begin(self, harness: Harness) -> tuple[str, dict[str, Any]]:
        """The token of a new link, and its item."""
        url = Manage(harness.stack).call("POST", "/connections/main/authorizations").content["url"]
        token = parse_qs(urlsplit(url).query)["link"][0]
        item = harness.stack.table.get(*install_link_key(install_link_id(token)))
        assert item is not None
        return token, item

    def test_authorize_connection_link_is_on_redirect_uri_host_and_expires_in_15_minutes(
        self, harness: Harness, manage: Manage
    ) -> None:
        answer = manage.call("POST", "/connections/main/authorizations")
        assert answer.status == 201
        url, _, token = answer.content["url"].partition("?link=")
        assert url == "https://api.example.com/live/install/oauth2/erp/start"
        assert len(token) == 43
        left_s = (clock.from_iso(answer.content["expires_at"]) - clock.now()).total_seconds()
        assert 895 < left_s <= 900
        assert token not in manage.log.getvalue()

    def test_authorize_connection_stores_only_hash_of_token_with_its_fields(self, harness: Harness) -> None:
        token, item = self.begin(harness)
        items = json.dumps(boto3.client("dynamodb").scan(TableName=harness.stack.table.name)["Items"])
        assert token not in items
        assert 890 < int(item["ends_at"]) - time.time() <= 900
        names = ("purpose", "platform", "client", "connection", "account_host", "scopes", "single_use")
        assert {name: item[name] for name in names} == {
            "purpose": "reconnect",
            "platform": "oauth2",
            "client": "erp",
            "connection": "main",
            "account_host": "login.example.com",
            "scopes": "read write",
            "single_use": 1,
        }

    def test_authorize_connection_scopes_of_connection_are_requested(self, harness: Harness) -> None:
        harness.change(fields={"scopes": "only this"})
        assert self.begin(harness)[1]["scopes"] == "only this"

    def test_authorize_connection_repeated_creates_different_links(self, harness: Harness) -> None:
        assert len({self.begin(harness)[0] for _ in range(5)}) == 5

    @pytest.mark.parametrize("state", ["pending", "connected", "needs_reconnect"])
    def test_authorize_connection_not_removed_creates_link(self, harness: Harness, state: str) -> None:
        harness.change(state=state)
        assert self.begin(harness)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"state": "removed"}, "connection_removed"),
            ({"kind": "bearer"}, "not_authorisable"),
            ({"kind": "client_credentials"}, "not_authorisable"),
            ({"client": "nobody"}, "unknown_client"),
        ],
    )
    def test_authorize_connection_not_authorizable_is_refused_with_reason(
        self, harness: Harness, manage: Manage, changes: dict[str, str], reason: str
    ) -> None:
        harness.change(**changes)
        answer = manage.call("POST", "/connections/main/authorizations")
        assert (answer.status, answer.content["type"].rpartition(":")[2]) == (409, reason)
        assert self.links(harness) == []

    def test_authorize_connection_unknown_is_not_found(self, manage: Manage) -> None:
        assert manage.call("POST", "/connections/nobody/authorizations").status == 404

    def test_authorize_connection_client_without_consent_is_refused(self, harness: Harness, manage: Manage) -> None:
        oauth_clients.put(harness.stack.table, CLIENT._replace(authorize_url="", grant="client_credentials"), new=False)
        answer = manage.call("POST", "/connections/main/authorizations")
        assert (answer.status, answer.content["type"]) == (409, "urn:portaria:problem:not_authorisable")

    def test_authorize_connection_of_installed_platform_is_for_its_account_only(
        self, harness: Harness, manage: Manage
    ) -> None:
        fakes.register(harness.stack)
        connection = Connection(
            "kommo-acme-1", "kommo", "oauth2", "a.kommo.com", "needs_reconnect", 1, "secret", client="acme"
        )
        connection_store.create(harness.stack.table, replace(connection, account_id="1"))
        answer = manage.call("POST", "/connections/kommo-acme-1/authorizations")
        assert answer.content["url"].startswith("https://api.example.com/live/install/kommo/acme/start?link=")
        item = harness.stack.table.get(*install_link_key(answer.content["id"])) or {}
        assert (item["account_id"], item["connection"], "account_host" in item) == ("1", "kommo-acme-1", False)

    def links(self, harness: Harness) -> list[str]:
        items = boto3.client("dynamodb").scan(TableName=harness.stack.table.name)["Items"]
        return [item["pk"]["S"] for item in items if item["pk"]["S"].startswith("INSTALL_LINK#")]


def test_exchange_code_refused_code_logs_host_and_reason_without_secret(harness: Harness) -> None:
    """Given a callback that fails, then the function's log has the host and no secret."""
    handler = functions.load("exchange_code", harness.stack.environment)
    log = io.StringIO()
    functions.log_to(log)
    harness.provider.answers = [(400, {}, '{"error": "invalid_grant", "error_description": "canary-code"}')]
    handler.handler(functions.sqs_event({"one": harness.message()}, "exchanges"), functions.Context())
    assert "login.example.com" in log.getvalue()
    assert "code_refused" in log.getvalue()
    assert "canary" not in log.getvalue()


class TestDomains:
    """A code is exchanged only for a connection inside the client's domains, even if the link was made before they changed."""

    @pytest.mark.parametrize(
        ("registered", "reason"), [("other.example.com", "domain_not_registered"), ("", "api_domains_missing")]
    )
    def test_exchange_code_connection_outside_client_domains_fails_without_request(
        self, harness: Harness, registered: str, reason: str
    ) -> None:
        oauth_clients.put(harness.stack.table, CLIENT._replace(api_domains=registered), new=False)
        outcome = harness.turn(harness.message())
        assert (outcome.state, outcome.reason) == ("failed", reason)
        assert harness.provider.calls == [], "nor does the code leave"
        assert harness.connection().state == "pending"

    def test_exchange_code_connected_before_client_had_domains_succeeds(self, harness: Harness) -> None:
        oauth_clients.put(harness.stack.table, CLIENT._replace(api_domains=""), new=False)
        harness.change(state="needs_reconnect")
        assert harness.turn(harness.message()).state == "connected"
