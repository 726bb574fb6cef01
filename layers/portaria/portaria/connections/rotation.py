"""Replacing static credentials: the new ones are tested before anything uses them, and one write puts them into use.

    claim (lease, fence) → try → stage → promote → commit

The new credentials are tested with the platform, staged in the vault as a new version, and promoted to the current version by
compare and swap. Then a conditional write points the connection's item to them: that is the commit. Refused credentials are not
stored, because a secret takes 100 versions a day. If the worker dies before the commit, the old credentials stay in use. The
label of the current version may then be on a version that no item ever pointed to. The next change of the credentials moves the
label back first, so that the version in use always has a label: Secrets Manager may delete versions without one.

After a rotation the old credentials are kept while the platform accepts both, and can be dropped earlier. `tokens` falls back
on them.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress
from dataclasses import replace as with_changes
from datetime import timedelta

from portaria import platforms
from portaria.aws.table import Conflict, Item, Table
from portaria.connections import connection_store
from portaria.connections.tokens import static_credentials
from portaria.connections.vault import Credentials, Vault
from portaria.core import clock, event_catalogue
from portaria.core.entities import Connection
from portaria.core.errors import ConnectionRemoved, NoCredentials, Rejected, Retryable
from portaria.outbound import http_client

logger = logging.getLogger(__name__)

# How long LeadConnector, the only platform with rotation, accepts the old token.
OVERLAP = timedelta(days=7)
NO_OVERLAP = timedelta(0)
# The token in use, sent again within this time, is a repeated request whose first answer was lost.
REPEATED_WITHIN = timedelta(minutes=10)
# Longer than the function may run (`manage`, 20 s): a holder whose lease has ended is dead.
LEASE_S = 30


def try_credentials(table: Table, vault: Vault, connection: Connection, credentials: Credentials) -> str:
    """Log in with the credentials, or send the platform's harmless request with them. Returns the granted scopes, if known.

    Raises `Rejected` (`credentials_refused`) if the platform refuses them and `Retryable` if it does not answer. Nothing
    is sent to a platform without a harmless request.
    """
    test = platforms.load(connection.platform).credential_test
    try:
        if connection.kind in static_credentials.LOG_IN_KINDS:
            credentials, client = static_credentials.with_client(table, vault, connection, credentials)
            return static_credentials.log_in(connection, credentials, client, is_trial=True).scopes
        if test:
            response = http_client.send(
                test.probe_request(connection, credentials),
                allowed_domain=connection.allowed_domain,
                owner=connection.name,
            )
            test.read_probe(response)
    except Rejected as refused:
        field = refused.field or ("client" if connection.client else "credentials")
        detail = f"{refused.detail}; these credentials were not stored"
        raise Rejected("credentials_refused", detail, field=field) from None
    except Retryable as silent:
        raise Retryable(
            "platform_unreachable",
            f"the credentials could not be tested, so they were not stored: {silent.detail}",
            after_s=silent.after_s,
        ) from None
    return ""


def rotate(table: Table, vault: Vault, name: str, credentials: Credentials, *, expire_now: bool) -> Connection:
    """Replace a platform's token. The old one is kept for `OVERLAP`, unless `expire_now`.

    Raises `Rejected` (404 `unknown_connection`, 409 `not_rotatable`, and as `replace` does) and `Retryable`.
    """
    connection = connection_store.get(table, name)
    if not platforms.load(connection.platform).credential_test:
        raise Rejected(
            "not_rotatable",
            f"{connection.platform} has no request that tests a token safely: replace the credentials with "
            f"PUT /connections/{connection.name}/credentials",
            status=409,
        )
    fresh = _exchange(table, vault, connection, credentials, overlap=NO_OVERLAP if expire_now else OVERLAP)
    return expire(table, vault, name) if expire_now else fresh


def replace(table: Table, vault: Vault, connection: Connection, credentials: Credentials) -> Connection:
    """Replace credentials and drop the old ones. Storing the same ones again only reconnects an ended connection.

    Raises `Rejected` (400 `credentials_refused`, 409 `connection_changed`, `connection_removed` or `no_credentials`) and
    `Retryable`.
    """
    return _exchange(table, vault, connection, credentials)


def expire(table: Table, vault: Vault, name: str) -> Connection:
    """Drop the previous credentials of a rotation, if there are any. Raises `Rejected` (404, 409) and `Retryable`."""
    item = connection_store.get_item(table, name)
    connection = connection_store.read(item)
    if connection.state == "removed":
        raise ConnectionRemoved(f"the connection {name} has been removed")
    if not connection.previous_version_id:
        return connection
    # The vault first: until the item is written, it points to credentials that are already gone, which readers accept.
    vault.drop(connection.secret_id, connection.previous_version_id)
    fresh = with_changes(connection, previous_version_id="", previous_until="", updated_at=clock.to_iso(clock.now()))
    try:
        _write(
            table,
            fresh,
            item.get(connection_store.ANNOUNCE, ""),
            ("previous_version_id", "previous_until", "updated_at"),
            "generation = :generation AND previous_version_id = :previous",
            {":generation": connection.generation, ":previous": connection.previous_version_id},
        )
    except Conflict:
        raise changed(name) from None
    return fresh


def changed(name: str) -> Rejected:
    return Rejected("connection_changed", f"the connection {name} has just changed: read it and try again", status=409)


def _exchange(
    table: Table,
    vault: Vault,
    connection: Connection,
    credentials: Credentials,
    overlap: timedelta | None = None,
) -> Connection:
    """`overlap` is how long the old credentials are kept; None for a replacement, which keeps none."""
    item = _claim(table, connection)
    try:
        return _take_turn(table, vault, item, credentials, overlap)
    except Exception:
        _give_back(table, item)
        raise


def _claim(table: Table, connection: Connection) -> Item:
    """Returns the item with this worker's lease and fence; token refreshes use the same lease."""
    now = int(clock.now().timestamp())
    try:
        return table.update(
            *connection_store.key(connection.name),
            "SET lease_until = :until, fence = if_not_exists(fence, :zero) + :one",
            condition="generation = :generation AND #state <> :removed AND "
            "(attribute_not_exists(lease_until) OR lease_until < :now)",
            names={"#state": "state"},
            values={
                ":until": now + LEASE_S,
                ":now": now,
                ":zero": 0,
                ":one": 1,
                ":generation": connection.generation,
                ":removed": "removed",
            },
        )
    except Conflict as conflict:
        item = conflict.item or {}
    if item.get("state") == "removed":
        raise ConnectionRemoved(f"the connection {connection.name} has been removed")
    if item.get("generation") != connection.generation:
        raise changed(connection.name)
    raise Retryable(
        "change_in_progress",
        f"the credentials of {connection.name} are being changed by another request",
        after_s=max(1, item.get("lease_until", now) - now + 1),
    )


