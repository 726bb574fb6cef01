"""What is wrong with a configuration file: all of it, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from portaria_cli.errors import USAGE, NotDone


class Place(NamedTuple):
    """Both count from 1, as editors do."""

    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """`detail` is a sentence without secrets. `commands` delete the resources that prevent the change."""

    place: Place
    detail: str
    commands: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        found = {"line": self.place.line, "column": self.place.column, "detail": self.detail}
        return found | ({"commands": list(self.commands)} if self.commands else {})


class WrongFile(NotDone):
    """The file is wrong. `consequence` says what was not done because of it."""

    def __init__(
        self, path: Path, problems: Sequence[Problem], remark: str = "", *, consequence: str = "nothing was written"
    ) -> None:
        in_order = sorted(problems, key=lambda problem: problem.place)
        count = f"{len(in_order)} problem{'s' if len(in_order) > 1 else ''}"
        lines = [f"{path} has {count}" + (f"; {consequence}" if consequence else "")]
        for problem in in_order:
            lines.append(f"{path}:{problem.place.line}:{problem.place.column}: {problem.detail}")
            lines += [f"    {command}" for command in problem.commands]
        lines += [remark] if remark else []
        super().__init__(
            "\n".join(lines),
            exit_code=USAGE,
            problem={"problems": [problem.document() for problem in in_order]},
        )
        self.problems = in_order
