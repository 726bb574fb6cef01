"""OAuth states: each is used once, by the browser and for the client that it was made for (RFC 6749, 10.12).

The table holds only the hashes of a state and of its browser's cookie. This module is on the webhooks' cold path: no boto3, no
Powertools.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import time

from portaria.aws.light_client import AwsError
from portaria.core.callbacks import Secret
from portaria.core.error_roots import Rejected
from portaria.webhooks.light_table import CONDITION_FAILED, LightTable, Value, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from portaria.webhooks.light_table import Item

# A browser's cookie, which ties a state to that browser.
COOKIE = "__Host-portaria"
COOKIE_LIFE_S = 30 * 60
STATE_LIFE_S = 30 * 60
# A person waits for this call, not a webhook.
CLAIM_S = 1.5
# What a state is used by once the customer has refused.
REFUSED = "refused"
# The form of states, cookies and links' tokens: 32 bytes.
TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


class OAuthStates:
    """Creates states and marks them as used."""

    def __init__(self, table: LightTable) -> None:
        self._table = table

    def create(
        self,
        platform: str,
        client: str,
        browser: str,
        timeout_s: float,
        bound: dict[str, str] | None = None,
        *,
        once: str = "",
    ) -> Secret:
        """Store a state for the browser with this cookie, and return it.

        `bound` are further attributes of the item: what an install link holds. With `once`, a link's token, a browser gets the
        same state each time. Raises `Rejected` (`used_link`) where that state is used, `Retryable` and `AwsError`.
        """
        state = _derive(browser, f"state:{once}") if once else random_token()
        pk, sk = _key(state)
        item: dict[str, Value] = {
            "pk": pk,
            "sk": sk,
            "platform": platform,
            "client": client,
            "browser": sha256(browser),
            "expires_at": epoch(STATE_LIFE_S),
            **(bound or {}),
        }
        try:
            self._table.put(item, timeout_s, condition="attribute_not_exists(pk)" if once else "")
        except AwsError as error:
            if error.code != CONDITION_FAILED:
                raise
            self._extend(state, timeout_s)
        return Secret(state)

    def _extend(self, state: str, timeout_s: float) -> None:
        """Let a state that this browser has had before, and has not used, live for its whole time again."""
        condition = "attribute_exists(pk) AND (attribute_not_exists(#used_by) OR #used_by = :refused)"
        values: dict[str, str | int] = {"expires_at": epoch(STATE_LIFE_S), "refused": REFUSED}
        try:
            self._table.update(_key(state), "SET #expires_at = :expires_at", condition, values, timeout_s)
        except AwsError as error:
            if error.code != CONDITION_FAILED:
                raise
            raise used_link() from None

    def claim(self, state: Secret, platform: str, client: str, browser: str, *, used_by: str) -> Item:
        """Mark a state as used: only by the browser and for the client it was made for, or again by the same `used_by`.

        Returns the state's item. Raises `Rejected` (`unknown_state`, `foreign_state`, `expired_state`, `used_state`),
        `Retryable` and `AwsError`.
        """
        if not TOKEN.fullmatch(state.reveal()):
            raise _unknown_state()
        if not TOKEN.fullmatch(browser):
            raise _foreign_state()
        conditions = (
            "#platform = :platform AND #client = :client AND #browser = :browser AND #expires_at > :now",
            # A customer who said no can change their mind, as long as there is a link to come back by.
            "(attribute_not_exists(#used_by) OR #used_by = :used_by OR (#used_by = :refused AND attribute_exists(#link)))",
        )
        values: dict[str, str | int] = {
            "platform": platform,
            "client": client,
            "browser": sha256(browser),
            "used_by": used_by,
            "refused": REFUSED,
            "now": epoch(0),
        }
        try:
            return self._table.update(
                _key(state.reveal()), "SET #used_by = :used_by", " AND ".join(conditions), values, CLAIM_S
            )
        except AwsError as error:
            if error.code != CONDITION_FAILED:
                raise
            raise self._why_not(state, platform, client, browser) from None

    def _why_not(self, state: Secret, platform: str, client: str, browser: str) -> Rejected:
        item = self._table.get(_key(state.reveal()), CLAIM_S)
        if item is None:
            return _unknown_state()
        owner = text(item, "platform"), text(item, "client"), text(item, "browser")
        if owner != (platform, client, sha256(browser)):
            return _foreign_state()
        # By the clock, since DynamoDB deletes expired items up to days late.
        if int(text(item, "expires_at") or 0) <= epoch(0):
            return Rejected("expired_state", "the install page was opened more than 30 minutes ago", field="state")
        return Rejected("used_state", "this state has been used already", field="state")


def code_verifier(browser: str, state: Secret) -> Secret:
    """PKCE's secret (RFC 7636, 4.1) of one authorization. It is derived from the browser's cookie, so it is stored nowhere."""
    return Secret(_derive(browser, f"pkce:{state.reveal()}"))


def _derive(browser: str, purpose: str) -> str:
    """43 characters that only the holder of the browser's cookie knows."""
    return _base64url(hmac.digest(browser.encode(), purpose.encode(), "sha256"))


def code_challenge(verifier: Secret) -> str:
    """RFC 7636, 4.2, method S256."""
    return _base64url(hashlib.sha256(verifier.reveal().encode()).digest())


def browser_of(cookie: str) -> str:
    """The browser's cookie, or a new one where it has none that was made here.

    With the old cookie a person can open the page twice and finish either.
    """
    return cookie if TOKEN.fullmatch(cookie) else random_token()


def random_token() -> str:
    """32 random bytes as 43 characters."""
    return _base64url(os.urandom(32))


def epoch(after_s: int) -> int:
    """The time in so many seconds, as epoch seconds."""
    return int(time.time()) + after_s


def _key(state: str) -> tuple[str, str]:
    return f"STATE#{sha256(state)}", "STATE"


def sha256(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def used_link() -> Rejected:
    return Rejected("used_link", "this link has been used already: ask for a new one", field="link", status=404)


def _unknown_state() -> Rejected:
    return Rejected("unknown_state", "this state was not given out here, or long ago", field="state")


def _foreign_state() -> Rejected:
    return Rejected("foreign_state", "this state was given to another browser or for another client", field="state")
