"""The three stand-ins for AWS behind one interface: moto, the in-memory AWS of the simulations, and MiniStack."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import botocore.session
import requests
from botocore.config import Config
from moto import mock_aws

from local import processes
from local.stack import MINISTACK
from tests.fakes.aws import moto_cloud as fake_aws
from tests.simulation.aws import cloud as memory

REGION = "us-east-1"
TABLE = memory.TABLE
START_TIMEOUT_S = 30.0
_numbers = itertools.count(1)


class Aws:
    """`client` gives a service's client, as `boto3.client` does. `key_id` is a KMS key; the table `TABLE` exists.

    Where functions run, `endpoint` is the stand-in's address and `folder` a place that it and the tests share.
    """

    def __init__(
        self, name: str, client: Callable[[str], Any], key_id: str, *, endpoint: str = "", folder: Path | None = None
    ) -> None:
        self.name = name
        self.client = client
        self.key_id = key_id
        self.endpoint = endpoint
        self.folder = folder or Path()
        # Shared by expectations, because they take long to create.
        self.shared: dict[str, Any] = {}
        self.sqs = client("sqs")
        self.dynamodb = client("dynamodb")
        self.secrets = client("secretsmanager")
        self.kms = client("kms")
        self.events = client("events")

    def fresh(self, kind: str = "name") -> str:
        """A name that no other expectation uses."""
        return f"{kind}-{next(_numbers)}"

    def queue(self, **attributes: str) -> str:
        """The URL of a new queue."""
        name = self.fresh("queue")
        if self.name == "memory":
            return memory.Cloud.url(name)
        return str(self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])

    def arn(self, queue_url: str) -> str:
        answer = self.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])


@contextlib.contextmanager
def moto() -> Iterator[Aws]:
    with mock_aws(), patch("moto.kms.models.generate_private_key", fake_aws._private_key):
        clients = {name: boto3.client(name, region_name=REGION) for name in _SERVICES}
        clients["dynamodb"].create_table(TableName=TABLE, **fake_aws._table_properties())
        key_id = clients["kms"].create_key()["KeyMetadata"]["KeyId"]
        yield Aws("moto", clients.__getitem__, key_id)


def in_memory() -> Aws:
    return Aws("memory", memory.Cloud().client, memory.KEY_ID)


@contextlib.contextmanager
def ministack(folder: Path) -> Iterator[Aws]:
    """A MiniStack of its own, whose log and files are in `folder`."""
    port = processes.free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environment = {
        **processes.clean_environment(folder),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LAMBDA_EXECUTOR": "local",
        "DOCKER_HOST": f"unix://{folder}/no-docker.sock",
    }
    with (folder / "ministack.log").open("wb") as log:
        process = subprocess.Popen(
            [MINISTACK], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(f"{endpoint}/_ministack/health", process)
        session = botocore.session.Session()
        clients = {
            name: session.create_client(
                name,
                region_name=REGION,
                endpoint_url=endpoint,
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
                config=Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 0}, proxies={}),
            )
            for name in _SERVICES
        }
        clients["dynamodb"].create_table(TableName=TABLE, **fake_aws._table_properties())
        key_id = clients["kms"].create_key()["KeyMetadata"]["KeyId"]
        yield Aws("ministack", clients.__getitem__, key_id, endpoint=endpoint, folder=folder)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait(10)


_SERVICES = (
    "dynamodb", "secretsmanager", "kms", "sqs", "events", "scheduler", "lambda", "iam", "apigateway",
)  # fmt: skip


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(requests.RequestException):
                if session.get(url, timeout=2).ok:
                    return
            time.sleep(0.05)
    raise AssertionError(f"MiniStack did not start; it ended with {process.poll()}")
