"""What the birth message says of this machine, its software and its ladders. Reads files, asks nobody."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from flyball import __version__
from flyball.ports import Ladder, Readings
from flyball.uplink.messages import BirthFacts, Hardware, LadderFacts, RungFacts, Software


def birth_facts(board: str, cores: int | None, readings: Readings, ladders: Sequence[Ladder]) -> BirthFacts:
    """`board` and `cores` as sensing found them; empty and None where the machine does not tell."""
    machine = os.uname()
    memory_b = next((r.value for r in readings.latest() if (r.quantity, r.scope) == ("memory_total", "machine")), None)
    return BirthFacts(
        hardware=Hardware(
            board=board,
            machine=machine.machine,
            cores=cores,
            memory_b=None if memory_b is None else int(memory_b),
        ),
        software=Software(
            flyball=__version__, python=platform.python_version(), os=_distribution(), kernel=machine.release
        ),
        ladders=tuple(_ladder(ladder) for ladder in ladders),
    )


def _ladder(ladder: Ladder) -> LadderFacts:
    rungs = tuple(RungFacts(name=r.name, precision=r.precision, accuracy=r.accuracy) for r in ladder.status().rungs)
    return LadderFacts(name=ladder.name, version=ladder.version, rungs=rungs)


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""  # no os-release file: nobody says
