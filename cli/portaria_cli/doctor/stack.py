"""Checks of what the template deploys: functions and their roles, queues, the table, schedules, alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from portaria.overview.findings import FAIL, OK, SKIPPED, WARN, Finding, named, runbook
from portaria_cli.doctor.deployment import Deployment
from portaria_cli.doctor.findings import NotLooked, NotThere
from portaria_cli.errors import Document

ALIAS = "live"
FUNCTION, QUEUE = "AWS::Lambda::Function", "AWS::SQS::Queue"
# Functions whose caller does not wait, or does not come again.
RESERVABLE = ("AcceptInstallFunction", "ReceiveEventsFunction")
# A new account's limit, of which nothing can be reserved.
NEW_ACCOUNT_LIMIT = 10
# What of a function callers get by its alias.
OF_A_VERSION = ("CodeSha256", "Runtime", "Handler", "MemorySize", "Timeout", "Role")
DEAD_LETTERS_OF = "DeadLetters"
DEPLOY_AGAIN = "deploy again: `make deploy`"
# The age in seconds from which messages of a queue wait too long; the alarms have the same.
TOO_OLD_S = {
    "ExchangesQueue": 300, "UnprovenExchangesQueue": 120, "DeferredExchangesQueue": 1_800,
    "RecordsQueue": 3_600, "BulkRecordsQueue": 86_400, "BackfillsQueue": 3_600,
    "RenewalsQueue": 7_200, "UninstallsQueue": 21_600, "WaitingRecordsQueue": 1_800, "RecordsDeadLetters": 900,
    "WebhookEventsQueue": 900, "WebhookDeliveriesQueue": 900, "SlowWebhookDeliveriesQueue": 3_600,
}  # fmt: skip


def stack(deployment: Deployment) -> Iterator[Finding]:
    status, name = str(deployment.stack["StackStatus"]), "stack"
    told = f"{deployment.stack_name} is {status}"
    if status.endswith("_IN_PROGRESS"):
        yield Finding(name, WARN, told, "wait for the deployment to end, then run this again")
    elif status == "UPDATE_ROLLBACK_COMPLETE":
        advice = "`aws cloudformation describe-stack-events` shows why; correct it and deploy again"
        yield Finding(name, WARN, f"{told}: the last deployment was rolled back", advice)
    elif "ROLLBACK" in status or status.endswith("_FAILED"):
        yield Finding(name, FAIL, told, "`aws cloudformation describe-stack-events` shows why")
    else:
        yield Finding(name, OK, told)
    missing = [output for output in ("ApiUrl", "TableName", "BusName") if output not in deployment.outputs]
    if missing:
        yield Finding(
            name, FAIL, f"it has no output {named(missing)}", "give the name of Portaria's stack with --stack-name"
        )


def functions(deployment: Deployment) -> Iterator[Finding]:
    """Each is active, and callers get what was deployed last."""
    name = "functions"
    fine, runtimes = 0, set()
    for logical_id, function in deployment.kinds(FUNCTION).items():
        try:
            latest = deployment.call("lambda", "get_function_configuration", FunctionName=function)
            live = deployment.call("lambda", "get_function_configuration", FunctionName=function, Qualifier=ALIAS)
        except NotThere:
            yield Finding(name, FAIL, f"{logical_id} does not exist or has no alias {ALIAS}", DEPLOY_AGAIN)
            continue
        runtimes.add(live.get("Runtime", ""))
        trouble = list(_of_a_function(logical_id, latest, live))
        fine += not trouble
        yield from trouble
    if fine:
        yield Finding(name, OK, f"{fine} are active, on {named(sorted(runtimes))}")
    if len(runtimes) > 1:
        yield Finding(name, WARN, f"they have different runtimes: {named(sorted(runtimes))}", DEPLOY_AGAIN)


def _of_a_function(logical_id: str, latest: Document, live: Document) -> Iterator[Finding]:
    name = "functions"
    if (state := live.get("State", "Active")) not in ("Active", "Inactive"):
        advice = f"{live.get('StateReason') or 'there is no further reason'}; {DEPLOY_AGAIN}"
        yield Finding(name, WARN if state == "Pending" else FAIL, f"{logical_id} is {state}", advice)
    update = latest.get("LastUpdateStatus", "Successful")
    if update != "Successful":
        advice = f"{latest.get('LastUpdateStatusReason') or 'there is no further reason'}; {DEPLOY_AGAIN}"
        yield Finding(name, WARN if update == "InProgress" else FAIL, f"{logical_id}'s last update: {update}", advice)
    elif _as_called(latest) != _as_called(live):
        advice = f"{DEPLOY_AGAIN}; if a deployment is under way, wait for it"
        yield Finding(
            name, FAIL, f"{logical_id}: its alias has other code or settings than the last deployment", advice
        )


def _as_called(configuration: Document) -> Document:
    return {
        **{name: configuration.get(name) for name in OF_A_VERSION},
        "layers": [layer.get("Arn") for layer in configuration.get("Layers") or []],
        "environment": (configuration.get("Environment") or {}).get("Variables"),
        "subnets": sorted((configuration.get("VpcConfig") or {}).get("SubnetIds") or []),
    }


def roles(deployment: Deployment) -> Iterator[Finding]:
    """Each function runs with the role that the stack made for it, and the role has its policies."""
    name, fine = "roles", 0
    made = deployment.kinds("AWS::IAM::Role")
    for logical_id, function in deployment.kinds(FUNCTION).items():
        try:
            configuration = deployment.call("lambda", "get_function_configuration", FunctionName=function)
        except NotThere:
            continue
        role = configuration["Role"].rpartition("/")[2]
        if made.get(f"{logical_id}Role") != role:
            yield Finding(name, FAIL, f"{logical_id} runs with {role}, which is not its own role", DEPLOY_AGAIN)
            continue
        try:
            own = deployment.call("iam", "list_role_policies", RoleName=role)["PolicyNames"]
            attached = deployment.call("iam", "list_attached_role_policies", RoleName=role)["AttachedPolicies"]
        except NotThere:
            yield Finding(name, FAIL, f"the role of {logical_id} does not exist", DEPLOY_AGAIN)
            continue
        if not own or not any("AWSLambdaBasicExecutionRole" in policy["PolicyName"] for policy in attached):
            yield Finding(name, FAIL, f"policies are missing from the role of {logical_id}", DEPLOY_AGAIN)
            continue
        fine += 1
    if fine:
        yield Finding(name, OK, f"{fine} functions have their own roles, with policies")


def concurrency(deployment: Deployment) -> Iterator[Finding]:
    """Nothing is reserved away, and the account lets enough run."""
    name, kept = "concurrency", []
    for logical_id, function in deployment.kinds(FUNCTION).items():
        try:
            answer = deployment.call("lambda", "get_function_concurrency", FunctionName=function)
        except NotThere:
            continue
        reserved = answer.get("ReservedConcurrentExecutions")
        if reserved == 0:
            advice = (
                "it was switched off; to switch it on: `aws lambda delete-function-concurrency --function-name "
                f"{function}`"
            )
            yield Finding(name, FAIL, f"{logical_id} cannot run: its reserved concurrency is 0", advice)
        elif reserved:
            kept.append(f"{reserved} for {logical_id}")
    limits = deployment.call("lambda", "get_account_settings")["AccountLimit"]
    limit = int(limits.get("ConcurrentExecutions") or 0)
    if 0 < limit <= NEW_ACCOUNT_LIMIT:
        advice = "ask AWS for 1,000: Service Quotas, AWS Lambda, Concurrent executions; it costs nothing"
        yield Finding(name, WARN, f"this account runs at most {limit} functions at once", advice)
    elif not any(word in " ".join(kept) for word in RESERVABLE):
        told = f"{limit:,} can run at once in this account; none are reserved for hooks"
        yield Finding(name, OK, told, "in an account with other functions: AcceptReservedConcurrency=300")
    else:
        yield Finding(name, OK, f"{limit:,} can run at once in this account; reserved: {named(kept)}")


def sources(deployment: Deployment) -> Iterator[Finding]:
    """Lambda takes from every queue."""
    name, fine = "event sources", 0
    for logical_id, uuid in deployment.kinds("AWS::Lambda::EventSourceMapping").items():
        try:
            mapping = deployment.call("lambda", "get_event_source_mapping", UUID=uuid)
        except NotThere:
            yield Finding(name, FAIL, f"{logical_id} does not exist", DEPLOY_AGAIN)
            continue
        state, last = mapping.get("State", ""), str(mapping.get("LastProcessingResult") or "")
        if state in ("Disabled", "Disabling"):
            advice = f"`aws lambda update-event-source-mapping --uuid {uuid} --enabled`"
            yield Finding(name, FAIL, f"{logical_id} is {state.lower()}: its queue is not read", advice)
        elif state != "Enabled":
            yield Finding(name, WARN, f"{logical_id} is {state.lower()}", "wait a minute, then run this again")
        elif "PROBLEM" in last.upper():
            yield Finding(
                name, FAIL, f"{logical_id}: {last}", "its function's role must be allowed to receive from the queue"
            )
        else:
            fine += 1
    if fine:
        yield Finding(name, OK, f"{fine} queues are read")


def table(deployment: Deployment) -> Iterator[Finding]:
    name, table_name = "table", deployment.table.name
    try:
        described = deployment.call("dynamodb", "describe_table", TableName=table_name)["Table"]
    except NotThere:
        advice = "restore it: " + runbook("restoring-the-table")
        yield Finding(name, FAIL, f"{table_name} does not exist", advice)
        return
    states = {
        described["TableStatus"],
        *(index.get("IndexStatus", "ACTIVE") for index in described.get("GlobalSecondaryIndexes", [])),
    }
    if states == {"ACTIVE"}:
        yield Finding(name, OK, f"{table_name} and its indexes are active")
    else:
        bad = "it is being changed" if states & {"UPDATING", "CREATING"} else runbook("restoring-the-table")
        state = WARN if states <= {"ACTIVE", "UPDATING", "CREATING"} else FAIL
        yield Finding(name, state, f"{table_name} or an index is {named(sorted(states - {'ACTIVE'}))}", bad)
    yield from _setting(
        deployment,
        "expiry of items",
        lambda: deployment.call("dynamodb", "describe_time_to_live", TableName=table_name)["TimeToLiveDescription"],
        {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"},
        ("items expire", "items never expire: they cost more each month"),
        f"`aws dynamodb update-time-to-live --table-name {table_name} "
        "--time-to-live-specification Enabled=true,AttributeName=expires_at`",
    )
    yield from _setting(
        deployment,
        "backups",
        lambda: deployment.call("dynamodb", "describe_continuous_backups", TableName=table_name)[
            "ContinuousBackupsDescription"
        ]["PointInTimeRecoveryDescription"],
        {"PointInTimeRecoveryStatus": "ENABLED"},
        (
            "the table can be restored to any second of the last 35 days",
            "point-in-time recovery is off: a mistake cannot be undone",
        ),
        f"`aws dynamodb update-continuous-backups --table-name {table_name} "
        "--point-in-time-recovery-specification PointInTimeRecoveryEnabled=true`",
    )


def _setting(
    deployment: Deployment,
    name: str,
    look: Callable[[], Document],
    wanted: Document,
    sentences: tuple[str, str],
    advice: str,
) -> Iterator[Finding]:
    """One of the table's settings. `sentences` say that it is as the template wants it, and that it is not."""
    try:
        found = look()
    except NotLooked as reason:
        yield Finding(name, SKIPPED, str(reason))
        return
    if wanted.items() <= found.items():
        yield Finding(name, OK, sentences[0])
    elif deployment.local:
        yield Finding(name, SKIPPED, "not available on a local cloud")
    else:
        yield Finding(name, FAIL, sentences[1], advice)


