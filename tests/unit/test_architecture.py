"""The layout's rules, read from the imports: which module may know which, and what each may talk to."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "layers" / "portaria" / "portaria"
FUNCTIONS = ROOT / "functions"
PLATFORMS = sorted(path.parent.name for path in (PACKAGE / "platforms").glob("*/__init__.py"))

# The words of the contract, which everyone may know and which know nobody.
CONTRACT = {"portaria.core.entities", "portaria.core.callbacks"}
# What can reach the network. The command line runs on a person's own machine, as that person.
NETWORK = {
    "requests",
    "urllib3",
    "http.client",
    "http.server",
    "socket",
    "ssl",
    "aiohttp",
    "httpx",
    "botocore",
    "boto3",
    "smtplib",
    "ftplib",
    "urllib.request",
}
NETWORK_ALLOWED = {
    "portaria.outbound.http_client": {"requests"},
    "portaria.outbound.http_transport": {"requests", "socket", "ssl"},
    "portaria.outbound.public_addresses": {"socket"},
    "portaria.aws.boto3_clients": {"boto3", "botocore"},
    "portaria.aws.table": {"boto3", "botocore"},
    "portaria.aws.queues": {"botocore"},
    "portaria.aws.event_bus": {"botocore"},
    "portaria.connections.vault": {"botocore"},
    "portaria.installs.code_exchange": {"botocore"},
    # The install hook's own way to AWS, which cannot wait for boto3.
    "portaria.aws.light_client": {"socket", "ssl"},
}
ONLY_NAMES_OF_ERRORS = {
    "portaria.aws.queues",
    "portaria.aws.event_bus",
    "portaria.connections.vault",
    "portaria.installs.code_exchange",
}
SERVICES = {
    "portaria.connections.vault": {"secretsmanager", "kms"},
    "portaria.aws.table": {"dynamodb"},
    "portaria.aws.queues": {"sqs"},
    "portaria.aws.event_bus": {"events"},
    "portaria.webhooks.install_receiver": {"sqs", "dynamodb"},
    "portaria.webhooks.event_receiver": {"sqs", "dynamodb"},
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
    "core",
}
# Platforms that stand for a standard: the word is also a kind of connection, or a scheme, and may be used as that.
ALSO_WORDS = {"oauth2", "http"}
ERRORS = {"Rejected", "Retryable", "Conflict"}
# A public function that is longer, or that raises one of the errors, says in a docstring what its caller must know.
LONGEST_WITHOUT_DOCSTRING = 16


class Module(NamedTuple):
    name: str
    path: Path
    tree: ast.Module


class Import(NamedTuple):
    """`name` is the whole dotted name, of a module or of something in one; `at_once` where importing the module imports it."""

    name: str
    at_once: bool
    line: int


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text())))
    for path in sorted(FUNCTIONS.glob("*/*.py")):
        found.append(Module(f"functions.{path.parent.name}.{path.stem}", path, ast.parse(path.read_text())))
    return tuple(found)


NAMES = [module.name for module in modules()]
each_module = pytest.mark.parametrize("module", modules(), ids=NAMES)


@cache
def imports(module: Module) -> tuple[Import, ...]:
    return tuple(_imports(module.tree, module.name, at_once=True))


def _imports(node: ast.AST, name: str, *, at_once: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, at_once, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{name}: a relative import"
            for alias in child.names:
                yield Import(f"{child.module}.{alias.name}", at_once, child.lineno)
        else:
            only_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, name, at_once=at_once and not only_for_types and not inside)


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


@each_module
def test_imports_point_one_way(module: Module) -> None:
    """functions → portaria modules → platforms → contract."""
    for name in own_imports(module):
        if module.name == "portaria.core.callbacks":
            pytest.fail(f"intake knows nobody, not even {name}")
        elif module.name == "portaria.core.entities":
            assert name == "portaria.core.callbacks"
        elif platform_of(module.name):
            assert name in CONTRACT or platform_of(name) == platform_of(module.name), name
        elif module.name == "portaria.platforms":
            assert name in CONTRACT
        elif not is_in(module.name, "portaria_cli"):
            assert not platform_of(name), f"{module.name} knows the platform {platform_of(name)}"
        if not is_in(module.name, "portaria_cli"):
            assert not is_in(name, "portaria_cli") or module.name == "portaria_cli.__main__"
        if not is_in(module.name, "portaria.api") and not module.name.startswith("functions."):
            assert not is_in(name, "portaria.api")


@each_module
def test_nothing_of_the_product_knows_the_functions_or_the_tests(module: Module) -> None:
    for one in imports(module):
        assert one.name.partition(".")[0] not in ("functions", "tests", "local", "bench", "handler", "moto")


def test_modules_know_one_another_without_circles() -> None:
    graph = {module.name: own_imports(module) - {module.name} for module in modules()}
    # `platforms` loads its parts by name, and they know the contract only.
    done: set[str] = set()
    while ready := {name for name in graph.keys() - done if graph[name] <= done}:
        done |= ready
    assert sorted(graph.keys() - done) == []


def reached(module: Module) -> set[str]:
    """Which of NETWORK a module imports, or anything in it."""
    return {package for package in NETWORK for one in imports(module) if is_in(one.name, package)}


@each_module
def test_only_a_few_modules_can_reach_the_network(module: Module) -> None:
    if is_in(module.name, "portaria_cli"):
        return
    assert reached(module) <= NETWORK_ALLOWED.get(module.name, set())
    if module.name in ONLY_NAMES_OF_ERRORS:
        from_botocore = {one.name for one in imports(module) if one.name.startswith("botocore")}
        assert {name.rpartition(".")[0] for name in from_botocore} == {"botocore.exceptions"}


def test_each_request_to_the_outside_names_its_owner() -> None:
    """A kept connection is used for one owner only, so that a server's mistake cannot cross from account to account."""
    calls = [
        (module.name, node.lineno, {keyword.arg for keyword in node.keywords})
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "egress.send"
    ]
    assert len(calls) >= 10
    assert [(name, line) for name, line, keywords in calls if "owner" not in keywords] == []


