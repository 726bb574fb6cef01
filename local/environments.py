"""The environments of samconfig.toml: `python -m local.environments production` prints the name of its stack."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from local.processes import NotStarted

FILE = Path(__file__).resolve().parent.parent / "samconfig.toml"
RUNTIME, ARCHITECTURE = "PythonRuntime", "Architecture"


@dataclass(frozen=True)
class Environment:
    """`parameters` are the template parameters for `sam build` and `sam deploy`. They always include PythonRuntime."""

    stack_name: str
    parameters: dict[str, str]


def environment(name: str, file: Path = FILE) -> Environment:
    """Read one environment. Raises `NotStarted` if it is unknown or has no stack name or no runtime."""
    settings = tomllib.loads(file.read_text())
    known = [each for each, value in settings.items() if isinstance(value, dict)]
    if name not in known:
        raise NotStarted(f"{file.name} has no environment {name!r}. It has: {', '.join(known)}.")
    section = settings[name].get("global", {}).get("parameters", {})
    parameters = dict(each.split("=", 1) for each in section.get("parameter_overrides", []))
    if "stack_name" not in section:
        raise NotStarted(
            f"{file.name} does not name the stack of {name}: add stack_name to [{name}.global.parameters]."
        )
    if RUNTIME not in parameters:
        raise NotStarted(
            f"{file.name} does not say which Python {name} runs on: add {RUNTIME}=python3.13 to parameter_overrides "
            f"of [{name}.global.parameters]."
        )
    return Environment(section["stack_name"], parameters)


if __name__ == "__main__":
    try:
        print(environment(sys.argv[1]).stack_name)
    except NotStarted as reason:
        sys.exit(f"Error: {reason}")
