"""The ingestion of records on AWS in memory, where a batch takes a millisecond: for properties and for all failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.connections.tokens import cache
from portaria.connections.vault import Vault
from portaria.core import record_messages
from portaria.core.callbacks import Record, Secret
from portaria.core.entities import Connection, Route
from portaria.core.errors import Retryable
from portaria.core.http.messages import Request, Response
from portaria.core.settings import IngestRecordsSettings
from portaria.delivery import pipeline
from portaria.delivery.pipeline import BatchOutcome, QueuedMessage
from portaria.records import dead_letters, routes
from tests.fakes import outgoing
from tests.fakes.records import waiting_records
from tests.fakes.records.contacts import DESTINATION, SOURCE
from tests.simulation.aws.cloud import PREFIX, TABLE, Cloud, installed

Document = dict[str, Any]
Rule = Callable[[Document], Response | Retryable | None]
MUNCHKIN = "123-ABC-456"


def refusal(code: str, **headers: str) -> Response:
    """Adobe's error; the first three digits of a code are the status."""
    body = orjson.dumps({"error_code": code, "message": "no"})
    return Response(int(code[:3]), {"content-type": "application/json", **headers}, body)


class Harness:
    """`accepted` are the requests that the destination took, as (path below the subscription, document), `requests` all of
    them. `rule` may answer in its stead."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.table = Table(TABLE)
        self.settings: IngestRecordsSettings = cloud.settings(IngestRecordsSettings)
        self.accepted: list[tuple[str, Document]] = []
        self.requests: list[tuple[str, Document]] = []
        self.sent: list[Request] = []
        self.rule: Rule = lambda document: None
        vault = Vault(PREFIX)
        secret_id = vault.grant_id("marketo-one")
        vault.create(secret_id, {"client_id": Secret("id"), "client_secret": Secret("canary-secret")})
        self.connect(DESTINATION, "marketo", secret_id, {"munchkin_id": MUNCHKIN})
        self.connect(SOURCE, "kommo", "", {})

    def connect(self, name: str, platform: str, secret_id: str = "", fields: dict[str, str] | None = None) -> None:
        domain = "mkto-ingestion-api.adobe.io" if platform == "marketo" else f"{name}.kommo.com"
        kind = "client_credentials" if platform == "marketo" else "oauth2"
        connection_store.create(
            self.table, Connection(name, platform, kind, domain, "connected", 1, secret_id, fields=fields or {})
        )

    def route(self, name: str, **changes: Any) -> Route:
        given = {"source": f"connection:{SOURCE}", "object": "contacts", "destination": DESTINATION, **changes}
        route = Route(name, **given)
        routes.put(self.table, route, new=True)
        return route

    @property
    def waits(self) -> dict[str, float]:
        """The seconds before each message that waits in the table is tried again, by message id."""
        return waiting_records.waits(self.table)

    def release(self, *, time_left_s: float = 120.0) -> list[str]:
        """One sweep of the waiting records, and its drains. Returns the outcome of each message."""
        return waiting_records.release(self.cloud, time_left_s=time_left_s)

    def ingest(self, *deliveries: QueuedMessage, bulk: bool = False, time_left_s: float = 120.0) -> BatchOutcome:
        return pipeline.ingest(deliveries, self.settings, lambda: time_left_s, bulk=bulk)

    @property
    def persons(self) -> list[Document]:
        return [person for path, document in self.accepted if path == "persons" for person in document["persons"]]

    def state(self, key: str = "email") -> dict[str, Document]:
        """The result of upserts of all persons in order."""
        found: dict[str, Document] = {}
        for person in self.persons:
            found.setdefault(person[key], {}).update(person)
        return found

    def letters(self) -> list[dict[str, Any]]:
        return [
            head | dead_letters.joined([part["data"] for part in self.table.query_all(head["pk"], sk_prefix="PART#")])
            for head in self.table.query_all(dead_letters.LIST, index="listing")
        ]

    def answer(self, request: Request, *, allowed_domain: str, owner: str) -> Response:
        """The edge: the requests of `http_client`, and their responses."""
        if request.url.endswith("/identity/oauth/token"):
            token = {"access_token": "canary-token:int", "token_type": "bearer", "expires_in": 3599}
            return Response(200, {}, orjson.dumps(token))
        path = request.url.partition(f"/subscriptions/{MUNCHKIN}/")[2]
        document = orjson.loads(request.body or b"")
        self.requests.append((path, document))
        self.sent.append(request)
        told = self.rule(document)
        if isinstance(told, Retryable):
            raise told
        if told is not None:
            return told
        self.accepted.append((path, document))
        return Response(202, {"x-request-id": f"request-{len(self.accepted)}"})


@contextmanager
def harness() -> Iterator[Harness]:
    cloud = Cloud()
    cache.PROCESS_CACHE.clear()
    pipeline._ledger.cache_clear()
    with installed(lambda: cloud):
        opened = Harness(cloud)
        with outgoing.answering(opened.answer):
            yield opened


def body(
    contacts: list[dict[str, Any]],
    route: str = "",
    *,
    origin: str = record_messages.EVENT,
    read_at: int = 1,
    **given: Any,
) -> str:
    """One message of contacts, each of which has an `id` and an `updated_at`; of all routes if none is named."""
    said = {"connection": SOURCE, "object": "contacts", "origin": origin, "read_at": read_at, "route": route, **given}
    records = [Record(str(each["id"]), each["updated_at"], each) for each in contacts]
    (packed,) = record_messages.pack(records, **said)
    return packed
