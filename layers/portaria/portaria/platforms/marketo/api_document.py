"""The OpenAPI description of the paths that accept records as Marketo's Data Ingestion API does.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/data-ingestion
"""

from __future__ import annotations

from typing import Any

from portaria.platforms.marketo import data_ingestion_api, ingestion_bodies
from portaria.platforms.marketo.ingestion import MAX_BODY_BYTES, MAX_OBJECTS

Document = dict[str, Any]

# The first segment of the paths, and the title and description.
NAME = data_ingestion_api.ROOT.strip("/")
TAG = (
    "Front door",
    "Records for a connected Marketo subscription, in the format of Adobe's Data Ingestion API. A program that is written for "
    "`https://mkto-ingestion-api.adobe.io` needs only this stack's URL and a private integration's token with the scope "
    "`records:send`.",
)
DESCRIPTION = (
    f"At most {MAX_OBJECTS:,} objects and {MAX_BODY_BYTES:,} bytes. Status 202 means that the records are queued: "
    "`list_receipts` with the `request` of `X-Request-Id` shows their outcome. Scope: `records:send`. It can be narrowed to "
    "the connection."
)
_TEXT: Document = {"type": "string", "minLength": 1, "maxLength": 255}
_ID: Document = {"type": "integer", "minimum": 1}
_PRIORITY: Document = {"type": "string", "enum": list(ingestion_bodies.PRIORITIES), "default": "normal"}
_MEMBERS: Document = {
    "type": "array",
    "items": {"type": "object", "properties": {"leadId": _ID}, "required": ["leadId"], "additionalProperties": False},
    "minItems": 1,
    "maxItems": MAX_OBJECTS,
}


def _objects(description: str) -> Document:
    items = {"type": "object", "additionalProperties": True}
    return {"type": "array", "description": description, "items": items, "minItems": 1, "maxItems": MAX_OBJECTS}


def _body(required: tuple[str, ...], **properties: Document) -> Document:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _programs(*required: str) -> Document:
    program = _body(("programId", *required, "members"), programId=_ID, status=_TEXT, members=_MEMBERS)
    return _body(("programs",), programs={"type": "array", "items": program, "minItems": 1})


_DEDUPE_FIELDS = _body(("field1",), field1=_TEXT, field2=_TEXT) | {
    "description": "One or two attributes by which Marketo finds a person. The default is `email`."
}
_LIST_BODY = _body(("listId", "input"), listId=_ID, input=_MEMBERS)
_LIST_EXAMPLE = {"listId": 1001, "input": [{"leadId": 8}]}
# For each path below the subscription: the operation's id, summary, body and example.
_OPERATIONS: dict[str, tuple[str, str, Document, Document]] = {
    "persons": (
        "send_persons",
        "Send persons",
        _body(
            ("persons",),
            priority=_PRIORITY,
            partitionName=_TEXT,
            dedupeFields=_DEDUPE_FIELDS,
            persons=_objects("Each person's attributes by their REST names in Marketo."),
        ),
        {
            "priority": "normal",
            "dedupeFields": {"field1": "email"},
            "persons": [{"email": "maria@example.com", "firstName": "Maria"}],
        },
    ),
    "customobjects/{name}": (
        "send_custom_objects",
        "Send custom objects",
        _body(
            ("customObjects",),
            priority=_PRIORITY,
            dedupeBy={"type": "string", "enum": ["dedupeFields", "marketoGUID"], "default": "dedupeFields"},
            customObjects=_objects("Each object's attributes by their API names in Marketo."),
        ),
        {"dedupeBy": "dedupeFields", "customObjects": [{"email": "maria@example.com", "vin": "19UYA31581L000000"}]},
    ),
    "companies": (
        "send_companies",
        "Send companies",
        _body(
            ("input",),
            action={
                "type": "string",
                "enum": ["createOrUpdate", "createOnly", "updateOnly"],
                "default": "createOrUpdate",
            },
            dedupeBy={
                "type": "string",
                "enum": ["dedupeFields", "idField"],
                "default": "dedupeFields",
                "description": "`idField` requires the action `updateOnly`.",
            },
            input=_objects("Each company's attributes by their REST names in Marketo."),
        ),
        {"action": "createOrUpdate", "input": [{"externalCompanyId": "c-1", "company": "Padaria Exemplo"}]},
    ),
    "programmembers": (
        "send_program_members",
        "Add program members",
        _programs("status"),
        {"programs": [{"programId": 1044, "status": "Member", "members": [{"leadId": 8}]}]},
    ),
    "programmembers/delete": (
        "remove_program_members",
        "Remove program members",
        _programs(),
        {"programs": [{"programId": 1044, "members": [{"leadId": 8}]}]},
    ),
    "lists": ("send_list_members", "Add list members", _LIST_BODY, _LIST_EXAMPLE),
    "lists/remove": ("remove_list_members", "Remove list members", _LIST_BODY, _LIST_EXAMPLE),
}
_STATUSES = {
    "400": "The request is not valid (`4000801`, `4000802`); `message` names the field.",
    "401": "The token does not work (`401013`).",
    "403": "There is no token (`403010`), or it lacks the scope `records:send` (`4030801`).",
    "404": "The path does not exist, or the subscription is not connected (`404040`).",
    "429": "Too many requests with tokens that do not work (`429001`): wait `Retry-After` seconds.",
    "500": "Temporarily unavailable (`5000801`): send the whole request again after `Retry-After` seconds.",
}

