"""The machine's power where nothing measures it: a straight line over the processor's utilization.

/proc/stat -> utilization -> idle_w + (load_w - idle_w) * utilization -> W, scope "estimated"

An estimate says so in its scope and its uncertainty, and nothing takes it for a measurement: it stands back as soon as
a measured total is there (`flyball.sensing.total`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.board import Board
from flyball.sensing.contract import Roots, SensorFailed, Unavailable
from flyball.sensing.sensors.host import CpuUtilization
from flyball.sensing.sysfs import describe

NAME = "estimated"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    idle_w: float
    load_w: float  # every core busy
    uncertainty: float  # relative
    basis: str

    def power_w(self, utilization: float) -> float:
        return self.idle_w + (self.load_w - self.idle_w) * utilization


# What the boards' makers and testers published, at 5 V where it was a current. A line through two points, on boards
# that differ in what is plugged in: +-25 %.
ANCHORS = (
    ("Raspberry Pi 3 Model B", 5 * 0.30, 5 * 0.85, 0.25),
    ("Raspberry Pi 4 Model B", 2.6, 5.6, 0.25),
    ("Raspberry Pi 5 Model B", 2.8, 13.0, 0.25),
    # One figure only, "0.35 A typical": flat, and therefore far off at both ends.
    ("Raspberry Pi Zero 2 W", 5 * 0.35, 5 * 0.35, 0.60),
)


class EstimatedSensor:
    name = NAME
    stands_in = True  # for a measured total, beside which it need not be kept fresh

    def __init__(self, roots: Roots, settings: Sensing, board: Board) -> None:
        self.model = model_for(board, settings)
        self._proc = roots.proc
        self._cpu = CpuUtilization(roots.proc)

    def read(self, now_s: float) -> Sequence[Reading]:
        try:
            shares = self._cpu.since_last()
        except FileNotFoundError as error:
            raise Unavailable(f"{self._proc}/stat: no such file, so that there is no utilization") from error
        except (OSError, ValueError) as error:
            raise SensorFailed(f"{self._proc}/stat: {describe(error)}") from error
        if shares is None:
            return ()
        return (
            Reading(
                quantity="power",
                name=NAME,
                value=self.model.power_w(shares.busy),
                unit="W",
                scope="estimated",
                sensor=self.name,
                t_s=now_s,
                uncertainty=self.model.uncertainty,
            ),
        )


def model_for(board: Board, settings: Sensing) -> PowerModel:
    """The operator's own watts, else the board's published ones, else a guess that says so."""
    if settings.idle_w is not None and settings.load_w is not None:
        return PowerModel(idle_w=settings.idle_w, load_w=settings.load_w, uncertainty=0.25, basis="configuration")
    for name, idle_w, load_w, uncertainty in ANCHORS:
        # "... Rev 1.4" follows the name, and a 3 Model B Plus is not a 3 Model B.
        if board.name == name or board.name.startswith(f"{name} Rev"):
            return PowerModel(idle_w=idle_w, load_w=load_w, uncertainty=uncertainty, basis=name)
    return guess(board)


def guess(board: Board) -> PowerModel:
    """A machine of which nothing but its architecture and number of processors is known. Assumed, not measured:

    x86: 4 W + 1 W per processor idle, 6 W more per processor under load (a laptop of 4 comes to 8 and 32 W);
    others: 1.5 W + 0.25 W per processor idle, 1 W more under load (a board of 4 comes to 2.5 and 6.5 W).
    """
    cpus = board.cpus or 1
    x86 = board.arch in ("x86_64", "i686", "i386", "AMD64")
    idle_w = 4.0 + 1.0 * cpus if x86 else 1.5 + 0.25 * cpus
    load_w = idle_w + (6.0 if x86 else 1.0) * cpus
    return PowerModel(idle_w=idle_w, load_w=load_w, uncertainty=0.60, basis=f"a guess for {cpus} x {board.arch}")
