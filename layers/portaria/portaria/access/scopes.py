"""Scopes: what a private integration may be allowed to do, one scope an operation, and one for the front door.

A scope of an operation on one connection may be narrowed to a connection by its name: `connections:call@crm`.
"""

from __future__ import annotations

import re

# Each scope with what it lets a program do.
SCOPES = {
    "clients:list": "List OAuth clients",
    "clients:show": "Show an OAuth client",
    "clients:create": "Register an OAuth client",
    "clients:replace": "Replace an OAuth client",
    "clients:delete": "Delete an OAuth client",
    "connections:list": "List connections",
    "connections:show": "Show a connection",
    "connections:create": "Create a connection",
    "connections:replace": "Replace a connection's credentials",
    "connections:delete": "Delete a connection",
    "connections:rotate": "Hand in a platform's new token",
    "connections:expire": "End the old token of a rotation",
    "connections:authorize": "Make the link in which a person gives their consent",
    "connections:call": "Call the API behind a connection",
    "connections:backfill": "Have all of a connection's records read",
    "connections:backfills": "See how far a connection's backfills and reconciliations are",
    "connections:events": "Make the address that a connection's events come to",
    "contacts:show": "Read a contact through a connection",
    "contacts:upsert": "Create or update contacts through a connection",
    "identifiers:register": "Register users' identifiers through a connection",
    "sso:create": "Sign a user on through a connection",
    "records:send": "Send records to a connection by its platform's own API, as this project offers it",
    "routes:list": "List routes",
    "routes:show": "Show a route",
    "routes:create": "Create a route",
    "routes:replace": "Replace a route",
    "routes:delete": "Delete a route",
    "installs:list": "List installs",
    "installs:show": "Show an install",
    "receipts:list": "List receipts by connection, request or record",
    "receipts:show": "Show a receipt",
    "dead-letters:list": "List dead letters with their reasons",
    "dead-letters:show": "Show a dead letter with its records",
    "dead-letters:redrive": "Send dead letters again",
    "dead-letters:delete": "Delete a dead letter and its records",
    "private-integrations:list": "List private integrations",
    "private-integrations:show": "Show a private integration",
    "private-integrations:create": "Create a private integration with no more than its own scopes",
    "private-integrations:edit": "Edit one with no more than its own scopes",
    "private-integrations:delete": "Delete one with no more than its own scopes",
    "private-integrations:rotate": "Rotate the token of one with no more than its own scopes",
    "private-integrations:cancel": "Cancel such a rotation",
    "private-integrations:expire": "End the old token of such a rotation",
    "audit:list": "Read the audit trail",
}
NARROWABLE = frozenset(
    {
        *(
            f"connections:{what}"
            for what in (
                "show", "replace", "delete", "rotate", "expire", "authorize", "call", "events", "backfill", "backfills",
            )
        ),
        *("contacts:show", "contacts:upsert", "identifiers:register", "sso:create", "records:send"),
    }
)  # fmt: skip
_CONNECTION = re.compile(r"[A-Za-z0-9_-]{3,64}")


def check(text: str) -> str:
    """Raises `ValueError` with the rule in words."""
    name, at, connection = text.partition("@")
    if name not in SCOPES:
        raise ValueError("is not a scope that there is; the API's document lists them")
    if at and name not in NARROWABLE:
        raise ValueError(f"{name} cannot be narrowed to a connection")
    if at and not _CONNECTION.fullmatch(connection):
        raise ValueError("narrows a scope to what cannot be a connection's name: 3 to 64 of A-Z a-z 0-9 _ -")
    return text
