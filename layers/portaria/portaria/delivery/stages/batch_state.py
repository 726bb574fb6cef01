"""The state of one batch: what each stage takes and hands to the next one.

    QueuedMessage ─ resolve, map_records ─▶ ResolvedMessage ─ deduplicate ─▶ OutgoingRecord
                  ─ send ─▶ SendResult ─ record_outcomes ─▶ BatchOutcome

All stages add to one `BatchOutcome` (messages that return to the queue, counts) and to one `Undelivered` (records that the last
stage writes to the table). Everything else goes one way.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from portaria import platforms
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core.entities import Answer, Connection, Target
from portaria.core.errors import Rejected
from portaria.delivery.destination_pause import DestinationPause
from portaria.delivery.version_guard import VersionScope
from portaria.delivery.waiting_lists import Place
from portaria.platforms.record_protocols import RecordDestination
from portaria.records.mapping import record_mapping
from portaria.records.mapping.record_mapping import Message, OutgoingRecord, RejectedRecord, Source


class QueuedMessage(NamedTuple):
    """A message as SQS delivers it. `receives` counts this delivery too."""

    id: str
    body: str
    receives: int = 1


class ResolvedRoute(NamedTuple):
    """The destination of records and how they are sent. A message of the data ingestion endpoint names its target itself: its
    route has no name and no mapping.

    `refused` says why a route leads nowhere: its destination is gone, or its mapping is wrong.
    """

    name: str
    target: Target
    mapping: record_mapping.Mapping | None = None
    scope: VersionScope = VersionScope.NONE
    refused: Rejected | None = None

    def lacks(self, data: dict[str, Any]) -> bool:
        """Whether the mapping needs a key that a partial record's data does not have."""
        if not self.mapping:
            return False
        try:
            return self.mapping.apply_partial(data)[1]
        except Rejected:
            return False


@dataclass
class MappedRecords:
    """What became of a message's records on one route, by their numbers. A record that is in none of these is not sent."""

    outgoing: dict[int, OutgoingRecord] = field(default_factory=dict)
    refused: dict[int, RejectedRecord] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)


class ResolvedMessage(NamedTuple):
    """A readable message, its readable records, the routes of its records, and what they are mapped to on each route."""

    message: Message
    sources: list[Source]
    routes: list[tuple[ResolvedRoute, MappedRecords]]


@dataclass(frozen=True)
class ResolvedBatch:
    """What the first stage found.

    `weights` has the quota weight of each source connection, `route_destinations` the destination of each route.
    """

    messages: list[ResolvedMessage]
    weights: dict[str, int]
    route_destinations: dict[str, str]


@dataclass
class BatchDestination:
    """One object of one destination during a batch. After `stop`, no request is sent to it in this batch.

    `after_s` is the wait in seconds that stopped it (None: the queue's back-off decides) and `code` the reason.
    `is_paused` says that the table has a pause for this wait. `is_busy` is false if the destination itself accepts requests,
    and only these records must wait. `pauses` are the pauses in the table when sending began. `is_accepting` says that the
    last answer was a success.
    """

    connection: Connection
    platform: RecordDestination
    pauses: list[DestinationPause] = field(default_factory=list)
    is_stopped: bool = False
    after_s: float | None = None
    code: str = ""
    is_paused: bool = False
    is_busy: bool = True
    is_accepting: bool = False
    static_credentials: dict[str, Any] | None = None

    def stop(self, code: str, after_s: float | None, *, is_paused: bool = False, is_busy: bool = True) -> None:
        """A pause in the table stands: the answer to a request that was in progress when it began does not shorten it."""
        if self.is_paused and not is_paused:
            return
        self.is_stopped, self.after_s, self.code = True, after_s, code
        self.is_paused, self.is_busy = is_paused, is_busy


class BatchDestinations:
    """The destinations of a batch. Each is read once, when the first stage asks for it."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[tuple[str, str], BatchDestination] = {}

    def get(self, target: Target) -> BatchDestination:
        """Raises `Rejected` if there is no such destination or it does not accept such objects, and what AWS raises."""
        name = (target.destination, target.object)
        if name not in self._known:
            connection = connection_store.get(self._table, target.destination)
            if connection.state == "removed":
                raise Rejected("connection_removed", f"the destination {connection.name} has been removed")
            platform = platforms.load(connection.platform)
            destination = platform.require(platform.destination_object(target.object_type))
            self._known[name] = BatchDestination(connection, destination)
        return self._known[name]

    def sending_order(self, target: Target) -> tuple[bool, int]:
        """A sort key: high priority first, and objects that others link to before those that link to them."""
        return target.priority != "high", self.get(target).platform.RANK


class Waits(NamedTuple):
    """Records that must not be sent before `until` (epoch seconds).

    `is_share`: their source has used its share of a quota. `is_listed`: earlier records of their source wait already.
    """

    outgoing: list[OutgoingRecord]
    until: float
    is_share: bool = False
    is_listed: bool = False


class Refused(NamedTuple):
    """A record that the destination, or a limit of its requests, refuses for good."""

    record: RejectedRecord


class Unsent(NamedTuple):
    """Records of a request that was not sent, because the destination is stopped."""

    piece: list[OutgoingRecord]


class Answered(NamedTuple):
    """Records of a request, and the destination's answer to it. `facts` are the fields of its log message.

    `silent_for_s` is how long the destination must be paused because it does not answer in time, or 0.
    """

    piece: list[OutgoingRecord]
    answer: Answer
    facts: dict[str, Any]
    silent_for_s: float = 0.0


SendResult = Waits | Refused | Unsent | Answered


@dataclass
class BatchOutcome:
    """The result of a batch.

    `waiting` has the messages that return to the queue, each with its wait in seconds (0: immediately, None: the back-off
    of `retry_schedule.wait_s`). `held` has the entries whose records wait in the table. `pause_s` is how long a drain must
    wait before its next batch. `counts` are metrics; `quota_left` is in percent, by subscription and day
    (a local date).
    """

    held: set[Place] = field(default_factory=set)
    pause_s: float = 0.0
    waiting: dict[str, float | None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    quota_left: dict[tuple[str, str], int] = field(default_factory=dict)

    def hold(self, message_id: str, after_s: float | None = None) -> None:
        """Return a message to the queue. The longest wait that was asked for counts."""
        known = self.waiting.get(message_id, 0)
        default = None if known is None or after_s is None else 0
        self.waiting[message_id] = max(known or 0, after_s or 0) or default


def by_message(outgoing: Iterable[OutgoingRecord]) -> dict[str, list[OutgoingRecord]]:
    """Outgoing records by the ids of the messages that they were made of; a merged record belongs to several."""
    found: dict[str, list[OutgoingRecord]] = defaultdict(list)
    for one in outgoing:
        for message_id in {source.message.id for source in one.sources}:
            found[message_id].append(one)
    return found
