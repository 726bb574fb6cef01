"""The generic `oauth2` platform with real authorization servers, which must behave as the simulator does.

`make test` runs Authlib's server only; `make faults` runs all of them (`--long`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from portaria.connections import rotation
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable
from tests.fakes.aws.moto_cloud import cloud
from tests.fakes.virtual_time import VirtualClock
from tests.peers.harness import Harness, beside
from tests.peers.servers import CLIENTS, KINDS, Server, Unavailable, serving

SHORT = ("authlib",)
WITH_CONSENT = [client.name for client in CLIENTS if client.redirect_uri]
MACHINES = [client.name for client in CLIENTS if not client.redirect_uri]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        kinds = KINDS if metafunc.config.getoption("--long") else SHORT
        metafunc.parametrize("server", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    try:
        with serving(request.param) as server:
            yield server
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    """The product's clock; `later` also advances the server's."""
    time = VirtualClock()
    with time.installed():
        yield time


@pytest.fixture
def harness(server: Server) -> Iterator[Harness]:
    server.control(access_s=3600, refresh_s=86400, offset_s=0, scopes=None)
    with cloud() as stack, beside(stack, server) as harness:
        yield harness


def later(harness: Harness, time: VirtualClock, seconds: float) -> None:
    time.passed_s += seconds
    harness.server.control(offset_s=time.passed_s)


def refused(harness: Harness, name: str = "plain") -> Rejected:
    with pytest.raises(Rejected) as rejected:
        harness.process().renew(harness.connection(name))
    return rejected.value


@pytest.mark.parametrize("name", WITH_CONSENT)
def test_oauth2_code_with_pkce_connects_with_each_client_authentication(harness: Harness, name: str) -> None:
    connection = harness.connect(name)
    assert (connection.state, connection.generation) == ("connected", 1)
    assert set(connection.scopes.split()) >= {"read", "write"}
    assert 3_500 < (clock.from_iso(connection.token_ends_at) - clock.now()).total_seconds() <= 3_600
    assert harness.call(name) == 200


@pytest.mark.parametrize("name", WITH_CONSENT)
def test_oauth2_refresh_rotates_pair_with_each_client_authentication(harness: Harness, name: str) -> None:
    harness.connect(name)
    first = harness.pair(name)
    harness.process().renew(harness.connection(name))
    second = harness.pair(name)
    assert harness.connection(name).generation == 2
    assert set(first.values()).isdisjoint(second.values())
    assert harness.call(name) == 200


def test_oauth2_code_with_another_verifier_is_refused(harness: Harness) -> None:
    code, _ = harness.consent("plain")
    outcome = harness.exchange("plain", (code, "another-verifier-of-the-right-length-0123456789"))
    assert (outcome.state, outcome.reason) == ("failed", "code_refused")


def test_oauth2_code_exchanged_twice_is_refused(harness: Harness) -> None:
    came_back = harness.consent("plain")
    assert harness.exchange("plain", came_back).state == "connected"
    again = harness.exchange("plain", came_back)
    assert (again.state, again.reason) == ("failed", "code_refused")


def test_oauth2_code_with_another_redirect_uri_fails_with_advice(harness: Harness) -> None:
    came_back = harness.consent("plain")
    plain = next(client for client in CLIENTS if client.name == "plain")
    harness.register(plain, redirect_uri=f"{plain.redirect_uri}/")
    outcome = harness.exchange("plain", came_back)
    assert outcome.state == "failed"
    assert "redirect URI" in outcome.detail


def test_oauth2_reused_refresh_token_sets_needs_reconnect_at_next_refresh(harness: Harness) -> None:
    harness.connect()
    stolen = harness.pair()["refresh_token"]
    harness.process().renew(harness.connection())
    assert harness.post(harness.server.kind.token, grant_type="refresh_token", refresh_token=stolen).status_code == 400
    assert refused(harness).reason == "needs_reconnect"
    assert (harness.connection().state, harness.connection().reason) == ("needs_reconnect", "grant_revoked")


def test_oauth2_revoked_grant_sets_needs_reconnect_at_next_call(harness: Harness) -> None:
    harness.connect()
    pair = harness.pair()
    for hint in ("access_token", "refresh_token"):
        harness.post(harness.server.kind.revoke, token=pair[hint], token_type_hint=hint).raise_for_status()
    with pytest.raises(Rejected) as rejected:
        harness.call()
    assert rejected.value.reason == "needs_reconnect"
    assert harness.connection().reason == "grant_revoked"


def test_oauth2_access_token_revoked_early_is_refreshed_at_first_401(harness: Harness) -> None:
    harness.connect()
    harness.server.control(end_access_token=harness.pair()["access_token"])
    assert harness.call() == 200
    assert harness.sent["refresh_token"] == 1


def test_oauth2_expired_access_token_is_refreshed_before_call(harness: Harness, time: VirtualClock) -> None:
    harness.connect()
    later(harness, time, 4_000)
    assert harness.call() == 200
    assert harness.sent["refresh_token"] == 1


def test_oauth2_expired_refresh_token_sets_needs_reconnect(harness: Harness, time: VirtualClock) -> None:
    harness.connect()
    later(harness, time, 90_000)
    assert refused(harness).reason == "needs_reconnect"
    assert harness.connection().reason == "grant_revoked"


@pytest.mark.parametrize("life_s", [30, 60, 300])
def test_oauth2_short_lived_token_is_reused_and_refreshed_once_for_all(
    harness: Harness, time: VirtualClock, life_s: int
) -> None:
    harness.server.control(access_s=life_s)
    harness.connect()
    process = harness.process()
    for _ in range(5):
        assert harness.call(process=process) == 200
    assert harness.sent["refresh_token"] == 0
    later(harness, time, life_s)
    assert [harness.call() for _ in range(4)] == [200] * 4
    assert harness.sent["refresh_token"] == 1


def test_oauth2_granted_scopes_narrower_than_requested_are_stored(harness: Harness) -> None:
    narrow = harness.server.kind.scopes.replace(" write", "")
    harness.server.control(scopes=narrow)
    assert harness.connect().scopes == narrow
    harness.process().renew(harness.connection())
    assert harness.connection().scopes == narrow


@pytest.mark.parametrize("name", MACHINES)
def test_oauth2_client_credentials_work_with_each_client_authentication(harness: Harness, name: str) -> None:
    made = Connection(name, "oauth2", "client_credentials", harness.server.host, "connected", 1, "", client=name)
    scopes = "read" if harness.server.kind.name == "oidc-provider" else "read write"
    harness.register(next(client for client in CLIENTS if client.name == name), scopes=scopes)
    assert rotation.try_credentials(harness.table, harness.vault, made, {}) == scopes


@pytest.mark.parametrize("name", ["basic", "post"])
def test_oauth2_wrong_client_secret_is_wrong_client_and_advice_names_token_auth(harness: Harness, name: str) -> None:
    harness.connect(name)
    client = next(each for each in CLIENTS if each.name == name)
    secret_id = harness.vault.client_secret_id("oauth2", name)
    harness.vault.replace(secret_id, {"client_secret": Secret("canary-wrong")})
    rejected = refused(harness, name)
    assert rejected.reason == "wrong_client"
    assert "token_auth" in rejected.detail
    assert harness.connection(name).state == "connected"
    harness.vault.replace(secret_id, {"client_secret": Secret(client.client_secret)})


def test_oauth2_token_url_without_trailing_slash_fails_as_wrong_token_url(harness: Harness) -> None:
    if not harness.server.kind.token.endswith("/"):
        pytest.skip("this server's token URL has no slash at its end")
    came_back = harness.consent("plain")
    plain = next(client for client in CLIENTS if client.name == "plain")
    harness.register(plain, token_url=harness.server.url(harness.server.kind.token.rstrip("/")))
    outcome = harness.exchange("plain", came_back)
    assert (outcome.state, outcome.reason) == ("failed", "wrong_token_url")


def test_oauth2_eight_concurrent_refreshes_make_one_request(harness: Harness, time: VirtualClock) -> None:
    harness.server.control(access_s=60)
    harness.connect()
    later(harness, time, 60)
    barrier, tokens, failed = threading.Barrier(8), set(), []

    def ask() -> None:
        process = harness.process()
        barrier.wait()
        try:
            tokens.add(process.token(harness.connection()).credentials["access_token"].reveal())
        except (Rejected, Retryable) as error:
            failed.append(error.reason)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, len(tokens)) == ([], 1)
    assert harness.sent["refresh_token"] == 1
    assert tokens == {harness.pair()["access_token"]}
    assert harness.call() == 200
