"""The problem types of the API. problem_types.toml has what each means and an example of its `detail`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from portaria.api import openapi


class ProblemType(NamedTuple):
    """`meaning` is a sentence for the reader of the document, `detail` what a response says, `field` the field it blames."""

    meaning: str
    detail: str
    field: str = ""


@cache
def every() -> dict[str, ProblemType]:
    """Each problem type by its reason, the last part of `type`."""
    table = tomllib.loads((files(openapi) / "problem_types.toml").read_text("utf-8"))
    return {reason: ProblemType(**entry) for reason, entry in table.items()}


def find(reason: str) -> ProblemType:
    """The problem type of a reason. `bad_` and the name of a filter stands for a value that the filter cannot have."""
    if reason in every():
        return every()[reason]
    if not reason.startswith("bad_"):
        raise KeyError(reason)
    name = reason.removeprefix("bad_")
    return ProblemType(f"The filter `{name}` has a value that it cannot have.", f"{name} has an unknown value", name)
