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
import responses

from portaria.aws import due_index
from portaria.connections import connection_store, renewal_sweep, vault
from portaria.connections.tokens import usability
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.stored_reasons import ConnectionReason
from tests.fakes.aws import functions
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.moto_cloud import PREFIX, Cloud, cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.connections.tokens import NAME, TOKEN_PATH, Desk
from tests.fakes.virtual_time import DAY_S, VirtualClock

RECONNECT = "https://api.example.com/live/install/kommo/acme/start"


class Office(Desk):
    """A desk with the renewal function."""

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
def office() -> Iterator[Office]:
    time = VirtualClock()
    with (
        cloud() as stack,
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        time.installed(),
    ):
        yield Office(stack, mock, time)


def test_renewal_sweep_renews_connection_near_end_of_token_life(office: Office) -> None:
    office.time.passed_s += DAY_S * 0.79
    assert office.round() == []
    office.time.passed_s += DAY_S * 0.12
    assert office.round() == [NAME]
    assert office.item["generation"] == 2
    assert office.kommo.refreshes == {"canary-refresh-one": 1}
    assert office.round() == [], "it is due again a day later"


def test_renewal_at_spreads_connections_created_together(office: Office) -> None:
    moments = [
        connection_store.renewal_at(replace(office.connection, name=f"kommo-acme-{number}")) for number in range(500)
    ]
    hours = [(moment - clock.now()) / timedelta(hours=1) for moment in moments]
    assert 19.1 < min(hours) < 19.4
    assert 21.3 < max(hours) < 21.7
    assert sum(20 < each < 21 for each in hours) in range(150, 270)


def test_renew_tokens_sample_events_are_processed(office: Office) -> None:
    office.time.passed_s += DAY_S
    sweep = functions.sample("renew_tokens", "sweep")["Records"][0]["body"]
    assert office.handle(sweep) == set()
    assert [json.loads(body) for body in office.stack.receive("renewals")] == [{"connection": NAME}]
    one = functions.sample("renew_tokens", "one_connection")["Records"][0]["body"]
    assert office.handle(one) == set(), "a connection that is not there is nothing to do"


def test_renewal_sweep_queues_all_pages_once_until_visit_is_overdue(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_index, "PAGE_SIZE", 10)
    for number in range(1, 26):
        due = replace(office.connection, name=f"kommo-acme-{number}")
        office.table.put({**connection_store.to_item(due), "due_at": clock.to_iso(clock.now())})
    names = office.sweep()
    assert len(names) == len(set(names)) == 25
    assert office.sweep() == [], "each is left to its visit for a while"
    office.time.passed_s += renewal_sweep.VISIT_AGAIN.total_seconds() + 1
    assert len(office.sweep()) == 25, "and found again where the visit never came"


def test_renew_tokens_duplicate_delivery_refreshes_once(office: Office) -> None:
    office.time.passed_s += DAY_S
    assert [office.visit() for _ in range(3)] == [set()] * 3
    assert office.kommo.refreshes == {"canary-refresh-one": 1}


def test_renew_tokens_failed_visit_is_retried(office: Office) -> None:
    office.time.passed_s += DAY_S
    office.kommo.before[TOKEN_PATH] = [(500, {}, "")]
    body = json.dumps({"connection": NAME})
    assert office.handle(body) == {body}
    office.time.passed_s += 60
    assert office.handle(body) == set()
    assert office.item["generation"] == 2


