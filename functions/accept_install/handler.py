"""Receive a marketplace install and store its code; show the customer the install page and the install's state.

Modules that only pages use are imported when a page is requested: the install webhook does not wait for them.
"""

from __future__ import annotations

import json

from portaria import platforms
from portaria.aws.light_client import AwsError
from portaria.core.callbacks import Refusal, Secret
from portaria.core.error_roots import Rejected, Retryable
from portaria.core.http.request import HttpRequest
from portaria.core.settings import AcceptInstallSettings
from portaria.webhooks.install_receiver import InstallReceiver
from portaria.webhooks.light_table import LightTable, text
from portaria.webhooks.oauth_client_cache import OAuthClientCache
from portaria.webhooks.oauth_state import COOKIE, COOKIE_LIFE_S, OAuthStates, browser_of
from portaria.webhooks.request_log import count, log
from portaria.webhooks.time_budget import TimeBudget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from portaria.core.callbacks import OAuthClient
    from portaria.webhooks.customer_return import CustomerReturn
    from portaria.webhooks.install_sessions import InstallSessions
    from portaria.webhooks.light_table import Item

    Answer = dict[str, Any]

MAX_QUERY_CHARACTERS = 8_000
RETRY_AFTER_S = 5
PAGE_CLIENT_READ_S = 1.0
PLAIN = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

settings = AcceptInstallSettings.from_env()
table = LightTable(settings.table_name)
clients, states = OAuthClientCache(table), OAuthStates(table)
receiver = InstallReceiver(settings, table, clients, states)


def handler(event: dict[str, Any], context: object) -> Answer:
    """Answers the routes of template.yaml below `/install`. Catches every error that the calls below document."""
    request = HttpRequest.from_event(event)
    budget = TimeBudget(request.elapsed_s())
    try:
        if request.resource.endswith("/start"):
            return start(request)
        if request.resource.endswith("/claim"):
            return claim(request)
        if request.resource.endswith("/result/{install}"):
            return result(request)
        if request.resource.endswith("/logo/{version}"):
            return logo(request)
        return arrive(request, budget)
    except Rejected as rejected:
        log(
            "WARNING", "install_call_refused", reason=rejected.reason, detail=rejected.detail, resource=request.resource
        )
        if request.resource.endswith("/{client}"):
            # API Gateway counts these among the method's 4XX; an alarm subtracts them to see the calls that it refused itself.
            count("InstallCallsRefused")
        return turn_away(request, rejected.reason, rejected.detail, rejected.status)
    except (Retryable, AwsError) as error:
        return unavailable(request, error)


def arrive(request: HttpRequest, budget: TimeBudget) -> Answer:
    """A call to the redirect URI: the marketplace's webhook, a browser's return from the consent page, or a refusal."""
    platform = platforms.load(request.path_parameter("platform"))
    callback = platform.require(platform.install).parse_callback(checked_query(request))
    if isinstance(callback, Refusal):
        return refused(request, receiver.refuse(callback, request))
    domains = platform.account_domains
    install, display = receiver.accept(callback, request, budget, domains.check_client_host if domains else None)
    if callback.state is None:
        return {"statusCode": 200, "headers": PLAIN, "body": "received\n"}
    from portaria.webhooks.page_urls import beside  # noqa: PLC0415

    # Away from the URL that holds the code, before anything is shown.
    headers = {
        "Location": beside(request, f"result/{install}{f'?display={display}' if display else ''}"),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        # As on the pages: a redirect with another policy would cut a window off from the page that opened it.
        "Cross-Origin-Opener-Policy": "unsafe-none" if display else "same-origin-allow-popups",
    }
    return {"statusCode": 303, "headers": headers, "body": ""}


