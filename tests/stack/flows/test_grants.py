"""Grants on the local cloud: renewed by the schedule's queue, requested by concurrent callers, and revoked by the customer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests

from bench.tokens import fan_in
from bench.tokens.grants import Grants, as_a_worker
from portaria.aws.table import Table
from portaria.connections import connection_store
from tests.fakes import published_events
from tests.fakes.local_cloud.scenes import Scene, wait_for
from tests.fakes.local_cloud.session import LocalCloud


@pytest.fixture
def scene(stack: LocalCloud) -> Iterator[Scene]:
    yield Scene(stack)
    stack.control.set_kommo_limits(access_life_s=86_400)
    stack.control.clear_faults()


def connect(scene: Scene, suffix: str = "") -> tuple[str, str]:
    """An account that has installed: its host and its connection's name."""
    host = scene.account(suffix)
    assert scene.hook(scene.code(host), host).status_code == 200
    found = wait_for(
        lambda: [item for item in scene.installs() if item["account_host"] == host and item["state"] == "connected"],
        lambda items: len(items) == 1,
    )
    return host, found[0]["connection"]


def show(scene: Scene, name: str) -> dict[str, Any]:
    answer = scene.cloud.admin.get(f"{scene.cloud.public_url}/admin/v1/connections/{name}")
    return dict(answer.json())


swept_at = 0.0


def sweep(cloud: LocalCloud) -> None:
    """The schedule's message, sent every five minutes on AWS; here every three seconds at most."""
    global swept_at  # noqa: PLW0603 - one schedule a session
    if time.monotonic() < swept_at + 3:
        return
    swept_at = time.monotonic()
    cloud.sqs.send_message(QueueUrl=cloud.stack.queues["renewals"], MessageBody='{"sweep": ""}')


def heard(cloud: LocalCloud, queue_url: str) -> list[dict[str, Any]]:
    messages = cloud.sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages", [])
    events = [json.loads(message["Body"]) for message in messages]
    for event in events:
        published_events.check(event["detail-type"], event["detail"])
    return events


@pytest.fixture
def ear(stack: LocalCloud, request: pytest.FixtureRequest) -> Iterator[str]:
    """A queue that receives every event of the project's bus."""
    name = f"ear-{abs(hash(request.node.name)) % 10**8}"
    url = stack.sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = stack.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    stack.events.put_rule(Name=name, EventBusName=stack.stack.bus, EventPattern='{"source": ["portaria"]}')
    stack.events.put_targets(Rule=name, EventBusName=stack.stack.bus, Targets=[{"Id": name, "Arn": arn}])
    yield url
    stack.events.remove_targets(Rule=name, EventBusName=stack.stack.bus, Ids=[name])
    stack.events.delete_rule(Name=name, EventBusName=stack.stack.bus)
    stack.sqs.delete_queue(QueueUrl=url)


def test_renewal_sweep_due_token_is_refreshed(scene: Scene) -> None:
    """Given a token of a few seconds, when the sweep comes, then the connection has the next generation, and works."""
    scene.cloud.control.set_kommo_limits(access_life_s=3)
    host, name = connect(scene)
    scene.cloud.control.set_kommo_limits(access_life_s=86_400)

    def renewed() -> dict[str, Any]:
        sweep(scene.cloud)
        return show(scene, name)

    found = wait_for(renewed, lambda connection: connection["generation"] == 2)
    assert found["state"] == "connected"
    (grant,) = [grant for grant in scene.cloud.control.kommo()["grants"] if grant["host"] == host]
    assert grant == {"client_id": scene.client_id, "host": host, "pairs": 2, "revoked": False}
    assert scene.cloud.control.count(platform="kommo", host=host, path="/oauth2/access_token") == 2


def test_renew_tokens_revoked_grant_is_announced_and_reinstall_recovers_it(scene: Scene, ear: str) -> None:
    scene.cloud.control.set_kommo_limits(access_life_s=3)
    host, name = connect(scene)
    scene.cloud.control.disconnect(scene.client_id, host)

    def told() -> list[dict[str, Any]]:
        sweep(scene.cloud)
        return [event for event in heard(scene.cloud, ear) if event["detail-type"] == "connection.needs_reconnect"]

    (event,) = wait_for(told, bool)
    assert (event["detail"]["connection"], event["detail"]["reason"]) == (name, "grant_revoked")
    assert event["detail"]["reconnect_url"] == f"{scene.install_url}/start"
    assert (show(scene, name)["state"], show(scene, name)["reason"]) == ("needs_reconnect", "grant_revoked")

    # And a reinstall restores it under its old name
    scene.cloud.control.set_kommo_limits(access_life_s=86_400)
    assert scene.hook(scene.code(host), host).status_code == 200
    wait_for(lambda: show(scene, name), lambda connection: connection["state"] == "connected")

    def recovered() -> list[dict[str, Any]]:
        sweep(scene.cloud)
        return [event for event in heard(scene.cloud, ear) if event["detail-type"] == "connection.recovered"]

    assert wait_for(recovered, bool)[0]["detail"]["connection"] == name


