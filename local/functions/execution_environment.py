"""The process of one function, under AWS's runtime interface client as on Lambda, without Docker.

The process can import the standard library, the function's code, its layers merged as below /opt, and the runtime interface
client with its two dependencies, in Lambda's order. It cannot import boto3: the version in Lambda's runtime changes without
notice, so the layers must contain their own.

Differences from Lambda: paths, a writable file system, the processor's speed, and threads that continue between invocations.
docs/fidelity.md lists the tests that cover them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from local.functions.runtime_api import Aborted, Invocation, Outcome, RuntimeApi, error_payload
from local.processes import MARK, NotStarted

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / ".venv-runtime"
PYTHON = RUNTIME / "bin" / "python"

# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-ib
INIT_TIMEOUT_S = 10.0
TIMED_OUT = "Sandbox.Timedout"
EXITED = "Runtime.ExitError"

# Lambda's order: the code, the layers, the standard library, the runtime's own packages.
# https://docs.aws.amazon.com/lambda/latest/dg/python-package.html#python-package-searchpath
BOOTSTRAP = """
import sys
task, opt, runtime, handler = sys.argv[1:]
version = "python%d.%d" % sys.version_info[:2]
sys.path[:] = [task, f"{opt}/python/lib/{version}/site-packages", f"{opt}/python", *sys.path, runtime]
from awslambdaric.__main__ import main
main(["awslambdaric", handler])
"""


@dataclass(frozen=True)
class Function:
    """Lambda's settings of a function version. `layers` are folders, in the order in which they are applied."""

    name: str
    arn: str
    version: str
    role: str
    runtime: str
    handler: str
    code: Path
    layers: tuple[Path, ...]
    timeout_s: float
    memory_mb: int
    log_group: str
    log_format: str
    log_level: str
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Report:
    """One invocation: Lambda's answer, the function's log, durations and memory. `init_s` is None for a warm one."""

    request_id: str
    payload: bytes
    failed: bool
    log: str
    duration_s: float
    init_s: float | None
    memory_mb: int
    max_memory_mb: int

    @property
    def answer(self) -> Any:
        return json.loads(self.payload)

    def __str__(self) -> str:
        """Lambda's REPORT line. Initialization is billed, as on AWS since August 2025."""
        parts = [
            f"REPORT RequestId: {self.request_id}",
            f"Duration: {self.duration_s * 1000:.2f} ms",
            f"Billed Duration: {math.ceil((self.duration_s + (self.init_s or 0)) * 1000)} ms",
            f"Memory Size: {self.memory_mb} MB",
            f"Max Memory Used: {self.max_memory_mb} MB",
        ]
        if self.init_s is not None:
            parts.append(f"Init Duration: {self.init_s * 1000:.2f} ms")
        return "\t".join(parts)


