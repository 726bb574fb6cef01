"""Changes of contacts that arrive shuffled and repeated, and the expected result."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st

from portaria.core import record_messages
from portaria.delivery.pipeline import QueuedMessage
from tests.fakes.records import ingesting
from tests.fakes.records.contacts import contact
from tests.fakes.records.ingesting import body

Deliveries = tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]

origins = st.sampled_from([record_messages.EVENT, record_messages.RECONCILIATION])
versions = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.sampled_from(["Ana", "Bia", "Caio"])), min_size=1, max_size=12
)


@st.composite
def deliveries(draw: Any) -> Deliveries:
    """Changes of contacts, and the same ones shuffled, some twice, cut into batches."""
    changes = []
    for number, at, name in draw(versions):
        changes.append({**contact(number, updated_at=at), "first_name": f"{name}{at}"})
    arriving = draw(st.permutations(changes + draw(st.lists(st.sampled_from(changes), max_size=6))))
    cuts = sorted(draw(st.lists(st.integers(0, len(arriving)), max_size=4)))
    batches = [arriving[start:end] for start, end in itertools.pairwise([0, *cuts, len(arriving)])]
    return changes, [batch for batch in batches if batch]


def check_newest_is_left(given_: Deliveries, origin: str) -> None:
    """Ingest the batches in order. Fails unless the destination has the newest change of each contact."""
    changes, batches = given_
    newest = {one["id"]: one["updated_at"] for one in sorted(changes, key=lambda one: one["updated_at"])}
    with ingesting.harness() as harness:
        harness.route("people")
        for number, batch in enumerate(batches):
            outcome = harness.ingest(
                *[QueuedMessage(f"{number}-{n}", body([one], origin=origin)) for n, one in enumerate(batch)]
            )
            assert outcome.waiting == {}
        left = {int(person["email"][6:-12]): int(person["firstName"][-1]) for person in harness.state().values()}
    assert left == newest