_REQUEST_ID: Document = {"description": "The id of the request.", "schema": {"type": "string"}}
_WARNING: Document = {
    "description": "What is accepted but may be a mistake, such as an attribute that Marketo does not deduplicate by.",
    "schema": {"type": "string"},
}


def paths() -> Document:
    """Return the paths, each with its operation."""
    return {f"{data_ingestion_api.ROOT}/{{subscription}}/{path}": _path(path) for path in _OPERATIONS}


def _path(path: str) -> Document:
    operation_id, summary, schema, example = _OPERATIONS[path]
    content = {"application/json": {"schema": schema, "example": example}}
    operation = {
        "operationId": operation_id,
        "tags": [TAG[0]],
        "summary": summary,
        "description": DESCRIPTION,
        "security": [{"front_door_token": ["records:send"]}],
        "parameters": _parameters(path),
        "responses": _responses(),
        "requestBody": {"required": True, "content": content},
    }
    return {"servers": [{"url": ".."}], "post": operation}


def _parameters(path: str) -> list[Document]:
    given = [
        ("subscription", "path", "The Munchkin id of the Marketo subscription.", {"type": "string"}, "123-ABC-456"),
        *(
            [("name", "path", "The custom object's API name in Marketo.", {"type": "string"}, "car_c")]
            if "{name}" in path
            else []
        ),
        *(
            (name, "header", text, {"type": "string", "maxLength": data_ingestion_api.HEADERS[name]}, "")
            for name, text in (
                ("X-Correlation-Id", "Your own id of the request; receipts show it."),
                ("X-Request-Source", "The name of the program that sends the request."),
            )
        ),
    ]
    return [
        {
            "name": name,
            "in": where,
            **({"required": True} if where == "path" else {}),
            "description": text,
            "schema": schema,
        }
        | ({"example": example} if example else {})
        for name, where, text, schema, example in given
    ]


def _responses() -> Document:
    accepted = {
        "description": "The records are queued.",
        "headers": {"X-Request-Id": _REQUEST_ID, "X-Portaria-Warning": _WARNING},
    }
    return {"202": accepted, **{status: {"$ref": f"#/components/responses/{_name(status)}"} for status in _STATUSES}}


def _name(status: str) -> str:
    return f"FrontDoor{status}"


def responses() -> Document:
    """Return the components that the operations' responses refer to."""
    return {_name(status): _refusal(status) for status in _STATUSES}


def _refusal(status: str) -> Document:
    wait = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return {
        "description": _STATUSES[status],
        "headers": {"X-Request-Id": _REQUEST_ID, **(wait if status in ("429", "500") else {})},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FrontDoorError"}}},
    }


def schemas() -> Document:
    """Return the components that `responses` refers to."""
    text = {"type": "string"}
    return {
        "FrontDoorError": {
            "title": "FrontDoorError",
            "type": "object",
            "description": "An error as Adobe's API describes it. `error_code` is for programs, `message` for people.",
            "properties": {"error_code": text, "message": text},
            "required": ["error_code", "message"],
        }
    }


def security_schemes() -> Document:
    return {
        "front_door_token": {
            "type": "apiKey",
            "in": "header",
            "name": data_ingestion_api.TOKEN_HEADER,
            "description": "A private integration's token, for the front door.",
        }
    }
