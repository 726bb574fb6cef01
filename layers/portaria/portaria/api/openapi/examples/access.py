"""Examples of discovery, private integrations, the audit trail and what platforms offer for people."""

from __future__ import annotations

from typing import Any

Example = dict[str, Any]

CONSOLE_SESSION = "5f0f5c6e2b6a4a8e9f3e0a1b2c3d4e5f60718293"

_INTEGRATION: Example = {
    "id": "4fZ0aQ9xTb",
    "name": "ERP export",
    "description": "Sends orders every night.",
    "scopes": ["connections:call@erp", "records:send"],
    "created_at": "2026-11-02T12:30:00.000Z",
    "created_by": "arn:aws:iam::123456789012:user/maria",
    "updated_at": "2026-11-02T12:30:00.000Z",
    "token_made_at": "2026-11-02T12:30:00.000Z",
    "age_days": 26,
    "last_used_at": "2026-11-28T18:00:00.000Z",
    "previous_until": None,
    "previous_last_used_at": None,
}
_OPTION: Example = {
    "name": "action",
    "pattern": "createOnly|updateOnly|createOrUpdate",
    "rule": "createOnly, updateOnly or createOrUpdate",
}
_KIND_FIELD: Example = {
    "name": "munchkin_id",
    "pattern": "[0-9]{3}-[A-Z]{3}-[0-9]{3}",
    "is_required": True,
    "default": None,
}
_KIND: Example = {
    "name": "client_credentials",
    "fields": [_KIND_FIELD],
    "credentials": ["client_id", "client_secret"],
    "needs_allowed_domain": False,
    "needs_client": False,
    "needs_consent": False,
}
_DESTINATION: Example = {
    "accepted": {"contacts": "persons", "companies": "companies"},
    "target_pattern": "persons|companies|customobjects/[A-Za-z][A-Za-z0-9_]{0,99}",
    "target_rule": "persons, companies or customobjects/ and the API name of a custom object",
    "dedupe_fields": {"persons": ["id", "email"], "companies": ["externalCompanyId", "id"]},
    "default_dedupe_fields": {"persons": ["email"], "companies": ["externalCompanyId"]},
    "options": [_OPTION],
}
_UNFINISHED: Example = {"reason": "not_sent", "detail": "there was no time left for this one: send it again"}

