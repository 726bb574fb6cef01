"""A part of stage 1: convert each record to the attributes that its destination accepts. Reads destinations, writes nothing.

`map_records` runs while a message is read, so that its data need not stay in memory. `outgoing_records` takes the result after
stage 2: a record that is left out as older becomes no dead letter, and does not hold its message.
"""

from __future__ import annotations

from typing import Any

from portaria.core.errors import Rejected
from portaria.core.unexpected_errors import log_unexpected
from portaria.delivery.stages.batch_state import BatchDestinations, BatchOutcome, MappedRecords, ResolvedRoute
from portaria.delivery.stages.undelivered import Undelivered
from portaria.records.mapping.record_mapping import OutgoingRecord, RejectedRecord, Source


def map_records(
    route: ResolvedRoute, sources: list[Source], data_of: list[dict[str, Any]], destinations: BatchDestinations
) -> MappedRecords:
    """What becomes of a message's records on one route. `data_of` has the data of each source. Raises nothing."""
    mapped = MappedRecords()
    refused = route.refused
    if not refused:
        try:
            platform = destinations.get(route.target).platform
        except Rejected as rejected:
            refused = rejected
        except Exception as error:  # noqa: BLE001 - these records are not sent and the other routes go on
            log_unexpected("destination_not_read", error, connection=route.target.destination)
            mapped.failed |= {source.number for source in sources}
            return mapped
    if refused:
        for source in sources:
            mapped.refused[source.number] = RejectedRecord((source,), route.name, refused.reason, refused.detail)
        return mapped
    target, name, check, identity = route.target, route.name, platform.check, platform.identity
    mapping, outgoing, names = route.mapping, mapped.outgoing, (route.name,)
    apply = mapping.apply if mapping else _unmapped
    for source, data in zip(sources, data_of, strict=True):
        try:
            attributes = mapping.apply_partial(data)[0] if mapping and source.is_partial else apply(data)
            attributes = check(attributes, target)
            outgoing[source.number] = OutgoingRecord(identity(attributes, target), attributes, (source,), names)
        except Rejected as rejected:
            # An incomplete record may be refused because a value is missing. The complete record, which is read later, decides.
            if not source.is_incomplete:
                mapped.refused[source.number] = RejectedRecord((source,), name, rejected.reason, rejected.detail)
        except Exception as error:  # noqa: BLE001 - this record is not sent and the others go on
            log_unexpected("record_not_mapped", error, route=name)
            mapped.failed.add(source.number)
    return mapped


def outgoing_records(
    mapped: MappedRecords, sources: list[Source], undelivered: Undelivered, outcome: BatchOutcome
) -> list[OutgoingRecord]:
    """Those of a message's records that go on. A refused record becomes a dead letter, and the message of a failed record
    returns to the queue."""
    outgoing: list[OutgoingRecord] = []
    for source in sources:
        if (one := mapped.outgoing.get(source.number)) is not None:
            outgoing.append(one)
        elif (refused := mapped.refused.get(source.number)) is not None:
            undelivered.refuse(refused)
        elif source.number in mapped.failed:
            outcome.hold(source.message.id)
    return outgoing


def _unmapped(data: dict[str, Any]) -> dict[str, Any]:
    return data
