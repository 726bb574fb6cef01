"""Open a sign-on link, once: send the browser on to the platform, or show why the link does not work."""

import traceback
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.actions import single_sign_on
from portaria.aws.table import Table
from portaria.core.entities import Rejected, Retryable, Secret
from portaria.core.logs import application_logger
from portaria.core.settings import RedeemTicketSettings
from portaria.web import render

RETRY_AFTER_S = 5

Event = dict[str, Any]
Answer = dict[str, Any]

logger = application_logger()
settings = RedeemTicketSettings.from_env()
table = Table(settings.table_name)


@logger.inject_lambda_context(clear_state=True)
def handler(event: Event, context: LambdaContext) -> Answer:
    ticket = Secret(str((event.get("pathParameters") or {}).get("ticket", "")))
    try:
        address = single_sign_on.redeem(table, settings.sealing_key_id, ticket)
    except Rejected as rejected:
        logger.warning("sign_on_link_refused", reason=rejected.reason)
        return page(event, rejected.reason, rejected.status)
    except Retryable as later:
        logger.error("sign_on_link_not_opened", reason=later.reason, detail=later.detail)
        return unavailable(event)
    except Exception as error:  # noqa: BLE001 - whatever it was, a person is waiting
        # Its text may quote what was sent, so only its kind and place are told.
        logger.error("sign_on_link_failed", error=type(error).__name__, at=traceback.format_tb(error.__traceback__))
        return unavailable(event)
    headers = {
        "Location": address.reveal(),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex",
        "Strict-Transport-Security": "max-age=63072000",
    }
    return {"statusCode": int(HTTPStatus.SEE_OTHER), "headers": headers, "body": ""}


def unavailable(event: Event) -> Answer:
    answer = page(event, "unavailable", HTTPStatus.SERVICE_UNAVAILABLE)
    return {**answer, "headers": {**answer["headers"], "Retry-After": str(RETRY_AFTER_S)}}


def page(event: Event, reason: str, status: int) -> Answer:
    several = event.get("multiValueHeaders") or {}
    wanted = ", ".join(
        value for name, values in several.items() if name.lower() == "accept-language" for value in values or []
    )
    made = render.sign_on_failed(render.language_of(wanted), reason=reason, status=int(status))
    return {"statusCode": made.status, "headers": made.headers, "body": made.body}
