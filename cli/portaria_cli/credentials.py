"""The commands `credentials status` and `credentials migrate`: which store holds the credentials of a stack's connections.

The credentials are moved by the stack's own function `renew_tokens`. No command reads one.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import click
from rich.console import Console

from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext, working
from portaria_cli.errors import USAGE, Document, NotDone

if TYPE_CHECKING:
    from portaria_cli.doctor.deployment import Deployment

STORES = ("secrets-manager", "table")
POLL_S = 10.0
# After this time without progress the command asks again for what was in use when its turn came, and then gives up. While there
# is progress it does not: each request queues a message for every connection that is left, and renewals wait behind these.
ASK_AGAIN_S, STALLED_S = 120.0, 600.0
OPERATION = "migrate_credentials"
MOST_NAMED = 10


@dataclass(frozen=True)
class Status:
    """How many connections each store serves, which are not in `store`, and how many copies are still to be removed."""

    store: str
    connections: dict[str, int]
    to_move: list[str]
    copies_to_remove: int

    @property
    def left(self) -> tuple[list[str], int]:
        """What changes as the migration goes on. New connections do not change it."""
        return self.to_move, self.copies_to_remove

    @property
    def is_complete(self) -> bool:
        return not any(self.left)

    def text(self) -> str:
        counts = ", ".join(f"{count:,} in {store}" for store, count in sorted(self.connections.items()))
        left = f"{len(self.to_move):,} to move to {self.store}, {self.copies_to_remove:,} copies to remove"
        return f"connections: {counts or 'none'}; {left}"


@click.group(cls=Commands)
def credentials() -> None:
    """Where the credentials of connections are stored."""


@credentials.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Show how many connections each store serves. Nothing is changed, and no credential is read."""
    cli: CliContext = ctx.obj
    deployment = _deployment(cli)
    with working() as tell:
        tell("reading the connections")
        found = read_status(deployment, parameter(deployment))
    cli.print(_document(deployment, found), partial(_shown, found))


@credentials.command()
@click.option("--to", "store", type=click.Choice(STORES), required=True, help="The store to move credentials to.")
@click.option("--dry-run", is_flag=True, help="Say what would be moved, and move nothing.")
@click.pass_context
def migrate(ctx: click.Context, store: str, dry_run: bool) -> None:
    """Move the credentials of all connections to one store.

    First deploy the stack with CredentialStore set to that store, so that new connections use it. Connections stay in use, and
    their tokens are renewed meanwhile. If this command is interrupted, run it again; to go back, deploy with the other store
    and migrate to that one.
    """
    cli: CliContext = ctx.obj
    deployment = _deployment(cli)
    if parameter(deployment) != store:
        raise NotDone(
            f"the stack stores new credentials in {parameter(deployment)}: deploy it with CredentialStore={store} first",
            exit_code=USAGE,
        )
    with working() as tell:
        tell("reading the connections")
        found = read_status(deployment, store)
        if not dry_run and not found.is_complete:
            found = _migrate(cli, deployment, found, tell)
    cli.print(_document(deployment, found), partial(_shown, found))
    ctx.exit(0 if dry_run or found.is_complete else 1)


def parameter(deployment: Deployment) -> str:
    """The stack's CredentialStore. Stacks of earlier releases have no such parameter."""
    return deployment.parameters.get("CredentialStore") or STORES[0]


