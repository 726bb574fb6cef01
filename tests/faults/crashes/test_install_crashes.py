"""The crash matrix of an install: crash before and after each outgoing call, redeliver, and check the outcome."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import pytest
import responses

from portaria.aws import light_client
from portaria.connections.credential_stores.protocol import SECRETS_MANAGER, TABLE
from portaria.connections.vault import SealedTable, Vault
from portaria.core import tags
from portaria.core.callbacks import OAuthCallback, Secret
from portaria.core.errors import Retryable
from portaria.core.http.request import HttpRequest
from portaria.core.item_keys import tag_partition
from portaria.core.settings import AcceptInstallSettings, SweepArrivalsSettings
from portaria.installs import arrival_sweep, code_exchange
from portaria.installs.install_lease import LEASE_S
from portaria.installs.install_messages import read_message
from portaria.webhooks.install_receiver import InstallReceiver
from portaria.webhooks.light_table import LightTable
from portaria.webhooks.oauth_client_cache import OAuthClientCache
from portaria.webhooks.oauth_state import OAuthStates
from portaria.webhooks.time_budget import TimeBudget
from tests.fakes.aws.moto_cloud import PREFIX, Cloud, cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.crashes import Calls, Died, outgoing
from tests.fakes.platforms.kommo import Kommo
from tests.fakes.virtual_time import VirtualClock

CODE, SUBDOMAIN = "canary-code-1", "acme"
EARLIER = "canary-code-0"
TAGS = {"customer_id": "c-1", "workspace_id": "w"}
TURNS = 12
# The calls that store a grant in the table, and the one that brings it.
IN_TABLE = ("kms.", "dynamodb.PutItem", f"POST {SUBDOMAIN}.kommo.com/oauth2/access_token")
RESULT = Path("build/faults/install_crashes.json")


@dataclass(frozen=True)
class End:
    state: str
    reason: str
    exchanges: int
    grants: int
    calls: tuple[str, ...]
    died: bool


def turn(cloud: Cloud, body: str, time: VirtualClock, calls: Calls | None = None) -> None:
    """One delivery of the message. A crashed worker's lease ends before the queue delivers again."""
    fakes.forget_tokens()
    try:
        with outgoing(calls or Calls()):
            code_exchange.exchange(read_message(body), fakes.settings(cloud), lambda: 40.0)
    except Died:
        time.advance(LEASE_S + 1)
    except Retryable as later:
        time.advance(later.after_s or 1)


def run(die_at: int, when: str, *, reinstall: bool, code_known: bool = True, store: str = SECRETS_MANAGER) -> End:
    time = VirtualClock()
    with (
        cloud() as stack,
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        time.installed(),
    ):
        kommo = Kommo(mock)
        fakes.register(stack)
        stack.environment["CREDENTIAL_STORE"] = store
        if reinstall:
            kommo.codes[EARLIER] = SUBDOMAIN
            turn(stack, fakes.message(EARLIER, SUBDOMAIN, tags=tags.encode(TAGS)), time)
            time.advance(60)
        if code_known:
            kommo.codes[CODE] = SUBDOMAIN
        # A reinstall brings no tags and keeps those that are there.
        body = fakes.message(CODE, SUBDOMAIN, **({} if reinstall else {"tags": tags.encode(TAGS)}))
        calls = Calls(die_at, when)
        turn(stack, body, time, calls)
        turns = 1
        while fakes.item(stack, CODE).get("state") not in ("connected", "failed"):
            assert turns < TURNS, f"never ended after dying {when} call {die_at}: {calls.seen[-1:]}"
            turn(stack, body, time)
            turns += 1
        turn(stack, body, time)
        item = fakes.item(stack, CODE)
        if item["state"] == "connected":
            check_connected(stack, kommo, item, generation=2 if reinstall else 1)
        else:
            check_failed(stack, item, {} if reinstall else TAGS)
        died = 0 < die_at <= len(calls.seen)
        return End(
            item["state"], item.get("reason", ""), kommo.exchanges[CODE], kommo.grants[CODE], tuple(calls.seen), died
        )


