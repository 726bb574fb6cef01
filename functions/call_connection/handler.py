"""Use a connection: call its API with the credential applied, or run an action of its platform."""

from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from portaria.api.operation import ApiContext
from portaria.api.operation_tables import index
from portaria.api.router import Service
from portaria.aws.table import Table
from portaria.connections import request_budget
from portaria.connections.tokens import provider
from portaria.connections.vault import SealedTable, Vault
from portaria.core.http.request import HttpRequest
from portaria.core.logs import application_logger
from portaria.core.settings import CallConnectionSettings

# How long a call waits for a token that another worker renews. The rest of its 20 seconds is for the call itself.
PATIENCE_S = 8.0

logger = application_logger()
settings = CallConnectionSettings.from_env()
request_budget.configure(settings.shared_outbound_addresses)
table = Table(settings.table_name)
vault = Vault(settings.secrets_prefix, SealedTable(table, settings.sealing_key_id))
running: dict[str, LambdaContext] = {}


def time_left_s() -> float:
    return float(running["context"].get_remaining_time_in_millis()) / 1000


token_provider = provider.TokenProvider(table, vault, settings.sealing_key_id, time_left_s, patience_s=PATIENCE_S)
api_context = ApiContext(table, vault, token_provider=token_provider, sealing_key_id=settings.sealing_key_id)
service = Service(partial(index.find, index.CALL), api_context, logger)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    running["context"] = context
    return service.answer(HttpRequest.from_event(event), context)
