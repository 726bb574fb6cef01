"""Records are read from messages, mapped, merged, and put together into full requests. Pure functions without I/O.

A record that fails is returned, or raised, with its reason; the others are processed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import orjson
from jmespath.exceptions import JMESPathError

from portaria.core import record_messages
from portaria.core.entities import NO_TRACE, Target, Trace
from portaria.core.errors import Rejected
from portaria.records.mapping import expression_budget, expressions
from portaria.records.mapping.expression_compiler import Search

# The types of a mapping's values: JSON without objects and lists.
_SIMPLE = (str, int, float)


class MessageRecords:
    """The records of a message, unchecked; `read_record` checks each of them.

    After `release`, they are decoded again from the message's body when they are asked for. Few records are: those that are not
    delivered. A batch that released them needs a fraction of the memory, which makes it a third faster.
    """

    __slots__ = ("_body", "_decoded")

    def __init__(self, decoded: list[Any], body: str = "") -> None:
        """Records without a `body` are not released."""
        self._decoded: list[Any] | None = decoded
        self._body = body

    def all(self) -> list[Any]:
        if self._decoded is None:
            self._decoded = list(orjson.loads(self._body)["records"])
        return self._decoded

    def release(self) -> None:
        if self._body:
            self._decoded = None


@dataclass(frozen=True)
class Message:
    """A message of the Records queues (see `record_messages`)."""

    id: str
    connection: str
    object: str
    origin: str
    content: MessageRecords
    route: str = ""
    read_at: int = 0
    request: str = ""
    target: Target | None = None
    trace: Trace = NO_TRACE

    @property
    def records(self) -> list[Any]:
        return self.content.all()


@dataclass(slots=True, eq=False)
class Source:
    """One record as it arrived: its `number` among those of its message.

    A record `is_partial` if its data lacks keys for which the source may have a value. It `is_incomplete` if a mapping needs
    one of these; then it is read again as a whole.
    """

    message: Message
    number: int
    key: str
    updated_at: int = 0
    is_partial: bool = False
    is_incomplete: bool = False

    @property
    def record(self) -> Any:
        return self.message.records[self.number]

    @property
    def version(self) -> tuple[int, int]:
        """It orders the records of one key: seconds of the change, milliseconds of the reading."""
        return self.updated_at, self.message.read_at


@dataclass(slots=True, eq=False)
class OutgoingRecord:
    """An object of a request: its attributes, and every record that they were made of, the newest last.

    `routes` has the route of each of these `sources`, which may differ. A source with two routes is there twice.
    """

    identity: str
    attributes: dict[str, Any]
    sources: tuple[Source, ...]
    routes: tuple[str, ...]

    @property
    def origins(self) -> Iterator[tuple[Source, str]]:
        """Each source and its route."""
        return zip(self.sources, self.routes, strict=True)

    def rejected(self, reason: str, detail: str) -> Iterator[RejectedRecord]:
        """Its sources, each with its route, as records that cannot be delivered."""
        return (RejectedRecord((source,), route, reason, detail) for source, route in self.origins)


class RejectedRecord(NamedTuple):
    """Records that cannot be delivered. `detail` names the field, limit and size, never a value."""

    sources: tuple[Source, ...]
    route: str
    reason: str
    detail: str


def read_message(message_id: str, body: str) -> Message:
    """Raises `Rejected` (`message_unreadable`) for anything that is not a Records message."""
    try:
        fields = orjson.loads(body)
        if fields["version"] != record_messages.VERSION or not isinstance(fields["records"], list):
            raise ValueError
        names = {name: fields[name] for name in ("connection", "object", "origin")}
        names |= {name: fields.get(name, "") for name in ("route", "request")}
        if not all(isinstance(name, str) for name in names.values()):
            raise ValueError
        target = _read_target(fields["target"]) if fields.get("target") else None
        trace = read_trace(fields.get("trace"))
        read_at = int(fields.get("read_at", 0))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise Rejected(
            "message_unreadable", f"this is not a Records message of version {record_messages.VERSION}"
        ) from None
    content = MessageRecords(fields["records"], body)
    return Message(id=message_id, content=content, read_at=read_at, target=target, trace=trace, **names)


def _read_target(fields: dict[str, Any]) -> Target:
    options = tuple(sorted((str(name), str(value)) for name, value in fields["options"].items()))
    return Target(str(fields["destination"]), str(fields["object"]), str(fields["priority"]), options)


def target_fields(target: Target) -> dict[str, Any]:
    """A target as a message has it."""
    options = dict(target.options)
    return {
        "destination": target.destination,
        "object": target.object,
        "priority": target.priority,
        "options": options,
    }


def read_trace(fields: dict[str, Any] | None) -> Trace:
    fields = fields or {}
    return Trace(str(fields.get("correlation_id", "")), str(fields.get("request_source", "")))


def read_record(message: Message, number: int, record: Any) -> Source:
    """The record that has a number in its message. Raises `Rejected`: with the reason of the sender that could not pack it, or
    `record_unreadable`."""
    try:
        key, updated_at = record["key"], record["updated_at"]
        if "refused" in record:
            raise Rejected(str(record["refused"]["reason"]), str(record["refused"]["detail"]))
        data = record["data"]
    except (AttributeError, KeyError, TypeError):
        raise Rejected("record_unreadable", "a record needs a key, updated_at and data") from None
    if type(key) is not str or type(updated_at) is not int or type(data) is not dict:
        raise Rejected("record_unreadable", "a record's key is text, updated_at a whole number and data an object")
    return Source(message, number, key, updated_at, "partial" in record and record["partial"] is True)


class Mapping:
    """Each destination attribute's JMESPath expression, compiled. `mapping_of` makes and caches one.

    Raises `Rejected` (`bad_mapping`) that names the attribute whose expression is invalid.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._budget = expression_budget.Budget()
        self._pairs = tuple(pairs)
        nodes = [(name, _parsed(name, text)) for name, text in self._pairs]
        self._search = expressions.compiled_mapping(nodes, self._budget, check=_simple, failure=_failure)
        self._partial_searches: list[tuple[str, Search]] | None = None

    def apply(self, data: dict[str, Any]) -> dict[str, Any]:
        """The destination's attributes. A value that is null or empty at the source is left out, so it erases nothing.

        Raises `Rejected` (`mapping_failed`, `mapping_too_costly`, `bad_value`) that names the attribute.
        """
        self._budget.left = expression_budget.MAX_STEPS
        attributes: dict[str, Any] = self._search(data)
        return attributes

    def apply_partial(self, data: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The attributes of a partial record, and whether others need values that it lacks. Raises as `apply` does."""
        if self._partial_searches is None:
            self._partial_searches = [
                (name, expressions.compiled(text, self._budget, is_partial=True)) for name, text in self._pairs
            ]
        self._budget.start()
        attributes: dict[str, Any] = {}
        is_incomplete = False
        for attribute, search in self._partial_searches:
            try:
                value = search(data)
            except expression_budget.Lacking:
                is_incomplete = True
                continue
            except Exception as error:  # noqa: BLE001 - as in `apply`
                raise _failure(attribute, error) from None
            if value is not None and value != "":
                attributes[attribute] = _simple(attribute, value)
        return attributes, is_incomplete


def _parsed(attribute: str, expression: str) -> expression_budget.Node:
    try:
        return expressions.parsed(expression)
    except JMESPathError as error:
        kind = type(error).__name__
        detail = f"the expression of {attribute} is not a valid expression: {kind}"
        raise Rejected("bad_mapping", detail, field=attribute) from None


def _failure(attribute: str, error: Exception) -> Rejected:
    match error:
        case Rejected():
            return error
        case expression_budget.TooCostly():
            detail = (
                f"the expression of {attribute} needs too many steps: a mapping may take "
                f"{expression_budget.MAX_STEPS:,} for one record; simplify the expression"
            )
            return Rejected("mapping_too_costly", detail, field=attribute)
        case expression_budget.Inexact():
            return _inexact(attribute)
    kind = type(error).__name__
    return Rejected("mapping_failed", f"the mapping of {attribute} failed: {kind}", field=attribute)


def _simple(attribute: str, value: Any) -> Any:
    """A value that JSON represents exactly. Raises `Rejected` (`bad_value`)."""
    if not isinstance(value, _SIMPLE):
        kind = type(value).__name__
        detail = f"{attribute} must be text, a number or a boolean; the mapping gives a {kind}"
        raise Rejected("bad_value", detail, field=attribute)
    if type(value) is float:
        if not isfinite(value):
            raise Rejected("bad_value", f"{attribute} must be a finite number", field=attribute)
        if abs(value) >= expression_budget.LEAST_INEXACT:
            raise _inexact(attribute)
    return value


def _inexact(attribute: str) -> Rejected:
    detail = (
        f"{attribute} is a number of more than 64 bits, whose last digits are lost: the source must send it as text"
    )
    return Rejected("bad_value", detail, field=attribute)


@lru_cache(maxsize=512)
def _kept_mapping(pairs: tuple[tuple[str, str], ...]) -> Mapping:
    return Mapping(pairs)


def mapping_of(pairs: dict[str, str]) -> Mapping:
    """Compiled once a process for each different set of expressions."""
    return _kept_mapping(tuple(pairs.items()))


def newest(sources: Iterable[Source]) -> tuple[list[Source], int]:
    """The newest version of each record (of equal ones, the last), and how many older versions were left out."""
    kept: dict[tuple[str, str], Source] = {}
    count = 0
    for source in sources:
        count += 1
        identity = (source.message.connection, source.key)
        known = kept.get(identity)
        if known is None or known.version <= source.version:
            kept[identity] = source
    return list(kept.values()), count - len(kept)


def _version(one: OutgoingRecord) -> tuple[int, int]:
    source = one.sources[-1]
    return source.updated_at, source.message.read_at


def merged(outgoing: Iterable[OutgoingRecord]) -> list[OutgoingRecord]:
    """One object for each identity at the destination, as consecutive upserts would leave it: the newest attribute wins.

    Destinations guarantee no order within a request, or between two requests at the same time.
    """
    ordered = sorted(outgoing, key=_version)
    if len({one.identity for one in ordered}) == len(ordered):
        return ordered
    known: dict[str, OutgoingRecord] = {}
    for one in ordered:
        # Removed and inserted again, so that the objects are in the order of their newest record.
        older = known.pop(one.identity, None)
        if older is not None:
            attributes = older.attributes | one.attributes
            one = OutgoingRecord(  # noqa: PLW2901
                one.identity, attributes, older.sources + one.sources, older.routes + one.routes
            )
        known[one.identity] = one
    return list(known.values())
