"""One connection's move between the stores, on moto: what is moved, what waits, and what a dead worker leaves.

Interleavings with renewals, installs and rotations are in the scenarios `migrated_*` of `tests/simulation`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest

from portaria.aws.table import Conflict
from portaria.connections import connection_store, credential_migration
from portaria.connections.credential_migration import ABANDONED_AFTER, Migration, journal
from portaria.connections.credential_stores import sealing
from portaria.connections.credential_stores.protocol import STORES, store_name
from portaria.connections.vault import SealedTable, Vault, version_id
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import Retryable
from portaria.installs import uninstall
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.crashes import Died
from tests.fakes.virtual_time import VirtualClock

NAME = "crm"


class Moving:
    """A connection whose credentials are in one store, and a worker that moves them to the other one."""

    def __init__(self, stack: Cloud, store: str) -> None:
        self.stack, self.table, self.store = stack, stack.table, store
        self.other = next(each for each in STORES if each != store)
        self.key_id = stack.environment["SEALING_KEY_ID"]
        self.vault = Vault(PREFIX, SealedTable(stack.table, self.key_id))

    def connect(self, token: str = "canary-now", **fields: Any) -> None:
        secret_id = self.vault.grant_id(NAME, self.store)
        before, now = version_id(secret_id, 0), version_id(secret_id, 1)
        self.vault.create(secret_id, {"token": Secret("canary-before")}, before)
        self.vault.add(secret_id, now, {"token": Secret(token)})
        values = {"state": "connected", "generation": 1, "version_id": now, "allowed_domain": "a.example.com", **fields}
        connection_store.create(self.table, Connection(NAME, "http", "bearer", secret_id=secret_id, **values))

    def move(self) -> str:
        return Migration(self.table, self.vault, self.key_id, NAME).move(self.other)

    @property
    def connection(self) -> Connection:
        return connection_store.get(self.table, NAME)

    def token(self, version: str = "") -> str:
        found = self.vault.read(self.connection.secret_id, version or self.connection.version_id)
        assert found
        return found["token"].reveal()

    def set(self, expression: str, **values: Any) -> None:
        self.table.update(
            *connection_store.key(NAME), expression, values={f":{name}": value for name, value in values.items()}
        )


def grants_in_table(stack: Cloud) -> list[str]:
    items = stack.table.client.scan(TableName=stack.table.name)["Items"]
    return [item["pk"]["S"] for item in items if item["pk"]["S"].startswith("GRANT#")]


@pytest.fixture(params=STORES)
def moving(request: pytest.FixtureRequest, stack: Cloud) -> Moving:
    return Moving(stack, request.param)


def test_migration_moves_credentials_in_use_and_removes_old_ones(moving: Moving) -> None:
    moving.connect()
    old = moving.connection
    assert moving.move() == "moved"
    fresh = moving.connection
    assert (store_name(fresh.secret_id), fresh.generation) == (moving.other, old.generation + 1)
    assert moving.token() == "canary-now"
    assert moving.vault.read(old.secret_id) is None
    assert journal(moving.table) == []
    assert moving.move() == "in_place"
    # It keeps when the credentials were granted, and when it is due.
    assert (fresh.granted_at, fresh.updated_at) == (old.granted_at, old.updated_at)


def test_migration_there_and_back_uses_new_names(moving: Moving) -> None:
    """Given a name in Secrets Manager that is scheduled for deletion, then it is not needed to go back."""
    moving.connect()
    first = moving.connection.secret_id
    assert moving.move() == "moved"
    moving.store, moving.other = moving.other, moving.store
    assert moving.move() == "moved"
    assert moving.connection.secret_id != first
    assert moving.token() == "canary-now"


def test_migration_keeps_token_in_reserve(moving: Moving) -> None:
    secret_id = moving.vault.grant_id(NAME, moving.store)
    until = clock.to_iso(clock.now() + timedelta(days=3))
    moving.connect(previous_version_id=version_id(secret_id, 0), previous_until=until)
    assert moving.move() == "moved"
    assert moving.token(moving.connection.previous_version_id) == "canary-before"
    assert moving.connection.previous_until == until


def test_migration_moves_credentials_that_are_sealed_in_the_item(moving: Moving) -> None:
    """Given tokens that the store could not take, then these are moved, not the older ones in the store."""
    moving.connect()
    seal = sealing.prepare_seal(moving.key_id, {"connection": NAME})
    moving.set("SET sealed = :sealed", sealed=seal.seal({"token": Secret("canary-newest")}))
    assert moving.move() == "moved"
    assert moving.token() == "canary-newest"
    assert "sealed" not in connection_store.get_item(moving.table, NAME)


@pytest.mark.parametrize("busy", ["leased", "refresh tried", "just ended"])
def test_migration_of_connection_in_change_waits_and_changes_nothing(moving: Moving, busy: str) -> None:
    ended = {"state": "needs_reconnect", "updated_at": clock.to_iso(clock.now())} if busy == "just ended" else {}
    moving.connect(**ended)
    if ended:
        moving.set("SET updated_at = :now", now=clock.to_iso(clock.now()))
    elif busy == "leased":
        moving.set("SET lease_until = :until", until=int(clock.now().timestamp()) + 30)
    else:
        moving.set("SET tries = :one", one=1)
    before = connection_store.get_item(moving.table, NAME)
    assert moving.move() == "waits"
    assert connection_store.get_item(moving.table, NAME) == before
    assert journal(moving.table) == []


@pytest.mark.parametrize("state", ["removed", "pending"])
def test_migration_leaves_connection_without_credentials_in_use(moving: Moving, state: str) -> None:
    moving.connect(state=state)
    assert moving.move() == "in_place"


def test_migration_to_table_leaves_larger_credentials_in_secrets_manager(stack: Cloud) -> None:
    moving = Moving(stack, "secrets-manager")
    moving.connect("x" * 20_000)
    assert moving.move() == "unreadable"
    assert store_name(moving.connection.secret_id) == "secrets-manager"
    assert moving.token() == "x" * 20_000
    assert "lease_until" not in connection_store.get_item(moving.table, NAME)


def test_migration_of_too_large_credentials_leaves_no_copy_and_no_entry(stack: Cloud) -> None:
    """Given small credentials before a rotation and too large ones after it, then the copy of the small ones is removed."""
    moving = Moving(stack, "secrets-manager")
    before = version_id(moving.vault.grant_id(NAME, moving.store), 0)
    moving.connect("x" * 20_000, previous_version_id=before, previous_until=clock.to_iso(clock.now()))
    for _ in range(3):
        assert moving.move() == "unreadable"
    assert journal(moving.table) == []
    assert grants_in_table(stack) == []


def test_migration_store_fails_during_copy_returns_lease(moving: Moving) -> None:
    """Given a store that does not answer, then a renewal need not wait, and the next delivery moves the credentials."""
    moving.connect()
    failing = Retryable("vault_unavailable", "no answer")
    with patch.object(Vault, "create", side_effect=failing), pytest.raises(Retryable):
        moving.move()
    assert "lease_until" not in connection_store.get_item(moving.table, NAME)
    assert moving.move() == "moved"
    assert moving.token() == "canary-now"


def test_migration_killed_after_pointer_moved_is_finished_by_next_run(moving: Moving) -> None:
    moving.connect()
    old = moving.connection.secret_id
    with patch.object(Migration, "_finish", side_effect=Died), pytest.raises(Died):
        moving.move()
    assert moving.vault.read(old) is not None
    assert moving.move() == "in_place"
    assert moving.vault.read(old) is None
    assert journal(moving.table) == []
    assert moving.token() == "canary-now"


def test_migration_killed_before_pointer_moved_leaves_copy_for_twenty_minutes(moving: Moving) -> None:
    """Given a worker that may still be alive, then its copy stays, and no other attempt uses that copy."""
    time = VirtualClock()
    with time.installed():
        moving.connect()
        with patch.object(Migration, "_point_to", side_effect=Died), pytest.raises(Died):
            moving.move()
        (entry,) = journal(moving.table)
        assert moving.token() == "canary-now"
        time.advance(credential_migration.LEASE_S + 1)
        assert moving.move() == "moved"
        assert moving.connection.secret_id != entry.new
        assert moving.vault.read(entry.new) is not None
        time.advance(ABANDONED_AFTER.total_seconds())
        assert moving.move() == "in_place"
        assert moving.vault.read(entry.new) is None
        assert journal(moving.table) == []
        assert moving.token() == "canary-now"


@pytest.mark.parametrize("change", ["installed again", "removed"])
def test_migration_of_connection_changed_meanwhile_does_not_move_the_pointer(moving: Moving, change: str) -> None:
    """Given a reinstall between copy and pointer, then the item stays as the reinstall left it, and the journal has the copy. A
    disconnect leaves no copy."""
    moving.connect()
    copy, copies = Migration._copy, []
    installed = moving.vault.grant_id("installed-again", moving.store)

    def changed(self: Migration, entry: credential_migration.Entry, *arguments: Any) -> None:
        copy(self, entry, *arguments)
        copies.append(entry.new)
        if change == "removed":
            uninstall._mark(moving.table, moving.connection, uninstall.UNINSTALLED)
        else:
            moving.set("SET generation = :next, secret_id = :installed", next=7, installed=installed)

    with patch.object(Migration, "_copy", changed):
        assert moving.move() == "waits"
    assert store_name(moving.connection.secret_id) == moving.store
    assert [entry.new for entry in journal(moving.table)] == (copies if change == "installed again" else [])
    assert (moving.vault.read(copies[0]) is None) == (change == "removed")


def test_migration_pointer_write_sent_twice_succeeds(moving: Moving) -> None:
    """Given a write whose first answer was lost, so that botocore's second one conflicts with it, then the move is finished."""
    moving.connect()
    update = type(moving.table).update

    def twice(self: Any, *arguments: Any, **how: Any) -> Any:
        answer = update(self, *arguments, **how)
        if "secret_id = :secret_id" in arguments[2]:
            raise Conflict(connection_store.get_item(moving.table, NAME))
        return answer

    with patch.object(type(moving.table), "update", twice):
        assert moving.move() == "moved"
    assert journal(moving.table) == []
    assert moving.token() == "canary-now"
