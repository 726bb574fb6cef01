"""Calling the administrators' API: where it is, who calls (AWS Signature Version 4), and its refusals as one sentence."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

# The function behind has 20 s; API Gateway gives up after 29.
TIMEOUT_S = (5, 35)

Document = dict[str, Any]


class NotDone(Exception):
    """It cannot be done, in a sentence for the person. `exit_code` is 1 where the API refused, 3 where it was not reached."""

    def __init__(self, sentence: str, *, exit_code: int = 1, status: int = 0, problem: Document | None = None) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.status = status
        self.problem = problem or {}


@dataclass(frozen=True)
class Api:
    """The API at `url` (with its stage), called with `credentials`."""

    url: str
    region: str
    credentials: Credentials

    def get(self, *path: str) -> Document:
        return self._call("GET", path)

    def find(self, *path: str) -> Document | None:
        """What stands at a path, or None."""
        try:
            return self.get(*path)
        except NotDone as refused:
            if refused.status == 404 and refused.problem.get("type", "").rpartition(":")[2].startswith("unknown_"):
                return None
            raise

    def post(self, *path: str, body: Document) -> Document:
        return self._call("POST", path, body=body)

    def put(self, *path: str, body: Document) -> Document:
        return self._call("PUT", path, body=body)

    def delete(self, *path: str) -> None:
        self._call("DELETE", path)

    def list(self, *path: str, most: int | None = None, **filters: str) -> Iterator[Document]:
        """Every item of a listing, or the first `most`, page by page."""
        cursor: str | None = None
        told = 0
        while True:
            size = 100 if most is None else min(100, most - told)
            query = {**filters, "limit": str(size)} | ({"cursor": cursor} if cursor else {})
            page = self._call("GET", path, query=query)
            yield from page["items"]
            told += len(page["items"])
            cursor = page["next_cursor"]
            if not cursor or (most is not None and told >= most):
                return

    def _call(
        self, method: str, path: tuple[str, ...], *, query: dict[str, str] | None = None, body: Document | None = None
    ) -> Document:
        url = "/".join((f"{self.url}/admin/v1", *(quote(step, safe="") for step in path)))
        request = AWSRequest(
            method=method,
            url=url + (f"?{urlencode(query, quote_via=quote)}" if query else ""),
            data=None if body is None else json.dumps(body).encode(),
            headers={"Accept": "application/json", "Content-Type": "application/json"},
        )
        SigV4Auth(self.credentials, "execute-api", self.region).add_auth(request)
        session = URLLib3Session(timeout=TIMEOUT_S, proxies=get_environ_proxies(url))
        try:
            answer = session.send(request.prepare())
        except (HTTPClientError, BotoCoreError) as error:
            raise NotDone(f"{urlsplit(url).netloc} was not reached ({type(error).__name__})", exit_code=3) from None
        return _read(answer)


def _read(answer: AWSResponse) -> Document:
    try:
        content = json.loads(answer.text) if answer.text else {}
    except ValueError:
        content = {}
    if not isinstance(content, dict):
        content = {}
    if answer.status_code < 300:
        return content
    if "detail" in content:
        errors = [str(error.get("detail")) for error in content.get("errors", [])] or [str(content["detail"])]
        sentence = "; ".join(errors)
    elif answer.status_code == 403:
        sentence = (
            "the API did not let this AWS principal in (403): it needs execute-api:Invoke on this API's /admin/v1"
            + (f"; it said: {content['message']}" if isinstance(content.get("message"), str) else "")
        )
    else:
        sentence = f"the API answered {answer.status_code}" + (
            f": {content['message']}" if "message" in content else ""
        )
    raise NotDone(sentence, status=answer.status_code, problem=content)


def find_api(api_url: str | None, stack_name: str, stack_file: Path | None) -> Api:
    """The API as it was asked for: by its URL, by a local cloud's file, else by a stack's output `ApiUrl`.

    Credentials and region are the person's usual ones (environment, profile, SSO), or the local cloud's own.
    """
    if stack_file:
        return _local(stack_file, api_url)
    session = botocore.session.Session()
    credentials = session.get_credentials()
    if not credentials:
        raise NotDone("no AWS credentials were found: log in, or set AWS_PROFILE", exit_code=3)
    if not api_url:
        api_url = _stack_output(session, stack_name)
    return Api(
        api_url.rstrip("/"), _region_of(api_url) or session.get_config_variable("region") or "us-east-1", credentials
    )


def _local(stack_file: Path, api_url: str | None) -> Api:
    try:
        stack = json.loads(stack_file.read_text())
        credentials = Credentials(stack["access_key_id"], stack["secret_access_key"])
        return Api((api_url or stack["api_url"]).rstrip("/"), stack["region"], credentials)
    except OSError:
        raise NotDone(f"{stack_file} cannot be read: start the local cloud with `make up`", exit_code=3) from None
    except (ValueError, KeyError, TypeError):
        raise NotDone(f"{stack_file} is not what `make up` writes", exit_code=3) from None


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
