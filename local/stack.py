"""The running local cloud of this checkout: its files, its settings, and its description in build/stack.json."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from local import processes

ROOT = Path(__file__).resolve().parent.parent
STACK_FILE = ROOT / "build" / "stack.json"
LOCAL = ROOT / "build" / "local"
STATE = LOCAL / "state"
SAM = ROOT / "build" / "sam"

MINISTACK = ROOT / ".venv-ministack" / "bin" / "ministack"
MINISTACK_PYTHON = ROOT / ".venv-ministack" / "bin" / "python"

STACK_NAME = "portaria-local"
REGION = "us-east-1"
# MiniStack treats the credentials that it is started with as those of the account's root. They are valid at the emulator only.
ACCESS_KEY_ID = "PORTARIALOCALROOT"
SECRET_ACCESS_KEY = "portaria-local-root"

# The Adobe I/O project whose events the deployed API accepts.
ADOBE_CLIENT_ID = "portaria-local-adobe"

# `with step("Deploying"):` shows the step while it runs, and afterwards how long it took.
Step = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class Stack:
    """A running local cloud, as build/stack.json describes it.

    `api_url` is the deployed API at MiniStack. `public_url` is the same API under the name that it would have on AWS, for
    clients that use the proxy `proxy_url` and trust `ca_bundle`. `queues`, `functions` and `log_groups` are by name
    (`exchanges`, `accept_install`). `sources` are the fingerprints of the deployed and running sources. `keeps_state` tells
    whether an orderly stop saves the data for the next start.
    """

    aws_endpoint_url: str
    proxy_url: str
    ca_bundle: str
    control_url: str
    pids: dict[str, int]
    sources: dict[str, str]
    region: str = REGION
    access_key_id: str = ACCESS_KEY_ID
    secret_access_key: str = SECRET_ACCESS_KEY
    stack_name: str = STACK_NAME
    api_url: str = ""
    public_url: str = ""
    table: str = ""
    bus: str = ""
    queues: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    log_groups: dict[str, str] = field(default_factory=dict)
    keeps_state: bool = False

    @classmethod
    def read(cls, file: Path = STACK_FILE) -> Stack | None:
        """The stack of the last completed `up`, or None. Its processes may have died since: see `dead_parts`."""
        try:
            return cls(**json.loads(file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self) -> None:
        """Replace build/stack.json atomically. Only its owner can read it."""
        fresh = STACK_FILE.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=2)
        fresh.replace(STACK_FILE)

    def client(self, service: str) -> Any:
        """A boto3 client for MiniStack as the account's root. It ignores the AWS settings of the user's shell."""
        # Most commands call no AWS service, and botocore takes long to import.
        import botocore.session
        from botocore.config import Config

        unset = (None, None, None, None)
        session = botocore.session.Session(
            session_vars={"profile": unset, "config_file": unset, "credentials_file": unset}
        )
        return session.create_client(
            service,
            region_name=self.region,
            endpoint_url=self.aws_endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 2}, proxies={}),
        )

    @contextlib.contextmanager
    def outage(self, function: str, *actions: str) -> Iterator[None]:
        """Deny a function's role the `actions` (`sqs:SendMessage`) within the context. It takes effect immediately."""
        configuration = self.client("lambda").get_function_configuration(FunctionName=self.functions[function])
        role = configuration["Role"].rpartition("/")[2]
        statement = {"Effect": "Deny", "Action": list(actions), "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam = self.client("iam")
        iam.put_role_policy(RoleName=role, PolicyName="outage", PolicyDocument=document)
        try:
            yield
        finally:
            iam.delete_role_policy(RoleName=role, PolicyName="outage")

    def dead_parts(self) -> list[str]:
        """The names of the processes that no longer run."""
        alive = processes.ours(ROOT)
        return [name for name, pid in self.pids.items() if pid not in alive]
