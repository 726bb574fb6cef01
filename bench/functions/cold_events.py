"""From starting a fresh interpreter to the answer to a platform's event, against a plain boto3 function.

Both are compiled alike, talk to the same stub over TLS and read the authorities that they read in production, plus the stub's.
receive_events does its whole path: it reads the connection's address from DynamoDB, checks the key, reads the form and sends
the record to SQS. The plain sample only sends what it was given.
"""

from __future__ import annotations

import json
import statistics
import sys

from bench.functions import aws_stub, interpreters
from bench.functions.interpreters import Run, Side
from bench.report import BUILD, ROOT, conclude, console, row, table
from portaria.webhooks import event_receiver

PAIRS = 15
LIMITS = {"ratio": 0.35, "memory_ratio": 0.6}
EVENT = ROOT / "events" / "receive_events" / "kommo_contact_updated.json"


def answer(target: str, body: bytes) -> bytes:
    """The stub's: the address that the event comes to, and what SQS says."""
    if target != "DynamoDB_20120810.GetItem":
        return aws_stub.answer(target, body)
    event = json.loads(EVENT.read_text())
    keys = [{"S": event_receiver.Key(event_receiver.digest(event["pathParameters"]["key"])).text()}]
    item = {"platform": {"S": "kommo"}, "account_id": {"S": "32427762"}, "keys": {"L": keys}}
    return json.dumps({"Item": item}).encode()


def measure() -> bool:
    ours, plain = interpreters.prepare_events()
    with interpreters.aws("bench.functions.cold_events") as environment:

        def run(side: Side) -> Run:
            return interpreters.run(side, environment, event=EVENT)

        with console.status(f"{PAIRS} pairs of fresh interpreters ..."):
            # The first of a pair changes; a pair before them warms the disk cache.
            pairs = []
            for number in range(PAIRS + 1):
                order = (ours, plain) if number % 2 else (plain, ours)
                runs = {side: run(side) for side in order}
                pairs.append((runs[ours], runs[plain]))
            pairs = pairs[1:]

    shown = table("Cold event", "ms")
    row(shown, "receive_events", [one.answer_ms for one, _ in pairs])
    row(shown, "plain boto3 sample", [other.answer_ms for _, other in pairs])
    console.print(shown)
    shown = table("Peak memory", "MB")
    row(shown, "receive_events", [one.peak_mb for one, _ in pairs], 1)
    row(shown, "plain boto3 sample", [other.peak_mb for _, other in pairs], 1)
    console.print(shown)
    ratios = {
        "ratio": [one.answer_ms / other.answer_ms for one, other in pairs],
        "memory_ratio": [one.peak_mb / other.peak_mb for one, other in pairs],
    }
    shown = table("Ratios of a pair", "receive_events to the plain sample")
    for name, values in ratios.items():
        row(shown, name, values, 2)
    console.print(shown)
    return conclude("cold_events", {name: statistics.median(values) for name, values in ratios.items()}, LIMITS)


if __name__ == "__main__" and sys.argv[1:]:
    aws_stub.main(BUILD, answer)
