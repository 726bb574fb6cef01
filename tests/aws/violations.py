"""Planted violations: one change of the translated template for each rule, which that rule must find."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Template = dict[str, Any]
Plant = Callable[[Template], None]

PLANTED: list[tuple[str, str, Plant]] = []


def violates(rule: str) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        PLANTED.append((plant.__name__, rule, plant))
        return plant

    return register


def planted(template: Template, plant: Plant) -> Template:
    changed = copy.deepcopy(template)
    plant(changed)
    return changed


def properties(template: Template, logical_id: str) -> dict[str, Any]:
    found: dict[str, Any] = template["Resources"][logical_id]["Properties"]
    return found


def first(template: Template, kind: str) -> dict[str, Any]:
    return next(one["Properties"] for one in template["Resources"].values() if one["Type"] == kind)


@violates("function_resource_policy_has_at_most_10_kb")
def a_permission_for_each_method(template: Template) -> None:
    permission = template["Resources"]["ManagePermission"]
    for number in range(78):
        template["Resources"][f"ManageFunctionListOauthClients{number}Permission"] = permission


@violates("role_policies_fit")
def a_role_with_a_statement_for_each_item(template: Template) -> None:
    policy = properties(template, "ManageFunctionRole")["Policies"][0]["PolicyDocument"]
    policy["Statement"] = policy["Statement"] * 8


@violates("role_trust_policies_fit")
def a_role_that_a_hundred_services_assume(template: Template) -> None:
    statement = properties(template, "ManageFunctionRole")["AssumeRolePolicyDocument"]["Statement"][0]
    statement["Principal"] = {"Service": [f"service-{number}.amazonaws.com" for number in range(100)]}


@violates("physical_names_contain_the_stack_name")
def a_schedule_named_after_its_function(template: Template) -> None:
    properties(template, "RenewalsSchedule")["Name"] = "SweepArrivalsFunctionEveryMinute"


@violates("physical_names_contain_the_stack_name")
def a_layer_named_after_its_logical_id(template: Template) -> None:
    first(template, "AWS::Lambda::LayerVersion")["LayerName"] = "PortariaLayer"


@violates("template_is_within_the_limits_of_cloudformation")
def five_hundred_more_resources(template: Template) -> None:
    for number in range(500):
        template["Resources"][f"Spare{number}"] = {"Type": "AWS::SNS::Topic"}


@violates("function_settings_are_within_the_limits_of_lambda")
def an_environment_of_five_kilobytes(template: Template) -> None:
    properties(template, "ManageFunction")["Environment"]["Variables"]["CATALOGUE"] = "x" * 5_000


@violates("function_settings_are_within_the_limits_of_lambda")
def a_function_of_twenty_minutes(template: Template) -> None:
    properties(template, "BackfillRecordsFunction")["Timeout"] = 1_200


@violates("reserved_concurrency_leaves_room_for_other_functions")
def a_reservation_of_the_whole_account(template: Template) -> None:
    properties(template, "AcceptInstallFunction")["ReservedConcurrentExecutions"] = 950


@violates("reserved_concurrency_covers_the_burst")
def a_reservation_below_the_burst(template: Template) -> None:
    properties(template, "AcceptInstallFunction")["ReservedConcurrentExecutions"] = 20


@violates("log_level_of_lambda_lets_metrics_pass")
def a_level_that_drops_metrics(template: Template) -> None:
    properties(template, "IngestRecordsFunction")["LoggingConfig"]["ApplicationLogLevel"] = "WARN"


@violates("layers_and_functions_have_one_architecture_and_runtime")
def a_layer_of_another_processor(template: Template) -> None:
    first(template, "AWS::Lambda::LayerVersion")["CompatibleArchitectures"] = ["arm64"]


@violates("queue_hides_messages_for_six_timeouts_of_its_function")
def a_visibility_of_two_minutes(template: Template) -> None:
    properties(template, "RecordsQueue")["VisibilityTimeout"] = 120


@violates("event_sources_are_within_the_limits_of_lambda")
def a_batch_of_forty_without_a_window(template: Template) -> None:
    source = properties(template, "IngestRecordsFunctionRecords")
    source["MaximumBatchingWindowInSeconds"] = 0


@violates("event_sources_are_within_the_limits_of_lambda")
def a_source_that_loses_partial_failures(template: Template) -> None:
    properties(template, "RenewTokensFunctionRenewals").pop("FunctionResponseTypes")


@violates("dead_letter_queue_keeps_messages_longer_than_its_sources")
def dead_letters_that_expire_on_arrival(template: Template) -> None:
    properties(template, "RecordsDeadLetters")["MessageRetentionPeriod"] = 604_800


@violates("queue_attributes_are_within_the_limits_of_sqs")
def a_retention_of_a_month(template: Template) -> None:
    properties(template, "RecordsDeadLetters")["MessageRetentionPeriod"] = 2_592_000


@violates("queues_and_topics_refuse_plain_http")
def a_queue_without_a_policy(template: Template) -> None:
    del template["Resources"]["RecordsQueuePolicy"]


@violates("queues_and_topics_refuse_plain_http")
def a_topic_that_accepts_http(template: Template) -> None:
    properties(template, "AlarmTopicPolicy")["PolicyDocument"]["Statement"].pop()


@violates("queue_has_one_policy")
def a_second_policy_of_a_queue(template: Template) -> None:
    template["Resources"]["SecondPolicy"] = template["Resources"]["RecordsQueuePolicy"]


@violates("alarms_are_within_the_limits_of_cloudwatch")
def an_alarm_on_twelve_metrics(template: Template) -> None:
    metrics = properties(template, "SourcesStoppedAlarm")["Metrics"]
    metrics += [{**metrics[-1], "Id": f"more{number}"} for number in range(2)]


@violates("alarms_are_within_the_limits_of_cloudwatch")
def an_alarm_that_looks_back_for_two_days(template: Template) -> None:
    properties(template, "DaysToDeathAlarm")["EvaluationPeriods"] = 48


@violates("alarms_name_dimensions_that_the_metric_has")
def an_alarm_by_function_and_alias(template: Template) -> None:
    properties(template, "AcceptInstallErrorsAlarm")["Dimensions"].append({"Name": "Alias", "Value": "live"})


@violates("metrics_of_one_stack_are_not_those_of_another")
def an_alarm_on_the_metrics_of_all_stacks(template: Template) -> None:
    properties(template, "InstallsFailedAlarm")["Dimensions"] = [{"Name": "service", "Value": "portaria"}]


@violates("metrics_of_one_stack_are_not_those_of_another")
def functions_that_share_their_metrics(template: Template) -> None:
    properties(template, "ExchangeCodeFunction")["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] = "portaria"


@violates("alarms_say_when_they_begin_and_when_they_end")
def an_alarm_that_never_says_it_is_over(template: Template) -> None:
    del properties(template, "DeadLettersAlarm")["OKActions"]


@violates("deployments_are_stopped_by_at_most_ten_alarms")
def a_deployment_with_twelve_alarms(template: Template) -> None:
    group = first(template, "AWS::CodeDeploy::DeploymentGroup")
    group["AlarmConfiguration"]["Alarms"] *= 2


@violates("api_is_within_the_limits_of_api_gateway")
def an_api_of_four_hundred_resources(template: Template) -> None:
    paths = first(template, "AWS::ApiGateway::RestApi")["Body"]["paths"]
    paths |= {f"/spare/{number}": {} for number in range(400)}


@violates("functions_answer_before_api_gateway_gives_up")
def a_function_slower_than_its_caller(template: Template) -> None:
    properties(template, "ManageFunction")["Timeout"] = 60


@violates("administrators_are_authenticated_by_iam")
def an_open_method_for_administrators(template: Template) -> None:
    paths = first(template, "AWS::ApiGateway::RestApi")["Body"]["paths"]
    paths["/admin/v1/private-integrations"]["post"]["security"] = [{"NONE": []}]


@violates("api_gateways_refusals_are_problem_documents")
def no_response_for_an_expired_session(template: Template) -> None:
    del first(template, "AWS::ApiGateway::RestApi")["Body"]["x-amazon-apigateway-gateway-responses"]["EXPIRED_TOKEN"]


@violates("detailed_metrics_are_paid_for_one_method_only")
def detailed_metrics_of_every_method(template: Template) -> None:
    first(template, "AWS::ApiGateway::Stage")["MethodSettings"][0]["MetricsEnabled"] = True


@violates("no_log_of_api_gateway_holds_a_query_string")
def an_access_log_with_the_path(template: Template) -> None:
    first(template, "AWS::ApiGateway::Stage")["AccessLogSetting"] = {"DestinationArn": "arn", "Format": "$context.path"}


@violates("roles_name_the_partition_keys_that_they_use")
def a_role_that_may_write_every_item(template: Template) -> None:
    for statement in properties(template, "ReceiveEventsFunctionRole")["Policies"][0]["PolicyDocument"]["Statement"]:
        statement.pop("Condition", None)


@violates("roles_name_the_encryption_context_that_they_use")
def a_role_that_may_open_every_seal(template: Template) -> None:
    for statement in properties(template, "RedeemTicketFunctionRole")["Policies"][0]["PolicyDocument"]["Statement"]:
        statement.pop("Condition", None)


@violates("what_cannot_be_made_again_outlives_the_stack")
def a_key_that_is_deleted_with_its_stack(template: Template) -> None:
    template["Resources"]["SealingKey"].pop("DeletionPolicy", None)


@violates("what_cannot_be_made_again_outlives_the_stack")
def a_table_that_one_call_deletes(template: Template) -> None:
    del properties(template, "Table")["DeletionProtectionEnabled"]


@violates("table_is_within_the_limits_of_dynamodb")
def a_table_with_thirty_indexes(template: Template) -> None:
    properties(template, "Table")["GlobalSecondaryIndexes"] *= 10


@violates("services_act_for_this_account_only")
def a_schedule_role_for_any_account(template: Template) -> None:
    statement = properties(template, "RenewalsScheduleRole")["AssumeRolePolicyDocument"]["Statement"][0]
    del statement["Condition"]


@violates("public_function_urls_have_both_permissions")
def a_function_url_without_permissions(template: Template) -> None:
    template["Resources"]["ReceiveEventsUrl"].pop("Condition")


@violates("public_functions_have_reserved_concurrency")
def a_function_url_without_reserved_concurrency(template: Template) -> None:
    template["Resources"]["ReceiveEventsUrl"].pop("Condition")
    properties(template, "ReceiveEventsFunction").pop("ReservedConcurrentExecutions")
