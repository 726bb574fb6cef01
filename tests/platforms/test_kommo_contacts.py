"""Reading contacts page by page with their companies' names, and applying the default mapping."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import jmespath
import pytest

from portaria.core.callbacks import Secret
from portaria.core.entities import Page
from portaria.core.http.messages import Request, Response
from portaria.platforms.kommo import contacts, pagination
from tests.fakes.records.contacts import contact

HOST = "acme.kommo.com"


class Account:
    """Answers the two listings; `requests` are the received requests."""

    def __init__(self, people: list[dict[str, Any]], companies: dict[int, str] | None = None) -> None:
        self.people, self.companies = people, companies or {}
        self.requests: list[Request] = []

    def send(self, request: Request) -> Response:
        self.requests.append(request)
        url = urlsplit(request.url)
        query = parse_qs(url.query)
        if url.path == "/api/v4/companies":
            ids = [int(one) for one in query["filter[id][]"]]
            assert len(ids) == int(query["limit"][0]) <= 250
            found = [{"id": one, "name": self.companies[one]} for one in ids if one in self.companies]
            return self._list({"companies": found}) if found else Response(204)
        assert url.path == "/api/v4/contacts"
        assert query["order[id]"] == ["asc"]
        page, limit = int(query["page"][0]), int(query["limit"][0])
        assert 1 <= limit <= 250
        shown = self.people[(page - 1) * limit : page * limit]
        more = len(self.people) > page * limit
        return self._list({"contacts": shown}, more) if shown else Response(204)

    @staticmethod
    def _list(embedded: dict[str, Any], more: bool = False) -> Response:
        links = {"next": {"href": "…"}} if more else {}
        return Response(200, {}, json.dumps({"_links": links, "_embedded": embedded}).encode())

    def read(self, page: int = 1, after: str = "") -> Page:
        return contacts.read_page(self.send, HOST, Secret("canary-token"), page, after)

    def read_all(self, meanwhile: Callable[[int], object] = lambda pages: None) -> list[list[str]]:
        """The keys of each page, as a backfill requests them. `meanwhile` is called after each page with their number."""
        page: int | None = 1
        after = ""
        read: list[list[str]] = []
        while page:
            got = self.read(page, after)
            if got.records and (got.next_page or page + 1) > page:
                after = got.records[-1].key
            read.append([record.key for record in got.records])
            page = got.next_page
            meanwhile(len(read))
            assert len(self.requests) < 500
        return read


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0]), (1, [1]), (250, [250]), (251, [250, 1]), (600, [250, 248, 102])]
)
def test_kommo_contacts_pages_are_read_to_the_last(count: int, sizes: list[int]) -> None:
    account = Account([contact(number) for number in range(1, count + 1)])
    read = account.read_all()
    assert [len(keys) for keys in read] == sizes
    assert [key for keys in read for key in keys] == [str(number) for number in range(1, count + 1)]
    assert len(account.requests) == len(sizes)


def test_kommo_contacts_pages_of_large_account_need_few_more_requests_than_full_pages() -> None:
    account = Account([contact(number) for number in range(1, 25_001)])
    read = account.read_all()
    assert [key for keys in read for key in keys] == [str(number) for number in range(1, 25_001)]
    assert 100 <= len(account.requests) <= 110


@pytest.mark.parametrize("deleted", [[1], [10], [11], [2, 5, 9, 10], list(range(1, 11)), list(range(1, 31))])
@pytest.mark.parametrize("moment", range(1, 6))
def test_kommo_contacts_deleted_between_pages_hide_no_other(deleted: list[int], moment: int) -> None:
    account = Account([contact(number) for number in range(1, 51)])

    def delete(pages: int) -> None:
        if pages == moment:
            account.people = [each for each in account.people if each["id"] not in deleted]

    with patch.object(pagination, "PAGE_SIZE", 10):
        read = account.read_all(delete)
    assert {str(each["id"]) for each in account.people} <= {key for keys in read for key in keys}


def test_kommo_contacts_deleted_all_the_time_hide_no_other() -> None:
    account = Account([contact(number) for number in range(1, 101)])
    with patch.object(pagination, "PAGE_SIZE", 10):
        read = account.read_all(lambda pages: account.people.pop(0))
    assert {str(each["id"]) for each in account.people} <= {key for keys in read for key in keys}


@pytest.mark.parametrize(("companies", "requests"), [(0, 0), (1, 1), (125, 1), (126, 2), (250, 2)])
def test_kommo_contacts_company_names_are_read_in_full_requests(companies: int, requests: int) -> None:
    people = [contact(number, company=10_000 + number if number <= companies else 0) for number in range(1, 251)]
    account = Account(people, {10_000 + number: f"Company {number}" for number in range(1, 251)})
    read = account.read()
    assert len(account.requests) == 1 + requests
    names = [record.data["_embedded"]["companies"] for record in read.records]
    assert [[company["name"] for company in one] for one in names[:companies]] == [
        [f"Company {number}"] for number in range(1, companies + 1)
    ]
    # Kommo's nginx accepts a request line of 8 kB.
    assert all(len(request.url) < 8_000 for request in account.requests)


def test_kommo_contacts_shared_company_is_requested_once() -> None:
    account = Account([contact(number, company=7) for number in range(1, 51)], {7: "Padaria Exemplo"})
    read = account.read()
    assert parse_qs(urlsplit(account.requests[1].url).query)["filter[id][]"] == ["7"]
    assert {record.data["_embedded"]["companies"][0]["name"] for record in read.records} == {"Padaria Exemplo"}


def test_kommo_contacts_longest_company_ids_fit_in_url() -> None:
    account = Account([contact(number, company=2**53 - number) for number in range(1, 251)])
    account.read()
    assert len(account.requests) == 3
    assert all(len(request.url) < 8_000 for request in account.requests)


def test_kommo_contacts_record_has_key_and_updated_at() -> None:
    one = contact(5, updated_at=1_700_000_123)
    two = contact(6)
    del two["updated_at"]
    records = Account([one, two]).read().records
    assert [(record.key, record.updated_at) for record in records] == [("5", 1_700_000_123), ("6", 0)]
    assert records[0].data["custom_fields_values"] == one["custom_fields_values"]


def mapped(person: dict[str, Any]) -> dict[str, Any]:
    return {name: jmespath.search(expression, person) for name, expression in contacts.DEFAULT_MAPPING.items()}


def field(code: str, *values: str) -> dict[str, Any]:
    return {"field_code": code, "values": [{"value": value} for value in values]}


def test_kommo_contacts_default_mapping_takes_first_values() -> None:
    person = {
        "name": "Test Person",
        "first_name": "Test",
        "last_name": "Person",
        "custom_fields_values": [
            field("POSITION", "Baker"),
            field("PHONE", "+15550001", "+15550002"),
            field("EMAIL", "a@example.com", "b@example.com"),
        ],
        "_embedded": {"companies": [{"id": 7, "name": "Padaria Exemplo"}, {"id": 8, "name": "Other"}]},
    }
    assert mapped(person) == {
        "firstName": "Test",
        "lastName": "Person",
        "email": "a@example.com",
        "phone": "+15550001",
        "company": "Padaria Exemplo",
    }


@pytest.mark.parametrize("values", [None, [], "left out"])
def test_kommo_contacts_default_mapping_missing_values_are_none(values: Any) -> None:
    person: dict[str, Any] = {"name": "Only Name", "first_name": "", "last_name": "", "_embedded": {"companies": []}}
    if values != "left out":
        person["custom_fields_values"] = values
    found = mapped(person)
    assert found["firstName"] == "Only Name"
    assert (found["email"], found["phone"], found["company"]) == (None, None, None)
