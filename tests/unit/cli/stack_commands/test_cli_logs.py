"""`portaria logs`: the functions' log lines from CloudWatch Logs, one line for each event."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from portaria.aws import service_clients
from portaria_cli.doctor.deployment import Deployment
from portaria_cli.logs import command
from portaria_cli.logs import lines as log_lines
from tests.fakes.api.command_line import run
from tests.fakes.aws.moto_cloud import Cloud

NOW_MS = int(time.time() * 1_000)
EXCHANGE, MANAGE = "portaria-ExchangeCodeLogs-1", "portaria-ManageLogs-1"
ARN = "arn:aws:lambda:us-east-1:123456789012:function:portaria-ExchangeCodeFunction"


def written(level: str, message: str, **fields: Any) -> str:
    """A line as Powertools writes it in a function."""
    return json.dumps(
        {
            "level": level,
            "location": "handler:50",
            "message": message,
            "timestamp": "2026-01-31 12:00:00,000+0000",
            "service": "portaria",
            "cold_start": True,
            "function_name": "portaria-ExchangeCodeFunction",
            "function_memory_size": "512",
            "function_arn": ARN,
            "function_request_id": "00000000-0000-4000-8000-000000000009",
            **fields,
            "xray_trace_id": "1-5759e988-bd862e3fe1be46a994272793",
        }
    )


METRIC = json.dumps({"_aws": {"Timestamp": NOW_MS, "CloudWatchMetrics": []}, "Installs": 1})
LINES = {
    EXCHANGE: [
        "START RequestId: 00000000-0000-4000-8000-000000000009 Version: 3",
        written("INFO", "an_install_is_connected", install_id="i-1", connection="kommo-acme-1", attempts=1, detail=""),
        METRIC,
        written("ERROR", "install_failed", install_id="i-2", reason="code_expired", detail="the code\nhas expired"),
        "END RequestId: 00000000-0000-4000-8000-000000000009",
        "REPORT RequestId: 00000000-0000-4000-8000-000000000009\tDuration: 12.30 ms\tBilled Duration: 13 ms",
        json.dumps({"time": "2026-01-31T12:00:00Z", "type": "platform.start", "record": {"requestId": "r"}}),
        json.dumps(
            {
                "time": "2026-01-31T12:00:20Z",
                "type": "platform.report",
                "record": {"requestId": "r", "status": "timeout", "metrics": {"durationMs": 20000.0}},
            }
        ),
    ],
    MANAGE: [
        written("INFO", "call_answered", status=200, resource="/v1/routes", request="q-1", caller=f"{ARN}/Maria"),
        written("WARNING", "records_wait", destination="marketo-main", source="kommo-acme-1", records=3),
        written("INFO", "request_accepted", requests=["q-8", "q-9"], correlation_id="c-1"),
    ],
}


@pytest.fixture
def logged(stack: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"ExchangeCodeLogs": EXCHANGE, "ManageLogs": MANAGE, "ApiAccessLogs": "access"}
    monkeypatch.setattr(Deployment, "kinds", lambda self, kind: kinds if kind == command.LOG_GROUP else {})
    monkeypatch.setattr(command, "REQUESTS_PER_S", 1e9)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    client = service_clients.client("logs")
    for group in client.describe_log_groups()["logGroups"]:
        client.delete_log_group(logGroupName=group["logGroupName"])
    for group, lines in LINES.items():
        client.create_log_group(logGroupName=group)
        client.create_log_stream(logGroupName=group, logStreamName="one")
        write(group, *lines)


def write(group: str, *lines: str) -> None:
    now_ms = int(time.time() * 1_000)
    events = [{"timestamp": now_ms + number, "message": line} for number, line in enumerate(lines)]
    service_clients.client("logs").put_log_events(logGroupName=group, logStreamName="one", logEvents=events)


@pytest.mark.usefixtures("logged")
class TestLogQueries:
    def test_cli_logs_prints_one_line_per_event_without_lambda_lines(self) -> None:
        shown = run("logs").stdout
        events = [
            "an_install_is_connected",
            "install_failed",
            "invocation_failed",
            "call_answered",
            "records_wait",
            "request_accepted",
        ]
        lines = shown.splitlines()
        assert len(lines) == len(events)
        assert all(any(event in line for line in lines) for event in events)
        for noise in ("START", "REPORT", "_aws", "arn:", "function_memory_size", "xray", "location", "detail=\n"):
            assert noise not in shown

    def test_cli_logs_line_has_time_function_level_event_and_fields(self) -> None:
        (line,) = run("logs", "--install", "i-2").stdout.splitlines()
        clock, function, level, event, *_ = line.split()
        assert (len(clock), function, level, event) == (8, "exchange_code", "ERROR", "install_failed")
        assert line.endswith('install_id=i-2  reason=code_expired  detail="the code has expired"')

    @pytest.mark.parametrize(
        ("arguments", "events"),
        [
            (["exchange_code", "--connection", "kommo-acme-1"], ["an_install_is_connected"]),
            (["--connection", "kommo-acme-1"], ["an_install_is_connected", "records_wait"]),
            (["--connection", "marketo-main"], ["records_wait"]),
            (["--connection", "marketo"], []),
            (["--request", "q-1"], ["call_answered"]),
            (["--request", "q-9"], ["request_accepted"]),
            (["--request", "c-1"], ["request_accepted"]),
            (["--install", "i-1", "--connection", "kommo-acme-1"], ["an_install_is_connected"]),
        ],
    )
    def test_cli_logs_filter_keeps_events_with_exact_value(self, arguments: list[str], events: list[str]) -> None:
        lines = run("logs", *arguments).stdout.splitlines()
        assert len(lines) == len(events)
        assert all(any(event in line for line in lines) for event in events)

    @pytest.mark.parametrize("arguments", [["logs", "--json"], ["--json", "logs"]])
    def test_cli_logs_with_json_option_prints_original_lines(self, arguments: list[str]) -> None:
        lines = run(*arguments).stdout.splitlines()
        assert sorted(lines) == sorted(line for group in LINES.values() for line in group)

    def test_cli_logs_without_events_names_filter_and_time_range(self) -> None:
        done = run("logs", "--install", "nope", "--since", "2h")
        assert done.stdout == ""
        assert done.stderr == (
            "There are no events with install nope in the last 120 minutes. Look further back with --since, such as "
            "--since 2h.\n"
        )

    def test_cli_logs_follow_prints_new_events_once_until_interrupted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rounds: list[float] = []

        def sleep(seconds: float) -> None:
            if seconds < 1:
                return
            rounds.append(seconds)
            if len(rounds) == 2:
                write(MANAGE, written("INFO", "later", request="q-1"))
            if len(rounds) == 4:
                raise KeyboardInterrupt

        monkeypatch.setattr(time, "sleep", sleep)
        shown = run("logs", "manage", "--request", "q-1", "--follow", exit_code=130).stdout
        assert [line.split()[3] for line in shown.splitlines()] == ["call_answered", "later"]

    def test_cli_logs_colours_only_on_terminal_without_no_color(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "\x1b[" not in run("logs").stdout
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert "\x1b[" in run("logs").stdout
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b[3" not in run("logs").stdout

    def test_cli_logs_unknown_function_is_refused_with_known_functions(self) -> None:
        error = run("logs", "exchange", exit_code=2).stderr
        assert error == "error: there is no function exchange; there are exchange_code, manage\n"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("2026-01-31T12:00:00.000Z 0000-1 Task timed out after 20.00 seconds", "ERROR    2026-01-31T12:00:00.000Z"),
        ("[ERROR] Runtime.ImportModuleError: Unable to import module 'handler'", "ERROR    [ERROR] Runtime"),
        (
            written(
                "ERROR",
                "message_failed",
                error="KeyError",
                at=['  File "/opt/python/portaria/vault.py", line 7, in get\n'],
            ),
            "at=vault.py:7:get",
        ),
        (written("INFO", "bell\x1b[2J", x="a\x07b"), 'x="a b"'),
        (written("INFO", "counted", counts={"Sent": 2, "DeadLetters": 0}), "counts=(Sent=2)"),
        ("[" * 5_000, "[[["),
    ],
)
def test_log_lines_shown_is_one_line_without_control_characters(message: str, words: str) -> None:
    line = log_lines.read(message)
    assert line
    console = Console(width=400, highlight=False)
    with console.capture() as captured:
        console.print(log_lines.shown(datetime.now(UTC), "manage", line, 6), soft_wrap=True)
    assert words in captured.get()
    assert captured.get().count("\n") == 1
    assert "\x1b" not in captured.get()
