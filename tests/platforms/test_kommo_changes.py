"""Reading the changes of an account: complete, whatever changes meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portaria.core.callbacks import Record, Secret
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.platforms.kommo import companies, contacts, pagination

HOST = "acme.kommo.com"
SINCE = 1_000


class Account:
    """Contacts by id, with the second of their last change. `now` is the platform's clock."""

    def __init__(self, times: dict[int, int], page_size: int = 3) -> None:
        self.times = dict(times)
        self.page_size = page_size
        self.now = 2_000
        self.requests: list[dict[str, str]] = []
        self.meanwhile: Callable[[int], object] = lambda number: None

    def change(self, contact: int) -> None:
        self.times[contact] = self.now

    def send(self, request: Request) -> Response:
        query = {name: values[0] for name, values in parse_qs(urlsplit(request.url).query).items()}
        self.meanwhile(len(self.requests))
        self.requests.append(query)
        since, until = (
            int(query.get(f"filter[updated_at][{end}]", other)) for end, other in (("from", 0), ("to", 9_999))
        )
        by_time = query.get("order[updated_at]") == "asc"
        assert by_time or query["order[id]"] == "asc"
        found = [(time, contact) for contact, time in self.times.items() if since <= time <= until]
        # Kommo does not document the order within one second: the newest ids come first here.
        found.sort(key=lambda each: (each[0], -each[1]) if by_time else each[1])
        page, limit = int(query["page"]), int(query["limit"])
        shown = found[(page - 1) * limit : page * limit]
        links = {"next": {"href": "…"}} if len(found) > page * limit else {}
        entities = [{"id": contact, "updated_at": time} for time, contact in shown]
        if not shown:
            return Response(204)
        return Response(200, {}, json.dumps({"_links": links, "_embedded": {"contacts": entities}}).encode())

    def read(self, since: int = SINCE) -> list[Record]:
        """All pages, as reconciliations request them."""
        records: list[Record] = []
        cursor: str | None = ""
        with patch.object(pagination, "PAGE_SIZE", self.page_size):
            while cursor is not None:
                changes = contacts.read_changes(self.send, HOST, Secret("canary-token"), since, cursor)
                records += changes.records
                cursor = changes.cursor
                assert len(self.requests) < 500
        return records

    def keys(self) -> set[int]:
        return {int(record.key) for record in self.read()}


def test_kommo_read_changes_sends_filter_and_order() -> None:
    account = Account({1: 1_500}, page_size=pagination.PAGE_SIZE)
    account.read()
    assert account.requests == [
        {"page": "1", "limit": "250", "filter[updated_at][from]": "1000", "order[updated_at]": "asc"}
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 7, 20])
@pytest.mark.parametrize("a_second", [1, 2, 3, 4, 50])
def test_kommo_read_changes_returns_everything_changed_since(count: int, a_second: int) -> None:
    times = {contact: 1_000 + contact // a_second for contact in range(count)} | {900: 999, 901: 10}
    account = Account(times)
    assert account.keys() == set(range(count))
    if a_second == 1:
        # One request for each page, and its last record again: no more than with page numbers.
        assert len(account.requests) <= max(1, count // 2)


def test_kommo_read_changes_is_in_ascending_order() -> None:
    account = Account({contact: 1_100 - contact for contact in range(20)})
    times = [record.updated_at for record in account.read()]
    assert times == sorted(times)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.integers(1, 30), st.integers(1_000, 1_006), max_size=30),
    st.dictionaries(st.integers(0, 20), st.lists(st.integers(1, 30), max_size=4), max_size=6),
)
def test_kommo_read_changes_concurrent_changes_hide_no_record(
    times: dict[int, int], changes: dict[int, list[int]]
) -> None:
    account = Account(times)

    def meanwhile(request: int) -> None:
        account.now += 1
        for contact in changes.get(request, []):
            account.change(contact)

    account.meanwhile = meanwhile
    assert account.keys() >= set(times)


@pytest.mark.parametrize("moment", range(1, 12))
def test_kommo_read_changes_record_leaving_a_full_second_hides_no_other(moment: int) -> None:
    """The following contacts move up, one of them from an unread page to one that has been read."""
    account = Account(dict.fromkeys(range(1, 15), 1_100))
    account.meanwhile = lambda request: account.change(1) if request == moment else None
    assert account.keys() == set(range(1, 15))


def test_kommo_read_changes_filter_ignored_by_server_is_retryable() -> None:
    """Otherwise it would be read again without end."""

    def send(request: Request) -> Response:
        entities = [{"id": 1, "updated_at": 10}, {"id": 2, "updated_at": 20}]
        body = {"_links": {"next": {"href": "…"}}, "_embedded": {"contacts": entities}}
        return Response(200, {}, json.dumps(body).encode())

    with pytest.raises(Retryable, match="answer_unreadable"):
        contacts.read_changes(send, HOST, Secret("canary-token"), SINCE, "")


@pytest.mark.parametrize("cursor", ["x", "1,2,3,4", "1,2,x"])
def test_kommo_read_changes_invalid_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Rejected, match="bad_cursor"):
        contacts.read_changes(lambda request: Response(204), HOST, Secret("canary-token"), SINCE, cursor)


def company(**fields: Any) -> dict[str, Any]:
    made = [{"field_code": code, "values": [{"value": value}]} for code, value in fields.items()]
    return {"id": 46, "name": "Padaria Exemplo", "updated_at": 1_500, "custom_fields_values": made or None}


def test_kommo_companies_are_read_by_page_and_by_change() -> None:
    asked: list[str] = []

    def send(request: Request) -> Response:
        asked.append(urlsplit(request.url).path)
        return Response(200, {}, json.dumps({"_embedded": {"companies": [company()]}}).encode())

    page = companies.read_page(send, HOST, Secret("canary-token"), 1)
    changes = companies.read_changes(send, HOST, Secret("canary-token"), SINCE, "")
    assert page.records == changes.records == [Record("46", 1_500, company())]
    assert (page.next_page, changes.cursor) == (None, None)
    assert asked == ["/api/v4/companies"] * 2


def test_kommo_companies_default_mapping_maps_fields() -> None:
    def mapped(entity: dict[str, Any]) -> dict[str, Any]:
        return {name: jmespath.search(expression, entity) for name, expression in companies.DEFAULT_MAPPING.items()}

    assert mapped(company(WEB="https://padaria.example", PHONE="+15550001", ADDRESS="Rua Exemplo, 1")) == {
        "externalCompanyId": "46",
        "company": "Padaria Exemplo",
        "website": "https://padaria.example",
        "mainPhone": "+15550001",
        "billingStreet": "Rua Exemplo, 1",
    }
    assert {name for name, value in mapped(company()).items() if value} == {"externalCompanyId", "company"}
