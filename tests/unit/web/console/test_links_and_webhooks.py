"""Install links, webhooks with their deliveries, and tags, by the console's forms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from portaria.notifications import deliveries
from portaria.outbound import http_client
from tests.fakes.api.console import BASE, Browser

CLIENT = {
    "platform": "kommo",
    "name": "acme",
    "client_id": "5f3c1f0e-8b7a-4c1e-9d57-2b8d2f9a1c10",
    "client_secret": "canary-client-secret",
}
WEBHOOK = {"url": "https://hooks.example.com/in", "events": "connection.*\ninstall.*", "description": "CRM"}


@pytest.fixture(autouse=True)
def public_host() -> Iterator[None]:
    with patch.object(http_client, "check_public"):
        yield


def create_webhook(browser: Browser) -> str:
    made = browser.submit("/webhooks/new", WEBHOOK)
    assert made.status == 200, made.text
    return str(browser.manage.call("GET", "/webhooks").content["items"][0]["id"])


def test_install_link_is_shown_once_and_deleted(browser: Browser) -> None:
    browser.manage.call("POST", "/oauth-clients", CLIENT)
    browser.sign_in()
    sent = {
        "platform": "kommo",
        "client": "acme",
        "tags": "customer_id = 42",
        "single_use": "true",
        "expires_in_s": "600",
    }
    made = browser.submit("/install-links/new", sent)
    url = re.search(r'id="once-url" readonly value="([^"]+)"', made.text)
    assert url
    assert "?link=" in url[1]
    (link,) = browser.manage.call("GET", "/install-links").content["items"]
    assert (link["tags"], link["single_use"]) == ({"customer_id": "42"}, True)
    shown = browser.get(f"/install-links/{link['id']}")
    assert "customer_id" in shown.text
    assert url[1] not in shown.text + browser.get("/install-links").text
    assert browser.submit(f"/install-links/{link['id']}/delete").status == 303
    assert browser.manage.call("GET", f"/install-links/{link['id']}").status == 404


def test_install_link_that_is_refused_keeps_what_was_entered(browser: Browser) -> None:
    browser.sign_in()
    refused = browser.submit("/install-links/new", {"platform": "kommo", "client": "none-such", "tags": "a = b"})
    assert refused.status == 400
    assert 'value="none-such"' in refused.text
    assert 'id="f-client-error"' in refused.text


def test_webhook_secret_is_shown_once_at_creation_and_rotation(browser: Browser) -> None:
    browser.sign_in()
    made = browser.submit("/webhooks/new", WEBHOOK)
    assert len(re.findall("whsec_[A-Za-z0-9+/=]+", made.text)) == 1
    assert 'id="once-url"' not in made.text
    (webhook,) = browser.manage.call("GET", "/webhooks").content["items"]
    place = f"/webhooks/{webhook['id']}"
    assert webhook["events"] == ["connection.*", "install.*"]
    assert "whsec_" not in browser.get(place).text
    rotated = browser.submit(f"{place}/rotate")
    assert "whsec_" in rotated.text
    assert re.findall('whsec_[^<"]+', rotated.text) != re.findall('whsec_[^<"]+', made.text)


def test_webhook_is_edited_and_disabled_with_its_etag(browser: Browser) -> None:
    browser.sign_in()
    place = f"/webhooks/{create_webhook(browser)}"
    assert 'name="enabled" value="true" checked' in browser.get(f"{place}/edit").text
    edited = browser.submit(f"{place}/edit", {"url": WEBHOOK["url"], "events": "*"})
    assert (edited.status, edited.location) == (303, f"{BASE}{place}?done=edit")
    shown = browser.manage.call("GET", place).content
    assert (shown["state"], shown["events"], shown["description"]) == ("disabled", ["*"], None)
    assert f"{place}/test" not in browser.get(place).text
    assert browser.submit(f"{place}/delete").status == 303
    assert browser.manage.call("GET", place).status == 404


def test_webhook_page_leads_to_deliveries_with_attempts_and_redelivery(browser: Browser) -> None:
    browser.sign_in()
    webhook = create_webhook(browser)
    tested = browser.submit(f"/webhooks/{webhook}/test")
    assert "webhook.test" in tested.text
    (delivery,) = browser.manage.call("GET", f"/webhooks/{webhook}/deliveries").content["items"]
    place = f"/webhook-deliveries/{webhook}/{delivery['id']}"
    assert f'href="{BASE}{place}"' in browser.get(f"/webhooks/{webhook}").text
    listed = browser.get(f"/webhook-deliveries/{webhook}?state=pending")
    assert f'href="{BASE}{place}"' in listed.text
    assert f'href="{BASE}/webhooks/{webhook}"' in listed.text
    assert "webhook.test" in browser.get(place).text
    assert "webhook.test" in browser.submit(f"{place}/redeliver").text
    assert browser.get("/webhook-deliveries").status == 404
    assert browser.get(f"/webhook-deliveries/{webhook}/wd_none").status == 404


def test_redelivery_of_a_time_range_is_counted_first_and_queued_after_confirmation(browser: Browser) -> None:
    browser.sign_in()
    webhook = create_webhook(browser)
    browser.submit(f"/webhooks/{webhook}/test")
    (delivery,) = browser.manage.call("GET", f"/webhooks/{webhook}/deliveries").content["items"]
    table = browser.manage.cloud.table
    found = deliveries.find(table, webhook, delivery["id"])
    assert found
    assert deliveries.ended(table, found, "failed", "no_answer")
    path = f"/webhooks/{webhook}/redeliver"
    wanted = {"since": "2020-01-01T00:00:00Z", "state": "failed"}
    tried = browser.submit(path, {**wanted, "step": "try"})
    assert (tried.status, "<dd>1</dd>" in tried.text) == (200, True)
    assert browser.manage.call("GET", f"/webhooks/{webhook}/deliveries").content["items"][0]["state"] == "failed"
    hidden = {name: tried.value(name) for name in ("csrf_token", "idempotency_key", "since", "state")}
    done = browser.post(path, {**hidden, "step": "confirm"})
    assert (done.status, "<dd>1</dd>" in done.text) == (200, True)
    assert browser.manage.call("GET", f"/webhooks/{webhook}/deliveries").content["items"][0]["state"] == "pending"
    assert "No delivery matches" in browser.submit(path, {**wanted, "step": "try"}).text


def test_redelivery_of_what_is_no_time_keeps_what_was_entered(browser: Browser) -> None:
    browser.sign_in()
    refused = browser.submit(f"/webhooks/{create_webhook(browser)}/redeliver", {"since": "<b>yesterday", "step": "try"})
    assert refused.status == 400
    assert "&lt;b&gt;yesterday" in refused.text


def test_connection_tags_are_replaced_and_removed(browser: Browser) -> None:
    browser.sign_in()
    browser.manage.call("POST", "/connections", {
        "name": "erp", "platform": "http", "kind": "bearer", "allowed_domain": "api.example.com",
        "credentials": {"token": "canary-bearer-token"},
    })  # fmt: skip
    done = browser.submit("/connections/erp/tags", {"tags": "customer_id = 42\nplan = gold"})
    assert (done.status, done.location) == (303, f"{BASE}/connections/erp?done=tags")
    assert browser.manage.call("GET", "/connections/erp").content["tags"] == {"customer_id": "42", "plan": "gold"}
    assert "customer_id = 42" in browser.get("/connections/erp/tags").text
    assert f"{BASE}/connections/erp" in browser.get("/connections?tag.customer_id=42").text
    assert browser.submit("/connections/erp/tags", {"tags": ""}).status == 303
    assert browser.manage.call("GET", "/connections/erp").content["tags"] == {}
