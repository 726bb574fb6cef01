"""Destinations and hosts that do not answer: what is paused, who tries again, and what other destinations notice of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import AnswerLost, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.core.settings import ReleaseRecordsSettings
from portaria.delivery import (
    backlogs,
    destination_pause,
    destination_states,
    host_pauses,
    record_release,
    waiting_lists,
)
from portaria.delivery.destination_pause import PauseReason
from portaria.delivery.host_pauses import LostTime
from portaria.delivery.pipeline import QueuedMessage
from portaria.delivery.stages import destination_turns, host_gate
from portaria.delivery.stages.batch_state import BatchDestination, BatchOutcome
from portaria.platforms.marketo import persons
from tests.fakes import outgoing
from tests.fakes.crashes import Died
from tests.fakes.outgoing import SentRequest
from tests.fakes.records import ingesting, waiting_records
from tests.fakes.records.contacts import contact
from tests.fakes.records.dying import Dying
from tests.fakes.records.ingesting import Harness, body
from tests.simulation.aws.cloud import PREFIX, InTurn

HOST = "mkto-ingestion-api.adobe.io"
# A request of Marketo times out after this.
TIMEOUT_S = 23.0
BEGIN = datetime(2026, 3, 4, 18, 0, tzinfo=UTC)
Behaviour = Callable[[], Response]


class Platform:
    """Four subscriptions of Marketo at one host. `does` has what each does instead of accepting a request at once."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.now = BEGIN
        self.does: dict[str, Behaviour] = {}
        # The destinations of all requests, and of those that were accepted.
        self.requests: list[str] = []
        self.accepted: list[str] = []
        self.persons: list[tuple[str, str]] = []
        vault = Vault(PREFIX)
        for name in "abcd":
            secret_id = vault.grant_id(f"marketo-{name}")
            vault.create(secret_id, {"client_id": Secret("id"), "client_secret": Secret("canary-secret")})
            harness.connect(f"marketo-{name}", "marketo", secret_id, {"munchkin_id": f"123-ABC-{name}"})
            harness.connect(f"kommo-{name}", "kommo")
            harness.route(name, source=f"connection:kommo-{name}", destination=f"marketo-{name}", keep_newest="none")

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def send(self, request: Request, *, allowed_domain: str, owner: str) -> Response:
        if request.url.endswith("/identity/oauth/token"):
            token = {"access_token": "canary-token:int", "token_type": "bearer", "expires_in": 3599}
            return Response(200, {}, json.dumps(token).encode())
        name = request.url.partition("/subscriptions/123-ABC-")[2].partition("/")[0]
        self.requests.append(name)
        answer = self.does.get(name, lambda: Response(202, {"x-request-id": "r"}))()
        if answer.status == 202:
            self.accepted.append(name)
            self.persons += [(name, person["email"]) for person in json.loads(request.body or b"")["persons"]]
        return answer

    def begin(self, request: Request, *, allowed_domain: str, owner: str) -> SentRequest:
        """The time of the response passes from here on, also while other requests are sent."""
        begun = self.now
        try:
            answer: Response | AnswerLost = self.send(request, allowed_domain=allowed_domain, owner=owner)
        except AnswerLost as lost:
            answer = lost
        answered, self.now = self.now, begun

        def read() -> Response:
            self.now = max(self.now, answered)
            if isinstance(answer, AnswerLost):
                raise answer
            return answer

        return SentRequest(read)

    def time_out(self) -> Response:
        self.pass_time(TIMEOUT_S)
        raise AnswerLost("no answer came")

    def refuse_connection(self) -> Response:
        raise Unreachable("connection refused")

    def answer_late(self) -> Response:
        self.pass_time(12)
        return Response(202, {"x-request-id": "r"})

    def fail_at_once(self) -> Response:
        return Response(500, {}, b'{"error_code": "5000801", "message": "no"}')

    def ingest(self, names: str, *numbers: int, receives: int = 1) -> list[str]:
        """One batch with a record for each of these destinations. Returns the messages that return to the queue."""
        messages = [
            QueuedMessage(f"{name}-{number}-{self.now:%H%M%S}", self.message(name, number), receives)
            for name in names
            for number in numbers or (1,)
        ]
        return sorted(self.harness.ingest(*messages).waiting)

    def message(self, name: str, number: int) -> str:
        at = int(self.now.timestamp() * 1_000)
        return body([contact(number, updated_at=7)], connection=f"kommo-{name}", read_at=at)

    def pause_host(self) -> None:
        """All subscriptions time out until the host is paused, one of them in each batch. The records are used up."""
        self.does = dict.fromkeys("abcd", self.time_out)
        self.pass_time(60 - self.now.second)
        for name in "abcd":
            # As by four workers at the same time.
            begin = self.now
            self.ingest(name)
            self.now = begin
        self.pass_time(TIMEOUT_S)
        assert self.host is not None
        self.requests.clear()

    def sent_of(self, name: str) -> list[str]:
        return [email for destination, email in self.persons if destination == name]

    @property
    def host(self) -> host_pauses.HostPause | None:
        return host_pauses.read(self.harness.table, HOST)

    def reasons(self, name: str) -> list[str]:
        return [str(pause.reason) for pause in backlogs.status(self.harness.table, f"marketo-{name}").pauses]

    def release(self) -> None:
        self.pass_time(60)
        self.harness.release()

    def sweep(self) -> record_release.ReleaseOutcome:
        settings: Any = self.harness.cloud.settings(ReleaseRecordsSettings)
        return record_release.handle_message('{"sweep": ""}', settings, lambda: 120.0)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    with ingesting.harness() as harness:
        platform = Platform(harness)
        monkeypatch.setattr(clock, "now", lambda: platform.now)
        monkeypatch.setattr(clock, "sleep", platform.pass_time)
        with outgoing.answering(platform.send, platform.begin):
            yield platform


