"""Exchange queued codes for tokens, store them and record the connections."""

import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import queues, sqs_batch
from portaria.aws.table import Table
from portaria.connections import request_budget
from portaria.core import clock
from portaria.core.errors import Retryable
from portaria.core.logs import application_logger
from portaria.core.settings import ExchangeCodeSettings
from portaria.installs import claims
from portaria.installs.exchange_outcomes import ExchangeOutcome
from portaria.installs.exchange_queues import ExchangeQueues, Message
from portaria.installs.install_messages import ClaimNotice, read_claim, read_message

logger = application_logger()
metrics = Metrics()
settings = ExchangeCodeSettings.from_env()
request_budget.configure(settings.shared_outbound_addresses)
exchanges = ExchangeQueues(settings)
claims_table = Table(settings.table_name)
# By name, because an event source's ARN contains its queue's name.
QUEUES = {
    url.rsplit("/", 1)[-1]: url
    for url in (
        settings.exchanges_queue_url,
        settings.unproven_exchanges_queue_url,
        settings.deferred_exchanges_queue_url,
    )
}
UNEXPECTED = ExchangeOutcome("", "unexpected")
CLAIMED = "claimed"
# States of a message that was sent to another queue, or to its own queue again.
SENT_ON = ("waiting", "deferred")


class MessageResult(NamedTuple):
    """The result of one message. `ages_s` are the ages of the code when its processing began and ended, None without a code."""

    message_id: str
    outcome: ExchangeOutcome | None
    ages_s: tuple[float, float] | None


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    records = event["Records"]
    queue_url = QUEUES.get(records[0]["eventSourceARN"].rsplit(":", 1)[-1], settings.exchanges_queue_url)

    def handle_message(record: dict[str, Any]) -> MessageResult:
        return exchange(record, queue_url, context)

    if len(records) == 1:
        results = [handle_message(records[0])]
    else:
        # One exchange mostly waits for an account's host: a host that does not answer must not hold up the others.
        with ThreadPoolExecutor(len(records)) as pool:
            results = list(pool.map(handle_message, records))
    for result in results:
        report(result, is_deferred=queue_url == settings.deferred_exchanges_queue_url)
    ended = [result for result in results if result.outcome and result.outcome is not UNEXPECTED]
    failed = {result.message_id for result in results} - {result.message_id for result in ended}
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def exchange(record: dict[str, Any], queue_url: str, context: LambdaContext) -> MessageResult:
    logger.thread_safe_clear_keys()
    try:
        if notice := read_claim(record["body"]):
            return attach_tags(record, notice, queue_url)
        install = read_message(record["body"])
    except (ValueError, KeyError, TypeError) as error:
        logger.error("install_unreadable", error=type(error).__name__)
        return MessageResult(record["messageId"], UNEXPECTED, (0.0, 0.0))
    logger.thread_safe_append_keys(
        install_id=install.id, platform=install.platform, client=install.client, host=install.account_host
    )
    receives = int(record["attributes"]["ApproximateReceiveCount"])
    message = Message(record["body"], queue_url, record["receiptHandle"], receives)
    taken_at = clock.now()
    outcome: ExchangeOutcome | None = None
    try:
        outcome = exchanges.handle_message(message, install, lambda: context.get_remaining_time_in_millis() / 1000)
    except Retryable as later:
        logger.warning("install_waits", reason=later.reason, detail=later.detail, after_s=later.after_s)
        queues.give_back(queue_url, record["receiptHandle"], later.after_s or 5)
    except Exception as error:  # noqa: BLE001 - one message must not fail the others of its batch
        # The error's text may quote what was sent, so only its type and place are logged.
        logger.error(
            "install_failed_unexpectedly", error=type(error).__name__, at=traceback.format_tb(error.__traceback__)
        )
        queues.give_back(queue_url, record["receiptHandle"], 10)
        outcome = UNEXPECTED
    ages_s = tuple((moment - install.received_at).total_seconds() for moment in (taken_at, clock.now()))
    if outcome and outcome is not UNEXPECTED:
        name = "install_sent_on" if outcome.state in SENT_ON else "install_ended"
        logger.info(name, state=outcome.state, reason=outcome.reason, detail=outcome.detail, age_s=ages_s[1])
    return MessageResult(record["messageId"], outcome, (ages_s[0], ages_s[1]))


def attach_tags(record: dict[str, Any], notice: ClaimNotice, queue_url: str) -> MessageResult:
    """Tag an account's connection as a person confirmed. The message is done also where the connection does not exist yet."""
    logger.thread_safe_append_keys(platform=notice.platform, client=notice.client, account_id=notice.account_id)
    try:
        state = claims.apply(notice, claims_table, settings.bus_name)
    except Retryable as later:
        logger.warning("claim_waits", reason=later.reason, detail=later.detail, after_s=later.after_s)
        queues.give_back(queue_url, record["receiptHandle"], later.after_s or 5)
        return MessageResult(record["messageId"], None, None)
    except Exception as error:  # noqa: BLE001 - one message must not fail the others of its batch
        logger.error("claim_failed", error=type(error).__name__, at=traceback.format_tb(error.__traceback__))
        queues.give_back(queue_url, record["receiptHandle"], 10)
        return MessageResult(record["messageId"], UNEXPECTED, None)
    logger.info("claim_processed", state=state)
    return MessageResult(record["messageId"], ExchangeOutcome(CLAIMED, state), None)


def report(result: MessageResult, *, is_deferred: bool) -> None:
    """Powertools' metrics are not safe for several threads, so they are added after all messages are done."""
    if result.ages_s is None:
        metric = sqs_batch.MESSAGES_FAILED if result.outcome is UNEXPECTED else "ClaimsProcessed"
        metrics.add_metric(metric, MetricUnit.Count, int(result.outcome is not None))
        return
    if not is_deferred:
        # At each receive of the message: a code whose exchange takes several tries is counted with each age.
        metrics.add_metric("CodeAgeSeconds", MetricUnit.Seconds, result.ages_s[0])
    if result.outcome is UNEXPECTED:
        metrics.add_metric(sqs_batch.MESSAGES_FAILED, MetricUnit.Count, 1)
    elif result.outcome is None or result.outcome.state in SENT_ON:
        state = result.outcome.state if result.outcome else "waiting"
        metrics.add_metric(f"Installs{state.capitalize()}", MetricUnit.Count, 1)
    else:
        metrics.add_metric(f"Installs{result.outcome.state.capitalize()}", MetricUnit.Count, 1)
        metrics.add_metric("InstallAge", MetricUnit.Seconds, result.ages_s[1])
