"""What the parts of Portaria say to one another: values, the two errors, and what a platform must offer.

Everything here is plain data. Platforms build a `Request` and read a `Response`; only `egress` carries them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from portaria.intake import Arrival, OAuthClient, Refusal, Rejected, Retryable, Secret

__all__ = [
    "Account",
    "Answer",
    "Arrival",
    "Connection",
    "Grant",
    "Meaning",
    "OAuthClient",
    "Page",
    "Record",
    "Refusal",
    "Rejected",
    "Request",
    "Response",
    "Retryable",
    "Route",
    "Secret",
]


@dataclass(frozen=True)
class Grant:
    """What a token endpoint gave. Times are aware datetimes in UTC; `refresh_token` is None where there is none."""

    access_token: Secret
    expires_at: datetime
    refresh_token: Secret | None = None
    token_type: str = "bearer"  # noqa: S105 - a kind of token, not a token
    scopes: str = ""


@dataclass(frozen=True)
class Account:
    """The account behind a grant, as the platform's API tells it. `host` is where its API answers."""

    id: str
    name: str
    host: str


@dataclass(frozen=True)
class Connection:
    """Stored credentials for one account of one platform; the credentials themselves are in the vault under `secret_id`.

    `name` is the key (3–64 of A–Z a–z 0–9 _ -) and never changes, nor do `platform`, `kind` and `allowed_domain`.
    `generation` grows each time the tokens change. `fields` holds what only this platform knows (`munchkin_id`).
    `state` is `connected`, `needs_reconnect` or `removed`.
    """

    name: str
    platform: str
    kind: str
    allowed_domain: str
    state: str
    generation: int
    secret_id: str
    label: str = ""
    client: str = ""
    account_id: str = ""
    scopes: str = ""
    created_at: str = ""
    updated_at: str = ""
    granted_at: str = ""
    notes: tuple[str, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """source + object → destination + mapping. `source` is `connection:{name}` or `client:{platform}/{client}`.

    A client as source stands for every account that installs it, also the ones still to come. `mapping` gives each
    destination attribute a JMESPath expression over the source's record; empty means the platform's default.
    `dedupe_fields` are one or two destination attributes; `priority` is `normal` or `high`.
    """

    name: str
    source: str
    object: str
    destination: str
    mapping: dict[str, str] = field(default_factory=dict)
    dedupe_fields: tuple[str, ...] = ("email",)
    priority: str = "normal"
    partition: str = ""


@dataclass(frozen=True)
class Record:
    """One source object on its way: `key` identifies it within its source, `updated_at` (epoch seconds) orders versions."""

    key: str
    updated_at: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Page:
    """One page of a platform's listing. `next_page` is None on the last."""

    records: list[Record]
    next_page: int | None


@dataclass(frozen=True)
class Request:
    """An outgoing call that a platform built. Headers and body may hold credentials, so neither is ever printed.

    `connect_timeout_s` and `read_timeout_s` are seconds; `max_response_bytes` bounds what is read of the answer.
    """

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 10.0
    max_response_bytes: int = 10_000_000


@dataclass(frozen=True)
class Response:
    """An answer. Header names are lower case. The body may hold credentials and is not printed."""

    status: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


class Meaning(Enum):
    """What a destination's answer to a batch of records asks for."""

    ACCEPTED = "accepted"
    TOKEN_AGAIN = "token_again"  # noqa: S105
    BACK_OFF = "back_off"
    QUOTA = "quota"
    BAD_DATA = "bad_data"
    STOP = "stop"
    RETRY = "retry"


@dataclass(frozen=True)
class Answer:
    """A destination's answer, read. `code` is the destination's own, `after_s` the wait in seconds that it asked for."""

    meaning: Meaning
    code: str = ""
    request_id: str = ""
    after_s: float | None = None
