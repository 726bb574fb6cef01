"""The hosted pages of an install, as answers to a request: with its client's brand, in the link's or the browser's language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from portaria.core.callbacks import OAuthClient
from portaria.core.http.request import HttpRequest
from portaria.platforms.protocols import ConsentPage
from portaria.web import branding, render
from portaria.web.branding import Brand
from portaria.web.render import Page
from portaria.webhooks.claim_sessions import ClaimPage, ConfirmedClaim
from portaria.webhooks.customer_return import CustomerReturn
from portaria.webhooks.install_sessions import InstallSession
from portaria.webhooks.install_status import InstallStatus
from portaria.webhooks.page_urls import above_result, beside, is_of_result

Answer = dict[str, Any]


def start(request: HttpRequest, session: InstallSession, consent_page: ConsentPage, *, in_popup: bool) -> Answer:
    """A popup window gets no button of the platform, which would open a second one."""
    client, state = session.client, session.state
    return _answer(
        request,
        session.language,
        lambda language: render.start(
            language,
            brand=_brand(client),
            consent_url=consent_page.consent_url(client.client_id, state),
            button={} if in_popup else consent_page.button(client.client_id, state, language),
            allows=consent_page.scope_texts(client.scopes, language),
            in_popup=in_popup,
        ),
    )


def claim(request: HttpRequest, opened: ClaimPage) -> Answer:
    return _answer(
        request,
        opened.language,
        lambda language: render.claim(language, brand=_brand(opened.client), state=opened.state.reveal()),
    )


def claimed(request: HttpRequest, confirmed: ConfirmedClaim) -> Answer:
    return _answer(
        request, confirmed.language, lambda language: render.claimed(language, brand=_brand(confirmed.client))
    )


def result(
    request: HttpRequest, status: InstallStatus, client: OAuthClient | None, popup_return: CustomerReturn | None
) -> Answer:
    """How far an install is. `popup_return` is for a window that the application opened."""
    return _answer(
        request,
        status.language,
        lambda language: render.result(
            language,
            install=request.path_parameter("install"),
            state=status.state,
            # The start page without the link would forget what the link holds.
            start_url="" if status.link else above_result(request, "start"),
            reason=status.reason,
            account=status.account,
            brand=branding.of(client, above_result(request, "logo/")),
            popup_return=popup_return,
        ),
    )


def refused(
    request: HttpRequest,
    client: OAuthClient | None,
    popup_return: CustomerReturn | None,
    *,
    has_link: bool,
    language: str,
) -> Answer:
    """The customer refused. `has_link` and `language` are of the link that the install began with."""
    return _answer(
        request,
        language,
        lambda language: render.refused(
            language,
            start_url="" if has_link else beside(request, "start"),
            brand=branding.of(client, beside(request, "logo/")),
            popup_return=popup_return,
        ),
    )


def rejected(
    request: HttpRequest, client: OAuthClient | None, *, reason: str, detail: str, status: int, can_start: bool
) -> Answer:
    """A request that was refused, at any of the addresses. `can_start` shows the way to the start page."""
    relative = above_result if is_of_result(request) else beside
    return _answer(
        request,
        "",
        lambda language: render.rejected(
            language,
            reason=reason,
            detail=detail,
            start_url=relative(request, "start") if can_start else None,
            status=status,
            brand=branding.of(client, relative(request, "logo/")),
        ),
    )


def _brand(client: OAuthClient) -> Brand:
    """For a page that is directly below `/install/{platform}/{client}`."""
    return branding.of(client, "logo/")


def _answer(request: HttpRequest, chosen: str, make: Callable[[str], Page]) -> Answer:
    page = make(chosen or render.language_of(request.headers.get("accept-language")))
    return {"statusCode": page.status, "headers": page.headers, "body": page.body}
