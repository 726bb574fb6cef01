"""Bugs to plant in the code, one at a time, to see that the simulation would have found each.

A bug is a piece of a module's source and what stands there instead. The piece must occur exactly once, so that the list
cannot go stale unnoticed. Planting swaps the code of functions in place: whoever has imported one has the bug.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from portaria.connections.credential_stores.protocol import SECRETS_MANAGER, STORES, TABLE
from tests.simulation.platform import MODES
from tests.simulation.runner import Case, Failure, attempt
from tests.simulation.schedule import simulating


@dataclass(frozen=True)
class Bug:
    """`scenarios` are those in which it shows; `modes` and `stores` likewise."""

    name: str
    module: str
    old: str
    new: str
    scenarios: tuple[str, ...]
    modes: tuple[str, ...] = MODES
    stores: tuple[str, ...] = (SECRETS_MANAGER,)


RENEWALS = ("one_renewal", "renewal")
STRICT = ("strict",)
FORGIVING = ("grace", "replay")

BUGS = (
    # Leases.
    Bug(
        "a lease that nobody respects",
        "portaria.connections.tokens.refresh_lease",
        '            "(attribute_not_exists(lease_until) OR lease_until < :now) AND "\n',
        "",
        RENEWALS,
    ),
    Bug(
        "a lease that never ends",
        "portaria.connections.tokens.refresh_lease",
        '            "(attribute_not_exists(lease_until) OR lease_until < :now) AND "\n',
        '            "attribute_not_exists(lease_until) AND "\n',
        RENEWALS,
    ),
    Bug(
        "a lease that ends before the answer",
        "portaria.connections.tokens.refresh_lease",
        "        self.ends_at = now + LEASE_S\n",
        "        self.ends_at = now + 2\n        globals().update(TIME_TO_REFRESH_S=0.0)\n",
        RENEWALS,
    ),
    Bug(
        "released by whoever does not hold it",
        "portaria.connections.tokens.refresh_lease",
        '            condition="generation = :generation AND fence = :fence",\n'
        '            values={**values, ":generation": self.connection.generation, ":fence": self.fence},\n',
        '            condition="generation = :generation",\n'
        '            values={**values, ":generation": self.connection.generation},\n',
        RENEWALS,
    ),
    Bug(
        "refreshed without the lease, rather than waiting",
        "portaria.connections.tokens.refresh",
        "            return self.lease.held_until(conflict.item or self._item_now())\n",
        "            self.lease.item = conflict.item or {}\n",
        RENEWALS,
    ),
    Bug(
        "refreshed without the lease after waiting",
        "portaria.connections.tokens.provider",
        "            if leased_until is None:\n",
        "            if leased_until and clock.now() >= ends - timedelta(seconds=50):\n"
        "                turn = self._refresh(connection, token, item)\n"
        "                turn.lease.item, turn.lease.tries = item, 2\n"
        "                turn.lease.ends_at = clock.now().timestamp() + 45\n"
        "                turn._take_turn()\n"
        "            if leased_until is None:\n",
        RENEWALS,
    ),
    # State that a predecessor left.
    Bug(
        "no look for what a dead predecessor has stored",
        "portaria.connections.tokens.refresh",
        "        if self.lease.tries > 1 and self.storage.adopt():\n",
        "        if self.lease.tries > 99 and self.storage.adopt():\n",
        RENEWALS,
    ),
    Bug(
        "an invalid_grant that is believed without looking again",
        "portaria.connections.tokens.refresh",
        "        if self.storage.adopt():\n            return\n        reason, detail",
        "        reason, detail",
        RENEWALS,
    ),
    Bug(
        "tries that are not counted",
        "portaria.connections.tokens.refresh_lease",
        "tries = if_not_exists(tries, :zero) + :one",
        "tries = :one",
        RENEWALS,
        STRICT,
    ),
    Bug(
        "a lost answer that is called a revocation",
        "portaria.connections.tokens.refresh",
        "        if self.lease.tries > 1:\n            reason = ConnectionReason.ANSWER_LOST\n",
        "        if self.lease.tries > 99:\n            reason = ConnectionReason.ANSWER_LOST\n",
        RENEWALS,
        STRICT,
    ),
    Bug(
        "no way back for the holder of the only pair",
        "portaria.connections.tokens.pair_storage",
        '            if item.get("reason") == ConnectionReason.ANSWER_LOST:\n',
        '            if item.get("reason") == "never":\n',
        RENEWALS,
        STRICT,
    ),
    Bug(
        "a version whose id nobody else can know",
        "portaria.connections.tokens.stored_grant",
        "    version = vault.version_id(secret_id, generation)\n    if vault_.add",
        "    version = str(uuid.uuid4())\n    if vault_.add",
        RENEWALS,
        STRICT,
    ),
    Bug(
        "a lost answer that no sweep looks for",
        "portaria.connections.tokens.refresh_lease",
        "            due = due_after\n",
        "            due = {}\n",
        ("ended_token",),
        FORGIVING,
        STORES,
    ),
    Bug(
        "a visit that leaves a lost answer alone",
        "portaria.connections.renewal_sweep",
        "(self._is_due(connection) or self._lost_an_answer(item)):\n",
        "self._is_due(connection):\n",
        ("ended_token",),
        FORGIVING,
        STORES,
    ),
    # The order of storing and using.
    Bug(
        "committed before it is stored",
        "portaria.connections.tokens.pair_storage",
        "            version = version or add_version(self.vault, secret_id, generation, credentials, self.lease.fence)\n"
        "            self._commit(credentials, version=version)\n",
        "            self._commit(credentials, version=vault.version_id(secret_id, generation))\n"
        "            add_version(self.vault, secret_id, generation, credentials, self.lease.fence)\n",
        RENEWALS,
    ),
    Bug(
        "used before it is stored",
        "portaria.connections.tokens.refresh",
        "            self.storage.store({**self.old.credentials, **to_stored(grant)}, seal)\n",
        "            from portaria.core.http.messages import Request\n"
        "            headers = {'Authorization': f'Bearer {grant.access_token.reveal()}'}\n"
        "            url = f'https://{self.connection.allowed_domain}/api/v4/account'\n"
        "            host, name = self.connection.allowed_domain, self.connection.name\n"
        "            http_client.send(Request('GET', url, headers), allowed_domain=host, owner=name)\n"
        "            self.storage.store({**self.old.credentials, **to_stored(grant)}, seal)\n",
        ("renewal", "two_days"),
    ),
    Bug(
        "a vault that refuses is the end of it",
        "portaria.connections.tokens.pair_storage",
        "            self._commit(credentials, sealed=seal.seal(credentials))\n",
        "            from portaria.core.errors import Retryable\n"
        '            raise Retryable("vault_unavailable", "")\n',
        RENEWALS,
        STRICT,
    ),
    Bug(
        "a sealed pair that is not written",
        "portaria.connections.tokens.pair_storage",
        '            item |= {"sealed": sealed, "due_pk"',
        '            item |= {"due_pk"',
        RENEWALS,
    ),
    Bug(
        "committed over whatever stands there",
        "portaria.connections.tokens.pair_storage",
        '            condition=f"generation = :old AND {condition}",\n',
        '            condition="generation > :zero OR generation = :old OR fence = :fence OR #state = :connected",\n',
        ("reinstall", "two_installs"),
    ),
    # Meanings of responses.
    Bug(
        "a 5xx that kills the grant",
        "portaria.platforms.kommo.tokens",
        "    if response.status in (400, 401):\n",
        '    if response.status >= 500:\n        raise GrantRevoked("")\n    if response.status in (400, 401):\n',
        RENEWALS,
    ),
    Bug(
        "a time-out that kills the grant",
        "portaria.connections.tokens.refresh_call",
        "                if not is_lost or self.lease.tries > 1:\n                    raise\n",
        "                if retryable.answer_lost:\n                    from portaria.core.errors import GrantRevoked\n"
        '                    raise GrantRevoked("") from None\n'
        "                if not is_lost or self.lease.tries > 1:\n                    raise\n",
        RENEWALS,
    ),
    Bug(
        "tokens that are handed out in their last minute",
        "portaria.connections.tokens.cache",
        "MARGIN = timedelta(seconds=60)",
        "MARGIN = timedelta(seconds=1)",
        RENEWALS,
    ),
    # Rotations.
    Bug(
        "a new token that is not tried",
        "portaria.connections.rotation",
        "    scopes = try_credentials(table, vault, connection, credentials)\n    version = ",
        '    scopes = ""\n    version = ',
        ("bad_rotation",),
    ),
    Bug(
        "the old token dropped before the commit",
        "portaria.connections.rotation",
        "    fresh = _commit(table, item, fresh)\n    if not until:\n        _drop(vault, connection, in_use)\n",
        "    _drop(vault, connection, in_use)\n    fresh = _commit(table, item, fresh)\n",
        ("fresh_rotation",),
    ),
    Bug(
        "a label that a dead rotation has left, and nobody moves back",
        "portaria.connections.rotation",
        "    if in_use != current:\n",
        '    if in_use == current + "?":\n',
        ("rotation", "bad_rotation"),
    ),
    # Installs.
    Bug(
        "an install that two workers do at once",
        "portaria.installs.install_lease",
        '            condition="attribute_not_exists(pk) OR #state = :received OR (#state = :exchanging AND "\n'
        '            "(attribute_not_exists(lease_until) OR lease_until < :now))",\n',
        '            condition="attribute_not_exists(pk) OR #state IN_ANY",\n'.replace(
            "#state IN_ANY", "#state = :received OR #state = :exchanging OR lease_until < :now"
        ),
        ("install", "reinstall"),
    ),
    Bug(
        "an install that does not look for the stored grant",
        "portaria.installs.grant_exchange",
        "        found = self.vault.find(self.secret_id)\n",
        "        found = None\n",
        ("install", "reinstall"),
    ),
    Bug(
        "a sealed grant that is dropped",
        "portaria.installs.grant_exchange",
        '        if sealed := self.lease.item.get("sealed_grant"):\n',
        '        if sealed := self.lease.item.get("sealed_grunt"):\n',
        ("install", "reinstall"),
    ),
    Bug(
        "the old secret removed before the commit",
        "portaria.installs.connection_commit",
        "        try:\n            self.table.write_all(writes)\n",
        "        if old and old.secret_id and not superseded:\n            self.grants.vault.remove(old.secret_id)\n"
        "        try:\n            self.table.write_all(writes)\n",
        ("reinstall", "two_installs"),
    ),
    Bug(
        "the old secret that is never removed",
        "portaria.installs.code_exchange",
        "            self.vault.remove(previous)\n",
        "            pass\n",
        ("reinstall",),
    ),
    Bug(
        "the install that came first wins",
        "portaria.installs.connection_commit",
        "        superseded = bool(old and old.granted_at > received_at and old.secret_id != self.grants.secret_id)\n",
        "        superseded = False\n",
        ("two_installs",),
    ),
    # Tags.
    Bug(
        "tags that the commit forgets",
        "portaria.installs.connection_commit",
        "        connection = with_changes(connection, tags=tags, tagged_at=tagged_at)\n",
        "",
        ("tagged_installs", "claimed_install"),
    ),
    Bug(
        "tags that an install without any takes away",
        "portaria.installs.connection_commit",
        "            found = (old.tags, old.tagged_at)\n",
        "            found = ({}, old.tagged_at)\n",
        ("claimed_install", "tagged_return"),
    ),
    Bug(
        "tags of an install that a later one overtook",
        "portaria.installs.connection_commit",
        "                writes.append(connection_store.tagging(old, tags, tagged_at))\n",
        "",
        ("tagged_installs",),
    ),
    Bug(
        "tags that were given during a commit, overwritten",
        "portaria.connections.connection_store",
        'TAGS_UNCHANGED = "(attribute_not_exists(tagged_at) OR tagged_at = :tagged_before)"\n',
        'TAGS_UNCHANGED = "(attribute_not_exists(tagged_at) OR tagged_at <> :tagged_before OR tagged_at = :tagged_before)"\n',
        ("claimed_reinstall",),
    ),
    Bug(
        "a claim that the first install does not see",
        "portaria.installs.claims",
        '        return delete_of(*key, "attribute_not_exists(pk)")\n',
        "        return delete_of(*key)\n",
        ("claimed_install",),
    ),
    Bug(
        "an entry that ends although its customer came back",
        "portaria.installs.connection_commit",
        "            writes += tag_index.connection_writes(name, old.tags if old else {}, tags)\n",
        "            writes += tag_index.connection_writes(name, {}, tags) if not old or old.tags != tags else []\n",
        ("tagged_return",),
    ),
    # Disconnects.
    Bug(
        "a disconnect hook that is believed",
        "portaria.installs.uninstall",
        "            if self._still_connected(connection) or self._may_come_back(checks):\n",
        '            if connection.state == "never":\n',
        ("replayed_hook", "departure_and_return"),
    ),
    Bug(
        "a departure that takes the return with it",
        "portaria.installs.uninstall",
        '        condition=f"generation = :generation AND {connection_store.TAGS_UNCHANGED}",\n',
        '        condition=f"(generation > :generation OR generation <= :generation) AND {connection_store.TAGS_UNCHANGED}",\n',
        ("return_at_once",),
    ),
    Bug(
        "a removed connection whose secret stays",
        "portaria.installs.uninstall",
        "        if connection.secret_id:\n            self.vault.remove(connection.secret_id)\n",
        "",
        ("departure",),
    ),
    # Listings.
    Bug(
        "a refused connection listed as connected",
        "portaria.connections.tokens.usability",
        '    changed |= connection_store.filter_keys(connection, "needs_reconnect")\n',
        "",
        ("revocation",),
    ),
    Bug(
        "a removed connection listed as connected",
        "portaria.installs.uninstall",
        '    listed = connection_store.filter_keys(connection, "removed") if is_listed else {}\n',
        '    listed = connection_store.filter_keys(connection, "connected") if is_listed else {}\n',
        ("departure",),
    ),
    Bug(
        "a recovered connection listed as needing reconnection",
        "portaria.connections.tokens.pair_storage",
        '"filter_pk", ',
        "",
        ("renewal",),
    ),
    Bug(
        "a failed install listed as exchanging",
        "portaria.installs.install_lease",
        "        lists = install_lists(state, self.install.platform, self.install.client)\n",
        '        lists = install_lists("exchanging", self.install.platform, self.install.client)\n',
        ("install",),
    ),
    # Renewals.
    # The sealed table.
    Bug(
        "a change that another writer overwrites",
        "portaria.connections.credential_stores.sealed_table",
        '                self.table.put_revision(item, new=False, revision=item["revision"])\n',
        "                self.table.put_revision(item, new=False)\n",
        ("two_installs", "reinstall", "departure", "rotation", "renewal"),
        STRICT,
        (TABLE,),
    ),
    Bug(
        "a rotation that keeps no token in reserve",
        "portaria.connections.credential_stores.sealed_table",
        '        versions[before]["labels"].append(PREVIOUS)\n',
        "",
        ("rotation", "fresh_rotation"),
        STRICT,
        (TABLE,),
    ),
    Bug(
        "an install that looks for its grant in the store of today",
        "portaria.installs.grant_exchange",
        '        return str(self.lease.item["secret_id"])\n',
        "        return self.vault.grant_id(self.install.id)\n",
        ("migrated_reinstall",),
        STRICT,
        STORES,
    ),
    # Migrations.
    Bug(
        "the old copy removed before the item points to the new one",
        "portaria.connections.credential_migration",
        "        if not self._point_to(entry, item):\n",
        "        self.vault.remove(entry.old)\n        if not self._point_to(entry, item):\n",
        ("migrated_renewal", "migrated_rotation"),
        STRICT,
        STORES,
    ),
    Bug(
        "a move although a refresh token is on its way",
        "portaria.connections.credential_migration",
        '        untried = " AND (attribute_not_exists(tries) OR tries = :zero)"\n',
        '        untried = " AND (attribute_not_exists(tries) OR tries >= :zero)"\n',
        ("migrated_renewal",),
        MODES,
        STORES,
    ),
    Bug(
        "a move that begins no generation",
        "portaria.connections.credential_migration",
        '            "generation": generation + 1,\n',
        '            "generation": generation,\n',
        ("migrated_renewal", "migrated_rotation"),
        STRICT,
        STORES,
    ),
    Bug(
        "a move that ignores the lease",
        "portaria.connections.credential_migration",
        '            "(attribute_not_exists(lease_until) OR lease_until < :now)" + untried,\n',
        '            "(attribute_not_exists(lease_until) OR lease_until >= :zero OR lease_until < :now)",\n',
        ("migrated_renewal",),
        STRICT,
        STORES,
    ),
    Bug(
        "a copy without the token that is in reserve",
        "portaria.connections.credential_migration",
        "        if previous:\n",
        "        if previous and not connection.previous_until:\n",
        ("migrated_rotation",),
        STRICT,
        STORES,
    ),
    Bug(
        "a copy that nobody writes down",
        "portaria.connections.credential_migration",
        '        self.table.put({"pk": PARTITION, "sk": entry.sk} | {field: getattr(entry, field) for field in _FIELDS})\n',
        "",
        ("migrated_renewal", "migrated_reinstall", "migrated_departure"),
        STRICT,
        STORES,
    ),
    Bug(
        "sealed credentials that a move forgets",
        "portaria.connections.credential_migration",
        '            if sealed := item.get("sealed"):\n',
        '            if sealed := item.get("never"):\n',
        ("migrated_renewal",),
        STRICT,
    ),
    Bug(
        "nobody told of what has ended",
        "portaria.connections.renewal_sweep",
        "            self._tell(connection, announce)\n",
        "            pass\n",
        ("revocation",),
    ),
    Bug(
        "an event that is struck off before the bus has it",
        "portaria.connections.renewal_sweep",
        "        if announce := item.get(connection_store.ANNOUNCE):\n            self._tell(connection, announce)\n",
        "        announce = item.get(connection_store.ANNOUNCE)\n"
        "        if announce:\n"
        "            self._settle(item, connection, announced=announce)\n"
        "            self._tell(connection, announce)\n",
        ("revocation",),
    ),
)
# Bugs that are found quickly, one of each kind.
QUICK = (
    "a lease that nobody respects",
    "committed before it is stored",
    "a 5xx that kills the grant",
    "a new token that is not tried",
    "tags that the commit forgets",
    "the old copy removed before the item points to the new one",
    "a lost answer that no sweep looks for",
)


class Stale(Exception):
    """A bug's piece of source no longer occurs exactly once."""


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """Raises `Stale`."""
    module = importlib.import_module(bug.module)
    path = Path(str(module.__file__))
    source = path.read_text()
    if source.count(bug.old) != 1:
        raise Stale(f"{bug.name}: its piece of {bug.module} occurs {source.count(bug.old)} times, not once")
    _swap(module, path, source.replace(bug.old, bug.new))
    try:
        yield
    finally:
        _swap(module, path, source)


