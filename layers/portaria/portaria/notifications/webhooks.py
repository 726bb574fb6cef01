"""Webhooks: the endpoints of the team's application that events are sent to.

    enabled ⇄ disabled        an owner's edit, an answer of 410, or five days of failure
    enabled, disabled → deleted

All webhooks are in one partition, so that one query finds those that an event concerns. The signing secret is sealed in the
item: a rotation is one conditional write, and the secret is deleted with its webhook. A deleted webhook's item stays for
`DELETED_FOR`, until its open deliveries have been ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from dataclasses import replace as with_changes
from datetime import timedelta

from portaria.aws.table import Conflict, Item, Table
from portaria.connections.credential_stores import sealing
from portaria.core import clock, event_catalogue
from portaria.core.callbacks import Secret
from portaria.core.errors import ChangedMeanwhile, Rejected
from portaria.notifications import signatures

PARTITION = "WEBHOOKS"
# An event is compared with all of them.
MAX_WEBHOOKS = 100
OVERLAP = timedelta(days=1)
DELETED_FOR = timedelta(days=7)
ENABLED, DISABLED, DELETED = "enabled", "disabled", "deleted"
# Why a webhook was disabled.
GONE, FAILING, BY_REQUEST = "gone", "failing", "by_request"


@dataclass(frozen=True)
class Webhook:
    """`sealed` and `sealed_previous` are the signing secrets; the previous one signs too until `previous_until`.

    Times are ISO 8601. `announce` is set while the event `webhook.disabled` is still to be published.
    """

    id: str
    url: str
    events: tuple[str, ...]
    description: str
    state: str
    created_at: str
    created_by: str
    updated_at: str
    secret_made_at: str
    sealed: str = field(repr=False)
    version: int = 1
    disabled_reason: str = ""
    disabled_at: str = ""
    sealed_previous: str = field(default="", repr=False)
    previous_until: str = ""
    made_by_key: str = ""
    rotated_by_key: str = ""
    announce: bool = False

    def selects(self, event_type: str) -> bool:
        """Whether the webhook receives an event."""
        return self.state == ENABLED and any(event_catalogue.selects(each, event_type) for each in self.events)

    def overlaps(self) -> bool:
        """Whether the previous secret signs too."""
        return bool(self.sealed_previous) and clock.now() < clock.from_iso(self.previous_until)


_FIELDS = tuple(each.name for each in dataclass_fields(Webhook))


def key(webhook_id: str) -> tuple[str, str]:
    return PARTITION, webhook_id


def read(item: Item) -> Webhook:
    values = {name: item[name] for name in _FIELDS if name in item}
    return Webhook(**values | {"id": item["sk"], "events": tuple(item["events"])})


def find(table: Table, webhook_id: str) -> Webhook | None:
    """A webhook in any state. A strongly consistent read."""
    item = table.get(*key(webhook_id))
    return read(item) if item else None


def get(table: Table, webhook_id: str) -> Webhook:
    """Raises `Rejected` (404 `unknown_webhook`)."""
    found = find(table, webhook_id)
    if not found or found.state == DELETED:
        raise _unknown()
    return found


def list_all(table: Table) -> list[Webhook]:
    """Every webhook, also the deleted ones whose item is still there. Strongly consistent."""
    return [read(item) for item in table.query_all(PARTITION)]


def create(table: Table, webhook: Webhook) -> None:
    """Raises `Conflict` where the id is taken."""
    table.put(_item(webhook), condition="attribute_not_exists(pk)", unique=("sealed",))


def edit(table: Table, old: Webhook, fresh: Webhook) -> Webhook:
    """Replace what a person may change. Raises `ChangedMeanwhile`."""
    return _write(table, old, fresh)


def rotate(table: Table, old: Webhook, sealed: str, by_key: str, *, overlaps: bool) -> Webhook:
    """Sign with a new secret, and if it `overlaps`, for `OVERLAP` with the one before too. Raises `ChangedMeanwhile`."""
    now = clock.now()
    fresh = with_changes(
        old,
        sealed=sealed,
        secret_made_at=clock.to_iso(now),
        sealed_previous=old.sealed if overlaps else "",
        previous_until=clock.to_iso(now + OVERLAP) if overlaps else "",
        rotated_by_key=by_key,
    )
    return _write(table, old, fresh)


def delete(table: Table, webhook_id: str) -> None:
    """Nothing is sent to it any more, and its secrets are deleted. Raises `Rejected` (404 `unknown_webhook`)."""
    now = clock.now()
    try:
        table.update(
            *key(webhook_id),
            "SET #state = :deleted, sealed = :none, updated_at = :now, expires_at = :expires_at, #version = #version + :one "
            "REMOVE sealed_previous, announce",
            condition="attribute_exists(pk) AND #state <> :deleted",
            names={"#state": "state", "#version": "version"},
            values={
                ":deleted": DELETED,
                ":none": "",
                ":now": clock.to_iso(now),
                ":expires_at": int((now + DELETED_FOR).timestamp()),
                ":one": 1,
            },
        )
    except Conflict:
        raise _unknown() from None


def disable(table: Table, webhook_id: str, url: str, reason: str) -> bool:
    """Disable a webhook that is enabled and still has this URL; whether this call did so.

    The same write notes that `webhook.disabled` must be published (see `announced`), so that a death loses no event.
    """
    now = clock.to_iso(clock.now())
    try:
        table.update(
            *key(webhook_id),
            "SET #state = :disabled, disabled_reason = :reason, disabled_at = :now, updated_at = :now, announce = :yes, "
            "#version = #version + :one",
            condition="#state = :enabled AND #url = :url",
            names={"#state": "state", "#url": "url", "#version": "version"},
            values={
                ":disabled": DISABLED,
                ":enabled": ENABLED,
                ":reason": reason,
                ":now": now,
                ":yes": True,
                ":one": 1,
                ":url": url,
            },
        )
    except Conflict:
        return False
    return True


def announced(table: Table, webhook_id: str) -> None:
    """Note that `webhook.disabled` has been published. Does nothing where the webhook is gone."""
    try:
        table.update(*key(webhook_id), "REMOVE announce", condition="attribute_exists(pk)")
    except Conflict:
        return


# ------------------------------------------------------------------------------------------------------- signing secrets


def seal(key_id: str, webhook_id: str, secret: Secret) -> str:
    """Raises `Retryable` where KMS does not answer."""
    return sealing.prepare_seal(key_id, _context(webhook_id)).seal({"secret": secret})


def unseal(key_id: str, webhook_id: str, sealed: str) -> Secret:
    """Raises `Retryable` where KMS does not answer, and `Rejected` where the seal is not of this webhook."""
    return sealing.unseal(key_id, _context(webhook_id), sealed)["secret"]


def new_secret() -> Secret:
    return signatures.new_secret()


def _context(webhook_id: str) -> dict[str, str]:
    return {"webhook": webhook_id}


def _item(webhook: Webhook) -> Item:
    item: Item = {name: getattr(webhook, name) for name in _FIELDS if name != "id"}
    if not webhook.announce:
        del item["announce"]
    return item | {"pk": PARTITION, "sk": webhook.id, "events": list(webhook.events)}


def _write(table: Table, old: Webhook, fresh: Webhook) -> Webhook:
    fresh = with_changes(fresh, version=old.version + 1, updated_at=clock.to_iso(clock.now()))
    try:
        table.put(
            _item(fresh),
            condition="#version = :old AND #state <> :deleted",
            names={"#version": "version", "#state": "state"},
            values={":old": old.version, ":deleted": DELETED},
        )
    except Conflict as conflict:
        if not conflict.item or conflict.item.get("state") == DELETED:
            raise _unknown() from None
        if read(conflict.item) == fresh:
            # A write that was sent twice, because its first answer was lost, conflicts with itself.
            return fresh
        raise ChangedMeanwhile("the webhook has just changed: read it and try again") from None
    return fresh


def _unknown() -> Rejected:
    return Rejected("unknown_webhook", "there is no webhook with this id", status=404)
