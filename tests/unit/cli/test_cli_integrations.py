"""The command line with an integration's token, commands for private integrations, the audit log, and shell completion."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)
from click.testing import CliRunner

from portaria.access import api_tokens, private_integrations, scopes
from portaria.api.idempotency import store as idempotency_store
from portaria.aws.table import Table
from portaria.core import clock
from portaria_cli import api as cli_api
from portaria_cli import auth, completion
from portaria_cli.commands import portaria
from portaria_cli.terminal import cells
from tests.fakes.api.command_line import Answered, Wire, empty_listing, headers_of, listed, run, told, wired
from tests.fakes.api.manage import API_URL, add_install, empty
from tests.fakes.aws.moto_cloud import TABLE, Cloud
from tests.fakes.paths import ROOT

TOKEN = re.compile(r"portaria_[0-9A-Za-z]{48}\n")
SHOWN_ONCE = "This token cannot be shown again"
CONFIGURED = "clients: [{platform: kommo, name: acme, client_id: a, client_secret: canary-secret}]"


@pytest.fixture
def wire(shared: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setattr(cli_api, "sleep", lambda seconds: None)
    yield wired(shared, monkeypatch)
    empty()


def create(*given: str, name: str = "crm") -> str:
    """The token of a new private integration."""
    _, token = private_integrations.create(
        Table(TABLE), api_tokens.new_id(), name, "", given or ("routes:list",), "arn:aws:iam::123456789012:user/maria"
    )
    return token.reveal()


def id_of(token: str) -> str:
    return api_tokens.integration_id(token)


def keys(wire: Wire) -> list[str]:
    """The Idempotency-Keys that were sent, in order."""
    sent = [headers_of(request).get("Idempotency-Key", "") for request in wire.requests]
    return [key for key in sent if key]


def problem(status: int, reason: str, **headers: str) -> Answered:
    document = {"type": f"urn:portaria:problem:{reason}", "title": "no", "status": status, "detail": "not now"}
    return Answered(status, json.dumps(document), headers)


# ------------------------------------------------------------ with a token


class TestTokenCalls:
    @pytest.fixture
    def token(self, wire: Wire) -> str:
        token = create("routes:list", "connections:show@crm")
        wire.requests.clear()
        return token

    @pytest.fixture
    def file(self, token: str, tmp_path: Path) -> Path:
        file = tmp_path / "token"
        file.write_text(f"{token}\n")
        return file

    @pytest.fixture(autouse=True)
    def no_aws(self, wire: Wire, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(auth, "SigV4Auth", lambda *_: pytest.fail("AWS credentials were used"))

    def test_cli_token_file_calls_v1_api_with_bearer_token(self, wire: Wire, file: Path, token: str) -> None:
        assert listed("--token-file", file, "routes", "list") == []
        assert wire.requests[0].url.startswith(f"{API_URL}/v1/routes?")
        assert headers_of(wire.requests[0])["Authorization"] == f"Bearer {token}"

    def test_cli_token_variable_calls_v1_api(self, wire: Wire, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PORTARIA_TOKEN", f"{token}\n")
        assert listed("routes", "list") == []
        assert wire.requests[0].url.startswith(f"{API_URL}/v1/")

    def test_cli_token_file_overrides_token_variable(
        self, wire: Wire, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PORTARIA_TOKEN", api_tokens.make("0123456789").reveal())
        assert listed("--token-file", file, "routes", "list") == []

    def test_cli_token_file_with_stack_file_calls_local_cloud(
        self, wire: Wire, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PORTARIA_API_URL")
        stack = {
            "api_url": "http://127.0.0.1:1/live",
            "region": "us-east-1",
            "access_key_id": "a",
            "secret_access_key": "b",
        }
        (tmp_path / "stack.json").write_text(json.dumps(stack))
        run("--token-file", file, "--stack-file", tmp_path / "stack.json", "routes", "list")
        assert wire.requests[0].url.startswith("http://127.0.0.1:1/live/v1/routes")

    @pytest.mark.parametrize(
        "text",
        ["", "\n", "canary-secret", "portaria_" + "a" * 48, "-----BEGIN PRIVATE KEY-----\ncanary-x", "ü", "\xff"],
    )
    def test_cli_token_malformed_is_a_usage_error_and_not_sent(
        self, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        file = tmp_path / "other"
        file.write_bytes(text.encode("latin-1"))
        assert (
            "other does not contain a private integration's token"
            in run("--token-file", file, "routes", "list", exit_code=2).stderr
        )
        if text.strip():
            monkeypatch.setenv("PORTARIA_TOKEN", text)
            assert (
                "PORTARIA_TOKEN does not contain a private integration's token"
                in run("routes", "list", exit_code=2).stderr
            )
        assert wire.requests == []

    def test_cli_token_file_missing_is_a_usage_error(self, wire: Wire, tmp_path: Path) -> None:
        error = run("--token-file", tmp_path / "none", "routes", "list", exit_code=2).stderr
        assert "none cannot be read: No such file" in error

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("", "give the API's URL too: --api-url or PORTARIA_API_URL"),
            ("http://abc123.execute-api.us-east-1.amazonaws.com/live", "over https only"),
            ("abc123.example.com", "over https only"),
            ("http://localhost.example.com/live", "over https only"),
        ],
    )
    def test_cli_token_api_url_missing_or_not_https_sends_nothing(
        self, wire: Wire, file: Path, monkeypatch: pytest.MonkeyPatch, url: str, words: str
    ) -> None:
        monkeypatch.setenv("PORTARIA_API_URL", url)
        assert words in run("--token-file", file, "routes", "list", exit_code=2).stderr
        assert wire.requests == []

    def test_cli_token_without_scope_error_names_scope_and_command_to_add_it(
        self, wire: Wire, file: Path, token: str
    ) -> None:
        error = run("--token-file", file, "installs", "list", exit_code=1).stderr
        assert "lacks the scope installs:list" in error
        assert f"`portaria private-integrations edit {id_of(token)} --add-scope installs:list`" in error
        error = run("--token-file", file, "connections", "show", "other", exit_code=1).stderr
        assert "lacks the scope connections:show, or connections:show@other" in error
        assert (
            "unknown_connection"
            in run("--json", "--token-file", file, "connections", "show", "crm", exit_code=1).stderr
        )

    def test_cli_integrations_list_with_token_is_refused_with_advice(self, wire: Wire, file: Path) -> None:
        error = run("--token-file", file, "private-integrations", "list", exit_code=1).stderr
        assert "use AWS credentials: leave out --token-file and unset PORTARIA_TOKEN" in error

    def test_cli_token_gateway_refusal_is_explained(self, wire: Wire, file: Path) -> None:
        wire.instead = lambda request: Answered(403, '{"message": "Missing Authentication Token"}')
        assert (
            "check that the API's URL ends with its stage"
            in run("--token-file", file, "routes", "list", exit_code=1).stderr
        )
        wire.instead = lambda request: Answered(403, '{"message": "Forbidden"}')
        assert "refused this token (403)" in run("--token-file", file, "routes", "list", exit_code=1).stderr

    def test_cli_token_throttled_shows_wait_time(self, wire: Wire, file: Path) -> None:
        wire.instead = lambda request: problem(429, "too_many_attempts", **{"Retry-After": "17"})
        assert "not now; try again in 17 s" in run("--token-file", file, "routes", "list", exit_code=1).stderr


def test_cli_token_expired_shows_command_to_rotate(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    old = create()
    run("private-integrations", "rotate", id_of(old), "--now")
    monkeypatch.setenv("PORTARIA_TOKEN", old)
    error = run("routes", "list", exit_code=1).stderr
    assert f"an administrator can create a new one: `portaria private-integrations rotate {id_of(old)}`" in error
    assert old not in error


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("The security token included in the request is expired", "log in again"),
        ("The security token included in the request is invalid.", "log in again"),
        ("The request signature we calculated does not match the signature you provided", "log in again"),
        ("Missing Authentication Token", "check that the API's URL ends with its stage"),
    ],
)
def test_cli_aws_credentials_refused_error_has_advice(wire: Wire, said: str, words: str) -> None:
    wire.instead = lambda request: Answered(403, json.dumps({"message": said}))
    assert words in run("routes", "list", exit_code=1).stderr


def test_cli_help_names_credentials_that_are_used() -> None:
    shown = " ".join(run("--help").stdout.split())
    assert "With your AWS credentials you are an administrator" in shown
    assert "from --token-file or the environment variable PORTARIA_TOKEN" in shown


# ------------------------------------------------------------ private integrations


class TestPrivateIntegrations:
    def test_cli_integrations_create_prints_only_token_on_stdout(self, wire: Wire) -> None:
        done = run("private-integrations", "create", "Relatórios", "--scope", "routes:list", "--description", "BI")
        assert TOKEN.fullmatch(done.stdout)
        assert SHOWN_ONCE in done.stderr
        found = listed("private-integrations", "list")[0]
        assert f"Relatórios ({found['id']}) is created, with 1 scope." in done.stderr
        assert (found["name"], found["description"], found["scopes"]) == ("Relatórios", "BI", ["routes:list"])
        assert id_of(done.stdout.strip()) == found["id"]

    def test_cli_integrations_create_with_json_option_prints_one_document(self, wire: Wire) -> None:
        done = run("--json", "private-integrations", "create", "crm", "--scope", "routes:list")
        assert TOKEN.fullmatch(json.loads(done.stdout)["token"] + "\n")
        assert done.stderr == ""
        assert "token" not in told("private-integrations", "show", json.loads(done.stdout)["id"])

    def test_cli_integrations_save_token_writes_private_file(self, wire: Wire, tmp_path: Path) -> None:
        file = tmp_path / "token"
        before = os.umask(0)
        try:
            done = run("private-integrations", "create", "crm", "--scope", "routes:list", "--save-token", file)
        finally:
            os.umask(before)
        assert TOKEN.fullmatch(file.read_text())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text().strip() not in done.output
        assert listed("--token-file", file, "routes", "list") == []
        again = told(
            "private-integrations", "rotate", id_of(file.read_text().strip()), "--save-token", tmp_path / "new"
        )
        assert "token" not in again
        assert (tmp_path / "new").read_text() != file.read_text()

    def test_cli_integrations_save_token_does_not_overwrite_a_file(self, wire: Wire, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("kept")
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        for name in ("token", "link"):
            arguments = (
                "private-integrations",
                "create",
                "crm",
                "--scope",
                "routes:list",
                "--save-token",
                tmp_path / name,
            )
            assert "is not overwritten" in run(*arguments, exit_code=2).stderr
        missing = ("--save-token", tmp_path / "none" / "token")
        error = run("private-integrations", "create", "crm", "--scope", "routes:list", *missing, exit_code=2).stderr
        assert "cannot be written: No such file" in error
        assert wire.requests == []
        assert (tmp_path / "token").read_text() == "kept"
        assert not (tmp_path / "elsewhere").exists()

    def test_cli_integrations_create_refused_leaves_no_token_file(self, wire: Wire, tmp_path: Path) -> None:
        file = tmp_path / "token"
        run("private-integrations", "create", "x" * 101, "--scope", "routes:list", "--save-token", file, exit_code=1)
        assert not file.exists()

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (("connections:cal",), "'connections:cal' is not a scope: `portaria scopes list`"),
            (("routes:list@crm",), "routes:list cannot be narrowed to a connection"),
            (("connections:call@a",), "has no valid connection name after the @"),
            ((), "at least one --scope"),
        ],
    )
    def test_cli_integrations_create_invalid_scope_sends_nothing(
        self, wire: Wire, given: tuple[str, ...], words: str
    ) -> None:
        arguments = [argument for scope in given for argument in ("--scope", scope)]
        assert words in run("private-integrations", "create", "crm", *arguments, exit_code=2).stderr
        assert wire.requests == []

    def test_cli_integrations_create_from_file_copies_scopes_and_description(self, wire: Wire, tmp_path: Path) -> None:
        first = id_of(create("routes:list", "connections:call@crm"))
        run("private-integrations", "edit", first, "--description", "línea\nuno")
        (tmp_path / "crm.json").write_text(run("--json", "private-integrations", "show", first).stdout)
        arguments = ("--file", tmp_path / "crm.json", "--scope", "audit:list")
        made = told("private-integrations", "create", "other", *arguments)
        assert (made["name"], made["description"]) == ("other", "línea\nuno")
        assert made["scopes"] == ["audit:list", "connections:call@crm", "routes:list"]
        (tmp_path / "crm.yaml").write_text("scopes: [routes:list]\n")
        assert told("private-integrations", "create", "third", "--file", tmp_path / "crm.yaml")["scopes"] == [
            "routes:list"
        ]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("[", "file:1:2: not YAML: "),
            ("[]", "file:1:1: the file must hold one object"),
            ("", "file:1:1: the file must hold one object"),
            ("name: x", "needs at least one --scope"),
        ],
    )
    def test_create_with_a_wrong_file_sends_nothing(self, wire: Wire, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "file").write_text(text)
        assert words in run("private-integrations", "create", "crm", "--file", tmp_path / "file", exit_code=2).stderr
        assert "cannot be read" in run("private-integrations", "create", "crm", "--file", tmp_path, exit_code=2).stderr
        assert wire.requests == []

    def test_create_with_a_wrong_field_names_its_place(self, wire: Wire, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("description: d\nscopes: [routes:list, routes:lst]\nscope: x\n")
        error = run("private-integrations", "create", "crm", "--file", tmp_path / "file", exit_code=1).stderr
        assert f"{tmp_path / 'file'}:2:23: " in error
        assert f"{tmp_path / 'file'}:3:8: " in error

    def test_cli_integrations_edit_changes_fields_and_keeps_token(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = create("routes:list", "installs:list")
        edit = ("private-integrations", "edit", id_of(token))
        shown = told(*edit, "--add-scope", "audit:list", "--remove-scope", "installs:list", "--name", "new")
        assert (shown["name"], shown["scopes"]) == ("new", ["audit:list", "routes:list"])
        assert told(*edit, "--scope", "routes:list", "--description", "d")["scopes"] == ["routes:list"]
        assert told(*edit, "--description", "")["description"] is None
        assert all("If-Match" in headers_of(each) for each in wire.requests if each.method == "PATCH")
        monkeypatch.setenv("PORTARIA_TOKEN", token)
        assert listed("routes", "list") == []
        run("audit", "list", exit_code=1)

    def test_cli_integrations_edit_concurrent_change_is_refused_and_not_repeated(
        self, wire: Wire, shared: Cloud
    ) -> None:
        integration = id_of(create())

        def somebody_else(request: AWSPreparedRequest) -> Answered:
            if request.method == "PATCH":
                found = private_integrations.get(shared.table, integration)
                private_integrations.edit(shared.table, found, description="theirs")
            return wire.deliver(request)

        wire.instead = somebody_else
        wire.requests.clear()
        error = run("private-integrations", "edit", integration, "--add-scope", "audit:list", exit_code=1).stderr
        assert "it has changed since" in error
        assert [request.method for request in wire.requests] == ["GET", "PATCH"]
        assert private_integrations.get(shared.table, integration).scopes == ("routes:list",)

    @pytest.mark.parametrize(
        ("arguments", "words", "code"),
        [
            ((), "there is nothing to change", 2),
            (("--scope", "routes:list", "--add-scope", "audit:list"), "do not combine it with", 2),
            (("--remove-scope", "audit:list"), "does not have the scope audit:list", 1),
            (("--remove-scope", "routes:list"), "scopes must have at least 1 entries", 1),
        ],
    )
    def test_cli_integrations_edit_invalid_change_is_refused(
        self, wire: Wire, arguments: tuple[str, ...], words: str, code: int
    ) -> None:
        integration = id_of(create())
        assert words in run("private-integrations", "edit", integration, *arguments, exit_code=code).stderr
        assert told("private-integrations", "show", integration)["scopes"] == ["routes:list"]

    def test_cli_integrations_rotation_is_created_cancelled_and_expired(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = create()
        integration = id_of(first)
        done = run("private-integrations", "rotate", integration)
        assert TOKEN.fullmatch(done.stdout)
        assert "The old token works until" in done.stderr
        assert SHOWN_ONCE in done.stderr
        assert "rotation_under_way" in run("--json", "private-integrations", "rotate", integration, exit_code=1).stderr
        assert told("private-integrations", "cancel", integration)["previous_until"] is None
        for token, code in ((first, 0), (done.stdout.strip(), 1)):
            monkeypatch.setenv("PORTARIA_TOKEN", token)
            run("routes", "list", exit_code=code)
        monkeypatch.delenv("PORTARIA_TOKEN")
        run("private-integrations", "rotate", integration)
        run("private-integrations", "expire", integration)
        assert "there is no rotation to end" in run("private-integrations", "expire", integration, exit_code=1).stderr
        assert "The old token has ended." in run("private-integrations", "rotate", integration, "--now").stderr

    @pytest.mark.parametrize("now", [(), ("--now",)])
    def test_rotate_with_a_lost_answer_gets_the_token_by_the_same_key(
        self, wire: Wire, tmp_path: Path, now: tuple[str, ...]
    ) -> None:
        integration = id_of(create())
        wire.lose(ReadTimeoutError)
        wire.requests.clear()
        file = tmp_path / "token"
        run("private-integrations", "rotate", integration, *now, "--save-token", file)
        assert len(set(keys(wire))) == 1
        assert len(keys(wire)) == 2
        assert listed("--token-file", file, "routes", "list") == []

    def test_cli_integrations_delete_asks_for_confirmation_by_name(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = create(name="[red]crm")
        declined = run("private-integrations", "delete", id_of(token), input="n\n", exit_code=1)
        assert f"Delete [red]crm ({id_of(token)})? Its tokens stop working at once." in declined.stderr
        assert run("private-integrations", "delete", id_of(token), "--yes").stdout == f"{id_of(token)} is deleted.\n"
        assert "There are no private integrations." in run("private-integrations", "list").stdout
        monkeypatch.setenv("PORTARIA_TOKEN", token)
        assert "does not work" in run("routes", "list", exit_code=1).stderr

    def test_cli_integrations_list_highlights_tokens_older_than_80_days(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, days in (("young", 79), ("older", 80), ("oldest", 90)):
            monkeypatch.setattr(clock, "now", lambda days=days: clock_now() - timedelta(days=days))
            create(name=name)
        monkeypatch.setattr(clock, "now", clock_now)
        listed = run("private-integrations", "list").stdout
        assert "79 d  " in listed
        assert "80 d: rotate soon" in listed
        assert "90 d: rotate  " in listed
        assert [cells.age(days).style for days in (79, 80, 90)] == ["", "yellow", "bold red"]

    def test_cli_integrations_list_shows_last_use_and_end_of_old_token(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = create()
        assert "never" in run("private-integrations", "list").stdout
        monkeypatch.setenv("PORTARIA_TOKEN", token)
        run("routes", "list")
        monkeypatch.delenv("PORTARIA_TOKEN")
        run("private-integrations", "rotate", id_of(token))
        listed = run("private-integrations", "list").stdout
        assert "this hour" in listed
        assert "ends in 7 d" in listed
        assert "7 d left)" in run("private-integrations", "show", id_of(token)).stdout

    @pytest.mark.parametrize("width", ["80", "120"])
    def test_cli_integrations_list_fits_terminal_width(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch, width: str
    ) -> None:
        create(*(scope for scope in scopes.SCOPES if scope.startswith("connections:")), name="n" * 20)
        monkeypatch.setenv("COLUMNS", width)
        lines = run("private-integrations", "list").stdout.splitlines()
        assert max(map(len, lines)) <= int(width)
        assert ("scopes" in lines[0]) == (width == "120")

    def test_scopes_list_has_all_of_them_on_a_narrow_terminal_too(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = {each["name"]: each["is_narrowable"] for each in listed("scopes", "list")}
        assert found == {scope: scope in scopes.NARROWABLE for scope in scopes.SCOPES}
        monkeypatch.setenv("COLUMNS", "80")
        assert all(scope in run("scopes", "list").stdout for scope in scopes.SCOPES)


clock_now = clock.now


# -------------------------------------------------------------------- creations and lost responses


class TestCreations:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "portaria.yaml"
        file.write_text(CONFIGURED)
        return file

    def test_cli_create_each_request_has_its_own_idempotency_key(self, wire: Wire, file: Path) -> None:
        run("configure", file)
        run("private-integrations", "create", "crm", "--scope", "routes:list")
        run("private-integrations", "create", "crm", "--scope", "routes:list")
        assert len(set(keys(wire))) == 3
        posts = [request for request in wire.requests if request.method == "POST"]
        assert [bool(headers_of(post).get("Idempotency-Key")) for post in posts] == [True] * 3

    @pytest.mark.parametrize("error", [ReadTimeoutError, ConnectionClosedError])
    def test_cli_create_lost_answer_is_repeated_once_with_same_key(
        self, wire: Wire, file: Path, error: type[HTTPClientError]
    ) -> None:
        wire.lose(error)
        assert [entry["change"] for entry in told("configure", file)] == ["created"]
        assert len(keys(wire)) == 2
        assert len(set(keys(wire))) == 1

    def test_cli_create_gateway_timeout_is_repeated(self, wire: Wire, file: Path) -> None:
        given_up: list[AWSPreparedRequest] = []

        def give_up_once(request: AWSPreparedRequest) -> Answered:
            answer = wire.deliver(request)
            if request.method == "GET" or given_up:
                return answer
            given_up.append(request)
            return Answered(504, '{"message": "Endpoint request timed out"}')

        wire.instead = give_up_once
        assert [entry["change"] for entry in told("configure", file)] == ["created"]

    def test_create_with_a_lost_answer_gets_the_token_by_the_same_key(self, wire: Wire, tmp_path: Path) -> None:
        wire.lose()
        file = tmp_path / "token"
        run("private-integrations", "create", "crm", "--scope", "routes:list", "--save-token", file)
        assert len(listed("private-integrations", "list")) == 1
        assert listed("--token-file", file, "routes", "list") == []

    def test_create_whose_token_was_used_before_it_was_seen_fails(self, wire: Wire, tmp_path: Path) -> None:
        def take_out(request: AWSPreparedRequest) -> Answered:
            answer = wire.deliver(request)
            return Answered(answer.status_code, json.dumps({**json.loads(answer.text), "token": None}))

        wire.instead = take_out
        arguments = ("private-integrations", "create", "crm", "--scope", "routes:list")
        done = run(*arguments, exit_code=1)
        assert done.stdout == ""
        assert "Its token was lost with the first response" in done.stderr
        document = json.loads(run("--json", *arguments, "--save-token", tmp_path / "token", exit_code=1).stdout)
        assert document["token"] is None
        assert not (tmp_path / "token").exists()

    def test_cli_create_answer_lost_twice_is_an_error(self, wire: Wire, file: Path) -> None:
        wire.lose(times=2)
        error = run("configure", file, exit_code=3).stderr
        assert "no response from abc123.execute-api.us-east-1.amazonaws.com" in error
        assert len(keys(wire)) == 2

    @pytest.mark.parametrize("error", [EndpointConnectionError, ConnectTimeoutError])
    def test_cli_create_request_never_sent_is_not_repeated(self, wire: Wire, error: type[BotoCoreError]) -> None:
        def refuse(request: AWSPreparedRequest) -> Answered:
            raise error(endpoint_url=request.url)

        wire.instead = refuse
        assert (
            "could not be reached"
            in run("private-integrations", "create", "a", "--scope", "routes:list", exit_code=3).stderr
        )
        assert len(wire.requests) == 1

    def test_cli_create_repeated_request_waits_for_running_creation(self, wire: Wire, file: Path) -> None:
        answers: list[Any] = [ConnectionClosedError, "request_in_progress", "request_in_progress", None]

        def still_at_it(request: AWSPreparedRequest) -> Answered:
            answer = answers.pop(0) if request.method == "POST" else None
            if answer == "request_in_progress":
                return problem(409, answer, **{"Retry-After": "2"})
            if answer:
                raise answer(endpoint_url=request.url, request=request, error="lost")
            return wire.deliver(request)

        wire.instead = still_at_it
        run("configure", file)
        assert answers == []
        assert len(set(keys(wire))) == 1

    def test_cli_create_lost_answer_without_stored_key_explains_conflict(
        self, wire: Wire, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(idempotency_store.IdempotencyStore, "once", lambda self, *given: given[4]())
        wire.lose()
        assert "the first response was lost: this may be what it created" in run("configure", file, exit_code=1).stderr

    def test_cli_write_other_than_create_lost_answer_is_not_repeated(self, wire: Wire) -> None:
        integration = id_of(create())
        for arguments in (
            ("private-integrations", "edit", integration, "--name", "x"),
            ("private-integrations", "cancel", integration),
            ("private-integrations", "delete", integration, "--yes"),
        ):
            wire.lose()
            wire.requests.clear()
            run(*arguments, exit_code=3)
            assert [request.method for request in wire.requests if request.method != "GET"] in (
                ["PATCH"],
                ["POST"],
                ["DELETE"],
            )


# ------------------------------------------------------------------ audit log


def test_cli_audit_list_shows_caller_operation_and_outcome(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    made = told("private-integrations", "create", "Robô", "--scope", "routes:delete")
    monkeypatch.setenv("PORTARIA_TOKEN", made["token"])
    run("routes", "delete", "none", "--yes", exit_code=1)
    monkeypatch.delenv("PORTARIA_TOKEN")
    rows = [re.split(r" {2,}", line.strip()) for line in run("audit", "list").stdout.splitlines()]
    assert [row[1:] for row in rows] == [
        ["by", "operation", "target", "outcome", "reason"],
        ["Robô", "delete route", "none", "refused", "unknown_route"],
        ["administrator", "create private integration", made["id"], "done", "–"],
    ]
    entries = listed("audit", "list", "--limit", "1")
    assert [(entry["operation"], entry["source"]) for entry in entries] == [("delete_route", "198.51.100.7")]


# ------------------------------------------------------------ completion


class TestCompletion:
    @pytest.mark.parametrize("shell", completion.SHELLS)
    def test_cli_completion_prints_script_of_shell(self, wire: Wire, shell: str) -> None:
        script = run("completion", shell).stdout
        assert f"_PORTARIA_COMPLETE={shell}_complete" in script
        assert "portaria" in script
        assert wire.requests == []

    def test_cli_completion_unknown_shell_is_a_usage_error(self, wire: Wire) -> None:
        assert "bash" in run("completion", "tcsh", exit_code=2).stderr

    def complete(self, words: str, shell: str = "bash") -> list[str]:
        """The completions of the last word, which is split as a shell does it."""
        split = re.findall(r"[:@]|[^\s:@]+", words) + ([""] if words.endswith(" ") else [])
        environment = {
            "_PORTARIA_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": "\n".join(split),
            "COMP_CWORD": str(len(split) - 1),
        }
        done = CliRunner().invoke(
            portaria, [], prog_name="portaria", env=environment, complete_var="_PORTARIA_COMPLETE"
        )
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.split()]

    def test_cli_completion_completes_commands_and_options(self, wire: Wire) -> None:
        assert self.complete("portaria priv") == ["private-integrations"]
        assert self.complete("portaria integr") == ["integrations"]
        assert self.complete("portaria integrations can") == ["cancel"]
        assert self.complete("portaria private-integrations create --desc") == ["--description"]

    def test_cli_completion_completes_resource_names(self, wire: Wire, shared: Cloud, tmp_path: Path) -> None:
        (tmp_path / "file").write_text(CONFIGURED)
        run("configure", tmp_path / "file")
        install = add_install(shared, 1)
        integration = id_of(create())
        assert self.complete("portaria private-integrations edit ") == [integration]
        assert self.complete(f"portaria private-integrations rotate {integration[:4]}") == [integration]
        assert self.complete("portaria oauth-clients show kommo/a") == ["kommo/acme"]
        assert self.complete("portaria installs show ") == [install]
        assert self.complete("portaria connections call x") == []

    def test_cli_completion_completes_scopes_split_at_colon(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(completion, "_ask", lambda ctx, kind: [{"name": "crm"}, {"name": "erp"}])
        begun = "portaria private-integrations create --scope "
        assert self.complete(f"{begun}connections:ca") == ["call"]
        assert self.complete(f"{begun}sso") == ["sso:create"]
        assert self.complete(f"{begun}connections:call@") == ["crm", "erp"]
        assert self.complete(f"{begun}connections:call@c") == ["crm"]
        assert self.complete(f"{begun}routes:list@") == []
        assert self.complete("portaria private-integrations edit x --remove-scope audit") == ["audit:list"]

    def test_cli_completion_uses_api_options_of_the_line(
        self, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = create("connections:list")
        (tmp_path / "token").write_text(token)
        monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda _: None)
        wire.requests.clear()
        wire.instead = empty_listing
        self.complete(f"portaria --token-file {tmp_path / 'token'} connections show ")
        assert [request.url.partition("?")[0] for request in wire.requests] == [f"{API_URL}/v1/connections"]

    def test_cli_completion_unreachable_api_completes_nothing_silently(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(request: AWSPreparedRequest) -> Answered:
            raise EndpointConnectionError(endpoint_url=request.url)

        wire.instead = refuse
        assert self.complete("portaria connections show ") == []
        monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda _: None)
        assert self.complete("portaria connections show ") == []

    def test_cli_completion_slow_api_completes_nothing(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(completion, "PATIENCE_S", 0.1)
        over = Event()

        def slow(request: AWSPreparedRequest) -> Answered:
            over.wait(5)
            return Answered(200, '{"items": [{"name": "crm"}], "next_cursor": null}')

        wire.instead = slow
        assert self.complete("portaria routes show ") == []
        over.set()


# ------------------------------------------------------------ the installed command


def test_cli_entry_point_exists_and_extra_lists_its_requirements() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["portaria"].partition(":")
    assert callable(getattr(import_module(module), function))
    listed = (ROOT / "requirements" / "cli.in").read_text().splitlines()
    own = {line for line in listed if not line.startswith("#")}
    assert own <= set(project["optional-dependencies"]["cli"])


def test_cli_configure_imports_only_libraries_of_extra_cli() -> None:
    """It checks with the API's rules, which need some of the functions' libraries."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cli"]
    code = (
        "import sys, portaria_cli.configure.command, portaria_cli.configure.apply; "
        "from portaria.outbound.domain_rules import check_allowed_domain; "
        "check_allowed_domain('api.example.com'); print(*sorted(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'layers' / 'portaria'}:{ROOT / 'cli'}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    of_functions = {
        "aws_lambda_powertools", "boto3", "certifi", "cryptography", "h11", "idna", "jinja2", "jmespath", "orjson",
        "publicsuffixlist", "pydantic", "requests",
    }  # fmt: skip
    imported_with_the_first_request = {"boto3", "h11", "requests"}
    assert of_functions & loaded == set(extra) - {"click", "pyyaml", "rich"} - imported_with_the_first_request


def test_cli_commands_import_no_layer_library() -> None:
    """The other commands import none of the functions' libraries."""
    layer = {
        "aws_lambda_powertools",
        "boto3",
        "cryptography",
        "idna",
        "jinja2",
        "orjson",
        "publicsuffixlist",
        "pydantic",
        "requests",
    }
    code = f"import sys, portaria_cli.commands; print(sorted({layer!r} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'layers' / 'portaria'}:{ROOT / 'cli'}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
