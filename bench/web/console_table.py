"""A large table in memory for the console: filled, counted, and served as DynamoDB over TLS in a process of its own.

It counts the read units of each request by the rules of DynamoDB:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
"""

from __future__ import annotations

import base64
import json
import math
import re
import threading
from bisect import bisect_left
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.functions import aws_stub
from portaria.aws import table as table_module
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.entities import Connection, Route
from portaria.core.item_keys import install_key, install_lists, install_places
from portaria.core.settings import CountStatesSettings
from portaria.delivery import destination_pause, quotas
from portaria.delivery.destination_pause import PauseReason
from portaria.overview import count_run
from portaria.records import dead_letters, receipts, routes
from portaria.records.dead_letters import Letter
from tests.simulation.aws import cloud as simulated
from tests.simulation.aws import limits
from tests.simulation.aws.cloud import TABLE, Client, Cloud, DynamoDB, Stored

CONNECTIONS, LETTERS, RECEIPTS, INSTALLS = 10_000, 5_000, 100_000, 2_000
UNIT_BYTES = 4_096
MUNCHKIN = "123-ABC-456"
DESTINATION = "marketo-main"
REASONS = ("no_dedupe_value", "refused_by_destination", "not_permitted", "too_large", "gave_up")
# Services by the prefix of `X-Amz-Target`.
SERVICES = {
    "DynamoDB_20120810": "dynamodb",
    "secretsmanager": "secretsmanager",
    "TrentService": "kms",
    "AmazonSQS": "sqs",
}
# Indexes that hold keys only.
KEYS_ONLY = {"by_filter"}


class Metered(DynamoDB):
    """DynamoDB in memory that adds up read units."""

    units = 0.0

    def get_item(self, **call: Any) -> dict[str, Any]:  # type: ignore[override]
        answer = super().get_item(**call)
        self._count([_size(answer["Item"])] if "Item" in answer else [], call.get("ConsistentRead", False))
        return answer

    def batch_get_item(self, **call: Any) -> dict[str, Any]:  # type: ignore[override]
        answer = super().batch_get_item(**call)
        ((name, asked),) = call["RequestItems"].items()
        sizes = [_size(item) for item in answer["Responses"].get(name, [])]
        for size in sizes + [0] * (len(asked["Keys"]) - len(sizes)):
            self._count([size], asked.get("ConsistentRead", False))
        return answer

    def query(self, **call: Any) -> dict[str, Any]:  # type: ignore[override]
        index = call.get("IndexName", "")
        pk_name, sk_name = table_module.INDEXES[index]
        values = {name: value["S"] for name, value in call["ExpressionAttributeValues"].items()}
        view = self.cloud.view(index) if index else self._readable(call.get("ConsistentRead", False))
        entries = view.partitions.get(values[":pk"], [])
        at, end = _bounds(entries, call["KeyConditionExpression"], values)
        forward = call.get("ScanIndexForward", True)
        if start := call.get("ExclusiveStartKey"):
            place = (start[sk_name]["S"], (start["pk"]["S"], start["sk"]["S"]))
            found = bisect_left(entries, place)
            at, end = (
                (max(at, found + (entries[found : found + 1] == [place])), end) if forward else (at, min(end, found))
            )
        items: list[Stored] = []
        size, last = 0, None
        for number in range(at, end) if forward else range(end - 1, at - 1, -1):
            item = view.items[entries[number][1]]
            length = _key_size(item, pk_name, sk_name) if index in KEYS_ONLY else item.size
            if items and size + length > limits.PAGE_BYTES:
                last = items[-1]
                break
            items.append(item)
            size += length
            if len(items) == call.get("Limit"):
                last = item
                break
        self._count([size], call.get("ConsistentRead", False))
        key = {name: last[name] for name in {"pk", "sk", pk_name, sk_name}} if last else None
        return {"Items": [_projected(item, call, index) for item in items]} | ({"LastEvaluatedKey": key} if key else {})

    def _count(self, sizes: list[int], consistent: bool) -> None:
        self.units += max(1, math.ceil(sum(sizes) / UNIT_BYTES)) * (1.0 if consistent else 0.5)


def _bounds(entries: list[Any], condition: str, values: dict[str, str]) -> tuple[int, int]:
    first, last = values.get(":sk", ""), values.get(":last", "")
    if "begins_with" in condition:
        return bisect_left(entries, (first,)), bisect_left(entries, (first + "\U0010ffff",))
    if "BETWEEN" in condition:
        return bisect_left(entries, (first,)), bisect_left(entries, (last + "\0",))
    if ">=" in condition:
        return bisect_left(entries, (first,)), len(entries)
    return 0, bisect_left(entries, (last + "\0",)) if "<=" in condition else len(entries)


def _size(item: Any) -> int:
    return item.size if isinstance(item, Stored) else limits.item_size(item)


def _key_size(item: Stored, pk_name: str, sk_name: str) -> int:
    return limits.item_size({name: item[name] for name in {"pk", "sk", pk_name, sk_name}})


def _projected(item: Stored, call: dict[str, Any], index: str) -> Any:
    names = call.get("ExpressionAttributeNames", {})
    wanted = [names[each.strip()] for each in call.get("ProjectionExpression", "").split(",") if each.strip()]
    if index in KEYS_ONLY:
        wanted = ["pk", "sk", *table_module.INDEXES[index]]
    return {name: item[name] for name in wanted if name in item} if wanted else item


# ------------------------------------------------------------------------------------------------------------------- contents


