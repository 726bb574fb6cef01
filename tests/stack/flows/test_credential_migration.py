"""`portaria credentials migrate` on the deployed template, to the other store and back, with accounts that stay in use."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from local import lifecycle
from local.stack import STACK_FILE
from portaria_cli import credentials
from portaria_cli.commands import portaria
from tests.fakes.local_cloud.scenes import Scene, wait_for
from tests.fakes.local_cloud.session import LocalCloud

SECRETS_MANAGER, TABLE = credentials.STORES
ACCOUNTS = 3


def deploy(store: str) -> None:
    """Deploy the running stack with this CredentialStore."""
    lifecycle.up(lambda _title: contextlib.nullcontext(), print, store=store)


@pytest.fixture
def stack_in_default_store(stack: LocalCloud) -> Iterator[LocalCloud]:
    """The stack's parameter is set back for the tests that follow."""
    yield stack
    deploy(SECRETS_MANAGER)


def command(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of a `portaria credentials` command."""
    result = CliRunner().invoke(portaria, ["--stack-file", str(STACK_FILE), "--json", "credentials", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout) if result.exit_code in (0, 1) else {}


@dataclass
class Fleet:
    """Accounts that have installed, and the Marketo subscription to which their contacts go."""

    scene: Scene
    munchkin: str
    hosts: list[str]

    @classmethod
    def connect(cls, scene: Scene) -> Fleet:
        munchkin = scene.send_to_marketo()
        hosts = [scene.account(f"-{number}", contacts=1, without_email=0.0) for number in range(ACCOUNTS)]
        for host in hosts:
            assert scene.hook(scene.code(host), host).status_code == 200
        fleet = cls(scene, munchkin, hosts)
        scene.wait_for_end(ACCOUNTS)
        wait_for(lambda: scene.cloud.control.marketo_persons(munchkin), lambda found: len(found) == ACCOUNTS)
        return fleet

    @property
    def names(self) -> set[str]:
        return {install["connection"] for install in self.scene.installs()} | {f"marketo-{self.scene.name}"}

    def item(self, name: str) -> dict[str, Any]:
        found = self.scene.cloud.dynamodb.get_item(
            TableName=self.scene.cloud.stack.table,
            Key={"pk": {"S": f"CONNECTION#{name}"}, "sk": {"S": "CONNECTION"}},
            ConsistentRead=True,
        )
        return dict(found["Item"])

    def renew(self) -> None:
        """Renew the token of each account, which the platform allows once for each refresh token."""
        for install in self.scene.installs():
            name = install["connection"]
            before = int(self.item(name)["generation"]["N"])
            url = f"{self.scene.cloud.public_url}/admin/v1/connections/{name}/renew"
            answer = self.scene.cloud.admin.post(url)
            assert answer.status_code == 200, answer.text
            assert int(self.item(name)["generation"]["N"]) == before + 1

    def deliver(self, last_name: str) -> None:
        """Change a contact of each account. Its last name arrives only by a reading with the account's token."""
        control, cloud = self.scene.cloud.control, self.scene.cloud
        for host in self.hosts:
            contact = control.kommo_contacts(host)["contacts"][0]["id"]
            changed = control.change_kommo(host, id=contact, fields={"first_name": "Ana", "last_name": last_name})
            assert changed["answers"] == ["200"]

        def arrived() -> int:
            cloud.sqs.send_message(
                QueueUrl=cloud.stack.queues["backfills"], MessageBody=json.dumps({"reconcile": "due"})
            )
            persons = control.marketo_persons(self.munchkin)
            return sum(person["attributes"].get("lastName") == last_name for person in persons)

        wait_for(arrived, lambda count: count == ACCOUNTS)


def test_secret_first_version_has_the_id_that_the_request_names(stack: LocalCloud) -> None:
    """As on AWS. A migration to Secrets Manager reads its copies back by that id."""
    name, version = f"first-version-{uuid.uuid4()}", str(uuid.uuid4())
    created = stack.secrets.create_secret(Name=name, SecretString="canary-first", ClientRequestToken=version)
    read = stack.secrets.get_secret_value(SecretId=name, VersionId=version)
    stack.secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    assert (created["VersionId"], read["SecretString"], read["VersionStages"]) == (
        version,
        "canary-first",
        ["AWSCURRENT"],
    )


@pytest.mark.long  # Deploys three times: make faults
def test_credentials_migrate_connections_stay_in_use_in_both_directions(
    stack_in_default_store: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Connections of earlier tests may have to wait for 20 minutes before they can be moved.
    monkeypatch.setattr(credentials, "POLL_S", 2.0)
    monkeypatch.setattr(credentials, "STALLED_S", 30.0)
    scene = Scene(stack_in_default_store)
    fleet = Fleet.connect(scene)
    assert command("migrate", "--to", TABLE) == (2, {})

    for store in (TABLE, SECRETS_MANAGER):
        deploy(store)
        assert fleet.names <= set(command("migrate", "--to", store, "--dry-run")[1]["to_move"])
        generations = {name: int(fleet.item(name)["generation"]["N"]) for name in fleet.names}

        _, document = command("migrate", "--to", store)

        assert not fleet.names & set(document["to_move"])
        assert document["copies_to_remove"] == 0
        items = {name: fleet.item(name) for name in fleet.names}
        assert {name: int(item["generation"]["N"]) - 1 for name, item in items.items()} == generations
        assert {item["secret_id"]["S"].startswith("table:") for item in items.values()} == {store == TABLE}
        fleet.renew()
        fleet.deliver(f"Souza {store}")
