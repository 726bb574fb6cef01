"""What the leak check reads on the local cloud: it finds a secret in every place."""

from __future__ import annotations

import json
import time
from collections import Counter

from local.stack import LOCAL
from tests.fakes.local_cloud import leaks
from tests.fakes.local_cloud.session import LocalCloud
from tests.leaks import Watch

# Not the canary of the session's own check, which also reads all this.
PLANTED = "planted-secret"


def test_stack_leak_check_finds_planted_secrets_in_every_place(stack: LocalCloud) -> None:
    """Given secrets in a log, a metric, the table, a queue, on the bus and in a process's log, then each is found once."""
    name, watch = f"planted-{time.time_ns()}", Watch(needles=(PLANTED,))
    key = {"pk": {"S": name}, "sk": {"S": "PLANTED"}}
    queue, group = stack.stack.queues["renewals_dead_letters"], stack.stack.log_groups["manage"]
    file = LOCAL / f"{name}.log"
    lines = [f"token {PLANTED}", json.dumps({"_aws": {"CloudWatchMetrics": []}, "connection": PLANTED})]
    try:
        with leaks.watching(stack.stack, leaks.sizes(), watch):
            stack.logs.create_log_stream(logGroupName=group, logStreamName=name)
            now_ms = int(time.time() * 1000)
            told = [{"timestamp": now_ms, "message": line} for line in lines]
            stack.logs.put_log_events(logGroupName=group, logStreamName=name, logEvents=told)
            stack.dynamodb.put_item(TableName=stack.stack.table, Item={**key, "note": {"S": PLANTED}})
            stack.sqs.send_message(QueueUrl=queue, MessageBody=json.dumps({"code": PLANTED}))
            entry = {
                "EventBusName": stack.stack.bus,
                "Source": "planted",
                "DetailType": "x",
                "Detail": f'{{"a":"{PLANTED}"}}',
            }
            stack.events.put_events(Entries=[entry])
            file.write_text(f"started with {PLANTED}\n")
    finally:
        file.unlink(missing_ok=True)
        stack.dynamodb.delete_item(TableName=stack.stack.table, Key=key)
        for message in stack.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            if PLANTED in message["Body"]:
                stack.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])

    kinds = ("events", "items", "log_lines", "messages", "metrics", "process_lines")
    assert Counter(leak.kind for leak in watch.found) == {f"stack_{kind}": 1 for kind in kinds}
