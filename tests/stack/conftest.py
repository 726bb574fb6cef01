"""The simulators' control, and the neighbouring checkout, for tests of the local cloud."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.control import Control
from tests.fakes.local_cloud.neighbour import checkout, neighbour
from tests.fakes.local_cloud.scenes import Scene
from tests.fakes.local_cloud.session import LocalCloud

__all__ = ["checkout", "neighbour"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quickstart is first, because it shows an unused stack."""
    items.sort(key=lambda item: item.path.name != "test_quickstart.py")


@pytest.fixture
def control(stack: LocalCloud) -> Iterator[Control]:
    """The simulators' control, without faults before and after the test."""
    stack.control.clear_faults()
    yield stack.control
    stack.control.clear_faults()


@pytest.fixture
def scene(stack: LocalCloud) -> Scene:
    return Scene(stack)
