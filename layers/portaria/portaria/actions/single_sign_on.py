"""Single sign-on: a user of another system opens a platform without logging in. A platform supports it by `sign_on`.

The platform issues a key that logs a browser in once. The other system gets a link instead, which works once and for two
minutes, so that the key never appears in its logs: the key stays sealed in the table until the link is opened.

    POST: data key → key from the platform → URL sealed with a new MAC key → table      link = {id}.{mac}
    GET:  read → unseal → compare the MAC → mark as used, unless it is → redirect to the URL

The seal is bound to the link's id and connection, the MAC also to its end. Opening an altered link does not invalidate the
original. If several browsers open one link at the same time, the conditional write accepts one. A death before the link is
stored leaves an unused key; a death after the link was marked leaves a used link, and the user requests another.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta

from portaria import platforms
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store, proxy_call
from portaria.connections.credential_stores import sealing
from portaria.connections.tokens import static_credentials
from portaria.connections.vault import Credentials, Vault
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable
from portaria.outbound import http_client

logger = logging.getLogger(__name__)

LIFE = timedelta(minutes=2)
# For this time an expired link is distinguished from an unknown one.
REMEMBERED = timedelta(hours=1)
FRONT_ENDS = ("default", "customer")
_TICKET = re.compile(r"([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")


def addresses(table: Table, vault_: Vault, name: str, user_identifier: str) -> dict[str, Secret]:
    """The URLs that log a browser in as a user, by front end. The first one that is opened works, the others then do not.

    Raises `Rejected` (404 `unknown_connection`; 409 `not_offered`, `no_credentials`, `user_refused`, `sign_on_refused`, and as
    `usability.check_usable`) and `Retryable`.
    """
    connection = connection_store.get(table, name)
    platform = platforms.load(connection.platform)
    sign_on = platform.offer(platform.sign_on)
    try:
        connection, credentials = static_credentials.static_credentials(table, vault_, connection)
        request = sign_on.sign_on_request(connection, credentials, user_identifier)
    except Rejected as rejected:
        raise proxy_call.with_advice(rejected, connection) from None
    try:
        response = http_client.send(request, allowed_domain=connection.allowed_domain, owner=connection.name)
        key = sign_on.read_key(response)
    except Retryable as later:
        # A key whose response was lost is harmless, and another can be requested.
        raise later.replaced(answer_lost=False) from None
    return sign_on.addresses(connection, key)


def begin(
    table: Table, vault_: Vault, sealing_key_id: str, name: str, user_identifier: str, front_end: str
) -> tuple[Secret, datetime]:
    """Returns a ticket that leads once to the URL at one of `FRONT_ENDS`, and its end. Raises as `addresses`."""
    ticket_id = secrets.token_urlsafe(16)
    # First the step that can fail: a key that cannot be sealed would be wasted.
    seal = sealing.prepare_seal(sealing_key_id, _context(ticket_id, name))
    address = addresses(table, vault_, name, user_identifier)[front_end]
    mac_key = secrets.token_urlsafe(32)
    ends_at = int((clock.now() + LIFE).timestamp())
    pk, sk = _key(ticket_id)
    table.put(
        {
            "pk": pk,
            "sk": sk,
            "connection": name,
            "sealed": seal.seal({"address": address, "mac_key": Secret(mac_key)}),
            "ends_at": ends_at,
            "expires_at": ends_at + int(REMEMBERED.total_seconds()),
        }
    )
    mac = _mac(mac_key, ticket_id, name, ends_at)
    return Secret(f"{ticket_id}.{mac}"), datetime.fromtimestamp(ends_at, UTC)


def redeem(table: Table, sealing_key_id: str, ticket: Secret) -> Secret:
    """Mark a ticket as used and return its URL.

    Raises `Rejected` (404 `altered_link`, `unknown_link`; 410 `used_link`, `expired_link`), and `Retryable` if KMS does not
    answer: the ticket can still be used then.
    """
    found = _TICKET.fullmatch(ticket.reveal())
    if not found:
        raise _altered()
    ticket_id, mac = found.groups()
    item = table.get(*_key(ticket_id))
    if not item:
        raise Rejected("unknown_link", "the link does not exist or is too old", status=404)
    if "used_at" in item:
        raise _used()
    if clock.now().timestamp() >= item["ends_at"]:
        raise Rejected("expired_link", "the link has expired: it works for two minutes", status=410)
    sealed = _unseal(sealing_key_id, ticket_id, item)
    expected = _mac(sealed["mac_key"].reveal(), ticket_id, item["connection"], item["ends_at"])
    # Compared as text: base64 has several texts for the same bytes.
    if not hmac.compare_digest(expected, mac):
        raise _altered()
    _use_up(table, ticket_id)
    logger.info("sign_on_link_opened", extra={"connection": item["connection"], "link": ticket_id})
    return sealed["address"]


def _use_up(table: Table, ticket_id: str) -> None:
    by = secrets.token_urlsafe(16)
    try:
        table.update(
            *_key(ticket_id),
            "SET used_at = :now, used_by = :by REMOVE sealed",
            condition="attribute_exists(pk) AND attribute_not_exists(used_at)",
            values={":now": clock.to_iso(clock.now()), ":by": by},
        )
    except Conflict as conflict:
        # A write that was sent twice, because its first answer was lost, conflicts with itself.
        if (conflict.item or {}).get("used_by") != by:
            raise _used() from None


def _unseal(sealing_key_id: str, ticket_id: str, item: Item) -> Credentials:
    """Raises `Rejected` (`altered_link`) if the item was changed or moved, and `Retryable`."""
    try:
        return sealing.unseal(sealing_key_id, _context(ticket_id, item["connection"]), item["sealed"])
    except Rejected:
        logger.warning("sign_on_seal_broken", extra={"link": ticket_id})
        raise _altered() from None


def _key(ticket_id: str) -> tuple[str, str]:
    return f"SSO#{ticket_id}", "SSO"


def _context(ticket_id: str, name: str) -> dict[str, str]:
    # No other sealed credential has this context key: the role that opens links can open nothing else (template.yaml).
    return {"ticket": f"{ticket_id}/{name}"}


def _mac(mac_key: str, ticket_id: str, name: str, ends_at: int) -> str:
    digest = hmac.digest(mac_key.encode(), f"{ticket_id}|{name}|{ends_at}".encode(), "sha256")
    return urlsafe_b64encode(digest).decode().rstrip("=")


def _altered() -> Rejected:
    return Rejected("altered_link", "the link was cut off or changed", status=404)


def _used() -> Rejected:
    return Rejected("used_link", "the link has been opened already", status=410)
