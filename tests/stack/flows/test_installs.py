"""Installs on the deployed template: real functions, roles, queues and table; only the platforms are simulated."""

from __future__ import annotations

import json

import pytest

from tests.fakes.local_cloud.scenes import Scene, wait_for
from tests.fakes.local_cloud.session import LocalCloud
from tests.fakes.paths import HOSTILE_REFERERS

HOSTILE = json.loads(HOSTILE_REFERERS.read_text())


def test_install_contacts_arrive_in_marketo_with_receipts(scene: Scene) -> None:
    munchkin = scene.send_to_marketo()
    host = scene.account(contacts=620)
    code = scene.code(host)
    assert scene.hook(code, host).status_code == 200

    (install,) = scene.wait_for_end()
    assert (install["state"], install["account_host"]) == ("connected", host)
    contacts = scene.cloud.control.kommo_contacts(host)["contacts"]
    emails = {
        field["values"][0]["value"]
        for contact in contacts
        for field in contact["custom_fields_values"] or []
        if field["field_code"] == "EMAIL"
    }
    persons = wait_for(lambda: scene.cloud.control.marketo_persons(munchkin), lambda found: len(found) >= len(emails))
    assert {person["attributes"]["email"] for person in persons} == emails
    requests = [request for request in scene.cloud.control.marketo_requests(munchkin) if request["status"] == 202]
    assert sum(request["objects"] for request in requests) >= len(emails)
    for request in requests:
        receipts = scene.cloud.dynamodb.query(
            TableName=scene.cloud.stack.table,
            IndexName="listing",
            KeyConditionExpression="list_pk = :destination",
            ExpressionAttributeValues={":destination": {"S": f"RECEIPTS#marketo-{scene.name}"}},
        )["Items"]
        assert request["request_id"] in {item["request_id"]["S"] for item in receipts if "request_id" in item}


def test_install_code_delivered_three_times_is_exchanged_once(scene: Scene) -> None:
    host = scene.account()
    code = scene.code(host)
    assert [scene.hook(code, host).status_code for _ in range(3)] == [200] * 3

    (install,) = scene.wait_for_end()
    assert install["state"] == "connected"
    wait_for(lambda: waiting(scene), lambda left: left == 0)
    assert scene.cloud.control.code_state(code)["calls"] == 1
    assert len(scene.installs()) == 1


def test_install_sqs_outage_is_swept_and_connects(scene: Scene) -> None:
    host = scene.account()
    with scene.cloud.stack.outage("accept_install", "sqs:SendMessage"):
        assert scene.hook(scene.code(host), host).status_code == 200
        assert scene.installs() == []

    (install,) = scene.wait_for_end()
    assert install["state"] == "connected"


def test_install_platform_failures_are_retried_and_connect(scene: Scene) -> None:
    host = scene.account()
    label = host.partition(".")[0]
    scene.cloud.control.set_fault("kommo", "status", account=label, path="/oauth2/access_token", status=502, count=1)
    scene.cloud.control.set_fault("kommo", "rate_limited", account=label, path="/api/v4/account", count=1)
    scene.cloud.control.set_fault("kommo", "dropped", account=label, path="/api/v4/webhooks", count=1)
    scene.hook(scene.code(host), host)

    (install,) = scene.wait_for_end()
    assert install["state"] == "connected"
    assert install["attempt_count"] == 4


def test_install_lost_answer_fails_with_reconnect_url(scene: Scene) -> None:
    host = scene.account()
    scene.cloud.control.set_fault(
        "kommo", "lost_answer", account=host.partition(".")[0], path="/oauth2/access_token", count=1
    )
    scene.hook(scene.code(host), host)

    (install,) = scene.wait_for_end()
    assert (install["state"], install["reason"]) == ("failed", "answer_lost")
    assert install["reconnect_url"] == f"{scene.install_url}/start"


def test_install_hook_hostile_referers_reach_no_host(scene: Scene) -> None:
    referers = [referer for group in HOSTILE.values() for referer in group]
    assert len(referers) >= 150
    before = scene.cloud.control.hosts()
    statuses = {scene.hook(f"code-{number}", referer).status_code for number, referer in enumerate(referers)}
    assert statuses <= {400, 414}

    assert scene.installs() == []
    after = scene.cloud.control.hosts()
    api = scene.cloud.public_url.split("/")[2]
    assert after["refused"] == before["refused"]
    assert {host for host in after["allowed"] if host != api} == {host for host in before["allowed"] if host != api}


def test_admin_api_without_signature_is_refused(stack: LocalCloud) -> None:
    for resource in ("oauth-clients", "connections", "routes", "installs"):
        assert stack.web.get(f"{stack.public_url}/admin/v1/{resource}").status_code == 403
        assert stack.admin.get(f"{stack.public_url}/admin/v1/{resource}").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_install_hook_method_other_than_get_is_refused(scene: Scene, method: str) -> None:
    answer = scene.cloud.web.request(method, scene.install_url, params={"code": "x", "referer": "a.kommo.com"})
    assert answer.status_code in (403, 404, 405)
    assert scene.installs() == []


def test_install_logs_hold_no_secret(scene: Scene) -> None:
    """Given an install and a refused one, then no function's log holds the code, a token or the client's secret."""
    host = scene.account()
    code = scene.code(host)
    scene.hook(code, host)
    scene.hook("canary-code-forged", "evil.example")
    scene.wait_for_end()

    messages: list[str] = []
    for group in scene.cloud.stack.log_groups.values():
        for page in scene.cloud.logs.get_paginator("filter_log_events").paginate(logGroupName=group):
            messages += [event["message"] for event in page["events"]]
    told = "\n".join(messages)
    assert host in told
    for secret in (code, "canary-code-forged", scene.client_secret, "refresh_token"):
        assert secret not in told


def waiting(scene: Scene) -> int:
    """Messages that are in the Exchanges queue or in a worker's hands."""
    names = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    ]
    url = scene.cloud.stack.queues["exchanges"]
    attributes = scene.cloud.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(value) for value in attributes.values())
