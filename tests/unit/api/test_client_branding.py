"""What an OAuth client shows its customers, as an administrator sets it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from portaria.core.item_keys import oauth_client_key
from tests.fakes.api.manage import Manage, watched
from tests.fakes.aws.moto_cloud import Cloud

CLIENT: dict[str, Any] = {
    "platform": "kommo",
    "name": "aurora",
    "client_id": "client-1",
    "client_secret": "canary-client-secret",
    "display_name": "Aurora Sync",
    "colour": "#7C3AED",
    "support_email": "help@example.com",
    "support_url": "https://www.example.com/help?from=portaria#top",
    "privacy_url": "https://www.example.com/privacy",
    "terms_url": "https://www.example.com/terms",
    "return_urls": ["https://app.example.com/done", "https://app.example.com/portaria/*"],
}
PATH = "/oauth-clients/kommo/aurora"
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="{height}"></svg>'


def logo(height: int = 64) -> str:
    return base64.b64encode(DRAWING.format(height=height).encode()).decode()


def replacement(**changes: Any) -> dict[str, Any]:
    kept = {name: value for name, value in CLIENT.items() if name not in ("platform", "name", "client_secret")}
    return kept | changes


@pytest.fixture
def manage(stack: Cloud) -> Iterator[Manage]:
    with watched(stack) as manage:
        yield manage


def logos_of(manage: Manage) -> list[str]:
    pk, _ = oauth_client_key("kommo", "aurora")
    return sorted(item["sk"] for item in manage.cloud.table.query_all(pk, sk_prefix="LOGO#"))


def test_client_branding_is_stored_and_shown(manage: Manage) -> None:
    made = manage.call("POST", "/oauth-clients", {**CLIENT, "logo": logo()})
    assert made.status == 201, made.text
    shown = manage.call("GET", PATH).content
    for name in ("display_name", "support_email", "support_url", "privacy_url", "terms_url", "return_urls"):
        assert shown[name] == CLIENT[name]
    assert shown["colour"] == "#7c3aed"
    assert shown["logo_url"].startswith(f"{shown['redirect_uri']}/logo/")
    assert [f"LOGO#{shown['logo_url'].rpartition('/')[2]}"] == logos_of(manage)
    assert "logo" not in shown


def test_client_without_branding_shows_nulls(manage: Manage) -> None:
    fields = ("platform", "name", "client_id", "client_secret")
    made = manage.call("POST", "/oauth-clients", {name: CLIENT[name] for name in fields}).content
    assert made["return_urls"] == []
    for name in ("display_name", "logo_url", "colour", "support_email", "support_url", "privacy_url", "terms_url"):
        assert made[name] is None


def test_client_replacement_keeps_logo_and_clears_the_other_fields(manage: Manage) -> None:
    first = manage.call("POST", "/oauth-clients", {**CLIENT, "logo": logo()}).content
    replaced = manage.call("PUT", PATH, {"client_id": "client-1"}).content
    assert replaced["logo_url"] == first["logo_url"]
    assert (replaced["display_name"], replaced["return_urls"]) == (None, [])


def test_client_logo_replaced_or_removed_leaves_no_other_behind(manage: Manage) -> None:
    first = manage.call("POST", "/oauth-clients", {**CLIENT, "logo": logo()}).content
    second = manage.call("PUT", PATH, replacement(logo=logo(32))).content
    assert second["logo_url"] != first["logo_url"]
    assert [f"LOGO#{second['logo_url'].rpartition('/')[2]}"] == logos_of(manage)
    assert manage.call("PUT", PATH, replacement(logo="")).content["logo_url"] is None
    assert logos_of(manage) == []


def test_client_logo_of_a_stale_edit_does_not_replace_the_present_one(manage: Manage) -> None:
    made = manage.call("POST", "/oauth-clients", {**CLIENT, "logo": logo()})
    etag = made.headers["ETag"]
    manage.call("PUT", PATH, replacement(colour="#000000"))
    stale = manage.call(
        "PUT",
        PATH,
        replacement(logo=logo(32)),
        multiValueHeaders={"If-Match": [etag], "Content-Type": ["application/json"]},
    )
    assert stale.status == 412
    assert manage.call("GET", PATH).content["logo_url"] == made.content["logo_url"]
    assert f"LOGO#{made.content['logo_url'].rpartition('/')[2]}" in logos_of(manage)


def test_client_deletion_removes_its_logo(manage: Manage) -> None:
    manage.call("POST", "/oauth-clients", {**CLIENT, "logo": logo()})
    assert manage.call("DELETE", PATH).status == 204
    assert logos_of(manage) == []


def test_client_colour_close_to_the_page_is_accepted_with_a_warning(manage: Manage) -> None:
    made = manage.call("POST", "/oauth-clients", {**CLIENT, "colour": "#ffd400"}).content
    assert any("light scheme" in warning for warning in made["warnings"])
    changed = manage.call("PUT", PATH, replacement(colour="#7c7c7c")).content
    assert not any("scheme" in warning for warning in changed["warnings"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("display_name", value) for value in ("", " Aurora", "Aurora ", "x" * 61, "a\nb", "a\u202eb", "a\u200bb", "<b>")),
        *(("colour", value) for value in ("", "red", "#fff", "#12345", "#1234567", "#12345g", "7c3aed", "#12345\n", "url(x)")),
        *(("support_email", value) for value in ("", "x", "a@b", "a b@c.de", "a@b.c>", "a@b.example?cc=x@y.example")),
        *(
            (name, value)
            for name in ("support_url", "privacy_url", "terms_url")
            for value in (
                *("", "http://www.example.com/", "javascript:alert(1)", "//www.example.com/", "https://user@www.example.com/"),
                *("https://www.example.com\\@evil.example/", "https://www.example.com/ x", "https://www.example.com/\"", "https://x/"),
                *("https://www.example.com/" + "x" * 480, "https://1.2.3.4/", "data:text/html,x", "https://www.example.com/<script>"),
            )
        ),
        *(
            ("return_urls", value)
            for value in (["https://*"], ["http://app.example.com/*"], ["https://a.example"], ["https://a.example/"] * 11)
        ),
        *(
            ("logo", value)
            for value in ("x", "!!!!", "AAAA", base64.b64encode(b"<svg><script/></svg>").decode(), "A" * 70_000, "é")
        ),
    ],
)  # fmt: skip
def test_client_branding_that_breaks_a_rule_is_refused(manage: Manage, field: str, value: Any) -> None:
    refused = manage.call("POST", "/oauth-clients", {**CLIENT, field: value})
    assert refused.status == 400
    assert refused.content["field"].split(".")[0] == field
    assert manage.call("GET", PATH).status == 404
    assert logos_of(manage) == []


def test_client_return_urls_are_kept_once_and_in_order(manage: Manage) -> None:
    urls = ["https://b.example.com/", "https://a.example.com/*", "https://b.example.com/"]
    made = manage.call("POST", "/oauth-clients", {**CLIENT, "return_urls": urls}).content
    assert made["return_urls"] == urls[:2]