def test_renew_tokens_revoked_grant_is_announced_once_and_not_retried(office: Office) -> None:
    office.time.passed_s += DAY_S
    office.kommo.revoked.add("acme")
    assert office.round() == [NAME]
    assert office.round() == [NAME], "the visit that tells the bus"
    assert office.told() == [
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
    office.time.passed_s += 100 * DAY_S
    assert office.round() == []
    assert len(office.kommo.calls) == 1


def test_renew_tokens_event_bus_failure_announces_later(office: Office) -> None:
    usability.end(office.table, office.connection, ConnectionReason.GRANT_REVOKED)
    with refusing("PutEvents"):
        assert office.visit() != set()
    assert "announce" in office.item
    office.visit()
    assert [detail["reason"] for detail in office.told("connection.needs_reconnect")] == ["grant_revoked"]
    assert not {"announce", "due_at", "due_pk"} & office.item.keys()


def test_renew_tokens_recovered_connection_is_announced_and_stays_due(office: Office) -> None:
    office.table.put(connection_store.to_item(office.connection, announce="connection.recovered"))
    assert office.round() == [NAME]
    assert [detail["connection"] for detail in office.told("connection.recovered")] == [NAME]
    assert "announce" not in office.item
    assert office.item["due_at"] == clock.to_iso(connection_store.renewal_at(connection_store.read(office.item)))


def test_renew_tokens_sealed_pair_is_moved_into_vault(office: Office) -> None:
    office.expire()
    with refusing("PutSecretValue"):
        office.ask()
    assert "sealed" in office.item
    office.visit()
    assert "sealed" not in office.item
    assert office.stored()["access_token"].reveal() == "canary-access-one+"


def test_renew_tokens_wrong_client_is_logged_and_not_retried_at_once(office: Office) -> None:
    office.time.passed_s += DAY_S
    office.vault.replace(office.vault.client_secret_id("kommo", "acme"), {"client_secret": Secret("canary-wrong")})
    office.mock.add("GET", "https://api-c.kommo.com/oauth2/account/current/subdomain", status=401)
    assert office.round() == [NAME]
    assert "wrong_client" in office.log.getvalue()
    assert office.round() == []
    assert len(office.kommo.calls) == 1


def static(office: Office, age_days: float, **more: Any) -> Connection:
    secret_id = f"{PREFIX}/grants/ghl"
    office.vault.create(secret_id, {"token": Secret("canary-old")}, vault.version_id(secret_id, 0))
    office.vault.add(secret_id, vault.version_id(secret_id, 2), {"token": Secret("canary-new")})
    made = Connection(
        "ghl", "leadconnector", "bearer", "services.leadconnectorhq.com", "connected", 2, secret_id,
        vault.version_id(secret_id, 2), granted_at=clock.to_iso(clock.now() - timedelta(days=age_days)),
        updated_at=clock.to_iso(clock.now() - timedelta(days=age_days)), **more,
    )  # fmt: skip
    office.table.put(connection_store.to_item(made))
    return made


def test_renew_tokens_static_token_is_warned_about_at_80_and_90_days(office: Office) -> None:
    static(office, 0)
    ages = []
    for _ in range(100):
        office.time.passed_s += DAY_S
        if "ghl" in office.sweep():
            office.visit("ghl")
        ages += [detail["age_days"] for detail in office.told("connection.rotation_due")]
    assert ages == [80, 90]


def test_renew_tokens_previous_token_is_dropped_when_overlap_ends(office: Office) -> None:
    previous = vault.version_id(f"{PREFIX}/grants/ghl", 0)
    until = clock.to_iso(clock.now() + timedelta(days=7))
    static(office, 0, previous_version_id=previous, previous_until=until)
    office.time.passed_s += 7 * DAY_S - 60
    assert "ghl" not in office.sweep()
    office.time.passed_s += 120
    assert "ghl" in office.sweep()
    office.visit("ghl")
    item = connection_store.get_item(office.table, "ghl")
    assert (item["previous_version_id"], item["previous_until"]) == ("", "")
    labels = boto3.client("secretsmanager").describe_secret(SecretId=item["secret_id"])["VersionIdsToStages"]
    assert "AWSPREVIOUS" not in labels.get(previous, [])
    assert item["due_at"] > clock.to_iso(clock.now() + timedelta(days=70))


def test_renewal_sweep_emits_shortest_remaining_token_life(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    office.time.passed_s += 60 * DAY_S
    capsys.readouterr()
    office.sweep()
    metrics = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "DaysToDeath" in line]
    assert [round(metric["DaysToDeath"][0]) for metric in metrics] == [30]


def test_renew_tokens_unreadable_message_is_consumed_and_logged(office: Office) -> None:
    assert office.handle("[]", "{", '{"other": 1}', '"text"') == set()
    assert "renewal_message_unreadable" in office.log.getvalue()
