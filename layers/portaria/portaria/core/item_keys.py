"""Keys of table items that more than one package reads or writes.

This module is on the webhooks' cold path: the standard library only.
"""

from __future__ import annotations

import base64
import hashlib

ItemKey = tuple[str, str]

# Partitions of the index `listing`.
INSTALL_LINKS_LIST = "INSTALL_LINKS"
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


def install_link_id(token: str) -> str:
    """The id of an install link: 26 characters of lower-case base32, of its token's SHA-256. The token is stored nowhere."""
    return base64.b32encode(hashlib.sha256(token.encode()).digest()).decode()[:26].lower()


def install_link_key(link_id: str) -> ItemKey:
    return f"INSTALL_LINK#{link_id}", "INSTALL_LINK"


def install_link_list_key(link_id: str, created_at: str) -> ItemKey:
    """The keys of an install link in the index `listing`; `created_at` is ISO 8601."""
    return INSTALL_LINKS_LIST, f"{created_at}#{link_id}"


def claim_key(platform: str, client: str, account_id: str) -> ItemKey:
    """The key of the tags that wait for an account's connection."""
    return f"CLAIM#{platform}#{client}#{account_id}", "CLAIM"


def tag_partition(key: str, value: str) -> str:
    """The partition that finds connections and installs by a tag. The value may be personal data, so its hash is stored."""
    return f"TAG#{key}#{hashlib.sha256(value.encode()).hexdigest()}"
