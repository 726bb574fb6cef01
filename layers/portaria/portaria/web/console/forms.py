"""Forms for the API's operations, made from their input models, and reading them back into a JSON body.

Lists have one entry a line, objects one `name = value` a line. What cannot be read is an error beside its field; what the API
refuses comes back with the field's name, so both stand in the same place.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from email.errors import MessageError
from email.parser import BytesParser
from email.policy import HTTP
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel

from portaria.access import scopes
from portaria.core.errors import Rejected

Content = dict[str, Any]
Sent = dict[str, list[str]]

MAX_FORM_BYTES = 1_100_000
MAX_FIELDS = 500
TEXT, LINES, PAIRS, JSON_TEXT, NUMBER, CHECK, SELECT, PASSWORD, SCOPES, FILE = (
    "text", "lines", "pairs", "json", "number", "check", "select", "password", "scopes", "file",
)  # fmt: skip
LONG_TEXTS = {"description"}
CREDENTIALS = "credentials"
# A page of its own uploads it.
NOT_IN_FORMS = ("logo",)


@dataclass(frozen=True)
class FormField:
    """One input. `value` is its text, the chosen names for `SCOPES`, or whether it is checked for `CHECK`."""

    name: str
    kind: str
    label: str
    rule: str = ""
    is_required: bool = False
    choices: tuple[str, ...] = ()
    value: Any = ""
    error: str = ""
    is_long: bool = False


@dataclass
class Form:
    """`errors` that belong to no field of the form stand above it. `status` is that of a refused form's page; where it
    `is_unclear`, the action may have been done. Where it `is_stale`, the thing has changed since the form was opened: the
    person is told, and may send the form again.
    """

    fields: list[FormField]
    errors: list[str] = field(default_factory=list)
    status: int = 400
    is_unclear: bool = False
    is_stale: bool = False


class UnreadableForm(Exception):
    """`errors` has a sentence's key for each field that could not be read."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__("the form cannot be read")
        self.errors = errors


def parse(body: bytes | None, content_type: str = "") -> Sent:
    """A form's fields; a file is its content in base64. Raises `Rejected` (400 `bad_form`, 413 `form_too_large`)."""
    if body is None or len(body) > MAX_FORM_BYTES:
        raise Rejected("form_too_large", f"a form may have at most {MAX_FORM_BYTES:,} bytes", status=413)
    if content_type.strip().lower().startswith("multipart/form-data"):
        return _parse_parts(body, content_type)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise Rejected("bad_form", "the form is not URL-encoded, or has too many fields") from None
    sent: Sent = {}
    for name, value in pairs:
        sent.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return sent


def _parse_parts(body: bytes, content_type: str) -> Sent:
    """The fields of a form with files (RFC 7578). Raises `Rejected` (400 `bad_form`)."""
    sent: Sent = {}
    try:
        head = f"Content-Type: {content_type}\r\n\r\n".encode("ascii")
        message = BytesParser(policy=HTTP).parsebytes(head + body)
        parts = list(message.iter_parts())
        if not parts or len(parts) > MAX_FIELDS:
            raise ValueError
        for part in parts:
            content = part.get_payload(decode=True)
            name = part.get_param("name", header="content-disposition")
            if not isinstance(content, bytes) or not isinstance(name, str):
                raise ValueError
            is_file = part.get_filename() is not None
            text = b64encode(content).decode() if is_file else content.decode().replace("\r\n", "\n")
            sent.setdefault(name, []).append(text)
    except (ValueError, LookupError, MessageError, RecursionError):
        raise Rejected("bad_form", "the form's parts cannot be read") from None
    return sent


def rule_of(model: type[BaseModel] | None, name: str) -> str:
    """The rule of a model's field in words."""
    return str(_schema(model)["properties"][name].get("description", "")) if model else ""


def fields_of(
    model: type[BaseModel],
    values: Content,
    *,
    only: Sequence[str] = (),
    credentials: Iterable[str] = (),
    choices: dict[str, tuple[str, ...]] | None = None,
    required: Sequence[str] = (),
) -> list[FormField]:
    """The inputs for a model's fields, filled with `values`. `credentials` names those that a connection of this kind has."""
    schema = _schema(model)
    found = []
    for name, each in schema.get("properties", {}).items():
        if name in NOT_IN_FORMS or (only and name not in only):
            continue
        if name == CREDENTIALS:
            found += [FormField(f"{CREDENTIALS}.{inner}", PASSWORD, inner, is_required=True) for inner in credentials]
            continue
        given = (choices or {}).get(name) or _enumeration(schema, each)
        kind = SELECT if given else _kind(name, schema, each)
        value = values.get(name, each.get("default"))
        found.append(
            FormField(
                name,
                kind,
                name,
                rule=str(each.get("description") or _resolved(schema, each).get("description") or ""),
                is_required=name in schema.get("required", ()) or name in required,
                choices=given,
                value=show(kind, value),
                is_long=name in LONG_TEXTS,
            )
        )
    return found


