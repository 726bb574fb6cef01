"""Testing a connection with its platform's harmless request."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from portaria import platforms
from portaria.api.operation import ApiRequest, Reply
from portaria.api.resources.connections import calls
from portaria.api.schemas import Output
from portaria.connections import connection_store, proxy_call
from portaria.connections.tokens import usability
from portaria.connections.tokens.static_credentials import LOG_IN_KINDS
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable

WORKS, REFUSED, UNCLEAR = "works", "refused", "unclear"


class ConnectionTest(Output):
    """What the platform's response says about the connection's credentials."""

    state: Literal["works", "refused", "unclear"] = Field(
        description="`works`, `refused` (the credentials are refused or belong to another account) or `unclear`."
    )
    detail: str | None = Field(description="A sentence about a state that is not `works`, for people.")
    connection_state: Literal["pending", "connected", "needs_reconnect", "removed"] = Field(
        description="The connection's state after the test."
    )


def test(asked: ApiRequest) -> Reply:
    """Raises `Rejected`: 409 `not_offered` for a platform without a harmless request (`is_testable` is false), 409 where the
    connection is not connected, and as `calls.call` where no complete response came.

    A credential that the platform calls invalid ends the connection, as it does for a call.
    """
    table, name = asked.context.table, asked.path["name"]
    connection = connection_store.get(table, name)
    harmless = platforms.load(connection.platform).credential_test
    if not harmless:
        raise Rejected("not_offered", _why_not(connection), status=409)
    try:
        usability.check_usable(connection)
        response = asked.context.tokens.send(
            connection, lambda token: harmless.probe_request(connection, token.credentials)
        )
    except Rejected as rejected:
        raise proxy_call.with_advice(rejected, connection) from None
    except Retryable as later:
        raise calls.what_became(later) from None
    state, detail = WORKS, ""
    try:
        harmless.read_probe(response)
    except Rejected as refused:
        state, detail = REFUSED, refused.detail
    except Retryable as unclear:
        state, detail = UNCLEAR, unclear.detail
    after = connection_store.get(table, name)
    return Reply({"state": state, "detail": detail or None, "connection_state": after.state})


def _why_not(connection: Connection) -> str:
    """Why a connection cannot be tested, and what shows instead whether its credentials work."""
    detail = f"{connection.platform} has no request that tests a connection and is known to have no side effect"
    if connection.kind in LOG_IN_KINDS:
        return (
            f"{detail}; each new token needs a log-in that tests the credentials, and the connection's state shows it"
        )
    return f"{detail}; a call that you know to be harmless shows whether the credentials work"
