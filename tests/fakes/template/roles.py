"""The grants of a function's role in template.yaml, and their use by its handler, recorded at botocore.

A call belongs to the function whose handler.py is on the stack, so every test that drives a handler takes part, in any
order and in any selection.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from botocore.client import BaseClient

from tests.fakes.aws import moto_cloud
from tests.fakes.paths import ROOT
from tests.fakes.template.document import Function, as_list, functions

REGION, ACCOUNT = "us-east-1", "123456789012"
HANDLERS = {str(ROOT / "functions" / function.name / "handler.py"): function.name for function in functions()}
# Actions whose name differs from that of the operation.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html
ACTIONS = {
    ("sqs", "SendMessageBatch"): "SendMessage",
    ("sqs", "DeleteMessageBatch"): "DeleteMessage",
    ("sqs", "ChangeMessageVisibilityBatch"): "ChangeMessageVisibility",
}
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html#transaction-apis-iam
IN_TRANSACTION = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
# The calls of Lambda's pollers to a queue, in the function's name.
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
POLLING = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")


# The condition keys that restrict a role's grants, by service.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
# https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-encryption-context-keys
CONDITION_KEYS = {"dynamodb:LeadingKeys", "kms:EncryptionContextKeys"}


class Use(NamedTuple):
    """One decision of IAM: `sqs:SendMessage` on a resource's ARN.

    `keys` are the partition keys of a call to DynamoDB, or the names in the encryption context of a call to KMS.
    """

    action: str
    resource: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grant:
    """One statement of a role; `resources` are patterns as IAM reads them."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    keys: tuple[str, ...] = ()

    def allows(self, use: Use) -> bool:
        return (
            use.action in self.actions
            and any(fnmatchcase(use.resource, pattern) for pattern in self.resources)
            and (not self.keys or all(any(fnmatchcase(key, pattern) for pattern in self.keys) for key in use.keys))
        )


@cache
def grants(name: str) -> tuple[Grant, ...]:
    (function,) = [function for function in functions() if function.name == name]
    return tuple(
        Grant(
            statement["Sid"],
            tuple(as_list(statement["Action"])),
            tuple(arn(value) for value in as_list(statement["Resource"])),
            tuple(condition_keys(statement)),
        )
        for statement in function.statements
    )


def condition_keys(statement: dict[str, Any]) -> list[str]:
    """The patterns of a statement for the keys of a call; none if it has no condition."""
    narrowed: dict[str, dict[str, list[str]]] = statement.get("Condition", {})
    assert set(narrowed) <= {"ForAllValues:StringLike"}
    for condition in narrowed.values():
        assert len(condition) == 1
        assert set(condition) <= CONDITION_KEYS
        return next(iter(condition.values()))
    return []


def arn(value: Any) -> str:
    """An intrinsic of the template as the ARN that the resource has on the fake AWS."""
    if isinstance(value, str):
        return value
    if "Fn::Sub" in value:
        known = {
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::AccountId": ACCOUNT,
            "AWS::StackName": moto_cloud.PREFIX,
        }
        return re.sub(r"\$\{([^}]+)}", lambda match: known.get(match[1]) or _arn_of(match[1]), value["Fn::Sub"])
    if str(value.get("Ref", "")).endswith(".Alias"):
        function = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", value["Ref"].removesuffix("Function.Alias")).lower()
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}:live"
    logical_id, attribute = value["Fn::GetAtt"]
    return _arn_of(f"{logical_id}.{attribute}")


def _arn_of(reference: str) -> str:
    logical_id, _, attribute = reference.partition(".")
    assert attribute == "Arn"
    if logical_id == "Table":
        return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{moto_cloud.TABLE}"
    if logical_id == "Bus":
        return f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/portaria"
    if logical_id == "SealingKey":
        return f"arn:aws:kms:{REGION}:{ACCOUNT}:key/the-one"
    queue = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", logical_id.removesuffix("Queue")).lower()
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"


