"""OAuth clients: the applications registered with platforms. Their secrets are in the vault."""

from __future__ import annotations

from portaria import platforms
from portaria.aws.table import Item, Table
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, domain_inside
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria.core.item_keys import OAUTH_CLIENTS_LIST, oauth_client_key

FIELDS = OAuthClient._fields


def get(table: Table, platform: str, name: str) -> OAuthClient:
    """Raises `Rejected` (`unknown_client`) if there is none."""
    return find(table, platform, name)[0]


def find(table: Table, platform: str, name: str) -> tuple[OAuthClient, str]:
    """A client and its revision, which changes with each write. Raises `Rejected` (`unknown_client`)."""
    item = table.get(*oauth_client_key(platform, name))
    if not item:
        raise Rejected("unknown_client", f"there is no OAuth client {platform}/{name}", field="client", status=404)
    return read(item), item.get("revision", "")


def read(item: Item) -> OAuthClient:
    return OAuthClient(**{field: item[field] for field in FIELDS if field in item})


def api_domains(client: OAuthClient) -> tuple[str, ...]:
    """The domains that the client's connections may have: those registered with it, else its platform's. May be empty."""
    return tuple(client.api_domains.split()) or default_api_domains(client.platform)


def default_api_domains(platform: str) -> tuple[str, ...]:
    """The domains of a client that registers none. Empty for a platform that covers any provider."""
    domains = platforms.load(platform).account_domains
    return domains.DEFAULT_API_DOMAINS if domains else ()


def check_domain(client: OAuthClient, domain: str, *, field: str | None = None) -> None:
    """Raises `Rejected` unless the client's tokens may go to this domain: 409 `api_domains_missing` if none is registered,
    400 `domain_not_registered` where others are."""
    registered = api_domains(client)
    title = f"the OAuth client {client.platform}/{client.name}"
    if not registered:
        raise Rejected(
            "api_domains_missing",
            f"{title} has no api_domains, so its tokens are not sent: an administrator must add {domain} to its api_domains",
            field="client",
            status=409,
        )
    if not domain_inside(domain, registered):
        raise Rejected(
            "domain_not_registered",
            f"{title} is registered for {', '.join(registered)} and not for {domain}: an administrator can add that "
            "domain to its api_domains, if it may receive the client's tokens",
            field=field,
        )


def check_connection(client: OAuthClient, connection: Connection) -> None:
    """Raises `Rejected` as `check_domain` unless tokens may be obtained for the connection. A connection that already has
    tokens, and whose client was registered before there were `api_domains`, continues to work."""
    if connection.state == "pending" or api_domains(client):
        check_domain(client, connection.allowed_domain)


def put(table: Table, client: OAuthClient, *, new: bool, revision: str = "") -> str:
    """Returns the new revision. Raises `Conflict` if a `new` client exists, or an old one was changed or deleted."""
    pk, sk = oauth_client_key(client.platform, client.name)
    item = {field: getattr(client, field) for field in FIELDS}
    item |= {
        "list_pk": OAUTH_CLIENTS_LIST,
        "list_sk": f"{client.platform}#{client.name}",
        "updated_at": clock.to_iso(clock.now()),
    }
    return table.put_revision({"pk": pk, "sk": sk, **item}, new=new, revision=revision)


def reconnect_url(client: OAuthClient, connection: str) -> str:
    """The URL where a connection is authorized again: the client's install page. A client that names its own endpoints has no
    public page; then this is the URL where an administrator gets the link, empty if that is not known."""
    redirect_uri = client.redirect_uri.rstrip("/")
    if not client.token_url:
        return f"{redirect_uri}/start"
    base_url = redirect_uri.removesuffix(f"/install/{client.platform}/{client.name}")
    return (
        f"{base_url}/admin/v1/connections/{connection}/authorizations"
        if connection and base_url != redirect_uri
        else ""
    )


def list_page(table: Table, cursor: str | None, limit: int) -> tuple[list[OAuthClient], str | None]:
    items, cursor = table.query(OAUTH_CLIENTS_LIST, index="listing", cursor=cursor, limit=limit)
    return [read(item) for item in items], cursor


def delete(table: Table, platform: str, name: str) -> None:
    table.delete(*oauth_client_key(platform, name))
