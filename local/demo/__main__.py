"""`make demo`: 24 accounts install, their contacts travel to Marketo, and every field is compared at the end.

Then a program calls with a private integration's token, and signs a person on at Engage: see `programs`. And then records
come by every other way there is, and the doctor looks at the stack: see `records`.

The product runs as deployed: its own functions, queues, table and roles. Only the platforms are simulated, and what goes
wrong on the way (a queue that refuses, a platform that answers 500, a forged hook) goes wrong outside the product.
"""

from __future__ import annotations

import html
import json
import random
import re
import secrets
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
import requests
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from local import stack as local_cloud
from local.__main__ import step
from local.configure import configure
from local.control import Control
from local.demo import programs, records
from local.processes import NotStarted
from local.stack import ROOT, Stack

ACCOUNTS = 24
BROWSERS = 8
REFUSALS = 2
CONTACTS = (100, 1000)
INSTALLS_PER_SECOND = 2.0
TROUBLE_S = 20.0
PATIENCE_S = 120.0
RESULT = ROOT / "build" / "demo.json"
FORGED_REFERERS = ("acme.kommo.com.evil.example",)

console = Console(highlight=False)


@dataclass
class Account:
    """One customer: how many contacts it has, how it installs, and what is special about that."""

    host: str
    contacts: int
    by: str
    special: str = ""


@dataclass
class Run:
    """One demo on one stack. Names are its own, so a stack that already runs can be used again and again."""

    stack: Stack
    control: Control
    mark: str = field(default_factory=lambda: secrets.token_hex(3))
    answers_ms: list[float] = field(default_factory=list)
    accepted: int = 0
    forged_refused: int = 0
    refusals_told: int = 0

    def __post_init__(self) -> None:
        self.client = f"demo-{self.mark}"
        self.client_id = f"demo-client-{self.mark}"
        self.client_secret = secrets.token_urlsafe(32)
        number = random.Random(self.mark).randrange(1000)
        letters = "".join(random.Random(self.mark).choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=3))
        self.munchkin = f"{number:03d}-{letters}-{number:03d}"
        self.install_url = f"{self.stack.public_url}/install/kommo/{self.client}"

    def session(self) -> requests.Session:
        """A browser, or Kommo's server: it reaches the API by its public name, through the proxy."""
        session = requests.Session()
        session.trust_env = False
        session.proxies = {"https": self.stack.proxy_url}
        session.verify = self.stack.ca_bundle
        return session

    def timed(self, session: requests.Session, url: str, query: dict[str, str]) -> requests.Response:
        """One arrival at the redirect URI, and how long its answer took."""
        started = time.monotonic()
        answer = session.get(url, params=query, allow_redirects=False, timeout=30)
        self.answers_ms.append((time.monotonic() - started) * 1000)
        return answer


# ------------------------------------------------------------------------------------------------------------ the cast


def cast(run: Run) -> list[Account]:
    """24 accounts of 100 to 1,000 contacts: hooks and browsers, three of the hooks with something special."""
    chance = random.Random(24)
    sizes = [chance.randint(*CONTACTS) for _ in range(ACCOUNTS)]
    sizes[0], sizes[1] = CONTACTS
    accounts = [
        Account(f"demo{run.mark}{number:02d}.kommo.com", size, "browser" if number >= ACCOUNTS - BROWSERS else "hook")
        for number, size in enumerate(sizes)
    ]
    accounts[3].special = "delivered three times"
    accounts[6].special = "while SQS refuses"
    accounts[9].special = f"while Kommo answers 500 for {TROUBLE_S:.0f} s"
    for account in accounts:
        run.control.add_kommo_account(account.host.partition(".")[0], contacts=account.contacts)
    return accounts


def register(run: Run) -> None:
    """Register the client with Kommo and Marketo, then with Portaria, as an administrator would: with a file."""
    run.control.add_kommo_client(run.client_id, run.client_secret, run.install_url, name="Portaria demo")
    marketo_secret = secrets.token_urlsafe(32)
    run.control.add_marketo_instance(run.munchkin, f"marketo-{run.mark}", marketo_secret)
    marketo = f"marketo-{run.mark}"
    configuration = {
        "clients": [
            {
                "platform": "kommo",
                "name": run.client,
                "client_id": run.client_id,
                "client_secret": {"env": "KOMMO_CLIENT_SECRET"},
                "redirect_uri": run.install_url,
            }
        ],
        "connections": [
            {
                "name": marketo,
                "platform": "marketo",
                "fields": {"munchkin_id": run.munchkin},
                "credentials": {"client_id": f"marketo-{run.mark}", "client_secret": {"env": "MARKETO_CLIENT_SECRET"}},
            }
        ],
        "routes": [
            {
                "name": f"contacts-{run.mark}",
                "source": f"client:kommo/{run.client}",
                "object": "contacts",
                "destination": marketo,
                "dedupe_fields": ["email"],
            }
        ],
    }
    told = configure(configuration, KOMMO_CLIENT_SECRET=run.client_secret, MARKETO_CLIENT_SECRET=marketo_secret)
    console.print(told, markup=False, soft_wrap=True)


