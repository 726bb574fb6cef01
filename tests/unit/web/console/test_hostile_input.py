"""Markup in stored values, and hostile forms, cursors, filters and ids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, get_args, get_origin
from unittest.mock import patch
from urllib.parse import quote, urlencode, urlsplit

import pytest
from pydantic import BaseModel

from portaria.access import scopes
from portaria.api.operations import OPERATIONS
from portaria.web.console import forms
from portaria.web.console.api_calls import Answer, ApiCalls
from portaria.web.console.sections import BY_ID, SECTIONS, Section
from tests.fakes.api.console import BASE, Browser
from tests.fakes.api.manage import add_install
from tests.fakes.aws.moto_cloud import Cloud

MARKUP = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}{csrf}</textarea></title>"
SCRIPTED = "javascript:alert(document.domain)//"
NEW = "/private-integrations/new"


class Html(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def dangers(text: str) -> list[str]:
    """What a page must not have: script of anybody else, handlers, inline styles, and links to other places."""
    found = []
    for tag, attributes in Html(text).elements:
        is_own = tag == "script" and (attributes.get("src") or "").startswith(f"{BASE}/assets/")
        if tag in ("script", "img", "iframe", "object", "embed", "style", "base") and not is_own:
            found.append(f"<{tag}>")
        for name, value in attributes.items():
            if name.startswith("on") or name in ("style", "srcdoc", "formaction"):
                found.append(f"{tag} {name}")
            if name in ("href", "action", "src") and not re.match(
                rf"{BASE}(/|$)|https://|data:image/svg|data:,$|#", value or ""
            ):
                found.append(f"{tag} {name}={value}")
    return found


def value_of(annotation: Any, text: str) -> Any:
    """A value of a type in which each text is `text`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {name: value_of(field.annotation, text) for name, field in annotation.model_fields.items()}
    if annotation is int:
        return 7
    inner = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) is list:
        return [value_of(inner[0], text)]
    if get_origin(annotation) is dict:
        return {text: value_of(inner[1], text)}
    if inner and get_origin(annotation) is not None and not isinstance(inner[0], str):
        return value_of(inner[0], text)
    return text


def answer_of(operation_id: str, text: str) -> dict[str, Any]:
    operation = BY_ID[operation_id]
    made = value_of(operation.output, text) if operation.output else {}
    return {"items": [made], "next_cursor": text} if operation.listing else made


def listing(section: Section, parent: str = "a1") -> str:
    """The path of a section's listing; `parent` is the id of the thing that it belongs to, where it belongs to one."""
    return f"/{section.name}/{parent}" if section.parent else f"/{section.name}"


def pages() -> Iterator[str]:
    yield from ("/overview", "/settings", "/search", "/search?record=a1/b")
    for section in SECTIONS:
        yield listing(section)
        place = "/".join(["a1"] * len(section.id_fields))
        if section.create:
            yield f"/{section.name}/new"
        if section.show_operation:
            yield f"/{section.name}/{place}"
        for action in section.actions:
            yield f"/{section.name}/{place}/{action.name}"
        for action in section.bulk:
            yield f"/{section.name}/{action.name}"


@pytest.mark.parametrize("path", list(pages()))
def test_page_escapes_markup_in_every_value(browser: Browser, path: str) -> None:
    text = ""

    def call(self: ApiCalls, operation_id: str, *_: Any, **__: Any) -> Answer:
        return Answer(answer_of(operation_id, text), text)

    browser.sign_in()
    with patch.object(ApiCalls, "call", call):
        for text in (MARKUP, SCRIPTED, f"https://{MARKUP}"):
            for query in ("", f"?{urlencode({'state': text, 'done': text, 'cursor': text})}"):
                page = browser.get(f"{path}{query.replace('?', '&') if '?' in path else query}")
                assert page.status == 200
                assert dangers(page.text) == []


@pytest.mark.parametrize("path", [each for each in pages() if each.count("/") > 1])
def test_page_of_an_answer_escapes_markup(browser: Browser, path: str) -> None:
    """The answer of an action may be shown once, so it is rendered after the POST."""

    def call(self: ApiCalls, operation_id: str, *_: Any, **__: Any) -> Answer:
        return Answer(answer_of(operation_id, MARKUP), MARKUP)

    browser.sign_in()
    token = browser.get("/audit").value("csrf_token")
    with patch.object(ApiCalls, "call", call):
        page = browser.post(path, {"csrf_token": token, "name": MARKUP, "mapping": MARKUP, "priority": MARKUP})
    assert page.status in (200, 303, 400, 404)
    assert dangers(page.text) == []
    assert "<script>alert" not in page.location


def test_form_refused_keeps_what_was_entered_as_text(browser: Browser) -> None:
    browser.sign_in()
    page = browser.submit(NEW, {"name": MARKUP, "description": MARKUP, "scopes": [MARKUP, f"x@{MARKUP}"]})
    assert page.status == 400
    assert dangers(page.text) == []
    assert MARKUP in {attributes.get("value") for tag, attributes in Html(page.text).elements if tag == "input"}


