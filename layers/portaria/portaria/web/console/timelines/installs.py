"""The time line of an install: from the arrival of its code to its connection and the records of its account."""

from __future__ import annotations

from typing import Any

from portaria.web.console import pages
from portaria.web.console.action_conditions import find_platform
from portaria.web.console.api_calls import Problem
from portaria.web.console.timelines.steps import DONE, FAILED, NOW, WAITING, Notice, Step
from portaria.web.console.visit import Visit

Content = dict[str, Any]
BACKFILL_STATES = {"running": NOW, "done": DONE, "failed": FAILED}
# What helps after a failure, by its reason; otherwise the customer installs again.
ADVICE = {
    "code_expired": "promptly",
    "wrong_client": "fix_client",
    "wrong_redirect_uri": "fix_client",
    "bad_scopes": "fix_client",
    "wrong_token_url": "fix_client",
    "domain_not_registered": "fix_client",
    "api_domains_missing": "fix_client",
    "invalid_account": "check_account",
    "account_mismatch": "check_account",
    "other_account": "other_account",
    "connection_gone": "connection_gone",
}


def steps(visit: Visit, install: Content) -> list[Step]:
    """What has happened to an install, and what is still to come; of a failed one what it reached, and the failure."""
    is_connected, is_failed = install["state"] == "connected", install["state"] == "failed"
    has_begun = bool(install["began_at"] or install["attempt_count"])
    has_stored = bool(install["stored_at"] or is_connected)
    found = [
        Step("received", DONE, install["received_at"]),
        Step("queued", DONE if has_begun or is_failed else NOW, install["received_at"]),
        _exchanged(visit, install, has_begun=has_begun, has_stored=has_stored),
        Step("stored", DONE if has_stored else WAITING, install["stored_at"] or ""),
    ]
    platform = find_platform(install["platform"])
    if platform and platform.webhook_subscriptions:
        found.append(Step("subscribed", DONE if is_connected else WAITING, install["connected_at"] or ""))
    if is_failed:
        reached = [step for step in found if step.state == DONE]
        label = str(install["reason"] or "")
        return [*reached, Step("failed", FAILED, install["failed_at"] or "", install["detail"] or "", label=label)]
    place = f"connections/{install['connection']}" if install["connection"] else ""
    found.append(Step("connected", DONE if is_connected else WAITING, install["connected_at"] or "", place=place))
    return found + (_backfills(visit, install) if is_connected else [])


def notices(visit: Visit, install: Content) -> list[Notice]:
    """What to do after a failure."""
    if install["state"] != "failed":
        return []
    advice = ADVICE.get(str(install["reason"]), "again")
    place = f"oauth-clients/{install['platform']}/{install['client']}" if advice == "fix_client" else ""
    return [Notice(pages.translate(visit.frame.language, f"advice.install_{advice}"), "warn", place)]


def _exchanged(visit: Visit, install: Content, *, has_begun: bool, has_stored: bool) -> Step:
    state = DONE if has_stored else NOW if has_begun and install["state"] != "failed" else WAITING
    count = int(install["attempt_count"] or 0)
    note = pages.translate(visit.frame.language, "step.attempts", count=count) if count > 1 else ""
    return Step("exchanged", state, install["began_at"] or "", note=note)


def _backfills(visit: Visit, install: Content) -> list[Step]:
    """The backfills of the connection that began after the install; none if the session may not see them."""
    path = {"name": str(install["connection"])}
    if not install["connection"] or not visit.api.allows("list_backfills", path):
        return []
    try:
        runs = visit.api.call("list_backfills", path).content["runs"]
    except Problem:
        return []
    language = visit.frame.language
    runs = [run for run in runs if (run["started_at"] or "") >= install["received_at"]]
    if not runs:
        return [Step("no_backfill", WAITING)]
    return [
        Step(
            "backfill",
            BACKFILL_STATES.get(run["state"], WAITING),
            run["finished_at"] or run["started_at"] or "",
            run["detail"] or "",
            pages.translate(language, "step.progress", pages=run["page_count"], records=run["record_count"]),
            f"routes/{run['route']}",
            run["route"],
        )
        for run in runs
    ]
