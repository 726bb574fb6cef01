"""Finds the file of a local cloud that runs on this machine."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from portaria_cli.errors import NotDone

FILE = Path("build") / "stack.json"
WRITTEN_BY = "`make up` writes build/stack.json in the folder of the checkout"
CONNECT_TIMEOUT_S = 0.3


def stack_file() -> Path | None:
    """The file of the local cloud of this folder or of one above it, or None. The cloud runs if its API answers."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        file = folder / FILE
        try:
            api = urlsplit(str(json.loads(file.read_text(encoding="utf-8"))["api_url"]))
            with socket.create_connection((api.hostname or "", api.port or 443), timeout=CONNECT_TIMEOUT_S):
                return file
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def not_named(sentence: str, *, exit_code: int = 3) -> NotDone:
    """The error if no stack was found. If a local cloud runs, the error says how to name it."""
    file = stack_file()
    if not file:
        return NotDone(sentence, exit_code=exit_code)
    shown = os.path.relpath(file)
    named = f"a local cloud is running here: name it with --stack-file {shown}, or with STACK={shown} after make"
    return NotDone(f"{sentence}; {named}", exit_code=exit_code)
