"""Marketo, as Adobe describes it: the identity service, the Data Ingestion API, and its Observability Data Stream.

Followed pages: the REST API's authentication page, the Data Ingestion API's (limits, error codes, headers), and the stream's.
What an object failed for is not documented; here it is told by HTTP's numbers, as in Adobe's example: 400 without a value to
look it up by, 404 where what it names is not there, 409 where it is there already.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web

from local.simulators.world import BadInstruction, Route, World, nginx_forbidden

MAX_BODY_BYTES = 1_000_000
MAX_OBJECTS = 1_000
INGESTION_HOST = "mkto-ingestion-api.adobe.io"
MESSAGES = {
    "401013": "Oauth token is not valid",
    "403010": "Oauth token is missing",
    "404040": "Resource not found",
    "429001": "Service usage limit reached",
    "4000801": "Bad request",
    "4000802": "Bad data",
    "4030801": "Not authorized",
    "4290801": "Daily quota reached",
    "5000801": "Internal server error",
}


@dataclass
class Kept:
    """A person, company or custom object as upserts have left it. `writes` counts them; the last one wins attribute by
    attribute. `id` is Marketo's own: a person's lead id, a company's `id`, a custom object's `marketoGUID`."""

    attributes: dict[str, Any]
    writes: int = 1
    partition: str = ""
    request_id: str = ""
    id: int = 0


@dataclass
class CustomObject:
    """A definition, and the records by their dedupe fields. `link` is the field that names a person by e-mail address.

    A record whose person is not there waits, as at Marketo for 65 minutes; `waited` counts those.
    """

    dedupe_fields: tuple[str, ...]
    link: str = ""
    records: dict[tuple[Any, ...], Kept] = field(default_factory=dict)
    waiting: list[tuple[dict[str, Any], Report]] = field(default_factory=list)
    waited: int = 0


@dataclass
class Report:
    """What became of the objects of an accepted request since it was last told; `waiting` of them have not come to an end."""

    request_id: str
    object: str
    priority: str
    correlation_id: str
    request_source: str
    requested_at: float
    received: int
    waiting: int = 0
    created: int = 0
    updated: int = 0
    failed: Counter[str] = field(default_factory=Counter)


@dataclass
class Instance:
    """A Marketo subscription with one API user.

    `zero_lives` answers of the identity service say `expires_in: 0`. `poison` rejects a request with an object whose
    attribute has that value (4000802). `failed` are persons of accepted requests that could not be looked up. `members` are
    lead ids with their status by program, `lists` those of static lists, `reports` by request id what is still to be told.
    """

    munchkin: str
    client_id: str
    client_secret: str
    token_life_s: int = 3600
    daily_quota: int = 10_000_000
    requests_per_s: int = 5_000
    token: str = ""
    token_expires_at: float = 0.0
    tokens_issued: int = 0
    zero_lives: int = 0
    poison: dict[str, Any] = field(default_factory=dict)
    persons: dict[tuple[Any, ...], Kept] = field(default_factory=dict)
    companies: dict[str, Kept] = field(default_factory=dict)
    custom_objects: dict[str, CustomObject] = field(default_factory=dict)
    members: dict[int, dict[int, str]] = field(default_factory=dict)
    lists: dict[int, set[int]] = field(default_factory=dict)
    emails: dict[str, int] = field(default_factory=dict)
    ids: int = 0
    reports: dict[str, Report] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    quota_day: str = ""
    quota_used: int = 0
    recent: deque[float] = field(default_factory=deque)

    def next_id(self) -> int:
        self.ids += 1
        return self.ids

    def define(self, definitions: Mapping[str, Mapping[str, Any]]) -> None:
        """Custom objects by their API names, each with its `dedupe_fields` and perhaps a `link`."""
        for name, given in definitions.items():
            self.custom_objects[name] = CustomObject(tuple(given["dedupe_fields"]), given.get("link", ""))


class Marketo:
    platform = "marketo"
    hosts: tuple[str, ...] = ("*.mktorest.com", INGESTION_HOST)

    def __init__(self, world: World) -> None:
        self.world = world
        self.instances: dict[str, Instance] = {}

    # ------------------------------------------------------------------------------------------------ what control sets

    def add_instance(self, given: Mapping[str, Any]) -> Instance:
        definitions = given.get("custom_objects", {})
        settings = {name: value for name, value in given.items() if name != "custom_objects"}
        instance = Instance(**{**settings, "munchkin": str(given.get("munchkin", "")).lower()})
        instance.define(definitions)
        self.instances[instance.munchkin] = instance
        return instance

    def instance(self, munchkin: str) -> Instance:
        try:
            return self.instances[munchkin.lower()]
        except KeyError:
            raise BadInstruction(f"no such instance {munchkin!r}: POST /marketo/instances first") from None

    def dump(self) -> list[dict[str, Any]]:
        return [
            {
                "munchkin": each.munchkin,
                "persons": len(each.persons),
                "failed": len(each.failed),
                "requests": len(each.requests),
                "accepted": sum(request["status"] == 202 for request in each.requests),
                "tokens_issued": each.tokens_issued,
                "quota_used": each.quota_used,
            }
            for each in self.instances.values()
        ]

    def persons(self, munchkin: str, emails: list[str]) -> list[Kept]:
        """All persons, or only those of these addresses."""
        kept = self.instance(munchkin).persons.values()
        wanted = {email.lower() for email in emails}
        return [each for each in kept if not wanted or str(each.attributes.get("email")).lower() in wanted]

    def dump_objects(self, munchkin: str) -> dict[str, Any]:
        """Everything but the persons."""
        instance = self.instance(munchkin)
        return {
            "custom_objects": {
                name: {
                    "records": [asdict(kept) for kept in each.records.values()],
                    "waiting": len(each.waiting),
                    "waited": each.waited,
                }
                for name, each in instance.custom_objects.items()
            },
            "companies": [asdict(kept) for kept in instance.companies.values()],
            "members": {str(program): leads for program, leads in instance.members.items()},
            "lists": {str(number): sorted(leads) for number, leads in instance.lists.items()},
        }

    # --------------------------------------------------------------------------------------------------- what it tells of

    def take_news(self, munchkin: str) -> list[dict[str, Any]]:
        """A CloudEvent for each accepted request that something became of since the last time, and one with the quota left."""
        instance = self.instance(munchkin)
        events = []
        for report in [each for each in instance.reports.values() if each.created or each.updated or each.failed]:
            counts = {
                "received": report.received,
                "created": report.created,
                "updated": report.updated,
                "failed": dict(report.failed),
            }
            request = {
                "requestId": report.request_id,
                "requestTime": iso(report.requested_at),
                "clientId": "api-user@marketo.example",
                "correlationId": report.correlation_id,
                "requestSource": report.request_source,
                "objectType": report.object,
                "priority": report.priority,
                "records": counts,
            }
            events.append(self.cloud_event(instance, "results", {"requests": [request]}))
            report.created = report.updated = 0
            report.failed = Counter()
            if not report.waiting:
                del instance.reports[report.request_id]
        queue = {priority: {"lagSeconds": 0, "requestBacklog": 0, "recordBacklog": 0} for priority in PRIORITIES}
        left = max(0, instance.daily_quota - instance.quota_used)
        return [*events, self.cloud_event(instance, "status", {"quota": left, "queue": queue})]

    def cloud_event(self, instance: Instance, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": str(uuid.uuid4()),
            "specversion": "1.0",
            "type": f"com.adobe.platform.marketo.observability.{kind}",
            "source": "urn:data_ingestion_service",
            "time": iso(self.world.clock.now()),
            "datacontenttype": "application/json",
            "data": {"munchkinId": instance.munchkin.upper(), **data},
        }

    # ---------------------------------------------------------------------------------------------------------- serving

    def routes(self, host: str) -> list[Route]:
        if host == INGESTION_HOST:
            return [Route("POST", f"/subscriptions/{{munchkin}}/{path}", self.ingest) for path in KINDS]
        if host.partition(".")[0] in self.instances:
            return [
                Route("GET", "/identity/oauth/token", self.token),
                Route("POST", "/identity/oauth/token", self.token),
            ]
        return []

    def account(self, request: web.BaseRequest) -> str:
        if request.host == INGESTION_HOST:
            parts = request.path.split("/")
            return parts[2].lower() if len(parts) > 2 else ""
        return request.host.partition(".")[0]

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        instance = self.instances.get(self.account(request))
        if instance is None or request.host != INGESTION_HOST:
            return None
        now = time.monotonic()
        while instance.recent and instance.recent[0] < now - 1:
            instance.recent.popleft()
        if len(instance.recent) >= instance.requests_per_s:
            return error("429001")
        instance.recent.append(now)
        return None

    def failure(self, status: int) -> web.Response:
        codes = {401: "401013", 404: "404040", 429: "429001", 500: "5000801", 400: "4000801"}
        if status == 403:
            return nginx_forbidden()
        return error(codes[status]) if status in codes else web.Response(status=status, text="upstream error")

    # --------------------------------------------------------------------------------------------------------- identity

    async def token(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        """One token for all who ask, with what is left of its life."""
        instance = self.instances[request.host.partition(".")[0]]
        given = {**request.query, **(await request.post())}
        if given.get("grant_type") != "client_credentials":
            return web.json_response(
                {"error": "unsupported_grant_type", "error_description": "Unsupported grant type"}, status=400
            )
        if (given.get("client_id"), given.get("client_secret")) != (instance.client_id, instance.client_secret):
            return web.json_response(
                {"error": "invalid_client", "error_description": "Client authentication failed"}, status=401
            )
        now = self.world.clock.now()
        if now >= instance.token_expires_at:
            instance.token = f"canary-{uuid.uuid4()}:int"
            instance.token_expires_at = now + instance.token_life_s
            instance.tokens_issued += 1
        left = int(instance.token_expires_at - now)
        if instance.zero_lives > 0:
            instance.zero_lives -= 1
            left = 0
        return web.json_response(
            {
                "access_token": instance.token,
                "token_type": "bearer",
                "expires_in": left,
                "scope": "api-user@marketo.example",
            }
        )

    # -------------------------------------------------------------------------------------------------------- ingestion

    async def ingest(self, request: web.BaseRequest, parts: dict[str, str]) -> web.Response:
        request_id = uuid.uuid4().hex
        instance = self.instances.get(parts["munchkin"].lower())
        object_name = request.path.split("/", 3)[3]
        kind = KINDS.get(object_name) or KINDS["customobjects/{name}"]
        content = await request.read()
        code, document, count = self.check(instance, request, content, kind, parts)
        if instance:
            instance.requests.append(
                {
                    "request_id": request_id,
                    "received_at": self.world.clock.now(),
                    "status": int(code[:3]) if code else 202,
                    "error_code": code,
                    "object": object_name,
                    "objects": count if document else None,
                    "bytes": len(content),
                    "priority": document.get("priority", "normal") if document else None,
                    "correlation_id": request.headers.get("X-Correlation-Id", ""),
                    "request_source": request.headers.get("X-Request-Source", ""),
                }
            )
        if code or instance is None:
            response = error(code or "404040")
        else:
            report = Report(
                request_id,
                kind.name,
                document.get("priority", "normal"),
                request.headers.get("X-Correlation-Id", ""),
                request.headers.get("X-Request-Source", ""),
                self.world.clock.now(),
                count,
            )
            kind.apply(instance, document, report, parts)
            instance.reports[request_id] = report
            response = web.Response(status=202)
        response.headers["X-Request-Id"] = request_id
        return response

    def check(
        self,
        instance: Instance | None,
        request: web.BaseRequest,
        content: bytes,
        kind: Kind,
        parts: dict[str, str],
    ) -> tuple[str | None, dict[str, Any], int]:
        """The error code of a bad request, or None, its document and the number of its objects."""
        token = request.headers.get("X-Mkto-User-Token")
        if not token:
            return "403010", {}, 0
        if instance is None or ("name" in parts and parts["name"] not in instance.custom_objects):
            return "404040", {}, 0
        if token != instance.token or self.world.clock.now() >= instance.token_expires_at:
            return "401013", {}, 0
        if (
            len(content) > MAX_BODY_BYTES
            or request.content_type != "application/json"
            or len(request.headers.get("X-Correlation-Id", "")) > 255
            or len(request.headers.get("X-Request-Source", "")) > 50
        ):
            return "4000801", {}, 0
        try:
            document = json.loads(content)
        except ValueError:
            return "4000801", {}, 0
        objects = kind.objects(document)
        if objects is None:
            return "4000801", {}, 0
        if not 0 < len(objects) <= MAX_OBJECTS:
            return "4000801", document, len(objects)
        if any(each.get(name) == value for each in objects for name, value in instance.poison.items()):
            return "4000802", document, len(objects)
        if not self.spend(instance, len(objects)):
            return "4290801", document, len(objects)
        return None, document, len(objects)

    def spend(self, instance: Instance, objects: int) -> bool:
        """Take from the day's quota, which is renewed at midnight US Central; False if it does not suffice."""
        day = (
            datetime.fromtimestamp(self.world.clock.now(), UTC)
            .astimezone(ZoneInfo("America/Chicago"))
            .date()
            .isoformat()
        )
        if day != instance.quota_day:
            instance.quota_day, instance.quota_used = day, 0
        if instance.quota_used + objects > instance.daily_quota:
            return False
        instance.quota_used += objects
        return True


