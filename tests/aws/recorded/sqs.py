"""SQS: sizes, batches, visibility, dead letters."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.aws.expectations import MEMORY, MINISTACK, MOTO, Expectation, content, refusal
from tests.aws.stand_ins import Aws

MIB = 1_048_576
# The simulation delivers messages itself, so its SQS has no receive and no queue attributes.
SENDS_ONLY = {MEMORY: "the simulation's scheduler delivers messages; its SQS only sends"}


def sqs(test: str) -> str:
    return f"test_sqs::TestSqsProvider::{test}"


def _send(aws: Aws, size: int, **attributes: str) -> str:
    return refusal(aws.sqs.send_message, QueueUrl=aws.queue(**attributes), MessageBody="a" * size)


def _batch(aws: Aws, entries: list[tuple[str, int]], **attributes: str) -> Any:
    batch = [{"Id": entry_id, "MessageBody": "a" * size} for entry_id, size in entries]
    answer: dict[str, Any] = {}

    def call(**parameters: Any) -> None:
        answer.update(aws.sqs.send_message_batch(**parameters))

    code = refusal(call, QueueUrl=aws.queue(**attributes), Entries=batch)
    failed = [(each["Id"], each["Code"], each["SenderFault"]) for each in answer.get("Failed", [])]
    return code, [each["Id"] for each in answer.get("Successful", [])], failed


def _sent(aws: Aws, body: str = "message", **more: Any) -> tuple[str, dict[str, Any]]:
    """A queue with one message, and that message after a receive whose visibility timeout has ended."""
    url = aws.queue()
    aws.sqs.send_message(QueueUrl=url, MessageBody=body, **more)
    received = aws.sqs.receive_message(
        QueueUrl=url, VisibilityTimeout=0, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"]
    )
    return url, received["Messages"][0]


def _bodies(aws: Aws, url: str) -> list[str]:
    answer = aws.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    return [message["Body"] for message in answer.get("Messages", [])]


def _change_expired(aws: Aws) -> Any:
    url, message = _sent(aws)
    code = refusal(
        aws.sqs.change_message_visibility,
        QueueUrl=url,
        ReceiptHandle=message["ReceiptHandle"],
        VisibilityTimeout=2,
    )
    return code


def _delete_expired(aws: Aws) -> Any:
    url, message = _sent(aws)
    code = refusal(aws.sqs.delete_message, QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return code, _bodies(aws, url)


def _receive_again(aws: Aws) -> Any:
    """Received with a timeout of zero, then with a longer one, then not at all."""
    url, _ = _sent(aws)
    again = aws.sqs.receive_message(QueueUrl=url, VisibilityTimeout=30)
    return len(again["Messages"]), _bodies(aws, url)


def _counts(aws: Aws) -> Any:
    url = aws.queue(VisibilityTimeout="60")
    for number in range(6):
        aws.sqs.send_message(QueueUrl=url, MessageBody=f"message-{number}")
    aws.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1)
    names = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    ]
    return aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]


TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


def _dead_letter(aws: Aws) -> Any:
    dead = aws.queue()
    policy = json.dumps({"deadLetterTargetArn": aws.arn(dead), "maxReceiveCount": 1})
    url = aws.queue(RedrivePolicy=policy)
    sent = aws.sqs.send_message(
        QueueUrl=url,
        MessageBody="message-1",
        MessageAttributes={"MyAttribute": {"StringValue": "foobar", "DataType": "String"}},
        MessageSystemAttributes={"AWSTraceHeader": {"StringValue": TRACE, "DataType": "String"}},
    )
    received = [len(aws.sqs.receive_message(QueueUrl=url, VisibilityTimeout=0).get("Messages", [])) for _ in range(2)]
    answer = aws.sqs.receive_message(
        QueueUrl=dead, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"], WaitTimeSeconds=1
    )
    found = [
        {
            "same_id": message["MessageId"] == sent["MessageId"],
            "body": message["Body"],
            "count": message["Attributes"]["ApproximateReceiveCount"],
            "trace": message["Attributes"].get("AWSTraceHeader"),
            "source": message["Attributes"].get("DeadLetterQueueSourceArn") == aws.arn(url),
            "attributes": message.get("MessageAttributes"),
        }
        for message in answer.get("Messages", [])
    ]
    return received, found


DEAD = {
    "same_id": True,
    "body": "message-1",
    "count": "2",
    "trace": TRACE,
    "source": True,
    "attributes": {"MyAttribute": {"StringValue": "foobar", "DataType": "String"}},
}


def _group(aws: Aws, group: str) -> str:
    return refusal(aws.sqs.send_message, QueueUrl=aws.queue(), MessageBody="message", MessageGroupId=group)


def _attribute_names(aws: Aws, **more: Any) -> Any:
    _, message = _sent(aws, **more)
    return {name for name in message["Attributes"]}, message["Attributes"].get("MessageGroupId")


def _defaults(aws: Aws) -> Any:
    names = ["MaximumMessageSize", "MessageRetentionPeriod", "VisibilityTimeout", "DelaySeconds"]
    return aws.sqs.get_queue_attributes(QueueUrl=aws.queue(), AttributeNames=names)["Attributes"]


def _missing_queue(aws: Aws) -> str:
    url = aws.queue()
    return refusal(aws.sqs.send_message, QueueUrl=f"{url}-missing", MessageBody="message")


def _sent_answer(aws: Aws) -> Any:
    answer = content(aws.sqs.send_message(QueueUrl=aws.queue(), MessageBody="message"))
    return set(answer), answer.get("MD5OfMessageBody")


NO_SUCH_QUEUE = "AWS.SimpleQueueService.NonExistentQueue"
TOO_MANY = "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"
PLAIN_ATTRIBUTES = {"ApproximateFirstReceiveTimestamp", "ApproximateReceiveCount", "SenderId", "SentTimestamp"}

EXPECTATIONS = (
    Expectation(
        "sqs_message_of_1_mib_is_accepted",
        sqs("test_send_oversized_message[sqs]"),
        lambda aws: _send(aws, MIB),
        "",
    ),
    Expectation(
        "sqs_message_above_1_mib_is_refused",
        sqs("test_send_oversized_message[sqs]"),
        lambda aws: _send(aws, MIB + 1),
        "InvalidParameterValue",
    ),
    Expectation(
        "sqs_queue_limit_of_a_message_counts",
        sqs("test_send_message_with_updated_maximum_message_size[sqs]"),
        lambda aws: _send(aws, 1025, MaximumMessageSize="1024"),
        "InvalidParameterValue",
        lacks=SENDS_ONLY,
    ),
    Expectation(
        "sqs_empty_message_is_refused",
        sqs("test_send_empty_message[sqs]"),
        lambda aws: _send(aws, 0),
        "MissingParameter",
        differs={MOTO: ""},
    ),
    Expectation(
        "sqs_send_answers_id_and_digest",
        sqs("test_fair_queue_with_message_group_id[sqs]::send_message"),
        _sent_answer,
        ({"MessageId", "MD5OfMessageBody"}, hashlib.md5(b"message", usedforsecurity=False).hexdigest()),
    ),
    Expectation(
        "sqs_batch_above_1_mib_is_refused",
        sqs("test_send_message_batch_with_oversized_contents[sqs]"),
        lambda aws: _batch(aws, [("1", MIB), ("2", 1)]),
        ("AWS.SimpleQueueService.BatchRequestTooLong", [], []),
    ),
    Expectation(
        "sqs_batch_of_more_than_ten_is_refused",
        sqs("test_too_many_entries_in_batch_request[sqs]"),
        lambda aws: _batch(aws, [(str(number), 1) for number in range(20)]),
        (TOO_MANY, [], []),
    ),
    Expectation(
        "sqs_batch_id_with_a_colon_is_refused",
        sqs("test_invalid_batch_id[sqs]"),
        lambda aws: _batch(aws, [("message:1", 1)]),
        ("AWS.SimpleQueueService.InvalidBatchEntryId", [], []),
    ),
    Expectation(
        "sqs_batch_entry_above_the_limit_fails_alone",
        sqs("test_send_batch_message_size"),
        lambda aws: _batch(aws, [("a", 1024), ("b", 1025)], MaximumMessageSize="1024"),
        ("", ["a"], [("b", "InvalidParameterValue", True)]),
        lacks=SENDS_ONLY,
        differs={MOTO: ("InvalidParameterValue", [], [])},
    ),
    Expectation(
        "sqs_visibility_change_after_expiry_is_accepted",
        sqs("test_change_message_visibility_after_visibility_timeout_expiration[sqs]"),
        _change_expired,
        "",
        lacks=SENDS_ONLY,
    ),
    Expectation(
        "sqs_delete_after_expiry_removes_the_message",
        sqs("test_delete_after_visibility_timeout[sqs]"),
        _delete_expired,
        ("", []),
        lacks=SENDS_ONLY,
    ),
    Expectation(
        "sqs_received_message_is_invisible_for_the_timeout_of_the_receive",
        sqs("test_receive_message_with_visibility_timeout_updates_timeout[sqs]"),
        _receive_again,
        (1, []),
        lacks=SENDS_ONLY,
    ),
    Expectation(
        "sqs_counts_tell_visible_from_received",
        sqs("test_approximate_number_of_messages_not_visible[sqs]"),
        _counts,
        {
            "ApproximateNumberOfMessages": "5",
            "ApproximateNumberOfMessagesNotVisible": "1",
            "ApproximateNumberOfMessagesDelayed": "0",
        },
        lacks=SENDS_ONLY,
    ),
    Expectation(
        "sqs_dead_letter_keeps_id_attributes_and_origin",
        sqs("test_dead_letter_queue_message_attributes::dlq-messages"),
        _dead_letter,
        ([1, 0], [DEAD]),
        lacks=SENDS_ONLY,
        differs={MOTO: ([1, 0], [DEAD | {"source": False}])},
    ),
    Expectation(
        "sqs_plain_message_has_four_attributes",
        sqs("test_receive_message_message_system_attribute_names_filters[sqs]::all_attributes"),
        _attribute_names,
        (PLAIN_ATTRIBUTES, None),
        lacks=SENDS_ONLY,
    ),
    Expectation(
        "sqs_group_id_of_a_standard_queue_arrives",
        sqs("test_fair_queue_with_message_group_id[sqs]"),
        lambda aws: _attribute_names(aws, MessageGroupId="test"),
        (PLAIN_ATTRIBUTES | {"MessageGroupId"}, "test"),
        lacks=SENDS_ONLY,
    ),
    Expectation(
        "sqs_group_id_must_not_be_empty",
        sqs("test_send_message_to_standard_queue_with_invalid_message_group_id[empty]"),
        lambda aws: _group(aws, ""),
        "InvalidParameterValue",
        differs={MOTO: "", MINISTACK: ""},
    ),
    Expectation(
        "sqs_group_id_has_128_characters_at_most",
        sqs("test_send_message_to_standard_queue_with_invalid_message_group_id[too_long]"),
        lambda aws: _group(aws, "a" * 129),
        "InvalidParameterValue",
        differs={MOTO: "", MINISTACK: ""},
    ),
    Expectation(
        "sqs_group_id_has_no_spaces",
        sqs("test_send_message_to_standard_queue_with_invalid_message_group_id[spaces]"),
        lambda aws: _group(aws, "group 123"),
        "InvalidParameterValue",
        differs={MOTO: "", MINISTACK: ""},
    ),
    Expectation(
        "sqs_empty_receive_has_no_messages_member",
        sqs("test_receive_empty_queue[sqs]"),
        lambda aws: content(aws.sqs.receive_message(QueueUrl=aws.queue())),
        {},
        lacks=SENDS_ONLY,
    ),
    Expectation(
        "sqs_missing_queue_is_refused",
        sqs("test_non_existent_queue::queue-does-not-exist"),
        _missing_queue,
        NO_SUCH_QUEUE,
        lacks=SENDS_ONLY,
    ),
    Expectation(
        "sqs_defaults_of_a_queue",
        sqs("test_set_queue_attributes_default_values[sqs]::get-queue-attributes-initial-values"),
        _defaults,
        {
            "MaximumMessageSize": "1048576",
            "MessageRetentionPeriod": "345600",
            "VisibilityTimeout": "30",
            "DelaySeconds": "0",
        },
        lacks=SENDS_ONLY,
    ),
)
