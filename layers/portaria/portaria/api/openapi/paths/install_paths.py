"""The pages of an install, the redirect URI and the logo: what customers' browsers and marketplaces open."""

from __future__ import annotations

from typing import Any

from portaria.api.openapi import headers, parameters
from portaria.api.openapi.paths.public_operations import (
    ACCEPT,
    ACCEPT_LANGUAGE,
    CLIENT,
    PLATFORM,
    TEXT,
    later,
    operation,
    response,
)
from portaria.api.openapi.problems import REF

Document = dict[str, Any]


def paths() -> Document:
    root = "/install/{platform}/{client}"
    return {
        root: {"get": _arrive()},
        f"{root}/start": {"get": _start()},
        f"{root}/claim": {"get": _claim_page(), "post": _confirm_claim()},
        f"{root}/result/{{install}}": {"get": _result()},
        f"{root}/logo/{{version}}": {"get": _logo()},
    }


def _arrive() -> Document:
    query = [
        parameters.query("code", "The authorization code.", TEXT, "EXAMPLE-code"),
        parameters.query(
            "state",
            "The state of the consent page, if a browser returns from it.",
            TEXT,
            "EXAMPLE-state",
        ),
        parameters.query("error", "The provider's refusal, in place of a code.", TEXT, "access_denied"),
        parameters.query(
            "referer",
            "The host of the account, from platforms that send it.",
            TEXT,
            "padaria.kommo.com",
        ),
    ]
    return operation(
        "accept_install", "install", "Receive an authorization code",
        "The redirect URI of an OAuth client. A marketplace calls it, or a browser returns to it from the consent page. The "
        "response comes after the code is stored; it is exchanged within seconds.",
        parameters=[PLATFORM, CLIENT, *query, ACCEPT, ACCEPT_LANGUAGE],
        responses={
            "200": response(
                "The code is stored, or the customer refused consent.", html=True, text="received\n"
            ),
            "303": response(
                "The code is stored, and the browser goes to the result page. Or the customer refused, and goes back to your "
                "application.", ["Location"],
            ),
            "400": response("The request is not valid.", html=True, text="missing_code: the code is missing\n"),
            "404": response("The platform or the OAuth client does not exist.", html=True, text="unknown_client: …\n"),
            "414": response("The query is too long.", html=True, text="query_too_long: …\n"),
            "503": later("Temporarily unavailable: send the same request again.", html=True, text="unavailable: …\n"),
        },
    )  # fmt: skip


def _start() -> Document:
    link = parameters.query("link", "The token of an install link.", TEXT, "EXAMPLE-token")
    display = parameters.query(
        "display",
        "`popup` if your application opened the link in a window of its own.",
        TEXT | {"enum": ["popup"]},
        "popup",
    )
    return operation(
        "show_install_page", "install", "Open an install page",
        "The page on which a customer installs an application. An install link for one connection of a provider redirects to "
        "the provider's consent page instead.",
        parameters=[PLATFORM, CLIENT, link, display, ACCEPT, ACCEPT_LANGUAGE],
        responses={
            "200": response("The install page.", ["Set-Cookie"], html=True),
            "303": response("The browser goes to the consent page.", ["Location", "Set-Cookie"]),
            "400": response("The query is not valid.", html=True, text="bad_query: …\n"),
            "404": response(
                "The OAuth client does not exist, or the link does not exist, was used or has expired.", html=True,
                text="used_link: …\n",
            ),
            "414": response("The query is too long.", html=True, text="query_too_long: …\n"),
            "503": later("Temporarily unavailable: open it again.", html=True, text="unavailable: …\n"),
        },
    )  # fmt: skip


def _claim_page() -> Document:
    link = parameters.query("link", "The token of a claim link.", TEXT, "EXAMPLE-token")
    return operation(
        "show_claim_page", "install", "Open a claim link",
        "The page on which a person confirms which of your customers an account belongs to. Opening it changes nothing.",
        parameters=[PLATFORM, CLIENT, link, ACCEPT, ACCEPT_LANGUAGE],
        responses={
            "200": response("The page with its button.", ["Set-Cookie"], html=True),
            "400": response("The link is not known here.", html=True, text="unknown_link: …\n"),
            "404": response(
                "The OAuth client does not exist, or the link was used or has expired.", html=True, text="used_link: …\n"
            ),
            "414": response("The query is too long.", html=True, text="query_too_long: …\n"),
            "503": later("Temporarily unavailable: open it again.", html=True, text="unavailable: …\n"),
        },
    )  # fmt: skip


