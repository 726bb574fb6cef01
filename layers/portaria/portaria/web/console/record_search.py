"""Finding what became of records: receipts and dead letters by receipt, request, correlation id, or destination and key."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from portaria.api.validation import Matching
from portaria.web.console import forms, pages
from portaria.web.console.api_calls import Problem
from portaria.web.console.forms import FormField
from portaria.web.console.sections import BY_NAME, Section
from portaria.web.console.visit import Outcome, Visit

Content = dict[str, Any]
RECEIPTS, LETTERS = BY_NAME["receipts"], BY_NAME["dead-letters"]
RECEIPT = "receipt"
FIELDS = (RECEIPT, "request", "correlation_id", "destination", "record")
SIZE = 25


def show(visit: Visit) -> Outcome:
    """What the session may not see is left out."""
    asked = {name: visit.query[name].strip() for name in FIELDS if visit.query.get(name, "").strip()}
    problems: list[str] = []
    parts = {
        "receipts": _found(RECEIPTS, _receipts(visit, asked, problems)),
        "dead_letters": _found(LETTERS, _letters(visit, asked, problems)),
    }
    body = pages.render(
        "search.html",
        visit.frame,
        fields=[_field(name, asked.get(name, "")) for name in FIELDS],
        is_asked=bool(asked),
        found=parts,
        problems=list(dict.fromkeys(problems)),
    )
    return Outcome(body)


def _field(name: str, value: str) -> FormField:
    rule = RECEIPTS.api.filters.get(name)
    return FormField(name, forms.TEXT, name, rule=rule.rule if isinstance(rule, Matching) else "", value=value)


def _found(section: Section, answer: Content) -> Content:
    return {"section": section, "rows": answer.get("items", []), "more": answer.get("more", "")}


def _receipts(visit: Visit, asked: Content, problems: list[str]) -> Content:
    """Receipts name their record only together with the destination."""
    if RECEIPT in asked:
        one = _call(visit, RECEIPTS.show_operation, {"id": asked[RECEIPT]}, {}, problems)
        return {"items": [one]} if one else {}
    query = {name: text for name, text in asked.items() if name != "record" or "destination" in asked}
    return _call(visit, RECEIPTS.list_operation, {}, query, problems) if query else {}


def _letters(visit: Visit, asked: Content, problems: list[str]) -> Content:
    """Dead letters keep the id of a program's request, but cannot be listed by it."""
    if RECEIPT in asked:
        return {}
    names = {"destination": "connection", "record": "record"}
    query = {names[name]: text for name, text in asked.items() if name in names}
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
