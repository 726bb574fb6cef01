"""A browser at the console of an empty stack, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.api.console import Browser
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.virtual_time import VirtualClock


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    made = VirtualClock()
    with made.installed():
        yield made


@pytest.fixture
def browser(stack: Cloud, clock: VirtualClock) -> Browser:
    return Browser(stack)
