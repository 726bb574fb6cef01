"""Calls made up from the API's own document, and what their answers are held against.

Schemathesis makes them up; here stands what it cannot know: things that exist, so that calls get beyond 404, and bodies
that are good, whole or with one place of them spoilt. Nothing is raised while calls go out: whatever is wrong is counted and
kept with the first call that showed it.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import unquote

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
)

from tests.fakes.local_cloud.scenes import Scene, wait_for
from tests.fakes.local_cloud.session import LocalCloud
from tests.leaks import without_secrets

Json = Any
Body = dict[str, Json]
Operation = APIOperation[Any, Any, Any, Any]
Case = schemathesis.Case[Any]
Path = dict[str, str]

CHECKS = [content_type_conformance, response_headers_conformance, response_schema_conformance, negative_data_rejection]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
EXCERPT = 300
# Dead letters to look at and to delete.
LETTERS = 8
SCOPES = ["routes:list", "connections:show", "connections:call@crm"]


# ------------------------------------------------------------------------------------------------------ what there is


@dataclass
class Scenery:
    """Things of every kind that calls can be about. `anchors` stay; `spares` come and go with the calls.

    Both are by the names of the path's parameters, with what these hold: `{("connections", "name"): [{"name": "crm"}]}`.
    """

    cloud: LocalCloud
    scene: Scene
    anchors: dict[tuple[str, ...], list[Path]] = field(default_factory=lambda: defaultdict(list))
    spares: dict[tuple[str, ...], list[Path]] = field(default_factory=lambda: defaultdict(list))
    programs: list[Path] = field(default_factory=list)
    source: str = ""
    kinds: dict[str, Body] = field(default_factory=dict)
    _made: int = 0

    @classmethod
    def set_up(cls, cloud: LocalCloud) -> Scenery:
        made = cls(cloud, Scene(cloud))
        made._install()
        made._make_connections()
        integration = made.ask("POST", "private-integrations", {"name": "anchor", "scopes": SCOPES})
        made.anchors["private-integrations", "id"].append({"id": integration["id"]})
        ended = made.scene.wait_for_end()
        made.anchors["installs", "id"].append({"id": ended[0]["id"]})
        made.source = ended[0]["connection"]
        made.anchors["platforms", "platform"] += [{"platform": name} for name in ("kommo", "marketo", "http")]
        made._wait_for_records()
        return made

    @property
    def name(self) -> str:
        return self.scene.name

    def _install(self) -> None:
        """A Kommo account on its way to Marketo, by a client and a route."""
        self.scene.send_to_marketo()
        host = self.scene.account(contacts=10, without_email=0.0)
        assert self.scene.hook(self.scene.code(host), host).status_code == 200
        self.anchors["oauth-clients", "platform", "client"].append({"platform": "kommo", "client": self.name})
        self.anchors["routes", "name"].append({"name": f"route-{self.name}"})
        self.anchors["connections", "name"].append({"name": f"marketo-{self.name}"})
        self.route = {
            "source": f"client:kommo/{self.name}",
            "object": "contacts",
            "destination": f"marketo-{self.name}",
            "mapping": {"email": "custom_fields_values[0].values[0].value", "firstName": "first_name"},
        }

    def _wait_for_records(self) -> None:
        """A receipt of what the install brought to Marketo, and dead letters of messages that nobody can read."""
        began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        entries = [{"Id": str(number), "MessageBody": f"{self.name} {number}"} for number in range(LETTERS)]
        self.cloud.sqs.send_message_batch(QueueUrl=self.cloud.stack.queues["records"], Entries=entries)
        receipts = wait_for(lambda: self.ask("GET", f"receipts?destination=marketo-{self.name}")["items"], bool)
        self.anchors["receipts", "id"].append({"id": receipts[0]["id"]})
        letters = wait_for(
            lambda: [
                {"id": letter["id"]}
                for letter in self.ask("GET", "dead-letters?reason=message_unreadable&limit=100")["items"]
                if letter["set_aside_at"] >= began
            ],
            lambda found: len(found) >= LETTERS,
        )
        self.anchors["dead-letters", "id"].append(letters[0])
        self.spares["dead-letters", "id"] += letters[1:]

    def _make_connections(self) -> None:
        control, name = self.cloud.control, self.name
        key, password, customer_token, log_in_secret = (f"canary-{secrets.token_hex(16)}" for _ in range(4))
        provider = control.add_oauth2_provider(name, name, key)
        with_password = control.add_oauth2_provider(f"{name}-basic", name, password, token_auth="basic")
        # More than all calls of a run: what is looked for is not how a limit is told.
        control.add_leadconnector_location(name, requests_per_window=1_000_000)
        control.add_leadconnector_token(f"pit-{key}", name)
        log_in = {"username": name, "client_id": name, "password": log_in_secret, "client_secret": key}
        control.add_engage_user(name, **log_in, customer_token=customer_token)
        control.add_engage_people(name, "ana@example.com", "rui@example.com")
        endpoints = {"authorize_url": provider["authorize_url"], "token_url": provider["token_url"]}
        client: dict[str, Any] = {
            "platform": "oauth2",
            "client_id": name,
            "client_secret": key,
            "scopes": "read",
            **endpoints,
        }
        client |= {"api_domains": [provider["host"]]}
        machine = {**client, "grant": "client_credentials"}
        del machine["authorize_url"]
        self.clients: dict[str, dict[str, Any]] = {
            "consent": client,
            "machine": machine,
            "kommo": {"platform": "kommo", "client_id": name},
        }
        self.clients["kommo"]["client_secret"] = key
        for purpose in ("consent", "machine"):
            self.ask("POST", "oauth-clients", {**self.clients[purpose], "name": f"{name}-{purpose}"})
            path = {"platform": "oauth2", "client": f"{name}-{purpose}"}
            self.anchors["oauth-clients", "platform", "client"].append(path)
        host = provider["host"]
        header = {"header_name": "X-Api-Key"}
        basic = {"username": name, "password": password}
        engage = {**log_in, "customer_token": customer_token}
        self.kinds = {
            "key": {
                "platform": "http",
                "kind": "api_key",
                "allowed_domain": host,
                "fields": header,
                "credentials": {"key": key},
            },
            "basic": {
                "platform": "http",
                "kind": "basic",
                "allowed_domain": with_password["host"],
                "credentials": basic,
            },
            "lead": {
                "platform": "leadconnector",
                "fields": {"location_id": name},
                "credentials": {"token": f"pit-{key}"},
            },
            "engage": {"platform": "engage", "fields": {"customer_id": name}, "credentials": engage},
            "machine": {
                "platform": "oauth2",
                "kind": "client_credentials",
                "client": f"{name}-machine",
                "allowed_domain": host,
            },
            "consent": {
                "platform": "oauth2",
                "kind": "oauth2",
                "client": f"{name}-consent",
                "allowed_domain": host,
            },
        }
        for kind, body in self.kinds.items():
            self.ask("POST", "connections", {**body, "name": f"{name}-{kind}"})
            self.anchors["connections", "name"].append({"name": f"{name}-{kind}"})
        link = self.ask("POST", "install-links", {"connection": f"{name}-consent"})
        self.anchors["install-links", "id"].append({"id": link["id"]})
        ana = {"email": "ana@example.com", "firstName": "Ana"}
        (upserted,) = self.ask("POST", f"connections/{name}-lead/contacts", {"contacts": [ana]})["contacts"]
        self.contact = {"name": f"{name}-lead", "id": upserted["id"]}
        self.anchors["connections", "name", "id"].append(self.contact)
        self.ask("POST", f"connections/{name}-engage/identifiers", {"users": [self.user("ana")]})

    def add_program(self, scopes: list[str]) -> str:
        """Another private integration's token. No call is about it, so that none can take it away."""
        made = self.ask("POST", "private-integrations", {"name": "program", "scopes": scopes})
        self.programs.append({"id": made["id"]})
        return str(made["token"])

    def user(self, name: str) -> dict[str, str]:
        return {"user_login": f"{name}@example.com", "identifier": f"{self.name}-{name}"}

    def ask(self, method: str, path: str, body: Json = None) -> Body:
        """A call of an administrator, that must succeed."""
        answer = self.cloud.admin.request(method, f"{self.cloud.public_url}/admin/v1/{path}", json=body)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return dict(answer.json()) if answer.text else {}

    def clear(self) -> None:
        """Take away what was made, what needs others first."""
        for things in (self.spares, self.anchors, {("private-integrations", "id"): self.programs}):
            for resource in ("routes", "connections", "oauth-clients", "private-integrations"):
                for key, paths in things.items():
                    if key[0] == resource and "id" not in key[2:]:
                        for path in paths:
                            address = "/".join([resource, *path.values()])
                            self.cloud.admin.delete(f"{self.cloud.public_url}/admin/v1/{address}")

    # ----------------------------------------------------------------------------------------------- for one operation

    def known(self, operation: Operation, *, best: bool) -> list[Path]:
        """What an operation's path can name; the `best` is where a good body leads to success."""
        key = _key(operation)
        if key == ("connections", "name", "path"):
            names = self.anchors["connections", "name"]
            return [{**path, "path": "api/me"} for path in ([{"name": f"{self.name}-key"}] if best else names)]
        if operation.method.upper() == "DELETE" or key[0] == "sso":
            return self.spares[key][-1:] if best else self.spares[key]
        if best and operation_id(operation) in ("start_backfill", "list_backfills"):
            return [{"name": self.source}]
        if best and (kind := BEST.get(operation_id(operation))):
            return [{"name": f"{self.name}-{kind}"}]
        return self.anchors[key][:1] if best else self.anchors[key] + self.spares[key]

    def query(self, operation: Operation) -> dict[str, str]:
        """The query of a good call, where there must be one."""
        return {"connection": f"marketo-{self.name}"} if operation_id(operation) == "list_receipts" else {}

    def bodies(self, operation: Operation, path: Path) -> list[Body]:
        """Good bodies, the best first; those of the connection that a path names where they differ."""
        fresh = self._fresh()
        kind = path.get("name", "").removeprefix(f"{self.name}-")
        connection = self.kinds.get(kind, {"credentials": {"token": "canary-none"}})
        credentials = {"credentials": connection.get("credentials", {})}
        clients = [{key: value for key, value in body.items() if key != "platform"} for body in self.clients.values()]
        match operation_id(operation):
            case "create_oauth_client":
                return [{**body, "name": fresh} for body in self.clients.values()]
            case "replace_oauth_client":
                purpose = path.get("client", "").removeprefix(f"{self.name}-")
                fitting = [clients[list(self.clients).index(purpose)]] if purpose in self.clients else [clients[2]]
                return fitting + clients
            case "create_connection":
                return [{**body, "name": fresh} for body in self.kinds.values()]
            case "replace_credentials":
                return [credentials, {**connection, **credentials}]
            case "replace_tags":
                return [{"tags": {"customer_id": f"{fresh}"}}, {"tags": {}}]
            case "create_install_link":
                link = {"connection": f"{self.name}-consent"}
                return [{**link, "tags": {"customer_id": "c-1"}, "language": "es"}, {**link, "single_use": False}]
            case "rotate_connection":
                return [credentials, {**credentials, "expire_now": True}]
            case "call_connection":
                return [*CALLS.get(kind, []), *(call for calls in CALLS.values() for call in calls)]
            case "upsert_contacts":
                contact = {"email": f"{fresh}@example.com", "firstName": "Rui", "tags": ["lead"]}
                return [{"contacts": [contact], "overwrite_tags": True}, {"contacts": [{"phone": "+351210000000"}] * 3}]
            case "register_identifiers":
                return [{"users": [self.user("ana")]}, {"users": [self.user("rui"), self.user("nobody")]}]
            case "create_sso":
                asked = {"user_identifier": f"{self.name}-ana"}
                return [asked, {**asked, "deliver": "addresses"}, {**asked, "front_end": "customer"}]
            case "create_route":
                return [{**self.route, "name": fresh}]
            case "replace_route":
                return [self.route, {**self.route, "mapping": {}}]
            case "preview_route":
                record: Body = {
                    "first_name": "Rui",
                    "custom_fields_values": [{"values": [{"value": "rui@example.com"}]}],
                }
                return [{"route": self.route, "record": record}, {"name": f"route-{self.name}", "record": {}}]
            case "send_records":
                sending_record: Body = {"key": "1", "updated_at": "2026-01-01T00:00:00Z", "data": {"first_name": "Rui"}}
                sending: Body = {"route": f"route-{self.name}", "records": [sending_record]}
                return [{**sending, "connection": self.source}, sending]
            case "delete_dead_letters":
                letter = self.anchors["dead-letters", "id"][0]["id"]
                return [
                    {"ids": [letter], "dry_run": True},
                    {"connection": self.name, "reason": "none", "dry_run": True},
                ]
            case "start_backfill":
                return [{}, {"route": f"route-{self.name}"}]
            case "redrive_dead_letters":
                letter = self.anchors["dead-letters", "id"][0]["id"]
                filters = {"connection": self.name, "reason": "message_unreadable", "dry_run": False}
                return [{"ids": [letter], "dry_run": True}, filters, {**filters, "before": "2026-01-01T00:00:00Z"}]
            case "create_private_integration":
                return [{"name": fresh, "scopes": SCOPES}]
            case "edit_private_integration":
                return [{"description": "another"}, {"name": fresh, "scopes": SCOPES[:1]}]
            case "rotate_private_integration":
                return [{}, {"expire_now": True}]
        return []

    def note(self, operation: Operation, path: Path, answer: requests.Response) -> None:
        """What an answer says has come or gone."""
        paths = self.spares[_key(operation)]
        if path in paths and answer.status_code in (204, 303):
            paths.remove(path)
        if answer.status_code == 201:
            self._note_made(operation.path.split("/")[-1], answer.json())

    def _note_made(self, resource: str, made: Body) -> None:
        match resource:
            case "event-addresses" | "authorizations":
                return
            case "oauth-clients":
                spare = {"platform": made["platform"], "client": made["name"]}
            case "private-integrations" | "install-links":
                spare = {"id": made["id"]}
            case "sso":
                spare = {"ticket": (made["link"] or "").rpartition("/")[2]}
            case _:
                spare = {"name": made["name"]}
        self.spares[(resource, *spare)].append(spare)

    def prepare(self, operation: Operation) -> None:
        """Let there be what the operation's best call needs."""
        integration = f"private-integrations/{self.anchors['private-integrations', 'id'][0]['id']}"
        match operation_id(operation):
            case "delete_oauth_client":
                self._note_made("oauth-clients", self.ask("POST", "oauth-clients", self._new("kommo", self.clients)))
            case "delete_connection":
                self._note_made("connections", self.ask("POST", "connections", self._new("key", self.kinds)))
            case "delete_route":
                self._note_made("routes", self.ask("POST", "routes", {**self.route, "name": self._fresh()}))
            case "delete_install_link":
                self._note_made(
                    "install-links", self.ask("POST", "install-links", {"connection": f"{self.name}-consent"})
                )
            case "delete_private_integration":
                body = {"name": "spare", "scopes": SCOPES}
                self._note_made("private-integrations", self.ask("POST", "private-integrations", body))
            case "rotate_private_integration":
                self.cloud.admin.post(f"{self.cloud.public_url}/admin/v1/{integration}/rotation/cancel")
            case "cancel_private_integration_rotation" | "expire_private_integration_rotation":
                self.cloud.admin.post(f"{self.cloud.public_url}/admin/v1/{integration}/rotate", json={})
            case "redeem_ticket":
                asked = {"user_identifier": f"{self.name}-ana"}
                self._note_made("sso", self.ask("POST", f"connections/{self.name}-engage/sso", asked))

    def _fresh(self) -> str:
        self._made += 1
        return f"{self.name}-{self._made}"

    def _new(self, kind: str, kinds: dict[str, Body]) -> Body:
        return {**kinds[kind], "name": self._fresh()}


