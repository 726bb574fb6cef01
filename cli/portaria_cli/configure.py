"""The command `configure`: create or replace what a file describes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from portaria_cli import configuration, output
from portaria_cli.api import Api, Document, NotDone
from portaria_cli.configuration import IDENTITY
from portaria_cli.context import CliContext, working

# What changes each time something is written, without anything having changed.
VOLATILE = ("updated_at", "granted_at", "token_ends_at", "age_days", "warnings")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def configure(desk: CliContext, file: Path) -> None:
    """Create or replace what FILE describes.

    Running it again is harmless. A secret in FILE is {env: NAME} or {file: PATH}; those given are written each time, a
    connection's after they have been tried. Once stored, a client_secret or the credentials may be left out. What FILE
    does not name stays as it is.
    """
    wanted = configuration.read(file)
    steps = [
        *(("oauth-clients", client, "clients") for client in wanted.clients),
        *(("connections", connection, "connections") for connection in wanted.connections),
        *(("routes", route, "routes") for route in wanted.routes),
    ]
    done: list[Document] = []
    try:
        with working() as tell:
            for number, (kind, entry, section) in enumerate(steps, 1):
                identity = IDENTITY[section]
                name = "/".join(str(entry[field]) for field in identity)
                tell(f"{number}/{len(steps)}  {output.TITLES[kind]} {name}")
                write: Callable[..., Document] = (
                    _write_connection if kind == "connections" else partial(_write, kind=kind)
                )
                done.append(write(desk.api, entry=entry, identity=identity))
    except NotDone:
        if done and not desk.as_json:
            desk.print(done, partial(output.configured, done))
        raise
    desk.print(done, partial(output.configured, done))


def _write(api: Api, *, kind: str, entry: Document, identity: tuple[str, ...]) -> Document:
    path = [kind, *(entry[field] for field in identity)]
    try:
        before = api.find(*path)
        if before is None:
            return _done(kind, "created", api.create(kind, body=entry))
        body = {field: value for field, value in entry.items() if field not in identity}
        after = api.put(*path, body=body)
    except NotDone as not_done:
        raise _placed(not_done, path) from None
    return _done(kind, "unchanged" if _lasting(before) == _lasting(after) else "updated", after)


def _write_connection(api: Api, *, entry: Document, identity: tuple[str, ...]) -> Document:
    """A connection's credentials are its only part that can be written again: without them it is created or compared."""
    if "credentials" in entry:
        return _write(api, kind="connections", entry=entry, identity=identity)
    path = ["connections", entry["name"]]
    try:
        found = api.find(*path)
        if not found:
            return _done("connections", "created", api.create("connections", body=entry))
    except NotDone as not_done:
        raise _placed(not_done, path) from None
    for field, value in entry.items():
        if not _is_as_wanted(found, field, value):
            raise NotDone(
                f"connections {entry['name']}: {field} differs from the file and cannot change: delete the connection first",
                exit_code=1,
            )
    return _done("connections", "unchanged", found)


def _is_as_wanted(found: Document, field: str, value: Any) -> bool:
    """Whether a connection has what the file says; of its fields, those that the file leaves out have their defaults."""
    match field:
        case "fields" if isinstance(value, dict):
            return bool({**found["fields"], **value} == found["fields"])
        case "scopes":
            return bool(found["fields"].get("scopes", "") == value)
        case "allowed_domain" if isinstance(value, str):
            return bool(found[field] == value.lower())
    return bool(found.get(field) == value)


def _placed(not_done: NotDone, path: list[str]) -> NotDone:
    sentence = f"{path[0]} {'/'.join(path[1:])}: {not_done}"
    return NotDone(sentence, exit_code=not_done.exit_code, status=not_done.status, problem=not_done.problem)


def _done(kind: str, change: str, now: Document) -> Document:
    return {**now, "resource": kind, "change": change}


def _lasting(document: Document) -> Document:
    return {field: value for field, value in document.items() if field not in VOLATILE}
