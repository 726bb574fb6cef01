"""One sweep over 10,000 connections whose tokens are all due, on AWS and a platform in memory: what it costs, and how it grows.

Every call that leaves is counted by its service. The same with 1,000 connections tells whether the work for each stays the
same: neither calls nor processor time may grow with the number of connections. At the end every token must be a new one
that the platform accepts, or the figures mean nothing.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich.table import Table

from bench.report import conclude, console
from portaria.aws.table import Table as Items
from portaria.connections import connection_store, oauth_clients, renewal_sweep, vault
from portaria.connections.credential_stores.protocol import SECRETS_MANAGER
from portaria.connections.tokens import stored_grant
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection, Grant
from portaria.core.settings import RenewTokensSettings
from portaria.outbound.rate_limiter import RateLimiter
from tests.simulation.aws.cloud import TABLE, Cloud
from tests.simulation.faults import is_http
from tests.simulation.platform import CLIENT_ID, CLIENT_SECRET, LIFE_S, REDIRECT_URI, Platform
from tests.simulation.schedule import BEGIN, HERE, Schedule, simulating

FEW, MANY = 1_000, 10_000
RUNS = 3
LIMITS = {"growth": 1.1, "not_renewed": 0.0}
# Between two calls to Secrets Manager, which takes 50 writes and 10,000 reads a second.
WRITE_S, READ_S = 0.025, 0.0002


class Sweep:
    """`calls` counts what leaves by service, `cpu_s` is the processor time of the sweep and its visits.

    `store` is where the credentials are.
    """

    def __init__(self, count: int, store: str = SECRETS_MANAGER) -> None:
        self.calls: Counter[str] = Counter()
        self.cloud, self.platform = Cloud(), Platform("strict")
        self.cloud.credential_store = store
        self.schedule = Schedule(self.cloud, self.platform, random.Random(0), workers=0)
        HERE.schedule = self.schedule
        self.cloud.lag = lambda: 0.0
        self.cloud.secret_stored = lambda secret_id, version, text: None
        self.cloud.item_written = lambda old, new: None
        self.platform.leaving = self.platform.presenting = lambda host, token: None
        self.platform.using = lambda pair: None
        self._connect(count)
        self.schedule.time = BEGIN + 0.95 * LIFE_S
        self.cloud.carry = self.platform.carry = self._count
        self.cpu_s = self._run()
        self.cloud.carry = lambda name, call: call()
        self.not_renewed = count - sum(self._is_renewed(f"due-{number}") for number in range(count))

    def _count(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls["platform" if is_http(name) else name.partition(".")[0]] += 1
        return call()

    def _connect(self, count: int) -> None:
        table_, store = Items(TABLE), self.cloud.vault()
        oauth_clients.put(table_, OAuthClient("kommo", "acme", CLIENT_ID, REDIRECT_URI), new=True)
        store.create(store.client_secret_id("kommo", "acme"), {"client_secret": Secret(CLIENT_SECRET)})
        for number in range(count):
            self.schedule.time += WRITE_S
            host, secret_id = f"account{number}.kommo.com", store.grant_id(f"due-{number}")
            pair = self.platform.authorise(host)
            ends_at = clock.now() + timedelta(seconds=LIFE_S)
            grant = Grant(Secret(pair.access), ends_at, Secret(pair.refresh))
            version = vault.version_id(secret_id, 1)
            store.create(secret_id, stored_grant.to_stored(grant), version)
            connection_store.create(
                table_,
                Connection(
                    f"due-{number}", "kommo", "oauth2", host, "connected", 1, secret_id, version, client="acme",
                    token_ends_at=clock.to_iso(grant.expires_at), updated_at=clock.to_iso(clock.now()),
                ),
            )  # fmt: skip

    def _run(self) -> float:
        """A sweep and everything that it queues, in the order of the queue."""
        settings = self.cloud.settings(RenewTokensSettings)
        messages = self.cloud.queues.setdefault("renewals", [])
        self.schedule.post("renewals", '{"sweep":""}')
        at = 0
        gc.collect()
        gc.disable()
        started = time.process_time()
        while at < len(messages):
            self.schedule.time += WRITE_S
            renewal_sweep.handle_message(messages[at].body, settings, lambda: 90.0, RateLimiter(1e9))
            at += 1
        cpu_s = time.process_time() - started
        gc.enable()
        return cpu_s

    def _is_renewed(self, name: str) -> bool:
        self.schedule.time += READ_S
        item = self.cloud.item(*connection_store.key(name))
        stored = self.cloud.vault().read(item["secret_id"], item["version_id"])
        if item["generation"] != 2 or not stored:
            return False
        return self.platform.access_alive(stored["access_token"].reveal())


def measure() -> bool:
    cpu_us: dict[int, list[float]] = {FEW: [], MANY: []}
    calls: dict[int, Counter[str]] = {}
    not_renewed = 0
    with simulating():
        for _ in range(RUNS):
            for count in (FEW, MANY):
                sweep = Sweep(count)
                cpu_us[count].append(sweep.cpu_s / count * 1e6)
                calls[count] = sweep.calls
                not_renewed += sweep.not_renewed
    each = {count: sum(counted.values()) / count for count, counted in calls.items()}
    figures = {
        "connections": MANY,
        "calls_per_connection": each[MANY],
        **{f"{service}_calls": called / MANY for service, called in sorted(calls[MANY].items())},
        "cpu_us_per_connection": statistics.median(cpu_us[MANY]),
        "calls_growth": each[MANY] / each[FEW],
        "cpu_growth": min(cpu_us[MANY]) / min(cpu_us[FEW]),
        "not_renewed": not_renewed,
    }
    figures["growth"] = max(figures["calls_growth"], figures["cpu_growth"])
    shown = Table(title="Renewal sweep (calls a connection)", title_justify="left")
    for heading in ("", f"{FEW:,} connections", f"{MANY:,} connections"):
        shown.add_column(heading, justify="right")
    for service in sorted(calls[MANY]):
        shown.add_row(service, *(f"{calls[count][service] / count:.2f}" for count in (FEW, MANY)))
    shown.add_row("together", *(f"{each[count]:.2f}" for count in (FEW, MANY)))
    shown.add_row("processor, µs", *(f"{min(cpu_us[count]):.0f}" for count in (FEW, MANY)))
    console.print(shown)
    return conclude("renewal_sweep", figures, LIMITS)
