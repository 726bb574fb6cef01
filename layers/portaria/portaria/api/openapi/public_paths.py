"""What answers outside the two doors: install pages, webhooks that platforms call, sign-on links, and the API about itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from portaria.api import validation
from portaria.api.openapi import headers, parameters, tags
from portaria.api.openapi.problems import REF, RESPONSES

Document = dict[str, Any]

_TEXT: Document = {"type": "string"}
_PLATFORM = parameters.path(
    "platform", "The platform's name.", _TEXT | {"pattern": f"^(?:{validation.PLATFORM_NAME})$"}, "kommo"
)
_CLIENT = parameters.path(
    "client", "The OAuth client's name.", _TEXT | {"pattern": f"^(?:{validation.CLIENT_NAME})$"}, "shop"
)
_ACCEPT_LANGUAGE = parameters.header(
    "Accept-Language",
    "The languages of the browser. Pages are in Portuguese, Spanish or English.",
    _TEXT,
    "pt-BR,pt;q=0.9",
)
_ACCEPT = parameters.header("Accept", "`text/html` for a page. Programs get one line of text.", _TEXT, "text/html")


def paths(schemas: Document) -> Document:
    """The path items. Their schemas are added to the collection."""
    schemas |= _SCHEMAS
    install = "/install/{platform}/{client}"
    return {
        "/v1/health": {"get": _health()},
        "/v1/openapi.json": {"get": _document()},
        "/v1/reference": {"get": _reference()},
        install: {"get": _arrive()},
        f"{install}/start": {"get": _start()},
        f"{install}/result/{{install}}": {"get": _result()},
        "/events/{platform}/{connection}/{key}": {"post": _event()},
        "/uninstall/{platform}/{client}": {"get": _uninstall()},
        "/receipts/{platform}": {"get": _challenge(), "post": _reports()},
        "/sso/{ticket}": {"get": _sign_on_link()},
    }


def _operation(operation_id: str, tag: str, summary: str, description: str, **more: Any) -> Document:
    made = {
        "operationId": operation_id,
        "tags": [tags.TAGS[tag][0]],
        "summary": summary,
        "description": description,
        "security": [],
        **more,
    }
    return {name: value for name, value in made.items() if value != []}


def _response(
    description: str,
    names: Iterable[str] = (),
    *,
    html: bool = False,
    text: str = "",
    json: Any = None,
    schema: Any = None,
) -> Document:
    """A response with a page, a line of text, or JSON."""
    content: Document = {}
    if html:
        page = _TEXT | {"description": "A page in one of three languages."}
        content["text/html"] = {"schema": page, "example": '<!doctype html><html lang="pt-BR">…</html>'}
    if text:
        content["text/plain"] = {"schema": _TEXT | {"description": "One line of text."}, "example": text}
    if json is not None:
        content["application/json"] = {"schema": schema, "example": json}
    made: Document = {"description": description, "headers": headers.refer(*names)}
    return {name: value for name, value in (made | {"content": content}).items() if value}


def _later(description: str, **content: Any) -> Document:
    return _response(description, [headers.RETRY_AFTER], **content)


def _health() -> Document:
    schema = {"$ref": f"{REF}Health"}
    return _operation(
        "show_health", "platforms", "Get the API's health",
        "For load balancers and monitors: the API answers. No token is needed.",
        responses={
            "200": _response("The API answers.", json={"status": "ok"}, schema=schema),
            "429": {"$ref": f"{RESPONSES}Problem429"},
        },
    )  # fmt: skip


def _document() -> Document:
    schema: Document = {"type": "object", "description": "An OpenAPI document.", "additionalProperties": True}
    return _operation(
        "show_document", "platforms", "Get this document",
        "The OpenAPI document of the stack's version, with the stack's own URL as its server. No token is needed.",
        responses={
            "200": _response(
                "The document.", json={"openapi": "3.1.0", "info": {"title": "Portaria", "version": "1.0.0"}}, schema=schema
            ),
            "429": {"$ref": f"{RESPONSES}Problem429"},
        },
    )  # fmt: skip


def _reference() -> Document:
    language = parameters.query("lang", "The page's language.", _TEXT | {"enum": ["pt", "es", "en"]}, "pt")
    return _operation(
        "show_reference", "platforms", "Get the reference page",
        "This document as a page, in the language of `lang` or of the browser. No token is needed.",
        parameters=[language, _ACCEPT_LANGUAGE],
        responses={"200": _response("The page.", html=True), "429": {"$ref": f"{RESPONSES}Problem429"}},
    )  # fmt: skip


def _arrive() -> Document:
    query = [
        parameters.query("code", "The authorization code.", _TEXT, "EXAMPLE-code"),
        parameters.query(
            "state", "The state of the consent page, if a browser returns from it.", _TEXT, "EXAMPLE-state"
        ),
        parameters.query("error", "The provider's refusal, in place of a code.", _TEXT, "access_denied"),
        parameters.query(
            "referer", "The host of the account, from platforms that send it.", _TEXT, "padaria.kommo.com"
        ),
    ]
    return _operation(
        "accept_install", "install", "Receive an authorization code",
        "The redirect URI of an OAuth client. A marketplace calls it, or a browser returns to it from the consent page. The "
        "response comes after the code is stored; it is exchanged within seconds.",
        parameters=[_PLATFORM, _CLIENT, *query, _ACCEPT, _ACCEPT_LANGUAGE],
        responses={
            "200": _response(
                "The code is stored, or the customer refused consent.", html=True, text="received\n"
            ),
            "303": _response("The code is stored. The browser goes to the result page.", ["Location"]),
            "400": _response("The request is not valid.", html=True, text="missing_code: the code is missing\n"),
            "404": _response("The platform or the OAuth client does not exist.", html=True, text="unknown_client: …\n"),
            "414": _response("The query is too long.", html=True, text="query_too_long: …\n"),
            "503": _later("Temporarily unavailable: send the same request again.", html=True, text="unavailable: …\n"),
        },
    )  # fmt: skip


def _start() -> Document:
    ticket = parameters.query(
        "ticket", "The ticket of a link that `create_authorization` returned.", _TEXT, "EXAMPLE-ticket"
    )
    return _operation(
        "show_install_page", "install", "Open an install page",
        "The page on which a customer installs an application. A link of `create_authorization` redirects to the provider's "
        "consent page instead.",
        parameters=[_PLATFORM, _CLIENT, ticket, _ACCEPT, _ACCEPT_LANGUAGE],
        responses={
            "200": _response("The install page.", ["Set-Cookie"], html=True),
            "303": _response("The browser goes to the consent page.", ["Location", "Set-Cookie"]),
            "400": _response("The query is not valid.", html=True, text="bad_query: …\n"),
            "404": _response(
                "The OAuth client does not exist, or the link does not exist, was used or has expired.", html=True,
                text="used_ticket: …\n",
            ),
            "414": _response("The query is too long.", html=True, text="query_too_long: …\n"),
            "503": _later("Temporarily unavailable: open it again.", html=True, text="unavailable: …\n"),
        },
    )  # fmt: skip


def _result() -> Document:
    install = parameters.path("install", "The install's id.", _TEXT | {"maxLength": 64}, "4f1c2a9b7d3e5f60")
    status = {"state": "connected", "reason": "", "account": "padaria.kommo.com"}
    return _operation(
        "show_install_result", "install", "Get an install's result",
        "The page that a customer sees after the install. With `Accept: application/json` it returns the state, which the page "
        "itself reads until the install has ended.",
        parameters=[_PLATFORM, _CLIENT, install, _ACCEPT, _ACCEPT_LANGUAGE],
        responses={
            "200": _response("The result.", html=True, json=status, schema={"$ref": f"{REF}InstallStatus"}),
            "404": _response("The install does not exist.", html=True, text="unknown_install: …\n"),
            "503": _later("Temporarily unavailable: load it again.", html=True, text="unavailable: …\n"),
        },
    )  # fmt: skip


def _event() -> Document:
    connection = parameters.path(
        "connection", "The connection's name.", _TEXT | {"pattern": f"^(?:{validation.NAME})$"}, "kommo-shop-30513412"
    )
    key = parameters.path("key", "The secret key of the webhook URL.", _TEXT | {"maxLength": 200}, "EXAMPLE-key")
    secret = parameters.header(
        "X-Portaria-Secret",
        "The `header_value` of the URL, for platforms whose events have no signature.",
        _TEXT | {"format": "password"},
        "example-header-value",
    )
    error = {"$ref": f"{REF}EventError"}

    def refusal(description: str, reason: str) -> Document:
        return _response(description, json={"error": reason}, schema=error)

    form = {
        "type": "object",
        "description": "The event as a form, as the platform documents it.",
        "additionalProperties": True,
    }
    json = {"type": "object", "description": "The event as the platform documents it.", "additionalProperties": True}
    body = {
        "description": "The platform's event, in its own format.",
        "required": True,
        "content": {
            "application/json": {
                "schema": json,
                "example": {"type": "ContactUpdate", "id": "ocQHyuzHvysMo5N5VsXc", "email": "maria@example.com"},
            },
            "application/x-www-form-urlencoded": {
                "schema": form,
                "example": {"account[id]": "30513412", "contacts[update][0][id]": "37054081"},
            },
        },
    }
    unavailable = _later(
        "Temporarily unavailable: the platform delivers the event again. Which of 429 and 503 it is depends on the platform.",
        json={"error": "unavailable"}, schema=error,
    )  # fmt: skip
    empty = {"type": "object", "description": "An empty object.", "additionalProperties": False}
    return _operation(
        "receive_event", "incoming-webhooks", "Receive a platform's event",
        "A platform's webhook. An install subscribes by itself; `create_event_address` returns a URL to enter by hand. The "
        "response comes after the event's records are queued.",
        parameters=[_PLATFORM, connection, key, secret],
        requestBody=body,
        responses={
            "200": _response("The records of the event are queued.", json={}, schema=empty),
            "400": refusal("The body is not valid.", "bad_body"),
            "401": refusal("The signature or the secret header is wrong or missing.", "bad_signature"),
            "404": refusal("The URL is not valid, or no longer.", "unknown_address"),
            "413": refusal("The body is too large.", "body_too_large"),
            "415": refusal("The body has another format than the platform's events.", "not_json"),
            "422": refusal("The event is not about the connection's account.", "other_location"),
            "429": unavailable,
            "503": unavailable,
        },
    )  # fmt: skip


def _uninstall() -> Document:
    query = [
        parameters.query("account_id", "The id of the account that uninstalled the application.", _TEXT, "30513412"),
        parameters.query(
            "client_uuid", "The application's id at the platform.", _TEXT, "3b1f0c52-7c1e-4a55-9d2b-0f6f3f1c2a10"
        ),
        parameters.query("signature", "The HMAC-SHA256 of both with the application's secret.", _TEXT, "0f" * 32),
    ]
    return _operation(
        "accept_uninstall", "incoming-webhooks", "Receive an uninstall",
        "The disconnect hook of an OAuth client. The response comes after the uninstall is queued; then the connection, its "
        "credentials and its webhooks are removed.",
        parameters=[_PLATFORM, _CLIENT, *query],
        responses={
            "200": _response("The uninstall is queued.", text="received\n"),
            "400": _response("A parameter is missing, repeated or not valid.", text="bad_hook: …\n"),
            "403": _response("The signature is wrong.", text="bad_signature: …\n"),
            "404": _response("The platform or the OAuth client does not exist.", text="unknown_client: …\n"),
            "503": _response("Temporarily unavailable: send the same request again.", text="queue_unavailable: …\n"),
        },
    )  # fmt: skip


def _challenge() -> Document:
    query = parameters.query("challenge", "The value to return.", _TEXT | {"maxLength": 200}, "EXAMPLE-challenge")
    return _operation(
        "answer_challenge", "incoming-webhooks", "Answer a subscription's challenge",
        "A destination calls it when its delivery reports are registered.",
        parameters=[_PLATFORM | {"example": "marketo"}, query | {"required": True}],
        responses={
            "200": _response("The challenge.", text="EXAMPLE-challenge"),
            "400": _response("The challenge is missing or not valid.", text="bad_challenge: …\n"),
            "404": _response("The stack does not accept reports of this platform.", text="not_set_up: …\n"),
            "503": _response("Temporarily unavailable.", text="storage_unavailable: try again later\n"),
        },
    )  # fmt: skip


def _reports() -> Document:
    schema: Document = {
        "description": "A report, or a list of reports, as the platform documents it.",
        "anyOf": [
            {"type": "object", "additionalProperties": True},
            {"type": "array", "items": {"type": "object", "additionalProperties": True}},
        ],
    }
    example = {"event_id": "0f2c4e6a-8b0d-4f3e-9c7a-9b1d3f5e7c9a", "recipient_client_id": "EXAMPLE-client"}
    content = {"application/json": {"schema": schema, "example": example}}
    return _operation(
        "receive_reports", "incoming-webhooks", "Receive delivery reports",
        "A destination reports the outcome of requests that it accepted. The response comes after all reports are stored in "
        "the receipts.",
        parameters=[_PLATFORM | {"example": "marketo"}],
        requestBody={"description": "The platform's signed reports.", "required": True, "content": content},
        responses={
            "200": _response("The reports are stored.", text="stored\n"),
            "400": _response("The body is not valid.", text="bad_events: …\n"),
            "401": _response("The signature is wrong or missing.", text="bad_signature: …\n"),
            "403": _response("The reports are for another recipient.", text="wrong_recipient: …\n"),
            "404": _response("The stack does not accept reports of this platform.", text="not_set_up: …\n"),
            "413": _response("The body is too large.", text="body_too_large: …\n"),
            "503": _response("Temporarily unavailable: deliver the reports again.", text="storage_unavailable: …\n"),
        },
    )  # fmt: skip


def _sign_on_link() -> Document:
    ticket = parameters.path(
        "ticket", "The last part of a link that `create_sso` returned.", _TEXT | {"maxLength": 200}, "EXAMPLE-ticket"
    )
    return _operation(
        "redeem_ticket", "sso", "Open a single sign-on link",
        "A browser opens the link, once, within two minutes. Errors are pages in three languages.",
        parameters=[ticket, _ACCEPT_LANGUAGE],
        responses={
            "303": _response("The browser goes to the platform.", ["Location"]),
            "400": _response("The link is not valid.", html=True),
            "404": _response("The link does not exist or was altered.", html=True),
            "410": _response("The link has been used, or has expired.", html=True),
            "503": _later("Temporarily unavailable; the link still works.", html=True),
        },
    )  # fmt: skip


_SCHEMAS: Document = {
    "Health": {
        "title": "Health",
        "type": "object",
        "description": "The API answers.",
        "properties": {
            "status": {"type": "string", "const": "ok", "description": "Always `ok`.", "examples": ["ok"]},
        },
        "required": ["status"],
        "additionalProperties": False,
        "examples": [{"status": "ok"}],
    },
    "InstallStatus": {
        "title": "InstallStatus",
        "type": "object",
        "description": "What became of an install.",
        "properties": {
            "state": {
                "type": "string",
                "enum": ["received", "exchanging", "connected", "failed"],
                "description": "The install's state. It has ended if it is `connected` or `failed`.",
                "examples": ["connected"],
            },
            "reason": {
                "type": "string",
                "description": "Why the install failed. Empty in other states.",
                "examples": ["code_expired"],
            },
            "account": {
                "type": "string",
                "description": "The host of the account. Empty if it is not known.",
                "examples": ["padaria.kommo.com"],
            },
        },
        "required": ["state", "reason", "account"],
        "additionalProperties": False,
        "examples": [{"state": "connected", "reason": "", "account": "padaria.kommo.com"}],
    },
    "EventError": {
        "title": "EventError",
        "type": "object",
        "description": "Why an event was refused.",
        "properties": {
            "error": {"type": "string", "description": "The reason, for programs.", "examples": ["bad_signature"]},
        },
        "required": ["error"],
        "additionalProperties": False,
        "examples": [{"error": "bad_signature"}],
    },
}
