"""Take what a destination tells of the requests that it took, and answer its challenge when it is subscribed to."""

from base64 import b64decode
from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.core.entities import Rejected, Retryable
from portaria.core.logs import application_logger
from portaria.core.settings import TrackReceiptsSettings
from portaria.records import delivery_reports

logger = application_logger()
metrics = Metrics()
settings = TrackReceiptsSettings.from_env()

PLAIN = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    metrics.add_metric("ReceiptCalls", MetricUnit.Count, 1)
    platform = str((event.get("pathParameters") or {}).get("platform", ""))
    try:
        if event["httpMethod"] == "GET":
            return answer(
                200, delivery_reports.challenge(platform, event.get("multiValueQueryStringParameters") or {}, settings)
            )
        taken = delivery_reports.handle_delivery(platform, headers(event), body(event), settings)
    except Rejected as rejected:
        logger.warning("delivery_events_refused", reason=rejected.reason, detail=rejected.detail)
        metrics.add_metric("ReceiptEventsRefused", MetricUnit.Count, 1)
        return answer(rejected.status, f"{rejected.reason}: {rejected.detail}\n")
    except Retryable as later:
        logger.error("delivery_events_not_stored", reason=later.reason, detail=later.detail)
        return answer(503, f"{later.reason}: try again later\n")
    logger.info(
        "delivery_events_stored",
        events=taken.events,
        stored=taken.stored,
        elsewhere=taken.elsewhere,
        unreadable=taken.unreadable,
        quota_left=taken.quota_left,
    )
    metrics.add_metric("ReceiptEvents", MetricUnit.Count, taken.events.total())
    metrics.add_metric("RequestsReported", MetricUnit.Count, taken.stored)
    if taken.quota_left is not None:
        metrics.add_metric("QuotaRemaining", MetricUnit.Count, taken.quota_left)
    return answer(200, "stored\n")


def headers(event: dict[str, Any]) -> dict[str, str]:
    """By name in lower case; one that came several times has all its values, and so is no signature."""
    several = event.get("multiValueHeaders") or {}
    return {name.lower(): ", ".join(values or []) for name, values in several.items()}


def body(event: dict[str, Any]) -> bytes:
    """The bytes that were signed."""
    text = str(event.get("body") or "")
    try:
        return b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode()
    except ValueError:
        raise Rejected("bad_json", "the body is not text in UTF-8") from None


def answer(status: int, text: str) -> dict[str, Any]:
    return {"statusCode": status, "headers": PLAIN, "body": text}
