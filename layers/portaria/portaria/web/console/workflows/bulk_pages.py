"""Actions on everything that matches a filter: a dry run first, then a confirmation, then the outcome of each.

One step handles at most a hundred. The page after a step says how many there were so far and continues with the next ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from portaria.web.console import forms, pages
from portaria.web.console.forms import Form, FormField
from portaria.web.console.resource_pages import new_key, path_of, send, unknown_page
from portaria.web.console.sections import Action, Section
from portaria.web.console.visit import Outcome, Visit

Content = dict[str, Any]
STEP_FIELD, CONFIRM, CURSOR_FIELD, IDS_FIELD = "step", "confirm", "next_cursor", "ids"
LISTS = ("letters", "not_deleted")
COUNTS = ("dead_letter_count", "record_count", "delivery_count")
# A hidden field for each count of the steps before.
BEFORE = "before_"


@dataclass(frozen=True)
class _Task:
    """What is done: an action on everything in a section, or on what belongs to the thing at `names`."""

    section: Section
    action: Action
    names: list[str]

    @property
    def back(self) -> str:
        return "/".join([self.section.name, *(quote(name, safe="") for name in self.names)])


def show(visit: Visit, section: Section, action: Action, names: list[str] | None = None) -> Outcome:
    """Raises `Rejected`."""
    task, operation = _Task(section, action, names or []), action.api
    if operation.input is None:
        raise unknown_page()
    ids = visit.sent.get(IDS_FIELD, [])
    fields = forms.fields_of(operation.input, dict(visit.query), only=action.fields)
    if not visit.is_post or visit.sent_one(STEP_FIELD) == "change":
        return _page(visit, task, Form(forms.with_sent(fields, visit.sent) if visit.is_post else fields))
    is_confirmed = visit.sent_one(STEP_FIELD) == CONFIRM
    chosen: Content = {"dry_run": not is_confirmed}
    if ids:
        chosen["ids"] = ids
    if visit.sent_one(CURSOR_FIELD):
        chosen["cursor"] = visit.sent_one(CURSOR_FIELD)
    outcome = send(visit, operation, path_of(operation, task.names), [] if ids else fields, chosen=chosen)
    if isinstance(outcome, Form):
        if is_confirmed and outcome.is_unclear:
            # Everything that the page before had is kept: sending it again continues at the same place with the same key.
            return _page(visit, task, _kept(outcome, fields, visit), {"more": True}, failed=outcome, is_done=True)
        return _page(visit, task, _kept(outcome, fields, visit), status=outcome.status)
    return _page(visit, task, Form(forms.with_sent(fields, visit.sent)), outcome.content, is_done=is_confirmed)


def of_selection(visit: Visit, section: Section) -> Outcome:
    """The first step for what was selected in a list: the button names the action. Raises `Rejected`."""
    for action in section.bulk:
        if visit.sent_one("do") == action.name:
            return show(visit, section, action)
    if visit.is_post:
        raise unknown_page()
    return Outcome(redirect=section.name)


def _kept(outcome: Form, fields: list[FormField], visit: Visit) -> Form:
    """The refused form; one that was made of ids has the fields again."""
    return outcome if outcome.fields else Form(forms.with_sent(fields, visit.sent), outcome.errors, outcome.status)


def _page(
    visit: Visit,
    task: _Task,
    form: Form,
    answer: Content | None = None,
    *,
    is_done: bool = False,
    status: int = 200,
    failed: Form | None = None,
) -> Outcome:
    answer = answer or {}
    rows = [row for name in LISTS for row in answer.get(name, [])]
    counts = _counts(answer)
    before = {name: _number(visit.sent_one(BEFORE + name)) for name in counts} if is_done else {}
    total = {name: count + before.get(name, 0) for name, count in counts.items()}
    more = bool(answer.get("more"))
    body = pages.render(
        "bulk.html",
        visit.frame,
        section=task.section,
        action=task.action,
        back=task.back,
        title="/".join(task.names),
        form=form,
        shown={each.name: each.value for each in form.fields if each.value},
        hidden=_hidden(
            visit, form.fields, {BEFORE + name: str(count) for name, count in total.items()} if is_done else {}
        ),
        answered=bool(answer),
        failed=failed,
        is_done=is_done,
        counts=total,
        rows=rows,
        found=bool(rows or any(counts.values()) or more),
        cursor=visit.sent_one(CURSOR_FIELD) if failed or not is_done else (answer.get("next_cursor") or ""),
        more=more,
        key=visit.sent_one("idempotency_key") if failed else new_key(),
    )
    return Outcome(body, status=failed.status if failed else status)


def _counts(answer: Content) -> dict[str, int]:
    """The counts of one step. The outcomes of a redrive are counted here."""
    if "letters" in answer:
        letters = answer["letters"]
        return {"dead_letter_count": len(letters), "record_count": sum(each["record_count"] for each in letters)}
    return {name: int(answer[name]) for name in COUNTS if name in answer}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _hidden(visit: Visit, fields: list[FormField], more: dict[str, str]) -> list[tuple[str, str]]:
    """What the next step needs: the filter or the ids, and the counts so far."""
    ids = visit.sent.get(IDS_FIELD, [])
    chosen = [(IDS_FIELD, each) for each in ids] or [(each.name, each.value) for each in fields if each.value]
    return [*chosen, *more.items()]
