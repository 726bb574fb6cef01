"""The project's events on its EventBridge bus. Each is delivered at least once, so consumers must accept duplicates."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from portaria.aws import service_clients
from portaria.core import event_catalogue
from portaria.core.errors import Retryable

SOURCE = "portaria"


def put(bus_name: str, detail_type: str, detail: dict[str, Any]) -> None:
    """Publish an event of the catalogue, with the version of its payload.

    Raises `ValueError` for an event that the catalogue does not have, and `Retryable` if the bus did not accept the event.
    """
    payload = json.dumps(event_catalogue.payload(detail_type, detail))
    entry = {"EventBusName": bus_name, "Source": SOURCE, "DetailType": detail_type, "Detail": payload}
    try:
        answer = service_clients.client("events").put_events(Entries=[entry])
    except (ClientError, BotoCoreError) as error:
        code = service_clients.error_code(error) or type(error).__name__
        raise Retryable("bus_unavailable", f"the bus did not take {detail_type}: {code}") from error
    if answer["FailedEntryCount"]:
        raise Retryable(
            "bus_unavailable", f"the bus did not take {detail_type}: {answer['Entries'][0].get('ErrorCode')}"
        )
