"""The watchdog hears of progress, and of nothing else."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from pathlib import Path

import pytest

from flyball.ops.notify import Notifier
from flyball.ops.watchdog import Heartbeats, Watchdog
from flyball.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_who_does_not_beat_in_time_is_stuck(clock: FakeClock) -> None:
    beats = Heartbeats(clock)
    beats.register("governor", 10)
    beats.register("sampler", 30)
    now_s = clock.monotonic_s()
    assert beats.check(now_s + 10) == []
    assert beats.check(now_s + 10.1) == ["governor"]
    assert beats.check(now_s + 31) == ["governor", "sampler"]
    clock.advance(31)
    beats.beat("governor")
    assert beats.stuck() == ["sampler"]
    beats.register("sampler", 30)  # begun anew
    assert beats.stuck() == []


def test_a_misspelt_heartbeat_is_an_error(clock: FakeClock) -> None:
    beats = Heartbeats(clock)
    beats.register("governor", 10)
    with pytest.raises(KeyError, match="'governer' beats, but was not registered"):
        beats.beat("governer")


def test_beats_come_from_any_thread(clock: FakeClock) -> None:
    beats = Heartbeats(clock)
    beats.register("sampler", 10)
    clock.advance(60)
    thread = threading.Thread(target=beats.beat, args=("sampler",))
    thread.start()
    thread.join(5)
    assert beats.stuck() == []


def test_silence_while_something_is_stuck_and_one_line_at_each_turn(
    clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setblocking(False)
        beats = Heartbeats(clock)
        beats.register("governor", 10)
        watchdog = Watchdog(Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000"}), beats)
        assert watchdog.look()
        assert manager.recv(100) == b"WATCHDOG=1"
        clock.advance(11)
        with caplog.at_level(logging.WARNING):
            assert not watchdog.look()
            assert not watchdog.look()
            with pytest.raises(BlockingIOError):
                manager.recv(100)
            beats.beat("governor")
            assert watchdog.look()
        assert manager.recv(100) == b"WATCHDOG=1"
    said = [r.getMessage() for r in caplog.records]
    assert said == [
        "no progress in: governor; the service manager is not told that all is well",
        "there is progress in governor again",
    ]


@pytest.mark.anyio
async def test_pets_three_times_per_period(clock: FakeClock, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "150000"})
        task = asyncio.ensure_future(Watchdog(notifier, Heartbeats(clock)).run())
        loop = asyncio.get_running_loop()
        times = []
        for _ in range(4):
            assert await asyncio.wait_for(loop.sock_recv(manager, 100), 5) == b"WATCHDOG=1"
            times.append(loop.time())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert times[3] - times[0] >= 0.1  # not faster than asked; a busy machine may be slower


@pytest.mark.anyio
async def test_without_a_watchdog_there_is_nothing_to_run(clock: FakeClock) -> None:
    await asyncio.wait_for(Watchdog(Notifier({}), Heartbeats(clock)).run(), 5)
