"""Finding what became of records, by the ids that people have at hand: receipts, dead letters, and one time line of both."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from portaria.api.validation import Matching
from portaria.web.console import forms, pages
from portaria.web.console.api_calls import Problem
from portaria.web.console.forms import FormField
from portaria.web.console.sections import BY_NAME, Section
from portaria.web.console.timelines import records
from portaria.web.console.visit import Outcome, Visit

Content = dict[str, Any]
RECEIPTS, LETTERS = BY_NAME["receipts"], BY_NAME["dead-letters"]
RECEIPT, SOURCE, KEY, RECORD, EMAIL, DESTINATION = "receipt", "source", "key", "record", "email", "destination"
FIELDS = (SOURCE, KEY, EMAIL, "request", RECEIPT, "correlation_id", DESTINATION)
SIZE = 25
# A record is searched for at the destinations of at most this many routes, where none is given.
MAX_DESTINATIONS, MAX_ROUTES = 5, 100


def show(visit: Visit) -> Outcome:
    """What the session may not see is left out."""
    asked = _asked(visit)
    problems: list[str] = []
    receipts, letters = _receipts(visit, asked, problems), _letters(visit, asked, problems)
    parts = {"receipts": _found(RECEIPTS, receipts), "dead_letters": _found(LETTERS, letters)}
    is_about_records = bool(asked.keys() - {DESTINATION})
    body = pages.render(
        "search.html",
        visit.frame,
        fields=[_field(name, asked.get(name, "")) for name in FIELDS],
        is_asked=bool(asked),
        found=parts,
        steps=records.together(visit, parts["receipts"]["rows"], parts["dead_letters"]["rows"])
        if is_about_records
        else [],
        problems=list(dict.fromkeys(problems)),
    )
    return Outcome(body)


def _asked(visit: Visit) -> dict[str, str]:
    """What was entered. `record` (`SOURCE/KEY`, as the API has it) stands for both of its parts."""
    given = {name: visit.query[name].strip() for name in (*FIELDS, RECORD) if visit.query.get(name, "").strip()}
    record = given.pop(RECORD, "")
    if record:
        given[SOURCE], _, given[KEY] = record.partition("/")
    return {name: text for name, text in given.items() if text}


def _field(name: str, value: str) -> FormField:
    rule = RECEIPTS.api.filters.get(name)
    return FormField(name, forms.TEXT, name, rule=rule.rule if isinstance(rule, Matching) else "", value=value)


def _found(section: Section, answer: Content) -> Content:
    return {"section": section, "rows": answer.get("items", []), "more": answer.get("more", "")}


def _record(asked: Content) -> str:
    return f"{asked[SOURCE]}/{asked[KEY]}" if SOURCE in asked and KEY in asked else ""


def _receipts(visit: Visit, asked: Content, problems: list[str]) -> Content:
    """Receipts name their record, or its e-mail address, only together with a destination."""
    if RECEIPT in asked:
        one = _call(visit, RECEIPTS.show_operation, {"id": asked[RECEIPT]}, {}, problems)
        return {"items": [one]} if one else {}
    query = {name: asked[name] for name in ("request", "correlation_id", DESTINATION, EMAIL) if name in asked}
    if _record(asked):
        query[RECORD] = _record(asked)
    if not query:
        return {}
    if DESTINATION in query or not (RECORD in query or EMAIL in query):
        return _call(visit, RECEIPTS.list_operation, {}, query, problems)
    if "request" in query or "correlation_id" in query:
        return _call(visit, RECEIPTS.list_operation, {}, query, problems)
    rows: list[Content] = []
    for destination in _destinations(visit, asked.get(SOURCE, "")):
        found = _call(visit, RECEIPTS.list_operation, {}, query | {DESTINATION: destination}, problems)
        rows += found.get("items", [])
    return {"items": sorted(rows, key=lambda row: str(row["sent_at"]), reverse=True)[:SIZE]}


def _destinations(visit: Visit, source: str) -> list[str]:
    """Where the routes of a source lead; without one, or for the accounts of a client, where any route leads."""
    if not visit.api.allows("list_routes"):
        return []
    routes = visit.api.call("list_routes", query={"limit": str(MAX_ROUTES)}).content["items"]
    own = [each for each in routes if each["source"] in (f"connection:{source}", "")] if source else []
    others = [each for each in routes if each not in own and (not own or each["source"].startswith("client:"))]
    return list(dict.fromkeys(each["destination"] for each in (*own, *others)))[:MAX_DESTINATIONS]


def _letters(visit: Visit, asked: Content, problems: list[str]) -> Content:
    """Dead letters do not keep receipts and correlation ids."""
    if RECEIPT in asked:
        return {}
    query = {name: asked[name] for name in (EMAIL, "request") if name in asked}
    if DESTINATION in asked:
        query["connection"] = asked[DESTINATION]
    elif SOURCE in asked and KEY not in asked:
        query["connection"] = asked[SOURCE]
    if _record(asked):
        query[RECORD] = _record(asked)
    return _call(visit, LETTERS.list_operation, {}, query, problems) if query else {}


def _call(visit: Visit, operation: str, path: dict[str, str], query: dict[str, str], problems: list[str]) -> Content:
    if not visit.api.allows(operation, path):
        return {}
    try:
        found = visit.api.call(operation, path, query=query | ({} if path else {"limit": str(SIZE)})).content
    except Problem as problem:
        problems.append(problem.detail)
        return {}
    return {**found, "more": "?" + urlencode(query) if found.get("next_cursor") else ""}
