"""What an operation of the API is: its row in the table, what it is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from pydantic import BaseModel

from portaria.api import validation
from portaria.api.authentication import Caller
from portaria.api.version import Deprecation
from portaria.aws.stack_status import StackStatus
from portaria.aws.table import Table
from portaria.connections.vault import SealedTable, Vault
from portaria.core.callbacks import Secret
from portaria.core.errors import ChangedMeanwhile, Rejected
from portaria.core.http.request import HttpRequest
from portaria.core.settings import API_ENDPOINT, ConsoleSettings, ManageSettings

if TYPE_CHECKING:
    from portaria.connections.tokens.provider import TokenProvider

Content = dict[str, Any]
# What a listing may be filtered by: the values that a filter may have, or a pattern.
Filters = Mapping[str, tuple[str, ...] | validation.Matching]

ADMINISTRATORS, TOKENS = "administrators", "tokens"


class SentRequest(Protocol):
    """A request whose body is not a JSON object."""

    def changes(self) -> bool:
        """Whether it may change something."""

    def audited(self) -> dict[str, Any]:
        """What the audit trail may hold."""

    def fingerprint(self) -> str:
        """What a repetition with the same idempotency key must have in common with it."""


class PassedResponse(TypedDict):
    """Another API's response. `withheld` says why its body cannot be returned."""

    status: int
    headers: dict[str, str]
    body_base64: str
    withheld: str


@dataclass(frozen=True, eq=False)
class ApiContext:
    """What the operations of one function work with. `managers` says who may manage private integrations."""

    table: Table
    vault: Vault
    token_provider: TokenProvider | None = None
    sealing_key_id: str = ""
    uninstalls_queue_url: str = ""
    backfills_queue_url: str = ""
    records_queue_url: str = ""
    waiting_records_queue_url: str = ""
    webhook_deliveries_queue_url: str = ""
    managers: str = ADMINISTRATORS
    stack_status: StackStatus = field(default_factory=StackStatus)
    event_endpoints: str = API_ENDPOINT

    @classmethod
    def from_settings(cls, settings: ManageSettings | ConsoleSettings) -> ApiContext:
        """The context of the function `manage`, and of the console, which carries out the same operations."""
        table = Table(settings.table_name)
        sealed_table = SealedTable(table, settings.sealing_key_id)
        return cls(
            table,
            Vault(settings.secrets_prefix, sealed_table, new_in=settings.credential_store),
            sealing_key_id=settings.sealing_key_id,
            uninstalls_queue_url=settings.uninstalls_queue_url,
            records_queue_url=settings.records_queue_url,
            backfills_queue_url=settings.backfills_queue_url,
            waiting_records_queue_url=settings.waiting_records_queue_url,
            webhook_deliveries_queue_url=settings.webhook_deliveries_queue_url,
            managers=settings.private_integration_managers,
            stack_status=StackStatus(settings.stack_name, settings.queue_names),
            event_endpoints=settings.event_endpoints,
        )

    @property
    def tokens(self) -> TokenProvider:
        """Raises `RuntimeError` in a function that has no use for tokens."""
        if self.token_provider is None:
            raise RuntimeError("this function has no token provider")
        return self.token_provider


@dataclass(frozen=True, eq=False)
class ApiRequest:
    """One call, read and allowed. `sent` is the body as the operation's `input` model, `key` its Idempotency-Key if any,
    `if_match` the ETag that an edit insists on, without its quotes (`*` for any), `api_url` where the API was reached."""

    context: ApiContext
    caller: Caller
    path: dict[str, str]
    sent: Any
    limit: int
    cursor: str | None
    filters: dict[str, str]
    key: str
    if_match: str
    api_url: str


@dataclass(frozen=True)
class Reply:
    """`once` is content that is told this one time and stored nowhere; `target` names what a creation made."""

    content: Content | None
    etag: str = ""
    once: dict[str, Secret] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True, eq=False)
class Operation:
    """One row of the API. `path` is below `/v1` and `/admin/v1`; a connection's `{name}` at its beginning narrows the scope.
    An empty `scope` lets every caller in. With `checks_scope`, `run` compares a narrowed scope with the connection that the
    input leads to, and raises `MissingScope`.

    `managers_only` refuses private integrations unless the stack lets them manage others, `administrators_only` always.

    `function` is the one that serves it. `creates` takes an Idempotency-Key: it creates or sends something. Then `is_secret`
    stores its answer sealed, and `at_most_once` never does it again after it was stopped. `edits` takes an If-Match,
    `listing` a limit and a cursor and the `filters`. `read` reads what was sent where it is not a JSON object; then the
    reply's content is a `PassedResponse`. `changes` has an audit entry, unless its input has a `changes()` that
    denies it. `deprecation` is set on an operation that will be removed. `openapi.operation_errors` has the errors that it can
    answer with.
    """

    id: str
    method: str
    path: str
    scope: str
    summary: str
    run: Callable[[ApiRequest], Reply]
    output: type[BaseModel] | None
    function: str = "manage"
    description: str = ""
    input: type[validation.Input] | None = None
    read: Callable[[HttpRequest], SentRequest] | None = None
    status: HTTPStatus = HTTPStatus.OK
    creates: bool = False
    is_secret: bool = False
    at_most_once: bool = False
    edits: bool = False
    changes: bool = False
    listing: bool = False
    filters: Filters = field(default_factory=dict)
    checks_scope: bool = False
    managers_only: bool = False
    administrators_only: bool = False
    max_bytes: int = validation.MAX_BODY_BYTES
    deprecation: Deprecation | None = None

    @property
    def narrowable(self) -> bool:
        """Whether its scope can be given for one connection."""
        return self.checks_scope or self.path.startswith(("/connections/{name}", "/destinations/{name}"))

    @property
    def document_path(self) -> str:
        """The path as OpenAPI writes it, which has no greedy parameters."""
        return self.path.replace("+}", "}")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The path's parameters, without a greedy one (`{path+}`)."""
        return tuple(step[1:-1] for step in self.path.split("/") if step.startswith("{") and not step.endswith("+}"))

    @property
    def is_greedy(self) -> bool:
        """Whether the path's last parameter (`{path+}`) takes the rest of the path."""
        return self.path.endswith("+}")


def require_match(asked: ApiRequest, etag: str) -> None:
    """Raises `Rejected` (412 `changed_meanwhile`) where an edit insists on another state than the one that was found."""
    if asked.if_match not in ("", "*", etag):
        raise ChangedMeanwhile("it has changed since this ETag was read: read it again", status=412)


def changed_meanwhile(asked: ApiRequest) -> Rejected:
    """Somebody else changed it while this edit was being made."""
    status = HTTPStatus.PRECONDITION_FAILED if asked.if_match else HTTPStatus.CONFLICT
    return ChangedMeanwhile("it has just been changed or deleted: read it again", status=status)


def page(shown: list[Content], next_cursor: str | None) -> Reply:
    return Reply({"items": shown, "next_cursor": next_cursor})
