"""The console on the local cloud, in Chromium: signing in, every page, and every action to its end and into the audit trail.

The long version carries out every action of every section; `make test` has the sign-in, one action that the console carries
out itself and one that it hands to the function `call_connection`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from portaria.web.console.guard import COOKIE
from portaria.web.console.sections import BY_NAME
from tests.fakes.console import page_list
from tests.fakes.local_cloud.scenes import Scene, secret, wait_for
from tests.fakes.local_cloud.session import LocalCloud

CONTACTS = 12
LOGO = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
    b'<rect width="64" height="64" rx="14" fill="#7c3aed"/></svg>'
)
SUBMIT = "form.entry .buttons button:not([name])"


@dataclass
class Operator:
    """A person at the console in a browser. `done` are the actions that succeeded, `operations` those of the API."""

    cloud: LocalCloud
    context: BrowserContext
    page: Page
    done: set[str] = field(default_factory=set)
    operations: set[str] = field(default_factory=set)

    def sign_in(self, **wanted: Any) -> None:
        made = self.ask("POST", "console-sessions", wanted)
        self.page.goto(made["url"])
        self.page.wait_for_url("**/overview")

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A call of the API by an administrator, for what is not the console's."""
        answer = self.cloud.admin.request(method, f"{self.cloud.public_url}/admin/v1/{path}", json=body)
        assert answer.ok, answer.text
        return dict(answer.json()) if answer.text else {}

    def open(self, path: str) -> None:
        answer = self.page.goto(f"{self.cloud.public_url}/console/{path}")
        assert answer is not None
        assert answer.status == 200, f"{path} answers {answer.status}: {self.page.inner_text('main')}"

    def create(self, section: str, fields: dict[str, str], query: str = "", scopes: tuple[str, ...] = ()) -> None:
        self.open(f"{section}/new{query}")
        self.fill(fields, scopes)
        self.press(SUBMIT if section != "routes" else 'button[value="create"]')
        self._count(section, "create", BY_NAME[section].create)

    def act(self, section: str, thing: str, action: str, fields: dict[str, str] | None = None) -> None:
        """Follow the action's link on the thing's page, fill in its form and send it."""
        found = next(each for each in BY_NAME[section].actions if each.name == action)
        self.open(f"{section}/{thing}" if BY_NAME[section].show_operation else section)
        self.page.click(f'main a[href$="/{thing}/{action}"]')
        self.fill(fields or {})
        if found.is_bulk:
            self.press('button[value="try"]')
            if self.page.locator('button[value="confirm"]').count():
                self.press('button[value="confirm"]')
        else:
            self.press(SUBMIT)
        self._count(section, action, found.operation)

    def act_on_all(self, section: str, action: str, fields: dict[str, str]) -> None:
        """An action on everything that matches a filter: the dry run, then the confirmation."""
        found = next(each for each in BY_NAME[section].bulk if each.name == action)
        self.open(section)
        self.page.click(f'main a[href*="/{section}/{action}"]')
        self.fill(fields)
        self.press('button[value="try"]')
        self.press('button[value="confirm"]')
        self._count(section, action, found.operation)

    def fill(self, fields: dict[str, str], scopes: tuple[str, ...] = ()) -> None:
        for name, value in fields.items():
            place = self.page.locator(f"#f-{name}".replace(".", r"\."))
            if place.evaluate("element => element.tagName") == "SELECT":
                place.select_option(value)
            else:
                place.fill(value)
        for scope in scopes:
            self.page.check(f'input[value="{scope}"]')

    def press(self, button: str) -> None:
        with self.page.expect_navigation():
            self.page.click(button)
        wrong = self.page.locator(".notice.bad")
        assert wrong.count() == 0, f"{self.page.url}: {wrong.first.inner_text()}"
        expect(self.page.locator("main h1")).to_be_visible()

    def once(self, name: str) -> str:
        """A value that the page shows once."""
        return self.page.input_value(f"#once-{name}")

    def expect_all_actions(self, *sections: str) -> None:
        """Every action of the sections was carried out, and the audit trail names each with the session."""
        wanted = {
            f"{name}:{each}"
            for name in sections
            for section in (BY_NAME[name],)
            for each in (
                *(action.name for action in (*section.actions, *section.bulk)),
                *(("create",) if section.create else ()),
            )
        }
        assert wanted - self.done == set()
        self.expect_audit()

    def expect_audit(self) -> None:
        for operation in sorted(self.operations):
            self.open(f"audit?operation={operation}")
            entry = self.page.locator("tbody tr").first
            expect(entry).to_contain_text(operation)
            expect(entry.locator(".badge.good")).to_be_visible()
            (newest,) = self.ask("GET", f"audit?operation={operation}&limit=1")["items"]
            assert newest["by_name"].startswith("console session "), operation

    def _count(self, section: str, action: str, operation: str) -> None:
        self.done.add(f"{section}:{action}")
        self.operations.add(operation)


