"""Signing in to the console: links, the session's cookie and end, and forms of other sites."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import pytest

from portaria.access import console_sessions
from portaria.aws.table import Table
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected
from portaria.web.console import guard
from tests.fakes.api.console import BASE, ORIGIN, Browser, Page
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.virtual_time import VirtualClock
from tests.simulation.aws import cloud as clouds

ADMINISTRATOR = "arn:aws:iam::123456789012:user/administrator"
NEW = "/private-integrations/new"
FORM = {"name": "BI", "scopes": ["connections:list"]}


def open_link(browser: Browser, url: str) -> Page:
    return browser.get(f"/sign-in?{urlsplit(url).query}")


def stored(cloud: Cloud) -> list[dict[str, Any]]:
    import boto3

    items: list[dict[str, Any]] = boto3.client("dynamodb").scan(TableName=cloud.environment["TABLE_NAME"])["Items"]
    return items


def another(browser: Browser) -> Browser:
    """Another browser at the same function."""
    made = object.__new__(Browser)
    vars(made).update(vars(browser) | {"cookies": {}})
    return made


class TestLinks:
    def test_link_opened_signs_in(self, browser: Browser) -> None:
        assert browser.get("/overview").status == 401
        assert browser.sign_in().status == 200
        assert browser.get("/overview").status == 200

    def test_link_opened_again_is_refused(self, browser: Browser) -> None:
        url, second = browser.link(), another(browser)
        assert open_link(browser, url).status == 200
        assert open_link(second, url).status == 403
        assert second.cookies == {}

    @pytest.mark.parametrize(("seconds", "status"), [(119, 200), (121, 403)])
    def test_link_works_for_two_minutes(self, browser: Browser, clock: VirtualClock, seconds: int, status: int) -> None:
        url = browser.link()
        clock.advance(seconds)
        assert open_link(browser, url).status == status

    @pytest.mark.parametrize("link", ["", "x", "A" * 43, "A" * 44, "../" * 20, "é" * 43, "A" * 3000])
    def test_link_unknown_is_refused(self, browser: Browser, link: str) -> None:
        assert browser.get(f"/sign-in?link={link}").status in (401, 403)
        assert browser.cookies == {}

    def test_link_two_concurrent_openings_make_one_session(self) -> None:
        """Both read the unused link before either uses it. The conditions of the in-memory AWS are atomic."""
        cloud = clouds.Cloud()
        opened: list[str] = []

        class Interleaved(Table):
            def get(self, pk: str, sk: str, **more: Any) -> Any:
                item = super().get(pk, sk, **more)
                if not opened:
                    opened.append("reading")
                    console_sessions.open_link(Table(clouds.TABLE), token, "192.0.2.2", "second")
                    opened.append("second")
                return item

        with clouds.installed(lambda: cloud):
            token, _ = console_sessions.create_link(Table(clouds.TABLE), ADMINISTRATOR, None)
            with pytest.raises(Rejected, match="console_link_invalid"):
                console_sessions.open_link(Interleaved(clouds.TABLE), token, "192.0.2.1", "first")
            sessions, _ = console_sessions.list_page(Table(clouds.TABLE), None, 10)
        assert opened == ["reading", "second"]
        assert [session.browser for session in sessions] == ["second"]

    def test_link_is_created_by_aws_principals_only(self, browser: Browser) -> None:
        _, token = browser.manage.create_integration("connections:list")
        assert browser.manage.program(token, "POST", "/console-sessions", {}).status == 403
        assert browser.manage.program(token, "GET", "/console-sessions").status == 403

    def test_link_read_only_with_scopes_is_invalid(self, browser: Browser) -> None:
        body = {"read_only": True, "scopes": ["connections:list"]}
        assert browser.manage.call("POST", "/console-sessions", body).status == 400


class TestSession:
    def test_session_table_holds_only_hashes(self, browser: Browser, stack: Cloud) -> None:
        url = browser.link()
        link = parse_qs(urlsplit(url).query)["link"][0]
        open_link(browser, url)
        cookie = browser.cookies[guard.COOKIE]
        items = [each for each in stored(stack) if each["pk"]["S"].startswith("CONSOLE_")]
        text = json.dumps(items, default=str)
        assert len(items) == 2
        assert link not in text
        assert cookie not in text
        assert hashlib.sha256(cookie.encode()).hexdigest()[:40] in text

    def test_session_cookie_attributes(self, browser: Browser) -> None:
        (cookie,) = browser.sign_in().headers["Set-Cookie"]
        name, *attributes = cookie.split("; ")
        assert name.startswith("__Host-")
        assert set(attributes) == {"Path=/", "Max-Age=28800", "HttpOnly", "Secure", "SameSite=Strict"}

    def test_session_without_use_ends_after_an_hour(self, browser: Browser, clock: VirtualClock) -> None:
        browser.sign_in()
        clock.advance(minutes=59)
        assert browser.get("/overview").status == 200
        clock.advance(minutes=59)
        assert browser.get("/overview").status == 200
        clock.advance(minutes=61)
        assert browser.get("/overview").status == 401

    def test_session_in_use_ends_after_eight_hours(self, browser: Browser, clock: VirtualClock) -> None:
        browser.sign_in()
        for _ in range(16):
            assert browser.get("/overview").status == 200
            clock.advance(minutes=29, seconds=59)
        assert browser.get("/overview").status == 200
        clock.advance(minutes=1)
        assert browser.get("/overview").status == 401

    def test_session_revoked_ends_at_once(self, browser: Browser) -> None:
        browser.sign_in()
        (session,) = browser.manage.call("GET", "/console-sessions").content["items"]
        assert (session["principal"], session["is_active"]) == (ADMINISTRATOR, True)
        assert browser.manage.call("DELETE", f"/console-sessions/{session['id']}").status == 204
        assert browser.get("/overview").status == 401
        assert browser.manage.call("DELETE", f"/console-sessions/{session['id']}").status == 404

    def test_session_revoked_while_in_use_is_not_written_again(self, browser: Browser, clock: VirtualClock) -> None:
        """The session is deleted between the read of a request and the note that it was used."""
        browser.sign_in()
        table, cookie = browser.manage.cloud.table, Secret(browser.cookies[guard.COOKIE])
        clock.advance(minutes=5)
        read = table.get

        def get(*key: str) -> Any:
            item = read(*key)
            console_sessions.revoke(browser.manage.cloud.table, console_sessions.session_id(cookie))
            return item

        with patch.object(table, "get", get):
            assert console_sessions.find(table, cookie) is None
        assert console_sessions.list_page(table, None, 10) == ([], None)

    def test_sign_out_ends_the_session_for_a_stolen_cookie(self, browser: Browser) -> None:
        browser.sign_in()
        stolen = dict(browser.cookies)
        answer = browser.post("/sign-out", {"csrf_token": browser.get("/audit").value("csrf_token")})
        assert (answer.status, browser.cookies) == (303, {})
        browser.cookies = stolen
        assert browser.get("/overview").status == 401

    def test_session_cookie_is_no_token_and_a_token_no_cookie(self, browser: Browser) -> None:
        _, token = browser.manage.create_integration("connections:list")
        browser.sign_in()
        cookie = browser.cookies[guard.COOKIE]
        for header in ({"Authorization": f"Bearer {cookie}"}, {"Cookie": f"{guard.COOKIE}={cookie}"}):
            assert browser.manage.program("", "GET", "/connections", headers=header).status == 401
        other = another(browser)
        other.cookies = {guard.COOKIE: token}
        assert other.get("/connections").status == 401
        other.cookies = {}
        assert other.get("/connections", Authorization=f"Bearer {token}").status == 401

    @pytest.mark.parametrize("cookie", ["", "x", "A" * 43, "B" * 44, "' OR 1", "%00" * 20])
    def test_session_forged_cookie_is_signed_out(self, browser: Browser, cookie: str) -> None:
        browser.cookies = {guard.COOKIE: cookie}
        assert browser.get("/overview").status == 401
        assert browser.post("/sign-out", {"csrf_token": "x"}).status == 401

    def test_session_id_does_not_open_the_session(self, browser: Browser) -> None:
        browser.sign_in()
        (session,) = browser.manage.call("GET", "/console-sessions").content["items"]
        browser.cookies = {guard.COOKIE: session["id"]}
        assert browser.get("/overview").status == 401

    def test_audit_names_the_principal_of_the_session(self, browser: Browser) -> None:
        browser.sign_in()
        assert browser.submit(NEW, FORM).status == 200
        (entry,) = browser.manage.call("GET", "/audit?operation=create_private_integration").content["items"]
        assert (entry["by"], entry["outcome"]) == (ADMINISTRATOR, "done")
        assert entry["by_name"].startswith("console session ")

    def test_audit_names_the_session_where_another_function_carries_out_the_call(self, browser: Browser) -> None:
        """`call_connection` is invoked with the principal and the session. The request fails, because there is no network."""
        browser.manage.call("POST", "/connections", {
            "name": "erp", "platform": "http", "kind": "api_key", "allowed_domain": "api.example.com",
            "fields": {"header_name": "X-Key"}, "credentials": {"key": "canary-key"},
        })  # fmt: skip
        browser.sign_in()
        assert browser.submit("/connections/erp/call", {"method": "POST", "path": "/orders"}).status >= 400
        (entry,) = browser.manage.call("GET", "/audit?operation=call_connection").content["items"]
        assert entry["by"] == ADMINISTRATOR
        assert entry["by_name"].startswith("console session ")


class TestForms:
    """A form must come from a page of this session and this origin."""

    @pytest.fixture
    def fields(self, browser: Browser) -> dict[str, Any]:
        browser.sign_in()
        page = browser.get(NEW)
        return {**FORM, **{name: page.value(name) for name in ("csrf_token", "idempotency_key", "etag")}}

    def count(self, browser: Browser) -> int:
        return len(browser.manage.call("GET", "/private-integrations").content["items"])

    def test_form_of_this_session_and_origin_is_accepted(self, browser: Browser, fields: dict[str, Any]) -> None:
        assert browser.post(NEW, fields).status == 200
        assert self.count(browser) == 1

    def test_form_without_origin_from_this_site_is_accepted(self, browser: Browser, fields: dict[str, Any]) -> None:
        assert browser.post(NEW, fields, Origin="", **{"Sec-Fetch-Site": "same-origin"}).status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": ORIGIN.replace("https", "http")},
            {"Origin": f"{ORIGIN}.evil.example"},
            {"Origin": f"{ORIGIN}:8443"},
            {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
            {"Origin": "", "Sec-Fetch-Site": "cross-site"},
            {"Origin": "", "Sec-Fetch-Site": "same-site"},
            {"Origin": ""},
        ],
    )
    def test_form_of_another_origin_is_refused(
        self, browser: Browser, fields: dict[str, Any], headers: dict[str, str]
    ) -> None:
        assert browser.post(NEW, fields, **headers).status == 403
        assert self.count(browser) == 0

    @pytest.mark.parametrize("token", ["", "x", "é", "A" * 43, "A" * 5000])
    def test_form_with_wrong_csrf_token_is_refused(self, browser: Browser, fields: dict[str, Any], token: str) -> None:
        assert browser.post(NEW, fields | {"csrf_token": token}).status == 403
        real = fields["csrf_token"]
        tampered = ("A" if real[0] != "A" else "B") + real[1:]
        assert browser.post(NEW, fields | {"csrf_token": tampered}).status == 403
        assert self.count(browser) == 0

    def test_form_with_missing_or_repeated_csrf_token_is_refused(
        self, browser: Browser, fields: dict[str, Any]
    ) -> None:
        without = {name: value for name, value in fields.items() if name != "csrf_token"}
        assert browser.post(NEW, without).status == 403
        assert browser.post(NEW, fields | {"csrf_token": [fields["csrf_token"], "x"]}).status == 403
        assert self.count(browser) == 0

    def test_form_with_csrf_token_of_another_session_is_refused(self, browser: Browser, fields: dict[str, Any]) -> None:
        other = another(browser)
        other.sign_in()
        foreign = other.get(NEW).value("csrf_token")
        assert foreign != fields["csrf_token"]
        assert browser.post(NEW, fields | {"csrf_token": foreign}).status == 403
        assert self.count(browser) == 0

    def test_page_asked_with_get_changes_nothing(self, browser: Browser, fields: dict[str, Any]) -> None:
        session = dict(browser.cookies)
        assert browser.get(f"{NEW}?name=BI&scopes=connections:list&csrf_token={fields['csrf_token']}").status == 200
        assert browser.get(f"/sign-out?csrf_token={fields['csrf_token']}").status == 404
        assert browser.cookies == session
        assert self.count(browser) == 0


def test_console_pages_forbid_framing_inline_script_and_caching(browser: Browser) -> None:
    signed_out = browser.get("/overview")
    opened = browser.sign_in()
    for page in (signed_out, opened, browser.get("/overview"), browser.get("/unknown"), browser.get("/sign-in?link=x")):
        policy = dict(each.split(" ", 1) for each in page.headers["Content-Security-Policy"][0].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert page.headers["X-Frame-Options"] == ["DENY"]
        assert page.headers["Cache-Control"] == ["no-store"]
        assert page.headers["X-Content-Type-Options"] == ["nosniff"]
        assert page.headers["Referrer-Policy"] == ["same-origin"]
        assert "style=" not in page.text


@pytest.mark.parametrize(
    "back",
    [
        "https://evil.example/", "//evil.example", f"{BASE}//evil.example", f"{BASE}/\\evil.example", "javascript:alert(1)",
        "/live/consoles", "\\\\evil.example", f"{BASE}/../../evil", "", f"{BASE}/x\r\nSet-Cookie: a=b",
    ],
)  # fmt: skip
def test_language_back_leads_only_to_the_console(browser: Browser, back: str) -> None:
    browser.sign_in()
    token = browser.get("/audit").value("csrf_token")
    answer = browser.post("/language", {"csrf_token": token, "language": "pt", "back": back})
    assert answer.status == 303
    assert answer.location == BASE


def test_language_is_kept_for_later_pages(browser: Browser) -> None:
    browser.sign_in()
    token = browser.get("/audit").value("csrf_token")
    answer = browser.post("/language", {"csrf_token": token, "language": "pt", "back": f"{BASE}/audit"})
    assert answer.location == f"{BASE}/audit"
    assert '<html lang="pt-BR">' in browser.get("/audit").text
    assert browser.post("/language", {"csrf_token": token, "language": "xx"}).status == 400
