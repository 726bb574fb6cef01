"""Calls of boto3's clients to moto without HTTP: botocore passes the JSON of a call to moto's method and reads its JSON.

botocore builds a request, moto reads it with a web framework, builds a response, and botocore reads that: two thirds of the
time of a call. Here parameters are validated as botocore validates them, they pass through JSON in both directions, and moto's
method that carries out the operation is the same. A response with an error takes botocore's way, with its retries.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import urlsplit

from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.endpoint import Endpoint, convert_to_response_dict
from botocore.hooks import EventAliaser
from botocore.model import OperationModel, Shape
from botocore.parsers import JSONParser
from botocore.utils import is_json_value_header
from botocore.validate import ParamValidationDecorator, ParamValidator
from moto.core.botocore_stubber import MockRawResponse
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.parse import JSONParser as RequestParser
from moto.core.responses import BaseResponse
from moto.core.utils import get_service_model
from moto.dynamodb.responses import DynamoHandler
from moto.events.responses import EventsHandler
from moto.kms.responses import KmsResponse
from moto.secretsmanager.responses import SecretsManagerResponse
from moto.sqs.responses import SQSResponse
from moto.utilities.utils import get_partition
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.http import http_date

RESPONSES: dict[str, type[BaseResponse]] = {
    "dynamodb": DynamoHandler,
    "events": EventsHandler,
    "kms": KmsResponse,
    "secretsmanager": SecretsManagerResponse,
    "sqs": SQSResponse,
}
# A transaction of moto's copies the whole table, which fails while another thread writes.
ONE_CALL = threading.RLock()

_convert_to_request_dict = BaseClient._convert_to_request_dict
_resolve_endpoint_ruleset = BaseClient._resolve_endpoint_ruleset
_send_request = Endpoint._send_request
_emit = EventAliaser.emit


class Call(dict[str, Any]):
    """A request's dictionary that also has what moto reads."""

    operation: Operation
    region: str
    parameters: Any


class Answer(NamedTuple):
    """The HTTP response of a successful call, with the attributes that botocore's event handlers read."""

    status_code: int
    headers: dict[str, str]
    content: bytes


class Operation:
    """What is known about an operation before it is called."""

    def __init__(self, client: BaseClient, model: OperationModel) -> None:
        self.model = model
        service = model.service_model.service_name
        self.response = _response(service, model.name)
        shape = model.input_shape
        self.is_valid = Checks().of(shape) if shape else None
        self.is_plain = shape is None or _is_plain(shape)
        self.holds_attribute_values = service == "dynamodb"
        self.validates = isinstance(client._serializer, ParamValidationDecorator)
        serializer = client._serializer._serializer if self.validates else client._serializer
        empty = serializer.serialize_to_request({}, model)
        self.headers: dict[str, str] = empty["headers"]
        self.sent_headers = Headers([*self.headers.items(), ("Host", urlsplit(client.meta.endpoint_url).netloc)])
        self.serializer = serializer
        self.parser = JSONParser()
        self.read = _reader(model.output_shape, self.parser) if model.output_shape else None
        moto_model: Any = get_service_model(service).operation_model(model.name)
        self.request_parser = RequestParser(moto_model)

    def body(self, parameters: dict[str, Any]) -> tuple[str, bool]:
        """The JSON of a call, and whether moto can read it without the types of its members."""
        if self.is_plain:
            try:
                text = json.dumps(parameters)
            except TypeError:
                pass
            else:
                if not (self.holds_attribute_values and _may_hold_bytes(text)):
                    return text, True
        return self.serializer.serialize_to_request(parameters, self.model)["body"].decode(), False

    def request_parsed(self, body: str) -> Any:
        """What moto makes of the body of a request."""
        request: Any = {"body": body}
        return self.request_parser.parse(request)

    def parsed(self, body: str) -> dict[str, Any]:
        """What botocore makes of the body of a response."""
        shape = self.model.output_shape
        if shape is None:
            return {}
        try:
            content = json.loads(body) if body else {}
        except ValueError:
            content = {"message": body}
        if self.holds_attribute_values and _may_hold_bytes(body):
            return self.parser._parse_shape(shape, content)  # type: ignore[no-any-return]
        return content if self.read is None else self.read(content)


def _may_hold_bytes(text: str) -> bool:
    return '"B"' in text or '"BS"' in text


