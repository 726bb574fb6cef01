"""The rules for install links: what a caller may ask for, and what must be true of the client and connection that it names."""

from __future__ import annotations

from dataclasses import replace as with_changes
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from portaria import platforms
from portaria.api.validation import CLIENT_NAME, Input, InvalidInput, Matching, PlatformName, ResourceName
from portaria.aws.table import Table
from portaria.connections import connection_store, oauth_clients
from portaria.core import return_urls, tags
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection
from portaria.core.errors import ConnectionRemoved, Rejected
from portaria.installs import install_links
from portaria.installs.install_links import InstallLink

DEFAULT_LIFE_S, SHORTEST_LIFE_S, LONGEST_LIFE_S = 3_600, 60, 30 * 86_400
LANGUAGES = {"pt-BR": "pt", "es": "es", "en": "en"}
KIND = "oauth2"
STATES = ("pending", "connected", "needs_reconnect")

GivenTags = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "description": f"At most {tags.MAX_TAGS} tags, {tags.MAX_BYTES:,} bytes together.",
            "maxProperties": tags.MAX_TAGS,
            "propertyNames": {"pattern": f"^{tags.KEY}$"},
            "additionalProperties": {
                "type": "string",
                "minLength": 1,
                "maxLength": tags.MAX_VALUE_LENGTH,
                "description": tags.VALUE_RULE,
            },
        }
    ),
]


class InstallLinkCreation(Input):
    """A URL that starts an install.

    Without `connection` and `account_id`, any account can install with the link. With `connection`, the link authorizes exactly
    that connection again. With `account_id`, it is a claim link: it attaches the `tags` to the connection of an account that
    installs from the platform's marketplace, where an install carries no tags.
    """

    platform: PlatformName | None = Field(
        default=None, description="The OAuth client's platform. It can be omitted with a `connection`."
    )
    client: Annotated[str, Matching(CLIENT_NAME, "the name of an OAuth client: 2 to 32 of a-z 0-9 -")] | None = Field(
        default=None, description="The OAuth client's name. It can be omitted with a `connection`."
    )
    connection: ResourceName | None = Field(
        default=None, description="The connection to authorize again. A grant for another account is refused."
    )
    account_id: Annotated[str, Matching(r"[A-Za-z0-9_-]{1,64}", "1 to 64 of A-Z a-z 0-9 _ -")] | None = Field(
        default=None, description="The account whose connection a claim link tags."
    )
    tags: GivenTags = Field(default_factory=dict, description="What the install and its connection are tagged with.")
    return_url: str | None = Field(
        default=None, description="Where the customer returns to, among the `return_urls` of the OAuth client."
    )
    language: Literal["pt-BR", "es", "en"] | None = Field(
        default=None, description="The language of the pages. Without it, the browser decides."
    )
    expires_in_s: int = Field(
        default=DEFAULT_LIFE_S,
        ge=SHORTEST_LIFE_S,
        le=LONGEST_LIFE_S,
        description="How long the link works, in seconds.",
    )
    single_use: bool = Field(
        default=True, description="Whether only the browser that opens the link first can use it. A claim is made once."
    )

    def life(self) -> timedelta:
        return timedelta(seconds=self.expires_in_s)


def check_creation(sent: InstallLinkCreation, table: Table) -> InstallLink:
    """The link that `sent` describes. Raises `Rejected` (400, and 409 as `reconnection`); nothing is stored then."""
    given = tags.parse_tags(sent.tags)
    link = _of_client(sent, _client(sent, table)) if sent.connection is None else _of_connection(sent, table)
    if sent.return_url is not None:
        client = oauth_clients.get(table, link.platform, link.client)
        return_urls.check_match(sent.return_url, client.return_urls.split())
    if link.purpose == install_links.CLAIM and not given:
        raise InvalidInput([("tags", "tags are missing: a claim link attaches tags to an account's connection")])
    return with_changes(
        link,
        tags=given,
        return_url=sent.return_url or "",
        language=LANGUAGES[sent.language] if sent.language else "",
        single_use=sent.single_use or link.purpose == install_links.CLAIM,
    )


def reconnection(table: Table, connection: Connection) -> InstallLink:
    """A link that authorizes exactly this connection.

    Raises `Rejected`: 409 `not_authorisable`, `connection_removed`, `unknown_client`, `api_domains_missing` or
    `domain_not_registered`.
    """
    name = connection.name
    if connection.kind != KIND:
        detail = (
            f"{name} has the kind {connection.kind}, which needs no authorization: replace its credentials with "
            f"PUT /connections/{name}/credentials"
        )
        raise Rejected("not_authorisable", detail, status=409)
    if connection.state not in STATES:
        raise ConnectionRemoved(f"the connection {name} is {connection.state}")
    try:
        client = oauth_clients.get(table, connection.platform, connection.client)
        platform = platforms.load(connection.platform)
        link = InstallLink(install_links.RECONNECT, connection.platform, connection.client, connection=name)
        if not platform.authorization_links:
            return with_changes(link, account_id=connection.account_id)
        oauth_clients.check_connection(client, connection)
    except Rejected as refused:
        raise Rejected(refused.reason, refused.detail, status=409) from None
    if not client.authorize_url:
        detail = (
            f"the OAuth client {client.platform}/{client.name} has no authorize_url: add it to create install links"
        )
        raise Rejected("not_authorisable", detail, status=409)
    return with_changes(
        link,
        account_host=platform.require(platform.token_endpoint).token_domain(connection, client),
        scopes=platform.require(platform.provider_clients).requested_scopes(connection, client),
    )


def _of_connection(sent: InstallLinkCreation, table: Table) -> InstallLink:
    connection = connection_store.find(table, str(sent.connection))
    if connection is None:
        raise Rejected("unknown_connection", "connection names no connection", field="connection")
    errors = [
        (field, f"{field} is not the connection's: leave it out")
        for field, given, own in (
            ("platform", sent.platform, connection.platform),
            ("client", sent.client, connection.client),
            ("account_id", sent.account_id, connection.account_id),
        )
        if given is not None and given != own
    ]
    if errors:
        raise InvalidInput(errors)
    return reconnection(table, connection)


def _of_client(sent: InstallLinkCreation, client: OAuthClient) -> InstallLink:
    platform = platforms.load(client.platform)
    if not platform.consent_page:
        detail = (
            f"connection is missing: an account of {client.platform} is known by the connection that is created for it, so "
            "create the connection and name it here"
        )
        raise InvalidInput([("connection", detail)])
    if sent.account_id is None:
        return InstallLink(install_links.INSTALL, client.platform, client.name)
    return InstallLink(install_links.CLAIM, client.platform, client.name, account_id=sent.account_id)


def _client(sent: InstallLinkCreation, table: Table) -> OAuthClient:
    missing = [
        (field, f"{field} is missing: name the OAuth client by platform and client, or a connection")
        for field, given in (("platform", sent.platform), ("client", sent.client))
        if given is None
    ]
    if missing:
        raise InvalidInput(missing)
    try:
        return oauth_clients.get(table, str(sent.platform), str(sent.client))
    except Rejected:
        detail = "platform and client name no OAuth client: create the OAuth client first"
        raise Rejected("unknown_client", detail, field="client") from None
