"""LeadConnector's locations and contacts in process, at the edge of `requests`: which tokens work is the test's to say."""

from __future__ import annotations

import json
import re
from typing import Any

import requests
import responses

from tests.fakes.platforms.kommo import Answer

HOST = "services.leadconnectorhq.com"
LOCATION = "ve9EPM428h8vShlRW1KT"
JSON = {"Content-Type": "application/json"}


class LeadConnector:
    """`good` are the tokens that work for the location; `before` holds answers to give to the next calls, each once, None
    for the true one. `headers` come with every true answer."""

    def __init__(self, mock: responses.RequestsMock, *good: str) -> None:
        self.good = set(good)
        self.before: list[Answer | Exception | None] = []
        self.calls: list[requests.PreparedRequest] = []
        self.contacts: dict[str, dict[str, Any]] = {}
        self.headers: dict[str, str] = {}
        mock.add_callback("GET", f"https://{HOST}/locations/{LOCATION}", self._location)
        mock.add_callback("POST", f"https://{HOST}/contacts/upsert", self._upsert)
        mock.add_callback("GET", re.compile(rf"https://{HOST}/contacts/[^/]+"), self._contact)

    def _location(self, request: requests.PreparedRequest) -> Answer | Exception:
        return self._refuse(request) or (
            200,
            JSON | self.headers,
            json.dumps({"location": {"id": LOCATION, "name": "Padaria Exemplo"}}),
        )

    def _contact(self, request: requests.PreparedRequest) -> Answer | Exception:
        if refused := self._refuse(request):
            return refused
        found = self.contacts.get(str(request.url).rpartition("/")[2])
        return (200, JSON | self.headers, json.dumps({"contact": found})) if found else error(400, "Contact not found")

    def _upsert(self, request: requests.PreparedRequest) -> Answer | Exception:
        if refused := self._refuse(request):
            return refused
        given = json.loads(request.body or b"")
        assert given["locationId"] == LOCATION
        if "@" not in given.get("email", "@"):
            return error(422, ["email must be an email"])
        known = (each for each in self.contacts.values() if each.get("email") == given.get("email"))
        found = next(known, None)
        contact = {**(found or {"id": f"contact{len(self.contacts) + 1}"}), **given}
        self.contacts[contact["id"]] = contact
        answer = {"new": found is None, "contact": {"id": contact["id"], "locationId": LOCATION}, "traceId": "t"}
        return 200, JSON | self.headers, json.dumps(answer)

    def _refuse(self, request: requests.PreparedRequest) -> Answer | Exception | None:
        self.calls.append(request)
        if self.before and (answer := self.before.pop(0)):
            return answer
        assert request.headers["Version"] == "2021-07-28"
        if request.headers["Authorization"].removeprefix("Bearer ") not in self.good:
            return error(401, "Invalid Private Integration token")
        return None


def error(status: int, message: str | list[str], **more: Any) -> Answer:
    body: dict[str, Any] = {"statusCode": status, "message": message, **more}
    return status, JSON, json.dumps(body)
