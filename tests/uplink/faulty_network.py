"""A network with faults between a device and its broker: a TCP proxy of our own, and a cable that can be pulled.

device -> FaultyNetwork (stall, reset, delay, bandwidth, half-open) -> broker
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import pytest


class FaultyNetwork:
    """Listens on `port` and passes everything on to `target`. An async context manager; its faults are attributes that
    may be set at any time."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._going = asyncio.Event()
        self._going.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.deaf = False  # half open: what the broker says is lost, what the device says arrives
        self.delay_s = 0.0  # each way
        self.bytes_per_s: float | None = None
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> FaultyNetwork:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Connections stay, and nothing passes. What was sent meanwhile comes later, or with a reset never."""
        self._going.clear()

    def go(self) -> None:
        self._going.set()

    def reset(self) -> None:
        """Every connection ends with a RST, on both sides."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for writer in pair:
                sock = writer.get_extra_info("socket")
                if sock is not None and sock.fileno() >= 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._pairs.append((writer, up_writer))
        for source, sink, of_broker in ((reader, up_writer, False), (up_reader, writer, True)):
            task = asyncio.ensure_future(self._pass(source, sink, of_broker))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, of_broker: bool) -> None:
        try:
            while data := await source.read(4096):
                await self._going.wait()
                if of_broker and self.deaf:
                    continue
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                if sink.is_closing():
                    return
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()


class Cable:
    """A virtual one from here to a network namespace, in which something listens at `address`."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Of this process alone: tests may run several times at once.
        subnet = f"10.213.{os.getpid() % 250}.{{}}"
        first = os.getpid() // 250 % 60 * 4
        self.near, self.address = subnet.format(first + 1), subnet.format(first + 2)

    def run(self, *words: str) -> list[str]:
        """The words of a command, inside."""
        return ["ip", "netns", "exec", self._name, *words]

    def pull(self) -> None:
        """Nothing passes, and nobody is told: there is no RST and no ICMP."""
        _ip("-n", self._name, "link", "set", f"{self._name}b", "down")

    def plug(self) -> None:
        _ip("-n", self._name, "link", "set", f"{self._name}b", "up")


@contextmanager
def cable() -> Iterator[Cable]:
    """Needs root; skips where the kernel or a container does not allow for it."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and iproute2")
    name = f"fbt{os.getpid() % 100000}"
    made = Cable(name)
    try:
        try:
            _ip("netns", "add", name)
            _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
            _ip("address", "add", f"{made.near}/30", "dev", f"{name}a")
            _ip("-n", name, "address", "add", f"{made.address}/30", "dev", f"{name}b")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("link", "set", f"{name}a", "up")
            made.plug()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"a network namespace is not permitted here: {error.stderr.strip()}")
        yield made
    finally:
        subprocess.run(["ip", "link", "del", f"{name}a"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)