def check_connected(stack: Cloud, kommo: Kommo, item: dict[str, Any], generation: int) -> None:
    connection = stack.table.get(f"CONNECTION#{item['connection']}", "CONNECTION")
    assert connection is not None
    assert (connection["state"], connection["generation"]) == ("connected", generation)
    sealed_table = SealedTable(stack.table, stack.environment["SEALING_KEY_ID"])
    credentials = Vault(PREFIX, sealed_table).read(connection["secret_id"])
    assert credentials is not None
    assert credentials["access_token"].reveal() == f"canary-access-{CODE}"
    assert credentials["refresh_token"].reveal() == f"canary-refresh-{CODE}"
    assert "lease_until" not in item
    assert "sealed_grant" not in item
    assert kommo.webhooks == {
        f"https://api.example.com/live/events/kommo/{connection['name']}/{credentials['webhook_key'].reveal()}"
    }
    assert (connection["tags"], item["tags"]) == (TAGS, TAGS)
    customer = tag_partition("customer_id", TAGS["customer_id"])
    assert stack.table.get(customer, f"CONNECTION#{connection['name']}")
    assert stack.table.get(customer, f"INSTALL#{item['received_at']}#{item['pk'].partition('#')[2]}")
    ready = [detail for kind, detail in fakes.events(stack) if kind == "connection.ready"]
    assert ready[-1] == {
        "connection": connection["name"], "platform": "kommo", "client": "acme", "generation": generation,
        "tags": TAGS,
    }  # fmt: skip
    alive = boto3.client("secretsmanager").list_secrets(Filters=[{"Key": "name", "Values": [f"{PREFIX}/grants/"]}])
    sealed = boto3.client("dynamodb").scan(TableName=stack.table.name)["Items"]
    kept = [secret["Name"] for secret in alive["SecretList"]] + [
        SealedTable.secret_id(item["pk"]["S"].removeprefix("GRANT#"))
        for item in sealed
        if item["pk"]["S"].startswith("GRANT#") and "removed_at" not in item
    ]
    assert kept == [connection["secret_id"]]
    assert connection["secret_id"].startswith("table:") == (stack.environment["CREDENTIAL_STORE"] == TABLE)


def check_failed(stack: Cloud, item: dict[str, Any], own_tags: dict[str, str]) -> None:
    failed = [detail for kind, detail in fakes.events(stack) if kind == "install.failed"]
    assert failed
    assert {event["reason"] for event in failed} == {item["reason"]}
    assert (failed[-1]["tags"], item.get("tags", {})) == (own_tags, own_tags)
    assert failed[-1]["reconnect_url"] == "https://api.example.com/live/install/kommo/acme/start"


def sweep(
    *, reinstall: bool, long: bool, code_known: bool = True, store: str = SECRETS_MANAGER
) -> list[tuple[str, str, End]]:
    """Part, moment and outcome of each crash.

    A crash before a call leaves the same state as one after the previous call. So the short version crashes after each call and
    once before the first; the long version shows that the others make no difference. With the credentials in the table the
    short version crashes only after calls that store them.
    """
    whole = run(0, "before", reinstall=reinstall, code_known=code_known, store=store)
    part = "refused" if not code_known else "reinstall" if reinstall else "install"
    return [
        (part, f"{when} {name}", run(number, when, reinstall=reinstall, code_known=code_known, store=store))
        for number, name in enumerate(whole.calls, start=1)
        for when in ("before", "after")
        if long or (name.startswith(IN_TABLE) and when == "after" if store == TABLE else when == "after" or number == 1)
    ]


def write_result(part: str, **figures: int) -> None:
    """Add one part of the matrix to the result, which has the sums over all parts."""
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    parts = {**old.get("parts", {}), part: {"lost": 0, "exchanged_twice": 0, "flagged": 0, **figures}}
    sums = {
        name: sum(each[name] for each in parts.values()) for name in ("cases", "lost", "exchanged_twice", "flagged")
    }
    RESULT.write_text(json.dumps({**sums, "parts": parts}, indent=2) + "\n")
    print(f"\ninstall crashes, {part}: {parts[part]}; together: {sums}")


def test_exchange_code_killed_at_any_call_completes_on_redelivery(long: bool) -> None:
    cases = sweep(reinstall=False, long=long) + sweep(reinstall=True, long=long)

    assert all(end.died for *_, end in cases)
    lost = [case for *case, end in cases if end.state != "connected" and end.reason != "answer_lost"]
    twice = [case for *case, end in cases if end.grants > 1 or (end.exchanges > 1 and end.reason != "answer_lost")]
    flagged = [case for *case, end in cases if end.reason == "answer_lost"]
    write_result("exchange", cases=len(cases), lost=len(lost), exchanged_twice=len(twice), flagged=len(flagged))

    assert lost == []
    assert twice == []
    # The one window: the platform has issued the tokens, and they are not stored yet.
    token_url = f"{SUBDOMAIN}.kommo.com/oauth2/access_token"
    window = {f"after POST {token_url}"} | ({"before secretsmanager.CreateSecret"} if long else set())
    assert {moment for _, moment in flagged} == window
    assert len(flagged) == 2 * len(window)


