"""An application whose customers connect Kommo through Portaria.

It creates an install link when a customer clicks "Connect Kommo", takes the customer back afterwards, receives Portaria's
signed webhooks, and calls Kommo's API without seeing Kommo's tokens. README.md says how to run it.

Your application has what this one leaves out: a log-in (take the customer from the session, never from the URL), protection of
the forms against CSRF, and a database.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import requests
from flask import Blueprint, Flask, abort, current_app, redirect, render_template, request
from flask.typing import ResponseReturnValue
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

CUSTOMERS = {"c-1001": "Padaria Aurora", "c-1002": "Livraria Horizonte", "c-1003": "Floricultura Primavera"}
# For connecting to Portaria, and for each wait for its answer.
TIMEOUT_S = (3.05, 30)
EVENTS_SHOWN, EVENTS_REMEMBERED = 8, 10_000
MAX_BODY_BYTES = 256 * 1024

pages = Blueprint("pages", __name__)


class PortariaError(Exception):
    """Portaria refused a request or did not answer. The text is shown on the page, so it holds no secret."""


@dataclass(frozen=True)
class Portaria:
    """The part of Portaria's API that this application uses, with the token of a private integration."""

    url: str
    token: str = field(repr=False)
    client: str  # the OAuth client: platform/name

    def connections(self, customer_id: str) -> list[dict[str, Any]]:
        found = self.call("GET", "/v1/connections", params={"tag.customer_id": customer_id})["items"]
        return [each for each in found if each["state"] in ("connected", "needs_reconnect")]

    def install_link(self, customer_id: str, return_url: str, connection: str) -> str:
        """The URL of a link for this customer: to connect any account or, with `connection`, exactly that one again."""
        platform, _, client = self.client.partition("/")
        purpose = {"connection": connection} if connection else {"platform": platform, "client": client}
        body = {**purpose, "tags": {"customer_id": customer_id}, "return_url": return_url}
        return str(self.call("POST", "/v1/install-links", json=body)["url"])

    def install(self, install_id: str) -> dict[str, Any]:
        return self.call("GET", f"/v1/installs/{install_id}")

    def contacts(self, connection: str) -> list[str]:
        """Five names. Below `/proxy` are the paths of Kommo's own API, and Portaria adds the token."""
        found = self.call("GET", f"/v1/connections/{connection}/proxy/api/v4/contacts", params={"limit": "5"})
        return [str(each["name"]) for each in found.get("_embedded", {}).get("contacts", [])]

    def call(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """Send a request, at most twice. The key is the same both times, so that a POST creates nothing twice."""
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": str(uuid.uuid4())}
        for attempt in (1, 2):
            try:
                answer = requests.request(method, self.url + path, headers=headers, timeout=TIMEOUT_S, **content)
                if answer.ok:
                    return dict(answer.json()) if answer.content else {}
                if answer.status_code < 500 or attempt == 2:
                    # RFC 9457: `type` names the problem for programs, `detail` explains it to people.
                    problem = dict(answer.json())
                    if problem.get("type") == "urn:portaria:problem:needs_reconnect":
                        raise PortariaError("The account must be connected again: click Reconnect.")
                    raise PortariaError(str(problem.get("detail") or problem.get("title") or answer.status_code))
            except (requests.RequestException, ValueError):
                if attempt == 2:
                    raise PortariaError("Portaria did not answer. Try again in a moment.") from None
        raise AssertionError("unreachable")


class Events:
    """The events received. In your application this is a table whose unique key is the webhook's id."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, webhook_id: str, event: dict[str, Any]) -> None:
        """Keep an event, unless it was received before: webhooks are delivered at least once."""
        with self._lock:
            self._by_id.setdefault(webhook_id, event)
            if len(self._by_id) > EVENTS_REMEMBERED:
                self._by_id.popitem(last=False)

    def newest(self) -> list[tuple[str, dict[str, Any]]]:
        with self._lock:
            return list(self._by_id.items())[: -EVENTS_SHOWN - 1 : -1]


@pages.get("/")
def home() -> ResponseReturnValue:
    return page()


@pages.post("/customers/<customer_id>/connect")
def connect(customer_id: str) -> ResponseReturnValue:
    """Create an install link and send the customer there. With `connection` in the form, the link reconnects that one."""
    portaria, connection = current_app.config["PORTARIA"], request.form.get("connection", "")
    if customer_id not in CUSTOMERS or (connection and connection not in own_connections(customer_id)):
        abort(404)
    return redirect(portaria.install_link(customer_id, current_app.config["RETURN_URL"], connection), 303)


@pages.get("/connected")
def connected() -> ResponseReturnValue:
    """Where customers return to. Anybody can open this URL with any parameters, so Portaria is asked what happened."""
    install_id, status = request.args.get("install", ""), request.args.get("status", "")
    if status == "refused":
        return page(notice="You did not allow the access. Nothing was connected.")
    # A real application also compares the customer with the one who is logged in.
    install = current_app.config["PORTARIA"].install(install_id) if install_id.isalnum() else {"tags": {}}
    customer = CUSTOMERS.get(install["tags"].get("customer_id", ""))
    if customer is None:
        return page(problem="This address belongs to no install of a customer.")
    if install["state"] == "connected":
        return page(notice=f"{customer} is connected as {install['account_host']}.")
    if install["state"] == "failed":
        return page(problem=f"{customer} could not be connected: {install['detail'] or install['reason']}")
    return page(notice=f"{customer} is being connected.")


@pages.get("/customers/<customer_id>/contacts")
def contacts(customer_id: str) -> ResponseReturnValue:
    names = [current_app.config["PORTARIA"].contacts(connection) for connection in own_connections(customer_id)]
    return page(contacts={customer_id: [name for several in names for name in several]})


@pages.post("/webhooks")
def receive_webhook() -> ResponseReturnValue:
    """Verify the bytes as they arrived, keep the event, and answer at once. Slow work comes afterwards."""
    try:
        event = Webhook(current_app.config["WEBHOOK_SECRET"]).verify(request.get_data(), dict(request.headers))
    except (WebhookVerificationError, ValueError, OverflowError):  # the last two: malformed headers and bodies
        abort(401)
    current_app.config["EVENTS"].add(request.headers["webhook-id"], event)
    return "", 204


@pages.get("/events/newest")
def newest_event() -> ResponseReturnValue:
    """The newest event's id. The page is loaded again when it changes."""
    return {"id": newest_id()}, {"Cache-Control": "no-store"}


@pages.errorhandler(PortariaError)
def show_error(error: PortariaError) -> ResponseReturnValue:
    return page(problem=str(error)), 502


def own_connections(customer_id: str) -> list[str]:
    if customer_id not in CUSTOMERS:
        abort(404)
    return [each["name"] for each in current_app.config["PORTARIA"].connections(customer_id)]


def newest_id() -> str:
    return next((webhook_id for webhook_id, _ in current_app.config["EVENTS"].newest()), "")


def page(**shown: Any) -> str:
    """The page: each customer with its connections, the newest events, and in `shown` what just happened."""
    customers = []
    for customer_id, name in CUSTOMERS.items():
        try:
            connections = current_app.config["PORTARIA"].connections(customer_id)
        except PortariaError as error:
            connections, shown["problem"] = [], str(error)
        customers.append({"id": customer_id, "name": name, "connections": connections})
    events = [(each, json.dumps(each["data"], indent=2)) for _, each in current_app.config["EVENTS"].newest()]
    return render_template("page.html", customers=customers, events=events, newest_id=newest_id(), **shown)


def create_app(environment: dict[str, str]) -> Flask:
    app = Flask(__name__)
    url, token, client = (environment[f"PORTARIA_{name}"] for name in ("URL", "TOKEN", "CLIENT"))
    app.config["PORTARIA"] = Portaria(url.rstrip("/"), token, client)
    app.config["WEBHOOK_SECRET"] = environment["PORTARIA_WEBHOOK_SECRET"]
    app.config["RETURN_URL"] = environment["APP_URL"].rstrip("/") + "/connected"
    app.config.update(EVENTS=Events(), MAX_CONTENT_LENGTH=MAX_BODY_BYTES)
    app.register_blueprint(pages)
    return app


if __name__ == "__main__":
    create_app(dict(os.environ)).run(port=int(os.environ.get("PORT", "8321")))
