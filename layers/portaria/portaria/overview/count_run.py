"""One run of `count_states`: the parts of the overview that are due are counted and stored, independently of one another."""

from __future__ import annotations

from collections.abc import Callable
from zoneinfo import ZoneInfo

from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.settings import CountStatesSettings
from portaria.core.unexpected_errors import log_unexpected
from portaria.overview import connection_counts, install_counts, record_counts, stored_counts
from portaria.overview.stored_counts import Count, Reader


def run(settings: CountStatesSettings) -> list[str]:
    """Count what is due, and return the names of the parts. A part that fails keeps its count, and is logged."""
    table, now = Table(settings.table_name), clock.now()
    known = stored_counts.load(table)
    counted: list[str] = []

    def renew(part: str, count: Callable[[Reader], Count]) -> None:
        if part in known and not known[part].is_due(now):
            return
        try:
            known[part] = count(Reader(table))
            stored_counts.put(table, part, known[part])
        except Exception as error:  # noqa: BLE001 - one part must not block the others
            log_unexpected("part_not_counted", error, part=part)
        else:
            counted.append(part)

    renew(stored_counts.INSTALLS, lambda reader: install_counts.count(reader, now))
    renew(stored_counts.CONNECTIONS, lambda reader: connection_counts.count(reader, int(settings.refused_grant_days)))
    renew(stored_counts.DEAD_LETTERS, record_counts.count_dead_letters)
    connections = known.get(stored_counts.CONNECTIONS)
    subscriptions = connections.content["subscriptions"] if connections else {}
    # A count of an earlier release has no receivers.
    receivers = connections.content.get("receivers", []) if connections else []
    zone = ZoneInfo(settings.quota_time_zone)
    renew(stored_counts.QUOTAS, lambda reader: record_counts.count_quotas(reader, subscriptions, zone, now))
    renew(stored_counts.RECEIPTS, lambda reader: record_counts.count_receipts(reader, receivers, now))
    return counted
