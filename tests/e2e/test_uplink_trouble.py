"""Serving goes on whatever the uplink meets: a broker that stalls, garbage, a full disk."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from real_daemon import Daemon

from flyball.ports import Tensor
from real_broker import Mosquitto

Start = Callable[..., Daemon]
LADDER = Path(__file__).resolve().parents[2] / "examples/defects/ladder"


@pytest.fixture
def stalling() -> Iterator[int]:
    """Takes every connection and the first bytes, accepts the MQTT session, and never says another word."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                taken, _ = listener.accept()
                taken.recv(1000)
                taken.sendall(b"\x20\x03\x00\x00\x00")
            except OSError:
                return
            held.append(taken)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()
    for taken in held:
        taken.close()


def uplink(port: int) -> str:
    return (
        f'[uplink]\nenabled = true\nbroker = "mqtt://127.0.0.1:{port}"\ntenant = "acme"\ndevice = "edge-1"\n'
        "keepalive_s = 10\ntelemetry_period_s = 0.1\nbatch_records = 2\n"
    )


def answered(daemon: Daemon, for_s: float) -> int:
    """Requests one after the other, none of which may fail or take seconds."""
    picture = Tensor("image", "UINT8", (64, 64, 3), np.zeros((64, 64, 3), np.uint8).tobytes())
    end_s, count = time.monotonic() + for_s, 0
    while time.monotonic() < end_s:
        began_s = time.monotonic()
        daemon.client.infer("defects", [picture])
        assert time.monotonic() - began_s < 3
        count += 1
    return count


def linked(daemon: Daemon) -> bool:
    state = daemon.client.status().uplink
    return state is not None and state.connected


def test_requests_are_answered_while_the_broker_stalls(daemon: Start, stalling: int) -> None:
    running = daemon(uplink(stalling), (LADDER,)).until_ready()
    running.until(lambda: linked(running), "connected to what stalls")
    assert answered(running, 2.0) > 10
    # Nothing is acknowledged for a keep-alive of 10 s: it is noticed, and tried again.
    running.until(lambda: "has acknowledged nothing for 10 s" in running.log, "the stall is noticed", 30)
    assert answered(running, 1.0) > 5
    assert running.stop() == 0


def test_requests_are_answered_while_the_disk_is_full(daemon: Start, mosquitto: Mosquitto, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    state = tmp_path / "daemon0/state"
    state.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(state)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a tmpfs may not be mounted here: {done.stderr.strip()}")
    try:
        running = daemon(uplink(mosquitto.port), (LADDER,)).until_ready()
        running.until(lambda: linked(running), "connected")
        filler = state / "filler"
        with filler.open("wb", buffering=0) as sink:
            try:
                while sink.write(b"\0" * 4096):
                    pass
            except OSError:
                pass
        assert answered(running, 4.0) > 20
        filler.unlink()
        running.until(lambda: linked(running), "connected again")
        assert answered(running, 0.5) > 2
        assert running.stop() == 0
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)
