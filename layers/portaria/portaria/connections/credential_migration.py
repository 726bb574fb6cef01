"""Moving the credentials of connections from one store to the other while they are in use.

    page → a message for each connection → claim → journal → copy → check → point to the copy → remove the old → end the entry

The connection's item decides which copy is in use: one conditional write moves it, and until then nothing reads the copy. A
connection is moved only while nobody refreshes its token and no refresh token of this generation can be on its way: the claim
takes the lease of refreshes and requires that no refresh of the generation has been tried. The move begins a new generation, so
that a worker that has read the item before cannot claim a refresh with the old place. Each turn copies to a name of its own.

The journal (`CREDENTIAL_MIGRATIONS`) names both places before the copy exists. If the worker dies, the entry leads the next run
to the copy that is left over: the old one once the item points to the new one, or a copy that the item will never point to.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import timedelta

from portaria.aws import queues
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store
from portaria.connections.credential_stores import sealing
from portaria.connections.credential_stores.protocol import SECRETS_MANAGER, store_name, version_id
from portaria.connections.vault import Credentials, Vault
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable

logger = logging.getLogger(__name__)

PARTITION = "CREDENTIAL_MIGRATIONS"
# As long as a refresh's: a move takes about ten calls to AWS.
LEASE_S = 45
# No function runs for so long, so a copy that nothing has pointed to by then is abandoned. So long after a connection has ended
# no worker can come back with new tokens.
ABANDONED_AFTER = timedelta(minutes=20)
PAGE = 100
MOVABLE_STATES = ("connected", "needs_reconnect")


@dataclass(frozen=True)
class Entry:
    """A move in the journal: the connection, the fence of the worker, and the `secret_id` of both places."""

    connection: str
    fence: int
    old: str
    new: str
    started_at: str

    @property
    def sk(self) -> str:
        return f"{self.connection}#{self.new}"


_FIELDS = tuple(field.name for field in dataclass_fields(Entry))


def queue_page(table: Table, queue_url: str, store: str, cursor: str) -> int:
    """Queue a message for each connection of a page that has something to move or to remove, and one for the next page."""
    names: list[str] = []
    if not cursor:
        names += [entry.connection for entry in journal(table)]
    connections, next_cursor = connection_store.list_page(table, cursor or None, PAGE)
    names += [each.name for each in connections if is_to_move(each, store)]
    bodies = [queues.encode({"migrate": store, "connection": name}) for name in dict.fromkeys(names)]
    if next_cursor:
        bodies.append(queues.encode({"migrate": store, "cursor": next_cursor}))
    queues.send(queue_url, bodies)
    return len(bodies) - bool(next_cursor)


def is_to_move(connection: Connection, store: str) -> bool:
    """Whether a connection's credentials are in the other store than `store`."""
    is_movable = connection.state in MOVABLE_STATES and bool(connection.secret_id)
    return is_movable and store_name(connection.secret_id) != store


def journal(table: Table, connection: str = "") -> list[Entry]:
    """The moves that are not finished, of one connection or of all."""
    prefix = f"{connection}#" if connection else ""
    return [Entry(**{name: item[name] for name in _FIELDS}) for item in table.query_all(PARTITION, sk_prefix=prefix)]


