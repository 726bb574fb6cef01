"""Reading YAML so that each value keeps its place in the file.

PyYAML's parser stops at the first place that is not YAML; its messages are turned into what a person should check there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from portaria_cli.configure.problems import Place, Problem, WrongFile
from portaria_cli.errors import USAGE, NotDone

# The begin of PyYAML's message, and what to check. {since} is where the part began that it was reading.
_ADVICE = (
    ("mapping values are not allowed here", "a ':' is not expected here: check the indentation of this line and the one "
     "above, and put a value that contains ': ' in quotes"),
    ("found character '\\t' that cannot", "a tab stands here: indent with spaces"),
    ("found character", "a value cannot begin with this character: put the value in quotes"),
    ("expected ',' or ']'", "the list that begins with '[' at {since} is not closed: ',' or ']' is missing before this"),
    ("expected ',' or '}'", "the object that begins with '{' at {since} is not closed: ',' or '}' is missing before this"),
    ("found unexpected end of stream", "the quotation mark at {since} is not closed"),
    ("found unknown escape character", "a backslash has a meaning between double quotes: use single quotes"),
    ("expected <block end>", "this line does not belong to the block that begins at {since}: check its indentation, and "
     "that it begins with '- ' or with 'name:' like the other lines of that block"),
    ("could not find expected ':'", "a ':' is missing after the name that stands here, or a quotation mark is not closed "
     "above"),
    ("expected the node content", "a value is missing before this character, or must stand in quotes if it begins with it"),
    ("found undefined alias", "'*' refers to an anchor (&name) that the file does not have: put a value that begins with "
     "'*' in quotes"),
    ("second occurrence", "this anchor (&name) stands in the file twice"),
    ("but found another document", "the file must hold one document: remove this line '---'"),
    ("expected '<document start>'", "this is not expected here: check the lines above, which begin with '%' or end a "
     "document"),
    ("sequence entries are not allowed here", "'- ' is not expected here: put it on a line of its own"),
    ("expected chomping or indentation", "text after '|' or '>' must begin on the next line"),
    ("expected alphabetic or numeric character", "'*' and '&' have a meaning in YAML: put a value that begins with one "
     "in quotes"),
)  # fmt: skip


def compose(path: Path) -> yaml.Node | None:
    """The document as nodes, or None for an empty file. Raises `WrongFile`, and `NotDone` where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NotDone(f"{path} cannot be read: {error.strerror}", exit_code=USAGE) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise NotDone(f"{path} is not UTF-8: see line {line}", exit_code=USAGE) from None
    return parse(text, path)


def parse(text: str, path: Path) -> yaml.Node | None:
    """The same of a text. Problems name the `path`."""
    try:
        node: yaml.Node | None = yaml.compose(_json_without_tabs(text), yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        raise WrongFile(path, [_character(text, error.position)]) from None
    except yaml.MarkedYAMLError as error:
        raise WrongFile(path, [_explained(error)]) from None
    except RecursionError:
        raise WrongFile(path, [Problem(Place(1, 1), "the file is nested too deeply")]) from None
    return node


def _json_without_tabs(text: str) -> str:
    """JSON that is indented with tabs, with spaces instead: YAML allows no tabs, and JSON has none inside a text."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text.replace("\t", " ")


def place_of(node: yaml.Node) -> Place:
    return _place(node.start_mark)


def _place(mark: yaml.Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _explained(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = _place(mark) if mark else Place(1, 1)
    said = str(error.problem or error.context or "")
    since = f"line {error.context_mark.line + 1}" if error.context_mark else "the line above"
    for begin, advice in _ADVICE:
        if said.startswith(begin):
            return Problem(place, f"not YAML: {advice.replace('{since}', since)}")
    # Some of PyYAML's messages quote the text at that place, which may be a secret.
    rest = re.sub(r"'[^']*'", "the text here", said)
    return Problem(place, f"not YAML: {rest or 'check this line'}")


def _character(text: str, position: int) -> Problem:
    before = text[:position]
    place = Place(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
    return Problem(place, "a character that cannot be printed stands here: remove it")