def _give_back(table: Table, item: Item) -> None:
    """Return the lease early. If that fails, it ends by itself."""
    with suppress(Exception):
        table.update(
            item["pk"],
            item["sk"],
            "REMOVE lease_until",
            condition="fence = :fence AND generation = :generation",
            values={":fence": item["fence"], ":generation": item["generation"]},
        )


def _take_turn(
    table: Table, vault: Vault, item: Item, credentials: Credentials, overlap: timedelta | None
) -> Connection:
    connection = connection_store.read(item)
    in_use, stored = _labelled(vault, connection)
    if stored is not None and _same(stored, credentials):
        return _keep(table, vault, item, credentials, is_rotation=overlap is not None)
    scopes = try_credentials(table, vault, connection, credentials)
    version = str(uuid.uuid4())
    vault.stage(connection.secret_id, version, credentials)
    try:
        vault.promote(connection.secret_id, old=in_use, new=version)
    except Conflict:
        # Changed without a lease, or by this very call, which was sent twice because the first answer was lost.
        if vault.current_version(connection.secret_id) != version:
            raise changed(connection.name) from None
    now = clock.now()
    # A credential that the platform no longer accepts is not kept.
    until = now + overlap if overlap is not None and connection.state == "connected" else None
    fresh = with_changes(
        connection,
        version_id=version,
        previous_version_id=in_use if until else "",
        previous_until=clock.to_iso(until) if until else "",
        granted_at=clock.to_iso(now),
        scopes=scopes or connection.scopes,
    )
    fresh = _commit(table, item, fresh)
    if not until:
        _drop(vault, connection, in_use)
    return fresh


