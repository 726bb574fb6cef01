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
from portaria.web.console import action_conditions as conditions

BY_ID: Mapping[str, Operation] = {operation.id: operation for operation in OPERATIONS}
Content = dict[str, Any]


def _always(shown: Content) -> bool:
    return True


def _as_shown(shown: Content) -> Content:
    return shown


@dataclass(frozen=True)
class Action:
    """Something that can be done with one thing.

    The operation's input becomes a form, with `fields` or all of them, whose first values `values` makes of the thing. There is
    no form if `fixed` is the body, or `body` makes it of the thing. `is_dangerous` says that something stops working.
    `available` decides by the thing as the API returned it. `shows_answer` says that a person asked for what the API answers.
    `is_bulk` says that it is tried with `dry_run` first.
    """

    name: str
    operation: str
    fixed: Content | None = None
    is_dangerous: bool = False
    fields: tuple[str, ...] = ()
    available: Callable[[Content], bool] = _always
    values: Callable[[Content], Content] = _as_shown
    body: Callable[[Content], Content] | None = None
    shows_answer: bool = False
    is_bulk: bool = False

    @property
    def api(self) -> Operation:
        return BY_ID[self.operation]


@dataclass(frozen=True)
class Related:
    """A listing that stands on a thing's page. `parameters` makes the value of each filter of the thing; without one the
    listing is left out. `rows` is where the answer has its rows; without rows, a listing that `hides_empty` is left out.
    """

    name: str
    operation: str
    columns: tuple[str, ...]
    section: str = ""
    parameters: Mapping[str, Callable[[Content], str]] = field(default_factory=dict)
    rows: str = "items"
    hides_empty: bool = False


@dataclass(frozen=True)
class Section:
    """`id_fields` are the fields that name a thing in a URL, in the order of the path. Its page shows `facts`, under the value
    of `title`, or under its id.

    A section with a `parent` lists what belongs to one thing of the parent: its URL begins with that thing's id. `bulk` are
    actions on everything that matches a filter, which are tried with `dry_run` first.
    `has_counts` says that its list is counted, and `has_export` that it can be downloaded.
    """

    name: str
    list_operation: str
    columns: tuple[str, ...]
    show_operation: str = ""
    id_fields: tuple[str, ...] = ("name",)
    facts: tuple[str, ...] = ()
    create: str = ""
    actions: tuple[Action, ...] = ()
    related: tuple[Related, ...] = ()
    parent: str = ""
    title: str = ""
    bulk: tuple[Action, ...] = ()
    has_counts: bool = False
    has_export: bool = False

    @property
    def api(self) -> Operation:
        return BY_ID[self.list_operation]

    def place(self, shown: Content) -> str:
        """The path of a thing below the section, or an empty text if it has no id yet."""
        if any(shown.get(name) is None for name in self.id_fields):
            return ""
        return "/".join(quote(str(shown[name]), safe="") for name in self.id_fields)


def _name(shown: Content) -> str:
    return str(shown["name"])


