"""Permissions in template.yaml: IAM roles, resource policies and key policies. Anything not listed here is refused.

test_permissions checks whether a function uses what its role grants. This module reads the template only, and
applies to every function, role and policy that is added to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from local.template_file import read_template
from portaria.aws.table import INDEXES
from tests.fakes.template.document import as_list, functions, resources, target, walk

SECRET = "arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret:${AWS::StackName}"
STACK = "arn:${AWS::Partition}:cloudformation:${AWS::Region}:${AWS::AccountId}:stack/${AWS::StackName}/*"
# Resources of a role that end in a wildcard, by role, and why no name can replace it.
WILDCARDS = {
    f"{SECRET}/grants/*": "a connection's secret is named when the connection is made, and AWS adds six characters to the name",
    f"{SECRET}/oauth-clients/*": "the same, for an OAuth client's",
    "*": "GetMetricData and a search of alarms support no resource",
    STACK: "the stack's own ARN ends in an id",
}
# Managed policies and SAM's policy templates can change without a change here. No role has any.
POLICY_RESOURCES = {"AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::UserPolicy", "AWS::IAM::RolePolicy"}
# A role may do what its policies and this boundary both allow; the boundary alone grants nothing.
BOUNDARY = "FunctionsBoundary"
IDENTITIES = {"AWS::IAM::User", "AWS::IAM::Group", "AWS::IAM::AccessKey", "AWS::Lambda::Url"}
# Services that act on behalf of others: without a condition on the source they would do so for any AWS account.
SOURCES = {"aws:SourceArn", "aws:SourceAccount"}
ACCOUNT_ITSELF = {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}}


class Statement(NamedTuple):
    """One statement and its place: `ManageFunction`, `SealingKey`."""

    owner: str
    content: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.owner}.{self.content.get('Sid', '?')}"

    @property
    def actions(self) -> list[str]:
        return as_list(self.content["Action"])

    @property
    def resources(self) -> list[Any]:
        return as_list(self.content["Resource"])


def of_roles() -> Iterator[Statement]:
    """Everything that the template's roles may do: functions' own policies, and those of AWS::IAM::Role."""
    for function in functions():
        for statement in function.statements:
            yield Statement(function.logical_id, statement)
    for name, role in resources("AWS::IAM::Role").items():
        for policy in role["Properties"]["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield Statement(name, statement)


def of_resources() -> Iterator[Statement]:
    """All statements in the template that name a principal.

    Except those that deny requests without TLS, which allow nothing.
    """
    for name, resource in read_template()["Resources"].items():
        for value in walk(resource):
            if isinstance(value, dict) and "Effect" in value and ("Principal" in value or "NotPrincipal" in value):
                if value.get("Sid") != "TlsOnly":
                    yield Statement(name, value)
                else:
                    assert value["Effect"] == "Deny"
                    assert value["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def by_name(statements: Iterator[Statement]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("statement", list(statements), ids=lambda statement: statement.name)


each_grant = by_name(of_roles())
each_trust = by_name(of_resources())


def text(resource: Any) -> str:
    """A resource as the template names it: `Table.Arn`, or the text of a `!Sub`."""
    if isinstance(resource, str):
        return resource
    if "Ref" in resource:  # of a function's alias or of a topic, which is its ARN
        return f"{resource['Ref'].removesuffix('.Alias')}.Arn"
    if "Fn::Sub" in resource:
        return str(resource["Fn::Sub"])
    return ".".join(resource["Fn::GetAtt"])


@each_grant
def test_policy_statement_names_its_actions(statement: Statement) -> None:
    assert statement.content["Effect"] == "Allow"
    assert not {"NotAction", "NotResource"} & set(statement.content)
    assert [action for action in statement.actions if not re.fullmatch(r"[a-z]+:[A-Z][A-Za-z]+", action)] == []


@each_grant
def test_policy_statement_names_its_resources(statement: Statement) -> None:
    """By a reference to a resource of this template; a wildcard is in the table above, or is refused."""
    for resource in statement.resources:
        said = text(resource)
        if "*" in said or "?" in said:
            assert said in WILDCARDS, f"{statement.name}: explain {said}, or name what it is for"
            continue
        logical_ids = re.findall(r"^\$\{([^.}]+)\.Arn}", said) or re.findall(r"^([A-Za-z]+)\.Arn$", said)
        assert len(logical_ids) == 1, f"{statement.name}: {said}"
        assert logical_ids[0] in read_template()["Resources"]


@each_grant
def test_policy_statement_is_for_one_service(statement: Statement) -> None:
    """Otherwise an action could apply to an unintended resource that is added later."""
    assert len({action.partition(":")[0] for action in statement.actions}) == 1


def test_policy_explained_wildcards_are_all_used() -> None:
    granted = {text(resource) for statement in of_roles() for resource in statement.resources}
    assert set(WILDCARDS) <= granted


@each_grant
def test_policy_index_is_granted_by_name_for_query_only(statement: Statement) -> None:
    """Reading a table by its indexes is reading all of it, so each function has the indexes that it queries, and no `Scan`."""
    indexes = [
        text(resource).partition("/index/")[2] for resource in statement.resources if "/index/" in text(resource)
    ]
    assert [name for name in indexes if name not in INDEXES] == []
    if indexes:
        assert len(indexes) == len(statement.resources), f"{statement.name}: give the table a statement of its own"
        assert statement.actions == ["dynamodb:Query"]
    assert "dynamodb:Scan" not in statement.actions


def test_roles_have_only_their_own_statements() -> None:
    kinds = {resource["Type"] for name, resource in read_template()["Resources"].items() if name != BOUNDARY}
    assert kinds & (POLICY_RESOURCES | IDENTITIES) == {"AWS::Lambda::Url"}
    assert list(resources("AWS::Lambda::Url")) == ["ReceiveEventsUrl"]
    for function in functions():
        assert "Role" not in function.properties
        assert "FunctionUrlConfig" not in function.properties
        assert all(
            isinstance(policy, dict) and set(policy) <= {"Version", "Statement"}
            for policy in function.properties["Policies"]
        )
    for name, role in resources("AWS::IAM::Role").items():
        assert set(role["Properties"]) <= {
            "AssumeRolePolicyDocument",
            "Policies",
            "Description",
            "PermissionsBoundary",
        }, name


def test_lambda_permissions_let_api_gateway_invoke_each_api_function_once() -> None:
    """SAM adds a statement for each event to a function's resource policy, which Lambda limits to 20 kB."""
    function_url = {"ReceiveEventsUrlPermission", "ReceiveEventsUrlInvokePermission"}
    permissions = {
        name: each for name, each in resources("AWS::Lambda::Permission").items() if name not in function_url
    }
    invoked = sorted(permission["Properties"]["FunctionName"]["Ref"] for permission in permissions.values())
    assert invoked == sorted(f"{function.logical_id}.Alias" for function in functions() if function.methods)
    own_api = "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/live/*"
    for permission in permissions.values():
        properties = permission["Properties"]
        assert properties["Action"] == "lambda:InvokeFunction"
        assert properties["Principal"] == "apigateway.amazonaws.com"
        assert properties["SourceArn"] == {"Fn::Sub": own_api}
    assert not any(function.events_of("Api") for function in functions())


