"""The contract between Portaria and a platform.

A platform is a folder `platforms/<name>/`. Its `__init__.py` defines a `Platform` (see `portaria.platforms`) whose properties
return the modules that implement the protocols below and in `record_protocols.py`. mypy compares each module with its protocol,
so a function's parameters must have the names that the protocol gives them. A platform implements only what it supports.
`docs/adding-a-platform.md` shows a complete example.

Rules for every module:

- It builds a `Request` and reads a `Response`. It never sends anything and imports neither boto3 nor an HTTP client.
- Its docstring names the vendor's page that it follows.
- It raises `Rejected` if repeating the call cannot help and `Retryable` if it can: with `after_s` if the platform asked for a
  wait, and with `answer_lost=True` if the platform may have done the work. Code decides on the types of `core/errors.py`
  (`GrantRevoked`, `TokenRefused`, `RateLimited`, …). Any other error has a stable reason in snake_case. Each has a sentence for
  the person who must act. Other exceptions never leave a module, whatever a response holds.
- Neither an error nor a log line quotes a credential or a record. Credentials travel in headers or in the body, never in a URL,
  unless the vendor's API leaves no choice.
- Every response is untrusted: its status, headers and body can be anything. A response whose meaning is unknown is `Retryable`.

Times are `datetime` in UTC or epoch seconds (`int`), and durations are `timedelta` or seconds (a name that ends in `_s`).
This module is imported for type checking only, so it costs the webhook functions no time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Protocol

from portaria.core.callbacks import EventAddress, Events, OAuthCallback, OAuthClient, Refusal, Secret, WebhookDelivery
from portaria.core.entities import Account, Connection, Grant, Kind, UninstallNotice
from portaria.core.http.messages import Request, Response
from portaria.platforms.values import RefusedUsers, UpsertedContact

Query = dict[str, list[str]]

# ------------------------------------------------------------------------------------------------------------ connections


class ConnectionKinds(Protocol):
    """The kinds of connections that an administrator can create. Every platform implements this.

    `KINDS` maps the name of each kind (`bearer`, `client_credentials`, `password`, …) to its credentials and fields. It is
    empty if connections come from installs only. A field's pattern must match the whole value and must admit nothing that
    could end a host name or a path segment, because fields stand in URLs.
    """

    KINDS: dict[str, Kind]


class LogIn(Protocol):
    """Connections whose stored credentials are exchanged for an access token (`client_credentials`, `password`)."""

    def token_domain(self, connection: Connection, client: OAuthClient | None) -> str:
        """Return the one host that the credentials are sent to."""

    def token_request(
        self, connection: Connection, credentials: dict[str, Secret], client: OAuthClient | None
    ) -> Request:
        """Return the request for an access token.

        `client` is the connection's OAuth client if its kind has no credentials of its own; `credentials` then holds the
        client's `client_secret`. Raises `NoCredentials` if a credential is missing.
        """

    def read_grant(self, response: Response, now: datetime) -> Grant:
        """Return the access token. `expires_at` is `now` plus the life that the response states.

        Raises `Rejected` (409 `bad_credentials`) if the platform refuses the credentials, and `Retryable` otherwise.
        """

    def refuse_unknown_account(self, connection: Connection, response: Response) -> None:
        """Raise `Rejected` (400, with `field`) if the response to the first log-in shows that the account does not exist.

        Called before credentials are stored. Do nothing if the platform's responses do not show it.
        """


class CredentialTest(Protocol):
    """A harmless request that shows whether a token works. Needed for tokens that a person rotates."""

    def probe_request(self, connection: Connection, credentials: dict[str, Secret]) -> Request:
        """Return a request that changes nothing and reads as little as possible."""

    def read_probe(self, response: Response) -> None:
        """Return if the token works.

        Raises `TokenRefused` (409) if the token is invalid, another `Rejected` if it belongs to another account, and
        `Retryable` if the response does not show either.
        """


class TokenRefusal(Protocol):
    """Implement this if a 401 of the platform does not always mean an invalid token."""

    def token_refused(self, response: Response) -> bool:
        """Return whether the response means that the token will never work again."""


class ApiHeaders(Protocol):
    """Implement this if calls need other headers than `Authorization: Bearer <token>`.

    `TOKEN_HEADER` is the header that holds the bare token; empty means `Authorization`.
    """

    TOKEN_HEADER: str

    def call_headers(self, connection: Connection) -> dict[str, str]:
        """Return the further headers that every call needs, such as an API version. They hold no credential."""


class RequestLimits(Protocol):
    """Implement this if the platform limits requests a second for an address or an account and punishes exceeding them.

    Portaria then holds its requests to these limits: see `connections.request_budget`.
    """

    PER_ADDRESS: int
    PER_ACCOUNT: int


class AccountFields(Protocol):
    """Implement this if a connection's fields name its account."""

    def account_id(self, fields: dict[str, str]) -> str:
        """Return the account's id in its canonical form. `connection_store.of_account` finds connections by it."""


