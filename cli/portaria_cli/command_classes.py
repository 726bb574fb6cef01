"""The classes of the commands: `--json` after a command, errors as JSON, and groups that are imported when they are used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from portaria_cli.errors import NotDone

JSON_HELP = "Print JSON, for programs."
_JSON_WANTED = "portaria_cli.json_wanted"


def _print_json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.find_root().params["as_json"] = True
        ctx.obj.as_json = True


def _json_option() -> click.Option:
    return click.Option(
        ["--json"], is_flag=True, is_eager=True, expose_value=False, callback=_print_json, help=JSON_HELP
    )


class Command(click.Command):
    """A command that takes `--json` after its name too."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.append(_json_option())


class Commands(click.Group):
    """A group of commands that takes `--json` after its name too."""

    command_class = Command

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.append(_json_option())


class Lazy(NamedTuple):
    """A command that is imported when it is used: the attribute of a module. `help` is the command's own short help."""

    module: str
    attribute: str
    help: str


class Root(click.Group):
    """The command line itself. Errors are one line and an exit code, or a JSON document with `--json`.

    `sections` are the headings of the help with their commands, which are imported when they are used. `aliases` are other
    names of commands; the help does not list them.
    """

    def __init__(
        self, *arguments: Any, sections: Mapping[str, Mapping[str, Lazy]], aliases: Mapping[str, str], **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.sections = sections
        self.aliases = aliases
        self.lazy = {name: lazy for commands in sections.values() for name, lazy in commands.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self.lazy.get(self.aliases.get(cmd_name, cmd_name))
        if lazy is None:
            return None
        found: click.Command = getattr(import_module(lazy.module), lazy.attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.lazy))
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), lazy.help) for name, lazy in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """The commands' names without importing them. An alias completes only what no name does."""
        found = [
            CompletionItem(name, help=lazy.help) for name, lazy in self.lazy.items() if name.startswith(incomplete)
        ]
        if not found:
            found = [CompletionItem(alias) for alias in self.aliases if incomplete and alias.startswith(incomplete)]
        # Beyond the commands: this group's options.
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        is_json_wanted = _asks_for_json(args)
        try:
            ctx = super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if not is_json_wanted:
                raise
            raise _told_as_json(error) from None
        # A wrong usage of a command is found before its own `--json` is read.
        ctx.meta[_JSON_WANTED] = is_json_wanted
        return ctx

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NotDone as not_done:
            _tell(not_done, as_json=bool(ctx.params.get("as_json")))
            ctx.exit(not_done.exit_code)
        except (click.ClickException, click.Abort) as error:
            if not ctx.meta[_JSON_WANTED]:
                raise
            raise _told_as_json(error) from None


def _asks_for_json(words: Sequence[str]) -> bool:
    options = words[: words.index("--")] if "--" in words else words
    return "--json" in options


def _told_as_json(error: click.ClickException | click.Abort) -> click.exceptions.Exit:
    """Prints the error as a JSON document. Returns what ends the program with its exit code."""
    if isinstance(error, click.Abort):
        told, exit_code = {"error": "aborted"}, 1
    elif isinstance(error, click.exceptions.NoArgsIsHelpError) and error.ctx:
        told, exit_code = {"error": "Missing command.", "usage": _usage(error.ctx)}, error.exit_code
    else:
        ctx = getattr(error, "ctx", None)
        told = {"error": error.format_message()} | ({"usage": _usage(ctx)} if ctx else {})
        exit_code = error.exit_code
    click.echo(json.dumps(told, ensure_ascii=False), err=True)
    return click.exceptions.Exit(exit_code)


def _usage(ctx: click.Context) -> str:
    return " ".join(ctx.get_usage().removeprefix("Usage: ").split())


def _tell(not_done: NotDone, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": str(not_done), **not_done.problem}, ensure_ascii=False), err=True)
        return
    from portaria_cli.context import errors  # noqa: PLC0415
    from portaria_cli.terminal import output  # noqa: PLC0415 - rich is imported by the commands that print with it

    errors().print(output.error_line(str(not_done)), markup=False)