# --------------------------------------------------------------------------------------------------------- one destination


def test_pipeline_single_timeout_pauses_neither_destination_nor_host(platform: Platform) -> None:
    platform.does["a"] = platform.time_out
    assert platform.ingest("ab") == []
    assert (platform.reasons("a"), platform.host) == ([], None)
    assert platform.accepted == ["b"]


def test_pipeline_destination_losing_time_is_paused_and_other_destination_is_sent(platform: Platform) -> None:
    platform.does["a"] = platform.time_out
    platform.ingest("a", 1)
    platform.ingest("a", 2)
    assert platform.reasons("a") == ["no_answer"]
    assert platform.host is None
    begin = platform.now
    assert platform.ingest("ab", 3) == []
    assert platform.now == begin
    assert platform.accepted == ["b"]
    # The failed records have a schedule of their own; the third one waits for the end of the pause.
    assert sorted(waiting_records.waits(platform.harness.table).values())[0] == host_pauses.FIRST_DESTINATION_PAUSE_S


def test_pipeline_destination_alone_losing_much_time_never_pauses_host(platform: Platform) -> None:
    platform.does["a"] = platform.time_out
    # As forty workers at the same moment do.
    for number in range(40):
        now = platform.now
        platform.harness.ingest(QueuedMessage(f"m{number}", platform.message("b", number)))
        host_pauses.add_lost(platform.harness.table, HOST, "marketo-a", TIMEOUT_S)
        platform.now = now
    platform.ingest("a")
    assert platform.host is None


@pytest.mark.parametrize("before", [None, PauseReason.BUSY, PauseReason.QUOTA])
def test_destination_pause_without_answer_can_be_read_by_older_versions(
    platform: Platform, before: PauseReason | None
) -> None:
    table = platform.harness.table
    if before:
        destination_pause.begin(table, "marketo-a", "", reason=before, code="", for_s=60)
    destination_pause.begin(table, "marketo-a", "", reason=PauseReason.NO_ANSWER, code="no_answer", for_s=60)
    (item,) = table.query_all(destination_pause.partition("marketo-a"))
    assert item["reason"] == "busy"
    assert platform.reasons("a") == ["no_answer"]


