"""AWS in memory, behind the interface of boto3's clients: DynamoDB, Secrets Manager, KMS, SQS, EventBridge.

`Cloud.carry` wraps every call, so that a simulation can let other workers run, or inject a fault. Errors are real botocore
errors. `limits` has the documented limits that are enforced here. Not thread-safe: it is for greenlets, which switch only
where they are asked to.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import md5
from typing import Any, ClassVar
from unittest.mock import patch

from botocore.exceptions import ClientError

from portaria.aws import attribute_values, service_clients, table
from portaria.connections.credential_stores.protocol import IN_TABLE, SECRETS_MANAGER, store_name
from portaria.connections.vault import SealedTable, Vault
from portaria.core import clock
from portaria.core.settings import Environment
from tests.fakes import published_events
from tests.simulation.aws import expressions, limits
from tests.simulation.aws.expressions import Invalid, Item, UnknownSyntax, Values

TABLE = "portaria"
PREFIX = "portaria"
BUS = "portaria"
KEY_ID = "sealing-key"
DEFAULT_RECOVERY_DAYS = 30
# The view of the table that eventually consistent reads have.
REPLICA = "replica"
KEY_ARN = f"arn:aws:kms:us-east-1:000000000000:key/{KEY_ID}"
_BATCH_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_GROUP_ID = re.compile(r"[\x21-\x7e]{1,128}")
MAX_MESSAGE_BYTES = 1_048_576

Carry = Callable[[str, Callable[[], Any]], Any]


def error(code: str, operation: str, message: str = "", **more: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message or code}, **more}, operation)


class Stored(dict[str, expressions.Value]):
    """An item of the table. It is immutable, so that its plain form and its size are computed only once."""

    __slots__ = ("plain", "size")

    def __init__(self, item: Item) -> None:
        super().__init__(item)
        self.plain: dict[str, Any] | None = None
        self.size = limits.item_size(item)


class View:
    """The table or one of its indexes, as a reader sees it: items by key, and the partitions of an index in order.

    `table.INDEXES` names the indexes. The view `REPLICA` is what an eventually consistent read of the table sees.
    """

    def __init__(self, name: str) -> None:
        self.pk_name, self.sk_name = table.INDEXES[name]
        self.items: dict[tuple[str, str], Stored] = {}
        # (sort key, key of the item), sorted.
        self.partitions: dict[str, list[tuple[str, tuple[str, str]]]] = {}

    def copy(self, name: str) -> View:
        other = View(name)
        other.items = dict(self.items)
        other.partitions = {pk: list(entries) for pk, entries in self.partitions.items()}
        return other

    def put(self, key: tuple[str, str], new: Stored | None) -> None:
        if key not in self.items and (new is None or self.pk_name not in new):
            return
        before = _place(self.items.get(key), self.pk_name, self.sk_name)
        after = _place(new, self.pk_name, self.sk_name)
        if before != after:
            if before:
                entries = self.partitions[before[0]]
                del entries[bisect_left(entries, (before[1], key))]
            if after:
                insort(self.partitions.setdefault(after[0], []), (after[1], key))
        if after and new is not None:
            self.items[key] = new
        else:
            self.items.pop(key, None)


@dataclass
class Version:
    """`created_at` is in epoch seconds."""

    text: str
    labels: set[str]
    created_at: float = 0.0


@dataclass
class StoredSecret:
    """`deleted_at` is the time of the deletion request, in epoch seconds."""

    versions: dict[str, Version] = field(default_factory=dict)
    deleted_at: float | None = None

    def labelled(self, label: str) -> str:
        return next((version for version, held in self.versions.items() if label in held.labels), "")

    def copy(self) -> StoredSecret:
        copied = {
            version: Version(held.text, set(held.labels), held.created_at) for version, held in self.versions.items()
        }
        return StoredSecret(copied, self.deleted_at)


@dataclass
class Message:
    """`sent_at` and `received_at` are epoch seconds; by default a message is sent when it becomes visible."""

    body: str
    visible_at: float
    id: str
    deliveries: int = 0
    sent_at: float = -1.0
    received_at: float = 0.0

    def __post_init__(self) -> None:
        if self.sent_at < 0:
            self.sent_at = self.visible_at

    def is_in_flight(self, now: float) -> bool:
        """Received, and neither deleted nor visible again. A delayed message is not in flight."""
        return bool(self.deliveries) and self.visible_at > now


class Cloud:
    """`secret_stored` and `item_written` are called with every text that Secrets Manager or the table has accepted.

    `lag` returns the seconds after which a write shows in an index, or in an eventually consistent read of the table; 0 for at
    once. Writes of one item become visible in their order.
    """

    def __init__(self) -> None:
        self.views = {name: View(name) for name in table.INDEXES}
        self.replica = View("")
        self.items = self.views[""].items
        self.lag: Callable[[], float] = lambda: 0.0
        # Writes that a view does not show yet, in order: (visible from, item). A view is named as in `view`.
        self.late: dict[str, dict[tuple[str, str], list[tuple[float, Stored | None]]]] = defaultdict(dict)
        self.rates = limits.Rates()
        self.secrets: dict[str, StoredSecret] = {}
        self.queues: dict[str, list[Message]] = {}
        # Messages that SQS dropped because they were not deleted in time.
        self.expired: list[Message] = []
        self.events: list[dict[str, Any]] = []
        self.keys: dict[bytes, tuple[bytes, str]] = {}
        self.numbered = 0
        # The refresh token of each sealed text, for an observer.
        self.sealed: dict[str, str] = {}
        # The parameter of the stack.
        self.credential_store = "secrets-manager"
        self.carry: Carry = lambda name, call: call()
        self.secret_stored: Callable[[str, str, str], None] = lambda secret_id, version, text: None
        self.item_written: Callable[[Item, Item], None] = lambda old, new: None
        self.clients = {
            "dynamodb": Client(self, "dynamodb", DynamoDB(self)),
            "secretsmanager": Client(self, "secretsmanager", SecretsManager(self)),
            "kms": Client(self, "kms", Kms(self)),
            "sqs": Client(self, "sqs", Sqs(self)),
            "events": Client(self, "events", EventBridge(self)),
        }

    def client(self, service: str) -> Any:
        return self.clients[service]

    def copy(self) -> Cloud:
        """A copy with the same contents; items are immutable, so they are shared."""
        other = Cloud()
        other.views = {name: view.copy(name) for name, view in self.views.items()}
        other.replica = self.replica.copy("")
        other.items = other.views[""].items
        for name, writes in self.late.items():
            other.late[name] = {key: list(waiting) for key, waiting in writes.items()}
        other.secrets = {name: secret.copy() for name, secret in self.secrets.items()}
        other.queues = {url: [replace(each) for each in messages] for url, messages in self.queues.items()}
        other.events = list(self.events)
        other.keys = dict(self.keys)
        other.numbered = self.numbered
        other.sealed = dict(self.sealed)
        other.credential_store = self.credential_store
        return other

    def number(self) -> int:
        self.numbered += 1
        return self.numbered

    @staticmethod
    def url(queue: str) -> str:
        return f"https://sqs.us-east-1.amazonaws.com/000000000000/{queue}"

    def settings(self, kind: type[Environment]) -> Any:
        """The settings of a function: queues are named by their variable (`EXCHANGES_QUEUE_URL` → `exchanges`)."""
        known = {"table_name": TABLE, "secrets_prefix": PREFIX, "bus_name": BUS, "sealing_key_id": KEY_ID}
        known |= {
            "credential_store": self.credential_store,
            "event_endpoints": "api",
            "quota_time_zone": "America/Chicago",
            "reconcile_every_minutes": "30",
            "reconcile_idle_every_minutes": "720",
            "refused_grant_days": "7",
            "retry_after_minutes": "5,30,30",
            "shared_outbound_addresses": "0",
            "success_logs": "each",
        }
        values = {
            name: known[name] if name in known else self.url(name.removesuffix("_queue_url"))
            for name in kind.__annotations__
        }
        return kind(**values)

    def vault(self) -> Vault:
        """As a function of the stack makes it."""
        return Vault(PREFIX, SealedTable(table.Table(TABLE), KEY_ID), new_in=self.credential_store)

    def labels(self, secret_id: str, version: str) -> set[str]:
        """The labels of a stored version of credentials. A version without any may be deleted at any time."""
        if store_name(secret_id) == SECRETS_MANAGER:
            held = self.secrets[secret_id].versions.get(version)
            return held.labels if held else set()
        item = self.item(f"GRANT#{secret_id.removeprefix(IN_TABLE)}", "CREDENTIALS")
        return set(item.get("versions", {}).get(version, {}).get("labels", ()))

    def kept_grants(self) -> set[str]:
        """The credentials of connections that have not been removed, in either store."""
        secrets = {
            name
            for name, each in self.secrets.items()
            if name.startswith(f"{PREFIX}/grants/") and each.deleted_at is None
        }
        return secrets | {
            SealedTable.secret_id(pk.removeprefix("GRANT#"))
            for (pk, _), item in self.items.items()
            if pk.startswith("GRANT#") and "removed_at" not in item
        }

    def item(self, pk: str, sk: str) -> dict[str, Any]:
        """An item as plain values, for an observer; empty if there is none."""
        return plain(self.items.get((pk, sk), {}))

    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        """The events that the bus accepted: (detail type, detail). Without the version, which `put_events` checks."""
        found = [(event["DetailType"], json.loads(event["Detail"])) for event in self.events]
        for _, detail in found:
            del detail["version"]
        return found

    def write(self, key: tuple[str, str], new: Item | None) -> None:
        old = self.items.get(key)
        stored = new if new is None or isinstance(new, Stored) else Stored(new)
        self.views[""].put(key, stored)
        for name in (*[index for index in self.views if index], REPLICA):
            lag_s = self.lag()
            waiting = self.late[name].get(key)
            if lag_s <= 0 and not waiting:
                self._view(name).put(key, stored)
                continue
            shows_at = clock.now().timestamp() + lag_s
            if waiting:
                waiting.append((max(shows_at, waiting[-1][0]), stored))
            else:
                self.late[name][key] = [(shows_at, stored)]
        self.item_written(old or {}, new or {})

    def view(self, name: str) -> View:
        """The current contents of an index, or of `REPLICA`."""
        if late := self.late[name]:
            now = clock.now().timestamp()
            for key, waiting in list(late.items()):
                while waiting and waiting[0][0] <= now:
                    self._view(name).put(key, waiting.pop(0)[1])
                if not waiting:
                    del late[key]
        return self._view(name)

    def _view(self, name: str) -> View:
        return self.replica if name == REPLICA else self.views[name]


class Client:
    """The result of `boto3.client(service)`: every operation goes through the cloud's `carry`."""

    def __init__(self, cloud: Cloud, service: str, operations: Any) -> None:
        self._cloud, self._service, self._operations = cloud, service, operations

    def __getattr__(self, operation: str) -> Any:
        run = getattr(self._operations, operation, None)
        if run is None:
            raise UnknownSyntax(f"{self._service}.{operation}")
        name = f"{self._service}.{operation}"
        cloud = self._cloud

        def call(**parameters: Any) -> Any:
            if operation == "transact_write_items":
                # boto3 generates one for each call, so that its own retries write only once.
                parameters.setdefault("ClientRequestToken", str(cloud.number()))
            return cloud.carry(name, lambda: run(**parameters))

        # Cached, because this is called thousands of times a second.
        self.__dict__[operation] = call
        return call


