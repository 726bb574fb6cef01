"""The checks at the end of a schedule: no connection lost, none given up without cause, nothing left behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from portaria.aws.table import Table
from portaria.connections import connection_store, credential_migration
from portaria.connections.credential_stores.protocol import store_name
from portaria.connections.tokens import cache, provider
from portaria.core import clock, event_catalogue
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable
from portaria.core.item_keys import tag_partition
from portaria.core.stored_reasons import ConnectionReason
from portaria.core.tags import INDEXED
from tests import leaks
from tests.simulation import scenarios
from tests.simulation.aws.cloud import KEY_ID, TABLE
from tests.simulation.schedule import Schedule, Violation

HOUR_S = 3_600.0
# As the schedule in template.yaml.
SWEEP_EVERY_S = 300.0


@dataclass(frozen=True)
class End:
    """`flagged` are the connections that must be connected again, and installs that must be repeated."""

    calls: int
    faults: int
    flagged: int
    seen: tuple[str, ...]
    seen_by: tuple[int, ...]


def judge(schedule: Schedule) -> End:
    """Let the schedule finish and check everything. Raises `Violation`."""
    schedule.run()
    calls, faults = schedule.calls, schedule.excuses
    seen, seen_by = tuple(schedule.seen), tuple(schedule.seen_by)
    schedule.faulty = False
    for _ in range(int(HOUR_S / SWEEP_EVERY_S)):
        # Lost answers are asked for again, sealed grants are moved, and owed events are put on the bus.
        rest(schedule, SWEEP_EVERY_S)
    if schedule.platform.ended_early:
        # Only a request shows that a token ended before its time.
        scenarios.call(schedule, scenarios.NAME, 0)
        schedule.run()
        rest(schedule, SWEEP_EVERY_S)
    if schedule.migrates_to:
        finish_migration(schedule)
    flagged = check_installs(schedule) + check_connections(schedule)
    check_secrets(schedule)
    check_leaks(schedule)
    # Every token has expired by then, and a version without a label may be deleted.
    rest(schedule, 26 * HOUR_S)
    if schedule.platform.static:
        # And the overlap of a rotation.
        rest(schedule, 8 * 24 * HOUR_S)
    rest(schedule, HOUR_S / 2)
    check_connections(schedule)
    return End(calls, faults, flagged, seen, seen_by)


def finish_migration(schedule: Schedule) -> None:
    """The operator repeats the command until its status says that nothing is left, and every credential is in one store."""
    for _ in range(3):
        schedule.time += 1_800
        schedule.post("renewals", json.dumps({"migrate": schedule.migrates_to}))
        schedule.run()
    if left := credential_migration.journal(Table(TABLE)):
        raise Violation(f"the migration of {left[0].connection} never ends")
    for (pk, _), item in schedule.cloud.items.items():
        if not pk.startswith("CONNECTION#") or item["state"]["S"] == "removed":
            continue
        if store_name(item["secret_id"]["S"]) != schedule.migrates_to:
            raise Violation(f"{item['name']['S']} was not moved to {schedule.migrates_to}")


def rest(schedule: Schedule, seconds: float) -> None:
    """Let time pass, and then a sweep, unless it would find nothing."""
    schedule.time += seconds
    now = clock.to_iso(schedule.now())
    if any("due_at" in item and item["due_at"]["S"] <= now for item in schedule.cloud.items.values()):
        scenarios.sweep(schedule)
        schedule.run()


def check_installs(schedule: Schedule) -> int:
    flagged = 0
    told = schedule.cloud.heard()
    for code, key in schedule.installed.items():
        item = schedule.cloud.item(*key)
        state, reason = item.get("state", "missing"), item.get("reason", "")
        if state == "connected":
            if not any(kind == event_catalogue.CONNECTION_READY for kind, _ in told):
                raise Violation(f"nobody was told that {code} is connected")
            continue
        if state != "failed":
            raise Violation(f"the install of {code} ended as {state}")
        if not any(kind == event_catalogue.INSTALL_FAILED and detail["reason"] == reason for kind, detail in told):
            raise Violation(f"nobody was told that {code} failed with {reason}")
        pairs = [pair for pair in schedule.platform.given if pair.parent == code]
        lost = bool(pairs) and all(schedule.lost(pair) for pair in pairs)
        revoked = any(pair.grant in schedule.platform.revoked_grants for pair in pairs)
        late = not pairs and reason == "code_expired" and schedule.excuses > 3
        if not (reason == "answer_lost" and lost) and not revoked and not late:
            raise Violation(f"the install of {code} failed with {reason}, though its grant was not lost")
        flagged += 1
    return flagged


def check_connections(schedule: Schedule) -> int:
    flagged = 0
    for pk, sk in list(schedule.cloud.items):
        if not pk.startswith("CONNECTION#"):
            continue
        item = schedule.cloud.item(pk, sk)
        match item["state"]:
            case "connected":
                check_connected(schedule, item)
            case "needs_reconnect":
                check_flagged(schedule, item)
                flagged += 1
            case "removed":
                check_removed(schedule, item)
            case state:
                raise Violation(f"{item['name']} ended as {state}")
    return flagged


def check_connected(schedule: Schedule, item: dict[str, Any]) -> None:
    """Its token works in a process that has just started."""
    name = item["name"]
    for attribute in ("sealed", "sealed_next", "announce"):
        # Credentials may stay sealed while renewals add no version to the secret, and a sweep must move them later.
        rests_until = clock.to_iso(connection_store.vault_rests_until(item)) if attribute == "sealed" else ""
        if attribute in item and not clock.to_iso(clock.now()) < item["due_at"] <= rests_until:
            raise Violation(f"{name} still has {attribute}")
    if item.get("lease_until", 0) > schedule.time:
        raise Violation(f"{name} is still leased")
    if not item.get("due_at"):
        raise Violation(f"no sweep will ever look at {name} again")
    token = ask(schedule, name)
    if item["kind"] == "bearer":
        text = token.credentials["token"].reveal()
        if not schedule.platform.static_alive(text):
            raise Violation(f"{name} gives a token that is dead: {text}")
        if text != schedule.rotated.get(name, text):
            raise Violation(f"{name} gives {text}, though it was rotated to {schedule.rotated[name]}")
        if not schedule.cloud.labels(item["secret_id"], item["version_id"]):
            raise Violation(f"the version in use of {name} may be deleted at any time")
        overlaps = bool(item["previous_until"]) and clock.from_iso(item["previous_until"]) > clock.now()
        if overlaps and not schedule.cloud.labels(item["secret_id"], item["previous_version_id"]):
            raise Violation(f"the token that {name} has in reserve may be deleted at any time")
    else:
        access = token.credentials["access_token"].reveal()
        if not schedule.platform.access_alive(access) and not revoked(schedule, item):
            raise Violation(f"{name} gives a token that is dead: {access}")
        newest_install(schedule, item)
    if name == scenarios.NAME:
        check_tags(schedule, item)
    flags = [
        kind
        for kind, detail in schedule.cloud.heard()
        if kind in (event_catalogue.NEEDS_RECONNECT, event_catalogue.RECOVERED) and detail["connection"] == name
    ]
    if flags and flags[-1] == event_catalogue.NEEDS_RECONNECT:
        raise Violation(f"nobody was told that {name} has recovered")


def check_tags(schedule: Schedule, item: dict[str, Any]) -> None:
    """The tags that were given last stand, lead to the connection, and were told; each install has those of its link."""
    given: list[tuple[str, dict[str, str]]] = []
    for at, tags, code in schedule.tagged:
        install = schedule.cloud.item(*schedule.installed[code]) if code else {"state": "connected", "tags": tags}
        if install.get("tags") != tags:
            raise Violation(f"the install of {code} has lost its tags")
        if install["state"] == "connected":
            given.append((at, tags))
    newest = max((at for at, _ in given), default="")
    # Of several that were given in the same millisecond any may stand.
    allowed = [tags for at, tags in given if at == newest] or [{}]
    expected = item.get("tags", {})
    if expected not in allowed:
        raise Violation(f"{item['name']} has the tags {expected}, not {allowed[0]}")
    if not expected:
        return
    entry = schedule.cloud.item(tag_partition(INDEXED, expected[INDEXED]), f"CONNECTION#{item['name']}")
    if not entry or "expires_at" in entry:
        raise Violation(f"the tags of {item['name']} do not lead to it")
    told = [detail for _, detail in schedule.cloud.heard() if detail.get("connection") == item["name"]]
    if not any(detail.get("tags") == expected for detail in told):
        raise Violation(f"nobody was told the tags of {item['name']}")


def ask(schedule: Schedule, name: str) -> cache.Token:
    table = Table(TABLE)
    supply = provider.TokenProvider(table, schedule.cloud.vault(), KEY_ID, lambda: 60.0, cache=cache.TokenCache())
    for _ in range(20):
        try:
            return supply.token(connection_store.get(table, name))
        except Retryable as later:
            schedule.time += later.after_s or 5.0
        except Rejected as rejected:
            item = schedule.cloud.item(*connection_store.key(name))
            if rejected.reason == "needs_reconnect" and revoked(schedule, item):
                return cache.Token({"access_token": Secret("revoked")}, 0, "")
            raise Violation(f"{name} is connected and gives no token: {rejected.reason}") from None
    raise Violation(f"{name} is connected and never gives a token")


def revoked(schedule: Schedule, item: dict[str, Any]) -> bool:
    return schedule.grants_of.get(item["secret_id"]) in schedule.platform.revoked_grants


def living(schedule: Schedule, item: dict[str, Any]) -> list[str]:
    """The refresh tokens of a connection's grant that were ever stored, and still work."""
    grant, platform = schedule.grants_of.get(item["secret_id"]), schedule.platform
    return [
        pair.refresh
        for pair in platform.given
        if pair.grant == grant and pair.refresh in schedule.stored and platform.refresh_alive(pair.refresh)
    ]


