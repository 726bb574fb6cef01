"""The token provider: which token callers get, from where, and the state of the grant after each failure."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs

import boto3
import pytest
import requests
import responses

from portaria.connections import connection_store, rotation, vault
from portaria.connections.credential_stores import sealing
from portaria.connections.tokens import cache, pair_storage, refresh_call, refresh_lease, sealed_credentials
from portaria.connections.tokens.cache import Token
from portaria.connections.tokens.provider import TokenProvider
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import AnswerLost, Rejected, Retryable, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.installs import uninstall
from portaria.outbound import http_client
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.moto_cloud import PREFIX, cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.connections.tokens import NAME, TOKEN_PATH, Harness
from tests.fakes.crashes import Died
from tests.fakes.platforms import kommo as kommo_fake
from tests.fakes.platforms.kommo import Kommo
from tests.fakes.virtual_time import DAY_S, VirtualClock

IDENTITY = "https://123-abc-456.mktorest.com/identity/oauth/token"


@pytest.fixture
def harness() -> Iterator[Harness]:
    time = VirtualClock()
    with (
        cloud() as stack,
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        time.installed(),
    ):
        yield Harness(stack, mock, time)


# -------------------------------------------------------------------------------------------------------------- renewal


def test_token_provider_valid_token_is_read_once_and_cached(harness: Harness) -> None:
    supply = harness.process()
    assert supply.token(harness.connection).credentials["access_token"].reveal() == "canary-access-one"
    boto3.client("secretsmanager").delete_secret(SecretId=harness.connection.secret_id)
    assert supply.token(harness.connection).credentials["access_token"].reveal() == "canary-access-one"
    assert harness.kommo.refreshes == {}


def test_token_provider_expired_token_is_refreshed_once_for_all_processes(harness: Harness) -> None:
    harness.expire()
    assert [harness.ask() for _ in range(4)] == ["canary-access-one+"] * 4
    assert harness.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_refreshed_pair_is_stored_under_next_generation(harness: Harness) -> None:
    harness.expire()
    harness.ask()
    item = harness.item
    assert (item["generation"], item["state"]) == (2, "connected")
    assert item["version_id"] == vault.version_id(harness.connection.secret_id, 2)
    assert harness.stored()["refresh_token"].reveal() == "canary-refresh-one+"
    assert harness.stored()["webhook_key"].reveal() == "canary-webhook-key", "what else the secret held is kept"
    assert not {"lease_until", "tries", "retry_at", "sealed"} & item.keys()
    renew_in = clock.from_iso(item["due_at"]) - clock.now()
    assert timedelta(hours=19) < renew_in < timedelta(hours=22)


def test_token_provider_items_hold_no_token(harness: Harness) -> None:
    harness.expire()
    with refusing("PutSecretValue"):
        harness.ask()
    assert "sealed" in harness.item
    assert "canary" not in json.dumps(boto3.client("dynamodb").scan(TableName=harness.table.name)["Items"], default=str)


def test_token_provider_repeated_refreshes_use_each_refresh_token_once(harness: Harness) -> None:
    for number in range(1, 4):
        harness.expire()
        assert harness.ask() == f"canary-access-one{'+' * number}"
    assert set(harness.kommo.refreshes.values()) == {1}


def test_token_provider_token_near_its_end_is_refreshed(harness: Harness) -> None:
    supply = harness.process()
    supply.token(harness.connection)
    harness.time.passed_s += DAY_S - 200
    assert supply.token(harness.connection).credentials["access_token"].reveal() == "canary-access-one+"


def test_token_provider_failed_early_refresh_keeps_current_token(harness: Harness) -> None:
    supply = harness.process()
    supply.token(harness.connection)
    harness.time.passed_s += DAY_S - 200
    harness.kommo.before[TOKEN_PATH] = [(500, {}, "")] * 9
    got = [supply.token(harness.connection).credentials["access_token"].reveal() for _ in range(5)]
    assert got == ["canary-access-one"] * 5
    assert len(harness.kommo.calls) == 1, "and is not tried by every call"


def test_token_provider_five_minute_token_is_not_refreshed_in_first_half(harness: Harness) -> None:
    """Given a token of five minutes, when 20 processes ask in its first half, then none renews it."""
    live_for(harness, timedelta(minutes=5))
    for _ in range(20):
        harness.time.passed_s += 7
        assert harness.ask() == "canary-access-one"
    supply = harness.process()
    supply.token(harness.connection)
    harness.time.passed_s += 115
    assert supply.token(harness.connection).credentials["access_token"].reveal() == "canary-access-one+"


def test_token_provider_one_minute_token_is_used_for_most_of_its_life(harness: Harness) -> None:
    live_for(harness, timedelta(minutes=1))
    harness.time.passed_s += 53
    assert harness.ask() == "canary-access-one"
    harness.time.passed_s += 2
    assert harness.ask() == "canary-access-one+"


def test_refresh_after_401_expired_token_is_refreshed(harness: Harness) -> None:
    """Given a one-minute token that expired on its way to the platform, then the age of a minute does not keep it in use."""
    live_for(harness, timedelta(minutes=1))
    supply = harness.process()
    refused = supply.token(harness.connection)
    harness.time.passed_s += 61
    newer = supply.refresh_after_401(harness.connection, refused)
    assert newer
    assert newer.credentials["access_token"].reveal() == "canary-access-one+"


def test_token_refresh_soon_after_last_is_sealed_and_later_stored_in_vault(harness: Harness) -> None:
    """Given a secret version younger than 20 minutes, then a renewal adds no version; after that time it adds one."""
    harness.expire()
    harness.ask()
    versions = [harness.item["version_id"]]
    for minutes in (5, 5, 11):
        harness.time.passed_s += 60 * minutes
        harness.process().renew(connection_store.get(harness.table, NAME))
        versions.append(harness.item["version_id"])
    assert versions[0] == versions[1] == versions[2] != versions[3]
    assert "sealed" not in harness.item
    assert harness.ask() == "canary-access-one++++"
    assert harness.stored()["access_token"].reveal() == "canary-access-one++++"
    assert set(harness.kommo.refreshes.values()) == {1}


def test_token_refresh_sealed_pair_is_due_when_vault_accepts_a_version(harness: Harness) -> None:
    harness.expire()
    harness.ask()
    added_at = clock.from_iso(harness.item["version_added_at"])
    harness.time.passed_s += 600
    harness.process().renew(connection_store.get(harness.table, NAME))
    assert "sealed" in harness.item
    assert clock.from_iso(harness.item["due_at"]) == added_at + connection_store.VERSION_EVERY
    assert harness.ask() == "canary-access-one++"


def live_for(harness: Harness, life: timedelta) -> None:
    """Let the connection's present token end at this time after it was issued."""
    pair = harness.stored() | {"expires_at": Secret(clock.to_iso(clock.now() + life))}
    harness.vault.add(harness.connection.secret_id, vault.version_id(harness.connection.secret_id, 7), pair)
    changed = replace(
        harness.connection,
        version_id=vault.version_id(harness.connection.secret_id, 7),
        token_ends_at=pair["expires_at"].reveal(),
    )
    harness.table.put(connection_store.to_item(changed))
    harness.connection = changed


