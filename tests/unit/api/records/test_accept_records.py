"""accept_records at its edges: HTTP as Adobe documents it in; HTTP, queue and table out."""

from __future__ import annotations

import io
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
import requests
import responses
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portaria.access import api_tokens, auth_throttle, private_integrations
from portaria.api import data_ingestion
from portaria.aws import service_clients
from portaria.connections import connection_store
from portaria.core import clock, record_messages
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection, Target, Trace
from portaria.platforms.marketo import persons
from portaria.records.mapping import record_mapping
from tests.fakes.api.manage import Manage, empty
from tests.fakes.aws import functions
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.functions import sample
from tests.fakes.aws.moto_cloud import TABLE, Cloud
from tests.fakes.platforms import marketo
from tests.fakes.virtual_time import VirtualClock

SUBSCRIPTION = "556-RJS-213"
API_URL = "https://abc123.execute-api.us-east-1.amazonaws.com/live"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
# The request of Adobe's documentation, unchanged.
SEED = "brooklyn.parker@karnv.com"
PERSONS = {"persons": [{"email": "a@example.com"}]}
PATHS = (
    "persons", "customobjects/{name}", "companies", "programmembers", "programmembers/delete", "lists", "lists/remove",
)  # fmt: skip
SAMPLES = (
    "persons", "custom_objects", "companies", "program_members", "leaving_program_members", "list_members",
    "leaving_list_members",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str = field(repr=False)

    @property
    def code(self) -> str:
        """The error code of a response in Adobe's format."""
        body = json.loads(self.text)
        assert set(body) == {"error_code", "message"}
        assert isinstance(body["error_code"], str)
        assert self.headers["Content-Type"] == "application/json"
        assert self.status == int(body["error_code"][:3])
        assert len(body["message"]) > 30
        return str(body["error_code"])

    @property
    def message(self) -> str:
        return str(json.loads(self.text)["message"])


class Harness:
    """The function `accept_records` of one stack, and a program with a token for it."""

    def __init__(self, stack: Cloud) -> None:
        self.stack = stack
        self.module = functions.load("accept_records", stack.environment)
        self.log = io.StringIO()
        functions.log_to(self.log)
        self.metrics = io.StringIO()
        self.connect("marketo-main")
        self.integration, self.token = self.let_in("records:send")

    def let_in(self, *scopes: str) -> tuple[str, str]:
        """The id and the token of a private integration."""
        made, token = private_integrations.create(self.stack.table, api_tokens.new_id(), "BI", "", scopes, "admin")
        return made.id, token.reveal()

    @property
    def program(self) -> private_integrations.PrivateIntegration:
        return private_integrations.get(self.stack.table, self.integration)

    def connect(self, name: str, account_id: str = SUBSCRIPTION, **changes: Any) -> None:
        domain = "mkto-ingestion-api.adobe.io"
        connection = Connection(
            name, "marketo", "client_credentials", domain, "connected", 1, "s", account_id=account_id
        )
        connection_store.create(self.stack.table, replace(connection, fields={"munchkin_id": account_id}, **changes))

    def send(self, path: str, body: Any, *, token: str | None = None, **more: Any) -> Answer:
        """`body` is sent unchanged if it is text or bytes. `more`: `headers`, `subscription`, `source`."""
        return self.answer(event_of(path, body, self.token if token is None else token, **more))

    def answer(self, event: dict[str, Any]) -> Answer:
        with redirect_stdout(self.metrics):
            given = self.module.handler(event, functions.Context(29))
        assert given["isBase64Encoded"] is False
        headers = {name: ", ".join(values) for name, values in given["multiValueHeaders"].items()}
        assert re.fullmatch(UUID, headers["X-Request-Id"])
        assert headers["Cache-Control"] == "no-store"
        answer = Answer(given["statusCode"], headers, given["body"])
        if answer.status == 202:
            assert answer.text == ""
        else:
            assert answer.code
        return answer

    def queued(self) -> list[record_mapping.Message]:
        """All messages in the queue, as ingest_records reads them."""
        return [record_mapping.read_message("id", body) for body in self.stack.receive("records")]


def event_of(
    path: str,
    body: Any,
    token: str,
    *,
    headers: dict[str, str | list[str]] | None = None,
    subscription: str = SUBSCRIPTION,
    source: str = "198.51.100.7",
    method: str = "POST",
) -> dict[str, Any]:
    """The event that API Gateway creates. The greedy resource matches a path without a resource of its own."""
    event = sample("accept_records", "persons")
    name = path.partition("/")[2] if path.startswith("customobjects/") and path.count("/") == 1 else ""
    parameters = {"name": name} if name else {} if path in PATHS else {"proxy": path}
    resource = "customobjects/{name}" if name else path if path in PATHS else "{proxy+}"
    event["resource"] = event["requestContext"]["resourcePath"] = f"/subscriptions/{{subscription}}/{resource}"
    event["path"] = f"/subscriptions/{subscription}/{path}"
    event["requestContext"]["path"] = f"/{event['requestContext']['stage']}{event['path']}"
    event["httpMethod"] = event["requestContext"]["httpMethod"] = method
    event["pathParameters"] = {"subscription": subscription} | parameters
    given: dict[str, str | list[str]] = {"Content-Type": "application/json"}
    given |= ({"x-mkto-user-token": token} if token else {}) | (headers or {})
    several = {key: [value] if isinstance(value, str) else value for key, value in given.items() if value != []}
    event["headers"] = {key: values[-1] for key, values in several.items()}
    event["multiValueHeaders"] = several
    event["requestContext"]["identity"]["sourceIp"] = source
    if isinstance(body, bytes):
        event["body"], event["isBase64Encoded"] = b64encode(body).decode(), True
    else:
        event["body"] = body if isinstance(body, str) or body is None else json.dumps(body)
    return event


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    """Time stands still until a test advances it."""
    time = VirtualClock()
    with time.installed():
        yield time


@pytest.fixture
def harness(shared: Cloud, time: VirtualClock) -> Iterator[Harness]:
    yield Harness(shared)
    empty()
    shared.receive("records")


def noted(stack: Cloud) -> list[dict[str, Any]]:
    items = service_clients.client("dynamodb").scan(TableName=TABLE)["Items"]
    return [item for item in items if item["pk"]["S"].startswith("REQUEST#")]


@contextmanager
def one_message_taken() -> Iterator[None]:
    """SQS accepts one message and then none."""
    call, taken = BaseClient._make_api_call, []

    def make_api_call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        if operation == "SendMessage":
            taken.append(parameters)
            if len(taken) > 1:
                raise ClientError({"Error": {"Code": "ServiceUnavailable", "Message": "canary"}}, operation)
        return call(client, operation, parameters)

    with patch.object(BaseClient, "_make_api_call", make_api_call):
        yield


class TestAdobeCompatibility:
    """A program written for Adobe's endpoint, with another base URL."""

    @pytest.fixture
    def served(self, harness: Harness) -> Iterator[Harness]:
        """Answers `{ApiUrl}/subscriptions/…` with the function, as API Gateway does."""

        def serve(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
            assert request.method == "POST"
            path = urlsplit(str(request.url)).path.removeprefix("/live/subscriptions/")
            subscription, _, rest = path.partition("/")
            body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
            headers: dict[str, str | list[str]] = dict(request.headers)
            answer = harness.answer(event_of(rest, body, "", headers=headers, subscription=subscription))
            return answer.status, answer.headers, answer.text

        with responses.RequestsMock(target="requests.adapters.HTTPAdapter.send") as mock:
            mock.add_callback("POST", re.compile(rf"{re.escape(API_URL)}/subscriptions/.*"), serve)
            yield harness

    def test_accept_records_adobe_persons_example_is_queued(self, served: Harness) -> None:
        body = {
            "priority": "high",
            "partitionName": "EMEA",
            "dedupeFields": {"field1": "email", "field2": "firstName"},
            "persons": [
                {"email": "brooklyn.parker@karnv.com", "firstName": "Brooklyn", "lastName": "Parker"},
                {"email": "Johnny.Neal@yvu30.com", "firstName": "Johnny", "lastName": "Neal"},
            ],
        }
        answer = requests.post(
            f"{API_URL}/subscriptions/556-RJS-213/persons",
            json=body,
            headers={"X-Mkto-User-Token": served.token, "X-Correlation-Id": "nightly-7", "X-Request-Source": "export"},
            timeout=10,
        )
        assert (answer.status_code, answer.text) == (202, "")
        assert answer.headers["X-Request-ID"]
        assert "dedupeFields.field2" in answer.headers["X-Portaria-Warning"]
        (message,) = served.queued()
        options = (("field1", "email"), ("field2", "firstName"), ("partition", "EMEA"))
        assert message.target == Target("marketo-main", "persons", "high", options)
        assert (message.origin, message.object, message.route) == (record_messages.FRONT_DOOR, "persons", "")
        assert (message.connection, message.request) == (served.integration, answer.headers["X-Request-Id"])
        assert message.trace == Trace("nightly-7", "export")
        assert [record["data"] for record in message.records] == body["persons"]
        assert [record["key"] for record in message.records] == [
            "brooklyn.parker@karnv.com|Brooklyn", "johnny.neal@yvu30.com|Johnny",
        ]  # fmt: skip
        now = clock.now()
        assert {record["updated_at"] for record in message.records} == {int(now.timestamp())}
        assert message.read_at == int(now.timestamp() * 1000)
        (item,) = noted(served.stack)
        assert {
            name: next(iter(item[name].values()))
            for name in ("destination", "object", "count", "correlation_id", "request_source")
        } == {
            "destination": "marketo-main",
            "object": "persons",
            "count": "2",
            "correlation_id": "nightly-7",
            "request_source": "export",
        }
        assert item["caller"] == {"S": f"private-integration:{served.integration}"}
        assert item["pk"] == {"S": f"REQUEST#{answer.headers['X-Request-Id']}"}

    def test_accept_records_adobe_custom_objects_example_is_queued(self, served: Harness) -> None:
        body = {
            "dedupeBy": "dedupeFields",
            "priority": "high",
            "customObjects": [
                {"email": SEED, "vin": "20UYA31581L000000", "make": "BMW", "model": "3-Series 330i", "year": 2003},
                {"email": "johnny.neal@yvu30.com", "vin": "19UYA31581L000000", "make": "BMW", "year": 1989},
            ],
        }
        answer = requests.post(
            f"{API_URL}/subscriptions/556-RJS-213/customobjects/purchases",
            json=body,
            headers={"X-Mkto-User-Token": served.token},
            timeout=10,
        )
        assert (answer.status_code, answer.text) == (202, "")
        assert "X-Portaria-Warning" not in answer.headers
        (message,) = served.queued()
        options = (("dedupe_by", "dedupeFields"),)
        assert message.target == Target("marketo-main", "customobjects/purchases", "high", options)
        assert [record["data"] for record in message.records] == body["customObjects"]
        assert len({record["key"] for record in message.records}) == 2

    def test_accept_records_request_built_by_marketo_platform_is_queued(self, served: Harness) -> None:
        target = Target("marketo-main", "persons", "normal", (("field1", "email"),))
        connection = connection_store.get(served.stack.table, "marketo-main")
        start, end = persons.frame(target)
        body = start + b'{"email":"a@example.com"}' + end
        request = persons.request(
            connection, {"access_token": Secret(served.token)}, target, body, Trace("correlation-1")
        )
        url = request.url.replace("https://mkto-ingestion-api.adobe.io", API_URL)
        answer = requests.post(url, data=request.body, headers=request.headers, timeout=10)
        assert (answer.status_code, answer.text) == (202, "")
        assert served.queued()[0].target == target

    def test_accept_records_errors_are_readable_by_marketo_platform(self, served: Harness) -> None:
        for token, body, code in (("", "{}", "403010"), ("x", "{}", "401013"), (served.token, "{}", "4000801")):
            headers = {"X-Mkto-User-Token": token} if token else {}
            given = requests.post(
                f"{API_URL}/subscriptions/556-RJS-213/persons", data=body, headers=headers, timeout=10
            )
            response = responses_to(given)
            assert persons.read_answer(response).code == code


def responses_to(given: requests.Response) -> Any:
    from portaria.core.http.messages import Response

    return Response(given.status_code, {name.lower(): text for name, text in given.headers.items()}, given.content)


class TestRequestBodies:
    @pytest.mark.parametrize("name", SAMPLES)
    def test_accept_records_sample_event_is_accepted(self, harness: Harness, name: str) -> None:
        event = sample("accept_records", name)
        event["multiValueHeaders"]["X-Mkto-User-Token"] = [harness.token]
        assert harness.answer(event).status == 202
        assert event["resource"].removeprefix("/subscriptions/{subscription}/") in PATHS
        assert harness.queued()

    def test_accept_records_program_members_are_grouped_by_program_and_status(self, harness: Harness) -> None:
        programs = [
            {"programId": 1, "status": "Registered", "members": [{"leadId": 17}, {"leadId": 18}]},
            {"programId": 2, "status": "Registered", "members": [{"leadId": 17}]},
            {"programId": 1, "status": "Attended", "members": [{"leadId": 19}]},
            {"programId": 1, "status": "Registered", "members": [{"leadId": 20}]},
        ]
        assert harness.send("programmembers", {"programs": programs}).status == 202
        sent = {message.target: [record["data"] for record in message.records] for message in harness.queued()}
        assert sent == {
            Target("marketo-main", "programmembers", "normal", (("program_id", program), ("status", status))): [
                {"leadId": lead} for lead in leads
            ]
            for program, status, leads in (
                ("1", "Registered", (17, 18, 20)),
                ("2", "Registered", (17,)),
                ("1", "Attended", (19,)),
            )
        }
        (item,) = noted(harness.stack)
        assert item["count"] == {"N": "5"}

    @pytest.mark.parametrize(
        ("path", "body", "options", "keys"),
        [
            (
                "persons",
                {"persons": [{"email": "A@Example.com"}, {"id": 1}]},
                {"field1": "email"},
                ["a@example.com", None],
            ),
            (
                "persons",
                {"dedupeFields": {"field1": "id", "field2": "email"}, "persons": [{"id": 5, "email": "X@example.com"}]},
                {"field1": "id", "field2": "email"},
                ["5|x@example.com"],
            ),
            (
                "persons",
                {"dedupeFields": {"field1": "id", "field2": "id"}, "persons": [{"id": "5"}]},
                {"field1": "id"},
                ["5"],
            ),
            (
                "customobjects/car_c",
                {"dedupeBy": "marketoGUID", "customObjects": [{"marketoGUID": "guid-1", "colour": {"deep": [1]}}]},
                {"dedupe_by": "marketoGUID"},
                ["guid-1"],
            ),
            (
                "companies",
                {"input": [{"externalCompanyId": "acme"}, {"id": 7}, {"company": "nameless"}]},
                {"action": "createOrUpdate", "dedupe_by": "dedupeFields"},
                ["acme", "id:7", None],
            ),
            (
                "companies",
                {"action": "updateOnly", "dedupeBy": "idField", "input": [{"id": 7}]},
                {"action": "updateOnly", "dedupe_by": "idField"},
                ["id:7"],
            ),
            ("lists", {"listId": 9, "input": [{"leadId": 17}]}, {"list_id": "9"}, ["17"]),
            ("lists/remove", {"listId": 9, "input": [{"leadId": 17}]}, {"list_id": "9"}, ["17"]),
            (
                "programmembers/delete",
                {"programs": [{"programId": 3, "members": [{"leadId": 17}]}]},
                {"program_id": "3"},
                ["17"],
            ),
        ],
    )
    def test_accept_records_body_becomes_records_with_options_and_keys(
        self, harness: Harness, path: str, body: dict[str, Any], options: dict[str, str], keys: list[str | None]
    ) -> None:
        assert harness.send(path, body).status == 202
        (message,) = harness.queued()
        assert message.target == Target("marketo-main", path, "normal", tuple(sorted(options.items())))
        assert message.object == path
        made = [record["key"] for record in message.records]
        for key, expected in zip(made, keys, strict=True):
            # A record without a dedupe value is accepted, with a key of its own, and becomes a dead letter later.
            assert key == expected if expected else re.fullmatch(r"[0-9a-f]{32}", key)

    def test_accept_records_more_than_1000_objects_or_1000000_bytes_are_refused(self, harness: Harness) -> None:
        exact = {"persons": [{"email": f"p{number}@example.com", "note": ""} for number in range(1000)]}
        missing = 1_000_000 - len(json.dumps(exact, ensure_ascii=False).encode())
        exact["persons"][0]["note"] = "é" * (missing // 2) + "x" * (missing % 2)
        text = json.dumps(exact, ensure_ascii=False)
        assert len(text.encode()) == 1_000_000
        assert harness.send("persons", text).status == 202
        sent = [record["data"] for message in harness.queued() for record in message.records]
        assert sent == exact["persons"]

        refused = harness.send("persons", text + " ")
        assert refused.code == "4000801"
        assert "1,000,000 bytes; this has 1,000,001" in refused.message
        assert harness.send("persons", text.encode() + b" ").code == "4000801"
        many = {"persons": [{"email": f"p{number}@example.com"} for number in range(1001)]}
        refused = harness.send("persons", many)
        assert refused.code == "4000801"
        assert "1,000 objects in one request; this has 1,001" in refused.message
        assert harness.queued() == []
        assert len(noted(harness.stack)) == 1

    def test_accept_records_single_person_of_1000000_bytes_is_accepted(self, harness: Harness) -> None:
        text = json.dumps({"persons": [{"email": "a@example.com", "note": "x" * 1_000_000}]})
        text = text.replace("x" * (len(text) - 1_000_000), "", 1)
        assert len(text) == 1_000_000
        assert harness.send("persons", text).status == 202
        (message,) = harness.queued()
        assert message.records[0]["data"] == json.loads(text)["persons"][0]

    def test_accept_records_body_that_outgrows_a_message_is_refused(self, harness: Harness) -> None:
        """Numbers and two characters have several JSON representations of different length."""
        text = '{"customObjects":[{"numbers":[' + ",".join(["1e15"] * 190_000) + "]}]}"
        refused = harness.send("customobjects/car_c", text)
        assert refused.code == "4000801"
        assert "a message can carry" in refused.message
        assert harness.queued() == []

    def test_accept_records_members_of_all_programs_count_towards_limit(self, harness: Harness) -> None:
        def programs(*sizes: int) -> dict[str, Any]:
            return {
                "programs": [
                    {"programId": number, "status": "On", "members": [{"leadId": lead} for lead in range(1, size + 1)]}
                    for number, size in enumerate(sizes, 1)
                ]
            }

        assert harness.send("programmembers", programs(500, 500)).status == 202
        assert sum(len(message.records) for message in harness.queued()) == 1000
        refused = harness.send("programmembers", programs(500, 501))
        assert refused.code == "4000801"
        assert "1,001" in refused.message
        assert (
            harness.send("lists", {"listId": 1, "input": [{"leadId": lead} for lead in range(1, 1002)]}).code
            == "4000801"
        )

    def test_accept_records_unicode_and_json_values_are_queued_unchanged(self, harness: Harness) -> None:
        person = {"email": "josé@例え.jp", "note": "\u0000\ufffe\U0001f600", "a": None, "b": True, "c": 0.1, "d": 2**63}
        assert harness.send("persons", {"persons": [person]}).status == 202
        assert harness.send("persons", json.dumps({"persons": [person]}, ensure_ascii=False).encode()).status == 202
        for message in harness.queued():
            assert message.records[0]["data"] == person

    def test_accept_records_unlisted_dedupe_field_is_accepted_with_warning(self, harness: Harness) -> None:
        listed = harness.send("persons", PERSONS | {"dedupeFields": {"field1": "sfdcLeadId"}})
        assert (listed.status, listed.headers.get("X-Portaria-Warning")) == (202, None)
        for fields, named in (
            ({"field1": "passport"}, ["field1"]),
            ({"field1": "email", "field2": "passport"}, ["field2"]),
            ({"field1": "licence", "field2": "passport"}, ["field1", "field2"]),
        ):
            answer = harness.send("persons", PERSONS | {"dedupeFields": fields})
            assert answer.status == 202
            warning = answer.headers["X-Portaria-Warning"]
            assert re.findall(r"field\d", warning) == named
            assert "passport" not in warning


BAD: list[tuple[str, Any, str, str]] = [
    # not JSON, or more than JSON
    ("persons", None, "4000801", "line 1"),
    ("persons", "", "4000801", "not JSON"),
    ("persons", "persons", "4000801", "not JSON"),
    ("persons", '{"persons":[{"email":"a"}]', "4000801", "line 1, column"),
    ("persons", '{"persons":[{"email":"a"}]} {}', "4000801", "not JSON"),
    ("persons", "\ufeff\ufeff{}", "4000801", "not JSON"),
    ("persons", "\ufeff{}", "4000801", "persons is missing"),
    ("persons", b'{"persons":[{"email":"\xff"}]}', "4000801", "UTF-8"),
    ("persons", '{"persons":[{"email":"\ud800"}]}', "4000801", "UTF-8"),
    ("persons", b'\x1f\x8b\x08\x00"', "4000801", "UTF-8"),
    ("persons", '{"priority":"normal","priority":"high","persons":[{"email":"a"}]}', "4000801", "twice"),
    ("persons", '{"persons":[{"email":"a","email":"b"}]}', "4000801", "twice"),
    ("persons", '{"persons":' + "[" * 300_000, "4000801", "too deep"),
    ("persons", '{"a":' * 100_000, "4000801", "too deep"),
    ("persons", '{"persons":[{"email":"a","n":' + "9" * 5_000 + "}]}", "4000801", "number is too long"),
    ("persons", "[]", "4000801", "must be a JSON object"),
    ("persons", "null", "4000801", "must be a JSON object"),
    ("persons", "NaN", "4000801", "must be a JSON object"),
    # members
    ("persons", {}, "4000801", "persons is missing"),
    ("persons", {"persons": []}, "4000801", "persons is empty"),
    ("persons", {"persons": {}}, "4000801", "persons must be a list"),
    ("persons", {"persons": None}, "4000801", "persons must be a list"),
    ("persons", {"persons": "canary"}, "4000801", "persons must be a list"),
    ("persons", PERSONS | {"canary": 1}, "4000801", "holds 1 unknown"),
    ("persons", PERSONS | {"partition": "EMEA"}, "4000801", "partitionName"),
    ("persons", PERSONS | {"priority": "canary"}, "4000801", "priority must be normal or high"),
    ("persons", PERSONS | {"priority": "High"}, "4000801", "priority"),
    ("persons", PERSONS | {"priority": 1}, "4000801", "priority"),
    ("persons", PERSONS | {"priority": None}, "4000801", "priority"),
    ("persons", PERSONS | {"priority": ["high"]}, "4000801", "priority"),
    ("persons", PERSONS | {"partitionName": ""}, "4000801", "partitionName"),
    ("persons", PERSONS | {"partitionName": 5}, "4000801", "partitionName must be text"),
    ("persons", PERSONS | {"partitionName": "x" * 256}, "4000801", "this has 256"),
    ("persons", PERSONS | {"partitionName": "a\nb"}, "4000801", "partitionName"),
    ("persons", PERSONS | {"dedupeFields": "email"}, "4000801", "dedupeFields must be an object"),
    ("persons", PERSONS | {"dedupeFields": {}}, "4000801", "dedupeFields.field1 is missing"),
    ("persons", PERSONS | {"dedupeFields": {"field2": "email"}}, "4000801", "dedupeFields.field1 is missing"),
    ("persons", PERSONS | {"dedupeFields": {"field1": 1}}, "4000801", "dedupeFields.field1 must be text"),
    (
        "persons",
        PERSONS | {"dedupeFields": {"field1": "id", "field2": "email", "field3": "canary"}},
        "4000801",
        "dedupeFields holds 1 unknown: only field1, field2",
    ),
    ("customobjects/car_c", {"customObjects": [{"a": 1}], "dedupeBy": "idField"}, "4000801", "dedupeBy"),
    ("customobjects/car_c", {"customObjects": [{"a": 1}], "action": "createOnly"}, "4000801", "unknown"),
    ("customobjects/car_c", {"persons": [{"a": 1}]}, "4000801", "unknown"),
    ("companies", {"input": [{"id": 1}], "priority": "high"}, "4000801", "unknown"),
    ("companies", {"input": [{"id": 1}], "dedupeBy": "idField"}, "4000801", "updateOnly"),
    ("companies", {"input": [{"id": 1}], "dedupeBy": "idField", "action": "createOnly"}, "4000801", "updateOnly"),
    ("companies", {"input": [{"id": 1}], "action": "delete"}, "4000801", "action must be"),
    ("companies", {"input": {"id": 1}}, "4000801", "input must be a list"),
    ("programmembers", {"programs": []}, "4000801", "programs is empty"),
    ("programmembers", {"programs": [1]}, "4000801", "programs[0] must be an object"),
    ("programmembers", {"programs": [{"programId": 1, "members": [{"leadId": 1}]}]}, "4000801", "programs[0].status"),
    (
        "programmembers",
        {"programs": [{"status": "On", "members": [{"leadId": 1}]}]},
        "4000801",
        "programs[0].programId",
    ),
    ("programmembers", {"programs": [{"programId": True, "status": "On", "members": [1]}]}, "4000801", "programId"),
    ("programmembers", {"programs": [{"programId": "1", "status": "On", "members": [1]}]}, "4000801", "programId"),
    ("programmembers", {"programs": [{"programId": 1, "status": "On", "members": []}]}, "4000801", "members is empty"),
    ("programmembers", {"programs": [{"programId": 1, "status": "On"}]}, "4000801", "programs[0].members is missing"),
    ("lists", {"input": [{"leadId": 1}]}, "4000801", "listId is missing"),
    ("lists", {"listId": 0, "input": [{"leadId": 1}]}, "4000801", "listId must be"),
    ("lists", {"listId": 1.5, "input": [{"leadId": 1}]}, "4000801", "listId must be"),
    ("lists", {"listId": 1}, "4000801", "input is missing"),
    # the objects themselves
    ("persons", {"persons": ["canary"]}, "4000802", "persons[0] must be an object"),
    ("persons", {"persons": [{"email": "a"}, None]}, "4000802", "persons[1] must be an object"),
    ("persons", '{"persons":[{"email":"a","score":NaN}]}', "4000802", "persons[0].score"),
    ("persons", '{"persons":[{"email":"a","score":-Infinity}]}', "4000802", "persons[0].score"),
    ("persons", '{"persons":[{"email":"a","score":1e999}]}', "4000802", "persons[0].score"),
    ("persons", {"persons": [{"email": "a", "score": 2**64}]}, "4000802", "64 bits"),
    ("persons", {"persons": [{"email": "a", "phones": ["canary"]}]}, "4000802", "persons[0].phones"),
    ("persons", {"persons": [{"email": {"canary": 1}}]}, "4000802", "persons[0].email"),
    ("persons", {"persons": [{"canary-1234": []}]}, "4000802", "(a name of 11 characters)"),
    ("companies", {"input": [1]}, "4000802", "input[0] must be an object"),
    ("customobjects/car_c", '{"customObjects":[{"a":[1,{"b":NaN}]}]}', "4000802", "customObjects[0].a[1].b"),
    (
        "customobjects/car_c",
        '{"customObjects":[{"a":' + "[" * 50 + "]" * 50 + "}]}",
        "4000802",
        "customObjects[0].a[0]",
    ),
    ("lists", {"listId": 1, "input": [5]}, "4000802", "input[0]"),
    ("lists", {"listId": 1, "input": [{"leadId": "5"}]}, "4000802", "input[0]"),
    ("lists/remove", {"listId": 1, "input": [{"leadId": 5, "canary": 1}]}, "4000802", "input[0]"),
    (
        "programmembers",
        {"programs": [{"programId": 1, "status": "On", "members": [{"leadId": -1}]}]},
        "4000802",
        "leadId",
    ),
    # paths
    ("customobjects/car-c", {"customObjects": [{"a": 1}]}, "404040", "nothing at this path"),
    ("customobjects/..", {"customObjects": [{"a": 1}]}, "404040", "nothing at this path"),
    ("people", PERSONS, "404040", "nothing at this path"),
]


class TestInvalidInput:
    @pytest.mark.parametrize(("path", "body", "code", "told"), BAD)
    def test_accept_records_invalid_body_is_refused_with_code_and_message(
        self, harness: Harness, path: str, body: Any, code: str, told: str
    ) -> None:
        answer = harness.send(path, body)
        assert (answer.code, told in answer.message) == (code, True), answer.message
        assert "canary" not in answer.message
        assert harness.queued() == []
        assert noted(harness.stack) == []
        assert f'"code":"{code}"' in harness.metrics.getvalue().replace(" ", "")

    @pytest.mark.parametrize(
        ("content_type", "told"),
        [
            ("text/plain", "Content-Type must be application/json"),
            ("text/plain; charset=utf-8", "must be application/json"),
            ("application/x-www-form-urlencoded", "must be application/json"),
            ("application/jsonp", "must be application/json"),
            ("application/json, text/plain", "must be application/json"),
            ("application/json; charset=iso-8859-1", "must be utf-8"),
            (["application/json", "application/json"], "was sent 2 times"),
            ([], "Content-Type is missing"),
            ("", "Content-Type is missing"),
        ],
    )
    def test_accept_records_content_type_other_than_json_is_refused(
        self, harness: Harness, content_type: Any, told: str
    ) -> None:
        answer = harness.send("persons", PERSONS, headers={"Content-Type": content_type})
        assert (answer.status, answer.code) == (400, "4000801")
        assert told in answer.message
        assert harness.queued() == []

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json",
            "Application/JSON",
            "application/json;charset=UTF-8",
            'application/json; charset="utf-8"; v=1',
        ],
    )
    def test_accept_records_content_type_json_with_parameters_is_accepted(
        self, harness: Harness, content_type: str
    ) -> None:
        assert harness.send("persons", PERSONS, headers={"Content-Type": content_type}).status == 202

    @pytest.mark.parametrize(
        ("headers", "told"),
        [
            ({"X-Correlation-Id": "x" * 300}, "X-Correlation-Id may have 255 characters; this has 300"),
            ({"x-correlation-id": "x" * 256}, "this has 256"),
            ({"X-Request-Source": "x" * 51}, "X-Request-Source may have 50 characters; this has 51"),
            ({"X-Correlation-Id": "a\x00b"}, "control"),
            ({"X-Correlation-Id": "a\ud800b"}, "control"),
            ({"X-Correlation-Id": ["a", "b"]}, "was sent 2 times"),
            ({"Content-Encoding": "gzip"}, "Content-Encoding"),
        ],
    )
    def test_accept_records_invalid_header_is_refused(
        self, harness: Harness, headers: dict[str, Any], told: str
    ) -> None:
        answer = harness.send("persons", PERSONS, headers=headers)
        assert answer.code == "4000801"
        assert told in answer.message
        assert harness.queued() == []

    def test_accept_records_headers_at_length_limit_are_accepted(self, harness: Harness) -> None:
        headers: dict[str, str | list[str]] = {
            "X-Correlation-Id": "é" * 255,
            "x-request-source": "x" * 50,
            "Content-Encoding": "identity",
        }
        assert harness.send("persons", PERSONS, headers=headers).status == 202
        assert [message.trace for message in harness.queued()] == [Trace("é" * 255, "x" * 50)]
        (item,) = noted(harness.stack)
        assert item["correlation_id"] == {"S": "é" * 255}

    def test_accept_records_without_tracing_headers_stores_no_trace(self, harness: Harness) -> None:
        assert harness.send("persons", PERSONS).status == 202
        (body,) = harness.stack.receive("records")
        assert "trace" not in json.loads(body)
        (item,) = noted(harness.stack)
        assert "list_pk" not in item

    def test_accept_records_invalid_base64_body_is_refused(self, harness: Harness) -> None:
        event = event_of("persons", PERSONS, harness.token) | {"isBase64Encoded": True}
        assert harness.answer(event).code == "4000801"

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_accept_records_arbitrary_body_is_accepted_or_refused_without_internal_error(
        self, harness: Harness, data: st.DataObject
    ) -> None:
        names = st.sampled_from(
            ["priority", "partitionName", "dedupeFields", "field1", "field2", "persons", "dedupeBy", "customObjects",
             "action", "input", "programs", "programId", "status", "members", "leadId", "listId", "id", "email",
             "marketoGUID", "externalCompanyId"]
        )  # fmt: skip
        words = st.sampled_from(["normal", "high", "email", "marketoGUID", "idField", "updateOnly", "refused"])
        leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | words
        values = st.recursive(
            leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5), max_leaves=12
        )
        nearly = st.dictionaries(
            st.sampled_from(["persons", "customObjects", "input"]),
            st.lists(st.dictionaries(names, leaves, max_size=4), min_size=1, max_size=3),
            min_size=1,
            max_size=1,
        )
        bodies = values.map(json.dumps) | nearly.map(json.dumps) | st.binary(max_size=40) | st.text(max_size=40)
        path = data.draw(st.sampled_from([each.replace("{name}", "car_c") for each in PATHS]))
        answer = harness.send(path, data.draw(bodies))
        assert answer.status in (202, 400)
        for message in harness.queued():
            assert answer.status == 202
            for number, record in enumerate(message.records):
                record_mapping.read_record(message, number, record)


