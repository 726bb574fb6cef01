"""Shell completion: the script for a shell, and the names that complete an argument."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from threading import Thread
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class

from portaria_cli.errors import Document, NotDone

SHELLS = ("bash", "zsh", "fish")
# A completion that takes longer is left out.
PATIENCE_S = 2.0
MOST = 100
# Bash splits a word at these characters and completes the last part.
_BREAKS = re.compile(r"[:@]")

Items = list[CompletionItem[str]]
Completing = Callable[[click.Context, click.Parameter, str], Items]


@add_completion_class
class WholeWords(BashComplete):
    """Bash's completion for words that have a colon or an @, such as scopes."""

    name = "bash"

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        joins = False
        for word in [*args, incomplete]:
            is_break = bool(_BREAKS.fullmatch(word))
            if words and (joins or is_break):
                words[-1] += word
            else:
                words.append(word)
            joins = is_break
        self.whole = words.pop()
        return words, self.whole

    def format_completion(self, item: CompletionItem[Any]) -> str:
        begun = self.whole[: max((found.end() for found in _BREAKS.finditer(self.whole)), default=0)]
        return f"{item.type},{str(item.value).removeprefix(begun)}"


def script(shell: str, cli: click.Command, variable: str) -> str:
    """The script that a shell reads. `variable` is the environment variable with which it asks for completions."""
    found = get_completion_class(shell)
    if found is None:
        raise ValueError(shell)
    return found(cli, {}, "portaria", variable).source()


def names(
    kind: str, name: Callable[[Document], str] = lambda item: str(item["name"]), help_field: str = ""
) -> Completing:
    """Completes an argument with the names of a kind of resource, or with nothing if the API is not reached."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        found = [(name(item), str(item.get(help_field) or "")) for item in _ask(ctx, kind)]
        return [CompletionItem(each, help=told or None) for each, told in found if each.startswith(incomplete)]

    return complete


def profile_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Completes the names of profiles, or nothing if the configuration file is wrong."""
    from portaria_cli import profiles  # noqa: PLC0415 - only needed here

    try:
        return [CompletionItem(name) for name in profiles.read() if name.startswith(incomplete)]
    except NotDone:
        return []


def none(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Completes nothing: there are too many to choose from."""
    return []


class Scope(click.ParamType[str]):
    """A scope. It is checked before anything is sent, and completed with the scopes and the connections that exist."""

    name = "scope"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from portaria.access import scopes  # noqa: PLC0415 - only needed here

        try:
            return scopes.check(str(value))
        except ValueError as wrong:
            rule = str(wrong).replace("; the API reference lists them", ": `portaria scopes list` lists them")
            self.fail(f"{value!r}: {rule}" if value.partition("@")[0] in rule else f"{value!r} {rule}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        from portaria.access import scopes  # noqa: PLC0415 - only needed here

        scope, at, connection = incomplete.partition("@")
        if at and scope in scopes.NARROWABLE:
            known = [f"{scope}@{item['name']}" for item in _ask(ctx, "connections")]
            return [CompletionItem(each) for each in known if each.startswith(f"{scope}@{connection}")]
        return [CompletionItem(each, help=what) for each, what in scopes.SCOPES.items() if each.startswith(incomplete)]


def _ask(ctx: click.Context, kind: str) -> list[Document]:
    """The first page of a listing, or nothing after `PATIENCE_S`. A thread asks: the search for credentials has no limit."""
    given = ctx.find_root().params
    found: list[Document] = []

    def ask() -> None:
        # Completing a command's name needs none of these.
        from portaria_cli import profiles  # noqa: PLC0415
        from portaria_cli.auth import find_api  # noqa: PLC0415

        api = find_api(profiles.settle(given), timeout_s=(PATIENCE_S, PATIENCE_S))
        found.extend(islice(api.list(kind, most=MOST), MOST))

    def ask_in_silence() -> None:
        try:
            ask()
        except BaseException:  # noqa: BLE001 - an error would appear in the line that is being completed
            found.clear()

    asking = Thread(target=ask_in_silence, daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return [] if asking.is_alive() else found
