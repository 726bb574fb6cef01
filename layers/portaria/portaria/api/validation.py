"""Reading what a caller sent: size, JSON, fields and listing parameters. Every refusal names the field, never a value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, NamedTuple, TypeVar

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

from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected

# Holds the largest route (200 attributes of 1,000 characters) and stays below the 400 kB of a DynamoDB item.
MAX_BODY_BYTES = 300_000
MAX_ERRORS = 20
_Model = TypeVar("_Model", bound="Input")
_Checked = TypeVar("_Checked")
# The member of a JSON schema that holds a pattern's rule in words. `openapi.schemas` makes it a part of the description.
RULE = "x-rule"


class Fault(NamedTuple):
    """A wrong field and a sentence about it. `steps` lead to the field in the body, where `field` does not say it; `of_name`
    is whether it is the field's name that is wrong, and `meant` the name that it probably stands for. `reason` is set where
    programs must be able to tell this fault from others."""

    field: str
    detail: str
    steps: tuple[str | int, ...] = ()
    of_name: bool = False
    meant: str = ""
    reason: str = ""


class InvalidInput(Rejected):
    """Several fields may be wrong at once: `errors` holds each of them; the first is also the text.

    A fault with a reason of its own comes first and gives the refusal its reason.
    """

    def __init__(
        self, errors: Sequence[tuple[str, str] | Fault], reason: str = "invalid_input", status: int = 400
    ) -> None:
        self.errors = sorted((Fault(*error) for error in errors), key=lambda fault: not fault.reason)
        super().__init__(
            self.errors[0].reason or reason, self.errors[0].detail, field=self.errors[0].field or None, status=status
        )


class Refusals:
    """Collects the refusals of several checks, so that the caller learns of all of them at once."""

    def __init__(self) -> None:
        self.found: list[Rejected] = []

    def of(self, check: Callable[[], _Checked]) -> _Checked | None:
        """What the check returns; None where it refuses, or where it returns None."""
        try:
            return check()
        except Rejected as refused:
            self.found.append(refused)
            return None

    def together(self) -> Rejected:
        """All refusals in one: it has their reason and status where they share these, or else those of `InvalidInput`."""
        if len(self.found) == 1:
            return self.found[0]
        errors = [fault for refused in self.found for fault in faults_of(refused)]
        reasons = {(refused.reason, refused.status) for refused in self.found}
        return InvalidInput(errors, *reasons.pop()) if len(reasons) == 1 else InvalidInput(errors)


def faults_of(refused: Rejected) -> list[Fault]:
    """The fields that a refusal is about."""
    return refused.errors if isinstance(refused, InvalidInput) else [Fault(refused.field or "", refused.detail)]


class Input(BaseModel):
    """A body's fields. Types are strict (the number 1 is not the text "1") and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, defer_build=True)


@dataclass(frozen=True)
class Matching:
    """A text that matches a pattern whole; `rule` says in words what is allowed. Stands in `Annotated[str, …]`."""

    pattern: str
    rule: str

    def __call__(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise PydanticCustomError(
                "rule", "must be {rule}; this one has {length} characters", {"rule": self.rule, "length": len(text)}
            )
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"pattern": f"^(?:{self.pattern})$", RULE: self.rule}


# What an OAuth client asks for, separated as the platform expects it.
Scopes = Annotated[str, Matching(r"[\x20-\x7e]{0,1000}", "at most 1,000 printable ASCII characters")]


MASKED_SECRET = "masked_secret"  # noqa: S105 - a reason
MASK_RULE = "is a mask, not a secret: send the secret itself, or leave the field out if it may be left out"
# What people copy from a page or a log in place of a secret.
_MASK = re.compile(r"\*{3,}")


class MaskedSecret(ValueError):
    """What came in place of a secret is a mask such as `*****`."""


def _refuse_mask(text: str) -> None:
    """Raises `MaskedSecret`."""
    if _MASK.fullmatch(text.strip()):
        raise MaskedSecret(MASK_RULE)


def _read_secret(value: object) -> Secret:
    if not isinstance(value, str):
        raise PydanticCustomError("rule", "must be text")
    try:
        _refuse_mask(value)
    except MaskedSecret:
        raise PydanticCustomError(MASKED_SECRET, MASK_RULE) from None
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", value):
        raise PydanticCustomError(
            "rule",
            "must be 1 to 4,096 printable ASCII characters without spaces or line breaks; this one has {length}",
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
    ("basic", "username"): (rf"{_NO_COLON}{{0,1000}}", "at most 1,000 characters without colons or control characters"),
    ("basic", "password"): (rf"{_TEXT}{{0,1000}}", "at most 1,000 characters without control characters"),
    ("password", "username"): (rf"{_TEXT}{{1,1000}}", "1 to 1,000 characters without control characters"),
    ("password", "password"): (rf"{_TEXT}{{1,1000}}", "1 to 1,000 characters without control characters"),
    ("api_key", "key"): (
        r"[\x21-\x7e]([\x20-\x7e]{0,4094}[\x21-\x7e])?",
        "1 to 4,096 printable ASCII characters without a space at the beginning or end",
    ),
}
MOMENT = Matching(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", "a time in UTC that ends with Z"
)


def read_moment(text: str, field: str) -> datetime:
    """A time that matches `MOMENT`. Raises `Rejected` (`bad_since` for the field `since`)."""
    try:
        return clock.from_iso(text)
    except ValueError:
        detail = f"{field} must be a time such as 2026-01-31T23:59:59Z"
        raise Rejected(f"bad_{field}", detail, field=field) from None


def is_name(text: str) -> bool:
    """Whether a text could be a resource's name, and so may be repeated in an answer."""
    return bool(re.fullmatch(NAME, text))


