"""Everything that the doctor looks at, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from portaria.cli.doctor import contents, outside, resources
from portaria.cli.doctor.deployment import Deployment
from portaria.cli.doctor.findings import Finding

Check = Callable[[Deployment], Iterator[Finding]]

# The stack first: whatever comes after it is looked for in it.
CHECKS: dict[str, Check] = {
    "stack": resources.stack,
    "clock": outside.time,
    "functions": resources.functions,
    "roles": resources.roles,
    "concurrency": resources.concurrency,
    "event sources": resources.sources,
    "table": resources.table,
    "queues": resources.queues,
    "schedules": resources.schedules,
    "alarms": resources.alarms,
    "API": outside.api,
    "OAuth clients": contents.clients,
    "API domains": contents.api_domains,
    "secrets": contents.secrets,
    "connections": contents.states,
    "refused renewals": contents.refused,
    "domains": contents.wildcards,
    "private integrations": contents.scopes,
    "destinations": contents.parked,
    "dead letters": contents.letters,
    "Adobe's events": contents.receipts,
    "platforms": outside.platforms,
}
