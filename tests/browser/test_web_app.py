"""`examples/web_app` on the local cloud, in Chromium: a customer connects Kommo, refuses, and reconnects."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from local import processes
from local.demo import application
from local.demo.application import OAuthClient
from tests.fakes.local_cloud.session import LocalCloud

# The customer of the application that this test connects.
CUSTOMER_ID, CUSTOMER = "c-1003", "Floricultura Primavera"
# Including cold starts, and the delivery of an event.
PATIENCE_MS = 60_000


@pytest.fixture
def client(stack: LocalCloud) -> Iterator[OAuthClient]:
    """An integration at Kommo. The customer of the application has no connection before and after the test."""
    unique = secrets.token_hex(4)
    made = OAuthClient(f"app-{unique}", f"id-{unique}", f"canary-{secrets.token_hex(16)}")
    redirect_uri = f"{stack.public_url}/install/kommo/{made.name}"
    stack.control.add_kommo_client(made.client_id, made.client_secret, redirect_uri, name="Aurora")
    remove_connections(stack)
    yield made
    remove_connections(stack)


def remove_connections(stack: LocalCloud) -> None:
    api = application.administrator(stack.stack)
    of_customer: Any = {"tag.customer_id": CUSTOMER_ID}
    for connection in list(api.list("connections", **of_customer)):
        if connection["state"] != "removed":
            api.delete("connections", connection["name"])


@pytest.fixture
def page(stack: LocalCloud, browser: Browser) -> Iterator[Page]:
    context = browser.new_context(
        locale="en-GB", ignore_https_errors=True, proxy={"server": stack.stack.proxy_url, "bypass": "localhost"}
    )
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


def decide(page: Page, decision: str, host: str) -> None:
    """The hosted install page with the client's brand, then Kommo's consent page."""
    expect(page.locator(".lead")).to_contain_text("Aurora asks for access")
    expect(page.locator(".masthead img")).to_have_js_property("naturalWidth", 64)
    page.get_by_role("link", name="Continue to kommo.com").click()
    page.get_by_label("Account").select_option(host)
    page.get_by_role("button", name=decision).click()


def test_web_app_customer_refuses_connects_and_reconnects(stack: LocalCloud, client: OAuthClient, page: Page) -> None:
    host, other = (
        stack.control.add_kommo_account(f"shop-{secrets.token_hex(3)}", contacts=3, without_email=0.0)["host"]
        for _ in range(2)
    )
    with application.running(stack.stack, client, processes.free_port()) as app:
        card: Locator = page.get_by_role("region", name=CUSTOMER)
        page.goto(app.url)
        expect(card).to_contain_text("not connected")

        card.get_by_role("button", name="Connect Kommo").click()
        decide(page, "Deny", host)
        page.wait_for_url(f"{app.url}/connected?status=refused")
        expect(page.get_by_role("status")).to_contain_text("Nothing was connected")
        expect(card).to_contain_text("not connected")

        card.get_by_role("button", name="Connect Kommo").click()
        decide(page, "Allow", host)
        page.wait_for_url(f"{app.url}/connected?install=*&status=connected")
        expect(page.get_by_role("status")).to_have_text(f"{CUSTOMER} is connected as {host}.")
        expect(card).to_contain_text("connected as")
        expect(card).to_contain_text(f"customer_id: {CUSTOMER_ID}")
        # The application shows an event only after it has verified the signature.
        event = page.get_by_role("group").filter(has_text="connection.ready").first
        expect(event.locator("pre")).to_contain_text(f'"customer_id": "{CUSTOMER_ID}"', timeout=PATIENCE_MS)

        card.get_by_role("link", name="Show contacts").click()
        expect(card.get_by_role("listitem")).to_have_count(3)

        stack.control.disconnect(client.client_id, host)
        card.get_by_role("link", name="Show contacts").click()
        expect(page.get_by_role("alert")).to_contain_text("must be connected again")
        expect(card).to_contain_text("needs reconnect")
        card.get_by_role("button", name="Reconnect").click()
        decide(page, "Allow", other)
        page.wait_for_url(f"{app.url}/connected?install=*&status=failed")
        expect(page.get_by_role("alert")).to_contain_text(f"{CUSTOMER} could not be connected")
        expect(card).to_contain_text("needs reconnect")
        card.get_by_role("button", name="Reconnect").click()
        decide(page, "Allow", host)
        page.wait_for_url(f"{app.url}/connected?install=*&status=connected")
        expect(card).to_contain_text("connected as")
        expect(page.get_by_role("group").filter(has_text="connection.ready")).to_have_count(2, timeout=PATIENCE_MS)
        card.get_by_role("link", name="Show contacts").click()
        expect(card.get_by_role("listitem")).to_have_count(3)
