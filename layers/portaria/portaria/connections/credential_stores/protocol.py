"""What a store of credentials does. There are two: `aws_secrets` and `sealed_table`.

A connection's item names its credentials by `secret_id` and `version_id`. The form of the `secret_id` says which store holds
them, so readers never depend on the parameter `CredentialStore`, which decides only where credentials of new grants are stored.
"""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Protocol

from portaria.aws import service_clients
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable, StackUnavailable

Credentials = dict[str, Secret]

# The values of the parameter `CredentialStore`.
SECRETS_MANAGER, TABLE = "secrets-manager", "table"
STORES = (SECRETS_MANAGER, TABLE)
# What the `secret_id` of credentials in the table begins with. The names of Secrets Manager have no colon.
IN_TABLE = "table:"
# How long removed credentials can be restored: the fewest days that Secrets Manager allows.
RECOVERY = timedelta(days=7)
# The wait when a secret has 100 versions: each of them may be younger than a day.
FULL_WAIT_S = 3_600.0

_VERSIONS = uuid.UUID("6f0f6f2e-6f4b-4f0e-9d37-5d1f3a9c7b52")


class CredentialStore(Protocol):
    """Credentials by name, each change as a new version under an id that the caller chooses.

    Of the versions one is current. The one before, a staged one and the last of those that were stored aside are kept too;
    any other version may be deleted. Every method raises `Retryable` where the store does not answer; it may have processed
    the request. Methods that store credentials raise `Rejected` (`credentials_too_large`).
    """

    def find(self, secret_id: str, version: str = "") -> tuple[Credentials, str] | None:
        """The credentials of a version, by default of the current one, and its id. None if there is none."""

    def prepare(self, secret_id: str) -> None:
        """Fetch what the next storing of credentials needs, so that a single call stores them once they have arrived."""

    def create(self, secret_id: str, credentials: Credentials, version: str = "") -> str:
        """Store credentials under a new name and return their version's id, by default one of the store's own.

        Where the name exists, the first writer's credentials are kept.
        """

    def add(self, secret_id: str, version: str, credentials: Credentials) -> bool:
        """Store credentials as a version, which becomes the current one. False if its id already holds other credentials."""

    def add_aside(self, secret_id: str, version: str, credentials: Credentials, turn: int) -> None:
        """Store credentials as a version that takes no label from the version in use.

        `turn` is the connection's fence. The version is kept until eight later turns have stored another one aside.
        """

    def stage(self, secret_id: str, version: str, credentials: Credentials) -> None:
        """Store credentials as a version that nothing uses yet; `promote` makes it the current one.

        A version that was staged before is not kept.
        """

    def promote(self, secret_id: str, *, old: str, new: str) -> None:
        """Make a stored version the current one in the old one's place, which stays readable as the previous one.

        Compare and swap: raises `Conflict` where the old version is no longer the current one.
        """

    def current_version(self, secret_id: str) -> str:
        """The id of the current version; empty if there is none or the credentials have been removed."""

    def drop(self, secret_id: str, version: str) -> None:
        """Stop keeping the previous version. Does nothing if it is not kept as that."""

    def remove(self, secret_id: str, *, immediately: bool = False) -> None:
        """Remove all versions, by default with seven days to restore them. Does nothing if there is none."""


def version_id(secret_id: str, generation: int) -> str:
    """The id of the version that holds a generation's credentials: the same for every worker."""
    return str(uuid.uuid5(_VERSIONS, f"{secret_id}#{generation}"))


def store_name(secret_id: str) -> str:
    """The store that holds the credentials of this name."""
    return TABLE if secret_id.startswith(IN_TABLE) else SECRETS_MANAGER


def encode(credentials: Credentials) -> str:
    return json.dumps({name: secret.reveal() for name, secret in credentials.items()})


def decode(text: str | bytes) -> Credentials:
    return {name: Secret(value) for name, value in json.loads(text).items()}


def checked_text(credentials: Credentials, max_bytes: int, where: str) -> str:
    """The credentials as JSON. Raises `Rejected` (`credentials_too_large`)."""
    text = encode(credentials)
    if len(text) > max_bytes:
        raise Rejected(
            "credentials_too_large",
            f"the credentials have {len(text):,} bytes as JSON: {where} accepts at most {max_bytes:,}",
            field="credentials",
        )
    return text


def unavailable(error: Exception) -> Retryable:
    if service_clients.error_code(error) == "LimitExceededException":
        return Retryable(
            "vault_full",
            "the secret has as many versions as Secrets Manager allows, and each is kept for a day: try again later",
            after_s=FULL_WAIT_S,
        )
    # Without the error's text, which may quote the credentials.
    return StackUnavailable(
        "vault_unavailable",
        f"Secrets Manager, KMS or the table did not respond: {service_clients.error_code(error) or type(error).__name__}",
    )
