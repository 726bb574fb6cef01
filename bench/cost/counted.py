"""What the code does for one event, one batch, one renewal and one reconciliation: counted, not assumed.

The product's own code runs on AWS in memory (tests/simulation/aws/cloud.py). Calls are counted by operation, and the writes of
DynamoDB in units of 1 kB, those of its indexes included.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/capacity-unit-calculations.html
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple
from unittest.mock import patch

from bench.tokens.renewal_sweep import Sweep
from portaria.aws import light_client, table
from portaria.connections import connection_store, oauth_clients
from portaria.connections.tokens import cache, stored_grant
from portaria.core import clock, record_messages
from portaria.core.callbacks import OAuthClient, Record, Secret
from portaria.core.entities import Connection, Grant, Route
from portaria.core.http.messages import Request, Response
from portaria.core.http.request import HttpRequest
from portaria.core.settings import BackfillRecordsSettings, ReceiveEventsSettings
from portaria.delivery.pipeline import QueuedMessage
from portaria.outbound import http_client
from portaria.records import routes
from portaria.sources import reconciliation
from portaria.webhooks import event_receiver
from portaria.webhooks.time_budget import TimeBudget
from tests.fakes.aws.functions import sample
from tests.fakes.records import ingesting
from tests.fakes.records.contacts import DESTINATION, contact
from tests.fakes.virtual_time import VirtualClock
from tests.simulation.aws import limits
from tests.simulation.aws.cloud import Cloud
from tests.simulation.schedule import simulating

# The projection of `by_filter` is its keys; the other indexes hold whole items.
KEYS_ONLY = "by_filter"
READS = {"get_item", "batch_get_item", "query"}
RENEWALS, RECONCILED = 50, 50
# Contacts of a page of Kommo's.
PAGE = 250
API = "https://api.example.com/live"

Item = dict[str, Any]


class Counted(NamedTuple):
    """`calls` by service and operation, `write_units` and `read_units` of DynamoDB."""

    calls: dict[str, float]
    write_units: float
    read_units: float

    def of(self, service: str) -> float:
        return sum(count for name, count in self.calls.items() if name.partition(".")[0] == service)


class Meter:
    """Counts the calls and the written items of a `Cloud` after `begin`. Threads may call `carry` and `item_written`."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.names: list[str] = []
        self.write_units: list[int] = []
        self.read_units: list[int] = []
        # Keys of batch reads that have no item: each costs a unit, and the answer does not have them.
        self.missing: list[int] = []
        operations = cloud.clients["dynamodb"]._operations
        read = operations.batch_get_item

        def count_missing(RequestItems: Item) -> Item:  # noqa: N803
            answer: Item = read(RequestItems)
            (asked,), (found,) = RequestItems.values(), answer["Responses"].values()
            self.missing.append(len(asked["Keys"]) - len(found))
            return answer

        operations.batch_get_item = count_missing

    def begin(self) -> None:
        self.missing.clear()
        self.cloud.carry, self.cloud.item_written = self.carry, self.written

    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        self.names.append(name)
        answer = call()
        if name.startswith("dynamodb.") and name.partition(".")[2] in READS:
            self.read_units.append(read_units(name.partition(".")[2], answer))
        return answer

    def written(self, old: Item, new: Item) -> None:
        self.write_units.append(write_units(old, new))

    def result(self, runs: int = 1) -> Counted:
        """Averages of `runs`."""
        calls = {name: count / runs for name, count in Counter(self.names).items()}
        return Counted(calls, sum(self.write_units) / runs, (sum(self.read_units) + sum(self.missing)) / runs)


def write_units(old: Item, new: Item) -> int:
    """Of one write, by the larger of the two items; an index takes its own units, and two writes if a key changes."""
    units = _kilobytes(max(limits.item_size(old), limits.item_size(new)))
    for index, keys in table.INDEXES.items():
        if not index:
            continue
        before, after = _projected(index, keys, old), _projected(index, keys, new)
        if before == after:
            continue
        moved = before and after and any(before[key] != after[key] for key in keys)
        sizes = [limits.item_size(each) for each in (before, after) if each]
        units += sum(map(_kilobytes, sizes)) if moved else _kilobytes(max(sizes))
    return units


