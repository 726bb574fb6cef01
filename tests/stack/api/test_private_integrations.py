"""Programs with tokens on the deployed template, and refused attempts of callers without the right one."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from portaria.access import api_tokens, auth_throttle
from tests.fakes.local_cloud.scenes import secret
from tests.fakes.local_cloud.session import LocalCloud, Web

Found = TypeVar("Found")


def some_address() -> str:
    """The source address of a request. MiniStack takes it from X-Forwarded-For, API Gateway from the connection only."""
    return "2001:db8::" + ":".join(secrets.token_hex(2) for _ in range(3))


@dataclass
class Integration:
    """A private integration that an administrator created, and its token."""

    cloud: LocalCloud
    scopes: tuple[str, ...]
    id: str = ""
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        made = self.manage("POST", "", {"name": "BI", "scopes": list(self.scopes)}, status=201).json()
        self.id, self.token = made["id"], made["token"]

    def manage(self, method: str, path: str, body: Any = None, *, status: int = 200) -> requests.Response:
        """As an administrator; `path` is below this integration's own."""
        own = f"/{self.id}" if self.id else ""
        url = f"{self.cloud.public_url}/admin/v1/private-integrations{own}{path}"
        answer = self.cloud.admin.request(method, url, json=body)
        assert answer.status_code == status, answer.text
        return answer

    def call(
        self, method: str, path: str, body: Any = None, *, token: str = "", address: str = ""
    ) -> requests.Response:
        headers = {"Authorization": f"Bearer {token or self.token}", "X-Forwarded-For": address or some_address()}
        return self.cloud.web.request(method, f"{self.cloud.public_url}/v1{path}", json=body, headers=headers)

    def status(self, token: str = "") -> int:
        """The response to a call for which this integration has the scope."""
        return self.call("GET", "/routes", token=token).status_code


@pytest.fixture
def integration(stack: LocalCloud) -> Integration:
    return Integration(stack, ("routes:list", "audit:list"))


def reason(answer: requests.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def run_concurrently(number: int, work: Callable[[], Found], workers: int = 4) -> list[Found]:
    """This many calls, concurrently, up to the number of workers: MiniStack starts a process for each."""
    with ThreadPoolExecutor(workers) as pool:
        return [future.result() for future in [pool.submit(work) for _ in range(number)]]


# ---------------------------------------------------------------------------------------------------------------- tokens


def test_token_not_issued_by_this_stack_is_refused_and_not_repeated(integration: Integration) -> None:
    good = integration.token
    last = good[-1]
    for other in (
        good[:-1],
        good[:20],
        good[:-1] + ("0" if last != "0" else "1"),
        good.replace("portaria_", "PORTARIA_"),
        f"{good}x",
        api_tokens.make(integration.id).reveal(),
        api_tokens.make(api_tokens.new_id()).reveal(),
        "pit-00000000-0000-4000-8000-000000000000",
    ):
        answer = integration.call("GET", "/routes", token=other)
        assert reason(answer) == (401, "token_refused")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="portaria", error="invalid_token"'
        assert other not in f"{answer.text} {answer.headers}"
    assert integration.status() == 200


def test_delete_private_integration_ends_both_tokens(integration: Integration) -> None:
    new = integration.manage("POST", "/rotate", {}).json()["token"]
    assert [integration.status(token) for token in (integration.token, new)] == [200, 200]
    integration.manage("DELETE", "", status=204)
    for token in (integration.token, new):
        assert reason(integration.call("GET", "/routes", token=token)) == (401, "token_refused")


def test_expire_rotation_ends_old_token(integration: Integration) -> None:
    rotated = integration.manage("POST", "/rotate", {}).json()
    assert rotated["previous_until"]
    assert [integration.status(token) for token in (integration.token, rotated["token"])] == [200, 200]
    assert integration.manage("POST", "/rotation/expire").json()["previous_until"] is None
    assert [integration.status(token) for token in (integration.token, rotated["token"])] == [401, 200]


def test_cancel_rotation_keeps_old_token_and_ends_new_one(integration: Integration) -> None:
    new = integration.manage("POST", "/rotate", {}).json()["token"]
    integration.manage("POST", "/rotation/cancel")
    assert [integration.status(token) for token in (integration.token, new)] == [200, 401]


def test_edit_private_integration_removed_scope_applies_to_next_call(integration: Integration) -> None:
    assert integration.status() == 200
    integration.manage("PATCH", "", {"scopes": ["audit:list"]})
    refused = integration.call("GET", "/routes")
    assert reason(refused) == (403, "missing_scope")
    assert "routes:list" in refused.json()["detail"]
    assert integration.call("GET", "/audit?limit=1").status_code == 200


def test_rotate_private_integration_concurrently_only_one_succeeds(integration: Integration) -> None:
    """Given several administrators who rotate at the same time, then one gets a token and the others none."""
    url = f"{integration.cloud.public_url}/admin/v1/private-integrations/{integration.id}/rotate"

    def rotate(**body: Any) -> requests.Response:
        with Web(integration.cloud.stack, auth=integration.cloud.admin.auth) as administrator:  # type: ignore[arg-type]
            return administrator.post(url, json=body)

    answers = run_concurrently(4, rotate)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 3}
    assert {reason(answer)[1] for answer in answers if answer.status_code == 409} <= {
        "changed_meanwhile",
        "rotation_under_way",
    }
    (won,) = (answer.json()["token"] for answer in answers if answer.status_code == 200)
    assert [integration.status(token) for token in (integration.token, won)] == [200, 200]

    # Immediate rotations may all succeed, one after the other: then only the last token works.
    answers = [answer for answer in run_concurrently(4, lambda: rotate(expire_now=True)) if answer.status_code == 200]
    last = max(answers, key=lambda answer: int(answer.headers["ETag"].strip('"'))).json()["token"]
    given = {answer.json()["token"] for answer in answers}
    assert {token for token in {integration.token, won, *given} if integration.status(token) == 200} == {last}


