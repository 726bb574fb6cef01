"""Stage 3, map: convert each record to the attributes that its destination accepts. Reads destinations, writes nothing."""

from __future__ import annotations

from typing import Any

from portaria.core.errors import Rejected
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery.stages.batch_state import BatchDestinations, BatchOutcome, ResolvedRoute
from portaria.delivery.stages.undelivered import Undelivered
from portaria.records.mapping.record_mapping import OutgoingRecord, RejectedRecord, Source


def map_records(
    route: ResolvedRoute,
    sources: list[Source],
    destinations: BatchDestinations,
    undelivered: Undelivered,
    outcome: BatchOutcome,
) -> list[OutgoingRecord] | None:
    """The outgoing records of one route, or None if its destination cannot be used.

    A record that cannot be mapped, or that the destination's rules refuse, becomes a dead letter. After an unexpected
    failure its message returns to the queue. Raises nothing.
    """
    refused = route.refused
    if not refused:
        try:
            platform = destinations.get(route.target).platform
        except Rejected as rejected:
            refused = rejected
        except Exception as error:  # noqa: BLE001 - these messages return to the queue and the other routes go on
            log_unexpected("destination_not_read", error, connection=route.target.destination)
            for source in sources:
                outcome.hold(source.message.id)
            return None
    if refused:
        for source in sources:
            undelivered.refuse(RejectedRecord((source,), route.name, refused.reason, refused.detail))
        return None
    target, name, check, identity = route.target, route.name, platform.check, platform.identity
    mapping = route.mapping
    apply = mapping.apply if mapping else _unmapped
    outgoing: list[OutgoingRecord] = []
    for source in sources:
        data = source.record["data"]
        try:
            mapped = mapping.apply_partial(data)[0] if mapping and source.is_partial else apply(data)
            attributes = check(mapped, target)
            outgoing.append(OutgoingRecord(identity(attributes, target), attributes, (source,), name))
        except Rejected as rejected:
            # An incomplete record may be refused because a value is missing. The complete record, which is read later, decides.
            if not source.is_incomplete:
                undelivered.refuse(RejectedRecord((source,), name, rejected.reason, rejected.detail))
        except Exception as error:  # noqa: BLE001 - this message returns to the queue and the others go on
            log_unexpected("record_not_mapped", error, route=name)
            outcome.hold(source.message.id)
    return outgoing


def _unmapped(data: dict[str, Any]) -> dict[str, Any]:
    return data