class ExecutionEnvironment:
    """Invokes a function any number of times; a process that ended or was killed is replaced, as on Lambda.

    `aws` is added to the function's environment: credentials, region and endpoint. Use it as a context manager.
    """

    def __init__(self, function: Function, aws: Mapping[str, str]) -> None:
        if not PYTHON.exists():
            raise NotStarted(
                f"{RUNTIME.name} is missing: run `make setup`. AWS's runtime client exists for Linux only."
            )
        self.function = function
        self._aws = aws
        self._runtime_packages = next(RUNTIME.glob("lib/python*/site-packages"))
        self._folder = Path(tempfile.mkdtemp(prefix="portaria-invoke-"))
        merge_layers(function.layers, self._folder / "opt")
        self._log: IO[bytes] = (self._folder / "log").open("w+b")
        self._process: subprocess.Popen[bytes] | None = None
        self._running = contextlib.ExitStack()
        self._peak_mb = 0

    def __enter__(self) -> ExecutionEnvironment:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._log.close()
        shutil.rmtree(self._folder)

    def invoke(self, event: bytes) -> Report:
        """Run one invocation. An error of the function is in the report and not raised."""
        request_id = str(uuid.uuid4())
        log_from = os.fstat(self._log.fileno()).st_size
        init_s, duration_s = None, 0.0
        outcome = None
        if self._process is None:
            outcome, init_s = self._start(request_id)
        if outcome is None:
            outcome, duration_s = self._run(event, request_id)
        self._log.seek(log_from)
        return Report(
            request_id=request_id,
            payload=outcome.payload,
            failed=outcome.error,
            # The client separates the lines of a multi-line error in the text format with carriage returns.
            log=self._log.read().decode("utf-8", "replace").replace("\r", "\n"),
            duration_s=duration_s,
            init_s=init_s,
            memory_mb=self.function.memory_mb,
            max_memory_mb=self._peak_mb,
        )

    def _start(self, request_id: str) -> tuple[Outcome | None, float]:
        """Start the process and wait until it asks for an event. Return the error of its initialization, if any."""
        started = time.monotonic()
        self._peak_mb = 0
        self._api = self._running.enter_context(RuntimeApi())
        function = self.function
        arguments = (function.code, self._folder / "opt", self._runtime_packages, function.handler)
        self._process = subprocess.Popen(
            # Isolated, without site-packages, and without bytecode files, since /var/task is read-only.
            [PYTHON, "-I", "-S", "-B", "-c", BOOTSTRAP, *arguments],
            cwd=function.code,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._running.callback(self._kill, self._process)
        deadline = started + INIT_TIMEOUT_S
        try:
            outcome = self._api.wait_until_ready(lambda: self._abort(deadline))
        except Aborted as reason:
            outcome = self._aborted(str(reason), request_id, f"Init timed out after {INIT_TIMEOUT_S:.2f} seconds")
        if outcome is not None:
            self._stop()
        return outcome, time.monotonic() - started

    def _run(self, event: bytes, request_id: str) -> tuple[Outcome, float]:
        started, timeout_s = time.monotonic(), self.function.timeout_s
        invocation = Invocation(
            request_id=request_id,
            event=event,
            function_arn=self.function.arn,
            deadline=time.time() + timeout_s,
            trace_id=f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)};Parent={secrets.token_hex(8)};Sampled=1",
        )
        try:
            outcome, duration_s = self._api.invoke(invocation, lambda: self._abort(started + timeout_s))
            if self._exceeds_memory():
                raise Aborted(EXITED)
        except Aborted as reason:
            duration_s = min(time.monotonic() - started, timeout_s)
            outcome = self._aborted(str(reason), request_id, f"Task timed out after {timeout_s:.2f} seconds")
            self._log.write(f"{json.loads(outcome.payload)['errorMessage']}\n".encode())
            self._log.flush()
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        return outcome, duration_s

    def _abort(self, deadline: float) -> str | None:
        """The error type for which a wait for the process must end, or None to continue."""
        assert self._process is not None
        if self._process.poll() is not None or self._exceeds_memory():
            return EXITED
        return TIMED_OUT if time.monotonic() > deadline else None

    def _exceeds_memory(self) -> bool:
        assert self._process is not None
        self._peak_mb = max(self._peak_mb, peak_memory_mb(self._process.pid))
        return self._peak_mb > self.function.memory_mb

    def _aborted(self, kind: str, request_id: str, timed_out: str) -> Outcome:
        """Stop the process. Returns Lambda's error for the missing answer."""
        assert self._process is not None
        status = self._process.poll()
        if kind == TIMED_OUT:
            text = timed_out
        elif status is None or status < 0:
            text = f"Runtime exited with error: signal: {'killed' if status is None else signal.Signals(-status).name}"
        else:
            text = f"Runtime exited with error: exit status {status}"
        self._stop()
        return Outcome(error_payload(kind, f"RequestId: {request_id} Error: {text}"), error=True)

    def _stop(self) -> None:
        self._running.close()
        self._process = None

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _environment(self) -> dict[str, str]:
        """The variables that Lambda sets, as recorded in a function on AWS, and the template's variables.

        https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
        """
        function = self.function
        environment = {
            **function.environment,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": function.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{time.strftime('%Y/%m/%d')}/[{function.version}]{uuid.uuid4().hex}",
            "AWS_LAMBDA_RUNTIME_API": self._api.address,
            "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
            "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:2000",
            "LAMBDA_RUNTIME_DIR": str(self._runtime_packages),
            "LAMBDA_TASK_ROOT": str(function.code),
            "LANG": "en_US.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
            "PWD": str(function.code),
            "TZ": ":UTC",
            "_HANDLER": function.handler,
            # The mark lets the local cloud stop the process if it outlives this one.
            MARK: str(ROOT),
            **self._aws,
        }
        # Lambda sets them only with the JSON format.
        if function.log_format == "JSON":
            environment |= {"AWS_LAMBDA_LOG_FORMAT": "JSON"}
            if function.log_level:
                environment |= {"AWS_LAMBDA_LOG_LEVEL": function.log_level}
        return environment


def merge_layers(layers: tuple[Path, ...], opt: Path) -> None:
    """Merge the layers into `opt` as Lambda does in /opt: a later layer's file replaces an earlier layer's."""
    opt.mkdir(parents=True)
    for layer in layers:
        _overlay(layer, opt)


def _overlay(source: Path, target: Path) -> None:
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            if place.is_symlink():
                earlier = place.resolve()
                place.unlink()
                place.mkdir()
                _overlay(earlier, place)
            _overlay(entry, place)
        else:
            place.unlink(missing_ok=True)
            place.symlink_to(entry.resolve())


def peak_memory_mb(pid: int) -> int:
    """The peak memory of a process in MB, rounded up; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return math.ceil(int(line.split()[1]) / 1024)
    with contextlib.suppress(psutil.Error):
        return math.ceil(psutil.Process(pid).memory_info().rss / 2**20)
    return 0
