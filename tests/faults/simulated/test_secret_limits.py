"""A connection lives on through thousands of renewals and hundreds of rotations within the quotas of Secrets Manager.

Virtual time, and the in-memory AWS that refuses a 21st label, a 101st version and a 51st write in a second. Some calls to AWS
fail or end the process, so that the paths that store a pair twice are part of it.
https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from portaria.aws import service_clients
from portaria.aws.table import Table
from portaria.connections import connection_store, renewal_sweep, rotation
from portaria.connections.credential_stores.aws_secrets import ASIDE_LABELS
from portaria.connections.tokens import cache, provider, refresh_lease, stored_grant
from portaria.connections.vault import Vault
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable
from portaria.core.settings import RenewTokensSettings
from portaria.outbound.rate_limiter import RateLimiter
from tests.fakes.crashes import Died
from tests.simulation import scenarios
from tests.simulation.aws import limits
from tests.simulation.aws.cloud import KEY_ID, PREFIX, TABLE, Cloud
from tests.simulation.faults import throttled
from tests.simulation.scenarios import FOREVER, NAME, STATIC
from tests.simulation.schedule import BEGIN, HERE, Schedule, simulating

RENEWALS, LONG_RENEWALS = 1_000, 10_000
ROTATIONS, LONG_ROTATIONS = 150, 500
# This share of the calls to AWS fails, half of them after they have taken effect, and the same share ends the process.
FAILING = 0.004
DAY_S = 86_400.0


class World:
    """One connection, in virtual time, and what Secrets Manager was asked to do."""

    def __init__(self, kind: str, seed: int) -> None:
        cloud, platform = scenarios.prepared("grace", kind)
        self.rng = random.Random(seed)
        self.schedule = Schedule(cloud, platform, random.Random(seed), start=BEGIN + 60)
        HERE.schedule = self.schedule
        self.schedule.faulty = False
        for secret_id, secret in cloud.secrets.items():
            for version, held in secret.versions.items():
                self.schedule.secret_stored(secret_id, version, held.text)
        # One worker at a time calls here, so `Schedule` has no lease to check.
        platform.presenting = platform.leaving = lambda host, token: None
        self.failing = 0.0
        self.calls: Counter[str] = Counter()
        self.puts: list[float] = []
        self.refused: Counter[str] = Counter()
        self.most_labels = self.most_versions = 0
        cloud.carry = self.carry

    @property
    def cloud(self) -> Cloud:
        return self.schedule.cloud

    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls[name] += 1
        fate = self.rng.random()
        if fate < self.failing:
            raise throttled(name)
        try:
            answer = call()
        except ClientError as error:
            self.refused[service_clients.error_code(error)] += 1
            raise
        if name == "secretsmanager.put_secret_value":
            self.puts.append(self.schedule.time)
            self.look()
        if fate < 2 * self.failing:
            raise throttled(name)
        if fate < 3 * self.failing:
            raise Died
        return answer

    def look(self) -> None:
        secret = self.cloud.secrets[self.item(NAME, STATIC)["secret_id"]]
        self.most_labels = max(self.most_labels, sum(len(held.labels) for held in secret.versions.values()))
        self.most_versions = max(self.most_versions, len(secret.versions))

    def item(self, *names: str) -> dict[str, Any]:
        return next(item for name in names if (item := self.cloud.item(*connection_store.key(name))))

    def supply(self) -> provider.TokenProvider:
        return provider.TokenProvider(Table(TABLE), Vault(PREFIX), KEY_ID, lambda: 90.0, cache=cache.TokenCache())

    def visit(self) -> None:
        """The work of `renew_tokens` on a connection that is due."""
        settings = self.cloud.settings(RenewTokensSettings)
        renewal_sweep.handle_message(f'{{"connection": "{NAME}"}}', settings, lambda: 90.0, RateLimiter(1e9))

    def until_done(self, work: Callable[[], Any]) -> Any:
        """Repeat a call that failed or whose process ended, as its queue or its administrator would."""
        for _ in range(20):
            try:
                return work()
            except Retryable as later:
                self.schedule.time += later.after_s or 5.0
            except (Died, *service_clients.FAILURES):
                self.schedule.time += refresh_lease.LEASE_S + 1
        raise AssertionError("a call that never succeeds")

    def in_a_day(self) -> int:
        """The largest number of versions that were put within 24 hours."""
        most = first = 0
        for last, at in enumerate(self.puts):
            while self.puts[first] <= at - DAY_S:
                first += 1
            most = max(most, last - first + 1)
        return most


@pytest.fixture(autouse=True)
def simulated() -> Iterator[None]:
    before = HERE.schedule
    with simulating():
        yield
    HERE.schedule = before


@pytest.mark.parametrize(
    "life_s", [60, 300, *(pytest.param(life_s, marks=pytest.mark.long) for life_s in (900, 3_600)), 86_400]
)
def test_connection_thousands_of_renewals_stay_within_secret_quotas(life_s: int, long: bool) -> None:
    """Given tokens of some lifetime, when they are renewed thousands of times under faults, then a new process always gets a

    living token, and the secret never meets a quota.
    """
    world = World("oauth2", seed=life_s)
    world.schedule.platform.life_s = life_s
    world.failing = FAILING
    times = LONG_RENEWALS if long else RENEWALS
    first = world.item(NAME)["generation"]
    while world.item(NAME)["generation"] < first + times:
        world.schedule.time += life_s * world.rng.uniform(0.75, 1.05)
        if world.rng.random() < 0.5:
            world.until_done(world.visit)
        token = world.until_done(lambda: world.supply().token(connection_store.get(Table(TABLE), NAME)))
        assert world.schedule.platform.access_alive(token.credentials["access_token"].reveal())
    assert world.item(NAME)["state"] == "connected"
    assert world.most_labels <= 4
    assert world.most_versions < limits.VERSIONS
    assert not {"LimitExceededException", "ThrottlingException"} & world.refused.keys()
    print(
        f"\n{times:,} renewals of tokens of {life_s} s: at most {world.most_labels} labels, {world.most_versions} versions, "
        f"{world.in_a_day()} versions in a day; {world.calls['secretsmanager.put_secret_value']:,} puts"
    )


def test_stored_grant_repeated_pairs_reuse_a_fixed_set_of_labels() -> None:
    """Given 200 renewals that each find another pair under the id of their generation, then their labels are used again."""
    world = World("oauth2", seed=1)
    secret_id = world.item(NAME)["secret_id"]
    vault = Vault(PREFIX)
    for turn in range(200):
        world.schedule.time += 3_600
        for token in ("one", "two"):
            credentials = {"access_token": Secret(f"canary-{token}-{turn}")}
            stored_grant.add_version(vault, secret_id, turn + 2, credentials, turn)
    assert world.most_labels == ASIDE_LABELS + 2


@pytest.mark.parametrize("expire_now", [False, True])
def test_connection_hundreds_of_rotations_stay_within_secret_quotas(expire_now: bool, long: bool) -> None:
    """Given a new token every half hour, some of which the platform refuses, then each valid one is used afterwards."""
    world = World("bearer", seed=int(expire_now))
    world.failing = FAILING
    table, vault, platform = Table(TABLE), Vault(PREFIX), world.schedule.platform
    for number in range(LONG_ROTATIONS if long else ROTATIONS):
        world.schedule.time += 1_800
        with pytest.raises(Rejected, match="credentials_refused"):
            world.until_done(lambda: rotate(table, vault, "canary-static-refused", expire_now=expire_now))
        good = f"canary-static-good-{number}"
        platform.static[good] = FOREVER
        world.until_done(partial(rotate, table, vault, good, expire_now=expire_now))
        token = world.until_done(lambda: world.supply().token(connection_store.get(table, STATIC)))
        assert token.credentials["token"].reveal() == good
    assert world.most_labels <= 4
    assert world.most_versions < limits.VERSIONS
    assert "LimitExceededException" not in world.refused


def rotate(table: Table, vault: Vault, token: str, *, expire_now: bool) -> None:
    rotation.rotate(table, vault, STATIC, {"token": Secret(token)}, expire_now=expire_now)


def test_rotate_full_secret_is_retryable_and_keeps_current_token() -> None:
    """Given a program that rotates each minute, when the secret is full, then it is told to wait and nothing changes."""
    world = World("bearer", seed=2)
    table, vault, platform = Table(TABLE), Vault(PREFIX), world.schedule.platform

    def in_use() -> str:
        return world.supply().token(connection_store.get(table, STATIC)).credentials["token"].reveal()

    for number in range(2, limits.VERSIONS + 1):
        world.schedule.time += 60
        platform.static[f"canary-static-{number}"] = FOREVER
        rotate(table, vault, f"canary-static-{number}", expire_now=False)
    platform.static["canary-static-last"] = FOREVER
    with pytest.raises(Retryable, match="vault_full") as refused:
        rotate(table, vault, "canary-static-last", expire_now=False)
    assert refused.value.after_s == 3_600
    assert in_use() == f"canary-static-{limits.VERSIONS}"
    world.schedule.time += DAY_S
    rotate(table, vault, "canary-static-last", expire_now=False)
    assert in_use() == "canary-static-last"
