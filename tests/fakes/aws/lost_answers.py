"""Writes whose first answer is lost, so that botocore sends them again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from portaria.aws.table import Table


@contextmanager
def puts_sent_twice(pk_prefix: str) -> Iterator[list[str]]:
    """Each `put_item` of an item whose partition begins so is carried out, and then sent again. Yields these partitions."""
    write, sent = Table._write, []

    def twice(self: Table, operation: str, call: dict[str, Any], *condition: Any) -> dict[str, Any]:
        pk = call.get("Item", {}).get("pk", {}).get("S", "")
        if operation == "put_item" and pk.startswith(pk_prefix):
            sent.append(pk)
            write(self, operation, call, *condition)
        return write(self, operation, call, *condition)

    with patch.object(Table, "_write", twice):
        yield sent
