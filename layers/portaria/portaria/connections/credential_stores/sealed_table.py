"""Credentials that stay sealed in the table: one item for each grant, which holds the sealed versions that are kept.

The item has a partition of its own (`GRANT#{id}`), not the connection's: only roles that read credentials may read it, and it
is in no index, so that lists and sweeps neither see ciphertexts nor pay for them. The versions are sealed under data keys that
are bound to the grant's id, so a ciphertext that is copied to another item cannot be opened.

Every change reads the item and puts it back, on the condition that its `revision` is the one that was read. Labels follow those
of Secrets Manager, and a version without a label is kept for as long as any function may still run that has read its id.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import timedelta
from typing import Any

from portaria.aws import service_clients
from portaria.aws.table import Conflict, Item, Table
from portaria.connections.credential_stores import sealing
from portaria.connections.credential_stores.protocol import (
    IN_TABLE,
    RECOVERY,
    Credentials,
    checked_text,
    unavailable,
)
from portaria.core import clock
from portaria.core.errors import Retryable, StackUnavailable

SK = "CREDENTIALS"
# An item has at most 400 KB. So many bytes, sealed and encoded, leave room for 18 versions.
MAX_CREDENTIALS_BYTES = 16_384
CURRENT, PREVIOUS, PENDING = "current", "previous", "pending"
ASIDE_LABELS = 8
# Lambda ends every function within 15 minutes.
KEPT_UNLABELLED = timedelta(minutes=15)
# How often a change is repeated after another writer was faster.
MAX_TURNS = 8

# {version id: {"sealed": text, "labels": [label], "unlabelled_at": ISO 8601, only without labels}}
Versions = dict[str, dict[str, Any]]


class SealedTable:
    """See `CredentialStore`."""

    def __init__(self, table: Table, key_id: str) -> None:
        self.table = table
        self.key_id = key_id
        # The data key and the item of the grant that is about to be stored. Each is used once.
        self._prepared_seals: dict[str, sealing.Seal] = {}
        self._prepared_items: dict[str, Item | None] = {}

    @staticmethod
    def secret_id(name: str) -> str:
        return f"{IN_TABLE}{name}"

    @staticmethod
    def key(secret_id: str) -> tuple[str, str]:
        """The key of the item that holds a grant's versions."""
        return f"GRANT#{secret_id.removeprefix(IN_TABLE)}", SK

    def find(self, secret_id: str, version: str = "") -> tuple[Credentials, str] | None:
        item = self._read(secret_id)
        versions: Versions = item["versions"] if item else {}
        version = version or _labelled(versions, CURRENT)
        if version not in versions:
            return None
        return self._unseal(secret_id, versions[version]["sealed"]), version

    def prepare(self, secret_id: str) -> None:
        self._prepared_seals = {secret_id: sealing.prepare_seal(self.key_id, _context(secret_id))}
        self._prepared_items = {secret_id: self._read(secret_id)}

    def create(self, secret_id: str, credentials: Credentials, version: str = "") -> str:
        version = version or str(uuid.uuid4())
        versions = {version: {"sealed": self._seal(secret_id, credentials), "labels": [CURRENT]}}
        try:
            with _reporting():
                self.table.put_revision(self._item(secret_id, versions), new=True)
        except Conflict:
            if self._read(secret_id) is None:
                raise _removed() from None
        return version

    def add(self, secret_id: str, version: str, credentials: Credentials) -> bool:
        return self._put(secret_id, version, credentials, CURRENT)

    def add_aside(self, secret_id: str, version: str, credentials: Credentials, turn: int) -> None:
        self._put(secret_id, version, credentials, f"aside-{turn % ASIDE_LABELS}")

    def stage(self, secret_id: str, version: str, credentials: Credentials) -> None:
        self._put(secret_id, version, credentials, PENDING)

    def promote(self, secret_id: str, *, old: str, new: str) -> None:
        """Raises `Conflict` and `Retryable`."""

        def change(versions: Versions) -> bool:
            if new not in versions or _labelled(versions, CURRENT) != old:
                raise Conflict
            _move(versions, CURRENT, new)
            return True

        self._change(secret_id, change)

    def current_version(self, secret_id: str) -> str:
        item = self._read(secret_id)
        return _labelled(item["versions"], CURRENT) if item else ""

    def drop(self, secret_id: str, version: str) -> None:
        def change(versions: Versions) -> bool:
            if version not in versions or PREVIOUS not in versions[version]["labels"]:
                return False
            del versions[version]
            return True

        if self._read(secret_id):
            self._change(secret_id, change)

    def remove(self, secret_id: str, *, immediately: bool = False) -> None:
        """What is not removed immediately can be restored by removing `removed_at` and `expires_at` from the item."""
        if immediately:
            with _reporting():
                return self.table.delete(*self.key(secret_id))
        for _ in range(MAX_TURNS):
            with _reporting():
                item = self.table.get(*self.key(secret_id))
            if not item or "removed_at" in item:
                return None
            now = clock.now()
            removed = item | {
                "removed_at": clock.to_iso(now),
                "expires_at": int((now + RECOVERY).timestamp()),
            }
            # With a new revision, so that a writer that has read the item before cannot put it back.
            if self._put_back(removed):
                return None
        raise _contended()

    def _put(self, secret_id: str, version: str, credentials: Credentials, label: str) -> bool:
        sealed = self._seal(secret_id, credentials)

        def change(versions: Versions) -> bool:
            if version in versions:
                return False
            versions[version] = {"sealed": sealed, "labels": []}
            _move(versions, label, version)
            return True

        found = self._change(secret_id, change).get(version, {}).get("sealed", "")
        # A repeated write, whose first answer was lost, finds its own text; a repeated call finds the same credentials.
        return found == sealed or _texts(self._unseal(secret_id, found)) == _texts(credentials)

    def _change(self, secret_id: str, change: Callable[[Versions], bool]) -> Versions:
        """Apply a change, which returns False if there is nothing to write, and return the versions after it."""
        for _ in range(MAX_TURNS):
            item = self._prepared_items.pop(secret_id, None) or self._read(secret_id)
            if item is None:
                raise _removed()
            versions: Versions = deepcopy(item["versions"])
            if not change(versions):
                return versions
            _discard_old(versions)
            if self._put_back(item | {"versions": versions}):
                return versions
        raise _contended()

    def _put_back(self, item: Item) -> bool:
        """False if another writer was faster, which may have been this one's own request, sent twice."""
        try:
            with _reporting():
                self.table.put_revision(item, new=False, revision=item["revision"])
        except Conflict:
            return False
        return True

    def _read(self, secret_id: str) -> Item | None:
        """The item, or None if the credentials do not exist or have been removed."""
        with _reporting():
            item = self.table.get(*self.key(secret_id))
        return None if not item or "removed_at" in item else item

    @staticmethod
    def _item(secret_id: str, versions: Versions) -> Item:
        pk, sk = SealedTable.key(secret_id)
        return {"pk": pk, "sk": sk, "versions": versions}

    def _seal(self, secret_id: str, credentials: Credentials) -> str:
        checked_text(credentials, MAX_CREDENTIALS_BYTES, "the table")
        prepared = self._prepared_seals.pop(secret_id, None)
        return (prepared or sealing.prepare_seal(self.key_id, _context(secret_id))).seal(credentials)

    def _unseal(self, secret_id: str, sealed: str) -> Credentials:
        return sealing.unseal(self.key_id, _context(secret_id), sealed)


