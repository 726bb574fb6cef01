"""The data ingestion endpoints: a destination's own API, so that a program that was written for it can send through Portaria.

A platform's `data_ingestion_api` describes such an API. The caller is authenticated by a private integration's token in the
header that the platform's API uses. The response is sent after all records are in the queue. A caller that gets no response
sends the request again. Records that were queued before are then upserted twice, which has the same result as once.
"""

from __future__ import annotations

import json
import os
import re
import traceback
import uuid
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import Any

from aws_lambda_powertools import Logger, single_metric
from aws_lambda_powertools.metrics import MetricUnit

from portaria import platforms
from portaria.access.auth_throttle import AuthThrottle
from portaria.api import authentication, call_metrics
from portaria.api.authentication import Caller
from portaria.aws import queues, service_clients
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core import clock, record_messages
from portaria.core.callbacks import Record
from portaria.core.entities import Connection, Target, Trace
from portaria.core.errors import (
    ApiTokenRefused,
    AuthThrottled,
    MissingScope,
    PortariaError,
    Rejected,
    Retryable,
    StackUnavailable,
    TokenMissing,
)
from portaria.core.http.request import HttpRequest
from portaria.platforms import record_protocols as protocols
from portaria.records import receipts

Answer = dict[str, Any]

SCOPE = "records:send"
WARNING_HEADER = "X-Portaria-Warning"
# How long an instance remembers which connections an account has: to ask for each call would cost as much as the token.
KNOWN_FOR = timedelta(seconds=60)
MAX_KNOWN = 1_000
RETRY_AFTER_S = 5
# ASCII is a subset of UTF-8.
CHARSETS = ("utf-8", "utf8", "us-ascii")
_FAILED_ATTEMPTS = (ApiTokenRefused, AuthThrottled)


@dataclass(frozen=True)
class AcceptedCall:
    """A call whose records are queued, as the log tells of it; `headers` are what its sender says of it."""

    caller: str
    destination: str
    object: str
    count: int
    size: int
    headers: dict[str, str]
    warnings: list[str]


