"""Records on the deployed template: from an event, and from a program written for Adobe's endpoint, to a known outcome."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.stack import ADOBE_CLIENT_ID
from tests.fakes.local_cloud.scenes import Scene, wait_for


def listed(scene: Scene, resource: str, **filters: str) -> list[dict[str, Any]]:
    answer = scene.cloud.admin.get(f"{scene.cloud.public_url}/admin/v1/{resource}", params=filters)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def test_records_kommo_event_is_applied_after_adobe_report(scene: Scene) -> None:
    munchkin, control = scene.send_to_marketo(), scene.cloud.control
    host = scene.account(contacts=3, without_email=0.0)
    scene.hook(scene.code(host), host)
    (install,) = scene.wait_for_end()
    wait_for(lambda: control.marketo_persons(munchkin), lambda found: len(found) == 3)

    contact = control.kommo_contacts(host)["contacts"][0]["id"]
    control.change_kommo(host, id=contact, fields={"email": "ana@example.com", "last_name": "Souza"})

    # The event proves the address; the missing name comes with the next read of the account.
    wait_for(lambda: control.marketo_persons(munchkin, "ana@example.com"), bool)
    scene.cloud.sqs.send_message(
        QueueUrl=scene.cloud.stack.queues["backfills"], MessageBody=json.dumps({"reconcile": "due"})
    )
    (person,) = wait_for(
        lambda: control.marketo_persons(munchkin, "ana@example.com"),
        lambda found: found[0]["attributes"].get("lastName") == "Souza",
    )
    destination = f"marketo-{scene.name}"
    of_contact = {"destination": destination, "record": f"{install['connection']}/{contact}"}
    receipts = wait_for(
        lambda: listed(scene, "receipts", **of_contact), lambda found: {each["state"] for each in found} == {"accepted"}
    )
    assert person["request_id"] in {each["request_id"] for each in receipts}

    webhook = f"{scene.cloud.public_url}/receipts/marketo"
    assert control.register_adobe_webhook(webhook, ADOBE_CLIENT_ID)
    # One event for each of at least two requests, and one with the quota; each twice, in both shapes.
    assert control.deliver_adobe_events(webhook, munchkin, shape="wrapped", times=2) >= 3
    assert control.deliver_adobe_events(webhook, munchkin) == 1
    receipts = listed(scene, "receipts", **of_contact)
    assert [(each["state"], each["applied_count"]) for each in receipts] == [
        ("applied", each["record_count"]) for each in receipts
    ]


def test_records_refused_person_becomes_dead_letter_and_is_redriven_with_trace(scene: Scene) -> None:
    munchkin, control = scene.send_to_marketo(), scene.cloud.control
    destination = f"marketo-{scene.name}"
    program = scene.create("private-integrations", name="BI", scopes=[f"records:send@{destination}"])
    control.change_marketo(munchkin, poison={"lastName": "Veneno"})
    names = [*(f"Souza {number}" for number in range(8)), "Veneno"]
    persons = [{"email": f"{number}@acme.example", "lastName": name} for number, name in enumerate(names)]

    answer = scene.cloud.web.post(
        f"{scene.cloud.public_url}/subscriptions/{munchkin}/persons",
        json={"priority": "high", "persons": persons},
        headers={
            "X-Mkto-User-Token": program["token"],
            "X-Correlation-Id": f"nightly {scene.name}",
            "X-Request-Source": "export",
        },
    )
    assert (answer.status_code, answer.content) == (202, b"")
    wait_for(lambda: control.marketo_persons(munchkin), lambda found: len(found) == 8)

    (letter,) = wait_for(lambda: listed(scene, "dead-letters", connection=destination), bool)
    assert (letter["reason"], letter["record_count"], letter["request"]) == (
        "refused_by_destination", 1, answer.headers["X-Request-Id"],
    )  # fmt: skip
    control.change_marketo(munchkin, poison={})
    url = f"{scene.cloud.public_url}/admin/v1/dead-letters/redrive"
    for dry_run, outcome in ((True, "would_redrive"), (False, "redriven")):
        done = scene.cloud.admin.post(url, json={"connection": destination, "dry_run": dry_run}).json()
        assert [each["outcome"] for each in done["letters"]] == [outcome]
    wait_for(lambda: control.marketo_persons(munchkin), lambda found: len(found) == 9)
    # The caller's headers reached Marketo with every request, including the redriven one, and find all of their receipts.
    sent = {(each["correlation_id"], each["request_source"]) for each in control.marketo_requests(munchkin)}
    assert sent == {(f"nightly {scene.name}", "export")}
    found = listed(scene, "receipts", correlation_id=f"nightly {scene.name}")
    assert {each["request_source"] for each in found} == {"export"}
    assert len(found) == len(listed(scene, "receipts", request=answer.headers["X-Request-Id"])) >= 3


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/people"), ("POST", "/customobjects/a/b"), ("GET", "/persons"), ("PUT", "/lists/remove"), ("DELETE", ""),
        ("OPTIONS", "/x"),
    ],
)  # fmt: skip
def test_accept_records_unknown_path_is_refused_in_platform_form(scene: Scene, method: str, path: str) -> None:
    answer = scene.cloud.web.request(method, f"{scene.cloud.public_url}/subscriptions/123-ABC-456{path}")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "404040")
    assert set(answer.json()) == {"error_code", "message"}


def test_resume_destination_sends_waiting_records_at_once(scene: Scene) -> None:
    munchkin, control = scene.send_to_marketo(), scene.cloud.control
    destination = f"marketo-{scene.name}"
    program = scene.create("private-integrations", name="BI", scopes=[f"records:send@{destination}"])
    control.change_marketo(munchkin, daily_quota=0)
    answer = scene.cloud.web.post(
        f"{scene.cloud.public_url}/subscriptions/{munchkin}/persons",
        json={"persons": [{"email": "ana@acme.example"}]},
        headers={"X-Mkto-User-Token": program["token"]},
    )
    assert answer.status_code == 202, answer.text
    wait_for(lambda: waiting(scene, destination), lambda found: found == 1)
    (paused,) = [each for each in listed(scene, "destinations") if each["name"] == destination]
    assert (paused["state"], paused["reason"], paused["waiting_record_count"]) == ("paused", "quota", 1)

    control.change_marketo(munchkin, daily_quota=10_000_000)
    url = f"{scene.cloud.public_url}/admin/v1/destinations/{destination}/resume"
    resumed = scene.cloud.admin.post(url).json()
    assert ([each["code"] for each in resumed["ended"]], resumed["waiting_record_count"]) == (["4290801"], 1)
    wait_for(lambda: control.marketo_persons(munchkin), lambda found: len(found) == 1)
    wait_for(lambda: [each["name"] for each in listed(scene, "destinations")], lambda found: destination not in found)


def test_records_for_exhausted_quota_wait_and_are_sent_after_new_credentials(scene: Scene) -> None:
    munchkin, control = scene.send_to_marketo(), scene.cloud.control
    destination = f"marketo-{scene.name}"
    program = scene.create("private-integrations", name="BI", scopes=[f"records:send@{destination}"])
    control.change_marketo(munchkin, daily_quota=0)
    for number in range(3):
        answer = scene.cloud.web.post(
            f"{scene.cloud.public_url}/subscriptions/{munchkin}/persons",
            json={"priority": "normal", "persons": [{"email": f"{number}@acme.example", "lastName": "Souza"}]},
            headers={"X-Mkto-User-Token": program["token"]},
        )
        assert answer.status_code == 202, answer.text
    wait_for(lambda: waiting(scene, destination), lambda found: found == 3)

    control.change_marketo(munchkin, daily_quota=10_000_000)
    replaced = scene.cloud.admin.put(
        f"{scene.cloud.public_url}/admin/v1/connections/{destination}/credentials",
        json={"credentials": {"client_id": destination, "client_secret": "canary-marketo-secret"}},
    )
    assert replaced.status_code == 200, replaced.text
    # The schedule runs once a minute
    wait_for(lambda: control.marketo_persons(munchkin), lambda found: len(found) == 3, 240.0)
    wait_for(lambda: waiting(scene, destination), lambda found: found == 0)
    assert listed(scene, "dead-letters", connection=destination) == []


def waiting(scene: Scene, destination: str) -> int:
    """The number of records that wait in the table for a destination."""
    item = scene.cloud.dynamodb.get_item(
        TableName=scene.cloud.stack.table,
        Key={"pk": {"S": f"PARKED#{destination}"}, "sk": {"S": "WAITING"}},
        ConsistentRead=True,
    ).get("Item", {})
    return int(item["waiting"]["N"]) if item else 0
