"""docs/events.md, generated from the catalogue of events; `python -m portaria.api.openapi.event_document` prints it."""

from __future__ import annotations

import json
import sys

from portaria.core.event_catalogue import CATALOGUE, EventField, EventType, Schema

_INTRODUCTION = """\
# Events

Generated from the catalogue in `layers/portaria/portaria/core/event_catalogue.py` by `make openapi`. Do not edit it.

Portaria publishes these events. They arrive in two ways:

- **On the stack's event bus** (EventBridge, output `BusName`). `source` is `portaria`, `detail-type` is the event's name, and
  `detail` is the payload.
- **As webhooks to your application**, signed by the [Standard Webhooks](https://www.standardwebhooks.com) specification. The
  body has `type`, `timestamp`, and the payload as `data`. [webhooks.md](webhooks.md) says how to receive and verify them.

Both deliver each event **at least once and in any order**. Process a repeated event only once: a webhook's `webhook-id` is
the same in each attempt. No payload holds a secret. `version` is the version of the payload: a field that is added may be
optional in the same version; a field that changes its meaning, or that is removed, raises it.

A webhook subscribes to events by name (`connection.ready`), by family (`connection.*`), or to all of them (`*`).

"""


def document() -> str:
    rows = "\n".join(f"| [`{event.type}`](#{_anchor(event)}) | {event.title} |" for event in CATALOGUE.values())
    sections = "\n".join(map(_section, CATALOGUE.values()))
    return f"{_INTRODUCTION}| event | meaning |\n|---|---|\n{rows}\n\n{sections}"


def _anchor(event: EventType) -> str:
    return event.type.replace(".", "")


def _section(event: EventType) -> str:
    rows = "\n".join(map(_row, event.fields))
    only = "" if event.on_bus else "\nIt is not published on the bus.\n"
    return (
        f"## {event.type}\n\n{event.description}\n{only}\n| field | type | meaning |\n|---|---|---|\n"
        f"| `version` | `{event.version}` | The version of this payload. |\n{rows}\n\n"
        f"```json\n{json.dumps(event.webhook_example, indent=2, ensure_ascii=False)}\n```\n"
    )


def _row(field: EventField) -> str:
    optional = ", optional" if field.is_optional else ""
    return f"| `{field.name}` | {_kind(field.schema)}{optional} | {field.description} |"


def _kind(schema: Schema) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    return str(schema.get("format") or schema["type"])


if __name__ == "__main__":
    sys.stdout.write(document())
