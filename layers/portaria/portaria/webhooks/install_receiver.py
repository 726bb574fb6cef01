"""Taking an install in: the code goes to the Exchanges queue, or is kept in the table, before anyone is answered.

A marketplace's install hook has three seconds and comes once. They are spent so:

    0.5 s  until the handler starts: the caller's connection, API Gateway, a cold start
    0.4 s  at most for reading the OAuth client, which is remembered for a minute
    0.9 s  at most for SQS
    0.9 s  at most for the table, if SQS did not take it
    0.3 s  for the answer's way back

`Budget` shrinks the three in the middle alike where the way here took longer. A code that SQS took without our hearing
of it is kept as well: the install's id is made of the code, so one code delivered twice is one install.

This module is on the hook's path: no boto3, no Powertools, nothing that is not used there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from portaria.aws.light_client import AwsClient, AwsError
from portaria.core import clock
from portaria.core.callbacks import CLIENT_IN_PATH, OAuthCallback, OAuthClient, Refusal, Rejected, Retryable, Secret
from portaria.core.settings import AcceptInstallSettings
from portaria.webhooks import arrival_sources
from portaria.webhooks.request_log import count, log
from portaria.webhooks.time_budget import TimeBudget

CLIENT_READ_S = 0.4
QUEUE_S = 0.9
KEEP_S = 0.9
# A person waits for these, not a hook: with QUEUE_S and KEEP_S they stay inside the function's six seconds.
CLAIM_S = 1.5
NOTE_S = 0.9
PAGE_READ_S = 2.0
# For each of the three calls that a ticket takes, after the client has been read.
TICKET_S = 1.2

CLIENT_REMEMBERED_S = 60.0
# Short, so that a client that has just been registered is found.
NO_CLIENT_REMEMBERED_S = 5.0
MAX_REMEMBERED_CLIENTS = 500

STATE_LIFE_S = 30 * 60
KEPT_LIFE_S = 24 * 60 * 60
INSTALL_LIFE_S = 90 * 24 * 60 * 60

# Where arrivals are kept that their queue did not take.
ARRIVALS = "ARRIVALS"
UNPROVEN_ARRIVALS = "ARRIVALS#UNPROVEN"

_INSTALL_ID = re.compile(r"[a-z2-7]{26}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")

Item = dict[str, dict[str, str]]
CheckHost = Callable[[OAuthClient, str], None]


class InstallPageSession(NamedTuple):
    """An install page that was opened: the client, its one-time state, and the cookie that ties it to this browser."""

    client: OAuthClient
    state: Secret
    browser: Secret


class Authorization(NamedTuple):
    """A ticket that was used: a one-time state for this browser, and what the provider is to be asked for."""

    client: OAuthClient
    state: Secret
    browser: Secret
    scopes: str

    @property
    def code_challenge(self) -> str:
        """RFC 7636, 4.2, method S256."""
        verifier = code_verifier(self.browser.reveal(), self.state)
        return _base64url(hashlib.sha256(verifier.reveal().encode()).digest())


class Status(NamedTuple):
    """How far an install is: received, exchanging, connected or failed (with a reason)."""

    state: str
    reason: str = ""
    account: str = ""


def install_id(platform: str, client: str, code: Secret) -> str:
    """26 characters of lower-case base32. The same for each delivery of one code, not to be guessed without the code."""
    digest = hashlib.sha256(f"{platform}/{client}/{code.reveal()}".encode()).digest()
    return base64.b32encode(digest).decode()[:26].lower()


def code_verifier(browser: str, state: Secret) -> Secret:
    """PKCE's secret (RFC 7636, 4.1) of one authorization: made of what only this browser holds, so that nobody keeps it."""
    return Secret(_base64url(hmac.digest(browser.encode(), f"pkce:{state.reveal()}".encode(), "sha256")))


