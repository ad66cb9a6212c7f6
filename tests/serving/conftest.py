"""A served world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from served import IMAGE, Served, World, scored

from flyball.serving.listen import Patience
from flyball.testing import FakeLadder

PATIENCE = Patience(drain_s=2)


@pytest.fixture
def world() -> World:
    return World(ladders=[FakeLadder("image", "3", IMAGE, scored), FakeLadder("echo")])


@pytest.fixture
def serve(world: World, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts listeners over the world as it is then."""
    started: list[Served] = []

    def start(patience: Patience = PATIENCE, *, allow_pin: bool = True) -> Served:
        started.append(Served(world, tmp_path / f"{len(started)}.sock", patience, allow_pin=allow_pin))
        return started[-1]

    yield start
    for served in started:
        served.stop()


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()