def uses(service: str, operation: str, parameters: dict[str, Any]) -> list[Use]:
    """The decisions of IAM about one call."""
    if service == "dynamodb" and operation == "TransactWriteItems":
        return [
            Use(f"dynamodb:{IN_TRANSACTION[kind]}", _table(call), leading_keys(call))
            for item in parameters["TransactItems"]
            for kind, call in item.items()
        ]
    if service == "dynamodb" and operation in ("BatchGetItem", "BatchWriteItem"):
        return [
            Use(f"dynamodb:{operation}", _table({"TableName": name}), batched_keys(requests))
            for name, requests in parameters["RequestItems"].items()
        ]
    if service == "dynamodb":
        return [Use(f"dynamodb:{operation}", _table(parameters), leading_keys(parameters))]
    if service == "sqs":
        action = ACTIONS.get((service, operation), operation)
        queue = parameters["QueueUrl"].rpartition("/")[2]
        return [Use(f"sqs:{action}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}")]
    if service == "lambda":
        return [Use(f"lambda:{operation}Function", parameters["FunctionName"])]
    if service == "secretsmanager":
        name = parameters.get("SecretId") or parameters["Name"]
        return [Use(f"secretsmanager:{operation}", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-AbCdEf")]
    if service == "kms":
        # The fake AWS has one key.
        return [Use(f"kms:{operation}", _arn_of("SealingKey.Arn"), tuple(sorted(parameters["EncryptionContext"])))]
    if service == "cloudwatch":
        return [Use(f"cloudwatch:{operation}", "*")]
    if service == "cloudformation":
        name = parameters["StackName"]
        return [Use(f"cloudformation:{operation}", f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/the-one")]
    if service == "events" and operation == "PutEvents":
        buses = {entry.get("EventBusName", "default") for entry in parameters["Entries"]}
        return [Use("events:PutEvents", f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{bus}") for bus in sorted(buses)]
    return [Use(f"{service}:{operation}", "unknown to tests/fakes/template/roles.py")]


def leading_keys(call: dict[str, Any]) -> tuple[str, ...]:
    """The partition key of a call to DynamoDB, up to its first `#`: keys of one kind of item are alike."""
    if "KeyConditionExpression" in call:
        key = call["ExpressionAttributeValues"][":pk"]
    else:
        key = (call.get("Key") or call["Item"])["pk"]
    text = key["S"] if isinstance(key, dict) else key
    kind, found, _ = text.partition("#")
    return (kind + found,)


def batched_keys(requests: Any) -> tuple[str, ...]:
    """The same for BatchGetItem (`{"Keys": [...]}`) and BatchWriteItem (`[{"PutRequest": {"Item": ...}}, ...]`)."""
    if isinstance(requests, dict):
        calls = [{"Key": key} for key in requests["Keys"]]
    else:
        calls = [call for request in requests for call in request.values()]
    return tuple(sorted({key for call in calls for key in leading_keys(call)}))


def _table(call: dict[str, Any]) -> str:
    table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{call['TableName']}"
    return f"{table}/index/{call['IndexName']}" if "IndexName" in call else table


class Recorder:
    """`used` has the uses of each function's handler; `refused` those that its role would not allow."""

    def __init__(self) -> None:
        self.used: set[tuple[str, Use]] = set()
        self.refused: list[str] = []

    def see(self, service: str, operation: str, parameters: dict[str, Any]) -> None:
        function = _function_on_the_stack()
        if not function:
            return
        for use in uses(service, operation, parameters):
            self.used.add((function, use))
            if not any(grant.allows(use) for grant in grants(function)):
                self.refused.append(f"{function} is not granted {use.action} on {use.resource} {use.keys}")


def _function_on_the_stack() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        if name := HANDLERS.get(frame.f_code.co_filename):
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return ""


@contextmanager
def recording() -> Iterator[Recorder]:
    recorder, call = Recorder(), BaseClient._make_api_call

    def make_api_call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        recorder.see(client.meta.service_model.service_name, operation, parameters)
        return call(client, operation, parameters)

    with patch.object(BaseClient, "_make_api_call", make_api_call):
        yield recorder


@pytest.fixture(autouse=True)
def granted() -> Iterator[None]:
    """For a suite's conftest: a test that drives a handler fails if the function's role grants less than it uses."""
    with recording() as recorder:
        yield
    assert recorder.refused == [], "template.yaml does not grant what a handler used"


def consumed_queue(function: Function) -> list[str]:
    return [arn(event["Queue"]) for event in function.events_of("SQS")]
