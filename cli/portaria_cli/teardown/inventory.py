"""What deleting a stack leaves behind, found by the stack's exact name and never by a mere beginning of it.

Secrets begin with the stack's name and a slash. The table and the key carry CloudFormation's tags, which name their stack.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-resource-tags.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from portaria.connections.credential_stores.protocol import IN_TABLE
from portaria.core.item_keys import INSTALL_STATES, install_list
from portaria_cli.doctor.deployment import Deployment
from portaria_cli.doctor.findings import NotLooked, NotThere
from portaria_cli.errors import Document

Found = TypeVar("Found")

# What a month costs at AWS's list prices in us-east-1.
USD_SECRET, USD_KEY = 0.40, 1.00
USD_GB_TABLE, USD_GB_LOGS, USD_GB_S3 = 0.25, 0.03, 0.023
GB = 2**30
STACK_TAG, LOGICAL_TAG = "aws:cloudformation:stack-name", "aws:cloudformation:logical-id"
# Where `sam deploy` puts what it uploads: https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/
ARTIFACTS_STACK, ARTIFACTS_OUTPUT = "aws-sam-cli-managed-default", "SourceBucket"
# SAM names a layer as the template does, so all stacks of an account share the name.
LAYERS = ("PortariaLayer", "LibrariesLayer")
# Attributes of connections and installs that hold a sealed grant, written by `connections.tokens`, `rotation`, `code_exchange`.
SEALED = ("sealed", "sealed_next", "sealed_grant")
HOLDERS = ("CONNECTIONS", *map(install_list, INSTALL_STATES))


@dataclass(frozen=True)
class Left:
    """One kind of resource: the ids, what they cost in a month, and how many of them are being deleted already."""

    ids: list[str] = field(default_factory=list)
    usd_month: float = 0.0
    going: int = 0


@dataclass(frozen=True)
class Inventory:
    """`stack_status` is empty where the stack is deleted. `skipped` says what could not be looked at, and why."""

    stack_name: str
    stack_status: str
    secrets: Left
    tables: Left
    keys: Left
    log_groups: Left
    artifacts: Left
    layer_versions: Left
    artifacts_bucket: str
    skipped: dict[str, str]

    def seen(self, what: str) -> None:
        """Raises `NotLooked` where something could not be looked at: that none was found means nothing then."""
        if what in self.skipped:
            raise NotLooked(f"{what}: {self.skipped[what]}")

    @property
    def usd_month(self) -> float:
        kinds = (self.secrets, self.tables, self.keys, self.log_groups, self.artifacts)
        return sum(kind.usd_month for kind in kinds)

    @property
    def is_empty(self) -> bool:
        kinds = (self.secrets, self.tables, self.keys, self.log_groups, self.artifacts)
        return not any(kind.ids for kind in kinds)


def take(deployment: Deployment, tell: Callable[[str], None]) -> Inventory:
    """Look at everything. Nothing is changed, and no secret is read."""
    stack = deployment.find_stack()
    skipped: dict[str, str] = {}

    def look(what: str, find: Callable[[Deployment], Found], nothing: Found) -> Found:
        tell(f"looking for {what}")
        try:
            return find(deployment)
        except NotThere:
            return nothing
        except NotLooked as reason:
            skipped[what] = str(reason)
            return nothing

    in_stack: set[str] = look("resources", _physical_ids, set()) if stack else set()
    bucket = look("artifacts", artifacts_bucket, "")
    return Inventory(
        stack_name=deployment.stack_name,
        stack_status=str(stack["StackStatus"]) if stack else "",
        secrets=look("secrets", secrets, Left()),
        tables=look("table", lambda there: tables(there, in_stack), Left()),
        keys=look("key", lambda there: keys(there, in_stack), Left()),
        log_groups=look("log groups", lambda there: log_groups(there, in_stack), Left()),
        artifacts=look("artifacts", lambda there: artifacts(there, bucket), Left()),
        layer_versions=look("layer versions", lambda there: layer_versions(there, in_stack), Left()),
        artifacts_bucket=bucket,
        skipped=skipped,
    )


def secrets(deployment: Deployment) -> Left:
    """Those that are to be deleted cost nothing."""
    prefix = f"{deployment.stack_name}/"
    found = [
        secret
        for secret in pages(
            deployment, "secretsmanager", "list_secrets", "SecretList",
            Filters=[{"Key": "name", "Values": [prefix]}], IncludePlannedDeletion=True, MaxResults=100,
        )
        if str(secret["Name"]).startswith((f"{prefix}grants/", f"{prefix}oauth-clients/"))
    ]  # fmt: skip
    kept = [str(secret["ARN"]) for secret in found if not secret.get("DeletedDate")]
    return Left(kept, len(kept) * USD_SECRET, going=len(found) - len(kept))


def tables(deployment: Deployment, in_stack: set[str]) -> Left:
    """The stack's own, and those that earlier stacks of this name left."""
    ids, size = [], 0
    for page in pages(deployment, "dynamodb", "list_tables", "TableNames"):
        name = str(page)
        if not name.startswith(f"{deployment.stack_name}-"):
            continue
        try:
            table = deployment.call("dynamodb", "describe_table", TableName=name)["Table"]
        except NotThere:
            continue
        tags = deployment.call("dynamodb", "list_tags_of_resource", ResourceArn=table["TableArn"])["Tags"]
        if name in in_stack or _is_of(deployment, {tag["Key"]: tag["Value"] for tag in tags}, "Table"):
            if table["TableStatus"] != "DELETING":
                ids.append(name)
            size += int(table.get("TableSizeBytes", 0))
    return Left(ids, size / GB * USD_GB_TABLE)


