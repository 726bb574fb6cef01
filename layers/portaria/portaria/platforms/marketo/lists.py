"""Adding persons to a static list, or taking them out (`lists/remove`), through the Data Ingestion API.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

from typing import Any

from portaria.contract import Target
from portaria.platforms.marketo import ingestion
from portaria.platforms.marketo.ingestion import (
    DAILY_QUOTA,
    MAX_BODY_BYTES,
    MAX_OBJECTS,
    read_answer,
    request,
    subscription,
)

__all__ = [
    "DAILY_QUOTA", "MAX_BODY_BYTES", "MAX_OBJECTS", "RANK", "check", "frame", "identity", "read_answer", "request",
    "subscription",
]  # fmt: skip

RANK = 1


def check(attributes: dict[str, Any], target: Target) -> dict[str, Any]:
    """Raises `Rejected` (`no_dedupe_value`)."""
    ingestion.require_any(attributes, ("leadId",))
    return attributes


def identity(attributes: dict[str, Any], target: Target) -> str:
    return ingestion.identity(attributes, ("leadId",))


def frame(target: Target) -> tuple[bytes, bytes]:
    list_id = target.option("list_id")
    return ingestion.frame({"listId": int(list_id) if list_id.isdecimal() else list_id}, "input")
