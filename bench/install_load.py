"""200 installs at 5 a second on the local cloud, from no warm process: how long Kommo waits for each answer.

Each install is a new account's widget hook over a connection of its own, as Kommo sends it, by the API's public name. Meanwhile
their codes are exchanged on the same two cores. At the end every install must be connected: an answer alone proves nothing.
"""

from __future__ import annotations

import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from bench.report import conclude, console, row, table
from local import lifecycle
from local.__main__ import step
from local.configure import configure
from local.control import Control, IssuedCode
from local.stack import Stack
from portaria.core.callbacks import Secret
from portaria.webhooks.install_receiver import install_id

INSTALLS = 200
PER_SECOND = 5.0
BUDGET_MS = 3_000
# What a hook counts for that got no answer, or not 200.
UNANSWERED_MS = 30_000.0
PATIENCE_S = 300.0
LIMITS = {"over_budget": 0.0, "not_connected": 0.0}


def measure() -> bool:
    running = Stack.read()
    ours = running is None or bool(running.dead_parts())
    try:
        return load(lifecycle.up(step, console.print))
    finally:
        if ours:
            with step("Stopping what was started"):
                lifecycle.down()


def load(stack: Stack) -> bool:
    control = Control(stack.control_url)
    client = f"load-{secrets.token_hex(3)}"
    url = f"{stack.public_url}/install/kommo/{client}"
    with step(f"Registering a client and {INSTALLS} accounts"):
        codes = register(control, client, url)
    with step("Ending every warm process"):
        end_warm_processes(stack)
    with step(f"{INSTALLS} installs at {PER_SECOND:g} a second"):
        answers_ms = send(stack, url, codes)
    with step("Waiting until each is connected"):
        missing = wait_until_connected(stack, [install_id("kommo", client, Secret(code.code)) for code in codes])

    shown = table("Install load", "ms")
    row(shown, "answer to a hook", answers_ms)
    row(shown, "the first five", answers_ms[:5])
    console.print(shown)
    percentiles = statistics.quantiles(answers_ms, n=100, method="inclusive")
    figures = {
        "installs": len(answers_ms),
        "over_budget": sum(answer_ms > BUDGET_MS for answer_ms in answers_ms),
        "not_connected": len(missing),
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        "max_ms": max(answers_ms),
    }
    return conclude("install_load", figures, LIMITS)


def register(control: Control, client: str, url: str) -> list[IssuedCode]:
    """A client known to Kommo and to Portaria, and a code of each of as many new accounts."""
    client_id, client_secret = f"{client}-id", secrets.token_urlsafe(32)
    control.add_kommo_client(client_id, client_secret, url, name="Load")
    described = {
        "platform": "kommo",
        "name": client,
        "client_id": client_id,
        "client_secret": {"env": "CLIENT_SECRET"},
        "redirect_uri": url,
    }
    configure({"clients": [described]}, CLIENT_SECRET=client_secret)
    codes = []
    for number in range(INSTALLS):
        account = control.add_kommo_account(f"{client}{number:03d}", contacts=0)
        codes.append(control.issue_code(client_id, account["host"]))
    return codes


def end_warm_processes(stack: Stack) -> None:
    """A change of a function's configuration ends its processes; the same value again is a change too."""
    functions = stack.client("lambda")
    for name in stack.functions.values():
        timeout_s = functions.get_function_configuration(FunctionName=name)["Timeout"]
        functions.update_function_configuration(FunctionName=name, Timeout=timeout_s)
    for name in stack.functions.values():
        functions.get_waiter("function_updated_v2").wait(
            FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )


def send(stack: Stack, url: str, codes: list[IssuedCode]) -> list[float]:
    """Send the hooks at their pace, however slow the answers are; returns each answer's time."""
    begins = time.monotonic() + 1

    def hook(number: int) -> float:
        time.sleep(max(0.0, begins + number / PER_SECOND - time.monotonic()))
        code = codes[number]
        query = {"code": code.code, "referer": code.referer, "client_id": code.client_id, "from_widget": "1"}
        with requests.Session() as session:
            session.trust_env = False
            session.proxies = {"https": stack.proxy_url}
            session.verify = stack.ca_bundle
            started = time.monotonic()
            try:
                answer = session.get(url, params=query, timeout=30)
            except requests.RequestException as error:
                answered = type(error).__name__
            else:
                answered = "" if answer.status_code == 200 else f"{answer.status_code}: {answer.text[:100]}"
            took_ms = (time.monotonic() - started) * 1000
        if answered:
            console.print(f"[red]Hook {number} was answered {answered}[/]")
        return UNANSWERED_MS if answered else took_ms

    with ThreadPoolExecutor(max_workers=50) as pool:
        return list(pool.map(hook, range(len(codes))))


def wait_until_connected(stack: Stack, installs: list[str]) -> list[str]:
    """Returns those that are not connected after all."""
    missing, deadline = installs, time.monotonic() + PATIENCE_S
    while missing and time.monotonic() < deadline:
        time.sleep(1)
        missing = [
            install for install in missing if state(stack.client("dynamodb"), stack.table, install) != "connected"
        ]
    return missing


def state(dynamodb: Any, table_name: str, install: str) -> str:
    key = {"pk": {"S": f"INSTALL#{install}"}, "sk": {"S": "INSTALL"}}
    item = dynamodb.get_item(TableName=table_name, Key=key, ConsistentRead=True).get("Item", {})
    return str(item.get("state", {}).get("S", ""))
