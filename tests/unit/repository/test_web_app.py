"""`examples/web_app`: it accepts Portaria's signed webhooks once and nothing else, and shows no secret."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import responses
from flask.testing import FlaskClient

from examples.web_app import app as web_app
from portaria.core.callbacks import Secret
from portaria.notifications import signatures
from tests.fakes.package_locks import pins
from tests.fakes.paths import ROOT

SECRET = signatures.new_secret()
TOKEN = "canary-of-the-integration"
EVENT = {
    "type": "connection.ready",
    "timestamp": "2026-11-28T12:00:00.000000Z",
    "data": {"version": 1, "connection": "kommo-acme-1", "tags": {"customer_id": "c-1001"}},
}
BODY = json.dumps(EVENT).encode()
API = "https://api.example.com/live"
# The application uses `requests` itself, not the transport of the product.
REQUESTS = "requests.adapters.HTTPAdapter.send"


@pytest.fixture
def client() -> FlaskClient:
    environment = {
        "PORTARIA_URL": API,
        "PORTARIA_TOKEN": TOKEN,
        "PORTARIA_CLIENT": "kommo/acme",
        "PORTARIA_WEBHOOK_SECRET": SECRET.reveal(),
        "APP_URL": "http://localhost:8321",
    }
    return web_app.create_app(environment).test_client()


@pytest.fixture
def api() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False, target=REQUESTS) as mock:
        mock.get(f"{API}/v1/connections", json={"items": []})
        yield mock


def signed(body: bytes = BODY, *, key: Secret = SECRET, webhook_id: str = "msg_1", age_s: int = 0) -> dict[str, str]:
    return signatures.headers([key], webhook_id, int(time.time()) - age_s, body)


def received(client: FlaskClient) -> list[Any]:
    events: web_app.Events = client.application.config["EVENTS"]
    return list(events.newest())


def test_webhook_signed_is_kept_once(client: FlaskClient) -> None:
    for _ in range(2):
        assert client.post("/webhooks", data=BODY, headers=signed()).status_code == 204
    assert received(client) == [("msg_1", EVENT)]
    assert client.post("/webhooks", data=BODY, headers=signed(webhook_id="msg_2")).status_code == 204
    assert [webhook_id for webhook_id, _ in received(client)] == ["msg_2", "msg_1"]


def test_webhook_signed_with_two_secrets_during_a_rotation_is_kept(client: FlaskClient) -> None:
    headers = signatures.headers([signatures.new_secret(), SECRET], "msg_1", int(time.time()), BODY)
    assert client.post("/webhooks", data=BODY, headers=headers).status_code == 204


def now() -> dict[str, str]:
    return {"webhook-timestamp": str(int(time.time()))}


# Each makes its headers when the test runs, because they hold the time.
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(BODY, dict, id="unsigned"),
        pytest.param(BODY, lambda: signed(key=signatures.new_secret()), id="another secret"),
        pytest.param(BODY.replace(b"c-1001", b"c-1002"), signed, id="another body"),
        pytest.param(BODY, lambda: signed() | {"webhook-id": "msg_2"}, id="replayed under another id"),
        pytest.param(BODY, lambda: signed(age_s=6 * 60), id="old"),
        pytest.param(BODY, lambda: signed(age_s=-6 * 60), id="from the future"),
        pytest.param(BODY, lambda: signed(age_s=3_600) | now(), id="old, with a new time"),
        pytest.param(BODY, lambda: signed() | {"webhook-timestamp": "now"}, id="no time"),
        pytest.param(BODY, lambda: signed() | {"webhook-timestamp": "9" * 40}, id="a time that does not exist"),
        pytest.param(BODY, lambda: signed() | {"webhook-signature": "v1"}, id="signature without a comma"),
        pytest.param(BODY, lambda: signed() | {"webhook-signature": "v1,*"}, id="signature that is not base64"),
        pytest.param(b"\xff", lambda: signed(b"\xff"), id="not UTF-8"),
        pytest.param(b"{", lambda: signed(b"{"), id="signed, but not JSON"),
    ],
)
def test_webhook_not_verified_is_refused(
    client: FlaskClient, body: bytes, headers: Callable[[], dict[str, str]]
) -> None:
    assert client.post("/webhooks", data=body, headers=headers()).status_code == 401
    assert received(client) == []


def test_webhook_too_large_is_refused(client: FlaskClient) -> None:
    body = b" " * (web_app.MAX_BODY_BYTES + 1)
    assert client.post("/webhooks", data=body, headers=signed(body)).status_code == 413


def test_connect_creates_a_tagged_link_and_repeats_a_lost_answer_with_its_key(
    client: FlaskClient, api: responses.RequestsMock
) -> None:
    api.post(f"{API}/v1/install-links", body=requests.ConnectionError())
    link = api.post(f"{API}/v1/install-links", status=201, json={"url": "https://api.example.com/start?link=x"})
    answer = client.post("/customers/c-1001/connect")
    assert (answer.status_code, answer.location) == (303, "https://api.example.com/start?link=x")
    first, second = (call.request for call in api.calls)
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert json.loads(link.calls[0].request.body or b"") == {
        "platform": "kommo",
        "client": "acme",
        "tags": {"customer_id": "c-1001"},
        "return_url": "http://localhost:8321/connected",
    }


def test_connect_of_another_connection_or_unknown_customer_is_not_found(
    client: FlaskClient, api: responses.RequestsMock
) -> None:
    assert client.post("/customers/c-1001/connect", data={"connection": "kommo-acme-9"}).status_code == 404
    assert client.post("/customers/c-9999/connect").status_code == 404
    assert client.get("/customers/c-9999/contacts").status_code == 404


@pytest.mark.parametrize("query", ["", "status=connected", "install=../connections&status=connected", "install=a%2Fb"])
def test_return_without_an_install_says_nothing_happened(
    client: FlaskClient, api: responses.RequestsMock, query: str
) -> None:
    page = client.get(f"/connected?{query}").text
    assert "belongs to no install" in page
    assert "is connected" not in page


@pytest.mark.parametrize(
    ("install", "text"),
    [
        ({"state": "connected", "account_host": "padaria.kommo.com"}, "is connected as padaria.kommo.com"),
        ({"state": "failed", "detail": None, "reason": "code_expired"}, "could not be connected: code_expired"),
        ({"state": "exchanging"}, "is being connected"),
    ],
)
def test_return_shows_what_portaria_knows_whatever_the_query_says(
    client: FlaskClient, api: responses.RequestsMock, install: dict[str, Any], text: str
) -> None:
    api.get(f"{API}/v1/installs/abc", json={**install, "tags": {"customer_id": "c-1001"}})
    assert text in client.get("/connected?install=abc&status=connected").text


def test_requirements_are_the_versions_of_the_development_pins() -> None:
    developed_with = set(pins(ROOT / "requirements" / "dev.txt"))
    lines = (ROOT / "examples" / "web_app" / "requirements.txt").read_text().splitlines()
    needed = {tuple(line.split("==")) for line in lines if line and not line.startswith("#")}
    assert len(needed) == 3
    assert needed <= developed_with


def test_page_shows_problem_and_no_secret(client: FlaskClient) -> None:
    with responses.RequestsMock(target=REQUESTS) as api:
        problem = {"type": "urn:portaria:problem:unavailable", "title": "Unavailable", "detail": "<b>Later</b>"}
        api.get(f"{API}/v1/connections", status=503, json=problem)
        page = client.get("/").text
    assert "&lt;b&gt;Later" in page
    assert TOKEN not in page
    assert SECRET.reveal() not in page