def test_no_permission_to_reach_the_network_is_idle() -> None:
    for module in modules():
        assert NETWORK_ALLOWED.get(module.name, set()) <= reached(module)
    assert set(NETWORK_ALLOWED) <= set(NAMES)


@each_module
def test_only_aws_makes_clients(module: Module) -> None:
    """`table` may import boto3's types, which talk to nobody."""
    from_boto3 = {one.name for one in imports(module) if one.name.partition(".")[0] == "boto3"}
    if module.name == "portaria.aws.boto3_clients":
        assert from_boto3 == {"boto3"}
    elif module.name == "portaria.aws.table":
        assert {name.rpartition(".")[0] for name in from_boto3} == {"boto3.dynamodb.types"}
    else:
        assert not from_boto3


def services_of(module: Module) -> set[str]:
    """The AWS services that a module asks for, by `aws.client("sqs")` or `AwsClient("sqs", …)`."""
    found = set()
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if (
            called in ("aws.client", "client", "AwsClient", "signing.AwsClient")
            and module.name != "portaria.aws.boto3_clients"
        ):
            argument = node.args[0] if node.args else None
            assert isinstance(argument, ast.Constant), f"{module.name}:{node.lineno}: name the service"
            found.add(str(argument.value))
    return found


@each_module
def test_each_aws_service_has_its_one_module(module: Module) -> None:
    if not is_in(module.name, "portaria_cli"):
        assert services_of(module) == SERVICES.get(module.name, set())


