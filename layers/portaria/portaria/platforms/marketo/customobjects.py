"""Upserting records of a custom object through the Data Ingestion API; the target has its name.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

import json
from typing import Any

from portaria.core.entities import Target
from portaria.platforms.marketo import ingestion
from portaria.platforms.marketo.ingestion import *  # noqa: F403 - what all of its objects share

# Marketo retries a custom object whose person is missing for 65 minutes and then drops it, so persons are sent first.
RANK = 1


def check(attributes: dict[str, Any], target: Target) -> dict[str, Any]:
    """Raises `Rejected` (`no_dedupe_value`) if the target names the identifying fields and the record has none of them."""
    fields = _found_by(target)
    return ingestion.findable(attributes, fields) if fields else attributes


def identity(attributes: dict[str, Any], target: Target) -> str:
    """The route's dedupe fields. Without them only Marketo knows the fields, so only equal records are merged."""
    if fields := _found_by(target):
        return ingestion.identity(attributes, fields)
    return json.dumps(attributes, sort_keys=True, default=str)


def frame(target: Target) -> tuple[bytes, bytes]:
    return ingestion.frame({"priority": target.priority, "dedupeBy": target.option("dedupe_by")}, "customObjects")


def _found_by(target: Target) -> tuple[str, ...]:
    return ("marketoGUID",) if target.option("dedupe_by") == "marketoGUID" else target.dedupe_fields
