"""Taking a platform's events in: their records go to the Records queue before anyone is answered.

The strictest platform waits two seconds, a cold start included, and they are spent so:

    0.4 s  until the handler starts: the caller's connection, API Gateway, a cold start
    0.5 s  at most for the address, which is remembered for a minute
    0.8 s  at most for SQS
    0.3 s  for the answer's way back

What is not taken in that time is answered with the status that makes the platform come again, and nothing is kept aside: the
platform still has the event, and what it gives up on is found by reconciling.

Each address carries a secret key. This function reads no secret: the table holds the keys' SHA-256 (`EVENTS#{connection}`),
written by `event_addresses`. Whoever has no key learns nothing: an unknown connection and a wrong key get one answer, after one
read each. It is 404 and not 403, which would say that there is something to be let into.

This module is on the events' path: no boto3, no Powertools, nothing that is not used there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from typing import Any, NamedTuple

from portaria import platforms
from portaria.aws.light_client import AwsClient, AwsError
from portaria.core import record_messages
from portaria.core.callbacks import EventAddress, Rejected, Retryable, WebhookDelivery
from portaria.core.settings import ReceiveEventsSettings
from portaria.webhooks.request_log import count, log
from portaria.webhooks.time_budget import TimeBudget

HOOK_S = 1.7
WORK_S = 1.3
ADDRESS_READ_S = 0.5
QUEUE_S = 0.8
# The two calls that know a repeated delivery; without them it is queued once more, which does no harm.
REMEMBER_S = 0.4

MAX_BODY_BYTES = 1_000_000
REMEMBERED_S = 60.0
MAX_REMEMBERED = 500
DELIVERY_LIFE_S = 24 * 60 * 60
SK = "KEY"

# `{platform}-{client}-{account}` is longer than a name that somebody gives; SQS takes 128 characters for a group.
_CONNECTION = re.compile(r"[A-Za-z0-9_-]{3,128}")
_KEY = re.compile(r"[A-Za-z0-9_-]{32,64}")

Item = dict[str, Any]


class Key(NamedTuple):
    """One key of an address, as hashes. `until` (epoch seconds) is when one that was replaced ends, 0 for the one in use."""

    key_hash: str
    header_hash: str = ""
    until: int = 0

    def works(self, now: int) -> bool:
        return self.until == 0 or now < self.until

    def text(self) -> str:
        return f"{self.key_hash}:{self.header_hash}:{self.until}"


class Address(NamedTuple):
    """What the table says of a connection's address."""

    platform: str
    account_id: str
    keys: tuple[Key, ...]


def partition(connection: str) -> str:
    """The partition key of a connection's address."""
    return f"EVENTS#{connection}"


