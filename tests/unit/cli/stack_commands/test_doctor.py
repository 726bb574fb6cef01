"""`portaria doctor` against AWS as the template creates it, and with one fault at a time.

CloudFormation, Lambda and others are canned responses made from template.yaml; the table and the vault are on moto.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import Any

import botocore.session
import click
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.loaders import Loader
from botocore.model import ServiceModel

from portaria.access import private_integrations
from portaria.api.resources import stack_settings
from portaria.aws import service_clients
from portaria.connections import credential_migration
from portaria.core import clock
from portaria.core.errors import Unreachable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client
from portaria.overview import stored_checks
from portaria.overview.findings import STATES
from portaria_cli.commands import portaria as command_line
from portaria_cli.doctor import data
from portaria_cli.doctor.checks import CHECKS
from tests.fakes.api.command_line import run
from tests.fakes.api.manage import empty
from tests.fakes.aws.moto_cloud import TABLE, Cloud, cloud
from tests.fakes.paths import ROOT
from tests.fakes.template.document import functions, resources, target

API_URL = "https://abc123.execute-api.us-east-1.amazonaws.com/live"
STACK = "portaria"
ROLE = "arn:aws:iam::123456789012:role/"
NOW = datetime.now(UTC).replace(microsecond=0)
Json = dict[str, Any]


class World:
    """AWS's responses by service and operation. A test changes `answers`, or lets an operation be refused."""

    def __init__(self, stack: Cloud) -> None:
        self.stack = stack
        self.refused: dict[str, str] = {}
        self.asked: list[str] = []
        self.date = format_datetime(NOW, usegmt=True)
        self.unreachable: set[str] = set()
        self.sent: list[Request] = []
        self.status = 200
        names = [function.logical_id for function in functions()]
        kinds = {
            "AWS::Lambda::Function": names,
            "AWS::IAM::Role": [f"{name}Role" for name in names],
            "AWS::Lambda::EventSourceMapping": [
                f"{function.logical_id}{event}"
                for function in functions()
                for event, value in function.events.items()
                if value["Type"] == "SQS"
            ],
            "AWS::Scheduler::Schedule": ["RenewalsSchedule", "SweepArrivalsFunctionEveryMinute"],
            "AWS::Events::Rule": list(resources("AWS::Events::Rule")),
            **{
                kind: list(resources(kind))
                for kind in ("AWS::SQS::Queue", "AWS::CloudWatch::Alarm", "AWS::SNS::Topic", "AWS::DynamoDB::Table")
            },
        }
        self.resources = [
            {"LogicalResourceId": name, "PhysicalResourceId": f"{STACK}-{name}", "ResourceType": kind}
            for kind, logical_ids in kinds.items()
            for name in logical_ids
        ]
        self.stacks: Json = {
            "StackStatus": "UPDATE_COMPLETE",
            "Outputs": [
                {"OutputKey": key, "OutputValue": value}
                for key, value in {"ApiUrl": API_URL, "TableName": TABLE, "BusName": STACK}.items()
            ],
            "Parameters": [{"ParameterKey": "AdobeClientId", "ParameterValue": "adobe-client"}],
        }
        self.functions: Json = {
            f"{STACK}-{name}": {
                "State": "Active", "LastUpdateStatus": "Successful", "Runtime": "python3.13", "CodeSha256": "abc",
                "Role": f"{ROLE}{STACK}-{name}Role", "Environment": {"Variables": {"TABLE_NAME": TABLE}},
            }
            for name in names
        }  # fmt: skip
        self.live: Json = deepcopy(self.functions)
        self.queues: Json = {}
        for name, queue in resources("AWS::SQS::Queue").items():
            redrive = queue["Properties"].get("RedrivePolicy")
            arn = f"arn:aws:sqs:us-east-1:123456789012:{STACK}-{name}"
            self.queues[f"{STACK}-{name}"] = {"QueueArn": arn, "ApproximateNumberOfMessages": "0"}
            if redrive:
                dead = f"arn:aws:sqs:us-east-1:123456789012:{STACK}-{target(redrive['deadLetterTargetArn'])}"
                self.queues[f"{STACK}-{name}"]["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": dead})
        self.answers: Json = {
            "lambda:GetFunctionConcurrency": {},
            "lambda:GetAccountSettings": {"AccountLimit": {"ConcurrentExecutions": 1_000}},
            "lambda:GetEventSourceMapping": {"State": "Enabled", "LastProcessingResult": "OK"},
            "iam:ListRolePolicies": {"PolicyNames": ["Policy0"]},
            "iam:ListAttachedRolePolicies": {"AttachedPolicies": [{"PolicyName": "AWSLambdaBasicExecutionRole"}]},
            "dynamodb:DescribeTable": {
                "Table": {"TableStatus": "ACTIVE", "GlobalSecondaryIndexes": [{"IndexStatus": "ACTIVE"}]}
            },
            "dynamodb:DescribeTimeToLive": {
                "TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
            },
            "dynamodb:DescribeContinuousBackups": {
                "ContinuousBackupsDescription": {
                    "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "ENABLED"}
                }
            },
            "scheduler:GetSchedule": {"State": "ENABLED"},
            "events:DescribeRule": {"State": "ENABLED"},
            "cloudwatch:DescribeAlarms": {"MetricAlarms": []},
            "cloudwatch:GetMetricStatistics": {"Datapoints": []},
            "sns:ListSubscriptionsByTopic": {"Subscriptions": [{"SubscriptionArn": "arn:aws:sns:us-east-1:1:topic:one"}]},
        }  # fmt: skip

    def answer(self, action: str, parameters: Json) -> Json:
        self.asked.append(action)
        if code := self.refused.get(action):
            if code == "down":
                raise EndpointConnectionError(endpoint_url="https://aws")
            headers = {"HTTPHeaders": {"date": self.date}}
            raise ClientError({"Error": {"Code": code}, "ResponseMetadata": headers}, action.partition(":")[2])
        found = self._found(action, parameters)
        return {**found, "ResponseMetadata": {"HTTPHeaders": {"date": self.date}}}

    def _found(self, action: str, parameters: Json) -> Json:
        match action:
            case "cloudformation:DescribeStacks":
                return {"Stacks": [self.stacks]}
            case "cloudformation:ListStackResources":
                # In pages, as CloudFormation returns them.
                start = int(parameters.get("NextToken", 0))
                more = {"NextToken": str(start + 40)} if start + 40 < len(self.resources) else {}
                return {"StackResourceSummaries": self.resources[start : start + 40], **more}
            case "lambda:GetFunctionConfiguration":
                kept = self.live if parameters.get("Qualifier") == "live" else self.functions
                return dict(self._present(kept, parameters["FunctionName"]))
            case "sqs:GetQueueAttributes":
                return {"Attributes": self._present(self.queues, parameters["QueueUrl"])}
        answers = self.answers[action]
        return dict(answers(parameters) if callable(answers) else answers)

    def _present(self, kept: Json, name: str) -> Json:
        if name not in kept:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "Get")
        found: Json = kept[name]
        return found

    def send(self, request: Request, *, allowed_domain: str, owner: str) -> Response:
        self.sent.append(request)
        assert allowed_domain != "gone.example.com"
        if allowed_domain in self.unreachable:
            raise Unreachable(f"{allowed_domain} was not reached: gaierror")
        return Response(self.status if request.method == "GET" else 403)


