"""`local.processes`: a process is found from its start on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from local import processes


def test_start_returns_when_the_mark_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a system that shows a new process's environment late, as Linux does for a moment."""
    read = psutil.Process.environ
    empty: list[dict[str, str]] = [{}, {}]

    def late(process: psutil.Process) -> dict[str, str]:
        return empty.pop() if empty and process.pid != os.getpid() else read(process)

    monkeypatch.setattr(psutil.Process, "environ", late)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = processes.start(command, root=tmp_path, log=tmp_path / "log", environment={})
    try:
        assert empty == []
        assert process.pid in processes.ours(tmp_path)
    finally:
        processes.stop(tmp_path)


def test_start_of_a_process_that_ends_at_once_returns(tmp_path: Path) -> None:
    process = processes.start([sys.executable, "-c", ""], root=tmp_path, log=tmp_path / "log", environment={})
    assert process.wait(timeout=30) == 0
    processes.stop(tmp_path)
    assert processes.ours(tmp_path) == {}
