"""The local cloud's processes. Each carries a mark in its environment, and only what carries it is ever stopped.

The mark is the checkout's path, and children inherit it: so a function's process that outlived MiniStack is found too,
while a process that merely got a number which one of ours had before, or the local cloud of another checkout, is not.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

MARK = "PORTARIA_LOCAL_CLOUD"

# They outlive the command that starts them, so it does not wait for them; kept, so that Python does not complain of that.
_children: list[subprocess.Popen[bytes]] = []


class NotStarted(Exception):
    """A part of the local cloud did not start, or died; the text says which and shows the end of its log."""


def start(
    command: Sequence[str | Path], *, root: Path, log: Path, environment: Mapping[str, str], sockets: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a marked process in a session of its own, where Ctrl-C at the terminal does not reach it.

    `environment` is the whole environment. `sockets` are file descriptors of listening sockets that it inherits.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=root,
            env={**environment, MARK: str(root)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=sockets,
        )
    _children.append(process)
    return process


def ours(root: Path) -> dict[int, psutil.Process]:
    """Every living process that carries this checkout's mark, by number."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(root) and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
    return found


def stop(root: Path, *, patience_s: float = 3.0) -> int:
    """Stop every process of this checkout's local cloud, after `patience_s` by force. Return how many there were."""
    stopped: set[int] = set()
    deadline = time.monotonic() + patience_s
    while alive := ours(root):
        for process in alive.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                # psutil compares the start time before it signals, so a number that changed hands in between is safe
                process.kill() if time.monotonic() > deadline else process.terminate()
        stopped |= alive.keys()
        psutil.wait_procs(list(alive.values()), timeout=0.5)
    for child in _children:
        if child.pid in stopped:
            child.wait(timeout=5)
    _children[:] = [child for child in _children if child.poll() is None]
    return len(stopped)


def end(pid: int, patience_s: float) -> bool:
    """Ask one process to end, and wait until it has. False if it did not within `patience_s`."""
    try:
        process = psutil.Process(pid)
        process.terminate()
        process.wait(patience_s)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def listening_socket(port: int = 0) -> socket.socket:
    """A socket that listens on loopback; a free port by default. Raises `NotStarted` naming who holds a taken port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as taken:
        listener.close()
        raise NotStarted(f"port {port} is taken by {holder(port)}") from taken
    listener.listen(128)
    return listener


def free_port(wanted: int = 0) -> int:
    """A free port. Raises `NotStarted` with the process that uses `wanted`, if it is in use."""
    with listening_socket(wanted) as listener:
        return int(listener.getsockname()[1])


def holder(port: int) -> str:
    """Who listens on `port`, as far as this user may see."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                if connection.pid is None:
                    break
                return f"process {connection.pid} ({' '.join(psutil.Process(connection.pid).cmdline())[:120]})"
    return "another process"


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.path.getsize(log) - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-count:]) or "(the log is empty)"
