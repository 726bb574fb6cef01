"""The one supply of credentials in use: callers ask for a connection's token and never see where it comes from.

A token is kept in memory until shortly before it ends. Where it has to be renewed with a refresh token that works once,
exactly one worker does it, whatever the crowd: it holds a lease in the connection's item with a fence, sends once, stores
the new pair before anyone uses it, and commits only while nothing newer stands there. Everyone else waits and reads again;
nobody ever renews without the lease.

    claim (lease, fence, tries) → look for what a predecessor may have stored → send → store → commit

What a death leaves behind is found by looking: the new pair's version id is decided by the generation, so the next holder
reads it there. `tries` counts the times that the refresh token may have left: a refusal of the first means that the grant
was revoked, of a later one that an answer was lost. The platform's part `tokens` says what its grants need.

A secret takes at most 100 versions a day. While the last version is younger than `connections.VERSION_EVERY`, a new pair is
sealed in the connection's item instead (`sealed`), in the same write that commits it. The next renewal after that time, or a
visit of `renew_tokens`, brings a pair into the vault again.

What a refusal means that does not call the grant dead is in `refused_grants`.

https://www.rfc-editor.org/rfc/rfc9700#section-4.14
"""

from __future__ import annotations

import logging
import secrets
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as with_changes
from datetime import datetime, timedelta
from types import ModuleType

from portaria.aws import due_index, event_bus
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store, oauth_clients, refused_grants, vault
from portaria.connections.refused_grants import Verdict
from portaria.connections.vault import Credentials, Seal, Vault
from portaria.core import clock
from portaria.core.entities import Connection, Grant, OAuthClient, Rejected, Request, Response, Retryable, Secret
from portaria.outbound import http_client
from portaria.platforms import part

logger = logging.getLogger(__name__)

# A token that ends sooner than this is not handed out, or a request that takes its full time-out would outlive it. Both this
# and EARLY are at most a part of the life that the provider gave: a token of a minute would otherwise always be too old.
MARGIN = timedelta(seconds=60)
MARGIN_PART = 0.1
# A caller whose token ends within this (less by a fifth for some, so that not all come at once) has it renewed, if nobody
# else is at it, and goes on with the old one if it cannot be.
EARLY = timedelta(minutes=5)
EARLY_PART = 0.2

# The platform's time-outs (18 s) < what a turn may take from sending to the commit < the lease < the time left to the
# function: a holder whose lease has ended is dead, or has been stopped for longer than any of its calls may take.
LEASE_S = 45.0
TIME_TO_RENEW_S = 40.0
# Whether a dead credential is dead indeed is asked while its caller waits.
TIME_TO_PROBE_S = 5.0
# How long a caller waits for another one's renewal: until that one's lease must have ended, and a little longer.
PATIENCE_S = 60.0
POLL_S = 0.15
# The vault may not show yet what was written within this time.
YOUNG = timedelta(minutes=5)
# After a renewal for a 401 whose new token was refused as well, the next renewal for a 401 waits: from five minutes to an hour.
AFTER_401_WAIT_S = 300.0
AFTER_401_LONGEST_WAIT_S = 3_600.0
# How often one caller has a token renewed that ends before it can be used.
MAX_TURNS = 3
# Between failed tries: doubling from 2 s to five minutes.
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 300.0
# The reason of a connection that ended because the platform's answer to a renewal never arrived.
ANSWER_LOST = "answer_lost"
# What `egress` says where nothing was sent.
UNREACHABLE = "unreachable"
# Where the OAuth client itself is wrong, until somebody corrects it: from five minutes to an hour.
CLIENT_WRONG_WAIT_S = 300.0
CLIENT_WRONG_LONGEST_WAIT_S = 3_600.0
MAX_KEPT = 2_000

LOG_IN_KINDS = ("client_credentials", "password")


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


