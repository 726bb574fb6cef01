"""What LeadConnector takes from a route.

https://marketplace.gohighlevel.com/docs/ghl/contacts/upsert-contact
"""

from __future__ import annotations

import re

from portaria.core.entities import Rejected, Route
from portaria.platforms.leadconnector import contacts

# The source's object, and what it becomes here where the route does not say.
ACCEPTED = {"contacts": "persons"}
# What a route may name as its target.
TARGETS = re.compile("persons")
TARGETS_RULE = "persons"

# What only LeadConnector knows about a route, each with its rule.
OPTIONS = {"overwrite_tags": (re.compile("yes|no"), "yes or no")}

# A location's own setting says whether a contact is found by its e-mail address or its phone number first.
DEDUPE_ATTRIBUTES: dict[str, tuple[str, ...]] = {}
DEFAULT_DEDUPE: dict[str, tuple[str, ...]] = {}

# What a mapping may make: a list of objects, as custom fields are, it cannot.
ATTRIBUTES = tuple(name for name in contacts.FIELDS if name != "customFields")
FOUND_BY = ("email", "phone")
# What the default mappings of sources call otherwise.
RENAMED = {"company": "companyName"}


def default_mapping(mapping: dict[str, str], target: str) -> dict[str, str]:
    """What of a source's attributes a contact has, or nothing where that leaves none to find it by."""
    renamed = {RENAMED.get(attribute, attribute): expression for attribute, expression in mapping.items()}
    kept = {attribute: expression for attribute, expression in renamed.items() if attribute in ATTRIBUTES}
    return kept if any(field in kept for field in FOUND_BY) else {}


def overwrites_tags(option: str) -> bool:
    return option == "yes"


def check_route(route: Route, attributes: set[str]) -> None:
    """Raises `Rejected` (`invalid_input`) for a route that makes these attributes and could never do what it says."""
    if route.dedupe_fields:
        raise Rejected(
            "invalid_input",
            "dedupe_fields: LeadConnector finds a contact by email and phone, as its location is set: leave them out",
            field="dedupe_fields",
        )
    if unknown := sorted(attributes - set(ATTRIBUTES)):
        raise Rejected(
            "invalid_input",
            f"mapping: LeadConnector has no {unknown[0]} that can be mapped, only {', '.join(ATTRIBUTES)}",
            field=f"mapping.{unknown[0]}",
        )
    if not attributes & set(FOUND_BY):
        raise Rejected(
            "invalid_input", "mapping: LeadConnector needs email or phone to find a contact by", field="mapping"
        )
    if "tags" in attributes and not overwrites_tags(route.options.get("overwrite_tags", "")):
        raise Rejected(
            "invalid_input",
            "mapping: tags would take the place of all that a contact has: leave them out, or set overwrite_tags to yes",
            field="mapping.tags",
        )