# ---------------------------------------------------------------------------------------------------------------- scopes


def test_token_scope_for_one_connection_does_not_allow_another(stack: LocalCloud) -> None:
    integration = Integration(stack, ("connections:show@no-such-one", "sso:create@no-such-one"))
    assert reason(integration.call("GET", "/connections/no-such-one")) == (404, "unknown_connection")
    for method, path, body, scope in (
        ("GET", "/connections/another", None, "connections:show"),
        ("POST", "/connections/another/sso", {"user_identifier": "ana"}, "sso:create"),
        ("DELETE", "/connections/no-such-one", None, "connections:delete"),
    ):
        refused = integration.call(method, path, body)
        assert reason(refused) == (403, "missing_scope")
        assert f"{scope}, or {scope}@{path.split('/')[2]}" in refused.json()["detail"]
    assert reason(integration.call("GET", "/connections")) == (403, "missing_scope")


def test_token_at_admin_api_or_private_integrations_is_refused(stack: LocalCloud) -> None:
    every = tuple(
        scope
        for methods in stack.web.get(f"{stack.public_url}/v1/openapi.json").json()["paths"].values()
        for operation in methods.values()
        if "operationId" in operation
        for each in operation.get("security", ())
        for scope in each.get("token", ())
    )
    integration = Integration(stack, every)
    for path in ("private-integrations", "routes", f"private-integrations/{integration.id}"):
        headers = {"Authorization": f"Bearer {integration.token}"}
        answer = stack.web.get(f"{stack.public_url}/admin/v1/{path}", headers=headers)
        # API Gateway refuses it: the function, which adds a request id, was not called.
        assert (answer.status_code, "X-Request-Id" in answer.headers) == (403, False)
    for method, path in (("GET", ""), ("POST", f"/{integration.id}/rotate"), ("DELETE", f"/{integration.id}")):
        refused = integration.call(method, f"/private-integrations{path}", {})
        assert reason(refused) == (403, "administrators_only")
    assert integration.status() == 200


def test_token_failed_attempts_of_one_address_are_throttled(integration: Integration) -> None:
    guessing, other = some_address(), some_address()
    answers: list[requests.Response] = []
    # Twice as many: a minute may end between them, and the count begins again.
    while len(answers) < 2 * auth_throttle.MOST + 2 and (not answers or answers[-1].status_code == 401):
        token = api_tokens.make(integration.id).reveal()
        answers.append(integration.call("GET", "/routes", token=token, address=guessing))
    assert len(answers) > auth_throttle.MOST
    assert reason(answers[-1]) == (429, "too_many_attempts")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert integration.call("GET", "/routes", address=other).status_code == 200


