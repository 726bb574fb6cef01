"""OAuth clients that this process has read, and the addresses that their platforms are known to call from.

This module is on the webhooks' cold path: no boto3, no Powertools.
"""

from __future__ import annotations

import time

from portaria.core.callbacks import CLIENT_IN_PATH, OAuthClient
from portaria.core.error_roots import Rejected
from portaria.core.item_keys import oauth_client_key
from portaria.webhooks import arrival_sources
from portaria.webhooks.light_table import LightTable, text

CLIENT_REMEMBERED_S = 60.0
# Short, so that a client that has just been registered is found.
NO_CLIENT_REMEMBERED_S = 5.0
MAX_REMEMBERED_CLIENTS = 500

# The monotonic time until which a client is remembered, the client, and the time (epoch seconds) until which each address is
# known. A plain tuple, because the class of a named tuple costs a third of a millisecond of the cold start.
_Known = tuple[float, OAuthClient | None, dict[str, float]]
_UNKNOWN: _Known = (0.0, None, {})


class OAuthClientCache:
    """One a process."""

    def __init__(self, table: LightTable) -> None:
        self._table = table
        self._known: dict[tuple[str, str], _Known] = {}
        self._sources = arrival_sources.KnownSources()

    def find(self, platform: str, name: str, timeout_s: float) -> OAuthClient | None:
        """The OAuth client, or None where it is certain that there is none. Raises `Retryable` and `AwsError`."""
        if not CLIENT_IN_PATH.fullmatch(name):
            return None
        until, client, _ = self._known.get((platform, name), _UNKNOWN)
        if time.monotonic() < until:
            return client
        key, sources_key = oauth_client_key(platform, name), arrival_sources.known_sources_key(platform)
        found = self._table.get_both(key, sources_key, timeout_s)
        client = None
        if item := found.get(key[0]):
            given = {field: text(item, field) for field in OAuthClient._fields if field in item}
            client = OAuthClient(**given | {"platform": platform, "name": name})
        ends = found.get(sources_key[0], {})
        sources = {source: float(ends_at["N"]) for source, ends_at in ends.items() if "N" in ends_at}
        if len(self._known) >= MAX_REMEMBERED_CLIENTS:
            self._known.clear()
        life_s = CLIENT_REMEMBERED_S if client else NO_CLIENT_REMEMBERED_S
        self._known[platform, name] = time.monotonic() + life_s, client, sources
        return client

    def is_known_source(self, platform: str, client: str, source: str) -> bool:
        """Whether a call came from an address that the platform calls from, within that address' allowance.

        `source` is `arrival_sources.hash_address`. The client must have been read by `find`.
        """
        _, _, sources = self._known.get((platform, client), _UNKNOWN)
        return sources.get(source, 0.0) > time.time() and self._sources.take(source)


def unknown_client() -> Rejected:
    return Rejected("unknown_client", "no OAuth client of this name is registered here", field="client", status=404)
