"""Adobe's reports about requests, delivered over HTTP as Adobe does, and the receipts that result."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
import responses
from botocore.exceptions import EndpointConnectionError

from portaria import platforms
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.records import delivery_reports, receipt_search, receipts
from tests.fakes.api.manage import empty
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.platforms import adobe as adobe_events
from tests.fakes.platforms.adobe import (
    CLIENT_ID,
    KEY_PATH,
    KEYS,
    MUNCHKIN,
    TYPE,
    pem,
    private_key,
    request,
    results,
    signed,
    wrapped,
)

VALIDATE = "https://csm.adobe.io/csm/registrations/validate?id=1&challenge=2"
RECEIPT = "0" * 40


@pytest.fixture
def stack(shared: Cloud) -> Iterator[Cloud]:
    delivery_reports._keys.clear()
    delivery_reports._fetches.clear()
    connection_store.create(
        shared.table,
        Connection(
            "marketo-main", "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", "connected", 1, "secret",
            account_id=MUNCHKIN,
        ),
    )  # fmt: skip
    yield shared
    empty()


@pytest.fixture
def adobe() -> Iterator[responses.RequestsMock]:
    """The two hosts that may be called, and no other."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        adobe_events.keep_keys(mock)
        yield mock


class Harness:
    """The registered endpoint."""

    def __init__(self, cloud: Cloud, client_id: str = CLIENT_ID) -> None:
        self.table = cloud.table
        self.module = functions.load("track_receipts", cloud.environment | {"ADOBE_CLIENT_ID": client_id})

    def deliver(self, content: Any, headers: dict[str, str] | None = None, **changes: Any) -> tuple[int, str]:
        """A POST, signed as Adobe signs unless `headers` differ."""
        body = content if isinstance(content, str) else json.dumps(content)
        return self.call("POST", body, signed(body) if headers is None else headers, **changes)

    def call(self, method: str, body: str | None, headers: dict[str, str], **changes: Any) -> tuple[int, str]:
        event = adobe_events.call(method, body, headers) | changes
        answer = self.module.handler(event, functions.Context())
        assert answer["headers"]["X-Content-Type-Options"] == "nosniff"
        assert answer["headers"]["Content-Type"].startswith("text/plain")
        return answer["statusCode"], answer["body"]

    def state(self) -> tuple[str, int, dict[str, int]]:
        receipt = receipt_search.find(self.table, RECEIPT, clock.now())
        assert receipt
        return receipt.state, receipt.report.applied, receipt.report.failed


@pytest.fixture
def harness(stack: Cloud) -> Harness:
    receipts.open_receipt(
        stack.table, RECEIPT, destination="marketo-main", object="persons", routes=["people"], count=10, size=100,
        keys=["kommo-acme/1"], requests=[],
    )  # fmt: skip
    receipts.accept(stack.table, RECEIPT, "r-1")
    return Harness(stack)


