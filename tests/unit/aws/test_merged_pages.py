"""Pages that are merged from several partitions of an index."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from portaria.aws import filter_index, merged_pages
from portaria.aws.table import Table, encode_cursor
from portaria.core.errors import Rejected
from tests.fakes.aws.moto_cloud import cloud

STATES = ("open", "closed", "gone")


@pytest.fixture
def table() -> Iterator[Table]:
    with cloud() as stack:
        yield stack.table


def put(table: Table, place: str, state: str) -> None:
    table.put({"pk": f"THING#{place}", "sk": "THING", "state": state, **filter_index.keys(state, place)})


def pages(table: Table, states: tuple[str, ...] = STATES, **how: Any) -> Iterator[list[str]]:
    cursor = None
    while True:
        found, cursor = merged_pages.merged_page(table, states, index=filter_index.INDEX, cursor=cursor, **how)
        yield [item["filter_sk"] for item in found]
        if cursor is None:
            return


@pytest.mark.parametrize("limit", [1, 3, 7, 50])
@pytest.mark.parametrize("newest_first", [False, True])
def test_merged_page_returns_each_item_once_in_order(table: Table, limit: int, newest_first: bool) -> None:
    rng = random.Random(limit)
    state_of = {f"{number:03d}": rng.choice(STATES) for number in rng.sample(range(1_000), 40)}
    for place, state in state_of.items():
        put(table, place, state)
    for states in (STATES, STATES[:1], STATES[1:]):
        expected = sorted((place for place, state in state_of.items() if state in states), reverse=newest_first)
        found = list(pages(table, states, limit=limit, newest_first=newest_first))
        assert [place for page in found for place in page] == expected
        assert all(len(page) == limit for page in found[:-1])


def test_merged_page_since_a_place_ends_there(table: Table) -> None:
    for number in range(20):
        put(table, f"{number:03d}", STATES[number % 3])
    found = [place for page in pages(table, limit=4, newest_first=True, since="007") for place in page]
    assert found == [f"{number:03d}" for number in range(19, 6, -1)]
    behind = encode_cursor("003")
    assert merged_pages.merged_page(
        table, STATES, index=filter_index.INDEX, cursor=behind, limit=4, newest_first=True, since="007"
    ) == ([], None)


@pytest.mark.parametrize("newest_first", [False, True])
def test_merged_page_items_that_change_state_between_pages_come_once(table: Table, newest_first: bool) -> None:
    rng = random.Random(3)
    places = [f"{number:03d}" for number in range(30)]
    for place in places:
        put(table, place, rng.choice(STATES))
    found: list[str] = []
    for page in pages(table, limit=4, newest_first=newest_first):
        found += page
        for place in places:
            put(table, place, rng.choice(STATES))
    assert found == sorted(places, reverse=newest_first)


def test_merged_page_partition_cut_short_by_its_size_loses_nothing(table: Table) -> None:
    """DynamoDB ends a page at a megabyte, before the limit."""
    for number in range(30):
        put(table, f"{number:03d}", STATES[number % 2])
    query = Table.query

    def cut_short(self: Table, pk: str, *, limit: int, **how: Any) -> Any:
        return query(self, pk, limit=min(limit, 3 if pk == "open" else 50), **how)

    with patch.object(Table, "query", cut_short):
        found = [place for page in pages(table, limit=10) for place in page]
    assert found == [f"{number:03d}" for number in range(30)]


@pytest.mark.parametrize("place", ["", "x" * 301, "\ud800", "a\nb", {"pk": "THING#1"}, 7, None])
def test_merged_page_forged_cursor_is_refused(table: Table, place: Any) -> None:
    with pytest.raises(Rejected) as refused:
        merged_pages.merged_page(table, STATES, index=filter_index.INDEX, cursor=encode_cursor(place), limit=5)
    assert refused.value.reason == "bad_cursor"


def test_read_items_leaves_out_items_that_are_gone(table: Table) -> None:
    for place in ("1", "2", "3"):
        put(table, place, "open")
    entries, _ = merged_pages.merged_page(table, STATES, index=filter_index.INDEX, cursor=None, limit=5)
    assert {name for entry in entries for name in entry} == {"pk", "sk", "filter_pk", "filter_sk"}
    table.delete("THING#2", "THING")
    assert [item["pk"] for item in filter_index.read_items(table, entries)] == ["THING#1", "THING#3"]
