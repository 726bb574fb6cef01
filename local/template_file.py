"""template.yaml as data. CloudFormation's short forms get their long form: `!GetAtt A.B` is `{"Fn::GetAtt": ["A", "B"]}`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from local.stack import ROOT

TEMPLATE = ROOT / "template.yaml"


# The loader on libyaml takes a tenth of the time of the one in Python.
class _Loader(yaml.CSafeLoader):
    pass


def _intrinsic(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _intrinsic)


@cache
def read_template(file: Path = TEMPLATE) -> dict[str, Any]:
    """The same object for the same file, which must not be changed."""
    document: dict[str, Any] = yaml.load(file.read_text(), _Loader)
    return document
