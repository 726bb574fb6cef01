"""Tags from an install link to the connection: which stand, who keeps them, and what finds them again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace as with_changes
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
import responses

from portaria.aws import event_bus
from portaria.aws.table import Conflict, Table
from portaria.connections import connection_store, tag_index
from portaria.connections.vault import Vault
from portaria.core import clock, tags
from portaria.core.entities import Connection
from portaria.core.errors import Retryable
from portaria.core.item_keys import claim_key, install_key, tag_partition
from portaria.installs import claims, code_exchange, uninstall
from portaria.installs.exchange_outcomes import ExchangeOutcome, expire
from portaria.installs.install_messages import ClaimNotice, read_message
from tests.fakes.aws import functions
from tests.fakes.aws.moto_cloud import PREFIX, Cloud, cloud
from tests.fakes.connections import installs as fakes
from tests.fakes.platforms import kommo as kommo_fake
from tests.fakes.platforms.kommo import Kommo
from tests.fakes.virtual_time import VirtualClock

TAGS = {"customer_id": "c-1", "customer_email": "maria@example.com"}
OTHER_TAGS = {"customer_id": "c-2"}
ACCOUNT = str(kommo_fake.account_id("acme"))
NAME = f"kommo-acme-{ACCOUNT}"


class Desk:
    def __init__(self, stack: Cloud, kommo: Kommo, time: VirtualClock) -> None:
        self.stack, self.table, self.kommo, self.time = stack, stack.table, kommo, time

    def arrive(self, code: str, given: dict[str, str] | None = None, *, subdomain: str = "acme", **more: str) -> str:
        """A code that was just received, with the tags of its link."""
        self.kommo.codes[code] = subdomain
        self.time.advance(1)
        return fakes.message(code, subdomain, **({"tags": tags.encode(given)} if given else {}), **more)

    def turn(self, body: str) -> ExchangeOutcome:
        fakes.forget_tokens()
        return code_exchange.exchange(read_message(body), fakes.settings(self.stack), lambda: 40.0)

    def install(self, code: str, given: dict[str, str] | None = None, **more: str) -> ExchangeOutcome:
        return self.turn(self.arrive(code, given, **more))

    def connection(self, name: str = NAME) -> Connection:
        return connection_store.get(self.table, name)

    def claim(self, given: dict[str, str], *, life: timedelta = timedelta(days=1), link: str = "link-1") -> ClaimNotice:
        """What the page of a claim link leaves once a person has confirmed."""
        self.time.advance(1)
        now, owner = clock.now(), {"platform": "kommo", "client": "acme", "account_id": ACCOUNT}
        pk, sk = claim_key(**owner)
        ends_at = int((now + life).timestamp())
        item = {"pk": pk, "sk": sk, **owner, "link": link, "tags": tags.encode(given), "claimed_at": clock.to_iso(now)}
        self.table.put(item | {"ends_at": ends_at, "expires_at": ends_at})
        return ClaimNotice(**owner)

    def apply(self, notice: ClaimNotice) -> str:
        return claims.apply(notice, self.table, self.stack.environment["BUS_NAME"])

    def waiting_claim(self) -> dict[str, Any] | None:
        return self.table.get(*claim_key("kommo", "acme", ACCOUNT))

    def customers(self, customer_id: str) -> list[str]:
        found, _ = connection_store.of_customer(self.table, customer_id, None, 10)
        return [each.name for each in found]

    def installs_of(self, customer_id: str) -> list[str]:
        found, _ = tag_index.find_page(self.table, tag_index.INSTALL_PREFIX, customer_id, None, 10)
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [detail for each, detail in fakes.events(self.stack) if each == kind]


@pytest.fixture
def desk() -> Iterator[Desk]:
    time = VirtualClock()
    with cloud() as stack, responses.RequestsMock(assert_all_requests_are_fired=False) as mock, time.installed():
        fakes.register(stack)
        yield Desk(stack, Kommo(mock), time)


class TestOfALink:
    def test_exchange_code_tags_are_on_install_connection_event_and_index(self, desk: Desk) -> None:
        body = desk.arrive("code-1", TAGS, link="link-1", return_url="https://app.example.com/done", language="pt")
        assert desk.turn(body).state == "connected"

        assert desk.connection().tags == TAGS
        item = fakes.item(desk.stack, "code-1")
        kept = {name: item[name] for name in ("tags", "link", "return_url", "language")}
        assert kept == {
            "tags": TAGS, "link": "link-1", "return_url": "https://app.example.com/done", "language": "pt",
        }  # fmt: skip
        assert desk.events("connection.ready")[-1]["tags"] == TAGS
        assert desk.customers("c-1") == [NAME]
        assert [install_key(each)[0] for each in desk.installs_of("c-1")] == [item["pk"]]

    def test_exchange_code_without_tags_has_none(self, desk: Desk) -> None:
        desk.install("code-1")
        assert desk.connection().tags == {}
        assert desk.events("connection.ready")[-1]["tags"] == {}

    def test_exchange_code_failed_install_event_and_index_have_tags(self, desk: Desk) -> None:
        body = desk.arrive("code-1", TAGS)
        del desk.kommo.codes["code-1"]
        assert desk.turn(body).reason == "bad_code"
        assert desk.events("install.failed")[-1]["tags"] == TAGS
        assert len(desk.installs_of("c-1")) == 1

    def test_expire_code_never_tried_keeps_tags(self, desk: Desk) -> None:
        install = read_message(desk.arrive("code-1", TAGS))
        assert expire(install, fakes.settings(desk.stack))
        assert fakes.item(desk.stack, "code-1")["tags"] == TAGS
        assert desk.events("install.failed")[-1]["tags"] == TAGS
        assert len(desk.installs_of("c-1")) == 1

    def test_exchange_code_reinstall_without_tags_keeps_them(self, desk: Desk) -> None:
        desk.install("code-1", TAGS)
        desk.install("code-2")
        assert (desk.connection().generation, desk.connection().tags) == (2, TAGS)
        assert fakes.item(desk.stack, "code-2")["tags"] == TAGS
        assert desk.events("connection.ready")[-1]["tags"] == TAGS
        assert len(desk.installs_of("c-1")) == 2

    def test_exchange_code_reinstall_with_tags_replaces_them_all(self, desk: Desk) -> None:
        desk.install("code-1", TAGS)
        desk.install("code-2", OTHER_TAGS)
        assert desk.connection().tags == OTHER_TAGS
        assert (desk.customers("c-1"), desk.customers("c-2")) == ([], [NAME])

    @pytest.mark.parametrize(("newer", "expected"), [({}, TAGS), (OTHER_TAGS, OTHER_TAGS)])
    def test_exchange_code_older_arrival_exchanged_later_keeps_newest_tags(
        self, desk: Desk, newer: dict[str, str], expected: dict[str, str]
    ) -> None:
        """Given a link's install and a later one of the same account, when the link's is exchanged last, then its tags stand
        only if the later one brought none."""
        early = desk.arrive("code-1", TAGS)
        desk.install("code-2", newer)
        standing = desk.connection()

        assert desk.turn(early).state == "connected"
        assert desk.connection().secret_id == standing.secret_id
        assert desk.connection().tags == expected
        assert desk.customers(expected["customer_id"]) == [NAME]

    def test_exchange_code_tags_set_after_arrival_are_not_overwritten(self, desk: Desk) -> None:
        desk.install("code-1")
        body = desk.arrive("code-2", TAGS)
        desk.time.advance(5)
        connection_store.replace_tags(desk.table, desk.connection(), OTHER_TAGS, clock.now())
        desk.turn(body)
        assert (desk.connection().generation, desk.connection().tags) == (2, OTHER_TAGS)

    def test_exchange_code_tags_changed_during_commit_is_tried_again(self, desk: Desk) -> None:
        """Given tags that are set between the worker's look and its write, then neither they nor the grant are lost."""
        desk.install("code-1")
        body = desk.arrive("code-2")
        write = Table.write_all
        late = [True]

        def race(table: Table, writes: list[dict[str, Any]]) -> None:
            if late.pop() if late else False:
                connection_store.replace_tags(desk.table, desk.connection(), TAGS, clock.now())
            write(table, writes)

        with patch.object(Table, "write_all", race), pytest.raises(Retryable, match="connection_changed"):
            desk.turn(body)
        assert desk.turn(body).state == "connected"
        assert (desk.connection().generation, desk.connection().tags) == (2, TAGS)


