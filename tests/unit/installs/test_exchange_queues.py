"""The queue that receives a code after each attempt, at the edges of exchange_code: SQS messages in; Kommo, SQS, table out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import requests
import responses
from botocore.exceptions import ClientError

from portaria.aws import queues
from portaria.connections.vault import Vault
from portaria.core.errors import Retryable
from portaria.installs import exchange_queues, hook_sources
from portaria.installs.hook_sources import HookSources
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud, cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.platforms.kommo import PROBLEM, Kommo
from tests.fakes.virtual_time import VirtualClock

TOKEN, ACCOUNT = "/oauth2/access_token", "/api/v4/account"
PROVEN, UNPROVEN, DEFERRED = "exchanges", "unproven_exchanges", "deferred_exchanges"
STRANGER, MARKETPLACE = "a" * 32, "b" * 32
NO_CONNECTION = requests.exceptions.ConnectTimeout()
HANGS = requests.exceptions.ReadTimeout()
BLOCKED = (403, {"Content-Type": "text/html"}, "<html>")
TWICE_BUSY = (429, {**PROBLEM, "Retry-After": "40"}, "{}")


class Worker:
    """exchange_code with its three queues. A delayed message is available at once, and its delay is recorded."""

    def __init__(self, stack: Cloud, kommo: Kommo, time: VirtualClock) -> None:
        self.stack, self.kommo, self.time = stack, kommo, time
        self.function = functions.load("exchange_code", stack.environment)
        self.sources = HookSources(stack.table)
        self.sent: list[tuple[str, float]] = []
        self.given_back: list[float] = []

    def message(self, code: str, *, source: str = STRANGER, subdomain: str = "acme", by: str = "widget") -> str:
        message = json.loads(fakes.message(code, subdomain))
        return json.dumps(message | {"address_hash": source, "source": by})

    def real(self, code: str, **how: Any) -> str:
        self.kommo.codes[code] = how.get("subdomain", "acme")
        return self.message(code, **how)

    def take(self, queue: str, *bodies: str, receives: int = 1) -> set[str]:
        """Give the function a batch. Returns the bodies that it reports as failed."""
        send = queues.send

        def send_immediately(queue_url: str, bodies: list[str], *, delay_s: float = 0, tenant: str = "") -> None:
            self.sent.append((queue_url.rpartition("/")[2], delay_s))
            send(queue_url, bodies, tenant=tenant)

        named = {str(number): body for number, body in enumerate(bodies)}
        with (
            patch.object(queues, "send", send_immediately),
            patch.object(queues, "give_back", lambda url, handle, after_s: self.given_back.append(after_s)),
        ):
            answer = self.function.handler(functions.sqs_event(named, queue, receives), functions.Context(40))
        return {named[message_id] for message_id in functions.reported(answer)}

    def state(self, code: str) -> tuple[str, str]:
        item = fakes.item(self.stack, code)
        return item.get("state", ""), item.get("reason", "")

    def fail(self, source: str = STRANGER, times: int = hook_sources.SUSPECT_AT) -> None:
        for number in range(times):
            self.take(UNPROVEN, self.message(f"forged-{source}-{number}", source=source))


@pytest.fixture
def worker() -> Iterator[Worker]:
    time = VirtualClock()
    with (
        cloud() as stack,
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        time.installed(),
    ):
        fakes.register(stack)
        yield Worker(stack, Kommo(mock), time)


def test_exchange_code_unproven_valid_code_connects_at_once(worker: Worker) -> None:
    assert worker.take(UNPROVEN, worker.real("real")) == set()
    assert worker.state("real") == ("connected", "")
    assert worker.sent == []


def test_exchange_code_connected_hook_marks_its_address_as_known(worker: Worker) -> None:
    worker.take(UNPROVEN, worker.real("real", source=MARKETPLACE))
    known = worker.stack.table.get("HOOK_SOURCES#kommo", "HOOK_SOURCES") or {}
    assert set(known) - {"pk", "sk"} == {MARKETPLACE}


def test_exchange_code_connected_browser_return_does_not_mark_its_address(worker: Worker) -> None:
    """The address of a browser says nothing about the platform's addresses."""
    worker.take(PROVEN, worker.real("real", by="browser"))
    assert worker.stack.table.get("HOOK_SOURCES#kommo", "HOOK_SOURCES") is None


@pytest.mark.parametrize("queue", [UNPROVEN, PROVEN])
def test_exchange_code_after_two_forged_codes_address_is_deferred_without_request(worker: Worker, queue: str) -> None:
    worker.fail()
    asked = len(worker.kommo.calls)
    assert worker.take(queue, worker.message("third")) == set()
    assert worker.sent == [(DEFERRED, 0)]
    assert len(worker.kommo.calls) == asked
    assert worker.state("third") == ("", "")


