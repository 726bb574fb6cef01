"""Every unit test that drives a handler also checks what the handler does against the function's role."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.aws import Cloud, cloud
from tests.fakes.manage import empty
from tests.unit.roles import recording


@pytest.fixture(autouse=True)
def _granted() -> Iterator[None]:
    with recording() as recorder:
        yield
    assert recorder.refused == [], "template.yaml does not grant what a handler used"


@pytest.fixture(scope="module")
def shared() -> Iterator[Cloud]:
    """One AWS for a whole module; each test leaves it empty."""
    with cloud() as made:
        yield made


@pytest.fixture
def stack(shared: Cloud) -> Iterator[Cloud]:
    yield shared
    empty()
