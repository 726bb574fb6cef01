"""Required properties of every resource in template.yaml. Permissions of roles are in test_permissions."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest
from botocore.session import Session

from local.template_file import read_template
from portaria.api import problems
from portaria.api.openapi import problems as openapi_problems
from portaria.api.operations import OPERATIONS
from portaria.aws import event_bus
from portaria.aws.table import INDEXES
from portaria.core import settings
from portaria.core.event_catalogue import CATALOGUE
from portaria.delivery import backlogs, record_release, retry_schedule
from portaria.platforms.marketo import data_ingestion_api
from tests.fakes.paths import ROOT
from tests.fakes.template.document import Function, as_list, functions, operations, resources, target, walk
from tests.fakes.template.translation import deploy

QUEUES = resources("AWS::SQS::Queue")
ALARMS = resources("AWS::CloudWatch::Alarm")
DEAD_LETTERS = {
    target(queue["Properties"]["RedrivePolicy"]["deadLetterTargetArn"])
    for queue in QUEUES.values()
    if "RedrivePolicy" in queue["Properties"]
}
# Queues of one kind of message.
SHARED_DEAD_LETTERS = {
    "BulkRecordsQueue": "RecordsDeadLetters",
    "UnprovenExchangesQueue": "ExchangesDeadLetters",
    "DeferredExchangesQueue": "ExchangesDeadLetters",
    "WebhookDeliveriesQueue": "WebhookEventsDeadLetters",
    "SlowWebhookDeliveriesQueue": "WebhookEventsDeadLetters",
}
# The API's functions share one alarm; a failing sweep matters only while arrivals are kept, which has an alarm of its own. The
# overview shows the age of its counts.
WATCHED_OTHERWISE = {
    "ManageFunction",
    "CallConnectionFunction",
    "RedeemTicketFunction",
    "SweepArrivalsFunction",
    "ConsoleFunction",
    "CountStatesFunction",
}
# Continues after the caller has left: a renewal that has begun must be completed.
OUTLASTS_ITS_CALLER = {"call_connection"}
# API Gateway answers the caller by itself after this many seconds.
API_TIMEOUT_S = 29
PUBLIC = {
    ("get", "/install/{platform}/{client}"),
    ("get", "/install/{platform}/{client}/start"),
    ("get", "/install/{platform}/{client}/claim"),
    ("post", "/install/{platform}/{client}/claim"),
    ("get", "/install/{platform}/{client}/result/{install}"),
    ("get", "/install/{platform}/{client}/logo/{version}"),
    ("get", "/uninstall/{platform}/{client}"),
    ("get", "/sso/{ticket}"),
    ("get", "/console"),
    ("get", "/console/{proxy+}"),
    ("post", "/console/{proxy+}"),
    ("post", "/events/{platform}/{connection}/{key}"),
    ("get", "/receipts/{platform}"),
    ("post", "/receipts/{platform}"),
    *(
        ("post", f"/subscriptions/{{subscription}}/{path}")
        for path in (
            "persons",
            "customobjects/{name}",
            "companies",
            "programmembers",
            "programmembers/delete",
            "lists",
            "lists/remove",
        )
    ),
}
# Paths and methods that do not exist. The function refuses them in the format of the platform's API.
UNKNOWN_FRONT_DOOR = {
    (method, path)
    for method in ("delete", "get", "head", "options", "patch", "post", "put")
    for path in ("/subscriptions/{subscription}", "/subscriptions/{subscription}/{proxy+}")
}
# Gateway responses after which the same request can succeed shortly afterwards.
TRY_AGAIN = {
    "THROTTLED", "QUOTA_EXCEEDED", "INTEGRATION_FAILURE", "AUTHORIZER_FAILURE", "AUTHORIZER_CONFIGURATION_ERROR", "DEFAULT_5XX",
}  # fmt: skip
# Types of API Gateway's features that this API does not use: authorizers, API keys, request validators, strict media types.
NEVER_ANSWERED = {
    "UNAUTHORIZED", "INVALID_API_KEY", "BAD_REQUEST_BODY", "BAD_REQUEST_PARAMETERS", "UNSUPPORTED_MEDIA_TYPE",
    "AUTHORIZER_FAILURE", "AUTHORIZER_CONFIGURATION_ERROR", "API_CONFIGURATION_ERROR",
}  # fmt: skip
# Where the API's description is served.
DESCRIPTIONS = {("get", "/v1/openapi.json"), ("get", "/v1/reference"), ("get", "/v1/health")}
# Each operation twice: for private integrations, whose token the function checks, and for AWS principals.
PROGRAMS = {(each.method.lower(), f"/v1{each.path}"): each.function for each in OPERATIONS}
ADMIN = {(each.method.lower(), f"/admin/v1{each.path}"): each.function for each in OPERATIONS}

each_function = pytest.mark.parametrize("function", functions(), ids=lambda function: function.name)
each_source_queue = pytest.mark.parametrize("name", sorted(set(QUEUES) - DEAD_LETTERS))
each_alarm = pytest.mark.parametrize("name", sorted(ALARMS))


def settings_class(function: Function) -> type[settings.Environment]:
    """The one class of portaria.core.settings that the function's handler imports."""
    (name,) = [
        alias.name
        for node in ast.walk(function.source)
        if isinstance(node, ast.ImportFrom) and node.module == "portaria.core.settings"
        for alias in node.names
    ]
    found: type[settings.Environment] = getattr(settings, name)
    return found


