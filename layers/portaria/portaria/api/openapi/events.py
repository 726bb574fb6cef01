"""The section `webhooks`: the events that a stack sends to the webhooks of its owner's application."""

from __future__ import annotations

from typing import Any

from portaria.api.openapi import tags
from portaria.api.openapi.problems import REF
from portaria.core.event_catalogue import CATALOGUE, EventType

Document = dict[str, Any]

# https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
_HEADERS: dict[str, tuple[str, str]] = {
    "webhook-id": (
        "The id of the event. It is the same in each attempt: process it once.",
        "msg_2b8f0c4e6a2d4f7c9e3b5a1d",
    ),
    "webhook-timestamp": ("When the request was sent, in seconds since 1970. Refuse old ones.", "1795867200"),
    "webhook-signature": (
        "One or several signatures (HMAC-SHA256 of `id.timestamp.body`, in base64), separated by spaces.",
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    ),
}


def webhooks(schemas: Document) -> Document:
    """The path item of each event. Their schemas are added to the collection."""
    return {event.type: _item(event, schemas) for event in CATALOGUE.values()}


def schema_name(event: EventType) -> str:
    """`connection.needs_reconnect` → `ConnectionNeedsReconnectEvent`."""
    return "".join(word.capitalize() for word in event.type.replace(".", "_").split("_")) + "Event"


def _item(event: EventType, schemas: Document) -> Document:
    name = schema_name(event)
    schemas[name] = _complete(event)
    only = "" if event.on_bus else " It is not published on the event bus."
    return {
        "post": {
            "operationId": f"receive_{event.type.replace('.', '_')}",
            "tags": [tags.TAGS["events"][0]],
            "summary": event.title,
            "description": f"{event.description}{only} The request is signed as Standard Webhooks specifies.",
            "security": [],
            "parameters": [
                {
                    "name": header,
                    "in": "header",
                    "required": True,
                    "description": text,
                    "schema": {"type": "string"},
                    "example": example,
                }
                for header, (text, example) in _HEADERS.items()
            ],
            "requestBody": {
                "description": event.title + ".",
                "required": True,
                "content": {"application/json": {"schema": {"$ref": f"{REF}{name}"}, "example": event.webhook_example}},
            },
            "responses": {
                "2XX": {"description": "The event was received. It is not sent again."},
                "410": {"description": "The endpoint is gone. The webhook is disabled."},
                "default": {"description": "The event was not received. It is sent again later."},
            },
        }
    }


def _complete(event: EventType) -> Document:
    """The event's schema with a title, descriptions and examples."""
    schema, shown = event.webhook_schema, event.webhook_example
    data = schema["properties"]["data"]
    described = {field: each | {"examples": [shown["data"][field]]} for field, each in data["properties"].items()}
    properties = {field: each | {"examples": [shown[field]]} for field, each in schema["properties"].items()}
    properties["data"] |= {"description": event.description, "properties": described}
    return schema | {
        "title": schema_name(event),
        "description": f"{event.title}. {event.description}",
        "properties": properties,
        "examples": [shown],
    }
