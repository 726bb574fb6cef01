"""Request bodies of Adobe's Data Ingestion API: what callers send, checked as Adobe documents it.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from portaria.core.errors import Rejected
from portaria.platforms.marketo import destination
from portaria.platforms.marketo.ingestion import MAX_OBJECTS, is_blank

Object = dict[str, Any]

PRIORITIES = ("normal", "high")
MAX_KEY_LENGTH = 255
# The maximum depth of lists and objects in an attribute of a custom object or a company. A person's attributes have none.
MAX_DEPTH = 8
# Most programs, this project's workers among them, lose the precision of whole numbers beyond 64 bits.
LEAST_NUMBER, GREATEST_NUMBER = -(2**63), 2**64 - 1


class ObjectGroup(NamedTuple):
    """Objects that share a target's options. `key` makes the key by which receipts know an object."""

    options: dict[str, str]
    objects: list[Object]
    key: Callable[[Object], str]


class ParsedBody(NamedTuple):
    """The objects of a request and what its sender should know."""

    groups: list[ObjectGroup]
    priority: str = "normal"
    warnings: tuple[str, ...] = ()


def _persons(body: Object) -> ParsedBody:
    _only(body, "priority", "partitionName", "dedupeFields", "persons")
    objects = _objects(body, "persons", max_depth=0)
    fields, warnings = _dedupe_fields(body)
    options = {f"field{number}": name for number, name in enumerate(fields, 1)}
    if "partitionName" in body:
        options["partition"] = _text(body, "partitionName")
    return ParsedBody(
        [ObjectGroup(options, objects, lambda person: _key_of(person, fields))], _priority(body), warnings
    )


def _custom_objects(body: Object) -> ParsedBody:
    """Only Marketo knows which fields `dedupeFields` are. Without a GUID, equal objects have the same key."""
    _only(body, "priority", "dedupeBy", "customObjects")
    dedupe_by = _one_of(body, "dedupeBy", "dedupeFields", "marketoGUID")
    objects = _objects(body, "customObjects")
    fields = ("marketoGUID",) if dedupe_by == "marketoGUID" else ()
    return ParsedBody(
        [ObjectGroup({"dedupe_by": dedupe_by}, objects, lambda each: _key_of(each, fields))], _priority(body)
    )


def _companies(body: Object) -> ParsedBody:
    _only(body, "action", "dedupeBy", "input")
    action = _one_of(body, "action", "createOrUpdate", "createOnly", "updateOnly")
    dedupe_by = _one_of(body, "dedupeBy", "dedupeFields", "idField")
    if dedupe_by == "idField" and action != "updateOnly":
        raise invalid("dedupeBy may be idField only where action is updateOnly")
    return ParsedBody([ObjectGroup({"action": action, "dedupe_by": dedupe_by}, _objects(body, "input"), _company_key)])


def _program_members(body: Object) -> ParsedBody:
    return _programs(body, status_needed=True)


def _leaving_program_members(body: Object) -> ParsedBody:
    return _programs(body, status_needed=False)


def _programs(body: Object, *, status_needed: bool) -> ParsedBody:
    """The limit of objects applies to the members of all programs together."""
    _only(body, "programs")
    by_program: dict[tuple[str, str], list[Object]] = {}
    count = 0
    for number, program in enumerate(_list(body, "programs")):
        where = f"programs[{number}]"
        if not isinstance(program, dict):
            raise invalid(f"{where} must be an object")
        _only(program, "programId", "status", "members", where=where)
        program_id = _id(program, "programId", where)
        status = _text(program, "status", where) if status_needed or "status" in program else ""
        members = _list(program, "members", where)
        count += len(members)
        if count <= MAX_OBJECTS:
            by_program.setdefault((program_id, status), []).extend(_memberships(members, f"{where}.members"))
    _require_count(count, "the members of all programs")
    return ParsedBody(
        [
            ObjectGroup({"program_id": program_id} | ({"status": status} if status else {}), members, _lead_key)
            for (program_id, status), members in by_program.items()
        ]
    )


