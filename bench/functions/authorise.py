"""What authorising a call costs: `GET /v1/routes` through the function `manage`, with a token and with the check switched off.

Both go in turn through the same process, which counts its own CPU; DynamoDB is a stub over TLS in another process, which
counts what it is asked. The check is switched off here, by putting another function in the place of `callers.bearer`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import multiprocessing
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from bench.aws_clients import new_clients
from bench.functions import aws_stub
from bench.report import BUILD, ROOT, conclude, console, row, table
from local.__main__ import step
from portaria.access import api_tokens
from portaria.access.private_integrations import PrivateIntegration
from portaria.api import authentication
from portaria.api.authentication import Caller
from portaria.core import clock

PAIRS = 500
WARM_UP = 50
LIMITS = {"reads": 1.0, "cpu_ms": 5.0}
HANDLER = ROOT / "functions" / "manage" / "handler.py"
INTEGRATION_ID = "4fZ0aQ9xTb"
SCOPES = ("routes:list", "connections:list", "connections:show", "connections:call@crm")


def measure() -> bool:
    token = api_tokens.make(INTEGRATION_ID).reveal()
    with (
        stub(item(token)) as (environment, asked),
        patch.dict(os.environ, environment),
        quiet_handler() as handler,
        step(f"{PAIRS} pairs of calls"),
    ):
        with_token, without, per_call = pairs(handler, call(token), asked)
    shown = table("Authorising a call", "ms of CPU")
    row(shown, "a call whose token is checked", with_token, 2)
    row(shown, "with the check switched off", without, 2)
    differences = [one - other for one, other in zip(with_token, without, strict=True)]
    row(shown, "of a pair, the difference", differences, 2)
    console.print(shown)
    figures = {
        "reads": per_call["with"]["GetItem"] - per_call["without"]["GetItem"],
        "writes": per_call["with"]["UpdateItem"] - per_call["without"]["UpdateItem"],
        "cpu_ms": statistics.median(differences),
        "ratio": statistics.median(with_token) / statistics.median(without),
    }
    return conclude("authorise", figures, {**LIMITS, "writes": 0.0})


def pairs(handler: Any, event: dict[str, Any], asked: Any) -> tuple[list[float], list[float], dict[str, Counter[str]]]:
    """CPU of each call in milliseconds, and what one call of each kind asked the stub for."""
    known = Caller(f"private-integration:{INTEGRATION_ID}", "bench", "198.51.100.7", SCOPES)

    def checked() -> float:
        return cpu_ms(handler, event)

    def unchecked() -> float:
        with patch.object(authentication, "bearer", lambda *_: known):
            return cpu_ms(handler, event)

    per_call = {}
    for name, once in (("with", checked), ("without", unchecked)):
        for _ in range(WARM_UP):
            once()
        before = Counter(asked())
        once()
        per_call[name] = Counter(asked()) - before
    with_token: list[float] = []
    without: list[float] = []
    for number in range(PAIRS):
        # The first of a pair changes; what garbage one leaves is not the other's.
        for once, into in ((checked, with_token), (unchecked, without))[:: 1 if number % 2 else -1]:
            gc.collect(0)
            into.append(once())
    return with_token, without, per_call


def cpu_ms(handler: Any, event: dict[str, Any]) -> float:
    context = SimpleNamespace(
        function_name="manage",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:manage",
        aws_request_id="00000000-0000-4000-8000-000000000001",
        get_remaining_time_in_millis=lambda: 20_000,
    )
    started = time.process_time()
    answer = handler(dict(event), context)
    took = time.process_time() - started
    if answer["statusCode"] != 200:
        raise RuntimeError(f"the call answered {answer['statusCode']}")
    return took * 1000


@contextlib.contextmanager
def quiet_handler() -> Iterator[Any]:
    """The function's handler, as Lambda imports it, with a log that nobody reads."""
    spec = importlib.util.spec_from_file_location("bench_manage_handler", HANDLER)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with new_clients(), open(os.devnull, "w") as nowhere:
        # A logger keeps the stream that stood there when it was made.
        with contextlib.redirect_stdout(nowhere):
            spec.loader.exec_module(module)
        yield module.handler


