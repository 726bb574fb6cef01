"""The contract of `CredentialStore`, held against both stores, and what only the table has. On moto."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from unittest.mock import MagicMock, patch

import pytest
from botocore.exceptions import ClientError

from portaria.aws import service_clients
from portaria.aws.table import Conflict, Table
from portaria.connections.credential_stores import sealed_table, sealing
from portaria.connections.credential_stores.protocol import STORES
from portaria.connections.vault import Credentials, SealedTable, Vault, version_id
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable
from tests.fakes.aws.moto_cloud import PREFIX, Cloud, cloud
from tests.fakes.virtual_time import VirtualClock

numbers = count()


@pytest.fixture(scope="module")
def stack() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


@pytest.fixture
def in_table(stack: Cloud) -> SealedTable:
    return SealedTable(stack.table, stack.environment["SEALING_KEY_ID"])


@pytest.fixture(params=STORES)
def kept(request: pytest.FixtureRequest, in_table: SealedTable) -> Vault:
    return Vault(PREFIX, in_table, new_in=request.param)


@pytest.fixture
def secret_id(kept: Vault) -> str:
    return kept.grant_id(f"grant-{next(numbers)}")


def token(text: str) -> Credentials:
    return {"token": Secret(f"canary-{text}")}


def text(credentials: Credentials | None) -> str:
    assert credentials is not None
    return credentials["token"].reveal().removeprefix("canary-")


def test_store_secret_id_names_its_store(in_table: SealedTable) -> None:
    """Given a vault of either parameter, then both read what the other one wrote: the id decides, not the parameter."""
    vaults = [Vault(PREFIX, in_table, new_in=store) for store in STORES]
    for writer, reader in (vaults, vaults[::-1]):
        secret_id = writer.grant_id(f"grant-{next(numbers)}")
        version = writer.create(secret_id, token("a"))
        assert text(reader.read(secret_id, version)) == "a"


def test_store_create_twice_keeps_first_credentials(kept: Vault, secret_id: str) -> None:
    version = version_id(secret_id, 1)
    assert kept.create(secret_id, token("first"), version) == version
    assert kept.create(secret_id, token("second"), version) == version
    assert found(kept.find(secret_id)) == ("first", version)


def test_store_unknown_credentials_are_none(kept: Vault, secret_id: str) -> None:
    assert kept.read(secret_id) is None
    assert kept.current_version(secret_id) == ""
    kept.remove(secret_id)
    kept.drop(secret_id, version_id(secret_id, 9))
    kept.create(secret_id, token("a"))
    assert kept.read(secret_id, version_id(secret_id, 9)) is None


def test_store_add_makes_version_current_and_keeps_previous(kept: Vault, secret_id: str) -> None:
    first, second = version_id(secret_id, 1), version_id(secret_id, 2)
    kept.create(secret_id, token("a"), first)
    assert kept.add(secret_id, second, token("b"))
    assert kept.current_version(secret_id) == second
    assert [text(kept.read(secret_id, version)) for version in (first, second)] == ["a", "b"]
    # Repeated, as after a lost answer.
    assert kept.add(secret_id, second, token("b"))


def test_store_add_aside_leaves_current_version(kept: Vault, secret_id: str) -> None:
    first, aside = version_id(secret_id, 1), version_id(secret_id, 3)
    kept.create(secret_id, token("a"), first)
    kept.add_aside(secret_id, aside, token("b"), 5)
    assert kept.current_version(secret_id) == first
    assert text(kept.read(secret_id, aside)) == "b"


def test_store_staged_version_is_promoted_by_compare_and_swap(kept: Vault, secret_id: str) -> None:
    first, second = version_id(secret_id, 1), version_id(secret_id, 2)
    kept.create(secret_id, token("a"), first)
    kept.stage(secret_id, second, token("b"))
    assert kept.current_version(secret_id) == first
    kept.promote(secret_id, old=first, new=second)
    assert kept.current_version(secret_id) == second
    assert text(kept.read(secret_id, first)) == "a"
    if kept.new_in == "table":
        # moto lets any version be replaced: tests/aws/recorded/secretsmanager.py.
        with pytest.raises(Conflict):
            kept.promote(secret_id, old=first, new=second)


def test_store_removed_credentials_are_gone(kept: Vault, secret_id: str) -> None:
    kept.create(secret_id, token("a"))
    kept.remove(secret_id)
    kept.remove(secret_id)
    assert kept.read(secret_id) is None
    assert kept.current_version(secret_id) == ""


def test_store_remove_immediately_frees_name(kept: Vault, secret_id: str) -> None:
    kept.create(secret_id, token("a"))
    kept.remove(secret_id, immediately=True)
    kept.create(secret_id, token("b"))
    assert text(kept.read(secret_id)) == "b"


def test_store_oversized_credentials_are_refused(kept: Vault, secret_id: str) -> None:
    with pytest.raises(Rejected, match="credentials_too_large"):
        kept.create(secret_id, token("x" * 70_000))
    assert kept.read(secret_id) is None


def found(answer: tuple[Credentials, str] | None) -> tuple[str, str]:
    assert answer is not None
    return text(answer[0]), answer[1]


# ------------------------------------------------------------------------------------------------------------------- The table


@pytest.fixture
def grant(in_table: SealedTable) -> str:
    secret_id = in_table.secret_id(f"grant-{next(numbers)}")
    in_table.create(secret_id, token("a"), "v1")
    return secret_id


def item_of(stack: Cloud, secret_id: str) -> dict[str, object]:
    return stack.table.get(f"GRANT#{secret_id.removeprefix('table:')}", "CREDENTIALS") or {}


def test_sealed_table_item_holds_no_plaintext_and_is_in_no_index(stack: Cloud, grant: str) -> None:
    item = item_of(stack, grant)
    assert set(item) == {"pk", "sk", "versions", "revision"}
    assert "canary" not in json.dumps(item)


def test_sealed_table_ciphertext_of_another_grant_is_refused(stack: Cloud, in_table: SealedTable, grant: str) -> None:
    """Given a writer who copies one grant's item over another's, then it cannot be opened there."""
    other = in_table.secret_id(f"grant-{next(numbers)}")
    in_table.create(other, token("b"))
    stack.table.put(item_of(stack, other) | {"versions": item_of(stack, grant)["versions"]})
    with pytest.raises(Rejected, match="seal_broken"):
        in_table.find(other)


def test_sealed_table_add_other_credentials_to_used_id_returns_false(in_table: SealedTable, grant: str) -> None:
    assert not in_table.add(grant, "v1", token("b"))
    assert in_table.add(grant, "v1", token("a"))
    assert found(in_table.find(grant)) == ("a", "v1")


def test_sealed_table_version_without_label_is_discarded_after_fifteen_minutes(
    in_table: SealedTable, grant: str
) -> None:
    time = VirtualClock()
    with time.installed():
        in_table.add(grant, "v2", token("b"))
        in_table.add(grant, "v3", token("c"))
        time.advance(timedelta(minutes=14).total_seconds())
        in_table.add(grant, "v4", token("d"))
        # A function that read its id before it lost its label may still run.
        assert in_table.find(grant, "v1") is not None
        time.advance(timedelta(minutes=2).total_seconds())
        in_table.add_aside(grant, "v5", token("e"), 1)
        found = {version: in_table.find(grant, version) is not None for version in ("v1", "v2", "v3", "v4", "v5")}
    assert found == {"v1": False, "v2": True, "v3": True, "v4": True, "v5": True}


def test_sealed_table_dropped_version_is_discarded_at_once(stack: Cloud, in_table: SealedTable, grant: str) -> None:
    in_table.add(grant, "v2", token("b"))
    in_table.drop(grant, "v1")
    in_table.drop(grant, "v2")
    assert set(item_of(stack, grant)["versions"]) == {"v2"}  # type: ignore[call-overload]


def test_sealed_table_removed_grant_can_be_restored_for_a_week(stack: Cloud, in_table: SealedTable, grant: str) -> None:
    in_table.remove(grant)
    item = item_of(stack, grant)
    assert item["expires_at"]
    with pytest.raises(Retryable):
        in_table.add(grant, "v2", token("b"))
    with pytest.raises(Retryable):
        in_table.create(grant, token("b"))
    stack.table.put({name: value for name, value in item.items() if name not in ("removed_at", "expires_at")})
    assert found(in_table.find(grant)) == ("a", "v1")


def between_read_and_write(monkeypatch: pytest.MonkeyPatch, interfere: Callable[[], object]) -> None:
    """Have another writer act between this writer's read of the item and its write, once."""
    put_revision = Table.put_revision

    def delayed(self: Table, item: dict[str, object], *, new: bool, revision: str = "") -> str:
        monkeypatch.setattr(Table, "put_revision", put_revision)
        interfere()
        return put_revision(self, item, new=new, revision=revision)

    monkeypatch.setattr(Table, "put_revision", delayed)


