"""When records are sent again.

`Schedule` has the waits after a destination's failure or a lost answer; after the last one, records become dead letters. SQS
counts every receive of a message, also those in which it only waited for a quota. So failures are counted here, in an item
for each destination object that did not accept a message's records. A message that returns to its queue for another destination
may fail again before its next try is due: that failure belongs to the same attempt. `wait_s` is the back-off of messages that
return to their queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial

from portaria.aws.table import Conflict, Item, Table, run_concurrently
from portaria.core import clock
from portaria.core.entities import Target

SK = "FAILURES"
# Longer than all waits of the schedule together.
KEPT_FOR = timedelta(days=15)
# The waits of a message if the destination does not say how long: doubled with each receive, so that a destination that
# accepts records again is noticed within ten minutes.
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 600.0
# The longest that a message stays invisible because of its destination; longer waits are pauses of the destination, and its
# records wait in the table. A thousand messages a second, more than the largest `Size` handles, are then 15,000 of the
# 120,000 that SQS allows in flight. A message is received three times at most for a destination that stays busy, so these
# take few receives from others.
LONGEST_IN_QUEUE_S = 15.0


def wait_s(asked_s: float | None, receives: int) -> float:
    """The seconds that a message stays invisible: 0 if 0 is asked for, else at least the back-off of its receives."""
    if asked_s == 0:
        return 0
    return max(asked_s or 0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(receives - 1, 20)))


class Schedule:
    """`minutes` are the waits as the template's parameter has them: whole numbers with commas between them."""

    def __init__(self, table: Table, minutes: str) -> None:
        self.table = table
        self.waits_s = [float(wait) * 60 for wait in minutes.split(",")]

    @property
    def tries(self) -> int:
        return len(self.waits_s) + 1

    def next(self, target: Target, message_ids: Iterable[str]) -> dict[str, float | None]:
        """Count a failure of each message at its target; when it is tried again (epoch seconds), or None after the last wait.

        A failure before the next try is due is not counted, also if a process died after the count. Raises what AWS raises.
        """
        ids = list(message_ids)
        times = run_concurrently(partial(self._count, f"{SK}#{target.destination}#{target.object}"), ids)
        return dict(zip(ids, times, strict=True))

    def _count(self, sk: str, message_id: str) -> float | None:
        """The stored `again_at` is epoch milliseconds. Most failures are first ones, so the item is read by a failed write."""
        known: Item = {}
        while True:
            now = clock.now()
            now_ms = int(now.timestamp() * 1_000)
            if (again_at := int(known.get("again_at", 0))) > now_ms:
                return again_at / 1_000
            failures = int(known.get("failures", 0))
            is_last = failures >= len(self.waits_s)
            again_at = now_ms if is_last else now_ms + int(self.waits_s[failures] * 1_000)
            try:
                self.table.update(
                    f"MESSAGE#{message_id}",
                    sk,
                    "SET failures = :failures, again_at = :again_at, expires_at = :expires_at",
                    condition="failures = :before" if failures else "attribute_not_exists(failures)",
                    values={
                        ":failures": failures + 1,
                        ":again_at": again_at,
                        ":expires_at": int((now + KEPT_FOR).timestamp()),
                    }
                    | ({":before": failures} if failures else {}),
                )
            except Conflict as conflict:
                known = conflict.item or {}
                continue
            return None if is_last else again_at / 1_000
