"""Rules for routes to LeadConnector.

https://marketplace.gohighlevel.com/docs/ghl/contacts/upsert-contact
"""

from __future__ import annotations

import re

from portaria.core.entities import Route
from portaria.core.errors import Rejected
from portaria.platforms.leadconnector import contacts

# The source's object → the default target.
ACCEPTED = {"contacts": "persons"}
TARGETS = re.compile("persons")
TARGETS_RULE = "persons"

# LeadConnector's route options, each with its rule.
OPTIONS = {"overwrite_tags": (re.compile("yes|no"), "yes or no")}

# The location's settings decide whether a contact is found by its e-mail address or its phone number first.
DEDUPE_ATTRIBUTES: dict[str, tuple[str, ...]] = {}
DEFAULT_DEDUPE: dict[str, tuple[str, ...]] = {}

# The attributes that a mapping can set. A mapping cannot make a list of objects, such as custom fields.
ATTRIBUTES = tuple(name for name in contacts.FIELDS if name != "customFields")
FOUND_BY = ("email", "phone")
# Attributes that the default mappings of sources name differently.
RENAMED = {"company": "companyName"}


def default_mapping(mapping: dict[str, str], target: str) -> dict[str, str]:
    """Return the source's attributes that a contact has; empty without an attribute that finds the contact."""
    renamed = {RENAMED.get(attribute, attribute): expression for attribute, expression in mapping.items()}
    kept = {attribute: expression for attribute, expression in renamed.items() if attribute in ATTRIBUTES}
    return kept if any(field in kept for field in FOUND_BY) else {}


def overwrites_tags(option: str) -> bool:
    return option == "yes"


def check_route(route: Route, attributes: set[str]) -> None:
    """Raises `Rejected` (`invalid_input`) for a route that cannot work with these attributes."""
    if route.dedupe_fields:
        raise Rejected(
            "invalid_input",
            "dedupe_fields cannot be set: LeadConnector finds contacts by email and phone, according to the "
            "location's settings",
            field="dedupe_fields",
        )
    if unknown := sorted(attributes - set(ATTRIBUTES)):
        raise Rejected(
            "invalid_input",
            f"mapping: {unknown[0]} is not an attribute of LeadConnector: use {', '.join(ATTRIBUTES)}",
            field=f"mapping.{unknown[0]}",
        )
    if not attributes & set(FOUND_BY):
        raise Rejected(
            "invalid_input", "mapping: LeadConnector needs email or phone, by which it finds a contact", field="mapping"
        )
    if "tags" in attributes and not overwrites_tags(route.options.get("overwrite_tags", "")):
        raise Rejected(
            "invalid_input",
            "mapping: tags would replace all tags of a contact: leave them out, or set overwrite_tags to yes",
            field="mapping.tags",
        )