# -------------------------------------------------------------------------------------------- refusals by the platform


@pytest.mark.parametrize(
    "answer",
    [(500, {}, ""), (429, {}, ""), (403, {"Content-Type": "text/html"}, "<html>"), (200, {}, "{"), (404, {}, "")],
)
def test_token_provider_provider_failure_does_not_end_connection(harness: Harness, answer: Any) -> None:
    harness.expire()
    harness.kommo.before[TOKEN_PATH] = [answer] * 2
    harness.mock.add("GET", "https://api-c.kommo.com/oauth2/account/current/subdomain", status=500)
    with pytest.raises(Retryable):
        harness.ask()
    assert harness.item["state"] == "connected"

    harness.time.passed_s += 400
    harness.kommo.before[TOKEN_PATH] = []
    assert harness.ask() == "canary-access-one+"


def test_token_provider_failed_refresh_is_followed_by_a_pause(harness: Harness) -> None:
    harness.expire()
    harness.kommo.before[TOKEN_PATH] = [(500, {}, "")]
    with pytest.raises(Retryable):
        harness.ask()
    with pytest.raises(Retryable) as waits:
        harness.ask()
    assert waits.value.reason == "renewal_waits"
    assert waits.value.after_s is not None
    assert len(harness.kommo.calls) == 1
    harness.time.passed_s += waits.value.after_s + 1
    assert harness.ask() == "canary-access-one+"