@each_trust
def test_resource_policy_principal_is_never_a_wildcard(statement: Statement) -> None:
    assert "NotPrincipal" not in statement.content
    assert "*" not in json.dumps(statement.content["Principal"])
    assert statement.content["Effect"] == "Allow"


@each_trust
def test_resource_policy_service_principal_is_limited_to_this_stack(statement: Statement) -> None:
    """The confused deputy: https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html"""
    principal = statement.content["Principal"]
    assert set(principal) in ({"Service"}, {"AWS"})
    if "AWS" in principal:
        assert principal == ACCOUNT_ITSELF
        return
    asked = {key for test in statement.content["Condition"].values() for key in test}
    assert asked
    assert asked <= SOURCES
    for kind, test in statement.content["Condition"].items():
        assert kind in ("ArnEquals", "StringEquals")  # with "Like", a wildcard in the value would count
        assert "*" not in json.dumps(test)
    assert "*" not in json.dumps(statement.content.get("Resource", ""))
    assert all("*" not in action for action in statement.actions)


@pytest.mark.parametrize("name", sorted(resources("AWS::KMS::Key")))
def test_key_policy_allows_only_the_account(name: str) -> None:
    """`kms:*` on `*` in a key's policy is this key, for this account's administrators: without it nobody could change it.

    https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html
    """
    (statement,) = resources("AWS::KMS::Key")[name]["Properties"]["KeyPolicy"]["Statement"]
    assert statement["Principal"] == ACCOUNT_ITSELF
    assert (statement["Action"], statement["Resource"]) == ("kms:*", "*")


def test_role_key_use_is_limited_to_generate_and_decrypt() -> None:
    keys = set(resources("AWS::KMS::Key"))
    used = {
        action
        for statement in of_roles()
        if any(
            isinstance(resource, dict) and "Fn::GetAtt" in resource and target(resource) in keys
            for resource in statement.resources
        )
        for action in statement.actions
    }
    assert used
    assert used <= {"kms:GenerateDataKey", "kms:Decrypt"}


@pytest.mark.parametrize("kind", ["AWS::SQS::Queue", "AWS::SNS::Topic", "AWS::Events::EventBus"])
def test_resource_policies_exist_only_for_alarm_topic(kind: str) -> None:
    """test_template checks who may send to a queue. The bus has no policy: only this account's roles reach it."""
    assert resources(kind)
    assert not resources("AWS::Events::EventBusPolicy")
    (policy,) = resources("AWS::SNS::TopicPolicy").values()
    allowed = [one for one in policy["Properties"]["PolicyDocument"]["Statement"] if one["Effect"] == "Allow"]
    assert [(one["Principal"], one["Action"]) for one in allowed] == [
        ({"Service": "cloudwatch.amazonaws.com"}, "sns:Publish")
    ]
    assert not any("Policy" in resource.get("Properties", {}) for resource in resources(kind).values())


def test_permissions_boundary_limits_every_function_and_grants_nothing() -> None:
    """SAM lets each function that may be in a VPC create network interfaces, which Lambda needs and the code must not use."""
    assert read_template()["Globals"]["Function"]["PermissionsBoundary"] == {"Ref": BOUNDARY}
    attached = [value for value in walk(read_template()["Resources"]) if value == {"Ref": BOUNDARY}]
    assert attached == [], "attached to a role it would be a policy that allows everything"
    (allow, deny) = read_template()["Resources"][BOUNDARY]["Properties"]["PolicyDocument"]["Statement"]
    assert (allow["Effect"], deny["Effect"]) == ("Allow", "Deny")
    assert deny["Action"] == "ec2:*"
    assert deny["Condition"] == {"Null": {"lambda:SourceFunctionArn": "false"}}
    assert "PermissionsBoundary" not in {name for function in functions() for name in function.properties}
