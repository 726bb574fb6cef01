"""The budget of requests to a platform: one for its limit per address and one for each account, shared by all functions.

A request claims a slot (`request_slots`) with one conditional write that increases a counter, and is sent in that slot. A claim
needs no return: if the process dies, its slot passes unused. A counter that a wrong clock has set far ahead is reset.

Which functions share an address is known only in a VPC with NAT gateways. There (`configure` is told their number) every
request claims a slot. Elsewhere each execution environment has an address of its own in practice, so only the requests
that read accounts (backfills and reconciliations), which can wait, claim slots of one common budget.

A destination of records that limits the requests of one account (LeadConnector's locations) has a budget for each connection,
which all workers share (`wait_for_destination`). A claim costs one write unit. Live and waiting records use the shared lane;
bulk records claim less far ahead, and have a lane of their own.

An account gets at most half the slots of one address, or a third where there are several addresses, because requests may be
delayed between its slot and the address's. The rest is left to other accounts, and to what the account's other integrations
send.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import cache, lru_cache
from math import floor
from typing import Any

from portaria import platforms
from portaria.aws.table import Conflict, Table
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import RateLimited
from portaria.outbound.request_slots import CYCLE, Lane, LaneRule, Priority

# No priority claims slots this far ahead, so a counter that is further ahead was set by a wrong clock.
IMPOSSIBLE_AHEAD_S = 60.0
# Concurrent claims that were first, after which a claim is refused.
MAX_TRIES = 12
LEAST_WAIT_S = 0.2
ACCOUNT_SHARE, ACCOUNT_SHARE_OF_SEVERAL = 1 / 2, 1 / 3
ACCOUNT_KEPT_FOR = timedelta(days=1)
# Accounts whose counters a process remembers.
MAX_ACCOUNTS = 1_000


class BudgetExhausted(RateLimited):
    """No slot of the budget is free soon enough for this priority. Nothing was sent. `after_s` is always set."""


class SlotCounters:
    """The counters of one budget: for each lane the index of the next free slot. Thread-safe, as the table is the judge.

    The rate is part of the key, because slots of another length have other numbers.
    """

    def __init__(self, table: Table, platform: str, per_s: float, account: str = "") -> None:
        self._table = table
        self._account = account
        scope = "ACCOUNT" if account else "ADDRESS"
        self._key = (f"BUDGET#{platform}#{account}" if account else f"BUDGET#{platform}", f"{scope}#{per_s:g}")
        self.slot_s = 1 / per_s
        # The last known counters. They only grow, so a known one is never too large.
        self._known: dict[str, int] = {}

    def claim(self, rules: Iterable[LaneRule]) -> float:
        """Claim the first free slot that the rules allow, and return when it begins (epoch seconds).

        It has not ended yet. Raises `BudgetExhausted`.
        """
        free_at: list[float] = []
        for rule in rules:
            ahead_s = CYCLE * self.slot_s if rule.ahead_s is None else rule.ahead_s
            # How long a claim took whose slot had ended before its answer came.
            late_s = 0.0
            for _ in range(MAX_TRIES):
                now = clock.now().timestamp()
                current, furthest = floor((now + late_s) / self.slot_s), floor((now + ahead_s) / self.slot_s)
                first, last = rule.lane.first(current), rule.lane.last(furthest)
                index = self._take(rule.lane, first, last)
                if index is None:
                    soonest = rule.lane.slot(max(first, self._known.get(rule.lane.name, first))) * self.slot_s
                    free_at.append(soonest - ahead_s - now)
                    break
                begins_at = rule.lane.slot(index) * self.slot_s
                answered_at = clock.now().timestamp()
                if answered_at < begins_at + self.slot_s:
                    return begins_at
                late_s = answered_at - now
        raise _exhausted("an account" if self._account else "one address", max(LEAST_WAIT_S, min(free_at, default=0.0)))

    def _take(self, lane: Lane, first: int, last: int) -> int | None:
        """The index of a slot from `first` to `last` that is now this process's, or None."""
        impossible = first + floor(IMPOSSIBLE_AHEAD_S / self.slot_s)
        for _ in range(MAX_TRIES):
            following = self._known.get(lane.name, 0)
            if last < first or last < following <= impossible:
                return None
            is_idle = not first <= following <= last
            try:
                # A retry of the SDK after a lost response claims another slot, which wastes one.
                taken = self._restart(lane, first, impossible) if is_idle else self._advance(lane, first, last)
            except Conflict as conflict:
                self._known[lane.name] = int((conflict.item or {}).get(lane.name, 0))
                continue
            self._known[lane.name] = taken + 1
            return taken
        return None

    def _restart(self, lane: Lane, first: int, impossible: int) -> int:
        """Claim `first` where the counter is behind it, so that all slots before it have passed."""
        values: dict[str, Any] = {":next": first + 1, ":first": first, ":impossible": impossible}
        expression = "SET #lane = :next"
        if self._account:
            expression += ", expires_at = :expires_at"
            values[":expires_at"] = int((clock.now() + ACCOUNT_KEPT_FOR).timestamp())
        self._table.update(
            *self._key,
            expression,
            condition="attribute_not_exists(#lane) OR #lane < :first OR #lane > :impossible",
            names={"#lane": lane.name},
            values=values,
        )
        return first

    def _advance(self, lane: Lane, first: int, last: int) -> int:
        item = self._table.update(
            *self._key,
            "SET #lane = #lane + :one",
            condition="#lane >= :first AND #lane <= :last",
            names={"#lane": lane.name},
            values={":one": 1, ":first": first, ":last": last},
        )
        return int(item[lane.name]) - 1