class TestAuthentication:
    def test_accept_records_missing_token_is_refused(self, harness: Harness) -> None:
        for headers in (
            {},
            {"X-Mkto-User-Token": ""},
            {"X-Mkto-User-Token": " "},
            {"Authorization": f"Bearer {harness.token}"},
        ):
            answer = harness.send("persons", PERSONS, token="", headers=headers)
            assert (answer.status, answer.code) == (403, "403010")
        event = event_of("persons", PERSONS, "")
        event["queryStringParameters"] = {"access_token": harness.token}
        event["multiValueQueryStringParameters"] = {"access_token": [harness.token]}
        assert harness.answer(event).code == "403010"

    @pytest.mark.parametrize(
        "change", [lambda token: token[:-1], lambda token: token + "x", lambda token: f"Bearer {token}"]
    )
    def test_accept_records_altered_token_is_refused_and_not_exposed(self, harness: Harness, change: Any) -> None:
        answer = harness.send("persons", PERSONS, token=change(harness.token))
        assert (answer.status, answer.code) == (401, "401013")
        assert harness.token not in answer.text
        assert harness.token not in harness.log.getvalue()

    def test_accept_records_token_issued_by_adobe_is_refused(self, harness: Harness) -> None:
        assert harness.send("persons", PERSONS, token="11606815-aa7a-405a-80a1-f9683efa528b:ab").code == "401013"

    def test_accept_records_token_of_deleted_integration_is_refused(self, harness: Harness) -> None:
        private_integrations.delete(harness.stack.table, harness.integration)
        assert harness.send("persons", PERSONS).code == "401013"

    def test_accept_records_rotation_overlap_accepts_both_tokens_until_it_ends(
        self, harness: Harness, time: VirtualClock
    ) -> None:
        _, made = private_integrations.rotate(harness.stack.table, harness.program, expire_now=False)
        fresh = made.reveal()
        assert harness.send("persons", PERSONS).status == 202
        assert harness.send("persons", PERSONS, token=fresh).status == 202
        time.advance(timedelta(days=7, seconds=1).total_seconds())
        answer = harness.send("persons", PERSONS)
        assert answer.code == "401013"
        assert "replaced by a rotation" in answer.message
        assert harness.send("persons", PERSONS, token=fresh).status == 202

    def test_accept_records_token_without_send_scope_is_refused(self, harness: Harness) -> None:
        _, token = harness.let_in("contacts:upsert", "connections:call@marketo-main")
        answer = harness.send("persons", PERSONS, token=token)
        assert (answer.status, answer.code) == (403, "4030801")
        assert "records:send" in answer.message
        assert harness.send("persons", PERSONS, token=token, subscription="000-ZZZ-000").code == "4030801"

    def test_accept_records_scope_for_one_connection_hides_other_subscriptions(self, harness: Harness) -> None:
        harness.connect("marketo-other", "111-AAA-111")
        _, token = harness.let_in("records:send@marketo-other")
        assert harness.send("persons", PERSONS, token=token, subscription="111-AAA-111").status == 202
        assert harness.queued()[0].target == Target("marketo-other", "persons", "normal", (("field1", "email"),))
        told = {
            harness.send("persons", PERSONS, token=token, subscription=each).text
            for each in (SUBSCRIPTION, "000-ZZZ-000")
        }
        assert len(told) == 1
        (text,) = told
        assert "4030801" in text
        assert "check the account in the path" in text

    def test_accept_records_scope_removed_applies_to_next_call(self, harness: Harness) -> None:
        assert harness.send("persons", PERSONS).status == 202
        private_integrations.edit(harness.stack.table, harness.program, scopes=("records:send@nothing",))
        assert harness.send("persons", PERSONS).code == "4030801"

    def test_accept_records_refused_caller_does_not_learn_body_errors(self, harness: Harness) -> None:
        assert harness.send("persons", "nonsense", token="x").code == "401013"
        assert harness.send("persons", "nonsense", subscription="000-ZZZ-000").code == "404040"

    def test_accept_records_failed_attempts_of_one_address_are_throttled(self, harness: Harness) -> None:
        for _ in range(auth_throttle.MOST):
            assert harness.send("persons", PERSONS, token="portaria_guess", source="192.0.2.9").code == "401013"
        answer = harness.send("persons", PERSONS, token="portaria_guess", source="192.0.2.9")
        assert (answer.status, answer.code) == (429, "429001")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert harness.send("persons", PERSONS, source="192.0.2.9").code == "429001"
        assert harness.send("persons", PERSONS, source="192.0.2.10").status == 202
        assert harness.metrics.getvalue().count('"ApiAttemptsFailed":[') == auth_throttle.MOST + 2


