"""`portaria dead-letters` and `portaria receipts`, against the real function in process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest

from portaria.core import clock
from portaria.records import dead_letter_redrive, dead_letters, receipts
from portaria_cli.groups import dead_letters as cli_dead_letters
from tests.fakes.api.command_line import Answered, Wire, listed, run, told, wired
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put, record, sent, state
from tests.fakes.records.receipts import ID, note, open_receipt


@pytest.fixture
def stack(stack: Cloud) -> Iterator[Cloud]:
    yield stack
    stack.receive("records")


@pytest.fixture
def wire(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Wire:
    monkeypatch.setattr(clock, "sleep", lambda seconds: None)
    monkeypatch.setattr(cli_dead_letters, "sleep", lambda seconds: None)
    dead_letter_redrive._rate_limiter.cache_clear()
    return wired(stack, monkeypatch)


def posts(wire: Wire) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in wire.requests if request.method == "POST" and request.body]


class TestListing:
    def test_cli_dead_letters_list_and_show(self, wire: Wire, stack: Cloud) -> None:
        put(stack, letter("a", records=[record(), record("2")]), letter("b", reason="bad_value"))
        shown = run("dead-letters", "list", "--reason", "no_dedupe_value").stdout
        assert "no_dedupe_value" in shown
        assert "bad_value" not in shown
        assert [item["id"] for item in listed("dead-letters", "list", "--record", "kommo-acme-1/2")] == ["a"]
        assert "37054081" in run("dead-letters", "show", "a").stdout
        assert "Ana Souza" in run("dead-letters", "show", "b").stdout
        assert "There are no dead letters" in run("dead-letters", "list", "--state", "redriven").stdout
        assert "there is no dead letter with this id" in run("dead-letters", "show", "c", exit_code=1).stderr

    def test_cli_dead_letters_delete_asks_for_confirmation(self, wire: Wire, stack: Cloud) -> None:
        put(stack, letter())
        run("dead-letters", "delete", "letter-1", exit_code=1, input="n\n")
        assert state(stack) == "open"
        assert run("dead-letters", "delete", "letter-1", "--yes").stdout == "letter-1 is deleted.\n"
        assert dead_letters.find(stack.table, "letter-1") is None


class TestDeletion:
    """Of several dead letters. The responses are as the API's document describes them."""

    def answer(self, wire: Wire, *answers: dict[str, Any]) -> None:
        left = [{"not_deleted": [], "more": False, "next_cursor": None, **each} for each in answers]
        wire.instead = lambda request: Answered(200, json.dumps(left.pop(0)))

    def bodies(self, wire: Wire) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in wire.requests]

    def test_delete_by_filter_counts_asks_and_deletes_page_by_page(self, wire: Wire) -> None:
        page = {"dead_letter_count": 1_000, "record_count": 1_200}
        counted = {"dead_letter_count": 1_500, "record_count": 2_000}
        self.answer(
            wire, counted, {**page, "more": True, "next_cursor": "c"}, {"dead_letter_count": 500, "record_count": 800}
        )
        done = run("dead-letters", "delete", "--route", "people", input="y\n")
        assert "Delete 1,500 dead letters with 2,000 records?" in done.stderr
        assert done.stdout == "Deleted: 1,500 dead letters with 2,000 records.\n"
        first, second, third = self.bodies(wire)
        assert (first["dry_run"], second["dry_run"], third["cursor"]) == (True, False, "c")
        assert first["before"] == second["before"] == third["before"]
        assert first["route"] == "people"

    def test_delete_declined_deletes_nothing(self, wire: Wire) -> None:
        self.answer(wire, {"dead_letter_count": 1, "record_count": 1})
        run("dead-letters", "delete", "--all", input="n\n", exit_code=1)
        assert [body["dry_run"] for body in self.bodies(wire)] == [True]

    def test_delete_dry_run_shows_the_counts(self, wire: Wire) -> None:
        self.answer(wire, {"dead_letter_count": 2, "record_count": 3})
        shown = run("dead-letters", "delete", "a", "b", "--dry-run").stdout
        assert shown == "Would be deleted: 2 dead letters with 3 records.\n"
        assert self.bodies(wire) == [{"ids": ["a", "b"], "dry_run": True}]

    def test_delete_names_those_that_were_not_deleted(self, wire: Wire) -> None:
        left = [{"id": "b", "outcome": "in_progress"}]
        self.answer(wire, {"dead_letter_count": 1, "record_count": 1, "not_deleted": left})
        done = run("dead-letters", "delete", "a", "b", "--yes", exit_code=1)
        assert "not deleted: b (in progress)" in done.stdout

    @pytest.mark.parametrize("arguments", [[], ["a", "--all"], ["--all", "--reason", "x"]])
    def test_delete_needs_one_way_to_select(self, wire: Wire, arguments: list[str]) -> None:
        assert "give the ids" in run("dead-letters", "delete", *arguments, exit_code=2).stderr
        assert wire.requests == []