@cache
def operations(service: str) -> dict[str, str]:
    """The methods of a client, with the operation that each calls."""
    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    return {xform_name(name): name for name in model.operation_names}


class Client:
    """The client of one service: canned, except for the table's items and the vault, which are on moto."""

    def __init__(self, service: str, world: World) -> None:
        self.meta = type("Meta", (), {"method_to_api_mapping": operations(service)})()
        self.service, self.world = service, world
        self.real = service_clients.client(service) if service in ("dynamodb", "secretsmanager") else None

    def __getattr__(self, name: str) -> Callable[..., Json]:
        action = f"{self.service}:{self.meta.method_to_api_mapping[name]}"

        def call(**parameters: Any) -> Json:
            if self.real and action not in self.world.refused and action not in self.world.answers:
                self.world.asked.append(action)
                answer: Json = getattr(self.real, name)(**parameters)
                return answer
            return self.world.answer(action, parameters)

        return call


@pytest.fixture(scope="module")
def shared() -> Iterator[Cloud]:
    with cloud() as stack:
        for service in ("dynamodb", "secretsmanager"):
            service_clients.client(service)
        yield stack


@pytest.fixture
def world(shared: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(shared)
    with monkeypatch.context() as patched:
        patched.setattr(botocore.session.Session, "create_client", lambda self, service, **_: Client(service, world))
        patched.setattr(http_client, "send", world.send)
        patched.setattr(clock, "now", lambda: NOW)
        yield world
    empty()


def examine(exit_code: int = 0) -> list[Json]:
    result = run("--json", "doctor", exit_code=exit_code)
    checks: list[Json] = json.loads(result.stdout)["checks"]
    return checks


def only(state: str, exit_code: int | None = None) -> Json:
    """The only finding that is not ok. The command exits with 1 only for a failure."""
    found = examine((state == "fail") if exit_code is None else exit_code)
    (one,) = [finding for finding in found if finding["state"] != "ok"]
    assert one["state"] == state, one
    return one


def keep_connection(world: World, name: str, **fields: Any) -> None:
    service_clients.client("secretsmanager").create_secret(Name=f"{STACK}/grants/{name}", SecretString="{}")
    keep_item(world, name, **fields)


def keep_item(world: World, name: str, **fields: Any) -> None:
    item = {
        "platform": "http", "kind": "bearer", "allowed_domain": "api.example.com", "state": "connected", "generation": 1,
        "updated_at": "2026-11-01T00:00:00.000Z", "secret_id": f"{STACK}/grants/{name}", **fields,
    }  # fmt: skip
    keys = {"pk": f"CONNECTION#{name}", "sk": "CONNECTION", "list_pk": "CONNECTIONS", "list_sk": name}
    world.stack.table.put({**keys, "name": name, **item})


def keep_client(world: World, redirect_uri: str, platform: str = "kommo", **fields: Any) -> None:
    service_clients.client("secretsmanager").create_secret(
        Name=f"{STACK}/oauth-clients/{platform}/acme", SecretString="canary"
    )
    world.stack.table.put(
        {
            "pk": f"CLIENT#{platform}#acme", "sk": "CLIENT", "list_pk": "CLIENTS", "list_sk": f"{platform}#acme",
            "platform": platform, "name": "acme", "client_id": "id", "redirect_uri": redirect_uri, "scopes": "",
            "updated_at": "2026", **fields,
        }
    )  # fmt: skip


def keep_parked(world: World, reason: str, *, hours: int = 1) -> None:
    until = int((NOW + timedelta(hours=hours)).timestamp())
    world.stack.table.put(
        {
            "pk": "PARKED#crm", "sk": "*", "list_pk": "PARKED", "list_sk": "crm/", "destination": "crm", "object": "persons",
            "reason": reason, "code": "4030801", "until": until, "since": "2026",
        }
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- no faults


def test_doctor_healthy_stack_has_only_ok_findings(world: World) -> None:
    keep_client(world, f"{API_URL}/install/kommo/acme")
    keep_connection(world, "crm")
    found = examine()
    assert {finding["state"] for finding in found} == {"ok"}, [each for each in found if each["state"] != "ok"]
    told = {finding["check"] for finding in found}
    assert told >= set(CHECKS), "each check says something"
    assert any(f"{len(functions())} are active, on python3.13" in finding["found"] for finding in found)
    assert [request.url for request in world.sent] == [f"{API_URL}/v1/openapi.json", "https://api.example.com/"]


def test_doctor_text_output_has_one_line_per_finding_and_advice_below(world: World) -> None:
    world.stacks["Parameters"] = []
    lines = run("doctor").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("warn"))
    assert re.match(r"warn    Adobe's events +AdobeClientId is not set", lines[at])
    assert re.match(r" +→ create an Adobe I/O project", lines[at + 1])
    assert re.fullmatch(r"\d+ ok · 1 warn", lines[-1])


def test_doctor_makes_only_read_calls_and_reads_no_secret(world: World) -> None:
    keep_client(world, f"{API_URL}/install/kommo/acme")
    keep_connection(world, "crm")
    examine()
    assert "secretsmanager:DescribeSecret" in world.asked
    operations = {action.partition(":")[2] for action in world.asked}
    assert all(re.match("Get|Describe|List|Query", operation) for operation in operations)
    assert "GetSecretValue" not in operations


def test_doctor_json_counts_name_every_state(world: World) -> None:
    counts = json.loads(run("--json", "doctor").stdout)["counts"]
    assert list(counts) == list(STATES)


def test_doctor_sealed_credentials_missing_is_a_failure(world: World) -> None:
    """Given credentials in the table, one of which has been removed, then that one is reported and no secret is looked at."""
    keep_connection(world, "there", secret_id="table:there")
    keep_connection(world, "gone", secret_id="table:gone")
    world.stack.table.put({"pk": "GRANT#there", "sk": "CREDENTIALS", "versions": {}})
    world.stack.table.put({"pk": "GRANT#gone", "sk": "CREDENTIALS", "versions": {}, "removed_at": "2026"})
    failed = [found for found in findings("secrets", 1) if found["state"] == "fail"]
    assert [found["found"] for found in failed] == [
        "the secret of the connection gone does not exist or is scheduled for deletion"
    ]
    assert "GRANT#gone" in failed[0]["advice"]
    assert "secretsmanager:DescribeSecret" not in world.asked


def test_doctor_copies_of_interrupted_migration_are_a_warning(world: World) -> None:
    """Given a copy that is older than any move, and one that a move may be using, then the older one is reported."""
    keep_connection(world, "crm")
    for name, minutes in (("crm", 21), ("other", 19)):
        started_at = clock.to_iso(NOW - timedelta(minutes=minutes))
        entry = credential_migration.Entry(name, 2, f"{STACK}/grants/{name}", f"table:{name}.2", started_at)
        keys = {"pk": credential_migration.PARTITION, "sk": entry.sk}
        world.stack.table.put({**keys, **asdict(entry)})
    found = only("warn")
    assert found["found"] == "an interrupted migration has left copies of the credentials of 1 connections: crm"
    assert found["advice"] == "run `portaria credentials migrate --to secrets-manager` again"


@pytest.mark.parametrize("change", [{"secret_id": "table:crm.2"}, {"state": "removed"}])
def test_doctor_credentials_moved_since_connections_were_read_are_not_missing(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Json
) -> None:
    """Given a migration or a removal while the doctor runs, then it does not advise to restore what was removed."""
    keep_connection(world, "crm", secret_id="table:crm")
    is_stored = data._is_stored

    def moved(*arguments: Any) -> bool:
        keep_item(world, "crm", **{"secret_id": "table:crm", **change})
        return is_stored(*arguments)

    monkeypatch.setattr(data, "_is_stored", moved)
    assert [found for found in examine() if found["state"] == "fail"] == []


# ---------------------------------------------------------------------------------------------- domains of OAuth clients


def findings(check: str, exit_code: int) -> list[Json]:
    return [each for each in examine(exit_code) if each["check"] == check]


def test_doctor_client_without_api_domains_is_a_failure_with_advice(world: World) -> None:
    """A client of a generic provider that was stored before `api_domains` existed."""
    uri = f"{API_URL}/install/oauth2/acme"
    keep_client(world, uri, "oauth2", token_url="https://login.example.com/token")
    keep_connection(world, "one", platform="oauth2", kind="oauth2", client="acme", allowed_domain="b.example.com")
    keep_connection(world, "two", platform="oauth2", kind="oauth2", client="acme", allowed_domain="a.example.com")
    [found] = findings("API domains", 1)
    assert found["state"] == "fail"
    assert found["found"] == "oauth2/acme has no api_domains: its 2 connections work, and new ones are refused"
    assert "`api_domains: [a.example.com, b.example.com]`" in found["advice"]
    assert "portaria configure FILE" in found["advice"]


def test_doctor_connection_outside_client_api_domains_is_a_failure(world: World) -> None:
    keep_client(world, f"{API_URL}/install/kommo/acme")
    keep_connection(world, "in", platform="kommo", kind="oauth2", client="acme", allowed_domain="one.kommo.com")
    keep_connection(world, "out", platform="kommo", kind="oauth2", client="acme", allowed_domain="one.amocrm.ru")
    keep_connection(world, "gone", platform="kommo", client="acme", allowed_domain="two.amocrm.ru", state="removed")
    [found] = findings("API domains", 1)
    assert found["state"] == "fail"
    assert found["found"].endswith("of kommo/acme are outside its api_domains: out")
    assert found["advice"].endswith(": one.amocrm.ru")


def test_doctor_refused_renewal_is_a_warning_with_end_and_advice(world: World) -> None:
    world.stacks["Parameters"].append({"ParameterKey": "RefusedGrantDays", "ParameterValue": "3"})
    since, advice = "2026-11-01T00:00:00.000Z", "the provider refused the client id or the client secret"
    keep_connection(world, "crm", refused_since=since, refusal=advice)
    keep_connection(world, "ended", state="needs_reconnect", refused_since=since, refusal=advice)
    [found] = findings("refused renewals", 0)
    assert found["state"] == "warn"
    assert found["found"] == f"crm since {since}; it ends about 2026-11-04T00:00:00.000Z: {advice}"


def test_doctor_many_refused_renewals_are_limited_and_counted(world: World) -> None:
    for number in range(stored_checks.MOST_REFUSED + 3):
        keep_connection(world, f"crm-{number}", refused_since="2026-11-01T00:00:00.000Z", refusal="no")
    found = findings("refused renewals", 0)
    assert len(found) == stored_checks.MOST_REFUSED + 1
    assert found[-1]["found"] == "and 3 more"


# ------------------------------------------------------------------------------------------------------------ one fault


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("CREATE_COMPLETE", "ok"), ("UPDATE_IN_PROGRESS", "warn"), ("UPDATE_ROLLBACK_COMPLETE", "warn"),
        ("ROLLBACK_COMPLETE", "fail"), ("UPDATE_ROLLBACK_FAILED", "fail"),
    ],
)  # fmt: skip
def test_doctor_stack_status_sets_finding_state(world: World, status: str, state: str) -> None:
    world.stacks["StackStatus"] = status
    found = examine(1 if state == "fail" else 0)
    assert next(finding["state"] for finding in found if finding["check"] == "stack") == state


