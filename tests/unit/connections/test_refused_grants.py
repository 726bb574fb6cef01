"""Refused renewals: which error codes end a grant at once, and what repeated other refusals lead to."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest

from portaria.connections import connection_store, oauth_clients, refused_grants, vault
from portaria.core import clock, event_catalogue
from portaria.core.callbacks import Secret
from portaria.core.errors import AnswerLost, Rejected, Retryable, Unreachable
from portaria.core.http.messages import Response
from portaria.core.stored_reasons import ConnectionReason
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.platforms.oauth2 import CLIENT, NAME, Provider, Shop, json_answer, serving
from tests.fakes.virtual_time import DAY_S, VirtualClock

# The response shapes of seven providers, without the error codes that are known.
SHAPES = {
    "league": (401, {"error": "invalid_request", "error_description": "no longer good", "hint": "withdrawn"}),
    "authlib": (400, {"error": "invalid_request", "error_description": "not one of ours"}),
    "hubspot": (400, {"status": "BAD_REFRESH_TOKEN", "message": "not one of ours"}),
    "fitbit": (400, {"errors": [{"errorType": "invalid_grant", "message": "not one of ours"}], "success": False}),
    "entra": (400, {"error": "interaction_required", "error_codes": [50076]}),
    "cognito": (400, {"__type": "NotAuthorizedException", "message": "ran out"}),
    "spring": (401, {"error": "invalid_token", "error_description": "ran out"}),
}
WITHOUT_KNOWN_WORDS = "authlib"
UNKNOWN = json_answer(400, {"error": "something_new", "error_description": "canary-words"})


class Harness(Shop):
    """A harness with the renewal function. Its sweeps queue the connection when it is due."""

    def __init__(self, stack: Any, provider: Provider, time: VirtualClock) -> None:
        super().__init__(stack, provider)
        self.time = time
        self.function = functions.load("renew_tokens", stack.environment)
        self.log = io.StringIO()
        functions.log_to(self.log)
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def handle(self, body: str) -> None:
        fakes.forget_tokens()
        with patch("portaria.aws.queues.give_back"), patch.object(self.function.rate_limiter, "wait"):
            self.function.handler(functions.sqs_event({"0": body}, "renewals"), functions.Context(600))

    def sweep(self) -> None:
        """The message that a sweep would queue if the connection is due. test_renewals.py tests the queue itself."""
        if self.item.get("due_at", "9") <= clock.to_iso(clock.now()):
            self.handle(json.dumps({"connection": NAME}))

    def days(self, days: float, *, every_hours: float = 24) -> None:
        for _ in range(round(days * 24 / every_hours)):
            self.time.passed_s += every_hours * 3_600
            self.sweep()

    def told(self, kind: str = "") -> list[dict[str, Any]]:
        self.heard += fakes.events(self.stack)
        return [detail for found, detail in self.heard if found == kind or not kind]

    @property
    def state(self) -> tuple[str, str]:
        return self.connection.state, self.connection.reason


@pytest.fixture
def harness() -> Iterator[Harness]:
    time = VirtualClock()
    with (
        time.installed(),
        cloud() as stack,
        serving(Provider(expires_in=DAY_S)) as provider,
    ):
        harness = Harness(stack, provider, time)
        harness.connect(DAY_S)
        yield harness


@pytest.mark.parametrize("shape", SHAPES)
def test_refused_refresh_of_each_provider_form_ends_connection_within_limit(harness: Harness, shape: str) -> None:
    """Given an error code of the provider, then the grant ends: at once if the code is known, otherwise after a period."""
    harness.provider.answers = [json_answer(*SHAPES[shape])]
    harness.days(30)
    assert harness.connection.state == "needs_reconnect"
    [ended] = harness.told(event_catalogue.NEEDS_RECONNECT)
    assert ended["reconnect_url"]
    if shape == WITHOUT_KNOWN_WORDS:
        assert harness.connection.reason == ConnectionReason.REFUSED_TOO_LONG
        assert 7 <= harness.provider.calls["refresh_token"] <= 9
    else:
        assert harness.connection.reason == "grant_revoked"
        assert harness.provider.calls["refresh_token"] == 1
        assert harness.told(event_catalogue.REFRESH_REFUSED) == []


def test_refused_refreshes_warn_daily_and_end_connection_after_limit(harness: Harness) -> None:
    harness.provider.answers = [UNKNOWN]
    harness.days(1)
    assert harness.state == ("connected", "")
    assert harness.connection.refused_since
    [first] = harness.told(event_catalogue.REFRESH_REFUSED)
    assert first["connection"] == NAME
    assert first["refused_since"] == harness.connection.refused_since
    assert first["ends_at"] > clock.to_iso(clock.now())
    assert "unknown error" in first["detail"]
    assert "refresh_refused" in harness.log.getvalue()

    harness.days(6)
    assert harness.state == ("connected", "")
    assert 6 <= len(harness.told(event_catalogue.REFRESH_REFUSED)) <= 7, "once a day"
    harness.days(2)
    assert harness.state == ("needs_reconnect", ConnectionReason.REFUSED_TOO_LONG)
    calls = harness.provider.calls["refresh_token"]
    harness.days(10)
    assert harness.provider.calls["refresh_token"] == calls, "an ended connection is left alone"
    assert len(harness.told(event_catalogue.NEEDS_RECONNECT)) == 1
    assert "canary-words" not in json.dumps(harness.told()) + harness.log.getvalue()


@pytest.mark.parametrize(
    "answer",
    [
        json_answer(401, {"error": "invalid_client"}),
        json_answer(403, {"message": "no"}),
        json_answer(404, {}),
        json_answer(422, {"error": {"code": "E_17"}}),
        Response(400, {"content-type": "text/html"}, b"<html>"),
        json_answer(200, {"ok": False}),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:20]!r}",
)
def test_refused_refresh_with_any_answer_ends_connection_after_limit(harness: Harness, answer: Response) -> None:
    harness.provider.answers = [answer]
    harness.days(6)
    assert harness.state == ("connected", "")
    harness.days(3)
    assert harness.state == ("needs_reconnect", ConnectionReason.REFUSED_TOO_LONG)


@pytest.mark.parametrize(
    "answer",
    [
        json_answer(500, {"error": "invalid_grant"}),
        json_answer(503, {}),
        Response(502, {"content-type": "text/html"}, b"<html>"),
        AnswerLost("no answer came"),
        Unreachable("not reached"),
        json_answer(429, {"error": "slow_down"}),
        json_answer(408, {}),
        Response(200, {}, b"{"),
        Response(302, {"location": "/login"}),
    ],
    ids=lambda answer: answer.reason if isinstance(answer, Retryable) else str(answer.status),
)
def test_failed_refresh_of_provider_never_ends_connection(harness: Harness, answer: Response | Retryable) -> None:
    harness.provider.answers = [answer]
    harness.days(60, every_hours=240)
    assert harness.state == ("connected", "")
    assert harness.told() == []
    harness.provider.answers = []
    harness.days(1)
    assert harness.connection.generation > 1


@pytest.mark.parametrize("failure", [json_answer(503, {}), AnswerLost("no answer")])
def test_failed_refresh_restarts_the_run_of_refusals(harness: Harness, failure: Response | Retryable) -> None:
    harness.provider.answers = [UNKNOWN]
    harness.days(7)
    began = harness.connection.refused_since
    harness.provider.answers = [failure]
    harness.days(1)
    assert harness.connection.refused_since == ""
    harness.provider.answers = [UNKNOWN]
    harness.days(6)
    assert harness.state == ("connected", "")
    assert harness.connection.refused_since > began
    harness.days(2)
    assert harness.state == ("needs_reconnect", ConnectionReason.REFUSED_TOO_LONG)


def test_rate_limited_refresh_neither_ends_nor_restarts_the_run_of_refusals(harness: Harness) -> None:
    harness.provider.answers = [UNKNOWN]
    harness.days(2)
    began = harness.connection.refused_since
    harness.provider.answers = [json_answer(429, {})]
    harness.days(8)
    assert (harness.state, harness.connection.refused_since) == (("connected", ""), began)
    harness.provider.answers = [UNKNOWN]
    harness.days(1)
    assert harness.state == ("needs_reconnect", ConnectionReason.REFUSED_TOO_LONG)


def test_refused_refreshes_far_apart_do_not_end_connection(harness: Harness) -> None:
    harness.provider.answers = [UNKNOWN]
    harness.days(1)
    harness.days(10, every_hours=240)
    assert harness.state == ("connected", "")


def test_successful_refresh_ends_the_run_of_refusals(harness: Harness) -> None:
    harness.provider.answers = [UNKNOWN]
    harness.days(5)
    harness.provider.answers = []
    harness.days(1)
    assert harness.connection.refused_since == harness.connection.refusal == ""
    harness.provider.answers = [UNKNOWN]
    harness.days(6)
    assert harness.state == ("connected", "")


def test_refused_refresh_by_caller_is_announced_by_next_sweep(harness: Harness) -> None:
    harness.provider.dead.add("canary-a-0")
    harness.provider.answers = [UNKNOWN]
    with pytest.raises(Rejected):
        harness.call()
    harness.sweep()
    assert len(harness.told(event_catalogue.REFRESH_REFUSED)) == 1
    assert harness.provider.calls["refresh_token"] == 1
    assert harness.item["due_at"] == clock.to_iso(connection_store.renewal_at(harness.connection))


def test_refused_refresh_by_caller_is_raised_and_never_ends_connection(harness: Harness) -> None:
    harness.provider.answers = [UNKNOWN]
    for _ in range(10):
        harness.time.passed_s += DAY_S
        with pytest.raises(Rejected) as refused:
            harness.token()
        assert refused.value.reason == "platform_refused"
    assert harness.state == ("connected", "")


def test_refused_refresh_with_changed_client_id_does_not_end_connection(harness: Harness) -> None:
    """Given tokens of a client id that the OAuth client no longer has, then no grant ends, and restoring the id helps."""
    harness.days(1)
    generation = harness.connection.generation
    assert generation > 1, "what a renewal stores says whom it was given to"
    oauth_clients.put(harness.table, CLIENT._replace(client_id="another"), new=False)
    harness.provider.answers = [json_answer(400, {"error": "invalid_grant"})]
    harness.days(2)
    assert harness.state == ("connected", "")
    assert "another client_id" in harness.connection.refusal
    oauth_clients.put(harness.table, CLIENT, new=False)
    harness.provider.answers = []
    harness.days(1)
    assert harness.connection.generation > generation


def test_refused_refresh_with_newer_stored_pair_uses_that_pair(harness: Harness) -> None:
    harness.provider.answers = [UNKNOWN]
    harness.days(7)
    connection = harness.connection
    pair = harness.vault.read(connection.secret_id, connection.version_id) or {}
    ends = clock.to_iso(clock.now() + timedelta(days=3))
    late = pair | {"access_token": Secret("canary-late"), "expires_at": Secret(ends)}
    version = vault.version_id(connection.secret_id, connection.generation + 1)
    harness.vault.add(connection.secret_id, version, late)
    harness.days(1)
    assert harness.state == ("connected", "")
    assert harness.connection.version_id == version


def test_resume_after_client_correction_reconnects_ended_connections(harness: Harness) -> None:
    harness.provider.answers = [json_answer(401, {"error": "invalid_client"})]
    harness.days(9)
    assert harness.state == ("needs_reconnect", ConnectionReason.REFUSED_TOO_LONG)
    harness.told()
    harness.provider.answers = []
    assert refused_grants.resume(harness.table, "oauth2", "other") == []
    assert refused_grants.resume(harness.table, "oauth2", "shop") == [NAME]
    assert refused_grants.resume(harness.table, "oauth2", "shop") == []
    harness.sweep()
    assert harness.state == ("connected", "")
    assert harness.connection.generation == 2
    harness.sweep()
    assert [detail["connection"] for detail in harness.told(event_catalogue.RECOVERED)] == [NAME]


def test_resume_still_refused_ends_connection_again(harness: Harness) -> None:
    harness.provider.answers = [UNKNOWN]
    harness.days(9)
    refused_grants.resume(harness.table, "oauth2", "shop")
    harness.days(6)
    assert harness.state == ("connected", "")
    harness.days(3)
    assert harness.state == ("needs_reconnect", ConnectionReason.REFUSED_TOO_LONG)
    assert harness.told(event_catalogue.RECOVERED) == []
    assert len(harness.told(event_catalogue.NEEDS_RECONNECT)) == 2


def test_resume_leaves_connections_ended_for_other_reasons(harness: Harness) -> None:
    harness.provider.answers = [json_answer(400, {"error": "invalid_grant"})]
    harness.days(1)
    assert harness.state == ("needs_reconnect", "grant_revoked")
    assert refused_grants.resume(harness.table, "oauth2", "shop") == []
