"""Install links and tags over the API: what may be asked for, what is stored, and how connections and installs are found."""

from __future__ import annotations

import json
from dataclasses import replace as with_changes
from typing import Any
from urllib.parse import quote

import boto3
import pytest

from portaria.connections import connection_store, oauth_clients
from portaria.core import clock
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection
from portaria.core.item_keys import install_link_id, install_link_key
from portaria.installs import uninstall
from tests.fakes.api.manage import Answer, Manage, proxy_event, with_headers
from tests.fakes.aws.moto_cloud import Cloud

TAGS = {"customer_id": "c-1", "customer_email": "maria@example.com"}
KOMMO = {"platform": "kommo", "client": "acme"}
CONNECTED = Connection(
    "kommo-acme-31", "kommo", "oauth2", "a.kommo.com", "connected", 1, "s", client="acme", account_id="31",
    granted_at="2026-01-01T00:00:00.000Z", updated_at="2026-01-01T00:00:00.000Z",
)  # fmt: skip
SHOP = Connection("shop-main", "oauth2", "oauth2", "api.shop.example.com", "pending", 0, "", client="shop")


@pytest.fixture
def harness(stack: Cloud) -> Manage:
    base = "https://api.example.com/live/install"
    oauth_clients.put(stack.table, OAuthClient("kommo", "acme", "id", f"{base}/kommo/acme"), new=True)
    shop = OAuthClient(
        "oauth2", "shop", "id", f"{base}/oauth2/shop", "read", authorize_url="https://login.example.com/authorize",
        token_url="https://login.example.com/token", api_domains="api.shop.example.com",
    )  # fmt: skip
    oauth_clients.put(stack.table, shop, new=True)
    for connection in (CONNECTED, SHOP):
        connection_store.create(stack.table, connection)
    return Manage(stack)


def create(harness: Manage, **body: Any) -> Answer:
    return harness.call("POST", "/install-links", body)


def reason(answer: Answer) -> str:
    return str(answer.content["type"]).rpartition(":")[2]


def links(harness: Manage) -> list[str]:
    items = boto3.client("dynamodb").scan(TableName=harness.cloud.table.name)["Items"]
    return [item["pk"]["S"] for item in items if item["pk"]["S"].startswith("INSTALL_LINK#")]


