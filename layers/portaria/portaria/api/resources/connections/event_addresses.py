"""Making the address that a platform's events come to, where nobody but a person can tell the platform of it."""

from __future__ import annotations

import secrets
from datetime import timedelta

from pydantic import Field

from portaria import platforms
from portaria.api.operation import ApiRequest, Reply
from portaria.api.schemas import Output, Time
from portaria.connections import connection_store, webhook_endpoints
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected


class EventAddress(Output):
    """A webhook URL to enter at the platform. It and the secret of its header are returned once."""

    url: str = Field(description="The URL that the platform must send its events to.")
    header_name: str | None = Field(
        description="The header that the platform must send with each event. Null if no header is needed."
    )
    header_value: str | None = Field(description="The secret value of that header. Null if no header is needed.")
    previous_until: Time = Field(description="Until when earlier URLs of the connection work.")


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_connection`, 409 `not_offered`, `subscribes_itself`) and `Retryable`."""
    table, name = asked.context.table, asked.path["name"]
    connection = connection_store.get(table, name)
    if connection.state == "removed":
        raise Rejected("unknown_connection", f"the connection {name} has been removed", field="connection", status=404)
    platform = platforms.load(connection.platform)
    events = platform.offer(platform.events)
    if connection.client:
        detail = (
            "an install subscribes to its account's events by itself: install the application again to change the URL"
        )
        raise Rejected("subscribes_itself", detail, field="connection", status=409)
    key = Secret(secrets.token_urlsafe(webhook_endpoints.KEY_BYTES))
    header_name = events.SECRET_HEADER or None
    header = Secret(secrets.token_urlsafe(webhook_endpoints.KEY_BYTES)) if header_name else None
    if not webhook_endpoints.open_address(table, connection, key, header):
        raise Rejected(
            "connection_changed", "the connection has just been created again: read it and try again", status=409
        )
    base_url = webhook_endpoints.base_urls(asked.context.event_endpoints, asked.api_url)[0]
    told = {"url": Secret(f"{base_url}/events/{connection.platform}/{name}/{key.reveal()}")}
    told |= {"header_value": header} if header else {}
    until = clock.to_iso(clock.now() + timedelta(seconds=webhook_endpoints.OVERLAP_S))
    return Reply({"header_name": header_name, "header_value": None, "previous_until": until}, once=told)
