"""The index `by_filter`, which lists items by the values of their filters.

An index holds an item at most once, so a list with a filter of few values (a state) has one partition for each combination of
its filters' values. A list without that filter is merged from the partitions of all values (`merged_pages`).

`by_filter` projects keys only. A write that changes no filter key costs nothing there, and `read_items` reads the items from
the table.
"""

from __future__ import annotations

from collections.abc import Sequence

from portaria.aws.table import Item, Table

INDEX = "by_filter"


def keys(partition: str, place: str) -> Item:
    """The attributes that add an item to the index."""
    return {"filter_pk": partition, "filter_sk": place}


def read_items(table: Table, entries: Sequence[Item]) -> list[Item]:
    """The items of entries of the index, in their order. Strongly consistent: an item that is gone is left out."""
    wanted = [(entry["pk"], entry["sk"]) for entry in entries]
    items = table.get_many(wanted)
    return [items[key] for key in wanted if key in items]
