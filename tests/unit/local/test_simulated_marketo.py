"""The simulated Marketo: which bodies it accepts, and what they do to its objects."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from local.simulators.marketo import observability
from local.simulators.marketo.ingestion import ENDPOINTS
from local.simulators.marketo.instance import Instance, Report

PERSONS = {"persons": [{"email": "ana@a.example"}, {"email": "rui@a.example"}]}
MEMBERS = {"programs": [{"programId": 7, "status": "Invited", "members": [{"leadId": 1}, {"leadId": 9}]}]}


class Scene:
    def __init__(self) -> None:
        self.numbers = count()
        self.instance = Instance("123-abc-456", "client", "canary-secret", daily_quota=10)
        self.instance.define({"visit_c": {"dedupe_fields": ["visitId"], "link": "email"}})

    def send(self, path: str, body: dict[str, Any]) -> Report:
        """Apply an accepted request, and return its report."""
        endpoint = ENDPOINTS[path]
        objects = endpoint.read(body)
        assert objects is not None
        report = Report(f"request-{next(self.numbers)}", endpoint.object, "normal", "", "", 0.0, len(objects))
        endpoint.apply(self.instance, body, report, {"name": "visit_c"})
        self.instance.reports[report.request_id] = report
        return report

    def take_events(self) -> list[dict[str, Any]]:
        return observability.take_events(self.instance, 0.0)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("persons", {"persons": [], "unknown": 1}),
        ("persons", {"persons": ["text"]}),
        ("persons", {**PERSONS, "dedupeFields": {"field2": "email"}}),
        ("persons", {**PERSONS, "priority": "low"}),
        ("customobjects/{name}", {"customObjects": [{}], "dedupeBy": "email"}),
        ("companies", {"input": [{}], "dedupeBy": "idField"}),
        ("programmembers", {"programs": [{"programId": 7, "members": [{"leadId": 1}]}]}),
        ("lists", {"listId": "12", "input": [{"leadId": 1}]}),
    ],
)
def test_simulated_marketo_malformed_body_is_refused(path: str, body: dict[str, Any]) -> None:
    assert ENDPOINTS[path].read(body) is None


def test_simulated_marketo_person_is_created_then_updated(scene: Scene) -> None:
    assert scene.send("persons", PERSONS).created == 2
    report = scene.send("persons", {"persons": [{"email": "ana@a.example", "firstName": "Ana"}, {"firstName": "Rui"}]})
    assert (report.created, report.updated, report.failed) == (0, 1, {"400": 1})
    ana = scene.instance.persons["email", "ana@a.example"]
    assert (ana.attributes, ana.writes) == ({"email": "ana@a.example", "firstName": "Ana"}, 2)


def test_simulated_marketo_custom_object_waits_for_its_person(scene: Scene) -> None:
    report = scene.send("customobjects/{name}", {"customObjects": [{"visitId": 1, "email": "ANA@a.example"}]})
    assert (report.waiting, report.created) == (1, 0)
    scene.send("persons", PERSONS)
    assert (report.waiting, report.created) == (0, 1)
    custom_objects = scene.instance.dump_objects()["custom_objects"]
    assert (custom_objects["visit_c"]["waiting"], custom_objects["visit_c"]["waited"]) == (0, 1)


def test_simulated_marketo_company_actions_are_obeyed(scene: Scene) -> None:
    company = [{"externalCompanyId": "c-1"}]
    assert scene.send("companies", {"action": "updateOnly", "input": company}).failed == {"404": 1}
    assert scene.send("companies", {"action": "createOnly", "input": company}).created == 1
    assert scene.send("companies", {"action": "createOnly", "input": company}).failed == {"409": 1}
    assert scene.send("companies", {"input": [{}]}).failed == {"400": 1}


def test_simulated_marketo_program_and_list_members_must_be_known_leads(scene: Scene) -> None:
    scene.send("persons", PERSONS)
    added = scene.send("programmembers", MEMBERS)
    assert (added.created, added.failed, scene.instance.members) == (1, {"404": 1}, {7: {1: "Invited"}})
    removed = scene.send("programmembers/delete", {"programs": [{"programId": 7, "members": [{"leadId": 1}]}]})
    assert (removed.updated, scene.instance.members) == (1, {7: {}})
    listed = scene.send("lists", {"listId": 3, "input": [{"leadId": 2}, {"leadId": 9}]})
    assert (listed.updated, listed.failed, scene.instance.lists) == (1, {"404": 1}, {3: {2}})
    scene.send("lists/remove", {"listId": 3, "input": [{"leadId": 2}]})
    assert scene.instance.lists == {3: set()}


def test_simulated_marketo_quota_is_renewed_at_midnight_us_central(scene: Scene) -> None:
    before_midnight, midnight = 1_764_568_799.0, 1_764_568_800.0
    assert scene.instance.spend_quota(10, before_midnight)
    assert not scene.instance.spend_quota(1, before_midnight)
    assert scene.instance.spend_quota(1, midnight)


def test_simulated_marketo_outcome_is_reported_once(scene: Scene) -> None:
    scene.send("persons", PERSONS)
    results, status = scene.take_events()
    assert results["data"]["requests"][0]["records"] == {"received": 2, "created": 2, "updated": 0, "failed": {}}
    assert status["data"]["quota"] == 10
    visits = [{"visitId": 1, "email": "ana@a.example"}, {"visitId": 2, "email": "eva@a.example"}]
    scene.send("customobjects/{name}", {"customObjects": visits})
    assert scene.take_events()[0]["data"]["requests"][0]["records"]["created"] == 1
    assert [event["type"].rpartition(".")[2] for event in scene.take_events()] == ["status"]
