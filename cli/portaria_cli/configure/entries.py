"""The entries of a configuration file: their values, where each stands, and where each comes from.

Where a client's or a connection's value is `{env: NAME}`, `{file: PATH}` or `{base64_file: PATH}`, it is read from there, the
last one as base64. A path is relative to the configuration file.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from portaria.api.validation import nearest
from portaria_cli.configure.problems import Place, Problem
from portaria_cli.configure.source import place_of
from portaria_cli.terminal import output

# The sections in the order in which they are applied, with what the API calls their entries, and the fields that name one.
SECTIONS = {"clients": "oauth-clients", "connections": "connections", "routes": "routes"}
SECTION_OF = {kind: section for section, kind in SECTIONS.items()}
IDENTITY = {"clients": ("platform", "name"), "connections": ("name",), "routes": ("name",)}
WITH_REFERENCES = ("clients", "connections")
# Aliases can make a small file a huge one.
MAX_NODES = 100_000
# Stands for a value that could not be read.
UNREAD = "unread"
BASE64_FILE = "base64_file"
_TEXT = "tag:yaml.org,2002:str"
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_MERGE = "tag:yaml.org,2002:merge"
# What YAML makes of a plain value that may have been meant as text. A date stays text.
_READ_AS = {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing"}
_STAYS_TEXT = {_TEXT, _MERGE, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}

_WAYS = ("env", "file", BASE64_FILE)
_NO_TAGS = "a tag (!…) is not allowed here: write the value alone"

Steps = tuple[str | int, ...]


@dataclass
class Entry:
    """One entry. `steps` lead to a value in `content`; `names` has the places of fields' names, `values` of their values.

    `references` says where a value was read from; `unread` are values that could not be read, and have a problem already.
    """

    section: str
    place: Place
    content: dict[str, Any] = field(default_factory=dict)
    names: dict[Steps, Place] = field(default_factory=dict)
    values: dict[Steps, Place] = field(default_factory=dict)
    references: dict[Steps, str] = field(default_factory=dict)
    read_as: dict[Steps, str] = field(default_factory=dict)
    unread: set[Steps] = field(default_factory=set)

    @property
    def kind(self) -> str:
        """What the API calls it, as a step of a path."""
        return SECTIONS[self.section]

    @property
    def identity(self) -> tuple[str, ...]:
        """The values that name it; an empty text for each that cannot be used."""
        return tuple(self._text(name) for name in IDENTITY[self.section])

    @property
    def title(self) -> str:
        return f"{output.TITLES[self.kind]} {'/'.join(self.identity)}"

    def text_at(self, steps: Steps) -> str:
        """A text in `content`, or an empty one where there is none."""
        value: Any = self.content
        for step in steps:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return ""
        return value if isinstance(value, str) and value != UNREAD else ""

    def _text(self, name: str) -> str:
        value = self.content.get(name)
        return value if isinstance(value, str) and (name,) not in self.unread else ""

    def place_at(self, steps: Steps, *, of_name: bool = False) -> Place:
        """Where a value or a field's name stands; of one that is missing, where the object begins that lacks it."""
        for end in range(len(steps), 0, -1):
            is_whole = end == len(steps)
            found = self.names if of_name or not is_whole else self.values
            if steps[:end] in found:
                return found[steps[:end]]
        return self.place


