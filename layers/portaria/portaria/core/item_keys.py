"""Keys of table items that more than one package reads or writes.

This module is on the webhooks' cold path: the standard library only.
"""

from __future__ import annotations

import hashlib

ItemKey = tuple[str, str]

# Partitions of the index `listing`.
INSTALLS_LIST = "INSTALLS"
OAUTH_CLIENTS_LIST = "CLIENTS"


def install_key(install_id: str) -> ItemKey:
    return f"INSTALL#{install_id}", "INSTALL"


def install_list_key(install_id: str, received_at: str) -> ItemKey:
    """The keys of an install in the index `listing`; `received_at` is ISO 8601."""
    return INSTALLS_LIST, f"{received_at}#{install_id}"


def oauth_client_key(platform: str, name: str) -> ItemKey:
    return f"CLIENT#{platform}#{name}", "CLIENT"


def oauth_client_logo_key(platform: str, name: str, version: str) -> ItemKey:
    """The key of a logo in its client's partition. An item never changes: another logo has another version."""
    return f"CLIENT#{platform}#{name}", f"LOGO#{version}"


def ticket_key(ticket: str) -> ItemKey:
    """The key of an authorization link's ticket, of which only the SHA-256 is stored."""
    return f"TICKET#{hashlib.sha256(ticket.encode()).hexdigest()}", "TICKET"