def test_token_provider_revoked_grant_sets_needs_reconnect_and_is_not_retried(harness: Harness) -> None:
    harness.expire()
    harness.kommo.revoked.add("acme")
    for _ in range(3):
        with pytest.raises(Rejected) as refused:
            harness.ask()
        assert refused.value.reason == "needs_reconnect"
    assert (harness.item["state"], harness.item["reason"]) == ("needs_reconnect", "grant_revoked")
    assert harness.item["announce"] == "connection.needs_reconnect"
    assert harness.item["due_at"] <= clock.to_iso(clock.now())
    assert len(harness.kommo.calls) == 1, "a dead grant is not tried again"


def test_token_refresh_refused_after_another_worker_refreshed_uses_its_pair(harness: Harness) -> None:
    """Given a worker that was paused beyond its lease, when it is refused, then it uses what its successor stored."""
    harness.expire()

    def overtaken(request: requests.PreparedRequest) -> Any:
        harness.time.passed_s += refresh_lease.LEASE_S + 1
        assert harness.ask() == "canary-access-one+"
        return 401, kommo_fake.PROBLEM, json.dumps({"hint": "Token has been revoked"})

    with intercepted(harness.kommo, overtaken):
        assert harness.ask() == "canary-access-one+"
    assert harness.item["state"] == "connected"


def test_token_provider_wrong_client_secret_does_not_end_connection(harness: Harness) -> None:
    harness.expire()
    secret_id = harness.vault.client_secret_id("kommo", "acme")
    harness.vault.replace(secret_id, {"client_secret": Secret("canary-wrong")})
    with pytest.raises(Rejected) as refused:
        harness.ask()
    assert refused.value.reason == "wrong_client"
    assert harness.item["state"] == "connected"

    harness.vault.replace(secret_id, {"client_secret": Secret(kommo_fake.CLIENT_SECRET)})
    harness.time.passed_s += 400
    assert harness.ask() == "canary-access-one+"


def test_token_provider_moved_account_updates_allowed_domain(harness: Harness) -> None:
    harness.expire()
    harness.kommo.before[TOKEN_PATH] = [(404, {}, "")]
    located = harness.mock.add(
        "GET",
        "https://api-c.kommo.com/oauth2/account/current/subdomain",
        json={"id": 1, "subdomain": "moved", "domain": "moved.kommo.com", "top_level_domain": "kommo.com"},
    )
    assert harness.ask() == "canary-access-one+"
    assert harness.item["allowed_domain"] == "moved.kommo.com"
    assert [call.url for call in harness.kommo.calls] == [
        f"https://{host}.kommo.com{TOKEN_PATH}" for host in ("acme", "moved")
    ]
    assert located.calls[0].request.headers["X-Refresh-Token"] == "canary-refresh-one"


# ------------------------------------------------------------------------------------------------------- lost responses


def test_token_provider_lost_answer_is_requested_once_more(harness: Harness) -> None:
    harness.expire()
    harness.kommo.before[TOKEN_PATH] = [requests.exceptions.ReadTimeout()]
    assert harness.ask() == "canary-access-one+", "the platform had not used the token"
    assert len(harness.kommo.calls) == 2


@pytest.mark.parametrize(("status", "calls"), [(502, 2), (504, 2), (500, 1), (503, 1), (429, 1)])
def test_token_provider_answer_lost_behind_gateway_is_requested_once_more(
    harness: Harness, status: int, calls: int
) -> None:
    harness.expire()
    harness.kommo.before[TOKEN_PATH] = [(status, {}, "")]
    with contextlib.suppress(Retryable):
        harness.ask()
    assert len(harness.kommo.calls) == calls
    assert harness.item["generation"] == calls


