"""Which code is exchanged when: three queues of one worker, so that forged arrivals do not delay real ones.

    proven     a state was given out here, or the platform calls from this address: many tries in a code's life
    unproven   everything else: one quick try
    deferred   what the quick try did not settle, and arrivals from addresses whose codes failed: a few tries, far apart

A message moves on by being sent to the next queue and then deleted from its own. A death between the two leaves it in both; the
install's lease and its id, which is made of the code, make the second one harmless. No arrival is dropped: a deferred one is
tried as soon as a worker is free, and fails visibly when its code's life ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as with_changes
from datetime import datetime

from portaria import clock, egress, hook_sources, installs, queues
from portaria.contract import Retryable
from portaria.hook_sources import HookSources
from portaria.installs import Install, Outcome
from portaria.pace import Pace
from portaria.platforms import part
from portaria.settings import ExchangeCodeSettings
from portaria.table import Table

logger = logging.getLogger(__name__)

# Kommo allows 7 requests a second from an address, and a function outside of a VPC mostly has one for each process.
EXCHANGES_PER_S = 6.0
# The quick try gives up a host to which no connection comes about. It has not sent anything to it then.
QUICK_CONNECT_S = 1.5
# A host that did not answer is left alone by the quick tries of this process for so long.
UNREACHABLE_S = 60.0
MAX_REMEMBERED = 10_000
# The waits of deferred exchanges, by how often a message has been received: about six tries in the 20 minutes of a code.
DEFERRED_WAITS_S = (15.0, 60.0, 240.0, 600.0)

# What says that a code, or the account it came with, was made up. A wrong client secret or redirect URI is our own mistake.
FORGED = ("bad_code", "invalid_account", "code_used", "platform_refused")
NO_ANSWER = (egress.UNREACHABLE, "no_answer")
# A host's or a platform's reasons for a later try. Others are those of this stack, whose next try is as good in the same queue.
ELSEWHERE = (*NO_ANSWER, "platform_error", "answer_unreadable", "rate_limited", "rate_blocked")
ASKED_TO_PAUSE = ("rate_limited", "rate_blocked")

DEFERRED = Outcome("deferred")


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
        self._pace = Pace(EXCHANGES_PER_S)
        self._unreachable: dict[str, float] = {}
        # Until when quick tries wait, because the platform asked for a pause (epoch seconds).
        self._paused_until = 0.0
        self._lock = threading.Lock()

    def take(self, message: Message, install: Install, time_left_s: Callable[[], float]) -> Outcome:
        """Exchange a code, or move its message to the deferred ones (`DEFERRED`).

        Raises `Retryable` where the message should come back, with `after_s` set.
        """
        is_quick = message.queue_url == self._settings.unproven_exchanges_queue_url
        is_deferred = message.queue_url == self._settings.deferred_exchanges_queue_url
        if not is_deferred:
            if install.address_hash and self._sources.is_suspect(install.address_hash):
                return self._defer(message, install, "suspect_address", 0)
            if is_quick and (wait_s := self._wait_s(install.account_host)) > 0:
                return self._defer(message, install, "host_waits", wait_s)
        # The queue hides a message for 6 x the time-out; a code cannot wait that long for the next worker if this one dies.
        queues.give_back(message.queue_url, message.receipt_handle, installs.LEASE_S + 1)
        self._pace.wait()
        try:
            outcome = installs.exchange(
                install, self._settings, time_left_s, connect_timeout_s=QUICK_CONNECT_S if is_quick else None
            )
        except Retryable as later:
            if later.reason not in ELSEWHERE:
                raise
            self._note(install, later)
            if is_quick:
                return self._defer(message, install, later.reason, self._deferred_wait_s(install, 0, later))
            if is_deferred:
                wait_s = self._deferred_wait_s(install, message.receives, later)
                raise Retryable(later.reason, later.detail, after_s=wait_s) from later
            raise
        if install.address_hash:
            if outcome.state == "connected" and install.source == "widget":
                self._sources.succeeded(install.platform, install.address_hash)
            elif outcome.reason in FORGED:
                self._sources.failed(install.platform, install.address_hash, hook_sources.REFUSED)
        return outcome

    def _defer(self, message: Message, install: Install, reason: str, delay_s: float) -> Outcome:
        try:
            queues.send(
                self._settings.deferred_exchanges_queue_url,
                [message.body],
                delay_s=min(delay_s, queues.MAX_SEND_DELAY_S),
                tenant=install.address_hash,
            )
        except Retryable as refused:
            raise Retryable(refused.reason, refused.detail, after_s=5) from refused
        return with_changes(DEFERRED, reason=reason)

    def _wait_s(self, host: str) -> float:
        """How long a quick try at this host should wait; 0 where it need not."""
        now = clock.now().timestamp()
        with self._lock:
            return max(self._paused_until, self._unreachable.get(host, 0.0)) - now

    def _note(self, install: Install, later: Retryable) -> None:
        """Remember a host that did not answer, and a platform that asked for a pause."""
        now = clock.now().timestamp()
        if later.reason in ASKED_TO_PAUSE:
            with self._lock:
                self._paused_until = max(self._paused_until, now + (later.after_s or 0))
        if later.reason not in NO_ANSWER:
            return
        with self._lock:
            if len(self._unreachable) >= MAX_REMEMBERED:
                self._unreachable.clear()
            self._unreachable[install.account_host] = now + UNREACHABLE_S
        if install.address_hash:
            self._sources.failed(install.platform, install.address_hash, hook_sources.NO_ANSWER)

    @staticmethod
    def _deferred_wait_s(install: Install, receives: int, later: Retryable) -> float:
        """The next of `DEFERRED_WAITS_S`, or what the other side asked for; the last try is before the code's life ends."""
        wait_s = max(DEFERRED_WAITS_S[min(receives, len(DEFERRED_WAITS_S) - 1)], later.after_s or 0)
        life_s = (_code_ends_at(install) - clock.now()).total_seconds()
        return max(1.0, min(wait_s, life_s - 30)) if life_s > 30 else wait_s


def _code_ends_at(install: Install) -> datetime:
    return install.received_at + part(install.platform, "tokens").CODE_LIFE  # type: ignore[no-any-return]
