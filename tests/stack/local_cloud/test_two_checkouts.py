"""The product's own stack beside a neighbouring checkout's."""

from __future__ import annotations

import pytest

from local.stack import Stack
from tests.fakes.local_cloud.session import LocalCloud


@pytest.mark.long  # In `make test`, test_local_cloud.py runs with such a checkout at the same time as this stack.
def test_local_clouds_of_two_checkouts_run_side_by_side(stack: LocalCloud, neighbour: Stack) -> None:
    assert not stack.stack.dead_parts()
    assert stack.stack.aws_endpoint_url != neighbour.aws_endpoint_url
    assert stack.web.get(f"{neighbour.api_url}/tell").status_code == 200


@pytest.mark.parametrize("address", ["api_url", "public_url"])
def test_admin_api_without_signature_is_refused_at_both_addresses(stack: LocalCloud, address: str) -> None:
    url = f"{getattr(stack, address)}/admin/v1/routes"
    assert stack.web.get(url).status_code == 403
    assert stack.admin.get(url).status_code == 200
