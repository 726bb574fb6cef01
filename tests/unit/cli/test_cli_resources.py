"""The commands `create` and `edit`: OAuth clients, connections and routes from options, files and secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import responses

from portaria.api.operations import OPERATIONS
from portaria.aws import service_clients
from portaria_cli.group_parts.inputs import READ_ONLY
from tests.fakes.api.command_line import Answered, Wire, headers_of, listed, run, told, wired
from tests.fakes.api.manage import API_URL, CANARY, TOKEN_URL
from tests.fakes.aws.moto_cloud import PREFIX, Cloud

MARKETO = (
    "connections", "create", "marketo-main", "--platform", "marketo", "--field", "munchkin_id=123-ABC-456",
    "--credential", "client_id=env:MARKETO_ID", "--credential", "client_secret=env:MARKETO_SECRET",
)  # fmt: skip
CLIENT = ("oauth-clients", "create", "kommo/acme", "--client-id", "a", "--client-secret", "env:KOMMO_SECRET")
ROUTE = (
    "routes", "create", "leads", "--source", "client:kommo/acme", "--object", "contacts",
    "--destination", "marketo-main",
)  # fmt: skip


@pytest.fixture
def wire(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setenv("KOMMO_SECRET", f"{CANARY}-kommo")
    monkeypatch.setenv("MARKETO_ID", "marketo-client")
    monkeypatch.setenv("MARKETO_SECRET", f"{CANARY}-marketo")
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.post(TOKEN_URL, json={"access_token": f"{CANARY}-token", "token_type": "bearer", "expires_in": 3599})
        yield wired(stack, monkeypatch)


def secret_of(name: str) -> dict[str, Any]:
    answer = service_clients.client("secretsmanager").get_secret_value(SecretId=f"{PREFIX}/{name}")
    return dict(json.loads(answer["SecretString"]))


def sent(wire: Wire, method: str) -> dict[str, Any]:
    """The body of the last request with this method."""
    body = next(request.body for request in reversed(wire.requests) if request.method == method)
    return dict(json.loads(body))


def test_read_only_fields_are_what_outputs_have_beyond_inputs() -> None:
    by_id = {each.id: each for each in OPERATIONS}
    for kind, create, also in (
        ("oauth-clients", "create_oauth_client", "show_oauth_client"),
        ("connections", "create_connection", "show_connection"),
        ("routes", "create_route", "show_route"),
        ("private-integrations", "create_private_integration", "show_private_integration"),
    ):
        made, shown = by_id[create], by_id[also]
        assert made.input
        assert made.output
        assert shown.output
        outputs = {*made.output.model_fields, *shown.output.model_fields}
        assert set(READ_ONLY[kind]) == outputs - set(made.input.model_fields)


class TestOAuthClients:
    def test_create_with_branding_sends_it_and_edit_keeps_it(self, wire: Wire, tmp_path: Path) -> None:
        logo = tmp_path / "aurora.svg"
        logo.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"></svg>')
        options = (
            "--display-name", "Aurora Sync", "--colour", "#7c3aed", "--support-email", "help@example.com",
            "--support-url", "https://example.com/help", "--privacy-url", "https://example.com/p",
            "--terms-url", "https://example.com/t", "--return-url", "https://app.example.com/*",
            "--return-url", "https://app.example.com/done",
        )  # fmt: skip
        run(*CLIENT, *options, "--logo", str(logo))
        shown = told("oauth-clients", "show", "kommo/acme")
        assert shown["display_name"] == "Aurora Sync"
        assert shown["return_urls"] == ["https://app.example.com/*", "https://app.example.com/done"]
        assert shown["logo_url"].startswith(f"{API_URL}/install/kommo/acme/logo/")

        run("oauth-clients", "edit", "kommo/acme", "--colour", "#000000")
        assert told("oauth-clients", "show", "kommo/acme") == shown | {"colour": "#000000"} | {
            "warnings": told("oauth-clients", "show", "kommo/acme")["warnings"]
        }
        run("oauth-clients", "edit", "kommo/acme", "--remove-logo")
        assert told("oauth-clients", "show", "kommo/acme")["logo_url"] is None

    def test_create_with_two_wishes_for_the_logo_is_wrong_usage(self, wire: Wire, tmp_path: Path) -> None:
        logo = tmp_path / "aurora.svg"
        logo.write_text("<svg/>")
        told_of = run(*CLIENT, "--logo", str(logo), "--remove-logo", exit_code=2).stderr
        assert "--remove-logo" in told_of
        assert wire.requests == []

    def test_configure_uploads_a_logo_once_and_again_when_it_changes(self, wire: Wire, tmp_path: Path) -> None:
        logo, file = tmp_path / "aurora.svg", tmp_path / "portaria.yaml"
        drawing = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">{}</svg>'
        logo.write_text(drawing.format(""))
        written = "client_secret: {env: KOMMO_SECRET}, "
        client = f"{{platform: kommo, name: acme, client_id: a, {written}logo: {{base64_file: aurora.svg}}}}"
        file.write_text(f"clients: [{client}]\n")
        run("configure", str(file))
        first = told("oauth-clients", "show", "kommo/acme")["logo_url"]
        # The secret is written each time, so it is left out.
        file.write_text(f"clients: [{client.replace(written, '')}]\n")
        assert [step["action"] for step in told("configure", str(file), "--dry-run")] == ["nothing"]

        logo.write_text(drawing.format('<path d="M0 0"/>'))
        (step,) = told("configure", str(file), "--dry-run")
        assert (step["action"], step["fields"]) == ("change", ["logo_url"])
        run("configure", str(file))
        assert told("oauth-clients", "show", "kommo/acme")["logo_url"] != first

    def test_configure_logo_that_cannot_be_used_is_told_with_its_place(self, wire: Wire, tmp_path: Path) -> None:
        file = tmp_path / "portaria.yaml"
        (tmp_path / "aurora.svg").write_text("<svg><script/></svg>")
        file.write_text("clients:\n  - {platform: kommo, name: acme, client_id: a, logo: {base64_file: aurora.svg}}\n")
        stderr = run("configure", str(file), exit_code=2).stderr
        assert re.search(r"portaria\.yaml:2:\d+: logo must be an svg element", stderr)

    def test_create_stores_the_secret_and_shows_what_to_register(self, wire: Wire) -> None:
        done = run(*CLIENT, "--scopes", "crm")
        assert f"{API_URL}/install/kommo/acme\n" in done.stdout
        assert done.stderr == "The OAuth client kommo/acme is created.\n"
        assert secret_of("oauth-clients/kommo/acme") == {"client_secret": f"{CANARY}-kommo"}
        assert headers_of(wire.requests[-1])["Idempotency-Key"]

    @pytest.mark.parametrize("source", ["@secret.txt", "@-"])
    def test_create_reads_the_secret_from_a_file_or_standard_input(
        self, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "secret.txt").write_text(f"{CANARY}-new\n")
        run(*CLIENT[:-1], source, input=f"{CANARY}-new\n")
        assert secret_of("oauth-clients/kommo/acme") == {"client_secret": f"{CANARY}-new"}

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            (f"{CANARY}-typed", "must name where the secret is: @FILE|@-|env:NAME"),
            ("@none.txt", "none.txt cannot be read: No such file"),
            ("env:NO_SUCH_NAME", "the environment variable NO_SUCH_NAME is not set"),
        ],
    )
    def test_create_with_a_secret_that_cannot_be_read_sends_nothing(self, wire: Wire, source: str, words: str) -> None:
        assert words in run(*CLIENT[:-1], source, exit_code=2).stderr
        assert wire.requests == []

    def test_create_from_a_file_with_a_reference(self, wire: Wire, tmp_path: Path) -> None:
        file = tmp_path / "client.yaml"
        file.write_text("client_id: a\nclient_secret: {env: KOMMO_SECRET}\nscopes: crm\n")
        run("oauth-clients", "create", "kommo/acme", "--file", file, "--scopes", "crm notifications")
        assert told("oauth-clients", "show", "kommo/acme")["scopes"] == "crm notifications"
        assert secret_of("oauth-clients/kommo/acme") == {"client_secret": f"{CANARY}-kommo"}

    def test_create_from_standard_input(self, wire: Wire) -> None:
        document = json.dumps({"client_id": "a", "client_secret": f"{CANARY}-piped"}, indent="\t")
        run("oauth-clients", "create", "kommo/acme", "--file", "-", input=document)
        assert secret_of("oauth-clients/kommo/acme") == {"client_secret": f"{CANARY}-piped"}
        arguments = ("oauth-clients", "create", "kommo/b", "--file", "-", "--client-secret", "@-")
        assert "only one" in run(*arguments, input=document, exit_code=2).stderr

    def test_edit_changes_one_field_and_keeps_the_secret(self, wire: Wire) -> None:
        run(*CLIENT)
        before = told("oauth-clients", "show", "kommo/acme")
        run("oauth-clients", "edit", "kommo/acme", "--scopes", "crm")
        assert told("oauth-clients", "show", "kommo/acme") == {**before, "scopes": "crm"}
        assert "client_secret" not in sent(wire, "PUT")
        put = next(each for each in wire.requests if each.method == "PUT")
        assert headers_of(put)["If-Match"]
        assert secret_of("oauth-clients/kommo/acme") == {"client_secret": f"{CANARY}-kommo"}

    def test_edit_of_what_show_printed_changes_nothing(self, wire: Wire, tmp_path: Path) -> None:
        run(*CLIENT)
        shown = run("--json", "oauth-clients", "show", "kommo/acme").stdout
        (tmp_path / "client.json").write_text(shown)
        changed = told("oauth-clients", "edit", "kommo/acme", "--file", tmp_path / "client.json")
        assert changed == json.loads(shown)

    def test_edit_of_a_file_for_another_client_sends_nothing(self, wire: Wire, tmp_path: Path) -> None:
        run(*CLIENT)
        wire.requests.clear()
        (tmp_path / "client.yaml").write_text("name: other\nclient_id: b\n")
        error = run("oauth-clients", "edit", "kommo/acme", "--file", tmp_path / "client.yaml", exit_code=2).stderr
        assert "the file describes another resource: its name is not that of kommo/acme" in error
        assert [request.method for request in wire.requests] == ["GET"]

    def test_edit_without_a_change_sends_nothing(self, wire: Wire) -> None:
        run(*CLIENT)
        wire.requests.clear()
        assert "there is nothing to change" in run("oauth-clients", "edit", "kommo/acme", exit_code=2).stderr
        assert "PUT" not in [request.method for request in wire.requests]


class TestConnections:
    def test_create_tests_and_stores_the_credentials(self, wire: Wire) -> None:
        made = told(*MARKETO)
        assert (made["state"], made["fields"]["munchkin_id"]) == ("connected", "123-ABC-456")
        assert made["credentials_set"] == ["client_id", "client_secret"]

    def test_create_of_one_that_people_authorize_says_how(self, wire: Wire, tmp_path: Path) -> None:
        run(
            "oauth-clients", "create", "oauth2/shop", "--client-id", "a", "--client-secret", "env:KOMMO_SECRET",
            "--api-domain", "api.example.com", "--token-url", "https://login.example.com/token",
            "--authorize-url", "https://login.example.com/authorize",
        )  # fmt: skip
        done = run(
            "connections", "create", "shop-main", "--platform", "oauth2", "--kind", "oauth2", "--client", "shop",
            "--allowed-domain", "api.example.com",
        )  # fmt: skip
        assert "`portaria authorizations create shop-main`" in done.stderr

    @pytest.mark.parametrize("pair", ["token", "=x", f"token={CANARY}"])
    def test_create_with_a_credential_in_the_command_sends_nothing(self, wire: Wire, pair: str) -> None:
        arguments = ("connections", "create", "erp", "--platform", "http", "--credential", pair)
        assert "@FILE|@-|env:NAME" in run(*arguments, exit_code=2).stderr
        assert wire.requests == []

    def test_edit_replaces_the_credentials(self, wire: Wire, tmp_path: Path) -> None:
        run(
            "connections", "create", "erp", "--platform", "http", "--kind", "bearer",
            "--allowed-domain", "api.example.com", "--credential", "token=env:KOMMO_SECRET",
        )  # fmt: skip
        done = run("connections", "edit", "erp", "--credential", "token=@-", input=f"{CANARY}-new")
        assert "The credentials of the connection erp are replaced." in done.stderr
        assert told("connections", "show", "erp")["generation"] == 2
        (tmp_path / "erp.yaml").write_text("credentials: {token: {env: KOMMO_SECRET}}\nkind: api_key\n")
        error = run("connections", "edit", "erp", "--file", tmp_path / "erp.yaml", exit_code=1).stderr
        assert f"{tmp_path / 'erp.yaml'}:2:7: kind of a connection cannot change" in error
        assert "nothing to change" in run("connections", "edit", "erp", exit_code=2).stderr


class TestRoutes:
    @pytest.fixture(autouse=True)
    def ends(self, wire: Wire) -> None:
        run(*MARKETO)
        run(*CLIENT)

    def test_create_and_edit_single_attributes(self, wire: Wire) -> None:
        made = told(*ROUTE, "--map", "email=email", "--map", "lastName=name", "--dedupe-field", "email")
        assert made["mapping"] == {"email": "email", "lastName": "name"}
        changed = told(
            "routes", "edit", "leads", "--map", "lastName=", "--map", "firstName=first_name", "--weight", "3"
        )
        assert (changed["mapping"], changed["weight"]) == ({"email": "email", "firstName": "first_name"}, 3)
        assert changed["dedupe_fields"] == ["email"]

    def test_edit_with_a_file_replaces_the_whole_route(self, wire: Wire, tmp_path: Path) -> None:
        run(*ROUTE, "--priority", "high")
        (tmp_path / "route.yaml").write_text(
            "source: client:kommo/acme\nobject: contacts\ndestination: marketo-main\nmapping:\n  email: email\n"
        )
        changed = told("routes", "edit", "leads", "--file", tmp_path / "route.yaml")
        assert (changed["priority"], changed["mapping"]) == ("normal", {"email": "email"})

    def test_create_with_a_wrong_file_names_the_place(self, wire: Wire, tmp_path: Path) -> None:
        file = tmp_path / "route.yaml"
        file.write_text("source: client:kommo/acme\nobject: contacts\ndestination: nowhere\nmapping:\n  email: '['\n")
        error = run("routes", "create", "leads", "--file", file, exit_code=1).stderr
        assert f"{file}:3:14: " in error
        assert listed("routes", "list") == []

    def test_create_with_warnings_prints_them_on_standard_error(self, wire: Wire) -> None:
        done = run(*ROUTE, "--map", "email=email", "--map", "firstName=name", "--dedupe-field", "email",
                   "--dedupe-field", "firstName")  # fmt: skip
        assert "warning: dedupe_fields: firstName is not among" in done.stderr
        assert "warning" not in done.stdout

    def test_edit_beside_another_changes_nothing(self, wire: Wire) -> None:
        run(*ROUTE)
        interfering: list[bool] = []

        def interfere(request: Any) -> Any:
            answer = wire.deliver(request)
            if request.method == "GET" and not interfering:
                interfering.append(True)
                run("routes", "edit", "leads", "--weight", "7")
            return answer

        wire.instead = interfere
        assert "it has changed since" in run("routes", "edit", "leads", "--priority", "high", exit_code=1).stderr
        wire.instead = None
        found = told("routes", "show", "leads")
        assert (found["weight"], found["priority"]) == (7, "normal")


class TestPreviews:
    """The responses are as the API's document describes them."""

    FOUND: ClassVar[dict[str, Any]] = {
        "objects": [{"email": "ana@example.com"}],
        "warnings": ["lastName is empty"],
        "request": {"method": "POST", "path": "/persons", "body": {"persons": [{"email": "ana@example.com"}]}},
        "refused_reason": None,
        "refused_detail": None,
    }

    def test_preview_prints_the_objects_and_the_request(self, wire: Wire, tmp_path: Path) -> None:
        wire.instead = lambda request: Answered(200, json.dumps(self.FOUND))
        (tmp_path / "record.yaml").write_text("id: 1\nemail: ana@example.com\n")
        done = run("routes", "preview", "people", "--record", tmp_path / "record.yaml")
        assert sent(wire, "POST") == {"name": "people", "record": {"id": 1, "email": "ana@example.com"}}
        assert done.stdout.startswith("email  ana@example.com\n\nPOST /persons\n{")
        assert done.stderr == "warning: lastName is empty\n"

    def test_preview_of_a_route_in_a_file_sends_the_route(self, wire: Wire, tmp_path: Path) -> None:
        wire.instead = lambda request: Answered(200, json.dumps(self.FOUND))
        (tmp_path / "route.yaml").write_text("name: people\nsource: client:kommo/acme\nobject: contacts\n")
        run("routes", "preview", "--file", tmp_path / "route.yaml", "--record", "-", input='{"id": 1}')
        assert sent(wire, "POST") == {
            "route": {"source": "client:kommo/acme", "object": "contacts"},
            "record": {"id": 1},
        }

    def test_preview_of_a_refused_record_fails(self, wire: Wire) -> None:
        refused = {**self.FOUND, "objects": [], "request": None, "refused_detail": "it has no e-mail address"}
        refused["refused_reason"] = "no_dedupe_value"
        wire.instead = lambda request: Answered(200, json.dumps(refused))
        done = run("routes", "preview", "people", "--record", "-", input="{}", exit_code=1)
        assert "It would become a dead letter: it has no e-mail address" in done.stdout

    @pytest.mark.parametrize("words", [(), ("people", "--file", "-")])
    def test_preview_needs_one_route(self, wire: Wire, words: tuple[str, ...]) -> None:
        assert "give the NAME of a route" in run("routes", "preview", *words, "--record", "-", exit_code=2).stderr
        assert wire.requests == []