class Migration:
    """One worker's turn at one connection. `move` may be repeated at any time."""

    def __init__(self, table: Table, vault: Vault, sealing_key_id: str, name: str) -> None:
        self.table = table
        self.vault = vault
        self.sealing_key_id = sealing_key_id
        self.name = name

    def move(self, store: str) -> str:
        """Returns `moved`, `in_place` (nothing to move), `waits` (in use, try again later) or `unreadable`.

        Raises `Retryable` where a store does not answer.
        """
        item = self.table.get(*connection_store.key(self.name))
        for entry in journal(self.table, self.name):
            self._clean_up(entry, item)
        if not item or not is_to_move(connection_store.read(item), store):
            return "in_place"
        try:
            item = self._claim(item)
        except Conflict:
            return "waits"
        try:
            return self._take_turn(item, store)
        except Exception:
            # Renewals and the next turn need not wait for the end of the lease.
            self._give_back(item)
            raise

    def _take_turn(self, item: Item, store: str) -> str:
        connection = connection_store.read(item)
        credentials = self._in_use(item, connection)
        if credentials is None:
            self._give_back(item)
            logger.warning("credentials_not_moved", extra={"connection": self.name, "reason": "unreadable"})
            return "unreadable"
        entry = self._begin(item, store)
        try:
            self._copy(entry, connection, credentials)
        except Rejected as rejected:
            # The table takes smaller credentials than Secrets Manager.
            self._give_back(item)
            self._discard(entry)
            logger.warning("credentials_not_moved", extra={"connection": self.name, "reason": rejected.reason})
            return "unreadable"
        if not self._point_to(entry, item):
            return "waits"
        self._finish(entry)
        logger.info("credentials_moved", extra={"connection": self.name, "store": store})
        return "moved"

    def _clean_up(self, entry: Entry, item: Item | None) -> None:
        """Remove what an earlier turn has left, once it is certain that its worker has ended.

        Only that worker may point the item to its copy. It may also still create the copy. The item never points again to a
        name that it has left, so a copy that it does not point to is of no use.
        """
        if item and item["secret_id"] == entry.new:
            self._finish(entry)
        elif clock.from_iso(entry.started_at) + ABANDONED_AFTER <= clock.now():
            self.vault.remove(entry.new, immediately=True)
            if not item or item["secret_id"] != entry.old:
                self.vault.remove(entry.old)
            self.table.delete(PARTITION, entry.sk)

    def _claim(self, item: Item) -> Item:
        """Take the lease that refreshes and rotations take too. Raises `Conflict` while the credentials are being changed."""
        now = clock.now()
        values: Item = {
            ":until": int(now.timestamp()) + LEASE_S,
            ":now": int(now.timestamp()),
            ":zero": 0,
            ":one": 1,
            ":generation": item["generation"],
            ":state": item["state"],
        }
        untried = " AND (attribute_not_exists(tries) OR tries = :zero)"
        if item["state"] == "needs_reconnect":
            if clock.from_iso(item["updated_at"]) + ABANDONED_AFTER > now:
                raise Conflict
            untried = ""
        return self.table.update(
            *connection_store.key(self.name),
            "SET lease_until = :until, fence = if_not_exists(fence, :zero) + :one",
            condition="generation = :generation AND #state = :state AND "
            "(attribute_not_exists(lease_until) OR lease_until < :now)" + untried,
            names={"#state": "state"},
            values=values,
        )

    def _give_back(self, item: Item) -> None:
        """Return the lease early. If that fails, it ends by itself."""
        with suppress(Exception):
            self.table.update(
                *connection_store.key(self.name),
                "REMOVE lease_until",
                condition="fence = :fence",
                values={":fence": item["fence"]},
            )

    def _in_use(self, item: Item, connection: Connection) -> Credentials | None:
        try:
            if sealed := item.get("sealed"):
                return sealing.unseal(self.sealing_key_id, {"connection": self.name}, sealed)
            return self.vault.read(connection.secret_id, connection.version_id)
        except Rejected:
            return None

    def _begin(self, item: Item, store: str) -> Entry:
        """Write down both places before there is a copy. The fence makes the new name this turn's own."""
        name = re.sub(r"\.\d+$", "", re.split("[:/]", item["secret_id"])[-1])
        new = self.vault.grant_id(f"{name}.{item['fence']}", store)
        entry = Entry(self.name, int(item["fence"]), item["secret_id"], new, clock.to_iso(clock.now()))
        self.table.put({"pk": PARTITION, "sk": entry.sk} | {field: getattr(entry, field) for field in _FIELDS})
        return entry

    def _copy(self, entry: Entry, connection: Connection, credentials: Credentials) -> None:
        """Copy the credentials in use and those before a rotation, and read the copy back."""
        in_use = version_id(entry.new, connection.generation + 1)
        previous: Credentials | None = None
        if connection.previous_version_id:
            previous = self.vault.read(connection.secret_id, connection.previous_version_id)
        if previous:
            self.vault.create(entry.new, previous, version_id(entry.new, connection.generation))
            self.vault.add(entry.new, in_use, credentials)
        else:
            self.vault.create(entry.new, credentials, in_use)
        copied = self.vault.read(entry.new, in_use)
        if copied is None or _texts(copied) != _texts(credentials):
            raise Retryable("copy_unreadable", "the copy of the credentials cannot be read back yet", after_s=5)

    def _point_to(self, entry: Entry, item: Item) -> bool:
        """Move the item to the copy, unless it has changed since the claim. Then the copy is removed at once, or left to the
        journal where the item has another place by now: this write may have been carried out before that.
        """
        generation = item["generation"]
        fresh: Item = {
            "secret_id": entry.new,
            "version_id": version_id(entry.new, generation + 1),
            "previous_version_id": version_id(entry.new, generation) if item.get("previous_version_id") else "",
            "generation": generation + 1,
        }
        if store_name(entry.new) == SECRETS_MANAGER:
            fresh[connection_store.VERSION_ADDED_AT] = clock.to_iso(clock.now())
        try:
            self.table.update(
                *connection_store.key(self.name),
                f"SET {', '.join(f'{name} = :{name}' for name in fresh)} REMOVE lease_until, sealed",
                condition="generation = :before AND fence = :fence AND #state = :state AND secret_id = :old",
                names={"#state": "state"},
                values={f":{name}": value for name, value in fresh.items()}
                | {":before": generation, ":fence": entry.fence, ":state": item["state"], ":old": entry.old},
            )
        except Conflict as conflict:
            place = (conflict.item or {}).get("secret_id")
            if place == entry.old:
                self._discard(entry)
            # A write that was sent twice, because its first answer was lost, conflicts with itself.
            return place == entry.new
        return True

    def _finish(self, entry: Entry) -> None:
        """The item points to the copy: remove the old credentials, which can be restored for a week, and end the entry."""
        self.vault.remove(entry.old)
        self.table.delete(PARTITION, entry.sk)

    def _discard(self, entry: Entry) -> None:
        """Remove this turn's own copy, to which the item will never point, and end the entry."""
        self.vault.remove(entry.new, immediately=True)
        self.table.delete(PARTITION, entry.sk)


def _texts(credentials: Credentials) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in credentials.items()}