def test_sealed_table_concurrent_writers_lose_no_version(
    monkeypatch: pytest.MonkeyPatch, in_table: SealedTable, grant: str
) -> None:
    between_read_and_write(monkeypatch, lambda: in_table.add(grant, "v2", token("b")))
    in_table.add(grant, "v3", token("c"))
    assert found(in_table.find(grant, "v2")) == ("b", "v2")
    assert found(in_table.find(grant)) == ("c", "v3")


def test_sealed_table_write_during_removal_does_not_bring_it_back(
    monkeypatch: pytest.MonkeyPatch, in_table: SealedTable, grant: str
) -> None:
    between_read_and_write(monkeypatch, lambda: in_table.remove(grant))
    with pytest.raises(Retryable):
        in_table.add(grant, "v2", token("b"))
    assert in_table.find(grant) is None


def test_sealed_table_write_sent_twice_succeeds(
    monkeypatch: pytest.MonkeyPatch, in_table: SealedTable, grant: str
) -> None:
    """Given a write whose first answer was lost, so that botocore's second one conflicts with it, then it has succeeded."""
    put_revision = Table.put_revision

    def twice(self: Table, item: dict[str, object], *, new: bool, revision: str = "") -> str:
        monkeypatch.setattr(Table, "put_revision", put_revision)
        put_revision(self, item, new=new, revision=revision)
        raise Conflict

    monkeypatch.setattr(Table, "put_revision", twice)
    opened = MagicMock(side_effect=sealing.unseal)
    monkeypatch.setattr(sealing, "unseal", opened)
    assert in_table.add(grant, "v2", token("b"))
    opened.assert_not_called()