def test_template_has_one_function_per_folder() -> None:
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/handler.py")}
    assert {function.name for function in functions()} == folders
    assert len({function.name for function in functions()}) == len(functions())


@each_function
def test_function_environment_matches_its_settings(function: Function) -> None:
    read = {field.upper() for field in settings_class(function).__annotations__}
    # The others are for libraries.
    given = {name for name in function.environment if not name.startswith(("POWERTOOLS_", "PYDANTIC_"))}
    assert given == read


@each_function
def test_function_environment_values_refer_to_resources_of_right_kind(function: Function) -> None:
    kinds = {
        "_QUEUE_URL": "AWS::SQS::Queue",
        "_DEAD_LETTERS_URL": "AWS::SQS::Queue",
        "TABLE_NAME": "AWS::DynamoDB::Table",
        "BUS_NAME": "AWS::Events::EventBus",
        "SEALING_KEY_ID": "AWS::KMS::Key",
    }
    checked = 0
    for name, value in function.environment.items():
        for end, kind in kinds.items():
            if name.endswith(end):
                logical_id = target(value)
                assert read_template()["Resources"][logical_id]["Type"] == kind
                if end.endswith("_URL"):
                    assert logical_id.lower() in (
                        name.removesuffix("_URL").replace("_", "").lower(),
                        name.removesuffix("_QUEUE_URL").lower() + "queue",
                    )
                checked += 1
    assert checked >= 1


@each_function
def test_function_has_timeout_memory_tracing_and_log_group(function: Function) -> None:
    timeout_s = function.properties["Timeout"]
    answers_itself = function.methods and function.name not in OUTLASTS_ITS_CALLER
    assert 1 <= timeout_s <= (API_TIMEOUT_S if answers_itself else 900)
    assert 128 <= function.properties["MemorySize"] <= 3008
    assert function.setting("Tracing") == {"Fn::FindInMap": ["Traces", {"Ref": "Tracing"}, "Lambda"]}
    assert function.setting("Handler") == "handler.handler"
    # SAM adds a function's own layers to those of Globals. The install hook's function starts without the libraries.
    assert read_template()["Globals"]["Function"]["Layers"] == [{"Ref": "PortariaLayer"}]
    libraries = [] if function.name == "accept_install" else [{"Ref": "LibrariesLayer"}]
    assert function.properties.get("Layers", []) == libraries
    logging = function.properties["LoggingConfig"]
    group = read_template()["Resources"][target(logging["LogGroup"])]
    assert group["Type"] == "AWS::Logs::LogGroup"
    assert group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_functions_have_separate_log_groups() -> None:
    groups = [target(function.properties["LoggingConfig"]["LogGroup"]) for function in functions()]
    assert sorted([*groups, "ApiAccessLogs"]) == sorted(resources("AWS::Logs::LogGroup"))


