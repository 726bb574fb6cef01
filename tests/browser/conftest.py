"""Chromium, driven by Playwright, and a server on loopback that serves the product's own pages."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route, sync_playwright

from portaria.connections.branding import logos
from portaria.core import return_urls
from portaria.core.callbacks import Secret
from portaria.platforms.kommo import install as kommo
from portaria.web import render
from portaria.web.branding import Brand
from portaria.webhooks.customer_return import CustomerReturn
from tests.fakes import chromium
from tests.fakes.paths import ROOT

INSTALL = "mfzwizltoq2dkobvhe3tmnzygq"
CLIENT_ID = "5f3c1f0e-8b7a-4c1e-9d57-2b8d2f9a1c10"
STATE = "a-one-time-state"
OVER = ("connected", "failed", "refused")
CONNECT_BUTTON = ROOT / "examples" / "connect_button.html"
LOGO = logos.check(
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="14" fill="#7c3aed"/></svg>'
)
KOMMO_BUTTON = (Path(__file__).parent / "kommo_button.js").read_text()


# Ends with this folder's tests, because a running event loop would disturb other suites.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = chromium.path()
    if path is None:
        pytest.skip(chromium.MISSING)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=chromium.FLAGS)
        yield launched
        launched.close()


@dataclass
class Install:
    """The test server's data about an install, and its requests."""

    state: str = "received"
    reason: str = ""
    account: str = ""
    brand: Brand = Brand("Aurora Sync")  # noqa: RUF009 - frozen
    return_url: str = ""
    asked: int = 0
    loaded: int = 0
    # The statuses of the next responses, then 200.
    answers: list[int] = field(default_factory=list)


@dataclass
class Site:
    """The pages under a stage's prefix, as API Gateway serves them."""

    url: str
    install: Install

    def page(self, name: str) -> str:
        return f"{self.url}/live/install/kommo/aurora/{name}"

    @property
    def application(self) -> str:
        """The team's application, which is another site."""
        return f"{self.url.replace('127.0.0.1', 'localhost')}/app"

    @property
    def elsewhere(self) -> str:
        """A page of another site, as browsers see it, on the same server."""
        return self.page("refused").replace("127.0.0.1", "localhost")

    @property
    def result(self) -> str:
        return self.page(f"result/{INSTALL}")


def return_of(install: Install, status: str) -> CustomerReturn | None:
    """As the function decides: for a popup window, if the URL is registered."""
    if not install.return_url:
        return None
    url = return_urls.with_result(install.return_url, INSTALL, status) if status in OVER else ""
    return CustomerReturn(return_urls.origin(install.return_url), url)


def make_page(path: str, language: str, install: Install, *, in_popup: bool = False) -> render.Page | None:
    """The page at a path below `/live/install/kommo/aurora/`."""
    name, _, rest = path.removeprefix("/live/install/kommo/aurora/").partition("/")
    if name == "start":
        return render.start(
            language,
            brand=install.brand,
            allows=["See contacts", "See files"],
            consent_url=kommo.consent_url(CLIENT_ID, Secret(STATE)),
            button=kommo.button(CLIENT_ID, Secret(STATE), language),
        )
    if name == "result":
        return render.result(
            language,
            install=rest,
            state=install.state,
            start_url="../start",
            reason=install.reason,
            account=install.account,
            brand=replace(install.brand, logo_url=f"../{install.brand.logo_url}")
            if install.brand.logo_url
            else install.brand,
            popup_return=return_of(install, install.state) if in_popup else None,
        )
    if name == "refused":
        going = return_of(install, "refused") if in_popup else None
        return render.refused(language, start_url="start", brand=install.brand, popup_return=going)
    if name == "rejected":
        detail = "referer must be the account's host, one name under kommo.com or amocrm.com (got 21 characters)"
        return render.rejected(language, reason=rest, detail=detail, start_url="../start")
    if name == "sign_on":
        return render.sign_on_failed(language, reason=rest, status=503 if rest == "unavailable" else 410)
    return None


