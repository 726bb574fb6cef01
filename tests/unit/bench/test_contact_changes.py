"""What `record_load` sends: events as Kommo sends them, whose order decides which version Marketo ends with."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, cast
from urllib.parse import urlencode

import pytest

from bench.records.contact_changes import ContactChanges, Event
from local.control import Control
from local.simulators.kommo.simulator import Kommo
from local.simulators.world import World
from portaria.core.callbacks import EventAddress, Record, WebhookDelivery
from portaria.platforms.kommo import events
from portaria.platforms.kommo.contacts import DEFAULT_MAPPING
from portaria.records.mapping.record_mapping import Mapping

FORM = {"content-type": "application/x-www-form-urlencoded"}


class Account:
    """A simulated Kommo account, the control call that changes its contacts, and the persons that its events lead to."""

    def __init__(self) -> None:
        self.kommo = Kommo(World())
        self.account = self.kommo.state.add_account("load", contacts=200, without_email=0.0)
        self.persons: dict[str, dict[str, Any]] = {}
        self.seconds = iter(range(1_800_000_000, 1_900_000_000))

    def change_kommo(self, host: str, **change: Any) -> dict[str, Any]:
        second = next(self.seconds)
        self.kommo.state.clock.now = lambda: second  # type: ignore[method-assign]
        return asyncio.run(self.kommo.change(host, **change))

    def read(self, event: Event) -> Record:
        """The event as the product reads it."""
        delivery = WebhookDelivery(FORM, urlencode(event.change.make()).encode(), 2_000_000_000, lambda *_: False)
        (record,) = events.read(delivery, EventAddress(str(self.account.id))).records["contacts"]
        return record

    def deliver(self, record: Record) -> None:
        attributes, is_incomplete = Mapping(DEFAULT_MAPPING.items()).apply_partial(record.data)
        assert is_incomplete
        self.persons.setdefault(attributes["email"], {}).update(attributes)


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def changes(account: Account) -> ContactChanges:
    return ContactChanges(cast(Control, account), "load", [account.account.host])


def test_compare_older_event_delivered_last_is_stale(account: Account, changes: ContactChanges) -> None:
    drawn = list(changes.draw(200, [0], [], behind_by=20))
    for event in drawn:
        account.deliver(account.read(event))
    missing, stale = changes.compare(list(account.persons.values()))
    behind = {event.email for event in drawn if event.change.after}
    assert behind
    assert (missing, stale) == (set(), behind)


def test_compare_only_newest_version_delivered_is_not_stale(account: Account, changes: ContactChanges) -> None:
    known = account.account.contacts.contacts
    changes.note(known)
    drawn = list(changes.draw(200, [0], known, owner=0, behind_by=20))
    newest: dict[str, int] = {}
    for record in (account.read(event) for event in drawn):
        if newest.get(record.key, 0) <= record.updated_at:
            newest[record.key] = record.updated_at
            account.deliver(record)
    missing, stale = changes.compare(list(account.persons.values()))
    assert any(event.change.after for event in drawn)
    assert (missing & {event.email for event in drawn}, stale) == (set(), set())


def test_compare_event_not_delivered_is_missing(account: Account, changes: ContactChanges) -> None:
    first, *others = changes.draw(50, [0], [], behind_by=20)
    for event in others:
        account.deliver(account.read(event))
    missing, _ = changes.compare(list(account.persons.values()))
    assert missing == {first.email}


def test_draw_late_event_comes_after_newer_one_and_concurrent_event_at_once(changes: ContactChanges) -> None:
    drawn = list(changes.draw(400, [0], [], behind_by=20))
    at = {id(event.change): number for number, event in enumerate(drawn)}
    gaps: dict[bool, set[int]] = {True: set(), False: set()}
    for older in drawn:
        # Late events of the last ones come at the end, as soon as all others have been sent.
        newer = next((at[id(each.change)] for each in drawn if each.change.after is older.change), 400)
        if newer < 350:
            gaps[older.is_late].add(at[id(older.change)] - newer)
    assert min(gaps[True]) >= 20
    assert gaps[False] == {1}
    assert {event.email for event in drawn if event.change.after} > changes.concurrent > set()


def test_draw_event_twice_is_one_change_of_the_account(account: Account, changes: ContactChanges) -> None:
    drawn = list(changes.draw(200, [0], [], behind_by=20))
    for event in drawn:
        event.change.make()
    twice = [one for one, other in itertools.pairwise(drawn) if one.change is other.change]
    assert twice
    assert not any(event.is_alone for event in twice)
    made = [each for each in account.account.contacts.contacts if str(each["name"]) == "Load Person"]
    assert len(made) == len({event.email for event in drawn})
