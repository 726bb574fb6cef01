"""Secrets Manager: moves of staging labels, missing versions, secrets that are scheduled for deletion."""

from __future__ import annotations

import uuid
from typing import Any

from tests.aws.expectations import MINISTACK, MOTO, Expectation, content, refusal
from tests.aws.stand_ins import Aws

MISSING, EXISTS, INVALID = "ResourceNotFoundException", "ResourceExistsException", "InvalidRequestException"
PUT_PAGE = "https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html"
CREATE_PAGE = "https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html"
STAGE_PAGE = "https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html"


def secrets(test: str) -> str:
    return f"test_secretsmanager::TestSecretsManager::{test}"


class Written:
    """A secret whose versions are numbered in order; the first one, created with the secret, is 1."""

    def __init__(self, aws: Aws) -> None:
        self.client = aws.secrets
        self.name = aws.fresh("secret")
        self.versions = [str(self.client.create_secret(Name=self.name, SecretString="value-1")["VersionId"])]

    def put(self, *labels: str) -> Written:
        more = {"VersionStages": list(labels)} if labels else {}
        answer = self.client.put_secret_value(
            SecretId=self.name, SecretString=f"value-{len(self.versions) + 1}", ClientRequestToken=_token(), **more
        )
        self.versions.append(answer["VersionId"])
        return self

    def move(self, label: str, *, to: int, of: int) -> Written:
        self.client.update_secret_version_stage(
            SecretId=self.name,
            VersionStage=label,
            MoveToVersionId=self.versions[to - 1],
            RemoveFromVersionId=self.versions[of - 1],
        )
        return self

    def take(self, label: str, *, of: int) -> Written:
        self.client.update_secret_version_stage(
            SecretId=self.name, VersionStage=label, RemoveFromVersionId=self.versions[of - 1]
        )
        return self

    def labels(self) -> dict[int, set[str]]:
        """The labels of each version that has labels."""
        stages = self.client.describe_secret(SecretId=self.name)["VersionIdsToStages"]
        return {self.versions.index(version) + 1: set(labels) for version, labels in stages.items() if labels}

    def value(self, **which: str) -> tuple[str, set[str]]:
        answer = self.client.get_secret_value(SecretId=self.name, **which)
        return answer["SecretString"], set(answer["VersionStages"])


def _token() -> str:
    return str(uuid.uuid4())


def _get(aws: Aws, **which: str) -> str:
    return refusal(aws.secrets.get_secret_value, SecretId=Written(aws).name, **which)


def _mismatch(aws: Aws) -> str:
    written = Written(aws).put()
    which = {"VersionId": written.versions[0], "VersionStage": "AWSCURRENT"}
    return refusal(aws.secrets.get_secret_value, SecretId=written.name, **which)


def _again(aws: Aws, text: str) -> Any:
    """A put with a token that was used before."""
    written, token = Written(aws), _token()
    put = {"SecretId": written.name, "ClientRequestToken": token, "VersionStages": ["AWSPENDING"]}
    aws.secrets.put_secret_value(SecretString="value", **put)
    code = refusal(aws.secrets.put_secret_value, SecretString=text, **put)
    return code, aws.secrets.get_secret_value(SecretId=written.name, VersionId=token)["SecretString"]


def _create_again(aws: Aws, text: str, token: str) -> Any:
    name = aws.fresh("secret")
    first = _token()
    aws.secrets.create_secret(Name=name, SecretString="value", ClientRequestToken=first)
    return refusal(aws.secrets.create_secret, Name=name, SecretString=text, ClientRequestToken=token or first)


def _deleted(aws: Aws) -> Written:
    written = Written(aws)
    aws.secrets.delete_secret(SecretId=written.name, RecoveryWindowInDays=7)
    return written


def _create_while_deleted(aws: Aws) -> str:
    return refusal(aws.secrets.create_secret, Name=_deleted(aws).name, SecretString="value")


