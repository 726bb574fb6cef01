"""Reading what a caller sent: size, JSON, fields and listing parameters. Every refusal names the field, never a value."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from portaria.core.entities import Rejected, Secret

# Holds the largest route (200 attributes of 1,000 characters) and stays below the 400 kB of a DynamoDB item.
MAX_BODY_BYTES = 300_000
MAX_ERRORS = 20
MAX_LIMIT = 100
DEFAULT_LIMIT = 50
MAX_CURSOR_LENGTH = 1_000

_Model = TypeVar("_Model", bound="Input")


class InvalidInput(Rejected):
    """Several fields may be wrong at once: `errors` holds a field and a sentence for each; the first is also the text."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        field, detail = errors[0]
        super().__init__("invalid_input", detail, field=field or None)
        self.errors = errors


class Input(BaseModel):
    """A body's fields. Types are strict (the number 1 is not the text "1") and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


@dataclass(frozen=True)
class Matching:
    """A text that matches a pattern whole; `rule` says in words what is allowed. Stands in `Annotated[str, …]`."""

    pattern: str
    rule: str

    def __call__(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise PydanticCustomError(
                "rule", "must be {rule}; this has {length} characters", {"rule": self.rule, "length": len(text)}
            )
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"pattern": f"^(?:{self.pattern})$", "description": self.rule}


def _read_secret(value: object) -> Secret:
    if not isinstance(value, str):
        raise PydanticCustomError("rule", "must be text")
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", value):
        raise PydanticCustomError(
            "rule",
            "must be 1 to 4,096 printable ASCII characters without spaces or line ends; this has {length}",
            {"length": len(value)},
        )
    return Secret(value)


NAME = r"[A-Za-z0-9_-]{3,64}"
CLIENT_NAME = r"[a-z0-9][a-z0-9-]{1,31}"
PLATFORM_NAME = r"[a-z][a-z0-9]{0,31}"

SecretText = Annotated[
    Secret,
    PlainValidator(_read_secret),
    WithJsonSchema({"type": "string", "format": "password", "pattern": r"^[\x21-\x7e]{1,4096}$"}),
]
ResourceName = Annotated[str, Matching(NAME, "3 to 64 of A-Z a-z 0-9 _ -")]
PlatformName = Annotated[str, Matching(PLATFORM_NAME, "the name of a platform in lower case")]


# What a credential may be, by its name; one that is not here is as `SecretText` says. Basic authentication takes any text in
# UTF-8 but control characters (RFC 7617), and APIs that take a key as one half leave the other empty. A header's value is
# printable ASCII with spaces inside (RFC 9110, 5.5).
_TEXT = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]"
_NO_COLON = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff:]"
_CREDENTIAL_RULES = {
    ("basic", "username"): (rf"{_NO_COLON}{{0,1000}}", "at most 1,000 characters, none a control or a colon"),
    ("basic", "password"): (rf"{_TEXT}{{0,1000}}", "at most 1,000 characters, none a control"),
    ("password", "username"): (rf"{_TEXT}{{1,1000}}", "1 to 1,000 characters, none a control"),
    ("password", "password"): (rf"{_TEXT}{{1,1000}}", "1 to 1,000 characters, none a control"),
    ("api_key", "key"): (
        r"[\x21-\x7e]([\x20-\x7e]{0,4094}[\x21-\x7e])?",
        "1 to 4,096 printable ASCII characters, neither the first nor the last a space",
    ),
}


def is_name(text: str) -> bool:
    """Whether a text could be a resource's name, and so may be repeated in an answer."""
    return bool(re.fullmatch(NAME, text))


def hide(value: Any) -> Any:
    """Text as a `Secret`, anything else as it is."""
    return Secret(value) if isinstance(value, str) else value


def read_credential(kind: str, name: str, value: object) -> Secret:
    """A credential that `hide` has wrapped. Raises `ValueError` with the rule in words, and no part of the value."""
    if not isinstance(value, Secret):
        raise ValueError("must be text")
    text = value.reveal()
    if (kind, name) not in _CREDENTIAL_RULES:
        # White space around a token is none of it: it comes with copying it from a page.
        return _read_secret(text.strip() if name == "token" else text)
    pattern, rule = _CREDENTIAL_RULES[kind, name]
    if not re.fullmatch(pattern, text):
        raise ValueError(f"must be {rule}; this has {len(text)}")
    return value


