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
    "Data ingestion",
    "Records for a connected Marketo subscription, in the format of Adobe's Data Ingestion API. A program that is written for "
    "`https://mkto-ingestion-api.adobe.io` needs only this stack's URL and a private integration's token with the scope "
    "`records:send`.",
)
DESCRIPTION = (
    f"At most {MAX_OBJECTS:,} objects and {MAX_BODY_BYTES:,} bytes. Status 202 means that the records are queued: "
    "`list_receipts` with the `request` of `X-Request-Id` shows their outcome. Scope: `records:send`. It can be narrowed to "
    "the connection."
)


def _text(description: str, example: str) -> Document:
    return {"type": "string", "description": description, "minLength": 1, "maxLength": 255, "examples": [example]}


def _id(description: str, example: int) -> Document:
    return {"type": "integer", "description": description, "minimum": 1, "examples": [example]}


def _choice(description: str, default: str, *values: str) -> Document:
    return {
        "type": "string",
        "description": description,
        "enum": list(values),
        "default": default,
        "examples": [default],
    }


def _objects(description: str, example: Document) -> Document:
    items = {"type": "object", "additionalProperties": True}
    return _array(description, items, example) | {"maxItems": MAX_OBJECTS}


def _array(description: str, items: Document, example: Document) -> Document:
    return {"type": "array", "description": description, "items": items, "minItems": 1, "examples": [[example]]}


def _body(required: tuple[str, ...], description: str, **properties: Document) -> Document:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _programs(*required: str) -> Document:
    program = _body(
        ("programId", *required, "members"),
        "A program and its members.",
        programId=_id("The program's id in Marketo.", 1044),
        status=_text("The members' status in the program.", "Member"),
        members=_MEMBERS,
    )
    example = {"programId": 1044, "members": [{"leadId": 8}]} | ({"status": "Member"} if "status" in required else {})
    return _body(("programs",), "Members of programs.", programs=_array("The programs.", program, example))


