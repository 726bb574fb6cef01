"""Uninstalls at the edges: webhook and messages in; platform, vault and event bus out."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace as with_changes
from typing import Any
from unittest.mock import patch

import pytest
import responses

from portaria.aws import queues
from portaria.connections import connection_store, oauth_clients, webhook_endpoints
from portaria.connections.credential_stores import aws_secrets
from portaria.connections.tokens import usability
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.stored_reasons import ConnectionReason
from portaria.installs import disconnect_hooks, uninstall
from portaria.webhooks import event_receiver
from tests.fakes.aws import functions
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.moto_cloud import Cloud, cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.connections.tokens import NAME, Harness
from tests.fakes.platforms import kommo as kommo_fake
from tests.fakes.virtual_time import VirtualClock

WEBHOOK = f"https://api.example.com/live/events/kommo/{NAME}/canary-webhook-key"


class UninstallHarness(Harness):
    def __init__(self, stack: Cloud, mock: responses.RequestsMock, time: VirtualClock) -> None:
        super().__init__(stack, mock, time)
        self.accept_uninstall = functions.load("accept_uninstall", stack.environment)
        self.worker = functions.load("remove_connections", stack.environment)
        self.kommo.webhooks.add(WEBHOOK)

    def hook(self, client: str = "acme", **query: Any) -> dict[str, Any]:
        account_id = query.pop("account_id", "1")
        given = {"client_uuid": kommo_fake.CLIENT_ID, "account_id": account_id, "signature": sign(account_id), **query}
        event = functions.sample("accept_uninstall", "disconnect_hook")
        event["pathParameters"] = {"platform": "kommo", "client": client}
        event["multiValueQueryStringParameters"] = {
            name: value if isinstance(value, list) else [value] for name, value in given.items() if value is not None
        }
        answer: dict[str, Any] = self.accept_uninstall.handler(event, functions.Context(20))
        return answer

    def work(self) -> set[str]:
        """Give the worker all waiting messages. Returns the bodies that it reports as failed."""
        fakes.forget_tokens()
        bodies = {str(number): body for number, body in enumerate(self.stack.receive("uninstalls"))}
        with patch("portaria.aws.queues.give_back"):
            answer = self.worker.handler(functions.sqs_event(bodies, "uninstalls"), functions.Context(600))
        return {bodies[message_id] for message_id in functions.reported(answer)}

    def work_on(self) -> list[float]:
        """Process all messages, delayed ones at once. Returns the delays in seconds."""
        delays, send = [], queues.send

        def send_immediately(queue_url: str, bodies: list[str], *, delay_s: float = 0) -> None:
            delays.append(delay_s)
            send(queue_url, bodies)

        with patch.object(queues, "send", send_immediately):
            assert self.work() == set()
        return delays

    def flag_answer_lost(self) -> None:
        usability.end(self.table, self.connection_now, ConnectionReason.ANSWER_LOST)

    @property
    def connection_now(self) -> Connection:
        return connection_store.get(self.table, NAME)


def sign(account_id: str, secret: str = kommo_fake.CLIENT_SECRET) -> str:
    message = f"{kommo_fake.CLIENT_ID}|{account_id}".encode()
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


@pytest.fixture
def harness() -> Iterator[UninstallHarness]:
    time = VirtualClock()
    with (
        cloud() as stack,
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        time.installed(),
    ):
        yield UninstallHarness(stack, mock, time)


def test_remove_connections_account_without_access_is_removed(harness: UninstallHarness) -> None:
    harness.time.passed_s += 3600
    harness.kommo.revoked.add("acme")
    assert harness.hook()["statusCode"] == 200
    assert harness.work() == set()
    assert (harness.connection_now.state, harness.connection_now.reason) == ("removed", "uninstalled")
    assert harness.vault.read(harness.connection.secret_id) is None
    assert [(kind, detail["connection"], detail["why"]) for kind, detail in fakes.events(harness.stack)] == [
        ("connection.removed", NAME, "uninstalled")
    ]
    assert not {"due_at", "due_pk", "announce"} & harness.item.keys()


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"signature": "0" * 64}, 403),
        ({"signature": sign("1", "canary-other-secret")}, 403),
        ({"signature": sign("2")}, 403),
        ({"client_uuid": "another-client"}, 403),
        ({"signature": "0" * 63}, 400),
        ({"signature": ["0" * 64, "0" * 64]}, 400),
        ({"signature": None}, 400),
        ({"account_id": "1|2"}, 400),
        ({"account_id": None}, 400),
        ({"account_id": "١"}, 400),
        ({"client": "unknown"}, 404),
    ],
)
def test_accept_uninstall_unsigned_hook_is_refused_and_not_queued(
    harness: UninstallHarness, wrong: dict[str, Any], status: int
) -> None:
    answer = harness.hook(**wrong)
    assert answer["statusCode"] == status
    assert "canary" not in json.dumps(answer)
    assert harness.stack.receive("uninstalls") == []


def forge(harness: UninstallHarness, number: int) -> int:
    """Send a well-formed webhook without the secret; most have the right client id. Returns the status."""
    client = ("acme", "acme", "unknown", f"client-{number}")[number % 4]
    client_uuid = kommo_fake.CLIENT_ID if number % 3 else f"client-id-{number}"
    return int(
        harness.hook(client, account_id=str(number), client_uuid=client_uuid, signature=f"{number:064x}")["statusCode"]
    )


def test_accept_uninstall_1000_forged_hooks_read_one_secret(harness: UninstallHarness) -> None:
    """Given webhooks for many accounts and clients within a minute, then each secret is read once."""
    with patch.object(aws_secrets, "_call", wraps=aws_secrets._call) as calls:
        statuses = []
        for number in range(1_000):
            statuses.append(forge(harness, number))
            harness.time.passed_s += 0.009
    assert set(statuses) == {403, 404}
    assert [(call.args, call.kwargs["SecretId"]) for call in calls.call_args_list] == [
        (("get_secret_value",), "portaria/oauth-clients/kommo/acme")
    ]
    assert harness.stack.receive("uninstalls") == []


def test_accept_uninstall_forged_hooks_for_an_hour_read_secret_six_times_a_minute(harness: UninstallHarness) -> None:
    with patch.object(aws_secrets, "_call", wraps=aws_secrets._call) as calls:
        for number in range(3_600):
            harness.hook(signature=f"{number:064x}")
            harness.time.passed_s += 1
    assert 1 <= calls.call_count <= 360


def test_accept_uninstall_after_forged_hooks_signed_hook_is_accepted(harness: UninstallHarness) -> None:
    for number in range(20):
        forge(harness, number)
    assert harness.hook()["statusCode"] == 200
    assert len(harness.stack.receive("uninstalls")) == 1


def test_accept_uninstall_hook_signed_with_replaced_secret_is_accepted_after_recheck(harness: UninstallHarness) -> None:
    """Given a process that has cached a client's old secret, when the new one signs, then the secret is read again."""
    assert harness.hook()["statusCode"] == 200
    harness.vault.replace(
        harness.vault.client_secret_id("kommo", "acme"), {"client_secret": Secret("canary-new-secret")}
    )
    harness.time.passed_s += disconnect_hooks.RECHECK_S
    assert harness.hook(signature=sign("1", "canary-new-secret"))["statusCode"] == 200
    assert harness.hook(signature=sign("1"))["statusCode"] == 403


