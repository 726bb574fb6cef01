"""A simulated Marketo subscription and the objects stored in it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo


@dataclass
class StoredObject:
    """A person, company or custom object. Each upsert replaces the attributes that it contains; `writes` counts the upserts.

    `id` is Marketo's own: a person's lead id, a company's `id`, a custom object's `marketoGUID`. `created_by` is the id of the
    first request with the object, `request_id` that of the last.
    """

    attributes: dict[str, Any]
    writes: int = 1
    partition: str = ""
    request_id: str = ""
    created_by: str = ""
    id: int = 0


@dataclass
class CustomObject:
    """A custom object's definition, and its records by their dedupe fields.

    `link` is the field that names a person by e-mail address. A record whose person does not exist waits for the person, as in
    Marketo, which waits for 65 minutes. `waited` counts such records.
    """

    dedupe_fields: tuple[str, ...]
    link: str = ""
    records: dict[tuple[Any, ...], StoredObject] = field(default_factory=dict)
    waiting: list[tuple[dict[str, Any], Report]] = field(default_factory=list)
    waited: int = 0


@dataclass
class Report:
    """The outcomes of one accepted request's objects since its last event. `waiting` counts objects without an outcome yet."""

    request_id: str
    object: str
    priority: str
    correlation_id: str
    request_source: str
    requested_at: float
    received: int
    waiting: int = 0
    created: int = 0
    updated: int = 0
    failed: Counter[str] = field(default_factory=Counter)


@dataclass
class Instance:
    """A Marketo subscription with one API user.

    The next `zero_lives` answers of the identity service contain `expires_in: 0`. A request is rejected with 4000802 if one of
    its objects has an attribute with a value in `poison`. `failed` lists persons of accepted requests that lack a dedupe value.
    `members` has the status of each lead id by program, `lists` the lead ids of static lists, `reports` the outcomes that no
    event has reported yet, by request id. `recent` has the monotonic times of requests, for the rate limit.
    """

    munchkin: str
    client_id: str
    client_secret: str
    token_life_s: int = 3600
    daily_quota: int = 10_000_000
    requests_per_s: int = 5_000
    token: str = ""
    token_expires_at: float = 0.0
    tokens_issued: int = 0
    zero_lives: int = 0
    poison: dict[str, Any] = field(default_factory=dict)
    persons: dict[tuple[Any, ...], StoredObject] = field(default_factory=dict)
    companies: dict[str, StoredObject] = field(default_factory=dict)
    custom_objects: dict[str, CustomObject] = field(default_factory=dict)
    members: dict[int, dict[int, str]] = field(default_factory=dict)
    lists: dict[int, set[int]] = field(default_factory=dict)
    emails: dict[str, int] = field(default_factory=dict)
    ids: int = 0
    reports: dict[str, Report] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    quota_day: str = ""
    quota_used: int = 0
    recent: deque[float] = field(default_factory=deque)

    def next_id(self) -> int:
        self.ids += 1
        return self.ids

    def define(self, definitions: Mapping[str, Mapping[str, Any]]) -> None:
        """Define custom objects by their API names, each with its `dedupe_fields` and an optional `link`."""
        for name, given in definitions.items():
            self.custom_objects[name] = CustomObject(tuple(given["dedupe_fields"]), given.get("link", ""))

    def spend_quota(self, objects: int, now: float) -> bool:
        """Take from the daily quota, which is renewed at midnight US Central. False if not enough is left."""
        day = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo("America/Chicago")).date().isoformat()
        if day != self.quota_day:
            self.quota_day, self.quota_used = day, 0
        if self.quota_used + objects > self.daily_quota:
            return False
        self.quota_used += objects
        return True

    def dump_objects(self) -> dict[str, Any]:
        """Every stored object except persons."""
        return {
            "custom_objects": {
                name: {
                    "records": [asdict(record) for record in each.records.values()],
                    "waiting": len(each.waiting),
                    "waited": each.waited,
                }
                for name, each in self.custom_objects.items()
            },
            "companies": [asdict(company) for company in self.companies.values()],
            "members": {str(program): leads for program, leads in self.members.items()},
            "lists": {str(number): sorted(leads) for number, leads in self.lists.items()},
        }
