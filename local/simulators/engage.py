"""Engage, as its help desk describes it: logging in with a password, in two environments. The rest is not there yet."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from email.utils import formatdate
from typing import Any

from aiohttp import web

from local.simulators.world import BadInstruction, Route, World

ENVIRONMENTS = {"homologation": "sandbox.engage.bz", "production": "my.engage.bz"}
TOKEN_LIFE_S = 1499


@dataclass
class User:
    """Somebody who can log in for a customer, through one application. `tokens` are kept with the time of their end."""

    customer_id: str
    username: str
    password: str
    client_id: str
    client_secret: str
    environment: str = "homologation"
    log_ins: int = 0
    tokens: dict[str, float] = field(default_factory=dict)


class Engage:
    platform = "engage"
    hosts: tuple[str, ...] = (*ENVIRONMENTS.values(), "one.engage.bz")

    def __init__(self, world: World) -> None:
        self.world = world
        self.users: dict[tuple[str, str, str], User] = {}

    # ------------------------------------------------------------------------------------------------ what control sets

    def add_user(self, given: Mapping[str, Any]) -> User:
        user = User(**given)
        if user.environment not in ENVIRONMENTS:
            raise BadInstruction(f"environment must be one of {', '.join(ENVIRONMENTS)}")
        self.users[user.environment, user.customer_id, user.username] = user
        return user

    def remove_user(self, environment: str, customer_id: str, username: str) -> None:
        """From here on neither the password nor a token of it works."""
        if (environment, customer_id, username) not in self.users:
            raise BadInstruction("no such user")
        del self.users[environment, customer_id, username]

    def dump(self) -> list[dict[str, Any]]:
        shown = [each.name for each in fields(User) if each.name not in ("password", "client_secret", "tokens")]
        return [{name: getattr(user, name) for name in shown} for user in self.users.values()]

    # ---------------------------------------------------------------------------------------------------------- serving

    def routes(self, host: str) -> list[Route]:
        return [Route("POST", "/api/v1/auth", self.log_in)] if host in ENVIRONMENTS.values() else []

    def account(self, request: web.BaseRequest) -> str:
        return request.host.partition(".")[0]

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        return None

    def failure(self, status: int) -> web.Response:
        return error(status, "server_error" if status >= 500 else "error_code")

    async def log_in(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        """There is no refresh token: whoever needs a token again logs in again."""
        given = await request.post()
        environment = next(name for name, host in ENVIRONMENTS.items() if host == request.host)
        user = self.users.get((environment, str(given.get("customer_id", "")), str(given.get("username", ""))))
        if given.get("grant_type") != "password":
            return error(400, "unsupported_grant_type")
        if user is None or given.get("password") != user.password:
            return error(400, "invalid_grant")
        if (given.get("client_id"), given.get("client_secret")) != (user.client_id, user.client_secret):
            return error(400, "invalid_client")
        now = self.world.clock.now()
        user.log_ins += 1
        token = f"canary-{secrets.token_urlsafe(24)}"
        user.tokens[token] = now + TOKEN_LIFE_S
        return web.json_response(
            {
                "access_token": token,
                "token_type": "bearer",
                "expires_in": TOKEN_LIFE_S,
                "client_id": user.client_id,
                "customer_id": user.customer_id,
                "user_id": "1",
                ".issued": formatdate(now, usegmt=True),
                ".expires": formatdate(now + TOKEN_LIFE_S, usegmt=True),
            }
        )


def error(status: int, code: str) -> web.Response:
    return web.json_response({"error": code, "error_description": "This is an error."}, status=status)
