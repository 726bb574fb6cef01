"""The values that the packages exchange.

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
from portaria.core.http.messages import Request

# Credentials that a person entered do not expire. Their owner is reminded to rotate them at these ages.
ROTATION_WARNINGS_AT = (timedelta(days=80), timedelta(days=90))

# Longer scopes are cut. A connection's item is written with each renewal, and DynamoDB bills a write for each kilobyte; some
# providers have scopes of a thousand characters.
MAX_SCOPES_LENGTH = 4_096


def kept_scopes(text: str) -> str:
    """Granted scopes as they are stored: whole, or cut at the end of a scope with the number of scopes that are missing."""
    if len(text) <= MAX_SCOPES_LENGTH:
        return text
    scopes = re.findall(r"[^ ,]+", text)
    found = list(re.finditer(r"[ ,]+", text[: MAX_SCOPES_LENGTH + 1]))
    kept = text[: found[-1].start()] if found else ""
    more = len(scopes) - len(re.findall(r"[^ ,]+", kept))
    return f"{kept} (and {more:,} more)".lstrip()


@dataclass(frozen=True)
class Grant:
    """The tokens that a token endpoint returned. Times are aware datetimes in UTC; `refresh_token` is None if none was
    returned.

    `scopes` are as `kept_scopes` returns them. The caller that requested the grant adds `given_at`, the time of the request,
    and `client_id`, the id of the OAuth client that received it.
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
    """The account of a grant, as the platform's API returns it. `host` is the host name of the account's API."""

    id: str
    name: str
    host: str


@dataclass(frozen=True)
class Connection:
    """Stored credentials for one account of one platform; the credentials themselves are in the vault under `secret_id`.

    `name` is the key (3–64 of A–Z a–z 0–9 _ -) and never changes, nor do `platform`, `kind` and `allowed_domain`. `generation`
    grows each time the credentials change, and `version_id` is the secret's version that holds them; while a rotation's overlap
    lasts (`previous_until`), `previous_version_id` holds the old ones. `fields` holds the values of fields that the platform
    defines (`munchkin_id`). `kind` is `api_key`, `basic`, `bearer`, `oauth2` (authorization code), `client_credentials` or
    `password`. `state` is `pending` (not authorized yet), `connected`, `needs_reconnect` (`reason` says why) or `removed`.
    Times are ISO 8601; `token_ends_at` is the access token's, `granted_at` the grant's. `refused_since` is the time of the
    first refusal in the current run of refused renewals, and `refusal` what the last one says; both are empty if renewals are
    not refused.
    `tags` say which customer the connection belongs to (see `core.tags`), and `tagged_at` is when they were given. It grows
    with each change of the tags, so it is also the fence of that change.
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
    tags: dict[str, str] = field(default_factory=dict)
    tagged_at: str = ""


@dataclass(frozen=True)
class UninstallNotice:
    """A disconnect hook: an account has uninstalled the integration. `signature` is lower-case hex, not verified yet."""

    account_id: str
    client_id: str
    signature: str


@dataclass(frozen=True)
class Kind:
    """What is needed to create a connection of one kind.

    `fields` are stored in plain text; each must match its pattern. `optional` has the defaults of the fields that can be left
    out. `credentials` are stored in the vault. `allowed_domain` derives the domain from the fields; if it is None, the caller
    provides the domain.
    """

    credentials: tuple[str, ...]
    fields: dict[str, re.Pattern[str]] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)
    allowed_domain: Callable[[dict[str, str]], str] | None = None


@dataclass(frozen=True)
class Route:
    """source + object → destination + mapping. `source` is `connection:{name}` or `client:{platform}/{client}`.

    A client as source stands for every account that installs it, now or later. `mapping` gives each
    destination attribute a JMESPath expression over the source's record; empty means the default of the two platforms.
    `target` is the destination's object (`persons`, `customobjects/car_c`); empty means the destination's default for the
    source's object. `dedupe_fields` are one or two destination attributes; `priority` is `normal` or `high`; `options` are
    defined by the destination's platform (`partition`, `overwrite_tags`).

    `keep_newest` says which versions of a record are stored so that an older one never overwrites a newer one: those of
    `events` (and reconciliations; backfills compare with them but store none), of `all`, or of `none`. `weight` is the source's
    share of the destination's daily quota, relative to other sources.
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
    """The id and the source that a caller gave a request, for tracing. Either can be empty."""

    correlation_id: str = ""
    request_source: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """The values that are not empty, as a message contains them."""
        fields = {"correlation_id": self.correlation_id, "request_source": self.request_source}
        return {name: value for name, value in fields.items() if value}


NO_TRACE = Trace()


@dataclass(frozen=True)
class Target:
    """What records must have in common to be sent in one request.

    `object` is the destination's object, with its name if the platform has several of that type (`customobjects/car_c`).
    `options` are sorted pairs that the destination's platform defines: `field1` and `field2` (dedupe attributes), `partition`,
    and so on.
    """

    destination: str
    object: str
    priority: str = "normal"
    options: tuple[tuple[str, str], ...] = ()

    @property
    def object_type(self) -> str:
        """The part of `object` before the slash, which selects the platform's destination module (`customobjects`)."""
        return self.object.partition("/")[0]

    @property
    def object_name(self) -> str:
        return self.object.partition("/")[2]

    @cached_property
    def dedupe_fields(self) -> tuple[str, ...]:
        return tuple(value for name, value in self.options if name in ("field1", "field2"))

    def option(self, name: str) -> str:
        """An option's value; empty if the target does not have it."""
        return dict(self.options).get(name, "")


@dataclass(frozen=True)
class Page:
    """One page of a platform's listing. `next_page` is None on the last."""

    records: list[Record]
    next_page: int | None


@dataclass(frozen=True)
class Changes:
    """One page of the records that changed in an account, by ascending `updated_at`.

    `cursor` is where the next page begins, in the format of the platform's module that read this page; None on the last.
    """

    records: list[Record]
    cursor: str | None


class Disposition(Enum):
    """What the pipeline does after a destination's response to a batch of records.

    `ACCEPTED`: the destination queued the records; their outcome may be reported later. `APPLIED`: the records are stored
    there. `TOKEN_AGAIN`: send again with a new token. `BACK_OFF`: the rate limit was exceeded; send again after a pause.
    `QUOTA`: the daily quota is used up; send again after its reset. `BAD_DATA`: a record is invalid. `STOP`: the destination
    refuses all such records until a person corrects something. `RETRY`: send again later, a bounded number of times.
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
    """What a destination's response means. `code` is the destination's own, `detail` a sentence that quotes no record.

    `after_s` is the wait in seconds that the response asks for. `pause_s` is the wait that the destination's limits require
    before the next request, also after a success. Each is None if there is none.
    """

    meaning: Disposition
    code: str = ""
    request_id: str = ""
    after_s: float | None = None
    pause_s: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Reported:
    """A destination's report about one request: the number of applied records, and of failed ones by code."""

    applied: int
    failed: dict[str, int]


@dataclass(frozen=True)
class DeliveryEvent:
    """One event of a destination. An event of the `kind` `results` reports the outcome of `requests`, by the destination's ids.

    `account_id` is the account that the event is about, and `at` the event's time (ISO 8601, UTC); both are empty if the event
    does not have them. `unreadable` counts requests that could not be read; `quota_left` is in records.
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
    """A signature, and the request that fetches the key to verify it with."""

    signature: bytes = field(repr=False)
    key: Request
