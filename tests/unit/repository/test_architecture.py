"""Rules of the layout that the import contracts in pyproject.toml cannot express."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fakes.paths import ROOT

PACKAGE = ROOT / "layers" / "portaria" / "portaria"
COMMAND_LINE = ROOT / "cli" / "portaria_cli"
FUNCTIONS = ROOT / "functions"
PLATFORMS = sorted(path.parent.name for path in (PACKAGE / "platforms").glob("*/__init__.py"))

SERVICES = {
    "portaria.connections.credential_stores.aws_secrets": {"secretsmanager"},
    "portaria.connections.credential_stores.sealing": {"kms"},
    "portaria.aws.table": {"dynamodb"},
    "portaria.aws.queues": {"sqs"},
    "portaria.aws.event_bus": {"events"},
    "portaria.aws.stack_status": {"cloudwatch", "cloudformation"},
    "portaria.webhooks.install_receiver": {"sqs"},
    "portaria.webhooks.event_receiver": {"sqs"},
    "portaria.webhooks.light_table": {"dynamodb"},
}
NO_NAMES = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "misc",
    "manager",
    "managers",
    "base",
    "shared",
    "lib",
}
# Platforms named after a standard: the word is also a kind of connection, or a scheme, and may be used as such.
ALSO_WORDS = {"oauth2", "http"}
ERRORS = {"Rejected", "Retryable", "Conflict"}
# A public function that is longer, or that raises one of the errors, tells its caller in a docstring what to know.
LONGEST_WITHOUT_DOCSTRING = 16
MOST_MODULES_OF_A_FOLDER = 15


class Module(NamedTuple):
    name: str
    path: Path
    tree: ast.Module


class Import(NamedTuple):
    """`name` is the dotted name of a module or of a member of one; `on_import` says whether importing the module imports it."""

    name: str
    on_import: bool
    line: int


@cache
def nodes(module: Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(module.tree))


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for package in (PACKAGE, COMMAND_LINE):
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path, ast.parse(path.read_text())))
    for path in sorted(FUNCTIONS.glob("*/*.py")):
        found.append(Module(f"functions.{path.parent.name}.{path.stem}", path, ast.parse(path.read_text())))
    return tuple(found)


NAMES = [module.name for module in modules()]
each_module = pytest.mark.parametrize("module", modules(), ids=NAMES)


@cache
def imports(module: Module) -> tuple[Import, ...]:
    return tuple(_imports(module.tree, module.name, on_import=True))


def _imports(node: ast.AST, name: str, *, on_import: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, on_import, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{name}: a relative import"
            for alias in child.names:
                yield Import(f"{child.module}.{alias.name}", on_import, child.lineno)
        else:
            only_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, name, on_import=on_import and not only_for_types and not inside)


def module_of(name: str) -> str:
    """The module that an import leads to: `portaria.aws.table.Table` → `portaria.aws.table`."""
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name


def own_imports(module: Module) -> set[str]:
    return {module_of(one.name) for one in imports(module) if one.name.partition(".")[0] == "portaria"} - {""}


def platform_of(name: str) -> str:
    """The platform whose folder a module is in, if any."""
    parts = name.split(".")
    return parts[2] if parts[:2] == ["portaria", "platforms"] and len(parts) > 2 else ""


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_http_client_every_call_names_its_owner() -> None:
    """A kept connection is used for one owner only, so that a server's mistake cannot affect another account."""
    calls = [
        (module.name, node.lineno, {keyword.arg for keyword in node.keywords})
        for module in modules()
        for node in nodes(module)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("http_client.send", "http_client.begin")
    ]
    assert len(calls) >= 10
    assert [(name, line) for name, line, keywords in calls if "owner" not in keywords] == []


def services_of(module: Module) -> set[str]:
    """The AWS services that a module uses, by `service_clients.client("sqs")` or `AwsClient("sqs", …)`."""
    found = set()
    for node in nodes(module):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in (
            "service_clients.client",
            "client",
            "AwsClient",
            "light_client.AwsClient",
        ) and module.name not in (
            "portaria.aws.service_clients",
            "portaria.aws.json_client",
        ):
            argument = node.args[0] if node.args else None
            assert isinstance(argument, ast.Constant), f"{module.name}:{node.lineno}: name the service"
            found.add(str(argument.value))
    return found


@each_module
def test_modules_each_aws_service_is_used_by_one_module(module: Module) -> None:
    if not is_in(module.name, "portaria_cli"):
        assert services_of(module) == SERVICES.get(module.name, set())


@each_module
def test_platforms_import_no_network_file_clock_or_thread(module: Module) -> None:
    """No network, files, environment, clock or threads."""
    if platform_of(module.name):
        known = {one.name.partition(".")[0] for one in imports(module)} - {"portaria", "__future__"}
        assert not known & {"os", "subprocess", "threading", "time", "pathlib", "io", "tempfile", "asyncio", "logging"}
        assert known <= sys.stdlib_module_names
        names = {node.id for node in nodes(module) if isinstance(node, ast.Name)}
        assert not names & {"open", "print", "eval", "exec", "input"}
        calls = {ast.unparse(node.func) for node in nodes(module) if isinstance(node, ast.Call)}
        assert not calls & {"datetime.now", "datetime.utcnow", "datetime.today"}


