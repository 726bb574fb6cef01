"""Actions on a connection: renew now, reconcile now, the reconnect link; and forms whose answer is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from unittest.mock import patch

import pytest
import responses

from portaria.aws import lambda_functions
from portaria.connections import connection_store
from portaria.connections.tokens.cache import PROCESS_CACHE
from portaria.core.entities import Route
from portaria.core.errors import StackUnavailable
from portaria.records import routes
from tests.fakes.api.console import BASE, Browser
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.connections.tokens import NAME, Harness
from tests.fakes.virtual_time import VirtualClock

PLACE = f"/connections/{NAME}"
INTEGRATION = {"name": "BI <b>", "scopes": "routes:list"}


@pytest.fixture
def account(browser: Browser, stack: Cloud, clock: VirtualClock) -> Iterator[Harness]:
    """A connected Kommo account with a route."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        harness = Harness(stack, mock, clock)
        routes.put(stack.table, Route("people", f"connection:{NAME}", "contacts", "marketo-one"), new=True)
        PROCESS_CACHE.clear()
        browser.sign_in()
        yield harness


def test_connection_page_shows_its_routes_and_actions(browser: Browser, account: Harness) -> None:
    page = browser.get(PLACE)
    for action in ("renew", "reconcile", "backfill", "reconnect", "test", "call", "tags", "delete"):
        assert f'href="{BASE}{PLACE}/{action}"' in page.text
    assert f'href="{BASE}{PLACE}/event_address"' not in page.text
    assert f'href="{BASE}/routes/people"' in page.text
    assert "Routes to here" not in page.text
    assert "subscribed the account" in page.text


def test_renew_now_uses_the_refresh_token_once_for_a_form_that_is_sent_twice(
    browser: Browser, account: Harness
) -> None:
    page = browser.get(f"{PLACE}/renew")
    assert "used once" in page.text
    hidden = {name: page.value(name) for name in ("csrf_token", "idempotency_key", "etag")}
    for _ in range(2):
        done = browser.post(f"{PLACE}/renew", hidden)
        assert (done.status, done.location) == (303, f"{BASE}{PLACE}?done=renew")
    assert account.kommo.refreshes == {"canary-refresh-one": 1}
    assert connection_store.get(account.table, NAME).generation == 2
    entries = browser.manage.call("GET", "/audit?operation=renew_connection").content["items"]
    assert {(each["target"], each["outcome"]) for each in entries} == {(NAME, "done")}
    assert all(each["by"].startswith("arn:aws:iam::") for each in entries)


def test_renew_now_that_is_refused_says_why(browser: Browser, account: Harness) -> None:
    account.kommo.revoked.add("acme")
    refused = browser.submit(f"{PLACE}/renew")
    assert refused.status == 409
    assert "must connect" in refused.text
    assert "needs reconnect" in browser.get(PLACE).text


def test_reconcile_now_queues_each_object(browser: Browser, account: Harness) -> None:
    done = browser.submit(f"{PLACE}/reconcile")
    assert (done.status, "contacts" in done.text) == (200, True)
    (body,) = account.stack.receive("backfills")
    assert json.loads(body)["reconcile"] == {"connection": NAME, "object": "contacts"}
    page = browser.get(PLACE)
    assert "Reconciliations" in page.text


def test_reconnect_link_is_for_exactly_this_connection(browser: Browser, account: Harness) -> None:
    made = browser.submit(f"{PLACE}/reconnect")
    assert re.search(r'id="once-url" readonly value="https://[^"]+\?link=', made.text)
    (link,) = browser.manage.call("GET", "/install-links").content["items"]
    assert (link["purpose"], link["connection"]) == ("reconnect", NAME)


@pytest.mark.parametrize("action", ["renew", "reconcile", "reconnect"])
def test_action_is_refused_to_a_session_without_its_scope(browser: Browser, account: Harness, action: str) -> None:
    browser.sign_in(read_only=True)
    assert f"{PLACE}/{action}" not in browser.get(PLACE).text
    assert browser.submit(f"{PLACE}/{action}").status == 403
    assert account.kommo.refreshes == {}


def test_function_that_does_not_answer_keeps_the_form_and_its_key(browser: Browser, account: Harness) -> None:
    page = browser.get(f"{PLACE}/call")
    hidden = {name: page.value(name) for name in ("csrf_token", "idempotency_key", "etag")}
    lost = StackUnavailable("function_unavailable", "the function did not answer")
    with patch.object(lambda_functions, "invoke", side_effect=lost):
        answer = browser.post(f"{PLACE}/call", {**hidden, "method": "POST", "path": "/api/<i>", "json": '{"a": 1}'})
    assert answer.status == 503
    assert "It is not known whether this was done" in answer.text
    assert 'value="/api/&lt;i&gt;"' in answer.text
    assert answer.value("idempotency_key") == hidden["idempotency_key"]


@pytest.mark.parametrize(("language", "told"), [("pt", "Não se sabe"), ("es", "No se sabe"), ("en", "It is not known")])
def test_table_that_does_not_answer_keeps_the_form_in_each_language(browser: Browser, language: str, told: str) -> None:
    browser.sign_in()
    page = browser.get("/private-integrations/new")
    browser.post("/language", {"csrf_token": page.value("csrf_token"), "language": language})
    hidden = {name: page.value(name) for name in ("csrf_token", "idempotency_key", "etag")}
    with patch("portaria.access.audit.begin", side_effect=StackUnavailable("audit_unavailable", "no audit entry")):
        answer = browser.post("/private-integrations/new", {**hidden, **INTEGRATION})
    assert answer.status == 503
    assert told in answer.text
    assert 'value="BI &lt;b&gt;"' in answer.text
    done = browser.post("/private-integrations/new", {**hidden, **INTEGRATION})
    assert done.status == 200
    assert len(browser.manage.call("GET", "/private-integrations").content["items"]) == 1


def test_scopes_narrowed_to_several_connections_are_typed_with_spaces(browser: Browser) -> None:
    browser.sign_in()
    sent = {"name": "ERP", "scopes": ["routes:list", "connections:call@crm-1 connections:test@crm-2"]}
    assert browser.submit("/private-integrations/new", sent).status == 200
    (made,) = browser.manage.call("GET", "/private-integrations").content["items"]
    assert set(made["scopes"]) == {"routes:list", "connections:call@crm-1", "connections:test@crm-2"}
