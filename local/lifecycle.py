"""Start, update and stop the local cloud of this checkout.

All files that it writes are under `build/`: `build/stack.json` describes the running stack, `build/local/` has logs,
certificates and the saved state, `build/sam/` the output of the SAM CLI. `up` and `down` find processes by their mark (see
`processes`), so they also find those of a start that was interrupted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from local import processes
from local.build import SAM_CLI
from local.deployment import build, deploy
from local.fingerprint import fingerprint, local_sources
from local.processes import NotStarted
from local.saved_state import SavedState
from local.services import start_services
from local.stack import LOCAL, MINISTACK, ROOT, STACK_FILE, STATE, Stack, Step

# MiniStack and the simulators write their data before they end.
STOP_TIMEOUT_S = 30.0


def up(
    step: Step, say: Callable[[str], None], *, port: int = 0, keep: bool = False, store: str = "secrets-manager"
) -> Stack:
    """Start the local cloud, or update a running one, and return it.

    `port` is the port for MiniStack; 0 lets the function choose one. With `keep`, a start has the ports, the API's address and
    the data of the last stop, and `down` saves them. Without it, the stack starts empty on free ports and nothing is saved.
    `store` is the parameter CredentialStore.

    Raises `NotStarted`. After a failed start nothing is left running; a failed update leaves the stack as it was.
    """
    with _locked():
        for tool in (SAM_CLI, MINISTACK):
            if not tool.exists():
                raise NotStarted(f"{tool.relative_to(ROOT)} is missing: run `make setup`.")
        running = _reusable(say, port)
        try:
            with step("Building with the SAM CLI"):
                product = f"{build()} {store}"
            if running and running.sources["product"] == product:
                say(f"The local cloud is running already: {running.api_url}")
                return running
            stack = running or start_services(step, say, port, saved_state() if keep else None)
            if stack.sources.get("product") != product:
                with step("Deploying to MiniStack"):
                    stack = deploy(replace(stack, sources={**stack.sources, "product": product}), store)
            stack.write()
            return stack
        except BaseException:
            if not running:
                _stop(save=False)
            raise


def down(say: Callable[[str], None] = lambda _text: None) -> int:
    """Stop this checkout's local cloud. Returns the number of processes that it had."""
    with _locked():
        return _stop(save=True, say=say)


def forget() -> None:
    """Stop the local cloud and remove its saved data and ports."""
    with _locked():
        _stop(save=False)
        shutil.rmtree(STATE, ignore_errors=True)


def _stop(*, save: bool, say: Callable[[str], None] = lambda _text: None) -> int:
    """Stop all processes. With `save`, a stack that keeps its state first writes its data, which the next start reads."""
    stack = Stack.read()
    STACK_FILE.unlink(missing_ok=True)
    stopped = 0
    if save and stack and stack.keeps_state and not stack.dead_parts():
        # MiniStack ends first: until it has saved its data, its functions need the simulators.
        parts = [stack.pids[name] for name in ("ministack", "simulators")]
        if all([processes.end(pid, STOP_TIMEOUT_S) for pid in parts]):
            saved_state().close(asdict(stack))
        else:
            say(
                f"A process did not stop within {STOP_TIMEOUT_S:.0f} s: the next start has the data of the last orderly stop."
            )
        stopped = len(parts)
    stopped += processes.stop(ROOT)
    _remove_in_background(LOCAL / "tmp")
    return stopped


def _remove_in_background(folder: Path) -> None:
    """Remove the files that MiniStack unpacked. There are tens of thousands, which takes minutes on a slow disk."""
    if folder.exists():
        folder.rename(folder.with_name(f"removed-{time.time_ns()}"))
    # A removal that a shutdown of the machine interrupted is completed here.
    if left := [str(each) for each in folder.parent.glob("removed-*")]:
        subprocess.run(["sh", "-c", 'rm -rf "$@" >/dev/null 2>&1 &', "sh", *left], check=False)


def saved_state() -> SavedState:
    """The saved state of this checkout. Its version is that of MiniStack and the simulators: no other version can read it."""
    versions = sorted(folder.name for folder in (ROOT / ".venv-ministack").glob("lib/*/site-packages/ministack-*"))
    return SavedState(STATE, fingerprint([ROOT / "local" / "simulators"], *versions))


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Allow one `up` or `down` at a time in this checkout. The operating system releases the lock when the process ends."""
    LOCAL.mkdir(parents=True, exist_ok=True)
    with (LOCAL / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise NotStarted(f"Process {file.read()} is starting or stopping the local cloud: wait for it.") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _reusable(say: Callable[[str], None], port: int) -> Stack | None:
    """The running stack if it can be used. Otherwise report the reason, stop its processes and return None."""
    stack = Stack.read()
    if stack is None:
        if processes.ours(ROOT):
            say("Cleaning up after a start that did not finish.")
    elif dead := stack.dead_parts():
        say(f"{' and '.join(dead)} died since the last start (see build/local/): restarting.")
    elif stack.sources["local"] != local_sources():
        say("The local cloud's own code has changed: restarting.")
    elif port and not stack.aws_endpoint_url.endswith(f":{port}"):
        say(f"MiniStack runs at {stack.aws_endpoint_url}, not on port {port}: restarting.")
    else:
        return stack
    _stop(save=True, say=say)
    return None
