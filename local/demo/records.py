"""The demo's third part: records that arrive in every other way, and their receipts.

Contacts change in Kommo and Kommo sends events, of which one is lost. A custom object follows its person. Marketo refuses one
person among many. A program written for Adobe's endpoint calls Portaria's. Adobe reports the outcomes. Then `portaria doctor`
checks the stack. It uses the accounts that the first part connected.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import requests

from local.configure import configure
from local.control import Control
from local.demo.programs import portaria
from local.stack import ADOBE_CLIENT_ID, ROOT, STACK_FILE, Stack

LIVE, NEW, TOGETHER, SENT = 20, 3, 10, 25
CUSTOM_OBJECT = "crmContact_c"
EMAIL = "custom_fields_values[?field_code=='EMAIL'].values[].value | [0]"
REFUSED, BAD_DATA = "refused_by_destination", "4000802"
PATIENCE_S, POLL_INTERVAL_S = 60.0, 0.3
# The interval of the sweep for due reconciliations. On AWS, the schedule's interval is one minute.
SWEEP_EVERY_S = 5.0
# A reconciliation that is due since then is due now.
LONG_AGO = "2000-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Contact:
    """A contact of a connected account, and the last name that the demo gives it."""

    host: str
    connection: str
    id: int
    email: str
    last_name: str = ""


@dataclass
class Outcome:
    """The counts, the delay of the slowest live event until Marketo had it, and the program's `persons`."""

    live: int = 0
    slowest_s: float = 0.0
    reconciled: int = 0
    custom_objects: int = 0
    waited_for_person: int = 0
    beside_refused: int = 0
    refused_together: int = 0
    refused: int = 0
    would_redrive: int = 0
    redriven: int = 0
    taken: int = 0
    accepted: int = 0
    applied: int = 0
    receipts_of_record: int = 0
    receipts: Counter[str] = field(default_factory=Counter)
    persons: list[dict[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, int | float]:
        return {
            "live_events_applied": self.live,
            "live_slowest_s": round(self.slowest_s, 1),
            "lost_events_reconciled": self.reconciled,
            "custom_objects": self.custom_objects,
            "custom_objects_before_person": self.waited_for_person,
            "poison_dead_letters": self.refused,
            "poison_request_records": self.refused_together,
            "poison_others_applied": self.beside_refused,
            "poison_redriven": self.redriven,
            "data_ingestion_records_applied": self.applied,
            "receipts_of_record": self.receipts_of_record,
            "receipts_applied": self.receipts["applied"],
            "receipts_open": self.receipts["sent"] + self.receipts["accepted"] + self.receipts["unknown"],
            "doctor_failures": len(self.failures),
        }

    def rows(self) -> list[tuple[str, int | str, str]]:
        return [
            ("live events in Marketo", self.live, f"the slowest took {self.slowest_s:.1f} s"),
            ("lost event reconciled", self.reconciled, "found by reconciliation"),
            ("custom objects", self.custom_objects, f"{self.waited_for_person} sent before their person"),
            ("refused by Marketo", self.refused, f"1 of {self.refused_together} records in a request"),
            ("redriven dead letters", self.redriven, "after a dry run and a correction"),
            ("records by a program", self.applied, "sent to the data ingestion endpoint"),
            ("receipts of one record", self.receipts_of_record, "found by its key"),
            ("requests applied", self.receipts["applied"], "as Adobe's signed events report"),
        ]

    def problems(self) -> list[str]:
        """The problems, as sentences."""
        figures = self.figures()
        expected = {
            f"{LIVE + NEW - self.live} live events did not arrive": self.live == LIVE + NEW,
            "the contact with the lost event did not arrive": self.reconciled == 1,
            "a custom object is missing": self.custom_objects >= LIVE + NEW,
            "a custom object came before its person": self.waited_for_person == 0,
            "a person beside the refused one did not arrive": self.beside_refused == TOGETHER - 1,
            "Marketo refused no request of many": self.refused_together == TOGETHER,
            "the refused person is not among the dead letters": self.refused == 1,
            "the dry run of the redrive did not find exactly the refused person": self.would_redrive == 1,
            "the redriven person did not arrive": self.redriven == 1,
            "a program's call to Adobe's path was not answered as Adobe answers": self.taken == 1,
            "a program's records were not applied": (self.accepted, self.applied) == (1, SENT),
            "a record has no receipt under its key": self.receipts_of_record >= 2,
            f"{figures['receipts_open']} requests have no known outcome": not figures["receipts_open"],
        }
        return [sentence for sentence, right in expected.items() if not right] + self.failures


class Records:
    """One run. `connections` maps Kommo hosts to connections. `session` creates a client that uses the API's public name."""

    def __init__(
        self,
        stack: Stack,
        control: Control,
        session: Callable[[], requests.Session],
        *,
        mark: str,
        munchkin: str,
        client: str,
        connections: dict[str, str],
    ) -> None:
        self.stack = stack
        self.control = control
        self.program = session()
        self.mark = mark
        self.munchkin = munchkin
        self.client = client
        self.destination = f"marketo-{mark}"
        self.connections = connections
        self.outcome = Outcome()
        self.changed_at: dict[int, float] = {}
        self.swept_at = 0.0

    @property
    def receipts_url(self) -> str:
        return f"{self.stack.public_url}/receipts/marketo"

    def play(self, step: Callable[[str], AbstractContextManager[object]], say: Callable[[str], None]) -> Outcome:
        with self.program:
            with step("Setting up a custom object, Adobe's events and a program's token"):
                self.set_up()
            with step(f"{LIVE} contacts change, {NEW} are new, and one event is lost"):
                self.change()
            with step(f"A program sends {SENT} persons, and Marketo refuses 1 of {TOGETHER}"):
                self.send()
            with step("Redriving the refused record, and receiving Adobe's reports"):
                self.mend()
        with step("Running the doctor"):
            report = self.ask_doctor()
        say(report)
        return self.outcome

    # ----------------------------------------------------------------------------------------------------------- set-up

    def set_up(self) -> None:
        definition = {"dedupe_fields": ["crmId"], "link": "email"}
        self.control.change_marketo(self.munchkin, custom_objects={CUSTOM_OBJECT: definition})
        route = {
            "name": f"crm-{self.mark}",
            "source": f"client:kommo/{self.client}",
            "object": "contacts",
            "destination": self.destination,
            "target": f"customobjects/{CUSTOM_OBJECT}",
            "mapping": {"crmId": "to_string(id)", "email": EMAIL},
            "dedupe_fields": ["crmId"],
        }
        configure({"routes": [route]})
        self.control.register_adobe_webhook(self.receipts_url, ADOBE_CLIENT_ID)
        scopes = (f"records:send@{self.destination}", "receipts:list")
        made = portaria(
            "private-integrations", "create", f"Records {self.mark}", *(f"--scope={scope}" for scope in scopes)
        )
        self.token = made["token"]
        # MiniStack needs more time for a function's first start than the two seconds that Kommo waits.
        self.program.post(f"{self.stack.public_url}/events/kommo/unknown/unknown", timeout=30)

    def contacts(self, host: str, count: int) -> list[Contact]:
        """The first contacts of an account with an e-mail address, each with a new last name."""
        found: list[Contact] = []
        for contact in self.control.kommo_contacts(host)["contacts"]:
            fields = {each["field_code"]: each["values"][0]["value"] for each in contact["custom_fields_values"] or []}
            if "EMAIL" in fields and len(found) < count:
                name = f"Live {self.mark} {contact['id']}"
                found.append(Contact(host, self.connections[host], contact["id"], fields["EMAIL"], name))
        return found

    # ------------------------------------------------------------------------------------------------------- live events

    def change(self) -> None:
        hosts = sorted(self.connections)
        live = [contact for host in hosts[:4] for contact in self.contacts(host, LIVE // 4)]
        (lost,) = self.contacts(hosts[4], 1)
        self.change_in_kommo(lost, lost=True)
        self.reconcile(lost.connection)
        for contact in live:
            self.change_in_kommo(contact)
        new = [self.make_in_kommo(number, host) for number, host in zip(range(NEW), hosts, strict=False)]
        arrived = self.wait_for([*live, *new, lost])
        delays = [at - self.changed_at[contact.id] for contact, at in arrived.items() if contact != lost]
        self.outcome.live = len(delays)
        self.outcome.slowest_s = max(delays, default=0.0)
        self.outcome.reconciled = int(lost in arrived)
        self.some_contact = live[0]
        wanted = {str(contact.id) for contact in [*live, *new]}
        until(lambda: wanted <= self.custom_objects())
        self.outcome.custom_objects = len(wanted & self.custom_objects())
        objects = self.control.marketo_objects(self.munchkin)["custom_objects"][CUSTOM_OBJECT]
        self.outcome.waited_for_person = objects["waited"]

    def change_in_kommo(self, contact: Contact, *, lost: bool = False) -> None:
        fields = {"last_name": contact.last_name}
        self.changed_at[contact.id] = time.monotonic()
        self.control.change_kommo(contact.host, id=contact.id, fields=fields, lost=lost)

    def make_in_kommo(self, number: int, host: str) -> Contact:
        name, email = f"New {self.mark} {number}", f"new-{number}@{self.mark}.example"
        fields = {"first_name": "Nova", "last_name": name, "email": email}
        now = time.monotonic()
        made = self.control.change_kommo(host, fields=fields)
        self.changed_at[made["id"]] = now
        return Contact(host, self.connections[host], made["id"], email, name)

    def reconcile(self, connection: str) -> None:
        """Make the account due for reconciliation, and sweep as the schedule does."""
        key = {"pk": {"S": f"RECONCILIATION#{connection}"}, "sk": {"S": "contacts"}}
        self.stack.client("dynamodb").update_item(
            TableName=self.stack.table,
            Key=key,
            UpdateExpression="SET due_at = :long_ago",
            ConditionExpression="attribute_exists(pk)",
            ExpressionAttributeValues={":long_ago": {"S": LONG_AGO}},
        )
        self.sweep()

    def sweep(self) -> None:
        """Reconcile the due accounts, including those whose events lacked a name."""
        self.swept_at = time.monotonic()
        body = json.dumps({"reconcile": "due"})
        self.stack.client("sqs").send_message(QueueUrl=self.stack.queues["backfills"], MessageBody=body)

    def wait_for(self, contacts: list[Contact]) -> dict[Contact, float]:
        """The contacts that Marketo has with their new last names, each with the monotonic time of the first observation."""
        arrived: dict[Contact, float] = {}

        def all_arrived() -> bool:
            if time.monotonic() - self.swept_at > SWEEP_EVERY_S:
                self.sweep()
            missing = [contact for contact in contacts if contact not in arrived]
            persons = self.control.marketo_persons(self.munchkin, *(contact.email for contact in missing))
            names = {each["attributes"]["email"].lower(): each["attributes"].get("lastName") for each in persons}
            now = time.monotonic()
            arrived.update(
                {contact: now for contact in missing if names.get(contact.email.lower()) == contact.last_name}
            )
            return len(arrived) == len(contacts)

        until(all_arrived)
        return arrived

    def custom_objects(self) -> set[str]:
        """The custom objects in Marketo, by the contact's id in Kommo."""
        objects = self.control.marketo_objects(self.munchkin)["custom_objects"][CUSTOM_OBJECT]
        return {str(each["attributes"]["crmId"]) for each in objects["records"]}

    # ---------------------------------------------------------------------------------- a program and a refused record

    def send(self) -> None:
        """The refused record arrives by reconciliation, which puts all changes of an account into one request."""
        self.poison, *others = together = self.contacts(sorted(self.connections)[5], TOGETHER)
        self.control.change_marketo(self.munchkin, poison={"lastName": self.poison.last_name})
        for contact in together:
            self.change_in_kommo(contact, lost=True)
        self.reconcile(self.poison.connection)
        self.outcome.persons = persons = [
            {"email": f"program-{number}@{self.mark}.example", "firstName": "Ana", "lastName": f"Exemplo {number}"}
            for number in range(SENT)
        ]
        answer = self.program.post(
            f"{self.stack.public_url}/subscriptions/{self.munchkin}/persons",
            json={"priority": "high", "dedupeFields": {"field1": "email"}, "persons": persons},
            headers={"X-Mkto-User-Token": self.token, "X-Correlation-Id": f"demo-{self.mark}"},
            timeout=30,
        )
        self.request_id = answer.headers.get("X-Request-Id", "")
        self.outcome.taken = int((answer.status_code, answer.content) == (202, b"") and bool(self.request_id))
        self.outcome.beside_refused = len(self.wait_for(others))
        until(lambda: self.states(request=self.request_id) == {"accepted"})
        self.outcome.accepted = int(self.states(request=self.request_id) == {"accepted"})
        until(lambda: bool(self.dead_letters()))
        requests = self.control.marketo_requests(self.munchkin)
        self.outcome.refused_together = max(
            (each["objects"] for each in requests if each["error_code"] == BAD_DATA), default=0
        )
        self.outcome.refused = sum(letter["record_count"] for letter in self.dead_letters())

    def receipts(self, **filters: str) -> list[dict[str, Any]]:
        """The receipts that a program can read with its token."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            query = {**filters, "limit": "100"} | ({"cursor": cursor} if cursor else {})
            url, headers = f"{self.stack.public_url}/v1/receipts", {"Authorization": f"Bearer {self.token}"}
            answer = self.program.get(url, params=query, headers=headers, timeout=30)
            answer.raise_for_status()
            page = answer.json()
            found += page["items"]
            cursor = page["next_cursor"]
            if not cursor:
                return found

    def states(self, **filters: str) -> set[str]:
        return {receipt["state"] for receipt in self.receipts(**filters)}

    @property
    def of_poison(self) -> tuple[str, ...]:
        return "--reason", REFUSED, "--connection", self.poison.connection

    def dead_letters(self) -> list[dict[str, Any]]:
        """The dead letters of the refused record."""
        return list(portaria("dead-letters", "list", *self.of_poison)["items"])

    # ---------------------------------------------------------------------------------------------------- redrive and reports

    def mend(self) -> None:
        """Let Marketo accept the person, and redrive the dead letter."""
        self.control.change_marketo(self.munchkin, poison={})
        plan = portaria("dead-letters", "redrive", *self.of_poison, "--dry-run")
        self.outcome.would_redrive = plan["counts"].get("would_redrive", 0)
        portaria("dead-letters", "redrive", *self.of_poison)
        self.control.deliver_adobe_events(self.receipts_url, self.munchkin, shape="flat")
        applied = [each for each in self.receipts(request=self.request_id) if each["state"] == "applied"]
        self.outcome.applied = sum(receipt["applied_count"] for receipt in applied)
        self.outcome.redriven = len(self.wait_for([self.poison]))
        contact = self.some_contact
        record = f"{contact.connection}/{contact.id}"
        self.outcome.receipts_of_record = len(self.receipts(destination=self.destination, record=record))
        # Adobe delivers at least once, in one of two shapes.
        self.control.deliver_adobe_events(self.receipts_url, self.munchkin, shape="wrapped", times=2)
        self.outcome.receipts = Counter(each["state"] for each in self.receipts(destination=self.destination))

    def ask_doctor(self) -> str:
        """Run `portaria doctor`, keep its failures, and return its report."""
        command = [sys.executable, "-m", "portaria_cli", "--stack-file", str(STACK_FILE), "doctor"]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'layers' / 'portaria'}:{ROOT / 'cli'}"}
        done = subprocess.run(command, env=environment, check=False, text=True, capture_output=True)
        if done.returncode:
            failed = [line for line in done.stdout.splitlines() if line.startswith("fail")]
            self.outcome.failures = failed or [f"`portaria doctor` failed: {done.stderr.strip()}"]
        return done.stdout.rstrip()


def until(enough: Callable[[], bool]) -> None:
    """Poll until `enough` is true or `PATIENCE_S` has passed. The summary reports what is missing."""
    deadline = time.monotonic() + PATIENCE_S
    while not enough() and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