def _is_plain(shape: Shape, seen: tuple[str, ...] = ()) -> bool:
    """Whether a value of this shape is the same in JSON. Bytes in an attribute value are looked for in each value."""
    if shape.name == "AttributeValue" or shape.name in seen:
        return True
    match shape.type_name:
        case "string" | "integer" | "long" | "boolean":
            return True
        case "list":
            return _is_plain(shape.member, (*seen, shape.name))
        case "map":
            return _is_plain(shape.value, (*seen, shape.name))
        case "structure":
            return not shape.is_document_type and all(
                "name" not in member.serialization and _is_plain(member, (*seen, shape.name))
                for member in shape.members.values()
            )
    return False


class Checks:
    """The checks of botocore's `ParamValidator`, without its reports. What it refuses is passed to it for the report."""

    def __init__(self) -> None:
        self.made: dict[str, Callable[[Any], bool]] = {}

    def of(self, shape: Shape) -> Callable[[Any], bool]:
        if is_json_value_header(shape) or shape.serialization.get("hostLabel"):
            return lambda _: False
        least = shape.metadata.get("min")
        match shape.type_name:
            case "string":
                return _is_text if least is None else lambda value: isinstance(value, str) and len(value) >= least
            case "integer" | "long":
                return _is_number if least is None else lambda value: isinstance(value, int) and value >= least
            case "boolean":
                return lambda value: isinstance(value, bool)
            case "blob":
                return lambda value: isinstance(value, (bytes, bytearray, str))
            case "timestamp":
                return ParamValidator()._type_check_datetime  # type: ignore[no-any-return]
            case "list" | "map" | "structure":
                # A structure may contain itself.
                if shape.name not in self.made:
                    self.made[shape.name] = partial(self._later, shape.name)
                    self.made[shape.name] = getattr(self, f"_{shape.type_name}")(shape, least or 0)
                return self.made[shape.name]
        return lambda _: False

    def _later(self, name: str, value: Any) -> bool:
        return self.made[name](value)

    def _list(self, shape: Shape, least: int) -> Callable[[Any], bool]:
        check = self.of(shape.member)
        return lambda value: isinstance(value, (list, tuple)) and len(value) >= least and all(map(check, value))

    def _map(self, shape: Shape, _least: int) -> Callable[[Any], bool]:
        key, value = self.of(shape.key), self.of(shape.value)
        return lambda values: isinstance(values, dict) and all(map(key, values)) and all(map(value, values.values()))

    def _structure(self, shape: Shape, _least: int) -> Callable[[Any], bool]:
        if shape.is_document_type:
            return lambda _: False
        checks = {name: self.of(member) for name, member in shape.members.items()}
        required = frozenset(shape.metadata.get("required", []))
        is_union = shape.is_tagged_union

        def check(value: Any) -> bool:
            if not isinstance(value, dict) or (is_union and len(value) != 1) or not required <= value.keys():
                return False
            try:
                return all([checks[name](each) for name, each in value.items()])
            except KeyError:
                return False

        return check


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int)


def _reader(shape: Shape, parser: JSONParser) -> Callable[[Any], Any] | None:
    """What turns JSON into what botocore's parser makes of it; None if that is the same.

    Attribute values have no bytes here.
    """
    if shape.name == "AttributeValue":
        return None
    match shape.type_name:
        case "blob" | "timestamp":
            return lambda value: parser._parse_shape(shape, value)
        case "list":
            read_member = _reader(shape.member, parser)
            return read_member and (lambda values: [None if value is None else read_member(value) for value in values])
        case "map":
            read_value = _reader(shape.value, parser)
            return read_value and (lambda values: {name: read_value(value) for name, value in values.items()})
        case "structure":
            return _structure_reader(shape, parser)
    return None


