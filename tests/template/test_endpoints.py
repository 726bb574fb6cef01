"""Parameters of the webhook endpoint, of traces and of success logs, in the translated template."""

from __future__ import annotations

from typing import Any

import pytest

from local.template_file import read_template
from tests.fakes.template.document import operations
from tests.fakes.template.translation import Stack, deploy

# The functions that make, subscribe to, or delete an address.
ADDRESSING = {"ExchangeCode", "BackfillRecords", "RemoveConnections", "Manage", "Console"}


def endpoints(stack: Stack) -> dict[str, str]:
    functions = stack.of("AWS::Lambda::Function")
    found = {name: each["Environment"]["Variables"].get("EVENT_ENDPOINTS") for name, each in functions.items()}
    return {name.removesuffix("Function"): value for name, value in found.items() if value}


def with_endpoint(endpoint: str) -> Stack:
    return deploy("portaria", WebhookEndpoint=endpoint, WebhookReservedConcurrency="20")


def test_template_default_has_no_function_url() -> None:
    stack = deploy("portaria")
    assert stack.of("AWS::Lambda::Url") == {}
    assert [name for name, each in stack.of("AWS::Lambda::Permission").items() if each["Principal"] == "*"] == []
    assert endpoints(stack) == dict.fromkeys(ADDRESSING, "api")
    assert stack.outputs["EventsUrl"] == stack.outputs["ApiUrl"]


@pytest.mark.parametrize("endpoint", ["function-url", "api-gateway-and-function-url"])
def test_template_function_url_is_public_for_receive_events_only(endpoint: str) -> None:
    stack = with_endpoint(endpoint)
    ((_, url),) = stack.of("AWS::Lambda::Url").items()
    assert url["AuthType"] == "NONE"
    assert url["TargetFunctionArn"].endswith(":live")
    public = [each for each in stack.of("AWS::Lambda::Permission").values() if each["Principal"] == "*"]
    assert [
        {name: value for name, value in each.items() if name not in ("FunctionName", "Principal")} for each in public
    ] == [
        {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"},
        {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True},
    ]
    assert {each["FunctionName"] for each in public} == {url["TargetFunctionArn"]}
    assert stack.of("AWS::Lambda::Function")["ReceiveEventsFunction"]["ReservedConcurrentExecutions"] == "20"


@pytest.mark.parametrize("endpoint", read_template()["Parameters"]["WebhookEndpoint"]["AllowedValues"])
def test_template_first_endpoint_is_that_of_new_addresses(endpoint: str) -> None:
    stack = with_endpoint(endpoint)
    found = endpoints(stack)
    assert set(found) == ADDRESSING
    (value,) = set(found.values())
    first, *others = value.split(",")
    assert (first != "api") == (endpoint == "function-url")
    assert len(others) == (0 if endpoint == "api-gateway" else 1)
    assert stack.outputs["EventsUrl"] == (stack.outputs["ApiUrl"] if first == "api" else first)


def test_template_endpoint_is_named_in_the_versions_of_functions_that_read_it() -> None:
    """Otherwise a deployment that changes the parameter alone would keep the old version."""
    for name, resource in read_template()["Resources"].items():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        described = resource["Properties"]["VersionDescription"]["Fn::Sub"]
        assert ("${WebhookEndpoint}" in described) == (name.removesuffix("Function") in ADDRESSING), name
        assert "${Tracing}" in described


def test_template_api_gateway_serves_event_addresses_in_each_mode() -> None:
    """Addresses that platforms already have keep working: the route has no condition."""
    assert ("post", "/events/{platform}/{connection}/{key}") in operations()


def test_template_function_url_without_reservation_is_refused() -> None:
    (assertion,) = read_template()["Rules"]["FunctionUrlComesWithReservation"]["Assertions"]
    assert assertion["Assert"] == {
        "Fn::Or": [
            {"Fn::Equals": [{"Ref": "WebhookEndpoint"}, "api-gateway"]},
            {"Fn::Not": [{"Fn::Equals": [{"Ref": "WebhookReservedConcurrency"}, 0]}]},
        ]
    }


@pytest.mark.parametrize(
    ("tracing", "functions", "api"),
    [("off", "PassThrough", "false"), ("sampled", "Active", "false"), ("active", "Active", "true")],
)
def test_template_tracing_sets_functions_and_api(tracing: str, functions: str, api: str) -> None:
    stack = deploy("portaria", Tracing=tracing)
    modes = {each["TracingConfig"]["Mode"] for each in stack.of("AWS::Lambda::Function").values()}
    assert modes == {functions}
    (stage,) = stack.of("AWS::ApiGateway::Stage").values()
    assert stage["TracingEnabled"] == api


@pytest.mark.parametrize(("success_logs", "level"), [("summary", "WARN"), ("each", "INFO")])
def test_template_success_logs_sets_level_of_lambda_lines_of_receive_events_only(success_logs: str, level: str) -> None:
    stack = deploy("portaria", SuccessLogs=success_logs)
    levels: dict[str, Any] = {
        name: each["LoggingConfig"].get("SystemLogLevel") for name, each in stack.of("AWS::Lambda::Function").items()
    }
    assert levels.pop("ReceiveEventsFunction") == level
    assert set(levels.values()) == {None}
