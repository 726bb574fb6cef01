"""Batches of messages with made-up contacts, and our delivery of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from local.simulators.people import make_contacts
from portaria.core import record_messages
from portaria.delivery.pipeline import QueuedMessage
from tests.fakes.records.contacts import SOURCE
from tests.fakes.records.ingesting import Harness

PEOPLE = "people"
PAGE = 250
BATCH = 40
MAX_PAYLOAD_BYTES = 5_500_000

Batch = list[QueuedMessage]


def batches(count: int, start: int = 0, route: str = PEOPLE, messages: int = BATCH) -> Iterator[Batch]:
    """Messages as backfill_records makes them of Kommo's pages, and as Lambda gets them: `messages`, and at most 6 MB.

    All are of 250 made-up people, told apart by their ids and addresses, which count from `start`.
    """
    people = make_contacts(1, "acme.kommo.com", PAGE, seed=1, without_email=0.0).contacts
    texts = [_template(each) for each in people]
    head = record_messages.encode(
        {
            "version": record_messages.VERSION,
            "connection": SOURCE,
            "object": "contacts",
            "origin": record_messages.BACKFILL,
        }
        | {"route": route, "read_at": 1, "request": ""}
    )
    batch: Batch = []
    size = 0
    for first in range(start, start + count, PAGE):
        numbers = range(first, min(first + PAGE, start + count))
        records = [texts[number % PAGE].replace('"@I@"', str(number)).replace("@N@", str(number)) for number in numbers]
        body = f'{head[:-1]},"records":[{",".join(records)}]}}'
        length = len(body.encode())
        if batch and (len(batch) == messages or size + length > MAX_PAYLOAD_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(QueuedMessage(f"m{first}", body))
        size += length
    if batch:
        yield batch


def _template(contact: dict[str, Any]) -> str:
    for field in contact["custom_fields_values"] or []:
        if field["field_code"] == "EMAIL":
            field["values"][0]["value"] = "person@N@@example.com"
    return record_messages.encode({"key": "@N@", "updated_at": 1_700_000_000, "data": {**contact, "id": "@I@"}})


def ours(harness: Harness, batch: Batch) -> None:
    outcome = harness.ingest(*batch, bulk=True)
    if outcome.waiting or outcome.counts["DeadLetters"]:
        raise RuntimeError(f"not everything went: {outcome}")


def delivered_again(given: list[Batch], number: int | str) -> list[Batch]:
    """The same messages with other ids: each is a delivery of its own."""
    return [[QueuedMessage(f"{number}-{each.id}", each.body) for each in batch] for batch in given]


def each_of(work: Callable[[Batch], None], given: list[Batch]) -> None:
    for batch in given:
        work(batch)
