"""Receive installs: the code goes to a queue, or is kept in the table, before the caller gets an answer.

A marketplace's install webhook waits three seconds and is sent once. They are spent so:

    0.5 s  until the handler starts: the caller's connection, API Gateway, a cold start
    0.4 s  at most for reading the OAuth client, which is remembered for a minute
    0.9 s  at most for SQS
    0.9 s  at most for the table, if SQS did not take it
    0.3 s  for the answer's way back

`TimeBudget` shrinks the three in the middle in proportion where the handler started later. A code that SQS took although its
answer was lost is kept as well: the install's id is made of the code, so one code delivered twice is one install.

This module is on the webhooks' cold path: no boto3, no Powertools, nothing that is not used there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable

from portaria.aws.light_client import AwsClient, AwsError
from portaria.core import clock
from portaria.core.callbacks import OAuthCallback, OAuthClient, Refusal, Secret
from portaria.core.error_roots import Rejected, Retryable
from portaria.core.http.request import HttpRequest
from portaria.core.item_keys import install_key, install_lists, install_places
from portaria.core.settings import AcceptInstallSettings
from portaria.webhooks import arrival_sources
from portaria.webhooks.light_table import CONDITION_FAILED, LightTable, Value, text
from portaria.webhooks.oauth_client_cache import OAuthClientCache, unknown_client
from portaria.webhooks.oauth_state import COOKIE, REFUSED, OAuthStates, code_verifier
from portaria.webhooks.request_log import count, log
from portaria.webhooks.time_budget import TimeBudget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from portaria.webhooks.light_table import Item

CLIENT_READ_S = 0.4
QUEUE_S = 0.9
KEEP_S = 0.9
# A person waits for this write, not a webhook.
STATUS_S = 0.9
KEPT_LIFE_S = 24 * 60 * 60
INSTALL_LIFE_S = 90 * 24 * 60 * 60

# Partitions that keep the arrivals which their queue did not take.
ARRIVALS = "ARRIVALS"
UNPROVEN_ARRIVALS = "ARRIVALS#UNPROVEN"

# What an install is told of the link that it began with. The tags are JSON text.
LINK_FIELDS = ("link", "account_id", "tags", "return_url", "language")

CheckHost = Callable[[OAuthClient, str], None]


def install_id(platform: str, client: str, code: Secret) -> str:
    """26 characters of lower-case base32. The same for each delivery of one code, and not guessable without the code."""
    digest = hashlib.sha256(f"{platform}/{client}/{code.reveal()}".encode()).digest()
    return base64.b32encode(digest).decode()[:26].lower()


class InstallReceiver:
    """One a process: it keeps the connection to SQS."""

    def __init__(
        self, settings: AcceptInstallSettings, table: LightTable, clients: OAuthClientCache, states: OAuthStates
    ) -> None:
        self._queue_url = settings.exchanges_queue_url
        self._unproven_queue_url = settings.unproven_exchanges_queue_url
        self._sqs = AwsClient("sqs", "AmazonSQS")
        self._table = table
        self._clients = clients
        self._states = states

    def accept(
        self, callback: OAuthCallback, request: HttpRequest, budget: TimeBudget, check_host: CheckHost | None = None
    ) -> tuple[str, str]:
        """Store the code; returns the install's id, and how its pages are shown (`popup` or empty).

        `check_host` raises `Rejected` for an account's host that the client is not for; the worker checks it again.
        Raises `Rejected` for an unknown client and for a state that is not this browser's, `Retryable` or `AwsError`
        where nothing could be stored. A browser's return is not taken while its state cannot be checked: its code is
        still in the address bar and its state is free, or used by this very code, so loading the page again continues.
        """
        platform, client = request.path_parameter("platform"), request.path_parameter("client")
        install = install_id(platform, client, callback.code)
        received_at = clock.to_iso(clock.now())
        source = arrival_sources.hash_address(request.source_address)
        bound: dict[str, str] = {}
        display = ""
        if callback.state is None or check_host:
            self._check_client(platform, client, budget, callback.account_host, check_host)
        if callback.state is not None:
            browser = request.cookie(COOKIE)
            state = self._states.claim(callback.state, platform, client, browser, used_by=install)
            display = text(state, "display")
            bound = {name: value for name in LINK_FIELDS if (value := text(state, name))}
            if connection := text(state, "connection"):
                bound |= {
                    "connection": connection,
                    "code_verifier": code_verifier(browser, callback.state).reveal(),
                }
                callback = callback._replace(account_host=text(state, "account_host"))
            self._write_received(install, callback, platform, client, received_at, bound)
        is_proven = callback.state is not None or self._clients.is_known_source(platform, client, source)
        known = {
            "install_id": install,
            "platform": platform,
            "client": client,
            "account_host": callback.account_host,
            "source": callback.source,
        }
        message: dict[str, str | int] = {"version": 1, **known, **bound}
        message |= {"code": callback.code.reveal(), "received_at": received_at}
        if source:
            message["address_hash"] = source
        self._store(message, known, source, is_proven, budget)
        return install, display

    def refuse(self, refusal: Refusal, request: HttpRequest) -> Item:
        """The customer refused: their state is used. Returns its item, or an empty one where that failed."""
        platform, client = request.path_parameter("platform"), request.path_parameter("client")
        if refusal.state is not None:
            try:
                return self._states.claim(refusal.state, platform, client, request.cookie(COOKIE), used_by=REFUSED)
            except (Rejected, Retryable, AwsError) as error:
                log("INFO", "refusal_without_state", platform=platform, error=str(error))
        return {}

    def _check_client(
        self, platform: str, client: str, budget: TimeBudget, host: str, check_host: CheckHost | None
    ) -> None:
        """Raises `Rejected` only if there is certainly no such client, or not for this host; the worker checks again."""
        try:
            found = self._clients.find(platform, client, budget.part(CLIENT_READ_S))
        except (Retryable, AwsError) as error:
            log("WARNING", "oauth_client_not_read", platform=platform, client=client, error=str(error))
            return
        if found is None:
            raise unknown_client()
        if check_host:
            check_host(found, host)

    def _write_received(
        self,
        install: str,
        callback: OAuthCallback,
        platform: str,
        client: str,
        received_at: str,
        bound: dict[str, str],
    ) -> None:
        """Write an install for its status page. A failure is only logged, because the worker writes the install as well."""
        pk, sk = install_key(install)
        item: dict[str, Value] = {
            "pk": pk,
            "sk": sk,
            **install_lists("received", platform, client),
            **install_places(install, received_at),
            "state": "received",
            "platform": platform,
            "client": client,
            "account_host": callback.account_host,
            "arrived_by": callback.source,
            "received_at": received_at,
            "attempts": 0,
            "expires_at": int(time.time()) + INSTALL_LIFE_S,
        }
        item |= {name: bound[name] for name in ("link", "return_url", "language") if name in bound}
        if "tags" in bound:
            item["tags"] = json.loads(bound["tags"])
        try:
            self._table.put(item, STATUS_S, condition="attribute_not_exists(pk)")
        except AwsError as error:
            if error.code != CONDITION_FAILED:
                log("WARNING", "install_status_not_written", install_id=install, error=str(error))
        except Retryable as error:
            log("WARNING", "install_status_not_written", install_id=install, error=str(error))

    def _store(
        self, message: dict[str, str | int], known: dict[str, str], source: str, is_proven: bool, budget: TimeBudget
    ) -> None:
        """Queue an install, or keep it in the table where its queue refuses it. Raises `Retryable` where both refuse.

        `known` are the fields for the log: none of them is a secret.
        """
        body = json.dumps(message, separators=(",", ":"))
        request = {"QueueUrl": self._queue_url if is_proven else self._unproven_queue_url, "MessageBody": body}
        if source and not is_proven:
            # Not for the order: with a group for each address, many messages of one address do not delay others.
            request["MessageGroupId"] = source
        try:
            self._sqs.call("SendMessage", request, timeout_s=budget.part(QUEUE_S))
        except (Retryable, AwsError) as error:
            refused = str(error)
        else:
            log("INFO", "install_received", **known, stored="queue", proven=is_proven)
            return
        kept_in = ARRIVALS if is_proven else UNPROVEN_ARRIVALS
        expires_at = int(time.time()) + KEPT_LIFE_S
        item: dict[str, Value] = {"pk": kept_in, "sk": known["install_id"], "body": body, "expires_at": expires_at}
        try:
            self._table.put(item, budget.part(KEEP_S))
        except (Retryable, AwsError) as error:
            log("ERROR", "install_not_stored", **known, queue_error=refused, table_error=str(error))
            count("ArrivalsLost")
            raise Retryable("not_stored", "the install could not be stored", after_s=5) from None
        log("WARNING", "install_received", **known, stored="table", queue_error=refused)
        count("ArrivalsKept")
