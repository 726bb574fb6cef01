"""Each permission is used and each use is permitted: the life of a customer, driven through every function's handler.

Uses are recorded at botocore, not listed by hand. A permission that only a rare path needs must have that path in the
scenario, or be removed. The other direction is also checked in every other test that drives a handler (see conftest).
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import re
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import boto3
import pytest
import requests
import responses
from botocore.exceptions import ClientError

from local.template_file import read_template
from portaria.aws import event_bus, light_client
from portaria.connections import connection_store, credential_migration, request_budget
from portaria.connections.credential_stores.protocol import store_name
from portaria.connections.tokens import sealed_credentials
from portaria.connections.vault import SealedTable, Vault
from portaria.core import clock, record_messages
from portaria.core.callbacks import Record, Secret
from portaria.core.errors import Retryable
from portaria.core.event_catalogue import CATALOGUE
from portaria.core.event_catalogue import CONNECTION_READY as READY
from portaria.delivery import backlogs, destination_pause, host_pauses
from portaria.delivery.destination_pause import PauseReason
from portaria.installs.hook_sources import KNOWN_SUSPECT_AT, HookSources
from portaria.notifications import endpoint_gate
from portaria.outbound import http_client
from portaria.outbound.rate_limiter import RateLimiter
from portaria.records import dead_letter_counts, receipts
from portaria.sources import reconciliation
from portaria.webhooks import event_receiver
from portaria.webhooks.install_receiver import install_id
from tests.fakes.api.console import Browser
from tests.fakes.api.manage import Manage, proxy_event, with_headers, with_token
from tests.fakes.aws import errors
from tests.fakes.aws import functions as fakes
from tests.fakes.aws.moto_cloud import PREFIX, Cloud, cloud
from tests.fakes.connections import installs as fake_installs
from tests.fakes.connections.connected import to_engage
from tests.fakes.connections.installs import forget_tokens
from tests.fakes.platforms import adobe, kommo, leadconnector, marketo
from tests.fakes.platforms.engage import Engage
from tests.fakes.platforms.kommo import Kommo
from tests.fakes.platforms.leadconnector import LeadConnector
from tests.fakes.platforms.marketo import Marketo, refuse_persons
from tests.fakes.records.contacts import Listing, contact
from tests.fakes.template.document import Function, functions, resources, target
from tests.fakes.template.roles import POLLING, Recorder, Use, consumed_queue, grants, recording

each_function = pytest.mark.parametrize("function", functions(), ids=lambda function: function.name)


@contextmanager
def refusing(*operations: str) -> Iterator[None]:
    """Operations are throttled after the recorder has seen them."""
    with errors.refusing(*operations), recording() as nested:
        yield
    _seen_elsewhere.append(nested)


_seen_elsewhere: list[Recorder] = []


def call_with_boto3(client: Any, operation: str, payload: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """accept_install and receive_events sign their own calls, which reach moto and the recorder through boto3."""
    service = {"AmazonSQS": "sqs", "DynamoDB_20120810": "dynamodb"}[client._target_prefix]
    try:
        answer: dict[str, Any] = boto3.client(service)._make_api_call(operation, payload)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "ThrottlingException":
            raise Retryable("aws_unavailable", code) from None
        raise light_client.AwsError(service, operation, code, 400) from None
    return answer


@dataclass
class Story:
    """`used` per function, and every metric that was emitted as (namespace, metric, dimensions)."""

    used: dict[str, set[Use]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    metrics: set[tuple[str, str, tuple[tuple[str, str], ...]]] = field(default_factory=set)


class Teller:
    """Runs the scenario; each method is one part of it, driven through a function's own handler."""

    def __init__(self, stack: Cloud, mock: responses.RequestsMock) -> None:
        self.stack, self.mock = stack, mock
        self.in_table = stack.environment["CREDENTIAL_STORE"] == "table"
        self.kommo, self.marketo, self.listing = Kommo(mock), Marketo(mock), Listing(mock, [])
        Engage(mock)
        LeadConnector(mock, "canary-one", "canary-two", "canary-three")
        mock.post("https://login.example.com/token", json={"access_token": "canary", "expires_in": 3600})
        self.manage = Manage(stack)
        self.handlers = {
            name: fakes.load(name, stack.environment)
            for name in (
                "accept_install", "sweep_arrivals", "exchange_code", "backfill_records", "ingest_records",
                "renew_tokens", "accept_uninstall", "remove_connections", "call_connection", "redeem_ticket",
                "accept_records", "receive_events", "track_receipts", "keep_dead_letters", "release_records",
                "fan_out_events", "deliver_webhooks", "count_states",
            )
        }  # fmt: skip

    def administer(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.manage.call(method, path, body)
        assert answer.status < 300, (method, path, answer.text)
        return answer.content if answer.text else None

    def arrive(
        self,
        sample: str,
        code: str = "",
        *,
        cookie: str = "",
        state: str = "",
        link: str = "",
        host: str = "",
        page: str = "",
    ) -> dict[str, Any]:
        event = fakes.sample("accept_install", sample)
        query = event["multiValueQueryStringParameters"] or {}
        query |= {"code": [code]} if code else {}
        query |= {"state": [state]} if state else {}
        query |= {"link": [link]} if link else {}
        query |= {"referer": [host]} if host else {}
        event["resource"] = f"/install/{{platform}}/{{client}}/{page}" if page else event["resource"]
        event["multiValueQueryStringParameters"] = query
        event["pathParameters"] |= {"platform": "kommo", "client": "acme"}
        event["multiValueHeaders"] |= {"Cookie": [cookie]} if cookie else {}
        event["requestContext"]["requestTimeEpoch"] = int(time.time() * 1000)
        answer: dict[str, Any] = self.handlers["accept_install"].handler(event, None)
        return answer

    def work(self, function: str, queue: str) -> set[str]:
        """Give a function all messages of its queue. Returns the bodies that it reports as failed."""
        bodies = {str(number): body for number, body in enumerate(self.stack.receive(queue))}
        assert bodies, f"nothing waits in {queue}"
        answer = self.handlers[function].handler(fakes.sqs_event(bodies, queue), fakes.Context())
        return {bodies[message_id] for message_id in fakes.reported(answer)}

    def tell_of_table(self) -> None:
        """What the store of credentials makes a difference to."""
        self._register()
        self._keep_credentials()
        self._accept()
        self._exchange()
        self._move_people()
        self._reconcile()
        self._renew()
        self._call()
        self._attribute()
        self._migrate()
        self._leave()

    def _migrate(self) -> None:
        """All credentials are moved to Secrets Manager and back; copies are left over, and a static token is in reserve."""
        self.administer("POST", "/connections/marketek/rotate", {"credentials": {"token": "canary-two"}})
        for store in ("secrets-manager", "table"):
            new = Vault(PREFIX).grant_id("gone.1", store)
            left = {"pk": "CREDENTIAL_MIGRATIONS", "sk": f"gone#{new}", "connection": "gone", "fence": 1, "new": new}
            self.stack.table.put(left | {"old": "table:gone", "started_at": "2026-01-01T00:00:00.000Z"})
            self.put("renewals", json.dumps({"migrate": store}))
            assert self.work("renew_tokens", "renewals") == set()
            while bodies := self.stack.receive("renewals"):
                for body in bodies:
                    self.put("renewals", body)
                    assert self.work("renew_tokens", "renewals") == set()
            assert credential_migration.journal(self.stack.table) == []
            items = {each["name"]: each for each in self.stack.table.query_all("CONNECTIONS", index="listing")}
            for name in ("marketek", "billing"):
                assert store_name(items[name]["secret_id"]) == store

    def tell(self) -> None:
        self._register()
        self._keep_credentials()
        self._accept()
        self._exchange()
        self._move_people()
        self._reconcile()
        self._renew()
        self._call()
        self._sign_on()
        self._take_in()
        self._receive()
        self._hear_what_became()
        self._send_webhooks()
        self._tidy_up()
        self._use_console()
        self._attribute()
        self._leave()

    def _register(self) -> None:
        client = {"client_id": kommo.CLIENT_ID, "client_secret": "mistyped", "redirect_uri": kommo.REDIRECT_URI}
        for name in ("acme", "spare"):
            self.administer("POST", "/oauth-clients", {**client, "platform": "kommo", "name": name})
        self.administer("PUT", "/oauth-clients/kommo/acme", {**client, "client_secret": kommo.CLIENT_SECRET})
        credentials = {"client_id": marketo.CLIENT_ID, "client_secret": marketo.CLIENT_SECRET}
        connection = {"platform": "marketo", "credentials": credentials, "fields": {"munchkin_id": marketo.MUNCHKIN}}
        for name in ("marketo-one", "marketo-two"):
            self.administer("POST", "/connections", {**connection, "name": name})
        self.administer("PUT", "/connections/marketo-one/credentials", connection)
        route = {"source": "client:kommo/acme", "object": "contacts", "destination": "marketo-one"}
        for name in ("people", "spare-route"):
            self.administer("POST", "/routes", {**route, "name": name})
        self.administer("PUT", "/routes/people", route)
        self.administer("DELETE", "/routes/spare-route")

    def _keep_credentials(self) -> None:
        """All work on credentials through the administrators' API, including a lost race."""
        connection = {
            "platform": "leadconnector",
            "fields": {"location_id": leadconnector.LOCATION},
            "credentials": {"token": "canary-one"},
        }
        self.administer("POST", "/connections", {**connection, "name": "marketek"})
        body = {"credentials": {"token": "canary-two"}, "expire_now": True}
        self.administer("POST", "/connections/marketek/rotate", body)
        client: dict[str, Any] = {"client_id": "machine", "client_secret": "canary"}
        client |= {"api_domains": ["api.example.com"], "token_url": "https://login.example.com/token"}
        client |= {"platform": "oauth2", "name": "machine", "grant": "client_credentials"}
        self.administer("POST", "/oauth-clients", client)
        connection = {"platform": "oauth2", "kind": "client_credentials", "client": "machine", "name": "billing"}
        self.administer("POST", "/connections", {**connection, "allowed_domain": "api.example.com"})
        with patch.object(connection_store, "find", return_value=None):
            again = self.manage.call("POST", "/connections", {**connection, "allowed_domain": "api.example.com"})
        assert again.status == 409

    def _accept(self) -> None:
        for code in ("widget-code", "kept-code", "browser-code", "wrong-code"):
            self.kommo.codes[code] = "acme"
        del self.kommo.codes["wrong-code"]
        assert self.arrive("widget_hook", "widget-code")["statusCode"] == 200
        with refusing("SendMessage"):
            assert self.arrive("widget_hook", "kept-code")["statusCode"] == 200
        with refusing("SendMessage", "PutItem"):
            assert self.arrive("widget_hook", "lost-code")["statusCode"] == 503
        self.handlers["sweep_arrivals"].handler({}, fakes.Context())
        page = self.arrive("start")
        cookie = page["headers"]["Set-Cookie"].partition(";")[0]
        state = re.search(r"state=([A-Za-z0-9_-]{43})", page["body"])
        assert state is not None
        assert self.arrive("browser_return", "browser-code", cookie=cookie, state=state[1])["statusCode"] == 303
        with refusing("SendMessage"):
            # The same code again, with a used state.
            assert self.arrive("browser_return", "browser-code", cookie=cookie, state=state[1])["statusCode"] == 303
        self.handlers["sweep_arrivals"].handler({}, fakes.Context())
        # A used state is looked up to explain the refusal.
        assert self.arrive("browser_return", "other-code", cookie=cookie, state=state[1])["statusCode"] == 400
        assert self.arrive("result")["statusCode"] == 200
        assert self.arrive("widget_hook", "wrong-code")["statusCode"] == 200

    def _exchange(self) -> None:
        # In this order: the second and third are reinstalls.
        bodies = {json.loads(body)["code"]: body for body in self.stack.receive("unproven_exchanges")}
        bodies |= {json.loads(body)["code"]: body for body in self.stack.receive("exchanges")}
        assert len(bodies) == 4
        for code in ("widget-code", "kept-code", "browser-code", "wrong-code"):
            queue = "exchanges" if code == "browser-code" else "unproven_exchanges"
            self.put(queue, bodies[code])
            if code == "browser-code":
                # The vault refuses the grant: it is sealed, and opened at the next delivery.
                with refusing("PutItem" if self.in_table else "CreateSecret"):
                    (again,) = self.work("exchange_code", queue)
                self.put(queue, again)
            assert self.work("exchange_code", queue) == set()
        self._defer()

    def _attribute(self) -> None:
        """A customer installs by a link with tags, is tagged anew, confirms a claim, and an account is not the wanted one."""
        made = {"platform": "kommo", "client": "acme", "tags": {"customer_id": "c-1"}}
        for code, body in (
            ("linked-code", made),
            (
                "foreign-code",
                {"connection": f"kommo-acme-{kommo.account_id('linked')}", "tags": {"customer_id": "c-1"}},
            ),
        ):
            link = self.administer("POST", "/install-links", body)
            page = self.arrive("start", link=link["url"].partition("=")[2])
            cookie = page["headers"]["Set-Cookie"].partition(";")[0]
            state = re.search(r"state=([A-Za-z0-9_-]{43})", page["body"])
            assert state is not None
            self.kommo.codes[code] = code.partition("-")[0]
            host = f"{code.partition('-')[0]}.kommo.com"
            assert self.arrive("browser_return", code, cookie=cookie, state=state[1], host=host)["statusCode"] == 303
            assert self.work("exchange_code", "exchanges") == set()
        name = f"kommo-acme-{kommo.account_id('linked')}"
        (found,) = self.administer("GET", "/connections?tag.customer_id=c-1")["items"]
        assert found["name"] == name
        for customer in ("c-2", "c-3"):
            self.administer("PUT", f"/connections/{name}/tags", {"tags": {"customer_id": customer}})
        self.administer("GET", "/installs?tag.customer_id=c-1")
        self.administer("GET", "/install-links")
        for account in (str(kommo.account_id("linked")), str(kommo.account_id("later"))):
            link = self.administer("POST", "/install-links", made | {"account_id": account})
            page = self.arrive("start", link=link["url"].partition("=")[2], page="claim")
            cookie = page["headers"]["Set-Cookie"].partition(";")[0]
            state = re.search(r'value="([A-Za-z0-9_-]{43})"', page["body"])
            assert state is not None
            assert self.confirm(cookie, state[1])["statusCode"] == 200
            assert self.confirm(cookie, state[1])["statusCode"] == 200
            self.handlers["sweep_arrivals"].handler({}, fakes.Context())
            assert self.work("exchange_code", "exchanges") == set()
            self.administer("DELETE", f"/install-links/{link['id']}")
        assert self.administer("GET", f"/connections/{name}")["tags"] == {"customer_id": "c-1"}
        assert self.install("later-code", "later")
        self.administer("DELETE", f"/connections/{name}")
        assert self.work("remove_connections", "uninstalls") == set()

    def confirm(self, cookie: str, state: str) -> dict[str, Any]:
        event = fakes.sample("accept_install", "start")
        event |= {"resource": "/install/{platform}/{client}/claim", "httpMethod": "POST", "body": f"state={state}"}
        event["pathParameters"] |= {"platform": "kommo", "client": "acme"}
        event["multiValueHeaders"] |= {"Cookie": [cookie], "Content-Type": ["application/x-www-form-urlencoded"]}
        answer: dict[str, Any] = self.handlers["accept_install"].handler(event, None)
        return answer

    def _defer(self) -> None:
        """Codes of an unknown sender: one whose host hangs, two that fail, one deferred because of them, one that expires."""
        message = json.loads(fake_installs.message("stranger-0", "stranger")) | {"address_hash": "f" * 32}

        def arrives(code: str, queue: str, **more: str) -> None:
            name = install_id("kommo", "acme", Secret(code))
            self.put(queue, json.dumps(message | {"code": code, "install_id": name, **more}))
            assert self.work("exchange_code", queue) == set()

        self.kommo.before["/oauth2/access_token"] = [requests.exceptions.ReadTimeout()]
        arrives("stranger-0", "unproven_exchanges")
        arrives("stranger-1", "unproven_exchanges", account_host="other.kommo.com")
        arrives("stranger-2", "unproven_exchanges", account_host="other.kommo.com")
        assert self.work("exchange_code", "deferred_exchanges") == set()
        arrives("stranger-3", "exchanges", received_at="2026-01-01T00:00:00.000Z")
        # A known address that has been forgotten.
        sources = HookSources(self.stack.table)
        sources.succeeded("kommo", "e" * 32)
        for _ in range(KNOWN_SUSPECT_AT - 1):
            sources.failed("kommo", "e" * 32)
        arrives("stranger-4", "exchanges", account_host="other.kommo.com", address_hash="e" * 32)

    def _move_people(self) -> None:
        self.listing.tokens = {"canary-access-browser-code", "canary-access-kept-code", "canary-access-widget-code"}
        self.listing.contacts = [contact(number) for number in range(1, 4)]
        ready = [body for body in self.stack.receive("heard") if json.loads(body)["detail-type"] == "connection.ready"]
        self.put("backfills", ready[-1])
        assert self.work("backfill_records", "backfills") == set()
        assert self.work("backfill_records", "backfills") == set()
        self.marketo.rule = refuse_persons({"person2@example.com"})
        assert self.work("ingest_records", "bulk_records") == set()
        assert set(self.marketo.emails) == {"person1@example.com", "person3@example.com"}
        self._stop_and_go_on()
        self._split()
        self.listing.before = [(500, {}, "")]
        ready_again = json.loads(ready[-1])
        ready_again["detail"]["generation"] += 1
        self.put("backfills", json.dumps(ready_again))
        assert self.work("backfill_records", "backfills") == set()
        assert len(self.work("backfill_records", "backfills")) == 1
        self.put("records", "not a message")
        assert self.work("ingest_records", "records") == set()
        kept = self.administer("GET", "/dead-letters")["items"]
        assert sorted(letter["reason"] for letter in kept) == ["message_unreadable", "refused_by_destination"]
        for letter in kept:
            self.administer("DELETE", f"/dead-letters/{letter['id']}")

    def _stop_and_go_on(self) -> None:
        """An event without a name, which Marketo accepts only after a permission was added."""
        (name,) = [
            each["name"] for each in self.administer("GET", "/connections")["items"] if each["platform"] == "kommo"
        ]
        (partial,) = record_messages.pack(
            [Record("7", 1_700_000_000, {k: v for k, v in contact(7).items() if k != "last_name"}, is_partial=True)],
            connection=name, object="contacts", origin=record_messages.EVENT, read_at=1,
        )  # fmt: skip
        event, other, last = (
            record_messages.pack(
                [Record(str(number), 1_700_000_000, contact(number))],
                connection=name, object="contacts", origin=record_messages.EVENT, read_at=1,
            )[0]
            for number in (4, 5, 6)
        )  # fmt: skip
        # An event without a name makes the worker read the account again.
        self.put("records", partial)
        self.work("ingest_records", "records")
        self.marketo.rule = lambda document: marketo.error("429001")
        self.put("records", event)
        assert self.work("ingest_records", "records") == {event}
        self.marketo.rule = lambda document: marketo.error("4290801")
        self.put("records", event)
        assert self.work("ingest_records", "records") == set()
        # Later messages of the list wait too.
        self.put("records", event)
        assert self.work("ingest_records", "records") == set()
        # A sweep reports that their host does not answer.
        host = host_pauses.begin(self.stack.table, "mkto-ingestion-api.adobe.io")
        assert host
        self.put("waiting_records", '{"sweep": ""}')
        assert self.work("release_records", "waiting_records") == set()
        host_pauses.end(self.stack.table, host)
        self._release(lambda document: marketo.error("4030801"))
        assert "person4@example.com" not in self.marketo.emails
        with refusing("Query"):
            self.put("waiting_records", '{"sweep": ""}')
            assert len(self.work("release_records", "waiting_records")) == 1
        self._release(lambda document: None)
        assert self.marketo.emails.count("person4@example.com") == 1
        # A list that was read to its end is closed, and removed when no worker can still add to it.
        later = clock.now() + timedelta(minutes=10)
        with patch.object(clock, "now", lambda: later):
            self._release(lambda document: None)
        # If nothing waits, the next message finds that the pause has ended.
        destination_pause.begin(
            self.stack.table, "marketo-one", "persons", reason=PauseReason.STOPPED, code="", for_s=-1
        )
        self.put("records", other)
        assert self.work("ingest_records", "records") == set()
        assert "person5@example.com" in self.marketo.emails
        self.marketo.rule = lambda document: marketo.error("404040")
        self.put("records", last)
        assert self.work("ingest_records", "records") == set()
        (paused,) = self.administer("GET", "/destinations")["items"]
        assert (paused["name"], paused["reason"], paused["connection"]) == ("marketo-one", "stopped", "connected")
        self.marketo.rule = lambda document: None
        self.administer("POST", "/destinations/marketo-one/resume", {})
        assert self.work("release_records", "waiting_records") == set()
        assert "person6@example.com" in self.marketo.emails

    def _release(self, rule: Any) -> None:
        """All pauses of Marketo have ended, and waiting records are tried."""
        self.marketo.rule = rule
        table, now = self.stack.table, {":now": 0}
        for item in list(table.query_all(destination_pause.partition("marketo-one"))):
            attribute = "next_at" if item["sk"] == backlogs.SK else "until"
            table.update(item["pk"], item["sk"], "SET #at = :now", names={"#at": attribute}, values=now)
        forget_tokens()
        for message in ('{"sweep": ""}', ""):
            if message:
                self.put("waiting_records", message)
            assert self.work("release_records", "waiting_records") == set()

    def _split(self) -> None:
        """More contacts in one message, from either queue, than LeadConnector accepts one by one in the function's time."""
        target = {"destination": "marketek", "object": "persons", "priority": "normal", "options": {}}
        (many,) = record_messages.pack(
            [Record(str(number), 1_700_000_000, {"phone": f"+1555{number}"}) for number in range(9)],
            connection="pi-7", object="persons", origin=record_messages.FRONT_DOOR, read_at=1, target=target,
        )  # fmt: skip
        for queue in ("records", "bulk_records"):
            self.put(queue, many)
            assert self.work("ingest_records", queue) == set()
            parts = [json.loads(body)["records"] for body in self.stack.receive(queue)]
            assert sorted(map(len, parts)) == [1, 4, 4]

    def _reconcile(self) -> None:
        """A manual backfill, and changes of an account from before event addresses existed, and of a deleted one."""
        self.stack.receive("backfills")
        (name,) = [
            each["name"] for each in self.administer("GET", "/connections")["items"] if each["platform"] == "kommo"
        ]
        self.administer("POST", f"/connections/{name}/backfills", {})
        assert self.work("backfill_records", "backfills") == set()
        assert self.administer("GET", f"/connections/{name}/backfills")["reconciliations"]
        self.stack.table.delete(event_receiver.partition(name), event_receiver.SK)
        gone = replace(connection_store.get(self.stack.table, name), name="kommo-acme-gone")
        reconciliation.begin(self.stack.table, gone, "contacts")
        for each in (name, gone.name):
            key = reconciliation.key(each, "contacts")
            self.stack.table.update(*key, "SET due_at = :long_ago", values={":long_ago": "2020-01-01T00:00:00.000Z"})
        self.put("backfills", '{"reconcile": "due"}')
        assert self.work("backfill_records", "backfills") == set()
        assert self.work("backfill_records", "backfills") == set()
        assert self.stack.table.get(event_receiver.partition(name), event_receiver.SK)
        assert self.stack.table.get(*reconciliation.key(gone.name, "contacts")) is None

    def end_token(self, name: str) -> None:
        """A day later the access token of a connection has expired, and its secret can take another version."""
        key = self.stack.environment["SEALING_KEY_ID"]
        store, ended = Vault(PREFIX, SealedTable(self.stack.table, key)), clock.to_iso(clock.now() - timedelta(hours=1))
        connection = connection_store.get(self.stack.table, name)
        assert sealed_credentials.move_to_vault(self.stack.table, store, key, connection)
        connection = connection_store.get(self.stack.table, name)
        credentials = store.read(connection.secret_id, connection.version_id) or {}
        version = str(uuid.uuid4())
        store.add(connection.secret_id, version, {**credentials, "expires_at": Secret(ended)})
        self.stack.table.update(
            *connection_store.key(name),
            "SET version_id = :version, token_ends_at = :ended, updated_at = :before, due_at = :ended "
            "REMOVE version_added_at",
            values={
                ":version": version,
                ":ended": ended,
                ":before": clock.to_iso(clock.now() - timedelta(days=1)),
            },
        )
        forget_tokens()

    def install(self, code: str, subdomain: str) -> str:
        """Another account. Returns the name of its connection."""
        self.kommo.codes[code] = subdomain
        self.put("exchanges", fake_installs.message(code, subdomain))
        assert self.work("exchange_code", "exchanges") == set()
        return connection_store.installed_name("kommo", "acme", str(kommo.account_id(subdomain)))

    def _renew(self) -> None:
        """Tokens renewed by the schedule and by a backfill, with and without the vault; a revoked grant; an overlap."""
        name = self.install("renewed-code", "renewed")
        self.end_token(name)
        self.put("renewals", '{"sweep": ""}')
        assert self.work("renew_tokens", "renewals") == set()
        assert self.work("renew_tokens", "renewals") == set()
        self.end_token(name)
        with refusing("PutItem" if self.in_table else "PutSecretValue"):
            self.put("renewals", json.dumps({"connection": name}))
            assert self.work("renew_tokens", "renewals") == set()
        self.put("renewals", json.dumps({"connection": name}))
        assert self.work("renew_tokens", "renewals") == set()

        for refused in (False, True):
            self.end_token(name)
            ready = {"connection": name, "generation": 1 + refused}
            self.put("backfills", json.dumps({"detail-type": "connection.ready", "detail": ready}))
            assert self.work("backfill_records", "backfills") == set()
            with refusing(*(["PutItem" if self.in_table else "PutSecretValue"] if refused else [])):
                self.listing.tokens = {f"canary-access-renewed-code{'+' * number}" for number in range(9)}
                assert self.work("backfill_records", "backfills") == set()
        forget_tokens()
        self.put("backfills", json.dumps({"detail-type": "connection.ready", "detail": {**ready, "generation": 9}}))
        assert self.work("backfill_records", "backfills") == set()
        assert self.work("backfill_records", "backfills") == set()

        waiting = self.install("waiting-code", "waiting")
        self.end_token(waiting)
        self.kommo.before["/oauth2/access_token"] = [(500, {}, "")]
        self.put("renewals", json.dumps({"connection": waiting}))
        assert len(self.work("renew_tokens", "renewals")) == 1

        dead = self.install("dead-code", "dead")
        self.kommo.revoked.add("dead")
        self.end_token(dead)
        for _ in range(2):
            self.put("renewals", json.dumps({"connection": dead}))
            assert self.work("renew_tokens", "renewals") == set()

        self.administer("POST", "/connections/marketek/rotate", {"credentials": {"token": "canary-three"}})
        past = clock.to_iso(clock.now() - timedelta(days=1))
        self.stack.table.update(*connection_store.key("marketek"), "SET previous_until = :past", values={":past": past})
        self.put("renewals", '{"connection": "marketek"}')
        assert self.work("renew_tokens", "renewals") == set()

    def _call(self) -> None:
        """Calls with a valid token, with one that must be renewed, and with one that is sealed."""
        name = self.install("called-code", "called")
        body = {"method": "GET", "path": "/api/v4/account"}

        def call(path: str = "/api/v4/account", **headers: str) -> int:
            event = with_headers(proxy_event("POST", f"/connections/{name}/call", body | {"path": path}), **headers)
            status = self.handlers["call_connection"].handler(event, fakes.Context())["statusCode"]
            forget_tokens()
            return int(status)

        assert call() == 200
        self.end_token(name)
        assert call() == 200
        self.end_token(name)
        with refusing("PutItem" if self.in_table else "PutSecretValue"):
            assert call() == 200
        assert call() == 200
        assert [call(idempotency_key="one") for _ in range(2)] == [200, 200]
        assert call("no path", idempotency_key="two") == 400
        event = proxy_event("GET", f"/connections/{name}/proxy/api/v4/account")
        for _ in range(2):
            with_headers(event, X_Portaria_Idempotency_Key="three")
            assert self.handlers["call_connection"].handler(event, fakes.Context())["statusCode"] == 200
        event = proxy_event("POST", f"/connections/{name}/test")
        assert self.handlers["call_connection"].handler(event, fakes.Context())["statusCode"] == 409

    def _sign_on(self) -> None:
        """A program signs a user on with its token, a browser opens the link, and a caller guesses tokens."""
        to_engage(self.stack)
        _, token = self.manage.create_integration("sso:create@engage-one")
        event = with_token(
            proxy_event("POST", "/connections/engage-one/sso", {"user_identifier": "u-1"}, prefix="/v1"), token
        )
        answer = self.handlers["call_connection"].handler(event, fakes.Context())
        assert answer["statusCode"] == 201, answer
        ticket = json.loads(answer["body"])["link"].rpartition("/")[2]
        event = fakes.sample("redeem_ticket", "open_link") | {"pathParameters": {"ticket": ticket}}
        assert self.handlers["redeem_ticket"].handler(event, fakes.Context())["statusCode"] == 303
        assert self.manage.program("portaria_guess", "GET", "/routes").status == 401
        made = with_headers(proxy_event("POST", "/private-integrations", {"name": "x", "scopes": ["routes:list"]}))
        assert [self.manage.answer(with_headers(made, idempotency_key="once")).status for _ in range(2)] == [201, 201]

    def _take_in(self) -> None:
        """A program sends persons to accept_records."""
        _, token = self.manage.create_integration("records:send@marketo-one")
        event = with_headers(fakes.sample("accept_records", "persons"), x_mkto_user_token=token)
        del event["multiValueHeaders"]["X-Mkto-User-Token"]
        event["pathParameters"]["subscription"] = marketo.MUNCHKIN
        answer = self.handlers["accept_records"].handler(event, fakes.Context())
        assert answer["statusCode"] == 202, answer
        assert len(self.stack.receive("records")) == 1
        guess = with_headers(fakes.sample("accept_records", "persons"), x_mkto_user_token="portaria_guess")
        del guess["multiValueHeaders"]["X-Mkto-User-Token"]
        assert self.handlers["accept_records"].handler(guess, fakes.Context())["statusCode"] == 401

    def _receive(self) -> None:
        """A workflow sends a contact to its address, then an app does, whose delivery id is stored."""
        made = self.administer("POST", "/connections/marketek/event-addresses")
        event = fakes.sample("receive_events", "leadconnector_workflow")
        event["pathParameters"]["key"] = made["url"].rpartition("/")[2]
        event["multiValueHeaders"]["X-Portaria-Secret"] = [made["header_value"]]
        event["requestContext"]["requestTimeEpoch"] = int(time.time() * 1000)
        assert self.handlers["receive_events"].handler(event, None)["statusCode"] == 200
        sent = json.loads(fakes.sample("receive_events", "leadconnector_app")["body"])
        event["body"] = json.dumps(sent | {"timestamp": int(time.time() * 1000)})
        event["multiValueHeaders"]["X-GHL-Signature"] = ["A" * 86 + "=="]
        assert self.handlers["receive_events"].handler(event, None)["statusCode"] == 401
        with patch.object(event_receiver, "_ed25519", return_value=True):
            assert self.handlers["receive_events"].handler(event, None)["statusCode"] == 200
        assert len(self.stack.receive("records")) == 2

    def _leave(self) -> None:
        """An account disconnects and is checked with a token that must be renewed; a connection is deleted."""
        for subdomain, refused in (("leaving", False), ("leaving-too", True)):
            name = self.install(f"{subdomain}-code", subdomain)
            self.administer("PUT", f"/connections/{name}/tags", {"tags": {"customer_id": "c-4"}})
            self.kommo.before["/api/v4/account"] = [(500, {}, "")]
            self.depart(subdomain)
            assert len(self.work("remove_connections", "uninstalls")) == 1
            self.end_token(name)
            with refusing(*(["PutItem" if self.in_table else "PutSecretValue"] if refused else [])):
                self.depart(subdomain)
                assert self.work("remove_connections", "uninstalls") == set()
            self.kommo.revoked.add(subdomain)
            self.stack.table.update(
                *connection_store.key(name), "SET updated_at = :before", values={":before": "2020-01-01T00:00:00.000Z"}
            )
            self.depart(subdomain)
            forget_tokens()
            assert self.work("remove_connections", "uninstalls") == set()

    def depart(self, subdomain: str) -> None:
        account_id = str(kommo.account_id(subdomain))
        signed = f"{kommo.CLIENT_ID}|{account_id}".encode()
        signature = hmac.new(kommo.CLIENT_SECRET.encode(), signed, hashlib.sha256).hexdigest()
        event = fakes.sample("accept_uninstall", "disconnect_hook")
        event["pathParameters"] = {"platform": "kommo", "client": "acme"}
        query = {"client_uuid": kommo.CLIENT_ID, "account_id": account_id, "signature": signature}
        event["multiValueQueryStringParameters"] = {key: [value] for key, value in query.items()}
        assert self.handlers["accept_uninstall"].handler(event, fakes.Context())["statusCode"] == 200

    def _hear_what_became(self) -> None:
        """A destination reports a request, a message becomes a dead letter, and an operator reads and redrives it."""
        receipts.open_receipt(
            self.stack.table, "0" * 40, destination="marketo-one", object="persons", routes=["people"], count=1, size=9,
            keys=["kommo-acme-1/1"], requests=["q-1"],
        )  # fmt: skip
        receipts.accept(self.stack.table, "0" * 40, "r-1")
        adobe.keep_keys(self.mock)
        told = adobe.delivery(adobe.results("e-1", adobe.request("r-1", created=1), munchkin=marketo.MUNCHKIN))
        assert self.handlers["track_receipts"].handler(told, fakes.Context())["statusCode"] == 200
        (shown,) = self.administer("GET", "/receipts?request=r-1")["items"]
        assert shown["state"] == "applied"
        assert self.administer("GET", "/receipts?destination=marketo-one&record=kommo-acme-1/1")["items"] == [shown]
        assert self.administer("GET", f"/receipts/{shown['id']}")["requests"] == []
        self.put("records_dead_letters", "no message")
        with refusing("PutItem"):
            (kept,) = self.work("keep_dead_letters", "records_dead_letters")
        self.put("records_dead_letters", kept)
        assert self.work("keep_dead_letters", "records_dead_letters") == set()
        (letter,) = self.administer("GET", "/dead-letters?reason=message_unreadable")["items"]
        assert self.administer("GET", f"/dead-letters/{letter['id']}")["content"]
        redriven = self.administer("POST", "/dead-letters/redrive", {"ids": [letter["id"]]})["letters"]
        assert [one["outcome"] for one in redriven] == ["redriven"]
        assert self.stack.receive("records") == ["no message"]
        selection = {"ids": [letter["id"]]}
        assert self.administer("POST", "/dead-letters/delete", selection)["dead_letter_count"] == 1
        self._send_and_preview()

    def _send_and_preview(self) -> None:
        (route, *_) = self.administer("GET", "/routes")["items"]
        (name, *_) = [
            each["name"] for each in self.administer("GET", "/connections")["items"] if each["platform"] == "kommo"
        ]
        record = {"key": "7", "data": {"name": "Maria"}}
        sending = {"route": route["name"], "connection": name, "records": [record]}
        accepted = self.administer("POST", "/records", sending)
        assert self.administer("GET", f"/receipts?request={accepted['id']}")["items"]
        assert len(self.stack.receive("records")) == 1
        self.administer("POST", "/routes/preview", {"name": route["name"], "record": record["data"]})

    def _send_webhooks(self) -> None:
        """An event goes to a webhook whose endpoint fails, is slow, and is gone; and dead letters have been counted."""
        url = "https://app.example.com/webhooks"
        self.mock.post(url, status=500)
        self.mock.post(url, status=410)
        with patch.object(http_client, "check_public"):
            webhook = self.administer("POST", "/webhooks", {"url": url, "events": ["connection.*"]})["id"]
        self.administer("GET", "/webhooks")
        self.administer("POST", f"/webhooks/{webhook}/test")
        assert self.work("deliver_webhooks", "webhook_deliveries") == set()
        event = {"id": "e-1", "source": "portaria", "detail-type": READY, "time": "2026-01-01T00:00:00Z"}
        body = json.dumps(event | {"detail": CATALOGUE[READY].example})
        self.put("webhook_events", body)
        with refusing("PutItem"):
            assert len(self.work("fan_out_events", "webhook_events")) == 1
        self.put("webhook_events", body)
        assert self.work("fan_out_events", "webhook_events") == set()
        self.stack.table.update(
            *endpoint_gate.key(webhook), "SET is_slow = :yes REMOVE failures", values={":yes": True}
        )
        assert self.work("deliver_webhooks", "webhook_deliveries") == set()
        (message,) = self.stack.receive("slow_webhook_deliveries")
        for queue in ("webhook_deliveries", "slow_webhook_deliveries"):
            self.put(queue, message)
            with refusing("GetItem"):
                assert len(self.work("deliver_webhooks", queue)) == 1
        self.put("slow_webhook_deliveries", message)
        assert self.work("deliver_webhooks", "slow_webhook_deliveries") == set()
        assert self.administer("GET", f"/webhooks/{webhook}")["disabled_reason"] == "gone"
        put, later = event_bus.put, clock.now() + timedelta(minutes=2)

        def slowly(*arguments: Any) -> None:
            """While a count is published, a slow worker adds to it."""
            put(*arguments)
            for item in self.stack.table.query_all(dead_letter_counts.PARTITION):
                self.stack.table.update(item["pk"], item["sk"], "ADD records :one", values={":one": 1})

        with patch.object(clock, "now", lambda: later):
            with patch.object(event_bus, "put", slowly):
                assert self.work("deliver_webhooks", "webhook_deliveries") == set()
            self.put("webhook_deliveries", '{"sweep": ""}')
            assert self.work("deliver_webhooks", "webhook_deliveries") == set()
        self.administer("DELETE", f"/webhooks/{webhook}")
        self.stack.receive("webhook_deliveries")

    def _tidy_up(self) -> None:
        for kind in ("oauth-clients", "connections", "routes", "installs"):
            assert self.administer("GET", f"/{kind}")["items"]
        failed = self.administer("GET", "/installs?state=failed")["items"]
        reasons = {self.administer("GET", f"/installs/{each['id']}")["reason"] for each in failed}
        assert reasons == {"bad_code", "code_expired"}
        self.administer("DELETE", "/connections/marketo-two")
        assert self.work("remove_connections", "uninstalls") == set()
        self.administer("DELETE", "/oauth-clients/kommo/spare")

    def _use_console(self) -> None:
        browser = Browser(self.stack)
        assert browser.sign_in().status == 200
        connections = self.administer("GET", "/connections?state=connected")["items"]
        (name, *_) = [each["name"] for each in connections if each["platform"] == "kommo"]
        called = browser.submit(f"/connections/{name}/call", {"method": "GET", "path": "/api/v4/account"})
        assert called.status == 200, re.findall(r"<li>([^<]*)</li>", called.text)
        assert browser.get("/installs").status == 200
        self.handlers["count_states"].handler({}, fakes.Context())
        for page in ("overview", "settings"):
            assert browser.get(f"/{page}").status == 200
            self.administer("GET", f"/{page}")
        with refusing("GetItem"):
            assert browser.get("/installs").status == 500
        (session,) = self.administer("GET", "/console-sessions")["items"]
        self.administer("DELETE", f"/console-sessions/{session['id']}")
        assert browser.get("/installs").status == 401

    def put(self, queue: str, body: str) -> None:
        boto3.client("sqs").send_message(QueueUrl=self.stack.url(queue), MessageBody=body)


@pytest.fixture(scope="module")
def story() -> Story:
    """Runs once for all tests of this module."""
    told, output = Story(), io.StringIO()
    _seen_elsewhere.clear()
    forget_tokens()
    recorders = []
    for store, tell in (("secrets-manager", Teller.tell), ("table", Teller.tell_of_table)):
        with (
            recording() as recorder,
            cloud() as stack,
            responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
            patch.object(light_client.AwsClient, "call", call_with_boto3),
            patch.object(RateLimiter, "wait"),
            # Readings are queued with delays, for which the story does not wait.
            patch.object(reconciliation, "SPREAD_S", 0),
            redirect_stdout(output),
            warnings.catch_warnings(),
        ):
            # Powertools warns if a call has added no metric.
            warnings.filterwarnings("ignore", message="No application metrics to publish")
            stack.environment["CREDENTIAL_STORE"] = store
            # Every request claims a slot of its platform's budget, which is so large that none waits long.
            stack.environment["SHARED_OUTBOUND_ADDRESSES"] = "100"
            tell(Teller(stack, mock))
        request_budget.configure("0")
        recorders.append(recorder)
        forget_tokens()
    for one in (*recorders, *_seen_elsewhere):
        told.refused += one.refused
        for function, use in one.used:
            told.used.setdefault(function, set()).add(use)
    # The console carries out the API's operations itself, with the API's policy.
    told.used["console"] |= {use for use in told.used["manage"] if any(grant.allows(use) for grant in grants("manage"))}
    told.metrics = set(emitted(output.getvalue()))
    forget_tokens()
    return told


def emitted(text: str) -> Iterator[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """Every metric in CloudWatch's embedded metric format among the lines of a log."""
    for line in text.splitlines():
        if '"_aws"' not in line:
            continue
        blob = json.loads(line)
        for directive in blob["_aws"]["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                dimensions = tuple(sorted((name, blob[name]) for name in names))
                for metric in directive["Metrics"]:
                    yield directive["Namespace"], metric["Name"], dimensions


def test_roles_deny_no_call_of_the_recorded_flow(story: Story) -> None:
    assert sorted(set(story.refused)) == []
    assert set(story.used) == {function.name for function in functions()}


@each_function
def test_role_each_granted_action_is_used(story: Story, function: Function) -> None:
    polled = [Use(action, queue) for queue in consumed_queue(function) for action in POLLING]
    idle = [
        f"{grant.sid}: {action}"
        for grant in grants(function.name)
        for action in grant.actions
        if not any(use.action == action and grant.allows(use) for use in [*story.used[function.name], *polled])
    ]
    assert idle == []


@each_function
def test_role_each_granted_resource_is_used(story: Story, function: Function) -> None:
    polled = [Use(action, queue) for queue in consumed_queue(function) for action in POLLING]
    idle = [
        f"{grant.sid}: {pattern}"
        for grant in grants(function.name)
        for pattern in grant.resources
        if not any(
            type(grant)(grant.sid, grant.actions, (pattern,)).allows(use)
            for use in [*story.used[function.name], *polled]
        )
    ]
    assert idle == []


@pytest.mark.parametrize(
    "function", [each for each in functions() if consumed_queue(each)], ids=lambda function: function.name
)
def test_role_allows_polling_of_its_queue(function: Function) -> None:
    for queue in consumed_queue(function):
        for action in POLLING:
            assert any(grant.allows(Use(action, queue)) for grant in grants(function.name)), action


@each_function
def test_role_statements_have_no_wildcard(function: Function) -> None:
    """A resource may end in `/*` below a name of this stack, an action must not contain a wildcard."""
    assert function.properties["Policies"]
    assert "Role" not in function.properties
    for statement in function.statements:
        assert statement["Effect"] == "Allow"
        assert not {"NotAction", "NotResource"} & set(statement)
        assert re.fullmatch(r"[A-Z][A-Za-z]+", statement["Sid"])
    for grant in grants(function.name):
        for action in grant.actions:
            assert re.fullmatch(r"[a-z]+:[A-Z][A-Za-z]+", action)
        for pattern in grant.resources:
            if pattern == "*":
                # CloudWatch has no resources for these.
                assert set(grant.actions) == {"cloudwatch:DescribeAlarms", "cloudwatch:GetMetricData"}
                continue
            assert "*" not in pattern.removesuffix("/*")
            assert re.fullmatch(r"arn:aws:[a-z]+:us-east-1:123456789012:.+", pattern)
            if pattern.endswith("/*"):
                assert re.search(
                    r":(secret:portaria/(grants|oauth-clients)|table/portaria/index|stack/portaria)/\*$", pattern
                )


@each_function
def test_role_statement_ids_are_unique(function: Function) -> None:
    sids = [statement["Sid"] for statement in function.statements]
    assert len(set(sids)) == len(sids)


@pytest.mark.parametrize("name", ["accept_install", "receive_events"])
def test_webhook_roles_allow_only_sqs_and_dynamodb(name: str) -> None:
    services = {action.partition(":")[0] for grant in grants(name) for action in grant.actions}
    assert services == {"sqs", "dynamodb"}


def test_alarms_own_metrics_are_emitted_by_the_recorded_flow(story: Story) -> None:
    own = {
        name: alarm["Properties"]
        for name, alarm in resources("AWS::CloudWatch::Alarm").items()
        if not alarm["Properties"].get("Namespace", "AWS/").startswith("AWS/")
    }
    assert own
    for name, alarm in own.items():
        # The template's own stack is `portaria` in the tests.
        assert alarm["Dimensions"] == [{"Name": "service", "Value": {"Ref": "AWS::StackName"}}], name
        dimensions = (("service", os.environ["POWERTOOLS_SERVICE_NAME"]),)
        assert (alarm["Namespace"], alarm["MetricName"], dimensions) in story.metrics, name


def test_function_environment_metric_namespace_matches_tests() -> None:
    variables = read_template()["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}
    assert os.environ["POWERTOOLS_METRICS_NAMESPACE"] == variables["POWERTOOLS_METRICS_NAMESPACE"]
    assert target(variables["POWERTOOLS_LOG_LEVEL"]) == "LogLevel"