def _list_members(body: Object) -> ParsedBody:
    _only(body, "listId", "input")
    list_id = _id(body, "listId")
    members = _list(body, "input")
    _require_count(len(members), "input")
    return ParsedBody([ObjectGroup({"list_id": list_id}, _memberships(members, "input"), _lead_key)])


READERS: dict[str, Callable[[Object], ParsedBody]] = {
    "persons": _persons,
    "customobjects/{name}": _custom_objects,
    "companies": _companies,
    "programmembers": _program_members,
    "programmembers/delete": _leaving_program_members,
    "lists": _list_members,
    "lists/remove": _list_members,
}


# ----------------------------------------------------------------------------------------------------------- their members


def _dedupe_fields(body: Object) -> tuple[list[str], tuple[str, ...]]:
    """Return the attributes, and a warning for each that Adobe does not list. Its own example has one (firstName)."""
    given = body.get("dedupeFields", {"field1": "email"})
    if not isinstance(given, dict):
        raise invalid("dedupeFields must be an object with field1, and field2 if there are two attributes")
    _only(given, "field1", "field2", where="dedupeFields")
    fields = [_text(given, "field1", "dedupeFields")]
    if "field2" in given and _text(given, "field2", "dedupeFields") != fields[0]:
        fields.append(given["field2"])
    warnings = tuple(
        f"dedupeFields.field{number} is no attribute that Adobe lists for deduplication; it is sent on as it is"
        for number, name in enumerate(fields, 1)
        if name not in destination.DEDUPE_ATTRIBUTES["persons"]
    )
    return fields, warnings


def _priority(body: Object) -> str:
    return _one_of(body, "priority", *PRIORITIES)


def _one_of(body: Object, name: str, *allowed: str) -> str:
    """Return an optional member; the default is the first of the allowed values."""
    value = body.get(name, allowed[0])
    if not isinstance(value, str) or value not in allowed:
        raise invalid(f"{name} must be {' or '.join(allowed)}")
    return value


def _text(body: Object, name: str, where: str = "") -> str:
    place = f"{where}.{name}" if where else name
    if name not in body:
        raise invalid(f"{place} is missing")
    value = body[name]
    if not isinstance(value, str):
        raise invalid(f"{place} must be text")
    if not re.fullmatch(r"[^\x00-\x1f\x7f]{1,255}", value):
        raise invalid(f"{place} must have 1 to 255 characters, none a control; this has {len(value):,}")
    return value


def _id(body: Object, name: str, where: str = "") -> str:
    place = f"{where}.{name}" if where else name
    if name not in body:
        raise invalid(f"{place} is missing")
    if not _is_id(body[name]):
        raise invalid(f"{place} must be a whole number above 0")
    return str(body[name])


def _is_id(value: object) -> bool:
    return type(value) is int and 0 < value <= GREATEST_NUMBER


def _list(body: Object, name: str, where: str = "") -> list[Any]:
    place = f"{where}.{name}" if where else name
    if name not in body:
        raise invalid(f"{place} is missing")
    value = body[name]
    if not isinstance(value, list):
        raise invalid(f"{place} must be a list")
    if not value:
        raise invalid(f"{place} is empty: at least 1 is expected")
    return value


def _require_count(count: int, what: str) -> None:
    if count > MAX_OBJECTS:
        raise invalid(f"{what} may have {MAX_OBJECTS:,} objects in one request; this has {count:,}")


def _objects(body: Object, name: str, max_depth: int = MAX_DEPTH) -> list[Object]:
    """Return objects whose values can be stored and sent unchanged."""
    objects = _list(body, name)
    _require_count(len(objects), name)
    for number, each in enumerate(objects):
        if not isinstance(each, dict):
            raise _bad_data(f"{name}[{number}] must be an object")
        _check_values(each, f"{name}[{number}]", max_depth)
    return objects


