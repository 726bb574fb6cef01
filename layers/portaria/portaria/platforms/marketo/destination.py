"""Rules for routes to Marketo.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/data-ingestion/data-ingestion
"""

from __future__ import annotations

import re

from portaria.core.entities import Route

# The source's object → the default target.
ACCEPTED = {"contacts": "persons", "companies": "companies"}
TARGETS = re.compile(r"persons|companies|customobjects/[A-Za-z][A-Za-z0-9_]{0,99}")
TARGETS_RULE = "persons, companies or customobjects/ and the API name of a custom object"

# Marketo's route options, each with its rule.
OPTIONS = {
    "partition": (re.compile(r"[^\x00-\x1f\x7f]{1,255}"), "at most 255 characters, none a control"),
    "dedupe_by": (re.compile("dedupeFields|marketoGUID|idField"), "dedupeFields, marketoGUID or idField"),
    "action": (re.compile("createOnly|updateOnly|createOrUpdate"), "createOnly, updateOnly or createOrUpdate"),
}

# The attributes that Marketo documents for deduplication. It also accepts custom attributes of type string and integer, which
# cannot be distinguished from a typing error, and its own example uses one that is not listed (firstName).
DEDUPE_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "persons": ("id", "email", "sfdcAccountId", "sfdcContactId", "sfdcLeadId", "sfdcLeadOwnerId"),
    "companies": ("externalCompanyId", "id"),
}
# The attributes for a route that names none.
DEFAULT_DEDUPE: dict[str, tuple[str, ...]] = {"persons": ("email",), "companies": ("externalCompanyId",)}


def default_mapping(mapping: dict[str, str], target: str) -> dict[str, str]:
    """Sources use Marketo's names for persons and companies; other targets have no default."""
    return mapping if any(field in mapping for field in DEFAULT_DEDUPE.get(target, ())) else {}


def check_route(route: Route, attributes: set[str]) -> None:
    """Accepts every route: Marketo's custom attributes are known only to Marketo."""
