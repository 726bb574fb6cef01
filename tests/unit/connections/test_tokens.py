"""The token provider: which token callers get, from where, and the state of the grant after each failure."""

from __future__ import annotations

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
from portaria.connections.tokens import cache, pair_storage, refresh_lease, sealed_credentials
from portaria.connections.tokens.cache import Token
from portaria.connections.tokens.provider import TokenProvider
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import AnswerLost, Rejected, Retryable, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.moto_cloud import PREFIX, cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.connections.tokens import NAME, TOKEN_PATH, Desk
from tests.fakes.crashes import Died
from tests.fakes.platforms import kommo as kommo_fake
from tests.fakes.platforms.kommo import Kommo
from tests.fakes.virtual_time import DAY_S, VirtualClock

IDENTITY = "https://123-abc-456.mktorest.com/identity/oauth/token"


@pytest.fixture
def desk() -> Iterator[Desk]:
    time = VirtualClock()
    with (
        cloud() as stack,
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        time.installed(),
    ):
        yield Desk(stack, mock, time)


# -------------------------------------------------------------------------------------------------------------- renewal


def test_token_provider_valid_token_is_read_once_and_cached(desk: Desk) -> None:
    supply = desk.process()
    assert supply.token(desk.connection).credentials["access_token"].reveal() == "canary-access-one"
    boto3.client("secretsmanager").delete_secret(SecretId=desk.connection.secret_id)
    assert supply.token(desk.connection).credentials["access_token"].reveal() == "canary-access-one"
    assert desk.kommo.refreshes == {}


def test_token_provider_expired_token_is_refreshed_once_for_all_processes(desk: Desk) -> None:
    desk.expire()
    assert [desk.ask() for _ in range(4)] == ["canary-access-one+"] * 4
    assert desk.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_refreshed_pair_is_stored_under_next_generation(desk: Desk) -> None:
    desk.expire()
    desk.ask()
    item = desk.item
    assert (item["generation"], item["state"]) == (2, "connected")
    assert item["version_id"] == vault.version_id(desk.connection.secret_id, 2)
    assert desk.stored()["refresh_token"].reveal() == "canary-refresh-one+"
    assert desk.stored()["webhook_key"].reveal() == "canary-webhook-key", "what else the secret held is kept"
    assert not {"lease_until", "tries", "retry_at", "sealed"} & item.keys()
    renew_in = clock.from_iso(item["due_at"]) - clock.now()
    assert timedelta(hours=19) < renew_in < timedelta(hours=22)


def test_token_provider_items_hold_no_token(desk: Desk) -> None:
    desk.expire()
    with refusing("PutSecretValue"):
        desk.ask()
    assert "sealed" in desk.item
    assert "canary" not in json.dumps(boto3.client("dynamodb").scan(TableName=desk.table.name)["Items"], default=str)


def test_token_provider_repeated_refreshes_use_each_refresh_token_once(desk: Desk) -> None:
    for number in range(1, 4):
        desk.expire()
        assert desk.ask() == f"canary-access-one{'+' * number}"
    assert set(desk.kommo.refreshes.values()) == {1}


def test_token_provider_token_near_its_end_is_refreshed(desk: Desk) -> None:
    supply = desk.process()
    supply.token(desk.connection)
    desk.time.passed_s += DAY_S - 200
    assert supply.token(desk.connection).credentials["access_token"].reveal() == "canary-access-one+"


def test_token_provider_failed_early_refresh_keeps_current_token(desk: Desk) -> None:
    supply = desk.process()
    supply.token(desk.connection)
    desk.time.passed_s += DAY_S - 200
    desk.kommo.before[TOKEN_PATH] = [(500, {}, "")] * 9
    got = [supply.token(desk.connection).credentials["access_token"].reveal() for _ in range(5)]
    assert got == ["canary-access-one"] * 5
    assert len(desk.kommo.calls) == 1, "and is not tried by every call"


