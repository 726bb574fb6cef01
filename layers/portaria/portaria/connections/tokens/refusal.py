"""Whether an API's response means that it refuses a connection's credential."""

from __future__ import annotations

import logging
from dataclasses import replace as with_changes

from portaria import platforms
from portaria.connections.tokens.cache import Token
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable, TokenRefused
from portaria.core.http.messages import Response
from portaria.outbound import http_client

logger = logging.getLogger(__name__)

# The probe runs while the caller waits.
TIME_TO_PROBE_S = 5.0


def token_refused(connection: Connection, response: Response) -> bool:
    """Whether a response says that the token is not valid. Some platforms also answer 401 for a missing scope."""
    refusal = platforms.load(connection.platform).token_refusal
    return refusal.token_refused(response) if refusal else response.status == 401


def token_is_dead(connection: Connection, response: Response) -> bool:
    """Whether the platform reports that a static credential is permanently invalid."""
    refusal = platforms.load(connection.platform).token_refusal
    return refusal is not None and refusal.token_refused(response)


def probe_refused(connection: Connection, token: Token) -> bool:
    """Whether the platform refuses its harmless request as well. False without such a request or without an answer."""
    test = platforms.load(connection.platform).credential_test
    if not test:
        return False
    request = with_changes(test.probe_request(connection, token.credentials), total_timeout_s=TIME_TO_PROBE_S)
    try:
        test.read_probe(http_client.send(request, allowed_domain=connection.allowed_domain, owner=connection.name))
    except TokenRefused:
        return True
    except (Rejected, Retryable):
        return False
    return False
