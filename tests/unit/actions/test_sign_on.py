"""Single sign-on: who a link signs in, what is stored, and what the caller receives."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
import responses

from portaria.actions import single_sign_on
from portaria.api.resources.actions import sign_on as api
from portaria.api.validation import parse
from portaria.aws import service_clients
from portaria.connections import connection_store, vault
from portaria.connections.credential_stores import sealing
from portaria.connections.tokens import static_credentials, usability
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable
from portaria.core.stored_reasons import ConnectionReason
from tests.fakes.api.manage import API_URL
from tests.fakes.aws.moto_cloud import PREFIX, TABLE, Cloud
from tests.fakes.connections.connected import connect, to_engage, to_leadconnector
from tests.fakes.platforms.engage import LOG_IN, Engage, refusal

NAME = "engage-one"
KEY_1 = "canary-key-1%2F%2B%26"


@pytest.fixture
def stack(stack: Cloud) -> Cloud:
    to_engage(stack)
    return stack


@pytest.fixture
def engage(stack: Cloud) -> Iterator[Engage]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield Engage(mock)


def key_id(stack: Cloud) -> str:
    return stack.environment["SEALING_KEY_ID"]


def ask(stack: Cloud, name: str = NAME, **sent: Any) -> dict[str, Any]:
    asked = parse(api.SignOnRequest, {"user_identifier": "u-1", **sent})
    answer = api.begin(stack.table, Vault(PREFIX), key_id(stack), name, asked, API_URL)
    assert api.SignOnLink.model_validate(answer).model_dump() == answer
    return answer


def ticket_of(answer: dict[str, Any]) -> Secret:
    url, _, ticket = answer["link"].rpartition("/")
    assert url == f"{API_URL}/sso"
    return Secret(ticket)


def redeem(stack: Cloud, ticket: Secret) -> str:
    return single_sign_on.redeem(stack.table, key_id(stack), ticket).reveal()


def refused(stack: Cloud, ticket: Secret | str) -> str:
    with pytest.raises(Rejected) as error:
        redeem(stack, ticket if isinstance(ticket, Secret) else Secret(ticket))
    return error.value.reason


def item_of(stack: Cloud, ticket: Secret) -> dict[str, Any]:
    item = stack.table.get(f"SSO#{ticket.reveal().partition('.')[0]}", "SSO")
    assert item
    return item


# --------------------------------------------------------------------------------------------------- response to the caller


def test_create_sign_on_link_redirects_to_front_end_once(stack: Cloud, engage: Engage) -> None:
    answer = ask(stack)
    assert answer["addresses"] is None
    ticket = ticket_of(answer)
    assert redeem(stack, ticket) == f"https://one.engage.bz/#/login?key={KEY_1}"
    assert refused(stack, ticket) == "used_link"
    assert len(engage.keys) == 1


def test_create_sign_on_link_to_customer_front_end_redirects_there(stack: Cloud, engage: Engage) -> None:
    assert redeem(stack, ticket_of(ask(stack, front_end="customer"))) == f"https://acme.engage.bz/#/login?key={KEY_1}"


def test_create_sign_on_addresses_are_returned_and_not_stored(stack: Cloud, engage: Engage) -> None:
    answer = ask(stack, deliver="addresses")
    assert (answer["link"], answer["expires_at"]) == (None, None)
    assert answer["addresses"] == {
        "default": f"https://one.engage.bz/#/login?key={KEY_1}",
        "customer": f"https://acme.engage.bz/#/login?key={KEY_1}",
    }
    scan = service_clients.client("dynamodb").scan(TableName=TABLE)["Items"]
    assert not [item for item in scan if item["pk"]["S"].startswith("SSO#")]


def test_create_sign_on_link_each_has_its_own_key(stack: Cloud, engage: Engage) -> None:
    first, second = (ticket_of(ask(stack)) for _ in range(2))
    assert redeem(stack, second).endswith("key-2%2F%2B%26")
    assert redeem(stack, first).endswith("key-1%2F%2B%26")


def test_create_sign_on_link_expires_within_two_minutes(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ask(stack)
    left = clock.from_iso(answer["expires_at"]) - clock.now()
    assert timedelta(seconds=110) < left <= timedelta(minutes=2)


def test_create_sign_on_link_stores_no_key_and_no_ticket(stack: Cloud, engage: Engage) -> None:
    ticket = ticket_of(ask(stack))
    item = item_of(stack, ticket)
    assert set(item) == {"pk", "sk", "connection", "sealed", "ends_at", "expires_at"}
    # Nor the MAC: read access to the table opens no link.
    assert ticket.reveal().partition(".")[2] not in repr(item)
    assert "canary" not in repr(item)
    redeem(stack, ticket)
    assert "sealed" not in item_of(stack, ticket)


def test_sign_on_logs_neither_key_nor_ticket(
    stack: Cloud, engage: Engage, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        ticket = ticket_of(ask(stack))
        redeem(stack, ticket)
        refused(stack, ticket)
    printed = capsys.readouterr()
    told = caplog.text + repr([vars(record) for record in caplog.records]) + printed.out + printed.err
    for secret in ("canary", ticket.reveal(), ticket.reveal().partition(".")[2]):
        assert secret not in told


# ------------------------------------------------------------------------------------------------------- invalid tickets


@pytest.mark.parametrize(
    "text",
    ["", ".", "x", "a" * 22, "a" * 22 + ".", "a" * 22 + "." + "b" * 42, "a" * 22 + "." + "b" * 44, "a" * 9_999,
     "../" + "a" * 19 + "." + "b" * 43,
     "a" * 22 + "." + "b" * 42 + "\n", "ä" * 22 + "." + "b" * 43, "a" * 22 + "." + "b" * 43 + ".c"],
)  # fmt: skip
def test_redeem_sign_on_malformed_ticket_is_refused_without_read(text: str) -> None:
    with pytest.raises(Rejected, match="altered_link"):
        single_sign_on.redeem(Unreadable(), "no key", Secret(text))  # type: ignore[arg-type]


class Unreadable:
    def get(self, pk: str, sk: str) -> None:
        raise AssertionError("the table was asked")


def test_redeem_sign_on_unknown_ticket_is_refused(stack: Cloud) -> None:
    assert refused(stack, "a" * 22 + "." + "b" * 43) == "unknown_link"


def test_redeem_sign_on_ticket_with_changed_character_is_refused_and_not_used(stack: Cloud, engage: Engage) -> None:
    """Also the last character, some bits of which base64 ignores. An altered link does not use up the ticket."""
    ticket = ticket_of(ask(stack))
    text = ticket.reveal()
    for place in (0, 10, 21, 22, 23, 40, 64, 65):
        for letter in ("A", "B", "C", "D", "-", "."):
            if text[place] != letter:
                altered = text[:place] + letter + text[place + 1 :]
                assert refused(stack, altered) == ("unknown_link" if place < 22 and letter != "." else "altered_link")
    assert redeem(stack, ticket)


def test_redeem_sign_on_mixed_ticket_parts_are_refused(stack: Cloud, engage: Engage) -> None:
    first, second = (ticket_of(ask(stack)) for _ in range(2))
    mixed = first.reveal().partition(".")[0] + "." + second.reveal().partition(".")[2]
    assert refused(stack, mixed) == "altered_link"
    assert redeem(stack, first)
    assert redeem(stack, second)


def test_redeem_sign_on_ticket_expires_by_the_clock(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DynamoDB may delete expired items days later; until then an expired link differs from an unknown one."""
    before, after = ticket_of(ask(stack)), ticket_of(ask(stack))
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(seconds=118))
    assert redeem(stack, before)
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(seconds=120))
    assert refused(stack, after) == "expired_link"
    assert refused(stack, before) == "used_link"
    item = item_of(stack, after)
    assert item["expires_at"] - item["ends_at"] == 3600


