"""The local cloud keeps its own promises. Most of these run it in a small neighbouring checkout with a stack of its own,
which also shows that two can live side by side."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from local import processes
from local.control import Control
from local.processes import NotStarted
from local.proxy import APPLICATION_HOST, Proxy
from local.simulators.people import make_contacts
from local.stack import Stack
from tests.fakes.local_cloud.neighbour import HANDLER, SHELL, Checkout, until
from tests.fakes.local_cloud.session import Web


@pytest.fixture
def control(neighbour: Stack) -> Iterator[Control]:
    with contextlib.closing(Control(neighbour.control_url)) as control:
        control.reset()
        yield control


@pytest.fixture
def web(neighbour: Stack) -> Iterator[Web]:
    with Web(neighbour) as web:
        yield web


# ---------------------------------------------------------------------------------------------------------- up and down


def test_local_cloud_up_again_reuses_running_one(checkout: Checkout, neighbour: Stack) -> None:
    status, output = checkout.run("up")
    assert status == 0
    assert "running already" in output
    assert checkout.stack == neighbour


def test_local_cloud_stack_file_is_private(checkout: Checkout, neighbour: Stack) -> None:
    assert (checkout.root / "build" / "stack.json").stat().st_mode & 0o777 == 0o600


def test_local_cloud_api_answers_at_both_addresses(neighbour: Stack, web: Web) -> None:
    assert web.get(f"{neighbour.api_url}/tell").status_code == 200
    assert web.get(f"{neighbour.public_url}/tell").status_code == 200


def test_local_cloud_functions_do_not_see_callers_environment(neighbour: Stack, web: Web) -> None:
    seen = web.get(f"{neighbour.api_url}/tell").json()
    assert not set(SHELL.values()) & set(seen.values())
    assert seen["HTTPS_PROXY"] == neighbour.proxy_url
    assert seen["AWS_ACCESS_KEY_ID"].startswith("ASIA")
    assert seen["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull


def test_local_cloud_outage_affects_one_service_of_one_function(neighbour: Stack, web: Web) -> None:
    def status() -> int:
        return web.get(f"{neighbour.api_url}/tell?send=1").status_code

    assert status() == 200
    with neighbour.outage("tell", "sqs:SendMessage"):
        assert status() == 502
        assert web.get(f"{neighbour.api_url}/tell").status_code == 200
    assert status() == 200


def test_local_cloud_up_deploys_change_to_running_stack(checkout: Checkout, neighbour: Stack, web: Web) -> None:
    handler = checkout.root / "functions" / "tell" / "handler.py"
    handler.write_text(HANDLER.replace("os.environ.items()", "{'changed': 'yes'}.items()"))
    try:
        assert checkout.run("up")[0] == 0
        assert checkout.stack.pids == neighbour.pids
        assert web.get(f"{checkout.stack.api_url}/tell").json() == {"changed": "yes"}
    finally:
        handler.write_text(HANDLER)


def test_local_cloud_build_contains_compiled_modules(checkout: Checkout, neighbour: Stack) -> None:
    assert list((checkout.root / "build" / "sam" / "build" / "TellFunction").rglob("handler.*.pyc"))


def test_local_cloud_status_names_dead_process_and_up_restarts(checkout: Checkout, neighbour: Stack) -> None:
    checkout.processes()[neighbour.pids["proxy"]].kill()
    until(lambda: neighbour.pids["proxy"] not in checkout.processes())
    status, output = checkout.run("status")
    assert (status, "Dead: proxy" in output) == (3, True)
    status, output = checkout.run("up")
    assert (status, "proxy died" in output) == (0, True)
    assert checkout.stack.pids["proxy"] in checkout.processes()


def messages(stack: Stack) -> str:
    """The number of messages in the neighbour's queue."""
    answer = stack.client("sqs").get_queue_attributes(QueueUrl=stack.queues["things"], AttributeNames=["All"])
    return str(answer["Attributes"]["ApproximateNumberOfMessages"])