class TestRemovals:
    def remove(self, desk: Desk, why: str) -> None:
        uninstall._mark(desk.table, desk.connection(), why)
        desk.time.advance(1)

    def test_exchange_code_after_uninstall_keeps_tags_and_is_found_for_good(self, desk: Desk) -> None:
        desk.install("code-1", TAGS)
        self.remove(desk, uninstall.UNINSTALLED)
        assert self.entry_ends(desk)
        desk.install("code-2")
        assert (desk.connection().state, desk.connection().tags) == ("connected", TAGS)
        assert not self.entry_ends(desk)

    def test_exchange_code_after_deletion_begins_without_tags(self, desk: Desk) -> None:
        desk.install("code-1", TAGS)
        self.remove(desk, uninstall.DELETED)
        desk.install("code-2")
        assert (desk.connection().state, desk.connection().tags) == ("connected", {})
        assert desk.customers("c-1") == []

    def entry_ends(self, desk: Desk) -> bool:
        entry = desk.table.get(tag_partition("customer_id", "c-1"), f"CONNECTION#{NAME}")
        return bool(entry and "expires_at" in entry)

    def test_removed_connection_event_has_tags(self, desk: Desk) -> None:
        desk.install("code-1", TAGS)
        uninstall.delete(desk.table, desk.stack.environment["UNINSTALLS_QUEUE_URL"], desk.connection())
        worker = functions.load("remove_connections", desk.stack.environment)
        [body] = desk.stack.receive("uninstalls")
        worker.handler(functions.sqs_event({"one": body}, "uninstalls"), functions.Context(600))
        assert desk.events("connection.removed")[-1]["tags"] == TAGS


