"""The command `configure`: a whole file is validated by the API's own rules before anything is written."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import responses
import yaml
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError
from click.testing import CliRunner

from portaria.aws import service_clients
from portaria_cli.commands import portaria
from tests.fakes.api.command_line import Answered, Wire, headers_of, listed, run, told, wired
from tests.fakes.api.configurations import (
    CANARY,
    ERP,
    KOMMO,
    MARKETO,
    ROUTE,
    SECRETS,
    SHOP,
    TOKEN_URL,
    WRONG,
    clients,
    connections,
    routes,
    unmarked,
)
from tests.fakes.api.manage import API_URL, empty, secrets_stored
from tests.fakes.aws.moto_cloud import TABLE, Cloud
from tests.fakes.paths import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def wire(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    wire = wired(stack, monkeypatch)
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.post(TOKEN_URL, json={"access_token": f"{CANARY}-token", "token_type": "bearer", "expires_in": 3599})
        yield wire


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "portaria.yaml"


def writes(wire: Wire) -> list[str]:
    return [request.method for request in wire.requests if request.method != "GET"]


def stored() -> tuple[list[Any], list[str]]:
    """Everything that a run could have written."""
    return service_clients.client("dynamodb").scan(TableName=TABLE)["Items"], secrets_stored()


# The values of the examples' variables, by the end of their names.
VARIABLES = {"MUNCHKIN_ID": "123-ABC-456", "URL": "https://login.example.com/token", "DOMAIN": "api.example.com"}


class TestChecks:
    @pytest.mark.parametrize("name", WRONG)
    def test_configure_invalid_file_reports_each_problem_with_place_and_writes_nothing(
        self, wire: Wire, file: Path, name: str
    ) -> None:
        text, places = unmarked(WRONG[name].text)
        file.write_text(text)
        before = stored()
        result = run("configure", file, exit_code=2)
        problems = json.loads(run("--json", "configure", file, exit_code=2).stderr)["problems"]
        assert result.stdout == ""
        assert [(problem["line"], problem["column"]) for problem in problems] == sorted(places.values())
        for number, words in enumerate(WRONG[name].words, min(places)):
            line, column = places[number]
            (told,) = [each for each in result.stderr.split("\n") if each.startswith(f"{file}:{line}:{column}: ")]
            assert words in told
        assert writes(wire) == []
        assert stored() == before

    def test_configure_dry_run_examples_are_valid(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        for file in sorted(EXAMPLES.glob("*.yaml")):
            if "clients:" not in file.read_text():
                continue
            for name in re.findall(r"\{env: (\w+)\}", file.read_text()):
                found = [value for end, value in VARIABLES.items() if name.endswith(end)]
                monkeypatch.setenv(name, found[0] if found else "value")
            steps = told("configure", "--dry-run", file)
            assert {step["action"] for step in steps} == {"create"}
            assert len(steps) == len(re.findall(r"(?m)^  - ", file.read_text()))
        assert writes(wire) == []

    def test_configure_misplaced_secret_is_not_printed(self, wire: Wire, file: Path) -> None:
        """`run` refuses output with the word canary, which each of these values contains."""
        for text in (
            f"{CANARY}: []\n",
            f"clients: {{{CANARY}: [\n",
            clients(KOMMO.replace("client_id: a", f"client_id: a, '{CANARY}': b")),
            clients(KOMMO.replace("client_id: a", "client_id: a, canary-name: 1, canary-name: 2")),
            clients(KOMMO.replace("kommo", "{env: SECRET}")),
            connections(ERP.replace("X-Key", "{env: SPACED}").replace("api.example.com", "{env: SECRET}")),
            connections(ERP.replace("api_key", "{env: SECRET}")),
            connections(ERP.replace("key: {", f"'{CANARY}': {{")),
            clients(KOMMO.replace("kommo", "{env: PLAIN}")),
            connections(ERP.replace("api.example.com", "'*.{env: PLAIN}'").replace("erp", "{env: PLAIN}")),
            connections(
                "- {name: shop-main, platform: oauth2, kind: oauth2, client: {env: PLAIN}, allowed_domain: a.example.com}"
            ),
            connections(MARKETO.replace("{env: MUNCHKIN}", "{env: SECRET}")),
            connections(ERP.replace("erp", "{env: SECRET}")),
            "clients: &canary-x\n  - *canary-y\n",
        ):
            file.write_text(text)
            run("configure", file, exit_code=2)
            run("--json", "configure", file, exit_code=2)
        assert writes(wire) == []

    def test_configure_anchors_and_merges_are_read(self, wire: Wire, file: Path) -> None:
        file.write_text(
            routes(
                f"&one {{{ROUTE}, mapping: &map {{email: email}}}}",
                "{<<: *one, name: two, mapping: {<<: *map, no: name}}",
            )
        )
        run("configure", file)
        assert told("routes", "show", "two")["mapping"] == {"email": "email", "no": "name"}

    def test_configure_exponential_aliases_are_refused(self, wire: Wire, file: Path) -> None:
        lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]" for number in range(1, 9)]
        file.write_text(clients(KOMMO) + "routes:\n  - {name: one, mapping: {" + ", ".join(
            line.replace("a: &", "z: &", 1) for line in lines) + "}}\n")  # fmt: skip
        assert "is too large, with what its aliases repeat" in run("configure", file, exit_code=2).stderr

    def test_configure_unreachable_api_reports_problems_found_in_file(self, wire: Wire, file: Path) -> None:
        def refuse(request: AWSPreparedRequest) -> Answered:
            raise EndpointConnectionError(endpoint_url=request.url)

        wire.instead = refuse
        file.write_text(clients(KOMMO.replace("client_id", "client_di")))
        error = run("configure", file, exit_code=2).stderr
        assert "did you mean client_id?" in error
        assert "The rest was not checked: OAuth client kommo/acme: " in error
        file.write_text(clients(KOMMO))
        assert "abc123.execute-api" in run("configure", file, exit_code=3).stderr

    def test_configure_lookup_forbidden_says_what_was_not_checked(self, wire: Wire, file: Path) -> None:
        def forbid(request: AWSPreparedRequest) -> Answered:
            if "/connections" in request.url:
                return Answered(403, '{"message": "not allowed"}')
            return wire.deliver(request)

        wire.instead = forbid
        file.write_text(clients(KOMMO) + f"routes:\n  - {{{ROUTE}}}\n")
        result = run("configure", "--dry-run", file)
        assert "no connection could be looked up, so what needs one was not checked" in result.stderr

    def test_configure_piped_output_has_no_colour(self, wire: Wire, file: Path) -> None:
        file.write_text(routes(f"{{{ROUTE}}}"))
        assert "\x1b" not in run("configure", "--dry-run", file).output
        file.write_text(routes(f"{{{ROUTE}, weight: 0}}"))
        assert "\x1b" not in run("configure", file, exit_code=2).output

    def test_configure_narrow_terminal_does_not_wrap_names_and_places(
        self, wire: Wire, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "40")
        file.write_text(routes(f"{{{ROUTE.replace('one', 'a-long-name-of-a-route-to-marketo')}}}"))
        assert "a-long-name-of-a-route-to-marketo" in run("configure", "--dry-run", file).stdout
        file.write_text(routes(f"{{{ROUTE}, weight: 0}}"))
        assert f"{file}:6:" in run("configure", file, exit_code=2).stderr


class TestPlan:
    def test_configure_dry_run_shows_create_change_and_nothing_and_writes_nothing(self, wire: Wire, file: Path) -> None:
        file.write_text(routes(f"{{{ROUTE}, mapping: {{email: email, firstName: name}}}}"))
        assert [step["action"] for step in told("configure", "--dry-run", file)] == ["create"] * 3
        run("configure", file)
        file.write_text(
            clients(KOMMO.replace(", client_secret: {env: SECRET}", ""))
            + connections(MARKETO, ERP)
            + f"routes:\n  - {{{ROUTE}, mapping: {{email: email, lastName: name}}, weight: 2}}\n"
        )
        before, sent = stored(), len(writes(wire))
        steps = told("configure", "--dry-run", file)
        assert [(step["name"], step["action"], step["fields"]) for step in steps] == [
            ("kommo/acme", "nothing", []),
            ("marketo-main", "change", ["credentials"]),
            ("erp", "create", []),
            ("one", "change", ["mapping.firstName", "mapping.lastName", "weight"]),
        ]
        assert [step["line"] for step in steps] == [2, 4, 5, 7]
        assert "Nothing was written (--dry-run)." in run("configure", "--dry-run", file).stderr
        assert (stored(), len(writes(wire))) == (before, sent)

    def test_configure_unchanged_entries_are_not_written(self, wire: Wire, file: Path) -> None:
        file.write_text(clients(KOMMO) + connections(MARKETO) + f"routes:\n  - {{{ROUTE}}}\n")
        run("configure", file)
        without = re.sub(r", client_secret: \{env: SECRET\}|, credentials: \{.*\}\}", "", file.read_text())
        file.write_text(without.replace("{munchkin_id: {env: MUNCHKIN}}", "{munchkin_id: {env: MUNCHKIN}}}"))
        sent = len(writes(wire))
        assert [entry["change"] for entry in told("configure", file)] == ["unchanged"] * 3
        assert len(writes(wire)) == sent

    def test_configure_changed_token_host_names_blocking_connections(self, wire: Wire, file: Path) -> None:
        users = [
            f"- {{name: shop-{name}, platform: oauth2, kind: oauth2, client: shop, allowed_domain: api.example.com}}"
            for name in ("one", "two")
        ]
        file.write_text(clients(SHOP) + connections(*users))
        run("configure", file)
        file.write_text(clients(SHOP.replace("login.example.com/token", "id.example.com/token")))
        sent = len(writes(wire))
        error = run("configure", file, exit_code=2).stderr
        assert "token_url names another host, and the connections shop-one, shop-two have their tokens" in error
        for name in ("shop-one", "shop-two"):
            (command,) = re.findall(rf"^    portaria (connections delete {name})$", error, re.MULTILINE)
            run(*command.split(), "--yes")
        run("configure", file)
        assert len(writes(wire)) == sent + 3

    def test_configure_removed_domain_names_blocking_connection(self, wire: Wire, file: Path) -> None:
        user = "- {name: shop-one, platform: oauth2, kind: oauth2, client: shop, allowed_domain: api.example.com}"
        file.write_text(clients(SHOP) + connections(user))
        run("configure", file)
        file.write_text(clients(SHOP.replace("[api.example.com]", "[other.example.com]")))
        error = run("configure", file, exit_code=2).stderr
        assert "outside these domains: delete it first" in error
        assert "    portaria connections delete shop-one\n" in error

    def test_configure_changed_token_host_requires_client_secret(self, wire: Wire, file: Path) -> None:
        file.write_text(clients(SHOP))
        run("configure", file)
        moved = SHOP.replace("login.example.com/token", "id.example.com/token")
        file.write_text(clients(moved.replace(" client_secret: {env: SECRET},", "")))
        assert "client_secret is missing" in run("configure", file, exit_code=2).stderr

    def test_configure_immutable_connection_is_replaced_only_with_replace_option(self, wire: Wire, file: Path) -> None:
        file.write_text(connections(ERP))
        run("configure", file)
        file.write_text(connections(ERP.replace("api.example.com", "api.example.org").replace("X-Key", "X-Other")))
        before = stored()
        error = run("configure", file, exit_code=2).stderr
        assert "allowed_domain of a connection cannot change" in error
        assert "fields.header_name of a connection cannot change" in error
        assert stored() == before
        (command,) = re.findall(r"^    portaria (configure .*)$", error, re.MULTILINE)
        (step,) = told(*command.split(), "--dry-run")
        assert (step["action"], step["fields"]) == ("replace", ["allowed_domain", "fields.header_name"])
        assert step["reason"] == "cannot change: deleted and created again"
        assert stored() == before
        assert [entry["change"] for entry in told(*command.split())] == ["replaced"]
        assert told("connections", "show", "erp")["allowed_domain"] == "api.example.org"
        assert [entry["change"] for entry in told(*command.split())] == ["unchanged"]

    def test_configure_replace_connection_used_by_route_is_refused(
        self, wire: Wire, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file.write_text(routes(f"{{{ROUTE}}}"))
        run("configure", file)
        monkeypatch.setenv("MUNCHKIN", "999-ABC-456")
        sent = len(writes(wire))
        error = run("configure", file, "--replace", "marketo-main", exit_code=2).stderr
        assert "    portaria routes delete one  # no record is sent on by it" in error
        assert len(writes(wire)) == sent

    def test_configure_replace_name_not_in_file_is_refused(self, wire: Wire, file: Path) -> None:
        file.write_text(connections(ERP))
        assert "describes no connection of this name" in run("configure", file, "--replace", "epr", exit_code=2).stderr


class TestInterruptions:
    """A run is interrupted at each write, before or after the API has processed it; another run has the same result."""

    TEXT = clients(KOMMO, SHOP) + connections(MARKETO, ERP) + f"routes:\n  - {{{ROUTE}}}\n"

    def end(self) -> dict[str, Any]:
        """The resources after a run, without times and ids."""
        kept = ("name", "platform", "state", "client_id", "generation", "fields", "mapping", "source", "token_url")
        kinds = ("clients", "connections", "routes")
        return {kind: [{name: each.get(name) for name in kept} for each in listed(kind, "list")] for kind in kinds}

    @pytest.mark.parametrize("number", range(5))
    @pytest.mark.parametrize("carried", [False, True], ids=["not_carried", "answer_lost"])
    def test_configure_interrupted_write_is_completed_by_next_run(
        self, wire: Wire, file: Path, number: int, carried: bool
    ) -> None:
        file.write_text(self.TEXT)
        seen: list[str] = []

        def interrupt(request: AWSPreparedRequest) -> Answered:
            if request.method == "GET":
                return wire.deliver(request)
            seen.append(headers_of(request)["Idempotency-Key"])
            if len(dict.fromkeys(seen)) <= number:
                return wire.deliver(request)
            if carried:
                wire.deliver(request)
                raise ConnectionClosedError(endpoint_url=request.url, request=request, error="lost")
            raise EndpointConnectionError(endpoint_url=request.url)

        wire.instead = interrupt
        result = run("configure", file, exit_code=3)
        assert "nothing was changed" not in result.output
        assert result.stdout.count("created") == number
        left = [
            "OAuth client kommo/acme",
            "OAuth client oauth2/shop",
            "connection marketo-main",
            "connection erp",
            "route one",
        ]
        assert f"Left: {', '.join(left[number:])}. Run the same command again" in result.stderr
        assert f"Written before this: {', '.join(left[:number]) or 'nothing'}." in result.stderr
        wire.instead = None
        again = told("configure", file)
        found = number + (1 if carried else 0)
        assert [entry["change"] for entry in again] == ["unchanged"] * found + ["created"] * (5 - found)
        finished = self.end()
        assert [len(listed) for listed in finished.values()] == [2, 2, 1]
        assert [entry["change"] for entry in told("configure", file)] == ["unchanged"] * 5
        assert self.end() == finished

    @pytest.mark.parametrize("carried", [False, True], ids=["not_carried", "answer_lost"])
    @pytest.mark.parametrize("method", ["DELETE", "POST"])
    def test_configure_interrupted_replacement_is_completed_by_next_run(
        self, wire: Wire, file: Path, carried: bool, method: str
    ) -> None:
        file.write_text(connections(ERP))
        run("configure", file)
        file.write_text(connections(ERP.replace("api.example.com", "api.example.org")))

        def interrupt(request: AWSPreparedRequest) -> Answered:
            if request.method != method:
                return wire.deliver(request)
            if carried:
                wire.deliver(request)
            raise ConnectionClosedError(endpoint_url=request.url, request=request, error="lost")

        wire.instead = interrupt
        error = run("configure", file, "--replace", "erp", exit_code=3).stderr
        assert ("it was deleted, and not created again" in error) == (method == "POST")
        wire.instead = None
        run("configure", file, "--replace", "erp")
        assert told("connections", "show", "erp")["allowed_domain"] == "api.example.org"

    def test_configure_refused_credentials_report_place_and_remaining_entries(self, wire: Wire, file: Path) -> None:
        text, places = unmarked(self.TEXT.replace("credentials: {client_id", "credentials: «1»{client_id"))
        file.write_text(text)
        line, column = places[1]
        with responses.RequestsMock() as mock:
            mock.post(TOKEN_URL, status=401, json={})
            result = run("configure", file, exit_code=1)
            document = json.loads(run("--json", "configure", file, exit_code=1).stderr)
        assert f"error: {file}:{line}:{column}: connection marketo-main: Marketo refused the client id" in result.stderr
        assert "nothing was changed" not in result.output
        assert "Written before this: OAuth client kommo/acme, OAuth client oauth2/shop." in result.stderr
        assert (document["done"], document["left"]) == (["kommo/acme", "oauth2/shop"], ["marketo-main", "erp", "one"])

    def test_configure_keyboard_interrupt_reports_written_and_remaining_entries(self, wire: Wire, file: Path) -> None:
        file.write_text(self.TEXT)

        def interrupt(request: AWSPreparedRequest) -> Answered:
            if request.method != "GET" and len(writes(wire)) == 3:
                raise KeyboardInterrupt
            return wire.deliver(request)

        wire.instead = interrupt
        error = CliRunner().invoke(portaria, ["configure", str(file)]).stderr
        assert (
            "Written before this: OAuth client kommo/acme, OAuth client oauth2/shop. Left: connection marketo-main"
            in error
        )

    def test_configure_unknown_marketo_instance_names_field_without_retry_advice(self, wire: Wire, file: Path) -> None:
        text, places = unmarked(connections(MARKETO.replace("{env: MUNCHKIN}", "«1»{env: MUNCHKIN}")))
        file.write_text(text)
        with responses.RequestsMock() as mock:
            mock.post(TOKEN_URL, status=404, body="Not Found")
            error = run("configure", file, exit_code=1).stderr
        line, column = places[1]
        assert f"error: {file}:{line}:{column}: connection marketo-main: there is no Marketo instance at" in error
        assert "123-abc-456.mktorest.com: check fields.munchkin_id" in error
        assert "try again" not in error

    def test_configure_summary_counts_changes(self, wire: Wire, file: Path) -> None:
        file.write_text(self.TEXT)
        printed = run("configure", file).stdout
        assert "\n5 created\n" in printed
        assert f"{API_URL}/install/kommo/acme\n" in printed
        file.write_text(self.TEXT.replace("object: contacts", "object: contacts, weight: 3"))
        printed = run("configure", file).stdout
        assert "\n1 updated, 4 unchanged\n" in printed
        assert "unchanged OAuth client kommo/acme (client_secret written)\n" in printed
        assert "/install/kommo/acme" not in printed


class TestMutations:
    """Randomly mutated files; the seed makes a failure repeatable."""

    MARKS = (
        *" :-{}[]'\"#&*!|>%@`,\n\t?~<=", "  ", "- ", "null", "yes", "&a ", "*a", "<<: ", "{env: X}", "!x ", "\x00", "é",
        "---\n", "1e999", "2020-99-99", ".nan", "{file: .}", "[[", "]]",
    )  # fmt: skip
    VALUES: tuple[Any, ...] = (
        "x", "api.example.com", "*.example.com", "shop", "erp", "marketo-main", "contacts", "companies", "persons", "no", 1,
        None, True, [], {}, ["email"], ["email", "x"], "connection:erp", "client:oauth2/shop", "oauth2", "http", "basic",
        "client_credentials", "https://id.example.com/token", "high", "email | [0]", "nope(@)", {"email": "email"},
        {"token": "t"}, {"header_name": "X-A"}, 5, "all",
    )  # fmt: skip
    FIELDS = (
        "client_id", "client_secret", "scopes", "api_domains", "grant", "token_url", "token_auth", "kind", "allowed_domain",
        "client", "fields", "credentials", "source", "object", "destination", "mapping", "target", "dedupe_fields",
        "priority", "options", "keep_newest", "weight",
    )  # fmt: skip

    def test_configure_mutated_file_fails_without_traceback_and_writes_nothing(
        self, wire: Wire, file: Path, long: bool
    ) -> None:
        chance = random.Random(7)
        for _ in range(2_000 if long else 40):
            text = TestInterruptions.TEXT
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(text))
                removed = chance.choice((0, 0, chance.randint(1, 12)))
                text = text[:at] + ("" if removed else chance.choice(self.MARKS)) + text[at + removed :]
            file.write_text(text)
            result = CliRunner().invoke(portaria, ["configure", "--dry-run", str(file)])
            assert isinstance(result.exception, SystemExit | None), text
            assert result.exit_code in (0, 2), text
        assert writes(wire) == []

    def test_configure_valid_file_is_applied_as_planned(self, wire: Wire, file: Path, long: bool) -> None:
        chance = random.Random(11)
        applied = 0
        for number in range(3_000 if long else 30):
            if number % 20 == 0:
                empty()
            content = yaml.safe_load(TestInterruptions.TEXT)
            entry = chance.choice(content[chance.choice(list(content))])
            if chance.random() < 0.3:
                entry.pop(chance.choice(list(entry)))
            else:
                entry[chance.choice(self.FIELDS)] = chance.choice(self.VALUES)
            file.write_text(yaml.safe_dump(content))
            planned = CliRunner().invoke(portaria, ["--json", "configure", "--dry-run", str(file)])
            assert planned.exit_code in (0, 2), planned.output
            if planned.exit_code:
                continue
            applied += 1
            done = told("configure", file)
            for step, result in zip(json.loads(planned.stdout), done, strict=True):
                expected = {"create": ["created"], "nothing": ["unchanged"], "change": ["updated"]}[step["action"]]
                written_each_time = {"client_secret", "credentials"} & set(step["fields"])
                assert result["change"] in expected + (["unchanged"] if written_each_time else []), step
        assert applied >= 2
