"""One record of telemetry: what the machine and its ladders did in the last period.

Catalog, Readings, EnergyMeter -> Recorder() -> Record -> columns() -> what a batch holds

Reads what others have measured and measures nothing itself. None means not measured, and stays None: `rate_hz` of the
first record is unknown, and a percentile over no answers is unknown; neither is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flyball.clock import Clock
from flyball.ports import Catalog, EnergyMeter, Ladder, Reading, Readings, Scope
from flyball.uplink.messages import Cell

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


class Record(msgspec.Struct, frozen=True, kw_only=True):
    ts: float
    mono: float
    power_w: float | None = None
    power_scope: str | None = None
    energy_j: float | None = None  # since the daemon's start
    temperature_c: float | None = None  # of the hottest zone
    cpu_ratio: float | None = None
    memory_available_b: float | None = None
    memory_used_b: float | None = None
    load_1m: float | None = None
    ladders: dict[str, LadderRecord] = {}


class Recorder:
    """`window_s` is what the percentiles cover; the telemetry period is the natural choice."""

    def __init__(
        self, catalog: Catalog, readings: Readings, energy: EnergyMeter | None, clock: Clock, window_s: float
    ) -> None:
        self._catalog = catalog
        self._readings = readings
        self._energy = energy
        self._clock = clock
        self._window_s = window_s
        self._before: dict[tuple[str, str], tuple[float, int, int]] = {}  # ladder -> when, answers, errors

    def __call__(self) -> Record:
        latest = self._readings.latest()
        power = _power(latest)
        energy = self._energy.energy() if self._energy else None
        hottest = max((r.value for r in latest if r.quantity == "temperature"), default=None)
        ladders = self._catalog.ladders()
        here = {(ladder.name, ladder.version) for ladder in ladders}
        self._before = {key: before for key, before in self._before.items() if key in here}
        return Record(
            ts=round(self._clock.wall_s(), 3),
            mono=round(self._clock.boot_s(), 3),
            power_w=_rounded(power.value if power else None, 3),
            power_scope=power.scope if power else None,
            energy_j=_rounded(energy.joules if energy else None, 3),
            temperature_c=_rounded(hottest, 2),
            cpu_ratio=_rounded(_value(latest, "cpu_utilization"), 4),
            memory_available_b=_value(latest, "memory_available"),
            memory_used_b=_value(latest, "memory_used"),
            load_1m=_rounded(_value(latest, "load_1m"), 2),
            ladders={ladder.name: self._ladder(ladder) for ladder in ladders},
        )

    def _ladder(self, ladder: Ladder) -> LadderRecord:
        status, totals, window = ladder.status(), ladder.totals(), ladder.window(self._window_s)
        now_s, errors = self._clock.monotonic_s(), sum(totals.failure.values())
        before = self._before.get((ladder.name, ladder.version))
        self._before[ladder.name, ladder.version] = (now_s, totals.success, errors)
        rate_hz = new_errors = None
        if before is not None and now_s > before[0] and totals.success >= before[1] and errors >= before[2]:
            rate_hz = round((totals.success - before[1]) / (now_s - before[0]), 3)
            new_errors = errors - before[2]
        return LadderRecord(
            state=status.state,
            rung=status.active,
            p50_s=_rounded(window.p50_s if window else None, 6),
            p95_s=_rounded(window.p95_s if window else None, 6),
            p99_s=_rounded(window.p99_s if window else None, 6),
            rate_hz=rate_hz,
            errors=new_errors,
            pending=status.pending,
        )


def columns(records: Sequence[Record]) -> dict[str, tuple[Cell, ...]]:
    """Column name -> one cell per record. Of ladders the names are LADDER/FIELD; one that was not loaded at the time
    of a record has nulls there."""
    plain = [f for f in Record.__struct_fields__ if f != "ladders"]
    table: dict[str, tuple[Cell, ...]] = {name: tuple(getattr(r, name) for r in records) for name in plain}
    for ladder in sorted({name for r in records for name in r.ladders}):
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


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
