"""The simulated OAuth 2.0 provider: what it does when a token is used twice, because suites and figures depend on it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from local.simulators.oauth2 import Code, OAuth2, Provider, challenge_of, consent_problem, is_authenticated
from local.simulators.world import BadInstruction, World

PROVIDER: dict[str, Any] = {
    "name": "one",
    "client_id": "client-1",
    "client_secret": "canary-secret",
    "redirect_uri": "https://a.example/x",
}


class Scene:
    def __init__(self, **settings: Any) -> None:
        self.world = World()
        self.oauth2 = OAuth2(self.world)
        self.provider = self.oauth2.add_provider({**PROVIDER, **settings})
        self.issued = self.oauth2.issued[self.provider.host]

    def refresh(self, token: str) -> tuple[str, dict[str, Any]]:
        return self.oauth2.refresh(self.provider, self.issued, token)

    def advance(self, seconds: float) -> None:
        self.world.clock.offset_s += seconds


def test_simulated_oauth2_strict_reused_refresh_token_revokes_grant() -> None:
    scene = Scene()
    first = scene.oauth2.issue_grant("one", "read")
    outcome, second = scene.refresh(first["refresh_token"])
    assert outcome == "rotated"
    assert second["refresh_token"] != first["refresh_token"]

    assert scene.refresh(first["refresh_token"]) == ("reused", {"error": "invalid_grant"})
    assert scene.refresh(second["refresh_token"]) == ("revoked", {"error": "invalid_grant"})


def test_simulated_oauth2_grace_reused_refresh_token_gets_new_pair_until_it_ends() -> None:
    scene = Scene(refresh_mode="grace", grace_s=30)
    first = scene.oauth2.issue_grant("one", "")
    _, second = scene.refresh(first["refresh_token"])
    scene.advance(29)
    outcome, third = scene.refresh(first["refresh_token"])
    assert outcome == "in_grace"
    assert len({each["refresh_token"] for each in (first, second, third)}) == 3
    scene.advance(2)
    assert scene.refresh(first["refresh_token"])[0] == "reused"


def test_simulated_oauth2_replay_reused_refresh_token_gets_same_answer_until_used() -> None:
    scene = Scene(refresh_mode="replay")
    first = scene.oauth2.issue_grant("one", "")
    _, second = scene.refresh(first["refresh_token"])
    assert scene.refresh(first["refresh_token"]) == ("replayed", second)
    assert scene.refresh(second["refresh_token"])[0] == "rotated"
    assert scene.refresh(first["refresh_token"])[0] == "reused"


def test_simulated_oauth2_kept_refresh_token_stays_valid() -> None:
    scene = Scene(refresh_mode="kept")
    first = scene.oauth2.issue_grant("one", "")
    answers = [scene.refresh(first["refresh_token"]) for _ in range(3)]
    assert [outcome for outcome, _ in answers] == ["kept"] * 3
    assert not any("refresh_token" in answer for _, answer in answers)
    assert len({answer["access_token"] for _, answer in answers}) == 3


def test_simulated_oauth2_code_works_once_and_reuse_revokes_grant() -> None:
    scene = Scene()
    now = scene.world.clock.now()
    scene.issued.codes["c"] = Code(PROVIDER["redirect_uri"], "read", challenge_of("v" * 43), now)
    form = {"code": "c", "redirect_uri": PROVIDER["redirect_uri"], "code_verifier": "v" * 43}
    for change, outcome in (
        ({"code": "other"}, "unknown"),
        ({"redirect_uri": "https://a.example/y"}, "wrong_redirect_uri"),
        ({"code_verifier": "w" * 43}, "wrong_verifier"),
        ({"code_verifier": ""}, "wrong_verifier"),
    ):
        assert scene.oauth2.exchange(scene.provider, scene.issued, form | change)[0] == outcome
    outcome, answer = scene.oauth2.exchange(scene.provider, scene.issued, form)
    assert outcome == "issued"
    assert scene.oauth2.exchange(scene.provider, scene.issued, form)[0] == "reused"
    assert scene.refresh(answer["refresh_token"])[0] == "revoked"


def test_simulated_oauth2_code_expires() -> None:
    scene = Scene()
    scene.issued.codes["c"] = Code("", "", "", scene.world.clock.now())
    scene.advance(601)
    assert scene.oauth2.exchange(scene.provider, scene.issued, {"code": "c", "redirect_uri": ""})[0] == "expired"


def test_simulated_oauth2_token_answer_omits_configured_fields() -> None:
    scene = Scene(expires_in=None, gives_refresh_token=False)
    assert set(scene.oauth2.issue_grant("one", "read")) == {"access_token", "token_type"}
    scene.oauth2.change_provider({"name": "one", "scopes": "less"})
    scene.provider = scene.oauth2.provider("one")
    assert scene.oauth2.issue_grant("one", "read")["scope"] == "less"


@pytest.mark.parametrize(
    ("token_auth", "header", "form", "proved"),
    [
        ("any", "basic", {}, True),
        ("basic", "basic", {}, True),
        ("post", "basic", {}, False),
        ("any", "", {"client_id": "client-1", "client_secret": "canary-secret"}, True),
        ("basic", "", {"client_id": "client-1", "client_secret": "canary-secret"}, False),
        ("post", "", {"client_id": "client-1", "client_secret": "canary-secret"}, True),
        ("any", "", {"client_id": "client-1", "client_secret": "other"}, False),
        ("any", "", {}, False),
        ("any", "basic", {"client_secret": "canary-secret"}, False),
        ("any", "Basic %%%", {}, False),
    ],
)
def test_simulated_oauth2_client_authentication_follows_token_auth(
    token_auth: str, header: str, form: dict[str, str], proved: bool
) -> None:
    if header == "basic":
        header = f"Basic {base64.b64encode(b'client-1:canary-secret').decode()}"
    provider = Provider("one", "client-1", "canary-secret", token_auth=token_auth)
    assert is_authenticated(provider, header, form) is proved


def test_simulated_oauth2_consent_requires_registered_redirect_uri_and_pkce() -> None:
    provider = Provider(**PROVIDER)
    query = {"client_id": "client-1", "redirect_uri": PROVIDER["redirect_uri"], "response_type": "code"}
    pkce = {"code_challenge": "c" * 43, "code_challenge_method": "S256"}
    assert consent_problem(provider, query | pkce) == ""
    assert consent_problem(provider, query)
    assert consent_problem(provider, query | pkce | {"code_challenge_method": "plain"})
    assert consent_problem(provider, query | pkce | {"redirect_uri": "https://a.example/y"})
    assert consent_problem(provider, query | pkce | {"client_id": "other"})


def test_simulated_oauth2_invalid_settings_are_refused() -> None:
    scene = Scene()
    with pytest.raises(BadInstruction):
        scene.oauth2.change_provider({"name": "one", "refresh_mode": "loose"})
    with pytest.raises(BadInstruction):
        scene.oauth2.provider("nobody")


def test_simulated_oauth2_dump_holds_no_secret() -> None:
    scene = Scene()
    pair = scene.oauth2.issue_grant("one", "read")
    scene.refresh(pair["refresh_token"])
    assert "canary" not in str(scene.oauth2.dump())
