"""Values that platforms return and that `core/entities.py` does not define."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from portaria.core.callbacks import Record
from portaria.core.entities import Target


@dataclass(frozen=True)
class UpsertedContact:
    """The outcome of writing one contact: `created`, `updated` or `refused`.

    `id` is the contact's id at the platform; for a duplicate, the id of the existing contact. `reason` and `detail` are set
    for a refusal. `detail` is a sentence for the caller.
    """

    outcome: str
    id: str = ""
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class RefusedUsers:
    """The platform registered none of a request's users, because of one of them."""

    reason: str
    detail: str


@dataclass(frozen=True)
class IngestionCall:
    """A parsed call to a platform's own API that Portaria offers.

    `groups` holds the records by the target that they share, `count` is the number of records, and `warnings` are sentences
    that the sender receives with the response.
    """

    object: str
    groups: list[tuple[Target, list[Record]]]
    count: int
    warnings: list[str]


class IngestionRefusal(NamedTuple):
    """An error response in the platform's own format."""

    status: int
    code: str
    body: dict[str, str]


class SmokeCall(NamedTuple):
    """A call that `portaria smoke` sends. `record` is the one record that `body` holds."""

    path: str
    token_header: str
    body: dict[str, Any]
    record: dict[str, Any]
