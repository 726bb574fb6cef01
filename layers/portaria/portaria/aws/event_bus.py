"""The project's events on its EventBridge bus. Each is delivered at least once, so consumers must accept duplicates."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from portaria.aws import boto3_clients
from portaria.core.errors import Retryable

SOURCE = "portaria"
CONNECTION_READY = "connection.ready"
INSTALL_FAILED = "install.failed"
NEEDS_RECONNECT = "connection.needs_reconnect"
RECOVERED = "connection.recovered"
REFRESH_REFUSED = "connection.refresh_refused"
ROTATION_DUE = "connection.rotation_due"
REMOVED = "connection.removed"
DESTINATION_STOPPED = "destination.stopped"
PRIVATE_INTEGRATION_ROTATION_DUE = "private_integration.rotation_due"


def put(bus_name: str, detail_type: str, detail: dict[str, Any]) -> None:
    """Raises `Retryable` if the bus did not accept the event."""
    entry = {"EventBusName": bus_name, "Source": SOURCE, "DetailType": detail_type, "Detail": json.dumps(detail)}
    try:
        answer = boto3_clients.client("events").put_events(Entries=[entry])
    except (ClientError, BotoCoreError) as error:
        code = boto3_clients.error_code(error) or type(error).__name__
        raise Retryable("bus_unavailable", f"the bus did not take {detail_type}: {code}") from error
    if answer["FailedEntryCount"]:
        raise Retryable(
            "bus_unavailable", f"the bus did not take {detail_type}: {answer['Entries'][0].get('ErrorCode')}"
        )
