"""Renewals at the edges: messages in; platform, event bus and queue out."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import boto3
import pytest
import requests
import responses

from portaria.aws import due_index
from portaria.connections import connection_store, renewal_sweep, vault
from portaria.connections.tokens import refresh_lease, usability
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import Retryable
from portaria.core.stored_reasons import ConnectionReason
from portaria.outbound import http_client
from tests.fakes.aws import functions
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.moto_cloud import PREFIX, Cloud, cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.connections.tokens import NAME, TOKEN_PATH, Harness
from tests.fakes.crashes import Died
from tests.fakes.virtual_time import DAY_S, VirtualClock

RECONNECT = "https://api.example.com/live/install/kommo/acme/start"


class WorkerHarness(Harness):
    """A harness with the renewal function."""

    def __init__(self, stack: Cloud, mock: responses.RequestsMock, time: VirtualClock) -> None:
        super().__init__(stack, mock, time)
        self.function = functions.load("renew_tokens", stack.environment)
        self.log = io.StringIO()
        functions.log_to(self.log)

    def handle(self, *bodies: str) -> set[str]:
        """The bodies that the function reports as failed."""
        fakes.forget_tokens()
        by_id = {str(number): body for number, body in enumerate(bodies)}
        with patch("portaria.aws.queues.give_back"), patch.object(self.function.rate_limiter, "wait"):
            answer = self.function.handler(functions.sqs_event(by_id, "renewals"), functions.Context(600))
        return {by_id[message_id] for message_id in functions.reported(answer)}

    def sweep(self) -> list[str]:
        """One scheduled sweep. Returns the connections that it queued."""
        bodies = ['{"sweep": ""}']
        visits: list[str] = []
        while bodies:
            self.handle(bodies.pop(0))
            for body in self.stack.receive("renewals"):
                (bodies if "sweep" in body else visits).append(body)
        return [json.loads(body)["connection"] for body in visits]

    def visit(self, name: str = NAME) -> set[str]:
        return self.handle(json.dumps({"connection": name}))

    def round(self) -> list[str]:
        names = self.sweep()
        for name in names:
            self.visit(name)
        return names

    def told(self, kind: str = "") -> list[dict[str, Any]]:
        return [detail for found, detail in fakes.events(self.stack) if found == kind or not kind]


@pytest.fixture
def worker() -> Iterator[WorkerHarness]:
    time = VirtualClock()
    with (
        cloud() as stack,
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        time.installed(),
    ):
        yield WorkerHarness(stack, mock, time)


def test_renewal_sweep_renews_connection_near_end_of_token_life(worker: WorkerHarness) -> None:
    worker.time.passed_s += DAY_S * 0.79
    assert worker.round() == []
    worker.time.passed_s += DAY_S * 0.12
    assert worker.round() == [NAME]
    assert worker.item["generation"] == 2
    assert worker.kommo.refreshes == {"canary-refresh-one": 1}
    assert worker.round() == [], "it is due again a day later"


def test_renewal_at_spreads_connections_created_together(worker: WorkerHarness) -> None:
    moments = [
        connection_store.renewal_at(replace(worker.connection, name=f"kommo-acme-{number}")) for number in range(500)
    ]
    hours = [(moment - clock.now()) / timedelta(hours=1) for moment in moments]
    assert 19.1 < min(hours) < 19.4
    assert 21.3 < max(hours) < 21.7
    assert sum(20 < each < 21 for each in hours) in range(150, 270)


def test_renew_tokens_sample_events_are_processed(worker: WorkerHarness) -> None:
    worker.time.passed_s += DAY_S
    sweep = functions.sample("renew_tokens", "sweep")["Records"][0]["body"]
    assert worker.handle(sweep) == set()
    assert [json.loads(body) for body in worker.stack.receive("renewals")] == [{"connection": NAME}]
    one = functions.sample("renew_tokens", "one_connection")["Records"][0]["body"]
    assert worker.handle(one) == set(), "a connection that is not there is nothing to do"


def test_renewal_sweep_queues_all_pages_once_until_visit_is_overdue(
    worker: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_index, "PAGE_SIZE", 10)
    for number in range(1, 26):
        due = replace(worker.connection, name=f"kommo-acme-{number}")
        worker.table.put({**connection_store.to_item(due), "due_at": clock.to_iso(clock.now())})
    names = worker.sweep()
    assert len(names) == len(set(names)) == 25
    assert worker.sweep() == [], "each is left to its visit for a while"
    worker.time.passed_s += renewal_sweep.VISIT_AGAIN.total_seconds() + 1
    assert len(worker.sweep()) == 25, "and found again where the visit never came"


def test_renew_tokens_duplicate_delivery_refreshes_once(worker: WorkerHarness) -> None:
    worker.time.passed_s += DAY_S
    assert [worker.visit() for _ in range(3)] == [set()] * 3
    assert worker.kommo.refreshes == {"canary-refresh-one": 1}


def test_renew_tokens_failed_visit_is_retried(worker: WorkerHarness) -> None:
    worker.time.passed_s += DAY_S
    worker.kommo.before[TOKEN_PATH] = [(500, {}, "")]
    body = json.dumps({"connection": NAME})
    assert worker.handle(body) == {body}
    worker.time.passed_s += 60
    assert worker.handle(body) == set()
    assert worker.item["generation"] == 2


def call_with_ended_token(worker: WorkerHarness, ends: list[Any]) -> None:
    """One call by a program, hours before the connection is due. The platform refuses its token; `ends` are the refresh's."""
    worker.kommo._tokens.pop("canary-access-one", None)
    worker.kommo.before[TOKEN_PATH] = ends
    connection = connection_store.get(worker.table, NAME)
    worker.process().refresh_after_401(connection, worker.process().token(connection))


