"""The data that the local cloud keeps from a stop to the next start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local import processes
from local.processes import NotStarted
from local.saved_state import SavedState

STACK: dict[str, Any] = {"api_url": "http://127.0.0.1:1"}


def silent(_sentence: str) -> None:
    pass


def stopped(folder: Path, content: str = "first") -> SavedState:
    """A state after one start and one orderly stop."""
    state = SavedState(folder, "1")
    state.open(silent)
    (state.live / "data").write_text(content)
    state.close(STACK)
    return state


def test_saved_state_open_after_orderly_stop_returns_stack_and_data(tmp_path: Path) -> None:
    stopped(tmp_path)
    state = SavedState(tmp_path, "1")
    assert state.open(silent) == STACK
    assert (state.live / "data").read_text() == "first"


def test_saved_state_open_after_crash_has_data_of_last_orderly_stop(tmp_path: Path) -> None:
    state = stopped(tmp_path)
    state.open(silent)
    (state.live / "data").write_text("half written")
    assert SavedState(tmp_path, "1").open(silent) == STACK
    assert (state.live / "data").read_text() == "first"


def test_saved_state_open_after_kill_during_close_has_newest_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = stopped(tmp_path)
    state.open(silent)
    (state.live / "data").write_text("second")
    monkeypatch.setattr(SavedState, "_finish", lambda _: None)
    state.close(STACK)
    monkeypatch.undo()
    assert SavedState(tmp_path, "1").open(silent) == STACK
    assert (state.live / "data").read_text() == "second"


def test_saved_state_open_of_another_version_removes_data_and_reports_it(tmp_path: Path) -> None:
    stopped(tmp_path)
    said: list[str] = []
    assert SavedState(tmp_path, "2").open(said.append) is None
    assert "have changed" in said[0]
    assert SavedState(tmp_path, "1").open(silent) is None


def test_saved_state_folder_is_private(tmp_path: Path) -> None:
    stopped(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.enable_socket
def test_saved_state_ports_are_kept(tmp_path: Path) -> None:
    ports = SavedState(tmp_path, "1").ports()
    assert SavedState(tmp_path, "1").ports() == ports
    assert len({ports.ministack, ports.proxy, ports.simulators, ports.control}) == 4


@pytest.mark.enable_socket
def test_saved_state_ports_in_use_are_replaced_or_refused_with_saved_data(tmp_path: Path) -> None:
    state = SavedState(tmp_path, "1")
    ports = state.ports()
    with processes.listening_socket(ports.proxy):
        assert state.ports().proxy != ports.proxy
    needed = stopped(tmp_path).ports()
    with processes.listening_socket(needed.proxy), pytest.raises(NotStarted, match="clean-sandbox"):
        state.ports()


@pytest.mark.enable_socket
def test_saved_state_ports_requested_port_is_refused_with_saved_data(tmp_path: Path) -> None:
    state = SavedState(tmp_path, "1")
    first = state.ports().ministack
    assert state.ports(processes.free_port()).ministack != first
    stopped(tmp_path)
    with pytest.raises(NotStarted, match=r"leave out the port, or run `make clean-sandbox`"):
        state.ports(processes.free_port())


def test_saved_state_unreadable_ports_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text(json.dumps({"ministack": 1}))
    assert SavedState(tmp_path, "1")._known_ports() is None
