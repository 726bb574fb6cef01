"""Redriving and deleting dead letters, one or all that match a filter."""

from __future__ import annotations

import re
from unittest.mock import patch

from portaria.core.errors import StackUnavailable
from portaria.records import dead_letter_redrive
from tests.fakes.api.console import BASE, Browser, Page
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


def test_dead_letters_that_are_selected_are_tried_then_redriven(browser: Browser, stack: Cloud) -> None:
    put(stack, letter("letter-1"), letter("letter-2"), letter("letter-3"))
    browser.sign_in()
    page = browser.get("/dead-letters")
    assert page.text.count('name="ids" value="letter-') == 3
    chosen = {"csrf_token": page.value("csrf_token"), "ids": ["letter-1", "letter-3"], "step": "try"}
    tried = browser.post("/dead-letters/selected", {**chosen, "do": "redrive_matching"})
    assert f'action="{BASE}{REDRIVE}"' in tried.text
    assert (tried.status, tried.text.count("would be redriven")) == (200, 2)
    assert dead_letters.sent(stack) == []
    hidden = {each: tried.value(each) for each in ("csrf_token", "idempotency_key", "next_cursor")}
    done = browser.post(REDRIVE, {**hidden, "ids": ["letter-1", "letter-3"], "step": "confirm"})
    assert done.text.count('badge good">redriven') == 2
    assert len(dead_letters.sent(stack)) == 2
    assert [dead_letters.state(stack, f"letter-{number}") for number in (1, 2, 3)] == ["redriven", "open", "redriven"]


def test_selection_of_nothing_or_of_what_is_no_id_is_refused(browser: Browser, stack: Cloud) -> None:
    put(stack, letter())
    browser.sign_in()
    token = browser.get("/dead-letters").value("csrf_token")
    for ids in ([], ["<b>"], ["x"] * 101):
        sent = {"csrf_token": token, "ids": ids, "step": "try", "do": "delete_matching"}
        refused = browser.post("/dead-letters/selected", sent)
        assert refused.status == 400
        assert 'name="reason"' in refused.text
        assert "<b>" not in refused.text
    assert browser.post("/dead-letters/selected", {"csrf_token": token, "do": "<b>"}).status == 404
    assert browser.get("/dead-letters/selected").location == f"{BASE}/dead-letters"


def test_dead_letters_are_counted_by_reason_and_route(browser: Browser, stack: Cloud) -> None:
    put(
        stack, *(letter(f"letter-{number}") for number in range(3)), letter("other", reason="gave_up", route="firms<i>")
    )
    browser.sign_in()
    page = browser.get("/dead-letters")
    counts = page.text.split("By reason and route")[1].split("</section>")[0]
    assert re.findall(r'<a href="[^"]*\?reason=(\w+)&amp;route=([^"]*)"', counts) == [
        ("no_dedupe_value", "people"), ("gave_up", "firms%3Ci%3E"),
    ]  # fmt: skip
    assert ">3</td>" in counts
    assert "<i>" not in page.text
    filtered = browser.get("/dead-letters?reason=gave_up")
    assert "no_dedupe_value" not in filtered.text.split("By reason and route")[1]


def test_dead_letters_are_found_by_the_request_that_sent_them(browser: Browser, stack: Cloud) -> None:
    put(stack, letter("letter-1", request="req-1"), letter("letter-2"))
    browser.sign_in()
    page = browser.get("/dead-letters?request=req-1")
    assert "/dead-letters/letter-1" in page.text
    assert "/dead-letters/letter-2" not in page.text


def test_step_whose_answer_is_lost_keeps_its_place_and_its_key(browser: Browser, stack: Cloud) -> None:
    put(stack, letter())
    browser.sign_in()
    tried = step(browser, REDRIVE, browser.get(REDRIVE), "try", route="people")
    key = tried.value("idempotency_key")
    with patch.object(dead_letter_redrive, "redrive", side_effect=StackUnavailable("queue_unavailable", "SQS is away")):
        lost = step(browser, REDRIVE, tried, "confirm", route="people")
    assert lost.status == 503
    assert "It is not known whether this was done" in lost.text
    assert (lost.value("idempotency_key"), lost.value("route")) == (key, "people")
    done = step(browser, REDRIVE, lost, "confirm", route="people")
    assert 'badge good">redriven' in done.text
    assert len(dead_letters.sent(stack)) == 1


def test_bulk_action_on_more_than_a_hundred_continues_where_it_ended(browser: Browser, stack: Cloud) -> None:
    put(stack, *(letter(f"letter-{number:03d}") for number in range(101)))
    browser.sign_in()
    tried = step(browser, DELETE, browser.get(DELETE), "try", route="people")
    first = step(browser, DELETE, tried, "confirm", route="people")
    assert first.value("next_cursor")
    assert "so far" in first.text
    before = {name: first.value(name) for name in ("before_dead_letter_count", "before_record_count")}
    assert before == {"before_dead_letter_count": "100", "before_record_count": "100"}
    second = step(browser, DELETE, first, "confirm", route="people", **before)
    assert second.value("next_cursor") == ""
    assert "<dd>101</dd>" in second.text
    assert browser.manage.call("GET", "/dead-letters").content["items"] == []
