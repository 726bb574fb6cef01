"""Apply a configuration to the local cloud with the product's own command, `portaria configure`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import Any

import yaml

from local.processes import NotStarted
from local.stack import ROOT, STACK_FILE


def configure(configuration: dict[str, Any], **secrets: str) -> str:
    """Run `portaria configure` on the running stack and return its output.

    `secrets` become environment variables, which the configuration refers to as `{"env": NAME}`. Raises `NotStarted` with the
    command's output if it fails.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(configuration, file)
        file.flush()
        environment = {**os.environ, **secrets, "PYTHONPATH": f"{ROOT / 'layers' / 'portaria'}:{ROOT / 'cli'}"}
        command = [sys.executable, "-m", "portaria_cli", "--stack-file", str(STACK_FILE), "configure", file.name]
        done = subprocess.run(command, env=environment, check=False, text=True, capture_output=True)
    if done.returncode:
        raise NotStarted(f"the configuration was refused: {done.stdout}{done.stderr}".strip())
    return done.stdout.rstrip()
