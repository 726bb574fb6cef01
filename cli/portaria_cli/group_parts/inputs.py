"""What the commands `create` and `edit` read: options, secrets, and the whole resource from a file.

A secret is never an option's value, because other users of the machine can read command lines. An option names where it is:
@FILE, @- (standard input) or env:NAME.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from portaria_cli.errors import USAGE, Document, NotDone

if TYPE_CHECKING:
    from portaria_cli.configure.entries import Entry

STDIN = Path("-")
SECRET_FORM = "@FILE|@-|env:NAME"  # noqa: S105 - where a secret is
# What the API adds to a resource, and takes from no one: a file may hold what `show --json` prints.
READ_ONLY: dict[str, tuple[str, ...]] = {
    "oauth-clients": ("credentials_set", "install_page_url", "logo_url", "warnings"),
    "connections": (
        "state", "reason", "label", "account_id", "generation", "created_at", "updated_at", "granted_at", "token_ends_at",
        "grant_ends_at",
        "previous_until", "refused_since", "refusal", "age_days", "credentials_set", "notes", "tags",
    ),
    "routes": ("warnings",),
    "records": (),
    "private-integrations": (
        "id", "created_at", "updated_at", "created_by", "token_made_at", "age_days", "last_used_at", "previous_last_used_at",
        "previous_until", "token",
    ),
}  # fmt: skip

FileOption = click.option(
    "--file", "file", type=click.Path(path_type=Path), metavar="FILE|-",
    help="Take the fields from YAML or JSON, such as `show --json` prints. An option replaces a field of the file.",
)  # fmt: skip


class SecretFrom(click.ParamType[Callable[[], str]]):
    """Where a secret is: a file, standard input or an environment variable. The value reads it."""

    name = "secret"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Callable[[], str]:
        text = str(value)
        if text.startswith("env:") and text != "env:":
            return lambda: _variable(text.removeprefix("env:"))
        if text == "@-":
            return _stdin
        if text.startswith("@") and text != "@":
            return lambda: _text(Path(text[1:]))
        # It may be the secret itself, so it is not repeated.
        self.fail(f"must name where the secret is: {SECRET_FORM}", param, ctx)


class Pair(click.ParamType[tuple[str, str]]):
    """NAME=VALUE."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, rest = str(value).partition("=")
        if not equals or not name:
            self.fail("must have the form NAME=VALUE", param, ctx)
        return name, rest


class SecretPair(click.ParamType[tuple[str, Callable[[], str]]]):
    """NAME=@FILE, NAME=@- or NAME=env:VARIABLE."""

    name = "secret pair"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Callable[[], str]]:
        if isinstance(value, tuple):
            return value
        name, equals, source = str(value).partition("=")
        if not equals or not name:
            self.fail(f"must have the form NAME={SECRET_FORM}", param, ctx)
        return name, SecretFrom().convert(source, param, ctx)


def secrets(pairs: Iterable[tuple[str, Callable[[], str]]], file: Path | None) -> dict[str, str]:
    """Reads secrets by their names. Raises `NotDone` if two inputs are standard input."""
    pairs = list(pairs)
    if sum(read is _stdin for _, read in pairs) + (file == STDIN) > 1:
        raise NotDone("only one of --file and the secrets can be standard input", exit_code=USAGE)
    return {name: read() for name, read in pairs}


def fields(**options: Any) -> Document:
    """The options that were given, as fields of a body."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


@dataclass(frozen=True)
class Body:
    """A body for the API and the file that it comes from, if any."""

    content: Document
    file: Path | None = None
    entry: Entry | None = None

    def send(self, request: Callable[[Document], Document]) -> Document:
        """Sends it. A refusal of a field of the file is raised with the field's line and column."""
        try:
            return request(self.content)
        except NotDone as refused:
            if self.entry is None:
                raise
            raise _placed(refused, self.file or STDIN, self.entry) from None


def read(kind: str, file: Path | None) -> Body:
    """The resource that a file describes, without what the API adds to it; empty without a file.

    Raises `NotDone`; a `WrongFile` has the line and column of each problem.
    """
    if file is None:
        return Body({})
    # Reading files needs the API's rules, which take long to import.
    from portaria_cli.configure import source  # noqa: PLC0415
    from portaria_cli.configure.entries import Reader  # noqa: PLC0415
    from portaria_cli.configure.problems import Place, Problem, WrongFile  # noqa: PLC0415

    shown = Path("<stdin>") if file == STDIN else file
    node = source.parse(_stdin(strip=False), shown) if file == STDIN else source.compose(file)
    reader = Reader(file)
    entry = reader.entry(kind, node) if node is not None else None
    if entry is None:
        place = source.place_of(node) if node is not None else Place(1, 1)
        raise WrongFile(shown, [Problem(place, "the file must hold one object: the fields of the resource")])
    if reader.problems:
        raise WrongFile(shown, reader.problems, consequence="nothing was sent")
    content = {name: value for name, value in entry.content.items() if name not in READ_ONLY[kind]}
    return Body(content, shown, entry)


def named(content: Document, identity: Mapping[str, str], shown: str) -> Document:
    """A resource's fields without its name, which the command gives. Raises `NotDone` if the file names another resource."""
    for field, value in identity.items():
        if content.get(field, value) != value:
            raise NotDone(f"the file describes another resource: its {field} is not that of {shown}", exit_code=USAGE)
    return {field: value for field, value in content.items() if field not in identity}


def require_changes(changes: Mapping[str, Any]) -> None:
    """Raises `NotDone` if `edit` was given nothing to change."""
    if not changes:
        raise NotDone("there is nothing to change: give --file or an option for a field (--help)", exit_code=USAGE)


def _placed(refused: NotDone, file: Path, entry: Entry) -> NotDone:
    errors = refused.problem.get("errors") or [refused.problem]
    lines = []
    for error in errors:
        steps = tuple(int(step) if step.isdigit() else step for step in str(error.get("field") or "").split("."))
        if steps[:1] not in entry.names:
            return refused
        place = entry.place_at(steps)
        lines.append(f"{file}:{place.line}:{place.column}: {error.get('detail')}")
    return NotDone(
        "\n".join(lines),
        exit_code=refused.exit_code,
        status=refused.status,
        problem=refused.problem,
        retry_after_s=refused.retry_after_s,
    )


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise NotDone(
            f"the environment variable {name} is {'empty' if name in os.environ else 'not set'}", exit_code=USAGE
        )
    return value


def _stdin(*, strip: bool = True) -> str:
    """Standard input; a terminal asks for it without showing it."""
    if strip and sys.stdin.isatty():
        asked: str = click.prompt("Secret", hide_input=True, err=True)
        return asked.strip()
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError:
        raise NotDone("standard input is not UTF-8", exit_code=USAGE) from None
    return text.strip() if strip else text


def _text(path: Path) -> str:
    try:
        # Editors end a file with a line end, which is not part of a secret.
        found = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NotDone(f"{path} cannot be read: {error.strerror}", exit_code=USAGE) from None
    except UnicodeDecodeError:
        raise NotDone(f"{path} is not UTF-8", exit_code=USAGE) from None
    if not found:
        raise NotDone(f"{path} is empty", exit_code=USAGE)
    return found
