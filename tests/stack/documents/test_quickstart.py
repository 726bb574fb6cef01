"""Every block of docs/quickstart.md, in order, in one shell."""

from __future__ import annotations

import json
import time

import pytest

from local.stack import ROOT
from tests.fakes.local_cloud.session import LocalCloud
from tests.stack.documents.shell_blocks import Shell, blocks, difference

TOUR = ROOT / "docs" / "quickstart.md"
# Files that the quickstart writes beside the sandbox's own. A token file is never overwritten.
WRITTEN = ("portaria.yaml", "website.token", "bi.token")
SECONDS = ROOT / "build" / "quickstart.json"


def test_quickstart_every_block_prints_what_it_shows(stack: LocalCloud) -> None:
    accounts = stack.control.kommo()["accounts"]
    if any(account["webhooks"] for account in accounts if account["host"] == "padaria.kommo.com"):
        pytest.skip("the sandbox of this checkout has been used already: `make clean-sandbox` first")
    for name in WRITTEN:
        (ROOT / "build" / name).unlink(missing_ok=True)
    seconds: dict[str, float] = {}
    with Shell(ROOT) as shell:
        for block in blocks(TOUR):
            started = time.monotonic()
            succeeded, printed = shell.run(block.script)
            took = time.monotonic() - started
            seconds[block.section] = round(seconds.get(block.section, 0.0) + took, 1)
            shown = f"{block.section}:\n{block.script}\n{printed}"
            assert succeeded != block.fails, shown
            if block.prints is not None:
                assert not difference(block.prints, printed), f"{shown}\n{difference(block.prints, printed)}"
    SECONDS.write_text(json.dumps({**seconds, "together": round(sum(seconds.values()), 1)}, indent=2) + "\n")
    assert len(seconds) == 6
