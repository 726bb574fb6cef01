"""Administering connections by using them: what a caller may ask to have sent, and how the answer is shown."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BeforeValidator, Field

from portaria.api.operation import ApiRequest, Reply
from portaria.api.schemas import Output
from portaria.api.validation import Input
from portaria.connections import connection_store, proxy_call
from portaria.connections.proxy_call import Call
from portaria.core.errors import AnswerTooLarge, Rejected, Retryable, Unreachable

# A body of 1,000,000 bytes in base64, or as text of which every other character has to be escaped.
MAX_REQUEST_BYTES = 2_100_000
# Of Lambda's 6 MB, in which an answer stands as JSON within JSON.
MAX_SHOWN_BYTES = 6_000_000


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class CallRequest(Input):
    """A request to send to the connection's API. Give `path` or `url`, and at most one of `body`, `body_base64` and
    `json`.
    """

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(description="The HTTP method.")
    path: str | None = Field(default=None, description="A path that begins with `/`, with its query.")
    url: str | None = Field(
        default=None, description="A whole `https://` URL within the connection's `allowed_domain`."
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="Headers of the request. Those that the connection sets, such as `Authorization`, are refused.",
    )
    query: dict[str, Annotated[list[str], BeforeValidator(_as_list)]] = Field(
        default_factory=dict,
        description="Query parameters, which are encoded and added to the path or URL. A value is a text or a list of texts.",
    )
    body: str | None = Field(default=None, description="The body as text.")
    body_base64: str | None = Field(default=None, description="The body in base64.")
    content: Any = Field(
        default=None, alias="json", description="The body as JSON. `Content-Type` is `application/json` by default."
    )

    def changes(self) -> bool:
        """Whether it may change something at the API that is called (RFC 9110, 9.2.1)."""
        return self.method not in ("GET", "HEAD")

    def audited(self) -> dict[str, Any]:
        """Where it goes, without the query, which may hold anything."""
        return {"method": self.method, **proxy_call.whereabouts(self.url or self.path or "")}


class CallResponse(Output):
    """The response of the connection's API, whatever its status."""

    status: int = Field(description="The status of the API's response.")
    headers: dict[str, str] = Field(
        description="The headers of the API's response, without cookies and connection headers."
    )
    body: str | None = Field(description="The body if it is UTF-8. Null if it is empty or in `body_base64`.")
    body_base64: str | None = Field(description="The body in base64 if it is not UTF-8.")
    withheld: str | None = Field(
        description="Why the body is not returned: it contained the connection's credential, or it could not be decoded. "
        "Detecting the credential is best effort.",
    )


def call(asked: ApiRequest) -> Reply:
    """Raises `Rejected` and `Retryable` as `proxy_call.send` does, and `Rejected` for what is no call.

    Where no whole answer came, it says what became of the call: 504 `answer_lost` (it may have been carried out), 502
    `unreachable` (nothing was sent).
    """
    wanted = _read(asked.sent)
    connection = connection_store.get(asked.context.table, asked.path["name"])
    try:
        return Reply(show(proxy_call.send(asked.context.tokens, connection, wanted)))
    except Retryable as later:
        raise what_became(later) from None


def what_became(later: Retryable) -> Exception:
    """The error that says whether the request was sent."""
    if later.answer_lost:
        return Rejected(
            later.reason,
            f"{later.detail}; the request may have been processed, so check before you repeat it",
            status=504,
        )
    if isinstance(later, Unreachable):
        return Rejected(later.reason, f"{later.detail}; nothing was sent", status=502)
    return later.replaced(detail=f"{later.detail}; the request was not sent")


def show(answered: proxy_call.Answered) -> dict[str, Any]:
    """An answer whose body is UTF-8 as text, any other in base64. Raises `Rejected` (502 `answer_too_large`)."""
    response = answered.response
    head: dict[str, Any] = {
        "status": response.status,
        "headers": response.headers,
        "body": None,
        "body_base64": None,
        "withheld": answered.withheld or None,
    }
    try:
        shown = {**head, "body": response.body.decode() or None}
    except UnicodeDecodeError:
        shown = _in_base64(head, response.body)
    if shown["body"] and _size(shown) > MAX_SHOWN_BYTES:
        # Quotes and control characters are escaped twice on the way; base64 never is.
        shown = _in_base64(head, response.body)
    if _size(shown) > MAX_SHOWN_BYTES:
        raise AnswerTooLarge("the response is too large: Lambda can return 6 MB")
    return shown


def _read(asked: CallRequest) -> Call:
    given = asked.model_fields_set
    if (asked.path is None) == (asked.url is None):
        raise Rejected("bad_call", "give either path or url", field="path")
    if asked.path is not None and not asked.path.startswith("/"):
        raise Rejected("bad_call", "the path must begin with /; put a whole URL into url", field="path")
    if asked.url is not None and asked.url.startswith("/"):
        raise Rejected("bad_call", "the url must begin with https://; put a path into path", field="url")
    if len(given & {"body", "body_base64", "content"}) > 1:
        raise Rejected("bad_call", "give only one of body, body_base64 and json", field="body")
    target = asked.path if asked.path is not None else str(asked.url)
    if asked.query:
        target += ("&" if "?" in target else "?") + urlencode(asked.query, doseq=True)
    headers = dict(asked.headers)
    if "content" in given and "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = "application/json"
    return Call(asked.method, target, headers, _body(asked, given))


def _body(asked: CallRequest, given: set[str]) -> bytes | None:
    try:
        if "content" in given:
            return json.dumps(asked.content, ensure_ascii=False, allow_nan=False).encode()
        if asked.body_base64 is not None:
            return b64decode(asked.body_base64.encode("ascii"), validate=True)
    except (ValueError, RecursionError):
        field = "json" if "content" in given else "body_base64"
        raise Rejected(
            "bad_call", f"{field} must be " + ("JSON" if field == "json" else "base64"), field=field
        ) from None
    return None if asked.body is None else asked.body.encode()


def _in_base64(head: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {**head, "body_base64": b64encode(body).decode()}


def _size(shown: dict[str, Any]) -> int:
    """What it takes within the answer that Lambda is given."""
    return len(json.dumps(json.dumps(shown, ensure_ascii=False)))
