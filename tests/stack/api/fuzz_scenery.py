"""Things that exist, so that made-up calls get beyond 404, and good bodies for each operation.

A resource that this module does not know gets its things from the document's example of a body.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import requests

from tests.fakes.local_cloud.scenes import Scene, wait_for
from tests.fakes.local_cloud.session import LocalCloud
from tests.stack.api.fuzz_operations import (
    Body,
    Json,
    Operation,
    Parameters,
    Path,
    example_of,
    key_of,
    operation_id,
    parameters_of,
)

# Dead letters to look at and to delete.
LETTERS = 8
WEBHOOK: Body = {"url": "https://app.example.com/webhooks", "events": ["connection.*"], "description": "Customer pages"}
SCOPES = ["routes:list", "connections:show", "connections:call@crm"]
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
# Operations that succeed with a source whose account is installed.
OF_SOURCES = ("start_backfill", "list_backfills", "renew_connection", "start_reconciliations", "list_sample_records")
CALLS: dict[str, list[Body]] = {
    "key": [{"method": "GET", "path": "/api/me"}, {"method": "POST", "path": "/api/me", "json": {"a": [1, "é"]}}],
    "basic": [{"method": "GET", "path": "/api/me", "query": {"a": ["1", "2"]}, "headers": {"X-Trace": "1"}}],
    "lead": [{"method": "GET", "path": "/locations/none"}],
    "engage": [{"method": "GET", "path": "/api/v1/nothing"}],
    "machine": [{"method": "PUT", "path": "/api/me", "body_base64": "AAEC"}],
    "consent": [{"method": "GET", "path": "/api/me"}],
}


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
    # Of the document: the parameters of a thing's path by its resource, the operations that make one, and what can be deleted.
    addresses: dict[str, Parameters] = field(default_factory=dict)
    makers: dict[str, Operation] = field(default_factory=dict)
    deletable: set[str] = field(default_factory=set)
    _made: int = 0

    @classmethod
    def set_up(cls, cloud: LocalCloud) -> Scenery:
        made = cls(cloud, Scene(cloud))
        made._install()
        made._make_connections()
        made._make_webhook()
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
        ana = {"email": "ana@example.com", "firstName": "Ana"}
        (upserted,) = self.ask("POST", f"connections/{name}-lead/contacts", {"contacts": [ana]})["contacts"]
        self.contact = {"name": f"{name}-lead", "id": upserted["id"]}
        self.anchors["connections", "name", "id"].append(self.contact)
        self.ask("POST", f"connections/{name}-engage/identifiers", {"users": [self.user("ana")]})

    def _make_webhook(self) -> None:
        """A webhook with a delivery. No application answers at its URL."""
        webhook = {"id": str(self.ask("POST", "webhooks", WEBHOOK)["id"])}
        delivery = self.ask("POST", f"webhooks/{webhook['id']}/test")
        self.anchors["webhooks", "id"].append(webhook)
        self.anchors["webhooks", "id", "delivery"].append({**webhook, "delivery": str(delivery["id"])})

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

    def learn(self, operations: list[Operation]) -> None:
        """Read from the document how things are addressed, made and deleted, also those that this module does not know."""
        for operation in operations:
            resource, method = operation.path.split("/")[1], operation.method.upper()
            parameters = tuple(parameters_of(operation))
            if parameters and len(operation.path.split("/")) == 2 + len(parameters):
                self.addresses[resource] = parameters
                self.deletable |= {resource} if method == "DELETE" else set()
            if not parameters and method == "POST" and operation.path == f"/{resource}":
                self.makers[resource] = operation

    def _make(self, resource: str) -> None:
        """Let there be a thing of a resource that this module does not know, from the document's example."""
        maker = self.makers.get(resource)
        if not maker or resource not in self.addresses:
            return
        address = f"{self.cloud.public_url}/admin/v1/{resource}"
        for body in self.bodies(maker, {})[:1]:
            answer = self.cloud.admin.post(address, json=body)
            if answer.ok:
                self._note_made(resource, answer.json())

    def clear(self) -> None:
        """Take away what was made, what needs others first."""
        known = ("routes", "connections", "oauth-clients", "private-integrations")
        others = sorted(self.deletable - {*known, "dead-letters"})
        for things in (self.spares, self.anchors, {("private-integrations", "id"): self.programs}):
            for resource in (*others, *known):
                for key, paths in things.items():
                    if key[0] == resource and "id" not in key[2:]:
                        for path in paths:
                            address = "/".join([resource, *path.values()])
                            self.cloud.admin.delete(f"{self.cloud.public_url}/admin/v1/{address}")

    # ----------------------------------------------------------------------------------------------- for one operation

    def known(self, operation: Operation, *, best: bool) -> list[Path]:
        """What an operation's path can name; the `best` is where a good body leads to success."""
        key = key_of(operation)
        if key == ("connections", "name", "path"):
            names = self.anchors["connections", "name"]
            return [{**path, "path": "api/me"} for path in ([{"name": f"{self.name}-key"}] if best else names)]
        if operation.method.upper() == "DELETE" or key[0] == "sso":
            return self.spares[key][-1:] if best else self.spares[key]
        if best and operation_id(operation) in OF_SOURCES:
            return [{"name": self.source}]
        if best and (kind := BEST.get(operation_id(operation))):
            return [{"name": f"{self.name}-{kind}"}]
        found = self.anchors[key] + self.spares[key]
        return found[:1] if best else found

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
                return [{"tags": {"customer_id": fresh}}, {"tags": {}}]
            case "create_install_link":
                link: Body = {"connection": f"{self.name}-consent"}
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
            case "create_webhook" | "replace_webhook":
                return [WEBHOOK, {**WEBHOOK, "events": ["*"], "description": None}]
            case "redeliver_webhook_deliveries":
                return [{"since": "2026-01-01T00:00:00Z"}, {"since": "2026-01-01T00:00:00Z", "state": "delivered"}]
            case "rotate_private_integration" | "rotate_webhook_secret":
                return [{}, {"expire_now": True}]
        return [example] if (example := example_of(operation)) is not None else []

    def note(self, operation: Operation, path: Path, answer: requests.Response) -> None:
        """What an answer says has come or gone."""
        paths = self.spares[key_of(operation)]
        if path in paths and answer.status_code in (204, 303):
            paths.remove(path)
        if answer.status_code == 201:
            self._note_made(operation.path.split("/")[-1], answer.json())

    def _note_made(self, resource: str, made: Body) -> None:
        if resource == "console-sessions":
            # A link: there is no session until a browser opens it.
            return
        if resource == "sso":
            spare = {"ticket": (made["link"] or "").rpartition("/")[2]}
        else:
            # A parameter that the thing does not have under its name is its name.
            spare = {name: str(made.get(name, made.get("name"))) for name in self.addresses.get(resource, ())}
        if spare:
            self.spares[(resource, *spare)].append(spare)

    def prepare(self, operation: Operation) -> None:
        """Let there be what the operation's best call needs."""
        integration = f"private-integrations/{self.anchors['private-integrations', 'id'][0]['id']}"
        match operation_id(operation):
            case "test_webhook" | "redeliver_webhook_delivery" | "redeliver_webhook_deliveries":
                # A call before this one may have disabled it.
                self.ask("PUT", f"webhooks/{self.anchors['webhooks', 'id'][0]['id']}", {**WEBHOOK, "enabled": True})
            case "revoke_console_session":
                assert self.cloud.web.get(str(self.ask("POST", "console-sessions", {})["url"])).ok
                session = self.ask("GET", "console-sessions?limit=1")["items"][0]
                self.spares["console-sessions", "id"].append({"id": str(session["id"])})
            case "delete_oauth_client":
                self._note_made("oauth-clients", self.ask("POST", "oauth-clients", self._new("kommo", self.clients)))
            case "delete_connection":
                self._note_made("connections", self.ask("POST", "connections", self._new("key", self.kinds)))
            case "delete_route":
                self._note_made("routes", self.ask("POST", "routes", {**self.route, "name": self._fresh()}))
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
            case _:
                key = key_of(operation)
                things = (
                    self.spares[key] if operation.method.upper() == "DELETE" else self.anchors[key] + self.spares[key]
                )
                if not things:
                    self._make(key[0])

    def _fresh(self) -> str:
        self._made += 1
        return f"{self.name}-{self._made}"

    def _new(self, kind: str, kinds: dict[str, Body]) -> Body:
        return {**kinds[kind], "name": self._fresh()}
