"""The parts of `portaria smoke` that the local cloud does not show: names, the lease, and the cause of a failure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria import platforms
from portaria.access import api_tokens
from portaria.api.validation import CLIENT_NAME, NAME
from portaria.core import clock
from portaria.core.callbacks import OAuthCallback
from portaria.core.item_keys import install_key
from portaria.outbound import domain_rules
from portaria.overview.findings import FAIL, OK, SKIPPED, WARN, Finding
from portaria_cli.doctor.findings import NotLooked
from portaria_cli.errors import NotDone
from portaria_cli.smoke import cleanup, flows, stack_parts
from portaria_cli.smoke.checks import CHECKS
from portaria_cli.smoke.command import CHECK_NAMES
from portaria_cli.smoke.lease import KEY, LEASE_S, RENEW_AFTER_S, Held, Lease, Lost
from portaria_cli.smoke.run import Answer, Failed, Names, Run, smoke_install, smoke_record
from portaria_cli.smoke.session import MARK_ALPHABET, MARK_LENGTH
from tests.fakes.api.command_line import run as run_command
from tests.fakes.aws.moto_cloud import Cloud, cloud
from tests.fakes.virtual_time import VirtualClock

Json = dict[str, Any]
MARK = "abcdefghij"
marks = st.text(MARK_ALPHABET, min_size=MARK_LENGTH, max_size=MARK_LENGTH)


@pytest.fixture
def stack() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    time = VirtualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    with time.installed():
        yield time


# ----------------------------------------------------------------------------------------------------------------- names


@given(marks)
def test_smoke_names_of_any_mark_are_valid(mark: str) -> None:
    names = Names(mark)
    assert re.fullmatch(CLIENT_NAME, names.name)
    assert re.fullmatch(NAME, names.name)
    assert re.fullmatch(NAME, names.destination)
    platform, smoke = smoke_record()
    kind = platforms.load(platform).connection_kinds.KINDS[smoke.KIND]
    for field, value in smoke.account_fields(mark).items():
        assert kind.fields[field].fullmatch(value)
    platform, install = smoke_install()
    query = install.hook_query(names.name, names.code)
    callbacks = platforms.load(platform).install
    assert callbacks
    arrival = callbacks.parse_callback({name: [value] for name, value in query.items()})
    assert isinstance(arrival, OAuthCallback)
    assert arrival.source == "widget"
    domain_rules.check_allowed_domain(arrival.account_host)


def test_smoke_names_of_two_marks_differ() -> None:
    one, other = Names(MARK), Names("0123456789")
    assert one.name != other.name
    account_fields = smoke_record()[1].account_fields
    assert account_fields(one.mark) != account_fields(other.mark)
    assert one.install(one.name) != other.install(other.name)


def test_smoke_checks_match_the_command_choices() -> None:
    assert tuple(CHECKS) == CHECK_NAMES


# ----------------------------------------------------------------------------------------------------------------- lease


def test_smoke_lease_held_by_another_is_refused_until_it_ends(stack: Cloud, time: VirtualClock) -> None:
    Lease(stack.table, "first").take()
    second = Lease(stack.table, "second")
    with pytest.raises(Held) as held:
        second.take()
    assert 0 < held.value.left_s <= LEASE_S + 1
    time.advance(LEASE_S + 1)
    second.take()
    assert second.marks == ["first"]


def test_smoke_lease_renewed_stays_held(stack: Cloud, time: VirtualClock) -> None:
    lease = Lease(stack.table, "first")
    lease.take()
    for _ in range(10):
        time.advance(RENEW_AFTER_S)
        lease.renew()
    with pytest.raises(Held):
        Lease(stack.table, "second").take()


def test_smoke_lease_taken_over_is_lost_and_keeps_its_mark(stack: Cloud, time: VirtualClock) -> None:
    slow, quick = Lease(stack.table, "slow"), Lease(stack.table, "quick")
    slow.take()
    time.advance(LEASE_S + 1)
    quick.take()
    with pytest.raises(Lost):
        slow.renew()
    with pytest.raises(Lost):
        slow.forget("slow")
    slow.end()
    assert (stack.table.get(*KEY) or {})["marks"] == ["slow", "quick"]


def test_smoke_lease_ended_keeps_marks_that_were_not_removed(stack: Cloud, time: VirtualClock) -> None:
    lease = Lease(stack.table, "first")
    lease.take()
    lease.end()
    second = Lease(stack.table, "second")
    second.take()
    assert second.marks == ["first"]
    second.forget("first")
    second.forget("second")
    second.end()
    assert stack.table.get(*KEY) is None


# -------------------------------------------------------------------------------------------------------------- clean-up


class Api:
    """An API that has only OAuth clients."""

    def __init__(self, *clients: str) -> None:
        self.clients = list(clients)

    def list(self, *path: str, **filters: str) -> list[Json]:
        return []

    def find(self, *path: str) -> Json | None:
        return {"name": path[-1]} if path[-1] in self.clients else None

    def delete(self, *path: str) -> None:
        if path[0] != "oauth-clients" or path[-1] not in self.clients:
            raise NotDone("there is none", status=404)
        self.clients.remove(path[-1])


class Deployment:
    stack_name = "portaria"

    def __init__(self, stack: Cloud, logged: list[Json] | None = None) -> None:
        self.table = stack.table
        self.logged = logged

    def call(self, service: str, operation: str, **parameters: Any) -> Json:
        if operation == "filter_log_events":
            if self.logged is None:
                raise NotLooked("needs the permission logs:FilterLogEvents")
            return {"events": [{"message": "START"}, *({"message": json.dumps(line)} for line in self.logged)]}
        assert operation == "list_secrets"
        return {"SecretList": []}

    def physical(self, logical_id: str) -> str:
        return logical_id


def run_of(stack: Cloud, api: Any, logged: list[Json] | None = None) -> Run:
    lease = Lease(stack.table, MARK)
    lease.take()
    return Run(cast(Any, Deployment(stack, logged)), api, lease, 0)


def install_of(stack: Cloud) -> Json | None:
    return stack.table.get(*install_key(Names(MARK).install(Names(MARK).name)))


def put_install(stack: Cloud, **fields: Any) -> None:
    pk, sk = install_key(Names(MARK).install(Names(MARK).name))
    stack.table.put({"pk": pk, "sk": sk, "client": Names(MARK).name, **fields})


def test_smoke_cleanup_code_not_exchanged_stores_failed_install(stack: Cloud) -> None:
    run = run_of(stack, Api(Names(MARK).name))
    assert cleanup.remove(run, MARK) == []
    note = install_of(stack)
    assert note is not None
    # Messages that exchange_code does not receive, and installs that no listing shows.
    assert note["state"] == "failed"
    assert "list_pk" not in note
    assert note["expires_at"] > clock.now().timestamp() + 86_400


def test_smoke_cleanup_repeated_keeps_failed_install(stack: Cloud) -> None:
    run = run_of(stack, Api(Names(MARK).name))
    cleanup.remove(run, MARK)
    note = install_of(stack)
    assert cleanup.remove(run, MARK) == []
    assert install_of(stack) == note


def test_smoke_cleanup_finished_install_is_deleted(stack: Cloud) -> None:
    put_install(stack, state="failed")
    assert cleanup.remove(run_of(stack, Api(Names(MARK).name)), MARK) == []
    assert install_of(stack) is None


def test_smoke_cleanup_running_install_is_left_for_next_run(stack: Cloud) -> None:
    put_install(stack, state="exchanging")
    api = Api(Names(MARK).name)
    run = run_of(stack, api)
    [left] = cleanup.remove(run, MARK)
    assert "under way" in left
    assert api.clients == []
    put_install(stack, state="failed")
    assert cleanup.remove(run, MARK) == []
    assert install_of(stack) is None


def test_smoke_cleanup_without_oauth_client_writes_nothing(stack: Cloud) -> None:
    assert cleanup.remove(run_of(stack, Api()), MARK) == []
    assert install_of(stack) is None


# -------------------------------------------------------------------------------------------------------------- causes


class Hook(Api):
    """An API whose install webhook accepts the code, and which then shows this install."""

    def __init__(self, install: Json | None) -> None:
        super().__init__()
        self.install = install
        self.url = "https://abc123.execute-api.us-east-1.amazonaws.com/live"

    def create(self, *path: str, body: Json) -> Json:
        return {}

    def find(self, *path: str) -> Json | None:
        return self.install if path[0] == "installs" else None


def forged(
    stack: Cloud, monkeypatch: pytest.MonkeyPatch, install: Json | None, logged: list[Json] | None = None
) -> Any:
    monkeypatch.setattr(Run, "hook", lambda self, client: Answer(200, "received"))
    return flows.forged_code(run_of(stack, Hook(install), logged))


def line(**fields: str) -> Json:
    return {"install_id": Names(MARK).install(Names(MARK).name), "message": "the install waits", **fields}


@pytest.mark.parametrize("reason", ["wrong_client", "invalid_account", "bad_code"])
def test_smoke_forged_code_refused_by_platform_passes(
    stack: Cloud, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    state, found, _ = forged(stack, monkeypatch, {"state": "failed", "reason": reason, "detail": "no"})
    assert state == OK
    assert reason in found


@pytest.mark.parametrize("reason", ["unknown_client", "no_client_secret", "code_expired", "seal_broken"])
def test_smoke_forged_code_failed_for_another_reason_fails(
    stack: Cloud, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    with pytest.raises(Failed, match=reason):
        forged(stack, monkeypatch, {"state": "failed", "reason": reason, "detail": "no"})


@pytest.mark.parametrize("reason", ["unreachable", "platform_error", "no_answer"])
def test_smoke_forged_code_platform_unavailable_is_a_warning(
    stack: Cloud, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    logged = [line(reason="vault_unavailable"), line(reason=reason, detail="Kommo answered 503")]
    state, found, advice = forged(stack, monkeypatch, {"state": "exchanging"}, logged)
    assert state == WARN
    assert "Kommo answered 503" in found
    assert advice


@pytest.mark.parametrize(
    ("logged", "said"),
    [
        ([line(reason="platform_error"), line(reason="vault_unavailable", detail="AccessDenied")], "vault_unavailable"),
        ([line(error="ResourceNotFoundException")], "ResourceNotFoundException"),
        ([line(reason="platform_error") | {"install_id": "another"}], "does not say why"),
        ([], "does not say why"),
        (None, "logs:FilterLogEvents"),
    ],
)
def test_smoke_forged_code_failing_in_stack_fails_with_logged_reason(
    stack: Cloud, monkeypatch: pytest.MonkeyPatch, logged: list[Json] | None, said: str
) -> None:
    with pytest.raises(Failed, match=said):
        forged(stack, monkeypatch, {"state": "exchanging"}, logged)


def test_smoke_forged_code_never_received_fails(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="did not receive it"):
        forged(stack, monkeypatch, None)


# --------------------------------------------------------------------------------------------------------------- summary


@pytest.mark.parametrize(
    ("states", "expected"),
    [([OK, OK], OK), ([OK, SKIPPED], SKIPPED), ([SKIPPED, WARN, OK], WARN), ([WARN, FAIL, OK, FAIL], FAIL)],
)
def test_smoke_summary_has_the_worst_state(stack: Cloud, states: list[str], expected: str) -> None:
    found = [Finding("queues", state, f"{state} {number}", f"do {number}") for number, state in enumerate(states)]
    state, told, advice = stack_parts._summary(cast(Any, None), lambda _: iter(found))
    assert state == expected
    assert told == "; ".join(finding.found for finding in found if finding.state == expected)
    assert bool(advice) == (expected != OK)


def test_smoke_summary_without_findings_fails() -> None:
    with pytest.raises(Failed):
        stack_parts._summary(cast(Any, None), lambda _: iter(()))


def test_cli_smoke_with_token_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(api_tokens.make(api_tokens.new_id()).reveal())
    monkeypatch.setenv("PORTARIA_API_URL", "https://abc123.execute-api.us-east-1.amazonaws.com/live")
    refused = run_command("--token-file", file, "smoke", exit_code=2)
    assert "needs AWS credentials" in refused.stderr
