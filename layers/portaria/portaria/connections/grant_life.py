"""How long a grant lives whose tokens are not renewed."""

from __future__ import annotations

from datetime import datetime

from portaria import platforms
from portaria.core import clock
from portaria.core.entities import Connection


def ends_at(connection: Connection) -> datetime | None:
    """When the refresh token of a connection ends if it is not used; None if the platform sets no end."""
    endpoint = platforms.load(connection.platform).token_endpoint
    life = endpoint.REFRESH_LIFE if endpoint else None
    if not life or connection.state != "connected" or not connection.updated_at:
        return None
    return clock.from_iso(connection.updated_at) + life
