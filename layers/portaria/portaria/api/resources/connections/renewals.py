"""Renewing a connection's tokens before they are due."""

from __future__ import annotations

from portaria.api.operation import ApiRequest, Reply
from portaria.api.resources.connections import calls, connections
from portaria.connections import connection_store, proxy_call
from portaria.connections.tokens import usability
from portaria.core.errors import Rejected, Retryable

KIND = "oauth2"
CONFLICT = 409


def renew(asked: ApiRequest) -> Reply:
    """Exchange the refresh token of the connection's present generation for a new pair of tokens.

    This is the renewal of the schedule: it claims the same lease, sends the refresh token once, and stores the new pair before
    anything uses it. Where another worker has renewed the tokens since the connection was read, nothing is sent.

    Raises `Rejected`: 409 `not_offered` where there is no refresh token, `renewal_refused`, and, like `Retryable`, as
    `TokenProvider.renew`.
    """
    name, tokens = asked.path["name"], asked.context.tokens
    connection = connection_store.get(asked.context.table, name)
    try:
        usability.check_usable(connection)
        if connection.kind != KIND:
            raise Rejected(
                "not_offered", f"a connection of the kind {connection.kind} has no tokens to renew", status=CONFLICT
            )
        if "refresh_token" not in tokens.token(connection).credentials:
            raise Rejected("not_offered", "the platform gave this connection no refresh token", status=CONFLICT)
        tokens.renew(connection)
    except Rejected as rejected:
        if rejected.status != CONFLICT:
            detail = f"the platform refused to renew the tokens of {name}: {rejected.detail}"
            raise Rejected("renewal_refused", detail, status=CONFLICT) from None
        raise proxy_call.with_advice(rejected, connection) from None
    except Retryable as later:
        raise calls.what_became(later) from None
    return connections.reply(connection_store.get(asked.context.table, name))