def newest_install(schedule: Schedule, item: dict[str, Any]) -> None:
    """Of several installs of an account the last one wins."""
    connected = [schedule.cloud.item(*key) for key in schedule.installed.values()]
    received = [each["received_at"] for each in connected if each.get("state") == "connected"]
    if received and item["granted_at"] != max(received):
        raise Violation(f"{item['name']} has the grant of {item['granted_at']}, not the newest one of {max(received)}")


def check_flagged(schedule: Schedule, item: dict[str, Any]) -> None:
    """Only if nothing that was ever stored could have kept it, and a notification was sent."""
    name = item["name"]
    if alive := living(schedule, item):
        raise Violation(f"{name} was given up ({item['reason']}), though {alive[-1]} is stored and alive")
    if not revoked(schedule, item):
        if schedule.excuses == 0:
            raise Violation(f"{name} was given up ({item['reason']}) without any fault")
        if schedule.excuses == 1 and schedule.platform.mode != "strict":
            raise Violation(f"{name} was given up ({item['reason']}) for one fault, which this platform forgives")
        grant = schedule.grants_of.get(item["secret_id"])
        for pair in schedule.platform.given:
            if pair.grant == grant and pair.refresh not in schedule.stored and not schedule.lost(pair):
                raise Violation(f"{name} was given up, since {pair.refresh} came and was not stored")
        if item["reason"] != ConnectionReason.ANSWER_LOST:
            raise Violation(f"{name} lost an answer, but says {item['reason']}")
    told = [detail for kind, detail in schedule.cloud.heard() if kind == event_catalogue.NEEDS_RECONNECT]
    if not any(detail["connection"] == name and detail["reason"] == item["reason"] for detail in told):
        raise Violation(f"nobody was told that {name} must be connected again")


