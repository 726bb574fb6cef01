"""Private integrations through the function `manage`: creation, use, updates, rotation, revocation, and refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from portaria.access import api_tokens, auth_throttle, private_integrations, scopes
from portaria.aws import service_clients
from portaria.aws.table import Item, Table
from portaria.connections import connection_store, renewal_sweep
from portaria.core import clock
from portaria.core.entities import Connection
from portaria.core.settings import RenewTokensSettings
from portaria.installs import uninstall
from portaria.outbound.rate_limiter import RateLimiter
from tests.fakes.api.manage import Answer, Manage, empty, proxy_event, with_headers, with_token
from tests.fakes.aws import functions
from tests.fakes.aws.errors import refusing
from tests.fakes.aws.lost_answers import puts_sent_twice
from tests.fakes.aws.moto_cloud import TABLE, Cloud
from tests.fakes.virtual_time import VirtualClock

ALL = ("connections:list", "connections:show", "routes:list")


@pytest.fixture
def manage(shared: Cloud) -> Iterator[Manage]:
    yield Manage(shared)
    empty()


@pytest.fixture
def managed_by_tokens(shared: Cloud) -> Iterator[Manage]:
    yield Manage(Cloud(shared.environment | {"PRIVATE_INTEGRATION_MANAGERS": "tokens"}))
    empty()


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    """Time stands still until a test advances it: counts per minute must not depend on when the test runs."""
    time = VirtualClock()
    with time.installed():
        yield time


def connection(name: str) -> Connection:
    return Connection(name, "http", "bearer", "api.example.com", "connected", 1, f"portaria/grants/{name}")


def heard(shared: Cloud) -> list[dict[str, Any]]:
    return [json.loads(body) for body in shared.receive("heard")]


def reason(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.content["type"].rpartition(":")[2]


def edit(manage: Manage, integration: str, body: dict[str, Any], **headers: str) -> Answer:
    return manage.answer(with_headers(proxy_event("PATCH", f"/private-integrations/{integration}", body), **headers))


def stored() -> str:
    return json.dumps(service_clients.client("dynamodb").scan(TableName=TABLE)["Items"])


class TestTokens:
    def test_api_token_changed_or_cut_is_not_recognized(self) -> None:
        token = api_tokens.make("0123456789").reveal()
        assert re.fullmatch(r"portaria_[0-9A-Za-z]{48}", token)
        assert api_tokens.integration_id(token) == "0123456789"
        for place in range(len(token)):
            other = token[:place] + ("x" if token[place] != "x" else "y") + token[place + 1 :]
            assert api_tokens.integration_id(other) == ""
        for length in range(len(token)):
            assert api_tokens.integration_id(token[:length]) == ""
        assert api_tokens.integration_id(f"{token}0") == api_tokens.integration_id(f" {token}") == ""

    def test_api_tokens_are_unique(self) -> None:
        assert len({api_tokens.make("0123456789").reveal() for _ in range(1000)}) == 1000


def lose_answer(manage: Manage, event: dict[str, Any]) -> str:
    """The process crashes after the change and before its response is stored. Returns the token, which no caller received."""
    made: list[str] = []
    make = api_tokens.make

    def noted(integration_id: str) -> Any:
        token = make(integration_id)
        made.append(token.reveal())
        return token

    with (
        patch.object(api_tokens, "make", noted),
        patch("portaria.api.idempotency.keys.KeptAnswers.store", side_effect=SystemExit),
        pytest.raises(SystemExit),
    ):
        manage.answer(event)
    forget_answers()
    return made[-1]


def forget_answers() -> None:
    """Expire the time of a stopped request, or the lifetime of its key."""
    dynamodb = service_clients.client("dynamodb")
    for item in dynamodb.scan(TableName=TABLE)["Items"]:
        if item["pk"] == {"S": "IDEMPOTENCY"}:
            dynamodb.delete_item(TableName=TABLE, Key={"pk": item["pk"], "sk": item["sk"]})


class TestCreation:
    def test_create_private_integration_returns_token_once_and_stores_its_hash(self, manage: Manage) -> None:
        made = manage.call("POST", "/private-integrations", {"name": "Conexão com BI", "scopes": ["routes:list"]})
        token = made.content["token"]
        shown = manage.call("GET", f"/private-integrations/{made.content['id']}")
        assert made.content == shown.content | {"token": token}
        assert (shown.content["name"], shown.content["scopes"]) == ("Conexão com BI", ["routes:list"])
        assert shown.content["created_by"] == "arn:aws:iam::123456789012:user/administrator"
        assert (shown.content["age_days"], shown.content["last_used_at"]) == (0, None)
        listed = manage.call("GET", "/private-integrations").content["items"]
        assert listed == [shown.content]
        assert token not in stored()
        assert token[len("portaria_") + 10 :] not in stored()
        assert api_tokens.digest(token) in stored()
        assert token not in manage.log.getvalue()

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"scopes": ["routes:list"]}, "name"),
            ({"name": " ", "scopes": ["routes:list"]}, "name"),
            ({"name": "a\x07b", "scopes": ["routes:list"]}, "name"),
            ({"name": "a" * 101, "scopes": ["routes:list"]}, "name"),
            ({"name": "a", "description": "b" * 1001, "scopes": ["routes:list"]}, "description"),
            ({"name": "a"}, "scopes"),
            ({"name": "a", "scopes": []}, "scopes"),
            ({"name": "a", "scopes": "routes:list"}, "scopes"),
            ({"name": "a", "scopes": ["routes:fly"]}, "scopes.0"),
            ({"name": "a", "scopes": ["*"]}, "scopes.0"),
            ({"name": "a", "scopes": ["routes:list@crm"]}, "scopes.0"),
            ({"name": "a", "scopes": ["routes:list", "connections:call@a b"]}, "scopes.1"),
            ({"name": "a", "scopes": ["routes:list"], "token": "mine"}, "token"),
        ],
    )
    def test_create_private_integration_invalid_field_is_refused_and_nothing_stored(
        self, manage: Manage, body: dict[str, Any], field: str
    ) -> None:
        answer = manage.call("POST", "/private-integrations", body)
        assert (answer.status, answer.content["field"]) == (400, field)
        assert stored() == "[]"

    def test_create_private_integration_write_sent_twice_returns_its_token(self, manage: Manage) -> None:
        """Given a write whose first answer was lost, then there is no integration whose token nobody knows."""
        with puts_sent_twice("PRIVATE_INTEGRATION#") as sent:
            _, token = manage.create_integration("connections:list")
        assert sent
        assert manage.program(token, "GET", "/connections").status == 200

    def test_create_repeated_with_its_key_returns_the_first_answer_and_stores_no_token(self, manage: Manage) -> None:
        def create(key: str, name: str = "BI") -> Answer:
            body = {"name": name, "scopes": ["routes:list"]}
            return manage.answer(with_headers(proxy_event("POST", "/private-integrations", body), idempotency_key=key))

        first, again, other = create("one"), create("one"), create("two")
        assert (first.status, again.status, other.status) == (201, 201, 201)
        assert again.content == first.content
        assert again.headers["ETag"] == first.headers["ETag"]
        assert other.content["id"] != first.content["id"]
        assert reason(create("one", name="other")) == (422, "idempotency_key_reused")
        assert len(manage.call("GET", "/private-integrations").content["items"]) == 2
        assert first.content["token"] not in stored()
        assert manage.program(first.content["token"], "GET", "/routes").status == 200

    def test_create_repeated_after_a_death_returns_a_working_token(self, manage: Manage) -> None:
        event = with_headers(
            proxy_event("POST", "/private-integrations", {"name": "BI", "scopes": ["routes:list"]}), idempotency_key="k"
        )
        lost = lose_answer(manage, event)
        answer = manage.answer(event)
        assert answer.status == 201
        assert manage.program(answer.content["token"], "GET", "/routes").status == 200
        assert manage.program(lost, "GET", "/routes").status == 401
        assert len(manage.call("GET", "/private-integrations").content["items"]) == 1

    def test_create_repeated_after_its_token_was_used_keeps_that_token(self, manage: Manage) -> None:
        event = with_headers(
            proxy_event("POST", "/private-integrations", {"name": "BI", "scopes": ["routes:list"]}), idempotency_key="k"
        )
        lost = lose_answer(manage, event)
        assert manage.program(lost, "GET", "/routes").status == 200
        assert manage.answer(event).content["token"] is None
        assert manage.program(lost, "GET", "/routes").status == 200

    def test_create_repeated_after_a_rotation_returns_no_token(self, manage: Manage) -> None:
        event = with_headers(
            proxy_event("POST", "/private-integrations", {"name": "BI", "scopes": ["routes:list"]}), idempotency_key="k"
        )
        first = manage.answer(event)
        rotated = manage.call("POST", f"/private-integrations/{first.content['id']}/rotate", {"expire_now": True})
        forget_answers()
        assert manage.answer(event).content["token"] is None
        assert manage.program(rotated.content["token"], "GET", "/routes").status == 200

    def test_rotate_repeated_with_its_key_returns_the_first_answer(self, manage: Manage) -> None:
        integration, old = manage.create_integration("routes:list")
        event = with_headers(
            proxy_event("POST", f"/private-integrations/{integration}/rotate", {}), idempotency_key="k"
        )
        first, again = manage.answer(event), manage.answer(event)
        assert (first.status, again.content) == (200, first.content)
        for token in (old, first.content["token"]):
            assert manage.program(token, "GET", "/routes").status == 200
        assert first.content["token"] not in stored()

    @pytest.mark.parametrize("used", [False, True])
    def test_rotate_repeated_after_a_death_returns_a_working_token_unless_it_was_used(
        self, manage: Manage, used: bool
    ) -> None:
        integration, old = manage.create_integration("routes:list")
        event = with_headers(
            proxy_event("POST", f"/private-integrations/{integration}/rotate", {}), idempotency_key="k"
        )
        lost = lose_answer(manage, event)
        if used:
            assert manage.program(lost, "GET", "/routes").status == 200
        answer = manage.answer(event)
        assert answer.status == 200
        assert (answer.content["token"] is None) == used
        assert manage.program(lost, "GET", "/routes").status == (200 if used else 401)
        if not used:
            assert manage.program(answer.content["token"], "GET", "/routes").status == 200
        assert manage.program(old, "GET", "/routes").status == 200

    @pytest.mark.parametrize("key", ["with space", "é", "x" * 256])
    def test_create_private_integration_invalid_idempotency_key_is_refused(self, manage: Manage, key: str) -> None:
        event = with_headers(proxy_event("POST", "/routes", {}), idempotency_key=key)
        assert manage.answer(event).content["field"] in ("Idempotency-Key", "source")
        event = with_headers(
            proxy_event("POST", "/private-integrations", {"name": "BI", "scopes": ["routes:list"]}), idempotency_key=key
        )
        assert reason(manage.answer(event)) == (400, "bad_idempotency_key")
        assert stored() == "[]"


class TestAuthentication:
    def test_token_scope_allows_only_its_operation(self, manage: Manage, shared: Cloud) -> None:
        connection_store.create(shared.table, connection("crm"))
        _, token = manage.create_integration("connections:list", "connections:show")
        assert manage.program(token, "GET", "/connections").status == 200
        assert manage.program(token, "GET", "/connections/crm").content["name"] == "crm"
        refused = manage.program(token, "DELETE", "/connections/crm")
        assert reason(refused) == (403, "missing_scope")
        assert "connections:delete" in refused.content["detail"]
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="portaria", error="insufficient_scope"'
        assert connection_store.find(shared.table, "crm")

    def test_token_scope_for_one_connection_does_not_allow_another(self, manage: Manage, shared: Cloud) -> None:
        for name in ("crm", "crm2"):
            connection_store.create(shared.table, connection(name))
        _, token = manage.create_integration("connections:show@crm")
        assert manage.program(token, "GET", "/connections/crm").status == 200
        refused = manage.program(token, "GET", "/connections/crm2")
        assert reason(refused) == (403, "missing_scope")
        assert "connections:show@crm2" in refused.content["detail"]
        assert reason(manage.program(token, "GET", "/connections")) == (403, "missing_scope")
        assert reason(manage.program(token, "GET", "/connections/nobody")) == (403, "missing_scope")

    def test_scopes_and_operations_match(self) -> None:
        from portaria.api import data_ingestion
        from portaria.api.operations import OPERATIONS

        # accept_records is not an operation: its paths and responses are those of the destination's own API.
        # Operations that describe the API and the caller need no scope.
        without = {operation.path for operation in OPERATIONS if not operation.scope}
        assert without == {"/platforms", "/platforms/{platform}", "/scopes", "/me"}
        given = set(scopes.SCOPES) | set(scopes.ADMINISTRATORS_ONLY)
        assert {operation.scope for operation in OPERATIONS} - {""} == given - {data_ingestion.SCOPE}
        assert {each.scope for each in OPERATIONS if each.administrators_only} == set(scopes.ADMINISTRATORS_ONLY)
        assert {each.scope for each in OPERATIONS if each.narrowable} == scopes.NARROWABLE - {data_ingestion.SCOPE}
        assert data_ingestion.SCOPE in scopes.NARROWABLE
        assert len({operation.id for operation in OPERATIONS}) == len(OPERATIONS)

    def test_edit_private_integration_scopes_apply_to_next_call(self, manage: Manage) -> None:
        integration, token = manage.create_integration("routes:list")
        assert manage.program(token, "GET", "/connections").status == 403
        changed = edit(manage, integration, {"scopes": ["connections:list"], "description": "for BI"})
        assert (changed.status, changed.content["scopes"]) == (200, ["connections:list"])
        assert "token" not in changed.content
        assert manage.program(token, "GET", "/connections").status == 200
        assert manage.program(token, "GET", "/routes").status == 403

    def test_token_call_costs_one_consistent_read(self, manage: Manage) -> None:
        _, token = manage.create_integration("routes:list")
        manage.program(token, "GET", "/routes")
        asked: list[tuple[str, Any]] = []
        call = BaseClient._make_api_call

        def note(client: Any, operation: str, parameters: Any) -> Any:
            asked.append((operation, parameters.get("ConsistentRead")))
            return call(client, operation, parameters)

        with patch.object(BaseClient, "_make_api_call", note):
            assert manage.program(token, "GET", "/routes").status == 200
        assert asked == [("GetItem", True), ("Query", None)]

    def test_token_last_use_is_stored_once_per_hour(self, manage: Manage, time: VirtualClock) -> None:
        integration, token = manage.create_integration("routes:list")

        def last_used() -> str:
            return str(manage.call("GET", f"/private-integrations/{integration}").content["last_used_at"])

        manage.program(token, "GET", "/routes")
        first = last_used()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:00:00\.000Z", first)
        with patch.object(Table, "put") as put:
            manage.program(token, "GET", "/routes")
        assert not put.called
        time.advance(3700)
        manage.program(token, "GET", "/routes")
        assert last_used() > first

    def test_token_use_during_deletion_does_not_restore_integration(self, manage: Manage) -> None:
        """The last use is an item of its own, so it never restores an integration that was deleted meanwhile."""
        integration, token = manage.create_integration("routes:list")
        find = private_integrations.find

        def find_then_delete(table: Any, integration_id: str) -> Any:
            found = find(table, integration_id)
            private_integrations.delete(table, integration_id)
            return found

        with patch.object(private_integrations, "find", find_then_delete):
            assert manage.program(token, "GET", "/routes").status == 200
        assert manage.call("GET", f"/private-integrations/{integration}").status == 404
        assert manage.program(token, "GET", "/routes").status == 401

    @pytest.mark.parametrize("failing", ["PutItem", "GetItem"])
    def test_token_call_table_throttled_is_503_only_when_read_fails(self, manage: Manage, failing: str) -> None:
        """Recording the use may fail; the read that authorises must not, and the call is answered with 503."""
        _, token = manage.create_integration("routes:list")
        with refusing(failing):
            assert manage.program(token, "GET", "/routes").status == (503 if failing == "GetItem" else 200)
            assert manage.program("portaria_wrong", "GET", "/routes").status == 401


class TestRotation:
    def test_rotate_private_integration_both_tokens_work_for_seven_days(
        self, manage: Manage, time: VirtualClock
    ) -> None:
        integration, old = manage.create_integration("routes:list")
        rotated = manage.call("POST", f"/private-integrations/{integration}/rotate", {})
        new = rotated.content["token"]
        assert rotated.status == 200
        assert new != old
        assert (clock.from_iso(rotated.content["previous_until"]) - clock.now()) > timedelta(days=6, hours=23)
        assert [manage.program(token, "GET", "/routes").status for token in (old, new)] == [200, 200]
        shown = manage.call("GET", f"/private-integrations/{integration}").content
        assert shown["previous_last_used_at"]
        time.advance(7 * 24 * 3600 + 1)
        assert manage.program(new, "GET", "/routes").status == 200
        late = manage.program(old, "GET", "/routes")
        assert reason(late) == (401, "token_rotated")
        assert late.headers["WWW-Authenticate"] == 'Bearer realm="portaria", error="invalid_token"'
        assert manage.call("GET", f"/private-integrations/{integration}").content["previous_until"] is None
        assert manage.call("POST", f"/private-integrations/{integration}/rotate", {}).status == 200

    def test_rotate_private_integration_expire_now_ends_old_token(self, manage: Manage) -> None:
        integration, old = manage.create_integration("routes:list")
        new = manage.call("POST", f"/private-integrations/{integration}/rotate", {"expire_now": True}).content["token"]
        assert manage.program(old, "GET", "/routes").status == 401
        assert manage.program(new, "GET", "/routes").status == 200

    def test_rotate_private_integration_expire_now_during_rotation_ends_both_old_tokens(self, manage: Manage) -> None:
        integration, first = manage.create_integration("routes:list")
        second = manage.call("POST", f"/private-integrations/{integration}/rotate", {}).content["token"]
        third = manage.call("POST", f"/private-integrations/{integration}/rotate", {"expire_now": True}).content[
            "token"
        ]
        assert [manage.program(token, "GET", "/routes").status for token in (first, second, third)] == [401, 401, 200]

    def test_rotate_private_integration_during_rotation_is_refused(self, manage: Manage) -> None:
        integration, old = manage.create_integration("routes:list")
        manage.call("POST", f"/private-integrations/{integration}/rotate", {})
        assert reason(manage.call("POST", f"/private-integrations/{integration}/rotate", {})) == (
            409,
            "rotation_under_way",
        )
        assert manage.program(old, "GET", "/routes").status == 200

    def test_cancel_rotation_keeps_old_token_and_ends_new_one(self, manage: Manage, time: VirtualClock) -> None:
        integration, old = manage.create_integration("routes:list")
        made_at = manage.call("GET", f"/private-integrations/{integration}").content["token_made_at"]
        new = manage.call("POST", f"/private-integrations/{integration}/rotate", {}).content["token"]
        cancelled = manage.call("POST", f"/private-integrations/{integration}/rotation/cancel")
        assert (cancelled.status, cancelled.content["previous_until"]) == (200, None)
        assert cancelled.content["token_made_at"] == made_at
        time.advance(8 * 24 * 3600)
        assert manage.program(old, "GET", "/routes").status == 200
        assert manage.program(new, "GET", "/routes").status == 401
        assert reason(manage.call("POST", f"/private-integrations/{integration}/rotation/cancel")) == (
            409,
            "no_rotation",
        )

    def test_expire_rotation_ends_old_token_early(self, manage: Manage) -> None:
        integration, old = manage.create_integration("routes:list")
        new = manage.call("POST", f"/private-integrations/{integration}/rotate", {}).content["token"]
        assert manage.call("POST", f"/private-integrations/{integration}/rotation/expire").status == 200
        assert manage.program(old, "GET", "/routes").status == 401
        assert manage.program(new, "GET", "/routes").status == 200
        assert reason(manage.call("POST", f"/private-integrations/{integration}/rotation/expire")) == (
            409,
            "no_rotation",
        )

    def test_cancel_rotation_of_old_token_keeps_its_age(self, manage: Manage, time: VirtualClock) -> None:
        integration, _ = manage.create_integration("routes:list")
        time.advance(91 * 24 * 3600)
        manage.call("POST", f"/private-integrations/{integration}/rotate", {})
        cancelled = manage.call("POST", f"/private-integrations/{integration}/rotation/cancel")
        assert (cancelled.status, cancelled.content["age_days"]) == (200, 91)

    @pytest.mark.parametrize("path", ["rotate", "rotation/cancel", "rotation/expire", ""])
    def test_private_integration_unknown_is_not_found(self, manage: Manage, path: str) -> None:
        address = f"/private-integrations/0123456789/{path}".rstrip("/")
        for method in ("POST",) if path else ("GET", "DELETE"):
            assert reason(manage.call(method, address, {})) == (404, "unknown_private_integration")
        assert edit(manage, "0123456789", {"name": "x"}).status == 404


class TestRevocation:
    def test_delete_private_integration_ends_both_tokens(self, manage: Manage) -> None:
        integration, old = manage.create_integration("routes:list")
        new = manage.call("POST", f"/private-integrations/{integration}/rotate", {}).content["token"]
        deleted = manage.call("DELETE", f"/private-integrations/{integration}")
        assert (deleted.status, deleted.text) == (204, "")
        for token in (old, new):
            assert reason(manage.program(token, "GET", "/routes")) == (401, "token_refused")
        assert manage.call("DELETE", f"/private-integrations/{integration}").status == 404

    def test_token_not_issued_by_this_stack_is_refused_and_not_logged(self, manage: Manage) -> None:
        integration, token = manage.create_integration("routes:list")
        others = {
            "of another stack": api_tokens.make("zzzzzzzzzz").reveal(),
            "of this integration, guessed": api_tokens.make(integration).reveal(),
            "cut": token[:-1],
            "with a wrong checksum": token[:-1] + ("0" if token[-1] != "0" else "1"),
            "with the prefix in capitals": token.replace("portaria_", "PORTARIA_"),
            "long": token * 100,
            "no text of ours": "pit-00000000-0000-4000-8000-000000000000",
        }
        for what, other in others.items():
            answer = manage.program(other, "GET", "/routes")
            assert reason(answer) == (401, "token_refused"), what
            assert other not in answer.text
        assert other not in manage.log.getvalue()
        assert reason(manage.program("", "GET", "/routes")) == (401, "token_missing")

    @pytest.mark.parametrize(
        "given", ["{token}", "Basic {token}", "Bearer", "Bearer {token} {token}", "bearer  {token}"]
    )
    def test_token_authorization_header_requires_bearer_scheme(self, manage: Manage, given: str) -> None:
        _, token = manage.create_integration("routes:list")
        event = with_token(
            proxy_event("GET", "/routes", prefix="/v1"), "", headers={"Authorization": given.format(token=token)}
        )
        assert manage.answer(event).status == (200 if given.startswith("bearer") else 401)

    def test_token_authorization_header_repeated_is_refused(self, manage: Manage) -> None:
        _, token = manage.create_integration("routes:list")
        event = with_token(proxy_event("GET", "/routes", prefix="/v1"), token)
        event["multiValueHeaders"]["authorization"] *= 2
        assert reason(manage.answer(event)) == (400, "header_repeated")

    def test_token_path_containing_admin_prefix_requires_token(self, manage: Manage) -> None:
        """The resource that API Gateway matched decides, not the text of the path."""
        event = with_token(proxy_event("GET", "/connections/x", prefix="/v1"), "")
        event["path"] = event["requestContext"]["path"] = "/v1/connections/admin/v1/connections"
        assert reason(manage.answer(event)) == (401, "token_missing")


class TestUpdates:
    def test_edit_private_integration_stale_etag_is_refused(self, manage: Manage) -> None:
        integration, _ = manage.create_integration("routes:list")
        etag = manage.call("GET", f"/private-integrations/{integration}").headers["ETag"]
        first = edit(manage, integration, {"name": "one"}, if_match=etag)
        assert first.status == 200
        assert first.headers["ETag"] != etag
        assert reason(edit(manage, integration, {"name": "two"}, if_match=etag)) == (412, "changed_meanwhile")
        assert edit(manage, integration, {"name": "three"}, if_match="*").status == 200
        assert edit(manage, integration, {"name": "four"}).content["name"] == "four"

    @pytest.mark.parametrize("etag", ['W/"1"', "1", '"1", "2"x', '"'])
    def test_edit_private_integration_malformed_etag_is_refused(self, manage: Manage, etag: str) -> None:
        integration, _ = manage.create_integration("routes:list")
        assert edit(manage, integration, {"name": "one"}, if_match=etag).status in (400, 412)

    def test_private_integration_etag_is_unchanged_by_use(self, manage: Manage) -> None:
        integration, token = manage.create_integration("routes:list")
        etag = manage.call("GET", f"/private-integrations/{integration}").headers["ETag"]
        manage.program(token, "GET", "/routes")
        assert manage.call("GET", f"/private-integrations/{integration}").headers["ETag"] == etag

    def test_edit_private_integration_empty_body_is_refused(self, manage: Manage) -> None:
        integration, _ = manage.create_integration("routes:list")
        assert edit(manage, integration, {}).status == 400


class TestManagers:
    def test_private_integrations_by_token_are_administrators_only_by_default(self, manage: Manage) -> None:
        _, token = manage.create_integration(*(scope for scope in scopes.SCOPES if scope.startswith("private-")))
        answer = manage.program(token, "GET", "/private-integrations")
        assert reason(answer) == (403, "administrators_only")

    def test_create_private_integration_by_token_beyond_own_scopes_is_refused(self, managed_by_tokens: Manage) -> None:
        manage = managed_by_tokens
        own = [scope for scope in scopes.SCOPES if scope.startswith("private-")]
        manager, token = manage.create_integration(*own, "routes:list", "connections:show@crm")
        body = {"name": "small", "scopes": ["routes:list", "connections:show@crm"]}
        made = manage.program(token, "POST", "/private-integrations", body)
        assert made.status == 201
        assert made.content["created_by"] == f"private-integration:{manager}"
        for wanted in (["routes:delete"], ["connections:show"], ["connections:show@other"]):
            more = manage.program(token, "POST", "/private-integrations", body | {"scopes": wanted})
            assert reason(more) == (403, "beyond_own_scopes")
        small = made.content["id"]
        assert (
            manage.program(token, "PATCH", f"/private-integrations/{small}", {"scopes": ["audit:list"]}).status == 403
        )
        assert manage.program(token, "POST", f"/private-integrations/{small}/rotate", {}).status == 200
        assert manage.program(token, "DELETE", f"/private-integrations/{small}").status == 204

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "/rotate", {}), ("POST", "/rotation/cancel", None), ("POST", "/rotation/expire", None),
            ("DELETE", "", None),
            ("PATCH", "", {"name": "mine"}), ("PATCH", "", {"scopes": ["routes:list"]}),
        ],
    )  # fmt: skip
    def test_change_private_integration_with_more_scopes_by_token_is_refused(
        self, managed_by_tokens: Manage, method: str, path: str, body: Any
    ) -> None:
        manage = managed_by_tokens
        own = [scope for scope in scopes.SCOPES if scope.startswith("private-")]
        _, token = manage.create_integration(*own, "routes:list")
        bigger, _ = manage.create_integration("routes:list", "routes:delete")
        answer = manage.program(token, method, f"/private-integrations/{bigger}{path}", body)
        assert reason(answer) == (403, "beyond_own_scopes")


class TestFailedAttempts:
    def test_token_failed_attempts_are_throttled_by_address_and_counted(
        self, manage: Manage, capsys: pytest.CaptureFixture[str], time: VirtualClock, long: bool
    ) -> None:
        attempts = 10_000 if long else 500
        integration, known = manage.create_integration("routes:list")
        _, unknown = manage.create_integration("routes:list")
        manage.program(known, "GET", "/routes", source="203.0.113.9")
        asked = 0
        call = BaseClient._make_api_call

        def note(client: Any, operation: str, parameters: Any) -> Any:
            nonlocal asked
            asked += 1
            return call(client, operation, parameters)

        guess = with_token(proxy_event("GET", "/routes", prefix="/v1"), "", source="203.0.113.9")
        answers: list[int] = []
        with patch.object(BaseClient, "_make_api_call", note):
            for _ in range(attempts):
                token = f"Bearer {api_tokens.make(integration).reveal()}"
                guess["multiValueHeaders"]["authorization"] = [token]
                answer = manage.module.handler(dict(guess), functions.Context())
                answers.append(answer["statusCode"])
        assert answers[: auth_throttle.MOST] == [401] * auth_throttle.MOST
        assert set(answers[auth_throttle.MOST :]) == {429}
        assert int(answer["multiValueHeaders"]["Retry-After"][0]) <= 60
        # Only the attempts that were checked cost a read and a write each.
        assert asked == 2 * (auth_throttle.MOST + 1)
        # The valid token of the same address waits too, unless it is known to work; other addresses do not.
        assert manage.program(unknown, "GET", "/routes", source="203.0.113.9").status == 429
        assert manage.program(known, "GET", "/routes", source="203.0.113.9").status == 200
        assert manage.program(unknown, "GET", "/routes", source="203.0.113.10").status == 200
        told = [line for line in capsys.readouterr().out.splitlines() if "ApiAttemptsFailed" in line]
        assert sum(json.loads(line)["ApiAttemptsFailed"][0] for line in told) == attempts + 1
        time.advance(61)
        assert manage.program(unknown, "GET", "/routes", source="203.0.113.9").status == 200

    def test_token_failed_attempts_are_counted_across_instances(
        self, manage: Manage, shared: Cloud, time: VirtualClock
    ) -> None:
        other = Manage(shared)
        bad = api_tokens.make("zzzzzzzzzz").reveal()
        for number in range(auth_throttle.MOST):
            assert (manage, other)[number % 2].program(bad, "GET", "/routes").status == 401
        assert [each.program(bad, "GET", "/routes").status for each in (manage, other)] == [429, 429]

    def test_token_failed_attempts_do_not_store_the_address(self, manage: Manage) -> None:
        manage.program("portaria_x", "GET", "/routes", source="203.0.113.77")
        assert "203.0.113.77" not in stored()


class TestAudit:
    def test_audit_every_change_has_an_entry_with_caller_and_outcome(self, manage: Manage) -> None:
        integration, token = manage.create_integration("routes:list", "audit:list")
        edit(manage, integration, {"scopes": ["audit:list"]})
        manage.call("POST", f"/private-integrations/{integration}/rotate", {"expire_now": False})
        manage.call("POST", f"/private-integrations/{integration}/rotate", {})
        manage.call("DELETE", f"/private-integrations/{integration}")
        entries = manage.call("GET", "/audit").content["items"]
        assert [(entry["operation"], entry["outcome"], entry["reason"]) for entry in entries] == [
            ("delete_private_integration", "done", None),
            ("rotate_private_integration", "refused", "rotation_under_way"),
            ("rotate_private_integration", "done", None),
            ("edit_private_integration", "done", None),
            ("create_private_integration", "done", None),
        ]
        assert {entry["target"] for entry in entries} == {integration}
        assert {entry["by"] for entry in entries} == {"arn:aws:iam::123456789012:user/administrator"}
        assert entries[3]["asked"] == {"scopes": ["audit:list"]}
        assert entries[4]["asked"] == {"name": "BI", "description": None, "scopes": ["routes:list", "audit:list"]}
        assert token not in json.dumps(entries)

    def test_audit_change_by_token_names_private_integration(self, manage: Manage, shared: Cloud) -> None:
        connection_store.create(shared.table, connection("crm"))
        integration, token = manage.create_integration("connections:delete@crm", "audit:list")
        assert manage.program(token, "DELETE", "/connections/crm").status == 200
        entry = manage.program(token, "GET", "/audit?limit=1").content["items"][0]
        assert (entry["by"], entry["by_name"]) == (f"private-integration:{integration}", "BI")
        assert (entry["operation"], entry["target"], entry["source"]) == ("delete_connection", "crm", "198.51.100.7")

    def test_audit_change_killed_midway_leaves_entry_begun(self, manage: Manage) -> None:
        with patch.object(private_integrations, "create", side_effect=SystemExit), pytest.raises(SystemExit):
            manage.create_integration("routes:list")
        assert [entry["outcome"] for entry in manage.call("GET", "/audit").content["items"]] == ["begun"]

    def test_audit_write_failure_answers_503_and_changes_nothing(self, manage: Manage) -> None:
        integration, token = manage.create_integration("routes:list")
        put = BaseClient._make_api_call

        def refuse(client: Any, operation: str, parameters: Any) -> Any:
            if operation == "TransactWriteItems" and "AUDIT#" in str(parameters):
                raise ClientError(
                    {"Error": {"Code": "ProvisionedThroughputExceededException", "Message": ""}}, operation
                )
            return put(client, operation, parameters)

        with patch.object(BaseClient, "_make_api_call", refuse):
            assert reason(manage.call("DELETE", f"/private-integrations/{integration}")) == (503, "audit_unavailable")
        assert manage.program(token, "GET", "/routes").status == 200

    def test_audit_invalid_input_has_no_entry(self, manage: Manage) -> None:
        manage.call("POST", "/private-integrations", {"name": 7})
        assert manage.call("GET", "/audit").content["items"] == []


class TestDeletedConnections:
    """Scopes that are restricted to a connection end with it, so they do not apply to a new connection of the same name."""

    def scopes(self, manage: Manage, integration: str) -> list[str]:
        scopes: list[str] = manage.call("GET", f"/private-integrations/{integration}").content["scopes"]
        return scopes

    def test_delete_connection_removes_its_scopes_from_integrations(self, manage: Manage, shared: Cloud) -> None:
        connection_store.create(shared.table, connection("crm"))
        integration, token = manage.create_integration(
            "connections:show@crm", "connections:call@crm", "connections:show@crm-two", "routes:list"
        )
        assert manage.program(token, "GET", "/connections/crm").status == 200
        assert manage.call("DELETE", "/connections/crm").status == 200
        connection_store.create(shared.table, connection("crm"))
        assert reason(manage.program(token, "GET", "/connections/crm")) == (403, "missing_scope")
        assert self.scopes(manage, integration) == ["connections:show@crm-two", "routes:list"]
        assert manage.program(token, "GET", "/routes").status == 200

    def test_token_scope_granted_before_connection_is_created_works(self, manage: Manage, shared: Cloud) -> None:
        _, token = manage.create_integration("connections:show@crm")
        connection_store.create(shared.table, connection("crm"))
        assert manage.program(token, "GET", "/connections/crm").status == 200

    def test_delete_connection_killed_after_scope_removal_can_be_repeated(self, manage: Manage, shared: Cloud) -> None:
        connection_store.create(shared.table, connection("crm"))
        integration, _ = manage.create_integration("connections:show@crm")
        with patch.object(uninstall, "delete", side_effect=SystemExit), pytest.raises(SystemExit):
            manage.call("DELETE", "/connections/crm")
        assert self.scopes(manage, integration) == []
        assert connection_store.get(shared.table, "crm").state == "connected"
        assert manage.call("DELETE", "/connections/crm").status == 200

    def test_delete_connection_killed_before_scope_removal_keeps_connection(
        self, manage: Manage, shared: Cloud
    ) -> None:
        connection_store.create(shared.table, connection("crm"))
        integration, _ = manage.create_integration("connections:show@crm")
        with patch.object(private_integrations, "edit", side_effect=SystemExit), pytest.raises(SystemExit):
            manage.call("DELETE", "/connections/crm")
        assert self.scopes(manage, integration) == ["connections:show@crm"]
        assert connection_store.get(shared.table, "crm").state == "connected"

    def test_delete_connection_integration_edited_concurrently_loses_scope_too(
        self, manage: Manage, shared: Cloud
    ) -> None:
        """Given an index that is behind the item, when a write meets a newer version, then that version is edited."""
        connection_store.create(shared.table, connection("crm"))
        integration, _ = manage.create_integration("connections:show@crm")
        query_all = Table.query_all

        def behind(table: Table, *arguments: Any, **named: Any) -> list[Item]:
            found = list(query_all(table, *arguments, **named))
            if arguments[0] == private_integrations.LIST:
                edit(manage, integration, {"scopes": ["connections:call@crm", "routes:list"]})
            return found

        with patch.object(Table, "query_all", behind):
            assert manage.call("DELETE", "/connections/crm").status == 200
        assert self.scopes(manage, integration) == ["routes:list"]


class TestTokenAge:
    def visit(self, shared: Cloud) -> None:
        settings = RenewTokensSettings(
            **{name: shared.environment[name.upper()] for name in RenewTokensSettings.__annotations__}
        )
        renewal_sweep.handle_message('{"sweep": ""}', settings, lambda: 60.0, RateLimiter(100))
        for body in shared.receive("renewals"):
            renewal_sweep.handle_message(body, settings, lambda: 60.0, RateLimiter(100))

    def test_rotation_due_event_is_sent_once_at_80_and_at_90_days(
        self, manage: Manage, shared: Cloud, time: VirtualClock
    ) -> None:
        integration, _ = manage.create_integration("routes:list")
        self.visit(shared)
        assert heard(shared) == []
        ages = []
        for days in (80, 0, 5, 6, 30):
            time.advance(days * 24 * 3600 + 1)
            self.visit(shared)
            told = heard(shared)
            assert {event["detail-type"] for event in told} <= {"private_integration.rotation_due"}
            ages.append([event["detail"]["age_days"] for event in told])
        assert ages == [[80], [], [], [91], []]
        assert manage.call("GET", f"/private-integrations/{integration}").content["age_days"] == 121

    def test_rotation_due_event_after_rotation_counts_from_new_token(
        self, manage: Manage, shared: Cloud, time: VirtualClock
    ) -> None:
        integration, _ = manage.create_integration("routes:list")
        time.advance(81 * 24 * 3600)
        self.visit(shared)
        heard(shared)
        manage.call("POST", f"/private-integrations/{integration}/rotate", {})
        self.visit(shared)
        assert heard(shared) == []
        time.advance(81 * 24 * 3600)
        self.visit(shared)
        assert [event["detail"]["private_integration"] for event in heard(shared)] == [integration]
