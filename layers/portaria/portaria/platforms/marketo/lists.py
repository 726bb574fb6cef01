"""Adding persons to a static list, or removing them (`lists/remove`), through the Data Ingestion API.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

from portaria.core.entities import Target
from portaria.platforms.marketo import ingestion
from portaria.platforms.marketo.ingestion import *  # noqa: F403 - what all of its objects share

RANK = 1
check, identity = ingestion.check_member, ingestion.member_identity


def frame(target: Target) -> tuple[bytes, bytes]:
    list_id = target.option("list_id")
    return ingestion.frame({"listId": int(list_id) if list_id.isdecimal() else list_id}, "input")
