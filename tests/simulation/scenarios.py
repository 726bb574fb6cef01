"""The events of a schedule: an account that installs, callers that need its token, renewals, a customer who disconnects."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

from portaria.aws import attribute_values
from portaria.aws.table import Table
from portaria.connections import connection_store, oauth_clients, vault
from portaria.connections.credential_stores.protocol import SECRETS_MANAGER
from portaria.connections.credential_stores.protocol import TABLE as TABLE_STORE
from portaria.connections.vault import Vault
from portaria.core import clock, tags
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import Connection
from portaria.core.item_keys import claim_key, install_key
from portaria.webhooks.install_receiver import install_id
from tests.simulation.aws.cloud import TABLE, Cloud
from tests.simulation.platform import (
    CLIENT_ID,
    CLIENT_SECRET,
    LIFE_S,
    REDIRECT_URI,
    STATIC_HOST,
    Platform,
    account_id,
)  # fmt: skip
from tests.simulation.schedule import BEGIN, HERE, Schedule

HOST = "acme.kommo.com"
NAME = f"kommo-acme-{account_id(HOST)}"
STATIC = "leadconnector-main"
FOREVER = BEGIN * 2
DAY_S = 86_400.0
OVERLAP_S = 7 * DAY_S


def prepared(mode: str, kind: str, store: str = SECRETS_MANAGER) -> tuple[Cloud, Platform]:
    """A cloud with an OAuth client and one connection, `oauth2` (installed) or `bearer` (static), or with none.

    Its credentials are in `store`, which is the stack's parameter.
    """
    cloud, platform = _prepared(mode, kind, store)
    return cloud.copy(), platform.copy()


@cache
def _prepared(mode: str, kind: str, store: str) -> tuple[Cloud, Platform]:
    cloud, platform = Cloud(), Platform(mode)
    cloud.credential_store = store
    schedule = Schedule(cloud, platform, random.Random(0), workers=1)
    before, HERE.schedule = HERE.schedule, schedule
    try:
        vault_ = cloud.vault()
        oauth_clients.put(Table(TABLE), OAuthClient("kommo", "acme", CLIENT_ID, REDIRECT_URI), new=True)
        vault_.create(vault_.client_secret_id("kommo", "acme"), {"client_secret": Secret(CLIENT_SECRET)})
        if kind == "bearer":
            _type_in(platform, vault_)
        elif kind == "oauth2":
            schedule.faulty = False
            install(schedule, "canary-code-0")
            schedule.run()
        cloud.events.clear()
    finally:
        HERE.schedule = before
    return cloud, platform


def _type_in(platform: Platform, vault_: Vault) -> None:
    secret_id = vault_.grant_id(STATIC)
    version = vault.version_id(secret_id, 1)
    vault_.create(secret_id, {"token": Secret("canary-static-1")}, version)
    platform.static["canary-static-1"] = FOREVER
    static = Connection(
        STATIC, "leadconnector", "bearer", STATIC_HOST, "connected", 1, secret_id, version,
        granted_at=clock.to_iso(clock.now()), fields={"location_id": "1"},
    )  # fmt: skip
    connection_store.create(Table(TABLE), static)


def install(schedule: Schedule, code: str, after_s: float = 0.0, given: tags.Tags | None = None) -> None:
    """The customer installs: the platform issues a code, and its webhook, or a link with tags, has put it into the queue."""

    def happen() -> None:
        schedule.platform.issue_code(code, HOST)
        message = {
            "version": 1,
            "install_id": install_id("kommo", "acme", Secret(code)),
            "platform": "kommo",
            "client": "acme",
            "code": code,
            "account_host": HOST,
            "source": "widget",
            "received_at": clock.to_iso(clock.now()),
        }
        if given:
            message["tags"] = tags.encode(given)
            schedule.tagged.append((str(message["received_at"]), given, code))
        schedule.installed[code] = install_key(message["install_id"])  # type: ignore[arg-type]
        schedule.post("exchanges", json.dumps(message))

    schedule.at(after_s, happen)


def claim(schedule: Schedule, after_s: float, given: tags.Tags, link: str = "link") -> None:
    """A person confirms whose account it is: the page of a claim link has stored the tags and a message."""

    def happen() -> None:
        now, owner = clock.now(), {"platform": "kommo", "client": "acme", "account_id": str(account_id(HOST))}
        pk, sk = claim_key(**owner)
        item = {"pk": pk, "sk": sk, **owner, "link": link, "tags": tags.encode(given), "claimed_at": clock.to_iso(now)}
        ends_at = int(now.timestamp() + DAY_S)
        schedule.cloud.write((pk, sk), attribute_values.typed(item | {"ends_at": ends_at, "expires_at": ends_at})["M"])
        schedule.tagged.append((item["claimed_at"], given, None))
        schedule.post("exchanges", json.dumps({"version": 1, "claim": owner}))

    schedule.at(after_s, happen)


def call(schedule: Schedule, name: str, after_s: float, how: str = "send") -> None:
    schedule.post("callers", f"{how} {name}", after_s)


def sweep(schedule: Schedule, after_s: float = 0.0) -> None:
    schedule.post("renewals", json.dumps({"sweep": ""}), after_s)


def visit(schedule: Schedule, name: str, after_s: float = 0.0) -> None:
    schedule.post("renewals", json.dumps({"connection": name}), after_s)


def leave(schedule: Schedule, after_s: float, *, hook: bool) -> None:
    """The customer removes the integration; the platform's webhook arrives at once, or never."""

    def happen() -> None:
        schedule.note("the customer leaves")
        schedule.platform.uninstall(HOST)
        if hook:
            say_goodbye(schedule)

    schedule.at(after_s, happen)


