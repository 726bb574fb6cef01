"""Creating a connection of a chosen platform and kind."""

from __future__ import annotations

from portaria import platforms
from tests.fakes.api.console import BASE, Browser

BASIC = "/connections/new?platform=http&kind=basic"
ENTERED = {
    "name": "erp",
    "allowed_domain": "api.example.com",
    "credentials.username": "canary-user",
    "credentials.password": "canary-password",
}


def test_connection_kinds_of_every_platform_are_offered_with_a_form(browser: Browser) -> None:
    browser.sign_in()
    choice = browser.get("/connections/new").text
    for platform in platforms.every():
        for kind in platforms.load(platform.name).connection_kinds.KINDS:
            path = f"/connections/new?platform={platform.name}&amp;kind={kind}"
            assert f'href="{BASE}{path}"' in choice
            assert browser.get(path.replace("&amp;", "&")).status == 200


def test_connection_is_created_with_its_credentials(browser: Browser) -> None:
    browser.sign_in()
    made = browser.submit(BASIC, ENTERED)
    assert (made.status, made.location) == (303, f"{BASE}/connections/erp?done=create")
    shown = browser.manage.call("GET", "/connections/erp").content
    assert (shown["platform"], shown["kind"], shown["state"]) == ("http", "basic", "connected")
    assert sorted(shown["credentials_set"]) == ["password", "username"]


def test_connection_of_kind_basic_needs_only_one_of_username_and_password(browser: Browser) -> None:
    browser.sign_in()
    assert browser.submit(BASIC, {**ENTERED, "credentials.username": ""}).status == 303
    neither = browser.submit(
        BASIC, {**ENTERED, "name": "erp-2", "credentials.username": "", "credentials.password": ""}
    )
    assert (neither.status, "need a username" in neither.text) == (400, True)


def test_connection_without_a_credential_is_refused_beside_its_field(browser: Browser) -> None:
    browser.sign_in()
    sent = {"name": "erp", "allowed_domain": "api.example.com", "fields.header_name": "X-Key"}
    refused = browser.submit("/connections/new?platform=http&kind=api_key", sent)
    assert (refused.status, 'id="f-credentials.key-error"' in refused.text) == (400, True)


def test_connection_that_is_refused_keeps_the_fields_and_no_credential(browser: Browser) -> None:
    browser.sign_in()
    refused = browser.submit("/connections/new?platform=marketo&kind=client_credentials", {
        "name": "crm", "fields.munchkin_id": "wrong id", "credentials.client_id": "canary-id",
        "credentials.client_secret": "canary-client-secret",
    })  # fmt: skip
    assert refused.status == 400
    assert 'value="wrong id"' in refused.text
    assert 'id="f-fields.munchkin_id-error"' in refused.text
    assert "canary" not in refused.text
    assert browser.manage.call("GET", "/connections").content["items"] == []


def test_connection_form_shows_the_pattern_of_each_field(browser: Browser) -> None:
    browser.sign_in()
    page = browser.get("/connections/new?platform=marketo&kind=client_credentials").text
    pattern = platforms.load("marketo").connection_kinds.KINDS["client_credentials"].fields["munchkin_id"].pattern
    assert pattern in page
    assert page.count('type="password"') == 2
    assert 'name="allowed_domain"' not in page


def test_connection_of_unknown_kind_is_not_found(browser: Browser) -> None:
    browser.sign_in()
    assert browser.get("/connections/new?platform=http&kind=none").status == 404
    assert browser.get("/connections/new?kind=basic").status == 404
