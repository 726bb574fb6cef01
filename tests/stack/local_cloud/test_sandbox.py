"""The sandbox's commands on the running local cloud."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from local.sandbox import environment
from local.sandbox.__main__ import sandbox
from local.stack import ROOT
from tests.fakes.local_cloud.scenes import Scene, wait_for
from tests.fakes.local_cloud.session import LocalCloud


def run(*arguments: str) -> str:
    result = CliRunner().invoke(sandbox, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def start() -> str:
    command = [sys.executable, "-m", "local.sandbox"]
    variables = {"PYTHONPATH": "layers/portaria:cli", "PATH": os.environ["PATH"]}
    return subprocess.run(command, cwd=ROOT, env=variables, check=True, capture_output=True, text=True).stdout


def test_sandbox_started_twice_changes_nothing(stack: LocalCloud) -> None:
    start()
    accounts = stack.control.kommo()["accounts"]
    before = environment.FILE.read_text()

    told = start()

    assert environment.FILE.read_text() == before
    assert environment.FILE.stat().st_mode & 0o777 == 0o600
    assert stack.control.kommo()["accounts"] == accounts
    commands = [line.split("#")[0].strip() for line in told.splitlines() if line.startswith("  ") and "#" in line]
    assert len(commands) == 6
    assert commands[0] == ". build/sandbox.env"


def test_sandbox_kommo_account_is_installed_changed_and_uninstalled(scene: Scene) -> None:
    """With an account and an application of its own, by webhook and in a browser."""
    name, munchkin = f"{scene.name}s", scene.send_to_marketo()
    assert "20 contacts" in run("kommo", "add-account", name, "--contacts", "20", "--without-email", "0")
    assert "exists already" in run("kommo", "add-account", name)
    assert "refused" in run("kommo", "click-install", name, "--client", scene.name, "--deny")
    assert "is connected" in run("kommo", "click-install", name, "--client", scene.name)
    assert "20 persons" in run("marketo", "persons", "--instance", munchkin, "--at-least", "20")
    address = f"ana@{name}.example"
    assert "is changed" in run("kommo", "change-contact", name, "--set", f"email={address}")
    assert address in run("marketo", "persons", address, "--instance", munchkin, "--at-least", "1")
    assert "answered with 200" in run("kommo", "hook-install", name, "--client", scene.name)
    connection = scene.wait_for_end(2)[0]["connection"]
    assert "has disconnected" in run("kommo", "uninstall", name, "--client", scene.name)
    state = f"{scene.cloud.public_url}/admin/v1/connections/{connection}"
    # If Kommo refuses the token when the webhook is checked, Portaria asks it again before it removes the connection.
    ended = ("removed", "needs_reconnect")
    wait_for(lambda: scene.cloud.admin.get(state).json()["state"], lambda found: found in ended)


def test_sandbox_fault_is_set_and_cleared(stack: LocalCloud) -> None:
    run("kommo", "add-account", "faulty")
    number = run("fault", "kommo", "503", "--for", "60s", "--account", "faulty", "--count", "1").split()[1]
    assert stack.web.get("https://faulty.kommo.com/api/v4/account").status_code == 503
    assert stack.web.get("https://faulty.kommo.com/api/v4/account").status_code == 401
    assert number in run("faults")
    run("clear-faults", number)
    assert number not in run("faults").split()


def test_sandbox_commands_complete_account_names(stack: LocalCloud, tmp_path: Path) -> None:
    run("kommo", "add-account", "completable")
    environment.write_commands()
    variables = {"COMP_WORDS": "sandbox kommo contacts comp", "COMP_CWORD": "3", "_SANDBOX_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [environment.COMMANDS / "sandbox"],
        cwd=tmp_path,
        env={**variables, "PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "plain,completable\n"
