"""The simulated Kommo: changes in an account, and the events that it sends for them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest

from local.simulators.kommo import webhooks
from local.simulators.kommo.events import event_form
from local.simulators.kommo.simulator import Kommo
from local.simulators.kommo.state import Account
from local.simulators.world import BadInstruction, World
from portaria.core.callbacks import EventAddress, Events, WebhookDelivery
from portaria.platforms.kommo import events
from tests.fakes.paths import ROOT

HOST = "acme.kommo.com"
CAPTURED = ROOT / "tests" / "platforms" / "kommo" / "deliveries"


class Scene:
    """An account with one webhook, which responds with `answers` in turn, then with 200."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World()
        self.kommo = Kommo(self.world)
        self.kommo.state.limits.event_minute_s = 0.0
        self.account = self.kommo.state.add_account("acme", contacts=3)
        hook = {"destination": "https://api.example.com/events", "disabled": False}
        self.account.webhooks.append(hook | {"settings": ["add_contact", "update_contact", "delete_contact"]})
        self.answers: list[str] = []
        self.forms: list[list[tuple[str, str]]] = []

        async def deliver(account: Account, hook: dict[str, Any], form: list[tuple[str, str]]) -> str:
            self.forms.append(form)
            return self.answers.pop(0) if self.answers else "200"

        monkeypatch.setattr(self.kommo.webhooks, "deliver", deliver)

    def change(self, **change: Any) -> dict[str, Any]:
        async def change_and_deliver() -> dict[str, Any]:
            changed = await self.kommo.change(HOST, **change)
            while self.kommo.webhooks.retries:
                await asyncio.gather(*self.kommo.webhooks.retries)
            return changed

        return asyncio.run(change_and_deliver())

    def read(self) -> Events:
        """The last event, as the product reads it."""
        body = urlencode(self.forms[-1]).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        delivery = WebhookDelivery(headers, body, int(self.world.clock.now()) + 1, lambda *_: False)
        return events.read(delivery, EventAddress(str(self.account.id)))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_simulated_kommo_new_contact_is_listed_and_sends_event(scene: Scene) -> None:
    made = scene.change(fields={"first_name": "Ana", "last_name": "Souza", "email": "ana@example.com"})
    assert made["answers"] == ["200"]
    listed = scene.account.contacts.contacts[-1]
    assert (listed["id"], listed["name"]) == (made["id"], "Ana Souza")
    assert made["id"] not in [each["id"] for each in scene.account.contacts.contacts[:-1]]
    assert abs(made["updated_at"] - scene.world.clock.now()) < 5
    (record,) = scene.read().records["contacts"]
    assert (record.key, record.updated_at) == (str(made["id"]), made["updated_at"])
    # No captured event has the parts of a name.
    assert record.data["name"] == "Ana Souza"
    assert not {"first_name", "last_name"} & record.data.keys()
    (email,) = record.data["custom_fields_values"]
    assert (email["field_code"], email["values"][0]["value"]) == ("EMAIL", "ana@example.com")


def captured_names() -> set[str]:
    """The fields of captured events, without their numbers."""
    forms = [json.loads(path.read_text())["form"] for path in CAPTURED.glob("captured_202*.json")]
    return {re.sub(r"[0-9]+", "0", name).replace("[add]", "[update]") for form in forms for name in form}


def test_simulated_kommo_event_has_only_captured_fields(scene: Scene) -> None:
    many = scene.kommo.state.add_account("many", contacts=200)
    told = {
        re.sub(r"[0-9]+", "0", name)
        for contact in many.contacts.contacts
        for name, _ in event_form(many, "update", "contact", contact)
    }
    assert len(told) > 15
    assert told <= captured_names()


def test_simulated_kommo_event_of_checkbox_and_birthday_is_as_captured(scene: Scene) -> None:
    contact = scene.account.contacts.contacts[0] | {
        "custom_fields_values": [
            {"field_id": 1, "field_name": "News", "field_code": None, "field_type": "checkbox", "values": [{"value": True}]},
            {"field_id": 2, "field_name": "Born", "field_code": None, "field_type": "birthday", "values": [{"value": -1}]},
        ]
    }  # fmt: skip
    form = dict(event_form(scene.account, "update", "contact", contact))
    start = "contacts[update][0][custom_fields]"
    assert form[f"{start}[0][values][0][value]"] == "1"
    assert form[f"{start}[1][values][0][value]"] == "31.12.1969"


def test_simulated_kommo_lost_event_is_not_sent(scene: Scene) -> None:
    contact = scene.account.contacts.contacts[0]
    changed = scene.change(id=contact["id"], fields={"phone": "+15550001"}, lost=True)
    assert (changed["answers"], scene.forms) == ([], [])
    assert scene.account.contacts.contacts[0]["updated_at"] == changed["updated_at"]


def test_simulated_kommo_failed_event_is_sent_five_times(scene: Scene) -> None:
    scene.answers = ["503", "no answer", "503", "503"]
    assert scene.change(fields={"name": "Ana"})["answers"] == ["503"]
    assert len(scene.forms) == 5


@pytest.mark.parametrize(("answers", "times"), [(["404"] * 9, 3), (["503"] * 9, 5), (["302", "200"], 2)])
def test_simulated_kommo_event_attempts_depend_on_answer(scene: Scene, answers: list[str], times: int) -> None:
    scene.answers = answers
    scene.change(fields={"name": "Ana"})
    assert len(scene.forms) == times


def test_simulated_kommo_duplicate_and_deletion_events_are_sent(scene: Scene) -> None:
    contact = scene.account.contacts.contacts[0]["id"]
    assert scene.change(id=contact, fields={"name": "Ana"}, times=2)["answers"] == ["200", "200"]
    scene.change(id=contact, delete=True)
    assert scene.read().left["deleted"] == 1
    assert contact not in [each["id"] for each in scene.account.contacts.contacts]


def test_simulated_kommo_company_event_is_sent_among_contacts_when_subscribed(scene: Scene) -> None:
    assert scene.change(kind="company", fields={"name": "Padaria"})["answers"] == []
    scene.account.webhooks[0]["settings"].append("update_company")
    company = scene.account.contacts.companies[-1]["id"]
    scene.change(kind="company", id=company, fields={"website": "https://padaria.example"})
    (record,) = scene.read().records["companies"]
    assert record.key == str(company)
    assert record.data["custom_fields_values"][0]["field_code"] == "WEB"


def test_simulated_kommo_disabled_webhook_receives_nothing(scene: Scene) -> None:
    scene.account.webhooks[0]["disabled"] = True
    assert scene.change(fields={"name": "Ana"})["answers"] == []


@pytest.mark.parametrize("change", [{"id": 7}, {"kind": "lead"}, {"fields": {"shoe_size": "43"}}])
def test_simulated_kommo_invalid_change_is_refused(scene: Scene, change: dict[str, Any]) -> None:
    with pytest.raises(BadInstruction):
        scene.change(**change)


def test_simulated_kommo_webhook_failing_too_often_is_disabled() -> None:
    kommo = Kommo(World())
    account = kommo.state.add_account("acme")
    # No process listens there.
    hook: dict[str, Any] = {"destination": "http://127.0.0.1:9/events", "disabled": False}
    account.bad_answers["http://127.0.0.1:9/events"] = webhooks.MAX_BAD_ANSWERS
    account.webhooks.append(hook)
    assert not webhooks.is_success("302")
    assert webhooks.is_success("299")
    kommo.webhooks.count_answer(account, hook, "503")
    assert hook["disabled"]
    assert account.delivered == {"503": 1}
