"""Open a sign-on link, once: redirect the browser to the platform, or show why the link does not work."""

import traceback
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.actions import single_sign_on
from portaria.api import call_metrics
from portaria.aws.table import Table
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable, StackUnavailable
from portaria.core.http.request import HttpRequest
from portaria.core.logs import application_logger
from portaria.core.settings import RedeemTicketSettings
from portaria.web import render

RETRY_AFTER_S = 5

Answer = dict[str, Any]

logger = application_logger()
settings = RedeemTicketSettings.from_env()
table = Table(settings.table_name)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> Answer:
    request = HttpRequest.from_event(event)
    try:
        address = single_sign_on.redeem(table, settings.sealing_key_id, Secret(request.path_parameter("ticket")))
    except Rejected as rejected:
        logger.warning("sign_on_link_refused", reason=rejected.reason)
        return page(request, rejected.reason, rejected.status)
    except Retryable as later:
        logger.error("sign_on_link_not_opened", reason=later.reason, detail=later.detail)
        if isinstance(later, StackUnavailable):
            call_metrics.count(call_metrics.FAILED)
        return unavailable(request)
    except Exception as error:  # noqa: BLE001 - whatever it was, a person is waiting
        # The error's text may quote what was sent, so only its type and place are logged.
        logger.error("sign_on_link_failed", error=type(error).__name__, at=traceback.format_tb(error.__traceback__))
        call_metrics.count(call_metrics.FAILED)
        return unavailable(request)
    headers = {
        "Location": address.reveal(),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex",
        "Strict-Transport-Security": "max-age=63072000",
    }
    return {"statusCode": int(HTTPStatus.SEE_OTHER), "headers": headers, "body": ""}


def unavailable(request: HttpRequest) -> Answer:
    answer = page(request, "unavailable", HTTPStatus.SERVICE_UNAVAILABLE)
    return {**answer, "headers": {**answer["headers"], "Retry-After": str(RETRY_AFTER_S)}}


def page(request: HttpRequest, reason: str, status: int) -> Answer:
    language = render.language_of(request.headers.get("accept-language"))
    rendered = render.sign_on_failed(language, reason=reason, status=int(status))
    return {"statusCode": rendered.status, "headers": rendered.headers, "body": rendered.body}
