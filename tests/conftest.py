"""The base of all tests: no network unless a suite allows it, and invalid credentials."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import requests
import responses
from hypothesis import settings
from pytest_socket import disable_socket, enable_socket

ROOT = Path(__file__).resolve().parent.parent

# Set before any module of the product is imported: functions read their settings when they are imported, as in Lambda.
AWS_ENVIRONMENT = {
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "POWERTOOLS_SERVICE_NAME": "portaria",
    "POWERTOOLS_METRICS_NAMESPACE": "Portaria",
    # No profiles of the user who runs the tests.
    "XDG_CONFIG_HOME": "/nonexistent",
}
for name in list(os.environ):
    if name.startswith(("AWS_", "PORTARIA_")) or name.lower() in ("https_proxy", "http_proxy", "no_proxy"):
        del os.environ[name]
os.environ.update(AWS_ENVIRONMENT)
sys.path[:0] = [str(ROOT / "layers" / "portaria"), str(ROOT / "cli")]

# The same examples in each run, on machines of any speed.
settings.register_profile("portaria", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("portaria")

# `leaks` fails a test that leaks a secret; `local_cloud` has the session fixture `stack`.
pytest_plugins = ("tests.leaks", "tests.fakes.local_cloud.session")


class RequestsMock(responses.RequestsMock):
    """Replaces the transport of `http_client`; the original replaces that of `requests`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        from portaria.outbound.http_transport import Transport

        begin, transport = Transport.begin, Transport()
        target = "portaria.outbound.http_transport.Transport.send"
        super().__init__(
            *arguments,
            **{
                "target": target,
                "real_adapter_send": lambda _, request, timeout, **named: begin(transport, request, timeout).answer(
                    timeout
                ),
                **options,
            },
        )

    def _on_request(self, adapter: Any, request: Any, **options: Any) -> Any:
        # It lets the adapter build the response, which a transport of `requests` need not be able to.
        return super()._on_request(requests.adapters.HTTPAdapter(), request, **options)

    def start(self) -> None:
        if not self._patcher:
            self._begin = patch("portaria.outbound.http_transport.Transport.begin", _begin)
            self._begin.start()
        super().start()

    def stop(self, allow_assert: bool = True) -> None:
        if self._patcher:
            self._begin.stop()
        super().stop(allow_assert)


class _SentRequest:
    def __init__(self, answer: requests.Response) -> None:
        self._answer = answer

    def answer(self, limits: Any) -> requests.Response:
        return self._answer


def _begin(transport: Any, request: Any, limits: Any) -> _SentRequest:
    """`Transport.begin`, by the mock that stands for `Transport.send`: the response comes at once."""
    return _SentRequest(transport.send(request, timeout=limits))


responses.RequestsMock = RequestsMock  # type: ignore[misc]

# Suites that talk to processes on this machine.
ON_LOOPBACK = ("stack", "browser", "peers")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long versions of the fault suites")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: a case that only `--long` runs, because a shorter one shows the same")


def pytest_collection_finish() -> None:
    """Exclude modules and collected tests, which live to the end, from garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


@pytest.fixture(autouse=True)
def _no_patch_is_left() -> Iterator[None]:
    """Fail a test that leaves a patch behind. `monkeypatch` restores what it found, which may be a patch that has ended."""
    from portaria.core import clock
    from portaria.outbound import http_client

    before = (http_client.send, clock.now, clock.sleep)
    yield
    after = (http_client.send, clock.now, clock.sleep)
    http_client.send, clock.now, clock.sleep = before
    assert after == before


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("long") and not item.config.getoption("--long"):
        pytest.skip("a shorter case shows the same: make faults")
    if _is_on_loopback(item.path) or item.get_closest_marker("enable_socket"):
        enable_socket()
    elif _network() != _disabled:
        # Each call would derive a class from that of the last.
        enable_socket()
        disable_socket(allow_unix_socket=True)
        _disabled[:] = _network()


def _network() -> list[Any]:
    return [socket.socket, socket.getaddrinfo, socket.gethostbyname]


# What `disable_socket` left.
_disabled: list[Any] = []


@cache
def _is_on_loopback(path: Path) -> bool:
    return path.relative_to(ROOT / "tests").parts[0] in ON_LOOPBACK