class DynamoDB:
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Operations_Amazon_DynamoDB.html"""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.done: set[str] = set()

    def get_item(self, TableName: str, Key: Item, ConsistentRead: bool = False) -> dict[str, Any]:  # noqa: N803
        item = self._readable(ConsistentRead).items.get(_key(Key))
        return {"Item": item} if item is not None else {}

    def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        ((table_name, asked),) = RequestItems.items()
        keys = [_key(key) for key in asked["Keys"]]
        if not 1 <= len(keys) <= limits.BATCH_READS:
            raise error("ValidationException", "BatchGetItem", "Too many items requested for the BatchGetItem call")
        if len(set(keys)) < len(keys):
            raise error("ValidationException", "BatchGetItem", "Provided list of item keys contains duplicates")
        items = self._readable(asked.get("ConsistentRead", False)).items
        found: list[Item] = []
        size = 0
        for number, key in enumerate(keys):
            item = items.get(key)
            if item is None:
                continue
            size += item.size
            if size > limits.BATCH_BYTES:
                left = {table_name: {**asked, "Keys": asked["Keys"][number:]}}
                return {"Responses": {table_name: found}, "UnprocessedKeys": left}
            found.append(item)
        return {"Responses": {table_name: found}, "UnprocessedKeys": {}}

    def batch_write_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        (writes,) = RequestItems.values()
        items = [Stored(write["PutRequest"]["Item"]) for write in writes]
        if not 1 <= len(items) <= limits.BATCH_WRITES:
            raise error("ValidationException", "BatchWriteItem", "Too many items requested for the BatchWriteItem call")
        if not all({"pk", "sk"} <= set(item) for item in items):
            raise error("ValidationException", "BatchWriteItem", "The provided key element does not match the schema")
        if len({_key(item) for item in items}) < len(items):
            raise error("ValidationException", "BatchWriteItem", "Provided list of item keys contains duplicates")
        if sum(item.size for item in items) > limits.BATCH_BYTES:
            raise error("ValidationException", "BatchWriteItem", "the request is larger than 16 MB")
        for item in items:
            _validate(item, "BatchWriteItem")
        for item in items:
            self.cloud.write(_key(item), item)
        return {"UnprocessedItems": {}}

    def put_item(self, TableName: str, Item: Item, **how: Any) -> dict[str, Any]:  # noqa: N803
        key = _key(Item)
        item = Stored(Item)
        _validate(item, "PutItem")
        self._check(key, how, "PutItem", None)
        self.cloud.write(key, item)
        return {}

    def update_item(
        self,
        TableName: str,  # noqa: N803
        Key: Item,  # noqa: N803
        UpdateExpression: str,  # noqa: N803
        ReturnValues: str = "NONE",  # noqa: N803
        **how: Any,
    ) -> dict[str, Any]:
        key = _key(Key)
        self._check(key, how, "UpdateItem", UpdateExpression)
        new = self._updated(key, Key, UpdateExpression, how)
        self.cloud.write(key, new)
        return {"Attributes": self.cloud.items[key]} if ReturnValues == "ALL_NEW" else {}

    def delete_item(self, TableName: str, Key: Item, **how: Any) -> dict[str, Any]:  # noqa: N803
        key = _key(Key)
        self._check(key, how, "DeleteItem", None)
        if key in self.cloud.items:
            self.cloud.write(key, None)
        return {}

    def transact_write_items(
        self,
        TransactItems: list[dict[str, Any]],  # noqa: N803
        ClientRequestToken: str,  # noqa: N803
    ) -> dict[str, Any]:
        if not 1 <= len(TransactItems) <= limits.TRANSACTION_ITEMS:
            raise error("ValidationException", "TransactWriteItems", "a transaction has 1 to 100 items")
        if ClientRequestToken in self.done:
            return {}
        writes: list[tuple[tuple[str, str], Stored | None]] = []
        reasons: list[dict[str, Any]] = []
        for entry in TransactItems:
            ((kind, call),) = entry.items()
            call = dict(call)
            call.pop("TableName")
            key = _key(call["Item"] if kind == "Put" else call["Key"])
            expression = call.pop("UpdateExpression", None)
            given, wanted = call.pop("Key", None), call.pop("Item", None)
            if kind not in ("Put", "Update", "Delete", "ConditionCheck"):
                raise UnknownSyntax(kind)
            try:
                self._check(key, call, "TransactWriteItems", expression)
            except ClientError as failed:
                if failed.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
                shown = {"Item": failed.response["Item"]} if "Item" in failed.response else {}
                reasons.append({"Code": "ConditionalCheckFailed", "Message": "The conditional request failed", **shown})
                continue
            reasons.append({"Code": "None"})
            if kind == "Put":
                item = Stored(wanted)
                _validate(item, "TransactWriteItems")
                writes.append((key, item))
            elif kind == "Update":
                writes.append((key, self._updated(key, given, expression or "", call)))
            elif kind == "Delete":
                writes.append((key, None))
        if len(
            {_key(next(iter(each.values())).get("Item") or next(iter(each.values()))["Key"]) for each in TransactItems}
        ) < len(TransactItems):
            raise error("ValidationException", "TransactWriteItems", "cannot include multiple operations on one item")
        if sum(stored.size for _, stored in writes if stored is not None) > limits.TRANSACTION_BYTES:
            raise error(
                "ValidationException", "TransactWriteItems", "the items of the transaction are larger than 4 MB"
            )
        if any(reason["Code"] != "None" for reason in reasons):
            raise error("TransactionCanceledException", "TransactWriteItems", CancellationReasons=reasons)
        for key, stored in writes:
            if stored is not None or key in self.cloud.items:
                self.cloud.write(key, stored)
        self.done.add(ClientRequestToken)
        return {}

    def query(
        self,
        TableName: str,  # noqa: N803
        KeyConditionExpression: str,  # noqa: N803
        ExpressionAttributeValues: Values,  # noqa: N803
        ExpressionAttributeNames: dict[str, str] | None = None,  # noqa: N803
        IndexName: str = "",  # noqa: N803
        ConsistentRead: bool = False,  # noqa: N803
        ScanIndexForward: bool = True,  # noqa: N803
        Limit: int | None = None,  # noqa: N803
        ExclusiveStartKey: Item | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        names = ExpressionAttributeNames or {}
        key, used_values, used_names = expressions.key_condition(KeyConditionExpression, tuple(names.items()))
        if used_values != set(ExpressionAttributeValues) or used_names != set(names):
            raise error("ValidationException", "Query", "values or names that are not used, or used ones not given")
        pk_name, sk_name = table.INDEXES[IndexName]
        if key.pk[0] != pk_name or (key.sk and key.sk[0] != sk_name):
            raise error("ValidationException", "Query", "Query condition missed key schema element")
        if IndexName and ConsistentRead:
            raise error("ValidationException", "Query", "Consistent reads are not supported on global indexes")
        if Limit is not None and Limit < 1:
            raise error("ValidationException", "Query", "Limit must be at least 1")
        view = self.cloud.view(IndexName) if IndexName else self._readable(ConsistentRead)
        entries = view.partitions.get(ExpressionAttributeValues[key.pk[1]]["S"], [])
        at, end = 0, len(entries)
        if key.sk:
            bound = ExpressionAttributeValues[key.sk[2]]["S"]
            match key.sk[1]:
                case "begins_with":
                    at, end = bisect_left(entries, (bound,)), bisect_left(entries, (bound + "\U0010ffff",))
                case "<=":
                    end = bisect_left(entries, (bound + "\0",))
                case "<":
                    end = bisect_left(entries, (bound,))
                case _:
                    raise UnknownSyntax(KeyConditionExpression)
        if ExclusiveStartKey:
            place = (ExclusiveStartKey[sk_name]["S"], _key(ExclusiveStartKey))
            if ScanIndexForward:
                at = max(at, bisect_left(entries, place) + (place in entries[bisect_left(entries, place) :][:1]))
            else:
                end = min(end, bisect_left(entries, place))
        found: list[Item] = []
        size = 0
        order = range(at, end) if ScanIndexForward else range(end - 1, at - 1, -1)
        for number in order:
            item = view.items[entries[number][1]]
            size += item.size
            if found and size > limits.PAGE_BYTES:
                break
            found.append(item)
            if len(found) == Limit:
                break
        else:
            return {"Items": found}
        last = {name: found[-1][name] for name in {"pk", "sk", pk_name, sk_name}}
        return {"Items": found, "LastEvaluatedKey": last}

    def _updated(self, key: tuple[str, str], given: Item, expression: str, how: dict[str, Any]) -> Stored:
        names = how.get("ExpressionAttributeNames") or {}
        try:
            update, _, _ = expressions.update(expression, tuple(names.items()))
            if {"pk", "sk"} & {*update.removes, *(name for name, _ in update.sets), *(name for name, _ in update.adds)}:
                raise Invalid("This attribute is part of the key")
            before = self.cloud.items.get(key) or dict(given)
            new = Stored(update.apply(before, how.get("ExpressionAttributeValues") or {}))
        except Invalid as invalid:
            raise error("ValidationException", "UpdateItem", str(invalid)) from None
        _validate(new, "UpdateItem")
        return new

    def _readable(self, consistent: bool) -> View:
        """The items that a read of the table sees."""
        return self.cloud.views[""] if consistent else self.cloud.view(REPLICA)

    def _check(self, key: tuple[str, str], how: dict[str, Any], operation: str, update: str | None) -> None:
        """Raises DynamoDB's error if a condition does not hold, or if values and expressions do not match."""
        names, values = how.get("ExpressionAttributeNames") or {}, how.get("ExpressionAttributeValues") or {}
        for text in (update, how.get("ConditionExpression")):
            if text and len(text.encode()) > limits.EXPRESSION_BYTES:
                raise error("ValidationException", operation, "Expression size has exceeded the maximum allowed size")
        listed = tuple(names.items())
        used_values: frozenset[str] = frozenset()
        used_names: frozenset[str] = frozenset()
        holds = True
        old = self.cloud.items.get(key)
        try:
            if update is not None:
                _, used_values, used_names = expressions.update(update, listed)
            if text := how.get("ConditionExpression"):
                test, more_values, more_names = expressions.condition(text, listed)
                used_values, used_names = used_values | more_values, used_names | more_names
                if used_values <= set(values):
                    holds = test(old or {}, values)
        except Invalid as invalid:
            raise error("ValidationException", operation, str(invalid)) from None
        if used_values != set(values) or used_names != set(names):
            raise error("ValidationException", operation, "values or names that are not used, or used ones not given")
        if not holds:
            shown: dict[str, Any] = {}
            if old and how.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
                shown = {"Item": old}
            raise error("ConditionalCheckFailedException", operation, **shown)


