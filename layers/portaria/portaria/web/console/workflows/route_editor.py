"""A route's form with a preview: what a sample record becomes. A preview sends and stores nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace as with_changes
from typing import Any

from portaria.api.rules.route_rules import RouteCreation, RouteReplacement
from portaria.web.console import forms, pages
from portaria.web.console.api_calls import Problem
from portaria.web.console.forms import Form, FormField, UnreadableForm
from portaria.web.console.resource_pages import ETAG_FIELD, KEY_FIELD, after, current, new_key, path_of, refused, send
from portaria.web.console.sections import BY_ID, BY_NAME
from portaria.web.console.visit import Outcome, Visit
from portaria.web.console.workflows import route_samples
from portaria.web.console.workflows.route_samples import NoSamples, Sample

Content = dict[str, Any]
SECTION = BY_NAME["routes"]
CREATE, REPLACE, PREVIEW = BY_ID["create_route"], BY_ID["replace_route"], BY_ID["preview_route"]
# The button that was pressed. Without one, a form of the section's own kind is sent.
BUTTON_FIELD, PREVIEW_BUTTON, COPY_BUTTON, SAMPLES_BUTTON = "do", "preview", "copy", "samples"
# `SAMPLE_FIELD` is the button of a recent record, whose value is the record.
RECORD_FIELD, SAMPLE_FIELD = "record", "sample"
MAX_SAMPLE_CHARACTERS = 50_000
MAX_SHOWN_CHARACTERS = 20_000


def show(visit: Visit, names: list[str]) -> Outcome:
    """`names` is the route's name, or nothing for a new route. Raises `Problem` and `Rejected`."""
    shown, etag = current(visit, SECTION, names) if names else ({}, "")
    name = forms.fields_of(RouteCreation, {}, only=("name",))[0]
    fields = forms.fields_of(RouteReplacement, shown)
    letter = "" if visit.is_post else visit.query.get("letter", "")
    sample = FormField(RECORD_FIELD, forms.JSON_TEXT, RECORD_FIELD, value=route_samples.of_letter(visit, letter))
    whole = [name, *fields, sample]
    if names:
        # The name of a copy. Replacing the route keeps its own.
        name = FormField(name.name, forms.TEXT, "new_name")
        whole = [*fields, name, sample]
    if not visit.is_post:
        return _page(visit, names, Form(whole), new_key(), etag)
    key, sent_etag = visit.sent_one(KEY_FIELD) or new_key(), visit.sent_one(ETAG_FIELD)
    button = visit.sent_one(BUTTON_FIELD)
    if visit.sent_one(SAMPLE_FIELD):
        visit = with_changes(visit, sent={**visit.sent, RECORD_FIELD: [_pretty(visit.sent_one(SAMPLE_FIELD))]})
        button = PREVIEW_BUTTON
    if len(visit.sent_one(RECORD_FIELD)) > MAX_SAMPLE_CHARACTERS:
        too_large = pages.translate(visit.frame.language, "preview.record_too_large", count=MAX_SAMPLE_CHARACTERS)
        kept = with_changes(visit, sent={**visit.sent, RECORD_FIELD: [""]})
        form = Form(forms.with_sent(whole, kept.sent, {RECORD_FIELD: str(too_large)}))
        return _page(visit, names, form, key, sent_etag, status=400)
    if button == SAMPLES_BUTTON:
        return _choose(visit, names, whole, key, sent_etag)
    if button == PREVIEW_BUTTON:
        return _preview(visit, names, fields, whole, key, sent_etag)
    is_new = not names or button == COPY_BUTTON
    operation, sent_fields = (CREATE, [name, *fields]) if is_new else (REPLACE, fields)
    outcome = send(visit, operation, {} if is_new else path_of(REPLACE, names), sent_fields)
    if isinstance(outcome, Form):
        errors = {each.name: each.error for each in outcome.fields if each.error}
        form = Form(forms.with_sent(whole, visit.sent, errors), outcome.errors, outcome.status)
        return _page(visit, names, form, key, etag if outcome.is_stale else sent_etag, status=outcome.status)
    return after(visit, SECTION, "create" if is_new else "edit", outcome, SECTION.place(outcome.content))


def _choose(visit: Visit, names: list[str], whole: list[FormField], key: str, etag: str) -> Outcome:
    """The form again, with recent records of the source to choose from."""
    samples: list[Sample] = []
    errors: dict[str, str] = {}
    try:
        samples = route_samples.recent(visit, visit.sent_one("source"), visit.sent_one("object"))
    except NoSamples as none:
        errors[RECORD_FIELD] = none.detail
    form = Form(forms.with_sent(whole, visit.sent, errors))
    return _page(visit, names, form, key, etag, samples=samples, status=400 if errors else 200)


def _pretty(text: str) -> str:
    """JSON in several lines; other text as it is."""
    record = _record(text)
    return text if record is None else route_samples.as_text(record)


def _preview(
    visit: Visit, names: list[str], fields: list[FormField], whole: list[FormField], key: str, etag: str
) -> Outcome:
    language = visit.frame.language
    errors: dict[str, str] = {}
    route: Content = {}
    try:
        route = forms.body_of(fields, visit.sent, keep_empty=False)
    except UnreadableForm as unreadable:
        errors = {name: str(pages.translate(language, text)) for name, text in unreadable.errors.items()}
    record = _record(visit.sent_one(RECORD_FIELD))
    if record is None:
        errors[RECORD_FIELD] = str(pages.translate(language, "preview.record_expected"))
    if errors:
        return _page(visit, names, Form(forms.with_sent(whole, visit.sent, errors)), key, etag, status=400)
    try:
        found = visit.api.call(PREVIEW.id, body={"route": route, "record": record}).content
    except Problem as problem:
        form = refused(visit, _of_route(problem), whole)
        return _page(visit, names, form, key, etag, status=form.status)
    return _page(visit, names, Form(forms.with_sent(whole, visit.sent)), key, etag, found)


def _record(text: str) -> Content | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _of_route(problem: Problem) -> Problem:
    """The refusal of a preview, whose fields are called as the form calls them."""
    errors = tuple((name.removeprefix("route."), text) for name, text in problem.errors)
    return with_changes(problem, field=problem.field.removeprefix("route."), errors=errors)


def _page(
    visit: Visit,
    names: list[str],
    form: Form,
    key: str,
    etag: str,
    preview: Content | None = None,
    status: int = 200,
    samples: Sequence[Sample] = (),
) -> Outcome:
    path = path_of(REPLACE, names)
    body = pages.render(
        "route_editor.html",
        visit.frame,
        section=SECTION,
        name="/".join(names),
        form=form,
        key=key,
        etag=etag,
        preview=preview,
        samples=samples,
        can_choose=visit.api.allows("list_sample_records", {}),
        as_json=_as_json,
        can_preview=visit.api.allows(PREVIEW.id),
        can_create=visit.api.allows(CREATE.id),
        can_replace=bool(names) and visit.api.allows(REPLACE.id, path),
    )
    return Outcome(body, status=status)


def _as_json(value: Any) -> tuple[str, bool]:
    """A value as text, and whether its end is left out."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text[:MAX_SHOWN_CHARACTERS], len(text) > MAX_SHOWN_CHARACTERS
