"""Every event that this project publishes: on its event bus, and as a webhook to the team's application.

docs/events.md and the section `webhooks` of docs/openapi.yaml are generated from `CATALOGUE`, and the tests hold each event
that any test publishes against its schema. A payload has no other field than those of its event. To add a required field or
to change a field's meaning, raise the event's `version`; an optional field may be added without that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

CONNECTION_READY = "connection.ready"
NEEDS_RECONNECT = "connection.needs_reconnect"
RECOVERED = "connection.recovered"
REFRESH_REFUSED = "connection.refresh_refused"
ROTATION_DUE = "connection.rotation_due"
REMOVED = "connection.removed"
TAGGED = "connection.tagged"
INSTALL_FAILED = "install.failed"
RECORD_DEAD_LETTERED = "record.dead_lettered"
DESTINATION_STOPPED = "destination.stopped"
DESTINATION_PAUSED = "destination.paused"
DESTINATION_RESUMED = "destination.resumed"
QUOTA_LOW = "quota.low"
PRIVATE_INTEGRATION_ROTATION_DUE = "private_integration.rotation_due"
WEBHOOK_DISABLED = "webhook.disabled"
WEBHOOK_TEST = "webhook.test"

# What a webhook may subscribe to: an event's name, all events of a family, or all events.
_PREFIX = re.compile(r"([a-z_]+\.)?\*")

TEXT: Schema = {"type": "string"}
TIME: Schema = {"type": "string", "format": "date-time"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TAGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


@dataclass(frozen=True)
class EventField:
    """One field of a payload. An optional field is absent from events that were published before it was added."""

    name: str
    schema: Schema
    description: str
    example: Any
    is_optional: bool = False


@dataclass(frozen=True)
class EventType:
    """One event. `on_bus` is false for an event that only a webhook receives."""

    type: str
    title: str
    description: str
    fields: tuple[EventField, ...]
    version: int = 1
    on_bus: bool = True

    @property
    def schema(self) -> Schema:
        """The payload's JSON Schema (draft 2020-12). It allows no further fields."""
        version = {"const": self.version, "type": "integer", "description": "The version of this payload."}
        fields = {field.name: field.schema | {"description": field.description} for field in self.fields}
        required = ["version", *(field.name for field in self.fields if not field.is_optional)]
        return {
            "type": "object",
            "additionalProperties": False,
            "required": required,
            "properties": {"version": version, **fields},
        }

    @property
    def example(self) -> dict[str, Any]:
        return {"version": self.version, **{field.name: field.example for field in self.fields}}

    @property
    def webhook_schema(self) -> Schema:
        """The JSON Schema of a webhook's body."""
        return {
            "type": "object",
            "additionalProperties": False,
            "required": ["type", "timestamp", "data"],
            "properties": {
                "type": {"const": self.type, "type": "string", "description": "The name of the event."},
                "timestamp": TIME | {"description": "When the event was published. It stays the same in each attempt."},
                "data": self.schema,
            },
        }

    @property
    def webhook_example(self) -> dict[str, Any]:
        return {"type": self.type, "timestamp": "2026-11-28T12:00:00.000000Z", "data": self.example}


_CONNECTION = EventField("connection", TEXT, "The name of the connection.", "oauth2-acme-31234567")
_PLATFORM = EventField("platform", TEXT, "The platform.", "oauth2")
_CLIENT = EventField("client", TEXT, "The name of the OAuth client. Empty if the connection has none.", "acme")
_LABEL = EventField("label", TEXT, "The name of the account at the platform. Empty if it is not known.", "Acme Ltda")
_GENERATION = EventField(
    "generation", COUNT, "Grows with each change of the connection's credentials. A smaller number is older.", 3
)
_TAGS = EventField(
    "tags",
    TAGS,
    "The tags of the connection or the install, such as `customer_id`.",
    {"customer_id": "c-1024"},
)
_AGE_DAYS = EventField("age_days", COUNT, "The age of the credentials in days.", 80)
_DESTINATION = EventField("connection", TEXT, "The name of the destination's connection.", "marketo-main")
_OBJECT = EventField(
    "object", TEXT, "The destination's object, such as `persons`. Empty if all objects are affected.", "persons"
)
_CODE = EventField("code", TEXT, "The destination's own code or HTTP status.", "1029")
_PAUSE_REASON: Schema = {"type": "string", "enum": ["quota", "stopped", "busy", "no_answer"]}

