"""Checks of what the stack stores: OAuth clients, connections, private integrations, paused destinations and dead letters.

The command `doctor` and the settings page show the same findings. A check reads at most `MOST_LISTED` items of a listing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from urllib.parse import urlsplit

from portaria import platforms
from portaria.access import private_integrations
from portaria.aws.table import Item, Table
from portaria.connections import connection_store, oauth_clients
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, domain_inside
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria.core.item_keys import OAUTH_CLIENTS_LIST
from portaria.delivery import backlogs, destination_pause, host_pauses
from portaria.delivery.backlogs import Backlog
from portaria.delivery.destination_pause import PauseReason
from portaria.delivery.host_pauses import HostPause
from portaria.outbound import domain_rules
from portaria.overview.findings import FAIL, OK, WARN, Finding, named, runbook
from portaria.records import dead_letters

# A stack may have many thousands of connections or dead letters.
MOST_LISTED = 2_000
# Records that wait so long for a destination without a pause are not just being sent.
LONG_WAIT = timedelta(hours=1)
WAITING_RECORDS = "docs/operations.md#waiting-records"
CLIENT_CREDENTIALS = "client_credentials"
# What a stack deployed before there was the parameter RefusedGrantDays has.
DEFAULT_REFUSED_DAYS = "7"
MOST_REFUSED = 10
_CONNECTION = (
    "name", "platform", "kind", "allowed_domain", "state", "generation", "secret_id", "client", "updated_at",
    "refused_since", "refusal",
)  # fmt: skip


@dataclass(frozen=True)
class StoredState:
    """What the checks look at. `api_url` is the stack's own URL, `parameters` are the stack's.

    A listing is read up to `most_listed` items; those with more are in `partial`. Reads raise what AWS raises.
    """

    table: Table
    api_url: str
    parameters: dict[str, str]
    most_listed: int = MOST_LISTED
    partial: set[str] = field(default_factory=set)

    @cached_property
    def clients(self) -> list[OAuthClient]:
        return [oauth_clients.read(item) for item in self.listed(OAUTH_CLIENTS_LIST)]

    @cached_property
    def connections(self) -> list[Connection]:
        """Without what no check looks at, such as scopes and tags."""
        return [connection_store.read(item) for item in self.listed(connection_store.LIST, _CONNECTION)]

    @cached_property
    def backlogs(self) -> list[Backlog]:
        return [backlogs.read_backlog(item) for item in self.listed(backlogs.LISTING)]

    @cached_property
    def host_pauses(self) -> list[HostPause]:
        """All pauses, including expired ones. A pause is deleted when the host answers a request."""
        return [host_pauses.parse(item) for item in self.listed(host_pauses.LIST)]

    def listed(self, list_pk: str, attributes: tuple[str, ...] = ()) -> list[Item]:
        found: list[Item] = []
        cursor: str | None = None
        while len(found) < self.most_listed:
            left = self.most_listed - len(found)
            items, cursor = self.table.query(list_pk, index="listing", limit=left, cursor=cursor, attributes=attributes)
            found += items
            if not cursor:
                return found
        self.partial.add(list_pk)
        return found

    @property
    def at_least(self) -> str:
        """What a count of connections begins with."""
        return "at least " if self._has_more_connections else ""

    @property
    def of_first(self) -> str:
        """What "none" continues with where not every connection was read."""
        return f" of the first {len(self.connections):,} by name" if self._has_more_connections else ""

    @property
    def _has_more_connections(self) -> bool:
        return bool(self.connections) and connection_store.LIST in self.partial


Check = Callable[[StoredState], Iterator[Finding]]


def clients(stored: StoredState) -> Iterator[Finding]:
    """Redirect URIs lead to this stack."""
    name, api_url = "OAuth clients", stored.api_url.rstrip("/")
    fine, found = 0, stored.clients
    for client in found:
        if client.grant == CLIENT_CREDENTIALS:
            fine += 1
            continue
        title = f"{client.platform}/{client.name}"
        wanted = f"/install/{client.platform}/{client.name}"
        uri = client.redirect_uri
        if urlsplit(uri).scheme != "https":
            advice = f"set it to {api_url}{wanted} here and with the platform"
            yield Finding(name, FAIL, f"the redirect URI of {title} is not https", advice)
        elif uri == f"{api_url}{wanted}":
            fine += 1
        elif uri.endswith(wanted):
            advice = f"this is correct if it is your own domain and leads here; otherwise set it to {api_url}{wanted}"
            yield Finding(name, WARN, f"the redirect URI of {title} is at {urlsplit(uri).netloc}", advice)
        else:
            advice = f"set it to {api_url}{wanted} here and with the platform, or forward those requests to it"
            yield Finding(name, FAIL, f"the redirect URI of {title} does not end in {wanted}", advice)
    if fine or not found:
        told = f"{fine} have redirect URIs of this stack" if found else "there are none"
        yield Finding(name, OK, told, "" if found else "`portaria configure FILE` creates one")


def api_domains(stored: StoredState) -> Iterator[Finding]:
    """Every OAuth client says which domains its tokens may go to, and no connection lies outside them."""
    name, fine, clients = "API domains", 0, stored.clients
    held = [each for each in stored.connections if each.state != "removed"]
    for client in clients:
        title = f"{client.platform}/{client.name}"
        registered = oauth_clients.api_domains(client)
        own = [each for each in held if (each.platform, each.client) == (client.platform, client.name)]
        used = sorted({each.allowed_domain for each in own})
        if not registered:
            wanted = ", ".join(used) or "api.example.com"
            told = f"{title} has no api_domains: its {stored.at_least}{len(own)} connections work, and new ones are refused"
            advice = f"add `api_domains: [{wanted}]`, as far as these may receive its tokens, and run `portaria configure FILE`"
            yield Finding(name, FAIL, told, advice)
        elif outside := [each for each in own if not domain_inside(each.allowed_domain, registered)]:
            domains = ", ".join(sorted({each.allowed_domain for each in outside}))
            count = f"{stored.at_least}{len(outside)} connections of {title}"
            yield Finding(
                name,
                FAIL,
                f"{count} are outside its api_domains: {named(each.name for each in outside)}",
                f"delete them, or add these domains to its api_domains, if they may receive its tokens: {domains}",
            )
        else:
            fine += 1
    if fine or not clients:
        yield Finding(name, OK, f"{fine} OAuth clients have api_domains")


def refused(stored: StoredState) -> Iterator[Finding]:
    """No platform refuses to renew a connection's tokens."""
    name = "refused renewals"
    found = [each for each in stored.connections if each.refused_since and each.state == "connected"]
    days = timedelta(days=float(stored.parameters.get("RefusedGrantDays") or DEFAULT_REFUSED_DAYS))
    for connection in sorted(found, key=lambda each: each.refused_since)[:MOST_REFUSED]:
        ends = clock.to_iso(clock.from_iso(connection.refused_since) + days)
        told = f"{connection.name} since {connection.refused_since}; it ends about {ends}: {connection.refusal}"
        yield Finding(
            name, WARN, told, "correct the OAuth client, or connect again: `portaria authorizations create NAME`"
        )
    if len(found) > MOST_REFUSED:
        more = f"and {stored.at_least}{len(found) - MOST_REFUSED:,} more"
        yield Finding(name, WARN, more, "`portaria connections list` shows them")
    if not found:
        yield Finding(name, OK, f"none{stored.of_first}")


