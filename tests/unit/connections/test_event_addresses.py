"""Creating the event address of a connection, through the API."""

from __future__ import annotations

import json
import re
from unittest.mock import patch

from portaria.connections import connection_store
from portaria.core.entities import Connection
from portaria.webhooks import event_receiver
from tests.fakes.api.manage import API_URL, Manage
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.connections.connected import to_engage, to_leadconnector


def test_create_event_address_returns_secret_once_and_stores_hashes(manage: Manage, stack: Cloud) -> None:
    to_leadconnector(stack)

    made = manage.call("POST", "/connections/marketek/event-addresses")

    assert made.status == 201
    key = made.content["url"].removeprefix(f"{API_URL}/events/leadconnector/marketek/")
    secret = made.content["header_value"]
    assert made.content["header_name"] == "X-Portaria-Secret"
    for text in (key, secret):
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", text)
    item = stack.table.get(event_receiver.partition("marketek"), event_receiver.SK) or {}
    assert (item["platform"], item["account_id"]) == ("leadconnector", "ve9EPM428h8vShlRW1KT")
    assert item["keys"] == [event_receiver.Key(event_receiver.digest(key), event_receiver.digest(secret)).text()]
    for place in (manage.log.getvalue(), json.dumps(manage.call("GET", "/audit").content)):
        assert key not in place
        assert secret not in place


def test_create_event_address_repeated_keeps_five_earlier_ones_until_they_expire(manage: Manage, stack: Cloud) -> None:
    to_leadconnector(stack)
    urls = [manage.call("POST", "/connections/marketek/event-addresses").content["url"] for _ in range(9)]
    assert len(set(urls)) == 9
    item = stack.table.get(event_receiver.partition("marketek"), event_receiver.SK) or {}
    keys = [event_receiver.read_key(text) for text in item["keys"]]
    assert [key.until == 0 for key in keys] == [True, *[False] * 5]


def test_create_event_address_is_at_the_first_endpoint(stack: Cloud) -> None:
    to_leadconnector(stack)
    url = "https://abc.lambda-url.us-east-1.on.aws"
    for endpoints, base in ((f"{url}/,api", url), (f"api,{url}/", API_URL), ("api", API_URL)):
        with patch.dict(stack.environment, EVENT_ENDPOINTS=endpoints):
            made = Manage(stack).call("POST", "/connections/marketek/event-addresses")
        assert made.content["url"].startswith(f"{base}/events/leadconnector/marketek/")


def test_create_event_address_requires_scope_for_the_connection(manage: Manage, stack: Cloud) -> None:
    to_leadconnector(stack)
    _, other = manage.create_integration("event-addresses:create@another", "connections:show")
    _, own = manage.create_integration("event-addresses:create@marketek")
    assert manage.program(other, "POST", "/connections/marketek/event-addresses").status == 403
    assert manage.program(own, "POST", "/connections/marketek/event-addresses").status == 201


def test_create_event_address_not_offered_by_platform_is_refused(manage: Manage, stack: Cloud) -> None:
    to_engage(stack)
    installed = Connection("kommo-acme-1", "kommo", "oauth2", "acme.kommo.com", "connected", 1, "s", client="acme",
                           account_id="1", granted_at="2026-01-01T00:00:00.000Z")  # fmt: skip
    connection_store.create(stack.table, installed)
    answer = manage.call("POST", "/connections/engage-one/event-addresses")
    assert (answer.status, answer.content["type"]) == (409, "urn:portaria:problem:not_offered")
    answer = manage.call("POST", "/connections/kommo-acme-1/event-addresses")
    assert (answer.status, answer.content["type"]) == (409, "urn:portaria:problem:subscribes_itself")
    assert "install the application again" in answer.content["detail"]


def test_create_event_address_unknown_or_deleted_connection_is_not_found(manage: Manage, stack: Cloud) -> None:
    assert manage.call("POST", "/connections/nobody/event-addresses").status == 404
    to_leadconnector(stack)
    assert manage.call("DELETE", "/connections/marketek").status == 200
    assert manage.call("POST", "/connections/marketek/event-addresses").status == 404
