"""AWS in memory, behind the interface of boto3's clients: DynamoDB, Secrets Manager, KMS, SQS, EventBridge.

`Cloud.carry` is around every call, so that a simulation can let other workers run, or have something fail. Errors are real
botocore errors. Not thread-safe: it is for greenlets, which switch only where they are asked to.
"""

from __future__ import annotations

import json
import os
import uuid
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from botocore.exceptions import ClientError

from portaria import aws, clock, table
from portaria.settings import Environment
from tests.simulation import expressions
from tests.simulation.expressions import Invalid, Item, UnknownSyntax, Values

TABLE = "portaria"
PREFIX = "portaria"
BUS = "portaria"
KEY_ID = "sealing-key"
PAGE_BYTES = 1_000_000
# Secrets Manager keeps a version without a label for a day at least, and then no longer than it likes.
UNLABELLED_S = 86_400
DEFAULT_RECOVERY_DAYS = 30

Carry = Callable[[str, Callable[[], Any]], Any]


def error(code: str, operation: str, message: str = "", **more: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message or code}, **more}, operation)


class Stored(dict[str, expressions.Value]):
    """An item as the table holds it. It is never changed, so that its plain form is worked out only once."""

    __slots__ = ("plain",)

    def __init__(self, item: Item) -> None:
        super().__init__(item)
        self.plain: dict[str, Any] | None = None


@dataclass
class Version:
    text: str
    labels: set[str]
    unlabelled_since: float = 0.0


@dataclass
class StoredSecret:
    """`deleted_at` is when its removal was asked for, in epoch seconds."""

    versions: dict[str, Version] = field(default_factory=dict)
    deleted_at: float | None = None

    def labelled(self, label: str) -> str:
        return next((version for version, held in self.versions.items() if label in held.labels), "")

    def copy(self) -> StoredSecret:
        copied = {
            version: Version(held.text, set(held.labels), held.unlabelled_since)
            for version, held in self.versions.items()
        }
        return StoredSecret(copied, self.deleted_at)


@dataclass
class Message:
    body: str
    visible_at: float
    id: str
    deliveries: int = 0


class Cloud:
    """`stored` is told of every text that Secrets Manager or the table has taken, as soon as it is there."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Stored] = {}
        # Of each index, its partitions: (sort key, key of the item), sorted.
        self.indexes: dict[str, dict[str, list[tuple[str, tuple[str, str]]]]] = {name: {} for name in table.INDEXES}
        self.secrets: dict[str, StoredSecret] = {}
        self.queues: dict[str, list[Message]] = {}
        self.events: list[dict[str, Any]] = []
        self.keys: dict[bytes, tuple[bytes, str]] = {}
        self.numbered = 0
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
        """Another with the same contents: items are never changed in place, so that they are shared."""
        other = Cloud()
        other.items = dict(self.items)
        other.indexes = {
            name: {pk: list(entries) for pk, entries in index.items()} for name, index in self.indexes.items()
        }
        other.secrets = {name: secret.copy() for name, secret in self.secrets.items()}
        other.queues = {
            url: [Message(each.body, each.visible_at, each.id, each.deliveries) for each in messages]
            for url, messages in self.queues.items()
        }
        other.events = list(self.events)
        other.keys = dict(self.keys)
        other.numbered = self.numbered
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
        known |= {"retry_after_minutes": "5,30,30", "quota_time_zone": "America/Chicago", "refused_grant_days": "7"}
        values = {
            name: known[name] if name in known else self.url(name.removesuffix("_queue_url"))
            for name in kind.__annotations__
        }
        return kind(**values)

    def item(self, pk: str, sk: str) -> dict[str, Any]:
        """An item as plain values, for whoever looks on; empty where there is none."""
        return plain(self.items.get((pk, sk), {}))

    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        """The events that the bus took: (detail type, detail)."""
        return [(event["DetailType"], json.loads(event["Detail"])) for event in self.events]

    def write(self, key: tuple[str, str], new: Item | None) -> None:
        old = self.items.get(key)
        for name, (pk_name, sk_name) in table.INDEXES.items():
            before, after = _place(old, pk_name, sk_name), _place(new, pk_name, sk_name)
            if before == after:
                continue
            partitions = self.indexes[name]
            if before:
                entries = partitions[before[0]]
                del entries[bisect_left(entries, (before[1], key))]
            if after:
                insort(partitions.setdefault(after[0], []), (after[1], key))
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = Stored(new)
        self.item_written(old or {}, new or {})


class Client:
    """What `boto3.client(service)` gives: every operation goes through the cloud's `carry`."""

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
                # boto3 makes one up for each call, so that its own tries write only once.
                parameters.setdefault("ClientRequestToken", str(cloud.number()))
            return cloud.carry(name, lambda: run(**parameters))

        # Kept, since this is asked for thousands of times a second.
        self.__dict__[operation] = call
        return call


