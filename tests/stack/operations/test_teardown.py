"""`portaria teardown` on the local cloud: a stack with the template's table and key, deleted beside another one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from local.stack import STACK_FILE
from local.template_file import read_template
from portaria_cli.commands import portaria
from tests.fakes.local_cloud.session import LocalCloud

Json = dict[str, Any]
KEPT = ("Table", "SealingKey")


@dataclass(frozen=True)
class Small:
    """A stack with the resources that a deletion keeps, and two secrets."""

    cloud: LocalCloud
    name: str
    file: Path

    def deploy(self) -> None:
        cloudformation = self.cloud.stack.client("cloudformation")
        body = {"Resources": {logical_id: read_template()["Resources"][logical_id] for logical_id in KEPT}}
        cloudformation.create_stack(StackName=self.name, TemplateBody=json.dumps(body))
        cloudformation.get_waiter("stack_create_complete").wait(
            StackName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        for secret in ("grants/kommo-one", "oauth-clients/kommo/widget"):
            self.cloud.secrets.create_secret(Name=f"{self.name}/{secret}", SecretString="{}")

    def resources(self) -> dict[str, str]:
        """Physical ids by logical id."""
        described = self.cloud.stack.client("cloudformation").describe_stack_resources(StackName=self.name)
        return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in described["StackResources"]}

    def delete(self) -> None:
        cloudformation = self.cloud.stack.client("cloudformation")
        cloudformation.delete_stack(StackName=self.name)
        cloudformation.get_waiter("stack_delete_complete").wait(
            StackName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )

    def bring_back(self, kept: dict[str, str]) -> None:
        """The procedure of docs/operations.md for a deleted stack: import the table and the key into a new one."""
        cloudformation = self.cloud.stack.client("cloudformation")
        body = {"Resources": {logical_id: read_template()["Resources"][logical_id] for logical_id in KEPT}}
        imported = [
            {
                "ResourceType": read_template()["Resources"][logical_id]["Type"],
                "LogicalResourceId": logical_id,
                "ResourceIdentifier": {identifier: kept[logical_id]},
            }
            for logical_id, identifier in (("Table", "TableName"), ("SealingKey", "KeyId"))
        ]
        change = {"StackName": self.name, "ChangeSetName": "bring-back"}
        cloudformation.create_change_set(
            **change, ChangeSetType="IMPORT", ResourcesToImport=imported, TemplateBody=json.dumps(body)
        )
        cloudformation.get_waiter("change_set_create_complete").wait(
            **change, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        cloudformation.execute_change_set(**change)
        cloudformation.get_waiter("stack_import_complete").wait(
            StackName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )

    def teardown(self, *arguments: str, exit_code: int = 0) -> Json:
        settings = json.loads(STACK_FILE.read_text()) | {"stack_name": self.name}
        self.file.write_text(json.dumps(settings))
        command = ["--stack-file", str(self.file), "--json", "teardown", *arguments]
        result = CliRunner().invoke(portaria, command)
        assert result.exit_code == exit_code, result.output
        document: Json = json.loads(result.stdout)
        return document

    def left(self) -> Json:
        listed = self.teardown()["listed"]
        return {"stack": listed["stack_status"]} | {
            kind: len(listed[kind]["ids"]) for kind in ("secrets", "tables", "keys")
        }


@pytest.fixture
def pair(stack: LocalCloud, tmp_path: Path) -> Iterator[tuple[Small, Small]]:
    """A stack, and another one whose name begins with its name."""
    name = f"gone-{secrets.token_hex(3)}"
    both = Small(stack, name, tmp_path / "one.json"), Small(stack, f"{name}-staging", tmp_path / "other.json")
    try:
        for small in both:
            small.deploy()
        yield both
    finally:
        for small in both:
            with suppress(ClientError, AssertionError):
                force = ("--delete-stack", "--delete-data", "--force-delete-without-recovery")
                small.teardown("--yes", small.name, *force)


def test_teardown_of_deleted_stack_keeps_another_stack(pair: tuple[Small, Small]) -> None:
    one, other = pair
    there = {"stack": "CREATE_COMPLETE", "secrets": 2, "tables": 1, "keys": 1}
    assert (one.left(), other.left()) == (there, there)

    one.delete()
    assert one.left() == there | {"stack": ""}

    one.teardown("--yes", one.name)
    assert one.left() == {"stack": "", "secrets": 0, "tables": 1, "keys": 0}
    one.teardown("--yes", one.name, "--delete-data")
    assert one.left() == {"stack": "", "secrets": 0, "tables": 0, "keys": 0}
    assert other.left() == there


def test_teardown_delete_stack_and_data_removes_everything(pair: tuple[Small, Small]) -> None:
    one, other = pair
    done = one.teardown("--yes", one.name, "--delete-stack", "--delete-data")["removed"]
    assert {each["kind"]: each["outcome"] for each in done} == dict.fromkeys(
        ("stack", "secrets", "table", "key", "log groups", "artifacts"), "removed"
    )
    assert one.left() == {"stack": "", "secrets": 0, "tables": 0, "keys": 0}
    assert other.left()["stack"] == "CREATE_COMPLETE"


def test_deleted_stack_can_import_its_table_and_key(pair: tuple[Small, Small]) -> None:
    one, _ = pair
    kept = one.resources()
    one.delete()
    one.bring_back(kept)
    assert one.resources() == kept
    assert one.left() == {"stack": "IMPORT_COMPLETE", "secrets": 2, "tables": 1, "keys": 1}