class TestCreation:
    def test_create_install_link_url_holds_a_token_and_nothing_else(self, harness: Manage) -> None:
        answer = create(harness, **KOMMO, tags=TAGS, language="pt-BR")
        assert answer.status == 201, answer.text
        shown = answer.content
        url, _, token = shown.pop("url").partition("?link=")
        assert url == "https://api.example.com/live/install/kommo/acme/start"
        assert len(token) == 43
        life_s = (clock.from_iso(shown.pop("expires_at")) - clock.from_iso(shown.pop("created_at"))).total_seconds()
        assert 3_599 <= life_s <= 3_600
        assert shown == {
            "id": install_link_id(token), "purpose": "install", **KOMMO, "connection": None, "account_id": None,
            "tags": TAGS, "return_url": None, "language": "pt-BR", "single_use": True, "used_at": None,
        }  # fmt: skip

    def test_create_install_link_stores_no_token_and_logs_no_tag(self, harness: Manage) -> None:
        token = create(harness, **KOMMO, tags=TAGS).content["url"].partition("?link=")[2]
        items = json.dumps(boto3.client("dynamodb").scan(TableName=harness.cloud.table.name)["Items"])
        assert token not in items
        for secret in (token, "c-1", "maria"):
            assert secret not in harness.log.getvalue()

    def test_create_install_link_audit_holds_no_tag(self, harness: Manage) -> None:
        made = create(harness, **KOMMO, tags=TAGS).content
        [entry] = harness.call("GET", "/audit").content["items"]
        assert entry["target"] == made["id"]
        assert "maria" not in json.dumps(entry)

    def test_create_install_link_repeated_with_key_returns_same_link(self, harness: Manage) -> None:
        event = with_headers(proxy_event("POST", "/install-links", KOMMO), **{"Idempotency-Key": "one"})
        first, second = harness.answer(event), harness.answer(event)
        assert (first.status, first.content["url"]) == (201, second.content["url"])
        assert len(links(harness)) == 1

    def test_create_reconnect_link_of_provider_asks_for_its_connection(self, harness: Manage) -> None:
        answer = create(harness, connection="shop-main", tags=TAGS)
        assert (answer.status, answer.content["purpose"], answer.content["connection"]) == (
            201,
            "reconnect",
            "shop-main",
        )
        item = harness.cloud.table.get(*install_link_key(answer.content["id"])) or {}
        assert (item["account_host"], item["scopes"]) == ("login.example.com", "read")

    def test_create_reconnect_link_of_installed_platform_is_for_its_account(self, harness: Manage) -> None:
        answer = create(harness, connection="kommo-acme-31", client="acme")
        assert (answer.content["purpose"], answer.content["account_id"]) == ("reconnect", "31")
        assert answer.content["url"].startswith("https://api.example.com/live/install/kommo/acme/start?link=")

    def test_create_claim_link_leads_to_its_own_page(self, harness: Manage) -> None:
        answer = create(harness, **KOMMO, account_id="31", tags=TAGS)
        assert (answer.status, answer.content["purpose"], answer.content["account_id"]) == (201, "claim", "31")
        assert answer.content["url"].startswith("https://api.example.com/live/install/kommo/acme/claim?link=")

    @pytest.mark.parametrize("life_s", [60, 30 * 86_400])
    def test_create_install_link_life_may_be_a_minute_to_thirty_days(self, harness: Manage, life_s: int) -> None:
        shown = create(harness, **KOMMO, expires_in_s=life_s).content
        left_s = (clock.from_iso(shown["expires_at"]) - clock.from_iso(shown["created_at"])).total_seconds()
        assert life_s - 1 <= left_s <= life_s

    @pytest.mark.parametrize(
        ("body", "status", "expected", "field"),
        [
            ({}, 400, "invalid_input", "platform"),
            ({"platform": "kommo"}, 400, "invalid_input", "client"),
            ({**KOMMO, "client": "nobody"}, 400, "unknown_client", "client"),
            ({"platform": "comet", "client": "acme"}, 400, "unknown_client", "client"),
            ({"platform": "oauth2", "client": "shop"}, 400, "invalid_input", "connection"),
            ({"connection": "nobody"}, 400, "unknown_connection", "connection"),
            ({"connection": "kommo-acme-31", "client": "other"}, 400, "invalid_input", "client"),
            ({"connection": "kommo-acme-31", "platform": "oauth2"}, 400, "invalid_input", "platform"),
            ({"connection": "kommo-acme-31", "account_id": "32"}, 400, "invalid_input", "account_id"),
            ({**KOMMO, "account_id": "31"}, 400, "invalid_input", "tags"),
            ({**KOMMO, "account_id": "31#x", "tags": TAGS}, 400, "invalid_input", "account_id"),
            ({**KOMMO, "expires_in_s": 59}, 400, "invalid_input", "expires_in_s"),
            ({**KOMMO, "expires_in_s": 30 * 86_400 + 1}, 400, "invalid_input", "expires_in_s"),
            ({**KOMMO, "language": "fr"}, 400, "invalid_input", "language"),
            ({**KOMMO, "single_use": "yes"}, 400, "invalid_input", "single_use"),
            ({**KOMMO, "tags": ["c-1"]}, 400, "invalid_input", "tags"),
            ({**KOMMO, "tags": {"customer_id": "<b>c-1</b>"}}, 400, "bad_tags", "tags.customer_id"),
            ({**KOMMO, "tags": {"customer_id": "c\n1"}}, 400, "bad_tags", "tags.customer_id"),
            ({**KOMMO, "tags": {"customer_id": "\ud800"}}, 400, "bad_tags", "tags.customer_id"),
            ({**KOMMO, "tags": {"customer_id": "x" * 256}}, 400, "bad_tags", "tags.customer_id"),
            ({**KOMMO, "tags": {"customer_id": 1}}, 400, "bad_tags", "tags.customer_id"),
            ({**KOMMO, "tags": {f"k{number}": "v" for number in range(11)}}, 400, "bad_tags", "tags"),
            ({**KOMMO, "tags": {"Customer": "c-1"}}, 400, "bad_tags", "tags"),
            ({**KOMMO, "return_url": "https://evil.example/"}, 400, "return_url_not_registered", "return_url"),
            ({**KOMMO, "tag": "x"}, 400, "invalid_input", "tag"),
        ],
    )
    def test_create_install_link_bad_input_is_refused_and_nothing_stored(
        self, harness: Manage, body: dict[str, Any], status: int, expected: str, field: str
    ) -> None:
        answer = create(harness, **body)
        assert (answer.status, reason(answer), answer.content["field"]) == (status, expected, field), answer.text
        assert links(harness) == []

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"state": "removed"}, "connection_removed"),
            ({"kind": "bearer"}, "not_authorisable"),
            ({"client": "gone"}, "unknown_client"),
        ],
    )
    def test_create_reconnect_link_impossible_is_a_conflict(
        self, harness: Manage, changes: dict[str, Any], expected: str
    ) -> None:
        harness.cloud.table.put(connection_store.to_item(with_changes(SHOP, **changes)))
        answer = create(harness, connection="shop-main")
        assert (answer.status, reason(answer)) == (409, expected)
        assert links(harness) == []


