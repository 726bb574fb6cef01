"""Clients of AWS's JSON services: each operation, error and retry against boto3 on the same scripted server."""

from __future__ import annotations

import base64
import json
import random
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from unittest.mock import patch

import boto3
import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from hypothesis import given
from hypothesis import strategies as st

from portaria.aws import attribute_values, json_client
from portaria.aws.json_client import SERVICES, JsonClient

pytestmark = pytest.mark.enable_socket

KEY = {"pk": {"S": "A"}, "sk": {"S": "B"}}
ITEM = {**KEY, "count": {"N": "3"}, "bytes": {"B": b"\x00\xff"}, "map": {"M": {"B": {"S": "no bytes"}, "L": {"L": []}}}}
BLOB = b"\x00key\xff"
QUEUE = "https://sqs.us-east-1.amazonaws.com/000000000000/records"
TOKEN = "00000000-0000-4000-8000-000000000000"


class Example(NamedTuple):
    """One call and what the service answers, as JSON; bytes as base64."""

    service: str
    operation: str
    parameters: dict[str, Any]
    answer: dict[str, Any]


def wire(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda content: base64.b64encode(content).decode()))


EXAMPLES = [
    Example("dynamodb", "get_item", {"TableName": "t", "Key": KEY, "ConsistentRead": True}, {"Item": wire(ITEM)}),
    Example("dynamodb", "put_item", {"TableName": "t", "Item": ITEM, "ConditionExpression": "x"}, {}),
    Example(
        "dynamodb",
        "update_item",
        {
            "TableName": "t",
            "Key": KEY,
            "UpdateExpression": "SET a = :a",
            "ExpressionAttributeValues": {":a": {"B": BLOB}},
        },
        {"Attributes": wire(ITEM)},
    ),
    Example("dynamodb", "delete_item", {"TableName": "t", "Key": KEY}, {}),
    Example(
        "dynamodb",
        "query",
        {"TableName": "t", "KeyConditionExpression": "pk = :p", "Limit": 2, "ScanIndexForward": False},
        {"Items": [wire(ITEM)] * 2, "Count": 2, "ScannedCount": 2, "LastEvaluatedKey": KEY},
    ),
    Example(
        "dynamodb",
        "batch_get_item",
        {"RequestItems": {"t": {"Keys": [KEY]}}},
        {"Responses": {"t": [wire(ITEM)]}, "UnprocessedKeys": {"t": {"Keys": [KEY]}}},
    ),
    Example(
        "dynamodb",
        "batch_write_item",
        {"RequestItems": {"t": [{"PutRequest": {"Item": ITEM}}]}},
        {"UnprocessedItems": {"t": [{"PutRequest": {"Item": wire(ITEM)}}]}},
    ),
    Example(
        "dynamodb",
        "transact_write_items",
        {"TransactItems": [{"Put": {"TableName": "t", "Item": ITEM}}], "ClientRequestToken": TOKEN},
        {},
    ),
    Example("sqs", "send_message", {"QueueUrl": QUEUE, "MessageBody": "ü", "DelaySeconds": 3}, {"MessageId": "1"}),
    Example("sqs", "change_message_visibility", {"QueueUrl": QUEUE, "ReceiptHandle": "r", "VisibilityTimeout": 5}, {}),
    Example(
        "events",
        "put_events",
        {"Entries": [{"Source": "portaria", "DetailType": "x", "Detail": "{}", "EventBusName": "b"}]},
        {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]},
    ),
    Example(
        "kms",
        "generate_data_key",
        {"KeyId": "k", "KeySpec": "AES_256", "EncryptionContext": {"connection": "a"}},
        wire({"KeyId": "k", "Plaintext": BLOB, "CiphertextBlob": BLOB}),
    ),
    Example("kms", "decrypt", {"KeyId": "k", "CiphertextBlob": BLOB}, wire({"KeyId": "k", "Plaintext": BLOB})),
    Example(
        "secretsmanager",
        "get_secret_value",
        {"SecretId": "s", "VersionId": TOKEN},
        {"Name": "s", "VersionId": TOKEN, "SecretString": '{"a": "ü"}', "VersionStages": ["AWSCURRENT"]},
    ),
    Example(
        "secretsmanager",
        "create_secret",
        {"Name": "s", "SecretString": "x", "ClientRequestToken": TOKEN},
        {"Name": "s", "VersionId": TOKEN},
    ),
    Example(
        "secretsmanager",
        "put_secret_value",
        {"SecretId": "s", "SecretString": "x", "VersionStages": ["ASIDE-1"], "ClientRequestToken": TOKEN},
        {"VersionId": TOKEN},
    ),
    Example(
        "secretsmanager",
        "update_secret_version_stage",
        {"SecretId": "s", "VersionStage": "AWSCURRENT", "MoveToVersionId": TOKEN},
        {"Name": "s"},
    ),
    Example(
        "secretsmanager", "describe_secret", {"SecretId": "s"}, {"Name": "s", "VersionIdsToStages": {TOKEN: ["A"]}}
    ),
    Example("secretsmanager", "delete_secret", {"SecretId": "s", "RecoveryWindowInDays": 7}, {"Name": "s"}),
]


