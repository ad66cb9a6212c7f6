"""What happened to the simulated machine in one period.

plant.py -> Period -> score.py, page.py. Only data.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """What happened in one. `power_w` is the mean, `joules` what inferences and loading took beyond idle, `temp_c` as
    it is at the end; `rung` answers then. `accuracy` is summed over answers. Late answers are answers too."""

    t_s: float
    rung: str | None
    arrivals: int
    answered: int
    late: int
    refused: int
    accuracy: float
    accuracy_on_time: float
    joules: float
    power_w: float
    temp_c: float
    throttled: bool
    available_bytes: float

    @property
    def missed(self) -> int:
        return self.late + self.refused
