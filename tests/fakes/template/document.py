"""template.yaml as data: intrinsic tags in their long form, Globals merged in, grants as IAM evaluates them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from local.template_file import read_template
from tests.fakes.paths import ROOT

Properties = dict[str, Any]


def resources(kind: str) -> dict[str, dict[str, Any]]:
    """Whole resources of a type, by logical id."""
    return {name: resource for name, resource in read_template()["Resources"].items() if resource["Type"] == kind}


@dataclass(frozen=True)
class Function:
    """One AWS::Serverless::Function; `name` is its folder under functions/."""

    logical_id: str
    name: str
    properties: Properties

    @property
    def environment(self) -> dict[str, Any]:
        own = self.properties.get("Environment", {}).get("Variables", {})
        return {**read_template()["Globals"]["Function"]["Environment"]["Variables"], **own}

    @property
    def events(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.properties.get("Events", {})
        return found

    def events_of(self, kind: str) -> list[Properties]:
        return [event["Properties"] for event in self.events.values() if event["Type"] == kind]

    @property
    def methods(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The API's operations that this function serves, by method and path."""
        return {key: operation for key, operation in operations().items() if served_by(operation) == self.logical_id}

    @property
    def statements(self) -> list[dict[str, Any]]:
        return [statement for policy in self.properties["Policies"] for statement in policy["Statement"]]

    @property
    def source(self) -> ast.Module:
        return ast.parse((ROOT / "functions" / self.name / "handler.py").read_text())

    def setting(self, name: str) -> Any:
        """A property, with its default from Globals."""
        return self.properties.get(name, read_template()["Globals"]["Function"].get(name))


@cache
def functions() -> list[Function]:
    return [
        Function(logical_id, resource["Properties"]["CodeUri"].strip("/").rpartition("/")[2], resource["Properties"])
        for logical_id, resource in resources("AWS::Serverless::Function").items()
    ]


@cache
def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Every operation of the API's definition, by method and path."""
    (api,) = resources("AWS::Serverless::Api").values()
    paths: dict[str, dict[str, Any]] = api["Properties"]["DefinitionBody"]["paths"]
    return {(method, path): operation for path, methods in paths.items() for method, operation in methods.items()}


def served_by(operation: dict[str, Any]) -> str:
    """The logical id of the function whose alias the operation's integration invokes."""
    found = re.search(
        r"functions/\$\{(\w+)Aliaslive}/invocations$", operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"]
    )
    assert found, operation
    return found[1]


def target(value: Any) -> str:
    """The logical id in a `!Ref` or `!GetAtt`."""
    return str(value["Ref"] if "Ref" in value else value["Fn::GetAtt"][0])


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def walk(value: Any) -> Iterator[Any]:
    """Every value inside a value, itself included."""
    yield value
    if isinstance(value, dict):
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)
