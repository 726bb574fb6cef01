"""A neighbouring checkout with a small local cloud of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from local import processes
from local.stack import ROOT, Stack

T = TypeVar("T")


# The smallest template for the local cloud: a function that returns its settings, and may send to one queue.
TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  PythonRuntime: {Type: String, Default: python3.13}
Resources:
  TellFunction:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: !Ref PythonRuntime
      Handler: handler.handler
      CodeUri: functions/tell/
      LoggingConfig: {LogGroup: !Ref TellLogs}
      Environment: {Variables: {THINGS_QUEUE_URL: !Ref ThingsQueue}}
      Policies:
        - Version: "2012-10-17"
          Statement: [{Effect: Allow, Action: sqs:SendMessage, Resource: !GetAtt ThingsQueue.Arn}]
      Events:
        Tell: {Type: Api, Properties: {RestApiId: !Ref Api, Path: /tell, Method: get}}
  TellLogs: {Type: AWS::Logs::LogGroup}
  Api: {Type: AWS::Serverless::Api, Properties: {StageName: live}}
  ThingsQueue: {Type: AWS::SQS::Queue}
Outputs:
  ApiId: {Value: !Ref Api}
  TableName: {Value: none}
  BusName: {Value: none}
"""


HANDLER = """
import json, os

def handler(event, context):
    if event["queryStringParameters"]:
        import boto3
        boto3.client("sqs").send_message(QueueUrl=os.environ["THINGS_QUEUE_URL"], MessageBody="{}")
    return {"statusCode": 200, "body": json.dumps({k: v for k, v in os.environ.items() if not k.endswith("_TOKEN")})}
"""


# Variables of a user's shell that no function may see
SHELL = {
    "AWS_PROFILE": "somebody",
    "AWS_ACCESS_KEY_ID": "AKIASOMEBODY",
    "AWS_SECRET_ACCESS_KEY": "somebodys",
    "AWS_SESSION_TOKEN": "somebodys",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
}


class Checkout:
    """A neighbouring checkout: the same `local/`, a small template."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT / "local", root / "local", ignore=shutil.ignore_patterns("__pycache__"))
        for name in (".venv-sam", ".venv-ministack"):
            (root / name).symlink_to((ROOT / name).resolve())
        (root / "functions" / "tell").mkdir(parents=True)
        (root / "layers").mkdir()
        (root / "template.yaml").write_text(TEMPLATE)
        (root / "functions" / "tell" / "handler.py").write_text(HANDLER)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "local", *words],
            cwd=self.root,
            env={**os.environ, **SHELL, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Exit status and output of `python -m local ...`."""
        process = self.begin(*words)
        output, _ = process.communicate(timeout=180)
        return process.returncode, output

    def begin_anew(self) -> None:
        """Stop it and remove its data."""
        self.run("down")
        shutil.rmtree(self.root / "build" / "local" / "state", ignore_errors=True)

    @property
    def stack(self) -> Stack:
        stack = Stack.read(self.root / "build" / "stack.json")
        assert stack is not None
        return stack

    def processes(self) -> dict[int, psutil.Process]:
        return processes.ours(self.root)


def until(condition: Callable[[], T], timeout_s: float = 60) -> T:
    """Wait until a condition holds. Returns its value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came to pass")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path_factory.mktemp("neighbour") / "portaria")
    yield checkout
    checkout.run("down")
    assert not checkout.processes()


@pytest.fixture
def neighbour(checkout: Checkout) -> Stack:
    """The neighbouring checkout's stack, running; restarted if a test stopped or broke it."""
    running = Stack.read(checkout.root / "build" / "stack.json")
    if running is None or not set(running.pids.values()) <= checkout.processes().keys():
        status, output = checkout.run("up")
        assert status == 0, output
    return checkout.stack
