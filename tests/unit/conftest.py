"""Every unit test that drives a handler also checks what the handler does against the function's role."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import trustme

from portaria_cli import local_cloud
from tests.fakes.api.manage import Manage, empty
from tests.fakes.aws.moto_cloud import Cloud, cloud
from tests.fakes.paths import ROOT
from tests.fakes.template.roles import granted

__all__ = ["granted"]


@pytest.fixture(autouse=True)
def _no_local_cloud_of_this_checkout() -> Iterator[None]:
    """The command line looks for a local cloud in its folder, and one may run in this checkout during the tests."""
    look = local_cloud.stack_file

    def elsewhere() -> Path | None:
        return None if Path.cwd().resolve().is_relative_to(ROOT) else look()

    # Not with `monkeypatch`, which would be undone after the other fixtures of a test.
    with patch.object(local_cloud, "stack_file", elsewhere):
        yield


@pytest.fixture(scope="module")
def shared() -> Iterator[Cloud]:
    """One AWS for a module; each test leaves it empty."""
    with cloud() as made:
        yield made


@pytest.fixture
def stack(shared: Cloud) -> Iterator[Cloud]:
    yield shared
    empty()


@pytest.fixture
def manage(stack: Cloud) -> Manage:
    """The administrators' API. Suites that read its log have a fixture of their own."""
    return Manage(stack)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority for servers on loopback."""
    return trustme.CA()