class RequestBudget:
    """The budget of one platform. One a process, for its memory of the counters."""

    def __init__(self, table: Table, platform: str, shared_addresses: int) -> None:
        self._table = table
        self._platform = platform
        self._is_shared = shared_addresses > 0
        limits = platforms.load(platform).request_limits
        if limits is None:
            self._address, self._per_account = None, 0.0
            return
        per_address = float(limits.PER_ADDRESS - 1)
        self._address = SlotCounters(table, platform, per_address * max(1, shared_addresses))
        share = ACCOUNT_SHARE_OF_SEVERAL if shared_addresses > 1 else ACCOUNT_SHARE
        self._per_account = min(limits.PER_ACCOUNT - 1, per_address) * share
        self._accounts: dict[str, SlotCounters] = {}

    def wait(self, priority: Priority, account: str = "") -> None:
        """Wait until a request may be sent. Returns immediately where requests of this priority need no slot.

        `account` is the connection's name, needed where the priority is for an account. Waits a few seconds at most: twice
        the priority's `ahead_s`, or a cycle of slots. Raises `BudgetExhausted`; then nothing may be sent.
        """
        if self._address is None or not (self._is_shared or priority.is_reading):
            return
        if priority.account_rules:
            # First, so that an account that sends too many takes no slots from the others.
            _sleep_until(self._of_account(account).claim(priority.account_rules))
        _sleep_until(self._address.claim(priority.rules))

    def _of_account(self, account: str) -> SlotCounters:
        counters = self._accounts.get(account)
        if counters is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                self._accounts.clear()
            counters = self._accounts[account] = SlotCounters(self._table, self._platform, self._per_account, account)
        return counters


class _Process:
    """What this process knows: how many addresses are shared, and its budgets."""

    shared_addresses = 0


def configure(shared_addresses: str) -> None:
    """Set how many public addresses all functions share, a whole number; 0 until this is called."""
    _Process.shared_addresses = int(shared_addresses)
    _budget.cache_clear()


@cache
def _budget(table_name: str, platform: str) -> RequestBudget:
    return RequestBudget(Table(table_name), platform, _Process.shared_addresses)


def wait(table: Table, platform: str, priority: Priority, account: str = "") -> None:
    """As `RequestBudget.wait`. A platform without limits never waits."""
    _budget(table.name, platform).wait(priority, account)


@lru_cache(maxsize=MAX_ACCOUNTS)
def _destination(table_name: str, platform: str, account: str, per_s: float) -> SlotCounters:
    return SlotCounters(Table(table_name), platform, per_s, account)


def wait_for_destination(table: Table, connection: Connection, per_s: float, priority: Priority) -> None:
    """Wait until a destination may get another request. All workers together may send it `per_s` requests a second.

    Waits at most the priority's `ahead_s`, or a cycle of slots. Raises `BudgetExhausted`; then nothing may be sent.
    """
    _sleep_until(_destination(table.name, connection.platform, connection.name, per_s).claim(priority.rules))


def _sleep_until(moment: float) -> None:
    left_s = moment - clock.now().timestamp()
    if left_s > 0:
        clock.sleep(left_s)


def _exhausted(whose: str, after_s: float) -> BudgetExhausted:
    return BudgetExhausted(f"the platform's request limit for {whose} is used by other requests", after_s=after_s)
