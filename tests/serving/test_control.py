"""The control interface and its client, over the real socket."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import msgspec
import pytest
from served import IMAGE, Served, World

from flyball.client import Client
from flyball.errors import (
    ControlError,
    DeadlineError,
    NotFoundError,
    QueueFullError,
    RequestError,
    TooLargeError,
    UnavailableError,
)
from flyball.governor.recording import Ended
from flyball.ports import (
    Decision,
    EnergyTotal,
    Pin,
    Reading,
    SensorHealth,
    Tensor,
    UplinkStatus,
)
from flyball.serving.listen import Patience
from flyball.testing import NO_TOTALS

VALUES = Tensor("x", "FP32", (3,), struct.pack("<3f", 0.1, float("nan"), -0.0))


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.path, timeout_s=10) as found:
        yield found


def ask(path: Path, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(str(path))
    try:
        # Neither a Host of ours nor an Origin matters here.
        connection.request(method, url, body, {"Host": "anything", "Origin": "http://evil.example"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def decision(ladder: str, t_s: float) -> Decision:
    return Decision(ladder=ladder, t_s=t_s, wall_s=0, action="down", source="large", target="small", reason="hot")


def test_status_brings_everything(world: World, serve: Callable[..., Served]) -> None:
    power = Reading(quantity="power", name="VDD", value=5, unit="W", scope="board", sensor="ina", t_s=3)
    world.readings.readings = [power]
    world.readings.sensors = [SensorHealth(sensor="ina", state="ok", cost_s=0.001, reads=3)]
    world.energy.total = EnergyTotal(joules=1, covered_s=2, scope="board", source="ina")
    world.energy.each = {("echo", "small"): 0.25}
    world.pins = [Pin(ladder="echo", rung="large", until_s=None)]
    world.uplink = UplinkStatus(connected=True, broker="mqtt://b", spool_bytes=3)
    world.ladders[1].counted = msgspec.structs.replace(
        NO_TOTALS, success=4, latency_buckets={0.001: 1, 0.0025: 3, float("inf"): 4}
    )
    status = Client(serve().path).status()
    assert (status.version, status.device, status.board, status.mode) == ("1.2", "box", "Test Board", "observe")
    assert status.uptime_s == 5
    assert status.readings == (power,)
    assert status.sensors == tuple(world.readings.sensors)
    assert status.energy == world.energy.total
    assert status.pins == tuple(world.pins)
    assert status.uplink == world.uplink
    image, echo = status.ladders
    assert (image.status, image.window) == (world.ladders[0].status(), world.ladders[0].latency)
    assert echo.totals.latency_buckets == {0.001: 1, 0.0025: 3}
    assert echo.totals.success == 4
    assert echo.joules_per_inference == {"small": 0.25}
    assert image.joules_per_inference == {}


def test_status_of_a_daemon_with_nothing(world: World, serve: Callable[..., Served]) -> None:
    world.ladders.clear()
    status = Client(serve().path).status()
    assert (status.ladders, status.energy, status.uplink) == ((), None, None)


def test_decisions(world: World, client: Client) -> None:
    world.steering.taken = [decision("echo" if i % 2 else "image", float(i)) for i in range(200)]
    assert [d.t_s for d in client.decisions()] == [float(i) for i in range(150, 200)]
    assert [d.t_s for d in client.decisions("echo", limit=2)] == [197.0, 199.0]
    with pytest.raises(NotFoundError, match="no ladder 'none'"):
        client.decisions("none")


@pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1e3", "10001", "9" * 5000, "%C2%B2"])
def test_bad_limits(served: Served, limit: str) -> None:
    status, reply = ask(served.path, "GET", f"/control/decisions?limit={limit}")
    assert (status, b"limit: expected a number" in reply) == (400, True)


class Tape:
    """Lines of a recording, one for each call of `say`; None ends it."""

    def __init__(self, *lines: bytes) -> None:
        self.waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.left = threading.Event()
        for line in lines:
            self.waiting.put_nowait(line)

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            while (line := await self.waiting.get()) is not None:
                yield line
        finally:
            self.left.set()


def test_a_recording_comes_line_by_line_until_the_reader_leaves(world: World, serve: Callable[..., Served]) -> None:
    long = b"x" * 300_000 + b"\n"
    world.recording = tape = Tape(b"one\n", long)
    served = serve()
    with contextlib.closing(Client(served.path, timeout_s=10).record()) as lines:
        assert next(lines) == b"one\n"
        assert next(lines) == long
        assert not tape.left.is_set()
    served.soon(lambda: tape.waiting.put_nowait(b"to nobody\n"))  # a closed socket shows when it is written to
    assert tape.left.wait(10)


def test_a_recording_ends_with_the_daemons_words_or_with_the_time(world: World, serve: Callable[..., Served]) -> None:
    end = msgspec.json.encode(Ended(why="enough")) + b"\n"
    world.recording = over = Tape(b"one\n", end)
    over.waiting.put_nowait(None)
    assert list(Client(serve().path, timeout_s=10).record()) == [b"one\n", end]
    silent = Tape(b"two\n")
    world.recording = silent
    served = serve()
    assert list(Client(served.path, timeout_s=10).record(0.3)) == [b"two\n"]
    served.soon(lambda: silent.waiting.put_nowait(b"to nobody\n"))
    assert silent.left.wait(10), "the connection was closed"


def test_a_recording_that_is_refused_and_one_whose_daemon_goes(world: World, serve: Callable[..., Served]) -> None:
    def refuse() -> AsyncGenerator[bytes, None]:
        raise UnavailableError("somebody else is recording")

    world.recording = refuse
    with pytest.raises(UnavailableError, match="somebody else is recording"):
        next(Client(serve().path, timeout_s=10).record())
    world.recording = Tape(b"one\n")
    served = serve(Patience(drain_s=0.1))
    lines = Client(served.path, timeout_s=10).record()
    assert next(lines) == b"one\n"
    served.stop()
    with pytest.raises(ControlError, match=r"the connection to the daemon on .* broke"):
        next(lines)


def test_holding_and_releasing_a_rung(world: World, client: Client) -> None:
    report = client.switch("echo", "small", 1.5)
    assert report is not None
    assert (report.source, report.target) == ("large", "small")
    assert client.switch("echo", "large", None, force=True) is None
    assert client.switch("echo", "auto") is None
    assert world.steering.pinned == [("echo", "small", 1.5, False), ("echo", "large", None, True)]
    assert world.steering.released == ["echo"]
    for ladder, rung in (("none", "small"), ("none", "auto"), ("echo", "missing"), ("../../v2", "small")):
        with pytest.raises(NotFoundError):
            client.switch(ladder, rung)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `rung`"),
        (b'{"rung": 1}', "Expected `str`"),
        (b'{"rung": "small", "for": 3}', "unknown field `for`"),
        (b'{"rung": "small", "for_s": "3"}', "Expected `float | null`"),
        (b'{"rung": "small", "for_s": 0}', "more than 0"),
        (b'{"rung": "small", "for_s": -3}', "more than 0"),
        (b'{"rung": "small", "for_s": NaN}', "malformed"),
        (b'{"rung": "auto", "for_s": 3}', "not with 'auto'"),
        (b'{"rung": "auto", "force": true}', "not with 'auto'"),
        (b'{"rung": "\xff"}', "utf-8"),
        (b'{"rung": ' + b"[" * 60_000, "Expected `str`"),
    ],
)
def test_orders_that_are_none(world: World, served: Served, body: bytes, says: str) -> None:
    status, reply = ask(served.path, "POST", "/control/ladders/echo/rung", body)
    assert status == 400
    assert says in json.loads(reply)["error"]
    assert world.steering.pinned == []


def test_a_large_order_is_refused(served: Served) -> None:
    assert ask(served.path, "POST", "/control/ladders/echo/rung", bytes(100_000))[0] == 413


def test_reload_devices_and_interface(client: Client) -> None:
    report = client.reload()
    assert (report.applied, report.problems) == (("governor.limits",), ("ladder.x: no such folder",))
    assert [d.kind for d in client.devices()] == ["cpu"]
    assert client.interface("image") == IMAGE
    with pytest.raises(NotFoundError):
        client.interface("none")


def test_the_socket_serves_the_protocol_too(served: Served) -> None:
    assert ask(served.path, "GET", "/v2/health/ready")[0] == 200
    assert ask(served.path, "GET", "/metrics")[0] == 200


# ------------------------------------------------------------------------------------------------------------- client


def test_inference_keeps_bits_and_the_connection(world: World, client: Client) -> None:
    for _ in range(3):
        answer = client.infer("echo", [VALUES], rung="small", timeout_s=2)
        assert answer.rung == "small"
        (output,) = answer.outputs
        assert (output.name, output.datatype, output.shape) == ("x", "FP32", (3,))
        assert bytes(output.data) == VALUES.data
    assert [(r.rung, r.timeout_s) for r in world.ladders[1].requests] == [("small", 2.0)] * 3
    assert client.infer("echo", [VALUES]).rung == "large"


def test_pinning_is_allowed_on_the_socket_whatever_tcp_allows(serve: Callable[..., Served]) -> None:
    served = serve(allow_pin=False)
    assert Client(served.path).infer("echo", [VALUES], rung="small").rung == "small"


def test_errors_come_back_as_what_they_were(world: World, client: Client) -> None:
    with pytest.raises(RequestError, match="input 'y' is unknown"):
        client.infer("echo", [Tensor("y", "FP32", (1,), bytes(4))])
    with pytest.raises(TooLargeError):
        client.infer("echo", [Tensor("x", "FP32", (1 << 20,), bytes(4 << 20))])
    for error in (QueueFullError("full"), UnavailableError("none"), DeadlineError("late")):
        world.ladders[1].error = error
        with pytest.raises(type(error), match=str(error)):
            client.infer("echo", [VALUES])
    world.ladders[1].error = ZeroDivisionError()
    with pytest.raises(ControlError, match="internal fault"):
        client.infer("echo", [VALUES])


def test_a_kept_connection_that_the_daemon_closed_is_opened_again(serve: Callable[..., Served]) -> None:
    served = serve(Patience(keep_alive_s=1, drain_s=1))
    client = Client(served.path, timeout_s=10)
    client.reload()
    kept = client._connection.sock
    assert kept is not None
    assert kept.recv(1, socket.MSG_PEEK) == b""  # waits for the daemon to close
    assert client.infer("echo", [VALUES]).rung == "large"
    client.close()


def test_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "flyball.sock"
    with pytest.raises(ControlError, match=f"the daemon is not running: {path}: there is no such socket; start it"):
        Client(path).status()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(ControlError, match=r"is not running: .*nobody listens"):
        Client(path).status()


def test_a_daemon_that_went_away(served: Served) -> None:
    client = Client(served.path, timeout_s=5)
    client.status()
    served.stop()
    with pytest.raises(ControlError, match="not running"):
        client.status()


def test_no_permission_tells_the_group(served: Served) -> None:
    """In a process of its own, which gives up root's rights where the tests have them."""
    script = (
        "import os, sys; from pathlib import Path; import flyball.client as c\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: c.Client(Path(sys.argv[1])).status()\n"
        "except c.ControlError as error: print(error)"
    )
    if os.geteuid() == 0:
        for folder in served.path.parents:
            if folder.stat().st_mode & 0o055 != 0o055:
                folder.chmod(folder.stat().st_mode | 0o055)
    else:
        served.path.chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", script, served.path], capture_output=True, text=True, timeout=20, check=True
    )
    group = grp.getgrgid(served.path.stat().st_gid).gr_name
    assert f"permission denied; members of the group '{group}' may use it" in done.stdout