HOSTILE = ["\x00", "\x7f\x1b", "é" * 300, "../../admin", "%2e%2e", "A" * 4000, "'; DROP", MARKUP, "\r\nX: y", "💥"]


@pytest.mark.parametrize("value", HOSTILE, ids=list(map(str, range(len(HOSTILE)))))
def test_hostile_ids_cursors_and_filters_get_a_page_and_no_failure(browser: Browser, value: str) -> None:
    browser.sign_in()
    text = quote(value, safe="", errors="surrogatepass")
    for section in SECTIONS:
        paths = [f"{listing(section)}?cursor={text}"]
        paths += [f"{listing(section)}?{name}={text}" for name in section.api.filters]
        place = "/".join([text] * len(section.id_fields))
        paths += [f"/{section.name}/{place}"] if section.show_operation else []
        paths += [f"/{section.name}/{place}/{action.name}" for action in section.actions[:1]]
        for path in paths:
            page = browser.get(path)
            assert page.status < 500, (path, page.text[-500:])
            assert page.text.startswith("<!doctype html>"), path
            assert dangers(page.text) == [], path


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("a=%FF", 400), ("é=1", 400), ("\x00", 403), ("&" * 600, 400), ("a=1&" * 501, 400), ("{}", 403), ("", 403),
        ("x=" + "a" * 1_100_001, 413),
    ],
    ids=["not UTF-8", "not ASCII", "null byte", "separators", "many fields", "JSON", "empty", "large"],
)  # fmt: skip
def test_hostile_form_is_refused(browser: Browser, body: str, status: int) -> None:
    browser.sign_in()
    page = browser.send("POST", NEW, body, {"Origin": f"https://{urlsplit(browser.link()).netloc}"})
    assert page.status == status
    assert page.text.startswith("<!doctype html>")


def test_form_field_of_a_megabyte_is_explained(browser: Browser) -> None:
    browser.sign_in()
    page = browser.submit("/routes/new", {"name": "crm", "mapping": "a = " + "x" * 1_000_000})
    assert page.status in (400, 413)
    assert "notice bad" in page.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_console_refuses_other_methods(browser: Browser, method: str) -> None:
    browser.sign_in()
    assert browser.send(method, "/connections").status == 405


def test_secrets_are_on_no_page_but_the_one_that_shows_them_once(browser: Browser, stack: Cloud) -> None:
    browser.sign_in()
    made = browser.submit(NEW, {"name": "BI", "scopes": ["connections:list"]})
    (token,) = set(re.findall(r"portaria_[0-9A-Za-z]{48}", made.text))
    id_ = token[9:19]
    add_install(stack, 1)
    client = {"platform": "kommo", "name": "acme", "client_id": "5f3c1f0e-8b7a-4c1e-9d57-2b8d2f9a1c10"}
    assert browser.manage.call("POST", "/oauth-clients", client | {"client_secret": "canary-secret"}).status == 201
    for path in (
        "/overview", "/private-integrations", f"/private-integrations/{id_}", f"/private-integrations/{id_}/edit",
        f"/private-integrations/{id_}/rotate", "/audit", "/oauth-clients", "/oauth-clients/kommo/acme",
        "/oauth-clients/kommo/acme/edit", "/sessions",
    ):  # fmt: skip
        page = browser.get(path)
        assert page.status == 200, path
        assert token not in page.text
        assert "canary-secret" not in page.text
        assert browser.cookies["__Host-portaria-console"] not in page.text


