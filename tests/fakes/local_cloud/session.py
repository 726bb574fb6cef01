"""The local cloud for end-to-end tests: the one that runs in this checkout, or one started for the session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from requests.auth import AuthBase

from local import lifecycle
from local.control import Control
from local.stack import Stack
from tests.fakes.local_cloud import leaks


class SignedByAws(AuthBase):
    """Signs a request for API Gateway with SigV4, as an AWS principal does."""

    def __init__(self, access_key_id: str, secret_access_key: str, region: str) -> None:
        self._signer = SigV4Auth(Credentials(access_key_id, secret_access_key), "execute-api", region)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        headers = {name: value for name, value in request.headers.items() if name.lower() == "content-type"}
        signed = AWSRequest(method=request.method, url=request.url, data=request.body, headers=headers)
        self._signer.add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        return request


class Web(requests.Session):
    """An HTTP client outside of the local cloud: every https host through its proxy, without this machine's settings."""

    def __init__(self, stack: Stack, *, auth: AuthBase | None = None) -> None:
        super().__init__()
        self.trust_env = False
        self.proxies = {"https": stack.proxy_url}
        self.verify = stack.ca_bundle
        self.auth = auth

    def request(self, method: str | bytes, url: str | bytes, *arguments: Any, **settings: Any) -> requests.Response:
        return super().request(method, url, *arguments, **{"timeout": 30, **settings})


@dataclass(frozen=True)
class LocalCloud:
    """What a test needs of the running stack.

    `web` calls the API and the simulators' hosts; `admin` is `web` with every request signed by the account's root.
    `functions` is the boto3 client of Lambda, `secrets` of Secrets Manager, `iam` of IAM, and so on.
    """

    stack: Stack
    control: Control
    web: requests.Session
    admin: requests.Session
    dynamodb: Any
    sqs: Any
    events: Any
    secrets: Any
    functions: Any
    iam: Any
    logs: Any

    @property
    def api_url(self) -> str:
        return self.stack.api_url

    @property
    def public_url(self) -> str:
        return self.stack.public_url


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalCloud]:
    """This checkout's local cloud, up to date. It is searched for leaks at the end, and stopped unless it ran before."""
    before = Stack.read()
    ran = before is not None and not before.dead_parts()
    logs = leaks.sizes()
    running = lifecycle.up(lambda _title: contextlib.nullcontext(), print)
    control = Control(running.control_url)
    with (
        contextlib.closing(control),
        Web(running) as web,
        Web(running, auth=SignedByAws(running.access_key_id, running.secret_access_key, running.region)) as admin,
        leaks.watching(running, logs),
    ):
        yield LocalCloud(
            stack=running,
            control=control,
            web=web,
            admin=admin,
            dynamodb=running.client("dynamodb"),
            sqs=running.client("sqs"),
            events=running.client("events"),
            secrets=running.client("secretsmanager"),
            functions=running.client("lambda"),
            iam=running.client("iam"),
            logs=running.client("logs"),
        )
    if not ran:
        lifecycle.down()


def workers(cloud: LocalCloud, *functions: str) -> list[int]:
    """The processes in which these functions run (`ExchangeCode`): children of this stack's MiniStack."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
                command = (directory / "cmdline").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            ours = parent == cloud.stack.pids["ministack"] and "ministack-lambda" in command
            if ours and any(f"{name}Function" in command for name in functions):
                found.append(int(directory.name))
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the functions' processes in /proc")
