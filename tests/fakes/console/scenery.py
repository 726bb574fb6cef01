"""A stack with something of everything that the console shows, over a week of virtual time.

What the API can create is created by it, so that the audit trail is as long as it would be. The account names are those of the
sandbox and others of the same kind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from portaria.connections import connection_store
from portaria.connections.vault import Vault
from portaria.core import clock, record_messages
from portaria.core.callbacks import Record, Secret
from portaria.core.entities import Connection, Target, Trace
from portaria.core.item_keys import install_key, install_lists, install_places
from portaria.delivery import destination_pause, waiting_entries, waiting_lists
from portaria.delivery.destination_pause import PauseReason
from portaria.delivery.waiting_entries import HeldRecords
from portaria.delivery.waiting_lists import Due
from portaria.notifications import deliveries
from portaria.notifications.deliveries import Attempt
from portaria.outbound import http_client
from portaria.records import dead_letters, receipts
from portaria.records.dead_letters import Letter
from portaria.records.mapping import record_mapping
from portaria.sources import backfill
from tests.fakes.api.console import Browser
from tests.fakes.api.manage import Manage
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.virtual_time import VirtualClock

# The scenery ends at this time.
NOW = datetime(2026, 11, 25, 14, 5, tzinfo=UTC)
START = NOW - timedelta(days=95)
ACCOUNTS = {
    "padaria": 1001, "livraria": 1002, "floricultura": 1003, "papelaria": 1004, "oficina": 1005, "doceria": 1006,
    "sapataria": 1007, "cafeteria": 1008, "relojoaria": 1009, "marcenaria": 1010,
}  # fmt: skip
MUNCHKIN = "123-ABC-456"
HOOK = "https://hooks.example.com/portaria"
CLIENT = {
    "platform": "kommo",
    "name": "acme",
    "client_id": "5f3c1f0e-8b7a-4c1e-9d57-2b8d2f9a1c10",
    "client_secret": "canary-client",
    "display_name": "Acme Sync",
    "colour": "#7c3aed",
    "support_email": "suporte@example.com",
    "return_urls": ["https://app.example.com/integrations/done"],
}
SHOP = {
    "platform": "oauth2",
    "name": "shop",
    "client_id": "shop-client",
    "client_secret": "canary-shop",
    "authorize_url": "https://shop.oauth.example.net/authorize",
    "token_url": "https://shop.oauth.example.net/token",
    "api_domains": ["shop.oauth.example.net"],
}
ERP = {
    "name": "erp", "platform": "http", "kind": "api_key", "allowed_domain": "erp.oauth.example.net",
    "fields": {"header_name": "X-Api-Key"}, "credentials": {"key": "canary-key"},
}  # fmt: skip
SHOP_MAIN = {
    "name": "shop-main",
    "platform": "oauth2",
    "kind": "oauth2",
    "client": "shop",
    "allowed_domain": "shop.oauth.example.net",
}
ROUTE = {
    "name": "kommo-contacts",
    "source": "client:kommo/acme",
    "object": "contacts",
    "destination": "marketo-main",
    "dedupe_fields": ["email"],
    "mapping": {
        "firstName": "first_name || name",
        "lastName": "last_name",
        "email": "custom_fields_values[?field_code=='EMAIL'].values[].value | [0]",
        "phone": "custom_fields_values[?field_code=='PHONE'].values[].value | [0]",
    },
}
LETTERS = (
    ("no_dedupe_value", "the record has no value for email", 3),
    ("no_dedupe_value", "the record has no value for email", 1),
    ("refused_by_destination", "Marketo refused the record: 1004 lead not found", 1),
    ("mapping_failed", "mapping.phone: the expression returned a list, and the field takes text", 12),
    ("gave_up", "the destination did not answer in 48 hours", 40),
)


@dataclass
class Scenery:
    """`clock` stands at `NOW` when everything is there."""

    cloud: Cloud
    clock: VirtualClock
    manage: Manage
    receipts: list[str] = field(default_factory=list)
    webhook: str = ""

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        made = self.manage.call("POST", path, body)
        assert made.status < 300, made.text
        return made.content if made.text else {}

    def until(self, **before_the_end: float) -> None:
        """Let time pass until this long before the end."""
        self.clock.advance((NOW - timedelta(**before_the_end) - self.clock.now()).total_seconds())


def furnish(browser: Browser, clock_: VirtualClock) -> Scenery:
    """`clock_` must be installed and stand at `START`."""
    scenery = Scenery(browser.manage.cloud, clock_, browser.manage)
    with patch.object(http_client, "check_public"):
        _configure(scenery)
        _connect(scenery)
        _install(scenery)
        _link(scenery)
        _subscribe(scenery)
        _deliver(scenery)
        _set_aside(scenery)
        _pause(scenery)
    scenery.until(days=0)
    count_states(scenery.cloud)
    return scenery


def count_states(stack: Cloud) -> None:
    """Let the scheduled function count what the overview shows."""
    function = functions.load("count_states", stack.environment)
    function.handler(functions.sample("count_states", "every_five_minutes"), functions.Context())


def _configure(scenery: Scenery) -> None:
    scenery.create("/oauth-clients", CLIENT)
    scenery.create("/oauth-clients", SHOP)
    scenery.create("/connections", ERP)
    connect(scenery.cloud, Connection(
        "marketo-main", "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", "connected", 1, "",
        fields={"munchkin_id": MUNCHKIN}, label="Marketo production", created_at=clock.to_iso(clock.now()),
    ))  # fmt: skip
    # A person tells this platform where to send its events.
    connect(scenery.cloud, Connection(
        "marketek", "leadconnector", "bearer", "services.leadconnectorhq.com", "connected", 1, "",
        fields={"location_id": "ocQHyuzHvysMo5N5VsXc"}, label="Loja Marketek", created_at=clock.to_iso(clock.now()),
        granted_at=clock.to_iso(clock.now()), updated_at=clock.to_iso(clock.now()),
    ))  # fmt: skip
    scenery.create("/routes", ROUTE)
    scenery.until(days=83)
    scenery.create("/private-integrations", {
        "name": "BI exports", "description": "Nightly export of the warehouse",
        "scopes": ["connections:list", "connections:show", "receipts:list", "receipts:show"],
    })  # fmt: skip
    scenery.until(days=12)
    rotated = scenery.create("/private-integrations", {
        "name": "Site forms", "scopes": ["records:send", "connections:call@erp"],
    })  # fmt: skip
    scenery.until(days=9)
    scenery.until(days=2)
    connect(scenery.cloud, Connection(
        "marketek-main", "leadconnector", "bearer", "services.leadconnectorhq.com", "connected", 1, "", label="Marketek",
        fields={"location_id": "ve9EPM428h8vShlRW1KT"}, created_at=clock.to_iso(clock.now()),
        granted_at=clock.to_iso(clock.now()), updated_at=clock.to_iso(clock.now()),
    ))  # fmt: skip
    # Its token was rotated, and the old one works for some days more.
    connect(scenery.cloud, Connection(
        "helpdesk", "http", "bearer", "helpdesk.oauth.example.net", "connected", 2, "", label="Helpdesk",
        created_at=clock.to_iso(START), granted_at=clock.to_iso(clock.now()), updated_at=clock.to_iso(clock.now()),
        previous_version_id="1", previous_until=clock.to_iso(NOW + timedelta(days=5)),
    ))  # fmt: skip
    scenery.create(f"/private-integrations/{rotated['id']}/rotate", {"expire_now": False})


def connect(cloud: Cloud, connection: Connection) -> None:
    """Store a connection with credentials in the vault."""
    vault = Vault(PREFIX)
    secret_id = vault.grant_id(connection.name)
    vault.create(secret_id, {"access_token": Secret("canary-access"), "refresh_token": Secret("canary-refresh")})
    connection_store.create(cloud.table, replace(connection, secret_id=secret_id))


def _connect(scenery: Scenery) -> None:
    scenery.create("/connections", SHOP_MAIN)
    for number, (name, account_id) in enumerate(ACCOUNTS.items()):
        scenery.until(days=6, hours=-12 * number)
        now = clock.now()
        is_lost = name == "oficina"
        connect(scenery.cloud, Connection(
            connection_store.installed_name("kommo", "acme", str(account_id)), "kommo", "oauth2", f"{name}.kommo.com",
            "needs_reconnect" if is_lost else "connected", 3, "", label=f"{name}.kommo.com", client="acme",
            account_id=str(account_id), scopes="crm notifications", created_at=clock.to_iso(now),
            updated_at=clock.to_iso(now), granted_at=clock.to_iso(now),
            token_ends_at=clock.to_iso(NOW + timedelta(hours=3 + 2 * number)),
            reason="grant_refused" if is_lost else "", tags={"customer_id": f"c-{account_id}"},
        ))  # fmt: skip
    source = connection_store.installed_name("kommo", "acme", "1001")
    scenery.create(f"/connections/{source}/backfills", {})
    scenery.cloud.receive("backfills")
    item = scenery.cloud.table.get(*backfill.key(source, "kommo-contacts", 3)) or {}
    ended = {"state": "done", "records": 300, "pages": 2, "finished_at": clock.to_iso(clock.now())}
    scenery.cloud.table.put(item | ended)


def add_install(cloud: Cloud, number: int, state: str, received_at: datetime, **fields: Any) -> str:
    """Put an install as the exchange leaves it."""
    install_id = f"{number:04d}" + "mfzwizltoq2dkobvhe3tmn"
    pk, sk = install_key(install_id)
    at = clock.to_iso(received_at)
    cloud.table.put(
        {
            "pk": pk, "sk": sk, "state": state, "platform": "kommo", "client": "acme", "attempts": 1, "received_at": at,
            **install_lists(state, "kommo", "acme"), **install_places(install_id, at), **fields,
        }
    )  # fmt: skip
    return install_id


def _install(scenery: Scenery) -> None:
    number = 0
    for place, (name, account_id) in enumerate(ACCOUNTS.items()):
        at = NOW - timedelta(days=6, hours=-12 * place)
        connection = connection_store.installed_name("kommo", "acme", str(account_id))
        done = {"connection": connection, "connected_at": clock.to_iso(at + timedelta(seconds=2))}
        add_install(scenery.cloud, number, "connected", at, account_host=f"{name}.kommo.com", **done)
        number += 1
    for hours, name, reason, detail in (
        (1.5, "loteria", "code_expired", "the authorization code was older than 20 minutes"),
        (7, "mercearia", "account_not_allowed", "the account's host is not one of the client's domains"),
        (30, "quitanda", "code_refused", "Kommo refused the code: Authorization code has been revoked"),
    ):
        at = NOW - timedelta(hours=hours)
        failed = {"reason": reason, "detail": detail, "failed_at": clock.to_iso(at + timedelta(minutes=3))}
        add_install(scenery.cloud, number, "failed", at, account_host=f"{name}.kommo.com", **failed)
        number += 1
    for minutes, name in ((55, "padaria"), (41, "livraria"), (20, "doceria"), (4, "cafeteria")):
        at = NOW - timedelta(minutes=minutes)
        done = {"connected_at": clock.to_iso(at + timedelta(seconds=2))}
        add_install(scenery.cloud, number, "connected", at, account_host=f"{name}.kommo.com", **done)
        number += 1
    add_install(scenery.cloud, number, "exchanging", NOW - timedelta(seconds=9), account_host="sorveteria.kommo.com")


def _link(scenery: Scenery) -> None:
    scenery.until(hours=5)
    for tags in ({"customer_id": "c-2001", "plan": "pro"}, {"customer_id": "c-2002"}):
        body = {"platform": "kommo", "client": "acme", "tags": tags, "expires_in_s": 86_400, "single_use": True}
        scenery.create("/install-links", body)


def _subscribe(scenery: Scenery) -> None:
    made = scenery.create("/webhooks", {"url": HOOK, "events": ["connection.*", "install.*"], "description": "CRM"})
    scenery.webhook = str(made["id"])
    table = scenery.cloud.table
    for hours, attempts in ((4.5, (204,)), (3, (503, 204)), (2, (500, 500, 500)), (0.1, ())):
        scenery.until(hours=hours)
        scenery.create(f"/webhooks/{scenery.webhook}/test", {})
        (delivery,), _ = deliveries.list_page(table, scenery.webhook, state="pending", since=None, cursor=None, limit=1)
        for number, status in enumerate(attempts, start=1):
            error = "" if status < 400 else "status"
            scenery.clock.advance(seconds=3 * number)
            attempt = Attempt(clock.to_iso(clock.now()), 120 + 31 * number, status, error)
            now = clock.now()
            if status < 400:
                assert deliveries.ended(table, delivery, deliveries.DELIVERED, attempt=attempt)
            elif number == len(attempts):
                assert deliveries.ended(table, delivery, deliveries.FAILED, deliveries.EXHAUSTED, attempt)
            else:
                assert deliveries.retried(table, delivery, attempt, now, now)
            delivery = deliveries.find(table, scenery.webhook, delivery.id) or delivery
    scenery.cloud.receive("webhook_deliveries")


def _deliver(scenery: Scenery) -> None:
    table = scenery.cloud.table
    for number, outcome in enumerate(("applied", "applied", "failed", "reported", "accepted", "sent")):
        scenery.until(minutes=100 - 15 * number)
        body = json.dumps({"persons": number}).encode()
        correlation_id = receipts.correlation_id("marketo-main", "persons", [f"message-{number}"], body)
        scenery.receipts.append(correlation_id)
        receipts.open_receipt(
            table, correlation_id, destination="marketo-main", object="persons", routes=["kommo-contacts"],
            count=40 + 12 * number, size=9_000 + 1_000 * number, keys=[f"kommo-acme-1001/{3_700_000 + number}"],
            requests=[], trace=Trace(f"trace-{number:04d}"),
        )  # fmt: skip
        if outcome == "failed":
            receipts.fail(table, correlation_id, "1022", f"request-{number}")
        elif outcome != "sent":
            receipts.accept(table, correlation_id, f"{number}a1f#18b2c4d5e6f", applied=outcome == "applied")


def _set_aside(scenery: Scenery) -> None:
    for number, (reason, detail, count) in enumerate(LETTERS):
        scenery.until(hours=60 - 14 * number)
        source = connection_store.installed_name("kommo", "acme", str(1001 + number))
        records = [
            {"key": str(37_054_081 + each), "updated_at": int(clock.now().timestamp()), "data": {"name": "Contato"}}
            for each in range(count)
        ]
        letter = Letter(
            f"letter-{number}", source, "kommo-contacts", "contacts", record_messages.EVENT, reason, detail, records,
            destination="marketo-main" if reason in ("gave_up", "refused_by_destination") else "",
            read_at=int(clock.now().timestamp() * 1_000),
        )  # fmt: skip
        dead_letters.put(scenery.cloud.table, letter)


def _pause(scenery: Scenery) -> None:
    scenery.until(minutes=25)
    table, count, source = scenery.cloud.table, 184, "kommo-acme-1001"
    destination_pause.begin(table, "marketo-main", "persons", reason=PauseReason.QUOTA, code="1029", for_s=36_000)
    target = {"destination": "marketo-main", "object": "persons", "priority": "normal", "options": {}}
    (body,) = record_messages.pack(
        [Record(str(number), 1, {"email": f"contato{number}@example.com"}) for number in range(count)],
        connection=source, object="persons", origin=record_messages.FRONT_DOOR, read_at=5, target=target,
    )  # fmt: skip
    message = record_mapping.read_message("waiting", body)
    waiting = waiting_lists.list_of(Target("marketo-main", "persons"), source, bulk=False)
    due = {"marketo-main": Due(int((NOW + timedelta(hours=9)).timestamp()), "mkto-ingestion-api.adobe.io")}
    waiting_lists.announce(table, [waiting], due)
    waiting_entries.put(table, HeldRecords(waiting, message, "", message.records, 5))
    waiting_lists.confirm(table, {waiting: count}, {}, due)
