"""Pauses of destinations: the daily quota is used up, a person must act, the destination asked for a longer wait, or it does
not answer.

Records for a paused object wait in the table (`waiting_lists`) instead of being refused one request after the other. When the
pause has passed, one request decides whether it ends or the next one begins.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock

LIST = "PARKED"
KEPT_FOR = timedelta(days=7)


class PauseReason(StrEnum):
    """`QUOTA`: the daily quota is used up. `STOPPED`: a person must act. `BUSY`: the destination asked for a longer wait.

    `NO_ANSWER`: the destination, or the host that it shares with others, does not answer in time.
    """

    QUOTA = "quota"
    STOPPED = "stopped"
    BUSY = "busy"
    NO_ANSWER = "no_answer"


# A version before a reason was introduced cannot read it, so such a reason is stored as an older one. `exact_reason` has the
# reason itself. An operator or a failed deployment may return to that version while a destination is paused.
STORED_AS = {PauseReason.NO_ANSWER: PauseReason.BUSY}


@dataclass(frozen=True)
class DestinationPause:
    """`object` is the destination's, empty for all of them; `until` is epoch seconds, `since` ISO 8601.

    `code` is the destination's own, `for_s` the planned length in seconds. `host` is set if the pause is that of a host
    (`host_pauses`), which is not stored for each of its destinations.
    """

    destination: str
    object: str
    reason: PauseReason
    code: str
    until: int
    since: str
    for_s: int = 0
    host: str = ""


def partition(destination: str) -> str:
    """The partition of a destination's pauses and its backlog (see `backlogs`): one query reads them all."""
    return f"PARKED#{destination}"


def key(destination: str, object_name: str) -> tuple[str, str]:
    return partition(destination), object_name or "*"


def begin(table: Table, destination: str, object_name: str, *, reason: PauseReason, code: str, for_s: float) -> bool:
    """Pause an object for `for_s` seconds from now; whether this is new, so that it was not paused for this reason before.

    Raises what AWS raises.
    """
    now = clock.now()
    pk, sk = key(destination, object_name)
    stored = STORED_AS.get(reason, reason)
    until = int(now.timestamp() + for_s)
    item: Item = {
        "pk": pk,
        "sk": sk,
        "list_pk": LIST,
        "list_sk": f"{destination}/{object_name}",
        "destination": destination,
        "object": object_name,
        "reason": stored.value,
        "exact_reason": reason.value,
        "code": code,
        "until": until,
        "for_s": int(for_s),
        "since": clock.to_iso(now),
    }
    while True:
        with suppress(Conflict):
            table.put(
                item,
                condition="attribute_not_exists(pk) OR reason <> :reason",
                values={":reason": stored.value},
            )
            return True
        # Another worker may end the pause now. An update would then store a part of an item, which nothing can read.
        with suppress(Conflict):
            table.update(
                pk,
                sk,
                "SET #until = :until, for_s = :for_s, code = :code, exact_reason = :reason REMOVE expires_at",
                condition="attribute_exists(pk)",
                values={":until": until, ":for_s": int(for_s), ":code": code, ":reason": reason.value},
                names={"#until": "until"},
            )
            return False


def lift(table: Table, pause: DestinationPause) -> None:
    """Let a pause be over now, because a person wants the destination tried again. Raises what AWS raises.

    The next request decides: a success ends the pause, which is then reported as resumed, and a refusal prolongs it. A pause of
    a deleted connection gets no more requests, so DynamoDB removes it after `KEPT_FOR`.
    """
    now = clock.now()
    with suppress(Conflict):
        table.update(
            *key(pause.destination, pause.object),
            "SET #until = :now, expires_at = :expires_at",
            condition="#until = :until",
            names={"#until": "until"},
            values={
                ":now": int(now.timestamp()),
                ":until": pause.until,
                ":expires_at": int((now + KEPT_FOR).timestamp()),
            },
        )


def end(table: Table, pause: DestinationPause) -> bool:
    """Remove a pause; whether it is gone. One that was prolonged since it was read stays. Raises what AWS raises."""
    try:
        table.delete(
            *key(pause.destination, pause.object),
            condition="attribute_not_exists(pk) OR #until = :until",
            names={"#until": "until"},
            values={":until": pause.until},
        )
    except Conflict:
        return False
    return True


def read(item: Item) -> DestinationPause:
    return DestinationPause(
        item["destination"],
        item["object"],
        PauseReason(item.get("exact_reason") or item["reason"]),
        item["code"],
        int(item["until"]),
        item["since"],
        int(item.get("for_s", 0)),
    )
