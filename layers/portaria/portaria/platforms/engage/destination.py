"""Rules for routes to Engage, which register another system's identifiers for users.

https://meajuda.engage.bz (API: autenticação e single sign-on, users/identifiers)
"""

from __future__ import annotations

import re

from portaria.core.entities import Route
from portaria.core.errors import Rejected

# The source's object → the default target.
ACCEPTED = {"contacts": "users"}
TARGETS = re.compile("users")
TARGETS_RULE = "users"

# Engage has no route options.
OPTIONS: dict[str, tuple[re.Pattern[str], str]] = {}

# Engage always finds a user by an identifier.
DEDUPE_ATTRIBUTES: dict[str, tuple[str, ...]] = {}
DEFAULT_DEDUPE: dict[str, tuple[str, ...]] = {}

# A user needs both and has no others.
ATTRIBUTES = ("user_login", "identifier")


def default_mapping(mapping: dict[str, str], target: str) -> dict[str, str]:
    """Engage has no default: only a person knows which field of the source holds a user's login at Engage."""
    return {}


def check_route(route: Route, attributes: set[str]) -> None:
    """Raises `Rejected` (`invalid_input`) for a route that cannot work with these attributes."""
    if route.dedupe_fields:
        raise Rejected(
            "invalid_input",
            "dedupe_fields cannot be set: Engage finds users by their identifier",
            field="dedupe_fields",
        )
    if attributes != set(ATTRIBUTES):
        raise Rejected("invalid_input", f"mapping: Engage needs exactly {' and '.join(ATTRIBUTES)}", field="mapping")
