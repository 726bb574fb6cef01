"""The start of an install in a browser: the install page, or an authorization link with a ticket.

A ticket opens the link of one connection, once. This module is not used by the install webhook itself.
"""

from __future__ import annotations

from typing import NamedTuple

from portaria.aws.light_client import AwsError
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.error_roots import Rejected
from portaria.core.http_request import HttpRequest
from portaria.core.item_keys import ticket_key
from portaria.webhooks.light_table import CONDITION_FAILED, Item, LightTable, text
from portaria.webhooks.oauth_client_cache import OAuthClientCache, unknown_client
from portaria.webhooks.oauth_state import (
    CLAIM_S,
    COOKIE,
    TOKEN,
    OAuthStates,
    code_challenge,
    code_verifier,
    epoch,
    sha256,
)

PAGE_READ_S = 2.0
# For each of the three calls that a ticket takes, after the client has been read: together inside the function's six seconds.
TICKET_S = 1.2


class InstallPageSession(NamedTuple):
    """An install page that was opened: the client, its one-time state, and the cookie that ties it to this browser."""

    client: OAuthClient
    state: Secret
    browser: Secret


class Authorization(NamedTuple):
    """A ticket that was used: a one-time state for this browser, and the scopes to request from the provider."""

    client: OAuthClient
    state: Secret
    browser: Secret
    scopes: str

    @property
    def code_challenge(self) -> str:
        return code_challenge(code_verifier(self.browser.reveal(), self.state))


class InstallSessions:
    """Opens install pages and authorization links."""

    def __init__(self, table: LightTable, clients: OAuthClientCache, states: OAuthStates) -> None:
        self._table = table
        self._clients = clients
        self._states = states

    def begin(self, request: HttpRequest) -> InstallPageSession:
        """Open the install page: a new state, and this browser's cookie, the old one where it has one.

        With the old cookie a person can open the page twice and finish either. Raises `Rejected` (`unknown_client`),
        `Retryable` and `AwsError`.
        """
        platform, name = request.path_parameter("platform"), request.path_parameter("client")
        client = self._client(platform, name)
        state, cookie = self._states.create(platform, name, request.cookie(COOKIE), CLAIM_S)
        return InstallPageSession(client, state, cookie)

    def authorize(self, request: HttpRequest, ticket: Secret) -> Authorization:
        """Use a ticket: a state for the connection that it was made for, bound to this browser.

        Raises `Rejected` (`unknown_client`, `unknown_ticket`, `expired_ticket`, `used_ticket`), `Retryable` and `AwsError`.
        The state is stored first, so a failure does not use the ticket; of two browsers that open one link, one continues.
        """
        platform, name = request.path_parameter("platform"), request.path_parameter("client")
        if not TOKEN.fullmatch(ticket.reveal()):
            raise _unknown_ticket()
        client = self._client(platform, name)
        item = self._unused(ticket, platform, name)
        bound = {field: text(item, field) for field in ("connection", "account_host")}
        state, cookie = self._states.create(platform, name, request.cookie(COOKIE), TICKET_S, bound)
        self._use(ticket, state)
        return Authorization(client, state, cookie, text(item, "scopes"))

    def _client(self, platform: str, name: str) -> OAuthClient:
        client = self._clients.find(platform, name, PAGE_READ_S)
        if client is None:
            raise unknown_client()
        return client

    def _unused(self, ticket: Secret, platform: str, client: str) -> Item:
        item = self._table.get(ticket_key(ticket.reveal()), TICKET_S)
        if item is None or (text(item, "platform"), text(item, "client")) != (platform, client):
            raise _unknown_ticket()
        # By the clock, since DynamoDB deletes expired items up to days late.
        if int(text(item, "expires_at") or 0) <= epoch(0):
            raise Rejected(
                "expired_ticket", "this link was good for 15 minutes: ask for a new one", field="ticket", status=404
            )
        if text(item, "used_by"):
            raise _used_ticket()
        return item

    def _use(self, ticket: Secret, state: Secret) -> None:
        try:
            self._table.update(
                ticket_key(ticket.reveal()),
                "SET #used_by = :used_by",
                # Or by this very call, which a broken connection may have carried out already.
                "attribute_exists(pk) AND (attribute_not_exists(#used_by) OR #used_by = :used_by)",
                {"used_by": sha256(state.reveal())},
                TICKET_S,
            )
        except AwsError as error:
            if error.code != CONDITION_FAILED:
                raise
            raise _used_ticket() from None


def _unknown_ticket() -> Rejected:
    return Rejected(
        "unknown_ticket", "this link was not given out here, or long ago: ask for a new one", field="ticket"
    )


def _used_ticket() -> Rejected:
    return Rejected("used_ticket", "this link has been opened already: ask for a new one", field="ticket", status=404)
