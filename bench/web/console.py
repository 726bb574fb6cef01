"""The console with 10,000 connections, 5,000 dead letters and 100,000 receipts: read units, processor time, sizes, axe.

The function runs in this process, over boto3, as it is deployed; the table is another process (`console_table`). Every page is
found by the links of the pages before it, once for each kind of page. CloudWatch's and CloudFormation's answers are given
here: the function asks for them once a minute or less often.
"""

from __future__ import annotations

import contextlib
import html
import io
import multiprocessing
import os
import re
import statistics
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Route, sync_playwright

from bench.aws_clients import new_clients
from bench.report import BUILD, conclude, console, row, table
from bench.web import console_table
from local.__main__ import step
from portaria.aws.stack_status import QueueAge, StackDescription, StackStatus
from portaria.outbound import public_addresses
from portaria.web.console.sections import SECTIONS
from tests.fakes import chromium
from tests.fakes.api.console import BASE, ORIGIN, Browser
from tests.fakes.aws import functions
from tests.simulation.aws.cloud import KEY_ID, TABLE

LIMITS = {"page_kb": 150.0, "server_ms_p50": 150.0, "reads_overview": 50.0, "axe_violations": 0.0}
LEAST = {"pages": 60.0, "actions": 40.0}
RUNS = 3
ADDRESS = (2, 1, 6, "", ("93.184.215.14", 443))
QUEUES = (
    "exchanges",
    "unproven_exchanges",
    "deferred_exchanges",
    "records",
    "bulk_records",
    "waiting_records",
    "renewals",
)


def measure() -> bool:
    with stack() as (browser, units):
        with step("the pages"):
            sizes = crawl(browser)
        with step(f"processor time, {RUNS} times each"):
            times = {path: server_ms(browser, path) for path in sizes}
        units()
        browser.get("/overview")
        reads = units()
        with step("axe, in both colour schemes"):
            violations = axe_violations(browser, list(sizes))
    shown = table("The console's pages", "ms of CPU")
    for path in sorted(times, key=lambda path: -statistics.median(times[path]))[:12]:
        row(shown, path, times[path], 1)
    console.print(shown)
    figures = {
        "page_kb": max(sizes.values()) / 1_000,
        "server_ms_p50": max(statistics.median(each) for each in times.values()),
        "server_ms_overview": statistics.median(times["/overview"]),
        "reads_overview": reads,
        "axe_violations": violations,
        "pages": len(sizes),
        "actions": sum(len(each.actions) + len(each.bulk) + bool(each.create) for each in SECTIONS),
    }
    return conclude("console", figures, LIMITS, LEAST)


def crawl(browser: Browser) -> dict[str, int]:
    """The size in bytes of a page of each kind, with its assets: by path, in the order of discovery."""
    found: dict[str, int] = {}
    kinds: set[str] = set()
    waiting = ["/overview", "/search?destination=marketo-main"]
    while waiting:
        path = waiting.pop(0)
        if kind(path) in kinds:
            continue
        kinds.add(kind(path))
        page = browser.get(path)
        if page.status != 200:
            raise RuntimeError(f"{path} answered {page.status}")
        if not page.headers["Content-Type"][0].startswith("text/html"):
            # A file to download.
            continue
        assets = set(re.findall(rf'"{BASE}(/assets/[^"]+)"', page.text))
        found[path] = len(page.text.encode()) + sum(len(browser.get(asset).text.encode()) for asset in assets)
        links = (html.unescape(link) for link in re.findall(rf'href="{BASE}(/[^"#]*)"', page.text))
        waiting += [link for link in links if not link.startswith("/assets/")]
    return found


def kind(path: str) -> str:
    """What pages have in common that differ only in ids and filters: `connections/*/test`."""
    steps, _, query = path.strip("/").partition("?")
    section, *more = steps.split("/")
    actions = {action.name for each in SECTIONS for action in (*each.actions, *each.bulk)} | {"new"}
    return "/".join([section, *(each if each in actions else "*" for each in more)]) + ("?" if query else "")


def server_ms(browser: Browser, path: str) -> list[float]:
    """The processor time of the handler alone: without the checks that tests add to it."""
    handler = browser.module.handler.__wrapped__
    taken = []

    def timed(event: dict[str, Any]) -> dict[str, Any]:
        started = time.process_time()
        answer: dict[str, Any] = handler(event, functions.Context())
        taken.append((time.process_time() - started) * 1_000)
        return answer

    with patch.object(browser, "handle", timed):
        for _ in range(RUNS + 1):
            browser.get(path)
    return taken[1:]


