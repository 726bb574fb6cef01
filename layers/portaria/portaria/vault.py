"""The vault: every credential lives in Secrets Manager, and only this module reads or writes there.

A grant's secret is written once, under a name that its install decides, before anything else is done with the tokens;
a connection then points to it. Where Secrets Manager will not take a grant, it is sealed (KMS data key, AES-256-GCM, bound
to its install) so that the table can keep it until Secrets Manager does.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from portaria import aws
from portaria.contract import Rejected, Retryable, Secret

Credentials = dict[str, Secret]

# Days in which a removed secret can be brought back, the shortest that Secrets Manager allows.
RECOVERY_DAYS = 7


class Vault:
    """`prefix` begins the name of every secret: `{prefix}/grants/{id}`, `{prefix}/oauth-clients/{platform}/{client}`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def grant_id(self, name: str) -> str:
        return f"{self.prefix}/grants/{name}"

    def client_secret_id(self, platform: str, client: str) -> str:
        return f"{self.prefix}/oauth-clients/{platform}/{client}"

    def client_secret(self, platform: str, client: str) -> Secret:
        """Raises `Rejected` (`no_client_secret`) where none is stored and `Retryable` where the vault does not answer."""
        credentials = self.read(self.client_secret_id(platform, client))
        if not credentials:
            raise Rejected(
                "no_client_secret", f"no secret is stored for the OAuth client {platform}/{client}", status=409
            )
        return credentials["client_secret"]

    def read(self, secret_id: str) -> Credentials | None:
        """The credentials of a secret, or None where there is none. Raises `Retryable` where the vault does not answer."""
        try:
            answer = aws.client("secretsmanager").get_secret_value(SecretId=secret_id)
        except ClientError as error:
            # A secret that waits for its removal answers InvalidRequestException: it is gone for every reader.
            if aws.error_code(error) in ("ResourceNotFoundException", "InvalidRequestException"):
                return None
            raise _unavailable(error) from None
        except BotoCoreError as error:
            raise _unavailable(error) from None
        return {name: Secret(value) for name, value in json.loads(answer["SecretString"]).items()}

    def create(self, secret_id: str, credentials: Credentials) -> None:
        """Store credentials under a new name; where the name exists the first writer's credentials stand.

        Raises `Retryable` where Secrets Manager does not take it (throttled, down): it may have been stored all the same.
        """
        try:
            aws.client("secretsmanager").create_secret(Name=secret_id, SecretString=_encode(credentials))
        except ClientError as error:
            if aws.error_code(error) != "ResourceExistsException":
                raise _unavailable(error) from None
        except BotoCoreError as error:
            raise _unavailable(error) from None

    def replace(self, secret_id: str, credentials: Credentials) -> None:
        """Store credentials under a name, new or not: the last writer's stand."""
        manager = aws.client("secretsmanager")
        try:
            try:
                manager.create_secret(Name=secret_id, SecretString=_encode(credentials))
            except ClientError as error:
                if aws.error_code(error) != "ResourceExistsException":
                    raise
                manager.put_secret_value(SecretId=secret_id, SecretString=_encode(credentials))
        except (ClientError, BotoCoreError) as error:
            raise _unavailable(error) from None

    def remove(self, secret_id: str, *, at_once: bool = False) -> None:
        """Delete a secret, by default with `RECOVERY_DAYS` to bring it back; one that is not there is no error."""
        how = {"ForceDeleteWithoutRecovery": True} if at_once else {"RecoveryWindowInDays": RECOVERY_DAYS}
        try:
            aws.client("secretsmanager").delete_secret(SecretId=secret_id, **how)
        except ClientError as error:
            if aws.error_code(error) not in ("ResourceNotFoundException", "InvalidRequestException"):
                raise _unavailable(error) from None
        except BotoCoreError as error:
            raise _unavailable(error) from None


@dataclass(frozen=True)
class Seal:
    """A data key, fetched from KMS before it is needed, so that sealing itself can not fail for want of a service."""

    install: str
    encrypted_key: bytes
    key: Secret

    def seal(self, credentials: Credentials) -> str:
        nonce = os.urandom(12)
        sealed = AESGCM(b64decode(self.key.reveal())).encrypt(
            nonce, _encode(credentials).encode(), self.install.encode()
        )
        return json.dumps({"key": b64encode(self.encrypted_key).decode(), "sealed": b64encode(nonce + sealed).decode()})


def prepare_seal(key_id: str, install: str) -> Seal:
    """Fetch a data key for the grant of one install. Raises `Retryable` where KMS does not answer."""
    try:
        answer = aws.client("kms").generate_data_key(
            KeyId=key_id, KeySpec="AES_256", EncryptionContext={"install": install}
        )
    except (ClientError, BotoCoreError) as error:
        raise _unavailable(error) from None
    return Seal(install, answer["CiphertextBlob"], Secret(b64encode(answer["Plaintext"]).decode()))


def unseal(key_id: str, install: str, sealed: str) -> Credentials:
    """Open what `Seal.seal` made for the same install. Raises `Retryable` where KMS does not answer."""
    parts = {name: b64decode(text) for name, text in json.loads(sealed).items()}
    try:
        key = aws.client("kms").decrypt(
            KeyId=key_id, CiphertextBlob=parts["key"], EncryptionContext={"install": install}
        )["Plaintext"]
    except (ClientError, BotoCoreError) as error:
        raise _unavailable(error) from None
    text = AESGCM(key).decrypt(parts["sealed"][:12], parts["sealed"][12:], install.encode())
    return {name: Secret(value) for name, value in json.loads(text).items()}


def _encode(credentials: Credentials) -> str:
    return json.dumps({name: secret.reveal() for name, secret in credentials.items()})


def _unavailable(error: Exception) -> Retryable:
    # The error's own text may quote what was sent: only its kind is told.
    return Retryable("vault_unavailable", f"the vault did not answer: {aws.error_code(error) or type(error).__name__}")
