"""The stand-ins for AWS, each started at most once per test module."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from pytest_socket import enable_socket

from tests.aws import stand_ins
from tests.aws.stand_ins import Aws


@pytest.fixture(scope="module")
def moto() -> Iterator[Aws]:
    with stand_ins.moto() as aws:
        yield aws


@pytest.fixture(scope="module")
def memory() -> Aws:
    return stand_ins.in_memory()


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    enable_socket()
    folder: pathlib.Path = tmp_path_factory.mktemp("ministack")
    with stand_ins.ministack(folder) as aws:
        yield aws
