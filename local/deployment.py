"""Build the template with the SAM CLI and deploy it to MiniStack."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from local import processes
from local.build import SAM_CLI, Build, of_this_machine
from local.fingerprint import fingerprint
from local.processes import NotStarted, clean_environment
from local.proxy import API_HOST
from local.stack import (
    ACCESS_KEY_ID,
    ADOBE_CLIENT_ID,
    LOCAL,
    MINISTACK_PYTHON,
    REGION,
    ROOT,
    SAM,
    SECRET_ACCESS_KEY,
    STACK_NAME,
    Stack,
)

DEPLOY_TIMEOUT_S = 300.0
# Shorter waits than on AWS, so that a user at a terminal sees the retries.
RETRY_AFTER_MINUTES = "0,0,1,1"


def build() -> str:
    """Run `sam build` if the sources changed, compile its output, and return the sources' fingerprint."""
    parameters = of_this_machine()
    built_from = [ROOT / "template.yaml", ROOT / "functions", ROOT / "layers", ROOT / "local" / "build.py"]
    sources = fingerprint(built_from, *parameters.values())
    built = SAM / "built"
    if built.exists() and built.read_text() == sources:
        return sources
    built.unlink(missing_ok=True)

    def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        _run(command, "build" if command[0] == SAM_CLI else "compile", environment)

    Build(MINISTACK_PYTHON, parameters, SAM / "build", SAM / "cache").run(run)
    built.write_text(sources)
    return sources


def deploy(stack: Stack, store: str) -> Stack:
    """Deploy the build and return the stack with the names of its resources."""
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
            f"CredentialStore={store}",
            f"RetryAfterMinutes={RETRY_AFTER_MINUTES}",
            # Each batch starts a process on this machine.
            "UnprovenInstallBatches=5",
            # MiniStack refuses alarms on metric math. It evaluates no alarm anyway.
            "CombinedAlarms=no",
        ],
        "deploy",
        {
            **clean_environment(LOCAL / "tmp"),
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
    """Make MiniStack serve the API under its host on AWS, which MiniStack treats as a custom domain."""
    gateway = stack.client("apigateway")
    known = {domain["domainName"] for domain in gateway.get_domain_names().get("items", [])}
    if _public_host(api_id) not in known:
        gateway.create_domain_name(domainName=_public_host(api_id))
        gateway.create_base_path_mapping(domainName=_public_host(api_id), restApiId=api_id)


def _public_host(api_id: str) -> str:
    return API_HOST.replace("*", api_id)


def _run(command: Sequence[str | Path], name: str, environment: Mapping[str, str], stack: Stack | None = None) -> None:
    """Run a tool with its output in build/local/{name}.log. Stop it if a process of `stack` ends meanwhile."""
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


def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