def show(kind: str, value: Any) -> Any:
    """A value as the input of its kind shows it."""
    if kind == CHECK:
        return bool(value)
    if kind == SCOPES:
        return list(value or ())
    if value is None or kind == PASSWORD:
        return ""
    if kind == LINES:
        return "\n".join(map(str, value))
    if kind == PAIRS:
        return "\n".join(f"{name} = {text}" for name, text in value.items())
    if kind == JSON_TEXT:
        return json.dumps(value, indent=2, ensure_ascii=False) if value != "" else ""
    return str(value)


def with_sent(fields: list[FormField], sent: Sent, errors: dict[str, str] | None = None) -> list[FormField]:
    """The same inputs with what a person entered, passwords excepted, so that nothing is typed twice."""
    shown = []
    for each in fields:
        given = sent.get(each.name, [])
        value: Any = each.value
        if each.kind == SCOPES:
            value = _scopes(given)
        elif each.kind == CHECK:
            value = bool(given)
        elif each.kind in (PASSWORD, FILE):
            value = ""
        elif given:
            value = given[0]
        shown.append(with_changes(each, value=value, error=(errors or {}).get(each.name, "")))
    return shown


def body_of(fields: Iterable[FormField], sent: Sent, *, keep_empty: bool) -> Content:
    """The JSON body that a form asks for. An empty input is left out, or null where `keep_empty`: it empties the field.

    Raises `UnreadableForm`.
    """
    body: Content = {}
    errors: dict[str, str] = {}
    for each in fields:
        given = sent.get(each.name, [])
        text = given[0] if given else ""
        try:
            value = _read(each.kind, text, given)
        except ValueError as wrong:
            errors[each.name] = str(wrong)
            continue
        if value is None and keep_empty:
            value = {PAIRS: {}, LINES: []}.get(each.kind)
        name, _, inner = each.name.partition(".")
        if value is None and (each.kind == PASSWORD or not keep_empty):
            continue
        if inner:
            body.setdefault(name, {})[inner] = value
        else:
            body[name] = value
    if errors:
        raise UnreadableForm(errors)
    return body


def _read(kind: str, text: str, given: list[str]) -> Any:
    """The value of an input, None where it is empty. Raises `ValueError` with the key of a sentence."""
    if kind == CHECK:
        return bool(given)
    if kind == SCOPES:
        return _scopes(given)
    if kind == LINES:
        return [line.strip() for line in text.split("\n") if line.strip()] or None
    if kind == PAIRS:
        pairs: dict[str, str] = {}
        for line in filter(str.strip, text.split("\n")):
            name, equals, value = line.partition("=")
            if not equals:
                raise ValueError("form.pairs_expected")
            if name.strip() in pairs:
                raise ValueError("form.pair_repeated")
            pairs[name.strip()] = value.strip()
        return pairs or None
    if not text.strip():
        return None
    if kind == NUMBER:
        try:
            return int(text)
        except ValueError:
            raise ValueError("form.number_expected") from None
    if kind == JSON_TEXT:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("form.json_expected") from None
    return text.strip() if kind != PASSWORD else text


def _scopes(given: list[str]) -> list[str]:
    """The chosen scopes, and those that were typed with spaces between them."""
    return list(dict.fromkeys(name for each in given for name in each.split()))


@cache
def _schema(model: type[BaseModel]) -> Content:
    return model.model_json_schema()


def _kind(name: str, schema: Content, each: Content) -> str:
    if "secret" in name:
        return PASSWORD
    if name == "scopes" and "array" in _types(schema, each):
        return SCOPES
    types = _types(schema, each)
    if "array" in types:
        return LINES
    if "object" in types:
        return PAIRS
    if "boolean" in types:
        return CHECK
    if "integer" in types:
        return NUMBER
    return TEXT if "string" in types else JSON_TEXT


def _types(schema: Content, each: Content) -> set[str]:
    each = _resolved(schema, each)
    several = [_resolved(schema, one) for one in each.get("anyOf", [each])]
    return {str(one["type"]) for one in several if "type" in one}


def _enumeration(schema: Content, each: Content) -> tuple[str, ...]:
    each = _resolved(schema, each)
    several = [_resolved(schema, one) for one in each.get("anyOf", [each])]
    return tuple(str(value) for one in several for value in one.get("enum", ()))


def _resolved(schema: Content, each: Content) -> Content:
    reference = str(each.get("$ref", ""))
    found: Content = schema["$defs"][reference.rpartition("/")[2]] if reference else each
    return found


def scope_groups() -> list[tuple[str, list[tuple[str, str]]]]:
    """The scopes by their resource, each with its description, for a form's check boxes."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, text in scopes.SCOPES.items():
        groups.setdefault(name.partition(":")[0], []).append((name, text))
    return list(groups.items())
