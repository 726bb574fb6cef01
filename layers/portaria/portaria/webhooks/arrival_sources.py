"""The address that an arrival came from, which decides the queue of its code.

Anyone may call a redirect URI. Forged calls must not delay a marketplace's, so arrivals go to two queues: one for those with a
state that was created here, and for those from addresses whose codes have worked (a marketplace calls from its own servers);
the other for the rest. Nothing is refused here.

This module is on the webhooks' cold path: only the standard library, and no more of it than is needed.
"""

from __future__ import annotations

import hashlib
import time

from portaria.core.item_keys import ItemKey

# The arrivals that one process sends from one known address to the queue for proven arrivals: this many a second, and a burst.
# An attacker who shares such an address, or who once sent a working code from one, cannot fill that queue.
KNOWN_PER_S = 1.0
KNOWN_BURST = 20.0


def known_sources_key(platform: str) -> ItemKey:
    """The item that lists the addresses a platform is known to call from."""
    return f"HOOK_SOURCES#{platform}", "HOOK_SOURCES"


def hash_address(address: str) -> str:
    """The hash of a caller's address; empty where the event names none.

    Of an IPv6 address only the network of 64 bits counts, since one host has all of it. The address itself is not needed later,
    so it is not stored.
    """
    if ":" in address:
        from ipaddress import IPv6Address  # noqa: PLC0415 - most callers have an IPv4 address

        try:
            address = str(int(IPv6Address(address.partition("%")[0])) >> 64)
        except ValueError:
            return ""
    return hashlib.sha256(address.encode()).hexdigest()[:32] if address else ""


class KnownSources:
    """The allowance that each known address has left in this process."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, source: str) -> bool:
        """Whether one more arrival from this known address goes to the queue for proven ones."""
        now = time.monotonic()
        left, at = self._left.get(source, (KNOWN_BURST, now))
        left = min(KNOWN_BURST, left + (now - at) * KNOWN_PER_S)
        # Known addresses are few: see hook_sources.MOST_KNOWN.
        self._left[source] = (max(0.0, left - 1), now)
        return left >= 1
