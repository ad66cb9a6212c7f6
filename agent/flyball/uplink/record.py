"""One record of telemetry: what the machine and its ladders did in the last period.

Catalog, Readings, EnergyMeter -> Recorder() -> Record -> columns() -> what a batch holds

Reads what others have measured and measures nothing itself. None means not measured, and stays None: `rate_hz` of the
first record is unknown, and a percentile over no answers is unknown; neither is 0. What is kept of a figure is what it
is good for: three digits of a latency, 0.1 C, 1 MB. Digits beyond that are noise, and cost bytes in every record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from flyball.clock import Clock
from flyball.ports import Catalog, EnergyMeter, Ladder, Reading, Readings, Scope
from flyball.uplink.messages import Cell

MAX_COLUMNS = 256  # what a batch may have (batch.py); of more ladders than fit, the first by name are told of
MB = 1e6

# The most trustworthy first: what was measured nearest to the plug covers most of the machine.
POWER_SCOPES: Sequence[Scope] = ("wall", "machine", "board", "module", "soc", "chip", "rail", "estimated")


class LadderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Of one ladder: the active rung, its latency in the window, and what was answered since the last record."""

    state: str
    rung: str | None
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    rate_hz: float | None = None
    errors: int | None = None
    pending: int | None = None
    energy_per_inference_j: float | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    ts: float
    mono: float
    power_w: float | None = None
    power_scope: str | None = None
    energy_j: float | None = None  # since the daemon's start
    temperature_c: float | None = None  # of the hottest zone
    temperature_coolest_c: float | None = None  # nearest to what is around the machine; None with a single zone
    cpu_ratio: float | None = None
    memory_available_b: float | None = None
    memory_used_b: float | None = None
    memory_workers_b: float | None = None  # resident, of all workers
    load_1m: float | None = None
    load: float | None = None  # of the whole machine in one figure, 0 to 1 (governor.load weighs it)
    frequency_hz: float | None = None  # of the fastest clock
    throttled: str | None = None  # the causes that hold now, joined by commas; "" when nothing does
    spool_b: int | None = None  # what waits on the disk for the broker
    uptime_s: int | None = None  # of the daemon
    ladders: dict[str, LadderRecord] = {}


class Recorder:
    """`window_s` is what the percentiles cover; the telemetry period is the natural choice. `load` makes one figure of
    the newest readings, or None when it cannot."""

    def __init__(
        self,
        catalog: Catalog,
        readings: Readings,
        energy: EnergyMeter | None,
        clock: Clock,
        window_s: float,
        load: Callable[[Sequence[Reading]], float | None] = lambda readings: None,
    ) -> None:
        self._catalog = catalog
        self._readings = readings
        self._energy = energy
        self._clock = clock
        self._window_s = window_s
        self._load = load
        self._started_s = clock.boot_s()
        self._before: dict[tuple[str, str], tuple[float, int, int]] = {}  # ladder -> when, answers, errors

    def __call__(self) -> Record:
        latest = self._readings.latest()
        power = _power(latest)
        energy = self._energy.energy() if self._energy else None
        zones = sorted(r.value for r in latest if r.quantity == "temperature")
        ladders = self._catalog.ladders()
        here = {(ladder.name, ladder.version) for ladder in ladders}
        self._before = {key: before for key, before in self._before.items() if key in here}
        return Record(
            ts=round(self._clock.wall_s(), 3),
            mono=round(self._clock.boot_s(), 3),
            power_w=rounded(power.value if power else None, 2),
            power_scope=power.scope if power else None,
            energy_j=rounded(energy.joules if energy else None, 1),
            temperature_c=rounded(zones[-1] if zones else None, 1),
            temperature_coolest_c=rounded(zones[0] if len(zones) > 1 else None, 1),
            cpu_ratio=rounded(_value(latest, "cpu_utilization"), 2),
            memory_available_b=to_mega(_value(latest, "memory_available")),
            memory_used_b=to_mega(_value(latest, "memory_used")),
            memory_workers_b=to_mega(_resident(ladders)),
            load_1m=rounded(_value(latest, "load_1m"), 2),
            load=rounded(self._load(latest), 2),
            frequency_hz=to_mega(max((r.value for r in latest if r.quantity == "frequency"), default=None)),
            throttled=_throttled(latest),
            uptime_s=int(self._clock.boot_s() - self._started_s),
            ladders={ladder.name: self._ladder(ladder) for ladder in ladders},
        )

    def _ladder(self, ladder: Ladder) -> LadderRecord:
        status, totals, window = ladder.status(), ladder.totals(), ladder.window(self._window_s)
        now_s, errors = self._clock.monotonic_s(), sum(totals.failure.values())
        before = self._before.get((ladder.name, ladder.version))
        self._before[ladder.name, ladder.version] = (now_s, totals.success, errors)
        rate_hz = new_errors = None
        if before is not None and now_s > before[0] and totals.success >= before[1] and errors >= before[2]:
            rate_hz = round((totals.success - before[1]) / (now_s - before[0]), 1)
            new_errors = errors - before[2]
        return LadderRecord(
            state=status.state,
            rung=status.active,
            p50_s=significant(window.p50_s if window else None, 3),
            p95_s=significant(window.p95_s if window else None, 3),
            p99_s=significant(window.p99_s if window else None, 3),
            rate_hz=rate_hz,
            errors=new_errors,
            pending=status.pending,
            energy_per_inference_j=significant(self._joules(ladder.name, status.active), 3),
        )

    def _joules(self, ladder: str, rung: str | None) -> float | None:
        return self._energy.joules_per_inference(ladder, rung) if self._energy and rung else None


