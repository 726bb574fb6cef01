"""The operations of installs."""

from __future__ import annotations

from portaria.api.operation import Operation
from portaria.api.resources import installs

OPERATIONS = [
    Operation(
        "list_installs", "GET", "/installs", "installs:list", "List installs",
        installs.list_page, installs.InstallOutput, listing=True, filters=installs.FILTERS,
        description="Newest first. `tag.customer_id` cannot be combined with other filters.",
    ),
    Operation(
        "show_install", "GET", "/installs/{id}", "installs:show", "Get an install", installs.get, installs.InstallOutput,
        description="Installs are kept for 90 days.",
    ),
]  # fmt: skip