class Reader:
    """Reads entries from nodes and collects what is wrong with them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self._nodes = 0
        self._open: set[int] = set()
        self._scalars = yaml.constructor.SafeConstructor()

    def entries(self, root: yaml.Node | None) -> list[Entry]:
        listed = ", ".join(SECTIONS)
        if not isinstance(root, yaml.MappingNode):
            place = place_of(root) if root else Place(1, 1)
            self.problems.append(Problem(place, f"the file must hold one or more of the sections {listed}"))
            return []
        sections: dict[str, yaml.Node] = {}
        for name, key, node in self._members(root):
            if name in SECTIONS:
                sections[name] = node
            else:
                self.problems.append(Problem(place_of(key), _unknown_section(name)))
        return [entry for name in SECTIONS if name in sections for entry in self._section(name, sections[name])]

    def entry(self, kind: str, node: yaml.Node) -> Entry | None:
        """A file that holds one resource of a kind, as the API calls it; None if the file holds no object."""
        return self._entry(SECTION_OF.get(kind, kind), node) if isinstance(node, yaml.MappingNode) else None

    def _entry(self, section: str, node: yaml.MappingNode) -> Entry:
        entry = Entry(section, place_of(node))
        entry.content = self._value(entry, (), node)
        return entry

    def _section(self, section: str, node: yaml.Node) -> Iterator[Entry]:
        if _is_null(node) or self._has_tag(node):
            return
        if not isinstance(node, yaml.SequenceNode):
            self.problems.append(
                Problem(place_of(node), f"{section} must be a list: each entry begins on a line with '- '")
            )
            return
        first: dict[tuple[str, ...], Place] = {}
        for item in node.value:
            if not isinstance(item, yaml.MappingNode):
                self.problems.append(
                    Problem(place_of(item), f"an entry of {section} must be an object with fields: 'name: value'")
                )
                continue
            entry = self._entry(section, item)
            if all(entry.identity):
                before = first.setdefault(entry.identity, entry.place)
                if before is not entry.place:
                    place = entry.place_at(("name",))
                    detail = f"{'/'.join(entry.identity)} stands in {section} twice: the first is in line {before.line}"
                    self.problems.append(Problem(place, detail))
                    entry.unread.add(("name",))
            yield entry

    def _members(self, node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """The fields of an object with what it merges (`<<`). One that stands twice is a problem, and the first is taken."""
        seen: dict[str, Place] = {}
        merged: list[yaml.MappingNode] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(Problem(place_of(key), "a field's name must be text"))
            elif key.tag == _MERGE:
                found = value.value if isinstance(value, yaml.SequenceNode) else [value]
                merged += [each for each in found if isinstance(each, yaml.MappingNode)]
                if any(not isinstance(each, yaml.MappingNode) for each in found):
                    self.problems.append(Problem(place_of(value), "<< must refer to an object"))
            elif key.value in seen:
                line = seen[key.value].line
                # A name may be a secret that slipped out of its place.
                self.problems.append(
                    Problem(place_of(key), f"this field stands in the same object twice: the first is in line {line}")
                )
            else:
                seen[key.value] = place_of(key)
                yield key.value, key, value
        for each in merged:
            if id(each) in self._open:
                self.problems.append(Problem(place_of(each), "this anchor refers to itself"))
                continue
            self._open.add(id(each))
            for name, key, value in self._members(each):
                if name not in seen:
                    seen[name] = place_of(key)
                    yield name, key, value
            self._open.discard(id(each))

    def _value(self, entry: Entry, steps: Steps, node: yaml.Node) -> Any:
        self._nodes += 1
        if self._nodes == MAX_NODES:
            self.problems.append(Problem(place_of(node), "the file is too large, with what its aliases repeat"))
        if self._nodes >= MAX_NODES:
            return None
        if id(node) in self._open:
            self.problems.append(Problem(place_of(node), "this anchor refers to itself"))
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(entry, steps, node)
        if self._has_tag(node):
            entry.unread.add(steps)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._member(entry, (*steps, index), each) for index, each in enumerate(node.value)]
            content: dict[str, Any] = {}
            for name, key, value in self._members(node) if isinstance(node, yaml.MappingNode) else ():
                entry.names[(*steps, name)] = place_of(key)
                content[name] = self._member(entry, (*steps, name), value)
            return content
        finally:
            self._open.discard(id(node))

    def _member(self, entry: Entry, steps: Steps, node: yaml.Node) -> Any:
        entry.values[steps] = place_of(node)
        if entry.section in WITH_REFERENCES and isinstance(node, yaml.MappingNode) and len(node.value) == 1:
            key, value = node.value[0]
            if isinstance(key, yaml.ScalarNode) and key.value in _WAYS:
                return self._referred(entry, steps, key.value, value)
        return self._value(entry, steps, node)

    def _has_tag(self, node: yaml.Node) -> bool:
        """Whether a list or an object has a tag, which is a problem: it would make something else of it."""
        if isinstance(node, yaml.ScalarNode) or node.tag in _COLLECTIONS:
            return False
        self.problems.append(Problem(place_of(node), _NO_TAGS))
        return True

    def _scalar(self, entry: Entry, steps: Steps, node: yaml.ScalarNode) -> Any:
        if node.tag in _STAYS_TEXT:
            return node.value
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in _READ_AS:
            self.problems.append(Problem(place_of(node), _NO_TAGS))
            entry.unread.add(steps)
            return UNREAD
        entry.read_as[steps] = _READ_AS[kind]
        try:
            return self._scalars.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError):
            self.problems.append(Problem(place_of(node), f"this is not {_READ_AS[kind]}: put text in quotes"))
            entry.unread.add(steps)
            return UNREAD

    def _referred(self, entry: Entry, steps: Steps, way: str, node: yaml.Node) -> str:
        """The value of an environment variable or a file. Where there is none, that is a problem."""
        place = entry.values[steps]
        name = node.value if isinstance(node, yaml.ScalarNode) and not _is_null(node) else ""
        problem = ""
        found = ""
        if not name:
            problem = f"{{{way}: …}} must name one {'environment variable' if way == 'env' else 'file'}"
        elif way == "env":
            entry.references[steps] = f"the environment variable {name}"
            found = os.environ.get(name, "")
            if not found:
                problem = (
                    f"{_path(steps)}: the environment variable {name} is {'empty' if name in os.environ else 'not set'}"
                )
        else:
            source = self.path.parent / name
            entry.references[steps] = f"the file {source}"
            try:
                if way == BASE64_FILE:
                    found = base64.b64encode(source.read_bytes()).decode()
                else:
                    # Editors end a file with a line end, which is no part of a secret.
                    found = source.read_text(encoding="utf-8").strip()
                problem = "" if found else f"{_path(steps)}: the file {source} is empty"
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                problem = f"{_path(steps)}: the file {source} cannot be read: {reason}"
        if problem:
            self.problems.append(Problem(place, problem))
            entry.unread.add(steps)
            return UNREAD
        return found


def _path(steps: Steps) -> str:
    return ".".join(map(str, steps))


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _unknown_section(name: str) -> str:
    meant = nearest(name, SECTIONS)
    # It may be a secret that slipped out of its place.
    shown = name if name.isascii() and name.isalpha() and len(name) <= 40 else "this"
    return f"{shown} is not a section: {f'did you mean {meant}?' if meant else ', '.join(SECTIONS)}"
