"""Programs call with a token without a pause, from several processes, while it is revoked: how many calls succeed after that.

Three ways to take away what a token may do: the private integration is deleted, its scope is taken away, or its token is
rotated and the old one expired at once. Counted are the calls that began after the change was answered, by the clock that all
processes of the machine share. Each call comes from an address of its own: after twenty tokens that do not work an address
is put off, and no more of its calls are looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from rich.table import Table

from bench.report import conclude, console
from bench.tokens.grants import running_stack
from local.__main__ import step
from local.stack import Stack

PROCESSES = 4
# In each process, all at once.
CALLERS = 3
# Calls of each caller that begin after the change.
CALLS_AFTER = 17
SCOPES = ["routes:list", "audit:list"]
LIMITS = {"succeeded_after": 0.0, "answered_otherwise": 0.0}


def measure() -> bool:
    with running_stack() as stack:
        outcomes = {name: run(stack, name, change) for name, (change, _) in CHANGES.items()}
    shown = Table(title="Calls with a token that is revoked meanwhile", title_justify="left")
    for heading in ("", "succeeded before", "begun after", "succeeded after", "refused as they should"):
        shown.add_column(heading, justify="right" if heading else "left")
    for name, outcome in outcomes.items():
        refused = outcome.after[CHANGES[name][1]]
        numbers = (outcome.before[200], outcome.after.total(), outcome.after[200], refused)
        shown.add_row(name, *map(str, numbers))
        if not outcome.before[200] or outcome.after.total() < PROCESSES * CALLERS * CALLS_AFTER:
            raise RuntimeError(f"too few calls went out: {outcomes}")
    console.print(shown)
    calls = sum(outcome.after.total() for outcome in outcomes.values())
    succeeded = sum(outcome.after[200] for outcome in outcomes.values())
    refused = sum(outcome.after[CHANGES[name][1]] for name, outcome in outcomes.items())
    figures: dict[str, float] = {
        "calls": calls,
        "succeeded_after": succeeded,
        "answered_otherwise": calls - succeeded - refused,
        "succeeded_before": sum(outcome.before[200] for outcome in outcomes.values()),
    }
    return conclude("revocation", figures, LIMITS)


class Administrator:
    """Somebody with AWS credentials, who manages private integrations."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.proxies = {"https": stack.proxy_url}
        self.session.verify = stack.ca_bundle
        credentials = Credentials(stack.access_key_id, stack.secret_access_key)
        self.signer = SigV4Auth(credentials, "execute-api", stack.region)

    def ask(self, method: str, path: str = "", body: Any = None) -> dict[str, Any]:
        url = f"{self.stack.public_url}/admin/v1/private-integrations{path}"
        data = None if body is None else json.dumps(body)
        signed = AWSRequest(method=method, url=url, data=data, headers={"Content-Type": "application/json"})
        self.signer.add_auth(signed)
        answer = self.session.request(method, url, data=data, headers=dict(signed.headers.items()), timeout=30)
        answer.raise_for_status()
        return dict(answer.json()) if answer.text else {}


# What takes a right away, and the status of a refusal for that reason.
Change = Callable[[Administrator, str], object]
CHANGES: dict[str, tuple[Change, int]] = {
    "deleted": (lambda who, id_: who.ask("DELETE", f"/{id_}"), 401),
    "its scope taken away": (lambda who, id_: who.ask("PATCH", f"/{id_}", {"scopes": ["audit:list"]}), 403),
    "rotated, expired now": (lambda who, id_: who.ask("POST", f"/{id_}/rotate", {"expire_now": True}), 401),
}


@dataclass(frozen=True)
class Outcome:
    """Calls by the status of their answer: those that ended before the change was asked for, those begun after its answer."""

    before: Counter[int]
    after: Counter[int]


def run(stack: Stack, name: str, change: Change) -> Outcome:
    """Let all callers call, make the change, let them call on."""
    administrator = Administrator(stack)
    made = administrator.ask("POST", body={"name": "bench", "scopes": SCOPES})
    with step(f"{PROCESSES * CALLERS} callers in {PROCESSES} processes, {name}"):
        processes = [start(stack, made["token"]) for _ in range(PROCESSES)]
        for process in processes:
            told = process.stdout.readline().strip() if process.stdout else ""
            assert told == "calling", told
        asked_at = time.monotonic()
        change(administrator, made["id"])
        changed_at = time.monotonic()
        for process in processes:
            tell(process, "changed")
        calls = [call for process in processes for call in json.loads(process.communicate(timeout=300)[0])]
    if name != "deleted":
        administrator.ask("DELETE", f"/{made['id']}")
    return Outcome(
        Counter(int(call["status"]) for call in calls if call["ended"] < asked_at),
        Counter(int(call["status"]) for call in calls if call["began"] > changed_at),
    )


def start(stack: Stack, token: str) -> subprocess.Popen[str]:
    """A process of callers, at work."""
    arguments = [f"{stack.public_url}/v1/routes", stack.proxy_url, stack.ca_bundle, str(CALLERS), str(CALLS_AFTER)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.tokens.token_callers", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    tell(process, token)
    return process


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
