"""Fixtures that tests of several rooms share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_broker import Mosquitto

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The daemon's own event loop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real models and inputs, which are no part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real models are not on this machine: {SHARED_DATA} is missing")
    return SHARED_DATA


@pytest.fixture
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Running; skipped where it is not installed, unless FLYBALL_REQUIRE_BROKER=1."""
    executable = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if executable is None:
        message = "mosquitto is not installed; run: sudo apt-get install mosquitto"
        if os.environ.get("FLYBALL_REQUIRE_BROKER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    broker = Mosquitto(executable, tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker
    broker.stop()