def _recreate(aws: Aws) -> Any:
    written = Written(aws)
    aws.secrets.delete_secret(SecretId=written.name, ForceDeleteWithoutRecovery=True)
    answer = aws.secrets.create_secret(Name=written.name, SecretString="value-2")
    return answer["Name"] == written.name, answer["VersionId"] in written.versions


def _describe_deleted(aws: Aws) -> Any:
    written = _deleted(aws)
    answer = aws.secrets.describe_secret(SecretId=written.name)
    forced = refusal(aws.secrets.delete_secret, SecretId=written.name, ForceDeleteWithoutRecovery=True)
    return "DeletedDate" in answer, written_labels(written, answer), forced


def written_labels(written: Written, answer: dict[str, Any]) -> dict[int, set[str]]:
    stages = answer.get("VersionIdsToStages", {})
    return {written.versions.index(version) + 1: set(labels) for version, labels in stages.items()}


def _restore(aws: Aws) -> Any:
    written = _deleted(aws)
    answer = content(aws.secrets.restore_secret(SecretId=written.name))
    return answer["Name"] == written.name, written.value()


def _answer_names(aws: Aws) -> Any:
    written = Written(aws)
    put = aws.secrets.put_secret_value(
        SecretId=written.name, SecretString="value-2", ClientRequestToken=_token(), VersionStages=["AWSPENDING"]
    )
    return set(content(put)) - {"ARN"}, put.get("VersionStages")


def _wrong_holder(aws: Aws) -> str:
    written = Written(aws).put("AWSPENDING").put()
    return refusal(
        aws.secrets.update_secret_version_stage,
        SecretId=written.name,
        VersionStage="AWSCURRENT",
        MoveToVersionId=written.versions[1],
        RemoveFromVersionId=written.versions[0],
    )


CURRENT, PREVIOUS, PENDING = "AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"

