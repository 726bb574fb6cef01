"""A deployed stack as the doctor sees it: its resources, and AWS's answers with refusals told apart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from portaria.aws.service_clients import error_code
from portaria.aws.table import Table
from portaria.core import clock
from portaria.overview.stored_checks import StoredState
from portaria_cli import local_cloud
from portaria_cli.auth import aws_session, read_stack
from portaria_cli.doctor.findings import NotLooked, NotThere
from portaria_cli.errors import Document, NotDone
from portaria_cli.profiles import Settings

CONFIG = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})
DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "UnauthorizedOperation",
    "AuthorizationErrorException",
)
LOGGED_OUT = (
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch",
    "InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed",
)  # fmt: skip
# How an emulator says that it does not do something.
NOT_OFFERED = (
    "InvalidAction", "UnknownOperationException", "UnknownOperation", "NotImplemented", "UnsupportedOperation", "501", "404",
)  # fmt: skip


# From five minutes on AWS refuses signatures.
MOST_SKEW_S = 120


def off_by_s(date: str) -> float:
    """How far this machine's clock is off a `Date` of AWS's; 0 where that cannot be read."""
    try:
        return abs((clock.now() - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


class StackTable(Table):
    """The stack's table, read with the person's own credentials."""

    def __init__(self, name: str, client: Any) -> None:
        super().__init__(name)
        self._client = client

    @property
    def client(self) -> Any:
        return self._client


class Deployment:
    """One stack. `kinds` is a resource type's physical ids by logical id."""

    def __init__(self, settings: Settings) -> None:
        self.local: Document = read_stack(settings.stack_file) if settings.stack_file else {}
        self.stack_name = str(self.local.get("stack_name", "")) or settings.stack_name
        if self.local:
            nobody = (None, None, None, None)
            variables = {"profile": nobody, "config_file": nobody, "credentials_file": nobody}
            self._session = botocore.session.Session(session_vars=variables)
            self._options = {
                "endpoint_url": self.local.get("aws_endpoint_url"),
                "region_name": self.local["region"],
                "aws_access_key_id": self.local["access_key_id"],
                "aws_secret_access_key": self.local["secret_access_key"],
                "config": CONFIG.merge(Config(proxies={})),
            }
        else:
            self._session = aws_session(settings.region, settings.aws_profile)
            if not self._session.get_credentials():
                raise local_cloud.not_named("no AWS credentials were found: log in, or set AWS_PROFILE")
            if not self._session.get_config_variable("region"):
                raise local_cloud.not_named("no AWS region is set: set AWS_REGION")
            self._options = {"config": CONFIG}
        self._clients: dict[str, Any] = {}
        # The `Date` of AWS's last answer.
        self.date = ""

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.create_client(service, **self._options)
        return self._clients[service]

    def call(self, service: str, operation: str, **parameters: Any) -> Document:
        """AWS's answer.

        Raises `NotThere` where that does not exist, and `NotLooked` where the caller may not look, or cannot here.
        """
        client = self.client(service)
        try:
            answer: Document = getattr(client, operation)(**parameters)
        except (ClientError, BotoCoreError) as error:
            raise self._told(error, service, client.meta.method_to_api_mapping[operation]) from None
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        self.date = headers.get("date", self.date)
        return answer

    def _told(self, error: Exception, service: str, action: str) -> Exception:
        code = error_code(error)
        if code in DENIED:
            return NotLooked(f"needs the permission {service}:{action}")
        if code in LOGGED_OUT:
            headers = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
            skew_s = off_by_s(headers.get("date", ""))
            if skew_s > MOST_SKEW_S:
                told = f"this machine's clock is {skew_s:.0f} s off AWS's, which refuses what it signs ({code})"
                return NotDone(f"{told}: set it (NTP)", exit_code=3)
            return NotDone(f"AWS refused your credentials ({code}): log in again, or set AWS_PROFILE", exit_code=3)
        if code in NOT_OFFERED:
            return NotLooked(f"{service}:{action} is not available here")
        if (
            "NotFound" in code
            or "NonExistent" in code
            or "DoesNotExist" in code
            or code in ("NoSuchEntity", "QueueDoesNotExist")
        ):
            return NotThere(code)
        return NotLooked(f"{service}:{action} did not succeed ({code or type(error).__name__})")

    def find_stack(self, name: str = "") -> Document | None:
        """A stack as it is now, this one by default, or None where there is none of this name. Raises `NotLooked`."""
        client = self.client("cloudformation")
        try:
            found: Document = client.describe_stacks(StackName=name or self.stack_name)["Stacks"][0]
        except (ClientError, BotoCoreError) as error:
            if error_code(error) == "ValidationError" and "does not exist" in str(error):
                return None
            raise self._told(error, "cloudformation", "DescribeStacks") from None
        return found

    @cached_property
    def stack(self) -> Document:
        """Raises `NotDone` where there is none, or it may not be looked at: nothing else can be found without it."""
        try:
            found: Document = self.call("cloudformation", "describe_stacks", StackName=self.stack_name)["Stacks"][0]
        except NotLooked as reason:
            # CloudFormation says of a stack that is not there that the request is not valid.
            raise local_cloud.not_named(
                f"the stack {self.stack_name} could not be looked up: {reason}; give --stack-name, and check the region"
            ) from None
        return found

    @cached_property
    def outputs(self) -> dict[str, str]:
        return {output["OutputKey"]: output["OutputValue"] for output in self.stack.get("Outputs", [])}

    @cached_property
    def parameters(self) -> dict[str, str]:
        return {each["ParameterKey"]: each.get("ParameterValue", "") for each in self.stack.get("Parameters", [])}

    @cached_property
    def _resources(self) -> list[Document]:
        found: list[Document] = []
        page: Document = {}
        while not found or page.get("NextToken"):
            token = {"NextToken": page["NextToken"]} if page.get("NextToken") else {}
            page = self.call("cloudformation", "list_stack_resources", StackName=self.stack_name, **token)
            if not page["StackResourceSummaries"]:
                break
            found += page["StackResourceSummaries"]
        return found

    def kinds(self, resource_type: str) -> dict[str, str]:
        return {
            resource["LogicalResourceId"]: resource.get("PhysicalResourceId", "")
            for resource in self._resources
            if resource["ResourceType"] == resource_type
        }

    def physical(self, logical_id: str) -> str:
        """Raises `NotThere`."""
        for resource in self._resources:
            if resource["LogicalResourceId"] == logical_id:
                return str(resource.get("PhysicalResourceId", ""))
        raise NotThere(logical_id)

    @cached_property
    def table(self) -> Table:
        return StackTable(self.outputs.get("TableName", "") or self.physical("Table"), self.client("dynamodb"))

    @cached_property
    def stored(self) -> StoredState:
        """What the table holds, for all checks: each listing is read once."""
        return StoredState(self.table, self.outputs.get("ApiUrl", ""), self.parameters)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Reads of the table, whose refusals are told like those of `call`."""
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise self._told(error, "dynamodb", getattr(error, "operation_name", "Query")) from None

    @contextmanager
    def network(self) -> Iterator[None]:
        """Platforms as this machine reaches them; those of a local cloud through its proxy, as its functions do."""
        wanted = {
            "HTTPS_PROXY": self.local.get("proxy_url"),
            "REQUESTS_CA_BUNDLE": self.local.get("ca_bundle"),
            "NO_PROXY": "127.0.0.1,localhost",
        }
        if not wanted["HTTPS_PROXY"]:
            yield
            return
        before = {name: os.environ.get(name) for name in (*wanted, "https_proxy", "no_proxy")}
        os.environ.update({name: str(value) for name, value in wanted.items() if value})
        for name in ("https_proxy", "no_proxy"):
            os.environ.pop(name, None)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