# --------------------------------------------------------------------------------------------------------------- installs


class InstallCallbacks(Protocol):
    """The calls to the redirect URI of an OAuth client.

    This module is on the path of the install hook, which must answer within three seconds of a cold start: it imports only
    light modules of the standard library and `portaria.core.callbacks`. An import contract checks that.
    """

    def parse_callback(self, query: Query) -> OAuthCallback | Refusal:
        """Return the authorization code, or the customer's refusal.

        `account_host` receives the client's secret, so accept it by a rule that matches the whole host; leave it empty if the
        OAuth client names the token endpoint. Raises `Rejected` (400, with `field`) for a missing, repeated or malformed
        parameter. Use `read_return` and `read_one` of `portaria.core.callbacks`.
        """


class ConsentPage(Protocol):
    """The consent page of a platform that has one for all accounts. Implemented by the module that parses callbacks."""

    def consent_url(self, client_id: str, state: Secret) -> str:
        """Return the https URL that asks the customer for consent, with both arguments percent-encoded."""

    def button(self, client_id: str, state: Secret, language: str) -> dict[str, str]:
        """Return the attributes of the vendor's button script. `language` is `en`, `es` or `pt`."""

    def scope_texts(self, scopes: str, language: str) -> list[str]:
        """Return what an OAuth client's scopes allow, in words for its customers, one text for each scope that has words."""


class AuthorizationLinks(Protocol):
    """Consent at the endpoint that the OAuth client names: for platforms that represent any OAuth 2.0 provider.

    `OWN_PARAMETERS` are the query parameters that `authorization_url` sets, so that a client's URL must not contain them.
    """

    OWN_PARAMETERS: tuple[str, ...]

    def authorization_url(self, client: OAuthClient, state: Secret, code_challenge: str, scopes: str) -> str:
        """Return the URL of the consent page, with PKCE (RFC 7636, method S256)."""


class AccountDomains(Protocol):
    """Implement this if each account has its own host.

    `API_DOMAINS` are all domains that accounts can have, `DEFAULT_API_DOMAINS` those of an OAuth client that names none. A
    domain is a host or a wildcard (`*.example.com`).
    """

    API_DOMAINS: tuple[str, ...]
    DEFAULT_API_DOMAINS: tuple[str, ...]

    def check_client_host(self, client: OAuthClient, host: str) -> None:
        """Raise `Rejected` (`domain_not_registered`) if the client's secret must not be sent to this account's host."""


