"""The outcome of a request, through duplicates, races and time, and how to find it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.entities import Connection, Trace
from portaria.records import receipt_search, receipts, record_index
from tests.fakes.api.manage import Manage
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.receipts import BODY, ID, note, open_receipt
from tests.fakes.virtual_time import VirtualClock

NOW = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC)
MUNCHKIN = "123-ABC-456"


@pytest.fixture
def table(stack: Cloud) -> Table:
    return stack.table


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    time = VirtualClock(NOW)
    with time.installed():
        yield time


def state(table: Table, after: timedelta = timedelta()) -> str:
    receipt = receipt_search.find(table, ID, clock.now() + after)
    assert receipt
    return receipt.state


def connect(table: Table, name: str = "marketo-one") -> None:
    """A destination whose account is known, so that reports about it are found."""
    connection_store.create(
        table,
        Connection(
            name,
            "marketo",
            "client_credentials",
            "mkto-ingestion-api.adobe.io",
            "connected",
            1,
            "secret",
            account_id=MUNCHKIN,
        ),
    )


def test_correlation_id_depends_on_destination_object_messages_and_body() -> None:
    assert len(ID) <= 255
    assert receipts.correlation_id("marketo-one", "persons", ["m2", "m1", "m2"], BODY) == receipts.correlation_id(
        "marketo-one", "persons", iter(["m1", "m2"]), BODY
    )
    others = [
        receipts.correlation_id("marketo-two", "persons", ["m1"], BODY),
        receipts.correlation_id("marketo-one", "companies", ["m1"], BODY),
        receipts.correlation_id("marketo-one", "persons", ["m2"], BODY),
        receipts.correlation_id("marketo-one", "persons", ["m1", "m2"], BODY),
        receipts.correlation_id("marketo-one", "persons", ["m1"], BODY + b" "),
    ]
    assert len({ID, *others}) == 6


def test_receipt_accepted_keeps_request_id(table: Table) -> None:
    open_receipt(table)
    assert state(table) == "sent"
    receipts.accept(table, ID, "request-1")
    receipt = receipt_search.find(table, ID, clock.now())
    assert receipt
    assert (receipt.state, receipt.request_id, receipt.count, receipt.bytes) == ("accepted", "request-1", 1, len(BODY))
    assert receipt.routes == ("leads", "people")
    assert receipt.accepted_at >= receipt.sent_at


def test_receipt_open_after_acceptance_is_a_conflict(table: Table) -> None:
    open_receipt(table)
    receipts.accept(table, ID, "request-1")
    with pytest.raises(Conflict):
        open_receipt(table)
    assert state(table) == "accepted"


def test_receipt_failed_can_be_opened_again_and_accepted(table: Table) -> None:
    open_receipt(table)
    receipts.fail(table, ID, "5000801", "request-1")
    receipt = receipt_search.find(table, ID, clock.now())
    assert receipt
    assert (receipt.state, receipt.code, receipt.request_id) == ("failed", "5000801", "request-1")
    open_receipt(table)
    receipts.accept(table, ID, "request-2")
    receipt = receipt_search.find(table, ID, clock.now())
    assert receipt
    assert (receipt.state, receipt.code, receipt.request_id) == ("accepted", "", "request-2")


def test_receipt_fail_after_acceptance_is_ignored(table: Table) -> None:
    open_receipt(table)
    receipts.accept(table, ID, "request-1")
    receipts.fail(table, ID, "5000801", "request-2")
    assert state(table) == "accepted"


def test_receipt_open_or_accepted_is_unknown_after_deadline(table: Table) -> None:
    open_receipt(table)
    for accepted in (False, True):
        if accepted:
            receipts.accept(table, ID, "request-1")
        assert state(table, timedelta(hours=23, minutes=59)) == ("accepted" if accepted else "sent")
        assert state(table, timedelta(hours=24, minutes=1)) == "unknown"


def test_receipt_failed_stays_failed_after_deadline(table: Table) -> None:
    open_receipt(table)
    receipts.fail(table, ID, "4000802", "")
    assert state(table, timedelta(days=2)) == "failed"


def test_receipt_search_find_unknown_is_none(table: Table) -> None:
    assert receipt_search.find(table, "none", clock.now()) is None


def test_receipt_applied_cannot_be_reopened_failed_or_unknown(table: Table) -> None:
    open_receipt(table)
    receipts.accept(table, ID, "", applied=True)
    with pytest.raises(Conflict):
        open_receipt(table)
    receipts.fail(table, ID, "500", "")
    assert state(table, timedelta(days=2)) == "applied"


class TestReports:
    """Accepted is not success: a later report of the destination decides."""

    def accepted(self, table: Table, count: int = 10) -> None:
        connect(table)
        open_receipt(table, count=count)
        receipts.accept(table, ID, "r-1")

    def told(self, table: Table) -> tuple[str, int, dict[str, int]]:
        receipt = receipt_search.find(table, ID, clock.now())
        assert receipt
        return receipt.state, receipt.report.applied, receipt.report.failed

    def test_receipt_report_all_applied_is_applied(self, table: Table) -> None:
        self.accepted(table)
        receipts.report(table, MUNCHKIN, "r-1", "e-1", applied=10, failed={}, at="2026-03-10T12:00:00.000Z")
        assert self.told(table) == ("applied", 10, {})

    def test_receipt_report_some_failed_is_failed_with_counts(self, table: Table) -> None:
        self.accepted(table)
        receipts.report(table, MUNCHKIN, "r-1", "e-1", applied=7, failed={"503": 2, "404": 1}, at="")
        assert self.told(table) == ("failed", 7, {"404": 1, "503": 2})

    def test_receipt_reports_in_any_order_with_duplicates_are_counted_once(self, table: Table) -> None:
        events: list[tuple[str, int, dict[str, int]]] = [("e-1", 4, {"503": 1}), ("e-2", 3, {}), ("e-3", 0, {"503": 2})]
        self.accepted(table)
        for number, order in enumerate(itertools.permutations(events)):
            receipts.accept(table, ID, f"r-{number}")
            for name, applied, failed in (*order, order[0], order[1]):
                at = f"2026-03-10T12:00:0{name[-1]}.000Z"
                receipts.report(table, MUNCHKIN, f"r-{number}", name, applied=applied, failed=failed, at=at)
            assert self.told(table) == ("failed", 7, {"503": 3})
            receipt = receipt_search.find(table, ID, clock.now())
            assert receipt
            assert receipt.report.reported_at == "2026-03-10T12:00:03.000Z"

    def test_receipt_report_before_acceptance_is_counted(self, table: Table) -> None:
        connect(table)
        open_receipt(table, count=1)
        receipts.report(table, MUNCHKIN, "r-1", "e-1", applied=1, failed={}, at="")
        assert self.told(table)[0] == "sent"
        receipts.accept(table, ID, "r-1")
        assert self.told(table)[0] == "applied"

    def test_receipt_report_incomplete_counts_stay_accepted_until_deadline(
        self, table: Table, time: VirtualClock
    ) -> None:
        """As in Adobe's own example: 100 received, 10 created, 10 updated, 20 failed."""
        self.accepted(table, count=100)
        receipts.report(table, MUNCHKIN, "r-1", "e-1", applied=20, failed={"503": 10, "404": 10}, at="")
        assert self.told(table) == ("accepted", 20, {"404": 10, "503": 10})
        time.advance(hours=25)
        assert self.told(table) == ("unknown", 20, {"404": 10, "503": 10})

    def test_receipt_report_of_another_account_is_ignored(self, table: Table) -> None:
        self.accepted(table)
        receipts.report(table, "999-XYZ-999", "r-1", "e-1", applied=10, failed={}, at="")
        assert self.told(table)[0] == "accepted"

    def test_receipt_report_after_deadline_ends_unknown(self, table: Table, time: VirtualClock) -> None:
        self.accepted(table)
        time.advance(hours=30)
        assert self.told(table)[0] == "unknown"
        receipts.report(table, MUNCHKIN, "r-1", "e-1", applied=10, failed={}, at="")
        assert self.told(table)[0] == "applied"