def states(stored: StoredState) -> Iterator[Finding]:
    """No connection waits for a person."""
    name, found = "connections", stored.connections
    counts = Counter(connection.state for connection in found)
    ended = [connection.name for connection in found if connection.state == "needs_reconnect"]
    if stored.at_least:
        every_platform = [platform.name for platform in platforms.every()]
        ended = sorted(connection_store.names_of(stored.table, every_platform, ("needs_reconnect",)))
    if ended:
        told = f"{len(ended):,} must be connected again: {named(ended)}"
        advice = "send the customer the link: `portaria authorizations create NAME`; " + runbook("days-to-death")
        yield Finding(name, WARN, told, advice)
    else:
        told = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())) or "there are none"
        yield Finding(name, OK, f"{stored.at_least}{told}")


def wildcards(stored: StoredState) -> Iterator[Finding]:
    """No connection's wildcard covers names that others may register. The rules for domains may be newer than a connection."""
    wide = [
        connection
        for connection in stored.connections
        if connection.state != "removed" and connection.allowed_domain.startswith("*.")
    ]
    fine = 0
    for connection in wide:
        try:
            domain_rules.check_allowed_domain(connection.allowed_domain)
            fine += 1
        except Rejected as refused:
            advice = f"create another connection with a narrower domain and delete {connection.name}"
            yield Finding("domains", WARN, f"{connection.name}: {refused.detail}", advice)
    if fine == len(wide):
        none = f"none{stored.of_first} has a wildcard"
        told = f"{stored.at_least}{fine} have a wildcard, each below a registered domain" if wide else none
        yield Finding("domains", OK, told)


def scopes(stored: StoredState) -> Iterator[Finding]:
    """No private integration has a scope for a connection that does not exist: a later one of that name would be open to it."""
    there = {connection.name for connection in stored.connections if connection.state != "removed"}
    name, fine = "private integrations", True
    for item in stored.listed(private_integrations.LIST):
        integration = private_integrations.read(item)
        narrowed = {scope.partition("@")[2] for scope in integration.scopes if "@" in scope}
        if missing := _missing(stored.table, narrowed - there):
            fine = False
            told = (
                f"{integration.name} ({integration.id}) has scopes for connections that do not exist: {named(missing)}"
            )
            yield Finding(
                name,
                WARN,
                told,
                "if they are not needed, remove them: "
                f"`portaria private-integrations edit {integration.id} --remove-scope SCOPE`",
            )
    if fine:
        yield Finding(name, OK, "all narrowed scopes are for connections that exist")


