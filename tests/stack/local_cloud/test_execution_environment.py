"""Lambda's guarantees to a function and its caller, with small functions in `local.functions.execution_environment`."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from local.functions.execution_environment import RUNTIME, ExecutionEnvironment, Function, Report, merge_layers
from local.functions.runtime_api import MAX_PAYLOAD_BYTES

if sys.platform != "linux" and not RUNTIME.exists():
    pytest.skip("AWS's runtime client exists for Linux only", allow_module_level=True)

ARN = "arn:aws:lambda:us-east-1:123456789012:function:probe:live"
AWS = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}

Make = Callable[..., Function]


@pytest.fixture
def function(tmp_path: Path) -> Make:
    """Creates a function with this code as handler.py; its layers are folders of modules by their source."""

    def make(code: str, *layers: dict[str, str], **settings: object) -> Function:
        folder = tmp_path / "task"
        folder.mkdir()
        (folder / "handler.py").write_text(textwrap.dedent(code))
        for number, modules in enumerate(layers):
            for name, text in modules.items():
                file = tmp_path / f"layer-{number}" / "python" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        made = Function(
            name="probe",
            arn=ARN,
            version="7",
            role="arn:aws:iam::123456789012:role/probe",
            runtime=f"python{sys.version_info[0]}.{sys.version_info[1]}",
            handler="handler.handler",
            code=folder,
            layers=tuple(tmp_path / f"layer-{number}" for number in range(len(layers))),
            timeout_s=10,
            memory_mb=256,
            log_group="/aws/lambda/probe",
            log_format="JSON",
            log_level="",
            environment={"TABLE_NAME": "probe-table"},
        )
        return replace(made, **settings)  # type: ignore[arg-type]

    return make


def invoke(function: Function, *events: object) -> list[Report]:
    with ExecutionEnvironment(function, AWS) as environment:
        return [environment.invoke(json.dumps(event).encode()) for event in events]


def error_of(report: Report) -> tuple[str, str]:
    assert report.failed
    return report.answer["errorType"], report.answer["errorMessage"]


# ---------------------------------------------------------------------------------------------------------- environment


def test_execution_environment_context_and_variables_equal_lambda(function: Make) -> None:
    """As recorded on AWS: localstack's test_lambda_common, `test_introspection_invoke[python3.11]`."""
    code = """
        import os
        def handler(event, context):
            return {
                "event": event, "environment": dict(os.environ), "directory": os.getcwd(),
                "context": [context.function_name, context.function_version, context.invoked_function_arn,
                            context.memory_limit_in_mb, context.log_group_name, context.aws_request_id],
                "left_ms": context.get_remaining_time_in_millis(),
            }
    """
    probe = function(code)
    (report,) = invoke(probe, {"a": 1})
    answer, environment = report.answer, report.answer["environment"]
    assert answer["event"] == {"a": 1}
    assert answer["context"] == ["probe", "7", ARN, "256", "/aws/lambda/probe", report.request_id]
    assert 9_000 < answer["left_ms"] <= 10_000
    assert answer["directory"] == environment["LAMBDA_TASK_ROOT"] == str(probe.code)
    expected = {
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{probe.runtime}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_NAME": "probe",
        "AWS_LAMBDA_FUNCTION_VERSION": "7",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/probe",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "TABLE_NAME": "probe-table",
        "TZ": ":UTC",
        "_HANDLER": "handler.handler",
        **AWS,
    }
    assert expected.items() <= environment.items()
    assert environment["_X_AMZN_TRACE_ID"].startswith("Root=1-")
    recorded = {
        "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_LAMBDA_RUNTIME_API", "AWS_XRAY_DAEMON_ADDRESS", "LAMBDA_RUNTIME_DIR", "LANG",
        "PATH", "PWD",
    }  # fmt: skip
    assert recorded <= set(environment)
    assert "HOME" not in environment
    assert "VIRTUAL_ENV" not in environment