class Memory:
    """What one process keeps: a token for each secret, and a lock, so that one thread asks for all."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._refused: dict[tuple[str, int], tuple[datetime, Rejected]] = {}
        self._not_early: dict[str, datetime] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, connection: Connection) -> Token | None:
        """A token of this generation or a newer one, unless it is one that a rotation left in reserve and that was dropped."""
        token = self._tokens.get(_kept_as(connection))
        if not token or token.generation < connection.generation:
            return None
        in_use = (connection.version_id, connection.previous_version_id)
        dropped = connection.kind in connection_store.STATIC_KINDS and token.version_id not in in_use
        return None if dropped and token.generation == connection.generation else token

    def keep(self, connection: Connection, token: Token) -> Token:
        with self._guard:
            if len(self._tokens) >= MAX_KEPT:
                self._tokens.clear()
            self._tokens[_kept_as(connection)] = token
        return token

    def forget(self, connection: Connection) -> None:
        self._tokens.pop(_kept_as(connection), None)

    def refuse(self, connection: Connection, rejected: Rejected) -> None:
        """Answer the same for a minute: a platform locks out whoever keeps coming with a wrong password."""
        until = clock.now() + timedelta(minutes=1)
        self._refused[_kept_as(connection), connection.generation] = (until, rejected)

    def refusal(self, connection: Connection) -> Rejected | None:
        until, rejected = self._refused.get((_kept_as(connection), connection.generation), (clock.now(), None))
        return rejected if until > clock.now() else None

    def may_renew_early(self, connection: Connection, pause: timedelta) -> bool:
        """Once in a while: as long as the platform is down, its callers need not all find out."""
        now = clock.now()
        if self._not_early.get(_kept_as(connection), now) > now:
            return False
        if len(self._not_early) >= MAX_KEPT:
            self._not_early.clear()
        self._not_early[_kept_as(connection)] = now + pause
        return True

    def lock(self, connection: Connection) -> threading.Lock:
        with self._guard:
            if len(self._locks) >= MAX_KEPT:
                self._locks = {name: lock for name, lock in self._locks.items() if lock.locked()}
            return self._locks.setdefault(_kept_as(connection), threading.Lock())

    def clear(self) -> None:
        for kept in (self._tokens, self._refused, self._not_early, self._locks):
            kept.clear()


PROCESS = Memory()


class Supply:
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
        memory: Memory = PROCESS,
        patience_s: float = PATIENCE_S,
        refused_limit: timedelta | None = None,
    ) -> None:
        self.table = table
        self.vault = vault
        self.sealing_key_id = sealing_key_id
        self.time_left_s = time_left_s
        self.memory = memory
        self.patience_s = patience_s
        self.refused_limit = refused_limit

    def token(self, connection: Connection) -> Token:
        """A token that holds for another minute at least, or for a tenth of its life where that is less.

        Raises `Rejected` where the connection cannot give one until somebody acts (`needs_reconnect`, `not_authorised`,
        `no_credentials`, `token_expired`) and `Retryable` where the vault or the platform does not answer.
        """
        check_usable(connection)
        before = self.memory.get(connection)
        if before and before.holds():
            early = before.early() * (0.8 + 0.2 * connection_store.spread(f"{id(self.memory)}#{connection.name}"))
            if connection.kind == "oauth2" and before.ends_within(early):
                return self._renew_early(connection, before)
            return before
        with self.memory.lock(connection):
            kept = self.memory.get(connection)
            if kept and (kept.holds() or self._came_meanwhile(kept, before)):
                return kept
            return self._obtain(connection.name)

    def newer(self, connection: Connection, refused: Token) -> Token | None:
        """What to try after the platform refused a token (401): a newer one, or None where there is none to be had.

        Raises as `token` does.
        """
        with self.memory.lock(connection):
            kept = self.memory.get(connection)
            self.memory.forget(connection)
            item = connection_store.get_item(self.table, connection.name)
            now = connection_store.read(item)
            check_usable(now)
            if now.generation > refused.generation:
                return self._obtain(now.name)
            if now.kind in LOG_IN_KINDS and kept and kept is not refused and not kept.ends_within(timedelta(0)):
                # Another thread logged in again while this one waited.
                return self.memory.keep(now, kept)
            if now.kind in connection_store.STATIC_KINDS:
                # One from the reserve that is refused leads back to the one in use.
                return self._previous(now) if refused.version_id == now.version_id else self._obtain(now.name)
            renewable = bool(self.sealing_key_id) and "refresh_token" in refused.credentials
            if now.kind == "oauth2" and (not renewable or _refused_before(item, now)):
                self.memory.keep(now, refused)
                return None
            return self._obtain(now.name, refused=now.generation, after_401=True)

    def send(self, connection: Connection, build: Callable[[Token], Request], *, follow_redirects: int = 0) -> Response:
        """Carry a request that is built with a token; after a 401 once more with a newer one, if there is one.

        A credential that the platform calls dead, with none to take its place, ends the connection until somebody
        reconnects it. Since the caller may have chosen where the request went, the platform is asked once more, at an
        address that it did not choose. Raises as `token` and `egress.send` do.
        """
        token = self.token(connection)
        response = self._send(connection, build(token), follow_redirects)
        if not token_refused(connection, response):
            return response
        newer = self.newer(connection, token)
        if newer is not None:
            response = self._send(connection, build(newer), follow_redirects)
        if connection.kind in connection_store.STATIC_KINDS and token_is_dead(connection, response):
            used = [token, newer] if newer is not None else [token]
            if all(_probe_refused(connection, each) for each in used):
                with suppress(Conflict):
                    end(self.table, connection, "token_refused")
        return response

    def renew(self, connection: Connection) -> Token:
        """Have the token of exactly this generation renewed, unless that has been done. Raises as `token` does."""
        check_usable(connection)
        with self.memory.lock(connection):
            return self._obtain(connection.name, refused=connection.generation)

    def unseal(self, connection: Connection) -> bool:
        """Move sealed credentials into the vault. False: they stay sealed, and are used all the same."""
        item = connection_store.get_item(self.table, connection.name)
        sealed = item.get("sealed")
        if not sealed:
            return True
        connection = connection_store.read(item)
        credentials = vault.unseal(self.sealing_key_id, {"connection": connection.name}, sealed)
        try:
            version = add_version(self.vault, connection.secret_id, connection.generation, credentials, _fence(item))
        except (Retryable, Rejected) as refused:
            facts = {"connection": connection.name, "reason": refused.reason}
            logger.warning("credentials_stay_sealed", extra=facts)
            return False
        try:
            self.table.update(
                *connection_store.key(connection.name),
                f"SET version_id = :version, {connection_store.VERSION_ADDED_AT} = :now REMOVE sealed",
                condition="generation = :generation AND attribute_exists(sealed)",
                values={
                    ":version": version,
                    ":now": clock.to_iso(clock.now()),
                    ":generation": connection.generation,
                },
            )
        except Conflict:
            # Renewed meanwhile.
            return False
        return True

    def recover(self, connection: Connection) -> bool:
        """Bring back a connection that was given up for a lost answer, if that answer's pair was stored after all.

        A holder that was stopped for longer than its lease may have stored it, and died before it could point to it.
        """
        turn = _Renewal(self, connection, Token({}, connection.generation, connection.version_id))
        return turn.recover()

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
        lock = self.memory.lock(connection)
        if not self.sealing_key_id or "refresh_token" not in kept.credentials:
            return kept
        pause = min(timedelta(seconds=30), kept.early() / 2)
        if not self.memory.may_renew_early(connection, pause) or not lock.acquire(blocking=False):
            return kept
        try:
            return self._obtain(connection.name, refused=connection.generation, wait=False)
        except (Retryable, Rejected) as error:
            if kept.ends_within(timedelta(0)):
                raise
            logger.info("a token was not renewed early", extra={"connection": connection.name, "reason": error.reason})
            return kept
        finally:
            lock.release()

    def _previous(self, connection: Connection) -> Token | None:
        """The credentials that a rotation replaced, while their overlap lasts."""
        previous = connection.previous_version_id
        if not previous or clock.from_iso(connection.previous_until) <= clock.now():
            return None
        credentials = self.vault.read(connection.secret_id, previous)
        if not credentials:
            return None
        logger.warning("the credentials before the rotation are used", extra={"connection": connection.name})
        return self.memory.keep(connection, Token(credentials, connection.generation, previous))

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
                return self.memory.keep(connection, self._log_in(connection))
            token = self._stored(connection, item)
            if token is None:
                continue
            if connection.kind != "oauth2":
                return self.memory.keep(connection, token)
            first = first or connection.generation
            # What was renewed while this call waited may be used at once where it lives short, by whomever it was renewed.
            fresh = connection.generation > first and token.is_short_lived() and not token.ends_within(timedelta(0))
            if connection.generation > refused and (token.holds() or fresh):
                return self.memory.keep(connection, token)
            if turns >= MAX_TURNS:
                raise Retryable("token_ends_now", f"{connection.platform} gives tokens that end before use", after_s=2)
            leased_until = _Renewal(self, connection, token, after_401=after_401).run()
            if leased_until is None:
                turns += 1
                continue
            if not wait or clock.now() >= ends:
                raise Retryable(
                    "renewal_in_progress",
                    f"another worker renews the token of {name}",
                    after_s=max(1.0, leased_until - clock.now().timestamp()),
                )
            clock.sleep(POLL_S * (1 + secrets.randbelow(100) / 100))

    def _stored(self, connection: Connection, item: Item) -> Token | None:
        """What the connection's item points to, or None where it points elsewhere by now."""
        if sealed := item.get("sealed"):
            credentials: Credentials | None = vault.unseal(self.sealing_key_id, {"connection": connection.name}, sealed)
        else:
            credentials = self.vault.read(connection.secret_id, connection.version_id)
        if not credentials:
            if connection_store.get(self.table, connection.name) != connection:
                return None
            if _is_young(connection):
                raise Retryable(
                    "vault_lags", f"the vault does not show the credentials of {connection.name} yet", after_s=2
                )
            raise Rejected(
                "no_credentials", f"the vault holds nothing for the connection {connection.name}", status=409
            )
        ends_at, given_at = credentials.get("expires_at"), credentials.get("given_at")
        # Pairs that were stored without it: a generation's token is given when the generation begins.
        begins = given_at.reveal() if given_at else connection.updated_at
        return Token(
            credentials,
            connection.generation,
            connection.version_id,
            clock.from_iso(ends_at.reveal()) if ends_at else None,
            clock.from_iso(begins) if ends_at and begins else None,
        )

    def _log_in(self, connection: Connection) -> Token:
        """Client credentials and passwords: any number of tokens may be asked for, so nothing has to be stored."""
        if refusal := self.memory.refusal(connection):
            raise refusal
        credentials = self.vault.read(connection.secret_id, connection.version_id) if connection.secret_id else {}
        if credentials is None:
            raise Rejected(
                "no_credentials", f"the vault holds nothing for the connection {connection.name}", status=409
            )
        credentials, client = with_client(self.table, self.vault, connection, credentials)
        try:
            grant = log_in(connection, credentials, client)
        except Rejected as rejected:
            self.memory.refuse(connection, rejected)
            raise
        if grant.expires_at <= clock.now():
            raise Retryable("token_ends_now", f"{connection.platform} gave a token without life left", after_s=2)
        return Token(
            {"access_token": grant.access_token},
            connection.generation,
            connection.version_id,
            grant.expires_at,
            grant.given_at,
        )


