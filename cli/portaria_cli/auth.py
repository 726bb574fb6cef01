"""Finds the API and its caller: an AWS principal (/admin/v1) or a private integration (/v1)."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound

from portaria.access import api_tokens, scopes
from portaria.core.callbacks import Secret
from portaria_cli import local_cloud
from portaria_cli.api import TIMEOUT_S, Api
from portaria_cli.errors import USAGE, Document, NotDone
from portaria_cli.profiles import TOKEN_VARIABLE, Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
NOTHING_THERE = "Missing Authentication Token"


@dataclass(frozen=True)
class Principal:
    """An AWS principal. Requests are signed with Signature Version 4."""

    region: str
    credentials: Credentials
    prefix: str = "/admin/v1"

    def sign(self, request: AWSRequest) -> None:
        SigV4Auth(self.credentials, "execute-api", self.region).add_auth(request)

    def advice(self, status: int, reason: str, said: str) -> str:
        if reason:
            return ""
        if said == NOTHING_THERE:
            return _nothing_there(status)
        if "expired" in said or "is invalid" in said or "does not match" in said:
            advice = "log in again, or set AWS_PROFILE"
            return f"the API refused your AWS credentials ({status}): {advice}; its answer: {said}"
        needed = (
            f"the API refused this AWS principal ({status}): it needs the permission execute-api:Invoke on this API's "
            "/admin/v1"
        )
        return needed + (f"; its answer: {said}" if said else "")


@dataclass(frozen=True)
class Integration:
    """A private integration with its token."""

    token: Secret
    prefix: str = "/v1"

    def sign(self, request: AWSRequest) -> None:
        request.headers["Authorization"] = f"Bearer {self.token.reveal()}"

    def advice(self, status: int, reason: str, said: str) -> str:
        integration = api_tokens.integration_id(self.token.reveal())
        match reason:
            case "missing_scope":
                words = re.findall(r"(?<![a-z-])[a-z-]++:[a-z]+", said)
                scope = next((word for word in words if word in scopes.SCOPES), "SCOPE")
                return f"an administrator can add it: `portaria private-integrations edit {integration} --add-scope {scope}`"
            case "administrators_only":
                return f"use AWS credentials: leave out --token-file and unset {TOKEN_VARIABLE}"
            case "token_refused":
                return f"an administrator can create a new one: `portaria private-integrations rotate {integration}`"
            case "":
                if said == NOTHING_THERE:
                    return _nothing_there(status)
                return f"the API refused this token ({status})" + (f"; its answer: {said}" if said else "")
        return ""


def find_api(settings: Settings, *, timeout_s: tuple[float, float] = TIMEOUT_S) -> Api:
    """The API at a URL, of a local cloud's file, or else of a stack's output `ApiUrl`.

    The caller is a private integration if there is a token. Otherwise it is the AWS principal whose credentials botocore
    finds (environment, profile, SSO), or the one of the local cloud. Raises `NotDone`.
    """
    token = read_token(settings.token_file, reads_variable=settings.reads_token_variable)
    stack = read_stack(settings.stack_file) if settings.stack_file else {}
    url = (settings.api_url or str(stack.get("api_url", ""))).rstrip("/")
    if token:
        return Api(_fit_for_a_token(url), Integration(token), timeout_s)
    if stack:
        credentials = Credentials(stack["access_key_id"], stack["secret_access_key"])
        return Api(url, Principal(stack["region"], credentials), timeout_s)
    session = aws_session(settings.region, settings.aws_profile)
    found = session.get_credentials()
    if not found:
        raise local_cloud.not_named("no AWS credentials were found: log in, or set AWS_PROFILE")
    url = url or _stack_output(session, settings.stack_name).rstrip("/")
    region = _region_of(url) or session.get_config_variable("region") or "us-east-1"
    return Api(url, Principal(region, found), timeout_s)


def aws_session(region: str | None, profile: str | None) -> botocore.session.Session:
    """A session with the person's AWS configuration. botocore itself does not read AWS_REGION. Raises `NotDone`."""
    session = botocore.session.Session(profile=profile)
    try:
        session.get_config_variable("region")
    except ProfileNotFound as missing:
        raise NotDone(f"the AWS configuration has no profile {missing.kwargs['profile']}", exit_code=USAGE) from None
    if region:
        session.set_config_variable("region", region)
    return session