def read_body(body: str | None, is_base64: bool, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The JSON object of a request. Raises `Rejected`, 413 where it is too large."""
    try:
        raw = b64decode(body or "", validate=True) if is_base64 else (body or "").encode()
        # A byte order mark is none of the JSON: some programs write one. https://www.rfc-editor.org/rfc/rfc8259#section-8.1
        text = raw.decode("utf-8-sig")
    except ValueError:
        raise Rejected("bad_json", "the body must be JSON in UTF-8") from None
    if len(raw) > max_bytes:
        raise Rejected("body_too_large", f"the body may have {max_bytes:,} bytes; this has {len(raw):,}", status=413)
    if not text.strip():
        raise Rejected("bad_json", "the body is missing: a JSON object is expected")
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Rejected(
            "bad_json", f"the body is not JSON: line {error.lineno}, column {error.colno}: {error.msg.lower()}"
        ) from None
    except (ValueError, RecursionError):
        raise Rejected("bad_json", "the body is not JSON that can be read here") from None
    if not isinstance(value, dict):
        raise Rejected("bad_json", "the body must be a JSON object")
    return value


def parse(model: type[_Model], body: dict[str, Any]) -> _Model:
    """Raises `InvalidInput`, which names every wrong field, up to 20."""
    try:
        return model.model_validate(body)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_input=False)[:MAX_ERRORS]
        fields = [field.alias or name for name, field in model.model_fields.items()]
        raise InvalidInput([_explain(error, fields) for error in errors]) from None


def read_listing(query: Mapping[str, list[str]], *allowed: str) -> tuple[int, str | None, dict[str, str]]:
    """The parameters `limit` and `cursor` of a listing, and its other `allowed` ones. Raises `Rejected`."""
    known = ("limit", "cursor", *allowed)
    for name, values in query.items():
        if name not in known:
            shown = _stranger(name)
            raise Rejected("unknown_parameter", f"{shown} is not a parameter here: {', '.join(known)}", field=shown)
        if len(values) > 1:
            raise Rejected("parameter_repeated", f"{name} came {len(values)} times; once is allowed", field=name)
    given = {name: values[0] for name, values in query.items() if values}
    limit_text = given.pop("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch(r"[0-9]{1,3}", limit_text, re.ASCII) or not 1 <= int(limit_text) <= MAX_LIMIT:
        raise Rejected("bad_limit", f"limit must be a number from 1 to {MAX_LIMIT}", field="limit")
    cursor = given.pop("cursor", None)
    if cursor is not None and not 1 <= len(cursor) <= MAX_CURSOR_LENGTH:
        raise Rejected("bad_cursor", "the cursor is not one that a listing gave out", field="cursor")
    return int(limit_text), cursor, given


def check_filters(given: Mapping[str, str], allowed: Mapping[str, tuple[str, ...] | Matching]) -> None:
    """Raises `Rejected` (`bad_state` for the filter `state`) where a filter holds what it cannot."""
    for name, value in given.items():
        rule = allowed[name]
        if isinstance(rule, tuple):
            if value not in rule:
                raise Rejected(f"bad_{name}", f"{name} must be one of {', '.join(rule)}", field=name)
        elif not re.fullmatch(rule.pattern, value):
            detail = f"{name} must be {rule.rule}; this has {len(value)} characters"
            raise Rejected(f"bad_{name}", detail, field=name)


def _explain(error: ErrorDetails, fields: list[str]) -> tuple[str, str]:
    """A field's path and a sentence. Only pydantic's own words and numbers are used: no part of what was sent but names."""
    steps = [str(step) for step in error["loc"] if step != "[key]"]
    first = [step if step in fields else _stranger(step) for step in steps[:1]]
    path = ".".join([*first, *map(_shown, steps[1:])])
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            rule = "is missing"
        case "extra_forbidden":
            rule = "is not a field here" + (f": {', '.join(fields)}" if len(error["loc"]) == 1 else "")
        case "string_type":
            rule = "must be text"
        case "string_unicode":
            rule = "must be text that UTF-8 can hold"
        case "dict_type" | "model_type" | "model_attributes_type":
            rule = "must be an object"
        case "list_type":
            rule = "must be a list"
        case "string_too_long":
            rule = f"may have {context['max_length']:,} characters"
        case "string_too_short":
            rule = f"must have at least {context['min_length']} characters"
        case "too_long":
            rule = f"may have {context['max_length']:,} entries; this has {context['actual_length'] or 'more'}"
        case "too_short":
            rule = f"must have at least {context['min_length']} entries"
        case "greater_than_equal":
            rule = f"must be {context['ge']} or more"
        case "less_than_equal":
            rule = f"may be {context['le']} at most"
        case "int_type" | "int_from_float" | "int_parsing":
            rule = "must be a whole number"
        case "bool_type" | "bool_parsing":
            rule = "must be true or false"
        case "literal_error":
            rule = f"must be {context['expected']}"
        case "rule":
            rule = error["msg"]
        case _:
            rule = "is not what is expected here"
    return path, f"{path} {rule}"


def _shown(name: str) -> str:
    """A name that came from outside, fit to be quoted."""
    return name if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) else _length(name)


def _stranger(name: str) -> str:
    """The name of a field that is not known. It may be a secret that slipped out of its place, and few of these are letters
    alone."""
    return name if re.fullmatch(r"[A-Za-z_]{1,40}", name) else _length(name)


def _length(name: str) -> str:
    return f"(a name of {len(name)} characters)"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, inner in pairs:
        if name in value:
            shown = _stranger(name)
            raise Rejected("bad_json", f"the field {shown} stands in the body twice", field=shown)
        value[name] = inner
    return value


def _no_constant(name: str) -> float:
    raise ValueError(name)
