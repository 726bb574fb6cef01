"""The three routes of accept_install, called as API Gateway calls them; AWS is moto behind a loopback endpoint."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from portaria import arrivals, clock
from portaria.aws import client
from portaria.contract import OAuthClient, Secret
from portaria.oauth_clients import put
from tests.fakes.aws import Cloud, cloud
from tests.fakes.aws_endpoint import Endpoint, aws_endpoint

ROOT = Path(__file__).resolve().parent.parent.parent
HANDLER = ROOT / "functions" / "accept_install" / "handler.py"
EVENTS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in (ROOT / "events" / "accept_install").glob("*.json")
}
CODE = EVENTS["widget_hook"]["multiValueQueryStringParameters"]["code"][0]
INSTALL = arrivals.install_id("kommo", "crm", Secret(CODE))
HTML = {"Accept": ["text/html"]}


def load_handler(endpoint_url: str, **environment: str) -> Any:
    """A fresh copy of the function, as a cold start makes it."""
    values = {
        "TABLE_NAME": "portaria",
        "EXCHANGES_QUEUE_URL": f"{endpoint_url}/1/exchanges",
        "AWS_ENDPOINT_URL": endpoint_url,
    }
    spec = importlib.util.spec_from_file_location("accept_install_handler", HANDLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.dict(os.environ, values | environment):
        spec.loader.exec_module(module)
    return module


class Function:
    """accept_install and the AWS behind it."""

    def __init__(self, aws: Cloud, endpoint: Endpoint) -> None:
        self.aws = aws
        self.endpoint = endpoint
        self.handler = load_handler(endpoint.url, EXCHANGES_QUEUE_URL=aws.environment["EXCHANGES_QUEUE_URL"])

    def get(
        self,
        event_name: str,
        *,
        query: dict[str, list[str] | None] | None = None,
        headers: dict[str, list[str]] | None = None,
        path: dict[str, str] | None = None,
        context: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call with one of the events; a query parameter that is None is left out."""
        event = copy.deepcopy(EVENTS[event_name])
        values = (event["multiValueQueryStringParameters"] or {}) | (query or {})
        event["multiValueQueryStringParameters"] = {name: value for name, value in values.items() if value is not None}
        event["multiValueHeaders"] |= headers or {}
        event["pathParameters"] |= path or {}
        event["requestContext"] |= context or {}
        answer: dict[str, Any] = self.handler.handler(event, None)
        return answer

    def open_page(self, cookie: str = "", **options: Any) -> tuple[str, str]:
        """Open the install page; returns the cookie header and the state."""
        answer = self.get("start", headers={"Cookie": [cookie]}, **options)
        assert answer["statusCode"] == 200
        state = re.search(r"state=([A-Za-z0-9_-]{43})", answer["body"])
        assert state is not None
        return answer["headers"]["Set-Cookie"].partition(";")[0], state[1]

    def come_back(self, cookie: str, state: str | None, code: str = CODE, **options: Any) -> dict[str, Any]:
        query = {"state": [state] if state else None, "code": [code]}
        return self.get("browser_return", query=query, headers={**HTML, "Cookie": [cookie]}, **options)

    def queued(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.aws.receive("exchanges")]

    def kept(self) -> list[dict[str, Any]]:
        items, _ = self.aws.table.query("ARRIVALS")
        return [json.loads(item["body"]) for item in items]


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


@pytest.fixture
def function(aws: Cloud) -> Iterator[Function]:
    put(aws.table, OAuthClient("kommo", "crm", "client-id", "https://api.example.com/live/install/kommo/crm"), new=True)
    put(aws.table, OAuthClient("kommo", "other", "other-id", "https://api.example.com/x"), new=True)
    with aws_endpoint() as endpoint:
        made = Function(aws, endpoint)
        yield made
        made.handler.desk._sqs.close()
        made.handler.desk._dynamodb.close()
    aws.receive("exchanges")
    dynamodb = client("dynamodb")
    for item in dynamodb.scan(TableName=aws.table.name)["Items"]:
        dynamodb.delete_item(TableName=aws.table.name, Key={name: item[name] for name in ("pk", "sk")})


