"""Kommo's API v4: one contact, and requests that create and change contacts.

Pages: add contacts, update contacts (a list, or one by its id), get a contact, HTTP codes. A write through the API sends no
webhook here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from local.simulators.kommo.responses import hal, problem, unauthorized
from local.simulators.kommo.state import Account
from local.simulators.people import new_contact
from local.simulators.world import Clock, Route

MAX_BATCH = 250
TEXTS = ("name", "first_name", "last_name")

# The account of a request with a valid token.
Authorized = Callable[[web.BaseRequest], Account | None]


class ContactWrites:
    def __init__(self, clock: Clock, authorized: Authorized) -> None:
        self.clock = clock
        self.authorized = authorized

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/api/v4/contacts", self.create),
            Route("PATCH", "/api/v4/contacts", self.change_several),
            Route("GET", "/api/v4/contacts/{contact}", self.show),
            Route("PATCH", "/api/v4/contacts/{contact}", self.change_one),
        ]

    async def show(self, request: web.BaseRequest, parts: dict[str, str]) -> web.Response:
        account = self.authorized(request)
        if account is None:
            return unauthorized()
        contact = _find(account, parts["contact"])
        return hal(contact) if contact else problem(404, "Not Found")

    async def create(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        account = self.authorized(request)
        if account is None:
            return unauthorized()
        rows = await _rows(request)
        if isinstance(rows, web.Response):
            return rows
        made = []
        for number, row in enumerate(rows):
            contacts = account.contacts.contacts
            contact = new_contact(account.id, account.host, contacts, account.contacts.companies)
            self._set(contact, row)
            contacts.append(contact)
            made.append(_reference(contact, row, number, ("is_deleted", "is_unsorted")))
        account.contact_count = len(account.contacts.contacts)
        return self._answer(request, made)

    async def change_several(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        account = self.authorized(request)
        if account is None:
            return unauthorized()
        rows = await _rows(request)
        if isinstance(rows, web.Response):
            return rows
        found = [_find(account, str(row.get("id"))) for row in rows]
        if None in found:
            return problem(404, "Not Found")
        changed = []
        for number, (contact, row) in enumerate(zip(found, rows, strict=True)):
            assert contact is not None
            self._set(contact, row)
            changed.append(_reference(contact, row, number, ("updated_at",)))
        return self._answer(request, changed)

    async def change_one(self, request: web.BaseRequest, parts: dict[str, str]) -> web.Response:
        """The body is an object, never an array."""
        account = self.authorized(request)
        if account is None:
            return unauthorized()
        contact = _find(account, parts["contact"])
        if contact is None:
            return problem(404, "Not Found")
        row = await _json(request)
        if not isinstance(row, dict):
            return problem(400, "Bad Request", detail="Request data can not be empty")
        if refusal := _refusal([row]):
            return refusal
        self._set(contact, row)
        return hal({name: contact[name] for name in ("id", "updated_at", "_links")})

    def _set(self, contact: dict[str, Any], row: dict[str, Any]) -> None:
        contact |= {name: row[name] for name in (*TEXTS, "custom_fields_values") if name in row}
        if "name" not in row and {"first_name", "last_name"} & set(row):
            contact["name"] = f"{contact['first_name']} {contact['last_name']}".strip()
        contact["updated_at"] = int(self.clock.now())

    def _answer(self, request: web.BaseRequest, contacts: list[dict[str, Any]]) -> web.Response:
        links = {"self": {"href": f"https://{request.host}{request.path}"}}
        return hal({"_links": links, "_embedded": {"contacts": contacts}})


def _find(account: Account, identifier: str) -> dict[str, Any] | None:
    return next((each for each in account.contacts.contacts if str(each["id"]) == identifier), None)


async def _json(request: web.BaseRequest) -> Any:
    try:
        return await request.json()
    except ValueError:
        return None


async def _rows(request: web.BaseRequest) -> list[dict[str, Any]] | web.Response:
    """The rows of a body, or the refusal."""
    rows = await _json(request)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return problem(400, "Bad Request", detail="Request data can not be empty")
    if len(rows) > MAX_BATCH:
        return problem(422, "Unprocessable Entity", detail=f"Limit {MAX_BATCH} per page")
    return _refusal(rows) or rows


def _refusal(rows: list[dict[str, Any]]) -> web.Response | None:
    """400 with an error for each text that is not one, by the row's `request_id`."""
    errors = []
    for number, row in enumerate(rows):
        wrong = [
            {"code": "InvalidType", "path": name, "detail": "This value should be of type string."}
            for name in TEXTS
            if name in row and not isinstance(row[name], str)
        ]
        if wrong:
            errors.append({"request_id": str(row.get("request_id", number)), "errors": wrong})
    if not errors:
        return None
    return problem(400, "Bad Request", detail="Request validation failed", **{"validation-errors": errors})


def _reference(contact: dict[str, Any], row: dict[str, Any], number: int, more: tuple[str, ...]) -> dict[str, Any]:
    """What the response has of a contact: its id, the row's own id, and links."""
    request_id = str(row.get("request_id", number))
    return {name: contact[name] for name in ("id", *more)} | {"request_id": request_id, "_links": contact["_links"]}
