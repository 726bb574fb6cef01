"""What a session of tests leaves on the local cloud, read for secrets: see `tests/leaks.py`.

Read are the functions' logs (metrics among them, in CloudWatch's embedded format), the table, every queue with its dead
letters, every event that the bus took meanwhile, and the logs of the local cloud's own processes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.stack import LOCAL, Stack
from tests import leaks
from tests.leaks import WATCH, Watch

# Longer than a queue needs to be read, and too short to be noticed.
HIDDEN_S = 30


@contextmanager
def watching(stack: Stack, logs: dict[Path, int], watch: Watch = WATCH) -> Iterator[None]:
    """Read everything at the end; of the log files only what follows their sizes in `logs`."""
    started_ms = int(time.time() * 1000)
    with _ear(stack) as ear:
        yield
        for body in _messages(stack, ear):
            watch.look("stack_events", body, "the bus")
        read_logs(stack, started_ms, watch)
        read_table(stack, watch)
        for name, url in stack.queues.items():
            for body in _messages(stack, url):
                watch.look("stack_messages", leaks.text_of_message(body, name), f"the queue {name}")
        read_files(logs, watch)


def sizes() -> dict[Path, int]:
    """The sizes of the local cloud's logs."""
    return {file: file.stat().st_size for file in LOCAL.glob("*.log")}


def read_logs(stack: Stack, since_ms: int, watch: Watch) -> None:
    client = stack.client("logs")
    for function, group in stack.log_groups.items():
        for page in client.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=since_ms):
            for event in page["events"]:
                kind = "stack_metrics" if '"CloudWatchMetrics"' in event["message"] else "stack_log_lines"
                watch.look(kind, event["message"], f"the log of {function}")


def read_table(stack: Stack, watch: Watch) -> None:
    for page in stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.table):
        for item in page["Items"]:
            watch.look("stack_items", leaks.text_of_item(item), f"the item {item['pk']['S'].partition('#')[0]}")


def read_files(before: dict[Path, int], watch: Watch) -> None:
    for file, size in sizes().items():
        with file.open(errors="replace") as lines:
            # A restarted process has begun a new log.
            lines.seek(before.get(file, 0) if before.get(file, 0) <= size else 0)
            for line in lines:
                watch.look("stack_process_lines", line, file.name)


def _messages(stack: Stack, url: str) -> Iterator[str]:
    """The bodies of all messages that can be received now. They stay in the queue."""
    sqs = stack.client("sqs")
    received: list[dict[str, Any]] = []
    # Without waiting: the queues' own setting would take 20 seconds for each.
    ask = {"QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": HIDDEN_S, "WaitTimeSeconds": 0}
    while found := sqs.receive_message(**ask).get("Messages"):
        received += found
    for message in received:
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
        yield message["Body"]


@contextmanager
def _ear(stack: Stack) -> Iterator[str]:
    """A queue that receives every event of the bus."""
    sqs, events = stack.client("sqs"), stack.client("events")
    name = f"leak-check-{time.time_ns()}"
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name=name, EventBusName=stack.bus, EventPattern='{"source": [{"prefix": ""}]}')
    events.put_targets(Rule=name, EventBusName=stack.bus, Targets=[{"Id": name, "Arn": arn}])
    try:
        yield url
    finally:
        events.remove_targets(Rule=name, EventBusName=stack.bus, Ids=[name])
        events.delete_rule(Name=name, EventBusName=stack.bus)
        sqs.delete_queue(QueueUrl=url)