def test_token_provider_lost_answer_with_used_token_sets_needs_reconnect(harness: Harness) -> None:
    harness.expire()

    def lose(request: requests.PreparedRequest) -> Any:
        harness.kommo._token(request)
        return requests.exceptions.ReadTimeout()

    with intercepted(harness.kommo, lose), pytest.raises(Rejected):
        harness.ask()
    assert (harness.item["state"], harness.item["reason"]) == ("needs_reconnect", "answer_lost")
    assert harness.kommo.refreshes == {"canary-refresh-one": 2}, "one retry with the old token, and no more"


@pytest.mark.parametrize("function_s", [refresh_lease.LEASE_S, 600.0])
def test_token_provider_answer_lost_by_slow_time_out_is_requested_once_more_in_time_that_is_left(
    harness: Harness, function_s: float
) -> None:
    """Given a first attempt that used up both time-outs, then the second one is made at once, and leaves time to store."""
    harness.expire()
    ends_at = harness.time.passed_s + function_s
    sent: list[float | None] = []

    def send(request: Request, **how: Any) -> Response:
        sent.append(request.total_timeout_s)
        if len(sent) == 1:
            harness.time.passed_s += request.connect_timeout_s + request.read_timeout_s
            raise AnswerLost("the platform gave no answer")
        return real(request, **how)

    supply = harness.process()
    supply.time_left_s = lambda: ends_at - harness.time.passed_s
    real = http_client.send
    with patch.object(http_client, "send", send):
        supply.token(connection_store.get(harness.table, NAME))
    assert harness.item["generation"] == 2
    longest_s = refresh_lease.LEASE_S - 18 - refresh_call.TIME_TO_STORE_S
    assert sent[0] == 18
    assert refresh_call.LEAST_TIMEOUT_S < (sent[1] or 0) <= longest_s


def test_token_provider_timeouts_do_not_end_connection(harness: Harness) -> None:
    harness.expire()
    harness.kommo.before[TOKEN_PATH] = [requests.exceptions.ReadTimeout()] * 4
    for _ in range(3):
        with pytest.raises(Retryable):
            harness.ask()
        harness.time.passed_s += 400
    assert harness.item["state"] == "connected"
    assert harness.ask() == "canary-access-one+"


# -------------------------------------------------------------------------------------------------- concurrent callers


def lease(harness: Harness, seconds: float) -> None:
    until = int((clock.now() + timedelta(seconds=seconds)).timestamp())
    harness.table.update(
        *connection_store.key(NAME),
        "SET lease_until = :until, fence = :seven, tries = :one",
        values={":until": until, ":seven": 7, ":one": 1},
    )


def test_token_provider_waiter_uses_token_of_lease_holder_without_request(harness: Harness) -> None:
    harness.expire()
    lease(harness, 30)

    def holder_commits() -> None:
        if len(harness.time.slept_s) == 3:
            pair = harness.kommo.connect("holders", "acme")
            credentials = harness.stored() | {
                name: Secret(str(pair[name])) for name in ("access_token", "refresh_token")
            }
            credentials["expires_at"] = Secret(clock.to_iso(clock.now() + timedelta(days=1)))
            version = vault.version_id(harness.connection.secret_id, 2)
            harness.vault.add(harness.connection.secret_id, version, credentials)
            harness.table.update(
                *connection_store.key(NAME),
                "SET generation = :two, version_id = :version REMOVE lease_until",
                values={":two": 2, ":version": version},
            )

    harness.time.while_asleep = holder_commits
    assert harness.ask() == "canary-access-holders"
    assert harness.kommo.refreshes == {}
    assert len(harness.time.slept_s) == 3


def test_token_provider_waiter_without_patience_is_retryable(harness: Harness) -> None:
    harness.expire()
    lease(harness, 40)
    with pytest.raises(Retryable) as waits:
        harness.ask(patience_s=5)
    assert waits.value.reason == "renewal_in_progress"
    assert waits.value.after_s is not None
    assert 30 < waits.value.after_s <= 40
    assert harness.kommo.refreshes == {}


def test_token_provider_dead_lease_holder_is_replaced_when_lease_ends(harness: Harness) -> None:
    harness.expire()
    lease(harness, 20)
    assert harness.ask() == "canary-access-one+"
    assert 20 <= sum(harness.time.slept_s) < 22
    assert harness.item["fence"] == 8