def say_goodbye(schedule: Schedule, after_s: float = 0.0) -> None:
    """The disconnect webhook, as its verifier queues it. It can be repeated at any time."""
    schedule.post("uninstalls", json.dumps({"connection": NAME, "why": "uninstalled", "checks": 0}), after_s)


def rotate(schedule: Schedule, token: str, after_s: float, *, good: bool = True, expire_now: bool = False) -> None:
    """An administrator creates a token at the platform, which ends the old one after the overlap, and submits it."""

    def happen() -> None:
        now = clock.now().timestamp()
        if good:
            for old, ends_at in schedule.platform.static.items():
                schedule.platform.static[old] = min(ends_at, now + OVERLAP_S)
        schedule.platform.static[token] = FOREVER if good else 0.0
        wanted = {"name": STATIC, "token": token, "expire_now": expire_now}
        schedule.post("rotations", json.dumps(wanted))

    schedule.at(after_s, happen)


def migrate(schedule: Schedule, after_s: float = 0.0) -> None:
    """The operator deploys the stack with the other store, and moves all credentials there."""
    other = TABLE_STORE if schedule.cloud.credential_store == SECRETS_MANAGER else SECRETS_MANAGER

    def happen() -> None:
        schedule.cloud.credential_store = other

    schedule.migrates_to = other
    schedule.at(after_s, happen)
    schedule.post("renewals", json.dumps({"migrate": other}), after_s)


# Each scenario sets up its events. `soon` draws a time in seconds.

Soon = Callable[[float], float]


def renewal(schedule: Schedule, soon: Soon) -> None:
    """A token has ended, and several callers need it."""
    call(schedule, NAME, 0)
    call(schedule, NAME, soon(0.5))
    call(schedule, NAME, soon(2), "token")
    visit(schedule, NAME, soon(2))


def one_renewal(schedule: Schedule, soon: Soon) -> None:
    """The smallest concurrent case: two callers."""
    call(schedule, NAME, 0)
    visit(schedule, NAME, soon(1))


def install_once(schedule: Schedule, soon: Soon) -> None:
    install(schedule, "canary-code-1")


def reinstall(schedule: Schedule, soon: Soon) -> None:
    """The customer installs again while the old grant is in use."""
    install(schedule, "canary-code-1", soon(4))
    call(schedule, NAME, soon(2))
    call(schedule, NAME, soon(6))
    visit(schedule, NAME, soon(4))


def two_installs(schedule: Schedule, soon: Soon) -> None:
    """Two users of one account install at the same time."""
    install(schedule, "canary-code-1", soon(1))
    install(schedule, "canary-code-2", soon(2))
    call(schedule, NAME, soon(6))


def tagged_installs(schedule: Schedule, soon: Soon) -> None:
    """Two links with tags and one install without any, of one account that has none yet, at nearly the same moment."""
    install(schedule, "canary-code-1", soon(2), {"customer_id": "c-1"})
    install(schedule, "canary-code-2", soon(3))
    install(schedule, "canary-code-3", soon(4), {"customer_id": "c-2", "workspace_id": "w"})
    call(schedule, NAME, soon(8))


def claimed_install(schedule: Schedule, soon: Soon) -> None:
    """The marketplace's install, and a claim before, while or after it is worked on; later another install."""
    install(schedule, "canary-code-1")
    claim(schedule, soon(2), {"customer_id": "c-1"})
    install(schedule, "canary-code-2", 60 + soon(5))
    visit(schedule, NAME, 60 + soon(5))


