"""The vault on moto: stored values, the first writer, sealed values, and errors without secrets."""

from __future__ import annotations

import json
import traceback
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock, patch

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from portaria.aws import service_clients
from portaria.connections import vault
from portaria.connections.credential_stores import protocol, sealing
from portaria.connections.vault import Vault
from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected, Retryable
from tests.fakes.api.manage import secrets_stored
from tests.fakes.aws.moto_cloud import Cloud, cloud

CREDENTIALS = {"access_token": Secret("canary-access"), "refresh_token": Secret('canary-refresh ü \\ " \u2028')}
# Errors of Secrets Manager and KMS may quote the request.
QUOTING = ClientError({"Error": {"Code": "InternalServiceError", "Message": "canary-access"}}, "CreateSecret")
TIMED_OUT = ReadTimeoutError(endpoint_url="https://secretsmanager/?canary-access")


@pytest.fixture(scope="module")
def stack() -> Iterator[Cloud]:
    """One stack for the module. Each test has names of its own."""
    with cloud() as made:
        yield made


@pytest.fixture
def kept(stack: Cloud) -> Vault:
    return Vault(stack.environment["SECRETS_PREFIX"])


@pytest.fixture
def key_id(stack: Cloud) -> str:
    return stack.environment["SEALING_KEY_ID"]


def texts(credentials: vault.Credentials | None) -> dict[str, str]:
    assert credentials is not None
    return {name: secret.reveal() for name, secret in credentials.items()}


def test_vault_secret_ids_begin_with_prefix(kept: Vault) -> None:
    assert kept.grant_id("abc") == "portaria/grants/abc"
    assert kept.client_secret_id("kommo", "acme") == "portaria/oauth-clients/kommo/acme"


def test_vault_created_credentials_are_read_back(kept: Vault) -> None:
    kept.create("portaria/grants/round", CREDENTIALS)
    assert texts(kept.read("portaria/grants/round")) == texts(CREDENTIALS)


def test_vault_read_unknown_secret_is_none(kept: Vault) -> None:
    assert kept.read("portaria/grants/nobody") is None


def test_vault_create_twice_keeps_the_first(kept: Vault) -> None:
    kept.create("portaria/grants/twice", {"access_token": Secret("first")})
    kept.create("portaria/grants/twice", {"access_token": Secret("second")})
    assert texts(kept.read("portaria/grants/twice")) == {"access_token": "first"}


def test_vault_replace_twice_keeps_the_last(kept: Vault) -> None:
    for value in ("first", "second"):
        kept.replace("portaria/grants/replaced", {"client_secret": Secret(value)})
    assert texts(kept.read("portaria/grants/replaced")) == {"client_secret": "second"}


def test_vault_removed_secret_is_unreadable_and_restorable(kept: Vault) -> None:
    kept.create("portaria/grants/removed", CREDENTIALS)
    kept.remove("portaria/grants/removed")
    kept.remove("portaria/grants/removed")
    assert kept.read("portaria/grants/removed") is None
    boto3.client("secretsmanager").restore_secret(SecretId="portaria/grants/removed")
    assert texts(kept.read("portaria/grants/removed")) == texts(CREDENTIALS)


def test_vault_remove_at_once_frees_the_name(kept: Vault) -> None:
    kept.create("portaria/oauth-clients/kommo/gone", {"client_secret": Secret("old")})
    kept.remove("portaria/oauth-clients/kommo/gone", immediately=True)
    kept.remove("portaria/oauth-clients/kommo/gone", immediately=True)
    kept.create("portaria/oauth-clients/kommo/gone", {"client_secret": Secret("new")})
    assert kept.client_secret("kommo", "gone").reveal() == "new"


def test_vault_remove_unknown_secret_is_ignored(kept: Vault) -> None:
    before = secrets_stored()
    kept.remove("portaria/grants/nobody")
    assert secrets_stored() == before


def test_vault_client_secret_missing_names_the_client(kept: Vault) -> None:
    with pytest.raises(Rejected, match=r"no_client_secret: .*kommo/nobody") as refused:
        kept.client_secret("kommo", "nobody")
    assert refused.value.status == 409


