"""The commands for webhooks and their deliveries, down to the API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.api.command_line import run, told, wired
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.aws.webhook_world import URL, WebhookWorld, webhook_world


@pytest.fixture
def world(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookWorld]:
    with webhook_world(stack) as made:
        wired(stack, monkeypatch)
        yield made


@pytest.fixture
def webhook(world: WebhookWorld) -> str:
    return str(told("webhooks", "create", URL)["id"])


def test_create_prints_the_secret_alone_and_subscribes_to_all_events(world: WebhookWorld) -> None:
    done = run("webhooks", "create", URL, "--description", "Pages")
    assert done.stdout.startswith("whsec_")
    assert len(done.stdout.splitlines()) == 1
    (made,) = told("webhooks", "list")["items"]
    assert (made["events"], made["description"]) == (["*"], "Pages")
    assert done.stdout.strip() not in run("webhooks", "show", made["id"]).stdout


def test_edit_changes_only_what_is_given(world: WebhookWorld, webhook: str) -> None:
    changed = told("webhooks", "edit", webhook, "--event", "connection.*", "--event", "quota.low")
    assert (changed["url"], changed["events"], changed["state"]) == (URL, ["connection.*", "quota.low"], "enabled")
    assert told("webhooks", "edit", webhook, "--state", "disabled")["disabled_reason"] == "by_request"
    assert told("webhooks", "edit", webhook, "--description", "x")["state"] == "disabled"
    assert told("webhooks", "edit", webhook, "--state", "enabled")["state"] == "enabled"
    assert "nothing to change" in run("webhooks", "edit", webhook, exit_code=2).stderr


def test_rotate_prints_another_secret(world: WebhookWorld, webhook: str) -> None:
    assert told("webhooks", "rotate", webhook)["rotation_ends_at"]
    assert told("webhooks", "rotate", webhook, "--now")["rotation_ends_at"] is None


def test_test_event_is_listed_shown_and_sent_again(world: WebhookWorld, webhook: str) -> None:
    queued = told("webhooks", "test", webhook)
    world.deliver()
    (listed,) = told("webhook-deliveries", "list", webhook, "--state", "delivered")["items"]
    assert listed["id"] == queued["id"]
    shown = told("webhook-deliveries", "show", webhook, queued["id"])
    assert [attempt["status"] for attempt in shown["attempts"]] == [204]
    assert queued["id"] in run("webhook-deliveries", "redeliver", webhook, queued["id"]).stderr
    world.deliver()
    assert len(world.application.requests) == 2
    counted = run("webhook-deliveries", "redeliver", webhook, "--since", "1h", "--delivered", "--dry-run")
    assert counted.stdout == "1 deliveries would be queued.\n"
    world.deliver()
    assert len(world.application.requests) == 2
    again = told("webhook-deliveries", "redeliver", webhook, "--since", "1h", "--delivered")
    assert again == {"delivery_count": 1}


@pytest.mark.parametrize(
    "words", [(), ("msg_1", "--since", "1h"), ("msg_1", "--delivered"), ("--until", "1h"), ("msg_1", "--dry-run")]
)
def test_redeliver_needs_either_a_delivery_or_a_range(
    world: WebhookWorld, webhook: str, words: tuple[str, ...]
) -> None:
    assert "give either" in run("webhook-deliveries", "redeliver", webhook, *words, exit_code=2).stderr


def test_delete_asks_first(world: WebhookWorld, webhook: str) -> None:
    run("webhooks", "delete", webhook, input="n\n", exit_code=1)
    run("webhooks", "delete", webhook, "--yes")
    assert told("webhooks", "list")["items"] == []
