"""No process outlives its test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from fleet_rig import LIVING


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    while LIVING:
        LIVING.pop().end(signal.SIGKILL)
