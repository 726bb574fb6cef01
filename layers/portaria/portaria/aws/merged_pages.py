"""Pages of a list that is merged from several partitions of an index.

The sort key is an item's place in the list, which never changes: a name, or a time and an id. An item that moves to another
partition between two pages keeps its place. It is therefore on one page only, and a cursor is the same place in every
partition.
"""

from __future__ import annotations

from collections.abc import Sequence

from portaria.aws.table import INDEXES, Item, Table, encode_cursor, read_place, run_concurrently


def merged_page(
    table: Table,
    partitions: Sequence[str],
    *,
    index: str,
    cursor: str | None,
    limit: int,
    newest_first: bool = False,
    since: str = "",
) -> tuple[list[Item], str | None]:
    """One page of the items of several partitions, ordered by their place, and the cursor of the next page or None.

    One query reads each partition, of at most `limit` + 1 items. `since` is a place, which `newest_first` lists end at. An item
    that moves between partitions meanwhile can be in two of them or in none for a moment, because indexes are eventually
    consistent; it is returned once at most. Raises `Rejected` (`bad_cursor`).
    """
    after = read_place(cursor) if cursor else ""
    if newest_first and after and after < since:
        return [], None
    bounds = {"sk_from": since, "sk_until": after} if newest_first else {"sk_from": after}

    def read(partition: str) -> tuple[list[Item], str | None]:
        # One more than the page, because the bound itself is read again.
        return table.query(partition, index=index, limit=limit + 1, newest_first=newest_first, **bounds)

    place = INDEXES[index][1]
    pages = run_concurrently(read, partitions)
    found = {item[place]: item for items, _ in pages for item in items if item[place] != after}
    ordered = sorted(found, reverse=newest_first)
    # A partition that has more is known only up to its last item that was read: what lies behind it comes with the next page.
    ends = [items[-1][place] for items, more in pages if more and items]
    if ends:
        end = max(ends) if newest_first else min(ends)
        ordered = [each for each in ordered if (each >= end if newest_first else each <= end)]
    shown = ordered[:limit]
    is_last = not ends and len(shown) == len(ordered)
    return [found[each] for each in shown], None if is_last or not shown else encode_cursor(shown[-1])
