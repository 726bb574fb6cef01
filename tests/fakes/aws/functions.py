"""Functions as Lambda runs them: the handler loaded with its environment, SQS events in, the report of failures out."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from unittest.mock import patch

from aws_lambda_powertools.shared import user_agent

from tests.fakes.aws import gateway
from tests.fakes.paths import ROOT


def load(name: str, environment: dict[str, str]) -> ModuleType:
    """A fresh copy of functions/{name}/handler.py, its settings read from `environment`."""
    spec = importlib.util.spec_from_file_location(f"{name}_handler", ROOT / "functions" / name / "handler.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # Clients outlive the copies of a function here: each copy would add one more Powertools feature to every later call.
    with variables(environment), patch.object(user_agent, "register_feature_to_client", lambda *_, **__: None):
        spec.loader.exec_module(module)
    sys.modules[spec.name] = module
    vars(module)["handler"] = checked(module.handler)
    return module


@contextmanager
def variables(environment: dict[str, str]) -> Iterator[None]:
    """`patch.dict` copies and replaces the whole environment."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def checked(handler: Callable[[dict[str, Any], Any], Any]) -> Callable[[dict[str, Any], Any], Any]:
    """The handler; each of its responses must follow the rules of API Gateway or of an event source mapping."""

    @functools.wraps(handler)
    def call(event: dict[str, Any], context: Any) -> Any:
        answer = handler(event, context)
        size = len(json.dumps(answer, ensure_ascii=False).encode())
        if "requestContext" in event:
            assert size <= gateway.MAX_ANSWER_BYTES
            assert gateway.malformations(answer) == []
            assert gateway.unreliable_headers(answer) == set()
        elif "Records" in event:
            assert misreports(event, answer) == []
        return answer

    return call


def misreports(event: dict[str, Any], answer: Any) -> list[str]:
    """Why an event source mapping would misread a batch's response."""
    if not isinstance(answer, dict) or set(answer) != {"batchItemFailures"}:
        return ["the answer is no report of failures"]
    sent = {record["messageId"] for record in event["Records"]}
    return [
        f"{failure} names no message of the batch"
        for failure in answer["batchItemFailures"]
        if set(failure) != {"itemIdentifier"} or failure["itemIdentifier"] not in sent
    ]


def log_to(stream: io.StringIO) -> None:
    """Redirect the functions' log. A process has one logger, which keeps the first test's standard output."""
    for handler in logging.getLogger("portaria").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.stream = stream


def sample(function: str, name: str) -> dict[str, Any]:
    """An event of events/{function}/{name}.json."""
    event: dict[str, Any] = json.loads((ROOT / "events" / function / f"{name}.json").read_text())
    return event


@dataclass
class Context:
    """Lambda's context, with a time limit that the test sets."""

    time_left_s: float = 120.0
    function_name: str = "portaria"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:portaria"
    aws_request_id: str = field(default="5f0f5c6e-2b6a-4a8e-9f3e-0a1b2c3d4e5f")

    def get_remaining_time_in_millis(self) -> int:
        return int(self.time_left_s * 1000)


def sqs_event(bodies: dict[str, str], queue: str, receives: int = 1) -> dict[str, Any]:
    """SQS messages by id, as Lambda's event source mapping passes them."""
    return {
        "Records": [
            {
                "messageId": message_id,
                "receiptHandle": f"handle-{message_id}",
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": str(receives),
                    "SentTimestamp": "1735689600000",
                    "SenderId": "AROAEXAMPLE:portaria",
                    "ApproximateFirstReceiveTimestamp": "1735689600010",
                },
                "messageAttributes": {},
                "md5OfBody": hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:us-east-1:123456789012:{queue}",
                "awsRegion": "us-east-1",
            }
            for message_id, body in bodies.items()
        ]
    }


def reported(answer: dict[str, Any]) -> set[str]:
    return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
