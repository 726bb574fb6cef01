"""The local cloud's processes. Each has a mark in its environment, and `stop` stops only processes with that mark.

The mark is the checkout's path. Child processes inherit it, so `stop` also finds a function's process that outlived MiniStack.
It does not find the local cloud of another checkout, nor an unrelated process that got a reused process id.
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

# These processes outlive the command that starts them. The references avoid Python's ResourceWarning for them.
_children: list[subprocess.Popen[bytes]] = []


class NotStarted(Exception):
    """A command of the local cloud failed. The text is shown to the user: it says why and, for a process, ends with its log."""


def start(
    command: Sequence[str | Path], *, root: Path, log: Path, environment: Mapping[str, str], sockets: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a marked process in its own session, so that Ctrl-C at the terminal does not reach it. `ours` finds it.

    `environment` is the whole environment. It inherits the listening sockets with the file descriptors `sockets`.
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
    # For a moment after its start, a process has no readable environment, and so no visible mark.
    while process.poll() is None and not _has_environment(process.pid):
        time.sleep(0.001)
    return process


def _has_environment(pid: int) -> bool:
    """True also where the environment can never be read."""
    with contextlib.suppress(psutil.Error, OSError):
        return bool(psutil.Process(pid).environ())
    return True


def ours(root: Path) -> dict[int, psutil.Process]:
    """Every running process with this checkout's mark, by process id."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(root) and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
    return found


def stop(root: Path, *, patience_s: float = 3.0) -> int:
    """Stop every process of this checkout's local cloud, after `patience_s` with SIGKILL. Returns the number of processes."""
    stopped: set[int] = set()
    deadline = time.monotonic() + patience_s
    while alive := ours(root):
        for process in alive.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                # psutil compares the start time before it sends a signal, so a reused process id is safe.
                process.kill() if time.monotonic() > deadline else process.terminate()
        stopped |= alive.keys()
        psutil.wait_procs(list(alive.values()), timeout=0.5)
    for child in _children:
        if child.pid in stopped:
            child.wait(timeout=5)
    _children[:] = [child for child in _children if child.poll() is None]
    return len(stopped)


def end(pid: int, patience_s: float) -> bool:
    """Ask one process to end, and wait for its end. False if it did not end within `patience_s`."""
    try:
        process = psutil.Process(pid)
        process.terminate()
        process.wait(patience_s)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def clean_environment(home: Path) -> dict[str, str]:
    """The environment for a process of the local cloud, without the user's AWS profiles, proxies and Python settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "TMPDIR": str(home),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def listening_socket(port: int = 0) -> socket.socket:
    """A socket that listens on loopback, on a free port by default. Raises `NotStarted` with the process that uses the port."""
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
    """`wanted`, or any free port. Raises `NotStarted` with the process that uses `wanted`, if it is in use."""
    with listening_socket(wanted) as listener:
        return int(listener.getsockname()[1])


def holder(port: int) -> str:
    """The process that listens on `port`, if this user can see it."""
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
