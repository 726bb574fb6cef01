"""What answers outside the two doors: webhooks that platforms call, sign-on links, and the API about itself."""

from __future__ import annotations

from typing import Any

from portaria.api import validation
from portaria.api.openapi import parameters
from portaria.api.openapi.paths import install_paths
from portaria.api.openapi.paths.public_operations import (
    ACCEPT_LANGUAGE,
    CLIENT,
    DESTINATION_PLATFORM,
    PLATFORM,
    TEXT,
    later,
    operation,
    response,
)
from portaria.api.openapi.problems import REF, RESPONSES

Document = dict[str, Any]


def paths(schemas: Document) -> Document:
    """The path items. Their schemas are added to the collection."""
    schemas |= _SCHEMAS | install_paths.SCHEMAS
    return {
        "/v1/health": {"get": _health()},
        "/v1/openapi.json": {"get": _document()},
        "/v1/reference": {"get": _reference()},
        **install_paths.paths(),
        "/events/{platform}/{connection}/{key}": {"post": _event()},
        "/uninstall/{platform}/{client}": {"get": _uninstall()},
        "/receipts/{platform}": {"get": _challenge(), "post": _reports()},
        "/sso/{ticket}": {"get": _sign_on_link()},
    }


def _health() -> Document:
    schema = {"$ref": f"{REF}Health"}
    return operation(
        "show_health", "platforms", "Get the API's health",
        "For load balancers and monitors: the API answers. No token is needed.",
        responses={
            "200": response("The API answers.", json={"status": "ok"}, schema=schema),
            "429": {"$ref": f"{RESPONSES}Problem429"},
        },
    )  # fmt: skip


def _document() -> Document:
    schema: Document = {"type": "object", "description": "An OpenAPI document.", "additionalProperties": True}
    return operation(
        "show_document", "platforms", "Get this document",
        "The OpenAPI document of the stack's version, with the stack's own URL as its server. No token is needed.",
        responses={
            "200": response(
                "The document.", json={"openapi": "3.1.0", "info": {"title": "Portaria", "version": "1.0.0"}}, schema=schema
            ),
            "429": {"$ref": f"{RESPONSES}Problem429"},
        },
    )  # fmt: skip


def _reference() -> Document:
    language = parameters.query("lang", "The page's language.", TEXT | {"enum": ["pt", "es", "en"]}, "pt")
    return operation(
        "show_reference", "platforms", "Get the reference page",
        "This document as a page, in the language of `lang` or of the browser. No token is needed.",
        parameters=[language, ACCEPT_LANGUAGE],
        responses={"200": response("The page.", html=True), "429": {"$ref": f"{RESPONSES}Problem429"}},
    )  # fmt: skip


def _event() -> Document:
    connection = parameters.path(
        "connection",
        "The connection's name.",
        TEXT | {"pattern": f"^(?:{validation.NAME})$"},
        "kommo-shop-30513412",
    )
    key = parameters.path("key", "The secret key of the webhook URL.", TEXT | {"maxLength": 200}, "EXAMPLE-key")
    secret = parameters.header(
        "X-Portaria-Secret",
        "The `header_value` of the URL, for platforms whose events have no signature.",
        TEXT | {"format": "password"},
        "example-header-value",
    )
    error = {"$ref": f"{REF}EventError"}

    def refusal(description: str, reason: str) -> Document:
        return response(description, json={"error": reason}, schema=error)

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
    unavailable = later(
        "Temporarily unavailable: the platform delivers the event again. Which of 429 and 503 it is depends on the platform.",
        json={"error": "unavailable"}, schema=error,
    )  # fmt: skip
    empty = {"type": "object", "description": "An empty object.", "additionalProperties": False}
    return operation(
        "receive_event", "incoming-webhooks", "Receive a platform's event",
        "A platform's webhook. An install subscribes by itself; `create_event_address` returns a URL to enter by hand. The "
        "response comes after the event's records are queued.",
        parameters=[PLATFORM, connection, key, secret],
        requestBody=body,
        responses={
            "200": response("The records of the event are queued.", json={}, schema=empty),
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
        parameters.query("account_id", "The id of the account that uninstalled the application.", TEXT, "30513412"),
        parameters.query(
            "client_uuid",
            "The application's id at the platform.",
            TEXT,
            "3b1f0c52-7c1e-4a55-9d2b-0f6f3f1c2a10",
        ),
        parameters.query("signature", "The HMAC-SHA256 of both with the application's secret.", TEXT, "0f" * 32),
    ]
    return operation(
        "accept_uninstall", "incoming-webhooks", "Receive an uninstall",
        "The disconnect hook of an OAuth client. The response comes after the uninstall is queued; then the connection, its "
        "credentials and its webhooks are removed.",
        parameters=[PLATFORM, CLIENT, *query],
        responses={
            "200": response("The uninstall is queued.", text="received\n"),
            "400": response("A parameter is missing, repeated or not valid.", text="bad_hook: …\n"),
            "403": response("The signature is wrong.", text="bad_signature: …\n"),
            "404": response("The platform or the OAuth client does not exist.", text="unknown_client: …\n"),
            "503": response("Temporarily unavailable: send the same request again.", text="queue_unavailable: …\n"),
        },
    )  # fmt: skip


def _challenge() -> Document:
    query = parameters.query("challenge", "The value to return.", TEXT | {"maxLength": 200}, "EXAMPLE-challenge")
    return operation(
        "answer_challenge", "incoming-webhooks", "Answer a subscription's challenge",
        "A destination calls it when its delivery reports are registered.",
        parameters=[DESTINATION_PLATFORM, query | {"required": True}],
        responses={
            "200": response("The challenge.", text="EXAMPLE-challenge"),
            "400": response("The challenge is missing or not valid.", text="bad_challenge: …\n"),
            "404": response("The stack does not accept reports of this platform.", text="not_set_up: …\n"),
            "503": response("Temporarily unavailable.", text="storage_unavailable: try again later\n"),
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
    return operation(
        "receive_reports", "incoming-webhooks", "Receive delivery reports",
        "A destination reports the outcome of requests that it accepted. The response comes after all reports are stored in "
        "the receipts.",
        parameters=[DESTINATION_PLATFORM],
        requestBody={"description": "The platform's signed reports.", "required": True, "content": content},
        responses={
            "200": response("The reports are stored.", text="stored\n"),
            "400": response("The body is not valid.", text="bad_events: …\n"),
            "401": response("The signature is wrong or missing.", text="bad_signature: …\n"),
            "403": response("The reports are for another recipient.", text="wrong_recipient: …\n"),
            "404": response("The stack does not accept reports of this platform.", text="not_set_up: …\n"),
            "413": response("The body is too large.", text="body_too_large: …\n"),
            "503": response("Temporarily unavailable: deliver the reports again.", text="storage_unavailable: …\n"),
        },
    )  # fmt: skip


def _sign_on_link() -> Document:
    ticket = parameters.path(
        "ticket",
        "The last part of a link that `create_sso` returned.",
        TEXT | {"maxLength": 200},
        "EXAMPLE-ticket",
    )
    return operation(
        "redeem_ticket", "sso", "Open a single sign-on link",
        "A browser opens the link, once, within two minutes. Errors are pages in three languages.",
        parameters=[ticket, ACCEPT_LANGUAGE],
        responses={
            "303": response("The browser goes to the platform.", ["Location"]),
            "400": response("The link is not valid.", html=True),
            "404": response("The link does not exist or was altered.", html=True),
            "410": response("The link has been used, or has expired.", html=True),
            "503": later("Temporarily unavailable; the link still works.", html=True),
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
