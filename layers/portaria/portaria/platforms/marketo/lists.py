"""Adding persons to a static list, or taking them out (`lists/remove`), through the Data Ingestion API.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

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
from portaria.platforms.marketo.ingestion import check_member as check
from portaria.platforms.marketo.ingestion import member_identity as identity

__all__ = [
    "DAILY_QUOTA", "MAX_BODY_BYTES", "MAX_OBJECTS", "RANK", "check", "frame", "identity", "read_answer", "request",
    "subscription",
]  # fmt: skip

RANK = 1


def frame(target: Target) -> tuple[bytes, bytes]:
    list_id = target.option("list_id")
    return ingestion.frame({"listId": int(list_id) if list_id.isdecimal() else list_id}, "input")
