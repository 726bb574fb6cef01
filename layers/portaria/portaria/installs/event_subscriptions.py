"""Subscriptions to the event webhooks of a connected account."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from portaria import platforms
from portaria.aws.table import Table
from portaria.connections import connection_store, request_budget, webhook_endpoints
from portaria.connections.vault import Credentials
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client
from portaria.outbound.request_slots import Priority

if TYPE_CHECKING:
    from portaria.platforms.protocols import WebhookSubscriptions

Send = Callable[[Request], Response]


def event_urls(
    connection: Connection, client: OAuthClient, credentials: Credentials | None, endpoints: str
) -> list[str]:
    """The URLs that a platform may send a connection's events to, that of new subscriptions first.

    One for each of `endpoints` (the setting `event_endpoints`). The URL at the API is empty if the redirect URI is not the
    API's own. All are empty without credentials.
    """
    redirect_uri = client.redirect_uri.rstrip("/")
    base_url = redirect_uri.removesuffix(f"/install/{client.platform}/{client.name}")
    bases = webhook_endpoints.base_urls(endpoints, "" if base_url == redirect_uri else base_url)
    if not credentials:
        return ["" for _ in bases]
    path = f"/events/{connection.platform}/{connection.name}/{credentials['webhook_key'].reveal()}"
    return [base and base + path for base in bases]


def subscribe(
    table: Table,
    connection: Connection,
    client: OAuthClient,
    credentials: Credentials | None,
    send: Send,
    *,
    endpoints: str,
) -> None:
    """Subscribe to an account's event webhooks. `send` sends the requests to the account.

    The address is open before the platform learns of it, so no event is refused. The address of an older grant is not opened
    again, and nothing is sent then. A subscription at another endpoint is deleted after the platform has accepted this one;
    a death between the two leaves both, and the next call deletes it. Raises `Rejected` where the account may not have
    webhooks, and what `send` raises.
    """
    destination, *others = event_urls(connection, client, credentials, endpoints)
    if not credentials or not destination:
        return
    if not webhook_endpoints.open_address(table, connection, credentials["webhook_key"]):
        return
    webhooks = _webhooks(connection)
    request = webhooks.subscribe_request(connection.allowed_domain, credentials["access_token"], destination)
    webhooks.read_answer(send(request))
    endpoint = destination.partition("/events/")[0]
    # Also without others: during a gradual deployment, a version that knows another endpoint must see that this one is new.
    if webhook_endpoints.subscribed_endpoint(table, connection) == endpoint:
        return
    for other in others:
        unsubscribe(table, connection, credentials, other, send)
    webhook_endpoints.record_endpoint(table, connection, endpoint)


def subscribe_installed(
    table: Table, connection: Connection, client: OAuthClient, credentials: Credentials | None, *, endpoints: str
) -> None:
    """Subscribe an account that has just been installed. An account that may not have webhooks gets a note.

    Raises `Retryable`.
    """
    try:
        subscribe(table, connection, client, credentials, partial(_send, table, connection), endpoints=endpoints)
    except Rejected as refused:
        table.update(
            *connection_store.key(connection.name),
            "SET notes = :notes",
            condition="generation = :generation",
            values={":notes": [refused.detail], ":generation": connection.generation},
        )


def unsubscribe(
    table: Table,
    connection: Connection,
    credentials: Credentials | None,
    destination: str,
    send: Send | None = None,
) -> None:
    """Delete the subscription of the URL `destination`. An account that refuses keeps it: its events are refused here.

    Without credentials or a destination nothing is sent. Raises `Retryable`, and what `send` raises.
    """
    if not credentials or not destination:
        return
    webhooks = _webhooks(connection)
    request = webhooks.unsubscribe_request(connection.allowed_domain, credentials["access_token"], destination)
    with suppress(Rejected):
        webhooks.read_answer(send(request) if send else _send(table, connection, request))


def _send(table: Table, connection: Connection, request: Request) -> Response:
    request_budget.wait(table, connection.platform, Priority.EXCHANGE)
    return http_client.send(request, allowed_domain=connection.allowed_domain, owner=connection.name)


def _webhooks(connection: Connection) -> WebhookSubscriptions:
    platform = platforms.load(connection.platform)
    return platform.require(platform.webhook_subscriptions)
