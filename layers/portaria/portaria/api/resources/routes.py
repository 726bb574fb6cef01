"""Administering routes: which records go where, and how each attribute is made."""

from __future__ import annotations

from types import ModuleType
from typing import Annotated, Any, Literal

import jmespath
from jmespath.exceptions import LexerError, ParseError
from jmespath.functions import Functions
from pydantic import Field

from portaria.api.router import ApiRequest, Reply, changed_meanwhile, page, require_match
from portaria.api.schemas import Output
from portaria.api.validation import Input, InvalidInput, Matching, ResourceName
from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store, oauth_clients
from portaria.core.entities import Rejected, Route
from portaria.platforms import part
from portaria.records import expressions, routes

MAX_ATTRIBUTES = 200
MAX_EXPRESSION_LENGTH = 1_000

Attribute = Annotated[str, Matching(r"[A-Za-z][A-Za-z0-9_]{0,99}", "an attribute's API name")]
Source = Annotated[
    str,
    Matching(
        r"connection:[A-Za-z0-9_-]{3,64}|client:[a-z][a-z0-9]{0,31}/[a-z0-9][a-z0-9-]{1,31}",
        "connection:NAME or client:PLATFORM/CLIENT",
    ),
]
Object = Annotated[str, Matching(r"[a-z][a-z0-9_]{0,63}", "an object's name in lower case")]
Option = Annotated[str, Matching(r"[a-z][a-z0-9_]{0,31}", "an option's name")]
OptionValue = Annotated[str, Matching(r"[^\x00-\x1f\x7f]{1,255}", "1 to 255 characters, none a control")]
DestinationObject = Annotated[
    str,
    Matching(
        r"(?:[a-z][a-z0-9_]{0,31}(?:/[A-Za-z][A-Za-z0-9_]{0,99})?)?", "an object of the destination's, or nothing"
    ),
]
Keeping = Literal["events", "all", "none"]


class Replacement(Input):
    """An empty `mapping` is the default of the two platforms, an empty `target` what the destination makes of `object`; empty
    `dedupe_fields` are what the destination finds such objects by.

    `keep_newest`: an older version never overwrites a newer one that came by events (default), by whatever way (`all`), or
    may do so (`none`). `weight`: the source's share of what the destination takes in a day, next to others'.
    """

    source: Source
    object: Object
    destination: ResourceName
    mapping: dict[Attribute, str] = Field(default_factory=dict, max_length=MAX_ATTRIBUTES)
    target: DestinationObject = ""
    dedupe_fields: list[Attribute] = Field(default_factory=list, max_length=2)
    priority: Literal["normal", "high"] = "normal"
    options: dict[Option, OptionValue] = Field(default_factory=dict, max_length=10)
    keep_newest: Keeping = "events"
    weight: int = Field(default=1, ge=1, le=100)


class Creation(Replacement):
    name: ResourceName


class Shown(Output):
    name: str
    source: str
    object: str
    destination: str
    mapping: dict[str, str]
    target: str
    dedupe_fields: list[str]
    priority: Literal["normal", "high"]
    options: dict[str, str]
    keep_newest: Keeping
    weight: int


class Written(Shown):
    """`warnings` are sentences for the person who wrote it."""

    warnings: list[str]


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (409 `route_exists`)."""
    table, sent = asked.desk.table, asked.sent
    route, warnings = _checked(table, sent.name, sent)
    try:
        revision = routes.put(table, route, new=True)
    except Conflict:
        detail = f"there is a route {route.name} already: replace it with PUT"
        raise Rejected("route_exists", detail, field="name", status=409) from None
    return Reply(routes.show(route) | {"warnings": warnings}, etag=revision)


def replace(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_route`, 409 or 412 `changed_meanwhile`)."""
    table, name = asked.desk.table, asked.path["name"]
    _, revision = routes.find(table, name)
    require_match(asked, revision)
    route, warnings = _checked(table, name, asked.sent)
    try:
        revision = routes.put(table, route, new=False, revision=revision)
    except Conflict:
        raise changed_meanwhile(asked) from None
    return Reply(routes.show(route) | {"warnings": warnings}, etag=revision)


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_route`)."""
    route, revision = routes.find(asked.desk.table, asked.path["name"])
    return Reply(routes.show(route), etag=revision)


def list_page(asked: ApiRequest) -> Reply:
    found, next_cursor = routes.list_page(asked.desk.table, asked.cursor, asked.limit)
    return page([routes.show(route) for route in found], next_cursor)


def delete(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_route`)."""
    routes.get(asked.desk.table, asked.path["name"])
    routes.delete(asked.desk.table, asked.path["name"])
    return Reply(None)


def _checked(table: Table, name: str, sent: Replacement) -> tuple[Route, list[str]]:
    """The route, known to be usable as far as that can be known now, and what is doubtful about it."""
    destination = _destination_part(table, sent)
    target = _target(destination, sent)
    _check_options(destination, sent)
    source = _source_part(table, sent)
    _check_expressions(sent.mapping)
    mapped = sent.mapping or destination.default_mapping(source.DEFAULT_MAPPING, target)
    if not mapped:
        detail = f"mapping: there is no default one to {target}; give each attribute its expression"
        raise Rejected("invalid_input", detail, field="mapping")
    listed = tuple(destination.DEDUPE_ATTRIBUTES.get(target, ()))
    dedupe_fields = tuple(sent.dedupe_fields or destination.DEFAULT_DEDUPE.get(target, ()))
    _check_dedupe_fields(dedupe_fields, mapped)
    warnings = [
        f"dedupe_fields: {field} is not among the attributes that are documented for deduplication ({', '.join(listed)}); "
        "a custom attribute may work, others may not"
        for field in dedupe_fields
        if listed and field not in listed
    ]
    route = Route(
        name,
        sent.source,
        sent.object,
        sent.destination,
        dict(sent.mapping),
        dedupe_fields,
        sent.priority,
        sent.target,
        dict(sent.options),
        sent.keep_newest,
        sent.weight,
    )
    if hasattr(destination, "check_route"):
        destination.check_route(route, set(mapped))
    return route, warnings


def _check_dedupe_fields(dedupe_fields: tuple[str, ...], mapped: dict[str, str]) -> None:
    if len(set(dedupe_fields)) < len(dedupe_fields):
        raise Rejected("invalid_input", "dedupe_fields names one attribute twice", field="dedupe_fields")
    for field in dedupe_fields:
        if field not in mapped:
            raise Rejected(
                "invalid_input",
                f"dedupe_fields: {field} is not mapped, so no record would have it",
                field="dedupe_fields",
            )


def _source_part(table: Table, sent: Replacement) -> ModuleType:
    """The source platform's part that reads the object, or takes its events."""
    kind, _, name = sent.source.partition(":")
    try:
        if kind == "connection":
            platform = connection_store.get(table, name).platform
        else:
            platform = oauth_clients.get(table, *name.split("/", 1)).platform
    except Rejected as unknown:
        raise Rejected(unknown.reason, unknown.detail, field="source") from None
    try:
        source = part(platform, sent.object)
        if hasattr(source, "DEFAULT_MAPPING"):
            return source
    except Rejected:
        pass
    raise Rejected("object_not_offered", f"{platform} has no {sent.object} that can be read", field="object")


