"""The messages of the control socket, as both ends see them.

serving/control.py -> JSON -> client.py. Values only: nothing here opens, asks or decides.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from flyball.ports import (
    AcceleratorInfo,
    Decision,
    EnergyTotal,
    LadderStatus,
    LadderTotals,
    LatencyWindow,
    Pin,
    Reading,
    SensorHealth,
    UplinkStatus,
)

AUTO = "auto"  # in place of a rung's name: let the governor choose
RECORDING_END = b'{"kind":"ended"'  # begins the line after which a recording that the daemon ended has no more


class DaemonInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who the daemon is. `board` is empty where the machine does not tell."""

    version: str
    device: str
    board: str
    mode: str


class LadderView(msgspec.Struct, frozen=True, kw_only=True):
    """One ladder seen whole. `totals.latency_buckets` leaves out the bound +Inf, which JSON cannot name: it would
    equal `totals.success`. `joules_per_inference` has the rungs for which there is data."""

    status: LadderStatus
    window: LatencyWindow | None
    totals: LadderTotals
    joules_per_inference: Mapping[str, float]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the daemon knows of itself now. `uplink` is None when it is switched off."""

    version: str
    device: str
    board: str
    mode: str
    uptime_s: float
    ladders: tuple[LadderView, ...]
    readings: tuple[Reading, ...]
    sensors: tuple[SensorHealth, ...]
    energy: EnergyTotal | None
    pins: tuple[Pin, ...]
    uplink: UplinkStatus | None


class Decisions(msgspec.Struct, frozen=True, kw_only=True):
    """The newest last."""

    decisions: tuple[Decision, ...]


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    devices: tuple[AcceleratorInfo, ...]


class RungOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold `rung` for `for_s` seconds, without a limit when None; AUTO lets the governor choose again. `force` holds it
    against the limits of temperature and memory too."""

    rung: str
    for_s: float | None = None
    force: bool = False
