"""Adding persons to a program, or removing them (`programmembers/delete`), through the Data Ingestion API.

A request can hold several programs; these requests hold the members of one program with one status.
https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

import json

from portaria.core.entities import Target
from portaria.platforms.marketo import ingestion
from portaria.platforms.marketo.ingestion import *  # noqa: F403 - what all of its objects share

RANK = 1
check, identity = ingestion.check_member, ingestion.member_identity


def frame(target: Target) -> tuple[bytes, bytes]:
    program_id = target.option("program_id")
    program = {
        "programId": int(program_id) if program_id.isdecimal() else program_id,
        "status": target.option("status"),
    }
    text = json.dumps({name: value for name, value in program.items() if value}, ensure_ascii=False)
    return f'{{"programs":[{text[:-1]},"members":['.encode(), b"]}]}"
