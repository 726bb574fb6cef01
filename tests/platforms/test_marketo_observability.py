"""Reading Marketo's Observability Data Stream: each event is counted, or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria.core.entities import DeliveryEvent
from portaria.core.errors import Rejected
from portaria.platforms.marketo import delivery_reports

# The event of Adobe's page, whose counts are inconsistent.
EXAMPLE = """
{"id":"b90382d8-7e0a-4a4b-9b62-4ce0d0f1a001","specversion":"1.0",
 "type":"com.adobe.platform.marketo.observability.results","source":"urn:data_ingestion_service",
 "time":"2023-08-14T17:30:00Z","datacontenttype":"application/json",
 "data":{"munchkinId":"123-ABC-456","requests":[{"requestId":"67b28858","requestTime":"2023-08-14T17:20:00Z",
  "clientId":"foo@marketo.com","correlationId":"6180bb48","requestSource":"Public API","objectType":"customObject",
  "priority":"normal","records":{"received":100,"created":10,"updated":10,"failed":{"503":10,"404":10}}}]}}
"""

names = st.sampled_from(
    ["id", "type", "data", "time", "event", "eventid", "body", "recipientclientid", "munchkinId", "requests", "requestId",
     "records", "created", "updated", "failed", "quota"]
) | st.text(max_size=5)  # fmt: skip
words = st.sampled_from(
    [f"com.adobe.platform.marketo.observability.{kind}" for kind in ("results", "status", "metrics")]
    + ["123-ABC-456", "2023-08-14T17:30:00Z", "0001-01-01T00:00:00+23:59", "r-1"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=20,
)


def read(content: Any) -> list[DeliveryEvent]:
    return list(delivery_reports.read_events(content))


def test_delivery_reports_adobe_example_is_read() -> None:
    (statement,) = read(json.loads(EXAMPLE))
    assert (statement.kind, statement.account_id, statement.at) == (
        "results",
        "123-ABC-456",
        "2023-08-14T17:30:00.000Z",
    )
    assert statement.requests["67b28858"].applied == 20
    assert statement.requests["67b28858"].failed == {"503": 10, "404": 10}


@given(values)
def test_delivery_reports_arbitrary_content_is_refused_or_counted(content: Any) -> None:
    """Also the recipient and the validation URL, which are read before a signature is checked."""
    for call in (
        lambda: read(content),
        lambda: delivery_reports.check_recipient(content, {}, "client"),
        lambda: delivery_reports.validation_request(content),
    ):
        try:
            found = call()
        except Rejected:
            continue
        for statement in found if isinstance(found, list) else []:
            for reported in statement.requests.values():
                assert reported.applied >= 0
                assert all(count > 0 for count in reported.failed.values())
                assert len(reported.failed) <= delivery_reports.MAX_CODES + 1


@given(st.lists(st.dictionaries(names, values, max_size=8), max_size=5))
def test_delivery_reports_arbitrary_list_is_refused_or_read_completely(content: Any) -> None:
    try:
        assert len(read(content)) == len(content)
    except Rejected:
        assert not content


@pytest.mark.parametrize(
    ("count", "known"), [(True, 0), (-1, 0), (1.5, 0), ("3", 0), (None, 0), (10**30, 10_000_000), (7, 7)]
)
def test_delivery_reports_counts_are_limited_whole_numbers(count: Any, known: int) -> None:
    event = json.loads(EXAMPLE)
    event["data"]["requests"][0]["records"] = {"created": count, "failed": {"503": count}}
    (statement,) = read(event)
    reported = statement.requests["67b28858"]
    assert (reported.applied, reported.failed) == (known, {"503": known} if known else {})


def test_delivery_reports_many_error_codes_are_limited_with_rest_as_other() -> None:
    event = json.loads(EXAMPLE)
    event["data"]["requests"][0]["records"] = {"failed": {str(code): 1 for code in range(1_000)}}
    (statement,) = read(event)
    failed = statement.requests["67b28858"].failed
    assert len(failed) == delivery_reports.MAX_CODES + 1
    assert failed["other"] == 950