class DynamoDB:
    """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Operations_Amazon_DynamoDB.html"""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.done: set[str] = set()

    def get_item(self, TableName: str, Key: Item, ConsistentRead: bool = False) -> dict[str, Any]:  # noqa: N803
        item = self.cloud.items.get(_key(Key))
        return {"Item": item} if item is not None else {}

    def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        ((table_name, asked),) = RequestItems.items()
        if not 1 <= len(asked["Keys"]) <= 100:
            raise error("ValidationException", "BatchGetItem")
        found = [self.cloud.items[_key(key)] for key in asked["Keys"] if _key(key) in self.cloud.items]
        return {"Responses": {table_name: found}, "UnprocessedKeys": {}}

    def batch_write_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        ((table_name, writes),) = RequestItems.items()
        if not 1 <= len(writes) <= 25:
            raise error("ValidationException", "BatchWriteItem")
        for write in writes:
            self.put_item(table_name, write["PutRequest"]["Item"])
        return {"UnprocessedItems": {}}

    def put_item(self, TableName: str, Item: Item, **how: Any) -> dict[str, Any]:  # noqa: N803
        key = _key(Item)
        self._check(key, how, "PutItem", None)
        _validate_keys(Item)
        self.cloud.write(key, Item)
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
        if ClientRequestToken in self.done:
            return {}
        writes: list[tuple[tuple[str, str], Item | None]] = []
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
                reasons.append({"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"})
                continue
            reasons.append({"Code": "None"})
            if kind == "Put":
                _validate_keys(wanted)
                writes.append((key, wanted))
            elif kind == "Update":
                writes.append((key, self._updated(key, given, expression or "", call)))
            elif kind == "Delete":
                writes.append((key, None))
        if len(
            {_key(next(iter(each.values())).get("Item") or next(iter(each.values()))["Key"]) for each in TransactItems}
        ) < len(TransactItems):
            raise error("ValidationException", "TransactWriteItems", "cannot include multiple operations on one item")
        if any(reason["Code"] != "None" for reason in reasons):
            raise error("TransactionCanceledException", "TransactWriteItems", CancellationReasons=reasons)
        for key, item in writes:
            if item is not None or key in self.cloud.items:
                self.cloud.write(key, item)
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
        entries = self.cloud.indexes[IndexName].get(ExpressionAttributeValues[key.pk[1]]["S"], [])
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
            item = self.cloud.items[entries[number][1]]
            found.append(item)
            size += _size(item)
            if size > PAGE_BYTES or len(found) == Limit:
                last = {name: item[name] for name in {"pk", "sk", pk_name, sk_name}}
                return {"Items": found, "LastEvaluatedKey": last}
        return {"Items": found}

    def _updated(self, key: tuple[str, str], given: Item, expression: str, how: dict[str, Any]) -> Item:
        names = how.get("ExpressionAttributeNames") or {}
        try:
            update, _, _ = expressions.update(expression, tuple(names.items()))
            if {"pk", "sk"} & {*update.removes, *(name for name, _ in update.sets), *(name for name, _ in update.adds)}:
                raise Invalid("This attribute is part of the key")
            new = update.apply(self.cloud.items.get(key) or dict(given), how.get("ExpressionAttributeValues") or {})
        except Invalid as invalid:
            raise error("ValidationException", "UpdateItem", str(invalid)) from None
        _validate_keys(new)
        return new

    def _check(self, key: tuple[str, str], how: dict[str, Any], operation: str, update: str | None) -> None:
        """Raises what DynamoDB does where a condition does not hold, or where values and expressions do not fit."""
        names, values = how.get("ExpressionAttributeNames") or {}, how.get("ExpressionAttributeValues") or {}
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
        now = clock.now().timestamp()
        for version, held in list(secret.versions.items()):
            if not held.labels and now - held.unlabelled_since > UNLABELLED_S:
                del secret.versions[version]
        return secret

    def create_secret(
        self,
        Name: str,  # noqa: N803
        SecretString: str,  # noqa: N803
        ClientRequestToken: str = "",  # noqa: N803
        **ignored: Any,
    ) -> dict[str, Any]:
        token = ClientRequestToken or f"created-{self.cloud.number()}"
        if Name in self.cloud.secrets:
            secret = self._secret(Name, "CreateSecret")
            held = secret.versions.get(token)
            if not held or held.text != SecretString:
                raise error("ResourceExistsException", "CreateSecret")
            return {"Name": Name, "VersionId": token}
        self.cloud.secrets[Name] = StoredSecret({token: Version(SecretString, {"AWSCURRENT"})})
        self.cloud.secret_stored(Name, token, SecretString)
        return {"Name": Name, "VersionId": token}

    def put_secret_value(
        self,
        SecretId: str,  # noqa: N803
        SecretString: str,  # noqa: N803
        ClientRequestToken: str = "",  # noqa: N803
        VersionStages: list[str] | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        token = ClientRequestToken or f"put-{self.cloud.number()}"
        secret = self._secret(SecretId, "PutSecretValue")
        if held := secret.versions.get(token):
            if held.text != SecretString:
                raise error("ResourceExistsException", "PutSecretValue")
            return {"VersionId": token}
        secret.versions[token] = Version(SecretString, set(), clock.now().timestamp())
        for label in VersionStages or ["AWSCURRENT"]:
            self._move(secret, label, token)
        self.cloud.secret_stored(SecretId, token, SecretString)
        return {"VersionId": token}

    def get_secret_value(
        self,
        SecretId: str,  # noqa: N803
        VersionId: str = "",  # noqa: N803
        VersionStage: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        secret = self._secret(SecretId, "GetSecretValue")
        version = VersionId or secret.labelled(VersionStage or "AWSCURRENT")
        held = secret.versions.get(version)
        if not held or (VersionStage and VersionStage not in held.labels):
            raise error("ResourceNotFoundException", "GetSecretValue")
        return {"VersionId": version, "SecretString": held.text, "VersionStages": sorted(held.labels)}

    def update_secret_version_stage(
        self,
        SecretId: str,  # noqa: N803
        VersionStage: str,  # noqa: N803
        MoveToVersionId: str = "",  # noqa: N803
        RemoveFromVersionId: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        secret = self._secret(SecretId, "UpdateSecretVersionStage")
        holder = secret.labelled(VersionStage)
        for version in (MoveToVersionId, RemoveFromVersionId):
            if version and version not in secret.versions:
                raise error("ResourceNotFoundException", "UpdateSecretVersionStage")
        if holder != RemoveFromVersionId or (VersionStage == "AWSCURRENT" and not MoveToVersionId):
            raise error("InvalidParameterException", "UpdateSecretVersionStage", "the label is not on that version")
        if MoveToVersionId:
            self._move(secret, VersionStage, MoveToVersionId)
        elif holder:
            self._take(secret, VersionStage)
        return {"Name": SecretId}

    def describe_secret(self, SecretId: str) -> dict[str, Any]:  # noqa: N803
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
        if ForceDeleteWithoutRecovery:
            self.cloud.secrets.pop(SecretId, None)
            return {"Name": SecretId}
        self._secret(SecretId, "DeleteSecret").deleted_at = clock.now().timestamp()
        return {"Name": SecretId}

    def restore_secret(self, SecretId: str) -> dict[str, Any]:  # noqa: N803
        secret = self.cloud.secrets.get(SecretId)
        if secret is None:
            raise error("ResourceNotFoundException", "RestoreSecret")
        secret.deleted_at = None
        return {"Name": SecretId}

    def _move(self, secret: StoredSecret, label: str, version: str) -> None:
        before = secret.labelled(label)
        if before == version:
            return
        self._take(secret, label)
        secret.versions[version].labels.add(label)
        if label == "AWSCURRENT" and before:
            # The one that was current becomes the previous one, and what was that before is nothing any more.
            self._take(secret, "AWSPREVIOUS")
            secret.versions[before].labels.add("AWSPREVIOUS")

    @staticmethod
    def _take(secret: StoredSecret, label: str) -> None:
        for held in secret.versions.values():
            if label in held.labels:
                held.labels.discard(label)
                held.unlabelled_since = clock.now().timestamp()


class Kms:
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html"""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def generate_data_key(self, KeyId: str, KeySpec: str, EncryptionContext: dict[str, str]) -> dict[str, Any]:  # noqa: N803
        if KeyId != KEY_ID:
            raise error("NotFoundException", "GenerateDataKey")
        plaintext, blob = os.urandom(32), f"data-key-{self.cloud.number()}".encode()
        self.cloud.keys[blob] = plaintext, json.dumps(EncryptionContext, sort_keys=True)
        return {"KeyId": KeyId, "Plaintext": plaintext, "CiphertextBlob": blob}

    def decrypt(self, CiphertextBlob: bytes, EncryptionContext: dict[str, str], KeyId: str = "") -> dict[str, Any]:  # noqa: N803
        plaintext, context = self.cloud.keys.get(CiphertextBlob, (b"", ""))
        if not plaintext or context != json.dumps(EncryptionContext, sort_keys=True):
            raise error("InvalidCiphertextException", "Decrypt")
        return {"KeyId": KEY_ID, "Plaintext": plaintext}


class Sqs:
    """Sending only: a simulation delivers the messages itself."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def send_message(
        self,
        QueueUrl: str,  # noqa: N803
        MessageBody: str,  # noqa: N803
        DelaySeconds: int = 0,  # noqa: N803
        MessageGroupId: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        queue = QueueUrl.rpartition("/")[2]
        message = Message(MessageBody, clock.now().timestamp() + DelaySeconds, f"message-{self.cloud.number()}")
        self.cloud.queues.setdefault(queue, []).append(message)
        return {"MessageId": message.id}

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        if not 1 <= len(Entries) <= 10:
            raise error("AWS.SimpleQueueService.TooManyEntriesInBatchRequest", "SendMessageBatch")
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
        for message in self.cloud.queues.get(QueueUrl.rpartition("/")[2], []):
            if message.id == ReceiptHandle:
                message.visible_at = clock.now().timestamp() + VisibilityTimeout
        return {}


class EventBridge:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        self.cloud.events.extend(Entries)
        return {"FailedEntryCount": 0, "Entries": [{"EventId": str(uuid.UUID(int=len(self.cloud.events)))}]}


@contextmanager
def installed(current: Callable[[], Cloud]) -> Iterator[None]:
    """Have the product's clients be those of the current cloud, and its table's codec a quick one that writes the same."""
    with (
        patch.object(aws, "client", lambda service: current().client(service)),
        patch.object(table, "_serialize", wire),
        patch.object(table, "_plain", plain),
    ):
        yield


def wire(value: Any) -> dict[str, Any]:
    """As boto3's TypeSerializer has it, for the types that items hold here."""
    match value:
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int() | float():
            return {"N": str(value)}
        case bytes():
            return {"B": value}
        case list() | tuple():
            return {"L": [wire(each) for each in value]}
        case dict():
            return {"M": {name: wire(each) for name, each in value.items()}}
        case None:
            return {"NULL": True}
    raise UnknownSyntax(type(value).__name__)


def plain(item: Item) -> dict[str, Any]:
    """As `table._plain` has it. The caller may change the dictionary."""
    if not isinstance(item, Stored):
        return {name: _plain(value) for name, value in item.items()}
    if item.plain is None:
        item.plain = {name: _plain(value) for name, value in item.items()}
    return dict(item.plain)


def _plain(value: dict[str, Any]) -> Any:
    ((kind, held),) = value.items()
    match kind:
        case "S" | "BOOL" | "B":
            return held
        case "N":
            return int(held) if held.lstrip("-").isdecimal() else float(held)
        case "L":
            return [_plain(each) for each in held]
        case "M":
            return {name: _plain(each) for name, each in held.items()}
        case "NULL":
            return None
    raise UnknownSyntax(kind)


def _key(item: Item) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


def _place(item: Item | None, pk_name: str, sk_name: str) -> tuple[str, str] | None:
    if item is None or pk_name not in item or sk_name not in item:
        return None
    return item[pk_name]["S"], item[sk_name]["S"]


def _validate_keys(item: Item) -> None:
    """Keys of the table and of its indexes are texts, and not empty ones."""
    for pair in table.INDEXES.values():
        for name in pair:
            if name in item and not item[name].get("S"):
                raise error(
                    "ValidationException", "PutItem", f"the key attribute {name} must be a text, not an empty one"
                )


def _size(item: Item) -> int:
    return sum(len(name) + len(str(next(iter(value.values())))) for name, value in item.items())