class TokenEndpoint(Protocol):
    """The token endpoint of a platform whose application is installed (authorization code and refresh token).

    `KIND` is the kind of an installed connection (`oauth2`), `CODE_LIFE` the life of an authorization code, and
    `REFRESH_LIFE` the life of an unused refresh token (None if it does not expire).
    """

    KIND: str
    CODE_LIFE: timedelta
    REFRESH_LIFE: timedelta | None

    def token_domain(self, connection: Connection, client: OAuthClient) -> str:
        """Return the one host that the client's secret is sent to."""

    def exchange_request(
        self,
        client: OAuthClient,
        client_secret: Secret,
        account_host: str,
        code: Secret,
        code_verifier: Secret | None = None,
    ) -> Request:
        """Return the request that exchanges a code. `code_verifier` is set if the authorization used PKCE.

        Check `account_host` again, because the secret is sent to it. Allow a read timeout of 15 seconds: the response comes
        once, and a lost response costs the grant. Raises `Rejected` for a host that must not receive the secret.
        """

    def read_grant(self, response: Response, now: datetime) -> Grant:
        """Return the tokens.

        Raises the type of each final refusal (`CodeUsed`, `CodeExpired`, `BadCode`, `CodeRefused`, `WrongClient`,
        `WrongRedirectUri`, `InvalidAccount`, `PlatformRefused`), and `Retryable` while the code may still be valid, with
        `answer_lost` if the response was a success that could not be read.
        """

    def refresh_request(
        self, connection: Connection, client: OAuthClient, client_secret: Secret, refresh_token: Secret
    ) -> Request:
        """Return the request that uses the refresh token. The read timeout is as for `exchange_request`."""

    def read_refreshed(self, response: Response, now: datetime, refresh_token: Secret) -> Grant:
        """Return the new tokens; `refresh_token` stays if the response has no other.

        Raises `GrantRevoked` if the grant has ended and `AccountMoved` if the account may be at another host. Any other
        `Rejected` ends a grant only after the stack's RefusedGrantDays. Raises `Retryable` otherwise.
        """


class ProviderClients(Protocol):
    """OAuth clients that name their endpoints and scopes: for platforms that represent any OAuth 2.0 provider.

    `CLIENT_GRANTS` maps each grant that a client can use to the kind of connection that it makes.
    """

    CLIENT_GRANTS: dict[str, str]

    def requested_scopes(self, connection: Connection, client: OAuthClient) -> str:
        """Return the scopes to request, separated by spaces."""

    def granted_as_requested(self, connection: Connection, client: OAuthClient) -> str:
        """Return the scopes of a grant whose response names none (RFC 6749, 5.1)."""


class AccountLookup(Protocol):
    """Which account a grant belongs to. Also used to confirm that an account has disconnected."""

    def account_request(self, account_host: str, access_token: Secret) -> Request:
        """Return the request for the account of an access token."""

    def read_account(self, response: Response, account_host: str) -> Account:
        """Return the account; its `host` becomes the connection's allowed domain.

        Raises `TokenRefused` if the account has disconnected, `Rejected` (`account_mismatch`) if the response is about another
        account than `account_host`, and `Retryable` otherwise.
        """


class AccountRelocation(Protocol):
    """Implement this if an account's host can change. `LOCATION_DOMAIN` is the domain that `locate_request` goes to."""

    LOCATION_DOMAIN: str

    def locate_request(self, credentials: dict[str, Secret]) -> Request:
        """Return the request for the account's current host. It must not use up the refresh token."""

    def read_location(self, response: Response) -> str:
        """Return the account's host. Raises `Rejected` (`account_gone`) and `Retryable`."""


class UninstallNotices(Protocol):
    """The webhook that reports that an account has disconnected. Its path is `/uninstall/<platform>/{client}`."""

    def parse_notice(self, query: Query) -> UninstallNotice:
        """Return the notice, not yet verified. Raises `Rejected` (400, with `field`)."""

    def verify(self, notice: UninstallNotice, client: OAuthClient, client_secret: Secret) -> None:
        """Raise `Rejected` (403 `bad_signature`) unless the client's secret signed the notice. Compare in constant time."""


# ----------------------------------------------------------------------------------------------------------------- events


class WebhookSubscriptions(Protocol):
    """Subscribing to an account's events by API."""

    def subscribe_request(self, account_host: str, access_token: Secret, destination: str) -> Request:
        """Return the request that sends events to the URL `destination`. Sending it twice must change nothing."""

    def unsubscribe_request(self, account_host: str, access_token: Secret, destination: str) -> Request:
        """Return the request that ends the subscription."""

    def read_answer(self, response: Response) -> None:
        """Raise `Rejected` (`webhooks_refused`) if the account cannot have webhooks, and `Retryable` for other failures."""


