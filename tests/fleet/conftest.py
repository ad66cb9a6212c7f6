"""No process outlives its test, or the module whose tests share it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from fleet_rig import LIVING


def _end_all_but(kept: list[object]) -> None:
    for process in [p for p in LIVING if p not in kept]:
        process.end(signal.SIGKILL)
        LIVING.remove(process)


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_of_the_module() -> Iterator[None]:
    kept: list[object] = [*LIVING]
    yield
    _end_all_but(kept)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    kept: list[object] = [*LIVING]
    yield
    _end_all_but(kept)
