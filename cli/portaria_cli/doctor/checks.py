"""Everything that the doctor looks at, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from portaria.overview.findings import Finding
from portaria_cli.doctor import data, network, stack
from portaria_cli.doctor.deployment import Deployment

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
    "OAuth clients": data.of_stored("OAuth clients"),
    "API domains": data.of_stored("API domains"),
    "secrets": data.secrets,
    "connections": data.of_stored("connections"),
    "renewals": data.renewals,
    "domains": data.of_stored("domains"),
    "private integrations": data.of_stored("private integrations"),
    "refused renewals": data.of_stored("refused renewals"),
    "destinations": data.of_stored("destinations"),
    "hosts": data.of_stored("hosts"),
    "dead letters": data.of_stored("dead letters"),
    "Adobe's events": data.receipts,
    "platforms": network.platforms,
}
