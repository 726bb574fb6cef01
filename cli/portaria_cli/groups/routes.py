"""The commands for routes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext, Paging
from portaria_cli.errors import USAGE, Document, NotDone
from portaria_cli.group_parts import inputs
from portaria_cli.group_parts.resources import add_delete, add_show, given, named, printed, with_paging
from portaria_cli.terminal import output

KIND, FORM = "routes", "NAME"
Name = named(KIND, FORM, completion.names(KIND))


def _fields(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for a route's fields."""
    for option in reversed(
        (
            click.option("--source", metavar="SOURCE", help="connection:NAME or client:PLATFORM/CLIENT."),
            click.option("--object", "object", metavar="OBJECT", help="What is read there, such as contacts."),
            click.option(
                "--destination", metavar="NAME", shell_complete=completion.names("connections"),
                help="The connection that records are sent to.",
            ),
            click.option(
                "--map", "mapping", type=inputs.Pair(), multiple=True, metavar="ATTRIBUTE=EXPRESSION",
                help="A JMESPath expression for an attribute of the destination; can be repeated. `edit` removes one that "
                "is empty.",
            ),
            click.option("--target", metavar="OBJECT", help="The destination's object, if it is not the usual one."),
            click.option(
                "--dedupe-field", "dedupe_fields", multiple=True, metavar="ATTRIBUTE",
                help="An attribute that identifies a record; can be given twice.",
            ),
            click.option("--priority", type=click.Choice(("normal", "high")), help="high is sent before normal."),
            click.option(
                "--option", "options", type=inputs.Pair(), multiple=True, metavar="NAME=VALUE",
                help="An option of the destination; can be repeated.",
            ),
            click.option(
                "--keep-newest", type=click.Choice(("events", "all", "none")),
                help="Which versions of a record an older one does not overwrite.",
            ),
            click.option("--weight", type=int, metavar="1-100", help="The source's share of the daily quota."),
            inputs.FileOption,
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(cls=Commands)
def routes() -> None:
    """Routes: which records are sent to which destination."""


@routes.command("list")
@click.option("--source", metavar="SOURCE", help="Only from here: connection:NAME or client:PLATFORM/CLIENT.")
@click.option(
    "--destination", metavar="NAME", shell_complete=completion.names("connections"), help="Only to this connection."
)
@with_paging
@click.pass_obj
def list_routes(cli: CliContext, /, paging: Paging, **filters: str | None) -> None:
    """List routes."""
    page = cli.read_page(KIND, paging=paging, **given(filters))
    cli.print_page(KIND, page, filters=given(filters))


add_show(routes, KIND, Name, FORM)


@routes.command("create")
@click.argument("name")
@_fields
@click.pass_obj
def create_route(
    cli: CliContext,
    /,
    name: str,
    file: Path | None,
    mapping: tuple[tuple[str, str], ...],
    options: tuple[tuple[str, str], ...],
    **fields: Any,
) -> None:
    """Create a route.

    \b
    portaria routes create people --source client:kommo/acme --object contacts \\
        --destination marketo-main
    """
    body = inputs.read(KIND, file)
    content = inputs.named(body.content, {"name": name}, name)
    content = _merged(content, mapping, options) | {"name": name, **inputs.fields(**fields)}
    made = inputs.Body(content, body.file, body.entry).send(lambda sent: cli.api.create(KIND, body=sent))
    printed(cli, made, f"The route {name} is created.")


@routes.command("edit")
@Name
@_fields
@click.pass_obj
def edit_route(
    cli: CliContext,
    /,
    name: str,
    file: Path | None,
    mapping: tuple[tuple[str, str], ...],
    options: tuple[tuple[str, str], ...],
    **fields: Any,
) -> None:
    """Change a route.

    Options of this command change single fields, attributes and options of the route. --file replaces the whole route: a
    field that the file omits gets its default. If the route changes at the same time, the command fails and changes nothing.
    """
    changes = inputs.fields(**fields)
    body = inputs.read(KIND, file)
    if not file:
        inputs.require_changes({**changes, **dict(mapping), **dict(options)})
    found, etag = cli.api.get_with_etag(KIND, name)
    content = body.content if file else {
        field: value for field, value in found.items() if field not in inputs.READ_ONLY[KIND] and value is not None
    }  # fmt: skip
    content = _merged(inputs.named(content, {"name": name}, name), mapping, options) | changes
    changed = inputs.Body(content, body.file, body.entry).send(
        lambda sent: cli.api.put(KIND, name, body=sent, etag=etag)
    )
    printed(cli, changed, f"The route {name} is changed.")


add_delete(routes, KIND, Name, FORM)


@routes.command("preview")
@click.argument("name", required=False, shell_complete=completion.names(KIND))
@click.option(
    "--record", type=click.Path(path_type=Path), required=True, metavar="FILE|-",
    help="A record in the source's shape, as YAML or JSON.",
)  # fmt: skip
@click.option(
    "--file", "file", type=click.Path(path_type=Path), metavar="FILE|-",
    help="Use the route in this YAML or JSON file, which need not exist yet, instead of NAME.",
)  # fmt: skip
@click.pass_obj
def preview_route(cli: CliContext, name: str | None, record: Path, file: Path | None) -> None:
    """Show what a record becomes at a route's destination.

    Nothing is sent or stored. The exit code is 1 if the record would become a dead letter.
    """
    if bool(name) == bool(file):
        raise NotDone("give the NAME of a route, or a route that does not exist yet with --file", exit_code=USAGE)
    if record == file == inputs.STDIN:
        raise NotDone("only one of --file and --record can be standard input", exit_code=USAGE)
    body: Document = {"record": inputs.read("records", record).content}
    if file:
        route = inputs.read(KIND, file).content
        body["route"] = {field: value for field, value in route.items() if field != "name"}
    else:
        body["name"] = name
    found = cli.api.post(KIND, "preview", body=body)
    for warning in found["warnings"]:
        cli.say(f"warning: {warning}")
    cli.print(found, partial(_print_preview, found), is_long=True)
    if found["refused_reason"]:
        click.get_current_context().exit(1)


@click.group(cls=Commands)
def records() -> None:
    """Records: sending records of your own through a route."""


@records.command("create")
@click.argument("route", shell_complete=completion.names(KIND))
@click.option(
    "--connection", metavar="NAME", shell_complete=completion.names("connections"),
    help="The source connection, if the route's source is an OAuth client.",
)  # fmt: skip
@click.option(
    "--file", type=click.Path(path_type=Path), required=True, metavar="FILE|-",
    help="YAML or JSON with `records`: a list of `key`, `data` in the source's shape and, optionally, `updated_at`.",
)  # fmt: skip
@click.pass_obj
def send_records(cli: CliContext, route: str, connection: str | None, file: Path) -> None:
    """Send records through a route.

    The API accepts them, and the destination gets them later: the id that is printed finds their receipts.

    \b
    portaria records create people --file records.json
    portaria receipts list --request ID
    """
    body = inputs.read("records", file)
    content = {**body.content, "route": route, **inputs.fields(connection=connection)}
    accepted = inputs.Body(content, body.file, body.entry).send(lambda sent: cli.api.create("records", body=sent))
    count = accepted["record_count"]
    printed(cli, accepted, f"{count:,} record{'' if count == 1 else 's'} accepted: {accepted['id']}")


def _print_preview(found: Document, console: Console) -> None:
    for fields in found["objects"]:
        output.shown(fields, console)
        console.print()
    if request := found["request"]:
        console.print(Text(f"{request['method']} {request['path']}", style="bold"), soft_wrap=True)
        console.print(Text(json.dumps(request["body"], indent=2, ensure_ascii=False)), soft_wrap=True)
    else:
        why = found["refused_detail"] or found["refused_reason"] or "no reason was given"
        console.print(Text(f"It would become a dead letter: {why}", style="red"), soft_wrap=True)


def _merged(content: Document, mapping: tuple[tuple[str, str], ...], options: tuple[tuple[str, str], ...]) -> Document:
    """The fields with single attributes and options set, or removed where the text is empty."""
    merged = dict(content)
    for field, pairs in (("mapping", mapping), ("options", options)):
        if pairs:
            held = content.get(field)
            together = {**(held if isinstance(held, dict) else {}), **dict(pairs)}
            merged[field] = {name: text for name, text in together.items() if text != ""}
    return merged
