"""Receive a platform's disconnect hook, verify its signature and queue it."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.core.entities import Rejected, Retryable
from portaria.core.logs import application_logger
from portaria.core.settings import AcceptUninstallSettings
from portaria.installs import uninstall

logger = application_logger()
settings = AcceptUninstallSettings.from_env()

PLAIN = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    parameters = event.get("pathParameters") or {}
    platform, client = str(parameters.get("platform", "")), str(parameters.get("client", ""))
    query: dict[str, list[str]] = event.get("multiValueQueryStringParameters") or {}
    try:
        connection = uninstall.accept(platform, client, query, settings)
    except Rejected as rejected:
        logger.warning("a disconnect hook was refused", reason=rejected.reason, detail=rejected.detail)
        return answer(rejected.status, f"{rejected.reason}: {rejected.detail}\n")
    except Retryable as later:
        logger.error("a disconnect hook was not taken", reason=later.reason, detail=later.detail)
        return answer(503, f"{later.reason}: try again in a few seconds\n")
    logger.info("an account has left, it is said", connection=connection)
    return answer(200, "received\n")


def answer(status: int, body: str) -> dict[str, Any]:
    return {"statusCode": status, "headers": PLAIN, "body": body}
