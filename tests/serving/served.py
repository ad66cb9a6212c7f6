"""A real listener with real sockets, in a thread of its own, over fake ladders."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from flyball.control_api import DaemonInfo
from flyball.errors import NotFoundError
from flyball.ports import (
    AcceleratorInfo,
    Decision,
    EnergyTotal,
    GovernorFigures,
    InferRequest,
    Interface,
    Pin,
    PublicTensor,
    Quantity,
    Reading,
    ReloadReport,
    SensorHealth,
    Stats,
    SwitchReport,
    Tensor,
    UplinkStatus,
)
from flyball.serving.body import Intake
from flyball.serving.control import Controls, control_app
from flyball.serving.guard import Guard
from flyball.serving.http import HttpApi, metrics_app
from flyball.serving.listen import Listener, Listeners, Patience
from flyball.serving.metrics import Metrics
from flyball.serving.rate import RateLimit
from flyball.serving.sockets import ControlSocket, bind_tcp
from flyball.testing import FakeCatalog, FakeClock, FakeLadder

T = TypeVar("T")

LIMIT = 256 << 10  # max_input_bytes of every fake ladder

IMAGE = Interface(
    task="image-classification",
    inputs=(PublicTensor(name="image", datatype="UINT8", shape=(-1, -1, 3), alternative=("BYTES", (1,))),),
    outputs=(
        PublicTensor(name="scores", datatype="FP32", shape=(2,)),
        PublicTensor(name="labels", datatype="BYTES", shape=(2,)),
    ),
)


def scored(request: InferRequest) -> tuple[Tensor, ...]:
    labels = b"".join(struct.pack("<I", len(x)) + x for x in ("chat é".encode(), b"dog"))
    return (
        Tensor("scores", "FP32", (2,), struct.pack("<2f", 0.1, 0.9)),
        Tensor("labels", "BYTES", (2,), labels),
    )


class FakeReadings:
    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.sensors: list[SensorHealth] = []

    def latest(self) -> Sequence[Reading]:
        return tuple(self.readings)

    def window(self, quantity: Quantity, seconds: float, name: str | None = None) -> Stats | None:
        return None

    def health(self) -> Sequence[SensorHealth]:
        return tuple(self.sensors)


class FakeEnergy:
    def __init__(self) -> None:
        self.total: EnergyTotal | None = None
        self.each: dict[tuple[str, str], float] = {}
        self.idle: float | None = None

    def energy(self) -> EnergyTotal | None:
        return self.total

    def joules_per_inference(self, ladder: str, rung: str) -> float | None:
        return self.each.get((ladder, rung))

    def net_joules_per_inference(self, ladder: str, rung: str) -> float | None:
        spent_j = self.each.get((ladder, rung))
        return None if spent_j is None or self.idle is None else spent_j / 2

    def idle_w(self) -> float | None:
        return self.idle


class FakeSteering:
    def __init__(self) -> None:
        self.pinned: list[tuple[str, str, float | None, bool]] = []
        self.released: list[str] = []
        self.taken: list[Decision] = []

    async def pin(self, ladder: str, rung: str, for_s: float | None, force: bool = False) -> SwitchReport | None:
        if rung == "missing":
            raise NotFoundError(f"ladder {ladder}: no rung 'missing'")
        self.pinned.append((ladder, rung, for_s, force))
        if rung == "large":
            return None
        return SwitchReport(ladder=ladder, source="large", target=rung, open_s=0.1, warm_s=0.2, gap_s=0.0)

    async def release(self, ladder: str) -> None:
        self.released.append(ladder)

    def decisions(self, ladder: str | None = None) -> Sequence[Decision]:
        return [d for d in self.taken if ladder in (None, d.ladder)]


class FakeReloading:
    async def reload(self) -> ReloadReport:
        return ReloadReport(applied=("governor.limits",), problems=("ladder.x: no such folder",))


class FakeProbing:
    async def devices(self) -> Sequence[AcceleratorInfo]:
        return (AcceleratorInfo(backend="onnx", kind="cpu", id="cpu"),)


async def nothing_to_record() -> AsyncGenerator[bytes, None]:
    return
    yield b""


@dataclass
class World:
    """Everything that the daemon would bring."""

    ladders: list[FakeLadder] = field(default_factory=list)
    readings: FakeReadings = field(default_factory=FakeReadings)
    energy: FakeEnergy = field(default_factory=FakeEnergy)
    steering: FakeSteering = field(default_factory=FakeSteering)
    pins: list[Pin] = field(default_factory=list)
    uplink: UplinkStatus | None = None
    governed: GovernorFigures = field(default_factory=GovernorFigures)
    recording: Callable[[], AsyncGenerator[bytes, None]] = nothing_to_record
    clock: FakeClock = field(default_factory=FakeClock)
    intake: Intake = field(default_factory=lambda: Intake(8 << 20))
    rate: RateLimit | None = None

    def catalog(self) -> FakeCatalog:
        return FakeCatalog(*self.ladders)

    def metrics(self) -> Metrics:
        uplink = self.uplink
        return Metrics(
            self.catalog(), self.readings, self.energy, None if uplink is None else lambda: uplink,
            governor=lambda: self.governed,
        )  # fmt: skip

    def api(self, *, allow_pin: bool = True) -> HttpApi:
        return HttpApi(
            self.catalog(), self.metrics(), lambda name: LIMIT, self.intake, allow_pin=allow_pin, rate=self.rate
        )

    def control(self) -> HttpApi:
        uplink = self.uplink
        controls = Controls(
            catalog=self.catalog(),
            readings=self.readings,
            energy=self.energy,
            steering=self.steering,
            pins=lambda: self.pins,
            reloading=FakeReloading(),
            probing=FakeProbing(),
            info=lambda: DaemonInfo(version="1.2", device="box", board="Test Board", mode="observe"),
            recording=self.recording,
            clock=self.clock,
            started_s=self.clock.monotonic_s() - 5,
            uplink=None if uplink is None else lambda: uplink,
        )
        return control_app(controls, self.metrics(), lambda name: LIMIT, self.intake)


class Served:
    """Listeners in a thread. `port` serves the protocol, `metrics_port` metrics alone, `path` control."""

    def __init__(self, world: World, path: Path, patience: Patience, *, allow_pin: bool = True) -> None:
        self.path = path
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.thread_id = self._thread.native_id
        http, metrics = bind_tcp("127.0.0.1:0", "serving.http"), bind_tcp("127.0.0.1:0", "serving.metrics")
        self.port: int = http[0].getsockname()[1]
        self.metrics_port: int = metrics[0].getsockname()[1]
        self.control = ControlSocket(path)
        self.listeners = Listeners(
            [
                Listener(http, Guard(world.api(allow_pin=allow_pin), ["box.local"])),
                Listener(metrics, Guard(metrics_app(world.metrics()))),
                Listener([self.control.listener], world.control()),
            ],
            patience,
        )
        self.run(self.listeners.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def soon(self, call: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(call)

    def stop(self) -> None:
        if self._thread.is_alive():
            self.run(self.listeners.stop())
            self.control.remove()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    # ------------------------------------------------------------------------------------------------------ clients

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: object = None, status: int = 200) -> Any:
        response, reply = self.ask(method, path, None if body is None else json.dumps(body))
        assert response.status == status, reply
        assert response.headers["content-type"] == "application/json"
        return json.loads(reply)

    def error(self, status: int, method: str, path: str, *args: Any) -> str:
        """The error text of a request that must fail with `status`."""
        response, reply = self.ask(method, path, *args)
        assert response.status == status, reply
        (key, text), *rest = json.loads(reply).items()
        assert (key, rest) == ("error", [])
        return str(text)

    def raw(self, *parts: bytes, timeout_s: float = 10) -> bytes:
        """Everything that comes back for `parts`, after which this side of the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            return received


def infer_body(
    name: str, datatype: str, shape: Sequence[int], data: bytes, **parameters: object
) -> tuple[bytes, dict[str, str]]:
    """A binary request of one tensor, and its header."""
    tensor = {"name": name, "datatype": datatype, "shape": list(shape), "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True, **parameters}}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}