def application_page(path: str, port: int) -> str:
    """The pages of the team's application: the documented button, and a page to return to. Empty for any other path."""
    if path == "/app/done":
        content = "<h1>Welcome back</h1>"
    elif path == "/app/connect":
        address = "https://connect.example.com/install/kommo/aurora/start?link=TOKEN"
        result = f"http://127.0.0.1:{port}/live/install/kommo/aurora/result/{INSTALL}?link=TOKEN"
        content = CONNECT_BUTTON.read_text()
        assert address in content
        content = content.replace(address, result)
    else:
        return ""
    return f'<!doctype html><html lang="en"><title>Team</title><link rel="icon" href="data:,">{content}</html>'


def handler_for(install: Install) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, in_popup = urlsplit(self.path).path, "display=popup" in self.path
            port = self.server.server_port  # type: ignore[attr-defined]
            if document := application_page(path, port):
                self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, document)
                return
            if path.endswith(f"/logo/{LOGO.version}"):
                self.answer(200, {"Content-Type": LOGO.content_type}, LOGO.content.decode())
                return
            if "application/json" in self.headers.get("Accept", ""):
                install.asked += 1
                status = install.answers.pop(0) if install.answers else 200
                known = {"state": install.state, "reason": install.reason, "account": install.account}
                going = return_of(install, install.state)
                known |= {"return_to": going.url} if going and going.url else {}
                body = json.dumps(known) if status == 200 else "<h1>not now</h1>"
                self.answer(status, {"Content-Type": "application/json"}, body)
                return
            install.loaded += 1
            going = return_of(install, install.state)
            if "/result/" in path and going and going.url and not in_popup:
                self.answer(303, {"Location": going.url}, "")
                return
            language = render.language_of(self.headers.get("Accept-Language"))
            page = make_page(path, language, install, in_popup=in_popup)
            if page is None:
                self.answer(404, {"Content-Type": "text/plain"}, "no such page")
                return
            self.answer(page.status, page.headers, page.body)

        def answer(self, status: int, headers: dict[str, str], body: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    install = Install()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_for(install)) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Site(f"http://127.0.0.1:{server.server_port}", install)
        server.shutdown()
        thread.join()


@dataclass
class Watch:
    """Violations of the rules for our pages in a browser context."""

    complaints: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    consent: Callable[[Route], None] | None = None
    button: str | None = KOMMO_BUTTON


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def open_context(browser: Browser, site: Site, watch: Watch) -> Iterator[Callable[..., BrowserContext]]:
    """Creates contexts that can reach only the test server and stand-ins for www.kommo.com.

    At the end no page may have had an error in its console, such as a policy violation, or requested another host.
    """
    contexts: list[BrowserContext] = []

    def lead(route: Route, request: Request) -> None:
        if request.url.startswith((site.url, site.elsewhere, site.application)):
            route.continue_()
        elif request.url == "https://www.kommo.com/auth/button.js":
            if watch.button is None:
                route.abort()
            else:
                route.fulfill(body=watch.button, content_type="text/javascript")
        elif request.url.startswith("https://www.kommo.com/oauth") and watch.consent:
            watch.consent(route)
        else:
            watch.outside.append(request.url)
            route.abort()

    def hear(message: ConsoleMessage) -> None:
        # A page with an error status is logged like a missing one.
        url = message.location["url"]
        own = message.text.startswith("Failed to load resource") and ("/rejected/" in url or "/sign_on/" in url)
        if message.type in ("error", "warning") and not own:
            watch.complaints.append(message.text)

    def make(**options: object) -> BrowserContext:
        context = browser.new_context(**{"locale": "en-GB", **options})  # type: ignore[arg-type]
        context.set_default_timeout(10_000)
        context.route("**/*", lead)
        context.on("console", hear)
        context.on("weberror", lambda error: watch.complaints.append(str(error.error)))
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()
    assert watch.outside == []
    assert watch.complaints == []


@pytest.fixture
def page(open_context: Callable[..., BrowserContext]) -> Page:
    return open_context().new_page()
