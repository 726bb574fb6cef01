"""Actions on everything that matches a filter: a dry run first, then a confirmation, then the outcome of each."""

from __future__ import annotations

from typing import Any

from portaria.web.console import forms, pages
from portaria.web.console.forms import Form, FormField
from portaria.web.console.resource_pages import new_key, send, unknown_page
from portaria.web.console.sections import Action, Section
from portaria.web.console.visit import Outcome, Visit

Content = dict[str, Any]
STEP_FIELD, CONFIRM, CURSOR_FIELD = "step", "confirm", "next_cursor"
LISTS = ("letters", "not_deleted")


def show(visit: Visit, section: Section, action: Action) -> Outcome:
    """Raises `Rejected`."""
    operation = action.api
    if operation.input is None:
        raise unknown_page()
    fields = forms.fields_of(operation.input, dict(visit.query), only=action.fields)
    if not visit.is_post or visit.sent_one(STEP_FIELD) == "change":
        return _page(visit, section, action, Form(forms.with_sent(fields, visit.sent) if visit.is_post else fields))
    is_confirmed = visit.sent_one(STEP_FIELD) == CONFIRM
    chosen: Content = {"dry_run": not is_confirmed}
    if visit.sent_one(CURSOR_FIELD):
        chosen["cursor"] = visit.sent_one(CURSOR_FIELD)
    outcome = send(visit, operation, {}, fields, chosen=chosen)
    if isinstance(outcome, Form):
        return _page(visit, section, action, outcome, status=outcome.status)
    return _page(
        visit, section, action, Form(forms.with_sent(fields, visit.sent)), outcome.content, is_done=is_confirmed
    )


def _page(
    visit: Visit,
    section: Section,
    action: Action,
    form: Form,
    answer: Content | None = None,
    *,
    is_done: bool = False,
    status: int = 200,
) -> Outcome:
    answer = answer or {}
    rows = [row for name in LISTS for row in answer.get(name, [])]
    letters = answer.get("letters", [])
    counts = {
        "dead_letter_count": answer.get("dead_letter_count", len(letters)),
        "record_count": answer.get("record_count", sum(each["record_count"] for each in letters)),
    }
    body = pages.render(
        "bulk.html",
        visit.frame,
        section=section,
        action=action,
        form=form,
        hidden=_hidden(form.fields),
        answered=bool(answer),
        is_done=is_done,
        counts=counts,
        rows=rows,
        found=bool(rows or any(counts.values()) or answer.get("more")),
        cursor=(answer.get("next_cursor") or "") if is_done else visit.sent_one(CURSOR_FIELD),
        more=bool(answer.get("more")),
        key=new_key(),
    )
    return Outcome(body, status=status)


def _hidden(fields: list[FormField]) -> dict[str, str]:
    return {each.name: each.value for each in fields if each.value}