class SecretsManager:
    """https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_Operations.html"""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def _secret(self, secret_id: str, operation: str) -> StoredSecret:
        secret = self.cloud.secrets.get(secret_id)
        if secret is None:
            raise error("ResourceNotFoundException", operation)
        if secret.deleted_at is not None:
            raise error("InvalidRequestException", operation, "the secret is marked for deletion")
        # AWS may remove a version without labels a day after its creation. This removes it at once.
        now = clock.now().timestamp()
        for version, held in list(secret.versions.items()):
            if not held.labels and now - held.created_at > limits.YOUNGEST_REMOVABLE_S:
                del secret.versions[version]
        return secret

    def _limit_rate(self, group: str, operation: str) -> None:
        if not self.cloud.rates.allows(group, clock.now().timestamp()):
            raise error("ThrottlingException", operation, "Rate exceeded")

    @staticmethod
    def _validate(text: str, token: str, operation: str) -> None:
        if not 1 <= len(text.encode()) <= limits.SECRET_BYTES:
            raise error("ValidationException", operation, "secretString must have a length of 1 to 65536")
        if not 32 <= len(token) <= 64:
            raise error("ValidationException", operation, "clientRequestToken must have a length of 32 to 64")

    def create_secret(
        self,
        Name: str,  # noqa: N803
        SecretString: str,  # noqa: N803
        ClientRequestToken: str = "",  # noqa: N803
        **ignored: Any,
    ) -> dict[str, Any]:
        token = ClientRequestToken or str(uuid.UUID(int=self.cloud.number()))
        self._limit_rate("CreateSecret", "CreateSecret")
        self._validate(SecretString, token, "CreateSecret")
        if Name in self.cloud.secrets:
            secret = self._secret(Name, "CreateSecret")
            held = secret.versions.get(token)
            if not held or held.text != SecretString:
                raise error("ResourceExistsException", "CreateSecret")
            return {"Name": Name, "VersionId": token}
        self.cloud.secrets[Name] = StoredSecret({token: Version(SecretString, {"AWSCURRENT"}, clock.now().timestamp())})
        self.cloud.secret_stored(Name, token, SecretString)
        return {"Name": Name, "VersionId": token}

    def put_secret_value(
        self,
        SecretId: str,  # noqa: N803
        SecretString: str,  # noqa: N803
        ClientRequestToken: str = "",  # noqa: N803
        VersionStages: list[str] | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        token = ClientRequestToken or str(uuid.UUID(int=self.cloud.number()))
        self._limit_rate(limits.VAULT_WRITES, "PutSecretValue")
        self._validate(SecretString, token, "PutSecretValue")
        secret = self._secret(SecretId, "PutSecretValue")
        if held := secret.versions.get(token):
            if held.text != SecretString:
                raise error("ResourceExistsException", "PutSecretValue")
            return {"Name": SecretId, "VersionId": token, "VersionStages": sorted(held.labels)}
        labels = VersionStages or ["AWSCURRENT"]
        if len(secret.versions) >= limits.VERSIONS:
            raise error("LimitExceededException", "PutSecretValue", "the secret has too many versions")
        self._limit_labels(secret, labels, "PutSecretValue")
        secret.versions[token] = Version(SecretString, set(), clock.now().timestamp())
        if "AWSCURRENT" in labels and "AWSPENDING" in secret.versions[secret.labelled("AWSCURRENT")].labels:
            # Recorded in test_update_secret_version_stages_current_pending: the label of a rotation ends with its version.
            self._take(secret, "AWSPENDING")
        for label in labels:
            self._move(secret, label, token)
        self.cloud.secret_stored(SecretId, token, SecretString)
        return {"Name": SecretId, "VersionId": token, "VersionStages": list(labels)}

    def get_secret_value(
        self,
        SecretId: str,  # noqa: N803
        VersionId: str = "",  # noqa: N803
        VersionStage: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        self._limit_rate(limits.VAULT_READS, "GetSecretValue")
        secret = self._secret(SecretId, "GetSecretValue")
        version = VersionId or secret.labelled(VersionStage or "AWSCURRENT")
        held = secret.versions.get(version)
        if not held:
            raise error("ResourceNotFoundException", "GetSecretValue")
        if VersionStage and VersionStage not in held.labels:
            raise error("InvalidRequestException", "GetSecretValue", "the version does not have the label")
        return {"VersionId": version, "SecretString": held.text, "VersionStages": sorted(held.labels)}

    def update_secret_version_stage(
        self,
        SecretId: str,  # noqa: N803
        VersionStage: str,  # noqa: N803
        MoveToVersionId: str = "",  # noqa: N803
        RemoveFromVersionId: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        self._limit_rate(limits.VAULT_WRITES, "UpdateSecretVersionStage")
        secret = self._secret(SecretId, "UpdateSecretVersionStage")
        holder = secret.labelled(VersionStage)
        for version in (MoveToVersionId, RemoveFromVersionId):
            if version and version not in secret.versions:
                raise error("ResourceNotFoundException", "UpdateSecretVersionStage")
        if holder != RemoveFromVersionId or (VersionStage == "AWSCURRENT" and not MoveToVersionId):
            raise error("InvalidParameterException", "UpdateSecretVersionStage", "the label is not on that version")
        if MoveToVersionId:
            self._limit_labels(secret, [VersionStage], "UpdateSecretVersionStage")
            self._move(secret, VersionStage, MoveToVersionId)
        elif holder:
            self._take(secret, VersionStage)
        return {"Name": SecretId}

    def describe_secret(self, SecretId: str) -> dict[str, Any]:  # noqa: N803
        self._limit_rate(limits.VAULT_READS, "DescribeSecret")
        secret = self.cloud.secrets.get(SecretId)
        if secret is None:
            raise error("ResourceNotFoundException", "DescribeSecret")
        stages = {version: sorted(held.labels) for version, held in secret.versions.items() if held.labels}
        deleted = {"DeletedDate": secret.deleted_at} if secret.deleted_at is not None else {}
        return {"Name": SecretId, "VersionIdsToStages": stages, **deleted}

    def delete_secret(
        self,
        SecretId: str,  # noqa: N803
        RecoveryWindowInDays: int = DEFAULT_RECOVERY_DAYS,  # noqa: N803
        ForceDeleteWithoutRecovery: bool = False,  # noqa: N803
    ) -> dict[str, Any]:
        self._limit_rate("DeleteSecret", "DeleteSecret")
        if ForceDeleteWithoutRecovery:
            self.cloud.secrets.pop(SecretId, None)
            return {"Name": SecretId}
        self._secret(SecretId, "DeleteSecret").deleted_at = clock.now().timestamp()
        return {"Name": SecretId}

    def restore_secret(self, SecretId: str) -> dict[str, Any]:  # noqa: N803
        self._limit_rate("RestoreSecret", "RestoreSecret")
        secret = self.cloud.secrets.get(SecretId)
        if secret is None:
            raise error("ResourceNotFoundException", "RestoreSecret")
        secret.deleted_at = None
        return {"Name": SecretId}

    @staticmethod
    def _limit_labels(secret: StoredSecret, labels: list[str], operation: str) -> None:
        attached = {label for held in secret.versions.values() for label in held.labels}
        if len(attached | set(labels)) > limits.LABELS:
            raise error("LimitExceededException", operation, "the secret has too many staging labels")

    def _move(self, secret: StoredSecret, label: str, version: str) -> None:
        before = secret.labelled(label)
        if before == version:
            return
        self._take(secret, label)
        secret.versions[version].labels.add(label)
        if label == "AWSCURRENT" and before:
            # The current version becomes the previous one, and the former previous version loses its label.
            self._take(secret, "AWSPREVIOUS")
            secret.versions[before].labels.add("AWSPREVIOUS")

    @staticmethod
    def _take(secret: StoredSecret, label: str) -> None:
        for held in secret.versions.values():
            held.labels.discard(label)


class Kms:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html"""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def generate_data_key(self, KeyId: str, KeySpec: str, EncryptionContext: dict[str, str]) -> dict[str, Any]:  # noqa: N803
        if KeyId != KEY_ID:
            raise error("NotFoundException", "GenerateDataKey")
        plaintext, blob = os.urandom(32), f"data-key-{self.cloud.number()}".encode()
        self.cloud.keys[blob] = plaintext, json.dumps(EncryptionContext, sort_keys=True)
        return {"KeyId": KEY_ARN, "Plaintext": plaintext, "CiphertextBlob": blob}

    def encrypt(self, KeyId: str, Plaintext: bytes, EncryptionContext: dict[str, str]) -> dict[str, Any]:  # noqa: N803
        if KeyId != KEY_ID:
            raise error("NotFoundException", "Encrypt")
        if not 1 <= len(Plaintext) <= limits.PLAINTEXT_BYTES:
            raise error("ValidationException", "Encrypt", "plaintext must have a length of 1 to 4096")
        blob = f"encrypted-{self.cloud.number()}".encode()
        self.cloud.keys[blob] = Plaintext, json.dumps(EncryptionContext, sort_keys=True)
        return {"KeyId": KeyId, "CiphertextBlob": blob}

    def decrypt(
        self,
        CiphertextBlob: bytes,  # noqa: N803
        EncryptionContext: dict[str, str] | None = None,  # noqa: N803
        KeyId: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        if KeyId not in ("", KEY_ID, KEY_ARN):
            raise error("IncorrectKeyException", "Decrypt")
        plaintext, context = self.cloud.keys.get(CiphertextBlob, (b"", ""))
        if not plaintext or context != json.dumps(EncryptionContext or {}, sort_keys=True):
            raise error("InvalidCiphertextException", "Decrypt")
        return {"KeyId": KEY_ARN, "Plaintext": plaintext}


class Sqs:
    """Standard queues with AWS's limits. Most simulations deliver the messages of `Cloud.queues` themselves.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
    """

    MAX_DELAY_S = 900
    MAX_HIDDEN_S = 43_200
    MAX_IN_FLIGHT = 120_000
    # How long a queue keeps a message; by default four days.
    RETENTION_S: ClassVar[dict[str, float]] = {"records": 604_800, "bulk_records": 604_800}
    DEFAULT_RETENTION_S = 345_600

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def send_message(
        self,
        QueueUrl: str,  # noqa: N803
        MessageBody: str,  # noqa: N803
        DelaySeconds: int = 0,  # noqa: N803
        MessageGroupId: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        _validate_message(MessageBody, MessageGroupId)
        if not 0 <= DelaySeconds <= self.MAX_DELAY_S:
            raise error("InvalidParameterValue", "SendMessage", "DelaySeconds must be between 0 and 900")
        queue, now = QueueUrl.rpartition("/")[2], clock.now().timestamp()
        message = Message(MessageBody, now + DelaySeconds, f"message-{self.cloud.number()}", sent_at=now)
        self.cloud.queues.setdefault(queue, []).append(message)
        return {"MessageId": message.id, "MD5OfMessageBody": md5(MessageBody.encode()).hexdigest()}

    def receive_message(
        self,
        QueueUrl: str,  # noqa: N803
        MaxNumberOfMessages: int = 1,  # noqa: N803
        VisibilityTimeout: int = 30,  # noqa: N803
    ) -> dict[str, Any]:
        """In order of sending. The attributes are those that Lambda asks for."""
        if not 1 <= MaxNumberOfMessages <= 10:
            raise error("InvalidParameterValue", "ReceiveMessage")
        found = self.receive(QueueUrl.rpartition("/")[2], MaxNumberOfMessages, VisibilityTimeout)
        return {
            "Messages": [
                {
                    "MessageId": message.id,
                    "ReceiptHandle": message.id,
                    "Body": message.body,
                    "Attributes": {
                        "ApproximateReceiveCount": str(message.deliveries),
                        "SentTimestamp": str(int(message.sent_at * 1_000)),
                    },
                }
                for message in found
            ]
        }

    def receive(self, queue: str, most: int, hidden_s: float) -> list[Message]:
        """Messages, as several calls return them to a poller. Raises OverLimit if too many are in flight."""
        now, held = clock.now().timestamp(), self.cloud.queues.get(queue, [])
        kept_from = now - self.RETENTION_S.get(queue, self.DEFAULT_RETENTION_S)
        if any(message.sent_at < kept_from for message in held):
            self.cloud.expired += [message for message in held if message.sent_at < kept_from]
            held[:] = [message for message in held if message.sent_at >= kept_from]
        room = self.MAX_IN_FLIGHT - sum(message.is_in_flight(now) for message in held)
        if room <= 0:
            raise error("OverLimit", "ReceiveMessage", "Too many messages in flight")
        found = []
        for message in held:
            if message.visible_at <= now:
                message.deliveries += 1
                message.received_at, message.visible_at = now, now + hidden_s
                found.append(message)
                if len(found) == min(most, room):
                    break
        return found

    def delete_message(self, QueueUrl: str, ReceiptHandle: str) -> dict[str, Any]:  # noqa: N803
        held = self.cloud.queues.get(QueueUrl.rpartition("/")[2], [])
        for number, message in enumerate(held):
            if message.id == ReceiptHandle:
                del held[number]
                break
        return {}

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        if not 1 <= len(Entries) <= 10:
            raise error("AWS.SimpleQueueService.TooManyEntriesInBatchRequest", "SendMessageBatch")
        if not all(_BATCH_ID.fullmatch(entry["Id"]) for entry in Entries):
            raise error("AWS.SimpleQueueService.InvalidBatchEntryId", "SendMessageBatch")
        if sum(len(entry["MessageBody"].encode()) for entry in Entries) > MAX_MESSAGE_BYTES:
            raise error("AWS.SimpleQueueService.BatchRequestTooLong", "SendMessageBatch")
        sent = [
            {
                "Id": entry["Id"],
                **self.send_message(QueueUrl, entry["MessageBody"], DelaySeconds=entry.get("DelaySeconds", 0)),
            }
            for entry in Entries
        ]
        return {"Successful": sent}

    def change_message_visibility(
        self,
        QueueUrl: str,  # noqa: N803
        ReceiptHandle: str,  # noqa: N803
        VisibilityTimeout: int,  # noqa: N803
    ) -> dict[str, Any]:
        now = clock.now().timestamp()
        for message in self.cloud.queues.get(QueueUrl.rpartition("/")[2], []):
            if message.id != ReceiptHandle:
                continue
            received_at = message.received_at or now
            if (
                not 0 <= VisibilityTimeout <= self.MAX_HIDDEN_S
                or now + VisibilityTimeout > received_at + self.MAX_HIDDEN_S
            ):
                raise error(
                    "InvalidParameterValue",
                    "ChangeMessageVisibility",
                    f"Value {VisibilityTimeout} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout "
                    f"for the message is beyond the limit [{self.MAX_HIDDEN_S} seconds].",
                )
            message.visible_at = now + VisibilityTimeout
        return {}


class EventBridge:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        if not 1 <= len(Entries) <= limits.EVENT_ENTRIES:
            raise error("ValidationException", "PutEvents", "a request has 1 to 10 entries")
        if sum(map(limits.event_size, Entries)) > limits.EVENT_BYTES:
            raise error(
                "ValidationException", "PutEvents", "Total size of the entries in the request is over the limit."
            )
        for entry in Entries:
            published_events.check(entry["DetailType"], json.loads(entry["Detail"]))
        self.cloud.events.extend(Entries)
        return {"FailedEntryCount": 0, "Entries": [{"EventId": str(uuid.UUID(int=len(self.cloud.events)))}]}


class InTurn:
    """Replaces a pool of threads, because this cloud is not thread-safe, and their order could not be repeated."""

    def __init__(self, _: int) -> None:
        self.map = map

    def __enter__(self) -> InTurn:
        return self

    def __exit__(self, *_: object) -> None:
        return None


@contextmanager
def installed(current: Callable[[], Cloud]) -> Iterator[None]:
    """Replace the product's clients by those of the current cloud, and keep the plain form of its items."""
    with (
        patch.object(service_clients, "client", lambda service: current().client(service)),
        patch.object(service_clients, "boto3_client", lambda service: current().client(service)),
        patch.object(table, "_plain", plain),
    ):
        yield


def plain(item: Item) -> dict[str, Any]:
    """As `table._plain` has it. The caller may change the dictionary."""
    if not isinstance(item, Stored):
        return {name: attribute_values.plain(value) for name, value in item.items()}
    if item.plain is None:
        item.plain = {name: attribute_values.plain(value) for name, value in item.items()}
    return dict(item.plain)


def _key(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _validate_message(body: str, group: str | None) -> None:
    """Raises SQS's error for a message that is empty or too large, or whose group id is malformed."""
    if not body:
        raise error("MissingParameter", "SendMessage", "The request must contain the parameter MessageBody.")
    if len(body.encode()) > MAX_MESSAGE_BYTES:
        raise error("InvalidParameterValue", "SendMessage", f"Message must be shorter than {MAX_MESSAGE_BYTES} bytes.")
    if group is not None and not _GROUP_ID.fullmatch(group):
        raise error("InvalidParameterValue", "SendMessage", "MessageGroupId has 1 to 128 letters, digits, punctuation")


def _place(item: Item | None, pk_name: str, sk_name: str) -> tuple[str, str] | None:
    if item is None or pk_name not in item or sk_name not in item:
        return None
    return item[pk_name]["S"], item[sk_name]["S"]


def _validate(item: Stored, operation: str) -> None:
    """Keys of the table and of its indexes are non-empty texts of limited length; an item is of limited size."""
    for pk_name, sk_name in table.INDEXES.values():
        # A text is a sort key of an index only in an item with that index's partition key.
        most_sk = limits.SORT_KEY_BYTES if pk_name in item else limits.PARTITION_KEY_BYTES
        for name, most in ((pk_name, limits.PARTITION_KEY_BYTES), (sk_name, most_sk)):
            if name in item and not 1 <= limits.text_size(item[name].get("S", "")) <= most:
                raise error(
                    "ValidationException", operation, f"the key attribute {name} must be a text of 1 to {most} bytes"
                )
    if item.size > limits.ITEM_BYTES:
        raise error("ValidationException", operation, "Item size has exceeded the maximum allowed size")
