"""The API's request handling: authenticate, authorize, read the body, run the operation, answer.

`/v1` and `/admin/v1` differ only in who calls.
"""

from __future__ import annotations

import json
import re
import traceback
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace as with_changes
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools import Logger

from portaria.access import audit
from portaria.access.auth_throttle import AuthThrottle
from portaria.api import answers, authentication, call_metrics, listing_parameters, schemas, validation
from portaria.api.answers import Answer
from portaria.api.api_url import api_url
from portaria.api.authentication import ADMIN_PREFIX, TOKEN_PREFIX, Caller
from portaria.api.idempotency import keys as idempotency
from portaria.api.operation import TOKENS, ApiContext, ApiRequest, Content, Operation, PassedResponse, Reply
from portaria.aws import service_clients
from portaria.core.errors import (
    AnswerUnusable,
    ApiTokenRefused,
    AuthThrottled,
    MissingScope,
    Rejected,
    Retryable,
    StackUnavailable,
)
from portaria.core.http.request import HttpRequest

if TYPE_CHECKING:
    from portaria.api.idempotency.store import IdempotencyStore

MAX_PATH_LENGTH = 300
# Every name and id in a path. Other characters could be misread as part of a key or of a secret's name.
_NAMED = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Service:
    """The operations of one function, found by method and path. Every exception becomes an answer."""

    def __init__(self, find: Callable[[str, str], Operation | None], context: ApiContext, logger: Logger) -> None:
        self._find = find
        self.context = context
        self.logger = logger
        self.auth_throttle = AuthThrottle(context.table)

    def answer(self, request: HttpRequest, lambda_context: Any, caller: Caller | None = None) -> Answer:
        """Answer a request of API Gateway's proxy integration. The console gives the `caller` of its session."""
        request_id = str(request.request_id or lambda_context.aws_request_id)
        self.logger.append_keys(request=request_id)
        try:
            answer = self._carry_out(request, lambda_context, request_id, caller)
        except Rejected as rejected:
            answer = answers.refused(rejected, request_id)
            if isinstance(rejected, ApiTokenRefused):
                call_metrics.count(call_metrics.ATTEMPT_FAILED)
        except Retryable as later:
            self.logger.warning("call_postponed", reason=later.reason, detail=later.detail)
            answer = answers.postponed(later, request_id)
            if isinstance(later, AuthThrottled):
                call_metrics.count(call_metrics.ATTEMPT_FAILED)
            elif isinstance(later, StackUnavailable):
                call_metrics.count(call_metrics.FAILED)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            # Its text may quote what was sent, so only its kind and place are told, and those only to the log.
            kind = service_clients.error_code(error) or type(error).__name__
            self.logger.error("call_failed", error=kind, at=traceback.format_tb(error.__traceback__))
            call_metrics.count(call_metrics.FAILED)
            answer = answers.failed(request_id, passes=service_clients.passes(error))
        self.logger.info("call_answered", status=answer["statusCode"], resource=request.resource)
        found = self._operation(request)
        if found and (deprecation := found[1].deprecation):
            answer["multiValueHeaders"] |= {name: [value] for name, value in deprecation.headers.items()}
        return answer

    def _operation(self, request: HttpRequest) -> tuple[str, Operation] | None:
        """The operation of a request, and the prefix of its path."""
        for prefix in (TOKEN_PREFIX, ADMIN_PREFIX):
            if request.resource.startswith(f"{prefix}/"):
                operation = self._find(request.method, request.resource.removeprefix(prefix))
                return (prefix, operation) if operation else None
        return None

    def _carry_out(self, request: HttpRequest, lambda_context: Any, request_id: str, known: Caller | None) -> Answer:
        found = self._operation(request)
        # No name is that long, nor would DynamoDB take it for a key.
        if not found or (len(request.path) > MAX_PATH_LENGTH and not found[1].read):
            raise Rejected("unknown_path", "this path does not exist in the API", status=404)
        prefix, operation = found
        given = request.path_parameters
        path = {name: given[name] for name in operation.parameters if name in given}
        caller = known or (
            authentication.principal(request)
            if prefix == ADMIN_PREFIX
            else authentication.bearer(request, self.context.table, self.auth_throttle)
        )
        self.logger.append_keys(operation=operation.id, caller=caller.id)
        self.require_scope(operation, caller, path)
        asked, body = self._read(request, operation, caller, path)
        entry = None
        if operation.changes and _may_change(asked.sent):
            entry = audit.begin(
                self.context.table,
                by=caller.id,
                by_name=caller.name,
                source=caller.source,
                operation=operation.id,
                target="/".join(path.values()) or str(getattr(asked.sent, "name", "")),
                asked=_without_secrets(asked.sent),
                request_id=request_id,
            )
        try:
            reply = _with_nulls(operation, self._run(operation, asked, body, lambda_context))
        except Exception as error:
            if entry:
                reason = error.reason if isinstance(error, Rejected | Retryable) else type(error).__name__
                # A refusal of ours changed nothing; what another system did with a request may not be known.
                refused = isinstance(error, Rejected) and error.status < HTTPStatus.INTERNAL_SERVER_ERROR
                audit.end(self.context.table, entry, "refused" if refused else "failed", reason=reason)
            raise
        if entry:
            audit.end(self.context.table, entry, "done", target=reply.target)
        if operation.read:
            return answers.passed_on(cast(PassedResponse, reply.content), request_id)
        return answers.success(operation.status, _whole(reply), request_id, reply.etag)

    def _run(self, operation: Operation, asked: ApiRequest, body: str, lambda_context: Any) -> Reply:
        if not asked.key:
            return operation.run(asked)
        kept = idempotency.KeptAnswers(
            self.context.sealing_key_id, operation.is_secret, asked.caller.id, operation.id, asked.key
        )
        # Before the request: what was done must not be lost because its answer cannot be sealed.
        kept.prepare()
        made: list[Reply] = []

        def create() -> Content:
            try:
                made.append(operation.run(asked))
            except Rejected as refused:
                was_sent = operation.at_most_once and isinstance(refused, AnswerUnusable)
                if not was_sent and refused.status != HTTPStatus.GATEWAY_TIMEOUT:
                    raise
                return kept.store_unknown(refused)
            return kept.store(made[0].target, made[0].etag, _whole(made[0]))

        sent = json.dumps([asked.path, body])
        time = idempotency.WholeDay() if operation.at_most_once else lambda_context
        first = self._created.once(asked.caller.id, operation.id, asked.key, sent, create, time)
        if made:
            return made[0]
        content = kept.read(first)
        return Reply(content, str(first["etag"]), target=str(first["target"]))

    @cached_property
    def _created(self) -> IdempotencyStore:
        # Imported here: Powertools' utility imports boto3, and few requests have a key.
        from portaria.api.idempotency.store import IdempotencyStore  # noqa: PLC0415

        return IdempotencyStore(self.context.table)

    def require_scope(self, operation: Operation, caller: Caller, path: dict[str, str]) -> None:
        """Raises `Rejected` (403 `missing_scope`, `administrators_only`) unless the caller may do this."""
        if operation.administrators_only and not caller.is_administrator:
            raise Rejected(
                "administrators_only", "only AWS principals can do this, below /admin/v1 or in the console", status=403
            )
        if caller.scopes is None or not operation.scope:
            return
        if operation.checks_scope and caller.allows_some(operation.scope):
            return
        if operation.managers_only and not caller.is_administrator and self.context.managers != TOKENS:
            raise Rejected(
                "administrators_only",
                "only administrators (AWS principals, below /admin/v1) can manage private integrations on this stack",
                status=403,
            )
        connection = path.get("name", "") if operation.narrowable else ""
        if not caller.allows(operation.scope, connection):
            narrowed = f", or {operation.scope}@{connection}" if connection and validation.is_name(connection) else ""
            raise MissingScope(f"the token lacks the scope {operation.scope}{narrowed}")

    def _read(
        self, request: HttpRequest, operation: Operation, caller: Caller, path: dict[str, str]
    ) -> tuple[ApiRequest, str]:
        """The request as the operation receives it, and what identifies its body. Raises `Rejected`."""
        if not all(_NAMED.fullmatch(name) for name in path.values()):
            raise Rejected(
                "unknown_path",
                "the path contains something that cannot be a name or an id: 1 to 64 of A-Z a-z 0-9 _ -",
                status=404,
            )
        limit, cursor = listing_parameters.DEFAULT_LIMIT, None
        filters: dict[str, str] = {}
        if operation.listing:
            limit, cursor, filters = listing_parameters.read_listing(request.query, *operation.filters)
            listing_parameters.check_filters(filters, operation.filters)
        sent: Any = None
        body = b64encode(request.body or b"").decode()
        if operation.read:
            sent = operation.read(request)
            body = sent.fingerprint()
        if operation.input:
            sent = validation.parse(operation.input, validation.read_body(request.body, operation.max_bytes))
        # A proxied request's own `Idempotency-Key` belongs to the API that it is sent to.
        key_header = idempotency.PROXY_HEADER if operation.read else idempotency.HEADER
        key = idempotency.read_key(_header(request, key_header)) if operation.creates else ""
        if_match = _read_etag(_header(request, "If-Match")) if operation.edits else ""
        asked = ApiRequest(self.context, caller, path, sent, limit, cursor, filters, key, if_match, api_url(request))
        return asked, body


