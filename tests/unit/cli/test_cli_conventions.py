"""Conventions of all commands: names, --json, errors, pages, the pager and the version."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from portaria.api.operations import OPERATIONS
from portaria_cli.commands import ALIASES, SECTIONS, portaria
from tests.fakes.api.command_line import Answered, Wire, run, told, wired
from tests.fakes.api.manage import add_install
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.paths import ROOT

# Commands with another name than the scope of their operation, which is NOUN:VERB.
OTHER_NAMES = {
    "replace_oauth_client": ("oauth-clients", "edit"),
    "replace_route": ("routes", "edit"),
    "replace_webhook": ("webhooks", "edit"),
    # Only the credentials of a connection can change.
    "replace_credentials": ("connections", "edit"),
    # Operations without a scope.
    "list_platforms": ("platforms", "list"),
    "show_platform": ("platforms", "show"),
    "list_scopes": ("scopes", "list"),
    "show_caller": ("me",),
    "show_overview": ("overview",),
    "show_settings": ("settings",),
    # It opens a browser.
    "create_console_session": ("console",),
}
# Commands that call no operation, or several.
NO_OPERATION = {
    ("installs", "link"): "is another name of install-links create",
    ("credentials", "status"): "reads the table",
    ("credentials", "migrate"): "sends a message to a worker",
    ("profiles", "list"): "reads the configuration file",
    ("profiles", "show"): "reads the configuration file",
}


@pytest.fixture
def wire(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Wire:
    return wired(stack, monkeypatch)


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands, by their words."""
    ctx = click.Context(portaria)
    for name in portaria.list_commands(ctx):
        command = portaria.get_command(ctx, name)
        assert command
        yield (name,), command
        if isinstance(command, click.Group):
            for inner in command.list_commands(ctx):
                found = command.get_command(ctx, inner)
                assert found
                yield (name, inner), found


def test_commands_cover_every_operation_of_the_api() -> None:
    wanted = {OTHER_NAMES.get(each.id, tuple(each.scope.split(":"))) for each in OPERATIONS}
    there = {words for words, _ in commands() if len(words) == 2 or words in wanted}
    assert wanted - there == set()
    assert there - wanted == set(NO_OPERATION)


def test_commands_list_names_the_short_help_of_each() -> None:
    ctx = click.Context(portaria)
    listed = {name: lazy.help for section in SECTIONS.values() for name, lazy in section.items()}
    short = {
        name: command.get_short_help_str(limit=100) for name in listed if (command := portaria.get_command(ctx, name))
    }
    assert short == listed


def test_commands_short_help_is_not_cut() -> None:
    cut = [words for words, command in commands() if command.get_short_help_str(limit=100).endswith("...")]
    assert cut == []


def test_aliases_are_shorter_than_the_names() -> None:
    assert all(len(alias) < len(name) for alias, name in ALIASES.items())


def test_aliases_run_the_command(wire: Wire) -> None:
    assert told("oauth-clients", "list") == told("oauth-clients", "list") == {"items": [], "next_cursor": None}
    assert told("private-integrations", "list") == {"items": [], "next_cursor": None}


class TestJson:
    @pytest.mark.parametrize(
        "words",
        [
            ("--json", "routes", "list"),
            ("routes", "--json", "list"),
            ("routes", "list", "--json"),
            ("routes", "list", "--json", "--limit", "3"),
        ],
    )
    def test_json_stands_anywhere(self, wire: Wire, words: tuple[str, ...]) -> None:
        assert json.loads(run(*words).stdout) == {"items": [], "next_cursor": None}

    def test_json_after_the_command_has_refusals_as_json(self, wire: Wire) -> None:
        error = json.loads(run("routes", "show", "none", "--json", exit_code=1).stderr)
        assert (error["status"], error["type"]) == (404, "urn:portaria:problem:unknown_route")

    @pytest.mark.parametrize(
        ("words", "error", "usage"),
        [
            (("--json", "unknown"), "No such command 'unknown'.", "portaria [OPTIONS] COMMAND [ARGS]..."),
            (("--unknown", "--json"), "No such option '--unknown'.", "portaria [OPTIONS] COMMAND [ARGS]..."),
            (("--json", "routes"), "Missing command.", "portaria routes [OPTIONS] COMMAND [ARGS]..."),
            (("routes", "show", "--json"), "Missing argument 'NAME'.", "portaria routes show [OPTIONS] NAME"),
            (
                ("routes", "list", "--limit", "0", "--json"),
                "Invalid value for '--limit': 0 is not in the range x>=1.",
                "portaria routes list [OPTIONS]",
            ),
        ],
    )
    def test_json_has_usage_errors_as_json(self, wire: Wire, words: tuple[str, ...], error: str, usage: str) -> None:
        done = run(*words, exit_code=2)
        found = json.loads(done.stderr)
        assert found["error"] == error
        assert found["usage"] == usage
        assert done.stdout == ""

    def test_json_has_a_declined_confirmation_as_json(self, wire: Wire) -> None:
        done = run("routes", "delete", "some-name", "--json", input="n\n", exit_code=1)
        assert json.loads(done.stderr.splitlines()[-1]) == {"error": "aborted"}
        assert wire.requests == []

    def test_json_after_two_dashes_is_an_argument(self, wire: Wire) -> None:
        assert "Usage: " in run("routes", "show", "a", "b", "--", "--json", exit_code=2).stderr

    def test_usage_errors_without_json_are_text(self, wire: Wire) -> None:
        assert run("routes", "show", exit_code=2).stderr.startswith("Usage: portaria routes show [OPTIONS] NAME\n")