# Which of the connections an operation succeeds with.
BEST = {
    "create_event_address": "lead",
    "call_connection": "key",
    "test_connection": "lead",
    "rotate_connection": "lead",
    "expire_rotation": "lead",
    "replace_credentials": "basic",
    "create_authorization": "consent",
    "upsert_contacts": "lead",
    "register_identifiers": "engage",
    "create_sso": "engage",
    "resume_destination": "lead",
}
CALLS: dict[str, list[Body]] = {
    "key": [{"method": "GET", "path": "/api/me"}, {"method": "POST", "path": "/api/me", "json": {"a": [1, "é"]}}],
    "basic": [{"method": "GET", "path": "/api/me", "query": {"a": ["1", "2"]}, "headers": {"X-Trace": "1"}}],
    "lead": [{"method": "GET", "path": "/locations/none"}],
    "engage": [{"method": "GET", "path": "/api/v1/nothing"}],
    "machine": [{"method": "PUT", "path": "/api/me", "body_base64": "AAEC"}],
    "consent": [{"method": "GET", "path": "/api/me"}],
}


def _parameters(operation: Operation) -> list[str]:
    return [step[1:-1] for step in operation.path.split("/") if step.startswith("{")]


def _key(operation: Operation) -> tuple[str, ...]:
    """What an operation is about: the resource and the names of the path's parameters."""
    return (operation.path.split("/")[1], *_parameters(operation))


