"""The command line, run in process against the real functions: only the transport between them is faked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.awsrequest import AWSPreparedRequest, HeadersDict
from botocore.exceptions import ConnectionClosedError, HTTPClientError
from click.testing import CliRunner, Result

from portaria.api.operation_tables.index import CALL
from portaria_cli import api as cli_api
from portaria_cli.commands import portaria
from tests.fakes.api.calling import Calling
from tests.fakes.api.manage import API_URL, BY_RESOURCE, Manage, proxy_event, read, with_headers, with_token
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import Cloud

SIGNATURE = r"AWS4-HMAC-SHA256 Credential=testing/\d{8}/us-east-1/execute-api/aws4_request, "
BEARER = r"Bearer portaria_[0-9A-Za-z]{48}$"


class Answered:
    """The return value of botocore's session."""

    def __init__(self, status_code: int, text: str, headers: dict[str, str] | None = None) -> None:
        self.status_code, self.text, self.headers = status_code, text, HeadersDict(headers or {})


def empty_listing(request: AWSPreparedRequest) -> Answered:
    return Answered(200, '{"items": [], "next_cursor": null}')


def headers_of(request: AWSPreparedRequest) -> dict[str, str]:
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in request.headers.items()}


class Wire:
    """Passes the command line's requests to the functions, after checking their signatures."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.manage, self.calling = Manage(cloud), Calling(cloud)
        self.requests: list[AWSPreparedRequest] = []
        self.instead: Callable[[AWSPreparedRequest], Answered] | None = None

    def send(self, request: AWSPreparedRequest) -> Answered:
        self.requests.append(request)
        wanted = BEARER if urlsplit(request.url).path.startswith("/live/v1/") else SIGNATURE
        assert re.match(wanted, headers_of(request)["Authorization"])
        return self.instead(request) if self.instead else self.deliver(request)

    def deliver(self, request: AWSPreparedRequest) -> Answered:
        parts = urlsplit(request.url)
        prefix = "/v1" if parts.path.startswith("/live/v1/") else "/admin/v1"
        path = parts.path.removeprefix(f"/live{prefix}") + (f"?{parts.query}" if parts.query else "")
        event = proxy_event(request.method, path, request.body.decode() if request.body else None, prefix)
        given = headers_of(request)
        event = with_headers(event, **{name: given[name] for name in ("Idempotency-Key", "If-Match") if name in given})
        if prefix == "/v1":
            event = with_token(event, given["Authorization"].removeprefix("Bearer "))
        operation = BY_RESOURCE.get((event["httpMethod"], event["resource"]))
        function = self.calling if operation and operation.function == CALL else self.manage
        answer = read(event, function.module.handler(event, functions.Context()))
        return Answered(answer.status, answer.text, answer.headers)

    def lose(self, error: type[HTTPClientError] = ConnectionClosedError, times: int = 1) -> None:
        """The next requests are delivered, and their responses lost."""
        left = [times]

        def carry(request: AWSPreparedRequest) -> Answered:
            answer = self.deliver(request)
            if request.method == "GET" or not left[0]:
                return answer
            left[0] -= 1
            raise error(endpoint_url=request.url, request=request, error="lost")

        self.instead = carry


def wired(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire(cloud)
    monkeypatch.setattr(cli_api, "URLLib3Session", lambda **_: wire)
    monkeypatch.setenv("PORTARIA_API_URL", API_URL)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("PORTARIA_TOKEN", raising=False)
    return wire


def run(*arguments: str | Path, exit_code: int = 0, **options: Any) -> Result:
    result = CliRunner().invoke(portaria, [str(argument) for argument in arguments], **options)
    assert result.exit_code == exit_code, result.output
    assert "canary" not in result.output
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def told(*arguments: str | Path, **options: Any) -> Any:
    return json.loads(run("--json", *arguments, **options).stdout)


def listed(*arguments: str | Path, **options: Any) -> list[Any]:
    """The items of a listing as JSON."""
    items: list[Any] = told(*arguments, **options)["items"]
    return items
