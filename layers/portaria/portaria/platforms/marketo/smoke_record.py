"""A call of the front door for a subscription that Marketo does not have, for `portaria smoke`. It never leaves the stack.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

from typing import Any, NamedTuple

from portaria.platforms.marketo.data_ingestion_api import ROOT, TOKEN_HEADER

KIND = "client_credentials"


class Call(NamedTuple):
    """`record` is the one record that `body` holds."""

    path: str
    token_header: str
    body: dict[str, Any]
    record: dict[str, Any]


def account_fields(mark: str) -> dict[str, str]:
    """A Munchkin id that follows from a mark."""
    number = int.from_bytes(mark.encode(), "big")
    letters = "".join(chr(ord("A") + number // 26**place % 26) for place in range(3))
    return {"munchkin_id": f"{number % 1000:03d}-{letters}-{number // 1000 % 1000:03d}"}


def call(fields: dict[str, str], name: str) -> Call:
    record = {"email": f"{name}@example.com"}
    return Call(f"{ROOT}/{fields['munchkin_id']}/persons", TOKEN_HEADER, {"persons": [record]}, record)
