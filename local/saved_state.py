"""The state that the local cloud saves at `make down` for the next `make up`: data of MiniStack and the simulators, ports.

`build/local/state/saved` is the state of the last orderly stop. A start copies it to `live`, where MiniStack and the
simulators write when they stop. `live` replaces `saved` only after both have stopped in order, so after a crash at any moment
`saved` is the complete state of the last orderly stop.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from local import processes
from local.processes import NotStarted

# Below the ephemeral ports, which an outgoing connection could take between a stop and a start.
FIRST_PORT, PORTS = 20_000, 10_000


@dataclass(frozen=True)
class Ports:
    ministack: int
    proxy: int
    simulators: int
    control: int


class SavedState:
    """The saved state of one checkout. `version` identifies the programs that can read it."""

    def __init__(self, folder: Path, version: str) -> None:
        self._saved = folder / "saved"
        self._stopped = folder / "stopped"
        self.live = folder / "live"
        self._ports = folder / "ports.json"
        self._folder = folder
        self._version = version

    def open(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """Prepare `live` for a start. Returns the saved stack, or None if there is none that this version can read."""
        self._finish()
        shutil.rmtree(self.live, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        # The data contains secrets.
        self._folder.chmod(0o700)
        saved = self._read()
        if saved and saved["version"] != self._version:
            say("MiniStack or the simulators have changed since the last stop, so the saved data is removed.")
            self.forget()
            saved = None
        if saved:
            shutil.copytree(self._saved, self.live)
            return dict(saved["stack"])
        self.live.mkdir(parents=True, exist_ok=True)
        return None

    def close(self, stack: dict[str, Any]) -> None:
        """Save `live` after an orderly stop."""
        marker = self.live / "saved.json"
        fresh = marker.with_suffix(".new")
        fresh.write_text(json.dumps({"version": self._version, "stack": stack}))
        fresh.replace(marker)
        shutil.rmtree(self._stopped, ignore_errors=True)
        self.live.rename(self._stopped)
        self._finish()

    def forget(self) -> None:
        """Remove the data. The ports stay."""
        for folder in (self._saved, self._stopped, self.live):
            shutil.rmtree(folder, ignore_errors=True)

    def ports(self, gateway: int = 0) -> Ports:
        """The ports of the last start; at the first start, free ports, which it saves. `gateway` is a port for MiniStack.

        Raises `NotStarted` if the requested port, or one that the saved data refers to, is in use.
        """
        known, has_data = self._known_ports(), self._read() is not None
        if gateway:
            processes.free_port(gateway)
            if known and has_data and gateway != known.ministack:
                raise NotStarted(
                    f"The saved data has addresses with port {known.ministack}, not {gateway}: leave out the port, or run "
                    "`make clean-sandbox` to remove the data."
                )
        if known:
            try:
                for port in (known.ministack, known.proxy, known.simulators, known.control):
                    processes.free_port(port)
            except NotStarted as taken:
                if has_data:
                    raise NotStarted(
                        f"{taken}. The saved data has addresses with that port: stop the process, or run "
                        "`make clean-sandbox` to remove the data and use other ports."
                    ) from None
                known = None
        if not known:
            known = Ports(*self._free_ports(4))
        if gateway:
            known = replace(known, ministack=gateway)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._ports.write_text(json.dumps(asdict(known)))
        return known

    def _known_ports(self) -> Ports | None:
        try:
            return Ports(**json.loads(self._ports.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _free_ports(self, count: int) -> list[int]:
        found: list[int] = []
        offset = zlib.crc32(os.fsencode(self._folder))
        for number in range(PORTS):
            try:
                found.append(processes.free_port(FIRST_PORT + (offset + number) % PORTS))
            except NotStarted:
                continue
            if len(found) == count:
                return found
        raise NotStarted(f"fewer than {count} ports are free from {FIRST_PORT} to {FIRST_PORT + PORTS - 1}")

    def _finish(self) -> None:
        """Complete `close`: replace the previous saved state."""
        if self._stopped.exists():
            shutil.rmtree(self._saved, ignore_errors=True)
            self._stopped.rename(self._saved)

    def _read(self) -> dict[str, Any] | None:
        try:
            saved: dict[str, Any] = json.loads((self._saved / "saved.json").read_text())
            return saved if "version" in saved and "stack" in saved else None
        except (OSError, ValueError):
            return None
