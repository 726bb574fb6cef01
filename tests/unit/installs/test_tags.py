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


class Harness:
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
def harness() -> Iterator[Harness]:
    time = VirtualClock()
    with cloud() as stack, responses.RequestsMock(assert_all_requests_are_fired=False) as mock, time.installed():
        fakes.register(stack)
        yield Harness(stack, Kommo(mock), time)


class TestOfALink:
    def test_exchange_code_tags_are_on_install_connection_event_and_index(self, harness: Harness) -> None:
        body = harness.arrive("code-1", TAGS, link="link-1", return_url="https://app.example.com/done", language="pt")
        assert harness.turn(body).state == "connected"

        assert harness.connection().tags == TAGS
        item = fakes.item(harness.stack, "code-1")
        kept = {name: item[name] for name in ("tags", "link", "return_url", "language")}
        assert kept == {
            "tags": TAGS, "link": "link-1", "return_url": "https://app.example.com/done", "language": "pt",
        }  # fmt: skip
        assert harness.events("connection.ready")[-1]["tags"] == TAGS
        assert harness.customers("c-1") == [NAME]
        assert [install_key(each)[0] for each in harness.installs_of("c-1")] == [item["pk"]]

    def test_exchange_code_without_tags_has_none(self, harness: Harness) -> None:
        harness.install("code-1")
        assert harness.connection().tags == {}
        assert harness.events("connection.ready")[-1]["tags"] == {}

    def test_exchange_code_failed_install_event_and_index_have_tags(self, harness: Harness) -> None:
        body = harness.arrive("code-1", TAGS)
        del harness.kommo.codes["code-1"]
        assert harness.turn(body).reason == "bad_code"
        assert harness.events("install.failed")[-1]["tags"] == TAGS
        assert len(harness.installs_of("c-1")) == 1

    def test_expire_code_never_tried_keeps_tags(self, harness: Harness) -> None:
        install = read_message(harness.arrive("code-1", TAGS))
        assert expire(install, fakes.settings(harness.stack))
        assert fakes.item(harness.stack, "code-1")["tags"] == TAGS
        assert harness.events("install.failed")[-1]["tags"] == TAGS
        assert len(harness.installs_of("c-1")) == 1

    def test_exchange_code_reinstall_without_tags_keeps_them(self, harness: Harness) -> None:
        harness.install("code-1", TAGS)
        harness.install("code-2")
        assert (harness.connection().generation, harness.connection().tags) == (2, TAGS)
        assert fakes.item(harness.stack, "code-2")["tags"] == TAGS
        assert harness.events("connection.ready")[-1]["tags"] == TAGS
        assert len(harness.installs_of("c-1")) == 2

    def test_exchange_code_reinstall_with_tags_replaces_them_all(self, harness: Harness) -> None:
        harness.install("code-1", TAGS)
        harness.install("code-2", OTHER_TAGS)
        assert harness.connection().tags == OTHER_TAGS
        assert (harness.customers("c-1"), harness.customers("c-2")) == ([], [NAME])

    @pytest.mark.parametrize(("newer", "expected"), [({}, TAGS), (OTHER_TAGS, OTHER_TAGS)])
    def test_exchange_code_older_arrival_exchanged_later_keeps_newest_tags(
        self, harness: Harness, newer: dict[str, str], expected: dict[str, str]
    ) -> None:
        """Given a link's install and a later one of the same account, when the link's is exchanged last, then its tags stand
        only if the later one brought none."""
        early = harness.arrive("code-1", TAGS)
        harness.install("code-2", newer)
        standing = harness.connection()

        assert harness.turn(early).state == "connected"
        assert harness.connection().secret_id == standing.secret_id
        assert harness.connection().tags == expected
        assert harness.customers(expected["customer_id"]) == [NAME]

    def test_exchange_code_tags_set_after_arrival_are_not_overwritten(self, harness: Harness) -> None:
        harness.install("code-1")
        body = harness.arrive("code-2", TAGS)
        harness.time.advance(5)
        connection_store.replace_tags(harness.table, harness.connection(), OTHER_TAGS, clock.now())
        harness.turn(body)
        assert (harness.connection().generation, harness.connection().tags) == (2, OTHER_TAGS)

    def test_exchange_code_tags_changed_during_commit_is_tried_again(self, harness: Harness) -> None:
        """Given tags that are set between the worker's look and its write, then neither they nor the grant are lost."""
        harness.install("code-1")
        body = harness.arrive("code-2")
        write = Table.write_all
        late = [True]

        def race(table: Table, writes: list[dict[str, Any]]) -> None:
            if late.pop() if late else False:
                connection_store.replace_tags(harness.table, harness.connection(), TAGS, clock.now())
            write(table, writes)

        with patch.object(Table, "write_all", race), pytest.raises(Retryable, match="connection_changed"):
            harness.turn(body)
        assert harness.turn(body).state == "connected"
        assert (harness.connection().generation, harness.connection().tags) == (2, TAGS)


