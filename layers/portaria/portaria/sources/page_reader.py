"""Reading a connection's account: with a token, within the platform's request budget, while there is time left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from portaria.aws.table import Table
from portaria.connections import connection_store, request_budget
from portaria.connections.tokens import provider
from portaria.connections.tokens.cache import Token
from portaria.connections.vault import SealedTable, Vault
from portaria.core.callbacks import Record, Secret, time_of_change
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable, TokenRefused
from portaria.core.http.messages import Request, Response
from portaria.core.settings import BackfillRecordsSettings
from portaria.outbound import http_client
from portaria.outbound.request_slots import Priority

Send = Callable[[Request], Response]
Found = TypeVar("Found")

# The time needed after a request's time-outs to queue its records and to write the item.
TIME_TO_STORE_S = 5.0
# Between two turns of one reading, where the platform does not ask for a pause.
PAUSE_S = 5.0


@dataclass(frozen=True)
class ReadingOutcome:
    """The outcome of one message of the Backfills queue.

    `state` is, for a backfill, `started`, `running`, `done` or `failed`; for a reconciliation `queued` (a page of the due
    ones), `reconciling`, `reconciled`, `waiting` (for the request budget), `put_off` or `ended`; or `ignored`. `started` counts
    the backfills or reconciliations that were queued.
    """

    state: str
    pages: int = 0
    records: int = 0
    started: int = 0


def dated(records: list[Record], read_at: int) -> list[Record]:
    """Records whose versions are not newer than the time they were read at (epoch milliseconds): see `time_of_change`."""
    seen_at = read_at // 1_000
    return [record._replace(updated_at=time_of_change(record.updated_at, seen_at)) for record in records]


class PageReader:
    """Reads one account. `connection` is replaced by the newer one if the account is installed again meanwhile."""

    def __init__(
        self,
        table: Table,
        settings: BackfillRecordsSettings,
        connection: Connection,
        priority: Priority,
        time_left_s: Callable[[], float],
    ) -> None:
        self.table = table
        self.connection = connection
        self.vault = Vault(settings.secrets_prefix, SealedTable(table, settings.sealing_key_id))
        self.token_provider = provider.TokenProvider(table, self.vault, settings.sealing_key_id, time_left_s)
        self.priority = priority
        self.time_left_s = time_left_s

    def read(self, ask: Callable[[Send, str, Secret], Found]) -> Found:
        """Call `ask` with `send`, the account's host and an access token; repeat it if there is a newer connection.

        Raises `Rejected` as `ask` and the token provider do, and `Retryable` also if too little time is left.
        """
        while True:
            try:
                return self._with_token(ask)
            except Rejected:
                newer = connection_store.get(self.table, self.connection.name)
                if newer.generation <= self.connection.generation:
                    raise
                self.connection = newer

    def send(self, request: Request) -> Response:
        """Send one request within the platform's limits.

        Raises `Retryable` if its time-outs would outlast the function, and `BudgetExhausted` if no request may be sent now.
        """
        if self.time_left_s() < request.time_limit_s + TIME_TO_STORE_S:
            raise Retryable("short_of_time", "there is too little time left to wait for the response", after_s=0)
        request_budget.wait(self.table, self.connection.platform, self.priority, self.connection.name)
        return http_client.send(request, allowed_domain=self.connection.allowed_domain, owner=self.connection.name)

    def _with_token(self, ask: Callable[[Send, str, Secret], Found]) -> Found:
        def attempt(token: Token) -> Found:
            return ask(self.send, self.connection.allowed_domain, token.credentials["access_token"])

        token = self.token_provider.token(self.connection)
        try:
            return attempt(token)
        except TokenRefused:
            newer = self.token_provider.refresh_after_401(self.connection, token)
            if newer is None:
                raise
            return attempt(newer)
