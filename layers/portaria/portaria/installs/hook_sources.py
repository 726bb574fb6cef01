"""The results of earlier exchanges, by the address that a code came from and by the host that it was sent to.

An item `SOURCE#{hash}` counts an address' failures since its last success. An address whose codes fail is suspect: its later
arrivals wait in the queue for deferred exchanges, where they do not delay others. An address whose webhook worked is known: the
item `HOOK_SOURCES#{platform}` lists these for the receiving path (`arrival_sources`), and more failures make one suspect.
An item `SILENT_HOST#{host}` records that a host accepted a code and did not answer, so that other workers do not wait for it.

Nothing here decides whether an install succeeds. A lost write only costs time: the next success records the address.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from portaria.aws import service_clients
from portaria.aws.table import Item, Table
from portaria.core import clock
from portaria.webhooks.arrival_sources import known_sources_key

logger = logging.getLogger(__name__)

# Failures since the last success, from which on an address is suspect: one with a success in `KNOWN_FOR`, and any other.
SUSPECT_AT, KNOWN_SUSPECT_AT = 2, 20
FORGOTTEN_AFTER = timedelta(days=1)
KNOWN_FOR = timedelta(days=30)
# How often the item of a known address is renewed.
RENEWED_EVERY = timedelta(days=1)
MOST_KNOWN = 200
# How long no request is sent to a host that did not answer.
SILENT_S = 60.0
# How long a process treats an address as suspect without reading its item again.
REMEMBERED_S = 60.0
MAX_REMEMBERED = 20_000


def key(source: str) -> tuple[str, str]:
    return f"SOURCE#{source}", "SOURCE"


def host_key(host: str) -> tuple[str, str]:
    return f"SILENT_HOST#{host}", "SILENT_HOST"


class HookSources:
    """One a process; used by several threads."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._suspects: dict[str, float] = {}
        self._silent: dict[str, float] = {}
        self._renewed: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def look(self, source: str, host: str) -> tuple[bool, float]:
        """Whether codes from this address have failed, and for how many seconds no request should be sent to this host.

        Where the items cannot be read, the address is not suspect and the host not silent.
        """
        now = clock.now().timestamp()
        is_suspect, silent_s = self._suspects.get(source, 0.0) > now, self._silent.get(host, 0.0) - now
        if is_suspect or silent_s > 0:
            return is_suspect, max(0.0, silent_s)
        try:
            found = self._table.get_many([host_key(host), *([key(source)] if source else [])])
        except service_clients.FAILURES as error:
            logger.warning("source_not_read", extra={"code": service_clients.error_code(error)})
            return False, 0.0
        item, silent = found.get(key(source)), found.get(host_key(host))
        if item and _is_suspect(item, now):
            is_suspect = True
            self._remember(self._suspects, source, REMEMBERED_S)
        if silent and (silent_s := int(silent["until"]) - now) > 0:
            self._remember(self._silent, host, silent_s)
        return is_suspect, max(0.0, silent_s)

    def unreachable(self, host: str) -> None:
        """Remember, in this process only, that no connection to a host could be made: another process notices that quickly."""
        self._remember(self._silent, host, SILENT_S)

    def silent(self, host: str) -> None:
        """Record that a host accepted a request and did not answer, for every process."""
        self._remember(self._silent, host, SILENT_S)
        until = int(clock.now().timestamp() + SILENT_S)
        pk, sk = host_key(host)
        try:
            self._table.put({"pk": pk, "sk": sk, "until": until, "expires_at": until})
        except service_clients.FAILURES as error:
            logger.warning("source_not_written", extra={"code": service_clients.error_code(error)})

    def failed(self, platform: str, source: str) -> None:
        """Count a failure. After many without a success, a known address is not known any more."""
        now = clock.now()
        try:
            item = self._table.update(
                *key(source),
                "SET failed_at = :now, expires_at = :expires_at ADD failures :one",
                values={
                    ":one": 1,
                    ":now": int(now.timestamp()),
                    ":expires_at": int((now + KNOWN_FOR).timestamp()),
                },
            )
            if not _is_suspect(item, now.timestamp()):
                return
            self._remember(self._suspects, source, REMEMBERED_S)
            if item.get("known_until"):
                self._table.update(*known_sources_key(platform), "REMOVE #source", names={"#source": source})
                self._table.update(*key(source), "REMOVE known_until")
                with self._lock:
                    self._renewed.pop((platform, source), None)
        except service_clients.FAILURES as error:
            logger.warning("source_not_written", extra={"code": service_clients.error_code(error)})

    def succeeded(self, platform: str, source: str) -> None:
        """Record an address as one that the platform calls from."""
        now = clock.now()
        until = int((now + KNOWN_FOR).timestamp())
        with self._lock:
            self._suspects.pop(source, None)
            is_renewed = self._renewed.get((platform, source), 0.0) > now.timestamp()
        try:
            self._table.update(
                *key(source),
                "SET failures = :none, known_until = :until, expires_at = :until",
                values={":none": 0, ":until": until},
            )
            if is_renewed:
                return
            item = self._table.update(
                *known_sources_key(platform),
                "SET #source = :until",
                names={"#source": source},
                values={":until": until},
            )
            self._drop_oldest(platform, item)
        except service_clients.FAILURES as error:
            logger.warning("source_not_written", extra={"code": service_clients.error_code(error)})
            return
        with self._lock:
            self._renewed[platform, source] = (now + RENEWED_EVERY).timestamp()

    def _drop_oldest(self, platform: str, item: Item) -> None:
        sources = sorted((int(until), source) for source, until in item.items() if source not in ("pk", "sk"))
        for _, source in sources[: max(0, len(sources) - MOST_KNOWN)]:
            self._table.update(*known_sources_key(platform), "REMOVE #source", names={"#source": source})

    def _remember(self, kept: dict[str, float], name: str, for_s: float) -> None:
        with self._lock:
            if len(kept) >= MAX_REMEMBERED:
                kept.clear()
            kept[name] = clock.now().timestamp() + for_s


def _is_suspect(item: Item, now: float) -> bool:
    if int(item.get("failed_at", 0)) + FORGOTTEN_AFTER.total_seconds() <= now:
        return False
    is_known = int(item.get("known_until", 0)) > now
    return int(item.get("failures", 0)) >= (KNOWN_SUSPECT_AT if is_known else SUSPECT_AT)
