"""Throttling of failed authentication: failed attempts are counted for each source address, and too many are throttled.

The count of a minute is one item for each source, which all instances share. An instance that knows that a source is throttled
does not read or write for it again in that minute. A token that this instance has recently seen work is not throttled, because
many users may share one address.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import timedelta

from portaria.aws import service_clients
from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.errors import AuthThrottled

logger = logging.getLogger(__name__)

WINDOW = timedelta(minutes=1)
# The failed attempts of one source in one window. Above this, its requests are throttled until the next window.
MOST = 20
KNOWN_FOR = timedelta(minutes=15)
MAX_KEPT = 10_000


class AuthThrottle:
    """The throttled sources and working tokens that one instance knows. Times are epoch seconds."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._put_off: dict[str, float] = {}
        self._known: dict[str, float] = {}

    def check(self, source: str, token_hash: str) -> None:
        """Raises `AuthThrottled` for a throttled source, unless the token is known to work."""
        now = clock.now().timestamp()
        until = self._put_off.get(source, 0.0)
        if until > now and self._known.get(token_hash, 0.0) <= now:
            raise _too_many(until - now)

    def succeeded(self, token_hash: str) -> None:
        _keep(self._known, token_hash, clock.now().timestamp() + KNOWN_FOR.total_seconds())

    def failed(self, source: str, token_hash: str) -> None:
        """Count a failed attempt. Raises `AuthThrottled` above the limit."""
        self._known.pop(token_hash, None)
        now = clock.now().timestamp()
        window = int(now // WINDOW.total_seconds())
        ends = (window + 1) * WINDOW.total_seconds()
        # The address is personal data: only its hash is stored, for two minutes.
        name = hashlib.sha256(source.encode()).hexdigest()[:32]
        try:
            item = self.table.update(
                f"ATTEMPTS#{name}",
                f"WINDOW#{window}",
                "SET expires_at = :expires_at ADD failed_attempts :one",
                values={":one": 1, ":expires_at": int(ends + WINDOW.total_seconds())},
            )
        except service_clients.FAILURES as error:
            # The attempt is refused in any case.
            logger.warning("failed_attempt_not_counted", extra={"code": service_clients.error_code(error)})
            return
        if int(item["failed_attempts"]) > MOST:
            _keep(self._put_off, source, ends)
            raise _too_many(ends - now)


def _keep(kept: dict[str, float], name: str, until: float) -> None:
    if len(kept) >= MAX_KEPT:
        kept.clear()
    kept[name] = until


def _too_many(wait_s: float) -> AuthThrottled:
    return AuthThrottled("too many requests from this address had tokens that do not work", after_s=max(1.0, wait_s))
