"""Replacing a token that its requester did not receive, because the response to its creation or rotation was lost."""

from __future__ import annotations

from dataclasses import replace as with_changes

from portaria.access import api_tokens, private_integrations, token_usage
from portaria.access.private_integrations import PrivateIntegration
from portaria.aws.table import Conflict, Table, delete_of, update_of
from portaria.core import clock
from portaria.core.callbacks import Secret


def reissue(table: Table, old: PrivateIntegration) -> tuple[PrivateIntegration, Secret] | None:
    """Another token in place of the newest one, which stops working. None if that one has been used, or has just changed.

    One transaction checks both: a token that was used before it was replaced is in use somewhere.
    """
    token = api_tokens.make(old.id)
    fresh = with_changes(
        old,
        token_hash=api_tokens.digest(token.reveal()),
        version=old.version + 1,
        updated_at=clock.to_iso(clock.now()),
    )
    replaced = update_of(
        *private_integrations.key(old.id),
        "SET token_hash = :token_hash, #version = :version, updated_at = :updated_at",
        condition="#version = :old_version",
        names={"#version": "version"},
        values={
            ":token_hash": fresh.token_hash,
            ":version": fresh.version,
            ":updated_at": fresh.updated_at,
            ":old_version": old.version,
        },
    )
    unused = delete_of(*token_usage.key(old.id, old.token_hash), condition="attribute_not_exists(pk)")
    try:
        table.write_all([replaced, unused])
    except Conflict:
        return None
    return fresh, token
