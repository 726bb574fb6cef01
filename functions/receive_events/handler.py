"""Receive a platform's events and queue their records."""

from __future__ import annotations

from portaria.aws.light_client import AwsError
from portaria.core.error_roots import Rejected, Retryable
from portaria.core.http.request import HttpRequest
from portaria.core.settings import ReceiveEventsSettings
from portaria.webhooks.event_receiver import HOOK_S, ROUTE, WORK_S, AnonymousRefusal, EventReceiver, retry_status
from portaria.webhooks.request_log import log
from portaria.webhooks.time_budget import TimeBudget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Answer = dict[str, Any]

RETRY_AFTER_S = 60
HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

receiver = EventReceiver(ReceiveEventsSettings.from_env())


def handler(event: dict[str, Any], context: object) -> Answer:
    """Catches every error that `receive` is documented to raise."""
    request = HttpRequest.from_event(event).matched(ROUTE)
    budget = TimeBudget(request.elapsed_s(), hook_s=HOOK_S, work_s=WORK_S)
    try:
        if request.method != "POST":
            raise AnonymousRefusal("not_post", "events are taken by POST", status=405)
        receiver.receive(request, budget)
    except Rejected as rejected:
        receiver.refuse(rejected, request)
        return {"statusCode": rejected.status, "headers": HEADERS, "body": f'{{"error":"{rejected.reason}"}}'}
    except (Retryable, AwsError) as error:
        connection = request.path_parameter("connection")
        log("ERROR", "events_not_queued", connection=connection, request=request.request_id, error=str(error))
        again = {**HEADERS, "Retry-After": str(RETRY_AFTER_S)}
        status = retry_status(request.path_parameter("platform"))
        return {"statusCode": status, "headers": again, "body": '{"error":"unavailable"}'}
    return {"statusCode": 200, "headers": HEADERS, "body": "{}"}
