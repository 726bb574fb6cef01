"""Queue the messages that were kept in the table: arrivals that SQS refused, and claims. A schedule runs this."""

from __future__ import annotations

from portaria.aws import queues
from portaria.aws.table import Table
from portaria.core.settings import SweepArrivalsSettings
from portaria.installs.install_messages import read_claim, read_message
from portaria.webhooks.install_receiver import ARRIVALS, UNPROVEN_ARRIVALS


def sweep_arrivals(settings: SweepArrivalsSettings) -> int:
    """Queue the messages that were kept in the table, proven arrivals first, and delete each once it is queued.

    Returns how many. After a death between the two, one is queued twice, which is harmless: a code is exchanged once, and a
    claim is applied once.
    Raises `Retryable` while the queue refuses them.
    """
    table, swept = Table(settings.table_name), 0
    for kept_in, queue_url in (
        (ARRIVALS, settings.exchanges_queue_url),
        (UNPROVEN_ARRIVALS, settings.unproven_exchanges_queue_url),
    ):
        for item in table.query_all(kept_in):
            tenant = "" if read_claim(item["body"]) else read_message(item["body"]).address_hash
            queues.send(queue_url, [item["body"]], tenant=tenant)
            table.delete(item["pk"], item["sk"])
            swept += 1
    return swept
