"""Registering identifiers at Engage: the outcome of each user, independent of the others and of Engage's failures."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
import trustme

from portaria.actions import identifiers
from portaria.api.resources.actions import identifiers as api
from portaria.api.validation import parse
from portaria.connections import connection_store
from portaria.connections.tokens.provider import TokenProvider
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client, http_exchange
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.connections.connected import supply, to_engage, to_leadconnector
from tests.fakes.internet import ADDRESS, Server, answering, internet, redirect
from tests.fakes.platforms.engage import LOG_IN, Engage, refusal

NAME = "engage-one"
LOST = requests.ReadTimeout("canary")
UNREACHABLE = requests.ConnectTimeout("canary")


@pytest.fixture
def stack(stack: Cloud) -> Cloud:
    to_engage(stack)
    return stack


@pytest.fixture
def engage(stack: Cloud) -> Iterator[Engage]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        engage = Engage(mock)
        engage.registered.clear()
        yield engage


def users(count: int, *, bad: tuple[int, ...] = ()) -> list[dict[str, str]]:
    return [
        {"user_login": "nobody" if number in bad else "maria", "identifier": f"u-{number}"} for number in range(count)
    ]


def register(
    stack: Cloud, given: list[dict[str, str]], name: str = NAME, supply_: TokenProvider | None = None
) -> dict[str, Any]:
    sent = parse(api.IdentifierRegistration, {"users": given})
    answer = api.register(stack.table, supply_ or supply(stack), Vault(PREFIX), name, sent)
    assert api.RegisteredIdentifiers.model_validate(answer).model_dump() == answer
    assert "canary" not in repr(answer)
    assert [(each["user_login"], each["identifier"]) for each in answer["users"]] == [
        (each["user_login"], each["identifier"]) for each in given
    ]
    return answer


def outcomes(answer: dict[str, Any]) -> list[str]:
    return [each["outcome"] for each in answer["users"]]


def sizes(engage: Engage) -> list[int]:
    return [len(json.loads(request.body or b"")) for request in engage.requests]


def refused_whole(stack: Cloud, given: list[dict[str, str]], **more: Any) -> Rejected | Retryable:
    with pytest.raises((Rejected, Retryable)) as error:
        register(stack, given, **more)
    assert "canary" not in str(error.value)
    assert "https" not in str(error.value)
    value = error.value
    assert isinstance(value, Rejected | Retryable)
    return value


# --------------------------------------------------------------------------------------------------------------- normal use


def test_register_identifiers_all_are_registered_in_requests_of_100(stack: Cloud, engage: Engage) -> None:
    answer = register(stack, users(250))
    assert set(outcomes(answer)) == {"registered"}
    assert answer["retry_after_s"] is None
    assert sizes(engage) == [100, 100, 50]
    assert len(engage.hosts) == 1
    assert len(engage.registered) == 250


def test_register_identifiers_repeated_are_registered_again(stack: Cloud, engage: Engage) -> None:
    assert outcomes(register(stack, users(2))) == outcomes(register(stack, users(2))) == ["registered"] * 2


@pytest.mark.parametrize("bad", [0, 1, 49, 50, 98, 99])
def test_register_identifiers_one_refused_user_is_isolated(stack: Cloud, engage: Engage, bad: int) -> None:
    answer = register(stack, users(100, bad=(bad,)))
    assert [number for number, outcome in enumerate(outcomes(answer)) if outcome != "registered"] == [bad]
    assert (answer["users"][bad]["outcome"], answer["users"][bad]["reason"]) == ("refused", "user_refused")
    assert "no such login" in answer["users"][bad]["detail"]
    # Two requests for each halving of a hundred, and the first.
    assert len(engage.requests) <= 15


def test_register_identifiers_refused_user_in_every_request_is_isolated(stack: Cloud, engage: Engage) -> None:
    bad = (3, 250, 499)
    answer = register(stack, users(500, bad=bad))
    assert [number for number, outcome in enumerate(outcomes(answer)) if outcome == "refused"] == list(bad)
    assert outcomes(answer).count("registered") == 497
    assert len(engage.requests) <= identifiers.MAX_REQUESTS


def test_register_identifiers_taken_identifier_is_refused(stack: Cloud, engage: Engage) -> None:
    engage.registered["u-1"] = "joão"
    answer = register(stack, users(3))
    assert outcomes(answer) == ["registered", "refused", "registered"]
    assert answer["users"][1]["reason"] == "identifier_taken"


def test_register_identifiers_all_refused_stops_at_request_limit(stack: Cloud, engage: Engage) -> None:
    """Users whose outcome cannot be known have no outcome."""
    answer = register(stack, users(500, bad=tuple(range(500))))
    assert len(engage.requests) == identifiers.MAX_REQUESTS
    assert set(outcomes(answer)) == {"unknown"}
    assert {each["reason"] for each in answer["users"]} == {"not_isolated"}
    one = register(stack, users(1, bad=(0,)))
    assert outcomes(one) == ["refused"]


# ------------------------------------------------------------------------------------------------------------------ tokens


def test_register_identifiers_expired_session_logs_in_again(stack: Cloud, engage: Engage) -> None:
    """Given a cached token that Engage answers with 401, although its 25 minutes are not over."""
    kept = supply(stack)
    register(stack, users(1), supply_=kept)
    engage.hosts.append("the token in use is no longer the last one")
    answer = register(stack, users(150), supply_=kept)
    assert set(outcomes(answer)) == {"registered"}
    assert sizes(engage) == [1, 100, 100, 50]
    assert engage.hosts.count("sandbox.engage.bz") == 2


def test_register_identifiers_session_is_renewed_before_25_minutes(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = supply(stack)
    register(stack, users(1), supply_=kept)
    now = clock.now()
    for minutes, log_ins in ((23, 1), (24.5, 2)):
        monkeypatch.setattr(clock, "now", lambda minutes=minutes: now + timedelta(minutes=minutes))
        register(stack, users(1), supply_=kept)
        assert len(engage.hosts) == log_ins
    # No request was ever answered with 401.
    assert len(engage.requests) == 3


def test_register_identifiers_401_after_new_login_is_not_permitted(stack: Cloud, engage: Engage) -> None:
    engage.before = [refusal(401, "access_denied", "canary")] * 2
    error = refused_whole(stack, users(150))
    assert (error.reason, len(engage.requests)) == ("not_permitted", 2)
    assert "UserManagement" in error.detail
    # The log-in works, so the connection stays.
    assert connection_store.get(stack.table, NAME).state == "connected"


def test_register_identifiers_wrong_customer_token_is_not_permitted(stack: Cloud, engage: Engage) -> None:
    to_engage(stack, "engage-wrong", customer_token="canary-another")
    error = refused_whole(stack, users(2), name="engage-wrong")
    assert (error.reason, len(engage.requests)) == ("not_permitted", 1)


def test_register_identifiers_refused_login_is_bad_credentials(stack: Cloud, engage: Engage) -> None:
    to_engage(stack, "engage-wrong", password="canary-another")
    assert refused_whole(stack, users(2), name="engage-wrong").reason == "bad_credentials"
    assert engage.requests == []


# ---------------------------------------------------------------------------------------------------------------- failures


def test_register_identifiers_lost_answer_is_unknown_and_rest_is_sent(stack: Cloud, engage: Engage) -> None:
    engage.before = [None, LOST, None]
    answer = register(stack, users(250))
    assert outcomes(answer) == ["registered"] * 100 + ["unknown"] * 100 + ["registered"] * 50
    lost = answer["users"][150]
    assert lost["reason"] == "no_answer"
    assert "send it again" in lost["detail"]


def test_register_identifiers_server_error_is_unknown_and_rest_is_sent(stack: Cloud, engage: Engage) -> None:
    engage.before = [refusal(500, "server_error", "canary")]
    assert outcomes(register(stack, users(101))) == ["unknown"] * 100 + ["registered"]


def test_register_identifiers_lost_answer_to_only_request_is_unknown(stack: Cloud, engage: Engage) -> None:
    engage.before = [LOST]
    assert outcomes(register(stack, users(2))) == ["unknown", "unknown"]


def test_register_identifiers_rate_limited_midway_leaves_rest_not_sent(stack: Cloud, engage: Engage) -> None:
    engage.before = [None, (429, {"Retry-After": "33"}, "")]
    answer = register(stack, users(250))
    assert outcomes(answer) == ["registered"] * 100 + ["not_sent"] * 150
    assert (answer["users"][249]["reason"], answer["retry_after_s"]) == ("rate_limited", 33.0)
    assert len(engage.requests) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [((429, {"Retry-After": "33"}, ""), "rate_limited"), (UNREACHABLE, "unreachable"), ((302, {}, ""), "no_verdict")],
)
def test_register_identifiers_first_request_fails_is_retryable(
    stack: Cloud, engage: Engage, answer: Any, reason: str
) -> None:
    engage.before = [answer]
    error = refused_whole(stack, users(150))
    assert isinstance(error, Retryable)
    assert (error.reason, error.answer_lost) == (reason, False)
    assert error.after_s == (33.0 if reason == "rate_limited" else None)


def test_register_identifiers_unreachable_midway_leaves_rest_not_sent(stack: Cloud, engage: Engage) -> None:
    engage.before = [None, UNREACHABLE]
    answer = register(stack, users(150))
    assert outcomes(answer) == ["registered"] * 100 + ["not_sent"] * 50
    assert "was not processed" in answer["users"][149]["detail"]


def test_register_identifiers_forbidden_midway_leaves_rest_not_sent(stack: Cloud, engage: Engage) -> None:
    engage.before = [None, refusal(403, "access_denied")]
    answer = register(stack, users(150))
    assert outcomes(answer) == ["registered"] * 100 + ["not_sent"] * 50
    assert answer["users"][149]["reason"] == "not_permitted"


def test_register_identifiers_rate_limited_during_isolation_is_unknown(stack: Cloud, engage: Engage) -> None:
    """It is not documented whether a refused request registered some of its users, so their outcome is unknown."""
    engage.before = [None, None, None, (429, {}, "")]
    answer = register(stack, users(150, bad=(0,)))
    assert outcomes(answer) == ["unknown"] * 50 + ["unknown"] * 50 + ["registered"] * 50
    assert {each["reason"] for each in answer["users"][:100]} == {"not_isolated"}


def test_register_identifiers_lost_login_answer_is_not_answer_lost(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engage, "_authenticate", raising(LOST))
    with responses.RequestsMock() as mock:
        mock.add_callback("POST", "https://sandbox.engage.bz/api/v1/auth", raising(LOST))
        error = refused_whole(stack, users(2))
    assert isinstance(error, Retryable)
    assert (error.reason, error.answer_lost) == ("no_answer", False)


def raising(error: Exception) -> Callable[[Any], Any]:
    def fail(_: Any) -> Any:
        raise error

    return fail


def test_register_identifiers_slow_requests_stop_after_twenty_seconds(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given requests that take eight seconds each."""
    now, waited = clock.now, timedelta(0)
    allowed: list[float] = []
    send = http_client.send

    def slow(request: Request, **named: Any) -> Response:
        nonlocal waited
        if "identifiers" in request.url:
            allowed.append(request.total_timeout_s or 0)
            waited += timedelta(seconds=8)
        return send(request, **named)

    monkeypatch.setattr(http_client, "send", slow)
    monkeypatch.setattr(clock, "now", lambda: now() + waited)
    answer = register(stack, users(450))
    assert outcomes(answer) == ["registered"] * 300 + ["not_sent"] * 150
    assert answer["users"][449]["reason"] == "out_of_time"
    first, second, third = allowed
    assert first == 13
    assert 11 < second <= 12
    assert 3 < third <= 4