@pytest.mark.parametrize("failure", [QUOTING, TIMED_OUT], ids=["refused", "silent"])
@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("get_secret_value", lambda: Vault("p").read("p/grants/x")),
        ("get_secret_value", lambda: Vault("p").client_secret("kommo", "acme")),
        ("create_secret", lambda: Vault("p").create("p/grants/x", CREDENTIALS)),
        ("create_secret", lambda: Vault("p").replace("p/grants/x", CREDENTIALS)),
        ("delete_secret", lambda: Vault("p").remove("p/grants/x")),
        ("generate_data_key", lambda: sealing.prepare_seal("key", {"install": "install"})),
        (
            "decrypt",
            lambda: sealing.unseal("key", {"install": "install"}, json.dumps({"key": "eA==", "sealed": "eA=="})),
        ),
    ],
)
def test_vault_aws_failure_is_retryable_and_exposes_no_secret(operation: str, call: Any, failure: Exception) -> None:
    client = MagicMock(**{f"{operation}.side_effect": failure})
    with (
        patch.object(service_clients, "client", return_value=client),
        pytest.raises(Retryable, match="vault_unavailable") as later,
    ):
        call()
    assert client.method_calls[-1][0] == operation
    text = "".join(traceback.format_exception(later.value))
    assert "canary" not in text.partition("The above exception")[0]
    assert "canary" not in text
    assert later.value.__suppress_context__


def test_vault_replace_secret_scheduled_for_deletion_is_retryable() -> None:
    """Secrets Manager refuses to create it; moto does not."""
    error = ClientError({"Error": {"Code": "InvalidRequestException", "Message": "canary"}}, "CreateSecret")
    client = MagicMock(**{"create_secret.side_effect": error})
    with (
        patch.object(service_clients, "client", return_value=client),
        pytest.raises(Retryable, match="InvalidRequestException"),
    ):
        Vault("p").replace("p/grants/waiting", CREDENTIALS)
    client.put_secret_value.assert_not_called()


def test_vault_credentials_and_seal_repr_hold_no_secret(kept: Vault, key_id: str) -> None:
    kept.create("portaria/grants/printed", CREDENTIALS)
    assert "canary" not in repr(kept.read("portaria/grants/printed"))
    seal = sealing.prepare_seal(key_id, {"install": "install-1"})
    key = b64decode(seal.key.reveal())
    assert len(key) == 32
    assert "key=***" in repr(seal)
    assert repr(key)[2:20] not in repr(seal)


def test_seal_sealed_credentials_are_unsealed_and_not_readable(key_id: str) -> None:
    sealed = sealing.prepare_seal(key_id, {"install": "install-1"}).seal(CREDENTIALS)
    assert "canary" not in sealed
    assert b"canary" not in b64decode(json.loads(sealed)["sealed"])
    assert texts(sealing.unseal(key_id, {"install": "install-1"}, sealed)) == texts(CREDENTIALS)


def test_seal_needs_no_aws_call(key_id: str) -> None:
    """Given the data key in memory, when the grant arrives, then sealing does not depend on a service."""
    seal = sealing.prepare_seal(key_id, {"install": "install-1"})
    with patch.object(service_clients, "client", side_effect=AssertionError("asked AWS")):
        assert seal.seal(CREDENTIALS)


def test_seal_twice_uses_different_nonces(key_id: str) -> None:
    seal = sealing.prepare_seal(key_id, {"install": "install-1"})
    first, second = (b64decode(json.loads(seal.seal(CREDENTIALS))["sealed"]) for _ in range(2))
    assert first[:12] != second[:12]
    assert first[12:] != second[12:]


def test_unseal_for_another_install_is_refused(key_id: str) -> None:
    sealed = sealing.prepare_seal(key_id, {"install": "install-1"}).seal(CREDENTIALS)
    with pytest.raises(Rejected, match="seal_broken"):
        sealing.unseal(key_id, {"install": "install-2"}, sealed)


@pytest.mark.parametrize("code", ["InvalidCiphertextException", "IncorrectKeyException"])
def test_unseal_with_key_of_another_stack_is_refused(key_id: str, code: str) -> None:
    # No stand-in refuses another key as KMS does: tests/aws/recorded/kms.py.
    sealed = sealing.prepare_seal(key_id, {"install": "install-1"}).seal(CREDENTIALS)
    client = MagicMock(**{"decrypt.side_effect": ClientError({"Error": {"Code": code, "Message": ""}}, "Decrypt")})
    with patch.object(service_clients, "client", return_value=client), pytest.raises(Rejected, match="seal_broken"):
        sealing.unseal(key_id, {"install": "install-1"}, sealed)


