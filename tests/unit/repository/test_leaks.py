"""The leak check finds planted leaks of every kind, and nothing in tests without leaks."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from tests import leaks
from tests.fakes.paths import ROOT
from tests.simulation.aws.cloud import Cloud, Message
from tests.simulation.oracle import check_leaks
from tests.simulation.schedule import Schedule, Violation

CANARY = "canary-planted/secret+1"

# Each test whose name begins with `test_leak` leaks once, in a way of its own; the others must pass.
PLANTED = """
import base64, json, logging, sys
import boto3, pytest
from portaria.aws import event_bus, queues
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable
from portaria.core.event_catalogue import CATALOGUE
from portaria.aws.table import Table
from portaria.connections.vault import Vault
from tests.fakes.aws.moto_cloud import cloud

CANARY = "canary-planted/secret+1"
logger = logging.getLogger("portaria.planted")

@pytest.fixture(scope="module")
def stack():
    with cloud() as made:
        yield made

@pytest.fixture
def at_the_end():
    yield
    logger.warning("closed with %s", CANARY)

def metric(name):
    print(json.dumps({"_aws": {"CloudWatchMetrics": [{"Dimensions": [["connection"]]}]}, "connection": name}))

def test_leak_in_a_log_line():
    logger.warning("refused: %s", CANARY)

def test_leak_in_a_log_lines_extra_field():
    logger.warning("refused", extra={"request": {"headers": ["Bearer " + CANARY]}})

def test_leak_in_a_logged_exception():
    try:
        raise ValueError("bad token " + CANARY)
    except ValueError:
        logger.exception("refused")

def test_leak_in_a_logged_exceptions_cause():
    try:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise Retryable("later", "try again") from error
    except Retryable:
        logger.exception("refused")

def test_leak_in_a_swallowed_exception():
    try:
        raise Rejected("bad_token", "got " + CANARY)
    except Rejected:
        pass

def test_leak_in_an_exception_of_another_kind():
    with pytest.raises(ZeroDivisionError):
        raise ZeroDivisionError(CANARY)

def test_leak_in_a_metric():
    metric(CANARY)

def test_leak_in_a_metric_that_the_test_reads(capsys):
    metric(CANARY)
    capsys.readouterr()

def test_leak_in_what_a_capture_never_read(capsys):
    print(CANARY, file=sys.stderr)

def test_leak_in_cloudwatch(stack):
    data = [{"MetricName": "Tokens", "Dimensions": [{"Name": "token", "Value": CANARY}], "Value": 1}]
    boto3.client("cloudwatch").put_metric_data(Namespace="Portaria", MetricData=data)

def test_leak_in_a_table_item(stack):
    stack.table.put({"pk": "CONNECTION#a", "sk": "CONNECTION", "token": CANARY})

def test_leak_in_an_updated_item(stack):
    stack.table.update("CONNECTION#a", "CONNECTION", "SET note = :note", values={":note": CANARY})

def test_leak_in_an_arrivals_other_field(stack):
    stack.table.put({"pk": "ARRIVALS", "sk": "1", "body": json.dumps({"code": "c", "account": CANARY})})

def test_leak_in_a_queue_message(stack):
    queues.send(stack.url("records"), [json.dumps({"code": CANARY})])

def test_leak_in_an_arrivals_message(stack):
    queues.send(stack.url("exchanges"), [json.dumps({"code": "c", "account": CANARY})])

def test_leak_in_a_bus_event(stack):
    event_bus.put("portaria", "connection.ready", CATALOGUE["connection.ready"].example | {"connection": CANARY})

def test_leak_in_a_secrets_name(stack):
    Vault("portaria").create("portaria/grants/" + CANARY.replace("+", ""), {"token": Secret("x")})

def test_leak_in_base64():
    logger.warning("sent %s", base64.b64encode(("someone:" + CANARY).encode()).decode())

def test_leak_at_the_end(at_the_end):
    pass

def test_clean(stack, capsys):
    Vault("portaria").create("portaria/grants/a", {"token": Secret(CANARY)})
    stack.table.put({"pk": "ARRIVALS", "sk": "1", "body": json.dumps({"code": CANARY, "code_verifier": CANARY})})
    queues.send(stack.url("exchanges"), [json.dumps({"code": CANARY, "code_verifier": CANARY})])
    event_bus.put("portaria", "connection.ready", CATALOGUE["connection.ready"].example)
    logger.warning("token %s", Secret(CANARY), extra={"credentials": {"token": Secret(CANARY)}})
    metric("a")
    with pytest.raises(Rejected):
        try:
            json.loads(CANARY)
            raise ValueError(CANARY)
        except ValueError:
            raise Rejected("bad_json", "this is no JSON") from None
