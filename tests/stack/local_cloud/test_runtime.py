"""Every function with every event of `events/`, as Lambda runs it: what `sam build` made, and only the function's layers.

`build/runtime.json` tells how many functions and events there were, and which failed.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import click
import pytest

from local.functions import invoke
from local.functions.execution_environment import RUNTIME, ExecutionEnvironment, Function, Report, merge_layers
from local.stack import ROOT, STACK_FILE
from tests.fakes.local_cloud.session import LocalCloud
from tests.leaks import WATCH

if sys.platform != "linux" and not RUNTIME.exists():
    pytest.skip("AWS's runtime client exists for Linux only", allow_module_level=True)

RESULT = STACK_FILE.parent / "runtime.json"
PACKAGE = ROOT / "layers" / "portaria" / "portaria"
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_UNZIPPED_BYTES = 250 * 2**20

# A handler that imports the module that its event names, and returns the modules that failed.
IMPORTER = """
import importlib
def handler(event, context):
    failed = {}
    for name in event:
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return failed
"""


@pytest.fixture(scope="module")
def functions(stack: LocalCloud) -> dict[str, Function]:
    return invoke.functions(stack.stack)


@pytest.fixture
def clean_up(stack: LocalCloud) -> Iterator[None]:
    """Remove what the events for `manage` create, which a stopped run may have left."""

    def delete() -> None:
        paths = ["oauth-clients/kommo/crm"]
        for page in stack.admin.get(f"{stack.public_url}/admin/v1/private-integrations?limit=100").json()["items"]:
            if page["name"] == "Conexão com BI":
                paths.append(f"private-integrations/{page['id']}")
        for path in paths:
            stack.admin.delete(f"{stack.public_url}/admin/v1/{path}")

    delete()
    yield
    delete()


# ---------------------------------------------------------------------------------------------------------------- events


def test_functions_and_event_folders_match() -> None:
    names = {folder.parent.name for folder in ROOT.glob("functions/*/handler.py")}
    assert {file.parent.name for file in ROOT.glob("events/*/*.json")} == names


@pytest.mark.usefixtures("clean_up")
def test_functions_answer_every_sample_event(stack: LocalCloud, functions: dict[str, Function]) -> None:
    def answers(logical_id: str) -> list[tuple[str, Report, str]]:
        """A function's events in turn in one process: the first one is a cold start."""
        function = functions[logical_id]
        answered = []
        with ExecutionEnvironment(function, invoke.aws_environment(stack.stack, function)) as environment:
            for file in invoke.events_of(logical_id):
                report = environment.invoke(file.read_bytes())
                answered.append((f"{logical_id} {file.name}", report, problem_of(report, json.loads(file.read_text()))))
        return answered

    with ThreadPoolExecutor(2) as pool:
        answered = [each for several in pool.map(answers, functions) for each in several]
    failed = {name: problem for name, _, problem in answered if problem}
    figures = {"functions": len(functions), "events": len(answered), "failed": failed}
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    for name, report, _ in answered:
        for line in report.log.splitlines():
            WATCH.look("stack_log_lines", line, name)
    assert failed == {}
    assert len(answered) == len(list(ROOT.glob("events/*/*.json")))


def problem_of(report: Report, event: dict[str, Any]) -> str:
    """What is wrong with the response to an event of API Gateway, SQS or the Scheduler; empty if nothing is."""
    if report.failed:
        return f"{report.answer['errorType']}: {report.answer['errorMessage']}"
    answer = report.answer
    if "httpMethod" in event:
        return problem_of_response(answer)
    if "Records" in event:
        sent = {record["messageId"] for record in event["Records"]}
        failures = [failure["itemIdentifier"] for failure in (answer or {}).get("batchItemFailures", [])]
        return "" if set(failures) <= sent else f"failures of other messages: {failures}"
    return "" if answer is None else f"an answer to a schedule: {answer}"