def claimed_reinstall(schedule: Schedule, soon: Soon) -> None:
    """A claim while the account, which is connected, is installed again."""
    install(schedule, "canary-code-1")
    claim(schedule, soon(2), {"customer_id": "c-1"})
    call(schedule, NAME, soon(4))


def tagged_return(schedule: Schedule, soon: Soon) -> None:
    """A customer with tags leaves and comes back without a link; the token is renewed in between."""
    install(schedule, "canary-code-1", soon(1), {"customer_id": "c-1"})
    call(schedule, NAME, 5 + soon(2))
    leave(schedule, 60 + soon(3), hook=True)
    install(schedule, "canary-code-2", 1_200 + soon(60))


def departure(schedule: Schedule, soon: Soon) -> None:
    call(schedule, NAME, soon(2))
    leave(schedule, soon(3), hook=True)
    visit(schedule, NAME, soon(4))


def departure_and_return(schedule: Schedule, soon: Soon) -> None:
    """The customer disconnects and installs again, and the disconnect webhook is repeated."""
    call(schedule, NAME, soon(2))
    leave(schedule, soon(2), hook=True)
    install(schedule, "canary-code-1", 3 + soon(900))
    say_goodbye(schedule, soon(1_500))


def return_at_once(schedule: Schedule, soon: Soon) -> None:
    """The customer disconnects and installs again within seconds."""
    leave(schedule, soon(1), hook=True)
    install(schedule, "canary-code-1", 1 + soon(2))
    call(schedule, NAME, soon(4))


def replayed_hook(schedule: Schedule, soon: Soon) -> None:
    """A disconnect webhook arrives although the customer has not disconnected."""
    call(schedule, NAME, soon(1))
    say_goodbye(schedule, soon(2))


def revocation(schedule: Schedule, soon: Soon) -> None:
    """The customer disconnects without a webhook, and connects again later."""
    leave(schedule, soon(3), hook=False)
    call(schedule, NAME, soon(4))
    visit(schedule, NAME, soon(5))
    call(schedule, NAME, 10 + soon(60))
    sweep(schedule, 400)
    install(schedule, "canary-code-1", 900 + soon(60))
    sweep(schedule, 2_000)


def two_days(schedule: Schedule, soon: Soon) -> None:
    """A token is renewed, and a day later that one too."""
    call(schedule, NAME, soon(1))
    sweep(schedule, soon(2))
    call(schedule, NAME, LIFE_S + 60)
    sweep(schedule, LIFE_S + 60 + soon(2))


def short_lives(schedule: Schedule, soon: Soon) -> None:
    """Tokens live for five minutes, so most pairs are sealed in the table between two versions of the secret."""
    schedule.platform.life_s = 300
    for number in range(10):
        call(schedule, NAME, number * 240 + soon(30))
        call(schedule, NAME, number * 240 + soon(30), "token")
    for number in range(4):
        sweep(schedule, number * 600 + soon(60))


def ended_token(schedule: Schedule, soon: Soon) -> None:
    """The platform ends a token long before it is due. The program that notices does not call again; another one does later."""
    call(schedule, NAME, 0)
    schedule.at(600, schedule.platform.end_access_tokens)
    call(schedule, NAME, 600 + soon(60), "once")
    for number in range(1, 6):
        sweep(schedule, 600 + number * 300)
    call(schedule, NAME, 3_000 + soon(60))


def rotation(schedule: Schedule, soon: Soon) -> None:
    rotate(schedule, "canary-static-2", soon(1))
    call(schedule, STATIC, soon(3))
    call(schedule, STATIC, OVERLAP_S + 120)
    sweep(schedule, OVERLAP_S + 60)


def fresh_rotation(schedule: Schedule, soon: Soon) -> None:
    """Events while both tokens work."""
    rotate(schedule, "canary-static-2", soon(1))
    call(schedule, STATIC, soon(3))


def rotation_at_once(schedule: Schedule, soon: Soon) -> None:
    rotate(schedule, "canary-static-2", soon(1), expire_now=True)
    call(schedule, STATIC, soon(3))


def bad_rotation(schedule: Schedule, soon: Soon) -> None:
    """Two tokens that do not work are submitted, then one that does; a day later another."""
    rotate(schedule, "canary-static-bad-1", soon(1), good=False)
    rotate(schedule, "canary-static-bad-2", 100 + soon(1), good=False)
    call(schedule, STATIC, 2.5 * DAY_S)
    rotate(schedule, "canary-static-3", 3 * DAY_S + soon(1))
    call(schedule, STATIC, 3 * DAY_S + soon(5))