"""


def run(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the plugin on a test module of its own, in a separate process."""
    (folder / "test_planted.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = f"{ROOT / 'layers' / 'portaria'}{os.pathsep}{ROOT}"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.leaks",
        "--rootdir",
        str(folder),
        "-c",
        str(folder / "pytest.ini"),
    ]
    figures, report = ["--leak-figures", str(folder / "leaks.json")], ["--junit-xml", str(folder / "report.xml")]
    return subprocess.run(
        [*command, *figures, *report, *options, str(folder)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def blamed(folder: Path) -> dict[str, str]:
    """The tests that failed, with their messages."""
    cases = ElementTree.parse(folder / "report.xml").iter("testcase")
    return {
        str(case.get("name")): "".join(each.text or "" for each in case.iter("error")) for case in cases if list(case)
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("planted")
    return folder, run(folder, PLANTED)


def test_leak_check_planted_leaks_fail_their_tests(planted: tuple[Path, Any]) -> None:
    folder, ended = planted
    expected = {
        line.split("(")[0].removeprefix("def ") for line in PLANTED.splitlines() if line.startswith("def test_leak")
    }
    assert len(expected) == 19
    assert set(blamed(folder)) == expected
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED
    figures = json.loads((folder / "leaks.json").read_text())
    assert figures["total"] == figures["files"]["test_planted.py"]
    assert figures["total"]["tests"] == len(expected) + 1
    assert figures["total"]["leaks"] >= len(expected)
    assert f"{figures['total']['leaks']} leaks" in ended.stdout


def test_leak_check_report_names_place_and_masks_secret(planted: tuple[Path, Any]) -> None:
    """Given a leak, then the report names the place and masks the secret, in each of its forms."""
    folder, ended = planted
    told = blamed(folder)
    assert "log_records: portaria.planted at test_planted.py" in told["test_leak_in_a_log_line"]
    assert "refused: [secret]" in told["test_leak_in_a_log_line"]
    assert "table_items: dynamodb.PutItem" in told["test_leak_in_a_table_item"]
    assert "queue_messages: sqs.SendMessage" in told["test_leak_in_a_queue_message"]
    assert "events: events.PutEvents" in told["test_leak_in_a_bus_event"]
    assert "exceptions: Rejected" in told["test_leak_in_a_swallowed_exception"]
    assert "metrics: " in told["test_leak_in_a_metric"]
    said = [
        line for line in ended.stdout.splitlines() if line.startswith(("  log_", "  table_", "  queue_", "  events"))
    ]
    assert said
    assert not any(leaks.holds_secret(line) for line in said)


def test_leak_check_without_leak_fails_no_test(tmp_path: Path) -> None:
    ended = run(tmp_path, PLANTED, "-k", "test_clean")
    assert ended.returncode == 0, ended.stdout
    total = json.loads((tmp_path / "leaks.json").read_text())["total"]
    assert total.pop("leaks") == 0
    kinds = {"events", "exceptions", "log_records", "metrics", "queue_messages", "table_items"}
    assert all(total[kind] for kind in kinds), total


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "Bearer: "])
def test_leak_check_secret_inside_base64_is_found(before: str) -> None:
    text = base64.b64encode(f"{before}{CANARY}".encode()).decode()
    assert leaks.holds_secret(f"Basic {text}")
    assert leaks.masked(f"Basic {text}").endswith("[secret]")
    assert not leaks.holds_secret(base64.b64encode(f"{before}nothing of it".encode()).decode())


def test_leak_check_figures_of_other_files_are_kept(tmp_path: Path) -> None:
    """Given figures of an earlier run, when one module runs again, then only its figures are replaced."""
    file = tmp_path / "leaks.json"
    here = str(Path(__file__).relative_to(ROOT))
    leaks.write_figures(file, {here: Counter(tests=1, log_records=5), "a.py": Counter(tests=1)})
    leaks.write_figures(file, {"a.py": Counter(tests=2, events=3, leaks=1)})
    leaks.write_figures(file, {"b.py": Counter(tests=4)})
    content = json.loads(file.read_text())
    assert content["files"] == {here: {"log_records": 5, "tests": 1}, "b.py": {"tests": 4}}, "a.py is gone"
    assert content["total"] == {"log_records": 5, "tests": 5}


class TestSimulation:
    """The oracle checks what a schedule leaves."""

    def judge(self, **left: Any) -> None:
        cloud = Cloud()
        for name, value in left.items():
            getattr(cloud, name).update(value) if isinstance(value, dict) else getattr(cloud, name).extend(value)
        check_leaks(cast(Schedule, SimpleNamespace(cloud=cloud)))

    def test_simulation_leak_check_allows_code_in_queue_and_plain_values(self) -> None:
        arrival = Message(json.dumps({"code": CANARY}), 0.0, "1")
        self.judge(items={("a", "b"): {"note": {"S": "x"}}}, queues={"exchanges": [arrival]}, events=[{"Detail": "{}"}])

    @pytest.mark.parametrize(
        "left",
        [
            {"items": {("a", "b"): {"pk": {"S": "a"}, "note": {"S": CANARY}}}},
            {"queues": {"records": [Message(json.dumps({"code": CANARY}), 0.0, "1")]}},
            {"events": [{"Detail": json.dumps({"token": CANARY})}]},
        ],
        ids=["item", "message", "event"],
    )
    def test_simulation_leak_check_secret_in_item_message_or_event_is_a_violation(self, left: dict[str, Any]) -> None:
        with pytest.raises(Violation, match="a secret came out"):
            self.judge(**left)
