"""Whether an API's response means that it refuses a connection's credential."""

from __future__ import annotations

import logging
from dataclasses import replace as with_changes

from portaria.connections.tokens.cache import Token
from portaria.core.entities import Connection, Rejected, Response, Retryable
from portaria.core.errors import TokenRefused
from portaria.outbound import http_client
from portaria.platforms import part

logger = logging.getLogger(__name__)

# The probe runs while the caller waits.
TIME_TO_PROBE_S = 5.0


def token_refused(connection: Connection, response: Response) -> bool:
    """Whether a response says that the token is not valid. Some platforms also answer 401 for a missing scope."""
    refused = getattr(part(connection.platform, "tokens"), "token_refused", None)
    return bool(refused(response)) if refused else response.status == 401


def token_is_dead(connection: Connection, response: Response) -> bool:
    """Whether a platform that can tell says that a static credential will not work again."""
    tells = hasattr(part(connection.platform, "tokens"), "token_refused")
    return tells and token_refused(connection, response)


def probe_refused(connection: Connection, token: Token) -> bool:
    """Whether the platform refuses its harmless request as well. False without such a request or without an answer."""
    platform = part(connection.platform, "tokens")
    if not hasattr(platform, "probe_request"):
        return False
    request = with_changes(platform.probe_request(connection, token.credentials), total_timeout_s=TIME_TO_PROBE_S)
    try:
        platform.read_probe(http_client.send(request, allowed_domain=connection.allowed_domain, owner=connection.name))
    except TokenRefused:
        return True
    except (Rejected, Retryable):
        return False
    return False
