"""The event bus: the shape of an event, and what happens to an event that the bus refuses."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import MagicMock, patch

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from portaria.aws import event_bus, service_clients
from portaria.core import event_catalogue
from portaria.core.errors import Retryable
from portaria.core.event_catalogue import CATALOGUE
from tests.fakes.aws.moto_cloud import cloud


def test_event_bus_put_event_reaches_a_subscriber() -> None:
    detail = CATALOGUE[event_catalogue.RECOVERED].example | {"label": "Padaria São João"}
    del detail["version"]
    with cloud() as stack:
        event_bus.put("portaria", event_catalogue.RECOVERED, detail)
        (heard,) = [json.loads(body) for body in stack.receive("heard")]
        assert boto3.client("events").describe_event_bus(Name="portaria")
    assert (heard["source"], heard["detail-type"], heard["detail"]) == (
        "portaria",
        "connection.recovered",
        {"version": 1, **detail},
    )


@pytest.mark.parametrize(
    "failure",
    [
        ClientError({"Error": {"Code": "ThrottlingException", "Message": "canary"}}, "PutEvents"),
        EndpointConnectionError(endpoint_url="https://events.us-east-1.amazonaws.com"),
    ],
)
def test_event_bus_put_unavailable_is_retryable(failure: Exception) -> None:
    client = MagicMock(**{"put_events.side_effect": failure})
    with (
        patch.object(service_clients, "client", return_value=client),
        pytest.raises(Retryable, match="bus_unavailable") as later,
    ):
        event_bus.put("portaria", event_catalogue.INSTALL_FAILED, {"reason": "canary"})
    assert "install.failed" in later.value.detail
    assert "canary" not in str(later.value)


def test_event_bus_put_failed_entry_is_retryable() -> None:
    """PutEvents answers 200 and reports the failure in the body."""
    answer: dict[str, Any] = {
        "FailedEntryCount": 1,
        "Entries": [{"ErrorCode": "InternalFailure", "ErrorMessage": "canary"}],
    }
    client = MagicMock(**{"put_events.return_value": answer})
    with (
        patch.object(service_clients, "client", return_value=client),
        pytest.raises(Retryable, match="InternalFailure") as later,
    ):
        event_bus.put("portaria", event_catalogue.CONNECTION_READY, {})
    assert "canary" not in str(later.value)
