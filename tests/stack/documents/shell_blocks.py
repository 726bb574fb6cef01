"""Run the shell blocks of a Markdown document in order, in one shell, and compare what they print.

A block `sh` has commands. A block `text` right after it is their output. A block `console` has commands after `$ ` and their
output below each. In an output, `…` stands for any text within a line, a line `…` for any lines, and runs of spaces count as
one. A block whose output has a line with `error:` must fail. Every other command of a block `sh` must succeed.

`<!-- not run: REASON -->` in the line above a block excludes it. tests/unit/repository/test_documents.py has the reasons.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

TIMEOUT_S = 120.0
# No settings of the user, of the calling make, or of another sandbox.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME")
FENCED = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<content>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.+) -->\s*\Z")
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    section: str
    script: str
    prints: str | None = None
    may_fail: bool = False

    @property
    def fails(self) -> bool:
        return "error:" in (self.prints or "")


def blocks(document: Path) -> list[Block]:
    """The blocks of a document that are run, with their output."""
    text = document.read_text()
    headings = [(found.start(), found[1]) for found in HEADING.finditer(text)]
    found: list[Block] = []
    is_open = False  # whether an output may follow
    for fence in FENCED.finditer(text):
        section = next((title for start, title in reversed(headings) if start < fence.start()), "")
        content = textwrap.dedent(fence["content"])
        if fence["kind"] == "text" and is_open:
            found[-1] = replace(found[-1], prints=content)
        is_open = False
        if fence["kind"] not in ("sh", "console") or NOT_RUN.search(text, 0, fence.start()):
            continue
        if fence["kind"] == "sh":
            found.append(Block(section, content))
            is_open = True
        else:
            found += _commands(section, content)
    return found


def _commands(section: str, content: str) -> Iterator[Block]:
    """A command begins with `$ ` and continues after a backslash. A line that begins with `# ` is a comment."""
    for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
        command = re.match(r"(?:.*\\\n)*.*\n", part)
        assert command
        prints = re.sub(r"^# .*\n", "", part[command.end() :], flags=re.MULTILINE)
        yield Block(section, command[0], prints, may_fail=True)


class Shell:
    """One bash with its folder, as a terminal. What a block sets, the next one sees."""

    def __init__(self, folder: Path) -> None:
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**environment, "PYTHONWARNINGS": "error"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._bash.stdin
        assert self._bash.stdout
        self._bash.stdin.close()
        try:
            self._bash.wait(5)
        finally:
            self._bash.kill()
            self._bash.stdout.close()
            self._bash.wait()

    def run(self, script: str) -> tuple[bool, str]:
        """Whether every command succeeded, and the output."""
        assert self._bash.stdin
        mark = f"end-{secrets.token_hex(8)}"
        self._bash.stdin.write(f"failed=; trap 'failed=1' ERR\n{script}\ntrap - ERR; echo; echo {mark} $failed\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._lines():
            if line.startswith(mark):
                return line.strip() == mark, "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended:\n{''.join(lines)}")

    def _lines(self) -> Iterator[str]:
        assert self._bash.stdout
        deadline = time.monotonic() + TIMEOUT_S
        for line in self._bash.stdout:
            assert time.monotonic() < deadline, f"it takes longer than {TIMEOUT_S:.0f} s"
            yield line


def difference(expected: str, printed: str) -> str:
    """The expected lines and the output if they differ; empty if they match."""
    wanted, got = _lines_of(expected), _lines_of(printed)
    pattern = "".join("(?:.*\n)*?" if line == "…" else f"{_pattern(line)}\n" for line in wanted)
    if re.fullmatch(pattern, "".join(f"{line}\n" for line in got)):
        return ""
    return "\n".join(["expected:", *wanted, "", "printed:", *got])


def _pattern(line: str) -> str:
    return re.escape(line).replace("…", ".*").replace(r"\ .*\ ", r"\ (?:.*\ )?")


def _lines_of(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]