def row(record: Record) -> dict[str, Cell]:
    """One record's cells by column, without what was not measured."""
    return {name: cells[0] for name, cells in columns([record]).items() if cells[0] is not None}


def columns(records: Sequence[Record]) -> dict[str, tuple[Cell, ...]]:
    """Column name -> one cell per record. Of ladders the names are LADDER/FIELD; one that was not loaded at the time
    of a record has nulls there. No more ladders than MAX_COLUMNS has room for."""
    plain = [f for f in Record.__struct_fields__ if f != "ladders"]
    table: dict[str, tuple[Cell, ...]] = {name: tuple(getattr(r, name) for r in records) for name in plain}
    room = (MAX_COLUMNS - len(plain)) // len(LadderRecord.__struct_fields__)
    for ladder in sorted({name for r in records for name in r.ladders})[:room]:
        for field in LadderRecord.__struct_fields__:
            table[f"{ladder}/{field}"] = tuple(
                getattr(r.ladders[ladder], field) if ladder in r.ladders else None for r in records
            )
    return table


def _power(latest: Sequence[Reading]) -> Reading | None:
    found = [r for r in latest if r.quantity == "power" and r.scope in POWER_SCOPES]
    return min(found, key=lambda r: POWER_SCOPES.index(r.scope), default=None)


def _value(latest: Sequence[Reading], quantity: str) -> float | None:
    """Of the machine: a GPU and a control group have memory of their own."""
    return next((r.value for r in latest if (r.quantity, r.scope) == (quantity, "machine")), None)


def _resident(ladders: Sequence[Ladder]) -> float | None:
    sizes = [rung.rss_bytes for ladder in ladders for rung in ladder.status().rungs if rung.rss_bytes is not None]
    return float(sum(sizes)) if sizes else None


def _throttled(latest: Sequence[Reading]) -> str | None:
    """None on a machine that does not tell."""
    flags = [r for r in latest if r.quantity == "throttled" and not r.name.endswith("since_boot")]
    return ",".join(sorted({r.name for r in flags if r.value})) if flags else None


def to_mega(value: float | None) -> float | None:
    """Also of hertz."""
    return None if value is None else round(value / MB) * MB


def significant(value: float | None, digits: int) -> float | None:
    if value is None or value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
