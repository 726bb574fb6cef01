"""Upserting records of a custom object through the Data Ingestion API; its name stands in the target's object.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

import json
from typing import Any

from portaria.core.entities import Target
from portaria.platforms.marketo import ingestion
from portaria.platforms.marketo.ingestion import *  # noqa: F403 - what all of its objects share

# A custom object whose person is missing is tried for 65 minutes and then lost: persons go first.
RANK = 1


def check(attributes: dict[str, Any], target: Target) -> dict[str, Any]:
    """Raises `Rejected` (`no_dedupe_value`) where the target says what the object is found by, and the record lacks it."""
    fields = _found_by(target)
    return ingestion.findable(attributes, fields) if fields else attributes


def identity(attributes: dict[str, Any], target: Target) -> str:
    """By what the route says. Which fields an object is deduped by stands in Marketo alone: else equal ones are one."""
    if fields := _found_by(target):
        return ingestion.identity(attributes, fields)
    return json.dumps(attributes, sort_keys=True, default=str)


def frame(target: Target) -> tuple[bytes, bytes]:
    return ingestion.frame({"priority": target.priority, "dedupeBy": target.option("dedupe_by")}, "customObjects")


def _found_by(target: Target) -> tuple[str, ...]:
    return ("marketoGUID",) if target.option("dedupe_by") == "marketoGUID" else target.dedupe_fields
