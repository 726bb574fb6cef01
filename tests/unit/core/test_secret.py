"""A Secret never shows its value, whatever is done with it."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import traceback
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from aws_lambda_powertools import Logger

from portaria.core import clock
from portaria.core.callbacks import OAuthCallback, Secret
from portaria.core.entities import Grant
from portaria.core.http.messages import Request

TEXT = "canary-secret-text"


@pytest.fixture
def secret() -> Secret:
    return Secret(TEXT)


def test_secret_reveal_returns_its_text(secret: Secret) -> None:
    assert secret.reveal() == TEXT
    assert bool(secret)
    assert not Secret("")


def test_secret_printed_or_formatted_is_masked(secret: Secret) -> None:
    shown = [
        *(str(secret), repr(secret), ascii(secret), format(secret, "s"), format(secret, ">40"), format(secret, ".3")),
        *(f"{secret}", f"{secret!s}", f"{secret!r}", f"{secret!a}", f"{secret:>40}", f"{secret:.3}"),
        *("%s" % secret, "%r" % secret, "%10s" % (secret,)),  # noqa: UP031 - as old code formats
        *(str([secret]), str({"token": secret}), str((secret,)), f"{ ({'a': [secret]}) }"),
    ]
    assert all("***" in text and "canary" not in text for text in shown)
    assert "canary" not in str(KeyError(secret)) + repr(ValueError("bad", secret))


def test_secret_json_dumps_is_refused(secret: Secret) -> None:
    with pytest.raises(TypeError) as refused:
        json.dumps({"token": secret})
    assert "canary" not in str(refused.value)
    assert json.dumps({"token": secret}, default=str) == '{"token": "***"}'


def test_secret_pickle_and_copy_are_refused(secret: Secret) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not serialised"):
            pickle.dumps(secret, protocol)
    for how in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not serialised"):
            how(secret)
    with pytest.raises(TypeError, match="not serialised"):
        asdict(Holder(secret))


@dataclass(frozen=True)
class Holder:
    token: Secret


def test_secret_has_no_attributes_or_sequence_methods(secret: Secret) -> None:
    assert not hasattr(secret, "__dict__")
    with pytest.raises(AttributeError):
        secret.other = 1  # type: ignore[attr-defined]
    for name in ("__len__", "__iter__", "__getitem__", "__add__", "__bytes__", "__contains__"):
        assert not hasattr(secret, name)


def test_secret_equality_does_not_compare_text(secret: Secret) -> None:
    as_text: object = TEXT
    assert secret != as_text
    assert secret != Secret(TEXT)
    assert hash(secret) != hash(TEXT)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.ERROR])
def test_secret_logged_is_masked(secret: Secret, level: int) -> None:
    stream = io.StringIO()
    logger = logging.Logger("secrets")
    logger.addHandler(logging.StreamHandler(stream))
    logger.log(level, "%s %r %s", secret, secret, {"token": secret})
    assert stream.getvalue().count("***") == 3
    assert "canary" not in stream.getvalue()


def test_secret_logged_by_powertools_is_masked(secret: Secret) -> None:
    stream = io.StringIO()
    logger = Logger(service="secrets", stream=stream)
    logger.append_keys(token=secret)
    logger.info({"token": secret, "list": [secret]}, other=secret)
    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("failed")
    assert "***" in stream.getvalue()
    assert "canary" not in stream.getvalue()


def test_secret_in_traceback_with_locals_is_masked(secret: Secret) -> None:
    def fail(credentials: Any) -> None:
        held = {"token": credentials}
        raise RuntimeError(f"failed with {held}")

    try:
        fail(secret)
    except RuntimeError as error:
        text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "held = {'token': ***}" in text
    assert TEXT not in text


def test_secret_holding_objects_repr_is_masked(secret: Secret) -> None:
    things: list[object] = [
        OAuthCallback(secret, "acme.kommo.com", "widget", secret),
        Grant(secret, clock.now(), secret),
        Request("POST", "https://acme.kommo.com/", {"Authorization": TEXT}, TEXT.encode()),
    ]
    for thing in things:
        assert "canary" not in f"{thing!r}{thing}"
