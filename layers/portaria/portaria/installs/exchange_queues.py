"""The order in which codes are exchanged: three queues of one worker, so that forged arrivals do not delay real ones.

    proven     a state was given out here, or the platform calls from this address: many tries in a code's life
    unproven   everything else: quick tries, a few of them
    deferred   arrivals from addresses whose codes failed: slowly, and only a few concurrently

A message is sent to the next queue and then deleted from its own. A death between the two leaves it in both; the install's
lease and its id, which is made of the code, make the second one harmless. No arrival is dropped: a deferred one is tried when a
worker is free, and fails visibly when its code expires.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from portaria.aws import queues
from portaria.aws.table import Table
from portaria.connections import request_budget
from portaria.core import clock
from portaria.core.errors import AnswerLost, PlatformUnavailable, RateLimited, Retryable, Unreachable
from portaria.core.settings import ExchangeCodeSettings
from portaria.core.stored_reasons import InstallFailure
from portaria.installs import code_exchange
from portaria.installs.exchange_outcomes import ExchangeOutcome, expire
from portaria.installs.hook_sources import HookSources
from portaria.installs.install_lease import LEASE_S
from portaria.installs.install_messages import Install
from portaria.outbound.rate_limiter import RateLimiter
from portaria.outbound.request_slots import Priority

logger = logging.getLogger(__name__)

# Kommo allows 7 requests a second from an address, and a function outside of a VPC mostly has one for each process. Deferred
# exchanges are mostly forged ones, with which Kommo should not be troubled more than needed.
EXCHANGES_PER_S = 6.0
DEFERRED_PER_S = 1.0
# A quick try gives up a host to which no connection can be made. Nothing has been sent to it then.
QUICK_CONNECT_S = 1.5
# The first wait of an unproven arrival. Each later wait equals the age of its code: seven tries in 20 minutes.
FIRST_WAIT_S = 15.0

# The failures of a forged code or account. A wrong client secret or redirect URI is an error of the stack's owner.
FORGED = frozenset(
    {
        InstallFailure.BAD_CODE,
        InstallFailure.INVALID_ACCOUNT,
        InstallFailure.CODE_USED,
        InstallFailure.PLATFORM_REFUSED,
    }
)


@dataclass(frozen=True)
class Message:
    """A message of one of the queues. `receives` counts this one."""

    body: str
    queue_url: str
    receipt_handle: str
    receives: int


class ExchangeQueues:
    """One a process, for its memory of hosts and addresses and for its rate limiters. Used by several threads."""

    def __init__(self, settings: ExchangeCodeSettings) -> None:
        self._settings = settings
        self._table = Table(settings.table_name)
        self._sources = HookSources(self._table)
        self._rate_limiter, self._deferred_rate_limiter = RateLimiter(EXCHANGES_PER_S), RateLimiter(DEFERRED_PER_S)
        # Until when quick tries wait, because the platform asked for a pause (epoch seconds).
        self._paused_until = 0.0

    def handle_message(self, message: Message, install: Install, time_left_s: Callable[[], float]) -> ExchangeOutcome:
        """Exchange a code, or send its message on.

        The outcome's state is the install's, `waiting` (sent to be tried again) or `deferred` (sent to the deferred ones).
        Raises `Retryable` where the message should come back, with `after_s` set.
        """
        is_unproven = message.queue_url == self._settings.unproven_exchanges_queue_url
        is_deferred = message.queue_url == self._settings.deferred_exchanges_queue_url
        if clock.now() >= install.code_ends_at() and (ended := expire(install, self._settings)):
            return ended
        if not is_deferred:
            is_suspect, host_wait_s = self._sources.look(install.address_hash, install.account_host)
            if is_suspect:
                return self._send(message, install, "suspect_address")
            wait_s = max(host_wait_s, self._paused_until - clock.now().timestamp())
            if is_unproven and wait_s > 0:
                return self._send(message, install, "host_waits", wait_s)
        # The queue hides a message for 6 x the time-out. If this worker dies, its code cannot wait that long for the next one.
        queues.give_back(message.queue_url, message.receipt_handle, LEASE_S + 1)
        (self._deferred_rate_limiter if is_deferred else self._rate_limiter).wait()
        is_doubtful = is_unproven or is_deferred
        priority = Priority.UNPROVEN_EXCHANGE if is_doubtful else Priority.EXCHANGE
        try:
            request_budget.wait(self._table, install.platform, priority)
            outcome = code_exchange.exchange(
                install, self._settings, time_left_s, connect_timeout_s=QUICK_CONNECT_S if is_unproven else None
            )
        except PlatformUnavailable as later:
            # Any other `Retryable` has its cause in this stack: the next try is as good in the same queue.
            self._note(install, later)
            wait_s = _next_wait_s(install, later)
            if is_unproven:
                return self._send(message, install, later.reason, wait_s)
            raise later.replaced(after_s=wait_s if is_deferred else later.after_s, answer_lost=False) from later
        if install.address_hash:
            if outcome.state == "connected" and install.source == "widget":
                self._sources.succeeded(install.platform, install.address_hash)
            elif outcome.reason in FORGED:
                self._sources.failed(install.platform, install.address_hash)
        return outcome

    def _send(self, message: Message, install: Install, reason: str, delay_s: float = 0) -> ExchangeOutcome:
        """Send a message on: to the deferred ones if its address is suspect, else to be tried again later."""
        is_suspect, _ = self._sources.look(install.address_hash, install.account_host)
        to = self._settings.deferred_exchanges_queue_url if is_suspect else self._settings.unproven_exchanges_queue_url
        try:
            # With a delay, because a delayed message is not in flight: SQS allows 120,000 of those.
            queues.send(to, [message.body], delay_s=min(delay_s, queues.MAX_SEND_DELAY_S), tenant=install.address_hash)
        except Retryable as refused:
            raise refused.replaced(after_s=5) from refused
        return ExchangeOutcome("deferred" if is_suspect else "waiting", reason)

    def _note(self, install: Install, later: Retryable) -> None:
        """Remember a host that did not answer, and a platform that asked for a pause."""
        if isinstance(later, RateLimited):
            self._paused_until = max(self._paused_until, clock.now().timestamp() + (later.after_s or 0))
        if not isinstance(later, Unreachable | AnswerLost):
            return
        if isinstance(later, Unreachable):
            self._sources.unreachable(install.account_host)
        else:
            self._sources.silent(install.account_host)
        if install.address_hash:
            self._sources.failed(install.platform, install.address_hash)


def _next_wait_s(install: Install, later: Retryable) -> float:
    """As long as the code is old, or as the other side asked for; the last try is before the code's life ends."""
    age_s = (clock.now() - install.received_at).total_seconds()
    life_s = (install.code_ends_at() - clock.now()).total_seconds()
    wait_s = max(FIRST_WAIT_S, age_s, later.after_s if isinstance(later, RateLimited) and later.after_s else 0)
    return max(1.0, min(wait_s, life_s - 30)) if life_s > 30 else wait_s
