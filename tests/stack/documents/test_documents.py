"""The shell blocks of README and the documents work on the sandbox as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.sandbox.environment import LOCATION
from local.stack import ROOT
from tests.fakes.local_cloud.session import LocalCloud
from tests.stack.documents.shell_blocks import Shell, blocks, difference

SET_UP = """
make sandbox
. build/sandbox.env
portaria configure examples/portaria.yaml
portaria configure examples/connections.yaml
sandbox kommo click-install padaria
"""
# test_quickstart.py runs it, on an unused cloud.
TOUR = ROOT / "docs" / "quickstart.md"
# Tokens that the documents save. A token file is never overwritten.
TOKENS = ("nightly.token", "bi-listing.token", "bi-listing-new.token")


def documents() -> list[Path]:
    """Connections come first, because the others use what its commands authorize and rotate."""
    first = ROOT / "docs" / "connections.md"
    others = [path for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]) if path not in (first, TOUR)]
    return [first, *(path for path in others if not path.name.endswith(".pt-BR.md"))]


def test_documents_shell_blocks_print_what_they_show(stack: LocalCloud) -> None:
    locations = {each["id"]: each for each in stack.control.leadconnector()["locations"]}
    if locations.get(LOCATION, {}).get("contacts"):
        pytest.skip("the sandbox of this checkout has been used already: `make clean-sandbox` first")
    for name in TOKENS:
        (ROOT / "build" / name).unlink(missing_ok=True)
    wrong: list[str] = []
    with Shell(ROOT) as shell:
        succeeded, printed = shell.run(SET_UP)
        assert succeeded, printed
        for document in documents():
            for block in blocks(document):
                succeeded, printed = shell.run(block.script)
                problem = (
                    ""
                    if block.may_fail or succeeded != block.fails
                    else "it failed"
                    if not succeeded
                    else "it succeeded"
                )
                if block.prints is not None:
                    problem = problem or difference(block.prints, printed)
                if problem:
                    wrong.append(f"{document.name}, {block.section}:\n{block.script}{problem}\n{printed}")
    assert not wrong, "\n\n".join(wrong)