class TestStoredLinks:
    def test_list_install_links_newest_first_without_urls(self, harness: Manage) -> None:
        made = [create(harness, **KOMMO, tags={"customer_id": f"c-{number}"}).content["id"] for number in range(3)]
        first = harness.call("GET", "/install-links?limit=2").content
        second = harness.call("GET", f"/install-links?limit=2&cursor={first['next_cursor']}").content
        shown = first["items"] + second["items"]
        assert {each["id"] for each in shown} == set(made)
        assert [each["created_at"] for each in shown] == sorted((each["created_at"] for each in shown), reverse=True)
        assert not any("url" in each for each in shown)

    def test_show_and_delete_install_link(self, harness: Manage) -> None:
        made = create(harness, **KOMMO).content
        assert harness.call("GET", f"/install-links/{made['id']}").content == {
            name: value for name, value in made.items() if name != "url"
        }
        assert harness.call("DELETE", f"/install-links/{made['id']}").status == 204
        for method in ("GET", "DELETE"):
            answer = harness.call(method, f"/install-links/{made['id']}")
            assert (answer.status, reason(answer)) == (404, "unknown_install_link")

    def test_install_links_need_their_scopes(self, harness: Manage) -> None:
        _, token = harness.create_integration("install-links:create")
        assert harness.program(token, "POST", "/install-links", KOMMO).status == 201
        assert harness.program(token, "GET", "/install-links").status == 403


