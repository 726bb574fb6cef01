"""Webhooks from the API to the application: creation, signed deliveries, retries, redeliveries, and disabling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from portaria.core.callbacks import Secret
from portaria.core.errors import AnswerLost, Rejected, Unreachable
from portaria.core.event_catalogue import CATALOGUE
from portaria.core.http.messages import Request, Response
from portaria.notifications import deliveries, endpoint_gate, schedule, signatures, webhooks
from tests.fakes.api.manage import proxy_event, with_headers
from tests.fakes.aws.lost_answers import puts_sent_twice
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.aws.webhook_world import URL, WebhookWorld, webhook_world
from tests.fakes.virtual_time import VirtualClock

READY = "connection.ready"


@pytest.fixture
def world(stack: Cloud) -> Iterator[WebhookWorld]:
    with webhook_world(stack) as made:
        yield made


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    clock = VirtualClock()
    with clock.installed():
        yield clock


def failing(status: int = 500, **headers: str) -> Any:
    return lambda request: Response(status, headers, b"try later")


def raising(error: Exception) -> Any:
    def answer(request: Request) -> Response:
        raise error

    return answer


def verified(request: Request, secret: str) -> dict[str, Any]:
    found: dict[str, Any] = Verifier(secret).verify(request.body or b"", request.headers)
    return found


class TestDelivery:
    def test_event_reaches_subscribed_webhook_signed(self, world: WebhookWorld) -> None:
        webhook, secret = world.create("connection.*")
        world.publish(READY)
        world.deliver()
        (request,) = world.application.requests
        assert (request.method, request.url) == ("POST", URL)
        assert request.headers["content-type"] == "application/json"
        content = verified(request, secret)
        assert (content["type"], content["data"]) == (READY, CATALOGUE[READY].example)
        delivery = world.delivery(webhook)
        assert (delivery["state"], delivery["id"]) == ("delivered", request.headers["webhook-id"])
        assert [attempt["status"] for attempt in delivery["attempts"]] == [204]
        assert delivery["payload"] == content
        assert world.shown(webhook)["last_success_at"]

    def test_event_does_not_reach_other_webhooks(self, world: WebhookWorld) -> None:
        other, _ = world.create("destination.*", "connection.removed")
        world.publish(READY)
        world.deliver()
        assert world.application.requests == []
        assert world.deliveries(other) == []

    def test_event_fanned_out_twice_is_delivered_once(self, world: WebhookWorld) -> None:
        webhook, _ = world.create()
        world.publish(READY)
        world.publish(READY)
        world.deliver()
        assert len(world.application.requests) == 1
        assert len(world.deliveries(webhook)) == 1

    def test_same_event_has_same_id_at_two_webhooks(self, world: WebhookWorld) -> None:
        world.create(url=f"{URL}/a")
        world.create(url=f"{URL}/b")
        world.publish(READY)
        world.deliver()
        ids = {request.headers["webhook-id"] for request in world.application.requests}
        assert (len(world.application.requests), len(ids)) == (2, 1)

    @pytest.mark.parametrize(
        "body", ["", "[]", '{"source": "aws.ec2"}', '{"id": "1", "detail-type": "x", "time": "?"}']
    )
    def test_fan_out_message_that_is_no_event_is_dropped(self, world: WebhookWorld, body: str) -> None:
        world.create()
        world._run(world.fan_out, "webhook_events", [body])
        assert world.cloud.receive("webhook_deliveries") == []

    def test_event_too_large_fails_with_reason_and_is_not_sent(self, world: WebhookWorld) -> None:
        webhook, _ = world.create()
        world.publish(READY, connection="x" * 70_000)
        world.deliver()
        assert world.application.requests == []
        assert (world.delivery(webhook)["state"], world.delivery(webhook)["reason"]) == ("failed", "payload_too_large")

    @pytest.mark.parametrize(
        "body", ["", "[]", "{", '{"webhook": "wh_none", "delivery": "msg_1"}', '{"sweep": "wh_none"}']
    )
    def test_worker_message_of_nothing_is_dropped(self, world: WebhookWorld, body: str) -> None:
        world._run(world.worker, "webhook_deliveries", [body])


class TestRetries:
    def test_failed_attempts_follow_the_schedule_then_fail(self, world: WebhookWorld, time: VirtualClock) -> None:
        webhook, _ = world.create()
        world.application.answer = failing()
        start = time.passed_s
        world.publish(READY)
        at: list[float] = []
        for _ in range(100):
            before = len(world.application.requests)
            world.deliver()
            world.sweep()
            world.deliver()
            at += [time.passed_s - start] * (len(world.application.requests) - before)
            (shown,) = world.deliveries(webhook)
            if shown["state"] != "pending":
                break
            # A minute after its next attempt is due, and after the pause of a failing endpoint.
            due = datetime.fromisoformat(shown["next_attempt_at"]) - time.now()
            time.advance(max(due.total_seconds(), 0) + 60)
        delivery = world.delivery(webhook)
        assert (delivery["state"], delivery["reason"]) == ("failed", "attempts_exhausted")
        assert [attempt["status"] for attempt in delivery["attempts"]] == [500] * 8
        assert delivery["attempts"][0]["response"] == "try later"
        waits = [later - earlier for earlier, later in pairwise(at)]
        for waited, planned in zip(waits, schedule.WAITS_S, strict=True):
            # Twenty per cent of jitter, the longest pause of a failing endpoint, and the minutes of this loop.
            assert planned <= waited <= planned * 1.2 + 720 + 180
        assert {request.headers["webhook-id"] for request in world.application.requests} == {delivery["id"]}
        stamps = [int(request.headers["webhook-timestamp"]) for request in world.application.requests]
        assert stamps == sorted(set(stamps)), "each attempt has its own time"

    def test_success_after_failure_delivers(self, world: WebhookWorld, time: VirtualClock) -> None:
        webhook, _ = world.create()
        world.application.answer = failing(503)
        world.publish(READY)
        world.deliver()
        delivery = world.delivery(webhook)
        assert (delivery["state"], delivery["last_status"]) == ("pending", 503)
        assert world.shown(webhook)["failing_since"]
        world.application.answer = lambda request: Response(200)
        time.advance(180)
        world.sweep()
        world.deliver()
        assert world.delivery(webhook)["state"] == "delivered"
        assert world.shown(webhook)["failing_since"] is None

    def test_retry_after_postpones_the_next_attempt(self, world: WebhookWorld, time: VirtualClock) -> None:
        world.create()
        world.application.answer = failing(429, **{"retry-after": "600"})
        world.publish(READY)
        world.deliver()
        time.advance(500)
        world.sweep()
        world.deliver()
        assert len(world.application.requests) == 1
        time.advance(300)
        world.sweep()
        world.deliver()
        assert len(world.application.requests) == 2

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (Unreachable("app.example.com was not reached: ConnectionRefusedError"), "unreachable"),
            (AnswerLost("app.example.com gave no answer: TimeoutError"), "no_answer"),
            (Rejected("address_not_allowed", "it leads to an address that is not public"), "address_not_allowed"),
        ],
    )
    def test_attempt_without_response_is_retried(self, world: WebhookWorld, error: Exception, said: str) -> None:
        webhook, _ = world.create()
        world.application.answer = raising(error)
        world.publish(READY)
        world.deliver()
        (attempt,) = world.delivery(webhook)["attempts"]
        assert (world.delivery(webhook)["state"], attempt["error"], attempt["status"]) == ("pending", said, None)

    @pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 500])
    def test_status_other_than_2xx_is_a_failure_and_no_redirect_is_followed(
        self, world: WebhookWorld, status: int
    ) -> None:
        webhook, _ = world.create()
        world.application.answer = failing(status, location="https://app.example.com/elsewhere")
        world.publish(READY)
        world.deliver()
        assert len(world.application.requests) == 1
        assert (world.delivery(webhook)["state"], world.delivery(webhook)["last_status"]) == ("pending", status)

    def test_stored_response_is_short_printable_and_masked(self, world: WebhookWorld) -> None:
        webhook, _ = world.create()
        text = "\x1b[31mpassword=hunter2-canary \u202e " + "eyJ" + "hbGciOiJI.x.y" + "x" * 3_000
        world.application.answer = lambda request: Response(500, {}, text.encode())
        world.publish(READY)
        world.deliver()
        (attempt,) = world.delivery(webhook)["attempts"]
        assert len(attempt["response"]) <= 500
        assert attempt["response"].isprintable()
        assert "canary" not in attempt["response"]
        assert "eyJ" not in attempt["response"]

    def test_death_after_event_was_stored_is_found_by_the_sweep(self, world: WebhookWorld, time: VirtualClock) -> None:
        webhook, _ = world.create()
        world.publish(READY)
        world.cloud.receive("webhook_deliveries")
        world.sweep()
        assert world.cloud.receive("webhook_deliveries") == [], "it may still be in the queue"
        time.advance(150)
        world.sweep()
        world.deliver()
        assert world.delivery(webhook)["state"] == "delivered"


class TestGate:
    def test_failing_endpoint_is_tried_with_one_delivery(self, world: WebhookWorld, time: VirtualClock) -> None:
        webhook, _ = world.create()
        world.application.answer = failing()
        for number in range(10):
            world.publish(READY, event_id=f"event-{number}")
        for _ in range(10):
            world.deliver()
        assert len(world.application.requests) == endpoint_gate.CLOSE_AFTER
        time.advance(180)
        world.sweep()
        world.deliver()
        assert len(world.application.requests) == endpoint_gate.CLOSE_AFTER + 1
        world.application.answer = lambda request: Response(204)
        time.advance(900)
        world.sweep()
        world.deliver()
        world.deliver()
        time.advance(900)
        world.sweep()
        world.deliver()
        assert {each["state"] for each in world.deliveries(webhook)} == {"delivered"}

    def test_slow_endpoint_goes_to_patient_queue(self, world: WebhookWorld) -> None:
        webhook, _ = world.create()
        slot = endpoint_gate.take(world.cloud.table, webhook, endpoint_gate.Gate(), 3.0)
        assert slot
        endpoint_gate.succeeded(world.cloud.table, webhook, slot, is_slow=True)
        world.publish(READY)
        timeouts: list[float | None] = []

        def answer(request: Request) -> Response:
            timeouts.append(request.total_timeout_s)
            return Response(200)

        world.application.answer = answer
        world._run(world.worker, "webhook_deliveries", world.cloud.receive("webhook_deliveries"))
        assert timeouts == []
        world._run(world.worker, "slow_webhook_deliveries", world.cloud.receive("slow_webhook_deliveries"))
        assert timeouts == [schedule.PATIENT_S]

    def test_busy_endpoint_delays_a_delivery_and_loses_none(self, world: WebhookWorld, time: VirtualClock) -> None:
        webhook, _ = world.create()
        slot = endpoint_gate.take(world.cloud.table, webhook, endpoint_gate.Gate(), 3.0)
        assert slot
        world.publish(READY)
        world.deliver()
        assert world.application.requests == []
        time.advance(180)
        world.sweep()
        world.deliver()
        assert len(world.application.requests) == 1, "the lease of a dead worker has ended"

    def test_slots_are_bounded_and_free_again(self, world: WebhookWorld) -> None:
        table = world.cloud.table
        proven = endpoint_gate.take(table, "wh_1", endpoint_gate.find(table, "wh_1"), 3.0)
        assert proven
        assert endpoint_gate.take(table, "wh_1", endpoint_gate.find(table, "wh_1"), 3.0) is None
        endpoint_gate.succeeded(table, "wh_1", proven, is_slow=False)
        slots = [endpoint_gate.take(table, "wh_1", endpoint_gate.find(table, "wh_1"), 3.0) for _ in range(5)]
        assert [bool(slot) for slot in slots] == [True] * endpoint_gate.SLOTS + [False]
        assert slots[0]
        endpoint_gate.give_back(table, "wh_1", slots[0])
        assert endpoint_gate.take(table, "wh_1", endpoint_gate.find(table, "wh_1"), 3.0)


class TestDisabling:
    def test_410_disables_and_tells_other_webhooks(self, world: WebhookWorld) -> None:
        webhook, _ = world.create("connection.*")
        world.application.answer = failing(410)
        world.publish(READY)
        world.publish(READY, event_id="another")
        world.deliver()
        world.deliver()
        shown = world.shown(webhook)
        assert (shown["state"], shown["disabled_reason"]) == ("disabled", "gone")
        assert {(each["state"], each["reason"]) for each in world.deliveries(webhook)} == {
            ("failed", "gone"),
            ("failed", "webhook_disabled"),
        }
        ((kind, detail),) = world.heard()
        assert (kind, detail["webhook"], detail["reason"]) == ("webhook.disabled", webhook, "gone")
        world.publish(READY, event_id="a third")
        assert world.cloud.receive("webhook_deliveries") == []

    def test_five_days_of_failure_disable(self, world: WebhookWorld, time: VirtualClock) -> None:
        webhook, _ = world.create()
        world.application.answer = failing()
        for part in range(6 * 4):
            world.publish(READY, event_id=f"event-{part}")
            world.deliver()
            world.sweep()
            world.deliver()
            time.advance(hours=6)
            if part == 4 * 4:
                assert world.shown(webhook)["state"] == "enabled"
        shown = world.shown(webhook)
        assert (shown["state"], shown["disabled_reason"]) == ("disabled", "failing")
        world.sweep()
        world.sweep()
        assert [kind for kind, _ in world.heard()] == ["webhook.disabled"]
        assert {each["state"] for each in world.deliveries(webhook, "?limit=100")} == {"failed"}

    def test_death_before_the_event_publishes_it_with_the_next_sweep(self, world: WebhookWorld) -> None:
        webhook, _ = world.create()
        assert webhooks.disable(world.cloud.table, webhook, URL, webhooks.FAILING)
        world.sweep()
        world.sweep()
        assert [kind for kind, _ in world.heard()] == ["webhook.disabled"]

    def test_webhook_with_another_url_meanwhile_is_not_disabled(self, world: WebhookWorld) -> None:
        webhook, _ = world.create()
        assert not webhooks.disable(world.cloud.table, webhook, "https://old.example.com/", webhooks.GONE)
        assert world.shown(webhook)["state"] == "enabled"

    def test_enabling_forgets_failures(self, world: WebhookWorld, time: VirtualClock) -> None:
        webhook, _ = world.create()
        world.application.answer = failing(410)
        world.publish(READY)
        world.deliver()
        world.application.answer = lambda request: Response(204)
        edited = world.manage.call("PUT", f"/webhooks/{webhook}", {"url": URL, "events": ["*"], "enabled": True})
        assert (edited.content["state"], edited.content["disabled_reason"]) == ("enabled", None)
        (delivery,) = world.deliveries(webhook)
        again = world.manage.call("POST", f"/webhooks/{webhook}/deliveries/{delivery['id']}/redelivery")
        assert (again.status, again.content["state"]) == (202, "pending")
        world.deliver()
        assert world.delivery(webhook)["state"] == "delivered"


class TestApi:
    def test_create_shows_secret_once(self, world: WebhookWorld) -> None:
        webhook, secret = world.create("connection.*")
        assert secret.startswith("whsec_")
        assert secret not in world.manage.call("GET", f"/webhooks/{webhook}").text
        assert secret not in world.manage.call("GET", "/webhooks").text
        assert secret not in json.dumps(world.cloud.table.get(*webhooks.key(webhook)), default=str)

    def test_create_write_sent_twice_returns_the_webhook(self, world: WebhookWorld) -> None:
        """Given a write whose first answer was lost, then there is one webhook, and its secret is returned."""
        with puts_sent_twice(webhooks.PARTITION) as sent:
            webhook, secret = world.create("connection.*")
        assert sent
        assert secret.startswith("whsec_")
        assert [each.id for each in webhooks.list_all(world.cloud.table)] == [webhook]

    def test_create_repeated_with_key_returns_the_same_webhook_and_secret(self, world: WebhookWorld) -> None:
        body = {"url": URL, "events": ["*"]}
        first, second = (
            world.manage.answer(with_headers(proxy_event("POST", "/webhooks", body), idempotency_key="k1"))
            for _ in range(2)
        )
        assert first.content == second.content
        assert len(world.manage.call("GET", "/webhooks").content["items"]) == 1

    def test_create_repeated_after_death_returns_the_first_one(self, world: WebhookWorld) -> None:
        body = {"url": URL, "events": ["*"]}
        first = world.manage.answer(with_headers(proxy_event("POST", "/webhooks", body), idempotency_key="k1"))
        for item in world.cloud.table.query_all("IDEMPOTENCY"):
            world.cloud.table.delete(item["pk"], item["sk"])
        second = world.manage.answer(with_headers(proxy_event("POST", "/webhooks", body), idempotency_key="k1"))
        assert (second.content["id"], second.content["secret"]) == (first.content["id"], first.content["secret"])

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"url": URL}, "events"),
            ({"url": URL, "events": []}, "events"),
            ({"url": URL, "events": ["connection.gone"]}, "events.0"),
            ({"url": URL, "events": ["*"], "secret": "whsec_x"}, "secret"),
            ({"url": URL, "events": ["*"], "description": "a\nb"}, "description"),
        ],
    )
    def test_create_bad_input_is_refused(self, world: WebhookWorld, body: dict[str, Any], field: str) -> None:
        answer = world.manage.call("POST", "/webhooks", body)
        assert (answer.status, answer.content["field"]) == (400, field)

    def test_create_beyond_the_limit_is_refused(self, world: WebhookWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(webhooks, "MAX_WEBHOOKS", 1)
        world.create()
        answer = world.manage.call("POST", "/webhooks", {"url": URL, "events": ["*"]})
        assert (answer.status, answer.content["type"]) == (409, "urn:portaria:problem:too_many_webhooks")

    def test_edit_with_old_etag_is_refused(self, world: WebhookWorld) -> None:
        webhook, _ = world.create()
        etag = world.manage.call("GET", f"/webhooks/{webhook}").headers["ETag"]
        body = {"url": URL, "events": ["quota.low"]}
        path = f"/webhooks/{webhook}"
        first, second = (
            world.manage.answer(with_headers(proxy_event("PUT", path, body), if_match=etag)) for _ in range(2)
        )
        assert (first.status, first.content["events"], second.status) == (200, ["quota.low"], 412)

    def test_delete_fails_pending_deliveries_and_removes_the_secret(self, world: WebhookWorld) -> None:
        webhook, _ = world.create()
        world.publish(READY)
        assert world.manage.call("DELETE", f"/webhooks/{webhook}").status == 204
        for path in ("", "/deliveries", "/test"):
            method = "POST" if path == "/test" else "GET"
            assert world.manage.call(method, f"/webhooks/{webhook}{path}").status == 404
        world.deliver()
        assert world.application.requests == []
        (item,) = world.cloud.table.query_all(deliveries.key(webhook, "")[0], sk_prefix="msg_")
        assert (item["state"], item["reason"]) == ("failed", "webhook_deleted")
        stored = world.cloud.table.get(*webhooks.key(webhook)) or {}
        assert stored["sealed"] == ""

    def test_rotation_signs_with_both_secrets_for_a_day(self, world: WebhookWorld, time: VirtualClock) -> None:
        webhook, old = world.create()
        rotated = world.manage.call("POST", f"/webhooks/{webhook}/rotation", {})
        new = rotated.content["secret"]
        assert (new != old, bool(rotated.content["rotation_ends_at"])) == (True, True)
        assert world.manage.call("POST", f"/webhooks/{webhook}/rotation", {}).status == 409
        world.publish(READY)
        world.deliver()
        (request,) = world.application.requests
        assert verified(request, old) == verified(request, new)
        time.advance(hours=25)
        world.publish(READY, event_id="later")
        world.deliver()
        assert len(world.application.requests[-1].headers["webhook-signature"].split(" ")) == 1

    def test_rotation_with_expire_now_ends_the_old_secret(self, world: WebhookWorld) -> None:
        webhook, old = world.create()
        new = world.manage.call("POST", f"/webhooks/{webhook}/rotation", {"expire_now": True}).content["secret"]
        world.publish(READY)
        world.deliver()
        (request,) = world.application.requests
        assert verified(request, new)
        with pytest.raises(WebhookVerificationError):
            verified(request, old)

    def test_test_event_is_sent_to_that_webhook_only(self, world: WebhookWorld) -> None:
        webhook, secret = world.create("quota.low", url=f"{URL}/a")
        world.create(url=f"{URL}/b")
        answer = world.manage.call("POST", f"/webhooks/{webhook}/test")
        assert (answer.status, answer.content["event"]) == (202, "webhook.test")
        world.deliver()
        (request,) = world.application.requests
        assert request.url == f"{URL}/a"
        assert verified(request, secret)["data"] == {"version": 1, "webhook": webhook}

    def test_deliveries_are_listed_newest_first_by_state_and_page(
        self, world: WebhookWorld, time: VirtualClock
    ) -> None:
        webhook, _ = world.create()
        for number in range(5):
            world.application.answer = failing() if number == 2 else lambda request: Response(204)
            world.publish(READY, event_id=str(number))
            world.deliver()
            time.advance(2)
        listed = world.deliveries(webhook)
        assert [each["event_at"] for each in listed] == sorted((each["event_at"] for each in listed), reverse=True)
        assert [each["state"] for each in listed] == ["delivered", "delivered", "pending", "delivered", "delivered"]
        assert [each["id"] for each in world.deliveries(webhook, "?state=pending")] == [listed[2]["id"]]
        page = world.manage.call("GET", f"/webhooks/{webhook}/deliveries?limit=2").content
        rest = world.manage.call("GET", f"/webhooks/{webhook}/deliveries?limit=10&cursor={page['next_cursor']}").content
        assert page["items"] + rest["items"] == listed
        since = world.deliveries(webhook, f"?since={listed[1]['event_at']}")
        assert since == listed[:2]

    def test_range_redelivery_sends_failed_deliveries_of_the_range(
        self, world: WebhookWorld, time: VirtualClock
    ) -> None:
        webhook, _ = world.create()
        pk = deliveries.key(webhook, "")[0]
        for number in range(4):
            world.publish(READY, event_id=str(number))
            time.advance(60)
        world.deliver()
        ids = [item["sk"] for item in world.cloud.table.query_all(pk, sk_prefix="msg_")]
        for delivery_id in ids[1:]:
            world.cloud.table.update(
                pk, delivery_id, "SET #state = :failed", names={"#state": "state"}, values={":failed": "failed"}
            )
        found = world.deliveries(webhook)
        body = {"since": found[3]["event_at"], "until": found[1]["event_at"]}
        world.application.requests.clear()
        answer = world.manage.call("POST", f"/webhooks/{webhook}/redelivery", body)
        assert (answer.status, answer.content) == (202, {"delivery_count": 2, "more": False, "next_cursor": None})
        world.deliver()
        assert sorted(request.headers["webhook-id"] for request in world.application.requests) == ids[1:3]

    @pytest.mark.parametrize(
        "body", [{}, {"since": "yesterday"}, {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}]
    )
    def test_range_redelivery_bad_input_is_refused(self, world: WebhookWorld, body: dict[str, Any]) -> None:
        webhook, _ = world.create()
        assert world.manage.call("POST", f"/webhooks/{webhook}/redelivery", body).status == 400

    def test_redelivery_of_disabled_webhook_or_unknown_delivery_is_refused(self, world: WebhookWorld) -> None:
        webhook, _ = world.create()
        unknown = f"msg_{'0' * 32}"
        for method, path in (("GET", ""), ("POST", "/redelivery")):
            assert world.manage.call(method, f"/webhooks/{webhook}/deliveries/{unknown}{path}").status == 404
        assert world.manage.call("GET", f"/webhooks/{webhook}/deliveries/GATE").status == 404
        world.manage.call("PUT", f"/webhooks/{webhook}", {"url": URL, "events": ["*"], "enabled": False})
        for path in ("/test", f"/deliveries/{unknown}/redelivery"):
            assert world.manage.call("POST", f"/webhooks/{webhook}{path}").status == 409

    def test_audit_trail_has_no_query_string(self, world: WebhookWorld) -> None:
        world.create(url=f"{URL}?key=canary")
        (entry, *_) = world.manage.call("GET", "/audit").content["items"]
        assert (entry["operation"], entry["outcome"]) == ("create_webhook", "done")
        assert "canary" not in json.dumps(entry)


class TestSignatures:
    """The receiver uses the reference library."""

    KEY = signatures.new_secret()
    BODY = '{"type":"connection.ready","name":"São João"}'.encode()

    def signed(self, at: int, *keys: Secret) -> dict[str, str]:
        return signatures.headers(keys or (self.KEY,), "msg_1", at, self.BODY)

    def accepts(self, headers: dict[str, str], body: bytes | None = None) -> bool:
        try:
            Verifier(self.KEY.reveal()).verify(self.BODY if body is None else body, headers)
        except WebhookVerificationError:
            return False
        return True

    @pytest.fixture
    def now(self) -> int:
        return int(datetime.now(UTC).timestamp())

    def test_signature_is_accepted_in_any_order(self, now: int) -> None:
        other = signatures.new_secret()
        assert self.accepts(self.signed(now))
        assert self.accepts(self.signed(now, other, self.KEY))
        assert self.accepts(self.signed(now, self.KEY, other))

    def test_signature_with_wrong_key_time_id_or_body_is_refused(self, now: int) -> None:
        headers = self.signed(now)
        assert not self.accepts(self.signed(now, signatures.new_secret()))
        assert not self.accepts(self.signed(now - 400)), "a replay after five minutes"
        assert not self.accepts(self.signed(now + 400))
        assert not self.accepts(headers | {"webhook-timestamp": str(now - 60)}), "a replay with a new time"
        assert not self.accepts(headers | {"webhook-id": "msg_2"})
        assert not self.accepts(headers, self.BODY + b" ")
        assert not self.accepts({name: value for name, value in headers.items() if name != "webhook-signature"})

    def test_signature_of_swapped_parts_is_refused(self, now: int) -> None:
        """The signed text is `id.timestamp.body` in this order."""
        swapped = signatures.headers((self.KEY,), str(now), 1, self.BODY)
        headers = {"webhook-id": "1", "webhook-timestamp": str(now), "webhook-signature": swapped["webhook-signature"]}
        assert not self.accepts(headers)

    def test_delivery_ids_have_no_full_stop_and_sort_by_time(self) -> None:
        first = datetime(2026, 11, 28, tzinfo=UTC)
        ids = [deliveries.id_of("b.c", first), deliveries.id_of("a", first + timedelta(milliseconds=1))]
        assert ids == sorted(ids)
        assert not [each for each in ids if "." in each]
        assert deliveries.lowest_id(first) <= ids[0] < deliveries.lowest_id(first + timedelta(milliseconds=1)) <= ids[1]