class DataIngestionApi:
    """The data ingestion endpoints of all platforms; `records_queue_url` is the queue that gets their records."""

    def __init__(self, table: Table, records_queue_url: str, logger: Logger) -> None:
        self.table = table
        self.records_queue_url = records_queue_url
        self.logger = logger
        self.auth_throttle = AuthThrottle(table)
        self._apis = {
            api.ROOT: (platform.name, api) for platform in platforms.every() if (api := platform.data_ingestion_api)
        }
        self._known: dict[tuple[str, str], tuple[float, list[Connection]]] = {}

    def answer(self, request: HttpRequest) -> Answer:
        """Answer a call in the platform's own shape."""
        request_id = str(uuid.uuid4())
        self.logger.append_keys(request=request_id)
        platform, api = self._apis["/" + request.resource.split("/")[1]]
        try:
            taken = self._take(request, platform, api, request_id)
        except Rejected as rejected:
            self.logger.warning("records_refused", reason=rejected.reason, detail=rejected.detail)
            return self._refuse(api, rejected, rejected.status, request_id)
        except Retryable as later:
            self.logger.warning("records_postponed", reason=later.reason, detail=later.detail)
            if isinstance(later, StackUnavailable):
                call_metrics.count(call_metrics.FAILED)
            if isinstance(later, AuthThrottled):
                return self._refuse(api, later, 429, request_id, later.after_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            # Its text may quote what was sent, so only its kind and place are told, and those only to the log.
            kind = service_clients.error_code(error) or type(error).__name__
            self.logger.error("call_failed", error=kind, at=traceback.format_tb(error.__traceback__))
            call_metrics.count(call_metrics.FAILED)
        else:
            self.logger.info(
                "records_accepted",
                caller=taken.caller,
                destination=taken.destination,
                object=taken.object,
                count=taken.count,
                bytes=taken.size,
                headers=taken.headers,
                warnings=len(taken.warnings),
            )
            _count("RecordsAccepted", taken.count)
            return _http(202, "", request_id, {WARNING_HEADER: taken.warnings} if taken.warnings else {})
        detail = "what this needs does not answer now; send the whole request again in a few seconds"
        return self._refuse(api, Retryable("unavailable", detail), 500, request_id, RETRY_AFTER_S)

    def _take(
        self, request: HttpRequest, platform: str, api: protocols.DataIngestionApi, request_id: str
    ) -> AcceptedCall:
        """Check a call and queue its records.

        If the process dies before the last message is queued, the caller gets no answer, and the note counts more records than
        are on their way.
        """
        if request.resource not in api.RESOURCES or request.method != "POST":
            # Nothing is looked up: which paths there are is public.
            detail = (
                f"there is nothing at this path with this method; send records by POST to {', '.join(api.RESOURCES)}"
            )
            raise Rejected("unknown_path", detail, status=404)
        parameters = request.path_parameters
        caller = self._caller(request, api)
        connection = self._connection(caller, platform, api, parameters)
        headers = {name: _header(request, name, most) for name, most in api.HEADERS.items()}
        trace = Trace(headers[api.CORRELATION_HEADER], headers[api.SOURCE_HEADER])
        _check_content_type(request)
        body = _body(request)
        now = clock.now()
        sent = api.parse(request.resource, parameters, body, connection.name, int(now.timestamp()))
        integration = caller.id.rpartition(":")[2]
        bodies: list[str] = []
        for target, records in sent.groups:
            bodies += _pack(records, target, integration, int(now.timestamp() * 1000), request_id, trace)
        receipts.note_request(
            self.table,
            request_id,
            caller=caller.id,
            destination=connection.name,
            object=sent.object,
            count=sent.count,
            trace=trace,
        )
        queues.send(self.records_queue_url, bodies, tenant=integration)
        return AcceptedCall(caller.id, connection.name, sent.object, sent.count, len(body), headers, sent.warnings)

    def _caller(self, request: HttpRequest, api: protocols.DataIngestionApi) -> Caller:
        token = request.headers.once(api.TOKEN_HEADER)
        if not token:
            raise TokenMissing(f"send a private integration's token in {api.TOKEN_HEADER}", status=403)
        return authentication.holder(
            token, request.source_address or authentication.UNKNOWN_SOURCE, self.table, self.auth_throttle
        )

    def _connection(
        self, caller: Caller, platform: str, api: protocols.DataIngestionApi, parameters: dict[str, str]
    ) -> Connection:
        """The one that the account's records go through: of several that the caller may use, the first that works, by name.

        A token for some connections only gets the same answer (403) for an account of another connection as for an account
        without one, so that it cannot find out which accounts are connected.
        """
        if not caller.allows_some(SCOPE):
            raise MissingScope(f"this token's private integration lacks the scope {SCOPE}")
        account_id = api.account_id(parameters)
        usable = [each for each in self._of_account(platform, account_id) if caller.allows(SCOPE, each.name)]
        if not usable and not caller.allows(SCOPE):
            detail = (
                "this token may send to some connections only, and the account that the path names belongs to none of them: "
                f"check the account in the path, or give the private integration the scope {SCOPE}@ and the connection's name"
            )
            raise MissingScope(detail)
        if not usable:
            detail = "the account that the path names has no connection here: make one"
            raise Rejected("unknown_account", detail, status=404)
        return next((each for each in usable if each.state == "connected"), usable[0])

    def _of_account(self, platform: str, account_id: str) -> list[Connection]:
        now = clock.now().timestamp()
        until, known = self._known.get((platform, account_id), (0.0, []))
        if until > now:
            return known
        found = [
            each for each in connection_store.of_account(self.table, platform, account_id) if each.state != "removed"
        ]
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        if found:
            self._known[platform, account_id] = (now + KNOWN_FOR.total_seconds(), found)
        return found

    def _refuse(
        self,
        api: protocols.DataIngestionApi,
        error: PortariaError,
        status: int,
        request_id: str,
        after_s: float | None = None,
    ) -> Answer:
        refusal = api.refusal(error.reason, status, error.detail)
        _count("RequestsRefused", 1, code=refusal.code)
        if isinstance(error, _FAILED_ATTEMPTS):
            # The one that `router` counts: for the alarm, when there are many.
            call_metrics.count(call_metrics.ATTEMPT_FAILED)
        headers = {"Content-Type": ["application/json"]}
        if after_s is not None:
            headers["Retry-After"] = [str(max(1, ceil(after_s)))]
        return _http(refusal.status, json.dumps(refusal.body), request_id, headers)


def _pack(
    records: list[Record], target: Target, integration: str, read_at: int, request_id: str, trace: Trace
) -> list[str]:
    """Raises `Rejected` (`record_too_large`) for what would become a dead letter without its data after the caller's 202."""
    bodies = record_messages.pack(
        records,
        connection=integration,
        object=target.object,
        origin=record_messages.FRONT_DOOR,
        read_at=read_at,
        request=request_id,
        target={
            "destination": target.destination,
            "object": target.object,
            "priority": target.priority,
            "options": dict(target.options),
        },
        trace=trace.fields,
    )
    for body in bodies:
        if '"refused":' in body:
            for record in json.loads(body)["records"]:
                if "refused" in record:
                    raise Rejected(record["refused"]["reason"], record["refused"]["detail"])
    return bodies


def _header(request: HttpRequest, name: str, most: int) -> str:
    """A header that may be left out. Raises `Rejected` (`bad_header`, `header_repeated`)."""
    value = request.headers.once(name)
    if len(value) > most:
        raise Rejected(
            "bad_header", f"the header {name} may have {most} characters; this has {len(value):,}", field=name
        )
    if not re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*", value):
        raise Rejected("bad_header", f"the header {name} may hold no control characters", field=name)
    return value


def _check_content_type(request: HttpRequest) -> None:
    """Raises `Rejected` (`bad_content_type`, `header_repeated`) for anything but JSON in UTF-8. What was sent is not quoted."""
    media_type, *parameters = (text.strip().lower() for text in request.headers.once("Content-Type").split(";"))
    if media_type != "application/json":
        what = "must be" if media_type else "is missing: it must be"
        raise Rejected("bad_content_type", f"the header Content-Type {what} application/json", field="Content-Type")
    for name, _, value in (parameter.partition("=") for parameter in parameters):
        if name.strip() == "charset" and value.strip(' "') not in CHARSETS:
            raise Rejected(
                "bad_content_type",
                "the charset in Content-Type must be utf-8, as the body must be",
                field="Content-Type",
            )


def _body(request: HttpRequest) -> bytes:
    """The body as it was sent. Raises `Rejected` (`bad_body`)."""
    encoding = request.headers.once("Content-Encoding").lower()
    if encoding not in ("", "identity"):
        raise Rejected("bad_body", "the body must come as it is: leave Content-Encoding out", field="Content-Encoding")
    if request.body is None:
        raise Rejected("bad_body", "the body must be JSON in UTF-8")
    return request.body


def _count(name: str, value: int, **dimensions: str) -> None:
    with single_metric(name, MetricUnit.Count, value) as metric:
        metric.add_dimension("service", os.environ["POWERTOOLS_SERVICE_NAME"])
        for dimension, text in dimensions.items():
            metric.add_dimension(dimension, text)


def _http(status: int, body: str, request_id: str, headers: dict[str, list[str]]) -> Answer:
    standard = {"X-Request-Id": [request_id], "Cache-Control": ["no-store"], "X-Content-Type-Options": ["nosniff"]}
    return {"statusCode": status, "multiValueHeaders": standard | headers, "body": body, "isBase64Encoded": False}
