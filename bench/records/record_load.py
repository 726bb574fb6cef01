"""Live events of 20 tenants on the local cloud, with and without one tenant's backfill of 5,000 contacts beside them.

Phases without and with the backfill take turns, at the same pace. A contact changes in its account, and then the event of the
change is sent. The delay is from then to the request that brought the contact to Marketo's simulator. Some events come twice,
some seconds after a newer one of the same contact, and in phases with a backfill one tenant's events are of contacts that the
backfill brings, too. At the end of each phase every contact must stand in Marketo, in its newest version.

Some contacts have two events at the same time. Two workers may send them at the same time, so that the older version arrives
last. The account is read again because an event lacks the parts of a name: at the end, these contacts must be right, too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests

from bench.processor_time import ProcessorTime
from bench.records.contact_changes import ContactChanges, Event
from bench.report import conclude, console, row, table
from bench.tokens.fan_in import percentile_99
from bench.tokens.grants import as_a_worker, running_stack
from local.__main__ import step
from local.control import Control
from local.stack import Stack
from portaria.aws.table import Table
from portaria.connections import connection_store, oauth_clients, webhook_endpoints
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection, Route
from portaria.delivery import backlogs
from portaria.records import routes
from portaria.sources import backfill

TENANTS = 20
# In all phases with a backfill together; as many again in those without.
EVENTS = int(os.environ.get("EVENTS", "1000"))
CONTACTS = int(os.environ.get("CONTACTS", "5000"))
PAIRS = int(os.environ.get("PAIRS", "2"))
PER_SECOND = float(os.environ.get("PER_SECOND", "10"))
# Long enough for every function of a schedule to have started.
WARMING_S = 65.0
# How long after the event of a newer change a late one comes.
BEHIND_S = 3.0
# A sweep each minute has accounts read again whose events lacked something.
READING_S = 150.0
# Every call in progress has a process of its own at MiniStack.
MAX_CONCURRENT = 8
PATIENCE_S = 600.0
LIMITS = {"missing": 0.0, "stale": 0.0, "live_delay_ratio": 2.0}


@dataclass
class Phase:
    """`missing` and `stale` are the e-mail addresses of contacts that are not in Marketo at its end, or in an older version."""

    events: int
    delays_s: list[float]
    took_s: float
    missing: set[str]
    stale: set[str]


def measure() -> bool:
    with running_stack() as stack, as_a_worker(stack):
        load = Load(stack)
        with step(f"Connecting {TENANTS + PAIRS + 1} accounts"):
            load.connect()
        # This starts the processes of every function that the phases need, including the backfill.
        warming = int(WARMING_S * PER_SECOND)
        with step(f"{warming} events beside a backfill to warm up"):
            load.phase(TENANTS + PAIRS, warming)
        without, beside = [], []
        alone, together = ProcessorTime(stack), ProcessorTime(stack)
        for number in range(PAIRS):
            with step(f"{EVENTS // PAIRS} events without a backfill"), alone:
                without.append(load.phase(None, EVENTS // PAIRS))
            with step(f"{EVENTS // PAIRS} events beside a backfill of {CONTACTS} contacts"), together:
                beside.append(load.phase(TENANTS + number, EVENTS // PAIRS))
        with step("Waiting until the accounts with such events have been read again"):
            load.wait_until_read_again()
            _, left = load.look()
    show_processors("without a backfill", alone, without)
    show_processors("beside a backfill", together, beside)
    return show(load, without, beside, alone, together, left)


def show_processors(name: str, used: ProcessorTime, phases: list[Phase]) -> None:
    parts = [f"{part} {took_ms:.1f}" for part, took_ms in milliseconds_an_event(used, phases).items()]
    console.print(
        f"Processor milliseconds an event, {name}: {', '.join(parts)}; "
        f"{used.processors_used:.2f} processors busy, {used.cold_starts.total()} cold starts"
    )


def milliseconds_an_event(used: ProcessorTime, phases: list[Phase]) -> dict[str, float]:
    """The processor time of each part of the local cloud that takes a tenth of a millisecond or more, the busiest first."""
    events = sum(phase.events for phase in phases)
    return {part: 1000 * took_s / events for part, took_s in used.busiest if 1000 * took_s / events >= 0.1}


def show(
    load: Load,
    without: list[Phase],
    beside: list[Phase],
    alone: ProcessorTime,
    together: ProcessorTime,
    left: set[str],
) -> bool:
    shown = table("From an event's sending to Marketo", "s")
    for name, phases in (("without a backfill", without), ("beside it", beside)):
        row(shown, name, [delay for phase in phases for delay in phase.delays_s], digits=2)
    console.print(shown)
    p99 = {name: statistics.median(percentile_99(phase.delays_s) for phase in phases) for name, phases in
           (("without", without), ("beside", beside))}  # fmt: skip
    p50 = {name: statistics.median(statistics.median(phase.delays_s) for phase in phases) for name, phases in
           (("without", without), ("beside", beside))}  # fmt: skip
    phases = [*without, *beside]
    missing = {each for phase in phases for each in phase.missing}
    passing = {each for phase in phases for each in phase.stale}
    # Two events at the same time may leave the older version until the account is read again.
    stale = (passing - load.changes.concurrent) | left
    for what, emails in (("missing", missing), ("stale", stale)):
        if emails:
            console.print(f"[red]{what}: {', '.join(sorted(emails)[:10])}[/]")
    figures = {
        "tenants": TENANTS,
        "events_a_second": PER_SECOND,
        "events": load.accepted,
        "backfilled": PAIRS * CONTACTS,
        "sent": len(load.newest),
        "missing": len(missing),
        "stale": len(stale),
        "concurrent_changes": len(load.changes.concurrent),
        "stale_until_read_again": len(passing & load.changes.concurrent),
        "refused": load.refused,
        "live_p50_s": p50["without"],
        "live_p50_s_beside": p50["beside"],
        "live_p99_s": p99["without"],
        "live_p99_s_beside": p99["beside"],
        "live_delay_ratio": p99["beside"] / p99["without"],
        "p50_ratio": p50["beside"] / p50["without"],
        "backfill_s": statistics.median(phase.took_s for phase in beside),
        "processors_used": alone.processors_used,
        "processors_used_beside": together.processors_used,
        "cold_starts": (alone.cold_starts + together.cold_starts).total(),
    }
    figures |= {f"ms_an_event_{part}": took_ms for part, took_ms in milliseconds_an_event(alone, without).items()}
    figures |= {
        f"ms_an_event_beside_{part}": took_ms for part, took_ms in milliseconds_an_event(together, beside).items()
    }
    return conclude("record_load", figures, LIMITS | {"refused": 0.0})


class Load:
    """`connect` comes first; then `phase` any number of times, or its parts `draw`, `send`, `left` and `look`."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.control = Control(stack.control_url)
        self.table, self.vault = Table(stack.table), Vault(stack.stack_name)
        self.name = f"load{secrets.token_hex(3)}"
        self.client = OAuthClient(
            "kommo", self.name, f"id-{self.name}", f"{stack.public_url}/install/kommo/{self.name}"
        )
        self.client_secret = secrets.token_urlsafe(32)
        letters = "".join(secrets.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(3))
        self.munchkin = f"{secrets.randbelow(1000):03d}-{letters}-{secrets.randbelow(1000):03d}"
        self.accounts: list[dict[str, Any]] = []
        self.connections: list[Connection] = []
        self.urls: list[str] = []
        self.accepted = self.refused = 0

    # ------------------------------------------------------------------------------------------------------------ setting up

    def connect(self) -> None:
        """Marketo, a route to it for all accounts of a client, and those accounts; the last ones have contacts to read."""
        self.control.add_marketo_instance(self.munchkin, "id", self.client_secret)
        secret_id = self.vault.grant_id(f"marketo-{self.name}")
        self.vault.create(secret_id, {"client_id": Secret("id"), "client_secret": Secret(self.client_secret)})
        connection_store.create(
            self.table,
            Connection(
                f"marketo-{self.name}", "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", "connected", 1,
                secret_id, fields={"munchkin_id": self.munchkin}, created_at=clock.to_iso(clock.now()),
            ),
        )  # fmt: skip
        self.control.add_kommo_client(self.client.client_id, self.client_secret, self.client.redirect_uri, name="Load")
        oauth_clients.put(self.table, self.client, new=True)
        route = Route(f"route-{self.name}", f"client:kommo/{self.name}", "contacts", f"marketo-{self.name}")
        routes.put(self.table, route, new=True)
        for number in range(TENANTS + PAIRS + 1):
            self.connect_account(number, CONTACTS if number >= TENANTS else 0)
        self.changes = ContactChanges(self.control, self.name, [account["host"] for account in self.accounts])

    @property
    def newest(self) -> dict[str, str]:
        """The version in which each contact must stand in Marketo, by e-mail address."""
        return self.changes.newest

    def connect_account(self, number: int, contacts: int) -> None:
        account = self.control.add_kommo_account(f"{self.name}-{number}", contacts=contacts, without_email=0.0)
        name = f"kommo-{self.name}-{number}"
        # An event whose contact must be read again needs the token, too.
        token = {"access_token": self.token(account["host"]), "expires_at": "2999-01-01T00:00:00.000Z"}
        token |= {"token_type": "bearer", "scopes": ""}
        secret_id = self.vault.grant_id(name)
        version_id = self.vault.create(secret_id, {each: Secret(value) for each, value in token.items()})
        now = clock.to_iso(clock.now())
        connection = Connection(
            name, "kommo", "oauth2", account["host"], "connected", 1, secret_id, version_id, client=self.name,
            account_id=str(account["id"]), created_at=now, updated_at=now, granted_at=now,
        )  # fmt: skip
        connection_store.create(self.table, connection)
        key = Secret(secrets.token_urlsafe(webhook_endpoints.KEY_BYTES))
        webhook_endpoints.open_address(self.table, connection, key)
        self.accounts.append(account)
        self.connections.append(connection)
        self.urls.append(f"{self.stack.api_url}/events/kommo/{name}/{key.reveal()}")

    def token(self, host: str) -> str:
        """An access token of an account, as an install would get it."""
        given = {
            "client_id": self.client.client_id,
            "client_secret": self.client_secret,
            "grant_type": "authorization_code",
            "code": self.control.issue_code(self.client.client_id, host).code,
            "redirect_uri": self.client.redirect_uri,
        }
        with requests.Session() as session:
            session.trust_env = False
            session.proxies, session.verify = {"https": self.stack.proxy_url}, self.stack.ca_bundle
            answer = session.post(f"https://{host}/oauth2/access_token", json=given, timeout=30)
            answer.raise_for_status()
            return str(answer.json()["access_token"])

    # --------------------------------------------------------------------------------------------------------------- a phase

    def phase(self, backfilled: int | None, count: int) -> Phase:
        """Send events at their pace, beside the backfill of one account or alone, and wait until all has arrived."""
        events = self.draw(count, backfilled)
        started = time.monotonic()
        if backfilled is not None:
            url = self.stack.queues["backfills"]
            backfill.start(self.table, url, self.connections[backfilled])
        answered = self.send(events)
        self.wait_until_all_arrived()
        took_s = time.monotonic() - started
        arrived = self.arrivals()
        delays_s = [
            max(0.0, arrived[event.email] - at)
            for event, at in zip(events, answered, strict=True)
            if at and event.is_alone and event.email in arrived
        ]
        missing, stale = self.look()
        return Phase(len(events), delays_s, took_s, missing, stale)

    def draw(self, count: int, backfilled: int | None = None) -> list[Event]:
        """Events of 20 tenants, of each as many. One of them is the one that backfills, where there is one."""
        behind_by = int(BEHIND_S * PER_SECOND)
        if backfilled is None:
            return list(self.changes.draw(count, list(range(TENANTS)), [], behind_by=behind_by))
        known = self.control.kommo_contacts(self.accounts[backfilled]["host"])["contacts"]
        self.changes.note(known)
        tenants = [*range(TENANTS - 1), backfilled]
        return list(self.changes.draw(count, tenants, known, owner=backfilled, behind_by=behind_by))

    def send(self, events: list[Event]) -> list[float]:
        """When each that was answered with 200 was sent, in epoch seconds; 0 for one that was not taken after all."""
        # Kommo's versions are whole seconds: what changes now is newer than what changed while the events were drawn.
        begins = time.monotonic() + 1.0
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=MAX_CONCURRENT))

        def one(number: int) -> float:
            time.sleep(max(0.0, begins + number / PER_SECOND - time.monotonic()))
            event = events[number]
            form = event.change.make()
            for _ in range(5):
                # Kommo comes again, too.
                with contextlib.suppress(requests.RequestException):
                    sent_at = time.time()
                    if session.post(self.urls[event.tenant], data=form, timeout=30).status_code == 200:
                        return sent_at
            return 0.0

        with ThreadPoolExecutor(MAX_CONCURRENT) as pool:
            answered = list(pool.map(one, range(len(events))))
        self.accepted += sum(at > 0 for at in answered)
        self.refused += sum(at == 0 for at in answered)
        return answered

    def wait_until_all_arrived(self) -> None:
        """All persons are there, and nothing waits in the queues."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            (instance,) = [each for each in self.control.marketo() if each["munchkin"] == self.munchkin.lower()]
            if instance["persons"] >= len(self.newest) and not self.left():
                return
            time.sleep(1)

    def wait_until_read_again(self) -> None:
        """No contact with two events at the same time is in an older version, or two sweeps have passed."""
        deadline = time.monotonic() + READING_S
        while self.look()[1] and time.monotonic() < deadline:
            time.sleep(2)

    def left(self) -> int:
        sqs = self.stack.client("sqs")
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = 0
        for queue in ("records", "bulk_records", "backfills"):
            told = sqs.get_queue_attributes(QueueUrl=self.stack.queues[queue], AttributeNames=names)["Attributes"]
            found += sum(int(told[name]) for name in names)
        found_backlogs = self.stack.client("dynamodb").query(
            TableName=self.stack.table,
            IndexName="listing",
            KeyConditionExpression="list_pk = :waiting",
            ExpressionAttributeValues={":waiting": {"S": backlogs.LISTING}},
        )["Items"]
        return found + sum(max(0, int(backlog["waiting"]["N"])) for backlog in found_backlogs)

    def arrivals(self) -> dict[str, float]:
        """By e-mail address, when the first request with that person came; the simulators' clock is this one's."""
        at = {each["request_id"]: each["received_at"] for each in self.control.marketo_requests(self.munchkin)}
        return {
            person["attributes"]["email"]: at[person["created_by"]]
            for person in self.control.marketo_persons(self.munchkin)
        }

    def look(self) -> tuple[set[str], set[str]]:
        """Return the contacts that are missing in Marketo and the contacts that are outdated there."""
        return self.changes.compare([each["attributes"] for each in self.control.marketo_persons(self.munchkin)])
