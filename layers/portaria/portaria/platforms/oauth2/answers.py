"""The body of a token endpoint's response: its members, its error code, and the meaning of the code.

https://www.rfc-editor.org/rfc/rfc6749#section-5 describes JSON with `error` or `access_token` at the top level. Real
servers also send forms, a byte order mark, another charset, the members one level deeper, or their own error format. None of
this may cost a grant, so a token is read in any of these forms.
"""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qsl

from portaria.core.http.messages import Response

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
MAX_FIELDS = 50
TOKEN = "access_token"  # noqa: S105 - a member's name
_FORM_TYPES = ("application/x-www-form-urlencoded", "text/plain", "")

# Temporary errors. The first three are from RFC 6749 and RFC 8628.
NOT_NOW = frozenset(
    {"temporarily_unavailable", "server_error", "slow_down", "ratelimited", "rate_limited", "rate_limit_exceeded",
     "too_many_requests", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)  # fmt: skip

# Error codes that always end a grant: the code or the refresh token will never work again.
_GRANT_OVER = frozenset(
    {
        "invalid_grant",  # RFC 6749, 5.2; Fitbit has it as errors[0].errorType
        # https://docs.github.com/en/apps/oauth-apps/maintaining-oauth-apps/troubleshooting-oauth-app-access-token-request-errors
        "bad_verification_code",
        "bad_refresh_token",  # GitHub (with 200); HubSpot v1 has it as `status`, in capitals
        # https://docs.slack.dev/reference/methods/oauth.v2.access
        "invalid_code", "code_already_used", "code_expired", "invalid_refresh_token", "token_revoked", "token_expired",
        "bad_auth_code",  # HubSpot v1, as `status`
    }
)  # fmt: skip
# Error codes that end a grant only if a refresh token was sent.
_REFRESH_OVER = frozenset(
    {
        # Spring Security OAuth, DefaultTokenServices.refreshAccessToken: 401 "Invalid refresh token (expired): …"
        "invalid_token",
        # Microsoft Entra, https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow (error codes for token
        # endpoint errors), and OpenID Connect Core 1.0, 3.1.2.6: a person must act at the provider.
        "interaction_required", "consent_required", "login_required", "bad_token",
    }
)  # fmt: skip
# Cognito's API, as `__type`: the same code also means a wrong client secret, which the message distinguishes.
# https://docs.aws.amazon.com/cognito-user-identity-pools/latest/APIReference/API_InitiateAuth.html
_COGNITO_REFUSED = "notauthorizedexception"
# Messages about a refresh token whose code does not show it (`invalid_request`): older Authlib
# (`Invalid "refresh_token" in request.`), LinkedIn ("The provided … refresh token is invalid, expired or revoked"), Cognito.
_SAYS_OVER = re.compile(
    r"(invalid|unknown|expired|revoked|inactive|already used|not found|not valid|no longer valid|does not exist)"
)
_NAMES_REFRESH_TOKEN = re.compile(r"refresh[ _-]?token")
# Strava, as errors[0]: {"resource": "RefreshToken", "field": "refresh_token", "code": "invalid"}.
# https://github.com/dreeveapp/dreeve/issues/1449
_RESOURCES_OVER = {"refreshtoken": "invalid_refresh_token", "authorizationcode": "invalid_code"}


def members(response: Response) -> dict[str, object]:
    """Return the members of JSON or of a form, also from one level deeper; empty for any other body."""
    text = _text(response)
    try:
        body = json.loads(text, parse_int=_number)
    except UNREADABLE:
        return _form(text, response)
    return _lifted(body) if isinstance(body, dict) else {}


def error_code(body: dict[str, object]) -> str:
    """Return the error code in lower case; empty if there is none. It is untrusted: compare it, never show it."""
    code = _plain_code(body) or _listed_code(body)
    if not code and body.get("ok") is False:
        return "unknown"
    return code


def grant_is_over(response: Response, body: dict[str, object], code: str, *, refreshing: bool) -> bool:
    """Whether an error says that the code or refresh token that was sent will never work again."""
    if code in _GRANT_OVER:
        return True
    if not refreshing:
        return False
    if code in _REFRESH_OVER:
        return True
    said = " ".join(_words(body))
    if code == _COGNITO_REFUSED:
        return not re.search(r"secret|client", said)
    if code == "invalid_request":
        # league/oauth2-server before version 9 (Laravel Passport): `invalidRefreshToken` is 401 with this code and a hint
        # ("Token has been revoked", "Token is not linked to client"); its other uses of the code are 400.
        if response.status == 401 and isinstance(body.get("hint"), str):
            return True
        return bool(_NAMES_REFRESH_TOKEN.search(said) and _SAYS_OVER.search(said))
    return False


def _number(digits: str) -> float:
    """Read a whole number. Python refuses numbers of thousands of digits, which would make the whole body unreadable."""
    return int(digits) if len(digits) < 40 else float(digits)


def _text(response: Response) -> str:
    """Return the body as text. Tokens are ASCII, so wrongly encoded characters elsewhere do not matter."""
    try:
        text = response.text()
    except UnicodeError:
        text = response.body.decode("utf-8", "replace")
    return text.strip().strip("\ufeff\x00").strip()


def _form(text: str, response: Response) -> dict[str, object]:
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _FORM_TYPES and not re.match(rf"([^<>&\s]*&)*{TOKEN}=", text):
        return {}
    try:
        pairs = parse_qsl(text, max_num_fields=MAX_FIELDS)
    except UNREADABLE:
        return {}
    return {name.strip(): value.strip() for name, value in pairs}


def _lifted(body: dict[str, object]) -> dict[str, object]:
    """Return the members, or those of the nested object that holds a token if the top level has none."""
    if body.get(TOKEN):
        return body
    inner = [value for value in body.values() if isinstance(value, dict) and isinstance(value.get(TOKEN), str)]
    return inner[0] if len(inner) == 1 else body


def _plain_code(body: dict[str, object]) -> str:
    error = body.get("error")
    if isinstance(error, dict):
        # Meta and Google nest their errors; an empty object is an error, too.
        error = error.get("code") or error.get("type") or "unknown"
    if error in (None, "", False):
        # HubSpot's `status`, Cognito's `__type` (which can have a namespace before a #).
        status, kind = body.get("status"), body.get("__type")
        if isinstance(kind, str):
            error = kind.rpartition("#")[2]
        elif isinstance(status, str) and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", status):
            error = status
    return "" if error in (None, "", False) else str(error).strip().lower()


def _listed_code(body: dict[str, object]) -> str:
    """Return the code of the first of `errors`: Fitbit's `errorType`, Strava's `resource` and `code`."""
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    if isinstance(first, str):
        return first.strip().lower()
    if not isinstance(first, dict):
        return "unknown" if errors else ""
    resource = str(first.get("resource") or "").lower()
    if resource in _RESOURCES_OVER:
        return _RESOURCES_OVER[resource]
    return str(first.get("errorType") or first.get("code") or "unknown").strip().lower()


def _words(body: dict[str, object]) -> list[str]:
    """Return the error's sentences in lower case. They are untrusted: match them, never show them."""
    found = [body.get(name) for name in ("error_description", "message", "hint")]
    return [text[:1_000].lower() for text in found if isinstance(text, str)]