EXPECTATIONS = (
    Expectation(
        "secrets_put_makes_the_new_version_current_and_the_old_one_previous",
        secrets("test_deprecated_secret_version_stage::list_secret_version_ids_1"),
        lambda aws: Written(aws).put().labels(),
        {1: {PREVIOUS}, 2: {CURRENT}},
    ),
    Expectation(
        "secrets_second_put_takes_the_last_label_of_the_first_version",
        secrets("test_deprecated_secret_version_stage::list_secret_version_ids_2"),
        lambda aws: Written(aws).put().put().labels(),
        {2: {PREVIOUS}, 3: {CURRENT}},
    ),
    Expectation(
        "secrets_put_with_a_label_of_its_own_leaves_the_current_version",
        secrets("test_put_secret_value_with_version_stages::get_secret_value_res_1"),
        lambda aws: Written(aws).put("SAMPLESTAGE0", "SAMPLESTAGE1").value(),
        ("value-1", {CURRENT}),
    ),
    Expectation(
        "secrets_put_as_pending_leaves_the_current_version",
        secrets("test_put_secret_value_with_version_stages::get_secret_value_res_3"),
        lambda aws: Written(aws).put(PENDING).value(),
        ("value-1", {CURRENT}),
    ),
    Expectation(
        "secrets_put_answers_its_version_and_labels",
        secrets("test_put_secret_value_with_version_stages::put_secret_value_res_3"),
        _answer_names,
        ({"Name", "VersionId", "VersionStages"}, [PENDING]),
    ),
    Expectation(
        "secrets_labels_of_a_put_leave_their_version",
        secrets("test_non_versioning_version_stages_replacement::list_secret_version_ids_res_1"),
        lambda aws: Written(aws).put("one", "two", "three").put("one", "two", "three", "four").labels(),
        {1: {CURRENT}, 3: {"one", "two", "three", "four"}},
        differs={MINISTACK: {1: {CURRENT}, 2: {"one", "two", "three"}, 3: {"one", "two", "three", "four"}}},
    ),
    Expectation(
        "secrets_label_that_a_put_does_not_name_stays",
        secrets("test_non_versioning_version_stages_no_replacement::list_secret_version_ids_res_1"),
        lambda aws: Written(aws).put("one", "two", "three").put("one", "two", "four").labels(),
        {1: {CURRENT}, 2: {"three"}, 3: {"one", "two", "four"}},
        differs={MINISTACK: {1: {CURRENT}, 2: {"one", "two", "three"}, 3: {"one", "two", "four"}}},
    ),
    Expectation(
        "secrets_promotion_keeps_the_pending_label",
        secrets("test_update_secret_version_stages_current_pending::list_secret_version_ids_res_1"),
        lambda aws: Written(aws).put(PENDING).move(CURRENT, to=2, of=1).labels(),
        {1: {PREVIOUS}, 2: {CURRENT, PENDING}},
    ),
    Expectation(
        "secrets_put_after_a_promotion_ends_the_pending_label",
        secrets("test_update_secret_version_stages_current_pending::list_secret_version_ids_res_2"),
        lambda aws: Written(aws).put(PENDING).move(CURRENT, to=2, of=1).put().labels(),
        {2: {PREVIOUS}, 3: {CURRENT}},
        differs={
            MOTO: {1: {PREVIOUS}, 2: {CURRENT, PENDING}, 3: {CURRENT}},
            MINISTACK: {2: {PREVIOUS, PENDING}, 3: {CURRENT}},
        },
    ),
    Expectation(
        "secrets_pending_put_takes_the_label_of_the_promoted_version",
        secrets("test_update_secret_version_stages_current_pending_cycle::list_secret_version_ids_res_2"),
        lambda aws: Written(aws).put(PENDING).move(CURRENT, to=2, of=1).put(PENDING).labels(),
        {1: {PREVIOUS}, 2: {CURRENT}, 3: {PENDING}},
        differs={MINISTACK: {1: {PREVIOUS}, 2: {CURRENT, PENDING}, 3: {PENDING}}},
    ),
    Expectation(
        "secrets_second_promotion_moves_previous_on",
        secrets("test_update_secret_version_stages_current_pending_cycle::list_secret_version_ids_res_3"),
        lambda aws: Written(aws).put(PENDING).move(CURRENT, to=2, of=1).put(PENDING).move(CURRENT, to=3, of=2).labels(),
        {2: {PREVIOUS}, 3: {CURRENT, PENDING}},
        differs={MINISTACK: {2: {PREVIOUS, PENDING}, 3: {CURRENT, PENDING}}},
    ),
    Expectation(
        "secrets_labels_of_ones_own_stay_on_a_version_that_becomes_previous",
        secrets(
            "test_update_secret_version_stages_current_pending_cycle_custom_stages_1::list_secret_version_ids_res_3"
        ),
        lambda aws: (
            Written(aws)
            .put(PENDING, "AWSSOMETHING", "PUT1")
            .move(CURRENT, to=2, of=1)
            .put(PENDING, "PUT2")
            .move(CURRENT, to=3, of=2)
            .labels()
        ),
        {2: {PREVIOUS, "AWSSOMETHING", "PUT1"}, 3: {CURRENT, PENDING, "PUT2"}},
        differs={
            MINISTACK: {2: {PREVIOUS, PENDING, "AWSSOMETHING", "PUT1"}, 3: {CURRENT, PENDING, "PUT2"}},
        },
    ),
    Expectation(
        "secrets_version_with_a_label_of_its_own_outlives_previous",
        secrets(
            "test_update_secret_version_stages_current_pending_cycle_custom_stages_2::list_secret_version_ids_res_4"
        ),
        lambda aws: (
            Written(aws)
            .put(CURRENT, "PUT0")
            .put(PENDING, "PUT1")
            .move(CURRENT, to=3, of=2)
            .put(PENDING, "PUT2")
            .move(CURRENT, to=4, of=3)
            .labels()
        ),
        {2: {"PUT0"}, 3: {PREVIOUS, "PUT1"}, 4: {CURRENT, PENDING, "PUT2"}},
        differs={MINISTACK: {3: {PREVIOUS, PENDING, "PUT1"}, 4: {CURRENT, PENDING, "PUT2"}}},
    ),
    Expectation(
        "secrets_label_is_taken_from_the_current_version",
        secrets("test_update_secret_version_stages_current_pending_cycle_custom_stages_3::get_secret_value_v2_rs_2"),
        lambda aws: Written(aws).put("PENDING").move(CURRENT, to=2, of=1).take("PENDING", of=2).labels(),
        {1: {PREVIOUS}, 2: {CURRENT}},
    ),
    Expectation(
        "secrets_version_is_read_by_its_label",
        secrets("test_update_secret_version_stages_current_pending_cycle_custom_stages_3::get_secret_value_v2_rs"),
        lambda aws: Written(aws).put("PENDING").value(VersionStage="PENDING"),
        ("value-2", {"PENDING"}),
    ),
    Expectation(
        "secrets_move_from_a_version_without_the_label_is_refused",
        STAGE_PAGE,
        _wrong_holder,
        "InvalidParameterException",
    ),
    Expectation(
        "secrets_missing_secret_is_not_found",
        secrets("test_secret_not_found::get_secret_value_not_found_ex"),
        lambda aws: refusal(aws.secrets.get_secret_value, SecretId=aws.fresh("secret")),
        MISSING,
    ),
    Expectation(
        "secrets_label_that_no_version_has_is_not_found",
        secrets("test_get_secret_value_errors::error_get_secret_value_non_existing"),
        lambda aws: _get(aws, VersionStage=PREVIOUS),
        MISSING,
    ),
    Expectation(
        "secrets_version_without_the_asked_label_is_an_invalid_request",
        secrets("test_get_secret_value_errors::mismatch_version_id_and_stage"),
        _mismatch,
        INVALID,
        differs={MINISTACK: ""},
    ),
    Expectation(
        "secrets_existing_name_is_refused",
        secrets("test_secret_exists_snapshots::ex_log"),
        lambda aws: _create_again(aws, "other", _token()),
        EXISTS,
    ),
    Expectation(
        "secrets_create_again_with_the_same_token_and_content_is_accepted",
        CREATE_PAGE,
        lambda aws: _create_again(aws, "value", ""),
        "",
        differs={MINISTACK: EXISTS},
    ),
    Expectation(
        "secrets_create_again_with_the_same_token_and_other_content_is_refused",
        CREATE_PAGE,
        lambda aws: _create_again(aws, "other", ""),
        EXISTS,
    ),
    Expectation(
        "secrets_put_again_with_the_same_token_and_content_is_accepted",
        PUT_PAGE,
        lambda aws: _again(aws, "value"),
        ("", "value"),
    ),
    Expectation(
        "secrets_put_again_with_the_same_token_and_other_content_is_refused",
        PUT_PAGE,
        lambda aws: _again(aws, "other"),
        (EXISTS, "value"),
        differs={MOTO: ("", "other"), MINISTACK: ("", "other")},
    ),
    Expectation(
        "secrets_name_that_waits_for_its_removal_is_refused",
        secrets("test_exp_raised_on_creation_of_secret_scheduled_for_deletion::invalid_req_ex"),
        _create_while_deleted,
        INVALID,
        differs={MOTO: EXISTS, MINISTACK: EXISTS},
    ),
    Expectation(
        "secrets_name_is_free_after_a_forced_removal",
        secrets("test_can_recreate_delete_secret::create_secret_res_1"),
        _recreate,
        (True, False),
    ),
    Expectation(
        "secrets_describe_shows_the_removal_and_the_labels",
        secrets("test_force_delete_deleted_secret::describe_secret_response"),
        _describe_deleted,
        (True, {1: {CURRENT}}, ""),
    ),
    Expectation(
        "secrets_restored_secret_is_read_again",
        secrets("test_secret_restore::restore_secret_res"),
        _restore,
        (True, ("value-1", {CURRENT})),
    ),
)