def axe_violations(browser: Browser, paths: list[str]) -> int:
    """In Chromium, whose requests are answered by the function."""
    count = 0
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium.path(), args=chromium.FLAGS)
        for scheme in ("light", "dark"):
            page = launched.new_context(color_scheme=scheme).new_page()
            page.route("**/*", lambda route: fulfil(browser, route))
            for path in paths:
                page.goto(f"{ORIGIN}{BASE}{path}")
                results = Axe().run(page, options={"resultTypes": ["violations"]})
                for violation in results.response["violations"]:
                    count += 1
                    console.print(
                        f"{path} ({scheme}): {violation['id']}", violation["nodes"][0]["html"][:200], markup=False
                    )
        launched.close()
    return count


def fulfil(browser: Browser, route: Route) -> None:
    path = route.request.url.removeprefix(ORIGIN).removeprefix(BASE)
    answered = browser.get(path)
    headers = {name: values[0] for name, values in answered.headers.items()}
    route.fulfill(status=answered.status, headers=headers, body=answered.text)


@contextlib.contextmanager
def stack() -> Iterator[tuple[Browser, Any]]:
    """A browser that is signed in, and how to learn the read units since the last question."""
    BUILD.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=console_table.serve, args=(theirs, BUILD), daemon=True)
    process.start()
    with step("the table"):
        port = ours.recv()

    def units() -> float:
        ours.send("units")
        return float(ours.recv())

    described = StackDescription("UPDATE_COMPLETE", "2026-11-01T10:00:00.000Z", {"ReconcileEvery": "30"}, {})
    ages = tuple(QueueAge(name, 4) for name in QUEUES)
    environment = _environment(port)
    try:
        with (
            patch.dict(os.environ, environment),
            patch.object(StackStatus, "alarms", return_value=()),
            patch.object(StackStatus, "queue_ages", return_value=ages),
            patch.object(StackStatus, "describe", return_value=described),
            new_clients(),
        ):
            browser = Browser(SimpleNamespace(environment=environment))  # type: ignore[arg-type]
            functions.log_to(io.StringIO())
            browser.sign_in()
            # Nothing is sent to the webhook's host.
            with patch.object(public_addresses, "resolve", return_value=[ADDRESS]):
                _create(browser)
            yield browser, units
    finally:
        process.terminate()
        process.join()


def _create(browser: Browser) -> None:
    """One of each that the table has not yet, through the API."""
    client = {"client_id": "5f3c1f0e-8b7a-4c1e-9d57-2b8d2f9a1c10", "client_secret": "example"}
    client |= {"redirect_uri": "https://api.example.com/install/kommo/acme"}
    for path, body in (
        ("/oauth-clients", {"platform": "kommo", "name": "acme", **client}),
        ("/private-integrations", {"name": "BI", "scopes": ["installs:list"]}),
        ("/webhooks", {"url": "https://app.example.com/hooks", "events": ["install.failed"]}),
        ("/install-links", {"platform": "kommo", "client": "acme", "tags": {"customer_id": "c-1"}}),
    ):
        made = browser.manage.call("POST", path, body)
        if made.status != 201:
            raise RuntimeError(f"{path} answered {made.status}: {made.text}")


def _environment(port: int) -> dict[str, str]:
    url = f"https://localhost:{port}"
    queues = ("UNINSTALLS", "BACKFILLS", "WAITING_RECORDS", "RECORDS", "WEBHOOK_DELIVERIES")
    return {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE00",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_SESSION_TOKEN": "example" * 100,
        "AWS_ENDPOINT_URL": url,
        "AWS_CA_BUNDLE": str(BUILD / "boto3.pem"),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "localhost",
        "POWERTOOLS_SERVICE_NAME": "portaria",
        "POWERTOOLS_METRICS_NAMESPACE": "Portaria",
        "TABLE_NAME": TABLE,
        "SECRETS_PREFIX": "portaria",
        "SEALING_KEY_ID": KEY_ID,
        "PRIVATE_INTEGRATION_MANAGERS": "administrators",
        "STACK_NAME": "portaria",
        "QUEUE_NAMES": ",".join(f"{name}={name}" for name in QUEUES),
        "CREDENTIAL_STORE": "secrets-manager",
        "EVENT_ENDPOINTS": "api",
        "SHARED_OUTBOUND_ADDRESSES": "0",
        "CALL_CONNECTION_FUNCTION": "arn:aws:lambda:us-east-1:123456789012:function:call_connection:live",
        **{f"{name}_QUEUE_URL": f"{url}/123456789012/{name.lower()}" for name in queues},
    }