OBJECTS: dict[str, Example] = {
    "KindField": _KIND_FIELD,
    "ConnectionKind": _KIND,
    "DestinationOption": _OPTION,
    "DestinationOffer": _DESTINATION,
    "Platform": {
        "name": "marketo",
        "is_installable": False,
        "is_testable": True,
        "kinds": [_KIND],
        "api_domains": [],
        "sources": [],
        "destination": _DESTINATION,
    },
    "Scope": {"name": "connections:call", "description": "Send a request through a connection", "is_narrowable": True},
    "Caller": {
        "id": "4fZ0aQ9xTb",
        "kind": "private_integration",
        "name": "ERP export",
        "scopes": ["connections:call@erp", "records:send"],
        "ConsoleSessionCreation.scopes": ["connections:list", "connections:show"],
        "ConsoleSession.scopes": ["connections:list", "connections:show"],
        "previous_token_until": None,
        "last_used_at": "2026-11-28T18:00:00.000Z",
    },
    "PrivateIntegration": _INTEGRATION,
    "PrivateIntegrationWithToken": _INTEGRATION | {"token": "portaria_4fZ0aQ9xTb-EXAMPLE"},
    "PrivateIntegrationCreation": {
        "name": "ERP export",
        "description": "Sends orders every night.",
        "scopes": ["connections:call@erp", "records:send"],
    },
    "PrivateIntegrationEdit": {"scopes": ["connections:call@erp", "receipts:list", "records:send"]},
    "PrivateIntegrationRotation": {"expire_now": False},
    "AuditEntry": {
        "id": "17643528000005f2c9a7b1d3e",
        "at": "2026-11-28T18:00:00.000Z",
        "by": "arn:aws:iam::123456789012:user/maria",
        "by_name": None,
        "source": "198.51.100.7",
        "operation": "create_connection",
        "target": "erp",
        "asked": {"fields": ["allowed_domain", "credentials", "fields", "kind", "name", "platform"]},
        "request_id": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
        "outcome": "done",
        "reason": None,
    },
    "ConsoleSessionCreation": {"read_only": True},
    "ConsoleLink": {
        "url": "https://a1b2c3d4e5.execute-api.sa-east-1.amazonaws.com/live/console/sign-in?link=EXAMPLE-link",
        "expires_at": "2026-11-28T18:02:00.000Z",
        "scopes": ["connections:list", "connections:show"],
    },
    "ConsoleSession": {
        "id": CONSOLE_SESSION,
        "principal": "arn:aws:iam::123456789012:user/maria",
        "is_active": True,
        "scopes": None,
        "created_at": "2026-11-28T18:00:00.000Z",
        "last_used_at": "2026-11-28T18:20:00.000Z",
        "ends_at": "2026-11-29T02:00:00.000Z",
        "source": "192.0.2.1",
        "browser": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    },
    "ContactUpsert": {"contacts": [{"firstName": "Maria", "email": "maria@example.com"}], "overwrite_tags": False},
    "Contact": {
        "id": "ocQHyuzHvysMo5N5VsXc",
        "fields": {"id": "ocQHyuzHvysMo5N5VsXc", "firstName": "Maria", "email": "maria@example.com"},
    },
    "ContactOutcome": {"outcome": "created", "id": "ocQHyuzHvysMo5N5VsXc", "reason": None, "detail": None},
    "UpsertedContacts": {
        "contacts": [{"outcome": "created", "id": "ocQHyuzHvysMo5N5VsXc", "reason": None, "detail": None}],
        "retry_after_s": None,
    },
    "IdentifiedUser": {"user_login": "maria@example.com", "identifier": "crm-1042"},
    "IdentifierRegistration": {"users": [{"user_login": "maria@example.com", "identifier": "crm-1042"}]},
    "UserOutcome": {
        "user_login": "maria@example.com",
        "identifier": "crm-1042",
        "outcome": "registered",
        "reason": None,
        "detail": None,
    },
    "RegisteredIdentifiers": {
        "users": [
            {
                "user_login": "maria@example.com",
                "identifier": "crm-1042",
                "outcome": "registered",
                "reason": None,
                "detail": None,
            }
        ],
        "retry_after_s": None,
    },
    "SignOnRequest": {"user_identifier": "crm-1042", "deliver": "link", "front_end": "default"},
    "Addresses": {
        "default": "https://engage.example.com/sso?key=EXAMPLE",
        "customer": "https://customer.engage.example.com/sso?key=EXAMPLE",
    },
    "SignOnLink": {
        "link": "https://a1b2c3d4e5.execute-api.sa-east-1.amazonaws.com/live/sso/EXAMPLE-ticket",
        "expires_at": "2026-11-28T18:02:00.000Z",
        "addresses": None,
    },
}

PROPERTIES: dict[str, Any] = {
    "KindField.default": "no",
    "Platform.api_domains": ["*.kommo.com"],
    "Platform.sources": ["contacts", "companies"],
    "previous_token_until": "2026-12-05T18:00:00.000Z",
    "PrivateIntegration.previous_until": "2026-12-05T18:00:00.000Z",
    "previous_last_used_at": "2026-11-28T17:00:00.000Z",
    "PrivateIntegrationEdit.name": "ERP export",
    "PrivateIntegrationEdit.description": "Sends orders every night.",
    "AuditEntry.by_name": "ERP export",
    "AuditEntry.reason": "changed_meanwhile",
    "retry_after_s": 10,
    "ContactOutcome.reason": _UNFINISHED["reason"],
    "ContactOutcome.detail": _UNFINISHED["detail"],
    "UserOutcome.reason": _UNFINISHED["reason"],
    "UserOutcome.detail": _UNFINISHED["detail"],
    "SignOnLink.addresses": {
        "default": "https://engage.example.com/sso?key=EXAMPLE",
        "customer": "https://customer.engage.example.com/sso?key=EXAMPLE",
    },
}
