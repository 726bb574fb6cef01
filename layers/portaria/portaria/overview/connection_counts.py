"""Counts of connections by state, the grants that end soonest, and the connections whose platform has a daily quota."""

from __future__ import annotations

import heapq
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from portaria import platforms
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.overview.stored_counts import Count, Reader

SOONEST = 10
MAX_SUBSCRIPTIONS = 20
# Of connections that take records from programs. The item of a part has at most 400 KB.
MAX_RECEIVERS = 1_000
# Why a grant ends: the platform refuses to renew it, or it is not used.
REFUSED, UNUSED = "refused", "unused"
# What a connection is read from here; without its scopes and tags, which are long.
_ATTRIBUTES = (
    "name", "platform", "kind", "allowed_domain", "state", "generation", "secret_id", "label", "client", "account_id",
    "updated_at", "refused_since", "fields",
)  # fmt: skip


def count(reader: Reader, refused_grant_days: int) -> Count:
    """Raises what AWS raises."""
    states: Counter[str] = Counter()
    ends: list[tuple[datetime, str, dict[str, Any]]] = []
    subscriptions: dict[str, dict[str, Any]] = {}
    receivers: list[str] = []
    for item in reader.items(connection_store.LIST, _ATTRIBUTES):
        connection = connection_store.read(item)
        states[connection.state] += 1
        quota = platforms.load(connection.platform).daily_quota
        if quota and len(receivers) < MAX_RECEIVERS:
            # Whatever its state: it may have received records before.
            receivers.append(connection.name)
        if connection.state != "connected":
            continue
        if end := grant_end(connection, refused_grant_days):
            ends_at, cause = end
            grant = {"connection": connection.name, "platform": connection.platform, "label": connection.label}
            ends.append((ends_at, connection.name, grant | {"ends_at": clock.to_iso(ends_at), "cause": cause}))
        if quota and len(subscriptions) < MAX_SUBSCRIPTIONS:
            names = {"connection": connection.name, "quota": quota.DAILY_QUOTA}
            subscriptions.setdefault(quota.subscription(connection), names)
    grants = [grant for _, _, grant in heapq.nsmallest(SOONEST, ends, key=lambda each: each[:2])]
    content = {"states": dict(states), "grants": grants, "subscriptions": subscriptions, "receivers": receivers}
    return reader.count(content)


def grant_end(connection: Connection, refused_grant_days: int) -> tuple[datetime, str] | None:
    """When a connected grant ends unless it is renewed, and why; None if no end is known."""
    endpoint = platforms.load(connection.platform).token_endpoint
    ends: list[tuple[datetime, str]] = []
    if connection.refused_since:
        ends.append((clock.from_iso(connection.refused_since) + timedelta(days=refused_grant_days), REFUSED))
    if endpoint and endpoint.REFRESH_LIFE and connection.kind == "oauth2" and connection.updated_at:
        ends.append((clock.from_iso(connection.updated_at) + endpoint.REFRESH_LIFE, UNUSED))
    return min(ends, default=None)