def test_pipeline_silent_destination_gets_one_request_for_all_objects_of_a_batch(platform: Platform) -> None:
    platform.harness.route("companies", source="connection:kommo-a", destination="marketo-a", target="companies",
                           mapping={"externalCompanyId": "name"}, keep_newest="none")  # fmt: skip
    platform.does["a"] = platform.time_out
    platform.ingest("a")
    assert platform.requests == ["a"]


def test_release_destination_still_silent_doubles_its_pause(platform: Platform) -> None:
    platform.does["a"] = platform.time_out
    for number in (1, 2, 3):
        platform.ingest("a", number)
    lengths = []
    for _ in range(4):
        (pause,) = backlogs.status(platform.harness.table, "marketo-a").pauses
        lengths.append(pause.for_s)
        platform.now = datetime.fromtimestamp(pause.until, UTC)
        platform.ingest("a", 9)
        platform.release()
    assert lengths == [60, 120, 240, host_pauses.LONGEST_DESTINATION_PAUSE_S]
    platform.does.clear()
    platform.pass_time(4_000)
    platform.release()
    assert platform.reasons("a") == []
    assert waiting_records.entries(platform.harness.table) == []


@pytest.mark.parametrize("fails", ["refuse_connection", "fail_at_once"])
def test_pipeline_fast_failures_pause_nothing(platform: Platform, fails: str) -> None:
    platform.does = dict.fromkeys("abcd", getattr(platform, fails))
    for number in range(5):
        platform.ingest("abcd", number)
    assert platform.host is None
    assert platform.reasons("a") == []


# ------------------------------------------------------------------------------------------------------------ the whole host


@pytest.mark.parametrize(
    ("lost", "pauses"),
    [
        ({"a": 500.0, "b": 20.0, "c": 20.0}, False),
        ({"a": 20.0, "b": 10.0, "c": 10.0, "d": 10.0}, True),
        ({"a": 20.0, "b": 10.0, "c": 10.0, "d": 9.9}, False),
        ({}, False),
    ],
)
def test_lost_time_pauses_host_only_if_many_destinations_lose_it(lost: dict[str, float], pauses: bool) -> None:
    assert LostTime(lost).pauses_host is pauses


def test_pipeline_host_paused_stores_records_of_other_destinations_without_request(platform: Platform) -> None:
    platform.pause_host()
    begin = platform.now
    assert platform.ingest("d", 1, 2) == []
    assert (platform.requests, platform.now) == ([], begin)
    assert waiting_records.keys(platform.harness.table).count("2") == 1
    state = destination_states.find(platform.harness.table, "marketo-d")
    assert [(pause.reason, pause.host) for pause in state.pauses] == [(PauseReason.NO_ANSWER, HOST)]
    assert backlogs.status(platform.harness.table, "marketo-d").pauses == ()


def test_pipeline_other_host_is_sent_while_host_is_paused(platform: Platform) -> None:
    platform.pause_host()
    gate = host_gate.HostGate(platform.harness.table, BatchOutcome(), is_drain=False)
    assert gate.closed_until(destination(HOST)) > platform.now.timestamp()
    assert gate.closed_until(destination("my.engage.bz")) == 0


def test_release_after_host_pause_one_probe_opens_host_for_all(platform: Platform) -> None:
    platform.pause_host()
    platform.ingest("abcd", 5)
    platform.does.clear()
    platform.release()
    platform.release()
    assert platform.host is None
    assert set(platform.accepted) == set("abcd")


def test_pipeline_second_worker_waits_while_first_one_probes_host(platform: Platform) -> None:
    platform.pause_host()
    platform.pass_time(host_pauses.FIRST_PAUSE_S)

    def second_worker_meanwhile() -> Response:
        platform.does.clear()
        platform.ingest("c")
        return Response(202, {"x-request-id": "r"})

    platform.does = {"d": second_worker_meanwhile}
    platform.ingest("d")
    assert platform.accepted == ["d"]
    assert platform.host is None


