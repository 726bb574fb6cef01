"""Engage, as its help desk describes it: login, single sign-on by an identifier, registration of identifiers.

Two things are undocumented and invented here: the error codes, and that one invalid user fails the whole request.
"""

from __future__ import annotations

import json
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
    """A user who can log in for a customer, through one application. `tokens` maps a token to its expiry.

    `manages_users` is Engage's permission UserManagement.
    """

    customer_id: str
    username: str
    password: str
    client_id: str
    client_secret: str
    customer_token: str = ""
    environment: str = "homologation"
    manages_users: bool = True
    log_ins: int = 0
    tokens: dict[str, float] = field(default_factory=dict)


@dataclass
class Customer:
    """`people` are the existing logins. `identifiers` maps (client id, identifier) to a login, `keys` an unused key to one."""

    people: set[str] = field(default_factory=set)
    identifiers: dict[tuple[str, str], str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    keys_given: int = 0
    keys_used: int = 0


class Engage:
    platform = "engage"
    hosts: tuple[str, ...] = (*ENVIRONMENTS.values(), "one.engage.bz")

    def __init__(self, world: World) -> None:
        self.world = world
        self.users: dict[tuple[str, str, str], User] = {}
        self.customers: dict[tuple[str, str], Customer] = {}

    # ---------------------------------------------------------------------------------------------------------- control

    def add_user(self, given: Mapping[str, Any]) -> User:
        user = User(**given)
        if user.environment not in ENVIRONMENTS:
            raise BadInstruction(f"environment must be one of {', '.join(ENVIRONMENTS)}")
        self.users[user.environment, user.customer_id, user.username] = user
        self.customers.setdefault((user.environment, user.customer_id), Customer())
        return user

    def remove_user(self, environment: str, customer_id: str, username: str) -> None:
        """Invalidate the user's password and tokens."""
        if (environment, customer_id, username) not in self.users:
            raise BadInstruction("no such user")
        del self.users[environment, customer_id, username]

    def add_people(self, customer_id: str, logins: list[str], environment: str = "homologation") -> None:
        """Add logins for which identifiers can be registered."""
        self.customer(environment, customer_id).people |= set(logins)

    def end_tokens(self, customer_id: str, environment: str = "homologation") -> None:
        """End all tokens of a customer's users before their lifetime of 25 minutes."""
        for user in self.users.values():
            if (user.environment, user.customer_id) == (environment, customer_id):
                user.tokens.clear()

    def enter(self, customer_id: str, key: str, environment: str = "homologation") -> str:
        """Redeem a sign-on key, as Engage's front end does. A key works once. Returns the login that is signed on."""
        customer = self.customer(environment, customer_id)
        if key not in customer.keys:
            raise BadInstruction("this key was not issued, or has been used")
        customer.keys_used += 1
        return customer.keys.pop(key)

    def customer(self, environment: str, customer_id: str) -> Customer:
        if (environment, customer_id) not in self.customers:
            raise BadInstruction("no such customer: POST /engage/users first")
        return self.customers[environment, customer_id]

    def dump(self) -> list[dict[str, Any]]:
        hidden = ("password", "client_secret", "customer_token", "tokens")
        shown = [each.name for each in fields(User) if each.name not in hidden]
        return [{name: getattr(user, name) for name in shown} for user in self.users.values()]

    def dump_customers(self) -> list[dict[str, Any]]:
        return [
            {
                "environment": environment,
                "customer_id": customer_id,
                "people": sorted(customer.people),
                "identifiers": {identifier: login for (_, identifier), login in customer.identifiers.items()},
                "keys_given": customer.keys_given,
                "keys_used": customer.keys_used,
            }
            for (environment, customer_id), customer in self.customers.items()
        ]

    # ------------------------------------------------------------------------------------------------ serving.Simulator

    def routes(self, host: str) -> list[Route]:
        if host not in ENVIRONMENTS.values():
            return []
        return [
            Route("POST", "/api/v1/auth", self.authenticate),
            Route("POST", "/api/v1/{customer}/users/identifiers", self.register),
        ]

    def account(self, request: web.BaseRequest) -> str:
        return request.host.partition(".")[0]

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        return None

    def failure(self, status: int) -> web.Response:
        return error(status, "server_error" if status >= 500 else "error_code")

    async def authenticate(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        given = {name: str(value) for name, value in (await request.post()).items()}
        match given.get("grant_type"):
            case "password":
                return self.log_in(environment_of(request), given)
            case "custom_sso":
                return self.sign_on(environment_of(request), given)
        return error(400, "unsupported_grant_type")

    def log_in(self, environment: str, given: Mapping[str, str]) -> web.Response:
        """Engage issues no refresh tokens: a caller logs in again."""
        user = self.users.get((environment, given.get("customer_id", ""), given.get("username", "")))
        if user is None or given.get("password") != user.password:
            return error(400, "invalid_grant")
        if (given.get("client_id"), given.get("client_secret")) != (user.client_id, user.client_secret):
            return error(400, "invalid_client")
        user.log_ins += 1
        return web.json_response(self.grant(user))

    def sign_on(self, environment: str, given: Mapping[str, str]) -> web.Response:
        """Sign on by an identifier that was registered through the same application. The issued key works once."""
        proof = ("customer_id", "client_id", "client_secret", "customer_token")
        application = next(
            (
                user
                for user in self.users.values()
                if user.environment == environment
                and user.customer_token
                and all(given.get(name) == getattr(user, name) for name in proof)
            ),
            None,
        )
        if application is None:
            return error(400, "invalid_client")
        customer = self.customer(environment, application.customer_id)
        login = customer.identifiers.get((application.client_id, given.get("user_identifier", "")))
        if login is None:
            return error(400, "invalid_grant")
        key = f"canary-{secrets.token_urlsafe(24)}"
        customer.keys[key] = login
        customer.keys_given += 1
        return web.json_response(self.grant(application) | {"key": key})

    def grant(self, user: User) -> dict[str, Any]:
        now = self.world.clock.now()
        token = f"canary-{secrets.token_urlsafe(24)}"
        user.tokens[token] = now + TOKEN_LIFE_S
        return {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": TOKEN_LIFE_S,
            "client_id": user.client_id,
            "customer_id": user.customer_id,
            "user_id": "1",
            ".issued": formatdate(now, usegmt=True),
            ".expires": formatdate(now + TOKEN_LIFE_S, usegmt=True),
        }

    async def register(self, request: web.BaseRequest, parts: dict[str, str]) -> web.Response:
        """Register all of the users or none. Registering an identifier again for the same login succeeds."""
        environment = environment_of(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        now = self.world.clock.now()
        user = next((each for each in self.users.values() if each.tokens.get(token, 0.0) > now), None)
        if user is None or user.environment != environment:
            return error(401, "invalid_token")
        wanted = (parts["customer"], request.query.get("customerToken"))
        if not user.manages_users or wanted != (user.customer_id, user.customer_token):
            return error(403, "access_denied")
        try:
            given = [
                (each["user_login"], each["client_application_id"], each["identifier"])
                for each in json.loads(await request.read())
            ]
        except (ValueError, TypeError, KeyError):
            return error(400, "invalid_request")
        customer = self.customer(environment, user.customer_id)
        for login, client_id, identifier in given:
            if client_id != user.client_id or login not in customer.people:
                return error(400, "user_not_found")
            if customer.identifiers.get((client_id, identifier), login) != login:
                return error(409, "identifier_in_use")
        customer.identifiers |= {(client_id, identifier): login for login, client_id, identifier in given}
        return web.json_response({})


def environment_of(request: web.BaseRequest) -> str:
    return next(name for name, host in ENVIRONMENTS.items() if host == request.host)


def error(status: int, code: str) -> web.Response:
    return web.json_response({"error": code, "error_description": "This is an error."}, status=status)