def read_units(operation: str, answer: Any) -> int:
    """Of a read, in units of 4 kB, as if it were consistent; reads that are not cost half of it."""
    if operation == "get_item":
        return max(1, math.ceil(limits.item_size(answer.get("Item", {})) / 4_096))
    if operation == "batch_get_item":
        (found,) = answer["Responses"].values()
        return sum(math.ceil(limits.item_size(item) / 4_096) for item in found)
    return max(1, math.ceil(limits.items_size(answer.get("Items", [])) / 4_096))


def _projected(index: str, keys: tuple[str, str], item: Item) -> Item:
    if not all(key in item for key in keys):
        return {}
    return {name: item[name] for name in ("pk", "sk", *keys)} if index == KEYS_ONLY else item


def _kilobytes(size: int) -> int:
    return max(1, math.ceil(size / 1_024))


def count_batch(records: int, *, bulk: bool = False, warm_batches: int = 2) -> Counted:
    """One batch in `ingest_records`, in a process that has handled others: live messages of one record, or backfilled pages."""
    page = PAGE if bulk else 1
    origin = record_messages.BACKFILL if bulk else record_messages.EVENT
    # On a slow machine, marks would be read again before a late request.
    with VirtualClock().installed(), ingesting.harness() as harness:
        harness.route("people")
        meter = Meter(harness.cloud)
        for batch in range(warm_batches + 1):
            if batch == warm_batches:
                meter.begin()
            first = batch * records + 1
            messages = [
                QueuedMessage(
                    f"m{number}",
                    ingesting.body([contact(each) for each in range(number, number + page)], origin=origin),
                )
                for number in range(first, first + records, page)
            ]
            outcome = harness.ingest(*messages, bulk=bulk)
            if outcome.waiting or outcome.counts["DeadLetters"]:
                raise RuntimeError(f"not every record was sent: {outcome}")
    return meter.result()


def count_front_door(records: int, records_a_call: int) -> Counted:
    """One batch of records that a program sent."""
    target = {"destination": DESTINATION, "object": "persons", "priority": "normal", "options": {"dedupe": "email"}}
    with VirtualClock().installed(), ingesting.harness() as harness:
        meter = Meter(harness.cloud)
        for batch in range(2):
            if batch:
                meter.begin()
            messages = []
            for first in range(batch * records, (batch + 1) * records, records_a_call):
                persons = [
                    Record(str(number), 0, {"email": f"{number}@example.com"})
                    for number in range(first, first + records_a_call)
                ]
                (body,) = record_messages.pack(
                    persons, connection="program", object="persons", origin=record_messages.FRONT_DOOR, read_at=1,
                    request=f"request-{first}", target=target,
                )  # fmt: skip
                messages.append(QueuedMessage(f"m{first}", body))
            outcome = harness.ingest(*messages)
            if outcome.waiting or outcome.counts["DeadLetters"]:
                raise RuntimeError(f"not every record was sent: {outcome}")
    return meter.result()


class Received(NamedTuple):
    """Calls of AWS for one delivery, and the bytes of its log lines."""

    calls: Counter[str]
    log_bytes: int


def count_event(success_logs: str) -> Received:
    """One delivery of Kommo in a process that remembers its address and has just written its summary."""
    calls: Counter[str] = Counter()
    event = sample("receive_events", "kommo_contact_updated")
    path = event["pathParameters"]
    key = event_receiver.Key(event_receiver.digest(path["key"])).text()
    address = {"platform": {"S": "kommo"}, "account_id": {"S": "32427762"}, "keys": {"L": [{"S": key}]}}

    def call(self: light_client.AwsClient, operation: str, payload: Item, *, timeout_s: float) -> Item:
        calls[operation] += 1
        return {"Item": address} if operation == "GetItem" else {}

    settings = ReceiveEventsSettings(table_name="table", records_queue_url="queue", success_logs=success_logs)
    log = io.StringIO()
    with (
        patch.object(light_client.AwsClient, "__init__", lambda self, *_: None),
        patch.object(light_client.AwsClient, "call", call),
        patch.dict("os.environ", POWERTOOLS_SERVICE_NAME="portaria"),
        contextlib.redirect_stdout(log),
    ):
        receiver = event_receiver.EventReceiver(settings)
        for turn in range(2):
            if turn:
                calls.clear()
                log.truncate(0)
                log.seek(0)
            event["requestContext"]["requestTimeEpoch"] = int(time.time() * 1_000)
            request = HttpRequest.from_event(json.loads(json.dumps(event)))
            receiver.receive(request, TimeBudget(0.0, hook_s=event_receiver.HOOK_S, work_s=event_receiver.WORK_S))
    return Received(calls, len(log.getvalue().encode()))