class _Renewal:
    """One worker's turn at renewing a connection's tokens. `fence` tells it from every other turn."""

    def __init__(self, supply: Supply, connection: Connection, old: Token, *, after_401: bool = False) -> None:
        self.supply = supply
        self.table = supply.table
        self.vault = supply.vault
        self.connection = connection
        self.old = old
        self.after_401 = after_401
        self.verdict = Verdict.NONE
        self.item: Item = {}
        self.tried = 0
        self.sent = False
        self.lease_ends = 0.0

    @property
    def fence(self) -> int:
        return _fence(self.item)

    def run(self) -> float | None:
        """None where the item has moved on, by this turn or another's; else until when (epoch seconds) another holds it.

        Raises `Rejected` where the grant is dead or cannot be renewed, and `Retryable` where it should be tried later.
        """
        if not self.supply.sealing_key_id or "refresh_token" not in self.old.credentials:
            if self.supply.sealing_key_id and self.old.ends_within(timedelta(0)):
                self._end("token_expired", "its access token has ended and came without a refresh token")
            raise Rejected(
                "token_expired",
                f"the access token of {self.connection.name} has ended and cannot be renewed here; connect again",
                status=409,
            )
        try:
            self._claim()
        except Conflict as conflict:
            return self._not_mine(conflict.item or connection_store.get_item(self.table, self.connection.name))
        try:
            self._take_turn()
        except Conflict:
            return None
        except Exception as error:
            if getattr(error, "reason", "") != "needs_reconnect" and self._refused_too_long():
                if self._adopt():
                    return None
                detail = f"its provider has refused every renewal for too long: {getattr(error, 'detail', '')}"
                self._end(refused_grants.REASON, detail, fence=self.fence)
            self._give_up(error)
            raise
        return None

    def recover(self) -> bool:
        """Without a lease: whoever comes first points to the pair, and there is only the one."""
        self.item = connection_store.get_item(self.table, self.connection.name)
        return self._adopt()

    def _claim(self) -> None:
        now = clock.now().timestamp()
        if self.supply.time_left_s() < LEASE_S:
            raise Retryable("short_of_time", "too little time is left to renew a token", after_s=1)
        self.lease_ends = now + LEASE_S
        self.item = self.table.update(
            *connection_store.key(self.connection.name),
            "SET lease_until = :until, fence = if_not_exists(fence, :zero) + :one, tries = if_not_exists(tries, :zero) + :one",
            condition="generation = :generation AND #state = :connected AND "
            "(attribute_not_exists(lease_until) OR lease_until < :now) AND "
            "(attribute_not_exists(retry_at) OR retry_at <= :now)",
            names={"#state": "state"},
            values={
                ":until": int(self.lease_ends),
                ":now": int(now),
                ":zero": 0,
                ":one": 1,
                ":generation": self.connection.generation,
                ":connected": "connected",
            },
        )
        self.tried = int(self.item["tries"])

    def _not_mine(self, item: Item) -> float | None:
        """Why there was nothing to claim. The item is what stands there now."""
        if item.get("generation") != self.connection.generation or item.get("state") != "connected":
            return None
        wait_s = item.get("retry_at", 0) - clock.now().timestamp()
        if wait_s > 0:
            detail = f"the token of {self.connection.name} could not be renewed a moment ago; it is tried again later"
            raise Retryable("renewal_waits", detail, after_s=max(1.0, wait_s))
        # A lease that ended since the claim has nothing left to wait for: the next claim succeeds.
        return float(item.get("lease_until", 0))

    def _take_turn(self) -> None:
        if self.tried > 1 and self._adopt():
            return
        platform = part(self.connection.platform, "tokens")
        client = oauth_clients.get(self.table, self.connection.platform, self.connection.client)
        client_secret = self.vault.client_secret(client.platform, client.name)
        old = self.old.credentials["refresh_token"]
        request = platform.refresh_request(self.connection, client, client_secret, old)
        seal = vault.prepare_seal(self.supply.sealing_key_id, {"connection": self.connection.name})
        try:
            grant = self._ask(platform, client, request)
        except Rejected as rejected:
            if rejected.reason == "grant_refused":
                self._check_client_unchanged(client)
                self._refused(rejected)
            elif rejected.reason != "account_moved" or not self._follow_move(client):
                raise
        else:
            self._store({**self.old.credentials, **to_stored(grant)}, seal)

    def _adopt(self) -> bool:
        """Commit the pair of a predecessor that stored it and died, or was stopped until its lease had ended. False: none."""
        next_version = vault.version_id(self.connection.secret_id, self.connection.generation + 1)
        found = self.vault.read(self.connection.secret_id, next_version)
        if found:
            self._commit(found, version=next_version)
            return True
        sealed = connection_store.get_item(self.table, self.connection.name).get("sealed_next")
        if sealed:
            context = {"connection": self.connection.name}
            self._commit(vault.unseal(self.supply.sealing_key_id, context, sealed), sealed=sealed)
        return bool(sealed)

    def _ask(self, platform: ModuleType, client: OAuthClient, request: Request) -> Grant:
        """Send the refresh token; once more at once where the answer was lost, since nobody will ever have that answer."""
        domain = platform.token_domain(self.connection, client)
        needed_s = TIME_TO_RENEW_S
        while True:
            left_s = min(self.lease_ends - clock.now().timestamp(), self.supply.time_left_s())
            if left_s < needed_s:
                raise Retryable("short_of_time", "too little time is left to renew a token", after_s=1)
            try:
                self.sent, status = True, None
                # A life begins when the provider makes the token, which is before its answer arrives.
                given_at = clock.now()
                response = http_client.send(request, allowed_domain=domain, owner=self.connection.name)
                status = response.status
                grant: Grant = platform.read_refreshed(response, given_at, self.old.credentials["refresh_token"])
            except Rejected as rejected:
                self.verdict = refused_grants.verdict(status, rejected) if status else Verdict.NONE
                raise
            except Retryable as retryable:
                self.verdict = refused_grants.verdict(status, retryable)
                # Once it has been sent in an earlier turn, it has been.
                self.sent = retryable.reason != UNREACHABLE
                if not retryable.answer_lost or self.tried > 1:
                    raise
                self._count_try()
                needed_s = request.connect_timeout_s + request.read_timeout_s + 10
                continue
            return with_changes(grant, given_at=given_at, client_id=client.client_id)

    def _count_try(self) -> None:
        """Write down that the old token leaves once more. Raises `Conflict` where the lease has been lost meanwhile."""
        self.tried = int(self._update("SET tries = :tries", {":tries": self.tried + 1})["tries"])
        self.sent = False

    def _follow_move(self, client: OAuthClient) -> bool:
        """Where the account has moved to another host of its platform, go on there in another turn. False: it has not."""
        account = part(self.connection.platform, "account")
        request = account.locate_request(self.old.credentials)
        response = http_client.send(request, allowed_domain=account.LOCATION_DOMAIN, owner=self.connection.name)
        host = account.read_location(response)
        if host == self.connection.allowed_domain:
            return False
        if host.partition(".")[2] != self.connection.allowed_domain.partition(".")[2]:
            oauth_clients.check_domain(client, host)
        logger.info("an account has moved", extra={"connection": self.connection.name, "to": host})
        values = {":host": host, ":tries": self.tried - 1}
        self._update("SET allowed_domain = :host, tries = :tries REMOVE lease_until", values)
        return True

    def _check_client_unchanged(self, client: OAuthClient) -> None:
        """Raises `Rejected` (`wrong_client`) where the refresh token was given to another client id: then it is the OAuth
        client that is wrong, and the grant lives on with the right one."""
        given_to = self.old.credentials.get("client_id")
        if given_to and given_to.reveal() != client.client_id:
            raise Rejected(
                "wrong_client",
                f"the tokens of {self.connection.name} were given to another client_id than the one that the OAuth client "
                f"{client.platform}/{client.name} has now: put that back, or connect again",
            )

    def _refused(self, rejected: Rejected) -> None:
        """The platform calls the refresh token used or revoked: it is dead only if nothing newer stands anywhere."""
        if self._adopt():
            return
        reason, detail = "grant_revoked", rejected.detail
        if self.tried > 1:
            reason = ANSWER_LOST
            detail = "the platform renewed the tokens but its answer never arrived"
        self._end(reason, detail, fence=self.fence)

    def _refused_too_long(self) -> bool:
        limit = self.supply.refused_limit
        return (
            limit is not None
            and self.verdict is Verdict.REFUSED
            and refused_grants.has_lasted(self.item, limit, clock.now())
        )

    def _end(self, reason: str, detail: str, *, fence: int | None = None) -> None:
        """End the connection and raise `Rejected` (`needs_reconnect`), unless it has changed meanwhile."""
        try:
            end(self.table, self.connection, reason, fence=fence)
        except Conflict:
            return
        raise Rejected(
            "needs_reconnect", f"the customer must connect {self.connection.name} again: {detail}", status=409
        )

    def _store(self, credentials: Credentials, seal: Seal) -> None:
        """Put the new pair where it survives, before anyone uses it: the vault or, sealed, the table.

        The vault comes first unless it has just got a version of this secret. Either stands in for the other.
        """
        version = ""

        def in_vault() -> None:
            nonlocal version
            # Once: another attempt at the pointer must not add another version.
            secret_id, generation = self.connection.secret_id, self.connection.generation + 1
            version = version or add_version(self.vault, secret_id, generation, credentials, self.fence)
            self._commit(credentials, version=version)

        def in_table() -> None:
            self._commit(credentials, sealed=seal.seal(credentials))

        vault_rests = connection_store.vault_rests_until(self.item) > clock.now()
        places = (in_table, in_vault) if vault_rests else (in_vault, in_table)
        while True:
            for store in places:
                try:
                    return store()
                except Exception as error:
                    # Whatever it was, the pair may exist nowhere else yet.
                    self._log_unstored(store.__name__, error)
                    if store is places[-1] and self.supply.time_left_s() < 5:
                        raise
            clock.sleep(0.2)

    def _commit(self, credentials: Credentials, *, version: str = "", sealed: str = "") -> None:
        """Let the item point to the new pair, if it is still this turn's to change.

        Where a later turn holds the lease it finds our pair; where one has given the grant up because it found the refresh
        token used, by us, our pair is the only one that lives, and brings the connection back.
        """
        now = clock.now()
        ends_at = read_stored(credentials).expires_at
        fresh = with_changes(
            self.connection,
            generation=self.connection.generation + 1,
            version_id=version or self.connection.version_id,
            token_ends_at=clock.to_iso(ends_at),
            scopes=read_stored(credentials).scopes or self.connection.scopes,
            state="connected",
            reason="",
            refused_since="",
            refusal="",
            updated_at=clock.to_iso(now),
        )
        try:
            mine = {":connected": "connected", ":fence": self.fence}
            self._point_to(fresh, sealed, "#state = :connected AND fence = :fence", mine)
        except Conflict as conflict:
            item = conflict.item or {}
            if item.get("generation") != self.connection.generation:
                return
            if item.get("reason") == ANSWER_LOST:
                with suppress(Conflict):
                    self._point_to(
                        fresh,
                        sealed,
                        "#state = :needs_reconnect AND #reason = :lost",
                        {":needs_reconnect": "needs_reconnect", ":lost": ANSWER_LOST},
                        announce=event_bus.RECOVERED,
                    )
            elif sealed:
                with suppress(Conflict):
                    self.table.update(
                        *connection_store.key(self.connection.name),
                        "SET sealed_next = :sealed",
                        condition="generation = :generation",
                        values={":sealed": sealed, ":generation": self.connection.generation},
                    )

    def _point_to(self, fresh: Connection, sealed: str, condition: str, values: Item, announce: str = "") -> None:
        announce = (
            announce or self.item.get("announce", "") or (event_bus.RECOVERED if self.item.get("resumed") else "")
        )
        item = connection_store.to_item(fresh, announce=announce)
        if sealed:
            # A sweep has it moved into the vault.
            rests_until = connection_store.vault_rests_until(self.item)
            due_at = min(item.get("due_at") or connection_store.NEVER, clock.to_iso(max(clock.now(), rests_until)))
            item |= {"sealed": sealed, "due_pk": due_index.RENEWALS, "due_at": due_at}
        else:
            item[connection_store.VERSION_ADDED_AT] = clock.to_iso(clock.now())
        if self.after_401:
            item["renewed_after_401"] = int(self.item.get("renewed_after_401", 0)) + 1
        changed = ("generation", "version_id", "token_ends_at", "scopes", "state", "reason", "updated_at", "due_pk",
                   "due_at", "announce", "sealed", "refused_since", "refusal", "renewed_after_401",
                   connection_store.VERSION_ADDED_AT)  # fmt: skip
        found = [name for name in changed if name in item]
        gone = ["lease_until", "retry_at", "tries", "sealed_next", "refused_times", "refused_told", "resumed"]
        gone += [name for name in ("sealed", "renewed_after_401") if name not in item]
        self.table.update(
            *connection_store.key(fresh.name),
            f"SET {', '.join(f'#{name} = :{name}' for name in found)} REMOVE {', '.join(gone)}",
            condition=f"generation = :old AND {condition}",
            names={f"#{name}": name for name in found},
            values={f":{name}": item[name] for name in found} | values | {":old": self.connection.generation},
        )

    def _give_up(self, error: Exception) -> None:
        """Give the lease back with a pause before the next turn; where that fails, the lease ends by itself."""
        if isinstance(error, Rejected) and error.reason == "needs_reconnect":
            return
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self.tried - 1, 10))
        if isinstance(error, Rejected):
            wait_s = min(CLIENT_WRONG_LONGEST_WAIT_S, CLIENT_WRONG_WAIT_S * 2.0 ** min(self.tried - 1, 10))
        elif isinstance(error, Retryable) and error.after_s is not None:
            wait_s = min(LONGEST_WAIT_S, error.after_s)
        changes: Item = {"retry_at": int(clock.now().timestamp() + wait_s)}
        changes |= refused_grants.changes(self.item, self.verdict, error, clock.now())
        if "refused_since" in changes and self.supply.refused_limit is None and self.verdict is Verdict.REFUSED:
            # The visit of the next sweep warns the owner.
            changes |= {"due_pk": due_index.RENEWALS, "due_at": clock.to_iso(clock.now())}
        if not self.sent:
            # Not relative: boto3 sends it again where the answer got lost, and it may have been done by then.
            changes["tries"] = self.tried - 1
        if self.verdict is Verdict.REFUSED:
            since = changes.get("refused_since") or self.item.get("refused_since")
            facts = {"connection": self.connection.name, "reason": getattr(error, "reason", ""), "refused_since": since}
            logger.warning("refresh_refused", extra=facts)
        try:
            self._update(
                f"SET {', '.join(f'{name} = :{name}' for name in changes)} REMOVE lease_until",
                {f":{name}": value for name, value in changes.items()},
            )
        except Exception as failed:  # noqa: BLE001 - the first error is the one to tell; the lease ends by itself
            logger.warning(
                "a lease was not given back",
                extra={"connection": self.connection.name, "error": type(failed).__name__},
            )

    def _update(self, expression: str, values: Item) -> Item:
        """Write to the item as the lease's holder; a later turn makes this a `Conflict`."""
        return self.table.update(
            *connection_store.key(self.connection.name),
            expression,
            condition="generation = :generation AND fence = :fence",
            values={**values, ":generation": self.connection.generation, ":fence": self.fence},
        )

    def _log_unstored(self, where: str, error: Exception) -> None:
        # Its text may quote what was sent.
        facts = {"connection": self.connection.name, "where": where, "error": type(error).__name__}
        logger.error("a renewed token could not be stored yet", extra=facts)


