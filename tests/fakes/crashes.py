"""A process that crashes just before or just after any outgoing call, found by counting instead of a list of calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from botocore.client import BaseClient

from portaria.outbound.http_transport import Transport


class Died(BaseException):
    """The process has crashed: the code must not catch it with `except Exception`."""


class Calls:
    """Counts the outgoing calls of a process. `seen` names each: `dynamodb.UpdateItem`, `POST acme.kommo.com/oauth2/…`."""

    def __init__(self, die_at: int = 0, when: str = "before") -> None:
        self.die_at = die_at
        self.when = when
        self.seen: list[str] = []

    def around(self, name: str, call: Any) -> Any:
        self.seen.append(name)
        dies = len(self.seen) == self.die_at
        if dies and self.when == "before":
            raise Died
        answer = call()
        if dies:
            raise Died
        return answer


@contextmanager
def outgoing(calls: Calls) -> Iterator[Calls]:
    """Route every AWS call (botocore) and every HTTP call (`http_client`) through `calls`."""
    aws_call, http_send = BaseClient._make_api_call, Transport.send

    def make_api_call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        name = f"{client.meta.service_model.service_name}.{operation}"
        return calls.around(name, lambda: aws_call(client, operation, parameters))

    def send(transport: Any, request: Any, **options: Any) -> Any:
        name = f"{request.method} {request.url.partition('://')[2].partition('?')[0]}"
        return calls.around(name, lambda: http_send(transport, request, **options))

    with patch.object(BaseClient, "_make_api_call", make_api_call), patch.object(Transport, "send", send):
        yield calls