def imports_of(start: str) -> set[str]:
    """All modules that importing a module imports: the project's own by their full names, others by their top-level names."""
    by_name = {module.name: module for module in modules()}
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in by_name:
            for one in imports(by_name[name]):
                if one.on_import:
                    waiting.append(module_of(one.name) or one.name.partition(".")[0])
    return seen


@pytest.mark.parametrize(("function", "part"), [("accept_install", "install"), ("receive_events", "events")])
def test_webhook_functions_import_no_heavy_module(function: str, part: str) -> None:
    hook = imports_of(f"functions.{function}.handler")
    for name in NAMES:
        if platform_of(name) and name.endswith(f".{part}"):
            hook |= imports_of(name)
    heavy = {"boto3", "botocore", "requests", "urllib3", "aws_lambda_powertools", "cryptography", "jinja2", "markupsafe",
             "pydantic", "jmespath", "orjson", "dataclasses", "logging", "asyncio", "email", "http"}  # fmt: skip
    assert not hook & heavy
    assert "portaria.core.entities" not in hook
    assert {"portaria.core.callbacks", "portaria.aws.light_client", f"portaria.platforms.kommo.{part}"} <= hook


def test_package_init_files_outside_platforms_are_empty() -> None:
    assert (PACKAGE / "__init__.py").read_text() == ""
    for path in PACKAGE.rglob("__init__.py"):
        if not path.is_relative_to(PACKAGE / "platforms"):
            assert path.read_text() == "", path


@pytest.mark.parametrize(
    "path",
    [*PACKAGE.rglob("*.py"), *COMMAND_LINE.rglob("*.py"), *FUNCTIONS.glob("*/*.py")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_modules_have_no_vague_names(path: Path) -> None:
    for part in path.relative_to(ROOT).with_suffix("").parts:
        assert part not in NO_NAMES
        assert not NO_NAMES & set(part.split("_"))


def test_folders_have_at_most_15_modules() -> None:
    modules = Counter(
        path.parent.relative_to(ROOT).as_posix()
        for part in (PACKAGE, COMMAND_LINE, ROOT / "local", ROOT / "bench", ROOT / "tests")
        for path in part.rglob("*.py")
        if path.name != "__init__.py"
    )
    assert {folder: count for folder, count in modules.items() if count > MOST_MODULES_OF_A_FOLDER} == {}


@each_module
def test_modules_outside_platforms_name_no_platform(module: Module) -> None:
    """Not in a comparison and not as a value, because a new platform must be one new folder."""
    if is_in(module.name, "portaria.platforms"):
        return
    named = [
        f"{node.lineno}: {node.value}"
        for node in nodes(module)
        if isinstance(node, ast.Constant) and node.value in PLATFORMS and node.value not in ALSO_WORDS
    ]
    assert named == []
    compared = [ast.unparse(node) for node in nodes(module) if isinstance(node, ast.Compare)]
    named = [text for text in compared for word in ALSO_WORDS if "platform" in text and repr(word) in text]
    assert named == []


@each_module
def test_modules_have_a_docstring(module: Module) -> None:
    if module.path.name != "__init__.py":
        assert ast.get_docstring(module.tree)


def public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield inner


def raised(function: ast.FunctionDef) -> set[str]:
    """The project's errors that a function itself raises."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            names.add(ast.unparse(error))
    return names & ERRORS


@each_module
def test_public_functions_document_length_and_raised_errors(module: Module) -> None:
    """A handler is described by the sentence above it, and so is a command of the command line."""
    if module.name.startswith("functions.") or is_in(module.name, "portaria_cli"):
        return
    silent = []
    for function in public_functions(module.tree):
        text = ast.get_docstring(function) or ""
        length = (function.end_lineno or 0) - function.lineno
        if not text and length > LONGEST_WITHOUT_DOCSTRING:
            silent.append(f"{function.name} has {length} lines and no docstring")
        if raised(function) and not re.search(r"[Rr]aises", text):
            silent.append(f"{function.name} raises {', '.join(sorted(raised(function)))} without a word")
    assert silent == []


def test_architecture_rules_find_known_patterns() -> None:
    """Each rule finds code by patterns: if these matched nothing, all rules would pass."""
    assert {"kommo", "marketo"} <= set(PLATFORMS)
    assert len(NAMES) > 30
    by_name = {module.name: module for module in modules()}
    assert "portaria.platforms" in own_imports(by_name["portaria.connections.tokens.refresh"])
    assert "portaria.core.callbacks" in own_imports(by_name["portaria.core.entities"])
    assert Import("portaria.web.install_pages", False, 0).name in {
        one.name for one in imports(by_name["functions.accept_install.handler"]) if not one.on_import
    }
    assert raised(
        next(f for f in public_functions(by_name["portaria.connections.oauth_clients"].tree) if f.name == "find")
    ) == {"Rejected"}
