"""The overview's counts, and what they are read from."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from portaria.core import clock
from portaria.core.item_keys import install_places
from portaria.web.console.api_calls import ApiCalls
from tests.fakes.api.console import BASE, Browser, Page
from tests.fakes.api.manage import add_install
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put


def counts(page: Page, label: str) -> dict[str, str]:
    """The rows of a chart's table."""
    table = re.search(rf'<table aria-label="{label}">(.*?)</table>', page.text, re.DOTALL)
    assert table
    return dict(re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', table[1]))


def install(stack: Cloud, number: int, age: timedelta, state: str = "connected") -> None:
    received_at = clock.to_iso(clock.now() - age)
    add_install(stack, number, state, received_at=received_at, **install_places(f"{number:026d}", received_at))


def test_overview_counts_the_installs_of_the_last_day_by_state(browser: Browser, stack: Cloud) -> None:
    for number, state in enumerate(["failed", "connected", "connected"]):
        install(stack, number, timedelta(hours=number + 1), state)
    install(stack, 9, timedelta(hours=25), "failed")
    browser.sign_in()
    shown = counts(browser.get("/overview"), "Installs of the last 24 hours")
    assert {name: count for name, count in shown.items() if count != "0"} == {"connected": "2", "failed": "1"}


def test_overview_says_where_a_count_is_a_minimum(browser: Browser, stack: Cloud) -> None:
    for number in range(51):
        install(stack, number, timedelta(minutes=number))
    browser.sign_in()
    assert counts(browser.get("/overview"), "Installs of the last 24 hours")["connected"] == "50 or more"


def test_overview_groups_the_newest_dead_letters_by_reason(browser: Browser, stack: Cloud) -> None:
    put(stack, letter("letter-1"), letter("letter-2"), letter("letter-3", reason="refused_by_destination"))
    browser.sign_in()
    page = browser.get("/overview")
    assert counts(page, "Newest dead letters by reason") == {"no_dedupe_value": "2", "refused_by_destination": "1"}
    assert f'href="{BASE}/dead-letters?reason=no_dedupe_value"' in page.text


def test_overview_lists_the_tokens_that_end_soonest_first(browser: Browser) -> None:
    browser.sign_in()
    call = ApiCalls.call

    def answered(self: ApiCalls, operation: str, *given: Any, **more: Any) -> Any:
        answer = call(self, operation, *given, **more)
        if operation == "list_connections" and more["query"]["state"] == "connected":
            answer.content["items"] = [
                {"name": name, "platform": "http", "state": "connected", "token_ends_at": end}
                for name, end in (
                    ("later", "2026-03-01T00:00:00.000Z"),
                    ("none", None),
                    ("soon", "2026-02-01T00:00:00.000Z"),
                )
            ]
        return answer

    with patch.object(ApiCalls, "call", answered):
        page = browser.get("/overview").text
    assert page.index(">soon<") < page.index(">later<")
    assert ">none<" not in page


def test_overview_reads_a_bounded_number_of_pages(browser: Browser) -> None:
    browser.sign_in()
    read: list[int] = []
    call = ApiCalls.call

    def counted(self: ApiCalls, operation: str, *given: Any, **more: Any) -> Any:
        read.append(int(more["query"]["limit"]))
        return call(self, operation, *given, **more)

    with patch.object(ApiCalls, "call", counted):
        assert browser.get("/overview").status == 200
    assert len(read) <= 6
    assert max(read) <= 50