def call(token: str) -> dict[str, Any]:
    """An event as API Gateway hands it over."""
    host = "abc123.execute-api.us-east-1.amazonaws.com"
    headers = {"Host": host, "Authorization": f"Bearer {token}", "Accept": "*/*", "User-Agent": "bench"}
    return {
        "resource": "/v1/routes",
        "path": "/v1/routes",
        "httpMethod": "GET",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "path": "/live/v1/routes",
            "stage": "live",
            "domainName": host,
            "apiId": "abc123",
            "requestId": "00000000-0000-4000-8000-000000000002",
            "identity": {"sourceIp": "198.51.100.7"},
        },
        "body": None,
        "isBase64Encoded": False,
    }


def item(token: str) -> dict[str, Any]:
    """The private integration as the table holds it."""
    now = clock.to_iso(clock.now())
    integration = PrivateIntegration(
        id=INTEGRATION_ID,
        name="bench",
        description="",
        scopes=SCOPES,
        token_hash=api_tokens.digest(token),
        token_made_at=now,
        created_at=now,
        created_by="arn:aws:iam::123456789012:user/bench",
        updated_at=now,
    )
    typed: dict[str, Any] = {
        field.name: {"S": value}
        for field in fields(integration)
        if isinstance(value := getattr(integration, field.name), str)
    }
    return typed | {"version": {"N": "1"}, "scopes": {"L": [{"S": scope} for scope in SCOPES]}}


# ---------------------------------------------------------------------------------------------------------------- the stub


@contextlib.contextmanager
def stub(stored: dict[str, Any]) -> Iterator[tuple[dict[str, str], Any]]:
    """A table that holds one item: the environment of a function that uses it, and how to learn what it was asked."""
    BUILD.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, BUILD, stored), daemon=True)
    process.start()
    port = ours.recv()

    def asked() -> dict[str, int]:
        ours.send("asked")
        counts: dict[str, int] = ours.recv()
        return counts

    try:
        yield (
            {
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE00",
                "AWS_SECRET_ACCESS_KEY": "example",
                "AWS_SESSION_TOKEN": "example" * 100,
                "AWS_ENDPOINT_URL": f"https://localhost:{port}",
                "AWS_CA_BUNDLE": str(BUILD / "boto3.pem"),
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "NO_PROXY": "localhost",
                "POWERTOOLS_SERVICE_NAME": "portaria",
                "POWERTOOLS_METRICS_NAMESPACE": "Portaria",
                "TABLE_NAME": "portaria",
                "SECRETS_PREFIX": "portaria",
                "UNINSTALLS_QUEUE_URL": f"https://localhost:{port}/123456789012/uninstalls",
                "BACKFILLS_QUEUE_URL": f"https://localhost:{port}/123456789012/backfills",
                "WAITING_RECORDS_QUEUE_URL": f"https://localhost:{port}/123456789012/waiting_records",
                "RECORDS_QUEUE_URL": f"https://localhost:{port}/123456789012/records",
                "WEBHOOK_DELIVERIES_QUEUE_URL": f"https://localhost:{port}/123456789012/webhook_deliveries",
                "SEALING_KEY_ID": "arn:aws:kms:us-east-1:123456789012:key/sealing",
                "PRIVATE_INTEGRATION_MANAGERS": "administrators",
                "STACK_NAME": "portaria",
                "QUEUE_NAMES": "records=records",
                "EVENT_ENDPOINTS": "api",
                "CREDENTIAL_STORE": "secrets-manager",
            },
            asked,
        )
    finally:
        process.terminate()
        process.join()


def serve(pipe: Any, directory: Path, stored: dict[str, Any]) -> None:
    asked: Counter[str] = Counter()

    def answer(target: str, body: bytes) -> bytes:
        operation = target.partition(".")[2]
        asked[operation] += 1
        if operation == "GetItem":
            consistent = json.loads(body).get("ConsistentRead")
            asked["GetItem, eventually consistent"] += not consistent
            return json.dumps({"Item": stored}).encode()
        return b'{"Items": [], "Count": 0, "ScannedCount": 0}' if operation == "Query" else b"{}"

    def count() -> None:
        while pipe.recv():
            pipe.send(dict(asked))

    threading.Thread(target=count, daemon=True).start()
    aws_stub.main(directory, answer, pipe.send)
