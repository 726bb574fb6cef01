"""The Observability Data Stream: CloudEvents with the outcome of requests and with the remaining quota."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

from local.simulators.marketo.bodies import PRIORITIES
from local.simulators.marketo.instance import Instance
from local.simulators.marketo.responses import iso


def take_events(instance: Instance, now: float) -> list[dict[str, Any]]:
    """An event for each accepted request with new outcomes since the last call, and one event with the remaining quota."""
    events = []
    for report in [each for each in instance.reports.values() if each.created or each.updated or each.failed]:
        counts = {
            "received": report.received,
            "created": report.created,
            "updated": report.updated,
            "failed": dict(report.failed),
        }
        request = {
            "requestId": report.request_id,
            "requestTime": iso(report.requested_at),
            "clientId": "api-user@marketo.example",
            "correlationId": report.correlation_id,
            "requestSource": report.request_source,
            "objectType": report.object,
            "priority": report.priority,
            "records": counts,
        }
        events.append(cloud_event(instance, "results", {"requests": [request]}, now))
        report.created = report.updated = 0
        report.failed = Counter()
        if not report.waiting:
            del instance.reports[report.request_id]
    queue = {priority: {"lagSeconds": 0, "requestBacklog": 0, "recordBacklog": 0} for priority in PRIORITIES}
    remaining = max(0, instance.daily_quota - instance.quota_used)
    return [*events, cloud_event(instance, "status", {"quota": remaining, "queue": queue}, now)]


def cloud_event(instance: Instance, kind: str, data: dict[str, Any], now: float) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "specversion": "1.0",
        "type": f"com.adobe.platform.marketo.observability.{kind}",
        "source": "urn:data_ingestion_service",
        "time": iso(now),
        "datacontenttype": "application/json",
        "data": {"munchkinId": instance.munchkin.upper(), **data},
    }
