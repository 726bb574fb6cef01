"""The three routes of accept_install, called with API Gateway events. AWS is moto behind an endpoint on loopback."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from portaria.aws.service_clients import boto3_client as client
from portaria.connections.oauth_clients import put
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.item_keys import install_link_id
from portaria.installs.hook_sources import HookSources
from portaria.installs.install_links import InstallLink
from portaria.webhooks import arrival_sources, install_receiver, install_sessions, oauth_client_cache, oauth_state
from tests.fakes.connections.accept_install import CODE, EVENTS, HTML, Function, create_link, refused_with
from tests.fakes.package_locks import pins
from tests.fakes.paths import ROOT

HANDLER = ROOT / "functions" / "accept_install" / "handler.py"
INSTALL = install_receiver.install_id("kommo", "crm", Secret(CODE))
SOURCE = arrival_sources.hash_address(EVENTS["widget_hook"]["requestContext"]["identity"]["sourceIp"])


pytestmark = pytest.mark.enable_socket


class TestWidgetWebhook:
    def test_install_hook_valid_code_is_queued_and_answered_200(self, function: Function) -> None:
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
            "address_hash": SOURCE,
        }

    def test_hook_in_payload_format_2_is_queued(self, function: Function) -> None:
        """The event of a REST API and that of an HTTP API have the same effect."""
        event = EVENTS["widget_hook"]
        query = {name: values[0] for name, values in event["multiValueQueryStringParameters"].items()}
        address = event["requestContext"]["identity"]["sourceIp"]
        http = {
            "method": "GET",
            "path": event["path"],
            "protocol": "HTTP/1.1",
            "sourceIp": address,
            "userAgent": "curl",
        }
        answer = function.handler.handler(
            {
                "version": "2.0",
                "routeKey": "GET /install/{platform}/{client}",
                "rawPath": event["path"],
                "rawQueryString": urlencode(query),
                "headers": {"accept": "*/*"},
                "pathParameters": event["pathParameters"],
                "requestContext": {"http": http, "requestId": "id", "timeEpoch": int(time.time() * 1000)},
                "isBase64Encoded": False,
            },
            None,
        )
        assert answer["statusCode"] == 200
        [message] = function.queued()
        assert (message["install_id"], message["code"], message["address_hash"]) == (INSTALL, CODE, SOURCE)

    @pytest.mark.parametrize("host", ["anyone.amocrm.ru", "anyone.amocrm.com"])
    def test_install_hook_and_return_host_outside_client_domains_are_refused(
        self, function: Function, host: str
    ) -> None:
        """An unauthenticated caller cannot choose which domain of the platform receives the client's secret."""
        answer = function.get("widget_hook", query={"referer": [host]})
        assert (answer["statusCode"], answer["body"].partition(":")[0]) == (400, "domain_not_registered")
        cookie, state = function.open_page()
        back = function.get(
            "browser_return", query={"state": [state], "referer": [host]}, headers={**HTML, "Cookie": [cookie]}
        )
        assert back["statusCode"] == 400
        assert "domain_not_registered" in back["body"]
        assert function.queued() == []

    def test_install_hook_host_inside_client_domains_is_queued(self, function: Function) -> None:
        client = OAuthClient("kommo", "crm", "client-id", "https://api.example.com/x", api_domains="*.amocrm.ru")
        put(function.aws.table, client, new=False)
        assert function.get("widget_hook", query={"referer": ["acme.amocrm.ru"]})["statusCode"] == 200
        assert function.get("widget_hook")["statusCode"] == 400
        assert [message["account_host"] for message in function.queued()] == ["acme.amocrm.ru"]

    def test_install_hook_repeated_reads_client_once(self, function: Function) -> None:
        for _ in range(3):
            function.get("widget_hook")
        assert function.endpoint.operations() == ["dynamodb.BatchGetItem", *["sqs.SendMessage"] * 3]

    def test_install_hook_client_cache_expired_reads_client_again(
        self, function: Function, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(oauth_client_cache, "CLIENT_REMEMBERED_S", 0)
        for _ in range(3):
            function.get("widget_hook")
        assert function.endpoint.operations() == ["dynamodb.BatchGetItem", "sqs.SendMessage"] * 3

    def test_install_hook_repeated_code_has_same_install_id(self, function: Function) -> None:
        for _ in range(3):
            function.get("widget_hook")
        assert {message["install_id"] for message in function.queued()} == {INSTALL}

    def test_install_hook_unknown_client_is_not_found_and_not_stored(self, function: Function) -> None:
        answer = function.get("widget_hook", path={"client": "nobody"})
        assert answer["statusCode"] == 404
        assert function.queued() == []
        assert function.kept() == []

    def test_install_hook_client_registered_after_refusal_is_accepted(
        self, function: Function, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(oauth_client_cache, "NO_CLIENT_REMEMBERED_S", 0)
        assert function.get("widget_hook", path={"client": "late"})["statusCode"] == 404
        put(function.aws.table, OAuthClient("kommo", "late", "late-id", "https://api.example.com/x"), new=True)
        assert function.get("widget_hook", path={"client": "late"})["statusCode"] == 200
        reads = [call.payload["RequestItems"] for call in function.endpoint.calls if call.operation == "BatchGetItem"]
        assert [asked[function.aws.table.name]["ConsistentRead"] for asked in reads] == [True, True]

    @pytest.mark.parametrize("client", ["", "../crm", "crm#x", "crm crm", "a" * 65, "é", "crm/../x", "CRM\n"])
    def test_install_hook_invalid_client_name_is_not_found_without_aws_call(
        self, function: Function, client: str
    ) -> None:
        answer = function.get("widget_hook", path={"client": client})
        assert answer["statusCode"] == 404
        assert function.endpoint.calls == []

    @pytest.mark.parametrize("platform", ["", "hubspot", "marketo", "../kommo", "KOMMO", "kommo.install", "x" * 500])
    def test_install_hook_unknown_platform_is_not_found_without_aws_call(
        self, function: Function, platform: str
    ) -> None:
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
    def test_install_hook_invalid_query_is_refused_with_reason_without_aws_call(
        self, function: Function, query: dict[str, list[str] | None], reason: str
    ) -> None:
        plain = function.get("widget_hook", query=query)
        assert function.endpoint.calls == []
        page = function.get("widget_hook", query=query, headers=HTML)
        # A page shows whose it is.
        assert function.endpoint.operations() == ["dynamodb.BatchGetItem"]

        assert 400 <= plain["statusCode"] < 500
        assert plain["body"].startswith(reason + ": ")
        assert len(plain["body"]) < 300
        assert page["statusCode"] == plain["statusCode"]
        assert page["headers"]["Content-Type"].startswith("text/html")

    @pytest.mark.parametrize("code", ["%", "%zz", "%E0%A4%A", "a%00b", "caf%C3%A9"])
    def test_install_hook_percent_encoded_code_is_queued_unchanged(self, function: Function, code: str) -> None:
        """A code is opaque: printable characters are passed on unchanged, and the platform decides."""
        assert function.get("widget_hook", query={"code": [code]})["statusCode"] == 200
        assert function.queued()[0]["code"] == code

    def test_install_hook_without_query_is_refused(self, function: Function) -> None:
        event = copy.deepcopy(EVENTS["widget_hook"]) | {
            "multiValueQueryStringParameters": None,
            "multiValueHeaders": None,
            "requestContext": {},
        }
        assert function.handler.handler(event, None)["statusCode"] == 400


class TestQueueFailures:
    @pytest.mark.parametrize(
        "fault", ["drop", "InternalError", "RequestThrottled", "AccessDenied", "QueueDoesNotExist"]
    )
    def test_install_hook_queue_failure_keeps_code_in_table_and_counts_it(
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

    def test_install_hook_lost_queue_answer_keeps_code_with_same_install_id(self, function: Function) -> None:
        function.endpoint.faults["sqs"] = "drop_after"
        assert function.get("widget_hook")["statusCode"] == 200
        assert [message["install_id"] for message in function.queued() + function.kept()] == [INSTALL] * 2

    def test_install_hook_kept_arrival_expires_within_a_day(self, function: Function) -> None:
        function.endpoint.faults["sqs"] = "drop"
        function.get("widget_hook")
        items, _ = function.aws.table.query(install_receiver.UNPROVEN_ARRIVALS)
        assert items[0]["sk"] == INSTALL
        assert 86_340 < items[0]["expires_at"] - time.time() <= 86_400

    def test_install_hook_queue_and_table_failure_answers_503_and_counts_loss(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        function.endpoint.faults |= {"sqs": "drop", "dynamodb.PutItem": "InternalServerError"}

        answer = function.get("widget_hook")

        assert answer["statusCode"] == 503
        assert answer["headers"]["Retry-After"]
        assert '"ArrivalsLost": 1' in capsys.readouterr().out

    def test_install_hook_client_read_throttled_is_queued(self, function: Function) -> None:
        function.endpoint.faults["dynamodb.BatchGetItem"] = "ProvisionedThroughputExceededException"
        assert function.get("widget_hook")["statusCode"] == 200
        assert len(function.queued()) == 1

    def test_install_hook_queue_and_table_hang_answers_503_within_three_seconds(self, function: Function) -> None:
        function.endpoint.faults |= {"sqs": "hang", "dynamodb": "hang"}
        started = time.monotonic()
        answer = function.get("widget_hook", context={"requestTimeEpoch": time.time() * 1000 - 500})
        assert answer["statusCode"] == 503
        assert 2.0 < time.monotonic() - started < 2.5

    def test_install_hook_late_start_shortens_remaining_timeouts(self, function: Function) -> None:
        function.endpoint.faults |= {"sqs": "hang", "dynamodb.BatchGetItem": "hang"}
        started = time.monotonic()
        answer = function.get("widget_hook", context={"requestTimeEpoch": time.time() * 1000 - 1_500})
        assert answer["statusCode"] == 200
        assert len(function.kept()) == 1
        assert time.monotonic() - started < 1.2


class TestBrowserRedirect:
    def test_install_return_valid_redirects_to_result_and_stores_install(self, function: Function) -> None:
        cookie, state = function.open_page()

        answer = function.come_back(cookie, state)

        assert answer["statusCode"] == 303
        assert answer["headers"]["Location"] == f"crm/result/{INSTALL}"
        assert answer["headers"]["Referrer-Policy"] == "no-referrer"
        [message] = function.queued()
        assert (message["source"], message["install_id"]) == ("browser", INSTALL)
        item = function.aws.table.get(f"INSTALL#{INSTALL}", "INSTALL")
        assert item is not None
        assert (item["state"], item["account_host"], item["list_pk"]) == (
            "received",
            "acme.kommo.com",
            "INSTALLS#received",
        )

    @pytest.mark.parametrize(
        ("path", "location"),
        [
            ("/live/install/kommo/crm", f"crm/result/{INSTALL}"),
            ("/install/kommo/crm", f"crm/result/{INSTALL}"),
            ("/base/path/install/kommo/crm/", f"result/{INSTALL}"),
        ],
    )
    def test_install_return_location_is_relative_to_request_path(
        self, function: Function, path: str, location: str
    ) -> None:
        cookie, state = function.open_page()
        answer = function.come_back(cookie, state, context={"path": path})
        assert answer["headers"]["Location"] == location

    @pytest.mark.parametrize(("slash", "start"), [("", "../start"), ("/", "../../start")])
    def test_install_result_trailing_slash_links_to_start_page(
        self, function: Function, slash: str, start: str
    ) -> None:
        # API Gateway matches a path with a trailing slash: tests/aws/recorded/apigateway.py.
        context = {"path": f"/live/install/kommo/crm/result/{INSTALL}{slash}"}
        answer = function.get("result", path={"install": INSTALL}, headers=HTML, context=context)
        assert f'href="{start}"' in answer["body"]

    def test_install_start_stores_cookie_and_state_only_as_hashes(self, function: Function) -> None:
        cookie, state = function.open_page()
        [call] = [call for call in function.endpoint.calls if call.operation == "PutItem"]
        stored = json.dumps(call.payload)
        assert state not in stored
        assert cookie.partition("=")[2] not in stored
        assert 1_790 < int(call.payload["Item"]["expires_at"]["N"]) - time.time() <= 1_800

    def test_install_start_cookie_is_host_only_secure_and_http_only(self, function: Function) -> None:
        header = function.get("start")["headers"]["Set-Cookie"]
        name, *attributes = header.split("; ")
        assert re.fullmatch(r"__Host-portaria=[A-Za-z0-9_-]{43}", name)
        assert set(attributes) == {"Path=/", "Max-Age=1800", "Secure", "HttpOnly", "SameSite=Lax"}

    def test_install_return_two_pages_of_one_browser_both_finish(self, function: Function) -> None:
        cookie, first = function.open_page()
        same_cookie, second = function.open_page(cookie)
        assert same_cookie == cookie
        assert second != first
        assert function.come_back(cookie, first, "code-1")["statusCode"] == 303
        assert function.come_back(cookie, second, "code-2")["statusCode"] == 303

    def test_install_start_malformed_cookie_is_replaced(self, function: Function) -> None:
        cookie, _ = function.open_page("__Host-portaria=chosen-by-someone")
        assert cookie != "__Host-portaria=chosen-by-someone"

    def test_install_return_reloaded_redirects_to_same_result(self, function: Function) -> None:
        cookie, state = function.open_page()
        answers = [function.come_back(cookie, state) for _ in range(3)]
        assert {answer["headers"]["Location"] for answer in answers} == {f"crm/result/{INSTALL}"}

    def test_install_return_second_code_for_used_state_is_refused(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.come_back(cookie, state)
        function.queued()
        assert refused_with("used_state", function.come_back(cookie, state, "another-code"))
        assert function.queued() == []

    def test_install_return_without_state_is_refused(self, function: Function) -> None:
        cookie, _ = function.open_page()
        assert refused_with("missing_state", function.come_back(cookie, None))

    @pytest.mark.parametrize("state", ["x", "A" * 43, "A" * 42 + "=", "A" * 44, "é" * 43, "A" * 200, "' OR 1=1"])
    def test_install_return_forged_state_is_refused(self, function: Function, state: str) -> None:
        cookie, _ = function.open_page()
        assert refused_with("unknown_state", function.come_back(cookie, state))
        assert function.queued() == []

    def test_install_return_state_of_another_browser_is_refused_and_stays_usable(self, function: Function) -> None:
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

    def test_install_return_state_of_another_client_is_refused(self, function: Function) -> None:
        cookie, state = function.open_page()
        assert refused_with("foreign_state", function.come_back(cookie, state, path={"client": "other"}))

    def test_install_return_expired_state_still_in_table_is_refused(
        self, function: Function, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cookie, state = function.open_page()
        later = time.time() + 1_801
        monkeypatch.setattr(oauth_state, "epoch", lambda after_s: int(later) + after_s)
        assert refused_with("expired_state", function.come_back(cookie, state))
        assert function.queued() == []

    def test_install_return_cookie_among_others_is_found(self, function: Function) -> None:
        cookie, state = function.open_page()
        assert function.come_back(f"a=b; {cookie}; __Host-portaria2=x", state)["statusCode"] == 303

    @pytest.mark.parametrize("fault", ["drop", "InternalServerError", "AccessDeniedException"])
    def test_install_return_table_failure_answers_503_and_reload_succeeds(self, function: Function, fault: str) -> None:
        cookie, state = function.open_page()
        function.endpoint.faults["dynamodb"] = fault

        answer = function.come_back(cookie, state)

        assert answer["statusCode"] == 503
        assert function.queued() == []
        function.endpoint.faults.clear()
        assert function.come_back(cookie, state)["statusCode"] == 303
        assert len(function.queued()) == 1

    def test_install_return_lost_state_claim_answer_answers_503_and_reload_succeeds(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.endpoint.faults["dynamodb.UpdateItem"] = "drop_after"
        assert function.come_back(cookie, state)["statusCode"] == 503
        function.endpoint.faults.clear()
        assert function.come_back(cookie, state)["statusCode"] == 303
        assert len(function.queued()) == 1

    def test_install_return_install_item_write_failure_still_queues_code(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.endpoint.faults["dynamodb.PutItem"] = "InternalServerError"
        assert function.come_back(cookie, state)["statusCode"] == 303
        assert len(function.queued()) == 1

    def test_install_return_reloaded_does_not_reset_connected_install(self, function: Function) -> None:
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

    def test_install_hook_with_state_without_cookie_is_refused(self, function: Function) -> None:
        _, state = function.open_page()
        answer = function.get("widget_hook", query={"state": [state]}, headers=HTML)
        assert refused_with("foreign_state", answer)


class TestRefusedConsent:
    def test_install_refusal_access_denied_shows_page_and_uses_state(self, function: Function) -> None:
        cookie, state = function.open_page()

        answer = function.get("refusal", query={"state": [state]}, headers={"Cookie": [cookie]})

        assert answer["statusCode"] == 200
        assert answer["headers"]["Content-Type"].startswith("text/html")
        assert function.queued() == []
        assert refused_with("used_state", function.come_back(cookie, state))

    def test_install_refusal_without_cookie_does_not_use_state(self, function: Function) -> None:
        cookie, state = function.open_page()
        assert function.get("refusal", query={"state": [state]})["statusCode"] == 200
        assert function.come_back(cookie, state)["statusCode"] == 303

    @pytest.mark.parametrize("fault", ["drop", "InternalServerError"])
    def test_install_refusal_table_failure_still_shows_page(self, function: Function, fault: str) -> None:
        function.endpoint.faults["dynamodb"] = fault
        assert function.get("refusal")["statusCode"] == 200
        assert function.get("refusal", query={"state": None})["statusCode"] == 200


class TestPages:
    def test_install_start_unknown_client_is_not_found_without_cookie(self, function: Function) -> None:
        answer = function.get("start", path={"client": "nobody"})
        assert answer["statusCode"] == 404
        assert "Set-Cookie" not in answer["headers"]

    def test_install_start_table_failure_answers_503(self, function: Function) -> None:
        function.endpoint.faults["dynamodb"] = "InternalServerError"
        assert function.get("start")["statusCode"] == 503

    def test_install_start_page_has_button_and_plain_link(self, function: Function) -> None:
        body = function.get("start")["body"]
        assert "https://www.kommo.com/oauth?client_id=client-id" in body
        assert "kommo_oauth" in body

    def test_install_result_install_not_stored_yet_is_received(self, function: Function) -> None:
        answer = function.get("result", headers={"accept": ["application/json"], "Accept": []})
        assert json.loads(answer["body"]) == {"state": "received", "reason": "", "account": ""}
        assert answer["headers"]["Cache-Control"] == "no-store"

    def test_install_result_failed_install_has_reason_and_account(self, function: Function) -> None:
        item = {"pk": f"INSTALL#{INSTALL}", "sk": "INSTALL", "state": "failed", "reason": "code_expired"}
        function.aws.table.put({**item, "account_host": "acme.kommo.com"})
        answer = function.get("result", path={"install": INSTALL}, headers={"Accept": ["application/json"]})
        assert json.loads(answer["body"]) == {"state": "failed", "reason": "code_expired", "account": "acme.kommo.com"}
        assert function.get("result", path={"install": INSTALL})["statusCode"] == 200

    @pytest.mark.parametrize("install", ["", "x", "A" * 26, "a" * 27, "a" * 25 + "1", "../admin", "é" * 26])
    def test_install_result_invalid_install_id_is_not_found_without_aws_call(
        self, function: Function, install: str
    ) -> None:
        assert function.get("result", path={"install": install})["statusCode"] == 404
        assert function.endpoint.calls == []


class Provider:
    """An OAuth client of a generic provider, and links for a connection of it."""

    AUTHORIZE_URL = "https://login.example.com/authorize?audience=crm%20api"
    REDIRECT_URI = "https://api.example.com/live/install/oauth2/erp"

    def __init__(self, function: Function) -> None:
        self.function = function
        put(
            function.aws.table,
            OAuthClient(
                "oauth2",
                "erp",
                "client & id",
                self.REDIRECT_URI,
                "default",
                authorize_url=self.AUTHORIZE_URL,
                token_url="https://login.example.com/token",
                api_domains="api.example.com",
            ),
            new=True,
        )
        put(
            function.aws.table,
            OAuthClient("oauth2", "other", "x", "https://api.example.com/x", authorize_url=self.AUTHORIZE_URL),
            new=True,
        )

    def link(self, **changes: Any) -> str:
        """The token of a link for the connection `main`, as the API makes it; `changes` are of its item."""
        link = InstallLink(
            "reconnect", "oauth2", "erp", connection="main", account_host="login.example.com", scopes="read write"
        )
        return create_link(self.function.aws.table, link, **changes)

    def open(self, *tokens: str, cookie: str = "", client: str = "erp") -> dict[str, Any]:
        query: dict[str, list[str] | None] = {"link": list(tokens)} if tokens else {}
        path = {"platform": "oauth2", "client": client}
        return self.function.get("start", query=query, headers={"Cookie": [cookie]}, path=path)

    def begin(self, cookie: str = "", token: str = "") -> tuple[str, str, str]:
        """Open a link; the cookie header, the state and the code challenge."""
        answer = self.open(token or self.link(), cookie=cookie)
        assert answer["statusCode"] == 303
        query = parse_qs(urlsplit(answer["headers"]["Location"]).query)
        cookie = answer["headers"]["Set-Cookie"].partition(";")[0]
        return cookie, query["state"][0], query["code_challenge"][0]

    def come_back(self, cookie: str, state: str, code: str = "canary-code", **more: list[str]) -> dict[str, Any]:
        event = copy.deepcopy(EVENTS["start"]) | {"resource": "/install/{platform}/{client}"}
        event["pathParameters"] = {"platform": "oauth2", "client": "erp"}
        event["requestContext"]["path"] = "/live/install/oauth2/erp"
        event["multiValueHeaders"] |= {**HTML, "Cookie": [cookie]}
        event["multiValueQueryStringParameters"] = {"code": [code], "state": [state], **more}
        answer: dict[str, Any] = self.function.handler.handler(event, None)
        return answer


@pytest.fixture
def provider(function: Function) -> Provider:
    return Provider(function)


def challenge_of(verifier: str) -> str:
    """RFC 7636, 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


class TestConnectionLinks:
    def test_authorization_link_valid_token_redirects_to_consent_page_with_pkce(self, provider: Provider) -> None:
        answer = provider.open(provider.link())

        assert answer["statusCode"] == 303
        assert answer["headers"]["Cache-Control"] == "no-store"
        assert answer["headers"]["Referrer-Policy"] == "no-referrer"
        location = answer["headers"]["Location"]
        assert location.startswith("https://login.example.com/authorize?audience=crm%20api&")
        query = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        state, challenge = query.pop("state"), query.pop("code_challenge")
        assert query == {
            "audience": "crm api",
            "response_type": "code",
            "client_id": "client & id",
            "redirect_uri": provider.REDIRECT_URI,
            "scope": "read write",
            "code_challenge_method": "S256",
        }
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", state)
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge)
        name, *attributes = answer["headers"]["Set-Cookie"].split("; ")
        assert re.fullmatch(r"__Host-portaria=[A-Za-z0-9_-]{43}", name)
        assert set(attributes) == {"Path=/", "Max-Age=1800", "Secure", "HttpOnly", "SameSite=Lax"}

    def test_authorization_link_connection_without_scopes_requests_none(self, provider: Provider) -> None:
        location = provider.open(provider.link(scopes=""))["headers"]["Location"]
        assert "scope=" not in location

    def test_authorization_return_queues_code_with_connection_and_verifier(self, provider: Provider) -> None:
        token = provider.link()
        cookie, state, challenge = provider.begin(token=token)

        answer = provider.come_back(cookie, state, iss=["https://login.example.com"], session_state=["x"])

        install = install_receiver.install_id("oauth2", "erp", Secret("canary-code"))
        assert (answer["statusCode"], answer["headers"]["Location"]) == (303, f"erp/result/{install}")
        [message] = provider.function.queued()
        assert challenge_of(message.pop("code_verifier")) == challenge
        assert message.pop("received_at")
        assert message == {
            "version": 1,
            "install_id": install,
            "platform": "oauth2",
            "client": "erp",
            "account_host": "login.example.com",
            "source": "browser",
            "connection": "main",
            "link": install_link_id(token),
            "code": "canary-code",
            "address_hash": SOURCE,
        }
        item = provider.function.aws.table.get(f"INSTALL#{install}", "INSTALL")
        assert item is not None
        assert item["account_host"] == "login.example.com"
        # The result page reads the connection, which only the worker creates.
        assert "connection" not in item

    def test_authorization_return_reloaded_has_same_install_id_and_verifier(self, provider: Provider) -> None:
        cookie, state, _ = provider.begin()
        assert {provider.come_back(cookie, state)["statusCode"] for _ in range(2)} == {303}
        first, second = provider.function.queued()
        assert first["code_verifier"] == second["code_verifier"]
        assert first["install_id"] == second["install_id"]

    def test_authorization_link_and_return_store_no_secret_in_clear_text(self, provider: Provider) -> None:
        """Given the whole table, then neither the token, the state, the cookie nor the verifier can be read in it."""
        token = provider.link()
        answer = provider.open(token)
        cookie = answer["headers"]["Set-Cookie"].partition(";")[0]
        state = parse_qs(urlsplit(answer["headers"]["Location"]).query)["state"][0]
        provider.come_back(cookie, state)
        [message] = provider.function.queued()
        stored = json.dumps(client("dynamodb").scan(TableName=provider.function.aws.table.name)["Items"])
        assert "main" in stored
        for secret in (token, state, cookie.partition("=")[2], message["code_verifier"], "canary-code"):
            assert secret not in stored

    def test_code_verifier_depends_on_cookie_and_has_rfc_7636_form(self) -> None:
        """The state, which the provider and its logs see, gives the verifier only with this browser's cookie."""
        cookies, state = [oauth_state.random_token() for _ in range(2)], Secret("the-state")
        first, second = (oauth_state.code_verifier(cookie, state).reveal() for cookie in cookies)
        assert first != second
        assert first == oauth_state.code_verifier(cookies[0], Secret("the-state")).reveal()
        # RFC 7636, 4.1: 43 to 128 unreserved characters.
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", first)

    def test_authorization_link_each_link_and_browser_has_its_own_challenge(self, provider: Provider) -> None:
        cookie, _, first = provider.begin()
        same_cookie, _, second = provider.begin(cookie)
        other_cookie, _, third = provider.begin()
        assert same_cookie == cookie != other_cookie
        assert len({first, second, third}) == 3

    def test_authorization_link_opened_again_in_other_browser_is_refused_as_used(self, provider: Provider) -> None:
        token = provider.link()
        provider.open(token)
        answer = provider.open(token)
        assert refused_with("used_link", answer)
        assert "Set-Cookie" not in answer["headers"]

    def test_authorization_link_opened_again_in_same_browser_has_same_state_until_used(
        self, provider: Provider
    ) -> None:
        token = provider.link()
        first = provider.open(token)
        cookie = first["headers"]["Set-Cookie"].partition(";")[0]
        again = provider.open(token, cookie=cookie)
        assert again["headers"]["Location"] == first["headers"]["Location"]
        provider.come_back(cookie, parse_qs(urlsplit(first["headers"]["Location"]).query)["state"][0])
        assert refused_with("used_link", provider.open(token, cookie=cookie))

    def test_authorization_link_opened_in_two_browsers_concurrently_only_one_succeeds(
        self, provider: Provider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given a second browser that has found the token unused, when the first one uses it, then the second is refused."""
        token = provider.link()
        states = provider.function.handler.states
        create, opened = states.create, []

        def race(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(states, "create", create)
            opened.append(provider.open(token)["statusCode"])
            return create(*arguments, **options)

        monkeypatch.setattr(states, "create", race)
        assert refused_with("used_link", provider.open(token))
        assert opened == [303]

    def test_authorization_link_expired_link_still_in_table_is_refused(self, provider: Provider) -> None:
        assert refused_with("expired_link", provider.open(provider.link(ends_at=int(time.time()))))

    @pytest.mark.parametrize("token", ["x", "A" * 43, "A" * 44, "é" * 43, "' OR 1=1", "A" * 5_000])
    def test_authorization_link_forged_token_is_refused(self, provider: Provider, token: str) -> None:
        assert refused_with("unknown_link", provider.open(token))

    def test_authorization_link_without_single_token_is_refused_without_aws_call(self, provider: Provider) -> None:
        for answer in (provider.open(), provider.open(""), provider.open("A" * 43, "B" * 43)):
            assert refused_with("missing_link", answer)
        assert provider.function.endpoint.calls == []

    def test_authorization_link_of_another_client_is_refused(self, provider: Provider) -> None:
        token = provider.link()
        assert refused_with("unknown_link", provider.open(token, client="other"))
        assert provider.open(token, client="nobody")["statusCode"] == 404
        assert provider.open(token)["statusCode"] == 303

    def test_install_start_link_of_another_platform_is_unknown(self, provider: Provider) -> None:
        token = provider.link()
        answer = provider.function.get("start", query={"link": [token]}, headers=HTML)
        assert refused_with("unknown_link", answer)
        assert provider.open(token)["statusCode"] == 303

    @pytest.mark.parametrize("fault", ["drop", "InternalServerError", "AccessDeniedException"])
    @pytest.mark.parametrize("operation", ["GetItem", "PutItem", "UpdateItem"])
    def test_authorization_link_table_failure_answers_503_and_reopening_succeeds(
        self, provider: Provider, operation: str, fault: str
    ) -> None:
        token = provider.link()
        provider.function.endpoint.faults[f"dynamodb.{operation}"] = fault
        failed = provider.open(token)
        assert failed["statusCode"] == 503
        provider.function.endpoint.faults.clear()
        cookie = failed["headers"]["Set-Cookie"].partition(";")[0]
        assert provider.open(token, cookie=cookie)["statusCode"] == 303

    def test_authorization_link_table_hang_answers_503_within_function_timeout(self, provider: Provider) -> None:
        provider.function.endpoint.faults["dynamodb"] = "hang"
        started = time.monotonic()
        assert provider.open(provider.link())["statusCode"] == 503
        assert time.monotonic() - started < 5.8
        assert install_sessions.PAGE_READ_S + install_sessions.LINK_S < 6

    def test_authorization_return_in_another_browser_is_refused(self, provider: Provider) -> None:
        cookie, state, _ = provider.begin()
        stranger, _, _ = provider.begin()
        for other in (stranger, ""):
            assert refused_with("foreign_state", provider.come_back(other, state))
        assert provider.function.queued() == []
        assert provider.come_back(cookie, state)["statusCode"] == 303

    def test_authorization_return_state_of_another_platform_is_refused(self, provider: Provider) -> None:
        cookie, state = provider.function.open_page()
        assert refused_with("foreign_state", provider.come_back(cookie, state))
        assert provider.function.queued() == []

    def test_authorization_return_second_code_for_used_state_is_refused(self, provider: Provider) -> None:
        cookie, state, _ = provider.begin()
        provider.come_back(cookie, state)
        provider.function.queued()
        assert refused_with("used_state", provider.come_back(cookie, state, "canary-other"))
        assert provider.function.queued() == []

    def test_authorization_refusal_access_denied_shows_page_and_link_works_again(self, provider: Provider) -> None:
        """Given a customer who refused, when they open their link again and agree, then it is taken."""
        token = provider.link()
        cookie, state, _ = provider.begin(token=token)
        event = copy.deepcopy(EVENTS["refusal"])
        event["pathParameters"] = {"platform": "oauth2", "client": "erp"}
        event["multiValueQueryStringParameters"] = {"error": ["access_denied"], "state": [state]}
        event["multiValueHeaders"] |= {"Cookie": [cookie]}
        answer = provider.function.handler.handler(event, None)
        assert answer["statusCode"] == 200
        # The page without the link would lead nowhere.
        assert 'href="erp/start"' not in answer["body"]
        assert provider.begin(cookie, token)[1] == state
        assert provider.come_back(cookie, state)["statusCode"] == 303

    def test_authorization_return_queue_failure_keeps_code_with_connection_and_verifier(
        self, provider: Provider
    ) -> None:
        cookie, state, challenge = provider.begin()
        provider.function.endpoint.faults["sqs"] = "drop"
        assert provider.come_back(cookie, state)["statusCode"] == 303
        [message] = provider.function.kept()
        assert message["connection"] == "main"
        assert challenge_of(message["code_verifier"]) == challenge

    def test_authorization_link_and_return_log_no_secret(
        self, provider: Provider, capfd: pytest.CaptureFixture[str]
    ) -> None:
        token = provider.link()
        answer = provider.open(token)
        cookie = answer["headers"]["Set-Cookie"].partition(";")[0]
        state = parse_qs(urlsplit(answer["headers"]["Location"]).query)["state"][0]
        provider.open(token)
        provider.come_back("", state)
        provider.come_back(cookie, state)
        [message] = provider.function.queued()
        printed = "".join(capfd.readouterr())
        assert message["install_id"] in printed
        for secret in (token, state, cookie.partition("=")[2], message["code_verifier"], "canary-code"):
            assert secret not in printed


def test_accept_install_all_arrivals_and_faults_log_no_secret(
    function: Function, capfd: pytest.CaptureFixture[str]
) -> None:
    """Given every kind of install and failure, then no code, state or cookie is in the log."""
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


def test_accept_install_log_line_has_timestamp_level_and_install_fields(
    function: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    function.get("widget_hook")
    [line] = map(json.loads, capsys.readouterr().out.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "message": "install_received",
        "service": "portaria",
        "install_id": INSTALL,
        "platform": "kommo",
        "client": "crm",
        "account_host": "acme.kommo.com",
        "source": "widget",
        "stored": "queue",
        "proven": False,
    }


def test_accept_install_hook_imports_only_light_modules(function: Function) -> None:
    """Given a fresh interpreter, when a webhook has been answered, then only these modules were imported."""
    script = f"""
import json, sys
before = set(sys.modules)
sys.path[:0] = [{str(ROOT / "layers" / "portaria")!r}, {str(HANDLER.parent)!r}]
import handler
event = json.load(open({str(ROOT / "events" / "accept_install" / "widget_hook.json")!r}))
assert handler.handler(event, None)["statusCode"] == 200
own = sorted(name for name in set(sys.modules) - before if name.startswith("portaria"))
others = {{name.partition(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names
heavy = {{"typing", "dataclasses", "inspect", "logging", "http", "email", "urllib", "asyncio", "concurrent", "tomllib"}}
heavy.add("secrets")
sys.stderr.write(json.dumps([own, sorted(others), sorted(heavy & set(sys.modules))]))
"""
    environment = {
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_ENDPOINT_URL": function.endpoint.url,
        "TABLE_NAME": function.aws.environment["TABLE_NAME"],
        "EXCHANGES_QUEUE_URL": function.aws.environment["EXCHANGES_QUEUE_URL"],
        "UNPROVEN_EXCHANGES_QUEUE_URL": function.aws.environment["UNPROVEN_EXCHANGES_QUEUE_URL"],
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    own, others, heavy = json.loads(done.stderr)
    assert own == [
        "portaria",
        "portaria.aws",
        "portaria.aws.light_client",
        "portaria.core",
        "portaria.core.callbacks",
        "portaria.core.clock",
        "portaria.core.cold_path",
        "portaria.core.cold_path.named_tuples",
        "portaria.core.error_roots",
        "portaria.core.http",
        "portaria.core.http.request",
        "portaria.core.item_keys",
        "portaria.core.settings",
        "portaria.platforms",
        "portaria.platforms.kommo",
        "portaria.platforms.kommo.install",
        "portaria.webhooks",
        "portaria.webhooks.arrival_sources",
        "portaria.webhooks.install_receiver",
        "portaria.webhooks.light_table",
        "portaria.webhooks.oauth_client_cache",
        "portaria.webhooks.oauth_state",
        "portaria.webhooks.request_log",
        "portaria.webhooks.time_budget",
    ]
    assert others == ["handler", "portaria"]
    assert heavy == []


def test_accept_install_pages_import_only_locked_layer_packages() -> None:
    """accept_install has the package's own layer, without the layer of the other functions' libraries."""
    locked = pins(ROOT / "layers" / "portaria" / "requirements.txt")
    script = """
import json, sys
import handler
from portaria.web import render
render.refused("pt", start_url="start")
found = {name.partition(".")[0] for name in sys.modules if getattr(sys.modules[name], "__file__", None)}
print(json.dumps(sorted(found - sys.stdlib_module_names - {"__main__", "handler", "portaria"})))
"""
    environment = {
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "TABLE_NAME": "portaria",
        "EXCHANGES_QUEUE_URL": "http://127.0.0.1:9/1/exchanges",
        "UNPROVEN_EXCHANGES_QUEUE_URL": "http://127.0.0.1:9/1/unproven_exchanges",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "layers" / "portaria"), str(HANDLER.parent)]),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    imported = [name for name in json.loads(done.stdout) if not name.startswith("_")]
    assert imported == sorted(name for name, _ in locked)


class TestQueueSelection:
    """Installs with a state, or from addresses whose codes have worked, do not queue behind those of unknown senders."""

    def test_install_hook_without_state_is_sent_to_unproven_queue(self, function: Function) -> None:
        function.get("widget_hook")
        assert (len(function.queued_in("exchanges")), len(function.queued_in("unproven_exchanges"))) == (0, 1)
        [sent] = [call.payload for call in function.endpoint.calls if call.operation == "SendMessage"]
        assert sent["MessageGroupId"] == SOURCE

    def test_install_return_with_state_is_sent_to_proven_queue(self, function: Function) -> None:
        cookie, state = function.open_page()
        assert function.come_back(cookie, state)["statusCode"] == 303
        assert (len(function.queued_in("exchanges")), len(function.queued_in("unproven_exchanges"))) == (1, 0)

    def test_install_hook_known_source_address_is_sent_to_proven_queue(self, function: Function) -> None:
        HookSources(function.aws.table).succeeded("kommo", SOURCE)
        function.get("widget_hook")
        assert (len(function.queued_in("exchanges")), len(function.queued_in("unproven_exchanges"))) == (1, 0)

    def test_install_hook_expired_source_address_is_sent_to_unproven_queue(self, function: Function) -> None:
        function.aws.table.put({"pk": "HOOK_SOURCES#kommo", "sk": "HOOK_SOURCES", SOURCE: int(time.time()) - 1})
        function.get("widget_hook")
        assert len(function.queued_in("unproven_exchanges")) == 1

    def test_install_hook_known_address_only_in_headers_is_sent_to_unproven_queue(self, function: Function) -> None:
        HookSources(function.aws.table).succeeded("kommo", SOURCE)
        identity = {**EVENTS["widget_hook"]["requestContext"]["identity"], "sourceIp": "198.51.100.7"}
        known = EVENTS["widget_hook"]["requestContext"]["identity"]["sourceIp"]
        claims = {name: [known] for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "True-Client-IP")}
        function.get("widget_hook", headers=claims, context={"identity": identity})
        assert len(function.queued_in("unproven_exchanges")) == 1

    def test_install_hook_over_known_address_allowance_is_sent_to_unproven_queue(self, function: Function) -> None:
        HookSources(function.aws.table).succeeded("kommo", SOURCE)
        for number in range(60):
            assert function.get("widget_hook", query={"code": [f"code-{number}"]})["statusCode"] == 200
        proven, unproven = function.queued_in("exchanges"), function.queued_in("unproven_exchanges")
        assert len(proven) + len(unproven) == 60
        assert arrival_sources.KNOWN_BURST <= len(proven) < 40

    def test_install_hook_without_source_address_is_sent_to_unproven_queue(self, function: Function) -> None:
        assert function.get("widget_hook", context={"identity": None})["statusCode"] == 200
        [message] = function.queued_in("unproven_exchanges")
        assert "address_hash" not in message

    def test_install_hook_unproven_queue_failure_keeps_code_as_unproven(self, function: Function) -> None:
        function.endpoint.faults["sqs"] = "drop"
        function.get("widget_hook")
        assert len(function.aws.table.query(install_receiver.UNPROVEN_ARRIVALS)[0]) == 1
        assert function.aws.table.query(install_receiver.ARRIVALS)[0] == []


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:DB8:1:2:0:0:0:1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ],
)
def test_hash_address_ipv6_is_its_64_bit_network(one: str, other: str, is_same: bool) -> None:
    sources = [arrival_sources.hash_address(address) for address in (one, other)]
    assert (sources[0] == sources[1]) == is_same
    assert all(re.fullmatch(r"[0-9a-f]{32}", source) for source in sources)


@pytest.mark.parametrize("address", ["", "::x"])
def test_hash_address_invalid_or_missing_is_empty(address: str) -> None:
    assert arrival_sources.hash_address(address) == ""
