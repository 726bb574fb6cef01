"""The audit trail as a CSV file, and the logo of an OAuth client as a file that is uploaded."""

from __future__ import annotations

import base64
import csv
import io
import re
from unittest.mock import patch

import pytest

from portaria.access import audit
from portaria.web.console import forms
from portaria.web.console.forms import MAX_FORM_BYTES
from portaria.web.console.workflows import audit_export
from tests.fakes.api.console import BASE, ORIGIN, Browser, Page
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.virtual_time import VirtualClock

CLIENT = {
    "platform": "kommo",
    "name": "acme",
    "client_id": "5f3c1f0e-8b7a-4c1e-9d57-2b8d2f9a1c10",
    "client_secret": "canary-client-secret",
    "display_name": "Loja",
}
PLACE = "/oauth-clients/kommo/acme"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"><rect width="40" height="20" fill="#0f6b66"/></svg>'


def entry(stack: Cloud, **changes: str) -> None:
    given = {
        "by": "arn:aws:iam::1:user/ana",
        "by_name": "",
        "source": "",
        "operation": "create_route",
        "target": "people",
    }
    audit.begin(stack.table, **(given | changes), asked={"fields": ["name"]}, request_id="r")


def rows(page: Page) -> list[dict[str, str]]:
    assert page.status == 200, page.text
    return list(csv.DictReader(io.StringIO(page.text.removeprefix("\ufeff"))))


class TestAuditExport:
    def test_export_has_every_entry_of_the_filter(self, browser: Browser, stack: Cloud) -> None:
        entry(stack)
        entry(stack, operation="delete_route", target='a "b", c\nd')
        browser.sign_in()
        page = browser.get("/audit/export")
        assert page.headers["Content-Type"] == ["text/csv; charset=utf-8; header=present"]
        assert re.fullmatch(r'attachment; filename="audit-\w+\.csv"', page.headers["Content-Disposition"][0])
        found = rows(page)
        assert {each["operation"] for each in found} == {"create_console_session", "create_route", "delete_route"}
        (deleted,) = rows(browser.get("/audit/export?operation=delete_route"))
        assert (deleted["target"], deleted["asked"]) == ('a "b", c\nd', '{"fields": ["name"]}')
        assert f'href="{BASE}/audit/export?operation=delete_route"' in browser.get("/audit?operation=delete_route").text

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum", "\t=1", "  =1", "\r=1", "＝1", "=cmd|' /C calc'!A0"])
    def test_export_has_no_cell_that_a_spreadsheet_runs(self, browser: Browser, stack: Cloud, text: str) -> None:
        entry(stack, target=text)
        browser.sign_in()
        assert f"'{text}" in [each["target"] for each in rows(browser.get("/audit/export"))]

    def test_export_is_bounded_and_says_where_it_continues(
        self, browser: Browser, stack: Cloud, clock: VirtualClock
    ) -> None:
        for number in range(5):
            clock.advance(1)
            entry(stack, target=f"route-{number}")
        browser.sign_in()
        with patch.multiple(audit_export, PAGES=1, PAGE_SIZE=3):
            first = rows(browser.get("/audit/export?operation=create_route"))
            assert len(first) == 4
            following = first[-1]["at"].removeprefix(f"more entries: {BASE}")
            second = rows(browser.get(following))
        assert [each["target"] for each in first[:3] + second] == [f"route-{number}" for number in (4, 3, 2, 1, 0)]

    def test_export_is_refused_without_its_scope_and_with_a_wrong_filter(self, browser: Browser) -> None:
        browser.sign_in(scopes=["routes:list"])
        assert browser.get("/audit/export").status == 403
        browser.sign_in()
        assert browser.get("/audit/export?since=yesterday").status == 400


class TestLogo:
    @pytest.fixture
    def client(self, browser: Browser) -> Browser:
        assert browser.manage.call("POST", "/oauth-clients", CLIENT).status == 201
        browser.sign_in()
        return browser

    def upload(self, browser: Browser, content: bytes, filename: str = "logo.svg", **changes: str) -> Page:
        page = browser.get(f"{PLACE}/logo")
        given = {name: page.value(name) for name in ("csrf_token", "etag")} | {"do": "upload"} | changes
        return browser.send_file(f"{PLACE}/logo", given, "logo", filename, content)

    def test_logo_is_uploaded_shown_and_removed_and_the_rest_stays(self, client: Browser) -> None:
        done = self.upload(client, SVG)
        assert (done.status, done.location) == (303, f"{BASE}{PLACE}?done=logo")
        shown = client.manage.call("GET", PLACE).content
        assert shown["logo_url"]
        assert (shown["display_name"], shown["credentials_set"]) == ("Loja", ["client_secret"])
        assert shown["logo_url"] in client.get(PLACE).text
        assert self.upload(client, b"", do="remove").status == 303
        assert client.manage.call("GET", PLACE).content["logo_url"] is None

    @pytest.mark.parametrize(
        "content", [b"", b"not an image", b"<svg><script>alert(1)</script></svg>", bytes(range(256)) * 300]
    )
    def test_file_that_is_no_logo_is_refused_beside_the_field(self, client: Browser, content: bytes) -> None:
        refused = self.upload(client, content)
        assert refused.status == 400
        assert 'id="f-logo-error"' in refused.text
        assert client.manage.call("GET", PLACE).content["logo_url"] is None

    def test_upload_after_another_edit_is_refused(self, client: Browser) -> None:
        page = client.get(f"{PLACE}/logo")
        client.submit(f"{PLACE}/edit", {"client_id": CLIENT["client_id"], "display_name": "Outra"})
        given = {name: page.value(name) for name in ("csrf_token", "etag")} | {"do": "upload"}
        stale = client.send_file(f"{PLACE}/logo", given, "logo", "logo.svg", SVG)
        assert stale.status in (409, 412)
        assert "Someone else changed this" in stale.text

    def test_upload_without_the_token_of_the_session_is_refused(self, client: Browser) -> None:
        assert self.upload(client, SVG, csrf_token="x").status == 403

    @pytest.mark.parametrize(
        ("body", "content_type", "status"),
        [
            (b"", "multipart/form-data", 400),
            (b"x", "multipart/form-data; boundary=y", 400),
            (b"--y\r\n\r\nno name\r\n--y--\r\n", "multipart/form-data; boundary=y", 400),
            (
                b'--y\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--y--\r\n',
                "multipart/form-data; boundary=y",
                400,
            ),
            (b"--y\r\n" * 2_000, "multipart/form-data; boundary=y", 400),
            (b"x" * (MAX_FORM_BYTES + 1), "multipart/form-data; boundary=y", 413),
        ],
    )
    def test_parts_that_cannot_be_read_are_refused(
        self, client: Browser, body: bytes, content_type: str, status: int
    ) -> None:
        headers = {"Origin": ORIGIN, "Content-Type": content_type}
        assert client.send("POST", f"{PLACE}/logo", body, headers).status == status

    def test_file_of_any_bytes_arrives_as_it_was_sent(self) -> None:
        content = bytes(range(256)) + b"\r\n\r\n--\r\n" + bytes(range(255, -1, -1))
        head = (
            b'--b\r\nContent-Disposition: form-data; name="logo"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
        )
        sent = forms.parse(head + content + b"\r\n--b--\r\n", "multipart/form-data; boundary=b")
        assert base64.b64decode(sent["logo"][0]) == content
