"""A function's log line as people read it: time, function, level, event and the fields that matter.

Lines that Lambda itself writes about each invocation, and metrics in CloudWatch's embedded metric format, are left out;
an invocation that Lambda ended is kept. https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-logformat.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.text import Text

# What Lambda and the logger add to every line.
_ADDED = frozenset(
    {
        *("level", "message", "timestamp", "time", "type", "location", "service", "xray_trace_id", "sampling_rate"),
        *("cold_start", "function_name", "function_memory_size", "function_arn", "function_request_id", "requestId"),
        *("logger", "exception", "exception_name", "stack_trace", "errorType", "errorMessage", "stackTrace"),
    }
)
_PLATFORM_LINE = re.compile(r"(START|END|REPORT) RequestId: |INIT_START |INIT_REPORT |EXTENSION\t|XRAY TraceId: ")
# Of an invocation's report: it ended as it should.
_SUCCESS = "success"
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
LONGEST_VALUE = 160
STYLES = {
    "DEBUG": "dim",
    "INFO": "",
    "WARNING": "yellow",
    "WARN": "yellow",
    "ERROR": "bold red",
    "CRITICAL": "bold red",
}

# Which fields of a line a filter of the command compares.
FILTERS = {
    "install": ("install_id", "install"),
    "connection": ("connection", "source", "destination", "tenant"),
    "request": ("request", "requests", "request_id", "function_request_id", "requestId", "correlation_id"),
}


@dataclass(frozen=True)
class Line:
    """`fields` is all that a JSON line holds; `text` is a line that is not JSON."""

    level: str
    event: str
    fields: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    def matches(self, wanted: dict[str, str]) -> bool:
        """Whether each filter's value is in one of its fields, which may hold a list."""
        return all(
            any(value in _values(self.fields.get(name)) for name in FILTERS[filter_name])
            for filter_name, value in wanted.items()
        )


def read(message: str) -> Line | None:
    """A log message, or None if it is left out."""
    message = message.strip()
    try:
        content = json.loads(message)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        return _of_json(content)
    if not message or _PLATFORM_LINE.match(message):
        return None
    is_error = "Task timed out" in message or message.startswith(("[ERROR]", "RequestId: ")) or "Error" in message[:80]
    return Line("ERROR" if is_error else "INFO", "", text=" ".join(message.split()))


def _of_json(content: dict[str, Any]) -> Line | None:
    if "_aws" in content:
        return None
    if str(content.get("type", "")).startswith("platform."):
        return _of_platform(content)
    level = str(content.get("level", "INFO"))
    fields = dict(content)
    if error := content.get("exception_name") or content.get("errorType"):
        fields["error"] = content.get("error") or error
    event = str(content.get("message") or content.get("errorMessage") or content.get("errorType") or "")
    return Line(level, event, fields)


def _of_platform(content: dict[str, Any]) -> Line | None:
    """Lambda's own line about an invocation or an environment: only what went wrong is for people."""
    record = content.get("record")
    if not isinstance(record, dict):
        return None
    kind, status = str(content["type"]).removeprefix("platform."), record.get("status", _SUCCESS)
    if kind not in ("report", "initReport", "fault", "logsDropped") or (kind != "logsDropped" and status == _SUCCESS):
        return None
    told = {name: record[name] for name in ("status", "errorType", "reason", "droppedRecords") if name in record}
    names = {"report": "invocation_failed", "initReport": "initialization_failed", "logsDropped": "logs_dropped"}
    fields = {("error" if name == "errorType" else name): value for name, value in told.items()}
    return Line("ERROR", names.get(kind, kind), {**fields, "requestId": record.get("requestId")})


def shown(at: datetime, function: str, line: Line, width: int) -> Text:
    """One line, `function` padded to `width`. An ARN is cut to its last part; line ends become spaces."""
    text = Text.assemble(
        (at.strftime("%H:%M:%S"), "dim"),
        "  ",
        (function.ljust(width), "cyan"),
        "  ",
        (line.level.ljust(7), STYLES.get(line.level, "")),
        "  ",
    )
    if line.text:
        return text.append(_one_line(line.text))
    text.append(_one_line(line.event), style=STYLES.get(line.level, "") or "bold")
    for name, value in line.fields.items():
        if name in _ADDED or value in (None, "", [], {}):
            continue
        text.append("  ").append(f"{name}=", style="dim").append(_value(name, value))
    return text


def _values(held: Any) -> list[str]:
    return [str(each) for each in held] if isinstance(held, list) else [str(held)]


def _value(name: str, value: Any) -> str:
    if name == "at" and isinstance(value, list):
        return _place(value)
    if isinstance(value, dict):
        told = " ".join(f"{inner}={_value(inner, each)}" for inner, each in value.items() if each not in (None, "", 0))
        return f"({told})"
    told = ",".join(_value("", each) for each in value) if isinstance(value, list) else str(value)
    if told.startswith("arn:"):
        told = re.split(r"[:/]", told)[-1]
    told = _one_line(told)
    if len(told) > LONGEST_VALUE:
        told = f"{told[:LONGEST_VALUE]}…"
    return json.dumps(told, ensure_ascii=False) if " " in told else told


def _place(frames: list[Any]) -> str:
    """Where a traceback ends: the last frame in this project's code, or else the last."""
    found = [match for frame in frames if (match := _FRAME.search(str(frame)))]
    if not found:
        return "?"
    own = [match for match in found if "portaria" in match["file"] or match["file"].endswith("handler.py")]
    last = (own or found)[-1]
    return f"{last['file'].rpartition('/')[2]}:{last['line']}:{last['function']}"


def _one_line(text: str) -> str:
    """Without control characters, which could write to the terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
