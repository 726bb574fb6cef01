"""The conformance suite that every platform passes. It finds platforms by their folders and feeds them recorded responses.

    tests/platforms/{name}/facts.json            an account's host, a connection's fields, genuine callbacks, a destination's
                                                 objects (see `destinations`)
    tests/platforms/{name}/fixtures/{part}.{reader}/{case}.json   one response each, and what the reader must make of it
    tests/platforms/{name}/deliveries/{case}.json   webhook deliveries, and what must be read from them

A fixture's `expect` has `gives` (some fields of the reader's result) or `raises` with fields of the error.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints
from urllib.parse import quote, urlencode

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria import platforms
from portaria.core import record_messages
from portaria.core.callbacks import EventAddress, OAuthCallback, OAuthClient, Refusal, Secret, WebhookDelivery
from portaria.core.entities import Changes, Connection, Page, Target, Trace
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.outbound import domain_rules, http_client
from portaria.platforms import protocols, record_protocols

HERE = Path(__file__).resolve().parent
PACKAGE = Path(platforms.__file__).resolve().parent
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
NAMES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
# Capabilities that a platform returns by an object's name, with their protocols.
BY_OBJECT: dict[str, type] = {
    "source_object": record_protocols.SourceObject,
    "paged_object": record_protocols.PagedObject,
    "changed_object": record_protocols.ChangedObject,
    "destination_object": record_protocols.RecordDestination,
}
# The other capabilities, by the type that `portaria.platforms.Platform` declares.
CAPABILITIES: dict[str, type] = {
    name: get_args(declared)[0] if get_args(declared) else declared
    for name, value in vars(platforms.Platform).items()
    if isinstance(value, property) and value.fget
    for declared in [
        get_type_hints(value.fget, {"protocols": protocols, "record_protocols": record_protocols})["return"]
    ]
}
FOREIGN_HOSTS = ("evil.example", "127.0.0.1", "[::1]", "localhost", "169.254.169.254", "", " ")


@dataclass(frozen=True)
class Platform:
    name: str

    @property
    def parts(self) -> dict[str, ModuleType]:
        paths = sorted((PACKAGE / self.name).glob("*.py"))
        names = [path.stem for path in paths if path.stem != "__init__"]
        return {name: importlib.import_module(f"portaria.platforms.{self.name}.{name}") for name in names}

    @property
    def offers(self) -> platforms.Platform:
        return platforms.load(self.name)

    def offered(self, capability: str, part: str) -> object:
        """What the platform returns for a capability; `part` is the object's name for those that need one."""
        found = getattr(self.offers, capability)
        return found(part) if capability in BY_OBJECT else found

    @property
    def facts(self) -> dict[str, Any]:
        path = HERE / self.name / "facts.json"
        return json.loads(path.read_text()) if path.exists() else {"allowed_domains": []}

    @property
    def fixtures(self) -> list[Path]:
        return sorted((HERE / self.name / "fixtures").glob("*/*.json"))

    @property
    def connection(self) -> Connection:
        domain = self.facts["allowed_domains"][0]
        return Connection("one", self.name, "any", domain, "connected", 1, "secret", fields=self.facts["fields"])

    @property
    def credentials(self) -> dict[str, Secret]:
        """Entered and obtained credentials, each with a canary."""
        kinds = self.parts["tokens"].KINDS.values()
        names = {name for kind in kinds for name in kind.credentials} | {"access_token"}
        return {name: Secret(f"canary-{name}") for name in self.facts.get("credentials", names)}

    @property
    def deliveries(self) -> list[Path]:
        return sorted((HERE / self.name / "deliveries").glob("*.json"))

    def functions(self, part: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        for name, value in vars(self.parts[part]).items():
            if inspect.isfunction(value) and value.__module__ == self.parts[part].__name__ and not name.startswith("_"):
                yield name, value

    def readers(self) -> Iterator[tuple[str, str, Callable[..., Any]]]:
        """All readers of responses: (part, name, function)."""
        for part in self.parts:
            for name, function in self.functions(part):
                if name.startswith("read_") and {"response", "send"} & set(inspect.signature(function).parameters):
                    yield part, name, function

    def builders(self) -> Iterator[tuple[str, str, Callable[..., Any]]]:
        """All builders of requests."""
        for part in self.parts:
            for name, function in self.functions(part):
                if inspect.signature(function).return_annotation == "Request":
                    yield part, name, function

    def call(self, function: Callable[..., Any], answers: list[Response]) -> Any:
        """Call a reader or a builder with arguments by its parameters' names; `send` returns the responses in turn."""
        waiting = iter(answers)
        requests: list[Request] = []

        def send(request: Request) -> Response:
            requests.append(request)
            self.check(request)
            return next(waiting)

        part = function.__module__.rsplit(".", 1)[-1]
        told = self.facts.get("objects", {})
        of_part = destination_targets(told.get(part) or [each for some in told.values() for each in some])
        known: dict[str, Any] = {
            "response": answers[0] if answers else None,
            "send": send,
            "now": NOW,
            "page": 1,
            "since": 1_600_000_000,
            "cursor": "",
            "account_host": self.facts["account_host"],
            "access_token": Secret("canary-access"),
            "client": OAuthClient(
                self.name,
                "acme",
                "client-id",
                f"https://api.example.com/install/{self.name}/acme",
                **self.facts.get("client", {}),
            ),
            "client_secret": Secret("canary-client-secret"),
            "code": Secret("canary-code"),
            "code_verifier": Secret("canary-code-verifier"),
            "refresh_token": Secret("canary-refresh"),
            "old_refresh_token": Secret("canary-refresh"),
            "connection": self.connection,
            "credentials": self.credentials,
            "destination": "https://api.example.com/events/one/key",
            "target": of_part[0] if of_part else None,
            "body": json.dumps(self.facts.get("body", {})).encode(),
            "user_identifier": "u&=#1",
            "users": [{"user_login": "maria", "identifier": "u-1"}],
            "contact_id": "x/../y?z#",
            "after": "",
            "contact": {"email": "maria@example.com"},
            "trace": Trace("correlation-1"),
        }
        return function(**{name: known[name] for name in inspect.signature(function).parameters})

    def check(self, request: Request) -> None:
        """The request goes to a host of the platform, and has no credential where logs would store it."""
        for domain in self.facts["allowed_domains"]:
            try:
                http_client.check(request, domain)
                break
            except Rejected as rejected:
                if rejected.reason != "host_not_allowed":
                    raise
        else:
            pytest.fail(f"{request.url} leads to none of {self.facts['allowed_domains']}")
        # A platform may require a credential there by design: no URL is logged.
        wanted = [quote(f"canary-{name}") for name in self.facts.get("credentials_in_urls", ())]
        assert "canary" not in re.sub("|".join(wanted) or "(?!)", "", request.url)
        assert "canary" not in repr(request)
        assert 0 < request.connect_timeout_s <= 5
        assert 0 < request.read_timeout_s <= 30
        assert 0 < request.max_response_bytes <= 10_000_000
        assert (request.body is None) == (request.method in ("GET", "HEAD"))
        if request.body is not None:
            assert "Content-Type" in request.headers


def missing(module: object, protocol: type) -> list[str]:
    """The members of a protocol that a module lacks, or has with other parameters."""
    found = []
    for base in protocol.__mro__:
        if getattr(base, "_is_protocol", False):
            found += [name for name in getattr(base, "__annotations__", {}) if not hasattr(module, name)]
            for name, declared in vars(base).items():
                if inspect.isfunction(declared) and not name.startswith("_"):
                    wanted = [parameter for parameter in inspect.signature(declared).parameters if parameter != "self"]
                    own = getattr(module, name, None)
                    if not inspect.isfunction(own) or list(inspect.signature(own).parameters) != wanted:
                        found.append(name)
    return found


@cache
def platform_of(name: str) -> Platform:
    return Platform(name)


def each(values: Callable[[Platform], Any]) -> pytest.MarkDecorator:
    """Parametrise a test with (platform, value) for all platforms; a value's first element names the case."""
    cases = [
        pytest.param(platform_of(name), value, id=f"{name}-{value[0] if isinstance(value, tuple) else value}")
        for name in NAMES
        for value in values(platform_of(name))
    ]
    return pytest.mark.parametrize(("platform", "case"), cases)


def destination_targets(told: list[dict[str, Any]]) -> list[Target]:
    """The targets of facts.json."""
    return [
        Target(
            "one",
            each["target"]["object"],
            each["target"].get("priority", "normal"),
            tuple(sorted(each["target"].get("options", {}).items())),
        )
        for each in told
    ]


def response_of(recorded: dict[str, Any]) -> Response:
    body = recorded.get("text", "").encode()
    if "json" in recorded:
        body = json.dumps(recorded["json"]).encode()
    if "hex" in recorded:
        body = bytes.fromhex(recorded["hex"])
    return Response(recorded["status"], recorded["headers"], body)


def shown(value: Any) -> Any:
    """A field of a reader's result, in the form of a fixture."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return value


def fields_of(given: Any) -> dict[str, Any]:
    if isinstance(given, Page):
        embedded = [record.data.get("_embedded", {}).get("companies", []) for record in given.records]
        return {
            "next_page": given.next_page,
            "keys": [record.key for record in given.records],
            "updated_at": [record.updated_at for record in given.records],
            "companies": [[company["name"] for company in companies] for companies in embedded],
        }
    if isinstance(given, Changes):
        return {
            "cursor": given.cursor,
            "keys": [record.key for record in given.records],
            "updated_at": [record.updated_at for record in given.records],
        }
    if isinstance(given, str | Secret):
        return {"text": shown(given)}
    if isinstance(given, dict):
        return given
    names = getattr(given, "__dataclass_fields__", None) or given._fields
    return {name: shown(getattr(given, name)) for name in names}


class Body(bytes):
    """Has a short representation in failing examples."""

    def __repr__(self) -> str:
        return f"{self[:200]!s} ({len(self)} bytes)"


def garbage() -> st.SearchStrategy[bytes]:
    """Bodies: bytes, text, and JSON with valid names in wrong places."""
    names = st.sampled_from(
        ["hint", "title", "status", "access_token", "refresh_token", "expires_in", "scope", "token_type", "id", "name",
         "subdomain", "_embedded", "_links", "next", "contacts", "companies", "updated_at", "error_code", "retry_after",
         "error", "key", "message", "contact", "new", "meta", "contactId"]
    )  # fmt: skip
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("canary-body")
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=8
    )
    strange = st.sampled_from(
        [b"", b"null", b"[" * 20_000, b'{"a":' * 20_000, b"9" * 6_000, b"\xff\xfe", b'{"a":1e999}']
    )
    return values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40) | strange


def strange_names() -> st.SearchStrategy[str]:
    """The names of a form in PHP's notation, with parts in wrong places."""
    parts = st.sampled_from(
        ["contacts", "account", "id", "update", "delete", "0", "1", "7", "custom_fields", "values", "value", "type", "tags",
         "updated_at", "", "é", "9" * 30, "linked_company_id", "company_name"]
    )  # fmt: skip
    return st.lists(parts, min_size=1, max_size=8).map(
        lambda steps: steps[0] + "".join(f"[{one}]" for one in steps[1:])
    )


class Conformance:
    """The suite itself. A platform's own tests are in test_{platform}_*.py."""

    @pytest.mark.parametrize("name", NAMES)
    def test_platform_folder_name_is_valid_in_urls(self, name: str) -> None:
        platform = platform_of(name)
        assert re.fullmatch(r"[a-z][a-z0-9]{0,31}", name)
        assert platform.facts["allowed_domains"], "write down what is known in facts.json"
        assert "tokens" in platform.parts, "there is no platform without credentials"

    @each(lambda platform: platform.parts)
    def test_platform_part_docstring_names_vendor_page(self, platform: Platform, case: str) -> None:
        assert re.search(r"https://\S+\.\S+", platform.parts[case].__doc__ or "")

    @pytest.mark.parametrize("name", NAMES)
    def test_platform_capability_has_members_of_its_protocol(self, name: str) -> None:
        platform = platform_of(name)
        assert type(platform.offers) is not platforms.Platform
        assert platform.offers.name == name
        for capability, protocol in (CAPABILITIES | BY_OBJECT).items():
            for part in platform.parts if capability in BY_OBJECT else ("",):
                module = platform.offered(capability, part)
                assert module is None or missing(module, protocol) == [], f"{capability}, see {protocol.__name__}"

    @each(lambda platform: platform.parts)
    def test_platform_part_implementing_a_protocol_is_offered(self, platform: Platform, case: str) -> None:
        """A module that `__init__.py` omits would never be used."""
        module = platform.parts[case]
        for capability, protocol in (CAPABILITIES | BY_OBJECT).items():
            if not missing(module, protocol):
                assert platform.offered(capability, case) is module, f"return {case} as {capability}"

    @pytest.mark.parametrize("name", NAMES)
    def test_platform_related_capabilities_are_complete(self, name: str) -> None:
        offers = platform_of(name).offers
        if offers.install:
            assert offers.token_endpoint
            assert offers.token_endpoint.KIND == "oauth2"
            if offers.authorization_links:
                assert offers.provider_clients
            else:
                assert offers.consent_page
                assert offers.account_lookup
                assert offers.webhook_subscriptions
        if any(kind in ("client_credentials", "password") for kind in offers.connection_kinds.KINDS):
            assert offers.log_in
        if offers.route_rules:
            assert all(offers.destination_object(target) for target in offers.route_rules.ACCEPTED.values())

    @pytest.mark.parametrize("name", NAMES)
    def test_platform_readable_object_has_valid_default_mapping(self, name: str) -> None:
        for part in platform_of(name).parts.values():
            if platform_of(name).offers.paged_object(part.__name__.rpartition(".")[2]):
                assert part.DEFAULT_MAPPING
                for expression in part.DEFAULT_MAPPING.values():
                    jmespath.compile(expression)

    @pytest.mark.parametrize("name", NAMES)
    def test_platform_credential_kinds_validate_every_field(self, name: str) -> None:
        platform = platform_of(name)
        tokens = platform.parts["tokens"]
        for kind in tokens.KINDS.values():
            given = {field: platform.facts["fields"].get(field, kind.optional.get(field)) for field in kind.fields}
            assert set(kind.optional) <= set(kind.fields)
            for field, pattern in kind.fields.items():
                assert pattern.fullmatch(given[field])
                assert field not in kind.optional or pattern.fullmatch(kind.optional[field])
                assert not pattern.fullmatch("a\n")
                assert not pattern.fullmatch("é")
                # A field may begin a host or be part of a path; one that is only used in a body may contain more.
                if field not in platform.facts.get("fields_of_bodies", ()):
                    for hostile in ("", "x/../y", "evil.example/", "a@b", "a.b", f"{given[field]}\n"):
                        assert not pattern.fullmatch(hostile)
            if kind.allowed_domain:
                domain = kind.allowed_domain(given)
                assert domain_rules.check_allowed_domain(domain) == domain
                assert domain in platform.facts["allowed_domains"]
            assert kind.credentials or platform.offers.provider_clients, "a kind without credentials needs a client's"

    @each(lambda platform: [(f"{part}.{name}", function) for part, name, function in platform.builders()])
    def test_platform_request_is_allowed_and_carries_credentials(
        self, platform: Platform, case: tuple[str, Any]
    ) -> None:
        request = platform.call(case[1], [])
        platform.check(request)
        carried = f"{request.headers} {request.body!r}"
        assert "canary" in carried, "a request without credentials?"

    @each(lambda platform: [(f"{part}.{name}", function) for part, name, function in platform.readers()])
    def test_platform_reader_has_recorded_answers(self, platform: Platform, case: tuple[str, Any]) -> None:
        own = [json.loads(path.read_text()) for path in platform.fixtures if path.parent.name == case[0]]
        assert any("gives" in fixture["expect"] for fixture in own), "record an answer that it can read"
        assert len({json.dumps(fixture["expect"]) for fixture in own}) >= 3, "record answers of more kinds"

    @each(lambda platform: [f"{path.parent.name}/{path.stem}" for path in platform.fixtures])
    def test_platform_recorded_answer_is_read_as_expected(self, platform: Platform, case: str) -> None:
        part, reader = case.partition("/")[0].split(".")
        fixture = json.loads((HERE / platform.name / "fixtures" / f"{case}.json").read_text())
        answers = [response_of(one) for one in fixture.get("responses", [fixture.get("response")])]
        function = getattr(platform.parts[part], reader)
        expected = fixture["expect"]
        if "raises" in expected:
            error: type[Rejected] | type[Retryable] = Rejected if expected["raises"] == "Rejected" else Retryable
            with pytest.raises(error) as raised:
                platform.call(function, answers)
            wanted = {name: value for name, value in expected.items() if name != "raises"}
            assert {name: getattr(raised.value, name) for name in wanted} == wanted
            assert len(getattr(raised.value, "detail", "")) > 15
            for word in fixture.get("detail_names", ()):
                assert word in str(raised.value)
            assert "canary" not in str(raised.value)
        elif expected["gives"] is None:
            assert platform.call(function, answers) is None
        else:
            given = fields_of(platform.call(function, answers))
            assert {name: given[name] for name in expected["gives"]} == expected["gives"]

    @each(lambda platform: [(f"{part}.{name}", function) for part, name, function in platform.readers()])
    @given(
        bodies=st.lists(garbage(), min_size=3, max_size=3),
        status=st.sampled_from([200, 200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 422, 429, 500, 503, 599]),
        headers=st.dictionaries(
            st.sampled_from(["retry-after", "content-type", "x-request-id"]),
            st.sampled_from(["", "1", "-1", "nan", "inf", "1e999", "text/html", "²", "x" * 300]),
        ),
    )
    def test_platform_reader_garbage_is_rejected_or_retryable(
        self, platform: Platform, case: tuple[str, Any], bodies: list[bytes], status: int, headers: dict[str, str]
    ) -> None:
        try:
            platform.call(case[1], [Response(status, headers, body) for body in bodies])
        except (Rejected, Retryable) as error:
            assert "canary" not in str(error)  # noqa: PT017 - whether it is raised is the example's affair
            if isinstance(error, Retryable) and error.after_s is not None:
                assert 0 < error.after_s <= 3_600  # noqa: PT017

    @each(lambda platform: [path.stem for path in platform.deliveries])
    def test_platform_recorded_delivery_is_read_as_expected(self, platform: Platform, case: str) -> None:
        """`signed` replaces the result of the signature check."""
        recorded = json.loads((HERE / platform.name / "deliveries" / f"{case}.json").read_text())
        text = urlencode(recorded["form"]) if "form" in recorded else json.dumps(recorded["json"])
        signed = bool(recorded.get("signed"))
        delivery = WebhookDelivery(recorded["headers"], text.encode(), recorded["received_at"], lambda *given: signed)
        address = EventAddress(recorded["account_id"], sha256(b"canary-secret").hexdigest())
        read, expected = platform.parts["events"].read, recorded["expect"]
        if "raises" in expected:
            with pytest.raises(Rejected) as refused:
                read(delivery, address)
            assert (refused.value.reason, refused.value.status) == (expected["raises"], expected["status"])
            assert "canary" not in str(refused.value)
            return
        events = read(delivery, address)
        left = {name: number for name, number in events.left.items() if number}
        records = {name: [list(record) for record in records] for name, records in events.records.items()}
        assert {"records": records, "left": left, "delivery": events.delivery} == expected

    @pytest.mark.parametrize("name", [name for name in NAMES if "events" in platform_of(name).parts])
    @given(
        body=garbage()
        | st.lists(st.tuples(strange_names(), st.text(max_size=8))).map(lambda form: urlencode(form).encode()),
        content_type=st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", ""]),
        header=st.sampled_from(["x-ghl-signature", "x-wh-signature", "x-portaria-secret", "x"]),
        value=st.sampled_from(["", "canary-secret", "A" * 86 + "==", "é", "=" * 99]),
        signed=st.booleans(),
    )
    def test_platform_events_garbage_is_rejected_or_read(
        self, name: str, body: bytes, content_type: str, header: str, value: str, signed: bool
    ) -> None:
        events = platform_of(name).parts["events"]
        delivery = WebhookDelivery(
            {"content-type": content_type, header: value}, body, 1_700_000_000, lambda *given: signed
        )
        try:
            found = events.read(delivery, EventAddress("1", sha256(b"canary-secret").hexdigest()))
        except Rejected as refused:
            assert 400 <= refused.status < 500  # noqa: PT017
            assert "canary" not in str(refused)  # noqa: PT017
            return
        for object_name, records in found.records.items():
            record_messages.pack(records, connection="one", object=object_name, origin=record_messages.EVENT, read_at=1)
            assert all(isinstance(record.updated_at, int) and record.key for record in records)

    @each(lambda platform: platform.facts.get("arrivals", {}))
    def test_platform_arrival_is_parsed(self, platform: Platform, case: str) -> None:
        arrival = platform.parts["install"].parse_callback(platform.facts["arrivals"][case])
        assert "canary" not in repr(arrival)
        if case == "refusal":
            assert isinstance(arrival, Refusal)
            return
        assert isinstance(arrival, OAuthCallback)
        assert arrival.code.reveal() == "canary-code"
        assert arrival.account_host == platform.facts.get("arrival_host", platform.facts["account_host"])
        assert arrival.source == case
        assert (arrival.state is not None) == (case == "browser")

    @each(lambda platform: [name for name in platform.facts.get("arrivals", {}) if name != "refusal"])
    @pytest.mark.parametrize(
        "code",
        [None, [], [""], ["a", "b"], ["x" * 10_000], ["a b"], ["a\nb"], ["\x00"], ["é"]],
        ids=["left out", "none", "empty", "repeated", "too long", "space", "line end", "NUL", "not ASCII"],
    )
    def test_platform_arrival_invalid_code_is_refused_by_name(
        self, platform: Platform, case: str, code: list[str] | None
    ) -> None:
        query = {name: values for name, values in platform.facts["arrivals"][case].items() if name != "code"}
        with pytest.raises(Rejected) as refused:
            platform.parts["install"].parse_callback(query | ({} if code is None else {"code": code}))
        assert refused.value.field == "code"

    @each(
        lambda platform: [
            name
            for name in platform.facts.get("arrivals", {})
            if name != "refusal" and "host_parameter" in platform.facts
        ]
    )
    @pytest.mark.parametrize("host", FOREIGN_HOSTS)
    def test_platform_arrival_foreign_host_is_refused_by_name(self, platform: Platform, case: str, host: str) -> None:
        """The client secret will be posted to this host."""
        parameter = platform.facts["host_parameter"]
        own = platform.facts["account_host"]
        for hostile in (host, f"{own}.{host}", f"{own}@{host}", f"{host}/{own}", f"{own}:{host}", f"{own}\r\n{host}"):
            with pytest.raises(Rejected) as refused:
                platform.parts["install"].parse_callback(platform.facts["arrivals"][case] | {parameter: [hostile]})
            assert refused.value.field == parameter

    @each(lambda platform: platform.facts.get("arrivals", {}))
    @given(
        query=st.dictionaries(
            st.sampled_from(["code", "state", "error", "referer", "referrer", "from_widget", "client_id", "platform"]),
            st.lists(st.text(max_size=30) | st.sampled_from(["1", "acme.kommo.com", "access_denied"]), max_size=3),
        )
    )
    def test_platform_arrival_arbitrary_query_is_refused_or_stays_on_platform_hosts(
        self, platform: Platform, case: str, query: dict[str, list[str]]
    ) -> None:
        """And all that it accepts leads to the platform's own hosts."""
        try:
            arrival = platform.parts["install"].parse_callback(platform.facts["arrivals"][case] | query)
        except Rejected as refused:
            assert refused.field  # noqa: PT017
            return
        if isinstance(arrival, OAuthCallback) and platform.facts.get("arrival_host") == "":
            assert arrival.account_host == ""
        elif isinstance(arrival, OAuthCallback):
            assert re.fullmatch(r"[a-z0-9.-]+", arrival.account_host)
            http_client.check(Request("GET", f"https://{arrival.account_host}/"), arrival.account_host)

    @pytest.mark.parametrize("name", [name for name in NAMES if platform_of(name).offers.consent_page])
    def test_platform_consent_url_and_button_carry_client_and_state(self, name: str) -> None:
        install = platform_of(name).parts["install"]
        url = install.consent_url("client&id=1", Secret("a&b=c#d"))
        assert url.startswith("https://")
        assert "client%26id%3D1" in url
        assert "a%26b%3Dc%23d" in url
        for language in ("pt", "es", "en"):
            button = install.button("client-id", Secret("state-1"), language)
            assert "client-id" in button.values()
            assert "state-1" in button.values()
            assert button["src"].startswith("https://")
            assert all(isinstance(value, str) for value in button.values())
            assert install.scope_texts("", language) == []

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "Kommo",
            "../kommo",
            "kommo/..",
            "kommo.tokens",
            "os",
            "protocols",
            "values",
            "nobody",
            "é",
            "a" * 40,
            "kommo\n",
        ],
    )
    def test_platform_part_unknown_platform_is_refused(self, name: str) -> None:
        with pytest.raises(Rejected, match="unknown_platform") as refused:
            platforms.load(name)
        assert refused.value.status == 404
        assert refused.value.field == "platform"

    def test_platform_missing_capability_is_refused(self) -> None:
        platform = platforms.load(NAMES[0])
        with pytest.raises(Rejected, match="unknown_platform") as unknown:
            platform.require(None)
        assert unknown.value.status == 404
        with pytest.raises(Rejected, match="not_offered") as not_offered:
            platform.offer(None)
        assert not_offered.value.status == 409

    def test_platforms_load_import_error_inside_platform_is_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(name: str) -> ModuleType:
            raise ModuleNotFoundError("No module named 'left_out'", name="left_out")

        monkeypatch.setattr(importlib, "import_module", broken)
        with pytest.raises(ModuleNotFoundError):
            platforms.load(NAMES[0])
