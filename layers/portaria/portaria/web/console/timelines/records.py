"""What became of a record, from its source to its outcome, as receipts and dead letters tell it."""

from __future__ import annotations

from typing import Any

from portaria.web.console import pages
from portaria.web.console.timelines.steps import DONE, FAILED, NOW, UNCLEAR, WAITING, Notice, Step, in_order
from portaria.web.console.visit import Visit

Content = dict[str, Any]
# What helps with a dead letter, by its reason; otherwise its `detail` says what is wrong.
ADVICE = {
    "no_dedupe_value": "mapping",
    "mapping_failed": "mapping",
    "mapping_too_costly": "mapping",
    "bad_value": "mapping",
    "bad_mapping": "mapping",
    "refused_by_destination": "destination",
    "unknown_route": "route",
    "unknown_connection": "route",
    "connection_removed": "route",
    "gave_up": "again",
    "message_unreadable": "unreadable",
}


def of_receipt(visit: Visit, receipt: Content) -> list[Step]:
    """The steps of one request to a destination, and of the programs' requests that it carried."""
    requests = [
        Step("requested", DONE, each["accepted_at"] or "", label=each["id"]) for each in receipt.get("requests", ())
    ]
    return in_order([*requests, *_request(receipt, "")])


def of_letter(visit: Visit, letter: Content) -> list[Step]:
    """The steps of one dead letter."""
    return _letter(letter, "")


def together(visit: Visit, receipts: list[Content], letters: list[Content]) -> list[Step]:
    """Everything that is known of the records that were searched for, the oldest first."""
    found: list[Step] = []
    for receipt in receipts:
        if receipt["state"] == "queued":
            found.append(Step("requested", NOW, receipt["accepted_at"] or "", label=receipt["destination"]))
        else:
            found += _request(receipt, f"receipts/{receipt['id']}")
    for letter in letters:
        found += _letter(letter, f"dead-letters/{letter['id']}")
    return in_order(found)


def advice(visit: Visit, letter: Content) -> list[Notice]:
    """What to do about a dead letter that is open."""
    if letter["state"] != "open":
        return []
    helps = ADVICE.get(letter["reason"], "other")
    place = f"routes/{letter['route']}/preview?letter={letter['id']}" if helps == "mapping" and letter["route"] else ""
    return [Notice(pages.translate(visit.frame.language, f"advice.letter_{helps}"), "warn", place)]


def _request(receipt: Content, place: str) -> list[Step]:
    """A request to a destination: sent, accepted, and its outcome."""
    sent = Step("sent", DONE, receipt["sent_at"] or "", place=place, label=receipt["destination"])
    found = [sent]
    if receipt["accepted_at"]:
        found.append(Step("accepted", DONE, receipt["accepted_at"]))
    match receipt["state"]:
        case "applied":
            found.append(Step("applied", DONE, receipt["reported_at"] or receipt["accepted_at"] or ""))
        case "failed":
            codes = ", ".join(filter(None, [receipt["code"], *receipt["failure_counts"]]))
            found.append(Step("refused", FAILED, receipt["reported_at"] or "", label=codes))
        case "unknown":
            found.append(Step("not_reported", UNCLEAR, receipt["deadline"] or ""))
        case _:
            found.append(Step("awaited", WAITING))
    return found


def _letter(letter: Content, place: str) -> list[Step]:
    found = [
        Step("dead_letter", FAILED, letter["set_aside_at"], letter["detail"] or "", place=place, label=letter["reason"])
    ]
    if letter["redriven_at"]:
        state = DONE if letter["state"] == "redriven" else NOW
        found.append(Step("redriven", state, letter["redriven_at"]))
    elif letter["state"] == "redriving":
        found.append(Step("redriving", NOW))
    return found
