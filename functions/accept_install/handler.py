"""Receive a marketplace install and store its code; show the customer where to begin and how far it is.

Whatever a page needs is imported when a page is made: the install hook waits for none of it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from portaria import platforms
from portaria.aws.light_client import AwsError
from portaria.core.callbacks import Refusal, Rejected, Retryable, Secret
from portaria.core.settings import AcceptInstallSettings
from portaria.webhooks.arrival_sources import source_of
from portaria.webhooks.install_receiver import InstallReceiver
from portaria.webhooks.request_log import count, log
from portaria.webhooks.time_budget import TimeBudget

if TYPE_CHECKING:
    from portaria.core.callbacks import OAuthClient
    from portaria.web.render import Page

Event = dict[str, Any]
Answer = dict[str, Any]

COOKIE = "__Host-portaria"
COOKIE_LIFE_S = 30 * 60
MAX_QUERY_CHARACTERS = 8_000
RETRY_AFTER_S = 5
PLAIN = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

desk = InstallReceiver(AcceptInstallSettings.from_env())


def handler(event: Event, context: object) -> Answer:
    """Answers the three routes of template.yaml; nothing it raises on purpose leaves it."""
    budget = TimeBudget(spent_s(event))
    resource = str(event.get("resource", ""))
    try:
        if resource.endswith("/start"):
            return start(event)
        if resource.endswith("/result/{install}"):
            return result(event)
        return arrive(event, budget)
    except Rejected as rejected:
        log("WARNING", "install_call_refused", reason=rejected.reason, detail=rejected.detail, resource=resource)
        if resource.endswith("/{client}"):
            # API Gateway counts these among the method's 4XX; an alarm subtracts them to see the calls that it refused itself.
            count("InstallCallsRefused")
        return turn_away(event, rejected.reason, rejected.detail, rejected.status)
    except (Retryable, AwsError) as error:
        log("ERROR", "not answered as it should be", error=str(error), resource=resource)
        detail = "storage cannot be reached; nothing was used up, so load this page again in a few seconds"
        answer = turn_away(event, "unavailable", detail, 503)
        return {**answer, "headers": {**answer["headers"], "Retry-After": str(RETRY_AFTER_S)}}


def arrive(event: Event, budget: TimeBudget) -> Answer:
    """A call to the redirect URI: the marketplace's hook, a browser's return from the consent page, or a refusal."""
    platform, client = parameter(event, "platform"), parameter(event, "client")
    found = platforms.load(platform)
    arrival = found.require(found.install).parse_callback(query(event))
    if isinstance(arrival, Refusal):
        desk.refuse(arrival, platform, client, cookie(event))
        return page(event, lambda pages, language: pages.refused(language, start_url=beside(event, "start")))
    check_host = found.account_domains.check_client_host if found.account_domains else None
    install = desk.accept(arrival, platform, client, cookie(event), budget, check_host, source_of(event))
    if arrival.state is None:
        return {"statusCode": 200, "headers": PLAIN, "body": "received\n"}
    # Away from the URL that holds the code, before anything is shown.
    headers = {
        "Location": beside(event, f"result/{install}"),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        # As on the pages: a redirect with another policy would cut Kommo's window off from the page that opened it.
        "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
    }
    return {"statusCode": 303, "headers": headers, "body": ""}


def start(event: Event) -> Answer:
    platform, client = parameter(event, "platform"), parameter(event, "client")
    found = platforms.load(platform)
    if found.authorization_links:
        return authorize(event, found.authorization_links.authorization_url)
    consent_page = found.require(found.consent_page)
    begun = desk.begin(platform, client, cookie(event))
    answer = page(
        event,
        lambda pages, language: pages.start(
            language,
            client_label=client,
            client_id=begun.client.client_id,
            consent_url=consent_page.consent_url(begun.client.client_id, begun.state),
            button=consent_page.button(begun.client.client_id, begun.state, language),
        ),
    )
    return {**answer, "headers": {**answer["headers"], "Set-Cookie": set_cookie(begun.browser)}}


def authorize(event: Event, authorization_url: Callable[[OAuthClient, Secret, str, str], str]) -> Answer:
    """The link that an administrator made for one connection: straight on to its provider's consent page."""
    tickets = query(event).get("ticket", [])
    if len(tickets) != 1:
        detail = "this address needs the ticket of a link made for one connection: ask for a new link"
        raise Rejected("missing_ticket", detail, field="ticket", status=404)
    platform, client = parameter(event, "platform"), parameter(event, "client")
    begun = desk.authorize(platform, client, Secret(tickets[0]), cookie(event))
    headers = {
        "Location": authorization_url(begun.client, begun.state, begun.code_challenge, begun.scopes),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "Set-Cookie": set_cookie(begun.browser),
    }
    return {"statusCode": 303, "headers": headers, "body": ""}


