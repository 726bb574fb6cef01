"""Which code is exchanged when: three queues of one worker, so that forged arrivals do not delay real ones.

    proven     a state was given out here, or the platform calls from this address: many tries in a code's life
    unproven   everything else: quick tries, a few of them
    deferred   arrivals from addresses whose codes failed: slowly, and not many at once

A message moves on by being sent to the next queue and then deleted from its own. A death between the two leaves it in both; the
install's lease and its id, which is made of the code, make the second one harmless. No arrival is dropped: a deferred one is
tried as soon as a worker is free, and fails visibly when its code's life ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from portaria import clock, egress, installs, queues
from portaria.contract import Retryable
from portaria.hook_sources import HookSources
from portaria.installs import Install, Outcome
from portaria.pace import Pace
from portaria.platforms import part
from portaria.settings import ExchangeCodeSettings
from portaria.table import Table

logger = logging.getLogger(__name__)

# Kommo allows 7 requests a second from an address, and a function outside of a VPC mostly has one for each process. Deferred
# exchanges are mostly forged ones, with which Kommo should not be troubled more than needed.
EXCHANGES_PER_S = 6.0
DEFERRED_PER_S = 1.0
# A quick try gives up a host to which no connection comes about. It has not sent anything to it then.
QUICK_CONNECT_S = 1.5
# The first wait of an arrival without a proof. It waits as long again as its code is old: seven tries in 20 minutes.
FIRST_WAIT_S = 15.0

# What says that a code, or the account it came with, was made up. A wrong client secret or redirect URI is our own mistake.
FORGED = ("bad_code", "invalid_account", "code_used", "platform_refused")
NO_ANSWER = (egress.UNREACHABLE, "no_answer")
ASKED_TO_PAUSE = ("rate_limited", "rate_blocked")
# A host's or a platform's reasons for a later try. Others are those of this stack, whose next try is as good in the same queue.
ELSEWHERE = (*NO_ANSWER, *ASKED_TO_PAUSE, "platform_error", "answer_unreadable")


@dataclass(frozen=True)
class Message:
    """A message of one of the queues. `receives` counts this one."""

    body: str
    queue_url: str
    receipt_handle: str
    receives: int


class ExchangeQueues:
    """One a process, for its memory of hosts, addresses and paces. Used by several threads."""

    def __init__(self, settings: ExchangeCodeSettings) -> None:
        self._settings = settings
        self._sources = HookSources(Table(settings.table_name))
        self._pace, self._deferred_pace = Pace(EXCHANGES_PER_S), Pace(DEFERRED_PER_S)
        # Until when quick tries wait, because the platform asked for a pause (epoch seconds).
        self._paused_until = 0.0

    def take(self, message: Message, install: Install, time_left_s: Callable[[], float]) -> Outcome:
        """Exchange a code, or send its message on.

        The outcome's state is the install's, `waiting` (sent to be tried again) or `deferred` (sent to the deferred ones).
        Raises `Retryable` where the message should come back, with `after_s` set.
        """
        is_unproven = message.queue_url == self._settings.unproven_exchanges_queue_url
        is_deferred = message.queue_url == self._settings.deferred_exchanges_queue_url
        if clock.now() >= _code_ends_at(install) and (ended := installs.expire(install, self._settings)):
            return ended
        if not is_deferred:
            is_suspect, host_wait_s = self._sources.look(install.address_hash, install.account_host)
            if is_suspect:
                return self._send(message, install, "suspect_address")
            wait_s = max(host_wait_s, self._paused_until - clock.now().timestamp())
            if is_unproven and wait_s > 0:
                return self._send(message, install, "host_waits", wait_s)
        # The queue hides a message for 6 x the time-out; a code cannot wait that long for the next worker if this one dies.
        queues.give_back(message.queue_url, message.receipt_handle, installs.LEASE_S + 1)
        (self._deferred_pace if is_deferred else self._pace).wait()
        try:
            outcome = installs.exchange(
                install, self._settings, time_left_s, connect_timeout_s=QUICK_CONNECT_S if is_unproven else None
            )
        except Retryable as later:
            if later.reason not in ELSEWHERE:
                raise
            self._note(install, later)
            wait_s = _next_wait_s(install, later)
            if is_unproven:
                return self._send(message, install, later.reason, wait_s)
            raise Retryable(later.reason, later.detail, after_s=wait_s if is_deferred else later.after_s) from later
        if install.address_hash:
            if outcome.state == "connected" and install.source == "widget":
                self._sources.succeeded(install.platform, install.address_hash)
            elif outcome.reason in FORGED:
                self._sources.failed(install.platform, install.address_hash)
        return outcome

    def _send(self, message: Message, install: Install, reason: str, delay_s: float = 0) -> Outcome:
        """Send a message on: to the deferred ones if its address is suspect, else to be tried again later."""
        is_suspect, _ = self._sources.look(install.address_hash, install.account_host)
        to = self._settings.deferred_exchanges_queue_url if is_suspect else self._settings.unproven_exchanges_queue_url
        try:
            # With a delay, so that what waits is not in flight: of those SQS allows 120,000.
            queues.send(to, [message.body], delay_s=min(delay_s, queues.MAX_SEND_DELAY_S), tenant=install.address_hash)
        except Retryable as refused:
            raise Retryable(refused.reason, refused.detail, after_s=5) from refused
        return Outcome("deferred" if is_suspect else "waiting", reason)

    def _note(self, install: Install, later: Retryable) -> None:
        """Remember a host that did not answer, and a platform that asked for a pause."""
        if later.reason in ASKED_TO_PAUSE:
            self._paused_until = max(self._paused_until, clock.now().timestamp() + (later.after_s or 0))
        if later.reason not in NO_ANSWER:
            return
        if later.reason == egress.UNREACHABLE:
            self._sources.unreachable(install.account_host)
        else:
            self._sources.silent(install.account_host)
        if install.address_hash:
            self._sources.failed(install.platform, install.address_hash)


def _next_wait_s(install: Install, later: Retryable) -> float:
    """As long as the code is old, or as the other side asked for; the last try is before the code's life ends."""
    age_s = (clock.now() - install.received_at).total_seconds()
    life_s = (_code_ends_at(install) - clock.now()).total_seconds()
    wait_s = max(FIRST_WAIT_S, age_s, later.after_s if later.reason in ASKED_TO_PAUSE and later.after_s else 0)
    return max(1.0, min(wait_s, life_s - 30)) if life_s > 30 else wait_s


def _code_ends_at(install: Install) -> datetime:
    return install.received_at + part(install.platform, "tokens").CODE_LIFE  # type: ignore[no-any-return]