def test_token_refresh_killed_after_vault_write_is_completed_without_second_request(harness: Harness) -> None:
    harness.expire()
    with patch.object(pair_storage.PairStorage, "_point_to", side_effect=Died), pytest.raises(Died):
        harness.ask()
    assert harness.item["generation"] == 1
    harness.time.passed_s += refresh_lease.LEASE_S + 1
    assert harness.ask() == "canary-access-one+"
    assert harness.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_too_little_time_sends_nothing(harness: Harness) -> None:
    harness.expire()
    with pytest.raises(Retryable) as short:
        harness.ask(time_left_s=refresh_lease.LEASE_S - 1)
    assert short.value.reason == "short_of_time"
    assert harness.kommo.calls == []
    assert "lease_until" not in harness.item


# ----------------------------------------------------------------------------------------------- failures of the vault


def test_token_refresh_vault_failure_keeps_pair_sealed_and_stores_it_later(harness: Harness) -> None:
    harness.expire()
    with refusing("PutSecretValue"):
        assert harness.ask() == "canary-access-one+"
        assert harness.ask() == "canary-access-one+"
    assert "sealed" in harness.item

    assert harness.ask() == "canary-access-one+"
    key = harness.process().sealing_key_id
    assert sealed_credentials.move_to_vault(
        harness.table, harness.vault, key, connection_store.get(harness.table, NAME)
    )
    assert "sealed" not in harness.item
    assert harness.ask() == "canary-access-one+"
    assert harness.stored()["refresh_token"].reveal() == "canary-refresh-one+"
    assert harness.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_refresh_of_connection_removed_meanwhile_keeps_no_tokens(harness: Harness) -> None:
    """Given a connection that is removed while its refresh token is on its way, then the new pair is kept nowhere."""
    harness.expire()
    answer = harness.kommo._token

    def removed(request: requests.PreparedRequest) -> Any:
        connection = connection_store.get(harness.table, NAME)
        uninstall._mark(harness.table, connection, uninstall.DELETED)
        harness.vault.remove(connection.secret_id)
        return answer(request)

    # Secrets Manager refuses a new version of a secret that is scheduled for deletion.
    with intercepted(harness.kommo, removed), refusing("PutSecretValue"), pytest.raises(Rejected) as refused:
        harness.ask()
    assert refused.value.reason == "connection_removed"
    assert not [name for name in harness.item if name.startswith("sealed")]


def test_token_refresh_sealed_pair_is_bound_to_its_connection(harness: Harness) -> None:
    harness.expire()
    with refusing("PutSecretValue"):
        harness.ask()
    key = harness.stack.environment["SEALING_KEY_ID"]
    assert sealing.unseal(key, {"connection": NAME}, harness.item["sealed"])
    with pytest.raises((Rejected, Retryable)):
        sealing.unseal(key, {"connection": "kommo-acme-2"}, harness.item["sealed"])


@pytest.mark.parametrize("refused", ["GenerateDataKey", "GetSecretValue"])
def test_token_refresh_vault_unavailable_beforehand_sends_nothing(harness: Harness, refused: str) -> None:
    harness.expire()
    with refusing(refused), pytest.raises(Retryable):
        harness.ask()
    assert harness.kommo.calls == []
    assert harness.item.get("tries", 0) == 0


def test_token_provider_missing_secret_is_retryable_then_no_credentials(harness: Harness) -> None:
    boto3.client("secretsmanager").delete_secret(SecretId=harness.connection.secret_id)
    with pytest.raises(Retryable, match="yet"):
        harness.ask()
    harness.time.passed_s += 600
    with pytest.raises(Rejected) as gone:
        harness.ask()
    assert gone.value.reason == "no_credentials"


