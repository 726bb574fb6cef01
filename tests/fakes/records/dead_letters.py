"""Dead letters to put into the table, and their state."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from portaria.core import record_messages
from portaria.records import dead_letters
from portaria.records.dead_letters import Letter
from tests.fakes.aws.moto_cloud import Cloud


def record(key: str = "37054081", **data: Any) -> dict[str, Any]:
    return {"key": key, "updated_at": 1_732_271_999, "data": data or {"name": "Ana Souza"}}


def letter(letter_id: str = "letter-1", **changes: Any) -> Letter:
    return replace(
        Letter(
            letter_id, "kommo-acme-1", "people", "contacts", record_messages.EVENT, "no_dedupe_value",
            "the record has no value for email", [record()], read_at=1_732_272_000_123,
        ),
        **changes,
    )  # fmt: skip


def put(stack: Cloud, *letters: Letter) -> None:
    for each in letters:
        dead_letters.put(stack.table, each)


def state(stack: Cloud, letter_id: str = "letter-1") -> str:
    found = dead_letters.find(stack.table, letter_id)
    assert found
    return found[0].state


def sent(stack: Cloud) -> list[dict[str, Any]]:
    return [json.loads(body) for body in stack.receive("records")]