def check_removed(schedule: Schedule, item: dict[str, Any]) -> None:
    removed_at = clock.from_iso(item["updated_at"]).timestamp()
    if alive := [token for token in living(schedule, item) if schedule.stored[token] < removed_at]:
        raise Violation(f"{item['name']} was removed, though nobody has left: {alive[-1]} is alive")
    if kept := [name for name in item if name.startswith("sealed")]:
        raise Violation(f"{item['name']} was removed and still has {kept[0]}")
    if not any(kind == event_catalogue.REMOVED for kind, _ in schedule.cloud.heard()):
        raise Violation(f"nobody was told that {item['name']} is removed")


def check_secrets(schedule: Schedule) -> None:
    """Every secret that is not waiting for its deletion is one that a connection uses."""
    used = {
        item["secret_id"]["S"]
        for (pk, _), item in schedule.cloud.items.items()
        if pk.startswith("CONNECTION#") and item["state"]["S"] != "removed"
    }
    for secret_id in schedule.cloud.kept_grants() - used:
        raise Violation(f"nothing uses {secret_id}, which is still there")


def check_leaks(schedule: Schedule) -> None:
    """No item, message or event contains a secret (see `tests.leaks`)."""
    cloud = schedule.cloud
    items = [leaks.text_of_item(item) for item in cloud.items.values()]
    messages = [leaks.text_of_message(message.body, name) for name, queue in cloud.queues.items() for message in queue]
    for text in (*items, *messages, *map(repr, cloud.events)):
        if leaks.holds_secret(text):
            raise Violation(f"a secret came out where it may not: …{leaks.masked(text)}…")
