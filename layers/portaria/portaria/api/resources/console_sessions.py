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
    """With `read_only` the session can change nothing. `scopes` limits it to these; without both it may do everything."""

    read_only: bool = False
    scopes: Scopes | None = None

    def audited(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class ConsoleLink(Output):
    """`url` is returned once: it opens the console in one browser, once, until `expires_at`. `scopes` is null for a session
    that may do everything."""

    url: str
    expires_at: Time
    scopes: list[str] | None


class ConsoleSessionOutput(Output):
    """`principal` is the AWS principal who asked for the link. A session ends at `ends_at`, or an hour after `last_used_at`.
    `source` and `browser` are the address and the user agent that opened the link."""

    id: str
    principal: str
    is_active: bool
    scopes: list[str] | None
    created_at: Time
    last_used_at: Time
    ends_at: Time
    source: str | None
    browser: str | None


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