class TestRegistration:
    def challenge(self, harness: Harness, **query: list[str]) -> tuple[int, str]:
        return harness.call("GET", None, {}, multiValueQueryStringParameters=query or None)

    def test_track_receipts_challenge_is_echoed(self, harness: Harness) -> None:
        assert self.challenge(harness, challenge=["8ec8d794-e0ab-42df-9017-e3dada8e84f7"]) == (
            200,
            "8ec8d794-e0ab-42df-9017-e3dada8e84f7",
        )

    @pytest.mark.parametrize("challenge", [[], [""], ["a", "b"], ["<script>"], ["a b"], ["x" * 201], ["a\nb"]])
    def test_track_receipts_invalid_challenge_is_refused_and_not_echoed(
        self, harness: Harness, challenge: list[str]
    ) -> None:
        status, text = self.challenge(harness, challenge=challenge)
        assert status == 400
        assert "<" not in text

    def test_track_receipts_validation_url_is_called_without_signature(
        self, harness: Harness, adobe: responses.RequestsMock
    ) -> None:
        adobe.get(VALIDATE, json={"ok": True})
        assert harness.deliver({"validationUrl": VALIDATE}, {})[0] == 200
        assert [call.request.url for call in adobe.calls] == [VALIDATE]

    @pytest.mark.parametrize(
        "url",
        [
            "https://csm.adobe.io.evil.example/csm/registrations/validate?x",
            "https://evil.example/csm/registrations/validate",
            "https://csm.adobe.io@evil.example/csm/registrations/validate",
            "https://csm.adobe.io:8443/csm/registrations/validate",
            "http://csm.adobe.io/csm/registrations/validate",
            "https://csm.adobe.io/csm/registrations/validate/../delete",
            "https://csm.adobe.io/csm/registrations",
            "https://csm.adobe.io\\@evil.example/csm/registrations/validate",
            "https://csm.adobe.io/csm/registrations/validate?" + "x" * 2_000,
            "https://[csm.adobe.io/csm/registrations/validate",
            17,
        ],
    )
    def test_track_receipts_foreign_validation_url_is_refused_without_request(
        self, harness: Harness, adobe: responses.RequestsMock, url: Any
    ) -> None:
        assert harness.deliver({"validationUrl": url}, {})[0] == 400
        assert len(adobe.calls) == 0

    def test_track_receipts_unsigned_validations_do_not_block_key_fetches(
        self, harness: Harness, adobe: responses.RequestsMock
    ) -> None:
        adobe.get("https://csm.adobe.io/csm/registrations/validate")
        validations = [
            harness.deliver({"validationUrl": VALIDATE}, {})[0] for _ in range(delivery_reports.MAX_FETCHES + 1)
        ]
        assert validations[-1] == 503
        assert harness.deliver([results("e-1", request())])[0] == 200

    def test_track_receipts_failed_validation_call_answers_503(
        self, harness: Harness, adobe: responses.RequestsMock
    ) -> None:
        adobe.get(VALIDATE, status=500)
        assert harness.deliver({"validationUrl": VALIDATE}, {})[0] == 503

    def test_track_receipts_validation_calls_are_rate_limited(
        self, harness: Harness, adobe: responses.RequestsMock
    ) -> None:
        adobe.get(VALIDATE)
        statuses = [
            harness.deliver({"validationUrl": VALIDATE}, {})[0] for _ in range(delivery_reports.MAX_FETCHES + 5)
        ]
        assert statuses.count(200) == len(adobe.calls) == delivery_reports.MAX_FETCHES
        assert statuses[-5:] == [503] * 5


class TestUnconfiguredClient:
    def test_track_receipts_without_client_id_is_not_found(self, stack: Cloud, adobe: responses.RequestsMock) -> None:
        harness = Harness(stack, delivery_reports.NONE_SET)
        assert harness.deliver(results())[0] == 404
        assert harness.deliver(results(recipientclientid=delivery_reports.NONE_SET))[0] == 404
        assert harness.deliver({"validationUrl": VALIDATE}, {})[0] == 404
        query = {"multiValueQueryStringParameters": {"challenge": ["x"]}}
        assert harness.call("GET", None, {}, **query)[0] == 404
        assert len(adobe.calls) == 0

    @pytest.mark.parametrize("platform", ["kommo", "nobody", "../marketo", ""])
    def test_track_receipts_other_platform_is_not_found(self, harness: Harness, platform: str) -> None:
        assert harness.deliver(results(), pathParameters={"platform": platform})[0] == 404


