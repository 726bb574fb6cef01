"""Kommo's three calls to the redirect URI, and its consent page.

https://developers.kommo.com/docs/authorization-public and https://developers.kommo.com/docs/button-on-site
The install hook must answer within three seconds, so this module imports as little as possible.
"""

from __future__ import annotations

import re

from portaria.core.callbacks import OAuthCallback, OAuthClient, Refusal, Secret, domain_inside, read_one, read_return
from portaria.core.error_roots import Rejected

# The client secret is sent to the host that `referer` names, and the hook is not authenticated. So the host must be exactly one
# label under one of Kommo's domains.
_ACCOUNT_HOST = re.compile(
    r"(?!www\.|..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.(?:kommo\.com|amocrm\.com|amocrm\.ru)", re.ASCII
)
# The domains of accounts. An integration is registered with either kommo.com or amoCRM. The OAuth client says which, so that
# the caller of the hook cannot choose who receives the client's secret.
API_DOMAINS: tuple[str, ...] = ("*.kommo.com", "*.amocrm.com", "*.amocrm.ru")
DEFAULT_API_DOMAINS: tuple[str, ...] = ("*.kommo.com",)
# Kommo's own host names, which are not accounts.
_RESERVED = frozenset({"www", "api", "auth", "oauth", "developers", "support", "help", "mail", "static", "cdn"})
MAX_CODE_LENGTH = 2_000
_SCOPES = {
    "crm": {
        "pt": "Ver e alterar leads, contatos, empresas e tarefas",
        "es": "Ver y modificar leads, contactos, empresas y tareas",
        "en": "See and change leads, contacts, companies and tasks",
    },
    "notifications": {
        "pt": "Enviar notificações aos usuários da conta",
        "es": "Enviar notificaciones a los usuarios de la cuenta",
        "en": "Send notifications to the account’s users",
    },
    "files": {
        "pt": "Ver e enviar arquivos da conta",
        "es": "Ver y subir archivos de la cuenta",
        "en": "See and upload the account’s files",
    },
    "files_delete": {
        "pt": "Excluir arquivos da conta",
        "es": "Eliminar archivos de la cuenta",
        "en": "Delete the account’s files",
    },
}


def parse_callback(query: dict[str, list[str]]) -> OAuthCallback | Refusal:
    """Return the code or the refusal. Raises `Rejected` that names the parameter and its rule."""
    returned = read_return(query, max_code_length=MAX_CODE_LENGTH)
    if isinstance(returned, Refusal):
        return returned
    code, state = returned
    # One of Kommo's pages spells the parameter `referrer`.
    host = read_one(query, "referer") or read_one(query, "referrer")
    check_account_host(host)
    from_widget = read_one(query, "from_widget") not in ("", "0")
    if not state and not from_widget:
        raise Rejected("missing_state", "the redirect from the consent page has no state", field="state")
    return OAuthCallback(code, host.lower(), "browser" if state else "widget", state)


def check_account_host(host: str) -> None:
    """Raises `Rejected` (`bad_referer`) unless the host is an account's: one label under kommo.com, amocrm.com or .ru."""
    lowered = host.lower() if host.isascii() else host
    if not _ACCOUNT_HOST.fullmatch(lowered) or lowered.partition(".")[0] in _RESERVED:
        raise Rejected(
            "bad_referer",
            f"referer must be the account's host, one name under kommo.com or amocrm.com (got {len(host)} characters)",
            field="referer",
        )


def check_client_host(client: OAuthClient, host: str) -> None:
    """Raises `Rejected` (`domain_not_registered`) unless the client's secret may be sent to the account's host."""
    registered = tuple(client.api_domains.split()) or DEFAULT_API_DOMAINS
    if not domain_inside(host.lower(), registered):
        raise Rejected(
            "domain_not_registered",
            f"the OAuth client kommo/{client.name} is for accounts of {', '.join(registered)}: for another domain of Kommo's, "
            "an administrator adds it to its api_domains",
            field="referer",
        )


def consent_url(client_id: str, state: Secret) -> str:
    """Return the URL of the consent page, for the main window."""
    from urllib.parse import urlencode  # noqa: PLC0415 - the install hook does not use it

    query = urlencode({"client_id": client_id, "state": state.reveal(), "mode": "popup"})
    return f"https://www.kommo.com/oauth?{query}"


def scope_texts(scopes: str, language: str) -> list[str]:
    """Return in words what the scopes allow. They are those that an integration's settings list and its tokens carry."""
    return [
        _SCOPES[scope].get(language, _SCOPES[scope]["en"])
        for scope in dict.fromkeys(scopes.split())
        if scope in _SCOPES
    ]


def button(client_id: str, state: Secret, language: str) -> dict[str, str]:
    """Return the attributes of Kommo's button script, which opens the same consent page."""
    return {
        "class": "kommo_oauth",
        "charset": "utf-8",
        "data-client-id": client_id,
        "data-title": {"pt": "Conectar ao Kommo", "es": "Conectar con Kommo"}.get(language, "Connect to Kommo"),
        "data-compact": "false",
        "data-theme": "light",
        "data-locale": language,
        "data-state": state.reveal(),
        "data-mode": "popup",
        "src": "https://www.kommo.com/auth/button.js",
    }