def fill(cloud: Cloud) -> None:
    table, now = Table(TABLE), clock.now()
    _connections(table, now)
    routes.put(table, Route("people", "client:kommo/acme", "contacts", DESTINATION, {}), new=True)
    for number in range(LETTERS):
        made = Letter(
            f"{number:032x}", f"kommo-acme-{number}", "people", "contacts", "event", REASONS[number % 5 * (number % 3) % 5],
            "the record has no value for email", [{"key": str(number), "data": {"name": "Ana Souza"}}],
            destination=DESTINATION, set_aside_at=clock.to_iso(now - timedelta(minutes=10 * number)),
        )  # fmt: skip
        dead_letters.put(table, made)
    _receipts(cloud, table, now)
    for number in range(INSTALLS):
        received_at = clock.to_iso(now - timedelta(minutes=5 * number))
        state = "failed" if number % 20 == 7 else "exchanging" if number == 1 else "connected"
        install_id = f"{number:026d}"
        pk, sk = install_key(install_id)
        item = {
            "pk": pk, "sk": sk, "state": state, "platform": "kommo", "client": "acme", "attempts": 1,
            "account_host": f"a{number}.kommo.com", "received_at": received_at, "connection": f"kommo-acme-{number}",
            **install_lists(state, "kommo", "acme"), **install_places(install_id, received_at),
        }  # fmt: skip
        failed = {"reason": REASONS[number % 3], "detail": "the code was refused", "failed_at": received_at}
        table.put(item | (failed if state == "failed" else {"connected_at": received_at}))
    ledger = quotas.Ledger(table, "America/Chicago")
    for number in range(50):
        ledger.reserve(MUNCHKIN, 10_000_000, {f"kommo-acme-{number}": 80_000}, bulk=False, weights={})
    for name in (DESTINATION, "marketo-spare"):
        destination_pause.begin(table, name, "persons", reason=PauseReason.QUOTA, code="607", for_s=3_600)
    count_run.run(CountStatesSettings(table_name=TABLE, refused_grant_days="7", quota_time_zone="America/Chicago"))


def _connections(table: Table, now: datetime) -> None:
    for number in range(CONNECTIONS - 2):
        state = "needs_reconnect" if number % 50 == 3 else "pending" if number % 500 == 5 else "connected"
        moment = clock.to_iso(now - timedelta(minutes=number % 2_000))
        made = Connection(
            f"kommo-acme-{number}", "kommo", "oauth2", f"a{number}.kommo.com", state, 7, f"portaria/grants/kommo-acme-{number}",
            version_id="0" * 64, label=f"Shop {number}", client="acme", account_id=str(30_000_000 + number),
            scopes="crm notifications", created_at=moment, updated_at=moment, granted_at=moment,
            token_ends_at=clock.to_iso(now + timedelta(hours=20)), tags={"customer_id": f"c-{number}"}, tagged_at=moment,
            refused_since=clock.to_iso(now - timedelta(days=2)) if number == 4_711 else "",
        )  # fmt: skip
        table.put(connection_store.to_item(made))
    for name in (DESTINATION, "marketo-spare"):
        made = Connection(
            name, "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", "connected", 1, f"portaria/grants/{name}",
            fields={"munchkin_id": MUNCHKIN}, account_id=MUNCHKIN, created_at=clock.to_iso(now), granted_at=clock.to_iso(now),
        )  # fmt: skip
        table.put(connection_store.to_item(made))


def _receipts(cloud: Cloud, table: Table, now: datetime) -> None:
    """Copies of one receipt as the product writes it, over 30 days, the oldest first."""
    receipts.open_receipt(
        table, "model", destination=DESTINATION, object="persons", routes=["people"], count=250, size=90_000,
        keys=[f"kommo-acme-1/{number}" for number in range(250)], requests=[],
    )  # fmt: skip
    receipts.accept(table, "model", "request-0")
    model = dict(cloud.items[receipts.key("model")])
    cloud.write(receipts.key("model"), None)
    step = timedelta(days=30) / RECEIPTS
    for number in range(RECEIPTS):
        correlation_id = f"{number:064x}"
        pk, sk = receipts.key(correlation_id)
        sent_at = clock.to_iso(now - step * (RECEIPTS - number))
        state = "applied" if number % 3 else "failed" if number % 30 == 0 else "accepted"
        changes = {"pk": pk, "correlation_id": correlation_id, "sent_at": sent_at, "state": state}
        changes |= {
            "list_sk": f"{sent_at}#{correlation_id}",
            "request_id": f"request-{number}",
            "source": f"request:{number}",
        }
        cloud.write((pk, sk), model | {name: {"S": text} for name, text in changes.items()})


# -------------------------------------------------------------------------------------------------------------------- serving


def serve(pipe: Any, directory: Path) -> None:
    """Sends the port, and then the read units since the last question each time that something is received."""
    cloud = Cloud()
    metered = Metered(cloud)
    cloud.clients["dynamodb"] = Client(cloud, "dynamodb", metered)
    with simulated.installed(lambda: cloud), patch.object(table_module, "MAX_CONCURRENT", 1):
        fill(cloud)
    lock = threading.Lock()

    def answer(target: str, body: bytes) -> bytes:
        service, _, name = target.partition(".")
        operation = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        call = json.loads(body, object_hook=_bytes)
        with lock:
            return json.dumps(getattr(cloud.client(SERVICES[service]), operation)(**call), default=_base64).encode()

    def count() -> None:
        while pipe.recv():
            pipe.send(metered.units)
            metered.units = 0.0

    threading.Thread(target=count, daemon=True).start()
    aws_stub.main(directory, answer, pipe.send)


def _bytes(read: dict[str, Any]) -> dict[str, Any]:
    """In JSON, the bytes of items and of KMS calls are base64."""
    for name in ("B", "CiphertextBlob", "Plaintext"):
        if isinstance(read.get(name), str):
            read[name] = base64.b64decode(read[name])
    return read


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode()
