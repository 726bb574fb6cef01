"""What Marketo takes from a route.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/data-ingestion/data-ingestion
"""

from __future__ import annotations

import re

from portaria.core.entities import Route

# The source's object, and what it becomes here where the route does not say.
ACCEPTED = {"contacts": "persons", "companies": "companies"}
# What a route may name as its target.
TARGETS = re.compile(r"persons|companies|customobjects/[A-Za-z][A-Za-z0-9_]{0,99}")
TARGETS_RULE = "persons, companies or customobjects/ and the API name of a custom object"

# What only Marketo knows about a route, each with its rule.
OPTIONS = {
    "partition": (re.compile(r"[^\x00-\x1f\x7f]{1,255}"), "at most 255 characters, none a control"),
    "dedupe_by": (re.compile("dedupeFields|marketoGUID|idField"), "dedupeFields, marketoGUID or idField"),
    "action": (re.compile("createOnly|updateOnly|createOrUpdate"), "createOnly, updateOnly or createOrUpdate"),
}

# The attributes that Marketo lists for deduplication. It also takes custom attributes of type string and integer, which
# cannot be told from a slip of the pen, and its own example uses one that it does not list (firstName).
DEDUPE_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "persons": ("id", "email", "sfdcAccountId", "sfdcContactId", "sfdcLeadId", "sfdcLeadOwnerId"),
    "companies": ("externalCompanyId", "id"),
}
# What objects are found by where a route does not say.
DEFAULT_DEDUPE: dict[str, tuple[str, ...]] = {"persons": ("email",), "companies": ("externalCompanyId",)}


def default_mapping(mapping: dict[str, str], target: str) -> dict[str, str]:
    """What the source calls attributes of people and companies is what Marketo calls them; nothing fits anything else."""
    return mapping if any(field in mapping for field in DEFAULT_DEDUPE.get(target, ())) else {}


def check_route(route: Route, attributes: set[str]) -> None:
    """Accepts every route: Marketo's custom attributes are known only to Marketo."""
