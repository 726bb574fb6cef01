"""Saving the simulators' data when they stop, and loading it at the next start.

Three things do not survive: faults with a duration, the second-by-second counts of the rate limits, and deliveries of events
that wait to be tried again.
"""

from __future__ import annotations

import os
import pickle
import uuid
from pathlib import Path
from typing import Any

from local.simulators.control import Control

PARTS = ("world", "kommo", "marketo", "leadconnector", "engage", "oauth2", "adobe")


def save(control: Control, file: Path) -> None:
    """Write everything to `file`, in one go, readable by its owner only."""
    kommo, adobe = control.kommo, control.adobe
    for task in kommo.deliveries:
        task.cancel()
    kommo.deliveries = set()
    # A new key gets a new path, since keys are cached by their path.
    adobe.__dict__.pop("key", None)
    adobe.key_path = f"/prod/keys/pub-key-{uuid.uuid4()}.pem"
    faults = control.world.faults
    faults.active = [fault for fault in faults.active if fault.duration_s is None]
    for account in kommo.accounts.values():
        account.recent.clear()
        account.over_limit.clear()
    for instance in control.marketo.instances.values():
        instance.recent.clear()
    for location in control.leadconnector.locations.values():
        location.recent.clear()
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        # One pickle, so that what the parts share stays shared.
        pickle.dump({name: getattr(control, name) for name in PARTS}, output)
    fresh.replace(file)


def load(control: Control, file: Path) -> None:
    """Take the data from a file that `save` of the same version has written. The proxy may have moved since."""
    with file.open("rb") as source:
        saved: dict[str, Any] = pickle.load(source)
    for name in PARTS:
        setattr(control, name, saved[name])
    control.kommo.proxy_url = control.adobe.proxy_url = control.proxy_url
    control.connect()
