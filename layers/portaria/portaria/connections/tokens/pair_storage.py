"""Storing the pair of tokens that a refresh returned, before any caller uses it.

A pair is stored in two steps: first where it survives (a version of the connection's secret, or sealed in the table), then the
connection's item points to it. The generation decides the version id of the new pair, so that a later worker finds a pair whose
storing worker died between the two steps.

A secret takes at most 100 versions a day. While its last version is younger than `connection_store.VERSION_EVERY`, a new pair
is sealed in the connection's item instead (`sealed`), in the write that points to it. The next refresh after that time, or a
visit of `renew_tokens`, stores a pair in the vault again.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace as with_changes

from portaria.aws import due_index
from portaria.aws.table import Conflict, Item
from portaria.connections import connection_store, vault
from portaria.connections.credential_stores import sealing
from portaria.connections.credential_stores.sealing import Seal
from portaria.connections.tokens.refresh_context import RefreshContext
from portaria.connections.tokens.refresh_lease import RefreshLease
from portaria.connections.tokens.stored_grant import add_version, read_stored
from portaria.connections.vault import Credentials
from portaria.core import clock, event_catalogue
from portaria.core.entities import Connection
from portaria.core.stored_reasons import ConnectionReason

logger = logging.getLogger(__name__)


class PairStorage:
    """Stores the next generation's pair of one connection. `after_401` is whether the platform refused the old token."""

    def __init__(
        self, context: RefreshContext, connection: Connection, lease: RefreshLease, *, after_401: bool
    ) -> None:
        self.context = context
        self.table = context.table
        self.vault = context.vault
        self.connection = connection
        self.lease = lease
        self.after_401 = after_401

    def adopt(self) -> bool:
        """Point to the pair that an earlier worker stored before it died or lost its lease. False if there is none."""
        next_version = vault.version_id(self.connection.secret_id, self.connection.generation + 1)
        found = self.vault.read(self.connection.secret_id, next_version)
        if found:
            self._commit(found, version=next_version)
            return True
        sealed = connection_store.get_item(self.table, self.connection.name).get("sealed_next")
        if sealed:
            context = {"connection": self.connection.name}
            self._commit(sealing.unseal(self.context.sealing_key_id, context, sealed), sealed=sealed)
        return bool(sealed)

    def store(self, credentials: Credentials, seal: Seal) -> None:
        """Store the new pair in the vault or, sealed, in the table, and point to it.

        The vault comes first unless it has just got a version of this secret. If one of them fails, the other is tried, until
        the function's time is over.
        """
        version = ""

        def in_vault() -> None:
            nonlocal version
            # Once: another attempt at the pointer must not add another version.
            secret_id, generation = self.connection.secret_id, self.connection.generation + 1
            version = version or add_version(self.vault, secret_id, generation, credentials, self.lease.fence)
            self._commit(credentials, version=version)

        def in_table() -> None:
            self._commit(credentials, sealed=seal.seal(credentials))

        vault_rests = connection_store.vault_rests_until(self.lease.item) > clock.now()
        places = (in_table, in_vault) if vault_rests else (in_vault, in_table)
        while True:
            for store in places:
                try:
                    return store()
                except Exception as error:
                    # After any error: the pair may be stored nowhere else yet.
                    self._log_unstored(store.__name__, error)
                    if store is places[-1] and self.context.time_left_s() < 5:
                        raise
            clock.sleep(0.2)

    def _commit(self, credentials: Credentials, *, version: str = "", sealed: str = "") -> None:
        """Point the item to the new pair, if this worker may still change it.

        A later worker that holds the lease finds this pair. If a later worker ended the connection because the refresh token
        was used, which this worker did, this pair is the only valid one, and it brings the connection back.
        """
        now = clock.now()
        ends_at = read_stored(credentials).expires_at
        fresh = with_changes(
            self.connection,
            generation=self.connection.generation + 1,
            version_id=version or self.connection.version_id,
            token_ends_at=clock.to_iso(ends_at),
            scopes=read_stored(credentials).scopes or self.connection.scopes,
            state="connected",
            reason="",
            refused_since="",
            refusal="",
            updated_at=clock.to_iso(now),
        )
        try:
            mine = {":connected": "connected", ":fence": self.lease.fence}
            self._point_to(fresh, sealed, "#state = :connected AND fence = :fence", mine)
        except Conflict as conflict:
            item = conflict.item or {}
            if item.get("generation") != self.connection.generation:
                return
            if item.get("reason") == ConnectionReason.ANSWER_LOST:
                with suppress(Conflict):
                    self._point_to(
                        fresh,
                        sealed,
                        "#state = :needs_reconnect AND #reason = :lost",
                        {":needs_reconnect": "needs_reconnect", ":lost": ConnectionReason.ANSWER_LOST},
                        announce=event_catalogue.RECOVERED,
                    )
            elif sealed:
                with suppress(Conflict):
                    # A connection that has been removed keeps no tokens.
                    self.table.update(
                        *connection_store.key(self.connection.name),
                        "SET sealed_next = :sealed",
                        condition="generation = :generation AND #state <> :removed",
                        names={"#state": "state"},
                        values={
                            ":sealed": sealed,
                            ":generation": self.connection.generation,
                            ":removed": "removed",
                        },
                    )

    def _point_to(self, fresh: Connection, sealed: str, condition: str, values: Item, announce: str = "") -> None:
        before = self.lease.item
        announce = (
            announce or before.get("announce", "") or (event_catalogue.RECOVERED if before.get("resumed") else "")
        )
        item = connection_store.to_item(fresh, announce=announce)
        if sealed:
            # A sweep moves it into the vault.
            rests_until = connection_store.vault_rests_until(before)
            due_at = min(item.get("due_at") or connection_store.NEVER, clock.to_iso(max(clock.now(), rests_until)))
            item |= {"sealed": sealed, "due_pk": due_index.RENEWALS, "due_at": due_at}
        else:
            item[connection_store.VERSION_ADDED_AT] = clock.to_iso(clock.now())
        if self.after_401:
            item["renewed_after_401"] = int(before.get("renewed_after_401", 0)) + 1
        changed = ("generation", "version_id", "token_ends_at", "scopes", "state", "filter_pk", "filter_sk", "reason",
                   "updated_at", "due_pk", "due_at", "announce", "sealed", "refused_since", "refusal", "renewed_after_401",
                   connection_store.VERSION_ADDED_AT)  # fmt: skip
        found = [name for name in changed if name in item]
        gone = ["lease_until", "retry_at", "tries", "sealed_next", "refused_times", "refused_told", "resumed"]
        gone += [name for name in ("sealed", "renewed_after_401") if name not in item]
        self.table.update(
            *connection_store.key(fresh.name),
            f"SET {', '.join(f'#{name} = :{name}' for name in found)} REMOVE {', '.join(gone)}",
            condition=f"generation = :old AND {condition}",
            names={f"#{name}": name for name in found},
            values={f":{name}": item[name] for name in found} | values | {":old": self.connection.generation},
        )

    def _log_unstored(self, where: str, error: Exception) -> None:
        # Without the error's text, which may quote the credentials.
        facts = {"connection": self.connection.name, "where": where, "error": type(error).__name__}
        logger.error("token_store_failed", extra=facts)
