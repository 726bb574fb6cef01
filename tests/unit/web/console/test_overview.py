"""The overview's page: its numbers, their lists, and what a session may not see."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest

from portaria.aws.stack_status import AlarmState, QueueAge, StackStatus
from portaria.core import clock
from portaria.core.item_keys import install_places
from portaria.web.console import charts
from tests.fakes.api.console import BASE, Browser, Page
from tests.fakes.api.manage import add_install
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put
from tests.fakes.virtual_time import VirtualClock


def rows(page: Page, label: str) -> dict[str, str]:
    """The rows of a chart's table, without the links."""
    table = re.search(rf'<table aria-label="{label}">(.*?)</table>', page.text, re.DOTALL)
    assert table, label
    found = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', table[1])
    return {re.sub("<.*?>", "", name): re.sub("<.*?>", "", count) for name, count in found}


def totals(page: Page) -> list[tuple[str, str]]:
    """The links of the totals of both windows of installs, with their numbers."""
    return re.findall(r'<dd><a href="([^"]*)">([^<]*)</a></dd>', page.text)


def install(stack: Cloud, number: int, age: timedelta, state: str = "connected", **fields: Any) -> None:
    received_at = clock.to_iso(clock.now() - age)
    places = install_places(f"{number:026d}", received_at)
    add_install(stack, number, state, received_at=received_at, **places, **fields)


def count(stack: Cloud) -> None:
    functions.load("count_states", stack.environment).handler(
        functions.sample("count_states", "every_five_minutes"), functions.Context()
    )


def test_overview_links_each_total_to_the_installs_that_it_counts(browser: Browser, stack: Cloud) -> None:
    install(stack, 1, timedelta(minutes=1))
    install(stack, 2, timedelta(minutes=2), "failed", reason="code_expired")
    install(stack, 3, timedelta(minutes=3), "failed", reason="answer_lost")
    install(stack, 4, timedelta(days=3), "failed", reason="code_expired")
    count(stack)
    browser.sign_in()
    page = browser.get("/overview")
    found = totals(page)
    assert [number for _, number in found] == ["3", "1", "2", "4", "1", "3"]
    reasons = re.findall(r'<li><a href="([^"]*)">(\w+)</a> <span>(\d+)</span>', page.text)
    assert sorted((name, number) for _, name, number in reasons) == [
        ("answer_lost", "1"), ("answer_lost", "1"), ("code_expired", "1"), ("code_expired", "2"),
    ]  # fmt: skip
    for link, number in [*found, *((link, number) for link, _, number in reasons)]:
        listed = browser.get(link.replace("&amp;", "&").removeprefix(BASE)).text
        assert len(re.findall(r"a\d\.kommo\.com", listed)) == int(number), link


def test_overview_links_dead_letters_to_the_list_of_the_reason(browser: Browser, stack: Cloud) -> None:
    put(stack, letter("letter-1"), letter("letter-2"), letter("letter-3", reason="refused_by_destination"))
    count(stack)
    browser.sign_in()
    page = browser.get("/overview")
    assert rows(page, "Dead letters by reason") == {"no_dedupe_value": "2", "refused_by_destination": "1"}
    assert f'href="{BASE}/dead-letters?reason=no_dedupe_value&amp;state=open"' in page.text


def test_overview_shows_alarms_and_ages_of_queues(browser: Browser) -> None:
    alarm = AlarmState("RecordsOldAlarm", "Records wait. <b>", clock.to_iso(clock.now()), "https://example.com/alarm")
    ages = (QueueAge("records", 4), QueueAge("exchanges", 700), QueueAge("renewals", None))
    browser.sign_in()
    with (
        patch.object(StackStatus, "alarms", return_value=(alarm,)),
        patch.object(StackStatus, "queue_ages", return_value=ages),
    ):
        page = browser.get("/overview")
    assert '<a href="https://example.com/alarm" rel="noreferrer">RecordsOldAlarm</a>' in page.text
    assert "Records wait. &lt;b&gt;" in page.text
    assert rows(page, "Oldest message of each queue") == {
        "Records": "4 s", "Proven installs": "11 minutes", "Token renewals": "empty",
    }  # fmt: skip


def test_overview_without_an_answer_of_cloudwatch_says_so(browser: Browser, stack: Cloud) -> None:
    count(stack)
    browser.sign_in()
    with (
        patch.object(StackStatus, "alarms", return_value=None),
        patch.object(StackStatus, "queue_ages", return_value=None),
    ):
        page = browser.get("/overview")
    assert page.status == 200
    assert "CloudWatch did not answer" in page.text
    assert "No alarm is on" not in page.text
    assert rows(page, "Connections by state")["connected"] == "0"


def test_overview_says_when_counts_are_old(browser: Browser, stack: Cloud, clock: VirtualClock) -> None:
    count(stack)
    browser.sign_in()
    assert 'class="hint stale"' not in browser.get("/overview").text
    clock.advance(minutes=16)
    assert 'class="hint stale"' in browser.get("/overview").text


def test_overview_before_the_first_count_says_so(browser: Browser) -> None:
    browser.sign_in()
    assert "The first counts appear within five minutes" in browser.get("/overview").text


def test_overview_of_a_session_without_its_scope_shows_only_permitted_lists(browser: Browser, stack: Cloud) -> None:
    install(stack, 1, timedelta(minutes=2), "failed", reason="code_expired")
    count(stack)
    browser.sign_in(scopes=["installs:list"])
    page = browser.get("/overview")
    assert page.status == 200
    assert "Newest failed installs" in page.text
    assert "Connections by state" not in page.text


@pytest.mark.parametrize("language", ["pt", "es", "en"])
def test_overview_is_complete_in_each_language(browser: Browser, stack: Cloud, language: str) -> None:
    put(stack, letter("letter-1"))
    count(stack)
    browser.sign_in()
    browser.cookies["portaria-console-language"] = language
    page = browser.get("/overview")
    assert page.status == 200
    assert f'<html lang="{"pt-BR" if language == "pt" else language}">' in page.text


def test_columns_stack_within_the_chart_and_show_single_installs() -> None:
    counted = [
        {"connected": 5_000, "failed": 1, "in_progress": 1},
        {"connected": 0, "failed": 0, "in_progress": 0},
        {"connected": 1, "failed": 0, "in_progress": 0},
    ]
    first, second, third = charts.columns(counted, ["a", "b", "c"], 1)
    assert [piece.colour for piece in first.pieces] == ["good", "busy", "bad"]
    assert all(piece.y >= 0 and piece.height >= 2 for piece in (*first.pieces, *third.pieces))
    assert second.pieces == ()
    for below, above in zip(first.pieces, first.pieces[1:], strict=False):
        assert above.y + above.height == pytest.approx(below.y, abs=0.2)