def hide(value: Any) -> Any:
    """Text as a `Secret`, anything else as it is."""
    return Secret(value) if isinstance(value, str) else value


def read_credential(kind: str, name: str, value: object) -> Secret:
    """A credential that `hide` has wrapped. Raises `ValueError` with the rule in words, and no part of the value; it is a
    `MaskedSecret` for a mask."""
    if not isinstance(value, Secret):
        raise ValueError("must be text")
    text = value.reveal()
    _refuse_mask(text)
    if (kind, name) not in _CREDENTIAL_RULES:
        # White space around a token is none of it: it comes with copying it from a page.
        return _read_secret(text.strip() if name == "token" else text)
    pattern, rule = _CREDENTIAL_RULES[kind, name]
    if not re.fullmatch(pattern, text):
        raise ValueError(f"must be {rule}; this one has {len(text)}")
    return value


def read_body(raw: bytes | None, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The JSON object of a request's body. Raises `Rejected`, 413 where it is too large."""
    if raw is None:
        raise Rejected("bad_json", "the body must be JSON in UTF-8")
    try:
        # A byte order mark is none of the JSON: some programs write one. https://www.rfc-editor.org/rfc/rfc8259#section-8.1
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Rejected("bad_json", "the body must be JSON in UTF-8") from None
    if len(raw) > max_bytes:
        raise Rejected(
            "body_too_large", f"the body may have at most {max_bytes:,} bytes; this one has {len(raw):,}", status=413
        )
    if not text.strip():
        raise Rejected("bad_json", "the body is missing: send a JSON object")
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Rejected(
            "bad_json", f"the body is not JSON: line {error.lineno}, column {error.colno}: {error.msg.lower()}"
        ) from None
    except (ValueError, RecursionError):
        raise Rejected("bad_json", "the body is not JSON, or is nested too deeply") from None
    if not isinstance(value, dict):
        raise Rejected("bad_json", "the body must be a JSON object")
    return value


def parse(model: type[_Model], body: dict[str, Any]) -> _Model:
    """Raises `InvalidInput`, which names every wrong field, up to 20."""
    read, faults = check(model, body)
    if read is None:
        raise InvalidInput(faults[:MAX_ERRORS])
    return read


def check(model: type[_Model], body: dict[str, Any]) -> tuple[_Model | None, list[Fault]]:
    """The body as the model reads it, or None and every fault of it."""
    try:
        return model.model_validate(body), []
    except ValidationError as invalid:
        fields = [field.alias or name for name, field in model.model_fields.items()]
        errors = invalid.errors(include_url=False, include_input=False)
        return None, [_explain(error, fields) for error in errors]


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of `names` that `name` is probably a misspelling of, or an empty text."""
    from difflib import get_close_matches  # noqa: PLC0415 - for a wrong name only

    return next(iter(get_close_matches(name, names, n=1, cutoff=0.65)), "")


def _explain(error: ErrorDetails, fields: list[str]) -> Fault:
    """A field's path and a sentence. Only pydantic's own words and numbers are used: no part of what was sent but names."""
    steps = [str(step) for step in error["loc"] if step != "[key]"]
    first = [step if step in fields else unknown_name(step) for step in steps[:1]]
    path = ".".join([*first, *map(_shown, steps[1:])])
    context = error.get("ctx", {})
    meant = ""
    match error["type"]:
        case "missing":
            rule = "is missing"
        case "extra_forbidden":
            rule = "is not a known field"
            if len(error["loc"]) == 1:
                meant = nearest(steps[0], fields)
                rule += f": did you mean {meant}?" if meant else f": {', '.join(fields)}"
        case "string_type":
            rule = "must be text"
        case "string_unicode":
            rule = "must be valid Unicode text"
        case "dict_type" | "model_type" | "model_attributes_type":
            rule = "must be an object"
        case "list_type":
            rule = "must be a list"
        case "string_too_long":
            rule = f"may have at most {context['max_length']:,} characters"
        case "string_too_short":
            rule = f"must have at least {context['min_length']} characters"
        case "too_long":
            rule = (
                f"may have at most {context['max_length']:,} entries; this one has {context['actual_length'] or 'more'}"
            )
        case "too_short":
            rule = f"must have at least {context['min_length']} entries"
        case "greater_than_equal":
            rule = f"must be at least {context['ge']}"
        case "less_than_equal":
            rule = f"must be at most {context['le']}"
        case "int_type" | "int_from_float" | "int_parsing":
            rule = "must be a whole number"
        case "bool_type" | "bool_parsing":
            rule = "must be true or false"
        case "literal_error":
            rule = f"must be {context['expected']}"
        case "rule" | "masked_secret":
            rule = error["msg"]
        case _:
            rule = "has a value of the wrong type"
    of_name = error["type"] == "extra_forbidden" or "[key]" in error["loc"]
    placed = tuple(step for step in error["loc"] if step != "[key]")
    reason = MASKED_SECRET if error["type"] == MASKED_SECRET else ""
    return Fault(path, f"{path or 'the body'} {rule}", placed, of_name, meant, reason)


def _shown(name: str) -> str:
    """A name that came from outside, fit to be quoted."""
    return name if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) else _length(name)


def unknown_name(name: str) -> str:
    """The name of a field that is not known. It may be a secret that slipped out of its place, and few of these are letters
    alone."""
    return name if re.fullmatch(r"[A-Za-z_]{1,40}", name) else _length(name)


def _length(name: str) -> str:
    return f"(a name of {len(name)} characters)"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, inner in pairs:
        if name in value:
            shown = unknown_name(name)
            raise Rejected("bad_json", f"the field {shown} occurs twice in the body", field=shown)
        value[name] = inner
    return value


def _no_constant(name: str) -> float:
    raise ValueError(name)
