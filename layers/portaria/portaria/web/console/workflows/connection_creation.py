"""Creating a connection: a choice of platform and kind, then a form with the fields and credentials of that kind."""

from __future__ import annotations

from typing import Any

from portaria.api.rules.connection_rules import ConnectionCreation
from portaria.web.console import forms, pages
from portaria.web.console.forms import Form, FormField
from portaria.web.console.resource_pages import KEY_FIELD, after, form_page, new_key, send, unknown_page
from portaria.web.console.sections import BY_ID, BY_NAME
from portaria.web.console.visit import Outcome, Visit

Content = dict[str, Any]
SECTION = BY_NAME["connections"]
MAX_CLIENTS = 100


def show(visit: Visit) -> Outcome:
    """`platform` and `kind` of the query choose the form. Raises `Problem` and `Rejected`."""
    platforms = visit.api.call("list_platforms").content["items"]
    if "kind" not in visit.query:
        if visit.is_post:
            raise unknown_page()
        return Outcome(pages.render("choose_kind.html", visit.frame, section=SECTION, platforms=platforms))
    platform, kind = visit.query.get("platform", ""), visit.query["kind"]
    found = [
        offered
        for each in platforms
        if each["name"] == platform
        for offered in each["kinds"]
        if offered["name"] == kind
    ]
    if not found:
        raise unknown_page()
    fields = _fields(visit, platform, found[0])
    if not visit.is_post:
        return form_page(visit, SECTION, Form(fields), "create", new_key())
    chosen: Content = {"platform": platform, "kind": kind}
    if found[0]["credentials"]:
        # Empty ones too, so that the API says what is missing.
        chosen["credentials"] = {name: visit.sent_one(_credential(name)) for name in found[0]["credentials"]}
    outcome = send(visit, BY_ID[SECTION.create], {}, fields, chosen=chosen)
    if isinstance(outcome, Form):
        key = visit.sent_one(KEY_FIELD) or new_key()
        return form_page(visit, SECTION, outcome, "create", key, status=outcome.status)
    return after(visit, SECTION, "create", outcome, SECTION.place(outcome.content))


def _fields(visit: Visit, platform: str, kind: Content) -> list[FormField]:
    """The inputs of a kind. A pattern is shown as the rule of its field."""
    standing = ["name"]
    if kind["needs_allowed_domain"]:
        standing.append("allowed_domain")
    if kind["needs_client"]:
        standing.append("client")
    choices = {"client": _clients(visit, platform)} if kind["needs_client"] else {}
    found = forms.fields_of(ConnectionCreation, {}, only=standing, choices=choices, required=standing)
    for each in kind["fields"]:
        rule = pages.translate(visit.frame.language, "choose.pattern", pattern=each["pattern"])
        if each["default"]:
            rule += " · " + pages.translate(visit.frame.language, "choose.default", value=each["default"])
        found.append(
            FormField(f"fields.{each['name']}", forms.TEXT, each["name"], rule, is_required=each["is_required"])
        )
    # A username or a password alone is enough for basic authentication.
    is_required = kind["name"] != "basic"
    found += [
        FormField(_credential(name), forms.PASSWORD, name, is_required=is_required) for name in kind["credentials"]
    ]
    return found


def _credential(name: str) -> str:
    return f"{forms.CREDENTIALS}.{name}"


def _clients(visit: Visit, platform: str) -> tuple[str, ...]:
    """The names of the platform's OAuth clients; none if the session may not list them: their name is then typed."""
    if not visit.api.allows("list_oauth_clients"):
        return ()
    clients = visit.api.call("list_oauth_clients", query={"limit": str(MAX_CLIENTS)}).content["items"]
    return tuple(each["name"] for each in clients if each["platform"] == platform)