def test_records_create_sends_the_file_through_the_route(wire: Wire) -> None:
    wire.instead = lambda request: Answered(202, json.dumps({"id": "r-1", "record_count": 1}))
    done = run(
        "records", "create", "people", "--file", "-", input='{"records": [{"key": "7", "data": {"name": "Ana"}}]}'
    )
    assert sent(wire, "POST") == {"route": "people", "records": [{"key": "7", "data": {"name": "Ana"}}]}
    assert "1 record accepted: r-1" in done.stderr
    assert headers_of(wire.requests[-1])["Idempotency-Key"]


@pytest.mark.parametrize(("state", "exit_code"), [("works", 0), ("refused", 1), ("unclear", 1)])
def test_connections_test_fails_unless_the_credentials_work(wire: Wire, state: str, exit_code: int) -> None:
    answer = {"state": state, "detail": None, "connection_state": "connected"}
    wire.instead = lambda request: Answered(200, json.dumps(answer))
    assert f"state             {state}\n" in run("connections", "test", "erp", exit_code=exit_code).stdout
    assert headers_of(wire.requests[-1])["Idempotency-Key"]


class TestInstallLinks:
    @pytest.fixture(autouse=True)
    def client(self, wire: Wire) -> None:
        told(*CLIENT)

    @pytest.mark.parametrize("words", [("install-links", "create"), ("installs", "link")])
    def test_install_links_create_prints_the_url_alone(self, wire: Wire, words: tuple[str, ...]) -> None:
        options = ("--tag", "customer_id=c-1", "--tag", "workspace_id=w", "--language", "pt-BR", "--expires-in", "600")
        done = run(*words, "kommo/acme", *options)
        assert done.stdout.startswith(f"{API_URL}/install/kommo/acme/start?link=")
        assert done.stdout.count("\n") == 1
        assert done.stderr.startswith("The link works until ")
        assert sent(wire, "POST") == {
            "platform": "kommo", "client": "acme", "tags": {"customer_id": "c-1", "workspace_id": "w"},
            "language": "pt-BR", "expires_in_s": 600,
        }  # fmt: skip

    def test_install_links_create_claim_and_several_uses(self, wire: Wire) -> None:
        made = told("install-links", "create", "kommo/acme", "--account-id", "31", "--tag", "customer_id=c-1")
        assert made["purpose"] == "claim"
        told("install-links", "create", "kommo/acme", "--several-uses")
        assert sent(wire, "POST")["single_use"] is False

    def test_install_links_list_show_and_delete(self, wire: Wire) -> None:
        made = told("install-links", "create", "kommo/acme")
        assert [item["id"] for item in told("install-links", "list")["items"]] == [made["id"]]
        assert "install" in run("install-links", "list").stdout
        assert told("install-links", "show", made["id"])["client"] == "acme"
        run("install-links", "delete", made["id"], "--yes")
        assert told("install-links", "list")["items"] == []

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--tag", "customer_id"), "must have the form NAME=VALUE"),
            (("--tag", "a=1", "--tag", "a=2"), "each tag can be given once"),
            (("--language", "fr"), "is not one of"),
        ],
    )
    def test_install_links_create_wrong_usage_sends_nothing(
        self, wire: Wire, options: tuple[str, ...], words: str
    ) -> None:
        before = len(wire.requests)
        assert words in run("install-links", "create", "kommo/acme", *options, exit_code=2).stderr
        assert len(wire.requests) == before

    def test_tags_replace_insists_on_what_it_read_and_list_finds_it(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(*MARKETO)
        assert told("tags", "replace", "marketo-main", "--tag", "customer_id=c-1")["tags"] == {"customer_id": "c-1"}
        assert headers_of(wire.requests[-1])["If-Match"].startswith('"1-connected')
        found = told("connections", "list", "--customer-id", "c-1")["items"]
        assert [item["name"] for item in found] == ["marketo-main"]
        assert told("connections", "list", "--customer-id", "c-2")["items"] == []
        assert told("installs", "list", "--customer-id", "c-1")["items"] == []
        assert told("tags", "replace", "marketo-main")["tags"] == {}
