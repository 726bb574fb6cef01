"""Event webhooks at a function URL of the deployed receive_events, beside API Gateway."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from tests.fakes.local_cloud.scenes import Scene
from tests.fakes.local_cloud.session import LocalCloud


@pytest.fixture
def function_url(stack: LocalCloud) -> Iterator[str]:
    """As `WebhookEndpoint=function-url` makes it, by MiniStack's own path for a function URL."""
    where = {"FunctionName": stack.stack.functions["receive_events"], "Qualifier": "live"}
    made = stack.functions.create_function_url_config(**where, AuthType="NONE")
    yield f"{stack.stack.aws_endpoint_url}/_aws/lambda-url/{urlsplit(made['FunctionUrl']).netloc.partition('.')[0]}"
    stack.functions.delete_function_url_config(**where)


def test_function_url_accepts_event_at_address_that_was_made_for_api_gateway(scene: Scene, function_url: str) -> None:
    cloud, location = scene.cloud, secrets.token_hex(10)
    name, token = f"lc-{scene.name}", f"pit-canary-{scene.name}"
    cloud.control.add_leadconnector_location(location)
    cloud.control.add_leadconnector_token(token, location)
    scene.create(
        "connections",
        name=name,
        platform="leadconnector",
        fields={"location_id": location},
        credentials={"token": token},
    )
    address = scene.create(f"connections/{name}/event-addresses")
    path = address["url"].removeprefix(cloud.public_url)
    headers = {address["header_name"]: address["header_value"]}
    event = {"contact_id": "c1", "first_name": "Maria", "location": {"id": location}}

    answers = [
        cloud.web.post(f"{cloud.public_url}{path}", json=event, headers=headers),
        requests.post(f"{function_url}{path}", json=event, headers=headers, timeout=60),
        requests.post(f"{function_url}{path[:-1]}_", json=event, headers=headers, timeout=60),
        requests.post(f"{function_url}{path}/more", json=event, headers=headers, timeout=60),
        requests.get(f"{function_url}{path}", headers=headers, timeout=60),
    ]

    assert [(answer.status_code, answer.text) for answer in answers] == [
        (200, "{}"),
        (200, "{}"),
        (404, '{"error":"unknown_address"}'),
        (404, '{"error":"unknown_address"}'),
        (405, '{"error":"not_post"}'),
    ]
    assert answers[1].headers["Cache-Control"] == "no-store"
