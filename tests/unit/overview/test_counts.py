"""What `count_states` stores, and what the overview says of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.entities import Connection, Route
from portaria.core.item_keys import install_places
from portaria.delivery import destination_pause, quotas
from portaria.delivery.destination_pause import PauseReason
from portaria.overview import install_counts, record_counts, stored_counts
from portaria.overview.stored_counts import Count, Reader
from portaria.records import receipts, routes
from tests.fakes.api.manage import Manage, add_install
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put
from tests.fakes.records.receipts import open_receipt
from tests.fakes.virtual_time import VirtualClock

NOON = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
MUNCHKIN = "123-ABC-456"


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    made = VirtualClock(NOON)
    with made.installed():
        yield made


def count(stack: Cloud) -> None:
    functions.load("count_states", stack.environment).handler(
        functions.sample("count_states", "every_five_minutes"), functions.Context()
    )


def overview(manage: Manage) -> dict[str, Any]:
    answer = manage.call("GET", "/overview")
    assert answer.status == 200, manage.log.getvalue()
    return answer.content


def named(counts: list[dict[str, Any]]) -> dict[str, int]:
    return {each["name"]: each["total_count"] for each in counts if each["total_count"]}


def install(stack: Cloud, number: int, age: timedelta, state: str = "connected", **fields: Any) -> None:
    received_at = clock.to_iso(clock.now() - age)
    places = install_places(f"{number:026d}", received_at)
    add_install(stack, number, state, received_at=received_at, **places, **fields)


def connect(stack: Cloud, name: str, state: str = "connected", **changes: Any) -> None:
    values = {"platform": "kommo", "kind": "oauth2", "allowed_domain": f"{name}.kommo.com"} | changes
    connection = Connection(name, state=state, generation=1, secret_id="portaria/grants/x", **values)
    stack.table.put(connection_store.to_item(connection))


def connect_marketo(stack: Cloud, name: str = "marketo-one", state: str = "connected") -> None:
    domain = "mkto-ingestion-api.adobe.io"
    fields = {"munchkin_id": MUNCHKIN}
    connect(stack, name, state, platform="marketo", kind="client_credentials", allowed_domain=domain, fields=fields)


def ago(**span: float) -> str:
    return clock.to_iso(clock.now() - timedelta(**span))


def test_overview_before_first_count_has_no_parts(manage: Manage) -> None:
    found = overview(manage)
    assert found["parts"] == []
    assert (found["connections"], found["installs"], found["receipts_since"]) == ([], [], None)


def test_overview_of_empty_stack_counts_zero(manage: Manage, stack: Cloud, time: VirtualClock) -> None:
    count(stack)
    found = overview(manage)
    assert found["connections"] == [
        {"name": state, "total_count": 0} for state in ("pending", "connected", "needs_reconnect", "removed")
    ]
    assert [each["received_count"] for each in found["installs"]] == [0, 0]
    assert {each["name"] for each in found["parts"]} == {
        "connections", "installs", "receipts", "dead_letters", "quotas",
    }  # fmt: skip


def test_overview_counts_installs_of_both_windows(manage: Manage, stack: Cloud, time: VirtualClock) -> None:
    install(stack, 1, timedelta(minutes=5))
    install(stack, 2, timedelta(hours=23))
    install(stack, 3, timedelta(hours=24), "failed", reason="code_expired")
    install(stack, 4, timedelta(minutes=10), "failed", reason="answer_lost")
    install(stack, 5, timedelta(minutes=20), "exchanging")
    install(stack, 6, timedelta(days=6, hours=12))
    install(stack, 7, timedelta(days=6, hours=13))
    count(stack)
    day, week = overview(manage)["installs"]
    assert (day["received_count"], day["since"]) == (4, "2026-03-09T13:00:00.000Z")
    assert named(day["states"]) == {"connected": 2, "failed": 1, "exchanging": 1}
    assert named(day["failures"]) == {"answer_lost": 1}
    assert len(day["bars"]) == 24
    assert day["bars"][-1] == {
        "since": "2026-03-10T12:00:00.000Z",
        "connected_count": 1,
        "failed_count": 1,
        "in_progress_count": 1,
    }
    assert (week["received_count"], week["since"]) == (6, "2026-03-04T00:00:00.000Z")
    assert named(week["failures"]) == {"answer_lost": 1, "code_expired": 1}
    assert [bar["connected_count"] for bar in week["bars"]] == [1, 0, 0, 0, 0, 1, 1]


def test_overview_install_counts_match_the_list_since_the_window(
    manage: Manage, stack: Cloud, time: VirtualClock
) -> None:
    for hours in range(0, 60, 5):
        install(stack, hours, timedelta(hours=hours))
    count(stack)
    for window in overview(manage)["installs"]:
        listed = manage.call("GET", f"/installs?since={window['since']}&limit=100").content["items"]
        assert len(listed) == window["received_count"]


def test_overview_counts_every_connection_by_state(manage: Manage, stack: Cloud, time: VirtualClock) -> None:
    for number in range(30):
        connect(stack, f"kommo-{number:02d}", "connected" if number % 3 else "needs_reconnect")
    count(stack)
    assert named(overview(manage)["connections"]) == {"connected": 20, "needs_reconnect": 10}


def test_overview_shows_the_grants_that_end_soonest_of_all_connections(
    manage: Manage, stack: Cloud, time: VirtualClock
) -> None:
    for number in range(30):
        connect(stack, f"kommo-{number:02d}", updated_at=ago(days=number))
    connect(stack, "refused", updated_at=ago(days=1), refused_since=ago(days=5))
    connect(stack, "ended", "needs_reconnect", updated_at=ago(days=89), refused_since=ago(days=6))
    count(stack)
    grants = overview(manage)["grants"]
    assert len(grants) == 10
    assert [(each["connection"], each["cause"]) for each in grants[:3]] == [
        ("refused", "refused"), ("kommo-29", "unused"), ("kommo-28", "unused"),
    ]  # fmt: skip
    assert grants[0]["ends_at"] == clock.to_iso(NOON + timedelta(days=2))
    assert grants[1]["ends_at"] == clock.to_iso(NOON + timedelta(days=61))


def test_overview_counts_receipts_of_the_last_day_as_the_list_shows_them(
    manage: Manage, stack: Cloud, time: VirtualClock
) -> None:
    connect_marketo(stack)
    open_receipt(stack.table, "old")
    time.advance(hours=24, seconds=1)
    for name in ("sent", "accepted", "reported", "failed"):
        open_receipt(stack.table, name)
    receipts.accept(stack.table, "accepted", "request-1")
    receipts.accept(stack.table, "reported", "request-2")
    receipts.fail(stack.table, "failed", "1001", "request-3")
    with patch.object(receipts, "_report_key", return_value=("REPORT#x#request-2", "REPORT")):
        receipts.report(stack.table, "x", "request-2", "e1", applied=1, failed={}, at=ago(minutes=1))
        count(stack)
    assert named(overview(manage)["receipts"])["failed"] == 1
    assert sum(named(overview(manage)["receipts"]).values()) == 4


def test_overview_counts_receipts_of_destinations_of_routes(manage: Manage, stack: Cloud, time: VirtualClock) -> None:
    connect(stack, "engage-one", platform="engage", kind="password", allowed_domain="sandbox.engage.bz")
    routes.put(stack.table, Route("people", "client:kommo/acme", "contacts", "engage-one", {}), new=True)
    open_receipt(stack.table, "one", destination="engage-one")
    open_receipt(stack.table, "two", destination="no-route-leads-here")
    count(stack)
    assert named(overview(manage)["receipts"]) == {"sent": 1}


def test_overview_counts_receipts_of_every_connection_of_a_subscription(
    manage: Manage, stack: Cloud, time: VirtualClock
) -> None:
    """Given connections with one quota, then the receipts of each are counted, also after it has ended."""
    connect_marketo(stack)
    connect_marketo(stack, "marketo-two")
    connect_marketo(stack, "marketo-ended", state="needs_reconnect")
    for number, name in enumerate(("marketo-one", "marketo-two", "marketo-ended")):
        open_receipt(stack.table, f"receipt-{number}", destination=name)
    count(stack)
    assert named(overview(manage)["receipts"]) == {"sent": 3}


def test_overview_counts_open_dead_letters_by_reason(manage: Manage, stack: Cloud, time: VirtualClock) -> None:
    put(stack, letter("a"), letter("b"), letter("c", reason="refused_by_destination"), letter("d"))
    stack.table.update(
        "DEAD_LETTER#d", "LETTER", "SET #state = :s", names={"#state": "state"}, values={":s": "redriven"}
    )
    count(stack)
    assert overview(manage)["dead_letters"] == [
        {"name": "no_dedupe_value", "total_count": 2},
        {"name": "refused_by_destination", "total_count": 1},
    ]


def test_overview_shows_the_quota_used_today(manage: Manage, stack: Cloud, time: VirtualClock) -> None:
    connect_marketo(stack)
    connect_marketo(stack, "marketo-two")
    ledger = quotas.Ledger(stack.table, stack.environment["QUOTA_TIME_ZONE"])
    for _ in range(3):
        ledger.reserve(MUNCHKIN, 10_000_000, {"kommo-1": 700}, bulk=False, weights={})
    count(stack)
    found = overview(manage)
    (quota,) = found["quotas"]
    assert (quota["subscription"], quota["used_count"], quota["quota_count"]) == (MUNCHKIN, 2100, 10_000_000)
    # Midnight in Chicago.
    assert found["quotas_reset_at"] == "2026-03-11T05:00:00.000Z"


def test_overview_shows_paused_destinations_with_their_reason(manage: Manage, stack: Cloud, time: VirtualClock) -> None:
    destination_pause.begin(stack.table, "marketo-one", "", reason=PauseReason.STOPPED, code="603", for_s=3600)
    found = overview(manage)
    assert found["destination_count"] == 1
    (shown,) = found["destinations"]
    assert (shown["name"], shown["state"], shown["reason"]) == ("marketo-one", "paused", "stopped")


def test_overview_has_queue_ages_and_alarms_or_null_if_cloudwatch_fails(manage: Manage, stack: Cloud) -> None:
    found = overview(manage)
    assert [each["name"] for each in found["queues"]] == ["exchanges", "records", "backfills", "renewals"]
    assert found["alarms"] == []


def test_overview_needs_its_scope(manage: Manage) -> None:
    _, token = manage.create_integration("overview:show")
    assert manage.program(token, "GET", "/overview").status == 200
    _, token = manage.create_integration("installs:list")
    assert manage.program(token, "GET", "/overview").status == 403


def test_count_states_again_corrects_the_counts(manage: Manage, stack: Cloud, time: VirtualClock) -> None:
    wrong = Count(clock.to_iso(clock.now()), 1, True, {"states": {"connected": 7}, "grants": [], "subscriptions": {}})
    stored_counts.put(stack.table, stored_counts.CONNECTIONS, wrong)
    time.advance(minutes=5)
    count(stack)
    assert named(overview(manage)["connections"]) == {}


def test_count_states_one_part_fails_counts_the_others(manage: Manage, stack: Cloud, time: VirtualClock) -> None:
    with patch.object(install_counts, "count", side_effect=ValueError("canary")):
        count(stack)
    assert {each["name"] for each in overview(manage)["parts"]} == {
        "connections", "receipts", "dead_letters", "quotas",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("read", "minutes", "is_due"),
    [(0, 2, False), (0, 5, True), (5_000, 5, True), (5_001, 5, False), (20_000, 20, True), (100_000, 30, True)],
)
def test_count_of_more_items_is_made_less_often(read: int, minutes: int, is_due: bool) -> None:
    counted = Count(clock.to_iso(NOON), read, True)
    assert counted.is_due(NOON + timedelta(minutes=minutes)) is is_due


def test_reader_ends_after_its_limit_and_says_so(stack: Cloud) -> None:
    put(stack, *(letter(f"letter-{number}") for number in range(3)))
    query = type(stack.table).query
    with patch.object(type(stack.table), "query", lambda self, pk, **more: query(self, pk, **more | {"limit": 1})):
        whole = record_counts.count_dead_letters(Reader(stack.table))
        cut = record_counts.count_dead_letters(Reader(stack.table, limit=2))
    assert (whole.read, whole.is_complete) == (3, True)
    assert (cut.read, cut.is_complete) == (2, False)
