"""What the rules for one resource look up about others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection


class Known(Protocol):
    """The rules use only this, so they hold in the API and in a program that checks a file against the API."""

    def client(self, platform: str, name: str) -> OAuthClient:
        """Raises `Rejected` (`unknown_client`)."""

    def connection(self, name: str) -> Connection:
        """Raises `Rejected` (`unknown_connection`)."""

    def connections_of(self, platform: str, client: str) -> Iterable[Connection]:
        """The connections that an OAuth client's credentials serve, without the removed ones."""
