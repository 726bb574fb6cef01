"""Marketo's Data Ingestion API: requests as Adobe documents them. Fixtures have the meanings of responses."""

from __future__ import annotations

import json

import pytest

from portaria.core.callbacks import Secret
from portaria.core.entities import Connection, Disposition, Target, Trace
from portaria.core.http.messages import Response
from portaria.platforms.marketo import ingestion, persons

CONNECTION = Connection(
    "marketo-one", "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", "connected", 1,
    "portaria/grants/marketo-one", fields={"munchkin_id": "123-ABC-456"},
)  # fmt: skip
EXAMPLE = Target(
    "marketo-one", "persons", "high", (("field1", "email"), ("field2", "firstName"), ("partition", "EMEA"))
)
# The table in marketo.md: each code has a meaning here.
DOCUMENTED_CODES = {
    "401013", "403010", "404040", "429001", "4000801", "4000802", "4030801", "4290801", "5000801",
}  # fmt: skip


def test_marketo_ingestion_table_has_every_documented_code() -> None:
    assert set(ingestion.MEANINGS) == DOCUMENTED_CODES


@pytest.mark.parametrize("code", ["429001", "4290801"])
@pytest.mark.parametrize(
    ("retry_after", "after_s"),
    [
        ("12", 12.0),
        ("0", 1.0),
        ("-5", 1.0),
        ("86400", 3600.0),
        ("nan", None),
        ("inf", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", None),
    ],
)
def test_marketo_ingestion_retry_after_is_limited(code: str, retry_after: str, after_s: float | None) -> None:
    body = json.dumps({"error_code": code}).encode()
    assert ingestion.read_answer(Response(429, {"retry-after": retry_after}, body)).after_s == after_s


@pytest.mark.parametrize("body", [b"", b"null", b"\xff\xfe", b'"401013"', b'{"error_code":null}', b'{"error_code":{}}'])
def test_marketo_ingestion_unreadable_error_uses_http_status(body: bytes) -> None:
    answer = ingestion.read_answer(Response(500, {}, body))
    assert (answer.meaning, answer.code) == (Disposition.RETRY, "500")


def test_marketo_persons_request_is_as_documented() -> None:
    credentials = {"access_token": Secret("11606815-aa7a:ab")}
    request = persons.request(CONNECTION, credentials, EXAMPLE, b"{}", Trace("c" * 40))
    assert (request.method, request.body) == ("POST", b"{}")
    assert request.url == "https://mkto-ingestion-api.adobe.io/subscriptions/123-ABC-456/persons"
    assert request.headers == {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "X-Mkto-User-Token": "11606815-aa7a:ab",
        "X-Correlation-Id": "c" * 40,
        "X-Request-Source": "Portaria",
    }
    assert len(request.headers["X-Request-Source"]) <= 50


def test_marketo_persons_frame_equals_adobe_example() -> None:
    before, after = persons.frame(EXAMPLE)
    assert json.loads(before + b'{"email":"brooklyn.parker@example.com"}' + after) == {
        "priority": "high",
        "partitionName": "EMEA",
        "dedupeFields": {"field1": "email", "field2": "firstName"},
        "persons": [{"email": "brooklyn.parker@example.com"}],
    }
    assert "partitionName" not in json.loads(b"".join(persons.frame(Target("marketo-one", "persons"))))
