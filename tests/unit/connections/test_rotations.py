"""Rotation and replacement of static credentials: tested first, stored by one write, and safe in a crash at any point."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
import responses
from botocore.client import BaseClient

from portaria.aws import service_clients
from portaria.connections import connection_store, rotation
from portaria.connections.tokens import cache, provider, usability
from portaria.connections.vault import Vault, version_id
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.core.errors import Rejected, Retryable
from portaria.core.stored_reasons import ConnectionReason
from tests.fakes.api.manage import empty
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.crashes import Calls, Died, outgoing
from tests.fakes.platforms.leadconnector import HOST, LOCATION, LeadConnector, error
from tests.fakes.template.document import resources

NAME = "marketek-main"
OLD, NEW, NEWER = "pit-canary-old", "pit-canary-new", "pit-canary-newer"
VAULT = Vault(PREFIX)


@pytest.fixture
def stack(shared: Cloud, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[Cloud]:
    yield shared
    empty()
    assert "canary" not in caplog.text
    assert "canary" not in "".join(capsys.readouterr())


@pytest.fixture
def platform() -> Iterator[LeadConnector]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield LeadConnector(mock, OLD, NEW, NEWER)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Advances the clock."""
    now = clock.now

    def move(ahead: timedelta) -> None:
        moved = clock.now() + ahead - now()
        monkeypatch.setattr(clock, "now", lambda: now() + moved)

    return move


def connect(stack: Cloud, **changes: Any) -> Connection:
    secret_id = VAULT.grant_id("marketek-main-0001")
    first = version_id(secret_id, 1)
    granted_at = clock.to_iso(clock.now() - timedelta(days=85))
    known: dict[str, Any] = {
        "name": NAME, "platform": "leadconnector", "kind": "bearer", "allowed_domain": HOST, "state": "connected",
        "generation": 1, "secret_id": secret_id, "version_id": first, "granted_at": granted_at,
        "fields": {"location_id": LOCATION},
    }  # fmt: skip
    VAULT.create(secret_id, credentials(OLD), first)
    connection_store.create(stack.table, Connection(**known | changes))
    return now_of(stack)


def credentials(token: str) -> dict[str, Secret]:
    return {"token": Secret(token)}


def rotate(stack: Cloud, token: str = NEW, *, expire_now: bool = False) -> Connection:
    return rotation.rotate(stack.table, VAULT, NAME, credentials(token), expire_now=expire_now)


def replace(stack: Cloud, token: str = NEW) -> Connection:
    return rotation.replace(stack.table, VAULT, now_of(stack), credentials(token))


def now_of(stack: Cloud) -> Connection:
    return connection_store.get(stack.table, NAME)


def in_use(stack: Cloud, connection: Connection | None = None) -> str:
    """The token that a caller gets in a process with empty caches."""
    supply = provider.TokenProvider(stack.table, VAULT, "", lambda: 60.0, cache=cache.TokenCache())
    return supply.token(connection or now_of(stack)).credentials["token"].reveal()


def in_reserve(stack: Cloud) -> str | None:
    connection = now_of(stack)
    if not connection.previous_version_id or clock.from_iso(connection.previous_until) <= clock.now():
        return None
    found = VAULT.read(connection.secret_id, connection.previous_version_id)
    return found["token"].reveal() if found else None


def labels(stack: Cloud) -> dict[str, str]:
    """The secret version of each label."""
    answer = service_clients.client("secretsmanager").describe_secret(SecretId=now_of(stack).secret_id)
    return {label: version for version, found in answer["VersionIdsToStages"].items() for label in found}


def item(stack: Cloud) -> dict[str, Any]:
    found = stack.table.get(*connection_store.key(NAME))
    assert found
    return found