def _check_values(value: Object | list[Any], where: str, max_depth: int) -> None:
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in members:
        kind = type(inner)
        if kind is str or kind is bool or inner is None:
            continue
        if kind is float:
            if not math.isfinite(inner):
                raise _bad_data(f"{_place(where, name)} is no number that JSON has")
        elif kind is int:
            if not LEAST_NUMBER <= inner <= GREATEST_NUMBER:
                raise _bad_data(f"{_place(where, name)} must fit into 64 bits, or be text")
        elif max_depth == 0:
            raise _bad_data(
                f"{_place(where, name)} must be text, a number, true, false or null, not a list or an object"
            )
        else:
            _check_values(inner, _place(where, name), max_depth - 1)


def _memberships(members: list[Any], where: str) -> list[Object]:
    for number, member in enumerate(members):
        if not isinstance(member, dict) or set(member) != {"leadId"} or not _is_id(member["leadId"]):
            raise _bad_data(
                f"{where}[{number}] must be an object with leadId, a whole number above 0, and nothing else"
            )
    return members


def _only(given: Object, *known: str, where: str = "the body") -> None:
    """Raise an error for unknown names. It does not repeat them, because one could be a misplaced secret."""
    if strangers := len(given.keys() - set(known)):
        raise invalid(f"{where} holds {strangers:,} unknown: only {', '.join(known)}")


def _place(where: str, name: str | int) -> str:
    if isinstance(name, int):
        return f"{where}[{name}]"
    return (
        f"{where}.{name}" if re.fullmatch(r"[A-Za-z_]{1,40}", name) else f"{where}.(a name of {len(name):,} characters)"
    )


# ------------------------------------------------------------------------------------------------------------------- keys


def _key_of(given: Object, fields: tuple[str, ...] | list[str]) -> str:
    """Return the record's key in receipts: the values that identify it at its destination, or a hash of the whole record."""
    values = [given.get(field) for field in fields]
    if not values or any(is_blank(value) for value in values):
        return _hash(json.dumps(given, sort_keys=True, separators=(",", ":")))
    texts = [_as_text(value, lower=field == "email") for field, value in zip(fields, values, strict=True)]
    if len(texts) > 1:
        # So that ("a|b", "c") and ("a", "b|c") have different keys.
        texts = [text.replace("\\", "\\\\").replace("|", "\\|") for text in texts]
    key = "|".join(texts)
    return key if len(key) <= MAX_KEY_LENGTH else _hash(key)


def _company_key(company: Object) -> str:
    """`id` is Marketo's number, which can be equal to another company's `externalCompanyId`."""
    if is_blank(company.get("externalCompanyId")) and not is_blank(company.get("id")):
        return f"id:{_key_of(company, ('id',))}"
    return _key_of(company, ("externalCompanyId",))


def _lead_key(member: Object) -> str:
    return str(member["leadId"])


def _as_text(value: object, *, lower: bool) -> str:
    text = value.strip() if isinstance(value, str) else json.dumps(value)
    return text.lower() if lower else text


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


# ------------------------------------------------------------------------------------------------------------------- JSON


def read_json(body: bytes) -> Object:
    """Return the body's object, without a byte order mark. Raises `Rejected` (`invalid_request`).

    `_check_values` refuses what Python reads although it is not JSON (NaN). https://www.rfc-editor.org/rfc/rfc8259#section-8.1
    """
    try:
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise invalid(f"the body is not JSON: line {error.lineno}, column {error.colno}: {error.msg.lower()}") from None
    except UnicodeDecodeError:
        raise invalid("the body must be JSON in UTF-8") from None
    except (ValueError, RecursionError):
        raise invalid("the body is no JSON that can be read here: it goes too deep, or a number is too long") from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> Object:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise invalid(f"an object of {len(pairs):,} members has {len(pairs) - len(value):,} of them twice")
    return value


def invalid(detail: str) -> Rejected:
    """The error for a request that is malformed as a whole."""
    return Rejected("invalid_request", detail)


def _bad_data(detail: str) -> Rejected:
    return Rejected("invalid_data", detail)
