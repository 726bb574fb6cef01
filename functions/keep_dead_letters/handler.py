"""Keep messages that no worker could handle where the API lists dead letters."""

from typing import Any

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.aws import sqs_batch
from portaria.aws.table import Table
from portaria.core.logs import application_logger
from portaria.core.settings import KeepDeadLettersSettings
from portaria.records import dead_letter_counts, dead_letters

logger = application_logger()
metrics = Metrics()
settings = KeepDeadLettersSettings.from_env()
table = Table(settings.table_name)


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    queue_url = settings.records_dead_letters_url
    return sqs_batch.handle_records(
        event, context, keep, queue="RecordsDeadLetters", queue_url=queue_url, logger=logger, metrics=metrics
    )


def keep(record: SQSRecord) -> None:
    letter = dead_letters.of_message(record.message_id, record.body)
    try:
        dead_letter_counts.add(table, {(letter.route, letter.reason): max(1, len(letter.records))})
        dead_letters.put(table, letter)
    except Exception:
        metrics.add_metric("DeadLettersNotStored", MetricUnit.Count, 1)
        raise
    metrics.add_metric("DeadLettersKept", MetricUnit.Count, 1)
    logger.error(
        "dead_letter_kept",
        letter=letter.id,
        reason=letter.reason,
        connection=letter.connection,
        route=letter.route,
        records=len(letter.records),
    )
