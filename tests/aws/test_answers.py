"""The checks of every response in the unit tests (`tests/fakes/aws/functions.py`) can fail."""

from __future__ import annotations

from typing import Any

import pytest

from tests.aws.recorded.apigateway import ANSWER_RULES
from tests.fakes.api.manage import proxy_event
from tests.fakes.aws import functions, gateway


@pytest.mark.parametrize("rule", ANSWER_RULES, ids=lambda rule: rule.name)
def test_gateway_malformations_agree_with_recording(rule: Any) -> None:
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
def test_checked_handler_malformed_answer_is_refused(answer: Any) -> None:
    handler = functions.checked(lambda event, context: answer)
    with pytest.raises(AssertionError):
        handler(proxy_event("GET", "/connections"), None)


@pytest.mark.parametrize("name", ["Server", "Date", "Content-Length", "Via", "authorization"])
def test_checked_handler_header_removed_by_gateway_is_refused(name: str) -> None:
    handler = functions.checked(lambda event, context: {"statusCode": 200, "headers": {name: "value"}})
    with pytest.raises(AssertionError):
        handler(proxy_event("GET", "/connections"), None)


@pytest.mark.parametrize("name", ["Retry-After", "Location", "Set-Cookie", "ETag", "Cache-Control", "X-Request-Id"])
def test_gateway_arrived_used_header_keeps_its_name(name: str) -> None:
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
def test_checked_handler_invalid_batch_report_is_refused(answer: Any) -> None:
    handler = functions.checked(lambda event, context: answer)
    with pytest.raises(AssertionError):
        handler(functions.sqs_event({"one": "{}"}, "records"), None)