def start(request: HttpRequest) -> Answer:
    """The install page, or the redirect to the consent page of the provider that a link was made for."""
    platform = platforms.load(request.path_parameter("platform"))
    token = link_token(request, is_required=bool(platform.authorization_links))
    browser = browser_of(request.cookie(COOKIE))
    sessions = install_sessions()
    try:
        session = sessions.open_link(request, token, browser) if token else sessions.begin(request, browser)
    except (Retryable, AwsError) as error:
        # With the cookie: the link may be this browser's by now.
        return with_cookie(unavailable(request, error), browser)
    if platform.authorization_links:
        location = platform.authorization_links.authorization_url(
            session.client, session.state, session.code_challenge, session.scopes
        )
        headers = {"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return with_cookie({"statusCode": 303, "headers": headers, "body": ""}, browser)
    from portaria.web import install_pages  # noqa: PLC0415

    consent_page = platform.require(platform.consent_page)
    in_popup = bool(session.display and customer_return(session.client, session.return_url).origin)
    return with_cookie(install_pages.start(request, session, consent_page, in_popup=in_popup), browser)


def claim(request: HttpRequest) -> Answer:
    """The page of a claim link, or, for its form, the page that says what happens next."""
    from portaria.web import install_pages  # noqa: PLC0415
    from portaria.webhooks.claim_sessions import ClaimSessions  # noqa: PLC0415

    sessions = ClaimSessions(table, clients, states)
    if request.method == "POST":
        confirmed = sessions.confirm(request)
        back_to = customer_return(confirmed.client, confirmed.return_url, status="claimed")
        return redirect(back_to.url) if back_to.url else install_pages.claimed(request, confirmed)
    token = link_token(request, is_required=True)
    browser = browser_of(request.cookie(COOKIE))
    return with_cookie(install_pages.claim(request, sessions.open_link(request, token, browser)), browser)


def link_token(request: HttpRequest, *, is_required: bool) -> Secret:
    """The token of an install link; empty where the page works without one. Raises `Rejected` (`missing_link`)."""
    tokens = checked_query(request).get("link", [])
    if len(tokens) > 1 or (is_required and not tokens):
        detail = "this address needs the token of one install link: ask for a new link"
        raise Rejected("missing_link", detail, field="link", status=404)
    if tokens and not tokens[0]:
        raise Rejected(
            "missing_link", "the token of the install link is empty: ask for a new link", field="link", status=404
        )
    return Secret(tokens[0] if tokens else "")


def result(request: HttpRequest) -> Answer:
    """The page that follows an install, its questions in JSON, or the redirect to the application when the install is over."""
    from portaria.webhooks.install_status import read_status  # noqa: PLC0415

    install = request.path_parameter("install")
    status = read_status(table, install)
    over = status.state if status.state in ("connected", "failed") else ""
    wants_json = "application/json" in request.headers.get("accept")
    client = None if wants_json and not (over and status.return_url) else known_client(request)
    back_to = customer_return(client, status.return_url, install, over)
    if wants_json:
        body = {"state": status.state, "reason": status.reason, "account": status.account}
        if back_to.url:
            body["return_to"] = back_to.url
        headers = {**PLAIN, "Content-Type": "application/json", "Vary": "Accept-Language, Accept"}
        return {"statusCode": 200, "headers": headers, "body": json.dumps(body)}
    in_popup = bool(request.query.get("display") == ["popup"] and back_to.origin)
    if back_to.url and not in_popup:
        return redirect(back_to.url)
    from portaria.web import install_pages  # noqa: PLC0415

    return install_pages.result(request, status, client, back_to if in_popup else None)


def refused(request: HttpRequest, state: Item) -> Answer:
    """Back to the application at once, if the link says where. `state` is empty where it was not this browser's."""
    client = known_client(request)
    back_to = customer_return(client, text(state, "return_url"), status="refused")
    in_popup = bool(text(state, "display") and back_to.url)
    if back_to.url and not in_popup:
        return redirect(back_to.url)
    from portaria.web import install_pages  # noqa: PLC0415

    return install_pages.refused(
        request,
        client,
        back_to if in_popup else None,
        has_link=bool(text(state, "link")),
        language=text(state, "language"),
    )


def logo(request: HttpRequest) -> Answer:
    from portaria.webhooks import client_logo  # noqa: PLC0415

    return client_logo.answer(table, request)


def turn_away(request: HttpRequest, reason: str, detail: str, status: int) -> Answer:
    """A page for people, one line for programs such as the install webhook."""
    if "text/html" not in request.headers.get("accept"):
        return {"statusCode": status, "headers": PLAIN, "body": f"{reason}: {detail}\n"}
    from portaria.web import install_pages  # noqa: PLC0415

    known = status != 404
    client = known_client(request) if known and reason != "unavailable" else None
    return install_pages.rejected(request, client, reason=reason, detail=detail, status=status, can_start=known)


def known_client(request: HttpRequest) -> OAuthClient | None:
    """The OAuth client whose page this is; None where there is none or it cannot be read, which a page can do without."""
    try:
        return clients.find(request.path_parameter("platform"), request.path_parameter("client"), PAGE_CLIENT_READ_S)
    except (Retryable, AwsError) as error:
        log("WARNING", "oauth_client_not_read", error=str(error), resource=request.resource)
        return None


def customer_return(client: OAuthClient | None, return_url: str, install: str = "", status: str = "") -> CustomerReturn:
    from portaria.webhooks import customer_return as returns  # noqa: PLC0415

    return returns.find(client, return_url, install, status)


def redirect(url: str) -> Answer:
    from portaria.webhooks import customer_return as returns  # noqa: PLC0415

    return returns.redirect(url)


def unavailable(request: HttpRequest, error: Exception) -> Answer:
    log("ERROR", "install_call_failed", error=str(error), resource=request.resource)
    detail = "storage cannot be reached; nothing was used up, so load this page again in a few seconds"
    answer = turn_away(request, "unavailable", detail, 503)
    return {**answer, "headers": {**answer["headers"], "Retry-After": str(RETRY_AFTER_S)}}


def install_sessions() -> InstallSessions:
    from portaria.webhooks.install_sessions import InstallSessions  # noqa: PLC0415

    return InstallSessions(table, clients, states)


def checked_query(request: HttpRequest) -> dict[str, list[str]]:
    """Raises `Rejected` (`query_too_long`, `bad_query`) for a query that is too long or not UTF-8."""
    query = request.query
    length = sum(len(name) + len(value) for name, several in query.items() for value in several)
    if length > MAX_QUERY_CHARACTERS:
        raise Rejected(
            "query_too_long",
            f"the query may have {MAX_QUERY_CHARACTERS} characters; this has {length}",
            field="query",
            status=414,
        )
    try:
        "".join(name + "".join(several) for name, several in query.items()).encode()
    except UnicodeEncodeError:
        raise Rejected("bad_query", "the query must be UTF-8, percent-encoded", field="query") from None
    return query


def with_cookie(answer: Answer, browser: str) -> Answer:
    # Lax, not Strict: the return from the consent page is a navigation from the platform's site.
    cookie = f"{COOKIE}={browser}; Path=/; Max-Age={COOKIE_LIFE_S}; Secure; HttpOnly; SameSite=Lax"
    return {**answer, "headers": {**answer["headers"], "Set-Cookie": cookie}}
