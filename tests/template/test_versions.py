"""Which Lambda versions a deployment keeps: what docs/operations.md says under *Upgrading without downtime*."""

from __future__ import annotations

import re
from typing import Any

from tests.fakes.paths import ROOT
from tests.fakes.template.document import functions
from tests.fakes.template.translation import translated


def versions(*parameters: tuple[str, str], code: str = "first") -> dict[str, dict[str, Any]]:
    resources = translated(parameters, code)["Resources"]
    return {name: each for name, each in resources.items() if each["Type"] == "AWS::Lambda::Version"}


def aliases(code: str = "first") -> dict[str, str]:
    """The version that each alias points to, by the alias's logical id."""
    resources = translated((), code)["Resources"]
    return {
        name: each["Properties"]["FunctionVersion"]["Fn::GetAtt"][0]
        for name, each in resources.items()
        if each["Type"] == "AWS::Lambda::Alias"
    }


def test_deployment_new_code_retains_the_previous_version() -> None:
    """A resource that leaves the template is kept where its DeletionPolicy says so."""
    before, after = versions(), versions(code="second")
    assert len(before) == len(after) == len(functions())
    assert not set(before) & set(after)
    assert {version["DeletionPolicy"] for version in before.values()} == {"Retain"}
    assert set(aliases().values()) == set(before)
    assert set(aliases("second").values()) == set(after)


def test_deployment_new_parameter_replaces_the_version() -> None:
    """The logical id stays, so CloudFormation replaces the version of which the description changes, and deletes the old.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-version.html
    SAM passes an UpdateReplacePolicy on to all that it makes for a function: event sources, permissions and schedules
    would outlive their replacement too. So there is none, and the document says what follows.
    """
    before, after = versions(), versions(("LogLevel", "DEBUG"))
    assert set(before) == set(after)
    for version in after.values():
        assert "${LogLevel}" in version["Properties"]["Description"]["Fn::Sub"]
        assert "UpdateReplacePolicy" not in version


def test_operations_document_describes_retained_versions() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.partition("## Upgrading without downtime")[2].partition("\n## ")[0]
    section = re.sub(r"\s+", " ", section)
    assert "New code gets a new version, and the earlier version stays" in section
    assert "A deployment that changes only parameters replaces the version" in section