def add_version(vault_: Vault, secret_id: str, generation: int, credentials: Credentials, fence: int) -> str:
    """Store a generation's credentials and return the id of their version.

    Usually the one that the generation decides, where a successor looks; where a predecessor that was stopped for long has
    stored another pair there meanwhile, one of its own, since the later pair is the one to keep. It takes no label from the
    version in use, which may have got its own the same way: Secrets Manager may delete versions without one.
    """
    version = vault.version_id(secret_id, generation)
    if vault_.add(secret_id, version, credentials):
        return version
    version = str(uuid.uuid4())
    vault_.add_aside(secret_id, version, credentials, fence)
    return version


def _fence(item: Item) -> int:
    return int(item.get("fence", 0))


def _kept_as(connection: Connection) -> str:
    """By the secret, not the name: a connection that was removed and made again by its old name has another account's."""
    return connection.secret_id or f"{connection.name}#{connection.created_at}"


def _refused_before(item: Item, connection: Connection) -> bool:
    """Whether the token of this generation came from a renewal for a 401, and it is too soon for another one."""
    times = int(item.get("renewed_after_401", 0))
    if not times:
        return False
    wait_s = min(AFTER_401_LONGEST_WAIT_S, AFTER_401_WAIT_S * 2.0 ** min(times - 1, 10))
    return clock.from_iso(connection.updated_at) + timedelta(seconds=wait_s) > clock.now()