def test_token_provider_five_minute_token_is_not_refreshed_in_first_half(desk: Desk) -> None:
    """Given a token of five minutes, when 20 processes ask in its first half, then none renews it."""
    live_for(desk, timedelta(minutes=5))
    for _ in range(20):
        desk.time.passed_s += 7
        assert desk.ask() == "canary-access-one"
    supply = desk.process()
    supply.token(desk.connection)
    desk.time.passed_s += 115
    assert supply.token(desk.connection).credentials["access_token"].reveal() == "canary-access-one+"


def test_token_provider_one_minute_token_is_used_for_most_of_its_life(desk: Desk) -> None:
    live_for(desk, timedelta(minutes=1))
    desk.time.passed_s += 53
    assert desk.ask() == "canary-access-one"
    desk.time.passed_s += 2
    assert desk.ask() == "canary-access-one+"


def test_refresh_after_401_expired_token_is_refreshed(desk: Desk) -> None:
    """Given a one-minute token that expired on its way to the platform, then the age of a minute does not keep it in use."""
    live_for(desk, timedelta(minutes=1))
    supply = desk.process()
    refused = supply.token(desk.connection)
    desk.time.passed_s += 61
    newer = supply.refresh_after_401(desk.connection, refused)
    assert newer
    assert newer.credentials["access_token"].reveal() == "canary-access-one+"


def test_token_refresh_soon_after_last_is_sealed_and_later_stored_in_vault(desk: Desk) -> None:
    """Given a secret version younger than 20 minutes, then a renewal adds no version; after that time it adds one."""
    desk.expire()
    desk.ask()
    versions = [desk.item["version_id"]]
    for minutes in (5, 5, 11):
        desk.time.passed_s += 60 * minutes
        desk.process().renew(connection_store.get(desk.table, NAME))
        versions.append(desk.item["version_id"])
    assert versions[0] == versions[1] == versions[2] != versions[3]
    assert "sealed" not in desk.item
    assert desk.ask() == "canary-access-one++++"
    assert desk.stored()["access_token"].reveal() == "canary-access-one++++"
    assert set(desk.kommo.refreshes.values()) == {1}


def test_token_refresh_sealed_pair_is_due_when_vault_accepts_a_version(desk: Desk) -> None:
    desk.expire()
    desk.ask()
    added_at = clock.from_iso(desk.item["version_added_at"])
    desk.time.passed_s += 600
    desk.process().renew(connection_store.get(desk.table, NAME))
    assert "sealed" in desk.item
    assert clock.from_iso(desk.item["due_at"]) == added_at + connection_store.VERSION_EVERY
    assert desk.ask() == "canary-access-one++"


def live_for(desk: Desk, life: timedelta) -> None:
    """Let the connection's present token end at this time after it was issued."""
    pair = desk.stored() | {"expires_at": Secret(clock.to_iso(clock.now() + life))}
    desk.vault.add(desk.connection.secret_id, vault.version_id(desk.connection.secret_id, 7), pair)
    changed = replace(
        desk.connection,
        version_id=vault.version_id(desk.connection.secret_id, 7),
        token_ends_at=pair["expires_at"].reveal(),
    )
    desk.table.put(connection_store.to_item(changed))
    desk.connection = changed


# -------------------------------------------------------------------------------------------- refusals by the platform


@pytest.mark.parametrize(
    "answer",
    [(500, {}, ""), (429, {}, ""), (403, {"Content-Type": "text/html"}, "<html>"), (200, {}, "{"), (404, {}, "")],
)
def test_token_provider_provider_failure_does_not_end_connection(desk: Desk, answer: Any) -> None:
    desk.expire()
    desk.kommo.before[TOKEN_PATH] = [answer] * 2
    desk.mock.add("GET", "https://api-c.kommo.com/oauth2/account/current/subdomain", status=500)
    with pytest.raises(Retryable):
        desk.ask()
    assert desk.item["state"] == "connected"

    desk.time.passed_s += 400
    desk.kommo.before[TOKEN_PATH] = []
    assert desk.ask() == "canary-access-one+"