@pytest.mark.parametrize(
    "function", [each for each in functions() if each.events_of("SQS")], ids=lambda function: function.name
)
def test_queue_consumer_reports_each_message_and_limits_concurrency(function: Function) -> None:
    for event in function.events_of("SQS"):
        assert event["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        for most in every_value(event["ScalingConfig"]["MaximumConcurrency"]):
            assert 2 <= most <= 100  # 2 is the least that Lambda allows


def every_value(value: Any) -> list[int]:
    """A number, or the result of `!FindInMap` for every value of the parameter that selects."""
    if not isinstance(value, dict):
        return [value]
    name, parameter, key = value["Fn::FindInMap"]
    chosen = read_template()["Mappings"][name]
    assert set(chosen) == set(read_template()["Parameters"][parameter["Ref"]]["AllowedValues"])
    return [row[key] for row in chosen.values()]


def test_functions_all_have_a_concurrency_bound() -> None:
    """A queue's maximum, a reservation, a schedule, or the API's throttling."""
    assert api()["MethodSettings"]
    for setting in api()["MethodSettings"]:
        throttle = setting["ThrottlingRateLimit"]["Fn::Select"][1]["Ref"]
        rate, burst = map(int, read_template()["Parameters"][throttle]["Default"].split(","))
        assert 0 < rate <= burst <= 1000
    for function in functions():
        kinds = {event["Type"] for event in function.events.values()} | ({"Api"} if function.methods else set())
        assert kinds in ({"SQS"}, {"Api"}, {"ScheduleV2"}), function.name


@each_source_queue
def test_source_queue_visibility_timeout_covers_six_function_timeouts(name: str) -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html: 6 x the time-out, and the batching window."""
    consumers = [
        (function.properties["Timeout"], event.get("MaximumBatchingWindowInSeconds", 0))
        for function in functions()
        for event in function.events_of("SQS")
        if target(event["Queue"]) == name
    ]
    assert len(consumers) == 1
    ((timeout_s, window_s),) = consumers
    assert QUEUES[name]["Properties"]["VisibilityTimeout"] >= 6 * timeout_s + window_s


def test_event_source_with_more_than_ten_messages_has_a_batching_window() -> None:
    """AWS refuses other values: tests/aws/recorded/lambda_sqs.py."""
    sources = [event for function in functions() for event in function.events_of("SQS")]
    assert sources
    for event in sources:
        assert event.get("BatchSize", 10) <= 10 or event.get("MaximumBatchingWindowInSeconds", 0) > 0


@each_source_queue
def test_source_queue_has_dead_letter_queue_with_long_retention(name: str) -> None:
    redrive = QUEUES[name]["Properties"]["RedrivePolicy"]
    assert 5 <= redrive["maxReceiveCount"] <= 1000
    dead_letters = target(redrive["deadLetterTargetArn"])
    assert dead_letters == SHARED_DEAD_LETTERS.get(name, name.removesuffix("Queue") + "DeadLetters")
    kept_s = QUEUES[dead_letters]["Properties"]["MessageRetentionPeriod"]
    assert kept_s == 1_209_600
    assert QUEUES[name]["Properties"]["MessageRetentionPeriod"] <= kept_s / 2


@pytest.mark.parametrize(
    ("minutes", "is_allowed"),
    [
        ("5,30,30", True), ("660", True), ("0,99,100,599,600,659,660", True), ("661", False), ("700", False), ("999", False),
        ("5,720", False), ("", False), ("5,", False), ("1,2,3,4,5,6,7,8,9,10", True), ("1,2,3,4,5,6,7,8,9,10,11", False),
    ],
)  # fmt: skip
def test_retry_after_minutes_parameter_accepts_waits_up_to_eleven_hours(minutes: str, is_allowed: bool) -> None:
    pattern = read_template()["Parameters"]["RetryAfterMinutes"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, minutes)) is is_allowed


def test_release_records_timeout_is_shorter_than_drain_lease() -> None:
    (function,) = [function for function in functions() if function.name == "release_records"]
    assert function.properties["Timeout"] < backlogs.LEASE_S
    assert function.properties["Timeout"] > record_release.RUN_S + record_release.LEAST_TIME_S


def test_messages_in_flight_stay_below_sqs_limit() -> None:
    """At 40 messages a batch and a batch a second, which `make bench` does not reach, with the longest visibility timeout."""
    workers = sum(max(every_value(event["ScalingConfig"]["MaximumConcurrency"])) for event in record_sources())
    a_second = workers * max(event["BatchSize"] for event in record_sources())
    assert a_second * retry_schedule.LONGEST_IN_QUEUE_S < 120_000


def record_sources() -> list[dict[str, Any]]:
    (function,) = [function for function in functions() if function.name == "ingest_records"]
    return function.events_of("SQS")


def test_queues_are_all_sources_or_dead_letter_queues() -> None:
    sources = {target(event["Queue"]) for function in functions() for event in function.events_of("SQS")}
    assert sources | DEAD_LETTERS == set(QUEUES)
    assert len(DEAD_LETTERS) + len(SHARED_DEAD_LETTERS) == len(sources - DEAD_LETTERS)


@pytest.mark.parametrize("name", sorted(QUEUES))
def test_queue_is_encrypted_and_keeps_messages_for_four_days(name: str) -> None:
    properties = QUEUES[name]["Properties"]
    assert properties["SqsManagedSseEnabled"] is True
    assert properties["MessageRetentionPeriod"] >= 345_600


def api() -> dict[str, Any]:
    (resource,) = resources("AWS::Serverless::Api").values()
    properties: dict[str, Any] = resource["Properties"]
    return properties


def test_api_operations_are_the_expected_ones() -> None:
    assert set(operations()) == PUBLIC | UNKNOWN_FRONT_DOOR | DESCRIPTIONS | set(PROGRAMS) | set(ADMIN)
    for method, path in set(operations()) - UNKNOWN_FRONT_DOOR:
        assert method in ("get", "head", "post", "put", "patch", "delete")
        assert "+}" not in path or path.endswith(("/connections/{name}/proxy/{path+}", "/console/{proxy+}"))


def test_api_returns_bodies_of_every_type() -> None:
    assert api()["BinaryMediaTypes"] == ["*/*"]


def test_api_operation_without_security_requires_aws_iam() -> None:
    # InvokeRole NONE: API Gateway calls the function by its resource policy, not with the caller's credentials.
    assert api()["Auth"] == {"DefaultAuthorizer": "AWS_IAM", "InvokeRole": "NONE"}
    open_to_all = {key for key, operation in operations().items() if "security" in operation}
    assert open_to_all == PUBLIC | UNKNOWN_FRONT_DOOR | DESCRIPTIONS | set(PROGRAMS)
    for key in open_to_all:
        assert operations()[key]["security"] == [{"NONE": []}]


def test_api_path_invokes_its_function() -> None:
    served = {key: function.name for function in functions() for key in function.methods}
    assert set(served) == set(operations())
    for method, path in PUBLIC | UNKNOWN_FRONT_DOOR:
        name = {
            "install": "accept_install",
            "uninstall": "accept_uninstall",
            "sso": "redeem_ticket",
            "console": "console",
            "events": "receive_events",
            "receipts": "track_receipts",
            "subscriptions": "accept_records",
        }[path.split("/")[1]]
        assert served[method, path] == name
    for key, name in {**PROGRAMS, **ADMIN, **dict.fromkeys(DESCRIPTIONS, "manage")}.items():
        assert served[key] == name, key


def gateway_responses() -> dict[str, Any]:
    """As CloudFormation receives them, in the API's OpenAPI body."""
    (rest_api,) = deploy("portaria").of("AWS::ApiGateway::RestApi").values()
    found: dict[str, Any] = rest_api["Body"]["x-amazon-apigateway-gateway-responses"]
    return found


def test_api_gateway_responses_exist_for_every_type_of_aws() -> None:
    model = Session().get_service_model("apigateway")
    assert set(gateway_responses()) == set(model.shape_for("GatewayResponseType").enum)


def test_api_gateway_responses_are_problem_documents() -> None:
    schema = openapi_problems.schema()
    for name, response in gateway_responses().items():
        document = json.loads(response["responseTemplates"]["application/json"])
        assert set(schema["required"]) <= set(document), name
        assert set(document) == {"type", "title", "status", "detail", "request_id", "error_code", "message"}, name
        assert str(response["statusCode"]) == str(document["status"]), name
        assert document["type"].startswith("urn:portaria:problem:")
        assert document["title"] == document["type"].rpartition(":")[2].replace("_", " ").capitalize()
        # A program for Adobe's API reads these two.
        assert data_ingestion_api.MESSAGES[document["error_code"]] == document["message"], name
        headers = {key.rpartition(".")[2]: value for key, value in response["responseParameters"].items()}
        assert headers["Content-Type"] == f"'{problems.CONTENT_TYPE}'", name
        assert (headers["X-Request-Id"], headers["X-Portaria-Error"]) == ("context.requestId", "'true'")
        assert headers["Cache-Control"] == "'no-store'"
        assert ("Retry-After" in headers) == (name in TRY_AGAIN), name
        assert re.fullmatch(r"'[1-9]\d?'", headers.get("Retry-After", "'1'"))
    assert set(gateway_responses()) >= TRY_AGAIN


def test_api_gateway_responses_have_statuses_of_their_class() -> None:
    """RFC 9110, 15: 4XX if the caller must change the request, 429 or 5XX if it may repeat it unchanged."""
    for name, response in gateway_responses().items():
        status = int(response["statusCode"])
        is_callers_fault = not name.startswith(("INTEGRATION", "API_CONFIGURATION", "AUTHORIZER", "DEFAULT_5XX"))
        assert (400 <= status < 500) == is_callers_fault, name
        if status == 429:
            assert name in TRY_AGAIN
    statuses = {name: int(response["statusCode"]) for name, response in gateway_responses().items()}
    assert statuses["MISSING_AUTHENTICATION_TOKEN"] == statuses["RESOURCE_NOT_FOUND"] == 404
    assert (statuses["REQUEST_TOO_LARGE"], statuses["UNSUPPORTED_MEDIA_TYPE"]) == (413, 415)
    assert (statuses["INTEGRATION_FAILURE"], statuses["INTEGRATION_TIMEOUT"]) == (502, 504)


def test_api_guide_lists_every_gateway_response() -> None:
    guide = (ROOT / "docs" / "api.md").read_text()
    told = guide.partition("\n## Refusals by API Gateway\n")[2].partition("\n## ")[0]
    rows = {
        (int(status), kind): retry != "no"
        for status, kind, retry in re.findall(r"^\| (\d{3}) \| `(\w+)` \|.*\| (no|yes)[^|]* \|$", told, re.MULTILINE)
    }
    expected = {
        (
            int(response["statusCode"]),
            json.loads(response["responseTemplates"]["application/json"])["type"].rpartition(":")[2],
        ): name in TRY_AGAIN
        for name, response in gateway_responses().items()
        if name not in NEVER_ANSWERED
    }
    assert rows == expected


def test_api_too_large_response_names_lambda_limit() -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: 6 MB for a synchronous invocation."""
    text = gateway_responses()["REQUEST_TOO_LARGE"]["responseTemplates"]["application/json"]
    assert "6 MB" in json.loads(text)["detail"]


def test_api_logs_contain_no_query_string() -> None:
    """The query contains the authorization code."""
    stage, *_ = api()["MethodSettings"]
    assert (stage["ResourcePath"], stage["HttpMethod"]) == ("/*", "*")
    for setting in api()["MethodSettings"]:
        assert setting["LoggingLevel"] == "OFF"
        assert setting["DataTraceEnabled"] is False
    condition, setting, otherwise = api()["AccessLogSetting"]["Fn::If"]
    assert (condition, otherwise) == ("LogsAccess", {"Ref": "AWS::NoValue"})
    assert read_template()["Parameters"]["AccessLogs"]["Default"] == "no"
    for secret in ("path", "querystring", "authorizer", "header", "requestOverride"):
        assert not re.search(rf"context\.{secret}\b", setting["Format"]), secret
    assert json.loads(re.sub(r"\$context\.[\w.]+", "0", setting["Format"]))
    assert "Cors" not in api()
    assert api()["EndpointConfiguration"] == {"Type": "REGIONAL"}
    # The Globals of an API would apply as well.
    assert set(read_template()["Globals"]) == {"Function"}


def test_sealing_key_is_retained_when_stack_is_deleted() -> None:
    """The table is kept too, and may contain grants that only this key opens."""
    (key,) = resources("AWS::KMS::Key").values()
    assert (key["DeletionPolicy"], key["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_table_is_retained_on_demand_encrypted_and_backed_up() -> None:
    (table,) = resources("AWS::DynamoDB::Table").values()
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")
    properties = table["Properties"]
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert properties["SSESpecification"]["SSEEnabled"] is True
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    declared = {attribute["AttributeName"] for attribute in properties["AttributeDefinitions"]}
    keys = [properties["KeySchema"], *(index["KeySchema"] for index in properties["GlobalSecondaryIndexes"])]
    assert declared == {key["AttributeName"] for schema in keys for key in schema}
    assert "TableName" not in properties  # a name would prevent a second stack and a replacement


def test_table_indexes_match_table_module() -> None:
    (table,) = resources("AWS::DynamoDB::Table").values()
    indexes = {
        index["IndexName"]: tuple(key["AttributeName"] for key in index["KeySchema"])
        for index in table["Properties"]["GlobalSecondaryIndexes"]
    }
    assert indexes == {name: keys for name, keys in INDEXES.items() if name}


@pytest.mark.parametrize("name", sorted(resources("AWS::KMS::Key")))
def test_kms_key_rotates(name: str) -> None:
    assert resources("AWS::KMS::Key")[name]["Properties"]["EnableKeyRotation"] is True


def test_queue_policy_allows_only_rules_of_the_bus() -> None:
    """Only the bus's one rule, and only to its targets."""
    assert resources("AWS::SQS::QueuePolicy")
    for name, policy in resources("AWS::SQS::QueuePolicy").items():
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Deny":
                continue
            assert statement["Principal"] == {"Service": "events.amazonaws.com"}, name
            assert statement["Action"] == "sqs:SendMessage"
            assert [target(statement["Resource"])] == [target(queue) for queue in policy["Properties"]["Queues"]]
            assert target(statement["Condition"]["ArnEquals"]["aws:SourceArn"]) in resources("AWS::Events::Rule")


def test_event_rule_may_send_to_its_targets_and_dead_letter_queues() -> None:
    allowed = {
        (target(statement["Condition"]["ArnEquals"]["aws:SourceArn"]), target(statement["Resource"]))
        for policy in resources("AWS::SQS::QueuePolicy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    }
    needed = set()
    for name, rule in resources("AWS::Events::Rule").items():
        for receiver in rule["Properties"]["Targets"]:
            needed |= {(name, target(receiver["Arn"])), (name, target(receiver["DeadLetterConfig"]["Arn"]))}
    assert needed
    assert allowed == needed


def test_event_rule_pattern_matches_emitted_events() -> None:
    assert resources("AWS::Events::Rule")
    for rule in resources("AWS::Events::Rule").values():
        pattern = rule["Properties"]["EventPattern"]
        assert pattern["source"] == [event_bus.SOURCE]
        assert set(pattern.get("detail-type", [])) <= set(CATALOGUE)


@each_alarm
def test_alarm_notifies_topic_and_has_description(name: str) -> None:
    properties = ALARMS[name]["Properties"]
    for actions in (properties["AlarmActions"], properties["OKActions"]):
        assert [target(action) for action in actions] == ["AlarmTopic"]
    assert len(properties["AlarmDescription"]) > 20
    assert properties["TreatMissingData"] == "notBreaching"
    assert properties.get("ActionsEnabled", True) is True


def test_alarm_topic_key_allows_cloudwatch() -> None:
    """Under the key that AWS manages for SNS it may not, and alarms would send nothing.

    https://repost.aws/knowledge-center/cloudwatch-configure-alarm-sns
    """
    topic = resources("AWS::SNS::Topic")["AlarmTopic"]
    key_id = topic.get("Properties", {}).get("KmsMasterKeyId")
    if key_id is None:
        return
    assert isinstance(key_id, dict), "the key that AWS manages shuts CloudWatch out"
    statements = resources("AWS::KMS::Key")[target(key_id)]["Properties"]["KeyPolicy"]["Statement"]
    granted = {
        action
        for statement in statements
        if statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        for action in as_list(statement["Action"])
    }
    assert {"kms:Decrypt", "kms:GenerateDataKey*"} <= granted


@each_alarm
def test_alarm_on_aws_metric_watches_existing_metric(name: str) -> None:
    """test_permissions compares the project's own metrics with those that the functions emit."""
    if "Metrics" in ALARMS[name]["Properties"]:
        of_functions = [each for each in ALARMS[name]["Properties"]["Metrics"] if "MetricStat" in each]
        assert len(of_functions) >= 2
        for each in of_functions:
            watched_metric(each["MetricStat"]["Metric"])
        return
    watched_metric(ALARMS[name]["Properties"])


def watched_metric(properties: dict[str, Any]) -> None:
    known = {
        "AWS/SQS": (
            {
                "ApproximateAgeOfOldestMessage",
                "ApproximateNumberOfMessagesVisible",
                "ApproximateNumberOfMessagesNotVisible",
                "NumberOfMessagesReceived",
            },
            "QueueName",
        ),
        "AWS/DynamoDB": ({"ReadThrottleEvents", "WriteThrottleEvents"}, "TableName"),
        "AWS/ApiGateway": ({"4XXError", "5XXError", "Latency"}, "ApiName"),
        "AWS/Lambda": ({"Errors", "Throttles", "Duration", "ConcurrentExecutions"}, "FunctionName"),
        "Portaria": ({properties["MetricName"]}, "service"),
    }
    metrics, dimension = known[properties["Namespace"]]
    assert properties["MetricName"] in metrics
    given, *more = properties["Dimensions"]
    assert given["Name"] == dimension
    further = {"ApiName": (["Stage"], ["Stage", "Method", "Resource"]), "TableName": ([], ["GlobalSecondaryIndexName"])}
    assert [each["Name"] for each in more] in further.get(dimension, ([],))
    if properties["Namespace"] == "AWS/SQS":
        assert given["Value"]["Fn::GetAtt"][1] == "QueueName"
        assert target(given["Value"]) in QUEUES
    if properties["Namespace"] == "AWS/Lambda":
        assert target(given["Value"]) in {function.logical_id for function in functions()}


def test_alarms_cover_every_queue_and_unqueued_function() -> None:
    """A queue's alarms also show failures of its consumer, and callers of `manage` see its failures."""
    watched = {
        target(dimension["Value"])
        for alarm in ALARMS.values()
        for metric in (
            alarm["Properties"],
            *(each["MetricStat"]["Metric"] for each in alarm["Properties"].get("Metrics", []) if "MetricStat" in each),
        )
        for dimension in metric.get("Dimensions", [])
        if isinstance(dimension["Value"], dict)
    }
    fed_by_no_queue = {function.logical_id for function in functions() if not function.events_of("SQS")}
    assert watched >= set(QUEUES) | fed_by_no_queue - WATCHED_OTHERWISE


def test_schedule_is_not_retried() -> None:
    scheduled = [event for function in functions() for event in function.events_of("ScheduleV2")]
    assert scheduled
    for event in scheduled:
        assert re.fullmatch(r"rate\((1 minute|\d+ minutes)\)", event["ScheduleExpression"])
        assert event["RetryPolicy"] == {"MaximumRetryAttempts": 0}


def test_template_references_resolve() -> None:
    document = read_template()
    # SAM makes an alias of each function, which `Function.Alias` refers to.
    aliases = {f"{function.logical_id}.Alias" for function in functions()}
    known = {*document["Resources"], *document["Parameters"], *aliases, "Api.Stage"}
    referred = {
        target(value)
        for value in walk([document["Resources"], document["Outputs"]])
        if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("Ref", "Fn::GetAtt")
    }
    assert {name for name in referred if not name.startswith("AWS::")} <= known


def test_template_parameters_are_all_used() -> None:
    document = read_template()
    used = {
        value["Ref"]
        for value in walk([document["Resources"], document["Globals"], document["Conditions"], document["Outputs"]])
        if isinstance(value, dict) and isinstance(value.get("Ref"), str)
    }
    assert set(document["Parameters"]) <= used
