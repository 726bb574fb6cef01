"""A route's form with its preview."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import responses

from portaria.connections import connection_store
from portaria.connections.tokens.cache import PROCESS_CACHE
from portaria.connections.vault import Vault
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.web.console.workflows.route_editor import MAX_SAMPLE_CHARACTERS
from tests.fakes.api.console import BASE, Browser, Page
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.records.dead_letters import letter, put, record

RECORD = json.dumps({"id": 7, "first_name": "Maria <b>"})
ROUTE = {
    "source": "connection:crm",
    "object": "contacts",
    "destination": "marketo-main",
    "mapping": "email = 'a@example.com'\nfirstName = first_name",
    "priority": "normal",
    "keep_newest": "events",
    "weight": "1",
}


@pytest.fixture
def connected(browser: Browser, stack: Cloud) -> Browser:
    for name, platform, kind in (("crm", "kommo", "oauth2"), ("marketo-main", "marketo", "client_credentials")):
        fields = {"munchkin_id": "123-ABC-456"} if platform == "marketo" else {}
        connection_store.create(
            stack.table,
            Connection(
                name, platform, kind, "*.example.com", "connected", secret_id="s", version_id="v", generation=1,
                account_id="123-ABC-456", fields=fields,
            ),
        )  # fmt: skip
    browser.sign_in()
    return browser


def routes(browser: Browser) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = browser.manage.call("GET", "/routes").content["items"]
    return items


def shown(page: Page) -> list[str]:
    return [html.unescape(text) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", page.text, re.DOTALL)]


def test_preview_shows_the_object_and_the_request_and_saves_nothing(connected: Browser) -> None:
    page = connected.submit("/routes/new", {**ROUTE, "record": RECORD, "do": "preview"})
    assert page.status == 200
    mapped, request = (json.loads(text) for text in shown(page))
    assert mapped == {"email": "a@example.com", "firstName": "Maria <b>"}
    assert request["persons"] == [mapped]
    assert "POST /subscriptions/123-ABC-456/persons" in page.text
    assert "firstName = first_name" in page.text
    assert routes(connected) == []


def test_preview_shows_a_fault_of_the_mapping_beside_the_field(connected: Browser) -> None:
    page = connected.submit("/routes/new", {**ROUTE, "mapping": "email = [[", "record": RECORD, "do": "preview"})
    assert page.status == 400
    assert 'id="f-mapping-error"' in page.text
    assert "email = [[" in page.text
    assert "Maria &lt;b&gt;" in page.text


@pytest.mark.parametrize("record", ["", "{", "[1]", "7", '"a"', "[" * 40_000])
def test_preview_of_what_is_no_json_object_is_refused_beside_the_record(connected: Browser, record: str) -> None:
    page = connected.submit("/routes/new", {**ROUTE, "record": record, "do": "preview"})
    assert page.status == 400
    assert 'id="f-record-error"' in page.text
    assert len(page.text) < 150_000


def test_preview_of_a_record_that_is_too_large_is_refused_and_not_repeated(connected: Browser) -> None:
    record = json.dumps({"name": "x" * 1_000_000})
    page = connected.submit("/routes/new", {**ROUTE, "record": record, "do": "preview"})
    assert page.status == 400
    assert 'id="f-record-error"' in page.text
    assert len(page.text) < MAX_SAMPLE_CHARACTERS


def test_preview_of_expressions_beyond_the_budget_shows_why(connected: Browser) -> None:
    bomb = "email = " + "[*]" * 300
    page = connected.submit("/routes/new", {**ROUTE, "mapping": bomb, "record": RECORD, "do": "preview"})
    assert page.status in (200, 400)
    assert 'id="f-mapping-error"' in page.text or "would become a dead letter" in page.text


def test_route_is_created_from_the_form_that_was_previewed(connected: Browser) -> None:
    page = connected.submit("/routes/new", {**ROUTE, "name": "people", "do": "create"})
    assert (page.status, page.location) == (303, f"{BASE}/routes/people?done=create")
    (route,) = routes(connected)
    assert (route["name"], route["mapping"]) == ("people", {"email": "'a@example.com'", "firstName": "first_name"})


def test_route_is_replaced_or_saved_as_a_new_one(connected: Browser) -> None:
    connected.submit("/routes/new", {**ROUTE, "name": "people"})
    edited = {**ROUTE, "mapping": "email = 'b@example.com'"}
    assert (
        connected.submit("/routes/people/edit", {**edited, "do": "replace"}).location
        == f"{BASE}/routes/people?done=edit"
    )
    copied = connected.submit("/routes/people/preview", {**ROUTE, "name": "people-2", "do": "copy"})
    assert copied.location == f"{BASE}/routes/people-2?done=create"
    assert {each["name"]: len(each["mapping"]) for each in routes(connected)} == {"people": 1, "people-2": 2}


def test_route_changed_by_another_person_meanwhile_keeps_what_was_entered(connected: Browser) -> None:
    connected.submit("/routes/new", {**ROUTE, "name": "people"})
    mine = connected.get("/routes/people/edit")
    connected.submit("/routes/people/edit", {**ROUTE, "weight": "5", "do": "replace"})
    hidden = {name: mine.value(name) for name in ("csrf_token", "idempotency_key", "etag")}
    stale = connected.post(
        "/routes/people/edit", {**hidden, **ROUTE, "mapping": "email = 'c@example.com'", "record": RECORD}
    )
    assert stale.status in (409, 412)
    assert "Someone else changed this" in stale.text
    assert "c@example.com" in stale.text
    assert "Maria &lt;b&gt;" in stale.text
    assert connected.manage.call("GET", "/routes/people").content["weight"] == 5


class TestSamples:
    @pytest.fixture
    def source(self, connected: Browser, stack: Cloud) -> Iterator[responses.RequestsMock]:
        """The account of `crm` at its platform."""
        given = {
            "access_token": "canary-access", "refresh_token": "canary-refresh", "expires_at": "2099-01-01T00:00:00.000Z",
            "token_type": "bearer", "scopes": "",
        }  # fmt: skip
        vault = Vault(PREFIX)
        secret = vault.grant_id("crm")
        version = vault.create(secret, {name: Secret(text) for name, text in given.items()}, "0" * 32)
        stack.table.update(
            *connection_store.key("crm"),
            "SET secret_id = :secret, version_id = :version, allowed_domain = :host",
            values={":secret": secret, ":version": version, ":host": "acme.kommo.com"},
        )
        PROCESS_CACHE.clear()
        with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
            yield mock

    def test_recent_records_of_the_source_are_chosen_and_previewed(
        self, connected: Browser, source: responses.RequestsMock
    ) -> None:
        contacts = [
            {"id": each, "name": f"Person <{each}>", "first_name": "Ana", "updated_at": each} for each in (1, 2)
        ]
        source.get(re.compile("https://acme.kommo.com/.*"), json={"_embedded": {"contacts": contacts}})
        page = connected.submit("/routes/new", {**ROUTE, "name": "people", "do": "samples"})
        assert page.status == 200, page.text
        assert re.findall(r"Person &lt;(\d)&gt;</bdi>", page.text) == ["2", "1"]
        assert 'value="people"' in page.text
        value = html.unescape(re.findall(r'name="sample" value="([^"]*)"', page.text)[0])
        assert json.loads(value)["id"] == 2
        chosen = connected.submit("/routes/new", {**ROUTE, "name": "people", "sample": value})
        assert json.loads(shown(chosen)[0]) == {"email": "a@example.com", "firstName": "Ana"}
        assert "Person &lt;2&gt;" in chosen.text
        assert routes(connected) == []

    @pytest.mark.parametrize(
        ("form", "told"),
        [
            ({"source": ""}, "No connected account is the source"),
            ({"source": "client:kommo/none"}, "No connected account is the source"),
            ({"source": "connection:none"}, "there is no connection none"),
            ({"source": "connection:marketo-main"}, "marketo cannot list contacts"),
            ({"object": "<b>"}, "object must be"),
        ],
    )
    def test_recent_records_that_cannot_be_read_say_why_and_keep_the_form(
        self, connected: Browser, form: dict[str, str], told: str
    ) -> None:
        page = connected.submit("/routes/new", {**ROUTE, **form, "name": "people", "do": "samples"})
        assert page.status == 400
        assert told in html.unescape(page.text)
        assert 'id="f-record-error"' in page.text
        assert "firstName = first_name" in page.text

    def test_recent_records_without_an_answer_keep_the_form(
        self, connected: Browser, source: responses.RequestsMock
    ) -> None:
        source.get(re.compile("https://acme.kommo.com/.*"), status=500)
        page = connected.submit("/routes/new", {**ROUTE, "name": "people", "do": "samples"})
        assert page.status == 400
        assert 'value="people"' in page.text

    def test_record_of_a_dead_letter_is_the_sample(self, connected: Browser, stack: Cloud) -> None:
        connected.submit("/routes/new", {**ROUTE, "name": "people"})
        put(stack, letter(records=[record("7", first_name="Ana <i>")]))
        page = connected.get("/routes/people/preview?letter=letter-1")
        assert "Ana &lt;i&gt;" in page.text
        assert connected.get("/routes/people/preview?letter=none").status == 200
