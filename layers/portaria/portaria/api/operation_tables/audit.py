"""The operations of the audit trail."""

from __future__ import annotations

from portaria.api.operation import Operation
from portaria.api.resources import audit

OPERATIONS = [
    Operation(
        "list_audit", "GET", "/audit", "audit:list", "List audit entries",
        audit.list_page, audit.AuditEntry, listing=True, filters=audit.FILTERS,
        description="Newest first: who requested which change.",
    ),
]  # fmt: skip
