"""Save the simulators' data when they stop, and load it at the next start.

Three things are not saved: faults with a duration, the per-second counts of the rate limits, and events that wait for another
delivery.
"""

from __future__ import annotations

import os
import pickle
import uuid
from pathlib import Path
from typing import Any

from local.simulators.platforms import Platforms

PARTS = ("world", "kommo", "marketo", "leadconnector", "engage", "oauth2", "adobe")


def save(platforms: Platforms, file: Path) -> None:
    """Replace `file` atomically. Only its owner can read it."""
    kommo, adobe = platforms.kommo, platforms.adobe
    kommo.webhooks.cancel_retries()
    # The next start generates a new key. It needs a new path, because readers cache keys by path.
    adobe.__dict__.pop("key", None)
    adobe.key_path = f"/prod/keys/pub-key-{uuid.uuid4()}.pem"
    faults = platforms.world.faults
    faults.active = [fault for fault in faults.active if fault.duration_s is None]
    for account in kommo.state.accounts.values():
        account.recent.clear()
        account.over_limit.clear()
    for instance in platforms.marketo.instances.values():
        instance.recent.clear()
    for location in platforms.leadconnector.locations.values():
        location.recent.clear()
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        # One pickle preserves the references between the parts, such as the shared clock.
        pickle.dump({name: getattr(platforms, name) for name in PARTS}, output)
    fresh.replace(file)


def load(platforms: Platforms, file: Path) -> None:
    """Load a file that `save` of the same version wrote. The proxy can have another port than at the time of the save."""
    with file.open("rb") as source:
        saved: dict[str, Any] = pickle.load(source)
    for name in PARTS:
        setattr(platforms, name, saved[name])
    platforms.kommo.webhooks.proxy_url = platforms.adobe.proxy_url = platforms.proxy_url
    platforms.connect()