class _MeteredSweep(Sweep):
    """`meter` counts from the sweep on, without the setting up."""

    def _run(self) -> float:
        self.meter = Meter(self.cloud)
        self.meter.begin()
        return super()._run()


def count_renewal(store: str) -> Counted:
    """One renewal of a token whose credentials are in `store`, as the average of a sweep of `RENEWALS`."""
    with simulating():
        sweep = _MeteredSweep(RENEWALS, store)
    if sweep.not_renewed:
        raise RuntimeError(f"{sweep.not_renewed} tokens were not renewed")
    return sweep.meter.result(RENEWALS)


def count_reconciliation(store: str) -> Counted:
    """One reading of an idle account's contacts: it is claimed, finds no change, renews the subscription, and is settled."""
    time_ = VirtualClock()
    with ingesting.harness() as harness, time_.installed(), patch.object(http_client, "send", _answer_of_kommo):
        harness.cloud.credential_store = store
        oauth_clients.put(harness.table, OAuthClient("kommo", "acme", "client", f"{API}/install/kommo/acme"), new=True)
        for number in range(RECONCILED):
            # Secrets Manager accepts 50 writes a second.
            time_.advance(0.05)
            _add_account(harness, f"account-{number}")
        settings = _settings(harness.cloud)
        meter = Meter(harness.cloud)
        for turn in range(2):
            time_.advance(days=2)
            # Another process than two days before.
            cache.PROCESS_CACHE.clear()
            if turn:
                meter.begin()
            bodies = [json.dumps({"reconcile": "due"})]
            while bodies:
                outcome = reconciliation.handle_message(
                    reconciliation.read(json.loads(bodies.pop(0))), settings, lambda: 60.0
                )
                if outcome.state not in ("queued", "reconciled"):
                    raise RuntimeError(f"a reconciliation ended as {outcome.state}")
                bodies += [message.body for message in harness.cloud.queues.pop("backfills", [])]
    return meter.result(RECONCILED)


def _add_account(harness: ingesting.Harness, name: str) -> None:
    """A connected account with a route, credentials, and a reconciliation that is due at some time."""
    vault = harness.cloud.vault()
    grant = Grant(Secret("canary-access"), clock.now() + timedelta(days=90), Secret("canary-refresh"))
    secret_id = vault.grant_id(name)
    vault.create(secret_id, {**stored_grant.to_stored(grant), "webhook_key": Secret("k" * 43)})
    connection = Connection(
        name, "kommo", "oauth2", f"{name}.kommo.com", "connected", 1, secret_id, client="acme", account_id="1001",
        granted_at=clock.to_iso(clock.now()),
    )  # fmt: skip
    connection_store.create(harness.table, connection)
    routes.put(harness.table, Route(f"route-{name}", f"connection:{name}", "contacts", DESTINATION), new=True)
    reconciliation.begin(harness.table, connection, "contacts")


def _answer_of_kommo(request: Request, *, allowed_domain: str, owner: str) -> Response:
    """No contact has changed, and each subscription is accepted."""
    return Response(201, {}, b"{}") if request.method == "POST" else Response(204, {}, b"")


def _settings(cloud: Cloud) -> BackfillRecordsSettings:
    """Intervals and counts have the template's defaults. The other settings are those of the cloud."""
    named = vars(cloud.settings(BackfillRecordsSettings))
    numbers = {name: "30" if "minutes" in name else "0" for name in named if name.endswith(("_minutes", "_addresses"))}
    return BackfillRecordsSettings(**{**named, **numbers})
