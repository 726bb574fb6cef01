"""What a destination reports about accepted requests: verified, read by its platform's `delivery_reports`, and stored.

A delivery is answered with success only after all of it is stored. Otherwise the platform delivers it again, for a day; events
that were stored before are then stored again, which changes nothing.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from portaria import platforms
from portaria.aws import service_clients
from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.entities import DeliveryEvent, Reported, SignedBy
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request
from portaria.core.settings import TrackReceiptsSettings
from portaria.outbound import http_client
from portaria.platforms.record_protocols import DeliveryReports
from portaria.records import receipts

logger = logging.getLogger(__name__)

# The parameter's value if no client id is set.
NONE_SET = "-"
KEYS_KEPT_FOR = timedelta(hours=24)
MAX_KEYS = 16
MIN_KEY_BITS = 2048
# How many requests to one domain unverified calls may cause in a minute. Validations are not signed. Each domain has its own
# budget, so that validations do not keep the keys of signed deliveries from being fetched.
MAX_FETCHES, FETCHES_WITHIN = 20, timedelta(minutes=1)
# Concurrent writes, for deliveries with more reports than one call's time allows one after another.
MAX_WRITERS, MANY_REPORTS = 10, 50


@dataclass(frozen=True)
class DeliverySummary:
    """What a delivery contained: events by kind, stored requests, and the lowest remaining quota of a connected account."""

    events: Counter[str] = field(default_factory=Counter)
    stored: int = 0
    elsewhere: int = 0
    unreadable: int = 0
    quota_left: int | None = None


@dataclass(frozen=True)
class _Report:
    account_id: str
    request_id: str
    event: DeliveryEvent
    reported: Reported


def challenge(platform: str, query: Mapping[str, list[str]], settings: TrackReceiptsSettings) -> str:
    """The answer to a registration's challenge. Raises `Rejected` (404 if this stack accepts no events)."""
    return _reports(platform, settings).read_challenge(query)


def handle_delivery(
    platform: str, headers: Mapping[str, str], body: bytes, settings: TrackReceiptsSettings
) -> DeliverySummary:
    """Verify and store a delivery. Header names are lower case.

    Raises `Rejected` (401 `bad_signature`, 403 `wrong_recipient`, 404 if this stack accepts no events, 400 and 413 if it is
    not a valid delivery) and `Retryable` if it should be delivered again.
    """
    reports = _reports(platform, settings)
    content = reports.read_content(body)
    if validation := reports.validation_request(content):
        _validate(validation, reports.VALIDATION_DOMAIN)
        return DeliverySummary(Counter(validation=1))
    # Before any key is fetched, because few callers know the client id.
    reports.check_recipient(content, headers, settings.adobe_client_id)
    _verify(reports.read_signatures(headers), body, reports.KEYS_DOMAIN)
    try:
        return _store(Table(settings.table_name), platform, list(reports.read_events(content)))
    except service_clients.FAILURES as error:
        code = service_clients.error_code(error) or type(error).__name__
        raise Retryable("storage_unavailable", f"not all events were stored: {code}") from error


def _reports(platform: str, settings: TrackReceiptsSettings) -> DeliveryReports:
    found = platforms.load(platform)
    reports = found.require(found.delivery_reports)
    if settings.adobe_client_id == NONE_SET:
        raise Rejected(
            "not_set_up", "this stack does not accept Adobe's events: set its parameter AdobeClientId", status=404
        )
    return reports


def _store(table: Table, platform: str, events: list[DeliveryEvent]) -> DeliverySummary:
    kinds: Counter[str] = Counter(event.kind for event in events)
    ours: dict[str, bool] = {}
    reports: list[_Report] = []
    quotas: list[int] = []
    elsewhere = unreadable = 0
    for event in events:
        account_id = event.account_id
        if account_id and account_id not in ours:
            ours[account_id] = bool(connection_store.of_account(table, platform, account_id))
        if not ours.get(account_id):
            elsewhere += 1
            continue
        unreadable += event.unreadable
        reports += [_Report(account_id, request_id, event, reported) for request_id, reported in event.requests.items()]
        if event.quota_left is not None:
            quotas.append(event.quota_left)

    def store(report: _Report) -> None:
        event, reported = report.event, report.reported
        receipts.report(
            table,
            report.account_id,
            report.request_id,
            event.event_id,
            applied=reported.applied,
            failed=reported.failed,
            at=event.at,
        )

    if len(reports) < MANY_REPORTS:
        for report in reports:
            store(report)
    else:
        with ThreadPoolExecutor(MAX_WRITERS) as writers:
            list(writers.map(store, reports))
    return DeliverySummary(kinds, len(reports), elsewhere, unreadable, min(quotas, default=None))


# ------------------------------------------------------------------------------------------------------------ signatures

_keys: OrderedDict[str, tuple[rsa.RSAPublicKey, datetime]] = OrderedDict()
_fetches: defaultdict[str, deque[datetime]] = defaultdict(deque)


def _verify(signatures: list[SignedBy], body: bytes, domain: str) -> None:
    """Raises `Rejected` (401 `bad_signature`), and `Retryable` if no signature is valid and a key could not be fetched."""
    missing: Retryable | None = None
    for signed in signatures:
        try:
            key = _key(signed.key, domain)
            key.verify(signed.signature, body, padding.PKCS1v15(), hashes.SHA256())
        except Retryable as later:
            missing = later
        except (Rejected, InvalidSignature) as wrong:
            logger.info("signature_invalid", extra={"error": type(wrong).__name__})
        else:
            return
    if missing:
        raise missing
    raise Rejected("bad_signature", "no signature of this body holds", field="headers", status=401)


def _key(request: Request, domain: str) -> rsa.RSAPublicKey:
    """A key, fetched once a day and process. Raises `Rejected` if there is none, and `Retryable`."""
    now = clock.now()
    known = _keys.get(request.url)
    if known and now < known[1]:
        return known[0]
    response = _fetch(request, domain)
    if response.status != 200:
        if response.status in (408, 429) or response.status >= 500:
            raise Retryable("key_unavailable", f"{domain} answered {response.status}")
        raise Rejected("unknown_key", f"{domain} answered {response.status}", status=401)
    try:
        key: Any = serialization.load_pem_public_key(response.body)
    except (ValueError, UnsupportedAlgorithm):
        raise Rejected("bad_key", "what lies there is no public key", status=401) from None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        raise Rejected("bad_key", f"the key is no RSA key of {MIN_KEY_BITS} bits", status=401)
    _keys[request.url] = (key, now + KEYS_KEPT_FOR)
    _keys.move_to_end(request.url)
    while len(_keys) > MAX_KEYS:
        _keys.popitem(last=False)
    return key


def _validate(request: Request, domain: str) -> None:
    """Raises `Retryable` if it failed."""
    response = _fetch(request, domain)
    if not 200 <= response.status < 300:
        raise Retryable("not_validated", f"{domain} answered {response.status} to the validation")


def _fetch(request: Request, domain: str) -> Any:
    """Raises `Retryable` also if the domain's budget of the last minute is used up."""
    now, fetches = clock.now(), _fetches[domain]
    while fetches and fetches[0] < now - FETCHES_WITHIN:
        fetches.popleft()
    if len(fetches) >= MAX_FETCHES:
        raise Retryable("too_many_fetches", f"{MAX_FETCHES} calls a minute are made to {domain}")
    fetches.append(now)
    return http_client.send(request, allowed_domain=domain, owner="")