def test_local_cloud_down_and_up_keeps_address_ports_and_data(checkout: Checkout, neighbour: Stack, web: Web) -> None:
    neighbour.client("sqs").purge_queue(QueueUrl=neighbour.queues["things"])
    assert web.get(f"{neighbour.api_url}/tell?send=1").status_code == 200
    with contextlib.closing(Control(neighbour.control_url)) as control:
        control.reset()
        control.add_kommo_client("client", "canary-secret", "https://a.example/install")
        control.add_kommo_account("padaria", contacts=3)
        changed = control.change_kommo("padaria.kommo.com", fields={"email": "ana@padaria.example"})
        control.set_fault("kommo", "status", status=500)
        control.set_fault("kommo", "slow", duration_s=60)
        code = control.issue_code("client", "padaria.kommo.com").code
    checkout.run("down")

    status, output = checkout.run("up")

    assert (status, "Starting MiniStack with the saved data" in output) == (0, True), output
    assert "Deploying" not in output
    assert replace(checkout.stack, pids=neighbour.pids) == neighbour
    assert messages(neighbour) == "1"
    # The certificate is the same too.
    assert web.get(f"{neighbour.public_url}/tell?send=1").status_code == 200
    assert messages(neighbour) == "2"
    with contextlib.closing(Control(neighbour.control_url)) as control:
        contacts = control.kommo_contacts("padaria.kommo.com")["contacts"]
        assert [each["id"] for each in contacts][-1] == changed["id"]
        assert control.code_state(code)["calls"] == 0
        assert [(fault["id"], fault["kind"]) for fault in control.faults()] == [(1, "status")]
        assert control.set_fault("kommo", "slow") == 3


@pytest.mark.long
def test_local_cloud_up_after_crash_has_data_of_last_orderly_stop(checkout: Checkout, neighbour: Stack) -> None:
    neighbour.client("sqs").purge_queue(QueueUrl=neighbour.queues["things"])
    checkout.run("down")
    checkout.run("up")
    checkout.stack.client("sqs").send_message(QueueUrl=neighbour.queues["things"], MessageBody="lost")
    for process in checkout.processes().values():
        process.kill()
    until(lambda: not checkout.processes())

    status, output = checkout.run("up")

    assert (status, "died since the last start" in output) == (0, True), output
    assert (checkout.stack.public_url, messages(checkout.stack)) == (neighbour.public_url, "0")


@pytest.mark.long
def test_local_cloud_up_without_saved_data_keeps_address(checkout: Checkout, neighbour: Stack) -> None:
    checkout.begin_anew()
    assert checkout.run("up")[0] == 0
    assert checkout.stack.public_url == neighbour.public_url


@pytest.mark.long
def test_local_cloud_up_after_killed_start_removes_leftovers(checkout: Checkout) -> None:
    checkout.begin_anew()
    killed = checkout.begin("up")
    until(lambda: len(checkout.processes()) >= 3)
    killed.kill()
    killed.communicate()
    leftovers = set(checkout.processes())
    assert leftovers
    status, output = checkout.run("up")
    assert (status, "did not finish" in output) == (0, True), output
    assert not leftovers & set(checkout.processes())


@pytest.mark.long
def test_local_cloud_down_after_killed_start_leaves_no_process(checkout: Checkout) -> None:
    checkout.begin_anew()
    killed = checkout.begin("up")
    until(lambda: len(checkout.processes()) >= 3)
    killed.kill()
    killed.communicate()
    assert checkout.run("down")[0] == 0
    assert not checkout.processes()


def test_local_cloud_up_ministack_dies_during_deployment_shows_its_log(checkout: Checkout) -> None:
    checkout.begin_anew()
    deploy_log = checkout.root / "build" / "local" / "deploy.log"
    deploy_log.unlink(missing_ok=True)
    starting = checkout.begin("up")
    until(deploy_log.exists)
    ministack = next(each for each in checkout.processes().values() if "ministack" in " ".join(each.cmdline()))
    ministack.send_signal(signal.SIGKILL)
    output, _ = starting.communicate(timeout=60)
    assert starting.returncode == 1
    assert "ministack died during the deployment" in output
    assert "Ready" in output  # MiniStack's own message
    assert not checkout.processes()


def test_local_cloud_up_requested_port_in_use_names_its_process(checkout: Checkout) -> None:
    checkout.begin_anew()
    with processes.listening_socket() as taken:
        port = taken.getsockname()[1]
        status, output = checkout.run("up", "--port", str(port))
    assert status == 1
    assert f"port {port} is taken by process {os.getpid()}" in output
    assert not checkout.processes()


@pytest.mark.long
def test_local_cloud_down_does_not_end_foreign_processes(checkout: Checkout, neighbour: Stack) -> None:
    """Also one whose number is in build/stack.json, as after a restart of the machine."""
    file = checkout.root / "build" / "stack.json"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as foreign:
        file.write_text(json.dumps({**json.loads(file.read_text()), "pids": {"ministack": foreign.pid}}))
        status, output = checkout.run("down")
        assert (status, foreign.poll()) == (0, None), output
        foreign.communicate(b"\n")
    assert not checkout.processes()
    assert checkout.run("down") == (0, "Nothing was running.\n")


def test_local_cloud_concurrent_up_is_refused(checkout: Checkout) -> None:
    checkout.begin_anew()
    first = checkout.begin("up")
    until(checkout.processes)
    status, output = checkout.run("up")
    assert status == 1
    assert f"Process {first.pid} is starting or stopping" in output
    assert first.communicate(timeout=120)
    assert first.returncode == 0


