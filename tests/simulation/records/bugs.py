"""Bugs planted in the code that stores waiting records, one at a time. A simulation of records must catch each."""

from __future__ import annotations

from tests.simulation.bugs import Bug, planted
from tests.simulation.records import runs, waiting_runs

RECORD_BUGS = (
    Bug(
        "an entry deleted before its records are dealt with",
        "portaria.delivery.record_release",
        "        outcome = pipeline.ingest_waiting(\n",
        "        waiting_entries.remove(self.table, entries)\n        outcome = pipeline.ingest_waiting(\n",
        ("runs",),
    ),
    Bug(
        "an entry deleted although its records wait again",
        "portaria.delivery.record_release",
        " | {entry.place for entry in entries if entry.place in outcome.held}\n",
        "\n",
        ("runs",),
    ),
    Bug(
        "a message deleted although its records could not be kept",
        "portaria.delivery.stages.undelivered",
        "            return messages\n",
        "            return set()\n",
        ("runs",),
    ),
    Bug(
        "a list removed although records arrived meanwhile",
        "portaria.delivery.waiting_lists",
        '            condition="attribute_not_exists(pk) OR arrivals = :arrivals",\n',
        '            condition="attribute_not_exists(pk) OR arrivals >= :arrivals",\n',
        ("runs",),
    ),
    Bug(
        "new records overtake those that wait",
        "portaria.delivery.stages.send",
        "            if waiting in lists:\n",
        '            if waiting in lists and waiting.source == "":\n',
        ("order",),
    ),
    Bug(
        "the newest entry first",
        "portaria.delivery.waiting_entries",
        "        page, cursor = table.query(waiting.pk, sk_until=until, limit=limit, cursor=cursor)\n",
        "        page, cursor = table.query(waiting.pk, sk_until=until, limit=limit, cursor=cursor, newest_first=True)\n",
        ("order",),
    ),
    Bug(
        "records for a busy destination wait in SQS, however long",
        "portaria.delivery.stages.record_outcomes",
        "            if not self._is_drain and not destination.is_paused and needed_s <= LONGEST_IN_QUEUE_S:\n",
        "            if not self._is_drain and not destination.is_paused:\n",
        ("busy",),
    ),
    Bug(
        "records that failed wait in SQS, however long",
        "portaria.delivery.stages.record_outcomes",
        "            if wait_s <= LONGEST_IN_QUEUE_S and not self._is_drain:\n",
        "            if not self._is_drain:\n",
        ("failing",),
    ),
)
# Bugs that are found quickly, one of each kind.
QUICK = (
    "an entry deleted before its records are dealt with",
    "new records overtake those that wait",
    "records for a busy destination wait in SQS, however long",
)


def seek(bug: Bug, limit: int) -> str:
    """The message of the first run that fails, of at most this many; empty if none does."""
    with planted(bug):
        match bug.scenarios:
            case ("runs",):
                for seed in range(limit):
                    _, broken = runs.attempt_all([seed])
                    if broken:
                        return broken[0]
                return ""
            case (name,):
                return waiting_runs.attempt(name)
    return ""