def queues(deployment: Deployment) -> Iterator[Finding]:
    """Dead letters, how long messages wait, and that whatever fails goes to the queue's own dead letters."""
    name, fine = "queues", 0
    arns: dict[str, str] = {}
    found: dict[str, Document] = {}
    for logical_id, url in deployment.kinds(QUEUE).items():
        try:
            found[logical_id] = deployment.call("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["All"])[
                "Attributes"
            ]
        except NotThere:
            yield Finding(name, FAIL, f"{logical_id} does not exist", DEPLOY_AGAIN)
            continue
        arns[found[logical_id]["QueueArn"]] = logical_id
    for logical_id, attributes in found.items():
        trouble = []
        waiting = int(attributes.get("ApproximateNumberOfMessages", 0))
        if logical_id.endswith(DEAD_LETTERS_OF):
            if waiting:
                told = f"{waiting:,} messages are in {logical_id}"
                trouble.append(Finding(name, WARN, told, runbook(_section(logical_id))))
        elif not any(arn in attributes.get("RedrivePolicy", "") for arn in arns if arns[arn].endswith(DEAD_LETTERS_OF)):
            trouble.append(
                Finding(
                    name,
                    FAIL,
                    f"{logical_id} has no dead-letter queue: messages that fail are lost after some days",
                    DEPLOY_AGAIN,
                )
            )
        if waiting and logical_id in TOO_OLD_S:
            trouble += _age(deployment, logical_id, attributes["QueueArn"].rpartition(":")[2])
        fine += not trouble
        yield from trouble
    if fine:
        yield Finding(name, OK, f"{fine} are in order: no message waits too long, none is dead")


