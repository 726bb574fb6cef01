"""Sending in as few calls as SQS allows, and returning messages to the queue."""

from __future__ import annotations

import json
import logging
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from portaria.aws import queues, service_clients
from portaria.core import record_messages
from portaria.core.errors import Retryable
from tests.fakes.aws.moto_cloud import cloud

URL = "https://sqs.us-east-1.amazonaws.com/123456789012/records"
THROTTLED = ClientError({"Error": {"Code": "ThrottlingException", "Message": "canary"}}, "SendMessage")
TIMED_OUT = ReadTimeoutError(endpoint_url=URL)


def sending(bodies: list[str], **options: Any) -> list[dict[str, Any]]:
    """The requests of each call."""
    client = MagicMock()
    with patch.object(service_clients, "client", return_value=client):
        queues.send(URL, bodies, **options)
    assert [name for name, *_ in client.method_calls] == ["send_message"] * len(bodies)
    return [call.kwargs for call in client.send_message.call_args_list]


@pytest.mark.parametrize("count", [0, 1, 11])
def test_queues_send_messages_in_order_each_once(count: int) -> None:
    bodies = [str(number) for number in range(count)]
    assert sending(bodies) == [{"QueueUrl": URL, "MessageBody": body} for body in bodies]


@pytest.mark.parametrize(("delay_s", "sent"), [(0, None), (-5, None), (0.2, 1), (7, 7), (900, 900), (90_000, 900)])
def test_queues_send_delay_is_rounded_and_limited(delay_s: float, sent: int | None) -> None:
    assert [call.get("DelaySeconds") for call in sending(["x", "y"], delay_s=delay_s)] == [sent, sent]


def test_record_message_size_limits_fit_sqs() -> None:
    """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html"""
    assert record_messages.MAX_BODY_BYTES < record_messages.MAX_MESSAGE_BYTES <= 1_048_576


@pytest.mark.parametrize("failure", [THROTTLED, TIMED_OUT])
def test_queues_send_failure_is_retryable(failure: Exception) -> None:
    client = MagicMock(**{"send_message.side_effect": failure})
    with (
        patch.object(service_clients, "client", return_value=client),
        pytest.raises(Retryable, match="queue_unavailable") as later,
    ):
        queues.send(URL, ["canary"])
    assert "canary" not in str(later.value)


def test_queues_send_failure_stops_at_failed_message() -> None:
    client = MagicMock(**{"send_message.side_effect": [{}, THROTTLED, {}]})
    with patch.object(service_clients, "client", return_value=client), pytest.raises(Retryable):
        queues.send(URL, ["x"] * 3)
    assert client.send_message.call_count == 2


@pytest.mark.parametrize(
    ("after_s", "sent"), [(0, 0), (-3, 0), (0.4, 0), (7.6, 8), (39_600, 39_600), (43_200, 39_600), (1e9, 39_600)]
)
def test_queues_give_back_wait_is_limited_to_eleven_hours(after_s: float, sent: int) -> None:
    """SQS counts from the receive, so the time that the function has used is subtracted from the twelve hours."""
    client = MagicMock()
    with patch.object(service_clients, "client", return_value=client):
        queues.give_back(URL, "handle", after_s)
    client.change_message_visibility.assert_called_once_with(
        QueueUrl=URL, ReceiptHandle="handle", VisibilityTimeout=sent
    )


@pytest.mark.parametrize("failure", [THROTTLED, TIMED_OUT])
def test_queues_give_back_failure_is_logged_without_receipt_handle(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    client = MagicMock(**{"change_message_visibility.side_effect": failure})
    with patch.object(service_clients, "client", return_value=client), caplog.at_level(logging.WARNING):
        queues.give_back(URL, "canary-handle", 5)
    (record,) = caplog.records
    assert "canary" not in str(record.__dict__)


VALUES = st.text() | st.integers() | st.booleans() | st.none() | st.lists(st.text() | st.none(), max_size=3)


@given(st.dictionaries(st.text(max_size=20), VALUES | st.dictionaries(st.text(), VALUES, max_size=2), max_size=4))
def test_queues_encode_any_message_can_be_sent_and_decoded(message: dict[str, Any]) -> None:
    text = queues.encode(message)
    text.encode()
    assert not {"\ufffe", "\uffff"} & set(text)
    assert json.loads(text) == message


def test_queues_encode_lone_surrogate_becomes_replacement_character() -> None:
    """JSON can escape what UTF-8 cannot encode, and a record may contain it."""
    message = json.loads('{"name": "a\\ud800b", "other\\udfff": "\\ud83d\\ude00 \\ufffe\\uffff"}')
    text = queues.encode(message)
    assert json.loads(text.encode()) == {"name": "a\ufffdb", "other\ufffd": "\U0001f600 \ufffe\uffff"}
    with cloud() as stack:
        queues.send(stack.environment["RECORDS_QUEUE_URL"], [text])
        assert stack.receive("records") == [text]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_queues_encode_nan_or_infinity_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        queues.encode({"n": number})