def test_token_provider_failed_refresh_is_followed_by_a_pause(desk: Desk) -> None:
    desk.expire()
    desk.kommo.before[TOKEN_PATH] = [(500, {}, "")]
    with pytest.raises(Retryable):
        desk.ask()
    with pytest.raises(Retryable) as waits:
        desk.ask()
    assert waits.value.reason == "renewal_waits"
    assert waits.value.after_s is not None
    assert len(desk.kommo.calls) == 1
    desk.time.passed_s += waits.value.after_s + 1
    assert desk.ask() == "canary-access-one+"


def test_token_provider_revoked_grant_sets_needs_reconnect_and_is_not_retried(desk: Desk) -> None:
    desk.expire()
    desk.kommo.revoked.add("acme")
    for _ in range(3):
        with pytest.raises(Rejected) as refused:
            desk.ask()
        assert refused.value.reason == "needs_reconnect"
    assert (desk.item["state"], desk.item["reason"]) == ("needs_reconnect", "grant_revoked")
    assert desk.item["announce"] == "connection.needs_reconnect"
    assert desk.item["due_at"] <= clock.to_iso(clock.now())
    assert len(desk.kommo.calls) == 1, "a dead grant is not tried again"


def test_token_refresh_refused_after_another_worker_refreshed_uses_its_pair(desk: Desk) -> None:
    """Given a worker that was paused beyond its lease, when it is refused, then it uses what its successor stored."""
    desk.expire()

    def overtaken(request: requests.PreparedRequest) -> Any:
        desk.time.passed_s += refresh_lease.LEASE_S + 1
        assert desk.ask() == "canary-access-one+"
        return 401, kommo_fake.PROBLEM, json.dumps({"hint": "Token has been revoked"})

    with intercepted(desk.kommo, overtaken):
        assert desk.ask() == "canary-access-one+"
    assert desk.item["state"] == "connected"


def test_token_provider_wrong_client_secret_does_not_end_connection(desk: Desk) -> None:
    desk.expire()
    secret_id = desk.vault.client_secret_id("kommo", "acme")
    desk.vault.replace(secret_id, {"client_secret": Secret("canary-wrong")})
    with pytest.raises(Rejected) as refused:
        desk.ask()
    assert refused.value.reason == "wrong_client"
    assert desk.item["state"] == "connected"

    desk.vault.replace(secret_id, {"client_secret": Secret(kommo_fake.CLIENT_SECRET)})
    desk.time.passed_s += 400
    assert desk.ask() == "canary-access-one+"


def test_token_provider_moved_account_updates_allowed_domain(desk: Desk) -> None:
    desk.expire()
    desk.kommo.before[TOKEN_PATH] = [(404, {}, "")]
    located = desk.mock.add(
        "GET",
        "https://api-c.kommo.com/oauth2/account/current/subdomain",
        json={"id": 1, "subdomain": "moved", "domain": "moved.kommo.com", "top_level_domain": "kommo.com"},
    )
    assert desk.ask() == "canary-access-one+"
    assert desk.item["allowed_domain"] == "moved.kommo.com"
    assert [call.url for call in desk.kommo.calls] == [
        f"https://{host}.kommo.com{TOKEN_PATH}" for host in ("acme", "moved")
    ]
    assert located.calls[0].request.headers["X-Refresh-Token"] == "canary-refresh-one"


# ------------------------------------------------------------------------------------------------------- lost responses


def test_token_provider_lost_answer_is_requested_once_more(desk: Desk) -> None:
    desk.expire()
    desk.kommo.before[TOKEN_PATH] = [requests.exceptions.ReadTimeout()]
    assert desk.ask() == "canary-access-one+", "the platform had not used the token"
    assert len(desk.kommo.calls) == 2


def test_token_provider_lost_answer_with_used_token_sets_needs_reconnect(desk: Desk) -> None:
    desk.expire()

    def lose(request: requests.PreparedRequest) -> Any:
        desk.kommo._token(request)
        return requests.exceptions.ReadTimeout()

    with intercepted(desk.kommo, lose), pytest.raises(Rejected):
        desk.ask()
    assert (desk.item["state"], desk.item["reason"]) == ("needs_reconnect", "answer_lost")
    assert desk.kommo.refreshes == {"canary-refresh-one": 2}, "one retry with the old token, and no more"


