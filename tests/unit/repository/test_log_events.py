"""Log lines are `snake_case` events with fields, and docs/operations.md names only events and fields that the code logs."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache

import pytest

from tests.fakes.paths import ROOT

SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
# The light logger of webhooks takes the level first and has no `append_keys`. `log_unexpected` adds the exception's type and
# place.
LIGHT_LOGGER, UNEXPECTED = "log", "log_unexpected"
# Modules that define these two, and so log the event of their caller.
LOGGERS = {"webhooks/request_log.py", "core/unexpected_errors.py"}
OF_UNEXPECTED = {"error", "at"}
# Fields that the logger, Lambda or CloudWatch Logs adds to each line.
OF_EVERY_LINE = {
    "timestamp",
    "level",
    "message",
    "service",
    "location",
    "errorType",
    "@timestamp",
    "@log",
    "@logStream",
}
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
# A reason in template.yaml, settings of samconfig.toml, and a command.
NAMES_OF_ELSEWHERE = {"filtered", "monitoring", "parameter_overrides", "s3_prefix", "teardown"}
WORDS_OF_QUERIES = {
    "fields", "filter", "stats", "sort", "by", "asc", "desc", "count", "sum", "bin", "ispresent", "and", "or", "in", "like",
}  # fmt: skip


@dataclass(frozen=True)
class LogCall:
    place: str
    events: tuple[str, ...]  # empty if the event is not a literal
    fields: frozenset[str]


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    return tuple(
        (str(path.relative_to(folder)), ast.parse(path.read_text()))
        for folder in (ROOT / "layers" / "portaria" / "portaria", ROOT / "functions")
        for path in sorted(folder.rglob("*.py"))
    )


@cache
def log_calls() -> tuple[LogCall, ...]:
    found: list[LogCall] = []
    for place, tree in modules():
        if place in LOGGERS:
            continue
        unexpected = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.name == UNEXPECTED
        }
        names, own = bound_texts(tree), dictionaries(tree)
        of_folder = keys_by_folder()[place.rpartition("/")[0]]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            if is_logger(node.func) or called in unexpected:
                position = 0
            elif called == LIGHT_LOGGER:
                position = 1
            else:
                continue
            events = texts(node.args[position], names)
            fields = fields_of(node, own, of_folder) | (OF_UNEXPECTED if called in unexpected else set())
            if called != LIGHT_LOGGER:
                fields |= fields_of_all_lines()
            found.append(LogCall(f"{place}:{node.lineno}", events, frozenset(fields)))
    return tuple(found)


def is_logger(function: ast.expr) -> bool:
    if not isinstance(function, ast.Attribute) or function.attr not in LEVELS:
        return False
    owner = function.value
    return (isinstance(owner, ast.Name) and owner.id == "logger") or (
        isinstance(owner, ast.Attribute) and owner.attr in ("logger", "_logger")
    )


def bound_texts(tree: ast.Module) -> dict[str, ast.expr]:
    """Names that are assigned one of two texts."""
    return {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.IfExp)
    }


def texts(node: ast.expr, names: dict[str, ast.expr]) -> tuple[str, ...]:
    """The literal, or the two of a condition; nothing for any other expression."""
    if isinstance(node, ast.Name):
        node = names.get(node.id, node)
    if isinstance(node, ast.IfExp):
        return (*texts(node.body, {}), *texts(node.orelse, {}))
    return (node.value,) if isinstance(node, ast.Constant) and isinstance(node.value, str) else ()


def fields_of(call: ast.Call, own: dict[str, set[str]], of_folder: set[str]) -> set[str]:
    """The call's keywords and the keys of `extra`.

    A dictionary in a variable has the keys that its module gives to variables of that name. If the module only passes it on,
    any key of its folder counts.
    """
    found: set[str] = set()
    spread: list[ast.expr] = []
    for keyword in call.keywords:
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
            found |= keys(keyword.value)
            spread += [
                value for key, value in zip(keyword.value.keys, keyword.value.values, strict=True) if key is None
            ]
        elif keyword.arg in ("extra", None):
            spread.append(keyword.value)
        elif keyword.arg:
            found.add(keyword.arg)
    for value in spread:
        found |= own.get(name_of(value)) or of_folder
    return found


def name_of(node: ast.expr) -> str:
    """Of a variable or an attribute."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def dictionaries(tree: ast.Module) -> dict[str, set[str]]:
    """The keys that a module gives to dictionaries in variables and attributes, by their names."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) or node.value is None:
            continue
        for target in targets:
            if isinstance(target, ast.Subscript):
                name, given = name_of(target.value), keys_of_constant(target.slice)
            else:
                name, given = name_of(target) if target is not None else "", keys(node.value)
            if given:
                found.setdefault(name, set()).update(given)
    return found


def keys_of_constant(node: ast.expr) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def keys(tree: ast.AST) -> set[str]:
    """The literal keys of dictionaries, and the keywords of `dict`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            found |= {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            found |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return found


@cache
def keys_by_folder() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for place, tree in modules():
        found.setdefault(place.rpartition("/")[0], set()).update(keys(tree))
    return found


@cache
def fields_of_all_lines() -> frozenset[str]:
    """Fields that a function adds to all its lines (`append_keys`)."""
    return frozenset(
        keyword.arg
        for _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr.endswith("append_keys")
        for keyword in node.keywords
        if keyword.arg
    )


@cache
def fields_by_event() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for call in log_calls():
        for event in call.events:
            found.setdefault(event, set()).update(call.fields)
    return found


@cache
def texts_of_code() -> frozenset[str]:
    """String constants of the functions, the package and the command line."""
    trees = [tree for _, tree in modules()] + [ast.parse(path.read_text()) for path in (ROOT / "cli").rglob("*.py")]
    return frozenset(
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def queries() -> list[str]:
    """The CloudWatch Logs Insights queries of the runbook."""
    return re.findall(r"ask '([^']*@?[^']*)'", re.sub(r"^# ask .*$", "", RUNBOOK, flags=re.MULTILINE))


def test_log_calls_use_snake_case_event_names() -> None:
    wrong = {
        call.place: call.events or "not a literal"
        for call in log_calls()
        if not call.events or not all(SNAKE_CASE.fullmatch(event) for event in call.events)
    }
    assert wrong == {}


def test_log_calls_scan_finds_known_calls() -> None:
    assert len(log_calls()) > 60
    assert {"error", "at"} <= fields_by_event()["message_failed"]
    assert "host" in fields_of_all_lines()


@pytest.mark.parametrize("query", queries())
def test_runbook_query_events_and_fields_are_emitted(query: str) -> None:
    events = set(re.findall(r'message = "([^"]+)"', query))
    for several in re.findall(r"message in \[([^\]]*)\]", query):
        events |= set(re.findall(r'"([^"]+)"', several))
    assert events <= set(fields_by_event())
    plain = re.sub(r'"[^"]*"|/[^/]*/|\b\d+[hms]\b', "", query)
    named = set(re.findall(r"@?[A-Za-z_][\w]*", plain)) - WORDS_OF_QUERIES
    is_of_events = events and " or " not in query
    of_events = [fields_by_event()[event] for event in events] if is_of_events else list(fields_by_event().values())
    assert named - OF_EVERY_LINE - set().union(*of_events) == set()


def test_runbook_names_in_backticks_exist_in_code() -> None:
    """Events, fields, reasons and states. Names with capitals, spaces or dots are commands, parameters, metrics and files."""
    functions = {path.name for path in (ROOT / "functions").iterdir()}
    named = {word for word in re.findall(r"`([^`\n]+)`", RUNBOOK) if re.fullmatch(r"[a-z][a-z0-9_]+", word)}
    fields = set().union(*fields_by_event().values()) | fields_of_all_lines()
    assert len(named) > 20
    assert named - texts_of_code() - functions - fields - NAMES_OF_ELSEWHERE == set()


def test_runbook_has_more_than_20_queries() -> None:
    assert len(queries()) > 20
