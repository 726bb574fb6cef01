"""The supply of access tokens: how long one is handed out, where the next comes from, and who gets none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs

import pytest
import responses

from portaria import clock, tokens
from portaria.contract import Connection, Grant, Rejected, Retryable, Secret
from portaria.vault import Credentials, Vault

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
MARKETO = Connection(
    "marketo-one", "marketo", "client_credentials", "mkto-ingestion-api.adobe.io", "connected", 1, "p/grants/marketo-one-1a2b",
    fields={"munchkin_id": "123-ABC-456"},
)  # fmt: skip
KOMMO = Connection("kommo-acme-1", "kommo", "oauth2", "acme.kommo.com", "connected", 1, "p/grants/install-1")
TOKEN_URL = "https://123-abc-456.mktorest.com/identity/oauth/token"
LOG_IN = {"client_id": Secret("client-7"), "client_secret": Secret("canary-secret")}


class FakeVault(Vault):
    """Holds what a test put there, and counts who reads."""

    def __init__(self) -> None:
        super().__init__("p")
        self.secrets: dict[str, Credentials] = {MARKETO.secret_id: LOG_IN}
        self.reads = 0

    def read(self, secret_id: str) -> Credentials | None:
        self.reads += 1
        return self.secrets.get(secret_id)


class Clock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def vault() -> FakeVault:
    return FakeVault()


@pytest.fixture
def time() -> Iterator[Clock]:
    made = Clock()
    with patch.object(clock, "now", made.now):
        yield made


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    tokens._kept.clear()
    yield
    tokens._kept.clear()


@pytest.fixture
def identity() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def gives(identity: responses.RequestsMock, token: str, expires_in: Any) -> None:
    identity.add(
        "POST", TOKEN_URL, json={"access_token": token, "token_type": "bearer", "expires_in": expires_in, "scope": "x"}
    )


def stored(token: str, expires_at: datetime) -> Credentials:
    return tokens.to_stored(Grant(Secret(token), expires_at, Secret("canary-refresh"), scopes="crm"))


# ------------------------------------------------------------------------------------------------------ client credentials


def test_a_token_is_asked_for_once_while_it_lasts(
    vault: FakeVault, time: Clock, identity: responses.RequestsMock
) -> None:
    gives(identity, "one", 3600)
    for _ in range(5):
        assert tokens.access_token(vault, MARKETO).reveal() == "one"
    time.advance(3600 - 61)
    assert tokens.access_token(vault, MARKETO).reveal() == "one"
    assert (len(identity.calls), vault.reads) == (1, 1)


@pytest.mark.parametrize("left_s", [60, 59, 1, 0, -5])
def test_a_token_that_ends_within_a_minute_is_not_handed_out_again(
    vault: FakeVault, time: Clock, identity: responses.RequestsMock, left_s: int
) -> None:
    gives(identity, "one", 3600)
    tokens.access_token(vault, MARKETO)
    gives(identity, "two", 3600)
    time.advance(3600 - left_s)
    assert tokens.access_token(vault, MARKETO).reveal() == "two"


def test_what_is_left_of_a_shared_token_is_used(
    vault: FakeVault, time: Clock, identity: responses.RequestsMock
) -> None:
    """Marketo gives the same token until it ends, so one with ten seconds left is the best there is."""
    gives(identity, "one", 10)
    assert tokens.access_token(vault, MARKETO).reveal() == "one"
    time.advance(10)
    gives(identity, "two", 3599)
    assert tokens.access_token(vault, MARKETO).reveal() == "two"


@pytest.mark.parametrize("expires_in", [0, -1])
def test_a_token_without_life_is_asked_for_again_soon(
    vault: FakeVault, time: Clock, identity: responses.RequestsMock, expires_in: int
) -> None:
    gives(identity, "dead", expires_in)
    with pytest.raises(Retryable, match="token_ends_now") as later:
        tokens.access_token(vault, MARKETO)
    assert later.value.after_s == 2
    gives(identity, "fresh", 3599)
    assert tokens.access_token(vault, MARKETO).reveal() == "fresh"


def test_bad_credentials_are_told_and_not_remembered(
    vault: FakeVault, time: Clock, identity: responses.RequestsMock
) -> None:
    identity.add("POST", TOKEN_URL, status=401, json={"error": "invalid_client", "error_description": "canary-secret"})
    with pytest.raises(Rejected, match="bad_credentials") as refused:
        tokens.access_token(vault, MARKETO)
    assert "canary" not in str(refused.value)
    assert tokens._kept == {}


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 502, 503])
def test_an_identity_service_that_fails_is_asked_again(
    vault: FakeVault, time: Clock, identity: responses.RequestsMock, status: int
) -> None:
    identity.add("POST", TOKEN_URL, status=status, body="<html>canary-secret</html>")
    with pytest.raises(Retryable, match=f"answered {status}") as later:
        tokens.access_token(vault, MARKETO)
    assert "canary" not in str(later.value)


def test_the_secret_travels_in_the_body_to_the_identity_host(
    vault: FakeVault, time: Clock, identity: responses.RequestsMock
) -> None:
    gives(identity, "one", 3600)
    tokens.access_token(vault, MARKETO)
    request = identity.calls[0].request
    assert request.url == TOKEN_URL
    assert isinstance(request.body, bytes)
    form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    assert form == {"grant_type": "client_credentials", "client_id": "client-7", "client_secret": "canary-secret"}


def test_a_forgotten_token_is_fetched_again(vault: FakeVault, time: Clock, identity: responses.RequestsMock) -> None:
    gives(identity, "one", 3600)
    tokens.access_token(vault, MARKETO)
    tokens.forget(MARKETO)
    tokens.forget(MARKETO)
    gives(identity, "two", 3600)
    assert tokens.access_token(vault, MARKETO).reveal() == "two"


def test_a_new_generation_has_a_token_of_its_own(
    vault: FakeVault, time: Clock, identity: responses.RequestsMock
) -> None:
    gives(identity, "one", 3600)
    tokens.access_token(vault, MARKETO)
    gives(identity, "two", 3600)
    assert tokens.access_token(vault, replace(MARKETO, generation=2)).reveal() == "two"


def test_a_connection_made_again_by_its_old_name_does_not_get_the_old_accounts_token(
    vault: FakeVault, time: Clock, identity: responses.RequestsMock
) -> None:
    """Given a connection that was removed and made again, when its generation is 1 again, then its token is its own."""
    gives(identity, "of-the-old-account", 3600)
    tokens.access_token(vault, MARKETO)
    again = replace(MARKETO, secret_id="p/grants/marketo-one-9f9f", fields={"munchkin_id": "987-XYZ-654"})
    vault.secrets[again.secret_id] = LOG_IN
    body = {"access_token": "of-the-new-account", "expires_in": 3600}
    identity.add("POST", "https://987-xyz-654.mktorest.com/identity/oauth/token", json=body)
    assert tokens.access_token(vault, again).reveal() == "of-the-new-account"


# ------------------------------------------------------------------------------------------------------------ stored grants


def test_a_stored_grant_is_handed_out_until_a_minute_before_its_end(vault: FakeVault, time: Clock) -> None:
    vault.secrets[KOMMO.secret_id] = stored("canary-access", NOW + timedelta(days=1))
    assert tokens.access_token(vault, KOMMO).reveal() == "canary-access"
    time.advance(86_400 - 61)
    assert tokens.access_token(vault, KOMMO).reveal() == "canary-access"
    assert vault.reads == 1
    time.advance(1)
    with pytest.raises(Rejected, match="token_expired") as ended:
        tokens.access_token(vault, KOMMO)
    assert ended.value.status == 409
    assert "canary" not in str(ended.value)


def test_a_grant_that_was_renewed_meanwhile_is_found(vault: FakeVault, time: Clock) -> None:
    vault.secrets[KOMMO.secret_id] = stored("one", NOW + timedelta(seconds=100))
    tokens.access_token(vault, KOMMO)
    time.advance(50)
    vault.secrets[KOMMO.secret_id] = stored("two", NOW + timedelta(days=1))
    assert tokens.access_token(vault, KOMMO).reveal() == "two"


@pytest.mark.parametrize("connection", [KOMMO, MARKETO], ids=["stored", "client_credentials"])
@pytest.mark.parametrize("state", ["needs_reconnect", "removed", ""])
def test_a_connection_that_is_not_connected_gives_nothing(
    vault: FakeVault, time: Clock, connection: Connection, state: str
) -> None:
    with pytest.raises(Rejected, match="needs_reconnect"):
        tokens.access_token(vault, replace(connection, state=state))
    assert vault.reads == 0


@pytest.mark.parametrize("connection", [KOMMO, MARKETO], ids=["stored", "client_credentials"])
def test_an_empty_vault_is_told(vault: FakeVault, time: Clock, connection: Connection) -> None:
    vault.secrets.clear()
    with pytest.raises(Rejected, match="no_credentials"):
        tokens.access_token(vault, connection)


@pytest.mark.parametrize("refresh_token", [Secret("canary-refresh"), None])
def test_a_grant_is_stored_and_read_again(refresh_token: Secret | None) -> None:
    grant = Grant(Secret("canary-access"), NOW.replace(microsecond=123_000), refresh_token, "bearer", "crm files")
    kept = tokens.to_stored(grant)
    as_text = json.loads(json.dumps({name: secret.reveal() for name, secret in kept.items()}))
    read = tokens.read_stored({name: Secret(text) for name, text in as_text.items()})
    assert read.access_token.reveal() == "canary-access"
    assert (read.expires_at, read.token_type, read.scopes) == (grant.expires_at, "bearer", "crm files")
    assert (read.refresh_token and read.refresh_token.reveal()) == (refresh_token and refresh_token.reveal())
    assert "canary" not in repr(kept) + repr(read)
