"""KMS: data keys and their encryption contexts."""

from __future__ import annotations

from typing import Any

from tests.aws.expectations import MEMORY, MINISTACK, MOTO, Expectation, content, refusal
from tests.aws.stand_ins import Aws

CONTEXT = {"connection": "one"}
BROKEN = "InvalidCiphertextException"
MISSING_KEY = "00000000-0000-4000-8000-000000000000"


def kms(test: str) -> str:
    return f"test_kms::{test}"


def _data_key(aws: Aws, key_id: str = "") -> dict[str, Any]:
    answer = aws.kms.generate_data_key(KeyId=key_id or aws.key_id, KeySpec="AES_256", EncryptionContext=CONTEXT)
    return content(answer)


def _members(aws: Aws) -> Any:
    made = _data_key(aws)
    return {"CiphertextBlob", "KeyId", "Plaintext"} <= set(made), len(made["Plaintext"]), made["KeyId"][:12]


def _opened(aws: Aws) -> Any:
    made = _data_key(aws)
    answer = aws.kms.decrypt(KeyId=aws.key_id, CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
    return answer["Plaintext"] == made["Plaintext"], answer["KeyId"] == made["KeyId"]


def _decrypt(aws: Aws, blob: bytes | None = None, **more: Any) -> str:
    return refusal(
        aws.kms.decrypt,
        CiphertextBlob=_data_key(aws)["CiphertextBlob"] if blob is None else blob,
        **{"KeyId": aws.key_id, **more},
    )


def _other_key(aws: Aws) -> str:
    other = aws.kms.create_key()["KeyMetadata"]["KeyId"]
    return _decrypt(aws, KeyId=other, EncryptionContext=CONTEXT)


def _missing_key(aws: Aws, key_id: str) -> str:
    return refusal(aws.kms.generate_data_key, KeyId=key_id, KeySpec="AES_256", EncryptionContext=CONTEXT)


EXPECTATIONS = (
    Expectation(
        "kms_data_key_comes_with_its_key_arn",
        kms("TestKMSGenerateKeys::test_generate_data_key::generate-data-key-result"),
        _members,
        (True, 32, "arn:aws:kms:"),
    ),
    Expectation(
        "kms_data_key_opens_in_its_context",
        kms("TestKMS::test_encrypt_decrypt_encryption_context::decrypt_response_with_encryption_context"),
        _opened,
        (True, True),
    ),
    Expectation(
        "kms_data_key_does_not_open_without_its_context",
        kms("TestKMSGenerateKeys::test_encryption_context_generate_data_key::decrypt-without-encryption-context"),
        _decrypt,
        BROKEN,
    ),
    Expectation(
        "kms_data_key_does_not_open_in_another_context",
        "https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html",
        lambda aws: _decrypt(aws, EncryptionContext={"connection": "two"}),
        BROKEN,
    ),
    Expectation(
        "kms_text_that_is_no_ciphertext_does_not_open",
        kms("TestKMS::test_encrypt_decrypt_encryption_context::decrypt_response_with_invalid_ciphertext"),
        lambda aws: _decrypt(aws, b"no ciphertext", EncryptionContext=CONTEXT),
        BROKEN,
    ),
    Expectation(
        "kms_data_key_does_not_open_with_another_key",
        kms("TestKMS::test_re_encrypt_incorrect_source_key::incorrect-source-key"),
        _other_key,
        "IncorrectKeyException",
        lacks={MEMORY: "the in-memory AWS has one key"},
        differs={MOTO: "AccessDeniedException", MINISTACK: ""},
    ),
    Expectation(
        "kms_missing_key_is_not_found",
        kms("TestKMS::test_get_key_does_not_exist::describe-nonexistent-key-with-id"),
        lambda aws: _missing_key(aws, MISSING_KEY),
        "NotFoundException",
    ),
    Expectation(
        "kms_key_id_that_is_no_uuid_is_not_found",
        kms("TestKMS::test_get_key_invalid_uuid::describe-key-with-invalid-uuid"),
        lambda aws: _missing_key(aws, "fake-key-id"),
        "NotFoundException",
    ),
)
