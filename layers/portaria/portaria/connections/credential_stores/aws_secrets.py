"""Secrets Manager: OAuth clients' secrets, and by default the credentials of connections, a secret for each grant.

Each change of a connection's credentials is a new *version* of its secret, under an id that the generation decides: if two
workers write one generation, the first one's credentials are kept, however long the other was delayed. A connection's item
names the version in use, so nothing depends on which version Secrets Manager calls the current one.

A secret has at most 20 staging labels and 100 versions. Secrets Manager removes a version only when it has no label, is a day
old, and the secret has more than 100. Therefore labels come from a fixed set, and `connection_store.VERSION_EVERY` limits how
often refreshes add a version.

https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html
https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from portaria.aws import service_clients
from portaria.aws.table import Conflict
from portaria.connections.credential_stores.protocol import (
    RECOVERY,
    Credentials,
    checked_text,
    decode,
    unavailable,
)

MAX_SECRET_BYTES = 65_536
# Labels for versions that must not take AWSCURRENT from another version. With AWSCURRENT, AWSPREVIOUS and AWSPENDING, a secret
# has at most 11 labels.
ASIDE_LABELS = 8
# For a secret that is scheduled for deletion Secrets Manager answers InvalidRequestException: readers treat it as deleted.
GONE = ("ResourceNotFoundException", "InvalidRequestException")


class SecretsManager:
    """See `CredentialStore`."""

    def find(self, secret_id: str, version: str = "") -> tuple[Credentials, str] | None:
        which = {"VersionId": version} if version else {}
        try:
            answer = _call("get_secret_value", SecretId=secret_id, **which)
        except ClientError as error:
            if service_clients.error_code(error) in GONE:
                return None
            raise unavailable(error) from None
        return decode(answer["SecretString"]), answer["VersionId"]

    def prepare(self, secret_id: str) -> None:
        """Secrets Manager needs nothing."""

    def create(self, secret_id: str, credentials: Credentials, version: str = "") -> str:
        token = {"ClientRequestToken": version} if version else {}
        try:
            answer = _call("create_secret", Name=secret_id, SecretString=_storable(credentials), **token)
        except ClientError as error:
            if service_clients.error_code(error) != "ResourceExistsException":
                raise unavailable(error) from None
            return version
        return str(answer["VersionId"])

    def add(self, secret_id: str, version: str, credentials: Credentials) -> bool:
        return self._put(secret_id, version, credentials, "AWSCURRENT")

    def add_aside(self, secret_id: str, version: str, credentials: Credentials, turn: int) -> None:
        self._put(secret_id, version, credentials, f"ASIDE-{turn % ASIDE_LABELS}")

    def stage(self, secret_id: str, version: str, credentials: Credentials) -> None:
        self._put(secret_id, version, credentials, "AWSPENDING")

    def promote(self, secret_id: str, *, old: str, new: str) -> None:
        """Raises `Conflict` and `Retryable`."""
        try:
            _call(
                "update_secret_version_stage",
                SecretId=secret_id,
                VersionStage="AWSCURRENT",
                MoveToVersionId=new,
                RemoveFromVersionId=old,
            )
        except ClientError as error:
            if service_clients.error_code(error) == "InvalidParameterException":
                raise Conflict from None
            raise unavailable(error) from None

    def current_version(self, secret_id: str) -> str:
        try:
            answer = _call("describe_secret", SecretId=secret_id)
        except ClientError as error:
            if service_clients.error_code(error) in GONE:
                return ""
            raise unavailable(error) from None
        if "DeletedDate" in answer:
            return ""
        stages: dict[str, list[str]] = answer.get("VersionIdsToStages", {})
        return next((version for version, labels in stages.items() if "AWSCURRENT" in labels), "")

    def drop(self, secret_id: str, version: str) -> None:
        try:
            _call(
                "update_secret_version_stage",
                SecretId=secret_id,
                VersionStage="AWSPREVIOUS",
                RemoveFromVersionId=version,
            )
        except ClientError as error:
            if service_clients.error_code(error) not in (*GONE, "InvalidParameterException"):
                raise unavailable(error) from None

    def replace(self, secret_id: str, credentials: Credentials) -> None:
        """Store credentials under a name, new or not: the last writer's are kept."""
        try:
            try:
                _call("create_secret", Name=secret_id, SecretString=_storable(credentials))
            except ClientError as error:
                if service_clients.error_code(error) != "ResourceExistsException":
                    raise
                _call("put_secret_value", SecretId=secret_id, SecretString=_storable(credentials))
        except ClientError as error:
            raise unavailable(error) from None

    def remove(self, secret_id: str, *, immediately: bool = False) -> None:
        """Delete a secret, by default with a week to restore it. Does nothing if there is none."""
        how = {"ForceDeleteWithoutRecovery": True} if immediately else {"RecoveryWindowInDays": RECOVERY.days}
        try:
            _call("delete_secret", SecretId=secret_id, **how)
        except ClientError as error:
            if service_clients.error_code(error) not in GONE:
                raise unavailable(error) from None

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
            if service_clients.error_code(error) == "ResourceExistsException":
                return False
            raise unavailable(error) from None
        return True


def _call(operation: str, **parameters: Any) -> dict[str, Any]:
    """Raises botocore's `ClientError` for an error answer, and `Retryable` if no answer came."""
    try:
        answer: dict[str, Any] = getattr(service_clients.client("secretsmanager"), operation)(**parameters)
    except BotoCoreError as error:
        raise unavailable(error) from None
    return answer


def _storable(credentials: Credentials) -> str:
    return checked_text(credentials, MAX_SECRET_BYTES, "Secrets Manager")
