"""Checks of what the stack keeps: secrets, OAuth clients, connections, what is parked and what is dead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from urllib.parse import urlsplit

from portaria.access import private_integrations
from portaria.aws import due_index
from portaria.aws.table import Item
from portaria.connections import connection_store, oauth_clients
from portaria.connections.credential_stores.protocol import TABLE, store_name
from portaria.connections.vault import SealedTable, Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, domain_inside
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria.core.item_keys import OAUTH_CLIENTS_LIST
from portaria.delivery import backlogs, destination_pause
from portaria.outbound import domain_rules
from portaria.records import dead_letters
from portaria_cli.doctor.deployment import Deployment
from portaria_cli.doctor.findings import FAIL, OK, WARN, Finding, NotThere, named, runbook

# What a listing is read to, and how many secrets are looked at: a stack may have many thousands of either.
MOST_LISTED = 2_000
MOST_SECRETS = 50
# A connection is due for its whole next five minutes, and its renewal may have to be tried again.
LATE = timedelta(hours=1)
# Records that wait so long for a destination without a pause are not just being sent.
LONG_WAIT = timedelta(hours=1)
WAITING_RECORDS = "docs/operations.md#waiting-records"
CLIENT_CREDENTIALS = "client_credentials"
# What a stack deployed before there was the parameter RefusedGrantDays has.
DEFAULT_REFUSED_DAYS = "7"
MOST_REFUSED = 10
STOPPED = "stopped"


def listed(deployment: Deployment, list_pk: str) -> list[Item]:
    with deployment.reading():
        return list(islice(deployment.table.query_all(list_pk, index="listing"), MOST_LISTED))


def all_clients(deployment: Deployment) -> list[OAuthClient]:
    return [oauth_clients.read(item) for item in listed(deployment, OAUTH_CLIENTS_LIST)]


def all_connections(deployment: Deployment) -> list[Connection]:
    return [connection_store.read(item) for item in listed(deployment, connection_store.LIST)]


def clients(deployment: Deployment) -> Iterator[Finding]:
    """Redirect URIs lead to this stack."""
    name, api_url = "OAuth clients", deployment.outputs.get("ApiUrl", "").rstrip("/")
    fine, found = 0, all_clients(deployment)
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


def api_domains(deployment: Deployment) -> Iterator[Finding]:
    """Every OAuth client says which domains its tokens may go to, and no connection lies outside them."""
    name, fine, clients = "API domains", 0, all_clients(deployment)
    held = [each for each in all_connections(deployment) if each.state != "removed"]
    for client in clients:
        title = f"{client.platform}/{client.name}"
        registered = oauth_clients.api_domains(client)
        own = [each for each in held if (each.platform, each.client) == (client.platform, client.name)]
        used = sorted({each.allowed_domain for each in own})
        if not registered:
            wanted = ", ".join(used) or "api.example.com"
            told = f"{title} has no api_domains: its {len(own)} connections work, and new ones are refused"
            advice = f"add `api_domains: [{wanted}]`, as far as these may receive its tokens, and run `portaria configure FILE`"
            yield Finding(name, FAIL, told, advice)
        elif outside := [each for each in own if not domain_inside(each.allowed_domain, registered)]:
            domains = ", ".join(sorted({each.allowed_domain for each in outside}))
            told = (
                f"{len(outside)} connections of {title} are outside its api_domains: {named(e.name for e in outside)}"
            )
            yield Finding(
                name,
                FAIL,
                told,
                f"delete them, or add these domains to its api_domains, if they may receive its tokens: {domains}",
            )
        else:
            fine += 1
    if fine or not clients:
        yield Finding(name, OK, f"{fine} OAuth clients have api_domains")


def refused(deployment: Deployment) -> Iterator[Finding]:
    """No platform refuses to renew a connection's tokens."""
    name = "refused renewals"
    found = [each for each in all_connections(deployment) if each.refused_since and each.state == "connected"]
    days = timedelta(days=float(deployment.parameters.get("RefusedGrantDays") or DEFAULT_REFUSED_DAYS))
    for connection in sorted(found, key=lambda each: each.refused_since)[:MOST_REFUSED]:
        ends = clock.to_iso(clock.from_iso(connection.refused_since) + days)
        told = f"{connection.name} since {connection.refused_since}; it ends about {ends}: {connection.refusal}"
        yield Finding(
            name, WARN, told, "correct the OAuth client, or connect again: `portaria authorizations create NAME`"
        )
    if len(found) > MOST_REFUSED:
        yield Finding(name, WARN, f"and {len(found) - MOST_REFUSED:,} more", "`portaria connections list` shows them")
    if not found:
        yield Finding(name, OK, "none")


