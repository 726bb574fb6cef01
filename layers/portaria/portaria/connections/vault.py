"""The vault: Secrets Manager holds every credential, and only this module reads or writes there.

Each change of a connection's credentials is a new *version* of its secret, under an id that the generation decides: if two
workers write one generation, the first one's credentials are kept, however long the other was delayed. A connection's item
names the version in use, so nothing depends on which version Secrets Manager calls the current one. If Secrets Manager does not
accept a grant, the grant is sealed (KMS data key, AES-256-GCM, bound to its purpose), so that the table can store it.

A secret has at most 20 staging labels and 100 versions. Secrets Manager removes a version only when it has no label, is a day
old, and the secret has more than 100. Therefore labels come from a fixed set, and `connection_store.VERSION_EVERY` limits how
often refreshes add a version.

https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html
https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
"""

from __future__ import annotations

import json
import os
import uuid
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from portaria.aws import boto3_clients
from portaria.aws.table import Conflict
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable, StackUnavailable

Credentials = dict[str, Secret]

# Days in which a removed secret can be restored, the fewest that Secrets Manager allows.
RECOVERY_DAYS = 7
MAX_SECRET_BYTES = 65_536
# Labels for versions that must not take AWSCURRENT from another version. With AWSCURRENT, AWSPREVIOUS and AWSPENDING, a secret
# has at most 11 labels.
ASIDE_LABELS = 8
# The wait when a secret has 100 versions: each of them may be younger than a day.
FULL_WAIT_S = 3_600.0
# For a secret that is scheduled for deletion Secrets Manager answers InvalidRequestException: readers treat it as deleted.
GONE = ("ResourceNotFoundException", "InvalidRequestException")

_VERSIONS = uuid.UUID("6f0f6f2e-6f4b-4f0e-9d37-5d1f3a9c7b52")


def version_id(secret_id: str, generation: int) -> str:
    """The id of the version that holds a generation's credentials: the same for every worker."""
    return str(uuid.uuid5(_VERSIONS, f"{secret_id}#{generation}"))


