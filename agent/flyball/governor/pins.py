"""Orders to hold a rung: what is checked before one is taken, and how it is told.

ladder, rung, for_s -> checked, or RequestError, NotFoundError, UnavailableError

Holds nothing itself: a pin in force is part of state.State.
"""

from __future__ import annotations

import math

import msgspec

from flyball.config import Config
from flyball.errors import NotFoundError, RequestError, UnavailableError
from flyball.governor.constraints import duration
from flyball.governor.profile import OPEN_STATES
from flyball.ports import Decision, Ladder, SwitchReport

LONGEST_S = 30 * 86400.0  # as the uplink has it; whoever wants longer means "until released"


def configured(config: Config, ladder: str) -> str:
    """The rung that the configuration pins, "" when it does not."""
    return config.ladder[ladder].rung if ladder in config.ladder else ""


def check_time(for_s: float | None) -> None:
    """Raises RequestError."""
    if for_s is None or (math.isfinite(for_s) and 0 < for_s <= LONGEST_S):
        return
    bounds = f"more than 0 seconds and at most {LONGEST_S:.0f} (30 days)"
    raise RequestError(f"for_s: expected {bounds}, or none for no limit, found {for_s}")


def check_rung(ladder: Ladder, rung: str) -> None:
    """Raises NotFoundError, UnavailableError."""
    rungs = {r.name: r for r in ladder.status().rungs}
    if rung not in rungs:
        raise NotFoundError(f"ladder {ladder.name} has no rung {rung!r} (it has: {', '.join(rungs)})")
    if rungs[rung].state == "no-accelerator":
        why = rungs[rung].error or "no accelerator for it is present"
        raise UnavailableError(f"ladder {ladder.name}, rung {rung}: {why}")


def takes_bytes(ladder: Ladder, rung: str) -> float:
    """The memory that opening the rung will take, as far as the engine knows; 0 for one that is open."""
    known = next(r for r in ladder.status().rungs if r.name == rung)
    return 0.0 if known.state in OPEN_STATES else float(known.rss_bytes or 0)


def put_off(order: Decision, limit: str) -> tuple[Decision, SwitchReport]:
    """The order to hold a rung that a limit forbids for now: the ladder stays where it is."""
    reason = f"{order.reason}, once a limit allows it: {limit}"
    binding = limit.partition(":")[0]
    decision = msgspec.structs.replace(order, target=order.source, reason=reason, binding=binding, acted=False)
    here = order.source
    return decision, SwitchReport(ladder=order.ladder, source=here, target=here, open_s=0.0, warm_s=0.0, gap_s=0.0)


def until(for_s: float | None) -> str:
    return "until released" if for_s is None else f"for {duration(for_s)}"
