"""The operations of discovery: platforms, scopes and the caller."""

from __future__ import annotations

from portaria.api.operation import Operation
from portaria.api.resources import discovery

OPERATIONS = [
    Operation(
        "list_platforms", "GET", "/platforms", "", "List platforms", discovery.list_platforms, discovery.PlatformOutput,
        listing=True, description="What a form for connections and routes needs: kinds, fields, credentials, targets, options.",
    ),
    Operation(
        "show_platform", "GET", "/platforms/{platform}", "", "Get a platform",
        discovery.get_platform, discovery.PlatformOutput,
        description="What a form for its connections and routes needs.",
    ),
    Operation(
        "list_scopes", "GET", "/scopes", "", "List scopes", discovery.list_scopes, discovery.ScopeOutput, listing=True,
        description="Every scope that a private integration can have, on one page.",
    ),
    Operation(
        "show_caller", "GET", "/me", "", "Get the caller", discovery.show_caller, discovery.CallerOutput,
        description="Who the request's token or signature belongs to, and what it may do.",
    ),
]  # fmt: skip
