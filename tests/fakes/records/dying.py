"""A worker that crashes at one of its writes, on AWS in memory."""

from __future__ import annotations

from typing import Any

from tests.fakes.crashes import Died
from tests.simulation.aws.cloud import Cloud


class Dying:
    """A worker that crashes before or after its write number `at` to AWS."""

    def __init__(self, cloud: Cloud, at: int, *, after: bool) -> None:
        self.cloud, self.at, self.after, self.calls = cloud, at, after, 0

    def __enter__(self) -> Dying:
        self.cloud.carry = self.carry
        return self

    def __exit__(self, *_: object) -> None:
        self.cloud.carry = lambda name, call: call()

    def carry(self, name: str, call: Any) -> Any:
        if "get" in name or "query" in name:
            return call()
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise Died
        answer = call()
        if self.calls == self.at:
            raise Died
        return answer