def test_doctor_stack_without_expected_outputs_is_a_failure(world: World) -> None:
    world.stacks["Outputs"] = world.stacks["Outputs"][:2]
    assert "BusName" in only("fail")["found"]


def test_doctor_stack_missing_exits_3_with_advice(world: World) -> None:
    world.refused["cloudformation:DescribeStacks"] = "ValidationError"
    assert "give --stack-name" in run("doctor", exit_code=3).stderr


def test_doctor_function_update_failed_is_a_failure(world: World) -> None:
    world.functions[f"{STACK}-ManageFunction"] |= {
        "LastUpdateStatus": "Failed",
        "LastUpdateStatusReason": "no such key",
    }
    found = only("fail")
    assert found["found"] == "ManageFunction's last update: Failed"
    assert found["advice"].startswith("no such key; deploy again")


def test_doctor_function_not_active_is_a_failure(world: World) -> None:
    world.live[f"{STACK}-ManageFunction"] |= {"State": "Failed", "StateReason": "the image is gone"}
    assert only("fail")["found"] == "ManageFunction is Failed"


def test_doctor_function_missing_is_a_failure(world: World) -> None:
    del world.functions[f"{STACK}-ManageFunction"]
    found = [finding for finding in examine(1) if finding["state"] == "fail"]
    assert [finding["found"] for finding in found] == ["ManageFunction does not exist or has no alias live"]


