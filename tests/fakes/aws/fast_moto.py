"""moto without work that it repeats on every call. What it answers stays the same: only the time that it takes changes.

- Its serializer looks for each member of an attribute value under up to ten names, for each of ten members; a plain
  dictionary has the one member under its own name.
- It builds a parser, with its tables, for each JSONPath of each event.
- It lists the methods of a response class, by inspection, for each call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

from jsonpath_ng import ext
from jsonpath_ng.ext.parser import parse
from moto.core import responses
from moto.core.serialize import JSONSerializer
from moto.core.utils import method_names_from_class

_serialize_structure = JSONSerializer._serialize_type_structure
_parse = cache(parse)
_method_names = cache(method_names_from_class)


def _serialize_type_structure(serializer: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
    if shape.name != "AttributeValue" or type(value) is not dict or not key:
        return _serialize_structure(serializer, serialized, value, shape, key)
    wrapper: dict[str, Any] = {}
    for name, member in shape.members.items():
        if value.get(name) is not None:
            serializer._serialize(wrapper, value[name], member, name)
    serializer._default_serialize(serialized, wrapper, shape, key)


@contextmanager
def fast_moto() -> Iterator[None]:
    with (
        patch.object(JSONSerializer, "_serialize_type_structure", _serialize_type_structure),
        patch.object(ext, "parse", _parse),
        patch.object(responses, "method_names_from_class", _method_names),
    ):
        yield
