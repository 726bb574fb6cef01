"""Bring the local cloud of this checkout up, tell how it is, and take it down.

Everything it writes is under `build/`: `build/stack.json` describes the running stack, `build/local/` holds logs,
certificates and the saved state, `build/sam/` what the SAM CLI built. Its processes are found by their mark (see
`processes`), so a start that was killed half-way leaves nothing that the next `up` or `down` would miss.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import botocore.session
import requests
import trustme
from botocore.config import Config

from local import processes
from local.build import SAM_CLI, Build, of_this_machine
from local.processes import NotStarted
from local.proxy import API_HOST, PLATFORM_HOSTS
from local.saved_state import Ports, SavedState

ROOT = Path(__file__).resolve().parent.parent
STACK_FILE = ROOT / "build" / "stack.json"
LOCAL = ROOT / "build" / "local"
STATE = LOCAL / "state"
SAM = ROOT / "build" / "sam"

MINISTACK = ROOT / ".venv-ministack" / "bin" / "ministack"
MINISTACK_PYTHON = ROOT / ".venv-ministack" / "bin" / "python"

STACK_NAME = "portaria-local"
REGION = "us-east-1"
# MiniStack takes the pair it was started with for the account's root. It opens nothing but this machine's emulator.
ACCESS_KEY_ID = "PORTARIALOCALROOT"
SECRET_ACCESS_KEY = "portaria-local-root"

# The Adobe I/O project whose events the API takes, and waits that a person at a terminal has the patience for.
ADOBE_CLIENT_ID = "portaria-local-adobe"
RETRY_AFTER_MINUTES = "0,0,1,1"

START_TIMEOUT_S = 60.0
# MiniStack and the simulators write their data before they end.
STOP_TIMEOUT_S = 30.0
DEPLOY_TIMEOUT_S = 300.0

# `with step("Deploying"):` shows what is going on and, afterwards, how long it took.
Step = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class Stack:
    """A running local cloud, as build/stack.json describes it.

    `api_url` is the deployed API at MiniStack; `public_url` the same under the name it would have on AWS, reached
    through `proxy_url` and trusted with `ca_bundle`. `queues`, `functions` and `log_groups` are by name
    (`exchanges`, `accept_install`). `sources` are fingerprints of what runs. `keeps_state` says whether an orderly stop
    saves the data for the next start.
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
        """What the last finished `up` wrote, or None. It may have died since: see `dead_parts`."""
        try:
            return cls(**json.loads(file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self) -> None:
        """Replace build/stack.json in one go; only its owner may read it."""
        fresh = STACK_FILE.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=2)
        fresh.replace(STACK_FILE)

    def client(self, service: str) -> Any:
        """A boto3 client for MiniStack as the account's root, whatever AWS settings the person's shell has."""
        nobody = (None, None, None, None)
        session = botocore.session.Session(
            session_vars={"profile": nobody, "config_file": nobody, "credentials_file": nobody}
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
        """For the while, AWS refuses one function some `actions` (`sqs:SendMessage`): its role is denied them, at once."""
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


# ---------------------------------------------------------------------------------------------------------- up and down


def up(step: Step, say: Callable[[str], None], *, port: int = 0, keep: bool = False) -> Stack:
    """Start the local cloud, or bring a running one up to date, and return it.

    `port` demands a port for MiniStack. With `keep` a start has the ports, the API's address and the data of the last
    one, and `down` saves them; without it the stack begins empty, has free ports, and leaves nothing. Raises `NotStarted`
    with a sentence for the person; a start that fails leaves nothing running, a failed update leaves the stack as it was.
    """
    with _alone():
        for tool in (SAM_CLI, MINISTACK):
            if not tool.exists():
                raise NotStarted(f"{tool.relative_to(ROOT)} is missing: run `make setup`.")
        running = _reusable(say, port)
        try:
            with step("Building with the SAM CLI"):
                product = build()
            if running and running.sources["product"] == product:
                say(f"The local cloud is running already: {running.api_url}")
                return running
            stack = running or _start(step, say, port, keep)
            if stack.sources.get("product") != product:
                with step("Deploying to MiniStack"):
                    stack = deploy(replace(stack, sources={**stack.sources, "product": product}))
            stack.write()
            return stack
        except BaseException:
            if not running:
                _stop(save=False)
            raise


def down(say: Callable[[str], None] = lambda _text: None) -> int:
    """Stop this checkout's local cloud and nothing else. Return how many processes that were."""
    with _alone():
        return _stop(save=True, say=say)


def forget() -> None:
    """Stop the local cloud and remove all that it kept: data, ports, certificates."""
    with _alone():
        _stop(save=False)
        shutil.rmtree(STATE, ignore_errors=True)


def _stop(*, save: bool, say: Callable[[str], None] = lambda _text: None) -> int:
    """Stop all processes. With `save`, a stack that keeps its state is stopped in an orderly way first, and its data kept."""
    stack = Stack.read()
    STACK_FILE.unlink(missing_ok=True)
    stopped = 0
    if save and stack and stack.keeps_state and not stack.dead_parts():
        # MiniStack first: until it has saved what the functions did, the platforms must answer them.
        parts = [stack.pids[name] for name in ("ministack", "simulators")]
        if all([processes.end(pid, STOP_TIMEOUT_S) for pid in parts]):
            saved_state().close(asdict(stack))
        else:
            say(
                f"A part did not stop within {STOP_TIMEOUT_S:.0f} s: the next start has the data of the last orderly stop."
            )
        stopped = len(parts)
    stopped += processes.stop(ROOT)
    _remove_in_background(LOCAL / "tmp")
    return stopped


def _remove_in_background(folder: Path) -> None:
    """Remove what MiniStack unpacked: tens of thousands of files, which takes minutes on a slow disk."""
    if folder.exists():
        folder.rename(folder.with_name(f"removed-{time.time_ns()}"))
    # Also what an earlier removal has left, which the end of the machine interrupted.
    if left := [str(each) for each in folder.parent.glob("removed-*")]:
        subprocess.run(["sh", "-c", 'rm -rf "$@" >/dev/null 2>&1 &', "sh", *left], check=False)


def saved_state() -> SavedState:
    """What this checkout's local cloud keeps. MiniStack and the simulators read only what their own version has written."""
    versions = sorted(folder.name for folder in (ROOT / ".venv-ministack").glob("lib/*/site-packages/ministack-*"))
    return SavedState(STATE, _fingerprint([ROOT / "local" / "simulators"], *versions))


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One `up` or `down` at a time in this checkout. The lock dies with its process, so a killed one leaves none."""
    LOCAL.mkdir(parents=True, exist_ok=True)
    with (LOCAL / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise NotStarted(f"Process {file.read()} is starting or stopping the local cloud: wait for it.") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _reusable(say: Callable[[str], None], port: int) -> Stack | None:
    """The running stack if it can serve. Otherwise say why not, stop what is left of it and return None."""
    stack = Stack.read()
    if stack is None:
        if processes.ours(ROOT):
            say("Cleaning up after a start that did not finish.")
    elif dead := stack.dead_parts():
        say(f"{' and '.join(dead)} died since the last start (see build/local/): starting anew.")
    elif stack.sources["local"] != local_sources():
        say("The local cloud's own code has changed: starting anew.")
    elif port and not stack.aws_endpoint_url.endswith(f":{port}"):
        say(f"MiniStack runs at {stack.aws_endpoint_url}, not on port {port}: starting anew.")
    else:
        return stack
    _stop(save=True, say=say)
    return None


# ------------------------------------------------------------------------------------------------------------ the parts


def _start(step: Step, say: Callable[[str], None], port: int, keep: bool) -> Stack:
    """Start MiniStack, the simulators and the proxy. The latter two inherit their sockets, so that their ports stay theirs.

    Returns the stack that was saved, running again, or one that nothing is deployed to yet.
    """
    (LOCAL / "tmp").mkdir(parents=True, exist_ok=True)
    for part in ("ministack", "simulators", "proxy"):
        (LOCAL / f"{part}.log").unlink(missing_ok=True)
    environment = clean_environment()
    state = saved_state() if keep else None
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
        with step("Starting MiniStack" + (" with the data of the last time" if before else "")):
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
        keeps_state=keep,
    )
    if before is None:
        return started
    deployed = Stack(**before)
    return replace(deployed, pids=pids, sources={**deployed.sources, **started.sources})


def _start_ministack(demanded_port: int, proxy_url: str, state: SavedState | None) -> tuple[int, int]:
    """Start MiniStack and return its port and process number. A free port that someone takes first is tried again."""
    keeps = {}
    if state:
        keeps = {"PERSIST_STATE": "1", "STATE_DIR": str(state.live)}
        keeps |= {"S3_PERSIST": "1", "S3_DATA_DIR": str(state.live / "s3")}
    for attempt in range(3):
        port = processes.free_port(demanded_port)
        process = processes.start(
            [MINISTACK_PYTHON, "-P", ROOT / "local" / "start_ministack.py"],
            root=ROOT,
            log=LOCAL / "ministack.log",
            environment={
                **clean_environment(),
                "AUTH": "true",
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(port),
                "MINISTACK_HOST": "127.0.0.1",
                "MINISTACK_REGION": REGION,
                "IOT_MTLS_ENABLED": "0",
                "SFTP_ENABLED": "0",
                "LAMBDA_EXECUTOR": "local",
                # It looks for containers of its own kind to remove: not on the person's Docker.
                "DOCKER_HOST": f"unix://{LOCAL}/tmp/no-docker.sock",
                "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
                "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
                # Functions inherit these three: that is how they reach the simulators.
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
    """Wait until `url` answers. Raises `NotStarted` with the end of the log if the process dies or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < deadline:
            alive = pid in processes.ours(ROOT)
            with contextlib.suppress(requests.RequestException):
                if session.get(url, timeout=2).ok and alive:
                    return
            time.sleep(0.1)
            # Looked at twice: for a moment after its start, a process shows no environment yet, and so not the mark.
            if not alive and pid not in processes.ours(ROOT):
                raise NotStarted(f"{name} died while starting:\n{processes.last_lines(LOCAL / f'{name}.log')}")
    raise NotStarted(
        f"{name} did not answer within {START_TIMEOUT_S:.0f} s:\n{processes.last_lines(LOCAL / f'{name}.log')}"
    )


def _write_certificates(*, renew: bool) -> Path:
    """Make a certificate authority whose key is thrown away, and one server certificate for all the proxy serves.

    Unless they are to be renewed, those of the last start are used: a browser may trust them by now.
    """
    certificate = LOCAL / "proxy.pem"
    if not renew and certificate.exists() and (LOCAL / "ca.pem").exists():
        return certificate
    authority = trustme.CA(organization_name="Portaria's local cloud")
    authority.cert_pem.write_to_path(str(LOCAL / "ca.pem"))
    certificate.unlink(missing_ok=True)
    os.close(os.open(certificate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    authority.issue_cert(*PLATFORM_HOSTS, API_HOST).private_key_and_cert_chain_pem.write_to_path(str(certificate))
    return certificate


def clean_environment() -> dict[str, str]:
    """The environment of all that runs here: nothing of the person's AWS profiles, proxies or Python settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
    return {
        **kept,
        "HOME": str(LOCAL / "tmp"),
        "TMPDIR": str(LOCAL / "tmp"),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


# ----------------------------------------------------------------------------------------------------- build and deploy


def build() -> str:
    """Run `sam build` if the sources changed, compile what it made, and return the sources' fingerprint."""
    parameters = of_this_machine()
    sources = _fingerprint([ROOT / "template.yaml", ROOT / "functions", ROOT / "layers"], *parameters.values())
    built = SAM / "built"
    if built.exists() and built.read_text() == sources:
        return sources
    built.unlink(missing_ok=True)

    def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        _run(command, "build" if command[0] == SAM_CLI else "compile", environment)

    Build(MINISTACK_PYTHON, parameters, SAM / "build", SAM / "cache").run(run)
    built.write_text(sources)
    return sources


def deploy(stack: Stack) -> Stack:
    """Deploy what was built and return the stack with the names of everything in it."""
    _run(
        [
            SAM_CLI,
            "deploy",
            "--config-file",
            ROOT / "local" / "samconfig.toml",
            "--template-file",
            SAM / "build" / "template.yaml",
            "--stack-name",
            STACK_NAME,
            "--region",
            REGION,
            "--resolve-s3",
            "--no-progressbar",
            "--capabilities",
            "CAPABILITY_IAM",
            "--no-confirm-changeset",
            "--no-fail-on-empty-changeset",
            "--parameter-overrides",
            *(f"{name}={value}" for name, value in of_this_machine().items()),
            f"AdobeClientId={ADOBE_CLIENT_ID}",
            f"RetryAfterMinutes={RETRY_AFTER_MINUTES}",
            # Each batch starts a process on this machine.
            "UnprovenInstallBatches=5",
            # MiniStack refuses alarms on metric math. It evaluates no alarm anyway.
            "CombinedAlarms=no",
        ],
        "deploy",
        {
            **clean_environment(),
            "SAM_CLI_TELEMETRY": "0",
            "AWS_ENDPOINT_URL": stack.aws_endpoint_url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "AWS_DEFAULT_REGION": REGION,
        },
        stack,
    )
    cloudformation = stack.client("cloudformation")
    described = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    resources = cloudformation.describe_stack_resources(StackName=STACK_NAME)["StackResources"]

    def named(kind: str, suffix: str) -> dict[str, str]:
        return {
            _snake_case(resource["LogicalResourceId"].removesuffix(suffix)): resource["PhysicalResourceId"]
            for resource in resources
            if resource["ResourceType"] == kind
        }

    api_id = outputs["ApiId"]
    _name_api(stack, api_id)
    return replace(
        stack,
        api_url=f"{stack.aws_endpoint_url}/restapis/{api_id}/live/_user_request_",
        public_url=f"https://{_public_host(api_id)}/live",
        table=outputs["TableName"],
        bus=outputs["BusName"],
        queues=named("AWS::SQS::Queue", "Queue"),
        functions=named("AWS::Lambda::Function", "Function"),
        log_groups=named("AWS::Logs::LogGroup", "Logs"),
    )


def _name_api(stack: Stack, api_id: str) -> None:
    """Let MiniStack answer for the API under the host it would have on AWS, which it takes for a custom domain."""
    gateway = stack.client("apigateway")
    known = {domain["domainName"] for domain in gateway.get_domain_names().get("items", [])}
    if _public_host(api_id) not in known:
        gateway.create_domain_name(domainName=_public_host(api_id))
        gateway.create_base_path_mapping(domainName=_public_host(api_id), restApiId=api_id)


def _public_host(api_id: str) -> str:
    return API_HOST.replace("*", api_id)


def _run(command: Sequence[str | Path], name: str, environment: Mapping[str, str], stack: Stack | None = None) -> None:
    """Run a tool with its output in build/local/{name}.log, and stop it if a part of `stack` dies meanwhile."""
    log = LOCAL / f"{name}.log"
    log.unlink(missing_ok=True)
    process = processes.start(command, root=ROOT, log=log, environment=environment)
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    try:
        while (status := process.poll()) is None:
            if stack and (dead := stack.dead_parts()):
                ends = (f"{part}.log:\n{processes.last_lines(LOCAL / f'{part}.log')}" for part in dead)
                raise NotStarted(f"{' and '.join(dead)} died during the deployment.\n" + "\n".join(ends))
            if time.monotonic() > deadline:
                raise NotStarted(f"{name} took longer than {DEPLOY_TIMEOUT_S:.0f} s:\n{processes.last_lines(log)}")
            time.sleep(0.1)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if status:
        raise NotStarted(f"{name} failed (see build/local/{name}.log):\n{processes.last_lines(log, 25)}")


def local_sources() -> str:
    """The fingerprint of what the running processes were made of; commands and the demo are not part of it."""
    return _fingerprint(
        ROOT / "local" / name for name in ("stack.py", "saved_state.py", "start_ministack.py", "proxy.py", "simulators")
    )


def _fingerprint(sources: Iterable[Path], *more: str) -> str:
    """A digest of files' names and contents, leaving out what Python and editors write beside them."""
    digest = hashlib.sha256("\n".join(more).encode())
    for source in sources:
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            name = file.relative_to(ROOT)
            if file.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
                digest.update(f"\n{name}\n".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