def test_local_cloud_logs_shows_function_output(checkout: Checkout, neighbour: Stack, web: Web) -> None:
    web.get(f"{neighbour.api_url}/tell")
    assert "REPORT RequestId" in until(lambda: checkout.run("logs", "tell", "--no-follow")[1])


def test_local_cloud_up_missing_tool_is_named(tmp_path: Path) -> None:
    bare = Checkout(tmp_path / "bare")
    (bare.root / ".venv-sam").unlink()
    status, output = bare.run("up")
    assert (status, ".venv-sam/bin/sam is missing" in output) == (1, True)


def test_free_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(NotStarted, match="is taken by process"):
            processes.free_port(taken.getsockname()[1])


# -------------------------------------------------------------------------------------------------------------- the proxy


@pytest.mark.parametrize(
    "target",
    [
        "evil.example:443",
        "kommo.com.evil.example:443",
        "evilkommo.com:443",
        "a.b.kommo.com:443",
        "kommo.com:443",
        "acme.kommo.com.:443",
        "ACME.kommo.com:443",
        "acme.kommo.com:80",
        "acme.kommo.com:8443",
        "user@acme.kommo.com:443",
        "127.0.0.1:443",
        "[::1]:443",
        "2130706433:443",
        "169.254.169.254:443",
        "localhost:443",
        "-x.kommo.com:443",
        "acme_x.kommo.com:443",
        ".kommo.com:443",
        "acme.kommo.com",
        "",
    ],
)
def test_local_proxy_unknown_host_is_refused_and_recorded(neighbour: Stack, control: Control, target: str) -> None:
    port = int(neighbour.proxy_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 403 ")
    hosts = control.hosts()
    assert hosts["refused"] == {target.removesuffix(":443"): 1}
    assert hosts["allowed"] == {}


def test_local_proxy_plain_http_is_refused_and_recorded(neighbour: Stack, control: Control) -> None:
    with requests.Session() as plain:
        plain.trust_env = False
        plain.proxies = {"http": neighbour.proxy_url}
        assert plain.get("http://acme.kommo.com/api/v4/account", timeout=5).status_code == 403
    assert list(control.hosts()["refused"]) == ["http://acme.kommo.com/api/v4/account"]


def test_local_proxy_bytes_to_allowed_host_are_counted(web: Web, control: Control) -> None:
    web.post("https://acme.kommo.com/oauth2/access_token", data=b"x" * 100_000)
    traffic = control.hosts()["allowed"]["acme.kommo.com"]
    assert traffic["connections"] == 1
    assert 100_000 < traffic["bytes_sent"] < 101_000
    assert traffic["bytes_received"] > 0


@pytest.mark.parametrize("host", ["acme.kommo.com", "www.amocrm.ru", "123-abc-456.mktorest.com", "one.engage.bz"])
def test_local_proxy_platform_host_is_routed_to_simulators(host: str) -> None:
    assert Proxy(None, simulators_port=1, gateway_port=2).port_for(host, "443") == 1  # type: ignore[arg-type]


def test_local_proxy_application_host_leads_to_its_port_while_it_is_set(neighbour: Stack, web: Web) -> None:
    def ask(method: str, target: str) -> requests.Response:
        with requests.Session() as local:
            local.trust_env = False
            return local.request(method, f"{neighbour.proxy_url}{target}", timeout=5)

    with pytest.raises(requests.exceptions.ProxyError):
        web.get(f"https://{APPLICATION_HOST}/clock")
    for wrong in ("/application", "/application?port=0", "/application?port=65536", "/application?port=80&port=81"):
        assert ask("PUT", wrong).status_code == 400
    port = int(neighbour.control_url.rpartition(":")[2])
    assert ask("PUT", f"/application?port={port}").json() == {"host": APPLICATION_HOST, "port": port}
    assert web.get(f"https://{APPLICATION_HOST}/clock").status_code == 200
    assert ask("DELETE", "/application").json() == {"host": APPLICATION_HOST, "port": None}
    # Drops the open connection, which would still lead there.
    web.close()
    with pytest.raises(requests.exceptions.ProxyError):
        web.get(f"https://{APPLICATION_HOST}/clock")


# ------------------------------------------------------------------------------------------------------------------ Kommo

CLIENT = {
    "client_id": "client-one",
    "client_secret": "canary-secret-one",
    "redirect_uri": "https://front.example/install/",
}
ACME = "acme.kommo.com"


@pytest.fixture
def kommo(control: Control) -> Control:
    """Kommo with one client and one account of 600 contacts, without a rate limit."""
    control.add_kommo_client(**CLIENT)
    control.add_kommo_account("acme", contacts=600)
    control.set_kommo_limits(requests_per_s=1_000)
    return control


def exchange(web: Web, host: str = ACME, **changes: str) -> requests.Response:
    return web.post(
        f"https://{host}/oauth2/access_token", json={**CLIENT, "grant_type": "authorization_code", **changes}
    )


def refresh(web: Web, refresh_token: str) -> requests.Response:
    return exchange(web, grant_type="refresh_token", refresh_token=refresh_token)


def bearer(tokens: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def tokens(web: Web, kommo: Control) -> Any:
    return exchange(web, code=kommo.issue_code(CLIENT["client_id"], ACME).code).json()


def account_status(web: Web, tokens: Any) -> int:
    return web.get(f"https://{ACME}/api/v4/account", headers=bearer(tokens)).status_code


def test_simulated_kommo_code_gives_tokens_once(web: Web, kommo: Control) -> None:
    issued = kommo.issue_code(CLIENT["client_id"], ACME)
    first, second = exchange(web, code=issued.code), exchange(web, code=issued.code)
    assert first.status_code == 200
    assert first.json()["expires_in"] == 86_400
    assert 900 < len(first.json()["access_token"]) < 1_300
    assert 900 < len(first.json()["refresh_token"]) < 1_300
    assert (second.status_code, second.json()["hint"]) == (400, "Authorization code has been revoked")
    state = kommo.code_state(issued.code)
    assert (state["calls"], state["issued"], state["calls_after_issue"]) == (2, 1, 1)
    assert (kommo.kommo()["tokens_issued"], kommo.kommo()["issued_twice"]) == (1, 0)


@pytest.mark.parametrize(("age_s", "status"), [(20 * 60 - 5, 200), (20 * 60 + 1, 400)])
def test_simulated_kommo_code_expires_after_twenty_minutes(web: Web, kommo: Control, age_s: int, status: int) -> None:
    issued = kommo.issue_code(CLIENT["client_id"], ACME)
    kommo.advance(age_s)
    answer = exchange(web, code=issued.code)
    assert answer.status_code == status
    assert status == 200 or answer.json()["hint"] == "Authorization code has expired"


@pytest.mark.parametrize(
    ("changes", "status", "hint"),
    [
        ({"redirect_uri": "https://front.example/install"}, 400, "Redirect URI is not associated with client"),
        ({"client_id": ""}, 400, "Check the `client_id` parameter"),
        ({"client_id": "another"}, 401, None),
        ({"client_secret": "wrong"}, 401, None),
        ({"code": "def50200"}, 400, "Cannot decrypt the authorization code"),
        ({"grant_type": "password"}, 400, "Check the `grant_type` parameter"),
    ],
)
def test_simulated_kommo_invalid_exchange_is_refused_with_hint(
    web: Web, kommo: Control, changes: dict[str, str], status: int, hint: str | None
) -> None:
    issued = kommo.issue_code(CLIENT["client_id"], ACME)
    answer = exchange(web, **{"code": issued.code, **changes})
    assert (answer.status_code, answer.json().get("hint")) == (status, hint)
    assert kommo.code_state(issued.code)["issued"] == 0
    assert exchange(web, code=issued.code).status_code == 200


def test_simulated_kommo_code_of_another_account_is_refused(web: Web, kommo: Control) -> None:
    kommo.add_kommo_account("other")
    answer = exchange(web, code=kommo.issue_code(CLIENT["client_id"], "other.kommo.com").code)
    assert (answer.status_code, answer.json()["hint"]) == (400, "Invalid account")


def test_simulated_kommo_reused_refresh_token_revokes_grant(web: Web, kommo: Control) -> None:
    first = tokens(web, kommo)
    second = refresh(web, first["refresh_token"]).json()
    assert account_status(web, second) == 200
    assert refresh(web, first["refresh_token"]).json()["hint"] == "Token has been revoked"
    assert account_status(web, second) == 401
    assert refresh(web, second["refresh_token"]).status_code == 401
    assert [grant["revoked"] for grant in kommo.kommo()["grants"]] == [True]


def test_simulated_kommo_access_token_expires_after_a_day(web: Web, kommo: Control) -> None:
    granted = tokens(web, kommo)
    kommo.advance(86_390)
    assert account_status(web, granted) == 200
    kommo.advance(11)
    assert account_status(web, granted) == 401


def test_simulated_kommo_access_token_of_another_account_is_refused(web: Web, kommo: Control) -> None:
    kommo.add_kommo_account("other")
    answer = web.get("https://other.kommo.com/api/v4/account", headers=bearer(tokens(web, kommo)))
    assert answer.status_code == 401


def test_simulated_kommo_contacts_are_listed_in_pages(web: Web, kommo: Control) -> None:
    headers = bearer(tokens(web, kommo))
    url: str | None = f"https://{ACME}/api/v4/contacts?limit=250&order[updated_at]=asc"
    seen: list[dict[str, Any]] = []
    sizes = []
    while url:
        answer = web.get(url, headers=headers)
        assert answer.headers["Content-Type"].startswith("application/hal+json")
        contacts = answer.json()["_embedded"]["contacts"]
        sizes.append(len(contacts))
        seen += contacts
        url = answer.json()["_links"].get("next", {}).get("href")
    assert sizes == [250, 250, 100]
    assert [each["updated_at"] for each in seen] == sorted(each["updated_at"] for each in seen)
    assert sorted(each["id"] for each in seen) == [each["id"] for each in kommo.kommo_contacts(ACME)["contacts"]]
    assert web.get(f"https://{ACME}/api/v4/contacts?limit=250&page=4", headers=headers).status_code == 204
    assert web.get(f"https://{ACME}/api/v4/contacts?limit=251", headers=headers).status_code == 400


def test_simulated_kommo_contacts_are_filtered_by_update_time(web: Web, kommo: Control) -> None:
    times = sorted(each["updated_at"] for each in kommo.kommo_contacts(ACME)["contacts"])
    url = f"https://{ACME}/api/v4/contacts?limit=250&filter[updated_at][from]={times[-10]}"
    found = web.get(url, headers=bearer(tokens(web, kommo))).json()["_embedded"]["contacts"]
    assert sorted(each["updated_at"] for each in found) == times[-10:]


def test_simulated_kommo_companies_are_found_by_id(web: Web, kommo: Control) -> None:
    company = kommo.kommo_contacts(ACME)["companies"][2]
    url = f"https://{ACME}/api/v4/companies?filter[id][]={company['id']}"
    found = web.get(url, headers=bearer(tokens(web, kommo))).json()["_embedded"]["companies"]
    assert found == [company]


def test_make_contacts_is_deterministic_and_has_edge_cases() -> None:
    def made(host: str) -> list[dict[str, Any]]:
        return make_contacts(30_000_001, host, 1_000, seed=1, without_email=0.05).contacts

    contacts = made(ACME)
    fields = [each["custom_fields_values"] for each in contacts]
    by_code = [{field["field_code"]: field["values"] for field in each or []} for each in fields]
    assert contacts == made(ACME)
    assert None in fields
    assert any("EMAIL" not in each for each in by_code)
    assert any(len(each.get("EMAIL", [])) > 2 for each in by_code)
    assert any(len(each.get("PHONE", [])) > 2 for each in by_code)
    assert any(not each["_embedded"]["companies"] for each in contacts)
    assert any(not each["first_name"] for each in contacts)
    assert any("🌻" in each["name"] for each in contacts)
    emails = {value["value"] for each in by_code for value in each.get("EMAIL", [])}
    others = {
        value["value"]
        for each in made("other.kommo.com")
        for field in each["custom_fields_values"] or []
        for value in field["values"]
    }
    assert not emails & others


def test_simulated_kommo_webhooks_are_subscribed_listed_and_deleted(web: Web, kommo: Control) -> None:
    url, headers = f"https://{ACME}/api/v4/webhooks", bearer(tokens(web, kommo))
    wanted = {"destination": "https://front.example/events", "settings": ["add_contact"], "sort": 10}
    assert web.get(url, headers=headers).status_code == 204
    assert [web.post(url, headers=headers, json=wanted).status_code for _ in range(2)] == [201, 200]
    assert len(web.get(url, headers=headers).json()["_embedded"]["webhooks"]) == 1
    assert web.delete(url, headers=headers, json={"destination": wanted["destination"]}).status_code == 204
    assert web.get(url, headers=headers).status_code == 204


def test_simulated_kommo_rate_limit_answers_429_then_blocks(web: Web, kommo: Control) -> None:
    granted = tokens(web, kommo)
    kommo.set_kommo_limits(requests_per_s=7, block_after=5, block_s=30)
    time.sleep(1.1)  # the window of a second in which the calls so far count
    statuses = [account_status(web, granted) for _ in range(13)]
    assert statuses == [200] * 7 + [429] * 5 + [403]
    blocked = exchange(web, code="any")
    assert (blocked.status_code, "<center>nginx</center>" in blocked.text) == (403, True)
    kommo.advance(31)
    time.sleep(1.1)
    assert account_status(web, granted) == 200


def test_simulated_kommo_consent_page_redirects_with_code_or_refusal(web: Web, kommo: Control) -> None:
    query = {"client_id": CLIENT["client_id"], "state": "a b&c", "mode": "popup"}
    page = web.get("https://www.kommo.com/oauth", params=query)
    assert ACME in page.text
    assert 'value="a b&amp;c"' in page.text

    def decide(decision: str) -> dict[str, str]:
        answer = web.post(
            "https://www.kommo.com/oauth/decision",
            data={**query, "decision": decision, "account": ACME},
            allow_redirects=False,
        )
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith(CLIENT["redirect_uri"] + "?")
        parts = requests.utils.urlparse(answer.headers["Location"]).query  # type: ignore[attr-defined]
        return dict(pair.split("=", 1) for pair in parts.split("&"))

    allowed = decide("allow")
    assert (allowed["state"], allowed["referer"], allowed["client_id"]) == ("a+b%26c", ACME, CLIENT["client_id"])
    assert exchange(web, code=allowed["code"]).status_code == 200
    assert decide("deny") == {"error": "access_denied", "state": "a+b%26c", "client_id": CLIENT["client_id"]}
    assert "kommo_oauth" in web.get("https://www.kommo.com/auth/button.js").text


# ----------------------------------------------------------------------------------------------------------------- faults


def test_fault_lost_answer_performs_the_call(web: Web, kommo: Control) -> None:
    issued = kommo.issue_code(CLIENT["client_id"], ACME)
    fault = kommo.set_fault("kommo", "lost_answer", path="/oauth2/access_token", count=1)
    with pytest.raises(requests.ConnectionError):
        exchange(web, code=issued.code)
    assert kommo.fault_used(fault) == 1
    assert kommo.code_state(issued.code)["issued"] == 1
    assert exchange(web, code=issued.code).json()["hint"] == "Authorization code has been revoked"


def test_fault_dropped_does_not_perform_the_call(web: Web, kommo: Control) -> None:
    issued = kommo.issue_code(CLIENT["client_id"], ACME)
    kommo.set_fault("kommo", "dropped", path="/oauth2/access_token", count=1)
    with pytest.raises(requests.ConnectionError):
        exchange(web, code=issued.code)
    assert kommo.code_state(issued.code)["calls"] == 0
    assert exchange(web, code=issued.code).status_code == 200


def test_fault_slow_performs_the_call_after_client_timeout(web: Web, kommo: Control) -> None:
    issued = kommo.issue_code(CLIENT["client_id"], ACME)
    kommo.set_fault("kommo", "slow", seconds=0.5, count=1)
    with pytest.raises(requests.ReadTimeout):
        web.post(f"https://{ACME}/oauth2/access_token", json={**CLIENT, "code": issued.code}, timeout=0.2)
    until(lambda: kommo.code_state(issued.code)["calls"] == 1, 3)


@pytest.mark.parametrize(
    ("kind", "details", "status"),
    [
        ("status", {"status": 500}, 500),
        ("status", {"status": 502}, 502),
        ("status", {"status": 503}, 503),
        ("rate_limited", {}, 429),
        ("forbidden", {}, 403),
    ],
)
def test_fault_of_each_kind_answers_for_the_platform(
    web: Web, kommo: Control, kind: str, details: dict[str, Any], status: int
) -> None:
    kommo.set_fault("kommo", kind, account="acme", count=2, skip=1, **details)
    kommo.add_kommo_account("other")
    assert [exchange(web).status_code for _ in range(4)] == [400, status, status, 400]
    assert kommo.count(host=ACME, path="/oauth2/access_token") == 4
    kommo.set_fault("kommo", kind, account="acme", duration_s=0.3, **details)
    assert exchange(web, host="other.kommo.com").status_code == 400
    assert exchange(web).status_code == status
    until(lambda: exchange(web).status_code == 400, 3)


def test_fault_for_one_page_affects_only_that_page(web: Web, kommo: Control) -> None:
    headers = bearer(tokens(web, kommo))
    kommo.set_fault("kommo", "status", path="/api/v4/contacts", page=2)

    def status(page: int) -> int:
        return web.get(f"https://{ACME}/api/v4/contacts?limit=250&page={page}", headers=headers).status_code

    assert [status(page) for page in (1, 2, 3)] == [200, 500, 200]


def test_fault_unknown_field_or_kind_is_refused(control: Control) -> None:
    with pytest.raises(ValueError, match="unknown: acount"):
        control.set_fault("kommo", "slow", acount="acme")
    with pytest.raises(ValueError, match="one of slow"):
        control.set_fault("kommo", "sluggish")


# ---------------------------------------------------------------------------------------------------------------- Marketo

MUNCHKIN = "123-abc-456"
API_USER = {"client_id": "user-one", "client_secret": "canary-secret-one"}


@pytest.fixture
def marketo(control: Control) -> Control:
    control.add_marketo_instance(MUNCHKIN, API_USER["client_id"], API_USER["client_secret"])
    return control


def identity(web: Web, **changes: str) -> requests.Response:
    form = {**API_USER, "grant_type": "client_credentials", **changes}
    return web.post(f"https://{MUNCHKIN}.mktorest.com/identity/oauth/token", data=form)


def ingest(web: Web, body: Any, *, token: str | None = "valid", **headers: str) -> requests.Response:
    if token == "valid":
        token = identity(web).json()["access_token"]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return web.post(
        f"https://mkto-ingestion-api.adobe.io/subscriptions/{MUNCHKIN.upper()}/persons",
        data=content,
        headers={"Content-Type": "application/json", **({"X-Mkto-User-Token": token} if token else {}), **headers},
    )


def people(count: int, **attributes: Any) -> dict[str, Any]:
    return {"persons": [{"email": f"{number}@acme.example", **attributes} for number in range(count)]}


def padded(size: int) -> bytes:
    """A persons request of exactly `size` bytes."""
    content = json.dumps(people(1, notes="")).encode()
    return content.replace(b'"notes": "', b'"notes": "' + b"x" * (size - len(content)))


def error_code(answer: requests.Response) -> str:
    assert answer.headers["X-Request-Id"]
    return str(answer.json()["error_code"])


def test_simulated_marketo_identity_returns_same_token_with_remaining_life(web: Web, marketo: Control) -> None:
    first = identity(web).json()
    marketo.advance(600)
    second = identity(web).json()
    assert first["access_token"] == second["access_token"]
    assert first["expires_in"] - second["expires_in"] in (600, 601)
    marketo.change_marketo(MUNCHKIN, zero_lives=1)
    assert [identity(web).json()["expires_in"] > 0 for _ in range(2)] == [False, True]
    marketo.advance(3_001)
    assert identity(web).json()["access_token"] != first["access_token"]


def test_simulated_marketo_identity_wrong_secret_is_refused(web: Web, marketo: Control) -> None:
    answer = identity(web, client_secret="wrong")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_simulated_marketo_persons_are_accepted_and_last_write_wins(web: Web, marketo: Control) -> None:
    first = ingest(web, people(2, firstName="Ana", lastName="Souza"))
    second = ingest(web, {"dedupeFields": {"field1": "email"}, **people(1, firstName="Íris")})
    assert (first.status_code, first.content, first.headers["X-Request-Id"] != second.headers["X-Request-Id"]) == (
        202, b"", True,
    )  # fmt: skip
    persons = {each["attributes"]["email"]: each for each in marketo.marketo_persons(MUNCHKIN)}
    assert persons["0@acme.example"]["attributes"] == {
        "email": "0@acme.example", "firstName": "Íris", "lastName": "Souza",
    }  # fmt: skip
    assert (persons["0@acme.example"]["writes"], persons["1@acme.example"]["writes"]) == (2, 1)
    assert [each["objects"] for each in marketo.marketo_requests(MUNCHKIN)] == [2, 1]


@pytest.mark.parametrize(("count", "code"), [(1_000, None), (1_001, "4000801")])
def test_simulated_marketo_more_than_1000_objects_are_refused(
    web: Web, marketo: Control, count: int, code: str | None
) -> None:
    answer = ingest(web, people(count))
    assert answer.status_code == (400 if code else 202)
    assert code is None or error_code(answer) == code
    assert len(marketo.marketo_persons(MUNCHKIN)) == (0 if code else count)


@pytest.mark.parametrize(("size", "status"), [(1_000_000, 202), (1_000_001, 400)])
def test_simulated_marketo_body_over_1000000_bytes_is_refused(
    web: Web, marketo: Control, size: int, status: int
) -> None:
    content = padded(size)
    assert len(content) == size
    assert ingest(web, content).status_code == status


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"{", {}, "4000801"),
        ({"persons": []}, {}, "4000801"),
        ({"persons": ["Ana"]}, {}, "4000801"),
        ({"priority": "urgent", **people(1)}, {}, "4000801"),
        ({"dedupeFields": {"field3": "email"}, **people(1)}, {}, "4000801"),
        (people(1), {"X-Correlation-Id": "x" * 255}, None),
        (people(1), {"X-Correlation-Id": "x" * 256}, "4000801"),
        (people(1), {"X-Request-Source": "x" * 50}, None),
        (people(1), {"X-Request-Source": "x" * 51}, "4000801"),
        (people(1), {"X-Mkto-User-Token": "another"}, "401013"),
    ],
)
def test_simulated_marketo_invalid_request_has_adobe_error_code(
    web: Web, marketo: Control, body: Any, headers: dict[str, str], code: str | None
) -> None:
    answer = ingest(web, body, **headers)
    assert answer.status_code == (int(code[:3]) if code else 202)
    assert code is None or error_code(answer) == code


