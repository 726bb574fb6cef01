"""The repository's root, and corpora that several suites read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HOSTILE_REFERERS = Path(__file__).with_name("hostile_referers.json")
HOSTILE_URLS = Path(__file__).with_name("hostile_urls.txt")
HOSTILE_RETURN_URLS = Path(__file__).with_name("hostile_return_urls.txt")
