"""Renewing a connection's tokens by hand, and reading sample records of its account."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import responses

from portaria.connections import connection_store
from portaria.connections.tokens.cache import PROCESS_CACHE
from portaria.core.callbacks import Secret
from tests.fakes.api.calling import Calling
from tests.fakes.api.command_line import run, wired
from tests.fakes.api.manage import Answer, proxy_event, read, with_headers
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import cloud
from tests.fakes.connections.tokens import NAME, Harness
from tests.fakes.platforms.kommo import CLIENT_SECRET
from tests.fakes.virtual_time import VirtualClock


class Called(Harness):
    """The function `call_connection` beside the connected account."""

    def start(self) -> None:
        self.calling = Calling(self.stack)
        PROCESS_CACHE.clear()

    def request(self, method: str, path: str, **headers: str) -> Answer:
        event = with_headers(proxy_event(method, path), **headers)
        answer = read(event, self.calling.module.handler(event, functions.Context()))
        assert "canary" not in answer.text + self.calling.log.getvalue()
        return answer

    def renew(self, name: str = NAME, **headers: str) -> Answer:
        return self.request("POST", f"/connections/{name}/renew", **headers)


@pytest.fixture
def called() -> Iterator[Called]:
    time = VirtualClock()
    with (
        cloud() as stack,
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        time.installed(),
    ):
        harness = Called(stack, mock, time)
        harness.start()
        yield harness


def test_renew_connection_stores_a_new_pair_and_returns_the_next_generation(called: Called) -> None:
    answer = called.renew()
    assert answer.status == 200, answer.text
    assert (answer.content["generation"], answer.content["state"]) == (2, "connected")
    assert called.kommo.refreshes == {"canary-refresh-one": 1}
    assert called.ask() == "canary-access-one+"


def test_renew_connection_repeated_with_its_key_renews_once(called: Called) -> None:
    assert [called.renew(idempotency_key="first").status for _ in range(2)] == [200, 200]
    assert called.kommo.refreshes == {"canary-refresh-one": 1}
    assert called.renew(idempotency_key="second").status == 200
    assert called.kommo.refreshes == {"canary-refresh-one": 1, "canary-refresh-one+": 1}


def test_renew_connection_while_another_worker_holds_the_lease_sends_nothing(called: Called) -> None:
    key = connection_store.key(NAME)
    until = {":until": int(called.time.now().timestamp()) + 3_600}
    called.table.update(*key, "SET lease_until = :until, fence = :one", values=until | {":one": 1})
    answer = called.renew()
    assert (answer.status, answer.content["type"].rpartition(":")[2]) == (503, "renewal_in_progress")
    assert called.kommo.refreshes == {}


def test_renew_connection_that_the_platform_refuses_says_so_and_keeps_the_pair(called: Called) -> None:
    wrong = {"client_secret": Secret(CLIENT_SECRET + "-wrong")}
    called.vault.replace(called.vault.client_secret_id("kommo", "acme"), wrong)
    answer = called.renew()
    assert (answer.status, answer.content["type"].rpartition(":")[2]) == (409, "renewal_refused")
    assert called.ask() == "canary-access-one"


def test_renew_connection_whose_consent_was_revoked_must_be_connected_again(called: Called) -> None:
    called.kommo.revoked.add("acme")
    answer = called.renew()
    assert (answer.status, answer.content["type"].rpartition(":")[2]) == (409, "needs_reconnect")
    assert connection_store.get(called.table, NAME).state == "needs_reconnect"


@pytest.mark.parametrize("kind", ["api_key", "bearer", "password"])
def test_renew_connection_without_a_refresh_token_is_not_offered(called: Called, kind: str) -> None:
    called.calling.connect("erp", kind, platform="engage" if kind == "password" else "http")
    answer = called.renew("erp")
    assert (answer.status, answer.content["type"].rpartition(":")[2]) == (409, "not_offered")


def test_renew_connection_unknown_is_404(called: Called) -> None:
    assert called.renew("none").status == 404


# --------------------------------------------------------------------------------------------------------- sample records


def contact(number: int, updated_at: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "name": f"Person {number}", "updated_at": updated_at, **more}


def listed(called: Called, name: str, entities: list[dict[str, Any]], status: int = 200) -> None:
    content = {"_embedded": {name: entities}}
    called.mock.get(re.compile(rf"https://acme\.kommo\.com/api/v4/{name}.*"), json=content, status=status)


def samples(called: Called, query: str = "") -> Answer:
    return called.request("GET", f"/connections/{NAME}/sample-records{query}")


def test_sample_records_are_the_newest_first_and_without_credentials(called: Called) -> None:
    listed(called, "contacts", [contact(1, 100), contact(2, 200, api_token="canary-inner")])
    answer = samples(called, "?limit=5")
    assert [(each["id"], each["data"]["name"]) for each in answer.content["items"]] == [
        ("2", "Person 2"),
        ("1", "Person 1"),
    ]
    assert answer.content["items"][0]["data"]["api_token"] == "***"
    assert len(samples(called, "?limit=1").content["items"]) == 1


def test_sample_records_leave_out_a_record_that_is_too_long(called: Called) -> None:
    listed(called, "contacts", [contact(1, 100, note="x" * 20_001), contact(2, 50)])
    assert [each["id"] for each in samples(called).content["items"]] == ["2"]


def test_sample_records_of_an_object_that_the_platform_cannot_list_are_not_offered(called: Called) -> None:
    answer = samples(called, "?object=notes")
    assert (answer.status, answer.content["field"]) == (409, "object")
    assert samples(called, "?object=%3Cb%3E").status == 400


def test_sample_records_of_a_platform_that_does_not_answer_are_an_error(called: Called) -> None:
    listed(called, "contacts", [], status=500)
    assert samples(called).status == 503


# ----------------------------------------------------------------------------------------------------------- command line


def test_cli_renews_and_prints_sample_records(called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    wired(called.stack, monkeypatch)
    PROCESS_CACHE.clear()
    assert json.loads(run("--json", "connections", "renew", NAME).stdout)["generation"] == 2
    assert "generation" in run("connections", "renew", NAME).stdout
    assert called.kommo.refreshes == {"canary-refresh-one": 1, "canary-refresh-one+": 1}
    listed(called, "contacts", [contact(1, 100), contact(2, 200)])
    printed = run("sample-records", "list", NAME, "--object", "contacts").stdout
    assert [json.loads(line)["id"] for line in printed.splitlines()] == [2, 1]
    refused = run("sample-records", "list", NAME, "--object", "notes", exit_code=1)
    assert "kommo cannot list notes" in refused.stderr
