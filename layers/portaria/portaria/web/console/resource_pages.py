"""The pages that every section has: its listing, one thing, the form that creates one, and what can be done with it."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote, urlencode

from portaria.api.operation import Operation
from portaria.api.validation import Matching
from portaria.core.errors import ChangedMeanwhile, Rejected, Retryable
from portaria.web.console import forms, pages, thing_parts
from portaria.web.console.api_calls import Answer, Problem
from portaria.web.console.forms import Form, FormField, UnreadableForm
from portaria.web.console.sections import BY_ID, BY_NAME, Action, Related, Section
from portaria.web.console.visit import Outcome, Visit
from portaria.web.console.workflows import letter_counts

Content = dict[str, Any]
PAGE_SIZE, RELATED_SIZE = 50, 5
NEW = "new"
KEY_FIELD, ETAG_FIELD = "idempotency_key", "etag"
# After these the action may have been done. The form keeps its idempotency key, so that sending it again does it once.
UNAVAILABLE = 503
UNCLEAR_STATUSES = (500, UNAVAILABLE, 504)
# Values of an answer that are returned once.
ONCE = ("token", "url", "key", "secret", "header_value")
# Fields whose empty input empties them. Elsewhere an empty input is left out, so that a default applies.
EMPTIES = ("edit_private_integration", "replace_tags")


def show(visit: Visit, section: Section, steps: list[str]) -> Outcome:
    """Raises `Problem` and `Rejected`."""
    if len(steps) == len(section.api.parameters):
        return _list(visit, section, steps)
    if steps == [NEW] and section.create:
        return _create(visit, section)
    size = len(section.id_fields)
    names, rest = steps[:size], steps[size:]
    if len(names) < size or len(rest) > 1:
        raise unknown_page()
    if not rest:
        return _thing(visit, section, names)
    for action in section.actions:
        if action.name == rest[0]:
            return _act(visit, section, action, names)
    raise unknown_page()


def _list(visit: Visit, section: Section, names: list[str]) -> Outcome:
    operation = section.api
    filters = {name: visit.query[name] for name in operation.filters if name in visit.query}
    query = {**filters, "limit": str(PAGE_SIZE), "cursor": visit.query.get("cursor", "")}
    try:
        found, problem = visit.api.call(section.list_operation, path_of(operation, names), query=query).content, None
    except Problem as refused:
        # A filter that the API refuses is shown above the list, with what was entered.
        found, problem = {"items": [], "next_cursor": None}, refused
    following = ""
    if found.get("next_cursor"):
        following = "?" + urlencode({**filters, "cursor": found["next_cursor"]})
    bulk = [action for action in section.bulk if visit.api.allows(action.operation)]
    counted: Content = {}
    if section.has_counts and "cursor" not in visit.query and not problem:
        counted = letter_counts.count(visit, filters) | {"columns": letter_counts.COLUMNS}
    body = pages.render(
        "list.html",
        visit.frame,
        section=section,
        here="/".join([section.name, *(quote(name, safe="") for name in names)]),
        above="/".join(quote(name, safe="") for name in names),
        rows=found["items"],
        filters=_filters(operation, filters),
        filtered=bool(filters),
        is_first="cursor" not in visit.query,
        following=following,
        problem=problem,
        can_create=bool(section.create) and visit.api.allows(section.create),
        done=done_text(visit),
        bulk=bulk,
        selectable=bool(bulk),
        counted=counted,
        export=section.has_export,
        filter_query="?" + urlencode(filters) if filters else "",
        actions=_actions_by_row(visit, section, found["items"]),
    )
    return Outcome(body, status=problem.status if problem else 200)


def _actions_by_row(visit: Visit, section: Section, rows: list[Content]) -> list[list[Action]]:
    """The actions of a section whose things have no page of their own."""
    if section.show_operation:
        return [[] for _ in rows]
    allowed = [action for action in section.actions if visit.api.allows(action.operation)]
    return [[action for action in allowed if action.available(row)] for row in rows]


def _filters(operation: Operation, values: dict[str, str]) -> list[FormField]:
    found = []
    for name, allowed in operation.filters.items():
        if isinstance(allowed, Matching):
            found.append(FormField(name, forms.TEXT, name, rule=allowed.rule, value=values.get(name, "")))
        else:
            found.append(FormField(name, forms.SELECT, name, choices=tuple(allowed), value=values.get(name, "")))
    return found


def _thing(visit: Visit, section: Section, names: list[str]) -> Outcome:
    if not section.show_operation:
        raise unknown_page()
    shown = visit.api.call(section.show_operation, path_of(BY_ID[section.show_operation], names)).content
    actions = [
        action
        for action in section.actions
        if action.available(shown) and visit.api.allows(action.operation, path_of(action.api, names))
    ]
    related = [found for each in section.related if (found := _related(visit, each, shown, names)) is not None]
    parts = thing_parts.of(visit, section.name, shown)
    body = pages.render(
        "thing.html",
        visit.frame,
        section=section,
        title=_title(section, shown),
        place=section.place(shown),
        above=quote(names[0], safe=""),
        thing=shown,
        actions=actions,
        related=related,
        steps=parts.steps,
        notices=parts.notices,
        done=done_text(visit),
    )
    return Outcome(body)


def _related(visit: Visit, related: Related, shown: Content, names: list[str]) -> Content | None:
    operation = BY_ID[related.operation]
    path = path_of(operation, names) if operation.parameters else {}
    if not visit.api.allows(related.operation, path):
        return None
    query = {name: value_of(shown) for name, value_of in related.parameters.items()}
    if not all(query.values()):
        return None
    if operation.listing:
        query |= {"limit": str(RELATED_SIZE)}
    try:
        found = visit.api.call(related.operation, path, query=query).content
    except Problem:
        return None
    rows = found.get(related.rows) or []
    if related.hides_empty and not rows:
        return None
    steps = [related.section, *(quote(name, safe="") for name in path.values())]
    more = "/".join(steps) + (
        "?" + urlencode({name: query[name] for name in related.parameters}) if related.parameters else ""
    )
    return {
        "part": related,
        "rows": rows,
        "more": more,
        "place": BY_NAME[related.section].place
        if related.section and BY_NAME[related.section].show_operation
        else None,
    }


def _create(visit: Visit, section: Section) -> Outcome:
    operation = BY_ID[section.create]
    if operation.input is None:
        raise unknown_page()
    fields = forms.fields_of(operation.input, {})
    if not visit.is_post:
        return form_page(visit, section, Form(fields), "create", new_key())
    outcome = send(visit, operation, {}, fields)
    if isinstance(outcome, Form):
        return form_page(
            visit, section, outcome, "create", visit.sent_one(KEY_FIELD) or new_key(), status=outcome.status
        )
    return after(visit, section, "create", outcome, section.place(outcome.content))


def _act(visit: Visit, section: Section, action: Action, names: list[str]) -> Outcome:
    operation = action.api
    path = path_of(operation, names)
    shown, etag = current(visit, section, names)
    fields = _action_fields(operation, action, shown)
    title, place = _title(section, shown) if shown else "/".join(names), "/".join(names)
    if not visit.is_post:
        etag = etag or ""
        return form_page(visit, section, Form(fields), action.name, new_key(), action, title, place, etag)
    outcome = send(visit, operation, path, fields, action.body(shown) if action.body else action.fixed)
    if isinstance(outcome, Form):
        key = visit.sent_one(KEY_FIELD) or new_key()
        etag = etag if outcome.is_stale else visit.sent_one(ETAG_FIELD)
        return form_page(visit, section, outcome, action.name, key, action, title, place, etag, status=outcome.status)
    if operation.method == "DELETE":
        return Outcome(redirect=section.name, query={"done": action.name})
    return after(visit, section, action.name, outcome, place, shows_answer=action.shows_answer)


def current(visit: Visit, section: Section, names: list[str]) -> tuple[Content, str]:
    """The thing that an action is about, with its ETag."""
    if not section.show_operation:
        return {}, ""
    answer = visit.api.call(section.show_operation, path_of(BY_ID[section.show_operation], names))
    return answer.content, answer.etag


def _action_fields(operation: Operation, action: Action, shown: Content) -> list[FormField]:
    if operation.input is None or action.fixed is not None or action.body is not None:
        return []
    return forms.fields_of(
        operation.input, action.values(shown), only=action.fields, credentials=shown.get("credentials_set") or ()
    )


def send(
    visit: Visit,
    operation: Operation,
    path: dict[str, str],
    fields: list[FormField],
    fixed: Content | None = None,
    chosen: Content | None = None,
) -> Answer | Form:
    """Carry an operation out. `fixed` is the whole body, and `chosen` what is added to the form's.

    Returns the form again, with what was entered and what is wrong, where it was refused.
    """
    key, etag = visit.sent_one(KEY_FIELD), visit.sent_one(ETAG_FIELD)
    try:
        body = fixed
        if body is None and operation.input is not None:
            body = forms.body_of(fields, visit.sent, keep_empty=operation.id in EMPTIES) | (chosen or {})
        return visit.api.call(operation.id, path, body=body, key=key, etag=etag)
    except UnreadableForm as unreadable:
        return Form(
            forms.with_sent(
                fields,
                visit.sent,
                {name: str(pages.translate(visit.frame.language, text)) for name, text in unreadable.errors.items()},
            )
        )
    except Problem as problem:
        return refused(visit, problem, fields)
    except Retryable as later:
        # The function that carries the operation out did not answer: it may have been done.
        return refused(visit, Problem(UNAVAILABLE, later.reason, later.detail, ""), fields)


def refused(visit: Visit, problem: Problem, fields: list[FormField]) -> Form:
    """The form again, with what the API refused beside its field."""
    told = dict(problem.errors) or ({problem.field: problem.detail} if problem.field else {})
    names = {each.name for each in fields}
    beside: dict[str, str] = {}
    above = []
    for name, text in told.items():
        # A fault within a field, such as mapping.email, stands beside the field.
        place = name if name in names else name.partition(".")[0]
        if place in names:
            beside[place] = f"{beside[place]}; {text}" if place in beside else text
        else:
            above.append(text)
    above = above or ([] if beside else [problem.detail])
    is_stale = problem.reason == ChangedMeanwhile.reason
    if is_stale:
        above = [str(pages.translate(visit.frame.language, "form.changed_meanwhile"))]
    return Form(
        forms.with_sent(fields, visit.sent, beside),
        above,
        problem.status,
        is_unclear=problem.status in UNCLEAR_STATUSES,
        is_stale=is_stale,
    )


def after(
    visit: Visit, section: Section, action: str, answer: Answer, place: str, *, shows_answer: bool = False
) -> Outcome:
    """What follows: the answer where it holds something that is shown once or was asked for, else the thing's page."""
    once = {name: answer.content[name] for name in ONCE if answer.content.get(name) and name not in section.facts}
    if once or shows_answer:
        body = pages.render(
            "answer.html",
            visit.frame,
            section=section,
            action=action,
            place=place if section.show_operation else "",
            once=once,
            rest={name: value for name, value in answer.content.items() if name not in once},
        )
        return Outcome(body)
    target = f"{section.name}/{place}" if section.show_operation else section.name
    return Outcome(redirect=target, query={"done": action})


