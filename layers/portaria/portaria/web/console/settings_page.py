"""The settings: how the stack is set up, and what the doctor finds. Nothing is changed here."""

from __future__ import annotations

from portaria.web.console import pages
from portaria.web.console.visit import Outcome, Visit

FACTS = ("stack", "version", "stack_status", "updated_at", "region", "api_url", "python")
COLOURS = {"ok": "good", "warn": "warn", "fail": "bad"}


def show(visit: Visit) -> Outcome:
    """Raises `Problem`."""
    found = visit.api.call("show_settings").content
    shown = found | {"stack_status": found["status"]}
    order = list(COLOURS)
    findings = sorted(
        found["findings"],
        key=lambda each: order.index(each["state"]) if each["state"] in order else len(order),
        reverse=True,
    )
    return Outcome(
        pages.render("settings.html", visit.frame, found=shown, findings=findings, facts=FACTS, colours=COLOURS)
    )
