"""Registering identifiers of Engage's users from records, many in one request.

https://meajuda.engage.bz (API: autenticação e single sign-on, users/identifiers). `identifiers` builds the request and reads
the response; this module adapts both to a record destination.
"""

from __future__ import annotations

import json
import re
from typing import Any

from portaria.core.callbacks import Secret
from portaria.core.entities import Answer, Connection, Disposition, Target, Trace
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.platforms.engage import identifiers
from portaria.platforms.engage.destination import ATTRIBUTES

RANK = 0
MAX_OBJECTS = identifiers.MAX_USERS
# Not documented. The maximum number of users with the longest values in four-byte characters needs less.
MAX_BODY_BYTES = 250_000
VALUE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")
# Each request has the client id and the customer's token in addition to the access token.
# Not documented for this API.
REQUESTS_IN_PROGRESS = 1
NEEDS_STATIC_CREDENTIALS = True
REQUESTS_PER_SECOND: float | None = None

# The meaning of each outcome. After `no_verdict` the users may have been registered; registering them again is harmless.
MEANINGS = {
    "registered": Disposition.APPLIED,
    "user_refused": Disposition.BAD_DATA,
    "identifier_taken": Disposition.BAD_DATA,
    "token_refused": Disposition.TOKEN_AGAIN,
    "not_permitted": Disposition.STOP,
    "unknown_customer": Disposition.STOP,
    "refused": Disposition.STOP,
    "rate_limited": Disposition.BACK_OFF,
    "no_verdict": Disposition.RETRY,
}


def check(attributes: dict[str, Any], target: Target) -> dict[str, Any]:
    """Return a user's login and identifier. Whole numbers become text, because many systems' ids are numbers.

    Raises `Rejected` (`bad_value`) that names the attribute.
    """
    if unknown := len(attributes.keys() - set(ATTRIBUTES)):
        raise Rejected(
            "bad_value", f"the user has {unknown} unknown attributes: Engage takes {' and '.join(ATTRIBUTES)} only"
        )
    user = {}
    for name in ATTRIBUTES:
        value = attributes.get(name)
        value = str(value) if type(value) is int else value
        if not isinstance(value, str) or not VALUE.fullmatch(value):
            raise Rejected(
                "bad_value", f"{name} must be text of 1 to 255 characters without control characters", field=name
            )
        user[name] = value
    return user


def identity(attributes: dict[str, Any], target: Target) -> str:
    """An identifier belongs to one user, so the newest record wins. A user can have several identifiers."""
    return str(attributes["identifier"])


def frame(target: Target) -> tuple[bytes, bytes]:
    return b"[", b"]"


def request(
    connection: Connection, credentials: dict[str, Secret], target: Target, body: bytes, trace: Trace
) -> Request:
    """Raises `NoCredentials` without a customer_token. Engage has no header for a trace."""
    return identifiers.register_request(connection, credentials, credentials["access_token"], json.loads(body))


def read_answer(response: Response) -> Answer:
    """Return the meaning by the table. Engage's own message is not repeated, because it can quote the request."""
    detail = ""
    after_s = None
    try:
        refused = identifiers.read_answer(response)
        code, detail = (refused.reason, refused.detail) if refused else ("registered", "")
    except Rejected as rejected:
        # An expired token is the likelier cause of a 401; a new token shows it.
        code, detail = "token_refused" if response.status == 401 else rejected.reason, rejected.detail
    except Retryable as later:
        code, detail, after_s = later.reason, later.detail, later.after_s
    if code == "no_verdict" and 400 <= response.status < 500 and response.status not in (408, 425):
        # Not about one user: the next request gets the same response until a person acts.
        code, detail = (
            "refused",
            f"Engage refuses every user with {response.status}: check the connection and its application",
        )
    meaning = MEANINGS.get(code, Disposition.RETRY)
    return Answer(meaning, "" if meaning is Disposition.APPLIED else code, "", after_s, None, detail)