class Vault:
    """`prefix` begins the name of every secret: `{prefix}/grants/{id}`, `{prefix}/oauth-clients/{platform}/{client}`.

    Every method raises `Retryable` where Secrets Manager does not answer or accepts no more versions (`vault_full`); it may
    have processed the request. Methods that store credentials raise `Rejected` (`credentials_too_large`) above
    `MAX_SECRET_BYTES`.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def grant_id(self, name: str) -> str:
        return f"{self.prefix}/grants/{name}"

    def client_secret_id(self, platform: str, client: str) -> str:
        return f"{self.prefix}/oauth-clients/{platform}/{client}"

    def client_secret(self, platform: str, client: str) -> Secret:
        """Raises `Rejected` (`no_client_secret`) if none is stored."""
        credentials = self.read(self.client_secret_id(platform, client))
        if not credentials:
            raise Rejected(
                "no_client_secret", f"no secret is stored for the OAuth client {platform}/{client}", status=409
            )
        return credentials["client_secret"]

    def read(self, secret_id: str, version: str = "") -> Credentials | None:
        """The credentials of a secret's version, by default the current one, or None if there is none."""
        found = self.find(secret_id, version)
        return found[0] if found else None

    def find(self, secret_id: str, version: str = "") -> tuple[Credentials, str] | None:
        """As `read`, with the id of that version."""
        which = {"VersionId": version} if version else {}
        try:
            answer = _call("get_secret_value", SecretId=secret_id, **which)
        except ClientError as error:
            if boto3_clients.error_code(error) in GONE:
                return None
            raise _unavailable(error) from None
        return _decode(answer["SecretString"]), answer["VersionId"]

    def create(self, secret_id: str, credentials: Credentials, version: str = "") -> str:
        """Store credentials under a new name and return their version's id, by default one of Secrets Manager's own.

        Where the name exists, the first writer's credentials are kept.
        """
        token = {"ClientRequestToken": version} if version else {}
        try:
            answer = _call("create_secret", Name=secret_id, SecretString=_storable(credentials), **token)
        except ClientError as error:
            if boto3_clients.error_code(error) != "ResourceExistsException":
                raise _unavailable(error) from None
            return version
        return str(answer["VersionId"])

    def add(self, secret_id: str, version: str, credentials: Credentials) -> bool:
        """Store credentials as a version, which becomes the current one. False if its id already holds other credentials."""
        return self._put(secret_id, version, credentials, "AWSCURRENT")

    def add_aside(self, secret_id: str, version: str, credentials: Credentials, turn: int) -> None:
        """Store credentials as a version that takes no label from the version in use.

        `turn` is the connection's fence. Each turn takes the next of the `ASIDE_LABELS` labels, so that the label is taken from
        a version that was stored eight turns earlier.
        """
        self._put(secret_id, version, credentials, f"ASIDE-{turn % ASIDE_LABELS}")

    def stage(self, secret_id: str, version: str, credentials: Credentials) -> None:
        """Store credentials as a version that nothing uses yet; `promote` makes it the current one.

        The version that was staged before loses its label.
        """
        self._put(secret_id, version, credentials, "AWSPENDING")

    def promote(self, secret_id: str, *, old: str, new: str) -> None:
        """Make a staged version the current one in the old one's place, which stays readable as the previous one.

        Compare and swap: raises `Conflict` where the old version is no longer the current one.
        """
        try:
            _call(
                "update_secret_version_stage",
                SecretId=secret_id,
                VersionStage="AWSCURRENT",
                MoveToVersionId=new,
                RemoveFromVersionId=old,
            )
        except ClientError as error:
            if boto3_clients.error_code(error) == "InvalidParameterException":
                raise Conflict from None
            raise _unavailable(error) from None

    def current_version(self, secret_id: str) -> str:
        """The id of the current version; empty if there is none or the secret is scheduled for deletion."""
        try:
            answer = _call("describe_secret", SecretId=secret_id)
        except ClientError as error:
            if boto3_clients.error_code(error) in GONE:
                return ""
            raise _unavailable(error) from None
        if "DeletedDate" in answer:
            return ""
        stages: dict[str, list[str]] = answer.get("VersionIdsToStages", {})
        return next((version for version, labels in stages.items() if "AWSCURRENT" in labels), "")

    def drop(self, secret_id: str, version: str) -> None:
        """Take the label from the previous version, so that Secrets Manager may remove it. Does nothing if it has none."""
        try:
            _call(
                "update_secret_version_stage",
                SecretId=secret_id,
                VersionStage="AWSPREVIOUS",
                RemoveFromVersionId=version,
            )
        except ClientError as error:
            if boto3_clients.error_code(error) not in (*GONE, "InvalidParameterException"):
                raise _unavailable(error) from None

    def replace(self, secret_id: str, credentials: Credentials) -> None:
        """Store credentials under a name, new or not: the last writer's are kept."""
        try:
            try:
                _call("create_secret", Name=secret_id, SecretString=_storable(credentials))
            except ClientError as error:
                if boto3_clients.error_code(error) != "ResourceExistsException":
                    raise
                _call("put_secret_value", SecretId=secret_id, SecretString=_storable(credentials))
        except ClientError as error:
            raise _unavailable(error) from None

    def remove(self, secret_id: str, *, immediately: bool = False) -> None:
        """Delete a secret, by default with `RECOVERY_DAYS` to restore it. Does nothing if there is none."""
        how = {"ForceDeleteWithoutRecovery": True} if immediately else {"RecoveryWindowInDays": RECOVERY_DAYS}
        try:
            _call("delete_secret", SecretId=secret_id, **how)
        except ClientError as error:
            if boto3_clients.error_code(error) not in GONE:
                raise _unavailable(error) from None

    def _put(self, secret_id: str, version: str, credentials: Credentials, label: str) -> bool:
        try:
            _call(
                "put_secret_value",
                SecretId=secret_id,
                ClientRequestToken=version,
                SecretString=_storable(credentials),
                VersionStages=[label],
            )
        except ClientError as error:
            if boto3_clients.error_code(error) == "ResourceExistsException":
                return False
            raise _unavailable(error) from None
        return True


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
        sealed = AESGCM(b64decode(self.key.reveal())).encrypt(
            nonce, _encode(credentials).encode(), _bound(self.context)
        )
        return json.dumps({"key": b64encode(self.encrypted_key).decode(), "sealed": b64encode(nonce + sealed).decode()})


