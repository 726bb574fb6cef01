"""The function `console`, called as a browser calls it through API Gateway: with its cookies, its forms and their origin."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests
from botocore.awsrequest import AWSResponse

from portaria.aws import lambda_functions
from tests.fakes.api.manage import Manage
from tests.fakes.aws import functions, gateway
from tests.fakes.aws.moto_cloud import Cloud

ORIGIN = f"https://{gateway.API_HOST}"
BASE = f"/{gateway.STAGE}/console"


@dataclass(frozen=True)
class Page:
    status: int
    headers: dict[str, list[str]]
    text: str = field(repr=False)

    @property
    def location(self) -> str:
        return self.headers.get("Location", [""])[0]

    def value(self, name: str) -> str:
        """The value of a form's hidden input."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.text)
        return html.unescape(found[1]) if found else ""


class Browser:
    """One browser at the console of a stack."""

    def __init__(self, cloud: Cloud) -> None:
        self.module = functions.load("console", cloud.environment)
        self.call_connection = functions.load("call_connection", cloud.environment)
        self.manage = Manage(cloud)
        self.cookies: dict[str, str] = {}

    def link(self, **wanted: Any) -> str:
        """A one-time link, as `portaria console` gets it."""
        made = self.manage.call("POST", "/console-sessions", wanted)
        assert made.status == 201, made.text
        return str(made.content["url"])

    def sign_in(self, **wanted: Any) -> Page:
        url = urlsplit(self.link(**wanted))
        return self.get(f"{url.path.removeprefix(BASE)}?{url.query}")

    def get(self, path: str, **headers: str) -> Page:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, fields: dict[str, Any] | None = None, **headers: str) -> Page:
        """Send a form as a browser does from a page of this origin."""
        body = urlencode(fields or {}, doseq=True)
        standard = {"Origin": ORIGIN, "Content-Type": "application/x-www-form-urlencoded"}
        return self.send("POST", path, body, {**standard, **headers})

    def submit(self, path: str, fields: dict[str, Any] | None = None) -> Page:
        """Open a form's page and send it with its hidden inputs."""
        page = self.get(path)
        assert page.status == 200, page.text
        hidden = {name: page.value(name) for name in ("csrf_token", "idempotency_key", "etag")}
        return self.post(path, {**hidden, **(fields or {})})

    def send_file(self, path: str, fields: dict[str, str], name: str, filename: str, content: bytes) -> Page:
        """Send a form with a file, as a browser does."""
        request = requests.Request("POST", ORIGIN, data=fields, files={name: (filename, content)}).prepare()
        body, content_type = request.body or b"", request.headers["Content-Type"]
        return self.send("POST", path, body, {"Origin": ORIGIN, "Content-Type": content_type})

    def send(self, method: str, path: str, body: str | bytes = "", headers: dict[str, str] | None = None) -> Page:
        """`path` is below the console, with its query. Empty headers are left out."""
        parts = urlsplit(path)
        given = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **(headers or {})}
        below = parts.path.strip("/")
        event = gateway.proxy_event(
            method,
            "/console/{proxy+}" if below else "/console",
            f"/console/{below}" if below else "/console",
            path_parameters={"proxy": below} if below else None,
            query=parse_qs(parts.query, keep_blank_values=True),
            headers={name: value for name, value in given.items() if value},
            body=body or None,
        )
        answer = self.handle(event)
        page = Page(answer["statusCode"], answer["multiValueHeaders"], answer["body"])
        for cookie in page.headers.get("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            if "Max-Age=0" in cookie:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return page

    def handle(self, event: dict[str, Any]) -> dict[str, Any]:
        """The function's answer to an event of API Gateway."""
        with self._invoking():
            answer: dict[str, Any] = self.module.handler(event, functions.Context())
        return answer

    @contextmanager
    def _invoking(self) -> Iterator[None]:
        """Lambda's Invoke runs the handler of `call_connection`."""

        def invoke(params: dict[str, Any], **_: Any) -> tuple[AWSResponse, dict[str, Any]]:
            answer = self.call_connection.handler(json.loads(params["body"]), functions.Context())
            content = {"StatusCode": 200, "Payload": io.BytesIO(json.dumps(answer).encode())}
            return AWSResponse("", 200, {}, None), content

        events = lambda_functions._client().meta.events
        events.register_first("before-call.lambda.Invoke", invoke)
        try:
            yield
        finally:
            events.unregister("before-call.lambda.Invoke", invoke)
