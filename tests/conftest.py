"""Fixtures that tests of several rooms share."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_broker import Mosquitto

HERE = Path(__file__).resolve().parent
SHARED_DATA = HERE.parents[1] / "shared" / "data"


_LONGEST_FIRST = ("e2e", "packaging", "demo", "fleet", "uplink", "cli")


def pytest_configure() -> None:
    """What a job in the background or `nohup` ignores, every program that a test starts would ignore, too. A handler
    that does nothing is not passed on to them, and the tests themselves still live on."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rooms with long tests come first: with two processes (`make test`) a long file at the end keeps one waiting."""
    rooms = {room: rank for rank, room in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: rooms.get(item.path.relative_to(HERE).parts[0], len(rooms)))


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
