"""The rules for OAuth clients: what a caller may send, and what must be true of it and of the connections that use it.

A platform that represents any provider has `provider_clients` (`CLIENT_GRANTS`): its clients name their own endpoints and their
grant. Clients of a platform that knows its own endpoints must not.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from portaria import platforms
from portaria.api.rules import branding_rules
from portaria.api.rules.known_resources import Known
from portaria.api.validation import CLIENT_NAME, InvalidInput, Matching, PlatformName, Refusals, Scopes, SecretText
from portaria.connections import oauth_clients
from portaria.core.callbacks import OAuthClient, domain_inside
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria.outbound import domain_rules

ENDPOINT_FIELDS = ("grant", "authorize_url", "token_url", "token_auth")
MAX_API_DOMAINS = 20
# A refusal names so many of the connections that stand in the way.
MOST_NAMED = 10


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
RedirectUri = Annotated[str, AfterValidator(_https_url)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
ApiDomains = Annotated[
    list[Annotated[str, AfterValidator(_api_domain)]], Field(min_length=1, max_length=MAX_API_DOMAINS)
]


class OAuthClientReplacement(branding_rules.Branding):
    """An OAuth client's values. `grant`, `authorize_url`, `token_url` and `token_auth` are for platforms whose clients set
    their own endpoints.
    """

    client_id: ClientId = Field(description="The application's id at the platform.")
    client_secret: SecretText | None = Field(
        default=None, description="The application's secret at the platform. If it is omitted, the stored one is kept."
    )
    redirect_uri: RedirectUri | None = Field(
        default=None,
        description="The redirect URI that is registered with the platform. By default, this API's own URL.",
    )
    scopes: Scopes | None = Field(
        default=None, description="The scopes to request, separated as the platform expects it."
    )
    api_domains: ApiDomains | None = Field(
        default=None,
        description="The domains that connections of this client may use; its tokens are sent nowhere else. If it is omitted,"
        " the stored value is kept, and a new Kommo client has `*.kommo.com`. Other platforms need a value.",
    )
    grant: Literal["authorization_code", "client_credentials"] | None = Field(
        default=None, description="The grant type, `authorization_code` by default. It cannot be changed."
    )
    authorize_url: EndpointUrl | None = Field(default=None, description="The provider's authorization endpoint.")
    token_url: EndpointUrl | None = Field(default=None, description="The provider's token endpoint.")
    token_auth: Literal["basic", "post"] | None = Field(
        default=None,
        description="How the client authenticates at the token endpoint: by HTTP Basic authentication or in the body.",
    )


class OAuthClientCreation(OAuthClientReplacement):
    """An OAuth client to create."""

    platform: PlatformName = Field(description="The platform that the application is registered with.")
    name: ClientName = Field(description="The OAuth client's name, unique within the platform. It is part of its URLs.")
    client_secret: SecretText = Field(description="The application's secret at the platform.")


def check_creation(sent: OAuthClientCreation, api_url: str) -> OAuthClient:
    """The client that `sent` describes. Raises `Rejected` with everything that is wrong with it."""
    _require_install_part(sent.platform)
    refusals = Refusals()
    client = refusals.of(lambda: make(sent.platform, sent.name, sent, sent.grant or "authorization_code", api_url))
    if sent.api_domains is None and not oauth_clients.default_api_domains(sent.platform):
        refusals.found.append(
            InvalidInput(
                [("api_domains", "api_domains is missing: list the domains of the API that the tokens are for")]
            )
        )
    if refusals.found or client is None:
        raise refusals.together()
    return client


def check_replacement(old: OAuthClient, sent: OAuthClientReplacement, known: Known, api_url: str) -> OAuthClient:
    """What the client becomes. Raises `Rejected` (409 `client_fixed`, `client_in_use`) with everything that is wrong with it.

    Stored secrets never go to a host that they were not given for: with another token host the client's secret must come
    again, and no connection may be left whose refresh token would follow.
    """
    platform, name = old.platform, old.name
    refusals = Refusals()
    grant = sent.grant or old.grant
    if grant != old.grant:
        detail = f"the grant of an OAuth client cannot change from {old.grant}: create another client"
        refusals.found.append(Rejected("client_fixed", detail, field="grant", status=409))
    client = refusals.of(lambda: make(platform, name, sent, grant, api_url, old))
    if sent.token_url and moves_tokens(old, sent):
        if not sent.client_secret:
            error = ("client_secret", "client_secret is missing: give it again when the host of token_url changes")
            refusals.found.append(InvalidInput([error]))
        if users := [user.name for user in known.connections_of(platform, name)]:
            detail = (
                f"token_url names another host, and {_in_use(users)} tokens from the present one: delete "
                f"{_them(users)} first, or create another client"
            )
            refusals.found.append(Rejected("client_in_use", detail, field="token_url", status=409))
    if client and sent.api_domains is None:
        client = client._replace(api_domains=old.api_domains)
    elif client and (outside := [user.name for user in outside_of(client, known)]):
        detail = (
            f"{_listed(outside)} outside these domains: delete {_them(outside)} first, or add the domain to api_domains"
        )
        refusals.found.append(Rejected("client_in_use", detail, field="api_domains", status=409))
    if refusals.found or client is None:
        raise refusals.together()
    return client


def moves_tokens(old: OAuthClient, sent: OAuthClientReplacement) -> bool:
    """Whether the client's tokens would come from another host."""
    return urlsplit(sent.token_url or "").hostname != urlsplit(old.token_url).hostname


