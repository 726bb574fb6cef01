"""moto without work that it repeats on every call. Its responses stay the same: only the time that they take changes.

- Its serializer looks for each member of an attribute value under up to ten names, for each of ten members, and for the method
  of each type by name; a plain dictionary has the one member under its own name.
- It reads each update expression again for each call.
- It draws each of the 52 characters of a response's id, and looks for an XML element in each response.
- It builds a parser, with its tables, for each JSONPath of each event.
- It lists the methods of a response class, by inspection, for each call.
- It compares the URL of each call with the patterns of all services.
- It builds the WSGI environment of each call with a form builder.
- It calculates the time since 1970 with a calendar, several times for each message of a queue.
- It registers 1,300 patterns of URLs with `responses` at each start, for calls of `requests`, which nothing here makes to AWS.
- It copies the whole table for each write of a transaction, to be able to undo it.
"""

from __future__ import annotations

import copy
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from io import BytesIO
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

from botocore.awsrequest import AWSPreparedRequest
from jsonpath_ng import ext
from jsonpath_ng.ext.parser import parse
from moto import backends
from moto.backend_index import backend_url_patterns
from moto.core import models, responses
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.request import PRESERVED_HEADER_NAMES_ENVIRON_KEY, Request, environ_key_for_header
from moto.core.serialize import AttributePickerContext, JSONSerializer
from moto.core.utils import camelcase_to_underscores, method_names_from_class, unix_time_millis
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.dynamodb.parsing.expressions import UpdateExpressionParser  # type: ignore[attr-defined]
from moto.sqs import models as sqs
from moto.utilities import aws_headers
from werkzeug.exceptions import HTTPException

from tests.fakes.aws.fast_tables import fast_tables

# Services whose calls are JSON and have a region in their URL.
JSON_SERVICES = ("dynamodb", "events", "kms", "secretsmanager", "sqs")

_serialize_structure = JSONSerializer._serialize_type_structure
_serialize_map = JSONSerializer._serialize_type_map
_get_value = JSONSerializer.get_value
_enrich = responses.BaseResponse._enrich_response
_random = random.Random()
_process_request = BotocoreStubber.process_request
_transact_write_items = DynamoDBBackend.transact_write_items
_parse = cache(parse)
_method_names = cache(method_names_from_class)
_update_tree = cache(UpdateExpressionParser.make)
_underscored = cache(camelcase_to_underscores)