def _context(secret_id: str) -> dict[str, str]:
    return {"grant": secret_id.removeprefix(IN_TABLE)}


def _labelled(versions: Versions, label: str) -> str:
    return next((version for version, held in versions.items() if label in held["labels"]), "")


def _move(versions: Versions, label: str, version: str) -> None:
    """Give a version a label, which is on one version at a time. The version that was current becomes the previous one."""
    before = _labelled(versions, label)
    if before == version:
        return
    _take(versions, label)
    if label == CURRENT and before:
        _take(versions, PREVIOUS)
        versions[before]["labels"].append(PREVIOUS)
        _take(versions, PENDING)
    versions[version]["labels"].append(label)


def _take(versions: Versions, label: str) -> None:
    for held in versions.values():
        if label in held["labels"]:
            held["labels"].remove(label)


def _discard_old(versions: Versions) -> None:
    now = clock.now()
    for version, held in list(versions.items()):
        if held["labels"]:
            held.pop("unlabelled_at", None)
            continue
        since = held.setdefault("unlabelled_at", clock.to_iso(now))
        if clock.from_iso(since) + KEPT_UNLABELLED <= now:
            del versions[version]


def _texts(credentials: Credentials) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in credentials.items()}


@contextmanager
def _reporting() -> Iterator[None]:
    """Raises `Retryable` for a failure of DynamoDB."""
    try:
        yield
    except service_clients.FAILURES as error:
        raise unavailable(error) from None


def _removed() -> Retryable:
    return StackUnavailable("vault_unavailable", "the credentials have been removed from the table")


def _contended() -> Retryable:
    return Retryable("vault_unavailable", "other writers change the same credentials", after_s=1)