def test_exchange_code_deferred_valid_code_connects_and_clears_suspicion(worker: Worker) -> None:
    worker.fail()
    worker.take(UNPROVEN, worker.real("real"))
    (body,) = worker.stack.receive(DEFERRED)
    assert worker.take(DEFERRED, body) == set()
    assert worker.state("real") == ("connected", "")
    worker.take(UNPROVEN, worker.real("next", subdomain="other"))
    assert worker.state("next") == ("connected", ""), "a success ends the suspicion"


def test_exchange_code_other_addresses_are_not_deferred(worker: Worker) -> None:
    worker.fail()
    worker.take(UNPROVEN, worker.real("real", source=MARKETPLACE))
    assert worker.state("real") == ("connected", "")


def test_exchange_code_address_failures_expire_after_a_day(worker: Worker) -> None:
    worker.fail()
    worker.time.advance(hook_sources.FORGOTTEN_AFTER.total_seconds() + 1)
    worker.take(UNPROVEN, worker.real("real"))
    assert worker.state("real") == ("connected", "")


def test_exchange_code_wrong_client_secret_does_not_count_against_address(worker: Worker) -> None:
    """A wrong client configuration fails every install, which is no sign of forged codes."""
    for number in range(5):
        worker.kommo.before[TOKEN] = [(401, PROBLEM, json.dumps({"status": 401}))]
        worker.take(UNPROVEN, worker.real(f"code-{number}"))
    worker.take(UNPROVEN, worker.real("real"))
    assert worker.state("real") == ("connected", "")


def test_exchange_code_known_address_with_many_failures_becomes_unknown(worker: Worker) -> None:
    worker.sources.succeeded("kommo", STRANGER)
    worker.fail(times=hook_sources.KNOWN_SUSPECT_AT - 1)
    assert STRANGER in (worker.stack.table.get("HOOK_SOURCES#kommo", "HOOK_SOURCES") or {})
    worker.take(UNPROVEN, worker.message("one-more"))
    assert STRANGER not in (worker.stack.table.get("HOOK_SOURCES#kommo", "HOOK_SOURCES") or {})
    worker.take(UNPROVEN, worker.message("deferred"))
    assert worker.sent == [(DEFERRED, 0)]


@pytest.mark.parametrize("failure", [NO_CONNECTION, HANGS, (502, {}, "bad gateway"), (200, {}, "no tokens")])
def test_exchange_code_unproven_host_failure_is_sent_again_with_delay(worker: Worker, failure: Any) -> None:
    worker.kommo.before[TOKEN] = [failure]
    assert worker.take(UNPROVEN, worker.real("real")) == set()
    ((queue, delay_s),) = worker.sent
    assert (queue, delay_s) == (UNPROVEN, exchange_queues.FIRST_WAIT_S)


def test_exchange_code_unproven_host_recovered_connects_on_next_try(worker: Worker) -> None:
    worker.kommo.before[TOKEN] = [NO_CONNECTION]
    worker.take(UNPROVEN, worker.real("real"))
    worker.time.advance(hook_sources.SILENT_S + 1)
    assert worker.take(UNPROVEN, *worker.stack.receive(UNPROVEN)) == set()
    assert worker.state("real") == ("connected", "")


def test_exchange_code_hung_host_is_skipped_by_every_worker_except_proven(worker: Worker) -> None:
    worker.kommo.before[TOKEN] = [HANGS]
    worker.take(UNPROVEN, worker.message("hung"))
    other = Worker(worker.stack, worker.kommo, worker.time)
    asked = len(worker.kommo.calls)
    other.take(UNPROVEN, worker.message("next", source=MARKETPLACE))
    ((queue, delay_s),) = other.sent
    assert queue == UNPROVEN
    assert hook_sources.SILENT_S - 2 < delay_s <= hook_sources.SILENT_S
    assert len(worker.kommo.calls) == asked
    # A code with a verified state is tried all the same.
    other.take(PROVEN, worker.real("real", source=MARKETPLACE))
    assert other.state("real") == ("connected", "")


def test_exchange_code_silent_host_is_tried_a_few_times_until_code_expires(worker: Worker) -> None:
    body, tries = worker.message("silent"), 0
    for _ in range(50):
        worker.kommo.before[TOKEN] = [NO_CONNECTION]
        asked = len(worker.kommo.calls)
        returned = worker.take(DEFERRED, body)
        tries += len(worker.kommo.calls) - asked
        if not returned:
            break
        worker.time.advance(worker.given_back[-1])
    assert worker.state("silent") == ("failed", "code_expired")
    assert 4 <= tries <= 9