class TestRouting:
    @pytest.mark.parametrize(
        "subscription", ["000-ZZZ-000", "556-RJS-21", "..", "556-RJS-213x", "123-aß-456", "x" * 500]
    )
    def test_accept_records_unknown_subscription_is_not_found(self, harness: Harness, subscription: str) -> None:
        harness.connect("marketo-ss", "123-ASS-456")
        answer = harness.send("persons", PERSONS, subscription=subscription)
        assert (answer.status, answer.code) == (404, "404040")

    @pytest.mark.parametrize(
        "path", ["people", "persons/1", "customobjects", "customobjects/a/b", "lists/remove/x", "%2e%2e"]
    )
    @pytest.mark.parametrize("method", ["POST", "GET"])
    def test_accept_records_unknown_path_is_refused_in_platform_form(
        self, harness: Harness, path: str, method: str
    ) -> None:
        answer = harness.send(path, PERSONS, method=method)
        assert (answer.status, answer.code) == (404, "404040")
        assert "POST to /subscriptions/{subscription}/persons" in answer.message
        assert harness.queued() == []

    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def test_accept_records_known_path_with_other_method_is_refused_in_platform_form(
        self, harness: Harness, method: str
    ) -> None:
        """API Gateway matches the greedy resource."""
        event = event_of("persons", None, harness.token, method=method)
        event["resource"] = "/subscriptions/{subscription}/{proxy+}"
        assert harness.answer(event).code == "404040"

    def test_accept_records_subscription_without_path_is_refused_in_platform_form(self, harness: Harness) -> None:
        event = event_of("persons", None, harness.token, method="GET")
        event["resource"] = event["requestContext"]["resourcePath"] = "/subscriptions/{subscription}"
        assert harness.answer(event).code == "404040"

    def test_accept_records_unknown_path_is_refused_without_aws_call(self, harness: Harness) -> None:
        with patch.object(BaseClient, "_make_api_call", side_effect=AssertionError):
            assert harness.send("people", PERSONS, token="portaria_guess").code == "404040"

    def test_accept_records_lower_case_subscription_is_accepted(self, harness: Harness) -> None:
        assert harness.send("persons", PERSONS, subscription="556-rjs-213").status == 202

    def test_accept_records_connection_created_by_api_is_found_by_munchkin_id(self, harness: Harness) -> None:
        with responses.RequestsMock() as mock:
            mock.post(marketo.TOKEN_URL, json={"access_token": "canary-token", "expires_in": 3599, "scope": "a@b.c"})
            made = Manage(harness.stack).call(
                "POST",
                "/connections",
                {
                    "platform": "marketo",
                    "name": "made-by-api",
                    "fields": {"munchkin_id": marketo.MUNCHKIN},
                    "credentials": {"client_id": marketo.CLIENT_ID, "client_secret": marketo.CLIENT_SECRET},
                },
            )
        assert (made.status, made.content["account_id"]) == (201, marketo.MUNCHKIN)
        assert harness.send("persons", PERSONS, subscription=marketo.MUNCHKIN).status == 202
        assert harness.queued()[0].target == Target("made-by-api", "persons", "normal", (("field1", "email"),))

    def test_accept_records_several_connections_uses_first_working_one_in_scope(self, harness: Harness) -> None:
        harness.connect("marketo-broken", state="needs_reconnect")
        harness.connect("marketo-gone", state="removed")
        harness.connect("marketo-a-second")

        def used(token: str) -> str:
            assert harness.send("persons", PERSONS, token=token).status == 202
            (message,) = harness.queued()
            assert message.target
            return message.target.destination

        assert used(harness.token) == "marketo-a-second"
        _, narrow = harness.let_in("records:send@marketo-main", "records:send@marketo-broken")
        assert used(narrow) == "marketo-main"
        # Records wait for a connection that must be connected again; a deleted one accepts none.
        _, broken = harness.let_in("records:send@marketo-broken")
        assert used(broken) == "marketo-broken"
        _, gone = harness.let_in("records:send@marketo-gone")
        assert harness.send("persons", PERSONS, token=gone).code == "4030801"

    def test_accept_records_resolved_connection_is_cached_until_it_expires(
        self, harness: Harness, time: VirtualClock
    ) -> None:
        asked: list[str] = []
        call = BaseClient._make_api_call

        def note(client: Any, operation: str, parameters: Any) -> Any:
            asked.append(operation)
            return call(client, operation, parameters)

        harness.send("persons", PERSONS)
        with patch.object(BaseClient, "_make_api_call", note):
            assert harness.send("persons", PERSONS).status == 202
            assert asked == ["GetItem", "PutItem", "SendMessage"]
            harness.stack.table.update(
                *connection_store.key("marketo-main"), "SET #state = :removed",
                names={"#state": "state"}, values={":removed": "removed"},
            )  # fmt: skip
            time.advance(data_ingestion.KNOWN_FOR.total_seconds() + 1)
            assert harness.send("persons", PERSONS).code == "404040"
        # Absence is not cached: a connection that has just been created is found.
        harness.connect("marketo-new")
        assert harness.send("persons", PERSONS).status == 202


