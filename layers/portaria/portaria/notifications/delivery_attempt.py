"""One attempt: sign the body, post it to the endpoint, and say what became of it.

The request goes through the outbound HTTP client, which connects to public addresses of the webhook's own host only, over
https. A redirect is a failure. Of the response a beginning is stored, without what looks like a credential.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from portaria.core import clock, redaction
from portaria.core.callbacks import Secret
from portaria.core.errors import AnswerLost, Rejected, Retryable, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.notifications import signatures, webhooks
from portaria.notifications.deliveries import Attempt, Delivery
from portaria.notifications.webhooks import Webhook
from portaria.outbound import http_client

CONNECT_S = 2.0
MAX_READ_BYTES = 4_096
MAX_STORED_CHARACTERS = 500
# An unsealed secret is kept in the process for this time.
SECRETS_KEPT_FOR = timedelta(minutes=5)
MAX_SECRETS = 100
GONE_STATUS = 410


@dataclass(frozen=True)
class AttemptResult:
    """`asked_s` is the wait that the endpoint asked for."""

    attempt: Attempt
    is_delivered: bool
    is_gone: bool = False
    asked_s: float = 0.0


class SigningKeys:
    """Unseals the secrets of webhooks, and remembers them for a while, by the sealed text."""

    def __init__(self, sealing_key_id: str) -> None:
        self._sealing_key_id = sealing_key_id
        self._known: OrderedDict[str, tuple[Secret, datetime]] = OrderedDict()

    def of(self, webhook: Webhook) -> list[Secret]:
        """The secrets that sign now, the newest first. Raises `Retryable` and `Rejected` as `webhooks.unseal`."""
        sealed = [webhook.sealed, *([webhook.sealed_previous] if webhook.overlaps() else [])]
        return [self._unsealed(webhook.id, each) for each in sealed]

    def _unsealed(self, webhook_id: str, sealed: str) -> Secret:
        known = self._known.get(sealed)
        if known and clock.now() < known[1]:
            return known[0]
        secret = webhooks.unseal(self._sealing_key_id, webhook_id, sealed)
        self._known[sealed] = (secret, clock.now() + SECRETS_KEPT_FOR)
        self._known.move_to_end(sealed)
        while len(self._known) > MAX_SECRETS:
            self._known.popitem(last=False)
        return secret


def attempt(webhook: Webhook, delivery: Delivery, keys: SigningKeys, timeout_s: float) -> AttemptResult:
    """Raises `Retryable` and `Rejected` only where the secret cannot be unsealed: then nothing was sent."""
    body = delivery.body.encode()
    now = clock.now()
    headers = signatures.headers(keys.of(webhook), delivery.id, int(now.timestamp()), body)
    request = Request(
        "POST",
        webhook.url,
        {"content-type": "application/json", **headers},
        body,
        connect_timeout_s=min(CONNECT_S, timeout_s),
        read_timeout_s=timeout_s,
        total_timeout_s=timeout_s,
        max_response_bytes=MAX_READ_BYTES,
        truncates_response=True,
    )
    begun = time.monotonic()

    def made(status: int = 0, error: str = "", response: str = "") -> Attempt:
        return Attempt(clock.to_iso(now), round((time.monotonic() - begun) * 1_000), status, error, response)

    try:
        response = http_client.send(
            request, allowed_domain=urlsplit(webhook.url).hostname or "", owner=f"webhook:{webhook.id}"
        )
    except Unreachable as error:
        return AttemptResult(made(error="unreachable", response=error.detail), is_delivered=False)
    except AnswerLost:
        return AttemptResult(made(error="no_answer"), is_delivered=False)
    except (Rejected, Retryable) as error:
        # `address_not_allowed`: the name leads to an address that is not public, now or since it was registered.
        return AttemptResult(made(error=error.reason), is_delivered=False)
    status = response.status
    if 200 <= status < 300:
        return AttemptResult(made(status), is_delivered=True)
    error_name = "redirect" if 300 <= status < 400 else "http_error"
    return AttemptResult(
        made(status, error_name, excerpt(response)),
        is_delivered=False,
        is_gone=status == GONE_STATUS,
        asked_s=_asked_s(response),
    )


def excerpt(response: Response) -> str:
    """The beginning of a response's text, printable and without what looks like a credential."""
    if "content-encoding" in response.headers:
        return ""
    text = response.body.decode("utf-8", "replace")
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+", " ", text).strip()
    return redaction.masked_text(text)[:MAX_STORED_CHARACTERS]


def _asked_s(response: Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0.0