@pytest.mark.parametrize("failure", [TWICE_BUSY, BLOCKED])
def test_exchange_code_platform_rate_limit_delays_only_unproven_codes(worker: Worker, failure: Any) -> None:
    worker.kommo.before[TOKEN] = [failure]
    worker.take(UNPROVEN, worker.message("first"))
    asked = len(worker.kommo.calls)
    worker.take(UNPROVEN, worker.message("second", source=MARKETPLACE, subdomain="second"))
    assert len(worker.kommo.calls) == asked
    assert [queue for queue, _ in worker.sent] == [UNPROVEN, UNPROVEN]
    assert worker.sent[-1][1] > 20
    worker.take(PROVEN, worker.real("real", source=MARKETPLACE))
    assert worker.state("real") == ("connected", "")


def test_exchange_code_expired_in_queue_fails_install_with_one_event(worker: Worker) -> None:
    body = worker.message("late")
    worker.time.advance(20 * 60 + 1)
    assert worker.take(DEFERRED, body) == set()
    assert worker.state("late") == ("failed", "code_expired")
    ((kind, detail),) = fakes.events(worker.stack)
    assert (kind, detail["reason"]) == ("install.failed", "code_expired")
    assert detail["reconnect_url"].endswith("/install/kommo/acme/start")
    assert worker.kommo.calls == []
    worker.take(DEFERRED, body)
    assert worker.state("late") == ("failed", "code_expired")


def test_exchange_code_exchanged_in_time_connects_after_expiry(worker: Worker) -> None:
    """Given a stored grant and an account that could not be read, when the code has expired, then the install continues."""
    worker.kommo.before[ACCOUNT] = [(502, {}, "")]
    body = worker.real("real")
    assert worker.take(PROVEN, body) == {body}
    worker.time.advance(20 * 60 + 1)
    assert worker.take(PROVEN, body) == set()
    assert worker.state("real") == ("connected", "")


def test_exchange_code_forwarded_twice_is_exchanged_once(worker: Worker) -> None:
    """A crash between sending a message on and deleting it leaves two messages."""
    worker.fail()
    body = worker.real("real")
    for _ in range(2):
        worker.take(UNPROVEN, body)
    bodies = worker.stack.receive(DEFERRED)
    assert len(bodies) == 2
    for each in bodies:
        assert worker.take(DEFERRED, each) == set()
    assert worker.kommo.exchanges["real"] == 1


def test_exchange_code_forward_failure_returns_message(worker: Worker) -> None:
    worker.fail()
    body = worker.message("third")
    with patch.object(queues, "send", side_effect=Retryable("queue_unavailable", "no")):
        answer = worker.function.handler(functions.sqs_event({"1": body}, UNPROVEN), functions.Context(40))
    assert functions.reported(answer) == {"1"}


def test_exchange_code_batch_is_exchanged_concurrently(worker: Worker) -> None:
    """The ten codes of a batch are exchanged concurrently."""
    together = threading.Barrier(10, timeout=20)
    answer = worker.kommo._token

    def wait_for_all(request: requests.PreparedRequest) -> Any:
        together.wait()
        return answer(request)

    bodies = [worker.real(f"code-{number}", subdomain=f"sub{number}") for number in range(10)]
    with patch.object(worker.kommo, "_token", wait_for_all):
        assert worker.take(UNPROVEN, *bodies) == set()
    assert {worker.state(f"code-{number}")[0] for number in range(10)} == {"connected"}


def test_exchange_code_unreadable_message_returns_alone(worker: Worker) -> None:
    bodies = [worker.real("one"), "no json", worker.real("two", subdomain="other")]
    assert worker.take(PROVEN, *bodies) == {"no json"}
    assert (worker.state("one")[0], worker.state("two")[0]) == ("connected", "connected")


def test_exchange_code_forged_code_deletes_no_secret(worker: Worker) -> None:
    """Secrets Manager allows 50 deletions a second, and a flood of forged codes creates more secrets."""
    with patch.object(Vault, "remove") as remove:
        worker.take(UNPROVEN, worker.message("forged"))
    assert worker.state("forged") == ("failed", "bad_code")
    remove.assert_not_called()


def test_hook_sources_succeeded_beyond_limit_removes_oldest_address(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_sources, "MOST_KNOWN", 5)
    for number in range(hook_sources.MOST_KNOWN + 1):
        worker.sources.succeeded("kommo", f"{number:032x}")
        worker.time.advance(1)
    known = worker.stack.table.get("HOOK_SOURCES#kommo", "HOOK_SOURCES") or {}
    assert len(set(known) - {"pk", "sk"}) == hook_sources.MOST_KNOWN
    assert f"{0:032x}" not in known


def test_hook_sources_look_table_failure_suspects_no_address(worker: Worker) -> None:
    worker.fail()
    other = HookSources(worker.stack.table)
    with patch.object(worker.sources._table.__class__, "get_many", side_effect=_throttled()):
        assert other.look(STRANGER, "acme.kommo.com") == (False, 0.0)


def _throttled() -> ClientError:
    return ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "BatchGetItem")