def outside_of(client: OAuthClient, known: Known) -> list[Connection]:
    """The client's connections whose domain lies outside the client's."""
    registered = oauth_clients.api_domains(client)
    users = known.connections_of(client.platform, client.name)
    return [user for user in users if not domain_inside(user.allowed_domain, registered)]


def show(client: OAuthClient) -> dict[str, Any]:
    """A client as its administrator may see it. One that names its endpoints is authorised link by link: it has no page."""
    shown: dict[str, Any] = {
        "platform": client.platform,
        "name": client.name,
        "client_id": client.client_id,
        "credentials_set": ["client_secret"],
        "redirect_uri": client.redirect_uri,
        "scopes": client.scopes,
        "api_domains": list(oauth_clients.api_domains(client)),
        "install_page_url": "" if client.token_url else install_page_url(client),
    }
    shown |= {field: getattr(client, field) if client.token_url else None for field in ENDPOINT_FIELDS}
    return shown | branding_rules.show(client)


def install_page_url(client: OAuthClient) -> str:
    """The hosted page that starts an install. Its cookie binds the browser, so it must be on the redirect URI's host."""
    return f"{client.redirect_uri.rstrip('/')}/start"


def claim_page_url(client: OAuthClient) -> str:
    """The hosted page where a person confirms a claim; on the same host for the same reason."""
    return f"{client.redirect_uri.rstrip('/')}/claim"


def read_shown(shown: dict[str, Any]) -> OAuthClient:
    """A client as `show` has made it, and without its secret."""
    given = {field: shown[field] for field in ENDPOINT_FIELDS if shown.get(field)}
    client = OAuthClient(
        shown["platform"], shown["name"], shown["client_id"], shown["redirect_uri"], shown["scopes"] or ""
    )._replace(api_domains=" ".join(shown["api_domains"]), **given)
    return branding_rules.read_shown(shown, client)


def make(
    platform: str, name: str, sent: OAuthClientReplacement, grant: str, api_url: str, old: OAuthClient | None = None
) -> OAuthClient:
    redirect_uri = sent.redirect_uri or f"{api_url}/install/{platform}/{name}"
    client = OAuthClient(platform, name, sent.client_id, redirect_uri, sent.scopes or "")
    errors = _endpoint_errors(platform, sent, grant) + _domain_errors(platform, sent)
    if errors:
        raise InvalidInput(errors)
    client = client._replace(api_domains=" ".join(dict.fromkeys(sent.api_domains or ())))
    client = branding_rules.apply(sent, client, old)
    given = {field: value for field in ENDPOINT_FIELDS if (value := getattr(sent, field)) is not None}
    return client._replace(**given | {"grant": grant})


def _domain_errors(platform: str, sent: OAuthClientReplacement) -> list[tuple[str, str]]:
    """Where a platform's accounts have domains of its own, no other can be registered."""
    domains = platforms.load(platform).account_domains
    if not domains:
        return []
    own = domains.API_DOMAINS
    if all(domain_inside(domain, own) for domain in sent.api_domains or ()):
        return []
    return [("api_domains", f"api_domains may hold only {', '.join(own)} and names inside them for {platform}")]


def _endpoint_errors(platform: str, sent: OAuthClientReplacement, grant: str) -> list[tuple[str, str]]:
    """What is missing or too much of the fields that say where a provider's endpoints are."""
    found = platforms.load(platform)
    if not found.provider_clients:
        given = [field for field in ENDPOINT_FIELDS if getattr(sent, field) is not None]
        return [(field, f"{field} is not a field of a client of {platform}, which has its own") for field in given]
    errors = []
    if sent.token_url is None:
        errors.append(("token_url", "token_url is missing"))
    if grant == "authorization_code" and sent.authorize_url is None:
        errors.append(("authorize_url", "authorize_url is missing: the grant authorization_code needs it"))
    if grant == "client_credentials" and sent.authorize_url is not None:
        errors.append(("authorize_url", "authorize_url is only for the grant authorization_code"))
    own = found.authorization_links.OWN_PARAMETERS if found.authorization_links else ()
    query = parse_qs(urlsplit(sent.authorize_url or "").query, keep_blank_values=True)
    errors += [("authorize_url", f"authorize_url must not set {name}: it is set here") for name in own if name in query]
    return errors


def _require_install_part(platform: str) -> None:
    known = [each.name for each in platforms.every() if each.install]
    if platform not in known:
        raise Rejected("unknown_platform", f"platform must be one of {', '.join(known)}", field="platform")


def _in_use(users: list[str]) -> str:
    return f"the connection {users[0]} has its" if len(users) == 1 else f"the connections {_names(users)} have their"


def _listed(users: list[str]) -> str:
    return f"the connection {users[0]} is" if len(users) == 1 else f"the connections {_names(users)} are"


def _names(users: list[str]) -> str:
    more = f" and {len(users) - MOST_NAMED} more" if len(users) > MOST_NAMED else ""
    return ", ".join(users[:MOST_NAMED]) + more


def _them(users: list[str]) -> str:
    return "it" if len(users) == 1 else "them"
