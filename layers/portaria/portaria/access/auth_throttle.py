"""Failed attempts to call the API: counted for each address they come from, and put off when there are too many.

The count of a minute is one item a source, so that all instances share it; an instance that has learnt that a source is put
off remembers it and spends nothing more on it, neither a read nor a write. A token that this instance has seen work lately is
not put off with its neighbours: an address may stand for a whole office.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import timedelta

from portaria.aws import boto3_clients
from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.errors import AuthThrottled

logger = logging.getLogger(__name__)

WINDOW = timedelta(minutes=1)
# Failed attempts of one source in one window. Above, whatever comes from it waits for the next window.
MOST = 20
KNOWN_FOR = timedelta(minutes=15)
MAX_KEPT = 10_000


class Attempts:
    """What one instance remembers. Times are epoch seconds."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._put_off: dict[str, float] = {}
        self._known: dict[str, float] = {}

    def check(self, source: str, token_hash: str) -> None:
        """Raises `Retryable` (`too_many_attempts`) for a source that is put off, unless the token is known to work."""
        now = clock.now().timestamp()
        until = self._put_off.get(source, 0.0)
        if until > now and self._known.get(token_hash, 0.0) <= now:
            raise _too_many(until - now)

    def succeeded(self, token_hash: str) -> None:
        _keep(self._known, token_hash, clock.now().timestamp() + KNOWN_FOR.total_seconds())

    def failed(self, source: str, token_hash: str) -> None:
        """Count one. Raises `Retryable` (`too_many_attempts`) where it was one too many."""
        self._known.pop(token_hash, None)
        now = clock.now().timestamp()
        window = int(now // WINDOW.total_seconds())
        ends = (window + 1) * WINDOW.total_seconds()
        # The address itself is nobody's business: what is stored is its hash, for two minutes.
        name = hashlib.sha256(source.encode()).hexdigest()[:32]
        try:
            item = self.table.update(
                f"ATTEMPTS#{name}",
                f"WINDOW#{window}",
                "SET expires_at = :expires_at ADD failed_attempts :one",
                values={":one": 1, ":expires_at": int(ends + WINDOW.total_seconds())},
            )
        except boto3_clients.FAILURES as error:
            # The attempt is refused all the same.
            logger.warning("failed_attempt_not_counted", extra={"code": boto3_clients.error_code(error)})
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