def test_simulated_marketo_missing_and_expired_token_have_different_codes(web: Web, marketo: Control) -> None:
    assert error_code(ingest(web, people(1), token=None)) == "403010"
    token = identity(web).json()["access_token"]
    marketo.change_marketo(MUNCHKIN, expire_token=True)
    assert error_code(ingest(web, people(1), token=token)) == "401013"


def test_simulated_marketo_unknown_resource_is_not_found(web: Web, marketo: Control) -> None:
    answer = web.post(f"https://mkto-ingestion-api.adobe.io/subscriptions/{MUNCHKIN}/pessoas", json={})
    assert error_code(answer) == "404040"


def test_simulated_marketo_daily_quota_is_enforced_and_renewed(web: Web, marketo: Control) -> None:
    marketo.change_marketo(MUNCHKIN, daily_quota=3)
    assert ingest(web, people(3)).status_code == 202
    assert error_code(ingest(web, people(1))) == "4290801"
    marketo.advance(86_400)
    assert ingest(web, people(1)).status_code == 202


def test_simulated_marketo_requests_over_rate_limit_are_refused(web: Web, marketo: Control) -> None:
    token = identity(web).json()["access_token"]
    marketo.change_marketo(MUNCHKIN, requests_per_s=2)
    assert [ingest(web, people(1), token=token).status_code for _ in range(3)] == [202, 202, 429]


