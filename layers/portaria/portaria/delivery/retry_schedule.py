"""The waits after which records are sent again that met a destination's failure or no answer; afterwards they are given up.

SQS counts every receive of a message, also those in which it only waited for a quota. So failures are counted here, in an item
that exists only for messages that have met one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from portaria.aws.table import Table, at_once
from portaria.core import clock

SK = "FAILURES"
# Longer than all waits of the schedule together.
KEPT_FOR = timedelta(days=15)


class Schedule:
    """`minutes` are the waits as the template's parameter has them: whole numbers with commas between them."""

    def __init__(self, table: Table, minutes: str) -> None:
        self.table = table
        self.waits_s = [float(wait) * 60 for wait in minutes.split(",")]

    @property
    def tries(self) -> int:
        return len(self.waits_s) + 1

    def next(self, message_ids: Iterable[str]) -> dict[str, float | None]:
        """Count a failure of each message; the seconds that it waits now, or None where all waits are over.

        Raises what AWS raises; a failure that was counted twice for a process that died costs one of the tries.
        """
        ids = list(message_ids)
        counts = at_once(self._count, ids)
        return {
            message_id: self.waits_s[count - 1] if count <= len(self.waits_s) else None
            for message_id, count in zip(ids, counts, strict=True)
        }

    def _count(self, message_id: str) -> int:
        item = self.table.update(
            f"MESSAGE#{message_id}",
            SK,
            "ADD failures :one SET expires_at = :expires_at",
            values={":one": 1, ":expires_at": int((clock.now() + KEPT_FOR).timestamp())},
        )
        return int(item["failures"])