def problem_of_response(answer: Any) -> str:
    """API Gateway answers 502 for anything but this; 500 and 502 are faults of the function.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
    """
    if not isinstance(answer, dict):
        return f"no object: {answer!r}"
    known = {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}
    if strange := set(answer) - known:
        return f"unknown fields: {strange}"
    if not isinstance(answer.get("statusCode"), int) or answer["statusCode"] in (500, 502):
        return f"statusCode {answer.get('statusCode')!r}: {answer.get('body')}"
    if not isinstance(answer.get("body", ""), str):
        return f"a body that is no text: {type(answer['body'])}"
    values = [*answer.get("headers", {}).values()]
    values += [value for several in answer.get("multiValueHeaders", {}).values() for value in several]
    return "" if all(isinstance(value, str) for value in values) else "a header that is no text"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"statusCode": 200, "body": "fine", "headers": {"A": "b"}}, ""),
        ({"statusCode": "200", "body": ""}, "statusCode"),
        ({"statusCode": 500, "body": ""}, "statusCode"),
        ({"statusCode": 200, "body": {}}, "no text"),
        ({"statusCode": 200, "multiValueHeaders": {"A": ["b", 1]}}, "no text"),
        ({"statusCode": 200, "status": 200}, "unknown fields"),
        (None, "no object"),
    ],
)
def test_problem_of_response_finds_what_api_gateway_refuses(answer: Any, problem: str) -> None:
    found = problem_of_response(answer)
    assert problem in found
    assert bool(found) == bool(problem)


# ---------------------------------------------------------------------------------------------------------------- layers


def test_function_imports_are_all_in_its_layers(
    stack: LocalCloud, functions: dict[str, Function], tmp_path: Path
) -> None:
    """Events reach few imports inside functions, so all modules that the code names are imported with the same layers."""
    (tmp_path / "handler.py").write_text(IMPORTER)
    by_layers: dict[tuple[Path, ...], list[str]] = {}
    for logical_id, function in functions.items():
        by_layers.setdefault(function.layers, []).append(logical_id)
    assert len(by_layers) == 2
    for layers, several in by_layers.items():
        names = set().union(*(reachable(ROOT / "functions" / invoke.folder_of(one) / "handler.py") for one in several))
        assert {"portaria.core.callbacks", "json"} <= names
        one = replace(functions[several[0]], code=tmp_path, memory_mb=1024)
        with ExecutionEnvironment(one, invoke.aws_environment(stack.stack, one)) as environment:
            report = environment.invoke(json.dumps(sorted(names)).encode())
        assert report.answer == {}, [layer.name for layer in layers]


def reachable(file: Path) -> set[str]:
    """The modules that a file may import, also inside functions, with those of the package that it leads to.

    Loading a platform by its name reaches the modules of all platforms.
    """
    found: set[str] = set()
    waiting = [file]
    while waiting:
        for name in imported(waiting.pop()) - found:
            found.add(name)
            if path := source_of(name):
                waiting.append(path)
    # `from portaria import clock` names a module, `from portaria.clock import now` does not.
    return {name for name in found if not name.startswith("portaria.") or source_of(name)}


@cache
def imported(file: Path) -> frozenset[str]:
    return frozenset(_imported(ast.parse(file.read_text())))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        if node.module.partition(".")[0] == "portaria":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and re.fullmatch(r"platforms\.(load|every)", ast.unparse(node.func)):
        yield from (f"portaria.platforms.{path.parent.name}" for path in PACKAGE.glob("platforms/*/__init__.py"))
    for child in ast.iter_child_nodes(node):
        # Except imports for type checking, and those of commands only.
        if not (isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "__name__ == '__main__'")):
            yield from _imported(child)