def secrets(deployment: Deployment) -> Iterator[Finding]:
    """Whatever is written in the table to be in the vault is there. Nothing is read."""
    vault = Vault(deployment.stack_name)
    wanted = {
        vault.client_secret_id(client.platform, client.name): f"the OAuth client {client.platform}/{client.name}"
        for client in all_clients(deployment)
    }
    held = [
        each
        for each in all_connections(deployment)
        if each.state in ("connected", "needs_reconnect") and each.secret_id
    ]
    # The same ones each time would leave the others unseen for ever: those that changed last.
    held.sort(key=lambda connection: connection.updated_at, reverse=True)
    wanted |= {connection.secret_id: f"the connection {connection.name}" for connection in held}
    fine = 0
    for secret_id, whose in islice(wanted.items(), MOST_SECRETS):
        is_there = _is_stored(deployment, secret_id)
        fine += is_there
        if not is_there:
            restore = f"`aws secretsmanager restore-secret --secret-id {secret_id}`"
            if store_name(secret_id) == TABLE:
                restore = f"remove `removed_at` and `expires_at` from the item {SealedTable.key(secret_id)[0]}"
            advice = f"{restore} within 7 days; otherwise connect again"
            yield Finding("secrets", FAIL, f"the secret of {whose} does not exist or is scheduled for deletion", advice)
    if fine or not wanted:
        more = f" of {len(wanted):,}, those changed last" if len(wanted) > MOST_SECRETS else ""
        yield Finding("secrets", OK, f"{fine} exist{more}" if wanted else "none is needed yet")


def _is_stored(deployment: Deployment, secret_id: str) -> bool:
    """Whether credentials exist in their store and have not been removed."""
    if store_name(secret_id) == TABLE:
        with deployment.reading():
            item = deployment.table.get(*SealedTable.key(secret_id))
        return bool(item) and "removed_at" not in (item or {})
    try:
        return "DeletedDate" not in deployment.call("secretsmanager", "describe_secret", SecretId=secret_id)
    except NotThere:
        return False


def states(deployment: Deployment) -> Iterator[Finding]:
    """No connection waits for a person, and none for its renewal."""
    name, found = "connections", all_connections(deployment)
    counts = Counter(connection.state for connection in found)
    ended = [connection for connection in found if connection.state == "needs_reconnect"]
    if ended:
        told = f"{len(ended)} must be connected again: {named(connection.name for connection in ended)}"
        advice = "send the customer the link: `portaria authorizations create NAME`; " + runbook("days-to-death")
        yield Finding(name, WARN, told, advice)
    else:
        told = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())) or "there are none"
        yield Finding(name, OK, told)
    late = clock.to_iso(clock.now() - LATE)
    with deployment.reading():
        due, _ = deployment.table.query(due_index.RENEWALS, index="by_due", sk_until=late, limit=100)
    if due:
        told = f"{len(due)} have been due for more than an hour: {named(str(item.get('name', '?')) for item in due)}"
        yield Finding("renewals", FAIL, told, "run `portaria logs renew_tokens`; " + runbook("renewals-waiting"))
    else:
        yield Finding("renewals", OK, "nothing is late")


