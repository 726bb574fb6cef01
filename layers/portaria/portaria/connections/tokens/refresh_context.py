"""What all steps of a token refresh share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from portaria.aws.table import Table
from portaria.connections.vault import Vault


@dataclass(frozen=True)
class RefreshContext:
    """`time_left_s` returns the time left to the function.

    `refused_limit` is how long a provider may refuse refreshes before the connection ends; None: refusals are only recorded.
    Without a `sealing_key_id` no token is refreshed.
    """

    table: Table
    vault: Vault
    sealing_key_id: str
    time_left_s: Callable[[], float]
    refused_limit: timedelta | None

    @property
    def is_visit(self) -> bool:
        """Whether a visit of `renew_tokens` refreshes. Its message returns to the queue until that has been done."""
        return self.refused_limit is not None
