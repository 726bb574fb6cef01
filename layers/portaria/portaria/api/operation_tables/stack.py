"""The operations of the stack: its overview and its settings."""

from __future__ import annotations

from portaria.api.operation import Operation
from portaria.api.resources import overview, stack_settings

OPERATIONS = [
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
