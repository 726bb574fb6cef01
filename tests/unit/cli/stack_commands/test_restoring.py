"""The script of `docs/operations.md` that restores missing items of the table, run on moto as the document prints it."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import boto3
import pytest

from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core.entities import Connection
from tests.fakes.api.manage import Manage
from tests.fakes.aws.moto_cloud import TABLE, Cloud, _table_properties
from tests.fakes.paths import ROOT

DOCUMENTS = ("docs/operations.md", "docs/pt-BR/operations.md")


def restore(stack: Cloud, document: str) -> None:
    """Run the script with the arguments that the document gives it."""
    found = re.search(r"^python3 - \$TABLE(.*?) <<'EOF'\n(.*?)^EOF$", (ROOT / document).read_text(), re.M | re.S)
    assert found
    client = stack.table.client
    with (
        patch.object(boto3, "client", lambda _: client),
        patch.object(sys, "argv", ["-", TABLE, *found[1].split()]),
        patch.object(sys, "stdin", io.StringIO()),
    ):
        exec(compile(found[2], document, "exec"), {})


@pytest.fixture
def backup(stack: Cloud) -> Iterator[Table]:
    restored = Table(f"{TABLE}-restored")
    stack.table.client.create_table(TableName=restored.name, **_table_properties())
    yield restored
    stack.table.client.delete_table(TableName=restored.name)


def connect(table: Table, name: str, label: str = "") -> None:
    values: dict[str, Any] = {"state": "connected", "generation": 1, "secret_id": "portaria/grants/x", "label": label}
    connection_store.create(table, Connection(name, "http", "bearer", "api.example.com", **values))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_restoring_brings_missing_connection_back_and_keeps_newer_one(
    stack: Cloud, backup: Table, document: str
) -> None:
    connect(backup, "lost")
    connect(backup, "kept", label="before")
    connect(stack.table, "kept", label="now")
    restore(stack, document)
    assert connection_store.get(stack.table, "lost").state == "connected"
    assert connection_store.get(stack.table, "kept").label == "now"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_restoring_does_not_make_deleted_token_valid_again(
    manage: Manage, stack: Cloud, backup: Table, document: str
) -> None:
    """Given a private integration that was deleted after the backup, then its token stays refused."""
    integration, token = manage.create_integration("connections:list")
    for item in stack.table.client.scan(TableName=TABLE)["Items"]:
        stack.table.client.put_item(TableName=backup.name, Item=item)
    assert manage.program(token, "GET", "/connections").status == 200
    assert manage.call("DELETE", f"/private-integrations/{integration}").status in (200, 204)
    restore(stack, document)
    assert manage.program(token, "GET", "/connections").status == 401


@pytest.mark.parametrize("document", DOCUMENTS)
def test_restoring_does_not_bring_sent_records_or_removed_credentials_back(
    stack: Cloud, backup: Table, document: str
) -> None:
    for pk in ("WAITING#crm#person#live#route", "GRANT#gone", "CREDENTIAL_MIGRATIONS", "CONSOLE_SESSION#x"):
        backup.put({"pk": pk, "sk": "ITEM"})
    restore(stack, document)
    assert stack.table.client.scan(TableName=TABLE)["Items"] == []