def _labelled(vault: Vault, connection: Connection) -> tuple[str, Credentials | None]:
    """The version in use and its credentials. If a death left the label on another version, it is moved back first."""
    current = vault.current_version(connection.secret_id)
    if not current:
        raise NoCredentials(
            f"no credentials are stored for {connection.name}: delete the connection and create it again"
        )
    in_use = connection.version_id or current
    stored = vault.read(connection.secret_id, in_use)
    if stored is None:
        # There is nothing to fall back on: the new credentials replace the current version.
        return current, None
    if in_use != current:
        try:
            vault.promote(connection.secret_id, old=current, new=in_use)
        except Conflict:
            raise changed(connection.name) from None
    return in_use, stored


def _keep(table: Table, vault: Vault, item: Item, credentials: Credentials, *, is_rotation: bool) -> Connection:
    """Store the same credentials again: they are tested and reconnect an ended connection. Their age does not change."""
    connection = connection_store.read(item)
    if is_rotation and clock.from_iso(connection.granted_at) + REPEATED_WITHIN < clock.now():
        raise Rejected(
            "credentials_unchanged",
            "this token is already in use: create a new one at the platform first",
            field="credentials",
        )
    scopes = try_credentials(table, vault, connection, credentials)
    if connection.state == "connected" and scopes in ("", connection.scopes):
        _give_back(table, item)
        return connection
    return _commit(table, item, with_changes(connection, scopes=scopes or connection.scopes))


def _commit(table: Table, item: Item, fresh: Connection) -> Connection:
    """Point the item to the new credentials, unless it has changed since the claim."""
    of_another_age = ("warned",) if fresh.granted_at != item["granted_at"] else ()
    recovered = item["state"] == "needs_reconnect"
    fresh = with_changes(
        fresh,
        generation=fresh.generation + 1,
        state="connected",
        reason="",
        updated_at=clock.to_iso(clock.now()),
    )
    try:
        _write(
            table,
            fresh,
            event_catalogue.RECOVERED if recovered else item.get(connection_store.ANNOUNCE, ""),
            ("generation", "version_id", "previous_version_id", "previous_until", "granted_at", "scopes", "state",
             "reason", "updated_at"),
            "generation = :old AND fence = :fence AND #state = :before AND secret_id = :secret_id",
            {
                ":old": item["generation"],
                ":fence": item["fence"],
                ":before": item["state"],
                ":secret_id": item["secret_id"],
            },
            gone=("lease_until", "retry_at", "tries", *of_another_age),
        )  # fmt: skip
    except Conflict as conflict:
        # A write that was sent twice, because its first answer was lost, conflicts with itself.
        now = conflict.item or {}
        if (now.get("generation"), now.get("version_id")) != (fresh.generation, fresh.version_id):
            raise changed(fresh.name) from None
    return fresh


def _write(
    table: Table,
    fresh: Connection,
    announce: str,
    fields: tuple[str, ...],
    condition: str,
    values: Item,
    *,
    gone: tuple[str, ...] = (),
) -> None:
    """Write some of a connection's fields, with its next due time. `state` is written with its place in the index."""
    item = connection_store.to_item(fresh, announce=announce)
    due = ("due_pk", "due_at", connection_store.ANNOUNCE)
    placed = ("filter_pk", "filter_sk") if "state" in fields else ()
    found = [*fields, *placed, *(name for name in due if name in item)]
    gone = (*gone, *(name for name in due if name not in item))
    table.update(
        *connection_store.key(fresh.name),
        f"SET {', '.join(f'#{name} = :{name}' for name in found)}" + (f" REMOVE {', '.join(gone)}" if gone else ""),
        condition=condition,
        names={f"#{name}": name for name in {*found, *(["state"] if "#state" in condition else [])}},
        values={f":{name}": item[name] for name in found} | values,
    )


def _drop(vault: Vault, connection: Connection, version: str) -> None:
    """Drop replaced credentials. Nothing points to them, so a failure is only logged."""
    try:
        vault.drop(connection.secret_id, version)
    except Retryable as retryable:
        facts = {"connection": connection.name, "reason": retryable.reason}
        logger.warning("replaced_credentials_kept", extra=facts)


def _same(one: Credentials, other: Credentials) -> bool:
    return {name: value.reveal() for name, value in one.items()} == {
        name: value.reveal() for name, value in other.items()
    }