class TestAwsFailures:
    @pytest.mark.parametrize("operation", ["SendMessage", "PutItem", "Query", "GetItem"])
    def test_accept_records_aws_failure_answers_500_and_resending_succeeds(
        self, harness: Harness, operation: str
    ) -> None:
        with refusing(operation):
            answer = harness.send("persons", PERSONS)
        assert (answer.status, answer.code) == (500, "5000801")
        assert "Throttling" not in answer.text
        assert answer.headers["Retry-After"]
        assert harness.queued() == []
        assert harness.send("persons", PERSONS).status == 202

    def test_accept_records_partly_queued_request_is_queued_completely_when_resent(self, harness: Harness) -> None:
        body = {"persons": [{"email": f"p{number}@example.com", "note": "x" * 900} for number in range(1000)]}
        with one_message_taken():
            assert harness.send("persons", body).code == "5000801"
        part_of_it = [record["data"] for message in harness.queued() for record in message.records]
        assert 0 < len(part_of_it) < 1000
        assert harness.send("persons", body).status == 202
        assert [record["data"] for message in harness.queued() for record in message.records] == body["persons"]

    def test_accept_records_unexpected_error_is_answered_without_its_text(self, harness: Harness) -> None:
        with patch.object(harness.module.api, "_take", side_effect=ValueError("canary-value")):
            answer = harness.send("persons", PERSONS)
        assert answer.code == "5000801"
        assert "canary" not in answer.text + harness.log.getvalue()


