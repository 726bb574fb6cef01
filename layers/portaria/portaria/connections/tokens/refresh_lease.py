"""The lease on a connection's refresh: at most one worker at a time sends the refresh token.

The lease is part of the connection's item. `fence` grows with each claim, so that a worker that lost its lease cannot write:
each of its writes is conditional on its fence. `tries` counts how often the refresh token may have been sent.

A worker may die, or lose the platform's answer. So a claim also makes the connection due when the lease ends: the next sweep
then visits it, even if no caller returns. A visit needs no second one, because its message returns.
"""

from __future__ import annotations

from datetime import UTC, datetime

from portaria.aws import due_index
from portaria.aws.table import Item, Table
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import Retryable

# The platform's time-outs (18 s) < the time from sending to the commit < the lease < the time left to the function: a holder
# whose lease has ended is dead, or was stopped for longer than any of its calls may take.
LEASE_S = 45.0
TIME_TO_REFRESH_S = 40.0


class RefreshLease:
    """One worker's claim to refresh a connection's tokens. `item` is the connection's item right after the claim.

    `due_before` is when the connection was due before the claim (ISO 8601), if the claim has changed that.
    """

    def __init__(self, table: Table, connection: Connection) -> None:
        self.table = table
        self.connection = connection
        self.item: Item = {}
        self.tries = 0
        self.ends_at = 0.0
        self.due_before = ""

    @property
    def fence(self) -> int:
        return fence_of(self.item)

    def claim(self, time_left_s: float, found: Item, *, is_visit: bool) -> None:
        """Claim the lease. `found` is the connection's item as it was read.

        Only the first claim for a refresh token changes the due time: the visit that follows repeats until it succeeds.
        Raises `Conflict` if there is nothing to claim (see `held_until`), and `Retryable` (`short_of_time`).
        """
        now = clock.now().timestamp()
        if time_left_s < LEASE_S:
            raise short_of_time()
        self.ends_at = now + LEASE_S
        due: Item = {}
        due_before = str(found.get("due_at", ""))
        due_after = due_index.attributes(due_index.RENEWALS, datetime.fromtimestamp(self.ends_at, UTC))
        if not is_visit and not found.get("tries") and not "" < due_before <= due_after["due_at"]:
            due = due_after
        self.item = self.table.update(
            *connection_store.key(self.connection.name),
            "SET lease_until = :until, fence = if_not_exists(fence, :zero) + :one, tries = if_not_exists(tries, :zero) + :one"
            + "".join(f", {name} = :{name}" for name in due),
            condition="generation = :generation AND #state = :connected AND "
            "(attribute_not_exists(lease_until) OR lease_until < :now) AND "
            "(attribute_not_exists(retry_at) OR retry_at <= :now)",
            names={"#state": "state"},
            values={
                ":until": int(self.ends_at),
                ":now": int(now),
                ":zero": 0,
                ":one": 1,
                ":generation": self.connection.generation,
                ":connected": "connected",
                **{f":{name}": value for name, value in due.items()},
            },
        )
        self.tries = int(self.item["tries"])
        self.due_before = due_before if due else ""

    def held_until(self, item: Item) -> float | None:
        """After a failed claim: until when (epoch seconds) another worker holds the lease; None if the item has changed.

        `item` is the connection's item now. Raises `Retryable` (`renewal_waits`) during the pause after a failed refresh.
        """
        if item.get("generation") != self.connection.generation or item.get("state") != "connected":
            return None
        wait_s = item.get("retry_at", 0) - clock.now().timestamp()
        if wait_s > 0:
            detail = f"the token of {self.connection.name} could not be renewed a moment ago; the next attempt is later"
            raise Retryable("renewal_waits", detail, after_s=max(1.0, wait_s))
        # A lease that has ended since the claim needs no wait: the next claim succeeds.
        return float(item.get("lease_until", 0))

    def time_left_s(self) -> float:
        return self.ends_at - clock.now().timestamp()

    def count_try(self) -> None:
        """Record that the refresh token is about to be sent once more. Raises `Conflict` if the lease has been lost."""
        self.tries = int(self.update("SET tries = :tries", {":tries": self.tries + 1})["tries"])

    def update(self, expression: str, values: Item) -> Item:
        """Write to the item as the lease's holder. Raises `Conflict` if a later worker has claimed the lease."""
        return self.table.update(
            *connection_store.key(self.connection.name),
            expression,
            condition="generation = :generation AND fence = :fence",
            values={**values, ":generation": self.connection.generation, ":fence": self.fence},
        )


def fence_of(item: Item) -> int:
    return int(item.get("fence", 0))


def short_of_time() -> Retryable:
    return Retryable("short_of_time", "there is too little time left to renew a token", after_s=1)