def _is_young(connection: Connection) -> bool:
    return bool(connection.updated_at) and clock.from_iso(connection.updated_at) + YOUNG > clock.now()


def check_usable(connection: Connection) -> None:
    """Raises `Rejected` unless the connection is connected; `detail` says what to do."""
    match connection.state:
        case "connected":
            return
        case "pending":
            raise Rejected("not_authorised", f"nobody has authorised the connection {connection.name} yet", status=409)
        case "removed":
            raise Rejected("connection_removed", f"the connection {connection.name} has been removed", status=409)
    why = f" ({connection.reason})" if connection.reason else ""
    raise Rejected("needs_reconnect", f"the connection {connection.name} must be connected again{why}", status=409)


def end(table: Table, connection: Connection, reason: str, *, fence: int | None = None) -> None:
    """Mark a connection as one that somebody must connect again, and have the bus told.

    Raises `Conflict` where its credentials have changed since, or, with a `fence`, where that lease has been lost.
    """
    told = connection_store.due_now(event_bus.NEEDS_RECONNECT)
    now = clock.to_iso(clock.now())
    values = {f":{name}": value for name, value in told.items()}
    table.update(
        *connection_store.key(connection.name),
        "SET #state = :needs_reconnect, #reason = :reason, updated_at = :now, "
        + ", ".join(f"{name} = :{name}" for name in told)
        + " REMOVE lease_until, retry_at",
        condition="generation = :generation AND #state = :connected" + (" AND fence = :fence" if fence else ""),
        names={"#state": "state", "#reason": "reason"},
        values={
            **values,
            ":needs_reconnect": "needs_reconnect",
            ":connected": "connected",
            ":reason": reason,
            ":now": now,
            ":generation": connection.generation,
        }
        | ({":fence": fence} if fence else {}),
    )
    logger.error("a connection must be connected again", extra={"connection": connection.name, "reason": reason})