# ------------------------------------------------------------------------------------------------- what requests may hold

Objects = list[dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """One of the API's paths: what its objects are called, how those of a body are found, and what they do.

    `objects` gives None for a body of another shape.
    """

    name: str
    objects: Callable[[Any], Objects | None]
    apply: Callable[[Instance, dict[str, Any], Report, dict[str, str]], None]


def shape(items: str, members: Mapping[str, Callable[[Any], bool]]) -> Callable[[Any], Objects | None]:
    """The reader of bodies with a list `items` of objects, and beside it only `members`, each with what it must be."""

    def objects(document: Any) -> Objects | None:
        if not isinstance(document, dict) or not document.keys() <= {items, *members}:
            return None
        found = document.get(items)
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            return None
        return found if all(fits(document.get(name)) for name, fits in members.items()) else None

    return objects


def one_of(*allowed: str) -> Callable[[Any], bool]:
    """What may be left out, or be one of these."""
    return lambda value: value is None or value in allowed


def is_text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and bool(value))


def is_number(value: Any) -> bool:
    return type(value) is int and value > 0


def are_dedupe_fields(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and "field1" in value
        and value.keys() <= {"field1", "field2"}
        and all(isinstance(name, str) and name for name in value.values())
    )


def company_objects(document: Any) -> Objects | None:
    actions = ("createOnly", "updateOnly", "createOrUpdate")
    members = {"action": one_of(*actions), "dedupeBy": one_of("dedupeFields", "idField")}
    found = shape("input", members)(document)
    if found is not None and document.get("dedupeBy") == "idField" and document.get("action") != "updateOnly":
        return None
    return found


