"""The stack's operation: alarms with runbooks, the dashboard, throttles, the firewall, gradual deployment."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from local.template_file import read_template
from portaria.platforms.marketo import data_ingestion_api as marketo_front_door
from portaria_cli.commands import portaria
from portaria_cli.doctor.stack import TOO_OLD_S
from tests.fakes.paths import ROOT
from tests.fakes.template.document import Function, functions, resources, target, walk

RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
ALARMS = resources("AWS::CloudWatch::Alarm")
PARTS = ("**Meaning.**", "**Check.**", "**Action.**", "**Resolved when.**")
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html and the like.
METRICS_OF_AWS = {
    "AWS/SQS": {"ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"},
    "AWS/Lambda": {"Duration", "Errors", "Throttles"},
    "AWS/ApiGateway": {"Count", "4XXError", "5XXError", "Latency"},
}
# A dashboard with more metrics is not free.
MOST_METRICS = 50
# Settings of a function that take effect without a new version, or do not belong to a version.
NOT_OF_A_VERSION = {
    "AutoPublishAlias", "AutoPublishAliasAllProperties", "VersionDescription", "DeploymentPreference", "Events", "Policies",
    "ReservedConcurrentExecutions", "LoggingConfig", "PermissionsBoundary", "RecursiveLoop",
}  # fmt: skip

each_alarm = pytest.mark.parametrize("name", sorted(ALARMS))
each_function = pytest.mark.parametrize("function", functions(), ids=lambda function: function.name)


def anchor(title: str) -> str:
    """The anchor of a heading, as GitHub creates it."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def sections(level: int) -> dict[str, str]:
    """The text below each heading of a level, by its anchor."""
    parts = re.split(rf"^{'#' * level} (.+)$", RUNBOOK, flags=re.MULTILINE)
    return {
        anchor(title): re.split(r"^##? ", text, flags=re.MULTILINE)[0]
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def of_alarms() -> dict[str, str]:
    whole = re.split(r"^## ", RUNBOOK.partition("\n## Alarms\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    titles = re.findall(r"^### (.+)$", whole, re.MULTILINE)
    return {anchor(title): sections(3)[anchor(title)] for title in titles}


def of_alarm(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.removesuffix("Alarm")).lower()


# ---------------------------------------------------------------------------------------------------------------- runbook


def test_runbook_has_one_section_per_alarm() -> None:
    assert sorted(of_alarms()) == sorted(of_alarm(name) for name in ALARMS)


@each_alarm
def test_alarm_description_ends_with_its_runbook_section(name: str) -> None:
    description = ALARMS[name]["Properties"]["AlarmDescription"]
    assert description.endswith(f" docs/operations.md#{of_alarm(name)}")


@each_alarm
def test_runbook_section_has_its_parts_in_order(name: str) -> None:
    text = of_alarms()[of_alarm(name)]
    assert [text.count(part) for part in PARTS] == [1] * len(PARTS)
    assert [text.index(part) for part in PARTS] == sorted(text.index(part) for part in PARTS)
    look = text.partition(PARTS[1])[2].partition(PARTS[2])[0]
    assert "`" in look or "](#" in look, "where to look is a command"


def test_runbook_commands_and_options_exist() -> None:
    named = re.findall(
        r"`?(portaria (?!doctor)[a-z][^`\n|]*)",
        "\n".join(re.findall(r"```\n.*?```|`portaria [^`]+`", RUNBOOK, re.DOTALL)),
    )
    checked = 0
    for text in named:
        words = text.split("#")[0].split()[1:]
        command: click.Command = portaria
        options: list[str] = []
        for word in words:
            if isinstance(command, click.Group):
                found = command.get_command(click.Context(command), word)
                assert found, text
                command = found
            elif word.startswith("--"):
                options.append(word)
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(options) <= known, text
        checked += 1
    assert checked > 30


def test_runbook_links_within_the_page_resolve() -> None:
    anchors = {anchor(title) for title in re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", RUNBOOK)) <= anchors


def test_runbook_outputs_and_log_groups_exist() -> None:
    document = read_template()
    assert set(re.findall(r"\$\((?:out|arn) (\w+)\)", RUNBOOK)) <= set(document["Outputs"])
    asked = set(re.findall(r"\$\(group (\w+)\)", RUNBOOK))
    assert len(asked) > 5
    assert {f"{name}Logs" for name in asked} <= set(resources("AWS::Logs::LogGroup"))


@cache
def sources() -> list[Path]:
    """The code that runs in functions."""
    folders = (ROOT / "functions", ROOT / "layers" / "portaria" / "portaria")
    return [file for folder in folders for file in sorted(folder.rglob("*.py"))]


@cache
def source() -> str:
    return "\n".join(file.read_text() for file in sources())


def test_runbook_parameters_exist_in_template() -> None:
    known = set(read_template()["Parameters"])
    named = set(re.findall(r"`([A-Z][A-Za-z]+)(?:=[^`]*)?`", RUNBOOK)) & {
        name
        for name in re.findall(r"`([A-Z][a-z]+[A-Z][A-Za-z]+)", RUNBOOK)
        if not name.startswith(("AWS", "AccessDenied"))
    }
    own = {name for name in named if not re.search(rf'"{name}"', source())}
    assert len(own) > 10
    assert {name for name in own if not name.endswith("AgeSeconds")} <= known


# ----------------------------------------------------------------------------------------------------------------- alarms


def test_runbook_alarm_costs_match_template() -> None:
    """AWS charges by the metric; those with a condition only if it holds."""
    counted: Counter[str] = Counter()
    for alarm in ALARMS.values():
        metrics = [each for each in alarm["Properties"].get("Metrics", []) if "MetricStat" in each]
        counted[alarm.get("Condition", "")] += len(metrics) or 1
    text = " ".join(sections(2)["what-it-costs"].split())
    always = counted[""] + counted["CombinesAlarms"]
    assert f"alarms on {always} metrics, of which ten are free ({(always - 10) / 10:.2f} USD a month; " in text
    combined = read_template()["Parameters"]["CombinedAlarms"]["Description"]
    assert f"{counted['CombinesAlarms'] / 10:.2f} USD a month" in combined
    assert f"{counted['TracksReceipts']} more with `AdobeClientId`, {counted['DeploysGradually']} more with" in text


def test_alarms_oldest_message_of_each_queue_has_same_limit_as_doctor() -> None:
    limits = {
        target(alarm["Properties"]["Dimensions"][0]["Value"]): alarm["Properties"]["Threshold"]
        for alarm in ALARMS.values()
        if alarm["Properties"].get("MetricName") == "ApproximateAgeOfOldestMessage"
    }
    assert limits == TOO_OLD_S
    assert {name for name in resources("AWS::SQS::Queue") if name.endswith("Queue")} <= set(limits)


@cache
def emitted() -> set[str]:
    """The names of metrics in the code, added directly or by a counting function. `Installs*` is composed of states."""
    found = set()
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(r"[A-Z][A-Za-z]{5,40}", node.value)
            ):
                found.add(node.value)
            if (
                isinstance(node, ast.JoinedStr)
                and isinstance(node.values[0], ast.Constant)
                and node.values[0].value == "Installs"
            ):
                found |= {"InstallsConnected", "InstallsFailed", "InstallsWaiting", "InstallsDeferred"}
            named_queue = isinstance(node, ast.keyword) and node.arg == "queue"
            if named_queue or (isinstance(node, ast.Call) and "report_age" in ast.unparse(node.func)):
                queues = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
                found |= {f"{queue}AgeSeconds" for queue in queues if isinstance(queue, str)}
    return found


def test_alarms_own_metrics_are_emitted() -> None:
    """Those that test_permissions emits are also compared with the output."""
    own = {
        alarm["Properties"]["MetricName"]
        for alarm in ALARMS.values()
        if alarm["Properties"].get("Namespace") == "Portaria"
    }
    assert len(own) > 8
    assert own <= emitted()


# -------------------------------------------------------------------------------------------------------------- dashboard


def dashboard() -> dict[str, Any]:
    ((_, resource),) = resources("AWS::CloudWatch::Dashboard").items()
    assert resource["Condition"] == "HasDashboard"
    text = resource["Properties"]["DashboardBody"]["Fn::Sub"]
    references = set(re.findall(r"\$\{([^}]+)}", text))
    known = {*read_template()["Resources"], "AWS::Region", "AWS::StackName"}
    assert {reference.partition(".")[0] for reference in references} <= known
    body: dict[str, Any] = json.loads(re.sub(r"\$\{([^}]+)}", "x", text))
    return body


def test_dashboard_metrics_exist() -> None:
    watched = [metric for widget in dashboard()["widgets"] for metric in widget["properties"]["metrics"]]
    assert 30 < len(watched) <= MOST_METRICS
    for namespace, name, *rest in watched:
        dimensions = [each for each in rest if isinstance(each, str)]
        assert len(dimensions) % 2 == 0
        if namespace == "Portaria":
            assert name in emitted(), name
            assert dimensions == ["service", "x"]  # `dashboard` replaces substitutions by an x
        else:
            assert name in METRICS_OF_AWS[namespace], name


def test_dashboard_shows_key_metrics_and_is_on_by_default() -> None:
    text = json.dumps(dashboard())
    asked_for = (
        "InstallsConnected CodeAgeSeconds RecordsSent DeadLetters QuotaLeftPercent TokensRenewed DaysToDeath 5XXError"
    )
    for name in (*asked_for.split(), "NoAnswerSeconds", "Duration", "ApproximateAgeOfOldestMessage"):
        assert f'"{name}"' in text
    assert read_template()["Parameters"]["Dashboard"]["Default"] == "yes"


def test_dashboard_widgets_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for widget in dashboard()["widgets"]:
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not taken & cells
        assert widget["x"] + widget["width"] <= 24
        taken |= cells
    assert taken


# --------------------------------------------------------------------------------------------------- throttles, firewall


def test_stage_throttles_cover_webhooks_and_data_ingestion() -> None:
    """A path as API Gateway wants it here: its slashes but the first as ~1.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-apigateway-stage-methodsetting.html
    """
    (stage,) = resources("AWS::Serverless::Api").values()
    _, *own = stage["Properties"]["MethodSettings"]
    settings = {}
    for setting in own:
        assert setting["ResourcePath"].startswith("/~1")
        assert "/" not in setting["ResourcePath"][1:]
        path = setting["ResourcePath"][1:].replace("~1", "/")
        settings[setting["HttpMethod"], path] = setting["ThrottlingRateLimit"]["Fn::Select"][1]["Ref"]
        assert setting["ThrottlingBurstLimit"]["Fn::Select"][1]["Ref"] == settings[setting["HttpMethod"], path]
    methods = {(method.upper(), path): function.name for function in functions() for method, path in function.methods}
    assert set(settings) <= set(methods)
    assert settings["GET", "/install/{platform}/{client}"] == "InstallThrottle"
    assert {throttle for key, throttle in settings.items() if methods[key] == "receive_events"} == {"EventsThrottle"}
    # Unknown paths are answered without a lookup, under the throttle of the whole stage.
    front_door = {("POST", resource) for resource in marketo_front_door.RESOURCES}
    assert {methods[key] for key in front_door} == {"accept_records"}
    assert {key for key, throttle in settings.items() if throttle == "FrontDoorThrottle"} == front_door


def common_rules() -> dict[str, Any]:
    (acl,) = resources("AWS::WAFv2::WebACL").values()
    (found,) = [
        rule["Statement"]["ManagedRuleGroupStatement"]
        for rule in acl["Properties"]["Rules"]
        if rule["Name"] == "CommonRules"
    ]
    statement: dict[str, Any] = found
    return statement


@pytest.mark.parametrize(
    ("path", "is_looked_at"),
    [
        ("/live/install/kommo/acme", False), ("/install/kommo/acme", False), ("/live/events/kommo/crm/KEY", False),
        ("/live/subscriptions/123-ABC-456/persons", False), ("/live/receipts/marketo", False),
        ("/live/uninstall/kommo/acme", False),
        ("/live/v1/connections", True), ("/live/admin/v1/installs", True), ("/v1/connections/x/events/", True),
        ("/live/sso/TICKET", True),
    ],
)  # fmt: skip
def test_web_acl_common_rules_skip_platform_webhooks(path: str, is_looked_at: bool) -> None:
    regex = common_rules()["ScopeDownStatement"]["NotStatement"]["Statement"]["RegexMatchStatement"]["RegexString"]
    assert (re.search(regex, path) is None) == is_looked_at


@pytest.mark.parametrize(
    ("path", "is_counted"),
    [
        ("/live/install/kommo/acme", True), ("/install/kommo/acme/start", True), ("/live/install/kommo/acme/result/abc", True),
        ("/live/uninstall/kommo/acme", False), ("/live/events/kommo/install/KEY", False), ("/live/v1/installs", False),
        ("/v1/install/x/y/z", True),
    ],
)  # fmt: skip
def test_web_acl_install_limit_counts_calls_below_install(path: str, is_counted: bool) -> None:
    (acl,) = resources("AWS::WAFv2::WebACL").values()
    (rule,) = [rule for rule in acl["Properties"]["Rules"] if rule["Name"] == "InstallsPerAddress"]
    statement = rule["Statement"]["RateBasedStatement"]
    assert rule["Action"] == {"Block": {}}
    assert (statement["AggregateKeyType"], statement["Limit"]) == ("IP", {"Ref": "WebAclInstallsPerAddress"})
    assert bool(re.search(statement["ScopeDownStatement"]["RegexMatchStatement"]["RegexString"], path)) == is_counted


def test_web_acl_rules_have_distinct_priorities() -> None:
    (acl,) = resources("AWS::WAFv2::WebACL").values()
    priorities = [rule["Priority"] for rule in acl["Properties"]["Rules"]]
    assert len(set(priorities)) == len(priorities) == 4


def test_web_acl_allows_large_bodies() -> None:
    counted = {rule["Name"] for rule in common_rules()["RuleActionOverrides"] if rule["ActionToUse"] == {"Count": {}}}
    assert {"SizeRestrictions_BODY", "NoUserAgent_HEADER"} <= counted


def test_web_acl_limit_per_address_allows_throttle_rate() -> None:
    parameters = read_template()["Parameters"]
    rate = int(parameters["EventsThrottle"]["Default"].split(",")[0])
    assert parameters["WebAclCallsPerAddress"]["Default"] >= rate * 300


@pytest.mark.parametrize("value", ["none", "managed", "arn:aws:wafv2:us-east-1:123456789012:regional/webacl/mine/1f2e"])
def test_web_acl_parameter_accepts_none_managed_or_an_arn(value: str) -> None:
    pattern = read_template()["Parameters"]["WebAcl"]["AllowedPattern"]
    assert re.fullmatch(pattern, value)
    assert not re.fullmatch(pattern, f"{value} ")
    assert read_template()["Parameters"]["WebAcl"]["Default"] == "none"


# ------------------------------------------------------------------------------------------- versions, deployments, VPC


def test_functions_are_published_under_live_alias() -> None:
    settings = read_template()["Globals"]["Function"]
    assert settings["AutoPublishAlias"] == "live"
    for layer in resources("AWS::Serverless::LayerVersion").values():
        assert layer["Properties"]["PublishLambdaVersion"] is True, "new code in a layer would stay unused"


@each_function
def test_function_version_description_has_every_parameter_it_depends_on(function: Function) -> None:
    """SAM reads the template's text, which has no parameter values; a version's description contains the value."""
    assert function.properties["AutoPublishAliasAllProperties"] is True
    conditions = read_template()["Conditions"]
    own = {name: value for name, value in function.properties.items() if name not in NOT_OF_A_VERSION}
    everyones = {
        name: value for name, value in read_template()["Globals"]["Function"].items() if name not in NOT_OF_A_VERSION
    }
    needed = set()
    for value in walk([own, everyones]):
        if isinstance(value, dict) and isinstance(value.get("Ref"), str):
            needed.add(value["Ref"])
        if isinstance(value, dict) and "Fn::If" in value:
            needed |= {
                inner["Ref"]
                for inner in walk(conditions[value["Fn::If"][0]])
                if isinstance(inner, dict) and "Ref" in inner
            }
    needed &= set(read_template()["Parameters"])
    described = set(re.findall(r"\$\{(\w+)}", function.properties["VersionDescription"]["Fn::Sub"]))
    assert described == needed


def test_function_version_description_fits_256_characters() -> None:
    longest = {
        "PythonRuntime": 10, "Architecture": 6, "LogLevel": 7, "VpcSubnetIds": 4 * 24 + 3, "VpcSecurityGroupIds": 2 * 20 + 1,
        "RetryAfterMinutes": 10 * 4, "QuotaTimeZone": 32, "AdobeClientId": 32, "PrivateIntegrationManagers": 14,
        "RefusedGrantDays": 2,
        "ReconcileEvery": 4, "ReconcileIdleEvery": 5, "SharedOutboundAddresses": 3, "SuccessLogs": 7, "Tracing": 7,
        "WebhookEndpoint": 28, "CredentialStore": 15,
    }  # fmt: skip
    for function in functions():
        text = function.properties["VersionDescription"]["Fn::Sub"]
        names = re.findall(r"\$\{(\w+)}", text)
        assert sum(longest[name] + 1 for name in names) <= 256, function.name


def test_gradual_deployment_rolls_back_on_alarms() -> None:
    preference = read_template()["Globals"]["Function"]["DeploymentPreference"]
    alarms = [each["Fn::If"][1] if "Fn::If" in each else each for each in preference["Alarms"]]
    assert 5 <= len(alarms) <= 10  # CodeDeploy's limit
    names = {target(alarm) for alarm in alarms}
    assert names <= set(ALARMS)
    assert {name for name in ALARMS if name.endswith("ErrorsAlarm")} - names == {"TrackReceiptsErrorsAlarm"}
    told = sections(2)["upgrading-without-downtime"]
    assert all(name.removesuffix("Alarm") in told for name in names)
    deployments = read_template()["Mappings"]["Deployments"]
    parameter = read_template()["Parameters"]["Deployment"]
    assert set(deployments) == set(parameter["AllowedValues"])
    assert {name for name, each in deployments.items() if each["IsGradual"] == "false"} == {parameter["Default"]}


def test_alarms_with_metric_math_have_a_condition_that_the_local_cloud_does_not_meet() -> None:
    """MiniStack refuses to create them, so the local cloud deploys at once, without combined alarms."""
    combined = {name for name, each in ALARMS.items() if "Metrics" in each["Properties"]}
    assert combined == {
        name for name, each in ALARMS.items() if each.get("Condition") in ("CombinesAlarms", "DeploysGradually")
    }


def test_worker_errors_alarm_watches_every_worker() -> None:
    watched = {
        target(each["MetricStat"]["Metric"]["Dimensions"][0]["Value"])
        for each in ALARMS["WorkerErrorsAlarm"]["Properties"]["Metrics"]
        if "MetricStat" in each and each["MetricStat"]["Metric"]["Namespace"] == "AWS/Lambda"
    }
    # `count_states` handles no message, and the overview shows the age of its counts. An alarm adds up at most ten metrics.
    workers = {function.logical_id for function in functions() if not function.methods} - {"CountStatesFunction"}
    assert watched == workers


def test_functions_are_in_a_vpc_only_when_configured() -> None:
    condition, inside, outside = read_template()["Globals"]["Function"]["VpcConfig"]["Fn::If"]
    assert (condition, outside) == ("IsInVpc", {"Ref": "AWS::NoValue"})
    assert set(inside) == {"SubnetIds", "SecurityGroupIds"}
    parameters = read_template()["Parameters"]
    assert (parameters["VpcSubnetIds"]["Default"], parameters["VpcSecurityGroupIds"]["Default"]) == ("", "")
    assert re.fullmatch(
        parameters["VpcSubnetIds"]["AllowedPattern"], "subnet-0a1b2c3d4e5f60718,subnet-1a1b2c3d4e5f60718"
    )
    assert not re.fullmatch(parameters["VpcSubnetIds"]["AllowedPattern"], "subnet-0a1b, subnet-1a1b")


def test_webhook_functions_have_optional_reserved_concurrency() -> None:
    reserved = {
        function.name: function.properties["ReservedConcurrentExecutions"]["Fn::If"][1]["Ref"]
        for function in functions()
        if "ReservedConcurrentExecutions" in function.properties
    }
    assert reserved == {"accept_install": "AcceptReservedConcurrency", "receive_events": "WebhookReservedConcurrency"}