class TestReconnection:
    def test_exchange_code_of_expected_account_renews_exactly_its_connection(self, desk: Desk) -> None:
        desk.install("code-1", TAGS)
        assert desk.install("code-2", account_id=ACCOUNT).state == "connected"
        assert (desk.connection().generation, desk.connection().tags) == (2, TAGS)

    def test_exchange_code_of_other_account_fails_and_changes_nothing(self, desk: Desk) -> None:
        desk.install("code-1", TAGS)
        desk.install("other-1", subdomain="other")
        other = f"kommo-acme-{kommo_fake.account_id('other')}"
        before = desk.connection(), desk.connection(other)

        outcome = desk.install("code-2", OTHER_TAGS, subdomain="other", account_id=ACCOUNT)

        assert (outcome.state, outcome.reason) == ("failed", "other_account")
        assert (desk.connection(), desk.connection(other)) == before
        item = fakes.item(desk.stack, "code-2")
        assert (item["state"], item["reason"]) == ("failed", "other_account")
        assert "connection" not in item
        # The grant was in the vault until the account was known: it is gone, not just set aside.
        assert Vault(PREFIX).find(Vault(PREFIX).grant_id(read_message(fakes.message("code-2", "other")).id)) is None
        for connection in before:
            assert Vault(PREFIX).read(connection.secret_id) is not None
        assert desk.customers("c-2") == []
        assert desk.events("install.failed")[-1]["tags"] == OTHER_TAGS

    def test_exchange_code_without_tags_for_other_account_tells_tags_of_wanted_connection(self, desk: Desk) -> None:
        desk.install("code-1", TAGS)
        desk.install("code-2", subdomain="other", account_id=ACCOUNT)
        assert desk.events("install.failed")[-1]["tags"] == TAGS

    def test_exchange_code_of_deleted_connection_fails_without_exchange(self, desk: Desk) -> None:
        desk.install("code-1")
        uninstall._mark(desk.table, desk.connection(), uninstall.DELETED)
        assert desk.install("code-2", account_id=ACCOUNT).reason == "connection_gone"
        assert not desk.kommo.exchanges["code-2"]


