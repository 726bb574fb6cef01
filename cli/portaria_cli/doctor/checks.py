"""Everything that the doctor looks at, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from portaria_cli.doctor import data, network, stack
from portaria_cli.doctor.deployment import Deployment
from portaria_cli.doctor.findings import Finding

Check = Callable[[Deployment], Iterator[Finding]]

# The stack first: whatever comes after it is looked for in it.
CHECKS: dict[str, Check] = {
    "stack": stack.stack,
    "clock": network.time,
    "functions": stack.functions,
    "roles": stack.roles,
    "concurrency": stack.concurrency,
    "event sources": stack.sources,
    "table": stack.table,
    "queues": stack.queues,
    "schedules": stack.schedules,
    "alarms": stack.alarms,
    "API": network.api,
    "event webhooks": network.event_webhooks,
    "OAuth clients": data.clients,
    "API domains": data.api_domains,
    "secrets": data.secrets,
    "connections": data.states,
    "domains": data.wildcards,
    "private integrations": data.scopes,
    "refused renewals": data.refused,
    "destinations": data.parked,
    "dead letters": data.letters,
    "Adobe's events": data.receipts,
    "platforms": network.platforms,
}