_MEMBER = _body(("leadId",), "A person.", leadId=_id("The person's id in Marketo.", 8))
_MEMBERS = _array("The persons.", _MEMBER, {"leadId": 8}) | {"maxItems": MAX_OBJECTS}
_PRIORITY = _choice("The priority at Marketo.", "normal", *ingestion_bodies.PRIORITIES)
_DEDUPE_FIELDS = _body(
    ("field1",),
    "One or two attributes by which Marketo finds a person. The default is `email`.",
    field1=_text("The first attribute.", "email"),
    field2=_text("The second attribute.", "externalPersonId"),
) | {"examples": [{"field1": "email"}]}
_LIST_BODY = _body(
    ("listId", "input"), "Members of a static list.", listId=_id("The list's id in Marketo.", 1001), input=_MEMBERS
)
_LIST_EXAMPLE = {"listId": 1001, "input": [{"leadId": 8}]}
# For each path below the subscription: the operation's id, summary, body and example.
_OPERATIONS: dict[str, tuple[str, str, Document, Document]] = {
    "persons": (
        "send_persons",
        "Send persons",
        _body(
            ("persons",),
            "Persons to create or update.",
            priority=_PRIORITY,
            partitionName=_text("The partition of new persons.", "Default"),
            dedupeFields=_DEDUPE_FIELDS,
            persons=_objects(
                "Each person's attributes by their REST names in Marketo.",
                {"email": "maria@example.com", "firstName": "Maria"},
            ),
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
            "Custom objects to create or update.",
            priority=_PRIORITY,
            dedupeBy=_choice("How Marketo finds an object.", "dedupeFields", "dedupeFields", "marketoGUID"),
            customObjects=_objects(
                "Each object's attributes by their API names in Marketo.",
                {"email": "maria@example.com", "vin": "19UYA31581L000000"},
            ),
        ),
        {"dedupeBy": "dedupeFields", "customObjects": [{"email": "maria@example.com", "vin": "19UYA31581L000000"}]},
    ),
    "companies": (
        "send_companies",
        "Send companies",
        _body(
            ("input",),
            "Companies to create or update.",
            action=_choice("What to do.", "createOrUpdate", "createOrUpdate", "createOnly", "updateOnly"),
            dedupeBy=_choice(
                "How Marketo finds a company. `idField` requires the action `updateOnly`.",
                "dedupeFields",
                "dedupeFields",
                "idField",
            ),
            input=_objects(
                "Each company's attributes by their REST names in Marketo.",
                {"externalCompanyId": "c-1", "company": "Padaria Exemplo"},
            ),
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

# An error code of each status.
_CODES = {
    "400": "4000801",
    "401": "401013",
    "403": "4030801",
    "404": "404040",
    "429": "429001",
    "500": "5000801",
}


def paths() -> Document:
    """Return the paths, each with its operation."""
    return {f"{data_ingestion_api.ROOT}/{{subscription}}/{path}": _path(path) for path in _OPERATIONS}


def _path(path: str) -> Document:
    operation_id, summary, schema, example = _OPERATIONS[path]
    content = {"application/json": {"schema": schema | {"examples": [example]}, "example": example}}
    operation = {
        "operationId": operation_id,
        "tags": [TAG[0]],
        "summary": summary,
        "description": DESCRIPTION,
        "security": [{"data_ingestion_token": ["records:send"]}],
        "parameters": _parameters(path),
        "responses": _responses(),
        "requestBody": {"description": schema["description"], "required": True, "content": content},
    }
    return {"post": operation}


def _parameters(path: str) -> list[Document]:
    given = [
        ("subscription", "path", "The Munchkin id of the Marketo subscription.", {"type": "string"}, "123-ABC-456"),
        *(
            [("name", "path", "The custom object's API name in Marketo.", {"type": "string"}, "car_c")]
            if "{name}" in path
            else []
        ),
        *(
            (name, "header", text, {"type": "string", "maxLength": data_ingestion_api.HEADERS[name]}, example)
            for name, text, example in (
                ("X-Correlation-Id", "Your own id of the request; receipts show it.", "nightly-import-2026-11-28"),
                ("X-Request-Source", "The name of the program that sends the request.", "erp-export"),
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
            "example": example,
        }
        for name, where, text, schema, example in given
    ]


def _responses() -> Document:
    accepted = {
        "description": "The records are queued.",
        "headers": _headers("X-Request-Id", "X-Portaria-Warning"),
    }
    return {"202": accepted, **{status: {"$ref": f"#/components/responses/{_name(status)}"} for status in _STATUSES}}


def _name(status: str) -> str:
    return f"DataIngestion{status}"


def responses() -> Document:
    """Return the components that the operations' responses refer to."""
    return {_name(status): _refusal(status) for status in _STATUSES}


def _refusal(status: str) -> Document:
    code = _CODES[status]
    example = {"error_code": code, "message": data_ingestion_api.MESSAGES[code]}
    schema = {"$ref": "#/components/schemas/DataIngestionError"}
    return {
        "description": _STATUSES[status],
        "headers": _headers("X-Request-Id", *(["Retry-After"] if status in ("429", "500") else [])),
        "content": {"application/json": {"schema": schema, "example": example}},
    }


def _headers(*names: str) -> Document:
    """References to the headers of the whole document."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def schemas() -> Document:
    """Return the components that `responses` refers to."""
    code = _CODES["404"]
    example = {"error_code": code, "message": data_ingestion_api.MESSAGES[code]}
    return {
        "DataIngestionError": {
            "title": "DataIngestionError",
            "type": "object",
            "description": "An error as Adobe's API describes it. `error_code` is for programs, `message` for people.",
            "properties": {
                "error_code": {"type": "string", "description": "Adobe's code of the error.", "examples": [code]},
                "message": {
                    "type": "string",
                    "description": "A sentence about the error.",
                    "examples": [example["message"]],
                },
            },
            "required": ["error_code", "message"],
            "examples": [example],
        }
    }


def security_schemes() -> Document:
    return {
        "data_ingestion_token": {
            "type": "apiKey",
            "in": "header",
            "name": data_ingestion_api.TOKEN_HEADER,
            "description": "A private integration's token, for the data ingestion endpoint.",
        }
    }