# --------------------------------------------------------------------------------------------------------- the arrivals


def install(run: Run, account: Account) -> None:
    if account.by == "browser":
        through_browser(run, account.host, allow=True)
    elif account.special == "while SQS refuses":
        with run.stack.outage("accept_install", "sqs:SendMessage"):
            through_hook(run, account.host)
    elif account.special == "delivered three times":
        through_hook(run, account.host, times=3)
    else:
        if account.special:
            run.control.set_fault(
                "kommo", "status", account=account.host.partition(".")[0], status=500, duration_s=TROUBLE_S
            )
        through_hook(run, account.host)


def through_hook(run: Run, host: str, times: int = 1) -> None:
    """Send Kommo's install webhook, once or repeated."""
    code = run.control.issue_code(run.client_id, host)
    query = {"code": code.code, "referer": host, "from_widget": "1", "client_id": run.client_id, "platform": "1"}
    with run.session() as session:
        answers = [run.timed(session, run.install_url, query).status_code for _ in range(times)]
    run.accepted += answers[0] == 200


def through_browser(run: Run, host: str, *, allow: bool) -> None:
    """A customer: the install page, Kommo's consent page, the way back, and the result page."""
    with run.session() as session:
        page = session.get(f"{run.install_url}/start", timeout=30).text
        consent = re.search(r'href="(https://www\.kommo\.com/oauth\?[^"]+)"', page)
        if not consent:
            raise RuntimeError("the install page has no link to Kommo")
        wanted = {name: values[0] for name, values in parse_qs(urlsplit(html.unescape(consent[1])).query).items()}
        decision = {**wanted, "account": host, "decision": "allow" if allow else "deny", "opener": ""}
        back = session.post("https://www.kommo.com/oauth/decision", data=decision, allow_redirects=False, timeout=30)
        answer = run.timed(session, back.headers["Location"], {})
        if allow:
            run.accepted += answer.status_code == 303
        else:
            run.refusals_told += answer.status_code == 200


def forge(run: Run) -> None:
    """Hooks that would have the client secret sent elsewhere."""
    with run.session() as session:
        for referer in FORGED_REFERERS:
            query = {"code": secrets.token_urlsafe(40), "referer": referer, "from_widget": "1"}
            run.forged_refused += run.timed(session, run.install_url, query).status_code == 400


def arrive(run: Run, accounts: list[Account], told: Callable[[], None]) -> None:
    """Install all accounts at `INSTALLS_PER_SECOND`. Only one account installs while SQS refuses."""
    alone = [account for account in accounts if account.special == "while SQS refuses"]
    for account in alone:
        install(run, account)
        told()
    lock = threading.Lock()

    def one(work: Callable[[], None]) -> None:
        work()
        with lock:
            told()

    works: list[Callable[[], None]] = [
        lambda account=account: install(run, account)  # type: ignore[misc]
        for account in accounts
        if account not in alone
    ]
    refused = f"refuses{run.mark}.kommo.com"
    works[5:5] = [lambda: through_browser(run, refused, allow=False)]
    works[15:15] = [lambda: through_browser(run, refused, allow=False), lambda: forge(run)]
    with ThreadPoolExecutor(8) as pool:
        done = []
        for work in works:
            done.append(pool.submit(one, work))
            time.sleep(1 / INSTALLS_PER_SECOND)
        for future in done:
            future.result()


# ------------------------------------------------------------------------------------------------------ what to expect


def expected_persons(run: Run, accounts: list[Account]) -> tuple[dict[str, dict[str, str]], int]:
    """What Marketo must hold, by e-mail address, read from Kommo's simulator by this code's own rules, and how many
    contacts have no address and must be set aside."""
    persons: dict[str, dict[str, str]] = {}
    without_email = 0
    for account in accounts:
        data = run.control.kommo_contacts(account.host)
        companies = {company["id"]: company["name"] for company in data["companies"]}
        for contact in data["contacts"]:
            fields = {each["field_code"]: each["values"][0]["value"] for each in contact["custom_fields_values"] or []}
            company = next((companies[each["id"]] for each in contact["_embedded"]["companies"]), None)
            person = {
                "firstName": contact["first_name"] or contact["name"],
                "lastName": contact["last_name"],
                "email": fields.get("EMAIL"),
                "phone": fields.get("PHONE"),
                "company": company,
            }
            if person["email"]:
                persons[person["email"].lower()] = {name: value for name, value in person.items() if value}
            else:
                without_email += 1
    return persons, without_email