def test_token_provider_timeouts_do_not_end_connection(desk: Desk) -> None:
    desk.expire()
    desk.kommo.before[TOKEN_PATH] = [requests.exceptions.ReadTimeout()] * 4
    for _ in range(3):
        with pytest.raises(Retryable):
            desk.ask()
        desk.time.passed_s += 400
    assert desk.item["state"] == "connected"
    assert desk.ask() == "canary-access-one+"


# -------------------------------------------------------------------------------------------------- concurrent callers


def lease(desk: Desk, seconds: float) -> None:
    until = int((clock.now() + timedelta(seconds=seconds)).timestamp())
    desk.table.update(
        *connection_store.key(NAME),
        "SET lease_until = :until, fence = :seven, tries = :one",
        values={":until": until, ":seven": 7, ":one": 1},
    )


def test_token_provider_waiter_uses_token_of_lease_holder_without_request(desk: Desk) -> None:
    desk.expire()
    lease(desk, 30)

    def holder_commits() -> None:
        if len(desk.time.slept_s) == 3:
            pair = desk.kommo.connect("holders", "acme")
            credentials = desk.stored() | {name: Secret(str(pair[name])) for name in ("access_token", "refresh_token")}
            credentials["expires_at"] = Secret(clock.to_iso(clock.now() + timedelta(days=1)))
            version = vault.version_id(desk.connection.secret_id, 2)
            desk.vault.add(desk.connection.secret_id, version, credentials)
            desk.table.update(
                *connection_store.key(NAME),
                "SET generation = :two, version_id = :version REMOVE lease_until",
                values={":two": 2, ":version": version},
            )

    desk.time.while_asleep = holder_commits
    assert desk.ask() == "canary-access-holders"
    assert desk.kommo.refreshes == {}
    assert len(desk.time.slept_s) == 3


def test_token_provider_waiter_without_patience_is_retryable(desk: Desk) -> None:
    desk.expire()
    lease(desk, 40)
    with pytest.raises(Retryable) as waits:
        desk.ask(patience_s=5)
    assert waits.value.reason == "renewal_in_progress"
    assert waits.value.after_s is not None
    assert 30 < waits.value.after_s <= 40
    assert desk.kommo.refreshes == {}


def test_token_provider_dead_lease_holder_is_replaced_when_lease_ends(desk: Desk) -> None:
    desk.expire()
    lease(desk, 20)
    assert desk.ask() == "canary-access-one+"
    assert 20 <= sum(desk.time.slept_s) < 22
    assert desk.item["fence"] == 8


def test_token_refresh_killed_after_vault_write_is_completed_without_second_request(desk: Desk) -> None:
    desk.expire()
    with patch.object(pair_storage.PairStorage, "_point_to", side_effect=Died), pytest.raises(Died):
        desk.ask()
    assert desk.item["generation"] == 1
    desk.time.passed_s += refresh_lease.LEASE_S + 1
    assert desk.ask() == "canary-access-one+"
    assert desk.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_too_little_time_sends_nothing(desk: Desk) -> None:
    desk.expire()
    with pytest.raises(Retryable) as short:
        desk.ask(time_left_s=refresh_lease.LEASE_S - 1)
    assert short.value.reason == "short_of_time"
    assert desk.kommo.calls == []
    assert "lease_until" not in desk.item


# ----------------------------------------------------------------------------------------------- failures of the vault


def test_token_refresh_vault_failure_keeps_pair_sealed_and_stores_it_later(desk: Desk) -> None:
    desk.expire()
    with refusing("PutSecretValue"):
        assert desk.ask() == "canary-access-one+"
        assert desk.ask() == "canary-access-one+"
    assert "sealed" in desk.item

    assert desk.ask() == "canary-access-one+"
    key = desk.process().sealing_key_id
    assert sealed_credentials.move_to_vault(desk.table, desk.vault, key, connection_store.get(desk.table, NAME))
    assert "sealed" not in desk.item
    assert desk.ask() == "canary-access-one+"
    assert desk.stored()["refresh_token"].reveal() == "canary-refresh-one+"
    assert desk.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_refresh_sealed_pair_is_bound_to_its_connection(desk: Desk) -> None:
    desk.expire()
    with refusing("PutSecretValue"):
        desk.ask()
    key = desk.stack.environment["SEALING_KEY_ID"]
    assert vault.unseal(key, {"connection": NAME}, desk.item["sealed"])
    with pytest.raises((Rejected, Retryable)):
        vault.unseal(key, {"connection": "kommo-acme-2"}, desk.item["sealed"])


