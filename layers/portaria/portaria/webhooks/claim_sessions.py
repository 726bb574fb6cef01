"""Claim links: a person confirms which customer of the team an account belongs to.

Opening the link shows a page with one button and changes nothing. The button's POST carries a state of this browser. Its one
write marks the link as used, stores the tags for the account's connection (`CLAIM#…`) and keeps a message for the worker that
attaches them (`installs.claims`); all three or none. This module is not used by the install webhook itself.
"""

from __future__ import annotations

import json
import time
from urllib.parse import parse_qsl, urlsplit

from portaria.aws.light_client import AwsError
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.cold_path.named_tuples import NamedTuple
from portaria.core.error_roots import Rejected, Retryable
from portaria.core.http.request import HttpRequest
from portaria.core.item_keys import claim_key
from portaria.webhooks.install_receiver import ARRIVALS, KEPT_LIFE_S
from portaria.webhooks.install_sessions import PAGE_READ_S, find_link, iso_now, read_link
from portaria.webhooks.light_table import CANCELED, LightTable, Value, text
from portaria.webhooks.oauth_client_cache import OAuthClientCache, unknown_client
from portaria.webhooks.oauth_state import COOKIE, OAuthStates, sha256, used_link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from portaria.webhooks.light_table import Item

CLAIM_LINK_S = 1.2
USED_BY = "claim"
MAX_FORM_BYTES = 1_000


class ClaimPage(NamedTuple):
    """A claim link that was opened: the client, and the state that the page's button sends."""

    client: OAuthClient
    state: Secret
    language: str = ""


class ConfirmedClaim(NamedTuple):
    client: OAuthClient
    language: str = ""
    return_url: str = ""


class ClaimSessions:
    """Opens claim links and confirms claims."""

    def __init__(self, table: LightTable, clients: OAuthClientCache, states: OAuthStates) -> None:
        self._table = table
        self._clients = clients
        self._states = states

    def open_link(self, request: HttpRequest, token: Secret, browser: str) -> ClaimPage:
        """Raises `Rejected` (`unknown_client`, `unknown_link`, `expired_link`, `used_link`), `Retryable` and `AwsError`."""
        client = self._client(request)
        link, item = find_link(self._table, token, client, ("claim",), CLAIM_LINK_S)
        if text(item, "used_by"):
            raise used_link()
        state = self._states.create(client.platform, client.name, browser, CLAIM_LINK_S, {"link": link})
        return ClaimPage(client, state, text(item, "language"))

    def confirm(self, request: HttpRequest) -> ConfirmedClaim:
        """Use the link of the page that this form was on. The same browser may send the form again, which changes nothing more.

        Raises `Rejected` (as `open_link`, `foreign_origin`, `bad_form` and as `OAuthStates.claim`), `Retryable` and `AwsError`.
        """
        client = self._client(request)
        check_origin(request, client)
        state = Secret(read_form(request).get("state", ""))
        owner = self._states.claim(state, client.platform, client.name, request.cookie(COOKIE), used_by=USED_BY)
        item = read_link(self._table, text(owner, "link"), client, ("claim",), CLAIM_LINK_S)
        used_by = sha256(state.reveal())
        if text(item, "used_by") not in ("", used_by):
            raise used_link()
        if not text(item, "used_by"):
            self._store(item, used_by)
        return ConfirmedClaim(client, text(item, "language"), text(item, "return_url"))

    def _client(self, request: HttpRequest) -> OAuthClient:
        client = self._clients.find(request.path_parameter("platform"), request.path_parameter("client"), PAGE_READ_S)
        if client is None:
            raise unknown_client()
        return client

    def _store(self, link: Item, used_by: str) -> None:
        owner = {name: text(link, name) for name in ("platform", "client", "account_id")}
        claim_pk, claim_sk = claim_key(**owner)
        now, ends_at = iso_now(), int(text(link, "ends_at"))
        claim: dict[str, Value] = {
            "pk": claim_pk,
            "sk": claim_sk,
            **owner,
            "link": text(link, "id"),
            "tags": text(link, "tags"),
            "claimed_at": now,
            "ends_at": ends_at,
            "expires_at": ends_at,
        }
        message: dict[str, Value] = {
            "pk": ARRIVALS,
            "sk": f"CLAIM#{text(link, 'id')}",
            "body": json.dumps({"version": 1, "claim": owner}, separators=(",", ":")),
            "expires_at": int(time.time()) + KEPT_LIFE_S,
        }
        try:
            self._table.update_and_put(
                (text(link, "pk"), text(link, "sk")),
                "SET #used_by = :used_by, #used_at = :used_at",
                "attribute_exists(pk) AND attribute_not_exists(#used_by)",
                {"used_by": used_by, "used_at": now},
                [claim, message],
                CLAIM_LINK_S,
            )
        except AwsError as error:
            if error.code != CANCELED:
                raise
            self._check_stored(link, used_by)

    def _check_stored(self, link: Item, used_by: str) -> None:
        """After a transaction was canceled: another one used the link, or this very one did, which was sent twice."""
        now = self._table.get((text(link, "pk"), text(link, "sk")), CLAIM_LINK_S)
        if now is None or text(now, "used_by") not in ("", used_by):
            raise used_link()
        if not text(now, "used_by"):
            raise Retryable("link_busy", "another request works on this link", after_s=1)


def check_origin(request: HttpRequest, client: OAuthClient) -> None:
    """Raises `Rejected` (`foreign_origin`) for a form that another site sent, as far as the browser says so.

    The state and its cookie prove where the form was; this is a second check. The pages are on the redirect URI's host.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    parts = urlsplit(client.redirect_uri)
    is_foreign = origin not in ("", "null", f"{parts.scheme}://{parts.netloc}".lower())
    if is_foreign or site not in ("", "same-origin", "none"):
        raise Rejected("foreign_origin", "this form was sent from another site", status=403)


def read_form(request: HttpRequest) -> dict[str, str]:
    """The fields of a form, each sent once. Raises `Rejected` (`bad_form`)."""
    content_type = request.headers.get("content-type").partition(";")[0].strip().lower()
    try:
        if (
            content_type != "application/x-www-form-urlencoded"
            or not request.body
            or len(request.body) > MAX_FORM_BYTES
        ):
            raise ValueError
        pairs = parse_qsl(request.body.decode("ascii"), keep_blank_values=True, max_num_fields=5, errors="strict")
        if len(dict(pairs)) < len(pairs):
            raise ValueError
    except ValueError:
        raise Rejected("bad_form", "the form is malformed: open the link again", field="state") from None
    return dict(pairs)