def _serialize_type_structure(serializer: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
    if shape.name != "AttributeValue" or type(value) is not dict or not key:
        return _serialize_structure(serializer, serialized, value, shape, key)
    serializer._default_serialize(serialized, _attribute_value(serializer, value, shape), shape, key)


def _attribute_value(serializer: Any, value: dict[str, Any], shape: Any) -> dict[str, Any]:
    """The JSON of an attribute value. Binary values and sets are left to the serializer."""
    ((kind, content),) = value.items()
    if kind == "L":
        return {kind: [_attribute_value(serializer, each, shape) for each in content]}
    if kind == "M":
        return {kind: {name: _attribute_value(serializer, each, shape) for name, each in content.items()}}
    if kind in ("S", "N", "BOOL", "NULL"):
        return value
    wrapper: dict[str, Any] = {}
    serializer._serialize(wrapper, content, shape.members[kind], kind)
    return wrapper


def _serialize_type_map(serializer: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
    if shape.value.name != "AttributeValue":
        return _serialize_map(serializer, serialized, value, shape, key)
    attributes = {name: _attribute_value(serializer, each, shape.value) for name, each in value.items()}
    serializer._default_serialize(serialized, attributes, shape, key)


_names: dict[tuple[Any, str], tuple[str, ...]] = {}


def _value(serializer: Any, value: Any, key: str, shape: Any) -> Any:
    """A member of a dictionary under the first of its names, which depend on the shape unless there is a transformer."""
    picker = serializer._value_picker
    if type(value) is not dict or picker.response_transformers:
        return _get_value(serializer, value, key, shape)
    if (names := _names.get((shape, key))) is None:
        names = _names[shape, key] = tuple(picker.get_possible_keys(AttributePickerContext(value, key, shape)))
    for name in names:
        if name in value:
            return value[name]
    return None


def _enriched(headers: dict[str, Any], body: Any) -> tuple[dict[str, Any], Any]:
    if not isinstance(body, str) or "<RequestId>" in body:
        return _enrich(headers, body)
    if "status" in headers:
        headers["status"] = str(headers["status"])
    _id_of_response(headers)
    return headers, body


def _id_of_response(headers: dict[str, Any] | None = None) -> str:
    made = f"{_random.getrandbits(208):052X}"
    if headers is not None:
        headers["x-amzn-requestid"] = made
    return made


@cache
def _method_of(url: str) -> Callable[..., Any] | None:
    """The method that answers a URL without its query, or None for a service that is not known here."""
    for service, pattern in backend_url_patterns:
        if pattern.match(url):
            if service not in JSON_SERVICES:
                return None
            backend: Any = backends.get_backend(service)  # type: ignore[call-overload]
            urls = backend[DEFAULT_ACCOUNT_ID]["us-east-1"].urls
            return next((method for pattern, method in urls.items() if re.match(pattern, url)), None)
    return None


def _answer(stubber: BotocoreStubber, request: AWSPreparedRequest) -> Any:
    if (method := _method_of(request.url.partition("?")[0])) is None:
        return _process_request(stubber, request)
    made = _request(request)
    try:
        return method(made, request.url, made.headers)
    except HTTPException as error:
        return error.code, error.get_headers(), error.get_body()


def _request(request: AWSPreparedRequest) -> Request:
    url, body = urlsplit(request.url), request.body or b""
    content = body.encode() if isinstance(body, str) else body
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(url.path, "latin-1"),
        "REQUEST_URI": url.path,
        "RAW_URI": url.path,
        "QUERY_STRING": url.query,
        "SERVER_NAME": url.hostname,
        "SERVER_PORT": str(url.port or 443),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": url.netloc,
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": BytesIO(content),
        PRESERVED_HEADER_NAMES_ENVIRON_KEY: {},
    }
    for name, value in request.headers.items():
        environ[environ_key_for_header(name)] = value.decode() if isinstance(value, bytes) else value
    environ["CONTENT_LENGTH"] = str(len(content))
    return Request(environ)


_keys_in_transaction: ContextVar[list[dict[str, Any]]] = ContextVar("keys_in_transaction")


def _transact(backend: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
    operations = [operation for each in transact_items for operation in each.values()]
    token = _keys_in_transaction.set([operation.get("Key") or operation["Item"] for operation in operations])
    try:
        _transact_write_items(backend, transact_items)
    finally:
        _keys_in_transaction.reset(token)


def _backup(table: Table, _memo: object) -> Table:
    """A copy of the table in which only the items that the transaction may change are copied."""
    backup = copy.copy(table)
    if table.range_key_attr is None:
        backup.items = copy.deepcopy(table.items)
        return backup
    backup.items = defaultdict(dict, {key: copy.copy(items) for key, items in table.items.items()})
    for key in _keys_in_transaction.get():
        items = backup.items.get(DynamoType(key[table.hash_key_attr]), {})
        range_key = DynamoType(key[table.range_key_attr])
        if range_key in items:
            items[range_key] = copy.deepcopy(items[range_key])
    return backup


def _milliseconds(moment: Any = None) -> float:
    return time.time() * 1000 if moment is None else unix_time_millis(moment)


@contextmanager
def fast_moto() -> Iterator[None]:
    with (
        patch.object(JSONSerializer, "_serialize_type_structure", _serialize_type_structure),
        patch.object(JSONSerializer, "_serialize_type_map", _serialize_type_map),
        patch.object(JSONSerializer, "get_value", _value),
        patch.object(ext, "parse", _parse),
        patch.object(responses, "method_names_from_class", _method_names),
        patch.object(responses, "camelcase_to_underscores", _underscored),
        patch.object(sqs, "camelcase_to_underscores", _underscored),
        patch.object(sqs, "unix_time_millis", _milliseconds),
        patch.object(models, "RESPONSES_METHODS", []),
        patch.object(BotocoreStubber, "process_request", _answer),
        patch.object(DynamoDBBackend, "transact_write_items", _transact),
        patch.object(Table, "__deepcopy__", _backup, create=True),
        # moto changes a copy of the tree only.
        patch.object(UpdateExpressionParser, "make", _update_tree),
        patch.object(aws_headers, "gen_amzn_requestid_long", _id_of_response),
        patch.object(responses, "gen_amzn_requestid_long", _id_of_response),
        patch.object(responses.BaseResponse, "_enrich_response", staticmethod(_enriched)),
        fast_tables(),
    ):
        yield
