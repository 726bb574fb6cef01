"""The stack's resources on moto, in process. Its conditional writes are not atomic: nothing here tests a race."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch
from urllib.parse import urlparse

from moto import mock_aws
from moto.backends import get_backend
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.events.models import EventsBackend
from moto.kms.utils import generate_private_key

from local.template_file import read_template
from portaria.aws import service_clients
from portaria.aws.table import Table
from tests.fakes import published_events
from tests.fakes.aws.direct_calls import ONE_CALL, direct_calls
from tests.fakes.aws.fast_botocore import fast_botocore
from tests.fakes.aws.fast_moto import fast_moto
from tests.fakes.paths import ROOT

TABLE = "portaria"
PREFIX = "portaria"
TEMPLATE = ROOT / "template.yaml"
# moto makes RSA keys for every KMS key, also for one that only encrypts: a tenth of a second each, so one is made for all.
_private_key = cache(generate_private_key)
_call_moto = BotocoreStubber.__call__
_put_events = EventsBackend.put_events


def _call_alone(stubber: BotocoreStubber, *arguments: Any, **named: Any) -> Any:
    with ONE_CALL:
        return _call_moto(stubber, *arguments, **named)


@dataclass(frozen=True)
class Cloud:
    """Where things are; `environment` is what the functions' settings read."""

    environment: dict[str, str]

    @property
    def table(self) -> Table:
        return Table(TABLE)

    def receive(self, queue: str) -> list[str]:
        """Take all messages off a queue (`exchanges`, `backfills`, `records`, `bulk_records`, `heard`)."""
        sqs, url, bodies = service_clients.client("sqs"), self.url(queue), []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                bodies.append(message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def url(self, queue: str) -> str:
        return str(service_clients.client("sqs").get_queue_url(QueueName=queue)["QueueUrl"])


@cache
def _table_properties() -> dict[str, Any]:
    properties: dict[str, Any] = read_template()["Resources"]["Table"]["Properties"]
    return {
        name: properties[name]
        for name in ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
    }


QUEUES = (
    "exchanges", "unproven_exchanges", "deferred_exchanges",
    "backfills", "records", "bulk_records", "waiting_records", "records_dead_letters", "renewals", "uninstalls",
    "heard", "webhook_events", "webhook_deliveries", "slow_webhook_deliveries",
)  # fmt: skip


@contextmanager
def cloud() -> Iterator[Cloud]:
    """A fresh stack: the table as the template has it, queues, a bus whose every event lands in the queue `heard`, a key.

    Each event that was put on the bus must be as the catalogue says.
    """
    faults: list[str] = []

    def put_events(backend: EventsBackend, events: list[dict[str, Any]]) -> Any:
        for entry in events:
            faults.extend(published_events.faults(entry["DetailType"], json.loads(entry["Detail"])))
        return _put_events(backend, events)

    with (
        patch.object(EventsBackend, "put_events", put_events),
        fast_moto(),
        mock_aws(),
        fast_botocore(),
        direct_calls(),
        patch("moto.kms.models.generate_private_key", _private_key),
        patch.object(BotocoreStubber, "__call__", _call_alone),
        # moto answers boto3's clients in process. `tests/unit/aws/test_json_client.py` compares the others with them.
        patch.object(service_clients, "client", service_clients.boto3_client),
    ):
        service_clients.client("dynamodb").create_table(TableName=TABLE, **_table_properties())
        # Without the calls, which would take half of the time that a fresh stack takes.
        backend = get_backend("sqs")[DEFAULT_ACCOUNT_ID][service_clients.client("sqs").meta.region_name]
        queues = {name: backend.create_queue(name, VisibilityTimeout="0") for name in QUEUES}
        urls = {
            name: queue.url(urlparse(f"https://sqs.{queue.region}.amazonaws.com/")) for name, queue in queues.items()
        }
        events = service_clients.client("events")
        events.create_event_bus(Name="portaria")
        events.put_rule(Name="all", EventBusName="portaria", EventPattern='{"source": ["portaria"]}')
        heard = {"Id": "heard", "Arn": queues["heard"].queue_arn}
        events.put_targets(Rule="all", EventBusName="portaria", Targets=[heard])
        key_id = service_clients.client("kms").create_key()["KeyMetadata"]["KeyId"]
        yield Cloud(
            {
                "TABLE_NAME": TABLE,
                "SECRETS_PREFIX": PREFIX,
                "BUS_NAME": "portaria",
                "SEALING_KEY_ID": key_id,
                "CREDENTIAL_STORE": "secrets-manager",
                "EXCHANGES_QUEUE_URL": urls["exchanges"],
                "UNPROVEN_EXCHANGES_QUEUE_URL": urls["unproven_exchanges"],
                "DEFERRED_EXCHANGES_QUEUE_URL": urls["deferred_exchanges"],
                "BACKFILLS_QUEUE_URL": urls["backfills"],
                "RECORDS_QUEUE_URL": urls["records"],
                "BULK_RECORDS_QUEUE_URL": urls["bulk_records"],
                "WAITING_RECORDS_QUEUE_URL": urls["waiting_records"],
                "WEBHOOK_EVENTS_QUEUE_URL": urls["webhook_events"],
                "WEBHOOK_DELIVERIES_QUEUE_URL": urls["webhook_deliveries"],
                "SLOW_WEBHOOK_DELIVERIES_QUEUE_URL": urls["slow_webhook_deliveries"],
                "RECORDS_DEAD_LETTERS_URL": urls["records_dead_letters"],
                "SHARED_OUTBOUND_ADDRESSES": "0",
                "RECONCILE_EVERY_MINUTES": "30",
                "EVENT_ENDPOINTS": "api",
                "SUCCESS_LOGS": "each",
                "RECONCILE_IDLE_EVERY_MINUTES": "720",
                "RETRY_AFTER_MINUTES": "5,30,30",
                "QUOTA_TIME_ZONE": "America/Chicago",
                "ADOBE_CLIENT_ID": "4f1c2a9b8e7d4c3b",
                "REFUSED_GRANT_DAYS": "7",
                "RENEWALS_QUEUE_URL": urls["renewals"],
                "UNINSTALLS_QUEUE_URL": urls["uninstalls"],
                "PRIVATE_INTEGRATION_MANAGERS": "administrators",
                "STACK_NAME": "portaria",
                "QUEUE_NAMES": ",".join(f"{name}={name}" for name in ("exchanges", "records", "backfills", "renewals")),
                "CALL_CONNECTION_FUNCTION": "arn:aws:lambda:us-east-1:123456789012:function:call_connection:live",
            }
        )
    assert not faults, faults
