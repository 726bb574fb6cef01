"""The error that ends a command: one sentence for the person who reads it."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

PROBLEM = "urn:portaria:problem:"
# Wrong usage, a wrong file or a wrong token.
USAGE = 2


class NotDone(Exception):
    """The command cannot be carried out. `exit_code` is 1 if the API refused, 2 for wrong usage, 3 if the API was not reached.

    With `answer_lost` the request may have been carried out. `retry_after_s` is the wait that the API asked for, if any.
    """

    def __init__(
        self,
        sentence: str,
        *,
        exit_code: int = 1,
        status: int = 0,
        problem: Document | None = None,
        answer_lost: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.status = status
        self.problem = problem or {}
        self.answer_lost = answer_lost
        self.retry_after_s = retry_after_s

    @property
    def reason(self) -> str:
        return reason_of(self.problem)


def reason_of(problem: Document) -> str:
    """The API's reason for a refusal, or an empty text if something in front of the API answered."""
    found = str(problem.get("type", ""))
    return found.removeprefix(PROBLEM) if found.startswith(PROBLEM) else ""
