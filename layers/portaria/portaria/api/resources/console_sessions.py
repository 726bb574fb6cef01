"""Console sessions: the one-time link that opens the console in a browser, and the sessions that are open.

Only AWS principals create links. Nobody with a private integration's token may use these operations.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from portaria.access import console_sessions, scopes
from portaria.access.console_sessions import ConsoleSession
from portaria.api.authentication import PRINCIPAL
from portaria.api.operation import ApiRequest, Reply, page
from portaria.api.resources.private_integrations import MAX_SCOPES, check_scope
from portaria.api.schemas import Output, Time
from portaria.api.validation import Input, InvalidInput
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected

Scopes = Annotated[list[Annotated[str, AfterValidator(check_scope)]], Field(min_length=1, max_length=MAX_SCOPES)]


class ConsoleSessionCreation(Input):
    """What the session may do. Without `read_only` and `scopes` it may do everything."""

    read_only: bool = Field(default=False, description="Whether the session can change nothing.")
    scopes: Scopes | None = Field(default=None, description="The scopes that the session is limited to.")

    def audited(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class ConsoleLink(Output):
    """A link to the console. It opens once, in one browser."""

    url: str = Field(description="The link. It is returned once.")
    expires_at: Time = Field(description="When the link stops working.")
    scopes: list[str] | None = Field(description="What the session may do. Null if it may do everything.")


class ConsoleSessionOutput(Output):
    """A browser that is, or was, signed in to the console."""

    id: str = Field(description="The session's id. It does not open the session.")
    principal: str = Field(description="The ARN of the AWS principal who asked for the link.")
    is_active: bool = Field(description="Whether the session can be used.")
    scopes: list[str] | None = Field(description="What the session may do. Null if it may do everything.")
    created_at: Time = Field(description="When the link was opened.")
    last_used_at: Time = Field(description="When the session was last used, to the minute.")
    ends_at: Time = Field(description="When the session ends. It also ends after an hour without use.")
    source: str | None = Field(description="The IP address that opened the link.")
    browser: str | None = Field(description="The user agent that opened the link.")


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (403 `administrators_only`, 400 `invalid_input`)."""
    if asked.caller.kind != PRINCIPAL:
        detail = "a console session is created with AWS credentials: run `portaria console`"
        raise Rejected("administrators_only", detail, status=403)
    wanted: tuple[str, ...] | None = None
    if asked.sent.read_only and asked.sent.scopes:
        raise InvalidInput([("scopes", "cannot be combined with read_only")])
    if asked.sent.read_only:
        wanted = tuple(sorted(scopes.READING))
    elif asked.sent.scopes:
        wanted = tuple(dict.fromkeys(asked.sent.scopes))
    token, expires_at = console_sessions.create_link(asked.context.table, asked.caller.id, wanted)
    content = {"expires_at": clock.to_iso(expires_at), "scopes": None if wanted is None else list(wanted)}
    return Reply(content, once={"url": Secret(f"{asked.api_url}/console/sign-in?link={token.reveal()}")})


def list_page(asked: ApiRequest) -> Reply:
    """Newest first."""
    found, cursor = console_sessions.list_page(asked.context.table, asked.cursor, asked.limit)
    return page([show(session) for session in found], cursor)


def revoke(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_console_session`)."""
    console_sessions.revoke(asked.context.table, asked.path["id"])
    return Reply(None)


def show(session: ConsoleSession) -> dict[str, Any]:
    return {
        "id": session.id,
        "principal": session.principal,
        "is_active": not session.ended(clock.now()),
        "scopes": None if session.scopes is None else list(session.scopes),
        "created_at": session.created_at,
        "last_used_at": session.last_used_at,
        "ends_at": session.ends_at,
        "source": session.source,
        "browser": session.browser,
    }
