"""Fresh interpreters that run a function as Lambda would: its code, the layer, its event, and AWS behind TLS."""

from __future__ import annotations

import compileall
import importlib.metadata
import os
import py_compile
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.report import BUILD, ROOT

# What boto3 needs, itself included.
BOTO3 = ("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3")
EVENT = ROOT / "events" / "accept_install" / "widget_hook.json"

# Told over a pipe of its own: what a function prints is its log.
DRIVER = """
import sys
sys.path[:0] = sys.argv[3].split(":")
from handler import handler
import json
with open(sys.argv[1]) as file:
    event = json.load(file)
answer = handler(event, None)
import os
os.write(int(sys.argv[2]), b"%d\\n" % answer["statusCode"])
calls = int(sys.argv[4])
if calls:
    import time
    for _ in range(20):
        handler(event, None)
    started = time.process_time()
    for _ in range(calls):
        handler(event, None)
    os.write(int(sys.argv[2]), b"%.9f\\n" % ((time.process_time() - started) / calls))
with open("/proc/self/status") as file:
    peak = next(line.split()[1] for line in file if line.startswith("VmHWM"))
os.write(int(sys.argv[2]), peak.encode() + b"\\n")
"""


class Side(NamedTuple):
    """A function as it is measured: the folders for `sys.path` and the CA bundle under build/bench/."""

    path: str
    bundle: str


class Run(NamedTuple):
    """`answer_ms` from the start of the interpreter to its first answer, `cpu_ms` the processor time of the whole process,
    `peak_mb` of memory, `call_ms` of processor time when warm."""

    answer_ms: float
    cpu_ms: float
    peak_mb: float
    call_ms: float


class Sides(NamedTuple):
    """`uncompiled` is accept_install as `sam build` leaves it, `same_bundle` with the authorities that boto3 reads."""

    accept_install: Side
    uncompiled: Side
    same_bundle: Side
    plain_sample: Side


def prepare() -> Sides:
    """Copy both functions with their imports, and compile them as for a deployment: unchecked, no source is looked at."""
    trees = BUILD / "trees"
    shutil.rmtree(trees, ignore_errors=True)
    package = ROOT / "layers" / "portaria" / "portaria"
    for name in ("compiled", "uncompiled"):
        _copy(ROOT / "functions" / "accept_install", trees / name / "function")
        _copy(package, trees / name / "layer" / "portaria")
    _copy(ROOT / "bench" / "functions" / "plain_sample", trees / "plain" / "function")
    for name in BOTO3:
        _copy_package(name, trees / "plain" / "layer")
    _compile(trees / "compiled", trees / "plain")
    compiled, uncompiled, plain = (
        f"{trees / name}/function:{trees / name}/layer" for name in ("compiled", "uncompiled", "plain")
    )
    return Sides(
        accept_install=Side(compiled, "signing.pem"),
        uncompiled=Side(uncompiled, "signing.pem"),
        same_bundle=Side(compiled, "boto3.pem"),
        plain_sample=Side(plain, "boto3.pem"),
    )


def prepare_events() -> tuple[Side, Side]:
    """receive_events and the plain sample, each compiled with its imports."""
    trees = BUILD / "event_trees"
    shutil.rmtree(trees, ignore_errors=True)
    _copy(ROOT / "functions" / "receive_events", trees / "ours" / "function")
    _copy(ROOT / "layers" / "portaria" / "portaria", trees / "ours" / "layer" / "portaria")
    _copy(ROOT / "bench" / "functions" / "plain_sample", trees / "plain" / "function")
    for name in BOTO3:
        _copy_package(name, trees / "plain" / "layer")
    _compile(trees / "ours", trees / "plain")
    ours, plain = (f"{trees / name}/function:{trees / name}/layer" for name in ("ours", "plain"))
    return Side(ours, "signing.pem"), Side(plain, "boto3.pem")


def _compile(*trees: Path) -> None:
    for tree in trees:
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
        if not compileall.compile_dir(tree, quiet=1, invalidation_mode=unchecked):
            raise RuntimeError(f"{tree} does not compile")


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


def _copy_package(name: str, layer: Path) -> None:
    for file in importlib.metadata.files(name) or []:
        if file.suffix != ".pyc" and ".." not in file.parts:
            target = layer / file
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(str(file.locate()), target)


@contextmanager
def aws(stub_module: str = "bench.functions.aws_stub") -> Iterator[dict[str, str]]:
    """Start a stub and yield the environment of a function that uses it."""
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", stub_module, str(BUILD)]
    path = os.pathsep.join([str(ROOT / "layers" / "portaria"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as stub:
        assert stub.stdout is not None
        port = stub.stdout.readline().strip()
        try:
            yield {
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE00",
                "AWS_SECRET_ACCESS_KEY": "example",
                "AWS_SESSION_TOKEN": "example" * 100,
                "AWS_ENDPOINT_URL": f"https://localhost:{port}",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "TABLE_NAME": "portaria",
                "POWERTOOLS_SERVICE_NAME": "portaria",
                "EXCHANGES_QUEUE_URL": f"https://localhost:{port}/123456789012/exchanges",
                "UNPROVEN_EXCHANGES_QUEUE_URL": f"https://localhost:{port}/123456789012/unproven_exchanges",
                "RECORDS_QUEUE_URL": f"https://localhost:{port}/123456789012/records",
                "SUCCESS_LOGS": "summary",
            }
        finally:
            stub.terminate()


def run(side: Side, environment: dict[str, str], calls: int = 0, *, event: Path = EVENT) -> Run:
    """Answer one event in a fresh interpreter, then `calls` more of them."""
    environment = {**environment, "AWS_CA_BUNDLE": str(BUILD / side.bundle)}
    reading, writing = os.pipe()
    # -I and -S: nothing of this machine's site-packages; -B: nothing is compiled on the side.
    command = [sys.executable, "-I", "-S", "-B", "-c", DRIVER, str(event), str(writing), side.path, str(calls)]
    with os.fdopen(reading) as told:
        before_s, started = _children_cpu_s(), time.perf_counter()
        with subprocess.Popen(
            command, env=environment, pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            os.close(writing)
            status = told.readline()
            answered = time.perf_counter()
            rest = told.read().split()
            _, problem = process.communicate()
    if status != "200\n" or process.returncode:
        raise RuntimeError(f"{side.path} answered {status!r}\n{problem}")
    *call_s, peak_kb = rest
    cpu_ms = (_children_cpu_s() - before_s) * 1000
    return Run((answered - started) * 1000, cpu_ms, int(peak_kb) / 1024, float(call_s[0]) * 1000 if call_s else 0.0)


def _children_cpu_s() -> float:
    """The processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