def result(event: Event) -> Answer:
    install = parameter(event, "install")
    status = desk.status(install)
    if "application/json" in header(event, "accept"):
        body = {"state": status.state, "reason": status.reason, "account": status.account}
        headers = {**PLAIN, "Content-Type": "application/json", "Vary": "Accept-Language, Accept"}
        return {"statusCode": 200, "headers": headers, "body": json.dumps(body)}
    return page(
        event,
        lambda pages, language: pages.result(
            language,
            install=install,
            state=status.state,
            start_url=start_of_result(event),
            reason=status.reason,
            account=status.account,
        ),
    )


def turn_away(event: Event, reason: str, detail: str, status: int) -> Answer:
    """A page for people, one line for programs such as the install hook."""
    if "text/html" not in header(event, "accept"):
        return {"statusCode": status, "headers": PLAIN, "body": f"{reason}: {detail}\n"}
    known = status != 404
    resource = str(event.get("resource", ""))
    start_url = start_of_result(event) if resource.endswith("/result/{install}") else beside(event, "start")
    return page(
        event,
        lambda pages, language: pages.rejected(
            language, reason=reason, detail=detail, start_url=start_url if known else None, status=status
        ),
    )


def page(event: Event, render: Callable[[Any, str], Page]) -> Answer:
    from portaria.web import render as pages  # noqa: PLC0415 - the hook needs no page

    made = render(pages, pages.language_of(header(event, "accept-language")))
    return {"statusCode": made.status, "headers": made.headers, "body": made.body}


def query(event: Event) -> dict[str, list[str]]:
    """The query as API Gateway decoded it. Raises `Rejected` where it is too long or no text."""
    values: dict[str, list[str]] = event.get("multiValueQueryStringParameters") or {}
    length = sum(len(name) + len(value) for name, several in values.items() for value in several)
    if length > MAX_QUERY_CHARACTERS:
        raise Rejected(
            "query_too_long",
            f"the query may have {MAX_QUERY_CHARACTERS} characters; this has {length}",
            field="query",
            status=414,
        )
    try:
        "".join(name + "".join(several) for name, several in values.items()).encode()
    except UnicodeEncodeError:
        raise Rejected("bad_query", "the query must be UTF-8, percent-encoded", field="query") from None
    return values


def beside(event: Event, rest: str) -> str:
    """A relative URL below `/install/{platform}/{client}`, whatever stage or base path stands before it."""
    return rest if ends_with_slash(event) else f"{parameter(event, 'client')}/{rest}"


def start_of_result(event: Event) -> str:
    """The relative URL of the start page from `…/result/{install}`."""
    return "../../start" if ends_with_slash(event) else "../start"


def ends_with_slash(event: Event) -> bool:
    """Whether the path was sent with a trailing slash, which API Gateway matches all the same."""
    context = event.get("requestContext") or {}
    return str(context.get("path") or event.get("path") or "").endswith("/")


def set_cookie(browser: Secret) -> str:
    # Lax, not Strict: the return from the consent page is a navigation from the platform's site.
    return f"{COOKIE}={browser.reveal()}; Path=/; Max-Age={COOKIE_LIFE_S}; Secure; HttpOnly; SameSite=Lax"


def parameter(event: Event, name: str) -> str:
    return str((event.get("pathParameters") or {}).get(name, ""))


def header(event: Event, name: str) -> str:
    """All values of a header, joined as HTTP allows; header names come as the client wrote them."""
    several = event.get("multiValueHeaders") or {}
    return ", ".join(value for key, values in several.items() if key.lower() == name for value in values or [])


def cookie(event: Event) -> str:
    found = re.findall(rf"(?:^|[;,])\s*{COOKIE}=([A-Za-z0-9_-]*)", header(event, "cookie")[:16_000])
    return found[0] if len(found) == 1 else ""


def spent_s(event: Event) -> float:
    """Seconds since API Gateway took the call, a cold start included; 0 where its clock and ours plainly disagree."""
    arrived_ms = (event.get("requestContext") or {}).get("requestTimeEpoch") or 0
    spent = time.time() - arrived_ms / 1000
    return spent if 0 < spent < 10 else 0.0