def test_accept_uninstall_newly_registered_client_is_found_after_recheck(harness: UninstallHarness) -> None:
    assert harness.hook("newer")["statusCode"] == 404
    client = oauth_clients.get(harness.table, "kommo", "acme")._replace(name="newer")
    oauth_clients.put(harness.table, client, new=True)
    harness.vault.create(
        harness.vault.client_secret_id("kommo", "newer"), {"client_secret": Secret(kommo_fake.CLIENT_SECRET)}
    )
    harness.time.passed_s += disconnect_hooks.RECHECK_S
    assert harness.hook("newer")["statusCode"] == 200


def test_remove_connections_account_still_connected_is_checked_three_times_and_kept(harness: UninstallHarness) -> None:
    harness.hook()
    delays = [delay for _ in range(3) for delay in harness.work_on()]
    assert delays == [60, 600], "the platform is asked three times"
    assert harness.stack.receive("uninstalls") == []
    assert harness.connection_now.state == "connected"
    assert harness.vault.read(harness.connection.secret_id) is not None
    assert fakes.events(harness.stack) == []


def test_remove_connections_account_disconnected_between_checks_is_removed(harness: UninstallHarness) -> None:
    harness.hook()
    harness.work_on()
    harness.time.passed_s += 3600
    harness.kommo.revoked.add("acme")
    harness.work_on()
    assert harness.connection_now.state == "removed"


def test_remove_connections_lost_refresh_answer_is_removed_after_three_checks(harness: UninstallHarness) -> None:
    """Given a used token that is refused, then the connection is removed only if no other worker stores a new token."""
    harness.flag_answer_lost()
    harness.hook()
    delays = [delay for _ in range(3) for delay in harness.work_on()]
    assert delays == [60, 600]
    assert harness.connection_now.state == "removed"


def test_remove_connections_reconnected_between_checks_is_kept(harness: UninstallHarness) -> None:
    harness.flag_answer_lost()
    harness.hook()
    harness.work_on()
    harness.table.update(
        *connection_store.key(NAME),
        "SET #state = :connected, #reason = :none",
        names={"#state": "state", "#reason": "reason"},
        values={":connected": "connected", ":none": ""},
    )
    for _ in range(2):
        harness.work_on()
    assert harness.connection_now.state == "connected"


