"""What a client can read before its first change: platforms, scopes, its own identity, and the health of the API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from portaria import platforms
from portaria.access.scopes import NARROWABLE, SCOPES
from tests.fakes.api.manage import Manage, empty, proxy_event
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud


@pytest.fixture
def manage(shared: Cloud) -> Iterator[Manage]:
    yield Manage(shared)
    empty()


def test_platforms_lists_each_folder_with_what_a_connection_needs(manage: Manage) -> None:
    found = {each["name"]: each for each in manage.call("GET", "/platforms").content["items"]}
    assert set(found) == {platform.name for platform in platforms.every()}
    (kind,) = [each for each in found["http"]["kinds"] if each["name"] == "api_key"]
    assert kind["credentials"] == ["key"]
    assert {field["name"]: field["is_required"] for field in kind["fields"]} == {
        "header_name": True,
        "allow_digits_in_header_name": False,
    }
    assert kind["needs_allowed_domain"]
    assert all(re.compile(field["pattern"]) for field in kind["fields"])
    assert found["http"]["destination"] is None
    assert found["kommo"]["is_installable"]
    assert [name for name, each in found.items() if each["is_testable"]] == ["leadconnector"]
    assert "*.kommo.com" in found["kommo"]["api_domains"]
    assert found["kommo"]["sources"] == ["contacts", "companies"]
    assert found["marketo"]["destination"]["accepted"] == {"contacts": "persons", "companies": "companies"}
    assert found["marketo"]["destination"]["default_dedupe_fields"]["persons"] == ["email"]
    consent = {each["name"]: each["needs_consent"] for each in found["oauth2"]["kinds"]}
    assert consent["oauth2"]
    assert not consent["client_credentials"]


def test_platform_unknown_name_is_refused_with_the_known_ones(manage: Manage) -> None:
    shown = manage.call("GET", "/platforms/marketo").content
    assert shown in manage.call("GET", "/platforms").content["items"]
    answer = manage.call("GET", "/platforms/salesforce")
    assert (answer.status, answer.content["field"]) == (404, "platform")
    assert "kommo" in answer.content["detail"]
    assert manage.call("GET", "/platforms/outbound").status == 404


def test_scopes_are_all_listed(manage: Manage) -> None:
    found = manage.call("GET", "/scopes").content["items"]
    assert {each["name"]: each["description"] for each in found} == SCOPES
    assert {each["name"] for each in found if each["is_narrowable"]} == NARROWABLE


def test_me_token_needs_no_scope_and_shows_its_own(manage: Manage) -> None:
    integration, token = manage.create_integration("routes:list")
    for path in ("/platforms", "/scopes", "/platforms/http"):
        assert manage.program(token, "GET", path).status == 200
    shown = manage.program(token, "GET", "/me").content
    assert (shown["id"], shown["kind"], shown["name"]) == (integration, "private_integration", "BI")
    assert (shown["scopes"], shown["previous_token_until"]) == (["routes:list"], None)
    manage.call("POST", f"/private-integrations/{integration}/rotate", {})
    rotated = manage.call("GET", f"/private-integrations/{integration}").content
    assert manage.program(token, "GET", "/me").content["previous_token_until"] == rotated["previous_until"]
    assert manage.program("", "GET", "/me").status == 401
    assert manage.program("portaria_guess", "GET", "/scopes").status == 401


def test_me_administrator_has_every_scope(manage: Manage) -> None:
    shown = manage.call("GET", "/me").content
    assert (shown["kind"], shown["scopes"]) == ("administrator", None)
    assert shown["id"].endswith("user/administrator")


def test_health_answers_without_a_token_and_tells_nothing(manage: Manage) -> None:
    event = proxy_event("GET", "/routes", prefix="/v1") | {"resource": "/v1/health", "path": "/v1/health"}
    answer = manage.module.handler(event, functions.Context())
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"status": "ok"})
    assert answer["headers"]["Cache-Control"] == "no-store"
