"""When a delivery is attempted again, and how long one attempt may take.

The waits are those of the Standard Webhooks specification up to ten hours, each with up to 20 % more, so that deliveries that
failed together are not attempted together. SQS delays a message for 15 minutes at most: a longer wait ends when the sweep
finds the delivery due.
"""

from __future__ import annotations

import random
from datetime import timedelta

WAITS_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 36_000.0)
JITTER = 0.2
MAX_TRIES = len(WAITS_S) + 1
# The longest wait that an endpoint may ask for (`Retry-After`).
MAX_ASKED_S = 21_600.0
# A delivery that could not be attempted often enough in this time is given up. Longer than `FAILING_FOR`.
MAX_AGE = timedelta(days=7)
# Failing for so long, in at least so many attempts, disables a webhook.
FAILING_FOR = timedelta(days=5)
FAILING_ATTEMPTS = MAX_TRIES

# An attempt in the usual queue may take this long. An endpoint that needs longer gets the patient queue's time from then on.
QUICK_S = 3.0
PATIENT_S = 15.0
# An endpoint whose last attempt took longer is slow. Failing to connect takes two seconds.
SLOW_MS = 1_900


def wait_s(tries: int, asked_s: float = 0.0) -> float | None:
    """The seconds until the next attempt after so many failed ones, or None after the last."""
    if tries >= MAX_TRIES:
        return None
    wait = WAITS_S[tries - 1] * random.uniform(1.0, 1.0 + JITTER)  # noqa: S311 - spreads attempts, keeps no secret
    return max(wait, min(asked_s, MAX_ASKED_S))
