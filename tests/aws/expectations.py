"""One expectation of AWS's behaviour, and the check of a stand-in against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from tests.aws.stand_ins import Aws

MOTO, MEMORY, MINISTACK = "moto", "memory", "ministack"
STAND_INS = (MOTO, MEMORY, MINISTACK)


@dataclass(frozen=True)
class Expectation:
    """`run` makes the calls and returns the part of the answers that counts; AWS's is `answer`.

    `differs` holds what a stand-in answers instead. It is strict: the test fails when the stand-in answers as AWS does, and
    the expectation's name must stand in docs/fidelity.md. `lacks` says why a stand-in cannot run it at all.
    """

    name: str
    source: str
    run: Callable[[Aws], Any]
    answer: Any
    differs: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)

    def check(self, aws: Aws) -> None:
        observed = self.run(aws)
        if aws.name not in self.differs:
            assert observed == self.answer, f"{aws.name} answers otherwise than AWS ({self.source})"
            return
        assert observed != self.answer, f"{aws.name} now answers as AWS does: remove its entry in `differs`"
        assert observed == self.differs[aws.name], f"{aws.name} differs from AWS in another way than before"


def refusal(call: Callable[..., Any], **parameters: Any) -> str:
    """The error code of a call that AWS refuses; empty if it accepted the call."""
    try:
        call(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def content(answer: dict[str, Any]) -> dict[str, Any]:
    """A response without its metadata."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}