@pytest.mark.parametrize(
    "change", [{"CodeSha256": "old"}, {"Environment": {"Variables": {}}}, {"Layers": [{"Arn": "old"}]}]
)
def test_doctor_function_alias_differs_from_latest_is_a_failure(world: World, change: Json) -> None:
    world.live[f"{STACK}-ManageFunction"] |= change
    assert "its alias has other code or settings" in only("fail")["found"]


def test_doctor_functions_on_two_runtimes_is_a_warning(world: World) -> None:
    for kept in (world.functions, world.live):
        kept[f"{STACK}-ManageFunction"]["Runtime"] = "python3.11"
    assert "python3.11, python3.13" in only("warn")["found"]


def test_doctor_function_with_another_role_is_a_failure(world: World) -> None:
    for kept in (world.functions, world.live):
        kept[f"{STACK}-ManageFunction"]["Role"] = f"{ROLE}administrator"
    assert only("fail")["found"] == "ManageFunction runs with administrator, which is not its own role"


def test_doctor_role_without_policies_is_a_failure(world: World) -> None:
    name = f"{STACK}-ManageFunctionRole"
    world.answers["iam:ListRolePolicies"] = lambda asked: {"PolicyNames": [] if asked["RoleName"] == name else ["one"]}
    assert only("fail")["found"] == "policies are missing from the role of ManageFunction"