def test_simulated_marketo_invalid_person_refuses_only_its_request(web: Web, marketo: Control) -> None:
    marketo.change_marketo(MUNCHKIN, poison={"lastName": "Veneno"})
    assert error_code(ingest(web, people(2, lastName="Veneno"))) == "4000802"
    assert ingest(web, people(2, lastName="Souza")).status_code == 202
    assert len(marketo.marketo_persons(MUNCHKIN)) == 2


def test_simulated_marketo_person_without_dedupe_field_fails_after_acceptance(web: Web, marketo: Control) -> None:
    assert ingest(web, {"persons": [{"firstName": "Ana"}]}).status_code == 202
    assert marketo.marketo_persons(MUNCHKIN) == []
    assert len(marketo.marketo_failed(MUNCHKIN)) == 1


def send(web: Web, path: str, body: dict[str, Any]) -> requests.Response:
    return web.post(
        f"https://mkto-ingestion-api.adobe.io/subscriptions/{MUNCHKIN}/{path}",
        json=body,
        headers={"X-Mkto-User-Token": identity(web).json()["access_token"]},
    )


def test_simulated_marketo_custom_object_waits_for_its_person(web: Web, marketo: Control) -> None:
    marketo.change_marketo(MUNCHKIN, custom_objects={"visit_c": {"dedupe_fields": ["visitId"], "link": "email"}})
    visits = {"customObjects": [{"visitId": 1, "email": "0@acme.example"}]}
    assert send(web, "customobjects/visit_c", visits).status_code == 202
    assert error_code(send(web, "customobjects/unknown_c", visits)) == "404040"
    kept = marketo.marketo_objects(MUNCHKIN)["custom_objects"]["visit_c"]
    assert (kept["records"], kept["waiting"]) == ([], 1)
    ingest(web, people(1))
    kept = marketo.marketo_objects(MUNCHKIN)["custom_objects"]["visit_c"]
    assert ([each["attributes"]["visitId"] for each in kept["records"]], kept["waiting"], kept["waited"]) == ([1], 0, 1)


