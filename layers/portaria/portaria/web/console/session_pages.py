"""The pages of a browser that is signed in."""

from __future__ import annotations

from typing import Any

from portaria.access.console_sessions import ConsoleSession
from portaria.api.authentication import CONSOLE, Caller
from portaria.api.router import Service
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected
from portaria.core.http.request import HttpRequest
from portaria.web.console import guard, overview, pages, resource_pages, special_pages
from portaria.web.console.api_calls import ApiCalls, Invoke, Problem
from portaria.web.console.forms import Sent
from portaria.web.console.pages import Frame
from portaria.web.console.sections import BY_NAME, SECTIONS
from portaria.web.console.visit import Outcome, Visit

OVERVIEW, SEARCH, SETTINGS = "overview", "search", "settings"


class SessionPages:
    """`root` is the console's path below the stage. `invoke` carries out an operation of the function `call_connection`."""

    def __init__(self, service: Service, invoke: Invoke, root: str) -> None:
        self.service = service
        self.invoke = invoke
        self.root = root

    def visit(
        self, request: HttpRequest, context: Any, frame: Frame, session: ConsoleSession, cookie: Secret, sent: Sent
    ) -> Visit:
        """What the pages need of a request and of the session that it belongs to."""
        caller = Caller(
            session.principal, f"console session {session.id[:8]}", request.source_address, session.scopes, CONSOLE
        )
        stage = frame.base.removesuffix(self.root)
        api = ApiCalls(self.service, caller, request, context, self.invoke, stage)
        names = [each.name for each in SECTIONS if not each.parent and api.allows(each.list_operation)]
        if any(api.allows(each) for each in ("list_receipts", "list_dead_letters")):
            names.insert(0, SEARCH)
        if api.allows("show_settings"):
            names.append(SETTINGS)
        whole = Frame(
            frame.language,
            frame.base,
            principal=session.principal.rpartition(":")[2],
            csrf=guard.csrf_token(cookie),
            sections=tuple(names),
            is_read_only=session.scopes is not None,
        )
        query = {name: values[0] for name, values in request.query.items() if values and values[0]}
        return Visit(whole, api, query, sent, request.method == "POST", self.service.context)

    def show(self, visit: Visit, steps: list[str]) -> Outcome:
        """The page of a path below the console. Raises `Rejected` and `Retryable`."""
        name = steps[0] if steps else OVERVIEW
        visit = visit.at(BY_NAME[name].parent or name if name in BY_NAME else name)
        try:
            if name == OVERVIEW and len(steps) <= 1:
                return overview.show(visit)
            special = special_pages.find(steps)
            if special:
                return special(visit)
            if name not in BY_NAME:
                raise Rejected("unknown_path", "this page does not exist", status=404)
            return resource_pages.show(visit, BY_NAME[name], steps[1:])
        except Problem as problem:
            return Outcome(pages.render("problem.html", visit.frame, problem=problem), problem.status)
