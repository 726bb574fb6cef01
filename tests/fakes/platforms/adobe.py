"""Adobe I/O Events: its deliveries, its signatures, and where its keys are."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

import responses
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT_ID = "4f1c2a9b8e7d4c3b"
MUNCHKIN = "123-ABC-456"
KEY_PATH = "/prod/keys/pub-key-voy5XEbWmT.pem"
KEYS = "https://static.adobeioevents.com"
TYPE = "com.adobe.platform.marketo.observability."


@cache
def private_key(number: int = 1, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One for all tests, because generating it takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def keep_keys(mock: responses.RequestsMock) -> None:
    mock.get(KEYS + KEY_PATH, body=pem(private_key()))


def signed(body: str, number: int = 1, *, path: str = KEY_PATH, by: rsa.RSAPrivateKey | None = None) -> dict[str, str]:
    """The headers of a delivery; `number` selects its signatures."""
    signature = (by or private_key()).sign(body.encode(), padding.PKCS1v15(), hashes.SHA256())
    return {
        f"x-adobe-digital-signature-{number}": base64.b64encode(signature).decode(),
        f"X-Adobe-Public-Key{number}-Path": path,
    }


def request(request_id: str = "r-1", created: Any = 10, failed: Any = None, **more: Any) -> dict[str, Any]:
    records = {"received": 10, "created": created, "updated": 0, "failed": failed or {}}
    return {
        "requestId": request_id,
        "requestTime": "2023-08-14T17:20:00Z",
        "correlationId": "",
        "records": records,
    } | more


def results(event_id: str = "e-1", *requests: dict[str, Any], munchkin: str = MUNCHKIN, **more: Any) -> dict[str, Any]:
    return {
        "id": event_id,
        "specversion": "1.0",
        "type": f"{TYPE}results",
        "source": "urn:data_ingestion_service",
        "time": "2023-08-14T17:30:00Z",
        "datacontenttype": "application/json",
        "recipientclientid": CLIENT_ID,
        "data": {"munchkinId": munchkin, "requests": list(requests) or [request()]},
    } | more


def wrapped(event: dict[str, Any]) -> dict[str, Any]:
    """The other shape of a batch's items."""
    body = {name: value for name, value in event.items() if name != "recipientclientid"}
    return {"eventid": event["id"], "event": {"body": body}, "recipientclientid": event["recipientclientid"]}


def call(method: str, body: str | None, headers: dict[str, str]) -> dict[str, Any]:
    """The event that API Gateway creates from a delivery."""
    return {
        "httpMethod": method,
        "resource": "/receipts/{platform}",
        "pathParameters": {"platform": "marketo"},
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "multiValueQueryStringParameters": None,
        "body": body,
        "isBase64Encoded": False,
    }


def delivery(content: Any) -> dict[str, Any]:
    body = content if isinstance(content, str) else json.dumps(content)
    return call("POST", body, signed(body))
