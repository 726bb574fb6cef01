"""Ways to break the running local stack, each repaired at the end of its `with`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.fakes.local_cloud.session import LocalCloud

Breakage = Callable[[LocalCloud], AbstractContextManager[object]]


def physical(cloud: LocalCloud, logical_id: str) -> str:
    """The physical id of a resource of the stack."""
    stack = cloud.stack
    found = stack.client("cloudformation").describe_stack_resources(StackName=stack.stack_name)["StackResources"]
    return next(str(each["PhysicalResourceId"]) for each in found if each["LogicalResourceId"] == logical_id)


def denied(function: str, *actions: str) -> Breakage:
    """A function lacks permissions."""
    return lambda cloud: cloud.stack.outage(function, *actions)


@contextmanager
def environment(cloud: LocalCloud, function: str, **variables: str) -> Iterator[None]:
    """A version of a function with other settings serves its callers."""
    name, client = cloud.stack.functions[function], cloud.functions
    before = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    version = client.get_alias(FunctionName=name, Name="live")["FunctionVersion"]
    client.update_function_configuration(FunctionName=name, Environment={"Variables": before | variables})
    wrong = client.publish_version(FunctionName=name)["Version"]
    client.update_alias(FunctionName=name, Name="live", FunctionVersion=wrong)
    try:
        yield
    finally:
        client.update_alias(FunctionName=name, Name="live", FunctionVersion=version)
        client.update_function_configuration(FunctionName=name, Environment={"Variables": before})


@contextmanager
def wrong_queue(cloud: LocalCloud) -> Iterator[None]:
    """accept_records sends its records to the queue of backfills."""
    with environment(cloud, "accept_records", RECORDS_QUEUE_URL=cloud.stack.queues["backfills"]):
        yield


@contextmanager
def wrong_bus(cloud: LocalCloud) -> Iterator[None]:
    with environment(cloud, "exchange_code", BUS_NAME="nowhere"):
        yield


@contextmanager
def disabled_event_source(cloud: LocalCloud) -> Iterator[None]:
    """No function receives codes from their queue."""
    uuid = physical(cloud, "ExchangeCodeFunctionExchanges")
    cloud.functions.update_event_source_mapping(UUID=uuid, Enabled=False)
    try:
        yield
    finally:
        cloud.functions.update_event_source_mapping(UUID=uuid, Enabled=True)


@contextmanager
def throttled(cloud: LocalCloud) -> Iterator[None]:
    """The function that renews tokens cannot run, which no call of the API shows."""
    name = cloud.stack.functions["renew_tokens"]
    cloud.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        yield
    finally:
        cloud.functions.delete_function_concurrency(FunctionName=name)


@contextmanager
def deleted_schedule(cloud: LocalCloud) -> Iterator[None]:
    scheduler, name = cloud.stack.client("scheduler"), physical(cloud, "RenewalsSchedule")
    before = scheduler.get_schedule(Name=name)
    scheduler.delete_schedule(Name=name)
    try:
        yield
    finally:
        kept = ("Name", "Description", "ScheduleExpression", "FlexibleTimeWindow", "Target", "State")
        scheduler.create_schedule(**{field: before[field] for field in kept if field in before})


@contextmanager
def deleted_dead_letter_queue(cloud: LocalCloud) -> Iterator[None]:
    url = physical(cloud, "ExchangesDeadLetters")
    kept = ("MessageRetentionPeriod", "SqsManagedSseEnabled")
    before = cloud.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    cloud.sqs.delete_queue(QueueUrl=url)
    try:
        yield
    finally:
        attributes = {name: before[name] for name in kept if name in before}
        cloud.sqs.create_queue(QueueName=url.rpartition("/")[2], Attributes=attributes)


@contextmanager
def deleted_topic(cloud: LocalCloud) -> Iterator[None]:
    sns, topic = cloud.stack.client("sns"), physical(cloud, "AlarmTopic")
    sns.delete_topic(TopicArn=topic)
    try:
        yield
    finally:
        assert sns.create_topic(Name=topic.rpartition(":")[2])["TopicArn"] == topic


@contextmanager
def missing_route(cloud: LocalCloud) -> Iterator[None]:
    """The API has no install webhook."""
    gateway: Any = cloud.stack.client("apigateway")
    api = physical(cloud, "Api")
    resources = gateway.get_resources(restApiId=api, limit=500)["items"]
    resource = next(each["id"] for each in resources if each["path"] == "/install/{platform}/{client}")
    where = {"restApiId": api, "resourceId": resource, "httpMethod": "GET"}
    integration = gateway.get_integration(**where)
    gateway.delete_method(**where)
    try:
        yield
    finally:
        gateway.put_method(**where, authorizationType="NONE")
        gateway.put_integration(**where, type="AWS_PROXY", integrationHttpMethod="POST", uri=integration["uri"])


@contextmanager
def missing_index(cloud: LocalCloud) -> Iterator[None]:
    """The table lacks the index for renewals."""
    table = cloud.stack.table
    described = cloud.dynamodb.describe_table(TableName=table)["Table"]
    index = next(each for each in described["GlobalSecondaryIndexes"] if each["IndexName"] == "by_due")
    cloud.dynamodb.update_table(
        TableName=table, GlobalSecondaryIndexUpdates=[{"Delete": {"IndexName": index["IndexName"]}}]
    )
    try:
        yield
    finally:
        create = {name: index[name] for name in ("IndexName", "KeySchema", "Projection")}
        cloud.dynamodb.update_table(
            TableName=table,
            AttributeDefinitions=described["AttributeDefinitions"],
            GlobalSecondaryIndexUpdates=[{"Create": create}],
        )
