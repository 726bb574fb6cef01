"""When the tokens of private integrations were last used, to the hour.

They are separate items, because the public functions write them and may not write private integrations.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from portaria.aws import service_clients
from portaria.aws.table import Table
from portaria.core import clock

if TYPE_CHECKING:
    from portaria.access.private_integrations import PrivateIntegration

# An item outlives every token that is still in use.
KEPT_FOR = timedelta(days=400)
MAX_KNOWN = 10_000

# The hour that this process has last written, by a token's hash: each process writes at most once an hour for a token.
_written: dict[str, str] = {}


def key(integration_id: str, token_hash: str) -> tuple[str, str]:
    return f"TOKEN_USE#{integration_id}", token_hash


def note(table: Table, integration_id: str, token_hash: str) -> None:
    """Store that a token was used in this hour. A failing write is ignored: the next use writes again."""
    now = clock.now()
    hour = clock.to_iso(_hour(now))
    if _written.get(token_hash) == hour:
        return
    pk, sk = key(integration_id, token_hash)
    with suppress(*service_clients.FAILURES):
        table.put({"pk": pk, "sk": sk, "used_at": hour, "expires_at": int((now + KEPT_FOR).timestamp())})
        if len(_written) >= MAX_KNOWN:
            _written.clear()
        _written[token_hash] = hour


def find(table: Table, integrations: Iterable[PrivateIntegration]) -> dict[str, str]:
    """When each token of these integrations was last used (ISO 8601), by the token's hash, without unused tokens."""
    keys = [key(each.id, digest) for each in integrations for digest in (each.token_hash, each.previous_hash) if digest]
    return {item["sk"]: item["used_at"] for item in table.get_many(keys).values()}


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
