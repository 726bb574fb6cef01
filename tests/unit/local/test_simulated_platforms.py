"""The simulators of LeadConnector and Engage, called with the product's requests and read by its readers."""

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
from local.simulators.world import BadInstruction, World
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_exchange
from portaria.platforms.engage import identifiers, sso
from portaria.platforms.engage import tokens as engage_tokens
from portaria.platforms.leadconnector import contacts
from portaria.platforms.leadconnector import tokens as leadconnector_tokens
from portaria.platforms.values import RefusedUsers, UpsertedContact

OLD, NEW, LOCATION = "pit-canary-old", "pit-canary-new", "ve9EPM428h8vShlRW1KT"
LOG_IN = {
    "username": "maria", "password": "senhã & co", "client_id": "app", "client_secret": "canary-secret",
    "customer_token": "canary-customer",
}  # fmt: skip
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
        headers = {"User-Agent": http_exchange.USER_AGENT, **request.headers, "Host": url.netloc}
        target = f"{url.path}?{url.query}" if url.query else url.path
        served = make_mocked_request(request.method, target, headers, payload=payload)
        answer = await self.front.serve(served)
        assert isinstance(answer, web.Response)
        body = answer.body if isinstance(answer.body, bytes) else b""
        return Response(answer.status, {name.lower(): value for name, value in answer.headers.items()}, body)

    def probe(self, token: str, **headers: str) -> Response:
        built = leadconnector_tokens.probe_request(MARKETEK, {"token": Secret(token)})
        return self.send(Request(built.method, built.url, {**built.headers, **headers}))

    def log_in(self, **changes: str) -> Response:
        return self.send(engage_tokens.token_request(ENGAGE, credentials(**changes), None))

    def register(self, *users: tuple[str, str], token: str = "", **changes: str) -> RefusedUsers | None:
        """Users (login, identifier), with a fresh token unless one is given."""
        given = [{"user_login": login, "identifier": identifier} for login, identifier in users]
        access_token = Secret(token) if token else engage_tokens.read_grant(self.log_in(), clock.now()).access_token
        request = identifiers.register_request(ENGAGE, credentials(**changes), access_token, given)
        return identifiers.read_answer(self.send(request))

    def key(self, user: str, **changes: str) -> Secret:
        return sso.read_key(self.send(sso.sign_on_request(ENGAGE, credentials(**changes), user)))

    def upsert(self, **contact: Any) -> UpsertedContact:
        token = {"token": Secret(OLD)}
        return contacts.read_upserted(self.send(contacts.upsert_request(MARKETEK, token, contact)))


def credentials(**changes: str) -> dict[str, Secret]:
    return {name: Secret(value) for name, value in {**LOG_IN, **changes}.items()}


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.leadconnector.add_location({"id": LOCATION})
    scene.leadconnector.add_token(OLD, LOCATION)
    scene.engage.add_user({**LOG_IN, "customer_id": "acme", "environment": "production"})
    return scene


class TestLeadConnector:
    def test_simulated_leadconnector_valid_token_is_accepted_with_rate_limit_headers(self, scene: Scene) -> None:
        answer = scene.probe(OLD)
        leadconnector_tokens.read_probe(answer)
        assert answer.headers["x-ratelimit-remaining"] == "99"
        assert answer.headers["x-ratelimit-limit-daily"] == "200000"

    @pytest.mark.parametrize("token", ["pit-canary-unknown", "jwt"])
    def test_simulated_leadconnector_unknown_token_is_refused(self, scene: Scene, token: str) -> None:
        answer = scene.probe(token)
        assert leadconnector_tokens.token_refused(answer)
        with pytest.raises(Rejected, match="token_refused"):
            leadconnector_tokens.read_probe(answer)

    def test_simulated_leadconnector_rotated_token_is_valid_for_seven_days(self, scene: Scene) -> None:
        scene.leadconnector.rotate_token(OLD, NEW)
        scene.world.clock.offset_s += leadconnector.OVERLAP_S - 10
        assert [scene.probe(token).status for token in (OLD, NEW)] == [200, 200]
        scene.world.clock.offset_s += 11
        assert [scene.probe(token).status for token in (OLD, NEW)] == [401, 200]

    def test_simulated_leadconnector_rotation_with_expire_now_ends_old_token(self, scene: Scene) -> None:
        scene.leadconnector.rotate_token(OLD, NEW, expire_now=True)
        assert [scene.probe(token).status for token in (OLD, NEW)] == [401, 200]

    def test_simulated_leadconnector_missing_scope_is_not_a_refused_token(self, scene: Scene) -> None:
        scene.leadconnector.add_token(NEW, LOCATION, ["contacts.write"])
        answer = scene.probe(NEW)
        assert (answer.status, leadconnector_tokens.token_refused(answer)) == (401, False)
        leadconnector_tokens.read_probe(answer)

    def test_simulated_leadconnector_token_of_another_location_is_wrong_location(self, scene: Scene) -> None:
        scene.leadconnector.add_location({"id": "other"})
        scene.leadconnector.add_token(NEW, "other")
        with pytest.raises(Rejected, match="wrong_location"):
            leadconnector_tokens.read_probe(scene.probe(NEW))

    def test_simulated_leadconnector_missing_version_or_user_agent_gives_no_verdict(self, scene: Scene) -> None:
        for headers in ({"Version": ""}, {"User-Agent": "python-requests/2.34"}):
            with pytest.raises(Retryable, match="no_verdict"):
                leadconnector_tokens.read_probe(scene.probe(OLD, **headers))

    def test_simulated_leadconnector_rate_limit_exceeded_answers_429(self, scene: Scene) -> None:
        scene.leadconnector.locations[LOCATION].requests_per_window = 2
        assert [scene.probe(OLD).status for _ in range(3)] == [200, 200, 429]
        with pytest.raises(Retryable, match="rate_limited"):
            leadconnector_tokens.read_probe(scene.probe(OLD))

    def test_simulated_leadconnector_contact_is_created_updated_and_read(self, scene: Scene) -> None:
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

    def test_simulated_leadconnector_answers_are_readable_by_platform(self, scene: Scene) -> None:
        made = scene.upsert(email="a@example.com")
        assert (made.outcome, scene.upsert(email="a@example.com", city="Recife").outcome) == ("created", "updated")
        assert "email must be an email" in scene.upsert(email="nothing").detail
        read = scene.send(contacts.contact_request(MARKETEK, {"token": Secret(OLD)}, made.id))
        assert contacts.read_contact(read)["city"] == "Recife"
        nobody = scene.send(contacts.contact_request(MARKETEK, {"token": Secret(OLD)}, "nobody"))
        with pytest.raises(Rejected, match="unknown_contact"):
            contacts.read_contact(nobody)
        scene.leadconnector.locations[LOCATION].refuses_duplicates = True
        other = scene.upsert(phone="+5581999990000")
        refused = scene.upsert(email="a@example.com", phone="+5581999990000")
        assert (refused.reason, refused.id) == ("duplicate_contact", other.id)

    def test_simulated_leadconnector_missing_write_scope_is_named(self, scene: Scene) -> None:
        scene.leadconnector.tokens[OLD].scopes = ("locations.readonly",)
        with pytest.raises(Rejected, match=r"contacts\.write"):
            scene.upsert(email="a@example.com")

    def test_simulated_leadconnector_last_request_of_window_asks_for_pause(self, scene: Scene) -> None:
        scene.leadconnector.locations[LOCATION].requests_per_window = 2
        assert [contacts.pause_s(scene.probe(OLD)) for _ in range(2)] == [None, 10.0]


