"""Files with many entries: users and contacts, as CSV or JSON. CSV may have the formats that spreadsheets write."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click

from portaria_cli.errors import USAGE, Document, NotDone

USER_COLUMNS = ("user_login", "identifier")
DELIMITERS = ",;\t"
# The encodings of spreadsheets besides UTF-8: "CSV" in Western Europe and Brazil, and "Unicode text".
WESTERN = "cp1252"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# A spreadsheet writes a logical value in its own language.
TRUTHS = {"true": True, "false": False, "verdadeiro": True, "falso": False}


@dataclass(frozen=True)
class Entry:
    """One entry of a file: the content that is sent, its place (`line 7`), and a name for people."""

    content: Document
    place: str
    name: str


class Row(NamedTuple):
    line: int
    cells: dict[str, str]


def read_users(path: Path) -> list[Entry]:
    """CSV with the columns user_login and identifier; others are left alone.

    Raises `NotDone` with the line of what is wrong, before anything is sent: of two users with one identifier, too.
    """
    users = []
    first: dict[str, int] = {}
    for line, cells in _rows(path, USER_COLUMNS):
        user = {column: cells[column] for column in USER_COLUMNS}
        if empty := [column for column in USER_COLUMNS if not user[column]]:
            raise NotDone(f"{path}, line {line}: {empty[0]} is empty", exit_code=USAGE)
        if (before := first.setdefault(user["identifier"], line)) != line:
            raise NotDone(f"{path}, line {line}: the identifier is the same as in line {before}", exit_code=USAGE)
        users.append(Entry(user, f"line {line}", user["user_login"]))
    return users


def read_contacts(path: Path) -> list[Entry]:
    """JSON: a list of contacts, or an object with `contacts`. Anything else is CSV whose columns are a contact's fields.

    An empty cell is left out, the tags of a contact stand in one cell with commas between. Raises `NotDone`.
    """
    if path.suffix.lower() != ".json":
        return [_contact(_of_cells(cells), f"line {line}") for line, cells in _rows(path)]
    try:
        content = json.loads(_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise NotDone(f"{path} is not JSON in UTF-8", exit_code=USAGE) from None
    contacts = content.get("contacts") if isinstance(content, dict) else content
    if not isinstance(contacts, list) or not all(isinstance(contact, dict) for contact in contacts):
        raise NotDone(f"{path} must hold a list of contacts", exit_code=USAGE)
    return [_contact(contact, f"entry {number}") for number, contact in enumerate(contacts, 1)]


def _contact(content: Document, place: str) -> Entry:
    names = (content.get(field) for field in ("email", "phone", "name"))
    return Entry(content, place, next((str(name) for name in names if name), ""))


def _of_cells(cells: dict[str, str]) -> Document:
    contact: Document = {column: value for column, value in cells.items() if value}
    if "tags" in contact:
        contact["tags"] = [tag.strip() for tag in contact["tags"].split(",") if tag.strip()]
    if contact.get("dnd", "").lower() in TRUTHS:
        contact["dnd"] = TRUTHS[contact["dnd"].lower()]
    return contact


def _rows(path: Path, needed: tuple[str, ...] = ()) -> Iterator[Row]:
    """The rows below the header, each with the line on which it begins; empty ones are left out."""
    text = _text(path)
    first_line = next((line for line in text.splitlines() if line.strip()), "").strip().strip('"')
    skipped = 0
    if first_line.lower().startswith("sep=") and len(first_line) == 5:
        delimiter, text, skipped = first_line[4], text.partition("\n")[2], 1
    else:
        delimiter = max(DELIMITERS, key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = skipped + 1
    try:
        for row in reader:
            begins, line = line, skipped + reader.line_num + 1
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if header is None:
                header = _header(path, cells, needed)
            elif len(cells) != len(header):
                raise NotDone(
                    f"{path}, line {begins}: there are {len(cells)} cells where the header has {len(header)}",
                    exit_code=USAGE,
                )
            else:
                yield Row(begins, {column: cell for column, cell in zip(header, cells, strict=True) if column})
    except csv.Error as error:
        raise NotDone(f"{path}, line {line}: {error}", exit_code=USAGE) from None
    if header is None:
        raise NotDone(f"{path} is empty: its first line names the columns{_listed(needed)}", exit_code=USAGE)


def _header(path: Path, cells: list[str], needed: tuple[str, ...]) -> list[str]:
    header = [cell.lower() if cell.lower() in needed else cell for cell in cells]
    if missing := [column for column in needed if column not in header]:
        raise NotDone(
            f"{path}: the first line names no column {missing[0]}; it must name the columns{_listed(needed)}",
            exit_code=USAGE,
        )
    if twice := [column for column in header if column and header.count(column) > 1]:
        raise NotDone(f"{path}: the first line names the column {twice[0]} twice", exit_code=USAGE)
    return header


def _listed(columns: tuple[str, ...]) -> str:
    return f" {', '.join(columns)}" if columns else ""


def _text(path: Path) -> str:
    content = _bytes(path)
    try:
        if content.startswith(UTF_16_MARKS):
            return content.decode("utf-16")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        text = content.decode(WESTERN)
    except UnicodeDecodeError:
        raise NotDone(f"{path} is not text in UTF-8: save it as CSV UTF-8", exit_code=USAGE) from None
    click.echo(f"{path} is not UTF-8: it is read as Windows-1252, as spreadsheets write it.", err=True)
    return text


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotDone(f"{path} cannot be read: {error.strerror}", exit_code=USAGE) from None
