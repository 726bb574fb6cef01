"""The operations of discovery (platforms, scopes and the caller), and of the stack's overview and settings."""

from __future__ import annotations

from portaria.api.operation import Operation
from portaria.api.resources import discovery, overview, stack_settings

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
    Operation(
        "show_overview", "GET", "/overview", "overview:show", "Get the overview", overview.show, overview.OverviewOutput,
        description="Counts by state, grants that end soonest, paused destinations, quotas, ages of queues and alarms. It "
        "reads at most 50 read units of DynamoDB, however large the table is.",
    ),
    Operation(
        "show_settings", "GET", "/settings", "settings:show", "Get the settings",
        stack_settings.show, stack_settings.SettingsOutput,
        description="The stack's parameters, limits and pages at AWS, and the doctor's checks of what the table holds.",
    ),
]  # fmt: skip
