"""Receive a platform's events and queue their records."""

from __future__ import annotations

import time
from typing import Any

from portaria.aws.light_client import AwsError
from portaria.core.callbacks import Rejected, Retryable
from portaria.core.settings import ReceiveEventsSettings
from portaria.webhooks.event_receiver import HOOK_S, WORK_S, EventReceiver, retry_status
from portaria.webhooks.install_receiver import TimeBudget, log

Event = dict[str, Any]
Answer = dict[str, Any]

RETRY_AFTER_S = 60
HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

reception = EventReceiver(ReceiveEventsSettings.from_env())


def handler(event: Event, context: object) -> Answer:
    """A call as API Gateway hands it over; nothing it raises on purpose leaves it."""
    budget = TimeBudget(spent_s(event), hook_s=HOOK_S, work_s=WORK_S)
    path = event.get("pathParameters") or {}
    platform, connection, key = (str(path.get(name, "")) for name in ("platform", "connection", "key"))
    request = str((event.get("requestContext") or {}).get("requestId", ""))
    try:
        if event.get("httpMethod") != "POST":
            raise Rejected("not_post", "events are taken by POST", status=405)
        body = reception.body(event.get("body"), bool(event.get("isBase64Encoded")))
        reception.receive(platform, connection, key, headers(event), body, budget, request)
    except Rejected as rejected:
        reception.refuse(rejected, connection, request)
        return {"statusCode": rejected.status, "headers": HEADERS, "body": f'{{"error":"{rejected.reason}"}}'}
    except (Retryable, AwsError) as error:
        log("ERROR", "events were not taken", connection=connection, request=request, error=str(error))
        again = {**HEADERS, "Retry-After": str(RETRY_AFTER_S)}
        return {"statusCode": retry_status(platform), "headers": again, "body": '{"error":"unavailable"}'}
    return {"statusCode": 200, "headers": HEADERS, "body": "{}"}


def headers(event: Event) -> dict[str, str]:
    """By their names in lower case; one that came several times, under whatever spelling, has all its values."""
    found: dict[str, str] = {}
    for name, values in (event.get("multiValueHeaders") or {}).items():
        for value in values or []:
            known = found.get(name.lower())
            found[name.lower()] = value if known is None else f"{known}, {value}"
    return found


def spent_s(event: Event) -> float:
    """Seconds since API Gateway took the call, a cold start included; 0 where its clock and ours plainly disagree."""
    arrived_ms = (event.get("requestContext") or {}).get("requestTimeEpoch") or 0
    spent = time.time() - arrived_ms / 1000
    return spent if 0 < spent < 10 else 0.0
