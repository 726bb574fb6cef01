"""The leak check: no secret of the tests may come out of the product where people or other systems read.

Secrets of tests and simulators contain `canary-`. While tests run, this plugin looks at everything that the process
emits: log records (message, extra fields, exceptions) and the lines that handlers make of them, what is printed (metrics
among it), the text of the product's exceptions and of those that `pytest.raises` catches, and what boto3 is asked for:
table items, queue messages, events, metrics, names. A leak fails the test that it came out in, at its teardown.
`tests/fakes/local_cloud/leaks.py` does the same for what a session leaves on the local cloud.

What may hold a secret: Secrets Manager's values, requests to platforms, and two fields of an arrival (`ALLOWED_FIELDS`).
There are no traces to look at: X-Ray's SDK is not in the layers, and Lambda's own segments carry no text of the product.

`build/leaks.json` counts what was looked at, by test file; a file that runs again replaces its own figures.
"""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from portaria.aws import light_client, table
from portaria.core import errors

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "build" / "leaks.json"
CANARY = "canary-"
# An authorization code waits in one of the queues for exchanges, or in the table's items ARRIVALS where SQS refused it, with
# the proof of who began: they are the work itself. Both stores are encrypted at rest, a code works once and for minutes.
ALLOWED_FIELDS = ("code", "code_verifier")
ARRIVALS = ({"S": "ARRIVALS"}, {"S": "ARRIVALS#UNPROVEN"})
EXCHANGES = "exchanges"
# Attributes of every log record.
STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
EXCERPT_CHARACTERS = 60


