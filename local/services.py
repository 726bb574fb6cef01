"""The processes of the local cloud: MiniStack, the simulators and the proxy."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import requests

from local import processes
from local.fingerprint import local_sources
from local.processes import NotStarted, clean_environment
from local.proxy import API_HOST, APPLICATION_HOST, PLATFORM_HOSTS
from local.saved_state import Ports, SavedState
from local.stack import ACCESS_KEY_ID, LOCAL, MINISTACK_PYTHON, REGION, ROOT, SECRET_ACCESS_KEY, Stack, Step

START_TIMEOUT_S = 60.0


def start_services(step: Step, say: Callable[[str], None], port: int, state: SavedState | None) -> Stack:
    """Start MiniStack, the simulators and the proxy. Returns the saved stack, if there is one, or one without a deployment.

    The simulators and the proxy inherit listening sockets, so that no other process can take their ports in between.
    """
    (LOCAL / "tmp").mkdir(parents=True, exist_ok=True)
    for part in ("ministack", "simulators", "proxy"):
        (LOCAL / f"{part}.log").unlink(missing_ok=True)
    environment = clean_environment(LOCAL / "tmp")
    before = state.open(say) if state else None
    ports = state.ports(port) if state else Ports(port, 0, 0, 0)
    certificate = _write_certificates(renew=before is None)
    with (
        processes.listening_socket(ports.simulators) as simulators,
        processes.listening_socket(ports.control) as control,
        processes.listening_socket(ports.proxy) as proxy,
    ):
        proxy_url, control_url = (f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in (proxy, control))
        pids = {}
        with step("Starting MiniStack" + (" with the saved data" if before else "")):
            gateway_port, pids["ministack"] = _start_ministack(ports.ministack, proxy_url, state)
        with step("Starting the simulators and the proxy"):
            pids["simulators"] = processes.start(
                [
                    sys.executable,
                    "-m",
                    "local.simulators",
                    "--socket",
                    str(simulators.fileno()),
                    "--control-socket",
                    str(control.fileno()),
                    "--proxy-url",
                    proxy_url,
                    *(("--state", str(state.live / "simulators.pickle")) if state else ()),
                ],
                root=ROOT,
                log=LOCAL / "simulators.log",
                environment=environment,
                sockets=[simulators.fileno(), control.fileno()],
            ).pid
            pids["proxy"] = processes.start(
                [
                    sys.executable,
                    "-m",
                    "local.proxy",
                    "--socket",
                    str(proxy.fileno()),
                    "--certificate",
                    str(certificate),
                    "--simulators-port",
                    str(simulators.getsockname()[1]),
                    "--gateway-port",
                    str(gateway_port),
                ],
                root=ROOT,
                log=LOCAL / "proxy.log",
                environment=environment,
                sockets=[proxy.fileno()],
            ).pid
            _wait_for("simulators", pids["simulators"], f"{control_url}/clock")
            _wait_for("proxy", pids["proxy"], f"{proxy_url}/hosts")
    started = Stack(
        aws_endpoint_url=f"http://127.0.0.1:{gateway_port}",
        proxy_url=proxy_url,
        ca_bundle=str(LOCAL / "ca.pem"),
        control_url=control_url,
        pids=pids,
        sources={"local": local_sources()},
        keeps_state=state is not None,
    )
    if before is None:
        return started
    deployed = Stack(**before)
    return replace(deployed, pids=pids, sources={**deployed.sources, **started.sources})


def _start_ministack(demanded_port: int, proxy_url: str, state: SavedState | None) -> tuple[int, int]:
    """Start MiniStack and return its port and process id. If another process takes a free port first, try another port."""
    keeps = {}
    if state:
        keeps = {"PERSIST_STATE": "1", "STATE_DIR": str(state.live)}
        keeps |= {"S3_PERSIST": "1", "S3_DATA_DIR": str(state.live / "s3")}
    for attempt in range(3):
        port = processes.free_port(demanded_port)
        process = processes.start(
            [MINISTACK_PYTHON, "-P", ROOT / "local" / "ministack" / "start.py"],
            root=ROOT,
            log=LOCAL / "ministack.log",
            environment={
                **clean_environment(LOCAL / "tmp"),
                "AUTH": "true",
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(port),
                "MINISTACK_HOST": "127.0.0.1",
                "MINISTACK_REGION": REGION,
                "IOT_MTLS_ENABLED": "0",
                "SFTP_ENABLED": "0",
                "LAMBDA_EXECUTOR": "local",
                # MiniStack removes containers that it recognizes as its own: it must not reach the user's Docker.
                "DOCKER_HOST": f"unix://{LOCAL}/tmp/no-docker.sock",
                "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
                "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
                # Functions inherit these three variables, and reach the simulators through them.
                "HTTPS_PROXY": proxy_url,
                "NO_PROXY": "127.0.0.1,localhost",
                "REQUESTS_CA_BUNDLE": str(LOCAL / "ca.pem"),
                "PORTARIA_API_ID": hashlib.sha256(str(ROOT).encode()).hexdigest()[:8],
                **keeps,
            },
        )
        try:
            _wait_for("ministack", process.pid, f"http://127.0.0.1:{port}/_ministack/health")
            return port, process.pid
        except NotStarted as failed:
            if demanded_port or attempt == 2 or "already in use" not in str(failed):
                raise
    raise AssertionError("unreachable")


def _wait_for(name: str, pid: int, url: str) -> None:
    """Wait until `url` answers. Raises `NotStarted` with the end of the log if the process ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < deadline:
            alive = pid in processes.ours(ROOT)
            with contextlib.suppress(requests.RequestException):
                if session.get(url, timeout=2).ok and alive:
                    return
            time.sleep(0.1)
            if not alive:
                raise NotStarted(f"{name} died while starting:\n{processes.last_lines(LOCAL / f'{name}.log')}")
    raise NotStarted(
        f"{name} did not answer within {START_TIMEOUT_S:.0f} s:\n{processes.last_lines(LOCAL / f'{name}.log')}"
    )


def _write_certificates(*, renew: bool) -> Path:
    """Create a certificate authority and one server certificate for all hosts of the proxy. The authority's key is not kept.

    Without `renew`, the certificates of the last start are used again if they are for the same hosts, because a browser may
    trust them.
    """
    hosts = (*PLATFORM_HOSTS, API_HOST, APPLICATION_HOST)
    certificate = LOCAL / "proxy.pem"
    if not renew and (LOCAL / "ca.pem").exists() and _hosts_of(certificate) == set(hosts):
        return certificate
    # A start of a running local cloud, and its stop, make none. Both libraries take long to import.
    import trustme

    authority = trustme.CA(organization_name="Portaria's local cloud")
    authority.cert_pem.write_to_path(str(LOCAL / "ca.pem"))
    certificate.unlink(missing_ok=True)
    os.close(os.open(certificate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    authority.issue_cert(*hosts).private_key_and_cert_chain_pem.write_to_path(str(certificate))
    return certificate


def _hosts_of(certificate: Path) -> set[str]:
    """The hosts that a certificate is for; empty if there is none."""
    if not certificate.exists():
        return set()
    from cryptography import x509

    names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return set(names.value.get_values_for_type(x509.DNSName))
