"""`portaria smoke` on the local cloud: working, broken in one place at a time, interrupted, and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer
from click.testing import CliRunner

from local.stack import ROOT, STACK_FILE
from portaria_cli.commands import portaria
from portaria_cli.smoke.command import CHECK_NAMES
from tests.fakes.local_cloud.scenes import wait_for
from tests.fakes.local_cloud.session import LocalCloud
from tests.stack.operations import breakages
from tests.stack.operations.breakages import Breakage, denied

# Kept on purpose, or removed by DynamoDB: the audit log, and notes that expire.
KEPT = ("AUDIT#", "IDEMPOTENCY", "REQUEST#")
PREFIX = "portaria-smoke-"
Json = dict[str, Any]


def smoke(*only: str, patience: int = 60) -> tuple[int, Json]:
    """Its exit code and its JSON output."""
    options = [word for check in only for word in ("--only", check)]
    arguments = ["--stack-file", str(STACK_FILE), "--json", "smoke", "--patience", str(patience), *options]
    result = CliRunner().invoke(portaria, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def rows(report: Json) -> dict[str, Json]:
    return {row["check"]: row for row in report["rows"]}


def left(cloud: LocalCloud) -> list[str]:
    """The items and secrets of a smoke run in the stack."""
    read = TypeDeserializer().deserialize
    found = []
    for page in cloud.dynamodb.get_paginator("scan").paginate(TableName=cloud.stack.table):
        for item in page["Items"]:
            plain = {name: read(value) for name, value in item.items()}
            if (PREFIX in str(plain) or plain["pk"].startswith("SMOKE")) and not plain["pk"].startswith(KEPT):
                found.append(plain["pk"])
    for page in cloud.secrets.get_paginator("list_secrets").paginate(IncludePlannedDeletion=True):
        found += [secret["Name"] for secret in page["SecretList"] if PREFIX in secret["Name"]]
    return found


def messages(cloud: LocalCloud, queue_url: str) -> int:
    """The number of messages in a queue, including those in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = cloud.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def test_smoke_healthy_stack_passes_and_leaves_nothing(stack: LocalCloud) -> None:
    exit_code, report = smoke()
    assert {name: row["state"] for name, row in rows(report).items()} == dict.fromkeys([*CHECK_NAMES, "clean-up"], "ok")
    assert exit_code == 0
    assert "kommo refused the code" in rows(report)["forged-code"]["found"]
    assert "unknown_connection" in rows(report)["front-door"]["found"]
    assert report["alarms"] == ["InstallsFailedAlarm", "DeadLettersAlarm"]
    assert left(stack) == []


@pytest.mark.parametrize(
    ("breakage", "check", "said"),
    [
        pytest.param(breakages.missing_route, "unknown-client", "no install hook", id="missing route"),
        pytest.param(
            denied("exchange_code", "secretsmanager:GetSecretValue"), "forged-code", "vault_unavailable",
            id="missing permission",
        ),
        pytest.param(
            breakages.wrong_bus, "forged-code", "could not finish the install", id="wrong bus", marks=pytest.mark.long
        ),
        pytest.param(breakages.disabled_event_source, "event-sources", "is disabled", id="disabled event source"),
        pytest.param(breakages.throttled, "functions", "RenewTokensFunction cannot run", id="throttled function"),
        pytest.param(breakages.wrong_queue, "front-door", "answered 500", id="wrong queue"),
        pytest.param(
            denied("accept_records", "dynamodb:Query"), "front-door", "answered 500",
            id="no index permission", marks=pytest.mark.long,
        ),
        pytest.param(denied("manage", "dynamodb:PutItem"), "private-integration", "", id="no table permission"),
        pytest.param(breakages.deleted_schedule, "schedules", "RenewalsSchedule does not exist", id="deleted schedule"),
        pytest.param(
            breakages.deleted_dead_letter_queue, "dead-letter-queues", "ExchangesDeadLetters does not exist",
            id="deleted dead-letter queue",
        ),
        pytest.param(breakages.missing_index, "indexes", "by_due", id="missing index"),
        pytest.param(breakages.deleted_topic, "alarm-topic", "does not exist", id="deleted topic"),
    ],
)  # fmt: skip
def test_smoke_broken_stack_fails_with_finding_and_advice(
    stack: LocalCloud, breakage: Breakage, check: str, said: str
) -> None:
    with breakage(stack):
        # The wait for an exchange that never ends, and which must have begun by then on a busy machine.
        exit_code, report = smoke(check, patience=12)
    row = rows(report)[check]
    assert (row["state"], exit_code) == ("fail", 1), row
    assert said in row["found"]
    assert row["advice"]
    assert set(rows(report)) <= {check, "clean-up", "earlier-runs"}


def created(keys: set[str]) -> bool:
    """Whether the row and the secret of an OAuth client are among the keys."""
    clients = [key for key in keys if key.startswith(f"CLIENT#kommo#{PREFIX}")]
    return bool(clients) and any("/oauth-clients/" in key for key in keys)


@contextmanager
def waiting_run(cloud: LocalCloud) -> Iterator[subprocess.Popen[str]]:
    """A run in a separate process, which has created its OAuth client and waits for an exchange that does not come.

    The row and the secret of the client must be new: a test before this one may have left its own.
    """
    before = set(left(cloud))
    command = [sys.executable, "-m", "portaria_cli", "--stack-file", str(STACK_FILE), "--json", "smoke"]
    command += ["--only", "forged-code", "--patience", "120"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'layers' / 'portaria'}:{ROOT / 'cli'}"}
    with breakages.disabled_event_source(cloud):
        process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_for(lambda: created(set(left(cloud)) - before), bool)
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_smoke_interrupted_removes_what_it_created(stack: LocalCloud, number: signal.Signals) -> None:
    # An install of a broken stack above may still be running: it ends by itself, and a later run removes it.
    before = set(left(stack))
    with waiting_run(stack) as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        report = json.loads(output)
        assert report["interrupted"]
        assert rows(report)["forged-code"]["found"] == "interrupted"
        assert set(left(stack)) <= before
    # The code is still in its queue, and must not become an install of a deleted client.
    queue = stack.stack.queues["exchanges"]
    wait_for(lambda: messages(stack, queue), lambda count: count == 0)
    assert set(left(stack)) <= before


def test_smoke_after_killed_run_removes_its_leftovers(stack: LocalCloud) -> None:
    before = set(left(stack))
    with waiting_run(stack) as process:
        process.kill()
        process.wait()
        killed = set(left(stack)) - before
        assert "SMOKE" in killed | before
        assert any("/oauth-clients/" in key for key in killed)
        (client,) = [key.rpartition("#")[2] for key in killed if key.startswith("CLIENT#")]
        # As if its lease had expired, because no process renews it.
        stack.dynamodb.update_item(
            TableName=stack.stack.table,
            Key={"pk": {"S": "SMOKE"}, "sk": {"S": "LEASE"}},
            UpdateExpression="SET #until = :past",
            ExpressionAttributeNames={"#until": "until"},
            ExpressionAttributeValues={":past": {"N": "1"}},
        )
        exit_code, report = smoke("indexes")
    assert exit_code == 0
    assert client not in rows(report)["earlier-runs"]["found"]
    assert not killed & set(left(stack))
