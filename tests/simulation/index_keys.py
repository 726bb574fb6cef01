"""Where a connection or an install must be in the indexes after each write, whatever wrote it."""

from __future__ import annotations

from portaria.connections import connection_store
from portaria.core.item_keys import client_install_list, install_list
from tests.simulation.aws.expressions import Item

INDEX_KEYS = ("list_pk", "list_sk", "filter_pk", "filter_sk")


def misplaced(item: Item) -> str:
    """What is wrong with the item's keys in the indexes; empty if they fit its state."""
    held = {name: value["S"] for name, value in item.items() if "S" in value}
    match held.get("sk"):
        case "CONNECTION":
            name, is_deleted = held["name"], held["reason"] == "deleted"
            listed = f"CONNECTIONS#{held['state']}#{held['platform']}"
            expected = {"list_pk": connection_store.LIST, "list_sk": name}
            expected |= {} if is_deleted else {"filter_pk": listed, "filter_sk": name}
        case "INSTALL":
            place = f"{held['received_at']}#{held['pk'].partition('#')[2]}"
            client = (held["platform"], held["client"])
            expected = {
                "list_pk": install_list(held["state"]), "list_sk": place,
                "filter_pk": client_install_list(held["state"], *client), "filter_sk": place,
            }  # fmt: skip
        case _:
            return ""
    found = {name: held[name] for name in INDEX_KEYS if name in held}
    return "" if found == expected else f"{held['pk']} is {held['state']} and has the keys {found}"