class EventWebhooks(Protocol):
    """The events that a platform delivers to `/events/<platform>/{connection}/{key}`.

    `RETRY_STATUS` is the status after which the platform delivers an event again. `SECRET_HEADER` is the header that holds the
    address's secret, or empty if events carry none. This module must be as light as that of `InstallCallbacks`: a delivery
    must be answered within two seconds of a cold start.
    """

    RETRY_STATUS: int
    SECRET_HEADER: str

    def account_of(self, account_id: str, fields: dict[str, str]) -> str:
        """Return the account id that events of this connection must name."""

    def read(self, delivery: WebhookDelivery, address: EventAddress) -> Events:
        """Return the delivery's records by object, in the form of the source object's records.

        The address's key has been checked. Check the rest: the signature or the secret header, and that the events are about
        `address.account_id`. A record is `is_partial` if an absent key does not mean an empty value. Count the events that are
        left out by reason. Raises `Rejected` (4xx) if the call is not a valid delivery.
        """


# ---------------------------------------------------------------------------------------------------------------- actions


class Contacts(Protocol):
    """Contacts that callers of the API read and write one at a time.

    `FIELDS` are the fields of a contact, `OVERWRITTEN` those whose previous content an upsert replaces.
    """

    FIELDS: tuple[str, ...]
    OVERWRITTEN: tuple[str, ...]

    def contact_request(self, connection: Connection, credentials: dict[str, Secret], contact_id: str) -> Request:
        """Return the request for one contact. Percent-encode `contact_id`."""

    def read_contact(self, response: Response) -> dict[str, Any]:
        """Return the contact. Raises `Rejected` (404 `unknown_contact`, 409 for the credential) and `Retryable`."""

    def check(self, contact: dict[str, Any]) -> list[tuple[str, str]]:
        """Return a field and a sentence for each problem; an empty field name means the whole contact. Quote no value."""

    def upsert_request(
        self, connection: Connection, credentials: dict[str, Secret], contact: dict[str, Any]
    ) -> Request:
        """Return the request that creates or updates a contact that `check` has accepted."""

    def read_upserted(self, response: Response) -> UpsertedContact:
        """Return the outcome. Raises `Rejected` and `Retryable` for problems that do not concern this contact."""

    def pause_s(self, response: Response) -> float | None:
        """Return the seconds to wait before the next request if the rate limit is used up, otherwise None."""


class UserIdentifiers(Protocol):
    """Registering another system's identifiers for the platform's users. `MAX_USERS` limits one request."""

    MAX_USERS: int

    def register_request(
        self, connection: Connection, credentials: dict[str, Secret], access_token: Secret, users: list[dict[str, str]]
    ) -> Request:
        """Return the request that registers `users`, each with a `user_login` and an `identifier`."""

    def read_answer(self, response: Response) -> RefusedUsers | None:
        """Return None if all users are registered, or `RefusedUsers` if one of them is the cause of a refusal.

        The caller halves a refused request until the user stands alone. Raises `Rejected` if no user can be registered, and
        `Retryable`, with `answer_lost` if the users may have been registered.
        """


class SingleSignOn(Protocol):
    """Signing a user on by an identifier."""

    def sign_on_request(self, connection: Connection, credentials: dict[str, Secret], user_identifier: str) -> Request:
        """Return the request for a key. Raises `NoCredentials`."""

    def read_key(self, response: Response) -> Secret:
        """Return the key that signs a browser on. Raises `Rejected` (409 `user_refused`, `sign_on_refused`) and `Retryable`."""

    def addresses(self, connection: Connection, key: Secret) -> dict[str, Secret]:
        """Return the URLs that sign a browser on: `default` and `customer`."""


# ------------------------------------------------------------------------------------------------------------ smoke tests


class SmokeInstall(Protocol):
    """An install that the platform must refuse, for `portaria smoke`. `REFUSALS` are the reasons that it can fail with."""

    REFUSALS: tuple[str, ...]

    def hook_query(self, name: str, code: Secret) -> dict[str, str]:
        """Return the query of a callback for an account that does not exist."""