# -------------------------------------------------------------------------------------------------------- single sign-on


@dataclass
class Engage:
    """A connection to Engage's simulator with one user whose identifier is registered, and a program that signs users on."""

    cloud: LocalCloud
    name: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        log_in = {"username": self.name, "client_id": self.name}
        log_in |= {key: secret() for key in ("password", "client_secret", "customer_token")}
        self.cloud.control.add_engage_user(customer_id=self.name, **log_in)
        self.cloud.control.add_engage_people(self.name, "ana@example.com")
        body = {"name": self.name, "platform": "engage", "fields": {"customer_id": self.name}, "credentials": log_in}
        made = self.cloud.admin.post(f"{self.cloud.public_url}/admin/v1/connections", json=body)
        assert made.status_code == 201, made.text
        self.program = Integration(self.cloud, (f"identifiers:register@{self.name}", f"sso:create@{self.name}"))
        users = [{"user_login": "ana@example.com", "identifier": "employee-7"}]
        registered = self.program.call("POST", f"/connections/{self.name}/identifiers", {"users": users})
        assert [user["outcome"] for user in registered.json()["users"]] == ["registered"], registered.text

    def link(self) -> str:
        made = self.program.call("POST", f"/connections/{self.name}/sso", {"user_identifier": "employee-7"})
        assert made.status_code == 201, made.text
        assert "canary" not in made.text
        return str(made.json()["link"])

    def open(self, link: str) -> requests.Response:
        """In a separate browser."""
        with Web(self.cloud.stack) as browser:
            return browser.get(link, allow_redirects=False)

    def enter(self, location: str) -> str:
        """Open the front end. Returns the user who is signed in. Raises `ValueError` for a used key."""
        # The address has its query in the fragment, which a browser does not send.
        (key,) = parse_qs(urlsplit(location).fragment.partition("?")[2])["key"]
        return self.cloud.control.enter_engage(self.name, key)


@pytest.fixture
def engage(stack: LocalCloud) -> Engage:
    return Engage(stack)


def test_sign_on_link_opened_twenty_times_concurrently_succeeds_once(engage: Engage) -> None:
    link = engage.link()
    answers = run_concurrently(20, lambda: engage.open(link))
    assert Counter(answer.status_code for answer in answers) == {303: 1, 410: 19}
    (opened,) = (answer for answer in answers if answer.status_code == 303)
    assert (opened.headers["Cache-Control"], opened.headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    location = opened.headers["Location"]
    assert urlsplit(location).hostname == "one.engage.bz"
    assert engage.enter(location) == "ana@example.com"
    with pytest.raises(ValueError, match="used"):
        engage.enter(location)
    late = engage.open(link)
    assert (late.status_code, late.headers["Content-Type"].partition(";")[0]) == (410, "text/html")
    assert "canary" not in late.text


def test_sign_on_link_altered_is_refused_and_does_not_use_the_ticket(engage: Engage) -> None:
    link, another = engage.link(), engage.link()
    ticket, mac = link.rsplit(".", 1)
    last = mac[-1]
    for altered in (
        f"{ticket}.{mac[:-1]}{'A' if last != 'A' else 'B'}",
        f"{ticket}.{another.rpartition('.')[2]}",
        link[:-1],
        f"{link}A",
        ticket,
    ):
        answer = engage.open(altered)
        assert (answer.status_code, "Location" in answer.headers) == (404, False)
    assert engage.open(link).status_code == 303


def test_create_sign_on_link_scope_for_another_connection_is_refused(stack: LocalCloud, engage: Engage) -> None:
    other = Integration(stack, ("sso:create@another",))
    refused = other.call("POST", f"/connections/{engage.name}/sso", {"user_identifier": "employee-7"})
    assert reason(refused) == (403, "missing_scope")
    assert f"sso:create@{engage.name}" in refused.json()["detail"]
    assert stack.control.engage_customer(engage.name)["keys_given"] == 0
