"""receive_events, called with API Gateway events. AWS is moto behind an endpoint on loopback."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from portaria.aws.service_clients import boto3_client as client
from portaria.connections import webhook_endpoints
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.platforms.leadconnector import events as leadconnector
from portaria.webhooks import event_receiver
from tests.fakes.aws.endpoint import Endpoint, aws_endpoint
from tests.fakes.aws.functions import load, sample
from tests.fakes.aws.moto_cloud import Cloud, cloud

KOMMO, APP, WORKFLOW = "kommo_contact_updated", "leadconnector_app", "leadconnector_workflow"
KEY, HEADER = (Secret(sample("receive_events", WORKFLOW)["pathParameters"]["key"]),
               Secret(sample("receive_events", WORKFLOW)["headers"]["X-Portaria-Secret"]))  # fmt: skip
FORM = "application/x-www-form-urlencoded"
ACCOUNT = "32427762"
GRANTED_AT = "2026-01-01T00:00:00.000Z"
ACME = Connection("kommo-crm-32427762", "kommo", "oauth2", "acme.kommo.com", "connected", 1, "s", account_id=ACCOUNT,
                  client="crm", granted_at=GRANTED_AT)  # fmt: skip
MARKETEK = Connection("marketek", "leadconnector", "bearer", "services.leadconnectorhq.com", "connected", 1, "s",
                      fields={"location_id": "ve9EPM428h8vShlRW1KT"}, granted_at=GRANTED_AT)  # fmt: skip

pytestmark = pytest.mark.enable_socket


class Function:
    """receive_events with its AWS resources."""

    def __init__(self, aws: Cloud, endpoint: Endpoint) -> None:
        self.aws = aws
        self.endpoint = endpoint
        self.handler = load("receive_events", aws.environment | {"AWS_ENDPOINT_URL": endpoint.url})

    def post(
        self,
        name: str,
        *,
        body: str | bytes | None = None,
        path: dict[str, str] | None = None,
        headers: dict[str, str | None] | None = None,
        method: str = "POST",
        spent_s: float = 0.1,
    ) -> dict[str, Any]:
        """Call with one of the sample events. A body of bytes is sent in base64; a header that is None is left out."""
        event = sample("receive_events", name)
        event["httpMethod"] = method
        event["pathParameters"] |= path or {}
        for header, value in (headers or {}).items():
            event["multiValueHeaders"].pop(header, None)
            event["multiValueHeaders"] |= {} if value is None else {header: [value]}
        if body is not None:
            event["body"] = base64.b64encode(body).decode() if isinstance(body, bytes) else body
            event["isBase64Encoded"] = isinstance(body, bytes)
        event["requestContext"]["requestTimeEpoch"] = int((time.time() - spent_s) * 1000)
        answer: dict[str, Any] = self.handler.handler(event, None)
        return answer

    def queued(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.aws.receive("records")]

    def keys(self) -> list[str]:
        return [record["key"] for message in self.queued() for record in message["records"]]


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


@pytest.fixture
def function(aws: Cloud) -> Iterator[Function]:
    webhook_endpoints.open_address(aws.table, ACME, KEY)
    webhook_endpoints.open_address(aws.table, MARKETEK, KEY, HEADER)
    with aws_endpoint() as endpoint:
        made = Function(aws, endpoint)
        yield made
        made.handler.receiver._sqs.close()
        made.handler.receiver._table.close()
    aws.receive("records")
    dynamodb = client("dynamodb")
    for item in dynamodb.scan(TableName=aws.table.name)["Items"]:
        dynamodb.delete_item(TableName=aws.table.name, Key={name: item[name] for name in ("pk", "sk")})


@pytest.fixture
def platform_key(monkeypatch: pytest.MonkeyPatch) -> Ed25519PrivateKey:
    """Replace LeadConnector's public key with a test key."""
    private = Ed25519PrivateKey.generate()
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    monkeypatch.setattr(leadconnector, "PUBLIC_KEY", base64.b64encode(spki).decode())
    return private


def signed(private: Ed25519PrivateKey, **changes: Any) -> dict[str, Any]:
    """The body and the header of an app webhook that is sent now."""
    event = json.loads(sample("receive_events", APP)["body"]) | {"timestamp": datetime.now(UTC).isoformat()} | changes
    body = json.dumps(event, ensure_ascii=False)
    return {"body": body, "headers": {"X-GHL-Signature": base64.b64encode(private.sign(body.encode())).decode()}}


