"""Redriving and deleting dead letters, one or all that match a filter."""

from __future__ import annotations

from tests.fakes.api.console import Browser, Page
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records import dead_letters
from tests.fakes.records.dead_letters import letter, put

REDRIVE, DELETE = "/dead-letters/redrive_matching", "/dead-letters/delete_matching"


def step(browser: Browser, path: str, page: Page, name: str, **fields: str) -> Page:
    hidden = {each: page.value(each) for each in ("csrf_token", "idempotency_key", "next_cursor")}
    return browser.post(path, {**hidden, "step": name, **fields})


def test_dead_letter_is_redriven_from_its_page(browser: Browser, stack: Cloud) -> None:
    put(stack, letter())
    browser.sign_in()
    assert "/dead-letters/letter-1/redrive" in browser.get("/dead-letters/letter-1").text
    done = browser.submit("/dead-letters/letter-1/redrive")
    assert (done.status, "redriven" in done.text) == (200, True)
    assert dead_letters.state(stack) == "redriven"
    assert len(dead_letters.sent(stack)) == 1


def test_redrive_by_filter_sends_nothing_before_it_is_confirmed(browser: Browser, stack: Cloud) -> None:
    put(stack, letter("letter-1"), letter("letter-2"), letter("letter-3", reason="refused_by_destination"))
    browser.sign_in()
    form = browser.get(f"{REDRIVE}?reason=no_dedupe_value")
    assert 'value="no_dedupe_value"' in form.text
    tried = step(browser, REDRIVE, form, "try", reason="no_dedupe_value")
    assert (tried.status, tried.text.count("would be redriven")) == (200, 2)
    assert dead_letters.sent(stack) == []
    done = step(browser, REDRIVE, tried, "confirm", reason="no_dedupe_value")
    assert done.text.count('badge good">redriven') == 2
    assert len(dead_letters.sent(stack)) == 2
    assert [dead_letters.state(stack, f"letter-{number}") for number in (1, 2, 3)] == ["redriven", "redriven", "open"]


def test_redrive_that_is_confirmed_twice_sends_once(browser: Browser, stack: Cloud) -> None:
    put(stack, letter())
    browser.sign_in()
    tried = step(browser, REDRIVE, browser.get(REDRIVE), "try", route="people")
    step(browser, REDRIVE, tried, "confirm", route="people")
    step(browser, REDRIVE, tried, "confirm", route="people")
    assert len(dead_letters.sent(stack)) == 1


def test_deletion_by_filter_shows_counts_first_and_deletes_after_confirmation(browser: Browser, stack: Cloud) -> None:
    put(stack, letter("letter-1"), letter("letter-2"), letter("letter-3", route="other"))
    browser.sign_in()
    tried = step(browser, DELETE, browser.get(DELETE), "try", route="people")
    assert "<dd>2</dd>" in tried.text
    assert len(browser.manage.call("GET", "/dead-letters").content["items"]) == 3
    done = step(browser, DELETE, tried, "confirm", route="people")
    assert (done.status, "<dd>2</dd>" in done.text) == (200, True)
    assert [each["id"] for each in browser.manage.call("GET", "/dead-letters").content["items"]] == ["letter-3"]


def test_bulk_action_without_a_filter_is_refused(browser: Browser, stack: Cloud) -> None:
    put(stack, letter())
    browser.sign_in()
    for path in (REDRIVE, DELETE):
        for name in ("try", "confirm"):
            assert step(browser, path, browser.get(path), name).status == 400
    assert dead_letters.state(stack) == "open"


def test_bulk_action_on_more_than_a_hundred_continues_where_it_ended(browser: Browser, stack: Cloud) -> None:
    put(stack, *(letter(f"letter-{number:03d}") for number in range(101)))
    browser.sign_in()
    tried = step(browser, DELETE, browser.get(DELETE), "try", route="people")
    first = step(browser, DELETE, tried, "confirm", route="people")
    assert first.value("next_cursor")
    second = step(browser, DELETE, first, "confirm", route="people")
    assert second.value("next_cursor") == ""
    assert browser.manage.call("GET", "/dead-letters").content["items"] == []
