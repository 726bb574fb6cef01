"""Every event in `events/`, and every event that tests create, has the members that were recorded from AWS."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from local.template_file import read_template
from tests.aws.recorded import apigateway, events, lambda_sqs
from tests.fakes.api.manage import proxy_event, with_token
from tests.fakes.aws import functions
from tests.fakes.paths import ROOT

Event = dict[str, Any]
FILES = sorted((ROOT / "events").glob("*/*.json"))

# test_apigateway_lambda::test_lambda_aws_proxy_integration: the members of a REST API's proxy event.
PROXY = {
    "resource", "path", "httpMethod", "headers", "multiValueHeaders", "queryStringParameters",
    "multiValueQueryStringParameters", "pathParameters", "stageVariables", "requestContext", "body", "isBase64Encoded",
}  # fmt: skip
# Additional members of a regional API. The recording is of an edge-optimized one, which adds CloudFront-*, Via, X-Amz-Cf-Id.
ADDED_HEADERS = {"Host", "X-Amzn-Trace-Id", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto"}
EDGE_HEADERS = ("CloudFront-", "Via", "X-Amz-Cf-Id")
# Null if there are none.
NULLABLE = ("queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "stageVariables")
# test_sqs::TestSqsProvider::test_fair_queue_with_message_group_id, ::test_dead_letter_queue_message_attributes,
# ::test_aws_trace_header_propagation: attributes that some messages have.
SOMETIMES = {"MessageGroupId", "DeadLetterQueueSourceArn", "AWSTraceHeader"}


def deviations(event: Event) -> list[str]:
    """Missing and unexpected members of an event."""
    return proxy_deviations(event) if "requestContext" in event else sqs_deviations(event)


def proxy_deviations(event: Event) -> list[str]:
    context = event["requestContext"]
    found = _differences("event", set(event), PROXY)
    found += _differences("requestContext", set(context), apigateway.MEMBERS)
    found += _differences("identity", set(context["identity"]), apigateway.IDENTITY)
    found += [f"the header {name} is missing" for name in ADDED_HEADERS - set(event["headers"])]
    found += [
        f"the header {name} is an edge-optimized API's" for name in event["headers"] if name.startswith(EDGE_HEADERS)
    ]
    found += [f"{name} is empty, not null" for name in NULLABLE if event[name] in ({}, [])]
    if event["body"] == "":
        found.append("body is empty, not null")
    several = {name: [value] for name, value in event["headers"].items()}
    if {name: values[-1:] for name, values in event["multiValueHeaders"].items()} != several:
        found.append("headers do not have the last values of multiValueHeaders")
    last = {name: values[-1] for name, values in (event["multiValueQueryStringParameters"] or {}).items()}
    if (event["queryStringParameters"] or {}) != last:
        found.append("queryStringParameters do not have the last values of multiValueQueryStringParameters")
    pairs = (
        ("resourcePath", event["resource"]), ("httpMethod", event["httpMethod"]), ("domainName", event["headers"]["Host"]),
        ("path", f"/{context['stage']}{event['path']}"), ("domainPrefix", context["apiId"]),
    )  # fmt: skip
    found += [
        f"requestContext.{name} is {context[name]!r}, not {value!r}" for name, value in pairs if context[name] != value
    ]
    if context["identity"]["sourceIp"] != event["headers"]["X-Forwarded-For"].split(", ")[-1]:
        found.append("sourceIp is not the last of X-Forwarded-For")
    return found


def sqs_deviations(event: Event) -> list[str]:
    found = _differences("event", set(event), {"Records"})
    for record in event["Records"]:
        found += _differences("record", set(record), lambda_sqs.RECORD)
        found += _differences("attributes", set(record["attributes"]) - SOMETIMES, lambda_sqs.ATTRIBUTES)
        if record["md5OfBody"] != hashlib.md5(record["body"].encode(), usedforsecurity=False).hexdigest():
            found.append("md5OfBody is not the body's")
        if record["eventSource"] != "aws:sqs" or record["awsRegion"] != record["eventSourceARN"].split(":")[3]:
            found.append("the source is no queue of the region")
        found += _bus_deviations(record["body"])
    return found


def _bus_deviations(body: str) -> list[str]:
    """A queue that is a rule's target receives the whole event of the bus."""
    try:
        content = json.loads(body)
    except ValueError:
        return []
    if not isinstance(content, dict) or "detail-type" not in content:
        return []
    return _differences("bus event", set(content), events.MEMBERS)


def _differences(where: str, has: set[str], wanted: set[str]) -> list[str]:
    return [f"{where} lacks {name}" for name in wanted - has] + [f"{where} has {name}" for name in has - wanted]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_event_file_has_every_recorded_member(file: Path) -> None:
    event = json.loads(file.read_text())
    if "requestContext" in event or "Records" in event:
        assert deviations(event) == []


@pytest.mark.parametrize(
    ("schedule", "file"),
    [
        ("RenewalsSchedule", "renew_tokens/sweep"),
        ("ReconciliationsSchedule", "backfill_records/reconcile_due"),
        ("WebhookDeliveriesSchedule", "deliver_webhooks/sweep"),
    ],
)
def test_event_file_of_schedule_has_input_of_template(schedule: str, file: str) -> None:
    target = read_template()["Resources"][schedule]["Properties"]["Target"]
    (record,) = json.loads((ROOT / "events" / f"{file}.json").read_text())["Records"]
    assert record["body"] == target["Input"]


@pytest.mark.parametrize(
    "event",
    [
        proxy_event("GET", "/connections"),
        proxy_event("POST", "/connections/crm/call", {"method": "GET"}),
        with_token(proxy_event("GET", "/connections?limit=1", prefix="/v1"), "portaria_YOUR_TOKEN"),
        functions.sqs_event({"one": "{}"}, "records"),
    ],
    ids=["listing", "call", "token", "queue"],
)
def test_event_of_fakes_has_every_recorded_member(event: Event) -> None:
    assert deviations(event) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"queryStringParameters": {}}, ["queryStringParameters is empty, not null"]),
        ({"body": ""}, ["body is empty, not null"]),
        ({"version": "1.0"}, ["event has version"]),
    ],
)
def test_deviations_planted_difference_is_found(change: Event, found: list[str]) -> None:
    assert deviations(proxy_event("GET", "/connections") | change) == found