def program_members(*, status_needed: bool) -> Callable[[Any], Objects | None]:
    def objects(document: Any) -> Objects | None:
        programs = shape("programs", {})(document)
        found: Objects = []
        for program in programs or ():
            members = shape("members", {"programId": is_number, "status": is_text})(program)
            if members is None or (status_needed and not program.get("status")):
                return None
            found += members
        return None if programs is None else found

    return objects


def put(kept: dict[Any, Kept], key: Any, attributes: dict[str, Any], report: Report, instance: Instance) -> Kept:
    """Create or update one, and count it."""
    found = kept.get(key)
    if found:
        found.attributes |= attributes
        found.writes += 1
        found.request_id = report.request_id
        report.updated += 1
    else:
        found = kept[key] = Kept(dict(attributes), request_id=report.request_id, id=instance.next_id())
        report.created += 1
    return found


def upsert_persons(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    names = list((document.get("dedupeFields") or {"field1": "email"}).values())
    for attributes in document["persons"]:
        values = tuple(attributes.get(name) for name in names)
        if any(value in (None, "") for value in values):
            instance.failed.append({"attributes": attributes, "request_id": report.request_id})
            report.failed["400"] += 1
            continue
        person = put(instance.persons, (*names, *values), attributes, report, instance)
        person.partition = person.partition or document.get("partitionName", "Default")
        instance.emails[str(attributes.get("email", "")).lower()] = person.id
    for custom_object in instance.custom_objects.values():
        if not custom_object.waiting:
            continue
        waiting, custom_object.waiting = custom_object.waiting, []
        for attributes, waiting_report in waiting:
            waiting_report.waiting -= 1
            link(instance, custom_object, attributes, waiting_report)


def upsert_custom_objects(instance: Instance, document: dict[str, Any], report: Report, parts: dict[str, str]) -> None:
    custom_object = instance.custom_objects[parts["name"]]
    for attributes in document["customObjects"]:
        if document.get("dedupeBy") == "marketoGUID":
            guid = attributes.get("marketoGUID")
            found = next((each for each in custom_object.records.values() if str(each.id) == str(guid)), None)
            if found is None:
                report.failed["404"] += 1
                continue
            found.attributes |= attributes
            found.writes += 1
            report.updated += 1
        elif any(attributes.get(name) in (None, "") for name in custom_object.dedupe_fields):
            report.failed["400"] += 1
        else:
            waiting = len(custom_object.waiting)
            link(instance, custom_object, attributes, report)
            custom_object.waited += len(custom_object.waiting) - waiting


def link(instance: Instance, custom_object: CustomObject, attributes: dict[str, Any], report: Report) -> None:
    """Keep a custom object, unless its person is not there yet."""
    if custom_object.link and str(attributes.get(custom_object.link, "")).lower() not in instance.emails:
        custom_object.waiting.append((attributes, report))
        report.waiting += 1
        return
    key = tuple(attributes.get(name) for name in custom_object.dedupe_fields)
    put(custom_object.records, key, attributes, report, instance)


def upsert_companies(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    action = document.get("action", "createOrUpdate")
    for attributes in document["input"]:
        external, number = attributes.get("externalCompanyId"), attributes.get("id")
        if (external is None) == (number is None):
            report.failed["400"] += 1
            continue
        if number is None:
            key: str | None = str(external)
        else:
            key = next((key for key, each in instance.companies.items() if each.id == number), None)
        if key is None or (action == "updateOnly" and key not in instance.companies):
            report.failed["404"] += 1
        elif action == "createOnly" and key in instance.companies:
            report.failed["409"] += 1
        else:
            put(instance.companies, key, attributes, report, instance)


def known_leads(instance: Instance, objects: Objects, report: Report) -> Iterator[int]:
    leads = set(instance.emails.values())
    for each in objects:
        if each.get("leadId") in leads:
            yield each["leadId"]
        else:
            report.failed["404"] += 1


def add_members(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    for program in document["programs"]:
        members = instance.members.setdefault(program["programId"], {})
        for lead in known_leads(instance, program["members"], report):
            report.updated += lead in members
            report.created += lead not in members
            members[lead] = program["status"]


def remove_members(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    for program in document["programs"]:
        for lead in known_leads(instance, program["members"], report):
            was_there = instance.members.get(program["programId"], {}).pop(lead, None) is not None
            report.updated += was_there
            report.failed.update({"404": 1} if not was_there else {})


def add_to_list(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    leads = set(known_leads(instance, document["input"], report))
    instance.lists.setdefault(document["listId"], set()).update(leads)
    report.updated += len(leads)


def remove_from_list(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    leads = set(known_leads(instance, document["input"], report))
    instance.lists.setdefault(document["listId"], set()).difference_update(leads)
    report.updated += len(leads)


PRIORITIES = ("high", "normal")
PRIORITY = {"priority": one_of(*PRIORITIES)}
LIST = shape("input", {"listId": is_number})
KINDS = {
    "persons": Kind(
        "person",
        shape("persons", {**PRIORITY, "partitionName": is_text, "dedupeFields": are_dedupe_fields}),
        upsert_persons,
    ),
    "customobjects/{name}": Kind(
        "customObject",
        shape("customObjects", {**PRIORITY, "dedupeBy": one_of("dedupeFields", "marketoGUID")}),
        upsert_custom_objects,
    ),
    "companies": Kind("company", company_objects, upsert_companies),
    "programmembers": Kind("programMember", program_members(status_needed=True), add_members),
    "programmembers/delete": Kind("programMember", program_members(status_needed=False), remove_members),
    "lists": Kind("listMember", LIST, add_to_list),
    "lists/remove": Kind("listMember", LIST, remove_from_list),
}


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def error(code: str) -> web.Response:
    """Adobe's error body. The first three digits of a code are the HTTP status."""
    return web.json_response(
        {"error_code": code, "message": MESSAGES[code]},
        status=int(code[:3]),
        headers={"X-Request-Id": uuid.uuid4().hex},
    )
