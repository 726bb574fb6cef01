"""Testing a connection: the platform's response, and the connection's state afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
import responses

from portaria.connections import connection_store
from tests.fakes.api.calling import Calling
from tests.fakes.api.manage import Answer, proxy_event, read
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import cloud
from tests.fakes.platforms.leadconnector import LOCATION

LEADCONNECTOR = "services.leadconnectorhq.com"
URL = f"https://{LEADCONNECTOR}/locations/{LOCATION}"


@pytest.fixture
def calling() -> Iterator[Calling]:
    with cloud() as stack:
        calling = Calling(stack)
        given = {"platform": "leadconnector", "allowed_domain": LEADCONNECTOR, "fields": {"location_id": LOCATION}}
        calling.connect("lead", "bearer", **given)
        calling.connect("ended", "bearer", **given, state="needs_reconnect", reason="token_refused")
        calling.connect("erp")
        calling.connect("people", "password", platform="engage")
        yield calling


@pytest.fixture
def api() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def run_test(calling: Calling, name: str) -> Answer:
    event = proxy_event("POST", f"/connections/{name}/test")
    answer = read(event, calling.module.handler(event, functions.Context()))
    assert "canary" not in answer.text + calling.log.getvalue()
    return answer


def test_connection_test_whose_credential_works(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(URL, json={"location": {"id": LOCATION}})
    shown = run_test(calling, "lead")
    assert shown.content == {"state": "works", "detail": None, "connection_state": "connected"}
    assert api.calls[0].request.headers["Authorization"] == "Bearer canary-token"


def test_connection_test_invalid_credential_ends_the_connection(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(URL, status=401, json={"statusCode": 401, "message": "Invalid Private Integration token"})
    shown = run_test(calling, "lead").content
    assert (shown["state"], shown["connection_state"]) == ("refused", "needs_reconnect")
    assert shown["detail"]
    assert connection_store.get(calling.cloud.table, "lead").state == "needs_reconnect"


def test_connection_test_unclear_response_changes_nothing(calling: Calling, api: responses.RequestsMock) -> None:
    api.get(URL, status=500)
    shown = run_test(calling, "lead").content
    assert (shown["state"], shown["connection_state"]) == ("unclear", "connected")


@pytest.mark.parametrize(
    ("name", "platform", "instead"),
    [("erp", "http", "a call that you know"), ("people", "engage", "the connection's state shows it")],
)
def test_connection_test_platform_without_a_harmless_request_is_409_that_says_what_to_do_instead(
    calling: Calling, api: responses.RequestsMock, name: str, platform: str, instead: str
) -> None:
    answer = run_test(calling, name)
    assert (answer.status, answer.content["type"]) == (409, "urn:portaria:problem:not_offered")
    assert answer.content["detail"].startswith(f"{platform} has no request")
    assert instead in answer.content["detail"]
    assert len(api.calls) == 0


def test_connection_test_of_an_ended_connection_is_409_with_advice(
    calling: Calling, api: responses.RequestsMock
) -> None:
    answer = run_test(calling, "ended")
    assert answer.status == 409
    assert "PUT /connections/ended/credentials" in answer.content["detail"]
    assert len(api.calls) == 0


@pytest.mark.parametrize(
    ("error", "status"), [(requests.exceptions.ConnectTimeout(), 502), (requests.exceptions.ReadTimeout(), 504)]
)
def test_connection_test_without_a_response_is_an_error(
    calling: Calling, api: responses.RequestsMock, error: Exception, status: int
) -> None:
    api.get(URL, body=error)
    assert run_test(calling, "lead").status == status


def test_connection_test_unknown_connection_is_404(calling: Calling) -> None:
    assert run_test(calling, "none").status == 404
