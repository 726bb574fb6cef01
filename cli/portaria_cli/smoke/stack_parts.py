"""Checks of the stack's parts that no call passes through: the alarm topic, dead letters, schedules, event sources, indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from portaria.aws.table import INDEXES
from portaria.overview.findings import FAIL, OK, SKIPPED, WARN, Finding, named
from portaria_cli.doctor import stack
from portaria_cli.doctor.deployment import Deployment
from portaria_cli.doctor.findings import NotThere
from portaria_cli.smoke.flows import Result
from portaria_cli.smoke.run import Failed, Run

WORST_FIRST = (FAIL, WARN, SKIPPED, OK)
DEPLOY_AGAIN = "deploy again: `make deploy`"
ALARM = "AWS::CloudWatch::Alarm"


def alarm_topic(run: Run) -> Result:
    """The topic answers, and every alarm is switched on and leads to it."""
    topic = run.deployment.physical("AlarmTopic")
    try:
        run.call("sns", "get_topic_attributes", TopicArn=topic)
    except NotThere:
        raise Failed(f"{topic} does not exist, so nobody receives alarms", DEPLOY_AGAIN) from None
    alarms = run.deployment.kinds(ALARM)
    physical = list(alarms.values())
    found = []
    for start in range(0, len(physical), 100):
        found += run.call("cloudwatch", "describe_alarms", AlarmNames=physical[start : start + 100], MaxRecords=100)[
            "MetricAlarms"
        ]
    missing = alarms.keys() - {logical_id for logical_id in alarms if alarms[logical_id] in _names(found)}
    if missing:
        raise Failed(f"{named(sorted(missing))} does not exist", DEPLOY_AGAIN)
    off = [alarm["AlarmName"] for alarm in found if not alarm.get("ActionsEnabled", True)]
    if off:
        raise Failed(
            f"the actions of {named(off)} are switched off",
            f"`aws cloudwatch enable-alarm-actions --alarm-names {off[0]}`",
        )
    silent = [alarm["AlarmName"] for alarm in found if topic not in alarm.get("AlarmActions", [])]
    if silent:
        raise Failed(f"{named(silent)} does not send to the topic", DEPLOY_AGAIN)
    subscriptions = run.call("sns", "list_subscriptions_by_topic", TopicArn=topic)["Subscriptions"]
    confirmed = [each for each in subscriptions if str(each["SubscriptionArn"]).startswith("arn:")]
    told = f"the topic answers and {len(found)} alarms send to it; {len(confirmed)} subscribers"
    return OK, told, "" if confirmed else "nobody receives alarms: deploy with AlarmEmail=you@example.com"


def indexes(run: Run) -> Result:
    """Each index is active and answers a query."""
    table = run.deployment.table
    described = run.call("dynamodb", "describe_table", TableName=table.name)["Table"]
    states = {
        each["IndexName"]: each.get("IndexStatus", "ACTIVE") for each in described.get("GlobalSecondaryIndexes", [])
    }
    wanted = [index for index in INDEXES if index]
    for index in wanted:
        if index not in states:
            raise Failed(f"the index {index} does not exist", DEPLOY_AGAIN)
        if states[index] != "ACTIVE":
            raise Failed(f"the index {index} is {states[index]}", "wait for the deployment to end, then run this again")
        with run.deployment.reading():
            table.query("SMOKE", index=index, limit=1)
    return OK, f"{named(wanted)} are active and answer", ""


def dead_letter_queues(run: Run) -> Result:
    return _summary(run.deployment, stack.queues)


def schedules(run: Run) -> Result:
    return _summary(run.deployment, stack.schedules)


def event_sources(run: Run) -> Result:
    return _summary(run.deployment, stack.sources)


def functions(run: Run) -> Result:
    """Each is active and none is switched off by a reservation of 0."""

    def both(deployment: Deployment) -> Iterator[Finding]:
        yield from stack.functions(deployment)
        yield from stack.concurrency(deployment)

    return _summary(run.deployment, both)


def _summary(deployment: Deployment, look: Callable[[Deployment], Iterator[Finding]]) -> Result:
    """What the doctor finds, as one result: the worst state, and what is told of it."""
    found = list(look(deployment))
    if not found:
        raise Failed("the stack has none", "is it Portaria's? give --stack-name; " + DEPLOY_AGAIN)
    state = next(state for state in WORST_FIRST if any(finding.state == state for finding in found))
    worst = [finding for finding in found if finding.state == state]
    advice = dict.fromkeys(finding.advice for finding in worst if finding.advice and state != OK)
    return state, "; ".join(finding.found for finding in worst), "; ".join(advice)


def _names(alarms: list[dict[str, object]]) -> set[object]:
    return {alarm["AlarmName"] for alarm in alarms}
