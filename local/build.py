"""Build the template with the SAM CLI: for the Python that runs this, or for an environment of samconfig.toml.

    python -m local.build
    python -m local.build --environment production

SAM builds with the interpreter of the functions' runtime, whose pip downloads wheels for Lambda's processor. SAM downloads
some of them by name alone, which bypasses the layers' lock files. Therefore the lock files are also pip constraints, and the
interpreter gets a virtual environment with a pinned pip that checks the hashes of constraints. Then come two steps that SAM
does not have: the descriptions of AWS services that no function calls are removed, and the build is compiled to bytecode.
Each binary module is checked to be for the functions' processor.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from local import environments
from local.environments import ARCHITECTURE, RUNTIME
from local.processes import NotStarted

ROOT = Path(__file__).resolve().parent.parent
SAM_CLI = ROOT / ".venv-sam" / "bin" / "sam"
PINNED_PIP = ROOT / "requirements" / "build.txt"
PIP_INSTALL = (
    "-m",
    "pip",
    "install",
    "--quiet",
    "--disable-pip-version-check",
    "--require-hashes",
    "--only-binary",
    ":all:",
)

# The AWS services that the functions call with boto3.
SERVICES = ("cloudformation", "cloudwatch", "dynamodb", "events", "kms", "lambda", "secretsmanager", "sqs")
DEFAULT_ARCHITECTURE = "x86_64"
# The machine in an ELF file's header, at offset 18. https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
ELF_MACHINES = {62: "x86_64", 183: "arm64"}

Arguments = Sequence[str | Path]
Run = Callable[[Arguments, Mapping[str, str]], object]


@dataclass(frozen=True)
class Build:
    """One `sam build` into `folder`, with `parameters` of the template, by the interpreter at `python`."""

    python: Path
    parameters: Mapping[str, str]
    folder: Path = ROOT / ".aws-sam" / "build"
    cache: Path = ROOT / ".aws-sam" / "cache"

    def run(self, run: Run) -> None:
        """Build, compile and check. Raises the errors of `run`, and `NotStarted` for a module of another processor."""
        # pip needs the user's proxy and index settings. The user's AWS and Python settings must not affect the build.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
        environment |= {
            "PATH": f"{self.python.parent}{os.pathsep}{environment['PATH']}",
            "SAM_CLI_TELEMETRY": "0",
            "PIP_REQUIRE_HASHES": "1",
            "PIP_CONSTRAINT": " ".join(str(lock.relative_to(ROOT)) for lock in ROOT.glob("layers/*/requirements.txt")),
        }
        settings: Arguments = ["--config-file", ROOT / "local" / "samconfig.toml", "--template", ROOT / "template.yaml"]
        places: Arguments = ["--build-dir", self.folder, "--cache-dir", self.cache, "--cached", "--parallel"]
        overrides = [f"{name}={value}" for name, value in self.parameters.items()]
        run([SAM_CLI, "build", *settings, *places, "--parameter-overrides", *overrides], environment)
        remove_unused_services(self.folder)
        # Unchecked: a function's files never change after deployment.
        run([self.python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", self.folder], environment)
        wanted = self.parameters.get(ARCHITECTURE, DEFAULT_ARCHITECTURE)
        if wrong := [f"{file.name} is for {machine}" for file, machine in machines(self.folder) if machine != wanted]:
            raise NotStarted(f"the build is for {wanted}, but {', '.join(wrong)}. Remove {self.cache} and build again.")


def remove_unused_services(folder: Path) -> None:
    """Remove botocore's descriptions of the AWS services that no function calls: 27 of the layer's 78 MB."""
    for data in folder.glob("*/python/botocore/data"):
        for service in data.iterdir():
            if service.is_dir() and service.name not in SERVICES:
                shutil.rmtree(service)


def machines(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every binary module below a folder, with its processor."""
    for file in sorted(folder.rglob("*.so*")):
        header = file.read_bytes()[:20]
        known = header[:4] == b"\x7fELF" and ELF_MACHINES.get(int.from_bytes(header[18:20], "little"))
        yield file, known or "an unknown processor"


def of_this_machine() -> dict[str, str]:
    """The parameters of a build for this machine and the running interpreter."""
    architecture = "arm64" if platform.machine().lower() in ("arm64", "aarch64") else DEFAULT_ARCHITECTURE
    return {RUNTIME: f"python{sys.version_info[0]}.{sys.version_info[1]}", ARCHITECTURE: architecture}


def interpreter(runtime: str, stated: str | None = None) -> str:
    """The interpreter of a runtime (`python3.13`): `stated` or, without it, the running one or one on the PATH.

    Raises `NotStarted` with instructions to install it.
    """
    for candidate in [stated] if stated else [sys.executable, runtime]:
        try:
            command = [candidate, "-c", "import sys, venv, ensurepip; print('python%d.%d' % sys.version_info[:2])"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        if done.stdout.strip() == runtime:
            return candidate
    version = runtime.removeprefix("python")
    missing = f"but {stated} is not {runtime} with venv" if stated else "which is not on the PATH"
    raise NotStarted(
        f"The functions run on {runtime}, and SAM builds with an interpreter of that version, {missing}.\n"
        f"Install it and put {runtime} on the PATH, for example with one of\n"
        f"  uv python install {version}\n"
        f"  pyenv install {version} && pyenv global {version} $(pyenv global)\n"
        f"  apt-get install {runtime} {runtime}-venv\n"
        f"  brew install python@{version}\n"
        f"or name it: make deploy BUILD_PYTHON=/path/to/{runtime}"
    )


def prepare(runtime: str, run: Run, folder: Path = ROOT, stated: str | None = None) -> Path:
    """The interpreter of the virtual environment for builds of a runtime. It is created again when the pinned pip changes."""
    environment = folder / f".venv-build-{runtime}"
    ready, pin = environment / ".ready", PINNED_PIP.read_text()
    python = environment / "bin" / "python"
    if not ready.exists() or ready.read_text() != pin:
        base = interpreter(runtime, stated)
        shutil.rmtree(environment, ignore_errors=True)
        run([base, "-m", "venv", environment], os.environ)
        run([python, *PIP_INSTALL, "--no-deps", "--requirement", PINNED_PIP], os.environ)
        ready.write_text(pin)
    return python


def _run(command: Arguments, environment: Mapping[str, str]) -> None:
    if status := subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode:
        raise NotStarted(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} ended with status {status}.")


@click.command(help=__doc__)
@click.option(
    "--environment", help="An environment of samconfig.toml. Without it, build for this machine and its Python."
)
@click.option(
    "--python", envvar="BUILD_PYTHON", help="The interpreter of the functions' runtime, if it is not on the PATH."
)
def main(environment: str | None, python: str | None) -> None:
    try:
        parameters = environments.environment(environment).parameters if environment else of_this_machine()
        Build(prepare(parameters[RUNTIME], _run, stated=python), parameters).run(_run)
    except NotStarted as reason:
        click.echo(f"Error: {reason}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
