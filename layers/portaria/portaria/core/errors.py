"""The tree of errors. Callers distinguish errors by type; `reason` and `detail` are for logs and for answers.

    PortariaError
    ├── Rejected      final: the same request fails again
    └── Retryable     temporary: the same request may succeed later

A reason on which no code decides is a plain `Rejected` or `Retryable`. One on which code decides has a type of its own below,
which sets the reason and the usual HTTP status.
"""

from __future__ import annotations

from portaria.core.error_roots import PortariaError as PortariaError  # noqa: PLC0414 - the roots are part of this tree
from portaria.core.error_roots import Rejected as Rejected  # noqa: PLC0414
from portaria.core.error_roots import Retryable as Retryable  # noqa: PLC0414


class TypedRejected(Rejected):
    """A `Rejected` whose type sets its reason and, unless the caller gives another, its status."""

    def __init__(self, detail: str, *, field: str | None = None, status: int | None = None) -> None:
        cls = type(self)
        super().__init__(cls.reason, detail, field=field, status=cls.status if status is None else status)


class TypedRetryable(Retryable):
    """A `Retryable` whose type sets its reason."""

    def __init__(self, detail: str, *, after_s: float | None = None, answer_lost: bool = False) -> None:
        super().__init__(type(self).reason, detail, after_s=after_s, answer_lost=answer_lost)


# A platform's refusal of an authorization code, a refresh token, or the OAuth client.


class CodeUsed(TypedRejected):
    """The authorization code had been exchanged or revoked before."""

    reason = "code_used"


class CodeRefused(TypedRejected):
    """The platform refused the authorization code and did not say whether it was used, too old or wrong."""

    reason = "code_refused"


class CodeExpired(TypedRejected):
    """The authorization code reached the end of its life."""

    reason = "code_expired"


class BadCode(TypedRejected):
    """The platform does not know the authorization code."""

    reason = "bad_code"


class InvalidAccount(TypedRejected):
    """The platform has no account at this host."""

    reason = "invalid_account"


class OtherAccount(TypedRejected):
    """The grant is for another account than the install link is for."""

    reason = "other_account"


class WrongClient(TypedRejected):
    """The platform refused the OAuth client: its id, its secret, or its right to this grant."""

    reason = "wrong_client"


class WrongRedirectUri(TypedRejected):
    """The redirect URI differs from the one registered with the platform."""

    reason = "wrong_redirect_uri"


class BadScopes(TypedRejected):
    """The platform does not grant the requested scopes."""

    reason = "bad_scopes"


class PlatformRefused(TypedRejected):
    """The platform refused for a reason without a type of its own."""

    reason = "platform_refused"


class GrantRevoked(TypedRejected):
    """The refresh token is used, revoked or expired: no request with it succeeds again."""

    reason = "grant_refused"


class AccountMoved(TypedRejected):
    """The account may have moved to another host of its platform."""

    reason = "account_moved"


# A connection that cannot be used until somebody acts.


class NeedsReconnect(TypedRejected):
    """The customer must connect the account again."""

    reason = "needs_reconnect"
    status = 409


class NotAuthorized(TypedRejected):
    """The connection was created and has not been authorized yet."""

    reason = "not_authorised"
    status = 409


class ConnectionRemoved(TypedRejected):
    """The connection has been removed."""

    reason = "connection_removed"
    status = 409


class NoCredentials(TypedRejected):
    """The connection has no credentials, or not the one that this request needs."""

    reason = "no_credentials"
    status = 409


class TokenExpired(TypedRejected):
    """The access token has expired and cannot be refreshed."""

    reason = "token_expired"
    status = 409


class TokenRefused(TypedRejected):
    """A platform refused a connection's access token."""

    reason = "token_refused"


class MissingScope(TypedRejected):
    """A token lacks the scope that the request needs: a private integration's (403) or a connection's at its platform (409)."""

    reason = "missing_scope"
    status = 403


# A call of this project's own API.


class TokenMissing(TypedRejected):
    """The request has no private integration's token."""

    reason = "token_missing"
    status = 401


class ApiTokenRefused(TypedRejected):
    """The token is no valid private integration's token."""

    reason = "token_refused"
    status = 401


class ApiTokenRotated(ApiTokenRefused):
    """The token was replaced by a rotation, and its overlap has ended."""

    reason = "token_rotated"


class ChangedMeanwhile(TypedRejected):
    """Another request changed the resource since it was read."""

    reason = "changed_meanwhile"
    status = 409


class AnswerUnusable(TypedRejected):
    """A response came that cannot be returned. The other side has received the request, and may have processed it."""

    status = 502


class AnswerTooLarge(AnswerUnusable):
    """The response has more bytes than the caller accepts."""

    reason = "answer_too_large"


class RedirectRefused(AnswerUnusable):
    """The response redirects to a URL that is not allowed."""

    reason = "redirect_not_allowed"


class TooManyRedirects(AnswerUnusable):
    """The responses redirect more often than the caller follows."""

    reason = "too_many_redirects"


class AuthThrottled(TypedRetryable):
    """Too many requests from one address had a token that does not work."""

    reason = "too_many_attempts"


# This stack, a host or a platform that cannot answer now.


class StackUnavailable(Retryable):
    """A part of this stack, not a platform, did not do what the request needs: the table, a queue, Secrets Manager or KMS."""


class PlatformUnavailable(TypedRetryable):
    """The other side, not this stack, is why the request failed."""


class Unreachable(PlatformUnavailable):
    """The connection to the host failed: this request was not sent."""

    reason = "unreachable"


class AnswerLost(PlatformUnavailable):
    """The request was sent and no answer came: the other side may have processed it."""

    reason = "no_answer"

    def __init__(self, detail: str, *, after_s: float | None = None, answer_lost: bool = True) -> None:
        super().__init__(detail, after_s=after_s, answer_lost=answer_lost)


class AnswerUnreadable(PlatformUnavailable):
    """The answer is not as the platform documents it."""

    reason = "answer_unreadable"


class PlatformFailed(PlatformUnavailable):
    """The platform answered that it failed or is temporarily unavailable."""

    reason = "platform_error"


class RateLimited(PlatformUnavailable):
    """The platform's rate limit is reached."""

    reason = "rate_limited"


class RateBlocked(RateLimited):
    """The platform blocks this address because of its request rate."""

    reason = "rate_blocked"