class TestScopes:
    """A session does what its scopes say, whatever is sent."""

    def test_session_read_only_allows_exactly_the_reading_operations(self, browser: Browser) -> None:
        browser.sign_in(read_only=True)
        allowed: set[str] = set()

        def show(visit: Any) -> Any:
            for each in OPERATIONS:
                if visit.api.allows(each.id, dict.fromkeys(each.parameters, "abc")):
                    allowed.add(each.id)
            raise LookupError

        with patch("portaria.web.console.overview.show", show):
            browser.get("/overview")
        reading = [each for each in OPERATIONS if each.scope.rpartition(":")[2] in ("list", "show", "preview", "")]
        assert allowed == {each.id for each in reading}
        assert [each.id for each in reading if each.changes] == []

    @pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
    def test_session_read_only_is_refused_every_action(self, browser: Browser, section: Any) -> None:
        browser.sign_in(read_only=True)
        token = browser.get("/audit").value("csrf_token")
        before = browser.manage.call("GET", "/audit").content["items"]
        place = "/".join(["abc"] * len(section.id_fields))
        paths = [f"/{section.name}/{place}/{action.name}" for action in section.actions]
        paths += [f"/{section.name}/new"] if section.create else []
        for path in paths:
            assert browser.post(path, {"csrf_token": token, "name": "abc"}).status in (400, 403, 404), path
        assert browser.manage.call("GET", "/audit").content["items"] == before
        page = browser.get(f"/{section.name}")
        assert f"{BASE}/{section.name}/new" not in page.text

    def test_session_limited_to_scopes_sees_only_their_sections(self, browser: Browser) -> None:
        browser.sign_in(scopes=["routes:list", "routes:show"])
        page = browser.get("/overview")
        shown = {section.name for section in SECTIONS if f"{BASE}/{section.name}" in page.text}
        assert shown == {"routes"}
        assert browser.get("/routes").status == 200
        for section in SECTIONS:
            if section.name != "routes":
                assert browser.get(listing(section)).status == 403, section.name

    def test_session_limited_to_scopes_creates_no_wider_session_or_token(self, browser: Browser) -> None:
        browser.sign_in(scopes=["private-integrations:create", "private-integrations:list"])
        page = browser.submit(NEW, {"name": "BI", "scopes": ["connections:list"]})
        assert page.status == 403
        assert browser.manage.call("GET", "/private-integrations").content["items"] == []

    @pytest.mark.parametrize(
        ("wanted", "called"),
        [
            ({"read_only": True}, []),
            ({"scopes": ["connections:list", "connections:show", "connections:call@erp"]}, ["erp"]),
            ({"scopes": ["connections:list", "connections:show", "connections:call"]}, ["erp", "crm"]),
        ],
        ids=["read only", "narrowed", "all"],
    )
    def test_session_calls_only_connections_of_its_scopes(
        self, browser: Browser, wanted: dict[str, Any], called: list[str]
    ) -> None:
        """`call_connection` believes the console, so the console must not invoke it without the scope."""
        connection = {"platform": "http", "kind": "api_key", "allowed_domain": "api.example.com"}
        for name in ("erp", "crm"):
            body = {
                **connection,
                "name": name,
                "fields": {"header_name": "X-Key"},
                "credentials": {"key": "canary-key"},
            }
            assert browser.manage.call("POST", "/connections", body).status == 201
        browser.sign_in(**wanted)
        token = browser.get("/connections").value("csrf_token")
        invoked: list[str] = []

        def invoke(event: dict[str, Any]) -> dict[str, Any]:
            invoked.append(event["pathParameters"]["name"])
            return {"statusCode": 200, "multiValueHeaders": {}, "body": '{"status": 200}'}

        with patch.object(browser.module.console, "invoke", invoke):
            for name in ("erp", "crm"):
                sent = {"csrf_token": token, "method": "GET", "path": "/orders"}
                page = browser.post(f"/connections/{name}/call", sent)
                assert page.status == (200 if name in called else 403)
        assert invoked == called

    def test_every_scope_of_an_administrator_can_be_asked_for(self, browser: Browser) -> None:
        assert browser.manage.call("POST", "/console-sessions", {"scopes": ["no:such"]}).status == 400
        assert set(scopes.READING) <= set(scopes.SCOPES) | set(scopes.ADMINISTRATORS_ONLY)


class TestStaleForms:
    """Two sessions edit one thing: the second is told, and keeps what it entered."""

    def test_edit_of_a_changed_thing_keeps_the_input(self, browser: Browser) -> None:
        browser.sign_in()
        id_, _ = browser.manage.create_integration("connections:list")
        path = f"/private-integrations/{id_}/edit"
        first, second = browser.get(path), browser.get(path)
        hidden = {name: first.value(name) for name in ("csrf_token", "idempotency_key", "etag")}
        assert browser.post(path, {**hidden, "name": "First", "scopes": ["connections:list"]}).status == 303
        hidden = {name: second.value(name) for name in ("csrf_token", "idempotency_key", "etag")}
        page = browser.post(path, {**hidden, "name": "Second", "scopes": ["routes:list"]})
        assert page.status == 412
        assert 'value="Second"' in page.text
        assert re.search(r'value="routes:list" checked', page.text)
        assert browser.manage.call("GET", f"/private-integrations/{id_}").content["name"] == "First"

    def test_form_sent_twice_creates_one_thing(self, browser: Browser) -> None:
        browser.sign_in()
        page = browser.get(NEW)
        sent = {name: page.value(name) for name in ("csrf_token", "idempotency_key")}
        sent |= {"name": "BI", "scopes": ["connections:list"]}  # type: ignore[dict-item]
        tokens = [re.findall(r"portaria_[0-9A-Za-z]{48}", browser.post(NEW, sent).text) for _ in range(2)]
        assert tokens[0] == tokens[1] != []
        assert len(browser.manage.call("GET", "/private-integrations").content["items"]) == 1


def test_form_parse_joins_line_ends() -> None:
    assert forms.parse(b"a=1%0D%0A2&a=3") == {"a": ["1\n2", "3"]}
