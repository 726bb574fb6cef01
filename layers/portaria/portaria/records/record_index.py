"""Fingerprints of records and of their e-mail addresses, in eight bytes each: they show whether a known one is among them.

With 64 bits and a billion records, one search in eighteen billion finds a wrong record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from itertools import islice
from typing import Any

LENGTH = 8
# Of the values of one record, so that a long list costs neither time nor space.
MAX_EMAILS, MAX_VALUES = 5, 2_000
_EMAIL = re.compile(r"[^\s@<>\"',;:()]{1,64}@[^\s@<>\"',;:()]{1,190}")


def of(record: str) -> bytes:
    """`record` is its source connection and its key there: `kommo-acme-1/37054081`."""
    return sha256(record.encode("utf-8", "replace")).digest()[:LENGTH]


def of_email(address: str) -> str:
    """What stands for an e-mail address among the records. No name of a source has a colon."""
    return f"email:{address.strip().casefold()}"


def emails(data: Any) -> list[str]:
    """The e-mail addresses among the values of a record, each once, as `of_email` writes them."""
    found: dict[str, None] = {}
    waiting, left = [data], MAX_VALUES
    for value in waiting:
        inner = value.values() if type(value) is dict else value if type(value) is list else (value,)
        if len(inner) > left:
            inner = list(islice(inner, left))
        left -= len(inner)
        for each in inner:
            if type(each) is str:
                if "@" in each and _EMAIL.fullmatch(text := each.strip()):
                    found[f"email:{text.casefold()}"] = None
                    if len(found) == MAX_EMAILS:
                        return list(found)
            elif type(each) is dict or type(each) is list:
                waiting.append(each)
    return list(found)


def packed(records: Iterable[str]) -> bytes:
    """The fingerprints of several records, each once."""
    # As `of`, without a call for each: a request has two thousand.
    return b"".join([sha256(record.encode("utf-8", "replace")).digest()[:LENGTH] for record in dict.fromkeys(records)])


def holds(packed: bytes, record: bytes) -> bool:
    """Whether a record's fingerprint is among packed ones."""
    place = packed.find(record)
    while place % LENGTH and place >= 0:
        place = packed.find(record, place + 1)
    return place >= 0
