"""`portaria teardown` on moto: the leftovers of deleted stacks, beside the resources of other stacks of the account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any
from unittest.mock import patch

import botocore.session
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.kms.utils import generate_private_key

from portaria_cli.doctor.deployment import Deployment
from portaria_cli.teardown import removal
from tests.fakes.api.command_line import run, told

REGION = "us-east-1"
STACK = "portaria"
# Stacks whose names begin with this one's, contain it, or end like one of its resources.
OTHERS = ("portaria-staging", "portaria2", "my-portaria", "portaria-Table")
Json = dict[str, Any]
# moto makes an RSA key for every KMS key, a tenth of a second each.
one_key = cache(generate_private_key)


@cache
def client_of(service: str) -> Any:
    """One for all tests, because creating it takes longer than a test."""
    return botocore.session.Session().create_client(service, region_name=REGION)


class Account:
    """Everything with a stack's name, as CloudFormation tags and names it."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.denied: set[str] = set()
        self.client("s3").create_bucket(Bucket="artifacts")
        self.client("s3").put_bucket_versioning(Bucket="artifacts", VersioningConfiguration={"Status": "Enabled"})
        # moto's CloudFormation needs libraries that nothing else here does, so its responses are canned.
        self.stacks: dict[str, Json] = {"aws-sam-cli-managed-default": {"SourceBucket": "artifacts"}}

    def cloudformation(self, operation: str, parameters: Json) -> Json:
        name = parameters["StackName"]
        if operation == "DeleteStack":
            self.stacks.pop(name, None)
            return {}
        if name not in self.stacks:
            message = f"Stack with id {name} does not exist"
            raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, operation)
        if operation == "ListStackResources":
            return {"StackResourceSummaries": [{"PhysicalResourceId": self.table(name)}]}
        outputs = [{"OutputKey": key, "OutputValue": value} for key, value in self.stacks[name].items()]
        return {"Stacks": [{"StackName": name, "StackStatus": "UPDATE_COMPLETE", "Outputs": outputs}]}

    def client(self, service: str) -> Any:
        return client_of(service)

    def leave(self, stack: str) -> None:
        tags = {"aws:cloudformation:stack-name": stack}
        for secret in ("grants/kommo-one", "oauth-clients/kommo/widget", "other/thing"):
            self.client("secretsmanager").create_secret(Name=f"{stack}/{secret}", SecretString="{}")
        self.client("dynamodb").create_table(
            TableName=self.table(stack),
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "list_pk")],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "listing",
                    "KeySchema": [{"AttributeName": "list_pk", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
            BillingMode="PAY_PER_REQUEST",
            DeletionProtectionEnabled=True,
            Tags=[{"Key": key, "Value": value} for key, value in _logical(tags, "Table").items()],
        )
        key = self.client("kms").create_key(
            Tags=[{"TagKey": key, "TagValue": value} for key, value in _logical(tags, "SealingKey").items()]
        )
        self.keys[stack] = key["KeyMetadata"]["KeyId"]
        for group in self.log_groups(stack):
            self.client("logs").create_log_group(logGroupName=group)
        for body in (b"old", b"new"):
            self.client("s3").put_object(Bucket="artifacts", Key=f"{stack}/0123.template", Body=body)

    def log_groups(self, stack: str) -> list[str]:
        return [f"/aws/lambda/{stack}-ManageFunction-AbC123", f"{stack}-ManageLogs-AbC123"]

    def table(self, stack: str) -> str:
        return f"{stack}-Table-ABC123"

    def put(self, stack: str, **item: str) -> None:
        typed = {name: {"S": value} for name, value in item.items()}
        self.client("dynamodb").put_item(TableName=self.table(stack), Item=typed)

    def has(self, stack: str) -> Json:
        """The remaining resources of a stack."""
        secrets = self.client("secretsmanager").list_secrets(IncludePlannedDeletion=True)["SecretList"]
        named = {secret["Name"]: "DeletedDate" in secret for secret in secrets}
        found = self.client("logs").describe_log_groups()["logGroups"]
        groups = {group["logGroupName"] for group in found} & set(self.log_groups(stack))
        objects = self.client("s3").list_object_versions(Bucket="artifacts", Prefix=f"{stack}/")
        key = self.client("kms").describe_key(KeyId=self.keys[stack])["KeyMetadata"]["KeyState"]
        parts = ("grants/kommo-one", "oauth-clients/kommo/widget", "other/thing")
        states = {part: named.get(f"{stack}/{part}") for part in parts}
        return {
            "secrets": {part: {None: "gone", True: "going", False: "there"}[state] for part, state in states.items()},
            "table": self.table(stack) in self.client("dynamodb").list_tables()["TableNames"],
            "key": key,
            "log_groups": sorted(groups),
            "artifacts": len(objects.get("Versions", [])) + len(objects.get("DeleteMarkers", [])),
        }  # fmt: skip


def _logical(tags: dict[str, str], logical_id: str) -> dict[str, str]:
    return tags | {"aws:cloudformation:logical-id": logical_id}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setattr(removal, "POLL_S", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    call = BaseClient._make_api_call

    def make_api_call(client: Any, name: str, parameters: Json) -> Any:
        if name in made.denied:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, name)
        if client.meta.service_model.service_name == "cloudformation":
            return made.cloudformation(name, parameters)
        return call(client, name, parameters)

    with mock_aws(), patch("moto.kms.models.generate_private_key", one_key):
        made = Account()
        monkeypatch.setattr(BaseClient, "_make_api_call", make_api_call)
        monkeypatch.setattr(Deployment, "client", lambda _, service: client_of(service))
        for stack in (STACK, *OTHERS):
            made.leave(stack)
        yield made


def untouched(account: Account) -> None:
    for other in OTHERS:
        assert account.has(other) == {
            "secrets": dict.fromkeys(("grants/kommo-one", "oauth-clients/kommo/widget", "other/thing"), "there"),
            "table": True,
            "key": "Enabled",
            "log_groups": account.log_groups(other),
            "artifacts": 2,
        }


def test_teardown_without_confirmation_lists_and_changes_nothing(account: Account) -> None:
    before = account.has(STACK)
    listed = told("teardown")["listed"]
    counts = {kind: len(listed[kind]["ids"]) for kind in ("secrets", "tables", "keys", "log_groups", "artifacts")}
    assert counts == {"secrets": 2, "tables": 1, "keys": 1, "log_groups": 2, "artifacts": 2}
    assert listed["secrets"]["usd_month"] == pytest.approx(0.80)
    assert listed["usd_month"] == pytest.approx(1.80)
    assert listed["stack_status"] == ""
    shown = run("teardown").stdout
    assert "There is no stack portaria" in shown
    assert "0.80" in shown
    assert account.has(STACK) == before
    untouched(account)


def test_teardown_confirmed_removes_everything_except_the_table(account: Account) -> None:
    outcomes = {each["kind"]: each["outcome"] for each in told("teardown", "--yes", STACK)["removed"]}
    assert outcomes["table"] == "kept"
    assert account.has(STACK) == {
        "secrets": {"grants/kommo-one": "going", "oauth-clients/kommo/widget": "going", "other/thing": "there"},
        "table": True,
        "key": "PendingDeletion",
        "log_groups": [],
        "artifacts": 0,
    }
    untouched(account)


def test_teardown_repeated_with_delete_data_removes_the_rest(account: Account) -> None:
    told("teardown", "--yes", STACK)
    listed = told("teardown", "--yes", STACK, "--delete-data")["listed"]
    assert listed["secrets"] == {"ids": [], "usd_month": 0.0, "going": 2}
    assert listed["keys"]["going"] == 1
    assert account.has(STACK)["table"] is False
    untouched(account)


def test_teardown_without_recovery_deletes_secrets_at_once(account: Account) -> None:
    told("teardown", "--yes", STACK, "--force-delete-without-recovery")
    assert account.has(STACK)["secrets"] == {
        "grants/kommo-one": "gone", "oauth-clients/kommo/widget": "gone", "other/thing": "there",
    }  # fmt: skip
    untouched(account)


@pytest.mark.parametrize(
    ("list_pk", "attribute"),
    [
        ("CONNECTIONS", "sealed"),
        ("CONNECTIONS", "sealed_next"),
        ("INSTALLS#exchanging", "sealed_grant"),
        ("CONNECTIONS", "secret_id"),
    ],
)
def test_teardown_sealed_grant_keeps_the_key(account: Account, list_pk: str, attribute: str) -> None:
    account.put(STACK, pk="one", list_pk=list_pk, **{attribute: "table:one"})
    done = {each["kind"]: each for each in told("teardown", "--yes", STACK)["removed"]}
    assert done["key"]["outcome"] == "kept"
    assert "--delete-data" in done["key"]["told"]
    assert account.has(STACK)["key"] == "Enabled"
    told("teardown", "--yes", STACK, "--delete-data")
    assert (account.has(STACK)["key"], account.has(STACK)["table"]) == ("PendingDeletion", False)
    untouched(account)


def test_teardown_unsealed_items_do_not_keep_the_key(account: Account) -> None:
    account.put(STACK, pk="one", list_pk="CONNECTIONS", name="kommo-one", secret_id="portaria/grants/one")
    told("teardown", "--yes", STACK)
    assert account.has(STACK)["key"] == "PendingDeletion"


def test_teardown_existing_stack_requires_delete_stack_option(account: Account) -> None:
    account.stacks[STACK] = {}
    before = account.has(STACK)
    refused = run("teardown", "--yes", STACK, exit_code=2)
    assert "--delete-stack" in refused.stderr
    assert account.has(STACK) == before
    told("teardown", "--yes", STACK, "--delete-stack")
    assert list(account.stacks) == ["aws-sam-cli-managed-default"]
    assert account.has(STACK)["secrets"]["grants/kommo-one"] == "going"
    untouched(account)


@pytest.mark.parametrize("name", ["", "portaria/", "portaria-staging", "Portaria"])
def test_teardown_confirmation_with_another_name_removes_nothing(account: Account, name: str) -> None:
    before = account.has(STACK)
    assert "nothing was removed" in run("teardown", "--yes", name, exit_code=2).stderr
    assert account.has(STACK) == before


def test_teardown_empty_stack_name_is_refused(account: Account) -> None:
    assert "--stack-name is empty" in run("--stack-name", "", "teardown", "--yes", "", exit_code=2).stderr
    untouched(account)


def test_teardown_access_denied_is_reported_and_keeps_that_resource_and_key(account: Account) -> None:
    account.denied.add("ListTables")
    report = json.loads(run("--json", "teardown", "--yes", STACK, "--delete-data", exit_code=1).stdout)
    done = {each["kind"]: each["outcome"] for each in report["removed"]}
    account.denied.clear()
    assert (done["table"], done["key"], done["secrets"]) == ("failed", "kept", "removed")
    assert "dynamodb:ListTables" in report["listed"]["skipped"]["table"]
    assert account.has(STACK)["key"] == "Enabled"