def keys(deployment: Deployment, in_stack: set[str]) -> Left:
    """Keys that may not be looked at are not this stack's: who deploys it may look at its key."""
    ids, going = [], 0
    for key in pages(deployment, "kms", "list_keys", "Keys", Limit=100):
        try:
            tags = deployment.call("kms", "list_resource_tags", KeyId=key["KeyId"])["Tags"]
        except (NotLooked, NotThere):
            continue
        named = {tag["TagKey"]: tag["TagValue"] for tag in tags}
        if key["KeyId"] not in in_stack and not _is_of(deployment, named, "SealingKey"):
            continue
        state = deployment.call("kms", "describe_key", KeyId=key["KeyId"])["KeyMetadata"]["KeyState"]
        going += state == "PendingDeletion"
        if state != "PendingDeletion":
            ids.append(str(key["KeyId"]))
    return Left(ids, len(ids) * USD_KEY, going)


def log_groups(deployment: Deployment, in_stack: set[str]) -> Left:
    """Those that a function wrote again while its stack was being deleted; those of a stack go with it."""
    name = re.escape(deployment.stack_name)
    own = re.compile(rf"{name}-[A-Za-z]+Logs-[A-Za-z0-9]+|/aws/lambda/{name}-[A-Za-z]+Function-[A-Za-z0-9]+")
    ids, size = [], 0
    for prefix in (f"{deployment.stack_name}-", f"/aws/lambda/{deployment.stack_name}-"):
        for group in pages(deployment, "logs", "describe_log_groups", "logGroups", logGroupNamePrefix=prefix):
            if own.fullmatch(group["logGroupName"]) and group["logGroupName"] not in in_stack:
                ids.append(str(group["logGroupName"]))
                size += int(group.get("storedBytes", 0))
    return Left(ids, size / GB * USD_GB_LOGS)


def artifacts_bucket(deployment: Deployment) -> str:
    stack = deployment.find_stack(ARTIFACTS_STACK) or {}
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    return str(outputs.get(ARTIFACTS_OUTPUT, ""))


def artifacts(deployment: Deployment, bucket: str) -> Left:
    """What samconfig.toml has put under the stack's name (`s3_prefix`), older versions included."""
    if not bucket:
        return Left()
    found = list(artifact_versions(deployment, bucket))
    size = sum(int(each.get("Size", 0)) for each in found)
    return Left([f"{each['Key']}@{each['VersionId']}" for each in found], size / GB * USD_GB_S3)


def artifact_versions(deployment: Deployment, bucket: str) -> Iterator[Document]:
    """The versions and delete markers under the stack's prefix."""
    marker: Document = {}
    while True:
        page = deployment.call(
            "s3", "list_object_versions", Bucket=bucket, Prefix=f"{deployment.stack_name}/", **marker
        )
        yield from page.get("Versions", [])
        yield from page.get("DeleteMarkers", [])
        if not page.get("IsTruncated"):
            return
        marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}


def layer_versions(deployment: Deployment, in_stack: set[str]) -> Left:
    """Versions that this stack does not have. They are another stack's, or were left by a deployment that broke off."""
    ids = []
    for layer in LAYERS:
        try:
            for version in pages(deployment, "lambda", "list_layer_versions", "LayerVersions", LayerName=layer):
                ids.append(str(version["LayerVersionArn"]))
        except NotThere:
            continue
    return Left([arn for arn in ids if arn not in in_stack])


def has_sealed_grants(deployment: Deployment, table: str) -> bool:
    """Whether the table holds credentials that only the key can open."""
    for list_pk in HOLDERS:
        for _ in pages(
            deployment, "dynamodb", "query", "Items",
            TableName=table,
            IndexName="listing",
            KeyConditionExpression="list_pk = :list",
            FilterExpression=" OR ".join(f"attribute_exists({name})" for name in SEALED)
            + " OR begins_with(secret_id, :in_table)",
            ProjectionExpression="pk",
            ExpressionAttributeValues={":list": {"S": list_pk}, ":in_table": {"S": IN_TABLE}},
        ):  # fmt: skip
            return True
    return False


# How each listing says that there is more, and is asked for it.
_TOKENS = {
    "list_secrets": ("NextToken", "NextToken"),
    "list_tables": ("LastEvaluatedTableName", "ExclusiveStartTableName"),
    "query": ("LastEvaluatedKey", "ExclusiveStartKey"),
    "list_keys": ("NextMarker", "Marker"),
    "describe_log_groups": ("nextToken", "nextToken"),
    "list_layer_versions": ("NextMarker", "Marker"),
    "list_stack_resources": ("NextToken", "NextToken"),
}


def pages(deployment: Deployment, service: str, operation: str, items: str, **parameters: Any) -> Iterator[Any]:
    """Every item of a listing, to its end."""
    more, again = _TOKENS[operation]
    page: Document = {}
    while True:
        token = {again: page[more]} if page.get(more) else {}
        page = deployment.call(service, operation, **parameters, **token)
        yield from page.get(items, [])
        if not page.get(more):
            return


def _physical_ids(deployment: Deployment) -> set[str]:
    parameters = {"StackName": deployment.stack_name}
    found = pages(deployment, "cloudformation", "list_stack_resources", "StackResourceSummaries", **parameters)
    return {str(resource.get("PhysicalResourceId", "")) for resource in found}


def _is_of(deployment: Deployment, tags: dict[str, str], logical_id: str) -> bool:
    return tags.get(STACK_TAG) == deployment.stack_name and tags.get(LOGICAL_TAG) == logical_id