@pytest.mark.parametrize(
    "ends",
    [[requests.exceptions.ReadTimeout()] * 2, [(502, {}, "")] * 2, [(429, {}, "")]],
    ids=["time-outs", "bad gateway", "rate limit"],
)
def test_renewal_sweep_refresh_by_a_caller_without_an_answer_is_repeated(
    worker: WorkerHarness, ends: list[Any]
) -> None:
    with pytest.raises(Retryable):
        call_with_ended_token(worker, ends)
    worker.time.passed_s += refresh_lease.LEASE_S + 1
    assert worker.round() == [NAME], "no caller came back"
    assert worker.item["generation"] == 2
    assert worker.round() == []


def test_renewal_sweep_refresh_by_a_caller_that_died_is_repeated_when_lease_ends(worker: WorkerHarness) -> None:
    with patch.object(http_client, "send", side_effect=Died), pytest.raises(Died):
        call_with_ended_token(worker, [])
    worker.time.passed_s += refresh_lease.LEASE_S - 1
    assert worker.round() == []
    worker.time.passed_s += 2
    assert worker.round() == [NAME]
    assert worker.item["generation"] == 2


def test_renewal_sweep_unsent_refresh_by_a_caller_leaves_due_time(worker: WorkerHarness) -> None:
    due_at = worker.item["due_at"]
    for _ in range(3):
        with pytest.raises(Retryable):
            call_with_ended_token(worker, [requests.exceptions.ConnectTimeout()])
        assert worker.item["due_at"] == due_at
        worker.time.passed_s += refresh_lease.LEASE_S + 1
        assert worker.round() == []


def test_renewal_sweep_refreshes_that_fail_for_hours_queue_no_more_visits_than_before(worker: WorkerHarness) -> None:
    """Given a platform that is down, callers every minute and a sweep every five, then one visit is queued each half hour."""
    queued = []
    for minute in range(180):
        with pytest.raises(Retryable):
            call_with_ended_token(worker, [(503, {}, "")] * 4)
        if minute % 5 == 4:
            queued += [minute for _ in worker.round()]
        worker.time.passed_s += 60
    assert len(queued) in range(5, 8)


def test_renew_tokens_revoked_grant_is_announced_once_and_not_retried(worker: WorkerHarness) -> None:
    worker.time.passed_s += DAY_S
    worker.kommo.revoked.add("acme")
    assert worker.round() == [NAME]
    assert worker.round() == [NAME], "the visit that tells the bus"
    assert worker.told() == [
        {
            "connection": NAME,
            "platform": "kommo",
            "client": "acme",
            "label": "",
            "generation": 1,
            "reason": "grant_revoked",
            "reconnect_url": RECONNECT,
            "tags": {},
        }
    ]
    worker.time.passed_s += 100 * DAY_S
    assert worker.round() == []
    assert len(worker.kommo.calls) == 1


