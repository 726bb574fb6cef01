"""The access tokens of connections: callers ask for one and do not see where it comes from.

A token stays in the process's cache until shortly before it ends. To refresh it, exactly one worker claims the connection
(`refresh`); every other caller waits and reads again.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store
from portaria.connections.tokens.cache import PROCESS_CACHE, Token, TokenCache
from portaria.connections.tokens.refresh import TokenRefresh
from portaria.connections.tokens.refresh_context import RefreshContext
from portaria.connections.tokens.refusal import probe_refused, token_is_dead, token_refused
from portaria.connections.tokens.static_credentials import LOG_IN_KINDS
from portaria.connections.tokens.token_sources import TokenSources
from portaria.connections.tokens.usability import check_usable, end
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.entities import Connection, Rejected, Request, Response, Retryable
from portaria.core.stored_reasons import ConnectionReason
from portaria.outbound import http_client

logger = logging.getLogger(__name__)

# How long a caller waits for another one's renewal: until that one's lease must have ended, and a little longer.
PATIENCE_S = 60.0
POLL_S = 0.15
# After a renewal for a 401 whose new token was refused as well, the next renewal for a 401 waits: from five minutes to an hour.
AFTER_401_WAIT_S = 300.0
AFTER_401_LONGEST_WAIT_S = 3_600.0
# How often one caller has a token renewed that ends before it can be used.
MAX_TURNS = 3


class TokenProvider:
    """`time_left_s` is what is left to the function; `patience_s` bounds the wait for another worker's renewal.

    Without `sealing_key_id` tokens are handed out and not renewed: that is left to the scheduled renewal. `refused_limit` is
    how long a provider may refuse renewals before the connection ends; without it refusals are only remembered.
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
        """A token that holds for another minute at least, or for a tenth of its life where that is less.

        Raises `Rejected` where the connection cannot give one until somebody acts (`needs_reconnect`, `not_authorised`,
        `no_credentials`, `token_expired`) and `Retryable` where the vault or the platform does not answer.
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
        """What to try after the platform refused a token (401): a newer one, or None where there is none to be had.

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
                # Another thread logged in again while this one waited.
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
        """Carry a request that is built with a token; after a 401 once more with a newer one, if there is one.

        A credential that the platform calls dead, with none to take its place, ends the connection until somebody
        reconnects it. Since the caller may have chosen where the request went, the platform is asked once more, at an
        address that it did not choose. Raises as `token` and `http_client.send` do.
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
        """Have the token of exactly this generation renewed, unless that has been done. Raises as `token` does."""
        check_usable(connection)
        with self.cache.lock(connection):
            return self._obtain(connection.name, refused=connection.generation)

    def recover(self, connection: Connection) -> bool:
        """Bring back a connection that was given up for a lost answer, if that answer's pair was stored after all.

        A holder that was stopped for longer than its lease may have stored it, and died before it could point to it.
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
        """Whether another thread obtained a token while this one waited for it: one that lives so short may be used at once."""
        return kept is not before and kept.is_short_lived() and not kept.ends_within(timedelta(0))

    def _send(self, connection: Connection, request: Request, follow_redirects: int) -> Response:
        domain = connection.allowed_domain
        return http_client.send(
            request, allowed_domain=domain, follow_redirects=follow_redirects, owner=connection.name
        )

    def _renew_early(self, connection: Connection, kept: Token) -> Token:
        """Renew a token that is good for some more minutes, in this caller's time, if nothing stands in the way."""
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
        """A token of a newer generation than `refused`, from the vault or the platform.

        `after_401` says that the platform refused the token of that generation.
        """
        ends = clock.now() + timedelta(seconds=min(self.patience_s, max(0.0, self.time_left_s() - 5)))
        first, turns = 0, 0
        while True:
            item = connection_store.get_item(self.table, name)
            connection = connection_store.read(item)
            check_usable(connection)
            if connection.kind in LOG_IN_KINDS:
                return self.cache.keep(connection, self.sources.log_in(connection))
            token = self.sources.stored(connection, item)
            if token is None:
                continue
            if connection.kind != "oauth2":
                return self.cache.keep(connection, token)
            first = first or connection.generation
            # What was renewed while this call waited may be used at once where it lives short, by whomever it was renewed.
            fresh = connection.generation > first and token.is_short_lived() and not token.ends_within(timedelta(0))
            if connection.generation > refused and (token.holds() or fresh):
                return self.cache.keep(connection, token)
            if turns >= MAX_TURNS:
                raise Retryable(
                    "token_ends_now",
                    f"{connection.platform} issues tokens that expire before they can be used",
                    after_s=2,
                )
            leased_until = self._refresh(connection, token, after_401=after_401).run()
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
    """Whether the token of this generation came from a renewal for a 401, and it is too soon for another one."""
    times = int(item.get("renewed_after_401", 0))
    if not times:
        return False
    wait_s = min(AFTER_401_LONGEST_WAIT_S, AFTER_401_WAIT_S * 2.0 ** min(times - 1, 10))
    return clock.from_iso(connection.updated_at) + timedelta(seconds=wait_s) > clock.now()
