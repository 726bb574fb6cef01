"""Processes that are interleaved at every call that leaves, in virtual time, and may die there. A seed decides everything.

A run extends `Run`. `running` leads what leaves the product's code to the current run, and `attempt_all` plays many seeds.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, Generic, Protocol, Self, TypeVar
from unittest.mock import patch

from greenlet import greenlet

from portaria.aws import table
from portaria.connections.tokens import cache, provider
from portaria.core import clock
from portaria.core.http.messages import Request, Response
from portaria.outbound import rate_limiter
from portaria.records import dead_letter_redrive, reconciliation_wakeups
from tests.fakes import outgoing
from tests.fakes.crashes import Died
from tests.fakes.outgoing import SentRequest
from tests.simulation.aws.cloud import Cloud, InTurn, installed

BEGIN = datetime(2026, 1, 5, 15, tzinfo=UTC).timestamp()


class Broken(BaseException):
    """A rule of the run was broken. It is no Exception, so that the code under test does not catch it."""


class Summable(Protocol):
    def __add__(self, other: Self) -> Self: ...


@dataclass
class Process:
    """Its memory of tokens, and its current work."""

    tokens: cache.TokenCache = field(default_factory=cache.TokenCache, kw_only=True)
    running: greenlet | None = field(default=None, kw_only=True)
    wake_at: float = field(default=0.0, kw_only=True)
    deadline: float = field(default=0.0, kw_only=True)


P = TypeVar("P", bound=Process)
R = TypeVar("R", bound=Summable)


class Run(ABC, Generic[P, R]):
    """`processes` and `result` are set by each kind of run. Outside of a process, `current` is None and no call has faults."""

    processes: list[P]
    result: R

    def __init__(self, name: str) -> None:
        self.name = name
        self.rng = random.Random(name)
        self.time = BEGIN
        self.cloud = Cloud()
        self.cloud.carry = self.carry
        self.main = greenlet.getcurrent()
        self.current: P | None = None
        self.over = False

    @abstractmethod
    def play(self) -> R:
        """The whole run. Raises `Broken`."""

    @abstractmethod
    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        """Carry out a call to AWS, with its duration and its faults."""

    @abstractmethod
    def send(self, request: Request) -> Response:
        """The answer of a platform."""

    def begin_request(self, request: Request) -> Callable[[], Response]:
        """Send a request to a platform. What this returns waits for the answer."""
        return partial(self.send, request)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)

    def wait(self, seconds: float) -> None:
        """Let the other processes run meanwhile. Outside of a process, the time only passes."""
        process = self.current
        if process is None:
            self.time += seconds
            return
        process.wake_at = self.time + seconds
        self.main.switch()
        if self.over or self.time > process.deadline:
            raise Died

    def resume(self, process: P) -> None:
        """Run a process until its next wait, or its end."""
        assert process.running is not None
        self.current = process
        try:
            process.running.switch()
        finally:
            self.current = None
        if process.running.dead:
            process.running = None

    def end(self) -> None:
        """Discard processes that are still in a call."""
        self.over = True
        for process in self.processes:
            if process.running and not process.running.dead:
                self.resume(process)


class Current(Generic[P]):
    """The run that is played, and the process whose turn it is; `aside` stands for it outside of a process."""

    run: Run[P, Any]

    def __init__(self, aside: P) -> None:
        self.aside = aside

    @property
    def process(self) -> P:
        return self.run.current or self.aside

    def now(self) -> datetime:
        return self.run.now()

    def monotonic(self) -> float:
        return self.run.time

    def wait(self, seconds: float) -> None:
        self.run.wait(seconds)

    def random_below(self, most: int) -> int:
        return self.run.rng.randrange(most)

    def send(self, request: Request, *, allowed_domain: str, follow_redirects: int = 0, owner: str) -> Response:
        return self.run.send(request)

    def begin(self, request: Request, *, allowed_domain: str, owner: str) -> SentRequest:
        return SentRequest(self.run.begin_request(request))


class _CurrentTokens(Generic[P]):
    """Stands for the process' memory of tokens: that of the process whose turn it is."""

    def __init__(self, current: Current[P]) -> None:
        self._current = current

    def __getattr__(self, name: str) -> Any:
        return getattr(self._current.process.tokens, name)


@contextlib.contextmanager
def running(current: Current[P], *replaced: AbstractContextManager[Any]) -> Iterator[None]:
    """Lead to the current run what leaves the code: AWS, the platform, the time and chance. `replaced` adds to it."""
    memory = {**(provider.TokenProvider.__init__.__kwdefaults__ or {}), "cache": _CurrentTokens(current)}
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            installed(lambda: current.run.cloud),
            patch.object(clock, "now", current.now),
            patch.object(clock, "sleep", current.wait),
            patch.object(rate_limiter, "time", SimpleNamespace(monotonic=current.monotonic)),
            outgoing.answering(current.send, current.begin),
            patch.object(secrets, "randbelow", current.random_below),
            patch.object(table, "ThreadPoolExecutor", InTurn),
            patch.object(provider.TokenProvider.__init__, "__kwdefaults__", memory),
            contextlib.ExitStack() as stack,
        ):
            for each in replaced:
                stack.enter_context(each)
            yield
    finally:
        _forget()
        logging.disable(disabled)


def _forget() -> None:
    """Forget what the product remembers until its process ends, with times of the run."""
    reconciliation_wakeups.forget()
    dead_letter_redrive._rate_limiter.cache_clear()


def play_all(current: Current[P], runs: Iterable[Run[P, R]], total: R) -> tuple[R, list[str]]:
    """The sum of the runs, and what broke. Only inside `running`, and repeatable only with PYTHONHASHSEED=0."""
    broken = []
    for run in runs:
        _forget()
        current.run = run
        try:
            run.play()
        except Broken as what:
            broken.append(f"{run.name}: {what}")
        finally:
            run.end()
        total += run.result
    return total, broken
