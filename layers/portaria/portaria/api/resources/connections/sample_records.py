"""Sample records of a connection, as a mapping receives them: for previews of routes. Nothing is stored."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from pydantic import Field

from portaria import platforms
from portaria.api.operation import ApiRequest, Filters, Reply, page
from portaria.api.resources.connections import calls
from portaria.api.schemas import Output, Time
from portaria.api.validation import Matching
from portaria.connections import connection_store, proxy_call
from portaria.connections.tokens import usability
from portaria.connections.tokens.cache import Token
from portaria.core import clock, redaction
from portaria.core.callbacks import Record
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable, TokenRefused
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client
from portaria.platforms.record_protocols import PagedObject

FILTERS: Filters = {"object": Matching(r"[a-z][a-z_]{0,63}", "the object to read, such as contacts")}
DEFAULT_OBJECT = "contacts"
# The newest changes are read where the platform can list them. A busy account lists older ones of this time first.
RECENT = timedelta(days=1)
# A longer record is left out: the editor's form carries each record.
MAX_RECORD_CHARACTERS = 20_000


class SampleRecord(Output):
    """A record of the connection's account."""

    id: str = Field(description="The record's id at its platform.")
    updated_at: Time | None = Field(description="When the record was last changed.")
    data: dict[str, Any] = Field(
        description="The record in the shape that a mapping receives. Values that look like credentials are `***`."
    )


def list_page(asked: ApiRequest) -> Reply:
    """The newest first, on one page. Raises `Rejected`: 409 `not_offered` for an object that the platform cannot list, 409
    where the connection cannot be used; and `Retryable`.
    """
    connection = connection_store.get(asked.context.table, asked.path["name"])
    name = asked.filters.get("object", DEFAULT_OBJECT)
    source = platforms.load(connection.platform).paged_object(name)
    if not source:
        raise Rejected("not_offered", f"{connection.platform} cannot list {name}", field="object", status=409)
    try:
        usability.check_usable(connection)
        found = _read(asked, connection, name, source)
    except Rejected as rejected:
        if isinstance(rejected, TokenRefused):
            raise rejected.replaced(status=409) from None
        raise proxy_call.with_advice(rejected, connection) from None
    except Retryable as later:
        raise calls.what_became(later) from None
    found.sort(key=lambda record: record.updated_at, reverse=True)
    shown = (_show(record) for record in found)
    return page([each for each in shown if each][: asked.limit], None)


def _read(asked: ApiRequest, connection: Connection, name: str, source: PagedObject) -> list[Record]:
    """Recent changes, else the first page of the object. Raises `Rejected` and `Retryable`."""
    tokens = asked.context.tokens

    def send(request: Request) -> Response:
        return http_client.send(request, allowed_domain=connection.allowed_domain, owner=connection.name)

    def read(token: Token) -> list[Record]:
        access_token, host = token.credentials["access_token"], connection.allowed_domain
        changed = platforms.load(connection.platform).changed_object(name)
        if changed:
            since = int((clock.now() - RECENT).timestamp())
            if records := changed.read_changes(send, host, access_token, since, "").records:
                return records
        return source.read_page(send, host, access_token, 1).records

    token = tokens.token(connection)
    try:
        return read(token)
    except TokenRefused:
        newer = tokens.refresh_after_401(connection, token)
        if newer is None:
            raise
        return read(newer)


def _show(record: Record) -> dict[str, Any] | None:
    """None for a record that is too long, or nested too deeply, to be a sample."""
    try:
        masked = redaction.masked(record.data)
        if len(json.dumps(masked, ensure_ascii=False)) > MAX_RECORD_CHARACTERS:
            return None
    except RecursionError:
        return None
    updated_at = clock.epoch_to_iso(record.updated_at) if record.updated_at > 0 else None
    return {"id": record.key, "updated_at": updated_at, "data": masked}