class TestClaims:
    def test_apply_existing_connection_is_tagged_once_with_event(self, desk: Desk) -> None:
        desk.install("code-1")
        notice = desk.claim(TAGS)
        assert desk.apply(notice) == "tagged"

        assert desk.connection().tags == TAGS
        assert desk.customers("c-1") == [NAME]
        assert desk.waiting_claim() is None
        assert desk.events("connection.tagged") == [
            {"connection": NAME, "platform": "kommo", "client": "acme", "tags": TAGS}
        ]
        assert desk.apply(notice) == "ignored"

    def test_apply_keeps_everything_else_of_the_connection(self, desk: Desk) -> None:
        desk.install("code-1")
        before = desk.connection()
        desk.apply(desk.claim(TAGS))
        after = desk.connection()
        assert after == with_changes(before, tags=TAGS, tagged_at=after.tagged_at)

    def test_apply_waits_and_install_within_the_links_life_takes_tags(self, desk: Desk) -> None:
        notice = desk.claim(TAGS)
        assert desk.apply(notice) == "waiting"
        desk.install("code-1")
        assert desk.connection().tags == TAGS
        assert desk.events("connection.ready")[-1]["tags"] == TAGS
        assert (desk.customers("c-1"), len(desk.installs_of("c-1"))) == ([NAME], 1)
        assert desk.waiting_claim() is None

    def test_install_after_the_links_life_takes_no_tags(self, desk: Desk) -> None:
        desk.claim(TAGS, life=timedelta(minutes=5))
        desk.time.advance(301)
        desk.install("code-1")
        assert desk.connection().tags == {}

    def test_apply_after_the_links_life_is_ignored(self, desk: Desk) -> None:
        desk.install("code-1")
        notice = desk.claim(TAGS, life=timedelta(minutes=5))
        desk.time.advance(301)
        assert desk.apply(notice) == "ignored"
        assert desk.connection().tags == {}

    def test_claim_during_commit_of_first_install_is_not_missed(self, desk: Desk) -> None:
        """Given a claim that comes after the worker has looked for one, when its message finds no connection yet, then the
        worker's write is refused and its next turn finds the claim."""
        body = desk.arrive("code-1")
        write = Table.write_all
        late = [True]

        def race(table: Table, writes: list[dict[str, Any]]) -> None:
            if late.pop() if late else False:
                assert desk.apply(desk.claim(TAGS)) == "waiting"
            write(table, writes)

        with patch.object(Table, "write_all", race), pytest.raises(Retryable, match="connection_changed"):
            desk.turn(body)
        assert desk.turn(body).state == "connected"
        assert desk.connection().tags == TAGS

    def test_apply_tags_that_were_set_later_stand(self, desk: Desk) -> None:
        desk.install("code-1")
        notice = desk.claim(TAGS)
        desk.time.advance(5)
        connection_store.replace_tags(desk.table, desk.connection(), OTHER_TAGS, clock.now())
        assert desk.apply(notice) == "tagged"
        assert desk.connection().tags == OTHER_TAGS
        assert desk.events("connection.tagged")[-1]["tags"] == OTHER_TAGS

    def test_apply_death_before_event_publishes_it_on_redelivery(self, desk: Desk) -> None:
        desk.install("code-1")
        notice = desk.claim(TAGS)
        with (
            patch.object(event_bus, "put", side_effect=Retryable("bus_unavailable", "x")),
            pytest.raises(Retryable),
        ):
            desk.apply(notice)
        assert desk.connection().tags == TAGS
        assert desk.apply(notice) == "tagged"
        assert len(desk.events("connection.tagged")) == 1

    def test_apply_removed_connection_waits_for_reinstall(self, desk: Desk) -> None:
        desk.install("code-1")
        uninstall._mark(desk.table, desk.connection(), uninstall.UNINSTALLED)
        assert desk.apply(desk.claim(TAGS)) == "waiting"
        desk.install("code-2")
        assert desk.connection().tags == TAGS

    def test_exchange_code_function_applies_claims_and_logs_no_tag(
        self, desk: Desk, capfd: pytest.CaptureFixture[str]
    ) -> None:
        desk.install("code-1")
        desk.claim(TAGS)
        owner = {"platform": "kommo", "client": "acme", "account_id": ACCOUNT}
        handler = functions.load("exchange_code", desk.stack.environment)
        body = json.dumps({"version": 1, "claim": owner})
        answer = handler.handler(functions.sqs_event({"one": body}, "exchanges"), functions.Context())
        assert answer == {"batchItemFailures": []}
        assert desk.connection().tags == TAGS
        printed = "".join(capfd.readouterr())
        assert "c-1" not in printed
        assert "maria" not in printed


def test_replace_tags_changed_meanwhile_is_a_conflict(desk: Desk) -> None:
    desk.install("code-1")
    read = desk.connection()
    connection_store.replace_tags(desk.table, read, TAGS, clock.now())
    with pytest.raises(Conflict):
        connection_store.replace_tags(desk.table, read, OTHER_TAGS, clock.now())
    assert desk.connection().tags == TAGS


def test_replace_tags_in_the_same_millisecond_has_a_later_time(desk: Desk) -> None:
    desk.install("code-1")
    now = clock.now()
    first = connection_store.replace_tags(desk.table, desk.connection(), TAGS, now)
    second = connection_store.replace_tags(desk.table, first, OTHER_TAGS, now)
    assert first.tagged_at < second.tagged_at == desk.connection().tagged_at