def test_execution_environment_loads_only_code_layers_and_runtime_client(function: Make) -> None:
    code = """
        import sys, importlib.util
        def handler(event, context):
            return {"path": sys.path, "found": [name for name in event if importlib.util.find_spec(name)]}
    """
    probe = function(code, {"layered.py": ""})
    names = ["layered", "awslambdaric", "json", "boto3", "botocore", "requests", "pip", "portaria", "pytest", "local"]
    (report,) = invoke(probe, names)
    assert report.answer["found"] == ["layered", "awslambdaric", "json"]
    path = report.answer["path"]
    assert path[0] == str(probe.code)
    assert [each.rpartition("/opt/")[2] for each in path[1:3]] == [
        f"python/lib/{probe.runtime}/site-packages",
        "python",
    ]
    assert path[-1].startswith(str(RUNTIME))
    assert [each for each in path[3:-1] if "packages" in each] == [], "the standard library alone"


def test_merge_layers_later_layer_replaces_files(function: Make) -> None:
    code = """
        import both, package.first, package.second
        def handler(event, context):
            return [both.NUMBER, package.first.NUMBER, package.second.NUMBER]
    """
    first = {"both.py": "NUMBER = 1", "package/__init__.py": "", "package/first.py": "NUMBER = 1"}
    second = {"both.py": "NUMBER = 2", "package/second.py": "NUMBER = 2"}
    (report,) = invoke(function(code, first, second), None)
    assert report.answer == [2, 1, 2]


def test_merge_layers_does_not_change_the_layers(function: Make, tmp_path: Path) -> None:
    probe = function("", {"package/a.py": "1"}, {"package/b.py": "2"}, {"package/a.py": "3"})
    merge_layers(probe.layers, tmp_path / "opt")
    merged = tmp_path / "opt" / "python" / "package"
    assert {file.name: file.read_text() for file in merged.iterdir()} == {"a.py": "3", "b.py": "2"}
    assert [sorted(file.name for file in layer.rglob("*.py")) for layer in probe.layers] == [
        ["a.py"],
        ["b.py"],
        ["a.py"],
    ]
    assert (probe.layers[0] / "python" / "package" / "a.py").read_text() == "1"


def test_execution_environment_function_writes_no_bytecode(function: Make) -> None:
    probe = function("import other\ndef handler(event, context): return None", {"other.py": ""})
    (probe.code / "more.py").write_text("")
    invoke(probe, None)
    assert list(probe.code.rglob("*.pyc")) == []
    assert list(probe.layers[0].rglob("*.pyc")) == []


# -------------------------------------------------------------------------------------------------- responses and errors


def test_execution_environment_invocations_share_process_with_separate_logs(function: Make) -> None:
    code = """
        import os
        print("starting")
        def handler(event, context):
            print("event", event)
            return os.getpid()
    """
    cold, warm = invoke(function(code), 1, 2)
    assert cold.answer == warm.answer
    assert cold.log == "starting\nevent 1\n"
    assert warm.log == "event 2\n"
    assert cold.init_s is not None
    assert warm.init_s is None
    assert "Init Duration: " in str(cold)
    assert "Init Duration: " not in str(warm)
    assert cold.max_memory_mb > 5


