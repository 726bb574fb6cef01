"""What the page of one thing has beyond its facts: a time line, and notices about what needs attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from portaria.core.stored_reasons import InstallFailure
from portaria.web.console import pages
from portaria.web.console.action_conditions import find_platform
from portaria.web.console.api_calls import Problem
from portaria.web.console.timelines import installs, records
from portaria.web.console.timelines.steps import Notice, Step
from portaria.web.console.visit import Visit

Content = dict[str, Any]
SOON_DAYS = 14


@dataclass(frozen=True)
class ThingParts:
    steps: tuple[Step, ...] = ()
    notices: tuple[Notice, ...] = ()


def of(visit: Visit, section: str, shown: Content) -> ThingParts:
    """The parts of a thing of this section, as the API shows it. What the session may not see is left out."""
    match section:
        case "installs":
            steps, notices = installs.steps(visit, shown), installs.notices(visit, shown)
            return ThingParts(tuple(steps), tuple(notices))
        case "receipts":
            return ThingParts(tuple(records.of_receipt(visit, shown)))
        case "dead-letters":
            return ThingParts(tuple(records.of_letter(visit, shown)), tuple(records.advice(visit, shown)))
        case "private-integrations":
            return ThingParts(notices=tuple(_age(visit, shown)))
        case "connections":
            return ThingParts(notices=tuple(_connection(visit, shown)))
        case "oauth-clients":
            return ThingParts(notices=(_redirect_uri(visit, shown),))
    return ThingParts()


def _redirect_uri(visit: Visit, client: Content) -> Notice:
    """Whether the platform sends codes to the client's redirect URI, as far as its newest installs show."""
    language, query = visit.frame.language, {"client": f"{client['platform']}/{client['name']}", "limit": "1"}
    newest: list[Content] = []
    if visit.api.allows("list_installs"):
        try:
            newest = visit.api.call("list_installs", query=query).content["items"]
        except Problem:
            newest = []
    if not newest:
        return Notice(pages.translate(language, "advice.redirect_uri"))
    place = f"installs/{quote(str(newest[0]['id']), safe='')}"
    if newest[0]["reason"] == InstallFailure.WRONG_REDIRECT_URI:
        return Notice(pages.translate(language, "advice.redirect_uri_wrong"), "bad", place)
    received_at = str(newest[0]["received_at"])[:10]
    return Notice(pages.translate(language, "advice.redirect_uri_works", date=received_at), "", place)


def _age(visit: Visit, integration: Content) -> list[Notice]:
    kind = pages.age_colour(integration, int(integration["age_days"] or 0))
    if not kind:
        return []
    text = pages.translate(visit.frame.language, "advice.rotate_token", days=integration["age_days"])
    return [Notice(text, kind, f"private-integrations/{integration['id']}/rotate")]


def _connection(visit: Visit, connection: Content) -> list[Notice]:
    language, place = visit.frame.language, f"connections/{connection['name']}"
    found = []
    if connection["state"] == "needs_reconnect":
        is_consented = connection["kind"] == "oauth2"
        key = "advice.reconnect" if is_consented else "advice.replace_credentials"
        target = f"{place}/{'reconnect' if is_consented else 'replace_credentials'}"
        found.append(Notice(pages.translate(language, key), "bad", target))
    if connection["state"] == "pending":
        found.append(Notice(pages.translate(language, "advice.authorize"), "warn", f"{place}/authorize"))
    if connection["refused_since"]:
        found.append(Notice(pages.translate(language, "advice.refused"), "bad"))
    days = pages.days_until(connection["grant_ends_at"])
    if days is not None and days <= SOON_DAYS:
        found.append(Notice(pages.translate(language, "advice.grant_ends", days=days), "warn", f"{place}/renew"))
    platform = find_platform(connection["platform"])
    if platform and platform.events and connection["state"] == "connected":
        key = "advice.events_subscribed" if connection["client"] else "advice.events_by_hand"
        found.append(
            Notice(pages.translate(language, key), "", "" if connection["client"] else f"{place}/event_address")
        )
    return found
