"""Small traces, built by hand."""

from __future__ import annotations

from typing import Any

from flyball.governor.replay.trace import Board, Header, Model, Step, Trace
from flyball.governor.values import Limits

MIB = float(1 << 20)
BOARD = Board(
    cpus=2, idle_w=6.0, busy_w=12.0, idle_rise_c=15.0, r_kw=5.0, tau_s=60.0, throttle_c=85.0, memory_bytes=2048 * MIB
)


def model(name: str = "big", **more: Any) -> Model:
    fields: dict[str, Any] = {
        "accuracy": 0.9, "work_s": 0.010, "joules": 0.030, "rss_bytes": 100 * MIB, "load_s": 0.3,
        "slow_down": ((0.0, 1.0, 0.0),), **more,
    }  # fmt: skip
    return Model(name=name, **fields)


BIG = model("big", accuracy=0.9, slow_down=((0.0, 1.0, 0.05), (4.0, 5.0, 0.05)))
MIDDLE = model("middle", accuracy=0.8, work_s=0.005, joules=0.015, rss_bytes=60 * MIB,
               slow_down=((0.0, 1.0, 0.05), (4.0, 3.0, 0.05)))  # fmt: skip
SMALL = model("small", accuracy=0.7, work_s=0.001, joules=0.003, rss_bytes=40 * MIB)
LADDER = (BIG, MIDDLE, SMALL)


def made(
    rows: list[dict[str, Any]],
    rungs: tuple[Model, ...] = LADDER,
    limits: Limits = Limits(deadline_s=0.025),  # noqa: B008 - frozen
    board: Board = BOARD,
    **header: Any,
) -> Trace:
    """20 requests in each period unless the row says otherwise."""
    head: dict[str, Any] = {"name": "made", "seed": 1, "ladder": "made", **header}
    period_s = head.get("period_s", 1.0)
    steps = (Step(**{"t_s": i * period_s, "arrivals": 20, **row}) for i, row in enumerate(rows))
    return Trace(header=Header(rungs=rungs, limits=limits, board=board, **head), steps=tuple(steps))
