"""The lease of an install: one worker at a time brings it further, and only the last one may write."""

from __future__ import annotations

import secrets

from portaria.aws import service_clients
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import tag_index
from portaria.core import clock
from portaria.core.errors import Retryable
from portaria.core.item_keys import install_key, install_lists, install_places
from portaria.installs.exchange_outcomes import KEPT_FOR, ExchangeOutcome
from portaria.installs.install_messages import Install

# Longer than exchange_code may run (40 s): a lease that has ended belongs to a worker that is dead.
LEASE_S = 45


class InstallLease:
    """One worker's turn at an install. `attempt` fences it: a later turn has a higher one, and only the last may write.

    `item` is the install's item as the claim returned it. Its `secret_id` is where the grant is stored: the one that the first
    turn was given, so that a later turn finds the grant although its stack stores new grants elsewhere by then.
    """

    def __init__(self, table: Table, install: Install, secret_id: str) -> None:
        self.table = table
        self.install = install
        self.secret_id = secret_id
        self.item: Item = {}

    @property
    def attempt(self) -> int:
        return int(self.item["attempts"])

    def claim(self) -> None:
        """Take the lease. Raises `Conflict` where the install has ended or another worker holds it."""
        install, now = self.install, clock.now()
        received_at = clock.to_iso(install.received_at)
        lists = install_lists("exchanging", install.platform, install.client)
        places = install_places(install.id, received_at)
        expires_at = int((now + KEPT_FOR).timestamp())
        if entry := tag_index.install_entry(install.id, received_at, install.tags, expires_at):
            # Before the install has its tags: an entry that leads to nothing shows nothing.
            self.table.put(entry)
        from_link = install.from_link()
        self.item = self.table.update(
            *install_key(install.id),
            "SET #state = :exchanging, platform = :platform, client = :client, lease_until = :until, "
            "attempts = if_not_exists(attempts, :zero) + :one, account_host = if_not_exists(account_host, :host), "
            "arrived_by = if_not_exists(arrived_by, :arrived_by), began_at = if_not_exists(began_at, :began_at), "
            "received_at = if_not_exists(received_at, :received_at), "
            "list_pk = :list_pk, list_sk = if_not_exists(list_sk, :list_sk), "
            "filter_pk = :filter_pk, filter_sk = if_not_exists(filter_sk, :filter_sk), expires_at = :expires_at, "
            "secret_id = if_not_exists(secret_id, :secret_id)"
            + "".join(f", #{name} = if_not_exists(#{name}, :{name})" for name in from_link),
            condition="attribute_not_exists(pk) OR #state = :received OR (#state = :exchanging AND "
            "(attribute_not_exists(lease_until) OR lease_until < :now))",
            names={"#state": "state"} | {f"#{name}": name for name in from_link},
            values={f":{name}": value for name, value in from_link.items()}
            | {
                ":exchanging": "exchanging",
                ":received": "received",
                ":platform": install.platform,
                ":client": install.client,
                ":until": int(now.timestamp()) + LEASE_S,
                ":now": int(now.timestamp()),
                ":zero": 0,
                ":one": 1,
                ":host": install.account_host,
                ":arrived_by": install.source,
                ":began_at": clock.to_iso(now),
                ":received_at": received_at,
                **{f":{name}": value for name, value in (lists | places).items()},
                ":expires_at": expires_at,
                ":secret_id": self.secret_id,
            },
        )

    def update(self, expression: str, values: Item) -> None:
        """Write to the install as its holder; a later turn makes this a `Conflict`."""
        self.table.update(
            *install_key(self.install.id),
            expression,
            condition="attempts = :attempt",
            values={**values, ":attempt": self.attempt},
            names={f"#{name}": name for name in ("state", "tags") if f"#{name}" in expression} or None,
        )

    def end(self, state: str, expression: str, values: Item) -> None:
        """Write the last state of the install, with the expression's changes, and end the lease."""
        lists = install_lists(state, self.install.platform, self.install.client)
        self.update(
            "SET #state = :state, list_pk = :list_pk, filter_pk = :filter_pk, " + expression,
            {":state": state, **{f":{name}": value for name, value in lists.items()}, **values},
        )

    def release(self) -> None:
        """Give the lease back so that the next turn need not wait for its end; where that fails, it waits."""
        try:
            self.update("REMOVE lease_until", {})
        except (Conflict, *service_clients.FAILURES):
            return

    def wait_s(self, asked_s: float | None) -> float:
        """How long until the next turn: as asked, or doubling from 2 s to a minute; always inside the code's life."""
        wait_s = asked_s if asked_s is not None else min(60.0, 2.0**self.attempt)
        wait_s *= 1 + secrets.randbelow(250) / 1000
        life_s = (self.install.code_ends_at() - clock.now()).total_seconds()
        return max(1.0, min(wait_s, life_s - 30)) if life_s > 30 else wait_s


def outcome_of(conflict: Conflict) -> ExchangeOutcome:
    """The outcome of an install that has ended. Raises `Retryable` (`in_progress`) while another worker holds its lease."""
    item = conflict.item or {}
    if item.get("state") in ("connected", "failed"):
        return ExchangeOutcome(item["state"], item.get("reason", ""), item.get("detail", ""))
    wait_s = max(1.0, item.get("lease_until", 0) - clock.now().timestamp() + 1)
    raise Retryable("in_progress", "another worker is processing this install", after_s=wait_s)
