"""AWS's documented rules, each as a check of a resolved stack. A check yields a sentence for each violation."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.fakes.template.translation import NAMES, Properties, Stack

Check = Callable[[Stack], Iterator[str]]

DOCS = "https://docs.aws.amazon.com"
# What Lambda keeps for functions without a reservation, of an account's usual 1,000 concurrent executions.
ACCOUNT_CONCURRENCY, UNRESERVED = 1_000, 100
# API Gateway ends a request after this many seconds, unless the account has a higher quota.
INTEGRATION_TIMEOUT_S = 29


@dataclass(frozen=True)
class Rule:
    """`source` is the official page that states the rule."""

    name: str
    source: str
    check: Check


RULES: list[Rule] = []


def rule(source: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        RULES.append(Rule(check.__name__, source, check))
        return check

    return register


# -------------------------------------------------------------------------------------------------------- sizes and names


@rule(f"{DOCS}/lambda/latest/dg/gettingstarted-limits.html")
def function_resource_policy_has_at_most_10_kb(stack: Stack) -> Iterator[str]:
    """The limit is 20,480 bytes; half of it is kept free for statements that operators add."""
    policies: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, permission in stack.of("AWS::Lambda::Permission").items():
        statement: dict[str, Any] = {
            "Sid": f"{stack.name}-{name}-1ABCDEFGHIJKL",
            "Effect": "Allow",
            "Principal": {"Service": permission["Principal"]},
            "Action": permission["Action"],
            "Resource": permission["FunctionName"],
        }
        if permission["Principal"] == "*":
            statement["Principal"] = "*"
        if "SourceArn" in permission:
            statement["Condition"] = {"ArnLike": {"AWS:SourceArn": permission["SourceArn"]}}
        policies[permission["FunctionName"]].append(statement)
    for function, statements in policies.items():
        size = len(
            json.dumps({"Version": "2012-10-17", "Id": "default", "Statement": statements}, separators=(",", ":"))
        )
        if size > 10_240:
            yield f"the resource policy of {function} has {size} bytes"


@rule(f"{DOCS}/IAM/latest/UserGuide/reference_iam-quotas.html")
def role_policies_fit(stack: Stack) -> Iterator[str]:
    """Inline policies of a role have 10,240 characters together, white space not counted; a managed policy 6,144."""
    for name, role in stack.of("AWS::IAM::Role").items():
        size = sum(_characters(policy["PolicyDocument"]) for policy in role.get("Policies", []))
        if size > 10_240:
            yield f"the inline policies of {name} have {size} characters"
        if (managed := len(role.get("ManagedPolicyArns", []))) > 10:
            yield f"{name} has {managed} managed policies; 10 are allowed"
    for name, policy in stack.of("AWS::IAM::ManagedPolicy").items():
        if (size := _characters(policy["PolicyDocument"])) > 6_144:
            yield f"the managed policy {name} has {size} characters"


@rule(f"{DOCS}/IAM/latest/UserGuide/reference_iam-quotas.html")
def role_trust_policies_fit(stack: Stack) -> Iterator[str]:
    for name, role in stack.of("AWS::IAM::Role").items():
        if (size := _characters(role["AssumeRolePolicyDocument"])) > 2_048:
            yield f"the trust policy of {name} has {size} characters; 2,048 are allowed"


@rule(f"{DOCS}/AWSCloudFormation/latest/UserGuide/aws-properties-name.html")
def physical_names_contain_the_stack_name(stack: Stack) -> Iterator[str]:
    """Otherwise a second stack in the same account and region fails, or shares the resource."""
    for name, resource in stack.resources.items():
        for named in NAMES.get(resource["Type"], ()):
            value = resource.get("Properties", {}).get(named)
            if isinstance(value, str) and stack.name not in value:
                yield f"{named} of {name} is {value}"


@rule(f"{DOCS}/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html")
def template_is_within_the_limits_of_cloudformation(stack: Stack) -> Iterator[str]:
    limits = {"resources": (len(stack.resources), 500), "outputs": (len(stack.outputs), 200)}
    limits |= {"parameters": (len(stack.parameters), 200), "bytes": (stack.template_bytes, 1_000_000)}
    for what, (number, limit) in limits.items():
        if number > limit:
            yield f"the translated template has {number} {what}; {limit} are allowed"


# --------------------------------------------------------------------------------------------------------------- functions


@rule(f"{DOCS}/lambda/latest/dg/gettingstarted-limits.html")
def function_settings_are_within_the_limits_of_lambda(stack: Stack) -> Iterator[str]:
    for name, function in stack.of("AWS::Lambda::Function").items():
        variables = function["Environment"]["Variables"]
        if (size := sum(len(key) + len(str(value)) for key, value in variables.items())) > 4_096:
            yield f"the environment of {name} has {size} bytes; 4,096 are allowed"
        if len(function.get("Layers", [])) > 5:
            yield f"{name} has {len(function['Layers'])} layers; 5 are allowed"
        if not 1 <= function["Timeout"] <= 900:
            yield f"{name} has a timeout of {function['Timeout']} s"
        if not 128 <= function["MemorySize"] <= 10_240:
            yield f"{name} has {function['MemorySize']} MB"
    for name, version in stack.of("AWS::Lambda::Version").items():
        if len(version.get("Description", "")) > 256:
            yield f"the description of {name} has {len(version['Description'])} characters; 256 are allowed"


@rule(f"{DOCS}/lambda/latest/dg/configuration-concurrency.html")
def reserved_concurrency_leaves_room_for_other_functions(stack: Stack) -> Iterator[str]:
    reserved = sum(
        int(function.get("ReservedConcurrentExecutions", 0)) for function in stack.of("AWS::Lambda::Function").values()
    )
    if reserved > ACCOUNT_CONCURRENCY - UNRESERVED:
        yield f"{reserved} executions are reserved of {ACCOUNT_CONCURRENCY}; Lambda keeps {UNRESERVED}"


@rule(f"{DOCS}/lambda/latest/dg/configuration-concurrency.html")
def reserved_concurrency_covers_the_burst(stack: Stack) -> Iterator[str]:
    """A reservation is also a maximum: below the throttle's burst, Lambda refuses requests that API Gateway accepted.

    A function URL has no throttle: there the reservation is the limit, as many executions as the operator chooses.
    """
    bursts = {"AcceptInstallFunction": "InstallThrottle", "ReceiveEventsFunction": "EventsThrottle"}
    served = {function.rsplit(":", 1)[0] for function in _function_urls(stack)}
    for name, throttle in bursts.items():
        if any(f"-{name}-" in function for function in served):
            continue
        reserved = stack.of("AWS::Lambda::Function")[name].get("ReservedConcurrentExecutions")
        burst = int(stack.parameters[throttle].split(",")[1])
        if reserved is not None and int(reserved) < burst:
            yield f"{name} has {reserved} executions reserved, below the burst of {burst}"


def _function_urls(stack: Stack) -> dict[str, Properties]:
    """The function URLs by the ARN of their alias."""
    return {url["TargetFunctionArn"]: url for url in stack.of("AWS::Lambda::Url").values()}


@rule(f"{DOCS}/lambda/latest/dg/urls-auth.html")
def public_function_urls_have_both_permissions(stack: Stack) -> Iterator[str]:
    """Since October 2025 a new function URL needs `lambda:InvokeFunctionUrl` and `lambda:InvokeFunction`."""
    public = {
        ("lambda:InvokeFunctionUrl", "FunctionUrlAuthType", "NONE"),
        ("lambda:InvokeFunction", "InvokedViaFunctionUrl", True),
    }
    for function, url in _function_urls(stack).items():
        granted = {
            (permission["Action"], name, permission[name])
            for permission in stack.of("AWS::Lambda::Permission").values()
            for name in ("FunctionUrlAuthType", "InvokedViaFunctionUrl")
            if permission["FunctionName"] == function and permission["Principal"] == "*" and name in permission
        }
        if url["AuthType"] == "NONE" and granted != public:
            yield f"the function URL of {function} has the permissions {sorted(map(str, granted))}"


@rule(f"{DOCS}/lambda/latest/dg/urls-configuration.html")
def public_functions_have_reserved_concurrency(stack: Stack) -> Iterator[str]:
    """Reserved concurrency is the only limit of a function URL: ten calls a second for each execution."""
    for function in _function_urls(stack):
        name = function.split(":")[-2].removeprefix(f"{stack.name}-").rsplit("-", 1)[0]
        if not int(stack.of("AWS::Lambda::Function")[name].get("ReservedConcurrentExecutions", 0)):
            yield f"{name} has a function URL and no reserved concurrency"


@rule(f"{DOCS}/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html")
def log_level_of_lambda_lets_metrics_pass(stack: Stack) -> Iterator[str]:
    """A line without a level, such as a metric in the embedded metric format, counts as INFO."""
    for name, function in stack.of("AWS::Lambda::Function").items():
        logging = function["LoggingConfig"]
        if logging.get("LogFormat") == "JSON" and logging.get("ApplicationLogLevel", "INFO") not in (
            "INFO",
            "DEBUG",
            "TRACE",
        ):
            yield f"Lambda drops the metrics of {name} at {logging['ApplicationLogLevel']}"
        if stack.parameters["LogLevel"] == "DEBUG" and logging.get("ApplicationLogLevel") != "DEBUG":
            yield f"Lambda drops the debug lines of {name}"


@rule(f"{DOCS}/lambda/latest/dg/configuration-layers.html")
def layers_and_functions_have_one_architecture_and_runtime(stack: Stack) -> Iterator[str]:
    wanted = ([stack.parameters["Architecture"]], stack.parameters["PythonRuntime"])
    for name, function in stack.of("AWS::Lambda::Function").items():
        if (function["Architectures"], function["Runtime"]) != wanted:
            yield f"{name} runs on {function['Architectures']} with {function['Runtime']}"
    for name, layer in stack.of("AWS::Lambda::LayerVersion").items():
        if (layer["CompatibleArchitectures"], *layer["CompatibleRuntimes"]) != wanted:
            yield f"{name} is for {layer['CompatibleArchitectures']} and {layer['CompatibleRuntimes']}"


# ------------------------------------------------------------------------------------------------------------------ queues


@rule(f"{DOCS}/lambda/latest/dg/services-sqs-configure.html")
def queue_hides_messages_for_six_timeouts_of_its_function(stack: Stack) -> Iterator[str]:
    for queue, mapping, function in _sources(stack):
        least = 6 * function["Timeout"] + mapping.get("MaximumBatchingWindowInSeconds", 0)
        if (given := stack.of("AWS::SQS::Queue")[queue].get("VisibilityTimeout", 30)) < least:
            yield f"{queue} hides messages for {given} s; {least} s are needed"


@rule(f"{DOCS}/lambda/latest/api/API_CreateEventSourceMapping.html")
def event_sources_are_within_the_limits_of_lambda(stack: Stack) -> Iterator[str]:
    for queue, mapping, _ in _sources(stack):
        batch, window = mapping.get("BatchSize", 10), mapping.get("MaximumBatchingWindowInSeconds", 0)
        if batch > 10 and window < 1:
            yield f"the source of {queue} has batches of {batch} without a window"
        if not 1 <= batch <= 10_000 or not 0 <= window <= 300:
            yield f"the source of {queue} has batches of {batch} and a window of {window} s"
        if not 2 <= mapping.get("ScalingConfig", {}).get("MaximumConcurrency", 2) <= 1_000:
            yield f"the source of {queue} has a concurrency of {mapping['ScalingConfig']}"
        if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield f"the source of {queue} loses partial failures"


@rule(f"{DOCS}/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html")
def dead_letter_queue_keeps_messages_longer_than_its_sources(stack: Stack) -> Iterator[str]:
    """A message keeps the time of its first sending when it is moved to the dead-letter queue of a standard queue."""
    queues = stack.of("AWS::SQS::Queue")
    by_arn = {_arn("sqs", f"{stack.name}-{name}-1ABCDEFGHIJKL"): name for name in queues}
    for name, queue in queues.items():
        if "RedrivePolicy" not in queue:
            continue
        dead_letters = queues[by_arn[queue["RedrivePolicy"]["deadLetterTargetArn"]]]
        kept, moved = queue["MessageRetentionPeriod"], dead_letters["MessageRetentionPeriod"]
        if moved <= kept:
            yield f"{name} keeps messages for {kept} s, its dead-letter queue for {moved} s"


@rule(f"{DOCS}/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html")
def queue_attributes_are_within_the_limits_of_sqs(stack: Stack) -> Iterator[str]:
    limits = {
        "VisibilityTimeout": (0, 43_200), "MessageRetentionPeriod": (60, 1_209_600), "ReceiveMessageWaitTimeSeconds": (0, 20),
        "DelaySeconds": (0, 900),
    }  # fmt: skip
    for name, queue in stack.of("AWS::SQS::Queue").items():
        for attribute, (least, most) in limits.items():
            if attribute in queue and not least <= queue[attribute] <= most:
                yield f"{attribute} of {name} is {queue[attribute]}"
        if "RedrivePolicy" in queue and not 1 <= queue["RedrivePolicy"]["maxReceiveCount"] <= 1_000:
            yield f"maxReceiveCount of {name} is {queue['RedrivePolicy']['maxReceiveCount']}"


@rule(f"{DOCS}/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-security-best-practices.html")
def queues_and_topics_refuse_plain_http(stack: Stack) -> Iterator[str]:
    open_queues = {f"https://sqs.us-east-1.amazonaws.com/123456789012/{stack.name}-{name}-1ABCDEFGHIJKL": name
                   for name in stack.of("AWS::SQS::Queue")}  # fmt: skip
    for policy in stack.of("AWS::SQS::QueuePolicy").values():
        if _refuses_http(policy):
            for url in policy["Queues"]:
                open_queues.pop(url, None)
    yield from (f"{name} accepts requests without TLS" for name in open_queues.values())
    secured = {
        arn
        for policy in stack.of("AWS::SNS::TopicPolicy").values()
        if _refuses_http(policy)
        for arn in policy["Topics"]
    }
    for name in stack.of("AWS::SNS::Topic"):
        if _arn("sns", f"{stack.name}-{name}-1ABCDEFGHIJKL") not in secured:
            yield f"{name} accepts requests without TLS"


@rule(f"{DOCS}/AWSCloudFormation/latest/UserGuide/aws-resource-sqs-queuepolicy.html")
def queue_has_one_policy(stack: Stack) -> Iterator[str]:
    """A second AWS::SQS::QueuePolicy replaces the first one."""
    named = Counter(url for policy in stack.of("AWS::SQS::QueuePolicy").values() for url in policy["Queues"])
    yield from (f"{url} has {number} policies" for url, number in named.items() if number > 1)


# ----------------------------------------------------------------------------------------------------------------- alarms


@rule(f"{DOCS}/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html")
def alarms_are_within_the_limits_of_cloudwatch(stack: Stack) -> Iterator[str]:
    for name, alarm in stack.of("AWS::CloudWatch::Alarm").items():
        metrics = [each for each in alarm.get("Metrics", []) if "MetricStat" in each]
        if len(metrics) > 10:
            yield f"{name} combines {len(metrics)} metrics; 10 are allowed"
        periods = {each["MetricStat"]["Period"] for each in metrics} or {alarm["Period"]}
        for period in periods:
            if period not in (10, 20, 30) and period % 60:
                yield f"{name} has a period of {period} s"
            if period * alarm["EvaluationPeriods"] > 86_400:
                yield f"{name} looks back for more than a day"
        if len(alarm.get("AlarmDescription", "")) > 1_024:
            yield f"the description of {name} is too long"
        if sum(bool(each.get("ReturnData", True)) for each in alarm.get("Metrics", [])) != bool(alarm.get("Metrics")):
            yield f"{name} must return the data of one expression"


@rule(f"{DOCS}/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html")
def alarms_name_dimensions_that_the_metric_has(stack: Stack) -> Iterator[str]:
    """An alarm on a combination of dimensions without a metric stays in INSUFFICIENT_DATA."""
    names = {
        "AWS/SQS": [{"QueueName"}],
        "AWS/Lambda": [{"FunctionName"}, {"FunctionName", "Resource"}],
        "AWS/ApiGateway": [{"ApiName"}, {"ApiName", "Stage"}, {"ApiName", "Stage", "Method", "Resource"}],
        "AWS/DynamoDB": [{"TableName"}, {"TableName", "GlobalSecondaryIndexName"}],
        "Portaria": [{"service"}],
    }
    for name, metric in _alarm_metrics(stack):
        given = {dimension["Name"] for dimension in metric["Dimensions"]}
        if given not in names[metric["Namespace"]]:
            yield f"{name} watches {metric['MetricName']} by {sorted(given)}"


@rule(f"{DOCS}/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html")
def metrics_of_one_stack_are_not_those_of_another(stack: Stack) -> Iterator[str]:
    for name, function in stack.of("AWS::Lambda::Function").items():
        if function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] != stack.name:
            yield f"the metrics of {name} do not carry the stack's name"
    for name, metric in _alarm_metrics(stack):
        if metric["Namespace"] == "Portaria" and [each["Value"] for each in metric["Dimensions"]] != [stack.name]:
            yield f"{name} watches the metrics of {metric['Dimensions']}"
    for name, dashboard in stack.of("AWS::CloudWatch::Dashboard").items():
        for widget in json.loads(dashboard["DashboardBody"])["widgets"]:
            for namespace, _, *rest in widget["properties"]["metrics"]:
                if namespace == "Portaria" and rest[:2] != ["service", stack.name]:
                    yield f"{name} shows the metrics of {rest[:2]}"


@rule(f"{DOCS}/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html")
def alarms_say_when_they_begin_and_when_they_end(stack: Stack) -> Iterator[str]:
    topics = {_arn("sns", f"{stack.name}-{name}-1ABCDEFGHIJKL") for name in stack.of("AWS::SNS::Topic")}
    for name, alarm in stack.of("AWS::CloudWatch::Alarm").items():
        for actions in ("AlarmActions", "OKActions"):
            if not set(alarm.get(actions, [])) & topics:
                yield f"{name} has no {actions}"


@rule(f"{DOCS}/codedeploy/latest/userguide/limits.html")
def deployments_are_stopped_by_at_most_ten_alarms(stack: Stack) -> Iterator[str]:
    for name, group in stack.of("AWS::CodeDeploy::DeploymentGroup").items():
        if (alarms := len(group["AlarmConfiguration"]["Alarms"])) > 10:
            yield f"{name} watches {alarms} alarms"


# -------------------------------------------------------------------------------------------------------------------- API


@rule(f"{DOCS}/apigateway/latest/developerguide/limits.html")
def api_is_within_the_limits_of_api_gateway(stack: Stack) -> Iterator[str]:
    for name, api in stack.of("AWS::ApiGateway::RestApi").items():
        paths = {
            tuple(path.split("/")[: length + 1])
            for path in api["Body"]["paths"]
            for length in range(path.count("/") + 1)
        }
        if len(paths) > 300:
            yield f"{name} has {len(paths)} resources; 300 are allowed"
        if (size := len(json.dumps(api["Body"]))) > 6 * 1024 * 1024:
            yield f"the definition of {name} has {size} bytes"
        names = re.findall(r"\{([^}]+)}", " ".join(api["Body"]["paths"]))
        yield from (f"{name} has the path parameter {each}" for each in names if not re.fullmatch(r"[\w.:-]+\+?", each))


@rule(f"{DOCS}/apigateway/latest/developerguide/limits.html")
def functions_answer_before_api_gateway_gives_up(stack: Stack) -> Iterator[str]:
    """Only a function whose work outlives the request may take longer: call_connection completes renewals."""
    for name, function in stack.of("AWS::Lambda::Function").items():
        called = any(permission["FunctionName"].endswith(f"{name}-1ABCDEFGHIJKL:live")
                     for permission in stack.of("AWS::Lambda::Permission").values())  # fmt: skip
        if called and name != "CallConnectionFunction" and function["Timeout"] > INTEGRATION_TIMEOUT_S:
            yield f"{name} may run for {function['Timeout']} s"


@rule(f"{DOCS}/apigateway/latest/developerguide/permissions.html")
def administrators_are_authenticated_by_iam(stack: Stack) -> Iterator[str]:
    for api in stack.of("AWS::ApiGateway::RestApi").values():
        for path, methods in api["Body"]["paths"].items():
            for method, operation in methods.items():
                signed = operation.get("security") == [{"AWS_IAM": []}]
                if path.startswith("/admin/") != signed:
                    yield f"{method} {path} has the security {operation.get('security')}"


@rule(f"{DOCS}/apigateway/latest/developerguide/supported-gateway-response-types.html")
def api_gateways_refusals_are_problem_documents(stack: Stack) -> Iterator[str]:
    for api in stack.of("AWS::ApiGateway::RestApi").values():
        responses = api["Body"]["x-amazon-apigateway-gateway-responses"]
        for kind in ("DEFAULT_4XX", "DEFAULT_5XX", "ACCESS_DENIED", "EXPIRED_TOKEN", "INVALID_SIGNATURE", "THROTTLED"):
            if kind not in responses:
                yield f"{kind} has no response of its own"
        for kind, response in responses.items():
            document = json.loads(response["responseTemplates"]["application/json"])
            if not document["type"].startswith("urn:portaria:problem:") or "detail" not in document:
                yield f"{kind} is no problem document"
            if kind == "REQUEST_TOO_LARGE" and "6 MB" not in document["detail"]:
                yield "REQUEST_TOO_LARGE does not name the 6 MB that Lambda accepts"


@rule(f"{DOCS}/apigateway/latest/developerguide/api-gateway-metrics-and-dimensions.html")
def detailed_metrics_are_paid_for_one_method_only(stack: Stack) -> Iterator[str]:
    """Detailed metrics are custom metrics of each method; those of the stage cost nothing."""
    for name, stage in stack.of("AWS::ApiGateway::Stage").items():
        detailed = [each["ResourcePath"] for each in stage["MethodSettings"] if each.get("MetricsEnabled")]
        if detailed != ["/~1install~1{platform}~1{client}"]:
            yield f"{name} has detailed metrics of {detailed}"


@rule(f"{DOCS}/apigateway/latest/developerguide/set-up-logging.html")
def no_log_of_api_gateway_holds_a_query_string(stack: Stack) -> Iterator[str]:
    """Authorization codes are in the query string, and event keys are in the path."""
    for name, stage in stack.of("AWS::ApiGateway::Stage").items():
        for setting in stage["MethodSettings"]:
            if setting.get("LoggingLevel", "OFF") != "OFF" or setting.get("DataTraceEnabled"):
                yield f"{name} logs executions of {setting['ResourcePath']}"
        written = set(re.findall(r"\$context\.([\w.]+)", stage.get("AccessLogSetting", {}).get("Format", "")))
        harmless = {"requestId", "requestTimeEpoch", "httpMethod", "resourcePath", "status", "responseLatency",
                    "integrationStatus", "error.responseType", "identity.sourceIp"}  # fmt: skip
        yield from (f"the access log of {name} holds {each}" for each in sorted(written - harmless))


# ------------------------------------------------------------------------------------------------- storage and permissions


@rule(f"{DOCS}/amazondynamodb/latest/developerguide/specifying-conditions.html")
def roles_name_the_partition_keys_that_they_use(stack: Stack) -> Iterator[str]:
    """Otherwise a function that unauthenticated callers reach could write any item, such as a private integration."""
    for name, statement in _statements(stack):
        actions = [action for action in _list(statement["Action"]) if action.startswith("dynamodb:")]
        on_table = [arn for arn in _list(statement["Resource"]) if ":table/" in arn and "/index/" not in arn]
        if not actions or not on_table:
            continue
        keys = statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys")
        if not keys or "*" in keys:
            yield f"{statement['Sid']} of {name} does not name its partition keys"
        if set(actions) & {"dynamodb:Scan", "dynamodb:PartiQLSelect"}:
            yield f"{statement['Sid']} of {name} reads the whole table"


@rule(f"{DOCS}/kms/latest/developerguide/conditions-kms.html")
def roles_name_the_encryption_context_that_they_use(stack: Stack) -> Iterator[str]:
    for name, statement in _statements(stack):
        if any(action.startswith("kms:") for action in _list(statement["Action"])):
            keys = statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("kms:EncryptionContextKeys")
            if not keys:
                yield f"{statement['Sid']} of {name} does not name its encryption context"


@rule(f"{DOCS}/AWSCloudFormation/latest/UserGuide/aws-attribute-deletionpolicy.html")
def what_cannot_be_made_again_outlives_the_stack(stack: Stack) -> Iterator[str]:
    for name, resource in stack.resources.items():
        if resource["Type"] in ("AWS::DynamoDB::Table", "AWS::KMS::Key"):
            for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
                if resource.get(policy) != "Retain":
                    yield f"{policy} of {name} is {resource.get(policy)}"
    for name, table in stack.of("AWS::DynamoDB::Table").items():
        if not table.get("DeletionProtectionEnabled"):
            yield f"{name} can be deleted by one call"
        if not table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
            yield f"{name} has no backups"


@rule(f"{DOCS}/amazondynamodb/latest/developerguide/ServiceQuotas.html")
def table_is_within_the_limits_of_dynamodb(stack: Stack) -> Iterator[str]:
    for name, table in stack.of("AWS::DynamoDB::Table").items():
        if (indexes := len(table.get("GlobalSecondaryIndexes", []))) > 20:
            yield f"{name} has {indexes} indexes"


@rule(f"{DOCS}/IAM/latest/UserGuide/confused-deputy.html")
def services_act_for_this_account_only(stack: Stack) -> Iterator[str]:
    for name, role in stack.of("AWS::IAM::Role").items():
        for statement in role["AssumeRolePolicyDocument"]["Statement"]:
            services = _list(statement["Principal"].get("Service", []))
            if set(services) & {"scheduler.amazonaws.com", "events.amazonaws.com"} and "Condition" not in statement:
                yield f"any account's {services} may assume {name}"


def replaced_by_parameters(one: Stack, other: Stack) -> Iterator[str]:
    """Resources with data or an address that a change of parameters would replace or remove."""
    kept = {
        "AWS::DynamoDB::Table": ("TableName", "KeySchema"),
        "AWS::KMS::Key": ("KeySpec",),
        "AWS::SQS::Queue": ("QueueName", "FifoQueue"),
        "AWS::SNS::Topic": ("TopicName",),
        "AWS::Events::EventBus": ("Name",),
        "AWS::ApiGateway::RestApi": ("Name",),
        "AWS::Logs::LogGroup": ("LogGroupName",),
        "AWS::Lambda::Function": ("FunctionName", "PackageType"),
    }
    for kind, properties in kept.items():
        ones, others = one.of(kind), other.of(kind)
        yield from (
            f"{name} exists with some parameters only"
            for name in set(ones) ^ set(others)
            if kind != "AWS::Logs::LogGroup"
        )
        for name in set(ones) & set(others):
            for each in properties:
                if ones[name].get(each) != others[name].get(each):
                    yield f"{each} of {name} follows a parameter"


# ----------------------------------------------------------------------------------------------------------------- helpers


def _arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:us-east-1:123456789012:{name}"


def _characters(document: Any) -> int:
    return len(re.sub(r"\s", "", json.dumps(document)))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _sources(stack: Stack) -> Iterator[tuple[str, Properties, Properties]]:
    """Each queue that feeds a function, with the event source mapping and the function."""
    functions = stack.of("AWS::Lambda::Function")
    for mapping in stack.of("AWS::Lambda::EventSourceMapping").values():
        queue = (
            mapping["EventSourceArn"].rpartition(":")[2].removeprefix(f"{stack.name}-").removesuffix("-1ABCDEFGHIJKL")
        )
        function = re.search(rf"{stack.name}-(\w+)-1ABCDEFGHIJKL", mapping["FunctionName"])
        assert function
        yield queue, mapping, functions[function[1]]


def _refuses_http(policy: Properties) -> bool:
    return any(
        statement["Effect"] == "Deny"
        and statement["Principal"] == "*"
        and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        for statement in policy["PolicyDocument"]["Statement"]
    )


def _alarm_metrics(stack: Stack) -> Iterator[tuple[str, Properties]]:
    for name, alarm in stack.of("AWS::CloudWatch::Alarm").items():
        if "Metrics" not in alarm:
            yield name, alarm
        for each in alarm.get("Metrics", []):
            if "MetricStat" in each:
                yield name, each["MetricStat"]["Metric"]


def _statements(stack: Stack) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, role in stack.of("AWS::IAM::Role").items():
        for policy in role.get("Policies", []):
            for statement in _list(policy["PolicyDocument"]["Statement"]):
                yield name, statement