def form(*, account: str = ACCOUNT, count: int = 1, **more: str) -> str:
    """An update of contacts: account[id] and four keys for each contact."""
    pairs = {"account[id]": account}
    for number in range(count):
        each = f"contacts[update][{number}]"
        pairs |= {f"{each}[id]": str(number + 1), f"{each}[name]": "N", f"{each}[updated_at]": "1732271999"}
        pairs[f"{each}[type]"] = "contact"
    return urlencode(pairs | more)


def metrics(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    lines = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if "_aws" in line]
    names = [
        (line, directive["Metrics"][0]["Name"]) for line in lines for directive in line["_aws"]["CloudWatchMetrics"]
    ]
    return {name: line[name] for line, name in names}


class TestKommo:
    def test_receive_events_kommo_contact_is_queued_in_api_form(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        answer = function.post(KOMMO)

        assert (answer["statusCode"], answer["body"]) == (200, "{}")
        [message] = function.queued()
        assert abs(message.pop("read_at") / 1000 - time.time()) < 60
        [record] = message.pop("records")
        assert message == {
            "version": 1, "connection": ACME.name, "object": "contacts", "origin": "event", "route": "", "request": "",
        }  # fmt: skip
        assert (record["key"], record["updated_at"], record["data"]["name"]) == ("37054081", 1732271999, "Maria Souza")
        assert record["data"]["custom_fields_values"][1]["values"][0]["value"] == "maria@example.com"
        assert metrics(capsys) == {"EventsReceived": 1}

    def test_receive_events_kommo_log_names_connection_and_no_event_data(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        function.post(KOMMO)
        text = capsys.readouterr().out
        line = json.loads(text.splitlines()[0])
        assert (line["connection"], line["records"]) == (ACME.name, 1)
        assert line["request"]
        for secret in (KEY.reveal(), event_receiver.digest(KEY.reveal()), "Maria", "maria@example.com", "37054081"):
            assert secret not in text

    def test_receive_events_kommo_company_and_contacts_are_queued_separately(self, function: Function) -> None:
        more = {"contacts[add][0][id]": "9", "contacts[add][0][name]": "C", "contacts[add][0][type]": "company"}
        assert function.post(KOMMO, body=form(count=2, **more))["statusCode"] == 200
        found = {message["object"]: [each["key"] for each in message["records"]] for message in function.queued()}
        assert found == {"contacts": ["1", "2"], "companies": ["9"]}

    def test_receive_events_kommo_unsupported_event_is_counted_as_ignored(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert function.post("kommo_contact_deleted")["statusCode"] == 200
        assert metrics(capsys) == {"EventsIgnored": 1}
        assert function.post(KOMMO, body=form(count=0, **{"leads[add][0][id]": "1"}))["statusCode"] == 200
        assert metrics(capsys) == {"EventsIgnored": 1}
        assert function.queued() == []

    def test_receive_events_kommo_event_of_another_account_is_ignored(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        link = "&account[_links][self]=https%3A%2F%2Facme.kommo.com&account[subdomain]=acme"
        assert function.post(KOMMO, body=form(account="99") + link)["statusCode"] == 200
        assert metrics(capsys) == {"EventsIgnored": 1}
        assert function.queued() == []

    def test_receive_events_kommo_more_than_5000_keys_are_refused(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        padding = "&x=" * 3
        assert function.post(KOMMO, body=form(count=1249) + padding)["statusCode"] == 200
        assert len(function.keys()) == 1249
        capsys.readouterr()
        assert function.post(KOMMO, body=form(count=1249) + padding + "&x=")["statusCode"] == 413
        assert metrics(capsys) == {"EventsRefused": 1}
        assert function.queued() == []

    def test_receive_events_kommo_body_over_size_limit_is_refused(self, function: Function) -> None:
        body = form(padding="")
        room = event_receiver.MAX_BODY_BYTES - len(body)
        for text in (body + "x" * room, (body + "x" * room).encode()):
            assert function.post(KOMMO, body=text)["statusCode"] == 200
            assert function.keys() == ["1"]
            longer = text + "x" if isinstance(text, str) else text + b"x"
            assert function.post(KOMMO, body=longer)["statusCode"] == 413
        assert function.post(KOMMO, body="é" * 600_000)["statusCode"] == 413
        assert function.queued() == []

    def test_receive_events_kommo_large_delivery_is_split_into_messages(self, function: Function) -> None:
        more = {f"contacts[update][{number}][note]": "x" * 3_000 for number in range(250)}
        assert function.post(KOMMO, body=form(count=250, **more))["statusCode"] == 200
        bodies = function.aws.receive("records")
        assert len(bodies) > 1
        assert max(map(len, bodies)) <= 240_000
        keys = [record["key"] for body in bodies for record in json.loads(body)["records"]]
        assert keys == [str(number + 1) for number in range(250)]

    @pytest.mark.parametrize("text", ["%FF%FEMaria", "Maria\ud800"], ids=["percent-encoded", "half a pair"])
    def test_receive_events_kommo_invalid_utf8_is_replaced_and_counted(
        self, function: Function, capsys: pytest.CaptureFixture[str], text: str
    ) -> None:
        body = form(count=1) + f"&contacts[update][0][last_name]={text}"
        sent = body if "%FF" in text else body.encode("utf-8", "surrogatepass")
        assert function.post(KOMMO, body=sent)["statusCode"] == 200
        [message] = function.queued()
        last_name = message["records"][0]["data"]["last_name"]
        assert "\ufffd" in last_name
        assert "Maria" in last_name
        assert metrics(capsys) == {"EventsReceived": 1, "EventsMended": 1}

    @pytest.mark.parametrize(
        ("body", "content_type", "status"),
        [
            ('{"account":{"id":1}}', "application/json", 415),
            (form(), "text/plain", 415),
            (form(), None, 415),
            (form(), "multipart/form-data; boundary=x", 415),
            ('{"account":{"id":1}}', FORM, 400),
            ("", FORM, 400),
            ("&&&===&[[]]&account[id", FORM, 400),
            ("account[id][x]=1", FORM, 400),
            (form() + "&a" + "[b]" * 100_000 + "=1", FORM, 400),
            (form() + "&a" + "[" * 300_000 + "=1", FORM, 200),
        ],
    )
    def test_receive_events_kommo_invalid_delivery_is_refused(
        self, function: Function, body: str, content_type: str | None, status: int
    ) -> None:
        started = time.process_time()
        assert function.post(KOMMO, body=body, headers={"Content-Type": content_type})["statusCode"] == status
        assert time.process_time() - started < 1
        assert bool(function.queued()) == (status == 200)

    def test_receive_events_kommo_invalid_base64_is_refused(self, function: Function) -> None:
        event = sample("receive_events", KOMMO) | {"isBase64Encoded": True}
        assert function.handler.handler(event, None)["statusCode"] == 400

    @pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
    def test_receive_events_kommo_method_other_than_post_is_refused(self, function: Function, method: str) -> None:
        assert function.post(KOMMO, method=method)["statusCode"] == 405
        assert function.endpoint.calls == []


class TestEventKey:
    STRANGERS = (
        {"key": "A" * 43},
        {"key": KEY.reveal()[:-1] + "x"},
        {"connection": "kommo-crm-1"},
        {"connection": MARKETEK.name},
        {"platform": "leadconnector"},
        {"platform": "hubspot"},
        {"key": ""},
        {"key": "a" * 5_000},
        {"key": KEY.reveal() + "\n"},
        {"connection": "../x"},
        {"connection": "é" * 10},
        {"connection": ""},
    )

    @pytest.mark.parametrize("path", STRANGERS)
    def test_receive_events_unknown_address_is_not_found_without_details(
        self, function: Function, capsys: pytest.CaptureFixture[str], path: dict[str, str]
    ) -> None:
        answer = function.post(KOMMO, path=path)
        text = capsys.readouterr().out
        assert (answer["statusCode"], answer["body"]) == (404, '{"error":"unknown_address"}')
        assert answer["headers"] == function.handler.HEADERS
        assert function.queued() == []
        assert '"EventsRefused": 1' in text
        assert path.get("key") is None or len(path["key"]) < 40 or path["key"] not in text

    def test_receive_events_wrong_key_costs_same_read_as_unknown_connection(self, function: Function) -> None:
        function.post(KOMMO)
        for path in self.STRANGERS[:3]:
            function.endpoint.calls.clear()
            function.post(KOMMO, path=path)
            assert function.endpoint.operations() == ["dynamodb.GetItem"]

    def test_receive_events_key_is_stored_only_as_hash(self, function: Function) -> None:
        stored = json.dumps(client("dynamodb").scan(TableName=function.aws.table.name)["Items"])
        assert KEY.reveal() not in stored
        assert HEADER.reveal() not in stored
        assert event_receiver.digest(KEY.reveal()) in stored

    def test_receive_events_address_is_cached_until_it_expires(
        self, function: Function, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(3):
            function.post(KOMMO)
        assert function.endpoint.operations() == ["dynamodb.GetItem", *["sqs.SendMessage"] * 3]
        monkeypatch.setattr(event_receiver, "REMEMBERED_S", 0)
        function.handler.receiver._addresses.clear()
        function.endpoint.calls.clear()
        for _ in range(2):
            function.post(KOMMO)
        assert function.endpoint.operations() == ["dynamodb.GetItem", "sqs.SendMessage"] * 2

    def test_open_address_new_key_works_at_once_and_old_key_for_an_hour(
        self, function: Function, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        function.post(KOMMO)
        fresh = Secret("canary-fresh-key-0123456789abcdefghijklmnop")
        webhook_endpoints.open_address(function.aws.table, ACME, fresh)
        assert function.post(KOMMO, path={"key": fresh.reveal()})["statusCode"] == 200
        assert function.post(KOMMO)["statusCode"] == 200
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + webhook_endpoints.OVERLAP_S - 5)
        assert function.post(KOMMO)["statusCode"] == 200
        monkeypatch.setattr(time, "time", lambda: now + webhook_endpoints.OVERLAP_S + 5)
        assert function.post(KOMMO)["statusCode"] == 404
        assert function.post(KOMMO, path={"key": fresh.reveal()})["statusCode"] == 200

    def test_open_address_twice_within_an_hour_keeps_first_key(self, function: Function) -> None:
        for number in range(2):
            webhook_endpoints.open_address(function.aws.table, ACME, Secret(f"canary-{number}" + "x" * 32))
        assert function.post(KOMMO)["statusCode"] == 200

    def test_open_address_same_key_changes_nothing(self, function: Function) -> None:
        table = function.aws.table
        before = table.get(event_receiver.partition(ACME.name), event_receiver.SK)
        assert webhook_endpoints.open_address(table, ACME, KEY)
        assert table.get(event_receiver.partition(ACME.name), event_receiver.SK) == before

    def test_open_and_close_address_of_earlier_grant_change_nothing(self, function: Function) -> None:
        earlier = clock.to_iso(clock.from_iso(GRANTED_AT) - timedelta(hours=1))
        late = Connection(**{**ACME.__dict__, "granted_at": earlier})
        assert not webhook_endpoints.open_address(function.aws.table, late, Secret("canary-late" + "x" * 32))
        webhook_endpoints.close_address(function.aws.table, late)
        assert function.post(KOMMO)["statusCode"] == 200
        assert function.post(KOMMO, path={"key": "canary-late" + "x" * 32})["statusCode"] == 404

    def test_close_address_refuses_events_until_opened_again(self, function: Function) -> None:
        table = function.aws.table
        webhook_endpoints.close_address(table, ACME)
        webhook_endpoints.close_address(table, ACME)
        assert function.post(KOMMO)["statusCode"] == 404
        assert webhook_endpoints.open_address(table, ACME, KEY)
        assert function.post(KOMMO)["statusCode"] == 200
        item = table.get(event_receiver.partition(ACME.name), event_receiver.SK)
        assert item
        assert "expires_at" not in item


class TestLeadConnector:
    def test_leadconnector_public_key_is_an_ed25519_key(self) -> None:
        der = base64.b64decode(leadconnector.PUBLIC_KEY)
        assert der[:-32] == bytes.fromhex("302a300506032b6570032100")

    def test_receive_events_leadconnector_signed_contact_is_queued(
        self, function: Function, platform_key: Ed25519PrivateKey
    ) -> None:
        assert function.post(APP, **signed(platform_key, lastName="Conceição"))["statusCode"] == 200
        [message] = function.queued()
        assert (message["connection"], message["object"]) == ("marketek", "contacts")
        assert message["records"][0]["data"]["lastName"] == "Conceição"

    def test_receive_events_leadconnector_duplicate_delivery_is_queued_once(
        self, function: Function, platform_key: Ed25519PrivateKey, capsys: pytest.CaptureFixture[str]
    ) -> None:
        delivery = signed(platform_key)
        assert [function.post(APP, **delivery)["statusCode"] for _ in range(3)] == [200] * 3
        assert len(function.keys()) == 1
        assert metrics(capsys) == {"EventsReceived": 1, "EventsIgnored": 1}
        # Another change of the same contact is not a duplicate.
        assert function.post(APP, **signed(platform_key, webhookId="another"))["statusCode"] == 200
        assert len(function.keys()) == 1

    def test_receive_events_leadconnector_delivery_after_queue_failure_is_queued(
        self, function: Function, platform_key: Ed25519PrivateKey
    ) -> None:
        delivery = signed(platform_key)
        function.endpoint.faults["sqs"] = "InternalError"
        assert function.post(APP, **delivery)["statusCode"] == 429
        function.endpoint.faults.clear()
        assert function.post(APP, **delivery)["statusCode"] == 200
        assert len(function.keys()) == 1

    def test_receive_events_leadconnector_delivery_id_is_stored_for_a_day(
        self, function: Function, platform_key: Ed25519PrivateKey
    ) -> None:
        function.post(APP, **signed(platform_key))
        [put] = [call.payload["Item"] for call in function.endpoint.calls if call.operation == "PutItem"]
        assert 86_300 < int(put["expires_at"]["N"]) - time.time() <= 86_400

    @pytest.mark.parametrize("operation", ["dynamodb.PutItem", "dynamodb.GetItem"])
    def test_receive_events_leadconnector_duplicate_check_failure_still_queues(
        self, function: Function, platform_key: Ed25519PrivateKey, operation: str
    ) -> None:
        function.post(WORKFLOW)
        assert len(function.keys()) == 1
        function.endpoint.faults[operation] = "InternalServerError"
        assert function.post(APP, **signed(platform_key))["statusCode"] == 200
        assert len(function.keys()) == 1

    def test_receive_events_leadconnector_each_authentication_header_has_its_status(
        self, function: Function, platform_key: Ed25519PrivateKey
    ) -> None:
        delivery = signed(platform_key)
        good, body = delivery["headers"]["X-GHL-Signature"], delivery["body"]
        cases: tuple[tuple[dict[str, str | None], int], ...] = (
            ({"X-GHL-Signature": None}, 401),
            ({"X-GHL-Signature": None, "X-WH-Signature": good}, 401),
            ({"X-GHL-Signature": ""}, 401),
            ({"X-GHL-Signature": "A" * 86 + "=="}, 401),
            ({"X-GHL-Signature": f"{good}, {good}"}, 401),
            # A signature decides, whatever else the request contains.
            ({"X-GHL-Signature": "A" * 86 + "==", "X-Portaria-Secret": HEADER.reveal()}, 401),
            ({"X-GHL-Signature": None, "X-Portaria-Secret": ""}, 401),
            ({"X-GHL-Signature": None, "X-Portaria-Secret": HEADER.reveal()[:-1]}, 401),
            ({"X-GHL-Signature": None, "X-Portaria-Secret": KEY.reveal()}, 401),
            ({"X-GHL-Signature": None, "X-Portaria-Secret": HEADER.reveal()}, 200),
            ({"X-GHL-Signature": good}, 200),
        )
        for headers, status in cases:
            assert function.post(APP, body=body, headers=headers)["statusCode"] == status, headers
        assert len(function.queued()) == 2

    def test_receive_events_leadconnector_changed_body_is_refused(
        self, function: Function, platform_key: Ed25519PrivateKey
    ) -> None:
        delivery = signed(platform_key)
        assert function.post(APP, body=delivery["body"] + " ", headers=delivery["headers"])["statusCode"] == 401
        as_bytes = delivery["body"].encode()
        assert function.post(APP, body=as_bytes, headers=delivery["headers"])["statusCode"] == 200

    @pytest.mark.parametrize(("minutes", "status"), [(-125, 401), (-115, 200), (4, 200), (6, 401)])
    def test_receive_events_leadconnector_old_or_future_timestamp_is_refused(
        self, function: Function, platform_key: Ed25519PrivateKey, minutes: int, status: int
    ) -> None:
        moment = datetime.now(UTC) + timedelta(minutes=minutes)
        for text in (moment.isoformat(), int(moment.timestamp() * 1000)):
            delivery = signed(platform_key, timestamp=text, webhookId=str(text))
            assert function.post(APP, **delivery)["statusCode"] == status

    def test_receive_events_leadconnector_secret_of_another_key_is_refused(self, function: Function) -> None:
        fresh, other = Secret("canary-fresh-key-0123456789abcdefghijklmnop"), Secret("canary-other-header")
        webhook_endpoints.open_address(function.aws.table, MARKETEK, fresh, other)
        for key, header, status in ((KEY, HEADER, 200), (fresh, other, 200), (KEY, other, 401), (fresh, HEADER, 401)):
            headers: dict[str, str | None] = {"X-Portaria-Secret": header.reveal()}
            answer = function.post(WORKFLOW, path={"key": key.reveal()}, headers=headers)
            assert answer["statusCode"] == status

    @pytest.mark.parametrize(
        "body",
        ["", "[]", "null", '"x"', "{", "{" * 50_000, '{"a":' * 50_000, "[" * 50_000, '{"id":NaN}', '{"id":"a","x":1e999}',
         b"\xff\xfe", b'{"id":"\xff"}', "9" * 6_000],
        ids=lambda body: str(body)[:12],
    )  # fmt: skip
    def test_receive_events_leadconnector_invalid_json_is_refused(self, function: Function, body: str | bytes) -> None:
        status = function.post(WORKFLOW, body=body)["statusCode"]
        assert status == (200 if "1e999" in str(body) else 400)

    def test_receive_events_leadconnector_event_of_another_location_is_ignored(
        self, function: Function, platform_key: Ed25519PrivateKey, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert function.post(APP, **signed(platform_key, locationId="other"))["statusCode"] == 200
        assert metrics(capsys) == {"EventsIgnored": 1}
        assert function.queued() == []


class TestAwsFailures:
    @pytest.mark.parametrize("fault", ["drop", "InternalError", "RequestThrottled", "AccessDenied", "drop_after"])
    @pytest.mark.parametrize(("name", "status"), [(KOMMO, 503), (WORKFLOW, 429)])
    def test_receive_events_queue_failure_is_not_acknowledged(
        self, function: Function, fault: str, name: str, status: int
    ) -> None:
        function.endpoint.faults["sqs"] = fault
        answer = function.post(name)
        assert answer["statusCode"] == status
        assert answer["headers"]["Retry-After"]

    def test_receive_events_table_failure_is_not_acknowledged(self, function: Function) -> None:
        function.endpoint.faults["dynamodb"] = "InternalServerError"
        assert function.post(KOMMO)["statusCode"] == 503
        assert function.post(WORKFLOW)["statusCode"] == 429
        assert function.queued() == []

    def test_receive_events_queue_and_table_hang_answers_503_within_two_seconds(self, function: Function) -> None:
        function.post(KOMMO)
        function.endpoint.faults |= {"sqs": "hang", "dynamodb": "hang"}
        function.handler.receiver._addresses.clear()
        started = time.monotonic()
        assert function.post(KOMMO, spent_s=0.4)["statusCode"] == 503
        assert time.monotonic() - started < 1.4

    def test_receive_events_second_message_fails_is_queued_completely_when_resent(self, function: Function) -> None:
        more = {f"contacts[update][{number}][note]": "x" * 3_000 for number in range(150)}
        sent = event_receiver.EventReceiver._send
        bodies: list[str] = []

        def send(reception: Any, body: str, connection: str, budget: Any) -> None:
            bodies.append(body)
            if len(bodies) == 2:
                function.endpoint.faults["sqs"] = "InternalError"
            sent(reception, body, connection, budget)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(event_receiver.EventReceiver, "_send", send)
            assert function.post(KOMMO, body=form(count=150, **more))["statusCode"] == 503
        function.endpoint.faults.clear()
        assert function.post(KOMMO, body=form(count=150, **more))["statusCode"] == 200
        assert set(function.keys()) == {str(number + 1) for number in range(150)}


def test_receive_events_of_one_connection_share_a_message_group(function: Function) -> None:
    function.post(KOMMO)
    [call] = [call for call in function.endpoint.calls if call.operation == "SendMessage"]
    assert call.payload["MessageGroupId"] == ACME.name
