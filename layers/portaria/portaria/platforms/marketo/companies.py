"""Creating and updating companies through the Data Ingestion API.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

import json
from typing import Any

from portaria.core.entities import Target
from portaria.platforms.marketo import ingestion
from portaria.platforms.marketo.ingestion import *  # noqa: F403 - what all of its objects share

RANK = 0
FOUND_BY = ("externalCompanyId", "id")


def check(attributes: dict[str, Any], target: Target) -> dict[str, Any]:
    """Raises `Rejected` (`no_dedupe_value`)."""
    return ingestion.findable(attributes, FOUND_BY)


def identity(attributes: dict[str, Any], target: Target) -> str:
    """With `createOnly` the second of two records changes nothing, so they are not merged."""
    if target.option("action") == "createOnly":
        return json.dumps(attributes, sort_keys=True, default=str)
    return ingestion.identity(attributes, FOUND_BY)


def frame(target: Target) -> tuple[bytes, bytes]:
    head = {"action": target.option("action") or "createOrUpdate", "dedupeBy": target.option("dedupe_by")}
    return ingestion.frame(head, "input")
