"""Changes of contacts in simulated Kommo accounts, and the deliveries of their events.

The version of a contact is its phone number. Kommo's events have it, and the default mapping sends it to Marketo. They have no
`first_name` and `last_name` (docs/fidelity.md), so an event changes neither name in Marketo.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from local.control import Control

# Of all contacts that change: the part whose event comes twice, the part whose event comes after that of a newer change, and
# the part with two events at the same time, the newer one first.
TWICE, BEHIND, CONCURRENT = 0.05, 0.05, 0.05

Contact = dict[str, Any]
Form = list[tuple[str, str]]


@dataclass
class Change:
    """A change of one contact: a new one, the contact `contact_id`, or the contact of an earlier change (`after`)."""

    control: Control
    host: str
    fields: dict[str, str]
    contact_id: int | None = None
    after: Change | None = None
    _form: Form | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self) -> Form:
        """Change the contact in its account, at the first call only. Returns the form of Kommo's event."""
        with self._lock:
            if self._form is None:
                contact_id = self.after.contact_id if self.after else self.contact_id
                known = {} if contact_id is None else {"id": contact_id}
                # The benchmark delivers the event itself, so that it knows when, how often and in which order.
                done = self.control.change_kommo(self.host, **known, fields=self.fields, lost=True)
                self.contact_id = done["id"]
                self._form = [(name, value) for name, value in done["event"]]
            return self._form


@dataclass(frozen=True)
class Event:
    """One delivery of the event of a change.

    `is_alone` says that the contact is new and has no other event, `is_late` that the event of a newer change came long before.
    """

    tenant: int
    email: str
    change: Change
    is_alone: bool = False
    is_late: bool = False


class ContactChanges:
    """Changes of contacts in the accounts `hosts`, as deliveries of their events.

    `newest` has each contact's newest version, by e-mail address, `concurrent` the contacts with two events at the same time.
    """

    def __init__(self, control: Control, name: str, hosts: list[str]) -> None:
        self._control, self._name, self._hosts = control, name, hosts
        self._numbers = iter(range(1, 10**9))
        self._chance = random.Random(5)
        self.newest: dict[str, str] = {}
        self.concurrent: set[str] = set()

    def draw(
        self, count: int, tenants: list[int], known: list[Contact], owner: int | None = None, *, behind_by: int
    ) -> Iterator[Event]:
        """About `count` deliveries, of each tenant as many. The contacts of the tenant `owner` are among `known`, which a
        backfill brings as well; all others are new. A late event comes `behind_by` deliveries after the newer one."""
        sampled = iter(self._chance.sample(known, min(len(known), count)))
        late: deque[tuple[int, Event]] = deque()
        number = 0
        while number < count:
            tenant = tenants[number % len(tenants)]
            events = self._changed(tenant, next(sampled)) if tenant == owner else self._created(tenant)
            if len(events) == 2 and events[1].is_late:
                late.append((number + behind_by, events.pop()))
            if late and late[0][0] <= number:
                events.append(late.popleft()[1])
            yield from events
            number += len(events)
        yield from (event for _, event in late)

    def note(self, contacts: list[Contact]) -> None:
        """Add contacts whose present version must arrive."""
        self.newest |= {email_of(contact): version_of(contact) for contact in contacts}

    def compare(self, persons: list[dict[str, Any]]) -> tuple[set[str], set[str]]:
        """Return the missing and the outdated contacts in Marketo. `persons` has the attributes of its contacts."""
        standing = {person["email"]: person.get("phone", "") for person in persons}
        stale = {email for email, version in self.newest.items() if standing.get(email, version) != version}
        return self.newest.keys() - standing.keys(), stale

    def _created(self, tenant: int) -> list[Event]:
        email = f"{self._name}-{next(self._numbers)}@example.com"
        change = Change(
            self._control, self._hosts[tenant], {"name": "Load Person", "email": email, **self._version(email)}
        )
        return self._deliveries(tenant, email, change, is_new=True)

    def _changed(self, tenant: int, contact: Contact) -> list[Event]:
        email = email_of(contact)
        change = Change(self._control, self._hosts[tenant], self._version(email), contact["id"])
        return self._deliveries(tenant, email, change, is_new=False)

    def _deliveries(self, tenant: int, email: str, change: Change, *, is_new: bool) -> list[Event]:
        kind = self._chance.random()
        if kind < BEHIND + CONCURRENT:
            change.make()
            newer = Change(self._control, change.host, self._version(email), after=change)
            is_late = kind < BEHIND
            if not is_late:
                self.concurrent.add(email)
            # Kommo delivers an event again minutes after an attempt that failed. The contact may have changed since.
            return [Event(tenant, email, newer), Event(tenant, email, change, is_late=is_late)]
        if kind < BEHIND + CONCURRENT + TWICE:
            return [Event(tenant, email, change)] * 2
        return [Event(tenant, email, change, is_alone=is_new)]

    def _version(self, email: str) -> dict[str, str]:
        self.newest[email] = f"+55119{next(self._numbers):08d}"
        return {"phone": self.newest[email]}


def email_of(contact: Contact) -> str:
    return _first_value(contact, "EMAIL")


def version_of(contact: Contact) -> str:
    """Empty for a contact that never had a phone number."""
    return _first_value(contact, "PHONE")


def _first_value(contact: Contact, code: str) -> str:
    fields = [each for each in contact["custom_fields_values"] or [] if each["field_code"] == code]
    return str(fields[0]["values"][0]["value"]) if fields else ""