class Asked(NamedTuple):
    headers: dict[str, str]
    body: Any


@dataclass
class Scripted:
    """Answers requests with `script`, its last entry again and again: a status, headers and a body, or `drop` or `hang`."""

    url: str = ""
    script: list[tuple[int, dict[str, str], bytes] | str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def answers(self, *script: tuple[int, dict[str, str], Any] | str) -> None:
        self.asked.clear()
        self.script = [
            each if isinstance(each, str) else (each[0], each[1], json.dumps(each[2]).encode()) for each in script
        ]


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    scripted = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scripted.asked.append(Asked({name.lower(): value for name, value in self.headers.items()}, body))
            entry = scripted.script.pop(0) if len(scripted.script) > 1 else scripted.script[0]
            if isinstance(entry, str):
                if entry == "hang":
                    scripted.released.wait(10)
                self.close_connection = True
                return
            status, headers, content = entry
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        scripted.url = f"http://127.0.0.1:{listening.server_address[1]}"
        yield scripted
        scripted.released.set()
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch, server: Scripted) -> list[float]:
    """The waits before retries, which take no time here."""
    waited: list[float] = []
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setattr("portaria.core.clock.sleep", waited.append)
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    return waited


_made: list[Any] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    """Close the clients of a test."""
    yield
    while _made:
        _made.pop().close()


def json_client_of(service: str) -> JsonClient:
    _made.append(made := JsonClient(service))
    return made


def boto3_client(service: str) -> Any:
    retries = {"mode": "standard", "total_max_attempts": 3}
    made = boto3.client(service, config=Config(connect_timeout=1, read_timeout=3, retries=retries))
    _made.append(made)
    return made


def outcome(call: Callable[[], Any]) -> Any:
    """The answer, or what identifies the error."""
    try:
        answer = call()
    except ClientError as error:
        shown = {
            name: value
            for name, value in error.response.items()
            if name not in ("ResponseMetadata", "message", "Message")
        }
        return shown, error.operation_name, str(error)
    except BotoCoreError as error:
        return type(error).__name__
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def both(server: Scripted, service: str, operation: str, parameters: dict[str, Any], *script: Any) -> list[Any]:
    """The outcome of ours and of boto3's client, and what each of them sent."""
    found = []
    for client in (json_client_of(service), boto3_client(service)):
        server.answers(*script)
        result = outcome(partial(getattr(client, operation), **parameters))
        found.append((result, list(server.asked)))
    return found


