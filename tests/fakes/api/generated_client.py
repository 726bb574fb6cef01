"""A client that openapi-python-client generates from docs/openapi.yaml."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.paths import ROOT

PACKAGE = "portaria_client"


@contextmanager
def generated(folder: Path) -> Iterator[str]:
    """Generate the package into `folder` and make it importable. Yields the output of the generator."""
    config = folder / "config.yaml"
    config.write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--config", str(config)]
    command += ["--path", str(ROOT / "docs/openapi.yaml"), "--output-path", str(folder / PACKAGE)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    sys.path.insert(0, str(folder))
    try:
        yield done.stdout + done.stderr
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]
