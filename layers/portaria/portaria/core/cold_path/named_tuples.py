"""`NamedTuple` without importing `typing`, which takes a tenth of a webhook's cold start.

Type checkers see the one of `typing`. Modules of the webhooks' cold path import what only type checkers need under
`if TYPE_CHECKING`, with a variable of that name: type checkers take it to be true.
"""

from __future__ import annotations

from collections import namedtuple

__all__ = ["NamedTuple"]

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:
    _OWN = frozenset({"__annotations__", "__module__", "__qualname__"})

    class _Maker(type):
        """Makes a named tuple of a class body, as the metaclass of `typing.NamedTuple` does."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = tuple(body["__annotations__"])
            defaults = [body[field] for field in fields if field in body]
            if any(field not in body for field in fields[len(fields) - len(defaults) :]):
                raise TypeError(f"{name}: a field without a default follows one with a default")
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            made.__annotations__ = body["__annotations__"]
            made.__qualname__ = body["__qualname__"]
            for member, value in body.items():
                if member not in _OWN and member not in fields:
                    setattr(made, member, value)
            return made

    class NamedTuple(metaclass=_Maker):
        """The base of a class whose annotations are the fields."""
