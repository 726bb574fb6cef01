"""Lambda's event source mapping: the event of a function, and the effect of its response on the messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests.aws import functions
from tests.aws.expectations import MEMORY, MINISTACK, MOTO, Expectation, refusal
from tests.aws.functions import Function
from tests.aws.stand_ins import Aws

NO_FUNCTIONS = {
    MOTO: "it runs functions in Docker only",
    MEMORY: "the simulation's scheduler calls the workers; it has no event source mapping",
}
PARTIAL_PAGE = "https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html"


def mapping(test: str) -> str:
    return f"test_lambda_integration_sqs::{test}"


def _connected(aws: Aws, url: str, function: Function, **more: Any) -> str:
    """A mapping from the queue to the function, with partial answers, and its id."""
    answer = aws.client("lambda").create_event_source_mapping(
        EventSourceArn=aws.arn(url),
        FunctionName=function.arn,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        **more,
    )
    return str(answer["UUID"])


def _of(aws: Aws, url: str) -> Callable[[dict[str, Any]], bool]:
    """Whether an event is a batch of the queue."""
    arn = aws.arn(url)
    return lambda event: "Records" in event and event["Records"][0]["eventSourceARN"] == arn


def _run(aws: Aws, asked: dict[str, Any], count: int = 1, **attributes: Any) -> tuple[list[dict[str, Any]], set[int]]:
    """Deliver `count` messages in one batch. Returns the records, and the remaining messages by number."""
    function, url = functions.shared(aws), aws.queue(**attributes)
    for number in range(count):
        aws.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({**asked, "number": number}))
    mapping_id = _connected(aws, url, function)
    records = function.events(_of(aws, url))[0]["Records"]
    client = aws.client("lambda")
    functions.wait_for(
        lambda: (
            client.get_event_source_mapping(UUID=mapping_id)["LastProcessingResult"].startswith(("OK", "FAIL")) or None
        )
    )
    client.delete_event_source_mapping(UUID=mapping_id)
    # Handles of deleted messages have no effect; the others make their messages visible again.
    for record in records:
        refusal(
            aws.sqs.change_message_visibility,
            QueueUrl=url,
            ReceiptHandle=record["receiptHandle"],
            VisibilityTimeout=0,
        )
    left = aws.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return records, {json.loads(message["Body"])["number"] for message in left}


def _left(aws: Aws, answer: Any, count: int = 1) -> set[int]:
    return _run(aws, {"answer": answer}, count)[1]


def _record(aws: Aws) -> Any:
    (record,), _ = _run(aws, {"answer": {}})
    digest = hashlib.md5(record["body"].encode(), usedforsecurity=False).hexdigest()
    fixed = {name: record[name] for name in ("eventSource", "awsRegion", "messageAttributes")}
    return set(record), set(record["attributes"]), record["md5OfBody"] == digest, fixed


def _redrive(aws: Aws) -> Any:
    """A function that always fails: the receive counts in its events, and the content of the dead-letter queue."""
    dead = aws.queue()
    policy = json.dumps({"deadLetterTargetArn": aws.arn(dead), "maxReceiveCount": 2})
    function, url = functions.shared(aws), aws.queue(RedrivePolicy=policy, VisibilityTimeout="1")
    sent = aws.sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"raise": True}))
    mapping_id = _connected(aws, url, function)
    letter = functions.wait_for(
        lambda: aws.sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=1).get("Messages") or None
    )[0]
    aws.client("lambda").delete_event_source_mapping(UUID=mapping_id)
    counts = [
        event["Records"][0]["attributes"]["ApproximateReceiveCount"] for event in function.events(_of(aws, url), 2)
    ]
    return sorted(counts), letter["MessageId"] == sent["MessageId"], json.loads(letter["Body"])


def _large_batch(aws: Aws) -> str:
    function, url = functions.shared(aws), aws.queue()
    return refusal(
        aws.client("lambda").create_event_source_mapping,
        EventSourceArn=aws.arn(url),
        FunctionName=function.arn,
        BatchSize=20,
        MaximumBatchingWindowInSeconds=0,
    )


RECORD = {
    "messageId", "receiptHandle", "body", "attributes", "messageAttributes", "md5OfBody", "eventSource",
    "eventSourceARN", "awsRegion",
}  # fmt: skip
ATTRIBUTES = {"ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"}


def _failures(*identifiers: Any) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}


def _answered(name: str, source: str, answer: Any, left: set[int], *, count: int = 1, deleted: bool = False) -> Any:
    """`deleted` says that MiniStack treats such a response as success and deletes the messages."""
    return Expectation(
        name,
        source,
        lambda aws: _left(aws, answer, count),
        left,
        differs={MINISTACK: set()} if deleted else {},
        lacks=NO_FUNCTIONS,
    )


EXPECTATIONS = (
    Expectation(
        "lambda_sqs_record_has_nine_members",
        mapping("test_failing_lambda_retries_after_visibility_timeout::first_attempt"),
        _record,
        (RECORD, ATTRIBUTES, True, {"eventSource": "aws:sqs", "awsRegion": "us-east-1", "messageAttributes": {}}),
        lacks=NO_FUNCTIONS,
    ),
    Expectation(
        "lambda_sqs_failed_message_comes_twice_and_becomes_a_dead_letter",
        mapping("test_redrive_policy_with_failing_lambda"),
        _redrive,
        (["1", "2"], True, {"raise": True}),
        lacks=NO_FUNCTIONS,
    ),
    Expectation(
        "lambda_sqs_error_keeps_the_whole_batch",
        mapping("test_report_batch_item_failures_on_lambda_error"),
        lambda aws: _run(aws, {"raise": True}, 2)[1],
        {0, 1},
        lacks=NO_FUNCTIONS,
    ),
    _answered(
        "lambda_sqs_reported_messages_stay",
        mapping("test_report_batch_item_failures::first_invocation"),
        _failures("<id 1>", "<id 2>"),
        {1, 2},
        count=4,
    ),
    _answered(
        "lambda_sqs_answer_without_a_report_is_a_success",
        mapping("test_report_batch_item_failures_empty_json_batch_succeeds"),
        {},
        set(),
    ),
    _answered(
        "lambda_sqs_report_under_another_name_keeps_the_batch",
        mapping("test_report_batch_item_failures_invalid_result_json_batch_fails"),
        {"batchItemFailures": [{"foo": "notvalid"}]},
        {0},
        deleted=True,
    ),
    _answered("lambda_sqs_empty_report_is_a_success", PARTIAL_PAGE, {"batchItemFailures": []}, set()),
    _answered("lambda_sqs_null_answer_is_a_success", PARTIAL_PAGE, None, set()),
    _answered("lambda_sqs_empty_identifier_keeps_the_batch", PARTIAL_PAGE, _failures(""), {0}, deleted=True),
    _answered("lambda_sqs_null_identifier_keeps_the_batch", PARTIAL_PAGE, _failures(None), {0}, deleted=True),
    Expectation(
        "lambda_sqs_batch_above_ten_needs_a_window",
        mapping("TestSQSEventSourceMapping::test_event_source_mapping_default_batch_size"),
        _large_batch,
        "InvalidParameterValueException",
        differs={MINISTACK: ""},
        lacks=NO_FUNCTIONS,
    ),
)
