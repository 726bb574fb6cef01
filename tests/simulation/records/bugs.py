"""Bugs planted in the code that stores waiting records, one at a time. A simulation of records must catch each."""

from __future__ import annotations

from tests.simulation.bugs import Bug, planted
from tests.simulation.records import many_routes, runs, silent_runs, waiting_runs

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
        "        kept = failed | {entry.place for entry in entries if entry.place in outcome.held}\n",
        "        kept = failed\n",
        ("runs",),
    ),
    Bug(
        "records of a message replace its others that wait",
        "portaria.delivery.waiting_entries",
        '        return f"{self.order:015d}#{self.message.id}#{self.route}#{digest}#"\n',
        '        return f"{self.order:015d}#{self.message.id}#{self.route}#{digest[:0]}#"\n',
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
    Bug(
        "a host that does not answer is not paused",
        "portaria.delivery.stages.host_gate",
        "        if lost.pauses_host and host_pauses.begin(self._table, name):\n",
        "        if not lost and host_pauses.begin(self._table, name):\n",
        ("silent", "platform"),
    ),
    Bug(
        "a few silent destinations pause all others of their host",
        "portaria.delivery.host_pauses",
        "        return len(self.by_destination) >= HOST_DESTINATIONS and sum",
        "        return len(self.by_destination) >= 1 and sum",
        ("silent", "locations"),
    ),
    Bug(
        "every worker tries a host whose pause has passed",
        "portaria.delivery.host_pauses",
        "    until = int(clock.now().timestamp() + PROBE_S)\n",
        "    until = int(clock.now().timestamp())\n",
        ("silent", "platform"),
    ),
    Bug(
        "a destination that does not answer is tried with each record",
        "portaria.delivery.stages.record_outcomes",
        "        if not answered.silent_for_s:\n",
        "        if not answered.silent_for_s or destination.connection.name:\n",
        ("silent", "locations"),
    ),
    Bug(
        "workers do not share the rate limit of a location",
        "portaria.connections.request_budget",
        "    _sleep_until(_destination(table.name, connection.platform, connection.name, per_s).claim(priority.rules))\n",
        "    _sleep_until(clock.now().timestamp())\n",
        ("silent", "rate"),
    ),
    Bug(
        "equal requests for two objects share a receipt",
        "portaria.records.receipts",
        '    digest = hashlib.sha256(f"{destination}\\n{object_name}".encode())\n',
        "    digest = hashlib.sha256(destination.encode())\n",
        ("many_routes",),
    ),
    Bug(
        "merged records wait for the route of the newest",
        "portaria.delivery.stages.undelivered",
        "            for source, route in one.origins:\n",
        "            for source, route in [(source, one.routes[-1]) for source in one.sources]:\n",
        ("many_routes",),
    ),
    Bug(
        "a failure is counted before the next try is due",
        "portaria.delivery.retry_schedule",
        '            if (again_at := int(known.get("again_at", 0))) > now_ms:\n',
        '            if (again_at := int(known.get("again_at", 0))) > now_ms * 2:\n',
        ("many_routes",),
    ),
    Bug(
        "waiting records are counted again with each redelivery",
        "portaria.delivery.stages.undelivered",
        "            return len(held.records) if waiting_entries.put(self.table, held) else 0\n",
        "            return len(held.records) if waiting_entries.put(self.table, held) is not None else 0\n",
        ("many_routes",),
    ),
)


def seek(bug: Bug, limit: int) -> str:
    """The message of the first run that fails, of at most this many; empty if none does."""
    with planted(bug):
        match bug.scenarios:
            case ("runs" | "many_routes" as kind,):
                attempt_all = runs.attempt_all if kind == "runs" else many_routes.attempt_all
                for seed in range(limit):
                    _, broken = attempt_all([seed])
                    if broken:
                        return broken[0]
                return ""
            case ("silent", name):
                return silent_runs.attempt(name)
            case (name,):
                return waiting_runs.attempt(name)
    return ""
