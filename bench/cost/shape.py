"""What of template.yaml costs money: memory, batches, queues, alarms, schedules; and the prices of each resource type."""

from __future__ import annotations

from typing import NamedTuple

from bench.cost.bill import SECONDS_A_MONTH
from local.template_file import read_template

# Prices that a resource of a type appears under; none where AWS charges nothing for it.
RESOURCE_PRICES: dict[str, tuple[str, ...]] = {
    "AWS::ApiGateway::BasePathMapping": (),
    "AWS::ApiGateway::DomainName": (),
    "AWS::CloudWatch::Alarm": ("alarm_month", "email"),
    "AWS::CloudWatch::Dashboard": ("dashboard_month",),
    "AWS::DynamoDB::Table": (
        "dynamodb_write",
        "dynamodb_read",
        "dynamodb_gb_month",
        "backup_gb_month",
    ),
    "AWS::Events::EventBus": ("event",),
    "AWS::Events::Rule": (),
    "AWS::IAM::ManagedPolicy": (),
    "AWS::IAM::Role": (),
    "AWS::KMS::Key": ("key_month", "key_call"),
    "AWS::Lambda::Permission": (),
    "AWS::Lambda::Url": (),
    "AWS::Logs::LogGroup": ("log_gb", "log_stored_gb"),
    "AWS::Route53::RecordSet": ("hosted_zone_month",),
    "AWS::SNS::Subscription": ("email",),
    "AWS::SNS::Topic": ("email",),
    "AWS::SNS::TopicPolicy": (),
    "AWS::SQS::Queue": ("sqs_request", "sqs_group"),
    "AWS::SQS::QueuePolicy": (),
    "AWS::Scheduler::Schedule": ("schedule",),
    "AWS::Serverless::Api": ("api_call", "api_metric_month", "out_gb"),
    "AWS::Serverless::Function": ("lambda_request", "lambda_gb_s", "trace", "metric_month", "out_gb", "secret_call"),
    "AWS::Serverless::LayerVersion": ("artifact_gb_month",),
    "AWS::WAFv2::WebACL": ("web_acl_month",),
    "AWS::WAFv2::WebACLAssociation": (),
}
# Resources that exist only with a parameter that is off by default: docs/cost.md lists them as optional parts.
OPTIONAL_PRICES = ("web_acl_month", "hosted_zone_month")
# Secrets are created by the functions and not by the template.
CREATED_PRICES = ("secret_month", "cloudwatch_request")


class Shape(NamedTuple):
    """`alarm_metrics` and `dashboards` count what a stack with default parameters has. Intervals are in minutes."""

    memory_gb: dict[str, float]
    batch: int
    queues: int
    alarm_metrics: int
    dashboards: int
    runs_a_month: float
    reconcile_every: float
    reconcile_idle_every: float


def read_shape() -> Shape:
    document = read_template()
    resources, parameters = document["Resources"], document["Parameters"]
    functions = {
        name: each["Properties"] for name, each in resources.items() if each["Type"] == "AWS::Serverless::Function"
    }
    sources = [source for each in functions.values() for source in each.get("Events", {}).values()]
    batches = [source["Properties"]["BatchSize"] for source in functions["IngestRecordsFunction"]["Events"].values()]
    schedules = [source["Properties"]["ScheduleExpression"] for source in sources if source["Type"] == "ScheduleV2"]
    schedules += [
        each["Properties"]["ScheduleExpression"]
        for each in resources.values()
        if each["Type"] == "AWS::Scheduler::Schedule"
    ]
    every = float(parameters["ReconcileEvery"]["Default"])
    idle_every = float(parameters.get("ReconcileIdleEvery", {"Default": every})["Default"])
    return Shape(
        memory_gb={name: each["MemorySize"] / 1024 for name, each in functions.items()},
        batch=min(batches),
        queues=sum(source["Type"] == "SQS" for source in sources),
        alarm_metrics=sum(
            len([one for one in each["Properties"].get("Metrics", []) if "MetricStat" in one]) or 1
            for each in resources.values()
            if each["Type"] == "AWS::CloudWatch::Alarm" and each.get("Condition") in (None, "CombinesAlarms")
        ),
        dashboards=sum(each["Type"] == "AWS::CloudWatch::Dashboard" for each in resources.values()),
        runs_a_month=sum(SECONDS_A_MONTH / _seconds(expression) for expression in schedules),
        reconcile_every=every,
        reconcile_idle_every=idle_every,
    )


def _seconds(expression: str) -> float:
    count, unit = expression.removeprefix("rate(").removesuffix(")").split()
    return int(count) * {"minute": 60, "hour": 3_600, "day": 86_400}[unit.removesuffix("s")]
