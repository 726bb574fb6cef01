"""Running the checks one after the other, and cleaning up whatever happens."""

from __future__ import annotations

import secrets
import signal
import string
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from types import FrameType

from portaria.overview.findings import FAIL, OK, SKIPPED, WARN
from portaria_cli.api import Api
from portaria_cli.doctor.deployment import Deployment
from portaria_cli.doctor.findings import NotLooked, NotThere
from portaria_cli.errors import Document, NotDone
from portaria_cli.smoke import cleanup
from portaria_cli.smoke.checks import CHECKS
from portaria_cli.smoke.flows import Result
from portaria_cli.smoke.lease import LEASE_S, Held, Lease, Lost
from portaria_cli.smoke.run import Failed, Run

# Lower-case letters and digits: the mark stands in host names and in the names of OAuth clients.
MARK_ALPHABET, MARK_LENGTH = string.ascii_lowercase + string.digits, 10
CLEAN_UP, EARLIER_RUNS = "clean-up", "earlier-runs"
LOOK_AT_LOGS = "run `portaria logs`, then `portaria doctor`"
RUN_AGAIN = "run `portaria smoke` again: it removes what is left first"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the table. `advice` says what to do, and is empty where there is nothing to do."""

    check: str
    state: str
    found: str
    advice: str
    seconds: float


@dataclass
class Report:
    rows: list[Row] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        return any(row.state == FAIL for row in self.rows)

    def document(self) -> Document:
        return {**asdict(self), "failed": self.failed}


class Session:
    """`tell` is told what is going on, `ended` each row as soon as it is known."""

    def __init__(
        self, deployment: Deployment, api: Api, patience_s: float, tell: Tell, ended: Callable[[Row], None]
    ) -> None:
        mark = "".join(secrets.choice(MARK_ALPHABET) for _ in range(MARK_LENGTH))
        self.run = Run(deployment, api, Lease(deployment.table, mark), patience_s)
        self.report = Report()
        self._tell = tell
        self._ended = ended

    def checks(self, names: Iterable[str]) -> Report:
        """Run these checks. Raises `NotDone` where none can be run."""
        wanted = list(names)
        with _terminable():
            self._take_lease()
            try:
                if self.run.lease.marks:
                    self._row(EARLIER_RUNS, self._earlier_runs)
                for number, name in enumerate(wanted, 1):
                    self._tell(f"{number}/{len(wanted)}  {name}")
                    self._row(name, partial(CHECKS[name], self.run))
            except KeyboardInterrupt:
                self.report.interrupted = True
            except Lost:
                self._lost()
                return self.report
            self._clean_up()
        self.report.alarms = self.run.alarms
        return self.report

    def _take_lease(self) -> None:
        """Wait for a run that is under way; one that was killed holds the lease until its end."""
        ends_at = time.monotonic() + LEASE_S + 5
        while True:
            try:
                with self.run.deployment.reading():
                    self.run.lease.take()
                return
            except Held as held:
                if time.monotonic() > ends_at:
                    raise NotDone("another smoke run is under way on this stack: wait until it ends") from None
                self._tell(f"another smoke run is under way, or was killed: waiting for at most {held.left_s:.0f} s")
                time.sleep(min(held.left_s, 2))
            except (NotLooked, NotThere) as reason:
                raise NotDone(f"the stack's table could not be written: {reason}", exit_code=3) from None

    def _row(self, name: str, check: Callable[[], Result]) -> None:
        started = time.monotonic()
        interrupted = False
        try:
            self.run.lease.renew()
            state, found, advice = check()
        except Failed as failed:
            state, found, advice = FAIL, failed.found, failed.advice
        except NotDone as refused:
            state, found, advice = FAIL, str(refused), LOOK_AT_LOGS
        except NotThere as missing:
            state, found, advice = FAIL, f"{missing} does not exist", "deploy again: `make deploy`"
        except NotLooked as reason:
            state, found, advice = SKIPPED, str(reason), "run it again with this permission"
        except Lost:
            raise
        except KeyboardInterrupt:
            state, found, advice, interrupted = SKIPPED, "interrupted", "", True
        except Exception as error:  # noqa: BLE001 - one check that breaks off must not hide the others
            state, found, advice = (
                FAIL,
                f"this check failed unexpectedly ({type(error).__name__}: {error})",
                "please report this error",
            )
        self._add(Row(name, state, found, advice, round(time.monotonic() - started, 1)))
        if interrupted:
            raise KeyboardInterrupt

    def _add(self, row: Row) -> None:
        self.report.rows.append(row)
        self._ended(row)

    def _earlier_runs(self) -> Result:
        left = [text for mark in list(self.run.lease.marks) for text in self._remove(mark)]
        if left:
            return WARN, f"an earlier run left: {'; '.join(left)}", RUN_AGAIN
        return OK, "removed what an earlier run left behind", ""

    def _remove(self, mark: str) -> list[str]:
        left = cleanup.remove(self.run, mark)
        if not left:
            self.run.lease.forget(mark)
        return left

    def _clean_up(self) -> None:
        """A second Ctrl-C ends this too: the run's mark stays, and the next run removes what carries it."""
        self._tell("removing what this run made")

        def remove() -> Result:
            self.report.left_behind = self._remove(self.run.names.mark)
            if self.report.left_behind:
                return WARN, f"not removed: {'; '.join(self.report.left_behind)}", RUN_AGAIN
            return OK, "nothing is left of this run", ""

        try:
            self._row(CLEAN_UP, remove)
        except KeyboardInterrupt:
            self.report.interrupted = True
            self.report.left_behind = [f"everything named {self.run.names.name}"]
        except Lost:
            self._lost()
            return
        with suppress(NotLooked, NotThere), self.run.deployment.reading():
            self.run.lease.end()

    def _lost(self) -> None:
        told = "another smoke run took over, since this one was held up for more than a minute"
        self._add(Row(CLEAN_UP, WARN, f"{told}; it removes what this run made", "run one at a time", 0.0))


@contextmanager
def _terminable() -> Iterator[None]:
    """A request to end (SIGTERM, as CI systems send it) is taken like Ctrl-C: what was made is removed first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
