"""Messages of the queues of installs that wait for their exchange."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from portaria import platforms
from portaria.core import clock
from portaria.core.callbacks import Secret


@dataclass(frozen=True)
class Install:
    """A message of the Exchanges queue. Times are aware datetimes in UTC.

    `connection` names the connection that the grant is for; empty where the account behind the grant decides it.
    `code_verifier` is PKCE's, where the consent page was asked for one. `address_hash` is `arrival_sources.hash_address`.
    """

    id: str
    platform: str
    client: str
    code: Secret
    account_host: str
    source: str
    received_at: datetime
    connection: str = ""
    code_verifier: Secret | None = None
    address_hash: str = ""

    def code_ends_at(self) -> datetime:
        """When the platform stops accepting the code."""
        platform = platforms.load(self.platform)
        return self.received_at + platform.require(platform.token_endpoint).CODE_LIFE


def read_message(body: str) -> Install:
    """Raises `ValueError`, `KeyError` or `TypeError` for a body that is no such message."""
    fields = json.loads(body)
    return Install(
        id=fields["install_id"],
        platform=fields["platform"],
        client=fields["client"],
        code=Secret(fields["code"]),
        account_host=fields["account_host"],
        source=fields["source"],
        received_at=clock.from_iso(fields["received_at"]),
        connection=fields.get("connection", ""),
        code_verifier=Secret(fields["code_verifier"]) if "code_verifier" in fields else None,
        address_hash=fields.get("address_hash", ""),
    )
