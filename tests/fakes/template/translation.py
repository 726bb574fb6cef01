"""What CloudFormation would create: template.yaml translated by SAM and resolved for one set of parameters.

The SAM CLI's own translator does the first half, in its virtual environment. `resolve` does the second: conditions,
references and substitutions become the values that they would have in an account, with physical names as long as
CloudFormation makes them.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.fakes.paths import ROOT

SAM_PYTHON = ROOT / ".venv-sam" / "bin" / "python"
REGION, ACCOUNT, PARTITION = "us-east-1", "123456789012", "aws"

Properties = dict[str, Any]

# Runs in the SAM CLI's virtual environment: answers a line for each line. Placeholders replace the code and layers that
# `sam package` uploads.
TRANSLATE = """
import copy, json, sys
import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

document, session = yaml_parse(open(sys.argv[1]).read()), boto3.Session(region_name="us-east-1")
for line in sys.stdin:
    (parameters, code), template = json.loads(line), copy.deepcopy(document)
    for resource in template["Resources"].values():
        for name in ("CodeUri", "ContentUri"):
            if name in resource.get("Properties", {}):
                resource["Properties"][name] = f"s3://artifacts/{code}"
    for name, parameter in template["Parameters"].items():
        parameters.setdefault(name, parameter.get("Default"))
    print(json.dumps(Translator({}, Parser(), boto_session=session).translate(template, parameters)), flush=True)
