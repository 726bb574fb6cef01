"""The identity service."""

from __future__ import annotations

import uuid

from aiohttp import web

from local.simulators.marketo.instance import Instance
from local.simulators.world import Clock


async def answer_token_request(instance: Instance, clock: Clock, request: web.BaseRequest) -> web.Response:
    """All callers get the same token, with its remaining lifetime."""
    given = {**request.query, **(await request.post())}
    if given.get("grant_type") != "client_credentials":
        return web.json_response(
            {"error": "unsupported_grant_type", "error_description": "Unsupported grant type"}, status=400
        )
    if (given.get("client_id"), given.get("client_secret")) != (instance.client_id, instance.client_secret):
        return web.json_response(
            {"error": "invalid_client", "error_description": "Client authentication failed"}, status=401
        )
    now = clock.now()
    if now >= instance.token_expires_at:
        instance.token = f"canary-{uuid.uuid4()}:int"
        instance.token_expires_at = now + instance.token_life_s
        instance.tokens_issued += 1
    remaining = int(instance.token_expires_at - now)
    if instance.zero_lives > 0:
        instance.zero_lives -= 1
        remaining = 0
    return web.json_response(
        {
            "access_token": instance.token,
            "token_type": "bearer",
            "expires_in": remaining,
            "scope": "api-user@marketo.example",
        }
    )