def source_of(name: str) -> Path | None:
    """The file of a module of the package."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if name.startswith("portaria") and file.exists():
            return file
    return None


def test_function_with_package_missing_from_layer_fails(
    stack: LocalCloud, functions: dict[str, Function], tmp_path: Path
) -> None:
    """The check of this module, on a copy of the layer without Powertools."""
    function = functions["ExchangeCodeFunction"]
    (layer,) = (layer for layer in function.layers if layer.name == "LibrariesLayer")
    merge_layers((layer,), tmp_path / "layer")
    packages = tmp_path / "layer" / "python"
    # A link to a folder becomes a folder of links, so that nothing is removed from the layer itself.
    packages.unlink()
    packages.mkdir()
    for package in (layer / "python").iterdir():
        if package.name != "aws_lambda_powertools":
            (packages / package.name).symlink_to(package)
    layers = tuple(tmp_path / "layer" if each == layer else each for each in function.layers)
    broken = replace(function, layers=layers)
    event = invoke.events_of("ExchangeCodeFunction")[0].read_bytes()
    with ExecutionEnvironment(broken, invoke.aws_environment(stack.stack, broken)) as environment:
        report = environment.invoke(event)
    problem = problem_of(report, json.loads(event))
    missing = "No module named 'aws_lambda_powertools'"
    assert problem == f"Runtime.ImportModuleError: Unable to import module 'handler': {missing}"
    assert (layer / "python" / "aws_lambda_powertools").exists()


def test_function_code_and_layers_are_within_lambda_size_limit(functions: dict[str, Function]) -> None:
    @cache
    def size(folder: Path) -> int:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    assert functions
    for function in functions.values():
        assert size(function.code) + sum(map(size, function.layers)) <= MAX_UNZIPPED_BYTES


# --------------------------------------------------------------------------------------------------------------- command


def test_function_has_credentials_of_its_own_role(stack: LocalCloud, functions: dict[str, Function]) -> None:
    for logical_id in ("AcceptInstallFunction", "ManageFunction"):
        aws = invoke.aws_environment(stack.stack, functions[logical_id])
        session = botocore.session.Session()
        session.set_credentials(aws["AWS_ACCESS_KEY_ID"], aws["AWS_SECRET_ACCESS_KEY"], aws["AWS_SESSION_TOKEN"])
        sts = session.create_client("sts", region_name=aws["AWS_REGION"], endpoint_url=aws["AWS_ENDPOINT_URL"])
        arn = sts.get_caller_identity()["Arn"]
        assert f":assumed-role/{functions[logical_id].role.rpartition('/')[2]}/" in arn


def test_invoke_prints_answer_on_stdout_and_log_on_stderr(
    stack: LocalCloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    event = ROOT / "events" / "track_receipts" / "challenge.json"
    monkeypatch.setattr(sys, "stdin", io.StringIO(event.read_text()))
    for name in (str(event), "-"):
        report = invoke.invoke(stack.stack, "TrackReceiptsFunction", name)
        assert not report.failed
        printed = capsys.readouterr()
        assert json.loads(printed.out) == report.answer
        assert printed.out.count("\n") > 3, "it is meant to be read"
        lines = printed.err.splitlines()
        assert lines[0].startswith(f"START RequestId: {report.request_id} Version: ")
        assert lines[-2] == f"END RequestId: {report.request_id}"
        assert re.fullmatch(
            rf"REPORT RequestId: {report.request_id}\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\t"
            r"Memory Size: 512 MB\tMax Memory Used: \d+ MB\tInit Duration: [\d.]+ ms",
            lines[-1],
        )


@pytest.mark.parametrize(
    ("function", "event", "words"),
    [
        ("AcceptInstallFuncton", "x.json", ["Did you mean AcceptInstallFunction?", "ManageFunction"]),
        ("ManageFunction", "x.json", ["x.json: No such file", "events/manage/show_install.json"]),
        ("ManageFunction", "README.md", ["README.md is not JSON"]),
    ],
)
def test_invoke_unknown_function_or_event_is_refused_with_advice(
    stack: LocalCloud, function: str, event: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(click.BadParameter) as refused:
        invoke.invoke(stack.stack, function, event)
    for word in words:
        assert word in str(refused.value)
