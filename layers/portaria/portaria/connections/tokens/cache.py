"""Access tokens that a process keeps until shortly before they end."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from portaria.connections import connection_store
from portaria.connections.vault import Credentials
from portaria.core import clock
from portaria.core.entities import Connection, Rejected

logger = logging.getLogger(__name__)

# A token that ends sooner than this is not handed out, or a request that takes its full time-out would outlive it. Both this
# and EARLY are at most a part of the life that the provider gave: a token of a minute would otherwise always be too old.
MARGIN = timedelta(seconds=60)
MARGIN_PART = 0.1
# A caller whose token ends within this (less by a fifth for some, so that not all come at once) has it renewed, if nobody
# else is at it, and goes on with the old one if it cannot be.
EARLY = timedelta(minutes=5)
EARLY_PART = 0.2
MAX_KEPT = 2_000


@dataclass(frozen=True)
class Token:
    """What a caller may use of a connection now: its credentials by name, `access_token` among them for OAuth's kinds.

    `ends_at` is None for what does not end, `given_at` where that is not known.
    """

    credentials: Credentials
    generation: int
    version_id: str
    ends_at: datetime | None = None
    given_at: datetime | None = None

    def ends_within(self, time: timedelta) -> bool:
        return self.ends_at is not None and self.ends_at - time <= clock.now()

    def holds(self) -> bool:
        """Whether it may be handed out."""
        return not self.ends_within(self._at_most(MARGIN, MARGIN_PART))

    def is_short_lived(self) -> bool:
        """Whether its whole life is no longer than the margin of other tokens."""
        return self.ends_at is not None and self.given_at is not None and self.ends_at - self.given_at <= MARGIN

    def early(self) -> timedelta:
        """How long before its end it is renewed while it still holds."""
        return self._at_most(EARLY, EARLY_PART)

    def _at_most(self, most: timedelta, part_of_life: float) -> timedelta:
        if self.ends_at is None or self.given_at is None:
            return most
        return min(most, max(timedelta(0), self.ends_at - self.given_at) * part_of_life)


class TokenCache:
    """What one process keeps: a token for each secret, and a lock, so that one thread asks for all."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._refused: dict[tuple[str, int], tuple[datetime, Rejected]] = {}
        self._not_early: dict[str, datetime] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, connection: Connection) -> Token | None:
        """A token of this generation or a newer one, unless it is one that a rotation left in reserve and that was dropped."""
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
        """Answer the same for a minute: a platform locks out whoever keeps coming with a wrong password."""
        until = clock.now() + timedelta(minutes=1)
        self._refused[cache_key(connection), connection.generation] = (until, rejected)

    def refusal(self, connection: Connection) -> Rejected | None:
        until, rejected = self._refused.get((cache_key(connection), connection.generation), (clock.now(), None))
        return rejected if until > clock.now() else None

    def may_renew_early(self, connection: Connection, pause: timedelta) -> bool:
        """Once in a while: as long as the platform is down, its callers need not all find out."""
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
    """By the secret, not the name: a connection that was removed and made again by its old name has another account's."""
    return connection.secret_id or f"{connection.name}#{connection.created_at}"
