"""Verify disconnect hooks without a read of Secrets Manager for each forged one.

Anyone may call the address, and a read of a client's secret costs money and counts towards Secrets Manager's quota. So the
query's form is checked first, then the OAuth client, then the client id. The signature is compared with a secret that this
process remembers: a wrong one causes another read only if the last is `RECHECK_S` old, because the secret may have been
replaced since.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from portaria import platforms
from portaria.aws.table import Table
from portaria.connections import oauth_clients
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import CLIENT_IN_PATH, OAuthClient, Secret
from portaria.core.entities import UninstallNotice
from portaria.core.errors import Rejected

# How long a client and its secret are used without reading them again.
REMEMBERED_S = 60.0
# After how long a wrong signature, a client that was not found or a missing secret is worth another read.
RECHECK_S = 10.0
MAX_REMEMBERED = 500

T = TypeVar("T")


@dataclass
class _Known(Generic[T]):
    """A value and when it was read (epoch seconds), or the refusal that reading it met."""

    value: T | Rejected
    read_at: float

    def age_s(self) -> float:
        return clock.now().timestamp() - self.read_at

    def get(self) -> T:
        if isinstance(self.value, Rejected):
            raise self.value
        return self.value


class HookVerifier:
    """One a process, because it remembers what it has read. Lambda gives a process one hook at a time."""

    def __init__(self, table: Table, vault: Vault) -> None:
        self._table = table
        self._vault = vault
        self._clients: dict[tuple[str, str], _Known[OAuthClient]] = {}
        self._secrets: dict[tuple[str, str], _Known[Secret]] = {}

    def verify(self, platform: str, client_name: str, query: dict[str, list[str]]) -> UninstallNotice:
        """Return the hook's content, if the client's secret signed it.

        Raises `Rejected` (400 for a malformed hook, 403 `bad_signature`, 404 `unknown_client`) and `Retryable`.
        """
        found = platforms.load(platform)
        uninstall = found.require(found.uninstall)
        notice = uninstall.parse_notice(query)
        if not CLIENT_IN_PATH.fullmatch(client_name):
            raise _unknown_client()
        client = self._client(platform, client_name).get()
        if not hmac.compare_digest(notice.client_id.encode(), client.client_id.encode()):
            raise Rejected("bad_signature", "the hook names another client than this address", status=403)
        secret = self._secret(platform, client_name, REMEMBERED_S)
        try:
            uninstall.verify(notice, client, secret.get())
        except Rejected as refused:
            fresh = self._secret(platform, client_name, RECHECK_S)
            if fresh is secret:
                raise refused from None
            uninstall.verify(notice, client, fresh.get())
        return notice

    def _client(self, platform: str, name: str) -> _Known[OAuthClient]:
        return _remember(
            self._clients, (platform, name), lambda: oauth_clients.get(self._table, platform, name), REMEMBERED_S
        )

    def _secret(self, platform: str, name: str, most_s: float) -> _Known[Secret]:
        return _remember(self._secrets, (platform, name), lambda: self._vault.client_secret(platform, name), most_s)


def _remember(
    known: dict[tuple[str, str], _Known[T]], key: tuple[str, str], read: Callable[[], T], most_s: float
) -> _Known[T]:
    """The known value, unless it is older than `most_s`; a refusal is kept for `RECHECK_S` at most."""
    found = known.get(key)
    if found and found.age_s() < (min(most_s, RECHECK_S) if isinstance(found.value, Rejected) else most_s):
        return found
    try:
        value: T | Rejected = read()
    except Rejected as refused:
        value = refused
    if len(known) >= MAX_REMEMBERED:
        known.clear()
    known[key] = _Known(value, clock.now().timestamp())
    return known[key]


def _unknown_client() -> Rejected:
    return Rejected("unknown_client", "no OAuth client of this name is registered", field="client", status=404)