def test_simulated_marketo_companies_members_and_lists_are_stored(web: Web, marketo: Control) -> None:
    ingest(web, people(2))
    leads = [{"leadId": person["id"]} for person in marketo.marketo_persons(MUNCHKIN)]
    program = {"programId": 7, "members": leads}
    bodies: dict[str, dict[str, Any]] = {
        "companies": {"action": "createOrUpdate", "input": [{"externalCompanyId": "a", "company": "Acme"}]},
        "programmembers": {"programs": [program | {"status": "Registered"}]},
        "programmembers/delete": {"programs": [program | {"members": leads[:1]}]},
        "lists": {"listId": 3, "input": leads},
        "lists/remove": {"listId": 3, "input": leads[1:]},
    }
    for path, body in bodies.items():
        assert send(web, path, body).status_code == 202
        assert error_code(send(web, path, {**body, "more": 1})) == "4000801"
    kept = marketo.marketo_objects(MUNCHKIN)
    assert [each["attributes"]["company"] for each in kept["companies"]] == ["Acme"]
    assert kept["members"] == {"7": {str(leads[1]["leadId"]): "Registered"}}
    assert kept["lists"] == {"3": [leads[0]["leadId"]]}
    assert marketo.marketo()[0]["quota_used"] == 2 + 1 + 2 + 1 + 2 + 1


def test_simulated_adobe_io_unknown_key_or_registration_is_refused(web: Web, marketo: Control) -> None:
    assert web.get("https://static.adobeioevents.com/prod/keys/pub-key-other.pem").status_code == 404
    assert web.get("https://csm.adobe.io/csm/registrations/validate?challenge=unknown").status_code == 404
    with pytest.raises(ValueError, match="no active registration"):
        marketo.deliver_adobe_events("https://example.com/", MUNCHKIN)
