"""Grants as the vault stores them."""

from __future__ import annotations

import logging
import uuid

from portaria.connections import vault
from portaria.connections.vault import Credentials, Vault
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Grant

logger = logging.getLogger(__name__)


def add_version(vault_: Vault, secret_id: str, generation: int, credentials: Credentials, fence: int) -> str:
    """Store a generation's credentials and return the id of their version.

    The generation usually decides the id, so that a later worker finds the version. If an earlier worker, stopped for a long
    time, has stored another pair under that id, this pair gets a new id, because the later pair is the valid one. That version
    takes no label from the version in use: Secrets Manager may delete versions without a label.
    """
    version = vault.version_id(secret_id, generation)
    if vault_.add(secret_id, version, credentials):
        return version
    version = str(uuid.uuid4())
    vault_.add_aside(secret_id, version, credentials, fence)
    return version


def to_stored(grant: Grant) -> Credentials:
    """A grant as the vault stores it."""
    stored = {
        "access_token": grant.access_token,
        "expires_at": Secret(clock.to_iso(grant.expires_at)),
        "token_type": Secret(grant.token_type),
        "scopes": Secret(grant.scopes),
    }
    if grant.given_at:
        stored["given_at"] = Secret(clock.to_iso(grant.given_at))
    if grant.client_id:
        stored["client_id"] = Secret(grant.client_id)
    return stored | ({"refresh_token": grant.refresh_token} if grant.refresh_token else {})


def read_stored(credentials: Credentials) -> Grant:
    return Grant(
        access_token=credentials["access_token"],
        refresh_token=credentials.get("refresh_token"),
        expires_at=clock.from_iso(credentials["expires_at"].reveal()),
        token_type=credentials["token_type"].reveal(),
        scopes=credentials["scopes"].reveal(),
    )
