"""LeadConnector's private integration tokens, which are valid until they are rotated or deleted in LeadConnector.

https://marketplace.gohighlevel.com/docs/Authorization/PrivateIntegrationsToken and
https://marketplace.gohighlevel.com/docs/ghl/locations/get-location. A 401 has several meanings, which only
its message distinguishes: a missing scope must not end a connection.
"""

from __future__ import annotations

import json
import math
import re
from enum import Enum

from portaria.core.callbacks import Secret
from portaria.core.entities import Connection, Kind
from portaria.core.errors import RateLimited, Rejected, Retryable, TokenRefused
from portaria.core.http.messages import Request, Response

HOST = "services.leadconnectorhq.com"
API_VERSION = "2021-07-28"
KINDS = {
    "bearer": Kind(
        credentials=("token",),
        fields={"location_id": re.compile(r"[A-Za-z0-9]{1,64}")},
        allowed_domain=lambda fields: HOST,
    )
}
MAX_WAIT_S = 300.0
# Tokens are sent in `Authorization`.
TOKEN_HEADER = ""


class Trouble(Enum):
    """What a response other than a success says about the token."""

    DEAD = "dead"
    NO_SCOPE = "no_scope"
    NOT_THIS_LOCATION = "not_this_location"
    WRONG_TYPE = "wrong_type"
    UNKNOWN = "unknown"


# By status and the start of the message in lower case.
_TROUBLES = {
    (401, "invalid private integration token"): Trouble.DEAD,
    (401, "invalid jwt"): Trouble.DEAD,
    (401, "the token is not authorized for this scope"): Trouble.NO_SCOPE,
    (403, "the token does not have access to this location"): Trouble.NOT_THIS_LOCATION,
    # An agency's token instead of a location's: the first for OAuth, the second for private integrations. Both were reported by
    # third parties.
    (401, "this authclass type is not allowed"): Trouble.WRONG_TYPE,
    (401, "token's user type mismatch"): Trouble.WRONG_TYPE,
    # Not about the token; listed so that they are not confused with the others.
    (401, "command timed out"): Trouble.UNKNOWN,
    (401, "version header was not found"): Trouble.UNKNOWN,
}


def trouble(response: Response) -> Trouble:
    said = _message(response)
    for (status, start), meaning in _TROUBLES.items():
        if response.status == status and said.startswith(start):
            return meaning
    return Trouble.UNKNOWN


def wrong_type() -> Rejected:
    detail = "this is an agency's token: create a private integration inside the location and use its token"
    return Rejected("wrong_token_type", detail, status=409)


def is_lasting(response: Response) -> bool:
    """Whether a response that is not about one contact stays the same until a person acts."""
    if response.status in (400, 408, 413, 422, 425, 429) or not 400 <= response.status < 500:
        return False
    return not _message(response).startswith("command timed out")


def token_refused(response: Response) -> bool:
    """Whether the token is invalid. A missing scope or a 401 for another cause does not count."""
    return trouble(response) is Trouble.DEAD


def call_headers(connection: Connection) -> dict[str, str]:
    """LeadConnector responds with 401 to calls without a version."""
    return {"Version": API_VERSION}


def probe_request(connection: Connection, credentials: dict[str, Secret]) -> Request:
    """Read the location itself, which touches no contact and shows whether the token is another location's."""
    return Request(
        "GET",
        f"https://{HOST}/locations/{connection.fields['location_id']}",
        {
            **call_headers(connection),
            "Authorization": f"Bearer {credentials['token'].reveal()}",
            "Accept": "application/json",
        },
        max_response_bytes=1_000_000,
    )


def read_probe(response: Response) -> None:
    """Return if the token works for the location. A token without the scope to read the location works, too.

    Raises `TokenRefused` if it is invalid, `Rejected` (`wrong_location`, `wrong_token_type`), and `Retryable` if it is unknown.
    """
    if response.status == 200 and object_of(response.body):
        return
    match trouble(response):
        case Trouble.NO_SCOPE:
            return
        case Trouble.DEAD:
            raise TokenRefused("LeadConnector refused the token", status=409)
        case Trouble.NOT_THIS_LOCATION:
            raise Rejected("wrong_location", "the token does not have access to this location", status=409)
        case Trouble.WRONG_TYPE:
            raise wrong_type()
    if response.status in (400, 404, 422):
        raise Rejected("wrong_location", "LeadConnector has no location with this location_id", status=409)
    if response.status == 429:
        raise RateLimited("LeadConnector's rate limit is reached (429)", after_s=retry_after_s(response))
    raise Retryable("no_verdict", f"LeadConnector answered {response.status} and did not say whether the token works")


def _message(response: Response) -> str:
    """Return the response's `message` in lower case, the first of a list."""
    said = object_of(response.body).get("message")
    if isinstance(said, list):
        said = said[0] if said else ""
    return said.strip().lower() if isinstance(said, str) else ""


def object_of(body: bytes) -> dict[str, object]:
    """Return the body's JSON object; empty for any other body."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def retry_after_s(response: Response) -> float:
    """Return the wait; by default ten seconds, the length of LeadConnector's window."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return 10.0
    return min(MAX_WAIT_S, max(1.0, seconds)) if math.isfinite(seconds) else 10.0
