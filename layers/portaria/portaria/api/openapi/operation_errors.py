"""Which errors each operation can answer with: the problem types by status. Tests hold every answer against this table."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api import listing_parameters
from portaria.api.operation import Operation

Reasons = dict[HTTPStatus, tuple[str, ...]]

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN = HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN
NOT_FOUND, CONFLICT, CHANGED = HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED
TOO_LARGE, UNPROCESSABLE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY
TOO_MANY, FAILED = HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INTERNAL_SERVER_ERROR
BAD_GATEWAY, UNAVAILABLE, TIMED_OUT = HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT

# API Gateway's own refusals, which template.yaml defines.
GATEWAY: Reasons = {
    BAD_REQUEST: ("bad_parameters", "refused"),
    UNAUTHORIZED: ("unauthorized",),
    FORBIDDEN: ("access_denied", "expired_credentials", "invalid_signature", "invalid_api_key", "filtered"),
    TOO_MANY: ("throttled",),
    FAILED: ("internal_error",),
    BAD_GATEWAY: ("internal_error",),
    TIMED_OUT: ("timed_out",),
}
# Of every operation.
COMMON: Reasons = {
    BAD_REQUEST: ("header_repeated", *GATEWAY[BAD_REQUEST]),
    UNAUTHORIZED: ("token_missing", "token_refused", "token_rotated", *GATEWAY[UNAUTHORIZED]),
    FORBIDDEN: ("missing_scope", *GATEWAY[FORBIDDEN]),
    TOO_MANY: ("too_many_attempts", *GATEWAY[TOO_MANY]),
    FAILED: GATEWAY[FAILED],
    BAD_GATEWAY: GATEWAY[BAD_GATEWAY],
    UNAVAILABLE: ("storage_unavailable", "storage_busy"),
    TIMED_OUT: GATEWAY[TIMED_OUT],
}
# The same wherever they occur: the document has one response for each.
SHARED: Reasons = COMMON | {
    CHANGED: ("changed_meanwhile",),
    TOO_LARGE: ("body_too_large",),
    UNPROCESSABLE: ("idempotency_key_reused",),
}

# What a connection that must be used can be, and what its platform can answer.
_UNUSABLE = ("not_authorised", "needs_reconnect", "connection_removed", "no_credentials", "token_expired")
_NOT_SENT = (
    "renewal_in_progress", "renewal_waits", "short_of_time", "token_late", "token_not_given", "no_answer", "rate_limited",
    "rate_blocked", "platform_error", "answer_unreadable", "vault_unavailable",
)  # fmt: skip
_CALLED: Reasons = {
    NOT_FOUND: ("unknown_connection",),
    CONFLICT: _UNUSABLE,
    BAD_GATEWAY: ("unreachable",),
    UNAVAILABLE: _NOT_SENT,
    TIMED_OUT: ("no_answer",),
}
_FREE_CALL: Reasons = {
    BAD_REQUEST: (
        "bad_url", "bad_header", "forbidden_header", "header_too_large", "too_many_headers", "host_not_allowed",
        "address_not_allowed", "url_needed", "body_not_allowed",
    ),
    BAD_GATEWAY: ("unreachable", "answer_too_large", "redirect_not_allowed", "too_many_redirects"),
    TOO_LARGE: ("body_too_large",),
}  # fmt: skip

_ROUTE: Reasons = {
    BAD_REQUEST: (
        "unknown_connection",
        "unknown_client",
        "not_a_destination",
        "object_not_offered",
        "object_not_accepted",
    ),
}
_OWN_INTEGRATION: Reasons = {FORBIDDEN: ("beyond_own_scopes",), NOT_FOUND: ("unknown_private_integration",)}
_UNKNOWN_CLIENT: Reasons = {NOT_FOUND: ("unknown_client",)}
_UNKNOWN_CONNECTION: Reasons = {NOT_FOUND: ("unknown_connection",)}
_UNKNOWN_ROUTE: Reasons = {NOT_FOUND: ("unknown_route",)}
_CLIENT_INPUT: Reasons = {BAD_REQUEST: ("masked_secret",), UNAVAILABLE: ("vault_unavailable",)}
_CREDENTIALS: Reasons = {
    BAD_REQUEST: ("masked_secret", "credentials_refused"),
    CONFLICT: ("connection_changed", "no_own_credentials"),
    UNAVAILABLE: ("platform_unreachable", "vault_unavailable"),
}
_UNKNOWN_WEBHOOK: Reasons = {NOT_FOUND: ("unknown_webhook",)}
_UNKNOWN_DELIVERY: Reasons = {NOT_FOUND: ("unknown_delivery",)}
_WEBHOOK_URL: Reasons = {BAD_REQUEST: ("bad_url", "address_not_allowed", "host_not_found")}
_QUEUED_WEBHOOK: Reasons = {CONFLICT: ("webhook_disabled",), UNAVAILABLE: ("queue_unavailable",)}
_LETTERS: Reasons = {BAD_REQUEST: ("bad_cursor",), NOT_FOUND: ("unknown_connection", "unknown_route")}


def together(*several: Reasons) -> Reasons:
    """The reasons of all, each once, in the order of their first occurrence."""
    statuses = dict.fromkeys(status for each in several for status in each)
    return {status: tuple(dict.fromkeys(r for each in several for r in each.get(status, ()))) for status in statuses}


# What an operation answers with beyond what its shape gives it.
SPECIFIC: dict[str, Reasons] = {
    "show_platform": {NOT_FOUND: ("unknown_platform",)},
    "show_caller": {NOT_FOUND: ("unknown_private_integration",)},
    "create_oauth_client": together(_CLIENT_INPUT, {BAD_REQUEST: ("unknown_platform",), CONFLICT: ("client_exists",)}),
    "show_oauth_client": _UNKNOWN_CLIENT,
    "replace_oauth_client": together(_UNKNOWN_CLIENT, _CLIENT_INPUT, {CONFLICT: ("client_fixed", "client_in_use")}),
    "delete_oauth_client": together(_UNKNOWN_CLIENT, {CONFLICT: ("client_in_use",), UNAVAILABLE: ("vault_unavailable",)}),
    "list_connections": {BAD_REQUEST: ("bad_filter", "bad_tags")},
    "list_installs": {BAD_REQUEST: ("bad_filter", "bad_tags")},
    "create_connection": {
        BAD_REQUEST: (
            "masked_secret", "credentials_refused", "bad_allowed_domain", "bad_header_name", "domain_not_registered",
            "made_by_install", "name_reserved", "unknown_client", "unknown_platform", "wrong_grant",
        ),
        CONFLICT: ("connection_exists", "api_domains_missing"),
        UNAVAILABLE: ("platform_unreachable", "vault_unavailable"),
    },
    "show_connection": _UNKNOWN_CONNECTION,
    "replace_credentials": together(_UNKNOWN_CONNECTION, _CREDENTIALS, {CONFLICT: ("connection_fixed",)}),
    "delete_connection": together(
        _UNKNOWN_CONNECTION,
        {CONFLICT: ("connection_in_use", "connection_changed"), UNAVAILABLE: ("queue_unavailable",)},
    ),
    "rotate_connection": together(
        _UNKNOWN_CONNECTION, _CREDENTIALS, {BAD_REQUEST: ("credentials_unchanged",), CONFLICT: ("not_rotatable",)}
    ),
    "expire_rotation": together(_UNKNOWN_CONNECTION, {CONFLICT: ("connection_changed",), UNAVAILABLE: ("vault_unavailable",)}),
    "create_authorization": together(
        _UNKNOWN_CONNECTION,
        {
            CONFLICT: (
                "not_authorisable", "connection_removed", "unknown_client", "api_domains_missing", "domain_not_registered",
            )
        },
    ),
    "call_connection": together(_CALLED, _FREE_CALL, {BAD_REQUEST: ("bad_call",)}),
    "test_connection": together(_CALLED, {CONFLICT: ("not_offered",)}),
    "renew_connection": together(_CALLED, {CONFLICT: ("not_offered", "renewal_refused")}),
    "create_event_address": together(
        _UNKNOWN_CONNECTION, {CONFLICT: ("not_offered", "subscribes_itself", "connection_changed")}
    ),
    "start_backfill": {
        NOT_FOUND: ("unknown_connection", "unknown_route"),
        CONFLICT: ("not_connected", "nothing_to_read"),
        UNAVAILABLE: ("queue_unavailable",),
    },
    "list_backfills": _UNKNOWN_CONNECTION,
    "start_reconciliations": {
        NOT_FOUND: ("unknown_connection",),
        CONFLICT: ("not_connected", "nothing_to_read"),
        UNAVAILABLE: ("queue_unavailable",),
    },
    "list_sample_records": together(_CALLED, {CONFLICT: ("not_offered", "platform_refused", "token_refused")}),
    "show_contact": together(
        _CALLED, {NOT_FOUND: ("unknown_contact",), CONFLICT: ("not_offered", "missing_scope", "wrong_location")}
    ),
    "upsert_contacts": together(_CALLED, {CONFLICT: ("not_offered", "missing_scope", "wrong_location")}),
    "register_identifiers": together(
        _CALLED,
        {CONFLICT: ("not_offered", "not_permitted", "unknown_customer"), UNAVAILABLE: ("no_verdict", "out_of_time")},
    ),
    "create_sso": together(
        _CALLED,
        {CONFLICT: ("not_offered", "user_refused", "sign_on_refused"), UNAVAILABLE: ("key_not_given",)},
    ),
    "preview_route": together(_UNKNOWN_ROUTE, _ROUTE),
    "create_route": together(_ROUTE, {CONFLICT: ("route_exists",)}),
    "show_route": _UNKNOWN_ROUTE,
    "replace_route": together(_UNKNOWN_ROUTE, _ROUTE),
    "delete_route": _UNKNOWN_ROUTE,
    "send_records": together(
        _UNKNOWN_ROUTE,
        {
            BAD_REQUEST: (
                "unknown_connection", "connection_needed", "other_source", "object_not_accepted", "bad_time",
                "record_too_large", "record_unreadable",
            ),
            UNAVAILABLE: ("queue_unavailable",),
        },
    ),
    "replace_tags": together(
        _UNKNOWN_CONNECTION, {BAD_REQUEST: ("bad_tags",), CONFLICT: ("connection_removed", "changed_meanwhile")}
    ),
    "create_install_link": {
        BAD_REQUEST: ("bad_tags", "bad_return_url", "return_url_not_registered", "unknown_client", "unknown_connection"),
        CONFLICT: (
            "not_authorisable", "connection_removed", "unknown_client", "api_domains_missing", "domain_not_registered",
        ),
    },
    "show_install_link": {NOT_FOUND: ("unknown_install_link",)},
    "delete_install_link": {NOT_FOUND: ("unknown_install_link",)},
    "show_install": {NOT_FOUND: ("unknown_install",)},
    "list_receipts": together(_UNKNOWN_CONNECTION, {BAD_REQUEST: ("unclear_filters",)}),
    "show_receipt": {NOT_FOUND: ("unknown_receipt",)},
    "resume_destination": together(_UNKNOWN_CONNECTION, {UNAVAILABLE: ("queue_unavailable",)}),
    "list_dead_letters": {NOT_FOUND: ("unknown_connection", "unknown_route")},
    "show_dead_letter": {NOT_FOUND: ("unknown_dead_letter",)},
    "redrive_dead_letters": _LETTERS,
    "delete_dead_letters": _LETTERS,
    "delete_dead_letter": {NOT_FOUND: ("unknown_dead_letter",), CONFLICT: ("in_progress",)},
    "revoke_console_session": {NOT_FOUND: ("unknown_console_session",)},
    "create_private_integration": {FORBIDDEN: ("beyond_own_scopes",)},
    "show_private_integration": {NOT_FOUND: ("unknown_private_integration",)},
    "edit_private_integration": _OWN_INTEGRATION,
    "delete_private_integration": _OWN_INTEGRATION,
    "rotate_private_integration": together(_OWN_INTEGRATION, {CONFLICT: ("rotation_under_way", "changed_meanwhile")}),
    "cancel_private_integration_rotation": together(_OWN_INTEGRATION, {CONFLICT: ("no_rotation", "changed_meanwhile")}),
    "expire_private_integration_rotation": together(_OWN_INTEGRATION, {CONFLICT: ("no_rotation", "changed_meanwhile")}),
    "create_webhook": together(_WEBHOOK_URL, {CONFLICT: ("too_many_webhooks",)}),
    "show_webhook": _UNKNOWN_WEBHOOK,
    "replace_webhook": together(_WEBHOOK_URL, _UNKNOWN_WEBHOOK),
    "delete_webhook": _UNKNOWN_WEBHOOK,
    "rotate_webhook_secret": together(_UNKNOWN_WEBHOOK, {CONFLICT: ("rotation_under_way", "changed_meanwhile")}),
    "test_webhook": together(_UNKNOWN_WEBHOOK, _QUEUED_WEBHOOK),
    "list_webhook_deliveries": _UNKNOWN_WEBHOOK,
    "show_webhook_delivery": together(_UNKNOWN_WEBHOOK, _UNKNOWN_DELIVERY),
    "redeliver_webhook_delivery": together(
        _UNKNOWN_WEBHOOK, _UNKNOWN_DELIVERY, _QUEUED_WEBHOOK, {CONFLICT: ("not_redeliverable",)}
    ),
    "redeliver_webhook_deliveries": together(_UNKNOWN_WEBHOOK, _QUEUED_WEBHOOK, {BAD_REQUEST: ("bad_cursor",)}),
}  # fmt: skip
# Of a proxied request, whose other responses are the API's own.
PROXIED = together(_CALLED, _FREE_CALL, {BAD_REQUEST: ("bad_body",), BAD_GATEWAY: ("body_withheld",)})


def reasons(operation: Operation) -> Reasons:
    """The problem types that an operation can answer with, by status."""
    specific = PROXIED if operation.read else SPECIFIC.get(operation.id, {})
    found = together(*_of_shape(operation), specific, COMMON)
    return dict(sorted(found.items()))


def _of_shape(operation: Operation) -> list[Reasons]:
    found: list[Reasons] = []
    if operation.listing:
        filters = tuple(map(listing_parameters.filter_reason, operation.filters))
        found.append({BAD_REQUEST: ("bad_limit", "bad_cursor", "unknown_parameter", "parameter_repeated", *filters)})
    if operation.input:
        found.append({BAD_REQUEST: ("invalid_input", "bad_json", "bad_body"), TOO_LARGE: ("body_too_large",)})
    if operation.parameters:
        found.append({NOT_FOUND: ("unknown_path",)})
    if operation.creates:
        found.append(
            {
                BAD_REQUEST: ("bad_idempotency_key", "header_empty"),
                CONFLICT: ("request_in_progress", "answer_not_kept"),
                UNPROCESSABLE: ("idempotency_key_reused",),
                UNAVAILABLE: ("outcome_unknown", *(("vault_unavailable",) if operation.is_secret else ())),
            }
        )
    if operation.edits:
        found.append(
            {
                BAD_REQUEST: ("bad_etag", "header_empty"),
                CONFLICT: ("changed_meanwhile",),
                CHANGED: ("changed_meanwhile",),
            }
        )
    if operation.changes:
        found.append({UNAVAILABLE: ("audit_unavailable",)})
    if operation.managers_only or operation.administrators_only:
        found.append({FORBIDDEN: ("administrators_only",)})
    return found
