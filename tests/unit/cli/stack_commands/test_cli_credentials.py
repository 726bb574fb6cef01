"""`portaria credentials` on moto: what it counts, when it refuses, what it asks for, and the audit entry."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from portaria.access import audit
from portaria.connections import connection_store, renewal_sweep
from portaria.connections.vault import SealedTable, Vault, version_id
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.settings import RenewTokensSettings
from portaria.outbound.rate_limiter import RateLimiter
from portaria_cli import credentials
from portaria_cli.doctor import deployment as deployments
from portaria_cli.doctor.findings import NotLooked, NotThere
from tests.fakes.api.command_line import run
from tests.fakes.aws.moto_cloud import PREFIX, Cloud

ARN = "arn:aws:sts::123456789012:assumed-role/Operator/one"


class Deployed:
    """Replaces `Deployment`: the stack on moto, whose function runs while the command sleeps."""

    stack_name = PREFIX
    reading = deployments.Deployment.reading

    def __init__(self, stack: Cloud, parameters: dict[str, str]) -> None:
        self.stack, self.table, self.parameters = stack, stack.table, parameters
        self.sent: list[str] = []
        self.asked = 0
        self.works = True
        self.refused = ""

    def physical(self, logical_id: str) -> str:
        assert logical_id == "RenewalsQueue"
        return self.stack.url("renewals")

    def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        if operation == self.refused:
            raise NotLooked(f"needs the permission {service}:{operation}")
        if (service, operation) == ("sts", "get_caller_identity"):
            return {"Arn": ARN}
        assert (service, operation) == ("sqs", "send_message")
        self.sent.append(parameters["MessageBody"])
        self.asked += 1
        return {}

    def sleep(self, _: float) -> None:
        """What `renew_tokens` does meanwhile."""
        names = {name.upper() for name in RenewTokensSettings.__annotations__}
        known = {name.lower(): value for name, value in self.stack.environment.items() if name in names}
        settings = RenewTokensSettings(**{"refused_grant_days": "7", **known})
        bodies, self.sent[:] = list(self.sent), []
        for body in bodies if self.works else ():
            renewal_sweep.handle_message(body, settings, lambda: 90.0, RateLimiter(1e9))
            for queued in self.stack.receive("renewals"):
                renewal_sweep.handle_message(queued, settings, lambda: 90.0, RateLimiter(1e9))


@pytest.fixture
def deployed(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Deployed]:
    def make(**parameters: str) -> Deployed:
        made = Deployed(stack, parameters)
        monkeypatch.setattr(credentials, "_deployment", lambda cli: made)
        monkeypatch.setattr(time, "sleep", made.sleep)
        return made

    return make


def connect(stack: Cloud, name: str, *, state: str = "connected", secret_id: str = "", **fields: Any) -> None:
    vault = vault_of(stack)
    secret_id = secret_id or vault.grant_id(name)
    version = vault.create(secret_id, {"token": Secret(f"canary-{name}")}, version_id(secret_id, 1))
    values = {"allowed_domain": "api.example.com", "state": state, "generation": 1, "version_id": version, **fields}
    connection_store.create(stack.table, Connection(name, "http", "bearer", secret_id=secret_id, **values))


def vault_of(stack: Cloud) -> Vault:
    return Vault(PREFIX, SealedTable(stack.table, stack.environment["SEALING_KEY_ID"]))


def token_of(stack: Cloud, name: str) -> str:
    connection = connection_store.get(stack.table, name)
    found = vault_of(stack).read(connection.secret_id, connection.version_id)
    assert found
    return found["token"].reveal()


@pytest.mark.parametrize("error", [NotThere("Table"), NotLooked("needs the permission dynamodb:Query")])
def test_status_without_table_says_so(
    stack: Cloud, deployed: Callable[..., Deployed], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Given the name of another stack, or no permission, then the command ends with one sentence."""

    def unread(*_: object) -> None:
        raise error

    deployed()
    monkeypatch.setattr(connection_store, "list_page", unread)
    ended = run("credentials", "status", exit_code=3)
    assert "portaria has no table" in ended.stderr or "dynamodb:Query" in ended.stderr


def test_migrate_other_parameter_is_refused(stack: Cloud, deployed: Callable[..., Deployed]) -> None:
    """Given a stack that still stores new credentials in Secrets Manager, then nothing is moved to the table."""
    made = deployed()
    refused = run("credentials", "migrate", "--to", "table", exit_code=2)
    assert "deploy it with CredentialStore=table first" in refused.stderr
    assert made.sent == []


