"""The shape of request bodies. Each reader returns the objects of a valid body, and None for any other body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

PRIORITIES = ("high", "normal")

Objects = list[dict[str, Any]]
Reader = Callable[[Any], Objects | None]


def shape(items: str, members: Mapping[str, Callable[[Any], bool]]) -> Reader:
    """The reader of bodies with a list `items` of objects and no members beside it except `members`, each with its check."""

    def read(document: Any) -> Objects | None:
        if not isinstance(document, dict) or not document.keys() <= {items, *members}:
            return None
        found = document.get(items)
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            return None
        return found if all(fits(document.get(name)) for name, fits in members.items()) else None

    return read


def one_of(*allowed: str) -> Callable[[Any], bool]:
    """The check of an optional member with one of these values."""
    return lambda value: value is None or value in allowed


def is_text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and bool(value))


def is_number(value: Any) -> bool:
    return type(value) is int and value > 0


def are_dedupe_fields(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and "field1" in value
        and value.keys() <= {"field1", "field2"}
        and all(isinstance(name, str) and name for name in value.values())
    )


PRIORITY = {"priority": one_of(*PRIORITIES)}
read_persons = shape("persons", {**PRIORITY, "partitionName": is_text, "dedupeFields": are_dedupe_fields})
read_custom_objects = shape("customObjects", {**PRIORITY, "dedupeBy": one_of("dedupeFields", "marketoGUID")})
read_list_members = shape("input", {"listId": is_number})


def read_companies(document: Any) -> Objects | None:
    actions = ("createOnly", "updateOnly", "createOrUpdate")
    members = {"action": one_of(*actions), "dedupeBy": one_of("dedupeFields", "idField")}
    found = shape("input", members)(document)
    if found is not None and document.get("dedupeBy") == "idField" and document.get("action") != "updateOnly":
        return None
    return found


def program_members(*, status_needed: bool) -> Reader:
    def read(document: Any) -> Objects | None:
        programs = shape("programs", {})(document)
        found: Objects = []
        for program in programs or ():
            members = shape("members", {"programId": is_number, "status": is_text})(program)
            if members is None or (status_needed and not program.get("status")):
                return None
            found += members
        return None if programs is None else found

    return read
