"""The commands `console` and `console-sessions`."""

from __future__ import annotations

import re

import pytest

from portaria.access import console_sessions
from tests.fakes.api.command_line import Wire, run, told, wired
from tests.fakes.aws.moto_cloud import Cloud


@pytest.fixture
def wire(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Wire:
    return wired(stack, monkeypatch)


@pytest.mark.parametrize(("opens", "printed"), [(True, False), (False, True)])
def test_console_opens_a_browser_or_prints_the_link(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, opens: bool, printed: bool
) -> None:
    opened: list[str] = []

    def open_browser(url: str) -> bool:
        opened.append(url)
        return opens

    monkeypatch.setattr("webbrowser.open", open_browser)
    done = run("console")
    assert len(opened) == 1
    assert re.fullmatch(r"https://\S+/live/console/sign-in\?link=[\w-]{43}", opened[0])
    assert (opened[0] in done.stdout) is printed


def test_console_print_opens_no_browser(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: pytest.fail("opened"))
    assert re.fullmatch(r"https://\S+\n", run("console", "--print").stdout)
    made = told("console", "--read-only")
    assert "connections:list" in made["scopes"]
    assert all(scope.endswith((":list", ":show", ":preview")) for scope in made["scopes"])
    assert told("console", "--scope", "routes:list", "--scope", "routes:show")["scopes"] == [
        "routes:list",
        "routes:show",
    ]


def test_console_read_only_with_scope_is_wrong_usage(wire: Wire) -> None:
    run("console", "--read-only", "--scope", "routes:list", exit_code=2)
    assert wire.requests == []


def test_console_sessions_list_and_revoke(wire: Wire, stack: Cloud) -> None:
    token, _ = console_sessions.create_link(stack.table, "arn:aws:iam::123456789012:user/maria", None)
    session, _ = console_sessions.open_link(stack.table, token, "192.0.2.1", "Firefox")
    assert [each["id"] for each in told("console-sessions", "list")["items"]] == [session.id]
    run("console-sessions", "revoke", session.id)
    assert told("console-sessions", "list")["items"] == []
    assert "there is no console session" in run("console-sessions", "revoke", session.id, exit_code=1).stderr
