"""Subscribing an account's event webhooks again: platforms end subscriptions whose destination failed too often.

Subscribing is idempotent. An idle account is subscribed less often, because each subscription is a request.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from portaria import platforms
from portaria.aws.table import Conflict, Table
from portaria.connections import oauth_clients
from portaria.connections.request_budget import BudgetExhausted
from portaria.core import clock
from portaria.core.errors import Rejected, Retryable
from portaria.installs import event_subscriptions
from portaria.records import reconciliation_wakeups
from portaria.sources.page_reader import PageReader

logger = logging.getLogger(__name__)

AGAIN = timedelta(hours=1)
IDLE_AGAIN = timedelta(days=1)
KEPT_FOR = timedelta(days=2)
# The sort key of an account's last subscription, beside its reconciliations: no object's name is in capitals.
SK = "WEBHOOKS"


def subscribe(reader: PageReader, *, is_idle: bool, endpoints: str) -> None:
    """Subscribe the event webhooks of the reader's account, at most once an hour, or once a day if it is idle.

    `endpoints` is read by `webhook_endpoints.base_urls`; when they have changed, the account is subscribed in any
    case. A failure is only logged. Raises `BudgetExhausted`.
    """
    connection, table = reader.connection, reader.table
    again = IDLE_AGAIN if is_idle else AGAIN
    if not platforms.load(connection.platform).webhook_subscriptions or not _claim(
        table, connection.name, again, endpoints
    ):
        return
    try:
        credentials = reader.token_provider.token(connection).credentials
        if "webhook_key" not in credentials:
            return
        client = oauth_clients.get(table, connection.platform, connection.client)
        event_subscriptions.subscribe(table, connection, client, credentials, reader.send, endpoints=endpoints)
    except BudgetExhausted:
        # Nothing was sent, so the next reading may subscribe.
        table.delete(*reconciliation_wakeups.key(connection.name, SK))
        raise
    except (Rejected, Retryable) as refused:
        facts = {"connection": connection.name, "reason": refused.reason}
        logger.warning("webhook_subscription_failed", extra=facts)


def _claim(table: Table, connection: str, again: timedelta, endpoints: str) -> bool:
    """Whether it is time to subscribe: also at the first reading after the stack's endpoints have changed."""
    now = clock.now()
    try:
        table.update(
            *reconciliation_wakeups.key(connection, SK),
            "SET subscribed_at = :now, expires_at = :forgotten, endpoints = :endpoints",
            condition="attribute_not_exists(pk) OR subscribed_at <= :before OR attribute_not_exists(endpoints) "
            "OR endpoints <> :endpoints",
            values={
                ":now": clock.to_iso(now),
                ":before": clock.to_iso(now - again),
                ":endpoints": endpoints,
                ":forgotten": int((now + KEPT_FOR).timestamp()),
            },
        )
    except Conflict:
        return False
    return True
