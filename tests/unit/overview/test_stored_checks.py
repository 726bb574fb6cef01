"""Checks of a stack that stores more than one check reads: nothing is reported as missing, and no part as the whole."""

from __future__ import annotations

from typing import Any

import pytest

from portaria.access import private_integrations
from portaria.connections import connection_store
from portaria.core.entities import Connection
from portaria.overview import stored_checks
from portaria.overview.findings import Finding
from portaria.overview.stored_checks import StoredState
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter, put

READ = 3


def connect(stack: Cloud, number: int, state: str = "connected", **fields: Any) -> None:
    values = {"allowed_domain": "acme.kommo.com", "generation": 1, "secret_id": "portaria/grants/x", **fields}
    connection = Connection(f"kommo-{number}", "kommo", "oauth2", state=state, **values)
    stack.table.put(connection_store.to_item(connection))


def look(stack: Cloud, check: str) -> list[Finding]:
    return list(stored_checks.CHECKS[check](StoredState(stack.table, "https://api.example.com", {}, READ)))


def only(stack: Cloud, check: str) -> tuple[str, str]:
    (found,) = look(stack, check)
    return found.state, found.found


def test_connection_check_finds_ended_connection_beyond_those_it_reads(stack: Cloud) -> None:
    for number in range(READ):
        connect(stack, number)
    connect(stack, READ, "needs_reconnect")
    connect(stack, READ + 1, "needs_reconnect")
    assert only(stack, "connections") == ("warn", "2 must be connected again: kommo-3, kommo-4")


@pytest.mark.parametrize(("count", "told"), [(READ, "3 connected"), (READ + 1, "at least 3 connected")])
def test_connection_check_says_that_its_count_is_a_minimum(stack: Cloud, count: int, told: str) -> None:
    for number in range(count):
        connect(stack, number)
    assert only(stack, "connections") == ("ok", told)


def test_refused_renewals_check_says_how_far_it_looked(stack: Cloud) -> None:
    """Given a refused connection beyond those that are read, then the check does not report that there is none."""
    for number in range(READ):
        connect(stack, number)
    assert only(stack, "refused renewals") == ("ok", "none")
    connect(stack, READ, refused_since="2026-11-01T00:00:00.000Z")
    assert only(stack, "refused renewals") == ("ok", "none of the first 3 by name")


def test_scope_check_connection_beyond_those_it_reads_is_not_missing(stack: Cloud) -> None:
    for number in range(READ + 1):
        connect(stack, number)
    connect(stack, READ + 1, "removed")
    scopes = (f"connections:call@kommo-{READ}", f"connections:call@kommo-{READ + 1}")
    private_integrations.create(stack.table, "bi1", "BI", "", scopes[:1], "someone")
    private_integrations.create(stack.table, "bi2", "BI 2", "", scopes, "someone")
    told = "BI 2 (bi2) has scopes for connections that do not exist: kommo-4"
    assert only(stack, "private integrations") == ("warn", told)


def test_dead_letter_check_says_that_its_count_is_a_minimum(stack: Cloud) -> None:
    put(stack, *(letter(name) for name in "abc"))
    assert only(stack, "dead letters") == ("warn", "3 are open: no_dedupe_value (3)")
    put(stack, letter("d"))
    assert only(stack, "dead letters") == ("warn", "at least 3 are open: no_dedupe_value (3)")
