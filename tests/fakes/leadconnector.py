"""LeadConnector's locations in process, at the edge of `requests`: which tokens work is the test's to say."""

from __future__ import annotations

import json
from typing import Any

import requests
import responses

from tests.fakes.kommo import Answer

HOST = "services.leadconnectorhq.com"
LOCATION = "ve9EPM428h8vShlRW1KT"
JSON = {"Content-Type": "application/json"}


class LeadConnector:
    """`good` are the tokens that work for the location; `before` holds answers to give to the next calls, each once."""

    def __init__(self, mock: responses.RequestsMock, *good: str) -> None:
        self.good = set(good)
        self.before: list[Answer | Exception] = []
        self.calls: list[requests.PreparedRequest] = []
        mock.add_callback("GET", f"https://{HOST}/locations/{LOCATION}", self._location)

    def _location(self, request: requests.PreparedRequest) -> Answer | Exception:
        self.calls.append(request)
        if self.before:
            return self.before.pop(0)
        assert request.headers["Version"] == "2021-07-28"
        if request.headers["Authorization"].removeprefix("Bearer ") not in self.good:
            return error(401, "Invalid Private Integration token")
        return 200, JSON, json.dumps({"location": {"id": LOCATION, "name": "Padaria Exemplo"}})


def error(status: int, message: str) -> Answer:
    body: dict[str, Any] = {"statusCode": status, "message": message}
    return status, JSON, json.dumps(body)
