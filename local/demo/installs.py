"""The demo's first part: 24 accounts install, by webhook and in a browser, with outages, refusals and forged webhooks."""

from __future__ import annotations

import html
import random
import re
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

from local.configure import configure
from local.demo.programs import portaria
from local.demo.run import Account, Run

ACCOUNTS = 24
BROWSERS = 8
# So many of those that install in a browser do so by an install link with tags.
LINKED = 4
REFUSALS = 2
CONTACTS = (100, 1000)
INSTALLS_PER_SECOND = 2.0
KOMMO_OUTAGE_S = 20.0
FORGED_REFERERS = ("acme.kommo.com.evil.example",)


def create_accounts(run: Run) -> list[Account]:
    """Create 24 accounts with 100 to 1,000 contacts. Three of those that install by webhook have a fault on their way."""
    chance = random.Random(24)
    sizes = [chance.randint(*CONTACTS) for _ in range(ACCOUNTS)]
    sizes[0], sizes[1] = CONTACTS
    accounts = [
        Account(
            f"demo{run.mark}{number:02d}.kommo.com", size, "browser" if number >= ACCOUNTS - BROWSERS else "webhook"
        )
        for number, size in enumerate(sizes)
    ]
    for number in range(ACCOUNTS - LINKED, ACCOUNTS):
        accounts[number].customer_id = f"customer-{run.mark}-{number}"
    accounts[3].fault = "delivered three times"
    accounts[6].fault = "while SQS refuses"
    accounts[9].fault = f"while Kommo answers 500 for {KOMMO_OUTAGE_S:.0f} s"
    for account in accounts:
        run.control.add_kommo_account(account.host.partition(".")[0], contacts=account.contacts)
    return accounts


def register(run: Run) -> str:
    """Register the client at Kommo and Marketo, then in Portaria with a configuration file, as an administrator does.

    Returns the output of `portaria configure`.
    """
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
    return configure(configuration, KOMMO_CLIENT_SECRET=run.client_secret, MARKETO_CLIENT_SECRET=marketo_secret)


def install(run: Run, account: Account) -> None:
    if account.by == "browser":
        install_in_browser(run, account.host, account.page_url or f"{run.install_url}/start", allow=True)
    elif account.fault == "while SQS refuses":
        with run.stack.outage("accept_install", "sqs:SendMessage"):
            install_by_webhook(run, account.host)
    elif account.fault == "delivered three times":
        install_by_webhook(run, account.host, times=3)
    else:
        if account.fault:
            run.control.set_fault(
                "kommo", "status", account=account.host.partition(".")[0], status=500, duration_s=KOMMO_OUTAGE_S
            )
        install_by_webhook(run, account.host)


def install_by_webhook(run: Run, host: str, times: int = 1) -> None:
    """Send Kommo's install webhook, once or repeated."""
    code = run.control.issue_code(run.client_id, host)
    query = {"code": code.code, "referer": host, "from_widget": "1", "client_id": run.client_id, "platform": "1"}
    with run.session() as session:
        answers = [run.timed(session, run.install_url, query).status_code for _ in range(times)]
    run.accepted += answers[0] == 200


def create_links(run: Run, accounts: list[Account]) -> None:
    """Create an install link for each customer with an id, as the team's application does."""
    for account in accounts:
        if account.customer_id:
            tag = f"customer_id={account.customer_id}"
            account.page_url = portaria("install-links", "create", f"kommo/{run.client}", "--tag", tag)["url"]


def install_in_browser(run: Run, host: str, page_url: str, *, allow: bool) -> None:
    """Install as a customer does: the install page, Kommo's consent page, and the redirect URI."""
    with run.session() as session:
        page = session.get(page_url, timeout=30)
        consent = re.search(r'href="(https://www\.kommo\.com/oauth\?[^"]+)"', page.text)
        if not consent:
            raise RuntimeError(f"the install page has no link to Kommo: {page.status_code} {page.text[:200]}")
        wanted = {name: values[0] for name, values in parse_qs(urlsplit(html.unescape(consent[1])).query).items()}
        decision = {**wanted, "account": host, "decision": "allow" if allow else "deny", "opener": ""}
        back = session.post("https://www.kommo.com/oauth/decision", data=decision, allow_redirects=False, timeout=30)
        answer = run.timed(session, back.headers["Location"], {})
        if allow:
            run.accepted += answer.status_code == 303
        else:
            run.refusals_shown += answer.status_code == 200


def send_forged_webhooks(run: Run) -> None:
    """Send install webhooks that name a foreign host as the one to send the client secret to."""
    with run.session() as session:
        for referer in FORGED_REFERERS:
            query = {"code": secrets.token_urlsafe(40), "referer": referer, "from_widget": "1"}
            run.forged_refused += run.timed(session, run.install_url, query).status_code == 400


def install_all(run: Run, accounts: list[Account], on_answer: Callable[[], None]) -> None:
    """Install all accounts at `INSTALLS_PER_SECOND`, the one whose install SQS refuses at first before all others."""
    alone = [account for account in accounts if account.fault == "while SQS refuses"]
    for account in alone:
        install(run, account)
        on_answer()
    lock = threading.Lock()

    def run_task(task: Callable[[], None]) -> None:
        task()
        with lock:
            on_answer()

    tasks: list[Callable[[], None]] = [
        lambda account=account: install(run, account)  # type: ignore[misc]
        for account in accounts
        if account not in alone
    ]
    refused = f"refuses{run.mark}.kommo.com"
    tasks[5:5] = [lambda: install_in_browser(run, refused, f"{run.install_url}/start", allow=False)]
    tasks[15:15] = [
        lambda: install_in_browser(run, refused, f"{run.install_url}/start", allow=False),
        lambda: send_forged_webhooks(run),
    ]
    with ThreadPoolExecutor(8) as pool:
        futures = []
        for task in tasks:
            futures.append(pool.submit(run_task, task))
            time.sleep(1 / INSTALLS_PER_SECOND)
        for future in futures:
            future.result()