def test_execution_environment_exception_is_a_function_error_and_log_line(function: Make) -> None:
    code = """
        def handler(event, context):
            if event == "bad":
                raise ValueError("no such thing")
            return "fine"
    """
    failed, fine = invoke(function(code), "bad", "good")
    assert error_of(failed) == ("ValueError", "no such thing")
    assert failed.answer["requestId"] == failed.request_id
    assert json.loads(failed.log)["errorType"] == "ValueError"
    assert not fine.failed
    assert fine.init_s is None


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        ("import no_such_package", "Runtime.ImportModuleError", "No module named 'no_such_package'"),
        ("def other(event, context): ...", "Runtime.HandlerNotFound", "Handler 'handler' missing"),
        ("def handler(:", "Runtime.UserCodeSyntaxError", "Syntax error in module 'handler'"),
        ("raise RuntimeError('not set up')", "RuntimeError", "not set up"),
    ],
)
def test_execution_environment_failed_initialization_is_an_invocation_error(
    function: Make, code: str, kind: str, text: str
) -> None:
    reports = invoke(function(code), 1, 2)
    assert len(reports) == 2
    for report in reports:
        found_kind, found_text = error_of(report)
        assert found_kind == kind
        assert text in found_text
        assert report.init_s is not None


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("{1, 2}", "Runtime.MarshalError"),
        ("float('nan')", "Runtime.InvalidResponse"),
        ("b'\\xff'", "Runtime.InvalidResponse"),
        (f"'x' * {MAX_PAYLOAD_BYTES - 1}", "Function.ResponseSizeTooLarge"),
    ],
)
def test_execution_environment_invalid_answer_is_an_error(function: Make, expression: str, kind: str) -> None:
    (report,) = invoke(function(f"def handler(event, context): return {expression}"), None)
    assert error_of(report)[0] == kind


def test_execution_environment_answer_of_maximum_size_is_accepted(function: Make) -> None:
    (report,) = invoke(function(f"def handler(event, context): return 'x' * {MAX_PAYLOAD_BYTES - 2}"), None)
    assert not report.failed
    assert len(report.payload) == MAX_PAYLOAD_BYTES


# ---------------------------------------------------------------------------------------------------- limits and shutdown


def test_execution_environment_timed_out_function_is_killed_with_children(function: Make) -> None:
    code = """
        import subprocess, time
        def handler(event, context):
            if event == "hang":
                print(subprocess.Popen(["sleep", "60"]).pid)
                time.sleep(60)
            return "fine"
    """
    hung, fine = invoke(function(code, timeout_s=0.5), "hang", "go on")
    assert error_of(hung) == (
        "Sandbox.Timedout", f"RequestId: {hung.request_id} Error: Task timed out after 0.50 seconds",
    )  # fmt: skip
    child, _, last = hung.log.partition("\n")
    assert last.endswith("Task timed out after 0.50 seconds\n")
    assert 0.5 <= hung.duration_s < 5
    assert not psutil.pid_exists(int(child)) or psutil.Process(int(child)).status() == psutil.STATUS_ZOMBIE
    assert fine.answer == "fine"
    assert fine.init_s is not None, "a killed process is replaced"


def test_execution_environment_function_over_memory_is_killed(function: Make) -> None:
    code = """
        def handler(event, context):
            return len(bytes(event * 2**20).replace(b"\\0", b"1"))
    """
    fine, killed, again = invoke(function(code, memory_mb=128), 1, 200, 1)
    assert fine.answer == 2**20
    assert error_of(killed) == (
        "Runtime.ExitError", f"RequestId: {killed.request_id} Error: Runtime exited with error: signal: killed",
    )  # fmt: skip
    assert killed.max_memory_mb > 128
    assert again.answer == 2**20


@pytest.mark.parametrize(
    ("call", "text"), [("os._exit(3)", "exit status 3"), ("os.kill(os.getpid(), 11)", "signal: SIGSEGV")]
)
def test_execution_environment_process_exit_is_an_exit_error(function: Make, call: str, text: str) -> None:
    (report,) = invoke(function(f"import os\ndef handler(event, context): {call}"), None)
    kind, message = error_of(report)
    assert kind == "Runtime.ExitError"
    assert message.endswith(f"Runtime exited with error: {text}")


def test_execution_environment_leaves_no_process_and_no_file(function: Make) -> None:
    probe = function("import os\ndef handler(event, context): return [os.getpid(), __import__('sys').path[2]]")
    with ExecutionEnvironment(probe, AWS) as environment:
        pid, opt = environment.invoke(b"null").answer
        assert psutil.pid_exists(pid)
        assert Path(opt).parent.exists()
    assert not psutil.pid_exists(pid)
    assert not Path(opt).parent.parent.exists()
