"""Every expectation taken from responses of real AWS, on every stand-in that can run it."""

from __future__ import annotations

import pytest

from tests.aws.expectations import MEMORY, MINISTACK, MOTO, Expectation
from tests.aws.recorded import dynamodb, events, kms, secretsmanager, sqs

ALL: tuple[Expectation, ...] = (
    *sqs.EXPECTATIONS,
    *secretsmanager.EXPECTATIONS,
    *dynamodb.EXPECTATIONS,
    *kms.EXPECTATIONS,
    *events.EXPECTATIONS,
)
CASES = [(stand_in, each) for stand_in in (MOTO, MEMORY, MINISTACK) for each in ALL if stand_in not in each.lacks]


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("stand_in", "expectation"), CASES, ids=[f"{stand_in}-{each.name}" for stand_in, each in CASES]
)
def test_recorded_answer_of_aws_is_the_stand_ins(
    stand_in: str, expectation: Expectation, request: pytest.FixtureRequest
) -> None:
    expectation.check(request.getfixturevalue(stand_in))
