"""Finding receipts and dead letters by the ids that people have at hand."""

from __future__ import annotations

from tests.fakes.api.console import BASE, Browser
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put


def test_search_by_record_shows_its_dead_letter(browser: Browser, stack: Cloud) -> None:
    put(stack, letter())
    browser.sign_in()
    page = browser.get("/search?record=kommo-acme-1/37054081")
    assert page.status == 200
    assert f'href="{BASE}/dead-letters/letter-1"' in page.text
    assert "letter-1" not in browser.get("/search?record=kommo-acme-1/1").text


def test_search_without_values_asks_for_them(browser: Browser) -> None:
    browser.sign_in()
    page = browser.get("/search")
    assert page.status == 200
    assert 'name="correlation_id"' in page.text
    assert 'class="empty"' not in page.text


def test_search_that_the_api_refuses_shows_why_and_what_was_entered(browser: Browser) -> None:
    browser.sign_in()
    page = browser.get("/search?request=req-1&correlation_id=corr-1")
    assert 'role="alert"' in page.text
    assert 'value="req-1"' in page.text
    assert 'role="alert"' in browser.get("/search?receipt=none").text


def test_search_is_left_out_without_its_scopes(browser: Browser) -> None:
    browser.sign_in(scopes=["routes:list"])
    assert f"{BASE}/search" not in browser.get("/overview").text
    assert 'class="empty"' in browser.get("/search?record=kommo-acme-1/37054081").text
