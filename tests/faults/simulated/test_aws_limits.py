"""The in-memory AWS refuses what AWS's quotas pages say AWS refuses. `docs/fidelity.md` lists the pages, rule by rule."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError

from portaria.aws import attribute_values, service_clients
from portaria.aws.table import Table
from portaria.core import clock
from tests.fakes import published_events
from tests.simulation.aws import limits
from tests.simulation.aws.cloud import BUS, KEY_ID, TABLE, Cloud, installed

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
KB = 1_024


class World:
    def __init__(self) -> None:
        self.cloud = Cloud()
        self.now = NOON

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    with installed(lambda: made.cloud), patch.object(clock, "now", lambda: made.now):
        yield made


def refused(call: Any, **parameters: Any) -> str:
    """The error code with which AWS refuses a call."""
    with pytest.raises(ClientError) as error:
        call(**parameters)
    return service_clients.error_code(error.value)


def typed(**item: Any) -> dict[str, Any]:
    return {name: attribute_values.typed(value) for name, value in item.items()}


def item_of(size: int, pk: str = "p", sk: str = "s") -> dict[str, Any]:
    """An item of exactly this many bytes: names, keys and a text."""
    rest = size - len("pk") - len(pk) - len("sk") - len(sk) - len("t")
    return {"pk": pk, "sk": sk, "t": "x" * rest}


class TestDynamoDB:
    def test_simulated_dynamodb_item_over_400_kb_is_refused_by_every_write(self, world: World) -> None:
        client, most = service_clients.client("dynamodb"), 400 * KB
        client.put_item(TableName=TABLE, Item=typed(**item_of(most)))
        large = typed(**item_of(most + 1))
        assert refused(client.put_item, TableName=TABLE, Item=large) == "ValidationException"
        writes = {TABLE: [{"PutRequest": {"Item": large}}]}
        assert refused(client.batch_write_item, RequestItems=writes) == "ValidationException"
        puts = [{"Put": {"TableName": TABLE, "Item": large}}]
        assert refused(client.transact_write_items, TransactItems=puts) == "ValidationException"
        with pytest.raises(ClientError, match="Item size"):
            Table(TABLE).update("p", "s", "SET n = :one", values={":one": 1})

    @pytest.mark.parametrize(
        ("value", "size"),
        [
            ("é", 2), ("", 0), (True, 1), (None, 1), (7, 2), (123, 3), (-123, 4), (1_000_000, 2), (b"abc", 3), ([], 3),
            (["ab", 7], 9), ({"ab": "c"}, 7),
        ],
    )  # fmt: skip
    def test_simulated_dynamodb_item_size_counts_names_and_values_by_type(self, value: Any, size: int) -> None:
        assert limits.item_size(typed(näme=value)) == len("näme".encode()) + size

    def test_simulated_dynamodb_oversized_key_is_refused(self, world: World) -> None:
        table = Table(TABLE)
        table.put({"pk": "p" * 2_048, "sk": "s" * 1_024})
        for pk, sk in (("p" * 2_049, "s"), ("p", "s" * 1_025)):
            with pytest.raises(ClientError, match="key attribute"):
                table.put({"pk": pk, "sk": sk})

    def test_simulated_dynamodb_expression_over_4_kb_is_refused(self, world: World) -> None:
        names = {f"#{number}": f"a{number}" for number in range(500)}
        values = {f":{number}": number for number in range(500)}
        expression = "ADD " + ", ".join(f"#{number} :{number}" for number in range(500))
        with pytest.raises(ClientError, match="Expression size"):
            Table(TABLE).update("p", "s", expression, values=values, names=names)

    @pytest.mark.parametrize("count", [0, 101])
    def test_simulated_dynamodb_transaction_of_0_or_101_items_is_refused(self, world: World, count: int) -> None:
        puts = [{"Put": {"TableName": TABLE, "Item": typed(pk=str(n), sk="s")}} for n in range(count)]
        assert (
            refused(service_clients.client("dynamodb").transact_write_items, TransactItems=puts)
            == "ValidationException"
        )

    def test_simulated_dynamodb_transaction_over_4_mb_is_refused(self, world: World) -> None:
        client, size = service_clients.client("dynamodb"), 4 * KB * KB // 100
        puts = [{"Put": {"TableName": TABLE, "Item": typed(**item_of(size, pk=f"{n:02}"))}} for n in range(100)]
        client.transact_write_items(TransactItems=puts)
        puts[0]["Put"]["Item"] = typed(**item_of(300 * KB, pk="00"))
        assert refused(client.transact_write_items, TransactItems=puts) == "ValidationException"

    def test_simulated_dynamodb_transaction_with_two_writes_of_one_item_is_refused(self, world: World) -> None:
        put = {"Put": {"TableName": TABLE, "Item": typed(pk="p", sk="s")}}
        assert (
            refused(service_clients.client("dynamodb").transact_write_items, TransactItems=[put, put])
            == "ValidationException"
        )

    @pytest.mark.parametrize("numbers", [[], list(range(101)), [1, 1]], ids=["none", "101", "twice the same"])
    def test_simulated_dynamodb_batch_get_of_0_101_or_equal_keys_is_refused(
        self, world: World, numbers: list[int]
    ) -> None:
        keys = [typed(pk=str(number), sk="s") for number in numbers]
        asked = {TABLE: {"Keys": keys, "ConsistentRead": True}}
        assert refused(service_clients.client("dynamodb").batch_get_item, RequestItems=asked) == "ValidationException"

    def test_simulated_dynamodb_batch_get_over_16_mb_leaves_unprocessed_keys(self, world: World) -> None:
        table = Table(TABLE)
        for number in range(60):
            table.put(item_of(300 * KB, pk=f"p{number}"))
        keys = [(f"p{number}", "s") for number in range(60)]
        asked = {TABLE: {"Keys": [typed(pk=pk, sk=sk) for pk, sk in keys], "ConsistentRead": True}}
        answer = service_clients.client("dynamodb").batch_get_item(RequestItems=asked)
        assert len(answer["Responses"][TABLE]) == 16 * KB // 300
        assert len(answer["UnprocessedKeys"][TABLE]["Keys"]) == 60 - 16 * KB // 300
        assert table.get_many(keys).keys() == set(keys)

    @pytest.mark.parametrize("numbers", [[], list(range(26)), [1, 1]], ids=["none", "26", "twice the same"])
    def test_simulated_dynamodb_batch_write_of_0_26_or_equal_keys_is_refused(
        self, world: World, numbers: list[int]
    ) -> None:
        writes = {TABLE: [{"PutRequest": {"Item": typed(pk=str(number), sk="s")}} for number in numbers]}
        assert (
            refused(service_clients.client("dynamodb").batch_write_item, RequestItems=writes) == "ValidationException"
        )

    def test_simulated_dynamodb_query_page_ends_at_1_mb_and_query_all_continues(self, world: World) -> None:
        table = Table(TABLE)
        for number in range(5):
            table.put(item_of(300 * KB, sk=f"s{number}"))
        page, cursor = table.query("p")
        assert len(page) == 3
        assert cursor
        assert [item["sk"] for item in table.query_all("p")] == [f"s{number}" for number in range(5)]

    def test_simulated_dynamodb_consistent_read_of_index_is_refused(self, world: World) -> None:
        query = {
            "TableName": TABLE, "IndexName": "by_due", "KeyConditionExpression": "due_pk = :pk", "ConsistentRead": True,
            "ExpressionAttributeValues": typed(**{":pk": "DUE"}),
        }  # fmt: skip
        assert refused(service_clients.client("dynamodb").query, **query) == "ValidationException"


class TestLag:
    def test_simulated_dynamodb_index_shows_write_after_its_lag(self, world: World) -> None:
        table = Table(TABLE)
        world.cloud.lag = lambda: 2.0
        table.put({"pk": "p", "sk": "s", "due_pk": "DUE", "due_at": "1"})
        assert table.query("DUE", index="by_due") == ([], None)
        world.pass_s(1)
        table.update("p", "s", "SET n = :one", values={":one": 1})
        world.pass_s(1.5)
        assert [item.get("n") for item in table.query("DUE", index="by_due")[0]] == [None]
        assert (table.get("p", "s") or {})["n"] == 1
        world.pass_s(1)
        assert [item.get("n") for item in table.query("DUE", index="by_due")[0]] == [1]
        table.delete("p", "s")
        assert len(table.query("DUE", index="by_due")[0]) == 1
        world.pass_s(2)
        assert table.query("DUE", index="by_due")[0] == []

    def test_simulated_dynamodb_index_shows_writes_of_one_item_in_order(self, world: World) -> None:
        table = Table(TABLE)
        for value, lag in (("old", 9.0), ("new", 0.0)):
            world.cloud.lag = partial(float, lag)
            table.put({"pk": "p", "sk": "s", "due_pk": "DUE", "due_at": "1", "value": value})
        assert table.query("DUE", index="by_due")[0] == []
        world.pass_s(9)
        assert [item["value"] for item in table.query("DUE", index="by_due")[0]] == ["new"]

    def test_simulated_dynamodb_eventually_consistent_read_lags(self, world: World) -> None:
        client = service_clients.client("dynamodb")
        world.cloud.lag = lambda: 1.0
        Table(TABLE).put({"pk": "p", "sk": "s"})
        key = typed(pk="p", sk="s")
        batch = {TABLE: {"Keys": [key]}}
        assert "Item" not in client.get_item(TableName=TABLE, Key=key)
        assert client.batch_get_item(RequestItems=batch)["Responses"][TABLE] == []
        assert "Item" in client.get_item(TableName=TABLE, Key=key, ConsistentRead=True)
        world.pass_s(1)
        assert "Item" in client.get_item(TableName=TABLE, Key=key)
        assert len(client.batch_get_item(RequestItems=batch)["Responses"][TABLE]) == 1

    def test_table_reads_see_writes_despite_replica_lag(self, world: World) -> None:
        """Given a replica that is an hour late, then `Table` still reads what was written."""
        world.cloud.lag = lambda: 3_600.0
        table = Table(TABLE)
        table.put({"pk": "p", "sk": "s"})
        assert table.get("p", "s")
        assert table.get_many([("p", "s")])
        assert table.query("p")[0]


def token(number: int) -> str:
    return str(uuid.UUID(int=number))


class TestSecretsManager:
    def test_simulated_secretsmanager_secret_over_64_kb_is_refused(self, world: World) -> None:
        manager = service_clients.client("secretsmanager")
        manager.create_secret(Name="s", SecretString="x" * 65_536)
        for call, name in ((manager.create_secret, "Name"), (manager.put_secret_value, "SecretId")):
            assert refused(call, **{name: "s"}, SecretString="x" * 65_537) == "ValidationException"

    @pytest.mark.parametrize("length", [31, 65])
    def test_simulated_secretsmanager_request_token_of_wrong_length_is_refused(self, world: World, length: int) -> None:
        create = service_clients.client("secretsmanager").create_secret
        assert refused(create, Name="s", SecretString="x", ClientRequestToken="t" * length) == "ValidationException"

    def test_simulated_secretsmanager_21st_label_is_refused_until_one_is_removed(self, world: World) -> None:
        manager = service_clients.client("secretsmanager")
        manager.create_secret(Name="s", SecretString="x", ClientRequestToken=token(1))
        put = {"SecretId": "s", "SecretString": "y"}
        labels = [f"LABEL-{number}" for number in range(19)]
        manager.put_secret_value(**put, ClientRequestToken=token(2), VersionStages=labels)
        assert refused(manager.put_secret_value, **put, ClientRequestToken=token(3), VersionStages=["MORE"]) == (
            "LimitExceededException"
        )
        assert refused(
            manager.update_secret_version_stage, SecretId="s", VersionStage="MORE", MoveToVersionId=token(2)
        ) == "LimitExceededException"  # fmt: skip
        manager.put_secret_value(**put, ClientRequestToken=token(4), VersionStages=["LABEL-0"])
        manager.update_secret_version_stage(SecretId="s", VersionStage="LABEL-0", RemoveFromVersionId=token(4))
        manager.put_secret_value(**put, ClientRequestToken=token(3), VersionStages=["MORE"])

    def test_simulated_secretsmanager_101st_version_is_refused_for_a_day(self, world: World) -> None:
        manager = service_clients.client("secretsmanager")
        manager.create_secret(Name="s", SecretString="0", ClientRequestToken=token(0))
        for number in range(1, 100):
            world.pass_s(60)
            manager.put_secret_value(SecretId="s", SecretString=str(number), ClientRequestToken=token(number))
        more = {"SecretId": "s", "SecretString": "100", "ClientRequestToken": token(100)}
        assert refused(manager.put_secret_value, **more) == "LimitExceededException"
        assert manager.get_secret_value(SecretId="s", VersionId=token(5))["SecretString"] == "5"
        world.pass_s(86_400 - 99 * 60 + 1)
        manager.put_secret_value(**more)

    def test_simulated_secretsmanager_unlabelled_version_is_deleted_after_a_day(self, world: World) -> None:
        manager = service_clients.client("secretsmanager")
        manager.create_secret(Name="s", SecretString="0", ClientRequestToken=token(0))
        world.pass_s(86_401)
        manager.put_secret_value(SecretId="s", SecretString="1", ClientRequestToken=token(1))
        assert manager.get_secret_value(SecretId="s", VersionId=token(0))["VersionStages"] == ["AWSPREVIOUS"]
        manager.put_secret_value(SecretId="s", SecretString="2", ClientRequestToken=token(2))
        assert refused(manager.get_secret_value, SecretId="s", VersionId=token(0)) == "ResourceNotFoundException"
        assert manager.get_secret_value(SecretId="s", VersionId=token(1))["SecretString"] == "1"

    def test_simulated_secretsmanager_label_attached_again_moves(self, world: World) -> None:
        """As recorded: a label that is attached again leaves the version that had it."""
        manager = service_clients.client("secretsmanager")
        manager.create_secret(Name="s", SecretString="1", ClientRequestToken=token(1))
        for number, labels in ((2, ["one", "two", "three"]), (3, ["one", "two", "four"])):
            put = {"SecretId": "s", "SecretString": str(number), "ClientRequestToken": token(number)}
            manager.put_secret_value(**put, VersionStages=labels)
        assert manager.describe_secret(SecretId="s")["VersionIdsToStages"] == {
            token(1): ["AWSCURRENT"], token(2): ["three"], token(3): ["four", "one", "two"],
        }  # fmt: skip

    def test_simulated_secretsmanager_writes_over_50_per_second_are_throttled(self, world: World) -> None:
        manager = service_clients.client("secretsmanager")
        for number in range(2):
            manager.create_secret(Name=f"s{number}", SecretString="0")
        for number in range(50):
            manager.put_secret_value(
                SecretId=f"s{number % 2}", SecretString=str(number), ClientRequestToken=token(number + 100)
            )
        more = {"SecretId": "s0", "SecretString": "x", "ClientRequestToken": token(999)}
        assert refused(manager.put_secret_value, **more) == "ThrottlingException"
        assert refused(
            manager.update_secret_version_stage, SecretId="s0", VersionStage="A", MoveToVersionId=token(100)
        ) == "ThrottlingException"  # fmt: skip
        manager.get_secret_value(SecretId="s0")
        world.pass_s(1)
        manager.put_secret_value(**more)

    @pytest.mark.parametrize(
        ("operation", "parameters"),
        [
            ("create_secret", {"Name": "s", "SecretString": "x"}),
            ("delete_secret", {"SecretId": "s", "ForceDeleteWithoutRecovery": True}),
        ],
    )
    def test_simulated_secretsmanager_creations_and_deletions_are_throttled_separately(
        self, world: World, operation: str, parameters: dict[str, Any]
    ) -> None:
        call = getattr(service_clients.client("secretsmanager"), operation)
        key = next(iter(parameters))
        for number in range(50):
            call(**parameters | {key: f"s{number}"})
        assert refused(call, **parameters | {key: "one more"}) == "ThrottlingException"


class TestEventBridge:
    @pytest.mark.parametrize("count", [0, 11])
    def test_simulated_eventbridge_request_of_0_or_11_entries_is_refused(self, world: World, count: int) -> None:
        entries = [{"EventBusName": BUS, "Source": "s", "DetailType": "d", "Detail": "{}"}] * count
        assert refused(service_clients.client("events").put_events, Entries=entries) == "ValidationException"

    def test_simulated_eventbridge_request_over_256_kb_is_refused(self, world: World) -> None:
        """An entry may have 1 MB since 2026; the product keeps to the former limit of every region."""
        put = service_clients.client("events").put_events
        half = {"EventBusName": BUS, "Source": "é", "DetailType": "d", "Detail": '"' + "x" * (128 * KB - 5) + '"'}
        # An event of the catalogue is never as large.
        with patch.object(published_events, "check"):
            put(Entries=[half, half])
        assert refused(put, Entries=[half, half | {"Detail": half["Detail"] + " "}]) == "ValidationException"


class TestKms:
    def test_simulated_kms_plaintext_over_4_kb_is_refused(self, world: World) -> None:
        kms = service_clients.client("kms")
        kms.encrypt(KeyId=KEY_ID, Plaintext=b"x" * 4_096, EncryptionContext={})
        assert refused(kms.encrypt, KeyId=KEY_ID, Plaintext=b"x" * 4_097, EncryptionContext={}) == "ValidationException"

    def test_simulated_kms_blob_is_decrypted_only_with_its_key_and_context(self, world: World) -> None:
        kms = service_clients.client("kms")
        blob = kms.encrypt(KeyId=KEY_ID, Plaintext=b"x", EncryptionContext={"install": "1"})["CiphertextBlob"]
        assert kms.decrypt(CiphertextBlob=blob, EncryptionContext={"install": "1"})["Plaintext"] == b"x"
        for context in ({"install": "2"}, {}, {"install": "1", "more": "1"}):
            assert refused(kms.decrypt, CiphertextBlob=blob, EncryptionContext=context) == "InvalidCiphertextException"
        assert refused(
            kms.decrypt, CiphertextBlob=blob, EncryptionContext={"install": "1"}, KeyId="another-key"
        ) == "IncorrectKeyException"  # fmt: skip
