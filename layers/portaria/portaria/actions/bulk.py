"""Many entries in one call: each has an outcome of its own, and all the requests fit into the time of one call.

Work is done request by request, and stops where going on would not help: what is left then was `not_sent`, so the caller
knows exactly what to send again. Only where nothing at all was done is the trouble the answer to the whole call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import replace as with_changes

from portaria.connections import proxy_call
from portaria.connections.tokens.cache import Token
from portaria.connections.tokens.provider import TokenProvider
from portaria.core import clock
from portaria.core.entities import Connection, Rejected, Request, Response, Retryable
from portaria.core.errors import AnswerTooLarge

# Less is left of a call's time for no request: it would be cut off, and nobody would know what became of it.
LEAST_TIME_S = 2.0
UNKNOWN, NOT_SENT = "unknown", "not_sent"


@dataclass(frozen=True)
class EntryOutcome:
    """What became of an entry. `reason` and `detail` say why it is not what was asked for; `id` is the platform's, if told.

    Besides what a platform does with it an entry may be `unknown` (the platform gave no answer and may have done it) or
    `not_sent` (nothing was done about it, for a reason that is not its own).
    """

    outcome: str
    reason: str = ""
    detail: str = ""
    id: str = ""


class Batch:
    """`after_s` is the wait in seconds after which the rest is welcome, where one was asked for."""

    def __init__(self, token_provider: TokenProvider, connection: Connection, size: int) -> None:
        self.token_provider = token_provider
        self.connection = connection
        self.size = size
        self.after_s: float | None = None
        self._ends_at = clock.now() + proxy_call.TIME
        self._outcomes: dict[int, EntryOutcome] = {}

    @property
    def outcomes(self) -> list[EntryOutcome]:
        """One an entry, in their order."""
        return [self._outcomes[entry] for entry in range(self.size)]

    @property
    def settled(self) -> set[int]:
        return set(self._outcomes)

    def send(self, build: Callable[[Token], Request]) -> Response:
        """Carry one request, within what is left of the call's time.

        Raises `Rejected`, and `Retryable`: with `answer_lost` only where this very request left and may have been acted on.
        """
        left = False

        def bounded(token: Token) -> Request:
            nonlocal left
            time_left_s = (self._ends_at - clock.now()).total_seconds()
            if time_left_s < LEAST_TIME_S:
                raise Retryable("out_of_time", "there was no time left in this call", after_s=1)
            request = build(token)
            left = True
            usual_s = request.connect_timeout_s + request.read_timeout_s
            return with_changes(request, total_timeout_s=min(usual_s, time_left_s))

        try:
            return self.token_provider.send(self.connection, bounded)
        except AnswerTooLarge as too_large:
            raise Retryable(too_large.reason, too_large.detail, answer_lost=True) from None
        except Rejected as rejected:
            raise proxy_call.with_advice(rejected, self.connection) from None
        except Retryable as later:
            if later.answer_lost and not left:
                # The answer to a log-in was lost.
                raise later.replaced(answer_lost=False) from None
            raise

    def settle(self, entries: Iterable[int], outcome: EntryOutcome) -> None:
        self._outcomes |= dict.fromkeys(entries, outcome)

    def lose(self, entries: Iterable[int], lost: Retryable) -> None:
        """The answer about these was lost."""
        detail = f"{lost.detail}; it may have been processed: send it again"
        self.settle(entries, EntryOutcome(UNKNOWN, lost.reason, detail))

    def give_up(self, trouble: Rejected | Retryable) -> None:
        """Go no further: what has no outcome yet was not sent. Raises the trouble itself where nothing has one."""
        if not self._outcomes:
            raise trouble
        if isinstance(trouble, Retryable):
            self.after_s = trouble.after_s
        unsettled = [entry for entry in range(self.size) if entry not in self._outcomes]
        self.settle(
            unsettled, EntryOutcome(NOT_SENT, trouble.reason, f"{trouble.detail}; this entry was not processed")
        )
