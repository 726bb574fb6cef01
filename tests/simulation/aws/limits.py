"""The documented limits of the AWS services in `cloud`, and how AWS measures sizes.

Each constant names its official page. `docs/fidelity.md` lists the rules with their tests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from tests.simulation.aws.expressions import Item

KIB = 1_024
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
ITEM_BYTES = 400 * KIB
PARTITION_KEY_BYTES, SORT_KEY_BYTES = 2_048, 1_024
EXPRESSION_BYTES = 4 * KIB
PAGE_BYTES = KIB * KIB
TRANSACTION_ITEMS, TRANSACTION_BYTES = 100, 4 * KIB * KIB
BATCH_READS, BATCH_WRITES, BATCH_BYTES = 100, 25, 16 * KIB * KIB
# https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
SECRET_BYTES = 65_536
LABELS = 20
VERSIONS = 100
YOUNGEST_REMOVABLE_S = 86_400.0
# Requests a second in a region. Several operations share a limit.
VAULT_WRITES = "PutSecretValue, UpdateSecret, UpdateSecretVersionStage"
VAULT_READS = "DescribeSecret, GetSecretValue"
RATES = {VAULT_WRITES: 50, "CreateSecret": 50, "DeleteSecret": 50, "RestoreSecret": 50, VAULT_READS: 10_000}
# https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
# AWS raised the size of an entry to 1 MB in 2026. The product keeps to the earlier limit for a whole request.
EVENT_ENTRIES, EVENT_BYTES = 10, 256 * KIB
# https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html
PLAINTEXT_BYTES = 4_096


def item_size(item: Item) -> int:
    """https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html"""
    size = 0
    for name, value in item.items():
        size += text_size(name) + _value_size(value)
    return size


def text_size(text: str) -> int:
    """In UTF-8. Most texts are ASCII, and are measured thousands of times a second."""
    return len(text) if text.isascii() else len(text.encode())


def items_size(items: Iterable[Item]) -> int:
    return sum(map(item_size, items))


def _value_size(value: dict[str, Any]) -> int:
    ((kind, held),) = value.items()
    match kind:
        case "S":
            return text_size(held)
        case "B":
            return len(bytes(held))
        case "N":
            digits = len(held.lstrip("-").replace(".", "").strip("0"))
            return min(21, (digits + 1) // 2 + 1 + int(held.startswith("-")))
        case "L":
            return 3 + sum(1 + _value_size(each) for each in held)
        case "M":
            return 3 + sum(1 + text_size(name) + _value_size(each) for name, each in held.items())
    return 1


def event_size(entry: dict[str, Any]) -> int:
    """https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevent-size.html"""
    texts = [entry.get("Source", ""), entry.get("DetailType", ""), entry.get("Detail", ""), *entry.get("Resources", ())]
    return (14 if "Time" in entry else 0) + sum(len(text.encode()) for text in texts)


class Rates:
    """Counts the requests of the last second, by the group of operations that share a limit."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {group: deque() for group in RATES}

    def allows(self, group: str, now: float) -> bool:
        times = self._times[group]
        while times and times[0] <= now - 1.0:
            times.popleft()
        if len(times) >= RATES[group]:
            return False
        times.append(now)
        return True