def test_doctor_function_with_zero_reserved_concurrency_is_a_failure(world: World) -> None:
    world.answers["lambda:GetFunctionConcurrency"] = lambda asked: (
        {"ReservedConcurrentExecutions": 0} if "IngestRecords" in asked["FunctionName"] else {}
    )
    found = only("fail")
    assert found["found"] == "IngestRecordsFunction cannot run: its reserved concurrency is 0"
    assert f"delete-function-concurrency --function-name {STACK}-IngestRecordsFunction" in found["advice"]


def test_doctor_low_account_concurrency_is_a_warning(world: World) -> None:
    world.answers["lambda:GetAccountSettings"] = {"AccountLimit": {"ConcurrentExecutions": 10}}
    assert "Service Quotas" in only("warn")["advice"]


def test_doctor_reserved_concurrency_is_shown(world: World) -> None:
    world.answers["lambda:GetFunctionConcurrency"] = lambda asked: (
        {"ReservedConcurrentExecutions": 20} if "AcceptInstall" in asked["FunctionName"] else {}
    )
    assert any("reserved: 20 for AcceptInstallFunction" in finding["found"] for finding in examine())


def test_doctor_event_source_disabled_is_a_failure(world: World) -> None:
    world.answers["lambda:GetEventSourceMapping"] = lambda asked: {
        "State": "Disabled" if asked["UUID"].endswith("BulkRecords") else "Enabled"
    }
    found = only("fail")
    assert "IngestRecordsFunctionBulkRecords is disabled" in found["found"]
    assert "--enabled" in found["advice"]


def test_doctor_event_source_with_processing_problem_is_a_failure(world: World) -> None:
    world.answers["lambda:GetEventSourceMapping"] = lambda asked: {
        "State": "Enabled",
        "LastProcessingResult": "PROBLEM: access denied" if asked["UUID"].endswith("BulkRecords") else "OK",
    }
    assert "PROBLEM: access denied" in only("fail")["found"]


@pytest.mark.parametrize(("status", "state"), [("UPDATING", "warn"), ("INACCESSIBLE_ENCRYPTION_CREDENTIALS", "fail")])
def test_doctor_table_status_sets_finding_state(world: World, status: str, state: str) -> None:
    world.answers["dynamodb:DescribeTable"]["Table"]["TableStatus"] = status
    assert status in only(state)["found"]


def test_doctor_time_to_live_disabled_is_a_failure(world: World) -> None:
    world.answers["dynamodb:DescribeTimeToLive"]["TimeToLiveDescription"]["TimeToLiveStatus"] = "DISABLED"
    found = only("fail")
    assert (found["check"], "update-time-to-live" in found["advice"]) == ("expiry of items", True)


