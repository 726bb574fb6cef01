"""The contract of sources and destinations of records. The rules of `protocols.py` hold here, too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from portaria.core.callbacks import Secret
from portaria.core.entities import Answer, Changes, Connection, DeliveryEvent, Page, Route, SignedBy, Target, Trace
from portaria.core.http.messages import Request, Response
from portaria.platforms.values import IngestionCall, IngestionRefusal, SmokeCall

# Sends one request at the connection's rate limit, with its allowed domain enforced. Raises `Retryable`.
Send = Callable[[Request], Response]

# ---------------------------------------------------------------------------------------------------------------- sources


class SourceObject(Protocol):
    """An object whose records a route can send, by events, pages or changes.

    `DEFAULT_MAPPING` maps Marketo's attribute names to JMESPath expressions over a record.
    """

    DEFAULT_MAPPING: dict[str, str]


class PagedObject(SourceObject, Protocol):
    """An object that can be listed page by page, for backfills."""

    def read_page(self, send: Send, account_host: str, access_token: Secret, page: int, after: str = "") -> Page:
        """Return one page, in an order that changes during the reading do not disturb.

        `page` is 1 for the first page, then the `next_page` of the previous one. `after` is the key of the last record that was
        read, empty for the first page. No record may be omitted, even if others are deleted during the reading: where that has
        moved records to an earlier page, a smaller number than `page` is the `next_page`.

        Raises `TokenRefused`, `PlatformRefused` where somebody must act at the platform before the account can be read, and
        `Retryable`, also for a 200 that is not the documented list.
        """


class ChangedObject(PagedObject, Protocol):
    """An object whose changes can be listed, for reconciliation."""

    def read_changes(self, send: Send, account_host: str, access_token: Secret, since: int, cursor: str) -> Changes:
        """Return a page of what changed since `since` (epoch seconds, inclusive), by ascending `updated_at`.

        `cursor` is empty for the first page, then the one that the previous page returned. A record may be returned twice; none
        may be omitted, even if records change during the reading. Raises as `read_page`.
        """


# ----------------------------------------------------------------------------------------------------------- destinations


class RouteRules(Protocol):
    """Which routes can lead to this platform.

    `ACCEPTED` maps a source object to the default target. `TARGETS` matches the targets that a route can name, and
    `TARGETS_RULE` says the same in words; the text before a `/` names the destination object. `OPTIONS` maps each of the
    platform's route options to its pattern and rule. `DEDUPE_ATTRIBUTES` and `DEFAULT_DEDUPE` are by target: the documented
    attributes that deduplicate, and those of a route that names none.
    """

    ACCEPTED: dict[str, str]
    TARGETS: re.Pattern[str]
    TARGETS_RULE: str
    OPTIONS: dict[str, tuple[re.Pattern[str], str]]
    DEDUPE_ATTRIBUTES: dict[str, tuple[str, ...]]
    DEFAULT_DEDUPE: dict[str, tuple[str, ...]]

    def default_mapping(self, mapping: dict[str, str], target: str) -> dict[str, str]:
        """Return a source's `DEFAULT_MAPPING` with this platform's attribute names; empty if there is no default."""

    def check_route(self, route: Route, attributes: set[str]) -> None:
        """Raise `Rejected` (`invalid_input`, with `field`) if a route with these attributes can never work."""


class RecordDestination(Protocol):
    """An object that records are sent to, many in one request.

    `RANK` orders objects: those that others link to have a lower rank and are sent first. `MAX_OBJECTS` and `MAX_BODY_BYTES`
    limit one request. `REQUESTS_PER_SECOND` is the rate limit of one connection, for all workers together (None: only the
    platform's responses limit it). `REQUESTS_IN_PROGRESS` is how many requests a worker may send before the response to the
    first one comes: more than 1 only if requests with different records do not affect each other. `NEEDS_STATIC_CREDENTIALS`
    says that `request` needs the stored credentials in addition to the access token.
    """

    RANK: int
    MAX_OBJECTS: int
    MAX_BODY_BYTES: int
    REQUESTS_PER_SECOND: float | None
    REQUESTS_IN_PROGRESS: int
    NEEDS_STATIC_CREDENTIALS: bool

    def check(self, attributes: dict[str, Any], target: Target) -> dict[str, Any]:
        """Return the attributes as they will be sent; checking the result again must change nothing.

        Raises `Rejected` that names the invalid attribute and quotes no value.
        """

    def identity(self, attributes: dict[str, Any], target: Target) -> str:
        """Return a text that is equal for two records of the same object, so that the newest record wins."""

    def frame(self, target: Target) -> tuple[bytes, bytes]:
        """Return the bytes of a request's body before and after the objects, which are JSON separated by commas."""

    def request(
        self, connection: Connection, credentials: dict[str, Secret], target: Target, body: bytes, trace: Trace
    ) -> Request:
        """Return the request that sends `body`. Its timeouts must end within 50 seconds."""

    def read_answer(self, response: Response) -> Answer:
        """Return what the response means for its records, by a table of codes. Raises nothing.

        `Disposition` documents each meaning. `code` is short and stable; `detail` is a sentence that quotes no record.
        """


class DailyQuota(Protocol):
    """Implement this if a platform limits the objects of a day, over all kinds of objects. `DAILY_QUOTA` is in objects."""

    DAILY_QUOTA: int

    def subscription(self, connection: Connection) -> str:
        """Return whose quota the connection uses: equal for connections that share one."""


class DeliveryReports(Protocol):
    """Reports about accepted requests, which the platform sends to `/receipts/<platform>`.

    `VALIDATION_DOMAIN` is the only domain that an unsigned call can cause a request to. `KEYS_DOMAIN` has the public keys.
    """

    VALIDATION_DOMAIN: str
    KEYS_DOMAIN: str

    def read_challenge(self, query: Mapping[str, list[str]]) -> str:
        """Return what the platform expects as the response to its challenge. Raises `Rejected` (`bad_challenge`)."""

    def read_content(self, body: bytes) -> Any:
        """Return the parsed body. Raises `Rejected` (413 `body_too_large`, 400 `bad_json`)."""

    def validation_request(self, content: Any) -> Request | None:
        """Return the request that validates a subscription, or None if the content is not about that. Raises `Rejected`."""

    def check_recipient(self, content: Any, headers: Mapping[str, str], client_id: str) -> None:
        """Raise `Rejected` (403 `wrong_recipient`) unless every event is for `client_id`."""

    def read_signatures(self, headers: Mapping[str, str]) -> list[SignedBy]:
        """Return the RSA-SHA256 signatures; one valid signature suffices. Raises `Rejected` (401 `bad_signature`)."""

    def read_events(self, content: Any) -> Iterable[DeliveryEvent]:
        """Yield one `DeliveryEvent` for each event, each about one account. Unreadable events have the kind `unknown`."""


class DataIngestionApi(Protocol):
    """The platform's own API, offered by Portaria to programs that were written for it.

    `ROOT` is the first segment of its paths and `RESOURCES` are the paths as template.yaml has them. `HEADERS` maps each header
    to its maximum number of characters.
    """

    ROOT: str
    RESOURCES: tuple[str, ...]
    TOKEN_HEADER: str
    CORRELATION_HEADER: str
    SOURCE_HEADER: str
    HEADERS: dict[str, int]

    def account_id(self, parameters: dict[str, str]) -> str:
        """Return the account that the path names. Raises `Rejected` (404)."""

    def parse(
        self, resource: str, parameters: dict[str, str], body: bytes, connection: str, now_s: int
    ) -> IngestionCall:
        """Return the call's records by target. Raises `Rejected` that names the invalid part and quotes nothing."""

    def refusal(self, reason: str, status: int, detail: str) -> IngestionRefusal:
        """Return an error response in the platform's format."""


class ApiDocument(Protocol):
    """The OpenAPI description of a `DataIngestionApi`. `NAME` is the first segment of its paths; `TAG` its title and text."""

    NAME: str
    TAG: tuple[str, str]

    def paths(self) -> dict[str, Any]:
        """Return OpenAPI path items by path."""

    def responses(self) -> dict[str, Any]:
        """Return the `components/responses` that the paths refer to."""

    def schemas(self) -> dict[str, Any]:
        """Return the `components/schemas` that the paths refer to."""

    def security_schemes(self) -> dict[str, Any]:
        """Return the `components/securitySchemes` that the paths refer to."""


class SmokeRecord(Protocol):
    """A call to the platform's `DataIngestionApi` for an account that does not exist. `KIND` is its connection's kind."""

    KIND: str

    def account_fields(self, mark: str) -> dict[str, str]:
        """Return the fields of an account that no platform has, derived from `mark`."""

    def call(self, fields: dict[str, str], name: str) -> SmokeCall:
        """Return a call with one record."""
