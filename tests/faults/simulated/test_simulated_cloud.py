"""The in-memory AWS of the simulation must refuse what AWS refuses, or its results mean nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from portaria.aws import attribute_values, service_clients
from portaria.aws.table import Conflict, Table, put_of, update_of
from portaria.connections.vault import Vault
from portaria.core import clock
from tests.simulation.aws import expressions
from tests.simulation.aws.cloud import KEY_ID, PREFIX, TABLE, Cloud, Sqs, installed, plain
from tests.simulation.aws.expressions import UnknownSyntax


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    with installed(lambda: made):
        yield made


def code(call: Any, **parameters: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call(**parameters)
    return service_clients.error_code(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "a IN (:one, :other)",
        "a BETWEEN :one AND :other",
        "size(a) > :one",
        "contains(a, :one)",
        "a.b = :one",
        "a = :one AND",
        "(a = :one",
        "a == :one",
        "attribute_type(a, :one)",
        "a = :one; b = :other",
    ],
)
def test_simulated_dynamodb_unsupported_condition_is_an_error(text: str) -> None:
    with pytest.raises(UnknownSyntax):
        expressions.condition(text, ())


@pytest.mark.parametrize(
    "text", ["SET a = list_append(a, :one)", "SET a", "DELETE a :one", "SET a = :one SET b = :one"]
)
def test_simulated_dynamodb_unsupported_update_is_an_error(text: str) -> None:
    with pytest.raises(UnknownSyntax):
        expressions.update(text, ())


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a = :one", True),
        ("a < :one OR n > :n", False),
        ("a = :one AND (n = :n OR b = :one)", True),
        ("NOT a = :one", False),
        ("missing = :one", False),
        ("missing <> :one", True),
        ("missing < :n", False),
        ("n <= :n", True),
        ("a < :n", False),
        ("attribute_exists(a) AND attribute_not_exists(missing)", True),
        ("begins_with(a, :one)", True),
        ("begins_with(missing, :one)", False),
        ("#s = :one", True),
    ],
)
def test_simulated_dynamodb_conditions_evaluate_as_documented(text: str, holds: bool) -> None:
    test, _, _ = expressions.condition(text, (("#s", "a"),))
    item = {"a": {"S": "x"}, "n": {"N": "9"}}
    assert test(item, {":one": {"S": "x"}, ":n": {"N": "9"}}) is holds


def test_simulated_dynamodb_numbers_are_compared_as_numbers() -> None:
    test, _, _ = expressions.condition("n < :n", ())
    assert test({"n": {"N": "9"}}, {":n": {"N": "10"}})


def test_simulated_dynamodb_codec_equals_boto3() -> None:
    item = {
        "text": "é", "number": 12, "negative": -3, "flag": True, "bytes": b"x", "list": ["a", 1], "map": {"a": {"b": "c"}},
        "empty": "",
    }  # fmt: skip
    assert {name: attribute_values.typed(value) for name, value in item.items()} == {
        name: TypeSerializer().serialize(value) for name, value in item.items()
    }
    typed = {name: attribute_values.typed(value) for name, value in item.items()}
    assert plain(typed) == item
    del typed["bytes"], item["bytes"]
    assert {name: TypeDeserializer().deserialize(value) for name, value in typed.items()} == item


def test_simulated_dynamodb_transaction_is_atomic(cloud: Cloud) -> None:
    table = Table(TABLE)
    table.put({"pk": "a", "sk": "a", "n": 1})
    with pytest.raises(Conflict):
        table.write_all([put_of({"pk": "b", "sk": "b"}), update_of("a", "a", "SET n = :two", "n = :two", {":two": 2})])
    assert table.get("b", "b") is None
    assert table.get("a", "a") == {"pk": "a", "sk": "a", "n": 1}
    table.write_all([put_of({"pk": "b", "sk": "b"}), update_of("a", "a", "SET n = n + :two", "n < :two", {":two": 2})])
    assert table.get("a", "a") == {"pk": "a", "sk": "a", "n": 3}
    assert table.get("b", "b")


@pytest.mark.parametrize(
    "values", [{":one": 1, ":unused": 2}, {}], ids=["a value that nothing uses", "a value that is missing"]
)
def test_simulated_dynamodb_unused_or_missing_value_is_refused(cloud: Cloud, values: dict[str, int]) -> None:
    with pytest.raises(ClientError) as refused:
        Table(TABLE).update("a", "a", "SET n = :one", values=values)
    assert service_clients.error_code(refused.value) == "ValidationException"


def test_simulated_dynamodb_index_returns_items_in_order_by_page(cloud: Cloud) -> None:
    table = Table(TABLE)
    for number in (3, 1, 2, 9):
        table.put({"pk": f"p{number}", "sk": "x", "due_pk": "DUE", "due_at": f"2026-0{number}"})
    table.update("p2", "x", "SET due_at = :later", values={":later": "2026-08"})
    first, cursor = table.query("DUE", index="by_due", sk_until="2026-08", limit=2)
    rest, end = table.query("DUE", index="by_due", sk_until="2026-08", limit=2, cursor=cursor)
    assert [item["pk"] for item in (*first, *rest)] == ["p1", "p3", "p2"]
    assert end is None
    assert (
        code(
            service_clients.client("dynamodb").put_item,
            TableName=TABLE,
            Item={name: attribute_values.typed(value) for name, value in {"pk": "a", "sk": "a", "due_at": ""}.items()},
        )
        == "ValidationException"
    )


def test_simulated_secretsmanager_versions_are_immutable_and_labels_swap_atomically(cloud: Cloud) -> None:
    manager = service_clients.client("secretsmanager")
    v1, v2 = (str(uuid.UUID(int=number)) for number in (1, 2))
    manager.create_secret(Name="s", SecretString="1", ClientRequestToken=v1)
    assert code(manager.create_secret, Name="s", SecretString="2") == "ResourceExistsException"
    manager.put_secret_value(SecretId="s", SecretString="2", ClientRequestToken=v2, VersionStages=["AWSPENDING"])
    manager.put_secret_value(SecretId="s", SecretString="2", ClientRequestToken=v2)
    assert code(manager.put_secret_value, SecretId="s", SecretString="3", ClientRequestToken=v2) == (
        "ResourceExistsException"
    )
    assert manager.get_secret_value(SecretId="s")["SecretString"] == "1"
    move = {"SecretId": "s", "VersionStage": "AWSCURRENT", "MoveToVersionId": v2}
    assert code(manager.update_secret_version_stage, **move) == "InvalidParameterException"
    manager.update_secret_version_stage(**move, RemoveFromVersionId=v1)
    assert code(manager.update_secret_version_stage, **move, RemoveFromVersionId=v1) == "InvalidParameterException"
    assert manager.describe_secret(SecretId="s")["VersionIdsToStages"] == {
        v1: ["AWSPREVIOUS"],
        v2: ["AWSCURRENT", "AWSPENDING"],
    }
    manager.delete_secret(SecretId="s", RecoveryWindowInDays=7)
    for call in (manager.get_secret_value, manager.delete_secret):
        assert code(call, SecretId="s") == "InvalidRequestException"
    assert code(manager.create_secret, Name="s", SecretString="1") == "InvalidRequestException"
    assert Vault(PREFIX).read("s") is None


def test_simulated_kms_data_key_is_decrypted_only_in_its_context(cloud: Cloud) -> None:
    kms = service_clients.client("kms")
    made = kms.generate_data_key(KeyId=KEY_ID, KeySpec="AES_256", EncryptionContext={"connection": "a"})
    opened = kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext={"connection": "a"}, KeyId=KEY_ID)
    assert opened["Plaintext"] == made["Plaintext"]
    assert code(kms.decrypt, CiphertextBlob=made["CiphertextBlob"], EncryptionContext={"connection": "b"}) == (
        "InvalidCiphertextException"
    )


def test_simulated_aws_unsupported_operation_is_an_error(cloud: Cloud) -> None:
    with pytest.raises(UnknownSyntax):
        service_clients.client("dynamodb").scan(TableName=TABLE)


# ------------------------------------------------------------------------------------------------------------------- SQS

RECORDS = Cloud.url("records")


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that stands still until a test changes `time["now"]`."""
    standing = {"now": datetime(2026, 3, 4, tzinfo=UTC)}
    monkeypatch.setattr(clock, "now", lambda: standing["now"])
    return standing


