"""Time lines and notices: what became of an install and of a record, and what to do about it."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from portaria.connections import connection_store
from portaria.core.entities import Connection
from portaria.sources import backfill
from tests.fakes.api.console import BASE, Browser, Page
from tests.fakes.api.manage import add_install
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put, record
from tests.fakes.records.receipts import ID, note, open_receipt
from tests.fakes.virtual_time import DAY_S, VirtualClock

CLIENT = {
    "platform": "kommo",
    "name": "acme",
    "client_id": "5f3c1f0e-8b7a-4c1e-9d57-2b8d2f9a1c10",
    "client_secret": "canary-s",
}
AT = "2026-01-01T00:00:05.000Z"


def steps(page: Page) -> list[tuple[str, str]]:
    """The colour and the heading of each step."""
    found = re.findall(r'<li class="(\w+)">\s*<div><strong>(.*?)</strong>', page.text, re.DOTALL)
    return [(state, html.unescape(re.sub(r"<[^>]+>", "", text))) for state, text in found]


def connect(stack: Cloud, name: str = "kommo-acme-1", **changes: Any) -> None:
    given: dict[str, Any] = {"client": "acme", "account_id": "1"} | changes
    kind = given.pop("kind", "oauth2")
    platform = given.pop("platform", "kommo")
    state = given.pop("state", "connected")
    connection_store.create(
        stack.table, Connection(name, platform, kind, "a.kommo.com", state, 1, "s", version_id="v", **given)
    )


class TestInstall:
    def test_install_that_is_connected_shows_each_step_and_its_backfill(self, browser: Browser, stack: Cloud) -> None:
        install = add_install(
            stack, 1, connection="kommo-acme-1", began_at=AT, stored_at=AT, connected_at=AT, attempts=3
        )
        connect(stack)
        pk, sk = backfill.key("kommo-acme-1", "people", 1)
        stack.table.put(
            {
                "pk": pk, "sk": sk, "connection": "kommo-acme-1", "route": "people", "generation": 1, "object": "contacts",
                "state": "running", "next_place": 501, "pages": 2, "records": 500, "started_at": AT,
            }
        )  # fmt: skip
        browser.sign_in()
        page = browser.get(f"/installs/{install}")
        assert steps(page) == [
            ("good", "Code received"), ("good", "Queued"), ("good", "Code exchanged for tokens"),
            ("good", "Credentials stored"), ("good", "Account's webhooks subscribed"), ("good", "Connected"),
            ("busy", "Backfill"),
        ]  # fmt: skip
        assert "3 attempts" in page.text
        assert "2 pages, 500 records queued so far" in page.text
        assert f'href="{BASE}/connections/kommo-acme-1"' in page.text

    def test_install_that_waits_shows_what_is_still_to_come(self, browser: Browser, stack: Cloud) -> None:
        install = add_install(stack, 1, "received", attempts=0)
        browser.sign_in()
        assert [state for state, _ in steps(browser.get(f"/installs/{install}"))] == [
            "good", "busy", "quiet", "quiet", "quiet", "quiet",
        ]  # fmt: skip

    def test_install_that_failed_says_why_what_to_do_and_creates_the_link(self, browser: Browser, stack: Cloud) -> None:
        browser.manage.call("POST", "/oauth-clients", CLIENT)
        install = add_install(
            stack, 1, "failed", reason="code_expired", detail="it expired <b>", failed_at=AT, tags={"customer_id": "42"}
        )
        browser.sign_in()
        page = browser.get(f"/installs/{install}")
        assert steps(page)[-1] == ("bad", "Failed")
        assert "it expired &lt;b&gt;" in page.text
        assert "lives a few minutes" in page.text
        made = browser.submit(f"/installs/{install}/reconnect")
        assert re.search(r'id="once-url" readonly value="https://[^"]+\?link=', made.text)
        (link,) = browser.manage.call("GET", "/install-links").content["items"]
        assert (link["purpose"], link["tags"]) == ("install", {"customer_id": "42"})

    def test_reconnect_link_is_for_exactly_the_connection_of_the_install(self, browser: Browser, stack: Cloud) -> None:
        browser.manage.call("POST", "/oauth-clients", CLIENT)
        connect(stack, state="needs_reconnect")
        install = add_install(stack, 1, "failed", reason="answer_lost", connection="kommo-acme-1", failed_at=AT)
        browser.sign_in()
        browser.submit(f"/installs/{install}/reconnect")
        (link,) = browser.manage.call("GET", "/install-links").content["items"]
        assert (link["purpose"], link["connection"]) == ("reconnect", "kommo-acme-1")

    def test_install_that_is_connected_offers_no_link(self, browser: Browser, stack: Cloud) -> None:
        install = add_install(stack, 1, connection="kommo-acme-1")
        browser.sign_in()
        assert "/reconnect" not in browser.get(f"/installs/{install}").text


class TestRecord:
    def test_receipt_shows_its_request_and_what_is_awaited(self, browser: Browser, stack: Cloud) -> None:
        note(stack.table, "req-7")
        open_receipt(stack.table, requests=("req-7",))
        browser.sign_in()
        found = steps(browser.get(f"/receipts/{ID}"))
        assert found == [
            ("good", "Accepted from a program"),
            ("good", "Sent to the destination"),
            ("quiet", "Waiting for the destination's report"),
        ]

    def test_dead_letter_says_what_to_do_and_opens_the_route_with_its_record(
        self, browser: Browser, stack: Cloud
    ) -> None:
        put(stack, letter())
        browser.sign_in()
        page = browser.get("/dead-letters/letter-1")
        assert steps(page) == [("bad", "Became a dead letter")]
        assert f'href="{BASE}/routes/people/preview?letter=letter-1"' in page.text

    @pytest.mark.parametrize(
        "query", ["email=ana@example.com", "source=kommo-acme-1&key=7", "record=kommo-acme-1/7", "request=req-1"]
    )
    def test_search_shows_the_time_line_of_a_record(self, browser: Browser, stack: Cloud, query: str) -> None:
        put(stack, letter(records=[record("7", email="Ana@example.com")], request="req-1"), letter("other"))
        browser.sign_in()
        page = browser.get(f"/search?{query}")
        assert steps(page) == [("bad", "Became a dead letter")], page.text
        assert f'href="{BASE}/dead-letters/letter-1"' in page.text
        assert "dead-letters/other" not in page.text


class TestNotices:
    def test_connection_that_must_be_reconnected_leads_to_the_link(self, browser: Browser, stack: Cloud) -> None:
        connect(stack, state="needs_reconnect")
        browser.sign_in()
        page = browser.get("/connections/kommo-acme-1")
        assert f'href="{BASE}/connections/kommo-acme-1/reconnect"' in page.text
        assert f'href="{BASE}/connections/kommo-acme-1/renew"' not in page.text

    def test_grant_that_ends_soon_leads_to_its_renewal(
        self, browser: Browser, stack: Cloud, clock: VirtualClock
    ) -> None:
        connect(stack)
        browser.sign_in()
        assert "The grant ends in" not in browser.get("/connections/kommo-acme-1").text
        clock.advance(85 * DAY_S)
        browser.sign_in()
        page = browser.get("/connections/kommo-acme-1")
        assert "The grant ends in" in page.text
        assert f'href="{BASE}/connections/kommo-acme-1/renew"' in page.text

    @pytest.mark.parametrize(("days", "kind"), [(79, ""), (80, "warn"), (90, "bad")])
    def test_token_of_an_integration_is_to_be_rotated_at_80_and_90_days(
        self, browser: Browser, clock: VirtualClock, days: int, kind: str
    ) -> None:
        integration, _ = browser.manage.create_integration("routes:list")
        clock.advance(days * DAY_S)
        browser.sign_in()
        page = browser.get(f"/private-integrations/{integration}")
        assert (f"This token is {days} days old" in page.text) == bool(kind)
        assert (f'<p class="notice {kind}">This token' in page.text) == bool(kind)
        assert ('class="badge' in browser.get("/private-integrations").text) == bool(kind)

    @pytest.mark.parametrize(
        ("reason", "kind", "told"),
        [
            (None, "", "Portaria cannot read"),
            ("wrong_redirect_uri", "bad", "has another redirect URI registered"),
            ("code_expired", "", "The platform sends codes to this URI"),
        ],
    )
    def test_redirect_uri_is_checked_by_the_newest_install(
        self, browser: Browser, stack: Cloud, reason: str | None, kind: str, told: str
    ) -> None:
        browser.manage.call("POST", "/oauth-clients", CLIENT)
        if reason:
            add_install(stack, 1, "failed", reason="code_expired" if kind == "bad" else "wrong_redirect_uri")
            add_install(stack, 2, "failed", reason=reason)
            add_install(stack, 3, "failed", reason="wrong_redirect_uri", client="other")
        browser.sign_in()
        page = browser.get("/oauth-clients/kommo/acme")
        assert f'<p class="notice {kind}">' in page.text
        assert told in page.text
        assert re.search(r'<input class="copied" readonly value="https://[^"]+/install/kommo/acme"', page.text)