def test_exchange_code_with_credentials_in_table_killed_at_any_call_completes_on_redelivery(long: bool) -> None:
    """The short version leaves out the reinstall."""
    cases = sweep(reinstall=False, long=long, store=TABLE) + (
        sweep(reinstall=True, long=True, store=TABLE) if long else []
    )

    lost = [case for *case, end in cases if end.state != "connected" and end.reason != "answer_lost"]
    twice = [case for *case, end in cases if end.grants > 1 or (end.exchanges > 1 and end.reason != "answer_lost")]
    flagged = [moment for _, moment, end in cases if end.reason == "answer_lost"]
    write_result(
        "exchange, in the table", cases=len(cases), lost=len(lost), exchanged_twice=len(twice), flagged=len(flagged)
    )

    assert lost == []
    assert twice == []
    window = {f"after POST {SUBDOMAIN}.kommo.com/oauth2/access_token"} | (
        {"before dynamodb.PutItem"} if long else set()
    )
    assert set(flagged) == window
    assert len(flagged) == len(window) * (2 if long else 1)


def test_exchange_code_refused_and_killed_at_any_call_keeps_first_reason(long: bool) -> None:
    cases = sweep(reinstall=False, long=long, code_known=False)
    assert len(cases) >= 10
    assert {(end.state, end.reason) for *_, end in cases} == {("failed", "bad_code")}
    write_result("refused", cases=len(cases))


def accept(stack: Cloud, calls: Calls) -> int | None:
    """One call of the widget webhook. Returns the status that Kommo got, or None if the process crashed before it answered."""
    with patch.dict(os.environ, stack.environment), outgoing(calls):
        settings = AcceptInstallSettings.from_env()
        table = LightTable(settings.table_name)
        receiver = InstallReceiver(settings, table, OAuthClientCache(table), OAuthStates(table))
        event = {"pathParameters": {"platform": "kommo", "client": "acme"}}
        callback = OAuthCallback(Secret(CODE), f"{SUBDOMAIN}.kommo.com", "widget")
        try:
            receiver.accept(callback, HttpRequest.from_event(event), TimeBudget())
        except Died:
            return None
        except Retryable:
            return 503
        return 200


def call_with_boto3(client: Any, operation: str, payload: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Pass the webhook's own signed calls to moto, which is behind boto3 only. test_light_client tests the transport."""
    service = {"AmazonSQS": "sqs", "DynamoDB_20120810": "dynamodb"}[client._target_prefix]
    answer: dict[str, Any] = boto3.client(service)._make_api_call(operation, payload)
    return answer


def sweeping(stack: Cloud) -> SweepArrivalsSettings:
    return SweepArrivalsSettings(
        table_name=stack.environment["TABLE_NAME"],
        exchanges_queue_url=stack.environment["EXCHANGES_QUEUE_URL"],
        unproven_exchanges_queue_url=stack.environment["UNPROVEN_EXCHANGES_QUEUE_URL"],
    )


@pytest.mark.parametrize("queue_works", [True, False])
def test_accept_install_killed_at_any_call_never_loses_an_accepted_code(
    monkeypatch: pytest.MonkeyPatch, queue_works: bool
) -> None:
    def call(client: Any, operation: str, payload: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        if operation == "SendMessage" and not queue_works:
            raise Retryable("no_answer", "SQS did not answer")
        return call_with_boto3(client, operation, payload, timeout_s=timeout_s)

    monkeypatch.setattr(light_client.AwsClient, "call", call)
    whole = Calls()
    with cloud() as stack:
        fakes.register(stack)
        assert accept(stack, whole) == 200
    assert whole.seen == ["dynamodb.BatchGetItem", "sqs.SendMessage" if queue_works else "dynamodb.PutItem"]

    for number, name in enumerate(whole.seen, start=1):
        for when in ("before", "after"):
            with cloud() as stack:
                fakes.register(stack)
                answered = accept(stack, Calls(number, when))
                arrival_sweep.sweep_arrivals(sweeping(stack))
                stored = [json.loads(body)["code"] for body in stack.receive("unproven_exchanges")]
                assert answered is None
                assert stored == ([CODE] if (when, name) == ("after", whole.seen[-1]) else []), (when, name)
    write_result("accept" if queue_works else "accept without the queue", cases=2 * len(whole.seen))


def test_arrival_sweep_killed_at_any_call_queues_kept_code() -> None:
    """Given a kept install, when the sweep crashes around any call, then the next sweep leaves it queued at least once."""
    seen: list[str] = []
    for number in range(5):
        for when in ("before", "after"):
            with cloud() as stack:
                stack.table.put({"pk": "ARRIVALS", "sk": "id", "body": fakes.message(CODE, SUBDOMAIN)})
                calls = Calls(number, when)
                try:
                    with outgoing(calls):
                        arrival_sweep.sweep_arrivals(sweeping(stack))
                except Died:
                    arrival_sweep.sweep_arrivals(sweeping(stack))
                seen = max(seen, calls.seen, key=len)
                assert {json.loads(body)["code"] for body in stack.receive("exchanges")} == {CODE}
                assert stack.table.query("ARRIVALS") == ([], None)
    # The second query is for installs without a proof.
    assert seen == ["dynamodb.Query", "sqs.SendMessage", "dynamodb.DeleteItem", "dynamodb.Query"]
    write_result("sweep", cases=2 * len(seen))