def uninstall(scene: Scene, query: dict[str, str]) -> requests.Response:
    return scene.cloud.web.get(
        f"{scene.cloud.public_url}/uninstall/kommo/{scene.name}", params=query, allow_redirects=False
    )


def test_uninstall_disconnected_account_is_removed_and_can_be_installed_again(scene: Scene, ear: str) -> None:
    host, name = connect(scene)
    secret_id = connections_item(scene, name)["secret_id"]["S"]
    hook = scene.cloud.control.disconnect(scene.client_id, host)
    assert uninstall(scene, {**hook, "signature": "0" * 64}).status_code == 403
    assert uninstall(scene, hook).status_code == 200

    found = wait_for(lambda: show(scene, name), lambda connection: connection["state"] == "removed")
    assert found["reason"] == "uninstalled"
    wait_for(lambda: heard(scene.cloud, ear), lambda events: "connection.removed" in str(events))
    assert "DeletedDate" in scene.cloud.secrets.describe_secret(SecretId=secret_id)

    # When they install again and the old webhook is repeated, then the new connection stays
    assert scene.hook(scene.code(host), host).status_code == 200
    wait_for(lambda: show(scene, name), lambda connection: connection["state"] == "connected")
    assert uninstall(scene, hook).status_code == 200

    def asked() -> int:
        return scene.cloud.control.count(platform="kommo", host=host, path="/api/v4/account")

    before = asked()
    wait_for(asked, lambda count: count > before or count >= 3)
    assert show(scene, name)["state"] == "connected"


def connections_item(scene: Scene, name: str) -> dict[str, Any]:
    key = {"pk": {"S": f"CONNECTION#{name}"}, "sk": {"S": "CONNECTION"}}
    item: dict[str, Any] = scene.cloud.dynamodb.get_item(TableName=scene.cloud.stack.table, Key=key)["Item"]
    return item


def test_renew_tokens_moved_account_updates_allowed_domain(scene: Scene) -> None:
    scene.cloud.control.set_kommo_limits(access_life_s=3)
    host, name = connect(scene)
    scene.cloud.control.set_kommo_limits(access_life_s=86_400)
    moved = scene.cloud.control.move_account(host, f"{scene.name}-moved")

    def renewed() -> dict[str, Any]:
        sweep(scene.cloud)
        return show(scene, name)

    found = wait_for(renewed, lambda connection: connection["generation"] == 2)
    assert (found["allowed_domain"], found["state"]) == (moved, "connected")


@pytest.mark.parametrize("life_s", [30, pytest.param(3_600, marks=pytest.mark.long)])
def test_token_provider_eighty_concurrent_callers_refresh_once(stack: LocalCloud, life_s: int) -> None:
    """The short version of `make bench NAME=fan_in`: real processes, a real lease."""
    with as_a_worker(stack.stack) as key:
        grants = Grants(stack.stack, life_s=life_s)
        connection = grants.expired_connection()
        served, failed, _ = fan_in.crowd(stack.stack, key, connection, 80)
        assert (served, failed) == (80, {})
        assert grants.renewals() == 1
        assert connection_store.get(Table(stack.stack.table), connection.name).generation == 2


def test_renewals_schedule_exists(stack: LocalCloud) -> None:
    scheduler = boto3.client(
        "scheduler",
        endpoint_url=stack.stack.aws_endpoint_url,
        region_name=stack.stack.region,
        aws_access_key_id=stack.stack.access_key_id,
        aws_secret_access_key=stack.stack.secret_access_key,
    )
    expressions = {
        schedule["Name"]: scheduler.get_schedule(Name=schedule["Name"])["ScheduleExpression"]
        for schedule in scheduler.list_schedules()["Schedules"]
    }
    assert "rate(5 minutes)" in expressions.values()