def test_renew_tokens_event_bus_failure_announces_later(worker: WorkerHarness) -> None:
    usability.end(worker.table, worker.connection, ConnectionReason.GRANT_REVOKED)
    with refusing("PutEvents"):
        assert worker.visit() != set()
    assert "announce" in worker.item
    worker.visit()
    assert [detail["reason"] for detail in worker.told("connection.needs_reconnect")] == ["grant_revoked"]
    assert not {"announce", "due_at", "due_pk"} & worker.item.keys()


def test_renew_tokens_recovered_connection_is_announced_and_stays_due(worker: WorkerHarness) -> None:
    worker.table.put(connection_store.to_item(worker.connection, announce="connection.recovered"))
    assert worker.round() == [NAME]
    assert [detail["connection"] for detail in worker.told("connection.recovered")] == [NAME]
    assert "announce" not in worker.item
    assert worker.item["due_at"] == clock.to_iso(connection_store.renewal_at(connection_store.read(worker.item)))


def test_renew_tokens_sealed_pair_is_moved_into_vault(worker: WorkerHarness) -> None:
    worker.expire()
    with refusing("PutSecretValue"):
        worker.ask()
    assert "sealed" in worker.item
    worker.visit()
    assert "sealed" not in worker.item
    assert worker.stored()["access_token"].reveal() == "canary-access-one+"


def test_renew_tokens_wrong_client_is_logged_and_not_retried_at_once(worker: WorkerHarness) -> None:
    worker.time.passed_s += DAY_S
    worker.vault.replace(worker.vault.client_secret_id("kommo", "acme"), {"client_secret": Secret("canary-wrong")})
    worker.mock.add("GET", "https://api-c.kommo.com/oauth2/account/current/subdomain", status=401)
    assert worker.round() == [NAME]
    assert "wrong_client" in worker.log.getvalue()
    assert worker.round() == []
    assert len(worker.kommo.calls) == 1


def static(worker: WorkerHarness, age_days: float, **more: Any) -> Connection:
    secret_id = f"{PREFIX}/grants/ghl"
    worker.vault.create(secret_id, {"token": Secret("canary-old")}, vault.version_id(secret_id, 0))
    worker.vault.add(secret_id, vault.version_id(secret_id, 2), {"token": Secret("canary-new")})
    made = Connection(
        "ghl", "leadconnector", "bearer", "services.leadconnectorhq.com", "connected", 2, secret_id,
        vault.version_id(secret_id, 2), granted_at=clock.to_iso(clock.now() - timedelta(days=age_days)),
        updated_at=clock.to_iso(clock.now() - timedelta(days=age_days)), **more,
    )  # fmt: skip
    worker.table.put(connection_store.to_item(made))
    return made


def test_renew_tokens_static_token_is_warned_about_at_80_and_90_days(worker: WorkerHarness) -> None:
    static(worker, 0)
    ages = []
    for _ in range(100):
        worker.time.passed_s += DAY_S
        if "ghl" in worker.sweep():
            worker.visit("ghl")
        ages += [detail["age_days"] for detail in worker.told("connection.rotation_due")]
    assert ages == [80, 90]


def test_renew_tokens_previous_token_is_dropped_when_overlap_ends(worker: WorkerHarness) -> None:
    previous = vault.version_id(f"{PREFIX}/grants/ghl", 0)
    until = clock.to_iso(clock.now() + timedelta(days=7))
    static(worker, 0, previous_version_id=previous, previous_until=until)
    worker.time.passed_s += 7 * DAY_S - 60
    assert "ghl" not in worker.sweep()
    worker.time.passed_s += 120
    assert "ghl" in worker.sweep()
    worker.visit("ghl")
    item = connection_store.get_item(worker.table, "ghl")
    assert (item["previous_version_id"], item["previous_until"]) == ("", "")
    labels = boto3.client("secretsmanager").describe_secret(SecretId=item["secret_id"])["VersionIdsToStages"]
    assert "AWSPREVIOUS" not in labels.get(previous, [])
    assert item["due_at"] > clock.to_iso(clock.now() + timedelta(days=70))


def test_renewal_sweep_emits_shortest_remaining_token_life(
    worker: WorkerHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    worker.time.passed_s += 60 * DAY_S
    capsys.readouterr()
    worker.sweep()
    metrics = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "DaysToDeath" in line]
    assert [round(metric["DaysToDeath"][0]) for metric in metrics] == [30]


def test_renew_tokens_unreadable_message_is_consumed_and_logged(worker: WorkerHarness) -> None:
    assert worker.handle("[]", "{", '{"other": 1}', '"text"') == set()
    assert "renewal_message_unreadable" in worker.log.getvalue()
