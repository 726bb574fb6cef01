"""Where the API is, and who calls it: an AWS principal below /admin/v1, or a private integration below /v1."""

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
from botocore.exceptions import BotoCoreError, ClientError

from portaria.access import api_tokens, scopes
from portaria.core.entities import Secret
from portaria_cli.api import TIMEOUT_S, Api, Document, NotDone

TOKEN_VARIABLE = "PORTARIA_TOKEN"  # noqa: S105 - a name
LOOPBACK = ("localhost", "127.0.0.1", "::1")
NOTHING_THERE = "Missing Authentication Token"


@dataclass(frozen=True)
class Principal:
    """An AWS principal, who signs with Signature Version 4."""

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
            return f"the API did not take your AWS credentials ({status}): log in again, or set AWS_PROFILE; it said: {said}"
        needed = (
            f"the API did not let this AWS principal in ({status}): it needs execute-api:Invoke on this API's /admin/v1"
        )
        return needed + (f"; it said: {said}" if said else "")


@dataclass(frozen=True)
class Integration:
    """A private integration, by its token."""

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
                return f"an administrator adds it: `portaria integrations edit {integration} --add-scope {scope}`"
            case "administrators_only":
                return f"sign with AWS credentials, without --token-file and {TOKEN_VARIABLE}"
            case "token_refused":
                return f"an administrator can make a new one: `portaria integrations rotate {integration}`"
            case "":
                if said == NOTHING_THERE:
                    return _nothing_there(status)
                return f"the API did not let this token in ({status})" + (f"; it said: {said}" if said else "")
        return ""


def find_api(
    api_url: str | None,
    stack_name: str,
    stack_file: Path | None,
    token_file: Path | None = None,
    *,
    timeout_s: tuple[float, float] = TIMEOUT_S,
) -> Api:
    """The API as it was asked for: by its URL, by a local cloud's file, else by a stack's output `ApiUrl`.

    A token comes from `token_file` or the environment. Without one the person's usual AWS credentials and region are used
    (environment, profile, SSO), or the local cloud's own.
    """
    token = read_token(token_file)
    stack = read_stack(stack_file) if stack_file else {}
    url = (api_url or str(stack.get("api_url", ""))).rstrip("/")
    if token:
        return Api(_fit_for_a_token(url), Integration(token), timeout_s)
    if stack:
        credentials = Credentials(stack["access_key_id"], stack["secret_access_key"])
        return Api(url, Principal(stack["region"], credentials), timeout_s)
    session = botocore.session.Session()
    found = session.get_credentials()
    if not found:
        raise NotDone("no AWS credentials were found: log in, or set AWS_PROFILE", exit_code=3)
    url = url or _stack_output(session, stack_name).rstrip("/")
    region = _region_of(url) or session.get_config_variable("region") or "us-east-1"
    return Api(url, Principal(region, found), timeout_s)


def read_token(token_file: Path | None) -> Secret | None:
    """A private integration's token, or None where none was given. What cannot be one goes nowhere."""
    if token_file:
        place = str(token_file)
        try:
            text = token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise NotDone(f"{place} cannot be read: {error.strerror}", exit_code=2) from None
        except UnicodeDecodeError:
            text = ""
    else:
        place = TOKEN_VARIABLE
        text = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not text:
            return None
    if not api_tokens.integration_id(text):
        rule = f"one is {api_tokens.PREFIX} and 48 letters and digits, the last of which are a checksum"
        raise NotDone(f"{place} holds no token of a private integration: {rule}", exit_code=2)
    return Secret(text)


def _fit_for_a_token(url: str) -> str:
    if not url:
        raise NotDone("a token does not say where the API is: give --api-url or PORTARIA_API_URL", exit_code=2)
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise NotDone("a token is sent over https only: --api-url begins with https://", exit_code=2)
    return url


def read_stack(stack_file: Path) -> Document:
    """A local cloud's file. Raises `NotDone` where it cannot be read."""
    try:
        stack: Document = json.loads(stack_file.read_text())
        if not all(
            isinstance(stack[name], str) for name in ("api_url", "region", "access_key_id", "secret_access_key")
        ):
            raise ValueError
    except OSError:
        raise NotDone(f"{stack_file} cannot be read: start the local cloud with `make up`", exit_code=3) from None
    except (ValueError, KeyError, TypeError):
        raise NotDone(f"{stack_file} is not what `make up` writes", exit_code=3) from None
    return stack


def _stack_output(session: botocore.session.Session, stack_name: str) -> str:
    if not session.get_config_variable("region"):
        raise NotDone("no AWS region is set: set AWS_REGION, or give --api-url", exit_code=3)
    try:
        stacks = session.create_client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"]
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise NotDone(
            f"the stack {stack_name} could not be looked up ({code}): give --stack-name or --api-url", exit_code=3
        ) from None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
    if "ApiUrl" not in outputs:
        raise NotDone(f"the stack {stack_name} has no output ApiUrl: is it Portaria's?", exit_code=3)
    return str(outputs["ApiUrl"])


def _region_of(api_url: str) -> str:
    found = re.search(r"\.execute-api\.([a-z0-9-]+)\.", urlsplit(api_url).netloc)
    return found[1] if found else os.environ.get("AWS_REGION", "")


def _nothing_there(status: int) -> str:
    return f"API Gateway has nothing at this address ({status}): is the URL whole, with its stage?"