def _in_base64(text: str) -> Iterator[str]:
    """The base64 form of a text inside a longer one, for the three possible offsets."""
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + text.encode()).decode()
        yield encoded[-(-offset * 8 // 6) : (offset + len(text)) * 8 // 6]


NEEDLES = (CANARY, *_in_base64(CANARY))
# A token of the project's own API; only a command that the user called to see it may print one.
_TOKEN = re.compile(r"portaria_[0-9A-Za-z]{48}")
_SECRET = re.compile(rf"(?:{'|'.join(map(re.escape, NEEDLES))})[^\s\"'\\&,;<>]*")


def holds_secret(text: str, needles: tuple[str, ...] = NEEDLES) -> bool:
    for needle in needles:  # noqa: SIM110  (a third of the time of `any`, for 250,000 texts)
        if needle in text:
            return True
    return False


def masked(text: str) -> str:
    """The text around the first secret, without any secret."""
    found = _SECRET.search(text) or _TOKEN.search(text)
    if found is None:
        return ""
    part = text[max(0, found.start() - EXCERPT_CHARACTERS) : found.end() + EXCERPT_CHARACTERS]
    return without_secrets(part)


def without_secrets(text: str) -> str:
    return _TOKEN.sub("[token]", _SECRET.sub("[secret]", text))


# ------------------------------------------------------------------------------------------------------------------- texts


def text_of_message(body: str, queue: str) -> str:
    """The text of a queue message, without the fields that an arrival may contain."""
    return _text_of_arrival(body) if EXCHANGES in queue.lower() else body


def text_of_item(item: dict[str, Any]) -> str:
    """The text of a table item in the form of boto3's client, without the fields that an arrival may contain."""
    if item.get("pk") in ARRIVALS and "S" in item.get("body", {}):
        item = {**item, "body": _text_of_arrival(item["body"]["S"])}
    return repr(item)


def _text_of_arrival(body: str) -> str:
    try:
        message = json.loads(body)
    except ValueError:
        return body
    if not isinstance(message, dict):
        return body
    return repr({name: value for name, value in message.items() if name not in ALLOWED_FIELDS})


def texts_of_exception(error: BaseException | None) -> Iterator[str]:
    """The text of an exception and of those that its traceback includes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield " ".join([type(error).__name__, str(error), *getattr(error, "__notes__", ())])
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                yield from texts_of_exception(each)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def texts_of_call(service: str, operation: str, parameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The kind and the text of everything that an AWS call transmits."""
    match service, operation:
        case "dynamodb", "PutItem":
            rest = {name: value for name, value in parameters.items() if name != "Item"}
            yield "table_items", text_of_item(parameters.get("Item", {})) + repr(rest)
        case "dynamodb", "UpdateItem":
            yield "table_items", repr(parameters)
        case "dynamodb", "TransactWriteItems":
            for write in parameters.get("TransactItems", []):
                for kind, call in write.items():
                    yield from texts_of_call(service, f"{kind}Item", call)
        case "sqs", "SendMessage":
            yield from _texts_of_sending(parameters, str(parameters.get("QueueUrl")))
        case "sqs", "SendMessageBatch":
            for entry in parameters.get("Entries", []):
                yield from _texts_of_sending(entry, str(parameters.get("QueueUrl")))
        case "events", "PutEvents":
            for entry in parameters.get("Entries", []):
                yield "events", repr(entry)
        case "cloudwatch", "PutMetricData":
            yield "metrics", repr(parameters)
        case "secretsmanager", _:
            public = {name: each for name, each in parameters.items() if name not in ("SecretString", "SecretBinary")}
            yield "other_requests", repr(public)
        case "lambda", "Invoke":
            pass  # requests of the outside world to a function, which may contain a code
        case _:
            yield "other_requests", repr(parameters)


def _texts_of_sending(entry: dict[str, Any], queue: str) -> Iterator[tuple[str, str]]:
    rest = {name: value for name, value in entry.items() if name != "MessageBody"}
    yield "queue_messages", text_of_message(str(entry.get("MessageBody")), queue.rpartition("/")[2]) + repr(rest)


# --------------------------------------------------------------------------------------------------------------- watching


@dataclass(frozen=True)
class Leak:
    kind: str
    where: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: …{self.excerpt}…"


@dataclass
class Watch:
    """Counts of what was checked, by test module and kind, and the leaks since the last test ended."""

    needles: tuple[str, ...] = NEEDLES
    file: str = ""
    figures: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    found: list[Leak] = field(default_factory=list)

    def count(self, kind: str, number: int = 1) -> None:
        self.figures[self.file][kind] += number

    def look(self, kind: str, text: str, where: str) -> None:
        """Check one text."""
        self.count(kind)
        if holds_secret(text, self.needles) or (kind != "printed_lines" and _TOKEN.search(text)):
            self.found.append(Leak(kind, where, masked(text)))

    def look_at_record(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception as error:
            message = f"{record.msg!r} {record.args!r} {error}"
        more = {name: value for name, value in record.__dict__.items() if name not in STANDARD}
        errors = texts_of_exception(record.exc_info[1]) if record.exc_info else ()
        told = "\n".join([message, repr(more) if more else "", *errors])
        self.look("log_records", told, f"{record.name} at {os.path.basename(record.pathname)}:{record.lineno}")

    def look_at_exception(self, error: BaseException) -> None:
        for text in texts_of_exception(error):
            self.look("exceptions", text, type(error).__name__)

    def look_at_output(self, text: str, where: str) -> None:
        for line in text.splitlines():
            self.look("metrics" if '"CloudWatchMetrics"' in line else "printed_lines", line, where)

    def look_at_call(self, service: str, operation: str, parameters: dict[str, Any]) -> None:
        for kind, text in texts_of_call(service, operation, parameters):
            self.look(kind, text, f"{service}.{operation}")

    def take(self) -> list[Leak]:
        """Return and clear the leaks since the last call."""
        found, self.found = self.found, []
        self.count("leaks", len(found))
        return found


WATCH = Watch()


def _hook(patch: pytest.MonkeyPatch) -> None:
    """Observe everything that this process logs, raises, captures or sends to AWS."""
    handle, form = logging.Logger.handle, logging.Handler.format
    call, read = BaseClient._make_api_call, pytest.CaptureFixture.readouterr
    fill = pytest.ExceptionInfo.fill_unfilled

    def hooked_handle(logger: logging.Logger, record: logging.LogRecord) -> None:
        WATCH.look_at_record(record)
        handle(logger, record)

    def hooked_format(handler: logging.Handler, record: logging.LogRecord) -> str:
        text = form(handler, record)
        WATCH.look("log_lines", text, f"{record.name} at {os.path.basename(record.pathname)}:{record.lineno}")
        return text

    def hooked_call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        WATCH.look_at_call(client.meta.service_model.service_name, operation, parameters)
        return call(client, operation, parameters)

    def hooked_read(capture: pytest.CaptureFixture[Any]) -> Any:
        result = read(capture)
        for text in result:
            WATCH.look_at_output(text if isinstance(text, str) else text.decode(errors="replace"), "printed")
        return result

    def hooked_fill(info: pytest.ExceptionInfo[Any], raised: Any) -> None:
        WATCH.look_at_exception(raised[1])
        fill(info, raised)

    patch.setattr(logging.Logger, "handle", hooked_handle)
    patch.setattr(logging.Handler, "format", hooked_format)
    patch.setattr(BaseClient, "_make_api_call", hooked_call)
    patch.setattr(pytest.CaptureFixture, "readouterr", hooked_read)
    patch.setattr(pytest.ExceptionInfo, "fill_unfilled", hooked_fill)
    for kind in (errors.Rejected, errors.Retryable, light_client.AwsError, table.Conflict):
        patch.setattr(kind, "__init__", _telling(kind.__init__))


def _telling(initialise: Any) -> Any:
    def hooked(error: Exception, *arguments: Any, **named: Any) -> None:
        initialise(error, *arguments, **named)
        WATCH.look("exceptions", str(error), type(error).__name__)

    return hooked


# ------------------------------------------------------------------------------------------------------------------ pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--leak-figures", type=Path, default=RESULT, help="the JSON file that counts what the leak check looked at"
    )


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    _hook(patch)
    config.add_cleanup(patch.undo)
    config.pluginmanager.register(LeakCheck(config), "leak-check")


class LeakCheck:
    """Fails the test that leaked."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        # Leaks outside of tests.
        self.left: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        WATCH.file = item.nodeid.partition("::")[0]
        WATCH.count("tests")
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        arguments = getattr(item, "funcargs", None) or {}
        captures = [each for each in arguments.values() if isinstance(each, pytest.CaptureFixture)]
        try:
            result = yield
        except BaseException:
            if told := self._conclude(item, captures):
                item.add_report_section("teardown", "leaks", told)
            raise
        if told := self._conclude(item, captures):
            pytest.fail(told, pytrace=False)
        return result

    @staticmethod
    def _conclude(item: pytest.Item, captures: list[pytest.CaptureFixture[Any]]) -> str:
        """The leaks of a test that has ended; empty if there are none."""
        for capture in captures:
            capture.readouterr()
        for _, name, text in item._report_sections:
            if name in ("stdout", "stderr"):
                WATCH.look_at_output(text, name)
        leaks = WATCH.take()
        lines = [f"{len(leaks)} leaked: a secret came out where it may not", *dict.fromkeys(map(str, leaks))]
        return "\n  ".join(lines) if leaks else ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.left += map(str, WATCH.take())
        if self.left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if any(figures["tests"] for figures in WATCH.figures.values()):
            write_figures(self.config.getoption("--leak-figures"), WATCH.figures)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.left:
            terminalreporter.section("leaks outside of tests", red=True)
            terminalreporter.write_line("\n".join(self.left))
        total = sum(WATCH.figures.values(), Counter())
        if total["tests"]:
            looked_at = sum(count for kind, count in total.items() if kind not in ("tests", "leaks"))
            terminalreporter.write_line(f"leak check: {looked_at:,} texts looked at, {total['leaks']} leaks")


def write_figures(file: Path, figures: dict[str, Counter[str]]) -> None:
    """Replace the figures of the test modules that ran, and the total of all existing modules.

    Several groups of tests may end at the same time, and each keeps the figures of the others.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write_figures(file, figures)


def _write_figures(file: Path, figures: dict[str, Counter[str]]) -> None:
    try:
        files = json.loads(file.read_text())["files"]
    except (FileNotFoundError, ValueError, KeyError):
        files = {}
    files |= {name: dict(sorted(counts.items())) for name, counts in figures.items() if counts["tests"]}
    files = {name: files[name] for name in sorted(files) if (ROOT / name).exists() or name in figures}
    total: Counter[str] = sum(map(Counter, files.values()), Counter())
    kinds = sorted({kind for counts in files.values() for kind in counts})
    document = {"total": {kind: total[kind] for kind in kinds}, "files": files}
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(document, indent=2) + "\n")
    fresh.replace(file)