class TestPages:
    def test_list_prints_a_page_and_how_to_get_more(self, wire: Wire, stack: Cloud) -> None:
        expected = [add_install(stack, number) for number in range(60)][::-1]
        done = run("installs", "list")
        assert len(done.stdout.splitlines()) == 51
        hint = re.fullmatch(r"There are more: --all [^\n]+:\n--cursor (\S+)\n", done.stderr)
        assert hint
        rest = told("installs", "list", "--cursor", hint[1])
        assert [item["id"] for item in rest["items"]] == expected[50:]
        assert rest["next_cursor"] is None
        assert len(wire.requests) == 2

    def test_list_as_json_keeps_the_cursor(self, wire: Wire, stack: Cloud) -> None:
        expected = [add_install(stack, number) for number in range(3)][::-1]
        first = told("installs", "list", "--limit", "2")
        assert [item["id"] for item in first["items"]] == expected[:2]
        second = told("installs", "list", "--limit", "2", "--cursor", first["next_cursor"])
        assert ([item["id"] for item in second["items"]], second["next_cursor"]) == (expected[2:], None)

    def test_list_all_reads_to_the_end(self, wire: Wire, stack: Cloud) -> None:
        expected = [add_install(stack, number) for number in range(110)][::-1]
        found = told("installs", "list", "--all")
        assert [item["id"] for item in found["items"]] == expected
        assert found["next_cursor"] is None
        assert "do not combine it with --limit" in run("installs", "list", "--all", "--limit", "3", exit_code=2).stderr

    def test_list_skips_pages_without_items(self, wire: Wire) -> None:
        pages = [{"items": [], "next_cursor": "a"}, {"items": [{"id": "x"}], "next_cursor": "b"}]
        wire.instead = lambda request: Answered(200, json.dumps(pages.pop(0)))
        assert told("installs", "list", "--limit", "1") == {"items": [{"id": "x"}], "next_cursor": "b"}


class TestPager:
    """On a real pseudo-terminal. `profiles list` makes no request."""

    @pytest.fixture(autouse=True)
    def profiles(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        (tmp_path / "portaria").mkdir()
        text = "".join(f"[profiles.p{number}]\n" for number in range(40))
        (tmp_path / "portaria" / "config.toml").write_text(text)

    def on_a_terminal(self, *words: str, **environment: str) -> str:
        outer, inner = pty.openpty()
        try:
            done = subprocess.Popen(
                [sys.executable, "-m", "portaria_cli", *words],
                stdin=inner,
                stdout=inner,
                stderr=inner,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{ROOT / 'layers' / 'portaria'}:{ROOT / 'cli'}",
                    "LINES": "10",
                    "COLUMNS": "100",
                    "TERM": "xterm",
                    **environment,
                },
            )
            os.close(inner)
            written = b""
            while chunk := self._read(outer):
                written += chunk
            assert done.wait(30) == 0
        finally:
            os.close(outer)
        return written.decode()

    def _read(self, outer: int) -> bytes:
        try:
            return os.read(outer, 65_536)
        except OSError:
            # Linux reports the end of a pseudo-terminal with this error.
            return b""

    def test_a_long_list_goes_through_the_pager(self, tmp_path: Path) -> None:
        written = self.on_a_terminal("profiles", "list", PAGER=self.pager(tmp_path))
        assert written.startswith("PAGED\r\n")
        assert "p39" in written

    def test_a_short_list_does_not(self, tmp_path: Path) -> None:
        assert "PAGED" not in self.on_a_terminal("profiles", "list", PAGER=self.pager(tmp_path), LINES="500")

    @pytest.mark.parametrize("words", [("--no-pager", "profiles", "list"), ("profiles", "list", "--json")])
    def test_no_pager_and_json_do_without(self, tmp_path: Path, words: tuple[str, ...]) -> None:
        written = self.on_a_terminal(*words, PAGER=self.pager(tmp_path))
        assert "PAGED" not in written
        assert "p39" in written

    def test_an_empty_pager_means_none(self) -> None:
        assert "p39" in self.on_a_terminal("profiles", "list", PAGER="")

    def pager(self, folder: Path) -> str:
        script = folder / "pager"
        script.write_text("#!/bin/sh\necho PAGED\ncat\n")
        script.chmod(0o755)
        return str(script)


def test_version_is_the_projects(wire: Wire) -> None:
    assert re.fullmatch(r"portaria (\d+\.\d+\.\d+|unknown.*)\n", run("--version").stdout)
    assert wire.requests == []


def test_help_and_completion_import_no_library_of_a_command() -> None:
    code = (
        "import sys; from portaria_cli import commands\n"
        "try: commands.portaria.main(sys.argv[1:], prog_name='portaria', complete_var='_PORTARIA_COMPLETE')\n"
        "finally: print(sorted({'botocore', 'rich', 'yaml', 'pydantic'} & set(sys.modules)), file=sys.stderr)"
    )
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": f"{ROOT / 'layers' / 'portaria'}:{ROOT / 'cli'}"}
    completing = {"_PORTARIA_COMPLETE": "bash_complete", "COMP_WORDS": "portaria\nconn", "COMP_CWORD": "1"}
    for words, more, printed in ((["--help"], {}, "Usage: "), ([], completing, "plain,connections")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=environment | more, capture_output=True, text=True, check=False
        )
        assert done.stderr == "[]\n"
        assert done.stdout.startswith(printed)
