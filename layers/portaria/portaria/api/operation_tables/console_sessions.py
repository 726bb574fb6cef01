"""The operations of console sessions."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import Operation
from portaria.api.resources import console_sessions

CREATED, NO_CONTENT = HTTPStatus.CREATED, HTTPStatus.NO_CONTENT

OPERATIONS = [
    Operation(
        "create_console_session", "POST", "/console-sessions", "console-sessions:create", "Create a link to the console",
        console_sessions.create, console_sessions.ConsoleLink, input=console_sessions.ConsoleSessionCreation, status=CREATED,
        creates=True, is_secret=True, changes=True, administrators_only=True,
        description="For AWS principals. The link opens the console in one browser, once, within two minutes.",
    ),
    Operation(
        "list_console_sessions", "GET", "/console-sessions", "console-sessions:list", "List console sessions",
        console_sessions.list_page, console_sessions.ConsoleSessionOutput, listing=True, administrators_only=True,
        description="Newest first. Sessions that have ended are listed for a day.",
    ),
    Operation(
        "revoke_console_session", "DELETE", "/console-sessions/{id}", "console-sessions:revoke", "Revoke a console session",
        console_sessions.revoke, None, status=NO_CONTENT, changes=True, administrators_only=True,
        description="Its browser is signed out with its next request.",
    ),
]  # fmt: skip
