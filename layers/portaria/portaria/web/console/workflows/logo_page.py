"""Uploading the logo of an OAuth client."""

from __future__ import annotations

from typing import Any

from portaria.web.console import forms, pages
from portaria.web.console.forms import Form, FormField
from portaria.web.console.resource_pages import ETAG_FIELD, current, path_of, send
from portaria.web.console.sections import BY_ID, BY_NAME
from portaria.web.console.visit import Outcome, Visit

Content = dict[str, Any]
SECTION, REPLACE = BY_NAME["oauth-clients"], BY_ID["replace_oauth_client"]
LOGO_FIELD, REMOVE = "logo", "remove"


def show(visit: Visit, names: list[str]) -> Outcome:
    """A PNG or SVG file. Everything else of the client stays as it is. Raises `Problem` and `Rejected`."""
    shown, etag = current(visit, SECTION, names)
    field = FormField(LOGO_FIELD, forms.FILE, LOGO_FIELD, rule=forms.rule_of(REPLACE.input, LOGO_FIELD))
    if not visit.is_post:
        return _page(visit, names, shown, Form([field]), etag)
    logo = "" if visit.sent_one("do") == REMOVE else visit.sent_one(LOGO_FIELD)
    if not logo and visit.sent_one("do") != REMOVE:
        missing = str(pages.translate(visit.frame.language, "logo.missing"))
        form = Form(forms.with_sent([field], {}, {LOGO_FIELD: missing}))
        return _page(visit, names, shown, form, visit.sent_one(ETAG_FIELD), status=400)
    kept = forms.fields_of(REPLACE.input, {}) if REPLACE.input else []
    body = {each.name: shown[each.name] for each in kept if shown.get(each.name) not in (None, "")}
    outcome = send(visit, REPLACE, path_of(REPLACE, names), [field], body | {LOGO_FIELD: logo})
    if isinstance(outcome, Form):
        return _page(visit, names, shown, outcome, visit.sent_one(ETAG_FIELD), status=outcome.status)
    return Outcome(redirect=f"{SECTION.name}/{SECTION.place(shown)}", query={"done": "logo"})


def _page(visit: Visit, names: list[str], shown: Content, form: Form, etag: str, status: int = 200) -> Outcome:
    body = pages.render(
        "logo.html",
        visit.frame,
        section=SECTION,
        title="/".join(names),
        place=SECTION.place(shown),
        thing=shown,
        form=form,
        etag=etag,
    )
    return Outcome(body, status=status)
