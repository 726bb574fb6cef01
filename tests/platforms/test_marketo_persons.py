"""Marketo's persons: requests as Adobe documents them, and each recorded answer with its meaning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from portaria import egress
from portaria.contract import Connection, Meaning, Response, Secret
from portaria.platforms.marketo import persons

FIXTURES = sorted((Path(__file__).parent / "marketo" / "fixtures").glob("*.json"))
CONNECTION = Connection(
    "marketo-one", "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", "connected", 1,
    "portaria/grants/marketo-one",
    fields={"munchkin_id": "123-ABC-456"},
)  # fmt: skip
# marketo.md's table: every code it names has a meaning here.
DOCUMENTED_CODES = {
    "401013", "403010", "404040", "429001", "4000801", "4000802", "4030801", "4290801", "5000801",
}  # fmt: skip


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_each_answer_has_its_meaning(fixture: Path) -> None:
    case = json.loads(fixture.read_text())
    headers = {name.lower(): value for name, value in case["answer"]["headers"].items()}
    answer = persons.read_answer(Response(case["answer"]["status"], headers, case["answer"]["body"].encode()))
    assert (answer.meaning.value, answer.code, answer.request_id) == (case["meaning"], case["code"], case["request_id"])


def test_every_documented_code_is_in_the_table_and_has_a_fixture() -> None:
    assert set(persons.MEANINGS) == DOCUMENTED_CODES
    assert {json.loads(path.read_text())["code"] for path in FIXTURES} >= DOCUMENTED_CODES


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
def test_retry_after_is_heeded_within_reason(retry_after: str, after_s: float | None) -> None:
    answer = persons.read_answer(Response(429, {"retry-after": retry_after}, b'{"error_code":"429001"}'))
    assert answer.after_s == after_s


def test_a_days_quota_is_looked_at_again_every_three_hours() -> None:
    answer = persons.read_answer(Response(429, {"retry-after": "1"}, b'{"error_code":"4290801"}'))
    assert (answer.meaning, answer.after_s) == (Meaning.QUOTA, 10_800)


@pytest.mark.parametrize("body", [b"", b"null", b"\xff\xfe", b'"401013"', b'{"error_code":null}', b'{"error_code":{}}'])
def test_an_unreadable_error_is_known_by_its_status(body: bytes) -> None:
    answer = persons.read_answer(Response(500, {}, body))
    assert (answer.meaning, answer.code) == (Meaning.RETRY, "500")


def test_the_request_is_as_documented_and_may_leave() -> None:
    request = persons.request(CONNECTION, Secret("11606815-aa7a:ab"), b"{}", "c" * 40)
    egress.check(request, CONNECTION.allowed_domain)
    assert request.method == "POST"
    assert request.url == "https://mkto-ingestion-api.adobe.io/subscriptions/123-ABC-456/persons"
    assert request.headers["X-Mkto-User-Token"] == "11606815-aa7a:ab"
    assert request.headers["Content-Type"] == "application/json"
    assert len(request.headers["X-Correlation-Id"]) <= 255
    assert len(request.headers["X-Request-Source"]) <= 50


def test_the_frame_holds_the_persons_of_adobes_own_example() -> None:
    before, after = persons.frame(("email", "firstName"), "EMEA", "high")
    assert json.loads(before + b'{"email":"brooklyn.parker@example.com"}' + after) == {
        "priority": "high",
        "partitionName": "EMEA",
        "dedupeFields": {"field1": "email", "field2": "firstName"},
        "persons": [{"email": "brooklyn.parker@example.com"}],
    }
    assert "partitionName" not in json.loads(b"".join(persons.frame(("email",), "", "normal")))