def _with_nulls(operation: Operation, reply: Reply) -> Reply:
    if operation.output is None or reply.content is None:
        return reply
    content = reply.content
    if operation.listing:
        items = [schemas.with_nulls(operation.output, each) for each in content["items"]]
        return with_changes(reply, content=content | {"items": items})
    return with_changes(reply, content=schemas.with_nulls(operation.output, content))


def _whole(reply: Reply) -> Content | None:
    if reply.content is None:
        return None
    return reply.content | {name: secret.reveal() for name, secret in reply.once.items()}


def _header(request: HttpRequest, name: str) -> str:
    """A header that may be left out. One that came empty was meant to hold something: without it more would be done than asked.

    Raises `Rejected` (`header_empty`, `header_repeated`).
    """
    value = request.headers.once(name)
    if not value and request.headers.values(name):
        raise Rejected("header_empty", f"the header {name} is empty: give it a value, or leave it out", field=name)
    return value


def _read_etag(text: str) -> str:
    if text in ("", "*"):
        return text
    if len(text) > 2 and text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    raise Rejected(
        "bad_etag", "If-Match must be one ETag with its quotes, as a response returned it, or *", field="If-Match"
    )


def _may_change(sent: Any) -> bool:
    changes: Callable[[], bool] | None = getattr(sent, "changes", None)
    return changes() if changes else True


def _without_secrets(sent: Any) -> dict[str, Any]:
    """What the audit trail may hold of a request: what it defines itself (`audited`), otherwise its fields' names."""
    if sent is None:
        return {}
    audited = getattr(sent, "audited", None)
    return dict(audited()) if audited else {"fields": sorted(sent.model_fields_set)}
