"""Adobe's Data Ingestion API, as Portaria offers it: its paths, headers, limits and error responses.

A program that was written for Adobe's API gets the same responses here. `ingestion_bodies` reads what it sends.
https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

from portaria.core.callbacks import Record
from portaria.core.entities import Target
from portaria.core.errors import Rejected
from portaria.platforms.marketo import destination, ingestion_bodies, tokens
from portaria.platforms.marketo.ingestion import MAX_BODY_BYTES
from portaria.platforms.values import IngestionCall, IngestionRefusal

# The first segment of the paths, and the segment with the subscription's Munchkin id.
ROOT = "/subscriptions"
_OWN = f"{ROOT}/{{subscription}}"
TOKEN_HEADER = "X-Mkto-User-Token"  # noqa: S105 - a header's name
CORRELATION_HEADER, SOURCE_HEADER = "X-Correlation-Id", "X-Request-Source"
# The maximum number of characters of each header.
HEADERS = {CORRELATION_HEADER: 255, SOURCE_HEADER: 50}
RESOURCES = tuple(f"{_OWN}/{path}" for path in ingestion_bodies.READERS)

# Reasons → Adobe's error codes. Other reasons have the code of their status.
CODES = {
    "token_missing": "403010",
    "token_refused": "401013",
    "token_rotated": "401013",
    "missing_scope": "4030801",
    "invalid_data": "4000802",
    "too_many_attempts": "429001",
}
CODES_BY_STATUS = {400: "4000801", 404: "404040", 500: "5000801"}
MESSAGES = {
    "401013": "Oauth token is not valid",
    "403010": "Oauth token is missing",
    "404040": "Resource not found",
    "429001": "Service usage limit reached",
    "4000801": "Invalid request",
    "4000802": "Invalid data",
    "4030801": "Unauthorized",
    "5000801": "Internal server error",
}


def account_id(parameters: dict[str, str]) -> str:
    """Return the subscription that a path names. Raises `Rejected` (404)."""
    given = parameters.get("subscription", "")
    munchkin_id = tokens.account_id({"munchkin_id": given})
    if not given.isascii() or not tokens.KINDS["client_credentials"].fields["munchkin_id"].fullmatch(munchkin_id):
        raise Rejected("unknown_subscription", "the path names no subscription that is connected here", status=404)
    return munchkin_id


def refusal(reason: str, status: int, detail: str) -> IngestionRefusal:
    """Return Adobe's code and message, followed by the sentence that says what to do."""
    code = CODES.get(reason) or CODES_BY_STATUS.get(status, CODES_BY_STATUS[500 if status >= 500 else 400])
    return IngestionRefusal(int(code[:3]), code, {"error_code": code, "message": f"{MESSAGES[code]}: {detail}"})


def parse(resource: str, parameters: dict[str, str], body: bytes, connection: str, now_s: int) -> IngestionCall:
    """Return a call's records. `resource` is the path as API Gateway names it.

    The records' version is `now_s`, because a call has no time. Raises `Rejected`: 404, `invalid_request`, and
    `invalid_data` if only one of the objects is invalid. The errors do not quote the call.
    """
    path = resource.removeprefix(f"{_OWN}/")
    read = ingestion_bodies.READERS.get(path) if resource in RESOURCES else None
    name = parameters.get("name", "")
    target_object = path.replace("{name}", name)
    if not read or (name and not destination.TARGETS.fullmatch(target_object)):
        raise Rejected("unknown_path", "there is nothing at this path", status=404)
    if len(body) > MAX_BODY_BYTES:
        raise ingestion_bodies.invalid(f"the body may have {MAX_BODY_BYTES:,} bytes; this has {len(body):,}")
    found = read(ingestion_bodies.read_json(body))
    groups = []
    for group in found.groups:
        target = Target(connection, target_object, found.priority, tuple(sorted(group.options.items())))
        groups.append((target, [Record(group.key(each), now_s, each) for each in group.objects]))
    count = sum(len(records) for _, records in groups)
    return IngestionCall(target_object, groups, count, list(found.warnings))
