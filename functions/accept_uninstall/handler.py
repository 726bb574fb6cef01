"""Receive a platform's disconnect hook, verify its signature and queue it."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws.table import Table
from portaria.connections.vault import Vault
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.request import HttpRequest
from portaria.core.logs import application_logger
from portaria.core.settings import AcceptUninstallSettings
from portaria.installs import uninstall
from portaria.installs.disconnect_hooks import HookVerifier

logger = application_logger()
settings = AcceptUninstallSettings.from_env()
verifier = HookVerifier(Table(settings.table_name), Vault(settings.secrets_prefix))

PLAIN = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    request = HttpRequest.from_event(event)
    platform, client = request.path_parameter("platform"), request.path_parameter("client")
    try:
        notice = verifier.verify(platform, client, request.query)
        connection = uninstall.accept(notice, platform, client, settings.uninstalls_queue_url)
    except Rejected as rejected:
        logger.warning("disconnect_hook_refused", reason=rejected.reason, detail=rejected.detail)
        return answer(rejected.status, f"{rejected.reason}: {rejected.detail}\n")
    except Retryable as later:
        logger.error("disconnect_hook_not_queued", reason=later.reason, detail=later.detail)
        return answer(503, f"{later.reason}: try again in a few seconds\n")
    logger.info("uninstall_requested", connection=connection)
    return answer(200, "received\n")


def answer(status: int, body: str) -> dict[str, Any]:
    return {"statusCode": status, "headers": PLAIN, "body": body}