def form_page(
    visit: Visit,
    section: Section,
    form: Form,
    name: str,
    key: str,
    action: Action | None = None,
    title: str = "",
    place: str = "",
    etag: str = "",
    status: int = 200,
) -> Outcome:
    """A form's page. `action` is missing where the form creates something; `place` is the path of the thing it is about."""
    body = pages.render(
        "form.html",
        visit.frame,
        section=section,
        form=form,
        name=name,
        action=action,
        title=title,
        place=place,
        key=key,
        etag=etag,
        scope_groups=forms.scope_groups(),
    )
    return Outcome(body, status=status)


def path_of(operation: Operation, names: list[str]) -> dict[str, str]:
    return dict(zip(operation.parameters, names, strict=False))


def _title(section: Section, shown: Content) -> str:
    if section.title:
        return str(shown[section.title])
    return "/".join(str(shown[name]) for name in section.id_fields)


def done_text(visit: Visit) -> str:
    """The key of the sentence that says what has just been done; anything else in the query says nothing."""
    key = f"done.{visit.query.get('done', '')}"
    return key if pages.has_text(key) else ""


def new_key() -> str:
    return secrets.token_urlsafe(18)


def unknown_page() -> Rejected:
    return Rejected("unknown_path", "this page does not exist", status=404)
