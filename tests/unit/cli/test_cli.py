"""The command line against the real function `manage`, in process: only the transport between them is faked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.session
import pytest
import responses
import yaml
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError, EndpointConnectionError

from portaria.aws import service_clients
from portaria.connections import oauth_clients
from portaria.core import clock
from tests.fakes.api.command_line import Answered, Wire, empty_listing, listed, run, told, wired
from tests.fakes.api.manage import API_URL, CANARY, TOKEN_URL, add_install
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.connections.providers import OLD, World
from tests.fakes.paths import ROOT
from tests.fakes.platforms.engage import CUSTOMER, LOG_IN
from tests.fakes.platforms.leadconnector import LOCATION

EXAMPLE = ROOT / "examples" / "portaria.yaml"
EXAMPLE_ENVIRONMENT = {
    "KOMMO_CLIENT_ID": "kommo-client-id",
    "KOMMO_CLIENT_SECRET": f"{CANARY}-kommo",
    "MARKETO_MUNCHKIN_ID": "123-ABC-456",
    "MARKETO_CLIENT_ID": "marketo-client-id",
    "MARKETO_CLIENT_SECRET": f"{CANARY}-marketo",
}
CONNECTIONS = EXAMPLE.parent / "connections.yaml"
CONNECTIONS_ENVIRONMENT = {
    "SHOP_CLIENT_ID": "shop-client",
    "SHOP_CLIENT_SECRET": f"{CANARY}-shop",
    "SHOP_AUTHORIZE_URL": "https://login.example.com/authorize",
    "SHOP_TOKEN_URL": "https://login.example.com/token",
    "SHOP_API_DOMAIN": "api.example.com",
    "BILLING_TOKEN_URL": "https://login.example.com/token",
    "BILLING_API_DOMAIN": "api.example.com",
    "ERP_DOMAIN": "api.example.com",
    "WAREHOUSE_DOMAIN": "*.example.com",
    "HELPDESK_DOMAIN": "api.example.com",
    "BILLING_CLIENT_ID": "billing-client",
    "BILLING_CLIENT_SECRET": f"{CANARY}-billing",
    "ERP_KEY": f"{CANARY}-key",
    "WAREHOUSE_USER": "maria",
    "WAREHOUSE_PASSWORD": f"{CANARY} senhã",
    "HELPDESK_TOKEN": f"{CANARY}-token",
    "ENGAGE_CUSTOMER_ID": CUSTOMER,
    **{f"ENGAGE_{name.upper().replace('USERNAME', 'USER')}": value for name, value in LOG_IN.items()},
    "LEADCONNECTOR_LOCATION_ID": LOCATION,
    "LEADCONNECTOR_TOKEN": OLD,
}


@pytest.fixture
def wire(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Wire:
    for name, value in EXAMPLE_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return wired(stack, monkeypatch)


@pytest.fixture
def marketo() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.post(TOKEN_URL, json={"access_token": f"{CANARY}-token", "token_type": "bearer", "expires_in": 3599})
        yield mock


def only(tmp_path: Path, *names: str) -> Path:
    """The example file with only the connections of these names, and their OAuth clients."""
    content = yaml.safe_load(CONNECTIONS.read_text())
    content["connections"] = [each for each in content["connections"] if each["name"] in names]
    clients = [each.get("client") for each in content["connections"]]
    content["clients"] = [each for each in content["clients"] if each["name"] in clients]
    file = tmp_path / "connections.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def changes(*arguments: str | Path) -> list[str]:
    return [entry["change"] for entry in told("configure", *arguments)]


class TestConfigure:
    def test_cli_configure_example_twice_creates_then_leaves_unchanged(
        self, wire: Wire, marketo: responses.RequestsMock
    ) -> None:
        first = run("configure", EXAMPLE).stdout
        assert "\n3 created\n" in first
        assert f"{API_URL}/install/kommo/acme\n" in first
        assert f"{API_URL}/install/kommo/acme/start" in first
        second = run("configure", EXAMPLE).stdout
        assert "\n3 unchanged\n" in second
        assert "created" not in second

    def test_cli_configure_changed_route_is_updated(
        self, wire: Wire, marketo: responses.RequestsMock, tmp_path: Path
    ) -> None:
        file = tmp_path / "portaria.yaml"
        file.write_text(EXAMPLE.read_text())
        assert changes(file) == ["created"] * 3
        file.write_text(EXAMPLE.read_text().replace("lastName: last_name", "lastName: name"))
        assert changes(file) == ["unchanged", "unchanged", "updated"]

    def test_cli_configure_changed_secret_is_written_but_shown_unchanged(
        self, wire: Wire, marketo: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run("configure", EXAMPLE)
        monkeypatch.setenv("KOMMO_CLIENT_SECRET", f"{CANARY}-rotated")
        assert changes(EXAMPLE) == ["unchanged"] * 3
        manager = service_clients.client("secretsmanager")
        stored = manager.get_secret_value(SecretId=f"{PREFIX}/oauth-clients/kommo/acme")["SecretString"]
        assert json.loads(stored) == {"client_secret": f"{CANARY}-rotated"}

    def test_cli_configure_secret_may_be_omitted_once_stored(
        self, wire: Wire, marketo: responses.RequestsMock, tmp_path: Path
    ) -> None:
        file = tmp_path / "portaria.yaml"
        text = EXAMPLE.read_text()
        without = re.sub(r" +client_secret: .*\n|    credentials:\n      client_id: .*\n", "", text)
        assert "SECRET" not in without
        file.write_text(without)
        assert "client_secret is missing" in run("configure", file, exit_code=2).stderr
        run("configure", EXAMPLE)
        assert changes(file) == ["unchanged"] * 3
        file.write_text(without.replace("{env: MARKETO_MUNCHKIN_ID}", "999-XYZ-999"))
        assert "fields.munchkin_id of a connection cannot change" in run("configure", file, exit_code=2).stderr

    def test_cli_configure_secret_file_is_read_beside_configuration(self, wire: Wire, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text(f"{CANARY}-from-file\n")
        file = tmp_path / "portaria.yaml"
        file.write_text("clients: [{platform: kommo, name: acme, client_id: a, client_secret: {file: secret}}]")
        run("configure", file)
        stored = service_clients.client("secretsmanager").get_secret_value(
            SecretId=f"{PREFIX}/oauth-clients/kommo/acme"
        )
        assert json.loads(stored["SecretString"]) == {"client_secret": f"{CANARY}-from-file"}

    def test_cli_configure_warning_of_api_is_shown(
        self, wire: Wire, marketo: responses.RequestsMock, tmp_path: Path
    ) -> None:
        file = tmp_path / "portaria.yaml"
        file.write_text(EXAMPLE.read_text().replace("dedupe_fields: [email]", "dedupe_fields: [email, firstName]"))
        assert "warning: kommo-contacts: dedupe_fields: firstName is not among" in run("configure", file).stdout

    def test_cli_configure_unreadable_file_is_a_usage_error(self, wire: Wire, tmp_path: Path) -> None:
        assert "No such file" in run("configure", tmp_path / "none.yaml", exit_code=2).stderr
        assert "Is a directory" in run("configure", tmp_path, exit_code=2).stderr
        (tmp_path / "latin1").write_bytes("clients: ação".encode("latin-1"))
        assert "not UTF-8" in run("configure", tmp_path / "latin1", exit_code=2).stderr


class TestConnections:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in CONNECTIONS_ENVIRONMENT.items():
            monkeypatch.setenv(name, value)

    @pytest.fixture
    def world(self, stack: Cloud) -> Iterator[World]:
        with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
            yield World(mock, stack)

    def test_cli_configure_connection_of_each_kind_is_created_then_unchanged(self, wire: Wire, world: World) -> None:
        assert changes(CONNECTIONS) == ["created"] * 9
        assert changes(CONNECTIONS) == ["unchanged"] * 9
        states = {item["name"]: item["state"] for item in listed("connections", "list")}
        assert states == {
            "erp": "connected", "warehouse": "connected", "helpdesk": "connected", "shop-main": "pending",
            "billing-main": "connected", "engage-main": "connected", "marketek-main": "connected",
        }  # fmt: skip

    def test_cli_configure_redirect_uri_is_shown_only_for_consent_clients(
        self, wire: Wire, world: World, tmp_path: Path
    ) -> None:
        told = run("configure", only(tmp_path, "shop-main", "billing-main")).stdout
        assert told.count("Register this redirect URI") == 1
        assert f"{API_URL}/install/oauth2/shop\n" in told

    def test_cli_configure_changed_credential_is_shown_as_updated(
        self, wire: Wire, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = only(tmp_path, "erp", "helpdesk")
        changes(file)
        monkeypatch.setenv("ERP_KEY", f"{CANARY}-new")
        assert changes(file) == ["updated", "unchanged"]
        assert told("connections", "show", "erp")["generation"] == 2

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (("X-Api-Key", "X-Other"), "fields.header_name of a connection cannot change"),
            (("name: erp\n", "name: shop-main\n"), "stands in connections twice"),
            (("client: shop\n", "client: billing\n"), "client of a connection cannot change"),
            (("scopes: read\n", "scopes: write\n"), "scopes of a connection cannot change"),
            (
                ("environment: production", "environment: homologation"),
                "fields.environment of a connection cannot change",
            ),
        ],
    )
    def test_cli_configure_immutable_field_changed_is_refused_with_place(
        self, wire: Wire, world: World, tmp_path: Path, change: tuple[str, str], words: str
    ) -> None:
        file = only(tmp_path, "erp", "shop-main", "billing-main", "engage-main")
        changes(file)
        assert change[0] in file.read_text()
        file.write_text(file.read_text().replace(*change))
        assert words in run("configure", file, exit_code=2).stderr

    def test_cli_configure_missing_field_is_refused_with_place(self, wire: Wire, world: World, tmp_path: Path) -> None:
        file = tmp_path / "connections.yaml"
        file.write_text("connections: [{name: erp, platform: http, kind: bearer, allowed_domain: api.example.com}]")
        assert f"{file}:1:15: credentials.token is missing" in run("configure", file, exit_code=2).stderr

    @pytest.mark.parametrize("now", [True, False])
    def test_cli_connections_rotate_reads_token_from_standard_input(
        self, wire: Wire, world: World, tmp_path: Path, now: bool
    ) -> None:
        changes(only(tmp_path, "marketek-main"))
        run("connections", "rotate", "marketek-main", *(["--now"] if now else []), input="pit-canary-new\n")
        shown = told("connections", "show", "marketek-main")
        assert (shown["generation"], bool(shown["previous_until"])) == (2, not now)
        run("connections", "expire", "marketek-main")
        assert told("connections", "show", "marketek-main")["previous_until"] is None

    def test_cli_connections_rotate_refused_token_shows_error(self, wire: Wire, world: World, tmp_path: Path) -> None:
        changes(only(tmp_path, "marketek-main"))
        error = run("connections", "rotate", "marketek-main", input="pit-canary-dead", exit_code=1).stderr
        assert "LeadConnector refused the token" in error
        assert "canary" not in error

    def test_cli_connections_events_shows_url_and_secret_header(self, wire: Wire, world: World, tmp_path: Path) -> None:
        changes(only(tmp_path, "marketek-main"))
        done = run("event-addresses", "create", "marketek-main")
        assert re.fullmatch(rf"{API_URL}/events/leadconnector/marketek-main/\S{{43}}\n", done.stdout)
        assert re.search(r"Header X-Portaria-Secret: \S{43} ", done.stderr)
        document = told("event-addresses", "create", "marketek-main")
        assert set(document) == {"url", "header_name", "header_value", "previous_until"}


class TestCalls:
    """`connections call` and `authorizations create`."""

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in CONNECTIONS_ENVIRONMENT.items():
            monkeypatch.setenv(name, value)

    @pytest.fixture
    def api(self, wire: Wire, stack: Cloud, tmp_path: Path) -> Iterator[responses.RequestsMock]:
        with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
            run("configure", only(tmp_path, "erp", "helpdesk", "shop-main"))
            yield mock

    def test_cli_connections_call_prints_body_on_stdout_and_status_on_stderr(self, api: responses.RequestsMock) -> None:
        api.get("https://api.example.com/v1/things?a=1", body='{"a": 1.10}', content_type="application/json")
        done = run("connections", "call", "helpdesk", "get", "/v1/things?a=1", "--header", "Prefer: a: b")
        assert (done.stdout, done.stderr) == ('{"a": 1.10}', "200 application/json\n")
        sent = api.calls[-1].request.headers
        assert (sent["Authorization"], sent["Prefer"]) == (f"Bearer {CANARY}-token", "a: b")

    @pytest.mark.parametrize(
        ("data", "sent", "content_type"),
        [
            ('{"a": "ü", "b": 1.10}', '{"a": "ü", "b": 1.10}'.encode(), "application/json"),
            ("a=1", b"a=1", None),
            ("@file", b"\x00\xff", None),
            ("@-", b"piped", None),
            ("", b"", None),
        ],
    )
    def test_cli_connections_call_data_is_sent_unchanged(
        self, api: responses.RequestsMock, tmp_path: Path, data: str, sent: bytes, content_type: str | None
    ) -> None:
        api.post("https://api.example.com/v1/things", status=204)
        if data == "@file":
            (tmp_path / "file").write_bytes(sent)
            data = f"@{tmp_path / 'file'}"
        run("connections", "call", "helpdesk", "POST", "/v1/things", "--data", data, input="piped")
        request = api.calls[-1].request
        assert (request.body or b"") == sent
        assert request.headers.get("Content-Type") == content_type

    def test_call_with_a_lost_answer_reaches_the_platform_once(self, wire: Wire, api: responses.RequestsMock) -> None:
        api.post("https://api.example.com/v1/things", body="made")
        wire.lose()
        assert run("connections", "call", "helpdesk", "POST", "/v1/things").stdout == "made"
        assert len(api.calls) == 1

    def test_cli_connections_call_content_type_option_is_kept(self, api: responses.RequestsMock) -> None:
        api.post("https://api.example.com/v1/things")
        header = ("--header", "content-type: application/vnd.api+json")
        run("connections", "call", "helpdesk", "POST", "https://api.example.com/v1/things", "--data", "{}", *header)
        assert api.calls[-1].request.headers["Content-Type"] == "application/vnd.api+json"

    def test_cli_connections_call_binary_body_is_printed_as_bytes(self, api: responses.RequestsMock) -> None:
        api.get("https://api.example.com/logo.png", body=b"\x89PNG\x00\xff", content_type="image/png")
        assert run("connections", "call", "helpdesk", "GET", "/logo.png").stdout_bytes == b"\x89PNG\x00\xff"

    def test_cli_connections_call_status_400_or_more_sets_exit_code(self, api: responses.RequestsMock) -> None:
        api.get("https://api.example.com/none", status=404, body="nothing")
        done = run("connections", "call", "helpdesk", "GET", "/none", exit_code=1)
        assert (done.stdout, done.stderr) == ("nothing", "404 text/plain\n")
        shown = told("connections", "call", "helpdesk", "GET", "/none", exit_code=1)
        assert (shown["status"], shown["body"]) == (404, "nothing")

    def test_cli_connections_call_withheld_body_is_explained(self, api: responses.RequestsMock) -> None:
        api.get("https://api.example.com/me", body=f"you are {CANARY}-token")
        done = run("connections", "call", "helpdesk", "GET", "/me")
        assert done.stdout == ""
        assert done.stderr.endswith(
            "Note: the body is withheld: it contains the connection's credential, or a part of it.\n"
        )

    def test_cli_connections_call_host_outside_allowed_domain_is_an_error(self, api: responses.RequestsMock) -> None:
        error = run("connections", "call", "helpdesk", "GET", "https://evil.example/", exit_code=1).stderr
        assert error == "error: the host is outside this connection's allowed_domain: api.example.com\n"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("GET", "/", "--header", f"{CANARY}-token"), "must have the form 'NAME: VALUE'"),
            (("POST", "/", "--data", "@/no/such/file"), "/no/such/file cannot be read"),
            (("TRACE", "/"), "Usage"),
            (("GET",), "Missing argument 'PATH'"),
        ],
    )
    def test_cli_connections_call_wrong_usage_sends_nothing(
        self, wire: Wire, arguments: tuple[str, ...], words: str
    ) -> None:
        assert words in run("connections", "call", "helpdesk", *arguments, exit_code=2).stderr
        assert wire.requests == []

    def test_cli_connections_authorize_prints_link_and_expiry(self, api: responses.RequestsMock) -> None:
        done = run("authorizations", "create", "shop-main")
        assert re.fullmatch(r"https://\S+/install/oauth2/shop/start\?link=\S{43}\n", done.stdout)
        assert re.fullmatch(r"The link works once, until \S+Z\.\n", done.stderr)
        assert set(told("authorizations", "create", "shop-main")) == {"id", "url", "expires_at"}
        assert "needs no authorization" in run("authorizations", "create", "erp", exit_code=1).stderr


class TestListings:
    def test_cli_resource_commands_list_show_and_delete_each_kind(
        self, wire: Wire, marketo: responses.RequestsMock
    ) -> None:
        run("configure", EXAMPLE)
        for kind, name in (
            ("routes", "kommo-contacts"),
            ("connections", "marketo-main"),
            ("oauth-clients", "kommo/acme"),
        ):
            assert name.rpartition("/")[2] in run(kind, "list").stdout
            assert name.rpartition("/")[2] in run(kind, "show", name).stdout
            assert told(kind, "show", name) == listed(kind, "list")[0] | (
                {"warnings": []} if kind == "oauth-clients" else {}
            )
            run(kind, "delete", name, exit_code=1, input="n\n")
            assert run(kind, "delete", name, input="y\n").stdout == f"{name} is deleted.\n"
            assert "There are no" in run(kind, "list").stdout
            assert "error: " in run(kind, "show", name, exit_code=1).stderr

    def test_cli_installs_list_reads_all_pages_up_to_limit(self, wire: Wire, stack: Cloud) -> None:
        expected = [add_install(stack, number) for number in range(120)][::-1]
        assert [item["id"] for item in listed("installs", "list", "--limit", "500")] == expected
        assert [item["id"] for item in listed("installs", "list")] == expected[:50]
        assert [item["id"] for item in listed("installs", "list", "--limit", "110")] == expected[:110]

    def test_cli_installs_list_failed_shows_only_failed_installs(self, wire: Wire, stack: Cloud) -> None:
        add_install(stack, 1)
        failed = add_install(
            stack, 2, "failed", reason="code_expired", detail="too late", failed_at=clock.to_iso(clock.now())
        )
        listed = run("installs", "list", "--state", "failed").stdout
        assert failed in listed
        assert "code_expired" in listed
        assert "a1.kommo.com" not in listed
        assert "too late" in run("installs", "show", failed).stdout

    def test_list_since_sends_a_time(self, wire: Wire) -> None:
        run("installs", "list", "--since", "2026-01-31T23:59:59Z")
        assert "since=2026-01-31T23%3A59%3A59Z" in wire.requests[-1].url
        run("audit", "list", "--since", "2h")
        sent = parse_qs(urlsplit(wire.requests[-1].url).query)["since"][0]
        assert clock.now() - clock.from_iso(sent) - timedelta(hours=2) < timedelta(minutes=1)
        assert "since must be a time" in run("audit", "list", "--since", "yesterday", exit_code=1).stderr

    def test_routes_are_listed_by_source(self, wire: Wire, marketo: responses.RequestsMock) -> None:
        run("configure", EXAMPLE)
        assert [item["name"] for item in listed("routes", "list", "--source", "client:kommo/acme")] == [
            "kommo-contacts"
        ]
        assert (
            "There are no routes with source client:kommo/other."
            in run("routes", "list", "--source", "client:kommo/other").stdout
        )

    def test_lists_send_their_filters(self, wire: Wire, marketo: responses.RequestsMock) -> None:
        for words, query in (
            ("connections list --state needs_reconnect --platform kommo", "state=needs_reconnect&platform=kommo"),
            ("connections list --account-id 77", "account_id=77"),
            (
                "routes list --destination marketo-main --source connection:crm",
                "source=connection%3Acrm&destination=marketo-main",
            ),
            ("installs list --client kommo/acme --state failed", "client=kommo%2Facme&state=failed"),
            ("audit list --operation delete_route --target people", "operation=delete_route&target=people"),
        ):
            run(*words.split())
            sent = parse_qs(urlsplit(wire.requests[-1].url).query)
            assert sent | parse_qs(query) == sent

    def test_connections_are_listed_by_state(self, wire: Wire, marketo: responses.RequestsMock) -> None:
        run("configure", EXAMPLE)
        assert [
            item["platform"] for item in listed("connections", "list", "--state", "connected", "--platform", "marketo")
        ] == ["marketo"]
        none = run("connections", "list", "--state", "needs_reconnect", "--platform", "kommo").stdout
        assert "There are no connections with state needs_reconnect" in none

    def test_platforms_scopes_and_the_caller_are_shown(self, wire: Wire) -> None:
        assert re.search(r"^http +api_key, basic, bearer", run("platforms", "list").stdout, re.MULTILINE)
        assert told("platforms", "show", "marketo")["name"] == "marketo"
        assert "routes:list" in [item["name"] for item in listed("scopes", "list", "--all")]
        assert told("me")["kind"] == "administrator"

    @pytest.mark.parametrize("name", ["kommo", "kommo/acme/x", "/", "kommo/"])
    def test_cli_clients_show_name_without_two_parts_is_a_usage_error(self, wire: Wire, name: str) -> None:
        assert "PLATFORM/NAME" in run("oauth-clients", "show", name, exit_code=2).stderr
        assert wire.requests == []

    def test_cli_routes_show_special_characters_are_percent_encoded(self, wire: Wire) -> None:
        run("routes", "show", "../installs?state=x#y", exit_code=2)
        run("routes", "show", "a?b#c%2F..", exit_code=1)
        assert wire.requests[-1].url == f"{API_URL}/admin/v1/routes/a%3Fb%23c%252F.."

    def test_cli_routes_show_markup_in_error_is_printed_literally(self, wire: Wire) -> None:
        wire.instead = lambda request: Answered(404, '{"detail": "there is no route [red]x[/red]"}')
        assert "there is no route [red]x[/red]" in run("routes", "show", "some-name", exit_code=1).stderr


class TestErrors:
    def test_cli_error_with_json_option_is_a_problem_document(self, wire: Wire) -> None:
        error = json.loads(run("--json", "routes", "show", "none", exit_code=1).stderr)
        assert (error["status"], error["type"]) == (404, "urn:portaria:problem:unknown_route")

    def test_cli_error_403_names_missing_iam_permission(self, wire: Wire) -> None:
        wire.instead = lambda request: Answered(403, '{"message": "User: arn:x is not authorized"}')
        error = run("routes", "list", exit_code=1).stderr
        assert "execute-api:Invoke" in error
        assert "User: arn:x is not authorized" in error

    @pytest.mark.parametrize("text", ["<html>", "[]", "null", '{"message": "Internal server error"}'])
    def test_cli_error_answer_not_from_function_shows_status(self, wire: Wire, text: str) -> None:
        wire.instead = lambda request: Answered(502, text)
        assert "the API answered 502" in run("routes", "list", exit_code=1).stderr

    def test_cli_error_unreachable_api_shows_host_and_exits_3(self, wire: Wire) -> None:
        def refuse(request: AWSPreparedRequest) -> Answered:
            raise EndpointConnectionError(endpoint_url=request.url)

        wire.instead = refuse
        assert (
            "abc123.execute-api.us-east-1.amazonaws.com could not be reached"
            in run("routes", "list", exit_code=3).stderr
        )

    def test_cli_configure_404_from_gateway_creates_nothing(self, wire: Wire) -> None:
        wire.instead = lambda request: Answered(404, '{"message": "Not Found"}')
        assert "the API answered 404" in run("configure", EXAMPLE, exit_code=1).stderr
        assert [request.method for request in wire.requests] == ["GET"]

    def test_cli_usage_error_exits_2_and_help_lists_commands(self, wire: Wire) -> None:
        run("unknown", exit_code=2)
        run("installs", "list", "--state", "lost", exit_code=2)
        assert "configure" in run("--help").stdout


class TestApiDiscovery:
    def test_cli_api_url_is_found_in_stack_output(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PORTARIA_API_URL")
        asked = []

        class CloudFormation:
            def describe_stacks(self, **call: str) -> Any:
                asked.append(call["StackName"])
                return {"Stacks": [{"Outputs": [{"OutputKey": "ApiUrl", "OutputValue": API_URL}]}]}

        monkeypatch.setattr(botocore.session.Session, "create_client", lambda *_: CloudFormation())
        wire.instead = empty_listing
        run("--stack-name", "portaria-staging", "routes", "list")
        assert asked == ["portaria-staging"]

    @pytest.mark.parametrize("outputs", [{}, {"Outputs": []}])
    def test_cli_api_url_stack_without_output_is_an_error(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch, outputs: dict[str, Any]
    ) -> None:
        monkeypatch.delenv("PORTARIA_API_URL")

        class CloudFormation:
            def describe_stacks(self, **call: str) -> Any:
                return {"Stacks": [outputs]}

        monkeypatch.setattr(botocore.session.Session, "create_client", lambda *_: CloudFormation())
        assert "has no output ApiUrl" in run("routes", "list", exit_code=3).stderr

    def test_cli_api_url_unknown_stack_is_an_error(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PORTARIA_API_URL")

        class CloudFormation:
            def describe_stacks(self, **call: str) -> Any:
                raise ClientError({"Error": {"Code": "ValidationError", "Message": "no"}}, "DescribeStacks")

        monkeypatch.setattr(botocore.session.Session, "create_client", lambda *_: CloudFormation())
        error = run("routes", "list", exit_code=3).stderr
        assert "portaria could not be looked up (ValidationError)" in error

    def test_cli_without_aws_credentials_is_an_error(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda _: None)
        assert "no AWS credentials" in run("routes", "list", exit_code=3).stderr

    def test_cli_api_url_is_found_in_stack_file(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("PORTARIA_API_URL")
        monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda _: None)
        file = tmp_path / "stack.json"
        assert "make up" in run("--stack-file", file, "routes", "list", exit_code=3).stderr
        for broken in ("", "{}", "[]"):
            file.write_text(broken)
            assert "make up" in run("--stack-file", file, "routes", "list", exit_code=3).stderr
        stack = {"api_url": API_URL, "region": "us-east-1", "access_key_id": "testing", "secret_access_key": "x"}
        file.write_text(json.dumps(stack))
        wire.instead = empty_listing
        run("--stack-file", file, "routes", "list")
        monkeypatch.setenv("PORTARIA_STACK_FILE", str(file))
        run("routes", "list")

    @pytest.mark.parametrize("option", ["--stack-name", "--api-url"])
    def test_cli_api_url_option_overrides_environment_variables(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch, option: str
    ) -> None:
        monkeypatch.delenv("PORTARIA_API_URL")
        monkeypatch.setenv("PORTARIA_STACK_FILE", "/no/such/file")
        monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda _: None)
        assert "no AWS credentials" in run(option, "https://a.example", "routes", "list", exit_code=3).stderr


def test_functions_import_no_command_line_module() -> None:
    """Nor its libraries: click, rich and yaml are not in the layer."""
    root = EXAMPLE.parent.parent
    code = "import sys, handler; print(sorted({'click', 'rich', 'yaml', 'portaria_cli'} & set(sys.modules)))"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root / 'layers' / 'portaria'}:{root / 'cli'}:{root / 'functions' / 'manage'}",
        "TABLE_NAME": "portaria",
        "SECRETS_PREFIX": "portaria",
        "UNINSTALLS_QUEUE_URL": "https://sqs.example.com/uninstalls",
        "BACKFILLS_QUEUE_URL": "https://sqs.example.com/backfills",
        "WAITING_RECORDS_QUEUE_URL": "https://sqs.example.com/waiting-records",
        "RECORDS_QUEUE_URL": "https://sqs.example.com/records",
        "WEBHOOK_DELIVERIES_QUEUE_URL": "https://sqs.example.com/webhook-deliveries",
        "PRIVATE_INTEGRATION_MANAGERS": "administrators",
        "STACK_NAME": "portaria",
        "QUEUE_NAMES": "records=records",
        "EVENT_ENDPOINTS": "api",
        "SEALING_KEY_ID": "alias/sealing",
        "CREDENTIAL_STORE": "secrets-manager",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_cli_configure_oauth_client_deleted_during_replace_is_an_error(
    wire: Wire, marketo: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("configure", EXAMPLE)

    def vanish(request: AWSPreparedRequest) -> Answered:
        wire.instead = None
        answer = wire.send(request)
        oauth_clients.delete(wire.manage.cloud.table, "kommo", "acme")
        return answer

    wire.instead = vanish
    assert "there is no OAuth client kommo/acme" in run("configure", EXAMPLE, exit_code=1).stderr
