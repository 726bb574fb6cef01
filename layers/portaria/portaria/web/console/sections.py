"""The console's sections: what each lists, shows and can do, as a table over the API's operations.

A section, a column or an action that is not in this table does not exist; everything that is done goes through the operation
that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from portaria.api.operation import Operation
from portaria.api.operations import OPERATIONS

BY_ID: Mapping[str, Operation] = {operation.id: operation for operation in OPERATIONS}
Content = dict[str, Any]


def _always(shown: Content) -> bool:
    return True


@dataclass(frozen=True)
class Action:
    """Something that can be done with one thing. `fixed` is the body that is sent; without it the operation's input becomes a
    form. `is_dangerous` says that something stops working. `available` decides by the thing as the API returned it."""

    name: str
    operation: str
    fixed: Content | None = None
    is_dangerous: bool = False
    fields: tuple[str, ...] = ()
    available: Callable[[Content], bool] = _always

    @property
    def api(self) -> Operation:
        return BY_ID[self.operation]


@dataclass(frozen=True)
class Related:
    """A listing that stands on a thing's page. `parameters` gives each filter the field whose value it takes; `path` says that
    the operation's path takes the thing's own id."""

    name: str
    operation: str
    columns: tuple[str, ...]
    section: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """`id_fields` are the fields that name a thing in a URL, in the order of the path. Its page shows `facts`."""

    name: str
    list_operation: str
    columns: tuple[str, ...]
    show_operation: str = ""
    id_fields: tuple[str, ...] = ("name",)
    facts: tuple[str, ...] = ()
    create: str = ""
    create_fields: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    related: tuple[Related, ...] = ()

    @property
    def api(self) -> Operation:
        return BY_ID[self.list_operation]

    def place(self, shown: Content) -> str:
        """The path of a thing below the section."""
        return "/".join(quote(str(shown[name]), safe="") for name in self.id_fields)


def _can_be_rotated(connection: Content) -> bool:
    return bool(connection["kind"] == "bearer" and connection["state"] == "connected")


def _has_previous(shown: Content) -> bool:
    return bool(shown.get("previous_until"))


SECTIONS: tuple[Section, ...] = (
    Section(
        "installs",
        "list_installs",
        ("received_at", "state", "account_host", "client", "connection", "reason"),
        show_operation="show_install",
        id_fields=("id",),
        facts=(
            "state", "reason", "detail", "platform", "client", "account_host", "connection", "attempt_count", "received_at",
            "connected_at", "failed_at", "reconnect_url",
        ),
    ),
    Section(
        "connections",
        "list_connections",
        ("name", "state", "platform", "kind", "label", "granted_at", "token_ends_at"),
        show_operation="show_connection",
        facts=(
            "state", "reason", "refusal", "platform", "kind", "label", "client", "account_id", "allowed_domain", "scopes",
            "fields", "credentials_set", "generation", "created_at", "updated_at", "granted_at", "token_ends_at",
            "previous_until", "refused_since", "age_days", "notes",
        ),
        actions=(
            Action("test", "test_connection"),
            Action("call", "call_connection", fields=("method", "path", "query", "json")),
            Action("authorize", "create_authorization", available=lambda shown: bool(shown["kind"] == "oauth2")),
            Action("backfill", "start_backfill", available=lambda shown: bool(shown["state"] == "connected")),
            Action("event_address", "create_event_address"),
            Action("rotate", "rotate_connection", available=_can_be_rotated),
            Action("replace_credentials", "replace_credentials"),
            Action("expire", "expire_rotation", is_dangerous=True, available=_has_previous),
            Action("delete", "delete_connection", is_dangerous=True),
        ),
        related=(
            Related(
                "backfills", "list_backfills",
                ("route", "object", "state", "record_count", "page_count", "started_at", "finished_at"),
            ),
            Related("receipts", "list_receipts", ("sent_at", "state", "object", "record_count", "code"), "receipts",
                    {"destination": "name"}),
            Related("dead_letters", "list_dead_letters", ("set_aside_at", "reason", "route", "record_count"),
                    "dead-letters", {"connection": "name"}),
        ),
    ),
    Section(
        "oauth-clients",
        "list_oauth_clients",
        ("platform", "name", "client_id", "grant", "redirect_uri"),
        show_operation="show_oauth_client",
        id_fields=("platform", "name"),
        facts=(
            "platform", "name", "client_id", "credentials_set", "redirect_uri", "install_page_url", "scopes", "api_domains",
            "grant", "authorize_url", "token_url", "token_auth", "return_urls", "display_name", "logo_url", "colour",
            "support_email", "support_url", "privacy_url", "terms_url", "warnings",
        ),
        create="create_oauth_client",
        actions=(
            Action("edit", "replace_oauth_client"),
            Action("delete", "delete_oauth_client", is_dangerous=True),
        ),
    ),
    Section(
        "private-integrations",
        "list_private_integrations",
        ("name", "id", "scopes", "age_days", "last_used_at", "previous_until"),
        show_operation="show_private_integration",
        id_fields=("id",),
        facts=(
            "name", "description", "scopes", "created_at", "created_by", "updated_at", "token_made_at", "age_days",
            "last_used_at", "previous_until", "previous_last_used_at",
        ),
        create="create_private_integration",
        actions=(
            Action("edit", "edit_private_integration"),
            Action("rotate", "rotate_private_integration", fixed={"expire_now": False}),
            Action("rotate_now", "rotate_private_integration", fixed={"expire_now": True}, is_dangerous=True),
            Action("cancel", "cancel_private_integration_rotation", is_dangerous=True, available=_has_previous),
            Action("expire", "expire_private_integration_rotation", is_dangerous=True, available=_has_previous),
            Action("delete", "delete_private_integration", is_dangerous=True),
        ),
    ),
    Section(
        "routes",
        "list_routes",
        ("name", "source", "object", "destination", "target", "priority"),
        show_operation="show_route",
        facts=(
            "source", "object", "destination", "target", "mapping", "dedupe_fields", "priority", "options", "keep_newest",
            "weight",
        ),
        create="create_route",
        actions=(
            Action("edit", "replace_route"),
            Action("delete", "delete_route", is_dangerous=True),
        ),
    ),
    Section(
        "receipts",
        "list_receipts",
        ("sent_at", "state", "destination", "object", "record_count", "applied_count", "code"),
        show_operation="show_receipt",
        id_fields=("id",),
        facts=(
            "state", "destination", "object", "routes", "record_count", "byte_count", "sent_at", "accepted_at", "deadline",
            "request_id", "correlation_id", "request_source", "code", "applied_count", "failure_counts", "reported_at",
        ),
    ),
    Section(
        "dead-letters",
        "list_dead_letters",
        ("set_aside_at", "reason", "route", "destination", "record_count", "state", "redrive_count"),
        show_operation="show_dead_letter",
        id_fields=("id",),
        facts=(
            "state", "reason", "detail", "source", "connection", "route", "object", "origin", "destination", "record_count",
            "request", "set_aside_at", "redrive_count", "redriven_at", "content",
        ),
        actions=(Action("delete", "delete_dead_letter", is_dangerous=True),),
    ),
    Section(
        "destinations",
        "list_destinations",
        ("name", "state", "reason", "since", "next_try_at", "waiting_record_count", "oldest_since"),
        actions=(Action("resume", "resume_destination"),),
    ),
    Section(
        "audit",
        "list_audit",
        ("at", "by", "operation", "target", "outcome", "reason"),
        id_fields=("id",),
    ),
    Section(
        "sessions",
        "list_console_sessions",
        ("created_at", "principal", "is_active", "last_used_at", "ends_at", "source", "browser"),
        id_fields=("id",),
        actions=(
            Action("revoke", "revoke_console_session", is_dangerous=True, available=lambda shown: bool(shown["is_active"])),
        ),
    ),
)  # fmt: skip
BY_NAME = {section.name: section for section in SECTIONS}