def receive(**how: Any) -> list[dict[str, Any]]:
    answer = service_clients.client("sqs").receive_message(QueueUrl=RECORDS, **{"MaxNumberOfMessages": 10, **how})
    return list(answer["Messages"])


def test_simulated_sqs_message_over_one_mebibyte_is_refused(cloud: Cloud) -> None:
    send = service_clients.client("sqs").send_message
    send(QueueUrl=RECORDS, MessageBody="é" * 524_288)
    assert code(send, QueueUrl=RECORDS, MessageBody="é" * 524_288 + "x") == "InvalidParameterValue"
    assert code(send, QueueUrl=RECORDS, MessageBody="x", DelaySeconds=901) == "InvalidParameterValue"


def test_simulated_sqs_visibility_is_limited_to_twelve_hours_since_receive(cloud: Cloud, time: Any) -> None:
    sqs = service_clients.client("sqs")
    sqs.send_message(QueueUrl=RECORDS, MessageBody="x")
    (message,) = receive(VisibilityTimeout=725)
    time["now"] += timedelta(seconds=3)
    change = {"QueueUrl": RECORDS, "ReceiptHandle": message["ReceiptHandle"]}
    assert code(sqs.change_message_visibility, **change, VisibilityTimeout=43_200) == "InvalidParameterValue"
    assert code(sqs.change_message_visibility, **change, VisibilityTimeout=43_198) == "InvalidParameterValue"
    # Refused calls changed nothing
    time["now"] += timedelta(seconds=722)
    (message,) = receive()
    assert message["Attributes"]["ApproximateReceiveCount"] == "2"
    sqs.change_message_visibility(**change, VisibilityTimeout=43_200)
    assert receive() == []


def test_simulated_sqs_receive_over_in_flight_limit_is_refused_until_deletion(
    cloud: Cloud, time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sqs, "MAX_IN_FLIGHT", 3)
    sqs = service_clients.client("sqs")
    for number in range(5):
        sqs.send_message(QueueUrl=RECORDS, MessageBody=str(number), DelaySeconds=600 * (number == 4))
    found = receive()
    assert [message["Body"] for message in found] == ["0", "1", "2"]
    assert code(sqs.receive_message, QueueUrl=RECORDS) == "OverLimit"
    sqs.delete_message(QueueUrl=RECORDS, ReceiptHandle=found[0]["ReceiptHandle"])
    # A delayed message is not in flight, and not visible either
    assert [message["Body"] for message in receive()] == ["3"]


def test_simulated_sqs_message_is_dropped_after_retention(cloud: Cloud, time: Any) -> None:
    service_clients.client("sqs").send_message(QueueUrl=RECORDS, MessageBody="x")
    time["now"] += timedelta(days=7)
    (message,) = receive(VisibilityTimeout=0)
    # A receive does not prolong it
    time["now"] += timedelta(seconds=1)
    assert receive() == []
    assert [each.id for each in cloud.expired] == [message["MessageId"]]