LETTER_FILTERS = ("reason", "route", "connection", "before")
SECTIONS: tuple[Section, ...] = (
    Section(
        "installs",
        "list_installs",
        ("received_at", "state", "account_host", "client", "connection", "reason"),
        show_operation="show_install",
        id_fields=("id",),
        facts=(
            "state", "reason", "detail", "platform", "client", "account_host", "connection", "tags", "link", "return_url",
            "attempt_count", "received_at", "connected_at", "failed_at", "reconnect_url",
        ),
        actions=(Action("reconnect", "create_install_link", body=conditions.reconnection, available=conditions.has_failed),),
    ),
    Section(
        "connections",
        "list_connections",
        ("name", "state", "platform", "kind", "label", "age_days", "grant_ends_at"),
        show_operation="show_connection",
        facts=(
            "state", "reason", "refusal", "platform", "kind", "label", "client", "account_id", "allowed_domain", "scopes",
            "tags", "fields", "credentials_set", "generation", "created_at", "updated_at", "granted_at", "age_days",
            "token_ends_at", "grant_ends_at", "previous_until", "refused_since", "notes",
        ),
        actions=(
            Action("test", "test_connection", shows_answer=True),
            Action("call", "call_connection", fields=("method", "path", "query", "json"), shows_answer=True),
            Action("authorize", "create_authorization", available=lambda shown: bool(shown["kind"] == "oauth2")),
            Action(
                "reconnect", "create_install_link", body=lambda shown: {"connection": shown["name"]},
                available=conditions.can_be_reconnected,
            ),
            Action("renew", "renew_connection", available=conditions.can_be_renewed),
            Action("backfill", "start_backfill", available=conditions.has_changes, shows_answer=True),
            Action("reconcile", "start_reconciliations", available=conditions.has_changes, shows_answer=True),
            Action("event_address", "create_event_address", available=conditions.takes_address),
            Action("tags", "replace_tags"),
            Action("rotate", "rotate_connection", available=conditions.can_be_rotated),
            Action("replace_credentials", "replace_credentials"),
            Action("expire", "expire_rotation", is_dangerous=True, available=conditions.has_previous),
            Action("delete", "delete_connection", is_dangerous=True),
        ),
        create="create_connection",
        related=(
            Related(
                "routes_from", "list_routes", ("name", "object", "destination", "target", "priority"), "routes",
                {"source": lambda shown: f"connection:{shown['name']}"}, hides_empty=True,
            ),
            Related(
                "routes_to", "list_routes", ("name", "source", "object", "target", "priority"), "routes",
                {"destination": _name}, hides_empty=True,
            ),
            Related(
                "backfills", "list_backfills",
                ("route", "object", "state", "record_count", "page_count", "started_at", "finished_at"), rows="runs",
            ),
            Related("reconciliations", "list_backfills", ("object", "since", "due_at"), rows="reconciliations",
                    hides_empty=True),
            Related("receipts", "list_receipts", ("sent_at", "state", "object", "record_count", "code"), "receipts",
                    {"destination": _name}),
            Related("dead_letters", "list_dead_letters", ("set_aside_at", "reason", "route", "record_count"),
                    "dead-letters", {"connection": _name}),
            Related("audit", "list_audit", ("at", "by", "operation", "outcome"), "audit", {"target": _name}),
        ),
    ),
    Section(
        "install-links",
        "list_install_links",
        ("created_at", "purpose", "platform", "client", "connection", "account_id", "expires_at", "used_at"),
        show_operation="show_install_link",
        id_fields=("id",),
        facts=(
            "purpose", "platform", "client", "connection", "account_id", "tags", "return_url", "language", "single_use",
            "created_at", "expires_at", "used_at",
        ),
        create="create_install_link",
        actions=(Action("delete", "delete_install_link", is_dangerous=True),),
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
            Action("logo", "replace_oauth_client", fixed={}),
            Action("delete", "delete_oauth_client", is_dangerous=True),
        ),
    ),
    Section(
        "private-integrations",
        "list_private_integrations",
        ("name", "id", "scopes", "age_days", "last_used_at", "previous_until"),
        title="name",
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
            Action("cancel", "cancel_private_integration_rotation", is_dangerous=True, available=conditions.has_previous),
            Action("expire", "expire_private_integration_rotation", is_dangerous=True, available=conditions.has_previous),
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
            Action("preview", "preview_route"),
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
        actions=(
            Action(
                "redrive", "redrive_dead_letters", body=lambda shown: {"ids": [shown["id"]]},
                available=conditions.is_not_redriving, shows_answer=True,
            ),
            Action("delete", "delete_dead_letter", is_dangerous=True),
        ),
        has_counts=True,
        bulk=(
            Action("redrive_matching", "redrive_dead_letters", fields=LETTER_FILTERS),
            Action("delete_matching", "delete_dead_letters", fields=LETTER_FILTERS, is_dangerous=True),
        ),
    ),
    Section(
        "destinations",
        "list_destinations",
        ("name", "state", "reason", "host", "since", "next_try_at", "waiting_record_count", "oldest_since"),
        actions=(Action("resume", "resume_destination", shows_answer=True),),
    ),
    Section(
        "webhooks",
        "list_webhooks",
        ("url", "state", "events", "failing_since", "last_success_at"),
        title="url",
        show_operation="show_webhook",
        id_fields=("id",),
        facts=(
            "id", "url", "state", "events", "description", "disabled_reason", "disabled_at", "failing_since",
            "last_success_at", "created_at", "created_by", "updated_at", "rotated_at", "rotation_ends_at",
        ),
        create="create_webhook",
        actions=(
            Action("test", "test_webhook", available=conditions.is_enabled, shows_answer=True),
            Action("edit", "replace_webhook", values=lambda shown: {**shown, "enabled": conditions.is_enabled(shown)}),
            Action("rotate", "rotate_webhook_secret", fixed={"expire_now": False}),
            Action("rotate_now", "rotate_webhook_secret", fixed={"expire_now": True}, is_dangerous=True),
            Action(
                "redeliver", "redeliver_webhook_deliveries", fields=("since", "until", "state"),
                available=conditions.is_enabled, is_bulk=True,
            ),
            Action("delete", "delete_webhook", is_dangerous=True),
        ),
        related=(
            Related("deliveries", "list_webhook_deliveries", ("event_at", "event", "state", "attempt_count", "last_status"),
                    "webhook-deliveries"),
        ),
    ),
    Section(
        "webhook-deliveries",
        "list_webhook_deliveries",
        ("event_at", "event", "state", "attempt_count", "last_status", "next_attempt_at"),
        title="event",
        show_operation="show_webhook_delivery",
        id_fields=("webhook", "id"),
        parent="webhooks",
        facts=(
            "id", "event", "event_at", "state", "reason", "attempt_count", "last_status", "next_attempt_at", "ended_at",
            "attempts", "payload",
        ),
        actions=(Action("redeliver", "redeliver_webhook_delivery", shows_answer=True),),
    ),
    Section(
        "audit",
        "list_audit",
        ("at", "by", "operation", "target", "outcome", "reason"),
        id_fields=("id",),
        has_export=True,
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