@pytest.mark.parametrize(
    ("state", "reason"),
    [("needs_reconnect", "needs_reconnect"), ("pending", "not_authorised"), ("removed", "connection_removed")],
)
def test_token_provider_connection_not_connected_is_refused(harness: Harness, state: str, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        harness.process().token(replace(harness.connection, state=state))
    assert refused.value.reason == reason


# -------------------------------------------------------------------------------------------------------- 401 on use


def request_with(token: Token) -> Request:
    headers = {"Authorization": f"Bearer {token.credentials['access_token'].reveal()}"}
    return Request("GET", "https://acme.kommo.com/api/v4/account", headers)


def test_token_provider_send_401_refreshes_and_repeats_once(harness: Harness) -> None:
    harness.time.passed_s += 3600
    del harness.kommo._tokens["canary-access-one"]
    assert harness.process().send(harness.connection, request_with).status == 200
    assert harness.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_send_401_uses_token_refreshed_by_another_process(harness: Harness) -> None:
    supply = harness.process()
    supply.token(harness.connection)
    harness.time.passed_s += 3600
    harness.process().renew(harness.connection)
    del harness.kommo._tokens["canary-access-one"]
    assert supply.send(harness.connection, request_with).status == 200
    assert harness.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_send_401_with_new_token_refreshes_once(harness: Harness) -> None:
    del harness.kommo._tokens["canary-access-one"]
    assert harness.process().send(harness.connection, request_with).status == 200
    assert harness.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_send_401_with_refreshed_token_does_not_refresh_again(harness: Harness) -> None:
    harness.kommo.before["/api/v4/account"] = [(401, {}, "")] * 6
    for _ in range(4):
        assert harness.process().send(harness.connection, request_with).status in (200, 401)
    assert harness.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_send_other_status_is_returned_without_refresh(harness: Harness) -> None:
    harness.time.passed_s += 3600
    harness.kommo.before["/api/v4/account"] = [(403, {}, "no")]
    assert harness.process().send(harness.connection, request_with).status == 403
    assert harness.kommo.refreshes == {}


def test_token_provider_send_401_of_revoked_account_sets_needs_reconnect(harness: Harness) -> None:
    harness.time.passed_s += 3600
    harness.kommo.revoked.add("acme")
    with pytest.raises(Rejected) as refused:
        harness.process().send(harness.connection, request_with)
    assert refused.value.reason == "needs_reconnect"
    assert harness.item["state"] == "needs_reconnect"


# ---------------------------------------------------------------------------------------------------- static credentials


def rotated(harness: Harness, until_s: float) -> Connection:
    """A connection whose token was rotated: the old token is the previous version."""
    secret_id = f"{PREFIX}/grants/ghl"
    first, second = vault.version_id(secret_id, 0), vault.version_id(secret_id, 2)
    harness.vault.create(secret_id, {"token": Secret("canary-old")}, first)
    harness.vault.add(secret_id, second, {"token": Secret("canary-new")})
    made = Connection(
        "ghl", "leadconnector", "bearer", "services.leadconnectorhq.com", "connected", 2, secret_id, second,
        granted_at=clock.to_iso(clock.now()), updated_at=clock.to_iso(clock.now()),
        previous_version_id=first, previous_until=clock.to_iso(clock.now() + timedelta(seconds=until_s)),
        fields={"location_id": "loc1"},
    )  # fmt: skip
    harness.table.put(connection_store.to_item(made))
    return made


DEAD = Response(401, body=b'{"statusCode":401,"message":"Invalid Private Integration token"}')


def send_all(
    harness: Harness,
    connection: Connection,
    answers: dict[str, Response],
    process: TokenProvider | None = None,
    probe: Response | Exception = DEAD,
) -> tuple[Response, list[str]]:
    """`answers` by the token that is sent; `probe` answers LeadConnector's own harmless call."""
    sent: list[str] = []

    def carry(request: Request, *, allowed_domain: str, follow_redirects: int = 0, owner: str) -> Response:
        if request.url.endswith(f"/locations/{connection.fields['location_id']}"):
            if isinstance(probe, Exception):
                raise probe
            return probe
        sent.append(request.headers["Authorization"])
        return answers[request.headers["Authorization"]]

    def build(token: Token) -> Request:
        return Request("GET", "https://x", {"Authorization": token.credentials["token"].reveal()})

    with patch.object(http_client, "send", carry):
        return (process or harness.process()).send(connection, build), sent


def test_token_provider_send_401_during_overlap_uses_previous_token(harness: Harness) -> None:
    answers = {"canary-new": DEAD, "canary-old": Response(200)}
    response, sent = send_all(harness, rotated(harness, 60), answers)
    assert (response.status, sent) == (200, ["canary-new", "canary-old"])
    assert connection_store.get(harness.table, "ghl").state == "connected"


def test_token_provider_expired_previous_token_is_not_used_any_more(harness: Harness) -> None:
    """Given a process that uses the old token, when the rotation ends, then its next call uses the new one."""
    connection, process = rotated(harness, 60), harness.process()
    answers = {"canary-new": DEAD, "canary-old": Response(200)}
    send_all(harness, connection, answers, process)
    assert send_all(harness, connection, answers, process)[1] == ["canary-old"]
    dropped = rotation.expire(harness.table, harness.vault, "ghl")
    response, sent = send_all(harness, dropped, answers, process)
    assert (response.status, sent) == (401, ["canary-new"])


def test_refresh_after_401_previous_token_refused_returns_to_current(harness: Harness) -> None:
    connection, supply = rotated(harness, 60), harness.process()
    reserve = supply.refresh_after_401(connection, supply.token(connection))
    assert reserve is not None
    assert supply.token(connection).credentials["token"].reveal() == "canary-old"
    newer = supply.refresh_after_401(connection, reserve)
    assert newer is not None
    assert newer.credentials["token"].reveal() == "canary-new"


def test_token_provider_send_401_after_overlap_sets_needs_reconnect(harness: Harness) -> None:
    response, sent = send_all(harness, rotated(harness, -1), {"canary-new": DEAD})
    assert (response.status, sent) == (401, ["canary-new"])
    ended = connection_store.get(harness.table, "ghl")
    assert (ended.state, ended.reason) == ("needs_reconnect", "token_refused")


@pytest.mark.parametrize(
    "probe",
    [
        Response(200, body=b'{"location": {"id": "loc1"}}'),
        Response(401, body=b'{"statusCode":401,"message":"The token is not authorized for this scope."}'),
        Response(500),
        AnswerLost("no answer"),
        Unreachable("not reached"),
    ],
)
def test_token_provider_send_401_not_confirmed_by_probe_keeps_connection(
    harness: Harness, probe: Response | Exception
) -> None:
    """Given a path that answers as if the token were revoked, when the platform's own call succeeds, then the token is kept."""
    response, _ = send_all(harness, rotated(harness, -1), {"canary-new": DEAD}, probe=probe)
    assert response.status == 401
    assert connection_store.get(harness.table, "ghl").state == "connected"


def test_token_provider_send_missing_scope_keeps_connection(harness: Harness) -> None:
    scope = Response(401, body=b'{"statusCode":401,"message":"The token is not authorized for this scope."}')
    response, sent = send_all(harness, rotated(harness, 60), {"canary-new": scope})
    assert (response.status, sent) == (401, ["canary-new"])
    assert connection_store.get(harness.table, "ghl").state == "connected"


# ------------------------------------------------------------------------------------------------------------ log-ins


@pytest.fixture
def marketo(harness: Harness) -> Connection:
    return harness.add(
        Connection(
            "marketo-one", "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", "connected", 1,
            f"{PREFIX}/grants/marketo-one", fields={"munchkin_id": "123-ABC-456"},
        ),
        {"client_id": Secret("client-7"), "client_secret": Secret("canary-secret")},
    )  # fmt: skip


def gives(harness: Harness, token: str, expires_in: Any) -> None:
    harness.mock.add("POST", IDENTITY, json={"access_token": token, "expires_in": expires_in, "scope": "x"})


def logins(harness: Harness) -> int:
    return sum(call.request.url == IDENTITY for call in harness.mock.calls)


def test_token_provider_login_is_made_once_while_token_lasts(harness: Harness, marketo: Connection) -> None:
    gives(harness, "one", 3600)
    supply = harness.process()
    for _ in range(5):
        assert supply.token(marketo).credentials["access_token"].reveal() == "one"
    harness.time.passed_s += 3600 - 61
    supply.token(marketo)
    assert logins(harness) == 1
    body = harness.mock.calls[0].request.body
    assert isinstance(body, bytes)
    assert parse_qs(body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["client-7"],
        "client_secret": ["canary-secret"],
    }


@pytest.mark.parametrize("left_s", [60, 1, 0, -5])
def test_token_provider_login_token_with_less_than_a_minute_is_renewed(
    harness: Harness, marketo: Connection, left_s: int
) -> None:
    gives(harness, "one", 3600)
    supply = harness.process()
    supply.token(marketo)
    gives(harness, "two", 3600)
    harness.time.passed_s += 3600 - left_s
    assert supply.token(marketo).credentials["access_token"].reveal() == "two"


def test_token_provider_login_token_with_short_rest_of_life_is_used(harness: Harness, marketo: Connection) -> None:
    """Marketo gives all callers the same token with its remaining lifetime, so asking again would not give a longer one."""
    gives(harness, "one", 20)
    assert harness.process().token(marketo).credentials["access_token"].reveal() == "one"


@pytest.mark.parametrize("expires_in", [0, -1, "0"])
def test_token_provider_login_token_without_life_is_retryable(
    harness: Harness, marketo: Connection, expires_in: Any
) -> None:
    gives(harness, "one", expires_in)
    with pytest.raises(Retryable) as later:
        harness.process().token(marketo)
    assert (later.value.reason, later.value.after_s) == ("token_ends_now", 2)


def test_refresh_after_401_login_is_repeated(harness: Harness, marketo: Connection) -> None:
    gives(harness, "one", 3600)
    supply = harness.process()
    token = supply.token(marketo)
    gives(harness, "two", 3600)
    newer = supply.refresh_after_401(marketo, token)
    assert newer is not None
    assert newer.credentials["access_token"].reveal() == "two"


def test_token_provider_wrong_login_is_tried_once_a_minute(harness: Harness, marketo: Connection) -> None:
    harness.mock.add("POST", IDENTITY, status=401, json={"error": "invalid_client"})
    supply = harness.process()
    for _ in range(5):
        with pytest.raises(Rejected) as refused:
            supply.token(marketo)
        assert refused.value.reason == "bad_credentials"
    assert logins(harness) == 1
    harness.time.passed_s += 61
    with pytest.raises(Rejected):
        supply.token(marketo)
    assert logins(harness) == 2


def test_token_provider_replaced_credentials_are_used_at_once(harness: Harness, marketo: Connection) -> None:
    gives(harness, "one", 3600)
    supply = harness.process()
    supply.token(marketo)
    version = vault.version_id(marketo.secret_id, 2)
    harness.vault.add(
        marketo.secret_id, version, {"client_id": Secret("client-8"), "client_secret": Secret("canary-2")}
    )
    changed = replace(marketo, generation=2, version_id=version)
    harness.table.put(connection_store.to_item(changed))
    gives(harness, "two", 3600)
    assert supply.token(changed).credentials["access_token"].reveal() == "two"
    assert "client-8" in str(harness.mock.calls[-1].request.body)


def test_token_provider_recreated_connection_has_its_own_token(harness: Harness, marketo: Connection) -> None:
    gives(harness, "one", 3600)
    supply = harness.process()
    supply.token(marketo)
    again = harness.add(
        replace(marketo, secret_id=f"{PREFIX}/grants/marketo-one-2"),
        {"client_id": Secret("client-9"), "client_secret": Secret("canary-3")},
    )
    gives(harness, "of-the-new-account", 3600)
    assert supply.token(again).credentials["access_token"].reveal() == "of-the-new-account"


# -------------------------------------------------------------------------------------------------------- cached tokens


def intercepted(kommo: Kommo, first: Callable[[requests.PreparedRequest], Any]) -> Any:
    """Replace the first response of the token endpoint; it is computed at the time of the call."""
    original = kommo._token
    waiting = [first]

    def token(request: requests.PreparedRequest) -> Any:
        answer = waiting.pop(0)(request) if waiting else original(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return patch.object(kommo, "_token", token)


def test_forget_tokens_clears_process_cache() -> None:
    cache.PROCESS_CACHE.keep(Connection("a", "kommo", "oauth2", "x", "connected", 1, "s"), Token({}, 1, ""))
    fakes.forget_tokens()
    assert cache.PROCESS_CACHE.get(Connection("a", "kommo", "oauth2", "x", "connected", 1, "s")) is None
