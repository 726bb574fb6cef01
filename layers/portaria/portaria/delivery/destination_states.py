"""The state of destinations: their pauses, and the records that wait for them.

The index `listing` names the destinations; each state is then read consistently. A destination is a connection's name. The
connection may have been deleted while records still wait.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from portaria.aws import queues, service_clients
from portaria.aws.table import Table, run_concurrently
from portaria.core import clock
from portaria.core.errors import Retryable
from portaria.delivery import backlogs, destination_pause, host_pauses, waiting_lists
from portaria.delivery.backlogs import Backlog
from portaria.delivery.destination_pause import DestinationPause, PauseReason

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DestinationState:
    """`pauses` are those that are not over, with that of the destination's host if records wait. `backlog` says how many."""

    name: str
    pauses: tuple[DestinationPause, ...]
    backlog: Backlog | None

    @property
    def is_open(self) -> bool:
        """Whether new records are sent immediately."""
        return not self.pauses and self.backlog is None

    @property
    def records(self) -> int:
        return self.backlog.records if self.backlog else 0

    def next_try_at(self, now: float) -> int | None:
        """When records are sent next (epoch seconds); None for now."""
        if not self.backlog:
            return max((pause.until for pause in self.pauses), default=None)
        is_running = self.backlog.unfinished > 0
        return None if is_running or self.backlog.next_at <= now else self.backlog.next_at


def page(table: Table, *, after: str, limit: int) -> tuple[list[DestinationState], str | None]:
    """The destinations that are not open, by name, and the name after which the next page begins. Raises what AWS raises."""
    names = {item["destination"] for item in table.query_all(destination_pause.LIST, index="listing")}
    names |= {backlog.destination for backlog in backlogs.list_all(table)}
    asked = sorted(name for name in names if name > after)
    found = [state for state in run_concurrently(partial(find, table), asked[:limit]) if not state.is_open]
    return found, asked[limit - 1] if len(asked) > limit else None


def find(table: Table, name: str) -> DestinationState:
    """Read with one strongly consistent query, or two. Raises what AWS raises.

    A backlog exists for some minutes longer than its records. It is left out if all of its lists were found empty.
    """
    status = backlogs.status(table, name)
    backlog, now = status.backlog, clock.now().timestamp()
    if backlog and not backlog.records and all(head.closed_at for head in waiting_lists.heads(table, name)):
        backlog = None
    pauses = [pause for pause in status.pauses if pause.until > now]
    if backlog and backlog.host and (paused := host_pauses.read(table, backlog.host)) and paused.until > now:
        reason = PauseReason.NO_ANSWER
        pauses.append(
            DestinationPause(name, "", reason, reason.value, paused.until, paused.since, paused.for_s, paused.host)
        )
    return DestinationState(name, tuple(pauses), backlog)


def no_answer_since(table: Table, waiting: Iterable[Backlog]) -> str | None:
    """Since when (ISO 8601) the first destination that records wait for, or its host, does not answer; None if all answer.

    A pause that has passed counts, because no request was answered since. `waiting` are all backlogs. Two eventually
    consistent queries. Raises what AWS raises.
    """
    names, hosts = set(), set()
    for backlog in waiting:
        names.add(backlog.destination)
        hosts.add(backlog.host)
    since = [pause.since for pause in host_pauses.list_all(table) if pause.host in hosts]
    pauses = map(destination_pause.read, table.query_all(destination_pause.LIST, index="listing"))
    since += [pause.since for pause in pauses if pause.reason is PauseReason.NO_ANSWER and pause.destination in names]
    return min(since, default=None)


def resume(table: Table, queue_url: str, before: DestinationState) -> None:
    """Let a destination's pauses be over and send its waiting records immediately. `before` is the state that was found.

    If its host is paused, the first record tries the host. Pauses are over before the backlog becomes due, and the message is
    sent last. After a death in between, records wait until their backlog is due, as they did before, or until this is repeated.
    Raises what AWS raises.
    """
    if before.backlog:
        host_pauses.lift(table, before.backlog.host)
    backlogs.try_now(table, before.name)
    if before.backlog:
        try:
            queues.send(queue_url, [queues.encode({"drain": before.name})])
        except Retryable as error:
            # The sweep of the next minute finds the backlog due.
            logger.warning("drain_not_queued", extra={"connection": before.name, "reason": error.reason})


def resume_after_change(table: Table, queue_url: str, name: str) -> int | None:
    """Resume a connection that has new credentials, or was deleted; about how many records waited for it.

    The change is stored already, so a failure is only logged, and the result is None: a pause ends by itself.
    """
    try:
        before = find(table, name)
        resume(table, queue_url, before)
        return before.records
    except service_clients.FAILURES as error:
        logger.warning("waiting_records_not_tried", extra={"connection": name, "error": type(error).__name__})
        return None