"""


@dataclass(frozen=True)
class Stack:
    """The resources of one deployment, without those whose condition does not hold, and the outputs."""

    name: str
    parameters: dict[str, str]
    resources: dict[str, dict[str, Any]]
    outputs: dict[str, Any]
    template_bytes: int

    def of(self, *kinds: str) -> dict[str, Properties]:
        """The properties of the resources of these types, by logical id."""
        return {
            name: resource.get("Properties", {})
            for name, resource in self.resources.items()
            if resource["Type"] in kinds
        }


@cache
def _translator() -> subprocess.Popen[str]:
    """One process for all translations, because reading the template takes longer than a translation."""
    process = subprocess.Popen(
        [SAM_PYTHON, "-c", TRANSLATE, ROOT / "template.yaml"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={"PATH": os.environ["PATH"], "AWS_DEFAULT_REGION": REGION},
    )  # fmt: skip
    atexit.register(process.communicate)
    return process


@cache
def translated(parameters: tuple[tuple[str, str], ...], code: str = "code") -> dict[str, Any]:
    """template.yaml after the SAM transform, for parameters as sorted pairs; `code` replaces the digest of all code."""
    process = _translator()
    assert process.stdin
    assert process.stdout
    print(json.dumps([dict(parameters), code]), file=process.stdin, flush=True)
    if not (line := process.stdout.readline()):
        raise RuntimeError(process.communicate()[1])
    template: dict[str, Any] = json.loads(line)
    return template


def deploy(stack_name: str, **parameters: str) -> Stack:
    """The stack of template.yaml. The same object for the same parameters, which must not be changed."""
    return _deployed(stack_name, tuple(sorted(parameters.items())))


@cache
def _deployed(stack_name: str, parameters: tuple[tuple[str, str], ...]) -> Stack:
    return resolve(translated(parameters), stack_name, dict(parameters))


def resolve(template: dict[str, Any], stack_name: str, parameters: dict[str, str]) -> Stack:
    known = {name: parameters.get(name, str(one.get("Default", ""))) for name, one in template["Parameters"].items()}
    resolver = _Resolver(template, stack_name, known)
    kept = {
        name: resource
        for name, resource in template["Resources"].items()
        if "Condition" not in resource or resolver.holds(resource["Condition"])
    }
    resolver.kept = set(kept)
    resources = {name: resolver.value(resource) for name, resource in kept.items()}
    outputs = {
        name: resolver.value(output["Value"])
        for name, output in template.get("Outputs", {}).items()
        if "Condition" not in output or resolver.holds(output["Condition"])
    }
    return Stack(stack_name, known, resources, outputs, len(json.dumps(template)))


class _Absent:
    """`AWS::NoValue`: the property is omitted."""


class _Resolver:
    def __init__(self, template: dict[str, Any], stack_name: str, parameters: dict[str, str]) -> None:
        self.template, self.stack_name, self.parameters = template, stack_name, parameters
        self.kept: set[str] = set()
        self.pseudo = {
            "AWS::StackName": stack_name,
            "AWS::Region": REGION,
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": PARTITION,
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{stack_name}/1",
        }

    def holds(self, condition: str) -> bool:
        return bool(self.value(self.template["Conditions"][condition]))

    def value(self, node: Any) -> Any:
        if isinstance(node, list):
            return [value for each in node if not isinstance(value := self.value(each), _Absent)]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name == "Ref":
                return self.reference(argument)
            if name == "Condition" and isinstance(argument, str):
                return self.holds(argument)
            if name.startswith("Fn::"):
                return self.function(name.removeprefix("Fn::"), argument)
        return {key: value for key, each in node.items() if not isinstance(value := self.value(each), _Absent)}

    def function(self, name: str, argument: Any) -> Any:
        match name:
            case "If":
                condition, yes, no = argument
                return self.value(yes if self.holds(condition) else no)
            case "Equals":
                one, other = (str(value) for value in self.value(argument))
                return one == other
            case "Not":
                return not self.value(argument)[0]
            case "And":
                return all(self.value(argument))
            case "Or":
                return any(self.value(argument))
            case "Sub":
                text, more = argument if isinstance(argument, list) else (argument, {})
                named = {key: self.value(each) for key, each in more.items()}
                return re.sub(
                    r"\$\{([^}!]+)}",
                    lambda match: str(named[match[1]] if match[1] in named else self.dotted(match[1])),
                    text,
                )
            case "GetAtt":
                logical_id, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
                return self.attribute(logical_id, attribute)
            case "FindInMap":
                mapping, first, second = (self.value(each) for each in argument)
                return self.template["Mappings"][mapping][first][second]
            case "Select":
                index, values = argument
                return self.value(values)[int(index)]
            case "Split":
                separator, text = argument
                return str(self.value(text)).split(separator)
            case "Join":
                separator, values = argument
                return separator.join(str(value) for value in self.value(values))
            case "GetAZs":
                return [f"{REGION}a", f"{REGION}b"]
        raise NotImplementedError(name)

    def dotted(self, name: str) -> Any:
        logical_id, dot, attribute = name.partition(".")
        return self.attribute(logical_id, attribute) if dot else self.reference(name)

    def reference(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _Absent()
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.parameters:
            value = self.parameters[name]
            is_list = self.template["Parameters"][name]["Type"] == "CommaDelimitedList"
            return value.split(",") if is_list else value
        kind = self.kind(name)
        if kind == "AWS::SQS::Queue":
            return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{self.physical(name)}"
        if kind in ("AWS::Lambda::Alias", "AWS::Lambda::Version"):
            return f"{self.arn_of_function(name)}:{'live' if kind.endswith('Alias') else '1'}"
        if kind in ("AWS::SNS::Topic", "AWS::Lambda::LayerVersion"):
            return self.attribute(name, "Arn")
        if kind.startswith("AWS::ApiGateway::"):
            domain = self.parameters.get("DomainName", "")
            known = {"RestApi": "a1b2c3d4e5", "Stage": "live", "DomainName": domain}
            return known.get(kind.rpartition(":")[2], self.physical(name))
        if kind == "AWS::KMS::Key":
            return "11111111-2222-3333-4444-555555555555"
        return self.physical(name)

    def attribute(self, logical_id: str, attribute: str) -> Any:
        kind = self.kind(logical_id)
        name = self.physical(logical_id)
        if attribute != "Arn":
            return name
        service, path = {
            "AWS::SQS::Queue": ("sqs", name),
            "AWS::SNS::Topic": ("sns", name),
            "AWS::Lambda::Function": ("lambda", f"function:{name}"),
            "AWS::Lambda::LayerVersion": ("lambda", f"layer:{name}:1"),
            "AWS::DynamoDB::Table": ("dynamodb", f"table/{name}"),
            "AWS::Events::EventBus": ("events", f"event-bus/{name}"),
            "AWS::Events::Rule": ("events", f"rule/{self.stack_name}/{name}"),
            "AWS::IAM::Role": ("iam", f"role/{name}"),
            "AWS::KMS::Key": ("kms", "key/11111111-2222-3333-4444-555555555555"),
            "AWS::Logs::LogGroup": ("logs", f"log-group:{name}:*"),
            "AWS::WAFv2::WebACL": ("wafv2", f"regional/webacl/{name}/11111111-2222-3333-4444-555555555555"),
        }[kind]
        region = "" if service == "iam" else REGION
        return f"arn:{PARTITION}:{service}:{region}:{ACCOUNT}:{path}"

    def kind(self, logical_id: str) -> str:
        if logical_id not in self.template["Resources"]:
            raise KeyError(f"the template refers to {logical_id}, which is not there")
        if self.kept and logical_id not in self.kept:
            raise KeyError(f"the template refers to {logical_id}, whose condition does not hold")
        kind: str = self.template["Resources"][logical_id]["Type"]
        return kind

    def physical(self, logical_id: str) -> str:
        """An explicit name, or one as CloudFormation generates it."""
        properties = self.template["Resources"][logical_id].get("Properties", {})
        for name in NAMES.get(self.kind(logical_id), ()):
            if name in properties:
                return str(self.value(properties[name]))
        return f"{self.stack_name}-{logical_id}-1ABCDEFGHIJKL"

    def arn_of_function(self, logical_id: str) -> str:
        name = self.value(self.template["Resources"][logical_id]["Properties"]["FunctionName"])
        return f"arn:{PARTITION}:lambda:{REGION}:{ACCOUNT}:function:{name}"


# The property with the physical name of a resource, by its type.
NAMES = {
    "AWS::ApiGateway::RestApi": ("Name",),
    "AWS::CloudWatch::Alarm": ("AlarmName",),
    "AWS::CloudWatch::Dashboard": ("DashboardName",),
    "AWS::CodeDeploy::Application": ("ApplicationName",),
    "AWS::CodeDeploy::DeploymentGroup": ("DeploymentGroupName",),
    "AWS::DynamoDB::Table": ("TableName",),
    "AWS::Events::EventBus": ("Name",),
    "AWS::Events::Rule": ("Name",),
    "AWS::IAM::ManagedPolicy": ("ManagedPolicyName",),
    "AWS::IAM::Role": ("RoleName",),
    "AWS::Lambda::Function": ("FunctionName",),
    "AWS::Lambda::LayerVersion": ("LayerName",),
    "AWS::Logs::LogGroup": ("LogGroupName",),
    "AWS::Scheduler::Schedule": ("Name",),
    "AWS::SNS::Topic": ("TopicName",),
    "AWS::SQS::Queue": ("QueueName",),
    "AWS::WAFv2::WebACL": ("Name",),
}
