"""Removing what a stack left behind, what uses something before it. Every step can be repeated after a death in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from portaria_cli.doctor.deployment import Deployment
from portaria_cli.doctor.findings import NotLooked, NotThere
from portaria_cli.errors import NotDone
from portaria_cli.teardown import inventory
from portaria_cli.teardown.inventory import Inventory

# The longest that each service allows, so that a mistake is noticed in time.
SECRET_RECOVERY_DAYS = KEY_RECOVERY_DAYS = 30
# What one call deletes of a bucket.
MOST_OBJECTS = 1_000
STACK_TIMEOUT_S, TABLE_TIMEOUT_S, POLL_S = 1_800, 600, 2.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """`data` lets the table go, and the key with it; `without_recovery` lets secrets go for good at once."""

    data: bool = False
    without_recovery: bool = False
    stack: bool = False


@dataclass(frozen=True)
class Done:
    """What became of one kind: `outcome` is removed, kept or failed, with a sentence."""

    kind: str
    outcome: str
    told: str


def remove(deployment: Deployment, found: Inventory, wanted: Wanted, tell: Tell) -> list[Done]:
    """Remove what was found. What cannot be removed does not keep the rest from it; running it again goes on."""
    steps: dict[str, Callable[[], Done]] = {
        "stack": lambda: _stack(deployment, found, wanted, tell),
        "secrets": lambda: _secrets(deployment, wanted, tell),
        "table": lambda: _tables(deployment, found, wanted, tell),
        "key": lambda: _keys(deployment, found, wanted),
        "log groups": lambda: _log_groups(deployment),
        "artifacts": lambda: _artifacts(deployment, found, tell),
    }
    done: dict[str, Done] = {}
    for kind, step in steps.items():
        tell(f"removing: {kind}")
        if kind == "key" and done["table"].outcome == "failed":
            done[kind] = Done(kind, "kept", "the table is still there")
            continue
        try:
            found.seen(kind)
            done[kind] = step()
        except (NotLooked, NotThere, NotDone) as error:
            done[kind] = Done(kind, "failed", str(error))
        if kind == "stack" and done[kind].outcome == "failed":
            # Its functions still run, and need what would be removed next.
            break
    return list(done.values())


def _stack(deployment: Deployment, found: Inventory, wanted: Wanted, tell: Tell) -> Done:
    if not found.stack_status:
        return Done("stack", "removed", "it was deleted before")
    if not wanted.stack:
        raise NotDone("the stack still exists: delete it first, or give --delete-stack")
    deployment.call("cloudformation", "delete_stack", StackName=deployment.stack_name)
    for _ in _polls(STACK_TIMEOUT_S):
        stack = deployment.find_stack()
        if not stack:
            return Done("stack", "removed", "deleted")
        if stack["StackStatus"] == "DELETE_FAILED":
            raise NotDone(
                "CloudFormation could not delete the stack: `aws cloudformation describe-stack-events` shows why"
            )
        tell(f"the stack is {stack['StackStatus']}")
    raise NotDone(f"the stack was not deleted within {STACK_TIMEOUT_S // 60} minutes: run this again")


def _secrets(deployment: Deployment, wanted: Wanted, tell: Tell) -> Done:
    if wanted.without_recovery:
        how: dict[str, object] = {"ForceDeleteWithoutRecovery": True}
        told = "deleted for good"
    else:
        how = {"RecoveryWindowInDays": SECRET_RECOVERY_DAYS}
        told = f"deleted; `aws secretsmanager restore-secret` brings one back within {SECRET_RECOVERY_DAYS} days"
    # Listed again: functions that ran until the stack was deleted may have made more.
    secrets = inventory.secrets(deployment).ids
    for number, arn in enumerate(secrets, 1):
        if number % 50 == 0:
            tell(f"removing secrets: {number:,} of {len(secrets):,}")
        try:
            deployment.call("secretsmanager", "delete_secret", SecretId=arn, **how)
        except NotThere:
            continue
    return Done("secrets", "removed", f"{len(secrets):,} {told}")


def _tables(deployment: Deployment, found: Inventory, wanted: Wanted, tell: Tell) -> Done:
    if not found.tables.ids:
        return Done("table", "removed", "there is none")
    if not wanted.data:
        return Done(
            "table", "kept", f"{', '.join(found.tables.ids)}: give --delete-data to delete it and all that it holds"
        )
    for table in found.tables.ids:
        described = deployment.call("dynamodb", "describe_table", TableName=table)["Table"]
        if described.get("DeletionProtectionEnabled"):
            deployment.call("dynamodb", "update_table", TableName=table, DeletionProtectionEnabled=False)
        deployment.call("dynamodb", "delete_table", TableName=table)
        for _ in _polls(TABLE_TIMEOUT_S):
            try:
                deployment.call("dynamodb", "describe_table", TableName=table)
            except NotThere:
                break
            tell(f"the table {table} is being deleted")
    return Done("table", "removed", f"{', '.join(found.tables.ids)} deleted")


def _keys(deployment: Deployment, found: Inventory, wanted: Wanted) -> Done:
    """Without the key nobody can read a grant that is sealed in a table that stays."""
    if not found.keys.ids:
        return Done("key", "removed", "there is none that is not going already")
    if not wanted.data:
        sealed = [table for table in found.tables.ids if inventory.has_sealed_grants(deployment, table)]
        if sealed:
            told = f"{', '.join(sealed)} holds grants that only it can open: give --delete-data to let them go"
            return Done("key", "kept", told)
    for key in found.keys.ids:
        deployment.call("kms", "schedule_key_deletion", KeyId=key, PendingWindowInDays=KEY_RECOVERY_DAYS)
    told = f"going in {KEY_RECOVERY_DAYS} days; until then `aws kms cancel-key-deletion --key-id {found.keys.ids[0]}` keeps it"
    return Done("key", "removed", told)


def _log_groups(deployment: Deployment) -> Done:
    # Listed again: a function may have written after its group was deleted with the stack.
    groups = inventory.log_groups(deployment, set()).ids
    for group in groups:
        try:
            deployment.call("logs", "delete_log_group", logGroupName=group)
        except NotThere:
            continue
    return Done("log groups", "removed", f"{len(groups)} deleted")


def _artifacts(deployment: Deployment, found: Inventory, tell: Tell) -> Done:
    """All versions, since the bucket keeps old ones. The bucket itself is shared by every SAM application of the account."""
    bucket, count = found.artifacts_bucket, 0
    versions = list(inventory.artifact_versions(deployment, bucket)) if bucket else []
    for start in range(0, len(versions), MOST_OBJECTS):
        some = versions[start : start + MOST_OBJECTS]
        objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in some]
        answer = deployment.call("s3", "delete_objects", Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        if errors := answer.get("Errors"):
            raise NotDone(f"S3 did not delete {len(errors)} artifacts ({errors[0].get('Code')}): run this again")
        count += len(objects)
        tell(f"removing artifacts: {count:,} of {len(versions):,}")
    return Done("artifacts", "removed", f"{count:,} deleted")


def _polls(timeout_s: float) -> Iterator[None]:
    """Once, and again after a pause, for so long."""
    ends_at = time.monotonic() + timeout_s
    while True:
        yield
        if time.monotonic() >= ends_at:
            return
        time.sleep(POLL_S)