class TestRedrive:
    def test_cli_dead_letters_redrive_dry_run_sends_nothing(self, wire: Wire, stack: Cloud) -> None:
        put(stack, letter("a"), letter("b"))
        shown = run("dead-letters", "redrive", "--all", "--dry-run").stdout
        assert "would_redrive" in shown
        assert "2 records" in shown
        assert sent(stack) == []

    def test_cli_dead_letters_redrive_all_reads_page_by_page(
        self, wire: Wire, stack: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dead_letters, "MAX_READ", 2)
        monkeypatch.setattr(dead_letters, "PAGE_SIZE", 2)
        for number in range(7):
            put(stack, letter(f"l{number}"))
        assert "7 redriven · 7 records" in run("dead-letters", "redrive", "--all").stdout
        assert len(sent(stack)) == 7
        bodies = posts(wire)
        assert len(bodies) >= 3
        assert len({body["before"] for body in bodies}) == 1

    def test_cli_dead_letters_redrive_by_id_can_be_repeated(self, wire: Wire, stack: Cloud) -> None:
        put(stack, letter())
        for _ in range(2):
            answer = told("dead-letters", "redrive", "letter-1")
            assert answer["counts"] == {"redriven": 1}
        assert len(sent(stack)) == 2
        answer = told("dead-letters", "redrive", "letter-1", "never", exit_code=1)
        assert answer["counts"] == {"redriven": 1, "gone": 1}

    def test_cli_dead_letters_redrive_failed_letter_is_reported(self, wire: Wire, stack: Cloud) -> None:
        put(stack, letter("a", records=[7]), letter("b"))
        shown = run("dead-letters", "redrive", "--route", "people", exit_code=1).stdout
        assert "no records that can be sent" in shown
        assert "1 failed" in shown

    @pytest.mark.parametrize(
        "arguments", [[], ["letter-1", "--all"], ["--reason", "x", "--all"], ["letter-1", "--route", "x"]]
    )
    def test_cli_dead_letters_redrive_ambiguous_selection_is_a_usage_error(
        self, wire: Wire, arguments: list[str]
    ) -> None:
        run("dead-letters", "redrive", *arguments, exit_code=2)
        assert wire.requests == []

    def test_cli_dead_letters_redrive_all_lost_answer_sends_each_letter_once(self, wire: Wire, stack: Cloud) -> None:
        put(stack, letter())
        wire.lose()
        run("dead-letters", "redrive", "--all")
        assert len(sent(stack)) == 1

    def test_cli_dead_letters_redrive_by_id_lost_answer_is_an_error(self, wire: Wire, stack: Cloud) -> None:
        put(stack, letter())
        wire.lose()
        assert "it may have been done" in run("dead-letters", "redrive", "letter-1", exit_code=3).stderr
        assert len(sent(stack)) == 1

    def test_cli_dead_letters_redrive_busy_api_is_retried_a_limited_number_of_times(
        self, wire: Wire, stack: Cloud
    ) -> None:
        put(stack, letter())
        busy = [Answered(503, "{}", {"Retry-After": "1"})] * 2
        wire.instead = lambda request: busy.pop() if busy else wire.deliver(request)
        run("dead-letters", "redrive", "--all")
        assert busy == []
        assert len(sent(stack)) == 1
        put(stack, letter("letter-2"))
        wire.instead = lambda request: Answered(503, "{}", {"Retry-After": "1"})
        run("dead-letters", "redrive", "--all", exit_code=1)
        assert sent(stack) == []

    def test_cli_dead_letters_redrive_interrupted_reports_progress(
        self, wire: Wire, stack: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cli_dead_letters, "MAX_LETTERS", 1)
        put(stack, letter("a"), letter("b"))
        seen: list[int] = []

        def interrupted(request: AWSPreparedRequest) -> Answered:
            seen.append(1)
            if len(seen) == 2:
                raise KeyboardInterrupt
            return wire.deliver(request)

        wire.instead = interrupted
        result = run("dead-letters", "redrive", "a", "b", exit_code=130)
        assert "1 redriven" in result.stdout
        assert "interrupted" in result.stderr


class TestReceipts:
    def test_cli_receipts_list_by_destination_record_and_request(self, wire: Wire, stack: Cloud) -> None:
        note(stack.table, "q-1")
        open_receipt(stack.table, requests=("q-2",))
        receipts.accept(stack.table, ID, "r-1")
        assert ID in run("receipts", "list", "--destination", "marketo-one").stdout
        assert ID in run("receipts", "list", "--destination", "marketo-one", "--record", "kommo-acme/1").stdout
        assert [item["id"] for item in listed("receipts", "list", "--request", "q-2")] == [ID]
        assert "queued" in run("receipts", "list", "--request", "q-1").stdout
        assert "queued" in run("receipts", "list", "--correlation-id", "theirs").stdout
        assert "accepted" in run("receipts", "show", ID).stdout
        assert "There are no receipts" in run("receipts", "list", "--request", "none").stdout

    @pytest.mark.parametrize("arguments", [["--destination", "x", "--request", "y"], ["--record", "x/y"]])
    def test_cli_receipts_list_ambiguous_selection_is_a_usage_error(self, wire: Wire, arguments: list[str]) -> None:
        run("receipts", "list", *arguments, exit_code=2)
        assert wire.requests == []
