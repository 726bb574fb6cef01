"""The examples and the marked commands of README and the documents work on the sandbox as they stand."""

from __future__ import annotations

from pathlib import Path

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


def documents() -> list[Path]:
    """README and the documents. Connections come first, because the others use what its commands authorize and rotate."""
    connections = ROOT / "docs" / "connections.md"
    return [connections, ROOT / "README.md", *(path for path in sorted(ROOT.glob("docs/*.md")) if path != connections)]


def test_documents_marked_commands_print_what_they_show(stack: LocalCloud) -> None:
    locations = {each["id"]: each for each in stack.control.leadconnector()["locations"]}
    if locations.get(LOCATION, {}).get("contacts"):
        pytest.skip("the sandbox of this checkout has been used already: `make clean-sandbox` first")
    commands = [command for document in documents() for command in transcripts(document)]
    assert len(commands) >= 16
    with Shell(ROOT) as shell:
        succeeded, printed = shell.run(SET_UP)
        assert succeeded, printed
        for command in commands:
            _, printed = shell.run(command.script)
            assert not difference(command.prints or "", printed), f"{command.section}: {command.script}{printed}"