def _confirm_claim() -> Document:
    form: Document = {
        "type": "object",
        "description": "The form of the page.",
        "properties": {"state": TEXT | {"description": "The state of the page.", "examples": ["EXAMPLE-state"]}},
        "required": ["state"],
    }
    content = {"application/x-www-form-urlencoded": {"schema": form, "example": {"state": "EXAMPLE-state"}}}
    return operation(
        "confirm_claim", "install", "Confirm a claim",
        "The button of the claim page: the link's tags are attached to the account's connection.",
        parameters=[PLATFORM, CLIENT, ACCEPT, ACCEPT_LANGUAGE],
        requestBody={"description": "The form of the page.", "required": True, "content": content},
        responses={
            "200": response("The tags will be attached.", html=True),
            "303": response("The same, and the browser goes to the link's return URL.", ["Location"]),
            "400": response("The form or its state is not valid.", html=True, text="foreign_state: …\n"),
            "403": response("Another site sent the form.", html=True, text="foreign_origin: …\n"),
            "404": response("The link was used or has expired.", html=True, text="used_link: …\n"),
            "503": later("Temporarily unavailable: send it again.", html=True, text="unavailable: …\n"),
        },
    )  # fmt: skip


def _result() -> Document:
    install = parameters.path("install", "The install's id.", TEXT | {"maxLength": 64}, "4f1c2a9b7d3e5f60")
    status = SCHEMAS["InstallStatus"]["examples"][0]
    return operation(
        "show_install_result", "install", "Get an install's result",
        "The page that a customer sees after the install. With `Accept: application/json` it returns the state, which the page "
        "itself reads until the install has ended.",
        parameters=[PLATFORM, CLIENT, install, ACCEPT, ACCEPT_LANGUAGE],
        responses={
            "200": response("The result.", html=True, json=status, schema={"$ref": f"{REF}InstallStatus"}),
            "303": response("The install has ended. The browser goes back to your application.", ["Location"]),
            "404": response("The install does not exist.", html=True, text="unknown_install: …\n"),
            "503": later("Temporarily unavailable: load it again.", html=True, text="unavailable: …\n"),
        },
    )  # fmt: skip


def _logo() -> Document:
    version = parameters.path(
        "version",
        "The logo's version, from `logo_url`.",
        TEXT | {"maxLength": 64},
        "9f2c4e6a8b0d1f3e-200x80",
    )
    match = parameters.header(
        "If-None-Match",
        "The `ETag` of the copy that the browser has.",
        TEXT,
        '"9f2c4e6a8b0d1f3e-200x80"',
    )
    # Generators of clients do not know the media types of images.
    binary = TEXT | {
        "format": "binary",
        "description": "A PNG or SVG file; `Content-Type` is `image/png` or `image/svg+xml`.",
    }
    content = {"application/octet-stream": {"schema": binary, "example": '<svg xmlns="http://www.w3.org/2000/svg"/>'}}
    found = {"description": "The logo. A browser may keep it for ever: another logo has another URL."}
    return operation(
        "show_logo", "install", "Get an OAuth client's logo", "The logo that the hosted pages show.",
        parameters=[PLATFORM, CLIENT, version, match],
        responses={
            "200": found | {"headers": headers.refer(headers.ETAG), "content": content},
            "304": response("The browser's copy is the current one.", [headers.ETAG]),
            "404": response("The OAuth client has no logo of this version.", text="unknown_logo: …\n"),
            "503": later("Temporarily unavailable: load it again.", text="unavailable: …\n"),
        },
    )  # fmt: skip


_RETURN = "https://app.example.com/integrations/kommo?install=4f1c2a9b7d3e5f60&status=connected"
SCHEMAS: Document = {
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
            "return_to": {
                "type": "string",
                "description": "The page of your application that the customer goes back to. Only after the end, and if the "
                "link named a registered page.",
                "examples": [_RETURN],
            },
        },
        "required": ["state", "reason", "account"],
        "additionalProperties": False,
        "examples": [{"state": "connected", "reason": "", "account": "padaria.kommo.com", "return_to": _RETURN}],
    },
}