def test_examples_cover_each_operation() -> None:
    listed = {(name, operation) for name, service in SERVICES.items() for operation in service.operations}
    assert {(example.service, example.operation) for example in EXAMPLES} == listed


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.service}-{example.operation}")
def test_operation_request_and_answer_equal_boto3(server: Scripted, example: Example) -> None:
    ours, theirs = both(server, example.service, example.operation, example.parameters, (200, {}, example.answer))
    assert ours[0] == theirs[0]
    (sent,), (expected,) = ours[1], theirs[1]
    assert sent.body == expected.body
    for name in ("x-amz-target", "content-type"):
        assert sent.headers[name] == expected.headers[name]
    # The same service and region are signed.
    scope = [each.headers["authorization"].split("/", 2)[2].partition(",")[0] for each in (sent, expected)]
    assert scope[0] == scope[1]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_endpoint_equals_boto3(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for region in ("us-east-1", "sa-east-1", "us-gov-west-1", "cn-north-1"):
        monkeypatch.setenv("AWS_REGION", region)
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        client = json_client_of(name)._idle[0]
        assert f"{client._scheme}://{client._host}" == boto3_client(name).meta.endpoint_url
    variable = f"AWS_ENDPOINT_URL_{SERVICES[name].service_id or name.upper()}"
    monkeypatch.setenv(variable, "https://vpce.example.com")
    assert json_client_of(name)._idle[0]._host == "vpce.example.com"
    assert boto3_client(name).meta.endpoint_url == "https://vpce.example.com"


CONDITION = {"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", "message": "no"}
CANCELLED = {
    "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
    "Message": "cancelled",
    "CancellationReasons": [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Message": "no", "Item": wire(ITEM)}],
}
GONE = {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "gone"}
QUERY_ERROR = {"x-amzn-query-error": "AWS.SimpleQueueService.NonExistentQueue;Sender"}


@pytest.mark.parametrize(
    ("service", "operation", "status", "headers", "answer"),
    [
        ("dynamodb", "put_item", 400, {}, CONDITION),
        ("dynamodb", "put_item", 400, {}, {**CONDITION, "Item": wire(ITEM)}),
        ("dynamodb", "transact_write_items", 400, {}, CANCELLED),
        ("dynamodb", "query", 400, {"x-amzn-ErrorType": "ValidationException:http://x/"}, {"message": "bad"}),
        ("secretsmanager", "get_secret_value", 400, {}, {"__type": "ResourceNotFoundException", "Message": "none"}),
        ("kms", "decrypt", 400, {}, {"__type": "InvalidCiphertextException"}),
        ("sqs", "send_message", 400, {}, GONE),
        ("sqs", "send_message", 404, {}, {}),
    ],
)
def test_error_equals_boto3(
    server: Scripted, service: str, operation: str, status: int, headers: dict[str, str], answer: dict[str, Any]
) -> None:
    parameters = next(each.parameters for each in EXAMPLES if (each.service, each.operation) == (service, operation))
    ours, theirs = both(server, service, operation, parameters, (status, headers, answer))
    assert ours[0] == theirs[0]
    assert len(ours[1]) == len(theirs[1]) == 1


def test_error_code_of_sqs_is_the_one_of_its_query_protocol(server: Scripted) -> None:
    send = {"QueueUrl": QUEUE, "MessageBody": "x"}
    ours, theirs = both(server, "sqs", "send_message", send, (400, QUERY_ERROR, GONE))
    assert [found[0][0]["Error"]["Code"] for found in (ours, theirs)] == ["AWS.SimpleQueueService.NonExistentQueue"] * 2


def refusal(status: int, code: str) -> tuple[int, dict[str, str], dict[str, str]]:
    return status, {}, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "later"}


@pytest.mark.parametrize(
    "fault",
    [
        *(refusal(400, code) for code in sorted(json_client.THROTTLING | json_client.TRANSIENT)),
        *(refusal(status, "InternalServerError") for status in (500, 502, 503, 504)),
        *(refusal(429, "Whatever"), refusal(501, "Whatever"), refusal(400, "AccessDeniedException")),
        (200, {"x-amz-crc32": "1"}, {}),
        "drop",
    ],
    ids=lambda fault: (
        f"{fault[0]}-{fault[2].get('__type', 'checksum').rpartition('#')[2]}" if fault != "drop" else fault
    ),
)
def test_retries_of_lasting_fault_equal_boto3(server: Scripted, fault: Any) -> None:
    ours, theirs = both(server, "dynamodb", "delete_item", {"TableName": "t", "Key": KEY}, fault)
    assert len(ours[1]) == len(theirs[1])


def test_third_attempt_succeeds_as_with_boto3(server: Scripted) -> None:
    answer: Any = (200, {}, {"Attributes": wire(ITEM)})
    script = ("drop", refusal(400, "ThrottlingException"), answer)
    ours, theirs = both(server, "dynamodb", "delete_item", {"TableName": "t", "Key": KEY}, *script)
    assert ours[0] == theirs[0] == {"Attributes": ITEM}
    assert len(ours[1]) == len(theirs[1]) == 3


def test_correct_checksum_is_accepted(server: Scripted) -> None:
    content: Any = {"Item": wire(ITEM)}
    server.answers((200, {"x-amz-crc32": str(zlib.crc32(json.dumps(content).encode()))}, content))
    assert json_client_of("dynamodb").get_item(TableName="t", Key=KEY) == {"Item": ITEM}
    assert len(server.asked) == 1


def test_waits_grow_and_are_longer_after_throttling(server: Scripted, waits: list[float]) -> None:
    with patch.object(random, "random", return_value=1.0):
        for service, fault in (("dynamodb", 500), ("sqs", 500), ("sqs", 429)):
            server.answers((fault, {}, {}))
            example = next(each for each in EXAMPLES if each.service == service)
            outcome(partial(getattr(json_client_of(service), example.operation), **example.parameters))
    assert waits == [0.025, 0.05, 0.05, 0.1, 1.0, 2.0]


def test_wait_that_the_service_asks_for_is_kept_up_to_five_seconds(server: Scripted, waits: list[float]) -> None:
    with patch.object(random, "random", return_value=0.0):
        for asked_ms in ("1500", "900000", "soon"):
            server.answers((503, {"x-amz-retry-after": asked_ms}, {}), (200, {}, {}))
            json_client_of("dynamodb").get_item(TableName="t", Key=KEY)
    assert waits == [1.5, 5.0, 0.0]


def test_retry_quota_exhausted_ends_retries_until_calls_succeed(server: Scripted) -> None:
    client = json_client_of("dynamodb")

    def attempts(*script: Any) -> int:
        server.answers(*script)
        outcome(lambda: client.get_item(TableName="t", Key=KEY))
        return len(server.asked)

    failing = [attempts((500, {}, {})) for _ in range(20)]
    # 500 tokens, 14 for each retry: 35 retries.
    assert sum(failing) == 20 + json_client.RETRY_QUOTA // json_client.RETRY_COST
    assert failing[-1] == 1
    for _ in range(json_client.RETRY_COST):
        attempts((200, {}, {}))
    assert attempts((500, {}, {})) == 2


@pytest.mark.parametrize(
    ("service", "operation"),
    [("dynamodb", "transact_write_items"), ("secretsmanager", "create_secret"), ("secretsmanager", "put_secret_value")],
)
def test_write_with_token_has_one_token_for_all_attempts_and_another_for_the_next_call(
    server: Scripted, service: str, operation: str
) -> None:
    example = next(each for each in EXAMPLES if (each.service, each.operation) == (service, operation))
    parameters = {name: value for name, value in example.parameters.items() if name != "ClientRequestToken"}
    client = json_client_of(service)
    tokens = []
    for _ in range(2):
        server.answers("drop", (500, {}, {}), (200, {}, example.answer))
        getattr(client, operation)(**parameters)
        sent = {asked.body["ClientRequestToken"] for asked in server.asked}
        assert len(server.asked) == 3
        tokens.append(sent)
    assert [len(sent) for sent in tokens] == [1, 1]
    assert tokens[0] != tokens[1]


def test_no_answer_is_a_read_timeout(server: Scripted) -> None:
    server.answers("hang")
    with patch.object(json_client, "ATTEMPT_S", 0.05), pytest.raises(ReadTimeoutError):
        json_client_of("dynamodb").get_item(TableName="t", Key=KEY)
    assert len(server.asked) == 3


def test_answer_that_is_no_json_is_retried_and_a_broken_connection(server: Scripted) -> None:
    server.script = [(200, {}, b"<html>")]
    server.asked.clear()
    with pytest.raises(ConnectionClosedError):
        json_client_of("dynamodb").get_item(TableName="t", Key=KEY)
    assert len(server.asked) == 3


def test_refused_connection_is_an_endpoint_connection_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(EndpointConnectionError):
        json_client_of("sqs").send_message(QueueUrl=QUEUE, MessageBody="x")


def test_answer_of_several_megabytes_is_read(server: Scripted) -> None:
    item = {**KEY, "text": {"S": "ü" * 2_000_000}}
    server.answers((200, {}, {"Items": [item]}))
    assert json_client_of("dynamodb").query(TableName="t")["Items"] == [item]


def test_concurrent_calls_use_connections_of_their_own_and_keep_at_most_ten(server: Scripted) -> None:
    client = json_client_of("dynamodb")
    together = threading.Barrier(16)
    exchange = JsonClient._exchange

    def meet(self: JsonClient, operation: str, body: bytes) -> Any:
        together.wait(10)
        return exchange(self, operation, body)

    server.answers((200, {}, {"Item": wire(ITEM)}))
    with patch.object(JsonClient, "_exchange", meet), ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: client.get_item(TableName="t", Key=KEY), range(16)))
    assert found == [{"Item": ITEM}] * 16
    assert len(client._idle) <= json_client.MAX_IDLE_CONNECTIONS


