"""One worker's turn at refreshing a connection's tokens, with a refresh token that works once.

Exactly one worker refreshes at a time. It holds a lease in the connection's item with a fence, sends the refresh token once,
stores the new pair before anything uses it, and commits only while nothing newer is stored:

    claim (lease, fence, tries) → look for what a predecessor may have stored → send → store → commit

If the worker dies, its successor finds what it stored: the generation decides the version id of the new pair, so the next
holder of the lease reads it there. `tries` counts how often the refresh token may have been sent. If the platform refuses the
first sending, the grant was revoked; if it refuses a later one, an answer was lost. The platform's part `tokens` says what its
grants need.

A secret takes at most 100 versions a day. While its last version is younger than `connection_store.VERSION_EVERY`, a new pair
is sealed in the connection's item instead (`sealed`), in the write that commits it. The next refresh after that time, or a
visit of `renew_tokens`, stores a pair in the vault again.

`refused_grants` decides what a refusal means that does not end the grant.

https://www.rfc-editor.org/rfc/rfc9700#section-4.14
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as with_changes
from datetime import timedelta

from portaria import platforms
from portaria.aws import due_index, event_bus
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store, oauth_clients, refused_grants, vault
from portaria.connections.refused_grants import Verdict
from portaria.connections.tokens.cache import Token
from portaria.connections.tokens.stored_grant import add_version, read_stored, to_stored
from portaria.connections.tokens.usability import end
from portaria.connections.vault import Credentials, Seal, Vault
from portaria.core import clock
from portaria.core.entities import Connection, Grant, OAuthClient, Rejected, Request, Retryable
from portaria.core.errors import AccountMoved, GrantRevoked, NeedsReconnect, TokenExpired, Unreachable, WrongClient
from portaria.core.stored_reasons import ConnectionReason
from portaria.outbound import http_client
from portaria.platforms.protocols import TokenEndpoint

logger = logging.getLogger(__name__)

# The platform's time-outs (18 s) < what a turn may take from sending to the commit < the lease < the time left to the
# function: a holder whose lease has ended is dead, or has been stopped for longer than any of its calls may take.
LEASE_S = 45.0
TIME_TO_RENEW_S = 40.0
# Between failed tries: doubling from 2 s to five minutes.
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 300.0
# Where the OAuth client itself is wrong, until somebody corrects it: from five minutes to an hour.
CLIENT_WRONG_WAIT_S = 300.0
CLIENT_WRONG_LONGEST_WAIT_S = 3_600.0


@dataclass(frozen=True)
class RefreshContext:
    """What a refresh works with.

    `time_left_s` is the time left to the function. `refused_limit` is how long a provider may refuse refreshes before the
    connection ends; None: refusals are only remembered. Without a `sealing_key_id` nothing is refreshed.
    """

    table: Table
    vault: Vault
    sealing_key_id: str
    time_left_s: Callable[[], float]
    refused_limit: timedelta | None


class TokenRefresh:
    """One worker's turn at refreshing a connection's tokens. `fence` tells it from every other turn."""

    def __init__(self, context: RefreshContext, connection: Connection, old: Token, *, after_401: bool = False) -> None:
        self.context = context
        self.table = context.table
        self.vault = context.vault
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
        return fence_of(self.item)

    def run(self) -> float | None:
        """None where the item has moved on, by this turn or another's; else until when (epoch seconds) another holds it.

        Raises `Rejected` where the grant is dead or cannot be renewed, and `Retryable` where it should be tried later.
        """
        if not self.context.sealing_key_id or "refresh_token" not in self.old.credentials:
            if self.context.sealing_key_id and self.old.ends_within(timedelta(0)):
                self._end(ConnectionReason.TOKEN_EXPIRED, "its access token has ended and came without a refresh token")
            raise TokenExpired(
                f"the access token of {self.connection.name} has expired and cannot be renewed: connect again"
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
            if not isinstance(error, NeedsReconnect) and self._refused_too_long():
                if self._adopt():
                    return None
                detail = f"the provider has refused every renewal for too long: {getattr(error, 'detail', '')}"
                self._end(ConnectionReason.REFUSED_TOO_LONG, detail, fence=self.fence)
            self._give_up(error)
            raise
        return None

    def recover(self) -> bool:
        """Without a lease: whoever comes first points to the pair, and there is only the one."""
        self.item = connection_store.get_item(self.table, self.connection.name)
        return self._adopt()

    def _claim(self) -> None:
        now = clock.now().timestamp()
        if self.context.time_left_s() < LEASE_S:
            raise Retryable("short_of_time", "there is too little time left to renew a token", after_s=1)
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
            detail = f"the token of {self.connection.name} could not be renewed a moment ago; the next attempt is later"
            raise Retryable("renewal_waits", detail, after_s=max(1.0, wait_s))
        # A lease that ended since the claim has nothing left to wait for: the next claim succeeds.
        return float(item.get("lease_until", 0))

    def _take_turn(self) -> None:
        if self.tried > 1 and self._adopt():
            return
        platform = platforms.load(self.connection.platform)
        endpoint = platform.require(platform.token_endpoint)
        client = oauth_clients.get(self.table, self.connection.platform, self.connection.client)
        client_secret = self.vault.client_secret(client.platform, client.name)
        old = self.old.credentials["refresh_token"]
        request = endpoint.refresh_request(self.connection, client, client_secret, old)
        seal = vault.prepare_seal(self.context.sealing_key_id, {"connection": self.connection.name})
        try:
            grant = self._ask(endpoint, client, request)
        except GrantRevoked as revoked:
            self._check_client_unchanged(client)
            self._refused(revoked)
        except AccountMoved:
            if not self._follow_move(client):
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
            self._commit(vault.unseal(self.context.sealing_key_id, context, sealed), sealed=sealed)
        return bool(sealed)

    def _ask(self, endpoint: TokenEndpoint, client: OAuthClient, request: Request) -> Grant:
        """Send the refresh token; once more at once where the answer was lost, since nobody will ever have that answer."""
        domain = endpoint.token_domain(self.connection, client)
        needed_s = TIME_TO_RENEW_S
        while True:
            left_s = min(self.lease_ends - clock.now().timestamp(), self.context.time_left_s())
            if left_s < needed_s:
                raise Retryable("short_of_time", "there is too little time left to renew a token", after_s=1)
            try:
                self.sent, status = True, None
                # A life begins when the provider makes the token, which is before its answer arrives.
                given_at = clock.now()
                response = http_client.send(request, allowed_domain=domain, owner=self.connection.name)
                status = response.status
                grant = endpoint.read_refreshed(response, given_at, self.old.credentials["refresh_token"])
            except Rejected as rejected:
                self.verdict = refused_grants.verdict(status, rejected) if status else Verdict.NONE
                raise
            except Retryable as retryable:
                self.verdict = refused_grants.verdict(status, retryable)
                # Once it has been sent in an earlier turn, it has been.
                self.sent = not isinstance(retryable, Unreachable)
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
        platform = platforms.load(self.connection.platform)
        account = platform.require(platform.account_relocation)
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
            raise WrongClient(
                f"the tokens of {self.connection.name} were given to another client_id than the one that the OAuth client "
                f"{client.platform}/{client.name} has now: put that back, or connect again",
            )

    def _refused(self, rejected: Rejected) -> None:
        """The platform calls the refresh token used or revoked: it is dead only if nothing newer stands anywhere."""
        if self._adopt():
            return
        reason, detail = ConnectionReason.GRANT_REVOKED, rejected.detail
        if self.tried > 1:
            reason = ConnectionReason.ANSWER_LOST
            detail = "the platform renewed the tokens but its response was lost"
        self._end(reason, detail, fence=self.fence)

    def _refused_too_long(self) -> bool:
        limit = self.context.refused_limit
        return (
            limit is not None
            and self.verdict is Verdict.REFUSED
            and refused_grants.has_lasted(self.item, limit, clock.now())
        )

    def _end(self, reason: ConnectionReason, detail: str, *, fence: int | None = None) -> None:
        """End the connection and raise `Rejected` (`needs_reconnect`), unless it has changed meanwhile."""
        try:
            end(self.table, self.connection, reason, fence=fence)
        except Conflict:
            return
        raise NeedsReconnect(f"the customer must connect {self.connection.name} again: {detail}")

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
                    if store is places[-1] and self.context.time_left_s() < 5:
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
            if item.get("reason") == ConnectionReason.ANSWER_LOST:
                with suppress(Conflict):
                    self._point_to(
                        fresh,
                        sealed,
                        "#state = :needs_reconnect AND #reason = :lost",
                        {":needs_reconnect": "needs_reconnect", ":lost": ConnectionReason.ANSWER_LOST},
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
        if isinstance(error, NeedsReconnect):
            return
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self.tried - 1, 10))
        if isinstance(error, Rejected):
            wait_s = min(CLIENT_WRONG_LONGEST_WAIT_S, CLIENT_WRONG_WAIT_S * 2.0 ** min(self.tried - 1, 10))
        elif isinstance(error, Retryable) and error.after_s is not None:
            wait_s = min(LONGEST_WAIT_S, error.after_s)
        changes: Item = {"retry_at": int(clock.now().timestamp() + wait_s)}
        changes |= refused_grants.changes(self.item, self.verdict, error, clock.now())
        if "refused_since" in changes and self.context.refused_limit is None and self.verdict is Verdict.REFUSED:
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


def fence_of(item: Item) -> int:
    return int(item.get("fence", 0))