def silent(path: Path, reply: bytes) -> threading.Thread:
    """A daemon that answers one request with `reply`, whatever it was."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(reply)
            connection.shutdown(socket.SHUT_WR) if reply else connection.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_daemon_that_hangs(tmp_path: Path) -> None:
    thread = silent(tmp_path / "s", b"")
    started_s = time.monotonic()
    client = Client(tmp_path / "s", timeout_s=0.3)
    with pytest.raises(ControlError, match=r"did not answer within 0.3 s"):
        client.status()
    assert time.monotonic() - started_s < 3
    thread.join(5)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "something else than expected.*another version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{]", "something else than expected"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "broke"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", "HTTP status 500"),
        (b"garbage\r\n\r\n", "broke"),
    ],
)
def test_a_daemon_of_another_kind(tmp_path: Path, reply: bytes, says: str) -> None:
    thread = silent(tmp_path / "s", reply)
    with pytest.raises(ControlError, match=says):
        Client(tmp_path / "s", timeout_s=5).status()
    thread.join(5)


def test_the_client_needs_no_event_loop_and_no_numpy() -> None:
    script = "import sys, flyball.client; print([m for m in ('asyncio', 'numpy', 'uvicorn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == "[]"


def test_serving_needs_no_numpy_and_nothing_of_the_command_line() -> None:
    script = (
        "import sys, flyball.serving.control, flyball.serving.guard, flyball.serving.listen\n"
        "import flyball.serving.metrics, flyball.serving.sockets\n"
        "print([m for m in ('numpy', 'typer', 'rich', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == "[]"
