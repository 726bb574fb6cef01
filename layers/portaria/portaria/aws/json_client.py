"""Clients of AWS's JSON services with the interface of boto3's: its parameters, answers, retries and errors.

Importing boto3 and creating two clients takes about half of a function's cold start. The five services that most functions
call share one protocol, for which `light_client` is enough. Their operations are listed here, and a test compares each of them
with boto3. Differences from boto3's answers: times stay numbers, and only errors have `ResponseMetadata`.

Retries follow botocore's mode `standard`: three attempts, exponential backoff with jitter, and a quota for each service.
https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
"""

from __future__ import annotations

import json
import random
import threading
import uuid
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from portaria.aws.light_client import AwsClient, NotSent
from portaria.core import clock

# An attempt has two seconds to connect, and four in total. A worker that has just received a grant has 20 s left. That is
# enough for Secrets Manager to time out three times, and for the table to store the grant then.
ATTEMPTS, CONNECT_S, ATTEMPT_S = 3, 2.0, 4.0
MAX_IDLE_CONNECTIONS = 10
# A batch read returns up to 16 MB of items.
MAX_BODY_BYTES = 32 * 1024 * 1024

# botocore.retries.standard, botocore.retries.quota
RETRY_QUOTA, RETRY_COST, THROTTLING_COST, REFUND = 500, 14, 5, 1
MAX_BACKOFF_S, THROTTLING_BACKOFF_S, MAX_ADDED_WAIT_S = 20.0, 1.0, 5.0
TRANSIENT_STATUS = (500, 502, 503, 504)
TRANSIENT = frozenset(
    {"PriorRequestNotComplete", "ReplicatedWriteConflictException", "RequestTimeout", "RequestTimeoutException"}
)
THROTTLING = frozenset(
    {
        "BandwidthLimitExceeded", "EC2ThrottledException", "LimitExceededException", "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException",
        "SlowDown", "ThrottledException", "Throttling", "ThrottlingException", "TooManyRequestsException",
        "TransactionInProgressException",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Service:
    """A service and the operations that the product calls, by their names in Python.

    `tokens` are the operations whose `ClientRequestToken` makes a repetition harmless: without one, an id is sent.
    `blobs` are the members of answers that are bytes.
    """

    target_prefix: str
    json_version: str
    operations: dict[str, str]
    service_id: str = ""
    tokens: frozenset[str] = frozenset()
    blobs: frozenset[str] = frozenset()
    backoff_s: float = 0.05


def _operations(*names: str) -> dict[str, str]:
    """`put_item` → `PutItem`"""
    return {name: name.title().replace("_", "") for name in names}


SERVICES = {
    "dynamodb": Service(
        "DynamoDB_20120810",
        "1.0",
        _operations(
            "batch_get_item", "batch_write_item", "delete_item", "get_item", "put_item", "query", "transact_write_items",
            "update_item",
        ),
        tokens=frozenset({"TransactWriteItems"}),
        backoff_s=0.025,
    ),
    "events": Service("AWSEvents", "1.1", _operations("put_events"), service_id="EVENTBRIDGE"),
    "kms": Service(
        "TrentService", "1.1", _operations("decrypt", "generate_data_key"), blobs=frozenset({"CiphertextBlob", "Plaintext"})
    ),
    "secretsmanager": Service(
        "secretsmanager",
        "1.1",
        _operations(
            "create_secret", "delete_secret", "describe_secret", "get_secret_value", "put_secret_value",
            "update_secret_version_stage",
        ),
        service_id="SECRETS_MANAGER",
        tokens=frozenset({"CreateSecret", "PutSecretValue"}),
    ),
    "sqs": Service("AmazonSQS", "1.0", _operations("change_message_visibility", "send_message")),
}  # fmt: skip


class JsonClient:
    """A client of one of `SERVICES`, for use by several threads: `JsonClient("sqs").send_message(QueueUrl=…, …)`.

    Raises botocore's `ClientError` for an error answer, and another `BotoCoreError` if no answer came.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._service = SERVICES[name]
        self._quota = RetryQuota()
        # The first connection's client is created with the function: Lambda gives that phase a full processor.
        self._idle = [self._connection()]

    def __getattr__(self, name: str) -> Callable[..., dict[str, Any]]:
        operation = SERVICES[self._name].operations.get(name)
        if operation is None:
            raise AttributeError(f"{self._name} has no operation {name} here")
        return partial(self._call, operation)

    def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().close()

    def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        if operation in self._service.tokens:
            # All attempts send the same token, so that AWS carries out the write only once.
            parameters.setdefault("ClientRequestToken", str(uuid.uuid4()))
        body = json.dumps(parameters, separators=(",", ":"), default=_encode).encode()
        answer: dict[str, Any] | Exception
        attempt, taken = 1, 0
        while True:
            try:
                answer, wait_s, cost = self._attempt(operation, body, attempt)
            except BotoCoreError as error:
                answer, wait_s, cost = error, self._backoff_s(attempt), RETRY_COST
            if not isinstance(answer, Exception):
                self._quota.give_back(taken or REFUND)
                return answer
            if not cost or attempt == ATTEMPTS or not self._quota.take(cost):
                raise answer
            attempt, taken = attempt + 1, cost
            clock.sleep(wait_s)

    def _attempt(self, operation: str, body: bytes, attempt: int) -> tuple[dict[str, Any] | ClientError, float, int]:
        """The answer or the error, how long to wait before a retry, and the retry's cost: 0 if there must be none."""
        status, headers, content = self._exchange(operation, body)
        checksum = headers.get("x-amz-crc32")
        if checksum and int(checksum) != zlib.crc32(content):
            raise ConnectionClosedError(endpoint_url=self._name)
        if status < 300:
            return self._read(content), 0.0, 0
        error = self._error(operation, status, headers, content)
        code = error.response["Error"]["Code"]
        is_throttled = code in THROTTLING or status == 429
        if not (is_throttled or code in TRANSIENT or status in TRANSIENT_STATUS):
            return error, 0.0, 0
        wait_s = self._backoff_s(attempt, is_throttled=is_throttled)
        if (asked_ms := headers.get("x-amz-retry-after", "")).isdecimal():
            wait_s = max(wait_s, min(int(asked_ms) / 1000, wait_s + MAX_ADDED_WAIT_S))
        return error, wait_s, THROTTLING_COST if is_throttled else RETRY_COST

    def _exchange(self, operation: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Raises `BotoCoreError` if no answer came."""
        connection = self._take()
        try:
            answer = connection.exchange(operation, body, timeout_s=ATTEMPT_S, connect_timeout_s=CONNECT_S)
        except NotSent as error:
            raise EndpointConnectionError(endpoint_url=self._name, error=error) from None
        except TimeoutError:
            raise ReadTimeoutError(endpoint_url=self._name) from None
        except (OSError, ValueError):
            raise ConnectionClosedError(endpoint_url=self._name) from None
        finally:
            if len(self._idle) < MAX_IDLE_CONNECTIONS:
                self._idle.append(connection)
            else:
                connection.close()
        return answer

    def _take(self) -> AwsClient:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connection()

    def _connection(self) -> AwsClient:
        return AwsClient(
            self._name,
            self._service.target_prefix,
            json_version=self._service.json_version,
            service_id=self._service.service_id,
            max_body_bytes=MAX_BODY_BYTES,
        )

    def _read(self, content: bytes) -> dict[str, Any]:
        """An answer's JSON. Raises `ConnectionClosedError` where it is none."""
        # Few items have binary attributes, and looking at every object takes time.
        hook = _decode_binary if b'"B":' in content or b'"BS":' in content else None
        try:
            answer = json.loads(content or b"{}", object_hook=hook)
        except ValueError:
            raise ConnectionClosedError(endpoint_url=self._name) from None
        for name in self._service.blobs.intersection(answer):
            answer[name] = b64decode(answer[name])
        return dict(answer)

    def _error(self, operation: str, status: int, headers: dict[str, str], content: bytes) -> ClientError:
        try:
            answer = json.loads(content, object_hook=_decode_binary)
        except ValueError:
            answer = {}
        fields = answer if isinstance(answer, dict) else {}
        # `com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException`, and after a colon a URL.
        named = fields.pop("__type", "") or fields.get("code") or str(status)
        code = str(named).partition(":")[0].rpartition("#")[2]
        # The code of SQS's former protocol, which boto3 reports.
        code = headers.get("x-amzn-query-error", "").partition(";")[0] or code
        message = fields.pop("message", None) or fields.pop("Message", None) or ""
        return ClientError(
            {**fields, "Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},
            operation,
        )

    def _backoff_s(self, attempt: int, *, is_throttled: bool = False) -> float:
        first_s = THROTTLING_BACKOFF_S if is_throttled else self._service.backoff_s
        return random.random() * min(first_s * 2.0 ** (attempt - 1), MAX_BACKOFF_S)  # noqa: S311 - jitter


class RetryQuota:
    """Limits the retries of a process, so that they do not overload a service that fails. Thread-safe."""

    def __init__(self) -> None:
        self._left = RETRY_QUOTA
        self._lock = threading.Lock()

    def take(self, cost: int) -> bool:
        with self._lock:
            if cost > self._left:
                return False
            self._left -= cost
            return True

    def give_back(self, cost: int) -> None:
        with self._lock:
            self._left = min(RETRY_QUOTA, self._left + cost)


def _encode(value: Any) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not a parameter's type")


def _decode_binary(value: dict[str, Any]) -> dict[str, Any]:
    """A binary attribute value (`{"B": "aGk="}`) with bytes. Attributes that have the name B have an object as their value."""
    if len(value) == 1:
        ((kind, content),) = value.items()
        if kind == "B" and isinstance(content, str):
            return {kind: b64decode(content)}
        if kind == "BS" and isinstance(content, list):
            return {kind: [b64decode(each) for each in content]}
    return value