pytestmark = pytest.mark.enable_socket


class TestTheHook:
    def test_it_is_queued_and_answered(self, function: Function) -> None:
        answer = function.get("widget_hook")

        assert answer["statusCode"] == 200
        assert answer["headers"]["Content-Type"].startswith("text/plain")
        [message] = function.queued()
        received_at = message.pop("received_at")
        assert abs((clock.now() - clock.from_iso(received_at)).total_seconds()) < 60
        assert message == {
            "version": 1,
            "install_id": INSTALL,
            "platform": "kommo",
            "client": "crm",
            "code": CODE,
            "account_host": "acme.kommo.com",
            "source": "widget",
        }

    def test_it_remembers_the_client(self, function: Function) -> None:
        for _ in range(3):
            function.get("widget_hook")
        assert function.endpoint.operations() == ["dynamodb.GetItem", *["sqs.SendMessage"] * 3]

    def test_it_remembers_the_client_for_a_while_only(
        self, function: Function, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(arrivals, "CLIENT_REMEMBERED_S", 0)
        for _ in range(3):
            function.get("widget_hook")
        assert function.endpoint.operations() == ["dynamodb.GetItem", "sqs.SendMessage"] * 3

    def test_one_code_is_one_install_however_often_it_comes(self, function: Function) -> None:
        for _ in range(3):
            function.get("widget_hook")
        assert {message["install_id"] for message in function.queued()} == {INSTALL}

    def test_an_unknown_client_is_refused(self, function: Function) -> None:
        answer = function.get("widget_hook", path={"client": "nobody"})
        assert answer["statusCode"] == 404
        assert function.queued() == []
        assert function.kept() == []

    def test_a_client_registered_after_a_refusal_is_found(
        self, function: Function, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(arrivals, "NO_CLIENT_REMEMBERED_S", 0)
        assert function.get("widget_hook", path={"client": "late"})["statusCode"] == 404
        put(function.aws.table, OAuthClient("kommo", "late", "late-id", "https://api.example.com/x"), new=True)
        assert function.get("widget_hook", path={"client": "late"})["statusCode"] == 200
        reads = [call.payload["ConsistentRead"] for call in function.endpoint.calls if call.operation == "GetItem"]
        assert reads == [True, True]

    @pytest.mark.parametrize("client", ["", "../crm", "crm#x", "crm crm", "a" * 65, "é", "crm/../x", "CRM\n"])
    def test_a_name_that_no_client_can_have_is_not_even_looked_up(self, function: Function, client: str) -> None:
        answer = function.get("widget_hook", path={"client": client})
        assert answer["statusCode"] == 404
        assert function.endpoint.calls == []

    @pytest.mark.parametrize("platform", ["", "hubspot", "marketo", "../kommo", "KOMMO", "kommo.install", "x" * 500])
    def test_an_unknown_platform_is_refused(self, function: Function, platform: str) -> None:
        answer = function.get("widget_hook", path={"platform": platform})
        assert answer["statusCode"] == 404
        assert function.endpoint.calls == []

    @pytest.mark.parametrize(
        ("query", "reason"),
        [
            ({"code": None}, "missing_code"),
            ({"code": [""]}, "missing_code"),
            ({"code": ["a", "b"]}, "code_repeated"),
            ({"code": ["a", "a"]}, "code_repeated"),
            ({"code": ["a" * 2_001]}, "code_too_long"),
            ({"code": ["a b"]}, "bad_code"),
            ({"code": ["a\r\nb"]}, "bad_code"),
            ({"code": ["\u0000"]}, "bad_code"),
            ({"code": ["\ufffd"]}, "bad_code"),
            ({"code": ["\udc80"]}, "bad_query"),
            ({"referer": None}, "bad_referer"),
            ({"referer": ["acme.kommo.com", "evil.example"]}, "referer_repeated"),
            ({"referer": None, "referrer": ["acme.kommo.com", "acme.kommo.com"]}, "referrer_repeated"),
            ({"from_widget": None}, "missing_state"),
            ({"from_widget": ["0"]}, "missing_state"),
            ({"state": ["s" * 201]}, "bad_state"),
            ({"state": ["a", "b"]}, "state_repeated"),
            ({"error": ["a", "b"]}, "error_repeated"),
            ({"padding": ["x" * 100_000]}, "query_too_long"),
            ({"padding": ["x"] * 100_000}, "query_too_long"),
            ({"x" * 100_000: ["1"]}, "query_too_long"),
            ({f"p{n}": ["x" * 10] for n in range(10_000)}, "query_too_long"),
        ],
    )
    def test_bad_input_is_told_and_nothing_is_sent(
        self, function: Function, query: dict[str, list[str] | None], reason: str
    ) -> None:
        plain = function.get("widget_hook", query=query)
        page = function.get("widget_hook", query=query, headers=HTML)

        assert 400 <= plain["statusCode"] < 500
        assert plain["body"].startswith(reason + ": ")
        assert len(plain["body"]) < 300
        assert page["statusCode"] == plain["statusCode"]
        assert page["headers"]["Content-Type"].startswith("text/html")
        assert function.endpoint.calls == []

    @pytest.mark.parametrize("code", ["%", "%zz", "%E0%A4%A", "a%00b", "caf%C3%A9"])
    def test_what_api_gateway_left_encoded_stays_a_code(self, function: Function, code: str) -> None:
        """A code is opaque: what is printable goes on as it came, and the platform decides."""
        assert function.get("widget_hook", query={"code": [code]})["statusCode"] == 200
        assert function.queued()[0]["code"] == code

    def test_a_call_without_any_query_is_refused(self, function: Function) -> None:
        event = copy.deepcopy(EVENTS["widget_hook"]) | {
            "multiValueQueryStringParameters": None,
            "multiValueHeaders": None,
            "requestContext": {},
        }
        assert function.handler.handler(event, None)["statusCode"] == 400


class TestTheQueueFails:
    @pytest.mark.parametrize(
        "fault", ["drop", "InternalError", "RequestThrottled", "AccessDenied", "QueueDoesNotExist"]
    )
    def test_the_code_is_kept_in_the_table(
        self, function: Function, capsys: pytest.CaptureFixture[str], fault: str
    ) -> None:
        function.endpoint.faults["sqs"] = fault

        answer = function.get("widget_hook")

        assert answer["statusCode"] == 200
        [message] = function.kept()
        assert (message["install_id"], message["code"]) == (INSTALL, CODE)
        [line] = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if "_aws" in line]
        assert line["ArrivalsKept"] == 1
        assert line["_aws"]["CloudWatchMetrics"] == [
            {
                "Namespace": "Portaria",
                "Dimensions": [["service"]],
                "Metrics": [{"Name": "ArrivalsKept", "Unit": "Count"}],
            }
        ]

    def test_a_lost_answer_keeps_it_as_well_and_it_is_one_install(self, function: Function) -> None:
        function.endpoint.faults["sqs"] = "drop_after"
        assert function.get("widget_hook")["statusCode"] == 200
        assert [message["install_id"] for message in function.queued() + function.kept()] == [INSTALL] * 2

    def test_a_kept_arrival_ends_by_itself(self, function: Function) -> None:
        function.endpoint.faults["sqs"] = "drop"
        function.get("widget_hook")
        items, _ = function.aws.table.query("ARRIVALS")
        assert items[0]["sk"] == INSTALL
        assert 0 < items[0]["expires_at"] - time.time() - 86_400 < 60 or items[0]["expires_at"] - time.time() <= 86_400

    def test_neither_takes_it(self, function: Function, capsys: pytest.CaptureFixture[str]) -> None:
        function.endpoint.faults |= {"sqs": "drop", "dynamodb.PutItem": "InternalServerError"}

        answer = function.get("widget_hook")

        assert answer["statusCode"] == 503
        assert answer["headers"]["Retry-After"]
        assert '"ArrivalsLost": 1' in capsys.readouterr().out

    def test_a_client_that_cannot_be_read_does_not_stop_the_install(self, function: Function) -> None:
        function.endpoint.faults["dynamodb.GetItem"] = "ProvisionedThroughputExceededException"
        assert function.get("widget_hook")["statusCode"] == 200
        assert len(function.queued()) == 1

    def test_everything_hangs_and_the_hook_is_answered_in_its_three_seconds(self, function: Function) -> None:
        function.endpoint.faults |= {"sqs": "hang", "dynamodb": "hang"}
        started = time.monotonic()
        answer = function.get("widget_hook", context={"requestTimeEpoch": time.time() * 1000 - 500})
        assert answer["statusCode"] == 503
        assert 2.0 < time.monotonic() - started < 2.5

    def test_a_late_start_shortens_the_rest(self, function: Function) -> None:
        function.endpoint.faults |= {"sqs": "hang", "dynamodb.GetItem": "hang"}
        started = time.monotonic()
        answer = function.get("widget_hook", context={"requestTimeEpoch": time.time() * 1000 - 1_500})
        assert answer["statusCode"] == 200
        assert len(function.kept()) == 1
        assert time.monotonic() - started < 1.2


class TestTheBrowser:
    def test_it_comes_back_and_is_led_away_from_its_code(self, function: Function) -> None:
        cookie, state = function.open_page()

        answer = function.come_back(cookie, state)

        assert answer["statusCode"] == 303
        assert answer["headers"]["Location"] == f"crm/result/{INSTALL}"
        assert answer["headers"]["Referrer-Policy"] == "no-referrer"
        [message] = function.queued()
        assert (message["source"], message["install_id"]) == ("browser", INSTALL)
        item = function.aws.table.get(f"INSTALL#{INSTALL}", "INSTALL")
        assert item is not None
        assert (item["state"], item["account_host"], item["list_pk"]) == ("received", "acme.kommo.com", "INSTALLS")

    @pytest.mark.parametrize(
        ("path", "location"),
        [
            ("/live/install/kommo/crm", f"crm/result/{INSTALL}"),
            ("/install/kommo/crm", f"crm/result/{INSTALL}"),
            ("/base/path/install/kommo/crm/", f"result/{INSTALL}"),
        ],
    )
    def test_the_way_to_the_result_is_relative(self, function: Function, path: str, location: str) -> None:
        cookie, state = function.open_page()
        answer = function.come_back(cookie, state, context={"path": path})
        assert answer["headers"]["Location"] == location

    def test_the_cookie_and_the_state_are_kept_only_as_hashes(self, function: Function) -> None:
        cookie, state = function.open_page()
        [call] = [call for call in function.endpoint.calls if call.operation == "PutItem"]
        stored = json.dumps(call.payload)
        assert state not in stored
        assert cookie.partition("=")[2] not in stored
        assert 1_790 < int(call.payload["Item"]["expires_at"]["N"]) - time.time() <= 1_800

    def test_the_cookie_is_closed_to_everyone_else(self, function: Function) -> None:
        header = function.get("start")["headers"]["Set-Cookie"]
        name, *attributes = header.split("; ")
        assert re.fullmatch(r"__Host-portaria=[A-Za-z0-9_-]{43}", name)
        assert set(attributes) == {"Path=/", "Max-Age=1800", "Secure", "HttpOnly", "SameSite=Lax"}

    def test_two_pages_of_one_browser_can_both_be_finished(self, function: Function) -> None:
        cookie, first = function.open_page()
        same_cookie, second = function.open_page(cookie)
        assert same_cookie == cookie
        assert second != first
        assert function.come_back(cookie, first, "code-1")["statusCode"] == 303
        assert function.come_back(cookie, second, "code-2")["statusCode"] == 303

    def test_a_cookie_of_another_form_is_replaced(self, function: Function) -> None:
        cookie, _ = function.open_page("__Host-portaria=chosen-by-someone")
        assert cookie != "__Host-portaria=chosen-by-someone"

    def test_loading_the_return_again_passes(self, function: Function) -> None:
        cookie, state = function.open_page()
        answers = [function.come_back(cookie, state) for _ in range(3)]
        assert {answer["headers"]["Location"] for answer in answers} == {f"crm/result/{INSTALL}"}

    def test_a_second_code_for_a_used_state_is_refused(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.come_back(cookie, state)
        function.queued()
        assert refused_with("used_state", function.come_back(cookie, state, "another-code"))
        assert function.queued() == []

    def test_a_return_without_a_state_is_refused(self, function: Function) -> None:
        cookie, _ = function.open_page()
        assert refused_with("missing_state", function.come_back(cookie, None))

    @pytest.mark.parametrize("state", ["x", "A" * 43, "A" * 42 + "=", "A" * 44, "é" * 43, "A" * 200, "' OR 1=1"])
    def test_a_forged_state_is_refused(self, function: Function, state: str) -> None:
        cookie, _ = function.open_page()
        assert refused_with("unknown_state", function.come_back(cookie, state))
        assert function.queued() == []

    def test_a_state_of_another_browser_is_refused_and_stays_usable(self, function: Function) -> None:
        cookie, state = function.open_page()
        stranger, _ = function.open_page()
        assert stranger != cookie
        for other in (
            stranger,
            "",
            "__Host-portaria=",
            "portaria=" + cookie.partition("=")[2],
            f"{cookie}; {stranger}",
        ):
            assert refused_with("foreign_state", function.come_back(other, state))
        assert function.queued() == []
        assert function.come_back(cookie, state)["statusCode"] == 303

    def test_a_state_of_another_client_is_refused(self, function: Function) -> None:
        cookie, state = function.open_page()
        assert refused_with("foreign_state", function.come_back(cookie, state, path={"client": "other"}))

    def test_a_state_ends_by_the_clock_even_if_the_table_still_has_it(
        self, function: Function, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cookie, state = function.open_page()
        later = time.time() + 1_801
        monkeypatch.setattr(arrivals, "_epoch", lambda after_s: int(later) + after_s)
        assert refused_with("expired_state", function.come_back(cookie, state))
        assert function.queued() == []

    def test_the_cookie_is_found_among_others(self, function: Function) -> None:
        cookie, state = function.open_page()
        assert function.come_back(f"a=b; {cookie}; __Host-portaria2=x", state)["statusCode"] == 303

    @pytest.mark.parametrize("fault", ["drop", "InternalServerError", "AccessDeniedException"])
    def test_the_table_fails_and_loading_again_goes_on(self, function: Function, fault: str) -> None:
        cookie, state = function.open_page()
        function.endpoint.faults["dynamodb"] = fault

        answer = function.come_back(cookie, state)

        assert answer["statusCode"] == 503
        assert function.queued() == []
        function.endpoint.faults.clear()
        assert function.come_back(cookie, state)["statusCode"] == 303
        assert len(function.queued()) == 1

    def test_the_answer_to_the_claim_is_lost_and_loading_again_goes_on(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.endpoint.faults["dynamodb.UpdateItem"] = "drop_after"
        assert function.come_back(cookie, state)["statusCode"] == 503
        function.endpoint.faults.clear()
        assert function.come_back(cookie, state)["statusCode"] == 303
        assert len(function.queued()) == 1

    def test_the_install_cannot_be_written_down_and_goes_on(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.endpoint.faults["dynamodb.PutItem"] = "InternalServerError"
        assert function.come_back(cookie, state)["statusCode"] == 303
        assert len(function.queued()) == 1

    def test_a_return_does_not_set_a_running_install_back(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.come_back(cookie, state)
        function.aws.table.update(
            f"INSTALL#{INSTALL}",
            "INSTALL",
            "SET #state = :now",
            names={"#state": "state"},
            values={":now": "connected"},
        )
        function.come_back(cookie, state)
        item = function.aws.table.get(f"INSTALL#{INSTALL}", "INSTALL")
        assert item is not None
        assert item["state"] == "connected"

    def test_a_widget_hook_with_a_state_needs_its_browser(self, function: Function) -> None:
        _, state = function.open_page()
        answer = function.get("widget_hook", query={"state": [state]}, headers=HTML)
        assert refused_with("foreign_state", answer)


class TestTheRefusal:
    def test_the_customer_said_no(self, function: Function) -> None:
        cookie, state = function.open_page()

        answer = function.get("refusal", query={"state": [state]}, headers={"Cookie": [cookie]})

        assert answer["statusCode"] == 200
        assert answer["headers"]["Content-Type"].startswith("text/html")
        assert function.queued() == []
        assert refused_with("used_state", function.come_back(cookie, state))

    def test_a_strangers_refusal_uses_nothing_up(self, function: Function) -> None:
        cookie, state = function.open_page()
        assert function.get("refusal", query={"state": [state]})["statusCode"] == 200
        assert function.come_back(cookie, state)["statusCode"] == 303

    @pytest.mark.parametrize("fault", ["drop", "InternalServerError"])
    def test_it_is_shown_whatever_the_table_says(self, function: Function, fault: str) -> None:
        function.endpoint.faults["dynamodb"] = fault
        assert function.get("refusal")["statusCode"] == 200
        assert function.get("refusal", query={"state": None})["statusCode"] == 200


class TestThePages:
    def test_start_for_an_unknown_client(self, function: Function) -> None:
        answer = function.get("start", path={"client": "nobody"})
        assert answer["statusCode"] == 404
        assert "Set-Cookie" not in answer["headers"]

    def test_start_while_the_table_fails(self, function: Function) -> None:
        function.endpoint.faults["dynamodb"] = "InternalServerError"
        assert function.get("start")["statusCode"] == 503

    def test_start_holds_the_button_and_the_plain_link(self, function: Function) -> None:
        body = function.get("start")["body"]
        assert "https://www.kommo.com/oauth?client_id=client-id" in body
        assert "kommo_oauth" in body

    def test_an_install_nobody_has_begun_with_yet_is_on_its_way(self, function: Function) -> None:
        answer = function.get("result", headers={"accept": ["application/json"], "Accept": []})
        assert json.loads(answer["body"]) == {"state": "received", "reason": "", "account": ""}
        assert answer["headers"]["Cache-Control"] == "no-store"

    def test_a_failed_install_tells_why(self, function: Function) -> None:
        item = {"pk": f"INSTALL#{INSTALL}", "sk": "INSTALL", "state": "failed", "reason": "code_expired"}
        function.aws.table.put({**item, "account_host": "acme.kommo.com"})
        answer = function.get("result", path={"install": INSTALL}, headers={"Accept": ["application/json"]})
        assert json.loads(answer["body"]) == {"state": "failed", "reason": "code_expired", "account": "acme.kommo.com"}
        assert function.get("result", path={"install": INSTALL})["statusCode"] == 200

    @pytest.mark.parametrize("install", ["", "x", "A" * 26, "a" * 27, "a" * 25 + "1", "../admin", "é" * 26])
    def test_what_is_no_install_is_not_found(self, function: Function, install: str) -> None:
        assert function.get("result", path={"install": install})["statusCode"] == 404
        assert function.endpoint.calls == []


def test_no_secret_is_printed(function: Function, capfd: pytest.CaptureFixture[str]) -> None:
    """Given every kind of arrival and fault, when all is done, then no code, state or cookie stands in the log."""
    cookie, state = function.open_page()
    function.get("widget_hook")
    function.come_back("", state)
    function.come_back(cookie, state)
    function.come_back(cookie, state, "another-code")
    function.get("refusal")
    function.endpoint.faults |= {"sqs": "drop", "dynamodb.PutItem": "drop"}
    function.get("widget_hook")
    function.endpoint.faults |= {"dynamodb": "SerializationException"}
    function.come_back(cookie, state)
    printed = "".join(capfd.readouterr())
    assert INSTALL in printed
    for secret in (CODE, state, cookie.partition("=")[2], "another-code", os.environ["AWS_SECRET_ACCESS_KEY"] + '"'):
        assert secret not in printed


def test_log_lines_have_what_lambdas_filter_needs(function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    function.get("widget_hook")
    [line] = map(json.loads, capsys.readouterr().out.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "message": "install received",
        "service": "portaria",
        "install_id": INSTALL,
        "platform": "kommo",
        "client": "crm",
        "account_host": "acme.kommo.com",
        "source": "widget",
        "stored": "queue",
    }


def test_the_hooks_path_imports_nothing_heavy(function: Function) -> None:
    """Given a fresh interpreter, when a hook has been answered, then only this was imported."""
    script = f"""
import json, sys
before = set(sys.modules)
sys.path[:0] = [{str(ROOT / "layers" / "portaria")!r}, {str(HANDLER.parent)!r}]
import handler
event = json.load(open({str(ROOT / "events" / "accept_install" / "widget_hook.json")!r}))
assert handler.handler(event, None)["statusCode"] == 200
own = sorted(name for name in set(sys.modules) - before if name.startswith("portaria"))
others = {{name.partition(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names
heavy = {{"dataclasses", "inspect", "logging", "http", "email", "urllib", "asyncio", "concurrent", "tomllib", "secrets"}}
sys.stderr.write(json.dumps([own, sorted(others), sorted(heavy & set(sys.modules))]))
"""
    environment = {
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_ENDPOINT_URL": function.endpoint.url,
        "TABLE_NAME": function.aws.environment["TABLE_NAME"],
        "EXCHANGES_QUEUE_URL": function.aws.environment["EXCHANGES_QUEUE_URL"],
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    own, others, heavy = json.loads(done.stderr)
    assert own == [
        "portaria",
        "portaria.arrivals",
        "portaria.clock",
        "portaria.intake",
        "portaria.platforms",
        "portaria.platforms.kommo",
        "portaria.platforms.kommo.install",
        "portaria.settings",
        "portaria.signing",
    ]
    assert others == ["handler", "portaria"]
    assert heavy == []


def test_the_pages_import_only_what_the_functions_layer_has() -> None:
    """accept_install has the package's own layer, not the one with the other functions' libraries."""
    requirements = (ROOT / "layers" / "portaria" / "requirements.txt").read_text().split()
    script = """
import json, sys
import handler
from portaria.pages import render
render.refused("pt", start_url="start")
found = {name.partition(".")[0] for name in sys.modules if getattr(sys.modules[name], "__file__", None)}
print(json.dumps(sorted(found - sys.stdlib_module_names - {"__main__", "handler", "portaria"})))
"""
    environment = {
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "TABLE_NAME": "portaria",
        "EXCHANGES_QUEUE_URL": "http://127.0.0.1:9/1/exchanges",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "layers" / "portaria"), str(HANDLER.parent)]),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    imported = [name for name in json.loads(done.stdout) if not name.startswith("_")]
    assert imported == sorted(line.partition("==")[0] for line in requirements)


def refused_with(reason: str, answer: dict[str, Any]) -> bool:
    """A page that says why, as a person's browser gets it."""
    assert 400 <= answer["statusCode"] < 500
    assert answer["headers"]["Content-Type"].startswith("text/html")
    assert "Location" not in answer["headers"]
    assert reason in answer["body"]
    return True
