"""Install links: creating, listing, showing and deleting the URLs that start installs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from portaria.api.operation import ApiRequest, Reply, page
from portaria.api.rules import install_link_rules
from portaria.api.rules.install_link_rules import LANGUAGES
from portaria.api.rules.oauth_client_rules import claim_page_url, install_page_url
from portaria.api.schemas import Output, Time
from portaria.aws.table import Table
from portaria.connections import oauth_clients
from portaria.core.callbacks import Secret
from portaria.installs import install_links
from portaria.installs.install_links import InstallLink

_LANGUAGE_NAMES = {short: name for name, short in LANGUAGES.items()}


class InstallLinkOutput(Output):
    """A link that starts an install for one customer, and what the install is given. Its URL is returned once."""

    id: str = Field(description="The link's id.")
    purpose: Literal["install", "reconnect", "claim"] = Field(
        description="`install` (any account), `reconnect` (exactly one connection) or `claim` (tags for an account that "
        "installs without a link)."
    )
    platform: str = Field(description="The OAuth client's platform.")
    client: str = Field(description="The name of the OAuth client.")
    connection: str | None = Field(description="The connection that is authorized again.")
    account_id: str | None = Field(description="The only account that the link is for.")
    tags: dict[str, str] = Field(description="What the install and its connection are tagged with.")
    return_url: str | None = Field(description="Where the customer returns to.")
    language: Literal["pt-BR", "es", "en"] | None = Field(
        description="The language of the pages. Null if the browser decides."
    )
    single_use: bool = Field(description="Whether only the browser that opened the link first can use it.")
    created_at: Time = Field(description="When the link was created.")
    expires_at: Time = Field(description="When the link stops working.")
    used_at: Time | None = Field(description="When a link for a single use was opened, or a claim was confirmed.")


class InstallLinkWithUrl(InstallLinkOutput):
    """A new install link with its URL, which is returned this once."""

    url: str = Field(description="What the customer opens. Besides its token it holds nothing of the link.")


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` as `install_link_rules.check_creation`; nothing is stored then."""
    table = asked.context.table
    link = install_link_rules.check_creation(asked.sent, table)
    link_id, token = install_links.create(table, link, asked.sent.life())
    url = url_of(table, link, token)
    return Reply(show(install_links.get(table, link_id)) | {"url": url}, target=link_id)


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_install_link`)."""
    return Reply(show(install_links.get(asked.context.table, asked.path["id"])))


def list_page(asked: ApiRequest) -> Reply:
    """Newest first, with those that ended in the last seven days."""
    found = install_links.list_page(asked.context.table, asked.cursor, asked.limit)
    return page([show(link) for link in found.links], found.cursor)


def delete(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_install_link`)."""
    table, link_id = asked.context.table, asked.path["id"]
    install_links.get(table, link_id)
    install_links.delete(table, link_id)
    return Reply(None)


def url_of(table: Table, link: InstallLink, token: Secret) -> str:
    """The URL of a link. The token is all that it holds: what the link was created with stays in the table."""
    client = oauth_clients.get(table, link.platform, link.client)
    address = claim_page_url(client) if link.purpose == install_links.CLAIM else install_page_url(client)
    return f"{address}?link={token.reveal()}"


def show(link: InstallLink) -> dict[str, Any]:
    return {
        "id": link.id,
        "purpose": link.purpose,
        "platform": link.platform,
        "client": link.client,
        "connection": link.connection,
        "account_id": link.account_id,
        "tags": link.tags or {},
        "return_url": link.return_url,
        "language": _LANGUAGE_NAMES.get(link.language),
        "single_use": link.single_use,
        "created_at": link.created_at,
        "expires_at": link.expires_at,
        "used_at": link.used_at,
    }
