"""Remove everything that a smoke run made. It is found by the run's mark alone, so it does not matter how the run ended."""

from __future__ import annotations

from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError

from portaria.aws.service_clients import error_code
from portaria.aws.table import Conflict
from portaria.connections import connection_store
from portaria.connections.credential_stores.protocol import TABLE, store_name
from portaria.connections.vault import SealedTable
from portaria.core import clock
from portaria.core.item_keys import install_key
from portaria_cli.doctor.findings import NotLooked, NotThere
from portaria_cli.errors import NotDone
from portaria_cli.smoke import flows
from portaria_cli.smoke.run import Failed, Names, Run, smoke_install

ENDED = ("connected", "failed")
# How long the Exchanges queue keeps a message (template.yaml).
CODE_WAITS_S = 345_600


class StillNeeded(Exception):
    """It cannot be removed yet; the text says why."""


def remove(run: Run, mark: str) -> list[str]:
    """Remove what carries a mark. Returns what is left, in sentences; a later run tries again.

    What uses something goes before it. One step that fails does not keep the others from being tried.
    """
    names = Names(mark)
    steps: dict[str, Callable[[Run, Names], None]] = {
        "private integrations": _integrations,
        "the connection": _connection,
        "the install": _install,
        "the OAuth client": _client,
        "the front door's account": _subscription,
        "dead letters": _dead_letters,
        "secrets": _secrets,
    }
    left = []
    for what, step in steps.items():
        try:
            run.lease.renew()
            step(run, names)
        except (NotDone, NotLooked, Failed, StillNeeded) as error:
            left.append(f"{what} of {names.name}: {error}")
        except (ClientError, BotoCoreError) as error:
            left.append(f"{what} of {names.name}: {error_code(error) or type(error).__name__}")
    return left


def _integrations(run: Run, names: Names) -> None:
    for found in list(run.api.list("private-integrations")):
        if found["name"] == names.name:
            _delete(run, "private-integrations", found["id"])


def _connection(run: Run, names: Names) -> None:
    """Its item would stay for 90 days, as that of a connection whose records may be on their way: this one has none.

    Sealed credentials would stay for seven days.
    """
    table = run.deployment.table
    item = table.get(*connection_store.key(names.name)) or {}
    _delete(run, "connections", names.name)
    if (secret_id := item.get("secret_id", "")) and store_name(secret_id) == TABLE:
        table.delete(*SealedTable.key(secret_id))
    table.delete(*connection_store.key(names.name))


def _client(run: Run, names: Names) -> None:
    _delete(run, "oauth-clients", smoke_install()[0], names.name)


def _subscription(run: Run, names: Names) -> None:
    run.deployment.table.delete(*names.subscription_key)


def _dead_letters(run: Run, names: Names) -> None:
    for letter in flows.dead_letters(run):
        _delete(run, "dead-letters", letter["id"])


def _secrets(run: Run, names: Names) -> None:
    """At once: the API removes a connection's secret with seven days to bring it back, and these hold nothing."""
    prefixes = (
        f"{run.deployment.stack_name}/grants/{names.name}-",
        f"{run.deployment.stack_name}/oauth-clients/{smoke_install()[0]}/{names.name}",
    )
    filters = [{"Key": "name", "Values": list(prefixes)}]
    page = run.call("secretsmanager", "list_secrets", Filters=filters, IncludePlannedDeletion=True, MaxResults=100)
    for secret in page["SecretList"]:
        if str(secret["Name"]).startswith(prefixes):
            try:
                run.call("secretsmanager", "delete_secret", SecretId=secret["ARN"], ForceDeleteWithoutRecovery=True)
            except NotThere:
                continue


def _install(run: Run, names: Names) -> None:
    """An install that has ended is deleted. One that is under way ends by itself, since its OAuth client goes.

    Where exchange_code has not got the code yet, a note in the install's place makes it drop the code when it does.
    """
    table = run.deployment.table
    pk, sk = install_key(names.install(names.name))
    item = table.get(pk, sk)
    if item and item["state"] not in ENDED:
        raise StillNeeded("it is under way and ends by itself; the next run removes it")
    if item and item.get("client"):
        table.delete(pk, sk)
    if item or not run.api.find("oauth-clients", smoke_install()[0], names.name):
        return
    expires_at = int(clock.now().timestamp()) + CODE_WAITS_S
    note = {"pk": pk, "sk": sk, "state": "failed", "reason": "removed", "expires_at": expires_at}
    try:
        table.put(note, condition="attribute_not_exists(pk)")
    except Conflict:
        raise StillNeeded("it has just begun; the next run removes it") from None


def _delete(run: Run, *path: str) -> None:
    try:
        run.api.delete(*path)
    except NotDone as refused:
        if refused.status != 404:
            raise