def _destination_part(table: Table, sent: Replacement) -> ModuleType:
    try:
        platform = connection_store.get(table, sent.destination).platform
    except Rejected as unknown:
        raise Rejected(unknown.reason, unknown.detail, field="destination") from None
    try:
        return part(platform, "destination")
    except Rejected:
        raise Rejected("not_a_destination", f"records cannot be sent to {platform}", field="destination") from None


def _target(destination: ModuleType, sent: Replacement) -> str:
    """What the records become at the destination."""
    if sent.target:
        if not destination.TARGETS.fullmatch(sent.target):
            raise Rejected(
                "object_not_accepted", f"target: the destination takes {destination.TARGETS_RULE}", field="target"
            )
        return sent.target
    if sent.object not in destination.ACCEPTED:
        accepted = ", ".join(sorted(destination.ACCEPTED))
        detail = f"the destination takes {accepted} as they are, not {sent.object}: give the route a target"
        raise Rejected("object_not_accepted", detail, field="object")
    return str(destination.ACCEPTED[sent.object])


def _check_options(destination: ModuleType, sent: Replacement) -> None:
    for name, value in sent.options.items():
        if name not in destination.OPTIONS:
            known = ", ".join(sorted(destination.OPTIONS)) or "none"
            raise Rejected("invalid_input", f"options: the destination knows {known}, not {name}", field="options")
        pattern, rule = destination.OPTIONS[name]
        if not pattern.fullmatch(value):
            raise Rejected("invalid_input", f"options.{name} must be {rule}", field=f"options.{name}")


def _check_expressions(mapping: dict[str, str]) -> None:
    errors = []
    for attribute, expression in mapping.items():
        if complaint := _complaint(expression):
            errors.append((f"mapping.{attribute}", f"mapping.{attribute} {complaint}"))
    if errors:
        raise InvalidInput(errors)


def _complaint(expression: str) -> str:
    """What is wrong with a JMESPath expression, with the position counted from 1, or nothing."""
    if len(expression) > MAX_EXPRESSION_LENGTH:
        return f"may have {MAX_EXPRESSION_LENGTH:,} characters; this has {len(expression):,}"
    if not expression.strip():
        return "is empty: leave the attribute out instead"
    try:
        search = expressions.compiled(expression)
    except expressions.TooDeep:
        return f"is not JMESPath that can be read here: it may be nested {expressions.MAX_DEPTH} levels deep"
    except LexerError as error:
        return f"is not JMESPath: {error.token_value!r} at position {error.lex_position + 1} cannot be read"
    except ParseError as error:
        if not error.token_value:
            return f"is not JMESPath: it ends too early, at position {len(expression)}"
        return f"is not JMESPath: {error.token_value!r} at position {error.lex_position + 1} is not expected there"
    for function in _functions(jmespath.compile(expression).parsed):
        if function not in Functions.FUNCTION_TABLE:
            return f"calls {function}(), which JMESPath does not have"
    return _cost_complaint(search)


def _cost_complaint(search: expressions.Search) -> str:
    """A complaint where an expression multiplies whatever it is given: it does so with an empty record, too."""
    try:
        search({})
    except expressions.TooCostly:
        return f"multiplies its input: an evaluation may take {expressions.MAX_STEPS:,} steps; make it simpler"
    except Exception:  # noqa: BLE001 - what an empty record lacks, another one may have
        return ""
    return ""


def _functions(node: Any) -> set[str]:
    found: set[str] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.get("type") == "function_expression":
            found.add(str(node["value"]))
        waiting += [child for child in node.get("children", []) if isinstance(child, dict)]
    return found
