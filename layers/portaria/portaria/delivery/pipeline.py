"""Deliver one batch of Records messages to their destinations, in stages that run one after the other.

    resolve and map → deduplicate → send → record

Each record ends in one of five ways: the destination has accepted it (or a newer version of it), a newer version is being sent,
it is a dead letter with its reason, it waits in the table (`waiting_lists`), or its message returns to the queue (a message
that is too large for a slow destination returns in parts). So a message returns exactly if at least one of its records has
not been handled. `record_release` sends the waiting records through the same stages.

One message after the other is decoded and mapped, and then its data is released: a batch that keeps it needs several times the
memory, and is slower for it. The result of each request is recorded before the next request to its destination is sent, and
several destinations take turns (`destination_turns`). The module of each stage says what it writes, and what a process that
dies before or after a write leaves.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from portaria.aws.table import Table
from portaria.connections.vault import SealedTable, Vault
from portaria.core import clock
from portaria.core.entities import Target
from portaria.core.settings import IngestRecordsSettings, ReleaseRecordsSettings
from portaria.delivery import quota_warnings, quotas, retry_schedule
from portaria.delivery.stages.batch_state import BatchDestinations, BatchOutcome, QueuedMessage
from portaria.delivery.stages.deduplicate import Deduplicator
from portaria.delivery.stages.destination_request import DestinationRequests
from portaria.delivery.stages.destination_turns import DestinationTurns
from portaria.delivery.stages.host_gate import HostGate
from portaria.delivery.stages.map_records import outgoing_records
from portaria.delivery.stages.record_outcomes import OutcomeRecorder
from portaria.delivery.stages.resolve import MessageResolver
from portaria.delivery.stages.send import QuotaReserver, Sender
from portaria.delivery.stages.undelivered import Undelivered
from portaria.delivery.waiting_lists import Place
from portaria.records.mapping.record_mapping import OutgoingRecord
from portaria.records.reconciliation_schedule import Bounds

__all__ = ["BatchOutcome", "QueuedMessage", "ingest", "ingest_waiting"]


def ingest(
    queued: Iterable[QueuedMessage],
    settings: IngestRecordsSettings,
    time_left_s: Callable[[], float],
    *,
    bulk: bool = False,
) -> BatchOutcome:
    """Deliver messages of one queue; `bulk` says that it is the queue of backfills.

    `time_left_s` gives the seconds that the invocation has left. `BatchOutcome.waiting` has the messages that must return to
    the queue; all others may be deleted. Raises nothing.
    """
    split_url = settings.bulk_records_queue_url if bulk else settings.records_queue_url
    wakes = Bounds.of_minutes(settings.reconcile_every_minutes, settings.reconcile_every_minutes)
    return _without_gc(lambda: _run(queued, settings, time_left_s, bulk=bulk, split_url=split_url, wakes=wakes))


def ingest_waiting(
    queued: Iterable[QueuedMessage],
    settings: ReleaseRecordsSettings,
    time_left_s: Callable[[], float],
    *,
    bulk: bool,
    stored: Mapping[Place, int],
) -> BatchOutcome:
    """Deliver records that have waited in the table: `stored` has their entries, each with its number of records.

    The entries that must wait longer are in `BatchOutcome.held`; `BatchOutcome.waiting` has the messages that failed
    unexpectedly. Raises nothing.
    """
    return _without_gc(lambda: _run(queued, settings, time_left_s, bulk=bulk, stored=stored))


def _without_gc(run: Callable[[], BatchOutcome]) -> BatchOutcome:
    """Switch off garbage collection during a batch: its objects live until its end, so no search for cycles finds any."""
    gc.disable()
    try:
        return run()
    finally:
        gc.enable()


@cache
def _ledger(table_name: str, time_zone: str) -> quotas.Ledger:
    """One per process. It caches for half a minute how much quota other workers have used."""
    return quotas.Ledger(Table(table_name), time_zone)


def _run(
    queued: Iterable[QueuedMessage],
    settings: IngestRecordsSettings | ReleaseRecordsSettings,
    time_left_s: Callable[[], float],
    *,
    bulk: bool,
    split_url: str = "",
    wakes: Bounds | None = None,
    stored: Mapping[Place, int] | None = None,
) -> BatchOutcome:
    """Run the stages in order. Without `stored`, the records come from a queue; with it, from their waiting lists."""
    queued = list(queued)
    table, is_drain = Table(settings.table_name), stored is not None
    vault = Vault(settings.secrets_prefix, SealedTable(table, settings.sealing_key_id))
    outcome = BatchOutcome()
    undelivered = Undelivered(table, bulk=bulk, stored=stored or {})
    destinations = BatchDestinations(table)
    ledger = _ledger(settings.table_name, settings.quota_time_zone)
    deduplicator = Deduplicator(table, outcome)
    resolver = MessageResolver(table, destinations, undelivered, outcome, split_url=split_url, wakes=wakes)
    resolved = resolver.resolve(queued)
    undelivered.destinations = resolved.route_destinations
    by_target: dict[Target, list[OutgoingRecord]] = defaultdict(list)
    for route, mapped, newest in deduplicator.newest(resolved.messages):
        if outgoing := outgoing_records(mapped, newest, undelivered, outcome):
            by_target[route.target] += outgoing
    hosts = HostGate(table, outcome, is_drain=is_drain)
    requests = DestinationRequests(table, vault, time_left_s, hosts, bulk=bulk, is_drain=is_drain)
    sender = Sender(
        table,
        deduplicator,
        QuotaReserver(ledger, resolved.weights, outcome, bulk=bulk),
        requests,
        hosts,
        outcome,
        bulk=bulk,
        is_drain=is_drain,
    )
    recorder = OutcomeRecorder(
        table,
        settings.bus_name,
        retry_schedule.Schedule(table, settings.retry_after_minutes),
        undelivered,
        outcome,
        receives={each.id: each.receives for each in queued},
        until_reset_s=ledger.until_reset_s,
        is_drain=is_drain,
    )
    turns = DestinationTurns(destinations, sender, requests, recorder, outcome)
    turns.send([(target, by_target[target]) for target in sorted(by_target, key=destinations.sending_order)])
    recorder.write()
    if outcome.quota_left:
        day = quotas.day_of(ledger.zone, clock.now()).name
        quota_warnings.publish(table, settings.bus_name, outcome.quota_left, day)
    return outcome
