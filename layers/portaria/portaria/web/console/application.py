"""The console: signs a browser in, and answers its pages and forms.

    GET  /console                          the overview
    GET  /console/sign-in?link=…           opens a one-time link
    POST /console/sign-out
    GET  /console/assets/{name}
    GET  /console/{section}                a listing
    GET  /console/{section}/{id}           one thing
    GET  /console/{section}/new            a form that creates one
    GET  /console/{section}/{id}/{action}  a form, or a question before something is done
    POST                                   the same two: does it

A page that changes nothing is a GET, and every POST is checked by `guard`. After a POST the browser is redirected, unless the
answer holds something that is shown once.
"""

from __future__ import annotations

import re
import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

from aws_lambda_powertools import Logger

from portaria.access import console_sessions
from portaria.api import call_metrics
from portaria.api.api_url import api_url
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.request import HttpRequest
from portaria.web import render
from portaria.web.console import guard, pages
from portaria.web.console.pages import Frame

if TYPE_CHECKING:
    from portaria.access.console_sessions import ConsoleSession
    from portaria.api.router import Service
    from portaria.web.console.api_calls import Invoke
    from portaria.web.console.forms import Sent

Answer = dict[str, Any]
ROOT = "/console"
LANGUAGE_COOKIE = "portaria-console-language"
ASSET_LIFE = "public, max-age=31536000, immutable"
# A page below the console, for redirects.
_PLACE = re.compile(r"(?:/[A-Za-z0-9_-]+)*")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class Console:
    """`invoke` carries out an operation of the function `call_connection`."""

    def __init__(self, service: Service, invoke: Invoke, logger: Logger) -> None:
        self.service = service
        self.invoke = invoke
        self.logger = logger

    def answer(self, request: HttpRequest, context: Any) -> Answer:
        """Answer a request of API Gateway's proxy integration."""
        base = _base(request.path)
        language = _language(request)
        frame = Frame(language, base)
        try:
            return self._route(request, context, frame)
        except Rejected as refused:
            self.logger.warning("console_request_refused", reason=refused.reason)
            return self._message(frame, refused.status, refused.reason, refused.detail)
        except Exception as error:  # noqa: BLE001 - a person is waiting
            # The error's text may quote what was sent, so only its type and place are logged.
            kind, place = type(error).__name__, traceback.format_tb(error.__traceback__)
            self.logger.error("console_request_failed", error=kind, at=place)
            call_metrics.count(call_metrics.FAILED)
            return self._message(frame, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", request.request_id)

    def _route(self, request: HttpRequest, context: Any, frame: Frame) -> Answer:
        steps = [unquote(step) for step in request.path[len(frame.base) :].split("/") if step]
        if steps[:1] == ["assets"]:
            return _asset(steps)
        if steps == ["sign-in"]:
            return self._sign_in(request, frame)
        cookie = guard.read_cookie(request)
        session = console_sessions.find(self.service.context.table, cookie)
        if session is None:
            return self._signed_out(frame)
        sent: Sent = {}
        if request.method == "POST":
            from portaria.web.console import forms  # noqa: PLC0415

            sent = forms.parse(request.body, request.headers.get("content-type"))
            guard.check_form(request, cookie, sent, _origin(request))
        elif request.method not in ("GET", "HEAD"):
            raise Rejected("unknown_path", "this page does not exist", status=405)
        if steps == ["sign-out"] and sent:
            console_sessions.revoke(self.service.context.table, session.id)
            return _redirect(f"{frame.base}/sign-in", {"Set-Cookie": [guard.clear_cookie()]})
        if steps == ["language"] and sent:
            return self._set_language(frame, sent)
        return self._show(request, context, frame, steps, session, cookie, sent)

    def _show(
        self, request: HttpRequest, context: Any, frame: Frame, steps: list[str], session: ConsoleSession, cookie: Secret,
        sent: Sent,
    ) -> Answer:  # fmt: skip
        # Imported here: only a browser that is signed in needs the pages, and with them all operations.
        from portaria.web.console.session_pages import SessionPages  # noqa: PLC0415

        of_session = SessionPages(self.service, self.invoke, ROOT)
        visit = of_session.visit(request, context, frame, session, cookie, sent)
        try:
            outcome = of_session.show(visit, steps)
        except Retryable as later:
            self.logger.error("console_action_postponed", reason=later.reason)
            return self._message(visit.frame, HTTPStatus.SERVICE_UNAVAILABLE, later.reason, later.detail)
        if outcome.redirect:
            query = f"?{urlencode(outcome.query)}" if outcome.query else ""
            return _redirect(f"{frame.base}/{outcome.redirect}{query}")
        return _html(outcome.status, outcome.body, {name: [value] for name, value in outcome.headers.items()})

    def _sign_in(self, request: HttpRequest, frame: Frame) -> Answer:
        """Open a link. The next page is loaded by this one: a redirect from elsewhere carries no `SameSite=Strict` cookie."""
        links = request.query.get("link", [])
        if len(links) != 1 or request.method != "GET":
            return self._signed_out(frame)
        session, cookie = console_sessions.open_link(
            self.service.context.table, Secret(links[0]), request.source_address, request.headers.get("user-agent")
        )
        self.logger.info("console_session_opened", session=session.id, principal=session.principal)
        life_s = int(console_sessions.SESSION_LIFE.total_seconds())
        body = pages.render("signed_in.html", frame)
        return _html(HTTPStatus.OK, body, {"Set-Cookie": [guard.set_cookie(cookie, life_s)]})

    def _signed_out(self, frame: Frame) -> Answer:
        return _html(HTTPStatus.UNAUTHORIZED, pages.render("signed_out.html", frame))

    def _message(self, frame: Frame, status: int, reason: str, detail: str) -> Answer:
        return _html(status, pages.render("message.html", frame, status=int(status), reason=reason, detail=detail))

    def _set_language(self, frame: Frame, sent: Sent) -> Answer:
        wanted = sent.get("language", [""])[0]
        if wanted not in render.LANGUAGES:
            raise Rejected("bad_language", "choose pt, es or en", field="language")
        back = sent.get("back", [""])[0]
        below = back.removeprefix(frame.base)
        place = back if back != below and _PLACE.fullmatch(below) else frame.base
        cookie = f"{LANGUAGE_COOKIE}={wanted}; Path=/; Max-Age=31536000; HttpOnly; Secure; SameSite=Strict"
        return _redirect(place, {"Set-Cookie": [cookie]})


def _html(status: int, body: str, headers: dict[str, list[str]] | None = None) -> Answer:
    standard = {
        **{name: [value] for name, value in render.PAGE_HEADERS.items()},
        "Content-Security-Policy": [POLICY],
        "Referrer-Policy": ["same-origin"],
        "Cross-Origin-Opener-Policy": ["same-origin"],
    }
    return {"statusCode": int(status), "multiValueHeaders": standard | (headers or {}), "body": body}


def _redirect(place: str, headers: dict[str, list[str]] | None = None) -> Answer:
    standard = {"Location": [place], "Cache-Control": ["no-store"]}
    return {"statusCode": int(HTTPStatus.SEE_OTHER), "multiValueHeaders": standard | (headers or {}), "body": ""}


def _asset(steps: list[str]) -> Answer:
    name = steps[1].partition("-")[2] if len(steps) == 2 else ""
    if name not in pages.ASSETS:
        raise Rejected("unknown_path", "this page does not exist", status=404)
    headers = {
        "Content-Type": [pages.ASSETS[name]],
        "Cache-Control": [ASSET_LIFE],
        "X-Content-Type-Options": ["nosniff"],
    }
    return {"statusCode": 200, "multiValueHeaders": headers, "body": pages.asset(name).decode()}


def _origin(request: HttpRequest) -> str:
    return "/".join(api_url(request).split("/")[:3])


def _base(path: str) -> str:
    """Where the console is: the path with its stage, up to `/console`."""
    before, found, _ = path.partition(ROOT)
    return before + ROOT if found else ROOT


def _language(request: HttpRequest) -> str:
    chosen = request.cookie(LANGUAGE_COOKIE)
    return chosen if chosen in render.LANGUAGES else render.language_of(request.headers.get("accept-language"))
