"""Install links at the hosted pages: tags that travel with the state, and claim links. As in test_accept_install."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import time
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

import pytest

from portaria.aws.service_clients import boto3_client as client
from portaria.core.error_roots import Retryable
from portaria.core.item_keys import claim_key, install_key, install_link_id, install_link_key
from portaria.installs.install_links import InstallLink
from tests.fakes.connections.accept_install import EVENTS, HTML, Function, create_link, refused_with

TAGS = {"customer_id": "c-1", "customer_email": "maria@example.com"}
RETURN_URL = "https://app.example.com/done"

pytestmark = pytest.mark.enable_socket


class Visitor:
    """A browser, with its cookie."""

    def __init__(self, function: Function) -> None:
        self.function, self.cookie = function, ""

    def see(self, page: str, token: str = "", **options: Any) -> dict[str, Any]:
        query: dict[str, list[str] | None] = {"link": [token]} if token else {}
        event = copy.deepcopy(EVENTS["start"])
        event["resource"] = f"/install/{{platform}}/{{client}}/{page}"
        event["httpMethod"] = options.pop("method", "GET")
        event["multiValueQueryStringParameters"] = query or None
        event["multiValueHeaders"] |= (
            HTML | ({"Cookie": [self.cookie]} if self.cookie else {}) | options.pop("headers", {})
        )
        event["pathParameters"] |= options.pop("path", {})
        event |= options
        answer: dict[str, Any] = self.function.handler.handler(event, None)
        if "Set-Cookie" in answer["headers"]:
            self.cookie = answer["headers"]["Set-Cookie"].partition(";")[0]
        return answer

    def open(self, token: str, **options: Any) -> str:
        """Open an install link; the state of the page."""
        answer = self.see("start", token, **options)
        assert answer["statusCode"] == 200, answer["body"]
        found = re.search(r"state=([A-Za-z0-9_-]{43})", answer["body"])
        assert found
        return found[1]

    def claim(self, token: str) -> str:
        answer = self.see("claim", token)
        assert answer["statusCode"] == 200, answer["body"]
        found = re.search(r'name="state" value="([A-Za-z0-9_-]{43})"', answer["body"])
        assert found
        return found[1]

    def confirm(self, state: str, **options: Any) -> dict[str, Any]:
        headers = {"Content-Type": ["application/x-www-form-urlencoded"], "Origin": ["null"]}
        body = options.pop("body", urlencode({"state": state}))
        headers |= options.pop("headers", {})
        return self.see("claim", method="POST", body=body, headers=headers, isBase64Encoded=False, **options)


@pytest.fixture
def visitor(function: Function) -> Visitor:
    return Visitor(function)


@pytest.fixture
def other(function: Function) -> Visitor:
    return Visitor(function)


def link(function: Function, life: timedelta = timedelta(hours=1), **fields: Any) -> str:
    changes = fields.pop("changes", {})
    values = {"purpose": "install", "platform": "kommo", "client": "crm", "tags": TAGS, "return_url": RETURN_URL}
    return create_link(function.aws.table, InstallLink(**values | fields), life, **changes)


def claim_link(function: Function, life: timedelta = timedelta(hours=1), **fields: Any) -> str:
    return link(function, life, **{"purpose": "claim", "account_id": "31", **fields})


class TestInstall:
    def test_install_return_of_link_queues_and_shows_what_the_link_holds(
        self, function: Function, visitor: Visitor
    ) -> None:
        token = link(function, language="pt")
        state = visitor.open(token)
        assert function.come_back(visitor.cookie, state)["statusCode"] == 303

        [message] = function.queued()
        told = {name: message[name] for name in ("link", "tags", "return_url", "language")}
        assert told == {
            "link": install_link_id(token), "tags": json.dumps(TAGS, separators=(",", ":")), "return_url": RETURN_URL,
            "language": "pt",
        }  # fmt: skip
        assert "connection" not in message
        item = function.aws.table.get(*install_key(message["install_id"])) or {}
        assert (item["tags"], item["return_url"], item["link"]) == (TAGS, RETURN_URL, install_link_id(token))

    def test_install_return_without_link_has_nothing_of_one(self, function: Function) -> None:
        cookie, state = function.open_page()
        function.come_back(cookie, state)
        [message] = function.queued()
        assert not {"link", "tags", "return_url", "language", "account_id"} & message.keys()

    def test_install_return_of_reconnect_link_names_its_account_only(
        self, function: Function, visitor: Visitor
    ) -> None:
        state = visitor.open(link(function, purpose="reconnect", connection="kommo-crm-31", account_id="31"))
        function.come_back(visitor.cookie, state)
        [message] = function.queued()
        assert (message["account_id"], "connection" in message, "code_verifier" in message) == ("31", False, False)

    def test_install_page_of_link_is_in_its_language(self, function: Function, visitor: Visitor) -> None:
        answer = visitor.see("start", link(function, language="es"), headers={"Accept-Language": ["en"]})
        assert answer["headers"]["Content-Language"] == "es"

    def test_pages_of_link_urls_and_answers_hold_no_tag(self, function: Function, visitor: Visitor) -> None:
        token = link(function)
        page = visitor.see("start", token)
        state = visitor.open(token)
        back = function.come_back(visitor.cookie, state)
        [message] = function.queued()
        path = {"install": message["install_id"]}
        result = visitor.see("result/{install}", path=path)
        refusal = function.get(
            "refusal", query={"state": [visitor.open(link(function))]}, headers={"Cookie": [visitor.cookie]}
        )
        for answer in (page, back, result, refusal):
            text = json.dumps(answer)
            assert "c-1" not in text
            assert "maria" not in text

    def test_link_and_return_log_no_tag_and_no_token(
        self, function: Function, visitor: Visitor, capfd: pytest.CaptureFixture[str]
    ) -> None:
        token = link(function)
        state = visitor.open(token)
        function.endpoint.faults["sqs"] = "drop"
        function.come_back(visitor.cookie, state)
        Visitor(function).see("start", token)
        claim = claim_link(function)
        visitor.confirm(visitor.claim(claim))
        printed = "".join(capfd.readouterr())
        assert "install_received" in printed
        for secret in (token, claim, state, "c-1", "maria", RETURN_URL):
            assert secret not in printed

    def test_link_for_a_single_use_belongs_to_its_first_browser(
        self, function: Function, visitor: Visitor, other: Visitor
    ) -> None:
        token = link(function)
        state = visitor.open(token)
        assert refused_with("used_link", other.see("start", token))
        assert visitor.open(token) == state
        item = function.aws.table.get(*install_link_key(install_link_id(token))) or {}
        assert item["used_at"]

    def test_link_for_several_uses_opens_in_each_browser(
        self, function: Function, visitor: Visitor, other: Visitor
    ) -> None:
        token = link(function, single_use=False)
        states = [visitor.open(token), visitor.open(token), other.open(token)]
        assert len(set(states)) == 3
        assert function.come_back(visitor.cookie, states[0])["statusCode"] == 303
        assert function.come_back(other.cookie, states[2], "another-code")["statusCode"] == 303
        assert [json.loads(message["tags"]) for message in function.queued()] == [TAGS, TAGS]

    def test_link_lost_answer_leaves_it_to_the_same_browser(self, function: Function, visitor: Visitor) -> None:
        """Given a link whose marking was carried out while its answer was lost, then the browser was given its cookie, and
        opens it again."""
        token = link(function)
        update = type(function.handler.table).update

        def lose(*arguments: Any, **options: Any) -> Any:
            update(*arguments, **options)
            raise Retryable("aws_unavailable", "no answer", answer_lost=True)

        with patch.object(type(function.handler.table), "update", lose):
            assert visitor.see("start", token)["statusCode"] == 503
        assert visitor.open(token)

    def test_link_state_that_ended_is_renewed_for_its_browser(self, function: Function, visitor: Visitor) -> None:
        token = link(function)
        state = visitor.open(token)
        client("dynamodb").update_item(
            TableName=function.aws.table.name,
            Key={
                "pk": {"S": f"STATE#{hashlib.sha256(state.encode()).hexdigest()}"},
                "sk": {"S": "STATE"},
            },
            UpdateExpression="SET expires_at = :past",
            ExpressionAttributeValues={":past": {"N": str(int(time.time()) - 1)}},
        )
        assert refused_with("expired_state", function.come_back(visitor.cookie, state))
        assert visitor.open(token) == state
        assert function.come_back(visitor.cookie, state)["statusCode"] == 303

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"client": "other"}, "unknown_link"),
            ({"platform": "oauth2"}, "unknown_link"),
            ({"purpose": "claim", "account_id": "31"}, "unknown_link"),
            ({"changes": {"ends_at": 1}}, "expired_link"),
        ],
    )
    def test_link_foreign_or_expired_is_refused_and_gives_no_state(
        self, function: Function, visitor: Visitor, fields: dict[str, Any], reason: str
    ) -> None:
        token = link(function, **fields)
        assert refused_with(reason, visitor.see("start", token))
        assert visitor.cookie == ""
        assert not states(function)

    def test_link_deleted_is_unknown(self, function: Function, visitor: Visitor) -> None:
        token = link(function)
        function.aws.table.delete(*install_link_key(install_link_id(token)))
        assert refused_with("unknown_link", visitor.see("start", token))


class TestClaim:
    def stored(self, function: Function) -> dict[str, Any] | None:
        return function.aws.table.get(*claim_key("kommo", "crm", "31"))

    def test_claim_link_get_shows_one_button_and_changes_nothing(self, function: Function, visitor: Visitor) -> None:
        token = claim_link(function)
        answer = visitor.see("claim", token)
        assert answer["statusCode"] == 200
        assert answer["body"].count("<form") == answer["body"].count("<button") == 1
        assert "form-action 'self'" in answer["headers"]["Content-Security-Policy"]
        assert self.stored(function) is None
        assert function.kept() == []
        # Whatever fetches the link for a preview does not use it up.
        assert visitor.claim(token)

    def test_claim_confirmed_stores_tags_and_message_and_uses_link(self, function: Function, visitor: Visitor) -> None:
        token = claim_link(function)
        answer = visitor.confirm(visitor.claim(token))
        assert answer["statusCode"] == 200
        stored = self.stored(function) or {}
        assert (json.loads(stored["tags"]), stored["link"]) == (TAGS, install_link_id(token))
        assert stored["ends_at"] > time.time()
        owner = {"platform": "kommo", "client": "crm", "account_id": "31"}
        assert function.kept() == [{"version": 1, "claim": owner}]
        assert (function.aws.table.get(*install_link_key(install_link_id(token))) or {})["used_at"]
        assert "c-1" not in json.dumps(answer)

    def test_claim_sent_again_by_same_browser_changes_nothing_more(self, function: Function, visitor: Visitor) -> None:
        state = visitor.claim(claim_link(function))
        visitor.confirm(state)
        function.aws.table.delete(*claim_key("kommo", "crm", "31"))
        assert visitor.confirm(state)["statusCode"] == 200
        assert self.stored(function) is None

    def test_claim_replayed_in_other_browser_is_refused(
        self, function: Function, visitor: Visitor, other: Visitor
    ) -> None:
        token = claim_link(function)
        second = other.claim(token)
        visitor.confirm(visitor.claim(token))
        assert refused_with("used_link", other.confirm(second))
        assert refused_with("used_link", other.see("claim", token))

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"client": "other"}, "unknown_link"),
            ({"purpose": "install"}, "unknown_link"),
            ({"changes": {"ends_at": 1}}, "expired_link"),
        ],
    )
    def test_claim_link_foreign_or_expired_is_refused(
        self, function: Function, visitor: Visitor, fields: dict[str, Any], reason: str
    ) -> None:
        assert refused_with(reason, visitor.see("claim", claim_link(function, **fields)))

    def test_claim_that_expires_before_its_confirmation_is_refused(self, function: Function, visitor: Visitor) -> None:
        token = claim_link(function)
        state = visitor.claim(token)
        item = function.aws.table.get(*install_link_key(install_link_id(token))) or {}
        function.aws.table.put(item | {"ends_at": 1})
        assert refused_with("expired_link", visitor.confirm(state))
        assert self.stored(function) is None

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"headers": {"Origin": ["https://evil.example"]}}, "foreign_origin"),
            ({"headers": {"Origin": ["https://api.example.com.evil.example"]}}, "foreign_origin"),
            ({"headers": {"Origin": ["http://api.example.com"]}}, "foreign_origin"),
            ({"headers": {"Sec-Fetch-Site": ["cross-site"]}}, "foreign_origin"),
            ({"headers": {"Sec-Fetch-Site": ["same-site"]}}, "foreign_origin"),
            ({"headers": {"Content-Type": ["text/plain"]}}, "bad_form"),
            ({"body": ""}, "bad_form"),
            ({"body": "state=" + "A" * 2_000}, "bad_form"),
            ({"body": "state=a&state=b"}, "bad_form"),
            ({"body": "state=" + "A" * 43}, "unknown_state"),
            ({"body": "other=1"}, "unknown_state"),
        ],
    )
    def test_claim_form_from_elsewhere_or_malformed_is_refused(
        self, function: Function, visitor: Visitor, options: dict[str, Any], reason: str
    ) -> None:
        state = visitor.claim(claim_link(function))
        assert refused_with(reason, visitor.confirm(state, **options))
        assert self.stored(function) is None

    def test_claim_form_from_the_pages_own_origin_is_accepted(self, function: Function, visitor: Visitor) -> None:
        state = visitor.claim(claim_link(function))
        headers = {"Origin": ["https://api.example.com"], "Sec-Fetch-Site": ["same-origin"]}
        assert visitor.confirm(state, headers=headers)["statusCode"] == 200

    def test_claim_without_this_browsers_cookie_is_refused(
        self, function: Function, visitor: Visitor, other: Visitor
    ) -> None:
        state = visitor.claim(claim_link(function))
        assert refused_with("foreign_state", other.confirm(state))
        other.claim(claim_link(function, account_id="32"))
        assert refused_with("foreign_state", other.confirm(state))
        assert self.stored(function) is None

    def test_claim_with_the_state_of_an_install_page_is_refused(self, function: Function, visitor: Visitor) -> None:
        assert refused_with("unknown_link", visitor.confirm(visitor.open(link(function))))

    @pytest.mark.parametrize("operation", ["GetItem", "UpdateItem", "TransactWriteItems"])
    def test_claim_table_failure_answers_503_and_sending_again_succeeds(
        self, function: Function, visitor: Visitor, operation: str
    ) -> None:
        state = visitor.claim(claim_link(function))
        function.endpoint.faults[f"dynamodb.{operation}"] = "InternalServerError"
        assert visitor.confirm(state)["statusCode"] == 503
        assert self.stored(function) is None
        function.endpoint.faults.clear()
        assert visitor.confirm(state)["statusCode"] == 200
        assert self.stored(function)

    def test_claim_lost_answer_is_confirmed_when_sent_again(self, function: Function, visitor: Visitor) -> None:
        state = visitor.claim(claim_link(function))
        write = type(function.handler.table).update_and_put

        def lose(*arguments: Any, **options: Any) -> Any:
            write(*arguments, **options)
            raise Retryable("aws_unavailable", "no answer", answer_lost=True)

        with patch.object(type(function.handler.table), "update_and_put", lose):
            assert visitor.confirm(state)["statusCode"] == 503
        assert self.stored(function)
        assert visitor.confirm(state)["statusCode"] == 200


def states(function: Function) -> list[str]:
    items = client("dynamodb").scan(TableName=function.aws.table.name)["Items"]
    return [item["pk"]["S"] for item in items if item["pk"]["S"].startswith("STATE#")]
