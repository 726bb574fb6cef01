"""The first 401 for a token that is younger than five minutes, on each path that uses tokens."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from portaria.connections import connection_store
from portaria.connections.tokens.cache import PROCESS_CACHE
from portaria.core.http.messages import Request, Response
from portaria.delivery.pipeline import QueuedMessage
from tests.fakes import outgoing
from tests.fakes.api.manage import Answer, proxy_event, read
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import cloud
from tests.fakes.platforms.oauth2 import NAME, Provider, Shop, json_answer, serving
from tests.fakes.records import ingesting
from tests.fakes.records.contacts import DESTINATION, contact
from tests.fakes.records.ingesting import Harness, body, refusal

# ------------------------------------- proxied calls


class Caller:
    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.module = functions.load("call_connection", shop.stack.environment)

    def call(self) -> Answer:
        event = proxy_event("POST", f"/connections/{NAME}/call", {"method": "GET", "path": "/me"})
        return read(event, self.module.handler(event, functions.Context()))


@pytest.fixture
def caller() -> Iterator[Caller]:
    PROCESS_CACHE.clear()
    with cloud() as stack, serving(Provider()) as provider:
        shop = Shop(stack, provider)
        shop.connect(3_600)
        provider.dead.add("canary-a-0")
        yield Caller(shop)
    PROCESS_CACHE.clear()


def test_call_connection_refused_young_token_is_refreshed_once_and_call_repeated(caller: Caller) -> None:
    answer = caller.call()
    assert (answer.status, answer.content["status"]) == (200, 200)
    assert caller.shop.provider.calls == {"api": 2, "refresh_token": 1}
    assert (caller.shop.item["generation"], caller.shop.item["state"]) == (2, "connected")
    assert caller.call().content["status"] == 200
    assert caller.shop.provider.calls == {"api": 3, "refresh_token": 1}


def test_call_connection_new_token_refused_too_delays_next_refresh(caller: Caller) -> None:
    caller.shop.provider.dead.add("canary-a-1")
    assert caller.call().content["status"] == 401
    assert caller.shop.provider.calls == {"api": 2, "refresh_token": 1}
    PROCESS_CACHE.clear()
    assert caller.call().content["status"] == 401
    assert caller.shop.provider.calls == {"api": 3, "refresh_token": 1}
    assert caller.shop.item["state"] == "connected"


def test_call_connection_refused_refresh_answers_needs_reconnect(caller: Caller) -> None:
    caller.shop.provider.answers = [json_answer(400, {"error": "invalid_grant"})]
    answer = caller.call()
    assert (answer.status, answer.content["type"]) == (409, "urn:portaria:problem:needs_reconnect")
    assert caller.shop.provider.calls == {"api": 1, "refresh_token": 1}
    assert connection_store.get(caller.shop.table, NAME).state == "needs_reconnect"


# --------------- records for Marketo


class Marketo:
    """`logins` counts the tokens that were issued; the API refuses those in `dead`."""

    def __init__(self, harness: Harness) -> None:
        self.harness, self.logins, self.calls = harness, 0, 0
        self.dead: set[str] = set()

    def answer(self, request: Request, *, allowed_domain: str, owner: str) -> Response:
        if request.url.endswith("/identity/oauth/token"):
            self.logins += 1
            token = {"access_token": f"canary-{self.logins}", "token_type": "bearer", "expires_in": 3_599}
            return Response(200, {}, orjson.dumps(token))
        self.calls += 1
        if request.headers["X-Mkto-User-Token"] in self.dead:
            return refusal("401013")
        return self.harness.answer(request, allowed_domain=allowed_domain, owner=owner)


@pytest.fixture
def marketo() -> Iterator[Marketo]:
    with ingesting.harness() as harness:
        harness.route("people")
        made = Marketo(harness)
        with outgoing.answering(made.answer):
            yield made


def test_ingest_records_refused_young_token_is_renewed_once_and_records_sent(marketo: Marketo) -> None:
    marketo.dead.add("canary-1")
    assert marketo.harness.ingest(QueuedMessage("1", body([contact(1)]))).waiting == {}
    assert (marketo.logins, marketo.calls, len(marketo.harness.accepted)) == (2, 2, 1)
    assert marketo.harness.ingest(QueuedMessage("2", body([contact(2)]))).waiting == {}
    assert (marketo.logins, marketo.calls, len(marketo.harness.accepted)) == (2, 3, 2)


def test_ingest_records_new_token_refused_too_keeps_records_waiting(marketo: Marketo) -> None:
    marketo.dead |= {"canary-1", "canary-2"}
    marketo.harness.ingest(QueuedMessage("1", body([contact(1)])))
    assert (marketo.logins, marketo.calls) == (2, 2)
    assert marketo.harness.waits == {"1": pytest.approx(1_800, abs=5)}
    marketo.harness.ingest(QueuedMessage("2", body([contact(2)])))
    assert (marketo.logins, marketo.calls) == (2, 2)
    assert connection_store.get(marketo.harness.table, DESTINATION).state == "connected"
