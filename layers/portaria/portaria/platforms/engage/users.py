"""Registering identifiers of Engage's users from records, many a request.

https://meajuda.engage.bz (API: autenticação e single sign-on, users/identifiers). `identifiers` builds the request and reads
the answer; here it becomes what `pipeline` asks of a destination.
"""

from __future__ import annotations

import json
import re
from typing import Any

from portaria.core.entities import (
    Answer,
    Connection,
    Disposition,
    Rejected,
    Request,
    Response,
    Retryable,
    Secret,
    Target,
    Trace,
)
from portaria.platforms.engage import identifiers
from portaria.platforms.engage.destination import ATTRIBUTES

RANK = 0
MAX_OBJECTS = identifiers.MAX_USERS
# Not documented; as many users as a request may have, at their longest and all in characters of four bytes, have less.
MAX_BODY_BYTES = 250_000
VALUE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")
# The client id and the customer's token go with each request, beside the token of the log-in.
NEEDS_STATIC_CREDENTIALS = True
REQUESTS_PER_SECOND: float | None = None

# What each outcome asks for; `pipeline` does it. After `no_verdict` users may have been registered, and registering them again
# does no harm.
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
    """A user's login and identifier; a whole number becomes text, since many systems' ids are numbers.

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
    """An identifier is one user's, the newest one's; a user may have several."""
    return str(attributes["identifier"])


def frame(target: Target) -> tuple[bytes, bytes]:
    return b"[", b"]"


def request(
    connection: Connection, credentials: dict[str, Secret], target: Target, body: bytes, trace: Trace
) -> Request:
    """Raises `Rejected` (`no_credentials`) where the connection has no customer_token. Engage takes no trace."""
    return identifiers.register_request(connection, credentials, credentials["access_token"], json.loads(body))


def read_answer(response: Response) -> Answer:
    """By the table of meanings; what Engage itself says is not told on, since it may quote what was sent."""
    detail = ""
    after_s = None
    try:
        refused = identifiers.read_answer(response)
        code, detail = (refused.reason, refused.detail) if refused else ("registered", "")
    except Rejected as rejected:
        # A token of 25 minutes ends, and is the likelier cause of a 401; a new one tells.
        code, detail = "token_refused" if response.status == 401 else rejected.reason, rejected.detail
    except Retryable as later:
        code, detail, after_s = later.reason, later.detail, later.after_s
    if code == "no_verdict" and 400 <= response.status < 500 and response.status not in (408, 425):
        # Not about a user, so it is the same for the next one until somebody acts.
        code, detail = (
            "refused",
            f"Engage refuses every user with {response.status}: check the connection and its application",
        )
    meaning = MEANINGS.get(code, Disposition.RETRY)
    return Answer(meaning, "" if meaning is Disposition.APPLIED else code, "", after_s, None, detail)
