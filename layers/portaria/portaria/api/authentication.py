"""Callers: who calls the API, and what they may do.

Below `/admin/v1` API Gateway has let an AWS principal in by IAM, who may do everything; below `/v1` a private integration's
token comes as `Authorization: Bearer portaria_…` (RFC 6750), which costs one strongly consistent read. Which of the two a
call is, is read from the resource that API Gateway matched, never from the path that was sent.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from portaria.access import api_tokens, token_usage
from portaria.access.auth_throttle import AuthThrottle
from portaria.aws.table import Table
from portaria.core import clock
from portaria.core.errors import ApiTokenRefused, ApiTokenRotated, Rejected, TokenMissing
from portaria.core.http.request import HttpRequest

if TYPE_CHECKING:
    from portaria.access.private_integrations import PrivateIntegration

TOKEN_PREFIX = "/v1"  # noqa: S105 - a path
ADMIN_PREFIX = "/admin/v1"
MAX_HEADER_LENGTH = 500
UNKNOWN_SOURCE = "unknown"
_BEARER = re.compile(r"bearer +([^ ]+) *", re.IGNORECASE)
# Kinds of callers.
PRINCIPAL, INTEGRATION, CONSOLE = "principal", "private_integration", "console_session"
# What a token is compared with where there is nothing to compare it with, in the same time.
_NOTHING = "0" * 64


@dataclass(frozen=True)
class Caller:
    """`scopes` is None for an AWS principal, who has all. `id` is what the audit trail calls them."""

    id: str
    name: str
    source: str
    scopes: tuple[str, ...] | None = None
    kind: str = PRINCIPAL

    @property
    def is_administrator(self) -> bool:
        """Whether an AWS principal is behind the call, directly or through a console session."""
        return self.kind in (PRINCIPAL, CONSOLE)

    def allows(self, scope: str, connection: str = "") -> bool:
        """Whether a scope was given, for all connections or for this one."""
        return (
            self.scopes is None or scope in self.scopes or (bool(connection) and f"{scope}@{connection}" in self.scopes)
        )

    def allows_some(self, scope: str) -> bool:
        """Whether a scope was given, for all connections or for any of them."""
        return self.scopes is None or any(split(given)[0] == scope for given in self.scopes)

    def covers(self, scopes: tuple[str, ...]) -> bool:
        """Whether each of these could be given on by this caller."""
        return all(self.allows(*split(scope)) for scope in scopes)


def split(scope: str) -> tuple[str, str]:
    """A scope's name, and the connection that it is narrowed to, or an empty text."""
    name, _, connection = scope.partition("@")
    return name, connection


def principal(request: HttpRequest) -> Caller:
    """The AWS principal that API Gateway authenticated, or the one behind a console session."""
    arn = request.principal or "unknown"
    return Caller(arn, request.session or arn.rpartition(":")[2], source(request))


def bearer(request: HttpRequest, table: Table, auth_throttle: AuthThrottle) -> Caller:
    """The private integration whose token came.

    Raises `Rejected` (401 `token_missing`, `token_refused`, `token_rotated`) and `Retryable` (`too_many_attempts`), and has
    `auth_throttle` count what failed.
    """
    given = request.headers.once("authorization")
    if not given:
        raise TokenMissing("send Authorization: Bearer and a private integration's token")
    found = _BEARER.fullmatch(given) if len(given) <= MAX_HEADER_LENGTH else None
    return holder(found[1] if found else "", source(request), table, auth_throttle)


def holder(token: str, where: str, table: Table, auth_throttle: AuthThrottle) -> Caller:
    """The private integration that a token belongs to. `where` is the caller's source address.

    Raises as `bearer`, but never `token_missing`.
    """
    token_hash = api_tokens.digest(token)
    auth_throttle.check(where, token_hash)
    integration_id = api_tokens.integration_id(token)
    if not integration_id:
        auth_throttle.failed(where, token_hash)
        raise ApiTokenRefused(
            "this is not a private integration's token: a token is portaria_ followed by 48 letters and digits"
        )
    # Imported here: administrators, who sign their requests, do not need it.
    from portaria.access import private_integrations  # noqa: PLC0415

    integration = private_integrations.find(table, integration_id)
    works = _works(integration, token_hash)
    if integration is None or not works:
        auth_throttle.failed(where, token_hash)
        raise _refused(integration, token_hash)
    auth_throttle.succeeded(token_hash)
    token_usage.note(table, integration.id, token_hash)
    return Caller(f"private-integration:{integration.id}", integration.name, where, integration.scopes, INTEGRATION)


def _works(integration: PrivateIntegration | None, token_hash: str) -> bool:
    """Whether it is the token in use, or the one before it while both work. Both are always compared."""
    in_use = hmac.compare_digest(integration.token_hash if integration else _NOTHING, token_hash)
    before = hmac.compare_digest((integration.previous_hash if integration else "") or _NOTHING, token_hash)
    return integration is not None and (in_use or (before and integration.overlaps(clock.now())))


def _refused(integration: PrivateIntegration | None, token_hash: str) -> Rejected:
    if integration and hmac.compare_digest(integration.previous_hash or _NOTHING, token_hash):
        return ApiTokenRotated(
            f"this token was replaced by a rotation and stopped working at {integration.previous_until}: use the new token"
        )
    return ApiTokenRefused("this token does not work: it was revoked, or it belongs to another stack")


def source(request: HttpRequest) -> str:
    """The address that the request came from, as API Gateway saw it. No header can change it."""
    return request.source_address or UNKNOWN_SOURCE