class TestSignatures:
    def test_track_receipts_one_of_two_valid_signatures_is_accepted(
        self, harness: Harness, adobe: responses.RequestsMock
    ) -> None:
        body = json.dumps(results())
        forged = signed(body, 1, by=private_key(2))
        assert harness.deliver(body, {**forged, **signed(body, 2)})[0] == 200
        assert harness.deliver(body, signed(body, 2))[0] == 200
        assert harness.deliver(body, {**signed(body, 1), **signed(body, 2, by=private_key(2))})[0] == 200

    @pytest.mark.parametrize(
        "path",
        [
            ".evil.example/x",
            "/prod/keys/../x",
            "/prod/keys/@evil.example/pub-key-1.pem",
            "@evil.example/prod/keys/pub-key-1.pem",
            "//evil.example/prod/keys/pub-key-1.pem",
            "/prod/keys/pub-key-1.pem\n.evil.example",
            "/prod/keys/pub-key-1.pem?x=.pem",
            "/prod/keys/pub-key-a/../../../b.pem",
            "/prod/keys/pub-key-%2e%2e.pem",
            "/prod/keys/pub-key-.pem.evil.example",
            "https://evil.example/prod/keys/pub-key-1.pem",
            "",
        ],
    )
    def test_track_receipts_forged_key_path_is_refused_without_request(
        self, harness: Harness, adobe: responses.RequestsMock, path: str
    ) -> None:
        adobe.get("https://static.adobeioevents.com.evil.example/x", body=pem(private_key(2)))
        body = json.dumps(results())
        assert harness.deliver(body, signed(body, path=path, by=private_key(2)))[0] == 401
        assert len(adobe.calls) == 0
        assert harness.state()[0] == "accepted"

    def test_track_receipts_changed_body_or_signature_is_refused(
        self, harness: Harness, adobe: responses.RequestsMock
    ) -> None:
        body = json.dumps(results())
        assert harness.deliver(body + " ", signed(body))[0] == 401
        assert harness.deliver(body, {})[0] == 401
        assert harness.deliver(body, {**signed(body), "x-adobe-digital-signature-1": "no base64!"})[0] == 401
        assert harness.state()[0] == "accepted"

    def test_track_receipts_repeated_signature_header_is_refused(
        self, harness: Harness, adobe: responses.RequestsMock
    ) -> None:
        body = json.dumps(results())
        headers = {name: [value, value] for name, value in signed(body).items()}
        assert harness.deliver(body, {}, multiValueHeaders=headers)[0] == 401

    def test_track_receipts_signature_covers_bytes_of_base64_body(
        self, harness: Harness, adobe: responses.RequestsMock
    ) -> None:
        body = json.dumps(results("e-ção"), ensure_ascii=False, indent=1)
        encoded = base64.b64encode(body.encode()).decode()
        assert harness.deliver(encoded, signed(body), isBase64Encoded=True)[0] == 200

    @pytest.mark.parametrize(
        ("answer", "status"),
        [
            ({"status": 404}, 401),
            ({"status": 403}, 401),
            ({"status": 500}, 503),
            ({"status": 429}, 503),
            ({"body": requests.exceptions.ConnectionError("canary")}, 503),
            ({"body": b"no key"}, 401),
            ({"body": b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"}, 401),
            ({"status": 302, "headers": {"Location": "https://evil.example/key.pem"}}, 401),
        ],
    )
    def test_track_receipts_key_unavailable_is_retryable_or_refused(
        self, harness: Harness, answer: dict[str, Any], status: int
    ) -> None:
        """The endpoint asks for another delivery of what may succeed later: any other answer would lose the event."""
        with responses.RequestsMock() as mock:
            mock.get(KEYS + KEY_PATH, **answer)
            assert harness.deliver(results())[0] == status
        assert harness.state()[0] == "accepted"

    def test_track_receipts_short_key_is_refused(self, harness: Harness) -> None:
        short = private_key(3, 1024)
        body = json.dumps(results())
        with responses.RequestsMock() as mock:
            mock.get(KEYS + KEY_PATH, body=pem(short))
            assert harness.deliver(body, signed(body, by=short))[0] == 401

    def test_track_receipts_key_is_fetched_once_a_day(
        self, harness: Harness, adobe: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(3):
            assert harness.deliver(results(f"e-{number}"))[0] == 200
        assert len(adobe.calls) == 1
        later = clock.now() + timedelta(hours=24, seconds=1)
        monkeypatch.setattr(clock, "now", lambda: later)
        assert harness.deliver(results("e-9"))[0] == 200
        assert len(adobe.calls) == 2

    def test_track_receipts_withdrawn_key_is_refused_after_a_day(
        self, harness: Harness, adobe: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert harness.deliver(results())[0] == 200
        adobe.replace(responses.GET, KEYS + KEY_PATH, status=404)
        assert harness.deliver(results("e-2"))[0] == 200
        later = clock.now() + timedelta(hours=24, seconds=1)
        monkeypatch.setattr(clock, "now", lambda: later)
        assert harness.deliver(results("e-3"))[0] == 401

    def test_track_receipts_key_cache_is_limited(self, harness: Harness, adobe: responses.RequestsMock) -> None:
        for number in range(delivery_reports.MAX_KEYS + 3):
            path = f"/prod/keys/pub-key-{number}.pem"
            adobe.get(KEYS + path, body=pem(private_key()))
            body = json.dumps(results(f"e-{number}"))
            assert harness.deliver(body, signed(body, path=path))[0] == 200
        assert len(delivery_reports._keys) == delivery_reports.MAX_KEYS


class TestRecipient:
    @pytest.mark.parametrize("shape", [lambda event: event, wrapped])
    def test_track_receipts_event_of_another_client_is_refused_without_key_fetch(
        self, harness: Harness, adobe: responses.RequestsMock, shape: Any
    ) -> None:
        assert harness.deliver([shape(results()), shape(results("e-2", recipientclientid="another"))])[0] == 403
        assert len(adobe.calls) == 0
        assert harness.state()[0] == "accepted"

    def test_track_receipts_event_without_client_id_is_refused(
        self, harness: Harness, adobe: responses.RequestsMock
    ) -> None:
        """The header is not signed: otherwise an event that was signed for another recipient would pass for ours."""
        event = results()
        del event["recipientclientid"]
        body = json.dumps(event)
        assert harness.deliver(body, {**signed(body), "recipientclientid": CLIENT_ID})[0] == 403

    def test_track_receipts_client_id_header_that_differs_is_refused(
        self, harness: Harness, adobe: responses.RequestsMock
    ) -> None:
        body = json.dumps(results())
        assert harness.deliver(body, {**signed(body), "RecipientClientId": "another"})[0] == 403
        assert harness.deliver(body, {**signed(body), "RecipientClientId": CLIENT_ID})[0] == 200


@pytest.mark.usefixtures("adobe")
class TestResults:
    @pytest.mark.parametrize(
        "shape", [lambda event: event, lambda event: [event], wrapped, lambda event: [wrapped(event)]]
    )
    def test_track_receipts_both_event_forms_are_applied(self, harness: Harness, shape: Any) -> None:
        assert harness.deliver(shape(results())) == (200, "stored\n")
        assert harness.state() == ("applied", 10, {})

    def test_track_receipts_duplicate_event_is_counted_once(self, harness: Harness) -> None:
        event = results("e-1", request(created=5))
        assert harness.deliver([event, wrapped(event), event])[0] == 200
        assert harness.deliver(event)[0] == 200
        assert harness.state() == ("accepted", 5, {})

    def test_track_receipts_unordered_events_of_one_request_are_added(self, harness: Harness) -> None:
        assert harness.deliver([results("e-2", request(created=4, failed={"503": 1}))])[0] == 200
        assert (
            harness.deliver(
                [results("e-1", request(created=3)), results("e-3", request(created=1, failed={"404": 1}))]
            )[0]
            == 200
        )
        assert harness.state() == ("failed", 8, {"404": 1, "503": 1})

    def test_track_receipts_request_named_twice_in_one_event_is_added(self, harness: Harness) -> None:
        parts = [request(created=4, failed={"503": 1}), request(created=3, failed={"503": 1, "7": 1})]
        assert harness.deliver(results("e-1", *parts))[0] == 200
        assert harness.state() == ("failed", 7, {"503": 2, "7": 1})

    def test_track_receipts_updated_records_count_as_applied(self, harness: Harness) -> None:
        records = {"received": 10, "created": 4, "updated": 6}
        assert harness.deliver(results("e-1", request(records=records)))[0] == 200
        assert harness.state() == ("applied", 10, {})

    def test_track_receipts_event_of_another_subscription_is_not_stored(
        self, harness: Harness, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert harness.deliver([results(munchkin="999-XYZ-999"), results("e-2", munchkin="123-abc-456")])[0] == 200
        assert harness.state() == ("applied", 10, {})
        printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {line["RequestsReported"][0] for line in printed if "RequestsReported" in line} == {1.0}
        assert not list(harness.table.query_all("REPORT#999-XYZ-999#r-1"))

    def test_track_receipts_status_and_metrics_events_emit_metrics_only(
        self, harness: Harness, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status = results("e-1", type=f"{TYPE}status", data={"munchkinId": MUNCHKIN, "quota": 9_000_000})
        lower = results("e-2", type=f"{TYPE}status", data={"munchkinId": MUNCHKIN, "quota": 8_000_000})
        foreign = results("e-3", type=f"{TYPE}status", data={"munchkinId": "999-XYZ-999", "quota": 1})
        metrics = results("e-4", type=f"{TYPE}metrics", data={"munchkinId": MUNCHKIN, "requests": {"received": 1}})
        assert harness.deliver([status, lower, foreign, metrics])[0] == 200
        assert harness.state()[0] == "accepted"
        printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["QuotaRemaining"] for line in printed if "QuotaRemaining" in line] == [[8_000_000.0]]

    def test_track_receipts_unreadable_events_do_not_block_others(self, harness: Harness) -> None:
        odd: list[Any] = [
            None, 7, {"requestId": 7}, {"requestId": "x y", "records": {}}, {"requestId": "r-2"},
            request("r-3", created=-5, failed=[1]), request("r-4", created="many", failed={"a b": 1, "c" * 99: 2}),
        ]  # fmt: skip
        strange = [
            results("e-2", type="com.adobe.other"), results("e-3", data=None), results("e-4", data={"munchkinId": 7}),
            results("e-5", id=None), results("e-6", event={"body": "text"}),
            results("e-7", data={"munchkinId": MUNCHKIN, "requests": 9}),
            results("e-8", time=17),
        ]  # fmt: skip
        assert harness.deliver([*strange, results("e-1", *odd, request())])[0] == 200
        assert harness.state()[0] in ("applied", "failed")
        (other,) = harness.table.query_all(f"REPORT#{MUNCHKIN}#r-4")
        assert other["failed#other"] == 3

    def test_track_receipts_large_delivery_is_stored_completely(self, harness: Harness) -> None:
        assert harness.deliver(results("e-1", *(request(f"r-{number}") for number in range(60))))[0] == 200
        for number in range(60):
            assert list(harness.table.query_all(f"REPORT#{MUNCHKIN}#r-{number}"))

    @pytest.mark.parametrize("content", ["", "{", "7", "[]", "[7]", "null", "[" * 100_000, [results()] * 101])
    def test_track_receipts_invalid_delivery_is_refused(self, harness: Harness, content: Any) -> None:
        assert harness.deliver(content)[0] == 400

    def test_track_receipts_body_over_2_megabytes_is_refused(self, harness: Harness) -> None:
        event = json.dumps(results())
        assert harness.deliver(event + " " * (2_000_000 - len(event)))[0] == 200
        assert harness.deliver(event + " " * (2_000_001 - len(event)))[0] == 413

    def test_track_receipts_storage_failure_is_completed_by_redelivery_and_counted_once(
        self, harness: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given a half stored delivery when storage fails, then the next delivery completes it, and nothing counts twice."""
        update, left = Table.update, [1]

        def failing(table: Table, *arguments: Any, **options: Any) -> Any:
            if not left[0]:
                raise EndpointConnectionError(endpoint_url="https://dynamodb.us-east-1.amazonaws.com")
            left[0] -= 1
            return update(table, *arguments, **options)

        events = [results("e-1", request(created=4)), results("e-2", request(created=6))]
        monkeypatch.setattr(Table, "update", failing)
        assert harness.deliver(events)[0] == 503
        monkeypatch.undo()
        assert harness.state()[:2] == ("accepted", 4)
        assert harness.deliver(events)[0] == 200
        assert harness.state()[:2] == ("applied", 10)


@pytest.mark.parametrize("name", ["challenge", "validation", "batch"])
def test_track_receipts_sample_event_is_answered(stack: Cloud, adobe: responses.RequestsMock, name: str) -> None:
    adobe.get("https://csm.adobe.io/csm/registrations/validate")
    event = functions.sample("track_receipts", name)
    expected = {"challenge": 200, "validation": 200, "batch": 401}[name]
    module = Harness(stack).module
    assert module.handler(event, functions.Context())["statusCode"] == expected


def test_delivery_reports_are_offered_by_marketo() -> None:
    reports = platforms.load("marketo").delivery_reports
    assert reports
    assert reports.KEYS_DOMAIN == "static.adobeioevents.com"
