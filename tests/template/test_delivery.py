"""GitHub's workflows and their roles: rules that actionlint and cfn-lint do not check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.environments import RUNTIME, environment
from local.template_file import read_template
from tests.fakes.paths import ROOT
from tests.fakes.template.document import as_list, walk
from tests.fakes.template.translation import translated

GITHUB = ROOT / ".github"
FILES = sorted([*GITHUB.glob("workflows/*.yml"), *GITHUB.glob("actions/*/action.yml")])
DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(GITHUB)))


def read(name: str) -> dict[str, Any]:
    """A file below .github/. YAML reads the key `on` as true."""
    document: dict[Any, Any] = yaml.safe_load((GITHUB / name).read_text())
    return {"on" if key is True else key: value for key, value in document.items()}


def roles() -> dict[str, Any]:
    resources: dict[str, Any] = read_template(ROOT / "examples" / "github-deployment.yaml")["Resources"]
    return resources


def statements(role: str) -> list[dict[str, Any]]:
    policies = roles()[role]["Properties"]["Policies"]
    return [each for policy in policies for each in policy["PolicyDocument"]["Statement"]]


# ------------------------------------------------------------------------------------------------------------- workflows


@each_file
def test_github_actions_are_pinned_to_commit_with_version(file: Path) -> None:
    used = re.findall(r"uses: (.+)", file.read_text())
    for action in used:
        assert re.fullmatch(r"\./\.github/[\w/.-]+|[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
    versions = {
        action.partition("@")[0]: action for each in FILES for action in re.findall(r"uses: (\w.+)", each.read_text())
    }
    assert all(action in versions.values() for action in used if not action.startswith("./"))


@each_file
def test_github_scripts_contain_no_expression(file: Path) -> None:
    """Text from an event or a variable would be executed as code, so it is passed through the environment."""
    scripts = [
        each["run"] for each in walk(yaml.safe_load(file.read_text())) if isinstance(each, dict) and "run" in each
    ]
    assert [script for script in scripts if "${{" in script] == []


@pytest.mark.parametrize("name", ["workflows/ci.yml", "workflows/deploy.yml"])
def test_github_jobs_have_least_permissions_time_limit_and_no_kept_token(name: str) -> None:
    workflow = read(name)
    assert workflow["permissions"] == {}
    assert "group" in workflow["concurrency"]
    assert "pull_request_target" not in workflow["on"]
    for job in workflow["jobs"].values():
        wanted = {"contents": "read"} | ({"id-token": "write"} if "environment" in job else {})
        assert job["permissions"] == wanted
        if "uses" not in job:
            assert job["timeout-minutes"] <= 90
            (checkout,) = (step for step in job["steps"] if "actions/checkout" in step.get("uses", ""))
            assert checkout["with"] == {"persist-credentials": False}


def test_github_ci_runs_the_test_command_of_the_readme() -> None:
    workflow = read("workflows/ci.yml")
    assert {"pull_request", "workflow_call"} <= set(workflow["on"])
    (job,) = workflow["jobs"].values()
    assert "make test" in [step.get("run") for step in job["steps"]]
    assert "\nmake test\n" in (ROOT / "README.md").read_text()
    assert environment("production").parameters[RUNTIME].removeprefix("python") in job["strategy"]["matrix"]["python"]


def test_github_deploy_production_requires_staging_and_smoke() -> None:
    workflow = read("workflows/deploy.yml")
    assert workflow["on"] == {"push": {"tags": ["v*"]}, "workflow_dispatch": None}
    assert workflow["concurrency"]["cancel-in-progress"] is False
    test, staging, production = (workflow["jobs"][name] for name in ("test", "staging", "production"))
    assert test["uses"] == "./.github/workflows/ci.yml"
    assert staging["needs"] == "test"
    assert production["needs"] == "staging"
    for name, job in (("staging", staging), ("production", production)):
        assert job["environment"] == name
        (deploy,) = (step for step in job["steps"] if step.get("uses") == "./.github/actions/deploy")
        assert deploy["with"]["environment"] == name
        assert set(deploy["with"]) == set(read("actions/deploy/action.yml")["inputs"])
    assert staging["steps"][-1]["run"] == "make smoke ENV=staging"
    assert production["steps"][-1]["run"] == "make doctor ENV=production"


def test_github_deploy_uses_python_of_the_runtime() -> None:
    steps = read("actions/deploy/action.yml")["runs"]["steps"]
    (python,) = (step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))
    for name in ("staging", "production"):
        assert environment(name).parameters[RUNTIME] == f"python{python}"


def test_github_deploy_variables_are_documented() -> None:
    names = set(re.findall(r"vars\.(\w+)", (GITHUB / "workflows" / "deploy.yml").read_text()))
    assert names == {"AWS_REGION", "DEPLOY_ROLE_ARN", "EXECUTION_ROLE_ARN", "ARTIFACTS_BUCKET"}
    assert all(name in DOCUMENT for name in names)


# ----------------------------------------------------------------------------------------------------------------- roles


def test_deploy_role_trusts_one_environment_of_one_repository() -> None:
    (statement,) = roles()["DeployRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": {"Fn::Sub": "repo:${Repository}:environment:${Environment}"},
        }
    }


def test_deploy_role_changes_stack_only_through_cloudformation() -> None:
    changing = {
        action
        for statement in statements("DeployRole")
        for action in as_list(statement["Action"])
        if statement["Effect"] == "Allow" and not re.search(r":(Get|List|Describe|Validate|Filter|Query)", action)
    }
    assert changing == {
        "cloudformation:CreateChangeSet", "cloudformation:DeleteChangeSet", "cloudformation:ExecuteChangeSet",
        "execute-api:Invoke", "iam:PassRole", "s3:PutObject", "secretsmanager:DeleteSecret",
    }  # fmt: skip
    (only,) = (each for each in statements("DeployRole") if each["Effect"] == "Deny")
    assert only["Condition"] == {
        "StringNotEquals": {"cloudformation:RoleArn": {"Fn::GetAtt": ["ExecutionRole", "Arn"]}}
    }


def test_execution_role_creates_only_roles_named_after_the_stack() -> None:
    about_roles = 0
    for statement in statements("ExecutionRole"):
        if any(action.startswith("iam:") for action in as_list(statement["Action"])):
            about_roles += 1
            names = [resource["Fn::Sub"].partition("${AWS::AccountId}:")[2] for resource in statement["Resource"]]
            assert names == ["role/${StackName}-*", "policy/${StackName}-*"]
        assert "*" not in as_list(statement["Action"])
    assert about_roles


def test_execution_role_allows_every_service_of_the_template() -> None:
    """CloudFormation's types by the service whose actions create them."""
    named_otherwise = {"CertificateManager": "acm"}
    domain = (("CertificateArn", "arn"), ("DomainName", "example.com"), ("HostedZoneId", "Z1"))
    resources = translated((*domain, ("AccessLogs", "yes"), ("Deployment", "Canary10Percent5Minutes")))["Resources"]
    made = {each["Type"].split("::")[1] for each in resources.values()}
    allowed = {action.partition(":")[0] for each in statements("ExecutionRole") for action in as_list(each["Action"])}
    assert {named_otherwise.get(kind, kind.lower()) for kind in made} <= allowed