class TestEngage:
    def test_simulated_engage_login_gives_token_for_25_minutes_without_refresh(self, scene: Scene) -> None:
        now = clock.now()
        grant = engage_tokens.read_grant(scene.log_in(), now)
        assert (grant.expires_at - now).total_seconds() == 1499
        assert grant.refresh_token is None
        assert scene.engage.dump()[0]["log_ins"] == 1

    @pytest.mark.parametrize("change", [{"password": "x"}, {"username": "x"}, {"client_secret": "x"}])
    def test_simulated_engage_wrong_login_is_refused(self, scene: Scene, change: dict[str, str]) -> None:
        with pytest.raises(Rejected, match="bad_credentials"):
            engage_tokens.read_grant(scene.log_in(**change), clock.now())

    def test_simulated_engage_user_of_another_environment_is_refused(self, scene: Scene) -> None:
        scene.engage.remove_user("production", "acme", "maria")
        scene.engage.add_user({**LOG_IN, "customer_id": "acme"})
        with pytest.raises(Rejected, match="bad_credentials"):
            engage_tokens.read_grant(scene.log_in(), clock.now())

    def test_simulated_engage_unknown_path_is_not_found(self, scene: Scene) -> None:
        assert scene.send(Request("GET", "https://my.engage.bz/api/v1/users")).status == 404

    def test_simulated_engage_registered_user_signs_on_once_per_key(self, scene: Scene) -> None:
        scene.engage.add_people("acme", ["maria@example.com"], "production")
        assert scene.register(("maria@example.com", "u-1")) is None
        assert scene.register(("maria@example.com", "u-1")) is None
        key = scene.key("u-1").reveal()
        assert scene.engage.enter("acme", key, "production") == "maria@example.com"
        with pytest.raises(BadInstruction):
            scene.engage.enter("acme", key, "production")
        (customer,) = scene.engage.dump_customers()
        assert (customer["keys_given"], customer["keys_used"]) == (1, 1)
        assert customer["identifiers"] == {"u-1": "maria@example.com"}

    def test_simulated_engage_identifier_of_another_user_is_refused(self, scene: Scene) -> None:
        scene.engage.add_people("acme", ["maria", "joão"], "production")
        assert scene.register(("maria", "u-1")) is None
        refused = scene.register(("joão", "u-2"), ("joão", "u-1"))
        assert refused is not None
        assert refused.reason == "identifier_taken"
        with pytest.raises(Rejected, match="user_refused"):
            scene.key("u-2")

    def test_simulated_engage_unknown_login_is_refused(self, scene: Scene) -> None:
        refused = scene.register(("nobody", "u-1"))
        assert refused is not None
        assert refused.reason == "user_refused"

    def test_simulated_engage_registration_without_permission_is_refused(self, scene: Scene) -> None:
        scene.engage.add_people("acme", ["maria"], "production")
        for change in ({"customer_token": "canary-x"}, {"token": "canary-ended"}):
            with pytest.raises(Rejected, match="not_permitted"):
                scene.register(("maria", "u-1"), **change)
        token = engage_tokens.read_grant(scene.log_in(), clock.now()).access_token.reveal()
        scene.engage.end_tokens("acme", "production")
        with pytest.raises(Rejected, match="not_permitted"):
            scene.register(("maria", "u-1"), token=token)
        scene.engage.add_user({**LOG_IN, "customer_id": "acme", "environment": "production", "manages_users": False})
        with pytest.raises(Rejected, match="not_permitted"):
            scene.register(("maria", "u-1"))

    @pytest.mark.parametrize("name", ["customer_token", "client_id", "client_secret"])
    def test_simulated_engage_sign_on_with_wrong_credentials_is_refused(self, scene: Scene, name: str) -> None:
        with pytest.raises(Rejected, match="sign_on_refused"):
            scene.key("u-1", **{name: "x"})