def _structure_reader(shape: Shape, parser: JSONParser) -> Callable[[Any], Any]:
    if shape.is_document_type or shape.is_tagged_union:
        return lambda value: parser._parse_shape(shape, value)
    members = [
        (member.serialization.get("name", name), name, _reader(member, parser))
        for name, member in shape.members.items()
    ]

    def read(value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        made = {}
        for json_name, name, read_member in members:
            content = value.get(json_name)
            if content is not None:
                made[name] = content if read_member is None else read_member(content)
        return made

    return read


@cache
def _response(service: str, operation: str) -> type[BaseResponse]:
    """moto's class for a service, with what it would read from a request's headers."""

    def get_action(_: BaseResponse) -> str:
        return operation

    base = RESPONSES[service]
    return type(base.__name__, (base,), {"_get_action": get_action})


@lru_cache(1)
def _date(second: int) -> str:
    return http_date(second)


_partition = cache(get_partition)
_split_url = cache(urlsplit)


def _ask_moto(call: Call) -> tuple[int, dict[str, str], str]:
    """moto's response: the status, the headers and the body."""
    operation, body = call.operation, call["body"]
    response: Any = operation.response()
    url = f"{call['url']}/"
    response.is_werkzeug_request = False
    response.parsed_url = _split_url(url)
    response.uri = url
    response.path = response.raw_path = "/"
    response.method = "POST"
    response.body = body
    response.raw_body = body.encode()
    response.form_data = response.querystring = response.data = {}
    response.uri_match = {}
    response.region = call.region
    response.partition = _partition(call.region)
    response.headers = operation.sent_headers
    response.response_headers = {"server": "amazon.com", "date": _date(int(time.time()))}
    response.params = call.parameters
    response.access_key = "AKIAEXAMPLE"
    response.current_account = DEFAULT_ACCOUNT_ID
    try:
        status, headers, content = response.call_action()
    except HTTPException as error:
        return int(error.code or 500), dict(error.get_headers()), str(error.get_body())
    return int(status), headers, content


_operations: dict[OperationModel, Operation] = {}


def _convert(
    client: BaseClient,
    api_params: dict[str, Any],
    operation_model: OperationModel,
    endpoint_url: str,
    context: dict[str, Any],
    **more: Any,
) -> dict[str, Any]:
    if operation_model.service_model.service_name not in RESPONSES or ".amazonaws.com" not in endpoint_url:
        return _convert_to_request_dict(  # type: ignore[no-any-return]
            client, api_params, operation_model, endpoint_url, context, **more
        )
    if (operation := _operations.get(operation_model)) is None:
        operation = _operations[operation_model] = Operation(client, operation_model)
    if operation.validates and operation.is_valid and not operation.is_valid(api_params):
        # Raises the error with botocore's report.
        client._serializer.serialize_to_request(api_params, operation_model)
    body, is_plain = operation.body(api_params)
    call = Call(
        url_path="/",
        query_string="",
        method="POST",
        headers=dict(operation.headers),
        body=body,
        url=endpoint_url,
        context=context,
    )
    call.operation, call.region = operation, client.meta.region_name
    call.parameters = json.loads(body) if is_plain else operation.request_parsed(body)
    return call


def _resolve(
    client: BaseClient, operation_model: OperationModel, *arguments: Any, **named: Any
) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The URL of a service, which is the same for all its operations. Nothing signs the call."""
    if operation_model.service_model.service_name in RESPONSES:
        return client.meta.endpoint_url, {}, {}
    return _resolve_endpoint_ruleset(client, operation_model, *arguments, **named)  # type: ignore[no-any-return]


def _send(endpoint: Endpoint, request: dict[str, Any], model: OperationModel) -> tuple[Any, dict[str, Any]]:
    if not isinstance(request, Call):
        return _send_request(endpoint, request, model)  # type: ignore[no-any-return]
    attempts = 1
    while True:
        with ONE_CALL:
            status, headers, body = _ask_moto(request)
        if status < 300:
            parsed = request.operation.parsed(body)
            lower = {name.lower(): value for name, value in headers.items()}
            parsed["ResponseMetadata"] = {
                "RequestId": lower["x-amzn-requestid"],
                "HTTPStatusCode": status,
                "HTTPHeaders": lower,
                "RetryAttempts": attempts - 1,
            }
            return Answer(status, lower, body.encode()), parsed
        refused = _refusal(
            endpoint, request, model, AWSResponse(request["url"], status, headers, MockRawResponse(body))
        )
        endpoint._update_retries_context(request["context"], attempts, refused)
        if not endpoint._needs_retry(attempts, model, request, refused, None):
            refused[1]["ResponseMetadata"]["RetryAttempts"] = attempts - 1
            return refused
        attempts += 1


def _refusal(
    endpoint: Endpoint, request: Call, model: OperationModel, http: AWSResponse
) -> tuple[AWSResponse, dict[str, Any]]:
    response, parser = convert_to_response_dict(http, model), request.operation.parser
    parsed: dict[str, Any] = parser.parse(response, model.output_shape)
    endpoint._add_modeled_error_fields(response, parsed, model, parser)
    return http, parsed


def _emit_to_handlers(aliaser: EventAliaser, event_name: str, **named: Any) -> list[Any]:
    """Most events have no handler, which is known from the first time."""
    name = aliaser._alias_event_name(event_name)
    if aliaser._emitter._lookup_cache.get(name, True):
        return aliaser._emitter.emit(name, **named)  # type: ignore[no-any-return]
    return []


@contextmanager
def direct_calls() -> Iterator[None]:
    with (
        patch.object(BaseClient, "_convert_to_request_dict", _convert),
        patch.object(BaseClient, "_resolve_endpoint_ruleset", _resolve),
        patch.object(Endpoint, "_send_request", _send),
        patch.object(EventAliaser, "emit", _emit_to_handlers),
    ):
        yield
