"""Receive events of platforms: their records are in the Records queue before the platform gets an answer.

The strictest platform waits two seconds, a cold start included, and they are spent so:

    0.4 s  until the handler starts: the caller's connection, API Gateway or the function URL, a cold start
    0.5 s  at most for the address, which is remembered for a minute
    0.8 s  at most for SQS
    0.3 s  for the answer's way back

An event that is not queued in that time is answered with the status that makes the platform deliver it again. Nothing is stored
elsewhere: the platform still has the event, and reconciliation finds the changes that the platform stops delivering.

Each address contains a secret key. This function reads no secret: the table holds the keys' SHA-256 (`EVENTS#{connection}`),
written by `webhook_endpoints`. An unknown connection and a wrong key get the same answer, after one read each. It is 404 and
not 403, because 403 would reveal that the connection exists.

A function URL has no throttle, so this module bounds what forged calls cost. A malformed path is refused without a read.
After `UNKNOWN_BURST` lookups that found no address, a process looks up at most `UNKNOWN_PER_S` addresses a second and answers
the rest with the platform's retry status. Remembered addresses need no lookup, so their events are still accepted.

This module is on the webhooks' cold path: no boto3, no Powertools, nothing that is not used there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time

from portaria import platforms
from portaria.aws.light_client import AwsClient, AwsError
from portaria.core import record_messages
from portaria.core.callbacks import EventAddress, WebhookDelivery
from portaria.core.cold_path.named_tuples import NamedTuple
from portaria.core.error_roots import Rejected, Retryable
from portaria.core.http.request import HttpRequest
from portaria.core.item_keys import ItemKey
from portaria.core.settings import ReceiveEventsSettings
from portaria.webhooks.light_table import LightTable
from portaria.webhooks.request_log import Tally, count, log
from portaria.webhooks.time_budget import TimeBudget
from portaria.webhooks.token_bucket import TokenBucket

HOOK_S = 1.7
WORK_S = 1.3
ADDRESS_READ_S = 0.5
QUEUE_S = 0.8
# The two calls that know a repeated delivery; without them it is queued once more, which does no harm.
REMEMBER_S = 0.4

# Every path that this function serves. API Gateway matches it; a function URL leaves that to the function.
ROUTE = "/events/{platform}/{connection}/{key}"
# Lookups that found no address: a burst for each process, and then this many a second.
UNKNOWN_BURST = 50
UNKNOWN_PER_S = 5.0
# With `SuccessLogs=summary`, a process writes its counts at most this often.
SUMMARY_S = 10.0

MAX_BODY_BYTES = 1_000_000
REMEMBERED_S = 60.0
MAX_REMEMBERED = 500
DELIVERY_LIFE_S = 24 * 60 * 60
SK = "KEY"
UNKNOWN_ADDRESS = "unknown_address"
ANONYMOUS_REFUSALS = frozenset({UNKNOWN_ADDRESS, "not_post", "too_many_unknown_addresses"})

# `{platform}-{client}-{account}` is longer than a name that somebody gives; SQS takes 128 characters for a group.
_CONNECTION = re.compile(r"[A-Za-z0-9_-]{3,128}")
_KEY = re.compile(r"[A-Za-z0-9_-]{32,64}")


class AnonymousRefusal(Rejected):
    """A refusal that anyone can cause, with one of `ANONYMOUS_REFUSALS`: counted in a summary, not logged by itself."""


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
        self._queue_url = settings.records_queue_url
        self._sqs = AwsClient("sqs", "AmazonSQS")
        self._table = LightTable(settings.table_name)
        self._addresses: dict[str, tuple[float, Address]] = {}
        self._unknown = TokenBucket(UNKNOWN_BURST, UNKNOWN_PER_S)
        self._tally = Tally(0.0 if settings.success_logs == "each" else SUMMARY_S)

    def receive(self, request: HttpRequest, budget: TimeBudget) -> None:
        """Queue the records of one delivery. Once this returns, its records are in the queue.

        Raises `Rejected`: 404 `unknown_address`, 413 `body_too_large`, 400 `bad_body`, `too_many_unknown_addresses` with the
        platform's retry status, or what the platform refuses.
        Raises `Retryable` and `AwsError` where it should be delivered again; some of its records may have been queued then.
        """
        connection = request.path_parameter("connection")
        now = int(time.time())
        address = self._check(request, now, budget)
        # After the address, because anyone can send a body.
        body = _check_body(request.body)
        platform = platforms.load(request.path_parameter("platform"))
        delivery = WebhookDelivery(request.headers.joined(), body, now, _ed25519)
        events = platform.require(platform.events).read(delivery, address)
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
        self._tally.add(deliveries=1, records=queued, mended=int(events.mended), **events.left)
        self._report(connection=connection, request=request.request_id)

    def refuse(self, rejected: Rejected, request: HttpRequest) -> None:
        """Log a delivery that was refused; never its key or its body. Anonymous refusals are counted."""
        connection = request.path_parameter("connection")
        shown = connection if _CONNECTION.fullmatch(connection) else ""
        if isinstance(rejected, AnonymousRefusal):
            self._tally.add(**{rejected.reason: 1})
            self._report(connection=shown, request=request.request_id)
            return
        log(
            "WARNING",
            "events_refused",
            reason=rejected.reason,
            detail=rejected.detail,
            refused=1,
            connection=shown,
            request=request.request_id,
        )
        count("EventsRefused")

    def _report(self, **newest: str) -> None:
        """Write the counts, if the last ones are old enough; `newest` names the delivery that was counted last.

        A process that receives nothing more leaves out what it counted in its last `SUMMARY_S` seconds.
        """
        counts = self._tally.take_due()
        if not counts:
            return
        refused = {reason: counts.pop(reason) for reason in ANONYMOUS_REFUSALS if reason in counts}
        mended = counts.pop("mended", 0)
        if deliveries := counts.pop("deliveries", 0):
            records = counts.pop("records", 0)
            log("INFO", "events_received", **newest, deliveries=deliveries, records=records, **counts)
            if records:
                count("EventsReceived", records)
            if counts:
                count("EventsIgnored", sum(counts.values()))
            if mended:
                count("EventsMended", mended)
        for reason, number in refused.items():
            log("WARNING", "events_refused", reason=reason, refused=number, **newest)
            count("EventsRefused", number)

    def _check(self, request: HttpRequest, now: int, budget: TimeBudget) -> EventAddress:
        """Raises `Rejected` (404 `unknown_address`) unless the path holds this connection's key."""
        platform, connection, key = (request.path_parameter(name) for name in ("platform", "connection", "key"))
        if not _CONNECTION.fullmatch(connection) or not _KEY.fullmatch(key):
            raise _unknown_address()
        given = digest(key)
        until, remembered = self._addresses.get(connection, (0.0, None))
        if remembered and time.monotonic() < until and (found := _match(remembered, platform, given, now)):
            return found
        # A key that is not remembered may be a new one, so only the table decides that it is unknown.
        if not self._unknown.has_token():
            detail = "calls of unknown addresses exceed the limit of lookups"
            raise AnonymousRefusal("too_many_unknown_addresses", detail, status=retry_status(platform))
        address = self._read_address(connection, budget.part(ADDRESS_READ_S))
        found = _match(address, platform, given, now) if address else None
        if not address or not found:
            self._unknown.take()
            raise _unknown_address()
        if len(self._addresses) >= MAX_REMEMBERED:
            self._addresses.clear()
        self._addresses[connection] = (time.monotonic() + REMEMBERED_S, address)
        return found

    def _read_address(self, connection: str, timeout_s: float) -> Address | None:
        item = self._table.get((partition(connection), SK), timeout_s)
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
            item = self._table.get(_delivery_key(connection, delivery), budget.part(REMEMBER_S))
        except (Retryable, AwsError) as error:
            log("WARNING", "delivery_not_looked_up", connection=connection, error=str(error))
            return False
        return item is not None

    def _remember(self, connection: str, delivery: str, now: int, budget: TimeBudget) -> None:
        """Only once its records are queued: after a death before that, the platform delivers it again."""
        pk, sk = _delivery_key(connection, delivery)
        try:
            self._table.put({"pk": pk, "sk": sk, "expires_at": now + DELIVERY_LIFE_S}, budget.part(REMEMBER_S))
        except (Retryable, AwsError) as error:
            log("WARNING", "delivery_not_remembered", connection=connection, error=str(error))


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


def _delivery_key(connection: str, delivery: str) -> ItemKey:
    return f"EVENT#{connection}#{digest(delivery)}", "EVENT"


def _check_body(body: bytes | None) -> bytes:
    if body is None:
        raise Rejected("bad_body", "the body cannot be decoded")
    if len(body) > MAX_BODY_BYTES:
        detail = f"a body may have {MAX_BODY_BYTES} bytes; this has {len(body)}"
        raise Rejected("body_too_large", detail, status=413)
    return body


def _ed25519(public_key: bytes, signature: bytes, message: bytes) -> bool:
    # Only what is signed pays for this import.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _unknown_address() -> AnonymousRefusal:
    return AnonymousRefusal(UNKNOWN_ADDRESS, "there is no such address", status=404)
