"""Where Chromium is, and how tests start it."""

from __future__ import annotations

import os
import shutil

# The background services would look for hosts outside; the sandbox needs privileges that a container has not.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
MISSING = "no Chromium here: install Debian's package chromium, or name one in the variable CHROMIUM"


def path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
