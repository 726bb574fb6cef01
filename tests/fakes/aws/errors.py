"""Calls to AWS that fail as if a service throttles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from botocore.client import BaseClient
from botocore.exceptions import ClientError

Parameters = dict[str, Any]


def throttled(operation: str) -> ClientError:
    return ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, operation)


@contextmanager
def refusing(*operations: str, where: Callable[[Parameters], bool] = lambda parameters: True) -> Iterator[None]:
    """AWS throttles these operations; with `where`, only the calls whose parameters it accepts."""
    call = BaseClient._make_api_call

    def make_api_call(client: Any, operation: str, parameters: Parameters) -> Any:
        if operation in operations and where(parameters):
            raise throttled(operation)
        return call(client, operation, parameters)

    with patch.object(BaseClient, "_make_api_call", make_api_call):
        yield
