"""Live events of 20 tenants on the local cloud, with and without one tenant's backfill of 5,000 contacts beside them.

Phases without and with the backfill take turns, at the same pace. An event's delay is from its sending to the request that
brought its person to Marketo's simulator. Some events come twice, some behind a newer one of the same contact, and in phases
with a backfill one tenant's events are newer versions of contacts that the backfill brings, too. At the end each contact must
stand in Marketo, in the newest version that was sent.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from bench.report import conclude, console, row, table
from bench.tokens.fan_in import percentile_99
from bench.tokens.grants import as_a_worker, running_stack
from local.__main__ import step
from local.control import Control
from local.simulators.kommo.events import event_form
from local.simulators.people import change_entity, new_contact
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
# At ten, two processors with MiniStack on them fall behind as soon as a backfill runs beside.
PER_SECOND = float(os.environ.get("PER_SECOND", "6"))
WARMING = 100
# Every call in progress has a process of its own at MiniStack.
MAX_CONCURRENT = 8
PATIENCE_S = 600.0
# Of all events, those that come twice, and those behind a newer one.
TWICE, BEHIND = 0.05, 0.05
LIMITS = {"missing": 0.0, "stale": 0.0, "live_delay_ratio": 2.0}


@dataclass(frozen=True)
class Event:
    """`is_alone` says that its contact has no other event, so that its person's last request is the one that brought it."""

    tenant: int
    email: str
    version: str
    form: list[tuple[str, str]] = field(repr=False)
    is_alone: bool = True


@dataclass
class Phase:
    delays_s: list[float]
    took_s: float


@dataclass(frozen=True)
class _Account:
    """What an event says of the account that it comes from."""

    id: int
    subdomain: str
    host: str