_EVENTS = (
    EventType(
        CONNECTION_READY,
        "A connection is ready",
        "An install was completed: the connection has credentials that work.",
        (_CONNECTION, _PLATFORM, _CLIENT, _GENERATION, _TAGS),
    ),
    EventType(
        NEEDS_RECONNECT,
        "A connection must be connected again",
        "The platform ended the grant, or the credentials are no longer accepted. Send the customer `reconnect_url`.",
        (
            _CONNECTION,
            _PLATFORM,
            _CLIENT,
            _LABEL,
            _GENERATION,
            EventField("reason", TEXT, "Why: a stable word.", "grant_revoked"),
            EventField(
                "reconnect_url",
                TEXT,
                "Where the customer connects the account again. Empty if an administrator must enter new credentials.",
                "https://portaria.example.com/install/oauth2/acme?connection=oauth2-acme-31234567",
            ),
            _TAGS,
        ),
    ),
    EventType(
        RECOVERED,
        "A connection works again",
        "A connection that needed to be connected again has working credentials.",
        (_CONNECTION, _PLATFORM, _CLIENT, _LABEL, _GENERATION, _TAGS),
    ),
    EventType(
        REFRESH_REFUSED,
        "A platform refuses to refresh a token",
        "Published once a day while the platform refuses. The connection needs to be connected again at `ends_at` if that "
        "does not change.",
        (
            _CONNECTION,
            _PLATFORM,
            _CLIENT,
            _LABEL,
            EventField("detail", TEXT, "What the platform answered, without credentials.", "the platform answered 403"),
            EventField("refused_since", TIME, "When the refusals began.", "2026-11-27T09:00:00.000000Z"),
            EventField("ends_at", TIME, "When Portaria stops trying.", "2026-12-04T09:00:00.000000Z"),
            _TAGS,
        ),
    ),
    EventType(
        ROTATION_DUE,
        "Credentials should be rotated",
        "Credentials that a person entered are 80 or 90 days old.",
        (_CONNECTION, _PLATFORM, _AGE_DAYS, _TAGS),
    ),
    EventType(
        REMOVED,
        "A connection was removed",
        "The customer uninstalled the integration, or the connection was deleted. Its credentials are deleted.",
        (
            _CONNECTION,
            _PLATFORM,
            _CLIENT,
            _LABEL,
            EventField("why", TEXT, "`uninstalled` or `deleted`.", "uninstalled"),
            _TAGS,
        ),
    ),
    EventType(
        TAGGED,
        "A connection got tags",
        "A connection that exists was tagged: a person confirmed a claim link, or an install that was overtaken by a later one "
        "brought tags. Tags that an API call sets are not announced.",
        (_CONNECTION, _PLATFORM, _CLIENT, _TAGS),
    ),
    EventType(
        INSTALL_FAILED,
        "An install failed",
        "The authorization code could not be exchanged. The customer must start again at `reconnect_url`.",
        (
            EventField("install_id", TEXT, "The id of the install.", "4f1c2a9b8e7d4c3b"),
            _PLATFORM,
            EventField("client", TEXT, "The name of the OAuth client.", "acme"),
            EventField("account_host", TEXT, "The host of the account. Empty if it is not known.", "acme.example.com"),
            EventField("reason", TEXT, "Why: a stable word.", "code_expired"),
            EventField("detail", TEXT, "The reason as a sentence.", "the code reached the end of its life"),
            EventField(
                "reconnect_url",
                TEXT,
                "Where the customer can try again. Empty if it is not known.",
                "https://portaria.example.com/install/oauth2/acme",
            ),
            _TAGS,
        ),
    ),
    EventType(
        RECORD_DEAD_LETTERED,
        "Records became dead letters",
        "Records of one route could not be delivered for one reason. At most one event a minute is published for each route "
        "and reason; a count may be reported twice, never lost.",
        (
            EventField("route", TEXT, "The name of the route. Empty if the message could not be read.", "contacts"),
            EventField("reason", TEXT, "Why: a stable word.", "refused_by_destination"),
            EventField("record_count", {"type": "integer", "minimum": 1}, "How many records.", 12),
            EventField("minute", TIME, "The minute in which they were set aside.", "2026-11-28T12:00:00.000000Z"),
        ),
    ),
    EventType(
        DESTINATION_STOPPED,
        "A destination refuses everything",
        "A person must act at the destination, for example because its credentials lack a right. Records wait.",
        (
            _DESTINATION,
            _OBJECT,
            _CODE,
            EventField("detail", TEXT, "The destination's answer as a sentence.", "the quota of API users is used up"),
            _TAGS,
        ),
    ),
    EventType(
        DESTINATION_PAUSED,
        "A destination is paused",
        "Records for the destination wait until it accepts records again.",
        (
            _DESTINATION,
            _OBJECT,
            EventField(
                "reason",
                _PAUSE_REASON,
                "`quota`: the daily quota is used up. `stopped`: a person must act. `busy`: the destination asked for a longer "
                "wait. `no_answer`: the destination does not answer in time.",
                "quota",
            ),
            _CODE,
            EventField("until", TIME, "When the destination is tried again.", "2026-11-29T06:00:30.000000Z"),
            _TAGS,
        ),
    ),
    EventType(
        DESTINATION_RESUMED,
        "A destination is resumed",
        "The destination accepted records again after a pause, whether the pause passed or an operator ended it.",
        (
            _DESTINATION,
            _OBJECT,
            EventField("reason", _PAUSE_REASON, "Why it was paused.", "quota"),
            EventField("paused_since", TIME, "When the pause began.", "2026-11-28T18:00:00.000000Z"),
            _TAGS,
        ),
    ),
    EventType(
        QUOTA_LOW,
        "A daily quota is nearly used up",
        "Less than 20 % of a destination's daily quota is left. Published once a day for each subscription.",
        (
            EventField("subscription", TEXT, "Whose quota it is.", "123-ABC-456"),
            EventField("day", {"type": "string", "format": "date"}, "The day of the quota.", "2026-11-28"),
            EventField("left_percent", {"type": "integer", "maximum": 100}, "How much is left, in percent.", 19),
        ),
    ),
    EventType(
        PRIVATE_INTEGRATION_ROTATION_DUE,
        "A private integration's token should be rotated",
        "A token of this project's own API is 80 or 90 days old.",
        (
            EventField("private_integration", TEXT, "The id of the private integration.", "4fZ0aQ9xTb"),
            EventField("name", TEXT, "Its name.", "warehouse"),
            EventField("age_days", COUNT, "The age of the token in days.", 80),
        ),
    ),
    EventType(
        WEBHOOK_DISABLED,
        "A webhook was disabled",
        "Its endpoint answered 410, or every attempt failed for five days. Nothing is sent to it until it is enabled again.",
        (
            EventField("webhook", TEXT, "The id of the webhook.", "wh_8b1f0c4e6a2d4f7c9e3b5a1d"),
            EventField("url", TEXT, "Its URL, without the query string.", "https://app.example.com/webhooks"),
            EventField("reason", {"type": "string", "enum": ["gone", "failing"]}, "`gone`: 410. `failing`.", "failing"),
            EventField(
                "failing_since", TIME, "The first failure since the last success.", "2026-11-23T12:00:00.000000Z"
            ),
        ),
    ),
    EventType(
        WEBHOOK_TEST,
        "A test",
        "Sent by `POST /v1/webhooks/{id}/test`, to that webhook only, whatever events it subscribes to.",
        (EventField("webhook", TEXT, "The id of the webhook.", "wh_8b1f0c4e6a2d4f7c9e3b5a1d"),),
        on_bus=False,
    ),
)

CATALOGUE: dict[str, EventType] = {event.type: event for event in _EVENTS}


def payload(event_type: str, detail: dict[str, Any]) -> dict[str, Any]:
    """A detail with its version. Raises `ValueError` for an event that the catalogue does not have."""
    known = CATALOGUE.get(event_type)
    if known is None:
        raise ValueError(f"{event_type} is not in the catalogue of events")
    return {"version": known.version, **detail}


def is_selector(text: str) -> bool:
    """Whether a webhook may subscribe to this: `connection.ready`, `connection.*` or `*`."""
    if _PREFIX.fullmatch(text):
        return any(selects(text, name) for name in CATALOGUE)
    return text in CATALOGUE


def selects(selector: str, event_type: str) -> bool:
    """Whether a webhook with this selector receives an event."""
    return event_type.startswith(selector[:-1]) if selector.endswith("*") else selector == event_type
