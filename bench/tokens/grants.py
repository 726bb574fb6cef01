"""Connections with single-use refresh tokens on the local cloud: how benches make one, end its token and count renewals."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from unittest.mock import patch

import boto3

from bench.aws_clients import new_clients
from bench.report import console
from local import lifecycle
from local.__main__ import step
from local.control import Control
from local.stack import Stack
from portaria.aws.table import Table
from portaria.connections import connection_store, oauth_clients
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection

CLIENT_SECRET = "bench-client-secret"


@contextlib.contextmanager
def running_stack() -> Iterator[Stack]:
    """The local cloud, started if it does not run; then it is stopped at the end."""
    before = Stack.read()
    ours = before is None or bool(before.dead_parts())
    try:
        yield lifecycle.up(step, console.print)
    finally:
        if ours:
            with step("Stopping what was started"):
                lifecycle.down()


def environment(stack: Stack) -> dict[str, str]:
    """What a process needs to be a worker of this stack, as its functions are."""
    return {
        "AWS_ENDPOINT_URL": stack.aws_endpoint_url,
        "AWS_REGION": stack.region,
        "AWS_DEFAULT_REGION": stack.region,
        "AWS_ACCESS_KEY_ID": stack.access_key_id,
        "AWS_SECRET_ACCESS_KEY": stack.secret_access_key,
        "HTTPS_PROXY": stack.proxy_url,
        "NO_PROXY": "127.0.0.1,localhost",
        "REQUESTS_CA_BUNDLE": stack.ca_bundle,
    }


@dataclass
class Grants:
    """A provider of the local cloud and this stack's client of it. `mode` is what the provider does with a used token, `life_s`
    how long its access tokens live."""

    stack: Stack
    mode: str = "strict"
    life_s: int = 3_600
    name: str = field(default_factory=lambda: f"bench{secrets.token_hex(3)}")

    def __post_init__(self) -> None:
        self.control = Control(self.stack.control_url)
        settings = {"refresh_mode": self.mode, "expires_in": self.life_s}
        self.control.add_oauth2_provider(self.name, f"id-{self.name}", CLIENT_SECRET, **settings)
        self.host = f"{self.name}.oauth.example.net"
        self.token_url = f"https://{self.host}/token"
        self.table, self.vault = Table(self.stack.table), Vault(self.stack.stack_name)
        client = OAuthClient(
            "oauth2",
            self.name,
            f"id-{self.name}",
            f"{self.stack.public_url}/install/oauth2/{self.name}",
            authorize_url=f"https://{self.host}/authorize",
            token_url=self.token_url,
            api_domains=self.host,
        )
        oauth_clients.put(self.table, client, new=True)
        secret_id = self.vault.client_secret_id("oauth2", self.name)
        self.vault.replace(secret_id, {"client_secret": Secret(CLIENT_SECRET)})

    def expired_connection(self) -> Connection:
        """A new connection whose access token has just ended and whose refresh token nobody has used."""
        given = self.control.issue_oauth2_grant(self.name)
        ended = clock.to_iso(clock.now() - timedelta(seconds=1))
        name = f"{self.name}-{secrets.token_hex(3)}"
        secret_id = self.vault.grant_id(name)
        stored = {"access_token": given["access_token"], "refresh_token": given["refresh_token"], "expires_at": ended}
        stored |= {"token_type": "bearer", "scopes": ""}
        version = self.vault.create(secret_id, {key: Secret(str(value)) for key, value in stored.items()})
        now = clock.to_iso(clock.now())
        connection = Connection(
            name, "oauth2", "oauth2", self.host, "connected", 1, secret_id, version, client=self.name,
            created_at=now, updated_at=now, granted_at=now, token_ends_at=ended,
        )  # fmt: skip
        item = connection_store.to_item(connection)
        # Out of the schedule's sight: the bench's own workers are to renew it.
        self.table.put({name: value for name, value in item.items() if name not in ("due_pk", "due_at")})
        return connection

    def renewals(self) -> int:
        """How many calls with a refresh token the provider has had, whatever it answered."""
        calls: dict[str, int] = self.control.oauth2(self.name)["calls"]
        return sum(count for what, count in calls.items() if what.startswith("refresh_token"))


@contextlib.contextmanager
def as_a_worker(stack: Stack) -> Iterator[str]:
    """Let this process be a worker of the stack; the sealing key."""
    with patch.dict(os.environ, environment(stack)), new_clients():
        yield sealing_key(stack)


def sealing_key(stack: Stack) -> str:
    """The key's ARN, as the functions are told it."""
    functions = boto3.client("lambda", endpoint_url=stack.aws_endpoint_url, region_name=stack.region)
    configuration = functions.get_function_configuration(FunctionName=stack.functions["renew_tokens"])
    return str(configuration["Environment"]["Variables"]["SEALING_KEY_ID"])
