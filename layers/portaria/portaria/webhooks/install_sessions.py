"""The start of an install in a browser: the install page, with or without an install link.

A link's token is in its URL; `installs.install_links` creates links. What the link holds (tags, return URL, connection) goes
from its item into the state of this browser. This module is not used by the install webhook itself.
"""

from __future__ import annotations

from portaria.aws.light_client import AwsError
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.cold_path.named_tuples import NamedTuple
from portaria.core.error_roots import Rejected
from portaria.core.http.request import HttpRequest
from portaria.core.item_keys import install_link_id, install_link_key
from portaria.webhooks.customer_return import POPUP
from portaria.webhooks.light_table import CONDITION_FAILED, LightTable, text
from portaria.webhooks.oauth_client_cache import OAuthClientCache, unknown_client
from portaria.webhooks.oauth_state import TOKEN, OAuthStates, code_challenge, code_verifier, epoch, sha256, used_link
from portaria.webhooks.time_budget import TimeBudget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from portaria.webhooks.light_table import Item

PAGE_READ_S = 2.0
# For one call after the client has been read, and for all that a link takes: together inside the function's six seconds.
CALL_S, LINK_S = 1.5, 3.6
# What a state holds of its link. `connection` goes with `account_host`, for a provider that is asked for one connection.
BOUND = ("account_id", "tags", "return_url", "language")
BOUND_TO_CONNECTION = ("connection", "account_host")


class InstallSession(NamedTuple):
    """An install that was started: the client, a one-time state for this browser, and the scopes to request of the provider
    that a link was made for. `language` is the link's, empty for the browser's. `return_url` is where the customer returns to,
    and `display` is `popup` for an install in a window that the application opened."""

    client: OAuthClient
    state: Secret
    browser: Secret
    scopes: str = ""
    language: str = ""
    return_url: str = ""
    display: str = ""

    @property
    def code_challenge(self) -> str:
        return code_challenge(code_verifier(self.browser.reveal(), self.state))


class InstallSessions:
    """Opens install pages and install links."""

    def __init__(self, table: LightTable, clients: OAuthClientCache, states: OAuthStates) -> None:
        self._table = table
        self._clients = clients
        self._states = states

    def begin(self, request: HttpRequest, browser: str) -> InstallSession:
        """Open the install page without a link: a new state for this browser.

        Raises `Rejected` (`unknown_client`), `Retryable` and `AwsError`.
        """
        client = self._client(request)
        state = self._states.create(client.platform, client.name, browser, CALL_S)
        return InstallSession(client, state, Secret(browser))

    def open_link(self, request: HttpRequest, token: Secret, browser: str) -> InstallSession:
        """Open an install link: a state with what the link holds, for this browser.

        A link for a single use belongs to the browser that opens it first, which gets the same state each time. The state is
        stored before the link is marked, so a failure does not use the link up. Raises `Rejected` (`unknown_client` and as
        `find_link`), `Retryable` and `AwsError`.
        """
        client = self._client(request)
        budget = TimeBudget(hook_s=LINK_S, work_s=LINK_S)
        link, item = find_link(self._table, token, client, ("install", "reconnect"), budget.part(CALL_S))
        is_single = text(item, "single_use") == "1"
        if is_single and text(item, "used_by") not in ("", sha256(browser)):
            raise used_link()
        names = BOUND + (BOUND_TO_CONNECTION if text(item, "account_host") else ())
        display = POPUP if request.query.get("display") == [POPUP] else ""
        bound = {"link": link} | {name: value for name in names if (value := text(item, name))}
        if display:
            bound["display"] = display
        state = self._states.create(
            client.platform,
            client.name,
            browser,
            budget.part(CALL_S) / 2,
            bound,
            once=token.reveal() if is_single else "",
        )
        if is_single:
            self._use(link, browser, budget.part(CALL_S))
        return InstallSession(
            client,
            state,
            Secret(browser),
            text(item, "scopes"),
            text(item, "language"),
            text(item, "return_url"),
            display,
        )

    def _client(self, request: HttpRequest) -> OAuthClient:
        client = self._clients.find(request.path_parameter("platform"), request.path_parameter("client"), PAGE_READ_S)
        if client is None:
            raise unknown_client()
        return client

    def _use(self, link: str, browser: str, timeout_s: float) -> None:
        try:
            self._table.update(
                install_link_key(link),
                "SET #used_by = :used_by, #used_at = if_not_exists(#used_at, :used_at)",
                "attribute_exists(pk) AND (attribute_not_exists(#used_by) OR #used_by = :used_by)",
                {"used_by": sha256(browser), "used_at": iso_now()},
                timeout_s,
            )
        except AwsError as error:
            if error.code != CONDITION_FAILED:
                raise
            raise used_link() from None


def find_link(
    table: LightTable, token: Secret, client: OAuthClient, purposes: tuple[str, ...], timeout_s: float
) -> tuple[str, Item]:
    """A link's id and item. Raises `Rejected` (`unknown_link`, `expired_link`), `Retryable` and `AwsError`."""
    if not TOKEN.fullmatch(token.reveal()):
        raise unknown_link()
    link = install_link_id(token.reveal())
    return link, read_link(table, link, client, purposes, timeout_s)


def read_link(table: LightTable, link: str, client: OAuthClient, purposes: tuple[str, ...], timeout_s: float) -> Item:
    """A link's item. Raises as `find_link`; a link of another client or for another purpose is unknown here."""
    item = table.get(install_link_key(link), timeout_s)
    if item is None or (text(item, "platform"), text(item, "client")) != (client.platform, client.name):
        raise unknown_link()
    if text(item, "purpose") not in purposes:
        raise unknown_link()
    # By the clock, since DynamoDB deletes expired items up to days late, and links are kept for a week after their end.
    if int(text(item, "ends_at") or 0) <= epoch(0):
        raise Rejected("expired_link", "this link has expired: ask for a new one", field="link", status=404)
    return item


def unknown_link() -> Rejected:
    return Rejected("unknown_link", "this link was not given out here, or long ago: ask for a new one", field="link")


def iso_now() -> str:
    from portaria.core import clock  # noqa: PLC0415 - the receiver has imported it; here only links need it

    return clock.to_iso(clock.now())