def test_unlisted_operation_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="dynamodb has no operation scan"):
        json_client_of("dynamodb").scan(TableName="t")


def test_trace_of_the_invocation_is_sent_on_unsigned(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=1:1d3a:0")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "manage")
    ours, theirs = both(server, "sqs", "send_message", {"QueueUrl": QUEUE, "MessageBody": "x"}, (200, {}, {}))
    (sent,), (expected,) = ours[1], theirs[1]
    assert sent.headers["x-amzn-trace-id"] == expected.headers["x-amzn-trace-id"]
    assert "x-amzn-trace-id" not in sent.headers["authorization"]


# ------------------------------------------------------------------------------------------------------ attribute values

numbers = st.integers(-(10**38) + 1, 10**38 - 1) | st.decimals(
    allow_nan=False, allow_infinity=False, min_value=Decimal(-(10**20)), max_value=Decimal(10**20), places=6
)
scalars = st.none() | st.booleans() | numbers | st.text() | st.binary()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
) | st.sets(st.text(), min_size=1, max_size=4)


@given(values)
def test_attribute_value_of_any_value_equals_boto3(value: Any) -> None:
    typed = attribute_values.typed(value)
    assert typed == TypeSerializer().serialize(value)
    assert attribute_values.plain(typed) == _simple(TypeDeserializer().deserialize(typed))


@pytest.mark.parametrize(
    "value",
    [0.5, object(), set(), {1, "a"}, Decimal("NaN"), Decimal("Infinity")],
    ids=["float", "object", "empty set", "mixed set", "not a number", "infinity"],
)
def test_attribute_value_of_unsupported_value_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ArithmeticError)):
        attribute_values.typed(value)


@pytest.mark.parametrize("value", [10**38 + 1, Decimal("1." + "1" * 40)], ids=str)
def test_attribute_value_of_number_that_dynamodb_would_change_is_refused(value: int | Decimal) -> None:
    for typed in (attribute_values.typed, TypeSerializer().serialize):
        with pytest.raises(ArithmeticError):
            typed(value)


def _simple(value: Any) -> Any:
    """boto3's value with Python's own numbers and bytes."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _simple(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_simple(inner) for inner in value]
    return bytes(value) if hasattr(value, "value") else value
