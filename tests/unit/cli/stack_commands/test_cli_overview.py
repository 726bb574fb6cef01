"""The commands `overview` and `settings`, as people read them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from portaria.connections import oauth_clients
from portaria.core import clock
from portaria.core.callbacks import OAuthClient
from portaria.overview import stored_counts
from tests.fakes.api.command_line import Wire, run, told, wired
from tests.fakes.api.manage import API_URL
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put


@pytest.fixture
def wire(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> Wire:
    return wired(stack, monkeypatch)


def test_overview_prints_counts_queues_and_alarms(wire: Wire, stack: Cloud) -> None:
    put(stack, letter("a"), letter("b"))
    functions.load("count_states", stack.environment).handler({}, functions.Context())
    lines = {line[:16].strip(): line[18:] for line in run("overview").stdout.splitlines()}
    assert lines["dead letters"] == "2 no_dedupe_value"
    assert lines["connections"] == "none"
    assert (lines["queues"], lines["alarms"]) == ("empty", "none")


def test_overview_says_which_counts_are_minimums_old_or_missing(wire: Wire, stack: Cloud) -> None:
    """Given counts that have not been made for an hour, one of which was not complete, and one that was never made."""
    put(stack, letter("a"), letter("b"))
    functions.load("count_states", stack.environment).handler({}, functions.Context())
    counted = stored_counts.load(stack.table)[stored_counts.DEAD_LETTERS]
    hour_ago = clock.to_iso(clock.now() - timedelta(hours=1))
    old = replace(counted, is_complete=False, counted_at=hour_ago)
    stored_counts.put(stack.table, stored_counts.DEAD_LETTERS, old)
    stack.table.delete(stored_counts.PARTITION, stored_counts.RECEIPTS)
    lines = {line[:16].strip(): line[18:] for line in run("overview").stdout.splitlines()}
    assert lines["dead letters"] == "at least 2 no_dedupe_value"
    assert lines["receipts 24h"] == "not counted yet"
    assert lines["connections"] == "none"
    assert lines["old count"] == f"dead_letters: counted last at {hour_ago}; run `portaria doctor`"


def test_settings_print_limits_and_findings(wire: Wire) -> None:
    printed = run("settings").stdout
    assert "300,000 bytes" in printed
    assert "ok: none is open" in printed
    assert told("settings")["stack"] == "portaria"


def test_settings_print_every_finding_of_a_check(wire: Wire, stack: Cloud) -> None:
    """Given two OAuth clients, one of them with a wrong redirect URI, then the good one does not hide the other."""
    for name, host in (("bad", "http://old.example.com"), ("good", API_URL)):
        client = OAuthClient("kommo", name, "id", f"{host}/install/kommo/{name}", "")
        oauth_clients.put(stack.table, client, new=True)
    printed = run("settings").stdout
    assert "OAuth clients: fail: the redirect URI of kommo/bad is not https" in printed
    assert "OAuth clients: ok: 1 have redirect URIs of this stack" in printed
