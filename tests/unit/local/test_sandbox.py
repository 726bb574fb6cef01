"""The sandbox's accounts and credentials, and the arguments of its commands."""

from __future__ import annotations

import hashlib
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from local.sandbox import accounts, environment
from local.sandbox.__main__ import sandbox
from local.sandbox.context import Assignment, Duration
from local.stack import ROOT, Stack

STACK = Stack(
    aws_endpoint_url="http://127.0.0.1:1",
    proxy_url="http://127.0.0.1:2",
    ca_bundle="",
    control_url="http://127.0.0.1:3",
    pids={},
    sources={},
    api_url="http://127.0.0.1:1/restapis/abc/live/_user_request_",
    public_url="https://abc.execute-api.us-east-1.amazonaws.com/live",
)


class Killed(Exception):
    """The process ends here."""


class Simulators:
    """Replaces `Control`: stores what is added, counts it, and can be killed before or after a call."""

    def __init__(self) -> None:
        self.added: Counter[str] = Counter()
        self.redirect_uris: dict[str, str] = {}
        self.calls_left = 10**6
        self.before = False

    def add(self, what: str) -> None:
        self.calls_left -= 1
        if not self.calls_left and self.before:
            raise Killed
        self.added[what] += 1
        if not self.calls_left:
            raise Killed

    def kommo(self) -> dict[str, Any]:
        return {"accounts": [{"host": each} for each in self.added if each.endswith(".kommo.com")]}

    def add_kommo_client(self, client_id: str, _secret: str, redirect_uri: str, name: str) -> None:
        self.redirect_uris[client_id] = redirect_uri

    def add_kommo_account(self, subdomain: str, *, contacts: int) -> None:
        assert contacts >= 100
        self.add(f"{subdomain}.kommo.com")

    def marketo(self) -> list[dict[str, Any]]:
        return [{"munchkin": each} for each in self.added]

    def add_marketo_instance(self, munchkin: str, _client_id: str, _secret: str) -> None:
        self.add(munchkin.lower())

    def oauth2_providers(self) -> list[str]:
        return [each.removeprefix("provider ") for each in self.added]

    def add_oauth2_provider(self, name: str, _client_id: str, _secret: str, *, redirect_uri: str) -> None:
        self.redirect_uris[name] = redirect_uri
        self.add(f"provider {name}")

    def change_oauth2(self, name: str, *, redirect_uri: str) -> None:
        self.redirect_uris[name] = redirect_uri

    def leadconnector(self) -> dict[str, Any]:
        return {"locations": [{"id": each} for each in self.added], "tokens": dict(self.added)}

    def add_leadconnector_location(self, location: str) -> None:
        self.add(location)

    def add_leadconnector_token(self, token: str, _location: str) -> None:
        self.add(hashlib.sha256(token.encode()).hexdigest())

    def engage(self) -> list[dict[str, Any]]:
        return [{"customer_id": each} for each in self.added]

    def add_engage_user(self, customer_id: str, *_: str, **__: str) -> None:
        self.add(customer_id)

    def add_engage_people(self, *_: str, **__: str) -> None:
        pass


ACCOUNTS = 3 + 1 + 5 + 2 + 1


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("calls", range(1, ACCOUNTS + 1))
def test_furnish_killed_at_any_account_is_completed_by_next_run(calls: int, before: bool) -> None:
    simulators = Simulators()
    variables = environment.complete({}, STACK)
    simulators.calls_left, simulators.before = calls, before
    with pytest.raises(Killed):
        accounts.furnish(simulators, STACK, variables)  # type: ignore[arg-type]
    for _ in range(2):
        accounts.furnish(simulators, STACK, variables)  # type: ignore[arg-type]
    assert len(simulators.added) == ACCOUNTS
    assert set(simulators.added.values()) == {1}
    assert simulators.redirect_uris["shop"] == f"{STACK.public_url}/install/oauth2/shop"
    assert simulators.redirect_uris["kommo-sandbox"] == f"{STACK.public_url}/install/kommo/acme"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "FILE", tmp_path / "sandbox.env")
    return tmp_path / "sandbox.env"


def test_sandbox_environment_keeps_secrets_and_updates_addresses(written: Path) -> None:
    first = environment.complete(environment.read(), STACK)
    environment.write(first)
    assert written.stat().st_mode & 0o777 == 0o600
    assert environment.read() == first
    moved = Stack(**{**STACK.__dict__, "api_url": "http://127.0.0.1:9"})
    second = environment.complete(environment.read(), moved)
    assert {name for name in first if first[name] != second[name]} == {"PORTARIA_API_URL"}


def test_sandbox_environment_file_is_readable_by_shell(written: Path) -> None:
    odd = """it's "odd" $HOME `x` \\ *"""
    environment.write({"ODD": odd})
    command = ["bash", "-c", f'set -eu; . {written}; printf %s "$ODD"']
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == odd
    assert environment.read() == {"ODD": odd}


def test_sandbox_environment_has_every_variable_of_the_examples() -> None:
    examples = ROOT / "examples"
    named = {
        word.split("}")[0].strip()
        for file in (examples / "portaria.yaml", examples / "connections.yaml")
        for word in file.read_text().replace("{env: NAME}", "").split("{env:")[1:]
    }
    assert len(named) > 20
    assert named <= environment.complete({}, STACK).keys()


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("2h", 7_200), ("1d", 86_400), ("1.5", 1.5)])
def test_duration_with_unit_is_converted_to_seconds(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 m", "-1s", "1w"])
def test_duration_invalid_is_refused_with_examples(text: str) -> None:
    with pytest.raises(click.BadParameter, match="30s, 5m, 2h or 1d"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "told"), [("email", "NAME=VALUE"), ("=x", "NAME=VALUE"), ("age=3", "not one of email")]
)
def test_assignment_invalid_is_refused(text: str, told: str) -> None:
    with pytest.raises(click.BadParameter, match=told):
        Assignment(("email",)).convert(text, None, None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fault", "kommo", "200"], "a status from 400 to 599"),
        (["fault", "nobody", "500"], "nobody"),
        (["fault", "kommo", "500", "--for", "soon"], "not a duration"),
        (["kommo", "change-contact", "padaria"], "--set last_name=Souza"),
        (["kommo", "change-contact", "padaria", "--set", "age=3"], "age is not one of name"),
        (["marketo", "refuse"], "ATTRIBUTE=VALUE"),
        (["marketo", "refuse", "lastName=x", "--nothing"], "ATTRIBUTE=VALUE"),
        (["kommo", "nothing"], "No such command"),
    ],
)
def test_sandbox_command_wrong_usage_is_refused_with_advice(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(sandbox, arguments)
    assert (result.exit_code, told in result.output) == (2, True), result.output


def test_sandbox_commands_all_have_help() -> None:
    seen: list[str] = []

    def walk(command: click.Command, path: str) -> None:
        seen.append(path)
        assert command.get_short_help_str(), path
        for name, child in getattr(command, "commands", {}).items():
            walk(child, f"{path} {name}")

    walk(sandbox, "sandbox")
    assert len(seen) > 10


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_sandbox_completion_prints_script_of_shell(shell: str) -> None:
    assert "_SANDBOX_COMPLETE" in CliRunner().invoke(sandbox, ["completion", shell]).output
