"""The function behind a sign-on link, called with API Gateway events: a redirect to the platform, or a page with the reason."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
import responses
from botocore.exceptions import ClientError, ReadTimeoutError

from portaria.actions import single_sign_on
from portaria.aws import service_clients
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.web import render
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.connections.connected import to_engage
from tests.fakes.platforms.engage import Engage

EVENTS = ("open_link", "link_cut_short")


@pytest.fixture(scope="module")
def module(shared: Cloud) -> ModuleType:
    return functions.load("redeem_ticket", shared.environment)


@pytest.fixture
def log(module: ModuleType) -> io.StringIO:
    stream = io.StringIO()
    functions.log_to(stream)
    return stream


@pytest.fixture
def stack(stack: Cloud) -> Cloud:
    to_engage(stack)
    return stack


@pytest.fixture
def ticket(stack: Cloud) -> Iterator[str]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        Engage(mock)
        made, _ = single_sign_on.begin(
            stack.table, Vault(PREFIX), stack.environment["SEALING_KEY_ID"], "engage-one", "u-1", "default"
        )
        yield made.reveal()


def opened(module: ModuleType, ticket: Any, language: str = "pt-BR") -> dict[str, Any]:
    event = functions.sample("redeem_ticket", "open_link")
    event["pathParameters"] = {"ticket": ticket}
    event["multiValueHeaders"] = {**event["multiValueHeaders"], "accept-language": [language]}
    del event["multiValueHeaders"]["Accept-Language"]
    answer: dict[str, Any] = module.handler(event, functions.Context())
    assert answer["headers"]["Cache-Control"] == "no-store"
    assert answer["headers"]["Referrer-Policy"] == "no-referrer"
    if answer["statusCode"] != 303:
        assert "Location" not in answer["headers"]
        assert "canary" not in answer["body"]
        assert not ticket or str(ticket) not in answer["body"]
    return answer


def said(key: str, language: str = "pt") -> str:
    return str(render._texts()[key][language])


def test_redeem_ticket_valid_link_redirects_once(module: ModuleType, log: io.StringIO, ticket: str) -> None:
    answer = opened(module, ticket)
    assert answer["statusCode"] == 303
    assert answer["headers"]["Location"] == "https://one.engage.bz/#/login?key=canary-key-1%2F%2B%26"
    assert answer["body"] == ""
    again = opened(module, ticket)
    assert again["statusCode"] == 410
    assert said("sign_on.used_link") in again["body"]
    assert "used_link" in log.getvalue()
    for secret in ("canary", ticket, ticket.partition(".")[2]):
        assert secret not in log.getvalue()


@pytest.mark.parametrize(("language", "of_page"), [("pt-BR", "pt"), ("es-MX,en;q=0.5", "es"), ("de", "en"), ("", "en")])
def test_redeem_ticket_error_page_is_in_browser_language(
    module: ModuleType, stack: Cloud, language: str, of_page: str
) -> None:
    answer = opened(module, "a" * 22 + "." + "b" * 43, language)
    assert answer["statusCode"] == 404
    assert answer["headers"]["Content-Type"] == "text/html; charset=utf-8"
    assert said("sign_on.unknown_link", of_page) in answer["body"]


def test_redeem_ticket_expired_link_is_gone(module: ModuleType, ticket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(minutes=2))
    answer = opened(module, ticket)
    assert answer["statusCode"] == 410
    assert said("sign_on.expired_link") in answer["body"]


@pytest.mark.parametrize("text", ["", "nolink", "a" * 10_000, "<script>alert(1)</script>", "../admin", None, "ä.ö"])
def test_redeem_ticket_malformed_link_is_not_found(module: ModuleType, stack: Cloud, text: Any) -> None:
    answer = opened(module, text)
    assert answer["statusCode"] == 404
    assert said("sign_on.altered_link") in answer["body"]


def test_redeem_ticket_altered_link_does_not_use_the_ticket(module: ModuleType, ticket: str) -> None:
    altered = ticket[:-1] + ("A" if ticket[-1] != "A" else "B")
    answer = opened(module, altered)
    assert (answer["statusCode"], said("sign_on.altered_link") in answer["body"]) == (404, True)
    assert opened(module, ticket)["statusCode"] == 303


@pytest.mark.parametrize("path_parameters", [None, {}, {"other": "x"}])
def test_redeem_ticket_without_ticket_is_not_found(module: ModuleType, stack: Cloud, path_parameters: Any) -> None:
    event = functions.sample("redeem_ticket", "open_link") | {
        "pathParameters": path_parameters,
        "multiValueHeaders": None,
    }
    assert module.handler(event, functions.Context())["statusCode"] == 404


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ("Decrypt", ClientError({"Error": {"Code": "ThrottlingException", "Message": "canary"}}, "Decrypt")),
        ("Decrypt", ReadTimeoutError(endpoint_url="https://canary")),
        ("GetItem", ClientError({"Error": {"Code": "InternalServerError", "Message": "canary"}}, "GetItem")),
        ("UpdateItem", ClientError({"Error": {"Code": "ThrottlingException", "Message": "canary"}}, "UpdateItem")),
    ],
    ids=["KMS", "KMS silent", "reading", "marking"],
)
def test_redeem_ticket_aws_failure_answers_503_and_keeps_the_ticket(
    module: ModuleType, log: io.StringIO, ticket: str, operation: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_clients.client("kms" if operation == "Decrypt" else "dynamodb")
    call = type(service)._make_api_call

    def fail(client: Any, name: str, parameters: dict[str, Any]) -> Any:
        if name == operation:
            raise error
        return call(client, name, parameters)

    with monkeypatch.context() as patched:
        patched.setattr("botocore.client.BaseClient._make_api_call", fail)
        answer = opened(module, ticket)
    assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, "5")
    assert said("sign_on.unavailable") in answer["body"]
    assert "canary" not in log.getvalue()
    assert opened(module, ticket)["statusCode"] == 303


@pytest.mark.parametrize("name", EVENTS)
def test_redeem_ticket_sample_event_is_answered(module: ModuleType, stack: Cloud, name: str) -> None:
    answer = module.handler(functions.sample("redeem_ticket", name), functions.Context())
    assert answer["statusCode"] == 404
    assert ("unknown_link" if name == "open_link" else "altered_link") in answer["body"]


def test_redeem_ticket_every_reason_has_a_page() -> None:
    assert set(render._SIGN_ON) == {"unknown_link", "expired_link", "used_link", "altered_link", "unavailable"}
