"""Private integrations: named, scoped tokens that let programs call this project's own API.

One item holds an integration: its scopes and the hashes of its valid tokens. One strongly consistent read authorizes a call,
and every change (a removed scope, a rotation, a deletion) takes effect with the next read in any process. After a rotation the
old token stays valid beside the new one for `OVERLAP`.

Modelled on LeadConnector's private integrations, as its documentation describes them.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from dataclasses import replace as with_changes
from datetime import datetime, timedelta

from portaria.access import api_tokens
from portaria.aws import due_index, event_bus
from portaria.aws.table import Conflict, Item, Table
from portaria.core import clock, event_catalogue
from portaria.core.callbacks import Secret
from portaria.core.entities import ROTATION_WARNINGS_AT
from portaria.core.errors import ChangedMeanwhile, Rejected

logger = logging.getLogger(__name__)

LIST = "PRIVATE_INTEGRATIONS"
OVERLAP = timedelta(days=7)


@dataclass(frozen=True)
class PrivateIntegration:
    """`scopes` are `{resource}:{operation}`, some narrowed: `connections:call@crm`. `version` grows with each change.

    `token_hash` is the hash of the current token, created at `token_made_at`; during a rotation's overlap (until
    `previous_until`) the previous token is valid too. Times are ISO 8601. `made_by_key` and `rotated_by_key` identify the
    creation and the rotation that had an Idempotency-Key. `token_usage` has the times of the tokens' last use.
    """

    id: str
    name: str
    description: str
    scopes: tuple[str, ...]
    token_hash: str
    token_made_at: str
    created_at: str
    created_by: str
    updated_at: str
    version: int = 1
    previous_hash: str = ""
    previous_made_at: str = ""
    previous_until: str = ""
    made_by_key: str = ""
    rotated_by_key: str = ""

    def overlaps(self, now: datetime) -> bool:
        """Whether two tokens are valid."""
        return bool(self.previous_hash) and now < clock.from_iso(self.previous_until)


FIELDS = tuple(field.name for field in dataclass_fields(PrivateIntegration))
_TOKENS = ("token_hash", "token_made_at", "previous_hash", "previous_made_at", "previous_until", "rotated_by_key")


def key(integration_id: str) -> tuple[str, str]:
    return f"PRIVATE_INTEGRATION#{integration_id}", "PRIVATE_INTEGRATION"


def find(table: Table, integration_id: str) -> PrivateIntegration | None:
    """One strongly consistent read."""
    item = table.get(*key(integration_id))
    return read(item) if item else None


def get(table: Table, integration_id: str) -> PrivateIntegration:
    """Raises `Rejected` (404 `unknown_private_integration`)."""
    found = find(table, integration_id)
    if not found:
        raise _unknown()
    return found


def read(item: Item) -> PrivateIntegration:
    values = {field: item[field] for field in FIELDS if field in item}
    return PrivateIntegration(**values | {"scopes": tuple(values["scopes"])})


def list_page(table: Table, cursor: str | None, limit: int) -> tuple[list[PrivateIntegration], str | None]:
    items, cursor = table.query(LIST, index="listing", cursor=cursor, limit=limit)
    return [read(item) for item in items], cursor


def create(
    table: Table,
    integration_id: str,
    name: str,
    description: str,
    scopes: tuple[str, ...],
    by: str,
    made_by_key: str = "",
) -> tuple[PrivateIntegration, Secret]:
    """Returns a new private integration and its token, which is not stored. Raises `Conflict` if the id is taken."""
    now = clock.to_iso(clock.now())
    token = api_tokens.make(integration_id)
    made = PrivateIntegration(
        id=integration_id,
        name=name,
        description=description,
        scopes=scopes,
        token_hash=api_tokens.digest(token.reveal()),
        token_made_at=now,
        created_at=now,
        created_by=by,
        updated_at=now,
        made_by_key=made_by_key,
    )
    pk, sk = key(integration_id)
    item: Item = {field: getattr(made, field) for field in FIELDS} | {"scopes": list(scopes)}
    item |= {"pk": pk, "sk": sk, "list_pk": LIST, "list_sk": f"{now}#{integration_id}"}
    item |= {"due_pk": due_index.RENEWALS, "due_at": due_at(made, clock.now())}
    table.put(item, condition="attribute_not_exists(pk)", unique=("token_hash",))
    return made, token


def edit(table: Table, old: PrivateIntegration, **changes: object) -> PrivateIntegration:
    """Change `name`, `description` or `scopes`; the tokens stay. Raises `Rejected` (404, 409 `changed_meanwhile`)."""
    return _write(table, old, with_changes(old, **changes), ("name", "description", "scopes"))  # type: ignore[arg-type]


def drop_scopes_of(table: Table, connection: str) -> None:
    """Remove the scopes that are narrowed to a connection from every private integration, before the connection is deleted.

    A later connection may get the same name, and those integrations must not have access to it. Raises `ChangedMeanwhile`
    where an integration keeps changing.
    """
    for item in table.query_all(LIST, index="listing"):
        found: PrivateIntegration | None = read(item)
        for _ in range(3):
            if not found or not _narrowed(found, connection):
                break
            kept = tuple(scope for scope in found.scopes if scope not in _narrowed(found, connection))
            try:
                edit(table, found, scopes=kept)
                logger.info("scopes_dropped", extra={"private_integration": found.id, "connection": connection})
                break
            except Rejected:
                # It was deleted or changed since it was listed. The index may also be slightly out of date.
                found = find(table, found.id)
        else:
            raise ChangedMeanwhile("the private integration is being changed by others: try again")


def _narrowed(integration: PrivateIntegration, connection: str) -> set[str]:
    return {scope for scope in integration.scopes if scope.endswith(f"@{connection}")}


def rotate(
    table: Table, old: PrivateIntegration, *, expire_now: bool, by_key: str = ""
) -> tuple[PrivateIntegration, Secret]:
    """Create a new token. The old one stays valid for `OVERLAP`, unless `expire_now`.

    Raises `Rejected`: 404, 409 `changed_meanwhile`, 409 `rotation_under_way` if two tokens are valid already. A third would
    end the first, which programs that never received the second still use.
    """
    now = clock.now()
    if old.overlaps(now) and not expire_now:
        raise Rejected(
            "rotation_under_way",
            f"the token was rotated before and its previous token works until {old.previous_until}: cancel that "
            "rotation, or expire the previous token, first",
            status=409,
        )
    token = api_tokens.make(old.id)
    fresh = with_changes(
        old,
        token_hash=api_tokens.digest(token.reveal()),
        token_made_at=clock.to_iso(now),
        previous_hash="" if expire_now else old.token_hash,
        previous_made_at="" if expire_now else old.token_made_at,
        previous_until="" if expire_now else clock.to_iso(now + OVERLAP),
        rotated_by_key=by_key,
    )
    return _write(table, old, fresh, _TOKENS), token


def cancel_rotation(table: Table, old: PrivateIntegration) -> PrivateIntegration:
    """Restore the old token and end the new one at once. Raises `Rejected` (404, 409 `no_rotation`, `changed_meanwhile`)."""
    _require_overlap(old)
    fresh = with_changes(
        old,
        token_hash=old.previous_hash,
        token_made_at=old.previous_made_at,
        previous_hash="",
        previous_made_at="",
        previous_until="",
        rotated_by_key="",
    )
    return _write(table, old, fresh, _TOKENS)


def expire_old_token(table: Table, old: PrivateIntegration) -> PrivateIntegration:
    """End the old token early. Raises `Rejected` (404, 409 `no_rotation`, `changed_meanwhile`)."""
    _require_overlap(old)
    fresh = with_changes(old, previous_hash="", previous_made_at="", previous_until="")
    return _write(table, old, fresh, _TOKENS)


def delete(table: Table, integration_id: str) -> None:
    """Delete a private integration and so its tokens. Raises `Rejected` (404)."""
    try:
        table.delete(*key(integration_id), condition="attribute_exists(pk)")
    except Conflict:
        raise _unknown() from None


def due_at(integration: PrivateIntegration, now: datetime) -> str:
    """When `renew_tokens` must visit it next (ISO 8601) to warn of an old token; empty if it need not."""
    made = clock.from_iso(integration.token_made_at)
    moments = [made + age for age in ROTATION_WARNINGS_AT if made + age > now]
    return clock.to_iso(min(moments)) if moments else ""


def warn_of_age(table: Table, bus_name: str, integration_id: str) -> None:
    """Publish, once for each limit, that a token is 80 or 90 days old. Raises `Retryable`.

    A death between the event and the write of the item repeats the event.
    """
    item = table.get(*key(integration_id))
    if not item:
        return
    integration = read(item)
    now = clock.now()
    age = now - clock.from_iso(integration.token_made_at)
    passed = sum(age >= limit for limit in ROTATION_WARNINGS_AT)
    if passed > int(item.get("warned", 0)):
        detail = {"private_integration": integration.id, "name": integration.name, "age_days": age.days}
        event_bus.put(bus_name, event_catalogue.PRIVATE_INTEGRATION_ROTATION_DUE, detail)
    sets, removes = _due(integration, now)
    with suppress(Conflict):
        table.update(
            *key(integration_id),
            f"SET {', '.join(['warned = :passed', *sets])}" + (f" REMOVE {', '.join(removes)}" if removes else ""),
            condition="token_made_at = :made_at",
            values={":passed": passed, ":made_at": integration.token_made_at} | dict(sets.values()),
        )


def _due(integration: PrivateIntegration, now: datetime) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """What an update sets (with values) and removes for the integration's next due time."""
    due = due_at(integration, now)
    if not due:
        return {}, ["due_pk", "due_at"]
    return {"due_pk = :due_pk": (":due_pk", due_index.RENEWALS), "due_at = :due_at": (":due_at", due)}, []


