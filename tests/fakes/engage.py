"""Engage's log-in in process, at the edge of `requests`."""

from __future__ import annotations

import json
from urllib.parse import parse_qs

import requests
import responses

from tests.fakes.kommo import Answer

LOG_IN = {
    "username": "integração",
    "password": "canary senhã & co",
    "client_id": "engage-client",
    "client_secret": "canary-engage-secret",
}
CUSTOMER = "acme"


class Engage:
    """`hosts` counts the log-ins at each host; the last token given is good."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.hosts: list[str] = []
        for host in ("sandbox.engage.bz", "my.engage.bz"):
            mock.add_callback("POST", f"https://{host}/api/v1/auth", self._log_in)

    def _log_in(self, request: requests.PreparedRequest) -> Answer:
        self.hosts.append(str(request.url).split("/")[2])
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
        form = {name: values[0] for name, values in parse_qs(body).items()}
        json_type = {"Content-Type": "application/json"}
        if form != {"grant_type": "password", "customer_id": CUSTOMER, **LOG_IN}:
            refusal = {"error": "invalid_grant", "error_description": f"wrong: {form.get('password')}"}
            return 400, json_type, json.dumps(refusal)
        token = {
            "access_token": f"canary-engage-token-{len(self.hosts)}",
            "token_type": "bearer",
            "expires_in": 1499,
            "client_id": form["client_id"],
            "customer_id": CUSTOMER,
            "user_id": "1",
        }
        return 200, json_type, json.dumps(token)
