"""Access tokens that a process keeps until shortly before they expire."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from portaria.connections import connection_store
from portaria.connections.vault import Credentials
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import Rejected

logger = logging.getLogger(__name__)

# A token that expires sooner than this is not returned: a request that takes its full time-out would outlive it. Both this and
# EARLY are at most a part of the token's life, because a token of one minute would otherwise always be too old.
MARGIN = timedelta(seconds=60)
MARGIN_PART = 0.1
# A caller whose token expires within this time (a fifth less for some callers, as jitter) refreshes it, unless another caller
# already does. If the refresh fails, the caller uses the old token.
EARLY = timedelta(minutes=5)
EARLY_PART = 0.2
MAX_KEPT = 2_000


@dataclass(frozen=True)
class Token:
    """The credentials of a connection that a caller may use now, by name; those of OAuth's kinds include `access_token`.

    `ends_at` is None for a credential that does not expire, `given_at` where the time is not known.
    """

    credentials: Credentials
    generation: int
    version_id: str
    ends_at: datetime | None = None
    given_at: datetime | None = None

    def ends_within(self, time: timedelta) -> bool:
        return self.ends_at is not None and self.ends_at - time <= clock.now()

    def holds(self) -> bool:
        """Whether it may be returned to callers."""
        return not self.ends_within(self._at_most(MARGIN, MARGIN_PART))

    def is_short_lived(self) -> bool:
        """Whether its whole life is no longer than the margin of other tokens."""
        return self.ends_at is not None and self.given_at is not None and self.ends_at - self.given_at <= MARGIN

    def early(self) -> timedelta:
        """How long before its end it is refreshed while it is still valid."""
        return self._at_most(EARLY, EARLY_PART)

    def _at_most(self, most: timedelta, part_of_life: float) -> timedelta:
        if self.ends_at is None or self.given_at is None:
            return most
        return min(most, max(timedelta(0), self.ends_at - self.given_at) * part_of_life)


class TokenCache:
    """The tokens that one process keeps, one for each secret, with a lock each, so that one thread refreshes for all."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._refused: dict[tuple[str, int], tuple[datetime, Rejected]] = {}
        self._not_early: dict[str, datetime] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, connection: Connection) -> Token | None:
        """A token of this generation or a newer one, unless it is the previous one of a rotation and was dropped."""
        token = self._tokens.get(cache_key(connection))
        if not token or token.generation < connection.generation:
            return None
        in_use = (connection.version_id, connection.previous_version_id)
        dropped = connection.kind in connection_store.STATIC_KINDS and token.version_id not in in_use
        return None if dropped and token.generation == connection.generation else token

    def keep(self, connection: Connection, token: Token) -> Token:
        with self._guard:
            if len(self._tokens) >= MAX_KEPT:
                self._tokens.clear()
            self._tokens[cache_key(connection)] = token
        return token

    def forget(self, connection: Connection) -> None:
        self._tokens.pop(cache_key(connection), None)

    def refuse(self, connection: Connection, rejected: Rejected) -> None:
        """Repeat this refusal for a minute: platforms lock out clients that keep sending a wrong password."""
        until = clock.now() + timedelta(minutes=1)
        self._refused[cache_key(connection), connection.generation] = (until, rejected)

    def refusal(self, connection: Connection) -> Rejected | None:
        until, rejected = self._refused.get((cache_key(connection), connection.generation), (clock.now(), None))
        return rejected if until > clock.now() else None

    def may_renew_early(self, connection: Connection, pause: timedelta) -> bool:
        """Whether `pause` has passed since the last early refresh: not every caller tries while the platform is down."""
        now = clock.now()
        if self._not_early.get(cache_key(connection), now) > now:
            return False
        if len(self._not_early) >= MAX_KEPT:
            self._not_early.clear()
        self._not_early[cache_key(connection)] = now + pause
        return True

    def lock(self, connection: Connection) -> threading.Lock:
        with self._guard:
            if len(self._locks) >= MAX_KEPT:
                self._locks = {name: lock for name, lock in self._locks.items() if lock.locked()}
            return self._locks.setdefault(cache_key(connection), threading.Lock())

    def clear(self) -> None:
        for kept in (self._tokens, self._refused, self._not_early, self._locks):
            kept.clear()


PROCESS_CACHE = TokenCache()


def cache_key(connection: Connection) -> str:
    """By the secret, not the name: a connection that was removed and created again may have another account."""
    return connection.secret_id or f"{connection.name}#{connection.created_at}"