def log_in(connection: Connection, credentials: Credentials, client: OAuthClient | None) -> Grant:
    """Ask for a token with credentials that can be used any number of times. Raises `Rejected` and `Retryable`.

    A shared token comes with what is left of its life, which may be nothing.
    """
    platform = part(connection.platform, "tokens")
    given_at = clock.now()
    response = http_client.send(
        platform.token_request(connection, credentials, client),
        allowed_domain=platform.token_domain(connection, client),
        owner=connection.name,
    )
    grant: Grant = platform.read_grant(response, given_at)
    return with_changes(grant, given_at=given_at)


def typed_in(table: Table, vault_: Vault, connection: Connection) -> tuple[Connection, Credentials]:
    """The credentials that somebody typed in, for what asks for more than a token, and the connection that they are of now.

    Raises `Rejected` (409 as `check_usable`, or `no_credentials`) and `Retryable`.
    """
    while True:
        check_usable(connection)
        credentials = vault_.read(connection.secret_id, connection.version_id) if connection.secret_id else None
        if credentials:
            return connection, credentials
        before, connection = connection, connection_store.get(table, connection.name)
        if connection != before:
            continue
        if _is_young(connection):
            raise Retryable(
                "vault_lags", f"the vault does not show the credentials of {connection.name} yet", after_s=2
            )
        raise Rejected("no_credentials", f"the vault holds nothing for the connection {connection.name}", status=409)


