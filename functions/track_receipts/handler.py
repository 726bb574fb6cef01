"""Store what a destination reports about accepted requests, and answer the challenge of its subscription."""

from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.core.errors import Rejected, Retryable
from portaria.core.http.request import HttpRequest
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
    request = HttpRequest.from_event(event)
    platform = request.path_parameter("platform")
    try:
        if request.method == "GET":
            return answer(200, delivery_reports.challenge(platform, request.query, settings))
        # A repeated header has all its values joined, and so is no signature.
        taken = delivery_reports.handle_delivery(platform, request.headers.joined(), body(request), settings)
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


def body(request: HttpRequest) -> bytes:
    """The bytes that were signed."""
    if request.body is None:
        raise Rejected("bad_json", "the body is not text in UTF-8")
    return request.body


def answer(status: int, text: str) -> dict[str, Any]:
    return {"statusCode": status, "headers": PLAIN, "body": text}