def prepare_seal(key_id: str, context: dict[str, str]) -> Seal:
    """Fetch a data key. Raises `Retryable` if KMS does not answer."""
    try:
        answer = boto3_clients.client("kms").generate_data_key(
            KeyId=key_id, KeySpec="AES_256", EncryptionContext=context
        )
    except (ClientError, BotoCoreError) as error:
        raise _unavailable(error) from None
    return Seal(context, answer["CiphertextBlob"], Secret(b64encode(answer["Plaintext"]).decode()))


def unseal(key_id: str, context: dict[str, str], sealed: str) -> Credentials:
    """Open what `Seal.seal` made in the same context.

    Raises `Retryable` if KMS does not answer and `Rejected` (`seal_broken`) if the seal is of another context or was
    altered.
    """
    broken = Rejected("seal_broken", "the sealed credentials cannot be opened: connect again", status=409)
    try:
        parts = {name: b64decode(text) for name, text in json.loads(sealed).items()}
        key = boto3_clients.client("kms").decrypt(KeyId=key_id, CiphertextBlob=parts["key"], EncryptionContext=context)
        text = AESGCM(key["Plaintext"]).decrypt(parts["sealed"][:12], parts["sealed"][12:], _bound(context))
    except ClientError as error:
        if boto3_clients.error_code(error) in ("InvalidCiphertextException", "IncorrectKeyException"):
            raise broken from None
        raise _unavailable(error) from None
    except BotoCoreError as error:
        raise _unavailable(error) from None
    except (InvalidTag, ValueError, KeyError):
        raise broken from None
    return _decode(text)


def _call(operation: str, **parameters: Any) -> dict[str, Any]:
    """Raises botocore's `ClientError` for an error answer, and `Retryable` if no answer came."""
    try:
        answer: dict[str, Any] = getattr(boto3_clients.client("secretsmanager"), operation)(**parameters)
    except BotoCoreError as error:
        raise _unavailable(error) from None
    return answer


def _bound(context: dict[str, str]) -> bytes:
    return json.dumps(context, sort_keys=True).encode()


def _encode(credentials: Credentials) -> str:
    return json.dumps({name: secret.reveal() for name, secret in credentials.items()})


def _storable(credentials: Credentials) -> str:
    text = _encode(credentials)
    if len(text) > MAX_SECRET_BYTES:
        raise Rejected(
            "credentials_too_large",
            f"the credentials have {len(text):,} bytes as JSON: Secrets Manager accepts at most {MAX_SECRET_BYTES:,}",
            field="credentials",
        )
    return text


def _decode(text: str | bytes) -> Credentials:
    return {name: Secret(value) for name, value in json.loads(text).items()}


def _unavailable(error: Exception) -> Retryable:
    if boto3_clients.error_code(error) == "LimitExceededException":
        return Retryable(
            "vault_full",
            "the secret has as many versions as Secrets Manager allows, and each is kept for a day: try again later",
            after_s=FULL_WAIT_S,
        )
    # Without the error's text, which may quote the credentials.
    return StackUnavailable(
        "vault_unavailable",
        f"Secrets Manager or KMS did not respond: {boto3_clients.error_code(error) or type(error).__name__}",
    )
