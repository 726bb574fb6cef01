"""Messages of the queues of installs that wait for their exchange."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime

from portaria import platforms
from portaria.aws.table import Item
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.tags import Tags, decode


@dataclass(frozen=True)
class Install:
    """A message of the Exchanges queue. Times are aware datetimes in UTC.

    `connection` names the connection that the grant is for; empty where the account behind the grant decides it.
    `account_id` is the only account that the grant may be for, empty for any. `code_verifier` is PKCE's, where the consent
    page was asked for one. `address_hash` is `arrival_sources.hash_address`. The last four come from the install link: its
    id, what the connection is tagged with, where the customer returns to, and the language of the pages.
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
    account_id: str = ""
    link: str = ""
    tags: Tags = field(default_factory=dict)
    return_url: str = ""
    language: str = ""

    def from_link(self) -> Item:
        """What the install's item holds of its link: the values that are not empty."""
        values = {"link": self.link, "tags": self.tags, "return_url": self.return_url, "language": self.language}
        return {name: value for name, value in values.items() if value}

    def code_ends_at(self) -> datetime:
        """When the platform stops accepting the code."""
        platform = platforms.load(self.platform)
        return self.received_at + platform.require(platform.token_endpoint).CODE_LIFE


@dataclass(frozen=True)
class ClaimNotice:
    """A message of the same queue: tags wait for an account's connection (see `claims`)."""

    platform: str
    client: str
    account_id: str


def read_claim(body: str) -> ClaimNotice | None:
    """None for a message about an install. Raises `ValueError`, `KeyError` or `TypeError` for a body that is no message."""
    fields = json.loads(body)
    claim = fields.get("claim") if isinstance(fields, dict) else None
    return ClaimNotice(str(claim["platform"]), str(claim["client"]), str(claim["account_id"])) if claim else None


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
        account_id=fields.get("account_id", ""),
        link=fields.get("link", ""),
        tags=decode(fields.get("tags", "")),
        return_url=fields.get("return_url", ""),
        language=fields.get("language", ""),
    )