@pytest.fixture
def operator(browser: Browser, stack: LocalCloud) -> Iterator[Operator]:
    """At the end no page may have logged an error, such as a violation of the policy."""
    complaints: list[str] = []
    context = browser.new_context(locale="en-GB", ignore_https_errors=True, proxy={"server": stack.stack.proxy_url})
    context.set_default_timeout(40_000)

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    context.on("console", hear)
    made = Operator(stack, context, context.new_page())
    made.sign_in()
    yield made
    context.close()
    assert complaints == []


@dataclass
class Location:
    """A LeadConnector location and the token of its private integration, which a connection needs."""

    cloud: LocalCloud
    id: str = field(default_factory=lambda: secrets.token_hex(10))
    token: str = field(default_factory=lambda: secret("pit-"))

    def __post_init__(self) -> None:
        self.cloud.control.add_leadconnector_location(self.id)
        self.cloud.control.add_leadconnector_token(self.token, self.id)

    def rotate(self) -> str:
        new = secret("pit-")
        self.cloud.control.rotate_leadconnector_token(self.token, new)
        self.token = new
        return new

    @property
    def form(self) -> dict[str, str]:
        return {"fields.location_id": self.id, "credentials.token": self.token}


def unique(prefix: str = "console") -> str:
    return f"{prefix}-{secrets.token_hex(4)}"


def call_location(operator: Operator, name: str, location: Location) -> None:
    """Read the location, then create a contact. Only what may change something is in the audit trail."""
    operator.act("connections", name, "call", {"method": "GET", "path": f"/locations/{location.id}"})
    expect(operator.page.locator("main")).to_contain_text(location.id)
    email = f"{unique('contato')}@example.com"
    body = json.dumps({"locationId": location.id, "email": email})
    operator.act("connections", name, "call", {"method": "POST", "path": "/contacts/upsert", "json": body})
    expect(operator.page.locator("main")).to_contain_text(email)