class TestCrashes:
    def test_receipt_open_killed_between_writes_is_completed_by_repeating(
        self, table: Table, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(table: Table, items: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Table, "put_all", die)
        with pytest.raises(KeyboardInterrupt):
            open_receipt(table, requests=("q-1",))
        monkeypatch.undo()
        open_receipt(table, requests=("q-1",))
        found, _ = receipt_search.by_request(table, "q-1", clock.now())
        assert [receipt.correlation_id for receipt in found] == [ID]


class TestLookup:
    def ids(self, manage: Manage, query: str) -> list[str]:
        """The id of each item of a listing, page by page."""
        found: list[str] = []
        cursor = ""
        while True:
            answer = manage.call("GET", f"/receipts?{query}" + (f"&cursor={cursor}" if cursor else ""))
            assert answer.status == 200, answer.text
            found += [item["id"] for item in answer.content["items"]]
            cursor = answer.content["next_cursor"]
            if not cursor:
                return found

    def test_list_receipts_by_connection_is_newest_first_and_filtered_by_state(
        self, table: Table, manage: Manage, time: VirtualClock
    ) -> None:
        ids = [f"{number:040d}" for number in range(7)]
        for number, each in enumerate(ids):
            open_receipt(table, each)
            if number % 2:
                receipts.accept(table, each, f"r-{number}")
            time.advance(seconds=1)
        open_receipt(table, "f" * 40, destination="another")
        assert self.ids(manage, "destination=marketo-one&limit=3") == ids[::-1]
        assert self.ids(manage, "destination=marketo-one&state=accepted&limit=2") == [ids[5], ids[3], ids[1]]

    def test_list_receipts_without_a_filter_merges_the_newest_of_every_destination(
        self, table: Table, manage: Manage, time: VirtualClock
    ) -> None:
        for name, platform in (("marketo-one", "marketo"), ("marketo-two", "marketo"), ("erp", "http")):
            connection_store.create(table, Connection(name, platform, "bearer", "api.example.com", "connected", 1, "s"))
        ids = [f"{number:040d}" for number in range(7)]
        for number, each in enumerate(ids):
            open_receipt(table, each, destination=f"marketo-{('one', 'two')[number % 2]}")
            if number % 3 == 0:
                receipts.accept(table, each, f"r-{number}")
            time.advance(seconds=1)
        assert self.ids(manage, "") == ids[::-1]
        assert self.ids(manage, "limit=2") == ids[::-1]
        assert self.ids(manage, "limit=7") == ids[::-1]
        assert self.ids(manage, "limit=2&state=accepted") == [ids[6], ids[3], ids[0]]

    def test_list_receipts_by_record_spans_days_and_pages(
        self, table: Table, manage: Manage, time: VirtualClock
    ) -> None:
        ids = [f"{number:040d}" for number in range(6)]
        for number, each in enumerate(ids):
            open_receipt(table, each, keys=("kommo-acme/7", "kommo-acme/8") if number % 2 else ("kommo-acme/8",))
            time.advance(hours=30)
        assert self.ids(manage, "destination=marketo-one&record=kommo-acme/7") == [ids[5], ids[3], ids[1]]
        assert self.ids(manage, "destination=marketo-one&record=kommo-acme/8&limit=1") == ids[::-1]
        for query, unknown in (("marketo-one&record=kommo-acme/9", "marketo-one"), ("another&record=x-1/7", "another")):
            answer = manage.call("GET", f"/receipts?destination={query}")
            assert (answer.status, answer.content["detail"]) == (404, f"there is no connection {unknown}")

    def test_list_receipts_request_opened_twice_is_listed_once(
        self, table: Table, manage: Manage, time: VirtualClock
    ) -> None:
        open_receipt(table)
        receipts.fail(table, ID, "500", "")
        time.advance(minutes=5)
        open_receipt(table)
        assert self.ids(manage, "destination=marketo-one&record=kommo-acme/1") == [ID]

    def test_receipt_many_records_share_one_index_item(self, table: Table) -> None:
        keys = tuple(f"kommo-acme/{number}" for number in range(1_000))
        open_receipt(table, keys=keys)
        (item,) = table.query_all(f"SENT#marketo-one#{clock.now().date().isoformat()}")
        assert len(item["keys"]) == 8_000
        found, _ = receipt_search.by_record(table, "marketo-one", "kommo-acme/999", clock.now())
        assert [receipt.correlation_id for receipt in found] == [ID]

    def test_record_index_holds_only_aligned_fingerprints(self) -> None:
        first, second = b"abcdefgh", b"ijklmnop"
        assert record_index.holds(first + second, second)
        assert not record_index.holds(first + second, b"efghijkl")
        assert record_index.holds(b"efghefgh" + first, first)

    def test_list_receipts_by_data_ingestion_request_includes_queued_request(
        self, table: Table, manage: Manage, time: VirtualClock
    ) -> None:
        note(table, "q-1")
        answer = manage.call("GET", "/receipts?request=q-1").content["items"]
        assert [(item["id"], item["state"], item["record_count"]) for item in answer] == [(None, "queued", 3)]
        assert self.ids(manage, "request=q-1&state=sent") == []
        ids = [f"{number:040d}" for number in range(3)]
        for each in ids:
            open_receipt(table, each, requests=("q-1", "q-2", ""))
            time.advance(seconds=1)
        assert self.ids(manage, "request=q-1&limit=2") == ids
        note(table, "q-2")
        shown = manage.call("GET", f"/receipts/{ids[0]}").content
        assert [request["id"] for request in shown["requests"]] == ["q-1", "q-2"]
        assert {request["correlation_id"] for request in shown["requests"]} == {"theirs"}
        assert self.ids(manage, "request=never-heard-of") == []

    def test_list_receipts_by_correlation_id_includes_queued_request(
        self, table: Table, manage: Manage, time: VirtualClock
    ) -> None:
        note(table, "q-1", "nightly 7/é")
        query = "correlation_id=nightly%207%2F%C3%A9"
        (queued,) = manage.call("GET", f"/receipts?{query}").content["items"]
        assert (queued["id"], queued["state"], queued["correlation_id"]) == (None, "queued", "nightly 7/é")
        open_receipt(table, requests=("q-1",), trace=Trace("nightly 7/é", "export"))
        assert self.ids(manage, query) == [ID]
        assert self.ids(manage, f"{query}&state=queued") == []
        assert self.ids(manage, f"{query}&state=sent") == [ID]
        shown = manage.call("GET", f"/receipts/{ID}").content
        assert (shown["correlation_id"], shown["request_source"]) == ("nightly 7/é", "export")
        assert self.ids(manage, "correlation_id=another") == []

    def test_list_receipts_by_correlation_id_has_pages(self, table: Table, manage: Manage, time: VirtualClock) -> None:
        for number in range(5):
            note(table, f"q-{number}", "n" * 255)
            open_receipt(table, f"{number:040d}", requests=(f"q-{number}",))
            time.advance(seconds=1)
        pages, cursor = [], ""
        while True:
            answer = manage.call("GET", f"/receipts?correlation_id={'n' * 255}&limit=2{cursor}").content
            pages.append([item["id"] for item in answer["items"]])
            if not answer["next_cursor"]:
                break
            cursor = f"&cursor={answer['next_cursor']}"
        assert [len(page) for page in pages] == [2, 2, 1]
        assert [each for page in pages for each in page] == [f"{number:040d}" for number in (4, 3, 2, 1, 0)]

    def test_list_receipts_request_stored_without_source_is_read(self, table: Table, manage: Manage) -> None:
        note(table, "q-1")
        table.update("REQUEST#q-1", "NOTED", "REMOVE request_source")
        (queued,) = manage.call("GET", "/receipts?request=q-1").content["items"]
        assert (queued["correlation_id"], queued["request_source"]) == ("theirs", None)

    def test_receipt_of_sixty_requests_is_found_by_each(self, table: Table) -> None:
        """More than one batch write holds."""
        names = tuple(f"q-{number}" for number in range(60))
        open_receipt(table, requests=names)
        for name in names:
            assert receipt_search.by_request(table, name, clock.now())[0]

    def test_list_receipts_by_request_id_of_destination(self, table: Table, manage: Manage) -> None:
        open_receipt(table)
        receipts.accept(table, ID, "67b28858#1")
        assert self.ids(manage, "request=67b28858%231") == [ID]

    def test_show_receipt_has_every_field(self, table: Table, manage: Manage, time: VirtualClock) -> None:
        connect(table)
        open_receipt(table, count=2)
        receipts.accept(table, ID, "r-1")
        receipts.report(table, MUNCHKIN, "r-1", "e-1", applied=1, failed={"1004": 1}, at="2026-03-10T12:01:00.000Z")
        assert manage.call("GET", f"/receipts/{ID}").content == {
            "id": ID,
            "state": "failed",
            "destination": "marketo-one",
            "object": "persons",
            "routes": ["leads", "people"],
            "record_count": 2,
            "byte_count": len(BODY),
            "sent_at": "2026-03-10T12:00:00.000Z",
            "accepted_at": "2026-03-10T12:00:00.000Z",
            "deadline": "2026-03-11T12:00:00.000Z",
            "request_id": "r-1",
            "correlation_id": None,
            "request_source": None,
            "code": None,
            "applied_count": 1,
            "failure_counts": {"1004": 1},
            "reported_at": "2026-03-10T12:01:00.000Z",
            "requests": [],
        }

    def test_show_receipt_unknown_is_not_found(self, manage: Manage) -> None:
        answer = manage.call("GET", f"/receipts/{'0' * 40}")
        assert (answer.status, answer.content["type"]) == (404, "urn:portaria:problem:unknown_receipt")

    @pytest.mark.parametrize(
        ("query", "reason"),
        [
            ("cursor=nonsense", "bad_cursor"),
            ("cursor=WyIyMDI2LTAzLTA5IiwgInhcdTAwMDAiXQ", "bad_cursor"),
            ("destination=marketo-one&request=q-1", "unclear_filters"),
            ("record=kommo-acme/1", "unclear_filters"),
            ("request=q-1&record=kommo-acme/1", "unclear_filters"),
            ("destination=x", "bad_destination"),
            ("destination=marketo-one&record=kommo-acme", "bad_record"),
            ("destination=marketo-one&state=lost", "bad_state"),
            ("request=", "bad_request"),
            ("request=a%20b", "bad_request"),
            (f"request={'x' * 256}", "bad_request"),
            ("destination=marketo-one&cursor=nonsense", "bad_cursor"),
            ("destination=marketo-one&record=kommo-acme/1&cursor=nonsense", "bad_cursor"),
            ("destination=marketo-one&record=kommo-acme/1&cursor=WyIyMDI2LTAzLTA5IiwgInhcdTAwMDAiXQ", "bad_cursor"),
            ("munchkin=1", "unknown_parameter"),
            ("destination=marketo-one&correlation_id=x", "unclear_filters"),
            ("request=q-1&correlation_id=x", "unclear_filters"),
            ("record=kommo-acme/1&correlation_id=x", "unclear_filters"),
            ("correlation_id=", "bad_correlation_id"),
            (f"correlation_id={'x' * 256}", "bad_correlation_id"),
            ("correlation_id=a%0Ab", "bad_correlation_id"),
            ("correlation_id=x&cursor=nonsense", "bad_cursor"),
        ],
    )
    def test_list_receipts_invalid_query_is_refused(self, manage: Manage, query: str, reason: str) -> None:
        answer = manage.call("GET", f"/receipts?{query}")
        assert (answer.status, answer.content["type"]) == (400, f"urn:portaria:problem:{reason}")

    def test_receipts_token_without_scope_is_refused(self, manage: Manage) -> None:
        _, token = manage.create_integration("receipts:list")
        assert manage.program(token, "GET", "/receipts?request=q-1").status == 200
        assert manage.program(token, "GET", f"/receipts/{ID}").status == 403