def test_pipeline_failed_probe_doubles_host_pause_and_pauses_its_destination_longer(platform: Platform) -> None:
    platform.pause_host()
    lengths = []
    for _ in range(5):
        host = platform.host
        assert host
        lengths.append(host.for_s)
        platform.now = datetime.fromtimestamp(host.until, UTC)
        (table, before) = platform.harness.table, len(platform.requests)
        for pause in backlogs.status(table, "marketo-d").pauses:
            destination_pause.end(table, pause)
        for name in waiting_names(platform):
            forget_waiting(platform, name)
        platform.ingest("d")
        assert len(platform.requests) == before + 1
        (own,) = backlogs.status(table, "marketo-d").pauses
        again = platform.host
        assert again
        assert again.until > platform.now.timestamp()
        assert own.until >= again.until + host_pauses.FIRST_DESTINATION_PAUSE_S
    assert lengths == [15, 30, 60, 120, 120]


def test_pipeline_worker_killed_during_probe_lets_next_one_probe_later(platform: Platform) -> None:
    platform.pause_host()
    platform.pass_time(host_pauses.FIRST_PAUSE_S)

    def die() -> Response:
        raise Died

    platform.does = {"d": die}
    with pytest.raises(Died):
        platform.ingest("d")
    platform.does = {}
    platform.ingest("d", 2)
    assert platform.accepted == []
    platform.pass_time(host_pauses.PROBE_S)
    platform.release()
    assert platform.accepted == ["d"]
    assert platform.host is None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("answers", [False, True])
def test_pipeline_worker_killed_at_any_write_of_probe_loses_nothing_and_host_is_tried_again(
    platform: Platform, at: int, after: bool, answers: bool
) -> None:
    platform.pause_host()
    platform.pass_time(host_pauses.FIRST_PAUSE_S)
    platform.does = {} if answers else {"d": platform.time_out}
    message = QueuedMessage("last", platform.message("d", 77))
    died = False
    with (
        Dying(platform.harness.cloud, at, after=after),
        patch("portaria.aws.table.ThreadPoolExecutor", InTurn),
        suppress(Died),
    ):
        died = True
        platform.harness.ingest(message)
        died = False
    platform.does = {}
    if died:
        assert platform.harness.ingest(QueuedMessage("last", message.body, 2)).waiting == {}
    for _ in range(4):
        platform.pass_time(700)
        platform.harness.release()
    assert platform.host is None
    assert waiting_records.entries(platform.harness.table) == []
    assert platform.harness.letters() == []
    assert platform.sent_of("d").count("person77@example.com") in (1, 2)


def test_pipeline_probe_answered_fast_with_failure_ends_host_pause(platform: Platform) -> None:
    platform.pause_host()
    platform.pass_time(host_pauses.FIRST_PAUSE_S)
    platform.does = {"d": platform.fail_at_once}
    platform.ingest("d")
    assert platform.host is None


def test_pipeline_probe_without_request_is_given_to_next_worker(platform: Platform) -> None:
    platform.pause_host()
    platform.pass_time(host_pauses.FIRST_PAUSE_S)
    gate = host_gate.HostGate(platform.harness.table, BatchOutcome(), is_drain=False)
    for _ in range(2):
        entry = gate.enter(destination(HOST))
        assert entry.probe
        gate.leave(destination(HOST), entry.probe, spent_s=0.0, failed=False, is_answered=False)
    assert gate.enter(destination(HOST)).probe
    other = host_gate.HostGate(platform.harness.table, BatchOutcome(), is_drain=False)
    assert other.enter(destination(HOST)).closed_until > platform.now.timestamp()


