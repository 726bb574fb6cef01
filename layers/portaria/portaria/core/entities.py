"""The values that the packages exchange, and what a platform must offer.

Everything here is plain data. Platforms build a `Request` and read a `Response`; only `http_client` sends them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from functools import cached_property

from portaria.core.callbacks import Record, Secret
from portaria.core.http_messages import Request

# A credential that a person typed in does not expire: its owner is reminded to rotate it at these ages.
ROTATION_WARNINGS_AT = (timedelta(days=80), timedelta(days=90))

# Scopes are kept whole up to here. Some providers take a thousand characters, and a connection's item is written with each
# renewal: DynamoDB bills a write for each kilobyte.
MAX_SCOPES_LENGTH = 4_096


def kept_scopes(text: str) -> str:
    """Granted scopes as they are stored: whole, or cut where one ends, and then the text says how many more there are."""
    if len(text) <= MAX_SCOPES_LENGTH:
        return text
    scopes = re.findall(r"[^ ,]+", text)
    found = list(re.finditer(r"[ ,]+", text[: MAX_SCOPES_LENGTH + 1]))
    kept = text[: found[-1].start()] if found else ""
    more = len(scopes) - len(re.findall(r"[^ ,]+", kept))
    return f"{kept} (and {more:,} more)".lstrip()


@dataclass(frozen=True)
class Grant:
    """What a token endpoint gave. Times are aware datetimes in UTC; `refresh_token` is None where there is none.

    `scopes` are as `kept_scopes` leaves them. Whoever asked for it adds `given_at`, the time of asking, and `client_id`, the
    OAuth client's id that it was given to.
    """

    access_token: Secret
    expires_at: datetime
    refresh_token: Secret | None = None
    token_type: str = "bearer"  # noqa: S105 - a kind of token, not a token
    scopes: str = ""
    given_at: datetime | None = None
    client_id: str = ""


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
    `generation` grows each time the credentials change, and `version_id` is the secret's version that holds them; while a
    rotation's overlap lasts (`previous_until`), `previous_version_id` holds the old ones. `fields` holds what only this
    platform knows (`munchkin_id`). `kind` is `api_key`, `basic`, `bearer`, `oauth2` (authorization code),
    `client_credentials` or `password`. `state` is `pending` (nobody has authorised it yet), `connected`, `needs_reconnect`
    (`reason` says why) or `removed`. Times are ISO 8601; `token_ends_at` is the access token's, `granted_at` the grant's.
    `refused_since` is when the platform began to refuse renewals, and `refusal` the last one's advice; empty where it does not.
    """

    name: str
    platform: str
    kind: str
    allowed_domain: str
    state: str
    generation: int
    secret_id: str
    version_id: str = ""
    label: str = ""
    client: str = ""
    account_id: str = ""
    scopes: str = ""
    created_at: str = ""
    updated_at: str = ""
    granted_at: str = ""
    token_ends_at: str = ""
    reason: str = ""
    previous_version_id: str = ""
    previous_until: str = ""
    refused_since: str = ""
    refusal: str = ""
    notes: tuple[str, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UninstallNotice:
    """What a disconnect hook says: an account has left. `signature` is in lower-case hex and still to be verified."""

    account_id: str
    client_id: str
    signature: str


@dataclass(frozen=True)
class Kind:
    """What a connection of one kind is made of, for whoever creates one.

    `fields` are stored in the clear, each with the pattern that it must match; `optional` gives those that may be left out
    their defaults. `credentials` go to the vault. `allowed_domain` makes the domain from the fields; None: it is given.
    """

    credentials: tuple[str, ...]
    fields: dict[str, re.Pattern[str]] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)
    allowed_domain: Callable[[dict[str, str]], str] | None = None


