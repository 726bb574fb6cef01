"""Invoke one function of the local cloud as on Lambda: `make invoke FUNCTION=... EVENT=...`.

The function's settings are those of the deployed version with the alias `live`. Its code and layers are the output of
`sam build`. It calls the local cloud with credentials of its own role.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from local.functions.execution_environment import ExecutionEnvironment, Function, Report
from local.stack import ROOT, SAM, Stack

EVENTS = ROOT / "events"
ALIAS = "live"


def functions(stack: Stack) -> dict[str, Function]:
    """Every function of the running stack, by its logical id (`AcceptInstallFunction`)."""
    client = stack.client("lambda")
    layers = _layers(stack)
    return {
        logical_id: _function(logical_id, client.get_function_configuration(FunctionName=name, Qualifier=ALIAS), layers)
        for logical_id, name in sorted((_logical_id(name), physical) for name, physical in stack.functions.items())
    }


def _logical_id(name: str) -> str:
    return f"{name.title().replace('_', '')}Function"


def _layers(stack: Stack) -> dict[str, Path]:
    """The build folder of each deployed layer version, by its ARN.

    The folder's name is the layer's logical id in template.yaml. SAM appends ten digits of a digest to the deployed logical id.
    """
    resources = stack.client("cloudformation").describe_stack_resources(StackName=stack.stack_name)["StackResources"]
    return {
        resource["PhysicalResourceId"]: SAM / "build" / resource["LogicalResourceId"][:-10]
        for resource in resources
        if resource["ResourceType"] == "AWS::Lambda::LayerVersion"
    }


def _function(logical_id: str, version: dict[str, Any], layers: dict[str, Path]) -> Function:
    logging = version["LoggingConfig"]
    unqualified = version["FunctionArn"].rpartition(":")[0]
    return Function(
        name=version["FunctionName"],
        # Callers and queues invoke the alias, so the function's context has the alias.
        arn=f"{unqualified}:{ALIAS}",
        version=version["Version"],
        role=version["Role"],
        runtime=version["Runtime"],
        handler=version["Handler"],
        code=SAM / "build" / logical_id,
        layers=tuple(layers[layer["Arn"]] for layer in version.get("Layers", [])),
        timeout_s=version["Timeout"],
        memory_mb=version["MemorySize"],
        log_group=logging["LogGroup"],
        log_format=logging["LogFormat"],
        log_level=logging.get("ApplicationLogLevel", ""),
        environment=version["Environment"]["Variables"],
    )


def aws_environment(stack: Stack, function: Function) -> dict[str, str]:
    """The addresses of the local cloud and the proxy, and temporary credentials of the function's role."""
    assumed = stack.client("sts").assume_role(RoleArn=function.role, RoleSessionName=function.name[:64])["Credentials"]
    return {
        "AWS_REGION": stack.region,
        "AWS_DEFAULT_REGION": stack.region,
        "AWS_ACCESS_KEY_ID": assumed["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": assumed["SecretAccessKey"],
        "AWS_SESSION_TOKEN": assumed["SessionToken"],
        # MiniStack's functions have the same variables.
        "AWS_ENDPOINT_URL": stack.aws_endpoint_url,
        "HTTPS_PROXY": stack.proxy_url,
        "NO_PROXY": "127.0.0.1,localhost",
        "REQUESTS_CA_BUNDLE": stack.ca_bundle,
    }


def events_of(logical_id: str) -> list[Path]:
    """The sample events of a function."""
    return sorted((EVENTS / folder_of(logical_id)).glob("*.json"))


def folder_of(logical_id: str) -> str:
    """The name of a function's folder below functions/ and events/: `AcceptInstallFunction` is `accept_install`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", logical_id.removesuffix("Function")).lower()


def choose(stack: Stack, logical_id: str) -> Function:
    """The function with a logical id. Raises `click.BadParameter` with a list of the functions."""
    known = functions(stack)
    if logical_id in known:
        return known[logical_id]
    close = difflib.get_close_matches(logical_id, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise click.BadParameter(f"unknown function {logical_id!r}.{hint} Functions: {', '.join(known)}.")


def read_event(logical_id: str, name: str) -> bytes:
    """The event in a file, or on standard input for `-`. Raises `click.BadParameter` if it is not JSON."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
        json.loads(text)
    except OSError as problem:
        there = "\n".join(f"  {file.relative_to(ROOT)}" for file in events_of(logical_id)) or "  none"
        raise click.BadParameter(f"{name}: {problem.strerror}. Sample events of {logical_id}:\n{there}") from None
    except ValueError as problem:
        raise click.BadParameter(f"{name} is not JSON: {problem}") from None
    return text.encode()


def invoke(stack: Stack, logical_id: str, event_name: str) -> Report:
    """Run one cold invocation. Print the log and Lambda's lines to standard error, and the answer to standard output."""
    function = choose(stack, logical_id)
    event = read_event(logical_id, event_name)
    with ExecutionEnvironment(function, aws_environment(stack, function)) as environment:
        report = environment.invoke(event)
    click.echo(f"START RequestId: {report.request_id} Version: {function.version}", err=True)
    click.echo(report.log, err=True, nl=not report.log.endswith("\n"))
    click.echo(f"END RequestId: {report.request_id}\n{report}", err=True)
    click.echo(json.dumps(report.answer, indent=2, ensure_ascii=False))
    return report