def wildcards(deployment: Deployment) -> Iterator[Finding]:
    """No connection's domain covers the names of strangers. The rules for a domain may be newer than a connection."""
    wide = [
        connection
        for connection in all_connections(deployment)
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
        yield Finding(
            "domains", OK, f"{fine} have a wildcard, each below a registered domain" if wide else "no wildcards"
        )


def scopes(deployment: Deployment) -> Iterator[Finding]:
    """No private integration waits for the name of a connection: whatever gets that name would be open to it."""
    there = {connection.name for connection in all_connections(deployment) if connection.state != "removed"}
    name, fine = "private integrations", True
    for item in listed(deployment, private_integrations.LIST):
        integration = private_integrations.read(item)
        narrowed = {scope.partition("@")[2] for scope in integration.scopes if "@" in scope}
        if missing := sorted(narrowed - there):
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


def parked(deployment: Deployment) -> Iterator[Finding]:
    """No destination is stopped, or has used up its day, and no records wait for one for long."""
    name, now = "destinations", clock.now().timestamp()
    waiting_for = [backlogs.read_backlog(item) for item in listed(deployment, backlogs.LISTING)]
    waiting = {backlog.destination: _waiting(backlog) for backlog in waiting_for}
    on = [item for item in listed(deployment, destination_pause.LIST) if int(item.get("until") or 0) > now]
    for item in on:
        what = f"{item['destination']}{' for ' + item['object'] if item.get('object') else ''}"
        code = f" ({item['code']})" if item.get("code") else ""
        code += f"; {waiting[item['destination']]}" if item["destination"] in waiting else ""
        if item.get("reason") == STOPPED:
            yield Finding(name, FAIL, f"{what} is stopped{code}", runbook("destinations-stopped"))
        else:
            until = clock.epoch_to_iso(item["until"])
            yield Finding(
                name, WARN, f"{what} is paused until {until}: {item.get('reason')}{code}", runbook("quota-left")
            )
    paused = {item["destination"] for item in on}
    for backlog in waiting_for:
        if backlog.destination not in paused and now - backlog.since > LONG_WAIT.total_seconds():
            told = f"{backlog.destination} accepts records again, and {waiting[backlog.destination]}"
            advice = (
                "they are being sent within its rate limit; run `portaria logs release_records`; " + WAITING_RECORDS
            )
            yield Finding(name, WARN, told, advice)
    if not on:
        sent = (
            f"; {sum(backlog.records for backlog in waiting_for):,} waiting records are being sent"
            if waiting_for
            else ""
        )
        yield Finding(name, OK, f"none is stopped or paused{sent}")


def _waiting(backlog: backlogs.Backlog) -> str:
    since = clock.epoch_to_iso(backlog.since)
    return f"about {backlog.records:,} records wait, the first since {since}"


def letters(deployment: Deployment) -> Iterator[Finding]:
    """How many records could not go on."""
    waiting = [item for item in listed(deployment, dead_letters.LIST) if item.get("state") == dead_letters.OPEN]
    if not waiting:
        yield Finding("dead letters", OK, "none is open")
        return
    reasons = Counter(str(item.get("reason")) for item in waiting)
    told = named(f"{reason} ({count})" for reason, count in reasons.most_common())
    at_least = "at least " if len(waiting) >= MOST_LISTED else ""
    yield Finding("dead letters", WARN, f"{at_least}{len(waiting):,} are open: {told}", runbook("dead-letters"))


def receipts(deployment: Deployment) -> Iterator[Finding]:
    """Whether anybody tells what became of what Adobe accepted."""
    if deployment.parameters.get("AdobeClientId"):
        yield Finding("Adobe's events", OK, "AdobeClientId is set")
    else:
        advice = "create an Adobe I/O project with the Observability events and deploy with AdobeClientId"
        yield Finding(
            "Adobe's events",
            WARN,
            "AdobeClientId is not set, so the outcome of accepted requests stays unknown",
            advice,
        )
