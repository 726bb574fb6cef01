"""`python -m local up|down|status|logs|invoke`: the local cloud of this checkout."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from local import lifecycle
from local.processes import NotStarted
from local.stack import Stack

console = Console(highlight=False)
NOT_RUNNING = 3
# Without a terminal, a step that takes longer is announced.
QUIET_S = 2.0


@contextmanager
def step(title: str) -> Iterator[None]:
    """Show a step with its elapsed time while it runs, and its duration afterwards.

    If the output is not a terminal, a line announces a step that takes longer than `QUIET_S`.
    """
    started = time.monotonic()
    announcement = threading.Timer(QUIET_S, console.print, [f"  {title} …"])
    if not console.is_terminal:
        announcement.start()
    try:
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as progress:
            progress.add_task(f"{title} …", total=None)
            yield
    finally:
        announcement.cancel()
    console.print(f"[green]✓[/] {title} [dim]{time.monotonic() - started:.1f} s[/]")


@click.group(help=__doc__)
def cli() -> None:
    pass


@cli.command()
@click.option("--port", default=0, envvar="GATEWAY_PORT", help="Port for MiniStack; a free one by default.")
def up(port: int) -> None:
    """Start the local cloud, or update it. Its addresses are in build/stack.json."""
    describe(lifecycle.up(step, console.print, port=port, keep=True))


@cli.command()
def down() -> None:
    """Stop the local cloud of this checkout."""
    stopped = lifecycle.down(console.print)
    console.print(f"Stopped {stopped} processes." if stopped else "Nothing was running.")


@cli.command()
def status() -> None:
    """Show the addresses and processes. Exit status 3 if the local cloud is not running or a process died."""
    stack = Stack.read()
    if stack is None:
        console.print("The local cloud is not running.")
        sys.exit(NOT_RUNNING)
    describe(stack)
    if dead := stack.dead_parts():
        console.print(f"[red]Dead: {', '.join(dead)}[/] (see build/local/)")
        sys.exit(NOT_RUNNING)


@cli.command()
@click.argument("function", required=False)
@click.option("--since", default=10.0, show_default=True, help="Minutes to look back.")
@click.option("--follow/--no-follow", default=True, show_default=True)
def logs(function: str | None, since: float, follow: bool) -> None:
    """Follow the functions' logs, or one FUNCTION's (`exchange_code`)."""
    stack = Stack.read()
    if stack is None or stack.dead_parts():
        raise NotStarted("The local cloud is not running: `make up`.")
    groups = {name: group for name, group in stack.log_groups.items() if function in (None, name)}
    if not groups:
        raise click.BadParameter(f"one of {', '.join(sorted(stack.log_groups))}", param_hint="FUNCTION")
    client = stack.client("logs")
    shown: set[tuple[str, int, str]] = set()
    start = int((time.time() - since * 60) * 1000)
    while True:
        lines = []
        for name, group in groups.items():
            for page in client.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=start):
                lines += [(event["timestamp"], name, event) for event in page["events"]]
        for timestamp, name, event in sorted(lines, key=lambda line: line[0]):
            identity = (event["logStreamName"], timestamp, event["message"])
            if identity not in shown:
                shown.add(identity)
                clock = time.strftime("%H:%M:%S", time.localtime(timestamp / 1000))
                console.print(f"[dim]{clock}[/] [cyan]{name}[/] ", end="")
                console.print(event["message"].rstrip(), markup=False, soft_wrap=True)
        if not follow:
            return
        time.sleep(1)


@cli.command()
@click.argument("function")
@click.argument("event")
def invoke(function: str, event: str) -> None:
    """Invoke FUNCTION (`AcceptInstallFunction`) as Lambda runs it, with the EVENT of a file or of standard input (`-`)."""
    # Only this command runs a function.
    from local.functions import invoke as invocation

    # Standard output contains only the answer.
    console.stderr = True
    stack = lifecycle.up(step, lambda _text: None, keep=True)
    if invocation.invoke(stack, function, event).failed:
        sys.exit(1)


def describe(stack: Stack) -> None:
    rows = {
        "API": stack.api_url,
        "API by name": f"{stack.public_url}  [dim](through the proxy)[/]",
        "AWS": stack.aws_endpoint_url,
        "proxy": stack.proxy_url,
        "simulators' control": stack.control_url,
        "processes": "  ".join(f"{name} {pid}" for name, pid in stack.pids.items()),
        "description": "build/stack.json",
    }
    for label, value in rows.items():
        # Never wrapped or truncated, so that they can be copied.
        console.print(f"{label:<20} {value}", soft_wrap=True)


def main() -> None:
    try:
        cli(standalone_mode=False)
    except NotStarted as reason:
        console.print(f"[red]{reason}[/]", soft_wrap=True)
        sys.exit(1)
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(wrong.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


if __name__ == "__main__":
    main()
