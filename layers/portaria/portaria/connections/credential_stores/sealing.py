"""Sealing: credentials are encrypted with AES-256-GCM under a KMS data key that is bound to the purpose of the credentials.

Each seal has a data key of its own, so no nonce can repeat under a key, and a new key of KMS's yearly rotation is in use with
the next write. Plaintext data keys are not cached: processes cache the tokens themselves, so a process decrypts a data key once
for each version of a token, and a cached key would only add to what a memory dump exposes.

https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html
https://docs.aws.amazon.com/encryption-sdk/latest/developer-guide/data-key-caching.html
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from portaria.aws import service_clients
from portaria.connections.credential_stores.protocol import Credentials, decode, encode, unavailable
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected


@dataclass(frozen=True)
class Seal:
    """A data key, fetched from KMS before it is needed, so that sealing itself needs no service.

    `context` names the purpose of the sealed credentials (`{"connection": name}`). They can be opened only with the same
    context.
    """

    context: dict[str, str]
    encrypted_key: bytes
    key: Secret

    def seal(self, credentials: Credentials) -> str:
        nonce = os.urandom(12)
        sealed = AESGCM(b64decode(self.key.reveal())).encrypt(nonce, encode(credentials).encode(), _bound(self.context))
        return json.dumps({"key": b64encode(self.encrypted_key).decode(), "sealed": b64encode(nonce + sealed).decode()})


def prepare_seal(key_id: str, context: dict[str, str]) -> Seal:
    """Fetch a data key. Raises `Retryable` if KMS does not answer."""
    try:
        answer = service_clients.client("kms").generate_data_key(
            KeyId=key_id, KeySpec="AES_256", EncryptionContext=context
        )
    except (ClientError, BotoCoreError) as error:
        raise unavailable(error) from None
    return Seal(context, answer["CiphertextBlob"], Secret(b64encode(answer["Plaintext"]).decode()))


def unseal(key_id: str, context: dict[str, str], sealed: str) -> Credentials:
    """Open what `Seal.seal` made in the same context.

    Raises `Retryable` if KMS does not answer and `Rejected` (`seal_broken`) if the seal is of another context or was
    altered.
    """
    broken = Rejected("seal_broken", "the sealed credentials cannot be opened: connect again", status=409)
    try:
        parts = {name: b64decode(text) for name, text in json.loads(sealed).items()}
        key = service_clients.client("kms").decrypt(
            KeyId=key_id, CiphertextBlob=parts["key"], EncryptionContext=context
        )
        text = AESGCM(key["Plaintext"]).decrypt(parts["sealed"][:12], parts["sealed"][12:], _bound(context))
    except ClientError as error:
        if service_clients.error_code(error) in ("InvalidCiphertextException", "IncorrectKeyException"):
            raise broken from None
        raise unavailable(error) from None
    except BotoCoreError as error:
        raise unavailable(error) from None
    except (InvalidTag, ValueError, KeyError):
        raise broken from None
    return decode(text)


def _bound(context: dict[str, str]) -> bytes:
    return json.dumps(context, sort_keys=True).encode()