def expired_rotation(schedule: Schedule, soon: Soon) -> None:
    """The old token is dropped by hand right after a rotation."""
    rotate(schedule, "canary-static-2", 0)
    schedule.post("rotations", json.dumps({"name": STATIC}), soon(6))
    call(schedule, STATIC, soon(8))


def migrated_renewal(schedule: Schedule, soon: Soon) -> None:
    """A migration while a token is renewed, and another renewal a day later."""
    migrate(schedule, soon(4))
    call(schedule, NAME, 0)
    call(schedule, NAME, soon(6), "token")
    visit(schedule, NAME, soon(4))
    call(schedule, NAME, LIFE_S + 60 + soon(5))


def migrated_reinstall(schedule: Schedule, soon: Soon) -> None:
    """A migration while the customer installs again."""
    migrate(schedule, soon(6))
    install(schedule, "canary-code-1", soon(4))
    call(schedule, NAME, soon(6))


def migrated_departure(schedule: Schedule, soon: Soon) -> None:
    """A migration while the customer disconnects, who returns later."""
    migrate(schedule, soon(4))
    leave(schedule, soon(4), hook=True)
    call(schedule, NAME, soon(4))
    install(schedule, "canary-code-1", 1_200 + soon(60))


def migrated_rotation(schedule: Schedule, soon: Soon) -> None:
    """A migration while a static token is rotated, or with the old one in reserve."""
    rotate(schedule, "canary-static-2", soon(3))
    migrate(schedule, soon(90))
    call(schedule, STATIC, soon(8))
    call(schedule, STATIC, soon(120))


def migrated_there_and_back(schedule: Schedule, soon: Soon) -> None:
    """The operator changes their mind within minutes."""
    migrate(schedule, soon(2))
    call(schedule, NAME, soon(4))
    call(schedule, NAME, 300 + soon(10))

    def back() -> None:
        migrate(schedule)

    schedule.at(soon(600), back)


Scenario = Callable[[Schedule, Soon], None]
# With the weight of each.
SCENARIOS: dict[str, tuple[Scenario, int]] = {
    "renewal": (renewal, 28),
    "one_renewal": (one_renewal, 14),
    "two_days": (two_days, 8),
    "install": (install_once, 6),
    "reinstall": (reinstall, 12),
    "two_installs": (two_installs, 5),
    "tagged_installs": (tagged_installs, 5),
    "claimed_install": (claimed_install, 5),
    "claimed_reinstall": (claimed_reinstall, 4),
    "tagged_return": (tagged_return, 4),
    "departure": (departure, 5),
    "departure_and_return": (departure_and_return, 4),
    "return_at_once": (return_at_once, 4),
    "replayed_hook": (replayed_hook, 3),
    "revocation": (revocation, 4),
    "short_lives": (short_lives, 6),
    "ended_token": (ended_token, 6),
    "rotation": (rotation, 4),
    "fresh_rotation": (fresh_rotation, 3),
    "rotation_at_once": (rotation_at_once, 2),
    "bad_rotation": (bad_rotation, 2),
    "expired_rotation": (expired_rotation, 2),
    "migrated_renewal": (migrated_renewal, 8),
    "migrated_reinstall": (migrated_reinstall, 5),
    "migrated_departure": (migrated_departure, 4),
    "migrated_rotation": (migrated_rotation, 4),
    "migrated_there_and_back": (migrated_there_and_back, 4),
}
# With the connection that each begins with.
BEGINS_WITH = {
    "install": "",
    "tagged_installs": "",
    "claimed_install": "",
    "rotation": "bearer",
    "fresh_rotation": "bearer",
    "rotation_at_once": "bearer",
    "bad_rotation": "bearer",
    "expired_rotation": "bearer",
    "migrated_rotation": "bearer",
}


def begin(name: str, mode: str, rng: random.Random, *, store: str = SECRETS_MANAGER, **how: Any) -> Schedule:
    """A schedule with all events of a scenario. `HERE` refers to it from now on."""
    cloud, platform = prepared(mode, BEGINS_WITH.get(name, "oauth2"), store)
    # By now the first token has half a minute left, which is too little to be used.
    start = BEGIN + LIFE_S - 30
    schedule = Schedule(cloud, platform, rng, start=start, **how)
    HERE.schedule = schedule
    for secret_id, secret in cloud.secrets.items():
        for version, held in secret.versions.items():
            schedule.secret_stored(secret_id, version, held.text)
    for item in cloud.items.values():
        schedule.item_written({}, item)
    SCENARIOS[name][0](schedule, lambda limit: rng.random() * limit)
    return schedule
