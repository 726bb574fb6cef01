"""Make a call to a connection's API with its credential applied. AWS IAM has decided who may."""

from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria import tokens
from portaria.administration import answers, calls, inputs, problems
from portaria.contract import Retryable
from portaria.settings import CallConnectionSettings
from portaria.table import Table
from portaria.vault import Vault

# How long a call waits for a token that another worker renews: the rest of its 20 seconds is for the call itself.
PATIENCE_S = 8.0

logger = Logger()
settings = CallConnectionSettings.from_env()
table = Table(settings.table_name)
app = answers.new_app(logger)


def time_left_s() -> float:
    return float(app.lambda_context.get_remaining_time_in_millis()) / 1000


supply = tokens.Supply(
    table, Vault(settings.secrets_prefix), settings.sealing_key_id, time_left_s, patience_s=PATIENCE_S
)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return answers.resolve(app, event, context)


@app.post(f"{answers.PREFIX}/connections/<name>/call")
def call_connection(name: str) -> Response[str]:
    event = app.current_event
    body = inputs.read_body(event.body, bool(event.is_base64_encoded), calls.MAX_REQUEST_BYTES)
    return answers.answer(HTTPStatus.OK, calls.call(table, supply, name, body))


@app.exception_handler(Retryable)  # type: ignore[untyped-decorator]
def tell_what_became_of_the_call(later: Retryable) -> Response[str]:
    logger.warning("a call was not answered", reason=later.reason, detail=later.detail)
    if later.answer_lost:
        detail = f"{later.detail}; the call may have been carried out"
        return answers.problem(problems.problem(HTTPStatus.GATEWAY_TIMEOUT, later.reason, detail))
    if later.reason == tokens.UNREACHABLE:
        detail = f"{later.detail}; nothing was sent"
        return answers.problem(problems.problem(HTTPStatus.BAD_GATEWAY, later.reason, detail))
    return answers.put_off(later, f"{later.detail}; the call was not sent")
