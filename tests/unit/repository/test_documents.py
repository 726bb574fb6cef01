"""README and the documents: their links, anchors, paths, modules and commands exist."""

from __future__ import annotations

import re
import shlex
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from bench.__main__ import BENCHMARKS
from portaria_cli.commands import portaria
from tests.fakes.paths import ROOT
from tests.unit.repository.documents import _FENCE, anchors, inline_code, prose

DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("requirements/*.md"), *ROOT.glob("examples/**/*.md")]
)
FOLDERS = (
    ".github",
    "bench",
    "cli",
    "docs",
    "events",
    "examples",
    "functions",
    "layers",
    "local",
    "requirements",
    "tests",
)
MOST_README_LINES = 200
# Modules of the former flat layout whose names have no other meaning today.
FORMER_MODULES = frozenset(
    {
        "arrived_events", "attempts.py", "contract", "contract.py", "drain", "egress", "egress.py", "event_addresses.py",
        "fingerprints", "front_door.py", "http_connections", "ingestion.py", "intake", "intake.py", "listings", "marks.py",
        "masking", "observability.py", "parking", "rereads", "rotations", "service.py", "signing", "signing.py", "token_uses",
        "tokens.py", "tracking", "uninstalls",
    }
)  # fmt: skip
# Files of other projects, named as sources.
OF_OTHER_PROJECTS = {"workflows/python_pip/packager.py", "tests/aws/services/**/*.snapshot.json"}
# What `make setup`, `make build` and the like create.
GENERATED = ("build/", ".aws-sam/", ".venv")
# Languages of code blocks; `sh` and `console` are run.
LANGUAGES = ("html", "sh", "console", "text", "toml", "http", "json", "mermaid", "python", "yaml")
REASONS_NOT_TO_RUN = (
    "needs an AWS account",
    "needs Docker",
    "has placeholders",
    "takes minutes",
)
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->\s*\Z")

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


class Command(NamedTuple):
    text: str
    words: tuple[str, ...]


@cache
def files() -> tuple[Path, ...]:
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return tuple(path.relative_to(ROOT) for path in found)


@cache
def targets() -> frozenset[str]:
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return frozenset(target for rule in rules for target in rule.split())


