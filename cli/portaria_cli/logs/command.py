"""The command `logs`: the log events of a stack's functions, one line for each."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from portaria_cli import completion
from portaria_cli.command_classes import Command
from portaria_cli.context import CliContext, working
from portaria_cli.doctor.findings import NotLooked, NotThere
from portaria_cli.errors import NotDone
from portaria_cli.logs import lines

if TYPE_CHECKING:
    from portaria_cli.doctor.deployment import Deployment

LOG_GROUP, SUFFIX = "AWS::Logs::LogGroup", "Logs"
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
# FilterLogEvents allows 5 requests a second in an account and region:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
REQUESTS_PER_S = 4.0
# An event may become visible this many seconds after its time.
LATE_S = 60
MOST_REMEMBERED = 50_000
INTERRUPTED = 130


class Span(click.ParamType[float]):
    """A length of time such as 30s, 10m, 2h or 1d, in seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9]{1,5})([smhd]?)", str(value))
        if not found:
            self.fail(
                f"{value!r} is not a length of time: give a number and a unit, such as 30s, 10m, 2h or 1d", param, ctx
            )
        return int(found[1]) * UNITS[found[2] or "m"]


@dataclass(frozen=True)
class Event:
    """`at` is in milliseconds since the epoch."""

    at: int
    function: str
    message: str
    identity: tuple[str, str, int, str]


class Reader:
    """The events of log groups, by function. `pattern` has CloudWatch send only events that contain it."""

    def __init__(self, deployment: Deployment, groups: dict[str, str], pattern: str) -> None:
        self.deployment = deployment
        self.groups = groups
        self.pattern = {"filterPattern": pattern} if pattern else {}
        self._pause_s = 0.0 if deployment.local else 1 / REQUESTS_PER_S
        self._seen: OrderedDict[tuple[str, str, int, str], None] = OrderedDict()

    def since(self, start_ms: int) -> list[Event]:
        """The events from a time on that were not returned before, in the order of time. Raises `NotLooked`, `NotThere`."""
        found = []
        for event in (event for name in self.groups for event in self._events(name, start_ms)):
            if event.identity not in self._seen:
                self._seen[event.identity] = None
                found.append(event)
        while len(self._seen) > MOST_REMEMBERED:
            self._seen.popitem(last=False)
        return sorted(found, key=lambda event: event.at)

    def _events(self, function: str, start_ms: int) -> Iterator[Event]:
        page: dict[str, Any] = {"nextToken": None}
        while "nextToken" in page:
            token = {"nextToken": page["nextToken"]} if page["nextToken"] else {}
            wanted = {"logGroupName": self.groups[function], "startTime": start_ms, **self.pattern, **token}
            page = self.deployment.call("logs", "filter_log_events", **wanted)
            for each in page["events"]:
                at, message = int(each["timestamp"]), str(each["message"])
                yield Event(at, function, message, (function, str(each.get("logStreamName")), at, message))
            time.sleep(self._pause_s)


