"""What Engage takes from a route: which of its users somebody is in another system.

https://meajuda.engage.bz (API: autenticação e single sign-on, users/identifiers)
"""

from __future__ import annotations

import re

from portaria.core.entities import Rejected, Route

# The source's object, and what it becomes here where the route does not say.
ACCEPTED = {"contacts": "users"}
# What a route may name as its target.
TARGETS = re.compile("users")
TARGETS_RULE = "users"

# What only Engage knows about a route, each with its rule.
OPTIONS: dict[str, tuple[re.Pattern[str], str]] = {}

# An identifier is what Engage finds a user by, always.
DEDUPE_ATTRIBUTES: dict[str, tuple[str, ...]] = {}
DEFAULT_DEDUPE: dict[str, tuple[str, ...]] = {}

# A user needs both, and has nothing else.
ATTRIBUTES = ("user_login", "identifier")


def default_mapping(mapping: dict[str, str], target: str) -> dict[str, str]:
    """None: which of a source's fields holds somebody's login at Engage only a person knows."""
    return {}


def check_route(route: Route, attributes: set[str]) -> None:
    """Raises `Rejected` (`invalid_input`) for a route that makes these attributes and could never do what it says."""
    if route.dedupe_fields:
        raise Rejected(
            "invalid_input",
            "dedupe_fields: Engage finds users by their identifier: leave them out",
            field="dedupe_fields",
        )
    if attributes != set(ATTRIBUTES):
        raise Rejected(
            "invalid_input", f"mapping: Engage takes {' and '.join(ATTRIBUTES)}, both and nothing else", field="mapping"
        )
