"""A customer installs in Chromium, on the local cloud: start page, Kommo's consent page, callback, result."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from portaria.web import render
from tests.fakes.local_cloud.session import LocalCloud

# From consent to connected, including cold starts.
CONNECTED_WITHIN_MS = 60_000
KOMMO = "www.kommo.com"
LOGO = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
    b'<rect width="64" height="64" rx="14" fill="#7c3aed"/></svg>'
)


def said(key: str, language: str = "en", **values: str) -> str:
    return render._texts()[key][language].format(**values)


@dataclass
class Installation:
    """An OAuth client registered with Portaria and with the simulator, and an account that may install it."""

    cloud: LocalCloud
    client: str
    account_host: str

    @property
    def start_url(self) -> str:
        return f"{self.cloud.public_url}/install/kommo/{self.client}/start"


@dataclass
class Customer:
    """A browser with a proxy to the local cloud, and the requests that it made."""

    context: BrowserContext
    page: Page
    returns: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def consent(self, decision: str, installation: Installation, *, page: Page | None = None) -> None:
        """Decide on the simulator's consent page."""
        page = page or self.page
        page.get_by_label("Account").select_option(installation.account_host)
        page.get_by_role("button", name=decision).click()

    def sees(self, key: str, language: str = "en") -> None:
        expect(self.page.get_by_role("heading", level=1)).to_have_text(said(key, language), timeout=CONNECTED_WITHIN_MS)


Register = Callable[..., Installation]
Visit = Callable[..., Customer]


@pytest.fixture
def register(stack: LocalCloud) -> Register:
    def make(*, registered_with_kommo: str = "") -> Installation:
        unique = secrets.token_hex(4)
        client, client_id, client_secret = f"browser-{unique}", f"client-{unique}", f"canary-{unique}"
        redirect_uri = f"{stack.public_url}/install/kommo/{client}"
        stack.control.add_kommo_client(client_id, client_secret, redirect_uri + registered_with_kommo, name=client)
        account = stack.control.add_kommo_account(f"browser{unique}", contacts=3)
        answer = stack.admin.post(
            f"{stack.public_url}/admin/v1/oauth-clients",
            json={
                "platform": "kommo",
                "name": client,
                "client_id": client_id,
                "client_secret": client_secret,
                "redirect_uri": redirect_uri,
                "display_name": "Aurora Sync",
                "logo": base64.b64encode(LOGO).decode(),
                "colour": "#7c3aed",
                # Any page that answers can stand for the team's application.
                "return_urls": [f"{stack.public_url}/health"],
            },
        )
        assert answer.status_code == 201, answer.text
        return Installation(stack, client, account["host"])

    return make


@pytest.fixture
def visit(browser: Browser, stack: LocalCloud) -> Iterator[Visit]:
    """Creates customers. At the end none may have requested a third host or have had an error in the console."""
    customers: list[Customer] = []

    def make(*, locale: str = "en-GB") -> Customer:
        context = browser.new_context(locale=locale, ignore_https_errors=True, proxy={"server": stack.stack.proxy_url})
        context.set_default_timeout(30_000)
        customer = Customer(context, context.new_page())

        def see(request: Request) -> None:
            url = urlsplit(request.url)
            if url.scheme != "data":
                customer.hosts.add(url.hostname or "")
            query = parse_qs(url.query)
            if request.is_navigation_request() and ("code" in query or "error" in query):
                customer.returns.append(request.url)

        def hear(message: ConsoleMessage) -> None:
            # Chromium logs every page with an error status; Kommo's own pages are not checked.
            if message.type in ("error", "warning") and KOMMO not in message.location["url"]:
                customer.complaints.append(message.text)

        context.on("request", see)
        context.on("console", hear)
        customers.append(customer)
        return customer

    yield make
    ours = urlsplit(stack.public_url).hostname or ""
    for customer in customers:
        customer.context.close()
        assert customer.hosts <= {ours, KOMMO}
        assert [text for text in customer.complaints if "Failed to load resource" not in text] == []


def code_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["code"][0]


def test_install_by_plain_link_connects_and_hides_code(register: Register, visit: Visit) -> None:
    installation, customer = register(), visit()
    customer.page.goto(installation.start_url)
    (cookie,) = customer.context.cookies(installation.start_url)
    assert cookie["name"].startswith("__Host-")
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, True, "Lax", "/")

    # The brand of the OAuth client, whose logo the stack serves.
    expect(customer.page.locator(".lead")).to_have_text(said("start.lead", client="Aurora Sync", site="kommo.com"))
    assert customer.page.locator(".masthead img").evaluate("(image) => image.complete && image.naturalWidth === 64")

    customer.page.get_by_role("link", name="Continue to kommo.com").click()
    customer.consent("Allow", installation)

    customer.sees("connected.title")
    expect(customer.page.get_by_text(installation.account_host)).to_be_visible()
    # The code has left the address bar and the history.
    assert "/result/" in customer.page.url
    assert "code=" not in customer.page.url
    (returned,) = customer.returns
    assert installation.cloud.control.code_state(code_of(returned))["issued"] == 1


