"""A build for the other processor, made on this one, because CI has no arm64 machine and Lambda on arm64 costs a fifth less."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from local.build import Build, machines, of_this_machine
from local.environments import ARCHITECTURE
from local.processes import NotStarted
from local.stack import MINISTACK_PYTHON, ROOT

FOLDER = ROOT / "build" / "other-processor"


def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    if "compileall" in command:
        return  # bytecode is the same for every processor
    done = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.long
def test_build_for_other_processor_has_only_its_modules() -> None:
    parameters = of_this_machine()
    ours = parameters[ARCHITECTURE]
    other = "x86_64" if ours == "arm64" else "arm64"
    build = Build(MINISTACK_PYTHON, {**parameters, ARCHITECTURE: other}, FOLDER / "build", FOLDER / "cache")
    build.run(run)
    found = list(machines(build.folder))
    assert {machine for _, machine in found} == {other}
    packages = {file.relative_to(build.folder).parts[2].partition(".")[0] for file, _ in found}
    assert {"pydantic_core", "cryptography", "orjson", "_cffi_backend", "markupsafe"} <= packages

    # The check that `make deploy` relies on can fail.
    with pytest.raises(NotStarted, match=f"the build is for {ours}, but .* is for {other}"):
        Build(MINISTACK_PYTHON, parameters, build.folder, build.cache).run(lambda _command, _environment: None)