def read_status(deployment: Deployment, store: str) -> Status:
    """Raises `NotDone` where there is no table, or the caller may not read it."""
    from portaria.connections import connection_store, credential_migration  # noqa: PLC0415 - imports boto3
    from portaria.connections.credential_stores.protocol import store_name  # noqa: PLC0415
    from portaria_cli.doctor.findings import NotLooked, NotThere  # noqa: PLC0415

    counts: Counter[str] = Counter()
    to_move: list[str] = []
    cursor: str | None = None
    try:
        with deployment.reading():
            while True:
                page, cursor = connection_store.list_page(deployment.table, cursor, 500)
                for connection in page:
                    if connection.state != "removed" and connection.secret_id:
                        counts[store_name(connection.secret_id)] += 1
                    if credential_migration.is_to_move(connection, store):
                        to_move.append(connection.name)
                if not cursor:
                    break
            copies = len(credential_migration.journal(deployment.table))
    except NotLooked as reason:
        raise NotDone(f"the connections could not be read: {reason}", exit_code=3) from None
    except NotThere:
        told = f"the stack {deployment.stack_name} has no table: give the name of Portaria's stack with --stack-name"
        raise NotDone(told, exit_code=3) from None
    return Status(store, dict(counts), to_move, copies)


def _migrate(cli: CliContext, deployment: Deployment, found: Status, tell: Callable[[str], None]) -> Status:
    """Ask `renew_tokens` to move everything, and wait. The audit trail has an entry before anything is asked."""
    from portaria.access import audit  # noqa: PLC0415 - imports boto3
    from portaria.core.errors import Retryable  # noqa: PLC0415
    from portaria_cli.doctor.findings import NotLooked, NotThere  # noqa: PLC0415

    try:
        caller = str(deployment.call("sts", "get_caller_identity")["Arn"])
        queue_url = deployment.physical("RenewalsQueue")
    except (NotLooked, NotThere) as unfound:
        raise NotDone(f"the stack could not be looked up, so nothing was moved: {unfound}", exit_code=3) from None
    try:
        entry = audit.begin(
            deployment.table,
            by=caller,
            by_name="",
            source="",
            operation=OPERATION,
            target=found.store,
            asked={"to": found.store, "connection_count": len(found.to_move)},
            request_id="",
        )
    except Retryable:
        raise NotDone("the audit entry could not be written, so nothing was moved", exit_code=3) from None
    ask = partial(
        deployment.call, "sqs", "send_message", QueueUrl=queue_url, MessageBody=json.dumps({"migrate": found.store})
    )
    try:
        ask()
        found = _wait(cli, deployment, found, ask, tell)
    except (NotLooked, NotThere) as unasked:
        audit.end(deployment.table, entry, "failed", reason="not_requested")
        raise NotDone(f"the migration could not be requested: {unasked}", exit_code=3) from None
    outcome, reason = ("done", "") if found.is_complete else ("failed", "connections_left")
    audit.end(deployment.table, entry, outcome, reason=reason)
    return found


def _wait(
    cli: CliContext, deployment: Deployment, found: Status, ask: Callable[[], object], tell: Callable[[str], None]
) -> Status:
    """Returns the status once everything is moved, or nothing has been moved for `STALLED_S`."""
    idle_s = 0.0
    while not found.is_complete and idle_s < STALLED_S:
        time.sleep(POLL_S)
        before, found = found, read_status(deployment, found.store)
        tell(found.text())
        if found.left != before.left:
            idle_s = 0.0
            cli.say(found.text())
            continue
        idle_s += POLL_S
        if idle_s % ASK_AGAIN_S == 0 and idle_s < STALLED_S:
            ask()
    return found


def _deployment(cli: CliContext) -> Deployment:
    try:
        from portaria_cli.doctor.deployment import Deployment  # noqa: PLC0415 - the other commands do not need it
    except ModuleNotFoundError as missing:
        raise NotDone(f"this command needs {missing.name}: pip install '.[doctor]'") from None
    return Deployment(cli.settings)


def _document(deployment: Deployment, found: Status) -> Document:
    return {"stack": deployment.stack_name, **asdict(found)}


def _shown(found: Status, console: Console) -> None:
    console.print(found.text(), soft_wrap=True)
    for name in found.to_move[:MOST_NAMED]:
        console.print(f"  {name}", soft_wrap=True)
    if len(found.to_move) > MOST_NAMED:
        console.print(f"  and {len(found.to_move) - MOST_NAMED:,} more")