@dataclass(frozen=True)
class Route:
    """source + object → destination + mapping. `source` is `connection:{name}` or `client:{platform}/{client}`.

    A client as source stands for every account that installs it, also the ones still to come. `mapping` gives each
    destination attribute a JMESPath expression over the source's record; empty means the default of the two platforms.
    `target` is the destination's object (`persons`, `customobjects/car_c`); empty means what the destination makes of the
    source's object. `dedupe_fields` are one or two destination attributes; `priority` is `normal` or `high`; `options` are what
    only the destination's platform knows (`partition`, `overwrite_tags`).

    `keep_newest` says whose versions are remembered per record, so that an older one never overwrites a newer one: those of
    `events` (and reconciliations; backfills only heed them), of `all`, or of `none`. `weight` is the source's share, next
    to others', of what a destination takes in a day.
    """

    name: str
    source: str
    object: str
    destination: str
    mapping: dict[str, str] = field(default_factory=dict)
    dedupe_fields: tuple[str, ...] = ("email",)
    priority: str = "normal"
    target: str = ""
    options: dict[str, str] = field(default_factory=dict)
    keep_newest: str = "events"
    weight: int = 1


@dataclass(frozen=True)
class Trace:
    """What names a request: an id and where it comes from. Of a front door's caller either may be empty."""

    correlation_id: str = ""
    request_source: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """As it stands in a message: the values that are not empty."""
        fields = {"correlation_id": self.correlation_id, "request_source": self.request_source}
        return {name: value for name, value in fields.items() if value}


NO_TRACE = Trace()


@dataclass(frozen=True)
class Target:
    """What records must share to travel in one request.

    `object` is the destination's, with its name where it has several of a kind (`customobjects/car_c`). `options` are pairs
    that the destination's part understands, in order: `field1` and `field2` (dedupe attributes), `partition`, and so on.
    """

    destination: str
    object: str
    priority: str = "normal"
    options: tuple[tuple[str, str], ...] = ()

    @property
    def part(self) -> str:
        """The name of the platform's destination object."""
        return self.object.partition("/")[0]

    @property
    def object_name(self) -> str:
        return self.object.partition("/")[2]

    @cached_property
    def dedupe_fields(self) -> tuple[str, ...]:
        return tuple(value for name, value in self.options if name in ("field1", "field2"))

    def option(self, name: str) -> str:
        """Its value, or an empty text."""
        return dict(self.options).get(name, "")


@dataclass(frozen=True)
class Page:
    """One page of a platform's listing. `next_page` is None on the last."""

    records: list[Record]
    next_page: int | None


@dataclass(frozen=True)
class Changes:
    """What changed in a platform's account, a page of it, by ascending `updated_at`.

    `cursor` is where the next page begins, in the words of the part that read this one; None on the last.
    """

    records: list[Record]
    cursor: str | None


class Disposition(Enum):
    """What a destination's answer to a batch of records asks for; `pipeline` does it.

    `ACCEPTED`: taken, and what becomes of it is told later, if at all. `APPLIED`: done. `TOKEN_AGAIN`: with a new token.
    `BACK_OFF`: the rate; after a pause. `QUOTA`: the day's is used up; after its reset. `BAD_DATA`: a record is to blame.
    `STOP`: nothing of this kind is taken until somebody acts. `RETRY`: later, for a bounded number of times.
    """

    ACCEPTED = "accepted"
    APPLIED = "applied"
    TOKEN_AGAIN = "token_again"  # noqa: S105
    BACK_OFF = "back_off"
    QUOTA = "quota"
    BAD_DATA = "bad_data"
    STOP = "stop"
    RETRY = "retry"


@dataclass(frozen=True)
class Answer:
    """A destination's answer, read. `code` is the destination's own, `detail` a sentence that quotes no record.

    `after_s` is the wait in seconds that it asked for, `pause_s` the one that its limits ask for before the next request,
    also after a success; None where there is none.
    """

    meaning: Disposition
    code: str = ""
    request_id: str = ""
    after_s: float | None = None
    pause_s: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Reported:
    """What a destination says of one request: how many records it has applied, and how many failed with each code."""

    applied: int
    failed: dict[str, int]


@dataclass(frozen=True)
class DeliveryEvent:
    """What one event of a destination says. `kind` is `results` where it tells what became of `requests`, by their ids there.

    `account_id` is the account that it is about and `at` the event's time (ISO 8601, UTC), both empty where not told;
    `unreadable` counts requests that could not be read, `quota_left` is in records.
    """

    kind: str
    event_id: str = ""
    account_id: str = ""
    at: str = ""
    requests: dict[str, Reported] = field(default_factory=dict)
    unreadable: int = 0
    quota_left: int | None = None


@dataclass(frozen=True)
class SignedBy:
    """A signature, and the request that fetches the key which it was made with."""

    signature: bytes = field(repr=False)
    key: Request
