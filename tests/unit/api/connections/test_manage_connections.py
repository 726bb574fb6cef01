"""Connections of all kinds through the administrators' API, and the rules for their fields."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import responses

from portaria.connections import connection_store
from portaria.connections.tokens import usability
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.stored_reasons import ConnectionReason
from tests.fakes.api.manage import Manage, secrets_stored, watched
from tests.fakes.aws.lost_answers import puts_sent_twice
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.connections.providers import NEW, OLD, PROVIDER, World
from tests.fakes.platforms import leadconnector
from tests.fakes.platforms.engage import CUSTOMER, LOG_IN
from tests.fakes.platforms.leadconnector import LOCATION

CANARY = "canary/+=secret.5f2c"
Sent = dict[str, Any]

API_KEY: Sent = {
    "name": "erp", "platform": "http", "kind": "api_key", "allowed_domain": "api.example.com",
    "fields": {"header_name": "X-Api-Key"}, "credentials": {"key": CANARY},
}  # fmt: skip
BASIC: Sent = {
    "name": "erp-basic", "platform": "http", "kind": "basic", "allowed_domain": "*.example.com",
    "credentials": {"username": "maria", "password": CANARY},
}  # fmt: skip
BEARER: Sent = {
    "name": "erp-bearer", "platform": "http", "kind": "bearer", "allowed_domain": "api.example.com",
    "credentials": {"token": CANARY},
}  # fmt: skip
ENGAGE: Sent = {"name": "engage-one", "platform": "engage", "fields": {"customer_id": CUSTOMER}, "credentials": LOG_IN}
LEADCONNECTOR: Sent = {
    "name": "marketek", "platform": "leadconnector", "fields": {"location_id": LOCATION}, "credentials": {"token": OLD},
}  # fmt: skip
AUTHORIZED: Sent = {
    "name": "shop", "platform": "oauth2", "kind": "oauth2", "client": "shop-app", "allowed_domain": "*.example.com",
}  # fmt: skip
MACHINE: Sent = {
    "name": "shop-machine", "platform": "oauth2", "kind": "client_credentials", "client": "shop-machine",
    "allowed_domain": "api.example.com",
}  # fmt: skip
ALL: dict[str, Sent] = {"api_key": API_KEY, "basic": BASIC, "bearer": BEARER, "engage": ENGAGE, "leadconnector": LEADCONNECTOR,
       "oauth2": AUTHORIZED, "client_credentials": MACHINE}  # fmt: skip
STATIC = {name: ALL[name] for name in ("api_key", "basic", "bearer", "engage", "leadconnector")}


@pytest.fixture
def manage(stack: Cloud, capsys: pytest.CaptureFixture[str]) -> Iterator[Manage]:
    """In every test, no response, no log line and no item contains a secret."""
    with watched(stack) as manage:
        yield manage
    printed = capsys.readouterr()
    assert "canary" not in printed.out + printed.err
    items = stack.table.query_all(connection_store.LIST, index="listing")
    assert "canary" not in repr(list(items))


@pytest.fixture
def world(stack: Cloud) -> Iterator[World]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield World(mock, stack)


def credentials_of(stack: Cloud, name: str) -> dict[str, str]:
    connection = connection_store.get(stack.table, name)
    stored = Vault(PREFIX).read(connection.secret_id, connection.version_id)
    assert stored
    return {name: value.reveal() for name, value in stored.items()}


class TestAllKinds:
    @pytest.mark.parametrize("kind", ALL)
    def test_create_connection_of_each_kind_is_shown_and_listed_without_secret(
        self, manage: Manage, stack: Cloud, world: World, kind: str
    ) -> None:
        sent = ALL[kind]
        created = manage.call("POST", "/connections", sent)
        assert created.status == 201, created.text
        shown = created.content
        assert (shown["name"], shown["platform"]) == (sent["name"], sent["platform"])
        assert shown["kind"] == sent.get("kind", shown["kind"])
        assert shown["state"] == ("pending" if kind == "oauth2" else "connected")
        assert set(shown["credentials_set"]) == set(sent.get("credentials", {}))
        assert shown["age_days"] == (None if kind == "oauth2" else 0)
        assert manage.call("GET", f"/connections/{sent['name']}").content == shown
        assert manage.call("GET", "/connections").content["items"] == [shown]
        if "credentials" in sent:
            assert credentials_of(stack, sent["name"]) == sent["credentials"]

    @pytest.mark.parametrize("kind", ALL)
    def test_create_connection_name_of_another_kind_is_refused(self, manage: Manage, world: World, kind: str) -> None:
        taken = {**BASIC, "name": "taken"} if kind != "basic" else {**API_KEY, "name": "taken"}
        assert manage.call("POST", "/connections", taken).status == 201
        before = secrets_stored()
        answer = manage.call("POST", "/connections", {**ALL[kind], "name": "taken"})
        assert (answer.status, answer.content["field"]) == (409, "name")
        assert secrets_stored() == before

    @pytest.mark.parametrize("kind", ALL)
    def test_create_connection_write_sent_twice_keeps_credentials(
        self, manage: Manage, stack: Cloud, world: World, kind: str
    ) -> None:
        """Given a write whose first answer was lost, then the second one does not count as a connection of the same name."""
        with puts_sent_twice("CONNECTION#") as sent:
            created = manage.call("POST", "/connections", ALL[kind])
        assert sent
        assert created.status == 201, created.text
        if "credentials" in ALL[kind]:
            assert credentials_of(stack, ALL[kind]["name"]) == ALL[kind]["credentials"]
        assert manage.call("POST", "/connections", ALL[kind]).status == 409

    @pytest.mark.parametrize("kind", ALL)
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("platform", "marketo"),
            ("kind", "other"),
            ("allowed_domain", "other.example.com"),
            ("client", "other"),
            ("scopes", "other"),
            ("fields", {"header_name": "X-Other"}),
        ],
    )
    def test_replace_connection_immutable_field_is_refused(
        self, manage: Manage, stack: Cloud, world: World, kind: str, field: str, value: Any
    ) -> None:
        manage.call("POST", "/connections", ALL[kind])
        before = connection_store.get(stack.table, ALL[kind]["name"])
        body = {"credentials": ALL[kind].get("credentials", {}), field: value}
        answer = manage.call("PUT", f"/connections/{ALL[kind]['name']}/credentials", body)
        assert answer.status == 409
        named = "credentials" if kind in ("oauth2", "client_credentials") else field
        assert answer.content["field"].partition(".")[0] == named
        assert connection_store.get(stack.table, before.name) == before

    def test_create_connection_several_errors_are_all_reported(self, manage: Manage, world: World) -> None:
        body = {
            "name": "kommo-one", "platform": "http", "kind": "api_key", "allowed_domain": "*.com", "client": "shop-app",
            "fields": {"header_nam": "X-Key"}, "credentials": {"kye": CANARY, "other": CANARY},
        }  # fmt: skip
        answer = manage.call("POST", "/connections", body)
        assert (answer.status, answer.content["type"]) == (400, "urn:portaria:problem:invalid_input")
        assert [error["field"] for error in answer.content["errors"]] == [
            "name", "fields.header_name", "fields.header_nam", "credentials.key", "credentials.kye", "credentials",
            "allowed_domain", "client",
        ]  # fmt: skip
        details = " ".join(error["detail"] for error in answer.content["errors"])
        assert "did you mean header_name?" in details
        assert "did you mean key?" in details

    def test_replace_connection_several_immutable_fields_are_all_reported(self, manage: Manage, world: World) -> None:
        manage.call("POST", "/connections", API_KEY)
        body = {"credentials": {"key": "a"}, "kind": "basic", "fields": {"header_name": "X-Other"}}
        answer = manage.call("PUT", "/connections/erp/credentials", body)
        assert (answer.status, answer.content["type"]) == (409, "urn:portaria:problem:connection_fixed")
        assert [error["field"] for error in answer.content["errors"]] == ["kind", "fields.header_name"]

    def test_create_connection_header_name_with_digits_and_option_is_created(
        self, manage: Manage, world: World
    ) -> None:
        fields = {"header_name": "X-N8N-API-KEY", "allow_digits_in_header_name": "yes"}
        made = manage.call("POST", "/connections", {**API_KEY, "fields": fields})
        assert (made.status, made.content["fields"]) == (201, fields)

    def test_replace_connection_created_before_optional_field_is_replaced(
        self, manage: Manage, stack: Cloud, world: World
    ) -> None:
        manage.call("POST", "/connections", API_KEY)
        stack.table.update(
            *connection_store.key("erp"),
            "SET #fields = :old",
            names={"#fields": "fields"},
            values={":old": {"header_name": "X-Api-Key"}},
        )
        body = {"credentials": {"key": "canary-other"}, "fields": {"header_name": "X-Api-Key"}}
        assert manage.call("PUT", "/connections/erp/credentials", body).status == 200

    def test_show_connection_age_is_in_days(
        self, manage: Manage, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manage.call("POST", "/connections", BEARER)
        now = clock.now()
        for ahead, days in ((timedelta(hours=23), 0), (timedelta(hours=25), 1), (timedelta(days=80, hours=1), 80)):
            monkeypatch.setattr(clock, "now", lambda ahead=ahead: now + ahead)
            assert manage.call("GET", "/connections/erp-bearer").content["age_days"] == days

    @pytest.mark.parametrize("kind", STATIC)
    def test_replace_connection_credentials_of_each_kind_are_stored(
        self, manage: Manage, stack: Cloud, world: World, kind: str
    ) -> None:
        sent = STATIC[kind]
        manage.call("POST", "/connections", sent)
        fresh = {name: f"{value}" for name, value in sent["credentials"].items()}
        fresh |= {"leadconnector": {"token": NEW}, "engage": LOG_IN}.get(kind, {name: "canary-new" for name in fresh})
        answer = manage.call(
            "PUT", f"/connections/{sent['name']}/credentials", {**sent, "credentials": fresh} | {"name": "x"}
        )
        assert (answer.status, answer.content["field"]) == (400, "name")
        answer = manage.call("PUT", f"/connections/{sent['name']}/credentials", {"credentials": fresh})
        assert answer.status == 200
        assert answer.content["generation"] == (1 if kind == "engage" else 2)
        assert credentials_of(stack, sent["name"]) == fresh

    def test_replace_connection_needing_reconnect_becomes_connected(
        self, manage: Manage, stack: Cloud, world: World
    ) -> None:
        manage.call("POST", "/connections", LEADCONNECTOR)
        usability.end(stack.table, connection_store.get(stack.table, "marketek"), ConnectionReason.TOKEN_REFUSED)
        shown = manage.call("GET", "/connections/marketek").content
        assert (shown["state"], shown["reason"]) == ("needs_reconnect", "token_refused")
        answer = manage.call("PUT", "/connections/marketek/credentials", {"credentials": {"token": NEW}})
        assert (answer.status, answer.content["state"], answer.content["reason"]) == (200, "connected", None)
        item = connection_store.get_item(stack.table, "marketek")
        assert item["announce"] == "connection.recovered"
        assert item["due_at"] <= clock.to_iso(clock.now())

    @pytest.mark.parametrize("kind", ALL)
    def test_connection_endpoints_secret_in_any_field_is_not_exposed(
        self, manage: Manage, world: World, kind: str
    ) -> None:
        """The fixture checks every response, the log and the items."""
        secret = f"{CANARY}"
        sent = ALL[kind]
        wrong: list[dict[str, Any]] = [
            {field: secret} for field in (*sent, "kind", "client", "scopes", "allowed_domain")
        ]
        wrong += [{field: secret.upper()} for field in ("platform", "kind", "allowed_domain")]
        wrong += [{field: "canary5f2c0123456789"} for field in ("platform", "kind", "client", "allowed_domain")]
        wrong += [{field: {secret: secret}} for field in sent]
        wrong += [{field: [secret]} for field in sent]
        wrong += [{field: {"canarytoken5f2c": 5}} for field in ("fields", "credentials")]
        wrong += [{secret: "x"}, {"canary-token-5f2c": "x"}, {"canary5f2c": {"x": 1}}]
        wrong += [
            {"fields": {**sent.get("fields", {}), name: value}} for name, value in _misplaced(sent, "fields", secret)
        ]
        wrong += [
            {"credentials": {**sent.get("credentials", {}), name: value}}
            for name, value in _misplaced(sent, "credentials", f"{secret}\x00")
        ]
        for change in wrong:
            body = {**sent, **change}
            if change.keys() & {"scopes"} and "scopes" in change and kind in ("oauth2", "client_credentials"):
                # Scopes are printable text, so a secret among them cannot be recognized.
                continue
            answer = manage.call("POST", "/connections", body)
            assert 400 <= answer.status < 500, (change, answer.status)
        assert manage.call("GET", "/connections").content["items"] == []
        assert manage.call("POST", "/connections", sent).status == 201
        path = f"/connections/{sent['name']}"
        for change in wrong:
            for method, to in (("PUT", path), ("POST", f"{path}/rotate")):
                assert 400 <= manage.call(method, to, change).status < 500


def _misplaced(sent: dict[str, Any], section: str, secret: str) -> list[tuple[str, Any]]:
    names = [*sent.get(section, {}), "other", "canary5f2c"]
    return [(name, value) for name in names for value in (secret, {secret: 1}, [secret], 5, None, True)]


class TestHttpConnections:
    @pytest.mark.parametrize(
        ("change", "field", "words"),
        [
            ({"kind": None}, "kind", "api_key, basic, bearer"),
            ({"kind": "oauth2"}, "kind", "api_key, basic, bearer"),
            ({"kind": 1}, "kind", "text"),
            ({"allowed_domain": None}, "allowed_domain", "is missing"),
            ({"allowed_domain": "*.com"}, "allowed_domain", "public suffix"),
            ({"allowed_domain": "10.0.0.1"}, "allowed_domain", "IP address"),
            ({"allowed_domain": 5}, "allowed_domain", "text"),
            ({"fields": {}}, "fields.header_name", "is missing"),
            ({"fields": {"header_name": "cookie"}}, "fields.header_name", "cookie"),
            ({"fields": {"header_name": "X-Amz-Date"}}, "fields.header_name", "x-amz-"),
            ({"fields": {"header_name": "X Key"}}, "fields.header_name", "must match"),
            ({"fields": {"header_name": "a" * 129}}, "fields.header_name", "must match"),
            ({"fields": {"header_name": None}}, "fields.header_name", "text"),
            (
                {"fields": {"header_name": "X-Key", "other": "x"}},
                "fields",
                "1 unknown name: the known ones are allow_digits_in_header",
            ),
            ({"fields": {"header_name": "X-N8N-API-KEY"}}, "fields.header_name", "allow_digits_in_header_name to yes"),
            ({"credentials": {}}, "credentials.key", "is missing"),
            ({"credentials": {"key": ""}}, "credentials.key", "1 to 4,096"),
            ({"credentials": {"key": " a"}}, "credentials.key", "a space"),
            ({"credentials": {"key": "a "}}, "credentials.key", "a space"),
            ({"credentials": {"key": "a\tb"}}, "credentials.key", "printable"),
            ({"credentials": {"key": "á"}}, "credentials.key", "printable"),
            ({"credentials": {"key": "a\r\nX-Evil: 1"}}, "credentials.key", "printable"),
            ({"credentials": {"key": "a" * 4097}}, "credentials.key", "this one has 4097"),
            ({"credentials": {"key": "a", "token": "b"}}, "credentials", "1 unknown name: the known ones are key"),
            ({"client": "shop-app"}, "client", "cannot be set for the kind api_key"),
            ({"scopes": "read"}, "scopes", "cannot be set"),
            ({"secret": "x"}, "secret", "is not a known field"),
            ({"name": "ab"}, "name", "3 to 64"),
            ({"name": "a" * 65}, "name", "3 to 64"),
            ({"name": "kommo-acme-7"}, "name", "that installs create"),
        ],
        ids=repr,
    )
    def test_create_http_connection_invalid_field_is_refused_and_nothing_stored(
        self, manage: Manage, world: World, change: dict[str, Any], field: str, words: str
    ) -> None:
        before = secrets_stored()
        answer = manage.call("POST", "/connections", {**API_KEY, **change})
        assert (answer.status, answer.content["field"]) == (400, field)
        assert words in answer.content["detail"]
        assert manage.call("GET", "/connections").content["items"] == []
        assert secrets_stored() == before

    @pytest.mark.parametrize(
        "change",
        [
            {"credentials": {"key": "a" * 4096}},
            {"credentials": {"key": "Token token=canary, x"}},
            {"fields": {"header_name": "a" * 128}},
            {"fields": {"header_name": "Authorization"}},
            {"allowed_domain": "*.Example.COM"},
            {"name": "a_B-3"},
            {"name": "a" * 64},
            {"name": "oauth2-erp"},
        ],
        ids=repr,
    )
    def test_create_http_connection_values_at_limits_are_created(
        self, manage: Manage, world: World, change: dict[str, Any]
    ) -> None:
        answer = manage.call("POST", "/connections", {**API_KEY, **change})
        assert answer.status == 201
        assert answer.content["allowed_domain"] == answer.content["allowed_domain"].lower()

    @pytest.mark.parametrize(
        ("username", "password", "field"),
        [
            ("maria", "senhã com espaço", None),
            ("usuário@exemplo.com", ":::", None),
            ("key-alone", "", None),
            ("", "token-alone", None),
            ("", "", "credentials"),
            ("a:b", "x", "credentials.username"),
            ("a\n", "x", "credentials.username"),
            ("a", "x\x00", "credentials.password"),
            ("a", "x\x85", "credentials.password"),
            ("a", "x" * 1000, None),
            ("a", "x" * 1001, "credentials.password"),
            ("a" * 1001, "x", "credentials.username"),
            ("a", "\ud800", "credentials.password"),
        ],
    )
    def test_create_http_connection_basic_credentials_follow_rfc_7617(
        self, manage: Manage, world: World, username: str, password: str, field: str | None
    ) -> None:
        body = {**BASIC, "credentials": {"username": username, "password": password}}
        answer = manage.call("POST", "/connections", body)
        assert (answer.status, answer.content.get("field")) == ((400, field) if field else (201, None))

    @pytest.mark.parametrize("token", ["a b", "a\nb", "á", "", "   ", "a" * 4097])
    def test_create_http_connection_invalid_bearer_token_is_refused(
        self, manage: Manage, world: World, token: str
    ) -> None:
        answer = manage.call("POST", "/connections", {**BEARER, "credentials": {"token": token}})
        assert (answer.status, answer.content["field"]) == (400, "credentials.token")

    def test_create_http_connection_sends_no_request(self, manage: Manage, world: World) -> None:
        for sent in (API_KEY, BASIC, BEARER):
            assert manage.call("POST", "/connections", sent).status == 201
        assert len(world.mock.calls) == 0

    def test_rotate_http_connection_is_refused_with_advice(self, manage: Manage, world: World) -> None:
        manage.call("POST", "/connections", BEARER)
        answer = manage.call("POST", "/connections/erp-bearer/rotate", {"credentials": {"token": "canary-new"}})
        assert (answer.status, "PUT" in answer.content["detail"]) == (409, True)


class TestLeadConnectorConnections:
    def test_create_leadconnector_connection_token_is_stripped_and_tested(
        self, manage: Manage, stack: Cloud, world: World
    ) -> None:
        answer = manage.call("POST", "/connections", {**LEADCONNECTOR, "credentials": {"token": f"  {OLD}\n"}})
        assert answer.status == 201
        assert answer.content["allowed_domain"] == leadconnector.HOST
        assert credentials_of(stack, "marketek") == {"token": OLD}
        assert len(world.leadconnector.calls) == 1

    def test_create_leadconnector_connection_refused_token_is_not_stored(self, manage: Manage, world: World) -> None:
        before = secrets_stored()
        answer = manage.call("POST", "/connections", {**LEADCONNECTOR, "credentials": {"token": "pit-canary-dead"}})
        assert (answer.status, answer.content["field"]) == (400, "credentials")
        assert secrets_stored() == before

    @pytest.mark.parametrize("location", ["", "a/b", "a b", "é", "a" * 65, "../x", 5])
    def test_create_leadconnector_connection_invalid_location_id_is_refused(
        self, manage: Manage, world: World, location: Any
    ) -> None:
        answer = manage.call("POST", "/connections", {**LEADCONNECTOR, "fields": {"location_id": location}})
        assert (answer.status, answer.content["field"]) == (400, "fields.location_id")

    def test_rotate_leadconnector_connection_overlap_can_be_expired(
        self, manage: Manage, stack: Cloud, world: World
    ) -> None:
        manage.call("POST", "/connections", LEADCONNECTOR)
        rotated = manage.call("POST", "/connections/marketek/rotate", {"credentials": {"token": f" {NEW} "}})
        assert (rotated.status, rotated.content["generation"]) == (200, 2)
        left = clock.from_iso(rotated.content["previous_until"]) - clock.now()
        assert timedelta(days=6, hours=23) < left <= timedelta(days=7)
        assert credentials_of(stack, "marketek") == {"token": NEW}
        ended = manage.call("POST", "/connections/marketek/rotation/expire")
        assert (ended.status, ended.content["previous_until"]) == (200, None)

    def test_rotate_leadconnector_connection_expire_now_has_no_overlap(self, manage: Manage, world: World) -> None:
        manage.call("POST", "/connections", LEADCONNECTOR)
        body = {"credentials": {"token": NEW}, "expire_now": True}
        rotated = manage.call("POST", "/connections/marketek/rotate", body)
        assert (rotated.status, rotated.content["previous_until"]) == (200, None)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "credentials"),
            ({"credentials": {}}, "credentials.token"),
            ({"credentials": {"token": "a b"}}, "credentials.token"),
            ({"credentials": {"token": NEW}, "expire_now": "yes"}, "expire_now"),
            ({"credentials": {"token": NEW}, "now": True}, "now"),
            ({"credentials": {"token": NEW, "key": "x"}}, "credentials"),
        ],
        ids=repr,
    )
    def test_rotate_leadconnector_connection_invalid_body_is_refused_by_field(
        self, manage: Manage, world: World, body: dict[str, Any], field: str
    ) -> None:
        manage.call("POST", "/connections", LEADCONNECTOR)
        answer = manage.call("POST", "/connections/marketek/rotate", body)
        assert (answer.status, answer.content["field"]) == (400, field)

    def test_rotate_connection_unknown_is_not_found(self, manage: Manage) -> None:
        for path in ("rotate", "rotation/expire"):
            answer = manage.call("POST", f"/connections/none/{path}", {"credentials": {"token": NEW}})
            assert answer.status == 404


class TestEngageConnections:
    def test_create_engage_connection_default_environment_is_homologation(self, manage: Manage, world: World) -> None:
        shown = manage.call("POST", "/connections", ENGAGE).content
        assert (shown["kind"], shown["allowed_domain"]) == ("password", "sandbox.engage.bz")
        assert shown["fields"] == {"customer_id": CUSTOMER, "environment": "homologation"}
        body = {**ENGAGE, "name": "engage-two", "fields": {"customer_id": CUSTOMER, "environment": "production"}}
        assert manage.call("POST", "/connections", body).content["allowed_domain"] == "my.engage.bz"
        assert world.engage.hosts == ["sandbox.engage.bz", "my.engage.bz"]

    def test_replace_engage_connection_without_default_field_is_accepted(self, manage: Manage, world: World) -> None:
        manage.call("POST", "/connections", ENGAGE)
        body = {"credentials": LOG_IN, "fields": {"customer_id": CUSTOMER}}
        assert manage.call("PUT", "/connections/engage-one/credentials", body).status == 200

    def test_create_engage_connection_wrong_password_is_refused_without_platform_text(
        self, manage: Manage, world: World
    ) -> None:
        wrong = {**LOG_IN, "password": "canary-wrong"}
        answer = manage.call("POST", "/connections", {**ENGAGE, "credentials": wrong})
        assert (answer.status, answer.content["field"]) == (400, "credentials")
        assert "the user name or the password" in answer.content["detail"]

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"fields": {}}, "fields.customer_id"),
            ({"fields": {"customer_id": "a.b"}}, "fields.customer_id"),
            ({"fields": {"customer_id": "-a"}}, "fields.customer_id"),
            ({"fields": {"customer_id": "a" * 64}}, "fields.customer_id"),
            ({"fields": {"customer_id": CUSTOMER, "environment": "staging"}}, "fields.environment"),
            ({"credentials": {**LOG_IN, "username": ""}}, "credentials.username"),
            ({"credentials": {**LOG_IN, "password": ""}}, "credentials.password"),
            ({"credentials": {**LOG_IN, "client_secret": "a b"}}, "credentials.client_secret"),
            ({"kind": "bearer"}, "kind"),
            ({"allowed_domain": "api.example.com"}, "allowed_domain"),
        ],
        ids=repr,
    )
    def test_create_engage_connection_invalid_field_is_refused_without_request(
        self, manage: Manage, world: World, change: dict[str, Any], field: str
    ) -> None:
        answer = manage.call("POST", "/connections", {**ENGAGE, **change})
        assert (answer.status, answer.content["field"]) == (400, field)
        assert world.engage.hosts == []

    def test_create_engage_connection_allowed_domain_of_platform_is_accepted(
        self, manage: Manage, world: World
    ) -> None:
        assert manage.call("POST", "/connections", {**ENGAGE, "allowed_domain": "Sandbox.Engage.bz"}).status == 201


class TestOAuthConnections:
    def test_create_oauth2_connection_pending_consent_stores_no_secret(
        self, manage: Manage, stack: Cloud, world: World
    ) -> None:
        before = secrets_stored()
        shown = manage.call("POST", "/connections", AUTHORIZED).content
        assert (shown["state"], shown["generation"], shown["scopes"], shown["client"]) == (
            "pending",
            0,
            None,
            "shop-app",
        )
        assert secrets_stored() == before
        assert world.asked == []
        assert manage.call("DELETE", "/connections/shop").status == 200

    def test_create_oauth2_connection_own_scopes_are_stored(self, manage: Manage, world: World) -> None:
        shown = manage.call("POST", "/connections", {**AUTHORIZED, "scopes": "write"}).content
        assert shown["fields"] == {"scopes": "write"}

    def test_create_client_credentials_connection_is_tested_and_granted_scopes_stored(
        self, manage: Manage, stack: Cloud, world: World
    ) -> None:
        shown = manage.call("POST", "/connections", {**MACHINE, "scopes": "read delete"}).content
        assert world.asked[0]["scope"] == "read delete"
        assert (shown["state"], shown["scopes"]) == ("connected", "read")
        world.granted = ""
        shown = manage.call("POST", "/connections", {**MACHINE, "name": "second"}).content
        assert (shown["scopes"], world.asked[1]["scope"]) == ("read write", "read write")

    @pytest.mark.parametrize(
        "granted",
        [" ".join(f"https://api.example.com/scope.{number}" for number in range(80)), "x" * 4_096],
        ids=["many", "one"],
    )
    def test_create_client_credentials_connection_scopes_at_limit_are_stored_whole(
        self, manage: Manage, world: World, granted: str
    ) -> None:
        world.granted = granted
        assert manage.call("POST", "/connections", MACHINE).content["scopes"] == granted

    @pytest.mark.parametrize("between", [" ", ","])
    def test_create_client_credentials_connection_scopes_over_limit_are_cut_with_count(
        self, manage: Manage, world: World, between: str
    ) -> None:
        world.granted = between.join(f"scope-{number:04}" for number in range(500))
        shown = manage.call("POST", "/connections", MACHINE).content["scopes"]
        kept, _, left = shown.partition(" (and ")
        assert world.granted.startswith(f"{kept}{between}")
        assert 4_000 < len(kept) < 4_096
        assert left == f"{500 - len(kept.split(between))} more)"

    def test_create_client_credentials_connections_of_one_client_have_own_secrets(
        self, manage: Manage, stack: Cloud, world: World
    ) -> None:
        """Tokens are cached by secret."""
        for name in ("first", "second"):
            manage.call("POST", "/connections", {**MACHINE, "name": name})
        first, second = (connection_store.get(stack.table, name).secret_id for name in ("first", "second"))
        assert first
        assert first != second

    @pytest.mark.parametrize(
        ("sent", "change", "field", "words"),
        [
            (AUTHORIZED, {"client": None}, "client", "is missing"),
            (AUTHORIZED, {"client": "none"}, "client", "create the OAuth client first"),
            (AUTHORIZED, {"client": "../x"}, "client", "must be the name"),
            (AUTHORIZED, {"client": "shop-machine"}, "client", "client_credentials"),
            (MACHINE, {"client": "shop-app"}, "client", "authorization_code"),
            (AUTHORIZED, {"credentials": {"token": "canary"}}, "credentials", "this kind has none"),
            (MACHINE, {"credentials": {"client_secret": "canary"}}, "credentials", "this kind has none"),
            (AUTHORIZED, {"allowed_domain": None}, "allowed_domain", "is missing"),
            (AUTHORIZED, {"allowed_domain": "*.myshopify.com"}, "allowed_domain", "public suffix"),
            (AUTHORIZED, {"scopes": "a" * 1001}, "scopes", "1,000"),
            (AUTHORIZED, {"scopes": "a\nb"}, "scopes", "printable"),
            (AUTHORIZED, {"scopes": "a", "fields": {"scopes": "b"}}, "scopes", "differ"),
            (AUTHORIZED, {"kind": None}, "kind", "client_credentials, oauth2"),
            (AUTHORIZED, {"kind": "bearer"}, "kind", "client_credentials, oauth2"),
            (AUTHORIZED, {"platform": "kommo"}, "platform", "installing its application"),
        ],
        ids=repr,
    )
    def test_create_oauth2_connection_invalid_field_is_refused_without_request(
        self, manage: Manage, world: World, sent: dict[str, Any], change: dict[str, Any], field: str, words: str
    ) -> None:
        answer = manage.call("POST", "/connections", {**sent, **change})
        assert (answer.status, answer.content["field"]) == (400, field)
        assert words in answer.content["detail"]
        assert world.asked == []

    def test_create_client_credentials_connection_wrong_client_secret_is_refused(
        self, manage: Manage, world: World
    ) -> None:
        world.mock.replace("POST", f"https://{PROVIDER}/token", status=401, json={"error": "invalid_client"})
        answer = manage.call("POST", "/connections", MACHINE)
        assert (answer.status, answer.content["field"]) == (400, "client")
        assert manage.call("GET", "/connections").content["items"] == []