def test_vault_drop_label_already_removed_is_ignored(kept: Vault) -> None:
    # A put ends AWSPENDING of the previous version: tests/aws/recorded/secretsmanager.py.
    error = ClientError({"Error": {"Code": "InvalidParameterException", "Message": ""}}, "UpdateSecretVersionStage")
    client = MagicMock(**{"update_secret_version_stage.side_effect": error})
    with patch.object(service_clients, "client", return_value=client):
        kept.drop("portaria/grants/x", "version")
    client.update_secret_version_stage.assert_called_once()


def test_vault_add_existing_version_with_other_content_returns_false(kept: Vault) -> None:
    # moto and MiniStack replace the content: tests/aws/recorded/secretsmanager.py.
    error = ClientError({"Error": {"Code": "ResourceExistsException", "Message": ""}}, "PutSecretValue")
    client = MagicMock(**{"put_secret_value.side_effect": error})
    with patch.object(service_clients, "client", return_value=client):
        assert not kept.add("portaria/grants/x", "version", CREDENTIALS)


def test_unseal_for_another_install_is_refused_even_if_kms_decrypts(key_id: str) -> None:
    """Given a KMS that decrypts for anyone, then the opened value still names its owner."""
    seal = sealing.prepare_seal(key_id, {"install": "install-1"})
    generous = MagicMock(**{"decrypt.return_value": {"Plaintext": b64decode(seal.key.reveal())}})
    sealed = seal.seal(CREDENTIALS)
    with patch.object(service_clients, "client", return_value=generous):
        assert texts(sealing.unseal(key_id, {"install": "install-1"}, sealed)) == texts(CREDENTIALS)
        with pytest.raises(Rejected, match="seal_broken"):
            sealing.unseal(key_id, {"install": "install-2"}, sealed)


@pytest.mark.parametrize("position", [0, 11, 12, 40, -1])
def test_unseal_changed_seal_is_refused(key_id: str, position: int) -> None:
    parts = json.loads(sealing.prepare_seal(key_id, {"install": "install-1"}).seal(CREDENTIALS))
    changed = bytearray(b64decode(parts["sealed"]))
    changed[position] ^= 1
    parts["sealed"] = b64encode(bytes(changed)).decode()
    with pytest.raises(Rejected, match="seal_broken") as broken:
        sealing.unseal(key_id, {"install": "install-1"}, json.dumps(parts))
    assert "canary" not in "".join(traceback.format_exception(broken.value))


def test_seal_passes_encryption_context_to_kms() -> None:
    client = MagicMock()
    client.generate_data_key.return_value = {"CiphertextBlob": b"x", "Plaintext": b"y" * 32}
    client.decrypt.return_value = {"Plaintext": b"y" * 32}
    with patch.object(service_clients, "client", return_value=client):
        seal = sealing.prepare_seal("key", {"install": "install-1"})
        sealing.unseal("key", {"install": "install-1"}, seal.seal(CREDENTIALS))
    assert client.generate_data_key.call_args.kwargs == {
        "KeyId": "key",
        "KeySpec": "AES_256",
        "EncryptionContext": {"install": "install-1"},
    }
    assert client.decrypt.call_args.kwargs == {
        "KeyId": "key",
        "CiphertextBlob": b"x",
        "EncryptionContext": {"install": "install-1"},
    }


def test_vault_create_oversized_credentials_are_refused_with_limit(kept: Vault) -> None:
    large = {"access_token": Secret("x" * 65_600)}
    with pytest.raises(Rejected, match=r"credentials_too_large: .*65,536") as refused:
        kept.create("portaria/grants/large", large)
    assert refused.value.field == "credentials"
    assert kept.read("portaria/grants/large") is None


def test_vault_stage_too_many_versions_is_retryable_as_full() -> None:
    """Secrets Manager refuses the 101st version; moto does not."""
    error = ClientError({"Error": {"Code": "LimitExceededException", "Message": "canary"}}, "PutSecretValue")
    client = MagicMock(**{"put_secret_value.side_effect": error})
    with (
        patch.object(service_clients, "client", return_value=client),
        pytest.raises(Retryable, match="vault_full") as full,
    ):
        Vault("p").stage("p/grants/full", "v", CREDENTIALS)
    assert full.value.after_s == protocol.FULL_WAIT_S
    assert "canary" not in str(full.value)