@pytest.mark.parametrize(
    "change",
    [{"connection": "engage-two"}, {"ends_at": 4_102_444_800}, {"sealed": "{}"}, {"sealed": "x"}],
    ids=repr,
)
def test_redeem_sign_on_edited_item_is_refused(stack: Cloud, engage: Engage, change: dict[str, Any]) -> None:
    to_engage(stack, "engage-two")
    ticket = ticket_of(ask(stack))
    stack.table.put(item_of(stack, ticket) | change)
    assert refused(stack, ticket) == "altered_link"
    assert "used_at" not in item_of(stack, ticket)


def test_redeem_sign_on_sealed_address_of_another_link_is_refused(stack: Cloud, engage: Engage) -> None:
    """Given the sealed address of one link in the item of another."""
    to_engage(stack, "engage-two")
    mine, other, theirs = ticket_of(ask(stack)), ticket_of(ask(stack)), ticket_of(ask(stack, "engage-two"))
    for stranger in (other, theirs):
        stack.table.put(item_of(stack, mine) | {"sealed": item_of(stack, stranger)["sealed"]})
        assert refused(stack, mine) == "altered_link"


# ---------------------------------------------------------------------------------------------------- races and crashes


def test_redeem_sign_on_concurrently_only_one_succeeds(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given two calls that have both read the item before either has marked it."""
    ticket = ticket_of(ask(stack))
    unseal, others = sealing.unseal, []

    def while_another_is_faster(*arguments: Any) -> Any:
        monkeypatch.setattr(sealing, "unseal", unseal)
        others.append(redeem(stack, ticket))
        return unseal(*arguments)

    monkeypatch.setattr(sealing, "unseal", while_another_is_faster)
    assert refused(stack, ticket) == "used_link"
    assert others == [f"https://one.engage.bz/#/login?key={KEY_1}"]


def test_redeem_sign_on_repeated_write_after_lost_answer_succeeds(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a lost first response of DynamoDB: boto3 repeats the write, and its condition fails."""
    ticket = ticket_of(ask(stack))
    table = stack.table
    update = table.update

    def twice(*arguments: Any, **named: Any) -> Any:
        update(*arguments, **named)
        return update(*arguments, **named)

    monkeypatch.setattr(table, "update", twice)
    assert single_sign_on.redeem(table, key_id(stack), ticket)


def test_redeem_sign_on_kms_failure_does_not_use_the_ticket(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = ticket_of(ask(stack))
    unavailable = Retryable("vault_unavailable", "Secrets Manager or KMS did not respond: ThrottlingException")
    with monkeypatch.context() as patched:
        patched.setattr(sealing, "unseal", failing(unavailable))
        with pytest.raises(Retryable, match="vault_unavailable"):
            redeem(stack, ticket)
    assert redeem(stack, ticket)


def test_create_sign_on_link_without_data_key_requests_no_platform_key(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "prepare_seal", failing(Retryable("vault_unavailable", "the vault did not answer")))
    with pytest.raises(Retryable, match="vault_unavailable"):
        ask(stack)
    assert engage.keys == []


def test_create_sign_on_link_killed_before_write_stores_nothing(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Death(BaseException):
        pass

    with monkeypatch.context() as patched:
        patched.setattr(type(stack.table), "put", failing(Death()))
        with pytest.raises(Death):
            ask(stack)
    scan = service_clients.client("dynamodb").scan(TableName=TABLE)["Items"]
    assert not [item for item in scan if item["pk"]["S"].startswith("SSO#")]
    assert redeem(stack, ticket_of(ask(stack))).endswith("key-2%2F%2B%26")


def test_redeem_sign_on_killed_before_write_keeps_ticket_and_after_it_uses_it(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Death(BaseException):
        pass

    ticket = ticket_of(ask(stack))
    update = type(stack.table).update

    def then_die(*arguments: Any, **named: Any) -> Any:
        update(*arguments, **named)
        raise Death

    for dying, afterwards in ((failing(Death()), ""), (then_die, "used_link")):
        with monkeypatch.context() as patched:
            patched.setattr(type(stack.table), "update", dying)
            with pytest.raises(Death):
                redeem(stack, ticket)
        assert ("used_at" in item_of(stack, ticket)) == bool(afterwards)
    assert refused(stack, ticket) == "used_link"


def failing(error: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


# ------------------------------------------------------------------------------------------------------ responses of Engage


@pytest.mark.parametrize(
    ("answer", "reason", "status"),
    [
        (refusal(400, "invalid_grant", "canary"), "user_refused", 409),
        (refusal(401, "invalid_client", "canary"), "sign_on_refused", 409),
        (refusal(403, "error_code", "canary"), "sign_on_refused", 409),
    ],
)
def test_create_sign_on_link_platform_refusal_has_reason(
    stack: Cloud, engage: Engage, answer: Any, reason: str, status: int
) -> None:
    engage.sso = [answer]
    with pytest.raises(Rejected) as error:
        ask(stack)
    assert (error.value.reason, error.value.status) == (reason, status)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refusal(500, "server_error"), "key_not_given"),
        (refusal(429, "slow"), "rate_limited"),
        ((200, {}, "<html>"), "key_not_given"),
        (requests.ReadTimeout("canary https://sandbox.engage.bz/?customerToken=canary"), "no_answer"),
        (requests.ConnectTimeout("canary"), "unreachable"),
    ],
    ids=["500", "429", "html", "lost", "unreachable"],
)
def test_create_sign_on_link_platform_failure_is_retryable(
    stack: Cloud, engage: Engage, answer: Any, reason: str
) -> None:
    """A lost response has changed nothing that matters, so it is not reported as a call that may have been processed."""
    engage.sso = [answer]
    with pytest.raises(Retryable) as error:
        ask(stack)
    assert (error.value.reason, error.value.answer_lost) == (reason, False)
    assert "https" not in str(error.value)


def test_create_sign_on_link_unknown_user_is_refused_by_field(stack: Cloud, engage: Engage) -> None:
    with pytest.raises(Rejected) as error:
        ask(stack, user_identifier="stranger")
    assert error.value.field == "user_identifier"
    assert "stranger" not in str(error.value)


def test_create_sign_on_link_user_identifier_is_sent_unchanged(stack: Cloud, engage: Engage) -> None:
    engage.registered["é &=+#/1"] = "maria"
    assert ask(stack, user_identifier="é &=+#/1")["link"]


# -------------------------------------------------------------------------------------------------- supported connections


def test_create_sign_on_link_platform_without_sign_on_is_not_offered(stack: Cloud, engage: Engage) -> None:
    to_leadconnector(stack)
    connect(stack, "plain", "http", "bearer", "api.example.com", {}, {"token": "canary-plain"})
    for name in ("marketek", "plain"):
        with pytest.raises(Rejected) as error:
            ask(stack, name)
        assert (error.value.reason, error.value.status) == ("not_offered", 409)
    with pytest.raises(Rejected, match="unknown_connection"):
        ask(stack, "nobody")


def test_create_sign_on_link_without_customer_token_is_refused(stack: Cloud, engage: Engage) -> None:
    """Given a connection from before customer_token was required."""
    to_engage(stack, "engage-old", customer_token="")
    with pytest.raises(Rejected) as error:
        ask(stack, "engage-old")
    assert (error.value.reason, error.value.status) == ("no_credentials", 409)
    assert "customer_token" in error.value.detail


def test_create_sign_on_link_connection_needing_reconnect_is_refused(stack: Cloud, engage: Engage) -> None:
    usability.end(stack.table, connection_store.get(stack.table, NAME), ConnectionReason.TOKEN_REFUSED)
    with pytest.raises(Rejected) as error:
        ask(stack)
    assert error.value.reason == "needs_reconnect"
    assert f"PUT /connections/{NAME}/credentials" in error.value.detail


def test_static_credentials_replaced_during_read_returns_new_version(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a version that is deleted between the reads of the item and of the vault."""
    store, connection = Vault(PREFIX), connection_store.get(stack.table, NAME)
    read = Vault.read

    def drop_first(self: Vault, secret_id: str, version: str = "") -> Any:
        monkeypatch.setattr(Vault, "read", read)
        newer = vault.version_id(secret_id, 2)
        store.add(secret_id, newer, {name: Secret(text) for name, text in LOG_IN.items()})
        stack.table.update(
            *connection_store.key(NAME),
            "SET generation = :two, version_id = :newer",
            values={":two": 2, ":newer": newer},
        )

    monkeypatch.setattr(Vault, "read", drop_first)
    found, credentials = static_credentials.static_credentials(stack.table, store, connection)
    assert (found.generation, set(credentials)) == (2, set(LOG_IN))


def test_create_sign_on_link_missing_credentials_are_retryable_then_refused(
    stack: Cloud, engage: Engage, monkeypatch: pytest.MonkeyPatch
) -> None:
    Vault(PREFIX).remove(connection_store.get(stack.table, NAME).secret_id, immediately=True)
    with pytest.raises(Retryable, match="vault_lags"):
        ask(stack)
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(hours=1))
    with pytest.raises(Rejected, match="no_credentials"):
        ask(stack)


# ---------------------------------------------------------------------------------------------------------- invalid input


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({}, "user_identifier"),
        ({"user_identifier": ""}, "user_identifier"),
        ({"user_identifier": "a" * 256}, "user_identifier"),
        ({"user_identifier": "a\nb"}, "user_identifier"),
        ({"user_identifier": "a\u0085"}, "user_identifier"),
        ({"user_identifier": json.loads('"\\ud800"')}, "user_identifier"),
        ({"user_identifier": 1}, "user_identifier"),
        ({"user_identifier": "u-1", "deliver": "key"}, "deliver"),
        ({"user_identifier": "u-1", "front_end": "https://evil.example"}, "front_end"),
        ({"user_identifier": "u-1", "customer_token": "x"}, "customer_token"),
    ],
    ids=repr,
)
def test_create_sign_on_link_invalid_body_is_refused_by_field(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(Rejected) as error:
        parse(api.SignOnRequest, sent)
    assert error.value.field == field


def test_sign_on_front_ends_match_api_schema() -> None:
    assert set(api.Addresses.model_fields) == set(single_sign_on.FRONT_ENDS)