class TestLogging:
    def test_accept_records_accepted_request_writes_one_log_line_and_one_metric(self, harness: Harness) -> None:
        body = {"persons": [{"email": "canary@example.com"}, {"email": "canary2@example.com"}]}
        answer = harness.send("persons", body, headers={"X-Correlation-Id": "nightly-7", "X-Request-Source": "export"})
        (line,) = [json.loads(text) for text in harness.log.getvalue().splitlines()]
        assert {
            name: line[name] for name in ("message", "request", "caller", "destination", "object", "count", "bytes")
        } == {
            "message": "records_accepted",
            "request": answer.headers["X-Request-Id"],
            "caller": f"private-integration:{harness.integration}",
            "destination": "marketo-main",
            "object": "persons",
            "count": 2,
            "bytes": len(json.dumps(body)),
        }
        assert line["headers"] == {"X-Correlation-Id": "nightly-7", "X-Request-Source": "export"}
        assert "canary" not in harness.log.getvalue()
        (metric,) = [json.loads(text) for text in harness.metrics.getvalue().splitlines()]
        assert metric["RecordsAccepted"] == [2.0]
        assert metric["service"] == "portaria"

    def test_accept_records_messages_of_one_integration_share_a_message_group(self, harness: Harness) -> None:
        sent: list[Any] = []
        call = BaseClient._make_api_call

        def note(client: Any, operation: str, parameters: Any) -> Any:
            sent.extend([parameters.get("MessageGroupId")] if operation == "SendMessage" else [])
            return call(client, operation, parameters)

        with patch.object(BaseClient, "_make_api_call", note):
            harness.send("persons", PERSONS)
        assert sent == [harness.integration]
