"""What a function imports before its first request: each library takes time of every cold start."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.fakes.paths import ROOT

FOLDERS = sorted((ROOT / "functions").iterdir())
WEBHOOKS = ("accept_install", "receive_events")
# What is imported with the first request that needs it: with each function it would take a third of a cold start.
ON_DEMAND = {"boto3", "requests", "urllib3", "s3transfer", "jinja2", "h11"}
# Each of these takes a twentieth of a webhook's cold start or more.
NOT_FOR_WEBHOOKS = {
    "typing",
    "dataclasses",
    "logging",
    "email",
    "http",
    "asyncio",
    "decimal",
    "uuid",
    "random",
    "concurrent",
}


@cache
def loaded(folder: Path) -> set[str]:
    """The top-level modules that a fresh process has imported after the imports of a handler."""
    lines = (folder / "handler.py").read_text().splitlines()
    imports = [line for line in lines if line.startswith(("from portaria", "import portaria"))]
    assert imports
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "layers" / "portaria")}
    # Without site-packages' own start, which imports modules itself.
    paths = [path for path in sys.path if path.endswith("site-packages")]
    code = "\n".join([f"import sys; sys.path += {paths}", *imports, "print(*sys.modules)"])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_functions_import_boto3_and_requests_with_the_first_use(folder: Path) -> None:
    pages = {"jinja2"} if folder.name in ("console", "redeem_ticket") else set()
    assert loaded(folder) & (ON_DEMAND - pages) == set()


@pytest.mark.parametrize("folder", [each for each in FOLDERS if each.name in WEBHOOKS], ids=lambda folder: folder.name)
def test_webhooks_import_no_heavy_module_of_the_standard_library(folder: Path) -> None:
    assert loaded(folder) & NOT_FOR_WEBHOOKS == set()