def digest(secret: str) -> str:
    """How a key is stored: 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_key(text: str) -> Key:
    key_hash, header_hash, until = text.split(":")
    return Key(key_hash, header_hash, int(until))


class EventReceiver:
    """Receives events. One a process: it keeps the connections to SQS and DynamoDB and remembers addresses."""

    def __init__(self, settings: ReceiveEventsSettings) -> None:
        self._table_name = settings.table_name
        self._queue_url = settings.records_queue_url
        self._sqs = AwsClient("sqs", "AmazonSQS")
        self._dynamodb = AwsClient("dynamodb", "DynamoDB_20120810")
        self._addresses: dict[str, tuple[float, Address]] = {}

    def body(self, body: str | None, is_base64: bool) -> bytes:
        """The bytes that were sent. Raises `Rejected` (413 `body_too_large`, 400 `bad_body`)."""
        text = body or ""
        # Of base64, three quarters are left; a text has at least a byte a character.
        if len(text) > (MAX_BODY_BYTES * 4 // 3 + 4 if is_base64 else MAX_BODY_BYTES):
            raise _too_large(len(text))
        try:
            content = base64.b64decode(text, validate=True) if is_base64 else text.encode()
        except ValueError:
            raise Rejected("bad_body", "the body cannot be decoded") from None
        if len(content) > MAX_BODY_BYTES:
            raise _too_large(len(content))
        return content

    def receive(
        self,
        platform: str,
        connection: str,
        key: str,
        headers: dict[str, str],
        body: bytes,
        budget: TimeBudget,
        request: str,
    ) -> None:
        """Queue what one delivery brings. Once this returns, its records are in the queue.

        Raises `Rejected`: 404 `unknown_address`, or what the platform's part finds wrong with it. Raises `Retryable` and
        `AwsError` where it should be delivered again; some of its records may have been queued then.
        """
        now = int(time.time())
        address = self._check(platform, connection, key, now, budget)
        found = platforms.load(platform)
        events = found.require(found.events).read(WebhookDelivery(headers, body, now, _ed25519), address)
        queued = 0
        if events.delivery and self._seen(connection, events.delivery, budget):
            events = events._replace(records={}, left={"repeated": sum(map(len, events.records.values()))})
        for name, records in events.records.items():
            bodies = record_messages.pack(
                records,
                connection=connection,
                object=name,
                origin=record_messages.EVENT,
                read_at=int(time.time() * 1000),
            )
            for each in bodies:
                self._send(each, connection, budget)
            queued += len(records)
        if events.delivery and queued:
            self._remember(connection, events.delivery, now, budget)
        left = {name: number for name, number in events.left.items() if number}
        log("INFO", "events received", connection=connection, request=request, records=queued, **left)
        if queued:
            count("EventsReceived", queued)
        if left:
            count("EventsIgnored", sum(left.values()))
        if events.mended:
            count("EventsMended")

    def refuse(self, rejected: Rejected, connection: str, request: str) -> None:
        """Write down a delivery that was not taken; never its key or its body."""
        name = connection if _CONNECTION.fullmatch(connection) else ""
        log("WARNING", "refused", reason=rejected.reason, detail=rejected.detail, connection=name, request=request)
        count("EventsRefused")

    def _check(self, platform: str, connection: str, key: str, now: int, budget: TimeBudget) -> EventAddress:
        """Raises `Rejected` (404 `unknown_address`) for whoever does not have this connection's key."""
        if not _CONNECTION.fullmatch(connection) or not _KEY.fullmatch(key):
            raise _unknown_address()
        given = digest(key)
        until, remembered = self._addresses.get(connection, (0.0, None))
        if remembered and time.monotonic() < until and (found := _match(remembered, platform, given, now)):
            return found
        # A key that is not remembered may be a new one: only the table's word is a refusal.
        address = self._read_address(connection, budget.part(ADDRESS_READ_S))
        found = _match(address, platform, given, now) if address else None
        if not address or not found:
            raise _unknown_address()
        if len(self._addresses) >= MAX_REMEMBERED:
            self._addresses.clear()
        self._addresses[connection] = (time.monotonic() + REMEMBERED_S, address)
        return found

    def _read_address(self, connection: str, timeout_s: float) -> Address | None:
        item = self._get(partition(connection), SK, timeout_s)
        if item is None:
            return None
        keys = tuple(read_key(each["S"]) for each in item.get("keys", {}).get("L", []))
        return Address(item["platform"]["S"], item["account_id"]["S"], keys)

    def _send(self, body: str, connection: str, budget: TimeBudget) -> None:
        # The group is no order here: it keeps one connection's many from holding up another's few.
        message = {"QueueUrl": self._queue_url, "MessageBody": body, "MessageGroupId": connection}
        self._sqs.call("SendMessage", message, timeout_s=budget.part(QUEUE_S))

    def _seen(self, connection: str, delivery: str, budget: TimeBudget) -> bool:
        try:
            item = self._get(_delivery(connection, delivery), "EVENT", budget.part(REMEMBER_S))
        except (Retryable, AwsError) as error:
            log("WARNING", "a delivery was not looked up", connection=connection, error=str(error))
            return False
        return item is not None

    def _remember(self, connection: str, delivery: str, now: int, budget: TimeBudget) -> None:
        """Only once its records are queued: whoever dies before that gets it again."""
        item = {
            "pk": {"S": _delivery(connection, delivery)},
            "sk": {"S": "EVENT"},
            "expires_at": {"N": str(now + DELIVERY_LIFE_S)},
        }
        try:
            request = {"TableName": self._table_name, "Item": item}
            self._dynamodb.call("PutItem", request, timeout_s=budget.part(REMEMBER_S))
        except (Retryable, AwsError) as error:
            log("WARNING", "a delivery was not written down", connection=connection, error=str(error))

    def _get(self, pk: str, sk: str, timeout_s: float) -> Item | None:
        """A strongly consistent read."""
        request = {"TableName": self._table_name, "Key": {"pk": {"S": pk}, "sk": {"S": sk}}, "ConsistentRead": True}
        item: Item | None = self._dynamodb.call("GetItem", request, timeout_s=timeout_s).get("Item")
        return item


def retry_status(platform: str) -> int:
    """The status that makes a platform deliver again."""
    try:
        found = platforms.load(platform)
        return found.require(found.events).RETRY_STATUS
    except Rejected:
        return 503


def _match(address: Address, platform: str, given: str, now: int) -> EventAddress | None:
    """Every key is compared, and each in constant time."""
    matching = [key for key in address.keys if hmac.compare_digest(key.key_hash, given)]
    if address.platform != platform or not matching or not matching[0].works(now):
        return None
    return EventAddress(address.account_id, matching[0].header_hash)


def _delivery(connection: str, delivery: str) -> str:
    return f"EVENT#{connection}#{digest(delivery)}"


def _ed25519(public_key: bytes, signature: bytes, message: bytes) -> bool:
    # Only what is signed pays for this import.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _unknown_address() -> Rejected:
    return Rejected("unknown_address", "there is no such address", status=404)


def _too_large(size: int) -> Rejected:
    return Rejected("body_too_large", f"a body may have {MAX_BODY_BYTES} bytes; this has {size} or more", status=413)
