"""template.yaml, translated and resolved for each set of parameters that people use, against AWS's documented rules."""

from __future__ import annotations

import json

import pytest

from local.environments import environment
from tests.aws.rules import RULES, Rule, replaced_by_parameters
from tests.aws.violations import PLANTED, Plant, planted
from tests.fakes.paths import ROOT
from tests.fakes.template.translation import deploy, resolve, translated

CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/11111111-2222-3333-4444-555555555555"


# Those of environments also say what the stack is called.
PARAMETERS = {
    "default": {},
    "staging": environment("staging").parameters,
    "production": environment("production").parameters,
    "vpc": {"VpcSubnetIds": "subnet-0a1b2c3d,subnet-1a2b3c4d", "VpcSecurityGroupIds": "sg-0a1b2c3d"},
    "managed_waf": {"WebAcl": "managed"},
    "custom_domain": {
        "DomainName": "portaria.example.com",
        "CertificateArn": CERTIFICATE,
        "HostedZoneId": "Z0123456789",
    },
    "arm64": {"Architecture": "arm64"},
    "debug": {
        "LogLevel": "DEBUG",
        "AccessLogs": "yes",
        "Dashboard": "no",
        "CombinedAlarms": "no",
        "AdobeClientId": "adobe",
    },
    "errors_only": {"LogLevel": "ERROR", "Size": "large", "Deployment": "Linear10PercentEvery1Minute"},
}
# The set in which each planted violation can exist.
PLANTED_IN = "production"

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


@each_rule
@pytest.mark.parametrize("name", PARAMETERS)
def test_template_follows_aws_rule(name: str, rule: Rule) -> None:
    stack = deploy(f"portaria-{name.replace('_', '-')}", **PARAMETERS[name])
    assert list(rule.check(stack)) == []


@pytest.mark.parametrize(("name", "rule_name", "plant"), PLANTED, ids=[name for name, _, _ in PLANTED])
def test_aws_rule_planted_violation_is_found(name: str, rule_name: str, plant: Plant) -> None:
    assert found(rule_name, plant)


def found(rule_name: str, plant: Plant) -> list[str]:
    (rule,) = [rule for rule in RULES if rule.name == rule_name]
    parameters = PARAMETERS[PLANTED_IN]
    template = planted(translated(tuple(sorted(parameters.items()))), plant)
    return list(rule.check(resolve(template, "portaria-production", parameters)))


def test_aws_rules_each_have_a_planted_violation() -> None:
    assert {rule_name for _, rule_name, _ in PLANTED} == {rule.name for rule in RULES}
    assert len({name for name, _, _ in PLANTED}) == len(PLANTED) >= 25
    caught = [name for name, rule_name, plant in PLANTED if found(rule_name, plant)]
    file = ROOT / "build" / "faults" / "aws_rules.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"rules": len(RULES), "planted": len(PLANTED), "caught": len(caught)}) + "\n")
    assert len(caught) == len(PLANTED)


def test_template_two_stacks_share_no_physical_name() -> None:
    staging, production = (
        deploy(name, **PARAMETERS[name.partition("-")[2]]) for name in ("portaria-staging", "portaria-production")
    )
    names = [physical_names(stack.name, json.dumps(stack.resources)) for stack in (staging, production)]
    assert names[0]
    assert names[0] & names[1] == set()


def physical_names(stack_name: str, text: str) -> set[str]:
    """Every value that is an explicit physical name or one that CloudFormation makes, in a resolved stack."""
    return {word for word in text.split('"') if word.startswith((stack_name, f"/aws/lambda/{stack_name}"))}


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "default"])
def test_template_parameters_replace_no_data_or_address(name: str) -> None:
    assert list(replaced_by_parameters(deploy("portaria"), deploy("portaria", **PARAMETERS[name]))) == []


def test_template_custom_domain_is_api_url_with_dns_record() -> None:
    stack = deploy("portaria", **PARAMETERS["custom_domain"])
    assert stack.outputs["ApiUrl"] == "https://portaria.example.com"
    (mapping,) = stack.of("AWS::ApiGateway::BasePathMapping").values()
    assert (mapping["DomainName"], mapping["RestApiId"], mapping["Stage"]) == (
        "portaria.example.com",
        "a1b2c3d4e5",
        "live",
    )
    (record,) = stack.of("AWS::Route53::RecordSet").values()
    assert (record["Name"], record["HostedZoneId"]) == ("portaria.example.com", "Z0123456789")
    without_zone = deploy("portaria", **{**PARAMETERS["custom_domain"], "HostedZoneId": ""})
    assert without_zone.of("AWS::Route53::RecordSet") == {}
    assert without_zone.outputs["DomainTarget"]


def test_template_built_has_no_yaml_alias() -> None:
    """CloudFormation supports no aliases: `sam build` and `sam package` write the template without them."""
    from_sam = json.dumps(translated(()))
    assert "&" not in from_sam.replace("&&", "")
    assert (ROOT / "template.yaml").read_text().count("*manage") > 50
