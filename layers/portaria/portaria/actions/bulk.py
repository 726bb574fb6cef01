"""Many entries in one API call: each entry has its own outcome, and all requests fit into the time of one call.

Requests are sent one after the other until one fails in a way that the next ones would share. The remaining entries are
`not_sent`, so the caller knows what to send again. The error is the answer to the whole call only if no entry has an outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import replace as with_changes

from portaria.connections import proxy_call
from portaria.connections.tokens.cache import Token
from portaria.connections.tokens.provider import TokenProvider
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.errors import AnswerTooLarge, Rejected, Retryable
from portaria.core.http.messages import Request, Response

# Do not start a request with less time left than this: it would be cut off, with an unknown outcome.
LEAST_TIME_S = 2.0
UNKNOWN, NOT_SENT = "unknown", "not_sent"


@dataclass(frozen=True)
class EntryOutcome:
    """The outcome of an entry. `reason` and `detail` say why it failed; `id` is the platform's, if known.

    Besides the platform's outcomes there are `unknown` (the platform did not answer and may have processed the entry) and
    `not_sent` (the entry was not sent, because of an error that is not about it).
    """

    outcome: str
    reason: str = ""
    detail: str = ""
    id: str = ""


class Batch:
    """`after_s` is the wait in seconds before the remaining entries should be sent, where the platform asked for one."""

    def __init__(self, token_provider: TokenProvider, connection: Connection, size: int) -> None:
        self.token_provider = token_provider
        self.connection = connection
        self.size = size
        self.after_s: float | None = None
        self._ends_at = clock.now() + proxy_call.TIME
        self._outcomes: dict[int, EntryOutcome] = {}

    @property
    def outcomes(self) -> list[EntryOutcome]:
        """One outcome for each entry, in order."""
        return [self._outcomes[entry] for entry in range(self.size)]

    @property
    def settled(self) -> set[int]:
        return set(self._outcomes)

    def send(self, build: Callable[[Token], Request]) -> Response:
        """Send one request within the remaining time of the call.

        Raises `Rejected`, and `Retryable`: with `answer_lost` only if this request was sent and may have been processed.
        """
        left = False

        def bounded(token: Token) -> Request:
            nonlocal left
            time_left_s = (self._ends_at - clock.now()).total_seconds()
            if time_left_s < LEAST_TIME_S:
                raise Retryable("out_of_time", "there was no time left in this call", after_s=1)
            request = build(token)
            left = True
            return with_changes(request, total_timeout_s=min(request.time_limit_s, time_left_s))

        try:
            return self.token_provider.send(self.connection, bounded)
        except AnswerTooLarge as too_large:
            raise Retryable(too_large.reason, too_large.detail, answer_lost=True) from None
        except Rejected as rejected:
            raise proxy_call.with_advice(rejected, self.connection) from None
        except Retryable as later:
            if later.answer_lost and not left:
                # The answer to a log-in was lost; this request was not sent.
                raise later.replaced(answer_lost=False) from None
            raise

    def settle(self, entries: Iterable[int], outcome: EntryOutcome) -> None:
        self._outcomes |= dict.fromkeys(entries, outcome)

    def lose(self, entries: Iterable[int], lost: Retryable) -> None:
        """Settle entries whose answer was lost as `unknown`."""
        detail = f"{lost.detail}; it may have been processed: send it again"
        self.settle(entries, EntryOutcome(UNKNOWN, lost.reason, detail))

    def give_up(self, trouble: Rejected | Retryable) -> None:
        """Settle the remaining entries as `not_sent`. Raises `trouble` itself if no entry has an outcome."""
        if not self._outcomes:
            raise trouble
        if isinstance(trouble, Retryable):
            self.after_s = trouble.after_s
        unsettled = [entry for entry in range(self.size) if entry not in self._outcomes]
        self.settle(
            unsettled, EntryOutcome(NOT_SENT, trouble.reason, f"{trouble.detail}; this entry was not processed")
        )