def measure() -> bool:
    with running_stack() as stack, as_a_worker(stack):
        load = Load(stack)
        with step(f"Connecting {TENANTS + PAIRS} accounts"):
            load.connect()
        with step(f"{WARMING} events to warm up"):
            load.phase(None, WARMING)
        without, beside = [], []
        for number in range(PAIRS):
            with step(f"{EVENTS // PAIRS} events without a backfill"):
                without.append(load.phase(None, EVENTS // PAIRS))
            with step(f"{EVENTS // PAIRS} events beside a backfill of {CONTACTS} contacts"):
                beside.append(load.phase(TENANTS + number, EVENTS // PAIRS))
        with step("Looking at every contact in Marketo"):
            missing, stale = load.look()
    return show(load, without, beside, missing, stale)


def show(load: Load, without: list[Phase], beside: list[Phase], missing: list[str], stale: list[str]) -> bool:
    shown = table("From an event's sending to Marketo", "s")
    for name, phases in (("without a backfill", without), ("beside it", beside)):
        row(shown, name, [delay for phase in phases for delay in phase.delays_s], digits=1)
    console.print(shown)
    p99 = {name: statistics.median(percentile_99(phase.delays_s) for phase in phases) for name, phases in
           (("without", without), ("beside", beside))}  # fmt: skip
    p50 = {name: statistics.median(statistics.median(phase.delays_s) for phase in phases) for name, phases in
           (("without", without), ("beside", beside))}  # fmt: skip
    for what, emails in (("missing", missing), ("stale", stale)):
        if emails:
            console.print(f"[red]{what}: {', '.join(emails[:10])}[/]")
    figures = {
        "tenants": TENANTS,
        "events": load.accepted,
        "backfilled": PAIRS * CONTACTS,
        "sent": len(load.newest),
        "missing": len(missing),
        "stale": len(stale),
        "refused": load.refused,
        "live_p50_s": p50["without"],
        "live_p50_s_beside": p50["beside"],
        "live_p99_s": p99["without"],
        "live_p99_s_beside": p99["beside"],
        "live_delay_ratio": p99["beside"] / p99["without"],
        "p50_ratio": p50["beside"] / p50["without"],
        "backfill_s": statistics.median(phase.took_s for phase in beside),
    }
    return conclude("record_load", figures, LIMITS | {"refused": 0.0})


class Load:
    """`newest` is by e-mail address the version that must stand in the end."""

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
        self.numbers = iter(range(1, 10**9))
        self.newest: dict[str, str] = {}
        self.accepted = self.refused = 0
        self.chance = random.Random(5)

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
        for number in range(TENANTS + PAIRS):
            self.connect_account(number, CONTACTS if number >= TENANTS else 0)

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
        known = self.known_contacts(backfilled) if backfilled is not None else []
        events = list(self.draw(count, backfilled, known))
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
        return Phase(delays_s, took_s)

    def known_contacts(self, number: int) -> list[dict[str, Any]]:
        contacts = self.control.kommo_contacts(self.accounts[number]["host"])["contacts"]
        for contact in contacts:
            self.newest[email_of(contact)] = contact["last_name"]
        return contacts

    def draw(self, count: int, backfilled: int | None, known: list[dict[str, Any]]) -> Iterator[Event]:
        """Of each tenant as many. One of them is the one that backfills, where there is one."""
        tenants = [*range(TENANTS - 1), TENANTS - 1 if backfilled is None else backfilled]
        now = int(time.time())
        of_backfill = iter(self.chance.sample(known, min(len(known), count)))
        number = 0
        while number < count:
            tenant = tenants[number % TENANTS]
            kind = self.chance.random()
            contact = next(of_backfill) if tenant == backfilled else self.make(tenant)
            for event in self.events_of(tenant, contact, now, kind, backfilled):
                number += 1
                yield event

    def make(self, tenant: int) -> dict[str, Any]:
        account = self.accounts[tenant]
        made = new_contact(account["id"], account["host"], [], [{"id": 1, "_links": {}}])
        made["id"] = next(self.numbers)
        change_entity(made, {"first_name": "Load", "email": f"{self.name}-{made['id']}@example.com"}, [])
        return made

    def events_of(
        self, tenant: int, contact: dict[str, Any], now: int, kind: float, backfilled: int | None
    ) -> list[Event]:
        account = _Account(self.accounts[tenant]["id"], f"{self.name}-{tenant}", self.accounts[tenant]["host"])
        email = email_of(contact)

        def of_version(version: int, *, is_alone: bool) -> Event:
            # A contact that a backfill brings as well has its last request from either.
            name = f"Version{version}"
            changed = {**contact, "last_name": name, "updated_at": max(now, contact["updated_at"]) + version}
            form = event_form(account, "update", "contact", changed)  # type: ignore[arg-type]
            return Event(tenant, email, name, form, is_alone and tenant != backfilled)

        self.newest[email] = "Version2" if kind < BEHIND else "Version1"
        if kind < BEHIND:
            return [of_version(2, is_alone=False), of_version(1, is_alone=False)]
        if kind < BEHIND + TWICE:
            return [of_version(1, is_alone=False)] * 2
        return [of_version(1, is_alone=True)]

    def send(self, events: list[Event]) -> list[float]:
        """When each that was answered with 200 was sent, in epoch seconds; 0 for one that was not taken after all."""
        begins = time.monotonic() + 0.5
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=MAX_CONCURRENT))

        def one(number: int) -> float:
            time.sleep(max(0.0, begins + number / PER_SECOND - time.monotonic()))
            event = events[number]
            for _ in range(5):
                # Kommo comes again, too.
                with contextlib.suppress(requests.RequestException):
                    sent_at = time.time()
                    if session.post(self.urls[event.tenant], data=event.form, timeout=30).status_code == 200:
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
        """By e-mail address, when the last request with that person came; the simulators' clock is this one's."""
        at = {each["request_id"]: each["received_at"] for each in self.control.marketo_requests(self.munchkin)}
        return {
            person["attributes"]["email"]: at[person["request_id"]]
            for person in self.control.marketo_persons(self.munchkin)
        }

    def look(self) -> tuple[list[str], list[str]]:
        """Those that are missing, and those that stand in an older version."""
        standing = {
            person["attributes"]["email"]: person["attributes"].get("lastName")
            for person in self.control.marketo_persons(self.munchkin)
        }
        missing = [email for email in self.newest if email not in standing]
        stale = [email for email, name in self.newest.items() if email in standing and (standing[email] or "") != name]
        return missing, stale


def email_of(contact: dict[str, Any]) -> str:
    return next(
        str(custom_field["values"][0]["value"])
        for custom_field in contact["custom_fields_values"]
        if custom_field["field_code"] == "EMAIL"
    )
