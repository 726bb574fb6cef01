"""Real authorization servers from the registries, each a process of its own behind the local proxy.

The product reaches them as it would on the internet: https, the guarded client, names that no public address has. One server
speaks for one host, `{name}.oauth.example.net`. npm's oidc-provider needs Node; where that is missing, its tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import trustme

from tests.fakes.paths import ROOT

REDIRECT_URI = "https://hooks.example.com/install/oauth2"
# All characters that form encoding changes.
ODD = "a+b/c=%41&d e:f"


@dataclass(frozen=True)
class Client:
    """One of a server's clients: its authentication method and its grant."""

    name: str
    client_id: str
    client_secret: str
    token_auth: str
    redirect_uri: str = ""
    scopes: str = "read write"


CLIENTS = (
    Client("plain", "plain", "canary-plain-secret", "basic", f"{REDIRECT_URI}/plain"),
    Client("basic", "id+1/2=%41", f"canary-{ODD}", "basic", f"{REDIRECT_URI}/basic"),
    Client("post", "id&3:4 5".replace(" ", "+"), f"canary-{ODD}", "post", f"{REDIRECT_URI}/post"),
    Client("machine-basic", "machine+1/2", f"canary-{ODD}", "basic"),
    Client("machine-post", "machine&3:4", f"canary-{ODD}", "post"),
)


@dataclass(frozen=True)
class Kind:
    """How a server is started, and where its endpoints are."""

    name: str
    command: tuple[str, ...]
    authorize: str = "/authorize"
    token: str = "/token"
    revoke: str = "/revoke"
    api: str = "/me"
    scopes: str = "read write"


PYTHON = (sys.executable, "-m")
KINDS = {
    "authlib": Kind("authlib", (*PYTHON, "tests.peers.authlib_server")),
    "django": Kind("django", (*PYTHON, "tests.peers.django_server"), "/o/authorize/", "/o/token/", "/o/revoke_token/"),
    "oidc-provider": Kind(
        "oidc-provider", ("node", "server.mjs"), "/auth", "/token", "/token/revocation", scopes="openid read write"
    ),
}


class Unavailable(Exception):
    """A server is not available on this machine; the message has the reason."""


class Server:
    def __init__(self, kind: Kind, port: int) -> None:
        self.kind, self.port = kind, port
        self.host = f"{kind.name}.oauth.example.net"

    def url(self, path: str) -> str:
        return f"https://{self.host}{path}"

    def control(self, **changes: Any) -> dict[str, Any]:
        """Change the server's lifetimes, scopes or clock, directly and not through the proxy."""
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(f"http://127.0.0.1:{self.port}/_control", json=changes, timeout=10)
        answer.raise_for_status()
        return dict(answer.json())


@contextmanager
def serving(name: str) -> Iterator[Server]:
    """A running server that this process reaches through a proxy. Raises `Unavailable`."""
    kind = KINDS[name]
    folder = _node_folder() if kind.command[0] == "node" else ROOT
    clients = [{**vars(client), "scopes": kind.scopes} for client in CLIENTS]
    settings = {"issuer": f"https://{kind.name}.oauth.example.net", "clients": clients}
    environment = {**os.environ, "PEER": json.dumps(settings), "PYTHONPATH": str(ROOT)}
    log = ROOT / "build" / "peers" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as errors:
        process = subprocess.Popen(
            kind.command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout
        line = process.stdout.readline().split()
        if line[:1] != ["ready"]:
            raise RuntimeError(f"{name} did not start: see {log.relative_to(ROOT)}")
        server = Server(kind, int(line[1]))
        with _proxied(server):
            yield server
    finally:
        process.kill()
        process.communicate()


def _node_folder() -> Path:
    """The folder of npm's server, which is installed from its lock if it is missing."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise Unavailable("Node is not installed on this machine")
    source, folder = ROOT / "tests" / "peers" / "oidc_provider", ROOT / "build" / "peers" / "oidc_provider"
    lock, stamp = source / "package-lock.json", folder / ".installed"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "server.mjs"):
        shutil.copy(source / name, folder / name)
    if not stamp.exists() or stamp.read_text() != lock.read_text():
        command = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise Unavailable(f"npm could not install oidc-provider: {done.stderr.strip()[-300:]}")
        stamp.write_text(lock.read_text())
    return folder


@contextmanager
def _proxied(server: Server) -> Iterator[None]:
    """The local proxy, with a certificate for the server's host. This process uses it."""
    authority = trustme.CA()
    certificate = authority.issue_cert(server.host).private_key_and_cert_chain_pem
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        certificate.tempfile() as key_file,
        authority.cert_pem.tempfile() as bundle,
    ):
        descriptor, port = listener.fileno(), str(server.port)
        ports = ("--simulators-port", port, "--gateway-port", port)
        command = (*PYTHON, "local.proxy", "--socket", str(descriptor), "--certificate", key_file, *ports)
        proxy = subprocess.Popen(command, cwd=ROOT, pass_fds=(descriptor,))
        variables = {
            "HTTPS_PROXY": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "REQUESTS_CA_BUNDLE": bundle,
            "NO_PROXY": "127.0.0.1,localhost",
        }
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
            proxy.kill()
            proxy.wait(10)