@pytest.mark.parametrize("status", [500, 429, 403])
def test_remove_connections_platform_failure_is_retried_and_keeps_connection(
    harness: UninstallHarness, status: int
) -> None:
    harness.kommo.before["/api/v4/account"] = [(status, {"Content-Type": "text/html"}, "<html>")]
    harness.hook()
    assert len(harness.work()) == 1
    assert harness.connection_now.state == "connected"


def test_remove_connections_reinstalled_during_check_is_kept(harness: UninstallHarness) -> None:
    harness.time.passed_s += 3600
    harness.kommo.revoked.add("acme")
    harness.hook()
    with patch.object(uninstall._Removal, "_still_connected", reinstalling(harness)):
        assert len(harness.work()) == 1
    assert harness.connection_now.state == "connected"
    assert harness.connection_now.generation == 2


def reinstalling(harness: UninstallHarness) -> Any:
    def still_connected(removal: Any, connection: Connection) -> bool:
        harness.table.update(*connection_store.key(NAME), "SET generation = :two", values={":two": 2})
        return False

    return still_connected


def test_remove_connections_unknown_account_is_consumed(harness: UninstallHarness) -> None:
    harness.hook(account_id="99")
    assert harness.work() == set()


def test_remove_connections_vault_failure_is_completed_by_redelivery(harness: UninstallHarness) -> None:
    harness.time.passed_s += 3600
    harness.kommo.revoked.add("acme")
    harness.hook()
    (body,) = harness.stack.receive("uninstalls")
    queues.send(harness.stack.environment["UNINSTALLS_QUEUE_URL"], [body])
    with refusing("DeleteSecret"):
        assert harness.work() == {body}
    assert harness.connection_now.state == "removed"
    queues.send(harness.stack.environment["UNINSTALLS_QUEUE_URL"], [body])
    assert harness.work() == set()
    assert harness.vault.read(harness.connection.secret_id) is None
    assert len(fakes.events(harness.stack)) == 1


@pytest.mark.parametrize("why", ["uninstalled", "deleted"])
def test_remove_connections_closes_event_address_and_keeps_that_of_later_grant(
    harness: UninstallHarness, why: str
) -> None:
    pk, sk = event_receiver.partition(NAME), event_receiver.SK
    webhook_endpoints.open_address(harness.table, harness.connection_now, Secret("canary-webhook-key"))
    if why == "deleted":
        uninstall.delete(harness.table, harness.stack.url("uninstalls"), harness.connection_now)
    else:
        harness.kommo.revoked.add("acme")
        harness.hook()
    # A reinstall opens its own event address just before the removal.
    removed = harness.connection_now
    later = with_changes(removed, granted_at="2999-01-01T00:00:00.000Z")
    assert harness.work() == set()
    assert (harness.table.get(pk, sk) or {})["keys"] == []
    webhook_endpoints.open_address(harness.table, later, Secret("canary-later-key"))
    webhook_endpoints.close_address(harness.table, removed)
    assert len((harness.table.get(pk, sk) or {})["keys"]) == 1


def test_remove_connections_deleted_connection_unsubscribes_webhooks(harness: UninstallHarness) -> None:
    uninstall.delete(harness.table, harness.stack.environment["UNINSTALLS_QUEUE_URL"], harness.connection)
    assert harness.connection_now.state == "removed"
    assert harness.work() == set()
    assert harness.kommo.webhooks == set()
    assert harness.vault.read(harness.connection.secret_id) is None
    assert [detail["why"] for _, detail in fakes.events(harness.stack)] == ["deleted"]


def test_remove_connections_unsubscribes_webhooks_at_each_endpoint(harness: UninstallHarness) -> None:
    url = "https://abc.lambda-url.us-east-1.on.aws"
    endpoints = {"EVENT_ENDPOINTS": f"{url}/,api"}
    harness.worker = functions.load("remove_connections", harness.stack.environment | endpoints)
    harness.kommo.webhooks.add(WEBHOOK.replace("https://api.example.com/live", url))
    uninstall.delete(harness.table, harness.stack.environment["UNINSTALLS_QUEUE_URL"], harness.connection)
    assert harness.work() == set()
    assert harness.kommo.webhooks == set()


def test_remove_connections_name_reused_keeps_new_credentials(harness: UninstallHarness) -> None:
    uninstall.delete(harness.table, harness.stack.environment["UNINSTALLS_QUEUE_URL"], harness.connection)
    again = harness.add(
        Connection(NAME, "kommo", "oauth2", "acme.kommo.com", "connected", 1, "portaria/grants/again", client="acme"),
        harness.stored(),
    )
    harness.work()
    assert harness.connection_now.state == "connected"
    assert harness.vault.read(again.secret_id) is not None
    assert harness.vault.read(harness.connection.secret_id) is None