def test_migrate_dry_run_counts_and_changes_nothing(stack: Cloud, deployed: Callable[..., Deployed]) -> None:
    made = deployed(CredentialStore="table")
    connect(stack, "one")
    connect(stack, "gone", state="removed")
    found = json.loads(run("--json", "credentials", "migrate", "--to", "table", "--dry-run").stdout)
    assert (found["to_move"], found["connections"], found["copies_to_remove"]) == (["one"], {"secrets-manager": 1}, 0)
    assert made.sent == []
    assert audit.list_page(stack.table, None, 10)[0] == []


def test_migrate_moves_everything_and_back_with_audit_entries(stack: Cloud, deployed: Callable[..., Deployed]) -> None:
    names = [f"connection-{number}" for number in range(3)]
    for name in names:
        connect(stack, name)
    for store, prefix in (("table", "table:"), ("secrets-manager", f"{PREFIX}/grants/")):
        deployed(CredentialStore=store)
        found = json.loads(run("--json", "credentials", "migrate", "--to", store).stdout)
        assert (found["to_move"], found["connections"], found["copies_to_remove"]) == ([], {store: 3}, 0)
        for name in names:
            assert connection_store.get(stack.table, name).secret_id.startswith(prefix)
            assert token_of(stack, name) == f"canary-{name}"
    entries, _ = audit.list_page(stack.table, None, 10, operation="migrate_credentials")
    assert [(entry.by, entry.target, entry.outcome) for entry in entries] == [
        (ARN, "secrets-manager", "done"), (ARN, "table", "done"),
    ]  # fmt: skip


def test_migrate_without_progress_ends_as_failure_and_names_what_is_left(
    stack: Cloud, deployed: Callable[..., Deployed]
) -> None:
    made = deployed(CredentialStore="table")
    made.works = False
    connect(stack, "one")
    ended = run("credentials", "migrate", "--to", "table", exit_code=1)
    assert "1 to move to table" in ended.stdout
    assert "one" in ended.stdout.splitlines()[-1]
    (entry,) = audit.list_page(stack.table, None, 10)[0]
    assert (entry.outcome, entry.reason) == ("failed", "connections_left")


def test_migrate_with_progress_asks_once(
    stack: Cloud, deployed: Callable[..., Deployed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a migration of five minutes, then no second message is queued for a connection that waits for its turn."""
    made = deployed(CredentialStore="table")
    names = [f"connection-{number:02d}" for number in range(30)]
    for name in names:
        connect(stack, name)

    def move_one(_: float) -> None:
        connection = connection_store.get(stack.table, names.pop(0))
        stack.table.update(
            *connection_store.key(connection.name),
            "SET secret_id = :moved",
            values={":moved": f"table:{connection.name}"},
        )

    monkeypatch.setattr(time, "sleep", move_one)
    run("credentials", "migrate", "--to", "table")
    assert made.asked == 1


def test_migrate_without_progress_asks_again_and_ends_although_connections_arrive(
    stack: Cloud, deployed: Callable[..., Deployed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a connection that cannot be moved, and installs every ten seconds, then these do not count as progress."""
    made = deployed(CredentialStore="table")
    connect(stack, "stuck")
    installed: list[str] = []

    def install(_: float) -> None:
        assert len(installed) < 100
        installed.append(f"new-{len(installed):02d}")
        connect(stack, installed[-1], secret_id=f"table:{installed[-1]}")

    monkeypatch.setattr(time, "sleep", install)
    ended = run("credentials", "migrate", "--to", "table", exit_code=1)
    assert "1 to move to table" in ended.stdout
    assert (len(installed), made.asked) == (60, 5)


@pytest.mark.parametrize("refused", ["get_caller_identity", "send_message"])
def test_migrate_without_permission_says_which_is_missing(
    stack: Cloud, deployed: Callable[..., Deployed], refused: str
) -> None:
    made = deployed(CredentialStore="table")
    made.refused = refused
    connect(stack, "one")
    ended = run("credentials", "migrate", "--to", "table", exit_code=3)
    assert f":{refused}" in ended.stderr
    assert [entry.outcome for entry in audit.list_page(stack.table, None, 10)[0]] in ([], ["failed"])


def test_migration_message_of_unknown_store_is_ignored(stack: Cloud, deployed: Callable[..., Deployed]) -> None:
    made = deployed()
    connect(stack, "one")
    made.sent.append(json.dumps({"migrate": "elsewhere"}))
    made.sleep(0)
    assert connection_store.get(stack.table, "one").secret_id == f"{PREFIX}/grants/one"
