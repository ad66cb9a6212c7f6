"""Fakes of the ports, for tests of Flyball and of what is built on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from flyball.clock import Clock
from flyball.errors import NotFoundError
from flyball.ports import (
    UNITS,
    Answer,
    InferRequest,
    Interface,
    Ladder,
    LadderStatus,
    LadderTotals,
    LatencyWindow,
    PublicTensor,
    Quantity,
    Reading,
    RungStatus,
    SensorHealth,
    Stats,
    SwitchReport,
    Tensor,
    Timing,
)
from flyball.sensing.window import summarize

NO_TIME = Timing(queue_s=0.0, pre_s=0.0, run_s=0.0, post_s=0.0, total_s=0.0)
NO_TOTALS = LadderTotals(
    success=0, failure={}, executions=0, request_ns=0, queue_ns=0, pre_ns=0, run_ns=0, post_ns=0,
    answers_by_rung={}, switches={}, worker_restarts={}, latency_buckets={},
)  # fmt: skip


class FakeClock:
    """Implements clock.Clock; time passes only by `advance`."""

    def __init__(self, now_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._now_s = now_s
        self._wall_s = wall_s
        self._asleep_s = 0.0

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: its monotonic clock stands still."""
        self._asleep_s += seconds
        self._wall_s += seconds

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
        self._wall_s += seconds

    def monotonic_s(self) -> float:
        return self._now_s

    def boot_s(self) -> float:
        return self._now_s + self._asleep_s

    def wall_s(self) -> float:
        return self._wall_s


def echo(request: InferRequest) -> tuple[Tensor, ...]:
    """Every input back, as it came."""
    return request.inputs


class FakeLadder:
    """Implements ports.Ladder. `respond` makes the outputs; an exception in `error` is raised in its place. What
    was asked is in `requests` and `switched`. `details` says more of rungs than their state; `refusals` are raised
    by a switch to a rung, and `before_switch` is awaited first."""

    def __init__(
        self,
        name: str = "fake",
        version: str = "1",
        interface: Interface | None = None,
        respond: Callable[[InferRequest], tuple[Tensor, ...]] = echo,
        rungs: Sequence[str] = ("large", "small"),
    ) -> None:
        tensor = PublicTensor(name="x", datatype="FP32", shape=(-1,))
        self.name = name
        self.version = version
        self.interface = interface or Interface(task="tensor", inputs=(tensor,), outputs=(tensor,))
        self.respond = respond
        self.error: Exception | None = None
        self.active: str | None = rungs[0]
        self.rungs = tuple(rungs)
        self.requests: list[InferRequest] = []
        self.switched: list[tuple[str, str]] = []
        self.latency = LatencyWindow(rung=rungs[0], seconds=5.0, count=0, p50_s=None, p95_s=None, p99_s=None)
        self.counted = NO_TOTALS
        self.details: dict[str, RungStatus] = {}
        self.refusals: dict[str, Exception] = {}
        self.before_switch: Callable[[], Awaitable[object]] | None = None

    async def infer(self, request: InferRequest) -> Answer:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return Answer(outputs=self.respond(request), rung=request.rung or self.active or "", timing=NO_TIME)

    def status(self) -> LadderStatus:
        rungs = tuple(self._rung(name) for name in self.rungs)
        return LadderStatus(
            name=self.name,
            version=self.version,
            state="failed" if self.active is None else "ready",
            active=self.active,
            pending=0,
            rungs=rungs,
        )

    def _rung(self, name: str) -> RungStatus:
        if name == self.active:
            return msgspec.structs.replace(
                self.details.get(name, RungStatus(name=name, state="active")), state="active"
            )
        return self.details.get(name, RungStatus(name=name, state="closed"))

    def measure(self, p95_s: float | None, count: int = 50) -> None:
        """From now on the active rung's answers take this long, all of it work; None = there are none."""
        self.latency = LatencyWindow(
            rung=self.active or "",
            seconds=5.0,
            count=0 if p95_s is None else count,
            p50_s=p95_s,
            p95_s=p95_s,
            p99_s=p95_s,
            work_mean_s=p95_s,
            work_std_s=None if p95_s is None or count < 2 else 0.0,
        )

    def window(self, seconds: float, deadline_s: float | None = None) -> LatencyWindow | None:
        """Every answer is late when the 95th percentile is, unless `latency` says how many are."""
        if self.active is None or deadline_s is None or self.latency.late is not None:
            return None if self.active is None else self.latency
        late = self.latency.count if (self.latency.p95_s or 0.0) > deadline_s else 0
        return msgspec.structs.replace(self.latency, late=late)

    def totals(self) -> LadderTotals:
        return self.counted

    async def switch(self, rung: str, reason: str) -> SwitchReport:
        if rung not in self.rungs:
            raise NotFoundError(f"ladder {self.name}: no rung {rung!r}")
        if self.before_switch is not None:
            await self.before_switch()
        self.switched.append((rung, reason))
        if rung in self.refusals:
            raise self.refusals[rung]
        source, self.active = self.active, rung
        return SwitchReport(ladder=self.name, source=source, target=rung, open_s=0.0, warm_s=0.0, gap_s=0.0)


class FakeCatalog:
    """Implements ports.Catalog over the ladders it is given."""

    def __init__(self, *ladders: Ladder) -> None:
        self._ladders = {ladder.name: ladder for ladder in ladders}

    def get(self, name: str, version: str | None = None) -> Ladder:
        found = self._ladders.get(name)
        if found is None or version not in (None, found.version):
            raise NotFoundError(f"no ladder {name!r} is in service")
        return found

    def ladders(self) -> Sequence[Ladder]:
        return tuple(self._ladders.values())

    def add(self, ladder: Ladder) -> None:
        """In place of one with its name."""
        self._ladders[ladder.name] = ladder

    def remove(self, name: str) -> None:
        del self._ladders[name]


class FakeReadings:
    """Implements ports.Readings over the values it is given: `latest` tells them until they are lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest: dict[tuple[Quantity, str], Reading] = {}
        self._all: list[Reading] = []
        self.sensors: list[SensorHealth] = []

    def put(self, quantity: Quantity, value: float, name: str = "machine") -> None:
        reading = Reading(
            quantity=quantity,
            name=name,
            value=value,
            unit=UNITS[quantity],
            scope="machine",
            sensor="fake",
            t_s=self._clock.monotonic_s(),
        )
        self._latest[quantity, name] = reading
        self._all.append(reading)

    def lose(self, quantity: Quantity) -> None:
        self._latest = {key: reading for key, reading in self._latest.items() if key[0] != quantity}

    def latest(self) -> Sequence[Reading]:
        return tuple(self._latest.values())

    def window(self, quantity: Quantity, seconds: float, name: str | None = None) -> Stats | None:
        since_s = self._clock.monotonic_s() - seconds
        values = [r.value for r in self._all if r.quantity == quantity and name in (None, r.name) and r.t_s >= since_s]
        return summarize(values) if values else None

    def health(self) -> Sequence[SensorHealth]:
        return tuple(self.sensors)
