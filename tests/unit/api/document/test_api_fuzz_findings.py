"""Regression tests of findings of the API fuzz (tests/stack/api/test_api_fuzz.py)."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
from botocore.client import BaseClient

from tests.fakes.api.manage import Manage, empty, proxy_event, with_headers
from tests.fakes.aws.moto_cloud import Cloud

INTEGRATION = {"name": "BI", "scopes": ["routes:list"]}


@pytest.fixture
def manage(shared: Cloud) -> Iterator[Manage]:
    yield Manage(shared)
    empty()


@pytest.mark.parametrize("value", ["", " "])
def test_update_empty_if_match_is_refused(manage: Manage, value: str) -> None:
    """A program whose variable for the ETag is empty must not overwrite any state."""
    made = manage.call("POST", "/private-integrations", INTEGRATION).content
    event = proxy_event("PATCH", f"/private-integrations/{made['id']}", {"name": "overwritten"})
    refused = manage.answer(with_headers(event, if_match=value))
    assert (refused.status, refused.content["field"]) == (400, "If-Match")
    assert manage.call("GET", f"/private-integrations/{made['id']}").content["name"] == "BI"


def test_create_empty_idempotency_key_is_refused(manage: Manage) -> None:
    event = with_headers(proxy_event("POST", "/private-integrations", INTEGRATION), idempotency_key="")
    refused = manage.answer(event)
    assert (refused.status, refused.content["field"]) == (400, "Idempotency-Key")
    assert manage.call("GET", "/private-integrations").content["items"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/oauth-clients/%0A/ab"),
        ("GET", "/connections/%00"),
        ("DELETE", "/routes/%C3%AA"),
        ("GET", "/installs/a b"),
    ],
)
def test_api_invalid_resource_name_is_unknown_path_without_aws_call(manage: Manage, method: str, path: str) -> None:
    """Deleting an OAuth client also removes its secret. It answered 503 if IAM knew no secret of that name."""
    with patch.object(BaseClient, "_make_api_call", side_effect=AssertionError("AWS was asked")):
        answer = manage.call(method, path)
    assert (answer.status, answer.content["type"]) == (404, "urn:portaria:problem:unknown_path")
