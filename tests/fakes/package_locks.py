"""The lock files as data: which packages are installed, with which hashes."""

from __future__ import annotations

import re
from pathlib import Path

_LINE = re.compile(
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[^ ;]+) \\|    --hash=sha256:(?P<hash>[0-9a-f]{64})(?: \\)?"
)


def pins(lock: Path) -> dict[tuple[str, str], set[str]]:
    """Hashes by name and version. Raises ValueError for a line that is neither a pin nor a hash."""
    found: dict[tuple[str, str], set[str]] = {}
    for number, line in enumerate(lock.read_text().splitlines(), start=1):
        if not line or line.startswith("# "):
            continue
        if (read := _LINE.fullmatch(line)) is None:
            raise ValueError(f"{lock.name}, line {number} is no pin and no hash")
        if read["name"]:
            hashes = found[read["name"], read["version"]] = set()
        else:
            hashes.add(read["hash"])
    return found