def compare(run: Run, expected: dict[str, dict[str, str]]) -> tuple[int, int]:
    """How many expected persons Marketo holds, and how many of all it holds are not exactly as expected."""
    held = {}
    for person in run.control.marketo_persons(run.munchkin):
        attributes = {name: value for name, value in person["attributes"].items() if value}
        held[str(attributes.get("email", "")).lower()] = attributes
    applied = sum(email in held for email in expected)
    wrong = sum(attributes != expected.get(email) for email, attributes in held.items())
    return applied, wrong


def set_aside(run: Run) -> int:
    """How many of this run's records are among the dead letters, each with its reason."""
    own = [each for each in listed(run, "DEAD_LETTERS") if each["connection"].startswith(f"kommo-{run.client}-")]
    return sum(int(letter["count"]) for letter in own if letter["reason"])


def installs(run: Run) -> list[dict[str, Any]]:
    """This run's installs."""
    return [item for item in listed(run, "INSTALLS") if item["client"] == run.client]


def listed(run: Run, name: str) -> list[dict[str, Any]]:
    """What the table lists, also of earlier runs on the same stack."""
    table = run.stack.client("dynamodb")
    pages = table.get_paginator("query").paginate(
        TableName=run.stack.table,
        IndexName="listing",
        KeyConditionExpression="list_pk = :name",
        ExpressionAttributeValues={":name": {"S": name}},
    )
    return [
        {name: next(iter(value.values())) for name, value in item.items()} for page in pages for item in page["Items"]
    ]


# ----------------------------------------------------------------------------------------------------------- the run


