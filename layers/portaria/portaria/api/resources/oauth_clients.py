"""Administering OAuth clients: the applications registered with platforms.

A platform that stands for any provider says so in its `tokens` part (`CLIENT_GRANTS`): its clients name the endpoints and the
grant that are theirs. Clients of a platform that knows its own endpoints must not.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from portaria.api.router import ApiRequest, Reply, changed_meanwhile, page, require_match
from portaria.api.schemas import Output
from portaria.api.validation import CLIENT_NAME, Input, InvalidInput, Matching, PlatformName, SecretText
from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store, oauth_clients, refused_grants
from portaria.connections.vault import Vault
from portaria.core.callbacks import domain_inside
from portaria.core.entities import OAuthClient, Rejected, Secret
from portaria.outbound import domain_rules
from portaria.platforms import part

HIDDEN = "*****"
ENDPOINT_FIELDS = ("grant", "authorize_url", "token_url", "token_auth")
MAX_API_DOMAINS = 20


def _https_url(text: str) -> str:
    """Kept exactly as it came: platforms compare it character by character."""
    rule = "must be an https URL of at most 500 printable ASCII characters, without user, query or fragment"
    usable = bool(re.fullmatch(r"https://[\x21-\x7e]{1,492}", text)) and not re.search(r"[@?#\\]", text)
    try:
        usable = usable and bool(urlsplit(text).hostname) and urlsplit(text).port != 0
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError("rule", "{rule}", {"rule": rule})
    return text


def _endpoint_url(text: str) -> str:
    """An endpoint as a provider's pages give it: its query belongs to it (RFC 6749, 3.1 and 3.2)."""
    rule = "must be an https URL of at most 500 printable ASCII characters on port 443, without user or fragment"
    usable = bool(re.fullmatch(r"https://[\x21-\x7e]{1,492}", text)) and not re.search(r"[@#\\]", text)
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        usable = usable and parts.port in (None, 443) and parts.netloc.lower().removesuffix(":443") == host
        # An allowed domain may begin with a wildcard, a host may not.
        usable = usable and "*" not in host
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError("rule", "{rule}", {"rule": rule})
    try:
        domain_rules.check_allowed_domain(host)
    except Rejected as refused:
        problem = refused.detail.removeprefix("allowed_domain ")
        raise PydanticCustomError(
            "rule", "{rule}", {"rule": f"names a host that cannot be used: it {problem}"}
        ) from None
    return text


def _api_domain(text: str) -> str:
    """A domain as a connection has one, with the same rules."""
    try:
        return domain_rules.check_allowed_domain(text)
    except Rejected as refused:
        rule = refused.detail.removeprefix("allowed_domain ")
        raise PydanticCustomError("rule", "{rule}", {"rule": rule}) from None


