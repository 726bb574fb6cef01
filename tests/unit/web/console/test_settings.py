"""The settings: what the page shows, and what the operation answers if AWS does not."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from portaria.aws.stack_status import StackDescription, StackStatus
from portaria.overview import stored_checks
from tests.fakes.api.console import BASE, Browser
from tests.fakes.api.manage import Manage
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put

DESCRIBED = StackDescription(
    "UPDATE_COMPLETE",
    "2026-03-01T10:00:00.000Z",
    {"ReconcileEvery": "30", "AlarmEmail": "<ops@example.com>"},
    {"ApiUrl": "https://portaria.example.com"},
)


def test_settings_show_parameters_limits_and_links(browser: Browser) -> None:
    browser.sign_in()
    with patch.object(StackStatus, "describe", return_value=DESCRIBED):
        page = browser.get("/settings")
    assert page.status == 200
    assert "<code>ReconcileEvery</code>" in page.text
    assert "&lt;ops@example.com&gt;" in page.text
    assert "https://portaria.example.com" in page.text
    assert "UPDATE_COMPLETE" in page.text
    assert "https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#alarmsV2" in page.text


def test_settings_show_the_findings_with_the_worst_first(browser: Browser, stack: Cloud) -> None:
    put(stack, letter("letter-1"))
    browser.sign_in()
    page = browser.get("/settings").text
    assert page.index("1 are open: no_dedupe_value (1)") < page.index(
        "all narrowed scopes are for connections that exist"
    )
    assert "docs/operations.md#dead-letters" in page


@pytest.mark.parametrize("language", ["pt", "es", "en"])
def test_settings_have_every_text(browser: Browser, language: str) -> None:
    browser.sign_in()
    browser.cookies["portaria-console-language"] = language
    assert browser.get("/settings").status == 200


def test_settings_without_cloudformation_have_no_parameters(manage: Manage) -> None:
    with patch.object(StackStatus, "describe", return_value=None):
        found = manage.call("GET", "/settings").content
    assert (found["parameters"], found["status"], found["updated_at"]) == (None, None, None)
    assert found["api_url"].startswith("https://")


def test_settings_one_check_fails_shows_the_others(manage: Manage) -> None:
    def broken(stored: stored_checks.StoredState) -> None:
        raise ValueError("canary")

    with patch.dict(stored_checks.CHECKS, {"domains": broken}):
        found = manage.call("GET", "/settings")
    states = {each["check"]: each["state"] for each in found.content["findings"]}
    assert states["domains"] == "warn"
    assert states["dead letters"] == "ok"
    assert "canary" not in found.text


def test_settings_need_their_scope(browser: Browser, manage: Manage) -> None:
    _, token = manage.create_integration("overview:show")
    assert manage.program(token, "GET", "/settings").status == 403
    browser.sign_in(scopes=["installs:list"])
    assert f"{BASE}/settings" not in browser.get("/overview").text
    assert browser.get("/settings").status == 403
