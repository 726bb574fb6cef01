"""The processes in which the long simulations run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest.mock import patch

import pytest

PROCESSES = 2


@pytest.fixture(scope="package")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Started once for all tests, because a process imports for a second before it can simulate anything."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        # The order of sets is part of what a seed decides. The first task starts all processes.
        with patch.dict(os.environ, PYTHONHASHSEED="0"):
            pool.submit(int).result()
        yield pool
