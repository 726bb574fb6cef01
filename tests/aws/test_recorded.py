"""Every expectation taken from responses of real AWS, on every stand-in that can run it."""

from __future__ import annotations

import pytest

from tests.aws.expectations import MEMORY, MINISTACK, MOTO, Expectation
from tests.aws.recorded import apigateway, dynamodb, events, kms, lambda_sqs, secretsmanager, sqs
from tests.fakes.paths import ROOT

FIDELITY = ROOT / "docs" / "fidelity.md"

ALL: tuple[Expectation, ...] = (
    *sqs.EXPECTATIONS,
    *secretsmanager.EXPECTATIONS,
    *dynamodb.EXPECTATIONS,
    *kms.EXPECTATIONS,
    *events.EXPECTATIONS,
    *lambda_sqs.EXPECTATIONS,
    *apigateway.EXPECTATIONS,
)
CASES = [(stand_in, each) for stand_in in (MOTO, MEMORY, MINISTACK) for each in ALL if stand_in not in each.lacks]


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("stand_in", "expectation"), CASES, ids=[f"{stand_in}-{each.name}" for stand_in, each in CASES]
)
def test_stand_in_answer_equals_recorded_answer_of_aws(
    stand_in: str, expectation: Expectation, request: pytest.FixtureRequest
) -> None:
    expectation.check(request.getfixturevalue(stand_in))


def test_expectations_name_their_source() -> None:
    assert len({each.name for each in ALL}) == len(ALL)
    recorded = [each for each in ALL if each.source.startswith("test_") and "::" in each.source]
    assert {each.name for each in ALL} == {
        each.name for each in ALL if each in recorded or each.source.startswith("https://docs.aws.amazon.com/")
    }
    assert len(recorded) >= 60


@pytest.mark.parametrize("each", [each for each in ALL if each.differs], ids=lambda each: each.name)
def test_stand_in_difference_is_documented(each: Expectation) -> None:
    text = FIDELITY.read_text()
    assert f"`{each.name}`" in text, "add a row to docs/fidelity.md: what differs, and the test of the stricter reading"
