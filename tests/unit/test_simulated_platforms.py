"""The simulators of LeadConnector and Engage, called with the requests that the product builds and read by its readers."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request

from local.simulators import engage, leadconnector
from local.simulators.serving import Front
from local.simulators.world import World
from portaria import clock, egress
from portaria.contract import Connection, Rejected, Request, Response, Retryable, Secret
from portaria.platforms.engage import tokens as engage_tokens
from portaria.platforms.leadconnector import tokens as leadconnector_tokens

OLD, NEW, LOCATION = "pit-canary-old", "pit-canary-new", "ve9EPM428h8vShlRW1KT"
LOG_IN = {"username": "maria", "password": "senhã & co", "client_id": "app", "client_secret": "canary-secret"}
MARKETEK = Connection(
    "one", "leadconnector", "bearer", leadconnector.HOST, "connected", 1, "s", fields={"location_id": LOCATION}
)
ENGAGE = Connection(
    "two", "engage", "password", "my.engage.bz", "connected", 1, "s",
    fields={"customer_id": "acme", "environment": "production"},
)  # fmt: skip


class Scene:
    def __init__(self) -> None:
        self.world = World()
        self.leadconnector = leadconnector.LeadConnector(self.world)
        self.engage = engage.Engage(self.world)
        self.front = Front(self.world, [self.leadconnector, self.engage])

    def send(self, request: Request) -> Response:
        return asyncio.run(self._serve(request))

    async def _serve(self, request: Request) -> Response:
        url = urlsplit(request.url)
        payload = StreamReader(Mock(_reading_paused=False), limit=2**16)
        payload.feed_data(request.body or b"")
        payload.feed_eof()
        headers = {"User-Agent": egress.USER_AGENT, **request.headers, "Host": url.netloc}
        served = make_mocked_request(request.method, url.path, headers, payload=payload)
        answer = await self.front.serve(served)
        assert isinstance(answer, web.Response)
        body = answer.body if isinstance(answer.body, bytes) else b""
        return Response(answer.status, {name.lower(): value for name, value in answer.headers.items()}, body)

    def probe(self, token: str, **headers: str) -> Response:
        built = leadconnector_tokens.probe_request(MARKETEK, {"token": Secret(token)})
        return self.send(Request(built.method, built.url, {**built.headers, **headers}))

    def log_in(self, **changes: str) -> Response:
        credentials = {name: Secret(value) for name, value in {**LOG_IN, **changes}.items()}
        return self.send(engage_tokens.token_request(ENGAGE, credentials, None))


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.leadconnector.add_location({"id": LOCATION})
    scene.leadconnector.add_token(OLD, LOCATION)
    scene.engage.add_user({**LOG_IN, "customer_id": "acme", "environment": "production"})
    return scene


class TestLeadConnector:
    def test_a_token_that_works(self, scene: Scene) -> None:
        answer = scene.probe(OLD)
        leadconnector_tokens.read_probe(answer)
        assert answer.headers["x-ratelimit-remaining"] == "99"
        assert answer.headers["x-ratelimit-limit-daily"] == "200000"

    @pytest.mark.parametrize("token", ["pit-canary-unknown", "jwt"])
    def test_a_dead_one(self, scene: Scene, token: str) -> None:
        answer = scene.probe(token)
        assert leadconnector_tokens.token_refused(answer)
        with pytest.raises(Rejected, match="token_refused"):
            leadconnector_tokens.read_probe(answer)

    def test_the_old_one_works_for_seven_days_after_a_rotation(self, scene: Scene) -> None:
        scene.leadconnector.rotate_token(OLD, NEW)
        scene.world.clock.offset_s += leadconnector.OVERLAP_S - 10
        assert [scene.probe(token).status for token in (OLD, NEW)] == [200, 200]
        scene.world.clock.offset_s += 11
        assert [scene.probe(token).status for token in (OLD, NEW)] == [401, 200]

    def test_or_dies_at_once(self, scene: Scene) -> None:
        scene.leadconnector.rotate_token(OLD, NEW, expire_now=True)
        assert [scene.probe(token).status for token in (OLD, NEW)] == [401, 200]

    def test_a_missing_scope_is_no_dead_token(self, scene: Scene) -> None:
        scene.leadconnector.add_token(NEW, LOCATION, ["contacts.write"])
        answer = scene.probe(NEW)
        assert (answer.status, leadconnector_tokens.token_refused(answer)) == (401, False)
        leadconnector_tokens.read_probe(answer)

    def test_a_token_of_another_location(self, scene: Scene) -> None:
        scene.leadconnector.add_location({"id": "other"})
        scene.leadconnector.add_token(NEW, "other")
        with pytest.raises(Rejected, match="wrong_location"):
            leadconnector_tokens.read_probe(scene.probe(NEW))

    def test_a_version_and_a_name_of_ones_own_are_needed(self, scene: Scene) -> None:
        for headers in ({"Version": ""}, {"User-Agent": "python-requests/2.34"}):
            with pytest.raises(Retryable, match="no_verdict"):
                leadconnector_tokens.read_probe(scene.probe(OLD, **headers))

    def test_a_hundred_calls_in_ten_seconds(self, scene: Scene) -> None:
        scene.leadconnector.locations[LOCATION].requests_per_window = 2
        assert [scene.probe(OLD).status for _ in range(3)] == [200, 200, 429]
        with pytest.raises(Retryable, match="rate_limited"):
            leadconnector_tokens.read_probe(scene.probe(OLD))

    def test_a_contact_is_made_changed_and_read(self, scene: Scene) -> None:
        headers = {"Authorization": f"Bearer {OLD}", "Version": "2021-07-28", "Content-Type": "application/json"}

        def upsert(**contact: Any) -> Any:
            body = json.dumps({"locationId": LOCATION, **contact}).encode()
            return scene.send(Request("POST", f"https://{leadconnector.HOST}/contacts/upsert", headers, body))

        made = json.loads(upsert(email="a@example.com", tags=["x"]).body)
        changed = json.loads(upsert(email="a@example.com", tags=["y"]).body)
        assert (made["new"], changed["new"]) == (True, False)
        read = scene.send(Request("GET", f"https://{leadconnector.HOST}/contacts/{made['contact']['id']}", headers))
        assert json.loads(read.body)["contact"]["tags"] == ["y"]
        body = json.dumps({"email": "a@example.com"}).encode()
        refused = scene.send(Request("POST", f"https://{leadconnector.HOST}/contacts/upsert", headers, body))
        assert (refused.status, isinstance(json.loads(refused.body)["message"], list)) == (422, True)


class TestEngage:
    def test_a_log_in_gives_25_minutes_and_nothing_to_renew_it_with(self, scene: Scene) -> None:
        now = clock.now()
        grant = engage_tokens.read_grant(scene.log_in(), now)
        assert (grant.expires_at - now).total_seconds() == 1499
        assert grant.refresh_token is None
        assert scene.engage.dump()[0]["log_ins"] == 1

    @pytest.mark.parametrize("change", [{"password": "x"}, {"username": "x"}, {"client_secret": "x"}])
    def test_a_wrong_one_is_refused(self, scene: Scene, change: dict[str, str]) -> None:
        with pytest.raises(Rejected, match="bad_credentials"):
            engage_tokens.read_grant(scene.log_in(**change), clock.now())

    def test_a_user_of_one_environment_is_none_of_the_other(self, scene: Scene) -> None:
        scene.engage.remove_user("production", "acme", "maria")
        scene.engage.add_user({**LOG_IN, "customer_id": "acme"})
        with pytest.raises(Rejected, match="bad_credentials"):
            engage_tokens.read_grant(scene.log_in(), clock.now())

    def test_the_rest_is_not_there_yet(self, scene: Scene) -> None:
        assert scene.send(Request("GET", "https://my.engage.bz/api/v1/users")).status == 404