class TestRemovals:
    def remove(self, harness: Harness, why: str) -> None:
        uninstall._mark(harness.table, harness.connection(), why)
        harness.time.advance(1)

    def test_exchange_code_after_uninstall_keeps_tags_and_is_found_for_good(self, harness: Harness) -> None:
        harness.install("code-1", TAGS)
        self.remove(harness, uninstall.UNINSTALLED)
        assert self.entry_ends(harness)
        harness.install("code-2")
        assert (harness.connection().state, harness.connection().tags) == ("connected", TAGS)
        assert not self.entry_ends(harness)

    def test_exchange_code_after_deletion_begins_without_tags(self, harness: Harness) -> None:
        harness.install("code-1", TAGS)
        self.remove(harness, uninstall.DELETED)
        harness.install("code-2")
        assert (harness.connection().state, harness.connection().tags) == ("connected", {})
        assert harness.customers("c-1") == []

    def entry_ends(self, harness: Harness) -> bool:
        entry = harness.table.get(tag_partition("customer_id", "c-1"), f"CONNECTION#{NAME}")
        return bool(entry and "expires_at" in entry)

    def test_removed_connection_event_has_tags(self, harness: Harness) -> None:
        harness.install("code-1", TAGS)
        uninstall.delete(harness.table, harness.stack.environment["UNINSTALLS_QUEUE_URL"], harness.connection())
        worker = functions.load("remove_connections", harness.stack.environment)
        [body] = harness.stack.receive("uninstalls")
        worker.handler(functions.sqs_event({"one": body}, "uninstalls"), functions.Context(600))
        assert harness.events("connection.removed")[-1]["tags"] == TAGS


class TestReconnection:
    def test_exchange_code_of_expected_account_renews_exactly_its_connection(self, harness: Harness) -> None:
        harness.install("code-1", TAGS)
        assert harness.install("code-2", account_id=ACCOUNT).state == "connected"
        assert (harness.connection().generation, harness.connection().tags) == (2, TAGS)

    def test_exchange_code_of_other_account_fails_and_changes_nothing(self, harness: Harness) -> None:
        harness.install("code-1", TAGS)
        harness.install("other-1", subdomain="other")
        other = f"kommo-acme-{kommo_fake.account_id('other')}"
        before = harness.connection(), harness.connection(other)

        outcome = harness.install("code-2", OTHER_TAGS, subdomain="other", account_id=ACCOUNT)

        assert (outcome.state, outcome.reason) == ("failed", "other_account")
        assert (harness.connection(), harness.connection(other)) == before
        item = fakes.item(harness.stack, "code-2")
        assert (item["state"], item["reason"]) == ("failed", "other_account")
        assert "connection" not in item
        # The grant was in the vault until the account was known: it is gone, not just set aside.
        assert Vault(PREFIX).find(Vault(PREFIX).grant_id(read_message(fakes.message("code-2", "other")).id)) is None
        for connection in before:
            assert Vault(PREFIX).read(connection.secret_id) is not None
        assert harness.customers("c-2") == []
        assert harness.events("install.failed")[-1]["tags"] == OTHER_TAGS

    def test_exchange_code_without_tags_for_other_account_tells_tags_of_wanted_connection(
        self, harness: Harness
    ) -> None:
        harness.install("code-1", TAGS)
        harness.install("code-2", subdomain="other", account_id=ACCOUNT)
        assert harness.events("install.failed")[-1]["tags"] == TAGS

    def test_exchange_code_of_deleted_connection_fails_without_exchange(self, harness: Harness) -> None:
        harness.install("code-1")
        uninstall._mark(harness.table, harness.connection(), uninstall.DELETED)
        assert harness.install("code-2", account_id=ACCOUNT).reason == "connection_gone"
        assert not harness.kommo.exchanges["code-2"]