def test_host_gate_two_workers_with_the_same_state_claim_one_probe(platform: Platform) -> None:
    platform.pause_host()
    platform.pass_time(host_pauses.FIRST_PAUSE_S)
    gates = [host_gate.HostGate(platform.harness.table, BatchOutcome(), is_drain=False) for _ in range(2)]
    assert [gate.closed_until(destination(HOST)) for gate in gates] == [0, 0]
    assert [gate.enter(destination(HOST)).closed_until > 0 for gate in gates] == [False, True]


def test_host_gate_pause_ended_meanwhile_admits_request_without_probe(platform: Platform) -> None:
    platform.pause_host()
    platform.pass_time(host_pauses.FIRST_PAUSE_S)
    gate = host_gate.HostGate(platform.harness.table, BatchOutcome(), is_drain=False)
    assert gate.closed_until(destination(HOST)) == 0
    pause = platform.host
    assert pause
    host_pauses.end(platform.harness.table, pause)
    assert gate.enter(destination(HOST)) == host_gate.HostEntry()


def test_pipeline_host_state_unreadable_sends_records(platform: Platform) -> None:
    with patch.object(host_pauses, "read", side_effect=OSError):
        assert platform.ingest("ab") == []
    assert platform.accepted == ["a", "b"]


def test_pipeline_host_state_not_written_keeps_record(platform: Platform) -> None:
    platform.does = {"a": platform.time_out}
    with patch.object(host_pauses, "add_lost", side_effect=OSError):
        assert platform.ingest("a") == []
    assert waiting_records.keys(platform.harness.table) == ["1"]


# ------------------------------------------------------------------------------------------------------------ a slow host


def test_pipeline_batch_stops_sending_to_slow_host_and_stores_the_rest(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination_turns, "MAX_DESTINATIONS", 1)
    platform.does = dict.fromkeys("abcd", platform.answer_late)
    begin = platform.now
    assert platform.ingest("abcd") == []
    assert platform.accepted == ["a", "b", "c"]
    assert platform.now - begin < timedelta(seconds=host_gate.BATCH_HOST_SLOW_S + 12)
    assert waiting_records.keys(platform.harness.table) == ["1"]
    # A host that answers, however late, is not paused.
    assert platform.host is None
    platform.release()
    assert platform.accepted == ["a", "b", "c", "d"]


def test_release_slow_destination_is_sent_without_limit(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persons, "MAX_OBJECTS", 1)
    platform.does = dict.fromkeys("abcd", platform.answer_late)
    platform.ingest("a", *range(1, 9))
    # The first request, and the requests in progress when the second one turned out to be slow.
    assert platform.accepted == ["a"] * (1 + persons.REQUESTS_IN_PROGRESS)
    platform.release()
    assert platform.accepted == ["a"] * 8


# --------------------------------------------------------------------------------------------------------------- the sweep


def test_release_sweep_drains_no_destination_of_paused_host_and_few_after_it(platform: Platform) -> None:
    platform.pause_host()
    platform.ingest("abcd", 5)
    pause = platform.host
    assert pause
    for name in "abcd":
        backlogs.try_now(platform.harness.table, f"marketo-{name}")
    assert platform.sweep().queued == 0
    platform.now = datetime.fromtimestamp(pause.until, UTC)
    assert platform.sweep().queued == record_release.PROBES_A_SWEEP
    host_pauses.end(platform.harness.table, pause)
    assert platform.sweep().queued == 4


def test_release_sweep_reports_how_long_host_has_not_answered(platform: Platform) -> None:
    assert platform.sweep().no_answer_s is None
    platform.pause_host()
    platform.ingest("abcd", 5)
    pause = platform.host
    assert pause
    platform.now = datetime.fromisoformat(pause.since) + timedelta(seconds=400)
    # The pause has passed, and no request was answered since.
    assert pause.until < platform.now.timestamp()
    assert platform.sweep().no_answer_s == 400
    platform.does.clear()
    platform.pass_time(600)
    platform.release()
    assert platform.sweep().no_answer_s is None


