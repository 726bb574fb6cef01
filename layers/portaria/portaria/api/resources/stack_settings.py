"""How the stack is set up: its parameters, limits, pages at AWS, and what the doctor finds in the table."""

from __future__ import annotations

import logging
import platform
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field

from portaria.access import audit, console_sessions
from portaria.api import listing_parameters, validation
from portaria.api.idempotency import keys as idempotency
from portaria.api.operation import ApiRequest, Reply
from portaria.api.resources.delivery import sent_records
from portaria.api.schemas import Output, Time
from portaria.api.version import VERSION
from portaria.aws import service_clients
from portaria.aws.stack_status import StackStatus
from portaria.overview import stored_checks
from portaria.overview.findings import WARN, Finding
from portaria.overview.stored_checks import StoredState
from portaria.records import dead_letters, receipts

logger = logging.getLogger(__name__)

Content = dict[str, Any]
# What only `portaria doctor` can check, because the functions' roles may not look at it.
COMMAND_LINE_CHECKS = (
    "stack", "clock", "functions", "roles", "concurrency", "event sources", "table", "queues", "schedules", "alarms", "API",
    "event webhooks", "secrets", "renewals", "Adobe's events", "platforms",
)  # fmt: skip
# How many connections, or dead letters, the checks look at: a person waits. The command looks at more.
MOST_LISTED = 300
DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)


class StackParameter(Output):
    """A parameter of the deployed stack."""

    name: str = Field(description="The name of the parameter in the template.")
    value: str = Field(description="Its value. Empty if it is not set.")


class StackLimit(Output):
    """A limit that does not depend on parameters."""

    name: str = Field(description="What is limited.")
    unit_count: int = Field(description="The limit, in its unit.")
    unit: Literal["bytes", "days", "hours", "minutes", "items"] = Field(description="The unit of the limit.")


class StackLink(Output):
    """A page of the AWS console."""

    name: Literal["dashboard", "alarms", "logs", "queues", "table", "stack"] = Field(description="What the page shows.")
    url: str = Field(description="Its URL. It needs a sign-in to AWS.")


class StackFinding(Output):
    """What a check found."""

    check: str = Field(description="The title of the check, as `portaria doctor` prints it.")
    state: Literal["ok", "warn", "fail"] = Field(description="`ok`, `warn` or `fail`.")
    found: str = Field(description="What was found.")
    advice: str | None = Field(description="What to do. Null if there is nothing to do.")


class SettingsOutput(Output):
    """How the stack is set up."""

    stack: str = Field(description="The name of the CloudFormation stack.")
    region: str = Field(description="The AWS region.")
    version: str = Field(description="The version of Portaria.")
    python: str = Field(description="The version of Python that the function runs.")
    api_url: str = Field(description="The base URL of the API.")
    status: str | None = Field(description="The state of the stack. Null if CloudFormation did not answer.")
    updated_at: Time | None = Field(
        description="When the stack was last deployed. Null if CloudFormation did not answer."
    )
    parameters: list[StackParameter] | None = Field(
        description="The parameters, by name. Null if CloudFormation did not answer."
    )
    limits: list[StackLimit] = Field(description="Limits that no parameter changes.")
    links: list[StackLink] = Field(description="Pages of the AWS console.")
    findings: list[StackFinding] = Field(
        description="What the doctor's checks of the table found, in at most 300 connections and dead letters."
    )
    command_line_checks: list[str] = Field(
        description="Checks that only the command `portaria doctor` makes, with the permissions of who runs it."
    )


def show(asked: ApiRequest) -> Reply:
    """What CloudFormation does not answer is null. Raises what DynamoDB raises."""
    status = asked.context.stack_status
    described = status.describe()
    parameters = described.parameters if described else {}
    outputs = described.outputs if described else {}
    stored = StoredState(asked.context.table, outputs.get("ApiUrl") or asked.api_url, parameters, MOST_LISTED)
    return Reply(
        {
            "stack": status.name,
            "region": status.region,
            "version": VERSION,
            "python": platform.python_version(),
            "api_url": stored.api_url,
            "status": described.status if described else None,
            "updated_at": described.updated_at if described else None,
            "parameters": [{"name": name, "value": parameters[name]} for name in sorted(parameters)]
            if described
            else None,
            "limits": [{"name": name, "unit_count": count, "unit": unit} for name, count, unit in _limits()],
            "links": _links(status, asked.context.table.name),
            "findings": [_finding(each) for name in stored_checks.CHECKS for each in _look(name, stored)],
            "command_line_checks": list(COMMAND_LINE_CHECKS),
        }
    )


def _limits() -> list[tuple[str, int, str]]:
    return [
        ("request_body", validation.MAX_BODY_BYTES, "bytes"),
        ("records_body", sent_records.MAX_BODY_BYTES, "bytes"),
        ("list_page", listing_parameters.MAX_LIMIT, "items"),
        ("idempotency_keys", idempotency.KEPT_FOR_S * SECOND // HOUR, "hours"),
        ("receipts", receipts.KEPT_FOR // DAY, "days"),
        ("dead_letters", dead_letters.KEPT_FOR // DAY, "days"),
        ("audit", audit.KEPT_FOR // DAY, "days"),
        ("console_session", console_sessions.SESSION_LIFE // HOUR, "hours"),
        ("console_session_unused", console_sessions.IDLE_LIFE // timedelta(minutes=1), "minutes"),
    ]


def _links(status: StackStatus, table: str) -> list[Content]:
    name = quote(status.name, safe="")
    return [
        {"name": "dashboard", "url": status.console_url("cloudwatch", f"dashboards:name={name}")},
        {"name": "alarms", "url": status.console_url("cloudwatch", f"alarmsV2:?~(search~'{name}-)")},
        {"name": "logs", "url": status.console_url("cloudwatch", f"logsV2:log-groups$3FlogGroupNameFilter$3D{name}")},
        {"name": "queues", "url": status.console_url("sqs/v3", "/queues")},
        {"name": "table", "url": status.console_url("dynamodbv2", f"table?name={quote(table, safe='')}")},
        {"name": "stack", "url": status.console_url("cloudformation", f"/stacks?filteringText={name}")},
    ]


def _look(name: str, stored: StoredState) -> list[Finding]:
    """What a check found. One that breaks off does not hide the others."""
    try:
        return list(stored_checks.CHECKS[name](stored))
    except service_clients.FAILURES:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        logger.warning("check_failed", extra={"check": name, "error": type(error).__name__})
        return [
            Finding(name, WARN, f"this check failed unexpectedly ({type(error).__name__})", "please report this error")
        ]


def _finding(finding: Finding) -> Content:
    return {**finding.document(), "advice": finding.advice or None}
