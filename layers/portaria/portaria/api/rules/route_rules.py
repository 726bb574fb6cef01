"""The rules for routes: what a caller may send, and what must be true of it, its source and its destination."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jmespath
from jmespath.exceptions import LexerError, ParseError
from jmespath.functions import Functions
from pydantic import Field

from portaria import platforms
from portaria.api.rules.known_resources import Known
from portaria.api.validation import Fault, Input, InvalidInput, Matching, Refusals, ResourceName, nearest
from portaria.core.entities import Route
from portaria.core.errors import Rejected
from portaria.platforms.record_protocols import RouteRules, SourceObject
from portaria.records.mapping import expression_budget, expressions
from portaria.records.mapping.expression_compiler import Search

MAX_ATTRIBUTES = 200
MAX_EXPRESSION_LENGTH = 1_000

Attribute = Annotated[str, Matching(r"[A-Za-z][A-Za-z0-9_]{0,99}", "an attribute's API name")]
SOURCE = Matching(
    r"connection:[A-Za-z0-9_-]{3,64}|client:[a-z][a-z0-9]{0,31}/[a-z0-9][a-z0-9-]{1,31}",
    "connection:NAME or client:PLATFORM/CLIENT",
)
Source = Annotated[str, SOURCE]
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


class RouteReplacement(Input):
    """A route's values."""

    source: Source = Field(description="Where the records come from.")
    object: Object = Field(description="The source's object.")
    destination: ResourceName = Field(description="The name of the connection that the records go to.")
    mapping: dict[Attribute, str] = Field(
        default_factory=dict,
        max_length=MAX_ATTRIBUTES,
        description="For each attribute of the destination: a JMESPath expression over the source's record. Empty for the "
        "default of the two platforms.",
    )
    target: DestinationObject | None = Field(
        default=None, description="The destination's object. By default, the one that `object` becomes."
    )
    dedupe_fields: list[Attribute] = Field(
        default_factory=list,
        max_length=2,
        description="The attributes by which the destination finds an existing object. Empty for the destination's default.",
    )
    priority: Literal["normal", "high"] = Field(
        default="normal", description="The priority of the records at the destination."
    )
    options: dict[Option, OptionValue] = Field(
        default_factory=dict, max_length=10, description="The destination's own options, by name."
    )
    keep_newest: Keeping = Field(
        default="events",
        description="Which versions an older one must not overwrite: those that came by events (`events`), all of them "
        "(`all`), or none (`none`).",
    )
    weight: int = Field(
        default=1,
        ge=1,
        le=100,
        description="The source's share of the destination's daily quota, relative to other sources.",
    )


class RouteCreation(RouteReplacement):
    """A route to create."""

    name: ResourceName = Field(description="The route's name. It cannot be changed.")


def check(name: str, sent: RouteReplacement, known: Known) -> tuple[Route, list[str]]:
    """The route, known to be usable as far as that can be known now, and what is doubtful about it.

    Raises `Rejected` with everything that is wrong.
    """
    refusals = Refusals()
    destination = refusals.of(lambda: _route_rules(known, sent))
    target = refusals.of(lambda: _target(destination, sent)) if destination else None
    if destination:
        refusals.of(lambda: _check_options(destination, sent))
    source = refusals.of(lambda: _source_object(known, sent))
    refusals.of(lambda: _check_expressions(sent.mapping))
    if not destination:
        raise refusals.together()
    mapped = sent.mapping
    if not mapped and source and target is not None:
        mapped = destination.default_mapping(source.DEFAULT_MAPPING, target)
        if not mapped:
            detail = (
                f"mapping is missing: there is no default mapping to {target}, so give an expression for each attribute"
            )
            refusals.found.append(Rejected("invalid_input", detail, field="mapping"))
    listed = tuple(destination.DEDUPE_ATTRIBUTES.get(target or "", ()))
    dedupe_fields = tuple(sent.dedupe_fields or destination.DEFAULT_DEDUPE.get(target or "", ()))
    route = Route(
        name,
        sent.source,
        sent.object,
        sent.destination,
        dict(sent.mapping),
        dedupe_fields,
        sent.priority,
        sent.target or "",
        dict(sent.options),
        sent.keep_newest,
        sent.weight,
    )
    if mapped:
        refusals.of(lambda: _check_dedupe_fields(dedupe_fields, mapped))
        refusals.of(lambda: destination.check_route(route, set(mapped)))
    if refusals.found:
        raise refusals.together()
    warnings = [
        f"dedupe_fields: {field} is not among the attributes that are documented for deduplication ({', '.join(listed)}); "
        "a custom attribute may work, others may not"
        for field in dedupe_fields
        if listed and field not in listed
    ]
    return route, warnings


def _check_dedupe_fields(dedupe_fields: tuple[str, ...], mapped: dict[str, str]) -> None:
    errors = []
    if len(set(dedupe_fields)) < len(dedupe_fields):
        errors.append(("dedupe_fields", "dedupe_fields has the same attribute twice"))
    for field in dedupe_fields:
        if field not in mapped:
            meant = nearest(field, mapped)
            advice = f": did you mean {meant}?" if meant else ""
            errors.append(
                ("dedupe_fields", f"dedupe_fields: {field} is not in the mapping, so no record would have it{advice}")
            )
    if errors:
        raise InvalidInput(errors)


def _source_object(known: Known, sent: RouteReplacement) -> SourceObject:
    try:
        platform = source_platform(known, sent.source)
    except Rejected as unknown:
        raise Rejected(unknown.reason, unknown.detail, field="source") from None
    if source := platforms.load(platform).source_object(sent.object):
        return source
    raise Rejected(
        "object_not_offered", f"{platform} connections have no {sent.object} that can be read", field="object"
    )


def source_platform(known: Known, source: str) -> str:
    """The platform of a route's source. Raises `Rejected` (404 `unknown_connection`, `unknown_client`)."""
    kind, _, name = source.partition(":")
    if kind == "connection":
        return known.connection(name).platform
    platform, _, client = name.partition("/")
    return known.client(platform, client).platform


def _route_rules(known: Known, sent: RouteReplacement) -> RouteRules:
    try:
        platform = known.connection(sent.destination).platform
    except Rejected as unknown:
        raise Rejected(unknown.reason, unknown.detail, field="destination") from None
    if rules := platforms.load(platform).route_rules:
        return rules
    raise Rejected("not_a_destination", f"records cannot be sent to {platform}", field="destination")


def _target(destination: RouteRules, sent: RouteReplacement) -> str:
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
    return destination.ACCEPTED[sent.object]


def _check_options(destination: RouteRules, sent: RouteReplacement) -> None:
    errors = []
    for name, value in sent.options.items():
        if name not in destination.OPTIONS:
            known = ", ".join(sorted(destination.OPTIONS)) or "none"
            detail = f"options: {name} is not an option of the destination: it has {known}"
            errors.append(Fault("options", detail, ("options", name), of_name=True))
        elif not destination.OPTIONS[name][0].fullmatch(value):
            errors.append(Fault(f"options.{name}", f"options.{name} must be {destination.OPTIONS[name][1]}"))
    if errors:
        raise InvalidInput(errors)


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


def _cost_complaint(search: Search) -> str:
    """A complaint where an expression multiplies whatever it is given: it does so with an empty record, too."""
    try:
        search({})
    except expression_budget.TooCostly:
        return f"multiplies its input: an evaluation may take {expression_budget.MAX_STEPS:,} steps; make it simpler"
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
