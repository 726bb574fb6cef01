"""When an action makes sense for a thing, as the API shows it; and what an action sends."""

from __future__ import annotations

from typing import Any

from portaria import platforms
from portaria.core.errors import Rejected

Content = dict[str, Any]
SOURCE_OBJECTS = ("contacts", "companies")


def find_platform(name: str) -> platforms.Platform | None:
    """The platform of this name. None for one that this version does not know."""
    try:
        return platforms.load(name)
    except Rejected:
        return None


def is_connected(connection: Content) -> bool:
    return bool(connection["state"] == "connected")


def can_be_rotated(connection: Content) -> bool:
    return bool(connection["kind"] == "bearer") and is_connected(connection)


def can_be_renewed(connection: Content) -> bool:
    return bool(connection["kind"] == "oauth2") and is_connected(connection)


def can_be_reconnected(connection: Content) -> bool:
    return bool(connection["kind"] == "oauth2" and connection["client"] and connection["state"] != "pending")


def has_changes(connection: Content) -> bool:
    """Whether the platform can list what changed in an account."""
    platform = find_platform(connection["platform"])
    return is_connected(connection) and bool(platform and any(platform.changed_object(name) for name in SOURCE_OBJECTS))


def takes_address(connection: Content) -> bool:
    """Whether a person must tell the platform where to send its events."""
    platform = find_platform(connection["platform"])
    return bool(platform and platform.events and not connection["client"])


def has_failed(install: Content) -> bool:
    return bool(install["state"] == "failed")


def is_not_redriving(letter: Content) -> bool:
    return bool(letter["state"] != "redriving")


def is_enabled(webhook: Content) -> bool:
    return bool(webhook["state"] == "enabled")


def has_previous(shown: Content) -> bool:
    return bool(shown.get("previous_until"))


def reconnection(install: Content) -> Content:
    """The install link that helps: for exactly the install's connection, or for the same customer of the client."""
    if install["connection"]:
        return {"connection": install["connection"]}
    link = {"platform": install["platform"], "client": install["client"], "tags": install["tags"]}
    return link | ({"return_url": install["return_url"]} if install["return_url"] else {})
