"""The examples and the README's commands work on the sandbox as they stand."""

from __future__ import annotations

import pytest

from local.sandbox.environment import LOCATION
from local.stack import ROOT
from tests.stack.conftest import LocalCloud
from tests.stack.documents import Shell, difference, transcripts

SET_UP = """
make sandbox
. build/sandbox.env
portaria configure examples/portaria.yaml
portaria configure examples/connections.yaml
sandbox kommo click-install padaria
"""


def test_documents_readme_commands_print_what_it_shows(stack: LocalCloud) -> None:
    locations = {each["id"]: each for each in stack.control.leadconnector()["locations"]}
    if locations.get(LOCATION, {}).get("contacts"):
        pytest.skip("the sandbox of this checkout has been used already: `make clean-sandbox` first")
    commands = transcripts(ROOT / "README.md")
    assert len(commands) >= 13
    with Shell(ROOT) as shell:
        succeeded, printed = shell.run(SET_UP)
        assert succeeded, printed
        for command in commands:
            _, printed = shell.run(command.script)
            assert not difference(command.prints or "", printed), f"{command.script}{printed}"