@click.command(cls=Command)
@click.argument("functions", nargs=-1, metavar="[FUNCTION]...")
@click.option(
    "--since",
    "span_s",
    type=Span(),
    default="10m",
    show_default=True,
    metavar="TIME",
    help="How far to look back: 30s, 10m, 2h, 1d.",
)
@click.option("--follow/--no-follow", "-f", default=False, help="Go on with new events, until Ctrl-C.")
@click.option("--install", metavar="ID", help="Only events of this install.")
@click.option(
    "--connection",
    metavar="NAME",
    shell_complete=completion.names("connections"),
    help="Only events of this connection, as a source or destination too.",
)
@click.option("--request", metavar="ID", help="Only events of this request, by its X-Request-Id.")
@click.pass_context
def logs(ctx: click.Context, /, functions: tuple[str, ...], span_s: float, follow: bool, **filters: str | None) -> None:
    """Show what the functions of a stack logged.

    Each event is one line; --json prints the lines as the functions wrote them, with Lambda's own. FUNCTION is a function such
    as exchange_code; without one, all functions are shown. Reads CloudWatch Logs with your AWS
    credentials (logs:FilterLogEvents), or a local cloud's with --stack-file.
    """
    try:
        # Only here: the other commands do not need boto3.
        from portaria_cli.doctor.deployment import Deployment  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise NotDone(f"this command needs {missing.name}: pip install '.[doctor]'") from None
    cli: CliContext = ctx.obj
    wanted = {name: value for name, value in filters.items() if value}
    deployment = Deployment(cli.settings)
    try:
        groups = _groups(deployment, functions)
        reader = Reader(deployment, groups, _pattern(wanted))
        printing = Printing(cli, max(map(len, groups), default=0), wanted, raw=cli.as_json)
        start_ms = int((time.time() - span_s) * 1_000)
        with working() as tell:
            tell("reading the logs")
            events = reader.since(start_ms)
        printing.print(events)
        while follow:
            time.sleep(1)
            # What becomes visible late is found too.
            start_ms = max(start_ms, int((time.time() - LATE_S) * 1_000))
            printing.print(reader.since(start_ms))
    except NotLooked as reason:
        raise NotDone(
            f"the logs of the stack {deployment.stack_name} could not be read: {reason}", exit_code=3
        ) from None
    except NotThere:
        raise NotDone(
            f"a log group of the stack {deployment.stack_name} does not exist: deploy the stack again", exit_code=3
        ) from None
    except KeyboardInterrupt:
        ctx.exit(INTERRUPTED)
    if not printing.count:
        cli.say(_nothing(wanted, span_s))


class Printing:
    """Prints events that match, and counts them."""

    def __init__(self, cli: CliContext, width: int, wanted: dict[str, str], *, raw: bool) -> None:
        self.width = width
        self.wanted = wanted
        self.raw = raw
        self.count = 0
        # Each event stays on one line: a terminal wraps it, and programs that read a pipe search line by line.
        self._console = Console(highlight=False, soft_wrap=True)

    def print(self, events: list[Event]) -> None:
        for event in events:
            line = lines.read(event.message)
            if self.wanted and not (line and line.matches(self.wanted)):
                continue
            if self.raw:
                click.echo(event.message.rstrip("\n"))
            elif line:
                at = datetime.fromtimestamp(event.at / 1_000, UTC).astimezone()
                self._console.print(lines.shown(at, event.function, line, self.width))
            else:
                continue
            self.count += 1


def _groups(deployment: Deployment, functions: tuple[str, ...]) -> dict[str, str]:
    """The log groups, by function. Raises `NotDone` where there is no such function."""
    found = {
        re.sub(r"(?<!^)(?=[A-Z])", "_", logical_id.removesuffix(SUFFIX)).lower(): group
        for logical_id, group in deployment.kinds(LOG_GROUP).items()
        if logical_id.endswith(SUFFIX) and logical_id != "ApiAccessLogs"
    }
    if unknown := [name for name in functions if name not in found]:
        raise NotDone(f"there is no function {unknown[0]}; there are {', '.join(sorted(found))}", exit_code=2)
    return {name: group for name, group in found.items() if not functions or name in functions}


def _pattern(wanted: dict[str, str]) -> str:
    """A term that CloudWatch looks for in the text of an event, so that it sends fewer; `matches` decides."""
    return next((f'"{value}"' for value in wanted.values() if re.fullmatch(r"[A-Za-z0-9_.:/-]+", value)), "")


def _nothing(wanted: dict[str, str], span_s: float) -> str:
    of = " with " + ", ".join(f"{name} {value}" for name, value in wanted.items()) if wanted else ""
    minutes = f"{span_s / 60:.0f} minutes" if span_s >= 120 else f"{span_s:.0f} seconds"
    return f"There are no events{of} in the last {minutes}. Look further back with --since, such as --since 2h."
