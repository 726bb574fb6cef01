"""The demo's second part: a program with a private integration's token signs a person on at Engage.

The administrator uses the command line, the program HTTP with its token, the person a browser.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from local.configure import configure
from local.control import Control
from local.processes import NotStarted
from local.stack import ROOT, STACK_FILE, Stack

FRONT_END = "one.engage.bz"
LOGIN, IDENTIFIER = "ana@padaria.example", "employee-7"


@dataclass(frozen=True)
class Outcome:
    """Counts of events. Each is expected once, except the calls `answered` with a valid token (`CALLS`)."""

    answered: int
    old_token_refused: int
    token_after_revocation_refused: int
    sso_opened: int
    sso_let_in: int
    sso_reused_refused: int

    def figures(self) -> dict[str, int]:
        return {
            "token_calls_answered": self.answered,
            "token_after_rotation_refused": self.old_token_refused,
            "token_after_revocation_refused": self.token_after_revocation_refused,
            "sso_opened": self.sso_opened,
            "sso_let_in": self.sso_let_in,
            "sso_reused_refused": self.sso_reused_refused,
        }

    def rows(self) -> list[tuple[str, int, str]]:
        return [
            ("calls with a program's token", self.answered, "a private integration, rotated once"),
            ("refused: its old token, expired", self.old_token_refused, "the new token works"),
            ("refused: its token, revoked", self.token_after_revocation_refused, "from the next call on"),
            ("Engage links opened", self.sso_opened, f"{self.sso_let_in} person signed on at {FRONT_END}"),
            ("refused: a link opened again", self.sso_reused_refused, "the page says that it was used"),
        ]

    def problems(self) -> list[str]:
        """The problems, as sentences."""
        expected = {
            "a call with a token that works was not answered": self.answered == CALLS,
            "the old token worked after it was expired": self.old_token_refused == 1,
            "the token worked after it was revoked": self.token_after_revocation_refused == 1,
            f"the sign-on link did not lead to {FRONT_END}": self.sso_opened == 1,
            "Engage did not let the person in": self.sso_let_in == 1,
            "the sign-on link worked twice": self.sso_reused_refused == 1,
        }
        return [sentence for sentence, right in expected.items() if not right]


# List connections, register identifiers, create a link, list with both tokens during the rotation and with the new one after.
CALLS = 6


def play(stack: Stack, control: Control, session: Callable[[], requests.Session], mark: str) -> Outcome:
    """Run all calls, with names that contain `mark`. `session` creates clients that use the API's public name."""
    connection = connect(control, mark)
    scopes = ("connections:list", f"identifiers:register@{connection}", f"sso:create@{connection}")
    made = portaria("private-integrations", "create", f"Padaria {mark}", *(f"--scope={scope}" for scope in scopes))
    with session() as program, session() as browser:
        answers: list[requests.Response] = []

        def call(token: str, method: str, path: str, body: Any = None) -> requests.Response:
            headers = {"Authorization": f"Bearer {token}"}
            url = f"{stack.public_url}/v1/{path}"
            answers.append(program.request(method, url, json=body, headers=headers, timeout=30))
            return answers[-1]

        old = made["token"]
        call(old, "GET", "connections")
        users = [{"user_login": LOGIN, "identifier": IDENTIFIER}]
        call(old, "POST", f"connections/{connection}/identifiers", {"users": users})
        link = call(old, "POST", f"connections/{connection}/sso", {"user_identifier": IDENTIFIER}).json()["link"]
        opened = browser.get(link, allow_redirects=False, timeout=30)
        opened_again = browser.get(link, allow_redirects=False, timeout=30)
        new = portaria("private-integrations", "rotate", made["id"])["token"]
        for token in (old, new):
            call(token, "GET", "connections")
        portaria("private-integrations", "expire", made["id"])
        call(new, "GET", "connections")
        answered = sum(answer.ok for answer in answers)
        old_refused = call(old, "GET", "connections").status_code == 401
        portaria("private-integrations", "delete", made["id"], "--yes")
        revoked_refused = call(new, "GET", "connections").status_code == 401
    return Outcome(
        answered=answered,
        old_token_refused=int(old_refused),
        token_after_revocation_refused=int(revoked_refused),
        sso_opened=int(opened.status_code == 303 and urlsplit(opened.headers["Location"]).hostname == FRONT_END),
        sso_let_in=int(let_in(control, connection, opened.headers.get("Location", ""))),
        sso_reused_refused=int(opened_again.status_code == 410 and "Location" not in opened_again.headers),
    )


def connect(control: Control, mark: str) -> str:
    """Create a customer at Engage and a connection to it. Returns its name."""
    name = f"engage-{mark}"
    credentials = {key: secrets.token_urlsafe(24) for key in ("password", "client_secret", "customer_token")}
    control.add_engage_user(name, username=f"api-{mark}", client_id=f"portaria-{mark}", **credentials)
    control.add_engage_people(name, LOGIN)
    named = {key: {"env": f"ENGAGE_{key.upper()}"} for key in credentials}
    entry = {
        "name": name,
        "platform": "engage",
        "fields": {"customer_id": name},
        "credentials": {"username": f"api-{mark}", "client_id": f"portaria-{mark}", **named},
    }
    configure({"connections": [entry]}, **{f"ENGAGE_{key.upper()}": value for key, value in credentials.items()})
    return name


def let_in(control: Control, customer: str, location: str) -> bool:
    """Whether Engage's front end accepts the key of the redirect and signs on the intended person."""
    keys = parse_qs(urlsplit(location).fragment.partition("?")[2]).get("key", [""])
    try:
        return control.enter_engage(customer, keys[0]) == LOGIN
    except ValueError:
        return False


def portaria(*arguments: str) -> Any:
    """Run the command line as an administrator and return its JSON output. Raises `NotStarted` if it fails."""
    command = [sys.executable, "-m", "portaria_cli", "--stack-file", str(STACK_FILE), "--json", *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'layers' / 'portaria'}:{ROOT / 'cli'}"}
    done = subprocess.run(command, env=environment, check=False, text=True, capture_output=True)
    if done.returncode:
        raise NotStarted(f"portaria {' '.join(arguments)} failed: {done.stderr}".strip())
    return json.loads(done.stdout)