class TestTags:
    def replace(self, harness: Manage, tags: Any, *, name: str = "kommo-acme-31", if_match: str = "") -> Answer:
        event = proxy_event("PUT", f"/connections/{name}/tags", {"tags": tags})
        return harness.answer(with_headers(event, **({"If-Match": if_match} if if_match else {})))

    def etag(self, harness: Manage) -> str:
        return harness.call("GET", "/connections/kommo-acme-31").headers["ETag"]

    def customers(self, harness: Manage, customer_id: str) -> list[str]:
        answer = harness.call("GET", f"/connections?tag.customer_id={quote(customer_id)}")
        assert answer.status == 200, answer.text
        return [each["name"] for each in answer.content["items"]]

    def test_replace_tags_sets_the_whole_and_changes_nothing_else(self, harness: Manage) -> None:
        before = harness.call("GET", "/connections/kommo-acme-31").content
        assert before["tags"] == {}
        assert self.replace(harness, TAGS).content == before | {"tags": TAGS}
        assert self.replace(harness, {"workspace_id": "w"}).content["tags"] == {"workspace_id": "w"}
        assert self.customers(harness, "c-1") == []
        assert self.replace(harness, {}).content == before

    def test_replace_tags_finds_connection_by_customer(self, harness: Manage) -> None:
        self.replace(harness, TAGS)
        self.replace(harness, {"customer_id": "c-1"}, name="shop-main")
        assert self.customers(harness, "c-1") == ["kommo-acme-31", "shop-main"]
        assert self.customers(harness, "c-2") == []
        first = harness.call("GET", "/connections?tag.customer_id=c-1&limit=1").content
        assert first["next_cursor"]
        second = harness.call("GET", f"/connections?tag.customer_id=c-1&limit=1&cursor={first['next_cursor']}").content
        assert [each["name"] for each in first["items"] + second["items"]] == ["kommo-acme-31", "shop-main"]

    def test_replace_tags_with_old_etag_is_refused(self, harness: Manage) -> None:
        old = self.etag(harness)
        assert self.replace(harness, TAGS, if_match=old).status == 200
        assert self.etag(harness) != old
        answer = self.replace(harness, {}, if_match=old)
        assert (answer.status, reason(answer)) == (412, "changed_meanwhile")
        assert self.replace(harness, {}, if_match=self.etag(harness)).status == 200

    @pytest.mark.parametrize(
        ("state", "why", "status", "expected"),
        [
            ("uninstalled", uninstall.UNINSTALLED, 409, "connection_removed"),
            ("deleted", uninstall.DELETED, 404, "unknown_connection"),
        ],
    )
    def test_replace_tags_of_removed_connection_is_refused(
        self, harness: Manage, state: str, why: str, status: int, expected: str
    ) -> None:
        uninstall._mark(harness.cloud.table, CONNECTED, why)
        answer = self.replace(harness, TAGS)
        assert (answer.status, reason(answer)) == (status, expected)

    def test_replace_tags_unknown_connection_is_not_found(self, harness: Manage) -> None:
        assert self.replace(harness, TAGS, name="nobody").status == 404

    def test_replace_tags_bad_tags_change_nothing(self, harness: Manage) -> None:
        self.replace(harness, TAGS)
        for bad in ({"customer_id": ""}, {"Customer": "x"}, {"a": "<i>"}):
            assert reason(self.replace(harness, bad)) == "bad_tags"
        assert harness.call("GET", "/connections/kommo-acme-31").content["tags"] == TAGS

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("tag.customer_email=maria", "unknown_parameter"),
            ("tag.=x", "unknown_parameter"),
            ("tag.customer_id=", "bad_tag_customer_id"),
            ("tag.customer_id=a%0Ab", "bad_tags"),
            (f"tag.customer_id={'x' * 256}", "bad_tag_customer_id"),
            ("tag.customer_id=c-1&platform=kommo", "bad_filter"),
            ("tag.customer_id=c-1&tag.customer_id=c-2", "parameter_repeated"),
        ],
    )
    def test_list_connections_bad_tag_filter_is_refused_with_reason(
        self, harness: Manage, query: str, expected: str
    ) -> None:
        answer = harness.call("GET", f"/connections?{query}")
        assert (answer.status, reason(answer)) == (400, expected)

    def test_list_other_tag_filter_explains_what_is_indexed(self, harness: Manage) -> None:
        for listing in ("connections", "installs"):
            answer = harness.call("GET", f"/{listing}?tag.workspace_id=w")
            assert answer.status == 400
            assert "only customer_id is indexed" in answer.content["detail"]

    def test_list_connections_by_customer_omits_deleted_and_shows_uninstalled(self, harness: Manage) -> None:
        self.replace(harness, TAGS)
        self.replace(harness, TAGS, name="shop-main")
        for name, why in (("kommo-acme-31", uninstall.UNINSTALLED), ("shop-main", uninstall.DELETED)):
            uninstall._mark(harness.cloud.table, connection_store.get(harness.cloud.table, name), why)
        assert self.customers(harness, "c-1") == ["kommo-acme-31"]