def watch(run: Run, accounts: list[Account], expected: int) -> None:
    """Show the bars until everything has arrived, or nothing has moved for too long."""
    columns = (TextColumn("{task.description:<34}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        arrivals = progress.add_task("webhooks answered", total=len(accounts) + REFUSALS + 1)
        connected = progress.add_task("accounts connected", total=len(accounts))
        applied = progress.add_task("contacts in Marketo", total=expected)
        failures: list[BaseException] = []

        def go() -> None:
            try:
                arrive(run, accounts, lambda: progress.advance(arrivals))
            except BaseException as error:
                failures.append(error)

        arriving = threading.Thread(target=go)
        arriving.start()
        seen, deadline = (0, 0, 0), time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and not failures:
            states = Counter(item["state"] for item in installs(run))
            persons = next(each for each in run.control.marketo() if each["munchkin"] == run.munchkin.lower())[
                "persons"
            ]
            progress.update(connected, completed=states["connected"])
            progress.update(applied, completed=persons)
            now = (states["connected"], persons, states["failed"])
            if now != seen:
                seen, deadline = now, time.monotonic() + PATIENCE_S
            if not arriving.is_alive() and states["connected"] >= len(accounts) and persons >= expected:
                break
            time.sleep(0.5)
        arriving.join()
        if failures:
            raise failures[0]


def figures(run: Run, expected: dict[str, dict[str, str]]) -> dict[str, Any]:
    states = Counter(item["state"] for item in installs(run))
    applied, wrong = compare(run, expected)
    marketo = run.control.marketo_requests(run.munchkin)
    answers = sorted(run.answers_ms)
    return {
        "installs_accepted": run.accepted,
        "installs_connected": states["connected"],
        "installs_lost": run.accepted - states["connected"],
        "contacts_expected": len(expected),
        "contacts_applied": applied,
        "contacts_wrong": wrong,
        "marketo_requests": sum(request["status"] == 202 for request in marketo),
        "forged_refused": run.forged_refused,
        "ack_p50_ms": round(statistics.median(answers)),
        "ack_p99_ms": round(answers[min(len(answers) - 1, int(len(answers) * 0.99))]),
    }


def verdict(run: Run, result: dict[str, Any], aside: int, without_email: int, foreign: list[str]) -> list[str]:
    """The problems, as sentences."""
    wrong = []
    if result["installs_accepted"] != ACCOUNTS:
        wrong.append(f"{result['installs_accepted']} of {ACCOUNTS} installs were accepted")
    if result["installs_lost"]:
        failed = [f"{each['account_host']} ({each['state']} {each.get('reason', '')})" for each in installs(run)
                  if each["state"] != "connected"]  # fmt: skip
        wrong.append(f"{result['installs_lost']} installs were lost: {', '.join(failed) or 'not found'}")
    if result["contacts_applied"] != result["contacts_expected"]:
        wrong.append(f"{result['contacts_expected'] - result['contacts_applied']} contacts did not arrive")
    if result["contacts_wrong"]:
        wrong.append(f"{result['contacts_wrong']} contacts differ from Kommo's")
    if aside != without_email:
        wrong.append(f"{aside} dead letters were stored; {without_email} contacts have no e-mail address")
    if run.forged_refused != len(FORGED_REFERERS):
        wrong.append("a forged webhook was not refused")
    if run.refusals_told != REFUSALS:
        wrong.append("the page after a refused consent did not say so")
    if foreign:
        wrong.append(f"requests were sent to {', '.join(foreign)}")
    return wrong


def show(run: Run, result: dict[str, Any], aside: int, program: programs.Outcome, of_records: records.Outcome) -> None:
    table = Table(title="Summary", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(style="dim")
    rows = [
        (
            "installs accepted",
            result["installs_accepted"],
            f"{ACCOUNTS - BROWSERS} by webhook, {BROWSERS} in a browser",
        ),
        ("installs connected", result["installs_connected"], "tokens stored, webhooks subscribed"),
        ("installs lost", result["installs_lost"], "with 1 repeated webhook and 2 outages"),
        ("consents refused", run.refusals_told, "the page says so; nothing is stored"),
        ("forged webhooks refused", result["forged_refused"], "no request to their hosts"),
        ("contacts expected", result["contacts_expected"], "contacts with an e-mail address"),
        ("contacts applied", result["contacts_applied"], "each field compared with Kommo"),
        ("contacts wrong", result["contacts_wrong"], ""),
        ("dead letters", aside, "contacts without an e-mail address"),
        ("requests to Marketo", result["marketo_requests"], "each up to 1,000 contacts and 1 MB"),
        ("webhook answered, median", f"{result['ack_p50_ms']} ms", "Kommo waits 3,000 ms"),
        ("webhook answered, p99", f"{result['ack_p99_ms']} ms", "cold starts included"),
        *program.rows(),
        *of_records.rows(),
        ("duration", f"{result['seconds']} s", ""),
    ]
    for name, value, remark in rows:
        table.add_row(name, f"{value:,}" if isinstance(value, int) else value, remark)
    console.print()
    console.print(table)


def play(stack: Stack) -> bool:
    """Run the demo once. True if there is no problem."""
    control = Control(stack.control_url)
    refused_before = set(control.hosts()["refused"])
    run = Run(stack, control)
    with step(f"Creating {ACCOUNTS} Kommo accounts and a Marketo instance"):
        accounts = cast(run)
        control.add_kommo_account(f"refuses{run.mark}")
    console.print("Registering them with a configuration file:")
    register(run)
    expected, without_email = expected_persons(run, accounts)
    started = time.monotonic()
    watch(run, accounts, len(expected))
    result = figures(run, expected)
    aside = set_aside(run)
    with step("Calling the API with a token, and signing a person on at Engage"):
        program = programs.play(stack, control, run.session, run.mark)
    result |= program.figures()
    connections = {item["account_host"]: item["connection"] for item in installs(run) if item["state"] == "connected"}
    scene = records.Records(
        stack,
        control,
        run.session,
        mark=run.mark,
        munchkin=run.munchkin,
        client=run.client,
        connections=connections,
    )
    of_records = scene.play(step, lambda report: console.print(report, markup=False, soft_wrap=True))
    result |= of_records.figures()
    expected, _ = expected_persons(run, accounts)
    of_program = {person["email"]: person for person in of_records.persons}
    result["contacts_wrong"] += compare(run, expected | of_program)[1]
    result["seconds"] = round(time.monotonic() - started)
    foreign = sorted(set(control.hosts()["refused"]) - refused_before)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show(run, result, aside, program, of_records)
    wrong = verdict(run, result, aside, without_email, foreign) + program.wrong() + of_records.wrong()
    console.print()
    for sentence in wrong:
        console.print(f"[red]✗ {sentence}[/]")
    if not wrong:
        console.print("[green]✓ Nothing was lost, and every contact is correct.[/]")
    console.print(f"[dim]The figures are in {RESULT.relative_to(ROOT)}.[/]")
    return not wrong


@click.command(help=__doc__)
@click.option("--keep", is_flag=True, help="Leave the local cloud running.")
def demo(keep: bool) -> None:
    sys.exit(run_demo(keep))


def run_demo(keep: bool) -> int:
    """The exit status of a run. A local cloud that did not run before is stopped again, unless it is to be kept."""
    running = Stack.read()
    ours = running is None or bool(running.dead_parts())
    try:
        stack = local_cloud.up(step, console.print, keep=keep)
        return 0 if play(stack) else 1
    except NotStarted as reason:
        console.print(f"[red]{reason}[/]", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if ours and not keep:
            with step("Stopping the local cloud"):
                local_cloud.down()


if __name__ == "__main__":
    demo()