@each_module
def test_platforms_only_build_and_read(module: Module) -> None:
    """No network, no files, no environment, no clock, no threads of their own."""
    if platform_of(module.name):
        known = {one.name.partition(".")[0] for one in imports(module)} - {"portaria", "__future__"}
        assert not known & {"os", "subprocess", "threading", "time", "pathlib", "io", "tempfile", "asyncio", "logging"}
        assert known <= sys.stdlib_module_names
        names = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
        assert not names & {"open", "print", "eval", "exec", "input"}
        calls = {ast.unparse(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
        assert not calls & {"datetime.now", "datetime.utcnow", "datetime.today"}


def imported_at_once(start: str) -> set[str]:
    """What importing a module imports at once, our own modules followed; top-level names of everyone else's."""
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
                if one.at_once:
                    waiting.append(module_of(one.name) or one.name.partition(".")[0])
    return seen


@pytest.mark.parametrize(("function", "part"), [("accept_install", "install"), ("receive_events", "events")])
def test_a_hook_pays_for_nothing_that_it_does_not_use(function: str, part: str) -> None:
    hook = imported_at_once(f"functions.{function}.handler")
    for name in NAMES:
        if platform_of(name) and name.endswith(f".{part}"):
            hook |= imported_at_once(name)
    heavy = {"boto3", "botocore", "requests", "urllib3", "aws_lambda_powertools", "cryptography", "jinja2", "markupsafe",
             "pydantic", "jmespath", "orjson", "dataclasses", "logging", "asyncio", "email", "http"}  # fmt: skip
    assert not hook & heavy
    assert "portaria.core.entities" not in hook
    assert {"portaria.core.callbacks", "portaria.aws.light_client", f"portaria.platforms.kommo.{part}"} <= hook


def test_the_package_is_empty() -> None:
    assert (PACKAGE / "__init__.py").read_text() == ""
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE / "platforms":
            assert path.read_text() == "", path


@pytest.mark.parametrize(
    "path", [*PACKAGE.rglob("*.py"), *FUNCTIONS.glob("*/*.py")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_modules_have_names_that_say_something(path: Path) -> None:
    for part in path.relative_to(ROOT).with_suffix("").parts:
        assert part not in NO_NAMES
        assert not NO_NAMES & set(part.split("_"))


@each_module
def test_no_platform_is_named_outside_its_folder(module: Module) -> None:
    """Not in a comparison and not as a value: a new platform must be one new folder."""
    if is_in(module.name, "portaria.platforms"):
        return
    named = [
        f"{node.lineno}: {node.value}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and node.value in PLATFORMS and node.value not in ALSO_WORDS
    ]
    assert named == []
    compared = [ast.unparse(node) for node in ast.walk(module.tree) if isinstance(node, ast.Compare)]
    named = [text for text in compared for word in ALSO_WORDS if "platform" in text and repr(word) in text]
    assert named == []


@each_module
def test_a_module_says_what_it_is(module: Module) -> None:
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
    """The project's errors that a function raises itself."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            names.add(ast.unparse(error))
    return names & ERRORS


@each_module
def test_a_public_function_says_what_its_caller_must_know(module: Module) -> None:
    """A handler reads like the sentence above it, and so does a command of the command line."""
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


def test_the_rules_see_what_they_look_for() -> None:
    """Each rule reads the code by patterns: were these to miss everything, all would pass."""
    assert {"kommo", "marketo"} <= set(PLATFORMS)
    assert len(NAMES) > 30
    by_name = {module.name: module for module in modules()}
    assert "portaria.platforms" in own_imports(by_name["portaria.connections.token_provider"])
    assert "portaria.core.callbacks" in own_imports(by_name["portaria.core.entities"])
    assert Import("portaria.web.render.Page", False, 0).name in {
        one.name for one in imports(by_name["functions.accept_install.handler"]) if not one.at_once
    }
    assert raised(
        next(f for f in public_functions(by_name["portaria.connections.oauth_clients"].tree) if f.name == "find")
    ) == {"Rejected"}
