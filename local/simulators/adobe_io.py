"""Adobe I/O Events, as Adobe describes it: registrations, signed deliveries, and the host of the public keys.

Source pages: the webhooks guide (challenge, validation URL, signatures, retries) and the API's CloudEvents.
"""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from local.simulators.world import BadInstruction, Route, World

KEYS_HOST, VALIDATION_HOST = "static.adobeioevents.com", "csm.adobe.io"
MAX_EVENTS = 20
TIMEOUT_S = 10.0
# Events are delivered again after these statuses and after no answer. Any other failure loses them.
RETRIED = ("429", "5")
SHAPES = ("flat", "wrapped")


@dataclass
class Registration:
    """A webhook of an Adobe I/O project. `waiting` are events to deliver again; `answers` counts the webhook's answers."""

    url: str
    client_id: str
    is_active: bool = False
    validation: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    waiting: list[dict[str, Any]] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)


class AdobeIO:
    platform = "adobe"
    hosts: tuple[str, ...] = (KEYS_HOST, VALIDATION_HOST)

    def __init__(self, world: World, proxy_url: str = "") -> None:
        self.world = world
        self.proxy_url = proxy_url
        self.registrations: dict[str, Registration] = {}
        self.key_path = f"/prod/keys/pub-key-{uuid.uuid4()}.pem"

    @cached_property
    def key(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)

    # ---------------------------------------------------------------------------------------------------------- control

    async def register(self, url: str, client_id: str) -> bool:
        """Register a webhook and return whether it answered the challenge. Otherwise, send it a validation URL to request."""
        registration = self.registrations[url] = Registration(url, client_id)
        challenge = secrets.token_urlsafe(24)
        answer, text = await self.call("GET", f"{url}?challenge={challenge}")
        registration.is_active = answer == "200" and text in (challenge, json.dumps({"challenge": challenge}))
        if not registration.is_active:
            query = f"id={uuid.uuid4()}&challenge={registration.validation}"
            content = {"validationUrl": f"https://{VALIDATION_HOST}/csm/registrations/validate?{query}"}
            await self.call("POST", url, json.dumps(content).encode(), {"Content-Type": "application/json"})
        return registration.is_active

    async def deliver(self, url: str, events: list[dict[str, Any]], shape: str, times: int) -> int:
        """Deliver `events` and the waiting ones, in batches of at most `MAX_EVENTS`, each batch `times` times.

        Returns the number of events that will not be delivered again, because they were accepted or are lost.
        """
        registration = self.registrations.get(url)
        if registration is None or not registration.is_active or shape not in SHAPES:
            raise BadInstruction(f"no active registration of this URL, or a shape other than {', '.join(SHAPES)}")
        sent, registration.waiting = [*registration.waiting, *events], []
        for start in range(0, len(sent), MAX_EVENTS):
            batch = sent[start : start + MAX_EVENTS]
            body = json.dumps([shaped(event, registration.client_id, shape) for event in batch]).encode()
            for _ in range(times):
                answer, _text = await self.call("POST", url, body, self.signed(body, registration.client_id))
                registration.answers[answer] += 1
            if answer == "no answer" or answer.startswith(RETRIED):
                registration.waiting += batch
        return len(sent) - len(registration.waiting)

    def signed(self, body: bytes, client_id: str) -> dict[str, str]:
        signature = self.key.sign(body, padding.PKCS1v15(), hashes.SHA256())
        return {
            "Content-Type": "application/cloudevents-batch+json",
            "x-adobe-digital-signature-1": base64.b64encode(signature).decode(),
            "x-adobe-public-key1-path": self.key_path,
            "recipientclientid": client_id,
        }

    async def call(
        self, method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[str, str]:
        """The status of the answer, or `no answer`, and its text. The certificate is not verified: its authority is local."""
        try:
            async with (
                ClientSession(trust_env=False, timeout=ClientTimeout(total=TIMEOUT_S)) as session,
                session.request(
                    method, url, data=body, headers=headers, proxy=self.proxy_url or None, ssl=False,
                    allow_redirects=False,
                ) as response,
            ):  # fmt: skip
                return str(response.status), await response.text()
        except (ClientError, TimeoutError):
            return "no answer", ""

    # ------------------------------------------------------------------------------------------------ serving.Simulator

    def routes(self, host: str) -> list[Route]:
        if host == KEYS_HOST:
            return [Route("GET", "/prod/keys/{name}", self.show_key)]
        return [Route("GET", "/csm/registrations/validate", self.validate)]

    def account(self, request: web.BaseRequest) -> str:
        return ""

    def refuse(self, request: web.BaseRequest) -> web.Response | None:
        return None

    def failure(self, status: int) -> web.Response:
        return web.json_response({"message": "not found" if status == 404 else "failed"}, status=status)

    async def show_key(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        if request.path != self.key_path:
            return self.failure(404)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return web.Response(body=self.key.public_key().public_bytes(serialization.Encoding.PEM, form))

    async def validate(self, request: web.BaseRequest, _: dict[str, str]) -> web.Response:
        given = request.query.get("challenge", "")
        registration = next((each for each in self.registrations.values() if each.validation == given), None)
        if registration is None:
            return self.failure(404)
        registration.is_active = True
        return web.json_response({"message": "validated"})


def shaped(event: dict[str, Any], client_id: str, shape: str) -> dict[str, Any]:
    """A flat CloudEvent, or Adobe's older envelope around it."""
    if shape == "flat":
        return {**event, "recipientclientid": client_id}
    return {"eventid": event["id"], "event": {"body": event}, "recipientclientid": client_id}
