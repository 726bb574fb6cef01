"""Clients of AWS services that belong to one part of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from portaria.aws import json_client, service_clients


@contextmanager
def new_clients() -> Iterator[None]:
    """Within it, this process has new clients for the environment as it is now. Their connections are closed at the end.

    Enter it after changing the environment, and leave it before changing it back. boto3's clients are kept.
    """
    service_clients.client.cache_clear()
    try:
        yield
    finally:
        for service in json_client.SERVICES:
            service_clients.client(service).close()
        service_clients.client.cache_clear()
