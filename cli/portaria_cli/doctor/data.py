"""Checks of the stored data. Most of them are `portaria.overview.stored_checks`, which the console shows too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice

from portaria.aws import due_index
from portaria.connections import connection_store, credential_migration
from portaria.connections.credential_stores.protocol import SECRETS_MANAGER, TABLE, store_name
from portaria.connections.vault import SealedTable, Vault
from portaria.core import clock
from portaria.overview import stored_checks
from portaria.overview.findings import FAIL, OK, WARN, Finding, named, runbook
from portaria.overview.stored_checks import StoredState
from portaria_cli.doctor.deployment import Deployment
from portaria_cli.doctor.findings import NotThere

# How many secrets are looked at: a stack may have many thousands.
MOST_SECRETS = 50
# How many late renewals are counted.
MOST_LATE = 100
# A connection is due for its whole next five minutes, and its renewal may have to be tried again.
LATE = timedelta(hours=1)


def stored_state(deployment: Deployment) -> StoredState:
    """Raises `NotLooked` where the caller may not read the table."""
    with deployment.reading():
        # Read here, where a refused read becomes `NotLooked`.
        _ = deployment.stored.clients, deployment.stored.connections
    return deployment.stored


def of_stored(name: str) -> Callable[[Deployment], Iterator[Finding]]:
    """A check of `stored_checks`, of a deployment."""

    def check(deployment: Deployment) -> Iterator[Finding]:
        with deployment.reading():
            yield from stored_checks.CHECKS[name](deployment.stored)

    return check


def renewals(deployment: Deployment) -> Iterator[Finding]:
    """No connection waits for its renewal."""
    late = clock.to_iso(clock.now() - LATE)
    with deployment.reading():
        due, more = deployment.table.query(due_index.RENEWALS, index="by_due", sk_until=late, limit=MOST_LATE)
    if due:
        at_least = "at least " if more else ""
        told = f"{at_least}{len(due)} have been due for more than an hour: {named(str(item.get('name', '?')) for item in due)}"
        yield Finding("renewals", FAIL, told, "run `portaria logs renew_tokens`; " + runbook("renewals-waiting"))
    else:
        yield Finding("renewals", OK, "nothing is late")


def secrets(deployment: Deployment) -> Iterator[Finding]:
    """Whatever is written in the table to be in the vault is there. Nothing is read."""
    vault, stored = Vault(deployment.stack_name), stored_state(deployment)
    wanted = {
        vault.client_secret_id(client.platform, client.name): f"the OAuth client {client.platform}/{client.name}"
        for client in stored.clients
    }
    held = [each for each in stored.connections if each.state in ("connected", "needs_reconnect") and each.secret_id]
    # The same ones each time would leave the others unseen for ever: those that changed last.
    held.sort(key=lambda connection: connection.updated_at, reverse=True)
    wanted |= {connection.secret_id: f"the connection {connection.name}" for connection in held}
    names = {connection.secret_id: connection.name for connection in held}
    fine = 0
    for secret_id, whose in islice(wanted.items(), MOST_SECRETS):
        is_there = _is_stored(deployment, secret_id)
        if not is_there and secret_id in names and not _is_in_use(deployment, names[secret_id], secret_id):
            # Moved to the other store, connected again or removed since the connections were read.
            continue
        fine += is_there
        if not is_there:
            restore = f"`aws secretsmanager restore-secret --secret-id {secret_id}`"
            if store_name(secret_id) == TABLE:
                restore = f"remove `removed_at` and `expires_at` from the item {SealedTable.key(secret_id)[0]}"
            advice = f"{restore} within 7 days; otherwise connect again"
            yield Finding("secrets", FAIL, f"the secret of {whose} does not exist or is scheduled for deletion", advice)
    if fine or not wanted:
        more = f" of {len(wanted):,}, those changed last" if len(wanted) > MOST_SECRETS else ""
        yield Finding("secrets", OK, f"{fine} exist{more}" if wanted else "none is needed yet")
    yield from _abandoned_copies(deployment)


def _abandoned_copies(deployment: Deployment) -> Iterator[Finding]:
    """No interrupted migration has left copies of credentials. A younger copy may belong to a move in progress."""
    with deployment.reading():
        entries = credential_migration.journal(deployment.table)
    before = clock.now() - credential_migration.ABANDONED_AFTER
    if left := sorted({entry.connection for entry in entries if clock.from_iso(entry.started_at) <= before}):
        told = (
            f"an interrupted migration has left copies of the credentials of {len(left):,} connections: {named(left)}"
        )
        store = deployment.parameters.get("CredentialStore") or SECRETS_MANAGER
        yield Finding("secrets", WARN, told, f"run `portaria credentials migrate --to {store}` again")


def _is_in_use(deployment: Deployment, connection: str, secret_id: str) -> bool:
    """Whether a connection still has these credentials."""
    with deployment.reading():
        item = deployment.table.get(*connection_store.key(connection)) or {}
    return item.get("secret_id") == secret_id and item.get("state") != "removed"


def _is_stored(deployment: Deployment, secret_id: str) -> bool:
    """Whether credentials exist in their store and have not been removed."""
    if store_name(secret_id) == TABLE:
        with deployment.reading():
            item = deployment.table.get(*SealedTable.key(secret_id))
        return bool(item) and "removed_at" not in (item or {})
    try:
        return "DeletedDate" not in deployment.call("secretsmanager", "describe_secret", SecretId=secret_id)
    except NotThere:
        return False


def receipts(deployment: Deployment) -> Iterator[Finding]:
    """Whether anybody tells what became of what Adobe accepted."""
    if deployment.parameters.get("AdobeClientId"):
        yield Finding("Adobe's events", OK, "AdobeClientId is set")
    else:
        advice = "create an Adobe I/O project with the Observability events and deploy with AdobeClientId"
        yield Finding(
            "Adobe's events",
            WARN,
            "AdobeClientId is not set, so the outcome of accepted requests stays unknown",
            advice,
        )
