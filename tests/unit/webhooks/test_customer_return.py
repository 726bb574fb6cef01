"""Where a customer goes when an install is over: to the team's application, as far as the OAuth client registers it now."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from portaria.aws.service_clients import boto3_client as client
from portaria.connections import oauth_clients
from portaria.connections.branding import logos
from portaria.connections.branding.logos import Logo
from portaria.core.callbacks import OAuthClient
from portaria.core.item_keys import oauth_client_key
from portaria.installs import install_links
from portaria.installs.install_links import InstallLink
from portaria.webhooks import oauth_client_cache
from tests.fakes.aws.endpoint import Endpoint, aws_endpoint
from tests.fakes.aws.moto_cloud import Cloud, cloud
from tests.fakes.connections.accept_install import EVENTS, load_handler

pytestmark = pytest.mark.enable_socket

INSTALL = "mfzwizltoq2dkobvhe3tmnzygq"
CLIENT = OAuthClient(
    "kommo", "crm", "client-id", "https://api.example.com/live/install/kommo/crm",
    return_urls="https://app.example.com/done https://app.example.com/portaria/*", display_name="Aurora Sync",
)  # fmt: skip
RETURN = "https://app.example.com/portaria/acme?tab=2"
JSON = {"Accept": ["application/json"]}


class Function:
    """accept_install, and the AWS behind it."""

    def __init__(self, aws: Cloud, endpoint: Endpoint) -> None:
        self.aws = aws
        self.endpoint = endpoint
        names = ("EXCHANGES_QUEUE_URL", "UNPROVEN_EXCHANGES_QUEUE_URL")
        self.handler = load_handler(endpoint.url, **{name: aws.environment[name] for name in names})

    def get(self, event_name: str, **options: Any) -> dict[str, Any]:
        event = copy.deepcopy(EVENTS[event_name])
        event["multiValueQueryStringParameters"] = (event["multiValueQueryStringParameters"] or {}) | options.pop(
            "query", {}
        )
        event["multiValueHeaders"] |= options.pop("headers", {})
        event["pathParameters"] |= options.pop("path", {})
        answer: dict[str, Any] = self.handler.handler(event, None)
        return answer

    def result(self, **options: Any) -> dict[str, Any]:
        return self.get("result", path={"install": INSTALL}, **options)

    def put_install(self, state: str, return_url: str = RETURN, **more: str) -> None:
        self.aws.table.put(
            {"pk": f"INSTALL#{INSTALL}", "sk": "INSTALL", "state": state, "return_url": return_url, **more}
        )

    def open_page(self) -> tuple[str, str]:
        """Open the install page; returns the cookie header and the state."""
        answer = self.get("start")
        state = re.search(r"state=([A-Za-z0-9_-]{43})", answer["body"])
        assert state is not None
        return answer["headers"]["Set-Cookie"].partition(";")[0], state[1]

    def refuse(self, cookie: str, state: str) -> dict[str, Any]:
        return self.get("refusal", query={"state": [state]}, headers={"Cookie": [cookie]})

    def bind(self, **attributes: str) -> None:
        """Give every stored state what an install link gives it."""
        dynamodb = client("dynamodb")
        for item in dynamodb.scan(TableName=self.aws.table.name)["Items"]:
            if item["pk"]["S"].startswith("STATE#"):
                values = {name: {"S": value} for name, value in attributes.items()}
                dynamodb.put_item(TableName=self.aws.table.name, Item=item | values)


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


@pytest.fixture
def function(aws: Cloud) -> Iterator[Function]:
    oauth_clients.put(aws.table, CLIENT, new=True)
    with aws_endpoint() as endpoint:
        made = Function(aws, endpoint)
        yield made
        made.handler.receiver._sqs.close()
        made.handler.table.close()
    aws.receive("exchanges")
    dynamodb = client("dynamodb")
    for item in dynamodb.scan(TableName=aws.table.name)["Items"]:
        dynamodb.delete_item(TableName=aws.table.name, Key={name: item[name] for name in ("pk", "sk")})


class TestTheResult:
    @pytest.mark.parametrize("state", ["connected", "failed"])
    def test_install_result_over_redirects_with_install_and_status(self, function: Function, state: str) -> None:
        function.put_install(state, reason="code_expired" if state == "failed" else "")
        answer = function.result()
        assert answer["statusCode"] == 303
        assert answer["headers"]["Location"] == f"{RETURN}&install={INSTALL}&status={state}"
        assert answer["headers"]["Referrer-Policy"] == "no-referrer"
        assert answer["headers"]["Cache-Control"] == "no-store"
        assert answer["body"] == ""

    def test_install_result_over_tells_its_page_where_to_go(self, function: Function) -> None:
        function.put_install("connected", account_host="acme.kommo.com")
        assert json.loads(function.result(headers=JSON)["body"]) == {
            "state": "connected",
            "reason": "",
            "account": "acme.kommo.com",
            "return_to": f"{RETURN}&install={INSTALL}&status=connected",
        }

    @pytest.mark.parametrize("state", ["received", "exchanging"])
    def test_install_result_not_over_stays_on_page(self, function: Function, state: str) -> None:
        function.put_install(state)
        assert function.result()["statusCode"] == 200
        assert "return_to" not in json.loads(function.result(headers=JSON)["body"])

    def test_install_result_while_connecting_reads_no_client_for_each_question(self, function: Function) -> None:
        function.put_install("exchanging")
        function.endpoint.calls.clear()
        function.result(headers=JSON)
        assert len(function.endpoint.calls) == 1

    def test_install_result_without_return_url_stays_on_page(self, function: Function) -> None:
        function.put_install("connected", return_url="")
        answer = function.result()
        assert answer["statusCode"] == 200
        assert "Aurora Sync" in answer["body"]

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/portaria/x",
            "https://app.example.com/portaria/../admin",
            "https://app.example.com/other",
            "javascript:alert(1)",
            "//evil.example/",
        ],
    )
    def test_install_result_return_url_not_registered_stays_on_page(self, function: Function, url: str) -> None:
        function.put_install("connected", return_url=url)
        answer = function.result()
        assert answer["statusCode"] == 200
        assert "evil" not in answer["body"]
        assert "return_to" not in json.loads(function.result(headers=JSON)["body"])

    def test_install_result_registration_changed_meanwhile_stays_on_page(
        self, function: Function, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(oauth_client_cache, "CLIENT_REMEMBERED_S", 0.0)
        function.put_install("connected")
        assert function.result()["statusCode"] == 303
        pk, sk = oauth_client_key("kommo", "crm")
        function.aws.table.update(pk, sk, "SET return_urls = :none", values={":none": "https://app.example.com/done"})
        assert function.result()["statusCode"] == 200

    def test_install_result_client_unreadable_stays_on_page(self, function: Function) -> None:
        function.put_install("connected")
        function.aws.table.delete(*oauth_client_key("kommo", "crm"))
        assert function.result()["statusCode"] == 200

    def test_install_result_page_has_the_language_of_the_link(self, function: Function) -> None:
        function.put_install("exchanging", language="es")
        assert function.result()["headers"]["Content-Language"] == "es"

    def test_install_result_in_popup_posts_to_the_registered_origin(self, function: Function) -> None:
        function.put_install("connected")
        answer = function.result(query={"display": ["popup"]})
        assert answer["statusCode"] == 200
        assert answer["headers"]["Cross-Origin-Opener-Policy"] == "unsafe-none"
        assert 'data-origin="https://app.example.com"' in answer["body"]

    def test_install_result_in_popup_without_return_url_keeps_no_opener(self, function: Function) -> None:
        function.put_install("connected", return_url="")
        answer = function.result(query={"display": ["popup"]})
        assert answer["headers"]["Cross-Origin-Opener-Policy"] == "same-origin-allow-popups"
        assert "postMessage" not in answer["body"]


class TestTheRefusal:
    def test_install_refusal_redirects_at_once_with_status_only(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.bind(return_url=RETURN)
        answer = function.refuse(cookie, state)
        assert (answer["statusCode"], answer["headers"]["Location"]) == (303, f"{RETURN}&status=refused")

    def test_install_refusal_in_another_browser_shows_page(self, function: Function) -> None:
        _, state = function.open_page()
        function.bind(return_url=RETURN)
        assert function.refuse("__Host-portaria=" + "x" * 43, state)["statusCode"] == 200

    def test_install_refusal_return_url_not_registered_shows_page(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.bind(return_url="https://evil.example/portaria/x", language="pt")
        answer = function.refuse(cookie, state)
        assert answer["statusCode"] == 200
        assert "evil" not in answer["body"]
        assert answer["headers"]["Content-Language"] == "pt-BR"

    def test_install_refusal_in_popup_posts_to_the_registered_origin(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.bind(return_url=RETURN, display="popup")
        answer = function.refuse(cookie, state)
        assert answer["statusCode"] == 200
        assert answer["headers"]["Cross-Origin-Opener-Policy"] == "unsafe-none"
        assert 'data-origin="https://app.example.com"' in answer["body"]


class TestThePopup:
    """An install link that the application opens in a window of its own."""

    def open_link(self, function: Function, display: str, return_url: str = RETURN) -> dict[str, Any]:
        link = InstallLink("install", "kommo", "crm", return_url=return_url)
        _, token = install_links.create(function.aws.table, link, timedelta(hours=1))
        return function.get("start", query={"link": [token.reveal()], **({"display": [display]} if display else {})})

    def come_back(self, function: Function, opened: dict[str, Any]) -> dict[str, Any]:
        state = re.search(r"state=([A-Za-z0-9_-]{43})", opened["body"])
        assert state is not None
        cookie = opened["headers"]["Set-Cookie"].partition(";")[0]
        return function.get("browser_return", query={"state": [state[1]]}, headers={"Cookie": [cookie]})

    def test_install_link_in_popup_keeps_its_opener_on_every_page(self, function: Function) -> None:
        opened = self.open_link(function, "popup")
        assert opened["headers"]["Cross-Origin-Opener-Policy"] == "unsafe-none"
        assert "kommo_oauth" not in opened["body"]
        returned = self.come_back(function, opened)
        assert returned["statusCode"] == 303
        assert returned["headers"]["Cross-Origin-Opener-Policy"] == "unsafe-none"
        assert returned["headers"]["Location"].endswith("?display=popup")
        install = returned["headers"]["Location"].rpartition("/")[2].partition("?")[0]
        page = function.get("result", path={"install": install}, query={"display": ["popup"]})
        assert page["headers"]["Cross-Origin-Opener-Policy"] == "unsafe-none"

    @pytest.mark.parametrize(
        ("display", "return_url"),
        [("", RETURN), ("page", RETURN), ("popup", ""), ("popup", "https://evil.example/portaria/x")],
    )
    def test_install_link_otherwise_is_cut_off_from_its_opener(
        self, function: Function, display: str, return_url: str
    ) -> None:
        opened = self.open_link(function, display, return_url)
        assert opened["headers"]["Cross-Origin-Opener-Policy"] == "same-origin-allow-popups"
        assert "kommo_oauth" in opened["body"]

    def test_install_link_not_in_popup_returns_to_the_plain_result(self, function: Function) -> None:
        returned = self.come_back(function, self.open_link(function, ""))
        assert "display" not in returned["headers"]["Location"]
        assert returned["headers"]["Cross-Origin-Opener-Policy"] == "same-origin-allow-popups"

    def test_install_page_without_link_is_never_a_popup(self, function: Function) -> None:
        answer = function.get("start", query={"display": ["popup"]})
        assert answer["headers"]["Cross-Origin-Opener-Policy"] == "same-origin-allow-popups"


class TestTheLogo:
    @pytest.fixture
    def logo(self, function: Function) -> Logo:
        drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="480" height="120"></svg>'
        logo = logos.check(drawing)
        logos.store(function.aws.table, "kommo", "crm", logo)
        return logo

    def test_logo_is_served_with_its_type_and_kept_by_browsers(self, function: Function, logo: Logo) -> None:
        answer = function.get("logo", path={"version": logo.version})
        assert answer["statusCode"] == 200
        assert answer["isBase64Encoded"]
        headers = answer["headers"]
        assert headers["Content-Type"] == "image/svg+xml"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in headers["Content-Security-Policy"]
        assert "immutable" in headers["Cache-Control"]
        again = function.get("logo", path={"version": logo.version}, headers={"If-None-Match": [headers["ETag"]]})
        assert (again["statusCode"], again["body"]) == (304, "")

    @pytest.mark.parametrize("version", ["", "x", "0" * 16, "0" * 16 + "-1x1", "../CLIENT", "0123456789abcdef-1x1 "])
    def test_logo_unknown_version_is_not_found(self, function: Function, logo: Logo, version: str) -> None:
        assert function.get("logo", path={"version": version})["statusCode"] == 404

    def test_logo_of_another_client_is_not_found(self, function: Function, logo: Logo) -> None:
        assert function.get("logo", path={"version": logo.version, "client": "other"})["statusCode"] == 404

    def test_logo_is_not_read_by_the_install_hook(self, function: Function, logo: Logo) -> None:
        """The hook reads a client's item, which names the logo, and not the item that holds it."""
        function.get("widget_hook")
        assert "LOGO" not in json.dumps(function.endpoint.calls, default=str)