def read_token(token_file: Path | None, *, reads_variable: bool = True) -> Secret | None:
    """A private integration's token, or None if none was given. Text that cannot be a token is not sent. Raises `NotDone`."""
    if token_file:
        place = str(token_file)
        try:
            text = token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise NotDone(f"{place} cannot be read: {error.strerror}", exit_code=USAGE) from None
        except UnicodeDecodeError:
            text = ""
    else:
        place = TOKEN_VARIABLE
        text = os.environ.get(TOKEN_VARIABLE, "").strip() if reads_variable else ""
        if not text:
            return None
    if not api_tokens.integration_id(text):
        rule = f"a token is {api_tokens.PREFIX} followed by 48 letters and digits, of which the last are a checksum"
        raise NotDone(f"{place} does not contain a private integration's token: {rule}", exit_code=USAGE)
    return Secret(text)


def _fit_for_a_token(url: str) -> str:
    if not url:
        raise local_cloud.not_named("with a token, give the API's URL too: --api-url or PORTARIA_API_URL", exit_code=2)
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise NotDone("a token is sent over https only: --api-url must begin with https://", exit_code=2)
    return url


def read_stack(stack_file: Path) -> Document:
    """The file of a local cloud. Raises `NotDone`."""
    place = stack_file.absolute()
    try:
        stack: Document = json.loads(stack_file.read_text(encoding="utf-8"))
        if not all(
            isinstance(stack[name], str) for name in ("api_url", "region", "access_key_id", "secret_access_key")
        ):
            raise ValueError
    except FileNotFoundError:
        known = local_cloud.stack_file()
        running = f"the running local cloud's file is {known}" if known else local_cloud.WRITTEN_BY
        raise NotDone(f"no such file: {place}; {running}", exit_code=3) from None
    except OSError as error:
        raise NotDone(f"{place} cannot be read: {error.strerror}", exit_code=3) from None
    except (ValueError, KeyError, TypeError):
        raise NotDone(f"{place} is not a local cloud's file: {local_cloud.WRITTEN_BY}", exit_code=3) from None
    return stack


def _stack_output(session: botocore.session.Session, stack_name: str) -> str:
    if not session.get_config_variable("region"):
        raise local_cloud.not_named("no AWS region is set: set AWS_REGION, or give --api-url")
    try:
        stacks = session.create_client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    except (ClientError, BotoCoreError) as error:
        raise local_cloud.not_named(_no_stack(error, stack_name)) from None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
    if "ApiUrl" not in outputs:
        advice = "give the name of Portaria's stack with --stack-name"
        raise NotDone(f"the stack {stack_name} has no output ApiUrl: {advice}", exit_code=3)
    return str(outputs["ApiUrl"])


def _no_stack(error: ClientError | BotoCoreError, stack_name: str) -> str:
    """What to do if a stack was not found. CloudFormation answers ValidationError for a stack that does not exist."""
    if not isinstance(error, ClientError):
        return (
            f"the stack {stack_name} could not be looked up ({type(error).__name__}): check the network and the region"
        )
    code = error.response["Error"]["Code"]
    if code == "ValidationError" and "does not exist" in error.response["Error"].get("Message", ""):
        return f"there is no stack {stack_name} in this account and region: give --stack-name, or set AWS_REGION"
    return f"the stack {stack_name} could not be looked up ({code}): give --stack-name or --api-url"


def _region_of(api_url: str) -> str:
    found = re.search(r"\.execute-api\.([a-z0-9-]+)\.", urlsplit(api_url).netloc)
    return found[1] if found else os.environ.get("AWS_REGION", "")


def _nothing_there(status: int) -> str:
    return (
        f"API Gateway does not know this path ({status}): check that the API's URL ends with its stage, such as /live"
    )