@pytest.mark.parametrize("refused", ["GenerateDataKey", "GetSecretValue"])
def test_token_refresh_vault_unavailable_beforehand_sends_nothing(desk: Desk, refused: str) -> None:
    desk.expire()
    with refusing(refused), pytest.raises(Retryable):
        desk.ask()
    assert desk.kommo.calls == []
    assert desk.item.get("tries", 0) == 0


def test_token_provider_missing_secret_is_retryable_then_no_credentials(desk: Desk) -> None:
    boto3.client("secretsmanager").delete_secret(SecretId=desk.connection.secret_id)
    with pytest.raises(Retryable, match="yet"):
        desk.ask()
    desk.time.passed_s += 600
    with pytest.raises(Rejected) as gone:
        desk.ask()
    assert gone.value.reason == "no_credentials"


@pytest.mark.parametrize(
    ("state", "reason"),
    [("needs_reconnect", "needs_reconnect"), ("pending", "not_authorised"), ("removed", "connection_removed")],
)
def test_token_provider_connection_not_connected_is_refused(desk: Desk, state: str, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        desk.process().token(replace(desk.connection, state=state))
    assert refused.value.reason == reason


# -------------------------------------------------------------------------------------------------------- 401 on use


def request_with(token: Token) -> Request:
    headers = {"Authorization": f"Bearer {token.credentials['access_token'].reveal()}"}
    return Request("GET", "https://acme.kommo.com/api/v4/account", headers)


def test_token_provider_send_401_refreshes_and_repeats_once(desk: Desk) -> None:
    desk.time.passed_s += 3600
    del desk.kommo._tokens["canary-access-one"]
    assert desk.process().send(desk.connection, request_with).status == 200
    assert desk.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_send_401_uses_token_refreshed_by_another_process(desk: Desk) -> None:
    supply = desk.process()
    supply.token(desk.connection)
    desk.time.passed_s += 3600
    desk.process().renew(desk.connection)
    del desk.kommo._tokens["canary-access-one"]
    assert supply.send(desk.connection, request_with).status == 200
    assert desk.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_send_401_with_new_token_refreshes_once(desk: Desk) -> None:
    del desk.kommo._tokens["canary-access-one"]
    assert desk.process().send(desk.connection, request_with).status == 200
    assert desk.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_send_401_with_refreshed_token_does_not_refresh_again(desk: Desk) -> None:
    desk.kommo.before["/api/v4/account"] = [(401, {}, "")] * 6
    for _ in range(4):
        assert desk.process().send(desk.connection, request_with).status in (200, 401)
    assert desk.kommo.refreshes == {"canary-refresh-one": 1}


def test_token_provider_send_other_status_is_returned_without_refresh(desk: Desk) -> None:
    desk.time.passed_s += 3600
    desk.kommo.before["/api/v4/account"] = [(403, {}, "no")]
    assert desk.process().send(desk.connection, request_with).status == 403
    assert desk.kommo.refreshes == {}


def test_token_provider_send_401_of_revoked_account_sets_needs_reconnect(desk: Desk) -> None:
    desk.time.passed_s += 3600
    desk.kommo.revoked.add("acme")
    with pytest.raises(Rejected) as refused:
        desk.process().send(desk.connection, request_with)
    assert refused.value.reason == "needs_reconnect"
    assert desk.item["state"] == "needs_reconnect"


# ---------------------------------------------------------------------------------------------------- static credentials


def rotated(desk: Desk, until_s: float) -> Connection:
    """A connection whose token was rotated: the old token is the previous version."""
    secret_id = f"{PREFIX}/grants/ghl"
    first, second = vault.version_id(secret_id, 0), vault.version_id(secret_id, 2)
    desk.vault.create(secret_id, {"token": Secret("canary-old")}, first)
    desk.vault.add(secret_id, second, {"token": Secret("canary-new")})
    made = Connection(
        "ghl", "leadconnector", "bearer", "services.leadconnectorhq.com", "connected", 2, secret_id, second,
        granted_at=clock.to_iso(clock.now()), updated_at=clock.to_iso(clock.now()),
        previous_version_id=first, previous_until=clock.to_iso(clock.now() + timedelta(seconds=until_s)),
        fields={"location_id": "loc1"},
    )  # fmt: skip
    desk.table.put(connection_store.to_item(made))
    return made


DEAD = Response(401, body=b'{"statusCode":401,"message":"Invalid Private Integration token"}')


def send_all(
    desk: Desk,
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
        return (process or desk.process()).send(connection, build), sent


def test_token_provider_send_401_during_overlap_uses_previous_token(desk: Desk) -> None:
    answers = {"canary-new": DEAD, "canary-old": Response(200)}
    response, sent = send_all(desk, rotated(desk, 60), answers)
    assert (response.status, sent) == (200, ["canary-new", "canary-old"])
    assert connection_store.get(desk.table, "ghl").state == "connected"


def test_token_provider_expired_previous_token_is_not_used_any_more(desk: Desk) -> None:
    """Given a process that uses the old token, when the rotation ends, then its next call uses the new one."""
    connection, process = rotated(desk, 60), desk.process()
    answers = {"canary-new": DEAD, "canary-old": Response(200)}
    send_all(desk, connection, answers, process)
    assert send_all(desk, connection, answers, process)[1] == ["canary-old"]
    dropped = rotation.expire(desk.table, desk.vault, "ghl")
    response, sent = send_all(desk, dropped, answers, process)
    assert (response.status, sent) == (401, ["canary-new"])


def test_refresh_after_401_previous_token_refused_returns_to_current(desk: Desk) -> None:
    connection, supply = rotated(desk, 60), desk.process()
    reserve = supply.refresh_after_401(connection, supply.token(connection))
    assert reserve is not None
    assert supply.token(connection).credentials["token"].reveal() == "canary-old"
    newer = supply.refresh_after_401(connection, reserve)
    assert newer is not None
    assert newer.credentials["token"].reveal() == "canary-new"


def test_token_provider_send_401_after_overlap_sets_needs_reconnect(desk: Desk) -> None:
    response, sent = send_all(desk, rotated(desk, -1), {"canary-new": DEAD})
    assert (response.status, sent) == (401, ["canary-new"])
    ended = connection_store.get(desk.table, "ghl")
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
    desk: Desk, probe: Response | Exception
) -> None:
    """Given a path that answers as if the token were revoked, when the platform's own call succeeds, then the token is kept."""
    response, _ = send_all(desk, rotated(desk, -1), {"canary-new": DEAD}, probe=probe)
    assert response.status == 401
    assert connection_store.get(desk.table, "ghl").state == "connected"


def test_token_provider_send_missing_scope_keeps_connection(desk: Desk) -> None:
    scope = Response(401, body=b'{"statusCode":401,"message":"The token is not authorized for this scope."}')
    response, sent = send_all(desk, rotated(desk, 60), {"canary-new": scope})
    assert (response.status, sent) == (401, ["canary-new"])
    assert connection_store.get(desk.table, "ghl").state == "connected"


# ------------------------------------------------------------------------------------------------------------ log-ins


@pytest.fixture
def marketo(desk: Desk) -> Connection:
    return desk.add(
        Connection(
            "marketo-one", "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", "connected", 1,
            f"{PREFIX}/grants/marketo-one", fields={"munchkin_id": "123-ABC-456"},
        ),
        {"client_id": Secret("client-7"), "client_secret": Secret("canary-secret")},
    )  # fmt: skip


def gives(desk: Desk, token: str, expires_in: Any) -> None:
    desk.mock.add("POST", IDENTITY, json={"access_token": token, "expires_in": expires_in, "scope": "x"})


def logins(desk: Desk) -> int:
    return sum(call.request.url == IDENTITY for call in desk.mock.calls)


def test_token_provider_login_is_made_once_while_token_lasts(desk: Desk, marketo: Connection) -> None:
    gives(desk, "one", 3600)
    supply = desk.process()
    for _ in range(5):
        assert supply.token(marketo).credentials["access_token"].reveal() == "one"
    desk.time.passed_s += 3600 - 61
    supply.token(marketo)
    assert logins(desk) == 1
    body = desk.mock.calls[0].request.body
    assert isinstance(body, bytes)
    assert parse_qs(body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["client-7"],
        "client_secret": ["canary-secret"],
    }


@pytest.mark.parametrize("left_s", [60, 1, 0, -5])
def test_token_provider_login_token_with_less_than_a_minute_is_renewed(
    desk: Desk, marketo: Connection, left_s: int
) -> None:
    gives(desk, "one", 3600)
    supply = desk.process()
    supply.token(marketo)
    gives(desk, "two", 3600)
    desk.time.passed_s += 3600 - left_s
    assert supply.token(marketo).credentials["access_token"].reveal() == "two"


def test_token_provider_login_token_with_short_rest_of_life_is_used(desk: Desk, marketo: Connection) -> None:
    """Marketo gives all callers the same token with its remaining lifetime, so asking again would not give a longer one."""
    gives(desk, "one", 20)
    assert desk.process().token(marketo).credentials["access_token"].reveal() == "one"


@pytest.mark.parametrize("expires_in", [0, -1, "0"])
def test_token_provider_login_token_without_life_is_retryable(desk: Desk, marketo: Connection, expires_in: Any) -> None:
    gives(desk, "one", expires_in)
    with pytest.raises(Retryable) as later:
        desk.process().token(marketo)
    assert (later.value.reason, later.value.after_s) == ("token_ends_now", 2)


def test_refresh_after_401_login_is_repeated(desk: Desk, marketo: Connection) -> None:
    gives(desk, "one", 3600)
    supply = desk.process()
    token = supply.token(marketo)
    gives(desk, "two", 3600)
    newer = supply.refresh_after_401(marketo, token)
    assert newer is not None
    assert newer.credentials["access_token"].reveal() == "two"


def test_token_provider_wrong_login_is_tried_once_a_minute(desk: Desk, marketo: Connection) -> None:
    desk.mock.add("POST", IDENTITY, status=401, json={"error": "invalid_client"})
    supply = desk.process()
    for _ in range(5):
        with pytest.raises(Rejected) as refused:
            supply.token(marketo)
        assert refused.value.reason == "bad_credentials"
    assert logins(desk) == 1
    desk.time.passed_s += 61
    with pytest.raises(Rejected):
        supply.token(marketo)
    assert logins(desk) == 2


def test_token_provider_replaced_credentials_are_used_at_once(desk: Desk, marketo: Connection) -> None:
    gives(desk, "one", 3600)
    supply = desk.process()
    supply.token(marketo)
    version = vault.version_id(marketo.secret_id, 2)
    desk.vault.add(marketo.secret_id, version, {"client_id": Secret("client-8"), "client_secret": Secret("canary-2")})
    changed = replace(marketo, generation=2, version_id=version)
    desk.table.put(connection_store.to_item(changed))
    gives(desk, "two", 3600)
    assert supply.token(changed).credentials["access_token"].reveal() == "two"
    assert "client-8" in str(desk.mock.calls[-1].request.body)


def test_token_provider_recreated_connection_has_its_own_token(desk: Desk, marketo: Connection) -> None:
    gives(desk, "one", 3600)
    supply = desk.process()
    supply.token(marketo)
    again = desk.add(
        replace(marketo, secret_id=f"{PREFIX}/grants/marketo-one-2"),
        {"client_id": Secret("client-9"), "client_secret": Secret("canary-3")},
    )
    gives(desk, "of-the-new-account", 3600)
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
