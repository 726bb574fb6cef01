"""The checks that every answer of a function passes in the unit tests (`tests/fakes/functions.py`) can fail."""

from __future__ import annotations

from typing import Any

import pytest

from tests.aws.recorded.apigateway import ANSWER_RULES
from tests.fakes import functions, gateway
from tests.fakes.manage import proxy_event


@pytest.mark.parametrize("rule", ANSWER_RULES, ids=lambda rule: rule.name)
def test_malformations_agrees_with_the_recording(rule: Any) -> None:
    assert bool(gateway.malformations(rule.answer)) == (rule.status == 502)


@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": 200, "body": {"an": "object"}},
        {"statusCode": 200, "isBase64Encoded": "false"},
        {"statusCode": 200, "headers": {"X-Header": ["a", "list"]}},
        {"statusCode": 200, "multiValueHeaders": {"X-Header": [None]}},
        {"statusCode": None},
        {"statusCode": 200, "cookies": []},
        None,
    ],
)
def test_checked_handler_refuses_a_malformed_answer(answer: Any) -> None:
    handler = functions.checked(lambda event, context: answer)
    with pytest.raises(AssertionError):
        handler(proxy_event("GET", "/connections"), None)


@pytest.mark.parametrize("name", ["Server", "Date", "Content-Length", "Via", "authorization"])
def test_checked_handler_refuses_a_header_that_does_not_arrive(name: str) -> None:
    handler = functions.checked(lambda event, context: {"statusCode": 200, "headers": {name: "value"}})
    with pytest.raises(AssertionError):
        handler(proxy_event("GET", "/connections"), None)


@pytest.mark.parametrize("name", ["Retry-After", "Location", "Set-Cookie", "ETag", "Cache-Control", "X-Request-Id"])
def test_header_that_functions_send_arrives_under_its_name(name: str) -> None:
    assert gateway.arrived(name) == name


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"foo": "one"}]},
        {"batchItemFailures": [{"itemIdentifier": "two"}]},
    ],
)
def test_checked_handler_refuses_a_report_that_aws_would_misread(answer: Any) -> None:
    handler = functions.checked(lambda event, context: answer)
    with pytest.raises(AssertionError):
        handler(functions.sqs_event({"one": "{}"}, "records"), None)
