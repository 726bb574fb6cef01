"""The running stack, parameter types and output of the sandbox's commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.table import Table
from rich.text import Text

from local.control import Control
from local.processes import NotStarted
from local.stack import Stack

UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass
class Sandbox:
    """The running local cloud of this checkout. The first access raises `NotStarted` if it is not running."""

    @cached_property
    def stack(self) -> Stack:
        stack = Stack.read()
        if stack is None or stack.dead_parts():
            raise NotStarted("The sandbox is not running: `make sandbox` starts it.")
        return stack

    @cached_property
    def control(self) -> Control:
        return Control(self.stack.control_url)


pass_sandbox = click.make_pass_decorator(Sandbox, ensure=True)


class Account(click.ParamType[str]):
    """A Kommo account: `padaria`, or its full host name."""

    name = "account"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value) if "." in str(value) else f"{value}.kommo.com"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        return items(
            lambda: (each["host"].removesuffix(".kommo.com") for each in known().kommo()["accounts"]), incomplete
        )


class Provider(click.ParamType[str]):
    """A simulated OAuth 2.0 provider or API."""

    name = "provider"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        return items(known().oauth2_providers, incomplete)


class Duration(click.ParamType[float]):
    """Seconds, as `30s`, `5m`, `2h` or `1d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if not found:
            self.fail(f"{value!r} is not a duration such as 30s, 5m, 2h or 1d", param, ctx)
        return float(found[1]) * UNITS[found[2]]


class Assignment(click.ParamType[tuple[str, str]]):
    """NAME=VALUE."""

    name = "name=value"

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = tuple(names)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not of the form NAME=VALUE", param, ctx)
        if self.names and name not in self.names:
            self.fail(f"{name} is not one of {', '.join(self.names)}", param, ctx)
        return name, text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        return [CompletionItem(f"{name}=") for name in self.names if name.startswith(incomplete)]


def known() -> Control:
    """The control for completion. Raises `NotStarted` if the sandbox is not running."""
    return Sandbox().control


def items(look: Callable[[], Iterable[str]], incomplete: str) -> list[CompletionItem[str]]:
    """The completions of a word; none if the sandbox does not answer."""
    try:
        return [CompletionItem(each) for each in look() if each.startswith(incomplete)]
    except (NotStarted, OSError, ValueError):
        return []


def console() -> Console:
    """Standard output. Tables have a fixed width of 160 columns if it is not a terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def say(sentence: str) -> None:
    console().print(sentence, markup=False, soft_wrap=True)


def table(rows: list[dict[str, Any]], *columns: str, nothing: str) -> None:
    """Print the rows, or the sentence `nothing` if there are none."""
    if not rows:
        say(nothing)
        return
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        shown.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        shown.add_row(*(Text("" if row.get(column) is None else str(row[column])) for column in columns))
    console().print(shown)