def _missing(table: Table, names: set[str]) -> list[str]:
    """The names of connections that do not exist or were removed."""
    items = table.get_many(connection_store.key(name) for name in sorted(names)) if names else {}
    there = {item["name"] for item in items.values() if item["state"] != "removed"}
    return sorted(names - there)


def parked(stored: StoredState) -> Iterator[Finding]:
    """No destination is stopped or has used up its daily quota, and no records wait for one for long."""
    name, now = "destinations", clock.now().timestamp()
    waiting = {backlog.destination: _waiting(backlog) for backlog in stored.backlogs}
    on = [item for item in stored.listed(destination_pause.LIST) if int(item.get("until") or 0) > now]
    for item in on:
        what = f"{item['destination']}{' for ' + item['object'] if item.get('object') else ''}"
        code = f" ({item['code']})" if item.get("code") else ""
        code += f"; {waiting[item['destination']]}" if item["destination"] in waiting else ""
        reason = destination_pause.read(item).reason
        if reason is PauseReason.STOPPED:
            yield Finding(name, FAIL, f"{what} is stopped{code}", runbook("destinations-stopped"))
        else:
            until = clock.epoch_to_iso(item["until"])
            section = "destinations-that-do-not-answer" if reason is PauseReason.NO_ANSWER else "quota-left"
            yield Finding(name, WARN, f"{what} is paused until {until}: {reason.value}{code}", runbook(section))
    paused, silent = {item["destination"] for item in on}, {pause.host for pause in stored.host_pauses}
    being_sent = [backlog for backlog in stored.backlogs if backlog.host not in silent]
    for backlog in being_sent:
        if backlog.destination not in paused and now - backlog.since > LONG_WAIT.total_seconds():
            told = f"{backlog.destination} accepts records again, and {waiting[backlog.destination]}"
            advice = (
                "they are being sent within its rate limit; run `portaria logs release_records`; " + WAITING_RECORDS
            )
            yield Finding(name, WARN, told, advice)
    if not on:
        sent = (
            f"; {sum(backlog.records for backlog in being_sent):,} waiting records are being sent" if being_sent else ""
        )
        yield Finding(name, OK, f"none is stopped or paused{sent}")


def hosts(stored: StoredState) -> Iterator[Finding]:
    """No host is paused for all of its destinations, and none waits to be tried after a pause."""
    name, now, is_fine = "hosts", clock.now().timestamp(), True
    waiting = Counter(backlog.host for backlog in stored.backlogs)
    for pause in stored.host_pauses:
        count = waiting[pause.host]
        if pause.until <= now and not count:
            # It was paused, and nothing has been sent to it since.
            continue
        is_fine = False
        for_whom = f"records wait for {count:,} of its destinations" if count else "no records wait for it"
        state = f"paused until {clock.epoch_to_iso(pause.until)}" if pause.until > now else "being tried again"
        told = f"{pause.host} has not answered since {pause.since}; it is {state}; {for_whom}"
        yield Finding(name, WARN, told, runbook("destinations-that-do-not-answer"))
    if is_fine:
        yield Finding(name, OK, "none is paused")


def _waiting(backlog: backlogs.Backlog) -> str:
    since = clock.epoch_to_iso(backlog.since)
    return f"about {backlog.records:,} records wait, the first since {since}"


def letters(stored: StoredState) -> Iterator[Finding]:
    """How many dead letters are open."""
    found = stored.listed(dead_letters.LIST)
    waiting = [item for item in found if item.get("state") == dead_letters.OPEN]
    is_partial = dead_letters.LIST in stored.partial
    if not waiting:
        told = f"none of the first {len(found):,} is open" if is_partial else "none is open"
        yield Finding("dead letters", OK, told)
        return
    reasons = Counter(str(item.get("reason")) for item in waiting)
    told = named(f"{reason} ({count})" for reason, count in reasons.most_common())
    at_least = "at least " if is_partial else ""
    yield Finding("dead letters", WARN, f"{at_least}{len(waiting):,} are open: {told}", runbook("dead-letters"))


CHECKS: dict[str, Check] = {
    "OAuth clients": clients,
    "API domains": api_domains,
    "connections": states,
    "domains": wildcards,
    "private integrations": scopes,
    "refused renewals": refused,
    "destinations": parked,
    "hosts": hosts,
    "dead letters": letters,
}