def _swap(module: ModuleType, path: Path, source: str) -> None:
    """Replace the module's functions, methods and numbers by those of a source, in place."""
    fresh: dict[str, Any] = {"__name__": module.__name__, "__file__": str(path), "__package__": module.__package__}
    exec(compile(source, str(path), "exec"), fresh)
    for name, new in fresh.items():
        old = module.__dict__.get(name)
        if isinstance(new, type) and isinstance(old, type) and new.__module__ == module.__name__:
            for attribute, function in vars(new).items():
                _swap_code(vars(old).get(attribute), function, path)
        elif isinstance(new, FunctionType):
            _swap_code(old, new, path)
        elif name.isupper() and type(new) in (int, float, str, type(old)) and new != old:
            setattr(module, name, new)


def _swap_code(old: Any, new: Any, path: Path) -> None:
    if isinstance(new, property) and isinstance(old, property):
        old, new = old.fget, new.fget
    if isinstance(new, FunctionType) and isinstance(old, FunctionType) and old.__code__.co_filename == str(path):
        old.__code__ = new.__code__


def seek(bug: Bug, limit: int) -> Failure | None:
    """Look for the planted bug in at most this many schedules, by their seeds."""
    with planted(bug), simulating():
        for number in range(limit):
            scenario = bug.scenarios[number % len(bug.scenarios)]
            mode = bug.modes[number // len(bug.scenarios) % len(bug.modes)]
            store = bug.stores[number % len(bug.stores)]
            end = attempt(Case(mode, number, scenario, store=store))
            if isinstance(end, Failure):
                return end
    return None