def with_client(
    table: Table, vault_: Vault, connection: Connection, credentials: Credentials
) -> tuple[Credentials, OAuthClient | None]:
    """What a log-in needs: the credentials, and the connection's OAuth client with its secret, if it has one.

    Raises `Rejected` and `Retryable`.
    """
    if not connection.client:
        return credentials, None
    client = oauth_clients.get(table, connection.platform, connection.client)
    return {**credentials, "client_secret": vault_.client_secret(client.platform, client.name)}, client


def token_refused(connection: Connection, response: Response) -> bool:
    """Whether an answer says that the token is no good. Some platforms answer 401 for a scope that is missing, too."""
    refused = getattr(part(connection.platform, "tokens"), "token_refused", None)
    return bool(refused(response)) if refused else response.status == 401


def token_is_dead(connection: Connection, response: Response) -> bool:
    """Whether a platform that can tell says that a typed-in credential will never work again."""
    tells = hasattr(part(connection.platform, "tokens"), "token_refused")
    return tells and token_refused(connection, response)


def _probe_refused(connection: Connection, token: Token) -> bool:
    """Whether the platform's harmless call is refused as well. Without such a call, or without an answer, it is not."""
    platform = part(connection.platform, "tokens")
    if not hasattr(platform, "probe_request"):
        return False
    request = with_changes(platform.probe_request(connection, token.credentials), total_timeout_s=TIME_TO_PROBE_S)
    try:
        platform.read_probe(http_client.send(request, allowed_domain=connection.allowed_domain, owner=connection.name))
    except Rejected as rejected:
        return rejected.reason == "token_refused"
    except Retryable:
        return False
    return False


def to_stored(grant: Grant) -> Credentials:
    """A grant as the vault keeps it."""
    stored = {
        "access_token": grant.access_token,
        "expires_at": Secret(clock.to_iso(grant.expires_at)),
        "token_type": Secret(grant.token_type),
        "scopes": Secret(grant.scopes),
    }
    if grant.given_at:
        stored["given_at"] = Secret(clock.to_iso(grant.given_at))
    if grant.client_id:
        stored["client_id"] = Secret(grant.client_id)
    return stored | ({"refresh_token": grant.refresh_token} if grant.refresh_token else {})


def read_stored(credentials: Credentials) -> Grant:
    return Grant(
        access_token=credentials["access_token"],
        refresh_token=credentials.get("refresh_token"),
        expires_at=clock.from_iso(credentials["expires_at"].reveal()),
        token_type=credentials["token_type"].reveal(),
        scopes=credentials["scopes"].reveal(),
    )
