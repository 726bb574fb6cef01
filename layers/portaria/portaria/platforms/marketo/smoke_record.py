"""A call to the data ingestion API for a subscription that does not exist, for `portaria smoke`. It never leaves the stack.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

from portaria.platforms.marketo.data_ingestion_api import ROOT, TOKEN_HEADER
from portaria.platforms.values import SmokeCall

KIND = "client_credentials"


def account_fields(mark: str) -> dict[str, str]:
    """Return a Munchkin id that is derived from a mark."""
    number = int.from_bytes(mark.encode(), "big")
    letters = "".join(chr(ord("A") + number // 26**place % 26) for place in range(3))
    return {"munchkin_id": f"{number % 1000:03d}-{letters}-{number // 1000 % 1000:03d}"}


def call(fields: dict[str, str], name: str) -> SmokeCall:
    record = {"email": f"{name}@example.com"}
    return SmokeCall(f"{ROOT}/{fields['munchkin_id']}/persons", TOKEN_HEADER, {"persons": [record]}, record)