def test_release_sweep_reports_how_long_single_destination_has_not_answered(platform: Platform) -> None:
    platform.does["a"] = platform.time_out
    for number in (1, 2, 3):
        platform.ingest("a", number)
    (pause,) = backlogs.status(platform.harness.table, "marketo-a").pauses
    platform.now = datetime.fromisoformat(pause.since) + timedelta(seconds=900)
    assert platform.sweep().no_answer_s == 900


@pytest.mark.parametrize("reason", [PauseReason.QUOTA, PauseReason.STOPPED, PauseReason.BUSY])
def test_release_sweep_pause_for_another_reason_is_not_reported(platform: Platform, reason: PauseReason) -> None:
    destination_pause.begin(platform.harness.table, "marketo-a", "", reason=reason, code="1", for_s=3_600)
    platform.ingest("a")
    platform.pass_time(60)
    outcome = platform.sweep()
    assert (outcome.records, outcome.no_answer_s) == (1, None)


def test_release_sweep_silent_destination_without_waiting_records_is_not_reported(platform: Platform) -> None:
    """No record tries it, so its state is unknown."""
    destination_pause.begin(
        platform.harness.table, "marketo-a", "", reason=PauseReason.NO_ANSWER, code="no_answer", for_s=60
    )
    assert host_pauses.begin(platform.harness.table, HOST)
    wait_for_other_host(platform)
    platform.pass_time(900)
    outcome = platform.sweep()
    assert (outcome.records, outcome.no_answer_s) == (1, None)


def test_release_sweep_pauses_cannot_be_read_still_queues_drains(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.pause_host()
    platform.ingest("abcd", 5)
    platform.pass_time(600)
    with patch.object(host_pauses, "list_all", side_effect=ValueError("canary")):
        outcome = platform.sweep()
    assert (outcome.queued, outcome.no_answer_s) == (record_release.PROBES_A_SWEEP, None)
    assert "silent_destinations_not_read" in caplog.text
    assert "canary" not in caplog.text


def test_host_pauses_list_has_pauses_until_they_end(platform: Platform) -> None:
    table = platform.harness.table
    first, second = host_pauses.begin(table, "a.example.com"), host_pauses.begin(table, "b.example.com")
    assert first
    assert second
    assert host_pauses.list_all(table) == [first, second]
    host_pauses.end(table, first)
    assert host_pauses.list_all(table) == [second]


def test_host_pauses_list_has_pause_of_older_version_once_it_is_prolonged(platform: Platform) -> None:
    table = platform.harness.table
    begun = host_pauses.begin(table, HOST)
    assert begun
    table.update(host_pauses.partition(HOST), host_pauses.PAUSE, "REMOVE list_pk, list_sk")
    assert host_pauses.list_all(table) == []
    prolonged = host_pauses.fail_probe(table, begun)
    assert host_pauses.list_all(table) == [prolonged]


def test_resume_destination_of_paused_host_tries_host_at_once(platform: Platform) -> None:
    platform.pause_host()
    platform.ingest("d", 5)
    platform.does.clear()
    table, url = platform.harness.table, platform.harness.cloud.url("waiting_records")
    destination_states.resume(table, url, destination_states.find(table, "marketo-d"))
    platform.harness.release()
    assert platform.accepted == ["d"]
    assert platform.host is None


def destination(host: str) -> BatchDestination:
    connection = Connection("marketo-d", "marketo", "client_credentials", host, "connected", 1, "")
    return BatchDestination(connection, persons)


def wait_for_other_host(platform: Platform) -> None:
    now = int(platform.now.timestamp())
    backlogs.touch(platform.harness.table, "engage-main", "engage.example.com", 1, now + 3_600, now)


def waiting_names(platform: Platform) -> list[str]:
    return [backlog.destination for backlog in backlogs.list_all(platform.harness.table)]


def forget_waiting(platform: Platform, name: str) -> None:
    """Remove what waits for a destination, so that its next record is sent directly."""
    table = platform.harness.table
    for head in waiting_lists.heads(table, name):
        waiting_lists.remove_list(table, head)
    table.delete(*backlogs.key(name))
