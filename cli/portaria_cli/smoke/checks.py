"""Everything that a smoke run checks, in its order."""

from __future__ import annotations

from collections.abc import Callable

from portaria_cli.smoke import flows, stack_parts
from portaria_cli.smoke.flows import Result
from portaria_cli.smoke.run import Run

CHECKS: dict[str, Callable[[Run], Result]] = {
    "unknown-client": flows.unknown_client,
    "forged-code": flows.forged_code,
    "private-integration": flows.private_integration,
    "outbound-call": flows.outbound_call,
    "front-door": flows.front_door,
    "functions": stack_parts.functions,
    "event-sources": stack_parts.event_sources,
    "schedules": stack_parts.schedules,
    "dead-letter-queues": stack_parts.dead_letter_queues,
    "indexes": stack_parts.indexes,
    "alarm-topic": stack_parts.alarm_topic,
}
