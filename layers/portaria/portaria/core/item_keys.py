"""Keys of table items that more than one package reads or writes.

This module is on the webhooks' cold path: the standard library only.
"""

from __future__ import annotations

import hashlib

ItemKey = tuple[str, str]

# A partition of the index `listing`.
OAUTH_CLIENTS_LIST = "CLIENTS"

INSTALL_STATES = ("received", "exchanging", "connected", "failed")


def install_key(install_id: str) -> ItemKey:
    return f"INSTALL#{install_id}", "INSTALL"


def install_list(state: str) -> str:
    """The partition of the index `listing` that holds the installs in a state."""
    return f"INSTALLS#{state}"


def client_install_list(state: str, platform: str, client: str) -> str:
    """The partition of the index `by_filter` that holds the installs of an OAuth client in a state."""
    return f"INSTALLS#{state}#{platform}/{client}"


def install_lists(state: str, platform: str, client: str) -> dict[str, str]:
    """The attributes that put an install into its partitions. Every write of an install's `state` also writes them."""
    return {"list_pk": install_list(state), "filter_pk": client_install_list(state, platform, client)}


def install_places(install_id: str, received_at: str) -> dict[str, str]:
    """The sort keys of an install in both indexes. They never change; `received_at` is ISO 8601."""
    place = f"{received_at}#{install_id}"
    return {"list_sk": place, "filter_sk": place}


def oauth_client_key(platform: str, name: str) -> ItemKey:
    return f"CLIENT#{platform}#{name}", "CLIENT"


def oauth_client_logo_key(platform: str, name: str, version: str) -> ItemKey:
    """The key of a logo in its client's partition. An item never changes: another logo has another version."""
    return f"CLIENT#{platform}#{name}", f"LOGO#{version}"


def ticket_key(ticket: str) -> ItemKey:
    """The key of an authorization link's ticket, of which only the SHA-256 is stored."""
    return f"TICKET#{hashlib.sha256(ticket.encode()).hexdigest()}", "TICKET"
