"""Dead letters: stored completely, shown without secrets, and redriven once each, even if a process crashes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from portaria.api.resources.delivery import dead_letters as api
from portaria.aws import queues
from portaria.aws.table import Conflict, Table
from portaria.core import clock, redaction
from portaria.core.errors import Retryable
from portaria.outbound import rate_limiter
from portaria.records import dead_letter_redrive, dead_letters
from tests.fakes.api.manage import Manage
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put, record, sent, state

LEADCONNECTOR_TOKEN = "pit-" + "0a1b2c3d-0000-4000-8000-0123456789ab"
OUR_TOKEN = "portaria_" + "x" * 48
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbmEifQ.c2lnbmF0dXJl"
MARKETO_TOKEN = "cdf01657-110d-4155-99a7-f986b2ff13a0:int"


@pytest.fixture
def stack(stack: Cloud) -> Iterator[Cloud]:
    yield stack
    stack.receive("records")


@pytest.fixture(autouse=True)
def _nobody_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "sleep", lambda seconds: None)
    dead_letter_redrive._rate_limiter.cache_clear()


def redrive(manage: Manage, **body: Any) -> dict[str, Any]:
    answer = manage.call("POST", "/dead-letters/redrive", body)
    assert answer.status == 200, answer.text
    return answer.content


def outcomes(answer: dict[str, Any]) -> list[str]:
    return [each["outcome"] for each in answer["letters"]]


class TestStorage:
    def test_put_dead_letter_is_read_back_unchanged(self, stack: Cloud) -> None:
        target = {
            "destination": "marketo-main",
            "object": "persons",
            "priority": "high",
            "options": {"field1": "email"},
        }
        kept = letter(
            records=[record(), {"odd": [1, None]}, 7], target=target, destination="marketo-main", request="q-1"
        )
        put(stack, kept)
        found = dead_letters.find(stack.table, kept.id)
        assert found
        assert replace(found[1], set_aside_at="") == kept
        assert (found[0].state, found[0].count, found[0].destination) == ("open", 3, "marketo-main")

    def test_put_dead_letter_again_keeps_its_state(self, stack: Cloud, manage: Manage) -> None:
        put(stack, letter())
        redrive(manage, ids=["letter-1"])
        put(stack, letter())
        assert state(stack) == "redriven"

    @pytest.mark.parametrize("size", [900_000, 2_000_000])
    def test_put_dead_letter_larger_than_an_item_is_split_and_redriven_whole(
        self, stack: Cloud, manage: Manage, size: int
    ) -> None:
        """Incompressible records are cut into parts, and redriven unchanged."""
        noise = random.Random(5)
        large = [record(str(number), text=noise.randbytes(50_000).hex()) for number in range(size // 100_000)]
        put(stack, letter(records=large))
        parts = list(stack.table.query_all("DEAD_LETTER#letter-1", sk_prefix="PART#"))
        assert len(parts) > 1
        assert all(len(part["data"]) <= dead_letters.MAX_PART_BYTES for part in parts)
        listed = manage.call("GET", "/dead-letters")
        assert len(listed.text) < 1_000
        assert len(manage.call("GET", "/dead-letters/letter-1").text) < 300_000
        assert outcomes(redrive(manage, ids=["letter-1"])) == ["redriven"]
        assert [each for message in sent(stack) for each in message["records"]] == large

    def test_put_dead_letter_record_of_900_kilobytes_is_redriven_whole(self, stack: Cloud, manage: Manage) -> None:
        large = record(text=random.Random(6).randbytes(450_000).hex())
        put(stack, letter(records=[large]))
        redrive(manage, ids=["letter-1"])
        assert [message["records"] for message in sent(stack)] == [[large]]

    @given(st.binary(max_size=2_000), st.integers(1, 100))
    def test_cut_parts_join_to_the_original_data(self, data: bytes, size: int) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(dead_letters, "MAX_PART_BYTES", size)
            parts = dead_letters.cut(data)
        assert b"".join(parts) == data
        assert all(len(part) <= size for part in parts)
        assert all(parts[:-1])

    @pytest.mark.parametrize("dies_after", [0, 1, 2])
    def test_put_dead_letter_worker_killed_leaves_no_partial_letter(
        self, stack: Cloud, monkeypatch: pytest.MonkeyPatch, dies_after: int
    ) -> None:
        large = letter(records=[record(text=random.Random(7).randbytes(450_000).hex())])
        write, left = Table.put, [dies_after]

        def dying(table: Table, *arguments: Any, **options: Any) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write(table, *arguments, **options)

        monkeypatch.setattr(Table, "put", dying)
        with pytest.raises(KeyboardInterrupt):
            put(stack, large)
        monkeypatch.setattr(Table, "put", write)
        assert dead_letters.find(stack.table, large.id) is None
        put(stack, large)
        found = dead_letters.find(stack.table, large.id)
        assert found
        assert found[1].records == large.records

    def test_put_dead_letter_all_items_expire_after_ninety_days(self, stack: Cloud) -> None:
        put(stack, letter())
        ends = {item["expires_at"] for item in stack.table.query_all("DEAD_LETTER#letter-1")}
        (end,) = ends
        assert abs(end - (clock.now() + timedelta(days=90)).timestamp()) < 60


class TestListing:
    def ids(self, manage: Manage, query: str = "") -> list[str]:
        found: list[str] = []
        cursor = ""
        while True:
            answer = manage.call("GET", f"/dead-letters?limit=2&{query}" + (f"&cursor={cursor}" if cursor else ""))
            assert answer.status == 200, answer.text
            found += [item["id"] for item in answer.content["items"]]
            cursor = answer.content["next_cursor"]
            if not cursor:
                return found

    def test_list_dead_letters_is_newest_first_and_filtered(self, stack: Cloud, manage: Manage) -> None:
        put(
            stack,
            letter("a", set_aside_at="2026-03-01T00:00:00.000Z"),
            letter(
                "b", set_aside_at="2026-03-02T00:00:00.000Z", reason="bad_value", records=[record("7"), record("8")]
            ),
            letter("c", set_aside_at="2026-03-03T00:00:00.000Z", route="others", destination="marketo-main"),
            letter("d", set_aside_at="2026-03-04T00:00:00.000Z", connection="kommo-acme-2", records=[record("7")]),
        )
        redrive(manage, ids=["a"])
        assert self.ids(manage) == ["d", "c", "b", "a"]
        assert self.ids(manage, "reason=bad_value") == ["b"]
        assert self.ids(manage, "reason=no_dedupe_value") == ["d", "c", "a"]
        assert self.ids(manage, "route=others") == ["c"]
        assert self.ids(manage, "connection=kommo-acme-1") == ["c", "b", "a"]
        assert self.ids(manage, "connection=marketo-main") == ["c"]
        assert self.ids(manage, "state=redriven") == ["a"]
        assert self.ids(manage, "state=open") == ["d", "c", "b"]
        assert self.ids(manage, "record=kommo-acme-1/7") == ["b"]
        assert self.ids(manage, "record=kommo-acme-1/7&reason=other") == []

    def test_list_dead_letters_exposes_no_record(self, stack: Cloud, manage: Manage) -> None:
        put(stack, letter(records=[record("ana@example.com", email="ana@example.com")]))
        answer = manage.call("GET", "/dead-letters")
        assert "ana" not in answer.text
        assert answer.content["items"][0]["record_count"] == 1

    @pytest.mark.parametrize(
        ("query", "reason"),
        [
            ("reason=A", "bad_reason"), ("state=dead", "bad_state"), ("record=7", "bad_record"), ("route=x", "bad_route"),
            ("cursor=nonsense", "bad_cursor"), ("limit=101", "bad_limit"),
        ],
    )  # fmt: skip
    def test_list_dead_letters_invalid_query_is_refused(self, manage: Manage, query: str, reason: str) -> None:
        answer = manage.call("GET", f"/dead-letters?{query}")
        assert (answer.status, answer.content["type"]) == (400, f"urn:portaria:problem:{reason}")

    def test_dead_letter_unknown_is_not_found(self, manage: Manage) -> None:
        for method in ("GET", "DELETE"):
            answer = manage.call(method, "/dead-letters/never")
            assert (answer.status, answer.content["type"]) == (404, "urn:portaria:problem:unknown_dead_letter")


class TestDetails:
    def test_show_dead_letter_secret_values_are_masked(self, stack: Cloud, manage: Manage) -> None:
        data: dict[str, Any] = {
            "name": "Ana Souza",
            "access_token": "plain-looking",
            "Senha": "1234",
            "nested": [
                {"apiKey": "k", "Authorization": "Bearer abcdefgh12345678", "empty_token": "", "has_token": True}
            ],
            "note": f"use {OUR_TOKEN}, {LEADCONNECTOR_TOKEN}; {JWT} and {MARKETO_TOKEN}",
            "header": "authorization: Basic dXNlcjpwYXNzd29yZA==",
            OUR_TOKEN: "a key",
        }
        put(stack, letter(records=[record(**data)]))
        answer = manage.call("GET", "/dead-letters/letter-1")
        for secret in (
            "plain-looking",
            "1234",
            "abcdefgh",
            OUR_TOKEN,
            LEADCONNECTOR_TOKEN,
            "eyJ",
            MARKETO_TOKEN,
            "dXNlcj",
        ):
            assert secret not in answer.text, secret
        (shown,) = answer.content["content"]
        assert shown["data"]["name"] == "Ana Souza"
        assert shown["data"]["nested"][0]["has_token"] is True
        assert shown["data"]["note"] == "use ***, ***; *** and ***"
        put(stack, letter("raw", records=[], raw=f'{{"password": "open sesame", x token={JWT}'))
        assert "sesame" not in manage.call("GET", "/dead-letters/raw").text.partition("open")[0]
        assert JWT not in manage.call("GET", "/dead-letters/raw").text

    def test_redaction_ordinary_text_is_unchanged(self) -> None:
        for text in ("Maria das Dores", "2026-01-31", "https://example.com/?a=b", "basic plan", "Authorized dealer"):
            assert redaction.masked_text(text) == text
        assert redaction.masked({"tokenless": None, "name": ["x"]}) == {"tokenless": None, "name": ["x"]}

    def test_show_dead_letter_content_is_limited(self, stack: Cloud, manage: Manage) -> None:
        records = [record(str(number), text="x" * 15_000) for number in range(30)]
        put(stack, letter(records=records), letter("one", records=[record(text="y" * 500_000)]))
        shown = manage.call("GET", "/dead-letters/letter-1").content
        assert shown["record_count"] == 30
        assert 0 < len(shown["content"]) < 8
        (only,) = manage.call("GET", "/dead-letters/one").content["content"]
        assert only["data"] is None
        assert len(only["excerpt"]) == api.EXCERPT_CHARACTERS

    def test_show_dead_letter_invalid_and_refused_records_are_shown(self, stack: Cloud, manage: Manage) -> None:
        refused = {
            "key": "7",
            "updated_at": 1,
            "refused": {"reason": "record_too_large", "detail": "the record has 9 bytes"},
        }
        put(stack, letter(records=[7, None, "text", [1], {"key": 7}, refused]))
        content = manage.call("GET", "/dead-letters/letter-1").content["content"]
        assert len(content) == 6
        assert content[5]["key"] == "7"
        assert "record_too_large" in content[5]["excerpt"]


class TestRedrive:
    def test_redrive_dead_letter_sends_the_original_message(self, stack: Cloud, manage: Manage) -> None:
        """With their versions, so that newer data at the destination is not overwritten."""
        target = {
            "destination": "marketo-main",
            "object": "persons",
            "priority": "high",
            "options": {"field1": "email"},
        }
        put(stack, letter(target=target, request="q-1", route=""))
        assert redrive(manage, ids=["letter-1"]) == {
            "letters": [{"id": "letter-1", "record_count": 1, "outcome": "redriven", "reason": None}],
            "more": False,
            "next_cursor": None,
        }
        (message,) = sent(stack)
        assert message == {
            "version": 1, "connection": "kommo-acme-1", "object": "contacts", "origin": "event", "route": "",
            "read_at": 1_732_272_000_123, "request": "q-1", "target": target, "records": [record()],
        }  # fmt: skip
        assert state(stack) == "redriven"

    def test_redrive_dead_letter_again_sends_again(self, stack: Cloud, manage: Manage) -> None:
        put(stack, letter())
        for times in (1, 2, 3):
            assert outcomes(redrive(manage, ids=["letter-1"])) == ["redriven"]
            assert len(sent(stack)) == 1
            found = dead_letters.find(stack.table, "letter-1")
            assert found
            assert found[0].redrives == times

    def test_redrive_dead_letters_by_filter_sends_open_letters_once(self, stack: Cloud, manage: Manage) -> None:
        put(stack, letter("a"), letter("b"), letter("c", reason="bad_value"))
        assert [each["id"] for each in redrive(manage, reason="no_dedupe_value")["letters"]] == ["a", "b"]
        assert redrive(manage, reason="no_dedupe_value")["letters"] == []
        assert len(sent(stack)) == 2
        assert state(stack, "c") == "open"

    def test_redrive_dead_letters_dry_run_sends_nothing(self, stack: Cloud, manage: Manage) -> None:
        put(stack, letter("a"), letter("b", records=[record("1"), record("2")]))
        answer = redrive(manage, connection="kommo-acme-1", dry_run=True)
        assert outcomes(answer) == ["would_redrive", "would_redrive"]
        assert [each["record_count"] for each in answer["letters"]] == [1, 2]
        assert outcomes(redrive(manage, ids=["a", "never"], dry_run=True)) == ["would_redrive", "gone"]
        assert sent(stack) == []
        assert state(stack, "a") == "open"

    def test_redrive_dead_letters_pages_through_letters_up_to_before(self, stack: Cloud, manage: Manage) -> None:
        for number in range(7):
            put(stack, letter(f"l{number}", set_aside_at=f"2026-03-0{number + 1}T00:00:00.000Z"))
        seen: list[str] = []
        body: dict[str, Any] = {"before": "2026-03-06T12:00:00Z", "limit": 2}
        while True:
            answer = redrive(manage, **body)
            seen += [each["id"] for each in answer["letters"]]
            assert answer["more"] == bool(answer["next_cursor"])
            if not answer["more"]:
                break
            body["cursor"] = answer["next_cursor"]
        assert seen == ["l0", "l1", "l2", "l3", "l4", "l5"]
        assert len(sent(stack)) == 6

    def test_redrive_dead_letters_is_limited_to_twenty_per_second(
        self, stack: Cloud, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passed = [0.0]

        def sleep(seconds: float) -> None:
            passed[0] += seconds

        monkeypatch.setattr(clock, "sleep", sleep)
        monkeypatch.setattr(rate_limiter, "time", SimpleNamespace(monotonic=lambda: passed[0]))
        for number in range(25):
            put(stack, letter(f"l{number:02d}"))
        redrive(manage, route="people")
        assert passed[0] == pytest.approx(24 / 20)

    def test_redrive_dead_letters_concurrent_callers_send_each_letter_once(
        self, stack: Cloud, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second redrive runs just before the first one's claim, after the claim, and after its send."""
        claim, send = dead_letter_redrive._claim, queues.send
        for place in ("before", "claimed", "sent"):
            put(stack, letter(place))
            second: list[Any] = []

            def other(place: str = place, second: list[Any] = second) -> None:
                if not second:
                    second.append(None)
                    second.append(redrive(manage, route="people"))

            def claiming(*arguments: Any, place: str = place, other: Any = other, **options: Any) -> Any:
                if place == "before":
                    other()
                got = claim(*arguments, **options)
                if place == "claimed":
                    other()
                return got

            def sending(*arguments: Any, place: str = place, other: Any = other, **options: Any) -> None:
                send(*arguments, **options)
                if place == "sent":
                    other()

            monkeypatch.setattr(dead_letter_redrive, "_claim", claiming)
            monkeypatch.setattr(queues, "send", sending)
            first = redrive(manage, route="people")
            monkeypatch.undo()
            monkeypatch.setattr(clock, "sleep", lambda seconds: None)
            told = sorted(outcomes(first) + outcomes(second[1]))
            assert told.count("redriven") == 1, place
            assert len(sent(stack)) == 1, place
            assert state(stack, place) == "redriven"

    def test_redrive_dead_letter_claimed_by_another_is_in_progress(self, stack: Cloud, manage: Manage) -> None:
        put(stack, letter())
        stack.table.update(
            *dead_letters.key("letter-1"), "SET #state = :redriving, claimed_until = :until",
            names={"#state": "state"}, values={":redriving": "redriving", ":until": int(clock.now().timestamp()) + 200},
        )  # fmt: skip
        assert outcomes(redrive(manage, ids=["letter-1"])) == ["in_progress"]
        assert outcomes(redrive(manage, ids=["letter-1"], dry_run=True)) == ["in_progress"]
        assert redrive(manage, route="people")["letters"] == []
        answer = manage.call("DELETE", "/dead-letters/letter-1")
        assert (answer.status, answer.content["type"]) == (409, "urn:portaria:problem:in_progress")
        assert sent(stack) == []

    @pytest.mark.parametrize(("place", "messages_sent"), [("read_letter", 1), ("_mark", 2)])
    def test_redrive_dead_letter_worker_killed_is_completed_after_claim_expires(
        self, stack: Cloud, manage: Manage, monkeypatch: pytest.MonkeyPatch, place: str, messages_sent: int
    ) -> None:
        """A crash between claim and send: not sent. A crash between send and mark: sent, and sent once more after the claim."""
        put(stack, letter())

        def die(*arguments: Any) -> None:
            raise KeyboardInterrupt

        real = getattr(dead_letter_redrive, place)
        monkeypatch.setattr(dead_letter_redrive, place, die)
        with pytest.raises(KeyboardInterrupt):
            redrive(manage, ids=["letter-1"])
        monkeypatch.setattr(dead_letter_redrive, place, real)
        assert outcomes(redrive(manage, ids=["letter-1"])) == ["in_progress"]
        later = clock.now() + timedelta(seconds=dead_letter_redrive.CLAIM_S + 1)
        monkeypatch.setattr(clock, "now", lambda: later)
        assert outcomes(redrive(manage, reason="no_dedupe_value")) == ["redriven"]
        assert len(sent(stack)) == messages_sent
        assert state(stack) == "redriven"

    def test_redrive_dead_letter_late_worker_does_not_reset_state(
        self, stack: Cloud, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(stack, letter())
        send = queues.send

        def slow(*arguments: Any, **options: Any) -> None:
            monkeypatch.setattr(queues, "send", send)
            later = clock.now() + timedelta(seconds=dead_letter_redrive.CLAIM_S + 1)
            monkeypatch.setattr(clock, "now", lambda: later)
            assert outcomes(redrive(manage, ids=["letter-1"])) == ["redriven"]
            raise Retryable("queue_unavailable", "late")

        monkeypatch.setattr(queues, "send", slow)
        assert outcomes(redrive(manage, ids=["letter-1"])) == ["failed"]
        assert state(stack) == "redriven"

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (Retryable("queue_unavailable", "SQS did not take a message"), "queue_unavailable"),
            (EndpointConnectionError(endpoint_url="https://sqs"), "EndpointConnectionError"),
        ],
    )
    def test_redrive_dead_letter_queue_failure_keeps_letter_open(
        self, stack: Cloud, manage: Manage, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
    ) -> None:
        put(stack, letter("a"), letter("b"))
        send, left = queues.send, [1]

        def failing(*arguments: Any, **options: Any) -> None:
            if left[0]:
                left[0] -= 1
                raise error
            send(*arguments, **options)

        monkeypatch.setattr(queues, "send", failing)
        answer = redrive(manage, route="people")
        assert [(each["outcome"], each["reason"]) for each in answer["letters"]] == [
            ("failed", reason),
            ("redriven", None),
        ]
        assert (state(stack, "a"), state(stack, "b")) == ("open", "redriven")

    def test_redrive_dead_letter_records_without_data_are_not_sent(self, stack: Cloud, manage: Manage) -> None:
        refused = {"key": "8", "updated_at": 1, "refused": {"reason": "record_too_large", "detail": "too large"}}
        put(stack, letter("mixed", records=[record("7"), refused, 7]), letter("none", records=[refused]))
        mixed, none = redrive(manage, ids=["mixed", "none"])["letters"]
        assert (mixed["outcome"], mixed["record_count"]) == ("redriven", 1)
        assert "2 records" in mixed["reason"]
        assert (none["outcome"], state(stack, "none")) == ("failed", "open")
        assert [message["records"] for message in sent(stack)] == [[record("7")]]

    def test_redrive_dead_letters_time_limit_reports_rest_for_next_call(
        self, stack: Cloud, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each dead letter has an outcome, and the next call continues with those that were not reached."""
        for number in range(4):
            put(stack, letter(f"l{number}"))
        start, send = clock.now(), queues.send
        passed = [0.0]
        monkeypatch.setattr(clock, "now", lambda: start + timedelta(seconds=passed[0]))

        def slow(*arguments: Any, **options: Any) -> None:
            send(*arguments, **options)
            passed[0] += 7

        monkeypatch.setattr(queues, "send", slow)
        answer = redrive(manage, route="people")
        assert outcomes(answer) == ["redriven", "redriven"]
        rest = redrive(manage, route="people", cursor=answer["next_cursor"])
        assert [each["id"] for each in answer["letters"] + rest["letters"]] == ["l0", "l1", "l2", "l3"]
        assert not rest["more"]
        by_id = redrive(manage, ids=["l0", "l1", "l2", "l3"])
        assert outcomes(by_id) == ["redriven", "redriven", "failed", "failed"]

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({}, "either ids or filters"),
            ({"dry_run": True}, "either ids or filters"),
            ({"ids": ["a"], "reason": "bad_value"}, "either ids or filters"),
            ({"ids": ["a"], "cursor": "x"}, "cursor"),
            ({"ids": []}, "at least 1"),
            ({"ids": ["a"] * 101}, "100 entries"),
            ({"ids": ["../a"]}, "dead letter's id"),
            ({"route": "people", "limit": 101}, "limit"),
            ({"before": "yesterday"}, "before"),
            ({"before": "2026-13-01T00:00:00Z"}, "before"),
            ({"reason": "x" * 65}, "reason"),
            ({"state": "open"}, "state"),
            ({"ids": "a"}, "list"),
        ],
    )
    def test_redrive_dead_letters_invalid_body_is_refused(
        self, manage: Manage, body: dict[str, Any], words: str
    ) -> None:
        answer = manage.call("POST", "/dead-letters/redrive", body)
        assert answer.status == 400
        assert words in answer.content["detail"]

    def test_redrive_dead_letters_has_an_audit_entry(self, stack: Cloud, manage: Manage) -> None:
        put(stack, letter())
        redrive(manage, ids=["letter-1"])
        entry = manage.call("GET", "/audit?limit=1").content["items"][0]
        assert (entry["operation"], entry["outcome"]) == ("redrive_dead_letters", "done")
        assert entry["asked"] == {"ids": ["letter-1"], "limit": 100, "dry_run": False}

    def test_redrive_and_delete_dead_letters_without_scope_are_refused(self, stack: Cloud, manage: Manage) -> None:
        put(stack, letter())
        _, token = manage.create_integration("dead-letters:list", "dead-letters:show")
        assert manage.program(token, "GET", "/dead-letters").status == 200
        assert manage.program(token, "GET", "/dead-letters/letter-1").status == 200
        assert manage.program(token, "POST", "/dead-letters/redrive", {"ids": ["letter-1"]}).status == 403
        assert manage.program(token, "DELETE", "/dead-letters/letter-1").status == 403


class TestDeletion:
    def test_delete_dead_letter_removes_all_its_items(self, stack: Cloud, manage: Manage) -> None:
        put(stack, letter())
        assert manage.call("DELETE", "/dead-letters/letter-1").status == 204
        assert list(stack.table.query_all("DEAD_LETTER#letter-1")) == []
        assert outcomes(redrive(manage, ids=["letter-1"])) == ["gone"]

    def test_delete_dead_letter_claimed_concurrently_is_a_conflict(
        self, stack: Cloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(stack, letter())
        get = Table.get

        def claimed(table: Table, pk: str, sk: str) -> Any:
            item = get(table, pk, sk)
            monkeypatch.undo()
            assert dead_letter_redrive._claim(table, dead_letters.read_head(item or {}), "claim")
            return item

        monkeypatch.setattr(Table, "get", claimed)
        with pytest.raises(Conflict):
            dead_letter_redrive.discard(stack.table, "letter-1")
        assert state(stack) == "redriving"

    def delete(self, manage: Manage, **body: Any) -> dict[str, Any]:
        answer = manage.call("POST", "/dead-letters/delete", body)
        assert answer.status == 200, answer.text
        return answer.content

    def test_delete_by_filter_dry_run_counts_and_deletes_nothing(self, stack: Cloud, manage: Manage) -> None:
        for name in "abc":
            put(stack, letter(name))
        expected = {"dead_letter_count": 3, "record_count": 3, "not_deleted": [], "more": False, "next_cursor": None}
        assert self.delete(manage, route="people", dry_run=True) == expected
        assert len(manage.call("GET", "/dead-letters").content["items"]) == 3
        assert self.delete(manage, route="people") == expected
        assert manage.call("GET", "/dead-letters").content["items"] == []
        assert list(stack.table.query_all("DEAD_LETTER#a")) == []
        assert sent(stack) == []

    def test_delete_by_filter_page_by_page_leaves_what_does_not_match(self, stack: Cloud, manage: Manage) -> None:
        for name in "abcde":
            put(stack, letter(name))
        put(stack, letter("other", route="companies"))
        first = self.delete(manage, route="people", limit=2)
        assert (first["dead_letter_count"], first["more"]) == (2, True)
        rest = self.delete(manage, route="people", cursor=first["next_cursor"])
        assert (rest["dead_letter_count"], rest["more"]) == (3, False)
        assert [each["id"] for each in manage.call("GET", "/dead-letters").content["items"]] == ["other"]

    def test_delete_by_ids_tells_what_was_not_deleted(self, stack: Cloud, manage: Manage) -> None:
        put(stack, letter("a"))
        put(stack, letter("b"))
        stack.table.update(
            *dead_letters.key("b"), "SET #state = :redriving, claimed_until = :until",
            names={"#state": "state"}, values={":redriving": "redriving", ":until": int(clock.now().timestamp()) + 200},
        )  # fmt: skip
        left = [{"id": "b", "outcome": "in_progress"}, {"id": "c", "outcome": "gone"}]
        for dry_run in (True, False):
            answer = self.delete(manage, ids=["a", "b", "c"], dry_run=dry_run)
            assert (answer["dead_letter_count"], answer["not_deleted"]) == (1, left)
        assert state(stack, "b") == "redriving"

    def test_delete_without_time_left_says_where_to_go_on(
        self, stack: Cloud, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in "abc":
            put(stack, letter(name))
        start, discard, passed = clock.now(), dead_letter_redrive.discard, [0.0]
        monkeypatch.setattr(clock, "now", lambda: start + timedelta(seconds=passed[0]))

        def slow(*arguments: Any) -> bool:
            passed[0] += 7
            return discard(*arguments)

        monkeypatch.setattr(dead_letter_redrive, "discard", slow)
        answer = self.delete(manage, route="people")
        assert (answer["dead_letter_count"], answer["more"]) == (2, True)
        rest = self.delete(manage, route="people", cursor=answer["next_cursor"])
        assert (rest["dead_letter_count"], rest["more"]) == (1, False)

    @pytest.mark.parametrize("body", [{}, {"dry_run": True}, {"ids": ["a"], "route": "people"}, {"state": "open"}])
    def test_delete_without_a_selection_is_refused(self, manage: Manage, body: dict[str, Any]) -> None:
        assert manage.call("POST", "/dead-letters/delete", body).status == 400


class TestUnprocessedMessages:
    """functions/keep_dead_letters."""

    def keep(self, stack: Cloud, **bodies: str) -> set[str]:
        module = functions.load("keep_dead_letters", stack.environment)
        event = functions.sqs_event(bodies, "records-dead-letters")
        return functions.reported(module.handler(event, functions.Context()))

    def heads(self, manage: Manage) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = manage.call("GET", "/dead-letters").content["items"]
        return items

    def test_keep_dead_letters_readable_message_is_redriven_unchanged(self, stack: Cloud, manage: Manage) -> None:
        body = functions.sample("keep_dead_letters", "one_message")["Records"][0]["body"]
        assert self.keep(stack, m1=body) == set()
        (head,) = self.heads(manage)
        assert (head["reason"], head["route"], head["record_count"]) == ("gave_up", "people-to-marketo", 1)
        redrive(manage, reason="gave_up")
        assert sent(stack) == [json.loads(body)]

    @pytest.mark.parametrize(
        "body",
        [
            "this is no JSON", "{}", "[]", "7", '{"version": 2, "records": []}', '{"version": 1, "records": {}}',
            '{"version": 1, "records": [], "connection": 7}', '{"version": 1, "records": [], "read_at": "now"}',
            '{"version": 1, "records": [], "target": []}', '{"version":1,"records":[' + "[" * 5_000 + "]" * 5_000 + "]}",
            '{"version": 1, "records": [{"key": "1", "updated_at": 1, "data": {"x": NaN}}]}',
        ],
    )  # fmt: skip
    def test_keep_dead_letters_unreadable_message_keeps_its_text(self, stack: Cloud, manage: Manage, body: str) -> None:
        assert self.keep(stack, m1=body) == set()
        (head,) = self.heads(manage)
        assert (head["reason"], head["record_count"]) == ("message_unreadable", 0)
        assert manage.call("GET", f"/dead-letters/{head['id']}").status == 200
        assert outcomes(redrive(manage, ids=[head["id"]])) == ["redriven"]
        assert stack.receive("records") == [body]

    def test_keep_dead_letters_duplicate_delivery_is_one_letter_per_message(self, stack: Cloud, manage: Manage) -> None:
        for _ in range(2):
            self.keep(stack, m1="no JSON", m2="no JSON")
        assert len(self.heads(manage)) == 2

    def test_keep_dead_letters_write_failure_reports_only_that_message(
        self, stack: Cloud, manage: Manage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = Table.put

        def failing(table: Table, item: Any, **options: Any) -> None:
            if item.get("reason") == "message_unreadable":
                raise EndpointConnectionError(endpoint_url="https://dynamodb")
            write(table, item, **options)

        monkeypatch.setattr(Table, "put", failing)
        good = functions.sample("keep_dead_letters", "one_message")["Records"][0]["body"]
        assert self.keep(stack, m1="no JSON", m2=good) == {"m1"}
        monkeypatch.undo()
        assert [head["reason"] for head in self.heads(manage)] == ["gave_up"]

    @pytest.mark.parametrize("name", ["one_message", "unreadable"])
    def test_keep_dead_letters_sample_events_are_kept(self, stack: Cloud, name: str) -> None:
        module = functions.load("keep_dead_letters", stack.environment)
        event = functions.sample("keep_dead_letters", name)
        assert functions.reported(module.handler(event, functions.Context())) == set()