class InstallReceiver:
    """Receives arrivals. One a process: it keeps the connections to SQS and DynamoDB and remembers OAuth clients."""

    def __init__(self, settings: AcceptInstallSettings) -> None:
        self._table_name = settings.table_name
        self._queue_url = settings.exchanges_queue_url
        self._unproven_queue_url = settings.unproven_exchanges_queue_url
        self._sqs = AwsClient("sqs", "AmazonSQS")
        self._dynamodb = AwsClient("dynamodb", "DynamoDB_20120810")
        # With each client, the addresses that its platform is known to call from, and until when (epoch seconds).
        self._clients: dict[tuple[str, str], tuple[float, OAuthClient | None, dict[str, float]]] = {}
        self._known_sources = arrival_sources.KnownSources()

    def accept(
        self,
        arrival: OAuthCallback,
        platform: str,
        client: str,
        browser: str,
        budget: TimeBudget,
        check_host: CheckHost | None = None,
        source: str = "",
    ) -> str:
        """Store the code and return the install's id. `browser` is the cookie's value, or empty; `source` is
        `arrival_sources.source_of`.

        `check_host` raises `Rejected` for an account's host that the client is not for; the worker checks it again.
        Raises `Rejected` for an unknown client and for a state that is not this browser's, `Retryable` or `AwsError`
        where nothing could be stored. A browser's return is not taken while its state cannot be checked: its code is
        still in the address bar and its state is free, or used by this very code, so loading the page again goes on.
        """
        install = install_id(platform, client, arrival.code)
        received_at = clock.now()
        bound: dict[str, str] = {}
        if arrival.state is None or check_host:
            self._check_client(platform, client, budget, arrival.account_host, check_host)
        if arrival.state is not None:
            state = self._claim(arrival.state, platform, client, browser, used_by=install)
            if connection := _text(state, "connection"):
                bound = {
                    "connection": connection,
                    "code_verifier": code_verifier(browser, arrival.state).reveal(),
                }
                arrival = arrival._replace(account_host=_text(state, "account_host"))
            self._note(install, arrival, platform, client, received_at)
        is_proven = arrival.state is not None or self._is_known(platform, client, source)
        self._queue(install, arrival, platform, client, received_at, budget, bound, source, is_proven)
        return install

    def refuse(self, refusal: Refusal, platform: str, client: str, browser: str) -> None:
        """The customer said no: their state is used up. Anything else about it does not matter to the customer."""
        if refusal.state is not None:
            try:
                self._claim(refusal.state, platform, client, browser, used_by="refused")
            except (Rejected, Retryable, AwsError) as error:
                log("INFO", "a refusal came without a state of this browser", platform=platform, error=str(error))

    def begin(self, platform: str, client: str, browser: str) -> InstallPageSession:
        """Open the install page: a new state, and this browser's cookie, the old one where it has one.

        Keeping the cookie lets a person open the page twice and finish either. Raises `Rejected` for an unknown client.
        """
        found = self.find_client(platform, client, PAGE_READ_S)
        if found is None:
            raise _unknown_client()
        state, token = self._new_state(platform, client, browser, CLAIM_S)
        return InstallPageSession(found, state, token)

    def authorize(self, platform: str, client: str, ticket: Secret, browser: str) -> Authorization:
        """Use a ticket up: a state for the connection that it was made for, bound to this browser.

        Raises `Rejected` (`unknown_client`, `unknown_ticket`, `expired_ticket`, `used_ticket`), `Retryable` and `AwsError`.
        The state is stored first, so that a failure costs no ticket; of two browsers that open one link, one goes on.
        """
        if not _TOKEN.fullmatch(ticket.reveal()):
            raise _unknown_ticket()
        found = self.find_client(platform, client, PAGE_READ_S)
        if found is None:
            raise _unknown_client()
        pk = f"TICKET#{_sha256(ticket.reveal())}"
        item = self._get(pk, "TICKET", TICKET_S)
        if item is None or (_text(item, "platform"), _text(item, "client")) != (platform, client):
            raise _unknown_ticket()
        # By the clock, since DynamoDB deletes expired items up to days late.
        if int(_text(item, "expires_at") or 0) <= _epoch(0):
            raise Rejected(
                "expired_ticket", "this link was good for 15 minutes: ask for a new one", field="ticket", status=404
            )
        if _text(item, "used_by"):
            raise _used_ticket()
        bound = {name: _text(item, name) for name in ("connection", "account_host")}
        state, token = self._new_state(platform, client, browser, TICKET_S, bound)
        try:
            self._update(
                {"pk": {"S": pk}, "sk": {"S": "TICKET"}},
                "SET #used_by = :used_by",
                # Or by this very call, which a broken connection may have carried out already.
                "attribute_exists(pk) AND (attribute_not_exists(#used_by) OR #used_by = :used_by)",
                {"used_by": _sha256(state.reveal())},
                TICKET_S,
            )
        except AwsError as error:
            if error.code != "ConditionalCheckFailedException":
                raise
            raise _used_ticket() from None
        return Authorization(found, state, token, _text(item, "scopes"))

    def status(self, install: str) -> Status:
        """An install that is not in the table yet is on its way through the queue. Raises `Rejected` for what is no id."""
        if not _INSTALL_ID.fullmatch(install):
            raise Rejected("unknown_install", "this is not the address of an install", field="install", status=404)
        item = self._get(f"INSTALL#{install}", "INSTALL", PAGE_READ_S)
        if item is None:
            return Status("received")
        return Status(_text(item, "state") or "received", _text(item, "reason"), _text(item, "account_host"))

    def find_client(self, platform: str, name: str, timeout_s: float) -> OAuthClient | None:
        """The OAuth client, or None where there is none for certain. Raises `Retryable` and `AwsError`."""
        if not CLIENT_IN_PATH.fullmatch(name):
            return None
        until, client, _ = self._clients.get((platform, name), (0.0, None, {}))
        if time.monotonic() < until:
            return client
        key = {"pk": {"S": f"CLIENT#{platform}#{name}"}, "sk": {"S": "CLIENT"}}
        sources_key = {"pk": {"S": arrival_sources.PK + platform}, "sk": {"S": arrival_sources.SK}}
        found = self._get_both(key, sources_key, timeout_s)
        client = None
        if item := found.get(key["pk"]["S"]):
            given = {field: _text(item, field) for field in OAuthClient._fields if field in item}
            client = OAuthClient(**given | {"platform": platform, "name": name})
        known = found.get(sources_key["pk"]["S"], {})
        sources = {source: float(until["N"]) for source, until in known.items() if "N" in until}
        if len(self._clients) >= MAX_REMEMBERED_CLIENTS:
            self._clients.clear()
        life_s = CLIENT_REMEMBERED_S if client else NO_CLIENT_REMEMBERED_S
        self._clients[platform, name] = (time.monotonic() + life_s, client, sources)
        return client

    def _is_known(self, platform: str, client: str, source: str) -> bool:
        """Whether an arrival came from an address that the platform calls from, within that address' allowance."""
        _, _, sources = self._clients.get((platform, client), (0.0, None, {}))
        return sources.get(source, 0.0) > time.time() and self._known_sources.take(source)

    def _check_client(
        self, platform: str, client: str, budget: TimeBudget, host: str, check_host: CheckHost | None
    ) -> None:
        """Raises `Rejected` only where there is certainly no such client, or not for this host; the worker looks again."""
        try:
            found = self.find_client(platform, client, budget.part(CLIENT_READ_S))
        except (Retryable, AwsError) as error:
            log(
                "WARNING",
                "an OAuth client was not read; its install goes on",
                platform=platform,
                client=client,
                error=str(error),
            )
            return
        if found is None:
            raise _unknown_client()
        if check_host:
            check_host(found, host)

    def _new_state(
        self, platform: str, client: str, browser: str, timeout_s: float, bound: dict[str, str] | None = None
    ) -> tuple[Secret, Secret]:
        """Store a one-time state; the state, and the cookie of the browser that it belongs to."""
        state = _random_token()
        token = browser if _TOKEN.fullmatch(browser) else _random_token()
        item = {
            "pk": f"STATE#{_sha256(state)}",
            "sk": "STATE",
            "platform": platform,
            "client": client,
            "browser": _sha256(token),
            "expires_at": _epoch(STATE_LIFE_S),
            **(bound or {}),
        }
        self._put(item, timeout_s)
        return Secret(state), Secret(token)

    def _claim(self, state: Secret, platform: str, client: str, browser: str, *, used_by: str) -> Item:
        """Mark a state as used, once: only by the browser and for the client it was made for, or again for the same code.

        Returns the state's item. Raises `Rejected` (`unknown_state`, `foreign_state`, `expired_state`, `used_state`).
        """
        if not _TOKEN.fullmatch(state.reveal()):
            raise _unknown_state()
        if not _TOKEN.fullmatch(browser):
            raise _foreign_state()
        key = {"pk": {"S": f"STATE#{_sha256(state.reveal())}"}, "sk": {"S": "STATE"}}
        conditions = (
            "#platform = :platform AND #client = :client AND #browser = :browser AND #expires_at > :now",
            "(attribute_not_exists(#used_by) OR #used_by = :used_by)",
        )
        values: dict[str, str | int] = {
            "platform": platform,
            "client": client,
            "browser": _sha256(browser),
            "used_by": used_by,
            "now": _epoch(0),
        }
        try:
            return self._update(key, "SET #used_by = :used_by", " AND ".join(conditions), values, CLAIM_S)
        except AwsError as error:
            if error.code != "ConditionalCheckFailedException":
                raise
            raise self._why_not(key["pk"]["S"], platform, client, browser) from None

    def _why_not(self, pk: str, platform: str, client: str, browser: str) -> Rejected:
        item = self._get(pk, "STATE", CLAIM_S)
        if item is None:
            return _unknown_state()
        if (_text(item, "platform"), _text(item, "client"), _text(item, "browser")) != (
            platform,
            client,
            _sha256(browser),
        ):
            return _foreign_state()
        # By the clock, since DynamoDB deletes expired items up to days late.
        if int(_text(item, "expires_at") or 0) <= _epoch(0):
            return Rejected("expired_state", "the install page was opened more than 30 minutes ago", field="state")
        return Rejected("used_state", "this state has been used already", field="state")

    def _note(self, install: str, arrival: OAuthCallback, platform: str, client: str, received_at: datetime) -> None:
        """Write the install down for the result page. Only that: without it the worker writes it."""
        at = clock.to_iso(received_at)
        item = {
            "pk": f"INSTALL#{install}",
            "sk": "INSTALL",
            "list_pk": "INSTALLS",
            "list_sk": f"{at}#{install}",
            "state": "received",
            "platform": platform,
            "client": client,
            "account_host": arrival.account_host,
            "arrived_by": arrival.source,
            "received_at": at,
            "attempts": 0,
            "expires_at": _epoch(INSTALL_LIFE_S),
        }
        try:
            self._put(item, NOTE_S, condition="attribute_not_exists(pk)")
        except AwsError as error:
            if error.code != "ConditionalCheckFailedException":
                log("WARNING", "an install was not written down", install_id=install, error=str(error))
        except Retryable as error:
            log("WARNING", "an install was not written down", install_id=install, error=str(error))

    def _queue(
        self,
        install: str,
        arrival: OAuthCallback,
        platform: str,
        client: str,
        received_at: datetime,
        budget: TimeBudget,
        bound: dict[str, str],
        source: str,
        is_proven: bool,
    ) -> None:
        """`bound` is what else an install for a named connection carries."""
        known = {
            "install_id": install,
            "platform": platform,
            "client": client,
            "account_host": arrival.account_host,
            "source": arrival.source,
        }
        code = arrival.code.reveal()
        message = {"version": 1, **known, **bound, "code": code, "received_at": clock.to_iso(received_at)}
        if source:
            message["address_hash"] = source
        body = json.dumps(message, separators=(",", ":"))
        request = {"QueueUrl": self._queue_url if is_proven else self._unproven_queue_url, "MessageBody": body}
        if source and not is_proven:
            # The group is no order here: it keeps the many of one address from holding up the few of another.
            request["MessageGroupId"] = source
        try:
            self._sqs.call("SendMessage", request, timeout_s=budget.part(QUEUE_S))
        except (Retryable, AwsError) as error:
            refused = str(error)
        else:
            log("INFO", "install received", **known, stored="queue", proven=is_proven)
            return
        kept_in = ARRIVALS if is_proven else UNPROVEN_ARRIVALS
        item = {"pk": kept_in, "sk": install, "body": body, "expires_at": _epoch(KEPT_LIFE_S)}
        try:
            self._put(item, budget.part(KEEP_S))
        except (Retryable, AwsError) as error:
            log("ERROR", "install not stored", **known, queue_error=refused, table_error=str(error))
            count("ArrivalsLost")
            raise Retryable("not_stored", "the install could not be stored", after_s=5) from None
        log("WARNING", "install received", **known, stored="table", queue_error=refused)
        count("ArrivalsKept")

    def _get(self, pk: str, sk: str, timeout_s: float) -> Item | None:
        """A strongly consistent read."""
        key = {"pk": {"S": pk}, "sk": {"S": sk}}
        request = {"TableName": self._table_name, "Key": key, "ConsistentRead": True}
        item: Item | None = self._dynamodb.call("GetItem", request, timeout_s=timeout_s).get("Item")
        return item

    def _get_both(self, first: Item, second: Item, timeout_s: float) -> dict[str, Item]:
        """Strongly consistent reads of two items in one call: those that exist, by partition key.

        Raises `Retryable` where the first was not read.
        """
        asked = {self._table_name: {"Keys": [first, second], "ConsistentRead": True}}
        answer = self._dynamodb.call("BatchGetItem", {"RequestItems": asked}, timeout_s=timeout_s)
        if first in answer.get("UnprocessedKeys", {}).get(self._table_name, {}).get("Keys", []):
            raise Retryable("table_unavailable", "DynamoDB did not read an item of a batch")
        items: list[Item] = answer.get("Responses", {}).get(self._table_name, [])
        return {_text(item, "pk"): item for item in items}

    def _update(
        self, key: Item, expression: str, condition: str, values: dict[str, str | int], timeout_s: float
    ) -> Item:
        """Change an item on a condition and return it. Both speak of attributes as `#name` and of `values` as `:name`."""
        names = re.findall(r"#(\w+)", f"{expression} {condition}")
        request = {
            "TableName": self._table_name,
            "Key": key,
            "UpdateExpression": expression,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {f"#{name}": name for name in names},
            "ExpressionAttributeValues": {f":{name}": _typed(value) for name, value in values.items()},
            "ReturnValues": "ALL_NEW",
        }
        item: Item = self._dynamodb.call("UpdateItem", request, timeout_s=timeout_s).get("Attributes", {})
        return item

    def _put(self, item: dict[str, Any], timeout_s: float, *, condition: str = "") -> None:
        request: dict[str, Any] = {
            "TableName": self._table_name,
            "Item": {name: _typed(value) for name, value in item.items()},
        }
        if condition:
            request["ConditionExpression"] = condition
        self._dynamodb.call("PutItem", request, timeout_s=timeout_s)


def _unknown_client() -> Rejected:
    return Rejected("unknown_client", "no OAuth client of this name is registered here", field="client", status=404)


def _unknown_state() -> Rejected:
    return Rejected("unknown_state", "this state was not given out here, or long ago", field="state")


def _foreign_state() -> Rejected:
    return Rejected("foreign_state", "this state was given to another browser or for another client", field="state")


def _unknown_ticket() -> Rejected:
    return Rejected(
        "unknown_ticket", "this link was not given out here, or long ago: ask for a new one", field="ticket"
    )


def _used_ticket() -> Rejected:
    return Rejected("used_ticket", "this link has been opened already: ask for a new one", field="ticket", status=404)


def _typed(value: str | int) -> dict[str, str]:
    return {"S": value} if isinstance(value, str) else {"N": str(value)}


def _text(item: Item, name: str) -> str:
    return next(iter(item.get(name, {}).values()), "")


def _epoch(after_s: int) -> int:
    return int(time.time()) + after_s


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _random_token() -> str:
    """32 random bytes as 43 characters."""
    return _base64url(os.urandom(32))


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