def commands(path: Path) -> list[Command]:
    """The calls of `make` and `portaria` in a document's code blocks and inline code."""
    text = path.read_text()
    lines = [line for _, _, block in _FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += sorted(inline_code(path))
    found = []
    for line in lines:
        for part in re.split(r"&&|\||;", line.strip().removeprefix("$ ")):
            text = re.sub(r"(?:^|\s)#.*", "", part).strip()
            if re.match(r"(\.venv/bin/)?(make|portaria)( |$)", text):
                found.append(Command(text, words(text)))
    return found


def words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError:  # a quotation that continues after a line that was split above
        return tuple(text.split())


def check_portaria(arguments: tuple[str, ...]) -> str:
    """What is wrong with the arguments of the command line; empty if nothing is."""
    command: click.Command = portaria
    known = set(options(command))
    remaining = list(arguments)
    while remaining:
        word = remaining.pop(0)
        if word.startswith("--"):
            name = word.partition("=")[0]
            if name not in known:
                return f"{name} is not an option"
            if "=" not in word and not options(command).get(name, True) and remaining:
                remaining.pop(0)
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return "" if word.isupper() or word in {"…", "..."} else f"{word} is not a command"
            command = found
            known |= set(options(command))
    return ""


def options(command: click.Command) -> dict[str, bool]:
    """The options of a command, and whether each is a flag."""
    return {
        name: isinstance(parameter, click.Option) and parameter.is_flag
        for parameter in command.params
        for name in parameter.opts
        if name.startswith("--")
    } | {"--help": True}


def check_make(arguments: tuple[str, ...]) -> str:
    settings = dict(word.split("=", 1) for word in arguments if "=" in word and not word.startswith("-"))
    named = [word for word in arguments if "=" not in word and not word.startswith("-")]
    unknown = [word for word in named if word not in targets()]
    if unknown:
        return f"{unknown} are not targets"
    if "portaria" in named and "ARGS" in settings:
        return check_portaria(words(settings["ARGS"]))
    if "bench" in named and "NAME" in settings and settings["NAME"] not in BENCHMARKS:
        return f"{settings['NAME']} is not a benchmark"
    for name in ("FILE", "EVENT"):
        value = settings.get(name, "")
        if "/" in value and not (ROOT / value).exists() and not value.startswith(GENERATED):
            return f"{value} does not exist"
    return ""


def is_path(code: str) -> bool:
    """Whether inline code is the path of a file or a folder of this repository."""
    if not re.fullmatch(r"[\w.<>{}*-]+(/[\w.<>{}*-]*)*", code) or code.startswith(GENERATED):
        return False
    first, slash, _ = code.partition("/")
    return (bool(slash) and first in FOLDERS) or bool(re.search(r"\.(py|md|toml)$", code))


def exists(path: str) -> bool:
    pattern = re.sub(r"<[^>]*>|\{[^}]*\}", "*", path.rstrip("/"))
    if pattern.split("/")[0] in FOLDERS:
        # A folder with a placeholder, such as `tests/platforms/<name>/deliveries/`, needs one platform that has it.
        return any(ROOT.glob(pattern))
    return any(file.match(pattern) for file in files())


def test_readme_has_at_most_200_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_README_LINES


@each_document
def test_documents_relative_links_and_anchors_resolve(path: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_document
def test_documents_tables_have_header_and_rows_of_equal_width(path: Path) -> None:
    """A line of text within a table ends it, and GitHub shows the rows after it as text."""
    broken = []
    for is_table, lines in groupby(prose(path.read_text()).splitlines(), key=lambda line: line.startswith("|")):
        rows = list(lines)
        if not is_table:
            continue
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
        if len(rows) < 3 or len(widths) != 1 or not re.fullmatch(r"[-:| ]+", rows[1]):
            broken.append(rows[0])
    assert broken == []


@each_document
def test_documents_paths_in_backticks_exist(path: Path) -> None:
    missing = {code for code in inline_code(path) if is_path(code) and not exists(code)}
    assert missing - OF_OTHER_PROJECTS == set()


@each_document
def test_documents_name_no_module_of_former_layout(path: Path) -> None:
    code = inline_code(path)
    assert {name for name in code if name in FORMER_MODULES and not exists(name)} == set()
    dotted = {name for name in code if re.fullmatch(r"portaria\.[a-z_]+(\.[a-z_]+)*", name)}
    missing = {name for name in dotted if not is_module(name)}
    assert missing == set()


def is_module(name: str) -> bool:
    """Whether a dotted name is a package, a module, or something in a module."""
    package = ROOT / "layers" / "portaria"
    whole, parent = (package.joinpath(*parts) for parts in (name.split("."), name.split(".")[:-1]))
    return whole.is_dir() or any(place.with_suffix(".py").exists() for place in (whole, parent))


@each_document
def test_documents_commands_and_their_options_exist(path: Path) -> None:
    wrong = {}
    for command in commands(path):
        name, *arguments = command.words
        check = check_make if name == "make" else check_portaria
        problem = check(tuple(arguments))
        if problem:
            wrong[command.text] = problem
    assert wrong == {}


@each_document
def test_documents_command_blocks_are_run_or_marked_with_a_reason(path: Path) -> None:
    """`sh` and `console` blocks are run by tests/stack/documents/test_documents.py, so every block needs a language."""
    text = path.read_text()
    fences = list(_FENCE.finditer(text))
    assert [fence[0] for fence in fences if fence[2] not in LANGUAGES] == []
    marked = {fence.start(): found[1] for fence in fences if (found := _NOT_RUN.search(text, 0, fence.start()))}
    assert len(re.findall(r"^ *<!-- not run", text, re.MULTILINE)) == len(marked), (
        "a mark is not directly above its block"
    )
    for fence in fences:
        reason = marked.get(fence.start())
        if reason is None:
            continue
        assert fence[2] in ("sh", "console"), f"only commands are run: {reason}"
        test = re.fullmatch(r"run by (tests/\S+\.py)", reason)
        assert (ROOT / test[1]).exists() if test else reason in REASONS_NOT_TO_RUN


def test_documents_checks_find_commands_and_reject_invalid_ones() -> None:
    """The checks above found something to check."""
    assert sum(len(commands(path)) for path in DOCUMENTS) > 100
    assert check_portaria(("backfills", "creat", "NAME")) == "creat is not a command"
    assert check_portaria(("installs", "list", "--states", "failed")) == "--states is not an option"
    assert check_make(("depoy",)) == "['depoy'] are not targets"
    assert not exists("layers/portaria/portaria/egress.py")