def test_console_signs_in_creates_an_integration_and_calls_a_connection(operator: Operator) -> None:
    """`call` is carried out by the function `call_connection`, which the console invokes through Lambda."""
    operator.create("private-integrations", {"name": unique()}, scopes=("connections:list",))
    token = operator.once("token")
    answer = operator.cloud.web.get(
        f"{operator.cloud.public_url}/v1/connections", headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 200
    name, location = unique(), Location(operator.cloud)
    operator.create("connections", {"name": name, **location.form}, "?platform=leadconnector&kind=bearer")
    call_location(operator, name, location)
    operator.expect_audit()


def test_console_session_is_not_one_of_the_api_and_ends_with_sign_out(operator: Operator) -> None:
    (cookie,) = [each for each in operator.context.cookies() if each["name"] == COOKIE]
    for header in ({"Authorization": f"Bearer {cookie['value']}"}, {"Cookie": f"{COOKIE}={cookie['value']}"}):
        answer = operator.cloud.web.get(f"{operator.cloud.public_url}/v1/connections", headers=header)
        assert answer.status_code in (401, 403)
    operator.page.click(".who button")
    operator.page.wait_for_url("**/sign-in")
    stolen = operator.cloud.web.get(
        f"{operator.cloud.public_url}/console/overview", headers={"Cookie": f"{COOKIE}={cookie['value']}"}
    )
    assert stolen.status_code == 401


@pytest.mark.long
def test_console_connections_every_action(operator: Operator, scene: Scene) -> None:
    name, location = unique(), Location(operator.cloud)
    operator.create("connections", {"name": name, **location.form}, "?platform=leadconnector&kind=bearer")
    operator.act("connections", name, "test")
    call_location(operator, name, location)
    operator.act("connections", name, "tags", {"tags": "customer_id = c-42"})
    operator.act("connections", name, "rotate", {"credentials.token": location.rotate()})
    operator.act("connections", name, "expire")
    operator.act("connections", name, "event_address")
    assert operator.once("url").startswith("https://")
    operator.act("connections", name, "replace_credentials", {"credentials.token": location.token})
    call_location(operator, name, location)

    # An account that has installed, with a route to Marketo.
    connected = install(scene)
    operator.act("connections", connected, "backfill")

    provider = unique("shop")
    made = operator.cloud.control.add_oauth2_provider(
        provider, provider, secret(), redirect_uri=f"{operator.cloud.public_url}/install/oauth2/{provider}"
    )
    client = {"platform": "oauth2", "name": provider, "client_id": provider, "client_secret": secret()}
    urls = {"authorize_url": made["authorize_url"], "token_url": made["token_url"], "api_domains": [made["host"]]}
    operator.ask("POST", "oauth-clients", client | urls)
    operator.create(
        "connections",
        {"name": f"{provider}-main", "client": provider, "allowed_domain": made["host"]},
        "?platform=oauth2&kind=oauth2",
    )
    operator.act("connections", f"{provider}-main", "authorize")
    assert operator.once("url").startswith("https://")
    perform_the_rest(operator, "connections", connected)
    operator.act("connections", name, "delete")
    operator.expect_all_actions("connections")


@pytest.mark.long
def test_console_clients_links_and_integrations_every_action(operator: Operator) -> None:
    name = unique("c")
    created = {"platform": "kommo", "name": name, "client_id": name, "client_secret": secret()}
    operator.create("oauth-clients", created)
    operator.act("oauth-clients", f"kommo/{name}", "edit", {"display_name": "Acme Sync", "client_secret": secret()})

    operator.open(f"oauth-clients/kommo/{name}/logo")
    operator.page.set_input_files("input[type=file]", {"name": "logo.svg", "mimeType": "image/svg+xml", "buffer": LOGO})
    operator.press('button[value="upload"]')
    operator.done.add("oauth-clients:logo")
    assert operator.ask("GET", f"oauth-clients/kommo/{name}")["logo_url"]

    operator.create("install-links", {"platform": "kommo", "client": name, "tags": "customer_id = c-42"})
    assert "link=" in operator.once("url")
    (link,) = [each for each in operator.ask("GET", "install-links?limit=100")["items"] if each["client"] == name]
    operator.act("install-links", link["id"], "delete")

    operator.create("private-integrations", {"name": name}, scopes=("connections:list", "records:send"))
    token = operator.once("token")
    id_ = token[9:19]
    operator.act("private-integrations", id_, "edit", {"description": "Edited in the console"})
    for action in ("rotate", "cancel", "rotate", "expire", "rotate_now"):
        operator.act("private-integrations", id_, action)
    assert operator.once("token") != token
    perform_the_rest(operator, "private-integrations", id_)
    operator.act("private-integrations", id_, "delete")
    operator.act("oauth-clients", f"kommo/{name}", "delete")
    operator.expect_all_actions("oauth-clients", "install-links", "private-integrations")


@pytest.mark.long
def test_console_failed_install_gives_the_link_to_connect_again(operator: Operator, scene: Scene) -> None:
    host = scene.account()
    assert scene.hook(secret("no-such-code-"), host).ok
    (failed,) = scene.wait_for_end()
    operator.act("installs", failed["id"], "reconnect")
    assert "link=" in operator.once("url")
    operator.expect_all_actions("installs")


@pytest.mark.long
def test_console_routes_every_action(operator: Operator, scene: Scene) -> None:
    scene.send_to_marketo()
    name = unique("route")
    route = {
        "name": name,
        "source": f"client:kommo/{scene.name}",
        "object": "contacts",
        "destination": f"marketo-{scene.name}",
        "mapping": "email = email\nfirstName = name",
        "dedupe_fields": "email",
    }
    operator.create("routes", route)
    operator.open(f"routes/{name}")
    operator.page.click('main a[href$="/preview"]')
    operator.fill({"record": json.dumps({"name": "Contato", "email": "contato@example.com"})})
    operator.press('button[value="preview"]')
    expect(operator.page.locator(".preview")).to_contain_text("contato@example.com")
    operator.done.add("routes:preview")
    operator.fill({"mapping": "email = email"})
    operator.press('button[value="replace"]')
    operator.done.add("routes:edit")
    operator.operations.add("replace_route")
    assert operator.ask("GET", f"routes/{name}")["mapping"] == {"email": "email"}
    operator.act("routes", name, "delete")
    operator.expect_all_actions("routes")


@pytest.mark.long
def test_console_dead_letters_and_destinations_every_action(operator: Operator, scene: Scene) -> None:
    munchkin = scene.send_to_marketo()
    connection = install(scene, munchkin_is_there=True, without_email=0.5)
    letters = wait_for(lambda: operator.ask("GET", f"dead-letters?connection={connection}")["items"], bool)
    operator.act("dead-letters", letters[0]["id"], "redrive")
    filters = {"connection": connection}
    operator.act_on_all("dead-letters", "redrive_matching", filters)
    # What is redriven is refused again for the same reason, with the same id or another.
    letters = wait_for(
        lambda: [
            each
            for each in operator.ask("GET", f"dead-letters?connection={connection}")["items"]
            if each["state"] != "redriving"
        ],
        bool,
    )
    operator.act("dead-letters", letters[0]["id"], "delete")
    operator.act("connections", connection, "backfill")
    wait_for(lambda: operator.ask("GET", f"dead-letters?connection={connection}")["items"], bool)
    operator.act_on_all("dead-letters", "delete_matching", filters)

    operator.cloud.control.change_marketo(munchkin, daily_quota=0)
    operator.act("connections", connection, "backfill")
    destination = f"marketo-{scene.name}"
    wait_for(
        lambda: [each["name"] for each in operator.ask("GET", "destinations?limit=100")["items"]],
        lambda names: destination in names,
    )
    operator.cloud.control.change_marketo(munchkin, daily_quota=1_000_000)
    operator.act("destinations", destination, "resume")
    operator.operations.discard("start_backfill")
    operator.expect_all_actions("dead-letters", "destinations")


@pytest.mark.long
def test_console_webhooks_and_sessions_every_action(operator: Operator) -> None:
    url = f"https://app.example.com/{unique('hook')}"
    operator.create("webhooks", {"url": url, "events": "connection.*\ninstall.*"})
    assert operator.once("secret")
    (webhook,) = [each for each in operator.ask("GET", "webhooks?limit=100")["items"] if each["url"] == url]
    id_ = str(webhook["id"])
    operator.act("webhooks", id_, "test")
    (delivery,) = operator.ask("GET", f"webhooks/{id_}/deliveries")["items"]
    operator.act("webhook-deliveries", f"{id_}/{delivery['id']}", "redeliver")
    operator.act("webhooks", id_, "edit", {"description": "Edited in the console"})
    operator.act("webhooks", id_, "rotate")
    operator.act("webhooks", id_, "rotate_now")
    operator.act("webhooks", id_, "redeliver", {"since": "2026-01-01T00:00:00Z"})
    perform_the_rest(operator, "webhooks", id_)
    operator.act("webhooks", id_, "delete")

    other = operator.cloud.web.get(operator.ask("POST", "console-sessions", {})["url"])
    assert other.ok
    newest = operator.ask("GET", "console-sessions?limit=1")["items"][0]
    operator.act("sessions", newest["id"], "revoke")
    operator.expect_all_actions("webhooks", "webhook-deliveries", "sessions")


@pytest.mark.long
def test_console_read_only_session_sees_pages_and_no_action(operator: Operator, scene: Scene) -> None:
    scene.send_to_marketo()
    operator.sign_in(read_only=True)
    for path in ("overview", "connections", f"connections/marketo-{scene.name}", f"routes/route-{scene.name}"):
        operator.open(path)
        assert operator.page.locator("main a.button:not([href*='preview'])").count() == 0, path
    answer = operator.page.goto(f"{operator.cloud.public_url}/console/connections/marketo-{scene.name}/delete")
    operator.page.click(SUBMIT)
    expect(operator.page.locator(".notice.bad")).to_be_visible()
    assert answer is not None
    assert operator.ask("GET", f"connections/marketo-{scene.name}")["state"] == "connected"


@dataclass
class Fetching:
    """The console's pages with the operator's session, for the search of all pages."""

    operator: Operator

    def get(self, path: str) -> Any:
        answer = self.operator.context.request.get(f"{self.operator.cloud.public_url}/console/{path}")
        return Fetched(answer.status, {"Content-Type": [answer.headers["content-type"]]}, answer.text())


@dataclass
class Fetched:
    status: int
    headers: dict[str, list[str]]
    text: str


@pytest.mark.long
def test_console_every_page_that_is_linked_opens(operator: Operator, scene: Scene) -> None:
    install(scene)
    found = page_list.find_all(Fetching(operator))  # type: ignore[arg-type]
    assert len(found) > 50
    for path in found.values():
        operator.open(path)


def install(scene: Scene, *, munchkin_is_there: bool = False, **details: Any) -> str:
    """An account with contacts installs. Returns its connection, whose contacts go to Marketo."""
    if not munchkin_is_there:
        scene.send_to_marketo()
    host = scene.account(contacts=CONTACTS, **details)
    assert scene.hook(scene.code(host), host).ok
    return str(scene.wait_for_end()[0]["connection"])


def perform_the_rest(operator: Operator, section: str, thing: str) -> None:
    """The remaining actions that a thing's page offers, as they stand: the form is sent with its first values."""
    operator.open(f"{section}/{thing}")
    offered = [
        (link.get_attribute("href") or "").rpartition("/")[2]
        for link in operator.page.locator("p.actions a.button").all()
    ]
    names = {each.name for each in BY_NAME[section].actions if not each.is_dangerous}
    for action in offered:
        if action in names and f"{section}:{action}" not in operator.done:
            operator.act(section, thing, action)


@pytest.fixture
def scene(stack: LocalCloud) -> Scene:
    return Scene(stack)
