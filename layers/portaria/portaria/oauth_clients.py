"""OAuth clients: the applications registered with platforms. Their secrets are in the vault."""

from __future__ import annotations

from portaria import clock
from portaria.contract import OAuthClient, Rejected
from portaria.table import Item, Table

LIST = "CLIENTS"
FIELDS = OAuthClient._fields


def key(platform: str, name: str) -> tuple[str, str]:
    return f"CLIENT#{platform}#{name}", "CLIENT"


def get(table: Table, platform: str, name: str) -> OAuthClient:
    """Raises `Rejected` (`unknown_client`) where there is none."""
    return find(table, platform, name)[0]


def find(table: Table, platform: str, name: str) -> tuple[OAuthClient, str]:
    """A client and its revision, another one after each change. Raises `Rejected` (`unknown_client`)."""
    item = table.get(*key(platform, name))
    if not item:
        raise Rejected("unknown_client", f"no OAuth client {platform}/{name} is registered", field="client", status=404)
    return read(item), item.get("revision", "")


def read(item: Item) -> OAuthClient:
    return OAuthClient(**{field: item[field] for field in FIELDS if field in item})


def put(table: Table, client: OAuthClient, *, new: bool, revision: str = "") -> str:
    """Its new revision. Raises `Conflict` where a new one exists already, or an old one does not or has another revision."""
    pk, sk = key(client.platform, client.name)
    item = {field: getattr(client, field) for field in FIELDS}
    item |= {"list_pk": LIST, "list_sk": f"{client.platform}#{client.name}", "updated_at": clock.to_iso(clock.now())}
    return table.put_revision({"pk": pk, "sk": sk, **item}, new=new, revision=revision)


def reconnect_url(client: OAuthClient, connection: str) -> str:
    """Where a connection is authorised again: the client's install page. Where a client names its own endpoints there is no
    page for everybody, and this is where an administrator gets the link; empty where that is not known."""
    redirect_uri = client.redirect_uri.rstrip("/")
    if not client.token_url:
        return f"{redirect_uri}/start"
    base_url = redirect_uri.removesuffix(f"/install/{client.platform}/{client.name}")
    return f"{base_url}/admin/v1/connections/{connection}/authorize" if connection and base_url != redirect_uri else ""


def list_page(table: Table, cursor: str | None, limit: int) -> tuple[list[OAuthClient], str | None]:
    items, cursor = table.query(LIST, index="listing", cursor=cursor, limit=limit)
    return [read(item) for item in items], cursor


def delete(table: Table, platform: str, name: str) -> None:
    table.delete(*key(platform, name))