def test_install_by_kommo_button_connects(register: Register, visit: Visit) -> None:
    installation, customer = register(), visit(locale="pt-BR")
    customer.page.goto(installation.start_url)
    with customer.page.expect_popup() as popup:
        customer.page.get_by_role("button", name="Conectar ao Kommo").click()
    closed = popup.value
    customer.consent("Allow", installation, page=closed)

    customer.sees("connected.title", "pt")
    expect(customer.page.locator("html")).to_have_attribute("lang", "pt-BR")
    if not closed.is_closed():
        closed.wait_for_event("close")


def test_install_denied_can_be_started_again(register: Register, visit: Visit) -> None:
    installation, customer = register(), visit(locale="es-MX")
    customer.page.goto(installation.start_url)
    customer.page.get_by_role("link", name="Continuar en kommo.com").click()
    customer.consent("Deny", installation)

    customer.sees("refused.title", "es")
    customer.page.get_by_role("link", name=said("page.start_again", "es")).click()
    expect(customer.page).to_have_url(installation.start_url)
    customer.page.get_by_role("link", name="Continuar en kommo.com").click()
    customer.consent("Allow", installation)
    customer.sees("connected.title", "es")


def test_install_return_works_once_and_in_one_browser(register: Register, visit: Visit) -> None:
    installation, customer = register(), visit()
    customer.page.goto(installation.start_url)
    customer.page.get_by_role("link", name="Continue to kommo.com").click()
    customer.consent("Allow", installation)
    customer.sees("connected.title")
    (returned,) = customer.returns
    control = installation.cloud.control

    # The same address again is the same install, not a second one.
    customer.page.goto(returned)
    customer.sees("connected.title")
    assert control.code_state(code_of(returned))["calls"] == 1

    # Its state with another code is refused, and so is the whole address in another browser.
    other = control.issue_code(parse_qs(urlsplit(returned).query)["client_id"][0], installation.account_host).code
    customer.page.goto(returned.replace(code_of(returned), other))
    customer.sees("rejected.title")
    expect(customer.page.get_by_text(said("reason.used_state"))).to_be_visible()

    stranger = visit()
    stranger.page.goto(returned.replace(code_of(returned), other))
    stranger.sees("rejected.title")
    expect(stranger.page.get_by_text(said("reason.foreign_state"))).to_be_visible()
    stranger.page.get_by_role("link", name=said("page.start_again")).click()
    expect(stranger.page).to_have_url(installation.start_url)
    assert control.code_state(other)["calls"] == 0


def test_install_wrong_redirect_uri_shows_operator_text(register: Register, visit: Visit) -> None:
    installation, customer = register(registered_with_kommo="?from=kommo"), visit()
    customer.page.goto(installation.start_url)
    customer.page.get_by_role("link", name="Continue to kommo.com").click()
    customer.consent("Allow", installation)

    customer.sees("failed.title")
    expect(customer.page.get_by_role("status")).to_contain_text(said("reason.wrong_redirect_uri"))
    expect(customer.page.get_by_text(said("operator.wrong_redirect_uri"))).to_be_visible()
    customer.page.get_by_role("link", name=said("page.start_again")).click()
    expect(customer.page).to_have_url(installation.start_url)


def test_install_start_unknown_client_shows_not_found_page(stack: LocalCloud, visit: Visit) -> None:
    customer = visit()
    answer = customer.page.goto(f"{stack.public_url}/install/kommo/nobody/start")
    assert answer is not None
    assert answer.status == 404
    customer.sees("rejected.title")
    expect(customer.page.get_by_text(said("reason.unknown_client"))).to_be_visible()


def test_install_link_refused_and_then_allowed_returns_to_application(register: Register, visit: Visit) -> None:
    installation, customer = register(), visit()
    done = f"{installation.cloud.public_url}/health"
    link = installation.cloud.admin.post(
        f"{installation.cloud.public_url}/admin/v1/install-links",
        json={
            "platform": "kommo",
            "client": installation.client,
            "return_url": done,
            "single_use": False,
            "tags": {"customer_id": "c-1"},
        },
    ).json()
    for decision, status in (("Deny", "refused"), ("Allow", "connected")):
        customer.page.goto(link["url"])
        customer.page.get_by_role("link", name="Continue to kommo.com").click()
        customer.consent(decision, installation)
        customer.page.wait_for_url(re.compile(rf"[?&]status={status}$"), timeout=CONNECTED_WITHIN_MS)

        assert customer.page.url.startswith(f"{done}?")
        query = parse_qs(urlsplit(customer.page.url).query)
        assert query.pop("status") == [status]
        if status == "connected":
            (install,) = query.pop("install")
            path = f"{installation.cloud.public_url}/admin/v1/installs/{install}"
            shown = installation.cloud.admin.get(path).json()
            assert (shown["state"], shown["tags"]) == ("connected", {"customer_id": "c-1"})
        assert query == {}