def _write(
    table: Table, old: PrivateIntegration, fresh: PrivateIntegration, fields: tuple[str, ...]
) -> PrivateIntegration:
    now = clock.now()
    fresh = with_changes(fresh, version=old.version + 1, updated_at=clock.to_iso(now))
    fields = (*fields, "version", "updated_at")
    values: Item = {f":{field}": getattr(fresh, field) for field in fields}
    if ":scopes" in values:
        values[":scopes"] = list(fresh.scopes)
    sets = [f"#{field} = :{field}" for field in fields]
    removes: list[str] = []
    if fresh.token_made_at != old.token_made_at:
        due, removes = _due(fresh, now)
        sets, removes = [*sets, *due], [*removes, "warned"]
        values |= dict(due.values())
    try:
        table.update(
            *key(old.id),
            f"SET {', '.join(sets)}" + (f" REMOVE {', '.join(removes)}" if removes else ""),
            condition="#version = :old_version",
            names={f"#{field}": field for field in fields},
            values=values | {":old_version": old.version},
        )
    except Conflict as conflict:
        if not conflict.item:
            raise _unknown() from None
        if conflict.item.get("updated_at") == fresh.updated_at and conflict.item.get("token_hash") == fresh.token_hash:
            # A write that was sent twice, because its first answer was lost, conflicts with itself.
            return fresh
        raise ChangedMeanwhile("the private integration has just changed: read it and try again") from None
    return fresh


def _require_overlap(integration: PrivateIntegration) -> None:
    if not integration.overlaps(clock.now()):
        raise Rejected("no_rotation", "there is no rotation to end: only one token works", status=409)


def _unknown() -> Rejected:
    return Rejected("unknown_private_integration", "there is no private integration with this id", status=404)
