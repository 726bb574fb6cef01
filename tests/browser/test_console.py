"""The console in Chromium, over TLS, with the function's own handler on a fake AWS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import ConsoleMessage, Page

from tests.fakes.api.console import Browser
from tests.fakes.api.manage import add_install
from tests.fakes.aws import gateway
from tests.fakes.aws.moto_cloud import cloud

PHONE = {"width": 390, "height": 844}
CLIENT = {"platform": "kommo", "name": "acme", "client_id": "5f3c1f0e-8b7a-4c1e-9d57-2b8d2f9a1c10"}
CONNECTION = {"name": "erp", "platform": "http", "kind": "api_key", "allowed_domain": "api.example.com"}
SEED = (
    ("/oauth-clients", {**CLIENT, "client_secret": "canary-s"}),
    ("/connections", {**CONNECTION, "fields": {"header_name": "X-Key"}, "credentials": {"key": "canary-k"}}),
    ("/private-integrations", {"name": "Exports " + "w" * 60, "scopes": ["connections:call@erp", "records:send"]}),
)
PATHS = (
    "overview", "installs", "installs?state=failed", "connections", "connections/erp", "connections/erp/call",
    "connections/erp/delete", "oauth-clients", "oauth-clients/kommo/acme", "oauth-clients/kommo/acme/edit", "oauth-clients/new",
    "private-integrations", "private-integrations/new", "routes", "routes/new", "receipts",
    "connections/new", "connections/new?platform=http&kind=basic", "connections/erp/tags", "install-links", "install-links/new",
    "webhooks", "webhooks/new", "dead-letters/redrive_matching", "dead-letters/delete_matching", "search",
    "search?receipt=none",
    "dead-letters", "destinations",
    "audit", "sessions",
)  # fmt: skip


@dataclass
class Site:
    """The console behind a server that does what API Gateway does. One request at a time, as moto needs it."""

    url: str
    browser: Browser

    def link(self, **wanted: Any) -> str:
        return f"{self.url}/live/console/sign-in?{urlsplit(self.browser.link(**wanted)).query}"

    def page(self, path: str) -> str:
        return f"{self.url}/live/console/{path}"


def handler_for(browser: Browser, turn: threading.Lock) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            host = self.headers["Host"]
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


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    with cloud() as stack:
        browser = Browser(stack)
        for number in range(6):
            add_install(stack, number, **({"state": "failed", "reason": "code_expired"} if number % 3 == 0 else {}))
        for path, body in SEED:
            made = browser.manage.call("POST", path, body)
            assert made.status == 201, made.text
        with ThreadingHTTPServer(("127.0.0.1", 0), handler_for(browser, threading.Lock())) as server:
            server.daemon_threads = True
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            yield Site(f"https://localhost:{server.server_port}", browser)
            server.shutdown()
            thread.join()


@pytest.fixture
def sign_in(browser: Chromium, site: Site) -> Iterator[Callable[..., Page]]:
    """Opens a link in a browser of its own. At the end no page may have logged an error, such as a policy violation."""
    contexts, complaints = [], []

    def hear(message: ConsoleMessage) -> None:
        # The page that says how to sign in has the status 401.
        if message.type in ("error", "warning") and not message.location["url"].endswith("/sign-in"):
            complaints.append(f"{message.text} {message.location['url']}")

    def make(**options: Any) -> Page:
        context = browser.new_context(**{"locale": "en-GB", "ignore_https_errors": True, **options})
        context.set_default_timeout(10_000)
        context.on("console", hear)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        contexts.append(context)
        page = context.new_page()
        page.goto(site.link())
        page.wait_for_url("**/overview")
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


def press_to(page: Page, selector: str) -> None:
    """Move the focus with the Tab key until it is on an element."""
    for _ in range(200):
        if page.evaluate("selector => document.activeElement?.matches(selector) ?? false", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {selector}")


def follow(page: Page, selector: str) -> None:
    """Press Enter on an element that leads to another page."""
    press_to(page, selector)
    with page.expect_navigation():
        page.keyboard.press("Enter")


def test_console_keyboard_creates_rotates_and_deletes_an_integration(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in(permissions=["clipboard-read", "clipboard-write"])
    follow(page, 'nav.side a[href$="/private-integrations"]')
    follow(page, 'a[href$="/private-integrations/new"]')
    press_to(page, "#f-name")
    page.keyboard.type("Keyboard")
    press_to(page, 'input[value="connections:list"]')
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_selector("#once-token")
    token = page.input_value("#once-token")
    press_to(page, ".once button")
    page.keyboard.press("Enter")
    page.wait_for_function("token => navigator.clipboard.readText().then(text => text === token)", arg=token)
    id_ = token[9:19]
    for action, text in (("rotate", "#once-token"), ("delete", "p.notice.good")):
        page.goto(site.page(f"private-integrations/{id_}"))
        follow(page, f'a[href$="/{action}"]')
        follow(page, "form.entry button")
        page.wait_for_selector(text)
    assert site.browser.manage.call("GET", f"/private-integrations/{id_}").status == 404


def test_console_without_script_creates_an_integration_and_signs_out(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in(java_script_enabled=False)
    page.goto(site.page("private-integrations/new"))
    page.fill("#f-name", "Without script")
    page.check('input[value="connections:list"]')
    page.click("form.entry button")
    assert page.input_value("#once-token").startswith("portaria_")
    page.goto(site.page("audit"))
    assert "create_private_integration" in page.inner_text("main")
    page.click(".who button")
    page.wait_for_url("**/sign-in")


def test_console_pages_fit_a_phone_without_horizontal_scrolling(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in(viewport=PHONE)
    wide = []
    for path in PATHS:
        answer = page.goto(site.page(path))
        assert answer is not None
        assert answer.status == 200, path
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            wide.append(f"{path}: {width}")
    assert wide == []


def test_console_refresh_of_the_overview_keeps_the_page(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in()
    page.clock.install()
    page.goto(site.page("overview"))
    add_install(site.browser.manage.cloud, 77, account_host="refreshed.kommo.com")
    page.clock.run_for(16_000)
    page.wait_for_selector("text=refreshed.kommo.com")