def operation_id(operation: Operation) -> str:
    return str(operation.definition.raw["operationId"])


# -------------------------------------------------------------------------------------------------- what is made of it


class How(Enum):
    """How a call comes about. `BEST` should succeed. The others are made up by the document (`GOOD`, `BAD`); the same, about a
    thing that exists; a good body for one that exists; that body spoilt in one place; and no JSON object at all.
    """

    BEST = "best"
    GOOD = "good"
    BAD = "bad"
    GOOD_KNOWN = "good, known"
    BAD_KNOWN = "bad, known"
    SEED = "seed"
    SPOILT = "spoilt seed"
    RAW = "raw"


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    st.text(max_size=40),
    st.sampled_from(
        ["", " ", "\x00", "\ud800", "a" * 5_000, "🦊" * 300, "*", "../..", "connection:crm", "https://169.254.169.254/"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
RAW = st.one_of(
    st.sampled_from(
        [
            b"",
            b" ",
            b"{",
            b"{}",
            b"[]",
            b"null",
            b'"x"',
            b'{"name": "a", "name": "b"}',
            b'{"name": NaN}',
            b'{"name": 1e999}',
            b"\xff\xfe{}",
            b'{"name": "\xc3"}',
            b"\xef\xbb\xbf{}",
            b"[" * 5_000,
            b'{"a":' * 3_000,
            b'{"name": "\\ud800"}',
            b'{"n": ' + b"9" * 5_000 + b"}",
            b'{"name": "' + b"a" * 400_000 + b'"}',
        ]
    ),
    st.binary(max_size=40),
)


@dataclass
class Draw:
    """One made-up call. `numbers` choose among what exists when it goes out."""

    how: How
    case: Case
    numbers: tuple[int, int, int, int]
    value: Json = None
    raw: bytes = b""


def spoil(body: Body, numbers: tuple[int, int, int, int], value: Json) -> Json:
    """A body with one place of it gone, or with something else in it, or with one more."""
    spoilt = deepcopy(body)
    places = list(_places(spoilt)) or [(spoilt, "nothing")]
    holder, key = places[numbers[2] % len(places)]
    match numbers[3] % 3:
        case 0:
            holder[key] = value
        case 1:
            holder.pop(key, None) if isinstance(holder, dict) else holder.pop(key)
        case 2 if isinstance(holder, dict):
            holder[str(numbers[1])] = value
        case _:
            holder.append(value)
    return spoilt


def _places(value: Json) -> Iterator[tuple[Any, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def draws(operation: Operation, number: int) -> list[Draw]:
    """So many made-up calls of an operation, the same in each run."""
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    bad = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    hows = [How.GOOD, How.BAD]
    if "{" in operation.path:
        hows += [How.GOOD_KNOWN, How.BAD_KNOWN]
    if operation.body:
        hows += [How.SEED, How.SPOILT, How.SPOILT, How.SPOILT, How.RAW]
    found: list[Draw] = []
    numbers = st.tuples(*[st.integers(0, 1_000_000)] * 4)

    @settings(
        max_examples=number,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(hows), st.data(), numbers)
    def draw(how: How, data: st.DataObject, chosen: tuple[int, int, int, int]) -> None:
        case = data.draw(bad if how in (How.BAD, How.BAD_KNOWN) else good)
        made = Draw(how, case, chosen)
        if how is How.SPOILT:
            made.value = data.draw(VALUES)
        if how is How.RAW:
            made.raw = data.draw(RAW)
        found.append(made)

    draw()
    return found


# -------------------------------------------------------------------------------------------------------------- the fuzz


@dataclass
class Tally:
    """What came of the calls. `gateway` counts answers that are not the product's: MiniStack's 403 for a path or a method that
    no resource has, and for a call below /admin/v1 that is not signed. On AWS the template makes problem documents of them."""

    calls: int = 0
    server_errors: int = 0
    undocumented: int = 0
    violations: int = 0
    gateway: int = 0
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    succeeded: set[str] = field(default_factory=set)
    # What answered 2xx to a caller without a valid token.
    opened: set[str] = field(default_factory=set)
    findings: dict[tuple[str, ...], str] = field(default_factory=dict)

    def find(self, kind: str, where: str, what: str, shown: str) -> None:
        self.findings.setdefault((kind, where, what), shown)

    def figures(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "server_errors": self.server_errors,
            "undocumented": self.undocumented,
            "violations": self.violations,
            "gateway": self.gateway,
            "statuses": {
                group: {str(status): count for status, count in sorted(counts.items())}
                for group, counts in self.statuses.items()
            },
        }

    def sentences(self) -> list[str]:
        return [f"{kind}: {where}: {what}: {shown}" for (kind, where, what), shown in self.findings.items()]


@dataclass
class Group:
    """Calls of one kind of caller: `draws` made-up ones an operation, with `bounds` also one for each bound of its schemas.

    `headers` go with each, and take the place of made-up ones.
    """

    name: str
    base_url: str
    session: requests.Session
    headers: Callable[[], dict[str, str]]
    draws: int
    bounds: bool = False


@dataclass
class Fuzz:
    cloud: LocalCloud
    scenery: Scenery
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.document: dict[str, Any] = self.cloud.web.get(f"{self.cloud.public_url}/v1/openapi.json").json()
        fuzzed = deepcopy(self.document)
        # Below the two doors, and sign-on links. What else is public answers in other formats, which the checks do not know.
        fuzzed["paths"] = {
            path.removeprefix("/v1"): {method: operation for method, operation in each.items() if method != "servers"}
            for path, each in fuzzed["paths"].items()
            if path.startswith(("/v1/", "/sso/")) and path not in ("/v1/openapi.json", "/v1/reference")
        }
        schema = schemathesis.openapi.from_dict(fuzzed)
        schema.config.update(base_url=f"{self.cloud.public_url}/v1")
        schema.config.generation.update(with_security_parameters=False)
        self.schema = schema
        results = [result for result in schema.get_all_operations() if isinstance(result, Ok)]
        self.operations = [result.ok() for result in results]

    def run(self, groups: list[Group]) -> None:
        """Each operation in its turn."""
        for operation in self.operations:
            made = draws(operation, max(group.draws for group in groups))
            bounds = list(self._bounds(operation)) if any(group.bounds for group in groups) else []
            for group in groups:
                self._best(group, operation)
                for draw in made[: group.draws]:
                    self._send(group, operation, draw)
                for position, case in enumerate(bounds if group.bounds else []):
                    how = (How.GOOD, How.GOOD_KNOWN)[position % 2]
                    self._send(group, operation, Draw(how, case, (position,) * 4))

    def _bounds(self, operation: Operation) -> Iterator[Case]:
        modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
        generation = self.schema.config.generation
        yield from self.schema.iter_coverage_cases(operation, generation_modes=modes, generation_config=generation)

    def _best(self, group: Group, operation: Operation) -> None:
        """The call that should succeed."""
        media_type = "application/json" if operation.body else None
        case = operation.Case(media_type=media_type, query=self.scenery.query(operation))
        self._send(group, operation, Draw(How.BEST, case, (0, 0, 0, 0)))

    def _send(self, group: Group, operation: Operation, draw: Draw) -> None:
        # A case belongs to one call: the next group's is about something else.
        case = draw.case if draw.how is How.BEST else deepcopy_case(draw.case)
        if draw.how is How.BEST:
            self.scenery.prepare(operation)
        path = self._path(operation, draw)
        if any(unquote(str(value)) in (".", "..", "") for value in path.values()):
            return  # an HTTP client makes another path of it
        case.path_parameters = path
        body = draw.raw if draw.how is How.RAW else self._seeded(operation, draw, case)
        # Neither stands below both prefixes.
        outside = {"sso": self.cloud.public_url, "health": f"{self.cloud.public_url}/v1"}
        base_url = outside.get(operation.path.split("/")[1], group.base_url)
        wanted: dict[str, Any] = case.as_transport_kwargs(base_url=base_url)
        if body is not None:
            wanted.pop("json", None)
            wanted["data"] = body
            wanted["headers"] = {**wanted["headers"], "Content-Type": "application/json"}
        wanted["headers"] = {**wanted["headers"], **group.headers()}
        try:
            answer = group.session.request(**wanted, allow_redirects=False)
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidJSONError, UnicodeEncodeError):
            return  # no HTTP client sends it
        self.scenery.note(operation, path, answer)
        self._judge(group, operation, draw, case, answer)

    def _path(self, operation: Operation, draw: Draw) -> Path:
        """What the call is about: something that exists, or whatever was made up."""
        if draw.how in (How.GOOD, How.BAD):
            return dict(draw.case.path_parameters or {})
        known = self.scenery.known(operation, best=draw.how is How.BEST)
        if known:
            return dict(known[draw.numbers[0] % len(known)])
        return dict(draw.case.path_parameters or {name: "nothing" for name in _parameters(operation)})

    def _seeded(self, operation: Operation, draw: Draw, case: Case) -> bytes | None:
        """A good body or what was made of one, put into the case; None where the case has its own."""
        seeds = self.scenery.bodies(operation, dict(case.path_parameters))
        if draw.how not in (How.BEST, How.SEED, How.SPOILT) or not seeds:
            return None
        seed = seeds[0 if draw.how is How.BEST else draw.numbers[1] % len(seeds)]
        case.body = spoil(seed, draw.numbers, draw.value) if draw.how is How.SPOILT else seed
        # A number that no double holds is JSON, other than the word that Python has for it.
        return json.dumps(case.body).replace("Infinity", "1e999").encode()

    def _judge(self, group: Group, operation: Operation, draw: Draw, case: Case, answer: requests.Response) -> None:
        tally, status = self.tally, answer.status_code
        tally.calls += 1
        tally.statuses[group.name][status] += 1
        where = f"{group.name}: {operation.method.upper()} {operation.path}"
        shown = self._shown(draw, answer)
        if status >= 500:
            tally.server_errors += 1
            tally.find("server error", where, str(status), shown)
            return
        if "X-Request-Id" not in answer.headers and status == 403 and "x-amzn-ErrorType" in answer.headers:
            tally.gateway += 1
            return
        if case.method.upper() != operation.method.upper():
            # The path's other operations: each is called by its own.
            return
        if "X-Portaria-Request-Id" in answer.headers:
            # The response of a connection's API, which may be any.
            tally.succeeded.add(operation_id(operation))
            return
        if case.method.upper() == "HEAD" and status >= 400:
            # A response without a body; its header says whose error it is.
            if "X-Portaria-Error" not in answer.headers:
                tally.find("problem", where, "no X-Portaria-Error", shown)
                tally.violations += 1
            return
        if not {str(status), "default"} & set(operation.definition.raw["responses"]):
            tally.undocumented += 1
            tally.find("undocumented", where, str(status), shown)
            return
        if status < 400:
            tally.succeeded.add(operation_id(operation))
        if status < 300 and group.name in ("no token", "guessed token"):
            tally.opened.add(operation_id(operation))
        wrong = self._problem_wrong(operation, answer)
        if wrong:
            tally.violations += 1
            tally.find("problem", where, wrong, shown)
        # What was done must have been good; of what was refused it does not matter why.
        made_up = draw.how in (How.GOOD, How.BAD, How.GOOD_KNOWN, How.BAD_KNOWN)
        checks = CHECKS if made_up and status < 400 else CHECKS[:-1]
        try:
            case.validate_response(answer, checks=checks)
        except FailureGroup as group_of_failures:
            for failure in group_of_failures.exceptions:
                tally.violations += 1
                title = getattr(failure, "title", type(failure).__name__)
                tally.find(title, where, str(status), f"{str(failure)[:EXCERPT]} … {shown}")

    @staticmethod
    def _problem_wrong(operation: Operation, answer: requests.Response) -> str:
        """What is wrong with a refusal, beyond its schema; a sign-on link's are pages for people."""
        if answer.status_code < 400 or operation.path.startswith("/sso/"):
            return ""
        if answer.headers.get("Content-Type") != "application/problem+json":
            return f"{answer.status_code} as {answer.headers.get('Content-Type')}"
        problem = answer.json()
        if problem["status"] != answer.status_code or problem["request_id"] != answer.headers["X-Request-Id"]:
            return "its status or request_id is another"
        if answer.status_code in (429, 503) and not answer.headers.get("Retry-After", "").isdigit():
            return "no Retry-After"
        return ""

    @staticmethod
    def _shown(draw: Draw, answer: requests.Response) -> str:
        """The call and its answer, without secrets and not at length."""
        sent = answer.request
        body = sent.body if isinstance(sent.body, str) else (sent.body or b"").decode(errors="replace")
        headers = {name: sent.headers[name] for name in ("If-Match", "Idempotency-Key") if name in sent.headers}
        told = f"[{draw.how.value}] {sent.method} {sent.path_url} {headers or ''} {body[:EXCERPT]!r}"
        return without_secrets(f"{told} → {answer.status_code} {answer.text[:EXCERPT]}")


def deepcopy_case(case: Case) -> Case:
    """The case again, to be changed."""
    copy = case.derive()
    copy.body = deepcopy(case.body) if isinstance(case.body, dict | list) else case.body
    return copy