class TestClaims:
    def test_apply_existing_connection_is_tagged_once_with_event(self, harness: Harness) -> None:
        harness.install("code-1")
        notice = harness.claim(TAGS)
        assert harness.apply(notice) == "tagged"

        assert harness.connection().tags == TAGS
        assert harness.customers("c-1") == [NAME]
        assert harness.waiting_claim() is None
        assert harness.events("connection.tagged") == [
            {"connection": NAME, "platform": "kommo", "client": "acme", "tags": TAGS}
        ]
        assert harness.apply(notice) == "ignored"

    def test_apply_keeps_everything_else_of_the_connection(self, harness: Harness) -> None:
        harness.install("code-1")
        before = harness.connection()
        harness.apply(harness.claim(TAGS))
        after = harness.connection()
        assert after == with_changes(before, tags=TAGS, tagged_at=after.tagged_at)

    def test_apply_waits_and_install_within_the_links_life_takes_tags(self, harness: Harness) -> None:
        notice = harness.claim(TAGS)
        assert harness.apply(notice) == "waiting"
        harness.install("code-1")
        assert harness.connection().tags == TAGS
        assert harness.events("connection.ready")[-1]["tags"] == TAGS
        assert (harness.customers("c-1"), len(harness.installs_of("c-1"))) == ([NAME], 1)
        assert harness.waiting_claim() is None

    def test_install_after_the_links_life_takes_no_tags(self, harness: Harness) -> None:
        harness.claim(TAGS, life=timedelta(minutes=5))
        harness.time.advance(301)
        harness.install("code-1")
        assert harness.connection().tags == {}

    def test_apply_after_the_links_life_is_ignored(self, harness: Harness) -> None:
        harness.install("code-1")
        notice = harness.claim(TAGS, life=timedelta(minutes=5))
        harness.time.advance(301)
        assert harness.apply(notice) == "ignored"
        assert harness.connection().tags == {}

    def test_claim_during_commit_of_first_install_is_not_missed(self, harness: Harness) -> None:
        """Given a claim that comes after the worker has looked for one, when its message finds no connection yet, then the
        worker's write is refused and its next turn finds the claim."""
        body = harness.arrive("code-1")
        write = Table.write_all
        late = [True]

        def race(table: Table, writes: list[dict[str, Any]]) -> None:
            if late.pop() if late else False:
                assert harness.apply(harness.claim(TAGS)) == "waiting"
            write(table, writes)

        with patch.object(Table, "write_all", race), pytest.raises(Retryable, match="connection_changed"):
            harness.turn(body)
        assert harness.turn(body).state == "connected"
        assert harness.connection().tags == TAGS

    def test_apply_tags_that_were_set_later_stand(self, harness: Harness) -> None:
        harness.install("code-1")
        notice = harness.claim(TAGS)
        harness.time.advance(5)
        connection_store.replace_tags(harness.table, harness.connection(), OTHER_TAGS, clock.now())
        assert harness.apply(notice) == "tagged"
        assert harness.connection().tags == OTHER_TAGS
        assert harness.events("connection.tagged")[-1]["tags"] == OTHER_TAGS

    def test_apply_death_before_event_publishes_it_on_redelivery(self, harness: Harness) -> None:
        harness.install("code-1")
        notice = harness.claim(TAGS)
        with (
            patch.object(event_bus, "put", side_effect=Retryable("bus_unavailable", "x")),
            pytest.raises(Retryable),
        ):
            harness.apply(notice)
        assert harness.connection().tags == TAGS
        assert harness.apply(notice) == "tagged"
        assert len(harness.events("connection.tagged")) == 1

    def test_apply_removed_connection_waits_for_reinstall(self, harness: Harness) -> None:
        harness.install("code-1")
        uninstall._mark(harness.table, harness.connection(), uninstall.UNINSTALLED)
        assert harness.apply(harness.claim(TAGS)) == "waiting"
        harness.install("code-2")
        assert harness.connection().tags == TAGS

    def test_exchange_code_function_applies_claims_and_logs_no_tag(
        self, harness: Harness, capfd: pytest.CaptureFixture[str]
    ) -> None:
        harness.install("code-1")
        harness.claim(TAGS)
        owner = {"platform": "kommo", "client": "acme", "account_id": ACCOUNT}
        handler = functions.load("exchange_code", harness.stack.environment)
        body = json.dumps({"version": 1, "claim": owner})
        answer = handler.handler(functions.sqs_event({"one": body}, "exchanges"), functions.Context())
        assert answer == {"batchItemFailures": []}
        assert harness.connection().tags == TAGS
        printed = "".join(capfd.readouterr())
        assert "c-1" not in printed
        assert "maria" not in printed


def test_replace_tags_changed_meanwhile_is_a_conflict(harness: Harness) -> None:
    harness.install("code-1")
    read = harness.connection()
    connection_store.replace_tags(harness.table, read, TAGS, clock.now())
    with pytest.raises(Conflict):
        connection_store.replace_tags(harness.table, read, OTHER_TAGS, clock.now())
    assert harness.connection().tags == TAGS


def test_replace_tags_in_the_same_millisecond_has_a_later_time(harness: Harness) -> None:
    harness.install("code-1")
    now = clock.now()
    first = connection_store.replace_tags(harness.table, harness.connection(), TAGS, now)
    second = connection_store.replace_tags(harness.table, first, OTHER_TAGS, now)
    assert first.tagged_at < second.tagged_at == harness.connection().tagged_at