@pytest.mark.parametrize("service", ["dynamodb", "kms"])
def test_sealed_table_failure_is_retryable_and_exposes_no_secret(
    in_table: SealedTable, grant: str, service: str
) -> None:
    error = ClientError({"Error": {"Code": "ThrottlingException", "Message": "canary-a"}}, "Any")
    names = ("get_item", "put_item", "generate_data_key", "decrypt")
    failing = MagicMock(**{f"{name}.side_effect": error for name in names})
    client = service_clients.client
    with patch.object(service_clients, "client", lambda name: failing if name == service else client(name)):
        for call in (
            lambda: in_table.find(grant),
            lambda: in_table.add(grant, "v2", token("b")),
            lambda: in_table.create(in_table.secret_id("new"), token("b")),
        ):
            with pytest.raises(Retryable, match=r"vault_unavailable: .*ThrottlingException") as later:
                call()
            assert "canary" not in "".join(traceback.format_exception(later.value))


def test_sealed_table_eighteen_largest_versions_fit_into_an_item(in_table: SealedTable) -> None:
    sealed = sealing.Seal({"grant": "x"}, b"k" * 200, Secret("A" * 43 + "=")).seal(
        {"t": Secret("x" * (sealed_table.MAX_CREDENTIALS_BYTES - 20))}
    )
    assert 18 * (len(sealed) + 100) < 400 * 1_024


def test_vault_without_table_cannot_read_sealed_grant() -> None:
    with pytest.raises(RuntimeError):
        Vault(PREFIX).read("table:grant")
