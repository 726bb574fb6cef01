"""The console over TLS, with the function's own handler on a fake AWS: what API Gateway does, one request at a time."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme

from tests.fakes.api.console import Browser
from tests.fakes.aws import gateway
from tests.fakes.aws.moto_cloud import cloud
from tests.fakes.console.scenery import START, Scenery, furnish
from tests.fakes.virtual_time import VirtualClock


@dataclass
class Site:
    """`browser` calls the same function without a real browser. `others` are pages of other applications, by their path."""

    url: str
    browser: Browser
    scenery: Scenery
    others: dict[str, str] = field(default_factory=dict)

    def link(self, **wanted: Any) -> str:
        return f"{self.url}/live/console/sign-in?{urlsplit(self.browser.link(**wanted)).query}"

    def page(self, path: str) -> str:
        return f"{self.url}/live/console/{path}"

    @property
    def elsewhere(self) -> str:
        """The same server under the name of another site, where `others` are."""
        return self.url.replace("localhost", "127.0.0.1")


@contextmanager
def serving() -> Iterator[Site]:
    """A stack with the scenery, in virtual time."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert(tls)
    clock = VirtualClock(START)
    with cloud() as stack, clock.installed():
        browser = Browser(stack)
        scenery = furnish(browser, clock)
        others: dict[str, str] = {}
        with ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(browser, others, threading.Lock())) as server:
            server.daemon_threads = True
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield Site(f"https://localhost:{server.server_port}", browser, scenery, others)
            finally:
                server.shutdown()
                thread.join()


def _handler_for(browser: Browser, others: dict[str, str], turn: threading.Lock) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            host = self.headers["Host"]
            if not parts.path.startswith("/live/console"):
                content = others.get(parts.path, "").encode()
                self.send_response(200 if content else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
            event = gateway.proxy_event(
                self.command,
                "/console/{proxy+}",
                parts.path.removeprefix("/live"),
                query=parse_qs(parts.query, keep_blank_values=True),
                headers=dict(self.headers.items()),
                body=body or None,
            )
            event["requestContext"]["domainName"] = host
            with turn:
                answer = browser.handle(event)
            content = answer["body"].encode()
            self.send_response(answer["statusCode"])
            for name, values in answer["multiValueHeaders"].items():
                for value in values:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
