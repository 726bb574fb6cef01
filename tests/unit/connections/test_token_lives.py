"""How the lifetime that a provider returns decides when its tokens are renewed, and by how many callers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest

from portaria.connections import connection_store
from portaria.connections.tokens.provider import MAX_TURNS
from portaria.connections.vault import version_id
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Response
from tests.fakes.aws.moto_cloud import PREFIX, cloud
from tests.fakes.platforms.oauth2 import API, NAME, Provider, Shop, json_answer, serving
from tests.fakes.virtual_time import VirtualClock


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    time = VirtualClock()
    with time.installed():
        yield time


@pytest.fixture
def harness(time: VirtualClock) -> Iterator[Shop]:
    with cloud() as stack, serving(Provider()) as provider:
        yield Shop(stack, provider)


# ------------------------------------------------------------------------------------------- one request for all callers


@pytest.mark.parametrize("life_s", [2, 30, 60, 300, 3_600, 86_400])
def test_token_provider_expired_token_in_eight_processes_refreshes_once(
    harness: Shop, time: VirtualClock, life_s: int
) -> None:
    harness.provider.expires_in = life_s
    harness.connect(life_s)
    time.passed_s += life_s
    assert {harness.token() for _ in range(8)} == {"canary-a-1"}
    assert harness.provider.calls["refresh_token"] == 1


@pytest.mark.parametrize("life_s", [30, 60])
def test_token_provider_short_lived_token_is_reused_within_a_process(harness: Shop, life_s: int) -> None:
    harness.provider.expires_in = life_s
    harness.connect(0)
    process = harness.process()
    assert {harness.token(process) for _ in range(10)} == {"canary-a-1"}
    assert harness.provider.calls["refresh_token"] == 1


def test_token_provider_waiter_uses_token_of_lease_holder_near_its_end(harness: Shop, time: VirtualClock) -> None:
    """Given a token of 20 s, 19 of which have passed when the waiting caller reads it, then that caller still uses it."""
    harness.connect(0)
    harness.table.update(
        *connection_store.key(NAME),
        "SET lease_until = :until, fence = :one, tries = :one",
        values={":until": int(clock.now().timestamp()) + 40, ":one": 1},
    )

    def holder_commits() -> None:
        time.while_asleep = lambda: None
        connection, ends = harness.connection, clock.now()
        credentials = harness.vault.read(connection.secret_id, connection.version_id) or {}
        fresh = {
            "access_token": "canary-holders",
            "given_at": clock.to_iso(ends - timedelta(seconds=19)),
            "expires_at": clock.to_iso(ends + timedelta(seconds=1)),
        }
        version = version_id(connection.secret_id, 2)
        secrets = credentials | {name: Secret(text) for name, text in fresh.items()}
        harness.vault.add(connection.secret_id, version, secrets)
        harness.table.update(
            *connection_store.key(NAME),
            "SET generation = :two, version_id = :version REMOVE lease_until",
            values={":two": 2, ":version": version},
        )

    time.while_asleep = holder_commits
    assert harness.token() == "canary-holders"
    assert harness.provider.calls["refresh_token"] == 0


def test_token_provider_token_life_counts_from_request(harness: Shop, time: VirtualClock) -> None:
    harness.provider.expires_in, harness.provider.takes_s = 30, 10
    harness.connect(0)
    process = harness.process()
    assert harness.token(process) == "canary-a-1"
    time.passed_s += 20
    harness.token(process)
    assert harness.provider.calls["refresh_token"] == 2


def test_token_provider_token_expired_on_arrival_stops_after_a_few_turns(harness: Shop) -> None:
    harness.provider.expires_in, harness.provider.takes_s = 1, 5
    harness.connect(0)
    with pytest.raises(Retryable) as ended:
        harness.token()
    assert ended.value.reason == "token_ends_now"
    assert harness.provider.calls["refresh_token"] == MAX_TURNS
    assert harness.item["state"] == "connected"


# ----------------------------------------------------------------------------------------------------- no early renewal


@pytest.mark.parametrize("life_s", [30, 60, 300, 600, 1_500])
def test_token_provider_token_is_not_refreshed_in_first_four_fifths_of_life(
    harness: Shop, time: VirtualClock, life_s: int
) -> None:
    harness.provider.expires_in = life_s
    harness.connect(life_s)
    process = harness.process()
    for _ in range(80):
        assert harness.token(process) == "canary-a-0"
        time.passed_s += life_s / 101
    assert harness.provider.calls == {}
    time.passed_s += life_s * 0.07
    harness.token(process)
    assert harness.provider.calls["refresh_token"] == 1, "and before the last tenth, in one caller's time"


def test_token_provider_frequent_caller_refreshes_five_minute_token_once_each(
    harness: Shop, time: VirtualClock
) -> None:
    harness.provider.expires_in = 300
    harness.connect(300)
    process = harness.process()
    for _ in range(24):
        harness.token(process)
        time.passed_s += 5
    assert harness.provider.calls == {}
    for _ in range(120):
        harness.token(process)
        time.passed_s += 15
    assert 6 <= harness.provider.calls["refresh_token"] <= 8, "half an hour of them"


@pytest.mark.parametrize("life_s", [30, 60])
def test_token_provider_failed_early_refresh_is_retried_within_short_life(
    harness: Shop, time: VirtualClock, life_s: int
) -> None:
    harness.provider.expires_in = life_s
    harness.connect(life_s)
    process = harness.process()
    harness.token(process)
    time.passed_s += life_s * 0.85
    harness.provider.answers = [json_answer(503, {})]
    for _ in range(5):
        assert harness.token(process) == "canary-a-0"
    assert harness.provider.calls["refresh_token"] == 1
    harness.provider.answers = []
    time.passed_s += life_s * 0.10
    assert harness.token(process) == "canary-a-2"


def test_token_provider_pair_without_given_at_uses_time_of_generation(harness: Shop, time: VirtualClock) -> None:
    harness.connect(300)
    connection = harness.connection
    credentials = harness.vault.read(connection.secret_id, connection.version_id) or {}
    del credentials["given_at"]
    version = version_id(connection.secret_id, 2)
    harness.vault.add(connection.secret_id, version, credentials)
    harness.table.update(*connection_store.key(NAME), "SET version_id = :version", values={":version": version})
    time.passed_s += 235
    assert harness.token() == "canary-a-0"
    assert harness.provider.calls == {}


@pytest.mark.parametrize("expires_in", [0, None, -5, "", "soon", 10**400, [3600], True])
def test_token_provider_unreadable_expires_in_means_no_expiry(
    harness: Shop, time: VirtualClock, expires_in: Any
) -> None:
    harness.provider.expires_in = expires_in
    harness.connect(0)
    process = harness.process()
    assert harness.token(process) == "canary-a-1"
    time.passed_s += 30 * 86_400
    assert harness.token(process) == "canary-a-1"
    assert harness.provider.calls["refresh_token"] == 1
    assert harness.connection.token_ends_at.startswith("9999")


@pytest.mark.parametrize("expires_in", ["3600", 3600.0, " 3600 "])
def test_token_provider_expires_in_as_text_or_float_is_read(harness: Shop, time: VirtualClock, expires_in: Any) -> None:
    harness.provider.expires_in = expires_in
    harness.connect(0)
    harness.token()
    ends_in = clock.from_iso(harness.connection.token_ends_at) - clock.now()
    assert abs(ends_in.total_seconds() - 3_600) < 1


# ------------------------------------------------------------------------------------------------------------- log-ins


def logged_in(harness: Shop) -> Connection:
    secret_id = f"{PREFIX}/grants/billing"
    version = harness.vault.create(secret_id, {"client": Secret("shop")}, version_id(secret_id, 1))
    made = Connection("billing", "oauth2", "client_credentials", API, "connected", 1, secret_id, version, client="shop")
    harness.table.put(connection_store.to_item(made))
    return made


@pytest.mark.parametrize("life_s", [5, 30, 60])
def test_token_provider_short_lived_login_is_reused_within_a_process(
    harness: Shop, time: VirtualClock, life_s: int
) -> None:
    harness.provider.expires_in = life_s
    connection, process = logged_in(harness), harness.process()
    for _ in range(10):
        process.token(connection)
        time.passed_s += life_s / 12
    assert harness.provider.calls["client_credentials"] == 1


def run_concurrently(count: int, act: Any) -> list[Any]:
    """Start this many threads together. Returns the result of each."""
    barrier, came_to = threading.Barrier(count), []

    def run() -> None:
        barrier.wait()
        came_to.append(act())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return came_to


@pytest.mark.parametrize(("life_s", "takes_s"), [(60, 56), (60, 15), (3_600, 0)])
def test_token_provider_concurrent_threads_share_one_login(harness: Shop, life_s: int, takes_s: float) -> None:
    harness.provider.expires_in, harness.provider.takes_s = life_s, takes_s
    connection, process = logged_in(harness), harness.process()
    lock, gives, all_wait = process.cache.lock, harness.provider.gives, threading.Event()
    waiting: list[Connection] = []

    def counted(connection: Connection) -> threading.Lock:
        waiting.append(connection)
        if len(waiting) == 8:
            all_wait.set()
        return lock(connection)

    def answer(number: int) -> Response:
        assert all_wait.wait(60)
        return gives(number)

    def ask() -> str:
        return process.token(connection).credentials["access_token"].reveal()

    with patch.object(process.cache, "lock", counted), patch.object(harness.provider, "gives", answer):
        got = run_concurrently(8, ask)
    assert got == ["canary-a-1"] * 8
    assert harness.provider.calls["client_credentials"] == 1


def test_token_provider_concurrent_threads_after_401_share_next_login(harness: Shop) -> None:
    connection, process = logged_in(harness), harness.process()
    refused = process.token(connection)

    def newer() -> str:
        token = process.refresh_after_401(connection, refused)
        assert token is not None
        return token.credentials["access_token"].reveal()

    assert run_concurrently(8, newer) == ["canary-a-2"] * 8
    assert harness.provider.calls["client_credentials"] == 2


# ----------------------------------------------------------------------------------- tokens that are refused before their end


@pytest.mark.parametrize("age_s", [0, 30, 299, 2_000])
def test_token_provider_token_revoked_early_is_refreshed_once_at_any_age(
    harness: Shop, time: VirtualClock, age_s: int
) -> None:
    harness.connect(3_600)
    harness.provider.dead.add("canary-a-0")
    time.passed_s += age_s
    assert harness.call() == 200
    assert harness.provider.calls == {"api": 2, "refresh_token": 1}
    assert harness.item["generation"] == 2


def test_token_provider_revoked_token_in_eight_processes_refreshes_once(harness: Shop) -> None:
    harness.connect(3_600)
    harness.provider.dead.add("canary-a-0")
    processes = [harness.process() for _ in range(8)]
    for process in processes:
        process.token(harness.connection)
    assert [harness.call(process) for process in processes] == [200] * 8
    assert harness.provider.calls["refresh_token"] == 1


def test_token_provider_api_refusing_every_token_refreshes_less_and_less_often(
    harness: Shop, time: VirtualClock
) -> None:
    harness.connect(10**9)
    harness.provider.expires_in = 10**9
    harness.provider.dead |= {f"canary-a-{number}" for number in range(100)}
    process, renewed_after = harness.process(), []
    start = time.passed_s
    while time.passed_s - start < 4 * 3_600:
        before = harness.provider.calls["refresh_token"]
        assert harness.call(process) == 401
        if harness.provider.calls["refresh_token"] > before:
            renewed_after.append(round((time.passed_s - start) / 60))
        time.passed_s += 300
    assert renewed_after == [0, 5, 15, 35, 75, 135, 195]


def test_token_provider_scheduled_refresh_resets_pause_after_401(harness: Shop, time: VirtualClock) -> None:
    harness.connect(3_600)
    harness.provider.dead |= {"canary-a-0", "canary-a-1"}
    assert harness.call() == 401
    harness.process().renew(harness.connection)
    harness.provider.dead.add("canary-a-2")
    assert harness.call() == 200
    assert harness.provider.calls["refresh_token"] == 3


def test_token_provider_refresh_refused_after_401_sets_needs_reconnect(harness: Shop) -> None:
    harness.connect(3_600)
    harness.provider.dead.add("canary-a-0")
    harness.provider.answers = [json_answer(400, {"error": "invalid_grant"})]
    with pytest.raises(Rejected) as refused:
        harness.call()
    assert refused.value.reason == "needs_reconnect"
    assert (harness.item["state"], harness.item["reason"]) == ("needs_reconnect", "grant_revoked")


def test_token_provider_without_refresh_token_uses_token_until_it_expires(harness: Shop, time: VirtualClock) -> None:
    harness.connect(3_600, refresh_token="")
    harness.provider.dead.add("canary-a-0")
    assert harness.call() == 401, "nothing could be renewed, and a 401 alone says too little"
    time.passed_s += 3_590
    with pytest.raises(Rejected) as refused:
        harness.token()
    assert (refused.value.reason, harness.item["state"]) == ("token_expired", "connected")
    time.passed_s += 20
    with pytest.raises(Rejected):
        harness.token()
    assert (harness.item["state"], harness.item["reason"]) == ("needs_reconnect", "token_expired")
    assert harness.item["announce"] == "connection.needs_reconnect"
    assert harness.provider.calls == {"api": 1}
