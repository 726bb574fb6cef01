"""Digests of source files, which tell whether a running part is up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from local.stack import ROOT

# The sources of the running processes and of the deployment. The command line and the demo are not among them.
LOCAL_SOURCES = (
    "deployment.py",
    "lifecycle.py",
    "ministack",
    "proxy.py",
    "saved_state.py",
    "services.py",
    "simulators",
    "stack.py",
)


def local_sources() -> str:
    """The fingerprint of the local cloud's own sources."""
    return fingerprint(ROOT / "local" / name for name in LOCAL_SOURCES)


def fingerprint(sources: Iterable[Path], *more: str) -> str:
    """A digest of the files' names and contents, without hidden files and Python's caches."""
    digest = hashlib.sha256("\n".join(more).encode())
    for source in sources:
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            name = file.relative_to(ROOT)
            if file.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
                digest.update(f"\n{name}\n".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
