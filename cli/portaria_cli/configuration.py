"""Reading a configuration file: YAML with `clients`, `connections` and `routes`, whose secrets stand elsewhere.

Where a client's or a connection's value is `{env: NAME}` or `{file: PATH}`, it is read from there; a path is relative to
the configuration file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from portaria_cli.api import NotDone

USAGE = 2
SECTIONS = ("clients", "connections", "routes")
IDENTITY = {"clients": ("platform", "name"), "connections": ("name",), "routes": ("name",)}

Entry = dict[str, Any]


@dataclass(frozen=True)
class Configuration:
    clients: list[Entry]
    connections: list[Entry]
    routes: list[Entry]


def read(path: Path) -> Configuration:
    """Raises `NotDone` with the place in the file; no secret is quoted."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise NotDone(f"{path} cannot be read: {error.strerror}", exit_code=USAGE) from None
    except UnicodeDecodeError:
        raise NotDone(f"{path} is not UTF-8", exit_code=USAGE) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise NotDone(f"{path}{where}: {getattr(error, 'problem', None) or 'not YAML'}", exit_code=USAGE) from None
    except RecursionError:
        raise NotDone(f"{path} is nested too deeply", exit_code=USAGE) from None
    if not isinstance(content, dict):
        raise NotDone(f"{path} must hold {', '.join(SECTIONS)}", exit_code=USAGE)
    if unknown := [str(name) for name in content if name not in SECTIONS]:
        raise NotDone(f"{path}: {unknown[0]} is not a section: {', '.join(SECTIONS)}", exit_code=USAGE)
    return Configuration(**{section: _entries(path, section, content.get(section)) for section in SECTIONS})


def _entries(path: Path, section: str, content: object) -> list[Entry]:
    if content is None:
        return []
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise NotDone(f"{path}: {section} must be a list of entries", exit_code=USAGE)
    seen = set()
    for number, entry in enumerate(content, 1):
        place = f"{path}: {section}, entry {number}"
        for field in IDENTITY[section]:
            if not isinstance(entry.get(field), str) or not entry[field]:
                raise NotDone(f"{place}: {field} is missing or not text", exit_code=USAGE)
        identity = tuple(entry[field] for field in IDENTITY[section])
        if identity in seen:
            raise NotDone(f"{place}: {'/'.join(identity)} stands in the file twice", exit_code=USAGE)
        seen.add(identity)
    if section == "routes":
        return content
    return [_filled(path, f"{section}, {entry['name']}", entry) for entry in content]


def _filled(path: Path, place: str, entry: Entry) -> Entry:
    filled: Entry = {}
    for field, value in entry.items():
        if isinstance(value, dict) and set(value) in ({"env"}, {"file"}):
            filled[field] = _read_elsewhere(path, f"{place}: {field}", value)
        elif isinstance(value, dict):
            filled[field] = _filled(path, f"{place}: {field}", value)
        else:
            filled[field] = value
    return filled


def _read_elsewhere(path: Path, place: str, value: dict[str, Any]) -> str:
    if "env" in value:
        text = os.environ.get(str(value["env"]), "")
        if not text:
            raise NotDone(f"{path}: {place}: set the environment variable {value['env']}", exit_code=USAGE)
        return text
    source = path.parent / str(value["file"])
    try:
        # Editors end a file with a line end, which is no part of a secret.
        return source.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise NotDone(f"{path}: {place}: {source} cannot be read: {reason}", exit_code=USAGE) from None


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses a key which stands twice: YAML would take the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} stands here a second time", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep=deep)