def _section(logical_id: str) -> str:
    """A runbook's anchor: `BackfillsDeadLetters` is `backfills-dead-letters`."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in logical_id).lstrip("-")


def _age(deployment: Deployment, logical_id: str, queue: str) -> list[Finding]:
    try:
        age_s = _oldest_s(deployment, queue)
    except NotLooked as reason:
        return [Finding("queues", SKIPPED, f"the age of messages in {logical_id}: {reason}")]
    if age_s is None or age_s < TOO_OLD_S[logical_id]:
        return []
    section = _section(logical_id.removesuffix("Queue")) + ("" if logical_id.endswith(DEAD_LETTERS_OF) else "-waiting")
    section = section.replace("exchanges-waiting", "codes-waiting")
    return [Finding("queues", FAIL, f"a message has waited for {_span(age_s)} in {logical_id}", runbook(section))]


def _oldest_s(deployment: Deployment, queue: str) -> float | None:
    """The age of a queue's oldest message in the last quarter of an hour, which is as old as CloudWatch's figures get."""
    now = datetime.now(UTC)
    points: list[dict[str, Any]] = deployment.call(
        "cloudwatch",
        "get_metric_statistics",
        Namespace="AWS/SQS",
        MetricName="ApproximateAgeOfOldestMessage",
        Dimensions=[{"Name": "QueueName", "Value": queue}],
        StartTime=now - timedelta(minutes=15),
        EndTime=now,
        Period=60,
        Statistics=["Maximum"],
    )["Datapoints"]
    last = max(points, key=lambda point: point["Timestamp"], default=None)
    return float(last["Maximum"]) if last else None


def _span(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def schedules(deployment: Deployment) -> Iterator[Finding]:
    """Schedules and rules are switched on."""
    name, fine = "schedules", 0
    for logical_id, schedule in deployment.kinds("AWS::Scheduler::Schedule").items():
        try:
            state = deployment.call("scheduler", "get_schedule", Name=schedule)["State"]
        except NotThere:
            yield Finding(name, FAIL, f"{logical_id} does not exist", DEPLOY_AGAIN)
            continue
        fine += state == "ENABLED"
        if state != "ENABLED":
            advice = f"enable {schedule} in EventBridge Scheduler's console; a deployment leaves it as it is"
            yield Finding(name, FAIL, f"{logical_id} is {state.lower()}", advice)
    for logical_id, rule in deployment.kinds("AWS::Events::Rule").items():
        bus, _, rule_name = rule.rpartition("|")
        bus = bus or deployment.outputs.get("BusName", "")
        try:
            state = deployment.call("events", "describe_rule", Name=rule_name, EventBusName=bus)["State"]
        except NotThere:
            yield Finding(name, FAIL, f"{logical_id} does not exist", DEPLOY_AGAIN)
            continue
        fine += state == "ENABLED"
        if state != "ENABLED":
            advice = f"`aws events enable-rule --name {rule_name} --event-bus-name {bus}`"
            yield Finding(name, FAIL, f"{logical_id} is {state.lower()}: new connections are not read", advice)
    if fine:
        yield Finding(name, OK, f"{fine} are enabled")


def alarms(deployment: Deployment) -> Iterator[Finding]:
    """None is on, and somebody hears of those that go off."""
    name = "alarms"
    names = list(deployment.kinds("AWS::CloudWatch::Alarm").values())
    on = []
    for start in range(0, len(names), 100):
        answer = deployment.call("cloudwatch", "describe_alarms", AlarmNames=names[start : start + 100], MaxRecords=100)
        on += [alarm for alarm in answer["MetricAlarms"] if alarm.get("StateValue") == "ALARM"]
    logical = {physical: logical_id for logical_id, physical in deployment.kinds("AWS::CloudWatch::Alarm").items()}
    for alarm in on:
        logical_id = logical[alarm["AlarmName"]]
        section = _section(logical_id.removesuffix("Alarm"))
        yield Finding(name, WARN, f"{logical_id} is on", runbook(section))
    if not on:
        yield Finding(name, OK, f"none of {len(names)} is on")
    topic = deployment.physical("AlarmTopic")
    try:
        subscriptions = deployment.call("sns", "list_subscriptions_by_topic", TopicArn=topic)["Subscriptions"]
    except NotLooked as reason:
        yield Finding("alarm mails", SKIPPED, str(reason))
        return
    confirmed = [each for each in subscriptions if str(each["SubscriptionArn"]).startswith("arn:")]
    if confirmed:
        yield Finding("alarm mails", OK, f"{len(confirmed)} receive alarms")
    elif subscriptions:
        yield Finding(
            "alarm mails", WARN, "no subscription is confirmed yet", "open the mail from AWS and follow its link"
        )
    else:
        yield Finding("alarm mails", WARN, "nobody receives alarms", "deploy with AlarmEmail=you@example.com")