def test_doctor_point_in_time_recovery_disabled_is_a_failure(world: World) -> None:
    description = world.answers["dynamodb:DescribeContinuousBackups"]["ContinuousBackupsDescription"]
    description["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] = "DISABLED"
    found = only("fail")
    assert (found["check"], "update-continuous-backups" in found["advice"]) == ("backups", True)


def test_doctor_messages_in_dead_letter_queue_is_a_warning(world: World) -> None:
    world.queues[f"{STACK}-BackfillsDeadLetters"]["ApproximateNumberOfMessages"] = "3"
    found = only("warn")
    assert found["found"] == "3 messages are in BackfillsDeadLetters"
    assert found["advice"].endswith("#backfills-dead-letters")


def test_doctor_queue_without_dead_letter_queue_is_a_failure(world: World) -> None:
    del world.queues[f"{STACK}-RecordsQueue"]["RedrivePolicy"]
    assert "RecordsQueue has no dead-letter queue" in only("fail")["found"]


@pytest.mark.parametrize(
    ("queue", "age_s", "section"),
    [
        ("ExchangesQueue", 301, "codes-waiting"),
        ("RecordsQueue", 7_260, "records-waiting"),
        ("BulkRecordsQueue", 90_000, "bulk-records-waiting"),
    ],
)
def test_doctor_old_message_in_queue_is_a_failure_with_runbook(
    world: World, queue: str, age_s: int, section: str
) -> None:
    world.queues[f"{STACK}-{queue}"]["ApproximateNumberOfMessages"] = "1"
    points = [{"Timestamp": NOW - timedelta(minutes=5), "Maximum": 1.0}, {"Timestamp": NOW, "Maximum": float(age_s)}]
    world.answers["cloudwatch:GetMetricStatistics"] = {"Datapoints": points}
    found = only("fail")
    assert queue in found["found"]
    assert found["advice"].endswith(f"#{section}")


def test_doctor_recent_message_in_queue_is_ok(world: World) -> None:
    world.queues[f"{STACK}-ExchangesQueue"]["ApproximateNumberOfMessages"] = "1"
    world.answers["cloudwatch:GetMetricStatistics"] = {"Datapoints": [{"Timestamp": NOW, "Maximum": 299.0}]}
    assert {finding["state"] for finding in examine()} == {"ok"}


def test_doctor_schedule_disabled_is_a_failure(world: World) -> None:
    world.answers["scheduler:GetSchedule"] = lambda asked: {
        "State": "DISABLED" if "Renewals" in asked["Name"] else "ENABLED"
    }
    assert only("fail")["found"] == "RenewalsSchedule is disabled"


def test_doctor_rules_disabled_are_failures(world: World) -> None:
    world.answers["events:DescribeRule"] = {"State": "DISABLED"}
    found = [finding for finding in examine(1) if finding["state"] != "ok"]
    assert {finding["state"] for finding in found} == {"fail"}
    assert len(found) == 2
    assert "new connections are not read" in found[0]["found"]
    assert all(f"--event-bus-name {STACK}" in finding["advice"] for finding in found)


def test_doctor_alarm_active_is_a_warning_with_runbook(world: World) -> None:
    alarm = {"AlarmName": f"{STACK}-CodesWaitingAlarm", "StateValue": "ALARM"}
    world.answers["cloudwatch:DescribeAlarms"] = {"MetricAlarms": [alarm]}
    found = only("warn")
    assert (found["found"], found["advice"]) == ("CodesWaitingAlarm is on", "see docs/operations.md#codes-waiting")


@pytest.mark.parametrize(
    ("subscriptions", "told"),
    [
        ([], "nobody receives alarms"),
        ([{"SubscriptionArn": "PendingConfirmation"}], "no subscription is confirmed yet"),
    ],
)
def test_doctor_alarm_topic_without_confirmed_subscription_is_a_warning(
    world: World, subscriptions: list[Json], told: str
) -> None:
    world.answers["sns:ListSubscriptionsByTopic"] = {"Subscriptions": subscriptions}
    assert only("warn")["found"] == told


@pytest.mark.parametrize(
    ("redirect_uri", "state", "told"),
    [
        ("https://elsewhere.example/hook", "fail", "does not end in /install/kommo/acme"),
        ("https://desk.example.com/install/kommo/acme", "warn", "is at desk.example.com"),
        ("http://desk.example.com/install/kommo/acme", "fail", "is not https"),
    ],
)
def test_doctor_redirect_uri_not_of_this_stack_is_reported(
    world: World, redirect_uri: str, state: str, told: str
) -> None:
    keep_client(world, redirect_uri)
    found = only(state)
    assert told in found["found"]
    assert f"{API_URL}/install/kommo/acme" in found["advice"]


def test_doctor_secret_missing_is_a_failure(world: World) -> None:
    keep_connection(world, "crm", secret_id="portaria/grants/gone")
    found = only("fail")
    assert found["found"] == "the secret of the connection crm does not exist or is scheduled for deletion"
    assert "restore-secret --secret-id portaria/grants/gone" in found["advice"]


def test_doctor_secret_scheduled_for_deletion_is_a_failure(world: World) -> None:
    keep_connection(world, "crm")
    service_clients.client("secretsmanager").delete_secret(SecretId=f"{STACK}/grants/crm")
    assert "the secret of the connection crm" in only("fail")["found"]


def test_doctor_number_of_checked_secrets_is_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MOST_SECRETS", 3)
    for number in range(5):
        keep_connection(world, f"crm-{number}", updated_at=f"2026-11-01T00:00:{number:02d}.000Z")
    found = next(finding for finding in examine() if finding["check"] == "secrets")
    assert found["found"] == "3 exist of 5, those changed last"
    assert world.asked.count("secretsmanager:DescribeSecret") == 3


def test_doctor_connection_needing_reconnect_is_a_warning(world: World) -> None:
    keep_connection(world, "crm", state="needs_reconnect")
    assert only("warn")["found"] == "1 must be connected again: crm"


def test_doctor_wildcard_over_public_suffix_is_a_warning(world: World) -> None:
    """Given a connection that is older than the rule, then a warning is printed; one below its own name is valid."""
    keep_connection(world, "wide", allowed_domain="*.amazonaws.com")
    keep_connection(world, "fine", allowed_domain="*.example.com")
    found = only("warn")
    assert (found["check"], found["found"].partition(":")[0]) == ("domains", "wide")
    assert "narrower domain" in found["advice"]


def test_doctor_scope_for_missing_connection_is_a_warning(world: World) -> None:
    keep_connection(world, "crm")
    keep_connection(world, "old", state="removed")
    private_integrations.create(world.stack.table, "bi1", "BI", "", ("connections:call@crm", "routes:list"), "someone")
    private_integrations.create(
        world.stack.table, "bi2", "BI 2", "", ("connections:call@old", "sso:create@new"), "someone"
    )
    found = only("warn")
    assert (found["check"], found["found"]) == (
        "private integrations", "BI 2 (bi2) has scopes for connections that do not exist: new, old",
    )  # fmt: skip


def test_doctor_renewal_overdue_by_hours_is_a_failure(world: World) -> None:
    late = clock.to_iso(NOW - timedelta(hours=2))
    keep_connection(world, "crm", due_pk="CONNECTIONS", due_at=late)
    found = only("fail")
    assert (found["check"], found["found"]) == ("renewals", "1 have been due for more than an hour: crm")


def test_doctor_more_overdue_renewals_than_it_counts_are_a_minimum(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "MOST_LATE", 2)
    for name in ("a", "b", "c"):
        keep_connection(world, name, due_pk="CONNECTIONS", due_at=clock.to_iso(NOW - timedelta(hours=2)))
    assert only("fail")["found"] == "at least 2 have been due for more than an hour: a, b"


def test_doctor_renewal_due_recently_is_ok(world: World) -> None:
    keep_connection(world, "crm", due_pk="CONNECTIONS", due_at=clock.to_iso(NOW - timedelta(minutes=10)))
    assert {finding["state"] for finding in examine()} == {"ok"}


def test_doctor_destination_stopped_is_a_failure(world: World) -> None:
    keep_parked(world, "stopped")
    found = only("fail")
    assert found["found"] == "crm for persons is stopped (4030801)"
    assert found["advice"].endswith("#destinations-stopped")


def test_doctor_destination_quota_exhausted_is_a_warning(world: World) -> None:
    keep_parked(world, "quota")
    assert "is paused until" in only("warn")["found"]


def keep_waiting(world: World, *, hours: float, host: str = "") -> None:
    since = int((NOW - timedelta(hours=hours)).timestamp())
    world.stack.table.put(
        {
            "pk": "PARKED#crm", "sk": "WAITING", "list_pk": "WAITING", "list_sk": "crm", "destination": "crm", "arrivals": 9,
            "waiting": 12_345, "since": since, "next_at": since, "host": host,
        }
    )  # fmt: skip


def keep_host_paused(world: World, *, minutes: float) -> None:
    world.stack.table.put(
        {
            "pk": "PARKED#host:api.example.com", "sk": "PAUSE", "list_pk": "PARKED_HOSTS", "list_sk": "api.example.com",
            "host": "api.example.com", "until": int((NOW + timedelta(minutes=minutes)).timestamp()), "for_s": 120,
            "since": "2026-11-01T08:00:00.000Z",
        }
    )  # fmt: skip


def test_doctor_host_paused_is_a_warning_with_its_times_and_waiting_destinations(world: World) -> None:
    keep_host_paused(world, minutes=1)
    keep_waiting(world, hours=2, host="api.example.com")
    found = only("warn")
    until = clock.to_iso(NOW.replace(microsecond=0) + timedelta(minutes=1))
    assert found["check"] == "hosts"
    assert found["found"] == (
        f"api.example.com has not answered since 2026-11-01T08:00:00.000Z; it is paused until {until}; records wait for 1 of "
        "its destinations"
    )
    assert found["advice"].endswith("#destinations-that-do-not-answer")


def test_doctor_host_paused_without_waiting_records_is_a_warning(world: World) -> None:
    keep_host_paused(world, minutes=1)
    assert only("warn")["found"].endswith("; no records wait for it")


def test_doctor_host_pause_expired_while_records_wait_is_a_warning(world: World) -> None:
    keep_host_paused(world, minutes=-1)
    keep_waiting(world, hours=2, host="api.example.com")
    assert "; it is being tried again; " in only("warn")["found"]


def test_doctor_host_pause_expired_without_waiting_records_is_ok(world: World) -> None:
    keep_host_paused(world, minutes=-1)
    keep_waiting(world, hours=0.5, host="other.example.com")
    assert {finding["state"] for finding in examine()} == {"ok"}


def test_doctor_stopped_destination_shows_count_of_waiting_records(world: World) -> None:
    keep_parked(world, "stopped")
    keep_waiting(world, hours=2)
    since = clock.to_iso(NOW - timedelta(hours=2))[:19]
    assert only("fail")["found"].startswith(
        f"crm for persons is stopped (4030801); about 12,345 records wait, the first since {since}"
    )


def test_doctor_long_waiting_records_without_pause_is_a_warning(world: World) -> None:
    keep_waiting(world, hours=2)
    found = only("warn")
    assert found["found"].startswith("crm accepts records again, and about 12,345 records wait")
    assert found["advice"].endswith("#waiting-records")


def test_doctor_recently_waiting_records_is_ok(world: World) -> None:
    keep_waiting(world, hours=0.5)
    assert {finding["state"] for finding in examine()} == {"ok"}


def test_doctor_expired_pause_is_ok(world: World) -> None:
    keep_parked(world, "stopped", hours=-1)
    assert {finding["state"] for finding in examine()} == {"ok"}


def test_doctor_open_dead_letters_is_a_warning_with_reasons(world: World) -> None:
    for number, (state, reason) in enumerate(
        [("open", "bad_record"), ("open", "bad_record"), ("redriven", "unmapped")]
    ):
        keys = {"pk": f"DEAD_LETTER#{number}", "sk": "LETTER", "list_pk": "DEAD_LETTERS", "list_sk": str(number)}
        world.stack.table.put({**keys, "state": state, "reason": reason})
    assert only("warn")["found"] == "2 are open: bad_record (2)"


def test_doctor_clock_skew_is_a_failure(world: World) -> None:
    world.date = format_datetime(NOW - timedelta(minutes=4), usegmt=True)
    found = only("fail")
    assert (found["check"], found["found"]) == ("clock", "this machine's clock is 240 s off AWS's")


def test_doctor_clock_skew_that_breaks_signatures_exits_3(world: World) -> None:
    world.date = format_datetime(NOW - timedelta(minutes=9), usegmt=True)
    world.refused["cloudformation:DescribeStacks"] = "SignatureDoesNotMatch"
    assert "clock is 540 s off" in run("doctor", exit_code=3).stderr


def test_doctor_expired_credentials_exits_3_with_advice(world: World) -> None:
    world.refused["cloudformation:DescribeStacks"] = "ExpiredToken"
    assert "log in again" in run("doctor", exit_code=3).stderr


def test_doctor_unreachable_api_is_a_failure(world: World) -> None:
    world.unreachable.add("abc123.execute-api.us-east-1.amazonaws.com")
    assert "was not reached" in only("fail")["found"]


def test_doctor_api_error_status_is_a_failure_with_advice(world: World) -> None:
    world.status = 502
    assert only("fail")["advice"] == "run `portaria logs manage`"


@pytest.mark.parametrize(
    ("status", "state", "told"),
    [(405, "ok", "answers"), (403, "fail", "refuses public calls"), (502, "fail", "answers 502")],
)
def test_doctor_function_url_answer_sets_finding_state(world: World, status: int, state: str, told: str) -> None:
    host = "abc.lambda-url.us-east-1.on.aws"
    world.stacks["Outputs"].append({"OutputKey": "EventsUrl", "OutputValue": f"https://{host}/"})
    # The API gets the same answer, which is a failure there.
    world.status = status
    found = [each for each in examine(1) if each["check"] == "event webhooks"]
    assert [(each["state"], told in each["found"]) for each in found] == [(state, True)]
    assert [request.url for request in world.sent if host in request.url] == [f"https://{host}/events"]


def test_doctor_unreachable_platform_is_a_warning(world: World) -> None:
    keep_connection(world, "crm")
    keep_connection(world, "wild", allowed_domain="*.example.net")
    keep_connection(world, "gone", allowed_domain="gone.example.com", state="removed")
    world.unreachable.add("api.example.com")
    found = only("warn")
    assert (found["check"], found["found"]) == ("platforms", "api.example.com was not reached: gaierror")
    assert "not from the functions" in found["advice"]


# ------------------------------------------------------------------------------------------------- missing permissions


ACTIONS = [
    "lambda:GetFunctionConfiguration", "lambda:GetFunctionConcurrency", "lambda:GetEventSourceMapping",
    "iam:ListRolePolicies", "dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive", "dynamodb:DescribeContinuousBackups",
    "dynamodb:Query", "sqs:GetQueueAttributes", "scheduler:GetSchedule", "events:DescribeRule",
    "cloudwatch:DescribeAlarms", "sns:ListSubscriptionsByTopic", "secretsmanager:DescribeSecret",
]  # fmt: skip


@pytest.mark.parametrize("action", ACTIONS)
def test_doctor_access_denied_skips_check_and_names_permission(world: World, action: str) -> None:
    keep_connection(world, "crm")
    # Services use two error codes for it.
    world.refused[action] = "AccessDenied" if ACTIONS.index(action) % 2 else "AccessDeniedException"
    found = [finding for finding in examine() if finding["state"] != "ok"]
    assert found
    assert {finding["state"] for finding in found} == {"skipped"}
    assert {finding["found"] for finding in found} == {f"needs the permission {action}"}


@pytest.mark.parametrize("action", ["scheduler:GetSchedule", "dynamodb:DescribeTimeToLive", "iam:ListRolePolicies"])
def test_doctor_action_not_implemented_skips_check(world: World, action: str) -> None:
    keep_connection(world, "crm")
    world.refused[action] = "InvalidAction"
    found = [finding for finding in examine() if finding["state"] != "ok"]
    assert {finding["state"] for finding in found} == {"skipped"}


def test_doctor_unreachable_service_skips_only_its_check(world: World) -> None:
    world.refused["sqs:GetQueueAttributes"] = "down"
    assert "EndpointConnectionError" in only("skipped")["found"]


def test_doctor_unexpected_error_in_check_is_a_warning(world: World) -> None:
    world.answers["scheduler:GetSchedule"] = {}
    found = only("warn")
    assert (found["check"], found["found"]) == ("schedules", "this check failed unexpectedly (KeyError)")


def test_doctor_runbook_anchors_exist_in_operations_document() -> None:
    """Also the operations that only a stack with faults needs."""
    folders = (ROOT / "cli" / "portaria_cli" / "doctor", ROOT / "layers" / "portaria" / "portaria" / "overview")
    files = (file for folder in folders for file in folder.glob("*.py"))
    named = {anchor for file in files for anchor in re.findall(r'runbook\("([a-z-]+)"\)', file.read_text())}
    alarms = {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.removesuffix("Alarm")).lower()
        for name in resources("AWS::CloudWatch::Alarm")
    }
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert len(named) >= 5
    assert named | alarms <= anchors


def test_settings_page_names_every_check_that_only_the_command_makes() -> None:
    assert sorted({*CHECKS} - {*stored_checks.CHECKS}) == sorted(stack_settings.COMMAND_LINE_CHECKS)


def test_doctor_help_says_that_it_changes_nothing() -> None:
    doctor = command_line.get_command(click.Context(command_line), "doctor")
    assert doctor
    assert "changes nothing and reads no secret" in " ".join((doctor.help or "").split())
