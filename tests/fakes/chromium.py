"""Where Chromium is, and how tests start it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import playwright

# For each context Chromium loads the pages of its address bar's suggestions, in a process of their own, and it keeps a process
# ready for the next page. No test uses them, and they take more than half of the processor time of a context.
UNUSED = ("WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup", "SpareRendererForSitePerProcess")
DRIVER = Path(playwright.__file__).parent / "driver" / "package" / "lib" / "coreBundle.js"


def _disabled_by_playwright() -> list[str]:
    """The features that Playwright disables. Chromium obeys the last `--disable-features` only."""
    names = re.search(r"^ *disabledFeatures = \[$(.*?)^ *\]", DRIVER.read_text(), re.DOTALL | re.MULTILINE)
    assert names, "Playwright's list has moved"
    return re.findall(r'^ *"(\w+)",?$', names[1], re.MULTILINE)


# The background services would look for hosts outside; the sandbox needs privileges that a container has not.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    f"--disable-features={','.join([*_disabled_by_playwright(), *UNUSED])}",
]
MISSING = "no Chromium here: install Debian's package chromium, or name one in the variable CHROMIUM"


def path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
