"""The access tokens of connections: callers ask for one and do not see where it comes from.

A token stays in the process's cache until shortly before it expires. Exactly one worker claims the connection to refresh it
(`refresh`); every other caller waits and reads again.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store, request_budget
from portaria.connections.tokens.cache import PROCESS_CACHE, Token, TokenCache
from portaria.connections.tokens.refresh import TokenRefresh
from portaria.connections.tokens.refresh_context import RefreshContext
from portaria.connections.tokens.refusal import probe_refused, token_is_dead, token_refused
from portaria.connections.tokens.static_credentials import LOG_IN_KINDS
from portaria.connections.tokens.token_sources import TokenSources
from portaria.connections.tokens.usability import check_usable, end
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.core.stored_reasons import ConnectionReason
from portaria.outbound import http_client
from portaria.outbound.request_slots import Priority

logger = logging.getLogger(__name__)

# How long a caller waits for another worker's refresh: a little longer than that worker's lease can last.
PATIENCE_S = 60.0
POLL_S = 0.15
# If the token of a refresh after a 401 is refused as well, the next refresh after a 401 waits: from five minutes to an hour.
AFTER_401_WAIT_S = 300.0
AFTER_401_LONGEST_WAIT_S = 3_600.0
# How often one caller refreshes a token that expires before it can be used.
MAX_TURNS = 3


class TokenProvider:
    """`time_left_s` returns the time left to the function; `patience_s` bounds the wait for another worker's refresh.

    Without a `sealing_key_id` tokens are returned and not refreshed: the scheduled renewal does that. `refused_limit` is how
    long a provider may refuse refreshes before the connection ends; None: refusals are only recorded.
    """

    def __init__(
        self,
        table: Table,
        vault: Vault,
        sealing_key_id: str,
        time_left_s: Callable[[], float],
        *,
        cache: TokenCache = PROCESS_CACHE,
        patience_s: float = PATIENCE_S,
        refused_limit: timedelta | None = None,
    ) -> None:
        self.table = table
        self.vault = vault
        self.sealing_key_id = sealing_key_id
        self.time_left_s = time_left_s
        self.cache = cache
        self.patience_s = patience_s
        self.refused_limit = refused_limit
        self.sources = TokenSources(table, vault, sealing_key_id, cache)

    def token(self, connection: Connection) -> Token:
        """Return a token that is valid for at least another minute, or for a tenth of its life if that is less.

        Raises `Rejected` if the connection has no token until a person corrects it (`needs_reconnect`, `not_authorised`,
        `no_credentials`, `token_expired`) and `Retryable` if the vault or the platform does not answer.
        """
        check_usable(connection)
        before = self.cache.get(connection)
        if before and before.holds():
            early = before.early() * (0.8 + 0.2 * connection_store.spread(f"{id(self.cache)}#{connection.name}"))
            if connection.kind == "oauth2" and before.ends_within(early):
                return self._renew_early(connection, before)
            return before
        with self.cache.lock(connection):
            kept = self.cache.get(connection)
            if kept and (kept.holds() or self._came_meanwhile(kept, before)):
                return kept
            return self._obtain(connection.name)

    def refresh_after_401(self, connection: Connection, refused: Token) -> Token | None:
        """Return the token to try after the platform refused one (401), or None if there is no newer one.

        Raises as `token` does.
        """
        with self.cache.lock(connection):
            kept = self.cache.get(connection)
            self.cache.forget(connection)
            item = connection_store.get_item(self.table, connection.name)
            now = connection_store.read(item)
            check_usable(now)
            if now.generation > refused.generation:
                return self._obtain(now.name)
            if now.kind in LOG_IN_KINDS and kept and kept is not refused and not kept.ends_within(timedelta(0)):
                # Another thread logged in while this one waited.
                return self.cache.keep(now, kept)
            if now.kind in connection_store.STATIC_KINDS:
                # Where the credentials before a rotation were refused, use those in use.
                if refused.version_id != now.version_id:
                    return self._obtain(now.name)
                before = self.sources.before_rotation(now)
                return self.cache.keep(now, before) if before else None
            renewable = bool(self.sealing_key_id) and "refresh_token" in refused.credentials
            if now.kind == "oauth2" and (not renewable or _refused_before(item, now)):
                self.cache.keep(now, refused)
                return None
            return self._obtain(now.name, refused=now.generation, after_401=True)

    def send(self, connection: Connection, build: Callable[[Token], Request], *, follow_redirects: int = 0) -> Response:
        """Send a request that is built with a token; after a 401 once more with a newer one, if there is one.

        If the platform says that a static credential is no longer valid and there is no other, the connection ends until
        it is reconnected. The caller may have chosen the URL of the request, so the platform is first asked again, at a
        URL that the caller did not choose. Raises as `token` and `http_client.send` do.
        """
        token = self.token(connection)
        response = self._send(connection, build(token), follow_redirects)
        if not token_refused(connection, response):
            return response
        newer = self.refresh_after_401(connection, token)
        if newer is not None:
            response = self._send(connection, build(newer), follow_redirects)
        if connection.kind in connection_store.STATIC_KINDS and token_is_dead(connection, response):
            used = [token, newer] if newer is not None else [token]
            if all(probe_refused(connection, each) for each in used):
                with suppress(Conflict):
                    end(self.table, connection, ConnectionReason.TOKEN_REFUSED)
        return response

    def renew(self, connection: Connection) -> Token:
        """Refresh the token of exactly this generation, unless that has been done. Raises as `token` does."""
        check_usable(connection)
        with self.cache.lock(connection):
            return self._obtain(connection.name, refused=connection.generation)

    def recover(self, connection: Connection) -> bool:
        """Reconnect a connection that ended because of a lost answer, if that answer's pair was stored after all.

        A worker that was stopped for longer than its lease may have stored the pair and died before the item pointed to it.
        """
        turn = self._refresh(connection, Token({}, connection.generation, connection.version_id))
        return turn.recover()

    def _refresh(self, connection: Connection, old: Token, *, after_401: bool = False) -> TokenRefresh:
        context = RefreshContext(
            self.table, self.vault, self.sealing_key_id, self.time_left_s, refused_limit=self.refused_limit
        )
        return TokenRefresh(context, connection, old, after_401=after_401)

    @staticmethod
    def _came_meanwhile(kept: Token, before: Token | None) -> bool:
        """Whether another thread obtained a token meanwhile. One with a life this short may be used at once."""
        return kept is not before and kept.is_short_lived() and not kept.ends_within(timedelta(0))

    def _send(self, connection: Connection, request: Request, follow_redirects: int) -> Response:
        domain = connection.allowed_domain
        request_budget.wait(self.table, connection.platform, Priority.CALL, connection.name)
        return http_client.send(
            request, allowed_domain=domain, follow_redirects=follow_redirects, owner=connection.name
        )

    def _renew_early(self, connection: Connection, kept: Token) -> Token:
        """Refresh a token that is valid for some more minutes, unless another caller does. If that fails, keep the token."""
        lock = self.cache.lock(connection)
        if not self.sealing_key_id or "refresh_token" not in kept.credentials:
            return kept
        pause = min(timedelta(seconds=30), kept.early() / 2)
        if not self.cache.may_renew_early(connection, pause) or not lock.acquire(blocking=False):
            return kept
        try:
            return self._obtain(connection.name, refused=connection.generation, wait=False)
        except (Retryable, Rejected) as error:
            if kept.ends_within(timedelta(0)):
                raise
            logger.info("early_refresh_failed", extra={"connection": connection.name, "reason": error.reason})
            return kept
        finally:
            lock.release()

    def _obtain(self, name: str, *, refused: int = 0, wait: bool = True, after_401: bool = False) -> Token:
        """Return a token of a newer generation than `refused`, from the vault or the platform.

        `after_401` is whether the platform refused the token of that generation.
        """
        ends = clock.now() + timedelta(seconds=min(self.patience_s, max(0.0, self.time_left_s() - 5)))
        first, turns = 0, 0
        while True:
            item = connection_store.get_item(self.table, name)
            connection = connection_store.read(item)
            check_usable(connection)
            is_log_in = connection.kind in LOG_IN_KINDS
            token = self.sources.log_in(connection) if is_log_in else self.sources.stored(connection, item)
            if token is None:
                continue
            if connection.kind != "oauth2":
                return self.cache.keep(connection, token)
            first = first or connection.generation
            # A short-lived token that any worker refreshed while this call waited may be used at once.
            fresh = connection.generation > first and token.is_short_lived() and not token.ends_within(timedelta(0))
            if connection.generation > refused and (token.holds() or fresh):
                return self.cache.keep(connection, token)
            if turns >= MAX_TURNS:
                raise Retryable(
                    "token_ends_now",
                    f"{connection.platform} issues tokens that expire before they can be used",
                    after_s=2,
                )
            leased_until = self._refresh(connection, token, after_401=after_401).run(item)
            if leased_until is None:
                turns += 1
                continue
            if not wait or clock.now() >= ends:
                raise Retryable(
                    "renewal_in_progress",
                    f"the token of {name} is being renewed by another worker",
                    after_s=max(1.0, leased_until - clock.now().timestamp()),
                )
            clock.sleep(POLL_S * (1 + secrets.randbelow(100) / 100))


def _refused_before(item: Item, connection: Connection) -> bool:
    """Whether the token of this generation came from a refresh after a 401, and it is too soon for another one."""
    times = int(item.get("renewed_after_401", 0))
    if not times:
        return False
    wait_s = min(AFTER_401_LONGEST_WAIT_S, AFTER_401_WAIT_S * 2.0 ** min(times - 1, 10))
    return clock.from_iso(connection.updated_at) + timedelta(seconds=wait_s) > clock.now()
