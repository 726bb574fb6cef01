"""The API on the deployed template, called with valid and invalid requests generated from its document: see `fuzzing`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portaria.access import api_tokens
from tests.fakes.local_cloud.session import LocalCloud
from tests.stack.api.fuzz_operations import operation_id
from tests.stack.api.fuzz_scenery import Scenery
from tests.stack.api.fuzzing import Fuzz, Group

RESULT = Path("build/faults/api_fuzz.json")
# Generated calls of each operation.
ADMINISTRATOR, TOKEN, NOBODY = 1, 1, 0
LONG_ADMINISTRATOR, LONG_TOKEN, LONG_NOBODY = 30, 30, 3
LONG_CALLS = 6_000


@pytest.fixture
def scenery(stack: LocalCloud) -> Iterator[Scenery]:
    made = Scenery.set_up(stack)
    yield made
    made.clear()


def scopes(document: dict[str, Any]) -> list[str]:
    """Every scope that an operation of the document requires."""
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    security = [
        each for operation in operations if isinstance(operation, dict) for each in operation.get("security", ())
    ]
    return sorted({scope for each in security for scope in each.get("token", ())})


def groups(cloud: LocalCloud, token: str, *, long: bool) -> list[Group]:
    """The callers. Below /v1 each kind has an address of its own, because invalid tokens slow down their address."""
    programs, administrators = f"{cloud.public_url}/v1", f"{cloud.public_url}/admin/v1"

    def as_program(number: int, authorization: str) -> dict[str, str]:
        return {"Authorization": authorization, "X-Forwarded-For": f"198.51.100.{number}"}

    def guess() -> dict[str, str]:
        return as_program(3, f"Bearer {api_tokens.make(api_tokens.new_id()).reveal()}")

    return [
        Group("administrator", administrators, cloud.admin, dict, LONG_ADMINISTRATOR if long else ADMINISTRATOR, long),
        Group(
            "token", programs, cloud.web, lambda: as_program(1, f"Bearer {token}"), LONG_TOKEN if long else TOKEN, long
        ),
        Group("no token", programs, cloud.web, dict, LONG_NOBODY if long else NOBODY),
        Group("guessed token", programs, cloud.web, guess, 0),
    ]


def test_api_fuzz_every_call_is_answered_as_documented(stack: LocalCloud, scenery: Scenery, long: bool) -> None:
    """Given things of every kind, when calls of every operation are made up, good and bad, with and without a right to them,
    then no answer is a failure of the server, and each is one that the document describes."""
    fuzz = Fuzz(stack, scenery)
    program = scenery.add_program(scopes(fuzz.document))

    fuzz.run(groups(stack, program, long=long))

    tally = fuzz.tally
    figures = tally.figures()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\napi fuzz: {figures}")
    assert not tally.findings, "\n".join(["answers that should not be:", *tally.sentences()])
    assert (tally.server_errors, tally.undocumented, tally.violations) == (0, 0, 0)
    # Each operation has succeeded at least once, and each kind of caller got the expected responses.
    # Other calls have replaced the secret of the OAuth client, so that Kommo refuses each renewal.
    assert {operation_id(operation) for operation in fuzz.operations} - tally.succeeded <= {"renew_connection"}
    assert set(tally.statuses["no token"]) <= {200, 401, 303, 404, 403}
    assert tally.opened == {"show_health"}
    assert set(tally.statuses["guessed token"]) <= {200, 401, 429, 303}
    assert tally.statuses["guessed token"][401]
    assert not long or tally.calls >= LONG_CALLS