ClientName = Annotated[str, Matching(CLIENT_NAME, "2 to 32 of a-z 0-9 -, for it stands in URLs, no - first")]
ClientId = Annotated[str, Matching(r"[\x21-\x7e]{1,255}", "1 to 255 printable ASCII characters")]
Scopes = Annotated[str, Matching(r"[\x20-\x7e]{0,1000}", "at most 1,000 printable ASCII characters")]
RedirectUri = Annotated[str, AfterValidator(_https_url)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
ApiDomains = Annotated[
    list[Annotated[str, AfterValidator(_api_domain)]], Field(min_length=1, max_length=MAX_API_DOMAINS)
]


class Replacement(Input):
    """Without `client_secret` the stored one stays, and so do `api_domains`; without `redirect_uri` it is this API's own.

    `api_domains` are the domains that the client's connections may have: its tokens go nowhere else. A client of Kommo's has
    `*.kommo.com` by default; any other must name them. The last four are for a platform whose clients name their endpoints;
    `grant` is `authorization_code` by default and stays.
    """

    client_id: ClientId
    client_secret: SecretText | None = None
    redirect_uri: RedirectUri | None = None
    scopes: Scopes = ""
    api_domains: ApiDomains | None = None
    grant: Literal["authorization_code", "client_credentials"] | None = None
    authorize_url: EndpointUrl | None = None
    token_url: EndpointUrl | None = None
    token_auth: Literal["basic", "post"] | None = None


class Creation(Replacement):
    platform: PlatformName
    name: ClientName
    client_secret: SecretText


class Shown(Output):
    """`grant` and what follows are there where the client names its own endpoints."""

    platform: str
    name: str
    client_id: str
    client_secret: Literal["*****"]
    redirect_uri: str
    scopes: str
    api_domains: list[str]
    install_page_url: str
    grant: str = ""
    authorize_url: str = ""
    token_url: str = ""
    token_auth: str = ""


class Advised(Shown):
    """`warnings` are sentences for the person who registered it."""

    warnings: list[str]


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (409 `client_exists`) and `Retryable`.

    The secret is stored before the item that makes it usable. A death between the two leaves a secret that nobody uses;
    creating the client again overwrites it.
    """
    table, vault, sent = asked.desk.table, asked.desk.vault, asked.sent
    _require_install_part(sent.platform)
    client = _client(sent.platform, sent.name, sent, sent.grant or "authorization_code", asked.api_url)
    if not oauth_clients.api_domains(client):
        raise InvalidInput(
            [("api_domains", "api_domains is missing: name the domains of the API that its tokens are for")]
        )
    if table.get(*oauth_clients.key(client.platform, client.name)):
        raise _exists(client)
    _store_secret(vault, client, sent.client_secret)
    try:
        revision = oauth_clients.put(table, client, new=True)
    except Conflict:
        raise _exists(client) from None
    return Reply(
        show(client) | _advice(client, asked.api_url), etag=revision, target=f"{client.platform}/{client.name}"
    )


def replace(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_client`, 409 `client_fixed`, `client_in_use`, 409 or 412 `changed_meanwhile`) and
    `Retryable`. Connections that their provider's refusals ended are tried again with what the client is now.

    A death half-way is mended by sending the same again. Stored secrets never go to a host that they were not given for: with
    another token host the client's secret must come again, and no connection may be left whose refresh token would follow.
    """
    table, vault, sent = asked.desk.table, asked.desk.vault, asked.sent
    platform, name = asked.path["platform"], asked.path["client"]
    old, revision = oauth_clients.find(table, platform, name)
    require_match(asked, revision)
    client = _client(platform, name, sent, sent.grant or old.grant, asked.api_url)
    if client.grant != old.grant:
        raise Rejected(
            "client_fixed",
            f"the grant of an OAuth client cannot change from {old.grant}: register another client",
            field="grant",
            status=409,
        )
    if urlsplit(client.token_url).hostname != urlsplit(old.token_url).hostname:
        if not sent.client_secret:
            raise InvalidInput(
                [("client_secret", "client_secret is missing: it is needed again for another token host")]
            )
        if user := _user(table, platform, name):
            detail = f"the connection {user} has its tokens from the host of token_url: register another client"
            raise Rejected("client_in_use", detail, field="token_url", status=409)
    if sent.api_domains is None:
        client = client._replace(api_domains=old.api_domains)
    elif outside := _outside(table, client):
        detail = f"the connection {outside} lies outside these domains: delete it first, or name its domain as well"
        raise Rejected("client_in_use", detail, field="api_domains", status=409)
    if sent.client_secret:
        _store_secret(vault, client, sent.client_secret)
    try:
        revision = oauth_clients.put(table, client, new=False, revision=revision)
    except Conflict:
        raise changed_meanwhile(asked) from None
    refused_grants.resume(table, platform, name)
    return Reply(show(client) | _advice(client, asked.api_url), etag=revision)


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_client`)."""
    client, revision = oauth_clients.find(asked.desk.table, asked.path["platform"], asked.path["client"])
    return Reply(show(client) | _advice(client, asked.api_url), etag=revision)


def list_page(asked: ApiRequest) -> Reply:
    clients, next_cursor = oauth_clients.list_page(asked.desk.table, asked.cursor, asked.limit)
    return page([show(client) for client in clients], next_cursor)


def delete(asked: ApiRequest) -> Reply:
    """Raises `Rejected`: 404 `unknown_client`, 409 `client_in_use` while a route or a connection needs it.

    The item goes first, so that none stands without its secret. Where a death left the secret behind, deleting again
    removes it before it answers 404. A client's secret is also in the platform's console: it is removed at once, which
    lets the same name be created again.
    """
    table, vault = asked.desk.table, asked.desk.vault
    platform, name = asked.path["platform"], asked.path["client"]
    source = f"client:{platform}/{name}"
    if route := next(table.query_all(source, index="by_source"), None):
        raise Rejected("client_in_use", f"the route {route['name']} starts at it: delete that first", status=409)
    if user := _user(table, platform, name):
        raise Rejected(
            "client_in_use", f"the connection {user} renews its tokens with it: delete that first", status=409
        )
    found = table.get(*oauth_clients.key(platform, name))
    if found:
        oauth_clients.delete(table, platform, name)
    vault.remove(vault.client_secret_id(platform, name), at_once=True)
    if not found:
        raise _unknown(platform, name)
    return Reply(None)


def _user(table: Table, platform: str, name: str) -> str:
    """The name of a connection that needs a client, or an empty text."""
    for item in table.query_all(connection_store.LIST, index="listing"):
        if (item["platform"], item.get("client")) == (platform, name) and item["state"] != "removed":
            return str(item["name"])
    return ""


def _outside(table: Table, client: OAuthClient) -> str:
    """The name of a connection whose domain the client's do not hold, or an empty text."""
    registered = oauth_clients.api_domains(client)
    for item in table.query_all(connection_store.LIST, index="listing"):
        is_own = (item["platform"], item.get("client")) == (client.platform, client.name)
        if is_own and item["state"] != "removed" and not domain_inside(item["allowed_domain"], registered):
            return str(item["name"])
    return ""


def show(client: OAuthClient) -> dict[str, Any]:
    """A client as its administrator may see it. One that names its endpoints is authorised link by link: it has no page."""
    shown = {
        "platform": client.platform,
        "name": client.name,
        "client_id": client.client_id,
        "client_secret": HIDDEN,
        "redirect_uri": client.redirect_uri,
        "scopes": client.scopes,
        "api_domains": list(oauth_clients.api_domains(client)),
        "install_page_url": "" if client.token_url else install_page_url(client),
    }
    if not client.token_url:
        return shown
    return shown | {field: getattr(client, field) for field in ENDPOINT_FIELDS}


def install_page_url(client: OAuthClient) -> str:
    """The hosted page that starts an install. Its cookie binds the browser, so it must be on the redirect URI's host."""
    return f"{client.redirect_uri.rstrip('/')}/start"


def _advice(client: OAuthClient, api_url: str) -> dict[str, Any]:
    warnings = []
    if not oauth_clients.api_domains(client):
        warnings.append(
            "api_domains is missing: the client's connections go on, and no new one can be made until it names the domains "
            "that its tokens may go to"
        )
    if not client.redirect_uri.rstrip("/").endswith(f"/install/{client.platform}/{client.name}"):
        warnings.append(
            f"redirect_uri does not end in /install/{client.platform}/{client.name}: whatever answers there must pass the "
            f"call, and /start and /result/… below it, on to {api_url}/install/{client.platform}/{client.name}"
        )
    return {"warnings": warnings}


def _client(platform: str, name: str, sent: Replacement, grant: str, api_url: str) -> OAuthClient:
    redirect_uri = sent.redirect_uri or f"{api_url}/install/{platform}/{name}"
    client = OAuthClient(platform, name, sent.client_id, redirect_uri, sent.scopes)
    errors = _endpoint_errors(platform, sent, grant) + _domain_errors(platform, sent)
    if errors:
        raise InvalidInput(errors)
    client = client._replace(api_domains=" ".join(dict.fromkeys(sent.api_domains or ())))
    given = {field: value for field in ENDPOINT_FIELDS if (value := getattr(sent, field)) is not None}
    return client._replace(**given | {"grant": grant})


def _domain_errors(platform: str, sent: Replacement) -> list[tuple[str, str]]:
    """Where a platform's accounts have domains of its own, no other can be registered."""
    own = getattr(part(platform, "install"), "API_DOMAINS", ())
    if not own:
        return []
    if all(domain_inside(domain, own) for domain in sent.api_domains or ()):
        return []
    return [("api_domains", f"api_domains may hold only {', '.join(own)} and names inside them for {platform}")]


def _endpoint_errors(platform: str, sent: Replacement, grant: str) -> list[tuple[str, str]]:
    """What is missing or too much of the fields that say where a provider's endpoints are."""
    grants = getattr(part(platform, "tokens"), "CLIENT_GRANTS", ())
    if not grants:
        given = [field for field in ENDPOINT_FIELDS if getattr(sent, field) is not None]
        return [(field, f"{field} is not a field of a client of {platform}, which has its own") for field in given]
    errors = []
    if sent.token_url is None:
        errors.append(("token_url", "token_url is missing"))
    if grant == "authorization_code" and sent.authorize_url is None:
        errors.append(("authorize_url", "authorize_url is missing: the grant authorization_code needs it"))
    if grant == "client_credentials" and sent.authorize_url is not None:
        errors.append(("authorize_url", "authorize_url is only for the grant authorization_code"))
    own = getattr(part(platform, "install"), "OWN_PARAMETERS", ())
    query = parse_qs(urlsplit(sent.authorize_url or "").query, keep_blank_values=True)
    errors += [("authorize_url", f"authorize_url must not set {name}: it is set here") for name in own if name in query]
    return errors


def _store_secret(vault: Vault, client: OAuthClient, client_secret: Secret) -> None:
    vault.replace(vault.client_secret_id(client.platform, client.name), {"client_secret": client_secret})


def _require_install_part(platform: str) -> None:
    try:
        part(platform, "install")
    except Rejected:
        raise Rejected(
            "unknown_platform",
            f"there is no platform {platform!r} here that applications install from",
            field="platform",
        ) from None


def _exists(client: OAuthClient) -> Rejected:
    detail = f"there is an OAuth client {client.platform}/{client.name} already: replace it with PUT"
    return Rejected("client_exists", detail, field="name", status=409)


def _unknown(platform: str, name: str) -> Rejected:
    return Rejected("unknown_client", f"no OAuth client {platform}/{name} is registered", status=404)
