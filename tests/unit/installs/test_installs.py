"""From a code to a connection, at the edges: messages in, HTTP and AWS out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import boto3
import pytest
import requests
import responses

from portaria.aws.table import Conflict
from portaria.connections import oauth_clients, webhook_endpoints
from portaria.connections.vault import Vault
from portaria.core.callbacks import Secret
from portaria.core.errors import Retryable
from portaria.installs import code_exchange
from portaria.installs.exchange_outcomes import ExchangeOutcome
from portaria.installs.grant_exchange import TIME_TO_EXCHANGE_S
from portaria.installs.install_lease import LEASE_S, InstallLease
from portaria.installs.install_messages import read_message
from portaria.webhooks import event_receiver
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.moto_cloud import PREFIX, Cloud, cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.platforms import kommo as kommo_fake
from tests.fakes.platforms.kommo import Kommo
from tests.fakes.virtual_time import VirtualClock

TOKEN, ACCOUNT, WEBHOOKS = "/oauth2/access_token", "/api/v4/account", "/api/v4/webhooks"
NGINX = (403, {"Content-Type": "text/html"}, "<html><head><title>403 Forbidden</title></head></html>")


class Harness:
    """One stack and its install worker, which processes one code at a time."""

    def __init__(self, stack: Cloud, kommo: Kommo, time: VirtualClock) -> None:
        self.stack, self.kommo, self.time = stack, kommo, time

    def code(self, code: str, subdomain: str = "acme") -> str:
        self.kommo.codes[code] = subdomain
        return fakes.message(code, subdomain)

    def turn(self, body: str, time_left_s: float = 40.0) -> ExchangeOutcome:
        fakes.forget_tokens()
        return code_exchange.exchange(read_message(body), fakes.settings(self.stack), lambda: time_left_s)

    def wait(self, body: str) -> float:
        """One attempt. Returns the delay in seconds that it asks for, 0 if the install has ended."""
        try:
            self.turn(body)
        except Retryable as later:
            return later.after_s or 0
        return 0

    def item(self, code: str) -> dict[str, Any]:
        return fakes.item(self.stack, code)

    def connection(self, code: str) -> dict[str, Any]:
        return self.stack.table.get(f"CONNECTION#{self.item(code)['connection']}", "CONNECTION") or {}


@pytest.fixture
def harness() -> Iterator[Harness]:
    time = VirtualClock()
    with (
        cloud() as stack,
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        time.installed(),
    ):
        fakes.register(stack)
        yield Harness(stack, Kommo(mock), time)


def test_exchange_code_valid_code_creates_connection(harness: Harness) -> None:
    assert harness.turn(harness.code("code-1")).state == "connected"

    connection = harness.connection("code-1")
    account = kommo_fake.account_id("acme")
    assert connection["name"] == f"kommo-acme-{account}"
    assert (connection["kind"], connection["allowed_domain"], connection["label"]) == (
        "oauth2",
        "acme.kommo.com",
        "Account acme",
    )
    assert (connection["state"], connection["generation"], connection["account_id"]) == ("connected", 1, str(account))
    assert [kind for kind, _ in fakes.events(harness.stack)] == ["connection.ready"]


def test_exchange_code_items_hold_no_code_and_no_token(harness: Harness) -> None:
    harness.turn(harness.code("canary-code"))
    items = json.dumps(boto3.client("dynamodb").scan(TableName=harness.stack.table.name)["Items"], default=str)
    assert "acme.kommo.com" in items
    assert "canary" not in items


def test_exchange_code_duplicate_delivery_is_one_exchange(harness: Harness) -> None:
    body = harness.code("code-1")
    assert [harness.turn(body).state for _ in range(3)] == ["connected"] * 3
    assert harness.kommo.exchanges["code-1"] == 1
    assert len(fakes.events(harness.stack)) == 1


def test_exchange_code_lease_held_by_another_worker_waits_for_its_end(harness: Harness) -> None:
    body = harness.code("code-1")
    with patch.object(code_exchange._Exchange, "run", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        harness.turn(body)  # crashes while it holds the lease

    with pytest.raises(Retryable) as held:
        harness.turn(body)
    assert held.value.reason == "in_progress"
    assert held.value.after_s is not None
    assert 1 <= held.value.after_s <= LEASE_S + 2
    assert not harness.kommo.exchanges

    harness.time.advance(held.value.after_s)
    assert harness.turn(body).state == "connected"


def test_exchange_code_worker_without_lease_writes_nothing(harness: Harness) -> None:
    """Given a worker so slow that another one took the lease, when it continues, then its writes are refused."""
    body = harness.code("code-1")
    stale = InstallLease(harness.stack.table, read_message(body), "portaria/grants/stale")
    stale.claim()
    harness.time.advance(LEASE_S + 1)
    harness.turn(body)
    before = harness.item("code-1")

    with pytest.raises(Conflict):
        stale.update("SET #state = :failed", {":failed": "failed"})
    assert harness.item("code-1") == before


def test_exchange_code_vault_failure_keeps_sealed_grant_and_stores_it_on_retry(harness: Harness) -> None:
    body = harness.code("canary-code")
    with refusing("CreateSecret"), pytest.raises(Retryable, match="vault_unavailable"):
        harness.turn(body)
    sealed = harness.item("canary-code")["sealed_grant"]
    assert "canary" not in sealed

    harness.time.advance(5)
    assert harness.turn(body).state == "connected"
    assert harness.kommo.exchanges["canary-code"] == 1
    credentials = Vault(PREFIX).read(harness.connection("canary-code")["secret_id"])
    assert credentials is not None
    assert credentials["refresh_token"].reveal() == "canary-refresh-canary-code"
    assert "sealed_grant" not in harness.item("canary-code")


def test_exchange_code_key_unavailable_or_short_of_time_sends_no_code(harness: Harness) -> None:
    body = harness.code("code-1")
    with refusing("GenerateDataKey"), pytest.raises(Retryable, match="vault_unavailable"):
        harness.turn(body)
    with pytest.raises(Retryable, match="short_of_time"):
        harness.turn(body, time_left_s=TIME_TO_EXCHANGE_S - 1)
    assert not harness.kommo.calls
    assert harness.turn(body).state == "connected"


def test_exchange_code_server_errors_are_retried_with_growing_waits(harness: Harness) -> None:
    body = harness.code("code-1")
    harness.kommo.before[TOKEN] = [(500, {}, "")] * 5
    waits = []
    while wait_s := harness.wait(body):
        waits.append(wait_s)
        harness.time.advance(wait_s)
    assert len(waits) == 5
    assert waits == sorted(waits)
    assert 2 <= waits[0] <= 2.5
    assert sum(waits) < 120
    assert harness.item("code-1")["state"] == "connected"


def test_exchange_code_waits_end_with_code_lifetime(harness: Harness) -> None:
    body = harness.code("code-1")
    harness.kommo.before[TOKEN] = [(500, {}, "")] * 1000
    ends, last_sent = harness.time.now() + timedelta(minutes=20), None
    while harness.item("code-1").get("state") != "failed":
        sent = len(harness.kommo.calls)
        wait_s = harness.wait(body)
        if len(harness.kommo.calls) > sent:
            last_sent = harness.time.now()
        harness.time.advance(wait_s)
    assert harness.item("code-1")["reason"] == "code_expired"
    assert last_sent is not None
    assert timedelta(0) <= ends - last_sent <= timedelta(seconds=31)
    assert 20 <= len(harness.kommo.calls) <= 60


@pytest.mark.parametrize("path", [TOKEN, ACCOUNT, WEBHOOKS])
def test_exchange_code_html_rate_block_waits_half_a_minute(harness: Harness, path: str) -> None:
    body = harness.code("code-1")
    harness.kommo.before[path] = [NGINX]
    with pytest.raises(Retryable, match="rate_blocked") as later:
        harness.turn(body)
    assert later.value.after_s is not None
    assert 30 <= later.value.after_s <= 38
    assert harness.turn(body).state == "connected"


def test_exchange_code_lost_answer_fails_install_with_reconnect_url(harness: Harness) -> None:
    """Given a platform that accepted the code but whose answer was lost, then the customer is asked to connect again."""
    body = harness.code("code-1")
    harness.kommo.grants["code-1"] = 1
    harness.kommo.before[TOKEN] = [requests.exceptions.ReadTimeout()]
    with pytest.raises(Retryable) as lost:
        harness.turn(body)
    assert lost.value.reason == "no_answer"

    outcome = harness.turn(body)
    assert (outcome.state, outcome.reason) == ("failed", "answer_lost")
    ((kind, detail),) = fakes.events(harness.stack)
    assert (kind, detail["reason"]) == ("install.failed", "answer_lost")
    assert detail["reconnect_url"] == "https://api.example.com/live/install/kommo/acme/start"


def test_exchange_code_timeout_before_code_was_used_is_retried(harness: Harness) -> None:
    body = harness.code("code-1")
    harness.kommo.before[TOKEN] = [requests.exceptions.ReadTimeout(), requests.exceptions.ConnectTimeout()]
    for _ in range(2):
        with pytest.raises(Retryable):
            harness.turn(body)
    assert harness.turn(body).state == "connected"


@pytest.mark.parametrize(
    ("hint", "reason"),
    [
        ("Authorization code has been revoked", "code_used"),
        ("Authorization code has expired", "code_expired"),
        ("Cannot decrypt the authorization code", "bad_code"),
        ("Check the `client_id` parameter", "wrong_client"),
        ("Redirect URI is not associated with client", "wrong_redirect_uri"),
        ("Invalid account", "invalid_account"),
        ("Something that Kommo never said before", "platform_refused"),
    ],
)
def test_exchange_code_final_refusal_fails_install_at_once(harness: Harness, hint: str, reason: str) -> None:
    body = harness.code("code-1")
    harness.kommo.before[TOKEN] = [
        (400, kommo_fake.PROBLEM, json.dumps({"hint": hint, "title": "Ошибка", "status": 400}))
    ]
    assert harness.turn(body).reason == reason
    item = harness.item("code-1")
    assert (item["state"], item["reason"]) == ("failed", reason)
    assert len(item["detail"]) > 20
    assert len(harness.kommo.calls) == 1
    assert harness.turn(body).reason == reason
    assert len(harness.kommo.calls) == 1


def test_exchange_code_expired_is_not_sent(harness: Harness) -> None:
    body = harness.code("code-1")
    harness.time.advance(20 * 60)
    assert harness.turn(body).reason == "code_expired"
    assert not harness.kommo.calls


def test_exchange_code_grant_of_another_account_is_refused_and_deleted(harness: Harness) -> None:
    body = harness.code("code-1", "acme")
    harness.kommo.codes["code-1"] = "elsewhere"
    assert harness.turn(body).reason == "account_mismatch"
    assert "connection" not in harness.item("code-1")
    assert Vault(PREFIX).read(f"{PREFIX}/grants/{read_message(body).id}") is None


def test_exchange_code_reinstall_replaces_grant_under_new_generation(harness: Harness) -> None:
    harness.turn(harness.code("code-1"))
    first = harness.connection("code-1")
    harness.time.advance(3600)
    harness.turn(harness.code("code-2"))
    second = harness.connection("code-2")

    assert second["name"] == first["name"]
    assert second["created_at"] == first["created_at"]
    assert (first["generation"], second["generation"]) == (1, 2)
    vault = Vault(PREFIX)
    assert vault.read(first["secret_id"]) is None
    credentials = vault.read(second["secret_id"])
    assert credentials is not None
    assert credentials["access_token"].reveal() == "canary-access-code-2"
    assert [url.rsplit("/", 1)[1] for url in harness.kommo.webhooks] == [credentials["webhook_key"].reveal()]
    assert [detail["generation"] for _, detail in fakes.events(harness.stack)] == [1, 2]
    # The new event address is open, and the previous one stays open for events in transit.
    address = harness.stack.table.get(event_receiver.partition(second["name"]), event_receiver.SK) or {}
    keys = [event_receiver.read_key(text) for text in address["keys"]]
    assert keys[0] == event_receiver.Key(event_receiver.digest(credentials["webhook_key"].reveal()))
    [previous] = keys[1:]
    assert 3_590 < previous.until - harness.time.now().timestamp() <= 3_600
    assert len(credentials["webhook_key"].reveal()) == 43


def test_exchange_code_older_install_exchanged_later_does_not_replace_newer(harness: Harness) -> None:
    early = harness.code("code-1")
    harness.time.advance(10)
    late = harness.code("code-2")
    assert harness.turn(late).state == "connected"
    assert harness.turn(early).state == "connected"

    assert harness.connection("code-1") == harness.connection("code-2")
    assert harness.connection("code-2")["generation"] == 1
    credentials = Vault(PREFIX).read(harness.connection("code-2")["secret_id"])
    assert credentials is not None
    assert credentials["access_token"].reveal() == "canary-access-code-2"
    assert Vault(PREFIX).read(f"{PREFIX}/grants/{read_message(early).id}") is None


def test_exchange_code_webhook_address_is_stored_before_subscription(harness: Harness) -> None:
    """Given a table that refuses the address, then nothing is subscribed, and the next attempt does both."""
    body = harness.code("code-1")
    with patch.object(webhook_endpoints, "open_address", side_effect=Retryable("x", "y")):
        assert harness.wait(body) > 0
    assert harness.kommo.webhooks == set()
    assert harness.turn(body).state == "connected"
    assert len(harness.kommo.webhooks) == 1


def test_exchange_code_after_endpoint_changed_leaves_one_subscription_at_the_new_endpoint(harness: Harness) -> None:
    """Given an account that was installed at API Gateway, then a reconnection leaves only the function URL."""
    assert harness.turn(harness.code("code-1")).state == "connected"
    (old,) = harness.kommo.webhooks
    url = "https://abc.lambda-url.us-east-1.on.aws"
    with patch.dict(harness.stack.environment, EVENT_ENDPOINTS=f"{url}/,api"):
        harness.time.advance(10)
        assert harness.turn(harness.code("code-2")).state == "connected"
    (new,) = harness.kommo.webhooks
    assert old.startswith("https://api.example.com/live/events/kommo/")
    assert new.startswith(f"{url}/events/kommo/")
    item = harness.stack.table.get(event_receiver.partition(harness.connection("code-2")["name"]), event_receiver.SK)
    assert (item or {})["endpoint"] == url


def test_exchange_code_webhooks_refused_connects_with_note(harness: Harness) -> None:
    body = harness.code("code-1")
    harness.kommo.before[WEBHOOKS] = [(402, kommo_fake.PROBLEM, "{}")]
    assert harness.turn(body).state == "connected"
    assert harness.connection("code-1")["notes"] == [
        "Kommo refused the event webhooks with 402: they need a paid plan and an administrator"
    ]


def test_exchange_code_client_deleted_fails_install(harness: Harness) -> None:
    body = harness.code("code-1")
    oauth_clients.delete(harness.stack.table, "kommo", "acme")
    assert harness.turn(body).reason == "unknown_client"
    assert not harness.kommo.calls


def test_exchange_code_client_secret_is_sent_only_to_token_endpoint(harness: Harness) -> None:
    harness.turn(harness.code("code-1"))
    carrying = [call.url for call in harness.kommo.calls if kommo_fake.CLIENT_SECRET in str(call.body)]
    assert carrying == ["https://acme.kommo.com/oauth2/access_token"]


@pytest.mark.parametrize(
    "host", ["evil.example", "kommo.com.evil.example", "127.0.0.1", "acme.kommo.com:8443", "a@acme.kommo.com"]
)
def test_exchange_code_message_with_foreign_host_sends_nothing(harness: Harness, host: str) -> None:
    """Given a message that did not come from accept_install, then the worker refuses its host as well."""
    body = json.dumps(json.loads(harness.code("code-1")) | {"account_host": host})
    assert harness.turn(body).state == "failed"
    assert not harness.kommo.calls


def test_exchange_code_event_bus_failure_is_retried_without_second_exchange(harness: Harness) -> None:
    body = harness.code("code-1")
    with refusing("PutEvents"), pytest.raises(Retryable, match="bus_unavailable"):
        harness.turn(body)
    assert harness.item("code-1")["state"] == "exchanging"
    assert harness.turn(body).state == "connected"
    assert harness.kommo.exchanges["code-1"] == 1
    assert [kind for kind, _ in fakes.events(harness.stack)] == ["connection.ready"]


def test_read_message_repr_holds_no_secret(harness: Harness) -> None:
    install = read_message(harness.code("canary-code"))
    assert "canary" not in repr(install)
    assert install.code.reveal() == "canary-code"
    assert str(Secret("canary")) == "***"
