"""Upserting persons through the Data Ingestion API.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

from typing import Any

from portaria.core.entities import Target
from portaria.platforms.marketo import ingestion
from portaria.platforms.marketo.ingestion import *  # noqa: F403 - what all of its objects share

# Custom objects and memberships link to persons, so persons are sent first.
RANK = 0
# Marketo's default for deduplication.
DEFAULT_FIELDS = ("email",)


def check(attributes: dict[str, Any], target: Target) -> dict[str, Any]:
    """Raises `Rejected` (`no_dedupe_value`)."""
    return ingestion.findable(attributes, target.dedupe_fields or DEFAULT_FIELDS)


def identity(attributes: dict[str, Any], target: Target) -> str:
    return ingestion.identity(attributes, target.dedupe_fields or DEFAULT_FIELDS)


def frame(target: Target) -> tuple[bytes, bytes]:
    fields = {f"field{number}": name for number, name in enumerate(target.dedupe_fields, 1)}
    head = {"priority": target.priority, "partitionName": target.option("partition"), "dedupeFields": fields}
    return ingestion.frame(head, "persons")