# --------------------------------------------------------------------------------------------------------- privacy of the URL


def test_request_repr_holds_no_url() -> None:
    assert "canary" not in repr(Request("POST", "https://my.engage.bz/api/v1/x?customerToken=canary"))


@pytest.mark.enable_socket
def test_register_identifiers_logs_and_errors_hold_no_url(
    stack: Cloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Given real connections, full logging, and responses that are truncated or redirect."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    token = json.dumps({"access_token": "canary-token", "expires_in": 1499})
    server = Server(authority, "sandbox.engage.bz")
    server.scripts = [
        answering(f"HTTP/1.1 200 OK\r\nContent-Length: {len(token)}\r\n\r\n{token}".encode()),
        answering(b"HTTP/1.1 204 No Content\r\n\r\n"),
        answering(b"HTTP/1.1 200 O"),
        answering(b"nonsense\r\n\r\n"),
        answering(redirect(302, "https://evil.example/")),
    ]
    # At DEBUG botocore logs all of AWS's responses, secrets included; the other logger is the fake AWS's.
    caplog.set_level(logging.INFO, logger="botocore")
    caplog.set_level(logging.WARNING, logger="responses")
    with internet() as outside, caplog.at_level(logging.DEBUG):
        outside.names, outside.routes = {"sandbox.engage.bz": [ADDRESS]}, {ADDRESS: server.port}
        answer = register(stack, users(400))
        http_exchange.transport.close()
    server.close()
    assert outcomes(answer) == ["registered"] * 100 + ["unknown"] * 200 + ["not_sent"] * 100
    assert all(b"customerToken=canary" in request for request in server.requests[1:])
    told = caplog.text + repr([vars(record) for record in caplog.records])
    assert "customerToken" not in told
    assert "canary" not in told


# -------------------------------------------------------------------------------------------------------- input and platforms


def test_register_identifiers_platform_without_identifiers_is_not_offered(stack: Cloud, engage: Engage) -> None:
    to_leadconnector(stack)
    error = refused_whole(stack, users(1), name="marketek")
    assert (error.reason, getattr(error, "status", 0)) == ("not_offered", 409)
    assert refused_whole(stack, users(1), name="nobody").reason == "unknown_connection"


def test_register_identifiers_without_customer_token_is_refused(stack: Cloud, engage: Engage) -> None:
    to_engage(stack, "engage-old", customer_token="")
    error = refused_whole(stack, users(1), name="engage-old")
    assert error.reason == "no_credentials"
    assert "customer_token" in error.detail


def test_register_identifiers_duplicate_identifier_is_refused_without_request(stack: Cloud, engage: Engage) -> None:
    given = [*users(3), {"user_login": "joão", "identifier": "u-1"}]
    with pytest.raises(Rejected) as error:
        register(stack, given)
    assert (error.value.field, error.value.status) == ("users.3.identifier", 400)
    assert "users.1.identifier" in error.value.detail
    assert engage.requests == []


def test_register_identifiers_many_errors_are_limited_to_twenty(stack: Cloud, engage: Engage) -> None:
    with pytest.raises(Rejected) as error:
        register(stack, users(1) * 100)
    assert len(error.value.errors) == 20  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({}, "users"),
        ({"users": []}, "users"),
        ({"users": users(501)}, "users"),
        ({"users": ["maria"]}, "users.0"),
        ({"users": [{"user_login": "maria"}]}, "users.0.identifier"),
        ({"users": [{"user_login": "", "identifier": "u"}]}, "users.0.user_login"),
        ({"users": [{"user_login": "maria", "identifier": "u" * 256}]}, "users.0.identifier"),
        ({"users": [{"user_login": "maria", "identifier": "a\x00"}]}, "users.0.identifier"),
        ({"users": [{"user_login": "maria", "identifier": "u", "client_id": "x"}]}, "users.0.client_id"),
    ],
    ids=repr,
)  # fmt: skip
def test_register_identifiers_invalid_body_is_refused_by_field(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(Rejected) as error:
        parse(api.IdentifierRegistration, sent)
    assert error.value.field == field


def test_register_identifiers_unicode_names_are_sent_unchanged(stack: Cloud, engage: Engage) -> None:
    engage.people.add('josé "o" + 東京')
    given = [{"user_login": 'josé "o" + 東京', "identifier": "é/&=東"}]
    assert outcomes(register(stack, given)) == ["registered"]
    assert engage.registered == {"é/&=東": 'josé "o" + 東京'}
    assert LOG_IN["customer_token"] not in str(engage.requests[0].body)
