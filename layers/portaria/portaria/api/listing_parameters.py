"""Reading a listing's parameters: `limit`, `cursor` and filters. Every refusal names the parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping

from portaria.api.validation import Matching, unknown_name
from portaria.core.errors import Rejected

MAX_LIMIT = 100
DEFAULT_LIMIT = 50
MAX_CURSOR_LENGTH = 1_000


def read_listing(query: Mapping[str, list[str]], *allowed: str) -> tuple[int, str | None, dict[str, str]]:
    """The parameters `limit` and `cursor` of a listing, and its other `allowed` ones. Raises `Rejected`."""
    known = ("limit", "cursor", *allowed)
    for name, values in query.items():
        if name not in known:
            shown = unknown_name(name)
            if name.startswith("tag.") and (indexed := [each for each in allowed if each.startswith("tag.")]):
                detail = f"of the tags only {indexed[0].removeprefix('tag.')} is indexed: filter by {indexed[0]}"
                raise Rejected("unknown_parameter", detail, field=shown)
            raise Rejected(
                "unknown_parameter",
                f"{shown} is not a parameter of this operation: it has {', '.join(known)}",
                field=shown,
            )
        if len(values) > 1:
            raise Rejected("parameter_repeated", f"{name} was given {len(values)} times: give it once", field=name)
    given = {name: values[0] for name, values in query.items() if values}
    limit_text = given.pop("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch(r"[0-9]{1,3}", limit_text, re.ASCII) or not 1 <= int(limit_text) <= MAX_LIMIT:
        raise Rejected("bad_limit", f"limit must be a number from 1 to {MAX_LIMIT}", field="limit")
    cursor = given.pop("cursor", None)
    if cursor is not None and not 1 <= len(cursor) <= MAX_CURSOR_LENGTH:
        raise Rejected(
            "bad_cursor",
            "the cursor is not valid: send the next_cursor of the last response, or none to begin again",
            field="cursor",
        )
    return int(limit_text), cursor, given


def filter_reason(name: str) -> str:
    """The reason of a refusal of a filter's value: `bad_state` for the filter `state`."""
    return f"bad_{name.replace('.', '_')}"


def check_filters(given: Mapping[str, str], allowed: Mapping[str, tuple[str, ...] | Matching]) -> None:
    """Raises `Rejected` (`bad_state` for the filter `state`) where a filter holds what it cannot."""
    for name, value in given.items():
        rule = allowed[name]
        if isinstance(rule, tuple):
            if value not in rule:
                raise Rejected(filter_reason(name), f"{name} must be one of {', '.join(rule)}", field=name)
        elif not re.fullmatch(rule.pattern, value):
            detail = f"{name} must be {rule.rule}; this one has {len(value)} characters"
            raise Rejected(filter_reason(name), detail, field=name)