class TestRotation:
    def test_rotate_valid_token_is_current_and_old_one_is_kept_in_reserve(
        self, stack: Cloud, platform: LeadConnector
    ) -> None:
        old = connect(stack)
        fresh = rotate(stack)
        assert fresh == now_of(stack)
        assert (fresh.generation, fresh.state, fresh.previous_version_id) == (2, "connected", old.version_id)
        assert clock.from_iso(fresh.previous_until) - clock.now() > timedelta(days=6, hours=23)
        assert clock.now() - clock.from_iso(fresh.granted_at) < timedelta(minutes=1)
        assert (in_use(stack), in_reserve(stack)) == (NEW, OLD)
        assert labels(stack)["AWSCURRENT"] == fresh.version_id
        assert labels(stack)["AWSPREVIOUS"] == old.version_id
        assert len(platform.calls) == 1
        assert "lease_until" not in item(stack)

    def test_rotate_connection_is_due_when_overlap_ends(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)
        assert item(stack)["due_at"] < rotate(stack).previous_until
        assert item(stack)["due_at"] == now_of(stack).previous_until
        rotation.expire(stack.table, VAULT, NAME)
        assert (
            item(stack)["due_at"]
            == connection_store.due_at(now_of(stack), clock.now())
            > clock.to_iso(clock.now() + timedelta(days=79))
        )

    def test_rotate_resets_age_warning(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)
        stack.table.update(*connection_store.key(NAME), "SET warned = :two", values={":two": 2})
        rotate(stack)
        assert "warned" not in item(stack)

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (error(401, "Invalid Private Integration token"), "refused the token"),
            (error(401, "Invalid JWT"), "refused the token"),
            (error(403, "The token does not have access to this location."), "does not have access to this location"),
        ],
    )
    def test_rotate_refused_token_changes_nothing(
        self, stack: Cloud, platform: LeadConnector, answer: Any, words: str
    ) -> None:
        before = connect(stack)
        platform.before = [answer]
        with pytest.raises(Rejected, match=words) as refused:
            rotate(stack, "pit-canary-dead")
        assert (refused.value.status, refused.value.field) == (400, "credentials")
        assert (now_of(stack), in_use(stack)) == (before, OLD)
        assert labels(stack) == {"AWSCURRENT": before.version_id}, "the refused token has no label to be kept by"
        assert "lease_until" not in item(stack)
        assert rotate(stack).generation == 2

    def test_rotate_token_with_missing_scope_is_accepted(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)
        platform.before = [error(401, "The token is not authorized for this scope.")]
        assert rotate(stack).generation == 2

    @pytest.mark.parametrize(
        "answer",
        [
            error(401, "Command timed out"),
            error(500, "x"),
            (429, {"Retry-After": "3"}, ""),
            (403, {"Content-Type": "text/html"}, "<html>error code: 1010</html>"),
            requests.exceptions.ReadTimeout("canary"),
            requests.exceptions.ConnectTimeout("canary"),
        ],
    )
    def test_rotate_platform_unreachable_changes_nothing_and_can_be_repeated(
        self, stack: Cloud, platform: LeadConnector, answer: Any
    ) -> None:
        before = connect(stack)
        platform.before = [answer]
        with pytest.raises(Retryable, match="platform_unreachable"):
            rotate(stack)
        assert (now_of(stack), in_use(stack)) == (before, OLD)
        assert rotate(stack).generation == 2

    def test_rotate_expire_now_drops_old_token(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)
        fresh = rotate(stack, expire_now=True)
        assert (fresh.previous_version_id, fresh.previous_until, in_reserve(stack)) == ("", "", None)
        assert in_use(stack) == NEW
        assert "AWSPREVIOUS" not in labels(stack)

    def test_rotate_expire_now_vault_failure_leaves_old_token_unused_and_due(
        self, stack: Cloud, platform: LeadConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise Retryable("vault_unavailable", "throttled")

        connect(stack)
        with monkeypatch.context() as patch:
            patch.setattr(Vault, "drop", fail)
            with pytest.raises(Retryable):
                rotate(stack, expire_now=True)
        assert (in_use(stack), in_reserve(stack)) == (NEW, None)
        assert item(stack)["due_at"] <= clock.to_iso(clock.now())
        assert rotate(stack, expire_now=True).previous_version_id == ""
        assert "AWSPREVIOUS" not in labels(stack)

    def test_expire_repeated_drops_previous_token_once(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)
        fresh = rotate(stack)
        for _ in range(2):
            after = rotation.expire(stack.table, VAULT, NAME)
            assert (after.generation, after.previous_version_id) == (fresh.generation, "")
        assert (in_use(stack), in_reserve(stack)) == (NEW, None)
        assert "AWSPREVIOUS" not in labels(stack)

    def test_rotate_twice_keeps_only_the_last_previous_token(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)
        rotate(stack)
        assert rotate(stack, NEWER).generation == 3
        assert (in_use(stack), in_reserve(stack)) == (NEWER, NEW)

    def test_rotate_same_token_is_refused_unless_just_rotated(
        self, stack: Cloud, platform: LeadConnector, later: Any
    ) -> None:
        connect(stack)
        with pytest.raises(Rejected, match="credentials_unchanged"):
            rotate(stack, OLD)
        fresh = rotate(stack)
        assert rotate(stack) == fresh
        assert "lease_until" not in item(stack)
        later(timedelta(minutes=11))
        with pytest.raises(Rejected, match="credentials_unchanged"):
            rotate(stack)

    def test_rotate_connection_needing_reconnect_recovers_without_reserve(
        self, stack: Cloud, platform: LeadConnector
    ) -> None:
        connect(stack)
        usability.end(stack.table, now_of(stack), ConnectionReason.TOKEN_REFUSED)
        fresh = rotate(stack)
        assert (fresh.state, fresh.reason, in_use(stack), in_reserve(stack)) == ("connected", "", NEW, None)
        assert item(stack)["announce"] == "connection.recovered"
        assert item(stack)["due_at"] <= clock.to_iso(clock.now())

    def test_rotate_keeps_pending_announcement(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)
        stack.table.update(
            *connection_store.key(NAME), "SET announce = :told", values={":told": "connection.recovered"}
        )
        rotate(stack)
        assert item(stack)["announce"] == "connection.recovered"

    def test_rotate_platform_without_token_test_is_refused(self, stack: Cloud) -> None:
        connect(stack, platform="http", fields={})
        with pytest.raises(Rejected, match="PUT") as refused:
            rotate(stack)
        assert (refused.value.reason, refused.value.status) == ("not_rotatable", 409)

    def test_rotate_and_expire_unknown_connection_are_refused(self, stack: Cloud) -> None:
        with pytest.raises(Rejected, match="unknown_connection"):
            rotate(stack)
        with pytest.raises(Rejected, match="unknown_connection"):
            rotation.expire(stack.table, VAULT, NAME)


class TestReplacement:
    def test_replace_valid_token_drops_old_one(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)
        fresh = replace(stack)
        assert (fresh.generation, fresh.previous_version_id, in_use(stack)) == (2, "", NEW)
        assert "AWSPREVIOUS" not in labels(stack)

    def test_replace_same_token_keeps_its_age(self, stack: Cloud, platform: LeadConnector) -> None:
        before = connect(stack)
        assert replace(stack, OLD) == before == now_of(stack)
        assert len(platform.calls) == 1
        assert "lease_until" not in item(stack)

    def test_replace_same_token_recovers_connection_needing_reconnect(
        self, stack: Cloud, platform: LeadConnector
    ) -> None:
        before = connect(stack)
        usability.end(stack.table, before, ConnectionReason.TOKEN_REFUSED)
        fresh = replace(stack, OLD)
        assert (fresh.state, fresh.generation, fresh.granted_at) == ("connected", 2, before.granted_at)
        assert fresh.version_id == before.version_id
        assert item(stack)["announce"] == "connection.recovered"

    def test_replace_missing_secret_version_stores_new_one(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)
        stack.table.update(*connection_store.key(NAME), "SET version_id = :gone", values={":gone": "0" * 36})
        assert replace(stack).generation == 2
        assert in_use(stack) == NEW

    def test_replace_missing_secret_is_refused_with_advice(self, stack: Cloud, platform: LeadConnector) -> None:
        VAULT.remove(connect(stack).secret_id)
        with pytest.raises(Rejected, match="delete the connection and create it again"):
            replace(stack)

    def test_replace_connection_without_version_id_stores_one(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack, version_id="")
        assert in_use(stack) == OLD
        assert replace(stack).version_id
        assert in_use(stack) == NEW


class TestConcurrency:
    def test_rotate_while_leased_is_retryable_until_lease_ends(
        self, stack: Cloud, platform: LeadConnector, later: Any
    ) -> None:
        connect(stack)
        until = int(clock.now().timestamp()) + 20
        stack.table.update(*connection_store.key(NAME), "SET lease_until = :until", values={":until": until})
        with pytest.raises(Retryable, match="change_in_progress") as refused:
            rotate(stack)
        assert 0 < (refused.value.after_s or 0) <= 22
        assert platform.calls == []
        later(timedelta(seconds=22))
        assert rotate(stack).generation == 2

    def test_rotate_overtaken_by_another_rotation_is_refused(self, stack: Cloud, platform: LeadConnector) -> None:
        """Given a lease that ended during the test of the credential, and another rotation since, then this one is refused."""
        connect(stack)

        class Slow:
            def pop(self, _: int) -> Any:
                platform.before = []
                stack.table.update(*connection_store.key(NAME), "REMOVE lease_until")
                rotate(stack, NEWER)
                return 200, {}, '{"location": {}}'

        platform.before = Slow()  # type: ignore[assignment]
        with pytest.raises(Rejected, match="connection_changed"):
            rotate(stack)
        assert in_use(stack) == NEWER
        assert now_of(stack).generation == 2

    def test_rotate_with_outdated_fence_does_not_commit(
        self, stack: Cloud, platform: LeadConnector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The fence refuses it: another worker has taken the lease, although it has changed nothing yet."""
        connect(stack)
        promote = Vault.promote

        def promote_late(vault: Vault, secret_id: str, *, old: str, new: str) -> None:
            promote(vault, secret_id, old=old, new=new)
            stack.table.update(*connection_store.key(NAME), "SET fence = fence + :one", values={":one": 1})

        monkeypatch.setattr(Vault, "promote", promote_late)
        with pytest.raises(Rejected, match="connection_changed"):
            rotate(stack)
        assert in_use(stack) == OLD

    def test_rotate_connection_ended_meanwhile_is_refused(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)

        class Ending:
            def pop(self, _: int) -> Any:
                usability.end(stack.table, now_of(stack), ConnectionReason.TOKEN_REFUSED)
                platform.before = []
                return 200, {}, '{"location": {}}'

        platform.before = Ending()  # type: ignore[assignment]
        with pytest.raises(Rejected, match="connection_changed"):
            rotate(stack)
        assert now_of(stack).state == "needs_reconnect"
        assert rotate(stack).state == "connected"

    def test_rotate_and_expire_removed_connection_are_refused(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack, state="removed")
        with pytest.raises(Rejected, match="connection_removed"):
            rotate(stack)
        with pytest.raises(Rejected, match="connection_removed"):
            rotation.expire(stack.table, VAULT, NAME)
        assert platform.calls == []

    def test_rotate_connection_recreated_meanwhile_is_refused(self, stack: Cloud, platform: LeadConnector) -> None:
        connect(stack)

        class Remade:
            def pop(self, _: int) -> Any:
                platform.before = []
                found = item(stack) | {"secret_id": "portaria/grants/another"}
                stack.table.put(found)
                return 200, {}, '{"location": {}}'

        platform.before = Remade()  # type: ignore[assignment]
        with pytest.raises(Rejected, match="connection_changed"):
            rotate(stack)
        assert item(stack)["generation"] == 1

    @pytest.mark.parametrize("operation", ["UpdateSecretVersionStage", "UpdateItem"])
    def test_rotate_aws_call_repeated_after_lost_answer_succeeds(
        self, stack: Cloud, platform: LeadConnector, monkeypatch: pytest.MonkeyPatch, operation: str
    ) -> None:
        """botocore repeats the request by itself; the second one finds the result of the first."""
        connect(stack)
        call = BaseClient._make_api_call

        def twice(client: Any, name: str, parameters: dict[str, Any]) -> Any:
            commit = "generation" in json.dumps(parameters.get("UpdateExpression", ""))
            if name == operation and (name == "UpdateSecretVersionStage" or commit):
                call(client, name, parameters)
            return call(client, name, parameters)

        monkeypatch.setattr(BaseClient, "_make_api_call", twice)
        assert rotate(stack).generation == 2
        monkeypatch.setattr(BaseClient, "_make_api_call", call)
        assert in_use(stack) == NEW
        assert labels(stack)["AWSCURRENT"] == now_of(stack).version_id

    def test_rotation_lease_is_longer_than_function_timeout(self) -> None:
        assert resources("AWS::Serverless::Function")["ManageFunction"]["Properties"]["Timeout"] < rotation.LEASE_S


WAYS: dict[str, Any] = {
    "rotate": rotate,
    "rotate now": lambda stack: rotate(stack, expire_now=True),
    "replace": replace,
    "expire": lambda stack: rotation.expire(stack.table, VAULT, NAME),
    "refused": lambda stack: rotate(stack, "pit-canary-dead"),
}


class TestCrashes:
    @pytest.mark.parametrize(
        ("way", "again"),
        [
            ("rotate", "rotate"),
            ("rotate now", "replace"),
            ("replace", "rotate"),
            ("expire", "rotate now"),
            ("refused", "rotate"),
        ],
    )
    def test_rotation_killed_at_any_call_keeps_credentials_usable(
        self, shared: Cloud, platform: LeadConnector, later: Any, way: str, again: str
    ) -> None:
        """A crash after one call equals a crash before the next: nothing happens between them."""
        for number in range(1, 40):
            empty()
            self._prepare(shared, way)
            died = False
            try:
                with outgoing(Calls(number, "after")):
                    WAYS[way](shared)
            except Died:
                died = True
            except Rejected:
                assert way == "refused"
            if not died:
                empty()
                assert number > 3
                return
            self._check_usable(shared, way, number)
            later(timedelta(seconds=rotation.LEASE_S + 2))
            WAYS[again](shared)
            assert in_use(shared) == NEW, number
            assert labels(shared)["AWSCURRENT"] == now_of(shared).version_id
        pytest.fail("more calls than were looked at")

    def test_rotate_killed_twice_keeps_label_of_current_version(
        self, stack: Cloud, platform: LeadConnector, later: Any
    ) -> None:
        """Secrets Manager may delete versions without a label."""
        connect(stack)
        for token in (NEW, NEWER, "pit-canary-newest"):
            platform.good.add(token)
            self._die_after_promoting(stack, token)
            assert now_of(stack).version_id in labels(stack).values()
            assert in_use(stack) == OLD
            later(timedelta(seconds=rotation.LEASE_S + 2))
        rotate(stack)
        assert (in_use(stack), in_reserve(stack)) == (NEW, OLD)

    @staticmethod
    def _die_after_promoting(stack: Cloud, token: str) -> None:
        class Dying(Calls):
            def around(self, name: str, call: Any) -> Any:
                answer = call()
                if (
                    name.endswith("UpdateSecretVersionStage")
                    and now_of(stack).version_id != labels(stack)["AWSCURRENT"]
                ):
                    raise Died
                return answer

        with outgoing(Dying()), pytest.raises(Died):
            rotate(stack, token)

    @staticmethod
    def _prepare(stack: Cloud, way: str) -> None:
        connect(stack)
        if way == "expire":
            rotate(stack, NEWER)

    @staticmethod
    def _check_usable(stack: Cloud, way: str, number: int) -> None:
        now = now_of(stack)
        assert in_use(stack) in {"expire": {NEWER}, "refused": {OLD}}.get(way, {OLD, NEW}), number
        assert now.state == "connected"
        assert now.version_id in labels(stack).values(), number
        if in_use(stack) == OLD:
            assert now.generation == 1
